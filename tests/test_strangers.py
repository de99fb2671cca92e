"""Cohorts as strangers have them, drafted and checked as they come: how many need an edit, and whether all are right.

One cohort, in 31 shapes. Its truth is known: who each swab is of, when, on what, how ill, how old, and its *S. aureus*.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import anndata as ad
import biom
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import merged
from test_containers import workbook
from test_ingest import hdf5, qza

from helpers.errors import StudyError
from helpers.ingest import build_cohort
from helpers.intake import draft, inspection
from helpers.study import load_study

LINEAGES = {
    "a1": "k__Bacteria;p__Bacillota;c__Bacilli;o__Bacillales;f__Staphylococcaceae;g__Staphylococcus;s__aureus",
    "a2": "k__Bacteria;p__Bacillota;c__Bacilli;o__Bacillales;f__Staphylococcaceae;g__Staphylococcus;s__hominis",
    "a3": "k__Bacteria;p__Actinomycetota;c__Actinomycetes;o__Propionibacteriales;f__Propionibacteriaceae;"
    "g__Cutibacterium;s__acnes",
    "a4": "k__Bacteria;p__Bacillota;c__Bacilli;o__Lactobacillales;f__Streptococcaceae;g__Streptococcus;s__",
    "a5": "k__Bacteria;p__Actinomycetota;c__Actinomycetes;o__Mycobacteriales;f__Corynebacteriaceae;"
    "g__Corynebacterium;s__",
}
RANKS = ["Kingdom", "Phylum", "Class", "Order", "Family", "Genus", "Species"]


def truth() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reads (features in rows), and a row a swab: 20 patients in two arms at two visits, eight controls once."""
    rng = np.random.default_rng(15)
    rows, reads = [], []
    for i in range(28):
        case, drug = i < 20, i % 2 == 0
        severity = rng.integers(15, 40)
        for week in (0, 12) if case else (0,):
            better = week and (0.3 if drug else 0.8)
            easi = round(severity * (better or 1), 1) if case else np.nan
            aureus = 0.02 if not case else 0.25 * (better or 1)
            shares = np.array([aureus, 0.2, 0.3, 0.1, 0.4 - aureus])
            reads.append(
                rng.multinomial(rng.integers(3000, 9000), shares * (w := rng.uniform(0.7, 1.3, 5)) / (shares @ w))
            )
            who = ("dupilumab" if drug else "placebo") if case else "healthy"
            rows.append(
                {"SampleID": f"S{i:02}-{week}", "PatientID": f"P{i:02}", "Diagnosis": "AD" if case else "healthy",
                 "Treatment": who if case else "", "Timepoint": f"week {week}", "Age": str(20 + i),
                 "Sex": "FM"[i % 3 > 0], "EASI": f"{easi:g}" if case else ""}
            )  # fmt: skip
    metadata = pd.DataFrame(rows)
    return pd.DataFrame(np.array(reads).T, list(LINEAGES), list(metadata["SampleID"])), metadata


COUNTS, METADATA = truth()
TAXA = pd.DataFrame({"Feature ID": LINEAGES.keys(), "Taxon": LINEAGES.values(), "Confidence": "0.99"})
BY_RANK = pd.DataFrame([[p[3:] for p in text.split(";")] for text in LINEAGES.values()], list(LINEAGES), RANKS)
NAMED = COUNTS.set_axis(list(LINEAGES.values()))


def tsv(table: pd.DataFrame, index: str = "#OTU ID", **how: Any) -> bytes:
    return table.to_csv(**({"sep": "\t", "index_label": index} | how)).encode()


def rows(table: pd.DataFrame = METADATA, **how: Any) -> bytes:
    text: str = table.to_csv(**({"sep": "\t", "index": False} | how))
    return text.encode(how.get("encoding", "utf-8"))


class Cohort(NamedTuple):
    """Files as they come, and what is to be edited or mended in them, by what is said; who is compared."""

    files: Mapping[str, bytes]
    edits: Mapping[str, Any] = MappingProxyType({})
    said: str = ""
    mended: Mapping[str, bytes] = MappingProxyType({})
    whole: pd.DataFrame = METADATA


def plain(metadata: bytes = rows(), counts: bytes = tsv(NAMED), **more: Any) -> Cohort:
    return Cohort({"counts.tsv": counts, "metadata.tsv": metadata}, **more)


def with_ranks() -> pd.DataFrame:
    """A row for each rank of each lineage, which sums up those below it."""
    every = pd.DataFrame(0, [], NAMED.columns)
    for lineage, reads in NAMED.iterrows():
        parts = [p for p in str(lineage).split(";") if not p.endswith("__")]
        for n in range(1, len(parts) + 1):
            name = "|".join(parts[:n])
            every.loc[name] = reads + (every.loc[name] if name in every.index else 0)
    return every


