"""The page Reporting standards: the checklists are whole, each item has a reply, and replies follow the study."""

from pathlib import Path
from string import Formatter
from typing import Any

import nbformat
import pandas as pd
import pytest
import yaml
from cohorts import merged
from toy import ROOT

from helpers.site.pages import Run, standards
from helpers.site.pages.standards import ANSWERED, FOR_AUTHORS, IN_PART, NOT_APPLICABLE, Item, Reply
from helpers.study import Study

DEMO = yaml.safe_load((ROOT / "data" / "demo" / "study.yaml").read_text(encoding="utf-8"))
REAL = {"simulated": False}
NO_ARMS = {"columns": {"arm": None}, "adjust": {"arm": []}}
NO_SEVERITY = {"severity": [], "adjust": {"arm": ["age"]}}
#: The last of the numbers x.0, x.1 and so on of each item of STORMS 1.03.
STORMS = dict(enumerate([3, 1, 9, 16, 0, 1, 9, 5, 0, 4, 0, 0, 2, 0, 2, 0, 0], start=1))
#: The items of STROBE that have parts.
PARTS = {1: "ab", 6: "ab", 12: "abcde", 13: "abc", 14: "abc", 16: "abc"}
STROBE = [f"{item}{part}" for item in range(1, 23) for part in PARTS.get(item, [""])]

STUDIES: dict[str, dict[str, Any]] = {
    "simulated": {},
    "real": REAL,
    "trial": REAL | {"randomised": True},
    "no arms": REAL | NO_ARMS,
    "no severity": REAL | NO_SEVERITY,
    "relative": REAL | {"files": {"counts": {"fractions": "relative"}, "tree": None, "taxonomy": "none"}},
    "one visit": REAL | {"columns": {"visit": {"values": {"followup": None}}, "batch": None}},
    "suppressed": REAL | {"privacy": {"small_cells": "suppress"}},
}


def a_run(folder: Path, change: dict[str, Any] | None = None) -> Run:
    """A run of a study like the demo, without results but for a ledger, Table 1 and two verdicts."""
    study = Study.model_validate(merged(DEMO, change or {}))
    claims = pd.DataFrame(
        {"id": ["C1", "C2"], "verdict": ["supported", "not testable"], "reason": ["", "<b>no reads</b>"]}
    )
    tables = folder / "results" / "tables"
    tables.mkdir(parents=True)
    (tables / "01_ledger.tsv").write_text(
        "step\treason\tgroup\tvisit\tswabs_before\tswabs_after\n"
        "read\tall\tcase\tbaseline\t90\t90\nread\tall\tnegative control\tnot recorded\t8\t8\n"
        "depth\tfew\tcase\tbaseline\t90\t83\ndepth\tfew\tnegative control\tnot recorded\t8\t8\n"
    )
    counts = [study.privacy.shown(n) for n in (4, 83)]
    names = f"{study.labels.control}\t{study.labels.treatment}"
    (tables / "01_table1.tsv").write_text(f"characteristic\tlevel\tmissing\t{names}\nn\t\t\t{counts[0]}\t{counts[1]}\n")
    return Run(study, folder, study.settings.model_dump(), claims, pd.DataFrame(), [], folder / "files")


def replies(run: Run) -> dict[str, Reply]:
    known = standards.facts(run)
    return {
        f"{checklist['name']} {item.number}": standards.reply(item, known, simulated=run.study.simulated)
        for checklist in standards.checklists()
        for item in checklist["items"]
    }


def test_checklists_have_every_number_once() -> None:
    numbers = {checklist["name"]: [item.number for item in checklist["items"]] for checklist in standards.checklists()}
    storms = [f"{item}.{part}" for item, last in STORMS.items() for part in range(last + 1)]
    assert numbers == {"STORMS": storms, "STROBE": STROBE}


def test_answers_use_the_facts_that_there_are_and_all_of_them() -> None:
    items = [item for checklist in standards.checklists() for item in checklist["items"]]
    used = {name for item in items for _, name, _, _ in Formatter().parse(item.answer) if name}
    assert used == set(standards.templates())


@pytest.mark.parametrize("change", STUDIES.values(), ids=STUDIES)
def test_each_item_is_answered_or_says_what_is_left_to_the_authors(tmp_path: Path, change: dict[str, Any]) -> None:
    run = a_run(tmp_path, change)
    for number, told in replies(run).items():
        answered, left = bool(told.answer), bool(told.hint)
        expected = {
            ANSWERED: (True, False), IN_PART: (True, True), FOR_AUTHORS: (False, True), NOT_APPLICABLE: (True, False),
        }  # fmt: skip
        assert (answered, left) == expected[told.state], number
        assert told.answer.startswith("Not applicable: ") == (told.state == NOT_APPLICABLE), number
        assert "Not applicable" not in told.answer[1:], number
        assert run.study.simulated or "simulated" not in told.answer, number
        assert told.where == () or told.state != NOT_APPLICABLE


