"""Alpha and beta diversity, ordination, and distance to the healthy reference."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial.distance import pdist, squareform
from skbio import DistanceMatrix, TreeNode
from skbio.diversity import alpha_diversity
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


def alpha(rarefied: AnnData) -> pd.DataFrame:
    """Alpha diversity of each swab.

    Parameters
    ----------
    rarefied : AnnData
        As from `rarefy`; ``uns["tree"]`` (Newick) is used where it is there.

    Returns
    -------
    DataFrame
        Swabs x (``observed_features``, ``shannon`` in nats, ``simpson`` as 1 - D, and ``faith_pd`` if there is a
        tree).
    """
    counts, ids = rarefied.X, list(rarefied.obs_names)
    table = pd.DataFrame(
        {
            "observed_features": alpha_diversity("observed_features", counts, ids),
            "shannon": alpha_diversity("shannon", counts, ids, base=np.e),
            "simpson": alpha_diversity("simpson", counts, ids),
        }
    ).astype(float)
    if "tree" in rarefied.uns:
        tree = TreeNode.read([rarefied.uns["tree"]])
        tree = tree if len(tree.children) == 2 else tree.root_at_midpoint()
        table["faith_pd"] = alpha_diversity("faith_pd", counts, ids, taxa=list(rarefied.var_names), tree=tree)
    return table


def rarefaction_curves(cohort: AnnData, depths: Sequence[int], *, seed: int) -> pd.DataFrame:
    """Mean observed features and Shannon diversity of each group at rising depths.

    Parameters
    ----------
    cohort : AnnData
    depths : sequence of int
        Reads a swab; at each depth the swabs that reach it are used.
    seed : int

    Returns
    -------
    DataFrame
        Columns group, depth, swabs, observed_features, shannon (means over swabs).
    """
    curves = []
    for depth in depths:
        rarefied = rarefy(cohort, depth, seed=seed)
        rarefied.uns.pop("tree", None)  # Faith's PD is not drawn
        swabs = alpha(rarefied)[["observed_features", "shannon"]].assign(group=rarefied.obs["group"])
        groups = swabs.groupby("group", observed=True)
        curves.append(groups.mean().assign(depth=depth, swabs=groups.size()).reset_index())
    return pd.concat(curves)[["group", "depth", "swabs", "observed_features", "shannon"]].reset_index(drop=True)


def bray_curtis(rarefied: AnnData) -> DistanceMatrix:
    """Bray-Curtis dissimilarity between swabs, on rarefied counts.

    Parameters
    ----------
    rarefied : AnnData

    Returns
    -------
    skbio.DistanceMatrix

    References
    ----------
    Bray & Curtis, Ecol Monogr 1957;27:325.
    """
    return DistanceMatrix(squareform(pdist(rarefied.X, "braycurtis")), list(rarefied.obs_names))


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
