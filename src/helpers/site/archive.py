"""One file to send: the report, its results and its notebooks, and nothing else of the study's folder."""

import io
import zipfile
from pathlib import Path

from helpers.files import write_whole
from helpers.study import StudyError

#: What may be shared of a report's folder: not the cohort, not unrounded estimates, not notebooks that failed.
SHARED = (
    "ro-crate-metadata.json",
    "html/**/*",
    "results/claims.*",
    "results/tables/*.tsv",
    "results/figures/*.*",
    "notebooks/[0-9]*.ipynb",
)


def shared(folder: Path) -> list[Path]:
    """What may be shared of what is there.

    Parameters
    ----------
    folder : Path
        ``reports/<study>``
    """
    found = {path for pattern in SHARED for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith(".") and ".failed." not in path.name)


def share(name: str) -> Path:
    """Pack a report that was built.

    Parameters
    ----------
    name : str
        The study.

    Returns
    -------
    Path
        ``reports/<study>/<study>-report.zip``: the same bytes for the same report.

    Raises
    ------
    StudyError
        If there is no report.
    """
    folder = Path("reports") / name
    if not (folder / "html" / "index.html").is_file():
        raise StudyError("there is no report", file=folder / "html", fix=f"make report STUDY={name}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in shared(folder):
            member = zipfile.ZipInfo(f"{name}-report/{path.relative_to(folder).as_posix()}")  # dated 1980, always
            member.external_attr = 0o644 << 16
            archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)
    target = folder / f"{name}-report.zip"
    write_whole(target, buffer.getvalue())
    return target
