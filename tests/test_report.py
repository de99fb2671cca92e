import ast
import json
import os
import re
import shutil
from collections import Counter
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from toy import BODY, NAMES, ROOT, STUDY, toy_notebook, toy_study

from helpers.__main__ import main
from helpers.claims import COLUMNS, NOT_TESTABLE, OF_SPECIFICATIONS, SUPPORTED
from helpers.errors import StudyError
from helpers.run.execution import execute, tidied
from helpers.run.parameters import notebook_defaults, parse_overrides, resolve_settings
from helpers.site.build import build_site
from helpers.site.pages import standards
from helpers.site.pdf import joined
from helpers.study import Settings, load_study

pytestmark = pytest.mark.slow
COMMITTED = sorted((ROOT / "notebooks").glob("*.ipynb"))
OTHER = STUDY.replace("counts.tsv", f"counts.tsv, sha256: {'a' * 64}")


# ---------------------------------------------------------------- parameters


def test_set_is_read_as_text_and_converted_to_the_type_of_the_parameter(tmp_path: Path) -> None:
    study = load_study(toy_study(tmp_path))
    text = "permutations=0999 alpha=1e-3 swabs='all' equivalence_margin=2"
    settings = resolve_settings(study, text)
    assert (settings.permutations, settings.alpha, settings.equivalence_margin) == (999, 0.001, 2.0)
    assert resolve_settings(study).permutations == 199, "study.yaml's own setting is kept"
    assert parse_overrides("") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permutation=9", ["no parameter permutation", "did you mean permutations", "min_prevalence"]),
        ("permutations=no", ["permutations", "'no'", "integer"]),
        ("permutations=1e3", ["permutations", "'1e3'", "integer"]),
        ("alpha=2", ["alpha", "'2'", "less than 0.5"]),
        ("alpha=nan", ["alpha"]),
        ("equivalence_margin=inf", ["equivalence_margin", "finite"]),
        ("permutations", ["permutations", "not a parameter and its value"]),
        ("permutations=", ["permutations=", "not a parameter and its value"]),
        ("seed=1 seed=2", ["seed is given twice"]),
        ("swabs='all", ["quotation"]),
        ("swabs=lesional_at_baseline", ["columns.lesional"]),
    ],
)
def test_wrong_set_is_refused_with_what_was_found(tmp_path: Path, text: str, told: list[str]) -> None:
    with pytest.raises(StudyError) as error:
        resolve_settings(load_study(toy_study(tmp_path)), text)
    assert [t for t in told if t not in str(error.value)] == []


def test_step_parameters_writes_them_and_the_inputs_for_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_study(tmp_path)
    toy_notebook(tmp_path / "notebooks" / "01_ingest.ipynb", "")
    monkeypatch.chdir(tmp_path)
    assert main(["parameters", "demo", "--set", "seed=7"]) == 0
    parameters = yaml.safe_load(Path("reports/demo/parameters.yaml").read_text())
    assert parameters["seed"] == 7
    assert parameters["results_dir"] == "../reports/demo/results"
    assert "'data/demo/meta data.tsv'" in Path("reports/demo/inputs.mk").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: Path("data/demo/counts.tsv").unlink(), "data/demo/counts.tsv: there is no such file"),
        (lambda: toy_notebook(Path("notebooks/01_ingest.ipynb"), "", "speed = 1"), "unknown parameters: speed"),
        (lambda: toy_notebook(Path("notebooks/01_ingest.ipynb"), "", "seed = 1 + 1"), "may only assign literals"),
        (lambda: Path("data/demo/study.yaml").write_text(OTHER), "is not the file that study.yaml describes"),
    ],
)
def test_step_parameters_names_what_is_wrong_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: Any, told: str
) -> None:
    toy_study(tmp_path)
    toy_notebook(tmp_path / "notebooks" / "01_ingest.ipynb", "")
    monkeypatch.chdir(tmp_path)
    change()
    assert main(["parameters", "demo"]) == 1
    err = capsys.readouterr().err
    assert told in err
    assert "Traceback" not in err
    assert not Path("reports").exists()


# ---------------------------------------------------------------- running, and the site


