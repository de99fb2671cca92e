"""Whatever comes in, the outcome is a valid cohort, or a StudyError that says where, what and how to mend it.

`make test` generates a thousand cases, always the same; `make fuzz` CASES (50,000) others, at random.
"""

import functools
import gzip
import io
import json
import os
import re
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import biom
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import merged
from conftest import CASES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_containers import COLUMNS, ORACLE, h5ad, workbook
from test_ingest import COUNTS, LINEAGES, METADATA, STUDY, TREE, biom_table, hdf5, qza, study_in, tsv

from helpers import claims as claims_module
from helpers import ingest, quality
from helpers import tables as readers
from helpers.claims import load_claims, statement
from helpers.errors import StudyError, visible
from helpers.evidence import untestable
from helpers.study import load_study, read_yaml

pytestmark = pytest.mark.slow
#: Share of the cases that each test generates.
SHARES = {"study.yaml": 0.2, "metadata": 0.2, "people": 0.1, "counts": 0.25, "bytes": 0.25}
ALL_CASES = int(os.environ.get("FUZZ_CASES", "1000"))
FILES = {
    "counts": tsv(COUNTS),
    "metadata": tsv(METADATA, index=False),
    "taxonomy": tsv(pd.DataFrame({"Taxon": LINEAGES}).rename_axis("Feature ID")),
    "tree": TREE.encode(),
}
STUDY_WITH_TREE: dict[str, Any] = merged(STUDY, {"files": {"tree": {"path": "tree"}}})
RIGHT = yaml.safe_dump(STUDY_WITH_TREE, allow_unicode=True).encode()
#: The small cohort with a row a person, as lineages with what sums them up, as mothur writes it, and with ranks beside.
SWABS = METADATA.assign(own=[i % 2 for i in range(8)])
WIDE = SWABS[SWABS["own"] == 0].merge(SWABS[SWABS["own"] == 1], on="person", suffixes=("", "_3"))
VISITS = {"0": {"id": "id", "easi": "easi"}, "3": {"id": "id_3", "easi": "easi_3"}}
OF_PEOPLE = merged(STUDY_WITH_TREE, {
    "files": {"metadata": {"visits": VISITS}}, "columns": {"visit": {"column": "visit"}}
})  # fmt: skip
NESTED = COUNTS.T.set_axis([text.replace("; ", "|") for text in LINEAGES])
NESTED = pd.concat([NESTED, NESTED.sum().rename("k__Bacteria").to_frame().T, NESTED.sum().rename("Total").to_frame().T])
OTHER_COUNTS = {
    "plain": COUNTS.reset_index(names="swab"),
    "lineage": COUNTS.T.assign(taxonomy=LINEAGES).reset_index(names="#OTU ID"),
    "ranks": COUNTS.T.assign(Genus="Staphylococcus", Species="aureus", Confidence="1").reset_index(names="ASV"),
    "nested": NESTED.reset_index(names="clade_name"),
    "mothur": COUNTS.reset_index(names="Group").assign(numOtus=4, label="0.03").iloc[:, [-1, 0, -2, 1, 2, 3, 4]],
}
#: A study in one file.
HELD = yaml.safe_dump(
    {key: STUDY[key] for key in ("title", "simulated", "about", "source", "licence")}
    | {"files": {"counts": {"path": "counts"}}, "columns": COLUMNS, "minimum_depth": 1}
).encode()
CLAIM = {
    "says": "Under {treatment}, {pathogen} falls", "kind": "direction", "family": "own", "reported": "it fell",
    "parts": [
        {"measure": "pathogen", "contrast": "change_in", "arm": "treatment", "among": "lesional", "expect": "down"},
        {"measure": "Staphylococcus", "contrast": "group", "expect": "up"},
    ],
}  # fmt: skip
NASTY = [
    "", " ", "NA", "nan", "inf", "-inf", "-1", "1e400", "0x10", "1_000", "1,5", "١٢", "½", "True", "#NAME?", "# x",
    "S-1", "s-1", "S-1 ", "p1", "3", "0", "2021-03-04", "3-Mar", "1.2E+05", "=1+1", "@SUM(A1)", "<b>", "'", '"', '""',
    "{", "{}", "{treatment.__class__}", "{treatment!r:>9999999999}", "{{treatment}}", "A/b",
    "a\tb", "a\nb", "\u0000", "\u202e", "é", "\ufeff", "😀", "x" * 2000, "../..", "${HOME}", "%s", "{0}", "\\", ";",
]  # fmt: skip
cells = st.one_of(st.sampled_from(NASTY), st.text(max_size=8), st.floats().map(str), st.integers().map(str))


