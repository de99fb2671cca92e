import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from helpers import estimates
from helpers import visits as visits_of


@pytest.fixture
def patients() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 60
    frame = pd.DataFrame({"case": rng.random(n) < 0.4, "age": rng.normal(40, 10, n), "sex": rng.choice(["f", "m"], n)})
    frame["y"] = 1.5 * frame["case"] + 0.05 * frame["age"] + rng.normal(0, 1 + frame["case"], n)
    return frame


def test_linear_contrast_is_ols_with_hc3_by_hand(patients):
    X = np.column_stack([np.ones(60), patients["case"], patients["age"], patients["sex"] == "m"]).astype(float)
    y = patients["y"].to_numpy()
    bread = np.linalg.inv(X.T @ X)
    beta = bread @ X.T @ y
    leverage = np.einsum("ij,jk,ik->i", X, bread, X)
    meat = X.T @ np.diag(((y - X @ beta) / (1 - leverage)) ** 2) @ X
    se = np.sqrt((bread @ meat @ bread)[1, 1])

    got = estimates.linear_contrast(patients, "y", "case", ["age", "sex"])

    assert got["estimate"] == pytest.approx(beta[1], rel=1e-10)
    assert got["se"] == pytest.approx(se, rel=1e-10)
    assert got["ci_low"] == pytest.approx(beta[1] - stats.t.ppf(0.975, 56) * se, rel=1e-10)


def test_missing_values_are_dropped_and_counted(patients):
    patients.loc[:4, "age"] = np.nan
    got = estimates.linear_contrast(patients, "y", "case", ["age"])
    assert (got["n"], got["n_dropped"]) == (55, 5)


def test_constant_covariate_and_single_group_do_not_break_the_contrast(patients):
    plain = estimates.linear_contrast(patients, "y", "case")
    assert estimates.linear_contrast(patients.assign(sex="f"), "y", "case", ["sex"]) == plain
    alone = estimates.linear_contrast(patients[patients["case"]], "y", "case")
    assert np.isnan(alone["estimate"])
    assert alone["n"] == patients["case"].sum()


def test_partial_spearman_is_the_inverse_of_the_rank_correlation_matrix(patients):
    patients["z"] = patients["y"] + patients["age"] / 10
    ranks = patients[["y", "z", "age"]].rank()
    precision = np.linalg.inv(ranks.corr().to_numpy())
    expected = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
    got = estimates.partial_spearman(patients, "y", "z", ["age"], bootstraps=200, seed=1)
    assert got["estimate"] == pytest.approx(expected, abs=1e-10)
    assert got["ci_low"] < expected < got["ci_high"]


@pytest.mark.parametrize("n", [12, 150])
def test_the_bootstrap_of_partial_spearman_is_that_of_one_resample_after_the_other(n):
    rng = np.random.default_rng(n)
    frame = pd.DataFrame({"x": rng.normal(size=n).round(), "y": rng.normal(size=n), "age": rng.integers(20, 60, n)})
    frame["site"] = pd.Categorical(rng.choice(list("abc"), n, p=[0.7, 0.2, 0.1]))  # a rare level is missing from some
    values = estimates.as_numbers(frame).to_numpy()
    drawn, again = [], np.random.default_rng(7)
    for _ in range(100):
        ranks = stats.rankdata(values[again.integers(n, size=n)], axis=0)
        design = np.column_stack([np.ones(n), ranks[:, 2:]])
        a, b = (ranks[:, :2] - design @ np.linalg.lstsq(design, ranks[:, :2])[0]).T
        drawn.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    got = estimates.partial_spearman(frame, "x", "y", ["age", "site"], bootstraps=100, seed=7)
    assert (got["ci_low"], got["ci_high"]) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-12)
    assert got["se"] == pytest.approx(np.std(drawn, ddof=1), abs=1e-12)


@pytest.mark.parametrize("method", ["holm", "fdr_bh"])
def test_adjusted_p_values_agree_with_statsmodels_and_leave_out_what_was_not_tested(method):
    p = pd.Series([0.02, np.nan, 0.01, 0.9, 0.02, 0.04, 1.0], index=list("abcdefg"))
    got = estimates.adjusted_p(p, method)
    assert got.index.equals(p.index)
    assert got.isna().equals(p.isna())
    assert got.dropna().to_numpy() == pytest.approx(multipletests(p.dropna(), method=method)[1], abs=1e-15)


