import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from firthmodels import FirthLogisticRegression
from scipy import stats

from helpers import treatment

R = json.loads(Path("tests/oracle/inference.json").read_text())


def trial(seed: int, n: int = 400, effect: float = 1.0) -> pd.DataFrame:
    """Sicker patients are treated more often and change less: the crude contrast is biased."""
    rng = np.random.default_rng(seed)
    severity = rng.normal(size=n)
    treated = rng.random(n) < 1 / (1 + np.exp(-1.2 * severity))
    y0 = severity + rng.normal(size=n)
    y1 = y0 + effect * treated - 0.8 * severity + rng.normal(0, 0.5, n)
    frame = pd.DataFrame(
        {"severity": severity, "sex": rng.choice(["f", "m"], n), "treated": treated, "y0": y0, "y1": y1}
    )
    return frame.assign(change=frame["y1"] - frame["y0"])


def test_adjusted_contrasts_recover_an_effect_that_the_crude_one_misses():
    pairs = trial(1)
    crude = pairs.groupby("treated")["change"].mean().diff().iloc[1]
    assert crude < 0.6
    table = treatment.arm_contrasts(pairs, ["severity", "sex"], bootstraps=500, seed=1)
    for name, row in table.iterrows():
        assert row["estimate"] == pytest.approx(1, abs=0.2), name
        assert row["ci_low"] < 1 < row["ci_high"]
        # The bootstrap knows nothing of the model's formula for the error.
        assert row["boot_high"] - row["boot_low"] == pytest.approx(row["ci_high"] - row["ci_low"], rel=0.15)


def test_ancova_change_score_and_mediation_agree_with_r(models_oracle):
    r, _, pairs = models_oracle
    contrasts = treatment.arm_contrasts(pairs, ["age", "sex"], bootstraps=100, seed=1)
    for estimator, expected in (("ANCOVA", r["ancova"]), ("change score", r["change"])):
        got = contrasts.loc[estimator]
        at = expected["term"].index("treated")
        assert (got["estimate"], got["se"]) == pytest.approx((expected["estimate"][at], expected["se"][at]), abs=1e-8)
    effects = treatment.mediation(pairs, "improvement", ["age"], bootstraps=100, seed=1)
    coefficient = {
        name: dict(zip(r[name]["term"], r[name]["estimate"], strict=True))
        for name in ("total", "direct", "on_mediator")
    }
    product = coefficient["on_mediator"]["treated"] * coefficient["direct"]["improvement"]
    assert effects.loc["total", "estimate"] == pytest.approx(coefficient["total"]["treated"], abs=1e-8)
    assert effects.loc["direct", "estimate"] == pytest.approx(coefficient["direct"]["treated"], abs=1e-8)
    assert effects.loc["indirect", "estimate"] == pytest.approx(product, abs=1e-8)
    links = effects.loc[["arm to mediator", "mediator to outcome"], "estimate"]
    assert list(links) == pytest.approx(
        [coefficient["on_mediator"]["treated"], coefficient["direct"]["improvement"]], abs=1e-8
    )
    assert effects.loc["direct", "se"] == pytest.approx(
        r["direct"]["se"][r["direct"]["term"].index("treated")], abs=1e-8
    )


def test_each_resample_is_fitted_as_the_libraries_fit_it():
    pairs = trial(5, n=60)
    treated = pairs["treated"].to_numpy()
    counts = treatment._resamples(treated, 3, seed=2)
    assert (counts[:, treated].sum(axis=1) == treated.sum()).all()
    x = treatment._design(pairs, ["severity", "sex"])
    logit = treatment._firth(x, treated.astype(float), counts)
    line = treatment._least_squares(x, pairs["change"].to_numpy(), counts)
    for i, drawn in enumerate(counts.astype(int)):
        rows = np.repeat(np.arange(len(pairs)), drawn)
        theirs = FirthLogisticRegression(backend="numpy", gtol=1e-10, xtol=1e-10).fit(
            x[rows, 1:], treated[rows].astype(int)
        )
        assert logit[i] == pytest.approx([theirs.intercept_, *theirs.coef_], abs=1e-6)
        assert line[i] == pytest.approx(np.linalg.lstsq(x[rows], pairs["change"].to_numpy()[rows])[0], abs=1e-8)


