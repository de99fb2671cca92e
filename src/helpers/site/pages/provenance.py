"""Where the report comes from: code, command, parameters, input files, software, run times, random seeds."""

import ast
import html
import platform
import re
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Any

import nbformat
import pandas as pd
from IPython.core.inputtransformer2 import TransformerManager

from helpers.files import CRATE, LOCK, MAKEFILE
from helpers.output import table_html
from helpers.run import origin
from helpers.run.origin import DIRTY, Ran, sha256
from helpers.run.parameters import parse_overrides
from helpers.site.pages import Run, prose, raw
from helpers.study import Settings, Study

UNKNOWN = "not known"


def page(run: Run) -> str:
    """The page. It is not searched: its times would make the index of the search another one after every run."""
    report, pinned, line, seeds = run.report, origin.locked(), origin.command(run.report), _seeds(run)
    runs = origin.run_times(report, run.chapters)
    told = partial(
        prose,
        "provenance",
        code=origin.commit(),
        dirty=DIRTY,
        makefile=MAKEFILE if (run.files / MAKEFILE).is_file() else "",
        command=line,
        python=platform.python_version(),
        machine=origin.machine(),
        lock=LOCK,
        pinned=pinned,
        checksum=sha256(LOCK) if LOCK.is_file() else "",
        runs=runs,
        seed=run.parameters["seed"],
        seeds=seeds,
        crate=CRATE,
    )
    used = _table(seeds, ("Notebook", "Section", "Given to"), "Where the seed is used") if seeds else ""
    times = [(name, *_ran(ran)) for name, ran in runs.items()]
    heads = ("Notebook", "Started (UTC)", "Run time (s)", "Commit")
    made_by = f"<pre>{html.escape(line)}</pre>\n" if line else ""
    tables = {
        "Code": "",
        "Command and parameters": made_by + parameters_html(run.study, run.parameters, origin.overrides(report)),
        "Input files": _inputs(run.study),
        "Software": _software(pinned),
        "Run times": _table(times, heads, "Run time of each notebook", {"Run time (s)"}),
        "Random seeds": used,
        "For machines": "",
    }
    blocks = [f"## {heading}\n\n{raw(told(section=heading) + table)}" for heading, table in tables.items()]
    return "\n\n".join(["---\nnosearch: true\n---\n\n# Provenance", raw(told(section="")), *blocks]) + "\n"


def parameters_html(study: Study, parameters: dict[str, Any], set_text: str | None) -> str:
    """The parameters of the run, and by word which differ from their defaults and who set them, study.yaml or SET."""
    commanded = parse_overrides(set_text or "")
    rows = []
    for name, field in Settings.model_fields.items():
        by = "SET" if name in commanded else "study.yaml" if name in study.settings.model_fields_set else ""
        by = f" (given by {by})" if by and set_text is not None else ""
        status = "default" if parameters[name] == field.default else "differs from the default"
        rows.append((name, str(parameters[name]), str(field.default), status + by, field.description or ""))
    changed = sum(status.startswith("differs") for *_, status, _ in rows)
    caption = f"Parameters of this run: {changed} of {len(rows)} differ from the default"
    return _table(rows, ("Parameter", "Value", "Default", "Status", "Meaning"), caption, {"Value", "Default"})


def _table(
    rows: Sequence[tuple[str, ...]], heads: tuple[str, ...], caption: str, numeric: Set[str] = frozenset()
) -> str:
    return table_html(pd.DataFrame(rows, columns=list(heads)).to_dict("list"), {*numeric}, caption)


def _inputs(study: Study) -> str:
    rows = [(role, path.name, sha256(path)) for role, path in origin.inputs(study).items()]
    return _table(rows, ("Input", "File", "SHA-256"), "Input files, as they were when this site was built")


def _software(pinned: Mapping[str, list[str]]) -> str:
    known = origin.packages().items()
    rows = [(name, version, " or ".join(pinned.get(name.lower(), [])) or "–") for name, version in known]
    return _table(rows, ("Package", "Version", f"In {LOCK}"), "Direct dependencies, as installed")


def _ran(ran: Ran | None) -> tuple[str, str, str]:
    """When a notebook ran, for how long, and with which code."""
    if ran is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    changes = ", with changes" if ran.commit and ran.commit.endswith(DIRTY) else ""
    code = ran.commit.removesuffix(DIRTY)[:12] + changes if ran.commit is not None else UNKNOWN
    return f"{ran.started:%Y-%m-%d %H:%M:%S}", f"{ran.seconds:,.1f}", code


def _seeds(run: Run) -> list[tuple[str, ...]]:
    """Notebook, section and function of each use of the seed."""
    executed = {chapter: run.report.notebooks / f"{chapter}.ipynb" for chapter in run.chapters}
    return [(name, *use) for name, path in executed.items() for use in seeded(nbformat.read(path, as_version=4))]


def seeded(notebook: Any, parameter: str = "seed") -> list[tuple[str, str]]:
    """Section and function of the calls to which a notebook gives the seed, itself or in a dict of arguments."""
    carriers, section, found = {parameter}, "", []

    def given(values: list[ast.expr]) -> bool:
        return any(isinstance(value, ast.Name) and value.id in carriers for value in values)

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            section = (re.findall(r"^##+ +(.+)$", cell.source, re.MULTILINE) or [section])[-1]
        elif cell.cell_type == "code":
            nodes = list(ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))))
            for node in nodes:
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and given(node.value.values):
                    carriers |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            calls = [node for node in nodes if isinstance(node, ast.Call)]
            for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
                if given([*call.args, *(keyword.value for keyword in call.keywords)]):
                    found.append((re.sub(r"[*_`]", "", section), ast.unparse(call.func)))
    return list(dict.fromkeys(found))
