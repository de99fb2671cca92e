import json
import re
import tracemalloc
from functools import cache
from itertools import combinations, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial.distance import pdist, squareform
from skbio import DistanceMatrix
from skbio.stats.distance import permdisp

from helpers import permutation


def distances(points) -> DistanceMatrix:
    return DistanceMatrix(squareform(pdist(points)), [f"s{i}" for i in range(len(points))])


def gram_of(points) -> np.ndarray:
    return products_of(distances(points))


def products_of(distmat: DistanceMatrix) -> np.ndarray:
    return permutation.products(distmat, sparse.eye_array(distmat.shape[0], format="csr"))


def design_of(**columns) -> pd.DataFrame:
    design = pd.DataFrame(columns)
    return design.set_axis([f"s{i}" for i in range(len(design))])


def visits_of(n: int, **columns) -> pd.DataFrame:
    """n patients, baseline swabs first, then follow-up swabs."""
    return design_of(
        subject=[f"p{i}" for i in range(n)] * 2,
        visit=["baseline"] * n + ["followup"] * n,
        **{name: list(values) * 2 for name, values in columns.items()},
    )


@cache
def oracle() -> tuple[dict[str, Any], pd.DataFrame, DistanceMatrix]:
    """What vegan says, the metadata, and Bray-Curtis of the raw counts: tests/oracle/README.md."""
    folder = Path("tests/oracle")
    counts = pd.read_csv(folder / "counts.tsv", sep="\t", index_col=0)
    design = pd.read_csv(folder / "metadata.tsv", sep="\t", index_col=0)
    distmat = DistanceMatrix(squareform(pdist(counts, "braycurtis")), list(counts.index))
    return json.loads((folder / "permutation.json").read_text()), design, distmat


def monte_carlo(p: float, permutations: int = 9999) -> float:
    """Four standard errors of the difference of two p-values from as many permutations each."""
    return 4 * np.sqrt(2 * max(p * (1 - p), 1e-4) / permutations)


# --- a factor given covariates


def test_permanova_given_covariates_agrees_with_adonis2():
    r, people, distmat = oracle()
    got = permutation.permanova(products_of(distmat), people, "group", ["age", "batch"], permutations=9999, seed=2)
    expected = pd.DataFrame(r["margin"]).set_index("term").loc["group"]
    for key in ("df", "sum_of_squares", "r2", "pseudo_f"):
        assert got[key] == pytest.approx(float(expected[key]), abs=1e-8), key
    assert got["p_value"] == pytest.approx(float(expected["p_value"]), abs=monte_carlo(float(expected["p_value"])))


def test_one_dimensional_permanova_is_analysis_of_variance():
    x = np.array([1.0, 2, 4, 3, 6, 8, 7])
    got = permutation.permanova(gram_of(x[:, None]), design_of(g=list("aaabbbb")), "g", permutations=99, seed=1)
    a, b = x[:3], x[3:]
    between = 3 * (a.mean() - x.mean()) ** 2 + 4 * (b.mean() - x.mean()) ** 2
    total = ((x - x.mean()) ** 2).sum()
    assert got["sum_of_squares"] == pytest.approx(between)
    assert got["r2"] == pytest.approx(between / total)
    assert got["pseudo_f"] == pytest.approx(between / ((total - between) / 5))


def test_permutations_agree_with_full_enumeration():
    rng = np.random.default_rng(3)
    points, g = rng.normal(size=(6, 2)), list("aaabbb")
    points[3:] += 1
    got = permutation.permanova(gram_of(points), design_of(g=g), "g", permutations=20_000, seed=1)

    def between(order) -> float:
        a, b = points[np.array(order)[:3]], points[np.array(order)[3:]]
        return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum())

    null = np.array([between(order) for order in permutations(range(6))])
    exact = (null >= between(range(6)) - 1e-9).mean()
    assert got["p_value"] == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000) + 1e-4)


def test_missing_values_are_dropped_and_counted():
    rng = np.random.default_rng(6)
    points = rng.normal(size=(12, 3))
    design = design_of(g=list("ab") * 6, x=rng.normal(size=12))
    design.loc[["s1", "s4"], "x"] = np.nan
    how: dict[str, Any] = {"permutations": 99, "seed": 1}
    got = permutation.permanova(gram_of(points), design, "g", ["x"], **how)
    kept = design["x"].notna().to_numpy()
    alone = permutation.permanova(gram_of(points[kept]), design[kept], "g", ["x"], **how)
    assert (got["n"], got["n_dropped"]) == (10, 2)
    assert got["pseudo_f"] == pytest.approx(alone["pseudo_f"])


