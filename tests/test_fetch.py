import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pooch  # type: ignore[import-untyped]
import pytest
from toy import STUDY, toy_study

from helpers.__main__ import main
from helpers.errors import StudyError
from helpers.intake.fetch import fetch_data
from helpers.study import Study, load_study

CONTENT = b"swab,1,2\n" * 20_000
QUICK: dict[str, Any] = {"timeout": 0.5, "pause": 0.01}


class Server(ThreadingHTTPServer):
    """Answers each request as planned; the last answer is for all that follow."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.plan: list[int | str] = [200]
        self.asked: list[str] = []
        self.release = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        plan = self.server.plan
        how = plan.pop(0) if len(plan) > 1 else plan[0]
        if self.path.startswith("/old/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/old"))
            self.end_headers()
            return
        self.send_response(how if isinstance(how, int) else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if how == "hang":
            self.wfile.write(CONTENT[:100])
            self.server.release.wait(30)
        elif how == "half":
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        else:
            self.wfile.write(CONTENT if how == 200 else CONTENT[::-1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.release.set()
        server.shutdown()


def remote_study(root: Path, address: str) -> Study:
    """A study two files of which are at an address."""
    remote = f"url: '{address}/%s', sha256: {hashlib.sha256(CONTENT).hexdigest()}"
    text = STUDY.replace("path: counts.tsv", f"path: raw/counts.csv, {remote % 'counts.csv'}")
    text = text.replace('path: "meta data.tsv"', f"path: raw/metadata.csv, {remote % 'metadata.csv'}")
    return load_study(toy_study(root, text))


def raw(study: Study) -> list[str]:
    return sorted(path.name for path in (study.folder / "raw").iterdir())


def test_data_are_fetched_once_and_checked(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    study = remote_study(tmp_path, server.address)
    fetch_data(study, **QUICK)
    assert raw(study) == ["counts.csv", "metadata.csv"]
    assert (study.folder / "raw/counts.csv").read_bytes() == CONTENT
    first = capsys.readouterr()
    assert "counts.csv fetched (180 kB)" in first.out
    assert first.err == "", "no progress bar in a log"
    assert len(server.asked) == 2
    fetch_data(study, **QUICK)
    assert len(server.asked) == 2
    assert "counts.csv is there" in capsys.readouterr().out
    (study.folder / "raw/counts.csv").unlink()
    fetch_data(study, **QUICK)
    assert server.asked[2:] == ["/counts.csv"]


def test_progress_is_shown_on_a_terminal(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch_data(remote_study(tmp_path, server.address), **QUICK)
    assert "100%" in capsys.readouterr().err


def test_redirection_is_followed(tmp_path: Path, server: Server) -> None:
    study = remote_study(tmp_path, f"{server.address}/old")
    fetch_data(study, **QUICK)
    assert raw(study) == ["counts.csv", "metadata.csv"]


@pytest.mark.parametrize("trouble", [500, 503, 429, "half", "hang"])
def test_passing_trouble_is_tried_again(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], trouble: int | str
) -> None:
    server.plan = [trouble, 200]
    study = remote_study(tmp_path, server.address)
    fetch_data(study, **QUICK)
    assert raw(study) == ["counts.csv", "metadata.csv"]
    assert len(server.asked) == 3
    assert capsys.readouterr().err.count("trying again") == 1


@pytest.mark.parametrize(
    ("trouble", "told", "requests"),
    [
        (404, "the server answered 404", 1),
        (403, "the server answered 403", 1),
        (500, "the server answered 500 Internal Server Error (3 attempts)", 3),
        ("half", "the connection was cut (3 attempts)", 3),
        ("hang", "the server is silent (3 attempts)", 3),
        ("wrong", "is not the file that study.yaml describes", 1),
    ],
)
def test_failed_fetch_tells_of_every_file_and_leaves_none(
    tmp_path: Path, server: Server, trouble: int | str, told: str, requests: int
) -> None:
    server.plan = [trouble]
    study = remote_study(tmp_path, server.address)
    with pytest.raises(StudyError) as error:
        fetch_data(study, **QUICK)
    assert raw(study) == []
    assert len(server.asked) == 2 * requests
    for part in (told, "found:", "expected:", "fix:"):
        assert str(error.value).count(part) == 2, part
    for file in ("counts.csv", "metadata.csv"):
        assert str(study.folder / "raw" / file) in str(error.value)


def test_what_could_be_fetched_stays(tmp_path: Path, server: Server) -> None:
    server.plan = [404, 200]
    study = remote_study(tmp_path, server.address)
    with pytest.raises(StudyError, match=r"counts\.csv: could not be fetched"):
        fetch_data(study, **QUICK)
    assert raw(study) == ["metadata.csv"]


def test_no_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    study = remote_study(tmp_path, f"http://127.0.0.1:{port}")
    with pytest.raises(StudyError, match="the server refuses the connection"):
        fetch_data(study, **QUICK)
    shelf = remote_study(tmp_path / "other", "http://name.invalid")
    with pytest.raises(StudyError, match="the server's name is not known"):
        fetch_data(shelf, **QUICK)
    assert raw(study) == raw(shelf) == []


def test_edited_file_is_never_overwritten(tmp_path: Path, server: Server) -> None:
    study = remote_study(tmp_path, server.address)
    edited = study.folder / "raw" / "counts.csv"
    edited.parent.mkdir()
    edited.write_bytes(b"mine")
    with pytest.raises(StudyError) as error:
        fetch_data(study, **QUICK)
    assert edited.read_bytes() == b"mine"
    assert server.asked == ["/metadata.csv"]
    for told in (str(edited), hashlib.sha256(b"mine").hexdigest(), "remove it", "study.yaml"):
        assert told in str(error.value)


def test_interrupted_fetch_leaves_nothing(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    study = remote_study(tmp_path, server.address)

    def interrupted(_: object, __: str, file: str, ___: object) -> None:
        Path(file).write_bytes(CONTENT[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_data(study, **QUICK)
    assert raw(study) == []


def test_killed_fetch_leaves_nothing_that_is_taken_for_a_file(tmp_path: Path, server: Server) -> None:
    server.plan = ["hang"]
    study = remote_study(tmp_path, server.address)
    command = [sys.executable, "-m", "helpers", "data", "demo"]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        while not server.asked:
            assert process.poll() is None
        process.kill()
    assert "counts.csv" not in raw(study)
    server.plan = [200]
    fetch_data(study, **QUICK)
    assert raw(study) == ["counts.csv", "metadata.csv"]


def test_two_fetches_at_once_fetch_once(tmp_path: Path, server: Server) -> None:
    server.plan = ["hang", 200]
    remote_study(tmp_path, server.address)
    command = [sys.executable, "-m", "helpers", "data", "demo"]
    how: dict[str, Any] = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **how) as first:
        while not server.asked:
            assert first.poll() is None
        with subprocess.Popen(command, **how) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "another make data of demo is running; waiting\n"
            server.release.set()  # which cuts the first one's connection
            assert "fetched" in first.communicate()[0]
            assert second.communicate()[0].count("is there") == 2
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("code", "told"), [(errno.ENOSPC, "make room"), (errno.EROFS, "can be written to"), (errno.EACCES, "writable")]
)
def test_disk_that_takes_no_file_is_told(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    study = remote_study(tmp_path, server.address)

    def failing(_: object, __: str, file: str, ___: object) -> None:
        Path(file).write_bytes(CONTENT[:100])
        raise OSError(code, os.strerror(code), file)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", failing)
    with pytest.raises(StudyError) as error:
        fetch_data(study, **QUICK)
    assert raw(study) == []
    for part in (f"{study.folder / 'raw/counts.csv'}: cannot be written", os.strerror(code), told):
        assert part in str(error.value)


def test_file_in_place_of_the_folder_is_told(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = remote_study(tmp_path, server.address)
    (study.folder / "raw").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "demo"]) == 1
    assert "data/demo/raw: a file, where a folder must be" in capsys.readouterr().err
    assert (study.folder / "raw").read_text() == "mine"
    assert server.asked == []
