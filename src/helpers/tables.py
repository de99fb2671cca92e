"""Readers of the study's files: count tables, taxonomy and tree, from bytes."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import biom
import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from skbio import TreeNode

from helpers import containers, words
from helpers.containers import Held
from helpers.errors import StudyError, visible
from helpers.lineage import parse_lineage
from helpers.study import RANKS, DataFile, Study, unprintable

#: What compresses a file, by how it begins: R has three.
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_ZIP = b"PK\x03\x04"
#: The column with the names of the rows, where R or AnnData keep them aside.
ROW_NAMES = "row names"
#: Columns beside counts that are none.
_BESIDE = {*words.LINEAGE_COLUMNS, *words.NO_COUNTS, *RANKS}


class Counts(NamedTuple):
    """A count table as read: ``X`` samples x features, and where the file has them, lineages of features and a tree."""

    X: sparse.csr_matrix
    samples: list[str]
    features: list[str]
    lineages: list[str] | None = None
    tree: str | None = None
    #: What was left out, as a sentence.
    told: str = ""


def few(ids: Iterable[object]) -> str:
    """The first five of the identifiers, each cut where it gets long, and how many more there are."""
    names = [text if len(text := str(i)) <= 80 else f"{text[:80]}…" for i in ids]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def mangled(texts: Iterable[str]) -> str:
    """A fix for texts that a spreadsheet has changed; empty if none looks so."""
    if changed := [t for t in texts if words.MANGLED.fullmatch(t)]:
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
    return StudyError.of("too_large", path, limit=limit / 2**20)


def unpacked(path: Path, data: bytes) -> bytes:
    """The content of a file that may be compressed, of a workbook its first table as text.

    `StudyError` if it would unpack to what no table has.
    """
    if data.startswith(_ZIP) and (tables := containers.sheets(path, data)):
        text, rows = io.StringIO(), next(iter(tables.values()))
        csv.writer(text, delimiter="\t").writerows([*row, *[""] * (max(map(len, rows)) - len(row))] for row in rows)
        return text.getvalue().encode()
    opener = next((opener for begins, opener in _PACKED.items() if data.startswith(begins)), None)
    if opener is None:
        return data
    try:
        with opener(io.BytesIO(data)) as file:
            content: bytes = file.read(_limit(len(data)) + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as e:
        raise StudyError.of("packed", path, kind=opener.__module__, found=e) from None
    if len(content) > _limit(len(data)):
        raise _too_large(path, _limit(len(data)))
    return content


def is_whole_study(path: Path, data: bytes) -> bool:
    """Whether a file has counts and what is recorded of each swab."""
    return isinstance(containers.read(path, unpacked(path, data)), Held)


def _format(path: Path, data: bytes, declared: str, *accepted: str) -> str:
    """``qza`` (any zip), ``biom`` (HDF5 or JSON), or text, from the first bytes; an error if it is not as declared."""
    text = "newick" if "newick" in accepted else "text"
    is_biom = data.startswith(b"\x89HDF") or data.lstrip()[:1] == b"{"
    kind = "qza" if data.startswith(_ZIP) else "biom" if is_biom else text
    if kind not in accepted or declared not in ("auto", kind):
        expected = declared if declared != "auto" else " or ".join(accepted)
        raise StudyError.of("format", path, found=kind, expected=expected)
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
        raise StudyError.of("qza", path, found=e) from None
    if unsafe:
        raise StudyError.of("unsafe", path, found=few(unsafe))
    if wanted not in inside:
        found = few(sorted(n for n in inside if n.startswith("data/"))) or few(sorted(inside)) or "nothing"
        raise StudyError.of("artifact", path, found=found, expected=wanted)
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
    raise StudyError.of("no_text", path, found=kind)


def text_table(path: Path, data: bytes) -> pd.DataFrame:
    """A delimited text as strings: tab, comma or semicolon, LF or CRLF, perhaps compressed; or R's or AnnData's table.

    Comment lines above the header are left out (``# Constructed from biom file``), and so are rows whose first cell
    starts with ``#`` (``#q2:types``), and columns that repeat another in name and content. R's ``write.table``, whose
    header lacks the first cell, is understood.
    """
    data = unpacked(path, data)
    held = containers.read(path, data)
    frame = held.metadata if isinstance(held, Held) else held
    if frame is not None:
        table = frame.rename_axis(index=ROW_NAMES).reset_index()
        no_repeats(path, table.columns, "column")
        return table
    text = _decoded(path, data)
    while text.startswith("# ") or re.match(r"#[^\t,;\n]*\n", text):
        text = text.partition("\n")[2]
    head = text.partition("\n")[0]
    delimiter = max("\t,;", key=head.count)
    if not head.count(delimiter):
        raise StudyError.of("no_table", path, found=f"{head[:60]!r}")
    try:
        rows = [[c.strip() for c in r] for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    except csv.Error as e:
        raise StudyError.of("quotes", path, found=e) from None
    header, *rows = [r for r in rows if any(r)] or [[]]
    rows = [r for r in rows if not r[0].startswith("#") or words.MANGLED.fullmatch(r[0])]
    if not rows:
        raise StudyError.of("no_rows", path)
    if len(header) == len(rows[0]) - 1:
        header = ["", *header]
    if ragged := [row for row in rows if len(row) != len(header)]:
        named = few(repr(row[0][:60]) for row in ragged)
        raise StudyError.of("ragged", path, n=len(ragged), rows=named, first=len(ragged[0]), header=len(header))
    table = pd.DataFrame(rows, columns=header, dtype=object)
    columns = pd.Series([(str(name), *cells) for name, cells in table.items()], dtype=object)
    # Spreadsheets add empty columns, and some files have a column twice, the same in each row.
    table = table.loc[:, (columns.map(any) & ~columns.duplicated()).to_numpy()]
    no_repeats(path, table.columns, "column")
    return table


def no_repeats(path: Path, names: Iterable[str], what: str) -> None:
    """Raise if a name stands twice."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise StudyError.of("twice", path, what=what, found=few(twice))


def _named_rows(path: Path, data: bytes, what: str) -> pd.DataFrame:
    """A delimited text whose first column names the rows; of mothur's shared files, the second."""
    table = text_table(path, data)
    if [c.lower() for c in table.columns[:3]] == ["label", "group", "numotus"]:
        table = table.drop(columns=table.columns[[0, 2]])
    no_repeats(path, table.iloc[:, 0], what)
    return table.set_index(table.columns[0])


def _counts_from_biom(path: Path, data: bytes) -> Counts:
    try:
        if data.startswith(b"\x89HDF"):
            with h5py.File(io.BytesIO(data), "r") as file:
                size = [containers.size_of(file), *file.attrs.get("shape", ())]
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
        raise StudyError.of("biom", path, found=f"{type(e).__name__}: {e}"[:300]) from None
    raise _too_large(path, _limit(len(data)))


def _lineages_in(table: biom.Table) -> list[str] | None:
    """The lineage of each feature, where the table's notes have them."""
    notes = table.metadata(axis="observation") or ()
    found = [next((note[k] for k in note or () if k.lower() in words.LINEAGE_COLUMNS), None) for note in notes]
    if all(v is None for v in found):
        return None
    return [visible(v if isinstance(v, str) else ";".join(map(str, () if v is None else v))) for v in found]


def samples_in_rows(path: Path, table: pd.DataFrame, orientation: str, samples: set[str]) -> bool:
    """Whether the rows are the samples: as declared, or the side that matches the metadata's identifiers."""
    if orientation != "auto":
        return orientation == "samples_in_rows"
    rows, columns = len(samples & set(table.index)), len(samples & set(table.columns))
    if rows == columns:
        raise StudyError.of(
            "both_sides" if rows else "no_side", path, rows=few(table.index[:3]), columns=few(table.columns[:3]),
            samples=few(sorted(samples)[:3]), fix=mangled([*table.index, *table.columns, *samples]),
            near=near_misses(table.index, samples) + near_misses(table.columns, samples),
        )  # fmt: skip
    return rows > columns


def _counts_from_text(path: Path, data: bytes, orientation: str, samples: set[str]) -> Counts:
    table = _named_rows(path, data, "row name")
    beside = [c for c in table if c.lower() in _BESIDE]  # then features are in rows
    if (lineages := _lineages(table[beside])) is not None:
        table = table.drop(columns=beside)
    if samples_in_rows(path, table, orientation, samples):
        table = table.T
    cells = table.to_numpy(dtype=object)
    values = pd.to_numeric(pd.Series(cells.ravel()), errors="coerce").to_numpy(float).reshape(cells.shape)
    if (bad := np.argwhere(np.isnan(values))).size:
        i, j = bad[0]
        place = {"sample": table.columns[j], "feature": table.index[i], "cell": f"{cells[i, j]!r:.80}", "n": len(bad)}
        raise StudyError.of("count_no_number", path, **place, fix=mangled([cells[i, j]]))
    return Counts(sparse.csr_matrix(values.T), list(table.columns), list(table.index), lineages)


def _finest(counts: Counts) -> Counts:
    """The counts without rows that sum others up: a total, and the ranks above the finest, where each rank has its row.

    What a row of a rank has beyond those below it (reads that are named no further) stays.
    """
    X, parts = counts.X.tocsc().astype(float), [tuple(re.split(r"\s*[;|]\s*", f)) for f in counts.features]
    slack = 1e-3 * np.abs(X).max(axis=1).toarray() + 1e-9
    at, summed, left_out = {p: i for i, p in enumerate(parts)}, set[int](), set[int]()
    inner = {i: at[p[:-1]] for i, p in enumerate(parts) if p[:-1] in at}
    above = sorted(set(inner.values()))
    if len(inner) >= 0.9 * sum(len(p) > 1 for p in parts) and above:
        sums = sparse.csc_matrix((np.ones(len(inner)), (list(inner), list(inner.values()))), shape=[len(parts)] * 2)
        beyond = (X - X @ sums)[:, above].toarray()
        if (beyond >= -slack).all():
            X[:, above] = np.where(beyond > slack, beyond, 0)
            summed = {*above}
            left_out = {i for i, more in zip(above, (beyond > slack).any(axis=0), strict=True) if not more}
    total = [i for i, f in enumerate(counts.features) if words.TOTAL.fullmatch(f)]
    rest = X.sum(axis=1) - X[:, total].sum(axis=1)
    totals = {i for i in total if (abs(X[:, [i]].toarray() - rest) <= slack).all()}
    summed, left_out = summed | totals, left_out | totals
    if not summed:
        return counts
    kept = [i for i in range(len(parts)) if i not in left_out]
    told = f"{len(summed)} rows of the counts that are sums of others are left out"
    told += ", but for reads that are named no further: " if summed != left_out else ": "
    told += f"{few(counts.features[i] for i in sorted(summed))}."
    lineages = counts.lineages and [counts.lineages[i] for i in kept]
    features = [counts.features[i] for i in kept]
    return counts._replace(X=X.tocsr()[:, kept], features=features, lineages=lineages, told=told)


def _whole(path: Path, counts: Counts, fractions: str) -> Counts:
    """Counts as whole numbers, or shares if they are `relative`; what is neither names its sample and feature."""
    X = counts.X.astype(float).tocoo()
    wrong = ~np.isfinite(X.data) | (X.data < 0) | (X.data > 10**10)  # more than a flow cell gives
    fraction = ~wrong & (X.data != np.rint(X.data))
    for bad, problem in ((wrong, "count_impossible"), (fraction & (fractions == "error"), "count_fraction")):
        if bad.any():
            k = int(np.argmax(bad))
            place = {"sample": counts.samples[X.row[k]], "feature": counts.features[X.col[k]], "cell": f"{X.data[k]:g}"}
            raise StudyError.of(problem, path, **place, n=bad.sum())
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
    held = containers.read(path, data)
    kind = "text" if held is not None else _format(path, data, file.format, "biom", "qza", "text")
    if isinstance(held, Held):
        lineages = None if held.taxonomy is None else _lineages(held.taxonomy)
        counts = Counts(held.X, held.samples, held.features, lineages, held.tree)
    elif kind == "text":
        counts = _counts_from_text(path, data, file.orientation, set(samples))
    else:
        counts = _counts_from_biom(path, _member(path, data, "feature-table.biom") if kind == "qza" else data)
    for names, what in ((counts.samples, "sample"), (counts.features, "feature")):
        no_repeats(path, names, what)
        if wrong := [n for n in names if not n or unprintable(n)]:
            raise StudyError.of("no_name", path, what=what, found=few(map(repr, wrong)))
    return _whole(path, _finest(counts), file.fractions)


def _lineages(table: pd.DataFrame) -> list[str] | None:
    """One lineage text a row of a taxonomy table, which has one lineage column or one column a rank; None without."""
    columns = {"kingdom" if c.lower() in ("domain", "superkingdom") else c.lower(): c for c in table.columns}
    if lineage := next((columns[c] for c in columns if c in words.LINEAGE_COLUMNS), None):
        return list(table[lineage])
    if "genus" not in columns:
        return None
    ranks = pd.DataFrame({r: table[columns[r]] if r in columns else "" for r in RANKS}, index=table.index)
    if "species_exact" in columns:  # of DADA2: surer than the species beside it
        exact = table[columns["species_exact"]]
        ranks["species"] = exact.where(words.recorded(exact).notna(), ranks["species"])
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
        if (lineages := _lineages(table)) is None:
            raise StudyError.of("no_lineages", path, found=few(table.columns))
        by_feature = dict(zip(table.index, lineages, strict=True))
        if absent := [f for f in counts.features if f not in by_feature]:
            told = few(absent) + near_misses(absent, by_feature)
            raise StudyError.of("lacks_features", path, n=len(absent), absent=told, fix=mangled(by_feature))
        texts = [by_feature[f] for f in counts.features]
    ranks = {text: parse_lineage(text) for text in texts}
    if file == "feature_names" and not any(any(r[1:]) for r in ranks.values()):
        raise StudyError.of("no_names", study.path(study.files.counts), found=few(texts))
    return pd.DataFrame([ranks[t] for t in texts], index=counts.features, columns=list(RANKS), dtype=object)


class Tree(NamedTuple):
    """A phylogeny pruned to the features: Newick, the features that have no tip, and the tips that are no feature."""

    newick: str
    without_tip: list[str]
    other_tips: list[str]


def read_tree(study: Study, data: bytes, features: list[str]) -> Tree:
    """The phylogeny; features that it lacks are left out of what needs it."""
    file = study.files.tree or study.files.counts
    path, data = study.path(file), unpacked(study.path(file), data)
    kind = _format(path, data, file.format if study.files.tree else "auto", "qza", "newick")
    text = _decoded(path, _member(path, data, "tree.nwk") if kind == "qza" else data)
    try:
        tree = TreeNode.read(io.StringIO(text), format="newick", convert_underscores=False)
        tips = [tip.name for tip in tree.tips()]
    except Exception as e:  # whatever a broken file makes the reader raise
        raise StudyError.of("newick", path, found=f"{e!s:.300}") from None
    no_repeats(path, [t for t in tips if t], "tip")
    absent, known = [f for f in features if f not in set(tips)], set(features)
    if len(absent) > len(features) / 2:
        told = few(absent) + near_misses(absent, filter(None, tips))
        of = {"n": len(absent), "all": len(features), "absent": told, "counts": study.files.counts.path}
        raise StudyError.of("lacks_tips", path, **of)
    pruned = tree.shear([f for f in features if f not in set(absent)])
    lengths = [node.length for node in pruned.traverse(include_self=False)]
    if any(length is None or not 0 <= length < np.inf for length in lengths):
        raise StudyError.of("lengths", path)
    return Tree(str(pruned).strip(), absent, [str(t) for t in tips if t not in known])
