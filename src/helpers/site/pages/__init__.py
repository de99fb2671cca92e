"""The pages of the site: notebooks, and functions of what a run made, each of which returns Markdown of MyST."""

import html
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from docutils.nodes import make_id  # type: ignore[import-untyped]
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbformat.v4 import new_markdown_cell

from helpers.evidence import Data
from helpers.files import FIGURES, TABLES, Report
from helpers.narrate import number
from helpers.output import emphasised
from helpers.study import Study


class Run(NamedTuple):
    """What the pages tell of: a study, and what the notebooks made of it."""

    study: Study
    #: ``reports/<study>``
    folder: Path
    #: As `helpers.run.parameters.write_parameters` wrote them.
    parameters: dict[str, Any]
    #: As from `helpers.claims.verdicts`, counts as they may be shown.
    claims: pd.DataFrame
    #: As from `helpers.run.judging.gathered`.
    parts: pd.DataFrame
    #: The notebooks' names.
    chapters: list[str]
    #: Folder of the site's downloads, which pages link as ``files/``.
    files: Path
    #: Results of an earlier run to compare with, if one was named.
    against: Path | None = None
    #: The measures of the people who are compared; None where chapter 1 saved none.
    data: Data | None = None

    @property
    def has_tree(self) -> bool:
        """Whether there is a phylogeny: a file of its own, or in that of the counts."""
        return self.study.files.tree is not None or (self.data is not None and "faith_pd" in self.data.obs)

    @property
    def report(self) -> Report:
        """What is where in the folder."""
        return Report(self.folder)


def text_html(text: str) -> str:
    """A notebook's sentences as HTML: paragraphs, with a blank line between, or lists of lines that begin with ``- ``.

    Whatever the data bring in stays text.
    """
    blocks = []
    for block in filter(None, re.split(r"\n\s*\n", text.strip())):
        lines = block.splitlines()
        if all(line.startswith("- ") for line in lines):
            blocks.append(f"<ul>{''.join(f'<li>{emphasised(line[2:])}</li>' for line in lines)}</ul>")
        else:
            blocks.append(f"<p>{emphasised(block)}</p>")
    return "".join(blocks)


def figure_html(name: str, alt: str, caption: str, files: Path, data: str, code: str = "", root: str = "") -> str:
    """A figure, which leads to its picture in full, with its caption and links to its files and its code.

    `data` is the table that has its numbers, as a path in `files`; `code` the address of the cell that made it; `root`
    leads from the page to the site's folder.
    """
    offered = {"PNG": f"{FIGURES}/{name}.png", "SVG": f"{FIGURES}/{name}.svg", "data": data}
    links = {kind: f"{root}files/{path}" for kind, path in offered.items() if (files / path).is_file()}
    return (
        f'<figure class="report-figure" id="figure-{make_id(name)}">'
        f'<a href="{links.get("SVG", links.get("PNG"))}"><span class="picture">'
        f'<img src="{links.get("PNG")}" alt="{html.escape(alt)}"></span></a>'
        f"<figcaption>{emphasised(caption)} {links_html({**links, 'code': code})}</figcaption></figure>"
    )


def links_html(links: dict[str, str]) -> str:
    """The small links beside a figure or a table: address by name; one without an address is left out."""
    each = " · ".join(f'<a href="{address}">{name}</a>' for name, address in links.items() if address)
    return f'<span class="files">{each}</span>'


def evidence(row: dict[str, Any]) -> str:
    """Address of the section where a claim's evidence is, by ``notebook`` and ``section``."""
    return f"{row['notebook']}.html#{make_id(re.sub(r'[*_`]', '', row['section']))}"


def raw(content: str) -> str:
    """HTML as a block of MyST."""
    return "```{raw} html\n" + content.replace("`", "&#96;") + "\n```"


def script(root: str = "") -> str:
    """The script that a page with a chart needs."""
    return f'<script src="{root}_static/charts.js"></script>'