def test_failed_notebook_is_kept_beside_and_leaves_no_target(tmp_path: Path) -> None:
    source = toy_notebook(tmp_path / "notebooks" / "02_bad.ipynb", "print('before')\nraise ValueError('too few')")
    target = tmp_path / "out" / "02_bad.ipynb"
    with pytest.raises(StudyError) as error:
        execute(source, target, {})
    assert sorted(path.name for path in target.parent.iterdir()) == ["02_bad.failed.ipynb"]
    for told in ("02_bad", "S. aureus", "ValueError: too few", "02_bad.failed.ipynb"):
        assert told in str(error.value)
    assert "before" in target.with_name("02_bad.failed.ipynb").read_text()


def test_study_error_in_a_notebook_is_told_without_traceback(tmp_path: Path) -> None:
    body = "from helpers.study import StudyError\nraise StudyError('no such column', file='metadata.tsv')"
    source = toy_notebook(tmp_path / "notebooks" / "02_bad.ipynb", body)
    with pytest.raises(StudyError) as error:
        execute(source, tmp_path / "02_bad.ipynb", {})
    assert str(error.value) == "[02_bad] stopped: metadata.tsv: no such column"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project whose report was built."""
    root = tmp_path_factory.mktemp("toy")
    toy_study(root)
    toy_notebook(root / "notebooks" / "01_ingest.ipynb", BODY)
    stale = root / "reports/demo/notebooks/01_ingest.failed.ipynb"
    stale.parent.mkdir(parents=True)
    stale.touch()
    renamed = [root / f"reports/demo/results/{name}" for name in ("tables/01_old.tsv", "evidence/01_old.json")]
    for path in renamed:
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9, 1e9))
    with chdir(root):
        assert main(["parameters", "demo", "--set", "permutations=299"]) == 0
        assert main(["run", "demo", "01_ingest"]) == 0
        assert not stale.exists()
        assert [path for path in renamed if path.exists()] == []
        build_site("demo")
    return root / "reports" / "demo"


class Page(HTMLParser):
    """Elements of a page: tag and attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_notebook_is_run_with_the_parameters_that_it_declares_and_is_tidy(built: Path) -> None:
    notebook = nbformat.read(built / "notebooks" / "01_ingest.ipynb", as_version=4)
    (injected,) = (c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert injected.source.splitlines()[1:] == [
        'study_dir = "../data/demo"',
        'results_dir = "../reports/demo/results"',
        "permutations = 299",
    ]
    assert tidied(notebook) == nbformat.read(built / "notebooks" / "01_ingest.ipynb", as_version=4)
    assert "papermill" not in json.dumps(notebook)
    assert str(built.parent.parent) not in json.dumps(notebook)
    shown = [list(output.data) for output in notebook.cells[-1].outputs]
    assert shown[:3] == [["text/html", "text/plain"], ["image/png", "text/plain"], ["text/markdown", "text/plain"]]
    assert notebook.cells[-1].outputs[1].data["text/plain"] == "Figure: 01_line"


def test_steps_note_for_make_what_they_saved(built: Path) -> None:
    noted = {path.stem: path.read_text().split()[2:] for path in (built / ".runs").glob("*.mk")}
    assert set(noted) == {"01_ingest", "site"}
    made = {"tables/01_taxa.tsv", "figures/01_line.svg", "evidence/01_all.json", "cohort.h5ad"}
    assert {"notebooks/01_ingest.ipynb", *(f"results/{name}" for name in made)} <= set(noted["01_ingest"])
    assert {"html/index.html", "results/claims.json", "results/figures/claims.png"} <= set(noted["site"])
    assert {"ro-crate-metadata.json", "html/files/tables/01_taxa.tsv"} <= set(noted["site"])
    assert [name for names in noted.values() for name in names if not (built / name).is_file()] == []


def test_site_loads_nothing_from_elsewhere(built: Path) -> None:
    pages, loaded = sorted(path for kind in ("*", "claims/*") for path in (built / "html").glob(f"{kind}.html")), 0
    assert {"index.html", "01_ingest.html", "search.html"} <= {page.name for page in pages}
    for page in pages:
        for tag, attributes in Page(page).elements:
            for address in (attributes.get("src"), attributes.get("href") if tag == "link" else None):
                loaded += address is not None
                assert not re.match(r"(\w+:)?//", address or ""), f"{page.name}: {tag} {address}"
                if address and not address.startswith(("data:", "#")):
                    assert (page.parent / address.split("?")[0]).is_file(), f"{page.name}: {address}"
    assert loaded > 10
    for style in (built / "html").rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]*)", style.read_text(encoding="utf-8"))
        assert [a for a in addresses if re.match(r"(https?:)?//", a)] == [], style


