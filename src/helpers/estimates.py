"""One question, one number: estimate, interval, p-value and n. The patient is the unit.

Every estimator takes ``data`` with a row a patient, and returns a plain dict with the keys of `ESTIMATE`, so that a
table of results is a list of them. Patients with a missing value are dropped and counted; NaN if too few are left.
A better estimator for a claim goes here, under the same keys.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import special, stats
from scipy.integrate import fixed_quad
from scipy.optimize import brentq

#: Names of columns.
Names = Sequence[str]
#: What an estimator returns: effect, interval and its coverage in per cent, two-sided p-value, patients used and
#: dropped, standard error and degrees of freedom.
ESTIMATE = ("estimate", "ci_low", "ci_high", "level", "p_value", "n", "n_dropped", "se", "df")

#: People that each group needs in a run of `by_run`: errors from few people err, and the weights with them. In normal
#: data, with 3 to 6 runs that all have a small group, an interval of 95 % covers .83 to .87 with two people in it, .89
#: to .91 with three, .91 to .94 with five, .94 to .95 with twelve.
ENOUGH_IN_RUN = 5


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


def with_t(estimate: float, se: float, df: float, n: int, n_dropped: int, *, alpha: float) -> dict[str, float]:
    """An estimate whose error is known on so many degrees of freedom: with Student's interval and p-value."""
    half = special.stdtrit(df, 1 - alpha / 2) * se
    p = 2 * special.stdtr(df, -abs(estimate / se)) if se else np.nan
    return as_estimate(estimate, (estimate - half, estimate + half), p, n, n_dropped, se=se, df=df, alpha=alpha)


def linear_contrast(
    data: pd.DataFrame, outcome: str, term: str, covariates: Names = (), *, cautious: bool = False, alpha: float = 0.05
) -> dict[str, float]:
    """Adjusted difference between two groups, or slope, by ordinary least squares with HC3 errors.

    The coefficient of the term, a number or boolean, is wanted. A `cautious` error is the larger of HC3's and that of
    equal variances: in a small group in which hardly anybody has a taxon, a robust error sees hardly any variance.

    References
    ----------
    MacKinnon & White, J Econometrics 1985;29:305 (HC3); Angrist & Pischke, Mostly Harmless Econometrics, 2009, section
    8.1 (the larger of the two in small samples).
    """
    complete, x = design(data, outcome, term, covariates)
    n, dropped = len(complete), len(data) - len(complete)
    if not x.size:
        return not_estimable(n, dropped)
    found, robust, plain, df = coefficients(complete[outcome].to_numpy(float)[None, :], x)
    se = max(robust[0], plain[0]) if cautious else robust[0]
    return with_t(found[0], se, df, n, dropped, alpha=alpha)


def design(data: pd.DataFrame, outcome: str, term: str, covariates: Names = ()) -> tuple[pd.DataFrame, np.ndarray]:
    """The people of `linear_contrast` and its columns: ones, the term, covariates that vary; none if people are few."""
    complete = data[[outcome, term, *covariates]].dropna()
    varying = [c for c in covariates if complete[c].nunique() > 1]
    if len(complete) < len(varying) + 4 or complete[term].nunique() < 2:
        return complete, np.empty((0, 0))
    numbers = as_numbers(complete[varying])
    return complete, np.column_stack([np.ones(len(complete)), complete[term].to_numpy(float), numbers])


def hartung_knapp(effects: pd.Series, errors: pd.Series, *, alpha: float = 0.05) -> dict[str, float]:
    """Mean of effects that differ among runs more than their errors say.

    Random effects with the variance among runs of Paule and Mandel; interval and p-value by Hartung, Knapp, Sidik and
    Jonkman, whose error is that of the effects about their mean, with a t distribution.

    `errors` are above zero. ``n`` is the number of runs, ``df`` one less. NaN with fewer than three, or if all effects
    are the same.

    References
    ----------
    IntHout, Ioannidis & Borm, BMC Med Res Methodol 2014;14:25; Paule & Mandel, J Res Natl Bur Stand 1982;87:377.
    """
    k = len(effects)
    if k < 3 or np.ptp(effects) == 0:
        return not_estimable(k)
    from statsmodels.stats.meta_analysis import combine_effects  # and more of statsmodels, for few studies

    pooled = combine_effects(effects.to_numpy(float), errors.to_numpy(float) ** 2, method_re="pm")
    return with_t(pooled.mean_effect_re, pooled.sd_eff_w_re_hksj, k - 1, k, 0, alpha=alpha)


