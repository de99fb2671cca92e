import numpy as np
import pandas as pd
import pytest

from helpers import narrate
from helpers.study import Privacy


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.012345, "0.0123"),
        (-1.2, "−1.20"),
        (36.74, "36.7"),
        (12345.6, "12,346"),
        (0.9999, "1.00"),
        (0, "0"),
        (np.nan, "not estimable"),
        (1.5e-9, "1.50 × 10⁻⁹"),
    ],
)
def test_three_significant_digits(x, text):
    assert narrate.number(x) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0004, "p < 0.001"),
        (0.0123, "p = 0.012"),
        (0.5, "p = 0.50"),
        (0.999, "p > 0.99"),
        (0.0501, "p = 0.0501"),
        (np.nan, "p not estimable"),
    ],
)
def test_p_values(p, text):
    assert narrate.p_value(p) == text


def estimate(value: float, half: float) -> dict:
    return {"estimate": value, "ci_low": value - half, "ci_high": value + half, "level": 95.0, "p_value": 0.01, "n": 20}


def test_the_sentence_turns_with_the_data():
    assert "was lower in AD than in Control, by 0.500 nats" in narrate.compared(
        "Shannon", estimate(-0.5, 0.2), "nats", "AD", "Control"
    )
    assert "was higher in AD" in narrate.compared("Shannon", estimate(0.5, 0.2), "nats", "AD", "Control")
    assert "fell" in narrate.changed("S. aureus", estimate(-0.5, 0.2), "", "Drug")
    assert "rose" in narrate.changed("S. aureus", estimate(0.5, 0.2), "", "Drug")
    assert "falls with" in narrate.linked("Shannon", "EASI", estimate(-0.3, 0.1))


def test_a_null_is_never_called_no_effect():
    for sentence in (
        narrate.compared("Shannon", estimate(-0.1, 0.2), "nats", "AD", "Control"),
        narrate.changed("Shannon", estimate(-0.1, 0.2), "nats", "Drug"),
        narrate.linked("Shannon", "EASI", estimate(-0.1, 0.2)),
    ):
        assert "neither" in sentence
        assert "no effect" not in sentence
        assert "no difference" not in sentence


def test_a_null_with_equivalence_says_so_and_one_beyond_the_margin_too():
    shown = estimate(-0.1, 0.2) | {"margin": 0.5, "p_equivalence": 0.001}
    assert "shown to be smaller than ±0.500 nats" in narrate.changed("Shannon", shown, "nats", "Drug")
    assert "smaller than the margin" in narrate.equivalent("It", shown, "nats")
    beyond = estimate(-2, 0.2) | {"margin": 0.5, "p_equivalence": 0.999}
    assert "larger than the margin" in narrate.equivalent("It", beyond, "nats")
    undecided = estimate(-0.4, 0.2) | {"margin": 0.5, "p_equivalence": 0.2}
    assert "nor larger" in narrate.equivalent("It", undecided, "nats")


def test_the_interval_keeps_its_sign_when_the_sentence_says_lower():
    # "lower by 0.5" must not stand beside an interval of -0.7 to -0.3
    text = narrate.compared("Shannon", estimate(-0.5, 0.2), "nats", "AD", "Control")
    assert "0.300 to 0.700" in text


def test_permanova_is_one_sentence_of_what_is_shown_and_what_other_distances_say():
    rows = [
        ("d", "all", "group", 0.1, 0.001, 0.02, 40), ("d", "A", "visit", 0.2, 0.3, 0.9, 20),
        ("d", "both arms", "visit:arm", np.nan, np.nan, np.nan, 4),
        ("e", "all", "group", 0.1, 0.2, 0.9, 40), ("e", "A", "visit", 0.2, 0.4, 0.9, 20),
    ]  # fmt: skip
    tests = pd.DataFrame(rows, columns=["distance", "patients", "term", "r2", "p_value", "dispersion_p", "n"])
    assert narrate.permanova(tests) == (
        "Whole community (d), shown: a difference between patients and controls (10.0 % of the variation, p = 0.0010, "
        "n = 40, of which part may be spread); not shown: a change in A (p = 0.30, n = 20); could not be tested: a "
        "difference between the arms' changes (p not estimable, n = 4). Otherwise in other distances: a difference "
        "between patients and controls (e p = 0.20)."
    )
    assert narrate.permanova(tests.head(0)) == "No term could be tested."


def test_who_carries_a_taxon_is_told_of_counts_as_they_may_be_shown():
    at = pd.MultiIndex.from_tuples([("case", "baseline")] * 12 + [("control", "baseline")] * 12)
    present = pd.Series([0.5] * 10 + [0.0, np.nan] + [1.0] * 3 + [0.0] * 9, at)
    assert list(narrate.carrying(present, Privacy()).values()) == ["seen in 91 %", "seen in 25 %"]
    hidden = narrate.carrying(present, Privacy(small_cells="suppress"))
    assert hidden == {("case", "baseline"): "seen in 100 %"}  # 10 of 10, as both are rounded


def test_short_names():
    assert narrate.short_name("Staphylococcus aureus") == "S. aureus"
    assert narrate.short_name("Staphylococcus") == "Staphylococcus"
    assert narrate.short_name("Neorhizobium Pararhizobium Rhizobium") == "Neorhizobium Pararhizobium Rhizobium"
    assert narrate.short_name("Staphylococcus (unnamed)") == "Staphylococcus (unnamed)"


def test_a_rise_beyond_the_depth_used_is_told_with_its_swabs_and_not_where_nothing_lies_beyond():
    means = pd.DataFrame(
        {"group": ["case"] * 3, "depth": [500, 1000, 5000], "shannon": [1.0, 2.0, 2.3], "swabs": 30, "of": 50}
    )
    told = narrate.levelling(means, 1000, {"case": "AD"})
    assert "From 1,000 to 5,000 reads" in told
    assert "AD by 0.300 nats (not level; 30 of 50 swabs)" in told
    assert "cannot be told" in narrate.levelling(means, 5000, {"case": "AD"})
