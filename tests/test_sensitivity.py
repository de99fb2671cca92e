import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ORACLE
from scipy import stats

from helpers import sensitivity
from helpers.estimates import ESTIMATE, mean_change
from helpers.treatment import ancova

R = json.loads((ORACLE / "sensitivity.json").read_text())
RESAMPLING: dict[str, Any] = {"bootstraps": 499, "seed": 1}


def change(pairs: pd.DataFrame) -> dict[str, float]:
    return mean_change(pairs["change"])


# ---------------------------------------------------------------- an unmeasured cause


def test_the_robustness_values_are_those_of_the_paper_and_of_a_search():
    # Cinelli & Hazlett 2020, section 5: violence in Darfur.
    assert sensitivity.robustness_value(4.18, 783) == pytest.approx(0.139, abs=0.0005)
    assert sensitivity.robustness_value(-4.18, 783, alpha=0.05) == pytest.approx(0.076, abs=0.0005)
    for row in R["robustness"]:
        got = sensitivity.robustness_value(row["t"], row["df"], alpha=row["alpha"])
        assert got == pytest.approx(row["value"], abs=1e-6), row
    assert sensitivity.robustness_value(1.9, 40, alpha=0.05) == 0


def test_the_strength_of_covariates_agrees_with_nested_models_in_r(models_oracle):
    pairs = models_oracle[2].rename(columns={"y1": "S. aureus"}).assign(one=1.0)
    got, *_ = sensitivity.strength_of(pairs, "S. aureus", "treated", ["y0", "age", "one", "sex", "batch"])
    assert got["covariate"].tolist() == list(R["strength"])
    for row in got.itertuples():
        expected = R["strength"][row.covariate]
        assert (row.outcome, row.term) == pytest.approx((expected["outcome"], expected["term"]), abs=1e-9)
    for cannot in (pairs.assign(treated=True), pairs.head(7)):
        assert sensitivity.strength_of(cannot, "S. aureus", "treated", ["y0", "age", "sex", "batch"])[0].empty


def test_a_covariate_bounds_what_its_unmeasured_twin_removes():
    # Four columns that are exactly uncorrelated; the twin does in all what the measured one does.
    columns = np.random.default_rng(1).normal(size=(80, 4))
    measured, twin, e, u = np.linalg.qr(columns - columns.mean(axis=0))[0].T
    term = 0.5 * (measured + twin) + e
    data = pd.DataFrame({"measured": measured, "term": term, "y": 2 * term + 0.7 * (measured + twin) + 3 * u})
    seen = np.linalg.lstsq(data[["term", "measured"]].to_numpy(), data["y"].to_numpy())[0][0]
    got, *_ = sensitivity.strength_of(data, "y", "term", ["measured"])
    assert got.loc[0, "removes"] == pytest.approx((seen - 2) / seen, rel=1e-6)


# ---------------------------------------------------------------- patients who were lost


def test_who_was_lost_by_hand():
    pairs = pd.DataFrame(
        {
            "y0": [1.0, 2, 3, 4, 5, np.nan],
            "y1": [np.nan, np.nan, 1, 1, 1, 1],
            "age": [20.0, 40, 30, np.nan, 50, 90],
            "sex": pd.Categorical(["f", "m", "m", "m", "m", "f"]),
        }
    )
    got = sensitivity.who_was_lost(pairs, ["age", "sex"]).set_index("covariate")
    # Two lost (20, 40) beside two of known age who stayed (30, 50): both variances are 200.
    assert got.loc["age"].tolist() == pytest.approx([2, 30, np.sqrt(200), 2, 40, np.sqrt(200), -10 / np.sqrt(200)])
    # One of two, and all of three, are men; the variances are 1/2 and 0.
    assert got.loc["sex: m"].tolist() == pytest.approx([2, 0.5, np.nan, 3, 1, np.nan, -1], nan_ok=True)