def generated(kind: str) -> Any:
    """Settings of a test that generates its share of the cases."""
    return settings(
        max_examples=round(ALL_CASES * SHARES[kind]), derandomize="FUZZ_CASES" not in os.environ, deadline=None,
        database=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _claims_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "read_yaml", functools.cache(read_yaml))


def outcome(kind: str, study: object, **files: bytes) -> None:
    """A valid cohort or a StudyError; fails on anything else."""
    text = study if isinstance(study, bytes) else yaml.safe_dump(study, allow_unicode=True).encode()
    CASES[kind, came_of(text, **files)] += 1


@functools.cache
def came_of(study: bytes, **files: bytes) -> str:
    """What came of a study's files: one case in six is generated twice, and has the outcome that it had."""
    with tempfile.TemporaryDirectory(prefix="study-") as name:
        folder = Path(name)
        for file, content in {**FILES, **files}.items():
            (folder / file).write_bytes(content)
        (folder / "study.yaml").write_bytes(study)
        before = sorted(p.name for p in folder.iterdir())
        try:
            loaded = load_study(folder)
            claims = load_claims(loaded)
            cohort, ledger = ingest.build_cohort(loaded)
        except StudyError as error:
            for single in error.each:
                told = str(single)
                assert name in told, f"names no file: {told}"
                assert "fix:" in told, f"says not how to mend it: {told}"
                assert "Traceback" not in told
                assert len(told) < 6000, f"is far too long: {told[:500]}"
            return "refused"
        finally:
            assert sorted(p.name for p in folder.iterdir()) == before, "something was written"
        assert cohort.n_obs
        assert cohort.n_vars
        assert ledger["swabs_after"].ge(0).all()
        assert np.isfinite(cohort.X.data).all()
        assert untestable(claims, cohort, loaded).keys() == claims.keys()
        assert max(len(statement(claim, loaded)) for claim in claims.values()) < 2000
        checks = quality.integrity_checks(cohort).set_index("check")["result"]
        must = checks[~checks.index.str.contains("Patients at baseline|value a subject")]
        assert set(must) == {"pass"}, must
        ingest.save_cohort(cohort, folder / "results")
        again, _ = ingest.load_cohort(folder / "results")
        assert list(again.obs_names) == list(cohort.obs_names)
        return "valid"


# ---------------------------------------------------------------- generated

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), cells, st.dates()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(cells, inner, max_size=3),
    max_leaves=4,
)


#: Values that are right in some places.
PLAUSIBLE = [
    0, 1, 50, 0.1, "auto", "round", "all", "text", "none", "yes", "age", "S-1", [], ["1"], {}, True, None,
    "shannon", "easi", "Cutibacterium acnes", "{case} skin", "change", "arms", "severity", "comparator", "up",
    "healthier", "not down", "no change", "non_responders", "primary",
]  # fmt: skip


