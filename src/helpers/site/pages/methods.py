"""The methods of a run in words that could go into a manuscript, and a guide for its readers: prose with facts."""

import platform
from importlib import metadata

from helpers.claims import INCONCLUSIVE, VERDICTS, load_claims, primary
from helpers.site.pages import Run, rendered
from helpers.site.pages.validation import VALIDATION

#: The packages whose numbers a reader sees.
NAMED = ("scikit-bio", "statsmodels", "scipy", "firthmodels", "numpy", "pandas", "matplotlib")


def page(run: Run) -> str:
    """The Methods page, from the study and the parameters of its run."""
    study, negatives = run.study, run.study.columns.control_type
    return rendered(
        "methods",
        study=study,
        p=run.parameters,
        labels=study.labels,
        cut=study.response,
        tree=study.counted and run.has_tree,
        negatives=negatives is not None and "negative" in negatives.values,
        validated=VALIDATION.is_file(),
        python=platform.python_version(),
        versions=", ".join(f"{name} {metadata.version(name)}" for name in NAMED),
    )


def reading_guide(run: Run) -> str:
    """The Reading guide, for who does not know compositional data or equivalence tests."""
    return rendered(
        "reading_guide",
        study=run.study,
        p=run.parameters,
        labels=run.study.labels,
        claims=len(load_claims(run.study)),
        primary=" and ".join(primary(run.study)),
        verdicts=VERDICTS,
        inconclusive=INCONCLUSIVE,
    )
