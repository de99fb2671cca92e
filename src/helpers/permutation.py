"""PERMANOVA with several terms and restricted permutations, and of patients seen twice; each with a dispersion test."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from formulaic import Formula
from scipy.linalg.blas import dtrmm
from skbio import DistanceMatrix

from helpers.estimates import Names
from helpers.visits import who

#: Permuted columns that are multiplied at a time, as numbers held in memory.
BATCH = 4_000_000


def gower(distmat: DistanceMatrix) -> np.ndarray:
    """Gower's centred matrix G = -J d2 J / 2, the inner products of the samples in principal-coordinate space.

    References
    ----------
    Gower, Biometrika 1966;53:325.
    """
    if not isinstance(distmat, DistanceMatrix):  # which cannot be lopsided, nor hold NaN
        raise ValueError(f"distmat is a {type(distmat).__name__}; expected a skbio.DistanceMatrix")
    a = -0.5 * np.asarray(distmat.data, float) ** 2
    return a - a.mean(axis=0) - a.mean(axis=1)[:, None] + a.mean()


def _aligned(design: pd.DataFrame, distmat: DistanceMatrix, columns: Names) -> pd.DataFrame:
    """The rows of `design` in the order of `distmat`."""
    if missing := [c for c in columns if c not in design]:
        raise ValueError(f"design has no column {missing[0]!r}; it has {', '.join(map(str, design.columns))}")
    lacking = [i for i in distmat.ids if i not in design.index]
    if lacking or design.index.has_duplicates:
        found = f"lacks {len(lacking)} of {len(distmat.ids)}, such as {lacking[0]}" if lacking else "repeats some"
        raise ValueError(f"the index of design must be the ids of distmat; it {found}")
    return design.loc[list(distmat.ids)]


# --- several terms ---------------------------------------------------------------------------------------------------


def permanova(
    distmat: DistanceMatrix,
    design: pd.DataFrame,
    formula: str,
    *,
    by: Literal["terms", "margin"] = "terms",
    blocks: str | None = None,
    permutations: int = 999,
    seed: int,
) -> pd.DataFrame:
    """Permutational analysis of variance of distances on several terms.

    The sum of squares of a term is tr(H G), with H the projection on what the term adds to those before it (`by` terms)
    or to all others (`by` margin, without the terms that another one contains). F compares it with the residual of the
    full model. The rows of the design are permuted against the distances, all terms together.

    The design is indexed by the ids of `distmat`, in any order; samples with a missing value are dropped and counted.
    The formula is the right-hand side, such as ``"batch + group"``; what is not a number is a factor. Samples are
    permuted within the values of the column `blocks` only; blocks of one sample stay as they are.

    Columns term, df, sum_of_squares, r2, pseudo_f, p_value, n, n_dropped; a row a term, then ``Residual`` and
    ``Total``. p = (1 + hits) / (1 + permutations). `ValueError` if ids, columns, blocks or distances do not fit, a term
    is constant or a sum of others, or no residual is left.

    References
    ----------
    McArdle & Anderson, Ecology 2001;82:290; Anderson & ter Braak, J Stat Comput Simul 2003;73:85 (restricted
    permutation); Phipson & Smyth, Stat Appl Genet Mol Biol 2010;9:39 (p-value).
    """
    columns = [*sorted(map(str, Formula(formula).required_variables)), *([blocks] if blocks else [])]
    gram, aligned = gower(distmat), _aligned(design, distmat, columns)
    complete = aligned[columns].notna().all(axis=1).to_numpy()
    kept, gram = aligned[complete], gram[np.ix_(complete, complete)]
    table = _permanova(gram, kept, formula, by, kept[blocks].to_numpy() if blocks else None, permutations, seed)
    return table.assign(n=len(kept), n_dropped=(~complete).sum())


def _permanova(
    g: np.ndarray, design: pd.DataFrame, formula: str, by: str, blocks: np.ndarray | None, permutations: int, seed: int
) -> pd.DataFrame:
    """`permanova` of points given by their inner products, wherever the origin lies."""
    if by not in ("terms", "margin"):
        raise ValueError(f"by is {by!r}; expected 'terms' or 'margin'")
    n = len(design)
    names, full, tested = _bases(design, formula, by)
    df_residual = n - 1 - full.shape[1]
    if df_residual < 1:
        raise ValueError(f"{n} samples leave no residual beside {full.shape[1]} coefficients")
    centred = g - g.mean(axis=0) - g.mean(axis=1)[:, None] + g.mean()
    total = float(np.trace(centred))
    df = np.array([basis.shape[1] for basis in tested])
    widths = np.cumsum([0, *df])
    rotation = full.T @ np.hstack(tested) if tested else np.zeros((full.shape[1], 0))
    # q'Gq = 2 q'Tq, with T the lower triangle of G and half its diagonal: half the multiplications.
    triangle = np.asfortranarray(np.tril(centred))
    triangle[np.diag_indices(n)] /= 2

    def sums(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of squares of the terms, and of the residual, for each permutation of the rows."""
        count, k = len(rows), full.shape[1]
        q = np.ascontiguousarray(full.T)[:, rows]
        product = dtrmm(1.0, triangle, q.reshape(k * count, n).T, lower=1).T.reshape(k, count, n)
        half = np.matmul(q.transpose(1, 0, 2), product.transpose(1, 2, 0))
        explained = half + half.transpose(0, 2, 1)
        of_columns = np.einsum("pij,ic,jc->pc", explained, rotation, rotation, optimize=True)
        of_terms = np.add.reduceat(of_columns, widths[:-1], axis=1)
        return of_terms, total - np.trace(explained, axis1=1, axis2=2)

    def ratio(of_terms: np.ndarray, residual: np.ndarray) -> np.ndarray:
        return (of_terms / df) / (residual / df_residual)[:, None]

    of_terms, residual = sums(np.arange(n)[None])
    observed = ratio(of_terms, residual)[0]
    size = max(1, BATCH // (n * max(full.shape[1], 1)))
    null = [ratio(*sums(rows)) for rows in _permuted(n, blocks, permutations, size, seed)]
    squares, untested = np.array([*of_terms[0], residual[0], total]), [np.nan, np.nan]
    return pd.DataFrame(
        {
            "term": [*names, "Residual", "Total"],
            "df": [*df, df_residual, n - 1],
            "sum_of_squares": squares,
            "r2": squares / total,
            "pseudo_f": [*observed, *untested],
            "p_value": [*_p_value(observed, np.concatenate(null)), *untested],
        }
    )


def _bases(design: pd.DataFrame, formula: str, by: str) -> tuple[list[str], np.ndarray, list[np.ndarray]]:
    """Names of the tested terms, an orthonormal basis of the full model without its mean, and one of each term."""
    # A factor's unused or single levels have no column of their own.
    factors = {c: design[c].astype(str) for c in design if not pd.api.types.is_float_dtype(design[c].dtype)
               and not pd.api.types.is_integer_dtype(design[c].dtype)}  # fmt: skip
    model = Formula(formula).get_model_matrix(design.assign(**factors))
    columns, slices = np.asarray(model, float), model.model_spec.term_slices
    mean = np.full((len(design), 1), len(design) ** -0.5)
    spans = {str(t): (set(map(str, t.factors)), columns[:, s]) for t, s in slices.items() if str(t) != "1"}

    def added(x: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Orthonormal basis of what the columns of `x` add to the span of the orthonormal columns of `to`."""
        scale = np.linalg.norm(x - x.mean(axis=0), axis=0).max(initial=0)
        rest = x - to @ (to.T @ x)
        rest -= to @ (to.T @ rest)
        u, s, _ = np.linalg.svd(rest, full_matrices=False)
        return u[:, s > 1e-9 * max(scale, 1e-300)]

    basis, sequential = mean, {}
    for name, (_, x) in spans.items():
        sequential[name] = added(x, basis)
        if not sequential[name].shape[1]:
            raise ValueError(f"the term {name!r} is constant, or a sum of the terms before it")
        basis = np.hstack([basis, sequential[name]])
    full = basis[:, 1:]
    if by == "terms":
        return list(sequential), full, list(sequential.values())
    marginal = {}
    for name, (own, x) in spans.items():
        if any(own < other for other, _ in spans.values()):
            continue
        others = mean
        for y in (y for other, (_, y) in spans.items() if other != name):
            others = np.hstack([others, added(y, others)])
        marginal[name] = added(x, others)
        if not marginal[name].shape[1]:
            raise ValueError(f"the term {name!r} is a sum of the other terms")
    return list(marginal), full, list(marginal.values())


def _permuted(n: int, blocks: np.ndarray | None, permutations: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Random permutations of n rows within blocks, up to `size` at a time, one a row."""
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; expected 1 or more")
    rng = np.random.default_rng(seed)
    codes = np.zeros(n, int) if blocks is None else pd.factorize(blocks)[0]
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    sizes = sorted({len(m) for m in members} - {1})
    if not sizes:
        raise ValueError(f"each of the {len(members)} blocks has one sample: nothing can be permuted within them")
    # Blocks of one size are permuted together.
    together = [np.array([m for m in members if len(m) == s]) for s in sizes]
    for start in range(0, permutations, size):
        count = min(size, permutations - start)
        rows = np.tile(np.arange(n), (count, 1))
        for places in together:
            drawn = np.broadcast_to(places, (count, *places.shape)).copy()
            rng.permuted(drawn, axis=2, out=drawn)
            rows[:, places.ravel()] = drawn.reshape(count, -1)
        yield rows


# --- dispersion ------------------------------------------------------------------------------------------------------


def dispersion(
    gram: np.ndarray, grouping: np.ndarray, *, permutations: int, seed: int
) -> tuple[np.ndarray, float, float]:
    """Test of homogeneous multivariate dispersion: groups scatter alike around their centroids.

    Analysis of variance of the distances to the group's centroid in principal-coordinate space; p from permuting the
    residuals. PERMANOVA answers to spread as well as to place, so that this stands beside it.

    The samples are given by their inner products, as from `gower`. Distances to the group's centroid, F and p come
    back; `ValueError` if there is one group only, or as many as samples.

    References
    ----------
    Anderson, Biometrics 2006;62:245.
    """
    names, codes = np.unique(grouping, return_inverse=True)
    n, k = len(codes), len(names)
    if not 1 < k < n:
        raise ValueError(f"{n} samples in {k} groups; expected two groups or more, and more samples than groups")
    member = (codes[:, None] == np.arange(k)).astype(float)
    mean = member / member.sum(axis=0)
    to_centroid = np.diag(gram) - 2 * (gram @ mean)[np.arange(n), codes]
    squared = to_centroid + np.einsum("ic,ij,jc->c", mean, gram, mean, optimize=True)[codes]
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
        return distances, np.nan, np.nan
    null = [anova(residuals[rows]) for rows in _permuted(n, None, permutations, max(1, BATCH // n), seed)]
    return distances, observed, _p_value(observed, np.concatenate(null))


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
    the statistic is ``1'K1``; under no change each patient's change is as likely as its negative, so that ``f'Kf`` with
    random signs f is its null distribution. Time x arm: PERMANOVA of the changes on arm given the covariates, permuting
    whole patients. Several swabs of a patient at a visit count as their mean.

    The design has a row a swab, indexed by the ids of `distmat`, in any order, with columns subject, visit
    (``baseline`` or ``followup``), `arm` and `covariates`. A patient's value of a covariate is the first at baseline; a
    covariate that does not vary is left out.

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
    g = gower(distmat)
    half = np.sqrt(0.5)
    rows, subjects = _contrasts(obs, ["baseline", "followup"], [-half, half])
    dropped = obs["subject"].nunique() - len(subjects)
    k = rows @ g @ rows.T
    tests = [_time(g, k, obs, subjects, permutations, seed) | {"n_dropped": dropped}]
    if arm:
        patients = obs[obs["visit"].eq("baseline")].groupby("subject", observed=True)[[arm, *covariates]].first()
        both = _given(k, patients.loc[subjects], arm, covariates, permutations, seed)
        tests.append(both | {"term": "visit:arm", "n_dropped": both["n_dropped"] + dropped})
    return pd.DataFrame(tests)


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


def _time(
    g: np.ndarray, k: np.ndarray, obs: pd.DataFrame, subjects: Sequence[str], permutations: int, seed: int
) -> dict[str, Any]:
    n = len(subjects)
    if n < 5:
        return _not_estimable("visit", n)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, n))
    null = np.einsum("pi,ij,pj->p", signs, k, signs, optimize=True)
    explained, within = k.sum() / n, np.trace(k)
    dispersion_f, dispersion_p = _paired_dispersion(g, obs, subjects, signs)
    return {
        "term": "visit",
        "df": 1,
        "sum_of_squares": explained,
        "r2": explained / within,
        "pseudo_f": explained / ((within - explained) / (n - 1)),
        "p_value": _p_value(k.sum(), null),
        "n": n,
        "dispersion_f": dispersion_f,
        "dispersion_p": dispersion_p,
    }


def _given(
    gram: np.ndarray, patients: pd.DataFrame, factor: str, covariates: Names, permutations: int, seed: int
) -> dict[str, Any]:
    """Marginal test of a factor between patients, given by the inner products of their points, with its dispersion."""
    complete = patients[[factor, *covariates]].notna().all(axis=1).to_numpy()
    kept, dropped = patients[complete], int((~complete).sum())
    grouping = kept[factor].astype(str)
    if grouping.nunique() < 2 or grouping.value_counts().min() < 3:
        return _not_estimable(factor, len(kept)) | {"n_dropped": dropped}
    gram = gram[np.ix_(complete, complete)]
    varying = [c for c in covariates if kept[c].nunique() > 1]
    try:
        table = _permanova(gram, kept, " + ".join([*varying, factor]), "margin", None, permutations, seed)
    except ValueError:  # the covariates determine the factor, or leave no residual
        return _not_estimable(factor, len(kept)) | {"n_dropped": dropped}
    row = table[table["term"].eq(factor)].iloc[0].to_dict()
    _, f, p = dispersion(gram, grouping.to_numpy(), permutations=permutations, seed=seed)
    return row | {"n": len(kept), "n_dropped": dropped, "dispersion_f": f, "dispersion_p": p}


# --- the report's table ----------------------------------------------------------------------------------------------


def permanova_table(
    distmats: Mapping[str, DistanceMatrix],
    obs: pd.DataFrame,
    labels: Mapping[str, str],
    *,
    covariates: Names = (),
    arm_covariates: Names = (),
    permutations: int,
    seed: int,
) -> pd.DataFrame:
    """Every PERMANOVA of the report: group at baseline, time in each group and arm, time x arm; for each distance.

    Distances are between swabs, `obs` are these in any order. Group is adjusted for `covariates`, time x arm for
    `arm_covariates`. Columns distance, patients, and those of `paired_permanova`. Each patient counts once.
    """
    tests: dict[str, Any] = {"permutations": permutations, "seed": seed}
    rows = []
    for name, distmat in distmats.items():
        swabs = _aligned(obs, distmat, ["subject", "visit", "group", "arm", *covariates, *arm_covariates])
        rows.append({"distance": name, "patients": "all", **group_at_baseline(distmat, swabs, covariates, **tests)})
        for arm in ("control", "treatment", "comparator"):
            own = swabs.index[who(swabs).eq(arm)]
            if len(own):
                time = paired_permanova(distmat.filter(list(own)), swabs.loc[own], **tests).iloc[0]
                rows.append({"distance": name, "patients": labels[arm], **time})
        treated = swabs.index[swabs["arm"].notna()]
        if len(treated):
            how = tests | {"arm": "arm", "covariates": arm_covariates}
            both = paired_permanova(distmat.filter(list(treated)), swabs.loc[treated], **how)
            rows.append({"distance": name, "patients": "both arms", **both.iloc[1]})
    return pd.DataFrame(rows)


def group_at_baseline(
    distmat: DistanceMatrix, obs: pd.DataFrame, covariates: Names, *, permutations: int, seed: int
) -> dict[str, Any]:
    """PERMANOVA of patients against controls at baseline: one row of `permanova_table`."""
    swabs = _aligned(obs, distmat, ["subject", "visit", "group", *covariates])
    means, subjects = _contrasts(swabs, ["baseline"], [1.0])
    people = swabs[swabs["visit"].eq("baseline")].groupby("subject", observed=True).first().loc[subjects]
    return _given(means @ gower(distmat) @ means.T, people, "group", covariates, permutations, seed)


def _p_value(observed: Any, null: np.ndarray) -> Any:
    """(1 + hits) / (1 + permutations), of one statistic or of several; equal within rounding counts as a hit."""
    return (1 + (null >= observed - 1e-9 * abs(observed)).sum(axis=0)) / (1 + len(null))


def _paired_dispersion(g: np.ndarray, obs: pd.DataFrame, subjects: Names, signs: np.ndarray) -> tuple[float, float]:
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
    missing = ["df", "sum_of_squares", "r2", "pseudo_f", "p_value", "dispersion_f", "dispersion_p"]
    return {"term": term, **dict.fromkeys(missing, np.nan), "n": n}
