"""Readers of the study's files: count tables, taxonomy and tree, from bytes."""

import csv
import io
import json
import re
import zipfile
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

from helpers.lineage import parse_lineage
from helpers.study import RANKS, DataFile, Study, StudyError

LINEAGE_COLUMNS = {"taxon", "taxonomy", "lineage", "classification", "consensuslineage", "consensus lineage"}


class Counts(NamedTuple):
    """A count table as read: ``X`` samples x features, and the lineage of each feature where the file has it."""

    X: sparse.csr_matrix
    samples: list[str]
    features: list[str]
    lineages: list[str] | None = None


def few(ids: Iterable[object]) -> str:
    """The first five of the identifiers, and how many more there are."""
    names = [str(i) for i in ids]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def near_misses(ids: Iterable[str], others: Iterable[str]) -> str:
    """A hint where identifiers differ only in case, blanks, ``_ - .`` or the X that R puts before a digit."""

    def bare(name: str) -> str:
        return re.sub(r"^x(?=\d)|[\s._-]", "", name.lower())

    known = {bare(o): o for o in others}
    pairs = [f"'{i}' is like '{known[bare(i)]}'" for i in ids if bare(i) in known and i != known[bare(i)]]
    return f"; {few(pairs)}" if pairs else ""


def _format(path: Path, data: bytes, declared: str, *accepted: str) -> str:
    """``qza`` (any zip), ``biom`` (HDF5 or JSON), or text, from the first bytes; an error if it is not as declared."""
    text = "newick" if "newick" in accepted else "text"
    is_biom = data.startswith(b"\x89HDF") or data.lstrip()[:1] == b"{"
    kind = "qza" if data.startswith(b"PK\x03\x04") else "biom" if is_biom else text
    if kind not in accepted or declared not in ("auto", kind):
        expected = declared if declared != "auto" else " or ".join(accepted)
        raise StudyError("is not in the format expected", file=path, found=kind, expected=expected)
    return kind


