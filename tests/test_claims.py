import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import claims
from helpers.study import load_study


def part(claim: str, estimate: float, half: float, *, sign: int = 0, margin: float = np.nan, **more) -> dict:
    """A part whose interval is estimate ± half and whose p-values are those of a normal estimate."""
    se = half / 1.96
    return {
        "id": claim,
        "statement": claim,
        "measure": "m",
        "estimate": estimate,
        "ci_low": estimate - half,
        "ci_high": estimate + half,
        "p_value": 2 * stats.norm.sf(abs(estimate) / se),
        "n": 10,
        "unit": "nats",
        "margin": margin,
        "p_equivalence": stats.norm.sf((margin - abs(estimate)) / se),
        "sign": sign,
        "cannot": "",
        "notebook": "02_diversity",
        "section": "s",
    } | more


def verdict_of(*parts: dict) -> str:
    return claims.verdicts(pd.DataFrame(parts))["verdict"].iloc[0]


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (part("C1", -1, 0.5, sign=-1), "supported"),
        (part("C1", 1, 0.5, sign=-1), "contradicted"),
        (part("C1", -1, 1.5, sign=-1), "inconclusive"),
        (part("C9", -0.1, 0.2, sign=-1, margin=0.5), "equivalent"),
        (part("C9", -0.4, 0.2, sign=-1, margin=0.5), "contradicted"),
        (part("C9", 0.4, 0.2, sign=-1, margin=0.5), "inconclusive"),  # an increase does not contradict "no decrease"
        (part("C9", -0.1, 0.9, sign=-1, margin=0.5), "inconclusive"),
        (part("C10", 0.1, 0.2, margin=0.5), "equivalent"),
        (part("C10", 0.4, 0.3, margin=0.5), "inconclusive"),  # not zero, but it may be little
        (part("C10", 1.0, 0.3, margin=0.5), "contradicted"),
        (part("C10", 1.0, 0.3, margin=0.5, p_value=0.2), "inconclusive"),
        (part("C12", np.nan, 1, sign=-1, cannot="no second arm"), "not testable"),
    ],
)
def test_one_rule(given, verdict):
    assert verdict_of(given) == verdict


def test_a_claim_is_as_strong_as_its_weakest_part():
    strong, weak = part("C6", 2, 0.5, sign=1), part("C6", -0.2, 0.9, sign=-1, measure="distance")
    table = claims.verdicts(pd.DataFrame([strong, weak]))
    assert table[["verdict", "measure", "estimate"]].iloc[0].tolist() == ["inconclusive", "distance", -0.2]
    against = part("C6", 2, 0.5, sign=-1)
    assert verdict_of(strong, against) == "contradicted"
    untestable = part("C6", np.nan, 1, sign=1, cannot="no tree")
    assert verdict_of(strong, untestable) == "supported"


def test_holm_is_over_the_claims_and_leaves_out_what_was_not_tested():
    # p = 0.02 alone is enough, among four tested claims with p = 0.02 it is not (Holm: 0.08)
    borderline = {"p_value": 0.02}
    alone = [part("C1", -1, 0.84, sign=-1, **borderline), part("C12", np.nan, 1, sign=-1, cannot="no second arm")]
    assert claims.verdicts(pd.DataFrame(alone))["verdict"].tolist() == ["supported", "not testable"]
    family = [part(c, -1, 0.84, sign=-1, **borderline) for c in ("C1", "C4", "C8", "C12")]
    judged = claims.verdicts(pd.DataFrame(family))
    assert judged["verdict"].eq("inconclusive").all()
    assert judged["p_holm"].tolist() == pytest.approx([0.08] * 4)


def test_table_is_in_the_order_of_the_claims_and_has_the_agreed_columns():
    table = claims.verdicts(pd.DataFrame([part(c, -1, 0.5, sign=-1) for c in ("C12", "C2", "C1")]))
    assert table["id"].tolist() == ["C1", "C2", "C12"]
    assert tuple(table.columns[:12]) == claims.COLUMNS


def test_reasons_tell_the_numbers():
    table = claims.verdicts(pd.DataFrame([part("C1", -1, 0.5, sign=-1)]))
    assert "−1.50 to −0.500 nats" in table["reason"].iloc[0]
    assert "excludes zero in the claimed direction" in table["reason"].iloc[0]


def test_what_the_study_lacks_makes_a_claim_not_testable_whatever_was_estimated():
    study = load_study("data/demo")
    estimate = {"estimate": -1.0, "ci_low": -2.0, "ci_high": -0.5, "p_value": 0.001, "n": 30}
    lacking = claims.part("C6", study, "Shannon", estimate, unit="nats", section="s", sign=1, reason="no controls")
    assert lacking["cannot"] == "no controls"
    assert np.isnan(lacking["estimate"])
    no_margin = estimate | {"margin": np.nan, "p_equivalence": np.nan}
    assert "standard deviation" in claims.part("C7", study, "Shannon", no_margin, unit="nats", section="s")["cannot"]
    fine = claims.part("C6", study, "Shannon", estimate, unit="nats", section="s", sign=1)
    assert (fine["cannot"], fine["estimate"]) == ("", -1.0)
