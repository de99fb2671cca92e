"""Claims as data: what is refused, what they ask, and the rule by which they are judged."""

import itertools
import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import yaml
from anndata import AnnData
from cohorts import merged
from scipy import stats
from test_ingest import study_in
from test_study import STUDY

from helpers import claims, evidence
from helpers.claims import Claim, load_claims, statement, verdicts
from helpers.errors import StudyError
from helpers.intake.inspection import inspect
from helpers.measures import find, is_taxon, registry
from helpers.study import Study, load_study

PART = {"measure": "shannon", "contrast": "change", "arm": "treatment", "expect": "down"}
OWN = {"says": "Under {treatment}, alpha diversity falls", "parts": [PART]}
#: A claim of each kind.
DIRECTION = Claim(says="A falls", parts=[claims.Part(**PART)])
NO_FALL = Claim(says="A does not fall", kind="does not fall", parts=[claims.Part(**PART | {"expect": "not down"})])
NO_CHANGE = Claim(says="A stays", kind="no change", parts=[claims.Part(**PART | {"expect": None})])
LITTLE = Claim(says="A is alike", kind="little difference", parts=[claims.Part(**PART | {"expect": None})])
DEMO = load_study("data/demo")


# ---------------------------------------------------------------- what is refused


def study_with(folder: Path, own: object = None, **changes: Any) -> Study:
    """The small study with claims of its own, read from its file."""
    content = merged(STUDY, changes) | ({} if own is None else {"own_claims": own})
    content = json.loads(json.dumps(content))  # no aliases in what is dumped
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_study(folder)


def refused(folder: Path, own: object = None, **changes: Any) -> str:
    with pytest.raises(StudyError) as caught:
        load_claims(study_with(folder, own, **changes))
    told = str(caught.value)
    assert str(folder / "study.yaml") in told
    assert len(told) < 1500
    for each in caught.value.each:
        assert re.search(r"^  found: .*^  fix: ", str(each), re.MULTILINE | re.DOTALL)
    return told


def with_part(**changes: Any) -> dict[str, Any]:
    return OWN | {"parts": [{k: v for k, v in (PART | changes).items() if v is not None}]}


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("{treatmnt} falls", "did you mean {treatment}? known: control, case"),
        ("{treatment.__class__}", "unknown name {treatment.__class__}"),
        ("{treatment[0]}", "unknown name {treatment[0]}"),
        ("{treatment!r:>9999999999}", "unknown name {treatment!r:>9999999999}"),
        ("{treatment:9999999999}", "unknown name"),
        ("{0} {}", "unknown name {0}"),
        ("{} falls", "unknown name {}"),
        ("falls {", "a brace without its other"),
        ("falls }", "a brace without its other"),
        ("{{treatment}}", "braces in braces"),
        ("{treatment:{control}}", "braces in braces"),
        ("{a{treatment}b}", "braces in braces"),
        ("x" * 301, "at most 300 characters"),
        (" ", "at least 1 character"),
        ("falls \ue000", "cannot be shown"),
        (7, "should be a valid string"),
    ],
)
def test_a_sentence_is_no_format_string(tmp_path: Path, says: object, told: str) -> None:
    message = refused(tmp_path, {"X1": OWN | {"says": says}})
    assert told in message
    assert "own_claims.X1.says: " in message


