import ast
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import ROOT, analysed, small_demo, write
from test_shapes import SHAPES, changed

from helpers import evidence
from helpers.claims import VERDICTS, load_claims, measures_of
from helpers.errors import StudyError
from helpers.evidence import people
from helpers.ingest import build_cohort
from helpers.measures import measured, registry
from helpers.quality import without_contaminants
from helpers.run.judging import gathered
from helpers.study import load_study

DEMO = load_study(ROOT / "data" / "demo")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def test_every_section_of_evidence_is_a_section_of_one_notebook() -> None:
    headings = Counter(
        line.removeprefix("## ")
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    )
    sections = {section for contrast in evidence.CONTRASTS.values() for section in contrast.sections.values()}
    assert {section for section in sections if headings[section] != 1} == set()


def spoken(path: Path) -> set[str]:
    """Texts in a module's code, but for its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    said = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in silent)
    return {n.value for n in said if isinstance(n.value, str)}


def test_a_label_a_verdict_and_the_name_of_a_notebook_stand_in_one_place() -> None:
    labels = {measure.label for key, measure in registry(DEMO).items() if measure.kind == "diversity"}
    at_home = {"claims.py": set(VERDICTS), "measures.py": labels}
    names = {path.stem for path in NOTEBOOKS}
    for path in (ROOT / "src" / "helpers").rglob("*.py"):
        elsewhere = {word for home, words in at_home.items() if home != path.name for word in words}
        assert spoken(path) & (elsewhere | names) == set(), path.name
    assert not any(name in (ROOT / "Makefile").read_text(encoding="utf-8") for name in names)


@pytest.mark.slow
def test_the_people_behind_an_estimate_are_as_many_as_it_counts(tmp_path: Path) -> None:
    study = write(small_demo(), tmp_path / "study")
    claims = load_claims(study)
    wanted = [*registry(study), *measures_of(claims)]
    swabs = measured(build_cohort(study)[0], study, study.settings, wanted)
    data = evidence.data_of(swabs.obs, swabs.uns["measures"])
    counted = 0
    for part in evidence.gather(claims, swabs, study, study.settings).to_dict("records"):
        if not part["cannot"]:
            asked = evidence.Asked(*(part[field] for field in evidence.Asked._fields))
            assert len(people(asked, data, study)) == part["n"], part["what"]
            counted += 1
    assert counted > 15


def of_one_claim(folder: Path, monkeypatch: pytest.MonkeyPatch, *parts: dict[str, Any]) -> None:
    """Another paper, with one claim."""
    claim = {"says": "Something under {treatment}", "family": "all", "parts": list(parts)}
    content = {"of": "Nobody 2020", "reference": "none", "families": ["all"], "claims": {"N1": claim}}
    (folder / "nobody.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.setattr("helpers.study.CLAIMS", folder)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["relative abundances", "no arms"])
def test_chapters_need_no_claim_of_the_shipped_file(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_one_claim(tmp_path, monkeypatch, {"measure": "genus", "contrast": "change", "arm": "treatment", "expect": "up"})
    study = write(changed(SHAPES[shape][0](small_demo()), claims="nobody"), tmp_path / "study")
    assert list(analysed(study, tmp_path / "results")) == ["N1"]


def test_a_measure_that_a_study_lacks_is_not_testable_in_any_contrast(tmp_path: Path) -> None:
    study = write(SHAPES["no tree"][0](small_demo()), tmp_path / "study")
    parts: list[dict[str, Any]] = [
        {"measure": "faith_pd", "contrast": contrast, "expect": "up"} for contrast in ("group", "severity", "arms")
    ]
    parts.append({"measure": "faith_pd", "contrast": "change", "arm": "treatment", "expect": "up"})
    study = study.model_copy(update={"own_claims": {"X1": {"says": "Faith", "parts": parts}}})
    swabs = measured(without_contaminants(build_cohort(study)[0], 0.05)[0], study, study.settings)
    found = evidence.gather({"X1": load_claims(study)["X1"]}, swabs, study, study.settings)
    assert set(found["cannot"]) == {"the study gives no tree"}


def test_a_part_without_evidence_stops_the_verdicts(tmp_path: Path) -> None:
    claims = {"C6": load_claims(DEMO)["C6"]}
    row = {"claim": "C6", "measure": "shannon", "contrast": "change", "arm": "treatment", "among": "", "score": ""}
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "02_shift.json").write_text(pd.DataFrame([row]).to_json(orient="records"))
    with pytest.raises(StudyError, match="no notebook gathered evidence for C6 position change treatment"):
        gathered(tmp_path, ["02_diversity"], claims, DEMO)


def test_what_cannot_be_told_is_told_by_its_reason_once(tmp_path: Path) -> None:
    study = write(SHAPES["one arm"][0](small_demo()), tmp_path)
    swabs = measured(without_contaminants(build_cohort(study)[0], 0.05)[0], study, study.settings)
    claims = load_claims(study)
    asked = [evidence.Asked(m, "arms") for m in ("position", "shannon")]
    told = evidence.of_section("Difference between the arms", claims, swabs, study, study.settings, asked).told
    assert told == ["The study has no second arm with patients at both visits."]


def test_no_study_could_have_shown_a_correlation_above_1() -> None:
    row = {"contrast": "severity", "df": 7.0, "se": 0.33, "ci_low": -0.78, "ci_high": 0.51}
    by_hand = np.tanh((1.959964 + 0.841621) / 1.959964 * (np.arctanh(0.51) + np.arctanh(0.78)) / 2)
    assert evidence.detectable(row, 0.05) == pytest.approx(by_hand)
    assert evidence.detectable(row | {"contrast": "group", "se": float("nan")}, 0.05) == pytest.approx(
        0.645 * 2.801585 / 1.959964
    )
