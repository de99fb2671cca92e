"""A whole report of a small cohort whose texts are hostile and whose small cells are suppressed, read as pages."""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path

import attacker
import pandas as pd
import pytest
import yaml
from cohorts import ROOT, Files, merged, small_demo, write

from helpers.__main__ import main
from helpers.disclosure import COUNTS

pytestmark = pytest.mark.slow
SCRIPT = "<script>alert(1)</script>"
TAXA = [SCRIPT, "<img src=x onerror=alert(2)>", "=HYPERLINK(1)", "+x", "@x", "$x^2$", "{eval}`1+1`", "y" * 3000]


def hostile(cohort: Files) -> Files:
    """Identifiers that stand out, texts that would do something, ages above the limit."""
    metadata = cohort.metadata.assign(
        patient_id="Qz" + cohort.metadata["patient_id"] + "x7",
        age=cohort.metadata["age"].where(cohort.metadata["patient_id"].ne("C001"), "97"),
    )
    metadata["previous_systemic"] = metadata["previous_systemic"].replace({"yes": "=1+1", "no": "@no"})
    genera = cohort.taxonomy.iloc[:, 1].str.extract(r"g__([^;]*)")[0]
    others = [g for g in genera.value_counts().index if g != "Staphylococcus"]
    renamed = dict(zip(others, TAXA, strict=False))
    lineages = [
        re.sub(r"g__[^;]*; s__.*", f"g__{renamed.get(genus, genus)}; s__", text) if genus in renamed else text
        for genus, text in zip(genera, cohort.taxonomy.iloc[:, 1], strict=True)
    ]
    study = merged(
        cohort.study,
        {
            "title": f"Study {SCRIPT}", "about": f"About {SCRIPT}", "source": SCRIPT, "licence": SCRIPT,
            "labels": {"case": f"AD {SCRIPT}", "control": "$x^$ & <b>b</b>", "treatment": "=cmd",
                       "comparator": "+[a](b:c)"},
            "privacy": {"small_cells": "suppress", "oldest_age": 89},
            "own_claims": {"X1": {"says": f"Falls {SCRIPT}", "parts": [
                {"measure": "shannon", "contrast": "change", "arm": "treatment", "expect": "down"}]}},
        },
    )  # fmt: skip
    taxonomy = cohort.taxonomy.assign(**{cohort.taxonomy.columns[1]: lineages})
    return cohort._replace(metadata=metadata, taxonomy=taxonomy, study=study)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Files]]:
    root, cohort = tmp_path_factory.mktemp("whole"), hostile(small_demo(compared=6))  # an arm of a hidden number
    write(cohort, root / "data" / "small")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copy(ROOT / "data" / "reported.yaml", root / "data")
    with chdir(root):
        assert main(["parameters", "small"]) == 0
        for notebook in sorted((root / "notebooks").glob("0*.ipynb")):
            assert main(["run", "small", notebook.stem]) == 0
        assert main(["site", "small"]) == 0
        yield root / "reports" / "small", cohort


@pytest.mark.parametrize("built", ["small", "demo"])
def test_an_interval_and_the_p_value_beside_it_are_of_one_test(built: str, report: tuple[Path, Files]) -> None:
    """Either both speak against no effect, or neither does: a row whose two disagree cannot be read."""
    tables = report[0] / "results" / "tables" if built == "small" else ROOT / "notebooks" / "reference" / "tables"
    rows = []
    for file in sorted(tables.glob("*.tsv")):
        table = pd.read_csv(file, sep="\t")
        if {"ci_low", "ci_high", "p_value", "level"} <= set(table):
            rows.append(table.assign(table=file.stem, nothing=float(file.stem == "03_presence")))  # of odds, one
    both = pd.concat(rows).dropna(subset=["ci_low", "ci_high", "p_value"])
    assert len(both) > 30
    excluded = (both["ci_low"] > both["nothing"]) | (both["ci_high"] < both["nothing"])
    # Where small cells are suppressed, those near to the level are told as less than it.
    p = both["p_value"].astype(str)
    p = pd.to_numeric(p.str.lstrip("<> ")) - 1e-6 * p.str.startswith("<")
    apart = excluded != (p < 1 - both["level"] / 100 - 1e-9)
    assert not apart.any(), both[apart][["table", "ci_low", "ci_high", "p_value"]]


