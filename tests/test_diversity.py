import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from scipy.spatial.distance import pdist, squareform
from skbio import DistanceMatrix, TreeNode
from skbio.diversity import beta_diversity

from helpers import diversity


def cohort_of(counts, tree: str | None = None, **obs) -> AnnData:
    counts = np.asarray(counts)
    cohort = AnnData(counts.astype(float), obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(len(counts))]))
    cohort.var_names = [f"f{j}" for j in range(counts.shape[1])]
    if tree:
        cohort.uns["tree"] = tree
    return cohort


@cache
def oracle() -> tuple[dict[str, Any], pd.DataFrame, TreeNode]:
    """What R says, the table and the tree: tests/oracle/README.md."""
    folder = Path("tests/oracle")
    counts = pd.read_csv(folder / "counts.tsv", sep="\t", index_col=0)
    return json.loads((folder / "diversity.json").read_text()), counts, TreeNode.read(str(folder / "tree.nwk"))


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


def expected(counts, depth: int, tree: str | None = None) -> pd.DataFrame:
    cohort = cohort_of(counts, tree=tree)
    return diversity.expected_alpha(cohort, depth, tree=diversity.tree_of(cohort))


def test_expected_alpha_of_all_reads_is_that_of_the_swab():
    # tree ((f0:1,f1:2):3,f2:4); the first swab holds f0 and f1 equally, the second f2 alone
    table = expected([[2, 2, 0], [0, 0, 4]], 4, "((f0:1,f1:2):3,f2:4);")
    assert table.loc["s0"].to_dict() == pytest.approx(
        {"observed_features": 2, "shannon": np.log(2), "simpson": 0.5, "faith_pd": 6}
    )
    assert table.loc["s1"].to_dict() == pytest.approx(
        {"observed_features": 1, "shannon": 0, "simpson": 0, "faith_pd": 4}, abs=1e-12
    )


def test_expected_alpha_is_the_mean_over_every_subsample():
    counts, tree = [3, 4, 1, 5], "(((f0:1,f1:2):3,f2:4):0.5,f3:1);"
    reads = np.repeat(range(4), counts)
    subsamples = [np.bincount(reads[list(drawn)], minlength=4) for drawn in combinations(range(13), 5)]
    assert len(subsamples) == 1287
    each = expected(subsamples, 5, tree)  # of swabs with as many reads as are drawn: no expectation about it
    assert expected([counts], 5, tree).iloc[0].to_dict() == pytest.approx(each.mean().to_dict(), rel=1e-12)


def test_expected_alpha_keeps_its_digits_in_deep_swabs():
    # The logarithms of the factorials are near 600,000 here, and leave nine digits of their differences.
    total, x, depth = 60_000, 20_000, 1000
    k = np.arange(2, depth + 1)
    terms = stats.hypergeom.pmf(k, total, x, depth) * k * np.log(k)
    got = expected([[x, total - x]], depth)["shannon"].iloc[0]
    k2 = stats.hypergeom.pmf(k, total, total - x, depth) * k * np.log(k)
    assert got == pytest.approx(np.log(depth) - (terms.sum() + k2.sum()) / depth, abs=1e-8)


def test_expected_alpha_agrees_with_vegan_and_ape():
    r, counts, tree = oracle()
    table = diversity.expected_alpha(counts, 125, tree=tree)
    assert table["observed_features"].to_numpy() == pytest.approx(r["rarefy"], abs=1e-8)
    own = [diversity.expected_alpha(counts.loc[[s]], counts.loc[s].sum(), ["faith_pd"], tree) for s in counts.index]
    assert pd.concat(own)["faith_pd"].to_numpy() == pytest.approx(r["faith"], abs=1e-8)


def test_expected_alpha_agrees_with_ten_thousand_subsamples_of_vegan():
    r, counts, tree = oracle()
    drawn = r["subsamples"]
    table = diversity.expected_alpha(counts, 125, tree=tree).loc[drawn["swabs"], drawn["metrics"]]
    z = (table.to_numpy() - np.array(drawn["mean"])) / np.array(drawn["error"])
    assert abs(z).max() < 4  # 24 comparisons
    assert (np.array(drawn["error"]) < 0.02 * table.to_numpy()).all()  # so that agreement means something


