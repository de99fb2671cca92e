import numpy as np
import pandas as pd
import pytest

from helpers import response
from helpers.study import Response


def test_improvement_in_per_cent_of_baseline():
    visits = pd.DataFrame(
        {
            "subject": ["a", "a", "b", "b", "c", "d", "d"],
            "visit": ["baseline", "followup"] * 2 + ["baseline", "baseline", "followup"],
            "easi": [20, 5, 10, 12, 30, 0, 4],
        }
    )
    got = response.improvement(visits, "easi")
    assert got[["a", "b"]].tolist() == [75, -20]
    assert got[["c", "d"]].isna().all()  # one visit; nothing to improve


def test_strata_are_disjoint_and_thresholds_belong_to_the_higher_one():
    improved = pd.Series([-20, 49.9, 50, 74.9, 75, 89.9, 90, 100, np.nan])
    got = response.strata(improved, Response())
    assert got.astype(object).tolist()[:8] == ["<50 %"] * 2 + ["50–74 %"] * 2 + ["75–89 %"] * 2 + ["≥90 %"] * 2
    assert got.isna().sum() == 1
    assert got.cat.ordered


def test_a_stratum_too_small_for_an_interval_still_shows_its_mean():
    pairs = pd.DataFrame({"arm": ["t"] * 5, "stratum": ["x"] * 4 + ["y"], "change": [1.0, 2, 3, 4, 7]})
    table = response.shift_by_stratum(pairs).set_index("stratum")
    assert table.loc["x", ["estimate", "n"]].tolist() == [2.5, 4]
    assert table.loc["y", "estimate"] == 7
    assert np.isnan(table.loc["y", "ci_low"])


def test_percentiles_count_ties_half():
    got = response.percentiles(pd.Series([0, 2, 5, np.nan]), pd.Series([1, 2, 3, 4]))
    assert got.tolist()[:3] == pytest.approx([0, 37.5, 100])
    assert np.isnan(got.iloc[3])
