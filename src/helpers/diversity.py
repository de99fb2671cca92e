"""Alpha and beta diversity, ordination, distance to the healthy reference, and position on the axis from there.

Counts are swabs x features, whole numbers of reads; a depth is so many reads a swab. `ValueError` if a count is not
whole, or if no swab is deep enough.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.special import gammaln
from skbio import DistanceMatrix, TreeNode
from skbio.stats.composition import closure, clr, multi_replace
from skbio.stats.ordination import OrdinationResults, pcoa

from helpers.workers import on_threads

#: Alpha-diversity measures.
ALPHA = ("observed_features", "shannon", "simpson", "faith_pd")
#: What stands for a zero before a logarithm: added to each count, or replaced in the shares.
PSEUDOCOUNT, MULTIPLICATIVE = 0.5, "multiplicative"
#: Numbers held at once where a table is worked through in parts.
CHUNK = 2**19
#: Swabs whose distances are computed together: few enough for the processor's cache, and worth a thread.
BLOCK = 1024
#: Reads of a swab up to which log factorials are looked up. Of more, a table would be large, and its digits too few.
LOOKED_UP = 2**20


class _Table(NamedTuple):
    """Whole counts, swabs x features, with their names."""

    counts: sparse.csr_array
    ids: list[str]
    features: list[str]
    totals: np.ndarray


class _Branches(NamedTuple):
    """The branches of a tree: with the features sorted as tips, branch b has those of ``first[b]:last[b]`` below it."""

    order: np.ndarray
    first: np.ndarray
    last: np.ndarray
    length: np.ndarray


def _table(counts: AnnData | pd.DataFrame) -> _Table:
    """Read counts from either container; refuse what is not a whole number of reads."""
    if isinstance(counts, AnnData):
        ids, features, values = list(counts.obs_names), list(counts.var_names), counts.X
    else:
        ids, features, values = list(counts.index), list(counts.columns), counts.to_numpy()
    table = sparse.csr_array(values, dtype=float, copy=True)
    table.sum_duplicates()
    table.eliminate_zeros()
    bad = ~(np.isfinite(table.data) & (table.data > 0) & (table.data % 1 == 0))
    if bad.any():
        where = np.flatnonzero(bad)[0]
        swab = ids[np.searchsorted(table.indptr, where, side="right") - 1]
        raise ValueError(
            f"{bad.sum()} counts are not whole numbers of reads, the first {table.data[where]:g} of "
            f"{features[table.indices[where]]!r} in swab {swab!r}; expected integers >= 0"
        )
    table = table.astype(np.int64)
    return _Table(table, ids, features, np.asarray(table.sum(axis=1)))


def _deep_enough(table: _Table, depth: int) -> np.ndarray:
    """Say which swabs have `depth` reads; at least one must."""
    if not isinstance(depth, int | np.integer) or depth < 1:
        raise ValueError(f"the depth is {depth}; expected a whole number of reads, at least 1")
    deepest = table.totals.max(initial=0)
    if depth > deepest:
        raise ValueError(f"no swab has {depth} reads: the deepest of {len(table.ids)} has {deepest}")
    return table.totals >= depth


def rooted_tree(cohort: AnnData) -> TreeNode | None:
    """Phylogeny of the cohort (Newick in ``uns["tree"]``), rooted at the midpoint unless it has a root; None without.

    A feature that the tree lacks hangs from the root by a branch of no length, so that it counts for nothing in Faith's
    PD and UniFrac.
    """
    if "tree" not in cohort.uns:
        return None
    tree = TreeNode.read([cohort.uns["tree"]], format="newick", convert_underscores=False)
    tree = tree if len(tree.children) <= 2 else tree.root_at_midpoint()
    tips = {tip.name for tip in tree.tips()}
    if absent := [TreeNode(feature, length=0) for feature in cohort.var_names if feature not in tips]:
        tree.length = tree.length or 0
        tree = TreeNode(children=[tree, TreeNode(children=absent, length=0)])
    return tree


def _branches(tree: TreeNode, features: Sequence[str]) -> _Branches:
    """List the branches that lead to `features`; other tips do not count."""
    if len(tree.children) > 2:
        raise ValueError(f"the tree has no root ({len(tree.children)} branches meet at its base); see `rooted_tree`")
    column = {name: j for j, name in enumerate(features)}
    if len(column) < len(features):
        raise ValueError(f"{len(features) - len(column)} features have the name of another one")
    order: list[int] = []
    below: list[int] = []  # the first feature below each subtree that has no parent yet
    rows: list[tuple[int, int, float]] = []
    for node in tree.postorder():
        of_node = 0.0 if node is tree and node.length is None else node.length  # a root may have a branch, too
        if of_node is None or not 0 <= of_node < np.inf:
            raise ValueError(f"branch {node.name!r} of the tree has the length {of_node}; expected a number >= 0")
        start = len(order)
        if node.children:
            start = below[-len(node.children)]
            del below[-len(node.children) :]
        elif node.name in column:
            order.append(column[node.name])
        below.append(start)
        if len(order) > start:
            rows.append((start, len(order), of_node))
    if len(set(order)) < len(order):
        raise ValueError("the tree has several tips of one name")
    if absent := sorted(set(column) - {features[j] for j in order}):
        raise ValueError(f"the tree lacks {len(absent)} of {len(features)} features, the first {absent[0]!r}")
    first, last, length = zip(*rows, strict=True)
    return _Branches(np.array(order), np.array(first), np.array(last), np.array(length, float))


def _reads_below(counts: sparse.csr_array, branches: _Branches) -> Iterator[tuple[slice, np.ndarray]]:
    """Reads below each branch, some swabs at a time: their rows, and an array of swabs x branches."""
    step = max(CHUNK // len(branches.length), 1)
    for start in range(0, counts.shape[0], step):
        rows = slice(start, start + step)
        tips = counts[rows].toarray()[:, branches.order]
        sums = np.zeros((tips.shape[0], tips.shape[1] + 1), np.int64)
        np.cumsum(tips, axis=1, out=sums[:, 1:])
        yield rows, sums[:, branches.last] - sums[:, branches.first]


def rarefy(cohort: AnnData, rarefaction_depth: int, *, seed: int | np.random.Generator) -> AnnData:
    """Draw the same number of reads from each swab, once, without replacement.

    The swabs that are deep enough, ``X`` dense, features that no swab has kept (so that the tree still fits). Of
    relative abundances (``uns["relative"]``) nothing can be drawn: all swabs as they are.
    """
    if cohort.uns.get("relative", False):
        return dense(cohort)
    table = _table(cohort)
    deep = _deep_enough(table, rarefaction_depth)
    rarefied = cohort[deep].copy()
    rarefied.X = _draw(table.counts[deep], rarefaction_depth, np.random.default_rng(seed)).toarray()
    return rarefied


def dense(cohort: AnnData) -> AnnData:
    """All swabs as they are, ``X`` dense."""
    whole = cohort.copy()
    whole.X = whole.X.toarray()
    return whole


def _draw(counts: sparse.csr_array, depth: int, rng: np.random.Generator) -> sparse.csr_array:
    """Draw `depth` reads of each row, without replacement."""

    def of_row(row: np.ndarray) -> np.ndarray:
        if row.sum() >= 10**9:  # more than NumPy takes: leaving out each read by its own chance favours none
            return of_row(rng.binomial(row, 0.9))
        return rng.multivariate_hypergeometric(row, depth, method="marginals")

    drawn = [of_row(row) for row in np.split(counts.data, counts.indptr[1:-1])]
    return sparse.csr_array((np.concatenate(drawn), counts.indices, counts.indptr), shape=counts.shape)


def expected_alpha(
    counts: AnnData | pd.DataFrame, depth: int, metrics: Sequence[str] = ALPHA, tree: TreeNode | None = None
) -> pd.DataFrame:
    """Alpha diversity of each swab at one depth: the exact mean over all subsamples of its reads.

    What rarefying endlessly often would converge to. Of N reads, k of a feature, m are taken without replacement:

    - observed features, ``sum 1 - C(N - k, m) / C(N, m)``;
    - Shannon, ``ln m - sum k / N E[ln(1 + K)]``, with K the reads of the feature among m - 1 of the other N - 1;
    - Simpson, ``(m - 1) / m (1 - sum k (k - 1) / (N (N - 1)))``;
    - Faith's PD, the length of each branch times the probability that a read from below it is taken. Up to the root.

    The tree is rooted, with branch lengths and a tip for each feature (others do not matter): of a cohort,
    `rooted_tree`. Without one, ``faith_pd`` is left out.

    Swabs x metrics: features; nats; probability that two reads taken (with replacement) differ; branch length. NaN for
    swabs with fewer reads than `depth`, and for relative abundances (``uns["relative"]``). `ValueError` also if a
    metric is unknown, or the tree does not fit.

    References
    ----------
    Hurlbert, Ecology 1971;52:577 (observed features); Nipperess & Matsen, Methods Ecol Evol 2013;4:566 (Faith's PD).
    """
    if unknown := sorted(set(metrics) - set(ALPHA)):
        raise ValueError(f"unknown metrics {unknown}; expected some of {list(ALPHA)}")
    metrics = [m for m in metrics if m != "faith_pd" or tree is not None]
    if isinstance(counts, AnnData) and counts.uns.get("relative", False):
        return pd.DataFrame(np.nan, index=counts.obs_names, columns=metrics)
    table = _table(counts)
    deep = _deep_enough(table, depth)
    reads, totals = table.counts[deep], table.totals[deep]
    log_factorial = gammaln(np.arange(totals.max() + 1) + 1.0) if totals.max() <= LOOKED_UP else None
    expected = pd.DataFrame(np.nan, index=table.ids, columns=metrics)
    for metric in expected:
        if metric == "observed_features":
            found = _found(reads.data, np.repeat(totals, np.diff(reads.indptr)), depth, log_factorial)
            values = np.add.reduceat(found, reads.indptr[:-1])
        elif metric == "shannon":
            values = _expected_shannon(reads, totals, depth, log_factorial)
        elif metric == "simpson":
            same = np.add.reduceat(reads.data * (reads.data - 1.0), reads.indptr[:-1])
            values = (1 - same / np.maximum(totals * (totals - 1.0), 1)) * (depth - 1) / depth
        else:
            branches, values = _branches(tree, table.features), np.empty(len(totals))
            for rows, below in _reads_below(reads, branches):
                values[rows] = _found(below, totals[rows, None], depth, log_factorial) @ branches.length
        expected.loc[deep, metric] = values
    return expected


def _found(k: np.ndarray, total: np.ndarray, depth: int, log_factorial: np.ndarray | None) -> np.ndarray:
    """Probability that at least one of `k` reads is among `depth` of `total`."""
    others = total - k
    if log_factorial is None:  # the chance to miss is the same with k and depth exchanged
        few, many = np.minimum(k, depth), np.minimum(np.maximum(k, depth), total - np.minimum(k, depth))
        missed = few * np.log1p(-many / (total + 1.0)) + _rise(total, -few) - _rise(total - many, -few)
    else:
        missed = log_factorial[others] - log_factorial[np.maximum(others - depth, 0)]
        missed -= log_factorial[total] - log_factorial[total - depth]
    return np.where(others < depth, 1.0, -np.expm1(missed))


#: What Stirling's approximation of ln Γ(y) lacks, at 0 (never asked for) to 15.
_LACKING = np.r_[0, [gammaln(y) - (y - 0.5) * np.log(y) + y - np.log(2 * np.pi) / 2 for y in range(1, 16)]]


def _rise(n: np.ndarray, by: np.ndarray) -> np.ndarray:
    """What ``ln (n + by)! - ln n!`` is above ``by ln (n + 1) - by``, to all digits however large n is.

    From Stirling's series, of which the large terms cancel.

    References
    ----------
    Loader, Fast and accurate computation of binomial probabilities, 2000 (the same for a binomial).
    """

    def lacking(y: np.ndarray) -> np.ndarray:
        r = 1 / y
        series = r * (1 / 12 - r**2 * (1 / 360 - r**2 * (1 / 1260 - r**2 / 1680)))
        return np.where(y < 16, _LACKING[np.minimum(y, 15).astype(np.intp)], series)

    y = n + 1.0
    return (y + by - 0.5) * np.log1p(by / y) + lacking(y + by) - lacking(y)


def _expected_shannon(
    reads: sparse.csr_array, totals: np.ndarray, depth: int, log_factorial: np.ndarray | None
) -> np.ndarray:
    row, k = np.repeat(np.arange(len(totals)), np.diff(reads.indptr)), reads.data
    row, k = row[k > 1], k[k > 1]  # a single read leaves none to meet, ln(1 + 0) = 0
    # The same count in swabs of one total has the same mean: each is worked out once.
    different, of_swab = np.unique(totals, return_inverse=True)
    base = k.max(initial=0) + 1
    pairs, which = np.unique(of_swab[row] * base + k, return_inverse=True)
    widest = 2 * int(_reach(depth / 4)) + 3  # no support is wider
    step = max(CHUNK // (widest if log_factorial is not None else min(widest, 300)), 1)
    mean = [
        _mean_log1p(different[batch // base] - 1, batch % base - 1, depth - 1, log_factorial)
        for batch in np.split(pairs, range(step, len(pairs), step))
    ]
    return np.log(depth) - np.bincount(row, k / totals[row] * np.concatenate(mean)[which], minlength=len(totals))


def _reach(variance: np.ndarray | float) -> np.ndarray:
    """How far from its mean a hypergeometric count may lie: beyond is a probability below exp(-36) on either side."""
    # Bernstein's bound for sums of independent draws holds without replacement too (Hoeffding 1963, theorem 4).
    return 12 + np.sqrt(144 + 72 * np.asarray(variance))


def _mean_log1p(n: np.ndarray, k: np.ndarray, m: int, log_factorial: np.ndarray | None) -> np.ndarray:
    """Mean of ln(1 + K) for hypergeometric K: of `n` reads `k` are the feature's, `m` are taken."""
    if not len(n):
        return np.empty(0)
    mean = m * (k / n)
    variance = np.minimum(mean * (1 - k / n), mean * (1 - m / n))
    reach = _reach(variance)
    low = np.maximum.reduce([np.zeros_like(k), m - n + k, np.floor(mean - reach).astype(np.int64)])
    high = np.minimum.reduce([k, np.full_like(k, m), np.ceil(mean + reach).astype(np.int64)])
    # Every value that K may take. In deep swabs eight to a standard deviation, which leaves a mean as it is: K is a sum
    # of independent yes and no, whose characteristic function is below exp(-500) there.
    apart = np.maximum(np.sqrt(variance) // 8, 1).astype(np.int64) if log_factorial is None else np.ones_like(k)
    width = (high - low) // apart + 1
    begin = np.cumsum(width) - width
    # One long array of these values, pair after pair.
    x = (np.arange(width.sum()) - np.repeat(begin, width)) * np.repeat(apart, width) + np.repeat(low, width)
    if log_factorial is None:
        # Each probability as a multiple of that next to the mean.
        centre = np.clip(np.rint(mean).astype(np.int64), low, high)
        left = n - k - m
        up = x - np.repeat(centre, width)
        tilt = np.log((centre + 1.0) / (k - centre + 1.0) * ((left + centre + 1.0) / (m - centre + 1.0)))
        power = -up * np.repeat(tilt, width)
        for count, by in ((centre, up), (k - centre, -up), (m - centre, -up), (left + centre, up)):
            power -= _rise(np.repeat(count, width), by)
        chance = np.exp(power)
        return np.add.reduceat(chance * np.log1p(x), begin) / np.add.reduceat(chance, begin)
    taken = np.arange(m + 1)
    divisor = (log_factorial[taken] + log_factorial[m - taken])[x]
    divisor += log_factorial[np.repeat(k, width) - x]
    divisor += log_factorial[np.repeat(n - k - m, width) + x]
    dividend = log_factorial[k] + log_factorial[n - k] + log_factorial[m] + log_factorial[n - m] - log_factorial[n]
    return np.add.reduceat(np.exp(np.repeat(dividend, width) - divisor) * np.log1p(taken)[x], begin)


def curve_depths(cohort: AnnData, rarefaction_depth: int) -> list[int]:
    """Depths for rarefaction curves: up to what at least half of the swabs reach, or to the rarefaction depth.

    Rising: 100, 200, 500, 1,000 and so on, the rarefaction depth, and the greatest (two digits, rounded down): the
    rarefaction depth, where fewer than half of the swabs have more reads.
    """
    half = int(np.quantile(_table(cohort).totals, 0.5, method="lower"))
    unit = 10 ** max(len(str(half)) - 2, 0)
    greatest = max(half // unit * unit, rarefaction_depth)
    steps = (digit * 10**power for power in range(2, len(str(greatest))) for digit in (1, 2, 5))
    return sorted({*(step for step in steps if step < greatest), rarefaction_depth, greatest})


def rarefaction_curves(cohort: AnnData, depths: Sequence[int]) -> pd.DataFrame:
    """Expected observed features and Shannon diversity of each swab at rising depths, as from `curve_depths`.

    One row a swab and depth: swab, group, depth, observed_features, shannon (NaN where the swab has fewer reads), and
    ``reaches``, whether the swab reaches the greatest depth. `ValueError` if there are no depths, or no swab reaches
    one of them.
    """
    if not len(depths):
        raise ValueError("no depths to draw the curves at; expected at least one")
    drawn = {depth: expected_alpha(cohort, depth, ("observed_features", "shannon")) for depth in sorted(depths)}
    reaches = drawn[max(depths)]["shannon"].notna()
    curves = pd.concat(drawn, names=["depth", "swab"]).reset_index()
    swab = curves["swab"]
    curves = curves.assign(group=swab.map(cohort.obs["group"]), reaches=swab.map(reaches))
    return curves[["swab", "group", "depth", "observed_features", "shannon", "reaches"]]


def rarefaction_means(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean rarefaction curve of each group over the same swabs at every depth: those that reach the greatest.

    `curves` as from `rarefaction_curves`. One row a group and depth: group, depth, observed_features, shannon,
    ``swabs``, and ``of``, all of the group's. A group none of whose swabs reaches the greatest depth is not there.
    """
    all_swabs = curves.groupby("group", observed=True)["swab"].nunique()
    by_depth = curves[curves["reaches"]].groupby(["group", "depth"], observed=True)
    means = by_depth[["observed_features", "shannon"]].mean().assign(swabs=by_depth.size()).reset_index()
    return means.assign(of=means["group"].map(all_swabs).astype(int))


def bray_curtis(cohort: AnnData, depth: int, *, rarefactions: int, seed: int | np.random.Generator) -> DistanceMatrix:
    """Bray-Curtis dissimilarity between swabs: the mean over several rarefactions to one depth.

    With `depth` reads in each swab, a draw's dissimilarity is one minus the share of reads in common. That is half a
    city-block distance, so that the square root is Euclidean, and of the mean over draws as well.

    Between the swabs that are deep enough; its ids say which. Of relative abundances (``uns["relative"]``), between
    all, of their shares. `ValueError` also if there is not one rarefaction.

    References
    ----------
    Bray & Curtis, Ecol Monogr 1957;27:325; Legendre & Legendre, Numerical Ecology, 2012, section 7.4.
    """
    if rarefactions < 1:
        raise ValueError(f"{rarefactions} rarefactions; expected at least 1")
    if cohort.uns.get("relative", False):
        return _of_shares(cohort.X.toarray(), cohort.obs_names)
    table = _table(cohort)
    deep = _deep_enough(table, depth)
    rng = np.random.default_rng(seed)
    kind = np.min_scalar_type(-depth)  # the smallest integers that hold the depth, and so any sum: several times faster
    common = _in_common(_draw(table.counts[deep], depth, rng).astype(kind).toarray() for _ in range(rarefactions))
    common /= -rarefactions * depth
    common += 1
    return DistanceMatrix(common, list(cohort.obs_names[deep]))


def _of_shares(shares: np.ndarray, ids: Sequence[str]) -> DistanceMatrix:
    """Bray-Curtis between swabs of which the shares of reads are known: what they have not in common."""
    return _apart(_in_common([shares]), ids, lambda total, common: total / 2 - common)


def _apart(
    common: np.ndarray, ids: Sequence[str], told: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> DistanceMatrix:
    """Distances that are `told` of what two swabs have, each with itself, in total, and what they have in common."""
    own = common.diagonal().copy()
    for rows in _blocks(common, 64):
        common[rows] = np.maximum(told(np.add.outer(own[rows], own), common[rows]), 0)  # rounding may leave -1e-17
    np.fill_diagonal(common, 0)
    return DistanceMatrix(common, list(ids))


def _blocks(of: np.ndarray, size: int = BLOCK) -> list[slice]:
    """Some rows at a time, so that what is made of them does not fill the memory."""
    return [slice(start, min(start + size, len(of))) for start in range(0, len(of), size)]


def _in_common(tables: Iterable[np.ndarray]) -> np.ndarray:
    """Sum over tables and features of the smaller of two swabs' values, for each pair of swabs.

    A table is swabs x features, and its numbers are of a kind that holds its sums, too.
    """
    common = np.zeros((0, 0))
    for table in tables:
        common = common if common.size else np.zeros((len(table), len(table)))
        add = partial(_add_common, np.ascontiguousarray(table), np.ascontiguousarray(table.T), common)
        on_threads(add, _blocks(common)[::-1])  # the longest first
    for rows in _blocks(common):
        common[rows.stop :, rows] = common[rows, rows.stop :].T
        common[rows, rows] = np.triu(common[rows, rows]) + np.triu(common[rows, rows], 1).T
    return common


def _add_common(swabs: np.ndarray, features: np.ndarray, common: np.ndarray, rows: slice) -> None:
    """Add what these swabs have in common with those before them; a table by swabs, and by features.

    The features that a swab has are whole rows, and the others are not touched.
    """
    block = np.ascontiguousarray(features[:, rows])
    for i in range(rows.stop):
        has = np.flatnonzero(swabs[i])
        later = max(i - rows.start, 0)  # each pair once
        smaller = block[has, later:] if later else block.take(has, axis=0)
        np.minimum(smaller, swabs[i, has, None], out=smaller)
        common[i, rows.start + later : rows.stop] += smaller.sum(axis=0, dtype=swabs.dtype)


def unifrac(counts: AnnData | pd.DataFrame, tree: TreeNode, *, weighted: bool) -> DistanceMatrix:
    """UniFrac distance between swabs: how much of the tree they do not have in common.

    With l the length of a branch and a, b the shares of reads below it in two swabs, weighted UniFrac is
    ``sum l |a - b| = sum l a + sum l b - 2 sum l min(a, b)``. For the unweighted, a and b are presence (0 or 1), and it
    is divided by the length that either has.

    All counts are used: rarefy first where depths differ and `weighted` is False, since presence depends on depth. The
    tree is as of `expected_alpha`. In branch length (weighted), or between 0 and 1 (unweighted). `ValueError` also if a
    swab has no reads, or the tree does not fit.

    References
    ----------
    Lozupone & Knight, Appl Environ Microbiol 2005;71:8228 (unweighted); Lozupone et al., ibid. 2007;73:1576 (weighted).
    """
    table = _table(counts)
    if len(empty := np.flatnonzero(table.totals == 0)):
        found = f"{len(empty)} swabs have no reads, the first {table.ids[empty[0]]!r}"
        raise ValueError(f"{found}: they have no distance; leave them out")
    branches = _branches(tree, table.features)
    by_branch = np.empty((len(table.ids), len(branches.length)))
    for rows, below in _reads_below(table.counts, branches):
        shares = below / table.totals[rows, None]
        by_branch[rows] = shares * branches.length if weighted else (below > 0) * branches.length**0.5
    # Branch length in common; weighted, times the smaller of the shares of reads below it.
    if weighted:
        return _apart(_in_common([by_branch]), table.ids, lambda total, common: total - 2 * common)
    least = np.finfo(float).tiny  # only branches of no length: nothing apart
    return _apart(
        by_branch @ by_branch.T, table.ids, lambda total, both: (total - 2 * both) / np.maximum(total - both, least)
    )


def positive(counts: np.ndarray, zeros: float | str = PSEUDOCOUNT) -> np.ndarray:
    """Counts, swabs x features, without zeros, which have no logarithm.

    `zeros`, a number above 0 (else a `ValueError`), is added to each; or, "multiplicative", scikit-bio's replacement in
    the shares: 1 / features² for a zero, the others less in proportion.

    References
    ----------
    Martín-Fernández, Barceló-Vidal & Pawlowsky-Glahn, Math Geol 2003;35:253 (multiplicative replacement).
    """
    if zeros == MULTIPLICATIVE:
        return multi_replace(closure(counts))
    if not float(zeros) > 0:
        raise ValueError(f"the pseudocount is {zeros}; expected a number above 0, since a zero has no logarithm")
    return counts + float(zeros)


def aitchison(rarefied: AnnData, *, zeros: float | str = PSEUDOCOUNT) -> DistanceMatrix:
    """Aitchison distance between swabs: Euclidean after the centred log-ratio; `zeros` as of `positive`.

    References
    ----------
    Aitchison, J R Stat Soc B 1982;44:139.
    """
    table = _table(rarefied)
    seen = np.asarray(table.counts.sum(axis=0)) > 0
    ratios = clr(positive(table.counts.toarray()[:, seen], zeros))
    # Products of all are several times as fast as pair by pair.
    return _apart(ratios @ ratios.T, table.ids, lambda total, both: np.sqrt(np.maximum(total - 2 * both, 0)))


def distances(swabs: AnnData) -> Iterator[tuple[str, DistanceMatrix]]:
    """Every distance between swabs that the report knows, one after the other, for each may take much memory."""
    yield "√ Bray–Curtis", root_of(swabs)
    if not swabs.uns.get("relative", False):
        yield "Aitchison", aitchison(swabs)
        if tree := rooted_tree(swabs):
            yield "Weighted UniFrac", unifrac(swabs, tree, weighted=True)
            yield "Unweighted UniFrac", unifrac(swabs, tree, weighted=False)


def root_of(swabs: AnnData) -> DistanceMatrix:
    """Square root of Bray-Curtis between swabs, as `helpers.measures.measured` left it."""
    return DistanceMatrix(swabs.obsp["sqrt_bray_curtis"], list(swabs.obs_names))


def without(swabs: AnnData, genus: str) -> DistanceMatrix:
    """Square root of Bray-Curtis between the shares of all other genera's reads.

    Between the swabs that have any; its ids say which.
    """
    others = sparse.csr_array(swabs.X)[:, np.flatnonzero(swabs.var["genus"].ne(genus))].toarray().astype(float)
    there = others.sum(axis=1) > 0
    return square_root(_of_shares(closure(others[there]), swabs.obs_names[there]))


def square_root(distmat: DistanceMatrix) -> DistanceMatrix:
    """Square root of each distance, which makes that of `bray_curtis` Euclidean."""
    return DistanceMatrix(np.sqrt(distmat.data), distmat.ids)


def ordinate(distmat: DistanceMatrix) -> OrdinationResults:
    """Principal coordinates: ``samples`` (swabs x PC1, PC2) and ``proportion_explained`` of the whole variation.

    Of many swabs, whose distances must be Euclidean, only these two are computed; most swabs have positive coordinates.

    References
    ----------
    Lehoucq, Sorensen & Yang, ARPACK Users' Guide, 1998.
    """
    if (n := distmat.shape[0]) <= BLOCK:
        results = pcoa(distmat, dimensions=n, warn_neg_eigval=False)
        results.samples = results.samples.iloc[:, :2]
        return results
    squared = distmat.data**2

    def centred(x: np.ndarray) -> np.ndarray:
        product = squared @ (x.ravel() - x.mean())
        return (product - product.mean()) / -2

    gram = LinearOperator((n, n), matvec=centred, dtype=float)
    values, vectors = (found[..., ::-1] for found in eigsh(gram, k=2, which="LA", v0=np.arange(n) - (n - 1) / 2))
    points = vectors * np.sqrt(values)
    points *= np.where(np.median(points, axis=0) < 0, -1, 1)
    axes = ["PC1", "PC2"]
    of_all = values / (squared.sum() / (2 * n))  # the trace
    return OrdinationResults("PCoA", "Principal Coordinate Analysis", pd.Series(values, axes),
                             pd.DataFrame(points, list(distmat.ids), axes),
                             proportion_explained=pd.Series(of_all, axes))  # fmt: skip


def _in_order(values: Sequence | pd.Series, ids: Sequence[str], name: str) -> np.ndarray:
    """Values of the swabs, which must be those of `ids`, in their order, and all known."""
    if len(values) != len(ids):
        raise ValueError(f"`{name}` has {len(values)} values for {len(ids)} swabs")
    if isinstance(values, pd.Series) and list(values.index) != list(ids):
        apart = next((found, id_) for found, id_ in zip(values.index, ids, strict=True) if found != id_)
        raise ValueError(f"`{name}` is not in the order of the distances: {apart[0]!r} where {apart[1]!r} was expected")
    if pd.isna(np.asarray(values)).any():
        raise ValueError(f"`{name}` is missing for {pd.isna(np.asarray(values)).sum()} of {len(ids)} swabs")
    return np.asarray(values)


def distance_to_reference(
    distmat: DistanceMatrix, reference: Sequence[bool] | pd.Series, subjects: Sequence[str] | pd.Series
) -> pd.Series:
    """Distance of each swab to the centroid of the reference swabs, leaving out the swab's own subject.

    With J the reference swabs of other subjects, ``d2_i = mean_j d2(i, j) - mean_jk d2(j, k) / 2``: the squared
    distance to the centroid of J in principal-coordinate space, without computing the coordinates.

    The distances must be Euclidean, such as square-root Bray-Curtis; which swabs are the `reference`, and the subject
    of each, stand in their order. Indexed by the ids of `distmat`; NaN if no other subject is in the reference.
    `ValueError` if these do not fit the swabs, no swab is in the reference, or a distance is NaN.

    References
    ----------
    Gower, Biometrika 1966;53:325; Anderson, Biometrics 2006;62:245 (distance to centroid).
    """
    ids = list(distmat.ids)
    d, subject = _finite(distmat, subjects)
    inside = _in_order(reference, ids, "reference").astype(bool)
    if not inside.any():
        raise ValueError(f"none of the {len(ids)} swabs is in the reference; expected at least one")
    squared = _to_centroid(d, inside, subject)[0]
    return pd.Series(np.sqrt(np.maximum(squared, 0)), index=ids, name="distance_to_healthy")


def _finite(distmat: DistanceMatrix, subjects: Sequence[str] | pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Distances, all of them known, and the subjects as numbers."""
    d = np.asarray(distmat.data)
    if not np.isfinite(d).all():
        raise ValueError(f"{(~np.isfinite(d)).sum()} distances are not finite numbers")
    return d, pd.factorize(_in_order(subjects, distmat.ids, "subjects"))[0]


def _to_centroid(d: np.ndarray, inside: np.ndarray, subject: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance of each swab to the centroid of a group, and the group's mean of squared distances.

    The swab's own subject is left out of both; NaN if nobody else is in the group.
    """
    to_all = np.concatenate([(d[rows][:, inside] ** 2).sum(axis=1) for rows in _blocks(d)])
    member = sparse.csr_array((np.ones(len(d)), (subject, np.arange(len(d)))))
    own = (member.T @ (member * inside)).tocoo()
    to_own = np.bincount(own.row, d[own.row, own.col] ** 2 * own.data, len(d))
    others = inside.sum() - np.bincount(own.row, own.data, len(d))
    # Sum over pairs of other subjects' swabs: all pairs, less those with one of the own, which counts own pairs twice.
    with_own, own_only = (np.bincount(subject[inside], s[inside], subject.max() + 1)[subject] for s in (to_all, to_own))
    others[others == 0] = np.nan
    among = (to_all[inside].sum() - 2 * with_own + own_only) / others**2
    return (to_all - to_own) / others - among / 2, among


def axis_position(
    distmat: DistanceMatrix,
    controls: Sequence[bool] | pd.Series,
    patients: Sequence[bool] | pd.Series,
    subjects: Sequence[str] | pd.Series,
) -> pd.DataFrame:
    """Position of each swab on the axis from the centroid of the controls to that of the patients.

    With C the controls' and A the patients' swabs of other subjects than the swab's own, d2(i, G) its squared distance
    to the centroid of G, and D2 that between the centroids, all from distances alone,
    ``projection = (d2(i, C) - d2(i, A) + D2) / (2 D2)``. Chance distance between the centroids, which D2 holds too,
    pulls the projections of both groups together; ``position`` is the projection shifted and scaled so that the mean
    of the controls (over subjects) is 0 and that of the patients 1.

    The distances must be Euclidean, such as square-root Bray-Curtis; in their order stand which swabs of controls and
    of patients the axis lies between, those at baseline, and the subject of each swab. Nobody is placed by means in
    which they have a part: chance alone would draw everybody towards their own group at baseline, and away from it
    later.

    Indexed by the ids of `distmat`: projection; position; off_axis, the distance to the axis,
    ``sqrt(d2(i, C) - projection² D2)``. `ValueError` if an argument does not fit the swabs, a group has fewer than two
    subjects, the groups share one, a distance is NaN, or the patients do not lie beyond the controls: there is no axis
    then.

    References
    ----------
    Gower, Biometrika 1966;53:325 (from distances to coordinates); Anderson & Willis, Ecology 2003;84:511 (canonical
    analysis of principal coordinates); De Cáceres et al., Ecol Monogr 2019;89:e01350 (geometry of trajectories).
    """
    ids = list(distmat.ids)
    d, subject = _finite(distmat, subjects)
    healthy = _in_order(controls, ids, "controls").astype(bool)
    ill = _in_order(patients, ids, "patients").astype(bool)
    for name, group in (("controls", healthy), ("patients", ill)):
        if len(set(subject[group])) < 2:
            raise ValueError(f"the axis needs two or more subjects among the {name}; found {len(set(subject[group]))}")
    if both := set(subject[healthy]) & set(subject[ill]):
        raise ValueError(f"{len(both)} subjects are among the controls and among the patients")
    (to_healthy, among_healthy), (to_ill, among_ill) = (_to_centroid(d, group, subject) for group in (healthy, ill))
    # Between the groups: the sum over all pairs, less those in which the subject has a part, over those that are left.
    across = d[np.ix_(healthy, ill)] ** 2
    codes = subject.max() + 1
    part = sum(np.bincount(subject[g], across.sum(axis=axis), codes) for axis, g in ((1, healthy), (0, ill)))
    left = [group.sum() - np.bincount(subject[group], minlength=codes) for group in (healthy, ill)]
    between = ((across.sum() - part) / (left[0] * left[1]))[subject] - (among_healthy + among_ill) / 2
    between[between <= 0] = np.nan
    projection = (to_healthy - to_ill + between) / (2 * between)
    ends = [pd.Series(projection[g]).groupby(subject[g]).mean().mean() for g in (healthy, ill)]
    if not ends[1] - ends[0] > 0:
        raise ValueError("the patients do not lie beyond the controls: there is no axis between them")
    position = (projection - ends[0]) / (ends[1] - ends[0])
    off_axis = np.sqrt(np.maximum(to_healthy - projection**2 * between, 0))
    return pd.DataFrame({"projection": projection, "position": position, "off_axis": off_axis}, index=ids)
