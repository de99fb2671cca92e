"""The committed notebooks: run in place, with what changed; their tables and claims kept beside them."""

import difflib
import shutil
from typing import Any

from helpers.files import DEMO, DOCS, FIGURES, report_of, write_whole
from helpers.intake.reference import write_reference
from helpers.run.execution import execute
from helpers.run.judging import judge
from helpers.run.parameters import notebooks
from helpers.site.pages.changes import keep_results
from helpers.study import load_study

#: The figure that README.md shows.
README_FIGURE = "02_position.png"


def reference() -> None:
    """Run the notebooks in their order with their own defaults, keep the outputs in them, print what changed.

    The README's figure, the tables and claims, and the reference of study.yaml are taken along.
    """
    import nbformat

    write_reference()
    report = report_of("reference")
    results = report.results
    shutil.rmtree(results, ignore_errors=True)  # what an earlier version saved and this one does not
    for source in notebooks():
        target = report.notebooks / source.name
        before = nbformat.read(source, as_version=4)
        execute(source, target, {})
        changes = _changes(before, nbformat.read(target, as_version=4))
        if source.read_bytes() != target.read_bytes():
            write_whole(source, target.read_bytes())
        print(f"[{source.stem}] {len(changes)} cells changed" if changes else f"[{source.stem}] nothing changed")
        told = "".join(f"  cell {cell}\n    " + "\n    ".join(lines) + "\n" for cell, lines in changes)
        print(told, end="", flush=True)
    study = load_study(DEMO)
    judge(study, results, [notebook.stem for notebook in notebooks()], study.settings.alpha)
    keep_results(results)
    drawn = results / FIGURES / README_FIGURE
    if drawn.is_file():
        write_whole(DOCS / README_FIGURE, drawn.read_bytes())


def _changes(before: Any, after: Any) -> list[tuple[int, list[str]]]:
    """Number and difference of the code cells whose source or text output changed."""
    old = {cell.id: cell for cell in before.cells if cell.cell_type == "code"}
    changes = []
    for i, cell in enumerate((c for c in after.cells if c.cell_type == "code"), start=1):
        was = _said(old[cell.id]) if cell.id in old else []
        lines = difflib.unified_diff(was, _said(cell), n=0, lineterm="")
        if diff := [line for line in lines if line[:2] not in ("--", "++", "@@")]:
            changes.append((i, diff[:8] + [f"… and {len(diff) - 8} lines more"] * (len(diff) > 8)))
    return changes


def _said(cell: Any) -> list[str]:
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    return "\n".join(texts).splitlines()
