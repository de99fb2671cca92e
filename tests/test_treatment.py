import numpy as np
import pandas as pd
import pytest

from helpers import treatment


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
    for estimate in (
        treatment.ancova(pairs, ["severity"]),
        treatment.change_score(pairs, ["severity"]),
        treatment.overlap_contrast(pairs, ["severity", "sex"], bootstraps=200, seed=1),
    ):
        assert estimate["estimate"] == pytest.approx(1, abs=0.2)
        assert estimate["ci_low"] < 1 < estimate["ci_high"]


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
    assert treatment.overlap_contrast(pairs, ["severity"], bootstraps=100, seed=1)["n_dropped"] == 3
    few = pd.concat([pairs[pairs["treated"]], pairs[~pairs["treated"]].head(3)])
    assert np.isnan(treatment.overlap_contrast(few, ["severity"], bootstraps=100, seed=1)["estimate"])
