"""Alpha and beta diversity, ordination, and distance to the healthy reference."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial.distance import pdist, squareform
from scipy.special import gammaln
from skbio import DistanceMatrix, TreeNode
from skbio.stats.composition import clr
from skbio.stats.ordination import OrdinationResults, pcoa

#: Alpha-diversity measures, with the unit in which they are reported.
ALPHA_UNITS = {"observed_features": "ASVs", "shannon": "nats", "simpson": "", "faith_pd": "branch length"}
ALPHA_NAMES = {
    "observed_features": "Observed ASVs",
    "shannon": "Shannon",
    "simpson": "Simpson",
    "faith_pd": "Faith's PD",
}


def rarefy(cohort: AnnData, rarefaction_depth: int, *, seed: int) -> AnnData:
    """Draw the same number of reads from each swab, once, without replacement.

    Parameters
    ----------
    cohort : AnnData
        Counts in ``X``, samples x features.
    rarefaction_depth : int
        Reads a swab. Swabs with fewer are left out.
    seed : int

    Returns
    -------
    AnnData
        The swabs that are deep enough, ``X`` dense, features that no swab has kept (so that the tree still fits).
    """
    counts = np.asarray(cohort.X.todense() if hasattr(cohort.X, "todense") else cohort.X).astype(np.int64)
    deep = counts.sum(axis=1) >= rarefaction_depth
    rng = np.random.default_rng(seed)
    drawn = [rng.multivariate_hypergeometric(row, rarefaction_depth, method="marginals") for row in counts[deep]]
    rarefied = cohort[deep].copy()
    rarefied.X = np.array(drawn, dtype=np.int64).reshape(deep.sum(), counts.shape[1])
    return rarefied


def tree_of(cohort: AnnData) -> TreeNode | None:
    """The cohort's tree, rooted: at its midpoint, if it came unrooted.

    Parameters
    ----------
    cohort : AnnData
        Newick in ``uns["tree"]``, if there is a tree.

    Returns
    -------
    skbio.TreeNode or None
    """
    if "tree" not in cohort.uns:
        return None
    tree = TreeNode.read([cohort.uns["tree"]])
    return tree if len(tree.children) == 2 else tree.root_at_midpoint()


def _counts(counts: AnnData | pd.DataFrame) -> tuple[sparse.csr_array, list[str], list[str]]:
    """Whole, non-negative counts as a sparse matrix, with the names of the samples and the features."""
    cohort = counts if isinstance(counts, AnnData) else AnnData(counts)
    X = sparse.csr_array(cohort.X)
    X.eliminate_zeros()
    odd = X.data[~((X.data >= 0) & (X.data == np.floor(X.data)))]
    if odd.size:
        raise ValueError(f"counts: {len(odd)} values such as {odd[0]:g} are no whole numbers of reads from 0 up")
    return X.astype(np.int64), list(cohort.obs_names), list(cohort.var_names)


def _branches(tree: TreeNode, features: Sequence[str]) -> tuple[sparse.csr_array, np.ndarray]:
    """Which branches lead from each feature to the root (features x branches, 0 or 1), and the branches' lengths."""
    nodes = list(tree.postorder(include_self=False))
    at = {id(node): i for i, node in enumerate(nodes)}
    tips = {tip.name: tip for tip in tree.tips()}
    missing = [f for f in features if f not in tips]
    if missing:
        raise ValueError(f"the tree lacks {len(missing)} of {len(features)} features, such as {missing[0]}")
    if len(tree.children) > 2:
        raise ValueError(f"the tree is not rooted: {len(tree.children)} branches meet at its base, expected 2")
    rows, columns = [], []
    for i, feature in enumerate(features):
        node = tips[feature]
        while node.parent is not None:
            rows.append(i)
            columns.append(at[id(node)])
            node = node.parent
    lengths = np.array([node.length or 0.0 for node in nodes])
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(features), len(nodes))), lengths


