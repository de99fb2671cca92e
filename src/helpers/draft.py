"""A first study.yaml from the user's own files: what can be guessed, and what the user has to check."""

import json
import math
import os
import re
import shutil
import textwrap
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from helpers.ingest import MISSING
from helpers.lineage import parse_lineage
from helpers.study import STANDARD_COLUMNS, Study, StudyError, load_study
from helpers.tables import LINEAGE_COLUMNS, Counts, few, read_counts, read_taxonomy, read_tree, text_table

# ---------------------------------------------------------------- the rules

#: Names of columns, as `words` writes them: "HostSubject_ID" is "host subject id". The first expression counts most.
NAMES = {
    "sample": (r"\b(sample|swab|library|run accession)", r"\bid\b|^$"),
    "subject": (
        r"\b(subject|patient|participant|person|individual|donor|proband|volunteer|pid)s? ?(id|identifier|no|nr|num|"
        r"number|code|key|name)?$",
    ),
    "control_type": (r"\b(sample|control|swab) ?(type|kind|class)\b",),
    "group": (
        r"\b(group|diagnosis|disease|status|condition|case|control|phenotype|cohort|health|healthy|patient)\b",
        r"^(ad|eczema|dermatitis|psoriasis|atopic dermatitis|has \w+)$",
    ),
    "visit": (
        r"\bvisit\b", r"\btime ?points?\b|\btp\b", r"\bweeks?\b", r"\bmonths?\b", r"\bdays?\b",
        r"\b(time|session|phase|stage|period)\b",
    ),
    "arm": (r"\b(arm|treatment|treated|drug|therapy|medication|intervention|allocation)\b|\brandomi[sz]", r"\bgroup\b"),
    "lesional": (
        r"\blesion(al)?\b|\binflamed\b|\binvolved\b|\baffected\b|\bactive (ad|dermatitis|eczema|lesion)\b|"
        r"\bskin (status|state|type|condition)\b",
    ),
    "site": (
        r"\bbody ?(site|part|area|region|location)\b|\b(skin|sampling|swab|swabbing|sample|anatomic\w*) ?(site|"
        r"location|region)\b",
        r"\b(site|location|region)\b",
    ),
    "age": (r"\bage\b(?!.*(onset|group|diagnosis))",),
    "sex": (r"\b(sex|gender)\b",),
    "batch": (r"\b(batch|sequencing run|seq run|run)\b", r"\b(plate|lane|flow ?cell|pool)\b"),
}  # fmt: skip
#: Columns of these names are of another time than the swab's, or no measurement of it.
PRIOR = re.compile(r"\b(prior|previous|history|ever|past|before|family)\b")
DERIVED = re.compile(r"\b(change|delta|diff\w*|percent|pct|improve\w*|respon\w*|category|class|group|50|75|90)\b")
#: Severity scores: name in the report, the column's name, label, highest possible value. The order is that of choice.
SCORES = (
    ("easi", r"\beasi\b", "EASI", 72),
    ("oscorad", r"\bo ?scorad\b|\bobjective scorad\b", "oSCORAD", 83),
    ("scorad", r"\bscorad\b", "SCORAD", 103),
    ("pasi", r"\bpasi\b", "PASI", 72),
    ("iga", r"\bv?iga\b", "IGA", 4),
    ("poem", r"\bpoem\b", "POEM", 28),
    ("dlqi", r"\bc?dlqi\b", "DLQI", 30),
    ("nrs", r"\bnrs\b|\bitch\b|\bpruritus\b", "Itch NRS", 10),
    ("severity", r"\bseverity\b|\bscore\b", "", None),
)
#: Values, as `folded` writes them, that mean something whatever the column is called.
VALUES = {
    "negative": r"(blank|ntc|water|empty|buffer|((no template|negative|neg|extraction|kit|pcr|reagent|field|air|swab) "
    r"?)(control|ctrl|blank)s?)( ?\d+)?",
    "mock": r"mock.*|positive( control)?|zymo.*",
    "control": r"healthy.*|normal|hc|hv|ctrls?|controls?( \w+)?|non ?(ad|atopic|diseased)|unaffected|no (ad|eczema|"
    r"disease|dermatitis)",
    "case": r"ad\b.*|atopic.*|.*eczema.*|.*dermatitis.*|patients?|cases?|pso\w*|acne|diseased?|affected|sick|"
    r"(non ?)?lesion(al)?|n?ls?",
    "lesional": r"(ad )?(lesion(al)?|ls?)|inflamed|involved|affected|active",
    "non_lesional": r"(ad )?(non ?lesion(al)?|nls?|un(inflamed|involved|affected)|inactive)|not inflamed",
    "treatment": r".*(mab|tinib)|dupi\w*|active|treat(ment|ed)|intervention|verum",
    "comparator": r"placebo|vehicle|sham|standard( of)?( care| treatment| therapy)?|soc|usual care|control|untreated|"
    r"no treatment|c[yi]closporin\w*|csa|methotrexate|mtx|azathioprine|emollients?|topical.*|tcs|comparator",
    "body": r".*(elbow|knee|fossa|cub|arm|hand|leg|foot|neck|face|cheek|head|back|trunk|chest|scalp|nose|nares|crease|"
    r"skin|volar|pop|ac|calf|thigh|shin|axilla|wrist|ankle|toe|abdomen).*",
}
#: The same, where the column's name says what it is about.
YES, NO = r"yes|y|true|1", r"no|n|none|false|0"
NAMED_VALUES = {
    "negative": r"neg(ative)?", "control": NO, "case": YES, "lesional": YES, "non_lesional": NO, "treatment": YES,
    "comparator": NO,
}  # fmt: skip
#: Visits as words, and the units of time in days.
BASELINE = r"baseline|bl|base"
EARLY = r"pre\b.*|before.*|initial|start|enrol\w*|first"
LATE = r"(?:post|after|follow[ -]?up|fu|end|eot|final|last)\b\D*(\d*)"
UNITS = {"d": 1, "day": 1, "w": 7, "wk": 7, "week": 7, "m": 30, "mo": 30, "month": 30, "y": 365, "year": 365}
TIME = re.compile(
    rf"(?:({'|'.join(UNITS)}|v|visit|t|tp|time ?point|time|session)s? ?)?(-?\d+(?:\.\d+)?) ?(?:({'|'.join(UNITS)})s?)?"
)
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}( .*|T.*)?|\d{1,2}[- ][A-Za-z]{3}[- ]\d{2,4}|(19|20)\d{6}")
#: What short values stand for, in labels.
SPELLED = {
    "ad": "Atopic dermatitis", "hc": "Healthy control", "ctrl": "Control", "csa": "Cyclosporine", "mtx": "Methotrexate",
    "dupi": "Dupilumab", "soc": "Standard care", "pso": "Psoriasis",
}  # fmt: skip
PRIVACY = """
# What the report shows of single patients: counts of 7 or less are hidden and others rounded to the nearest 5, ages
# above 89 are one group. For a report that stays with you: small_cells: show.
privacy:
  small_cells: suppress
  oldest_age: 89
"""
#: The most values that a category can have to be listed.
MOST_VALUES = 20


