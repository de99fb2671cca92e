"""Fetching of a study's public files."""

from pathlib import Path
from typing import Any

from helpers.study import Study, StudyError


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
        if file.url and not file.sha256:
            raise StudyError(f"{file.path} has a url but no sha256", file=study.folder / "study.yaml")
        try:
            study.read(file)
            print(f"{path} is there")
        except StudyError:
            if not file.url:
                raise
            _fetch(file.url, str(file.sha256), path, pooch)
            print(f"{path} fetched")


def _fetch(url: str, checksum: str, path: Path, pooch: Any) -> None:
    try:
        pooch.retrieve(url, f"sha256:{checksum}", path.name, path.parent, downloader=pooch.HTTPDownloader(timeout=60))
    except OSError as e:
        fix = f"fetch it by other means from {url} and lay it there"
        raise StudyError("could not be fetched", file=path, found=e, fix=fix) from None
    except ValueError as e:
        raise StudyError("what was fetched is not the file that study.yaml describes", file=path, found=e) from None