def test_partial_spearman_removes_a_common_cause():
    rng = np.random.default_rng(3)
    cause = rng.normal(size=400)
    frame = pd.DataFrame({"x": cause + rng.normal(size=400), "y": cause + rng.normal(size=400), "cause": cause})
    assert estimates.partial_spearman(frame, "x", "y", bootstraps=100, seed=1)["p_value"] < 1e-6
    assert estimates.partial_spearman(frame, "x", "y", ["cause"], bootstraps=100, seed=1)["p_value"] > 0.05


def test_firth_odds_ratio_is_the_half_added_odds_ratio_of_a_two_by_two_table():
    # With one binary term, Firth's estimate is the odds ratio with 1/2 added to each cell (Firth 1993), even when
    # a cell is empty: here 10/0 against 4/6.
    frame = pd.DataFrame({"present": [True] * 14 + [False] * 6, "case": [1] * 10 + [0] * 10})
    got = estimates.firth_odds_ratio(frame, "present", "case")
    assert got["estimate"] == pytest.approx((10.5 * 6.5) / (0.5 * 4.5), rel=1e-3)
    assert 1 < got["ci_low"] < got["estimate"] < got["ci_high"] < np.inf


def test_firth_interval_and_p_value_are_of_the_same_test():
    rng = np.random.default_rng(4)
    case, age = np.arange(60) < 30, rng.normal(40, 10, 60)
    frame = pd.DataFrame({"present": rng.random(60) < 0.3 + 0.25 * case, "case": case, "age": age})
    p = estimates.firth_odds_ratio(frame, "present", "case", ["age"])["p_value"]
    at_p = estimates.firth_odds_ratio(frame, "present", "case", ["age"], alpha=p)
    assert at_p["ci_low"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("resamples", [10, 99, 100, 999, 1000])
def test_a_percentile_interval_excludes_zero_exactly_where_its_p_value_is_below_alpha(alpha, resamples):
    rng = np.random.default_rng(resamples)
    for shift in np.linspace(-3, 3, 61):
        low, high, p = estimates.percentile_test(rng.normal(shift, 1, resamples), alpha)
        assert (low > 0 or high < 0) == (p < alpha)
        assert 2 / (resamples + 1) <= p <= 1


def test_percentile_test_by_hand():
    drawn = np.array([*range(-2, 0), *range(1, 38)], float)  # 39 resamples, two of them below zero
    assert estimates.percentile_test(drawn, 0.2) == (1, 35, pytest.approx(2 * 3 / 40))
    assert estimates.percentile_test(drawn, 0.15)[0] == -1
    assert estimates.percentile_test(np.zeros(39), 0.05)[2] == 1


def test_equivalence_agrees_with_statsmodels():
    change = np.random.default_rng(5).normal(0.1, 1, 40)
    got = estimates.equivalence(estimates.mean_change(pd.Series(change)), 0.5)
    expected = ttost_paired(change, np.zeros(40), -0.5, 0.5)[0]
    assert got["p_equivalence"] == pytest.approx(expected, rel=1e-10)


def test_minimum_detectable_effect_is_found_with_80_percent_power():
    change = pd.Series(np.random.default_rng(6).normal(0, 2, 27))
    estimate = estimates.mean_change(change)
    effect = estimates.minimum_detectable_effect(estimate, alpha=0.05, power=0.8)
    rng = np.random.default_rng(7)
    draws = rng.normal(effect, change.std(), (20_000, 27))
    power = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.01)


def test_cliffs_delta_by_hand():
    # 5 pairs above, 2 below, 2 tied of 9
    assert estimates.cliffs_delta(pd.Series([1, 3, 5]), pd.Series([1, 2, 3])) == pytest.approx((5 - 2) / 9)


