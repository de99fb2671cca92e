"""One question, one number: estimate, interval, p-value and n. The patient is the unit.

Every estimator returns a plain dict with the keys of `ESTIMATE`, so that a table of results is a list of them.
A better estimator for a claim goes here, under the same keys.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from firthmodels import FirthLogisticRegression
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.power import TTestPower

#: What an estimator returns: effect, interval and its coverage in per cent, two-sided p-value, patients used and
#: dropped, standard error and degrees of freedom.
ESTIMATE = ("estimate", "ci_low", "ci_high", "level", "p_value", "n", "n_dropped", "se", "df")


def as_estimate(
    estimate: float,
    interval: tuple[float, float],
    p_value: float,
    n: int,
    n_dropped: int,
    *,
    se: float,
    df: float = np.nan,
    alpha: float,
) -> dict[str, float]:
    """Put a result under the keys of `ESTIMATE`."""
    values = (estimate, *interval, 100 * (1 - alpha), p_value, n, n_dropped, se, df)
    return {k: v if k in ("n", "n_dropped") else float(v) for k, v in zip(ESTIMATE, values, strict=True)}


def linear_contrast(
    data: pd.DataFrame,
    outcome: str,
    term: str,
    covariates: Sequence[str] = (),
    *,
    cautious: bool = False,
    alpha: float = 0.05,
) -> dict[str, float]:
    """Adjusted difference between two groups, or slope, by ordinary least squares with HC3 errors.

    Parameters
    ----------
    data : DataFrame
        One row a patient.
    outcome : str
        Numeric column.
    term : str
        Numeric or boolean column whose coefficient is wanted.
    cautious : bool
        Take the larger of the HC3 error and that of equal variances: in a small group in which hardly anybody has a
        taxon, a robust error sees hardly any variance.

    Returns
    -------
    dict
        Keys of `ESTIMATE`. Patients with a missing value are dropped and counted; NaN if too few are left.

    References
    ----------
    MacKinnon & White, J Econometrics 1985;29:305 (HC3); Angrist & Pischke, Mostly Harmless Econometrics, 2009, section
    8.1 (the larger of the two in small samples).
    """
    columns = [outcome, term, *covariates]
    complete = levels_in_use(data[columns].dropna())
    varying = [c for c in covariates if complete[c].nunique() > 1]
    n, dropped = len(complete), len(data) - len(complete)
    if n < len(varying) + 4 or complete[term].nunique() < 2:
        return not_estimable(n, dropped)
    x = np.column_stack([np.ones(n), complete[term].to_numpy(float), as_numbers(complete[varying])])
    return _coefficient(complete[outcome].to_numpy(float), x, 1, dropped, alpha, cautious)


def intercept(data: pd.DataFrame, outcome: str, term: str, *, alpha: float = 0.05) -> dict[str, float]:
    """Expected outcome where `term` is zero, by ordinary least squares with HC3 errors.

    Parameters
    ----------
    data : DataFrame
        One row a patient.
    outcome, term : str
        Numeric columns.

    Returns
    -------
    dict
        Keys of `ESTIMATE`.
    """
    complete = data[[outcome, term]].dropna()
    dropped = len(data) - len(complete)
    if len(complete) < 5 or complete[term].nunique() < 2:
        return not_estimable(len(complete), dropped)
    x = np.column_stack([np.ones(len(complete)), complete[term].to_numpy(float)])
    return _coefficient(complete[outcome].to_numpy(float), x, 0, dropped, alpha)


def _coefficient(
    y: np.ndarray, x: np.ndarray, column: int, dropped: int, alpha: float, cautious: bool = False
) -> dict[str, float]:
    """The coefficient of a column of `x`, which has one of ones."""
    fit = OLS(y, x).fit(cov_type="HC3", use_t=True)
    if cautious and (plain := OLS(y, x).fit()).bse[column] > fit.bse[column]:
        fit = plain
    low, high = fit.conf_int(alpha)[column]
    p, se = fit.pvalues[column], fit.bse[column]
    return as_estimate(fit.params[column], (low, high), p, len(y), dropped, se=se, df=fit.df_resid, alpha=alpha)


def levels_in_use(columns: pd.DataFrame) -> pd.DataFrame:
    """The same columns, categories without the levels that nobody has: a model would give each a coefficient."""
    return columns.assign(**{c: columns[c].cat.remove_unused_categories() for c in columns.select_dtypes("category")})


def as_numbers(columns: pd.DataFrame, *, prefix_sep: str = "_") -> pd.DataFrame:
    """Covariates as numbers: categories as 0/1 columns without the first level, constants left out.

    Parameters
    ----------
    columns : DataFrame
        None missing.
    prefix_sep : str
        Between the name of a category and its level.
    """
    categories = [c for c in columns if not pd.api.types.is_numeric_dtype(columns[c])]  # True and False are numbers
    numbers = [(c, columns[c].to_numpy(float)) for c in columns if c not in categories]
    for c in categories:
        codes, levels = pd.factorize(columns[c], sort=True)
        numbers += [(f"{c}{prefix_sep}{level}", (codes == i).astype(float)) for i, level in enumerate(levels) if i]
    varying = [(name, values) for name, values in numbers if len(values) and np.ptp(values)]
    table = np.array([values for _, values in varying]).reshape(len(varying), len(columns)).T
    return pd.DataFrame(table, index=columns.index, columns=[name for name, _ in varying])


def pooled_sd(first: pd.DataFrame, second: pd.DataFrame) -> pd.Series:
    """Unit of a standardised mean difference: the root of the mean of the two groups' variances, by column.

    Parameters
    ----------
    first, second : DataFrame
        Numbers, 0/1 for the levels of a category.

    Returns
    -------
    Series
        NaN where neither group varies.

    References
    ----------
    Austin, Stat Med 2009;28:3083.
    """
    return np.sqrt((first.var() + second.var()) / 2).replace(0, np.nan)


def not_estimable(n: int, dropped: int = 0) -> dict[str, float]:
    """Give the estimate of something that the data do not allow to estimate: NaN, with the count that there is."""
    return {**dict.fromkeys(ESTIMATE, np.nan), "n": n, "n_dropped": dropped}


def mean_change(change: pd.Series, *, alpha: float = 0.05) -> dict[str, float]:
    """Mean within-patient change with Student's interval: an uncontrolled comparison.

    Parameters
    ----------
    change : Series
        One value a patient, follow-up minus baseline.

    Returns
    -------
    dict
        Keys of `ESTIMATE`.
    """
    x = change.dropna().to_numpy(float)
    n, dropped = len(x), len(change) - len(x)
    if n < 3 or np.ptp(x) == 0:
        return not_estimable(n, dropped)
    test = stats.ttest_1samp(x, 0)
    low, high = test.confidence_interval(1 - alpha)
    return as_estimate(x.mean(), (low, high), test.pvalue, n, dropped, se=stats.sem(x), df=n - 1, alpha=alpha)


def control_sd(visits: pd.DataFrame, measure: str) -> float:
    """Standard deviation of a measure over the controls at baseline, the yardstick of equivalence.

    Returns
    -------
    float
        NaN without controls.
    """
    return float(visits.loc[visits["who"].eq("control") & visits["visit"].eq("baseline"), measure].std())


def partial_spearman(
    data: pd.DataFrame,
    x: str,
    y: str,
    covariates: Sequence[str] = (),
    *,
    bootstraps: int = 1000,
    seed: int,
    alpha: float = 0.05,
) -> dict[str, float]:
    """Spearman correlation of `x` and `y` given the covariates, with a percentile bootstrap interval.

    Ranks of `x` and `y` are regressed on the ranks of the covariates, and the residuals correlated; the p-value is
    that of a correlation with n - 2 - k degrees of freedom, k covariates.

    Parameters
    ----------
    data : DataFrame
        One row a patient.
    x, y : str
        Numeric columns.

    Returns
    -------
    dict
        Keys of `ESTIMATE`; ``estimate`` is rho.

    References
    ----------
    Kim, Commun Stat Appl Methods 2015;22:665 (ppcor).
    """
    complete = data[[x, y, *covariates]].dropna()
    n, dropped = len(complete), len(data) - len(complete)
    numbers = as_numbers(complete)
    df = n - numbers.shape[1]
    if df < 2 or x not in numbers or y not in numbers:
        return not_estimable(n, dropped)
    rows = np.random.default_rng(seed).integers(n, size=(bootstraps, n))
    counts = np.ones((bootstraps + 1, n))
    counts[1:] = [np.bincount(row, minlength=n) for row in rows]
    estimate, *resampled = _partial_rank_correlations(numbers.to_numpy(), counts)
    low, high = np.nanquantile(resampled, [alpha / 2, 1 - alpha / 2])
    t = estimate * np.sqrt(df / max(1 - estimate**2, 1e-12))
    return as_estimate(
        estimate,
        (low, high),
        2 * stats.t.sf(abs(t), df),
        n,
        dropped,
        se=float(np.nanstd(resampled, ddof=1)),
        df=df,
        alpha=alpha,
    )


def _partial_rank_correlations(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Correlation of the ranks of the first two columns given those of the others, in each resample.

    Parameters
    ----------
    values : array
        Patients x columns.
    counts : array
        Resamples x patients: how often each is drawn.
    """
    ranks = np.empty((*counts.shape, values.shape[1]))
    for j, column in enumerate(values.T):
        _, level = np.unique(column, return_inverse=True)
        drawn = counts @ (level[:, None] == np.arange(level.max() + 1))
        ranks[:, :, j] = (np.cumsum(drawn, axis=1) - (drawn - 1) / 2)[:, level]  # of ties, the mean of their ranks
    centred = ranks - (counts.sum(axis=1, keepdims=True) + 1)[:, :, None] / 2
    products = np.matmul((centred * counts[:, :, None]).transpose(0, 2, 1), centred)
    # What the covariates explain is taken out of the sums of squares and products (the Schur complement).
    pair, across, others = products[:, :2, :2], products[:, :2, 2:], products[:, 2:, 2:]
    rest = pair - across @ np.linalg.pinv(others, rcond=1e-12, hermitian=True) @ across.transpose(0, 2, 1)
    own, left = (np.diagonal(of, axis1=1, axis2=2) for of in (pair, rest))
    varies = (left > 1e-10 * own).all(axis=1)  # what is less is rounding
    return np.where(varies, rest[:, 0, 1], np.nan) / np.sqrt(np.where(varies, left.prod(axis=1), 1))