def paths(content: object, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places in nested dicts and lists."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        inner = list(content.items())
    elif isinstance(content, list):
        inner = list(enumerate(content))
    return [above, *(path for key, value in inner for path in paths(value, (*above, key)))]


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """The small study with one or two of its keys changed, taken out or added."""
    more = {
        "settings": {"alpha": 0.05},
        "privacy": {},
        "adjust": {},
        "own_claims": {"X1": CLAIM},
        "claims": "hartmann2023",
    }
    content = json.loads(json.dumps(STUDY_WITH_TREE | more))
    for _ in range(draw(st.integers(1, 2))):
        *path, last = draw(st.sampled_from([p for p in paths(content) if p]))
        place = content
        for key in path:
            place = place[key]
        change = draw(st.sampled_from(["set", "remove", "add"]))
        if change == "set":
            place[last] = draw(st.sampled_from(PLAUSIBLE) | values)
        elif change == "remove":
            place.pop(last)
        elif isinstance(place, dict):
            place[draw(cells)] = draw(values)
    return content


@generated("study.yaml")
@given(studies())
def test_any_study_yaml(content: dict[str, Any]) -> None:
    outcome("study.yaml", content)


@st.composite
def tables(draw: st.DrawFn, table: pd.DataFrame, as_workbook: bool = False) -> bytes:
    """A table with cells, rows, columns, the delimiter and the encoding changed; or as a workbook of Excel."""
    rows = [list(map(str, table.columns)), *(list(map(str, row)) for row in table.to_numpy())]
    for _ in range(draw(st.integers(0, 2))):
        i, j = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, len(rows[0]) - 1))
        kind = draw(st.sampled_from(["cell", "cell", "cell", "drop row", "repeat row", "drop column", "short row"]))
        if kind == "cell":
            rows[i][min(j, len(rows[i]) - 1)] = draw(cells)
        elif kind == "drop row" and len(rows) > 1:
            del rows[i]
        elif kind == "repeat row":
            rows.insert(i, list(rows[i]))
        elif kind == "drop column" and min(map(len, rows)) > max(j, 1):
            for row in rows:
                del row[j]
        elif len(rows[i]) > 1:
            rows[i].pop()
    if as_workbook:
        shown = pd.DataFrame(rows).map(lambda cell: re.sub(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]", "", cell or ""))
        return workbook(swabs=shown[1:].set_axis(list(shown.iloc[0]), axis=1))
    delimiter = draw(st.sampled_from("\t,;"))
    buffer = io.StringIO()
    pd.DataFrame(rows).to_csv(buffer, sep=delimiter, header=False, index=False, quoting=draw(st.sampled_from([0, 1])))
    text = buffer.getvalue()
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])), "replace")


@generated("metadata")
@given(tables(METADATA) | tables(METADATA, as_workbook=True))
def test_any_metadata(content: bytes) -> None:
    outcome("metadata", RIGHT, metadata=content)


@generated("people")
@given(tables(WIDE), st.sampled_from([p for p in paths(VISITS) if p]), st.none() | st.sampled_from(list(WIDE)) | values)
def test_any_metadata_with_a_row_a_person(content: bytes, at: tuple[Any, ...], value: object) -> None:
    study = json.loads(json.dumps(OF_PEOPLE))
    *path, last = at
    place = study["files"]["metadata"]["visits"]
    for key in path:
        place = place[key]
    if value is not None:
        place[last] = value
    outcome("people", study, metadata=content)


@generated("counts")
@given(
    st.sampled_from(list(OTHER_COUNTS)).flatmap(lambda kind: st.tuples(st.just(kind), tables(OTHER_COUNTS[kind]))),
    st.sampled_from(["error", "round", "relative"]),
    st.booleans(),
)
def test_any_count_table(table: tuple[str, bytes], fractions: str, packed: bool) -> None:
    kind, content = table
    files: dict[str, Any] = {"counts": {"fractions": fractions}}
    if kind in ("lineage", "ranks", "nested"):
        files |= {"taxonomy": "feature_names" if kind == "nested" else "none", "tree": None}
    counts = gzip.compress(content) if packed else content
    outcome("counts", merged(STUDY_WITH_TREE, {"files": files}), counts=counts)


def unzipped(sheet: bytes = b"") -> bytes:
    """The sheet in the metadata's workbook; or the workbook, with another sheet."""
    packed, buffer = io.BytesIO(workbook(swabs=METADATA)), io.BytesIO()
    with zipfile.ZipFile(packed) as book, zipfile.ZipFile(buffer, "w") as other:
        content = {name: book.read(name) for name in book.namelist()}
        for name, data in content.items():
            other.writestr(name, sheet if name == SHEET else data)
    return buffer.getvalue() if sheet else content[SHEET]


SHEET = "xl/worksheets/sheet1.xml"
BINARY = {
    "counts": [
        hdf5(biom_table()),
        biom_table(True).to_json("x").encode(),
        qza("feature-table.biom", hdf5(biom_table())),
    ],
    "held": [
        h5ad(),
        *(readers.unpacked(f := ORACLE / name, f.read_bytes()) for name in ("phyloseq.rds", "experiment.rds")),
    ],
    "sheet": [unzipped()],
    "taxonomy": [FILES["taxonomy"], qza("taxonomy.tsv", FILES["taxonomy"])],
    "tree": [FILES["tree"], qza("tree.nwk", FILES["tree"])],
    "metadata": [FILES["metadata"], gzip.compress(FILES["metadata"])],
    "study.yaml": [RIGHT],
}


