import numpy as np
import pandas as pd
import pytest

from helpers import response
from helpers.study import Response, Severity

EASI = Severity(name="easi", column="EASI", label="EASI", range=(0, 72))


def test_improvement_in_per_cent_of_baseline():
    visits = pd.DataFrame(
        {
            "subject": ["a", "a", "b", "b", "c", "d", "d"],
            "visit": ["baseline", "followup"] * 2 + ["baseline", "baseline", "followup"],
            "easi": [20, 5, 10, 12, 30, 0, 4],
        }
    )
    got = response.improvement(visits, [EASI])
    assert got[["a", "b"]].tolist() == [75, -20]
    assert got[["c", "d"]].isna().all()  # one visit; nothing to improve
    assert response.improvement(visits, []).isna().all()


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


def test_near_clear_patients_are_compared_with_controls_of_the_same_visit_if_there_are_any():
    rows = [("p", "case", v) for v in ("baseline", "followup")]
    rows += [(f"c{i}", "control", v) for i in range(4) for v in ("baseline", "followup")]
    visits = pd.DataFrame(rows, columns=["subject", "who", "visit"])
    both = response.with_controls(visits, ["p"])
    assert both["visit"].eq("followup").all()
    assert len(both) == 5
    once = visits[visits["who"].eq("case") | visits["visit"].eq("baseline")]
    both = response.with_controls(once, ["p"])
    assert both.groupby("who")["visit"].unique().str[0].to_dict() == {"case": "followup", "control": "baseline"}
