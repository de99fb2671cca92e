"""What leaves a notebook: small cells suppressed where study.yaml asks for it, and no formula for a spreadsheet.

Counts of people and swabs are hidden or rounded in every table, sentence and figure alike, each by itself and totals
too: what a difference of two rounded counts tells of a hidden one is as wide as the rounding.
"""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from helpers.figures import reword
from helpers.study import Privacy

#: Columns of the report's tables that count people or swabs, or tell their number (residual degrees of freedom).
COUNTS = {
    "n", "n_dropped", "n_missing", "count", "patients", "swabs", "swabs_before", "swabs_after", "present_before",
    "present_after", "gained", "lost", "present", "of", "reference_present", "reference_of", "n_lost",
    "n_stayed",
}  # fmt: skip
_PEOPLE = "swabs|patients|people|subjects|negative controls"
_COUNT = re.compile(rf"\bn = (\d[\d,]*)|(?<![\w.,≤])(\d[\d,]*)(?= (?:of \d[\d,]* )?(?:kept |of them )?(?:{_PEOPLE})\b)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def in_text(text: str, privacy: Privacy) -> str:
    """A text with its counts, such as ``n = 12`` and ``12 swabs``, as they may be shown."""
    if privacy.small_cells == "show":
        return text

    def shown(found: re.Match[str]) -> str:
        count = privacy.shown(int((found[1] or found[2]).replace(",", "")))
        return count if not found[1] else f"n {count}" if count.startswith("≤") else f"n = {count}"

    return _COUNT.sub(shown, text)


def in_table(table: pd.DataFrame, privacy: Privacy, counts: Iterable[str] = ()) -> pd.DataFrame:
    """A table with its counts, the columns of `COUNTS` and `counts`, as they may be shown: as texts.

    Without residual degrees of freedom, which would tell a count, and the numbers of rows of fewer than 3 people.
    """
    if privacy.small_cells == "show":
        return table
    table = table.infer_objects()
    table = table.drop(columns=["df", "per_cent"] if "se" in table else ["per_cent"], errors="ignore")

    def shown(value: Any) -> Any:
        return value if isinstance(value, str) or pd.isna(value) else privacy.shown(float(value))

    if of := next((c for c in ("n", "swabs", "count") if c in table), None):
        known = [c for c in table.select_dtypes("number") if c not in {*COUNTS, *counts}]
        table = table.assign(**{c: table[c].where(table[of] >= privacy.fewest) for c in known})
    for column in {*COUNTS, *counts} & set(table):
        table = table.assign(**{column: table[column].astype(object).map(shown)})
    return table


def in_figure(fig: Figure, privacy: Privacy) -> None:
    """Write the counts in a figure's texts as they may be shown."""
    if privacy.small_cells == "show":
        return
    fig.draw_without_rendering()  # only then do the ticks have their texts
    reword(fig, lambda text: _COUNT.search(text.get_text()), lambda told: in_text(told, privacy))


def as_tsv(table: pd.DataFrame) -> str:
    """A table as it is saved, tab-separated and without its index: the same text for the same numbers."""
    return for_spreadsheets(table).to_csv(sep="\t", index=False, float_format="%.10g", lineterminator="\n")


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
