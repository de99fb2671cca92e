"""Where a report says that it comes from: its page, its RO-Crate, the links from results to code."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import zipfile
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from rocrate.rocrate import ROCrate
from toy import BODY, NAMES, STUDY, make, toy_notebook, toy_project, toy_study

from helpers.__main__ import main
from helpers.errors import StudyError
from helpers.files import report_of
from helpers.run.origin import Ran, commit, run_times
from helpers.site import build
from helpers.site.pages import prose
from helpers.site.pages.provenance import seeded
from helpers.study import Settings

pytestmark = pytest.mark.slow
ADDRESS = "https://example.org/counts.tsv"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/ro/wfrun/provenance/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
}


def git(project: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Qx Author", "-c", "user.email=qx@example.org"]
    command = ["git", "-C", str(project), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report made and shared by make, in a git repository whose folder and user stand out."""
    root = tmp_path_factory.mktemp("toy") / "Qxfolder & <b> ünder 100%"
    root.mkdir()
    project = toy_project(root)
    (project / ".gitignore").write_text("reports/\n")
    (project / "requirements.lock").write_text(
        "numpy==2.0.0 \\\n    --hash=sha256:00\nscipy==1.0 ; python_version < '4'\n"
    )
    with chdir(project), pytest.MonkeyPatch.context() as patch:
        for name in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(name, "qxuser")
        git(project, "init", "--quiet")
        git(project, "add", "--all")
        git(project, "commit", "--quiet", "--message=A toy")
        process = make(project, "SET=permutations=299")
        said = process.communicate()
        assert process.returncode == 0, said
        assert main(["share", "demo"]) == 0
    return project