def test_where_small_counts_are_hidden_no_single_person_is_in_a_page(report: tuple[Path, Files]) -> None:
    pages = list((report[0] / "html").rglob("*.html"))
    assert {"C1.html", "X1.html"} <= {page.name for page in pages}, "a claim of one's own has its card"
    assert "patients.html" not in {page.name for page in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert 'class="interactive"' not in text
        assert "application/json" not in text
    assert not list((report[0] / "html").rglob("people_*"))


def published(report: Path) -> dict[Path, str]:
    """All texts that may leave the machine: pages, their data, tables, figures and executed notebooks."""
    files = [*(report / "html").rglob("*"), *(report / "notebooks").rglob("*"), *(report / "results").rglob("*")]
    kinds = {".html", ".js", ".json", ".tsv", ".svg", ".ipynb", ".txt", ".xml", ".inv"}
    return {path: without_images(path.read_text(encoding="utf-8")) for path in files if path.suffix in kinds}


def without_images(text: str) -> str:
    """A notebook without its base64, in which any letters can stand."""
    return re.sub(r'"image/png": "[^"]*"', "", text)


def named(ids: set[str], text: str) -> set[str]:
    """Those identifiers, of letters and digits, that stand in a text as words."""
    return ids.intersection(re.findall("[A-Za-z0-9]+", text))


class Visible(HTMLParser):
    """Scripts, links, handlers and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.inside, self.code = "", "", False
        self.scripts: list[str] = []
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.code |= tag == "pre"
        self.active += [f"{tag} {k}={v}" for k, v in attributes if k.startswith("on") or "javascript:" in (v or "")]
        if tag == "img" and dict(attributes).get("src") == "x":
            self.active.append("img")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        self.code &= tag != "pre"

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif not self.code:
            self.text += data


def test_texts_of_the_data_are_shown_and_do_nothing(report: tuple[Path, Files]) -> None:
    pages = {path.name: Visible(path.read_text(encoding="utf-8")) for path in (report[0] / "html").glob("*.html")}
    assert len(pages) >= 7
    for name, page in pages.items():
        assert not [s for s in page.scripts if "alert(" in s], name
        assert not [a for a in page.active if "alert" in a or a == "img"], name
    assert SCRIPT in pages["index.html"].text
    for text in (SCRIPT, "<img src=x onerror=alert(2)>", "$x^2$", "{eval}`1+1`", "y" * 70 + "…"):
        assert text in pages["03_taxa.html"].text, text
    assert f"AD {SCRIPT}" in pages["02_diversity.html"].text
    assert "y" * 100 not in pages["03_taxa.html"].text


def test_no_cell_of_a_saved_table_is_a_formula(report: tuple[Path, Files]) -> None:
    seen = 0
    for path in (report[0] / "html" / "files").rglob("*.tsv"):
        for line in path.read_text(encoding="utf-8").splitlines():
            for cell in line.split("\t"):
                seen += cell.lstrip('"').startswith("'")
                if cell.lstrip('"')[:1] in tuple("=+-@"):
                    float(cell)
    assert seen > 20, "the labels and taxa that begin so are there, with an apostrophe"


def test_nobody_is_named(report: tuple[Path, Files]) -> None:
    folder, cohort = report
    texts = published(folder)
    assert len(texts) > 100
    ids = {*cohort.metadata["patient_id"], *cohort.metadata["swab_id"]}
    assert len(ids) > 90
    assert all(named(ids, f"row-{i}:") == {i} for i in ids)
    assert {str(path.relative_to(folder)): who for path, text in texts.items() if (who := named(ids, text))} == {}
    machine = {str(path.name) for path, text in texts.items() if str(folder.parents[1]) in text}
    assert machine == set()


def test_small_counts_are_hidden_and_the_others_rounded(report: tuple[Path, Files]) -> None:
    folder, _ = report
    hidden = 0
    for path in (folder / "html" / "files" / "tables").glob("*.tsv"):
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        for column in (COUNTS & set(table)) | (set(table.columns[1:]) if path.stem == "04_strata" else set()):
            for cell in (c for c in table[column] if c[:1] in tuple("≤0123456789")):  # not names of groups
                hidden += cell == "≤7"
                assert cell == "≤7" or (int(cell) > 7 and int(cell) % 5 == 0), (path.name, column, cell)
        assert not {"df", "se"} & set(table)
    assert hidden > 10
    claims = json.loads((folder / "results" / "claims.json").read_text())
    assert {c["n"] for c in claims} <= {"≤7", *(f"{n}" for n in range(10, 1000, 5))}
    counted = re.compile(r"\bn = (\d[\d,]*)|(?<![\w.,>≤])(\d[\d,]*) (?:kept )?(?:swabs|patients|people|subjects)\b")
    sentences = 0
    for path, text in published(folder).items():
        if path.suffix in (".html", ".svg", ".ipynb") and path.name != "validation.html":
            for found in counted.finditer(Visible(text).text if path.suffix == ".html" else text):
                if "{" not in text[found.start() : found.end()]:
                    number = int((found[1] or found[2]).replace(",", ""))
                    sentences += 1
                    assert number % 5 == 0, (path.name, found[0])
                    assert number > 7, (path.name, found[0])
    assert sentences > 20


#: An estimate with its interval and p-value, as sentences tell it.
SENTENCE = re.compile(r"([−\d.]+)[^()\d]* \((\d+) % interval ([−\d.]+) to ([−\d.]+); p (= |)([<> \d.]+?); n")


def told(folder: Path) -> dict[str, list[attacker.Row]]:
    """All rows of estimates that a report shows, by what shows them."""
    rows = {str(path.relative_to(folder)): attacker.rows_of(path) for path in folder.rglob("*.tsv")}
    records = json.loads((folder / "results" / "claims.json").read_text())
    rows["claims.json"] = [{key: "" if v is None else str(v) for key, v in record.items()} for record in records]
    names = ("estimate", "level", "ci_low", "ci_high", "", "p_value")
    for path, text in published(folder).items():
        found = [
            dict(zip(names, m, strict=True)) for m in SENTENCE.findall(text.replace("−", "-").replace("\\u2212", "-"))
        ]
        rows |= {str(path.relative_to(folder)): found} if found and path.suffix != ".tsv" else {}
    return rows


def computed(folder: Path) -> list[tuple[str, str]]:
    """Where in a report a hidden count can be computed, or a number is too fine, and what was found."""
    every = {name: rows for name, rows in told(folder).items() if "validation" not in name}
    assert sum(bool(attacker.is_number(row.get("ci_low"))) for rows in every.values() for row in rows) > 200
    broken: list[tuple[str, str]] = []
    claims = {row["id"]: row for row in every["results/claims.tsv"]}
    for name, rows in every.items():
        for row in rows:
            ways = [way(row) for way in attacker.OF_A_ROW]
            if "percentiles" in name:  # among the controls, told to tens
                ways.append(attacker.by_shares(row, ("25%", "50%", "75%"), "15", 10))
            if "tipping" in row:
                ways.append(attacker.by_loss(row, claims[row["claim"]]))
            broken += [(name, found) for way in ways for found in way]
            broken += [(name, cell) for column, cell in row.items() if attacker.too_fine(column, cell)]
        same = [row for row in rows if row.get("measure") or row.get("what")]
        for row in claims.values():
            of = [r for r in same if r.get("claims", "").split(", ").count(row["id"]) and r["unit"] == row["unit"]]
            broken += [(name, found) for found in attacker.by_levels([row, *of[:1]])]
    return broken


def test_no_hidden_count_can_be_computed_from_what_is_shown(report: tuple[Path, Files]) -> None:
    assert computed(report[0]) == []


def test_no_hidden_count_can_be_read_off_table_1(report: tuple[Path, Files]) -> None:
    tables = report[0] / "results" / "tables"
    sizes, *rows = attacker.rows_of(tables / "01_table1.tsv")
    first, second = (c for c in sizes if c not in ("characteristic", "level", "missing") and not c.startswith("SMD"))
    pair, (smd,) = (sizes[first], sizes[second]), (c for c in sizes if c.startswith("SMD"))
    levels = [row for row in rows if row["level"] and row[first]]
    assert len(levels) > 2
    for row in levels:
        cells = [row[column].partition(" ")[0] for column in (first, second)]
        assert list(attacker.by_difference(row[smd], cells[0], cells[1], pair)) == []
    flow = pd.DataFrame(attacker.rows_of(tables / "01_flow.tsv")).query("step == 'read'")
    assert "≤7" in set(flow["people"])
    total = str(5 * round(34 / 5))  # as 01_checks has it of everybody
    assert list(attacker.by_totals(total, [n for n in flow["people"] if n != "≤7"])) == []


def test_figures_show_neither_single_people_nor_small_groups(report: tuple[Path, Files]) -> None:
    figures = {path.stem: path.read_text(encoding="utf-8") for path in (report[0] / "html" / "files").rglob("*.svg")}
    assert len(figures) > 10
    assert "03_composition_by_patient" not in figures
    of_people = {name: svg for name, svg in figures.items() if not name.startswith(("03_differential", "validation"))}
    assert {
        name: marks for name, svg in of_people.items() if (marks := [n for n in attacker.marks(svg) if n > 1])
    } == {}
    assert not [name for name, svg in of_people.items() if re.search(r'\b(?:d|x|y)="[^"]*\.\d\d', svg)]
    drawn = (report[0] / "html" / "02_diversity.html").read_text(encoding="utf-8")
    assert "Neither single people nor groups of 7 or fewer are drawn." in drawn


def test_of_an_arm_of_a_hidden_number_nothing_is_shown(report: tuple[Path, Files]) -> None:
    """Neither its own estimates nor the contrast with the other arm."""
    folder, cohort = report
    arm, seen = cohort.study["labels"]["comparator"], 0
    for path in (folder / "html" / "files" / "tables").glob("*.tsv"):
        for row in attacker.rows_of(path) if path.stem not in ("01_flow", "04_strata") else []:
            if any(arm in cell for cell in row.values()):
                seen += 1
                numbers = {c: cell for c, cell in row.items() if attacker.is_number(cell) and c not in COUNTS}
                assert set(numbers) <= {"margin"}, (path.stem, numbers)
    assert seen > 3
    claims = {row["id"]: row for row in json.loads((folder / "results" / "claims.json").read_text())}
    assert {claims[name]["verdict"] for name in ("C7", "C9", "C11", "C12", "C13")} == {"not testable"}
    assert "groups of 7 or fewer are not shown" in claims["C12"]["reason"]


def test_table_1_hides_small_groups_and_shares_that_would_tell_them(report: tuple[Path, Files]) -> None:
    folder, _ = report
    table = pd.read_csv(folder / "results" / "tables" / "01_table1.tsv", sep="\t", dtype=str, keep_default_na=False)
    arms = [c for c in table if not c.startswith(("SMD", "characteristic", "level", "missing"))]
    sizes = table.set_index("characteristic").loc["n", arms]
    assert set(sizes) <= {"≤7", "10", "15"}
    for row in table[table["level"].ne("")].to_dict("records"):
        for arm in arms:
            assert re.fullmatch(r"|≤7|\d*[05] \(\d+\)", row[arm]), row


def test_the_committed_notebooks_name_nobody_of_the_demo_cohort() -> None:
    metadata = pd.read_csv(ROOT / "data" / "demo" / "metadata.tsv", sep="\t", dtype=str, keep_default_na=False)
    ids = {*metadata["patient_id"], *metadata["swab_id"]} - {""}
    assert all(named(ids, f"row-{i}:") == {i} for i in ids)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert not named(ids, without_images(path.read_text(encoding="utf-8"))), path.name


def test_what_is_shared_is_the_report_and_nothing_of_anybody(report: tuple[Path, Files]) -> None:
    folder, _ = report
    (folder / "notebooks" / "02_diversity.failed.ipynb").write_text("rows of the data")
    assert main(["share", "small"]) == 0
    packed = folder / "small-report.zip"
    first = packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        names = set(archive.namelist())
    assert {f"small-report/{n}" for n in ("html/index.html", "results/claims.json", "notebooks/03_taxa.ipynb")} <= names
    assert not [n for n in names if n.endswith(".h5ad") or "evidence" in n or "failed" in n or "/." in n]
    assert main(["share", "small"]) == 0
    assert packed.read_bytes() == first
    assert main(["share", "other"]) == 1


def copied(folder: Path, name: str, by: float, **changes: object) -> None:
    """Another study, whose report is that of ``small`` with all estimates moved."""
    root = folder.parents[1]
    shutil.copytree(root / "data" / "small", root / "data" / name)
    study = yaml.safe_load((root / "data" / name / "study.yaml").read_text())
    (root / "data" / name / "study.yaml").write_text(yaml.safe_dump(study | changes))
    shutil.copytree(folder, root / "reports" / name)
    for file in (root / "reports" / name / "results" / "evidence").glob("*.json"):
        parts = json.loads(file.read_text())
        for part in parts:
            part.update({k: part[k] + by for k in ("estimate", "ci_low", "ci_high") if part[k] is not None})
        file.write_text(json.dumps(parts))


def test_studies_are_laid_side_by_side_and_only_real_ones_pooled(
    report: tuple[Path, Files], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = report
    for i, name in enumerate(["one", "two", "three"]):
        copied(folder, name, 0.1 * i, simulated=False, title=f"Study {name} {SCRIPT}")
    page = folder.parent / "compare" / "index.html"

    assert main(["compare", "small", "nobody", "three"]) == 1
    assert "data/nobody/study.yaml: there is no such file" in capsys.readouterr().err
    assert main(["compare", "small"]) == 1
    assert "two or more" in capsys.readouterr().err
    assert not page.exists()

    assert main(["compare", "small", "one", "two"]) == 0
    told = Visible(page.read_text(encoding="utf-8"))
    assert "SIMULATED DATA in small, not the result of any study" in told.text
    assert "Simulated studies are never pooled. Here nothing is." in told.text
    assert "k = 3" not in told.text

    assert main(["compare", "small", "one", "two", "three"]) == 0
    text = page.read_text(encoding="utf-8")
    told = Visible(text)
    (row,) = re.findall(r'<tr><th scope="row">C8</th>.*?</tr>', text)
    cells = dict(re.findall(r'<td data-label="([^"]*)">(.*?)</td>', row))
    assert list(cells) == ["Claim", "As reported", "small", "one", "two", "three", "Pooled"]
    for said in ("Hartmann et al. 2023", "Olesen et al. 2021", "Callewaert et al. 2020"):
        assert said in cells["As reported"]
    shown = {r["id"]: r for r in json.loads((folder / "results" / "claims.json").read_text())}["C8"]
    assert shown["verdict"] in cells["small"]
    assert f"n = {shown['n']}" in cells["small"]
    own = {name: float(re.search(r"([\d.]+) ×", cells[name])[1]) for name in ("one", "two", "three", "Pooled")}  # type: ignore[index]
    assert own["one"] < own["Pooled"] < own["three"]
    assert "k = 3" in cells["Pooled"]
    for address in re.findall(r'href="(\.\./[^"]+)"', text):
        assert (page.parent / address).is_file(), address
    assert SCRIPT in told.text
    assert not [s for s in told.scripts if "alert(" in s]
    assert not re.search(r'(src|href)="(https?:)?//[^"]*\.(js|css|woff)', text)
    assert not re.search(r"n = [1-7]\b", told.text)


def test_what_was_reported_is_of_claims_and_sources_that_there_are() -> None:
    reported = yaml.safe_load((ROOT / "data" / "reported.yaml").read_text(encoding="utf-8"))
    for name, findings in reported["findings"].items():
        claims = yaml.safe_load((ROOT / "data" / "claims" / f"{name}.yaml").read_text(encoding="utf-8"))["claims"]
        assert set(findings) <= set(claims)
        assert {source for of in findings.values() for source in of} == set(reported["sources"])
