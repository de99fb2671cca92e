"""Severity change, response strata, and what the shift has to do with them."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import percentileofscore

from helpers.estimates import ESTIMATE, as_numbers, linear_contrast, mean_change, not_estimable, with_t
from helpers.measures import Measure
from helpers.narrate import with_unit
from helpers.study import FEW, Response, Severity, Study
from helpers.visits import cases_and_controls, paired


def improvement(visits: pd.DataFrame, severity: Sequence[Severity]) -> pd.Series:
    """Improvement of the first severity score (higher is worse) between the visits, in per cent of its baseline value.

    Indexed by subject; negative where the score rose, NaN where a visit is missing, the baseline is zero or there is no
    score.
    """
    if not severity:
        return pd.Series(np.nan, index=visits["subject"].unique(), name="improvement")
    scores = paired(visits, severity[0].name).dropna(subset=["y0", "y1"], how="all").set_index("subject").sort_index()
    start = scores["y0"].where(scores["y0"] > 0)
    return (100 * (start - scores["y1"]) / start).rename("improvement")


def strata(improved: pd.Series, response: Response) -> pd.Series:
    """Strata of an improvement in per cent, ordered, such as ``<50 %``, ``50-74 %``, ``75-89 %``, ``≥90 %``."""
    a, b, c = (f"{x:g}" for x in (response.non_responder, response.responder, response.near_clear))
    below_b, below_c = (f"{x - 1:g}" for x in (response.responder, response.near_clear))
    edges = [-np.inf, response.non_responder, response.responder, response.near_clear, np.inf]
    labels = [f"<{a} %", f"{a}–{below_b} %", f"{b}–{below_c} %", f"≥{c} %"]
    return pd.cut(improved, edges, right=False, labels=labels).rename("stratum")


def patients(visits: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The patients at baseline, indexed by subject, with their improvement and stratum of response."""
    at_baseline = visits[visits["case"] & visits["visit"].eq("baseline")].set_index("subject")
    at_baseline = at_baseline.join(improvement(visits, study.severity))
    return at_baseline.assign(stratum=strata(at_baseline["improvement"], study.response))


class Shift(NamedTuple):
    """Change by stratum of response: mean of each arm; trend over strata; each patient's; the controls' own change."""

    means: pd.DataFrame
    trends: pd.DataFrame
    changes: pd.DataFrame
    noise: dict[str, tuple[float, float]]


def shift_by_stratum(
    visits: pd.DataFrame, strata: pd.Series, measures: Mapping[str, Measure], study: Study, *, alpha: float = 0.05
) -> Shift:
    """Change of several measures by stratum of response, as from `strata`; empty where nobody with an arm has one.

    ``means`` as from `mean_by_stratum` and ``trends`` as from `trend`, with ``measure``, its label (of trends also
    ``unit`` and ``scale``); ``means``, ``changes`` (scale, arm, stratum, change) and ``noise`` (interval of the
    controls' mean change) have ``scale``, label and unit.
    """
    means, trends, changes, noise = [], [], [], {}
    for key, measure in measures.items():
        pairs = paired(visits, key).join(strata, on="subject")
        treated = pairs[pairs["arm"].notna()]
        table = mean_by_stratum(treated, alpha=alpha, fewest=study.privacy.fewest)
        if table.empty:
            continue
        scale = with_unit(f"{measure.label}, change", "times" if measure.scale == "fold change" else measure.unit)
        own = mean_change(pairs.loc[pairs["who"].eq("control"), "change"], alpha=alpha)
        noise[scale] = (own["ci_low"], own["ci_high"])
        about = {"measure": measure.label, "unit": measure.unit, "scale": measure.scale}
        trends.append(about | trend(treated, alpha=alpha))
        means.append(table.assign(measure=measure.label, scale=scale))
        changes.append(treated.assign(scale=scale).dropna(subset=["stratum", "change"]))
    all_means, all_changes = (
        pd.concat([pd.DataFrame(), *filter(len, tables)], ignore_index=True) for tables in (means, changes)
    )
    return Shift(all_means, pd.DataFrame(trends), all_changes, noise)


def mean_by_stratum(pairs: pd.DataFrame, *, alpha: float = 0.05, fewest: int = 0) -> pd.DataFrame:
    """Mean within-patient change in each ``stratum`` of response of each ``arm``: these, and the keys of an estimate.

    The strata are what happened after treatment began, so this is a description, not an effect. `pairs` has a row a
    patient with arm, stratum and ``change``; a mean is given of no less than the `fewest` patients, its interval of no
    less than five.
    """
    by, rows = ["arm", "stratum"], []
    for (arm, stratum), part in pairs.groupby(by, observed=True):
        known = part["change"].dropna()
        estimate = mean_change(part["change"], alpha=alpha)
        if len(known) < max(FEW, fewest):
            estimate = not_estimable(len(known), len(part) - len(known))
            estimate["estimate"] = known.mean() if len(known) >= fewest else np.nan
        rows.append({"arm": arm, "stratum": stratum} | estimate)
    return pd.DataFrame(rows, columns=[*by, *ESTIMATE]).astype(pairs[by].dtypes.to_dict())


