import json
import tracemalloc
from decimal import Decimal, localcontext
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from scipy.spatial.distance import pdist, squareform
from skbio import DistanceMatrix, TreeNode
from skbio.diversity import alpha_diversity, beta_diversity
from skbio.stats.ordination import pcoa

from helpers import diversity

ORACLE = Path(__file__).parent / "oracle"
NEWICK = "((f0:1,f1:2):3,f2:4);"


def cohort_of(counts, tree: str | None = None, **obs) -> AnnData:
    counts = np.asarray(counts)
    cohort = AnnData(counts.astype(float), obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(len(counts))]))
    cohort.var_names = [f"f{j}" for j in range(counts.shape[1])]
    if tree:
        cohort.uns["tree"] = tree
    return cohort


def tree_of(newick: str) -> TreeNode:
    return TreeNode.read([newick])


def euclidean(points) -> DistanceMatrix:
    return DistanceMatrix(squareform(pdist(points)), [f"s{i}" for i in range(len(points))])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(ORACLE / "counts.tsv", sep="\t", index_col=0)


@pytest.fixture(scope="module")
def tree() -> TreeNode:
    return TreeNode.read(str(ORACLE / "tree.nwk"))


@pytest.fixture(scope="module")
def r() -> dict:
    return json.loads((ORACLE / "diversity.json").read_text())


# --- many swabs -------------------------------------------------------------------------------------------------------


