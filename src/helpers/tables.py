"""Readers of the study's files: count tables, taxonomy and tree, from bytes."""

import csv
import gzip
import io
import json
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import biom
import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from skbio import TreeNode

from helpers.errors import StudyError, visible
from helpers.lineage import parse_lineage
from helpers.study import RANKS, DataFile, Study, unprintable

#: More than a flow cell of any sequencer gives, of one feature in one swab.
MOST_READS = 10**10
LINEAGE_COLUMNS = {"taxon", "taxonomy", "lineage", "classification", "consensuslineage", "consensus lineage"}


class Counts(NamedTuple):
    """A count table as read: ``X`` samples x features, and the lineage of each feature where the file has it."""

    X: sparse.csr_matrix
    samples: list[str]
    features: list[str]
    lineages: list[str] | None = None


def few(ids: Iterable[object]) -> str:
    """The first five of the identifiers, each cut where it gets long, and how many more there are."""
    names = [text if len(text := str(i)) <= 80 else f"{text[:80]}…" for i in ids]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
#: What spreadsheets make of identifiers such as ``3-4``, ``MAR1`` and ``12E4``, and of broken formulas.
_MANGLED = re.compile(
    rf"\d{{1,2}}[-/. ]({_MONTHS})([-/. ]\d{{2,4}})?|({_MONTHS})[-/. ]\d{{1,4}}|\d(\.\d+)?e\+\d+"
    r"|\d{4}-\d\d-\d\d 00:00:00|#(name\?|ref!|value!|num!|div/0!)",
    re.IGNORECASE,
)


def mangled(texts: Iterable[str]) -> str:
    """A fix for texts that a spreadsheet has changed; empty if none looks so."""
    if changed := [t for t in texts if _MANGLED.fullmatch(t)]:
        return f"a spreadsheet seems to have changed {few(changed)}: import the original with all columns as text"
    return ""


def bare(name: str) -> str:
    """An identifier without case, blanks, ``_ - .``, leading or decimal zeros, and R's first X."""
    name = re.sub(r"\.0$|^x(?=\d)|[\s._-]", "", re.sub(r"\.0$", "", name.lower()))
    return name.lstrip("0") if name.isdigit() else name


def near_misses(ids: Iterable[str], others: Iterable[str]) -> str:
    """A hint where identifiers differ only in what `bare` takes away."""
    known = {bare(o): o for o in others}
    pairs = [f"'{i}' is like '{known[bare(i)]}'" for i in ids if bare(i) in known and i != known[bare(i)]]
    return f"; {few(pairs)}" if pairs else ""


def _limit(packed: int) -> int:
    """The most bytes that a compressed file of a size may hold: tables reach a hundredfold, bombs a thousandfold."""
    return max(2**28, 200 * packed)


def _too_large(path: Path, limit: int) -> StudyError:
    return StudyError(
        "holds suspiciously much", file=path, found=f"more than {limit / 2**20:,.0f} MB when unpacked",
        expected="a table", fix="if it is right, unpack it and name the unpacked file in study.yaml",
    )  # fmt: skip


