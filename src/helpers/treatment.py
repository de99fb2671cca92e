"""Arm contrasts: ANCOVA, change score, overlap weights, and what the arms' sizes could have shown.

``pairs`` have a row a patient: ``y0``, ``y1``, ``change``, boolean ``treated``, and the covariates. Differences are of
treatment minus comparator.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats
from scipy.integrate import fixed_quad
from scipy.optimize import brentq
from scipy.special import expit, stdtr, stdtrit

from helpers.estimates import Names, as_estimate, as_numbers, linear_contrast, not_estimable, percentile_test, pooled_sd


def arms(pairs: pd.DataFrame) -> pd.DataFrame:
    """Patients who have an ``arm``, with boolean ``treated``."""
    return pairs[pairs["arm"].notna()].assign(treated=lambda p: p["arm"].eq("treatment"))


def ancova(pairs: pd.DataFrame, covariates: Names = (), *, alpha: float = 0.05) -> dict[str, float]:
    """Difference between the arms at follow-up, given baseline and covariates: the primary contrast, with HC3 errors.

    References
    ----------
    Vickers & Altman, BMJ 2001;323:1123.
    """
    return linear_contrast(pairs, "y1", "treated", ["y0", *covariates], alpha=alpha)


def _design(pairs: pd.DataFrame, covariates: Names) -> np.ndarray:
    """Intercept and covariates as standardised numbers."""
    numbers = as_numbers(pairs[list(covariates)])
    return np.column_stack([np.ones(len(pairs)), (numbers - numbers.mean()) / numbers.std()])


def _products(x: np.ndarray) -> np.ndarray:
    """The outer product of each row with itself, flat: weighted sums of rows are then one matrix multiplication."""
    return (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)


def _least_squares(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Coefficients of least squares in each resample, resamples x columns of `x`; the least ones if not unique."""
    k = x.shape[1]
    inverse = np.linalg.pinv((counts @ _products(x)).reshape(-1, k, k), hermitian=True)
    return np.matmul(inverse, (counts @ (x * y[:, None]))[:, :, None])[:, :, 0]