def peak_of(work) -> int:
    """Bytes that are held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_two_axes_of_many_swabs_are_those_of_the_whole_decomposition(monkeypatch):
    distmat = euclidean(np.random.default_rng(1).normal(size=(1100, 30)) * 0.9 ** np.arange(30))
    whole = pcoa(distmat, dimensions=1100, warn_neg_eigval=False)
    monkeypatch.setattr(diversity, "pcoa", None)
    got = diversity.ordinate(distmat)
    assert list(got.samples.index) == list(distmat.ids)
    np.testing.assert_allclose(got.proportion_explained, whole.proportion_explained[:2], rtol=1e-10)
    turned = np.sign(whole.samples.iloc[:, :2].median())
    np.testing.assert_allclose(got.samples, whole.samples.iloc[:, :2] * turned, atol=1e-10)


def test_matrices_of_all_swabs_are_few():
    rng, n = np.random.default_rng(1), 2500
    cohort = cohort_of(rng.poisson(3, (n, 8)) + 1, "((f0:1,f1:2):3,(f2:1,f3:1,f4:1,f5:1,f6:1,f7:1):4);")
    one = 8 * n**2
    assert peak_of(lambda: diversity.bray_curtis(cohort, 8, rarefactions=3, seed=1)) < 1.6 * one
    assert peak_of(lambda: diversity.aitchison(cohort)) < 2 * one
    assert peak_of(lambda: diversity.unifrac(cohort, diversity.rooted_tree(cohort), weighted=True)) < 3 * one
    distmat = diversity.aitchison(cohort)
    subjects = np.repeat(np.arange(n // 2), 2)
    inside = subjects % 3 == 0
    assert peak_of(lambda: diversity.distance_to_reference(distmat, inside, subjects)) < 0.7 * one


# --- rarefaction ------------------------------------------------------------------------------------------------------


def test_rarefied_swabs_have_the_depth_and_shallow_ones_are_left_out():
    cohort = cohort_of([[50, 50, 0], [3, 2, 1], [0, 1000, 9]])
    rarefied = diversity.rarefy(cohort, 100, seed=1)
    assert list(rarefied.obs_names) == ["s0", "s2"]
    assert rarefied.X.sum(axis=1).tolist() == [100, 100]
    assert (rarefied.X[0] == [50, 50, 0]).all()  # all reads drawn: nothing can change
    assert (rarefied.X <= cohort[rarefied.obs_names].X).all()


def test_rarefaction_is_without_replacement():
    # 4,000 draws of 6 out of (6, 6): hypergeometric variance 6 * 1/4 * 6/11, binomial would be 6/4.
    cohort = cohort_of(np.full((4000, 2), 6))
    drawn = diversity.rarefy(cohort, 6, seed=2).X[:, 0]
    assert drawn.mean() == pytest.approx(3, abs=0.06)
    assert drawn.var() == pytest.approx(6 / 4 * 6 / 11, rel=0.08)


# --- expected alpha ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 3, 6, 7])
def test_expected_alpha_is_the_mean_over_every_subsample(depth):
    swab = [4, 2, 1]
    reads = np.repeat(np.arange(3), swab)
    subsamples = np.array([np.bincount(reads[list(c)], minlength=3) for c in combinations(range(7), depth)])
    assert len(subsamples) == comb(7, depth)
    kwargs = {"observed_features": {}, "shannon": {"base": np.e}, "simpson": {}}
    enumerated = {m: alpha_diversity(m, subsamples, **k).mean() for m, k in kwargs.items()}
    taxa = ["f0", "f1", "f2"]
    enumerated["faith_pd"] = alpha_diversity("faith_pd", subsamples, taxa=taxa, tree=tree_of(NEWICK)).mean()
    got = diversity.expected_alpha(cohort_of([swab]), depth, tree=tree_of(NEWICK))
    assert got.loc["s0"].to_dict() == pytest.approx(enumerated, abs=1e-12)


def test_at_full_depth_expected_alpha_is_that_of_all_reads(table, tree):
    for swab in ("S01", "S08"):
        counts = table.loc[[swab]]
        got = diversity.expected_alpha(counts, int(counts.to_numpy().sum()), tree=tree).loc[swab]
        assert got["observed_features"] == pytest.approx((counts > 0).sum(axis=1).item())
        assert got["shannon"] == pytest.approx(alpha_diversity("shannon", counts.to_numpy(), base=np.e).item())
        assert got["simpson"] == pytest.approx(alpha_diversity("simpson", counts.to_numpy()).item())


def test_expected_richness_and_faith_pd_are_those_of_r(table, tree, r):
    got = diversity.expected_alpha(table, r["depth"], tree=tree)
    np.testing.assert_allclose(got["observed_features"], pd.Series(r["richness"])[table.index], rtol=1e-8)
    np.testing.assert_allclose(got["faith_pd"], pd.Series(r["expected_pd"])[table.index], rtol=1e-8)
    deep = pd.Series(r["richness_deep"])
    got = diversity.expected_alpha(table, 200, ["observed_features"])["observed_features"]
    np.testing.assert_allclose(got[deep.index], deep, rtol=1e-8)
    for swab, observed in list(r["observed_pd"].items())[::10]:
        counts = table.loc[[swab]]
        got = diversity.expected_alpha(counts, int(counts.to_numpy().sum()), ["faith_pd"], tree)
        assert got.loc[swab, "faith_pd"] == pytest.approx(observed, rel=1e-8)


def test_ten_thousand_draws_in_r_converge_to_expected_alpha(table, tree, r):
    draws = r["draws"]
    got = diversity.expected_alpha(table.loc[draws["swabs"]], r["depth"], tree=tree)
    for metric in ("shannon", "simpson", "faith_pd"):
        z = (got[metric] - draws["mean"][metric]) / draws["se"][metric]
        assert z.abs().max() < 4, metric


def test_a_wide_distribution_is_summed_in_full():
    # Two features of equal, large count: the sum over the whole hypergeometric distribution, in whole numbers.
    half, depth = 20_000, 1000
    ways = comb(2 * half, depth)
    p = [comb(half, x) * comb(half, depth - x) / ways for x in range(depth + 1)]
    entropy = [-sum(s * np.log(s) for s in (x / depth, 1 - x / depth) if s) for x in range(depth + 1)]
    got = diversity.expected_alpha(cohort_of([[half, half]]), depth, ["shannon"])
    assert got.loc["s0", "shannon"] == pytest.approx(np.dot(p, entropy), abs=1e-9)


def test_work_done_in_parts_gives_the_same(table, tree, monkeypatch):
    whole = diversity.expected_alpha(table, 125, tree=tree), diversity.unifrac(table, tree, weighted=True).data
    monkeypatch.setattr(diversity, "CHUNK", 1000)
    monkeypatch.setattr(diversity, "BLOCK", 7)
    pd.testing.assert_frame_equal(diversity.expected_alpha(table, 125, tree=tree), whole[0], rtol=1e-13)
    np.testing.assert_allclose(diversity.unifrac(table, tree, weighted=True).data, whole[1], atol=1e-14)


DEEP = [[3, 1_000, 2_000_000, 400_000_000, 1_597_998_997], [1, 0, 0, 10_000_000_000, 10_000_000_000]]


def exactly(total: int, k: int, m: int) -> tuple[float, float]:
    """Of `k` reads in `total`, `m` taken: the probability of any, and the mean of ln(1 + K), in sixty digits."""
    with localcontext() as digits:
        digits.prec = 60
        low = max(0, m - total + k)
        p = [Decimal(1)]
        for x in range(low, min(k, m)):
            p.append(p[-1] * (k - x) * (m - x) / ((x + 1) * (total - k - m + x + 1)))
        mean = sum(c * Decimal(1 + low + i).ln() for i, c in enumerate(p)) / sum(p)
        return float(1 - p[0] / sum(p) if low == 0 else 1), float(mean)


@pytest.mark.parametrize("depth", [2, 1000, 4000])
def test_expected_alpha_of_two_thousand_million_reads_is_exact(depth):
    got = diversity.expected_alpha(cohort_of(DEEP), depth, ["observed_features", "shannon"])
    for swab, reads in zip(got.index, DEEP, strict=True):
        total = sum(reads)
        found = sum(exactly(total, k, depth)[0] for k in reads if k)
        shannon = np.log(depth) - sum(k / total * exactly(total - 1, k - 1, depth - 1)[1] for k in reads if k)
        assert got.loc[swab].tolist() == pytest.approx([found, shannon], rel=1e-12)


def test_deep_swabs_are_worked_out_as_shallow_ones_are(table, tree, monkeypatch):
    deep, depths = table * 37, [1, 2, 1000, 3000, int(table.to_numpy().sum(axis=1).max()) * 37]
    looked_up = [diversity.expected_alpha(deep, depth, tree=tree) for depth in depths]
    monkeypatch.setattr(diversity, "LOOKED_UP", 0)
    for depth, expected in zip(depths, looked_up, strict=True):
        pd.testing.assert_frame_equal(diversity.expected_alpha(deep, depth, tree=tree), expected, rtol=1e-8, atol=1e-8)


def test_memory_does_not_grow_with_the_reads():
    rng, peaks = np.random.default_rng(1), []
    for reads in (5e6, 2e9):
        cohort = cohort_of(np.ceil(rng.dirichlet(np.full(50, 0.2), 20) * reads), group="case")
        depths = diversity.curve_depths(cohort, 1000)
        curves = peak_of(lambda: diversity.rarefaction_curves(cohort, depths))  # noqa: B023
        peaks.append(max(curves, peak_of(lambda: diversity.bray_curtis(cohort, 1000, rarefactions=1, seed=1))))  # noqa: B023
    assert peaks[1] < 1.5 * peaks[0] < 2**26


@pytest.mark.parametrize("depth", [40, 4_000_000])
def test_draws_of_more_reads_than_numpy_takes_are_hypergeometric(depth):
    reads = [6 * 10**8, 3 * 10**8, 10**8, 7]
    drawn = diversity.rarefy(cohort_of([reads] * 4000), depth, seed=3).X[:, :3]
    share = np.array(reads[:3]) / sum(reads)
    deviation = np.sqrt(depth * share * (1 - share) * (1 - depth / sum(reads)))
    assert abs(drawn.mean(axis=0) - depth * share).max() < 4 * deviation.max() / 4000**0.5
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.05)
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(-((0.6 * 0.3 / 0.4 / 0.7) ** 0.5), abs=0.03)


def test_swabs_that_are_not_deep_enough_have_no_expected_alpha():
    got = diversity.expected_alpha(cohort_of([[9, 1, 0], [0, 0, 0], [2, 2, 0]]), 5)
    assert got.notna().all(axis=1).tolist() == [True, False, False]
    assert "faith_pd" not in got  # no tree


def test_sparse_counts_give_the_same_and_are_left_as_they_were(table):
    dense = AnnData(table.astype(float))
    thin = dense.copy()
    thin.X = sparse.csr_matrix(dense.X)
    thin.X.data[0] = 0  # an explicit zero
    dense.X[0, thin.X.indices[0]] = 0
    before = thin.X.copy()
    pd.testing.assert_frame_equal(diversity.expected_alpha(thin, 100), diversity.expected_alpha(dense, 100))
    assert (thin.X.nnz, thin.X.sum()) == (before.nnz, before.sum())


def test_an_unrooted_tree_is_rooted_at_the_midpoint():
    trifurcating = diversity.rooted_tree(cohort_of([[1, 1, 1]], tree="(f0:1,f1:2,f2:7);"))
    rooted = diversity.rooted_tree(cohort_of([[1, 1, 1]], tree=NEWICK))
    pd_of = [diversity.expected_alpha(cohort_of([[1, 1, 1]]), 3, ["faith_pd"], t) for t in (trifurcating, rooted)]
    assert pd_of[0].equals(pd_of[1])
    assert diversity.rooted_tree(cohort_of([[1]])) is None


def test_rarefaction_curves_are_the_expectation_of_each_swab():
    counts = np.random.default_rng(7).poisson(3, (6, 40))
    counts[0] = 0
    counts[0, 0] = 20
    cohort = cohort_of(counts, group=["control"] * 3 + ["case"] * 3)
    curves = diversity.rarefaction_curves(cohort, [50, 10])
    at_50 = curves[curves["depth"].eq(50)].set_index("swab")
    for measure in ("observed_features", "shannon"):
        expected = diversity.expected_alpha(cohort, 50)[measure]
        assert at_50[measure].to_dict() == pytest.approx(expected.to_dict(), nan_ok=True)
    assert curves.groupby("swab")["reaches"].first().tolist() == [False, *[True] * 5]


def test_mean_curves_are_of_the_same_swabs_at_every_depth():
    # Two shallow swabs of one feature, two deep ones of forty even ones: the means of those that reach each depth jump
    # when the shallow ones go, where no swab's own diversity rises so.
    shallow, deep = [[20] + [0] * 39] * 2, [[5] * 40] * 2
    cohort = cohort_of(shallow + deep, group=["case"] * 4)
    curves = diversity.rarefaction_curves(cohort, [10, 20, 200])
    means = diversity.rarefaction_means(curves).set_index("depth")
    expected = [diversity.expected_alpha(cohort, depth)["shannon"].iloc[2] for depth in (10, 20, 200)]
    assert means["shannon"].tolist() == pytest.approx(expected)
    assert means[["swabs", "of"]].to_numpy().tolist() == [[2, 4]] * 3


@pytest.mark.parametrize(
    ("reads", "rarefaction_depth", "depths"),
    [
        ([900, 1675, 1700, 9000], 1000, [100, 200, 500, 1000, 1600]),
        ([900, 950, 1200, 9000], 1000, [100, 200, 500, 1000]),  # fewer than half have more: no further
        ([10, 60, 62, 90], 50, [50, 60]),
        ([20_000] * 3, 250, [100, 200, 250, 500, 1000, 2000, 5000, 10_000, 20_000]),
    ],
)
def test_at_least_half_of_the_swabs_reach_the_greatest_depth_drawn(reads, rarefaction_depth, depths):
    assert diversity.curve_depths(cohort_of([[n] for n in reads]), rarefaction_depth) == depths


# --- distances --------------------------------------------------------------------------------------------------------


def test_bray_curtis_is_the_mean_of_scikit_bios_over_the_draws(table):
    cohort = AnnData(table.astype(float))
    rng = np.random.default_rng(3)
    draws = [diversity.rarefy(cohort, 150, seed=rng) for _ in range(3)]
    expected = np.mean([beta_diversity("braycurtis", d.X, list(d.obs_names)).data for d in draws], axis=0)
    got = diversity.bray_curtis(cohort, 150, rarefactions=3, seed=3)
    assert list(got.ids) == list(draws[0].obs_names)
    assert len(got.ids) < len(table)
    np.testing.assert_allclose(got.data, expected, atol=1e-12)


def test_reads_beyond_16_bits_are_counted_in_full():
    cohort = cohort_of([[60_000, 20_000], [20_000, 60_000]])
    assert diversity.bray_curtis(cohort, 80_000, rarefactions=2, seed=1)[0, 1] == pytest.approx(0.5)


def test_distances_are_those_of_r(table, tree, r):
    swabs = r["distances"]["swabs"]
    filled = table.assign(rest=table.sum(axis=1).max() - table.sum(axis=1))
    got = {
        "bray_curtis_filled": diversity.bray_curtis(
            AnnData(filled.astype(float)), int(filled.sum(axis=1).max()), rarefactions=1, seed=1
        ),
        "aitchison": diversity.aitchison(AnnData(table.astype(float))),
        "unweighted_unifrac": diversity.unifrac(table, tree, weighted=False),
        "weighted_unifrac": diversity.unifrac(table, tree, weighted=True),
    }
    for name, distmat in got.items():
        expected = squareform(r["distances"][name])
        np.testing.assert_allclose(distmat.filter(swabs).data, expected, rtol=1e-8, err_msg=name)


@pytest.mark.parametrize("newick", ["{}", "({}:0.3,other:0.2):0.1;"], ids=["its tips", "more tips, and a stem"])
def test_unifrac_is_scikit_bios(table, newick):
    plain = (ORACLE / "tree.nwk").read_text().strip()
    tree = tree_of(newick.format(plain if newick == "{}" else plain.rstrip(";")))
    table = pd.concat([table, table.iloc[[0]].set_axis(["again"])])  # one swab twice: no distance
    arguments = {"taxa": list(table.columns), "tree": tree}
    for weighted, name in ((False, "unweighted_unifrac"), (True, "weighted_unifrac")):
        expected = beta_diversity(name, table.to_numpy(), list(table.index), **arguments)
        got = diversity.unifrac(table, tree, weighted=weighted)
        np.testing.assert_allclose(got.data, expected.data, atol=1e-12)
        assert got["S01", "again"] == pytest.approx(0, abs=1e-12)


def test_the_square_root_of_mean_bray_curtis_is_euclidean():
    counts = np.random.default_rng(4).poisson(2, (30, 12)) + 1
    distmat = diversity.bray_curtis(cohort_of(counts), 15, rarefactions=5, seed=1)
    assert np.linalg.eigvalsh(_gower(diversity.square_root(distmat))).min() > -1e-10
    assert np.linalg.eigvalsh(_gower(distmat)).min() < -1e-6  # without the root it is not


def _gower(distmat: DistanceMatrix) -> np.ndarray:
    n = distmat.shape[0]
    j = np.eye(n) - 1 / n
    return -0.5 * j @ np.asarray(distmat.data) ** 2 @ j


# --- distance to healthy ----------------------------------------------------------------------------------------------


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


def test_the_only_control_has_no_distance_to_healthy():
    got = diversity.distance_to_reference(euclidean([[0.0], [1.0], [5.0]]), [True, False, False], ["a", "a", "x"])
    assert got.isna().tolist() == [True, True, False]
    assert got["s2"] == 5


# --- the axis from healthy to patients' skin --------------------------------------------------------------------------


def people(seed: int, gap: float = 0.0, swabs: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points, and whether they are of controls or of patients at baseline; two swabs a subject, some of them later."""
    rng = np.random.default_rng(seed)
    subject = np.arange(swabs) // 2
    patient, baseline = subject >= swabs // 4, rng.random(swabs) < 0.7
    points = rng.normal(size=(swabs, 6)) + gap * patient[:, None] * np.eye(6)[0]
    return points, patient < baseline, patient & baseline, subject