def test_at_the_tipping_point_the_interval_touches_zero():
    rng = np.random.default_rng(2)
    stayed, lost = pd.Series(rng.normal(1, 1, 40)), 10
    estimate = mean_change(stayed)
    delta = sensitivity.tipping_point(estimate, lost, 50)
    assert delta < 0
    everybody = (40 * estimate["estimate"] + lost * (estimate["estimate"] + delta)) / 50
    assert everybody == pytest.approx(estimate["estimate"] - estimate["ci_low"])
    assert sensitivity.tipping_point(mean_change(-stayed), lost, 50) == pytest.approx(-delta)
    assert np.isnan(sensitivity.tipping_point(estimate, 0, 40))
    assert np.isnan(sensitivity.tipping_point(mean_change(stayed - stayed.mean()), lost, 50))


def test_rubins_rules_agree_with_mice():
    estimates, errors = np.array([1.2, 0.8, 1.5, 1.1]), np.array([0.3, 0.35, 0.28, 0.4])
    for df, of in ((20, "finite"), (np.inf, "infinite")):
        mean, se, pooled = sensitivity.rubin(estimates, errors, df)
        expected = R["rubin"][of]
        assert (mean, se**2, pooled) == pytest.approx((expected["qbar"], expected["t"], expected["df"]), rel=1e-9)


def test_imputing_both_visits_agrees_with_mice(models_oracle):
    pairs = models_oracle[2]
    pairs = pairs.assign(y1=pairs["y1"].mask(pairs.index.isin([1, 6, 10, 15])))
    pairs["y0"] = pairs["y0"].mask(pairs.index.isin([4, 13]))

    def plain(data: pd.DataFrame) -> dict[str, float]:
        x = np.column_stack([np.ones(len(data)), data[["treated", "y0", "age"]].astype(float)])
        inverse = np.linalg.inv(x.T @ x)
        beta = inverse @ x.T @ data["y1"]
        df = len(x) - x.shape[1]
        se = np.sqrt(((data["y1"] - x @ beta) ** 2).sum() / df * inverse[1, 1])
        return dict.fromkeys(ESTIMATE, np.nan) | {"estimate": beta[1], "se": se, "df": df, "n": len(x), "n_dropped": 0}

    got = sensitivity.imputed(pairs, plain, ["treated", "age"], imputations=1000, seed=1)
    assert (got["n"], got["n_dropped"]) == (20, 0)
    # Either mean of 1,000 imputations has a Monte-Carlo error of 0.005.
    assert got["estimate"] == pytest.approx(R["mice"]["estimate"], abs=0.02)
    assert (got["se"], got["df"]) == pytest.approx((R["mice"]["se"], R["mice"]["df"]), rel=0.06)


def test_with_nothing_missing_the_imputed_estimate_is_that_of_the_complete_patients(models_oracle):
    pairs = models_oracle[2]
    assert sensitivity.imputed(pairs, ancova, ["treated", "sex"], seed=1) == ancova(pairs)
    neither = pairs.assign(y0=pairs["y0"].mask(pairs.index < 2), y1=pairs["y1"].mask(pairs.index < 2))
    assert sensitivity.imputed(neither, ancova, ["treated"], seed=1)["n_dropped"] == 2
    neither["y1"] = neither["y1"].mask(pairs.index == 5)
    of_one_arm = sensitivity.imputed(neither, lambda p: change(p[p["treated"]]), ["treated"], imputations=3, seed=1)
    assert (of_one_arm["n"], of_one_arm["n_dropped"]) == (neither["treated"].iloc[2:].sum(), 2)
    few = pairs.assign(y1=pairs["y1"].where(pairs.index < 5))
    assert np.isnan(sensitivity.imputed(few, change, ["treated", "age"], seed=1)["estimate"])