def expected_alpha(
    counts: AnnData | pd.DataFrame, depth: int, metrics: Sequence[str] | None = None, tree: TreeNode | None = None
) -> pd.DataFrame:
    """Expected alpha diversity of a swab if `depth` of its reads were drawn: the exact mean over all subsamples.

    With N reads in a swab, x of a feature, and K of these among the m drawn (hypergeometric):

    - observed features: sum of P(K > 0) = 1 - C(N - x, m) / C(N, m) (Hurlbert 1971);
    - Shannon: ln m - sum of E[K ln K] / m, to which features with one read add nothing;
    - Simpson, 1 - D: 1 - sum of E[K^2] / m^2;
    - Faith's PD: branch lengths weighted by the probability that a read below the branch is drawn (Nipperess & Matsen
      2013), down to the root.

    Parameters
    ----------
    counts : AnnData or DataFrame
        Samples x features, whole numbers.
    depth : int
        Reads drawn, without replacement.
    metrics : sequence of str, optional
        Of `ALPHA_UNITS`; by default all, ``faith_pd`` if there is a tree.
    tree : skbio.TreeNode, optional
        Rooted; its tips include the features.

    Returns
    -------
    DataFrame
        Samples x `metrics`; Shannon in nats; NaN for samples with fewer than `depth` reads.

    Raises
    ------
    ValueError
        If no sample has `depth` reads, a metric is unknown, counts are not whole, or the tree does not fit.

    References
    ----------
    Hurlbert, Ecology 1971;52:577. Nipperess & Matsen, Methods Ecol Evol 2013;4:566.
    """
    metrics = [m for m in ALPHA_UNITS if m != "faith_pd" or tree is not None] if metrics is None else list(metrics)
    if unknown := [m for m in metrics if m not in ALPHA_UNITS]:
        raise ValueError(f"unknown metric {unknown[0]!r}; known: {', '.join(ALPHA_UNITS)}")
    if "faith_pd" in metrics and tree is None:
        raise ValueError("faith_pd needs a tree")
    X, ids, features = _counts(counts)
    totals = X.sum(axis=1)
    if depth < 1 or not (totals >= depth).any():
        raise ValueError(f"depth is {depth}; expected 1 to {max(totals, default=0)}, the most reads of a sample")
    deep = np.flatnonzero(totals >= depth)
    X, totals = X[deep], totals[deep]
    cells = X.tocoo()
    row, x = cells.row, cells.data
    total = totals[row]
    log_factorial = gammaln(np.arange(totals.max() + 1) + 1.0)

    def never(marked: np.ndarray, total: np.ndarray) -> np.ndarray:
        """Probability that none of the marked reads is drawn."""
        left = total - marked
        lf = log_factorial
        log_p = lf[left] - lf[np.maximum(left - depth, 0)] - lf[total] + lf[total - depth]
        return np.where(left >= depth, np.exp(log_p), 0.0)

    def by_sample(values: np.ndarray) -> np.ndarray:
        return np.bincount(row, values, minlength=len(deep))

    table = pd.DataFrame(np.nan, index=pd.Index(ids), columns=metrics)
    for metric in metrics:
        if metric == "observed_features":
            values = by_sample(1 - never(x, total))
        elif metric == "shannon":
            values = np.log(depth) - by_sample(_expected_x_log_x(x, total, depth, log_factorial)) / depth
        elif metric == "simpson":
            mean = depth * x / total
            variance = mean * (1 - x / total) * (total - depth) / np.maximum(total - 1, 1)
            values = 1 - by_sample(variance + mean**2) / depth**2
        else:
            above, lengths = _branches(tree, features)
            reads = (X @ above).tocoo()
            drawn = 1 - never(reads.data.astype(np.int64), totals[reads.row])
            values = np.bincount(reads.row, lengths[reads.col] * drawn, minlength=len(deep))
        table.iloc[deep, table.columns.get_loc(metric)] = values
    return table