@pytest.mark.parametrize(
    ("item", "change", "told"),
    [
        ("STORMS 3.0", {}, "Simulated data of a cohort study"),
        ("STORMS 3.0", REAL, "The arms were not allocated by chance"),
        ("STORMS 3.0", REAL | {"randomised": True}, "Real data of a randomised trial"),
        ("STORMS 3.0", REAL | NO_ARMS, "No two arms are compared"),
        ("STORMS 3.0", {"columns": {"group": {"values": {"control": None}}}}, "without controls"),
        ("STORMS 3.6", REAL, "83 of 90 swabs are analysed"),
        ("STORMS 3.9", {}, "Not applicable: simulated data."),
        ("STORMS 3.9", REAL, ""),
        ("STORMS 4.8", {}, "The data hold negative controls"),
        ("STORMS 4.9", {"columns": {"control_type": None}}, "Without negative controls"),
        ("STORMS 4.10", REAL | {"files": {"counts": {"fractions": "round"}}}, "were rounded"),
        ("STORMS 4.13", {}, "column sequencing_run of the metadata; no model"),
        ("STORMS 4.13", {"adjust": {"group": ["batch"]}}, "models of patients against controls are adjusted"),
        ("STORMS 4.13", {"columns": {"batch": None}}, "name no batch"),
        ("STORMS 6.0", {"adjust": {"group": ["sex"]}}, "compared given: sex."),
        ("STORMS 7.0", {"settings": {"rarefaction_depth": 2500}}, "2,500 reads"),
        ("STORMS 7.0", {"files": {"counts": {"fractions": "relative"}}}, "Relative abundances are taken as given"),
        ("STORMS 7.1", {"settings": {"rarefaction_depth": 2500}}, "fewer than 1,000 reads are left out, and of"),
        ("STORMS 7.2", {}, "phylogenetic tree: from a file"),
        ("STORMS 7.2", {"files": {"tree": None}}, "phylogenetic tree: none"),
        ("STORMS 7.4", {"columns": {"visit": {"values": {"followup": None}}}}, "Not applicable: one visit"),
        ("STORMS 11.0", {}, "1 supported, 1 not testable"),
        ("STROBE 12b", NO_SEVERITY | NO_ARMS, ""),
        ("STROBE 16b", {"response": {"responder": 60}}, "cut at 50, 60 and 90 %"),
        ("STROBE 16b", NO_SEVERITY, "no severity score"),
    ],
)
def test_answers_follow_the_study(tmp_path: Path, item: str, change: dict[str, Any], told: str) -> None:
    answer = replies(a_run(tmp_path, change))[item].answer
    assert told in answer
    assert told or not answer


def test_counts_are_shown_as_the_study_allows(tmp_path: Path) -> None:
    shown = replies(a_run(tmp_path / "open", REAL))["STORMS 3.6"].answer
    hidden = replies(a_run(tmp_path / "hidden", STUDIES["suppressed"]))["STORMS 3.6"].answer
    assert "People at baseline: 4 Healthy skin, 83 Dupilumab." in shown
    assert "People at baseline: ≤7 Healthy skin, 85 Dupilumab." in hidden
    assert "swabs are kept" not in hidden


def test_places_are_sections_of_the_notebooks_or_pages(tmp_path: Path) -> None:
    headings = {
        (path.stem, line.removeprefix("## "))
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    }
    places = {where for checklist in standards.checklists() for item in checklist["items"] for where in item.where}
    parts = {tuple(where.split("#")) for where in places if where.split("#")[0] not in standards.BESIDE}
    assert parts - headings == set()
    assert standards.place("01_ingest#Sample flow") == ("Chapter 1: Sample flow", "01_ingest.html#sample-flow")
    assert 'href="01_ingest.html#sample-flow"' in standards.page(a_run(tmp_path))


def test_page_counts_its_replies(tmp_path: Path) -> None:
    page = standards.page(a_run(tmp_path, REAL))
    answered, in_part, left = (page.count(f"<td><b>{state}") for state in ("Answered.", "In part.", "For the authors:"))
    assert answered + in_part + left == sum(last + 1 for last in STORMS.values()) + len(STROBE)
    told = f"answers {answered}, and {in_part} in part; {left} are for the authors"
    assert told in page
    assert "CONSORT" not in page
    assert "CONSORT" in standards.page(a_run(tmp_path / "trial", STUDIES["trial"]))


def test_text_of_the_study_stays_text(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>`{design}`"
    labels = dict.fromkeys(("control", "case", "treatment", "comparator", "baseline", "followup", "site"), bad)
    severity = [{"name": "easi", "column": "EASI", "label": bad, "range": [0, 72]}]
    taxa = {"genus": bad, "pathogen": bad, "commensal": bad}
    hostile = {"title": bad, "source": bad, "licence": f"=1+1{bad}", "labels": labels, "severity": severity}
    page = standards.page(a_run(tmp_path, hostile | {"taxa": taxa, "columns": {"site": bad, "batch": bad}}))
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert "<script" not in page
    assert "<b>no reads" not in page
    assert page.count("`") == 6 * 3, "of the three blocks of HTML"


def test_download_has_a_row_an_item_and_no_formula(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    standards.page(run)
    rows = pd.read_csv(run.files / standards.DOWNLOAD, sep="\t", dtype=str, keep_default_na=False)
    assert list(rows["checklist"] + " " + rows["item"]) == list(replies(run))
    assert set(rows["where in the manuscript"]) == {""}
    formula = standards.reply(Item("1", "=1+1", answer="@SUM(A1)"), {}, simulated=False)
    assert "\t'=1+1\tanswered\t'@SUM(A1)\t" in standards.download({"x": [formula]})
