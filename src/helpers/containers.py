"""Objects that hold a study's tables together: R's phyloseq and TreeSummarizedExperiment (without R), and AnnData."""

import functools
import io
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse

from helpers.errors import StudyError, visible

#: How R's serialisations begin, unpacked: binary as R writes it, as text, and what `save` puts before them.
_R = (b"X\n\x00", b"A\n2\n", b"A\n3\n", b"RDX2\n", b"RDX3\n", b"RDA2\n", b"RDA3\n")
#: What of R is a column of a table.
_VECTORS = {"STR", "INT", "REAL", "LGL"}
#: The most numbers that a sequence may stand for which R wrote as its ends.
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
        found, fix = f"{type(e).__name__}: {e}"[:300], "write the object itself by saveRDS or write_h5ad, or its tables"
        expected = "a phyloseq or TreeSummarizedExperiment, a data.frame or a matrix of R, or an AnnData"
        raise StudyError("is not readable", file=path, found=found, expected=f"{expected}", fix=fix) from None


# ---------------------------------------------------------------- R


def _parsed(data: bytes) -> Any:
    """The R object in unpacked bytes; of several that were saved together, the only one that there may be."""
    from rdata import parser  # takes a second

    def short(expand: Any, state: Any) -> Any:
        if state.value[0] > _LONGEST:
            raise ValueError(f"a sequence of {state.value[0]:g} numbers")
        return expand(state)

    known = {
        n: functools.partial(short, f) if n.startswith(b"compact") else f for n, f in parser.DEFAULT_ALTREP_MAP.items()
    }
    extension = None if data.startswith(b"RD") else ".rds"
    top = parser.parse_data(data, altrep_constructor_dict=known, extension=extension).object
    if top.info.type.name != "LIST":
        return top
    (only,) = _pairs(top).values()
    return only


def _pairs(pairs: Any) -> dict[str, Any]:
    """A pairlist, such as the attributes of an object, which the slots of S4 are."""
    found = {}
    while pairs is not None and pairs.info.type.name == "LIST":
        name = pairs.tag.referenced_object or pairs.tag
        found[name.value.value.decode()] = pairs.value[0]
        pairs = pairs.value[1]
    return found


def _slot(thing: Any, *path: str) -> Any:
    """What is found along a path of attributes and elements of lists; None where there is nothing."""
    for name in path:
        thing = {**_list(thing), **_pairs(thing.attributes)}.get(name) if _filled(thing) else None
    return thing if _filled(thing) else None


def _filled(thing: Any) -> bool:
    """Whether there is something: R writes a symbol for an empty slot."""
    return thing is not None and thing.info.type.name in {"VEC", "S4", *_VECTORS}


def _list(thing: Any) -> dict[str, Any]:
    names = _pairs(thing.attributes).get("names") if thing.info.type.name == "VEC" else None
    return dict(zip(_texts(names), thing.value, strict=True)) if names is not None else {}


def _text(value: object) -> str:
    if value is None or value is np.ma.masked or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, bytes):
        try:
            return visible(value.decode()).strip()
        except UnicodeDecodeError:
            return visible(value.decode("cp1252", "replace")).strip()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _texts(vector: Any) -> list[str]:
    """A vector of R as text: factors by their levels, dates as such, "" where nothing is recorded."""
    about, values = _pairs(vector.attributes), vector.value
    if vector.info.type.name == "STR":
        return [_text(string.value) for string in values]
    kind = _texts(about["class"]) if "class" in about else []
    if "levels" in about:
        levels = ["", *_texts(about["levels"])]
        return [levels[int(code)] for code in np.ma.filled(values, 0)]
    if {"Date", "POSIXct"} & set(kind):
        times = pd.to_datetime(np.ma.filled(values.astype(float), np.nan), unit="D" if "Date" in kind else "s")
        return ["" if pd.isna(time) else time.isoformat() for time in times]
    return [_text(value) for value in values.tolist()]


def _names(names: Any, n: int) -> list[str]:
    """Names, or numbers where R has none: then it notes how many there are."""
    told = _texts(names) if names is not None and names.info.type.name == "STR" else []
    return told if len(told) == n else [str(i + 1) for i in range(n)]


def _dimensions(matrix: Any, rows: Any = None, columns: Any = None) -> tuple[tuple[int, int], list[str], list[str]]:
    """The size of a matrix, dense or of package Matrix, and its names, which may stand elsewhere."""
    about = _pairs(matrix.attributes)
    n, m = (int(i) for i in about["dim" if "dim" in about else "Dim"].value)
    own = about.get("dimnames", about.get("Dimnames"))
    own_rows, own_columns = (
        (each if each.info.type.name == "STR" else None for each in own.value) if own else (None,) * 2
    )
    return (n, m), _names(own_rows or rows, n), _names(own_columns or columns, m)


