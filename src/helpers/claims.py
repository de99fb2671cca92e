"""A claim as an object, read from its file; and the one rule by which evidence becomes a verdict."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, StringConstraints, model_validator

from helpers.estimates import adjusted_p
from helpers.measures import find, registry
from helpers.narrate import beyond, excludes_zero, interval, number, p_value
from helpers.study import Labels, Problems, Strict, Study, StudyError, read_yaml, validated

Kind = Literal["direction", "no change", "little difference"]
Contrast = Literal["group", "severity", "change", "change_in", "arms", "arms_given_improvement", "against_controls"]
#: What a part expects: the sign of the effect, 0 where the measure's healthier direction or neither is meant.
EXPECT = {"up": 1, "down": -1, "healthier": 0, "not up": 1, "not down": -1, "not healthier": 0}
#: Contrasts of one arm.
OF_ONE_ARM = ("change", "change_in", "against_controls")


class Verdict(NamedTuple):
    """How a verdict is shown, and what it says."""

    symbol: str
    #: In figures.
    marker: str
    says: str


#: Every verdict by its word.
VERDICTS = {
    "supported": Verdict("●", "o", "an effect in the claimed direction is shown"),
    "contradicted": Verdict("✕", "X", "an effect in the other direction, or beyond the margin, is shown"),
    "equivalent": Verdict("≈", "s", "the effect is shown to be smaller than the margin"),
    "inconclusive": Verdict("○", "o", "neither: the interval says what remains possible"),
    "not testable": Verdict("–", "", "the study lacks what the claim needs"),
}
SUPPORTED, CONTRADICTED, EQUIVALENT, INCONCLUSIVE, NOT_TESTABLE = VERDICTS

#: What tells a part of a claim from all others: claim, and what was asked (`helpers.evidence.Asked`).
KEY = ("claim", "measure", "contrast", "arm", "among", "score")
#: Where their keys are described.
KEYS = "docs/claims.md"
#: Families of claims that a study adds, beside those of its claims file.
OWN_FAMILIES = ("own",)
#: The claims files.
FOLDER = Path(__file__).parents[2] / "data" / "claims"
#: Names that a claim's sentence can have in braces.
NAMES = (*Labels.model_fields, "genus", "pathogen", "commensal", "scores", "near_clear", "non_responder")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class Part(Strict):
    """One measure in one contrast, with what is expected of it."""

    measure: str = Field(
        description="a key of the registry (`src/helpers/measures.py`): an alpha diversity, `distance_to_healthy`, "
        "`genus`, `pathogen`, `commensal`, …; or the name of any genus or species",
        examples=["pathogen", "Staphylococcus epidermidis"],
    )
    contrast: Contrast = Field(
        description="`group`: patients against controls at baseline; `severity`: link to each severity score among "
        "patients at baseline; `change`: between the visits in one arm; `change_in`: the same in a stratum; `arms`: "
        "treatment against comparator at follow-up; `arms_given_improvement`: the same at equal improvement of "
        "severity; `against_controls`: near-clear patients at follow-up against controls",
    )
    arm: Literal["treatment", "comparator"] | None = Field(
        None, description="of `change`, `change_in` and `against_controls`"
    )
    among: Literal["lesional", "non_lesional", "non_responders"] | None = Field(
        None,
        description="of `change_in`: sites that were lesional or not at baseline, or patients whose severity improved "
        "by less than the study's `response.non_responder`",
        examples=["lesional"],
    )
    expect: Literal["up", "down", "healthier", "not up", "not down", "not healthier"] | None = Field(
        None,
        description="the direction that the claim asserts; with `not`, that it denies (claims of no change). "
        "`healthier`: as the measure's registry entry says, or towards the controls' mean",
    )


class Claim(Strict):
    """A claim: the sentence, what would show it, and where it comes from. It is as strong as its weakest part."""

    says: Text = Field(description="the sentence, with the study's names in braces: see below")
    kind: Kind = Field(
        "direction",
        description="`direction`: tested against zero; `no change` and `little difference`: shown to be smaller than "
        "the margin of equivalence",
    )
    family: Text = Field("own", description="claims of a family are shown together")
    reported: Text | None = Field(None, description="what the source says, in its words or shorter")
    source: Text | None = Field(None, description="where it says so", examples=["abstract"])
    parts: list[Part] = Field(min_length=1, max_length=20, description="all must be shown")

    @model_validator(mode="after")
    def _is_one_thought(self) -> "Claim":
        names = [name for _, name, _, _ in Formatter().parse(self.says) if name is not None]
        if unknown := sorted(set(names) - set(NAMES)):
            close = difflib.get_close_matches(unknown[0], NAMES, 1)
            hint = f"; did you mean {{{close[0]}}}?" if close else ""
            raise ValueError(f"says: unknown name {{{unknown[0]}}}{hint} known: {', '.join(NAMES)}")
        asked: dict[tuple, str | None] = {}
        for i, part in enumerate(self.parts):
            where = f"parts.{i}"
            if (part.arm is not None) != (part.contrast in OF_ONE_ARM):
                needs = "needs an arm" if part.arm is None else "has no arm: it compares"
                raise ValueError(f"{where}: the contrast {part.contrast} {needs}")
            if (part.among is not None) != (part.contrast == "change_in"):
                needs = "needs `among`" if part.among is None else "has no `among`; change_in has"
                raise ValueError(f"{where}: the contrast {part.contrast} {needs}")
            denies = part.expect is not None and part.expect.startswith("not ")
            if self.kind == "direction" and (part.expect is None or denies):
                raise ValueError(f"{where}: a claim of a direction expects up, down or healthier, not {part.expect}")
            if self.kind != "direction" and part.expect is not None and not denies:
                raise ValueError(f"{where}: a claim of {self.kind} cannot expect {part.expect}, only deny it")
            question = (part.measure, part.contrast, part.arm, part.among)
            if question in asked:
                told = "stands twice" if asked[question] == part.expect else f"is also expected to be {asked[question]}"
                raise ValueError(f"{where}: {part.measure} {told}")
            asked[question] = part.expect
        return self


ClaimId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,15}$")]


class Claims(Strict):
    """A file of claims, in ``data/claims/``."""

    of: Text = Field(description="whose claims they are, as it is shown")
    reference: Text = Field(description="the publication")
    families: list[Text] = Field(min_length=1, description="families in order: the first has the primary claims")
    claims: dict[ClaimId, Claim] = Field(min_length=1, description="claims by their short names")

    @model_validator(mode="after")
    def _families_are_listed(self) -> "Claims":
        for name, claim in self.claims.items():
            if claim.family not in self.families:
                raise ValueError(f"claims.{name}: family '{claim.family}' is not one of {', '.join(self.families)}")
        return self


def names(study: Study) -> dict[str, str]:
    """What stands for the names in a claim's braces.

    Parameters
    ----------
    study : Study
    """
    score = study.severity[0].label if study.severity else "severity"
    known = registry(study)
    return study.labels.model_dump() | {
        **{role: known[role].label for role in ("genus", "pathogen", "commensal")},
        "scores": ", ".join(s.label for s in study.severity) or "no score recorded",
        "near_clear": f"{score} improved by at least {study.response.near_clear:g} %",
        "non_responder": f"{score} improved by less than {study.response.non_responder:g} %",
    }


def statement(claim: Claim, study: Study) -> str:
    """A claim in the study's own words."""
    return claim.says.format(**names(study))


