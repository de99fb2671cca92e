"""Fetching of a study's public files."""

import sys
import time
from pathlib import Path
from typing import Any

from helpers.errors import Problems, StudyError
from helpers.files import DATA, STUDY_YAML, unfinished, unwritable
from helpers.run.lock import clear, locked
from helpers.study import DataFile, Study, load_study
from helpers.texts import packaged

BY_HAND = "lay the file there by hand"


def fetch(name: str) -> None:
    """Fetch the files of a study in ``data/``: see `fetch_data`."""
    fetch_data(load_study(DATA / name))


def fetch_data(study: Study, *, timeout: float = 60, attempts: int = 3, pause: float = 2) -> None:
    """Fetch the files whose address study.yaml gives; a file that is there is never overwritten.

    All problems of all files are told at once. What was fetched until then stays; no part of a file does.

    A server may be silent for `timeout` seconds. If the connection fails, or the server does, there are `attempts` in
    all: the second after `pause` seconds, the third after twice as many, and so on.
    """
    problems = Problems()
    with locked(study.folder / STUDY_YAML, f"another make data of {study.folder.name}"):
        clear(study.folder)
        for file in study.files.each().values():
            with problems:
                print(_have(study, file, timeout, attempts, pause), flush=True)
    problems.stop()


def _have(study: Study, file: DataFile, timeout: float, attempts: int, pause: float) -> str:
    """Fetch one file if need be, and tell what was done."""
    path = study.path(file)
    if file.url and not file.sha256:
        where, fix = study.folder / STUDY_YAML, "add its checksum"
        raise StudyError("has a url but no sha256", file=where, found=file.path, fix=fix)
    if file.url and not path.is_symlink() and not path.exists():
        size = _fetch(file.url, str(file.sha256), path, timeout, attempts, pause)
        return f"{path} fetched ({_size(size)})"
    try:
        study.read(file)
    except StudyError as e:
        if not (file.url and e.problem.startswith("is not the file")):
            raise
        fix = "it may be edited, so it stays: remove it to fetch the original, or write its checksum into study.yaml"
        raise StudyError(str(e).rsplit("\n  fix:", 1)[0] + f"\n  fix:      {fix}") from None
    return f"{path} is there"


def _fetch(url: str, checksum: str, path: Path, timeout: float, attempts: int, pause: float) -> int:
    """Fetch a file under another name, verify it, move it to its place; the number of its bytes."""
    import pooch  # type: ignore[import-untyped]

    bar = {"progressbar": True} if sys.stderr.isatty() else {}
    download = pooch.HTTPDownloader(timeout=timeout, chunk_size=1 << 16, **bar)
    if bar:
        print(path, file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path) as part:
            _try(download, url, part, path, attempts, pause)
            found, size = pooch.file_hash(str(part)), part.stat().st_size
            if found != checksum:
                found += f" ({_size(size)} from {url})"
                raise StudyError.of("other_fetched", path, found=found, expected=checksum, by_hand=BY_HAND)
            part.replace(path)
            return size
    except OSError as e:
        raise unwritable(e, path) from None


def _try(download: Any, url: str, part: Path, path: Path, attempts: int, pause: float) -> None:
    from requests import RequestException

    for attempt in range(1, attempts + 1):
        try:
            download(url, str(part), None)
            return
        except RequestException as e:
            if attempt == attempts or not _may_pass(e):
                found = _reason(e) + (f" ({attempt} attempts)" if attempt > 1 else "")
                expected, fix = f"the file at {url}", f"try again later, correct url in study.yaml, or {BY_HAND}"
                raise StudyError("could not be fetched", file=path, found=found, expected=expected, fix=fix) from None
            print(f"{path}: {_reason(e)}; trying again", file=sys.stderr, flush=True)
            time.sleep(pause * attempt)


def _may_pass(error: Any) -> bool:
    """Whether another attempt may help."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError):
        status = error.response.status_code if error.response is not None else 0
        return status >= 500 or status == 429
    passing = (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError)
    return isinstance(error, passing) and not isinstance(error, exceptions.SSLError)


#: What the errors of the connection say, and what that means.
_REASONS = packaged("intake/fetch.yaml")


def _reason(error: Any) -> str:
    if getattr(error, "response", None) is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    return next((reason for said, reason in _REASONS.items() if said in str(error)), str(error))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
