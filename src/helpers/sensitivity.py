"""What would have to be true for a verdict to move: unmeasured causes, patients who were lost, regression, load."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.estimates import Names, as_estimate, as_numbers, not_estimable, percentile_test, pooled_sd, with_t

# ---------------------------------------------------------------- an unmeasured cause


def robustness_value(t: float, df: float, *, alpha: float = 1) -> float:
    """How strong an unmeasured cause of both treatment and outcome would have to be to overturn a coefficient.

    That is the share, 0 to 1, that it would have to explain of the variance that the model leaves in treatment and
    outcome, of each, to take the coefficient to zero: with alpha = 1 the estimate itself; with less, its interval of
    1 - alpha is to include zero, and 0 is said where it does already.

    `t` is the coefficient's t value by ordinary least squares, with its plain standard error (a robust one has no such
    algebra), and `df` the residual degrees of freedom.

    References
    ----------
    Cinelli & Hazlett, J R Stat Soc B 2020;82:39, section 4.2; Biometrika 2025 (the case of a very large t).
    """
    f = abs(t) / np.sqrt(df)
    needed = stats.t.isf(alpha / 2, df - 1) / np.sqrt(df - 1)
    if f <= needed:
        return 0.0
    if f * needed > 1:  # a cause that explains less of the outcome than of the treatment does more harm
        return float((f**2 - needed**2) / (1 + f**2))
    return float((np.sqrt((f - needed) ** 4 + 4 * (f - needed) ** 2) - (f - needed) ** 2) / 2)


def confounding(
    data: pd.DataFrame, outcome: str, term: str, covariates: Names, *, alpha: float = 0.05
) -> dict[str, Any]:
    """How strong an unmeasured cause would have to be, with the strongest measured one as yardstick.

    Of what `strength_of` is given: ``robustness`` and ``robustness_interval`` (`robustness_value` for the estimate and
    for its interval); its ``strongest`` and what that ``removes``. Empty with too few patients.
    """
    known, t, df = strength_of(data, outcome, term, covariates)
    if known.empty:
        return {}
    values = {"robustness": robustness_value(t, df), "robustness_interval": robustness_value(t, df, alpha=alpha)}
    most = known.loc[known["removes"].fillna(np.inf).idxmax()]
    return values | {"strongest": most["covariate"], "removes": most["removes"]}


def strength_of(data: pd.DataFrame, outcome: str, term: str, covariates: Names) -> tuple[pd.DataFrame, float, float]:
    """How strong the measured covariates are: the yardstick for an unmeasured one.

    `data` has a row a patient; those with a missing value are left out. The coefficient of the term, a number or
    boolean, is in question; its t value, with its plain standard error, and the residual degrees of freedom come last.

    One row a covariate that varies, a category as a whole: ``covariate``; ``outcome`` and ``term``, the share that it
    explains of the variance that the others (and the term) leave in the outcome, and the others in the term;
    ``removes``, the share of the term's coefficient that an unmeasured cause as strong as it, and unrelated to it,
    could at most account for: above 1, its sign. NaN where the covariate explains half of the term, as no second one
    could. No rows with too few patients, or one value of the term.

    References
    ----------
    Cinelli & Hazlett, J R Stat Soc B 2020;82:39, section 4.4 (the bounds, of a cause once as strong); section 6.1 says
    why ``outcome`` and ``term`` themselves are no bounds.
    """
    complete = data[[outcome, term, *covariates]].dropna()
    # As text: a formula gives a level of a category that nobody has a coefficient.
    complete = complete.astype(dict.fromkeys(complete.select_dtypes("category"), object))
    varying = [c for c in covariates if complete[c].nunique() > 1]
    numbers = as_numbers(complete[[term, *varying]])
    if term not in numbers or len(complete) < numbers.shape[1] + 3:
        return pd.DataFrame(columns=["covariate", "outcome", "term", "removes"]), np.nan, np.nan
    # A measure may be named after a taxon, which is no name for a formula.
    frame = complete.assign(_outcome=complete[outcome].astype(float), _term=complete[term].astype(float))
    from statsmodels.regression.linear_model import OLS  # slow to import, and for one chapter

    on_outcome = OLS.from_formula(" + ".join(["_outcome ~ _term", *varying]), frame).fit()
    on_term = OLS.from_formula(" + ".join(["_term ~ 1", *varying]), frame).fit()
    y, d = (_partial_r2(fit)[varying].to_numpy() for fit in (on_outcome, on_term))
    possible = np.where(d < 0.5, 1 - 2 * d, np.nan)
    unmeasured = np.minimum(y / (1 - y) / possible, 1) * d / possible
    t, df = on_outcome.tvalues["_term"], on_outcome.df_resid
    removes = np.sqrt(unmeasured * df) / abs(t)
    return pd.DataFrame({"covariate": varying, "outcome": y, "term": d, "removes": removes}), t, df


def _partial_r2(fit: Any) -> pd.Series:
    """Share of the variance left by the other terms that each explains, from the F test of all its columns."""
    from statsmodels.stats.anova import anova_lm

    squares = anova_lm(fit, typ=2)["sum_sq"]
    return squares / (squares + squares["Residual"])


# ---------------------------------------------------------------- patients who were lost


def who_was_lost(pairs: pd.DataFrame, columns: Names) -> pd.DataFrame:
    """Those without a second visit beside those who came to both, by characteristics at baseline, the `columns`.

    `pairs` as from `helpers.visits.paired`; whoever has no first visit is in neither group. One row a characteristic
    that varies, a category by its levels but the first: ``covariate``; of the two groups, lost and stayed, the patients
    in whom it is known (``n_lost``, ``n_stayed``), their mean or share (``lost``, ``stayed``) and its standard
    deviation (``sd_lost``, ``sd_stayed``; NaN of a share); ``difference``, lost minus stayed, in
    `helpers.estimates.pooled_sd`.
    """
    started = pairs[pairs["y0"].notna()]
    numbers = pd.concat([as_numbers(started[[c]].dropna(), prefix_sep=": ") for c in columns], axis=1)
    numbers = numbers.reindex(started.index)
    share = numbers.isin([0, 1]).where(numbers.notna(), True).all()
    groups = {"lost": numbers[started["y1"].isna()], "stayed": numbers[started["y1"].notna()]}
    table: dict[str, pd.Series] = {}
    for name, of in groups.items():
        table |= {f"n_{name}": of.count(), name: of.mean(), f"sd_{name}": of.std().mask(share)}
    table["difference"] = (table["lost"] - table["stayed"]) / pooled_sd(*groups.values())
    return pd.DataFrame(table).rename_axis("covariate").reset_index()


def tipping_point(estimate: dict[str, Any], lost: int, of: int) -> float:
    """How differently the lost would have to have changed for the interval to include zero.

    "Differently" is from what the estimate, a mean change or a difference of means, expects of them: the change of
    those who stayed, or what was imputed. If they changed by delta more, a mean change moves by delta x lost / of; the
    interval moves along, its width stays. Of a difference between arms, `lost` and `of`, all patients, are those of one
    arm: of the comparator, the sign is the other one.

    Signed, in the unit of the measure; NaN where nobody was lost, or the interval includes zero already.

    References
    ----------
    Cro et al., Stat Med 2020;39:2815; Ratitch, O'Kelly & Tosiello, Pharm Stat 2013;12:337 (delta adjustment).
    """
    return -_nearer_limit(estimate) * of / lost if lost else np.nan


def _nearer_limit(estimate: dict[str, Any]) -> float:
    """The limit of the interval that is nearer to zero; NaN if zero is within."""
    low, high = estimate["ci_low"], estimate["ci_high"]
    return float(min(low, high, key=abs)) if low * high > 0 else np.nan


def rubin(estimates: np.ndarray, errors: np.ndarray, df_complete: float) -> tuple[float, float, float]:
    """Pool the estimates of several imputations: estimate, standard error and degrees of freedom.

    The degrees of freedom `df_complete`, if nothing had been missing, are infinite for a normal test.

    References
    ----------
    Rubin, Multiple Imputation for Nonresponse in Surveys, 1987; Barnard & Rubin, Biometrika 1999;86:948.
    """
    m = len(estimates)
    between = (1 + 1 / m) * np.var(estimates, ddof=1)
    variance = np.mean(np.square(errors)) + between
    missing = max(between / variance, 1e-4)  # the floor is mice's, for imputations that agree
    # Reciprocals of the two degrees of freedom, of which either may be infinite.
    of_imputing = missing**2 / (m - 1)
    of_sampling = (1 + 2 / (df_complete + 1)) / df_complete / (1 - missing) if np.isfinite(df_complete) else 0
    return float(np.mean(estimates)), float(np.sqrt(variance)), float(1 / (of_imputing + of_sampling))


def imputed(
    pairs: pd.DataFrame,
    estimate: Callable[[pd.DataFrame], dict[str, float]],
    covariates: Names = (),
    *,
    imputations: int = 20,
    seed: int,
    alpha: float = 0.05,
) -> dict[str, float]:
    """Any estimate with the missing visits imputed, as if whoever was lost had changed like those who are alike.

    Multiple imputation by chained equations: each incomplete number by Bayesian linear regression on all others.
    Patients without either visit, or with a missing category, are dropped and counted. With nothing to impute, the
    estimate itself; NaN with too few patients to impute from.

    `pairs` have a row a patient: ``y0``, ``y1`` and the covariates, which tell of these, or of who was lost: the arm
    (``treated``), severity, improvement; missing numbers are imputed too. The estimate is made from such a table, whose
    ``change`` is y1 - y0, and has its error on its own scale: ``lambda p: mean_change(p["change"])``, or
    `helpers.treatment.ancova`.

    References
    ----------
    van Buuren & Groothuis-Oudshoorn, J Stat Softw 2011;45(3) (mice; its method ``norm``); `rubin` for the pooling.
    """
    kept = pairs[pairs[["y0", "y1"]].notna().any(axis=1)]
    kept = kept.dropna(subset=kept[list(covariates)].select_dtypes(exclude="number").columns)
    known = kept[["y0", "y1", *covariates]].select_dtypes("number").astype(float)
    if known.notna().all(axis=None):
        found = estimate(kept)
        return found | {"n_dropped": found["n_dropped"] + len(pairs) - len(kept)}
    others = as_numbers(kept[[c for c in covariates if c not in known]])
    numbers = known.join(others).to_numpy()
    if np.isfinite(numbers).sum(axis=0).min() < numbers.shape[1] + 3:
        both = int(kept[["y0", "y1"]].notna().all(axis=1).sum())
        return not_estimable(both, len(pairs) - both)
    results = []
    for drawn in _chained(numbers, imputations, np.random.default_rng(seed)):
        filled = kept.assign(**dict(zip(known, drawn.T, strict=False)))
        results.append(estimate(filled.assign(change=filled["y1"] - filled["y0"])))
    table = pd.DataFrame(results)
    df_complete = table["df"].fillna(np.inf).min()
    pooled = rubin(table["estimate"].to_numpy(), table["se"].to_numpy(), df_complete)
    n, dropped = int(table["n"].min()), int(table["n_dropped"].max()) + len(pairs) - len(kept)
    return with_t(*pooled, n, dropped, alpha=alpha)


def _chained(numbers: np.ndarray, imputations: int, rng: np.random.Generator) -> np.ndarray:
    """Complete copies of a table of numbers, imputations x rows x columns, after ten cycles."""
    missing = np.isnan(numbers)
    drawn = np.repeat(np.where(missing, np.nanmean(numbers, axis=0), numbers)[None], imputations, axis=0)
    incomplete = np.flatnonzero(missing.any(axis=0))
    for _ in range(10 if len(incomplete) > 1 else 1):
        for j in incomplete:
            gone = missing[:, j]
            x = np.concatenate([np.ones((*drawn.shape[:2], 1)), np.delete(drawn, j, axis=2)], axis=2)
            seen, y = x[:, ~gone], drawn[:, ~gone, j]
            solve = np.linalg.pinv(seen)
            residuals = y - _times(seen, _times(solve, y))
            sigma = np.sqrt((residuals**2).sum(axis=1) / rng.chisquare(seen.shape[1] - seen.shape[2], imputations))
            # The coefficients of an outcome with fresh noise are a draw from their posterior.
            beta = _times(solve, y + sigma[:, None] * rng.normal(size=y.shape))
            noise = sigma[:, None] * rng.normal(size=(imputations, gone.sum()))
            drawn[:, gone, j] = _times(x[:, gone], beta) + noise
    return drawn


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Each matrix times its vector."""
    return np.matmul(matrices, vectors[:, :, None])[:, :, 0]


