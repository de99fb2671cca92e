import gzip
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import biom
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import merged
from skbio import TreeNode

from helpers import diversity, ingest, lineage, quality
from helpers import visits as visits_of
from helpers.errors import StudyError
from helpers.intake import inspection
from helpers.study import RANKS, load_study

ROOT = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2] / "shared"

COUNTS = pd.DataFrame(
    {
        "asv_1": [90, 10, 5, 4, 60, 50, 0, 2],
        "asv_2": [10, 60, 50, 60, 20, 30, 70, 80],
        "asv_3": [0, 30, 40, 30, 20, 20, 30, 10],
        "asv_4": [0, 0, 5, 6, 0, 0, 0, 8],
    },
    index=["S-1", "S-2", "S-3", "S-4", "S-5", "S-6", "S-7", "S-8"],
)
METADATA = pd.DataFrame(
    {
        "id": COUNTS.index,
        "person": ["p1", "p1", "p2", "p2", "p3", "p3", "c1", "c1"],
        "status": ["AD"] * 6 + ["healthy"] * 2,
        "drug": ["dupi", "dupi", "dupi", "dupi", "csa", "csa", "NA", "NA"],
        "month": ["0", "3"] * 4,
        "age": ["40", "40", "31.5", "31.5", "", "nan", "29", "29"],
        "easi": ["20", "4", "32", "8", "18", "16", "N/A", "NA"],
        "inflamed": ["yes", "no", "yes", "", "yes", "yes", "", ""],
        "smoker": ["1", "1", "0", "0", "0", "0", "NA", "NA"],
    }
)
AUREUS = ["Bacteria", "Firmicutes", "Bacilli", "Staphylococcales", "Staphylococcaceae", "Staphylococcus"]
AUREUS = [*AUREUS, "Staphylococcus aureus"]
GREENGENES = "k__Bacteria; p__Firmicutes; c__Bacilli; o__Staphylococcales; f__Staphylococcaceae; g__Staphylococcus"
LINEAGES = pd.Series(
    [f"{GREENGENES}; s__aureus", f"{GREENGENES}; s__hominis", f"{GREENGENES}; s__", "k__Bacteria; p__; c__"],
    index=COUNTS.columns,
)
TREE = "((asv_1:1,'asv_2':1):0.5,(asv_3:1,(asv_4:1,asv_9:2):1):1);"
STUDY = {
    "title": "A small study",
    "simulated": True,
    "about": "a test",
    "source": "none",
    "licence": "none",
    "files": {"counts": {"path": "counts"}, "metadata": {"path": "metadata"}, "taxonomy": {"path": "taxonomy"}},
    "columns": {
        "sample": "id",
        "subject": "person",
        "group": {"column": "status", "values": {"control": "healthy", "case": "AD"}},
        "arm": {"column": "drug", "values": {"treatment": "dupi", "comparator": "csa"}},
        "visit": {"column": "month", "values": {"baseline": 0, "followup": 3}, "ignore": [1]},
        "lesional": {"column": "inflamed", "values": {"lesional": "yes", "non_lesional": "no"}},
        "age": "age",
        "covariates": {"smoker": "smoker"},
    },
    "severity": [{"name": "easi", "column": "easi", "label": "EASI", "range": [0, 72]}],
    "minimum_depth": 100,
}


def tsv(table: pd.DataFrame, **kwargs) -> bytes:
    return table.to_csv(sep="\t", **kwargs).encode()


def study_in(folder: Path, changes: dict | None = None, **files: bytes):
    """A study folder with the small study's files, and what a test changes in it."""
    content = {
        "counts": tsv(COUNTS),
        "metadata": tsv(METADATA, index=False),
        "taxonomy": tsv(pd.DataFrame({"Taxon": LINEAGES}).rename_axis("Feature ID")),
    }
    for name, data in {**content, **files}.items():
        (folder / name).write_bytes(data)
    (folder / "study.yaml").write_text(yaml.safe_dump(merged(STUDY, changes or {})))
    return load_study(folder)


def biom_table(with_taxonomy: bool = False) -> biom.Table:
    notes = [{"taxonomy": text.split("; ")} for text in LINEAGES] if with_taxonomy else None
    return biom.Table(COUNTS.to_numpy(float).T, list(COUNTS.columns), list(COUNTS.index), notes)


def hdf5(table: biom.Table) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        table.to_hdf5(file, "test")
    return buffer.getvalue()


