"""Severity change, response strata, and what the shift has to do with them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.estimates import ESTIMATE, mean_change
from helpers.study import Response, Severity


def improvement(visits: pd.DataFrame, severity: Sequence[Severity]) -> pd.Series:
    """Improvement of the first severity score between the visits, in per cent of its baseline value.

    Parameters
    ----------
    visits : DataFrame
        One row a patient and visit, as from `helpers.estimates.by_patient`.
    severity : sequence of Severity
        The study's scores, higher is worse; without one, nobody's improvement is known.

    Returns
    -------
    Series
        Indexed by subject; negative where the score rose, NaN where a visit is missing or the baseline is zero.
    """
    if not severity:
        return pd.Series(np.nan, index=visits["subject"].unique(), name="improvement")
    wide = visits.pivot_table(index="subject", columns="visit", values=severity[0].name, observed=False)
    wide = wide.reindex(columns=["baseline", "followup"])
    start = wide["baseline"].where(wide["baseline"] > 0)
    return (100 * (start - wide["followup"]) / start).rename("improvement")


def strata(improved: pd.Series, response: Response) -> pd.Series:
    """Disjoint response strata.

    Parameters
    ----------
    improved : Series
        Improvement in per cent.
    response : Response
        The thresholds.

    Returns
    -------
    Series
        Ordered categorical, such as ``<50 %``, ``50-74 %``, ``75-89 %``, ``≥90 %``.
    """
    a, b, c = (f"{x:g}" for x in (response.non_responder, response.responder, response.near_clear))
    below_b, below_c = (f"{x - 1:g}" for x in (response.responder, response.near_clear))
    edges = [-np.inf, response.non_responder, response.responder, response.near_clear, np.inf]
    labels = [f"<{a} %", f"{a}–{below_b} %", f"{b}–{below_c} %", f"≥{c} %"]
    return pd.cut(improved, edges, right=False, labels=labels).rename("stratum")


def shift_by_stratum(
    pairs: pd.DataFrame, by: Sequence[str] = ("arm", "stratum"), *, alpha: float = 0.05
) -> pd.DataFrame:
    """Mean within-patient change in each stratum of response.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient with ``change`` and the columns `by`.
    by : sequence of str
    alpha : float

    Returns
    -------
    DataFrame
        One row a stratum: `by` and the keys of an estimate. The strata are what happened after treatment began, so
        this is a description, not an effect.
    """
    rows = []
    for key, part in pairs.groupby(list(by), observed=True):
        values = key if isinstance(key, tuple) else (key,)
        estimate = mean_change(part["change"], alpha=alpha)
        if np.isnan(estimate["estimate"]):
            estimate["estimate"] = part["change"].mean()
        rows.append(dict(zip(by, values, strict=True)) | estimate)
    return pd.DataFrame(rows, columns=[*by, *ESTIMATE]).astype({c: pairs[c].dtype for c in by})


def with_controls(visits: pd.DataFrame, patients: Sequence[str]) -> pd.DataFrame:
    """Patients at follow-up and the controls at the same visit, or at baseline if fewer than three came twice.

    Parameters
    ----------
    visits : DataFrame
        One row a patient and visit, as from `helpers.estimates.by_patient`.
    patients : sequence of str
        Subjects.

    Returns
    -------
    DataFrame
        Rows of `visits`.
    """
    last = visits["visit"].eq("followup")
    controls = visits["who"].eq("control")
    reference = last if (controls & last).sum() >= 3 else visits["visit"].eq("baseline")
    return visits[(last & visits["subject"].isin(patients)) | (reference & controls)]


def percentiles(values: pd.Series, controls: pd.Series) -> pd.Series:
    """Percentile of each patient in the distribution of the controls.

    Parameters
    ----------
    values : Series
        One value a patient.
    controls : Series
        One value a control.

    Returns
    -------
    Series
        Per cent of controls below the value, ties counted half.
    """
    reference = np.sort(controls.dropna().to_numpy())
    below = np.searchsorted(reference, values, side="left")
    at_most = np.searchsorted(reference, values, side="right")
    shares = 50 * (below + at_most) / len(reference) if len(reference) else np.full(len(values), np.nan)
    return pd.Series(shares, index=values.index, name="percentile").where(values.notna())
