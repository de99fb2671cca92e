"""Who wants to know the hidden counts of a report: ways to compute them from what it shows.

Each way yields what it found out, in words; it has succeeded where one count alone explains what is shown.
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.estimates import minimum_detectable_effect

Row = dict[str, str]
#: Degrees of freedom, and people, that are thought possible.
POSSIBLE = np.arange(2, 61)
#: Columns whose numbers are counts, or known beforehand.
KNOWN = {"level", "depth", "parts", "sign", "specifications", "reliability"}


def span(text: str, digits: int = 2) -> tuple[float, float]:
    """What a number may have been before it was rounded; to so many digits at least, zeros at its end not written."""
    x = float(text)
    decimals = len(text.partition("e")[0].partition(".")[2])
    unit = min(10.0**-decimals, 10.0 ** (math.floor(math.log10(abs(x))) - digits + 1)) if x else 10.0**-decimals
    return x - unit / 2, x + unit / 2


def span_of_p(text: str) -> tuple[float, float]:
    if text.startswith("<"):
        return (0.0 if text == "< 0.001" else float(text[2:]) * 0.9, float(text[2:]))
    return (0.95, 1.0) if text.startswith(">") else span(text, 1)


def counts(shown: str) -> range:
    """The counts that are shown so: all there were before ``15``, or behind ``≤7``."""
    return range(8) if shown.startswith("≤") else range(int(shown) - 2, int(shown) + 3)


def is_number(text: Any) -> bool:
    return re.fullmatch(r"-?\d+\.?\d*(e[+-]?\d+)?", str(text)) is not None


def halves(row: Row) -> tuple[float, float]:
    (a, b), (c, d) = span(row["ci_low"]), span(row["ci_high"])
    return (c - b) / 2, (d - a) / 2


def alone(what: str, possible: np.ndarray, which: np.ndarray) -> Iterator[str]:
    if which.sum() == 1:
        yield f"{what}: {possible[which][0]}"


# --- ways ------------------------------------------------------------------------------------------------------------


def by_error(row: Row) -> Iterator[str]:
    """Half the interval by the standard error is the quantile of t."""
    if is_number(row.get("se")) and is_number(row.get("ci_low")):
        (low, high), (a, b) = halves(row), span(row["se"])
        t = stats.t.ppf(0.5 + float(row["level"]) / 200, POSSIBLE)
        yield from alone("degrees of freedom by the error", POSSIBLE, (low / b <= t) & (t <= high / a))


def by_p(row: Row) -> Iterator[str]:
    """An estimate, its interval and its p-value agree on few degrees of freedom; so do people, in a mean change."""
    p = row.get("p_value", "")
    if not p or not all(map(is_number, (row.get("estimate"), row.get("ci_low"), row.get("level")))):
        return
    (low, high), (a, b), ps = halves(row), span(row["estimate"]), span_of_p(p)
    least, most = sorted((abs(a), abs(b))) if a * b > 0 else (0.0, max(abs(a), abs(b)))
    quantile = 0.5 + float(row["level"]) / 200

    def which(df: np.ndarray) -> np.ndarray:
        t = stats.t.ppf(quantile, df)
        above, below = (2 * stats.t.sf(t * x, df) for x in (least / high, most / low))
        return (below <= ps[1]) & (ps[0] <= above)

    yield from alone("degrees of freedom by p", POSSIBLE, which(POSSIBLE))
    if row.get("estimator") == "mean change":
        people = np.array(counts(row["n"]))
        people = people[people > 2]
        yield from alone("people by p", people, which(people - 1))


def by_power(row: Row) -> Iterator[str]:
    """What a study can detect is so many errors, and half the interval another number of them."""
    if is_number(row.get("detectable")) and is_number(row.get("ci_low")):
        (low, high), (a, b) = halves(row), span(row["detectable"])
        t = stats.t.ppf(0.5 + float(row["level"]) / 200, POSSIBLE)
        errors = np.array([minimum_detectable_effect({"se": 1, "df": df}) for df in POSSIBLE])
        yield from alone("degrees of freedom by power", POSSIBLE, (a / high <= errors / t) & (errors / t <= b / low))


def by_variance(row: Row) -> Iterator[str]:
    """F is the explained share by the rest, a degree of freedom each."""
    if is_number(row.get("pseudo_f")) and is_number(row.get("r2")):
        (a, b), (r, s) = span(row["pseudo_f"], 3), span(row["r2"], 3)
        low, high = a * (1 - s) / s, b * (1 - r) / r
        yield from alone("degrees of freedom by F", POSSIBLE, (low <= POSSIBLE) & (high >= POSSIBLE))


def by_loss(row: Row, effect: Row) -> Iterator[str]:
    """The tipping point is the nearer limit of the interval times all by the lost."""
    if is_number(row.get("tipping")):
        limit = min(effect["ci_low"], effect["ci_high"], key=lambda x: abs(float(x)))
        (a, b), (c, d) = (sorted(map(abs, span(x, 3))) for x in (row["tipping"], limit))
        found = {k for k in counts(row["lost"]) for n in counts(row["of"]) if k and a / d <= n / k <= b / c}
        if len(found) == 1:
            yield f"lost by the tipping point: {found}"


def by_shares(row: Row, shares: Iterable[str], people: str, unit: float) -> Iterator[str]:
    """A share of people, half a person for a tie, is a count by a count; in per cent, to such units."""
    of = np.array(counts(people))
    for column in shares:
        if is_number(row[column]) and 0 < float(row[column]) < 100:
            low, high = (
                span(row[column]) if "." in row[column] else (float(row[column]) + side * unit / 2 for side in (-1, 1))
            )
            yield from alone(f"people by {column}", of, np.floor(2 * of * high / 100) >= np.ceil(2 * of * low / 100))


def by_mcnemar(row: Row) -> Iterator[str]:
    """An exact p-value is one of few; whoever gained and lost a taxon makes it."""
    if row.get("p_value") and "gained" in row:
        low, high = span_of_p(row["p_value"])
        pairs = itertools.product(counts(row["gained"]), counts(row["lost"]))
        p = {(k, m): min(1.0, 2 * stats.binom.cdf(min(k, m), k + m, 0.5)) for k, m in pairs}
        if len({frozenset(pair) for pair, value in p.items() if low <= value <= high}) == 1:
            yield f"gained and lost by p = {row['p_value']}"


def by_difference(smd: str, first: str, second: str, sizes: tuple[str, str]) -> Iterator[str]:
    """A standardised difference of two shares tells a rare one's counts."""
    if not is_number(smd) or float(smd) == 0:
        return
    low, high = span(smd, 1)
    found = set()
    for n, m in itertools.product(*map(counts, sizes)):
        for k, j in itertools.product(counts(first), counts(second)):
            if not (0 <= k <= n and 0 <= j <= m and n > 1 and m > 1):
                continue
            p, q = k / n, j / m
            sd = math.sqrt((p * (1 - p) * n / (n - 1) + q * (1 - q) * m / (m - 1)) / 2)
            if sd and low <= (p - q) / sd <= high:
                found.add((k, j))
    if len({k for k, _ in found}) == 1 or len({j for _, j in found}) == 1:
        yield f"counts by a difference of {smd}: {found}"


