"""What a notebook saves and shows: text, tables, figures, its parts of the claims."""

import base64
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from helpers.claims import load_claims, measures_of
from helpers.disclosure import as_tsv, few, in_figure, in_table, in_text
from helpers.figures import italicise
from helpers.files import EVIDENCE, FIGURES, TABLES, write_whole
from helpers.measures import taxa_named
from helpers.narrate import interval, italicised, number, p_number
from helpers.study import SMALL, Study
from helpers.texts import packaged

#: Dots an inch of saved pictures: sharp on dense screens; for print there is the SVG.
PRINT = 200
#: And of those that are for the screen alone.
SCREEN = 150
#: Points of the smallest lettering: 9 px where a figure of 7 inches is shown 42 rem wide.
SMALLEST = 7
#: Rows beyond which a table is sorted, filtered and leafed through in its page.
LONG = 12


def save_table(df: pd.DataFrame, results_dir: str | Path, name: str) -> None:
    """Save a table as ``tables/<name>.tsv``, without its index: the same bytes for the same numbers."""
    write_whole(Path(results_dir) / TABLES / f"{name}.tsv", as_tsv(df))


def saved_table(results_dir: str | Path, name: str) -> pd.DataFrame:
    """A table as `save_table` saved it, all text; empty if it was not saved."""
    path = Path(results_dir) / TABLES / f"{name}.tsv"
    return as_text(path) if path.is_file() else pd.DataFrame()


