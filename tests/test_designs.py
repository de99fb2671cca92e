"""Designs: further visits and arms, case and arm in one column, no controls, cross-over, bacterial load."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohorts import Files, analysed, changed, small_demo, write
from test_draft import guessed, people, values
from test_shapes import no_controls, three_visits

from helpers import evidence, ingest
from helpers.claims import load_claims
from helpers.errors import StudyError
from helpers.evidence import ALL_VISITS, Asked
from helpers.intake import inspection
from helpers.longitudinal import trajectories
from helpers.measures import measured
from helpers.quality import people as counted
from helpers.study import Study

MTX = "Methotrexate"


def further(files: Files) -> Files:
    """A third visit between the two, and every second patient of one drug, in a third arm."""
    files = three_visits(files)
    metadata = files.metadata.copy()
    treated = sorted(metadata.loc[metadata["drug"].eq("dupilumab"), "patient_id"].unique())[::2]
    metadata.loc[metadata["patient_id"].isin(treated), "drug"] = "mtx"
    visit = {"values": {"baseline": None, "followup": None}, "ignore": None}
    files = changed(files._replace(metadata=metadata), columns={"visit": visit})
    named = {"baseline": ["M0"], "Month 1": ["M1"], "followup": ["M3"]}
    return changed(files, columns={"visit": {"values": named}, "arm": {"values": {MTX: ["mtx"]}}})


def swabs_of(study: Study):
    return measured(ingest.build_cohort(study)[0], study, study.settings, ["shannon", "pathogen"])


def test_further_visits_and_arms_are_described_and_change_no_estimate_of_the_two(tmp_path: Path) -> None:
    study = write(further(small_demo()), tmp_path / "further")
    swabs = swabs_of(study)
    course = swabs.uns["course"]
    assert list(course["visit"].cat.categories) == ["baseline", "Month 1", "followup"]
    assert set(course["arm"].dropna()) == {"treatment", "comparator", MTX}
    assert set(swabs.obs["visit"]) == {"baseline", "followup"}
    third = set(course.loc[course["arm"].eq(MTX), "subject"])
    theirs = swabs.obs[swabs.obs["subject"].isin(third)]
    assert theirs["arm"].isna().all(), "patients at baseline, but in no arm that is compared"
    assert set(theirs["visit"]) == {"baseline"}
    found = evidence.answers([Asked("pathogen", "arms"), Asked("pathogen", "group")], swabs, study, study.settings)
    of_two = found.set_index(["contrast", "estimator"])
    assert ALL_VISITS in of_two.loc["arms"].index
    dropped = small_demo().metadata["patient_id"].isin(third)
    files = small_demo()._replace(
        metadata=small_demo().metadata[~dropped].reset_index(drop=True), counts=small_demo().counts[~dropped.to_numpy()]
    )
    alone = write(files, tmp_path / "alone")
    # Drawn anew, so that reads differ: of the same people.
    same = evidence.answers([Asked("pathogen", "arms")], swabs_of(alone), alone, alone.settings).set_index("estimator")
    assert of_two.loc[("arms", "ANCOVA"), "n"] == same.loc["ANCOVA", "n"]
    assert ALL_VISITS not in same.index
    changes = trajectories(course, ["shannon"], study).set_index(["who", "visit"])
    assert set(changes.index) == {
        (who, visit)
        for who in (study.labels.control, "Dupilumab", "Cyclosporine", MTX)
        for visit in ("Month 1", "Month 3")
    }
    wide = course[course["subject"].isin(third)].pivot_table("shannon", "subject", "visit", observed=True)
    change = (wide["Month 1"] - wide["baseline"]).dropna()
    assert changes.loc[(MTX, "Month 1"), "n"] == len(change)
    assert changes.loc[(MTX, "Month 1"), "estimate"] == pytest.approx(change.mean())
    assert "p_value" not in changes
    assert trajectories(swabs_of(alone).uns["course"], ["shannon"], alone).empty


def test_people_of_further_arms_and_visits_are_counted_and_told_before_the_report(tmp_path: Path, monkeypatch) -> None:
    study = write(further(small_demo()), tmp_path / "further")
    cohort, _ = ingest.build_cohort(study)
    table = counted(cohort.obs[cohort.obs["control_type"].eq("sample")])
    assert list(table.index) == ["control", "treatment", "comparator", MTX]
    assert list(table) == ["baseline", "Month 1", "followup", "both"]
    flow = pd.DataFrame(json.loads(cohort.uns["flow"]))
    assert flow.loc[flow["who"].eq(MTX), "people"].min() == table.loc[MTX, "baseline"] > 3
    monkeypatch.setattr(inspection, "DATA", tmp_path)
    told = inspection.inspect("further")
    assert "Month 1 (M1) and Month 3 (M3); left out: none. Claims are about Month 3." in told
    assert MTX in told
    assert "nobody is left" not in told


@pytest.mark.slow
def test_a_report_of_further_visits_and_arms_judges_what_that_of_two_does(tmp_path: Path) -> None:
    claims = analysed(write(further(small_demo()), tmp_path / "further"), tmp_path / "results")
    assert {row["verdict"] for row in claims.values()} - {"not testable"}
    table = pd.read_csv(tmp_path / "results" / "tables" / "02_every_visit.tsv", sep="\t")
    assert MTX in set(table["who"])


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        ("visit", {"baseline": ["M0"], "follow_up": ["M3"]}, "visit.values: unknown follow_up"),
        ("visit", {"Month 1": ["M1"], "baseline": ["M0"], "followup": ["M3"]}, "in order, baseline first"),
        ("visit", {"baseline": ["M0"], "both": ["M1"], "followup": ["M3"]}, "'both' cannot be the name"),
        ("arm", {"treatment": ["dupilumab"], "other": ["mtx"]}, "arm.values: unknown other"),
        ("group", {"control": ["healthy"], "case": ["AD"], "other": ["x"]}, "group.values: unknown other"),
    ],
)
def test_a_misspelt_visit_or_arm_is_none_of_its_own(tmp_path: Path, key: str, given: dict, said: str) -> None:
    files = small_demo()
    columns = files.study["columns"] | {key: files.study["columns"][key] | {"values": given}}
    with pytest.raises(StudyError, match=said):
        write(files._replace(study=files.study | {"columns": columns}), tmp_path)


# ---------------------------------------------------------------- one column for two things


def test_case_and_visit_or_arm_in_one_column_are_drafted() -> None:
    each = people(state=["AD_pre", "AD_post", "HC"])
    each["subject"] = [s.replace("-1", "-0") for s in each["subject"]]
    drafted = guessed(each.drop(columns="visit"))
    assert drafted.columns["group"] == values("state", control=["HC"], case=["AD_pre", "AD_post"])
    assert {k: sorted(v) for k, v in drafted.columns["visit"]["values"].items()} == {
        "baseline": ["AD_pre", "HC"], "followup": ["AD_post"]
    }  # fmt: skip
    assert "controls; these are of baseline" in drafted.checks["columns.visit"][0]
    drafted = guessed(people(group=["Healthy", "Drug1", "Drug2"]))
    assert drafted.columns["group"] == values("group", control=["Healthy"], case=["Drug1", "Drug2"])
    assert drafted.columns["arm"] == values("group", treatment=["Drug1"], comparator=["Drug2"])
    assert "nothing tells which" in drafted.checks["columns.arm"][0]
    assert "arm" not in guessed(people(group=["Healthy", "Mild", "Severe"])).columns
    three = guessed(people(drug=["dupilumab", "cyclosporine", "mtx"])).columns["arm"]["values"]
    assert set(three) == {"treatment", "comparator", MTX}


def test_case_and_visit_and_arm_in_one_column_are_read(tmp_path: Path) -> None:
    files = small_demo()
    rows = files.metadata
    state = np.where(rows["diagnosis"].eq("AD"), rows["drug"] + "_" + rows["visit"], "HC")
    once = ~(rows["diagnosis"].eq("healthy") & rows["visit"].eq("M3"))  # healthy people have no second visit in it
    files = files._replace(
        metadata=rows.assign(state=state)[once].reset_index(drop=True), counts=files.counts[once.to_numpy()]
    )
    of = {(drug, visit): f"{drug}_{visit}" for drug in ("dupilumab", "cyclosporine") for visit in ("M0", "M3")}
    at = {visit: [v for (_, when), v in of.items() if when == visit] for visit in ("M0", "M3")}
    under = {drug: [v for (what, _), v in of.items() if what == drug] for drug in ("dupilumab", "cyclosporine")}
    one = {
        "group": {"column": "state", "values": {"control": ["HC"], "case": list(of.values())}},
        "visit": {"column": "state", "values": {"baseline": [*at["M0"], "HC"], "followup": at["M3"]}},
        "arm": {"column": "state", "values": {"treatment": under["dupilumab"], "comparator": under["cyclosporine"]}},
    }
    mixed, _ = ingest.build_cohort(write(changed(files, columns=one), tmp_path / "one"))
    plain, _ = ingest.build_cohort(write(files, tmp_path / "three"))
    pd.testing.assert_frame_equal(mixed.obs, plain.obs)


# ---------------------------------------------------------------- cross-over


def crossed_over() -> pd.DataFrame:
    rows = [
        {"id": f"s{i}{p}{t}", "subject": f"p{i}", "period": p, "week": t, "drug": drug}
        for i in range(12)
        for p, drug in zip("12", ("dupilumab", "placebo") if i % 2 else ("placebo", "dupilumab"), strict=True)
        for t in ("0", "4")
    ]
    return pd.DataFrame(rows)


def test_a_cross_over_is_refused_outright_and_periods_are_no_sites(tmp_path: Path) -> None:
    drafted = guessed(crossed_over())
    assert "arm" not in drafted.columns
    assert drafted.columns.get("site") is None
    told = " ".join(drafted.checks["columns.arm"])
    assert "'drug' ('dupilumab', 'placebo') in 12 people" in told.replace(
        "'placebo', 'dupilumab'", "'dupilumab', 'placebo'"
    )
    assert "a cross-over is not supported" in told
    files = small_demo()
    swap = files.metadata["drug"].map({"dupilumab": "cyclosporine", "cyclosporine": "dupilumab"})
    metadata = files.metadata.assign(drug=files.metadata["drug"].mask(files.metadata["visit"].eq("M3"), swap))
    with pytest.raises(StudyError, match=r"a cross-over is not supported.*first period as a study of its own"):
        ingest.build_cohort(write(files._replace(metadata=metadata), tmp_path / "two"))
    metadata = files.metadata.assign(period="1")
    with pytest.raises(StudyError, match="a column of time as a site"):
        ingest.build_cohort(
            write(changed(files._replace(metadata=metadata), columns={"site": "period"}), tmp_path / "p")
        )


def test_whoever_changed_arms_later_is_analysed_as_allocated_if_that_is_said(tmp_path: Path) -> None:
    files = small_demo()
    person = files.metadata.loc[files.metadata["drug"].eq("dupilumab"), "patient_id"].iloc[0]
    later = files.metadata["patient_id"].eq(person) & files.metadata["visit"].eq("M3")
    metadata = files.metadata.assign(drug=files.metadata["drug"].mask(later, "cyclosporine"))
    files = changed(files._replace(metadata=metadata), columns={"arm_from": "baseline"})
    cohort, _ = ingest.build_cohort(write(files, tmp_path))
    assert set(cohort.obs.loc[cohort.obs["subject"].eq(person), "arm"]) == {"treatment"}


# ---------------------------------------------------------------- no controls


@pytest.mark.slow
def test_without_controls_the_arms_are_compared_and_the_check_says_what_the_report_does(tmp_path: Path) -> None:
    study = write(no_controls(small_demo()), tmp_path / "study")
    told = evidence.untestable(load_claims(study), ingest.build_cohort(study)[0], study)
    claims = analysed(study, tmp_path / "results")
    assert {name for name, why in told.items() if why} == {
        n for n, c in claims.items() if c["verdict"] == "not testable"
    }
    assert not told["C13"]
    tests = pd.read_csv(tmp_path / "results" / "tables" / "02_permanova.tsv", sep="\t")
    assert tests.loc[tests["term"].eq("visit:arm"), "p_value"].notna().any()
    balance = pd.read_csv(tmp_path / "results" / "tables" / "05_balance.tsv", sep="\t")
    assert len(balance), "the arms' patients are known without an axis"


# ---------------------------------------------------------------- bacterial load

X2 = {
    "says": "Under {treatment}, there is less {pathogen} in absolute numbers",
    "parts": [{"measure": "pathogen_load", "contrast": "change", "arm": "treatment", "expect": "down"}],
}


def with_load(files: Files) -> Files:
    """Under treatment, ten times as many bacteria at follow-up, more or less."""
    rows, rng = files.metadata, np.random.default_rng(3)
    more = rows["drug"].eq("dupilumab") & rows["visit"].eq("M3")
    load = np.round(1e5 * np.where(more, 10, 1) * rng.lognormal(0, 0.2, len(rows))).astype(int)
    return changed(files._replace(metadata=rows.assign(copies=load.astype(str))), columns={"load": "copies"})


def test_an_absolute_abundance_is_the_share_of_the_load(tmp_path: Path) -> None:
    study = write(changed(with_load(small_demo()), own_claims={"X2": X2}), tmp_path)
    cohort, _ = ingest.build_cohort(study)
    first = cohort.obs_names[0]
    cohort.obs.loc[first, "load"] = 0
    swabs = measured(cohort, study, study.settings)
    obs = swabs.obs
    reads = swabs[:, swabs.var["species"].eq(study.taxa.pathogen)].X.sum(axis=1)
    share = (np.ravel(reads) + 0.5) / study.settings.rarefaction_depth
    known = obs["load"].gt(0)
    assert np.allclose(obs.loc[known, "bacterial_load"], np.log(obs.loc[known, "load"]))
    assert obs.loc[first, "bacterial_load"] == pytest.approx(np.log(obs.loc[known, "load"].min() / 2))
    assert np.allclose(obs["pathogen_load"], obs["bacterial_load"] + np.log(share))
    asked = [Asked("bacterial_load", "arms"), Asked("pathogen_load", "change", "treatment")]
    found = evidence.answers(asked, swabs, study, study.settings).query("stands").set_index("measure")
    assert np.exp(found.loc["bacterial_load", "estimate"]) == pytest.approx(10, rel=0.4)
    told = evidence.told(found.reset_index().iloc[0], found.reset_index(), study)
    assert told.startswith("Bacterial load at Month 3")
    assert "times" in told


def test_a_claim_of_absolute_abundance_is_testable_only_with_a_load(tmp_path: Path) -> None:
    for name, files in (("with", with_load(small_demo())), ("without", small_demo())):
        study = write(changed(files, own_claims={"X2": X2}), tmp_path / name)
        why = evidence.untestable(load_claims(study), ingest.build_cohort(study)[0], study)["X2"]
        assert why == ("" if name == "with" else "the study measured no bacterial load")
    drafted = guessed(people(group=["AD", "healthy"]).assign(qPCR=[str(10**4 + i) for i in range(48)]))
    assert drafted.columns["load"] == "qPCR"
    cycles = guessed(people(group=["AD", "healthy"]).assign(qPCR=[str(20 + i / 10) for i in range(48)]))
    assert "load" not in cycles.columns, "a number of cycles"


@pytest.mark.slow
def test_a_report_with_load_shows_absolute_abundances_beside_the_share(tmp_path: Path) -> None:
    study = write(changed(with_load(small_demo()), own_claims={"X2": X2}), tmp_path / "study")
    assert analysed(study, tmp_path / "results")["X2"]["verdict"] != "not testable"
    arms = pd.read_csv(tmp_path / "results" / "tables" / "05_contrasts.tsv", sep="\t").set_index("measure")
    assert {"Bacterial load", "S. aureus, absolute abundance"} <= set(arms.index)