def _firth(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Firth's logistic regression in each resample, by Newton steps on the penalised score; resamples x columns."""
    k = x.shape[1]
    outer = _products(x)
    beta = np.zeros((len(counts), k))
    for _ in range(50):
        p = expit(beta @ x.T)
        v = counts * p * (1 - p)
        inverse = np.linalg.pinv((v @ outer).reshape(-1, k, k), hermitian=True)
        leverage = v * (inverse.reshape(-1, k * k) @ outer.T)
        score = (counts * (y - p) + leverage * (0.5 - p)) @ x
        step = np.matmul(inverse, score[:, :, None])[:, :, 0]
        # Steps of more than two standard units on the scale of the logit would overshoot.
        step /= np.maximum(abs(step).max(axis=1, keepdims=True) / 2, 1)
        beta += step
        if abs(step).max() < 1e-9:
            break
    return beta


def _overlap(x: np.ndarray, treated: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Overlap weights in each resample, not normalised; resamples x patients."""
    propensity = expit(_firth(x, treated.astype(float), counts) @ x.T)
    return counts * np.where(treated, 1 - propensity, propensity)


@lru_cache(maxsize=32)
def _resampled_overlap(x: bytes, treated: bytes, bootstraps: int, seed: int) -> np.ndarray:
    """`_overlap` in the resamples of `_resamples`, kept: it takes most of the time, and all outcomes have the same."""
    arm = np.frombuffer(treated, bool)
    return _overlap(np.frombuffer(x).reshape(len(arm), -1), arm, _resamples(arm, bootstraps, seed))


def _resamples(treated: np.ndarray, bootstraps: int, seed: int) -> np.ndarray:
    """How often each patient is drawn in each resample, stratified by arm; the first row is the sample itself."""
    rng = np.random.default_rng(seed)
    counts = np.ones((bootstraps + 1, len(treated)))
    for arm in (treated, ~treated):
        n = arm.sum()
        counts[1:, arm] = rng.multinomial(n, np.full(n, 1 / n), size=bootstraps)
    return counts


def overlap_weights(pairs: pd.DataFrame, covariates: Names) -> pd.Series:
    """Overlap weights from Firth logistic propensity of treatment.

    A treated patient weighs 1 - e and a comparator patient e, with e the propensity: those who could have had either
    drug count most. The weights sum to one in each arm. `ValueError` if there is one only, or a covariate is missing.

    References
    ----------
    Li, Morgan & Zaslavsky, J Am Stat Assoc 2018;113:390; Firth, Biometrika 1993;80:27.
    """
    if missing := pairs[list(covariates)].isna().any().pipe(lambda m: list(m.index[m])):
        raise ValueError(f"{missing[0]} is missing in {pairs[missing[0]].isna().sum()} patients; drop them first")
    treated = pairs["treated"].to_numpy(bool)
    if len(set(treated)) < 2:
        raise ValueError("one arm only: there is no propensity to estimate")
    weights = pd.Series(_overlap(_design(pairs, covariates), treated, np.ones((1, len(pairs))))[0], index=pairs.index)
    return weights / weights.groupby(treated).transform("sum")


def arm_contrasts(
    pairs: pd.DataFrame, covariates: Names = (), *, bootstraps: int, seed: int, alpha: float = 0.05
) -> pd.DataFrame:
    """Difference between the arms by three estimators, each with a bootstrap interval from the same resamples.

    - ANCOVA (primary): `ancova`, value at follow-up given the baseline value and the covariates; HC3.
    - Change score: change given the covariates; HC3.
    - Overlap weights: difference of the weighted mean changes (`overlap_weights`), the propensity fitted anew in each
      resample; standard error, interval and p-value from the bootstrap (`helpers.estimates.percentile_test`).

    Indexed by estimator: keys of `helpers.estimates.ESTIMATE`, treatment minus comparator, and ``boot_low``,
    ``boot_high``, the percentile interval. NaN with fewer than five patients in an arm.

    References
    ----------
    Davison & Hinkley, Bootstrap Methods and Their Application, 1997, section 3.2 (stratified resampling).
    """
    complete = pairs.dropna(subset=["y0", "y1", "treated", *covariates])
    treated, dropped = complete["treated"].to_numpy(bool), len(pairs) - len(complete)
    if min(treated.sum(), (~treated).sum()) < 5:
        nothing = dict.fromkeys(("ANCOVA", "change score", "overlap weights"), not_estimable(len(complete)))
        return _with_bootstrap(nothing, {}, dropped, "estimator", alpha)
    counts = _resamples(treated, bootstraps, seed)
    x, change = _design(complete, covariates), complete["change"].to_numpy(float)
    after_before = _design(complete, ["y0", *covariates])
    t = treated.astype(float)
    weights = _resampled_overlap(x.tobytes(), treated.tobytes(), bootstraps, seed)
    means = [(weights[:, arm] @ change[arm]) / weights[:, arm].sum(axis=1) for arm in (treated, ~treated)]
    drawn = {
        "ANCOVA": _least_squares(np.column_stack([after_before, t]), complete["y1"].to_numpy(float), counts)[:, -1],
        "change score": _least_squares(np.column_stack([x, t]), change, counts)[:, -1],
        "overlap weights": means[0] - means[1],
    }
    weighted, *resampled = drawn["overlap weights"]
    low, high, p = percentile_test(resampled, alpha)
    se = np.std(resampled, ddof=1)
    rows = {
        "ANCOVA": ancova(complete, covariates, alpha=alpha),
        "change score": linear_contrast(complete, "change", "treated", covariates, alpha=alpha),
        "overlap weights": as_estimate(weighted, (low, high), p, len(complete), 0, se=se, alpha=alpha),
    }
    return _with_bootstrap(rows, drawn, dropped, "estimator", alpha)


def _with_bootstrap(
    rows: Mapping[str, dict[str, float]], drawn: Mapping[str, np.ndarray], dropped: int, kind: str, alpha: float
) -> pd.DataFrame:
    """Estimates, which the index names, with the percentile interval of what was drawn of each: after the sample's."""
    limits = {name: percentile_test(values[1:], alpha)[:2] for name, values in drawn.items()}
    bootstrap = pd.DataFrame.from_dict(limits, orient="index", columns=["boot_low", "boot_high"], dtype=float)
    table = pd.DataFrame(list(rows.values()), index=pd.Index(rows, name=kind))
    return table.assign(n_dropped=dropped).join(bootstrap)


def product_interval(a: dict[str, float], b: dict[str, float], *, alpha: float = 0.05) -> tuple[float, float, float]:
    """Interval of the product of two independent estimates, and the p-value of the same test.

    Each true value is taken as its estimate plus its error times a t variable; the limits are quantiles of the product
    of the two, which is skewed. Lower and upper limit, and p, twice the smaller probability of either sign; NaN without
    an error of both.

    References
    ----------
    MacKinnon, Lockwood & Williams, Multivariate Behav Res 2004;39:99; Tofighi & MacKinnon, Behav Res Methods
    2011;43:692 (normal, where this has t).
    """
    (x, x_se, x_df), (y, y_se, y_df) = ((e["estimate"], e["se"], e["df"]) for e in (a, b))
    if not (x_se > 0 and y_se > 0):
        return np.nan, np.nan, np.nan
    x_negative, y_negative = stdtr(x_df, -x / x_se), stdtr(y_df, -y / y_se)
    negative = x_negative * (1 - y_negative) + (1 - x_negative) * y_negative

    def below(product: float) -> float:
        """P(XY < product): the mean of P(Y < product / X), or of P(Y > product / X), over the quantiles of X."""

        def given(q: np.ndarray) -> np.ndarray:
            at = x + x_se * stdtrit(x_df, q)
            return stdtr(y_df, np.sign(at) * (product / at - y) / y_se)

        return sum(fixed_quad(given, *part, n=200)[0] for part in ((0, x_negative), (x_negative, 1)))

    # Beyond this is less than alpha / 2 of the product: less than alpha / 4 of either factor is beyond its own.
    bound = np.prod([abs(e) + s * stdtrit(d, 1 - alpha / 8) for e, s, d in ((x, x_se, x_df), (y, y_se, y_df))])
    low, high = (
        brentq(lambda at, level=level: below(at) - level, *((0, bound) if negative < level else (-bound, 0)))
        for level in (alpha / 2, 1 - alpha / 2)
    )
    return low, high, float(2 * min(negative, 1 - negative))


def mediation(
    pairs: pd.DataFrame, mediator: str, covariates: Names = (), *, bootstraps: int, seed: int, alpha: float = 0.05
) -> pd.DataFrame:
    """Total, direct and indirect effect of the arm on the value at follow-up, through a mediator: a numeric column.

    Linear models given the baseline value and the covariates: total, without the mediator; direct, with it; indirect,
    the arm's effect on the mediator times the mediator's on the outcome. They mean this if nothing unmeasured acts on
    two of arm, mediator and outcome, and if the mediator acts alike in both arms: ``interaction`` is the difference of
    its slopes.

    Indexed by effect (total, direct, indirect, interaction, and the two links of the indirect one: arm to mediator,
    mediator to outcome): keys of `helpers.estimates.ESTIMATE`, and ``boot_low``, ``boot_high``, the percentile
    interval. Interval and p-value of the indirect effect are those of the product of its two links
    (`product_interval`), of the others those of HC3. NaN with fewer than five patients in an arm, or a constant
    mediator.

    References
    ----------
    Baron & Kenny, J Pers Soc Psychol 1986;51:1173; VanderWeele, Explanation in Causal Inference, 2015, chapter 2;
    Aroian, Ann Math Stat 1947;18:265 (standard error of a product).
    """
    given = ["y0", *covariates]
    complete, drawn = _mediation_draws(pairs, mediator, covariates, bootstraps, seed)
    if not drawn:
        effects = ("total", "direct", "indirect", "interaction", "arm to mediator", "mediator to outcome")
        nothing = dict.fromkeys(effects, not_estimable(len(complete)))
        return _with_bootstrap(nothing, {}, len(pairs) - len(complete), "effect", alpha)
    centred = complete.assign(
        mediator=complete[mediator] - complete[mediator].mean(),
        product=lambda p: p["mediator"] * (p["treated"] - p["treated"].mean()),
    )
    to_mediator = linear_contrast(centred, "mediator", "treated", given, alpha=alpha)
    to_outcome = linear_contrast(centred, "y1", "mediator", [*given, "treated"], alpha=alpha)
    low, high, p = product_interval(to_mediator, to_outcome, alpha=alpha)
    (a, a_se), (b, b_se) = ((link["estimate"], link["se"]) for link in (to_mediator, to_outcome))
    se = np.sqrt((a * b_se) ** 2 + (b * a_se) ** 2 + (a_se * b_se) ** 2)
    rows = {
        "total": linear_contrast(centred, "y1", "treated", given, alpha=alpha),
        "direct": linear_contrast(centred, "y1", "treated", [*given, "mediator"], alpha=alpha),
        "indirect": as_estimate(drawn["indirect"][0], (low, high), p, len(complete), 0, se=se, alpha=alpha),
        "interaction": linear_contrast(centred, "y1", "product", [*given, "treated", "mediator"], alpha=alpha),
        "arm to mediator": to_mediator,
        "mediator to outcome": to_outcome,
    }
    return _with_bootstrap(rows, drawn, len(pairs) - len(complete), "effect", alpha)


def _mediation_draws(
    pairs: pd.DataFrame, mediator: str, covariates: Names, bootstraps: int, seed: int
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The complete patients; and of the sample and each resample the effects, the errors' correlation and ``own``.

    The last is the share of the mediator's variance that baseline, covariates and arm do not explain. Nothing of fewer
    than five patients in an arm, or a constant mediator.
    """
    complete = pairs.dropna(subset=["y0", "y1", "treated", mediator, *covariates])
    treated = complete["treated"].to_numpy(bool)
    if min(treated.sum(), (~treated).sum()) < 5 or complete[mediator].nunique() < 2:
        return complete, {}
    counts = _resamples(treated, bootstraps, seed)
    x = np.column_stack([_design(complete, ["y0", *covariates]), treated.astype(float)])
    y, m = complete["y1"].to_numpy(float), complete[mediator].to_numpy(float)
    on_y, on_m = _least_squares(x, y, counts), _least_squares(x, m, counts)
    e_y, e_m = y - on_y @ x.T, m - on_m @ x.T
    s_yy, s_mm, s_ym = ((counts * a * b).sum(axis=1) for a, b in ((e_y, e_y), (e_m, e_m), (e_y, e_m)))
    c = m - m.mean()
    variance = (counts @ c**2 - (counts @ c) ** 2 / len(c)) / (len(c) - 1)
    # The mediator's slope on the outcome is that of the residuals (Frisch-Waugh-Lovell).
    indirect = on_m[:, -1] * s_ym / s_mm
    return complete, {
        "total": on_y[:, -1],
        "indirect": indirect,
        "direct": on_y[:, -1] - indirect,
        "on_mediator": on_m[:, -1],
        "sd_ratio": np.sqrt(s_yy / s_mm),
        "correlation": s_ym / np.sqrt(s_yy * s_mm),
        "own": s_mm / max(len(m) - x.shape[1], 1) / variance,
    }


def direct_given_reliability(
    pairs: pd.DataFrame,
    mediator: str,
    covariates: Names = (),
    reliabilities: Sequence[float] = (1.0, 0.9, 0.8, 0.7),
    *,
    bootstraps: int,
    seed: int,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """What the direct effect would be if part of the mediator's variance were error of measurement.

    Adjusting for a mediator that is seen with error leaves part of the indirect effect in the direct one. By the method
    of moments, in a linear model the same as regression calibration: the error's variance, which depends on nothing
    else, is taken off that part of the mediator's variance on which its slope rests.

    The `reliabilities` are shares of the mediator's variance, over the patients of both arms, that are not error. At 1,
    the effects are those of `mediation`, the interval its percentile interval. Columns reliability, direct, direct_low,
    direct_high, p_value, indirect; interval and p-value are those of `helpers.estimates.percentile_test`, for which a
    resample without a positive corrected variance is beyond either limit. NaN where the sample has none; no rows where
    `mediation` is NaN.

    References
    ----------
    Carroll, Ruppert, Stefanski & Crainiceanu, Measurement Error in Nonlinear Models, 2006, sections 3.4 and 4;
    Buonaccorsi, Measurement Error, 2010, chapter 5.
    """
    columns = ["reliability", "direct", "direct_low", "direct_high", "p_value", "indirect"]
    _, drawn = _mediation_draws(pairs, mediator, covariates, bootstraps, seed)
    if not drawn:
        return pd.DataFrame(columns=columns, dtype=float)
    total, product, own = (drawn[name] for name in ("total", "indirect", "own"))
    rows = []
    for reliability in reliabilities:
        left = own - (1 - reliability)
        indirect = product * own / np.where(left > 0, left, np.nan)
        direct = total - indirect
        below, above = (percentile_test(np.nan_to_num(direct[1:], nan=end), alpha) for end in (-np.inf, np.inf))
        row = [direct[0], below[0], above[1], max(below[2], above[2]), indirect[0]]
        rows.append([reliability, *(row if left[0] > 0 else [np.nan] * len(row))])
    return pd.DataFrame(rows, columns=columns, dtype=float)


def rho_of_no_direct_effect(pairs: pd.DataFrame, mediator: str, covariates: Names = ()) -> float:
    """How strongly something unmeasured would have to act on both mediator and outcome for no direct effect to be left.

    That is the correlation that it would leave between the errors of the mediator's and the outcome's model;
    `mediation` takes it as zero. NaN where `mediation` is NaN.

    References
    ----------
    Imai, Keele & Yamamoto, Stat Sci 2010;25:51, theorem 4 (linear models without interaction), solved for it.
    """
    _, drawn = _mediation_draws(pairs, mediator, covariates, 1, 0)
    if not drawn:
        return np.nan
    total, link, sd_ratio, seen = (drawn[name][0] for name in ("total", "on_mediator", "sd_ratio", "correlation"))
    odds = (seen - total / (link * sd_ratio)) / np.sqrt(1 - seen**2)
    return float(odds / np.sqrt(1 + odds**2))


def balance(pairs: pd.DataFrame, covariates: Names, weights: pd.Series, fewest: int = 0) -> pd.DataFrame:
    """Standardised mean differences between the arms, treatment minus comparator, before and after weighting.

    Of the patients of the arms' contrast, not of all at baseline as in Table 1. `weights` as from `overlap_weights`.

    One row a covariate (a category at a time): ``covariate``, ``unweighted``, ``weighted``, both divided by the
    unweighted `helpers.estimates.pooled_sd`, and ``n``, the patients. Without categories that fewer than the `fewest`
    patients of an arm are in, or not in, whom the difference would tell; of others it is then told upwards to a tenth.
    """
    numbers = as_numbers(pairs[list(covariates)], prefix_sep=": ")
    treated = pairs["treated"].astype(bool)
    a, b = numbers[treated], numbers[~treated]
    weighted = a.mul(weights[treated], axis=0).sum() - b.mul(weights[~treated], axis=0).sum()
    table = pd.DataFrame({"unweighted": a.mean() - b.mean(), "weighted": weighted}).div(pooled_sd(a, b), axis=0)
    if fewest:
        category = numbers.isin([0, 1]).all()
        cells = pd.concat([of.sum() for of in (a, 1 - a, b, 1 - b)], axis=1).min(axis=1)
        upwards = np.sign(table) * np.ceil(10 * table.abs()) / 10
        table = table.where(~category, upwards)[~category | (cells >= fewest)]
    return table.assign(n=len(pairs)).rename_axis("covariate").reset_index()


def effective_sample_size(weights: pd.Series) -> float:
    """Number of equally weighted patients that would be as informative: (sum w)² / sum w².

    References
    ----------
    Kish, Survey Sampling, 1965.
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def subsampled_significance(
    change: pd.Series, sizes: Sequence[int], *, draws: int, seed: int, alpha: float = 0.05
) -> pd.DataFrame:
    """How often an arm of another size would have shown the change that this arm shows.

    Patients are drawn with replacement, up to the size of the arm, and tested by the paired t test, two-sided. Columns
    ``n``, ``significant`` (share of the draws with p < alpha), ``mc_error`` (its Monte-Carlo standard error).
    """
    x = change.dropna().to_numpy(float)
    rng = np.random.default_rng(seed)
    rows = []
    for n in (n for n in sizes if 3 <= n <= len(x)):
        samples = rng.choice(x, (draws, n))
        bound = stats.t.ppf(1 - alpha / 2, n - 1) * samples.std(axis=1, ddof=1) / np.sqrt(n)
        share = float((abs(samples.mean(axis=1)) > bound).mean())
        rows.append({"n": n, "significant": share, "mc_error": np.sqrt(share * (1 - share) / draws)})
    return pd.DataFrame(rows, columns=["n", "significant", "mc_error"])