def _member(path: Path, data: bytes, name: str) -> bytes:
    """``<uuid>/data/<name>`` of a QIIME 2 artifact, read in memory: nothing of the archive is written to disk."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = {n.split("/", 1)[-1]: n for n in archive.namelist()}
            if f"data/{name}" in inside:
                return archive.read(inside[f"data/{name}"])
    except Exception as e:  # whatever a broken or encrypted archive makes zipfile raise
        raise StudyError("is not a readable .qza", file=path, found=e, fix="export or download it again") from None
    content = few(sorted(n for n in inside if n.startswith("data/"))) or few(sorted(inside))
    raise StudyError("is not the QIIME 2 artifact expected", file=path, found=content, expected=f"data/{name}")


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        fix = "save it as text (CSV or TSV) in UTF-8"
        raise StudyError("is not text in UTF-8", file=path, where=f"byte {e.start}", fix=fix) from None


def text_table(path: Path, data: bytes) -> pd.DataFrame:
    """A delimited text as strings: tab, comma or semicolon, with or without BOM, LF or CRLF.

    Comment lines above the header are left out (``# Constructed from biom file``), and so are rows whose first cell
    starts with ``#`` (``#q2:types``). R's ``write.table``, whose header lacks the first cell, is understood.
    """
    text = _decoded(path, data)
    while text.startswith("# ") or re.match(r"#[^\t,;\n]*\n", text):
        text = text.partition("\n")[2]
    head = text.partition("\n")[0]
    delimiter = max("\t,;", key=head.count)
    if not head.count(delimiter):
        expected = "columns separated by tab, comma or semicolon"
        raise StudyError("is not a table", file=path, where="header", found=f"{head[:60]!r}", expected=expected)
    try:
        rows = [[c.strip() for c in r] for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    except csv.Error as e:
        raise StudyError("is not a table", file=path, found=e) from None
    header, *rows = [r for r in rows if any(r)]
    rows = [r for r in rows if not r[0].startswith("#")]
    if not rows:
        raise StudyError("has a header and no rows", file=path)
    if len(header) == len(rows[0]) - 1:
        header = ["", *header]
    for row in rows:
        if len(row) != len(header):
            found, expected = f"{len(row)} cells", f"{len(header)}, as in the header"
            raise StudyError("has a ragged row", file=path, where=f"row '{row[0]}'", found=found, expected=expected)
    table = pd.DataFrame(rows, columns=header, dtype=object)
    table = table.loc[:, [bool(name) or cells.any() for name, cells in table.items()]]  # spreadsheets add empty columns
    no_repeats(path, table.columns, "column")
    return table


def no_repeats(path: Path, names: Iterable[str], what: str) -> None:
    """Raise if a name stands twice."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise StudyError(f"has the same {what} twice", file=path, found=few(twice), expected="each once")


def _named_rows(path: Path, data: bytes, what: str) -> pd.DataFrame:
    """A delimited text whose first column names the rows."""
    table = text_table(path, data)
    no_repeats(path, table.iloc[:, 0], what)
    return table.set_index(table.columns[0])


def _counts_from_biom(path: Path, data: bytes) -> Counts:
    try:
        if data.startswith(b"\x89HDF"):
            with h5py.File(io.BytesIO(data), "r") as file:
                table = biom.Table.from_hdf5(file)
        else:
            table = biom.Table.from_json(json.loads(data))
    except Exception as e:  # whatever a broken file makes the readers of HDF5, JSON and BIOM raise
        found, fix = f"{type(e).__name__}: {e}", "export it again, for instance with `biom convert`"
        raise StudyError("is not a readable BIOM table", file=path, found=found, fix=fix) from None
    features = [str(i).strip() for i in table.ids("observation")]
    lineages = None
    if notes := table.metadata(axis="observation"):
        found_lineages = [next((n[k] for k in n if k.lower() in LINEAGE_COLUMNS), None) for n in notes]
        if any(v is not None for v in found_lineages):
            lineages = [v if isinstance(v, str) else ";".join(map(str, () if v is None else v)) for v in found_lineages]
    return Counts(table.matrix_data.T.tocsr(), [str(i).strip() for i in table.ids()], features, lineages)


def _samples_in_rows(path: Path, table: pd.DataFrame, orientation: str, samples: set[str]) -> bool:
    """The side that matches the metadata's sample identifiers."""
    if orientation != "auto":
        return orientation == "samples_in_rows"
    rows, columns = len(samples & set(table.index)), len(samples & set(table.columns))
    if rows == columns:
        raise StudyError(
            "neither rows nor columns are the metadata's samples" if not rows else "rows and columns both are samples",
            file=path,
            found=f"rows {few(table.index[:3])}; columns {few(table.columns[:3])}",
            expected=f"samples such as {few(sorted(samples)[:3])}{near_misses(table.index, samples)}"
            f"{near_misses(table.columns, samples)}",
            fix="make the identifiers the same, or set files.counts.orientation",
        )
    return rows > columns


def _counts_from_text(path: Path, data: bytes, orientation: str, samples: set[str]) -> Counts:
    table = _named_rows(path, data, "row name")
    lineages = None
    if table.columns[-1].lower() in LINEAGE_COLUMNS:  # a QIIME export: features are in rows
        lineages = list(table.pop(table.columns[-1]))
    if _samples_in_rows(path, table, orientation, samples):
        table = table.T
    cells = table.to_numpy(dtype=object)
    values = pd.to_numeric(pd.Series(cells.ravel()), errors="coerce").to_numpy(float).reshape(cells.shape)
    if (bad := np.argwhere(np.isnan(values))).size:
        i, j = bad[0]
        raise StudyError(
            "has a count that is not a number",
            file=path,
            where=f"sample '{table.columns[j]}', feature '{table.index[i]}'",
            found=repr(cells[i, j]),
            expected="a whole number of reads",
        )
    return Counts(sparse.csr_matrix(values.T), list(table.columns), list(table.index), lineages)


def _whole(path: Path, counts: Counts, fractions: str) -> Counts:
    """Counts as whole numbers; what is not a count is an error that names its sample and feature."""
    X = counts.X.astype(float).tocoo()
    wrong = ~np.isfinite(X.data) | (X.data < 0)
    fraction = ~wrong & (X.data != np.rint(X.data))
    for bad, problem, fix in (
        (wrong, "has a count that is negative or not finite", None),
        (
            fraction if fractions == "error" else np.zeros_like(wrong),
            "has counts that are not whole",
            "give reads, not shares; if they are means of replicates, set files.counts.fractions: round",
        ),
    ):
        if bad.any():
            k = int(np.argmax(bad))
            where = f"sample '{counts.samples[X.row[k]]}', feature '{counts.features[X.col[k]]}'"
            found = f"{X.data[k]:g}; such counts in all: {bad.sum():,}"
            raise StudyError(problem, file=path, where=where, found=found, expected="a whole number of reads", fix=fix)
    whole = sparse.csr_matrix((np.rint(X.data), (X.row, X.col)), shape=X.shape)
    whole.eliminate_zeros()
    return counts._replace(X=whole)


def read_counts(study: Study, data: bytes, samples: Iterable[str]) -> Counts:
    """The count table; the metadata's sample identifiers tell the orientation of a text."""
    file = study.files.counts
    path = study.path(file)
    kind = _format(path, data, file.format, "biom", "qza", "text")
    if kind == "text":
        counts = _counts_from_text(path, data, file.orientation, set(samples))
    else:
        counts = _counts_from_biom(path, _member(path, data, "feature-table.biom") if kind == "qza" else data)
    return _whole(path, counts, file.fractions)


def _lineages(path: Path, table: pd.DataFrame) -> list[str]:
    """One lineage text a row of a taxonomy table, which has one lineage column or one column a rank."""
    columns = {"kingdom" if c.lower() in ("domain", "superkingdom") else c.lower(): c for c in table.columns}
    if lineage := next((columns[c] for c in columns if c in LINEAGE_COLUMNS), None):
        return list(table[lineage])
    if "genus" not in columns:
        expected = "a column Taxon (or taxonomy, lineage), or one column a rank"
        raise StudyError("has no lineages", file=path, where="header", found=few(table.columns), expected=expected)
    ranks = pd.DataFrame({r: table[columns[r]] if r in columns else "" for r in RANKS}, index=table.index)
    return list(ranks.agg(";".join, axis=1))


def read_taxonomy(study: Study, data: bytes | None, counts: Counts) -> pd.DataFrame:
    """Features x seven ranks."""
    file = study.files.taxonomy
    texts = counts.lineages or [""] * len(counts.features)
    if file == "feature_names":
        texts = counts.features
    elif isinstance(file, DataFile) and data is not None:
        path = study.path(file)
        kind = _format(path, data, file.format, "qza", "text")
        table = _named_rows(path, _member(path, data, "taxonomy.tsv") if kind == "qza" else data, "feature")
        by_feature = dict(zip(table.index, _lineages(path, table), strict=True))
        if absent := [f for f in counts.features if f not in by_feature]:
            found = f"{len(absent)} features of the counts without a row: {few(absent)}"
            raise StudyError("lacks features", file=path, found=found, expected="a row for each feature")
        texts = [by_feature[f] for f in counts.features]
    ranks = {text: parse_lineage(text) for text in texts}
    if file == "feature_names" and not any(r[1] for r in ranks.values()):
        expected = "ranks joined by semicolons or dots, as files.taxonomy: feature_names says"
        where = "feature names"
        raise StudyError(
            "has no lineages", file=study.path(study.files.counts), where=where, found=few(texts), expected=expected
        )
    return pd.DataFrame([ranks[t] for t in texts], index=counts.features, columns=list(RANKS), dtype=object)


def read_tree(study: Study, data: bytes, features: list[str]) -> str:
    """The phylogeny as Newick, pruned to the features."""
    file = study.files.tree
    assert file is not None
    path = study.path(file)
    kind = _format(path, data, file.format, "qza", "newick")
    text = _decoded(path, _member(path, data, "tree.nwk") if kind == "qza" else data)
    try:
        tree = TreeNode.read(io.StringIO(text), format="newick", convert_underscores=False)
    except Exception as e:  # whatever a broken file makes the reader raise
        raise StudyError("is not a readable Newick tree", file=path, found=e) from None
    tips = {tip.name for tip in tree.tips()}
    if absent := [f for f in features if f not in tips]:
        found = f"{len(absent)} features without a tip: {few(absent)}"
        raise StudyError("lacks features", file=path, found=found, expected="a tip for each feature")
    pruned = tree.shear(features)
    if any(node.length is None for node in pruned.traverse(include_self=False)):
        raise StudyError("has branches without length", file=path, fix="give a tree with branch lengths")
    return str(pruned).strip()
