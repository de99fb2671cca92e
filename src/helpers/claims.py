"""A claim as an object, read from its file; and the one rule by which evidence becomes a verdict."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from helpers.errors import Problems, StudyError
from helpers.estimates import adjusted_p
from helpers.files import CHOICES, CLAIMS_FOLDER, CLAIMS_KEYS
from helpers.measures import OTHER_AXES, POSITION, find, registry, taken
from helpers.narrate import excludes_zero, interval, number, p_value
from helpers.study import Described, Labels, Strict, Study, read_yaml, validated
from helpers.texts import packaged

Kind = Literal["direction", "no change", "does not fall", "does not rise", "little difference"]
#: What a part of a claim of one direction that is denied expects.
ONE_SIDED = {"does not fall": "not down", "does not rise": "not up"}
Contrast = Literal["group", "severity", "change", "change_in", "arms", "arms_given_improvement", "against_controls"]
#: What a part expects: the sign of the effect, 0 where the measure's healthier direction or neither is meant.
EXPECT = {"up": 1, "down": -1, "healthier": 0, "not up": 1, "not down": -1, "not healthier": 0}
#: Contrasts of one arm.
OF_ONE_ARM = ("change", "change_in", "against_controls")
#: Contrasts of a severity score, which controls do not have.
OF_SEVERITY = ("change", "arms")
#: Contrasts in which somebody can become healthier.
OF_HEALTHIER = ("change", "change_in", "arms", "arms_given_improvement")


class Verdict(NamedTuple):
    """A verdict, as verdicts.yaml explains it."""

    symbol: str
    marker: str
    says: str
    told_by: str
    of_direction: str
    of_margin: str


_TOLD = packaged("verdicts.yaml")
#: Every verdict by its word.
VERDICTS = {word: Verdict(**told) for word, told in _TOLD.items()}
SUPPORTED, CONTRADICTED, INCONCLUSIVE, OUT_OF_REACH, NOT_TESTABLE = VERDICTS

#: What tells a part of a claim from all others: claim, and what was asked (`helpers.evidence.Asked`).
KEY = ("claim", "measure", "contrast", "arm", "among", "score")
#: Families of claims that a study adds, beside those of its claims file.
OWN_FAMILIES = ("own",)
#: Names that a claim's sentence can have in braces.
NAMES = (*Labels.model_fields, "genus", "pathogen", "commensal", "scores", "near_clear", "non_responder")
#: A name in braces. Nothing else can stand in them: sentences are not format strings.
IN_BRACES = re.compile(r"\{([^{}]*)\}")


def _one_line(value: str) -> str:
    line = " ".join(value.split())
    if not line.isprintable():
        raise ValueError("has characters that cannot be shown")
    return line


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300), AfterValidator(_one_line)]
MeasureKey = Annotated[str, StringConstraints(min_length=1, max_length=60)]


class Part(Described):
    """One measure in one contrast, with what is expected of it."""

    measure: MeasureKey
    contrast: Contrast
    arm: Literal["treatment", "comparator"] | None = None
    among: Literal["lesional", "non_lesional", "non_responders"] | None = None
    expect: Literal["up", "down", "healthier", "not up", "not down", "not healthier"] | None = None

    @model_validator(mode="after")
    def _has_what_its_contrast_needs(self) -> "Part":
        if (self.arm is not None) != (self.contrast in OF_ONE_ARM):
            raise ValueError(f"the contrast {self.contrast} {'needs an' if self.arm is None else 'has no'} `arm`")
        if (self.among is not None) != (self.contrast == "change_in"):
            raise ValueError(f"the contrast {self.contrast} {'needs' if self.among is None else 'has no'} `among`")
        if self.expect in ("healthier", "not healthier") and self.contrast not in OF_HEALTHIER:
            raise ValueError(f"the contrast {self.contrast} expects up or down: nobody becomes healthier in it")
        return self


class Claim(Described):
    """A claim: the sentence, what would show it, and where it comes from. It is as strong as its weakest part."""

    says: Text
    kind: Kind = "direction"
    family: Text = "own"
    reported: Text | None = None
    source: Text | None = None
    parts: list[Part] = Field(min_length=1, max_length=20)

    @field_validator("says")
    @classmethod
    def _braces_hold_known_names(cls, says: str) -> str:
        if unknown := [name for name in IN_BRACES.findall(says) if name not in NAMES]:
            close = difflib.get_close_matches(unknown[0], NAMES, 1)
            hint = f"; did you mean {{{close[0]}}}?" if close else ";"
            raise ValueError(f"unknown name {{{unknown[0]:.40}}}{hint} known: {', '.join(NAMES)}")
        if {"{", "}"} & set(IN_BRACES.sub("", says)):
            raise ValueError("a brace without its other, or braces in braces; write {treatment}")
        return says

    @property
    def against_margin(self) -> bool:
        """Whether it is tested against the margin of equivalence, not against zero."""
        return self.kind != "direction"

    @model_validator(mode="after")
    def _is_one_thought(self) -> "Claim":
        asked: dict[tuple, str | None] = {}
        for i, part in enumerate(self.parts):
            where = f"parts.{i}"
            denies = part.expect is not None and part.expect.startswith("not ")
            if self.kind == "direction" and (part.expect is None or denies):
                told = f"a claim of a direction expects up, down or healthier, not {part.expect or 'nothing'}"
                raise ValueError(f"{where}: {told}")
            if self.kind in ONE_SIDED and part.expect != ONE_SIDED[self.kind]:
                raise ValueError(f"{where}: a claim that something {self.kind} expects {ONE_SIDED[self.kind]}")
            if self.kind == "no change" and part.expect is not None and not denies:
                raise ValueError(f"{where}: a claim of no change cannot expect {part.expect}, only deny it")
            if self.kind == "little difference" and part.expect is not None:
                raise ValueError(f"{where}: a claim of little difference expects nothing: it denies either direction")
            if self.kind != "direction" and part.contrast == "severity":
                raise ValueError(f"{where}: a link with severity has no margin; claim a direction")
            question = (part.measure, part.contrast, part.arm, part.among)
            if question in asked:
                told = "stands twice" if asked[question] == part.expect else f"is also expected to be {asked[question]}"
                raise ValueError(f"{where}: {part.measure} {told}")
            asked[question] = part.expect
        return self


ClaimId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,15}$")]


class Claims(Described):
    """A file of claims, in ``data/claims/``."""

    of: Text
    reference: Text
    families: list[Text] = Field(min_length=1)
    claims: dict[ClaimId, Claim] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _families_are_listed(self) -> "Claims":
        for name, claim in self.claims.items():
            if claim.family not in self.families:
                raise ValueError(f"claims.{name}: family '{claim.family}' is not one of {', '.join(self.families)}")
        return self


class OwnClaims(Strict):
    """The claims that a study.yaml adds."""

    own_claims: dict[ClaimId, Claim]


def names(study: Study) -> dict[str, str]:
    """What stands for the names in a claim's braces."""
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
    known = names(study)
    return IN_BRACES.sub(lambda name: known[name[1]], claim.says)


