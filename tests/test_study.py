import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from helpers.claims import load_claims, statement
from helpers.errors import StudyError
from helpers.intake.reference import references
from helpers.study import Study, load_study, read_yaml

ROOT = Path(__file__).parents[1]

#: The example of docs/claims.md.
OWN = Path("docs/claims.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
STUDY = {
    "title": "A small study",
    "simulated": True,
    "about": "a test",
    "source": "none",
    "licence": "none",
    "files": {"counts": {"path": "counts.biom"}, "metadata": {"path": "metadata.tsv"}},
    "columns": {
        "sample": "id",
        "subject": "person",
        "group": {"column": "status", "values": {"control": "healthy", "case": ["AD", "eczema"]}},
        "visit": {"column": "month", "values": {"baseline": 0, "followup": 3}},
    },
    "severity": [{"name": "easi", "column": "EASI", "label": "EASI", "range": [0, 72]}],
}


def study_with(folder, dotted: str = "title", value: object = "A small study") -> Study:
    """The small study with one key, such as ``columns.visit.values``, set to another value."""
    content = yaml.safe_load(yaml.safe_dump(STUDY))
    *path, last = dotted.split(".")
    inner = content
    for key in path:
        inner = inner.setdefault(key, {})
    inner[last] = value
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return load_study(folder)


def test_a_small_study_is_valid_and_the_rest_has_defaults(tmp_path):
    study = study_with(tmp_path)
    assert study.response.responder == 75
    assert study.files.taxonomy == "none"
    assert study.path(study.files.counts) == tmp_path / "counts.biom"
    assert set(study.files.each()) == {"counts", "metadata"}


def test_a_study_is_read_anew_each_time(tmp_path):
    study_with(tmp_path)
    first = read_yaml(tmp_path / "study.yaml", "", "", "")
    first["columns"]["visit"]["values"]["baseline"] = "changed"
    assert read_yaml(tmp_path / "study.yaml", "", "", "") == STUDY
    assert study_with(tmp_path, "labels.case", "other").labels.case == "other"


def test_numbers_and_single_values_are_lists_of_text(tmp_path):
    columns = study_with(tmp_path).columns
    assert columns.visit.values == {"baseline": ["0"], "followup": ["3"]}
    assert columns.group.values["control"] == ["healthy"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("colums", {}, "colums: is not a known key"),
        ("settings.seeds", 1, "settings.seeds: is not a known key"),
        ("title", None, "title: Input should be a valid string"),
        ("columns.group.values", {"control": "healthy", "patient": "AD"}, "unknown patient; known: control, case"),
        ("columns.group.ignore", "AD", "AD is listed twice"),
        ("columns.group.values", {"control": True, "case": "AD"}, "group.values.control: yes, no, true"),
        ("response", {"responder": 40}, "thresholds must rise"),
        ("severity", [{"name": "e", "column": "E", "label": "E", "range": [72, 0]}], "must be above the lowest, 72"),
        ("settings.equivalence_margin", float("inf"), "equivalence_margin: Input should be a finite number"),
        ("adjust", {"group": ["agee"]}, "no column for agee"),
        ("settings.swabs", "lesional_at_baseline", "columns.lesional is not given"),
        ("settings.alpha", "1e-3x", "settings.alpha"),
        ("files.counts.sha256", "abc", "files.counts.sha256"),
        ("columns.covariates", {"body mass": "BMI"}, "letters, digits and underscores"),
        ("columns.covariates", {"group": "BMI"}, "group is the name of another column"),
        ("columns.covariates", {"easi": "BMI"}, "easi is the name of another column"),
        ("columns.covariates", {"change": "BMI"}, "change is the name of another column"),
        ("own_claims", [], "own_claims: Input should be a valid dictionary"),
        ("own_claims", {str(i): {} for i in range(101)}, "at most 100 items"),
        ("claims", "../demo/truth", "letters, digits and underscores"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, key, value, message):
    with pytest.raises(StudyError) as caught:
        study_with(tmp_path, key, value)
    assert str(tmp_path / "study.yaml") in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"title: [", "is not valid YAML"),
        (b"- a\n- b", "is not a study"),
        (b"", "is not a study"),
        (b"title: \xff", "cannot be read"),
        (b"title: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_study_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "study.yaml").write_bytes(content)
    with pytest.raises(StudyError, match=message) as caught:
        load_study(tmp_path)
    assert str(tmp_path / "study.yaml") in str(caught.value)


def test_a_study_survives_json(tmp_path):
    study = study_with(tmp_path)
    assert Study.model_validate_json(study.model_dump_json()).model_dump() == study.model_dump()


def test_references_and_schemas_are_those_of_the_models():
    for path, text in references().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: make reference"


@pytest.mark.parametrize(("file", "fewest"), [("study_yaml.md", 60), ("claims.md", 14)])
def test_references_lack_nothing(file, fewest):
    keys = (Path("docs") / file).read_text(encoding="utf-8").partition("## Names in braces")[0]
    rows = [line.split(" | ") for line in keys.splitlines() if line.startswith("| `")]
    assert len(rows) >= fewest
    for key, kind, default, example, what in rows:
        assert what.strip(" |"), f"{key} has no description"
        assert example != "none", f"{key} has no example"
        assert kind
        assert default


@pytest.mark.parametrize(
    "file",
    [
        "data/demo/study.yaml",
        "data/khadka2021/study.yaml",
        "data/kunstner2022/study.yaml",
        "data/claims/hartmann2023.yaml",
    ],
)
def test_shipped_files_name_their_schema_and_hold_to_it(file):
    first, content = Path(file).read_text(encoding="utf-8").split("\n", 1)
    name = first.removeprefix("# yaml-language-server: $schema=")
    schema = json.loads((Path(file).parent / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    check.validate(yaml.safe_load(content))
    assert not check.is_valid(yaml.safe_load(content) | {"colour": "red"})


def test_the_schema_of_a_study_knows_claims():
    check = jsonschema.Draft202012Validator(json.loads(Path("docs/study.schema.json").read_text(encoding="utf-8")))
    own = yaml.safe_load(OWN)
    assert check.is_valid(STUDY | own)
    own["own_claims"]["X1"]["parts"][0]["contrast"] = "chang"
    (error,) = check.iter_errors(STUDY | own)
    assert list(error.path) == ["own_claims", "X1", "parts", 0, "contrast"]


def test_the_example_of_a_claim_of_ones_own_is_in_the_demo_and_is_right():
    written = Path("data/demo/study.yaml").read_text(encoding="utf-8")
    commented = "".join(f"# {line}" for line in OWN.splitlines(keepends=True))
    assert commented in written
    demo = load_study("data/demo")
    claims = load_claims(demo.model_copy(update=yaml.safe_load(OWN)))
    assert statement(claims["X1"], demo) == "Under Dupilumab, Cutibacterium increases"


def test_every_problem_that_a_reader_names_is_told_and_no_other() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/helpers").rglob("*.py"))
    told = yaml.safe_load((ROOT / "src/helpers/errors.yaml").read_text(encoding="utf-8"))
    named = {name for call in re.findall(r"StudyError\.of\(([^,)]*)", code) for name in re.findall(r'"(\w+)"', call)}
    assert named <= set(told)
    assert all(f'"{name}"' in code for name in told)
    assert all("fix" in parts and "problem" in parts for parts in told.values())