def test_images_have_alternative_text_and_the_code_is_there_but_folded(built: Path) -> None:
    page = Page(built / "html" / "01_ingest.html")
    (image,) = page.all("img")
    assert image == {"src": "files/figures/01_line.png", "alt": 'Rising "line"'}
    assert all(image["alt"] for image in Page(built / "html" / "index.html").all("img"))
    assert page.text.count("Show code cell source") == 1, "code that shows nothing is with that which shows something"
    assert not any("open" in details for details in page.all("details"))
    for kind in ("png", "svg"):
        assert (built / "html" / "files" / "figures" / f"01_line.{kind}").is_file()
    assert {"href": "files/tables/01_taxa.tsv"} in page.all("a")


def test_a_chapter_opens_with_its_answer_and_a_section_with_its_finding(built: Path) -> None:
    text = Page(built / "html" / "01_ingest.html").text
    text = text[text.rindex("Who is in the data?") :]
    order = [
        text.index(part) for part in ("The <b>answer</b>.", "2 ways?", "What was found.", "What is done.", "A line")
    ]
    assert order == sorted(order)
    assert text.count("What was found.") == text.count("The <b>answer</b>.") == 2, "once in the text, once in the code"


def test_text_of_the_data_stays_text(built: Path) -> None:
    for name in ("index.html", "01_ingest.html", "reporting_standards.html"):
        text = (built / "html" / name).read_text(encoding="utf-8")
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "<b>skin" not in text
        assert "<i>study" not in text
        assert "SIMULATED DATA" in Page(built / "html" / name).text
    assert "<script>alert(1)</script>" in Page(built / "html" / "01_ingest.html").text
    index = Page(built / "html" / "index.html")
    assert "A *toy* & <i>study</i>" in index.text
    assert "A cohort <script>alert(1)</script> of ``` nothing." in " ".join(index.text.split())


def test_claims_lead_to_their_sections(built: Path) -> None:
    claims = json.loads((built / "results" / "claims.json").read_text())
    assert list(claims[0]) == [*COLUMNS, *OF_SPECIFICATIONS]
    assert [(c["id"], c["verdict"], c["estimate"]) for c in claims[:2]] == [
        ("C1", SUPPORTED, -0.5),
        ("C2", NOT_TESTABLE, None),
    ]
    index, page = Page(built / "html" / "index.html"), Page(built / "html" / "01_ingest.html")
    assert "● supported" in index.text
    assert [a for a in index.all("a") if a.get("href") == "claims/C1.html"]
    card = Page(built / "html" / "claims" / "C1.html")
    assert [a for a in card.all("a") if a.get("href") == "../01_ingest.html#s-aureus-more-2-ways"]
    assert any(attributes.get("id") == "s-aureus-more-2-ways" for _, attributes in page.elements)


def test_reporting_standards_lead_to_sections_of_the_pages_beside_the_notebooks(built: Path) -> None:
    links = {a.get("href") or "" for a in Page(built / "html" / "reporting_standards.html").all("a")}
    assert {"files/reporting_standards.tsv", "index.html#downloads", "methods.html", "provenance.html"} <= links
    for _, address in standards.BESIDE.values():
        page = built / "html" / address
        anchors = {link.partition("#")[2] for link in links if link.startswith(f"{address}#")}
        if page.is_file():
            assert anchors <= {attributes.get("id") for _, attributes in Page(page).elements}, address
    assert (built / "html" / "files" / "reporting_standards.tsv").is_file()


def test_site_is_refused_if_a_claim_names_a_section_that_is_not_there(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built.parent.parent, tmp_path / "toy")
    monkeypatch.chdir(tmp_path / "toy")
    estimates = Path("reports/demo/results/evidence/01_all.json")
    estimates.write_text(estimates.read_text().replace("2 ways", "3 ways"))
    before = Path("reports/demo/html/index.html").stat().st_ino
    with pytest.raises(StudyError, match="there is no section"):
        build_site("demo")
    assert Path("reports/demo/html/index.html").stat().st_ino == before, "the old site stays"
    assert [p.name for p in Path("reports/demo").iterdir() if p.name.startswith(".unfinished")] == []