def load_claims(study: Study) -> dict[str, Claim]:
    """The claims that a study tests: those of its claims file, then its own, by short name.

    `StudyError` tells all problems at once: there is no such file, a claim is not valid, its name is taken, it names a
    measure that there is not, or the study names a column like a measure.
    """
    problems, own_file = Problems(), study.folder / "study.yaml"
    own: dict[str, Claim] = {}
    with problems:
        if clashes := taken(study):
            raise StudyError.of("named_as_measure", own_file, found=", ".join(clashes))
    with problems:
        shipped = claims_of(study)
    with problems:
        content = {"own_claims": study.own_claims}
        own = validated(OwnClaims, content, own_file, "a valid study", CLAIMS_KEYS).own_claims
    problems.stop()
    families, before = [*shipped.families, *OWN_FAMILIES], {name.lower() for name in shipped.claims}
    for name, claim in own.items():
        where = f"own_claims.{name}"
        with problems:
            if name.lower() in before:
                raise StudyError.of("claim_taken", own_file, where=where, found=name, claims=study.claims)
        with problems:
            if claim.family not in families:
                expected = f"one of {', '.join(families)}"
                raise StudyError.of(
                    "no_family", own_file, where=f"{where}.family", found=claim.family, expected=expected
                )
        before.add(name.lower())
    for source, key, claims in ((study.claims_file, "claims", shipped.claims), (own_file, "own_claims", own)):
        for name, claim in claims.items():
            for i, part in enumerate(claim.parts):
                with problems:
                    _check_measure(part, study, source, f"{key}.{name}.parts.{i}")
    problems.stop()
    return shipped.claims | own


