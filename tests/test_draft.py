import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import biom
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import CASES
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from test_hostile import generated, tables
from test_ingest import hdf5, qza

from helpers import narrate, words
from helpers.__main__ import main
from helpers.errors import StudyError
from helpers.ingest import build_cohort
from helpers.intake import draft
from helpers.intake.guess import Draft, guess
from helpers.study import Column, Study, load_study
from helpers.tables import Counts

ROOT = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2] / "shared"
KHADKA = ("biological_replicates_merged_reads.csv", "meta_biological_replicates_merged.csv")


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path


def cohort() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts (features in rows) and metadata of eight patients, two arms, and four controls, at two visits."""
    rows = [
        {
            "#SampleID": f"S{i}.{week}",
            "PatientID": f"p{i}",
            "Diagnosis": "AD" if i < 8 else "HC",
            "treatment_arm": ("placebo" if i % 2 else "tralokinumab") if i < 8 else "NA",
            "Week": week,
            "age_years": str(30 + i),
            "Gender": "fm"[i % 2],
            "EASI": str(20 - int(week) / 2 + i) if i < 8 else "",
            "Swab date": f"2021-03-{i + 10}",
            "smoker": "yn"[i % 3 == 0],
        }
        for i in range(12)
        for week in ("0", "16")
    ]
    metadata = pd.DataFrame(rows)
    reads = np.random.default_rng(1).integers(200, 900, (4, len(metadata)))
    features = [f"k__Bacteria;p__Firmicutes;c__Bacilli;o__X;f__Y;g__Z{i};s__" for i in range(4)]
    return pd.DataFrame(reads, index=features, columns=list(metadata["#SampleID"])), metadata


def made(folder: Path, counts: pd.DataFrame, metadata: pd.DataFrame) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    counts.to_csv(folder / "counts.tsv", sep="\t", index_label="#OTU ID")
    metadata.to_csv(folder / "metadata.csv", index=False)
    return folder / "counts.tsv", folder / "metadata.csv"


def drafted(tmp_path: Path, *given: Path | None) -> tuple[Study, str, str]:
    """The study that was drafted, its text and the summary."""
    files: dict[str, Any] = dict(zip(("table", "metadata", "taxonomy", "tree"), given, strict=False))
    told = draft.draft_study("mine", **files, data_folder=tmp_path / "data")
    folder = tmp_path / "data" / "mine"
    return load_study(folder), (folder / "study.yaml").read_text(encoding="utf-8"), told


def meaning(column: Column) -> dict[str, list[str]]:
    return dict(column)["values"]


def guessed(metadata: pd.DataFrame, reads: np.ndarray | None = None) -> Draft:
    """What is guessed of swabs, which are in the first column; it makes a valid study."""
    samples = list(metadata.iloc[:, 0])
    depths = np.full(len(samples), 5000) if reads is None else reads
    counts = Counts(sparse.csr_matrix(depths.reshape(-1, 1)), samples, ["feature"])
    found = guess(metadata.astype(object), counts, True, False)
    found.files |= {"counts": {"path": "c"}, "metadata": {"path": "m"}}
    Study.model_validate(yaml.safe_load(draft._study_text("x", found)))
    return found


def values(column: str, ignore: list[str] | None = None, **meaning: list[str]) -> dict[str, Any]:
    """A categorical column as study.yaml has it."""
    return {"column": column, "values": meaning} | ({"ignore": ignore} if ignore else {})


def checks(text: str) -> list[str]:
    """What the comments want to have checked."""
    return [line.split("CHECK: ")[1].split(":")[0] for line in text.splitlines() if "# CHECK: " in line]


# ---------------------------------------------------------------- whole cohorts


def test_draft_of_a_plain_cohort_builds_as_it_is(tmp_path: Path) -> None:
    paths = made(tmp_path, *cohort())
    study, text, told = drafted(tmp_path, *paths)
    schema = text.split("\n")[0].removeprefix("# yaml-language-server: $schema=")
    assert (ROOT / "data/mine" / schema).resolve() == ROOT / "docs/study.schema.json"
    built, _ = build_cohort(study)
    assert built.shape == (24, 4)
    assert built.obs.groupby(["group", "arm", "visit"], observed=True, dropna=False).size().tolist() == [4] * 6
    columns = study.columns
    assert (columns.sample, columns.subject, columns.age, columns.sex) == (
        "#SampleID",
        "PatientID",
        "age_years",
        "Gender",
    )
    assert columns.arm
    assert meaning(columns.arm) == {"treatment": ["tralokinumab"], "comparator": ["placebo"]}
    assert (study.labels.control, study.labels.treatment, study.labels.followup) == (
        "Healthy control", "Tralokinumab", "Week 16",
    )  # fmt: skip
    assert study.files.taxonomy == "feature_names"
    assert [(s.name, s.column, s.range) for s in study.severity] == [("easi", "EASI", (0, 72))]
    assert checks(text) == ["title, about, source, licence", "randomised", "labels", "minimum_depth"]
    for file, path in zip((study.files.counts, study.described), paths, strict=True):
        assert study.path(file).read_bytes() == path.read_bytes()
    assert "make check STUDY=mine" in told
    assert told.index("make check STUDY=mine") < told.index("make report STUDY=mine")
    assert "Not used: 'Swab date' has dates." in text


def test_commented_covariates_are_keys_once_uncommented(tmp_path: Path) -> None:
    _, text, _ = drafted(tmp_path, *made(tmp_path, *cohort()))
    lines = [
        line.replace("  # ", "  ", 1) if "smoker" in line or "# covariates:" in line else line
        for line in text.split("\n")
    ]
    (tmp_path / "data/mine/study.yaml").write_text("\n".join(lines))
    assert load_study(tmp_path / "data/mine").columns.covariates == {"smoker": "smoker"}


def test_draft_of_khadka_needs_three_edits(tmp_path: Path) -> None:
    table, metadata = (shared(f"studies/khadka2021/{name}") for name in KHADKA)
    study, text, _ = drafted(tmp_path, table, metadata)
    with pytest.raises(StudyError, match="not whole"):
        build_cohort(study)
    assert {"counts", "visit", "minimum_depth", "group", "arm"} <= set(checks(text))
    assert (study.adjust.group, study.adjust.arm) == ([], ["age", "sex"]), "the controls' ages are not recorded"
    for drafted_line, edited in (
        ("fractions: error", "fractions: round"),
        ("Visit 4: ['4']\n      followup: ['5']", "followup: ['4']\n      Visit 5: ['5']"),
        ("minimum_depth: 630", "minimum_depth: 500"),
    ):
        assert text.count(drafted_line) == 1
        text = text.replace(drafted_line, edited)
    text = text.replace("small_cells: suppress", "small_cells: show")  # groups at the last visits are small
    (tmp_path / "data/mine/study.yaml").write_text(text)
    (tmp_path / "raw").mkdir()
    for path in (table, metadata):
        shutil.copy(path, tmp_path / "raw")
    mine, _ = build_cohort(load_study(tmp_path / "data/mine"))
    theirs, _ = build_cohort(load_study(ROOT / "data/khadka2021").elsewhere(tmp_path))
    assert mine.shape == theirs.shape
    pd.testing.assert_frame_equal(mine.obs, theirs.obs)


def test_draft_of_the_demo_guesses_its_columns(tmp_path: Path) -> None:
    demo = ROOT / "data/demo"
    paths = [demo / name for name in ("counts.biom", "metadata.tsv", "taxonomy.tsv", "tree.nwk")]
    study, text, _ = drafted(tmp_path, *paths)
    written = load_study(demo)
    assert study.columns.model_dump(exclude={"covariates"}) == written.columns.model_dump(exclude={"covariates"})
    assert study.severity == written.severity
    assert study.minimum_depth == written.minimum_depth
    assert study.adjust.group == written.adjust.group
    assert checks(text) == ["title, about, source, licence", "randomised", "labels", "minimum_depth", "swabs"]
    for column in written.columns.covariates:
        assert f"  #   {column}: {column}" in text
    assert build_cohort(study)[0].shape == build_cohort(written)[0].shape


@pytest.mark.parametrize("name", ["oral_trimmed_deblur.biom", "oral-collapsed-table.qza"])
def test_draft_without_group_and_visit_can_be_loaded_and_says_so(tmp_path: Path, name: str) -> None:
    table, taxonomy = shared(f"formats/{name}"), shared("formats/deblur-taxonomy.qza")
    counts, _ = draft._read_counts(table, table.read_bytes())
    metadata = pd.DataFrame({"sample-id": counts.samples, "kit": "A", "volume": range(len(counts.samples))})
    metadata.to_csv(tmp_path / "m.tsv", sep="\t", index=False)
    study, text, told = drafted(tmp_path, table, tmp_path / "m.tsv", taxonomy if "deblur" in name else None)
    assert meaning(study.columns.group) == {"case": ["A"]}
    assert meaning(study.columns.visit) == {"baseline": ["A"]}
    assert {"group", "visit", "subject", "arm", "severity"} <= set(checks(text))
    assert "stand-in" in told
    built, _ = build_cohort(study)
    assert len(built) == (np.asarray(counts.X.sum(axis=1)) >= study.minimum_depth).sum()


# ---------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("levels", "visits", "ignored"),
    [
        (["post", "pre"], {"baseline": ["pre"], "followup": ["post"]}, []),
        (["W16", "W4", "Baseline"], {"baseline": ["Baseline"], "Week 4": ["W4"], "followup": ["W16"]}, []),
        (["10", "9"], {"baseline": ["9"], "followup": ["10"]}, []),
        (["3 months", "screening", "baseline"], {"baseline": ["baseline"], "followup": ["3 months"]}, ["screening"]),
        (["T1", "T0"], {"baseline": ["T0"], "followup": ["T1"]}, []),
    ],
)
def test_visits_are_ordered_in_time(levels: list[str], visits: dict[str, list[str]], ignored: list[str]) -> None:
    rows = [(f"{p}-{v}", f"p{p}", v) for p in range(6) for v in levels]
    guesses = guessed(pd.DataFrame(rows, columns=["id", "donor", "visit"]))
    assert guesses.columns["visit"] == values("visit", ignored, **visits)
    assert list(guesses.columns["visit"]["values"]) == list(visits)
    assert bool(guesses.checks.get("columns.visit")) == (len(levels) > 2)


def people(**columns: list[str]) -> pd.DataFrame:
    """One row for each value, twelve times over, at two visits."""
    rows = pd.DataFrame(columns)
    each = pd.concat([rows.assign(subject=[f"p{i}-{k}" for k in range(len(rows))]) for i in range(12)])
    both = pd.concat([each.assign(visit=v) for v in ("0", "1")], ignore_index=True)
    return pd.concat([pd.DataFrame({"id": [f"s{i}" for i in range(len(both))]}), both], axis=1)


def test_arms_in_the_column_of_the_group_are_told_from_controls() -> None:
    guesses = guessed(people(group=["dupilumab", "ciclosporin", "healthy"]))
    group, arm = guesses.columns["group"], guesses.columns["arm"]
    assert group["values"]["control"] == ["healthy"]
    assert sorted(group["values"]["case"]) == ["ciclosporin", "dupilumab"]
    assert arm == values("group", treatment=["dupilumab"], comparator=["ciclosporin"])


def test_a_trial_without_healthy_controls_has_no_control_group() -> None:
    guesses = guessed(people(arm=["active", "control"]))
    assert guesses.columns["arm"] == values("arm", treatment=["active"], comparator=["control"])
    assert list(guesses.columns["group"]["values"]) == ["case"]
    assert "columns.group" in guesses.checks


def test_which_arm_is_the_treatment_is_asked_where_nothing_tells() -> None:
    guesses = guessed(people(arm=["A", "B"]))
    assert "nothing tells" in guesses.checks["columns.arm"][0]
    assert guessed(people(body_site=["elbow"])).columns["site"] == "body_site", "though it stands in for the group"
    previous = guessed(people(previous_treatment=["dupilumab", "placebo"]))
    assert "arm" not in previous.columns


def test_skin_of_controls_beside_lesional_and_not() -> None:
    guesses = guessed(people(skin_type=["AD-L", "AD-NL", "healthy"]))
    assert guesses.columns["lesional"] == values("skin_type", lesional=["AD-L"], non_lesional=["AD-NL", "healthy"])
    assert "columns.lesional" in guesses.checks
    assert guesses.columns["group"] == values("skin_type", control=["healthy"], case=["AD-L", "AD-NL"])


def test_labels_are_short_and_never_the_same() -> None:
    labels = guessed(people(diagnosis=["healthy" + "x" * 80, "AD", "AD"], drug=["NA", "drug_a", "Drug a"])).labels
    assert max(map(len, labels.values())) == 60
    assert len(set(labels.values())) == len(labels)


def test_negative_controls_are_no_controls() -> None:
    table = people(diagnosis=["AD", "control", "not applicable"], kind=["skin", "skin", "extraction blank"])
    guesses = guessed(table)
    assert guesses.columns["control_type"] == values("kind", sample=["skin"], negative=["extraction blank"])
    assert guesses.columns["group"] == values("diagnosis", control=["control"], case=["AD"])


def test_a_score_beyond_its_range_is_asked() -> None:
    guesses = guessed(people(status=["AD", "AD", "healthy"], SCORAD=["20", "110", "0"], EASI_change=["1", "2", "3"]))
    assert [(s["column"], s["range"]) for s in guesses.severity] == [("SCORAD", [0, 110])]
    assert "usually 0 to 103" in guesses.checks["severity"][0]


def test_subjects_are_found_by_what_stays_the_same() -> None:
    table = people(age=["20", "30"], sex=["F", "M"]).rename(columns={"subject": "code"})
    guesses = guessed(table)
    assert guesses.columns["subject"] == "code"
    assert "columns.subject" in guesses.checks
    assert guessed(table.drop(columns="code")).columns["subject"] == "id"


def test_samples_that_are_only_alike_are_not_joined(tmp_path: Path) -> None:
    counts, metadata = cohort()
    metadata["#SampleID"] = metadata["#SampleID"].str.lower().str.replace(".", "_")
    study, text, _ = drafted(tmp_path, *made(tmp_path, counts, metadata))
    assert study.columns.sample == "#SampleID"
    assert "'S0.16' is like 's0_16'" in " ".join(text.replace("#  ", "").split())
    with pytest.raises(StudyError, match="is like"):
        build_cohort(study)


@pytest.mark.parametrize(("share", "told"), [(True, "look like relative abundances"), (False, "look like means of")])
def test_counts_that_are_not_whole_are_never_rounded_unasked(tmp_path: Path, share: bool, told: str) -> None:
    counts, metadata = cohort()
    counts = counts / counts.sum() if share else counts + 0.5
    study, text, _ = drafted(tmp_path, *made(tmp_path, counts, metadata))
    assert study.files.counts.fractions == "error"
    assert told in " ".join(text.replace("#  ", "").split())


@pytest.mark.parametrize("low", [0.05, 0.5])
def test_minimum_depth_follows_the_reads(low: float) -> None:
    depths = np.where(np.arange(200) < 200 * low, np.arange(200) + 400, 5000)
    rows = people(status=["AD", "healthy"]).head(len(depths))
    rows = pd.concat([rows] * 5, ignore_index=True).head(len(depths))
    guesses = guessed(rows.assign(id=[f"s{i}" for i in range(len(depths))]), depths)
    assert guesses.minimum_depth == (1000 if low < 0.1 else 400)
    assert f"{1 - low:.0%} have 1,000 or more" in guesses.checks["minimum_depth"][0]


# ---------------------------------------------------------------- columns that are not quite as they should be


def strangers(**columns: Any) -> pd.DataFrame:
    """Eight patients in two arms and four controls at two visits, in a stranger's names; `columns` are set by row."""
    rows = [
        {
            "SAMPLE": f"S{i}{t}",
            "Subject": f"p{i}",
            "Status": "AD" if i < 8 else "HC",
            "Treatment": ("Dupilumab" if i % 2 else "Cyclosporine") if i < 8 else "not applicable",
            "Timepoint": t,
            "Age": str(30 + i),
            "EASI": str(20 - 5 * (t == "T1") + i) if i < 8 else "missing: not collected",
        }
        for i in range(12)
        for t in ("T0", "T1")
    ]
    table = pd.DataFrame(rows)
    for column, by_row in columns.items():
        table.loc[list(by_row), column] = list(by_row.values())
    return table


