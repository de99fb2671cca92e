"""What the names of columns and values in a user's files mean: the vocabulary."""

import re

import numpy as np
import pandas as pd

from helpers.texts import packaged

_WORDS = packaged("vocabulary.yaml")
NAMES, SCORES, NAMED_VALUES, PERIODS, SPELLED, PLAIN, MISSING, NO_NUMBER = (
    _WORDS[key] for key in ("names", "scores", "named_values", "periods", "spelled", "plain", "missing", "no_number")
)
LINEAGE_COLUMNS, NO_COUNTS = _WORDS["lineage_columns"], _WORDS["no_counts"]
VALUES = {meaning: "|".join(any_of) for meaning, any_of in _WORDS["values"].items()}
PRIOR, DERIVED, BASELINE, EARLY, LATE, DATED, MONTHS, MANGLED, TOTAL = (
    re.compile(_WORDS[k])
    for k in "prior derived baseline early late dated months mangled total".split()  # noqa: SIM905
)
_PARTS = re.compile(r"(?<![a-z])(?:{unit})[\W_]*\d+|[^\W\d_]+|\d+".format(unit=_WORDS["unit"]))
TIME = re.compile(r"(?:({unit}) ?)?(-?\d+(?:\.\d+)?) ?({unit})?".format(unit=_WORDS["unit"]))
#: Dates: 2021-03-04, 20210304, 4.3.2021, 3/4/21, 4-Mar-2021.
DATE = re.compile(
    r"(19|20)\d\d([-/.]?)(0?[1-9]|1[0-2])\2(0?[1-9]|[12]\d|3[01])([ T].*)?"
    r"|\d\d?[./]\d\d?[./](\d\d|\d{4})|\d\d?[- ][A-Za-z]{3}[- ](\d\d|\d{4})"
)


def _lower(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def apart(name: str) -> str:
    """The words of a column's name in lower case, separated by single blanks."""
    return " ".join(re.findall(r"[^\W\d_]+|\d+", _lower(name)))


def parts(name: str) -> list[str]:
    """The same as a list, times such as "week 12" together."""
    return [" ".join(re.findall(r"[^\W_]+", part)) for part in _PARTS.findall(_lower(name))]


def spaced(value: str) -> str:
    """A value with single blanks, also for ``_``."""
    return re.sub(r"[\s_]+", " ", value).strip()


def folded(value: str) -> str:
    """A value in lower case, with blanks for ``_ - .``."""
    return re.sub(r"[\s_.\-]+", " ", value.lower()).strip()


def named(column: str, key: str) -> int:
    """How well a column's name fits a key of study.yaml: 0 not at all."""
    patterns = NAMES[key]
    return next((len(patterns) - i for i, p in enumerate(patterns) if re.search(p, apart(column))), 0)


def means(value: str, what: str, named: object = False) -> bool:
    """Whether a value is in a vocabulary; where the column is named for it, "yes" and "N" mean something too."""
    known = f"{VALUES[what]}|{NAMED_VALUES[what]}" if named and what in NAMED_VALUES else VALUES[what]
    return bool(re.fullmatch(known, folded(value)))


def when(value: str, named: object) -> float | None:
    """When a visit was, in days where it has a unit; None if it is no time. Plain numbers need a column named so."""
    text = spaced(value.lower())
    if BASELINE.fullmatch(text):
        return 0
    if EARLY.fullmatch(text):
        return -1
    if late := LATE.fullmatch(text):
        return 1e6 + float(late[1] or 0)
    if not (time := TIME.fullmatch(text)) or not (named or time[1] or time[3]):
        return None
    unit = time[1] or time[3] or "v"
    return float(time[2]) * PERIODS.get(unit[0], ("", 1))[1]


def when_of(value: str) -> float | None:
    """When a visit was that a value names beside something else: the last is told of "AD week 4", "AD_pre"."""
    parts = spaced(value).split(" ")
    pieces = [" ".join(some) for i in range(1, len(parts)) for some in (parts[i:], parts[:i])]
    return next((time for piece in pieces if (time := when(piece, False)) is not None), None)


def label(value: str, column: str) -> str:
    """A value as it may stand in a figure: "AD" is "Atopic dermatitis", "3" in a column "month" is "Month 3"."""
    text = SPELLED.get(folded(value), spaced(value))
    if time := TIME.fullmatch(text.lower()):
        named = re.search("visit|day|week|month|year", apart(column))
        unit = time[1] or time[3] or (named[0] if named else "visit")
        text = f"{PERIODS.get(unit[0], ('Visit', 1))[0]} {time[2]}"
    return text[:1].upper() + text[1:60]


def recorded(text: pd.Series) -> pd.Series:
    """Strings, NA where nothing is recorded."""
    return text.mask(text.str.fullmatch(MISSING, case=False, na=True), pd.NA)


def numbers(text: pd.Series) -> tuple[pd.Series, pd.Series]:
    """A column as numbers, NaN where none is recorded, and which of its values are neither.

    With decimal commas, if several have one and none a point; three digits behind each may as well be thousands.
    """
    text = recorded(text)
    text = text.mask(text.str.fullmatch(NO_NUMBER, case=False, na=True), pd.NA)
    comma, point = (text.str.contains(sign, regex=False, na=False) for sign in ",.")
    if comma.sum() > 1 and not point.any() and not text[comma].str.fullmatch(r".*,\d{3}").all():
        text = text.str.replace(r"^([+-]?\d+),(\d+)$", r"\1.\2", regex=True)
    found = pd.to_numeric(text, errors="coerce").astype(float)
    return found, text.notna() & ~np.isfinite(found)


def dates(text: pd.Series) -> pd.Series:
    """Which values are dates: whole numbers only if the column is named so, or all of them are days as 20210304."""
    found = text.str.fullmatch(DATE, na=False)
    digits = text.str.fullmatch(r"\d+", na=False)
    days = (found & text.str.fullmatch(r"\d{8}", na=False))[text.notna()].all()
    return found & (~digits | days | bool(DATED.search(apart(str(text.name)))))