def trend(pairs: pd.DataFrame, *, alpha: float = 0.05) -> dict[str, float]:
    """Trend of the change from one stratum of response to the next, arms apart.

    The strata count 0, 1, 2, 3; the slope, mean change for one stratum more, is that of least squares with an intercept
    for each arm and HC3 errors. `pairs` has a row a patient with ``change``, ``arm`` and ``stratum``, ordered as from
    `strata`. The only patient of an arm, of whom no slope can be learnt, is dropped. NaN with fewer than five patients,
    one stratum in each arm, or a slope that hangs on one patient alone (leverage 1).

    References
    ----------
    Agresti, Categorical Data Analysis, 2013, section 3.4 (linear trend over scores).
    """
    if not getattr(pairs["stratum"].dtype, "ordered", False):
        raise ValueError("stratum must be an ordered category, as from strata()")
    complete = pairs.dropna(subset=["change", "arm", "stratum"])
    size = complete.groupby("arm", observed=True)["arm"].transform("size")
    complete = complete[size > 1].assign(step=complete["stratum"].cat.codes.astype(float))
    dropped = len(pairs) - len(complete)
    off = (complete["step"] - complete.groupby("arm", observed=True)["step"].transform("mean")) ** 2
    leverage = 1 / size[size > 1] + off / (off.sum() or 1)
    if off.sum() == 0 or leverage.max() > 1 - 1e-9:
        return not_estimable(len(complete), dropped)
    return linear_contrast(complete, "change", "step", ["arm"], alpha=alpha) | {"n_dropped": dropped}


def within_between_slopes(
    visits: pd.DataFrame, outcome: str, severity: str, covariates: Sequence[str] = (), *, alpha: float = 0.05
) -> pd.DataFrame:
    """Slope of a measure on severity between patients, and within patients from visit to visit.

    Generalised estimating equations over both visits of the patients, clustered on the patient, exchangeable
    correlation, bias-reduced covariance; severity enters as the patient's mean and as the deviation from it.

    Indexed by slope (between, within): keys of `helpers.estimates.ESTIMATE`, for one point more of severity; n counts
    patients, n_dropped visits with a missing value; t with patients less coefficients degrees of freedom. NaN with
    fewer than ten patients more than coefficients.

    References
    ----------
    Neuhaus & Kalbfleisch, Biometrics 1998;54:638 (between and within); Mancl & DeRouen, Biometrics 2001;57:126
    (bias-reduced covariance).
    """
    cases = visits[visits["case"]]
    complete = cases[["subject", outcome, severity, *covariates]].dropna()
    dropped = len(cases) - len(complete)
    mean = complete.groupby("subject")[severity].transform("mean")
    numbers = as_numbers(complete[list(covariates)])
    x = pd.DataFrame({"between": mean - mean.mean(), "within": complete[severity] - mean}).join(numbers)
    n = complete["subject"].nunique()
    df = n - x.shape[1] - 1
    names = pd.Index(["between", "within"], name="slope")
    if df < 10 or x["between"].nunique() < 2 or np.allclose(x["within"], 0):
        return pd.DataFrame([not_estimable(n, dropped)] * 2, index=names)
    from statsmodels.genmod.cov_struct import Exchangeable  # slow to import, and for one chapter
    from statsmodels.genmod.generalized_estimating_equations import GEE
    from statsmodels.tools import add_constant

    y = complete[outcome].to_numpy(float)
    model = GEE(y, add_constant(x), groups=complete["subject"], cov_struct=Exchangeable())
    fit = model.fit(cov_type="bias_reduced")
    rows = [with_t(fit.params[s], fit.bse[s], df, n, dropped, alpha=alpha) for s in names]
    return pd.DataFrame(rows, index=names)


def slopes(visits: pd.DataFrame, measures: Mapping[str, Measure], study: Study, *, alpha: float = 0.05) -> pd.DataFrame:
    """Slopes of several measures on each severity score: their names, and the keys of `helpers.estimates.ESTIMATE`."""
    rows = []
    for (key, measure), score in product(measures.items(), study.severity):
        found = within_between_slopes(visits, key, score.name, study.adjust.group, alpha=alpha).to_dict("index")
        rows += [{"measure": measure.label, "score": score.label, "slope": name, **e} for name, e in found.items()]
    return pd.DataFrame(rows)


def places(both: pd.DataFrame, measures: Mapping[str, Measure]) -> pd.DataFrame:
    """Where patients lie among the controls: a row a measure and patient, ``measure``, its label, and ``percentile``.

    `both` has a row a person.
    """
    each = [
        pd.DataFrame({"measure": m.label, "percentile": percentiles(*cases_and_controls(both, key))})
        for key, m in measures.items()
    ]
    return pd.concat(each)


def percentiles(values: pd.Series, controls: pd.Series) -> pd.Series:
    """Percentile of each patient in the distribution of the controls: per cent below the value, ties counted half."""
    shares = percentileofscore(controls.dropna(), values, kind="mean")
    return pd.Series(shares, index=values.index, name="percentile").where(values.notna())