def words(name: str) -> str:
    """The words of a column's name in lower case, separated by single blanks.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    return " ".join(re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def folded(value: str) -> str:
    """A value in lower case, with blanks for ``_ - .``.

    Parameters
    ----------
    value : str

    Returns
    -------
    str
    """
    return re.sub(r"[\s_.\-]+", " ", value.lower()).strip()


def means(value: str, what: str, named: bool = False) -> bool:
    """Whether a value is in the vocabulary of a meaning.

    Parameters
    ----------
    value : str
    what : str
        A key of `VALUES`.
    named : bool, optional
        Whether the column's name says what it is about, so that "yes" and "N" mean something too.

    Returns
    -------
    bool
    """
    known = VALUES[what] + (f"|{NAMED_VALUES[what]}" if named and what in NAMED_VALUES else "")
    return bool(re.fullmatch(known, folded(value)))


def when(value: str, named: bool = True) -> float | None:
    """When a visit was, as a number that sorts: baseline is 0; days, where the value has a unit.

    Parameters
    ----------
    value : str
        Such as "baseline", "M3", "week 16", "post", "2".
    named : bool, optional
        Whether the column's name says that it is a time: then plain numbers are understood.

    Returns
    -------
    float or None
        None where it is no time.
    """
    text = re.sub(r"[\s_]+", " ", value.lower()).strip()
    if re.fullmatch(BASELINE, text):
        return 0
    if re.fullmatch("screening", text) or re.fullmatch(EARLY, text):
        return -1
    if late := re.fullmatch(LATE, text):
        return 1e6 + float(late[1] or 0)
    if not (time := TIME.fullmatch(text)) or not (named or time[1] or time[3]):
        return None
    return float(time[2]) * UNITS.get(time[1] or time[3] or "", 1)


# ---------------------------------------------------------------- the guesses


class Choice(NamedTuple):
    """A categorical column, as study.yaml has it: standard value to the file's values, and the values left out."""

    column: str
    meaning: dict[str, list[str]]
    ignore: list[str] = []  # noqa: RUF012


class Score(NamedTuple):
    """A severity score, as study.yaml has it."""

    name: str
    column: str
    label: str
    range: tuple[float, float]


@dataclass
class Guesses:
    """What study.yaml is to say, and why a key of it is to be checked."""

    columns: dict[str, str | Choice] = field(default_factory=dict)
    severity: list[Score] = field(default_factory=list)
    covariates: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    adjust: dict[str, list[str]] = field(default_factory=dict)
    stand_ins: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)
    minimum_depth: int = 1000
    checks: dict[str, list[str]] = field(default_factory=dict)

    def unsure(self, key: str, why: str) -> None:
        """Note why a key is to be checked."""
        self.checks.setdefault(key, []).append(why)


def _bare(name: str) -> str:
    return re.sub(r"^x(?=\d)|[\s._-]", "", name.lower())


def _quoted(values: Iterable[str]) -> str:
    return few(f"'{v}'" for v in values)


def match_samples(metadata: pd.DataFrame, sides: dict[str, list[str]]) -> tuple[str, str, list[str]]:
    """The column and the side of the count table that have the same sample identifiers.

    Parameters
    ----------
    metadata : DataFrame
        Of strings.
    sides : dict
        The identifiers by orientation, such as ``samples_in_rows``; a BIOM table has one side, ``auto``.

    Returns
    -------
    column, orientation : str
        The orientation is ``auto`` where nothing tells it.
    checks : list of str
        Why the user should look.
    """
    found = []
    for side, names in sides.items():
        known, bare = set(names), {_bare(n) for n in names}
        for place, (column, cells) in enumerate(metadata.items()):
            exact = len(known & set(cells))
            alike = len(bare & {_bare(c) for c in cells})
            fewest = min(len(known), len(cells))  # ages and weeks may be like some identifiers by chance
            exact, alike = exact * (exact > fewest / 10), alike * (alike > fewest / 2)
            named = [bool(re.search(p, words(column))) for p in NAMES["sample"]]
            rank = (exact, alike, cells.is_unique, column != "", named, -place)
            found.append((rank, column, side))
    (exact, alike, unique, *_), column, side = max(found)
    ids, cells = list(sides[side]), list(metadata[column])
    checks = []
    if not exact and not alike:
        column = max(
            metadata.columns,
            key=lambda c: (metadata[c].is_unique, [bool(re.search(p, words(c))) for p in NAMES["sample"]], c != ""),
        )
        here = "; ".join(f"{side.replace('_', ' ')}: {_quoted(names[:3])}" for side, names in sides.items())
        checks.append(
            f"no column has identifiers of the count table ({here.removeprefix('auto: ')}). Make them the same, letter "
            "by letter, and name the column that has them."
        )
        return column, side if len(sides) == 1 else "auto", checks
    if not exact:
        checks.append(
            f"'{column}' is the count table's samples only after ignoring case, blanks and _ - . ({_quoted(cells[:2])} "
            f"here, {_quoted(ids[:2])} there). Names must be the same letter by letter: mend one of the files."
        )
    elif missing := [[i for i in ids if i not in set(cells)], [c for c in cells if c not in set(ids)]]:
        for names, here, there in zip(missing, ("counts", "metadata"), ("metadata", "counts"), strict=True):
            if names:
                checks.append(
                    f"{len(names)} swabs are in the {here} and not in the {there}: {_quoted(names)}. Each has to be in "
                    "both: take out what is too much, or mend the names."
                )
    if not unique:
        checks.append(f"'{column}' has the same value in several rows; each swab needs one row.")
    rest = [s for (n, *_), _, s in found if n == exact and exact and s != side]
    return column, "auto" if rest else side, checks


