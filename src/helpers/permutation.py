"""PERMANOVA on patients: a group factor, time within patient, and time x arm; each with a dispersion test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from skbio import DistanceMatrix
from skbio.stats.distance import permanova, permdisp

from helpers.estimates import who


def gower(distmat: DistanceMatrix) -> np.ndarray:
    """Gower's centred matrix G = -J d2 J / 2, the inner products of the swabs in principal-coordinate space.

    Parameters
    ----------
    distmat : skbio.DistanceMatrix

    Returns
    -------
    ndarray of shape (n, n)

    References
    ----------
    Gower, Biometrika 1966;53:325.
    """
    a = -0.5 * np.asarray(distmat.data) ** 2
    return a - a.mean(axis=0) - a.mean(axis=1)[:, None] + a.mean()


def _distances(gram: np.ndarray, ids: Sequence[str]) -> DistanceMatrix:
    """Distances between the points whose inner products are `gram`."""
    norm = np.diag(gram)
    d2 = np.maximum(norm[:, None] + norm[None, :] - 2 * gram, 0)
    d2 = (d2 + d2.T) / 2
    np.fill_diagonal(d2, 0)
    return DistanceMatrix(np.sqrt(d2), list(ids))


def _contrasts(obs: pd.DataFrame, visits: Sequence[str], weights: Sequence[float]) -> tuple[np.ndarray, list[str]]:
    """One row a subject seen at all `visits`: the weighted sum of the mean swab of each visit."""
    seen = obs[obs["visit"].isin(visits)].groupby("subject", observed=True)["visit"].nunique()
    subjects = sorted(seen.index[seen == len(visits)])
    row = pd.Index(subjects).get_indexer(obs["subject"])
    rows = np.zeros((len(subjects), len(obs)))
    for visit, weight in zip(visits, weights, strict=True):
        swabs = np.flatnonzero(obs["visit"].eq(visit).to_numpy() & (row >= 0))
        own = np.bincount(row[swabs], minlength=len(subjects))
        rows[row[swabs], swabs] = weight / own[row[swabs]]
    return rows, subjects


def _row(term: str, result: pd.Series, dispersion: pd.Series | None, groups: int) -> dict[str, Any]:
    n = result["sample size"]
    f = result["test statistic"]
    explained = f * (groups - 1)
    return {
        "term": term,
        "df": groups - 1,
        "n": n,
        "r2": explained / (explained + n - groups),
        "pseudo_f": f,
        "p_value": result["p-value"],
        "dispersion_f": np.nan if dispersion is None else dispersion["test statistic"],
        "dispersion_p": np.nan if dispersion is None else dispersion["p-value"],
    }


def _one_factor(
    term: str, distmat: DistanceMatrix, grouping: Sequence[str], permutations: int, seed: int
) -> dict[str, Any]:
    result = permanova(distmat, grouping, permutations=permutations, seed=seed)
    dispersion = permdisp(
        distmat, grouping, permutations=permutations, seed=seed, dimensions=distmat.shape[0], warn_neg_eigval=False
    )
    return _row(term, result, dispersion, len(set(grouping)))


def permanova_group(
    distmat: DistanceMatrix, obs: pd.DataFrame, factor: str, *, visit: str, permutations: int, seed: int
) -> dict[str, Any]:
    """PERMANOVA of one factor at one visit, on the mean swab of each patient.

    Parameters
    ----------
    distmat : skbio.DistanceMatrix
        Between swabs.
    obs : DataFrame
        The swabs, in the order of `distmat`.
    factor : str
        Column of `obs`; patients without it are left out.
    visit : str
        The visit that is compared.
    permutations, seed : int

    Returns
    -------
    dict
        term, df, n, r2, pseudo_f, p_value, and F and p of the test of homogeneous dispersion.

    References
    ----------
    Anderson, Austral Ecol 2001;26:32 (PERMANOVA); Biometrics 2006;62:245 (dispersion).
    """
    recorded = obs[factor].notna() & obs["visit"].eq(visit)
    rows, subjects = _contrasts(obs[recorded], [visit], [1.0])
    grouping = obs[recorded].groupby("subject", observed=True)[factor].first().loc[subjects].astype(str).tolist()
    if min(pd.Series(grouping).value_counts(), default=0) < 3 or len(set(grouping)) < 2:
        return _not_estimable(factor, len(subjects))
    keep = recorded.to_numpy()
    gram = rows @ gower(distmat)[np.ix_(keep, keep)] @ rows.T
    return _one_factor(factor, _distances(gram, subjects), grouping, permutations, seed)


def permanova_time(distmat: DistanceMatrix, obs: pd.DataFrame, *, permutations: int, seed: int) -> dict[str, Any]:
    """Test of a common change between the visits, by flipping the sign of whole patients.

    With C one contrast (-1, +1)/sqrt(2) a patient, K = C G C'. The statistic is ``1'K1``; under no change each
    patient's difference is as likely as its negative, so that ``f'Kf`` with random signs f is its null distribution.

    Parameters
    ----------
    distmat : skbio.DistanceMatrix
        Between swabs.
    obs : DataFrame
        The swabs, in the order of `distmat`; patients with one visit only are left out.
    permutations, seed : int

    Returns
    -------
    dict
        As `permanova_group`, with term ``visit``; ``r2`` is the share of within-patient variation, and the
        dispersion test is that of the swabs' dispersion at the two visits with signs flipped alike.

    References
    ----------
    Anderson & ter Braak, J Stat Comput Simul 2003;73:85 (restricted permutation); Pesarin & Salmaso, Permutation
    Tests for Complex Data, 2010 (sign flips).
    """
    half = np.sqrt(0.5)
    rows, subjects = _contrasts(obs, ["baseline", "followup"], [-half, half])
    n = len(subjects)
    if n < 5:
        return _not_estimable("visit", n)
    g = gower(distmat)
    k = rows @ g @ rows.T
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], size=(permutations, n))
    observed = k.sum()
    null = np.einsum("pi,ij,pj->p", signs, k, signs, optimize=True)
    within = np.trace(k)
    explained = observed / n
    dispersion_f, dispersion_p = _paired_dispersion(g, obs, subjects, signs)
    return {
        "term": "visit",
        "df": 1,
        "n": n,
        "r2": explained / within,
        "pseudo_f": explained / ((within - explained) / (n - 1)),
        "p_value": _p_value(observed, null),
        "dispersion_f": dispersion_f,
        "dispersion_p": dispersion_p,
    }


def permanova_time_by_arm(
    distmat: DistanceMatrix, obs: pd.DataFrame, *, permutations: int, seed: int
) -> dict[str, Any]:
    """Test whether the change between the visits differs by arm, permuting the arm of whole patients.

    PERMANOVA of the patients' differences (follow-up minus baseline, in principal-coordinate space) by arm.

    Parameters
    ----------
    distmat : skbio.DistanceMatrix
        Between swabs.
    obs : DataFrame
        The swabs, in the order of `distmat`; patients with one visit only, or without an arm, are left out.
    permutations, seed : int

    Returns
    -------
    dict
        As `permanova_group`, with term ``visit:arm``; ``r2`` is the share of the variation of the differences.

    References
    ----------
    Anderson & ter Braak, J Stat Comput Simul 2003;73:85.
    """
    treated = obs["arm"].notna()
    keep = treated.to_numpy()
    half = np.sqrt(0.5)
    rows, subjects = _contrasts(obs[treated], ["baseline", "followup"], [-half, half])
    arms = obs[treated].groupby("subject", observed=True)["arm"].first().loc[subjects].astype(str).tolist()
    if min(pd.Series(arms).value_counts(), default=0) < 3 or len(set(arms)) < 2:
        return _not_estimable("visit:arm", len(subjects))
    gram = rows @ gower(distmat)[np.ix_(keep, keep)] @ rows.T
    return _one_factor("visit:arm", _distances(gram, subjects), arms, permutations, seed)


def permanova_table(
    distmats: Mapping[str, DistanceMatrix],
    obs: pd.DataFrame,
    labels: Mapping[str, str],
    *,
    permutations: int,
    seed: int,
) -> pd.DataFrame:
    """Every PERMANOVA of the report: group at baseline, time in each group and arm, time x arm; for each distance.

    Parameters
    ----------
    distmats : mapping of str to skbio.DistanceMatrix
        Between swabs, by name.
    obs : DataFrame
        The swabs, in the order of the matrices.
    labels : mapping
        Display names.
    permutations, seed : int

    Returns
    -------
    DataFrame
        Columns distance, patients, and those of `permanova_group`.
    """
    tests: dict[str, int] = {"permutations": permutations, "seed": seed}
    rows = []
    for name, distmat in distmats.items():
        everyone = permanova_group(distmat, obs, "group", visit="baseline", **tests)
        rows.append({"distance": name, "patients": "all", **everyone})
        for arm in ("control", "treatment", "comparator"):
            own = who(obs).eq(arm)
            if own.any():
                time = permanova_time(distmat.filter(list(obs.index[own])), obs[own], **tests)
                rows.append({"distance": name, "patients": labels[arm], **time})
        rows.append({"distance": name, "patients": "both arms", **permanova_time_by_arm(distmat, obs, **tests)})
    return pd.DataFrame(rows)


def _p_value(observed: float, null: np.ndarray) -> float:
    """(1 + hits) / (1 + permutations); equal within rounding counts as a hit."""
    return float((1 + (null >= observed - 1e-9 * abs(observed)).sum()) / (1 + len(null)))


def _paired_dispersion(
    g: np.ndarray, obs: pd.DataFrame, subjects: Sequence[str], signs: np.ndarray
) -> tuple[float, float]:
    """Does the distance to the visit's own centroid change within patients? Squared t, p by the same sign flips."""
    spread = []
    for visit in ("baseline", "followup"):
        rows, seen = _contrasts(obs, [visit], [1.0])
        rows = rows[np.isin(seen, subjects)]
        rows = rows - rows.mean(axis=0)
        spread.append(np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", rows, g, rows, optimize=True), 0)))
    change = spread[1] - spread[0]
    if not np.any(change):
        return 0.0, 1.0
    n = len(change)

    def squared_t(x: np.ndarray) -> np.ndarray:
        mean = x.mean(axis=-1)
        return n * mean**2 / ((x - mean[..., None]) ** 2).sum(axis=-1) * (n - 1)

    observed = float(squared_t(change))
    return observed, _p_value(observed, squared_t(signs * change))


def _not_estimable(term: str, n: int) -> dict[str, Any]:
    missing = dict.fromkeys(["df", "r2", "pseudo_f", "p_value", "dispersion_f", "dispersion_p"], np.nan)
    return {"term": term, **missing, "n": n}