@pytest.mark.parametrize("seed", range(5))
def test_the_projection_is_the_explicit_one_in_principal_coordinates(seed):
    points, controls, patients, subject = people(seed, gap=1)
    got = diversity.axis_position(euclidean(points), controls, patients, subject.astype(str))
    for i in range(len(points)):
        healthy, ill = (points[group & (subject != subject[i])].mean(axis=0) for group in (controls, patients))
        axis = ill - healthy
        expected = (points[i] - healthy) @ axis / (axis @ axis)
        assert got["projection"].iloc[i] == pytest.approx(expected, abs=1e-10)
        away = np.linalg.norm(points[i] - healthy - expected * axis)
        assert got["off_axis"].iloc[i] == pytest.approx(away, abs=1e-10)


def test_the_baseline_means_of_controls_and_patients_are_0_and_1_over_subjects():
    points, controls, patients, subject = people(1, gap=2)
    position = diversity.axis_position(euclidean(points), controls, patients, subject)["position"].to_numpy()
    means = [pd.Series(position[group]).groupby(subject[group]).mean().mean() for group in (controls, patients)]
    assert means == pytest.approx([0, 1])


def test_a_change_that_is_not_there_is_not_seen_on_the_axis_since_nobody_draws_it_to_themselves():
    # Where subjects are not left out, everybody seems to move away from their own group's centroid.
    def shift(seed: int) -> float:
        points = np.random.default_rng(seed).normal(size=(80, 30))
        points[:, 0] += np.repeat([0, 2, 0, 2], 20)
        group, later = np.tile(np.repeat(["control", "case"], 20), 2), np.repeat([False, True], 40)
        subjects = np.tile(np.arange(40), 2)
        healthy, ill = ((group == who) & ~later for who in ("control", "case"))
        projection = diversity.axis_position(euclidean(points), healthy, ill, subjects)["projection"].to_numpy()
        patients = group[later] == "case"
        return float((projection[later] - projection[~later])[patients].mean())

    shifts = [shift(seed) for seed in range(40)]
    assert abs(np.mean(shifts)) < 3 * np.std(shifts) / np.sqrt(40)