def by_totals(total: str, parts: list[str]) -> Iterator[str]:
    """A total less its other parts is the one that is hidden."""
    low = counts(total)[0] - sum(counts(part)[-1] for part in parts)
    high = counts(total)[-1] - sum(counts(part)[0] for part in parts)
    if max(low, 0) == min(high, 7):
        yield f"a hidden part by totals: {high}"


def by_levels(rows: list[Row]) -> Iterator[str]:
    """Two intervals of one estimate, of 90 and of 95 per cent, are wider than each other by quantiles of t."""
    for one, other in itertools.combinations([r for r in rows if is_number(r.get("ci_low"))], 2):
        if one["level"] != other["level"]:
            (a, b), (c, d) = halves(one), halves(other)
            ratio = np.divide(*(stats.t.ppf(0.5 + float(r["level"]) / 200, POSSIBLE) for r in (one, other)))
            yield from alone("degrees of freedom by two levels", POSSIBLE, (a / d <= ratio) & (ratio <= b / c))


def marks(svg: str) -> list[int]:
    """How many marks the groups of a scatter have."""
    groups = re.split(r'<g id="PathCollection_\d+">', svg)[1:]
    return [group.partition("</g>\n   <g id=")[0].count("<use ") for group in groups]


def too_fine(column: str, cell: str) -> bool:
    """Whether a number has more than three significant digits."""
    told = len(re.sub(r"e.*|\D", "", cell).lstrip("0").rstrip("0"))
    return is_number(cell) and not cell.isdigit() and column not in KNOWN and told > 3


#: Ways that need no more than a row.
OF_A_ROW = (by_error, by_p, by_power, by_variance, by_mcnemar)


def rows_of(table: Path) -> list[Row]:
    return pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False).to_dict("records")
