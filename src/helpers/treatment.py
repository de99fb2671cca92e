"""Arm contrasts: ANCOVA, change score, overlap weights, and what the arms' sizes could have shown."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from firthmodels import FirthLogisticRegression
from scipy import stats

from helpers.estimates import as_estimate, linear_contrast, not_estimable


def arms(pairs: pd.DataFrame) -> pd.DataFrame:
    """Patients who have an arm, with boolean ``treated``.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient, with ``arm``.

    Returns
    -------
    DataFrame
    """
    return pairs[pairs["arm"].notna()].assign(treated=lambda p: p["arm"].eq("treatment"))


def ancova(pairs: pd.DataFrame, covariates: Sequence[str] = (), *, alpha: float = 0.05) -> dict[str, float]:
    """Difference between the arms at follow-up, given the baseline value and the covariates: the primary contrast.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient: ``y0``, ``y1``, boolean ``treated`` and the covariates.
    covariates : sequence of str
    alpha : float

    Returns
    -------
    dict
        Keys of `helpers.estimates.ESTIMATE`; treatment minus comparator, HC3 errors.

    References
    ----------
    Vickers & Altman, BMJ 2001;323:1123.
    """
    return linear_contrast(pairs, "y1", "treated", ["y0", *covariates], alpha=alpha)


def change_score(pairs: pd.DataFrame, covariates: Sequence[str] = (), *, alpha: float = 0.05) -> dict[str, float]:
    """Difference between the arms in change from baseline, given the covariates.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient: ``change``, boolean ``treated`` and the covariates.
    covariates : sequence of str
    alpha : float

    Returns
    -------
    dict
        Keys of `helpers.estimates.ESTIMATE`; treatment minus comparator, HC3 errors.
    """
    return linear_contrast(pairs, "change", "treated", covariates, alpha=alpha)


def _design(pairs: pd.DataFrame, covariates: Sequence[str]) -> pd.DataFrame:
    """Covariates as standardised numbers, categories as dummies, constants left out."""
    numbers = pd.get_dummies(pairs[list(covariates)], drop_first=True, dtype=float).astype(float)
    numbers = numbers.loc[:, numbers.nunique() > 1]
    return (numbers - numbers.mean()) / numbers.std()


def _weights(design: np.ndarray, treated: np.ndarray) -> np.ndarray:
    design = design[:, np.ptp(design, axis=0) > 0]  # a resample of few patients may hold one sex only
    if design.shape[1] == 0:
        return np.ones(len(treated))
    model = FirthLogisticRegression(backend="numpy", max_iter=200).fit(design, treated.astype(int))
    propensity = model.predict_proba(design)[:, 1]
    return np.where(treated, 1 - propensity, propensity)


def overlap_weights(pairs: pd.DataFrame, covariates: Sequence[str]) -> pd.Series:
    """Overlap weights from Firth logistic propensity of treatment.

    A treated patient weighs 1 - e and a comparator patient e, with e the propensity: those who could have had either
    drug count most.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient: boolean ``treated`` and the covariates, none missing.
    covariates : sequence of str

    Returns
    -------
    Series
        Weights that sum to one in each arm.

    References
    ----------
    Li, Morgan & Zaslavsky, J Am Stat Assoc 2018;113:390.
    """
    treated = pairs["treated"].to_numpy(bool)
    weights = pd.Series(_weights(_design(pairs, covariates).to_numpy(), treated), index=pairs.index)
    return weights / weights.groupby(treated).transform("sum")


def overlap_contrast(
    pairs: pd.DataFrame, covariates: Sequence[str], *, bootstraps: int, seed: int, alpha: float = 0.05
) -> dict[str, float]:
    """Difference between the arms in mean change, overlap weighted, with a bootstrap interval stratified by arm.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient: ``change``, boolean ``treated`` and the covariates.
    covariates : sequence of str
        Covariates of the propensity; patients with one missing are dropped and counted.
    bootstraps, seed, alpha
        Resamples, in each of which the propensity is fitted anew, their seed, and 1 - coverage.

    Returns
    -------
    dict
        Keys of `helpers.estimates.ESTIMATE`; the p-value is that of the normal with the bootstrap's standard error.
    """
    complete = pairs.dropna(subset=["change", "treated", *covariates])
    treated = complete["treated"].to_numpy(bool)
    dropped = len(pairs) - len(complete)
    if min(treated.sum(), (~treated).sum()) < 5:
        return not_estimable(len(complete), dropped)
    design, change = _design(complete, covariates).to_numpy(), complete["change"].to_numpy()

    def difference(rows: np.ndarray) -> float:
        t, y, w = treated[rows], change[rows], _weights(design[rows], treated[rows])
        return float(np.average(y[t], weights=w[t]) - np.average(y[~t], weights=w[~t]))

    rng = np.random.default_rng(seed)
    arms = [np.flatnonzero(treated), np.flatnonzero(~treated)]
    resampled = np.array(
        [difference(np.concatenate([rng.choice(arm, len(arm)) for arm in arms])) for _ in range(bootstraps)]
    )
    estimate, se = difference(np.arange(len(change))), resampled.std(ddof=1)
    low, high = np.quantile(resampled, [alpha / 2, 1 - alpha / 2])
    return as_estimate(
        estimate, (low, high), 2 * stats.norm.sf(abs(estimate) / se), len(complete), dropped, se=se, alpha=alpha
    )


def balance(pairs: pd.DataFrame, covariates: Sequence[str], weights: pd.Series) -> pd.DataFrame:
    """Standardised mean differences between the arms before and after weighting.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient: boolean ``treated`` and the covariates.
    covariates : sequence of str
    weights : Series
        As from `overlap_weights`.

    Returns
    -------
    DataFrame
        One row a covariate (a category at a time): ``covariate``, ``unweighted``, ``weighted``; both are divided by
        the unweighted pooled standard deviation.

    References
    ----------
    Austin, Stat Med 2009;28:3083.
    """
    numbers = pd.get_dummies(pairs[list(covariates)], prefix_sep=": ", drop_first=True, dtype=float).astype(float)
    treated = pairs["treated"].astype(bool)
    a, b = numbers[treated], numbers[~treated]
    pooled = np.sqrt((a.var() + b.var()) / 2).replace(0, np.nan)
    weighted = a.mul(weights[treated], axis=0).sum() - b.mul(weights[~treated], axis=0).sum()
    table = pd.DataFrame({"unweighted": (a.mean() - b.mean()) / pooled, "weighted": weighted / pooled})
    return table.rename_axis("covariate").reset_index()


def effective_sample_size(weights: pd.Series) -> float:
    """Number of equally weighted patients that would be as informative: (sum w)² / sum w².

    Parameters
    ----------
    weights : Series

    Returns
    -------
    float

    References
    ----------
    Kish, Survey Sampling, 1965.
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def subsampled_significance(
    change: pd.Series, sizes: Sequence[int], *, draws: int, seed: int, alpha: float = 0.05
) -> pd.DataFrame:
    """How often an arm of another size would have shown the change that this arm shows.

    Parameters
    ----------
    change : Series
        Within-patient changes of the arm, taken as the population.
    sizes : sequence of int
        Numbers of patients drawn, with replacement, up to the size of the arm.
    draws, seed, alpha
        Draws for each size, their seed, and the two-sided level of the paired t test.

    Returns
    -------
    DataFrame
        ``n``, ``significant`` (share of the draws with p < alpha), ``mc_error`` (its Monte-Carlo standard error).
    """
    x = change.dropna().to_numpy(float)
    rng = np.random.default_rng(seed)
    rows = []
    for n in sizes:
        if not 3 <= n <= len(x):
            continue
        samples = rng.choice(x, (draws, n))
        bound = stats.t.ppf(1 - alpha / 2, n - 1) * samples.std(axis=1, ddof=1) / np.sqrt(n)
        share = float((abs(samples.mean(axis=1)) > bound).mean())
        rows.append({"n": n, "significant": share, "mc_error": np.sqrt(share * (1 - share) / draws)})
    return pd.DataFrame(rows, columns=["n", "significant", "mc_error"])