def test_visits_that_are_imputed_from_each_other_keep_what_links_them():
    rng = np.random.default_rng(5)
    y0 = rng.normal(size=4000)
    pairs = pd.DataFrame({"y0": y0, "y1": 0.9 * y0 + np.sqrt(0.19) * rng.normal(size=4000)})
    pairs = pairs.assign(y0=y0 * np.where(pairs.index < 1200, np.nan, 1), y1=pairs["y1"].mask(pairs.index >= 2800))

    def correlation(data: pd.DataFrame) -> dict[str, float]:
        return dict.fromkeys(ESTIMATE, np.nan) | {
            "estimate": data["y0"].corr(data["y1"]),
            "se": 1.0,
            "n": len(data),
            "n_dropped": 0,
        }

    assert sensitivity.imputed(pairs, correlation, imputations=4, seed=1)["estimate"] == pytest.approx(0.9, abs=0.02)


def test_imputing_mends_a_change_that_loss_by_baseline_has_biased():
    inside, biases = 0, []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        y0 = rng.normal(size=80)
        y1 = 0.5 * y0 + rng.normal(0, 0.7, 80) - 0.3  # a change of -0.3 on average, of more in the worst
        lost = rng.random(80) < stats.norm.cdf(1.5 * y0 - 0.5)  # and the worst are lost
        pairs = pd.DataFrame({"y0": y0, "y1": np.where(lost, np.nan, y1)}).assign(change=lambda p: p["y1"] - p["y0"])
        got = sensitivity.imputed(pairs, change, imputations=8, seed=seed)
        inside += got["ci_low"] < -0.3 < got["ci_high"]
        biases.append([change(pairs)["estimate"] + 0.3, got["estimate"] + 0.3])
    (complete, mended), error = np.mean(biases, axis=0), stats.sem(biases, axis=0)
    assert complete > 0.15
    assert abs(mended) < 3 * error[1]
    assert stats.binom.ppf(0.001, 120, 0.95) <= inside <= stats.binom.ppf(0.999, 120, 0.95)


# ---------------------------------------------------------------- regression to the mean


def two_visits(rng: np.random.Generator, n: int, cutoff: float, reliability: float = 0.5) -> pd.DataFrame:
    """Steady people, more of the measure being worse, of whom only those beyond the cut-off at the first visit come."""
    usual = rng.normal(0, np.sqrt(reliability), 60 * n)
    y0, y1 = usual + rng.normal(0, np.sqrt(1 - reliability), (2, 60 * n))
    enrolled = np.flatnonzero(y0 > cutoff)[:n]
    return pd.DataFrame({"y0": y0[enrolled], "y1": y1[enrolled]}).assign(change=lambda p: p["y1"] - p["y0"])


def test_an_inert_drug_does_nothing_beyond_regression():
    # Those beyond a cut-off: how far above the mean of all, in their own standard deviations.
    beyond_cutoff = stats.truncnorm(stats.norm.isf(0.2), np.inf)
    elevation = beyond_cutoff.mean() / beyond_cutoff.std()
    naive, beyond, left = 0, 0, []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        patients, controls = two_visits(rng, 60, stats.norm.isf(0.2)), two_visits(rng, 150, -np.inf)
        naive += change(patients)["p_value"] < 0.05
        got = sensitivity.beyond_regression(patients, controls, -1, elevation=elevation, **RESAMPLING)
        beyond += got["p_value"] < 0.05
        left.append(got["estimate"])
    assert naive > 190
    assert beyond <= stats.binom.ppf(0.999, 200, 0.05)
    assert max(left) == 0 > np.mean(left) > -0.1


def test_what_regresses_is_that_of_a_cut_off():
    # Barnett et al. 2005: sigma_w² / sigma C(z), here 0.5 C(z). The drug's own effect is so large that nothing is cut.
    beyond_cutoff = stats.truncnorm(stats.norm.isf(0.2), np.inf)
    elevation, subtracted = beyond_cutoff.mean() / beyond_cutoff.std(), []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        patients, controls = two_visits(rng, 60, stats.norm.isf(0.2)), two_visits(rng, 150, -np.inf)
        treated = patients.assign(y1=patients["y1"] - 5)
        got = sensitivity.beyond_regression(treated, controls, -1, elevation=elevation, **RESAMPLING)
        subtracted.append((treated["y1"] - treated["y0"]).mean() - got["estimate"])
    assert np.mean(subtracted) == pytest.approx(-0.5 * beyond_cutoff.mean(), rel=0.05)


