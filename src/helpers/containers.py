"""What holds several tables: R's phyloseq and TreeSummarizedExperiment (without R), AnnData, workbooks of Excel."""

import functools
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse

import helpers
from helpers.errors import StudyError, visible

#: How R's serialisations begin, unpacked: binary as R writes it, as text, and what `save` puts before them.
_R = (b"X\n\x00", b"A\n2\n", b"A\n3\n", b"RDX2\n", b"RDX3\n", b"RDA2\n", b"RDA3\n")
#: What of R is a column of a table.
_VECTORS = {"STR", "INT", "REAL", "LGL"}
#: The most that a file may stand for without having it: numbers that R wrote as the ends of a sequence, or bytes.
_LONGEST = 2**28


class Held(NamedTuple):
    """What an object holds: ``X`` samples x features; a row a feature, a row a sample, as text; a tree, as Newick."""

    X: sparse.csr_matrix
    samples: list[str]
    features: list[str]
    taxonomy: pd.DataFrame | None = None
    metadata: pd.DataFrame | None = None
    tree: str | None = None


@functools.lru_cache(maxsize=1)  # a file that holds several tables is asked for each
def read(path: Path, data: bytes) -> Held | pd.DataFrame | None:
    """What an object of R or AnnData holds, or the table that R saved, as text; None if the file is none of these."""
    try:
        if data.startswith(_R):
            return _of_r(_parsed(data))
        return _of_anndata(data) if data.startswith(b"\x89HDF") else None
    except Exception as e:  # whatever a broken file makes the readers of R's and AnnData's formats raise
        raise StudyError.of("object", path, found=f"{type(e).__name__}: {e}"[:300]) from None


def _parsed(data: bytes) -> Any:
    """The R object in unpacked bytes, which may have been saved with its name."""
    helpers.unhide("xarray")  # which rdata needs
    from rdata import parser  # takes a second

    def short(expand: Any, state: Any) -> Any:
        if state.value[0] > _LONGEST:
            raise ValueError(f"a sequence of {state.value[0]:g} numbers")
        return expand(state)

    known: dict[bytes, Any] = dict(parser.DEFAULT_ALTREP_MAP)
    known |= {name: functools.partial(short, f) for name, f in known.items() if name.startswith(b"compact")}
    extension = None if data.startswith(b"RD") else ".rds"
    top = parser.parse_data(data, altrep_constructor_dict=known, extension=extension).object
    return next(iter(_slots(top).values())) if top.info.type.name == "LIST" else top


def _slots(thing: Any) -> dict[str, Any]:
    """Elements of a named list, and attributes, which the slots of S4 are; without the empty ones."""
    found, pairs = dict[str, Any](), thing if thing.info.type.name == "LIST" else thing.attributes
    while pairs is not None and pairs.info.type.name == "LIST":
        found[(pairs.tag.referenced_object or pairs.tag).value.value.decode()] = pairs.value[0]
        pairs = pairs.value[1]
    if thing.info.type.name == "VEC" and "names" in found:
        found = dict(zip(_texts(found["names"]), thing.value, strict=True)) | found
    return {name: slot for name, slot in found.items() if slot.info.type.name in {"VEC", "S4", *_VECTORS}}


def _slot(thing: Any, *path: str) -> Any:
    """What is found along a path of slots; None where there is nothing."""
    for name in path:
        thing = None if thing is None else _slots(thing).get(name)
    return thing


def _text(value: object) -> str:
    missing = value is None or (isinstance(value, float) and np.isnan(value))
    return "" if missing else f"{value:.15g}" if isinstance(value, float) else visible(str(value)).strip()


def _texts(vector: Any) -> list[str]:
    """A vector of R as text: factors by their levels, dates as such, "" where nothing is recorded."""
    values, about = vector.value, _slots(vector)
    if vector.info.type.name == "STR":  # each with a mark, if it is of Latin-1
        latin = ("cp1252" if s.info.gp & 4 else "utf-8" for s in values)
        return [_text((s.value or b"").decode(code, "replace")) for s, code in zip(values, latin, strict=True)]
    if "levels" in about:
        levels = ["", *_texts(about["levels"])]
        return [levels[int(code)] for code in np.ma.filled(values, 0)]
    kinds = _texts(about["class"]) if "class" in about else []
    if "Date" in kinds or "POSIXct" in kinds:
        values = pd.to_datetime(np.ma.filled(values.astype(float), np.nan), unit="D" if "Date" in kinds else "s")
        return ["" if pd.isna(time) else str(time) for time in values]
    return [_text(value) for value in values.tolist()]


def _matrix(thing: Any, *names: Any) -> tuple[tuple[int, int], list[str], list[str]]:
    """The size of a matrix, dense or of package Matrix, and its names, or those that stand elsewhere, or numbers."""
    about = {name.lower(): slot for name, slot in _slots(thing).items()}
    n, m = (int(i) for i in about["dim"].value)
    own = about["dimnames"].value if "dimnames" in about else names
    told = [_texts(o) if o is not None and o.info.type.name == "STR" else [] for o in (*own, *names)]
    rows, columns = (
        next((t for t in told[axis::2] if t), [str(i + 1) for i in range(size)]) for axis, size in enumerate((n, m))
    )
    return (n, m), rows, columns


def _numbers(thing: Any) -> sparse.csc_matrix:
    """The numbers of a matrix, dense or of package Matrix."""
    size, about = _matrix(thing)[0], _slots(thing)
    if {"i", "p", "x"} <= set(about):
        return sparse.csc_matrix(tuple(about[slot].value for slot in "xip"), shape=size)
    return sparse.csc_matrix(np.ma.filled(thing.value.astype(float), np.nan).reshape(size, order="F"))