def as_text(path: Path) -> pd.DataFrame:
    """A tab-separated table whose cells are text as it stands, empty where nothing does."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def save_figure(
    fig: Figure,
    results_dir: str | Path,
    name: str,
    *,
    simulated: bool,
    kinds: Sequence[str] = ("png", "svg"),
    dpi: int = PRINT,
) -> Bbox:
    """Save a figure as ``figures/<name>.png`` and ``.svg``, the same bytes for the same figure.

    One that is `simulated` says SIMULATED DATA under its lower right corner. Places in an SVG are to a
    tenth of a point: what more they told of hidden counts is left out. Returns what was saved of it, in inches.
    """
    letters = [text for text in fig.findobj(Text) if text.get_visible() and text.get_text().strip()]
    if small := [text.get_text() for text in letters if float(text.get_fontsize()) < SMALLEST]:
        raise ValueError(f"{name}: lettering under {SMALLEST} pt: {small[0]!r}")
    if simulated:
        fig.text(1, -0.01, "SIMULATED DATA", ha="right", va="top", fontsize=SMALLEST, color="#8a1c1c", weight="bold")
    box = _laid_out(fig)
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    with mpl.rc_context({"svg.hashsalt": "report"}):
        for kind in kinds:
            drawn = _drawn(fig, kind, dpi, metadata[kind], box)
            if kind == "svg":
                drawn = re.sub(rb'\b(?:d|x|y)="[^"]*"', lambda m: re.sub(rb"(\.\d)\d+", rb"\1", m[0]), drawn)
            write_whole(Path(results_dir) / FIGURES / f"{name}.{kind}", drawn)
    return box


class Output:
    """What a notebook saves under ``results/`` and shows: text, tables, figures, and its parts of the claims.

    All that a reader sees goes through here, so that what `helpers.study.Privacy` hides is hidden in one place.
    """

    def __init__(self, results_dir: str | Path, study: Study) -> None:
        self.results_dir = Path(results_dir)
        self.simulated = study.simulated
        self.privacy = study.privacy
        self.taxa = taxa_named(measures_of(load_claims(study)), study)

    def _told(self, markdown: str) -> str:
        return italicised(in_text(markdown, self.privacy), self.taxa)

    def text(self, markdown: str, role: Literal["", "finding", "answer"] = "", fold: str = "") -> None:
        """Show a text; the page sets a finding at the beginning of its section, an answer at that of the chapter.

        `fold` as of a figure.
        """
        if not markdown:
            return
        text, about = self._told(markdown), {"role": role} if role else {}
        display({"text/markdown": text, "text/plain": text}, raw=True, metadata=about | _folded(fold))

    def finding(self, sentence: str, *more: str) -> None:
        """Show what a section found: a sentence, with which its page begins, and what more there is to say here."""
        self.text(sentence, "finding")
        if more:
            self.text(" ".join(more))

    def answer(self, markdown: str) -> None:
        """Show the chapter's answer in two or three sentences, which its page opens with."""
        self.text(markdown, "answer")

    def figure(
        self,
        fig: Figure,
        name: str,
        finding: str = "",
        *,
        caption: str = "",
        alt: str = "",
        data: str = "",
        fold: str = "",
    ) -> None:
        """Save a figure and show it with its caption; what serves checking in a `fold`, whose heading that is.

        The name starts with the notebook's number, as ``02_alpha``; `finding` is what there is to see, told to who
        cannot see it after what the figure shows. Caption (with ``*emphasis*`` and ``**strong**``) and `alt`, how it is
        read and what it shows, are given if not as its function says; `data`, the name of the table that has its
        numbers, if not that of the figure; with a suffix, a file beside the tables. `ValueError` if it has no caption,
        no alternative text, or does not say of how many it is (``n = ``).
        """
        caption = caption or getattr(fig, "caption", "")
        alt = f"{alt or getattr(fig, 'alt', '')} {finding}".strip()
        if not caption or not alt or not any("n = " in text.get_text() for text in fig.findobj(Text)):
            raise ValueError(f"{name}: a figure needs a caption, an alternative text, and its n")
        if few(fig, self.privacy):
            caption += f" Neither single people nor groups of {SMALL} or fewer are drawn."
        caption, alt = self._told(caption), in_text(alt, self.privacy)
        box = self._saved(fig, name)
        image = base64.b64encode(_drawn(fig, "png", 100, {"Software": None}, box)).decode()
        shown = {"image/png": image, "text/plain": f"Figure: {name}"}
        about = {"image/png": {"alt": alt}, "figure": name, "data": data or name}
        display(shown, raw=True, metadata=about | _folded(fold))
        display({"text/markdown": caption, "text/plain": caption}, raw=True, metadata={"caption_of": name})

    def keep(self, name: str, draw: Callable[..., Figure], *of: Any) -> None:
        """Draw a figure and save it for the screen without showing it: a job for a worker."""
        self._saved(draw(*of), name, kinds=("png",), dpi=SCREEN)

    def _saved(self, fig: Figure, name: str, **how: Any) -> Bbox:
        in_figure(fig, self.privacy)
        italicise(fig, self.taxa)
        return save_figure(fig, self.results_dir, name, simulated=self.simulated, **how)

    def table(
        self,
        df: pd.DataFrame,
        name: str,
        *,
        caption: str,
        index: bool = False,
        whole: pd.DataFrame | None = None,
        counts: Iterable[str] = (),
        taxa: Iterable[str] = (),
        fold: str = "",
    ) -> None:
        """Save a table in full and show it: numbers rounded by the report's rule and set right, all text escaped.

        The heading of a row is the index, if that is shown, or the first column. `whole` is what is saved, if `df` is
        only its head; `fold` as of a figure. `counts` are columns that count people or swabs, beside
        `helpers.disclosure.COUNTS`; `taxa` those named after taxa.
        """
        table = df.reset_index() if index else df
        table, whole = (in_table(t, self.privacy, counts) for t in (table, table if whole is None else whole))
        save_table(whole, self.results_dir, name)
        caption = self._told(caption)
        table = _for_readers(table.infer_objects())
        texts = {_brief(str(c)): [_cell(v, str(c)) for v in table[c]] for c in table}
        numeric = {_brief(str(c)) for c in table if pd.api.types.is_numeric_dtype(table[c]) and table[c].dtype != bool}
        numeric |= {"interval", "bootstrap interval", "p"} & set(texts)
        lines = caption + "\n" + pd.DataFrame(texts).to_string(index=False)
        shown = {"text/html": table_html(texts, numeric, caption, [*self.taxa, *taxa]), "text/plain": lines}
        display(shown, raw=True, metadata={"table": name} | _folded(fold))

    def evidence(self, parts: pd.DataFrame, name: str) -> None:
        """Save the evidence of claims that a section gathered by `helpers.evidence.gather`, for their verdicts."""
        text = json.dumps(plain(parts.to_dict("records")), indent=1, ensure_ascii=False) + "\n"
        write_whole(self.results_dir / EVIDENCE / f"{name}.json", text)


def _folded(heading: str) -> dict[str, str]:
    return {"fold": heading} if heading else {}


#: Columns as a reader sees them.
_HEADINGS = packaged("headings.yaml")

#: Columns that count what was lost.
_LOST = {"n_dropped", "n_missing", "n_lost", "missing"}