def _expected_x_log_x(x: np.ndarray, total: np.ndarray, depth: int, log_factorial: np.ndarray) -> np.ndarray:
    """E[K ln K] for hypergeometric K: `depth` reads drawn out of `total`, of which `x` are marked.

    Each distinct pair is summed once, over all k with a probability that float64 can tell from zero beside the mode's.
    """
    terms = 50_000  # summed at a time: what fits into a processor's cache
    pairs, inverse = np.unique(total * (x.max() + 1) + x, return_inverse=True)
    total, x = np.divmod(pairs, x.max() + 1)
    rest, lf = total - x - depth, log_factorial
    mean = depth * x / total
    spread = 10 * np.sqrt(mean) + 30  # beyond it the tails are below 1e-16 of the whole
    low = np.maximum(np.maximum(2, -rest), np.floor(mean - spread).astype(np.int64))
    high = np.minimum(np.minimum(x, depth), np.ceil(mean + spread).astype(np.int64))
    n = np.maximum(high - low + 1, 0)
    constant = lf[x] + lf[total - x] - lf[total] + lf[depth] + lf[total - depth]
    k = np.arange(depth + 1)
    weight = np.full(depth + 1, -np.inf)
    weight[2:] = np.log(k[2:] * np.log(k[2:])) - lf[k[2:]] - lf[depth - k[2:]]
    expected = np.zeros(len(pairs))
    ends = np.cumsum(n)
    start = 0
    while start < len(pairs):
        done = ends[start] - n[start]
        stop = max(int(np.searchsorted(ends, done + terms, side="right")), start + 1)
        part, own = slice(start, stop), n[start:stop]
        first = ends[part] - own - done
        k = np.arange(own.sum()) + np.repeat(low[part] - first, own)
        log_term = weight[k] - lf[np.repeat(x[part], own) - k] - lf[np.repeat(rest[part], own) + k]
        log_term += np.repeat(constant[part], own)
        expected[part] = np.where(own > 0, np.add.reduceat(np.append(np.exp(log_term), 0.0), first), 0.0)
        start = stop
    return expected[inverse]


def rarefaction_curves(cohort: AnnData, depths: Sequence[int]) -> pd.DataFrame:
    """Expected observed features and Shannon diversity of each group at rising depths.

    Parameters
    ----------
    cohort : AnnData
    depths : sequence of int
        Reads a swab; at each depth the swabs that reach it are used.

    Returns
    -------
    DataFrame
        Columns group, depth, swabs, observed_features, shannon (means over swabs).
    """
    curves = []
    for depth in depths:
        swabs = expected_alpha(cohort, depth, ["observed_features", "shannon"]).dropna()
        groups = swabs.groupby(cohort.obs.loc[swabs.index, "group"], observed=True)
        curves.append(groups.mean().assign(depth=depth, swabs=groups.size()).reset_index())
    return pd.concat(curves)[["group", "depth", "swabs", "observed_features", "shannon"]].reset_index(drop=True)


def bray_curtis(cohort: AnnData, rarefaction_depth: int, *, rarefactions: int, seed: int) -> DistanceMatrix:
    """Bray-Curtis dissimilarity between swabs at one depth, the mean over several draws.

    All swabs having the same number of reads, it is the sum of |a - b| over twice that number. The mean of
    dissimilarities whose square root is Euclidean has that property too.

    Parameters
    ----------
    cohort : AnnData
    rarefaction_depth : int
        Reads a swab. Swabs with fewer are left out.
    rarefactions : int
        Draws; the first is that of `rarefy` with the same seed.
    seed : int

    Returns
    -------
    skbio.DistanceMatrix
        Of the swabs that are deep enough, as `rarefy` keeps them.

    Raises
    ------
    ValueError
        If fewer than two swabs are deep enough.

    References
    ----------
    Bray & Curtis, Ecol Monogr 1957;27:325.
    """
    total: np.ndarray | float = 0.0
    for draw in range(rarefactions):
        rarefied = rarefy(cohort, rarefaction_depth, seed=seed + draw)
        if rarefied.n_obs < 2:
            raise ValueError(f"{rarefied.n_obs} swabs have {rarefaction_depth} reads; expected two or more")
        seen = rarefied.X.any(axis=0)
        total = total + pdist(rarefied.X[:, seen].astype(float), "cityblock")
    return DistanceMatrix(squareform(total / (2 * rarefaction_depth * rarefactions)), list(rarefied.obs_names))