# ---------------------------------------------------------------- regression to the mean


def beyond_regression(
    pairs: pd.DataFrame,
    controls: pd.DataFrame,
    sign: int,
    severity: str | None = None,
    *,
    elevation: float = 1.0,
    bootstraps: int,
    seed: int,
    alpha: float = 0.05,
) -> dict[str, float]:
    """What is left of a mean change towards health less what an inert drug would have shown in patients enrolled ill.

    Patients are enrolled by their severity, which the measure follows with a correlation r, that of the patients at
    baseline; with r = 1, by the measure itself: the worst case. Of an elevation, the share 1 - reliability is of the
    day, and gone by the next visit: what is subtracted is r (1 - reliability) elevation SD. The reliability is that of
    the controls' two visits; it is too low where patients differ more from each other than controls do (too much is
    then subtracted), too high where their skin is less steady. What regression could explain, and a change the other
    way, comes out as zero.

    Keys of `helpers.estimates.ESTIMATE`, of patients; interval and p-value from a bootstrap of patients and controls
    (`helpers.estimates.percentile_test`). NaN with fewer than five patients or controls.

    `pairs` have a row a patient, `controls` one a control: ``y0`` and ``y1``; whoever lacks one is dropped. The `sign`
    is 1 where more is healthier, else -1; `severity` is the column of that by which they were enrolled, at baseline:
    without it, r = 1. The `elevation` is how much worse the patients were when enrolled than people with the disease
    are on an average day, in standard deviations of the patients at baseline.

    References
    ----------
    Barnett, van der Pols & Dobson, Int J Epidemiol 2005;34:215; Davis, Am J Epidemiol 1976;104:493.
    """
    columns = ["y0", "y1", *([severity] if severity else [])]
    patients, steady = pairs[columns].dropna().to_numpy(float), controls[["y0", "y1"]].dropna().to_numpy(float)
    n, dropped = len(patients), len(pairs) - len(patients)
    if min(n, len(steady)) < 5 or np.ptp(patients[:, 0]) == 0:
        return not_estimable(n, dropped)
    rng = np.random.default_rng(seed)
    drawn, healthy = (p[rng.integers(len(p), size=(bootstraps, len(p)))] for p in (patients, steady))
    change, regression = _change_and_regression(drawn, healthy, sign)
    (mean,), (expected,) = _change_and_regression(patients[None], steady[None], sign)
    beyond = sign * np.maximum(sign * change - elevation * regression, 0)
    low, high, p = percentile_test(beyond, alpha)
    left = sign * max(sign * mean - elevation * expected, 0)
    return as_estimate(left, (low, high), p, n, dropped, se=beyond.std(ddof=1), alpha=alpha)