def by_run(
    data: pd.DataFrame, outcome: str, term: str, covariates: Names, run: str, *, alpha: float = 0.05
) -> dict[str, float]:
    """Adjusted difference between two groups within each run, pooled over the runs: a run moves its swabs together.

    `linear_contrast` in each run that has `ENOUGH_IN_RUN` of both groups, then `hartung_knapp`. The term is boolean;
    the column `run` tells in which one a person is. With ``runs``, how many were pooled; ``n`` counts the people of
    those runs, ``n_dropped`` all others. NaN with fewer than three runs.
    """
    runs = (of for _, of in data.dropna(subset=[outcome, term, run, *covariates]).groupby(run, observed=True))
    large = [people for people in runs if people[term].value_counts().min() >= ENOUGH_IN_RUN]
    fits = [linear_contrast(people, outcome, term, covariates, alpha=alpha) for people in large]
    found = pd.DataFrame(fits, columns=ESTIMATE).query("se > 0")
    n = int(found["n"].sum())
    pooled = hartung_knapp(found["estimate"], found["se"], alpha=alpha)
    return pooled | {"n": n, "n_dropped": len(data) - n, "runs": len(found)}


def coefficients(
    y: np.ndarray, x: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Coefficients of the second column of `x` for many outcomes, by least squares as of `linear_contrast`.

    `y` are outcomes x people, `x` people x columns. Estimates come back, their HC3 errors, and those of equal
    variances, an outcome each; and the degrees of freedom.
    """
    root = np.ones(len(x)) if weights is None else np.sqrt(weights)
    u, s, vt = np.linalg.svd(x * root[:, None], full_matrices=False)
    there = s > 1e-15 * max(x.shape) * s[0]
    basis, df = u[:, there], len(x) - int(there.sum())
    row, y = (vt[there, 1] / s[there]) @ basis.T, y * root
    squares = (y - (y @ basis) @ basis.T) ** 2
    left = 1 - (basis**2).sum(axis=1)
    alone = left < 1e-10  # in a category: fitted exactly, as if left out
    robust = np.sqrt(squares @ np.where(alone, 0, row / np.where(alone, 1, left)) ** 2)
    return y @ row, robust, np.sqrt(squares.sum(axis=1) / df * (row**2).sum()), df


def as_numbers(columns: pd.DataFrame, *, prefix_sep: str = "_") -> pd.DataFrame:
    """Covariates, none missing, as numbers: categories as 0/1 columns without the first level, constants left out.

    The name of such a column is that of the category, `prefix_sep`, and the level.
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

    Of numbers, 0/1 for the levels of a category; NaN where neither group varies.

    References
    ----------
    Austin, Stat Med 2009;28:3083.
    """
    return np.sqrt((first.var() + second.var()) / 2).replace(0, np.nan)


def not_estimable(n: int, dropped: int = 0) -> dict[str, float]:
    """Give the estimate of something that the data do not allow to estimate: NaN, with the count that there is."""
    return {**dict.fromkeys(ESTIMATE, np.nan), "n": n, "n_dropped": dropped}


def mean_change(change: pd.Series, *, alpha: float = 0.05) -> dict[str, float]:
    """Mean within-patient change, follow-up minus baseline, with Student's interval: an uncontrolled comparison."""
    x = change.dropna().to_numpy(float)
    n, dropped = len(x), len(change) - len(x)
    if n < 3 or np.ptp(x) == 0:
        return not_estimable(n, dropped)
    return with_t(x.mean(), x.std(ddof=1) / np.sqrt(n), n - 1, n, dropped, alpha=alpha)


def control_sd(visits: pd.DataFrame, measure: str) -> float:
    """Standard deviation of a measure over the controls at baseline, the yardstick of equivalence; NaN without any."""
    return float(visits.loc[visits["who"].eq("control") & visits["visit"].eq("baseline"), measure].std())


def margin_interval(
    values: pd.Series, factor: float, *, bootstraps: int, seed: int, alpha: float = 0.05
) -> tuple[float, float]:
    """How well a margin of equivalence is known that is a multiple of the controls' standard deviation.

    Of one value a control, missing ones dropped, and the `factor`: the standard deviations that make the margin. A
    percentile interval in resamples of the controls, in the unit of the values; NaN with fewer than two.

    References
    ----------
    Davison & Hinkley, Bootstrap Methods and Their Application, 1997, section 5.3.
    """
    x = values.dropna().to_numpy(float)
    if len(x) < 2:
        return np.nan, np.nan
    resampled = np.random.default_rng(seed).choice(x, (bootstraps, len(x))).std(axis=1, ddof=1)
    low, high = factor * np.quantile(resampled, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def partial_spearman(
    data: pd.DataFrame, x: str, y: str, covariates: Names = (), *, bootstraps: int, seed: int, alpha: float = 0.05
) -> dict[str, float]:
    """Spearman correlation of `x` and `y` given the covariates, with a percentile bootstrap interval.

    Ranks of `x` and `y` are regressed on the ranks of the covariates, and the residuals correlated; the p-value is
    that of a correlation with n - 2 - k degrees of freedom, k covariates. ``estimate`` is rho.

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
    t = t_of_correlation(estimate, df)
    p, se = 2 * stats.t.sf(abs(t), df), np.nanstd(resampled, ddof=1)
    return as_estimate(estimate, (low, high), p, n, dropped, se=se, df=df, alpha=alpha)


def t_of_correlation(rho: Any, df: float) -> Any:
    """The t value of a correlation, or of many."""
    return rho * np.sqrt(df / np.maximum(1 - rho**2, 1e-12))


def _partial_rank_correlations(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Correlation of the ranks of the first two columns given those of the others, in each resample.

    `values` are patients x columns; `counts`, resamples x patients, how often each is drawn.
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
    data: pd.DataFrame, outcome: str, term: str, covariates: Names = (), *, alpha: float = 0.05
) -> dict[str, float]:
    """Odds ratio by Firth's penalised logistic regression: finite under separation.

    Of a boolean outcome, by a numeric or boolean term. ``estimate`` and interval are odds ratios, ``se`` is that of the
    log odds ratio.

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
    from firthmodels import FirthLogisticRegression  # and all of scikit-learn, for one table of a chapter

    model = FirthLogisticRegression(backend="numpy", max_iter=200).fit(design, y)
    i = list(design.columns).index(term)
    model.lrt([i])
    low, high = np.exp(model.conf_int(alpha, method="pl", features=[i], max_iter=200)[i])
    odds, p, se = np.exp(model.coef_[i]), model.lrt_pvalues_[i], model.bse_[i]
    return as_estimate(odds, (low, high), p, n, dropped, se=se, alpha=alpha)


def percentile_test(drawn: np.ndarray, alpha: float) -> tuple[float, float, float]:
    """Percentile interval of a bootstrap, and the p-value of the same test.

    Of the estimate in each resample: lower and upper limit, p. p is twice the smaller share of resamples on either side
    of zero, counting the sample as one of them. The limits are the order statistics that lie beyond zero exactly where
    p < alpha; infinite with too few resamples for any p below alpha.

    References
    ----------
    Davison & Hinkley, Bootstrap Methods and Their Application, 1997, sections 4.2 (the one added) and 5.3.
    """
    x = np.sort(drawn)
    attainable = np.minimum(2 * np.arange(1, len(x) + 1) / (len(x) + 1), 1)
    beyond = int((attainable < alpha).sum())  # the most resamples on the other side of zero with which p < alpha
    low, high = (x[beyond - 1], x[-beyond]) if beyond else (-np.inf, np.inf)
    return float(low), float(high), float(attainable[min((x <= 0).sum(), (x >= 0).sum(), len(x) - 1)])


def adjusted_p(p: pd.Series, method: Literal["holm", "fdr_bh"]) -> pd.Series:
    """Adjust p-values for multiple testing; what could not be tested (NaN) does not count as a test, and stays NaN.

    As `statsmodels.stats.multitest.multipletests`, which searches all memory for garbage each time.

    References
    ----------
    Holm, Scand J Stat 1979;6:65. Benjamini & Hochberg, J R Stat Soc B 1995;57:289.
    """
    order = np.argsort(p.to_numpy(float))[: p.count()]  # NaN comes last
    ranked, rank = p.to_numpy(float)[order], np.arange(1, len(order) + 1)
    if method == "holm":
        stepped = np.maximum.accumulate(ranked * rank[::-1])
    else:
        stepped = np.minimum.accumulate((ranked / (rank / len(order)))[::-1])[::-1]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(stepped, 1)
    return pd.Series(adjusted, index=p.index)


def cliffs_delta(a: pd.Series, b: pd.Series) -> float:
    """P(a > b) - P(a < b) for a random pair of two groups' values, missing ones dropped: between -1 and 1.

    References
    ----------
    Cliff, Psychol Bull 1993;114:494.
    """
    x, y = a.dropna(), b.dropna()
    if x.empty or y.empty:
        return np.nan
    return float(2 * stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) - 1)


def equivalence(estimate: dict[str, Any], margin: float, sign: int = 0) -> dict[str, float]:
    """Test that the effect is smaller than the margin: whichever its sign, or in one direction.

    With the `sign` 0, two one-sided tests; with 1 or -1 one test, of non-inferiority, that the effect in this direction
    is smaller than the margin: "does not fall" is -1. ``margin``, in the unit of the estimate, and ``p_equivalence``,
    the larger of the p-values; NaN without an error or a margin.

    References
    ----------
    Schuirmann, J Pharmacokinet Biopharm 1987;15:657.
    """
    if not estimate["se"] > 0:
        return {"margin": margin, "p_equivalence": np.nan}
    effect = sign * estimate["estimate"] if sign else abs(estimate["estimate"])
    t = (margin - effect) / estimate["se"]
    return {"margin": margin, "p_equivalence": float(stats.t.sf(t, estimate["df"]))}


def equivalence_reach(
    se: float, df: float, n: float, margin: float, sign: int = 0, *, alpha: float = 0.05, power: float = 0.8
) -> dict[str, float]:
    """What `equivalence` could show in a study of this size, if there were no effect at all.

    From the estimate's standard error, its degrees of freedom, and the patients; margin and sign are as of
    `equivalence`, alpha is the level of each of the one-sided tests.

    ``power_equivalence``, of this study; ``reachable_margin``, the smallest margin shown with the wanted power, in the
    unit of the error; ``attainable``, whether an estimate of exactly zero would pass; ``n_needed``, the patients with
    whom the margin is shown with it, in groups of the same proportions: the error falls with the root of their
    number. NaN without an error, degrees of freedom, or a margin above zero.

    References
    ----------
    Phillips, J Pharmacokinet Biopharm 1990;18:137; Schuirmann, the same, 1987;15:657.
    """
    if not (se > 0 and df > 0 and margin > 0):
        return dict.fromkeys(("power_equivalence", "reachable_margin", "attainable", "n_needed"), np.nan)

    def power_of(errors: float, df: float) -> float:
        """Power at a margin of so many true errors, over the quantiles of the error that is seen."""
        t = special.stdtrit(df, 1 - alpha)
        sides = 1 if sign else 2
        # Both tests fail, whatever is estimated, where the error that is seen is larger than the margin over t.
        possible = 1 if sign else special.chdtr(df, df * (errors / t) ** 2)

        def passes(q: np.ndarray) -> np.ndarray:
            seen = np.sqrt(2 * special.gammaincinv(df / 2, q) / df)
            return sides * special.ndtr(errors - t * seen) - (sides - 1)

        return float(fixed_quad(passes, 0, possible, n=200)[0])

    has = margin / se
    needs = brentq(lambda errors: power_of(errors, df) - power, 0, 100 * special.stdtrit(df, 1 - alpha))
    fewest, most = n - df + 1, n * max(1, (needs / has) ** 2) + 1

    def lacks(patients: float) -> float:
        return power_of(has * np.sqrt(patients / n), df + patients - n) - power

    return {
        "power_equivalence": power_of(has, df),
        "reachable_margin": needs * se,
        "attainable": bool(special.stdtr(df, -has) < alpha),
        "n_needed": float(np.ceil(fewest if lacks(fewest) >= 0 else brentq(lacks, fewest, most))),
    }


#: Columns of numbers in the unit of an estimate, beside it.
_IN_ITS_UNIT = ("estimate", "ci_low", "ci_high", "boot_low", "boot_high", "detectable", "reachable_margin")


def coarse(table: pd.DataFrame) -> pd.DataFrame:
    """Estimates to the second digit of half their interval, so that no number of people can be computed back from them.

    Intervals of several levels, or an interval and the p-value beside it, would tell the degrees of freedom. To two
    significant digits at least, so that none crosses zero, and to three at most. What a study would need (n_needed) is
    told as 1, 2 or 5 times a power of ten, upwards.
    """
    if table.empty:
        return table
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.log10((table["ci_high"] - table["ci_low"]) / 2)
        for column in table.columns.intersection(_IN_ITS_UNIT):
            size = np.floor(np.log10(table[column].abs()))
            unit = 10 ** (size + 1 - (size - np.floor(half) + 2).clip(2, 3))
            table = table.assign(**{column: ((table[column] / unit).round() * unit).fillna(table[column])})
    if "n_needed" in table:
        steps = np.outer(10.0 ** np.arange(9), [1, 2, 5]).ravel()
        at = np.searchsorted(steps, table["n_needed"].fillna(1)).clip(max=len(steps) - 1)
        table = table.assign(n_needed=pd.Series(steps[at], table.index).where(table["n_needed"].notna()))
    return table


def minimum_detectable_effect(estimate: dict[str, Any], *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true effect that a two-sided test with this standard error finds with the given power.

    In the unit of the estimate; NaN if the standard error is not known.

    References
    ----------
    Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, from the noncentral t distribution.
    """
    df, se = estimate["df"], estimate["se"]
    if not np.isfinite(df * se):
        return np.nan
    t = stats.t.ppf(1 - alpha / 2, df)

    def lacks(errors: float) -> float:
        return power - stats.nct.sf(t, df, errors)  # the other tail has next to nothing

    return float(brentq(lacks, 0, 10 + 3 * t) * se)