class _Metadata:
    """The columns that a guess can take, without the rows of negative controls."""

    def __init__(self, table: pd.DataFrame, guesses: Guesses) -> None:
        self.table = table
        self.text = {c: cells.mask(cells.str.lower().isin(MISSING), pd.NA) for c, cells in table.items()}
        self.guesses = guesses
        self.negative = pd.Series(False, index=table.index)

    def cells(self, column: str) -> pd.Series:
        """What is recorded, NA elsewhere, of the swabs that are no negative controls."""
        return self.text[column][~self.negative]

    def levels(self, column: str, rows: pd.Series | None = None) -> list[str]:
        """The values, the most frequent first."""
        cells = self.cells(column)
        return [str(v) for v in (cells if rows is None else cells[rows]).dropna().value_counts().index]

    def numbers(self, column: str) -> pd.Series | None:
        """The values as numbers, or None where there are others."""
        cells = self.cells(column).dropna()
        numbers = pd.to_numeric(cells, errors="coerce").astype(float)
        return numbers if len(numbers) and np.isfinite(numbers).all() else None

    def dates(self, column: str) -> bool:
        """Whether any value is a date."""
        return any(DATE.fullmatch(v) for v in self.levels(column))

    def used(self) -> set[str]:
        """Columns that a guess has taken."""
        chosen = {key: c for key, c in self.guesses.columns.items() if key not in self.guesses.stand_ins}
        taken = {c if isinstance(c, str) else c.column for c in chosen.values()}
        return taken | {s.column for s in self.guesses.severity}

    def free(self, *also: str) -> list[str]:
        """Columns not taken yet, and those taken by the guesses named."""
        again = {self.column_of(key) for key in also}
        return [c for c in self.table.columns if c in again or (c not in self.used() and not self.dates(c))]

    def column_of(self, key: str) -> str | None:
        """The column of a guess."""
        chosen = self.guesses.columns.get(key)
        return chosen.column if isinstance(chosen, Choice) else chosen

    def meaning(self, key: str) -> pd.Series:
        """The standard value of each swab by a guess."""
        choice = self.guesses.columns.get(key)
        if not isinstance(choice, Choice):
            return pd.Series(pd.NA, index=self.table.index[~self.negative], dtype=object)
        names = {v: standard for standard, listed in choice.meaning.items() for v in listed}
        return self.cells(choice.column).map(names)

    def mixed(self, values: pd.Series) -> list[str]:
        """The subjects that have more than one of the values."""
        several = values.groupby(self.cells(str(self.column_of("subject")))).nunique() > 1
        return [str(s) for s in several.index[several]]


def _named(column: str, key: str) -> int:
    """How well the column's name fits: 0 not at all."""
    patterns = NAMES[key]
    hits = [len(patterns) - i for i, p in enumerate(patterns) if re.search(p, words(column))]
    return max(hits, default=0)


