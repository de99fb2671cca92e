"""Runs the notebooks: for a study, or in place for the reference outputs."""

import hashlib
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from traitlets.config import Config

from helpers.errors import StudyError
from helpers.files import DATA, NOTEBOOKS, Report, remedy, report_of, unfinished, unwritable, write_whole
from helpers.run.origin import Ran, commit, note_saved, privacy_of, record, record_of
from helpers.run.parameters import declared
from helpers.study import load_study

#: The kernel of this environment, no progress bars, nothing of what a kernel logs when it is told to stop; and no time
#: for it to clear up what ends with it.
HOW = {
    "kernel_name": "python3",
    "language": "python",
    "progress_bar": False,
    "shutdown_kernel": "immediate",
    "extra_arguments": ["--log-level=CRITICAL"],
}


def execute(source: Path, target: Path, parameters: dict[str, Any], finish: Callable[[], None] = lambda: None) -> None:
    """Run a notebook; its target appears only if it succeeded, else ``<name>.failed.ipynb`` does.

    `finish` is called when it succeeded: who is killed before the target appears runs the notebook again.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import CellExecutionError

    failed = target.with_name(f"{target.stem}.failed.ipynb")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Sockets, since two kernels may take the same TCP port.
        with unfinished(target) as running, TemporaryDirectory(prefix="kernel-") as sockets:
            config = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/socket"})
            try:
                papermill.execute_notebook(source, running, parameters, cwd=source.parent, config=config, **HOW)
            except papermill.PapermillExecutionError:
                running.replace(failed)
                raise
            done = nbformat.writes(tidied(nbformat.read(running, as_version=4))) + "\n"
        finish()
        failed.unlink(missing_ok=True)
        write_whole(target, done)
    except papermill.PapermillExecutionError as e:
        if e.ename == "StudyError":
            # The kernel runs in notebooks/, its reader in the project's root.
            told = re.sub(r"\.\./(data|reports)/", r"\1/", e.evalue)
            raise StudyError(f"[{target.stem}] stopped: {told}") from None
        where = f"section '{_section_of_error(nbformat.read(failed, as_version=4))}'"
        fix = "; ".join(filter(None, [remedy(e.evalue), f"the traceback is in {failed}"]))
        raise StudyError(f"[{target.stem}] failed", where=where, found=f"{e.ename}: {e.evalue}", fix=fix) from None
    except (RuntimeError, CellExecutionError) as e:  # the kernel died, or never answered
        raise StudyError(f"[{target.stem}] failed", found=e, fix="is there enough memory?") from None
    except OSError as e:
        raise unwritable(e, Path(e.filename or target)) from None


def _section_of_error(notebook: Any) -> str:
    heading = "the beginning"
    for cell in notebook.cells:
        titles = re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        heading = titles[-1] if titles else heading
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            break
    return heading


def tidied(notebook: Any) -> Any:
    """A notebook without what differs from run to run and from machine to machine.

    A checksum of its code stays in the metadata: an edit that was not re-run no longer fits it.
    """
    notebook.nbformat_minor = 5
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
        "code_sha256": hashlib.sha256("\0".join(code).encode()).hexdigest(),
    }
    for i, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        cell.id = "injected-parameters" if "injected-parameters" in tags else cell.get("id", f"cell-{i}")
        if cell.cell_type == "code":
            cell.outputs = _joined_streams(cell.outputs)
    return notebook


def _joined_streams(outputs: list[Any]) -> list[Any]:
    """Outputs with what a cell printed in one piece: a kernel flushes when it likes."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and joined[-1].name == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def run(name: str, notebook: str) -> None:
    """Run a notebook of a checked study with the parameters that it declares; record when it ran, and for how long."""
    study, report, source = load_study(DATA / name), report_of(name), NOTEBOOKS / f"{notebook}.ipynb"
    target = report.notebooks / source.name
    parameters = yaml.safe_load(report.parameters.read_text(encoding="utf-8"))
    _say(f"[{notebook}] started")
    record_of(report, notebook).unlink(missing_ok=True)  # no outputs are shown with the times of another run
    (privacy := privacy_of(report, notebook)).unlink(missing_ok=True)
    started, began, code = datetime.now(UTC), time.monotonic(), commit()
    before = _saved(report, notebook)

    def compare() -> None:
        """Note what this run saved, and remove what only an earlier one did: every file is written anew."""
        after = _saved(report, notebook)
        for path in after.items() & before.items():
            if path[0].parent != report.results:  # of which nobody knows whose it is
                path[0].unlink()
        note_saved(report, notebook, [target, privacy, *dict(after.items() - before.items())])

    execute(source, target, declared(source, parameters), compare)
    write_whole(privacy, study.privacy.model_dump_json())
    seconds = time.monotonic() - began
    record(report, notebook, Ran(started, seconds, code))
    _say(f"[{notebook}] done in {seconds:.0f} s")


def _saved(report: Report, notebook: str) -> dict[Path, tuple[int, int]]:
    """What a notebook may have saved: the files' numbers and times in the file system."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in report.saved_by(notebook)}


def _say(text: str) -> None:
    """Print in one write: notebooks run side by side, and their lines must not run into each other."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