def built_of(found: Draft, metadata: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The swabs of the study as it was drafted, without an edit."""
    counts = pd.DataFrame({"a": 3000, "b": 2000}, index=metadata.iloc[:, 0])
    table, rows = made(folder, counts, metadata)
    found.files |= {"counts": {"path": table.name}, "metadata": {"path": rows.name}}
    (folder / "study.yaml").write_text(draft._study_text("x", found))
    return build_cohort(load_study(folder))[0].obs


def test_words_for_nothing_recorded_are_named_and_taken_as_such(tmp_path: Path) -> None:
    table = strangers(EASI={1: "NR", 3: "NR", 5: "-"}, Age={0: "restricted access"})
    found = guessed(table)
    assert [s["column"] for s in found.severity] == ["EASI"]
    nothing = "'missing: not collected' in 8 rows, 'NR' in 2 rows, '-' in 1 row, taken for not recorded."
    assert found.checks["severity"] == [f"'EASI' has {nothing}"]
    assert found.checks["columns.age"] == ["'Age' has 'restricted access' in 1 row, taken for not recorded."]
    assert found.checks["columns.arm"] == ["'Treatment' has 'not applicable' in 8 rows, taken for not recorded."]
    obs = built_of(found, table, tmp_path)
    assert obs["easi"].isna().sum() == 11
    assert obs["age"].isna().sum() == 1
    assert len(obs) == 24


def test_an_nr_among_categories_is_a_category(tmp_path: Path) -> None:
    table = strangers().assign(response=["R", "NR"] * 12)
    found = guessed(table)
    found.columns["covariates"] = {"answer": "response"}
    assert built_of(found, table, tmp_path)["answer"].value_counts().to_dict() == {"R": 12, "NR": 12}


def test_decimal_commas_are_read_and_named_where_no_value_has_a_point(tmp_path: Path) -> None:
    table = strangers(EASI={0: "12,5", 1: "7,25"})
    found = guessed(table)
    assert "'EASI' has '12,5' in 1 row, '7,25' in 1 row, read with a decimal comma." in found.checks["severity"]
    assert built_of(found, table, tmp_path)["easi"].tolist()[:3] == [12.5, 7.25, 21]


@pytest.mark.parametrize(
    "cells",
    [["12,5", "3.5", "7,5"], ["1,250", "2,125", "3"], ["12,5", "3", "4"]],
    ids=["also a point", "thousands", "one only"],
)
def test_a_comma_that_may_be_another_sign_is_no_decimal(cells: list[str]) -> None:
    _, odd = words.numbers(pd.Series(cells))
    assert odd.tolist() == ["," in cell for cell in cells]


def test_an_impossible_value_is_named_and_the_column_known(tmp_path: Path) -> None:
    table = strangers(Age={3: "430"}, EASI={2: "999", 4: "lost"})
    found = guessed(table)
    assert found.columns["age"] == "Age"
    assert found.checks["columns.age"] == ["'Age' has '430' in 1 row, which is no age: correct it, or write NA."]
    assert found.severity[0]["range"] == [0, 72]
    told = " ".join(found.checks["severity"])
    assert "'EASI' has '999' in 1 row, 'lost' in 1 row, which is no EASI: correct it, or write NA." in told
    with pytest.raises(StudyError, match=r"'EASI', rows 'S1T0'(.|\n)*999") as caught:
        built_of(found, table, tmp_path)
    assert "correct the cell, or columns.age_unit: months" in str(caught.value)


def test_a_date_among_scores_hides_neither_column(tmp_path: Path) -> None:
    found = guessed(strangers(EASI={1: "4-Mar-21"}, Age={4: "4.3.2021"}))
    assert [s["column"] for s in found.severity] == ["EASI"]
    assert "'EASI' has '4-Mar-21' in 1 row, which is no EASI: correct it, or write NA." in found.checks["severity"]
    assert found.checks["columns.age"] == ["'Age' has '4.3.2021' in 1 row, which is no age: correct it, or write NA."]
    mostly = strangers().assign(seen=["4.3.2021", "5.3.2021", *[pd.NA] * 22])
    assert "seen" not in guessed(mostly.fillna("")).free(), "however few are recorded"


def test_ages_in_months_are_converted_said_and_to_be_confirmed(tmp_path: Path) -> None:
    months = strangers()["Age"].astype(int)
    for table in (strangers().assign(Age=(12 * months).astype(str)), strangers().rename(columns={"Age": "age_months"})):
        found = guessed(table)
        assert found.columns["age_unit"] == "months"
        assert "looks like months" in found.checks["columns.age_unit"][0]
        obs = built_of(found, table, tmp_path)
        numbers = table[found.columns["age"]].astype(float)
        np.testing.assert_allclose(obs["age"], numbers / 12)
    assert "'age_months' looks like months: 30 to 41 are 2.5 to 3.4 years." in found.checks["columns.age_unit"][0]
    assert "Ages, recorded in months, are in years." in narrate.ages(load_study(tmp_path))
    both = guessed(strangers().assign(age_months=(12 * months).astype(str)))
    assert (both.columns["age"], both.columns.get("age_unit")) == ("Age", None)


def test_a_time_that_is_not_known_is_left_out_and_named() -> None:
    found = guessed(strangers(Timepoint={4: "unscheduled"}))
    assert found.columns["visit"] == values("Timepoint", ["unscheduled"], baseline=["T0"], followup=["T1"])
    why = "'Timepoint' has 'unscheduled' in 1 row, which is no time that is known: it is left out."
    assert found.checks["columns.visit"] == [why]


def test_negative_controls_are_told_by_the_names_of_their_swabs(tmp_path: Path) -> None:
    negatives = pd.DataFrame({"SAMPLE": ["NEG1", "NEG2"]}).reindex(columns=strangers().columns).fillna("not applicable")
    table = pd.concat([strangers(), negatives], ignore_index=True)
    found = guessed(table)
    assert found.columns["control_type"] == values("SAMPLE", negative=["NEG1", "NEG2"])
    assert found.columns["visit"] == values("Timepoint", baseline=["T0"], followup=["T1"])
    assert found.checks["columns.control_type"] == ["takes 'NEG1', 'NEG2' for negative controls, by their names."]
    kinds = built_of(found, table, tmp_path)["control_type"].value_counts().to_dict()
    assert kinds == {"sample": 24, "negative": 2}


@pytest.mark.parametrize(
    ("key", "column", "cells"),
    [
        ("visit", "Timepoint", ["V1_pre", "V2_post"]),
        ("arm", "Treatment", ["none", "Dupilumab"]),
        ("severity", "EASI", ["mild", "severe"]),
        ("subject", "Subject", ["all", "all"]),
        ("group", "Status", ["x", "y"]),
    ],
)
def test_a_column_that_is_there_is_never_said_to_be_absent(key: str, column: str, cells: list[str]) -> None:
    found = guessed(strangers().assign(**{column: cells * 12}))
    told = " ".join(found.checks[key if key == "severity" else f"columns.{key}"])
    assert f"'{column}' is named " in told
    assert f"'{cells[0]}'" in told
    assert "no column is named" not in told


def test_healthy_people_beside_a_control_are_the_controls() -> None:
    found = guessed(people(Treatment=["Treatment", "Control", "Healthy"]))
    assert found.columns["group"]["values"] == {"control": ["Healthy"], "case": ["Treatment", "Control"]}
    assert found.columns["arm"] == values("Treatment", treatment=["Treatment"], comparator=["Control"])


@pytest.mark.parametrize(
    ("column", "cells", "are"),
    [
        ("reads", ["20110", "19991", "20115"], False),
        ("collection_date", ["20110304", "2011104", "3"], True),
        ("when", ["20110304", "20121231", "19991130"], True),
        ("volume", ["20110304", "20121231", "40000000"], False),
        ("volume", ["3/4/21", "4.3.2021", "NA"], True),
    ],
)
def test_whole_numbers_are_dates_only_where_the_column_says_so_or_all_are_days(
    column: str, cells: list[str], are: bool
) -> None:
    assert words.dates(pd.Series(cells, name=column)).any() == are
    table = strangers().assign(**{column: cells * 8})
    assert bool(guessed(table).dates(column)) == are


# ---------------------------------------------------------------- text and files

WEIRD = [
    "no", "1e3", "=cmd", "a: b", "a # b", "it's", '"q"', "null", "~", "[x]", "{y}", "0x1F", "2021", "é ü", "日本",
    "a\\b", "😀", "*a", "&b", "!c", "- d", "%e", "@f", "`g`", "?", "a\u2028b", "a\u0085b", "a\u00a0b", "\ufeffz",
    "12:30:45", ".inf",
]  # fmt: skip


@pytest.mark.parametrize("name", WEIRD)
def test_weird_names_and_values_come_back_as_they_were(name: str) -> None:
    content = {"a": name, "b": [name, "x"], "c": {"d": name}, "e": [{"f": name}]}
    for key, value in content.items():
        text = draft._printable(draft._yaml(key, value))
        assert yaml.safe_load(text) == {key: value}
        assert yaml.safe_load(f"# {text.partition(chr(10))[0]}  # what it is\n{text}") == {key: value}
    assert "\n" not in draft._yaml("a", name), "a comment can stand behind it"
    assert yaml.safe_load("\n".join([*draft._wrapped(draft._printable(f"{name} " * 60), "# ", "# "), "a: 1"])) == {
        "a": 1
    }


def test_weird_headers_survive_a_draft(tmp_path: Path) -> None:
    names = [n for n in WEIRD if n not in ("?", "a\u0085b")]  # a control character is refused
    counts, metadata = cohort()
    metadata = metadata.rename(columns={"PatientID": "patient: 'no' # \"id\"\nnumber", "Diagnosis": "=diagnosis"})
    metadata["=diagnosis"] = metadata["=diagnosis"].map({"AD": 'AD: "a" # [b]', "HC": "healthy, {no}\ttab"})
    for k, name in enumerate(names):
        metadata[name] = [names[(k + i) % 3] for i in range(len(metadata))]
    study, text, _ = drafted(tmp_path, *made(tmp_path, counts, metadata))
    assert meaning(study.columns.group) == {"control": ["healthy, {no}\ttab"], "case": ['AD: "a" # [b]']}
    assert study.columns.group.column == "=diagnosis"
    lines = text.split("\n")
    start = lines.index("  # covariates:")
    block = [line[4:] for line in lines[start : lines.index("", start)] if not line.startswith("  # Not")]
    found = yaml.safe_load("\n".join(block))["covariates"]
    assert set(names) <= set(found.values())
    assert all(key.isidentifier() for key in found)
    assert build_cohort(study)[0].shape == (24, 4)


def test_metadata_without_any_value_is_drafted(tmp_path: Path) -> None:
    counts, metadata = cohort()
    study, _, _ = drafted(tmp_path, *made(tmp_path, counts, metadata.map(lambda _: "NA")))
    assert meaning(study.columns.group) == meaning(study.columns.visit) == {}


def test_an_existing_study_is_left_as_it_is(tmp_path: Path) -> None:
    paths = made(tmp_path, *cohort())
    (tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "data/mine/study.yaml").write_text("mine")
    with pytest.raises(StudyError, match="already"):
        drafted(tmp_path, *paths)
    assert [p.name for p in (tmp_path / "data/mine").iterdir()] == ["study.yaml"]
    assert (tmp_path / "data/mine/study.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "-x", "ä", "a\n"])
def test_a_name_is_that_of_a_plain_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyError, match="NAME"):
        draft.draft_study(name, *made(tmp_path, *cohort()), data_folder=tmp_path / "data")


def test_files_of_one_name_are_both_kept(tmp_path: Path) -> None:
    table, metadata = made(tmp_path / "a", *cohort())
    (tmp_path / "b").mkdir()
    other = metadata.rename(tmp_path / "b" / table.name)
    study, _, _ = drafted(tmp_path, table, other)
    assert study.described.path == "raw/metadata-counts.tsv"
    build_cohort(study)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("absent", "no such file"),
        ("folder", "folder"),
        ("pipe", "device"),
        ("name", "cannot be printed"),
        ("text", "is not a table"),
        ("write", "No space"),
    ],
)
def test_nothing_is_left_of_a_draft_that_failed(
    tmp_path: Path, wrong: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, metadata = made(tmp_path, *cohort())
    (tmp_path / "data").mkdir()
    if wrong == "absent":
        table = tmp_path / "no"
    elif wrong == "folder":
        table = tmp_path
    elif wrong == "pipe":
        os.mkfifo(table := tmp_path / "pipe")
    elif wrong == "name":
        table = table.rename(tmp_path / "a\nb")
    elif wrong == "text":
        metadata.write_text("no table")
    else:

        def full(folder: Path) -> Study:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(draft, "load_study", full)
    with pytest.raises(StudyError, match=told):
        drafted(tmp_path, table, metadata)
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.slow
@generated("draft")
@given(tables(cohort()[1]) | tables(cohort()[1], as_workbook=True) | st.deferred(lambda: tables(wide()[1])))
def test_any_metadata_gives_a_study_that_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    table, metadata = made(folder, *cohort())
    metadata.write_bytes(content)
    told = ""
    try:
        draft.draft_study("mine", table, metadata, data_folder=folder / "data")
    except StudyError as e:
        told = str(e)
    assert "study.yaml" not in told, "what was drafted is a valid study"
    assert (folder / "data").exists() == (not told)
    CASES["draft", "refused" if told else "valid"] += 1


def test_biom_with_other_samples_is_drafted_without_depths(tmp_path: Path) -> None:
    counts, metadata = cohort()
    table = biom.Table(counts.to_numpy(float), list(counts.index), [f"x{i}" for i in range(24)])
    (tmp_path / "t.biom").write_text(table.to_json("test"))
    study, text, _ = drafted(tmp_path, tmp_path / "t.biom", made(tmp_path, counts, metadata)[1])
    assert "no column has identifiers of the count table" in text
    assert study.minimum_depth == 1000


# ---------------------------------------------------------------- the command


def test_step_tells_what_is_wrong_without_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "mine", "--table", "no.tsv", "--metadata", "no.tsv"]) == 1
    assert "TABLE=" in capsys.readouterr().err
    table, metadata = made(tmp_path, *cohort())
    assert main(["study", "mine", "--table", str(table), "--metadata", str(metadata)]) == 0
    assert "make check STUDY=mine" in capsys.readouterr().out
    assert (tmp_path / "data/mine/study.yaml").is_file()


@pytest.mark.skipif(not shutil.which("make"), reason="make is not on PATH")
def test_make_passes_paths_as_they_are(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    fake = '#!/bin/sh\n[ "$1" = -c ] && exit 0\nfor a; do printf "%s\\n" "$a"; done\n'
    (tmp_path / "python").write_text(fake)
    (tmp_path / "python").chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    environment |= {"NAME": "thishost", "TREE": "elsewhere"}

    def make(*given: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "-s", "study", "PYTHON=./python", *given]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    table = "my 'table' \"$x\" $(id) `id`;#.tsv"
    done = make("NAME=mine", f"TABLE={table}", "METADATA=a b.tsv")
    assert done.returncode == 0, done.stderr
    expected = [f"--table={table}", "--metadata=a b.tsv", "--taxonomy=", "--tree=", "--from=", "--", "mine"]
    assert done.stdout.splitlines()[-7:] == expected
    done = make("NAME=mine", "FROM=$(id) x")
    assert done.stdout.splitlines()[-7:] == ["--table=", "--metadata=", *expected[2:4], "--from=$(id) x", "--", "mine"]
    for missing in ("NAME", "TABLE"):
        done = make(*(f"{v}=x" for v in ("NAME", "TABLE") if v != missing))
        assert done.returncode != 0
        assert f"{missing} is not given" in done.stderr


# ---------------------------------------------------------------- a row a person


def wide(rename: Callable[[str, str], str] = "{0}_w{1}".format) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cohort with a row a person: swabs and severity in a column for each week."""
    counts, metadata = cohort()
    person = ["PatientID", "Diagnosis", "treatment_arm", "age_years", "Gender"]
    rows = metadata.drop_duplicates("PatientID")[person].set_index("PatientID")
    for week, of_week in metadata.rename(columns={"#SampleID": "Swab"}).groupby("Week"):
        named = {name: rename(name, str(week)) for name in ("Swab", "EASI")}
        rows = rows.join(of_week.set_index("PatientID")[[*named]].rename(columns=named))
    return counts, rows.reset_index()


@pytest.mark.parametrize(
    "rename",
    [
        "{0}_w{1}".format,
        "Week {1} {0}".format,
        "{0}.Week{1}".format,
        lambda name, w: f"{'T0' if w == '0' else 'T1'}.{name}",
    ],
)
def test_a_row_a_person_is_drafted_as_a_row_a_swab(tmp_path: Path, rename: Callable[[str, str], str]) -> None:
    expected, _ = build_cohort(drafted(tmp_path / "long", *made(tmp_path / "a", *cohort()))[0])
    study, text, _ = drafted(tmp_path, *made(tmp_path / "b", *wide(rename)))
    built, _ = build_cohort(study)
    assert "files" in checks(text) or "metadata" in checks(text)
    assert study.files.metadata
    assert len(study.files.metadata.visits) == 2
    assert [s.name for s in study.severity] == ["easi"]
    columns = ["subject", "group", "arm", "visit", "easi", "age", "sex", "depth"]
    pd.testing.assert_frame_equal(built.obs.loc[expected.obs_names, columns], expected.obs[columns])


def test_a_person_seen_once_has_one_row(tmp_path: Path) -> None:
    counts, rows = wide()
    gone = rows.loc[rows["PatientID"].eq("p3"), "Swab_w16"].item()
    rows = rows.replace(gone, "NA")
    study, _, _ = drafted(tmp_path, *made(tmp_path, counts.drop(columns=gone), rows))
    built, _ = build_cohort(study)
    assert built.n_obs == 23
    assert built.obs.groupby("subject")["visit"].nunique().eq(2).sum() == 11


def test_two_names_for_each_swab_are_no_visits(tmp_path: Path) -> None:
    counts, metadata = cohort()
    study, _, _ = drafted(tmp_path, *made(tmp_path, counts, metadata.assign(sample_name=metadata["#SampleID"])))
    assert study.files.metadata
    assert not study.files.metadata.visits


def test_the_columns_of_a_visit_are_checked(tmp_path: Path) -> None:
    _, text, _ = drafted(tmp_path, *made(tmp_path, *wide()))
    path = tmp_path / "data/mine/study.yaml"
    path.write_text(text.replace("easi: EASI_w16", "easi: EASI_w6"))
    with pytest.raises(StudyError, match=r"has no column 'EASI_w6'\n.*visits.*\n.*\n.*\n.*did you mean 'EASI_w16'"):
        build_cohort(load_study(path.parent))
    path.write_text(text.replace("easi: EASI_w16", "age_years: EASI_w16"))
    with pytest.raises(StudyError, match="has the same column twice"):
        build_cohort(load_study(path.parent))
    path.write_text(text.replace("swab: Swab_w16", "Swab: Swab_w16"))
    with pytest.raises(StudyError, match=r"visits\.w16: 'swab', the swabs, is not given"):
        load_study(path.parent)


# ---------------------------------------------------------------- a folder


def in_folder(folder: Path, **files: str | bytes) -> Path:
    """Files by their paths, where ``__`` is a folder's end and ``_dot_`` a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def from_folder(tmp_path: Path, folder: Path, **given: Path) -> tuple[Study, str]:
    told = draft.draft_study("mine", source=folder, data_folder=tmp_path / "data", **given)
    return load_study(tmp_path / "data" / "mine"), told


def asv_tables() -> tuple[str, str, str]:
    """Counts, with features by number, DADA2's taxonomy and the metadata, as text."""
    counts, metadata = cohort()
    counts.index = [f"asv{i}" for i in range(4)]
    ranks = pd.DataFrame({"ASV_ID": counts.index, "Domain": "Bacteria", "Kingdom": "", "Phylum": "Bacillota"})
    ranks = ranks.assign(Class="Bacilli", Order="", Family="", Genus=["Staphylococcus"] * 3 + ["Cutibacterium"])
    ranks = ranks.assign(
        Species=["", "aureus", "", ""], Species_exact=["hominis", "aureus", "aureus/argenteus", "acnes"]
    )
    ranks = ranks.assign(confidence="0.9", sequence="ACGT")
    tables = counts.to_csv(sep="\t", index_label="ASV_ID"), ranks.to_csv(sep="\t", index=False)
    return *tables, metadata.to_csv(sep="\t", index=False)


def test_results_of_ampliseq_are_a_study(tmp_path: Path) -> None:
    counts, taxonomy, metadata = asv_tables()
    folder = in_folder(
        tmp_path / "results",
        dada2__ASV_table_dot_tsv=counts.replace("asv3", "excluded"),
        dada2__ASV_tax_dot_silva_138_dot_tsv="x\ty\n",
        dada2__ASV_tax_species_dot_silva_138_dot_tsv=taxonomy,
        input__Metadata_dot_tsv=metadata,
        input__Samplesheet_dot_tsv="sampleID\tforwardReads\n",
        multiqc__multiqc_report_dot_html="",
        qiime2__rel_abundance_tables__rel_table_dot_tsv="",
    )
    (folder / "qiime2/abundance_tables").mkdir()
    (folder / "qiime2/abundance_tables/feature-table.tsv").write_text(
        "# Constructed from biom file\n#OTU ID" + counts[6:]
    )
    tree = folder / "qiime2/phylogenetic_tree/tree.nwk"
    tree.parent.mkdir()
    tree.write_text("((asv0:1,asv1:1):1,(asv2:1,asv3:1):1);")
    study, told = from_folder(tmp_path, folder)
    built, _ = build_cohort(study)
    assert built.shape == (24, 4)
    assert list(built.var["species"]) == ["Staphylococcus hominis", "Staphylococcus aureus", "", "Cutibacterium acnes"]
    assert "tree" in built.uns
    assert f"counts:       {folder / 'qiime2/abundance_tables/feature-table.tsv'}" in told
    assert f"taxonomy:     {folder / 'dada2/ASV_tax_species.silva_138.tsv'}" in told


@pytest.mark.parametrize("artifacts", [False, True])
def test_what_qiime_2_exports_is_a_study(tmp_path: Path, artifacts: bool) -> None:
    counts, _, metadata = asv_tables()
    table = pd.read_csv(io.StringIO(counts), sep="\t", index_col=0)
    content = hdf5(biom.Table(table.to_numpy(), list(table.index), list(table)))
    lineages = "Feature ID\tTaxon\tConfidence\n" + "".join(f"asv{i}\td__Bacteria; g__G{i}\t1\n" for i in range(4))
    types = "#q2:types" + "\tcategorical" * metadata.partition("\n")[0].count("\t")
    metadata = metadata.replace("\n", f"\n{types}\n", 1)
    tree = "((asv0:1,asv1:1):1,(asv2:1,asv3:1):1);"
    files: dict[str, bytes] = {
        "feature-table.biom": content,
        "taxonomy.tsv": lineages.encode(),
        "tree.nwk": tree.encode(),
    }
    if artifacts:
        names = {"table.qza": "feature-table.biom", "taxonomy.qza": "taxonomy.tsv", "rooted-tree.qza": "tree.nwk"}
        files = {name: qza(inside, files[inside]) for name, inside in names.items()} | {"unrooted-tree.qza": b""}
    folder = tmp_path / "export"
    folder.mkdir()
    for name, data in {**files, "sample-metadata.tsv": metadata.encode()}.items():
        (folder / name).write_bytes(data)
    study, _ = from_folder(tmp_path, folder)
    built, _ = build_cohort(study)
    assert built.shape == (24, 4)
    assert list(built.var["genus"]) == ["G0", "G1", "G2", "G3"]
    assert built.obs["group"].value_counts().to_dict() == {"case": 16, "control": 8}
    assert "tree" in built.uns


def test_a_folder_with_no_table_or_several_says_what_to_give(tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "f", notes_dot_txt="x")
    with pytest.raises(StudyError, match=r"no file that is named like the counts\n.*notes.txt\n(.*\n)*.*TABLE="):
        from_folder(tmp_path, folder)
    counts, _, metadata = asv_tables()
    in_folder(folder, a_dot_biom="", b_dot_biom="", m__metadata_dot_tsv=metadata)
    with pytest.raises(StudyError, match=r"several files that may be the counts\n.*a.biom, b.biom"):
        from_folder(tmp_path, folder)
    given = in_folder(tmp_path, chosen_dot_tsv=counts) / "chosen.tsv"
    study, told = from_folder(tmp_path, folder, table=given)
    assert study.files.counts.path == "raw/chosen.tsv"
    assert f"metadata:     {folder / 'm/metadata.tsv'}" in told
