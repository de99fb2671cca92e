"""Where a report comes from: code, command, input files, packages, machine, run times; None where it is not known."""

import hashlib
import json
import platform
import re
import shlex
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from helpers.files import LOCK, STUDY_YAML, Report, write_whole
from helpers.study import Study

#: What `commit` ends with where tracked files had changes.
DIRTY = "-dirty"


class Ran(NamedTuple):
    """A notebook's run that succeeded."""

    started: datetime
    seconds: float
    #: As from `commit`, when it started.
    commit: str | None

    @property
    def ended(self) -> datetime:
        """When it was done."""
        return self.started + timedelta(seconds=self.seconds)


def record_of(report: Report, notebook: str) -> Path:
    """Where the run of a notebook, named without suffix, is recorded."""
    return report.runs / f"{notebook}.json"


def record(report: Report, notebook: str, ran: Ran) -> None:
    """Record a notebook's run."""
    content = {"started": utc(ran.started), "seconds": round(ran.seconds, 1), "commit": ran.commit}
    write_whole(record_of(report, notebook), json.dumps(content) + "\n")


def note_saved(report: Report, step: str, paths: Iterable[Path]) -> None:
    """Tell make what a step saved in the report's folder, so that it does it again when someone deletes a file.

    A step is a notebook's name without suffix, or ``site``.
    """
    names = " ".join(sorted(path.relative_to(report.folder).as_posix() for path in paths))
    write_whole(report.runs / f"{step}.mk", makefile_variable(f"SAVED_{step}", names))


def privacy_of(report: Report, step: str) -> Path:
    """Where a step, as of `note_saved`, notes the privacy settings that it was done under; not there while it runs."""
    return report.runs / f"{step}.privacy"


def makefile_variable(name: str, value: str) -> str:
    """A line for make, in which the value is as it stands."""
    return f"{name} := {value.replace('$', '$$').replace('#', chr(92) + '#')}\n"


def run_times(report: Report, notebooks: list[str]) -> dict[str, Ran | None]:
    """The recorded runs of notebooks, by name; None where no run was recorded."""
    runs: dict[str, Ran | None] = dict.fromkeys(notebooks)
    for notebook in notebooks:
        if (path := record_of(report, notebook)).is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            runs[notebook] = Ran(**{**content, "started": datetime.fromisoformat(content["started"])})
    return runs


def utc(time: datetime) -> str:
    """A time with its zone as ISO 8601 has it, to the second, in UTC."""
    return time.astimezone(UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """The commit that is checked out, with ``-dirty`` if a tracked file differs from it.

    None outside a git repository, and in one that only happens to lie around this project.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", *arguments]  # notebooks start side by side
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "pyproject.toml")
        return git("describe", "--always", "--abbrev=40", "--exclude=*", f"--dirty={DIRTY}")
    except (OSError, subprocess.CalledProcessError):
        return None


def overrides(report: Report) -> str | None:
    """The parameters that the command set, if make was used."""
    return report.given.read_text(encoding="utf-8").strip() if report.given.is_file() else None


def command(report: Report) -> str | None:
    """The command that makes this report."""
    text = overrides(report)
    if text is None:
        return None
    return " ".join(["make report", f"STUDY={report.folder.name}", *([f"SET={shlex.quote(text)}"] if text else [])])


def inputs(study: Study) -> dict[str, Path]:
    """The input files by role. Of their paths only the names are to be shown: they may lie anywhere on the machine."""
    own = {"study": study.folder / STUDY_YAML, "claims": study.claims_file}
    return own | {role: study.path(f) for role, f in study.files.each().items()}


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def packages() -> dict[str, str]:
    """Versions of the packages that the project names as its dependencies, as installed."""
    names = [re.split(r"[^\w.-]", line)[0] for line in metadata.requires("helpers") or [] if "extra ==" not in line]
    return {name: metadata.version(name) for name in names}


def locked() -> dict[str, list[str]]:
    """Versions in ``requirements.lock``, if it is there: one a package, or one for each range of Pythons or systems."""
    versions: dict[str, list[str]] = {}
    text = LOCK.read_text(encoding="utf-8") if LOCK.is_file() else ""
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE):
        versions.setdefault(name, []).append(version)
    return versions


def machine() -> str:
    """Operating system and type of the processor, and nothing else of the machine."""
    return f"{platform.system()} {platform.machine()}"