def firth_odds_ratio(
    data: pd.DataFrame, outcome: str, term: str, covariates: Sequence[str] = (), *, alpha: float = 0.05
) -> dict[str, float]:
    """Odds ratio by Firth's penalised logistic regression: finite under separation.

    Parameters
    ----------
    data : DataFrame
        One row a patient.
    outcome : str
        Boolean column.
    term : str
        Numeric or boolean column whose odds ratio is wanted.

    Returns
    -------
    dict
        Keys of `ESTIMATE`; ``estimate`` and interval are odds ratios, ``se`` that of the log odds ratio.

    References
    ----------
    Firth, Biometrika 1993;80:27; Heinze & Schemper, Stat Med 2002;21:2409.
    """
    complete = data[[outcome, term, *covariates]].dropna()
    n, dropped = len(complete), len(data) - len(complete)
    design = as_numbers(complete[[term, *covariates]])
    y = complete[outcome].astype(int)
    if y.nunique() < 2 or term not in design:
        return not_estimable(n, dropped)
    # Standardising the covariates changes no odds ratio of `term` and keeps the Newton steps short.
    others = design.columns.drop(term)
    design[others] = (design[others] - design[others].mean()) / design[others].std()
    model = FirthLogisticRegression(backend="numpy", max_iter=200).fit(design, y)
    i = list(design.columns).index(term)
    model.lrt([i])
    low, high = np.exp(model.conf_int(alpha, method="pl", features=[i], max_iter=200)[i])
    return as_estimate(
        np.exp(model.coef_[i]), (low, high), model.lrt_pvalues_[i], n, dropped, se=model.bse_[i], alpha=alpha
    )