def _frame(thing: Any) -> pd.DataFrame:
    """A data.frame, a DataFrame of Bioconductor, or a matrix, as text."""
    about = _slots(thing)
    if "dim" in about:
        size, rows, columns = _matrix(thing)
        return pd.DataFrame(np.array(_texts(thing), dtype=object).reshape(size, order="F"), rows, columns)
    held = about.get("listData", thing)
    each = zip(_texts(_slots(held)["names"]), held.value, strict=True)
    cells = {name: _texts(column) for name, column in each if column.info.type.name in _VECTORS}
    names = about.get("rownames", about.get("row.names"))
    named = names is not None and names.info.type.name == "STR"
    return pd.DataFrame(cells, _texts(names) if named else None, dtype=object).rename(index=str)


def _newick(phylo: Any) -> str | None:
    """A tree of package ape as Newick: its tips are numbered first, then the root."""
    if phylo is None:
        return None
    parts, below = _slots(phylo), dict[int, list[tuple[int, str]]]()
    tips, edges = _texts(parts["tip.label"]), parts["edge"].value.reshape(2, -1).T.tolist()
    lengths = [f":{n:.15g}" for n in parts["edge.length"].value] if "edge.length" in parts else [""] * len(edges)
    for (parent, child), length in zip(edges, lengths, strict=True):
        below.setdefault(parent, []).append((child, length))
    text, stack = list[str](), list[Any]([";", len(tips) + 1])
    while stack:
        if isinstance(part := stack.pop(), str):
            text.append(part)
        elif part <= len(tips):
            text.append("'" + tips[part - 1].replace("'", "''") + "'")
        else:
            inner = [piece for child, length in below.pop(part) for piece in (",", child, length)]
            stack += reversed(["(", *inner[1:], ")"])
    return "".join(text)


def _of_r(thing: Any) -> Held | pd.DataFrame:
    slots = _slots(thing)
    if "otu_table" in slots:
        table, tree = slots["otu_table"], slots.get("phy_tree")
        X, (_, rows, columns) = _numbers(table), _matrix(table)
        if not _slots(table)["taxa_are_rows"].value[0]:
            X, rows, columns = X.T, columns, rows
        taxa, swabs = (_frame(slots[name]) if name in slots else None for name in ("tax_table", "sam_data"))
        return Held(X.T.tocsr(), columns, rows, taxa, swabs, _newick(tree))
    if "assays" not in slots:
        return _frame(thing)
    # A SummarizedExperiment, or what is made of it: the assay ``counts``, else the first.
    assays = _slot(thing, "assays", "data", "listData")
    table, about = _slots(assays).get("counts", assays.value[0]), slots["colData"]
    names = slots.get("NAMES", _slot(thing, "rowRanges", "partitioning", "NAMES"))
    _, rows, columns = _matrix(table, names, _slot(about, "rownames"))
    taxa = _frame(_slot(thing, "rowRanges", "elementMetadata") or slots["elementMetadata"]).set_axis(rows)
    tree = slots["rowTree"].value[0] if _slot(thing, "rowTree", "names") else None
    return Held(_numbers(table).T.tocsr(), columns, rows, taxa, _frame(about).set_axis(columns), _newick(tree))


def size_of(file: h5py.File) -> int:
    """How many bytes the datasets of an HDF5 file have when they are read."""
    sizes = [0]
    file.visititems(lambda _, item: sizes.append(getattr(item, "nbytes", 0)))
    return sum(sizes)


def _of_anndata(data: bytes) -> Held | None:
    """The layer ``counts``, if there is one, else ``X``; ``obs`` are the samples, ``var`` the features."""
    try:
        file = h5py.File(io.BytesIO(data), "r")
    except OSError:
        return None
    with file:
        if not {"X", "obs", "var"} <= set(file):
            return None
        if (size := size_of(file)) > max(_LONGEST, 200 * len(data)):
            raise ValueError(f"{size / 2**20:,.0f} MB when unpacked")
        X = read_elem(file["layers/counts"] if "layers/counts" in file else file["X"])
        about = (read_elem(file[axis]).rename(index=str, columns=str).astype(object) for axis in ("obs", "var"))
        obs, var = (frame.map(lambda cell: "" if pd.isna(cell) else _text(cell)) for frame in about)
    return Held(sparse.csr_matrix(X), list(obs.index), list(var.index), var, obs)


@functools.lru_cache(maxsize=1)  # a draft reads the first, and names the others
def sheets(path: Path, data: bytes) -> dict[str, list[list[str]]]:
    """The sheets of a workbook that hold a table, as text, from the first row with two cells on; none if it is none."""
    from openpyxl import load_workbook  # takes a moment

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "xl/workbook.xml" not in archive.namelist():
                return {}
            if sum(member.file_size for member in archive.infolist()) > _LONGEST:
                raise ValueError(f"more than {_LONGEST / 2**20:,.0f} MB when unpacked")
        found, size = dict[str, list[list[str]]](), 0
        with warnings.catch_warnings(action="ignore"):  # of colours and lists to choose from, which are not read
            book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        for sheet in book.worksheets:
            rows = found[sheet.title] = list[list[str]]()
            sheet.reset_dimensions()  # what the file says of its size may be wrong
            for cells in sheet.iter_rows(values_only=True):
                if (size := size + len(cells) + 1) > _LONGEST // 16:
                    raise ValueError("a sheet of more than 16 million cells")
                row = [_text(cell) for cell in cells]
                if sum(map(bool, row)) > 1 or (rows and any(row)):
                    rows.append(row)
    except zipfile.BadZipFile:
        return {}
    except Exception as e:  # whatever a broken workbook makes openpyxl raise
        raise StudyError.of("workbook", path, found=f"{type(e).__name__}: {e}"[:300]) from None
    return {name: rows for name, rows in found.items() if len(rows) > 1}
