import io
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse
from skbio import TreeNode

from helpers import containers, ingest, tables
from helpers.errors import StudyError
from helpers.intake import draft
from helpers.study import Study, load_study

ORACLE = Path(__file__).parent / "oracle"
OBJECTS = ["phyloseq.rds", "phyloseq.rda", "experiment.rds"]
FEATURES = pd.read_csv(ORACLE / "counts.tsv", sep="\t", index_col=0).iloc[:8, :12]
SWABS = pd.read_csv(ORACLE / "metadata.tsv", sep="\t", dtype=str, keep_default_na=False, index_col=0).iloc[:8]
TREE = TreeNode.read(str(ORACLE / "tree.nwk"), convert_underscores=False).shear(list(FEATURES))
COLUMNS = {
    "sample": "row names",
    "subject": "subject",
    "group": {"column": "group", "values": {"control": ["control"], "case": ["case"]}},
    "visit": {"column": "visit", "values": {"baseline": ["baseline"], "followup": ["followup"]}},
    "age": "age",
    "sex": "sex",
}


def study_of(folder: Path, counts: str, data: bytes, **more: Any) -> Study:
    """A study with all in one file."""
    folder.mkdir(exist_ok=True)
    (folder / counts).write_bytes(data)
    about = dict.fromkeys(("title", "about", "source", "licence"), "a test")
    content = about | {"simulated": True, "files": {"counts": {"path": counts}}, "columns": COLUMNS, "minimum_depth": 1}
    (folder / "study.yaml").write_text(yaml.safe_dump(content | more))
    return load_study(folder)


def of_oracle(folder: Path, name: str, **more: Any) -> Study:
    return study_of(folder, name, (ORACLE / name).read_bytes(), **more)


def in_files(folder: Path) -> Study:
    """The same study, as files of text."""
    ranks = pd.DataFrame({"Kingdom": "Bacteria", "Genus": ["Staphylococcus", ""] * 6}, FEATURES.columns)
    ranks["Species"] = ["aureus", "", "hominis"] * 4
    folder.mkdir(exist_ok=True)
    SWABS.rename_axis("swab").to_csv(folder / "metadata", sep="\t")
    ranks.to_csv(folder / "taxonomy", sep="\t")
    (folder / "tree").write_text(str(TREE))
    files = {role: {"path": role} for role in ("counts", "metadata", "taxonomy", "tree")}
    columns = COLUMNS | {"sample": "swab"}
    return study_of(folder, "counts", FEATURES.to_csv(sep="\t").encode(), files=files, columns=columns)


def same(cohort: ad.AnnData, other: ad.AnnData) -> None:
    assert (cohort[other.obs_names, other.var_names].X != other.X).nnz == 0
    pd.testing.assert_frame_equal(cohort.obs.loc[other.obs_names], other.obs)
    pd.testing.assert_frame_equal(cohort.var.loc[other.var_names], other.var)


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_of_r_alone_is_the_study_that_its_tables_are(tmp_path: Path, name: str) -> None:
    expected, _ = ingest.build_cohort(in_files(tmp_path / "text"))
    cohort, ledger = ingest.build_cohort(of_oracle(tmp_path / "object", name))
    assert set(cohort.obs_names) == set(expected.obs_names)
    assert set(expected.var["species"]) == {"Staphylococcus aureus", "Staphylococcus hominis", ""}
    same(cohort, expected)
    assert ledger["swabs_after"].sum() > 0
    tree, other = (TreeNode.read([c.uns["tree"]]).cophenet() for c in (cohort, expected))
    np.testing.assert_allclose(tree.filter(other.ids).data, other.data, atol=1e-12)


def test_an_object_of_r_is_read_by_a_step_which_imports_little() -> None:
    code = "import sys; from pathlib import Path; from helpers import containers, tables; path = Path(sys.argv[1]); "
    code += "print(len(containers.read(path, tables.unpacked(path, path.read_bytes())).samples))"
    done = subprocess.run([sys.executable, "-c", code, str(ORACLE / "phyloseq.rds")], capture_output=True, text=True)
    assert done.stdout == "8\n", done.stderr


