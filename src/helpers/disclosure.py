"""What leaves a notebook: small cells suppressed where study.yaml asks for it, and no formula for a spreadsheet.

Counts of people and swabs are hidden or rounded in every table, sentence and figure alike, each by itself and totals
too: what a difference of two rounded counts tells of a hidden one is as wide as the rounding. Other numbers are so
coarse that no count can be computed back from them, and of a group whose count is hidden nothing is shown.
"""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from helpers.estimates import coarse
from helpers.figures import PEOPLE, reword
from helpers.study import Privacy

#: Columns of the report's tables that count people or swabs, or tell their number (residual degrees of freedom).
COUNTS = {
    "n", "n_dropped", "n_missing", "count", "patients", "swabs", "swabs_before", "swabs_after", "present_before",
    "present_after", "gained", "lost", "present", "of", "reference_present", "reference_of", "n_lost",
    "n_stayed",
}  # fmt: skip
_PEOPLE = "swabs|patients|people|subjects|negative controls"
_COUNT = re.compile(rf"\bn = (\d[\d,]*)|(?<![\w.,≤])(\d[\d,]*)(?= (?:of \d[\d,]* )?(?:kept |of them )?(?:{_PEOPLE})\b)")
_P = re.compile(r"\bp = (0\.\d+|1\b)")
#: Columns of p-values.
_OF_P = re.compile("[pq](_.+)?|.+_p")
#: Columns that tell a count, alone or with what stands beside them, or a single person's value.
_TELLING = ["df", "se", "per_cent", "prevalence_negatives", "prevalence_swabs", "pseudo_f", "sum_of_squares", "min",
            "max"]  # fmt: skip
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def in_text(text: str, privacy: Privacy) -> str:
    """A text with its counts, such as ``n = 12`` and ``12 swabs``, as they may be shown."""
    if privacy.small_cells == "show":
        return text

    def shown(found: re.Match[str]) -> str:
        count = privacy.shown(int((found[1] or found[2]).replace(",", "")))
        return count if not found[1] else f"n {count}" if count.startswith("≤") else f"n = {count}"

    told = _P.sub(lambda found: f"p = {coarse_p(float(found[1]))}", _COUNT.sub(shown, text))
    return re.sub("p = ([<>])", r"p \1", told)


def coarse_p(p: float) -> str:
    """A p-value to one digit, on its side of the usual levels: ``0.03``, ``< 0.05``, ``< 0.001``; "" for NaN."""
    if pd.isna(p) or p < 0.001 or p > 0.95:
        return "" if pd.isna(p) else "< 0.001" if p < 0.001 else "> 0.95"
    shown = f"{p:.1g}"
    return f"< {shown}" if p < float(shown) and shown in ("0.05", "0.1") else shown


def in_table(table: pd.DataFrame, privacy: Privacy, counts: Iterable[str] = ()) -> pd.DataFrame:
    """A table with its counts, the columns of `COUNTS` and `counts`, as they may be shown: as texts.

    Without what would tell a count, and the numbers of rows of a hidden one. P-values are texts, too, as from
    `coarse_p`; intervals are coarse, and so are other numbers, to three significant digits.
    """
    if privacy.small_cells == "show":
        return table
    table = table.infer_objects().drop(columns=_TELLING, errors="ignore")

    def shown(value: Any) -> Any:
        return value if isinstance(value, str) or pd.isna(value) else privacy.shown(float(value))

    known = [c for c in table.select_dtypes("number") if c not in {*COUNTS, *counts}]
    if of := next((c for c in ("n", "swabs", "count") if c in table), None):
        table = table.assign(**{c: table[c].where(table[of] >= privacy.fewest) for c in known})
    if {"ci_low", "ci_high"} <= set(table):
        table = coarse(table)
    for column in known:
        how = coarse_p if _OF_P.fullmatch(column) else lambda x: float(f"{x:.3g}")
        table = table.assign(**{column: table[column].map(how)})
    for column in {*COUNTS, *counts} & set(table):
        table = table.assign(**{column: table[column].astype(object).map(shown)})
    return table


def few(fig: Figure, privacy: Privacy) -> list[Artist]:
    """What in a figure shows single people, or a hidden number of them."""
    return fig.findobj(lambda artist: vars(artist).get(PEOPLE, privacy.fewest) < privacy.fewest)


def in_figure(fig: Figure, privacy: Privacy) -> None:
    """Write the counts in a figure's texts as they may be shown, and take out what is of `few`."""
    if privacy.small_cells == "show":
        return
    for artist in few(fig, privacy):
        artist.remove()
    fig.draw_without_rendering()  # only then do the ticks have their texts
    reword(fig, lambda text: _COUNT.search(text.get_text()), lambda told: in_text(told, privacy))


def as_tsv(table: pd.DataFrame, digits: int = 10) -> str:
    """A table as it is saved, tab-separated and without its index: the same text for the same numbers."""
    return for_spreadsheets(table).to_csv(sep="\t", index=False, float_format=f"%.{digits}g", lineterminator="\n")


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which a spreadsheet takes no text for a formula: an apostrophe before ``=``, ``+``, ``-`` and ``@``.

    Headings too; numbers stay. After OWASP, CSV Injection.
    """

    def harmless(value: Any) -> Any:
        formula = isinstance(value, str) and value[:1] in tuple("=+-@\t\r") and value and not _NUMBER.fullmatch(value)
        return f"'{value}" if formula else value

    texts = [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]
    table = table.assign(**{c: table[c].astype(object).map(harmless) for c in texts})
    return table.rename(columns=harmless)