def fold_html(heading: str, content: str) -> str:
    """HTML under a heading on which it opens."""
    return f'<details class="fold"><summary>{emphasised(heading)}</summary>{content}</details>'


#: Paragraphs of a notebook that its page folds, by how they begin, and under which heading.
METHOD, METHOD_HEADING = "**What", "How this was done"


def as_page(notebook: Any, files: Path) -> Any:
    """A notebook as a page: findings before their evidence, method and code folded, figures and tables linked.

    No HTML comes from data. Before the code of a figure or a table stands an anchor, to which these link. Code that
    shows nothing is put before that which follows.
    """
    cells, top, section, silent = [], 0, 0, ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := re.match(r"#+ .+", cell.source)):
            cells.append(new_markdown_cell(heading[0]))
            section, top = len(cells), top or len(cells)
            cell.source = cell.source[heading.end() :].strip()
        if cell.cell_type == "markdown" and cell.source.startswith(METHOD):
            opened, closed = fold_html(METHOD_HEADING, "\0").split("\0")
            cell.source = f"{raw(opened)}\n\n{cell.source}\n\n{raw(closed)}"
        if cell.cell_type == "code" and not cell.outputs:
            silent += f"{cell.source}\n\n"
            continue
        if cell.cell_type == "code":
            cell.source, silent = silent + cell.source, ""
            anchor = f"cell-{cell.id}"
            if any({"figure", "table"} & set(output.get("metadata", {})) for output in cell.outputs):
                cells.append(new_markdown_cell(raw(f'<span id="{anchor}"></span>')))
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            for output in cell.outputs:
                role = output.get("metadata", {}).get("role")
                if role:  # a section begins with its finding, a chapter with its answer
                    lead = raw(f'<div class="{role}">{text_html(output.data["text/markdown"])}</div>')
                    cells.insert(top if role == "answer" else section, new_markdown_cell(lead))
            cell.outputs = shown(cell.outputs, f"#{anchor}", files)
        cells.append(cell)
    notebook.cells = cells
    return notebook


def shown(outputs: list[Any], code: str, files: Path) -> list[Any]:
    """A cell's outputs as its page shows them, each figure with its caption, less what has its place elsewhere.

    `code` is the address of the cell.
    """
    captions = {o.metadata["caption_of"]: o for o in outputs if "caption_of" in o.get("metadata", {})}
    for output in outputs:
        about, bundle = output.get("metadata", {}), output.get("data", {})
        if "figure" in about:
            name, caption = about["figure"], captions[about["figure"]].data["text/plain"]
            data = about["data"] if "." in about["data"] else f"{TABLES}/{about['data']}.tsv"
            page = figure_html(name, about["image/png"]["alt"], caption, files, data, code)
        elif "table" in about:
            links = links_html({"table as TSV": f"files/tables/{about['table']}.tsv", "code": code})
            page = f'{bundle["text/html"]}<p class="files">{links}</p>'
        elif "text/markdown" in bundle:
            page = text_html(bundle["text/markdown"])
        else:
            continue
        output.data = {"text/html": fold_html(about["fold"], page) if "fold" in about else page}
    return [o for o in outputs if not {"caption_of", "role"} & set(o.get("metadata", {}))]


def escaped(text: str) -> str:
    """Text that is taken as it stands in a sentence of Markdown: on one line, each mark of ASCII behind a backslash."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def _filled(template: str, facts: dict[str, Any], **how: Any) -> str:
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, **how
    )
    env.filters["number"] = number
    return env.get_template(template).render(facts)


def rendered(template: str, **facts: Any) -> str:
    """A page of prose, ``<template>.md.j2`` beside this file, with facts: whatever it inserts of them is escaped."""
    return _filled(f"{template}.md.j2", facts, finalize=lambda value: escaped(str(value)))


def prose(template: str, **facts: Any) -> str:
    """HTML of prose, ``<template>.html.j2`` beside this file, on one line: what it inserts of the facts is escaped."""
    return " ".join(_filled(f"{template}.html.j2", facts, autoescape=True).split())