def measures_of(claims: Mapping[str, Claim]) -> list[str]:
    """Keys of the measures that claims ask of."""
    return list(dict.fromkeys(part.measure for claim in claims.values() for part in claim.parts))


def claims_of(study: Study) -> Claims:
    """Read the study's claims file, without its own claims."""
    file = study.claims_file
    there = sorted(path.stem for path in file.parent.glob("*.yaml") if path.name != CHOICES.name)
    if study.claims not in there:
        close = difflib.get_close_matches(study.claims, there, 1)
        told = {"there": ", ".join(there), "path": CLAIMS_FOLDER / study.claims, "keys": CLAIMS_KEYS}
        fix = close and f"did you mean {close[0]}?"
        raise StudyError.of("no_claims", study.folder / "study.yaml", found=study.claims, fix=fix, **told)
    content = read_yaml(file, "a file of claims", "lay it there", CLAIMS_KEYS)
    return validated(Claims, content, file, "a valid file of claims", CLAIMS_KEYS)


def primary(study: Study) -> list[str]:
    """Names of the study's primary claims: those of the first family."""
    shipped = claims_of(study)
    return [name for name, claim in shipped.claims.items() if claim.family == shipped.families[0]]


def _check_measure(part: Part, study: Study, file: Path, where: str) -> None:
    """Raise `StudyError` unless the measure is one, and has a value in everybody whom the contrast compares."""
    known = registry(study)
    try:
        measure = find(part.measure, study)
    except KeyError:
        close = difflib.get_close_matches(part.measure, known, 1)
        told = {"found": part.measure, "known": ", ".join(known), "fix": close and f"did you mean {close[0]}?"}
        raise StudyError.of("no_measure", file, where=f"{where}.measure", **told) from None
    if part.measure in (POSITION, *OTHER_AXES) and part.contrast == "group":
        raise StudyError.of("equal_by_making", file, where=f"{where}.contrast", measure=part.measure)
    if measure.kind == "severity" and part.contrast not in OF_SEVERITY:
        told = {"found": f"{part.contrast} of {part.measure}", "contrasts": " or ".join(OF_SEVERITY)}
        raise StudyError.of("not_compared", file, where=f"{where}.contrast", **told)


#: Columns of claims.tsv and keys of claims.json, those first that say what was found.
COLUMNS = (
    "id", "statement", "estimate", "unit", "ci_low", "ci_high", "level", "p_value", "n", "verdict", "reason",
    "notebook", "section", "family", "kind", "scale", "sd", "margin", "margin_low", "margin_high", "p_equivalence",
    "power_equivalence", "reachable_margin", "n_needed", "detectable", "reported", "source",
)  # fmt: skip

#: And what the multiverse adds: how many specifications estimate the same, which share of them has this verdict, and
#: the p-value of all together.
OF_SPECIFICATIONS = ("specifications", "agreement", "joint_p")


def verdicts(parts: pd.DataFrame, claims: Mapping[str, Claim], study: Study, alpha: float = 0.05) -> pd.DataFrame:
    """Judge every claim by one rule.

    A claim is supported if all of its parts are (the intersection-union test): its p is the largest of theirs, and that
    part stands for it. It is contradicted if any part is, after Holm's adjustment over its parts. Both p-values are
    then adjusted after Holm over the claims of its family that could be tested, and reached.

    - *supported*: adjusted p below alpha, of the effect against zero; of the claims against a margin, of equivalence.
    - *contradicted*: adjusted p below alpha, of an effect the other way; of the claims against a margin, of one beyond
      it in a direction that is denied.
    - *out of reach*: an estimate of exactly zero would not be shown to lie within the margin.
    - *inconclusive*: none of these. *not testable*: the study lacks what a part needs.

    `parts` are rows as from `helpers.evidence.gather`, with ``notebook``. One row a claim comes back: `COLUMNS`, then
    what, parts, p_holm, of the test that the verdict rests on, and the key of the part that stands for the claim.

    References
    ----------
    Holm, Scand J Stat 1979;6:65; Berger, Technometrics 1982;24:295 (intersection-union).
    """
    groups = parts.reset_index(drop=True).groupby("claim", sort=False)
    claimed = pd.DataFrame([together(groups.get_group(name)) for name in claims], index=list(claims))
    family = pd.Series({name: claim.family for name, claim in claims.items()})
    untested, reached = claimed["cannot"].ne(""), claimed["attainable"]
    support, contrary = (
        p.groupby(family, sort=False).transform(adjusted_p, "holm")
        for p in (claimed["p_support"].where(reached & ~untested), claimed["p_against"])
    )
    contradicted = contrary < alpha
    verdict = decided(untested, reached, support, contrary, alpha)
    stands = claimed["weakest"].where(~contradicted, claimed["strongest_against"])
    judged = parts.reset_index(drop=True).loc[stands].reset_index(drop=True)
    judged = judged.assign(
        id=list(claims),
        statement=[statement(claim, study) for claim in claims.values()],
        **{key: [getattr(c, key) for c in claims.values()] for key in ("family", "kind", "reported", "source")},
        parts=claimed["parts"].to_numpy(),
        cannot=claimed["cannot"].to_numpy(),
        p_holm=support.where(~contradicted, contrary).to_numpy(),
        verdict=verdict,
    )
    judged["reason"] = [_reason(row) for row in judged.to_dict("records")]
    return judged[[*COLUMNS, "what", "parts", "p_holm", *KEY[1:]]]


