"""An estimate becomes a verdict: the claims of the study and the one rule that judges them."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from helpers.estimates import adjusted_p, by_patient
from helpers.narrate import interval, number, p_value, short_name
from helpers.response import improvement
from helpers.study import VOCABULARY, Study

Kind = Literal["direction", "no change", "little difference"]


class Claim(NamedTuple):
    """A claim of the study: what it says, and which kind of evidence would show it."""

    statement: str
    kind: Kind


CLAIMS = {
    "C1": Claim("At baseline, {case} skin has lower bacterial alpha diversity than {control} skin", "direction"),
    "C2": Claim("At baseline, {case} skin carries more {genus} (genus) than {control} skin", "direction"),
    "C3": Claim("At baseline, {case} skin carries more {pathogen} than {control} skin", "direction"),
    "C4": Claim("Alpha diversity is linked to severity at baseline ({scores}), negatively", "direction"),
    "C5": Claim("{pathogen} is linked to severity at baseline ({scores}), positively", "direction"),
    "C6": Claim("Under {treatment}, alpha diversity and the whole community shift towards {control}", "direction"),
    "C7": Claim("Under {comparator}, alpha diversity and the whole community do not shift", "no change"),
    "C8": Claim("Under {treatment}, {pathogen} decreases", "direction"),
    "C9": Claim("Under {comparator}, {pathogen} does not decrease", "no change"),
    "C10": Claim(
        "At {followup} on {treatment}, near-clear patients ({near_clear}) differ little from {control}",
        "little difference",
    ),
    "C11": Claim("The shift under {treatment} is at least partly independent of clinical improvement", "direction"),
    "C12": Claim("The shift is larger under {treatment} than under {comparator}", "direction"),
}

NEEDS_COUNTS = "the study gives relative abundances, and this needs counts"

#: Columns of claims.tsv and keys of claims.json.
COLUMNS = (
    "id", "statement", "estimate", "unit", "ci_low", "ci_high", "p_value", "n", "verdict", "reason", "notebook",
    "section",
)  # fmt: skip


def statement(claim: str, study: Study) -> str:
    """A claim in the study's own words.

    Parameters
    ----------
    claim : str
        One of `CLAIMS`.
    study : Study
    """
    names = study.labels.model_dump()
    score = study.severity[0].label if study.severity else "severity"
    return CLAIMS[claim].statement.format(
        **names,
        genus=study.taxa.genus,
        pathogen=short_name(study.taxa.pathogen),
        scores=", ".join(s.label for s in study.severity) or "no score recorded",
        near_clear=f"{score} improved by at least {study.response.near_clear:g} %",
    )


def part(
    claim: str,
    study: Study,
    measure: str,
    estimate: Mapping[str, Any],
    *,
    unit: str,
    section: str,
    sign: int = 0,
    reason: str = "",
) -> dict[str, Any]:
    """One part of a claim: what was measured for it.

    Parameters
    ----------
    claim : str
        One of `CLAIMS`.
    study : Study
    measure : str
        What was measured, such as ``Shannon``.
    estimate : mapping
        From an estimator; for a claim of no change or little difference with ``margin`` and ``p_equivalence``.
    unit : str
    section : str
        Heading of the section with the evidence.
    sign : {-1, 0, 1}
        The direction that the claim asserts (for a claim of no change: that it denies); 0 for either.
    reason : str
        Why the claim cannot be tested, whatever the estimate; empty if it can.

    Returns
    -------
    dict
        A row for `verdicts`, which wants the ``notebook`` too.
    """
    against_margin = CLAIMS[claim].kind != "direction"
    cannot = reason
    if not cannot and np.isnan(estimate["estimate"]):
        few = f"too few people have what is needed (n = {study.privacy.shown(estimate['n'])})"
        cannot = few if study.counted else NEEDS_COUNTS
    elif not cannot and against_margin and np.isnan(estimate["p_equivalence"]):
        cannot = "there is no standard deviation of controls to set the margin by"
    if cannot:
        estimate = {**estimate, **dict.fromkeys(("estimate", "ci_low", "ci_high", "p_value"), np.nan)}
    return {
        "id": claim,
        "statement": statement(claim, study),
        "measure": measure,
        **{key: estimate[key] for key in ("estimate", "ci_low", "ci_high", "p_value", "n")},
        "unit": unit,
        "margin": estimate["margin"] if against_margin else np.nan,
        "p_equivalence": estimate["p_equivalence"] if against_margin else np.nan,
        "sign": sign,
        "cannot": cannot,
        "section": section,
    }


def untestable(cohort: AnnData, study: Study) -> dict[str, str]:
    """Why the study's shape leaves a claim without a test.

    Parameters
    ----------
    cohort : AnnData
        The swabs that are analysed.
    study : Study

    Returns
    -------
    dict
        A reason for each of `CLAIMS`, empty if nothing stands against it.
    """
    visits = by_patient(cohort.obs, pd.DataFrame(index=cohort.obs.index))
    first, last = (visits[visits["visit"].eq(v)].set_index("subject") for v in ("baseline", "followup"))
    pairs = first[first.index.isin(last.index)]
    labels = study.labels.model_dump()

    def absent(there: object, reason: str) -> str:
        return "" if there else reason

    counted = absent(study.counted, NEEDS_COUNTS)
    patients = absent(first["group"].eq("case").any(), "the study has no patients at baseline")
    controls = absent(first["group"].eq("control").any(), "the study has no controls at baseline")
    severity = absent(study.severity, "the study records no severity score")
    genus = absent(cohort.var["genus"].eq(study.taxa.genus).any(), f"no read is named {study.taxa.genus}")
    pathogen = absent(cohort.var["species"].eq(study.taxa.pathogen).any(), f"no read is named {study.taxa.pathogen}")
    arms = {arm: pairs["arm"].eq(arm).any() for arm in VOCABULARY["arm"]}
    treated, compared = (
        absent(there, f"nobody under {labels[arm]} was swabbed at both visits") for arm, there in arms.items()
    )
    both = absent(all(arms.values()), "the study has no second arm with patients at both visits")
    improved = improvement(visits, study.severity).reindex(pairs.index[pairs["arm"].eq("treatment")])
    clear = absent(
        improved.ge(study.response.near_clear).any(), f"no patient under {labels['treatment']} is near clear"
    )
    needed = {
        "C1": (counted, patients, controls),
        "C2": (counted, patients, controls, genus),
        "C3": (counted, patients, controls, pathogen),
        "C4": (counted, severity, patients),
        "C5": (counted, severity, pathogen, patients),
        "C6": (controls, treated),
        "C7": (controls, compared),
        "C8": (counted, pathogen, treated),
        "C9": (counted, pathogen, compared),
        "C10": (controls, severity, treated, clear),
        "C11": (controls, severity, both),
        "C12": (controls, both),
    }
    return {claim: next(filter(None, reasons), "") for claim, reasons in needed.items()}


def verdicts(parts: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """Judge every claim by one rule.

    A claim with several parts is as strong as its weakest part (the intersection-union test), which stands for it.
    Claims of a direction are tested against zero, claims of no change or little difference by two one-sided tests
    against the margin; Holm's adjustment is over the claims that could be tested.

    - *supported*: the effect lies in the claimed direction and its adjusted p-value is below alpha.
    - *contradicted*: it lies in the other direction and its adjusted p-value is below alpha; for a claim of no
      change, the denied change is shown and equivalence is not; for one of little difference, a difference is shown
      and its interval lies beyond the margin.
    - *equivalent*: for the claims of no change and little difference, the adjusted equivalence p is below alpha.
    - *inconclusive*: none of these. *not testable*: the study lacks what is needed.

    Parameters
    ----------
    parts : DataFrame
        Rows as from `part`.
    alpha : float

    Returns
    -------
    DataFrame
        One row a claim, in the order of `CLAIMS`: `COLUMNS`, then measure, parts, margin, p_equivalence, p_holm.

    References
    ----------
    Holm, Scand J Stat 1979;6:65; Berger, Technometrics 1982;24:295 (intersection-union).
    """
    weakest = pd.DataFrame([_weakest(group) for _, group in parts.groupby("id", sort=False)])
    equivalence = weakest["id"].map(lambda c: CLAIMS[c].kind != "direction")
    evidence = weakest["p_value"].where(~equivalence, weakest["p_equivalence"])
    weakest["p_holm"] = adjusted_p(evidence, "holm")
    weakest["p_change"] = adjusted_p(weakest["p_value"], "holm")
    judged = [_verdict(row, alpha) for row in weakest.to_dict("records")]
    weakest[["verdict", "reason"]] = pd.DataFrame(judged, index=weakest.index)
    weakest["reason"] += weakest["passed_over"]
    # The p-value that stands beside a verdict is of the test that it rests on.
    on_change = equivalence & weakest["verdict"].eq("contradicted")
    weakest["p_holm"] = weakest["p_holm"].where(~on_change, weakest["p_change"])
    order = {claim: i for i, claim in enumerate(CLAIMS)}
    extra = ["measure", "parts", "margin", "p_equivalence", "p_holm"]
    return weakest.sort_values("id", key=lambda s: s.map(order))[[*COLUMNS, *extra]].reset_index(drop=True)


def _weakest(group: pd.DataFrame) -> dict[str, Any]:
    """The part of a claim with the least evidence for it; parts that cannot be tested are passed over if others can."""
    testable, others = group[group["cannot"].eq("")], group[group["cannot"].ne("")]
    told = "".join(f"; not tested: {row.measure} ({row.cannot})" for row in others.itertuples())
    if testable.empty:
        return {**group.iloc[0].to_dict(), "parts": 0, "passed_over": ""}
    if CLAIMS[testable["id"].iloc[0]].kind == "direction":
        wrong_way = np.sign(testable["estimate"]) != testable["sign"]
        against = testable["p_value"].where(~wrong_way, 2 - testable["p_value"])
    else:
        against = testable["p_equivalence"]
    return {**testable.loc[against.idxmax()].to_dict(), "parts": len(testable), "passed_over": told}


def _verdict(row: dict[str, Any], alpha: float) -> tuple[str, str]:
    """Verdict and its reason in words."""
    if row["cannot"]:
        return "not testable", row["cannot"]
    kind = CLAIMS[row["id"]].kind
    which = f"{row['measure']}, the weakest of {row['parts']} parts: " if row["parts"] > 1 else f"{row['measure']}: "
    span = f"interval {interval(row['ci_low'], row['ci_high'], row['unit'])}"
    holm = f"Holm {p_value(row['p_holm'])}"
    if kind == "direction":
        claimed = row["sign"] == np.sign(row["estimate"])
        if row["p_holm"] < alpha:
            way = "the claimed direction" if claimed else "the other direction"
            return ("supported" if claimed else "contradicted"), f"{which}{span} excludes zero in {way}; {holm}"
        state = "includes zero" if row["ci_low"] <= 0 <= row["ci_high"] else "excludes zero, but not after Holm"
        return "inconclusive", f"{which}{span} {state}; {holm}"
    margin = f"the margin ±{number(row['margin'])} {row['unit']}".rstrip()
    if row["p_holm"] < alpha:
        return "equivalent", f"{which}smaller than {margin}; equivalence {holm}"
    beyond = row["ci_low"] > row["margin"] or row["ci_high"] < -row["margin"]
    denied = row["sign"] in (0, np.sign(row["estimate"]))
    if kind == "no change" and denied and row["p_change"] < alpha:
        return "contradicted", f"{which}a change is shown, {span}; Holm {p_value(row['p_change'])}"
    if kind == "little difference" and beyond and row["p_change"] < alpha:
        return "contradicted", f"{which}{span} lies beyond {margin}; Holm {p_value(row['p_change'])}"
    seen = " (which excludes zero, but not after Holm)" if row["ci_low"] > 0 or row["ci_high"] < 0 else ""
    return "inconclusive", f"{which}equivalence within {margin} is not shown ({holm}); {span}{seen}"
