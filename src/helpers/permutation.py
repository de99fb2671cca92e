"""PERMANOVA given covariates, and of patients seen twice; each with a test of dispersion."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.linalg.blas import dtrmm
from skbio import DistanceMatrix

from helpers.estimates import Names, as_numbers
from helpers.visits import who

#: What is told of a test, in this order.
TOLD = ("df", "sum_of_squares", "r2", "pseudo_f", "p_value", "n", "n_dropped", "dispersion_f", "dispersion_p")
#: Permuted columns that are multiplied at a time, as numbers held in memory; people whose distances are squared.
BATCH, PEOPLE = 4_000_000, 64


def _centred(a: np.ndarray) -> np.ndarray:
    """Take the means of rows and columns from a symmetric matrix, in place: inner products about the centroid.

    References
    ----------
    Gower, Biometrika 1966;53:325.
    """
    means, mean = a.mean(axis=0), a.mean()
    a -= means
    a -= (means - mean)[:, None]
    return a


def products(distmat: DistanceMatrix, rows: sparse.csr_array) -> np.ndarray:
    """Inner products of weighted sums of swabs' points: of the sums, or of what lies between them, by their weights.

    `rows` has the weights, a row a sum. Where a row's weights add up to 0, the origin does not matter; where to 1, the
    products are right between differences of rows. No matrix of all swabs is made.
    """
    found = np.empty((rows.shape[0], rows.shape[0]))
    for start in range(0, len(found), PEOPLE):
        part = rows[start : start + PEOPLE]
        swabs = np.unique(part.indices)
        found[start : start + PEOPLE] = (rows @ (part[:, swabs] @ distmat.data[swabs] ** 2).T).T
    found *= -0.5
    return found


def _aligned(design: pd.DataFrame, distmat: DistanceMatrix, columns: Names) -> pd.DataFrame:
    """The rows of `design` in the order of `distmat`."""
    if missing := [c for c in columns if c not in design]:
        raise ValueError(f"design has no column {missing[0]!r}; it has {', '.join(map(str, design.columns))}")
    lacking = [i for i in distmat.ids if i not in design.index]
    if lacking or design.index.has_duplicates:
        found = f"lacks {len(lacking)} of {len(distmat.ids)}, such as {lacking[0]}" if lacking else "repeats some"
        raise ValueError(f"the index of design must be the ids of distmat; it {found}")
    return design.loc[list(distmat.ids)]


# --- a factor given covariates ---------------------------------------------------------------------------------------


def permanova(
    gram: np.ndarray, people: pd.DataFrame, factor: str, covariates: Names = (), *, permutations: int, seed: int
) -> dict[str, Any]:
    """Permutational analysis of variance of a factor given covariates, and a test that its groups scatter alike.

    `gram` has the inner products of people's points, as from `products`, wherever the origin lies. The sum of squares
    of the factor is tr(H G), with H the projection on what it adds to the covariates. F compares it with the residual
    of the full model; people are permuted against their points, factor and covariates together.

    `people` has a row a person; what is not a number is a category, who has a missing value is dropped and counted.
    Keys term, the factor; df, sum_of_squares, r2, pseudo_f, p_value, (1 + hits) / (1 + permutations); n, n_dropped;
    dispersion_f, dispersion_p, as from `dispersion`. NaN of one group, or a group of fewer than three people, if a term
    is a sum of those before it, or no residual is left.

    References
    ----------
    McArdle & Anderson, Ecology 2001;82:290; Phipson & Smyth, Stat Appl Genet Mol Biol 2010;9:39 (p-value).
    """
    complete = people[[factor, *covariates]].notna().all(axis=1).to_numpy()
    kept, n, dropped = people[complete], int(complete.sum()), int((~complete).sum())
    grouping = kept[factor].astype(str)
    nothing = _not_estimable(factor, n, dropped)
    if grouping.nunique() < 2 or grouping.value_counts().min() < 3:
        return nothing
    basis, df = np.full((n, 1), n**-0.5), 0
    for column in [*(kept[c] for c in covariates if kept[c].nunique() > 1), grouping]:
        added = _added(as_numbers(column.to_frame()).to_numpy(), basis)
        df = added.shape[1]
        basis = np.hstack([basis, added])
        if not df:
            return nothing
    full = basis[:, 1:]
    df_residual = n - 1 - full.shape[1]
    if df_residual < 1:
        return nothing
    gram = gram if complete.all() else gram[np.ix_(complete, complete)]
    triangle = _centred(gram.copy())
    total = float(np.trace(triangle))
    # q'Gq = 2 q'Tq, with T the lower triangle of G and half its diagonal: half the multiplications. The rest is unread.
    np.fill_diagonal(triangle, np.diag(triangle) / 2)

    def tested(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of squares of the factor, and F, for each permutation of the rows."""
        q = np.ascontiguousarray(full.T)[:, rows]
        product = dtrmm(1.0, triangle.T, q.reshape(-1, n).T, lower=1).T.reshape(q.shape)
        squares = 2 * np.einsum("kpn,kpn->kp", q, product)
        of_factor = squares[-df:].sum(axis=0)
        return of_factor, (of_factor / df) / ((total - squares.sum(axis=0)) / df_residual)

    (squares,), (observed,) = tested(np.arange(n)[None])
    size = max(1, BATCH // (n * full.shape[1]))
    null = np.concatenate([tested(rows)[1] for rows in _permuted(n, permutations, size, seed)])
    spread = dispersion(gram, grouping.to_numpy(), permutations=permutations, seed=seed)
    told = (df, squares, squares / total, observed, _p_value(observed, null), n, dropped, *spread)
    return {"term": factor, **dict(zip(TOLD, told, strict=True))}


def _added(x: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Orthonormal basis of what the columns of `x` add to the span of the orthonormal columns of `to`."""
    scale = np.linalg.norm(x - x.mean(axis=0), axis=0).max(initial=0)
    rest = x - to @ (to.T @ x)
    rest -= to @ (to.T @ rest)
    u, s, _ = np.linalg.svd(rest, full_matrices=False)
    return u[:, s > 1e-9 * max(scale, 1e-300)]


def _permuted(n: int, permutations: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Random permutations of n rows, up to `size` at a time, one a row."""
    rng = np.random.default_rng(seed)
    for start in range(0, permutations, size):
        yield rng.permuted(np.tile(np.arange(n), (min(size, permutations - start), 1)), axis=1)


def dispersion(gram: np.ndarray, grouping: np.ndarray, *, permutations: int, seed: int) -> tuple[float, float]:
    """Test of homogeneous multivariate dispersion, F and p: groups scatter alike around their centroids.

    Analysis of variance of the distances to the group's centroid in principal-coordinate space, of points given by
    their inner products; p from permuting the residuals. PERMANOVA answers to spread as well as to place, so that this
    stands beside it.

    References
    ----------
    Anderson, Biometrics 2006;62:245.
    """
    names, codes = np.unique(grouping, return_inverse=True)
    n, k = len(codes), len(names)
    member = (codes[:, None] == np.arange(k)).astype(float)
    mean = member / member.sum(axis=0)
    products = gram @ mean
    squared = np.diag(gram) - 2 * products[np.arange(n), codes] + np.einsum("ic,ic->c", mean, products)[codes]
    distances = np.sqrt(abs(squared))  # negative only where the distances are not Euclidean

    def anova(x: np.ndarray) -> np.ndarray:
        means = x @ mean
        x_mean = x.mean(axis=-1)
        between = ((means - x_mean[..., None]) ** 2 * member.sum(axis=0)).sum(axis=-1)
        within = ((x - x_mean[..., None]) ** 2).sum(axis=-1) - between
        return (between / (k - 1)) / (np.maximum(within, 1e-300) / (n - k))

    observed = float(anova(distances))
    residuals = distances - (distances @ mean)[codes]
    if np.allclose(residuals, 0):
        return np.nan, np.nan
    null = [anova(residuals[rows]) for rows in _permuted(n, permutations, max(1, BATCH // n), seed)]
    return observed, _p_value(observed, np.concatenate(null))


# --- patients seen twice ---------------------------------------------------------------------------------------------


def paired_permanova(
    distmat: DistanceMatrix,
    design: pd.DataFrame,
    *,
    arm: str | None = None,
    covariates: Names = (),
    permutations: int = 999,
    seed: int,
) -> pd.DataFrame:
    """Test whether patients' communities change between two visits, and, with `arm`, differently by arm.

    With C one contrast (-1, +1)/sqrt(2) a patient, K = C G C' holds the inner products of the patients' changes. Time:
    the statistic is ``1'K1``, and ``f'Kf`` with random signs f its null distribution, since without change each
    patient's is as likely as its negative. Time x arm: PERMANOVA of the changes on arm given the covariates, permuting
    whole patients. Several swabs of a patient at a visit count as their mean.

    The design has a row a swab, indexed by the ids of `distmat`, in any order, with columns subject, visit
    (``baseline`` or ``followup``), `arm` and `covariates`, of which the first value at baseline counts.

    Rows ``visit`` and, with `arm`, ``visit:arm``; columns term, df, sum_of_squares, r2 (of the variation of the
    changes; for ``visit``, of all variation within patients), pseudo_f, p_value, n (patients with both visits),
    n_dropped (the others), dispersion_f, dispersion_p. NaN with fewer than five patients, or three in an arm.

    References
    ----------
    Anderson & ter Braak, J Stat Comput Simul 2003;73:85; Pesarin & Salmaso, Permutation Tests for Complex Data, 2010
    (sign flips).
    """
    needed = ["subject", "visit", *([arm] if arm else []), *covariates]
    obs = _aligned(design, distmat, needed)
    half = np.sqrt(0.5)
    rows, subjects = _contrasts(obs, ["baseline", "followup"], [-half, half])
    dropped = obs["subject"].nunique() - len(subjects)
    k = products(distmat, rows)
    tests = [_time(distmat, k, obs, subjects, dropped, permutations, seed)]
    if arm:
        patients = obs[obs["visit"].eq("baseline")].groupby("subject", observed=True)[[arm, *covariates]].first()
        patients = patients.loc[subjects]
        both = permanova(k, patients, arm, covariates, permutations=permutations, seed=seed)
        tests.append(both | {"term": "visit:arm", "n_dropped": both["n_dropped"] + dropped})
    return pd.DataFrame(tests)


def _contrasts(
    obs: pd.DataFrame, visits: Sequence[str], weights: Sequence[float]
) -> tuple[sparse.csr_array, list[str]]:
    """One row a subject seen at all `visits`: the weighted sum of the mean swab of each visit."""
    seen = obs[obs["visit"].isin(visits)].groupby("subject", observed=True)["visit"].nunique()
    subjects = sorted(seen.index[seen == len(visits)])
    row = pd.Index(subjects).get_indexer(obs["subject"])
    of_swab = np.zeros(len(obs))
    for visit, weight in zip(visits, weights, strict=True):
        swabs = np.flatnonzero(obs["visit"].eq(visit).to_numpy() & (row >= 0))
        own = np.bincount(row[swabs], minlength=len(subjects))
        of_swab[swabs] = weight / own[row[swabs]]
    swabs = np.flatnonzero(of_swab)
    return sparse.csr_array((of_swab[swabs], (row[swabs], swabs)), shape=(len(subjects), len(obs))), subjects


def _time(
    distmat: DistanceMatrix, k: np.ndarray, obs: pd.DataFrame, subjects: Sequence[str], dropped: int,
    permutations: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    n = len(subjects)
    if n < 5:
        return _not_estimable("visit", n, dropped)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, n))
    observed, within = k.sum(), np.trace(k)
    null = np.einsum("pi,pi->p", signs @ k, signs)
    explained = observed / n
    f = explained / ((within - explained) / (n - 1))
    spread = _paired_dispersion(distmat, obs, subjects, signs)
    told = (1, explained, explained / within, f, _p_value(observed, null), n, dropped, *spread)
    return {"term": "visit", **dict(zip(TOLD, told, strict=True))}


# --- the report's table ----------------------------------------------------------------------------------------------


def permanova_table(
    distmats: Iterable[tuple[str, DistanceMatrix]],
    obs: pd.DataFrame,
    labels: Mapping[str, str],
    *,
    covariates: Names = (),
    arm_covariates: Names = (),
    permutations: int,
    seed: int,
) -> pd.DataFrame:
    """Every PERMANOVA of the report: group at baseline, time in each group and arm, time x arm; for each distance.

    Distances, with their names, are between swabs, `obs` are these in any order. Group is adjusted for `covariates`,
    time x arm for `arm_covariates`. Columns distance, patients, and those of `paired_permanova`. Each patient counts
    once.
    """
    tests: dict[str, Any] = {"permutations": permutations, "seed": seed}
    rows = []
    for name, distmat in distmats:
        swabs = _aligned(obs, distmat, ["subject", "visit", "group", "arm", *covariates, *arm_covariates])
        rows.append({"distance": name, "patients": "all", **group_at_baseline(distmat, swabs, covariates, **tests)})
        for arm in ("control", "treatment", "comparator"):
            own = swabs.index[who(swabs).eq(arm)]
            if len(own):
                time = paired_permanova(distmat.filter(list(own)), swabs.loc[own], **tests).iloc[0]
                rows.append({"distance": name, "patients": labels[arm], **time})
        treated = swabs.index[swabs["arm"].notna()]
        if len(treated):
            both = paired_permanova(
                distmat.filter(list(treated)), swabs.loc[treated], arm="arm", covariates=arm_covariates, **tests
            )
            rows.append({"distance": name, "patients": "both arms", **both.iloc[1]})
        del distmat  # before the next is made
    return pd.DataFrame(rows)


def group_at_baseline(
    distmat: DistanceMatrix, obs: pd.DataFrame, covariates: Names, *, permutations: int, seed: int
) -> dict[str, Any]:
    """PERMANOVA of patients against controls at baseline: one row of `permanova_table`."""
    swabs = _aligned(obs, distmat, ["subject", "visit", "group", *covariates])
    means, subjects = _contrasts(swabs, ["baseline"], [1.0])
    people = swabs[swabs["visit"].eq("baseline")].groupby("subject", observed=True).first().loc[subjects]
    return permanova(products(distmat, means), people, "group", covariates, permutations=permutations, seed=seed)


def _p_value(observed: Any, null: np.ndarray) -> Any:
    """(1 + hits) / (1 + permutations), of one statistic or of several; equal within rounding counts as a hit."""
    return (1 + (null >= observed - 1e-9 * abs(observed)).sum(axis=0)) / (1 + len(null))


def _paired_dispersion(
    distmat: DistanceMatrix, obs: pd.DataFrame, subjects: Names, signs: np.ndarray
) -> tuple[float, float]:
    """Does the distance to the visit's own centroid change within patients? Squared t, p by the same sign flips."""
    spread = []
    for visit in ("baseline", "followup"):
        rows, seen = _contrasts(obs, [visit], [1.0])
        between = _centred(products(distmat, rows[np.isin(seen, subjects)]))
        spread.append(np.sqrt(np.maximum(np.diag(between), 0)))
    change = spread[1] - spread[0]
    if not np.any(change):
        return 0.0, 1.0
    n = len(change)

    def squared_t(x: np.ndarray) -> np.ndarray:
        mean = x.mean(axis=-1)
        return n * mean**2 / ((x - mean[..., None]) ** 2).sum(axis=-1) * (n - 1)

    observed = float(squared_t(change))
    return observed, _p_value(observed, squared_t(signs * change))


def _not_estimable(term: str, n: int, dropped: int) -> dict[str, Any]:
    missing = (key for key in TOLD if not key.startswith("n"))
    return {"term": term, **dict.fromkeys(missing, np.nan), "n": n, "n_dropped": dropped}
