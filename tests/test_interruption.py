"""`make report` that is killed, started twice, or finds no room: the next run ends as if nothing had been."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import papermill
import pytest
from toy import NAMES, ROOT, make, toy_notebook, toy_project, toy_study

from helpers.__main__ import main
from helpers.errors import StudyError
from helpers.files import write_whole
from helpers.run.execution import execute
from helpers.site.build import run_sphinx

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("make"), reason="make is not on PATH")]
ALONE = [sys.executable, "-P", str(ROOT / "src/helpers/run/lock.py")]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
TIMES = {f".runs/{name}.json" for name in NAMES}
UP_TO_DATE = "reports/demo/html/index.html is up to date\n"


def files(project: Path) -> dict[str, bytes]:
    """Every file of the report, hidden ones too; not what tells when it was made, which is to differ."""
    folder = project / "reports" / "demo"
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    for name in (".lock", "ro-crate-metadata.json", "html/provenance.html"):
        del found[name]
    return {name: path.read_bytes() for name, path in found.items() if name not in TIMES}


def differences(project: Path, clean: dict[str, bytes]) -> list[str]:
    found = files(project)
    return sorted(name for name in found.keys() | clean.keys() if found.get(name) != clean.get(name))


def wait_until(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """A project in which two makes were started at once, and what they said."""
    project = toy_project(tmp_path_factory.mktemp("toy"))
    lock = project / "reports" / "demo" / ".lock"
    first = make(project)
    wait_until(lambda: lock.is_file() and lock.read_text(), first)
    second = make(project)
    assert second.stderr is not None
    assert second.stderr.readline() == "another make report of demo is running; waiting\n"
    subprocess.run([*ALONE, "reports/other", "true"], cwd=project, check=True, timeout=60)  # another study's is free
    assert first.poll() is None
    said = [process.communicate() for process in (first, second)]
    shutil.rmtree(project / "reports" / "other")
    return project, said


def test_of_two_makes_the_second_waits_and_has_nothing_to_do(twice: tuple[Path, list[tuple[str, str]]]) -> None:
    _, ((first, wrong), second) = twice
    assert wrong == ""
    assert [first.count(f"[{name}] started") for name in NAMES] == [1] * len(NAMES)
    assert second == (UP_TO_DATE, "")


def test_leftovers_of_a_killed_run_are_removed_and_never_used(
    twice: tuple[Path, list[tuple[str, str]]], tmp_path: Path
) -> None:
    clean = files(twice[0])
    project = shutil.copytree(twice[0], tmp_path / "toy", symlinks=True)
    report = project / "reports" / "demo"
    for left in ("", ".runs", "notebooks", "results", "results/tables", "results/evidence"):
        (report / left / ".unfinished-123-file").write_text("half")
        (report / left / ".unfinished-123-folder" / "source").mkdir(parents=True)
        (report / left / ".unfinished-123-folder" / "source" / ".unfinished-123-index.md").write_text("half")
    done = make(project)
    assert done.communicate() == (UP_TO_DATE, "")
    assert differences(project, clean) == []
    (report / ".unfinished-123-html").mkdir()
    (report / "html").rename(report / ".unfinished-123-html" / "old")  # killed between the two renames
    done = make(project)
    assert "started" not in done.communicate()[0]
    assert differences(project, clean) == []


def test_killed_run_is_resumed_to_the_same_bytes(twice: tuple[Path, list[tuple[str, str]]], tmp_path: Path) -> None:
    clean = files(twice[0])
    project = toy_project(tmp_path)
    report, chance = project / "reports" / "demo", random.Random(20231115)

    def appears(pattern: str) -> Callable[[], bool]:
        def there() -> set[tuple[Path, int]]:
            return {(path, path.stat().st_ino) for path in report.glob(pattern)}

        before = there()
        return lambda: bool(there() - before)

    def after(seconds: float) -> Callable[[], bool]:
        end = time.monotonic() + seconds
        return lambda: time.monotonic() > end

    # With another parameter first, so that something of the killed run must go.
    other = "SET=permutations=299"
    moments: list[tuple[Callable[[], Callable[[], bool]], str]] = [
        (lambda: appears("inputs.mk"), other),
        (lambda: appears("results/tables/01_of_299.tsv"), other),
        (lambda: appears("results/tables/01_[a-c].tsv"), ""),
        (lambda: appears("results/tables/02_a.tsv"), ""),
        (lambda: after(chance.uniform(0, 3)), ""),
        (lambda: appears(".unfinished-*-html/html/index.html"), ""),
    ]
    for moment, setting in moments:
        happened = moment()
        process = make(project, *filter(None, [setting]))
        wait_until(happened, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = make(project)
    said = done.communicate()
    assert done.returncode == 0, said
    assert differences(project, clean) == []
    assert make(project).communicate() == (UP_TO_DATE, "")


@pytest.mark.parametrize("target", ["report", "share"])
def test_killed_make_pdf_leaves_nothing_after_the_next_make(
    twice: tuple[Path, list[tuple[str, str]]], tmp_path: Path, target: str
) -> None:
    clean = files(twice[0])
    project = shutil.copytree(twice[0], tmp_path / "toy", symlinks=True)
    browser = tmp_path / "bin" / "chromium"
    browser.parent.mkdir()
    browser.write_text("#!/bin/sh\nexec sleep 600\n")
    browser.chmod(0o755)
    printing = make(project, goal="pdf", PATH=f"{browser.parent}:{os.environ['PATH']}")
    report = project / "reports" / "demo"
    wait_until(lambda: list(report.glob(".*/report.html")), printing)
    waiting = make(project)
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "another make report of demo is running; waiting\n"
    os.killpg(waiting.pid, signal.SIGKILL)
    waiting.communicate()
    os.killpg(printing.pid, signal.SIGKILL)
    printing.communicate()
    assert differences(project, clean)
    after = make(project, goal=target)
    assert after.communicate()[1] == ""
    (report / "demo-report.zip").unlink(missing_ok=True)
    assert differences(project, clean) == []


def test_what_killed_processes_left_of_data_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (toy_study(tmp_path) / "raw").mkdir()
    (tmp_path / "data/demo/raw/.unfinished-1-counts.biom").write_text("half")
    (tmp_path / "data/.unfinished-1-mine/raw").mkdir(parents=True)
    (tmp_path / "table.tsv").write_text("id\ts1\ts2\na\t1\t2\n")
    (tmp_path / "metadata.tsv").write_text("id\tage\ns1\t3\ns2\t4\n")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "demo"]) == 0
    assert [path.name for path in Path("data").rglob(".*")] == [".unfinished-1-mine"]
    assert main(["study", "mine", "--table", "table.tsv", "--metadata", "metadata.tsv"]) == 0
    assert list(Path("data").rglob(".*")) == []


# ---------------------------------------------------------------- a disk that takes no file


@pytest.mark.parametrize(
    ("code", "fix"),
    [(errno.ENOSPC, "make room"), (errno.EACCES, "writable"), (errno.EROFS, "copy"), (errno.EFBIG, "ulimit")],
)
def test_file_that_cannot_be_written_is_told_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fix: str
) -> None:
    file = tmp_path / "table.tsv"
    write_whole(file, "old")
    written = Path.write_bytes

    def fails_half_way(path: Path, content: bytes) -> int:
        written(path, content[: len(content) // 2])
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "write_bytes", fails_half_way)
    with pytest.raises(StudyError) as error:
        write_whole(file, "new and longer")
    assert [path.name for path in tmp_path.iterdir()] == ["table.tsv"]
    assert file.read_text() == "old"
    for told in (f"{file}: cannot be written", os.strerror(code), fix):
        assert told in str(error.value)


def test_full_disk_inside_a_notebook_is_told(tmp_path: Path) -> None:
    body = (
        "import errno, os\nfrom pathlib import Path\nfrom helpers.output import write_whole\n"
        "def full(path, content):\n    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "Path.write_bytes = full\nwrite_whole(Path('../reports/demo/results/a.tsv'), 'a')"
    )
    source = toy_notebook(tmp_path / "notebooks" / "02_full.ipynb", body)
    with pytest.raises(StudyError) as error:
        execute(source, tmp_path / "out" / "02_full.ipynb", {})
    assert "[02_full] stopped: reports/demo/results/a.tsv: cannot be written" in str(error.value)
    assert "make room" in str(error.value)


def test_full_disk_under_the_notebook_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, unfinished: Path, *__: Any, **___: Any) -> None:
        unfinished.write_text('{"cells": [')
        raise FULL

    monkeypatch.setattr(papermill, "execute_notebook", full)
    with pytest.raises(StudyError, match=r"02_full\.ipynb: cannot be written"):
        execute(tmp_path / "02_full.ipynb", tmp_path / "out" / "02_full.ipynb", {})
    assert list((tmp_path / "out").iterdir()) == []


def test_limit_on_the_size_of_files_stops_make_with_a_message(tmp_path: Path) -> None:
    project = toy_project(tmp_path)
    limited = ["sh", "-c", f"ulimit -f 4; {' '.join(ALONE)} reports/demo make report-alone PYTHON={sys.executable}"]
    done = subprocess.run(limited, cwd=project, env={**os.environ, "MAKEFLAGS": ""}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "reports/demo/notebooks/01_ingest.ipynb").exists()
    assert not list((project / "reports/demo").rglob(".unfinished-*"))


def test_full_disk_under_sphinx_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "conf.py").write_text("import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))")
    with pytest.raises(StudyError) as error:
        run_sphinx(source, tmp_path / "html")
    assert "No space left on device" in str(error.value)
    assert "make room" in str(error.value)
    assert "Traceback" not in capfd.readouterr().err + str(error.value)


@pytest.mark.parametrize("blocked", ["reports", "reports/demo"])
def test_file_in_place_of_the_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], blocked: str
) -> None:
    toy_study(tmp_path)
    toy_notebook(tmp_path / "notebooks" / "01_ingest.ipynb", "")
    monkeypatch.chdir(tmp_path)
    Path(blocked).parent.mkdir(exist_ok=True)
    Path(blocked).write_text("mine")
    told = f"{blocked}: a file, where a folder must be\n  fix:      remove or rename it\n"
    done = subprocess.run([*ALONE, "reports/demo", "true"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, told)
    assert main(["parameters", "demo"]) == 1
    assert capsys.readouterr().err == told
    assert Path(blocked).read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_is_read_only_is_told(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir(mode=0o555)
    done = subprocess.run([*ALONE, "reports/demo", "true"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "make the folder writable" in done.stderr