def load_claims(study: Study) -> dict[str, Claim]:
    """The claims that a study tests: those of its claims file, then its own.

    Parameters
    ----------
    study : Study

    Returns
    -------
    dict
        By short name, in the order in which they are written.

    Raises
    ------
    StudyError
        If there is no such file, a claim is not valid, or it names a measure that there is not.
    """
    file, own_file = claims_file(study), study.folder / "study.yaml"
    shipped = claims_of(study)
    listed = {"of": shipped.of, "reference": shipped.reference, "families": [*shipped.families, *OWN_FAMILIES]}
    own: dict[str, Claim] = {}
    if study.own_claims:
        content = listed | {"claims": study.own_claims}
        own = validated(Claims, content, own_file, "valid: own_claims", KEYS).claims
    if taken := sorted(set(own) & set(shipped.claims)):
        where, found = f"own_claims.{taken[0]}", f"{file.name} has a claim {taken[0]}"
        raise StudyError("gives a claim a name that is taken", file=own_file, where=where, found=found,
                         fix="give it another name")  # fmt: skip
    problems = Problems()
    for source, claims in ((file, shipped.claims), (own_file, own)):
        for name, claim in claims.items():
            for i, part in enumerate(claim.parts):
                with problems:
                    _check_measure(part, study, source, f"{name}.parts.{i}.measure")
    problems.stop()
    return shipped.claims | own