def unifrac(
    counts: AnnData | pd.DataFrame, tree: TreeNode, *, weighted: bool, normalized: bool = False
) -> DistanceMatrix:
    """UniFrac distance between samples, by matrix algebra over the branches of the tree.

    With p the share of a sample's reads below each branch and l the branch's length: weighted, sum of l |p_i - p_j|,
    normalised by sum of l (p_i + p_j); unweighted, the length below which one sample only has reads over the length
    below which either has.

    Parameters
    ----------
    counts : AnnData or DataFrame
        Samples x features, whole numbers.
    tree : skbio.TreeNode
        Rooted; its tips include the features.
    weighted, normalized : bool
        Unweighted UniFrac is normalised by its definition.

    Returns
    -------
    skbio.DistanceMatrix

    Raises
    ------
    ValueError
        If a sample has no reads, counts are not whole, or the tree does not fit.

    References
    ----------
    Lozupone & Knight, Appl Environ Microbiol 2005;71:8228; Lozupone et al., ibid. 2007;73:1576 (weighted).
    """
    X, ids, features = _counts(counts)
    totals = X.sum(axis=1)
    if not totals.all():
        raise ValueError(f"{(totals == 0).sum()} samples have no reads, such as {ids[int(np.argmin(totals))]}")
    above, lengths = _branches(tree, features)
    reads = sparse.csr_array(X @ above)
    if weighted:
        scaled = (sparse.diags_array(1 / totals) @ reads @ sparse.diags_array(lengths)).toarray()
        distances = squareform(pdist(scaled, "cityblock"))
        if normalized:
            to_root = scaled.sum(axis=1)
            distances /= to_root[:, None] + to_root
    else:
        present = (reads.toarray() > 0).astype(float)
        shared = (present * lengths) @ present.T
        own = np.diag(shared).copy()
        either = own[:, None] + own - shared
        distances = 1 - shared / either
        distances = np.maximum((distances + distances.T) / 2, 0)
    np.fill_diagonal(distances, 0)
    return DistanceMatrix(distances, ids)


def aitchison(rarefied: AnnData, *, pseudocount: float = 0.5) -> DistanceMatrix:
    """Aitchison distance between swabs: Euclidean after the centred log-ratio.

    Parameters
    ----------
    rarefied : AnnData
    pseudocount : float
        Added to each count, since a zero has no logarithm.

    Returns
    -------
    skbio.DistanceMatrix

    References
    ----------
    Aitchison, J R Stat Soc B 1982;44:139.
    """
    seen = rarefied.X.sum(axis=0) > 0
    return DistanceMatrix(squareform(pdist(clr(rarefied.X[:, seen] + pseudocount))), list(rarefied.obs_names))


def square_root(distmat: DistanceMatrix) -> DistanceMatrix:
    """Square root of each distance, which makes Bray-Curtis Euclidean.

    Parameters
    ----------
    distmat : skbio.DistanceMatrix

    Returns
    -------
    skbio.DistanceMatrix

    References
    ----------
    Legendre & Legendre, Numerical Ecology, 2012, section 7.4.
    """
    return DistanceMatrix(np.sqrt(distmat.data), distmat.ids)


def ordinate(distmat: DistanceMatrix) -> OrdinationResults:
    """Principal coordinates of the first two axes.

    Parameters
    ----------
    distmat : skbio.DistanceMatrix

    Returns
    -------
    skbio.OrdinationResults
        ``samples`` (swabs x PC1, PC2) and ``proportion_explained`` of the whole variation.
    """
    results = pcoa(distmat, dimensions=distmat.shape[0], warn_neg_eigval=False)
    results.samples = results.samples.iloc[:, :2]
    return results