def test_firth_stays_finite_where_a_covariate_tells_the_arms_apart():
    separated = pd.DataFrame({"treated": [True] * 6 + [False] * 6, "x": [*range(6, 12), *range(6)]}).astype(
        {"x": float}
    )
    weights = treatment.overlap_weights(separated, ["x"])
    # The nearest to the other arm count most: 6 of the treated, 5 of the others.
    assert separated.loc[[weights[:6].idxmax(), weights[6:].idxmax()], "x"].tolist() == [6, 5]
    assert (weights > 0).all()


def linear_system(seed: int, n: int = 300, rho: float = 0.0) -> pd.DataFrame:
    """The arm moves the mediator by 2, the mediator the outcome by 0.5, the arm itself by 1."""
    rng = np.random.default_rng(seed)
    treated = rng.random(n) < 0.7
    y0 = rng.normal(size=n)
    errors = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    mediator = 2 * treated + 0.3 * y0 + errors[:, 0]
    y1 = 1.0 * treated + 0.5 * mediator + 0.6 * y0 + errors[:, 1]
    return pd.DataFrame({"treated": treated, "mediator": mediator, "y0": y0, "y1": y1})


@pytest.mark.slow
def test_mediation_covers_a_known_truth():
    truth = {"total": 2.0, "direct": 1.0, "indirect": 1.0, "interaction": 0.0}
    held = dict.fromkeys([*truth, "boot direct", "boot indirect"], 0)
    for seed in range(150):
        effects = treatment.mediation(linear_system(seed, n=120), "mediator", bootstraps=200, seed=seed)
        for name, value in truth.items():
            held[name] += effects.loc[name, "ci_low"] < value < effects.loc[name, "ci_high"]
        for name in ("direct", "indirect"):
            held[f"boot {name}"] += effects.loc[name, "boot_low"] < truth[name] < effects.loc[name, "boot_high"]
    assert min(held.values()) >= stats.binom.ppf(0.001, 150, 0.95), held


def of(estimate: float, se: float, df: float = np.inf) -> dict[str, float]:
    return {"estimate": estimate, "se": se, "df": df}


@pytest.mark.parametrize("case", R["product"], ids=lambda c: f"df {c['a']['df']}")
def test_the_interval_of_a_product_agrees_with_r(case):
    got = treatment.product_interval(case["a"], case["b"], alpha=case["alpha"])
    assert got == pytest.approx((case["low"], case["high"], case["p"]), rel=1e-5)
    swapped = treatment.product_interval(case["b"], case["a"], alpha=case["alpha"])
    assert swapped == pytest.approx(got, abs=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "limits"),
    [
        # RMediation 1.5.0, vignette "Comparing methods": medci(type = "dop"), of normal variables.
        (of(0.5, 0.08), of(0.6, 0.04), (0.201, 0.405)),
        (of(0.3, 0.10), of(0.4, 0.05), (0.040, 0.209)),
        (of(0.1, 0.05), of(0.2, 0.03), (0.000, 0.042)),
    ],
)
def test_with_many_patients_the_interval_of_a_product_is_that_of_normal_variables(a, b, limits):
    assert treatment.product_interval(a, b)[:2] == pytest.approx(limits, abs=5e-4)
    normal = np.random.default_rng(1).normal([[a["estimate"]], [b["estimate"]]], [[a["se"]], [b["se"]]], (2, 1_000_000))
    drawn = normal.prod(axis=0)
    low, high, p = treatment.product_interval(a | {"df": 1e7}, b | {"df": 1e7}, alpha=0.1)
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])), abs=5e-4)
    assert p == pytest.approx(2 * (drawn < 0).mean(), abs=1e-3)


def test_the_interval_of_a_product_excludes_zero_exactly_where_p_is_below_alpha():
    for estimate in np.linspace(-4, 4, 41):
        low, high, p = treatment.product_interval(of(estimate, 1, 20), of(2.5, 1, 19), alpha=0.1)
        assert (low > 0 or high < 0) == (p < 0.1)
    p = treatment.product_interval(of(3, 1, 20), of(2.5, 1, 19))[2]
    assert treatment.product_interval(of(3, 1, 20), of(2.5, 1, 19), alpha=p)[0] == pytest.approx(0, abs=1e-4)
    assert np.isnan(treatment.product_interval(of(1, 0, 20), of(1, 1, 20))).all()


