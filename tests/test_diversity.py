import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.spatial.distance import pdist, squareform
from skbio import DistanceMatrix

from helpers import diversity


def cohort_of(counts, tree: str | None = None, **obs) -> AnnData:
    counts = np.asarray(counts)
    cohort = AnnData(counts.astype(float), obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(len(counts))]))
    cohort.var_names = [f"f{j}" for j in range(counts.shape[1])]
    if tree:
        cohort.uns["tree"] = tree
    return cohort


def euclidean(points) -> DistanceMatrix:
    return DistanceMatrix(squareform(pdist(points)), [f"s{i}" for i in range(len(points))])


def test_rarefied_swabs_have_the_depth_and_shallow_ones_are_left_out():
    cohort = cohort_of([[50, 50, 0], [3, 2, 1], [0, 1000, 9]])
    rarefied = diversity.rarefy(cohort, 100, seed=1)
    assert list(rarefied.obs_names) == ["s0", "s2"]
    assert rarefied.X.sum(axis=1).tolist() == [100, 100]
    assert (rarefied.X[0] == [50, 50, 0]).all()  # all reads drawn: nothing can change
    assert (rarefied.X <= cohort[rarefied.obs_names].X).all()


def test_rarefaction_is_without_replacement():
    # 500 draws of 6 out of (6, 6): hypergeometric variance 6 * 1/4 * 6/11, binomial would be 6/4.
    cohort = cohort_of(np.full((4000, 2), 6))
    drawn = diversity.rarefy(cohort, 6, seed=2).X[:, 0]
    assert drawn.mean() == pytest.approx(3, abs=0.06)
    assert drawn.var() == pytest.approx(6 / 4 * 6 / 11, rel=0.08)


def test_alpha_by_hand():
    # tree ((f0:1,f1:2):3,f2:4); the first swab holds f0 and f1 equally, the second f2 alone
    table = diversity.alpha(cohort_of([[2, 2, 0], [0, 0, 4]], tree="((f0:1,f1:2):3,f2:4);"))
    assert table.loc["s0"].to_dict() == pytest.approx(
        {"observed_features": 2, "shannon": np.log(2), "simpson": 0.5, "faith_pd": 6}
    )
    assert table.loc["s1"].to_dict() == pytest.approx(
        {"observed_features": 1, "shannon": 0, "simpson": 0, "faith_pd": 4}
    )


def test_faith_pd_takes_an_unrooted_tree():
    rooted = diversity.alpha(cohort_of([[1, 1, 1]], tree="((f0:1,f1:2):3,f2:4);"))["faith_pd"]
    trifurcating = diversity.alpha(cohort_of([[1, 1, 1]], tree="(f0:1,f1:2,f2:7);"))["faith_pd"]
    assert trifurcating.tolist() == pytest.approx(rooted.tolist())


def test_bray_curtis_and_aitchison_by_hand():
    cohort = cohort_of([[6, 3, 1], [3, 6, 1]])
    assert diversity.bray_curtis(cohort)[0, 1] == pytest.approx(6 / 20)
    # both CLRs share their centre, so the distance is that of the logarithms
    expected = np.sqrt(2) * np.log(6.5 / 3.5)
    assert diversity.aitchison(cohort)[0, 1] == pytest.approx(expected)


def test_square_root_of_bray_curtis_is_euclidean():
    counts = np.random.default_rng(4).poisson(2, (30, 12))
    distmat = diversity.bray_curtis(cohort_of(counts))
    g = np.linalg.eigvalsh(_gower(diversity.square_root(distmat)))
    assert g.min() > -1e-10
    assert np.linalg.eigvalsh(_gower(distmat)).min() < -1e-6  # without the root it is not


def _gower(distmat: DistanceMatrix) -> np.ndarray:
    n = distmat.shape[0]
    j = np.eye(n) - 1 / n
    return -0.5 * j @ np.asarray(distmat.data) ** 2 @ j


def test_distance_to_reference_is_the_distance_to_the_centroid_of_the_others():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(8, 3))
    # swabs 0-3 are controls at baseline (the reference), 4 is control b at follow-up, 5-7 are patients
    subjects = ["a", "b", "c", "c", "b", "x", "x", "y"]
    reference = [True] * 4 + [False] * 4
    got = diversity.distance_to_reference(euclidean(points), reference, subjects)
    for i, subject in enumerate(subjects):
        others = [j for j in range(4) if subjects[j] != subject]
        expected = np.linalg.norm(points[i] - points[others].mean(axis=0))
        assert got.iloc[i] == pytest.approx(expected), subject


def test_closure_is_half_when_patients_go_half_the_way():
    rng = np.random.default_rng(6)
    y0 = rng.normal(4, 0.1, 200)
    pairs = pd.DataFrame({"y0": y0, "y1": y0 - 1})
    got = diversity.closure(pairs, pd.Series(rng.normal(2, 0.1, 100)), bootstraps=500, seed=1)
    assert got["estimate"] == pytest.approx(50, abs=1)
    assert got["ci_low"] < 50 < got["ci_high"]


def test_closure_of_a_gap_that_is_not_shown_is_not_estimated():
    rng = np.random.default_rng(6)
    y0, dc = (x - x.mean() + 2 for x in (rng.normal(0, 0.5, 20), rng.normal(0, 0.5, 100)))
    pairs = pd.DataFrame({"y0": y0, "y1": y0 - 1})
    got = diversity.closure(pairs, pd.Series(dc), bootstraps=500, seed=1)
    assert got["gap_low"] < 0 < got["gap_high"]
    assert np.isnan(got["estimate"])


def test_rarefaction_curves_rise_and_count_the_swabs_that_reach_the_depth():
    counts = np.random.default_rng(7).poisson(3, (6, 40))
    counts[0] = 0
    counts[0, 0] = 20
    curves = diversity.rarefaction_curves(cohort_of(counts, group=["control"] * 3 + ["case"] * 3), [10, 50], seed=1)
    by = curves.set_index(["group", "depth"])
    assert by.loc[("control", 10), "swabs"] == 3
    assert by.loc[("control", 50), "swabs"] == 2
    assert by.loc[("case", 50), "observed_features"] > by.loc[("case", 10), "observed_features"]