@pytest.mark.parametrize(
    ("own", "where", "told"),
    [
        ({"X1": with_part(measure="shanon")}, "own_claims.X1.parts.0.measure", "did you mean shannon?"),
        ({"X1": with_part(measure="Cuti/bacterium")}, "own_claims.X1.parts.0.measure", "or a genus or species"),
        ({"X1": with_part(measure="A" * 61)}, "own_claims.X1.parts.0.measure", "at most 60 characters"),
        ({"X1": with_part(measure="easi", contrast="group", arm=None)}, "X1.parts.0.contrast", "controls have none"),
        ({"X1": with_part(contrast="chang")}, "own_claims.X1.parts.0.contrast", "'against_controls'"),
        ({"X1": with_part(arm=None)}, "own_claims.X1.parts.0", "change needs an `arm`"),
        ({"X1": with_part(contrast="arms")}, "own_claims.X1.parts.0", "arms has no `arm`"),
        ({"X1": with_part(contrast="change_in")}, "own_claims.X1.parts.0", "needs `among`"),
        ({"X1": with_part(among="lesional")}, "own_claims.X1.parts.0", "has no `among`"),
        ({"X1": with_part(expect=None)}, "own_claims.X1", "expects up, down or healthier"),
        ({"X1": with_part(expect="not down")}, "own_claims.X1", "not not down"),
        ({"X1": with_part() | {"kind": "no change"}}, "own_claims.X1", "cannot expect down, only deny it"),
        ({"X1": with_part(expect="not up") | {"kind": "little difference"}}, "own_claims.X1", "expects nothing"),
        (
            {"X1": with_part(expect="not up") | {"kind": "does not fall"}},
            "own_claims.X1",
            "does not fall expects not down",
        ),
        ({"X1": with_part(contrast="group", arm=None, expect="healthier")}, "X1.parts.0", "nobody becomes healthier"),
        (
            {"X1": with_part(contrast="severity", arm=None, expect=None) | {"kind": "no change"}},
            "own_claims.X1",
            "has no margin",
        ),
        ({"X1": OWN | {"parts": [PART, PART]}}, "own_claims.X1", "parts.1: shannon stands twice"),
        ({"X1": OWN | {"parts": [PART, PART | {"expect": "up"}]}}, "own_claims.X1", "is also expected to be down"),
        ({"X1": OWN | {"parts": []}}, "own_claims.X1.parts", "at least 1 item"),
        ({"X1": OWN | {"part": []}}, "own_claims.X1.part", "is not a known key"),
        ({"X1": OWN | {"family": "responses"}}, "own_claims.X1.family", "one of primary, disease"),
        ({"c8": OWN}, "own_claims.c8", "a name that is taken"),
        ({"X1": OWN, "x1": OWN}, "own_claims.x1", "a name that is taken"),
        ({"../X": OWN}, "own_claims.../X", "should match pattern"),
        ({"X1": None}, "own_claims.X1", "valid dictionary"),
    ],
)
def test_a_wrong_claim_is_named(tmp_path: Path, own: object, where: str, told: str) -> None:
    message = refused(tmp_path, own)
    assert where in message
    assert told in message


def test_all_wrong_claims_are_told_at_once(tmp_path: Path) -> None:
    told = refused(tmp_path, {"X1": with_part(measure="a"), "X2": OWN | {"family": "b"}, "C1": OWN})
    assert "3 problems" in told


@pytest.mark.parametrize("name", ["hartman2023", "nobody"])
def test_an_unknown_file_of_claims_is_named(tmp_path: Path, name: str) -> None:
    told = refused(tmp_path, claims=name)
    assert "where:    claims" in told
    assert "one of hartmann2023" in told
    assert ("did you mean hartmann2023?" in told) == (name == "hartman2023")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- a", "is not a file of claims"),
        ("of: a", "is not a valid file of claims"),
        ("of: a\nreference: b\nfamilies: [c]\nclaims: {X1: {says: d, family: e, parts: []}}", "claims.X1.parts: "),
        (
            yaml.safe_dump({"of": "a", "reference": "b", "families": ["c"], "claims": {"X1": OWN}}),
            "family 'own' is not",
        ),
    ],
)
def test_a_wrong_file_of_claims_is_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, told: str
) -> None:
    monkeypatch.setattr("helpers.study.CLAIMS", tmp_path)
    (tmp_path / "theirs.yaml").write_text(content)
    with pytest.raises(StudyError, match=r"theirs\.yaml") as caught:
        load_claims(study_with(tmp_path, claims="theirs"))
    assert told in str(caught.value)
    assert "docs/claims.md" in str(caught.value)


@pytest.mark.parametrize("name", [*registry(DEMO.model_copy(update={"severity": []})), "pathogen_present"])
def test_no_column_is_named_like_a_measure(tmp_path: Path, name: str) -> None:
    score = {"name": name, "column": "EASI", "label": "EASI", "range": [0, 72]}
    for changes in ({"severity": [score]}, {"columns": {"covariates": {name: "BMI"}}}):
        assert name in refused(tmp_path, **changes)


def test_a_covariate_is_no_taxon(tmp_path: Path) -> None:
    covariates = {"columns": {"covariates": {"Smoker": "smoker"}}}
    assert "a measure that there is not" in refused(tmp_path, {"X1": with_part(measure="Smoker")}, **covariates)


@pytest.mark.parametrize("name", ["a", "A/b", "A\\/b", "../A", "A\n", "A ", "A  b", "", "A\0", ".", "A{b}", "A<b>"])
def test_what_is_no_taxon(name: str) -> None:
    assert not is_taxon(name)


@pytest.mark.parametrize("name", ["Cutibacterium acnes", "Clostridium_sensu_stricto_1", "UCG-002", "Prevotella sp. 7"])
def test_what_is_a_taxon(name: str) -> None:
    assert is_taxon(name)