def test_for_paper_the_pages_are_one_whose_links_stay_in_it(built: Path) -> None:
    whole = joined(built / "html")
    page = BeautifulSoup(whole, "html.parser")
    pages = [article["id"] for article in page.find_all("article")]
    assert pages[:2] == ["index.html", "claims/C1.html"], "the cards before the chapters"
    assert "methods.html" in pages
    assert not {"provenance.html", "reporting_standards.html"} & set(pages), "which are for the screen"
    ids = [tag["id"] for article in page.find_all("article") for tag in [article, *article.find_all(id=True)]]
    assert len(ids) == len(set(ids))
    addresses = [str(link["href"]) for article in page.find_all("article") for link in article.find_all("a", href=True)]
    inside = {address.removeprefix("#") for address in addresses if not address.startswith("https://")}
    assert {"01_ingest.html-s-aureus-more-2-ways", "methods.html"} <= inside & set(ids)
    assert {address.partition(".html")[0] + ".html" for address in inside} <= set(pages)
    assert page.find("script") is None
    assert 'content: "SIMULATED DATA' in whole


def test_without_a_browser_the_pdf_is_refused_with_what_to_install(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built.parent.parent)
    before = sorted(path.name for path in built.iterdir())
    monkeypatch.setattr("helpers.site.pdf.find_chromium", lambda: None)
    assert main(["pdf", "demo"]) == 1
    assert "install Chromium or Chrome" in capsys.readouterr().err
    monkeypatch.setattr("helpers.site.pdf.find_chromium", lambda: shutil.which("false"))
    assert main(["pdf", "demo"]) == 1
    assert "the browser failed" in capsys.readouterr().err
    assert main(["pdf", "none"]) == 1
    assert "there is no report" in capsys.readouterr().err
    assert sorted(path.name for path in built.iterdir()) == before


# ---------------------------------------------------------------- the committed notebooks


def test_the_notebooks_are_those_that_the_toy_project_has() -> None:
    assert [path.stem for path in COMMITTED] == NAMES


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_defaults_of_the_notebook_are_the_settings_of_the_demo(path: Path) -> None:
    defaults = notebook_defaults(path)
    assert defaults.pop("study_dir", "../data/demo") == "../data/demo"
    assert defaults.pop("results_dir") == "../reports/reference/results"
    assert defaults.pop("robustness", "light") == "light"  # the whole multiverse would take as long as all other tests
    settings = load_study(ROOT / "data" / "demo").settings.model_dump()
    assert set(defaults) <= set(Settings.model_fields)
    assert defaults == {name: settings[name] for name in defaults}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_a_name_in_it_means_one_thing(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    lines = [line.strip() for cell in cells for line in cell.source.splitlines()]
    assert sum(bool(line) and not line.startswith("#") for line in lines) <= 120
    bound = Counter(name for cell in cells for name in bound_in(cell.source))
    assert {name for name, times in bound.items() if times > 1} <= {"answer"}, (
        "the answer grows from section to section"
    )


def bound_in(source: str) -> set[str]:
    """Names that a cell binds, but for those inside of comprehensions."""
    tree = ast.parse(source)
    inside = [c.target for c in ast.walk(tree) if isinstance(c, ast.comprehension)]
    passing = {id(n) for target in inside for n in ast.walk(target)}
    names = (n for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return {n.id for n in names if id(n) not in passing}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_notebook_is_committed_with_clean_outputs(path: Path) -> None:
    """Cells without an execution count are not compared by nbval: it would pass on a stripped notebook."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) >= 5
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
    said = json.dumps(
        [o.get("text", {k: v for k, v in o.get("data", {}).items() if "image" not in k}) for o in outputs]
    )
    assert re.findall(r"(?:/(?:home|root|work|tmp|Users|opt)/|[A-Z]:\\\\|0x[0-9a-f]{6})[^\s\"]*", said) == []
    assert tidied(nbformat.read(path, as_version=4)) == notebook, "edited and not re-run: make reference"