def decided(untested: Any, reached: Any, support: Any, contrary: Any, alpha: float) -> np.ndarray:
    """The verdicts of claims, from whether each could not be tested, was reached, and its two adjusted p-values."""
    conditions = [contrary < alpha, untested, ~reached, support < alpha]
    return np.select(conditions, [CONTRADICTED, NOT_TESTABLE, OUT_OF_REACH, SUPPORTED], INCONCLUSIVE)


def adjusted_among(p: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Holm's adjustment of each p-value as one of a family with the same others; missing ones do not count."""
    known = np.sort(others[~np.isnan(others)])
    steps = np.maximum.accumulate([0.0, *(known * (len(known) + 1 - np.arange(len(known))))])
    before = np.searchsorted(known, p)
    return np.where(np.isnan(p), np.nan, np.minimum(np.maximum((len(known) + 1 - before) * p, steps[before]), 1))


def together(group: pd.DataFrame) -> dict[str, Any]:
    """What the parts of a claim say together, and which of them stands for it, by the index of its row."""
    testable, others = group[group["cannot"].eq("")], group[group["cannot"].ne("")]
    against = adjusted_p(testable["p_against"], "holm")
    reached = testable["attainable"].astype(bool)
    weakest = others if len(others) else testable
    weakest = weakest["p_support"].fillna(1) if reached.all() or len(others) else weakest["n_needed"]
    return {
        "p_support": np.nan if len(others) else testable["p_support"].max(),
        "p_against": against.min(),
        "attainable": bool(reached.all()),
        "cannot": why_not(group["what"], group["cannot"]),
        "parts": len(group),
        "weakest": weakest.idxmax(),
        "strongest_against": against.idxmin() if len(against) else weakest.idxmax(),
    }


def why_not(whats: Sequence[str] | pd.Series, reasons: Sequence[str] | pd.Series) -> str:
    """Why a claim cannot be tested: the reason of its first part that cannot; with its name, if others can."""
    what, reason = next(((w, r) for w, r in zip(whats, reasons, strict=True) if r), ("", ""))
    return reason if all(reasons) else reason and f"{what}: {reason}"


def standing(verdict: str) -> str:
    """Which of several parts a claim is told by."""
    return VERDICTS[verdict].told_by


def _reason(row: dict[str, Any]) -> str:
    """A verdict's reason in words."""
    verdict, parts = VERDICTS[row["verdict"]], f", of {row['parts']} parts {standing(row['verdict'])}"
    sides = "±" if row["kind"] not in ONE_SIDED else "−" if row["sign"] < 0 else "+"
    told = verdict.of_direction if row["kind"] == "direction" else verdict.of_margin
    return told.format(
        **row | {"margin": f"the margin {sides}{number(row['margin'])} {row['unit']}".rstrip()},
        which=f"{row['what']}{parts if row['parts'] > 1 else ''}: ",
        span=f"interval {interval(row['ci_low'], row['ci_high'], row['unit'])}",
        holm=f"Holm {p_value(row['p_holm'])}",
        zero="excludes zero, but not after Holm" if excludes_zero(row) else "includes zero",
        against_zero=f"against zero {p_value(row['p_value'])}",
    )