def test_there_is_no_axis_without_two_groups_that_lie_apart():
    points, controls, patients, subject = people(1, gap=2)
    distmat = euclidean(points)
    with pytest.raises(ValueError, match="do not lie beyond"):
        diversity.axis_position(euclidean(np.ones((40, 2))), controls, patients, subject)
    with pytest.raises(ValueError, match="two or more subjects among the patients; found 0"):
        diversity.axis_position(distmat, controls, np.zeros(40, bool), subject)
    with pytest.raises(ValueError, match="subjects are among the controls and among the patients"):
        diversity.axis_position(distmat, controls, controls, subject)


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = cohort_of([[5, 3, 2], [1, 4, 5]], group=["case", "control"])
LINE = euclidean([[0.0], [1.0], [5.0]])


@pytest.mark.parametrize("counts", [[[1.5, 1, 1], [1, 1, 1]], [[2, -1, 1], [1, 1, 1]], [[2, np.nan, 1], [1, 1, 1]]])
@pytest.mark.parametrize(
    "call",
    [
        lambda c: diversity.expected_alpha(c, 2),
        lambda c: diversity.rarefy(c, 2, seed=1),
        lambda c: diversity.bray_curtis(c, 2, rarefactions=1, seed=1),
        lambda c: diversity.aitchison(c),
        lambda c: diversity.unifrac(c, tree_of(NEWICK), weighted=True),
    ],
    ids=["expected_alpha", "rarefy", "bray_curtis", "aitchison", "unifrac"],
)
def test_counts_must_be_whole_numbers_of_reads(call, counts):
    with pytest.raises(ValueError, match=r"1 counts are not whole numbers of reads, .* in swab 's0'"):
        call(cohort_of(counts))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diversity.expected_alpha(GOOD, 11), "no swab has 11 reads: the deepest of 2 has 10"),
        (lambda: diversity.rarefy(GOOD, 11, seed=1), "no swab has 11 reads"),
        (lambda: diversity.bray_curtis(GOOD, 11, rarefactions=1, seed=1), "no swab has 11 reads"),
        (lambda: diversity.rarefaction_curves(GOOD, [5, 11]), "no swab has 11 reads"),
        (lambda: diversity.rarefaction_curves(GOOD, []), "no depths"),
        (lambda: diversity.expected_alpha(GOOD, 0), "the depth is 0"),
        (lambda: diversity.expected_alpha(GOOD, 5.5), "the depth is 5.5"),  # type: ignore[arg-type]
        (lambda: diversity.expected_alpha(GOOD, 5, ["chao1"]), r"unknown metrics \['chao1'\]"),
        (lambda: diversity.bray_curtis(GOOD, 5, rarefactions=0, seed=1), "0 rarefactions"),
        (lambda: diversity.aitchison(GOOD, zeros=0), "pseudocount is 0"),
        (
            lambda: diversity.unifrac(cohort_of([[1, 0, 0], [0, 0, 0]]), tree_of(NEWICK), weighted=True),
            "1 swabs have no reads, the first 's1'",
        ),
    ],
)
def test_depths_metrics_and_empty_swabs_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("newick", "message"),
    [
        ("(f0:1,f1:2,f2:7);", "has no root"),
        ("(f0:1,f1:2);", "lacks 1 of 3 features, the first 'f2'"),
        ("((f0:1,f1:2),f2:4);", "has the length None"),
        ("((f0:1,f1:-2):3,f2:4);", "has the length -2"),
        ("((f0:1,f1:2):3,(f2:4,f2:4):1);", "several tips of one name"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda t: diversity.unifrac(GOOD, t, weighted=False),
        lambda t: diversity.expected_alpha(GOOD, 5, ["faith_pd"], t),
    ],
    ids=["unifrac", "faith_pd"],
)
def test_a_tree_must_fit(call, newick, message):
    with pytest.raises(ValueError, match=message):
        call(tree_of(newick))


@pytest.mark.parametrize(
    ("reference", "subjects", "message"),
    [
        ([True, False], ["a", "b", "c"], "`reference` has 2 values for 3 swabs"),
        ([True, False, False], ["a", "b"], "`subjects` has 2 values for 3 swabs"),
        ([True, False, False], ["a", None, "c"], "`subjects` is missing for 1 of 3"),
        ([False] * 3, ["a", "b", "c"], "none of the 3 swabs is in the reference"),
        (
            pd.Series([True, False, False], index=["s0", "s2", "s1"]),
            ["a", "b", "c"],
            "not in the order.*'s2' where 's1'",
        ),
    ],
)
def test_reference_and_subjects_must_fit_the_swabs(reference, subjects, message):
    with pytest.raises(ValueError, match=message):
        diversity.distance_to_reference(LINE, reference, subjects)


def test_distances_must_be_numbers():
    infinite = DistanceMatrix([[0, np.inf], [np.inf, 0]], ["s0", "s1"])
    with pytest.raises(ValueError, match="2 distances are not finite"):
        diversity.distance_to_reference(infinite, [True, False], ["a", "b"])