@pytest.mark.parametrize(
    "change",
    [{"g": ["a"] * 8}, {"g": list("aaaaaabb")}, {"x": [0, 1] * 4}, {"b": list("abcdefgh")}, {"b": list("abcdefga")}],
)
def test_what_cannot_be_tested_is_not_estimable_rather_than_an_error(change):
    design = design_of(g=list("ab") * 4, x=np.arange(8.0) ** 2, b=[1, 1, 2, 2, 3, 3, 4, 4]).assign(**change)
    points = np.arange(8.0)[:, None]
    got = permutation.permanova(gram_of(points), design, "g", ["x", "b"], permutations=99, seed=1)
    assert np.isnan([got["pseudo_f"], got["p_value"], got["dispersion_p"]]).all()
    assert (got["n"], got["n_dropped"]) == (8, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": ["subject", "time"]}, "design has no column 'visit'; it has subject, time"),
        ({"index": ["t0", *[f"s{i}" for i in range(1, 8)]]}, "it lacks 1 of 8, such as s0"),
        ({"index": ["s1", "s1", *[f"s{i}" for i in range(2, 8)]]}, "it lacks 1 of 8, such as s0"),
    ],
)
def test_a_design_that_does_not_fit_the_distances_is_refused(change, message):
    design = visits_of(4)
    design = design.set_axis(change.get("index", design.index)).set_axis(change.get("columns", design.columns), axis=1)
    with pytest.raises(ValueError, match=re.escape(message)):
        permutation.paired_permanova(distances(np.arange(8.0)[:, None]), design, permutations=99, seed=1)


def test_people_are_tested_without_a_matrix_of_all_their_swabs():
    rng, people = np.random.default_rng(1), 300
    distmat = distances(rng.normal(size=(people * 8, 3)))
    design = design_of(
        subject=np.repeat([f"p{i}" for i in range(people)], 8), visit=["baseline", "followup"] * 4 * people,
        group=np.repeat(["case", "control"], 4 * people), arm=np.repeat(["a", "b"], 4 * people),
    )  # fmt: skip
    how: dict[str, Any] = {"permutations": 99, "seed": 1}
    tracemalloc.start()
    permutation.group_at_baseline(distmat, design, (), **how)
    permutation.paired_permanova(distmat, design, arm="arm", **how)
    assert tracemalloc.get_traced_memory()[1] < 0.9 * distmat.data.nbytes
    tracemalloc.stop()


# --- dispersion


def test_dispersion_agrees_with_betadisper():
    r, design, distmat = oracle()
    gram = products_of(distmat)
    f, p = permutation.dispersion(gram, design["group"].to_numpy(), permutations=9999, seed=1)
    assert f == pytest.approx(r["dispersion"]["f"], abs=1e-8)
    assert p == pytest.approx(r["dispersion"]["p_value"], abs=monte_carlo(0.5))


def test_dispersion_agrees_with_scikit_bio():
    rng = np.random.default_rng(7)
    points, g = np.vstack([rng.normal(0, 1, (10, 3)), rng.normal(0, 2, (12, 3))]), np.array(["a"] * 10 + ["b"] * 12)
    theirs = permdisp(distances(points), list(g), test="centroid", permutations=9, dimensions=22, warn_neg_eigval=False)
    f, _ = permutation.dispersion(gram_of(points), g, permutations=9, seed=1)
    assert f == pytest.approx(theirs["test statistic"])


def test_dispersion_tells_a_spread_from_a_shift():
    rng = np.random.default_rng(7)
    design = design_of(g=["a"] * 40 + ["b"] * 40)
    how: dict[str, Any] = {"permutations": 199, "seed": 1}
    spread = gram_of(np.vstack([rng.normal(0, 1, (40, 3)), rng.normal(0, 3, (40, 3))]))
    shift = permutation.permanova(
        gram_of(np.vstack([rng.normal(0, 1, (40, 3)), rng.normal(1.5, 1, (40, 3))])), design, "g", **how
    )
    assert permutation.permanova(spread, design, "g", **how)["dispersion_p"] < 0.01
    assert shift["p_value"] < 0.01
    assert shift["dispersion_p"] > 0.05


# --- patients seen twice