def qza(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("1ff1/metadata.yaml", "type: x")
        archive.writestr(f"1ff1/data/{name}", data)
        archive.writestr(f"1ff1/provenance/artifacts/2aa2/data/{name}", b"not this one")
    return buffer.getvalue()


def qiime_export() -> bytes:
    table = COUNTS.T.assign(taxonomy=LINEAGES).rename_axis("#OTU ID")
    return b"# Constructed from biom file\n" + tsv(table)


def headless(data: bytes) -> bytes:
    """As R's write.table: no name above the row names."""
    return data.split(b"\t", 1)[1]


FORMATS = {
    "samples in rows": tsv(COUNTS),
    "samples in columns": tsv(COUNTS.T.rename_axis("#OTU ID")),
    "QIIME export": qiime_export(),
    "R write.csv": COUNTS.to_csv().encode(),
    "R write.table": headless(tsv(COUNTS.T)),
    "Excel CSV, BOM and CRLF": b"\xef\xbb\xbf" + COUNTS.to_csv(sep=";", lineterminator="\r\n").encode(),
    "quoted": COUNTS.T.to_csv(quoting=1).encode(),
    "UTF-16, as Excel's Unicode text": tsv(COUNTS).decode().encode("utf-16"),
    "comment lines": b"# counts of our study\n#made by hand\n" + tsv(COUNTS),
    "a column twice": tsv(pd.concat([COUNTS, COUNTS[["asv_2"]]], axis=1)),
    "gzip": gzip.compress(tsv(COUNTS)),
    "gzipped BIOM": gzip.compress(hdf5(biom_table())),
    "BIOM 1.0": biom_table().to_json("test").encode(),
    "BIOM 2.1": hdf5(biom_table()),
    "QIIME 2 artifact": qza("feature-table.biom", hdf5(biom_table())),
}


@pytest.mark.parametrize("data", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_cohort(tmp_path, data):
    cohort, _ = ingest.build_cohort(study_in(tmp_path, counts=data))
    assert list(cohort.obs_names) == list(COUNTS.index)
    assert list(cohort.var_names) == list(COUNTS.columns)
    assert (cohort.X.toarray() == COUNTS.to_numpy()).all()
    assert cohort.var.loc["asv_1"].tolist() == AUREUS
    assert cohort.obs["depth"].tolist() == [100] * 8


@pytest.mark.parametrize(
    "data",
    [qiime_export(), hdf5(biom_table(True)), biom_table(True).to_json("test").encode()],
    ids=["text", "2.1", "1.0"],
)
def test_lineages_in_the_count_table_are_used_where_there_is_no_taxonomy_file(tmp_path, data):
    cohort, _ = ingest.build_cohort(study_in(tmp_path, {"files": {"taxonomy": "none"}}, counts=data))
    assert cohort.var["species"].tolist() == ["Staphylococcus aureus", "Staphylococcus hominis", "", ""]
    assert cohort.var.loc["asv_4"].tolist() == ["Bacteria", "", "", "", "", "", ""]


def test_swabs_are_matched_by_name_not_by_order(tmp_path):
    shuffled, _ = ingest.build_cohort(study_in(tmp_path, counts=tsv(COUNTS.sample(frac=1, random_state=1))))
    plain, _ = ingest.build_cohort(study_in(tmp_path))
    assert (shuffled.X != plain.X).nnz == 0
    pd.testing.assert_frame_equal(shuffled.obs, plain.obs)


def test_several_swabs_of_a_visit_are_told_apart_by_site(tmp_path):
    rows = METADATA.assign(place=["elbow", "knee", *["elbow"] * 5, "NA"])
    rows.loc[1, "month"] = "0"
    cohort, _ = ingest.build_cohort(study_in(tmp_path, {"columns": {"site": "place"}}, metadata=tsv(rows, index=False)))
    assert cohort.obs["site"].tolist()[:2] == ["elbow", "knee"]
    assert cohort.obs.loc["S-8", "site"] == "not recorded"


def test_columns_of_the_cohort_have_their_types(tmp_path):
    cohort, _ = ingest.build_cohort(study_in(tmp_path))
    obs = cohort.obs
    assert obs["visit"].min() == "baseline"
    assert obs["visit"].cat.ordered
    assert obs["group"].cat.categories.tolist() == ["control", "case"]
    assert obs["arm"].tolist()[:6] == ["treatment"] * 4 + ["comparator"] * 2
    assert obs.loc[obs["group"] == "control", "arm"].isna().all()
    assert obs["lesional"].tolist()[:3] == [True, False, True]
    assert obs["lesional"].isna().sum() == 3
    assert obs["age"].isna().sum() == 2
    assert obs["easi"].dtype == obs["smoker"].dtype == float
    assert set(obs["site"]) == {"skin"}
    assert not {"sex", "batch", "response"} & set(obs)


@pytest.mark.parametrize(
    "text",
    [
        f"{GREENGENES}; s__aureus",
        "d__Bacteria;p__Firmicutes;c__Bacilli;o__Staphylococcales;f__Staphylococcaceae;g__Staphylococcus;"
        "s__Staphylococcus aureus",
        "d__Bacteria; p__Firmicutes; c__Bacilli; o__Staphylococcales; f__Staphylococcaceae; g__Staphylococcus; "
        "s__Staphylococcus_aureus",
        "D_0__Bacteria;D_1__Firmicutes;D_2__Bacilli;D_3__Staphylococcales;D_4__Staphylococcaceae;D_5__Staphylococcus;"
        "D_6__Staphylococcus aureus",
        "Bacteria;Firmicutes;Bacilli;Staphylococcales;Staphylococcaceae;Staphylococcus;aureus",
        "k__Bacteria|p__Firmicutes|c__Bacilli|o__Staphylococcales|f__Staphylococcaceae|g__Staphylococcus|"
        "s__Staphylococcus_aureus",
        "k__Bacteria..p__Firmicutes..c__Bacilli..o__Staphylococcales..f__Staphylococcaceae..g__Staphylococcus..s__aureus",
        "Bacteria.Firmicutes.Bacilli.Staphylococcales.Staphylococcaceae.Staphylococcus.Staphylococcus.aureus",
    ],
)
def test_every_style_of_lineage_gives_the_same_ranks(text):
    assert lineage.parse_lineage(text) == AUREUS


@pytest.mark.parametrize(
    "header", [RANKS, [r.title() for r in RANKS], ["Domain", *(r.upper() for r in RANKS[1:])]], ids=str
)
def test_taxonomy_with_one_column_a_rank(tmp_path, header):
    table = pd.DataFrame([[*AUREUS[:6], "aureus"]] * 4, index=COUNTS.columns, columns=header)
    cohort, _ = ingest.build_cohort(study_in(tmp_path, taxonomy=table.to_csv().encode()))
    assert (cohort.var == AUREUS).all(axis=None)


@pytest.mark.parametrize(
    ("genus", "entry", "species"),
    [
        ("Staphylococcus", "Staphylococcus aureus MRSA252", "Staphylococcus aureus"),
        ("Staphylococcus_A", "Staphylococcus_A fleurettii", "Staphylococcus_A fleurettii"),
        ("Cutibacterium", "Cutibacterium sp000123456", "Cutibacterium sp000123456"),
        ("Corynebacterium 1", "Corynebacterium xerosis", "Corynebacterium xerosis"),
        ("Escherichia-Shigella", "Escherichia_coli", "Escherichia coli"),
        ("[Ruminococcus]", "gnavus", "[Ruminococcus] gnavus"),
        ("Candidatus Berkiella", "Candidatus Berkiella aquae", "Candidatus Berkiella aquae"),
        ("Staphylococcus", "Corynebacterium diphtheriae", ""),
        ("Staphylococcus", "aureus/epidermidis", ""),
        ("Staphylococcus", "Staphylococcus sp. HMSC067E10", ""),
        ("Staphylococcus", "uncultured bacterium", ""),
        ("Staphylococcus", "bacterium", ""),
        ("Staphylococcus", "human_skin_metagenome", ""),
        ("Staphylococcus", "__", ""),
        ("", "aureus", ""),
    ],
)
def test_a_species_is_a_binomial_of_its_genus_or_nothing(genus, entry, species):
    assert lineage.parse_lineage(f"d__Bacteria;p__;c__;o__;f__;g__{genus};s__{entry}")[5:] == [genus, species]


BACILLALES = "Bacteria.Firmicutes.Bacilli.Bacillales."


@pytest.mark.parametrize(
    ("name", "ranks"),  # real names of the study in data/khadka2021; expected: class to species
    [
        (f"{BACILLALES}Staphylococcaceae.Staphylococcus.__", "Bacilli|Bacillales|Staphylococcaceae|Staphylococcus|"),
        (
            f"{BACILLALES}Staphylococcaceae.Staphylococcus.Corynebacterium.diphtheriae",
            "Bacilli|Bacillales|Staphylococcaceae|Staphylococcus|",
        ),
        (
            f"{BACILLALES}Staphylococcaceae.Nosocomiicoccus.Nosocomiicoccus.sp..HMSC067E10",
            "Bacilli|Bacillales|Staphylococcaceae|Nosocomiicoccus|",
        ),
        (
            f"{BACILLALES}Staphylococcaceae.Salinicoccus.Salinicoccus.carnicancri.Crm",
            "Bacilli|Bacillales|Staphylococcaceae|Salinicoccus|Salinicoccus carnicancri",
        ),
        (
            f"{BACILLALES}Staphylococcaceae.S31.Staphylococcaceae.bacterium.S31",
            "Bacilli|Bacillales|Staphylococcaceae|S31|",
        ),
        (
            "Bacteria.Acidobacteria.Acidobacteriia.Acidobacteriales.Acidobacteriaceae..Subgroup.1..Granulicella.__",
            "Acidobacteriia|Acidobacteriales|Acidobacteriaceae (Subgroup 1)|Granulicella|",
        ),
        ("Bacteria.Acidobacteria.Blastocatellia..Subgroup.4..11.24.uncultured.bacterium.__.__", "||||"),
        (
            "Bacteria.Actinobacteria.Thermoleophilia.Solirubrobacterales.67.14.uncultured.bacterium.__",
            "Thermoleophilia|Solirubrobacterales|||",
        ),
        (
            "Bacteria.Deinococcus.Thermus.Deinococci.Deinococcales.Deinococcaceae.Deinococcus.Deinococcus.caeni",
            "Deinococci|Deinococcales|Deinococcaceae|Deinococcus|Deinococcus caeni",
        ),
        (
            "Bacteria.Bacteroidetes.Bacteroidia.Bacteroidales.Prevotellaceae.Prevotella.7.Massiliprevotella.massiliensis",
            "Bacteroidia|Bacteroidales|Prevotellaceae|Prevotella 7|",
        ),
        (
            "Bacteria.Firmicutes.Clostridia.Clostridiales.Family.XI.Finegoldia.Finegoldia.magna",
            "Clostridia|Clostridiales|Family XI|Finegoldia|Finegoldia magna",
        ),
        (
            "Bacteria.Firmicutes.Clostridia.Clostridiales.Family.XIII..Eubacterium..brachy.group.uncultured.Eubacterium.sp.",
            "Clostridia|Clostridiales|Family XIII|[Eubacterium] brachy group|",
        ),
        (
            "Bacteria.Firmicutes.Clostridia.Clostridiales.Ruminococcaceae.Ruminococcaceae.UCG.014.Eubacterium.sp..oral.clone.BU014",
            "Clostridia|Clostridiales|Ruminococcaceae||",
        ),
        (
            "Bacteria.Proteobacteria.Gammaproteobacteria.Gammaproteobacteria.Incertae.Sedis.Unknown.Family.Candidatus.Berkiella"
            ".Candidatus.Berkiella.aquae",
            "Gammaproteobacteria|||Candidatus Berkiella|Candidatus Berkiella aquae",
        ),
        (
            "Bacteria.Proteobacteria.Alphaproteobacteria.Rhizobiales.Rhizobiaceae.Allorhizobium.Neorhizobium.Pararhizobium"
            ".Rhizobium.Rhizobiaceae.bacterium",
            "Alphaproteobacteria|Rhizobiales|Rhizobiaceae|Allorhizobium Neorhizobium Pararhizobium Rhizobium|",
        ),
        ("Bacteria.Proteobacteria.Deltaproteobacteria.uncultured.Myxococcales.bacterium.__.__", "||||"),
        ("Bacteria.__.__.__.__.__.__", "||||"),
    ],
)
def test_dots_inside_ranks_never_shift_a_name_to_another_rank(name, ranks):
    kingdom, phylum, *lower = lineage.parse_lineage(name)
    assert kingdom == "Bacteria"
    assert name.startswith("Bacteria." + (phylum.replace("-", ".") or "__"))
    assert "|".join(lower) == ranks


def test_metadata_with_bom_crlf_types_line_and_blank_rows(tmp_path):
    lines = tsv(METADATA.rename(columns={"id": "#SampleID"}), index=False).decode().splitlines()
    lines.insert(1, "#q2:types" + "\tcategorical" * (len(METADATA.columns) - 1))
    text = "\r\n".join([*lines, "\t" * (len(METADATA.columns) - 1), ""]).replace("p1", " p1 ")
    study = study_in(tmp_path, {"columns": {"sample": "SampleID"}}, metadata=b"\xef\xbb\xbf" + text.encode())
    cohort, _ = ingest.build_cohort(study)
    plain, _ = ingest.build_cohort(study_in(tmp_path))
    pd.testing.assert_frame_equal(cohort.obs, plain.obs)


def test_latin_1_and_quoted_line_ends_are_read(tmp_path):
    rows = METADATA.assign(place=["Ellenbeuge", "Kniekehle, außen", *["Gesäß\nlinks"] * 6])
    study = study_in(tmp_path, {"columns": {"site": "place"}}, metadata=tsv(rows, index=False, quoting=1))
    for encoding in ("utf-8", "latin-1"):
        (tmp_path / "metadata").write_bytes(rows.to_csv(sep=";", index=False, quoting=1).encode(encoding))
        cohort, _ = ingest.build_cohort(study)
        assert cohort.obs["site"].tolist() == rows["place"].tolist()


def test_lesional_and_non_lesional_swabs_of_one_visit_are_sites_of_their_own(tmp_path):
    rows = METADATA.copy()
    rows["month"], rows["inflamed"] = (
        ["0", "0", "3", "3", "0", "3", "0", "3"],
        ["yes", "no"] * 2 + ["yes"] * 2 + [""] * 2,
    )
    rows["person"] = ["p1"] * 4 + ["p2"] * 2 + ["c1"] * 2
    rows.loc[4:5, "drug"] = "csa"
    cohort, _ = ingest.build_cohort(study_in(tmp_path, metadata=tsv(rows.assign(age="", drug="dupi"), index=False)))
    assert (
        cohort.obs["site"].tolist()
        == ["skin, lesional", "skin, non-lesional"] * 2 + ["skin, lesional"] * 2 + ["skin"] * 2
    )
    kept = visits_of.analysis_swabs(cohort.obs, "lesional_at_baseline")
    assert kept.tolist() == [True, False, True, False, True, True, True, True]


@pytest.mark.parametrize(
    ("mangle", "told"),
    [
        (lambda s: {"S-3": "3-Mar"}.get(s, s), "a spreadsheet seems to have changed 3-Mar"),
        (lambda s: {"S-3": "1.2E+05"}.get(s, s), "a spreadsheet seems to have changed 1.2E+05"),
        (lambda s: {"S-3": "#NAME?"}.get(s, s), "a spreadsheet seems to have changed #NAME?"),
        (lambda s: s.lower(), "'S-1' is like 's-1'"),
        (lambda s: s.replace("-", "_"), "'S-1' is like 'S_1'"),
        (lambda s: s.replace("-", " "), "'S-1' is like 'S 1'"),
    ],
    ids=["date", "exponent", "formula", "case", "underscore", "blank"],
)
def test_changed_identifiers_are_never_joined_but_explained(tmp_path, mangle, told):
    rows = METADATA.assign(id=METADATA["id"].map(mangle))
    one_kept = tsv(COUNTS.rename({"S-8": mangle("S-8")}))  # so that the side of the samples is known
    with pytest.raises(StudyError, match=re.escape(told)):
        ingest.build_cohort(study_in(tmp_path, metadata=tsv(rows, index=False), counts=one_kept))


def test_numbers_that_a_spreadsheet_shortened_are_explained(tmp_path):
    long = COUNTS.set_axis([f"00{i}" for i in range(1, 9)])
    short = METADATA.assign(id=[*(f"{i}.0" for i in range(1, 8)), "008"])
    with pytest.raises(StudyError, match=r"'001' is like '1\.0'"):
        ingest.build_cohort(study_in(tmp_path, metadata=tsv(short, index=False), counts=tsv(long)))


def test_a_column_of_another_spelling_is_named(tmp_path):
    with pytest.raises(StudyError, match="did you mean 'age'"):
        ingest.build_cohort(study_in(tmp_path, {"columns": {"age": "AGE"}}))


def test_ages_in_months_are_told_in_the_check(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "DATA", tmp_path.parent)
    study_in(tmp_path, {"columns": {"age_unit": "months"}})
    told = "Ages, recorded in months, are in years. They are 2.4 to 3.3; if not, see columns.age_unit."
    assert told in inspection.inspect(tmp_path.name)
    rows = METADATA.rename(columns={"age": "age_mo"})
    study_in(tmp_path, {"columns": {"age": "age_mo"}}, metadata=tsv(rows, index=False))
    assert "The ages in 'age_mo' are taken for years. If they are no years, whatever" in inspection.inspect(
        tmp_path.name
    )


def test_the_oldest_are_one_group_where_the_study_says_so(tmp_path):
    rows = tsv(METADATA.assign(age=["40", "40", "97", "97", "89", "90", "29", "29"]), index=False)
    grouped, _ = ingest.build_cohort(study_in(tmp_path, {"privacy": {"oldest_age": 89}}, metadata=rows))
    assert grouped.obs["age"].tolist() == [40, 40, 90, 90, 89, 90, 29, 29]
    as_they_are, _ = ingest.build_cohort(study_in(tmp_path, metadata=rows))
    assert as_they_are.obs["age"].max() == 97


def test_fractions_are_rounded_only_if_the_study_says_so(tmp_path):
    half = COUNTS.astype(float)
    half.loc["S-1", "asv_1"] = 90.7
    study = study_in(tmp_path, {"files": {"counts": {"path": "counts", "fractions": "round"}}}, counts=tsv(half))
    cohort, _ = ingest.build_cohort(study)
    assert cohort["S-1", "asv_1"].X.toarray().item() == 91


def test_tree_is_pruned_to_the_features_with_reads(tmp_path):
    tree = qza("tree.nwk", TREE.encode())
    counts = COUNTS.assign(asv_4=0)
    study = study_in(tmp_path, {"files": {"tree": {"path": "tree"}}}, tree=tree, counts=tsv(counts))
    cohort, _ = ingest.build_cohort(study)
    assert list(cohort.var_names) == ["asv_1", "asv_2", "asv_3"]
    read = TreeNode.read([cohort.uns["tree"]])
    assert {tip.name for tip in read.tips()} == set(cohort.var_names)
    assert read.find("asv_1").distance(read.find("asv_3")) == pytest.approx(3.5)


def test_a_tree_may_lack_features_and_have_others_which_are_listed(tmp_path):
    study = study_in(
        tmp_path, {"files": {"tree": {"path": "tree"}}}, tree=b"((asv_1:1,asv_2:1):1,(asv_3:1,other:9):1);"
    )
    cohort, _ = ingest.build_cohort(study)
    told = quality.tree_differs(cohort)
    assert "1 features without a tip (asv_4) with 2.4 % of the reads" in told
    assert "1 tips of the file that are no feature (other)" in told
    tree = diversity.rooted_tree(cohort)
    faith = diversity.expected_alpha(cohort, 100, ["faith_pd"], tree)["faith_pd"]
    assert faith["S-1"] == pytest.approx(3), "both tips and the branch that they share, none of asv_3 and asv_4"
    unifrac = diversity.unifrac(cohort, tree, weighted=True)
    shares = cohort.to_df().div(100)
    by_hand = (shares.loc["S-1"] - shares.loc["S-2"]).abs()[["asv_1", "asv_2"]].sum()
    by_hand += 2 * abs(shares.loc["S-1", "asv_3"] - shares.loc["S-2", "asv_3"])
    by_hand += abs(shares.loc["S-1", ["asv_1", "asv_2"]].sum() - shares.loc["S-2", ["asv_1", "asv_2"]].sum())
    assert unifrac["S-1", "S-2"] == pytest.approx(by_hand)


def test_relative_abundances_are_shares_without_depth(tmp_path):
    shares = COUNTS.div(COUNTS.sum(axis=1), axis=0) * 100
    study = study_in(tmp_path, {"files": {"counts": {"fractions": "relative"}}}, counts=tsv(shares))
    cohort, ledger = ingest.build_cohort(study)
    assert "depth" not in cohort.obs
    np.testing.assert_allclose(cohort.to_df().sum(axis=1), 1)
    assert ledger["swabs_after"].iloc[-1] == ledger["swabs_before"].iloc[-1], "no swab can be called shallow"
    between = diversity.bray_curtis(cohort, 100, rarefactions=1, seed=0)
    expected = (cohort.to_df().loc["S-1"] - cohort.to_df().loc["S-2"]).abs().sum() / 2
    assert between["S-1", "S-2"] == pytest.approx(expected)


# --- bad input -------------------------------------------------------------------------------------------------------


def with_cell(table: pd.DataFrame, row, column: str, value) -> pd.DataFrame:
    table = table.astype(object)
    table.loc[row, column] = value
    return table


def metadata(row: int, column: str, value: str) -> dict:
    return {"metadata": tsv(with_cell(METADATA, row, column, value), index=False)}


def counts(value) -> dict:
    return {"counts": tsv(with_cell(COUNTS, "S-3", "asv_2", value))}


BAD = {
    "ragged row": ({"counts": tsv(COUNTS).replace(b"S-3\t5", b"S-3\t5\t5")}, {}, "counts S-3 6 cells 5 cells"),
    "not text": ({"metadata": b"id\tperson\nS-1\t\x00\x01"}, {}, "metadata UTF-8 Latin-1"),
    "a workbook": ({"metadata": qza("sheet1.xml", b"")}, {}, "metadata Excel workbook CSV"),
    "a spreadsheet": ({"counts": qza("sheet1.xml", b"")}, {}, "counts feature-table.biom sheet1.xml"),
    "broken zip": ({"counts": qza("feature-table.biom", b"x")[:99]}, {}, "counts .qza"),
    "broken HDF5": ({"counts": hdf5(biom_table())[:2000]}, {}, "counts BIOM"),
    "broken JSON": ({"counts": b'{"rows": [1,'}, {}, "counts BIOM"),
    "empty": ({"counts": b""}, {}, "counts table"),
    "other format": ({}, {"files": {"counts": {"format": "biom"}}}, "counts text biom"),
    "negative count": (counts(-3), {}, "counts S-3 asv_2 -3 whole"),
    "fraction": (counts(2.5), {}, "counts S-3 asv_2 2.5 fractions: round"),
    "not a number": (counts("many"), {}, "counts S-3 asv_2 'many'"),
    "no count": (counts(""), {}, "counts S-3 asv_2 ''"),
    "infinite": (counts("inf"), {}, "counts S-3 asv_2 inf"),
    "absurd": (counts("1000000000000"), {}, "counts S-3 asv_2 1e+12 such counts in all: 1 beyond all sequencing"),
    "feature twice": ({"counts": tsv(COUNTS.T).replace(b"asv_2", b"asv_1")}, {}, "counts same row name asv_1"),
    "column twice": (
        {"metadata": tsv(METADATA.assign(x="1").rename(columns={"x": "age"}), index=False)},
        {},
        "metadata same column age",
    ),
    "a date": (metadata(2, "inflamed", "2021-03-04"), {}, "metadata dates inflamed S-3 days from baseline"),
    "names of people": (
        {
            "metadata": tsv(
                pd.concat([METADATA.assign(name=[f"n{i}" for i in METADATA.index])] * 2).assign(
                    id=[f"S-{i}" for i in range(1, 17)], name=[f"n{i}" for i in range(16)]
                ),
                index=False,
            )
        },
        {"columns": {"covariates": {"called": "name"}}},
        "metadata tell people apart name covariates.called 16 different",
    ),
    "two problems": (
        {
            "metadata": tsv(with_cell(with_cell(METADATA, 2, "age", "old"), 3, "easi", "99"), index=False),
            "taxonomy": b"id\tTaxon\nasv_1\tx",
        },
        {"files": {"tree": {"path": "nowhere"}}},
        "metadata 4 problems age S-3 old easi S-4 99 taxonomy asv_2 nowhere",
    ),
    "sample without a name": (metadata(2, "id", ""), {}, "metadata id row 3"),
    "sample twice": (metadata(1, "id", "S-1"), {}, "metadata sample id S-1"),
    "sample only in counts": (metadata(1, "id", "s_2"), {}, "counts metadata S-2 s_2 'S-2' is like 's_2'"),
    "sample only in metadata": ({"counts": tsv(COUNTS.drop("S-7"))}, {}, "counts 1 only in the metadata: S-7"),
    "no sample known": (
        {"counts": tsv(COUNTS.rename(lambda s: s.replace("-", ".")))},
        {},
        "counts metadata's samples 'S.1' is like 'S-1'",
    ),
    "no such column": ({}, {"columns": {"age": "Age"}}, "metadata 'Age' columns.age person did you mean 'age'?"),
    "unknown value": (metadata(3, "month", "three"), {}, "metadata month S-4 three 0, 3, 1 columns.visit.ignore"),
    "severity out of range": (metadata(2, "easi", "73"), {}, "metadata easi S-3 73 0 to 72"),
    "severity not a number": (metadata(2, "easi", "8,5"), {}, "metadata easi S-3 8,5 decimal point"),
    "age not a number": (metadata(2, "age", "adult"), {}, "metadata age S-3 adult a number"),
    "two groups": (metadata(2, "status", "healthy"), {}, "metadata group p2 S-3, S-4 case, control"),
    "two ages": (metadata(2, "age", "70"), {}, "metadata p2 70 two years"),
    "two sexes": (metadata(2, "smoker", "1"), {"columns": {"sex": "smoker"}}, "metadata two values of sex p2 S-3"),
    "two arms": (metadata(2, "drug", "csa"), {}, "metadata arm p2 S-3, S-4 comparator, treatment"),
    "swabbed twice": (metadata(5, "month", "0"), {}, "metadata S-5, S-6 p3 baseline skin columns.site"),
    "feature without lineage": ({"taxonomy": b"id\tTaxon\nasv_1\tx"}, {}, "taxonomy 3 features asv_2, asv_3, asv_4"),
    "no lineages": ({"taxonomy": b"id\tnote\nasv_1\tx"}, {}, "taxonomy header note Taxon"),
    "sequences as names": ({}, {"files": {"taxonomy": "feature_names"}}, "counts lineages asv_1 feature_names"),
    "feature without tip": (
        {"tree": b"(ASV-1:1,asv_2:1);"},
        {"files": {"tree": {"path": "tree"}}},
        "tree 3 of 4 asv_1, asv_3, asv_4 'asv_1' is like 'ASV-1'",
    ),
    "no tree": ({"tree": b"((asv_1:1"}, {"files": {"tree": {"path": "tree"}}}, "tree Newick"),
    "no branch lengths": (
        {"tree": b"((asv_1,asv_2),(asv_3,asv_4));"},
        {"files": {"tree": {"path": "tree"}}},
        "tree branches without a length",
    ),
    "missing file": ({}, {"files": {"counts": {"path": "raw/x.csv"}}}, "raw/x.csv no such file"),
    "missing file, with address": (
        {},
        {"files": {"counts": {"path": "raw/x.csv", "url": "https://example.org/x"}}},
        "raw/x.csv make data STUDY=small by hand",
    ),
    "other checksum": ({}, {"files": {"metadata": {"sha256": "0" * 64}}}, f"metadata SHA-256 {'0' * 64}"),
    "nothing left": ({}, {"minimum_depth": 101}, "study.yaml no swab fewer than 101 reads: 8"),
}


@pytest.mark.parametrize(("files", "changes", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_with_its_file_and_place(tmp_path, files, changes, message):
    folder = tmp_path / "small"
    folder.mkdir()
    with pytest.raises(StudyError) as caught:
        ingest.build_cohort(study_in(folder, changes, **files))
    file, *words = message.split(" ")
    assert str(folder / file) in str(caught.value)
    remaining = str(caught.value)
    for word in words:
        assert word in remaining, f"{word!r} is not in:\n{caught.value}"


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_ledger_adds_up_and_names_every_reason(tmp_path):
    rows = METADATA.copy()
    rows.loc[0, "month"] = "1"
    rows.loc[3, "month"] = "NA"
    rows.loc[4:5, "drug"] = ""
    rows.loc[7, "status"] = "nan"
    shallow = with_cell(COUNTS, "S-2", "asv_2", 0)
    study = study_in(tmp_path, {"minimum_depth": 80}, metadata=tsv(rows, index=False), counts=tsv(shallow))
    cohort, ledger = ingest.build_cohort(study)
    assert list(cohort.obs_names) == ["S-3", "S-7"]
    steps = ledger.groupby("step", sort=False)[["swabs_before", "swabs_after"]].sum()
    assert steps.loc["read"].tolist() == [8, 8]
    assert (steps["swabs_before"].to_numpy()[1:] == steps["swabs_after"].to_numpy()[:-1]).all()
    assert steps["swabs_after"].iloc[-1] == cohort.n_obs
    dropped = ledger[ledger["swabs_before"] > ledger["swabs_after"]]
    assert dropped[["reason", "group", "visit"]].to_numpy().tolist() == [
        ["a value that study.yaml leaves out", "case", "1"],
        ["no group recorded", "not recorded", "followup"],
        ["no arm recorded", "case", "baseline"],
        ["no arm recorded", "case", "followup"],
        ["no visit recorded", "case", "not recorded"],
        ["fewer than 80 reads", "case", "followup"],
    ]


def test_an_arm_that_is_recorded_once_is_that_of_every_visit(tmp_path):
    rows = METADATA.copy()
    rows.loc[[0, 3], "drug"] = ["", "NA"]  # p1 at baseline, p2 at follow-up
    rows.loc[4, "drug"], rows.loc[5, ["drug", "month"]] = "", ["csa", "1"]  # p3 only at a visit that is left out
    cohort, ledger = ingest.build_cohort(study_in(tmp_path, metadata=tsv(rows, index=False)))
    assert cohort.obs["arm"].dropna().to_dict() == {
        "S-1": "treatment", "S-2": "treatment", "S-3": "treatment", "S-4": "treatment", "S-5": "comparator",
    }  # fmt: skip
    assert cohort.obs["arm"].isna().sum() == 2, "controls have none"
    assert ledger.loc[ledger["step"].eq("arm"), ["swabs_before", "swabs_after"]].sum().tolist() == [7, 7]


def test_an_extension_in_the_other_arm_is_left_out_and_decides_nothing(tmp_path):
    rows = METADATA.copy()
    rows.loc[1, ["drug", "month"]] = ["csa", "1"]  # p1, at a visit that study.yaml leaves out
    cohort, _ = ingest.build_cohort(study_in(tmp_path, metadata=tsv(rows, index=False)))
    assert cohort.obs.loc["S-1", "arm"] == "treatment"
    assert "S-2" not in cohort.obs_names


@pytest.mark.parametrize("month", ["3", ""])
def test_two_arms_in_one_person_are_an_error_also_where_a_swab_has_no_visit(tmp_path, month):
    rows = METADATA.copy()
    rows.loc[3, ["drug", "month"]] = ["csa", month]
    with pytest.raises(StudyError) as caught:
        ingest.build_cohort(study_in(tmp_path, metadata=tsv(rows, index=False)))
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/metadata: has 1 subjects in two values of arm",
        "  where:    subject p2; rows S-3, S-4",
        "  found:    comparator, treatment",
        "  expected: one for each subject",
        "  fix:      correct the rows, or columns.arm or columns.subject in study.yaml. If everybody had both "
        "treatments in turn: a cross-over is not supported, since what the first period leaves behind would be taken "
        "for an effect of the second. Give the first period as a study of its own, with columns.visit.values of its "
        "visits and the others under columns.visit.ignore; periods are neither sites nor visits. If arms were changed "
        "later: columns.arm_from: baseline",
    ]


#: Months of the four swabs of controls, of c1, c1, c2 and c3; the visits that they count as, None if left out.
OF_CONTROLS = {
    "seen once, no visit": (["", None, "NA", ""], ["baseline", None, "baseline", "baseline"]),
    "seen once, at different visits": (["0", None, "3", "3"], ["baseline", None, "baseline", "baseline"]),
    "one of them twice": (["0", "3", "3", "0"], ["baseline", "followup", "followup", "baseline"]),
    "one twice, one without": (["0", "3", "", "3"], ["baseline", "followup", "baseline", "followup"]),
    "one twice, once without": (["0", "3", "0", ""], ["baseline", "followup", "baseline", "baseline"]),
    "left out": (["0", "1", "1", ""], ["baseline", None, None, "baseline"]),
}


@pytest.mark.parametrize(("months", "visits"), OF_CONTROLS.values(), ids=OF_CONTROLS)
def test_a_control_without_a_visit_or_seen_once_is_of_baseline(tmp_path, months, visits):
    more = pd.DataFrame({"id": ["S-9", "S-10"], "person": ["c2", "c3"], "status": "healthy"})
    rows = pd.concat([METADATA, more]).fillna("").reset_index(drop=True)
    rows.loc[6:, "month"] = months
    rows = rows.dropna(subset="month")
    counts = pd.concat([COUNTS, COUNTS.iloc[:2].set_axis(["S-9", "S-10"])]).loc[rows["id"]]
    cohort, _ = ingest.build_cohort(study_in(tmp_path, counts=tsv(counts), metadata=tsv(rows, index=False)))
    found = cohort.obs["visit"].astype(object).reindex(["S-7", "S-8", "S-9", "S-10"])
    assert found.where(found.notna(), None).tolist() == visits
    assert cohort.obs["visit"].iloc[:6].tolist() == ["baseline", "followup"] * 3, "patients as they are recorded"


def unmatched(tmp_path, **changes):
    """Two swabs only in the counts, one only in the metadata: a replicate of one that is in both."""
    counts = pd.concat([COUNTS, COUNTS.iloc[:2].set_axis(["X1", "X2"])])
    rows = pd.concat([METADATA, METADATA.iloc[[0]].assign(id="again")])
    return study_in(tmp_path, {"files": changes}, counts=tsv(counts), metadata=tsv(rows, index=False))


def test_swabs_without_counterpart_are_refused_and_the_message_names_the_key(tmp_path):
    with pytest.raises(StudyError) as caught:
        ingest.build_cohort(unmatched(tmp_path))
    assert str(caught.value.each[-1]).splitlines() == [
        f"{tmp_path}/counts: has other swabs than metadata",
        "  found:    2 only in the counts: X1, X2; 1 only in the metadata: again",
        "  expected: each swab in both, by the same name, letter by letter",
        "  fix:      correct the identifiers; or leave such swabs out, which the flow tells: files.unmatched: ignore",
    ]


def test_swabs_without_counterpart_are_left_out_where_study_yaml_says_so_and_the_flow_tells(tmp_path):
    whole, before = ingest.build_cohort(study_in(tmp_path))
    cohort, ledger = ingest.build_cohort(unmatched(tmp_path, unmatched="ignore"))
    assert cohort.obs.equals(whole.obs)
    assert (cohort.X != whole.X).nnz == 0
    steps = ledger.groupby(["step", "reason"], sort=False)[["swabs_before", "swabs_after"]].sum()
    assert steps.iloc[:3].reset_index().to_numpy().tolist() == [
        ["read", "all swabs of the files", 11, 11],
        ["unmatched", "not in the counts", 11, 10],
        ["unmatched", "not in the metadata", 10, 8],
    ]
    flow = pd.DataFrame(json.loads(cohort.uns["flow"])).set_index(["reason", "who"])["swabs"]
    assert flow["all swabs of the files"].to_dict() == {
        "control": 2, "treatment": 5, "comparator": 2, ingest.NOT_RECORDED: 2,
    }  # fmt: skip
    assert flow["not in the counts"]["treatment"] == 4
    assert flow["not in the metadata"].sum() == 8
    assert "unmatched" not in set(before["step"]), "where all swabs are in both, there is nothing to tell"
    ingest.save_cohort(cohort, tmp_path)


def test_names_that_look_alike_are_never_left_out(tmp_path):
    changes = {"files": {"unmatched": "ignore"}}
    for ids, near in ((["s_1", *METADATA["id"][1:]], "'S-1' is like 's_1'"), ([f"X{i}" for i in range(8)], "X0")):
        files = {"counts": biom_table().to_json("x").encode(), "metadata": tsv(METADATA.assign(id=ids), index=False)}
        with pytest.raises(StudyError) as caught:
            ingest.build_cohort(study_in(tmp_path, changes, **files))
        assert near in str(caught.value)
        assert str(caught.value).endswith("fix:      correct the identifiers")


def test_an_arm_that_study_yaml_leaves_out_stands_in_the_flow_by_its_name(tmp_path):
    arm = {"values": {"treatment": "dupi", "comparator": None}, "ignore": ["csa"]}
    cohort, _ = ingest.build_cohort(study_in(tmp_path, {"columns": {"arm": arm}}))
    flow = pd.DataFrame(json.loads(cohort.uns["flow"])).set_index(["reason", "who"])["people"]
    assert flow["all swabs of the files"].to_dict() == {"control": 1, "treatment": 2, "csa": 1}
    assert flow["a value that study.yaml leaves out"].to_dict() == {"control": 1, "treatment": 2, "csa": 0}


WARNED = {
    "no subject": (lambda rows: rows.assign(person=rows["person"].replace("c1", "")), {}, [
        "Control: all 2 swabs, no subject recorded",
    ]),
    "no arm": (lambda rows: rows.assign(drug=rows["drug"].where(rows["person"] != "p2", "")), {}, [
        "Patient without an arm: all 2 swabs, no arm recorded",
    ]),
    "an arm left out": (
        lambda rows: rows, {"columns": {"arm": {"values": {"treatment": "dupi", "comparator": None}, "ignore": "csa"}}},
        ["csa: all 2 swabs, a value that study.yaml leaves out"],
    ),
    "shallow": (lambda rows: rows, {"minimum_depth": 101}, ["Comparator: all 2 swabs, fewer than 101 reads"]),
    "shallow at a visit": (lambda rows: rows, {"minimum_depth": 60}, [
        "Comparator at Follow-up: all 1 people, fewer than 60 reads",
    ]),
    "no such visit": (lambda rows: rows, {"columns": {"visit": {"values": {"followup": 6}, "ignore": ["1", "3"]}}}, [
        "Follow-up: no swab has 6, columns.visit.values.followup",
    ]),
    "no such arm": (lambda rows: rows, {"columns": {"arm": {"values": {"comparator": "mtx"}, "ignore": "csa"}}}, [
        "csa: all 2 swabs, a value that study.yaml leaves out",
        "Comparator: no swab has mtx, columns.arm.values.comparator",
    ]),
    "nobody": (lambda rows: rows, {}, []),
}  # fmt: skip


@pytest.mark.parametrize(("change", "changes", "warned"), WARNED.values(), ids=WARNED)
def test_check_warns_of_whom_nobody_is_left_and_by_which_rule(tmp_path, monkeypatch, change, changes, warned):
    monkeypatch.setattr(inspection, "DATA", tmp_path.parent)
    counts = COUNTS * 20
    counts.loc["S-5"] //= 20
    counts.loc["S-6"] //= 40
    base = {"minimum_depth": 50, "settings": {"rarefaction_depth": 50}}
    study_in(tmp_path, merged(base, changes), counts=tsv(counts), metadata=tsv(change(METADATA), index=False))
    told = inspection.inspect(tmp_path.name)
    part = told.partition("\nWarning: nobody is left of\n")[2].partition("\n\n")[0]
    assert part.splitlines() == [f"  {line}" for line in warned]
    assert ("Warning" in told) == bool(warned)


def with_negatives(tmp_path, **changes):
    """Six negative controls, full of asv_4 and nearly empty else; their patient columns are blank."""
    ids = [f"blank-{i}" for i in range(6)]
    negatives = pd.DataFrame({"asv_1": 0, "asv_2": [1, 0, 0, 0, 0, 0], "asv_3": 0, "asv_4": 9}, index=ids)
    rows = pd.concat([METADATA.assign(kind=""), pd.DataFrame({"id": ids, "kind": "pcr water"})]).fillna("")
    kind = {"column": "kind", "values": {"negative": "pcr water"}}
    files = {"counts": tsv(pd.concat([COUNTS, negatives])), "metadata": tsv(rows, index=False)}
    return ingest.build_cohort(study_in(tmp_path, merged({"columns": {"control_type": kind}}, changes), **files))


def test_negative_controls_stay_and_need_neither_patient_nor_depth(tmp_path):
    cohort, ledger = with_negatives(tmp_path)
    assert (cohort.obs["control_type"] == "negative").sum() == 6
    negatives = ledger[ledger["group"] == "negative control"]
    assert (negatives[["swabs_before", "swabs_after"]] == 6).all(axis=None)


def test_contaminants_are_what_negative_controls_have_more_of(tmp_path):
    cohort, _ = with_negatives(tmp_path)
    found = quality.flag_contaminants(cohort, alpha=0.2)
    assert found.index[found["contaminant"]].tolist() == ["asv_4"]
    # asv_4: in 6 of 6 negatives and 3 of 8 swabs. P(6 of the 9 in the 6 negatives) = C(8, 3) / C(14, 9).
    assert found.loc["asv_4", "p_value"] == pytest.approx(56 / 2002)
    assert found.loc["asv_4", ["prevalence_negatives", "prevalence_swabs"]].tolist() == [1, 3 / 8]
    assert found.loc["asv_2", "p_value"] == pytest.approx(1)
    larger = quality.flag_contaminants(cohort, alpha=1.1)["contaminant"]
    assert larger.index[larger].tolist() == ["asv_4"]  # the others have more reads in swabs, whatever the level
    none = quality.flag_contaminants(cohort[cohort.obs["control_type"] == "sample"], alpha=0.2)
    assert none.empty
    assert list(none.columns) == list(found.columns)


def test_missingness_counts_swabs_of_each_group(tmp_path):
    cohort, _ = ingest.build_cohort(study_in(tmp_path))
    table = quality.missingness(cohort).set_index(["column", "group"])
    assert table.loc[("age", "case")].tolist() == [2, 6, pytest.approx(100 / 3)]
    assert table.loc[("easi", "control"), "per_cent"] == 100
    assert ("arm", "control") not in table.index


@pytest.mark.parametrize(
    ("check", "column", "value"),
    [
        ("One swab a subject, visit and site", "visit", "baseline"),
        ("Each subject in one arm", "arm", "comparator"),
        ("EASI within 0 to 72", "easi", 72.5),
    ],
)
def test_integrity_checks_see_what_is_broken(tmp_path, check, column, value):
    cohort, _ = ingest.build_cohort(study_in(tmp_path))
    assert set(quality.integrity_checks(cohort)["result"]) == {"pass"}
    cohort.obs.loc["S-2", column] = value
    assert quality.integrity_checks(cohort).set_index("check").loc[check, "result"] == "fail"


def test_integrity_checks_see_counts_that_are_not_counts(tmp_path):
    cohort, _ = ingest.build_cohort(study_in(tmp_path))
    cohort.X.data[0] = 0.5
    assert (quality.integrity_checks(cohort)["result"] == "fail").sum() == 1


def test_a_saved_cohort_comes_back_the_same(tmp_path):
    tree = {"files": {"tree": {"path": "tree"}}}
    study = study_in(tmp_path, tree, tree=TREE.encode())
    cohort, _ = ingest.build_cohort(study)
    file = ingest.save_cohort(cohort, tmp_path / "results")
    first = file.read_bytes()
    loaded, its_study = ingest.load_cohort(tmp_path / "results")
    pd.testing.assert_frame_equal(loaded.obs, cohort.obs)
    pd.testing.assert_frame_equal(loaded.var, cohort.var)
    assert (loaded.X != cohort.X).nnz == 0
    assert dict(loaded.uns) == dict(cohort.uns)
    assert its_study.model_dump() == study.model_dump()
    assert set(json.loads(loaded.uns["checksums"])) == {"counts", "metadata", "taxonomy", "tree"}
    again, _ = ingest.build_cohort(study)
    assert ingest.save_cohort(again, tmp_path / "again").read_bytes() == first
    assert [f.name for f in (tmp_path / "results").iterdir()] == ["cohort.h5ad"]
    with pytest.raises(StudyError, match="01_ingest"):
        ingest.load_cohort(tmp_path / "nowhere")


# --- what programs write ---------------------------------------------------------------------------------------------

RANKED = pd.DataFrame(
    [[*AUREUS[:6], "aureus"], [*AUREUS[:6], "hominis"], [*AUREUS[:6], "NA"], ["Bacteria", *["NA"] * 6]],
    index=COUNTS.columns,
    columns=[rank.title() for rank in RANKS],
)


@pytest.mark.parametrize(
    "table",
    [
        pd.concat([RANKED, COUNTS.T], axis=1),
        pd.concat([COUNTS.T, RANKED.assign(confidence="0.98", sequence="ACGT")], axis=1),
        COUNTS.T.assign(Taxon=LINEAGES, Confidence="0.9"),
    ],
    ids=["ranks before", "ranks behind, and more", "lineage and confidence"],
)
def test_taxonomy_beside_the_counts_is_the_taxonomy(tmp_path, table):
    study = study_in(tmp_path, {"files": {"taxonomy": "none"}}, counts=tsv(table.rename_axis("OTU")))
    cohort, _ = ingest.build_cohort(study)
    assert (cohort.X.toarray() == COUNTS.to_numpy()).all()
    assert cohort.var["species"].tolist() == ["Staphylococcus aureus", "Staphylococcus hominis", "", ""]


def nested(species: pd.DataFrame, own: dict[str, int] | None = None) -> pd.DataFrame:
    """Rows of each rank above, each the sum of those below it and of what is `own` to it."""
    rows = dict(species.items())
    for name, column in species.items():
        parts = str(name).split("|")
        for n in range(1, len(parts)):
            above = "|".join(parts[:n])
            rows[above] = rows.get(above, 0) + column
    for name, more in (own or {}).items():
        for n in range(1, len(name.split("|")) + 1):
            above = "|".join(name.split("|")[:n])
            rows[above] = rows[above] + more
    return pd.DataFrame(rows).T


METAPHLAN = COUNTS.set_axis(
    [
        *(
            f"k__Bacteria|p__Firmicutes|c__|o__|f__|g__Staphylococcus|s__Staphylococcus_{s}"
            for s in ("aureus", "hominis")
        ),
        "k__Bacteria|p__Firmicutes|c__|o__|f__|g__Bacillus",
        "k__Bacteria|p__Actinobacteria",
    ],
    axis=1,
)


def named_by_features(tmp_path, table, **more):
    study = study_in(tmp_path, {"files": {"taxonomy": "feature_names"}} | more, counts=tsv(table.rename_axis("clade")))
    return ingest.build_cohort(study)[0]


def test_rows_that_sum_up_others_are_left_out_and_said_to_be(tmp_path):
    cohort = named_by_features(tmp_path, nested(METAPHLAN))
    assert set(cohort.var_names) == set(METAPHLAN)
    assert cohort.obs["depth"].tolist() == [100] * 8
    assert cohort.uns["counts_told"].startswith(
        "6 rows of the counts that are sums of others are left out: k__Bacteria, "
    )
    assert "6 rows of the counts that are sums of others" in "\n".join(
        inspection._swabs(load_study(tmp_path), cohort, ingest.build_cohort(load_study(tmp_path))[1])
    )


def test_reads_named_no_further_than_a_rank_above_stay(tmp_path):
    genus = "k__Bacteria|p__Firmicutes|c__|o__|f__|g__Staphylococcus"
    cohort = named_by_features(tmp_path, nested(METAPHLAN, {genus: 50}))
    assert set(cohort.var_names) == {*METAPHLAN, genus}
    assert cohort.obs["depth"].tolist() == [150] * 8
    assert (cohort[:, genus].X.toarray() == 50).all()


def test_no_read_counts_twice_where_each_rank_has_some_that_are_named_no_further(tmp_path):
    rows = nested(METAPHLAN)
    inner = [name for name in rows.index if name not in METAPHLAN]
    more = nested(METAPHLAN, {name: 10 * (i + 1) for i, name in enumerate(inner)})
    cohort = named_by_features(tmp_path, more)
    assert set(cohort.var_names) == set(more.index)
    assert cohort.obs["depth"].tolist() == more.loc["k__Bacteria"].tolist()
    assert "sums of others are left out, but for reads that are named no further" in cohort.uns["counts_told"]


def test_a_total_of_ranks_is_left_out_too(tmp_path):
    rows = nested(METAPHLAN)
    cohort = named_by_features(tmp_path, pd.concat([rows, rows.loc[["k__Bacteria"]].rename({"k__Bacteria": "Total"})]))
    assert set(cohort.var_names) == set(METAPHLAN)
    assert cohort.obs["depth"].tolist() == [100] * 8


def test_rows_that_only_look_nested_are_all_kept(tmp_path):
    flat = METAPHLAN.assign(**{"k__Bacteria|p__Firmicutes": 5, "k__Bacteria": 1}).T
    assert named_by_features(tmp_path, flat).n_vars == 6
    lone = METAPHLAN.assign(**{"k__Bacteria|p__Firmicutes": 1000}).T  # without the ranks between
    cohort = named_by_features(tmp_path, lone)
    assert (cohort.n_vars, cohort.uns["counts_told"]) == (5, "")


def test_a_row_of_totals_is_left_out_and_a_row_only_named_so_is_not(tmp_path):
    table = METAPHLAN.assign(Total=METAPHLAN.sum(axis=1)).T
    assert set(named_by_features(tmp_path, table).var_names) == set(METAPHLAN)
    table.loc["Total", "S-3"] += 7
    assert "Total" in named_by_features(tmp_path, table).var_names


def test_features_named_by_genus_or_species_are_so_named(tmp_path):
    names = ["Staphylococcus aureus", "Staphylococcus", "Prevotella_7", "s__Cutibacterium_acnes"]
    cohort = named_by_features(tmp_path, COUNTS.set_axis(names, axis=1))
    assert cohort.var["genus"].tolist() == ["Staphylococcus", "Staphylococcus", "Prevotella 7", "Cutibacterium"]
    assert cohort.var["species"].tolist() == ["Staphylococcus aureus", "", "", "Cutibacterium acnes"]
    for name in (
        "Bacteria",
        "Unassigned",
        "Unknown",
        "ASV_12",
        "Otu0001",
        "Staphylococcaceae",
        "Lactobacillales",
        "Other",
    ):
        assert lineage.parse_lineage(name)[5:] == ["", ""], name


def test_files_of_mothur_are_read(tmp_path):
    shared_file = COUNTS.rename_axis("Group").reset_index()
    shared_file.insert(0, "label", "0.03")
    shared_file.insert(2, "numOtus", "4")
    support = AUREUS[:6]
    texts = ["".join(f"{name}({n});" for n, name in zip(range(100, 90, -1), ranks, strict=False)) for ranks in (
        support, support, [*support[:4], "Staphylococcaceae_unclassified", "Staphylococcaceae_unclassified"], support
    )]  # fmt: skip
    taxonomy = pd.DataFrame({"OTU": COUNTS.columns, "Size": "9", "Taxonomy": texts})
    study = study_in(tmp_path, counts=tsv(shared_file, index=False), taxonomy=tsv(taxonomy, index=False))
    cohort, _ = ingest.build_cohort(study)
    assert (cohort.X.toarray() == COUNTS.to_numpy()).all()
    assert cohort.var["genus"].tolist() == ["Staphylococcus", "Staphylococcus", "", "Staphylococcus"]
    assert cohort.var["family"].tolist() == ["Staphylococcaceae", "Staphylococcaceae", "", "Staphylococcaceae"]


# --- real files ------------------------------------------------------------------------------------------------------


def shared(path: str) -> Path:
    if not (SHARED / path).exists():
        pytest.skip(f"the shared data are not here: {path}")
    return SHARED / path


def bare_study(folder: Path, samples: list[str], lineages: object, **files: bytes):
    """A study around a real table whose samples' metadata are made up."""
    rows = {
        "id": samples,
        "person": samples,
        "status": ["AD", "healthy"] * (len(samples) // 2) + ["AD"] * (len(samples) % 2),
    }
    table = pd.DataFrame(rows).assign(drug="dupi", month="0", age="NA", easi="NA", inflamed="yes", smoker="0")
    changes = {"files": {"taxonomy": lineages}, "minimum_depth": 1}
    return study_in(folder, changes, metadata=tsv(table, index=False), **files)


def test_real_qiime2_artifact_and_biom_are_read(tmp_path):
    data = shared("formats/oral_trimmed_deblur.biom").read_bytes()
    samples = list(biom.load_table(str(shared("formats/oral_trimmed_deblur.biom"))).ids())
    taxonomy = shared("formats/deblur-taxonomy.qza").read_bytes()
    study = bare_study(tmp_path, samples, {"path": "taxonomy"}, counts=data, taxonomy=taxonomy)
    cohort, _ = ingest.build_cohort(study)
    assert cohort.X.sum() == 422961
    assert cohort.var.loc["39c4199fe81f30a5b4b0fd5bf2f43c03", "kingdom"] == "Bacteria"
    assert (cohort.var["genus"] != "").mean() > 0.5
    named = cohort.var[cohort.var["species"] != ""]
    assert (named["species"].str.split(" ").str[0] == named["genus"]).all()


def test_real_collapsed_table_is_named_by_its_lineages(tmp_path):
    data = shared("formats/oral-collapsed-table.qza").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data/feature-table.biom"))
        with h5py.File(io.BytesIO(archive.read(name)), "r") as file:
            samples = list(biom.Table.from_hdf5(file).ids())
    cohort, _ = ingest.build_cohort(bare_study(tmp_path, samples, "feature_names", counts=data))
    assert cohort.X.sum() == 2640294
    assert "Actinomyces" in set(cohort.var["genus"])
    assert set(cohort.var["species"]) == {""}


def test_the_real_study_gives_the_published_figures(tmp_path):
    raw = shared("studies/khadka2021")
    shutil.copy(ROOT / "data" / "khadka2021" / "study.yaml", tmp_path)
    shutil.copytree(raw, tmp_path / "raw", copy_function=shutil.copyfile)
    cohort, ledger = ingest.build_cohort(load_study(tmp_path))
    aureus = (cohort.var["species"] == "Staphylococcus aureus").to_numpy()
    share = 100 * np.asarray(cohort.X[:, aureus].sum(axis=1)).ravel() / cohort.obs["depth"]
    baseline = cohort.obs["visit"] == "baseline"
    lesional = share[baseline & cohort.obs["lesional"].fillna(False)]
    control = share[baseline & (cohort.obs["group"] == "control")]
    assert (len(lesional), round(lesional.mean(), 1)) == (56, 36.7)
    # 24 swabs, and four of a control without a visit; the mean of those alone is 2.1.
    assert (len(control), round(control.mean(), 1)) == (28, 1.8)
    assert ledger.loc[ledger["step"].eq("visit"), ["swabs_before", "swabs_after"]].sum().nunique() == 1
    assert set(quality.integrity_checks(cohort)["result"]) == {"pass"}


def test_the_study_of_dogs_gives_the_figures_that_were_computed_without_this_code(tmp_path):
    raw = shared("studies/kunstner2022")
    shutil.copy(ROOT / "data" / "kunstner2022" / "study.yaml", tmp_path)
    shutil.copytree(raw, tmp_path / "raw", copy_function=shutil.copyfile)
    study = load_study(tmp_path)
    cohort, _ = ingest.build_cohort(study)
    genus = (cohort.var["genus"] == "Staphylococcus").to_numpy()
    share = 100 * np.asarray(cohort.X[:, genus].sum(axis=1)).ravel() / cohort.obs["depth"]
    parts = cohort.X.toarray() / cohort.obs["depth"].to_numpy()[:, None]
    shannon = -np.where(parts > 0, parts * np.log(np.where(parts > 0, parts, 1)), 0).sum(axis=1)
    swabs = cohort.obs.assign(share=share, shannon=shannon)
    of = swabs.groupby(["group", "visit"], observed=True)[["share", "shannon"]].mean().round({"share": 1, "shannon": 2})
    assert of.loc[("case", "baseline")].tolist() == [22.8, 3.09]
    assert of.loc[("case", "followup")].tolist() == [6.2, 3.39]
    assert of.loc[("control", "baseline")].tolist() == [5.4, 3.48]
    dogs = swabs.groupby(["group", "visit"], observed=True)["subject"].nunique()
    assert dogs.to_dict() == {("control", "baseline"): 18, ("case", "baseline"): 9, ("case", "followup"): 9}
    assert set(swabs.loc[swabs["group"].eq("case"), "subject"]) == {f"A{i:02}" for i in (*range(1, 7), 8, 9, 10)}
    assert swabs["site"].nunique() == 12
    assert "b''" not in set(cohort.var["genus"])
    assert len(list(TreeNode.read([cohort.uns["tree"]]).tips())) == cohort.n_vars
    assert set(quality.integrity_checks(cohort)["result"]) == {"pass"}


def test_what_ends_an_identifier_is_not_of_the_person_where_study_yaml_says_so(tmp_path):
    rows = METADATA.assign(person=METADATA["person"] + METADATA["month"].map({"0": "pre", "3": ".post"}))
    changes = {"columns": {"subject_endings": ["pre", ".post"]}}
    cohort, _ = ingest.build_cohort(study_in(tmp_path, changes, metadata=tsv(rows, index=False)))
    assert cohort.obs["subject"].tolist() == METADATA["person"].tolist()
    rows["person"] = rows["person"].replace("p1pre", "pre")  # nothing would be left of this one
    cohort, _ = ingest.build_cohort(study_in(tmp_path, changes, metadata=tsv(rows, index=False)))
    assert cohort.obs["subject"].iloc[0] == "pre"
