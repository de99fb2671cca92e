"""Where the report comes from: code, command, parameters, input files, software, run times, random seeds."""

import ast
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from helpers.files import CRATE, LOCK, MAKEFILE
from helpers.output import table_html
from helpers.run import origin
from helpers.run.origin import DIRTY, Ran, sha256
from helpers.run.parameters import parse_overrides
from helpers.site.pages import Run, raw
from helpers.study import Settings, Study

UNKNOWN = "not known"


def page(run: Run) -> str:
    """The page. It is not searched: its times would make the index of the search another one after every run."""
    code, runs = origin.commit(), origin.run_times(run.report, run.chapters)
    sections = {
        "Code": _paragraph(code_told(code)) + _workflow_link(run),
        "Command and parameters": _command(run)
        + parameters_html(run.study, run.parameters, origin.overrides(run.report)),
        "Input files": _inputs(run.study),
        "Software": _software(),
        "Run times": runs_html(runs, code),
        "Random seeds": _seeds(run),
        "For machines": _paragraph(
            f"{CRATE}, in the report's folder beside html, says the same in a form that software reads: "
            "an RO-Crate 1.1 that follows the profile Provenance Run Crate 0.5 (https://w3id.org/ro/wfrun/provenance/0.5)."
        ),
    }
    blocks = [block for heading, body in sections.items() for block in (f"## {heading}", raw(body))]
    about = _paragraph("What this report was made of, and how, so that it can be made again and checked.")
    return "\n\n".join(["---\nnosearch: true\n---\n\n# Provenance", raw(about), *blocks]) + "\n"


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>\n"


# ---------------------------------------------------------------- code, command, parameters


def code_told(code: str | None) -> str:
    """The commit, as from `helpers.run.origin.commit`, in a sentence."""
    if code is None:
        return "The commit is not known: the report was made outside a git repository of the project."
    if code.endswith(DIRTY):
        return (
            f"Commit {code.removesuffix(DIRTY)}, with uncommitted changes: the work tree was not clean, so the commit "
            "alone does not say which code made this report."
        )
    return f"Commit {code}. The work tree was clean: no tracked file differed from the commit."


def _workflow_link(run: Run) -> str:
    if not (run.files / MAKEFILE).is_file():
        return ""
    return f'<p>The steps and their order are in the <a href="files/{MAKEFILE}">{MAKEFILE}</a> of this run.</p>\n'


def _command(run: Run) -> str:
    line = origin.command(run.report)
    if line is None:
        return _paragraph("The command is not known: the steps were run one by one, without make.")
    return f"<p>Made by</p>\n<pre>{html.escape(line)}</pre>\n"


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
    return _table(rows, ("Parameter", "Value", "Default", "Status", "Meaning"), {"Value", "Default"}, caption)


def _table(rows: Sequence[tuple[str, ...]], heads: tuple[str, ...], numeric: set[str], caption: str) -> str:
    columns = zip(*rows, strict=True)
    return table_html({head: list(column) for head, column in zip(heads, columns, strict=True)}, numeric, caption)


# ---------------------------------------------------------------- what it was made of


def _inputs(study: Study) -> str:
    files = origin.inputs(study)
    columns = {
        "Input": list(files),
        "File": [path.name for path in files.values()],
        "SHA-256": [sha256(path) for path in files.values()],
    }
    return table_html(columns, set(), "Input files, as they were when this site was built")


def _software() -> str:
    known, pinned = origin.packages(), origin.locked()
    told = f"Python {origin.python()} on {origin.machine()}."
    lock = (
        f"{LOCK} pins {len(pinned)} packages, each with the checksums of its files. Its SHA-256: {sha256(LOCK)}"
        if LOCK.is_file()
        else f"Which packages were locked is not known: there is no {LOCK}."
    )
    columns = {
        "Package": list(known),
        "Version": list(known.values()),
        f"In {LOCK}": [" or ".join(pinned.get(name.lower(), [])) or "–" for name in known],
    }
    return _paragraph(told) + _paragraph(lock) + table_html(columns, set(), "Direct dependencies, as installed")


# ---------------------------------------------------------------- run times


def runs_html(runs: Mapping[str, Ran | None], code: str | None) -> str:
    """When each notebook ran, for how long, and with which code; `code` is the commit that built the site."""
    known = [ran for ran in runs.values() if ran]
    columns = {
        "Notebook": list(runs),
        "Started (UTC)": [f"{ran.started:%Y-%m-%d %H:%M:%S}" if ran else UNKNOWN for ran in runs.values()],
        "Run time (s)": [f"{ran.seconds:,.1f}" if ran else UNKNOWN for ran in runs.values()],
        "Commit": [_short(ran.commit) if ran else UNKNOWN for ran in runs.values()],
    }
    told = (
        "Of the run whose outputs this report shows. A notebook is run again only if it, its input or the code that it "
        "uses changed, so that the dates may differ. Notebooks run side by side."
    )
    if any(ran.commit != code for ran in known):
        told += " Some ran at another state of the code than the one that built these pages."
    if len(known) < len(runs):
        told += " Where nothing was recorded, the run time is not known."
    return _paragraph(told) + table_html(columns, {"Run time (s)"}, "Run time of each notebook")


def _short(code: str | None) -> str:
    if code is None:
        return UNKNOWN
    return code.removesuffix(DIRTY)[:12] + (", with changes" if code.endswith(DIRTY) else "")


# ---------------------------------------------------------------- random seeds


def _seeds(run: Run) -> str:
    told = (
        "All that is drawn at random in the analyses (permutations, bootstrap resamples, rarefied reads) is drawn with "
        f"the parameter seed = {run.parameters['seed']}: with the same packages it gives the same numbers again. The "
        "sideways scatter of points in figures has a fixed seed of its own and no meaning."
    )
    rows: list[tuple[str, ...]] = []
    for chapter in run.chapters:
        notebook = nbformat.read(run.report.notebooks / f"{chapter}.ipynb", as_version=4)
        rows += [(chapter, *call) for call in seeded(notebook)]
    if not rows:
        return _paragraph(told) + _paragraph("No notebook of this report uses it.")
    return _paragraph(told) + _table(rows, ("Notebook", "Section", "Given to"), set(), "Where the seed is used")


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
