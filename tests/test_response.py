import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import response
from helpers import visits as visits_of
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
    table = response.mean_by_stratum(pairs).set_index("stratum")
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
    both = visits_of.with_controls(visits, ["p"])
    assert both["visit"].eq("followup").all()
    assert len(both) == 5
    once = visits[visits["who"].eq("case") | visits["visit"].eq("baseline")]
    both = visits_of.with_controls(once, ["p"])
    assert both.groupby("who")["visit"].unique().str[0].to_dict() == {"case": "followup", "control": "baseline"}


def graded(seed: int, slope: float, sizes=((8, 7, 9, 6), (5, 4, 3, 2))) -> pd.DataFrame:
    """Change falls by `slope` from stratum to stratum in both arms, which differ by 3."""
    rng = np.random.default_rng(seed)
    rows = [
        {"arm": arm, "stratum": f"s{k}", "change": 3 * a - slope * k + rng.normal()}
        for a, (arm, counts) in enumerate(zip(("treatment", "comparator"), sizes, strict=True))
        for k, count in enumerate(counts)
        for _ in range(count)
    ]
    pairs = pd.DataFrame(rows)
    return pairs.assign(stratum=pd.Categorical(pairs["stratum"], ["s0", "s1", "s2", "s3"], ordered=True))


def test_trend_is_of_the_strata_and_not_of_the_arms():
    found = response.trend(graded(2, 1.0))
    assert found["ci_low"] < -1 < found["ci_high"] < 0
    assert found["p_value"] < 0.01
    # The arms differ in place and in their strata, the strata in nothing.
    lopsided = graded(3, 0.0, sizes=((2, 2, 5, 20), (20, 5, 2, 2)))
    assert response.trend(lopsided)["p_value"] > 0.05


def test_trend_has_interval_and_p_value_of_one_test_that_holds_its_level():
    found = [response.trend(graded(seed, 0.0)) for seed in range(200)]
    excludes = [f["ci_low"] > 0 or f["ci_high"] < 0 for f in found]
    assert excludes == [f["p_value"] < 0.05 for f in found]
    assert np.mean(excludes) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 200))


def test_trend_needs_order_two_strata_and_more_than_one_patient_to_tell_them():
    pairs = graded(1, 1.0)
    with pytest.raises(ValueError, match="must be an ordered category"):
        response.trend(pairs.astype({"stratum": str}))
    assert np.isnan(response.trend(pairs[pairs["stratum"].eq("s1")])["estimate"])
    assert np.isnan(response.trend(pairs.head(0))["estimate"])
    missing = pairs.assign(change=pairs["change"].mask(pairs.index < 2))
    assert response.trend(missing)["n_dropped"] == 2
    assert np.isnan(response.trend(graded(1, 1.0, sizes=((9, 1, 0, 0), (5, 0, 0, 0))))["estimate"])
    alone = graded(1, 1.0, sizes=((4, 4, 0, 0), (0, 0, 0, 1)))
    without = response.trend(alone[alone["arm"].eq("treatment")])
    assert response.trend(alone) == without | {"n_dropped": 1}


def test_slopes_agree_with_geepack_and_lme4(models_oracle):
    r, visits, _ = models_oracle
    got = response.within_between_slopes(visits, "shannon", "easi", ["age"])
    assert got["estimate"].tolist() == pytest.approx(r["gee"], abs=1e-6)
    # Both visits of everybody: the mixed model differs by the estimated correlation only.
    assert got["estimate"].tolist() == pytest.approx(r["lme4"], rel=0.05)
    assert got["n"].tolist() == [20, 20]


def two_slopes(seed: int, n: int = 40, between: float = -0.5, within: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    own, moved = rng.normal(20, 5, n), rng.normal(0, 4, n)
    subject = [f"p{i}" for i in range(n)] * 2
    severity = np.concatenate([own + moved, own - moved])
    outcome = between * np.tile(own, 2) + within * np.concatenate([moved, -moved])
    outcome += np.tile(rng.normal(size=n), 2) + rng.normal(size=2 * n)
    return pd.DataFrame({"subject": subject, "case": True, "easi": severity, "y": outcome})


def test_slopes_within_and_between_patients_are_told_apart_and_covered():
    held = {"between": 0, "within": 0}
    for seed in range(150):
        got = response.within_between_slopes(two_slopes(seed), "y", "easi")
        for slope, truth in (("between", -0.5), ("within", 1.0)):
            held[slope] += got.loc[slope, "ci_low"] < truth < got.loc[slope, "ci_high"]
    assert min(held.values()) >= stats.binom.ppf(0.001, 150, 0.95)


def test_slopes_want_patients_and_movement():
    assert response.within_between_slopes(two_slopes(1, n=8), "y", "easi")["estimate"].isna().all()
    still = two_slopes(1).assign(easi=lambda v: v.groupby("subject")["easi"].transform("mean"))
    assert response.within_between_slopes(still, "y", "easi")["estimate"].isna().all()
    gaps = two_slopes(1)
    gaps.loc[:4, "y"] = np.nan
    assert response.within_between_slopes(gaps, "y", "easi")["n_dropped"].tolist() == [5, 5]