def ampliseq() -> Cohort:
    tax = BY_RANK.rename(columns={"Kingdom": "Domain"}).assign(confidence="1", sequence="ACGT")
    files = {
        "r/dada2/ASV_table.tsv": tsv(COUNTS, "ASV_ID"), "r/dada2/ASV_tax_species.silva_138.tsv": tsv(tax, "ASV_ID"),
        "r/dada2/ASV_tax.silva_138.tsv": tsv(tax.drop(columns="Species"), "ASV_ID"), "r/dada2/stats.tsv": b"x\ty\n",
        "r/input/Metadata.tsv": rows(METADATA.rename(columns={"SampleID": "ID"})), "r/multiqc/multiqc_report.html": b"",
    }  # fmt: skip
    return Cohort(files)


def exported() -> Cohort:
    types = "\t".join(["#q2:types", *["categorical"] * 4, "numeric", "categorical", "numeric"])
    metadata = rows(METADATA.rename(columns={"SampleID": "sample-id"})).replace(b"\n", f"\n{types}\n".encode(), 1)
    table = hdf5(biom.Table(COUNTS.to_numpy(), list(COUNTS.index), list(COUNTS)))
    files = {"r/feature-table.biom": table, "r/taxonomy.tsv": rows(TAXA), "r/sample-metadata.tsv": metadata}
    return Cohort(files | {"r/tree.nwk": b"((a1:1,a2:1):1,(a3:1,(a4:1,a5:1):1):1);"})


def artifacts() -> Cohort:
    table = hdf5(biom.Table(COUNTS.to_numpy(), list(COUNTS.index), list(COUNTS)))
    files = {"counts.qza": qza("feature-table.biom", table), "taxonomy.qza": qza("taxonomy.tsv", rows(TAXA))}
    return Cohort(files | {"metadata.tsv": rows()})


def mothur() -> Cohort:
    shared = COUNTS.T.reset_index(names="Group")
    shared.insert(0, "label", "0.03")
    shared.insert(2, "numOtus", "5")
    taxonomy = pd.DataFrame({"OTU": COUNTS.index, "Size": COUNTS.sum(axis=1)})
    taxonomy["Taxonomy"] = [
        ";".join(f"{p[3:]}(100)" for p in text.split(";") if p[3:]) + ";" for text in LINEAGES.values()
    ]
    metadata = rows(METADATA.rename(columns={"SampleID": "group"}))
    return Cohort({"counts.shared": rows(shared), "taxonomy.cons.taxonomy": rows(taxonomy), "metadata.tsv": metadata})


def anndata() -> Cohort:
    file = io.BytesIO()
    obs = METADATA.set_index("SampleID").rename_axis(None)
    obs = obs.assign(Age=obs["Age"].astype(float), EASI=pd.to_numeric(obs["EASI"]))
    cells = ad.AnnData(COUNTS.T.to_numpy(float), obs, BY_RANK)
    with h5py.File(file, "w") as group:
        ad.io.write_elem(group, "/", cells)
    return Cohort({"counts.h5ad": file.getvalue()})


def wide() -> Cohort:
    people = (
        METADATA.drop_duplicates("PatientID").drop(columns=["SampleID", "Timepoint", "EASI"]).set_index("PatientID")
    )
    for week in ("0", "12"):
        of = METADATA[METADATA["Timepoint"].eq(f"week {week}")].set_index("PatientID")
        people[[f"Swab week{week}", f"EASI week{week}"]] = of[["SampleID", "EASI"]]
    return plain(workbook(patients=people.fillna("").reset_index()))


def titled() -> Cohort:
    cells = [["Study of dupilumab"], list(METADATA), *METADATA.to_numpy().tolist()]
    file = io.BytesIO()
    with pd.ExcelWriter(file) as book:
        pd.DataFrame(cells).to_excel(book, sheet_name="swabs", header=False, index=False)
        pd.DataFrame({"column": ["EASI"], "means": ["0 to 72"]}).to_excel(book, sheet_name="legend", index=False)
    return plain(file.getvalue())


def both_skins() -> Cohort:
    """A second swab of each person and visit: of skin without lesions."""
    more = METADATA.assign(SampleID=METADATA["SampleID"] + "n", Lesional="non-lesional")
    first = METADATA.assign(Lesional=["lesional" if d == "AD" else "control" for d in METADATA["Diagnosis"]])
    metadata = pd.concat([first, more[more["Diagnosis"].eq("AD")]])
    extra = NAMED[[s for s in NAMED if s + "n" in set(metadata["SampleID"])]].add_suffix("n")
    reads = extra.to_numpy().copy()
    reads[0] //= 3
    return plain(rows(metadata), tsv(NAMED.join(extra.assign(**dict(zip(extra, reads.T, strict=True))))))


