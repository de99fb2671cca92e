"""All visits: the mixed model against lme4 and simple cases, and what a study with further visits and arms shows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.estimates import linear_contrast, mean_change
from helpers.longitudinal import mixed_contrast

R = json.loads(Path("tests/oracle/longitudinal.json").read_text())
SWABS = pd.DataFrame(R["data"]).assign(group="case")


@pytest.mark.parametrize(
    ("name", "swabs", "covariates"),
    [
        ("arms", SWABS, ["age"]),
        ("one_site", SWABS[SWABS["site"].eq("elbow")], []),
        ("change", SWABS[SWABS["arm"].eq("treatment")], []),
    ],
)
def test_the_mixed_model_agrees_with_lme4(name: str, swabs: pd.DataFrame, covariates: list[str]) -> None:
    got = mixed_contrast(swabs.sample(frac=1, random_state=1), "y", covariates)
    assert got["estimate"] == pytest.approx(R[name]["estimate"], rel=1e-6)
    assert got["model_se"] == pytest.approx(R[name]["se"], rel=1e-6)
    assert got["se"] >= got["model_se"]


def cohort(seed: int, people: int = 24, visits: tuple[str, ...] = ("baseline", "week 2", "followup")) -> pd.DataFrame:
    """One swab a visit, nobody lost; visits that are close in time resemble each other more; no effect."""
    rng, apart = np.random.default_rng(seed), abs(np.subtract.outer(range(len(visits)), range(len(visits))))
    y = rng.multivariate_normal(np.zeros(len(visits)), 0.6**apart, people)
    each = pd.MultiIndex.from_product([[f"P{i:02d}" for i in range(people)], visits], names=["subject", "visit"])
    swabs = pd.DataFrame({"y": y.ravel()}, index=each).reset_index()
    arm = np.where(swabs["subject"].str[1:].astype(int) % 3, "treatment", "comparator")
    return swabs.assign(arm=arm, group="case", site="elbow", age=np.repeat(rng.normal(40, 9, people), len(visits)))


def test_with_two_visits_and_nobody_lost_the_mixed_model_is_the_change_score_given_the_covariates() -> None:
    swabs = cohort(1, visits=("baseline", "followup"))
    wide = swabs.pivot_table(index=["subject", "arm", "age"], columns="visit", values="y").reset_index()
    pairs = wide.assign(change=wide["followup"] - wide["baseline"], treated=wide["arm"].eq("treatment"))
    score, got = linear_contrast(pairs, "change", "treated", ["age"]), mixed_contrast(swabs, "y", ["age"])
    assert (got["estimate"], got["df"], got["n"]) == (pytest.approx(score["estimate"]), score["df"], 24)
    treated = pairs.loc[pairs["treated"], "change"]
    own = mixed_contrast(swabs[swabs["arm"].eq("treatment")], "y")
    plain = mean_change(treated)
    assert (own["estimate"], own["df"], own["model_se"]) == pytest.approx([plain[k] for k in ("estimate", "df", "se")])


def test_the_mixed_model_uses_those_who_lack_a_visit_and_says_nothing_of_few_people() -> None:
    swabs = cohort(2)
    lost = swabs[~(swabs["subject"].isin(["P00", "P01"]) & swabs["visit"].eq("followup"))]
    assert mixed_contrast(lost, "y")["n"] == 24
    unknown = swabs.assign(y=swabs["y"].mask(swabs["subject"].eq("P00")))
    assert {k: mixed_contrast(unknown, "y")[k] for k in ("n", "n_dropped")} == {"n": 23, "n_dropped": 1}
    alone = swabs.assign(y=swabs["y"].mask(swabs["arm"].eq("comparator")))
    assert np.isnan(mixed_contrast(alone, "y")["estimate"]), "of one arm there is no difference, and its change is none"
    few = lost[~lost["subject"].isin(["P03", "P06", "P09", "P12"])]  # of eight with the comparator, three have both
    assert np.isnan(mixed_contrast(few, "y")["estimate"])


def test_the_mixed_model_holds_its_level_where_visits_close_in_time_are_alike() -> None:
    rejected = sum(mixed_contrast(cohort(seed), "y")["p_value"] < 0.05 for seed in range(100))
    assert rejected <= stats.binom.ppf(0.999, 100, 0.05)