# ---------------------------------------------------------------- what is asked


@pytest.mark.parametrize("study", ["demo", "khadka2021"])
def test_the_shipped_claims_are_claims_of_every_shipped_study(study: str) -> None:
    loaded = load_claims(load_study(f"data/{study}"))
    assert list(loaded) == [f"C{i}" for i in range(1, 18)]


def test_own_claims_stand_after_those_of_the_file_in_the_names_of_the_study(tmp_path: Path) -> None:
    labels = {"treatment": "{control} drug"}
    study = study_with(tmp_path, {"X1": OWN | {"says": "Under {treatment},\n  {pathogen} falls"}}, labels=labels)
    loaded = load_claims(study)
    assert list(loaded)[-2:] == ["C17", "X1"]
    assert loaded["X1"].family == "own"
    assert statement(loaded["X1"], study) == "Under {control} drug, S. aureus falls", "what a name stands for is a text"


def test_the_check_of_a_study_shows_its_own_claims_and_what_is_wrong_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    alone = {"measure": "Nonsensia", "contrast": "group", "expect": "up"}
    own = {"X1": OWN, "X2": {"says": "More Nonsensia", "parts": [alone]}}
    study_in(folder, json.loads(json.dumps({"own_claims": own, "settings": {"rarefaction_depth": 100}})))
    told = inspect("mine")
    assert "and 2 of study.yaml" in told
    few = r"X1 +cannot be tested +Under Treatment, alpha diversity falls\n +because there are too few people under"
    assert re.search(few, told)
    assert re.search(r"X2 +cannot be tested .*\n +because no read is named Nonsensia", told)
    study_in(folder, {"own_claims": {"C1": OWN}})
    with pytest.raises(StudyError, match="2 problems") as caught:
        inspect("mine", "alpha=7")
    assert "a name that is taken" in str(caught.value)


def test_words_of_claims_are_those_of_the_evidence() -> None:
    assert set(get_args(claims.Contrast)) == set(evidence.CONTRASTS)
    (among,) = [a for a in get_args(claims.Part.model_fields["among"].annotation) if a is not type(None)]
    assert {"", *get_args(among)} == set(evidence.AMONG)
    (expect,) = [a for a in get_args(claims.Part.model_fields["expect"].annotation) if a is not type(None)]
    assert set(get_args(expect)) == set(claims.EXPECT)
    assert set(claims.NAMES) == set(claims.names(DEMO))


KINDS = ("shannon", "pathogen", "Cutibacterium", "easi")
CHOICES = itertools.product(
    KINDS,
    get_args(claims.Contrast),
    (None, "treatment", "comparator"),
    (None, "lesional", "non_responders"),
    (("direction", "down"), ("direction", "healthier"), ("does not fall", "not down"), ("no change", None),
     ("little difference", None)),
)  # fmt: skip


def test_whatever_a_claim_asks_has_a_section_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = claims.claims_of(DEMO)
    monkeypatch.setattr(claims, "claims_of", lambda study: shipped)  # read once
    accepted, refused = set(), 0
    for measure, contrast, arm, among, (kind, expect) in CHOICES:
        part = {"measure": measure, "contrast": contrast, "arm": arm, "among": among, "expect": expect}
        study = DEMO.model_copy(update={"own_claims": {"X1": {"says": "X", "kind": kind, "parts": [part]}}})
        try:
            claim = load_claims(study)["X1"]
        except StudyError:
            refused += 1
            continue
        for asked in evidence.questions(claim.parts[0], study):
            assert evidence.section_of(asked, study)
        accepted.add((measure, contrast))
    assert refused
    assert accepted == {
        (measure, name)
        for measure, (name, contrast) in itertools.product(KINDS, evidence.CONTRASTS.items())
        if find(measure, DEMO).kind in contrast.sections
    }


def gathered(claim: Claim, arms: list[str], **estimate: float) -> dict[str, Any]:
    """The evidence for a claim from a patient an arm with both visits, and an answer that is given."""
    people = [(f"p{i}", visit, "case", arm) for i, arm in enumerate(arms) for visit in ("baseline", "followup")]
    obs = pd.DataFrame(people, columns=["subject", "visit", "group", "arm"], dtype=object).assign(
        site="a", lesional=pd.NA, shannon=1.0
    )
    var = pd.DataFrame({"genus": [""], "species": [""]}, index=["f"])
    swabs = AnnData(np.ones((len(obs), 1)), obs.set_axis(obs.index.astype(str)), var)
    study = DEMO.model_copy(update={"severity": []})
    (asked,) = evidence.questions(claim.parts[0], study)
    found = {
        "estimate": -1.0,
        "ci_low": -2.0,
        "ci_high": -0.5,
        "p_value": 0.001,
        "n": 30,
        "n_dropped": 0,
        "level": 95.0,
    }
    about = dict.fromkeys(("estimator", "label", "what", "unit", "scale", "section"), "x") | {"stands": True}
    answer = {**asked._asdict(), **about, **found, "se": 0.4, "df": 29, "margin": 0.5, "p_equivalence": 0.9, **estimate}
    (row,) = evidence.gather({"X": claim}, swabs, study, study.settings, pd.DataFrame([answer])).to_dict("records")
    return row


