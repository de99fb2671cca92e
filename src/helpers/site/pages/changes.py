"""What changed: this run beside the committed reference, or beside an earlier run that the user names."""

import html
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.errors import StudyError
from helpers.files import CLAIMS_TABLE, DEMO, FIGURES, REFERENCE, TABLES, Report, write_whole
from helpers.narrate import interval, number
from helpers.output import as_text, save_table, table_html
from helpers.run.origin import sha256
from helpers.site.pages import Run, prose, raw

#: Numbers that differ by less, relative to their size, are the same: other processors round otherwise.
TOLERANCE = 1e-6
#: Checksums of the figures, where the results were kept without them.
_CHECKSUMS = "figures.tsv"


class Results(NamedTuple):
    """What a run saved: its claims, its tables, and the checksum of each picture."""

    claims: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    figures: dict[str, str]


def read_results(folder: Path) -> Results:
    """Read what a run saved: ``results`` of a report, or what `keep_results` wrote."""
    if (folder / _CHECKSUMS).is_file():
        figures = dict(as_text(folder / _CHECKSUMS).to_numpy())
    else:
        figures = {path.stem: sha256(path) for path in sorted((folder / FIGURES).glob("*.png"))}
    tables = {path.stem: as_text(path) for path in sorted((folder / TABLES).glob("*.tsv"))}
    return Results(as_text(folder / CLAIMS_TABLE), tables, figures)


def keep_results(results: Path, target: Path = REFERENCE) -> None:
    """Keep what a run saved, less the pictures, of which the checksums are enough."""
    paths = [results / CLAIMS_TABLE, *(results / TABLES).glob("*.tsv")]
    kept = {path.relative_to(results).as_posix(): path for path in paths}
    for stale in {path.relative_to(target).as_posix() for path in target.rglob("*.tsv")} - {*kept, _CHECKSUMS}:
        (target / stale).unlink()
    for name, path in kept.items():
        write_whole(target / name, path.read_bytes())
    figures = "".join(f"{name}\t{checksum}\n" for name, checksum in sorted(read_results(results).figures.items()))
    write_whole(target / _CHECKSUMS, f"figure\tsha256\n{figures}")


def earlier_run(named: str) -> Path:
    """The results of a run that a user names by its folder: ``reports/demo``, one of `make share`, or its results."""
    named_folder = Path(named).expanduser()
    for folder in (Report(named_folder).results, named_folder):
        if (folder / CLAIMS_TABLE).is_file():
            return folder
    expected = f"a folder with results/{CLAIMS_TABLE}, such as a copy of reports/demo"
    raise StudyError("AGAINST: no results of an earlier run there", found=named, expected=expected)


def moved_claims(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Claims whose verdict, estimate, interval or n moved: these as they were and are, and the estimate's ``change``.

    Both as in ``claims.tsv``, all text.
    """
    both = before.merge(after, on="id", how="outer", suffixes=("_0", "_1"), sort=False).fillna("")
    shown = ["verdict", "estimate", "ci_low", "ci_high", "n"]
    rows = []
    for row in both.to_dict("records"):
        if not any(_differs(row[f"{column}_0"], row[f"{column}_1"]) for column in shown):
            continue
        old, new = (_parsed(row[f"estimate_{i}"]) for i in (0, 1))
        spans = [interval(_parsed(row[f"ci_low_{i}"]), _parsed(row[f"ci_high_{i}"])) for i in (0, 1)]
        verdict, n = (_arrow(row[f"{column}_0"], row[f"{column}_1"]) for column in ("verdict", "n"))
        rows.append([row["id"], verdict, _arrow(number(old), number(new)), number(new - old), _arrow(*spans), n])
    return pd.DataFrame(rows, columns=["id", "verdict", "estimate", "change", "interval", "n"])


def moved_tables(before: dict[str, pd.DataFrame], after: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables that moved: columns table, what (new, gone, what differs), and largest, the cell that moved most.

    All text, by name.
    """
    rows = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            rows.append((name, "new" if old is None else "gone", ""))
        elif list(old) != list(new) or len(old) != len(new):
            shape = _arrow(*(f"{len(t)} rows, {len(t.columns)} columns" for t in (old, new)))
            rows.append((name, f"other rows or columns: {shape}", ""))
        else:
            cells = [
                (_distance(a, b), f"{new.iloc[i, 0]}, {column}: {_arrow(_rounded(a), _rounded(b))}")
                for column in new
                for i, (a, b) in enumerate(zip(old[column], new[column], strict=True))
                if _differs(a, b)
            ]
            if cells:
                rows.append((name, f"{len(cells)} of {new.size} cells", max(cells, key=lambda c: c[0])[1]))
    return pd.DataFrame(rows, columns=["table", "what", "largest"])


def _comparable(results: Results, run: Run) -> Results:
    """Results, without those of the multiverse beside the committed ones, whose grid is the light one."""
    if run.against or run.parameters.get("robustness") == "light":
        return results
    apart = {name for name in (*results.tables, *results.figures) if name.startswith("06_")}
    return Results(results.claims, *({n: of for n, of in kept.items() if n not in apart} for kept in results[1:]))


def _parsed(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _rounded(text: str) -> str:
    value = _parsed(text)
    return text or "–" if np.isnan(value) else number(value)


def _distance(a: str, b: str) -> float:
    """Difference relative to the larger of the two; infinite where one is no number."""
    x, y = _parsed(a), _parsed(b)
    return float("inf") if np.isnan(x) or np.isnan(y) else abs(x - y) / max(abs(x), abs(y), 1e-12)


def _differs(a: str, b: str) -> bool:
    return a != b and _distance(a, b) > TOLERANCE


def _arrow(old: str, new: str) -> str:
    return new if old == new else f"{old or '–'} → {new or '–'}"


def page(run: Run) -> str:
    """The page."""
    title = "# What changed"
    against = run.against or (REFERENCE if run.study.folder == DEMO and REFERENCE.is_dir() else None)
    if against is None:
        return f"{title}\n\n{raw(prose('changes', after=None, study=run.study.folder.name))}\n"
    before, after = (_comparable(read_results(folder), run) for folder in (against, run.report.results))
    claims, tables = moved_claims(before.claims, after.claims), moved_tables(before.tables, after.tables)
    names = sorted({*before.figures, *after.figures})
    figures = [name for name in names if before.figures.get(name) != after.figures.get(name)]
    facts = {"named": run.against, "before": before, "after": after, "moved": (claims, tables, figures)}
    told = prose("changes", **facts, tolerance=f"{TOLERANCE:g}")
    sections = [title, raw(told)]
    for heading, table, name in (("Claims", claims, "changed_claims"), ("Tables", tables, "changed_tables")):
        if len(table):
            save_table(table, run.files, name)
            texts = {column: list(table[column]) for column in table}
            sections += [f"## {heading}", raw(table_html(texts, set(), f"{heading} that moved: as it was → as it is"))]
    if figures:
        items = "".join(f"<li>{html.escape(name)}</li>" for name in figures)
        sections += ["## Figures", raw(f"<ul>{items}</ul>")]
    return "\n\n".join(sections) + "\n"