def test_patients_are_averaged_within_a_visit_and_paired_over_visits():
    obs = pd.DataFrame(
        {
            "subject": ["a", "a", "a", "b", "b", "c"],
            "visit": ["baseline", "baseline", "followup", "baseline", "followup", "baseline"],
            "group": "case",
            "arm": None,
            "site": list("xyxxxx"),
        }
    )
    measures = pd.DataFrame({"y": [1.0, 3.0, 5.0, 2.0, np.nan, 7.0]})
    visits = visits_of.by_patient(obs, measures)
    assert visits.set_index(["subject", "visit"])["y"].dropna().to_dict() == {
        ("a", "baseline"): 2,
        ("a", "followup"): 5,
        ("b", "baseline"): 2,
        ("c", "baseline"): 7,
    }
    pairs = visits_of.paired(visits, "y")
    assert pairs.dropna(subset="change")[["subject", "y0", "y1", "change"]].to_numpy().tolist() == [["a", 2, 5, 3]]
    # Who was lost is there, to be counted.
    assert pairs.loc[pairs["change"].isna(), "subject"].tolist() == ["b", "c"]
    assert estimates.mean_change(pairs["change"])["n_dropped"] == 2


def test_sites_lesional_at_baseline_are_followed_after_they_heal():
    obs = pd.DataFrame(
        {
            "subject": ["a", "a", "a", "a", "c"],
            "visit": ["baseline", "baseline", "followup", "followup", "baseline"],
            "group": ["case"] * 4 + ["control"],
            "site": ["elbow", "knee", "elbow", "knee", "elbow"],
            "lesional": pd.array([True, False, False, True, None], dtype="boolean"),
            "control_type": "sample",
        }
    )
    assert visits_of.analysis_swabs(obs, "lesional_at_baseline").tolist() == [True, False, True, False, True]
    assert visits_of.analysis_swabs(obs, "all").all()


def test_ols_helper_is_used_with_t_not_normal_quantiles(patients):
    got = estimates.linear_contrast(patients, "y", "case")
    model = sm.OLS(patients["y"], sm.add_constant(patients[["case"]].astype(float))).fit()
    assert got["df"] == model.df_resid
    assert got["p_value"] == pytest.approx(2 * stats.t.sf(abs(got["estimate"] / got["se"]), got["df"]), rel=1e-9)


def test_linear_contrast_agrees_with_r(models_oracle):
    r, visits, _ = models_oracle
    baseline = visits[visits["visit"].eq("baseline")]
    got = estimates.linear_contrast(baseline, "shannon", "case", ["age", "sex"])
    at = r["group"]["term"].index("groupcase")
    assert (got["estimate"], got["se"]) == pytest.approx((r["group"]["estimate"][at], r["group"]["se"][at]), abs=1e-8)


def test_a_level_that_nobody_has_does_not_take_the_place_of_the_first():
    sex = pd.Categorical(["f", "m", "f", "m"], ["banana", "f", "m"])
    assert estimates.as_numbers(pd.DataFrame({"sex": sex, "one": 1.0})).columns.tolist() == ["sex_m"]


def test_the_cautious_error_is_the_larger_of_the_two():
    rng = np.random.default_rng(1)
    few = pd.DataFrame({"case": [True] * 15 + [False] * 200, "y": [0.01 * i for i in range(15)] + [0.0] * 200})
    few.loc[15:, "y"] = rng.normal(0, 2, 200)  # the small group hardly varies, the large one does
    robust, cautious = (estimates.linear_contrast(few, "y", "case", cautious=c) for c in (False, True))
    pooled = stats.ttest_ind(few["y"][:15], few["y"][15:])
    assert cautious["p_value"] == pytest.approx(pooled.pvalue)
    assert cautious["se"] > 2 * robust["se"]
    swapped = few.assign(case=~few["case"])  # its estimate is as far on the other side of zero
    assert estimates.linear_contrast(swapped, "y", "case", cautious=True)["se"] == pytest.approx(cautious["se"])
    wide = few.assign(y=few["y"].where(~few["case"], rng.normal(0, 9, 215)))
    assert estimates.linear_contrast(wide, "y", "case", cautious=True) == estimates.linear_contrast(wide, "y", "case")
