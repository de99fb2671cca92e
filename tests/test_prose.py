"""What the notebooks and the repository may say: no typed result, a finding in each section, no machine's path."""

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from toy import NAMES, ROOT, toy_study

from helpers.narrate import differing, italicised, top_of
from helpers.output import Output
from helpers.study import load_study

#: Numbers that are part of a citation, a claim's name, a heading, a column or a method.
NO_RESULT = re.compile(
    r"\d{4};\d+:[\d–-]+|\d{4}, section [\d.]+|doi:\S+|\bC\d+\b|\bHC3\b|SHA-256|^#+ \d+\.", re.MULTILINE
)
#: A decimal, a percentage, or a whole number of two digits and more.
NUMBER = re.compile(r"(?<![\w.-])(?:\d+\.\d+|\d+(?= ?%)|\d{2,})")
#: Numbers that a text may name, since no data can change them.
CRITERIA = {
    "0.1": "bound of imbalance (Austin 2009); rise of a curve that counts as level",
    "0.05": "what a null's p-value is said not to show",
    "0.5": "added to each count by the CLR",
    "80": "power of the minimum detectable effect",
    "95": "coverage of the intervals drawn behind points, whatever alpha is",
    "100": "per cent: as near as controls; percentage points; the last percentile",
    "27": "size of the comparator arm of Hartmann et al.",
    "25": "quartile",
    "50": "quartile",
    "75": "quartile",
}


def typed(text: str) -> list[str]:
    return [number for number in NUMBER.findall(NO_RESULT.sub("", text)) if number not in CRITERIA]


def cells(name: str) -> list[Any]:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells


@pytest.mark.parametrize("name", NAMES)
def test_no_number_of_a_result_is_typed(name: str) -> None:
    for cell in cells(name):
        if cell.cell_type == "markdown":
            assert typed(cell.source) == [], cell.source
        else:
            texts = [n.value for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Constant)]
            assert [t for t in texts if isinstance(t, str) and " " in t and typed(t)] == []


@pytest.mark.parametrize("text", ["fell by 2.37 CLR", "in 81 % of them", "n = 112", "p < 0.001"])
def test_a_typed_result_would_be_noticed(text: str) -> None:
    assert typed(f"Under treatment *S. aureus* {text} (Holm, Scand J Stat 1979;6:65), as C8 says.")


@pytest.mark.parametrize("name", NAMES)
def test_each_section_has_one_finding_and_each_chapter_one_answer(name: str) -> None:
    findings: dict[str, int] = {}
    answers, section = 0, ""
    for cell in cells(name):
        if cell.cell_type == "markdown" and (heading := re.match("## (.+)", cell.source)):
            section = heading[1]
            findings[section] = 0
        for output in cell.get("outputs", []):
            role = output.get("metadata", {}).get("role")
            answers += role == "answer"
            if role == "finding":
                findings[section] += 1
    assert findings
    assert set(findings.values()) == {1}, findings
    assert answers == 1


def test_a_figure_without_caption_alternative_text_or_n_is_refused(tmp_path: Path) -> None:
    out = Output(tmp_path / "results", load_study(toy_study(tmp_path)))
    good = {"caption": "What it is.", "alt": "What it shows."}
    for texts, said in (({**good, "caption": ""}, "n = 3"), ({**good, "alt": ""}, "n = 3"), (good, "three people")):
        fig = Figure(figsize=(1, 1))
        fig.text(0, 0, said)
        with pytest.raises(ValueError, match="needs a caption, an alternative text, and its n"):
            out.figure(fig, "01_x", **texts)
        assert not (tmp_path / "results").exists()


def test_a_count_of_losses_is_shown_only_where_there_are_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Output(tmp_path / "results", load_study(toy_study(tmp_path)))
    table = pd.DataFrame({"measure": ["a", "b"], "n": [9, 9], "n_dropped": [0, 0], "lost": [0, 0]})
    out.table(table, "01_x", caption="None")
    none = capsys.readouterr().out
    out.table(table.assign(n_dropped=[0, 2]), "01_y", caption="Two")
    assert "dropped" not in none
    assert "lost" in none  # of a taxon, which is a result
    assert "dropped" in capsys.readouterr().out
    assert "n_dropped" in (tmp_path / "results" / "tables" / "01_x.tsv").read_text(encoding="utf-8")


def test_names_of_taxa_are_marked_once_and_only_as_whole_words() -> None:
    names = ["Staphylococcus", "S. aureus", "Staphylococcus aureus"]
    text = "S. aureus, *S. aureus*, Staphylococcus aureus and Staphylococcuses"
    assert italicised(text, names) == "*S. aureus*, *S. aureus*, *Staphylococcus aureus* and Staphylococcuses"


def test_the_most_abundant_taxon_of_each_bar_is_told() -> None:
    bars = pd.DataFrame({"n": [3, 4], "x": [10.0, 1], "y": [5.0, 2], "Other": [85.0, 97]}, index=["A, 1", "A, 2"])
    assert top_of(bars, "genus") == "Most abundant genus on average: *x* in A, 1 (10.0 %); *y* in A, 2 (2.00 %)."


def test_the_taxa_found_are_told_with_the_load_that_would_overturn_them() -> None:
    table = pd.DataFrame(
        {
            "taxon": ["A", "B", "C", "D"], "estimate": np.log([4, 0.5, 2, 1]), "p_value": [0.02, 0.01, 0.5, 0.04],
            "found": [True, True, False, True], "overturned": [0.5, 1.25, np.nan, 0.9],
            "frame_low": np.log(0.9), "frame_high": np.log(1.2),
        }
    )  # fmt: skip
    assert differing(table, "differ", shown=2) == (
        "Of 4 genera, 3 differ, beyond the frame of 0.900 to 1.20 times that holds half of all: *B* 0.500 times "
        "(unless the whole community became 1.25 times as large or more); *A* 4.00 times (unless the whole community "
        "became 0.500 times as large or less); and 1 more, in the table."
    )
    none = differing(table.assign(found=False), "differ")
    assert none == "Of 4 genera, 0 differ, which is not evidence that none does."
    assert differing(table.head(0), "differ") == "No genus could be tested, so that which differ is not known."


def test_the_repository_names_no_machine_and_no_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository: which files are the project's is not known")
    machine = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt)/\w|[A-Z]:\\Users|/tmp/\w")
    registry = re.compile(r"(?:pypi|pythonhosted|npmjs|anaconda)\.(?:org|com)")
    said = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix not in (".png", ".biom", ".rds", ".rda") and path.is_file() and path != Path(__file__):
            text = re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8"))
            if found := [*machine.findall(text), *registry.findall(text)]:
                said[name] = found
    assert said == {}