def test_regression_is_subtracted_as_by_hand():
    rng = np.random.default_rng(3)
    patients = pd.DataFrame({"y0": rng.normal(0, 2, 30)}).assign(y1=lambda p: p["y0"] + 3 + rng.normal(size=30))
    controls = two_visits(rng, 50, -np.inf)
    got = sensitivity.beyond_regression(patients.reindex(range(32)), controls, 1, elevation=0.7, **RESAMPLING)
    unit = (1 - np.corrcoef(controls["y0"], controls["y1"])[0, 1]) * patients["y0"].std()
    mean = (patients["y1"] - patients["y0"]).mean()
    assert (got["n"], got["n_dropped"]) == (30, 2)
    assert got["estimate"] == pytest.approx(mean - 0.7 * unit)
    mirrored = sensitivity.beyond_regression(-patients, controls, -1, elevation=0.7, **RESAMPLING)
    assert mirrored["estimate"] == pytest.approx(-got["estimate"])  # towards health, whichever way that is
    assert (mirrored["ci_low"], mirrored["ci_high"]) == pytest.approx((-got["ci_high"], -got["ci_low"]))
    worse = sensitivity.beyond_regression(patients, controls, -1, **RESAMPLING)
    assert (worse["estimate"], worse["p_value"]) == (0, 1)  # they went the other way: nothing is left to explain
    assert np.isnan(sensitivity.beyond_regression(patients, controls.head(4), 1, **RESAMPLING)["estimate"])


def test_of_a_measure_that_follows_severity_only_so_much_regresses():
    # Severity falls back by half an SD; the skin follows it with r = 0.5, as steadily.
    rng = np.random.default_rng(1)
    own, days = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 2))
    severity = (own + days) / np.sqrt(2)
    skin = 0.5 * severity + np.sqrt(0.75) * (rng.normal(size=(4000, 1)) + rng.normal(size=(4000, 2))) / np.sqrt(2)
    ill = severity[:, 0] > stats.norm.isf(0.5)
    people = pd.DataFrame({"y0": skin[:, 0], "y1": skin[:, 1], "easi": severity[:, 0]})
    fallen = (people["y1"] - people["y0"])[ill].mean()
    everybody = people.assign(y0=people["y0"] - people["y0"].mean())
    elevation = severity[ill, 0].mean()
    everybody = everybody.assign(y1=everybody["y1"] - 3)  # and a drug's effect, so that nothing is cut at zero
    got = sensitivity.beyond_regression(everybody, people, -1, "easi", elevation=elevation, **RESAMPLING)
    subtracted = (everybody["y1"] - everybody["y0"]).mean() - got["estimate"]
    assert subtracted == pytest.approx(fallen, abs=0.03)


# ---------------------------------------------------------------- the load


def test_at_the_load_that_overturns_the_taxon_itself_stayed_as_it_was():
    # 100 cells of the taxon, 100 and 400 of two others, which fall to a quarter.
    before, after = np.array([100.0, 100, 400]), np.array([100.0, 25, 100])
    clr = [np.log(x) - np.log(x).mean() for x in (before, after)]
    rise = clr[1][0] - clr[0][0]
    factor = sensitivity.load_to_overturn({"ci_low": rise, "ci_high": rise + 1})
    assert factor == pytest.approx(stats.gmean(after) / stats.gmean(before)) == pytest.approx(4 ** (-2 / 3))
    # What the sequences tell of the typical taxon's share gives the total load, which fell from 600 to 225.
    typical = np.diff([np.log(x / x.sum()).mean() for x in (before, after)])[0]
    assert factor / np.exp(typical) == pytest.approx(225 / 600)
    assert sensitivity.load_to_overturn({"ci_low": -2.0, "ci_high": -np.log(3)}) == pytest.approx(3)
    assert np.isnan(sensitivity.load_to_overturn({"ci_low": -1.0, "ci_high": 1.0}))
