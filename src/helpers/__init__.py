"""Shared helpers of the report, one room for each thing: see the README.

Names that mean the same everywhere, and are described only where they mean more:

- ``study``, ``settings``: a study.yaml (`helpers.study.Study`), and the parameters of its analysis; ``like``, the demo
  study, where cohorts are simulated;
- ``cohort``: swabs x features with counts in ``X``, as from `helpers.ingest.build_cohort`; ``swabs``: those that are
  compared, as from `helpers.measures.measured`;
- ``visits``: one row a patient and visit, as from `helpers.visits.by_patient`;
- ``claims``: claims by their names, as from `helpers.claims.load_claims`;
- ``labels``: display names of groups, arms and visits;
- ``covariates``: columns to adjust for; one that does not vary is left out, patients with a missing value are dropped
  and counted;
- ``name``: of a step, the study: a folder in ``data/``; of what a notebook saves, begins with the notebook's number;
- ``estimate``: the keys of `helpers.estimates.ESTIMATE`; ``what`` and ``who`` in a sentence: the measure, its subject,
  and the group;
- ``alpha``: level of the tests; intervals cover 1 - alpha. ``bootstraps``, ``permutations``, ``seed``: resamples, and
  the seed of everything random.

What is wrong with files that a user gives, or where the report is to be written, is a `helpers.errors.StudyError`.
"""

import sys

# What libraries import wherever it is installed, and no step needs: jsonschema, under nbformat, to check addresses and
# durations, of which a notebook has none, and compiles a grammar for a second; anndata for other arrays than a cohort
# has, for half a second. Who needs one of them asks `unhide` first.
for unneeded in ("rfc3987_syntax", "isoduration", "dask", "xarray"):
    sys.modules.setdefault(unneeded, None)  # type: ignore[arg-type]


def unhide(module: str) -> None:
    """Let a module be imported that is hidden; one that is there already stays what it is."""
    if sys.modules.get(module, ...) is None:
        del sys.modules[module]
