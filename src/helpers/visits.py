"""Swabs to patients and visits: one row a patient and visit; pairs of visits; which swabs are compared.

``obs`` has a row a swab, with the standard columns; what says which swabs, a bool each, is indexed like it. ``visits``
has a row a patient and visit, as from `by_patient`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.study import EXTENSIBLE, VOCABULARY


def analysis_swabs(obs: pd.DataFrame, swabs: str) -> pd.Series:
    """Say which swabs enter the models: ``all``, or ``lesional_at_baseline``; negative controls never do.

    The latter keeps a patient's sites that were lesional at baseline, at both visits. A site is followed whether or not
    it has healed: choosing by the skin's state at follow-up would choose by the outcome. Controls keep all their swabs.
    """
    sample = obs["control_type"].eq("sample")
    return sample if swabs == "all" else sample & (obs["group"].eq("control") | sites_at_baseline(obs, lesional=True))


def compared(obs: pd.DataFrame) -> pd.DataFrame:
    """The swabs that claims are about: of baseline and follow-up; of further arms those of baseline, without arm."""
    further = obs["arm"].notna() & ~obs["arm"].isin(VOCABULARY["arm"])
    about = obs["visit"].isin(VOCABULARY["visit"]) & (~further | obs["visit"].eq("baseline"))
    if about.all() and not further.any():
        return obs
    kept = obs[about].assign(arm=obs["arm"].mask(further))
    categories = {
        c: pd.CategoricalDtype(VOCABULARY[c], obs[c].dtype.ordered)
        for c in EXTENSIBLE
        if isinstance(obs[c].dtype, pd.CategoricalDtype)
    }
    return kept.astype(categories)


def sites_at_baseline(obs: pd.DataFrame, *, lesional: bool) -> pd.Series:
    """Say which swabs are of a site that was, or was not, lesional at baseline; at both visits.

    False where the state at baseline is not recorded.
    """
    site = _of_person(obs)
    so = obs["lesional"].eq(lesional).fillna(False).astype(bool)
    return site.isin(set(site[obs["visit"].eq("baseline") & so]))


def _of_person(obs: pd.DataFrame) -> pd.Series:
    """The site of each swab, told from the same site of other people."""
    return obs["subject"].astype(str).str.cat(obs["site"].astype(str), sep="\0")


def same_sites(obs: pd.DataFrame) -> pd.Series:
    """Say which swabs are of a site that its person has at both visits, so that a change is one of skin, not of sites.

    Where there is no other visit, or no site in common, the first visit stays whole: such people count as lost.
    """
    site = _of_person(obs)
    visits = [set(site[obs["visit"].eq(visit)]) for visit in ("baseline", "followup")]
    common = site.isin(visits[0] & visits[1])
    by_subject = obs.groupby("subject", observed=True)
    once = by_subject["visit"].transform("nunique").eq(1)
    none = ~common.groupby(obs["subject"], observed=True).transform("any")
    return common | (none & (once | obs["visit"].eq("baseline")))


def by_patient(obs: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Average the swabs of a patient at a visit.

    `measures` are numeric columns, indexed like `obs`; missing values are left out of the mean. One row a patient and
    visit: the columns of `obs` that belong to the patient or the visit, `measures`, boolean ``case``, and ``who`` (see
    `who`).
    """
    columns = obs.columns.difference(
        ["site", "lesional", "control_type", "depth", "load", *measures.columns], sort=False
    )
    keys = ["subject", "visit"]
    patients = obs[columns].groupby(keys, observed=True, sort=True).first()
    means = measures.join(obs[keys]).groupby(keys, observed=True, sort=True).mean()
    visits = patients.join(means).reset_index()
    visits["case"] = visits["group"].eq("case")
    visits["who"] = who(visits)
    return visits


def who(obs: pd.DataFrame) -> pd.Series:
    """Name the arm of a patient, or the group where there is no arm, from columns ``group`` and ``arm``.

    That is ``control``, ``treatment``, ``comparator``, or ``case`` for a patient without an arm.
    """
    return obs["arm"].astype(object).where(obs["arm"].notna(), obs["group"].astype(object))


def cases_and_controls(visits: pd.DataFrame, measure: str) -> tuple[pd.Series, pd.Series]:
    """Values of the patients and of the controls."""
    return visits.loc[visits["case"], measure], visits.loc[~visits["case"], measure]


def paired(visits: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Put the two visits of each patient side by side.

    One row a patient: the columns of the first visit that there is, and of the outcome ``y0``, ``y1``, ``change`` =
    y1 - y0; NaN where a visit is missing, so that estimators drop and count who was lost.
    """
    of, subjects = pd.factorize(visits["subject"])
    y = np.full((2, len(subjects)), np.nan)
    for values, visit in zip(y, ("baseline", "followup"), strict=True):
        at = visits["visit"].eq(visit).to_numpy()
        values[of[at]] = visits.loc[at, outcome].to_numpy(float, na_value=np.nan)
    first = visits.drop(columns=["subject", "visit", outcome])[~visits["subject"].duplicated().to_numpy()]
    first.insert(0, "subject", subjects)
    return first.reset_index(drop=True).assign(y0=y[0], y1=y[1], change=y[1] - y[0])


def changes(visits: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Within-patient change of several measures.

    Patients x `columns`, numbers, follow-up minus baseline, NaN where a visit is missing; and ``who``.
    """
    of = visits.set_index("subject")
    start, end = (of.loc[of["visit"].eq(v), list(columns)] for v in ("baseline", "followup"))
    everybody = of.loc[~of.index.duplicated(), "who"]
    return (end - start).reindex(everybody.index).join(everybody)


def with_controls(visits: pd.DataFrame, patients: Sequence[str]) -> pd.DataFrame:
    """Rows of patients (subjects) at follow-up and of controls then, or at baseline if fewer than three came twice."""
    last = visits["visit"].eq("followup")
    controls = visits["who"].eq("control")
    reference = last if (controls & last).sum() >= 3 else visits["visit"].eq("baseline")
    return visits[(last & visits["subject"].isin(patients)) | (reference & controls)]