def _best(candidates: Iterable[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """The candidate of the highest rank, its first item; the first of equals."""
    return max(candidates, key=lambda c: c[0], default=None)


def _control_type(data: _Metadata) -> None:
    found = []
    for column in data.free():
        levels, named = data.levels(column), _named(column, "control_type")
        negative = [v for v in levels if means(v, "negative", bool(named))]
        rest = [v for v in levels if v not in negative]
        if not negative or not rest or len(levels) > MOST_VALUES:
            continue
        mock = [v for v in rest if means(v, "mock")]
        sample = [v for v in rest if v not in mock]
        found.append(((named, -len(levels)), Choice(column, {"sample": sample, "negative": negative}, mock)))
    if best := _best(found):
        data.guesses.columns["control_type"] = best[1]
        if not best[0][0] or best[1].ignore:
            ignored = f", leaves out {_quoted(best[1].ignore)}" if best[1].ignore else ""
            values = _quoted(best[1].meaning["negative"])
            data.guesses.unsure("columns.control_type", f"takes {values} for negative controls{ignored}.")
        data.negative = data.text[best[1].column].isin(best[1].meaning["negative"]).fillna(False)


def _severity(data: _Metadata) -> None:
    scores: dict[str, Score] = {}
    for column in data.free():
        numbers, name = data.numbers(column), words(column)
        match = next((s for s in SCORES if re.search(s[1], name)), None)
        if numbers is None or match is None or DERIVED.search(name) or numbers.nunique() < 2:
            continue
        key, _, label, highest = match
        if key in scores:
            data.guesses.unsure("severity", f"'{column}' is like '{scores[key].column}'; only that is taken.")
            continue
        low, high = min(0.0, math.floor(numbers.min())), float(highest or 0)
        if highest is None or numbers.max() > highest or low:
            size = 10 ** max(math.floor(math.log10(max(numbers.max(), 1))), 0)
            high = max(math.ceil(numbers.max() / size) * size, low + 1)
            usual = f"; {label} is usually 0 to {highest}" if highest else ""
            data.guesses.unsure(
                "severity",
                f"the range of '{column}' is made from its values, {numbers.min():g} to {numbers.max():g}{usual}. "
                "Write the lowest and the highest possible value, or take the line out if higher is not worse.",
            )
        scores[key] = Score(key, column, label or column, (low, high))
        data.guesses.severity.append(scores[key])
    data.guesses.severity.sort(key=lambda s: [k for k, *_ in SCORES].index(s.name))
    if not scores:
        data.guesses.unsure(
            "severity", "no column is named like a severity score (EASI, SCORAD, IGA, …); claims about severity and "
            "response cannot be tested without one."
        )  # fmt: skip


def _age_and_sex(data: _Metadata) -> None:
    for column in data.free():
        numbers = data.numbers(column)
        if "age" not in data.guesses.columns and _named(column, "age") and numbers is not None:
            if numbers.min() >= 0 and numbers.max() <= 120:
                data.guesses.columns["age"] = column
        elif "sex" not in data.guesses.columns and _named(column, "sex") and 1 <= len(data.levels(column)) <= 4:
            data.guesses.columns["sex"] = column


def _subject(data: _Metadata) -> None:
    swabs = int((~data.negative).sum())
    known = [c for c in (data.column_of("age"), data.column_of("sex")) if c]
    named, alike = [], []
    for place, column in enumerate(data.free()):
        cells = data.cells(column)
        people = cells.nunique()
        if people < max(2, swabs / 50) or cells.notna().mean() < 0.5:
            continue
        if _named(column, "subject"):
            named.append(((people < swabs, people, -place), column))
        # A person keeps sex and (nearly) age; a column of people has many values, most of them several times.
        most = {k: 2 if k == data.column_of("age") else 1 for k in known}
        kept = bool(most) and all(data.text[k].groupby(cells).nunique().le(n).all() for k, n in most.items())
        names = data.numbers(column) is None or cells.dropna().str.fullmatch(r"\d+").all()
        if kept and names and swabs / 8 <= people <= swabs * 0.7 and cells.value_counts().median() >= 2:
            alike.append(((people, -place), column))
    if best := _best(named):
        data.guesses.columns["subject"] = best[1]
        if others := [c for _, c in named if c != best[1]]:
            data.guesses.unsure("columns.subject", f"{_quoted(others)} could be it too.")
    elif best := _best(alike):
        data.guesses.columns["subject"] = best[1]
        why = "no column is named like subject or patient; this one has one sex and one age for each value."
        data.guesses.unsure("columns.subject", why)
    else:
        data.guesses.columns["subject"] = data.column_of("sample") or ""
        why = (
            "no column is named like subject or patient, so each swab is taken for a person of its own. If a person "
            "has several swabs, name the column that says whose they are."
        )
        data.guesses.unsure("columns.subject", why)


def _lesional(data: _Metadata) -> None:
    found = []
    for column in data.free():
        levels, named = data.levels(column), _named(column, "lesional")
        if not 2 <= len(levels) <= MOST_VALUES:
            continue
        values = {key: [v for v in levels if means(v, key, bool(named))] for key in ("lesional", "non_lesional")}
        healthy = [v for v in levels if means(v, "control") and v not in values["non_lesional"]]
        both = bool(values["lesional"] and values["non_lesional"])
        if not both or len(values["lesional"]) + len(values["non_lesional"]) + len(healthy) != len(levels):
            continue
        values["non_lesional"] += healthy
        found.append(((named, -len(levels)), Choice(column, values), healthy))
    if best := _best(found):
        data.guesses.columns["lesional"] = best[1]
        if best[2]:
            why = f"{_quoted(best[2])}, the controls' skin, stands with the skin that is not lesional."
            data.guesses.unsure("columns.lesional", why)


def _visit(data: _Metadata) -> None:
    found = []
    subject = data.cells(data.column_of("subject") or "")
    for column in data.free():
        levels, named = data.levels(column), _named(column, "visit")
        times = {v: t for v in levels if (t := when(v, bool(named))) is not None}
        if PRIOR.search(words(column)) or not times or len(times) < len(levels) or len(levels) > 24:
            continue
        several = data.cells(column).groupby(subject).nunique().gt(1).mean()
        if len(levels) == 1 and not named:
            continue
        found.append(((several > 0, len(levels) > 1, named, -len(levels)), column, times))
    if not (best := _best(found)):
        _only("visit", "baseline", data, "no column is named like visit, week or month, or has such values", "visits")
        return
    (repeated, *_), column, times = best
    ordered = sorted(times, key=lambda v: times[v])
    first = next((v for v in ordered if re.fullmatch(BASELINE, folded(v))), ordered[0])
    same = [v for v in ordered if times[v] == times[first]]
    later = [v for v in ordered if times[v] > times[first]]
    last = [v for v in later if times[v] == times[later[-1]]]
    ignore = [v for v in ordered if v not in same and v not in last]
    values = {"baseline": same} | ({"followup": last} if last else {})
    data.guesses.columns["visit"] = Choice(column, values, ignore)
    people = subject.groupby(data.cells(column)).nunique()
    if ignore:
        each = ", ".join(f"'{v}' {people[v]}" for v in ordered)
        why = (
            f"more than two visits; the first and the last are taken, the others left out. People at each: {each}. "
            "Take another follow-up if few are left at the last, or if another is that of the question."
        )
        data.guesses.unsure("columns.visit", why)
    elif not last:
        data.guesses.unsure("columns.visit", "there is one visit only; no change can be tested.")
    elif not repeated:
        why = "no subject has two visits: see to columns.subject, or name another column."
        data.guesses.unsure("columns.visit", why)
    _name_missing(data, "visit", column)
    others = [c for (r, *_), c, _ in found if c != column and r]
    if others and repeated:
        data.guesses.unsure("columns.visit", f"{_quoted(others)} could be it too.")


def _name_missing(data: _Metadata, key: str, column: str, rows: pd.Series | None = None) -> None:
    cells = data.cells(column)
    missing = int((cells if rows is None else cells[rows]).isna().sum())
    if missing:
        data.guesses.unsure(f"columns.{key}", f"{missing} swabs have nothing in '{column}'; they will be left out.")


def _only(key: str, standard: str, data: _Metadata, why: str, what: str) -> None:
    """Where no column fits: all values of some column have the one standard value."""
    columns = [c for c in data.table.columns if data.levels(c) and not data.dates(c)]
    whole = [c for c in columns if data.cells(c).notna().all()]
    column = min(whole or columns or list(data.table.columns), key=lambda c: len(data.levels(c)))
    levels = data.levels(column)
    listed = levels if len(levels) <= 50 else levels[:1]
    more = (
        "" if listed == levels else f" Only the first of {len(levels)} values is listed: no check will pass as it is."
    )
    data.guesses.columns[key] = Choice(column, {standard: listed or ["?"]})
    data.guesses.stand_ins.add(key)
    why = (
        f"{why}. As a stand-in, all values of '{column}' mean {standard}, so that nothing about {what} can be tested. "
        f"If a column tells the {what} apart, name it and its values here; if none does, it has to be added.{more}"
    )
    data.guesses.unsure(f"columns.{key}", why)


def _group(data: _Metadata) -> None:
    found = []
    for column in data.free("control_type", "lesional"):
        levels, named = data.levels(column), _named(column, "group")
        control = [v for v in levels if means(v, "control")]
        # "N" or "0" are controls only where the name says that the column is of a disease, and the others are "Y".
        if not control and named and len(levels) == 2:
            control = [v for v in levels if means(v, "control", True)]
        case = [v for v in levels if v not in control and not means(v, "mock")]
        ignore = [v for v in levels if v not in control and v not in case]
        if not control or not case or len(levels) > MOST_VALUES:
            continue
        if column == data.column_of("lesional") and not any(means(v, "control") for v in control):
            continue
        if all(means(v, "treatment") or means(v, "comparator") for v in levels):  # the arms of a trial
            continue
        known = all(means(v, "case", bool(named)) for v in case)
        choice = Choice(column, {"control": control, "case": case}, ignore)
        same = not data.mixed(data.cells(column).map({v: v in control for v in levels}))
        found.append(((same, 2 * bool(named) + 2 * known + _sure_control(control), -len(levels)), choice, named, known))
    if not (best := _best(found)):
        _only(
            "group", "case", data, "no column has values like healthy or control beside others", "patients and controls"
        )
        return
    (same, *_), choice, named, known = best
    data.guesses.columns["group"] = choice
    if not known or not named:
        cases = _quoted(choice.meaning["case"])
        data.guesses.unsure(
            "columns.group",
            f"{_quoted(choice.meaning['control'])} in '{choice.column}' looks like controls; every other value, "
            f"{cases}, is taken for patients.",
        )
    if not same:
        data.guesses.unsure("columns.group", "some subjects are in both groups: see to columns.subject too.")
    if choice.ignore:
        data.guesses.unsure("columns.group", f"{_quoted(choice.ignore)} is left out.")
    mine = data.meaning("group")
    for _, other, *_ in found:
        names = {v: key for key, listed in other.meaning.items() for v in listed}
        if not data.cells(other.column).map(names).eq(mine).all():
            data.guesses.unsure("columns.group", f"'{other.column}' could be it too, and differs.")
    _name_missing(data, "group", choice.column)


def _sure_control(values: list[str]) -> bool:
    return any(means(v, "control") for v in values)


def _arm(data: _Metadata) -> None:
    group = data.meaning("group")
    cases, controls = group.eq("case").fillna(False), group.eq("control").fillna(False)
    shared = None if "group" in data.guesses.stand_ins else data.column_of("group")
    few_people = data.cells(str(data.column_of("subject")))[cases].nunique() / 10
    found = []
    for column in data.free("group"):
        levels, name = data.levels(column, cases), words(column)
        named = 0 if PRIOR.search(name) or column == shared else _named(column, "arm")
        drugs = sum(means(v, "treatment") or means(v, "comparator") for v in levels)
        if (
            not levels
            or len(levels) > 6
            or PRIOR.search(name)
            or len(data.mixed(data.cells(column)[cases])) > few_people
        ):
            continue
        if column == shared and drugs < 2:
            continue
        elsewhere = data.levels(column, controls)
        # What only patients have, and each of them: a treatment, or something else of their disease.
        without = not elsewhere and data.cells(column)[cases].notna().mean() > 0.9
        if not named and not drugs and not (controls.any() and without and len(levels) == 2):
            continue
        if len(levels) == 1 and not (named and drugs):
            continue
        found.append(((drugs >= min(2, len(levels)), named, without, len(levels) == 2), column, levels, drugs))
    if not (best := _best(found)):
        why = "no column is named like arm, treatment or drug, or has two values that only patients have. Claims about "
        data.guesses.unsure("columns.arm", why + "the treatments cannot be tested without columns.arm.")
        return
    (_, named, *_), column, levels, drugs = best
    comparator = [v for v in levels if means(v, "comparator", True)]
    treatment = [v for v in levels if v not in comparator]
    unsure = len(treatment) != 1 or len(comparator) != 1
    if unsure and len(levels) > 1:
        first = (treatment or levels)[0]
        treatment, comparator = [first], [next(v for v in [*comparator, *levels] if v != first)]
    values = {"treatment": treatment} | ({"comparator": comparator} if comparator else {})
    if not treatment:
        values = {"treatment": comparator}
    ignore = [v for v in levels if v not in treatment and v not in comparator]
    data.guesses.columns["arm"] = Choice(column, values, ignore)
    if len(levels) == 1:
        data.guesses.unsure("columns.arm", "there is one arm only; arms cannot be compared.")
    elif unsure:
        left = f" {_quoted(ignore)} is left out." if ignore else ""
        why = f"nothing tells which of {_quoted(levels)} is the treatment and which the comparator.{left}"
        data.guesses.unsure("columns.arm", why)
    if not named and not drugs and column != shared:
        why = "its name says no treatment, but it has two values, the same in each patient, and none in controls."
        data.guesses.unsure("columns.arm", why)
    if people := data.mixed(data.cells(column)[cases]):
        why = f"people with more than one arm: {_quoted(people)}. The report stops at them if it is at the visits used."
        data.guesses.unsure("columns.arm", why)
    if others := [c for (_, n, *_), c, *_ in found if c != column and n >= named and n]:
        data.guesses.unsure("columns.arm", f"{_quoted(others)} could be it too.")
    _name_missing(data, "arm", column, cases)


def _site_and_batch(data: _Metadata) -> None:
    swabs = int((~data.negative).sum())
    for key in ("site", "batch"):
        found = []
        for place, column in enumerate(data.free()):
            levels, named = data.levels(column), _named(column, key)
            if not named or not 1 <= len(levels) <= max(12, swabs / 4):
                continue
            found.append(((named, -place), column, levels))
        if best := _best(found):
            data.guesses.columns[key] = best[1]
            if key == "site" and best[0][0] == 1 and not any(means(v, "body") for v in best[2]):
                why = f"{_quoted(best[2])} may be places of the body, or clinics; take the line out if it is clinics."
                data.guesses.unsure("columns.site", why)
    if "site" not in data.guesses.columns:
        twice = [c for key in ("subject", "visit") if (c := data.column_of(key))]
        if data.table[~data.negative].duplicated(list(dict.fromkeys(twice))).any():
            why = "some people have several swabs at a visit, and no column is named like site; name it with `site:`."
            data.guesses.unsure("columns.site", why)


def _covariates(data: _Metadata) -> None:
    repeats = [data.table[c] for c in data.used()]
    taken = {*STANDARD_COLUMNS, *(s.name for s in data.guesses.severity)}
    for column in data.table.columns:
        levels = data.levels(column)
        if column in data.used() or not column or any(data.table[column].equals(r) for r in repeats):
            continue
        if data.dates(column):
            data.guesses.left_out.append(f"'{column}' has dates")
        elif len(levels) > 1 and (data.numbers(column) is not None or len(levels) <= 12):
            name = re.sub(r"\W+", "_", column.lower()).strip("_")
            name = name if name.isidentifier() else f"covariate_{name}".rstrip("_")
            name = name if name.isidentifier() else "covariate"
            while name in taken:
                name += "_"
            taken.add(name)
            data.guesses.covariates[name] = column
        else:
            many = f"{len(levels)} different values" if len(levels) > 1 else f"{len(levels) or 'no'} value"
            data.guesses.left_out.append(f"'{column}' has {many}")


def label(value: str, column: str = "") -> str:
    """A value as it may stand in a figure.

    Parameters
    ----------
    value : str
        Such as "AD", "M3", "dupilumab".
    column : str, optional
        The name of the column; it says the unit of plain numbers.

    Returns
    -------
    str
        Such as "Atopic dermatitis", "Month 3", "Dupilumab".
    """
    text = re.sub(r"[\s_]+", " ", value).strip()
    if folded(text) in SPELLED:
        return SPELLED[folded(text)]
    if time := TIME.fullmatch(text.lower()):
        units = {"d": "day", "w": "week", "wk": "week", "m": "month", "mo": "month", "y": "year", "v": "visit"}
        unit = time[1] or time[3] or next((u for u in ("visit", "week", "month", "day") if u in words(column)), "visit")
        unit = units.get(unit, unit)
        return f"{'visit' if unit in ('t', 'tp') else unit} {time[2]}".capitalize()
    return text[:1].upper() + text[1:]


def _labels(data: _Metadata) -> None:
    standard = {"control": "Control", "case": "Patient", "treatment": "Treatment", "comparator": "Comparator"}
    labels = {**standard, "baseline": "Baseline", "followup": "Follow-up", "site": "skin"}
    for key in ("group", "arm", "visit"):
        choice = data.guesses.columns.get(key)
        if not isinstance(choice, Choice) or key in data.guesses.stand_ins:
            continue
        for name, values in choice.meaning.items():
            if len(values) != 1 or name == "baseline":
                continue
            yes, no = (re.fullmatch(p, folded(values[0])) for p in (YES, NO))
            if (yes or no) and key != "visit":
                about = words(choice.column)
                if key == "arm":
                    labels[name] = f"{'no ' if no else ''}{about}".capitalize()
            else:
                labels[name] = label(values[0], choice.column)
    for a, b in (("control", "case"), ("treatment", "comparator"), ("baseline", "followup")):
        if labels[a] == labels[b]:
            labels[a], labels[b] = f"{labels[a]} (1)", f"{labels[b]} (2)"
    if (site := data.column_of("site")) and len(levels := data.levels(site)) == 1:
        labels["site"] = re.sub(r"[\s_]+", " ", levels[0])
    data.guesses.labels = labels


def _adjust(data: _Metadata) -> None:
    group = data.meaning("group")
    rows = {key: group.eq(key).fillna(False) for key in ("control", "case")}

    def known(key: str, which: str) -> bool:
        column = data.column_of(key)
        return bool(column and rows[which].any() and data.cells(column)[rows[which]].notna().mean() >= 0.8)

    both = [k for k in ("age", "sex") if known(k, "control") and known(k, "case")]
    data.guesses.adjust = {"group": both, "arm": [k for k in ("age", "sex") if known(k, "case")]}


def guess_columns(metadata: pd.DataFrame, sample: str) -> Guesses:
    """What the columns of a metadata table are, from their names and values.

    Parameters
    ----------
    metadata : DataFrame
        Of strings, a row a swab.
    sample : str
        The column with the identifiers of the count table: see `match_samples`.

    Returns
    -------
    Guesses
        Always with sample, subject, group and visit, so that study.yaml can be loaded.
    """
    guesses = Guesses(columns={"sample": sample})
    data = _Metadata(metadata, guesses)
    for guess in (_control_type, _severity, _age_and_sex, _subject, _lesional, _visit, _group, _arm, _site_and_batch):
        guess(data)
    _covariates(data)
    _labels(data)
    _adjust(data)
    if not isinstance(guesses.columns.get("control_type"), Choice):
        blanks = [s for s in metadata[sample] if re.match(r"(blank|ntc|neg|water)", folded(s))]
        if blanks:
            why = (
                f"{_quoted(blanks)} may be negative controls. If so, name a column that says it: columns.control_type."
            )
            guesses.unsure("columns.control_type", why)
    return guesses


def guess_depth(guesses: Guesses, depths: np.ndarray, whole: bool) -> None:
    """The fewest reads of a swab, and what to do with counts that are not whole.

    Parameters
    ----------
    guesses : Guesses
        Is completed.
    depths : ndarray of float, shape (swabs,)
        Reads of each swab that is no negative control.
    whole : bool
        Whether all counts are whole.
    """
    if not len(depths):
        guesses.unsure("minimum_depth", "the swabs' reads could not be counted, since no sample identifiers match.")
        return
    middle = float(np.median(depths))
    if not whole:
        shares = middle <= 150 or depths.max() - depths.min() <= 0.001 * middle
        guesses.unsure(
            "files.counts.fractions",
            "some counts are not whole numbers, and the report stops at them until you choose: `round` if they are "
            "means of replicates; `relative` if they are relative abundances and there is nothing else. The best is to "
            f"give the reads. The totals ({depths.min():,.0f} to {depths.max():,.0f}) look like "
            f"{'relative abundances' if shares else 'means of replicates'}.",
        )
    enough = float(np.mean(depths >= 1000))
    if enough < 0.9:
        fifth = float(np.percentile(depths, 5))
        size = 10 ** max(math.floor(math.log10(max(fifth, 1))) - 1, 0)
        guesses.minimum_depth = max(int(fifth // size * size), 1)
    fewer = int(np.sum(depths < guesses.minimum_depth))
    guesses.unsure(
        "minimum_depth",
        f"swabs have {depths.min():,.0f} to {depths.max():,.0f} reads, half of them at least {middle:,.0f}; "
        f"{enough:.0%} have 1,000 or more. With {guesses.minimum_depth:,}, {fewer} of {len(depths)} swabs are left "
        "out. All are rarefied to rarefaction_depth, below.",
    )


# ---------------------------------------------------------------- the text


def _escaped(text: str) -> str:
    """Characters that cannot be printed as escapes, so that a text stays on its line."""
    return "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" if ord(c) < 65536
        else f"\\U{ord(c):08x}" for c in text
    )  # fmt: skip


def quoted(value: str) -> str:
    """A text as a YAML scalar in double quotes.

    Parameters
    ----------
    value : str

    Returns
    -------
    str
    """
    return _escaped(json.dumps(value, ensure_ascii=False))


def scalar(value: str) -> str:
    """A text as a YAML scalar: plain where it can be nothing else than this text, else in double quotes.

    Parameters
    ----------
    value : str

    Returns
    -------
    str
    """
    plain = re.fullmatch(r"[A-Za-z_](?:[\w ./-]*[\w/])?", value, re.ASCII) and yaml.safe_load(value) == value
    return value if plain else quoted(value)


def _flow(values: Iterable[str]) -> str:
    return f"[{', '.join(quoted(v) for v in values)}]"


def comment(text: str, indent: str = "", check: bool = False) -> list[str]:
    """A comment of study.yaml, wrapped.

    Parameters
    ----------
    text : str
    indent : str, optional
    check : bool, optional
        Whether it begins with ``CHECK:``.

    Returns
    -------
    list of str
        Its lines.
    """
    head = f"{indent}# CHECK: " if check else f"{indent}# "
    return textwrap.wrap(
        _escaped(text), 116, initial_indent=head, subsequent_indent=f"{indent}#   " if check else head,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _about_columns(guesses: Guesses) -> Iterator[str]:
    """The lines of ``columns``."""
    order = ("sample", "subject", "group", "visit", "arm", "site", "lesional", "control_type", "age", "sex", "batch")
    yield "columns:"
    for key in order:
        for why in guesses.checks.get(f"columns.{key}", ()):
            yield from comment(f"{key}: {why}", "  ", check=True)
        chosen = guesses.columns.get(key)
        if isinstance(chosen, str):
            yield f"  {key}: {scalar(chosen)}"
        elif chosen:
            values = ", ".join(f"{name}: {_flow(listed)}" for name, listed in chosen.meaning.items())
            yield from (f"  {key}:", f"    column: {scalar(chosen.column)}", f"    values: {{{values}}}")
            if chosen.ignore:
                yield f"    ignore: {_flow(chosen.ignore)}"
    if guesses.covariates:
        yield from comment(
            "Further columns: for those to be used, take away the leading `# `, and that of covariates.",
            "  ",
        )
        yield "  # covariates:"
        yield from (f"  #   {scalar(name)}: {scalar(column)}" for name, column in guesses.covariates.items())
    if guesses.left_out:
        yield from comment(f"Not used: {'; '.join(guesses.left_out)}.", "  ")


def study_text(name: str, guesses: Guesses) -> str:
    """A study.yaml with its comments.

    Parameters
    ----------
    name : str
        Of the study.
    guesses : Guesses

    Returns
    -------
    str
    """

    def checks(key: str, indent: str = "") -> Iterator[str]:
        for why in guesses.checks.get(key, ()):
            yield from comment(f"{key.rpartition('.')[2]}: {why}", indent, check=True)

    def lines() -> Iterator[str]:
        yield from comment(
            "A first draft, guessed from the names and values in the files. Read every line; where a guess is not "
            f"certain, CHECK says why. Then: make check STUDY={name}. All keys: docs/study_yaml.md."
        )
        yield ""
        yield from comment(
            "title, about, source, licence: placeholders; they stand in the report. Write your own.", check=True
        )
        yield from (f"title: {scalar('Study ' + name)}", "simulated: false")
        yield from comment("randomised: true if the arms were allocated by chance.", check=True)
        yield "randomised: false"
        yield 'about: "Not described yet: who was studied, what was given, when and where swabs were taken."'
        yield from ("source: not given", "licence: not given", "")
        yield from comment(
            "The files are copies, to be mended here where need be; raw/ is not put under version control. Once final, "
            "`sha256: …` beside a path makes the report refuse any other file."
        )
        yield "files:"
        for role in ("counts", "metadata", "taxonomy", "tree"):
            keys = guesses.files.get(role)
            yield from checks(f"files.{role}", "  ")
            if isinstance(keys, str):
                yield f"  {role}: {keys}"
            elif keys:
                yield f"  {role}:"
                for key, value in keys.items():
                    yield from checks(f"files.{role}.{key}", "    ")
                    yield f"    {key}: {scalar(value)}"
        yield ""
        yield from _about_columns(guesses)
        yield ""
        yield from checks("severity")
        if guesses.severity:
            yield from comment("Higher is worse. The first score defines the response.")
        yield "severity:" if guesses.severity else "severity: []"
        for score in guesses.severity:
            what = f"name: {score.name}, column: {quoted(score.column)}, label: {quoted(score.label)}"
            yield f"  - {{{what}, range: [{score.range[0]:.0f}, {score.range[1]:.0f}]}}"
        yield ""
        yield from comment("labels: what figures and sentences say, made from the values.", check=True)
        yield "labels:"
        yield from (f"  {key}: {quoted(text)}" for key, text in guesses.labels.items())
        yield ""
        yield from comment("Covariates of the adjusted models: age, sex, batch, scores and covariates can stand here.")
        yield "adjust:"
        yield from (f"  {key}: [{', '.join(names)}]" for key, names in guesses.adjust.items())
        yield ""
        yield from checks("minimum_depth")
        yield f"minimum_depth: {guesses.minimum_depth}"
        yield "settings:"
        if "lesional" in guesses.columns:
            why = "swabs: `lesional_at_baseline` if lesional and non-lesional skin of patients should not be pooled."
            yield from comment(why, "  ", check=True)
        yield from ("  swabs: all", f"  rarefaction_depth: {max(guesses.minimum_depth, 1)}")

    return "\n".join(lines()) + "\n" + PRIVACY


def summary(name: str, guesses: Guesses) -> str:
    """What was guessed, what is unsure, and what to do next.

    Parameters
    ----------
    name : str
        Of the study.
    guesses : Guesses

    Returns
    -------
    str
    """
    lines = [f"data/{name}/study.yaml is drafted. Guessed:"]
    for key, chosen in guesses.columns.items():
        text = f"'{chosen}'" if isinstance(chosen, str) else f"'{chosen.column}': " + "; ".join(
            f"{standard} = {_quoted(listed)}" for standard, listed in chosen.meaning.items()
        ) + (f"; left out: {_quoted(chosen.ignore)}" if chosen.ignore else "")  # fmt: skip
        lines.append(f"  {key + ':':<14}{_escaped(text)}")
    if guesses.severity:
        lines.append(f"  {'severity:':<14}{_escaped(_quoted(s.column for s in guesses.severity))}")
    number = sum(map(len, guesses.checks.values()))
    lines.append(f"To check ({number}; also title, about, source, licence, randomised, labels):")
    for key, reasons in guesses.checks.items():
        for why in reasons:
            lines += textwrap.wrap(
                _escaped(f"{key}: {why}"), 116, initial_indent="  - ", subsequent_indent="    ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
    lines += [f"Next: edit data/{name}/study.yaml, then", f"  make check STUDY={name}", f"  make report STUDY={name}"]
    return "\n".join(lines)


# ---------------------------------------------------------------- the files


def _kind(data: bytes, text: str) -> str:
    """The format, from the first bytes."""
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, 1024)
        except zlib.error:
            return text
    if data.startswith(b"PK\x03\x04"):
        return "qza"
    return "biom" if text == "text" and (data.startswith(b"\x89HDF") or data.lstrip()[:1] == b"{") else text


def _reader(path: Path, **files: Any) -> Study:
    """A study that has only what the readers of `helpers.tables` ask for."""
    content = {
        "title": "", "simulated": False, "about": "", "source": "", "licence": "",
        "files": {"counts": {"path": path.name}, "metadata": {"path": path.name}, **files},
        "columns": {"sample": "", "subject": "", **{key: {"column": "", "values": {}} for key in ("group", "visit")}},
    }  # fmt: skip
    return Study.model_validate(content).elsewhere(path.parent)


def _read_counts(path: Path, data: bytes, orientation: str) -> tuple[Counts, bool]:
    """The count table, rounded, and whether its counts are whole."""
    for fractions in ("error", "round"):
        keys = {"path": path.name, "orientation": orientation, "fractions": fractions}
        study = _reader(path, counts=keys)
        try:
            return read_counts(study, data, []), fractions == "error"
        except StudyError:
            if fractions == "round":
                raise
    raise AssertionError


def _bytes(path: Path, variable: str) -> bytes:
    fix = f"give the path of a file as {variable}="
    if not path.name.isprintable():
        raise StudyError("has a name that cannot be printed", file=repr(str(path)), fix="rename the file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StudyError("there is no such file", file=path, fix=fix) from None
    except IsADirectoryError:
        raise StudyError("is a folder", file=path, expected="a file", fix=fix) from None
    except OSError as e:
        raise StudyError("cannot be read", file=path, found=e.strerror, fix=fix) from None


def _with_files(metadata: pd.DataFrame, paths: dict[str, Path], data: dict[str, bytes]) -> Guesses:
    """All guesses, from the content of the files."""
    path, kind = paths["counts"], _kind(data["counts"], "text")
    counts, whole = None, True
    if kind == "text":
        table = text_table(path, data["counts"])
        names = [c for c in table.columns[1:] if c.lower() not in LINEAGE_COLUMNS]
        sides = {"samples_in_rows": list(table.iloc[:, 0]), "samples_in_columns": names}
    else:
        counts, whole = _read_counts(path, data["counts"], "auto")
        sides = {"auto": counts.samples}
    sample, orientation, checks = match_samples(metadata, sides)
    if kind == "text" and orientation != "auto":
        counts, whole = _read_counts(path, data["counts"], orientation)
    guesses = guess_columns(metadata, sample)
    for why in checks:
        guesses.unsure("columns.sample", why)
    guesses.files["counts"] = {"format": kind, "orientation": orientation, "fractions": "error"}
    if kind == "text" and orientation == "auto":
        why = "nothing tells whether the samples are in rows or columns; write samples_in_rows or samples_in_columns."
        guesses.unsure("files.counts.orientation", why)
    guesses.files["metadata"] = {}
    depths = np.array([])
    if counts is not None:
        swabs = set(metadata[sample])
        if isinstance(choice := guesses.columns.get("control_type"), Choice):
            swabs = set(metadata[sample][~metadata[choice.column].isin(choice.meaning["negative"])])
        mine = np.array([_bare(s) in {_bare(i) for i in swabs} for s in counts.samples])
        depths = np.asarray(counts.X.sum(axis=1)).ravel()[mine]
    guess_depth(guesses, depths, whole)
    _taxonomy_and_tree(guesses, counts, paths, data)
    return guesses


def _taxonomy_and_tree(guesses: Guesses, counts: Counts | None, paths: dict[str, Path], data: dict[str, bytes]) -> None:
    for role in ("taxonomy", "tree"):
        if role in paths:
            path = paths[role]
            guesses.files[role] = {"format": _kind(data[role], "text" if role == "taxonomy" else "newick")}
            study = _reader(path, **{role: {"path": path.name}})
            try:
                if counts is not None and role == "taxonomy":
                    read_taxonomy(study, data[role], counts)
                elif counts is not None:
                    read_tree(study, data[role], counts.features)
            except StudyError as e:
                guesses.unsure(f"files.{role}", f"the file {e.problem}; `make check` says more.")
    if "taxonomy" in paths:
        return
    features = counts.features if counts is not None else []
    named = float(np.mean([bool(parse_lineage(f)[1]) for f in features])) if features else 0.0
    guesses.files["taxonomy"] = "feature_names" if named >= 0.5 else "none"
    if counts is not None and counts.lineages and any(counts.lineages):
        guesses.files["taxonomy"] = "none"
        guesses.unsure("files.taxonomy", "no file was given, but the count table has lineages itself, which are used.")
    elif named < 0.5:
        why = "no file was given, and the features are not named by lineages; no claim about taxa can be tested."
        guesses.unsure("files.taxonomy", why)
    elif named < 0.9:
        guesses.unsure("files.taxonomy", f"{named:.0%} of the features are named by a lineage with a phylum.")


def draft_study(
    name: str,
    table: str | Path,
    metadata: str | Path,
    taxonomy: str | Path | None = None,
    tree: str | Path | None = None,
    data_folder: str | Path = "data",
) -> str:
    """Make ``data/<name>`` with copies of the files and a commented study.yaml; all or nothing.

    Parameters
    ----------
    name : str
        Of the new study: letters, digits, ``_`` and ``-``.
    table, metadata : str or Path
        The count table (BIOM, .qza or text) and the metadata (text).
    taxonomy, tree : str or Path, optional
        Empty, if there is none.
    data_folder : str or Path, optional
        Where the studies are.

    Returns
    -------
    str
        What was guessed, what is unsure, and what to do next.

    Raises
    ------
    StudyError
        If the name cannot be used, there is such a study already, or a file cannot be read.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        expected = "letters without accents, digits, _ and - (not first)"
        raise StudyError("NAME cannot be a study", found=repr(name), expected=expected, fix="such as NAME=mycohort")
    folder = Path(data_folder) / name
    if folder.exists() or folder.is_symlink():
        fix = f"give another NAME, or remove or rename {folder} if it is no longer needed"
        raise StudyError("there is such a study already; it is left as it is", file=folder, fix=fix)
    given = {"counts": table, "metadata": metadata, "taxonomy": taxonomy, "tree": tree}
    variables = {"counts": "TABLE", "metadata": "METADATA", "taxonomy": "TAXONOMY", "tree": "TREE"}
    for role in ("counts", "metadata"):
        if not str(given[role] or ""):
            raise StudyError(f"{variables[role]} is not given", fix=f"give the path of a file as {variables[role]}=")
    paths = {role: Path(path) for role, path in given.items() if path}
    data = {role: _bytes(path, variables[role]) for role, path in paths.items()}
    guesses = _with_files(text_table(paths["metadata"], data["metadata"]), paths, data)
    copies: dict[str, str] = {}
    for role, path in paths.items():
        copies[role] = path.name if path.name.lower() not in map(str.lower, copies.values()) else f"{role}-{path.name}"
        guesses.files[role] = {"path": f"raw/{copies[role]}", **guesses.files[role]}
    unfinished = folder.with_name(f".{name}-{os.getpid()}")
    try:
        (unfinished / "raw").mkdir(parents=True)
        for role, copy in copies.items():
            (unfinished / "raw" / copy).write_bytes(data[role])
        (unfinished / "study.yaml").write_text(study_text(name, guesses), encoding="utf-8")
        load_study(unfinished)
        unfinished.rename(folder)
    except OSError as e:
        raise StudyError(
            "cannot be written", file=folder, found=e.strerror, fix="see to space and permissions"
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return summary(name, guesses)