def test_the_indirect_effect_is_tested_as_the_product_of_its_links():
    effects = treatment.mediation(linear_system(2, n=60), "mediator", bootstraps=50, seed=1, alpha=0.1)
    indirect = effects.loc["indirect"]
    links = [effects.loc[name].to_dict() for name in ("arm to mediator", "mediator to outcome")]
    assert tuple(indirect[["ci_low", "ci_high", "p_value"]]) == treatment.product_interval(*links, alpha=0.1)
    rng = np.random.default_rng(1)
    drawn = np.prod([rng.normal(link["estimate"], link["se"], 1_000_000) for link in links], axis=0)
    assert indirect["se"] == pytest.approx(drawn.std(), rel=0.005)


def test_the_direct_effect_is_recovered_from_a_mediator_that_is_measured_with_error():
    pairs = linear_system(4, n=20_000)
    noisy = pairs.assign(mediator=lambda p: p["mediator"] + np.random.default_rng(6).normal(0, 1, len(p)))
    reliability = pairs["mediator"].var() / noisy["mediator"].var()
    table = treatment.direct_given_reliability(noisy, "mediator", [], [1, reliability, 0.3], bootstraps=100, seed=1)
    naive = treatment.mediation(noisy, "mediator", bootstraps=100, seed=1)
    assert table.loc[0, ["direct", "direct_low", "direct_high"]].tolist() == pytest.approx(
        naive.loc["direct", ["estimate", "boot_low", "boot_high"]].tolist()
    )
    assert naive.loc["direct", "estimate"] > 1.4  # half of the indirect effect is left in it
    assert table.loc[1, ["direct", "indirect"]].tolist() == pytest.approx([1, 1], abs=0.1)
    assert table.loc[1, "direct_low"] < 1 < table.loc[1, "direct_high"]
    assert table.loc[2, ["direct", "direct_low", "p_value"]].isna().all()  # more error than there is variance


def test_the_share_of_the_mediator_that_is_corrected_is_what_adjusted_r_squared_leaves():
    pairs = linear_system(6, n=30)
    fit = treatment._mediation_draws(pairs, "mediator", [], 3, 1)
    assert fit is not None
    own_share = fit[1]["own"]
    for own, counts in zip(own_share, treatment._resamples(pairs["treated"].to_numpy(), 3, 1), strict=True):
        resample = pairs.loc[np.repeat(pairs.index, counts.astype(int))]
        assert own == pytest.approx(1 - smf.ols("mediator ~ treated + y0", resample).fit().rsquared_adj)
    table = treatment.direct_given_reliability(pairs, "mediator", [], [1, 0.9], bootstraps=9, seed=1)
    naive, corrected = table["indirect"]
    assert corrected / naive == pytest.approx(own_share[0] / (own_share[0] - 0.1))
    assert table["direct"].diff()[1] == pytest.approx(naive - corrected)


def test_a_correction_near_all_of_the_variance_has_no_limits_but_a_p_value_of_the_same_test():
    decided = set()
    for seed in range(30):
        pairs = linear_system(seed, n=40)
        table = treatment.direct_given_reliability(pairs, "mediator", [], [1, 0.7, 0.55], bootstraps=100, seed=seed)
        for row in table.dropna().itertuples():
            excludes = row.direct_low > 0 or row.direct_high < 0
            assert excludes == (row.p_value < 0.05)
            decided.add((excludes, np.isinf(row.direct_low)))
    assert decided == {(True, False), (False, False), (False, True)}


def test_bootstrap_intervals_and_p_values_are_of_the_same_test():
    decided = set()
    for seed in range(40):
        pairs = linear_system(seed, n=40).assign(
            change=lambda p: p["y1"] - p["y0"], mediator=lambda p: p["mediator"] / 3
        )
        rows = (
            treatment.mediation(pairs, "mediator", bootstraps=100, seed=seed).loc["indirect"],
            treatment.arm_contrasts(pairs, ["mediator"], bootstraps=100, seed=seed).loc["overlap weights"],
        )
        for name, row in zip(("indirect", "overlap"), rows, strict=True):
            excludes = row["ci_low"] > 0 or row["ci_high"] < 0
            assert excludes == (row["p_value"] < 0.05), (seed, name)
            decided.add((name, excludes))
    assert len(decided) == 4