def percentile_test(drawn: np.ndarray, alpha: float) -> tuple[float, float, float]:
    """Percentile interval of a bootstrap, and the p-value of the same test.

    p is twice the smaller share of resamples on either side of zero, counting the sample as one of them. The limits
    are the order statistics that lie beyond zero exactly where p < alpha.

    Parameters
    ----------
    drawn : array
        The estimate in each resample.

    Returns
    -------
    tuple of float
        Lower and upper limit, p. The limits are infinite with too few resamples for any p below alpha.

    References
    ----------
    Davison & Hinkley, Bootstrap Methods and Their Application, 1997, sections 4.2 (the one added) and 5.3.
    """
    x = np.sort(drawn)
    attainable = np.minimum(2 * np.arange(1, len(x) + 1) / (len(x) + 1), 1)
    beyond = int((attainable < alpha).sum())  # the most resamples on the other side of zero with which p < alpha
    low, high = (x[beyond - 1], x[-beyond]) if beyond else (-np.inf, np.inf)
    return float(low), float(high), float(attainable[min((x <= 0).sum(), (x >= 0).sum(), len(x) - 1)])


def adjusted_p(p: pd.Series, method: str) -> pd.Series:
    """Adjust p-values for multiple testing; what could not be tested (NaN) does not count as a test.

    Parameters
    ----------
    method : str
        ``holm`` or ``fdr_bh`` (Benjamini-Hochberg).

    Returns
    -------
    Series
        Indexed like `p`, NaN where `p` is.
    """
    rising = p.dropna().sort_values(kind="stable")
    places = np.arange(1, len(rising) + 1)
    if method == "holm":
        adjusted = (rising * places[::-1]).cummax()
    else:
        adjusted = (rising / (places / len(rising)))[::-1].cummin()
    return adjusted.clip(upper=1).reindex(p.index)


