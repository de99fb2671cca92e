"""The pages of the site beside the notebooks: each is a function of what a run made, and returns Markdown of MyST."""

import html
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from docutils.nodes import make_id  # type: ignore[import-untyped]

from helpers.report import emphasised
from helpers.study import Study


class Run(NamedTuple):
    """What the pages tell of: a study, and what the notebooks made of it."""

    study: Study
    #: ``reports/<study>``
    folder: Path
    #: As `helpers.report.parameters.check` wrote them.
    parameters: dict[str, Any]
    #: As from `helpers.claims.verdicts`, counts as they may be shown.
    claims: pd.DataFrame
    #: As from `helpers.report.site.estimated`.
    parts: pd.DataFrame
    #: The notebooks' names.
    chapters: list[str]
    #: Folder of the site's downloads, which pages link as ``files/``.
    files: Path


def text_html(text: str) -> str:
    """A notebook's sentences as HTML: paragraphs and lists; whatever the data bring in stays text.

    Parameters
    ----------
    text : str
        Paragraphs with a blank line between, or lines that begin with ``- ``.

    Returns
    -------
    str
    """
    blocks = []
    for block in filter(None, re.split(r"\n\s*\n", text.strip())):
        lines = block.splitlines()
        if all(line.startswith("- ") for line in lines):
            blocks.append(f"<ul>{''.join(f'<li>{emphasised(line[2:])}</li>' for line in lines)}</ul>")
        else:
            blocks.append(f"<p>{emphasised(block)}</p>")
    return "".join(blocks)


def figure_html(name: str, alt: str, caption: str, files: Path, cell: str = "") -> str:
    """A figure with its caption and links to its files.

    Parameters
    ----------
    name, alt, caption : str
    files : Path
    cell : str
        Id of the notebook's cell that made it, if one on the same page did.

    Returns
    -------
    str
    """
    offered = [("PNG", f"figures/{name}.png"), ("SVG", f"figures/{name}.svg"), ("data", f"tables/{name}.tsv")]
    links = [f'<a href="files/{path}">{kind}</a>' for kind, path in offered if (files / path).is_file()]
    links += [code_link(cell)] if cell else []
    return (
        f'<figure class="report-figure" id="figure-{make_id(name)}">'
        f'<img src="files/figures/{name}.png" alt="{html.escape(alt)}">'
        f'<figcaption>{emphasised(caption)} <span class="files">{" · ".join(links)}</span></figcaption></figure>'
    )


def code_link(cell: str) -> str:
    """A link to the code of a notebook's cell on the same page.

    Parameters
    ----------
    cell : str
        Its id.

    Returns
    -------
    str
    """
    return f'<a href="#cell-{html.escape(cell)}">code</a>'


def evidence(row: dict[str, Any]) -> str:
    """Address of the section where a claim's evidence is.

    Parameters
    ----------
    row : dict
        With notebook and section.

    Returns
    -------
    str
    """
    return f"{row['notebook']}.html#{make_id(re.sub(r'[*_`]', '', row['section']))}"


def raw(content: str) -> str:
    """HTML as a block of MyST.

    Parameters
    ----------
    content : str

    Returns
    -------
    str
    """
    return "```{raw} html\n" + content.replace("`", "&#96;") + "\n```"