def test_the_correlation_that_leaves_no_direct_effect_is_the_true_one_where_there_is_none():
    pairs = linear_system(1, n=20_000, rho=0.4)
    pairs = pairs.assign(y1=lambda p: p["y1"] - p["treated"])  # the true direct effect is 1 in `linear_system`
    seen = treatment.mediation(pairs, "mediator", bootstraps=10, seed=1).loc["direct", "estimate"]
    assert abs(seen) > 0.5  # the correlation that is not seen biases it
    assert treatment.rho_of_no_direct_effect(pairs, "mediator") == pytest.approx(0.4, abs=0.03)


def test_arms_that_cannot_be_compared_are_not_estimated():
    pairs = linear_system(3, n=40)
    one_arm = pairs.assign(treated=True, change=pairs["y1"] - pairs["y0"])
    assert treatment.arm_contrasts(one_arm, bootstraps=10, seed=1)["estimate"].isna().all()
    assert treatment.mediation(one_arm, "mediator", bootstraps=10, seed=1)["estimate"].isna().all()
    assert np.isnan(treatment.rho_of_no_direct_effect(one_arm, "mediator"))
    assert treatment.direct_given_reliability(one_arm, "mediator", bootstraps=10, seed=1).empty
    flat = pairs.assign(mediator=1.0)
    assert treatment.mediation(flat, "mediator", bootstraps=10, seed=1)["estimate"].isna().all()
    with pytest.raises(ValueError, match="one arm only"):
        treatment.overlap_weights(one_arm, ["y0"])
    with pytest.raises(ValueError, match="y0 is missing in 1 patients"):
        treatment.overlap_weights(pairs.assign(y0=pairs["y0"].mask(pairs.index == 0)), ["y0"])


def test_overlap_weights_balance_the_means():
    # Li, Morgan & Zaslavsky (2018), theorem 3: with a logistic propensity the weighted means are equal. Firth's
    # penalty leaves a difference of the order of 1/n.
    pairs = trial(2, n=4000)
    weights = treatment.overlap_weights(pairs, ["severity", "sex"])
    table = treatment.balance(pairs, ["severity", "sex"], weights).set_index("covariate")
    assert abs(table.loc["severity", "unweighted"]) > 0.5
    assert table["weighted"].abs().max() < 0.002
    assert weights.groupby(pairs["treated"]).sum().tolist() == pytest.approx([1, 1])


def test_standardised_difference_by_hand():
    pairs = pd.DataFrame({"treated": [True] * 3 + [False] * 3, "age": [40.0, 50, 60, 30, 40, 50]})
    even = pd.Series(1 / 3, index=pairs.index)
    assert treatment.balance(pairs, ["age"], even)[["unweighted", "weighted"]].to_numpy().tolist() == [[1, 1]]


def test_effective_sample_size():
    assert treatment.effective_sample_size(pd.Series([1.0] * 8)) == pytest.approx(8)
    assert treatment.effective_sample_size(pd.Series([1.0, 0, 0])) == pytest.approx(1)


def test_small_samples_of_an_arm_show_its_change_less_often():
    change = pd.Series(np.random.default_rng(3).normal(0.5, 1, 130))
    table = treatment.subsampled_significance(change, [27, 80, 130, 500], draws=400, seed=1).set_index("n")
    assert list(table.index) == [27, 80, 130]
    assert table.loc[27, "significant"] < table.loc[80, "significant"] <= table.loc[130, "significant"]
    assert table.loc[27, "mc_error"] == pytest.approx(np.sqrt(0.72 * 0.28 / 400), abs=0.005)
    assert table.loc[27, "significant"] == pytest.approx(0.72, abs=0.15)  # power of a t test, d = 0.5, n = 27


def test_missing_covariates_are_counted_and_a_tiny_arm_is_not_estimated():
    pairs = trial(4, n=60)
    pairs.loc[:2, "severity"] = np.nan
    table = treatment.arm_contrasts(pairs, ["severity"], bootstraps=100, seed=1)
    assert table["n_dropped"].tolist() == [3, 3, 3]
    few = pd.concat([pairs[pairs["treated"]], pairs[~pairs["treated"]].head(3)])
    assert treatment.arm_contrasts(few, ["severity"], bootstraps=100, seed=1)["estimate"].isna().all()