@generated("bytes")
@given(st.data())
def test_any_bytes(data: st.DataObject) -> None:
    """Files of every format with bytes changed, inserted and cut."""
    role = data.draw(st.sampled_from(list(BINARY)))
    content = bytearray(data.draw(st.sampled_from(BINARY[role])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        kind = data.draw(st.sampled_from(["change", "insert", "cut", "end"]))
        if kind == "change":
            content[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(max_size=6))
        elif kind == "cut":
            del content[at : at + data.draw(st.integers(1, 40))]
        else:
            del content[at:]
    if role == "study.yaml":
        outcome("bytes", bytes(content))
    elif role == "held":
        outcome("bytes", HELD, counts=bytes(content))
    elif role == "sheet":
        outcome("bytes", RIGHT, metadata=unzipped(bytes(content)))
    else:
        outcome("bytes", RIGHT, **{role: bytes(content)})


# ---------------------------------------------------------------- chosen


def refused(folder: Path, changes: dict[str, Any] | None = None, **files: bytes) -> str:
    with pytest.raises(StudyError) as caught:
        ingest.build_cohort(study_in(folder, changes, **files))
    return str(caught.value)


def archive(name: str, content: bytes = b"x", mode: int = 0) -> bytes:
    """A .qza with one member more than it should have."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        packed.writestr(member, content)
        packed.writestr("1ff1/data/feature-table.biom", hdf5(biom_table()))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "member",
    ["../../evil.txt", "/etc/evil", "1ff1/../../../evil", "C:\\evil", "..\\evil", "1ff1/data/link"],
)
def test_an_archive_that_reaches_out_of_its_folder_is_refused(tmp_path: Path, member: str) -> None:
    mode = stat.S_IFLNK | 0o777 if member.endswith("link") else 0
    told = refused(tmp_path, counts=archive(member, b"/etc/passwd", mode))
    assert "is not a safe archive" in told
    assert member in told
    assert {p.name for p in tmp_path.iterdir()} == {"counts", "metadata", "taxonomy", "study.yaml"}


def test_bombs_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    zeros = bytes(2**28 + 1)
    assert "suspiciously much" in refused(tmp_path, counts=gzip.compress(zeros, 1))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("1ff1/data/feature-table.biom", zeros)
    assert "suspiciously much" in refused(tmp_path, counts=buffer.getvalue())
    with h5py.File(buffer := io.BytesIO(), "w") as file:  # 8 TB of zeros that were never written
        file.create_dataset("sample/matrix/data", shape=(2**40,), dtype=float, chunks=(1024,))
    assert "suspiciously much" in refused(tmp_path, counts=buffer.getvalue())
    with h5py.File(buffer := io.BytesIO(hdf5(biom_table())), "r+") as file:
        file.attrs["shape"] = [2**40, 8]
    assert "suspiciously much" in refused(tmp_path, counts=buffer.getvalue())
    table = json.loads(biom_table().to_json("x"))
    assert "suspiciously much" in refused(tmp_path, counts=json.dumps(table | {"shape": [10**12, 8]}).encode())


PAIRS = zip("abcdefgh", "bcdefghi", strict=True)
BILLION = "a: &a [x, x, x]\n" + "".join(f"{y}: &{y} [*{x}, *{x}, *{x}]\n" for x, y in PAIRS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: !!python/object/apply:os.system ['touch evil']", "python/object/apply"),
        ("title: !!python/name:os.system", "python/name"),
        (BILLION, "aliases (*name) are not accepted"),
        ("[" * 20_000, "is not valid YAML"),
        ("title: a\ntitle: b", "title is given twice"),
        ('title: "a\\0b"', "control characters"),
        ('title: "\\ud800"', "control characters"),
        ("title: 2021-13-45", "is not valid YAML"),
        ("minimum_depth: 0x" + "f" * 6000, "minimum_depth"),
    ],
    ids=["object", "name", "billion laughs", "deep", "key twice", "null byte", "surrogate", "date", "huge number"],
)
def test_yaml_that_builds_or_blows_up_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(StudyError) as caught:
        load_study(tmp_path)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert [p.name for p in tmp_path.iterdir()] == ["study.yaml"]


def test_what_is_no_file_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "/dev/zero", "."):
        assert "is not a file" in refused(tmp_path, {"files": {"metadata": {"path": path}}})


#: What turns the direction of writing.
TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ESCAPED = "".join(f"\\u{ord(c):04x}" for c in TURNING)


def turned(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return table.assign(**{c: [f"{v}{TURNING}" if v else v for v in table[c]] for c in columns})


@pytest.mark.parametrize("kind", ["text", "json", "hdf5"])
def test_what_turns_the_direction_of_writing_is_shown_as_escapes(tmp_path: Path, kind: str) -> None:
    metadata = turned(METADATA.assign(sex="x"), "id", "person", "status", "sex")
    metadata = metadata.rename(columns={"sex": f"sex{TURNING}"})
    counts = COUNTS.rename(index=lambda name: name + TURNING, columns=lambda name: name + TURNING)
    taxa = pd.DataFrame({"Taxon": LINEAGES.str.replace("occus;", f"occus{TURNING};").to_numpy()}, index=counts.columns)
    notes = [{"taxonomy": lineage} for lineage in taxa["Taxon"]]
    table = biom.Table(counts.to_numpy(float).T, list(counts.columns), list(counts.index), notes)
    content = {"text": tsv(counts), "json": table.to_json("x").encode(), "hdf5": hdf5(table)}[kind]
    groups = {"control": f"healthy{TURNING}", "case": [f"AD{TURNING}"]}
    changes = {
        "columns": {"group": {"values": groups}, "sex": f"sex{TURNING}"},
        "labels": {"case": f"AD{TURNING[-2:]}"},
        "own_claims": {"X1": CLAIM | {"says": f"S. aureus{TURNING} falls"}},
    }
    study = study_in(
        tmp_path, changes, counts=content, metadata=tsv(metadata, index=False),
        taxonomy=tsv(taxa.rename_axis("Feature ID")),
    )  # fmt: skip
    assert load_claims(study)["X1"].says == f"S. aureus{ESCAPED} falls"
    assert study.labels.case == f"AD{ESCAPED[-12:]}"
    cohort, _ = ingest.build_cohort(study)
    shown = [*cohort.obs_names, *cohort.var_names, *cohort.obs["subject"], *cohort.obs["sex"]]
    shown += [genus for genus in cohort.var["genus"] if genus]
    assert [text for text in shown if not text.endswith(ESCAPED)] == []
    told = cohort.obs.to_csv() + cohort.var.to_csv() + cohort.uns["study"] + study.model_dump_json()
    assert not set(told) & set(TURNING)
    for wrong in (
        {"metadata": tsv(metadata.drop(index=0), index=False)},
        {"metadata": tsv(metadata.assign(easi=TURNING), index=False)},
        {"taxonomy": tsv(taxa.iloc[1:])},
        {"tree": TURNING.encode()},
    ):
        extra = {"files": {"tree": {"path": "tree"}}} if "tree" in wrong else {}
        with pytest.raises(StudyError) as caught:
            ingest.build_cohort(study_in(tmp_path, changes | extra, **{"counts": content} | wrong))
        assert not set(str(caught.value)) & set(TURNING)


def test_a_message_never_turns_the_direction_of_writing() -> None:
    assert str(StudyError(TURNING, file=TURNING, found=TURNING)) == f"{ESCAPED}: {ESCAPED}\n  found:    {ESCAPED}"
    assert visible("Ünïcödé \u05d0\u0627 \u200b\u200d 😀\\u202e") == "Ünïcödé \u05d0\u0627 \u200b\u200d 😀\\u202e"


def test_huge_cells_are_named_briefly(tmp_path: Path) -> None:
    told = refused(tmp_path, metadata=tsv(METADATA.assign(month="x" * 200_000), index=False))
    assert "not closed" in told
    told = refused(tmp_path, metadata=tsv(METADATA.assign(easi="9" * 100_000), index=False))
    assert len(told) < 2000