@pytest.fixture(scope="module")
def unpacked(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What others unpack."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(made / "reports/demo/demo-report.zip") as archive:
        archive.extractall(folder)
    return folder / "demo-report"


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose steps were run one by one: no make, no git, no lock; an input file elsewhere on the machine."""
    root = tmp_path_factory.mktemp("toy")
    elsewhere = root / "Qxelsewhere" / "counts.tsv"
    elsewhere.parent.mkdir()
    elsewhere.write_text("counts\n")
    checksum = hashlib.sha256(b"counts\n").hexdigest()
    toy_study(root, STUDY.replace("counts.tsv", f"{elsewhere}, sha256: {checksum}, url: '{ADDRESS}'"))
    toy_notebook(root / "notebooks" / "01_ingest.ipynb", BODY)
    with chdir(root):
        assert main(["parameters", "demo"]) == 0
        assert main(["run", "demo", "01_ingest"]) == 0
        (root / "reports/demo/.runs/01_ingest.json").unlink()
        assert main(["site", "demo"]) == 0
    return root / "reports" / "demo"


def text_of(page: Path) -> str:
    """Its text without the tags."""
    return " ".join(BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").get_text(" ").split())


def entities(folder: Path) -> dict[str, dict[str, Any]]:
    graph = json.loads((folder / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
    assert len({entity["@id"] for entity in graph}) == len(graph)
    return {entity["@id"]: entity for entity in graph}


def refers(value: Any) -> set[str]:
    return {reference["@id"] for reference in (value if isinstance(value, list) else [value])}


def test_a_report_built_under_other_privacy_settings_is_not_sent(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = shutil.copytree(made, tmp_path / "toy", symlinks=True)
    report, study = project / "reports/demo", project / "data/demo/study.yaml"
    (report / "demo-report.zip").unlink()
    old, text = (study.stat().st_mtime - 1000,) * 2, study.read_text()
    study.write_text(text + "privacy: {small_cells: suppress}\n")
    os.utime(study, old)
    with chdir(project):
        for step in ("share", "pdf"):
            assert main([step, "demo"]) == 1
            assert capsys.readouterr().err.splitlines() == [
                "reports/demo/html: was built under other privacy settings than study.yaml has: not to be sent",
                f"  where:    {', '.join(NAMES)}, site",
                '  found:    {"small_cells":"show","oldest_age":null}',
                '  expected: {"small_cells":"suppress","oldest_age":null}',
                "  fix:      make report STUDY=demo",
            ]
        # Some chapters were run again and the site was not, or the other way round; then study.yaml was as before.
        study.write_text(text)
        for step in ("site", NAMES[1]):
            noted = report / ".runs" / f"{step}.privacy"
            before = noted.read_text()
            for content, found in (('{"small_cells":"suppress","oldest_age":null}',) * 2, (None, "not known")):
                noted.write_text(content) if content else noted.unlink()
                assert main(["share", "demo"]) == 1
                assert capsys.readouterr().err.splitlines()[1:3] == [f"  where:    {step}", f"  found:    {found}"]
            noted.write_text(before)
        assert main(["share", "demo"]) == 0
        assert (report / "demo-report.zip").is_file()


def test_a_step_that_fails_leaves_no_note_of_its_privacy(made: Path, tmp_path: Path) -> None:
    project = shutil.copytree(made, tmp_path / "toy", symlinks=True)
    toy_notebook(project / "notebooks/03_taxa.ipynb", "raise ValueError('no')")
    (project / "reports/demo/results/evidence/02_all.json").unlink()
    with chdir(project):
        assert main(["run", "demo", "03_taxa"]) == 1
        assert main(["site", "demo"]) == 1
        noted = {path.stem for path in Path("reports/demo/.runs").glob("*.privacy")}
        assert noted == {*NAMES, "site"} - {"03_taxa"}, "of a site that was not begun, all is as before"


# ---------------------------------------------------------------- the page


def test_page_tells_code_command_parameters_inputs_software_and_run_times(made: Path) -> None:
    told = text_of(made / "reports/demo/html/provenance.html")
    assert f"Commit {git(made, 'rev-parse', 'HEAD')} . The work tree was clean" in told.replace(". The", " . The")
    assert "make report STUDY=demo SET=permutations=299" in told
    assert "permutations 299 999 differs from the default (given by SET)" in told
    assert f"alpha 0.05 {Settings().alpha} default level" in told
    assert "1 of 10 differ from the default" in told
    for name in ("study.yaml", "counts.tsv", "meta data.tsv"):
        assert f"{name} {hashlib.sha256((made / 'data/demo' / name).read_bytes()).hexdigest()}" in told
    assert "pins 2 packages" in told
    assert hashlib.sha256((made / "requirements.lock").read_bytes()).hexdigest() in told
    assert re.search(r"numpy [\d.]+ 2\.0\.0 ", told), "installed, and locked"
    assert re.search(r"Python 3\.\d+\.\d+ on \w+ \w+\.", told)
    for name in NAMES:
        assert re.search(
            rf"{name} \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \d+\.\d {git(made, 'rev-parse', 'HEAD')[:12]} ", told
        )
    assert "not known" not in told


def test_changes_that_are_not_committed_are_told(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    clean = commit()
    counts = Path("data/demo/counts.tsv")
    counts.write_text(f"{counts.read_text()}more\n")
    dirty = commit()
    git(made, "checkout", "--quiet", str(counts))
    assert clean == git(made, "rev-parse", "HEAD")
    assert "with uncommitted changes" in prose("provenance", section="Code", code=dirty, dirty="-dirty", makefile="")
    runs = {"01_ingest": Ran(datetime.now(UTC), 1.0, clean)}
    assert "another state of the code" in prose("provenance", section="Run times", runs=runs, code=dirty)
    assert "another state of the code" not in prose("provenance", section="Run times", runs=runs, code=clean)
    nested = made / "nested"
    nested.mkdir()
    (nested / "pyproject.toml").touch()
    monkeypatch.chdir(nested)
    assert commit() is None, "a repository that only lies around the project"


def test_what_is_not_known_is_said(by_hand: Path) -> None:
    told = text_of(by_hand / "html/provenance.html")
    for unknown in (
        "The commit is not known",
        "The command is not known",
        "there is no requirements.lock",
        "01_ingest not known not known not known",
    ):
        assert unknown in told
    assert "differs from the default (given" not in told, "who gave a parameter is not known without the command"
    assert "permutations 199 999 differs from the default" in told


def test_run_time_is_that_of_the_run_whose_outputs_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    report, notebook = report_of("demo"), tmp_path / "notebooks" / "01_ingest.ipynb"
    toy_notebook(notebook, "print(1)")
    assert main(["parameters", "demo"]) == 0
    assert main(["run", "demo", "01_ingest"]) == 0
    ran = run_times(report, ["01_ingest"])["01_ingest"]
    assert ran is not None
    done = (report.notebooks / "01_ingest.ipynb").stat().st_mtime
    assert abs(ran.ended.timestamp() - done) < 2
    toy_notebook(notebook, "raise ValueError")
    assert main(["run", "demo", "01_ingest"]) == 1
    assert run_times(report, ["01_ingest"]) == {"01_ingest": None}, "that run's outputs may be partly overwritten"


def test_seed_is_followed_to_the_functions_that_take_it() -> None:
    cells = [
        new_markdown_cell("# Title\n\n## *S. aureus* first"),
        new_code_cell("seed = 2023"),
        new_code_cell("%matplotlib inline\nhow = {'seed': seed}\nx = draw(t, seed=seed)\ny = show(x)"),
        new_markdown_cell("Text.\n\n### Later"),
        new_code_cell("z = [boot.strap(t, **how) for t in x]\nw = draw(x, seed)"),
    ]
    assert seeded(new_notebook(cells=cells)) == [
        ("S. aureus first", "draw"),
        ("Later", "boot.strap"),
        ("Later", "draw"),
    ]


# ---------------------------------------------------------------- the crate


@pytest.mark.parametrize("where", ["built", "unpacked"])
def test_crate_lists_what_is_published_and_nothing_else(made: Path, unpacked: Path, where: str) -> None:
    folder = made / "reports/demo" if where == "built" else unpacked
    crate = ROCrate(folder)
    listed = {entity.id: entity for entity in crate.data_entities if "File" in entity.type}
    for name, entity in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entity["sha256"], name
        assert (folder / name).stat().st_size == int(entity["contentSize"])
        assert "/" in entity["encodingFormat"]
    published = {path for kind in ("results", "notebooks") for path in (unpacked / kind).rglob("*") if path.is_file()}
    pages = {
        p.relative_to(unpacked).as_posix() for kind in ("*", "claims/*") for p in unpacked.glob(f"html/{kind}.html")
    }
    assert len(published) >= 5 * 9 + 2 + 5
    assert set(listed) == {p.relative_to(unpacked).as_posix() for p in published} | pages | {"html/files/Makefile"}
    assert not re.search(r"results/\w+\.h5ad|evidence/", " ".join(entities(folder)))
    assert (unpacked / "ro-crate-metadata.json").is_file()


def test_crate_says_which_run_made_what_of_what(made: Path) -> None:
    found = entities(made / "reports/demo")
    root, metadata = found["./"], found["ro-crate-metadata.json"]
    assert refers(root["conformsTo"]) == PROFILES
    assert all(found[profile]["@type"] == "CreativeWork" for profile in PROFILES)
    assert "https://w3id.org/ro/crate/1.1" in refers(metadata["conformsTo"])
    assert "SIMULATED" in root["description"]
    assert found[root["license"]["@id"]]["name"] == "CC0"
    assert datetime.fromisoformat(root["datePublished"]).tzinfo is not None

    workflow = found[root["mainEntity"]["@id"]]
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"} == set(workflow["@type"])
    assert found[workflow["programmingLanguage"]["@id"]]["@type"] == "ComputerLanguage"
    assert workflow["version"] == git(made, "rev-parse", "HEAD")
    actions = {i: e for i, e in found.items() if e["@type"] == "CreateAction"}
    assert set(actions) == refers(root["mentions"]) == {"#run", *(f"#run-{name}" for name in NAMES)}
    assert {actions[f"#run-{name}"]["instrument"]["@id"] for name in NAMES} == refers(workflow["hasPart"])
    assert actions["#run"]["instrument"] == root["mainEntity"]
    for name in NAMES:
        action = actions[f"#run-{name}"]
        results = refers(action["result"])
        assert {f"notebooks/{name}.ipynb", f"results/tables/{name[:3]}a.tsv"} <= results
        assert all(Path(result).name.startswith(name[:3]) for result in results)
        assert {f"#input-{role}" for role in ("counts", "metadata", "study", "claims")} | {
            "#value-permutations"
        } == refers(action["object"])
        assert results <= refers(actions["#run"]["result"])
        assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
        began, ended = (datetime.fromisoformat(action[key]) for key in ("startTime", "endTime"))
        assert began <= ended
        assert datetime.fromisoformat(actions["#run"]["startTime"]) <= began
        assert ended <= datetime.fromisoformat(actions["#run"]["endTime"])
        (control,) = (
            e for e in found.values() if e["@type"] == "ControlAction" and e["object"]["@id"] == action["@id"]
        )
        assert found[control["instrument"]["@id"]]["workExample"] == action["instrument"]
    assert {c["instrument"]["@id"] for c in found.values() if c["@type"] == "ControlAction"} == refers(workflow["step"])
    assert found["#value-permutations"]["value"] == 299
    assert found["#parameter-permutations"]["additionalType"] == "Integer"
    for i in refers(actions["#run"]["object"]) - {"#input-study", "#input-claims"}:
        slot = found[i]["exampleOfWork"]["@id"]
        assert found[slot]["@type"] == "FormalParameter"
        assert found[slot]["additionalType"]
        assert slot in refers(workflow["input"])


def test_inputs_are_described_by_name_checksum_and_public_address(by_hand: Path) -> None:
    found = entities(by_hand)
    counts, metadata = found["#input-counts"], found["#input-metadata"]
    assert (counts["name"], counts["contentUrl"]) == ("counts.tsv", ADDRESS)
    assert counts["sha256"] == hashlib.sha256(b"counts\n").hexdigest()
    assert metadata["name"] == "meta data.tsv"
    assert "contentUrl" not in metadata
    assert not {i for i in refers(found["./"]["hasPart"]) if "counts" in i or "data" in i}


def test_crate_of_steps_run_one_by_one_claims_no_workflow_and_no_times(by_hand: Path) -> None:
    found = entities(by_hand)
    assert refers(found["./"]["conformsTo"]) == {"https://w3id.org/ro/wfrun/process/0.5"}
    assert "mainEntity" not in found["./"]
    assert "startTime" not in found["#run-01_ingest"]
    assert ROCrate(by_hand).root_dataset["name"] == "Report: A *toy* & <i>study</i>"


def test_site_and_crate_are_replaced_together_or_not_at_all(by_hand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(by_hand.parent.parent)
    kept = [by_hand / name for name in ("html/index.html", "html/provenance.html", "ro-crate-metadata.json")]
    before = [path.stat().st_ino for path in kept]

    def fails(*_: Any) -> str:
        raise StudyError("no crate")

    monkeypatch.setattr(build, "crate_json", fails)
    with pytest.raises(StudyError, match="no crate"):
        build.build_site("demo")
    assert [path.stat().st_ino for path in kept] == before
    assert not list(by_hand.glob(".unfinished-*"))


def test_nothing_tells_of_the_machine_or_the_user(made: Path, by_hand: Path, unpacked: Path) -> None:
    machine = re.compile(
        rf"qxuser|qx@|{re.escape(socket.gethostname())}|Qx(?:folder|elsewhere| Author)|/tmp/|{os.sep}home/"
    )
    texts = 0
    for folder in (unpacked, by_hand / "html", by_hand / "ro-crate-metadata.json", made / "reports/demo/.runs"):
        for path in [folder] if folder.is_file() else folder.rglob("*"):
            if path.suffix in (".html", ".json", ".ipynb", ".tsv", ".js") and "_static" not in path.parts:
                texts += 1
                assert not machine.search(re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8"))), path
    assert texts > 60


# ---------------------------------------------------------------- from a result to its code


def test_figures_and_tables_link_to_the_code_that_made_them(by_hand: Path) -> None:
    page = BeautifulSoup((by_hand / "html/01_ingest.html").read_text(encoding="utf-8"), "html.parser")
    links = page.select('.files a[href^="#cell-"]')
    assert [bool(link.find_parent("figure")) for link in links] == [False, True], "a table, a figure"
    for link in links:
        (anchor,) = page.select(str(link["href"]))
        fold = anchor.find_parent("details")
        assert fold is not None, "a browser opens the fold in which the link ends"
        assert not anchor.find_parent("summary")
        assert 'out.figure(fig, "01_line"' in fold.get_text()
    assert len(page.select("span[id^=cell-]")) == 1, "only cells with something to link from"