@pytest.mark.parametrize("name", OBJECTS)
def test_cells_of_r_are_text_as_a_file_has_them(name: str) -> None:
    held = containers.read(ORACLE / name, tables.unpacked(ORACLE / name, (ORACLE / name).read_bytes()))
    assert isinstance(held, containers.Held)
    assert held.metadata is not None
    columns = ["subject", "visit", "group", "arm", "age", "sex", "batch", "easi"]
    pd.testing.assert_frame_equal(
        held.metadata[columns], SWABS[columns].replace("NA", ""), check_names=False, check_index_type=False
    )
    assert held.metadata["smoker"].tolist() == ["True", "False", "", "True", "False", "", "True", "False"]


def test_a_matrix_of_r_is_a_count_table_and_an_object_beside_it_the_metadata(tmp_path: Path) -> None:
    study = of_oracle(tmp_path, "phyloseq.rds")
    (tmp_path / "seqtab.rds").write_bytes((ORACLE / "seqtab.rds").read_bytes())
    files = {"counts": {"path": "seqtab.rds"}, "metadata": {"path": "phyloseq.rds"}}
    cohort, _ = ingest.build_cohort(of_oracle(tmp_path, "phyloseq.rds", files=files))
    expected, _ = ingest.build_cohort(study)
    assert (cohort.X != expected[cohort.obs_names, cohort.var_names].X).nnz == 0
    assert "tree" not in cohort.uns


def test_dates_of_r_are_dates(tmp_path: Path) -> None:
    study = of_oracle(tmp_path, "phyloseq.rds", columns=COLUMNS | {"batch": "taken"})
    with pytest.raises(StudyError, match="has dates, which a report must not show"):
        ingest.build_cohort(study)


def h5ad(**more: Any) -> bytes:
    obs = SWABS.rename_axis(None).assign(age=SWABS["age"].astype(float), sex=SWABS["sex"].astype("category"))
    var = pd.DataFrame({"Genus": pd.Categorical(["Staphylococcus", None] * 6), "Species": "hominis"}, FEATURES.columns)
    cohort = ad.AnnData(sparse.csr_matrix(FEATURES.to_numpy(float)), obs, var)
    cohort.layers.update({name: np.asarray(layer) for name, layer in more.items()})
    file = io.BytesIO()
    with h5py.File(file, "w") as group:
        ad.io.write_elem(group, "/", cohort)
    return file.getvalue()


def test_anndata_alone_is_a_study(tmp_path: Path) -> None:
    cohort, _ = ingest.build_cohort(study_of(tmp_path, "cohort.h5ad", h5ad()))
    expected, _ = ingest.build_cohort(in_files(tmp_path / "text"))
    assert (cohort.X != expected[cohort.obs_names, cohort.var_names].X).nnz == 0
    pd.testing.assert_frame_equal(cohort.obs, expected.obs.loc[cohort.obs_names])
    assert cohort.var["species"].eq("Staphylococcus hominis").tolist() == cohort.var["genus"].ne("").tolist()


def test_counts_of_anndata_are_its_layer_of_counts(tmp_path: Path) -> None:
    cohort, _ = ingest.build_cohort(study_of(tmp_path, "cohort.h5ad", h5ad(counts=FEATURES * 3)))
    assert cohort.X.sum() == 3 * FEATURES.to_numpy().sum()


def refused(study: Study) -> str:
    with pytest.raises(StudyError) as error:
        ingest.build_cohort(study)
    return str(error.value)


def test_a_table_without_metadata_says_what_to_give(tmp_path: Path) -> None:
    told = refused(study_of(tmp_path, "counts.tsv", FEATURES.to_csv(sep="\t").encode()))
    assert "counts.tsv: has no metadata" in told
    assert "fix:      give files.metadata" in told


SERIAL = b"X\n" + struct.pack(">iiii", 3, 0x40202, 0x30500, 5) + b"UTF-8"


def sequence(n: float) -> bytes:
    """1 to n as R notes it: three numbers."""
    symbol = struct.pack(">iiii", 2, 1, 9, 14) + b"compact_intseq"
    return SERIAL + struct.pack(">i", 238) + symbol + struct.pack(">i", 254) * 1 + struct.pack(">iiddd", 14, 3, n, 1, 1)


