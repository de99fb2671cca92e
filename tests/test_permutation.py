from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform
from skbio import DistanceMatrix

from helpers import permutation


def distances(points) -> DistanceMatrix:
    return DistanceMatrix(squareform(pdist(points)), [f"s{i}" for i in range(len(points))])


def visits_of(n: int, **columns) -> pd.DataFrame:
    """n patients, baseline swabs first, then follow-up swabs."""
    return pd.DataFrame(
        {
            "subject": [f"p{i}" for i in range(n)] * 2,
            "visit": ["baseline"] * n + ["followup"] * n,
            **{name: list(values) * 2 for name, values in columns.items()},
        }
    )


def test_one_dimensional_permanova_is_analysis_of_variance():
    x = np.array([1.0, 2, 4, 3, 6, 8, 7])
    groups = ["a"] * 3 + ["b"] * 4
    obs = pd.DataFrame({"subject": list("pqrstuv"), "visit": "baseline", "group": groups})
    got = permutation.permanova_group(distances(x[:, None]), obs, "group", visit="baseline", permutations=99, seed=1)
    a, b = x[:3], x[3:]
    between = 3 * (a.mean() - x.mean()) ** 2 + 4 * (b.mean() - x.mean()) ** 2
    total = ((x - x.mean()) ** 2).sum()
    assert got["r2"] == pytest.approx(between / total)
    assert got["pseudo_f"] == pytest.approx(between / ((total - between) / 5))


def test_several_swabs_of_a_patient_count_as_one():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(8, 3))
    obs = pd.DataFrame({"subject": list("pqrstuvw"), "visit": "baseline", "group": list("aaaabbbb")})
    once = permutation.permanova_group(distances(points), obs, "group", visit="baseline", permutations=99, seed=1)
    twice = permutation.permanova_group(
        distances(np.vstack([points, points])),
        pd.concat([obs, obs], ignore_index=True),
        "group",
        visit="baseline",
        permutations=99,
        seed=1,
    )
    for key in ("n", "r2", "pseudo_f", "p_value"):
        assert twice[key] == pytest.approx(once[key])


def test_sign_flips_agree_with_full_enumeration():
    rng = np.random.default_rng(2)
    n = 8
    before, change = rng.normal(size=(n, 2)), rng.normal(0.6, 1, size=(n, 2))
    got = permutation.permanova_time(
        distances(np.vstack([before, before + change])), visits_of(n), permutations=20_000, seed=3
    )
    signs = np.array(list(product([-1, 1], repeat=n)))
    null = ((signs @ change) ** 2).sum(axis=1)
    exact = (null >= (change.sum(axis=0) ** 2).sum() - 1e-9).mean()
    assert got["p_value"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_one_dimensional_time_is_the_paired_t_test():
    rng = np.random.default_rng(4)
    before, after = rng.normal(size=12), rng.normal(0.5, 1, 12)
    d = after - before
    t = d.mean() / (d.std(ddof=1) / np.sqrt(12))
    got = permutation.permanova_time(
        distances(np.concatenate([before, after])[:, None]), visits_of(12), permutations=99, seed=1
    )
    assert got["pseudo_f"] == pytest.approx(t**2)


def test_time_by_arm_is_permanova_of_the_differences_and_blind_to_where_patients_start():
    rng = np.random.default_rng(5)
    n, arms = 7, ["treatment"] * 4 + ["comparator"] * 3
    before, change = rng.normal(0, 5, size=(n, 2)), rng.normal(size=(n, 2))
    change[:4] += 1
    obs = visits_of(n, arm=arms)
    got = permutation.permanova_time_by_arm(
        distances(np.vstack([before, before + change])), obs, permutations=5000, seed=6
    )
    moved = permutation.permanova_time_by_arm(
        distances(np.vstack([before * 3, before * 3 + change])), obs, permutations=5000, seed=6
    )
    assert moved["pseudo_f"] == pytest.approx(got["pseudo_f"])

    def between(members) -> float:
        rest = [i for i in range(n) if i not in members]
        mean = change.mean(axis=0)
        return sum(len(g) * ((change[list(g)].mean(axis=0) - mean) ** 2).sum() for g in (members, rest))

    null = np.array([between(members) for members in combinations(range(n), 4)])
    total = ((change - change.mean(axis=0)) ** 2).sum()
    assert got["r2"] == pytest.approx(between((0, 1, 2, 3)) / total)
    exact = (null >= between((0, 1, 2, 3)) - 1e-9).mean()
    assert got["p_value"] == pytest.approx(exact, abs=0.03)


def test_dispersion_tells_a_spread_from_a_shift():
    rng = np.random.default_rng(7)
    obs = pd.DataFrame({"subject": [f"p{i}" for i in range(80)], "visit": "baseline", "group": ["a"] * 40 + ["b"] * 40})
    spread = np.vstack([rng.normal(0, 1, (40, 3)), rng.normal(0, 3, (40, 3))])
    shift = np.vstack([rng.normal(0, 1, (40, 3)), rng.normal(1.5, 1, (40, 3))])
    assert (
        permutation.permanova_group(distances(spread), obs, "group", visit="baseline", permutations=199, seed=1)[
            "dispersion_p"
        ]
        < 0.01
    )
    shifted = permutation.permanova_group(distances(shift), obs, "group", visit="baseline", permutations=199, seed=1)
    assert shifted["p_value"] < 0.01
    assert shifted["dispersion_p"] > 0.05


def test_paired_dispersion_sees_patients_that_scatter_at_follow_up():
    rng = np.random.default_rng(8)
    before = rng.normal(size=(30, 4))
    scattered = permutation.permanova_time(
        distances(np.vstack([before, rng.normal(0, 4, (30, 4))])), visits_of(30), permutations=199, seed=1
    )
    same = permutation.permanova_time(
        distances(np.vstack([before, before + 0.5])), visits_of(30), permutations=199, seed=1
    )
    assert scattered["dispersion_p"] < 0.02
    assert same["dispersion_p"] > 0.05
    assert same["p_value"] < 0.02


def test_type_one_error_of_the_time_test():
    rng = np.random.default_rng(9)
    hits = 0
    for i in range(300):
        points = rng.normal(size=(10, 3))
        after = points + rng.normal(size=(10, 3))
        got = permutation.permanova_time(distances(np.vstack([points, after])), visits_of(10), permutations=99, seed=i)
        hits += got["p_value"] <= 0.05
    assert hits / 300 == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 300))


def test_an_absent_arm_is_not_estimable_rather_than_an_error():
    obs = visits_of(6, arm=["treatment"] * 6)
    points = np.random.default_rng(1).normal(size=(12, 2))
    got = permutation.permanova_time_by_arm(distances(points), obs, permutations=99, seed=1)
    assert np.isnan(got["p_value"])
    assert got["n"] == 6