def test_sign_flips_agree_with_full_enumeration():
    rng = np.random.default_rng(2)
    n = 8
    before, change = rng.normal(size=(n, 2)), rng.normal(0.6, 1, size=(n, 2))
    distmat = distances(np.vstack([before, before + change]))
    got = permutation.paired_permanova(distmat, visits_of(n), permutations=20_000, seed=3).iloc[0]
    signs = np.array(list(product([-1, 1], repeat=n)))
    null = ((signs @ change) ** 2).sum(axis=1)
    exact = (null >= (change.sum(axis=0) ** 2).sum() - 1e-9).mean()
    assert got["p_value"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_one_dimensional_time_is_the_paired_t_test():
    rng = np.random.default_rng(4)
    before, after = rng.normal(size=12), rng.normal(0.5, 1, 12)
    d = after - before
    t = d.mean() / (d.std(ddof=1) / np.sqrt(12))
    distmat = distances(np.concatenate([before, after])[:, None])
    got = permutation.paired_permanova(distmat, visits_of(12), permutations=99, seed=1).iloc[0]
    assert got["pseudo_f"] == pytest.approx(t**2)


def test_time_by_arm_is_permanova_of_the_differences_and_blind_to_where_patients_start():
    rng = np.random.default_rng(5)
    n, arms = 7, ["treatment"] * 4 + ["comparator"] * 3
    before, change = rng.normal(0, 5, size=(n, 2)), rng.normal(size=(n, 2))
    change[:4] += 1
    obs = visits_of(n, arm=arms)
    how: dict[str, Any] = {"arm": "arm", "permutations": 5000, "seed": 6}
    got = permutation.paired_permanova(distances(np.vstack([before, before + change])), obs, **how).iloc[1]
    moved = permutation.paired_permanova(distances(np.vstack([before * 3, before * 3 + change])), obs, **how).iloc[1]
    assert moved["pseudo_f"] == pytest.approx(got["pseudo_f"])

    def between(members) -> float:
        rest = [i for i in range(n) if i not in members]
        mean = change.mean(axis=0)
        return sum(len(g) * ((change[list(g)].mean(axis=0) - mean) ** 2).sum() for g in (members, rest))

    null = np.array([between(members) for members in combinations(range(n), 4)])
    total = ((change - change.mean(axis=0)) ** 2).sum()
    assert got["r2"] == pytest.approx(between((0, 1, 2, 3)) / total)
    exact = (null >= between((0, 1, 2, 3)) - 1e-9).mean()
    assert got["p_value"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 5000) + 1e-3)


def test_one_dimensional_time_by_arm_given_a_covariate_is_the_partial_f_of_the_changes():
    rng = np.random.default_rng(8)
    n = 20
    age, arm = rng.normal(50, 9, n), np.array([0, 1] * 10)
    before = rng.normal(size=n)
    change = 0.1 * age + arm + rng.normal(size=n)
    obs = visits_of(n, arm=np.where(arm, "treatment", "comparator"), age=age)
    distmat = distances(np.concatenate([before, before + change])[:, None])
    got = permutation.paired_permanova(distmat, obs, arm="arm", covariates=["age"], permutations=99, seed=1).iloc[1]

    def residual(*columns) -> float:
        x = np.column_stack([np.ones(n), *columns])
        return float(((change - x @ np.linalg.lstsq(x, change)[0]) ** 2).sum())

    assert got["pseudo_f"] == pytest.approx((residual(age) - residual(age, arm)) / (residual(age, arm) / (n - 3)))


def test_several_swabs_of_a_patient_count_as_one():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(16, 3))
    obs = visits_of(8, arm=["treatment", "comparator"] * 4)
    twice = pd.concat([obs, obs]).set_axis([f"s{i}" for i in range(32)])
    how: dict[str, Any] = {"arm": "arm", "permutations": 99, "seed": 1}
    once = permutation.paired_permanova(distances(points), obs, **how)
    got = permutation.paired_permanova(distances(np.vstack([points, points])), twice, **how)
    for column in ("n", "r2", "pseudo_f", "p_value"):
        assert got[column].tolist() == pytest.approx(once[column].tolist())


def test_paired_dispersion_sees_patients_that_scatter_at_follow_up():
    rng = np.random.default_rng(8)
    before = rng.normal(size=(30, 4))

    def time(after) -> pd.Series:
        distmat = distances(np.vstack([before, after]))
        return permutation.paired_permanova(distmat, visits_of(30), permutations=199, seed=1).iloc[0]

    scattered, same = time(rng.normal(0, 4, (30, 4))), time(before + 0.5)
    assert scattered["dispersion_p"] < 0.02
    assert same["dispersion_p"] > 0.05
    assert same["p_value"] < 0.02


def test_type_one_error_of_the_time_test():
    rng = np.random.default_rng(9)
    hits = 0
    for i in range(300):
        points = rng.normal(size=(10, 3))
        distmat = distances(np.vstack([points, points + rng.normal(size=(10, 3))]))
        hits += permutation.paired_permanova(distmat, visits_of(10), permutations=99, seed=i)["p_value"][0] <= 0.05
    assert hits / 300 == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 300))


def test_too_few_patients_and_an_absent_arm_are_not_estimable_rather_than_an_error():
    points = np.random.default_rng(1).normal(size=(12, 2))
    one_arm = visits_of(6, arm=["treatment"] * 6)
    got = permutation.paired_permanova(distances(points), one_arm, arm="arm", permutations=99, seed=1)
    assert got["p_value"].isna().tolist() == [False, True]
    assert got["n"].tolist() == [6, 6]
    once = one_arm.assign(visit=["baseline"] * 8 + ["followup"] * 4, subject=[f"p{i}" for i in range(8)] + ["p0"] * 4)
    few = permutation.paired_permanova(distances(points), once, permutations=99, seed=1).iloc[0]
    assert (few["n"], few["n_dropped"], np.isnan(few["p_value"])) == (1, 7, True)
