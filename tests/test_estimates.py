import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from helpers import estimates
from helpers import visits as visits_of

R = json.loads(Path("tests/oracle/inference.json").read_text())


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


@pytest.mark.parametrize("sign", [1, -1])
def test_a_one_sided_test_of_the_margin_does_not_mind_the_other_direction(sign):
    change = pd.Series(np.random.default_rng(5).normal(0.1, 1, 40))
    got = estimates.equivalence(estimates.mean_change(change), 0.3, sign)
    expected = stats.ttest_1samp(sign * change, 0.3, alternative="less").pvalue
    assert got["p_equivalence"] == pytest.approx(expected, rel=1e-10)
    far = estimates.mean_change(change - sign * 9)
    assert estimates.equivalence(far, 0.3, sign)["p_equivalence"] < 1e-6
    assert estimates.equivalence(far, 0.3)["p_equivalence"] > 0.99


@pytest.mark.parametrize("case", R["reach"], ids=lambda c: f"df {c['df']}, sign {c['sign']}")
def test_the_reach_of_an_equivalence_test_agrees_with_r(case):
    asked = {name: case[name] for name in ("se", "df", "n", "margin", "sign", "alpha", "power")}
    got = estimates.equivalence_reach(**asked)
    assert got["power_equivalence"] == pytest.approx(case["power_equivalence"], abs=1e-5)
    assert got["reachable_margin"] == pytest.approx(case["reachable_margin"], rel=1e-5)
    assert got["n_needed"] == case["n_needed"]


def test_a_margin_is_attainable_where_an_estimate_of_zero_passes():
    zero = {"estimate": 0.0, "se": 0.5, "df": 20.0}
    just = 0.5 * stats.t.isf(0.05, 20)
    for margin in (just * 0.999, just * 1.001):
        passes = estimates.equivalence(zero, margin)["p_equivalence"] < 0.05
        reach = estimates.equivalence_reach(0.5, 20, 22, margin)
        assert reach["attainable"] == passes == (margin > just)
    # Far more patients than needed: nobody is needed beyond those who give the error a degree of freedom.
    assert estimates.equivalence_reach(0.01, 20, 22, 100)["n_needed"] == 3
    for unknown in ((np.nan, 20, 22, 1), (0.5, np.nan, 22, 1), (0.5, 20, 22, np.nan), (0.5, 20, 22, 0)):
        assert np.isnan([*estimates.equivalence_reach(*unknown).values()]).all()


def test_a_margin_that_rests_on_few_carriers_is_known_badly():
    # Carriers among 234 resampled controls are binomial, and the standard deviation rises with their number.
    def margin(carriers):
        return 0.5 * np.sqrt(234 / 233 * carriers / 234 * (1 - carriers / 234))

    few = pd.Series([1.0] * 20 + [0.0] * 214 + [np.nan])
    expected = margin(stats.binom.ppf([0.025, 0.975], 234, 20 / 234))
    got = estimates.margin_interval(few, 0.5, bootstraps=20_000, seed=1)
    assert got == pytest.approx(expected, rel=1e-9)
    assert np.isnan(estimates.margin_interval(few[:1], 0.5, bootstraps=9, seed=1)).all()


@pytest.mark.parametrize("case", R["pooled"], ids=lambda c: f"tau2 {c['tau2']:.2g}")
def test_runs_are_pooled_as_metafor_pools_them(case):
    got = estimates.hartung_knapp(pd.Series(case["effects"]), pd.Series(case["errors"]))
    keys = {"estimate": "estimate", "se": "se", "ci_low": "low", "ci_high": "high", "p_value": "p", "df": "df"}
    assert {k: got[k] for k in keys} == pytest.approx({k: case[r] for k, r in keys.items()}, rel=1e-5)


def of_runs(effects: list[float], size: int = 8) -> pd.DataFrame:
    """Runs of the same scatter, in which the cases differ from the controls by the effects."""
    scatter = np.tile(np.linspace(-1, 1, size), 2)
    case = np.repeat([True, False], size)
    runs = [pd.DataFrame({"run": f"run{i}", "case": case, "y": i + e * case + scatter}) for i, e in enumerate(effects)]
    return pd.concat(runs, ignore_index=True)


def test_with_equal_runs_the_test_over_runs_is_a_t_test_of_their_contrasts():
    effects = [0.1, 0.9, 0.4, 0.7]
    got = estimates.by_run(of_runs(effects), "y", "case", [], "run", alpha=0.1)
    expected = stats.ttest_1samp(effects, 0)
    assert got["p_value"] == pytest.approx(expected.pvalue)
    assert (got["ci_low"], got["ci_high"]) == pytest.approx(tuple(expected.confidence_interval(0.9)))
    assert (got["estimate"], got["n"], got["n_dropped"], got["runs"]) == (pytest.approx(np.mean(effects)), 64, 0, 4)


def test_runs_without_enough_of_both_groups_are_left_out_and_their_people_counted():
    good, few = of_runs([0.1, 0.9, 0.4]), of_runs([50.0], size=4).assign(run="few")
    flat = of_runs([0.0]).assign(run="flat", y=0.0)
    alone = of_runs([0.0]).query("case").assign(run="alone")
    unknown = good[:3].assign(y=np.nan)
    got = estimates.by_run(pd.concat([good, few, flat, alone, unknown]), "y", "case", [], "run")
    assert got == estimates.by_run(good, "y", "case", [], "run") | {"n_dropped": 8 + 16 + 8 + 3}
    two = estimates.by_run(good[good["run"].ne("run0")], "y", "case", [], "run")
    assert np.isnan(two["estimate"])
    assert (two["n"], two["runs"]) == (32, 2)


@pytest.mark.slow
def test_an_interval_over_runs_covers_where_runs_move_one_group():
    rng = np.random.default_rng(8)
    covered = np.zeros(2)
    for _ in range(80):
        data = of_runs(list(rng.normal(1, 0.5, 4)), size=20).assign(age=rng.normal(size=160))
        data["y"] += rng.normal(size=160)
        over_runs = estimates.by_run(data, "y", "case", ["age"], "run")
        ignoring_them = estimates.linear_contrast(data, "y", "case", ["age", "run"])
        covered += [got["ci_low"] < 1 < got["ci_high"] for got in (over_runs, ignoring_them)]
    assert covered[0] >= stats.binom.ppf(0.001, 80, 0.95)
    assert covered[1] < stats.binom.ppf(0.001, 80, 0.95)


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


@pytest.mark.parametrize("method", ["holm", "fdr_bh"])
def test_adjusted_p_values_are_those_of_statsmodels_and_what_was_not_tested_counts_for_nothing(method):
    p = pd.Series([0.04, np.nan, 0.001, 0.04, 0.9, 1, 0, np.nan, 0.02, 0.3], index=list("abcdefghaj"))
    got = estimates.adjusted_p(p, method)
    assert list(got.index) == list(p.index)
    assert got[p.notna()].tolist() == multipletests(p.dropna(), method=method)[1].tolist()
    assert got[p.isna()].isna().all()
    assert estimates.adjusted_p(p * np.nan, method).isna().all()