def measures_of(claims: Mapping[str, Claim]) -> list[str]:
    """Keys of the measures that claims ask of."""
    return list(dict.fromkeys(part.measure for claim in claims.values() for part in claim.parts))


def claims_file(study: Study) -> Path:
    """The file of the study's claims."""
    return FOLDER / f"{study.claims}.yaml"


def claims_of(study: Study) -> Claims:
    """Read the study's claims file, without its own claims."""
    file = claims_file(study)
    there = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
    content = read_yaml(file, f"give `claims` in study.yaml one of: {there}", KEYS)
    return validated(Claims, content, file, "a valid file of claims", KEYS)


def primary(study: Study) -> str:
    """Name of the study's primary claim: the first of the first family."""
    shipped = claims_of(study)
    return min(shipped.claims, key=lambda name: shipped.families.index(shipped.claims[name].family))


def _check_measure(part: Part, study: Study, file: Path, where: str) -> None:
    """Raise `StudyError` unless the measure is one, and has a value in everybody whom the contrast compares."""
    known = registry(study)
    try:
        measure = find(part.measure, study)
    except KeyError:
        close = difflib.get_close_matches(part.measure, known, 1)
        fix = f"did you mean {close[0]}?" if close else "a genus or species begins with a capital letter"
        raise StudyError(
            "names a measure that there is not", file=file, where=where, found=part.measure,
            expected=f"one of {', '.join(known)}; or a genus or species", fix=fix,
        ) from None  # fmt: skip
    if measure.kind == "severity" and part.contrast not in ("change", "arms"):
        raise StudyError(
            "compares what cannot be compared", file=file, where=where, found=f"{part.measure}: {part.contrast}",
            expected="of a severity score, the contrast change or arms: controls have none", fix="change the contrast",
        )  # fmt: skip


#: Columns of claims.tsv and keys of claims.json, those first that say what was found.
COLUMNS = (
    "id", "statement", "estimate", "unit", "ci_low", "ci_high", "p_value", "n", "verdict", "reason", "notebook",
    "section", "family", "kind", "scale", "reported", "source",
)  # fmt: skip


