"""Pages of prose and of comparison: they say what the study is and what moved, and nothing that it is not."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from toy import ROOT, STUDY, toy_study

from helpers import narrate
from helpers.claims import INCONCLUSIVE, NOT_TESTABLE, load_claims
from helpers.errors import StudyError
from helpers.site.pages import Run, changes, escaped, index, methods
from helpers.study import Study, load_study


def run_of(study: Study, folder: Path = Path(), **changed: Any) -> Run:
    parameters = study.settings.model_dump() | changed
    return Run(study, folder, parameters, pd.DataFrame(), pd.DataFrame(), [], folder)


def methods_of(study: Study, **changed: Any) -> str:
    return " ".join(methods.page(run_of(study, **changed)).replace("\\", "").split())


def test_methods_say_the_parameters_of_the_run() -> None:
    demo = load_study(ROOT / "data" / "demo")
    told = methods_of(demo, permutations=4999, rarefaction_depth=2500, equivalence_margin=0.35, alpha=0.01)
    for text in ("4,999 permutations", "2,500 reads", "0.35 standard deviations", "that cover 99 %", "(2023)"):
        assert text in told
    assert "adjusted for age, sex, EASI, previous systemic, previous cyclosporine" in told


def test_methods_leave_out_what_the_study_lacks(tmp_path: Path) -> None:
    demo, bare = load_study(ROOT / "data" / "demo"), load_study(toy_study(tmp_path))
    for only_demo in ("UniFrac", "removed as contaminants", "analysis of covariance", "partial Spearman", "Faith"):
        assert only_demo in methods_of(demo)
        assert only_demo not in methods_of(bare)
    assert "not allocated by chance" in methods_of(demo)
    assert "not allocated" not in methods_of(demo.model_copy(update={"randomised": True}))
    (tmp_path / "relative").mkdir()
    relative = STUDY.replace("counts.tsv", "counts.tsv, fractions: relative")
    assert "LinDA" not in methods_of(load_study(toy_study(tmp_path / "relative", relative)))


def test_every_reference_is_cited_and_every_citation_is_a_reference() -> None:
    pages = ROOT / "src" / "helpers" / "site" / "pages"
    cited = re.findall(r"\{cite:[pt]\}`([^`]+)`", "".join(p.read_text() for p in pages.glob("*.j2")))
    known = re.findall(r"^@\w+\{(\w+),", (pages / "references.bib").read_text(), re.MULTILINE)
    assert {key for keys in cited for key in keys.split(",")} == set(known)


def test_what_a_page_inserts_is_taken_as_it_stands(tmp_path: Path) -> None:
    study = load_study(toy_study(tmp_path, STUDY + 'labels: {case: "{eval}`1` <b> [a](b:c) *x*"}\n'))
    assert escaped("{eval}`1` <b>") == r"\{eval\}\`1\` \<b\>"
    assert r"\{eval\}\`1\` \<b\> \[a\]\(b\:c\) \*x\*" in methods.page(run_of(study))


# ---------------------------------------------------------------- what changed

CLAIMS = "id\tverdict\testimate\tci_low\tci_high\tn\n"


def results(folder: Path, claims: str, tables: dict[str, str], figures: dict[str, bytes]) -> Path:
    for kind in ("tables", "figures"):
        (folder / kind).mkdir(parents=True)
    (folder / "claims.tsv").write_text(CLAIMS + claims)
    for name, text in tables.items():
        (folder / "tables" / f"{name}.tsv").write_text(text)
    for name, content in figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(content)
    return folder


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    before = results(
        tmp_path / "before" / "results",
        "C1\tsupported\t-0.5\t-0.8\t-0.2\t30\nC2\tinconclusive\t1\t-1\t3\t30\n",
        {
            "01_same": "a\tb\nx\t1.0\n",
            "01_moved": "a\tb\tc\nx\t1\t5\ny\t2\t5\n",
            "01_longer": "a\n1\n",
            "01_gone": "a\n",
        },
        {"01_x": b"1", "01_y": b"2"},
    )
    after = results(
        tmp_path / "after" / "results",
        "C1\tinconclusive\t-0.3\t-0.8\t0.2\t29\nC2\tinconclusive\t1.00000000001\t-1\t3\t30\n",
        {"01_same": "a\tb\nx\t1.00000001\n", "01_moved": "a\tb\tc\nx\t1.1\t5\ny\t4\t5\n", "01_longer": "a\n1\n2\n"},
        {"01_x": b"1", "01_y": b"3"},
    )
    return before, after


def test_what_moved_is_told_with_by_how_much(two_runs: tuple[Path, Path]) -> None:
    before, after = (changes.read_results(folder) for folder in two_runs)
    (claim,) = changes.moved_claims(before.claims, after.claims).to_dict("records")
    assert claim == {
        "id": "C1", "verdict": "supported → inconclusive", "estimate": "−0.500 → −0.300", "change": "0.200",
        "interval": "−0.800 to −0.200 → −0.800 to 0.200", "n": "30 → 29",
    }  # fmt: skip
    tables = changes.moved_tables(before.tables, after.tables).set_index("table")
    assert tables["what"].to_dict() == {
        "01_gone": "gone",
        "01_longer": "other rows or columns: 1 rows, 1 columns → 2 rows, 1 columns",
        "01_moved": "2 of 6 cells",
    }
    assert tables.loc["01_moved", "largest"] == "y, b: 2.00 → 4.00"


def test_the_page_compares_with_the_run_that_was_named(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    before, after = two_runs
    run = run_of(load_study(toy_study(tmp_path)), after.parent)._replace(
        against=changes.earlier_run(str(before.parent))
    )
    page = changes.page(run)
    assert "1 of 2 claims moved, 1 of them to another verdict; 3 of 4 tables and 1 of 2 figures" in page
    assert "<li>01_y</li>" in page
    same = changes.page(run._replace(against=after))
    assert "0 of 2 claims moved, 0 of them to another verdict; 0 of 3 tables and 0 of 2 figures" in same
    with pytest.raises(StudyError, match="no results of an earlier run"):
        changes.earlier_run(str(tmp_path))


def test_a_kept_reference_compares_as_the_run_it_was_kept_of(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    changes.keep_results(two_runs[0], tmp_path / "kept")
    changes.keep_results(two_runs[1], tmp_path / "kept")
    kept, run = changes.read_results(tmp_path / "kept"), changes.read_results(two_runs[1])
    assert kept.figures == run.figures
    assert kept.tables.keys() == run.tables.keys()
    assert changes.moved_claims(kept.claims, run.claims).empty


def test_the_committed_reference_is_of_the_committed_notebooks() -> None:
    """Whoever runs `make reference` commits both; the notebooks' numbers themselves nbval compares."""
    shown = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shown |= set(re.findall(r'"table": "(\w+)"', path.read_text()))
    kept = changes.read_results(ROOT / changes.REFERENCE)
    assert kept.tables.keys() == shown
    assert list(kept.claims["id"]) == list(load_claims(load_study(ROOT / "data" / "demo")))


def test_a_study_that_cannot_test_the_primary_claims_opens_with_what_it_shows() -> None:
    demo = load_study(ROOT / "data" / "demo")
    claims = pd.DataFrame({"id": ["C12", "C13", "C1"], "verdict": [NOT_TESTABLE, NOT_TESTABLE, INCONCLUSIVE]})
    assert index.answers(run_of(demo)._replace(claims=claims)) == ["C12, C13 are not testable here."]


def test_where_no_two_arms_are_nothing_is_said_of_their_allocation() -> None:
    demo = load_study(ROOT / "data" / "demo")
    assert demo.columns.arm is not None
    one = demo.columns.arm.model_copy(update={"values": {"treatment": ["x"]}})
    for arm in (one, None):
        study = demo.model_copy(update={"columns": demo.columns.model_copy(update={"arm": arm})})
        assert narrate.allocation(study) == "No two arms are compared."
