"""A study's input files: are they there and the right ones, and fetching them."""

import hashlib
from pathlib import Path
from typing import Any

from helpers.study import DataFile, Study, StudyError


def verify(study: Study, file: DataFile) -> None:
    """Raise `StudyError` unless an input file is there and has its checksum, if study.yaml gives one.

    Parameters
    ----------
    study : Study
    file : DataFile
    """
    path = study.path(file)
    if not path.is_file():
        fix = f"make data STUDY={study.folder.name}" if file.url else "lay it there, or correct its path in study.yaml"
        raise StudyError("there is no such file", file=path, fix=fix)
    if file.sha256 and (found := sha256(path)) != file.sha256:
        raise StudyError(
            "is not the file that study.yaml describes",
            file=path,
            where="SHA-256 checksum",
            found=found,
            expected=file.sha256,
            fix="restore the file, or, if it is meant to be new, give study.yaml its checksum",
        )


def sha256(path: Path) -> str:
    """Checksum of a file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str
    """
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fetch_data(study: Study) -> None:
    """Fetch the files whose address study.yaml gives; a file that is there with the right checksum is left alone.

    Parameters
    ----------
    study : Study
    """
    import pooch  # type: ignore[import-untyped]

    pooch.get_logger().setLevel("ERROR")
    for file in study.files.each().values():
        path = study.path(file)
        if not file.url:
            verify(study, file)
        elif not file.sha256:
            raise StudyError(f"{file.path} has a url but no sha256", file=study.folder / "study.yaml")
        elif path.is_file() and sha256(path) == file.sha256:
            print(f"{path} is there")
        else:
            _fetch(file.url, file.sha256, path, pooch)
            print(f"{path} fetched")


def _fetch(url: str, checksum: str, path: Path, pooch: Any) -> None:
    try:
        pooch.retrieve(url, f"sha256:{checksum}", path.name, path.parent, downloader=pooch.HTTPDownloader(timeout=60))
    except OSError as e:
        fix = f"fetch it by other means from {url} and lay it there"
        raise StudyError("could not be fetched", file=path, found=e, fix=fix) from None
    except ValueError as e:
        raise StudyError("what was fetched is not the file that study.yaml describes", file=path, found=e) from None