def unpacked(path: Path, data: bytes) -> bytes:
    """The content of a file that may be compressed by gzip; `StudyError` if it would unpack to what no table has."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            content = file.read(_limit(len(data)) + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise StudyError("is not a readable gzip file", file=path, found=e, fix="get it again") from None
    if len(content) > _limit(len(data)):
        raise _too_large(path, _limit(len(data)))
    return content


def _format(path: Path, data: bytes, declared: str, *accepted: str) -> str:
    """``qza`` (any zip), ``biom`` (HDF5 or JSON), or text, from the first bytes; an error if it is not as declared."""
    text = "newick" if "newick" in accepted else "text"
    is_biom = data.startswith(b"\x89HDF") or data.lstrip()[:1] == b"{"
    kind = "qza" if data.startswith(b"PK\x03\x04") else "biom" if is_biom else text
    if kind not in accepted or declared not in ("auto", kind):
        expected = declared if declared != "auto" else " or ".join(accepted)
        fix = "correct files in study.yaml, or export the file in that format"
        raise StudyError("is not in the format expected", file=path, found=kind, expected=expected, fix=fix)
    return kind


def _member(path: Path, data: bytes, name: str) -> bytes:
    """``<uuid>/data/<name>`` of a QIIME 2 artifact, read in memory: nothing of the archive is written to disk."""
    wanted = f"data/{name}"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            unsafe = [m.filename for m in members if _escapes(m)]
            inside = {m.filename.split("/", 1)[-1]: m for m in members}
            content = b""
            if wanted in inside and not unsafe:
                with archive.open(inside[wanted]) as file:
                    content = file.read(_limit(len(data)) + 1)
    except Exception as e:  # whatever a broken or encrypted archive makes zipfile raise
        raise StudyError("is not a readable .qza", file=path, found=e, fix="export or download it again") from None
    if unsafe:
        expected = "relative paths, no '..', no links"
        raise StudyError("is not a safe archive", file=path, found=few(unsafe), expected=expected, fix="do not use it")
    if wanted not in inside:
        found = few(sorted(n for n in inside if n.startswith("data/"))) or few(sorted(inside)) or "nothing"
        fix = "give the artifact that holds it (FeatureTable[Frequency], FeatureData[Taxonomy], Phylogeny[Rooted])"
        raise StudyError("is not the QIIME 2 artifact expected", file=path, found=found, expected=wanted, fix=fix)
    if len(content) > _limit(len(data)):
        raise _too_large(path, _limit(len(data)))
    return content


def _escapes(member: zipfile.ZipInfo) -> bool:
    """Whether a member of an archive is a link, or would be written outside its folder if it were unpacked."""
    parts = re.split(r"[/\\]", member.filename)
    return ".." in parts or parts[0] == "" or ":" in parts[0] or stat.S_ISLNK(member.external_attr >> 16)


def _decoded(path: Path, data: bytes) -> str:
    """Text in UTF-8, in UTF-16 if it says so, else in Windows-1252, which has Latin-1's letters."""
    encodings = ["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not unprintable(text):
            return visible(text)
    kind = "an Excel workbook or another archive" if data.startswith(b"PK") else "bytes that are not text"
    fix = "save it as CSV or TSV in UTF-8"
    raise StudyError("is not a text file", file=path, found=kind, expected="text in UTF-8 or Latin-1", fix=fix)


def text_table(path: Path, data: bytes) -> pd.DataFrame:
    """A delimited text as strings: tab, comma or semicolon, LF or CRLF, perhaps compressed by gzip.

    Comment lines above the header are left out (``# Constructed from biom file``), and so are rows whose first cell
    starts with ``#`` (``#q2:types``), and columns that repeat another in name and content. R's ``write.table``, whose
    header lacks the first cell, is understood.
    """
    text = _decoded(path, unpacked(path, data))
    while text.startswith("# ") or re.match(r"#[^\t,;\n]*\n", text):
        text = text.partition("\n")[2]
    head = text.partition("\n")[0]
    delimiter = max("\t,;", key=head.count)
    if not head.count(delimiter):
        expected = "columns separated by tab, comma or semicolon"
        raise StudyError(
            "is not a table", file=path, where="header", found=f"{head[:60]!r}", expected=expected, fix="export it so"
        )
    try:
        rows = [[c.strip() for c in r] for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    except csv.Error as e:
        fix = "look for a quotation mark that is not closed"
        raise StudyError("is not a table", file=path, found=e, expected="cells of ordinary length", fix=fix) from None
    header, *rows = [r for r in rows if any(r)] or [[]]
    rows = [r for r in rows if not r[0].startswith("#") or _MANGLED.fullmatch(r[0])]
    if not rows:
        raise StudyError("has no rows", file=path, expected="a header, and a row each", fix="export it again")
    if len(header) == len(rows[0]) - 1:
        header = ["", *header]
    if ragged := [row for row in rows if len(row) != len(header)]:
        raise StudyError(
            f"has {len(ragged)} rows with more or fewer cells than the header", file=path,
            where=f"rows {few(repr(row[0][:60]) for row in ragged)}", found=f"{len(ragged[0])} cells in the first",
            expected=f"{len(header)} cells", fix="look there for an unquoted delimiter or line end",
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=header, dtype=object)
    columns = pd.Series([(str(name), *cells) for name, cells in table.items()], dtype=object)
    # Spreadsheets add empty columns, and some files have a column twice, the same in each row.
    table = table.loc[:, (columns.map(any) & ~columns.duplicated()).to_numpy()]
    no_repeats(path, table.columns, "column")
    return table


def no_repeats(path: Path, names: Iterable[str], what: str) -> None:
    """Raise if a name stands twice."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        fix = "take out or rename all but one"
        raise StudyError(f"has the same {what} twice", file=path, found=few(twice), expected="each once", fix=fix)


def _named_rows(path: Path, data: bytes, what: str) -> pd.DataFrame:
    """A delimited text whose first column names the rows."""
    table = text_table(path, data)
    no_repeats(path, table.iloc[:, 0], what)
    return table.set_index(table.columns[0])


def _counts_from_biom(path: Path, data: bytes) -> Counts:
    try:
        if data.startswith(b"\x89HDF"):
            with h5py.File(io.BytesIO(data), "r") as file:
                held: list[int] = []
                file.visititems(lambda _, item: held.append(getattr(item, "nbytes", 0)))
                size = [sum(held), *file.attrs.get("shape", ())]
                table = biom.Table.from_hdf5(file) if max(size) <= _limit(len(data)) else None
        else:
            content = json.loads(data)
            # A size is checked, since to declare it costs nothing.
            as_declared = list(content["shape"]) == [len(content["rows"]), len(content["columns"])]
            table = biom.Table.from_json(content) if as_declared else None
        if table is not None:
            ids = (table.ids(axis) for axis in ("sample", "observation"))
            samples, features = ([visible(str(i)).strip() for i in names] for names in ids)
            return Counts(table.matrix_data.T.tocsr(), samples, features, _lineages_in(table))
    except Exception as e:  # whatever a broken file makes the readers of HDF5, JSON and BIOM raise
        found, fix = f"{type(e).__name__}: {e}"[:300], "export it again, for instance with `biom convert`"
        raise StudyError("is not a readable BIOM table", file=path, found=found, fix=fix) from None
    raise _too_large(path, _limit(len(data)))


def _lineages_in(table: biom.Table) -> list[str] | None:
    """The lineage of each feature, where the table's notes have them."""
    notes = table.metadata(axis="observation") or ()
    found = [next((note[k] for k in note or () if k.lower() in LINEAGE_COLUMNS), None) for note in notes]
    if all(v is None for v in found):
        return None
    return [visible(v if isinstance(v, str) else ";".join(map(str, () if v is None else v))) for v in found]


def samples_in_rows(path: Path, table: pd.DataFrame, orientation: str, samples: set[str]) -> bool:
    """Whether the rows are the samples: as declared, or the side that matches the metadata's identifiers."""
    if orientation != "auto":
        return orientation == "samples_in_rows"
    rows, columns = len(samples & set(table.index)), len(samples & set(table.columns))
    if rows == columns:
        problem = "rows and columns both are samples" if rows else "neither rows nor columns are the metadata's samples"
        found = f"rows {few(table.index[:3])}; columns {few(table.columns[:3])}"
        near = near_misses(table.index, samples) + near_misses(table.columns, samples)
        fix = "make the identifiers the same, or set files.counts.orientation"
        fix = mangled([*table.index, *table.columns, *samples]) or fix
        raise StudyError(problem, file=path, found=found, expected=f"samples such as {few(sorted(samples)[:3])}{near}",
                         fix=fix)  # fmt: skip
    return rows > columns


def _counts_from_text(path: Path, data: bytes, orientation: str, samples: set[str]) -> Counts:
    table = _named_rows(path, data, "row name")
    lineages = None
    if table.columns[-1].lower() in LINEAGE_COLUMNS:  # a QIIME export: features are in rows
        lineages = list(table.pop(table.columns[-1]))
    if samples_in_rows(path, table, orientation, samples):
        table = table.T
    cells = table.to_numpy(dtype=object)
    values = pd.to_numeric(pd.Series(cells.ravel()), errors="coerce").to_numpy(float).reshape(cells.shape)
    if (bad := np.argwhere(np.isnan(values))).size:
        i, j = bad[0]
        where = f"sample '{table.columns[j]}', feature '{table.index[i]}'"
        found, expected = f"{cells[i, j]!r:.80}; such cells in all: {len(bad):,}", "a whole number of reads"
        fix = mangled([cells[i, j]]) or "write 0 where there are none; take out columns that are not counts"
        problem = "has a count that is not a number"
        raise StudyError(problem, file=path, where=where, found=found, expected=expected, fix=fix)
    return Counts(sparse.csr_matrix(values.T), list(table.columns), list(table.index), lineages)


def _whole(path: Path, counts: Counts, fractions: str) -> Counts:
    """Counts as whole numbers, or shares if they are `relative`; what is neither names its sample and feature."""
    X = counts.X.astype(float).tocoo()
    wrong = ~np.isfinite(X.data) | (X.data < 0) | (X.data > MOST_READS)
    fraction = ~wrong & (X.data != np.rint(X.data))
    for bad, problem, fix in (
        (wrong, "has a count that is negative, not finite or beyond all sequencing", "correct the cell"),
        (
            fraction if fractions == "error" else np.zeros_like(wrong),
            "has counts that are not whole",
            "give reads; if they are means of replicates, set files.counts.fractions: round; if they are relative "
            "abundances and there is nothing else, set it to relative",
        ),
    ):
        if bad.any():
            k = int(np.argmax(bad))
            where = f"sample '{counts.samples[X.row[k]]}', feature '{counts.features[X.col[k]]}'"
            found = f"{X.data[k]:g}; such counts in all: {bad.sum():,}"
            raise StudyError(problem, file=path, where=where, found=found, expected="a whole number of reads", fix=fix)
    whole = (X if fractions == "relative" else X.rint()).tocsr()
    whole.eliminate_zeros()
    if fractions == "relative":
        totals = np.asarray(whole.sum(axis=1)).ravel()
        whole = sparse.diags(1 / np.where(totals > 0, totals, 1)) @ whole
    return counts._replace(X=whole.tocsr())


def read_counts(study: Study, data: bytes, samples: Iterable[str]) -> Counts:
    """The count table; the metadata's sample identifiers tell the orientation of a text."""
    file = study.files.counts
    path, data = study.path(file), unpacked(study.path(file), data)
    kind = _format(path, data, file.format, "biom", "qza", "text")
    if kind == "text":
        counts = _counts_from_text(path, data, file.orientation, set(samples))
    else:
        counts = _counts_from_biom(path, _member(path, data, "feature-table.biom") if kind == "qza" else data)
    for names, what in ((counts.samples, "sample"), (counts.features, "feature")):
        no_repeats(path, names, what)
        if wrong := [n for n in names if not n or unprintable(n)]:
            fix = "give each its name"
            raise StudyError(f"has a {what} without a readable name", file=path, found=few(map(repr, wrong)), fix=fix)
    return _whole(path, counts, file.fractions)


def _lineages(path: Path, table: pd.DataFrame) -> list[str]:
    """One lineage text a row of a taxonomy table, which has one lineage column or one column a rank."""
    columns = {"kingdom" if c.lower() in ("domain", "superkingdom") else c.lower(): c for c in table.columns}
    if lineage := next((columns[c] for c in columns if c in LINEAGE_COLUMNS), None):
        return list(table[lineage])
    if "genus" not in columns:
        raise StudyError(
            "has no lineages", file=path, where="header", found=few(table.columns),
            expected="a column Taxon (or taxonomy, lineage), or one column a rank",
            fix="rename the column with the lineages to Taxon",
        )  # fmt: skip
    ranks = pd.DataFrame({r: table[columns[r]] if r in columns else "" for r in RANKS}, index=table.index)
    return list(ranks.agg(";".join, axis=1))


def read_taxonomy(study: Study, data: bytes | None, counts: Counts) -> pd.DataFrame:
    """Features x seven ranks."""
    file = study.files.taxonomy
    texts = counts.lineages or [""] * len(counts.features)
    if file == "feature_names":
        texts = counts.features
    elif isinstance(file, DataFile) and data is not None:
        path, data = study.path(file), unpacked(study.path(file), data)
        kind = _format(path, data, file.format, "qza", "text")
        table = _named_rows(path, _member(path, data, "taxonomy.tsv") if kind == "qza" else data, "feature")
        by_feature = dict(zip(table.index, _lineages(path, table), strict=True))
        if absent := [f for f in counts.features if f not in by_feature]:
            fix = "give the taxonomy of this table, or add the rows (an empty lineage is understood)"
            raise StudyError(
                "lacks features", file=path, expected="a row for each feature", fix=mangled(by_feature) or fix,
                found=f"{len(absent)} features of the counts without a row: {few(absent)}"
                + near_misses(absent, by_feature),
            )  # fmt: skip
        texts = [by_feature[f] for f in counts.features]
    ranks = {text: parse_lineage(text) for text in texts}
    if file == "feature_names" and not any(r[1] for r in ranks.values()):
        raise StudyError(
            "has no lineages", file=study.path(study.files.counts), where="feature names", found=few(texts),
            expected="ranks joined by semicolons or dots, as files.taxonomy: feature_names says",
            fix="set files.taxonomy to a file, or to none",
        )  # fmt: skip
    return pd.DataFrame([ranks[t] for t in texts], index=counts.features, columns=list(RANKS), dtype=object)


class Tree(NamedTuple):
    """A phylogeny pruned to the features: Newick, the features that have no tip, and the tips that are no feature."""

    newick: str
    without_tip: list[str]
    other_tips: list[str]


def read_tree(study: Study, data: bytes, features: list[str]) -> Tree:
    """The phylogeny; features that it lacks are left out of what needs it."""
    file = study.files.tree
    assert file is not None
    path, data = study.path(file), unpacked(study.path(file), data)
    kind = _format(path, data, file.format, "qza", "newick")
    text = _decoded(path, _member(path, data, "tree.nwk") if kind == "qza" else data)
    try:
        tree = TreeNode.read(io.StringIO(text), format="newick", convert_underscores=False)
        tips = [tip.name for tip in tree.tips()]
    except Exception as e:  # whatever a broken file makes the reader raise
        fix = "export it again as Newick"
        raise StudyError("is not a readable Newick tree", file=path, found=f"{e!s:.300}", fix=fix) from None
    no_repeats(path, [t for t in tips if t], "tip")
    absent, known = [f for f in features if f not in set(tips)], set(features)
    if len(absent) > len(features) / 2:
        found = f"{len(absent)} of {len(features)} features without a tip: {few(absent)}"
        raise StudyError(
            "lacks most of the features", file=path, found=found + near_misses(absent, filter(None, tips)),
            expected=f"tips named as in {study.files.counts.path}", fix="give the tree of this table, or none",
        )  # fmt: skip
    pruned = tree.shear([f for f in features if f not in set(absent)])
    lengths = [node.length for node in pruned.traverse(include_self=False)]
    if any(length is None or not 0 <= length < np.inf for length in lengths):
        fix = "give a tree with branch lengths, none below zero"
        raise StudyError("has branches without a length, or with one that is none", file=path, fix=fix)
    return Tree(str(pruned).strip(), absent, [str(t) for t in tips if t not in known])