def verdicts(parts: pd.DataFrame, claims: Mapping[str, Claim], study: Study, alpha: float = 0.05) -> pd.DataFrame:
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
        Rows as from `helpers.evidence.gather`, with ``notebook``.
    claims : mapping of str to Claim
        Those that are judged, in the order of the table.
    study : Study
    alpha : float

    Returns
    -------
    DataFrame
        One row a claim: `COLUMNS`, then what, parts, margin, p_equivalence, p_holm, and the key of the part that stands
        for the claim.

    References
    ----------
    Holm, Scand J Stat 1979;6:65; Berger, Technometrics 1982;24:295 (intersection-union).
    """
    groups = parts.groupby("claim", sort=False)
    judged = pd.DataFrame([_weakest(groups.get_group(name), claims[name].kind) for name in claims])
    judged["id"], told = judged["claim"], [claims[name] for name in judged["claim"]]
    judged["statement"] = [statement(claim, study) for claim in told]
    for key in ("family", "kind", "reported", "source"):
        judged[key] = [getattr(claim, key) for claim in told]
    equivalence = judged["kind"].ne("direction")
    evidence = judged["p_value"].where(~equivalence, judged["p_equivalence"])
    judged["p_holm"] = adjusted_p(evidence, "holm")
    judged["p_change"] = adjusted_p(judged["p_value"], "holm")
    rule = [_verdict(row, alpha) for row in judged.to_dict("records")]
    judged[["verdict", "reason"]] = pd.DataFrame(rule, index=judged.index)
    judged["reason"] += judged["passed_over"]
    # The p-value that stands beside a verdict is of the test that it rests on.
    on_change = equivalence & judged["verdict"].eq(CONTRADICTED)
    judged["p_holm"] = judged["p_holm"].where(~on_change, judged["p_change"])
    return judged[[*COLUMNS, "what", "parts", "margin", "p_equivalence", "p_holm", *KEY[1:]]]


def _weakest(group: pd.DataFrame, kind: Kind) -> dict[str, Any]:
    """The part of a claim with the least evidence for it; parts that cannot be tested are passed over if others can."""
    testable, others = group[group["cannot"].eq("")], group[group["cannot"].ne("")]
    told = "".join(f"; not tested: {row.what} ({row.cannot})" for row in others.itertuples())
    if testable.empty:
        return {**group.iloc[0].to_dict(), "parts": 0, "passed_over": ""}
    if kind == "direction":
        wrong_way = np.sign(testable["estimate"]) != testable["sign"]
        against = testable["p_value"].where(~wrong_way, 2 - testable["p_value"])
    else:
        against = testable["p_equivalence"]
    return {**testable.loc[against.idxmax()].to_dict(), "parts": len(testable), "passed_over": told}


def _verdict(row: dict[str, Any], alpha: float) -> tuple[str, str]:
    """Verdict and its reason in words."""
    if row["cannot"]:
        return NOT_TESTABLE, row["cannot"]
    which = f"{row['what']}, the weakest of {row['parts']} parts: " if row["parts"] > 1 else f"{row['what']}: "
    span = f"interval {interval(row['ci_low'], row['ci_high'], row['unit'])}"
    holm = f"Holm {p_value(row['p_holm'])}"
    if row["kind"] == "direction":
        claimed = row["sign"] == np.sign(row["estimate"])
        if row["p_holm"] < alpha:
            way = "the claimed direction" if claimed else "the other direction"
            return (SUPPORTED if claimed else CONTRADICTED), f"{which}{span} excludes zero in {way}; {holm}"
        state = "includes zero" if row["ci_low"] <= 0 <= row["ci_high"] else "excludes zero, but not after Holm"
        return INCONCLUSIVE, f"{which}{span} {state}; {holm}"
    margin = f"the margin ±{number(row['margin'])} {row['unit']}".rstrip()
    if row["p_holm"] < alpha:
        return EQUIVALENT, f"{which}smaller than {margin}; equivalence {holm}"
    denied = row["sign"] in (0, np.sign(row["estimate"]))
    if row["kind"] == "no change" and denied and row["p_change"] < alpha:
        return CONTRADICTED, f"{which}a change is shown, {span}; Holm {p_value(row['p_change'])}"
    if row["kind"] == "little difference" and beyond(row) and row["p_change"] < alpha:
        return CONTRADICTED, f"{which}{span} lies beyond {margin}; Holm {p_value(row['p_change'])}"
    seen = " (which excludes zero, but not after Holm)" if excludes_zero(row) else ""
    return INCONCLUSIVE, f"{which}equivalence within {margin} is not shown ({holm}); {span}{seen}"
