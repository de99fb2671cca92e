"""Paths of the project; files written as a whole or not at all, and what to tell when they cannot be.

Without imports of packages: `helpers.run.lock` goes before these are installed. Paths begin at the project's root,
where the steps run.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.errors import StudyError

DATA, NOTEBOOKS, REPORTS, DOCS = (Path(name) for name in ("data", "notebooks", "reports", "docs"))
#: The claims that a study.yaml may name, a file a paper.
CLAIMS_FOLDER = DATA / "claims"
#: The claims that the reference of their keys has its examples from.
EXAMPLES = CLAIMS_FOLDER / "hartmann2023.yaml"
#: The choices that the multiverse varies.
CHOICES = CLAIMS_FOLDER / "choices.yaml"
DEMO = DATA / "demo"
#: What `make validate` found, the same in each study's report: it is about the methods.
VALIDATION = DEMO / "validation.tsv"
#: The demo cohort's results, committed beside the notebooks' reference outputs; `make reference` writes them.
REFERENCE = NOTEBOOKS / "reference"
#: What other published studies reported of the claims.
REPORTED = DATA / "reported.yaml"
#: Studies side by side.
COMPARISON = REPORTS / "compare"
#: Where the keys are described of the files that users write.
STUDY_KEYS, CLAIMS_KEYS, CHOICES_KEYS = DOCS / "study_yaml.md", DOCS / "claims.md", DOCS / "choices.md"
#: The workflow, and the packages that it installs.
MAKEFILE, LOCK = Path("Makefile"), Path("requirements.lock")

STUDY_YAML = "study.yaml"
#: In the folder of a report, beside the executed notebooks.
HTML, RESULTS, CRATE = "html", "results", "ro-crate-metadata.json"
#: In the results, and in the site's downloads; but evidence has unrounded numbers of people, and stays where it is.
TABLES, FIGURES, EVIDENCE = "tables", "figures", "evidence"
CLAIMS_TABLE, CLAIMS_JSON = "claims.tsv", "claims.json"
#: The multiverse: a row a claim, and every specification.
ROBUSTNESS, SPECIFICATIONS = "robustness.tsv", "multiverse.tsv.gz"
#: What there is of claims in the results; the site offers it for download. Without the multiverse, the first two.
OF_CLAIMS = (CLAIMS_TABLE, CLAIMS_JSON, ROBUSTNESS, SPECIFICATIONS)


class Report:
    """A report's folder, ``reports/<study>``, and what is where in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: The parameters of the run.
        self.parameters = folder / "parameters.yaml"
        #: For make: which files the study has.
        self.inputs = folder / "inputs.mk"
        #: What the variable SET was, as make noted it.
        self.given = folder / ".set"
        #: What the steps recorded of themselves: aside from what is published, which is the same from run to run.
        self.runs = folder / ".runs"
        #: The executed notebooks.
        self.notebooks = folder / NOTEBOOKS.name
        #: What the notebooks saved.
        self.results = folder / RESULTS
        #: The site, and its first page; who looks for a report looks for it.
        self.html = folder / HTML
        self.index = self.html / "index.html"
        #: The RO-Crate's metadata.
        self.crate = folder / CRATE

    def saved_by(self, notebook: str) -> list[Path]:
        """What a notebook may have saved in the results; whose the cohorts and the multiverse are, nobody knows."""
        kinds = [f"{kind}/{notebook[:3]}*" for kind in (TABLES, FIGURES, EVIDENCE)]
        return [p for kind in (*kinds, "*.h5ad", ROBUSTNESS, SPECIFICATIONS) for p in self.results.glob(kind)]

    def packed(self, suffix: str) -> Path:
        """The report in one file, to send to others or to print."""
        return self.folder / f"{self.folder.name}-report{suffix}"


def report_of(study: str) -> Report:
    """The report of a study."""
    return Report(REPORTS / study)


def built_report_of(study: str) -> Report:
    """The report of a study; raises `StudyError` if it was not built."""
    report = report_of(study)
    if not report.index.is_file():
        raise StudyError("there is no report", file=report.html, fix=f"make report STUDY={study}")
    return report


def from_notebook(path: Path) -> str:
    """A path as the notebooks have it, which run in their folder."""
    return f"../{path.as_posix()}"


_BEGINNING = ".unfinished-"
#: Files and folders that are being written, or that a process left which was killed: `helpers.run.lock.clear`.
UNFINISHED = f"{_BEGINNING}*"


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A name beside a file or folder for what shall be moved there once it is complete; what stays under it is removed.

    The name ends as the target's does, and nothing is there.
    """
    path = target.with_name(f"{_BEGINNING}{os.getpid()}-{target.name}")
    remove(path)  # in a container, processes have the same number again and again
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file as a whole or not at all; its folder is made if need be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path) as part:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
            part.replace(path)
    except OSError as e:
        raise unwritable(e, path) from None


_FIXES = {
    errno.ENOSPC: "make room on the disk, or move the project to another",
    errno.EDQUOT: "make room: your share of the disk is used up",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "make the folder writable, or work in a copy of the project",
    errno.EPERM: "make the folder writable, or work in a copy of the project",
    errno.EROFS: "work in a copy of the project on a disk that can be written to",
}


def unwritable(error: OSError, path: Path) -> StudyError:
    """What to tell of a file that cannot be written."""
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            return StudyError("a file, where a folder must be", file=folder, fix="remove or rename it")
    return StudyError("cannot be written", file=path, found=error.strerror or error, fix=remedy(str(error)))


def remedy(error: str) -> str | None:
    """What to do about an error of the file system, whose text may stand in a longer one."""
    return next((fix for code, fix in _FIXES.items() if os.strerror(code) in error), None)
