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


def estimate(value: float, half: float, **more: object) -> dict:
    span = {"estimate": value, "ci_low": value - half, "ci_high": value + half}
    return span | {"level": 95.0, "p_value": 0.01, "n": 20, "contrast": "change", "scale": "points"} | more


def test_the_sentence_turns_with_the_data():
    assert "was lower in AD than in Control, by 0.500 nats" in narrate.compared(
        "Shannon", estimate(-0.5, 0.2), "nats", "AD", "Control"
    )
    assert "was higher in AD" in narrate.compared("Shannon", estimate(0.5, 0.2), "nats", "AD", "Control")
    assert "fell by" in narrate.changed("Shannon", estimate(-0.5, 0.2), "", "Drug")
    assert "rose by" in narrate.changed("Shannon", estimate(0.5, 0.2), "", "Drug")
    assert "falls with" in narrate.linked("Shannon", "EASI", estimate(-0.3, 0.1))


def test_a_null_is_told_by_how_far_its_interval_goes_and_never_called_no_effect():
    told = narrate.compared("Position", estimate(-22, 31.4), "% of the gap", "Drug", "Other")
    assert told == (
        "Position, Drug against Other: uncertain, from 53.4 % of the gap less to 9.40 % more (best estimate 22.0 % of "
        "the gap less; p = 0.010; n = 20)."
    )
    changed = narrate.changed("Shannon", estimate(0.1, 0.2), "nats", "Drug")
    assert "is uncertain, from a fall of 0.100 nats to a rise of 0.300 nats (best estimate a rise of" in changed
    linked = narrate.linked("Shannon", "EASI", estimate(-0.1, 0.2))
    assert "Whether Shannon goes with EASI is uncertain" in linked
    for sentence in (told, changed, linked):
        assert "no effect" not in sentence
        assert "no difference" not in sentence


def test_logarithms_are_told_as_fold_changes():
    fold = {"scale": "fold change", "p_equivalence": 0.6, "margin": 0.5, "detectable": np.log(6)}
    fell = narrate.changed("S. aureus", estimate(np.log(0.2), np.log(2), **fold), "CLR", "Drug")
    assert fell == (
        "Drug: S. aureus fell to 0.200 times what it was (95 % interval 0.100 to 0.400; p = 0.010; n = 20)."
    )
    null = estimate(np.log(0.5), np.log(4), **fold)
    assert "uncertain, from 0.125 to 2.00 times as much (best estimate 0.500 times;" in narrate.compared(
        "S. aureus", null, "CLR", "Drug", "Other"
    )
    assert narrate.worth("It", null, "CLR") == (
        "It: the study could reliably detect only changes above a factor of 6.00; smaller ones remain possible."
    )
    assert narrate.beside(null, {"imputed": null}) == "Estimated otherwise: imputed 0.500 times (0.125 to 2.00)."
    assert "(best estimate 1.00 times;" in narrate.changed("It", estimate(0, 900, **fold), "CLR", "Drug")  # no overflow


def test_diversity_is_told_in_standard_deviations_of_the_controls_too():
    in_sd = estimate(-0.5, 0.2, scale="SD of controls", sd=0.25)
    assert "fell by 0.500 nats or 2.00 SD of controls (95 %" in narrate.changed("Shannon", in_sd, "nats", "Drug")


def test_a_null_with_equivalence_says_so_and_one_beyond_the_margin_too():
    shown = estimate(-0.1, 0.2, margin=0.5, p_equivalence=0.001)
    told = narrate.changed("Shannon", shown, "nats", "Drug")
    assert "is small, from a fall of 0.300 nats to a rise of 0.100 nats" in told
    assert "within the margin of ±0.500 nats (equivalence p = 0.0010)" in told
    assert "alike to within the margin" in narrate.equivalent("It", shown, "nats")
    beyond = estimate(-2, 0.2, margin=0.5, p_equivalence=0.999)
    assert "different by more than the margin of ±0.500 nats, from 1.80 to 2.20 nats less" in narrate.equivalent(
        "It", beyond, "nats"
    )
    assert "uncertain" in narrate.equivalent("It", estimate(-0.4, 0.2, margin=0.5, p_equivalence=0.2), "nats")


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