def with_negatives() -> Cohort:
    nothing = dict.fromkeys(METADATA, "") | {"Diagnosis": "NA"}
    metadata = pd.concat([METADATA, pd.DataFrame([nothing | {"SampleID": f"NEG{i}"} for i in (1, 2, 3)])])
    return plain(rows(metadata), tsv(NAMED.assign(NEG1=[0, 2, 50, 1, 9], NEG2=[1, 0, 40, 0, 3], NEG3=[0, 0, 70, 2, 5])))


def three_visits() -> Cohort:
    middle = METADATA[METADATA["Timepoint"].eq("week 12")].replace({"Timepoint": {"week 12": "week 4"}})
    middle = middle.assign(SampleID=middle["SampleID"] + "m")
    extra = NAMED[[s for s in NAMED if s.endswith("-12")]].add_suffix("m")
    return plain(rows(pd.concat([METADATA, middle])), tsv(NAMED.join(extra)))


def odd_cells() -> Cohort:
    metadata = METADATA.assign(EASI=METADATA["EASI"].str.replace(".", ",", regex=False).replace("", "not applicable"))
    metadata.loc[metadata.index[3], "Sex"] = "missing: not collected"
    return plain(rows(metadata))


def named_by_visit() -> Cohort:
    names = METADATA["PatientID"] + METADATA["Timepoint"].map({"week 0": "_V1", "week 12": "_V2"})
    names = names.where(METADATA["Diagnosis"].eq("AD"), METADATA["PatientID"])
    whole = METADATA.assign(SampleID=names)
    counts = tsv(NAMED.set_axis(names, axis=1))
    return plain(rows(whole.drop(columns="PatientID")), counts, whole=whole, said="'P00_V1' is taken for 'P00'")


def one_column() -> pd.Series:
    pre = METADATA["Timepoint"].map({"week 0": "AD_pre", "week 12": "AD_post"})
    return pre.where(METADATA["Diagnosis"].eq("AD"), "HC")


LATIN = METADATA.assign(Site="Ellenbeuge, häutig", EASI=METADATA["EASI"].str.replace(".", ",", regex=False))
CASES = METADATA[METADATA["Diagnosis"].eq("AD")]
LOST = ["S03-12", "S08-0"]
DOTTED = NAMED.rename(columns=lambda s: s.replace("-", "."))
COHORTS = {
    "text": plain(),
    "QIIME 2 artifacts": artifacts(),
    "a folder that QIIME 2 exported": exported(),
    "a results folder of nf-core/ampliseq": ampliseq(),
    "mothur": mothur(),
    "AnnData": anndata(),
    "DADA2 in R's CSV": Cohort({
        "counts.csv": tsv(COUNTS.T, "", sep=","), "taxonomy.csv": tsv(BY_RANK, "", sep=","),
        "metadata.csv": rows(sep=","),
    }),
    "phyloseq's tables in one": plain(counts=tsv(BY_RANK.join(COUNTS), "OTU")),
    "BIOM as text with a taxonomy column": plain(
        counts=b"# Constructed from biom file\n" + tsv(COUNTS.assign(taxonomy=LINEAGES.values()))
    ),
    "MetaPhlAn with reads": plain(counts=tsv(with_ranks(), "clade_name")),
    "MetaPhlAn with shares": plain(
        counts=tsv(with_ranks() / COUNTS.sum() * 100, "clade_name"), edits={"files.counts.fractions": "relative"},
        said="`relative` if they are relative abundances",
    ),
    "a row of totals": plain(counts=tsv(pd.concat([NAMED, NAMED.sum().rename("Total").to_frame().T]))),
    "species alone": plain(counts=tsv(COUNTS.set_axis([
        "Staphylococcus aureus", "Staphylococcus hominis", "Cutibacterium acnes", "Streptococcus", "Corynebacterium"
    ]), "species")),
    "an Excel workbook with a title and a legend": titled(),
    "a row a patient": wide(),
    "semicolons, decimal commas, Latin-1": plain(rows(LATIN, sep=";", encoding="latin-1")),
    "words for nothing": odd_cells(),
    "ages in months": plain(rows(METADATA.assign(Age=[str(12 * int(age)) for age in METADATA["Age"]]))),
    "an arm recorded once": plain(rows(METADATA.assign(
        Treatment=METADATA["Treatment"].where(METADATA["Timepoint"].eq("week 0"), "")
    ))),
    "controls without a visit": plain(rows(METADATA.assign(
        Timepoint=METADATA["Timepoint"].where(METADATA["Diagnosis"].eq("AD"), "")
    ))),
    "controls among the arms": plain(rows(METADATA.assign(
        Treatment=METADATA["Treatment"].replace("", "Healthy")
    ).drop(columns="Diagnosis"))),
    "no controls": plain(rows(CASES), tsv(NAMED[[*CASES["SampleID"]]]), whole=CASES),
    "three visits": three_visits(),
    "lesional and non-lesional skin": both_skins(),
    "negative controls": with_negatives(),
    "swabs that failed": plain(
        counts=tsv(NAMED.drop(columns=LOST)), edits={"files.unmatched": "ignore"}, said="files.unmatched: ignore"
    ),
    "group and visit in one column": plain(rows(
        METADATA.assign(Group=one_column()).drop(columns=["Diagnosis", "Timepoint"])
    ), said="'Group' tells patients by visit, and controls; these are of baseline"),
    "people named with their visit": plain(rows(METADATA.assign(
        PatientID=METADATA["PatientID"] + METADATA["Timepoint"].map({"week 0": "pre", "week 12": "post"})
    )), said="'P00pre' is taken for 'P00'"),
    "people only in the names of their swabs": named_by_visit(),
    "means of replicates": plain(
        counts=tsv(NAMED * 1.5), edits={"files.counts.fractions": "round"},
        said="`round` if they are means of replicates",
    ),
    "identifiers that R changed": plain(
        counts=tsv(DOTTED), said="is like 'S03-12'", mended={"counts.tsv": tsv(NAMED)}
    ),
}  # fmt: skip


