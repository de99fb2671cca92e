"""Time the heavy helpers against a named peer, in the same run, on a cohort of the demo's size.

Run with ``make bench``. Each line: the helper, its time, the peer and its time, and their ratio (above 1: the helper
is faster). Best of three.
"""

import timeit
from collections.abc import Callable

import numpy as np
import pandas as pd
from anndata import AnnData
from skbio.diversity import beta_diversity
from skbio.stats import subsample_counts
from skbio.stats.ordination import pcoa

from helpers import diversity

SWABS, FEATURES, DEPTH = 800, 1000, 1000


def cohort() -> AnnData:
    """800 swabs of 400 subjects at two visits, 1,000 features, lognormal depth of at least 1,000 reads."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(FEATURES, 0.05), SWABS)
    depth = np.maximum(rng.lognormal(9.5, 0.8, SWABS), 2 * DEPTH).astype(int)
    counts = np.array([rng.multinomial(n, p) for n, p in zip(depth, shares, strict=True)])
    subject = [f"p{i % (SWABS // 2)}" for i in range(SWABS)]
    visit = ["baseline" if i < SWABS // 2 else "followup" for i in range(SWABS)]
    obs = pd.DataFrame({"subject": subject, "visit": visit}, index=[f"s{i}" for i in range(SWABS)])
    return AnnData(counts.astype(float), obs=obs)


def report(name: str, ours: Callable[[], object], peer_name: str, peer: Callable[[], object]) -> None:
    """Print one comparison."""
    a, b = (min(timeit.repeat(f, number=1, repeat=3)) for f in (ours, peer))
    print(f"{name:<24}{a:8.3f} s   {peer_name:<44}{b:8.3f} s   {b / a:6.2f}x", flush=True)


def main() -> None:
    """Compare every helper that is heavy in the report."""
    swabs = cohort()
    counts = swabs.X.astype(int)
    rarefied = diversity.rarefy(swabs, DEPTH, seed=1)
    ids = list(rarefied.obs_names)
    root = diversity.square_root(diversity.bray_curtis(rarefied))
    control = (np.arange(SWABS) % (SWABS // 2) < SWABS // 4) & swabs.obs["visit"].eq("baseline").to_numpy()
    subjects = swabs.obs["subject"].to_numpy()

    def by_coordinates() -> list[float]:
        points = pcoa(root, dimensions=SWABS, warn_neg_eigval=False).samples.to_numpy()
        return [
            float(np.linalg.norm(points[i] - points[control & (subjects != subjects[i])].mean(axis=0)))
            for i in range(SWABS)
        ]

    report(
        "rarefy", lambda: diversity.rarefy(swabs, DEPTH, seed=1),
        "skbio.stats.subsample_counts, row by row",
        lambda: [subsample_counts(row, DEPTH, seed=1) for row in counts],
    )  # fmt: skip
    report(
        "bray_curtis", lambda: diversity.bray_curtis(rarefied),
        "skbio.diversity.beta_diversity",
        lambda: beta_diversity("braycurtis", rarefied.X, ids),
    )  # fmt: skip
    report(
        "distance_to_reference", lambda: diversity.distance_to_reference(root, control, subjects),
        "centroids of skbio's pcoa, swab by swab", by_coordinates,
    )  # fmt: skip


if __name__ == "__main__":
    main()