def test_what_the_study_lacks_makes_a_claim_not_testable_whatever_was_estimated() -> None:
    lacking = gathered(DIRECTION, ["comparator"])
    assert lacking["cannot"] == "there is nobody under Dupilumab with swabs of both visits"
    assert np.isnan(lacking["estimate"])
    assert "too few people" in gathered(DIRECTION, ["treatment"] * 5, estimate=np.nan)["cannot"]
    no_margin = {"margin": np.nan, "p_equivalence": np.nan}
    assert "standard deviation of controls" in gathered(NO_FALL, ["treatment"] * 5, **no_margin)["cannot"]
    for claim in (DIRECTION, NO_FALL):
        fine = gathered(claim, ["treatment"] * 5, **(no_margin if claim is DIRECTION else {}))
        assert (fine["cannot"], fine["estimate"], fine["sign"]) == ("", -1.0, -1)


# ---------------------------------------------------------------- the rule


def part(claim: str, estimate: float, half: float, *, sign: int = 0, margin: float = np.nan, **more: Any) -> dict:
    """A part whose interval is estimate ± half and whose p-values are those of a normal estimate."""
    se = half / 1.96
    p = 2 * stats.norm.sf(abs(estimate) / se)
    shown, against = (p, 1) if np.sign(estimate) == sign else (1, p)
    if np.isfinite(margin):
        effect = sign * estimate if sign else abs(estimate)
        shown, against = stats.norm.sf((margin - effect) / se), stats.norm.sf((effect - margin) / se)
    return (
        dict.fromkeys((*claims.KEY, *evidence.COLUMNS), "")
        | dict.fromkeys(evidence.TESTED, np.nan)
        | {
            "claim": claim,
            "measure": "m",
            "what": "m",
            "estimate": estimate,
            "ci_low": estimate - half,
            "ci_high": estimate + half,
            "p_value": p,
            "n": 10,
            "unit": "nats",
            "scale": "SD of controls",
            "margin": margin,
            "attainable": float(not margin < 1.645 * se),
            "n_needed": 99 * half,
            "p_support": shown,
            "p_against": against,
            "sign": sign,
            "notebook": "02_diversity",
            "section": "s",
        }
        | more
    )


def judged(*parts: dict, **of: Claim) -> pd.DataFrame:
    """The verdicts; claims that are not given are of a direction."""
    names = dict.fromkeys(p["claim"] for p in parts)
    return verdicts(pd.DataFrame(parts), {name: of.get(name, DIRECTION) for name in names}, DEMO)


@pytest.mark.parametrize(
    ("claim", "given", "verdict"),
    [
        (DIRECTION, part("X", -1, 0.5, sign=-1), "supported"),
        (DIRECTION, part("X", 1, 0.5, sign=-1), "contradicted"),
        (DIRECTION, part("X", -1, 1.5, sign=-1), "inconclusive"),
        (NO_FALL, part("X", -0.1, 0.2, sign=-1, margin=0.5), "supported"),
        (NO_FALL, part("X", 2, 0.5, sign=-1, margin=0.5), "supported"),  # a rise is no fall
        (NO_FALL, part("X", -0.4, 0.2, sign=-1, margin=0.5), "inconclusive"),  # a fall, but perhaps within the margin
        (NO_FALL, part("X", -0.9, 0.3, sign=-1, margin=0.5), "contradicted"),
        (NO_FALL, part("X", -0.1, 0.7, sign=-1, margin=0.5), "out of reach"),
        (NO_FALL, part("X", -2, 0.7, sign=-1, margin=0.5), "contradicted"),  # which is never out of reach
        (LITTLE, part("X", 0.1, 0.2, margin=0.5), "supported"),
        (LITTLE, part("X", 0.4, 0.3, margin=0.5), "inconclusive"),  # not zero, but it may be little
        (LITTLE, part("X", 1.0, 0.3, margin=0.5), "contradicted"),
        (DIRECTION, part("X", np.nan, 1, sign=-1, cannot="no second arm"), "not testable"),
    ],
)
def test_one_rule(claim: Claim, given: dict, verdict: str) -> None:
    assert judged(given, X=claim)["verdict"].tolist() == [verdict]