def _numbers(matrix: Any) -> sparse.csc_matrix:
    """The numbers of a matrix, dense or of package Matrix."""
    (n, m), *_ = _dimensions(matrix)
    about = _pairs(matrix.attributes)
    if {"i", "p", "x"} <= set(about):
        return sparse.csc_matrix(tuple(about[slot].value for slot in "xip"), shape=(n, m))
    return sparse.csc_matrix(np.ma.filled(matrix.value.astype(float), np.nan).reshape((n, m), order="F"))


def _frame(thing: Any) -> pd.DataFrame:
    """A data.frame, a DataFrame of Bioconductor, or a matrix, as text."""
    about = _pairs(thing.attributes)
    if "dim" in about:
        size, rows, columns = _dimensions(thing)
        return pd.DataFrame(np.array(_texts(thing), dtype=object).reshape(size, order="F"), rows, columns)
    each = _list(about["listData"]) if "listData" in about else _list(thing)
    cells = {name: _texts(column) for name, column in each.items() if column.info.type.name in _VECTORS}
    names = about.get("rownames", about.get("row.names"))
    n = int(about["nrows"].value[0]) if "nrows" in about else max(map(len, cells.values()), default=0)
    return pd.DataFrame(cells, index=_names(names, n), dtype=object)


def _newick(phylo: Any) -> str | None:
    """A tree of package ape as Newick."""
    if phylo is None or "edge" not in (parts := _list(phylo)):
        return None
    tips, above = _texts(parts["tip.label"]), dict[int, int]()
    edge = np.asarray(parts["edge"].value).reshape(-1, 2, order="F").tolist()
    lengths = parts["edge.length"].value.tolist() if "edge.length" in parts else [None] * len(edge)
    below: dict[int, list[int]] = {}
    for parent, child in edge:
        below.setdefault(parent, []).append(child)
        above[child] = parent
    root = next(iter(below.keys() - above.keys()))
    to = {child: "" if length is None else f":{length:.15g}" for (_, child), length in zip(edge, lengths, strict=True)}
    written, order, stack = dict[int, str](), list[int](), [root]
    while stack:
        order.append(node := stack.pop())
        stack += below.get(node, ())
    for node in reversed(order):  # children before their parents
        inner = ",".join(written.pop(child) for child in below.get(node, ()))
        name = "'" + tips[node - 1].replace("'", "''") + "'" if node <= len(tips) else f"({inner})"
        written[node] = name + to.get(node, "")
    return written[root] + ";"


def _of_r(thing: Any) -> Held | pd.DataFrame:
    slots = _pairs(thing.attributes)
    if "otu_table" in slots:
        table, tree = slots["otu_table"], slots.get("phy_tree")
        X, (_, rows, columns) = _numbers(table), _dimensions(table)
        if not _pairs(table.attributes)["taxa_are_rows"].value[0]:
            X, rows, columns = X.T, columns, rows
        taxa, swabs = (_frame(slots[name]) if _filled(slots.get(name)) else None for name in ("tax_table", "sam_data"))
        return Held(X.T.tocsr(), columns, rows, taxa, swabs, _newick(tree))
    if "assays" not in slots:
        return _frame(thing)
    # A SummarizedExperiment, or what is made of it: the assay ``counts``, else the first.
    assays = _list(_slot(thing, "assays", "data", "listData"))
    table = assays.get("counts", next(iter(assays.values())))
    names = slots["NAMES"] if _filled(slots.get("NAMES")) else _slot(thing, "rowRanges", "partitioning", "NAMES")
    _, rows, columns = _dimensions(table, names, _slot(thing, "colData", "rownames"))
    described = _slot(thing, "rowRanges", "elementMetadata") or slots["elementMetadata"]
    taxa, swabs = _frame(described).set_axis(rows), _frame(slots["colData"]).set_axis(columns)
    trees = _list(slots["rowTree"]) if "rowTree" in slots else {}
    return Held(_numbers(table).T.tocsr(), columns, rows, taxa, swabs, _newick(next(iter(trees.values()), None)))


# ---------------------------------------------------------------- AnnData


def _of_anndata(data: bytes) -> Held | None:
    """The layer ``counts``, if there is one, else ``X``; ``obs`` are the samples, ``var`` the features."""
    try:
        file = h5py.File(io.BytesIO(data), "r")
    except OSError:
        return None
    with file:
        if not {"X", "obs", "var"} <= set(file):
            return None
        sizes: list[int] = []
        file.visititems(lambda _, item: sizes.append(getattr(item, "nbytes", 0)))
        if sum(sizes) > max(_LONGEST, 200 * len(data)):
            raise ValueError(f"{sum(sizes) / 2**20:,.0f} MB when unpacked")
        X = read_elem(file["layers/counts"] if "layers/counts" in file else file["X"])
        obs, var = (_as_text(read_elem(file[axis])) for axis in ("obs", "var"))
    return Held(sparse.csr_matrix(X), list(obs.index), list(var.index), var, obs)


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    cells = {str(name): ["" if pd.isna(v) else _text(v) for v in column.tolist()] for name, column in frame.items()}
    return pd.DataFrame(cells, [visible(str(name)).strip() for name in frame.index], dtype=object)