def cliffs_delta(a: pd.Series, b: pd.Series) -> float:
    """P(a > b) - P(a < b) for a random pair, between -1 and 1.

    Parameters
    ----------
    a, b : Series
        Values of the two groups; missing values are dropped.

    References
    ----------
    Cliff, Psychol Bull 1993;114:494.
    """
    x, y = a.dropna(), b.dropna()
    if x.empty or y.empty:
        return np.nan
    return float(2 * stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) - 1)


def equivalence(estimate: dict[str, Any], margin: float) -> dict[str, float]:
    """Two one-sided tests that the effect is smaller than the margin, whichever its sign.

    Parameters
    ----------
    estimate : dict
        As from an estimator; ``estimate``, ``se`` and ``df`` are used.
    margin : float
        Margin of equivalence, in the unit of the estimate.

    Returns
    -------
    dict
        ``margin`` and ``p_equivalence``, the larger of the two one-sided p-values; NaN without an error or a margin.

    References
    ----------
    Schuirmann, J Pharmacokinet Biopharm 1987;15:657.
    """
    if not estimate["se"] > 0:
        return {"margin": margin, "p_equivalence": np.nan}
    t = (margin - abs(estimate["estimate"])) / estimate["se"]
    return {"margin": margin, "p_equivalence": float(stats.t.sf(t, estimate["df"]))}


def minimum_detectable_effect(estimate: dict[str, Any], *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true effect that a test with this standard error finds with the given power.

    Parameters
    ----------
    estimate : dict
        As from an estimator; ``se`` and ``df`` are used.
    alpha, power : float
        Two-sided level and power.

    Returns
    -------
    float
        In the unit of the estimate; NaN if the standard error is not known.

    References
    ----------
    Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, from the noncentral t distribution.
    """
    se, df = estimate["se"], estimate["df"]
    if not np.isfinite(se) or not np.isfinite(df):
        return np.nan
    nobs = df + 1
    return float(TTestPower().solve_power(nobs=nobs, alpha=alpha, power=power) * np.sqrt(nobs) * se)
