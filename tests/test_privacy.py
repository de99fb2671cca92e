import attacker
import numpy as np
import pandas as pd
import pytest
from cohorts import changed, small_demo, write

from helpers.disclosure import coarse_p, in_table, in_text
from helpers.estimates import coarse, mean_change
from helpers.evidence import Asked, answers, data_of
from helpers.ingest import build_cohort
from helpers.measures import SHANNON
from helpers.narrate import p_value
from helpers.study import Privacy
from helpers.taxa import presence_by_group
from helpers.treatment import balance, overlap_weights

HIDDEN, SHOWN = Privacy(small_cells="suppress"), Privacy()
LABELS = {"treatment": "drug", "control": "healthy"}


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.0312, "0.03"), (0.00099, "< 0.001"), (0.0049, "0.005"), (0.0497, "< 0.05"), (0.0502, "0.05"), (0.097, "< 0.1"),
     (0.44, "0.4"), (0.96, "> 0.95"), (np.nan, "")],
)  # fmt: skip
def test_a_p_value_has_one_digit_and_stays_on_its_side_of_the_levels(p: float, shown: str) -> None:
    assert coarse_p(p) == shown
    if p > 0.001:
        told = in_text(f"rises (95 % interval 1.2 to 3.4; {p_value(p)}; n = 14)", HIDDEN)
        assert told == f"rises (95 % interval 1.2 to 3.4; p {'' if shown[0] in '<>' else '= '}{shown}; n = 15)"


def test_intervals_are_as_coarse_as_they_are_wide_and_never_reach_zero_by_rounding() -> None:
    table = pd.DataFrame(
        {"estimate": [0.98765, 12.3456, -0.51], "ci_low": [0.00123, 12.1111, -1], "ci_high": [1.97407, 12.5801, -0.02],
         "n_needed": [133, np.nan, 7]}
    )  # fmt: skip
    assert coarse(table).round(6).to_dict("list") == {
        "estimate": [0.99, 12.3, -0.51], "ci_low": [0.0012, 12.1, -1], "ci_high": [1.97, 12.6, -0.02],
        "n_needed": [pytest.approx(200), pytest.approx(np.nan, nan_ok=True), pytest.approx(10)],
    }  # fmt: skip


def test_the_number_of_people_cannot_be_computed_from_a_mean_change() -> None:
    """Of 8 to 62 people, by the error, by p, and by the people who are shown."""
    rng, found = np.random.default_rng(1), {HIDDEN: 0, SHOWN: 0}
    for n in range(8, 63):
        row = mean_change(pd.Series(rng.normal(0.5, 1, n)))
        for privacy in found:
            told = in_table(pd.DataFrame([row | {"estimator": "mean change"}]), privacy).astype(str)
            ways = [attacker.by_error, attacker.by_p]
            read = told.assign(n=HIDDEN.shown(n)).to_dict("records")[0]
            found[privacy] += any(list(way(read)) for way in ways)
    assert found[HIDDEN] == 0
    assert found[SHOWN] > 50


def test_who_gained_or_lost_a_taxon_is_not_told_by_the_exact_p_value() -> None:
    pairs = pd.DataFrame({"who": "treatment", "y0": [1.0] * 6 + [0.0] * 6, "y1": 0.0}).assign(change=0.0)
    told = {p: in_table(presence_by_group(pairs, LABELS, p.fewest), p).astype(str) for p in (SHOWN, HIDDEN)}
    counts = told[HIDDEN].drop(columns="p_value").assign(p_value=told[SHOWN]["p_value"])
    assert list(attacker.by_mcnemar(counts.to_dict("records")[0])) == ["gained and lost by p = 0.03125"]
    assert list(told[HIDDEN]["p_value"]) in ([""], ["nan"])


def test_a_rare_characteristic_is_not_told_by_its_difference() -> None:
    pairs = pd.DataFrame(
        {"treated": [True] * 14 + [False] * 14, "rare": [1, 1, 1, *[0] * 11, *[0] * 13, 1], "age": range(28)}
    )
    weights = overlap_weights(pairs, ["rare"])
    shown = balance(pairs, ["rare", "age"], weights).set_index("covariate")
    smd = f"{shown.loc['rare', 'unweighted']:.10g}"
    assert any("{(3, 1)}" in found for found in attacker.by_difference(smd, "≤7", "≤7", ("15", "15")))
    assert list(balance(pairs, ["rare", "age"], weights, HIDDEN.fewest)["covariate"]) == ["age"]
    often = pairs.assign(rare=[1, 0] * 8 + [0] * 6 + [1] * 6)
    assert len(balance(often, ["rare"], weights, 5)) == 1
    assert balance(often, ["rare"], weights, 5)["unweighted"].mul(10).round(9).mod(1).eq(0).all()


def test_groups_of_a_hidden_number_are_left_out_and_said_in_the_flow(tmp_path) -> None:
    files = small_demo(14, 6, 14)
    cohort, ledger = build_cohort(write(changed(files, privacy={"small_cells": "suppress"}), tmp_path / "hidden"))
    assert set(cohort.obs["arm"].dropna()) == {"treatment"}
    assert "group of no more than 7, which is not shown" in set(ledger["reason"])
    cohort, ledger = build_cohort(write(files, tmp_path / "shown"))
    assert set(cohort.obs["arm"].dropna()) == {"treatment", "comparator"}
    assert "small" not in set(ledger["step"])
    # Where no group is large enough, they stay, and nothing is told of them.
    few = write(changed(small_demo(6, 0, 6), privacy={"small_cells": "suppress"}), tmp_path / "few")
    cohort, _ = build_cohort(few)
    obs = cohort.obs.assign(**{SHANNON: np.arange(cohort.n_obs, dtype=float)})
    found = answers(
        [Asked(SHANNON, "group"), Asked(SHANNON, "change", "treatment")], data_of(obs, [SHANNON]), few, few.settings
    )
    assert len(found) >= 2
    assert found["estimate"].isna().all()