def _for_readers(table: pd.DataFrame) -> pd.DataFrame:
    """The table with intervals in one column and headings in words.

    Less what only further computing needs, and counts of what was lost where nothing was.
    """
    none_lost = [c for c in _LOST & set(table) if table[c].isin([0, "0", ""]).all()]
    shown = table.drop(columns=[*none_lost, *(["se", "df", "level"] if "se" in table else [])], errors="ignore")
    for low, high, heading in (("ci_low", "ci_high", "interval"), ("boot_low", "boot_high", "bootstrap interval")):
        if {low, high} <= set(shown):
            spans = [interval(a, b) if pd.notna(a) else "–" for a, b in zip(shown[low], shown[high], strict=True)]
            shown.insert(shown.columns.get_loc(low), heading, spans)
            shown = shown.drop(columns=[low, high])
    return shown.rename(columns=_HEADINGS)


def _brief(text: str) -> str:
    """A text that does not widen a table out of the page; the saved table has all of it."""
    return text if len(text) <= 80 else f"{text[:79]}…"


def _cell(value: Any, column: str) -> str:
    if pd.isna(value):
        return "–"
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "yes" if value else "no"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and value >= 10_000 else _brief(str(value))
    if column in ("p", "q") or column.startswith(("p (", "p, ", "q, ")):
        return p_number(value)
    return f"{value:,.0f}" if value.is_integer() else number(value)


#: Columns whose texts are names of taxa.
_OF_TAXA = {"taxon", "genus", "species"}


def table_html(texts: dict[str, list[str]], numeric: set[str], caption: str, taxa: Sequence[str] = ()) -> str:
    """A table that a screen reader can walk: caption, scope of headings; scrolls if it is wide.

    `texts` are the columns, those in `numeric` set right; names in `taxa`, and columns of taxa, are set in italics.
    """
    escape = html.escape

    def cell(value: str, column: str) -> str:
        if column in _OF_TAXA and re.fullmatch(r"[A-Z][\w .-]+", value, re.ASCII) and not value.startswith("Other"):
            return f"<em>{escape(value)}</em>"
        return emphasised(italicised(value, taxa)) if taxa and "*" not in value else escape(value)

    right, left = ' class="number" style="text-align:right"', ' style="text-align:left"'
    side = {c: right if c in numeric else left for c in texts}
    head = [f'<th scope="col"{side[c]}>{cell(c, "taxon" if c in taxa else "")}</th>' for c in texts]
    rows = []
    for values in zip(*texts.values(), strict=True):
        first, *others = ((c, cell(v, c)) for c, v in zip(texts, values, strict=True))
        cells = "".join(f"<td{side[c]}>{shown}</td>" for c, shown in others)
        rows.append(f'<tr><th scope="row"{side[first[0]]}>{first[1]}</th>{cells}</tr>')
    wide = f"{' wide' if len(texts) > 9 else ''}{' long' if len(rows) > LONG else ''}"
    above = f"<caption>{emphasised(caption)}</caption>\n"
    return framed(head, rows, escape(caption.replace("*", "")), wide, above)


def framed(heads: Iterable[str], rows: Iterable[str], label: str, kind: str = "", above: str = "") -> str:
    """A table from HTML of its headings and rows, in a frame with a name, in which it scrolls if it is wide."""
    return (
        f'<div class="report-table{kind}" role="region" tabindex="0" aria-label="{label}"><table>'
        f"{above}<thead><tr>{''.join(heads)}</tr></thead>\n"
        f"<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>"
    )


def emphasised(text: str) -> str:
    """Text as HTML: escaped, with ``*emphasis*`` and ``**strong**``."""
    text = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"<strong>\1</strong>", html.escape(text))
    return re.sub(r"\*(\S(?:.*?\S)?)\*", r"<em>\1</em>", text)


def _laid_out(fig: Figure) -> Bbox:
    """Settle where everything stands, once for all formats, which takes as long as drawing; what is to be saved."""
    fig.dpi = PRINT
    canvas = FigureCanvasAgg(fig)  # whose renderer remembers how large each text is
    fig.draw_without_rendering()
    fig.set_layout_engine(None)
    return fig.get_tightbbox(canvas.get_renderer()).padded(mpl.rcParams["savefig.pad_inches"])


def _drawn(fig: Figure, kind: str, dpi: int, metadata: dict[str, None], box: Bbox) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, dpi=dpi, metadata=metadata, bbox_inches=box, facecolor="white")
    return buffer.getvalue()


def plain(value: Any) -> Any:
    """Values, in dicts and lists too, as JSON has them: ten digits, and null for what is not a number."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return None if value is pd.NA else value
