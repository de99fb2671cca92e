"""One file to send: the report, its results and its notebooks, and nothing else of the study's folder."""

import io
import zipfile
from pathlib import Path

from helpers.files import CRATE, FIGURES, HTML, NOTEBOOKS, OF_CLAIMS, RESULTS, TABLES, built_report_of, write_whole

#: What may be shared of a report's folder: not the cohort, not unrounded estimates, not notebooks that failed.
SHARED = (
    CRATE,
    f"{HTML}/**/*",
    *(f"{RESULTS}/{name}" for name in OF_CLAIMS),
    f"{RESULTS}/{TABLES}/*.tsv",
    f"{RESULTS}/{FIGURES}/*.*",
    f"{NOTEBOOKS}/[0-9]*.ipynb",
)


def shared(folder: Path) -> list[Path]:
    """What may be shared of what is there in ``reports/<study>``."""
    found = {path for pattern in SHARED for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith(".") and ".failed." not in path.name)


def share(name: str) -> Path:
    """Pack a report that was built in ``reports/<study>/<study>-report.zip``: the same bytes for the same report."""
    report = built_report_of(name)
    buffer, target = io.BytesIO(), report.packed(".zip")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in shared(report.folder):
            place = path.relative_to(report.folder).as_posix()
            member = zipfile.ZipInfo(f"{target.stem}/{place}")  # dated 1980, always
            member.external_attr = 0o644 << 16
            archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)
    write_whole(target, buffer.getvalue())
    return target