def test_few_people_are_not_said_to_have_been_tested():
    few = dict.fromkeys(("estimate", "ci_low", "ci_high", "p_value", "p_equivalence"), np.nan) | {"n": 4}
    assert narrate.changed("It", few, "", "Drug") == "Drug: too few people to test the change of It (n = 4)."
    assert narrate.equivalent("It", few, "") == "It: too few people to be tested (n = 4)."
    assert narrate.beside(estimate(1, 0.5), {"imputed": few}) == ""


def test_only_what_seems_to_disagree_is_reconciled():
    whole = {"p_value": 0.03, "dispersion_p": 0.5}
    null, shown = estimate(-0.1, 0.2), estimate(-0.5, 0.2)
    told = narrate.whole_beside_axis(whole, null, "Control")
    assert "did change differently in the two arms (PERMANOVA, time × arm, p = 0.030)" in told
    assert "the position only towards Control" in told
    assert narrate.whole_beside_axis(whole, shown, "Control") == ""
    other = narrate.whole_beside_axis(whole | {"p_value": 0.3}, shown, "Control")
    assert "is not shown to change" in other
    assert "contradict the difference of the position" in other
    ways = {"log ratio": {"p_value": 0.001}, "share": {"p_value": 0.2}, "carriage": {"p_value": np.nan}}
    told = narrate.counted_otherwise("It", ways)
    assert told.startswith("It is shown by log ratio (p = 0.0010), not by share (p = 0.20), which is no contradiction")
    assert narrate.counted_otherwise("It", ways | {"share": {"p_value": 0.01}}) == ""


def test_other_spaces_agree_or_say_which_of_them_shows_it():
    same, other = estimate(-20, 30, unit="%"), estimate(-30, 20, unit="%")
    told = narrate.otherwise("It", same, {"Aitchison": other}, {"without": "no gap"})
    assert told == (
        "It, in other spaces: Aitchison −30.0 % (−50.0 to −10.0); without: no gap. **The spaces disagree**: shown by "
        "Aitchison."
    )
    assert narrate.otherwise("It", other, {"Aitchison": other}, {}).endswith("The spaces agree.")
    assert narrate.otherwise("It", same, {}, {}) == ""


def test_what_overturns_an_effect_is_told_of_shown_effects_alone():
    row = {
        "claim": "C1", "what": "It", "unit": "CLR", "scale": "fold change", "lost": 5, "of": 20, "tipping": np.log(8),
        "load": np.nan, "robustness_interval": 0.11, "strongest": "age", "removes": 0.2,
    }  # fmt: skip
    assert narrate.overturned(row) == (
        "The interval of C1 (It) would include zero if the 5 patients who were lost, of 20 patients treated, had ended "
        "at 8.00 times the level of those who stayed; or if something unmeasured explained 11 % of what is left of "
        "both allocation and outcome (one as strong as age would remove 20 % of the difference)."
    )
    nothing = {"tipping": np.nan, "load": np.nan, "robustness_interval": 0.0}
    assert narrate.overturned(row | nothing) == ""


def test_strata_of_few_patients_are_not_told_by_a_mean():
    trend = estimate(-1, 0.5) | {"measure": "Position", "unit": "%", "scale": "per cent"}
    means = pd.DataFrame(
        {"measure": "Position", "arm": "treatment", "stratum": ["<50 %", "50–74 %", "≥90 %"], "n": [9, 8, 3]}
    ).assign(estimate=[-1.0, -2, -3], ci_low=0.0, ci_high=1.0)
    told = narrate.ends(trend, means, "Drug")
    assert "mean change −1.00 % where severity improved <50 % (n = 9), −2.00 % where severity improved 50–74 %" in told
    assert "≥90 %" not in told
    assert "From stratum to stratum a trend: −1.00 % (−1.50 to −0.500)" in told
    assert "no stratum has 5 patients or more" in narrate.ends(trend, means.assign(n=4), "Drug")


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