def test_shallow_swabs_are_nan():
    assert expected([[9, 9], [1, 2], [0, 0]], 10).isna().all(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("counts", "depth", "metrics", "tree", "message"),
    [
        ([[1, 2]], 4, None, None, "depth is 4; expected 1 to 3"),
        ([[1, 2]], 0, None, None, "depth is 0"),
        ([[0, 0]], 1, None, None, "expected 1 to 0"),
        ([[1.5, 2]], 1, None, None, "such as 1.5 are no whole numbers"),
        ([[-1, 2]], 1, None, None, "such as -1"),
        ([[np.nan, 2]], 1, None, None, "such as nan"),
        ([[1, 2]], 1, ["chao1"], None, "unknown metric 'chao1'; known: observed_features"),
        ([[1, 2]], 1, ["faith_pd"], None, "faith_pd needs a tree"),
        ([[1, 2]], 1, None, "(f0:1,g:1);", "lacks 1 of 2 features, such as f1"),
        ([[1, 2]], 1, None, "(f0:1,f1:1,g:1);", "not rooted: 3 branches"),
    ],
)
def test_expected_alpha_says_what_is_wrong(counts, depth, metrics, tree, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        diversity.expected_alpha(cohort_of(counts), depth, metrics, tree and TreeNode.read([tree]))


def test_an_unrooted_tree_is_rooted_at_its_midpoint():
    rooted = diversity.tree_of(cohort_of([[1, 1, 1]], tree="(f0:1,f1:2,f2:7);"))
    assert rooted is not None
    assert len(rooted.children) == 2
    assert sum(float(n.length or 0) for n in rooted.traverse()) == pytest.approx(10)
    assert diversity.tree_of(cohort_of([[1]])) is None


def test_bray_curtis_and_aitchison_by_hand():
    cohort = cohort_of([[6, 3, 1], [3, 6, 1]])
    assert diversity.bray_curtis(cohort, 10, rarefactions=1, seed=1)[0, 1] == pytest.approx(6 / 20)
    # both CLRs share their centre, so the distance is that of the logarithms
    expected = np.sqrt(2) * np.log(6.5 / 3.5)
    assert diversity.aitchison(cohort)[0, 1] == pytest.approx(expected)


def test_bray_curtis_is_the_mean_of_scikit_bio_over_the_draws():
    cohort = cohort_of(np.random.default_rng(3).poisson(4, (7, 15)) + 1)
    cohort.X[2] = 0
    got = diversity.bray_curtis(cohort, 20, rarefactions=4, seed=9)
    draws = [diversity.rarefy(cohort, 20, seed=9 + i) for i in range(4)]
    each = [beta_diversity("braycurtis", d.X, list(d.obs_names)).data for d in draws]
    assert "s2" not in got.ids
    assert got.data == pytest.approx(np.mean(each, axis=0), abs=1e-12)
    with pytest.raises(ValueError, match="0 swabs have 10000 reads"):
        diversity.bray_curtis(cohort, 10_000, rarefactions=1, seed=1)


def test_bray_curtis_agrees_with_vegan():
    r, _, _ = oracle()
    cohort = cohort_of(r["drawn"]["counts"])
    got = diversity.bray_curtis(cohort, 125, rarefactions=2, seed=1)  # all reads are drawn
    assert got.data == pytest.approx(np.array(r["bray"]), abs=1e-8)


@pytest.mark.parametrize("kind", ["weighted", "normalized", "unweighted"])
def test_unifrac_agrees_with_phyloseq_and_scikit_bio(kind):
    r, counts, tree = oracle()
    how = {"weighted": kind != "unweighted", "normalized": kind == "normalized"}
    got = diversity.unifrac(counts, tree, **how)
    first = got.filter(r["unifrac"]["swabs"]).data
    assert first == pytest.approx(np.array(r["unifrac"][kind]), abs=1e-8)
    more = {"normalized": how["normalized"]} if how["weighted"] else {}
    name = "weighted_unifrac" if how["weighted"] else "unweighted_unifrac"
    theirs = beta_diversity(name, counts, list(counts.index), taxa=list(counts.columns), tree=tree, **more)
    assert got.data == pytest.approx(theirs.data, abs=1e-10)


def test_unifrac_wants_reads_in_each_sample():
    with pytest.raises(ValueError, match="1 samples have no reads, such as s1"):
        diversity.unifrac(cohort_of([[1, 1], [0, 0]]), TreeNode.read(["(f0:1,f1:1);"]), weighted=True)


def test_square_root_of_bray_curtis_is_euclidean():
    counts = np.random.default_rng(4).poisson(2, (30, 12))
    counts[:, 0] += 60 - counts.sum(axis=1)
    distmat = diversity.bray_curtis(cohort_of(counts), 30, rarefactions=3, seed=1)
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
    curves = diversity.rarefaction_curves(cohort_of(counts, group=["control"] * 3 + ["case"] * 3), [10, 50])
    by = curves.set_index(["group", "depth"])
    assert by.loc[("control", 10), "swabs"] == 3
    assert by.loc[("control", 50), "swabs"] == 2
    assert by.loc[("case", 50), "observed_features"] > by.loc[("case", 10), "observed_features"]