def distance_to_reference(distmat: DistanceMatrix, reference: Sequence[bool], subjects: Sequence[str]) -> pd.Series:
    """Distance of each swab to the centroid of the reference swabs, leaving out the swab's own subject.

    With J the reference swabs of other subjects, ``d2_i = mean_j d2(i, j) - mean_jk d2(j, k) / 2``: the squared
    distance to the centroid of J in principal-coordinate space, without computing the coordinates.

    Parameters
    ----------
    distmat : skbio.DistanceMatrix
        Must be Euclidean, such as square-root Bray-Curtis.
    reference : sequence of bool
        Which swabs are the reference, in the order of `distmat`.
    subjects : sequence of str
        The subject of each swab. A control is never compared with itself, at either visit.

    Returns
    -------
    Series
        Indexed by the ids of `distmat`; NaN if no other subject is in the reference.

    References
    ----------
    Gower, Biometrika 1966;53:325; Anderson, Biometrics 2006;62:245 (distance to centroid).
    """
    d2 = np.asarray(distmat.data) ** 2
    inside = np.asarray(reference, bool)
    subject = np.asarray(subjects)
    total = d2[:, inside].sum(axis=1)
    squared = np.full(len(d2), np.nan)
    for name in np.unique(subject):
        own = subject == name
        left_out = own & inside
        n = inside.sum() - left_out.sum()
        if n == 0:
            continue
        to_own = d2[:, left_out].sum(axis=1)
        within = (total[inside] - to_own[inside])[subject[inside] != name].sum()
        squared[own] = (total - to_own)[own] / n - within / (2 * n * n)
    return pd.Series(np.sqrt(np.maximum(squared, 0)), index=list(distmat.ids), name="distance_to_healthy")


def closure(
    pairs: pd.DataFrame, controls: pd.Series, *, bootstraps: int, seed: int, alpha: float = 0.05
) -> dict[str, float]:
    """Per cent of the gap to the controls that closed between the visits.

    ``(mean D0 - mean D1) / (mean D0 - mean Dc)``, in per cent; the interval from resampling patients and controls. A
    ratio means nothing where its denominator may be zero: unless the interval of the gap at baseline lies above zero,
    the closure is NaN.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient, ``y0`` and ``y1`` the distances to healthy at the two visits.
    controls : Series
        The controls' own distances to the other controls.
    bootstraps, seed, alpha
        Resamples, their seed, and 1 - coverage.

    Returns
    -------
    dict
        ``estimate``, ``ci_low``, ``ci_high`` in per cent, ``n`` patients, and ``gap``, ``gap_low``, ``gap_high``, the
        distance to be closed.
    """
    y0, y1, dc = pairs["y0"].to_numpy(), pairs["y1"].to_numpy(), controls.dropna().to_numpy()
    n = len(y0)
    unknown = dict.fromkeys(("estimate", "ci_low", "ci_high", "gap", "gap_low", "gap_high"), np.nan) | {"n": n}
    if n < 3 or len(dc) < 3:
        return unknown
    rng = np.random.default_rng(seed)
    rows = rng.integers(n, size=(bootstraps, n))
    reference = dc[rng.integers(len(dc), size=(bootstraps, len(dc)))].mean(axis=1)
    start = y0[rows].mean(axis=1)
    tails = [alpha / 2, 1 - alpha / 2]
    gap_low, gap_high = np.quantile(start - reference, tails)
    gap = y0.mean() - dc.mean()
    known = unknown | {"gap": gap, "gap_low": gap_low, "gap_high": gap_high}
    if gap_low <= 0:
        return known
    low, high = np.quantile(100 * (start - y1[rows].mean(axis=1)) / (start - reference), tails)
    return known | {"estimate": 100 * (y0.mean() - y1.mean()) / gap, "ci_low": low, "ci_high": high}