def _change_and_regression(patients: np.ndarray, controls: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean change, and the regression of an elevation of severity by one SD.

    Of samples x people x visits; of patients, the severity may come after the visits.
    """
    # What does not vary among the controls tells of no reliability: all of an elevation is then taken for passing.
    reliability = _correlation(controls[..., 0], controls[..., 1])
    start, end = patients[..., 0], patients[..., 1]
    followed = -sign * _correlation(start, patients[..., 2]) if patients.shape[2] > 2 else np.ones(len(patients))
    return (end - start).mean(axis=1), np.maximum(followed, 0) * (1 - reliability) * start.std(axis=1, ddof=1)


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each row; 0 where one does not vary."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (first, second))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), norm, out=np.zeros(len(norm)), where=norm > 0)


# ---------------------------------------------------------------- the load


def load_to_overturn(estimate: dict[str, Any]) -> float:
    """How many times as large the community would have to have become for a taxon itself to have stayed as it was.

    An effect c on the CLR is one of c + log(factor) on the log of the absolute abundance, where factor is by how many
    times the geometric mean of all taxa, the typical taxon, differs, which sequencing does not see. At exp(-limit) the
    interval of the absolute effect reaches zero. This is the factor of the total load only if the typical taxon keeps
    its share of it.

    Of an estimate of a CLR, in natural logs: below 1 where the taxon rose; NaN if the interval includes zero already.

    References
    ----------
    Nixon et al., Scale reliant inference, arXiv 2201.03616; Nixon, Gloor & Silverman, Genome Biol 2025;26:139.
    """
    return float(np.exp(-_nearer_limit(estimate)))