def checked(name: str) -> str:
    """What `make check` says of a study, be it refused or not."""
    try:
        return inspection.inspect(name)
    except StudyError as error:
        return str(error)


@pytest.mark.parametrize("name", COHORTS)
def test_a_strangers_cohort_is_right_without_an_edit_or_with_one_that_was_spelled_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cohort = COHORTS[name]
    for file, content in cohort.files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content)
    roles = {"table" if file.startswith("counts") else file.split(".")[0]: tmp_path / file for file in cohort.files}
    given = {"source": tmp_path / "r"} if (tmp_path / "r").is_dir() else roles
    told = draft.draft_study("mine", **given, data_folder=tmp_path / "data")
    folder = tmp_path / "data" / "mine"
    monkeypatch.setattr(inspection, "DATA", tmp_path / "data")
    first = checked("mine")
    passes = "no problem found" in first
    assert passes == (not cohort.edits and not cohort.mended), first
    assert cohort.said in " ".join((told + first).split())
    edited = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    for key, value in cohort.edits.items():
        whole = value
        for part in reversed(key.split(".")):
            whole = {part: whole}
        edited = merged(edited, whole)
    (folder / "study.yaml").write_text(yaml.safe_dump(edited, sort_keys=False))
    for file, mended in cohort.mended.items():
        (folder / "raw" / file).write_bytes(mended)
    assert "no problem found" in checked("mine")
    truly = cohort.whole.assign(share=(COUNTS.loc["a1"] / COUNTS.sum()).to_numpy()[cohort.whole.index])
    right(folder, truly.set_index("SampleID").drop(index=LOST if name == "swabs that failed" else []))


def right(folder: Path, truly: pd.DataFrame) -> None:
    """The cohort of a study has what is true of each swab."""
    built, _ = build_cohort(load_study(folder))
    obs = built.obs.loc[truly.index]
    case = truly["Diagnosis"].eq("AD")
    assert (obs["group"].eq("case") == case).all()
    arm = obs["arm"].astype(object).map({"treatment": "dupilumab", "comparator": "placebo"}).fillna("")
    assert arm.tolist() == truly["Treatment"].tolist()
    assert obs["visit"].map({"baseline": "week 0", "followup": "week 12"}).tolist() == truly["Timepoint"].tolist()
    assert (pd.crosstab(obs["subject"], truly["PatientID"].to_numpy()) > 0).sum().eq(1).all()
    np.testing.assert_allclose(obs["easi"], pd.to_numeric(truly["EASI"]))
    np.testing.assert_allclose(obs["age"], truly["Age"].astype(float))
    aureus = built[truly.index].X[:, (built.var["species"] == "Staphylococcus aureus").to_numpy()].sum(axis=1)
    share = np.asarray(aureus).ravel() / np.asarray(built[truly.index].X.sum(axis=1)).ravel()
    np.testing.assert_allclose(share, truly["share"], rtol=0.01)


def test_most_need_no_edit_and_all_at_most_one() -> None:
    """The others are right after one, which a message spelled out."""
    edits = [len(cohort.edits) + len(cohort.mended) for cohort in COHORTS.values()]
    assert len(edits) >= 25
    assert max(edits) == 1
    assert edits.count(0) >= 20
