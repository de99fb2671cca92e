"""One file to send: the report, its results and its notebooks, and nothing else of the study's folder."""

import io
import zipfile
from pathlib import Path

from helpers import files
from helpers.errors import StudyError
from helpers.files import built_report_of, write_whole
from helpers.run.origin import privacy_of
from helpers.run.parameters import notebooks
from helpers.study import load_study

#: What may be shared of a report's folder: not the cohort, not unrounded estimates, not notebooks that failed.
SHARED = (
    files.CRATE,
    f"{files.HTML}/**/*",
    *(f"{files.RESULTS}/{name}" for name in files.OF_CLAIMS),
    f"{files.RESULTS}/{files.TABLES}/*.tsv",
    f"{files.RESULTS}/{files.FIGURES}/*.*",
    f"{files.NOTEBOOKS}/[0-9]*.ipynb",
)


def shared(folder: Path) -> list[Path]:
    """What may be shared of what is there in ``reports/<study>``."""
    found = {path for pattern in SHARED for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith(".") and ".failed." not in path.name)


def to_send(name: str) -> files.Report:
    """A report that was built, all of it under the privacy settings that study.yaml has now, or `StudyError`."""
    report, now = built_report_of(name), load_study(files.DATA / name).privacy.model_dump_json()
    steps = {step: privacy_of(report, step) for step in (*(notebook.stem for notebook in notebooks()), "site")}
    under = {step: path.read_text(encoding="utf-8") if path.is_file() else "not known" for step, path in steps.items()}
    if others := {step: settings for step, settings in under.items() if settings != now}:
        found, where = " or ".join(sorted({*others.values()})), ", ".join(others)
        raise StudyError.of("other_privacy", report.html, where=where, found=found, expected=now, study=name)
    return report


def share(name: str) -> Path:
    """Pack a report in ``reports/<study>/<study>-report.zip``: the same bytes for the same report."""
    report = to_send(name)
    buffer, target = io.BytesIO(), report.packed(".zip")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in shared(report.folder):
            place = path.relative_to(report.folder).as_posix()
            member = zipfile.ZipInfo(f"{target.stem}/{place}")  # dated 1980, always
            member.external_attr = 0o644 << 16
            archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)
    write_whole(target, buffer.getvalue())
    return target