@pytest.mark.parametrize(
    "data",
    [
        SERIAL,
        SERIAL + b"\0" * 40,
        sequence(1e12),
        (ORACLE / "seqtab.rds").read_bytes()[:100],
        b"RDX3\nX\n" + SERIAL[2:],
    ],
    ids=["nothing", "zeros", "a sequence of 10^12", "cut", "no object"],
)
def test_what_is_no_object_is_refused(tmp_path: Path, data: bytes) -> None:
    assert re.search("counts.rds: is not a? ?readable", refused(study_of(tmp_path, "counts.rds", data)))


def test_a_draft_needs_no_metadata_beside_an_object_that_has_them(tmp_path: Path) -> None:
    draft.draft_study("mine", ORACLE / "phyloseq.rds", data_folder=tmp_path)
    study = load_study(tmp_path / "mine")
    assert set(study.files.each()) == {"counts"}
    assert (study.columns.sample, study.columns.subject, study.columns.age) == ("row names", "subject", "age")
    cohort, _ = ingest.build_cohort(study.model_copy(update={"minimum_depth": 1}))
    assert "tree" in cohort.uns
    (tmp_path / "counts.tsv").write_text(FEATURES.to_csv(sep="\t"))
    with pytest.raises(StudyError, match=r"has no metadata\n.*METADATA="):
        draft.draft_study("other", tmp_path / "counts.tsv", data_folder=tmp_path)


# ---------------------------------------------------------------- workbooks


def workbook(**sheets: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    with pd.ExcelWriter(file) as writer:
        for name, sheet in sheets.items():
            sheet.to_excel(writer, sheet_name=name, index=False)
    return file.getvalue()


def test_workbooks_are_read_as_the_text_that_they_show(tmp_path: Path) -> None:
    expected, _ = ingest.build_cohort(study := in_files(tmp_path / "text"))
    for file in study.files.each().values():
        path = study.path(file)
        if file.path != "tree":
            table = pd.read_csv(path, sep="\t", dtype={"swab": str}, keep_default_na=False)
            path.write_bytes(workbook(Sheet1=table.rename(columns={"Unnamed: 0": "feature"})))
    cohort, _ = ingest.build_cohort(study)
    same(cohort, expected)


def test_a_title_above_the_header_and_empty_sheets_are_passed_over(tmp_path: Path) -> None:
    study = in_files(tmp_path)
    expected, _ = ingest.build_cohort(study)
    table = SWABS.rename_axis("swab").reset_index()
    titled = pd.DataFrame([["Swabs of the study"], [], list(table.columns), *table.to_numpy().tolist()])
    path = tmp_path / "metadata"
    with pd.ExcelWriter(path, engine="openpyxl") as writer:
        pd.DataFrame().to_excel(writer, sheet_name="empty")
        titled.to_excel(writer, sheet_name="swabs", index=False, header=False)
        pd.DataFrame({"column": ["age"], "means": ["years"]}).to_excel(writer, sheet_name="legend", index=False)
    same(ingest.build_cohort(study)[0], expected)
    assert list(containers.sheets(path, path.read_bytes())) == ["swabs", "legend"]


def test_dates_that_a_workbook_made_of_identifiers_are_seen(tmp_path: Path) -> None:
    study = in_files(tmp_path)
    table = SWABS.rename_axis("swab").reset_index()
    table["swab"] = pd.to_datetime(["2021-03-04", *["2021-03-05"] * 7]) + pd.to_timedelta(range(8), "D")
    (tmp_path / "metadata").write_bytes(workbook(swabs=table))
    assert re.search("a spreadsheet seems to have changed .*2021-03-0. 00:00:00", refused(study))


def test_a_workbook_that_is_none_or_far_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = in_files(tmp_path)
    data = workbook(swabs=SWABS.reset_index())
    (tmp_path / "metadata").write_bytes(data[:200] + b"?" * 40 + data[240:])
    assert "metadata: is not a readable workbook" in refused(study)
    (tmp_path / "metadata").write_bytes(data)
    monkeypatch.setattr(containers, "_LONGEST", 1000)
    assert "when unpacked" in refused(study)