def test_a_claim_needs_all_of_its_parts_and_falls_with_any() -> None:
    strong, weak = part("C6", 2, 0.5, sign=1), part("C6", -0.2, 0.9, sign=-1, measure="distance")
    table = judged(strong, weak)
    assert table[["verdict", "measure", "estimate", "parts"]].iloc[0].tolist() == ["inconclusive", "distance", -0.2, 2]
    against = part("C6", 2, 0.5, sign=-1, measure="against")
    assert judged(strong, against)[["verdict", "measure"]].iloc[0].tolist() == ["contradicted", "against"]
    untestable = part("C6", np.nan, 1, sign=1, what="Faith", cannot="no tree", p_support=np.nan, p_against=np.nan)
    table = judged(strong, untestable)
    assert table[["verdict", "reason"]].iloc[0].tolist() == ["not testable", "Faith: no tree"]
    assert judged(against, untestable)["verdict"].tolist() == ["contradicted"]


def test_parts_at_the_margin_do_not_add_up_to_a_contradiction() -> None:
    # Each of three parts is at the margin: one of them is seen beyond it, p = 0.03, in nearly a tenth of studies.
    seen = part("X", 0.5 + 1.88 * 0.1, 0.196, margin=0.5)
    assert seen["p_against"] == pytest.approx(0.03, abs=0.001)
    assert judged(seen, X=LITTLE)["verdict"].tolist() == ["contradicted"]
    others = [part("X", 0.5, 0.196, margin=0.5, measure=f"m{i}") for i in range(2)]
    assert judged(seen, *others, X=LITTLE)["verdict"].tolist() == ["inconclusive"]


def test_holm_is_within_a_family_and_leaves_out_what_could_not_be_shown() -> None:
    # p = 0.02 alone is enough, among four tested claims with p = 0.02 it is not (Holm: 0.08)
    borderline = {"p_support": 0.02}
    given = [part(c, -1, 0.84, sign=-1, **borderline) for c in ("C1", "C4", "C8", "C12")]
    table = judged(*given)
    assert table["verdict"].eq("inconclusive").all()
    assert table["p_holm"].tolist() == pytest.approx([0.08] * 4)
    apart = {name: DIRECTION.model_copy(update={"family": name}) for name in ("C1", "C4", "C8", "C12")}
    assert judged(*given, **apart)["verdict"].eq("supported").all()
    no_second = part("C12", np.nan, 1, sign=-1, cannot="no second arm", p_support=np.nan, p_against=np.nan)
    too_few = part("C9", 0, 9, sign=-1, margin=0.5)
    table = judged(given[0], no_second, too_few, C9=NO_FALL)
    assert table["verdict"].tolist() == ["supported", "not testable", "out of reach"]


def test_table_is_in_the_order_of_the_claims_and_has_the_agreed_columns() -> None:
    of = dict.fromkeys(("C1", "C2", "C12"), DIRECTION)
    table = verdicts(pd.DataFrame([part(c, -1, 0.5, sign=-1) for c in ("C12", "C2", "C1")]), of, DEMO)
    assert table["id"].tolist() == ["C1", "C2", "C12"]
    assert tuple(table.columns[: len(claims.COLUMNS)]) == claims.COLUMNS


def test_what_a_claim_says_stands_beside_its_verdict() -> None:
    told = Claim(says="Under {treatment}, A falls", family="primary", reported="it fell", source="abstract",
                 parts=DIRECTION.parts)  # fmt: skip
    row = judged(part("X", -1, 0.5, sign=-1), X=told).iloc[0]
    assert row[["statement", "family", "kind", "reported", "source"]].tolist() == [
        "Under Dupilumab, A falls", "primary", "direction", "it fell", "abstract",
    ]  # fmt: skip


def test_the_level_is_that_of_the_run() -> None:
    given = pd.DataFrame([part("X", -1, 0.84, sign=-1, p_support=0.02)])
    verdict = {a: verdicts(given, {"X": DIRECTION}, DEMO, a)["verdict"].iloc[0] for a in (0.05, 0.01)}
    assert verdict == {0.05: "supported", 0.01: "inconclusive"}


def test_reasons_tell_the_numbers() -> None:
    reason = judged(part("C1", -1, 0.5, sign=-1))["reason"].iloc[0]
    assert "−1.50 to −0.500 nats" in reason
    assert "excludes zero in the claimed direction" in reason
