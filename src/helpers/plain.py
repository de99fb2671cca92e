"""A claim's answer as a clinician would say it: one sentence, its effect on a scale that people know."""

import math
from collections.abc import Mapping
from typing import Any

from helpers import claims
from helpers.evidence import AMONG
from helpers.measures import POSITION, find
from helpers.narrate import excludes_zero, number, on_scale
from helpers.study import Study
from helpers.texts import packaged

#: Of each contrast: what is shown, and what may be or not; a change says `moved`, all others how they compare.
_SHOWN = packaged("plain.yaml")


def effect(row: Mapping[str, Any], sd: float, digits: int = 2) -> str:
    """An effect with its interval on the scale that people know, as in a table: ``0.14 × (0.083 to 0.24)``."""
    estimate, low, high, unit = on_scale(row, sd)
    named = {"times": " ×", "ρ": " ρ", "% of the gap": " % of gap", "SD of controls": " SD"}.get(unit, f" {unit}")
    return f"{number(estimate, digits)}{named.rstrip()} ({number(low, digits)} to {number(high, digits)})"


def sentence(row: Mapping[str, Any], study: Study, sd: float) -> str:
    """The answer to a claim, a row as from `helpers.claims.verdicts`, in one sentence that turns with the data.

    `sd` is that of the measure in the controls, NaN if there is none.
    """
    if row["verdict"] == claims.NOT_TESTABLE or math.isnan(row["estimate"]):
        return f"{row['statement']}: this study cannot tell, since {row['reason']}."
    gap = row["measure"] == POSITION
    words = study.labels.model_dump() | {
        "label": "the whole community" if gap else find(row["measure"], study).label,
        "arm": study.labels.model_dump().get(row["arm"], ""),
        "score": study.column_names().get(row["score"], "severity"),
        "among": AMONG[row["among"]],
    }
    estimate = row["estimate"]
    words["how"], words["goes"] = size(row, estimate, study, sd), "rises" if estimate > 0 else "falls"
    way = "moved " if gap else "rose " if estimate > 0 else "fell "
    words["moved"] = way + (words["how"] if gap else size(row, estimate, study, sd, way=False))
    shown, either = (text.format(**words) for text in _SHOWN[row["contrast"]])
    low, high = (size(row, row[end], study, sd) for end in ("ci_low", "ci_high"))
    zero_out, margin = excludes_zero(dict(row)), ""
    if not math.isnan(row["margin"]):
        margin = size(row, row["margin"], study, sd, way=False).removeprefix("by ")
    stands = f"; of {row['parts']} parts {claims.standing(row['verdict'])}" if row["parts"] > 1 else ""
    match row["verdict"]:
        case claims.SUPPORTED if margin:
            told = f"that {either} by {margin} or more is excluded: it lies between {low} and {high}{stands}"
        case claims.SUPPORTED | claims.CONTRADICTED:
            beyond = f", more than the margin of {margin}" if margin else ""
            told = f"{shown} ({_span(row, study, sd)}{stands}){beyond}"
        case claims.OUT_OF_REACH:
            told = f"that {either} cannot be excluded: it lies between {low} and {high}"
            if zero_out:
                told = f"{shown} ({_span(row, study, sd)}), but not surely once the other claims are allowed for"
            few = f"about {row['n_needed']:,.0f} people would be needed{stands}"
            told += f"; the contrary could not have been shown by a study of this size ({few})"
        case _ if zero_out and not margin:
            told = f"{shown} ({_span(row, study, sd)}), but not surely once the other claims are allowed for"
        case _:
            small = "; if any, it is small" if _widest(row) < study.settings.equivalence_margin * sd else ""
            told = f"whether {either} stays uncertain: between {low} and {high}{small}"
    return f"{told[0].upper()}{told[1:]}."


def _widest(row: Mapping[str, Any]) -> float:
    return max(abs(row["ci_low"]), abs(row["ci_high"]))


def reachable(row: Mapping[str, Any], study: Study) -> str:
    """What a study of this size shows with 80 % power: an effect, or, of a claim of no change, a margin."""
    least = row["detectable"] if math.isnan(row["margin"]) else row["reachable_margin"]
    if math.isnan(least) or row["verdict"] == claims.CONTRADICTED:
        return ""
    return size(row, least, study, row["sd"], way=False).removeprefix("by ")


def _span(row: Mapping[str, Any], study: Study, sd: float) -> str:
    """An interval whose way is said already, from what is nearer to nothing: ``2.1- to 20-fold``."""
    near, far = (
        size(row, row[end], study, sd, way=False).removeprefix("by ")
        for end in sorted(("ci_low", "ci_high"), key=lambda end: abs(row[end]))
    )
    if near.startswith("ρ"):
        return f"{near.removeprefix('ρ = ')} to {far.removeprefix('ρ = ')}"
    return f"{near.removesuffix('fold')} to {far}" if near.endswith("fold") else f"{near.partition(' ')[0]} to {far}"


def size(row: Mapping[str, Any], value: float, study: Study, sd: float, *, way: bool = True) -> str:
    """An effect without its sign, and, if wanted, its `way` in words."""
    unit, down = on_scale(row, sd)[3], value < 0
    if unit == "ρ":
        return f"ρ = {number(value, 2)}"
    if row["measure"] == POSITION and way:
        told = f"nearer to {study.labels.control}" if down else f"farther from {study.labels.control}"
        return f"{number(abs(value), 2)} % of the gap {told}"
    told = ("lower" if down else "higher") if way else ""
    if unit == "times":
        return f"{number(math.exp(abs(value)), 2)}-fold {told}".strip()
    size = f"{number(abs(value) / sd, 2)} SD" if unit == "SD of controls" else f"{number(abs(value), 2)} {unit}".strip()
    return f"{size} {told}" if told else f"by {size}"
