import hashlib
import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from skbio import TreeNode

from helpers.ingest import build_cohort
from helpers.simulation.cohort import SimulatedCohort, catalogue, simulate_cohort
from helpers.simulation.truth import ARMS, Truth, changed, without_effects
from helpers.simulation.worlds import simulated
from helpers.study import Settings, load_study

DATA = Path(__file__).parents[1] / "data"

#: Rows of the table in data/README.md: the number in the demo must lie in the band.
BANDS = {
    "*S. aureus*, AD, lesional, mean (%)": (30, 40),
    "*S. aureus*, AD, lesional, median (%)": (13, 29),
    "*S. aureus*, AD, non-lesional, mean (%)": (7, 19),
    "*S. aureus*, AD, non-lesional, median (%)": (3, 6),
    "*S. aureus*, healthy, mean (%)": (0.3, 1),
    "*S. aureus*, healthy, median (%)": (0, 0.05),
    "*Staphylococcus*, healthy, mean (%)": (9, 13),
    "*Staphylococcus*, healthy, median (%)": (3, 6),
    "Shannon, AD, mean (nats)": (2.2, 2.6),
    "Shannon, AD, median (nats)": (2.5, 2.9),
    "Shannon, healthy, mean (nats)": (2.8, 3.0),
    "*S. aureus*, month 3, dupilumab, median (%)": (0, 1),
    "Shannon, month 3, dupilumab, mean (nats)": (2.7, 3.3),
    "Depth, most / least reads (log10)": (2, 3),
    "Age of patients, mean (years)": (41, 44.5),
    "Age of patients, SD (years)": (12.5, 15.5),
    "Patients who are female (%)": (36, 44),
    "oSCORAD at baseline, mean": (38.5, 43),
    "oSCORAD at baseline, SD": (14.5, 18),
}


@lru_cache
def cohort(seed: int = Truth().seed, null: bool = False) -> SimulatedCohort:
    return simulate_cohort(without_effects(Truth()) if null else Truth(), seed)


def shannon(counts: np.ndarray) -> np.ndarray:
    p = counts / counts.sum(axis=1, keepdims=True)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)


def swabs(simulated: SimulatedCohort) -> pd.DataFrame:
    """One row a swab of at least 1,000 reads: metadata, Shannon of all its reads, shares in per cent."""
    counts = simulated.counts.toarray()
    lineage = simulated.taxonomy["Taxon"]
    table = simulated.metadata.assign(depth=counts.sum(axis=1), shannon=shannon(counts))
    for name, text in (("aureus", "s__Staphylococcus_aureus"), ("staphylococcus", "g__Staphylococcus;")):
        table[name] = 100 * counts[:, lineage.str.contains(text)].sum(axis=1) / table["depth"]
    return table[table["sample_type"].eq("swab") & table["depth"].ge(1000)]


def shape(simulated: SimulatedCohort) -> dict[str, float]:
    table = swabs(simulated)
    start = table[table["visit"].eq("M0")]
    ad, healthy = start[start["diagnosis"].eq("AD")], start[start["diagnosis"].eq("healthy")]
    lesional, clear = ad[ad["lesional"].eq("yes")], ad[ad["lesional"].eq("no")]
    later = table[table["visit"].eq("M3") & table["drug"].eq("dupilumab")]
    depth = simulated.counts.sum(axis=1)[simulated.metadata["sample_type"].eq("swab")]
    values = [
        lesional["aureus"].mean(), lesional["aureus"].median(), clear["aureus"].mean(), clear["aureus"].median(),
        healthy["aureus"].mean(), healthy["aureus"].median(),
        healthy["staphylococcus"].mean(), healthy["staphylococcus"].median(),
        ad["shannon"].mean(), ad["shannon"].median(), healthy["shannon"].mean(),
        later["aureus"].median(), later["shannon"].mean(), np.log10(depth.max() / depth.min()),
        ad["age"].mean(), ad["age"].std(), 100 * ad["sex"].eq("female").mean(),
        ad["oSCORAD"].mean(), ad["oSCORAD"].std(),
    ]  # fmt: skip
    return dict(zip(BANDS, map(float, values), strict=True))


def test_demo_files_come_back_byte_for_byte(tmp_path):
    # A process of its own with another hash seed: no order may depend on a set.
    command = [sys.executable, "-W", "error", "-m", "helpers", "simulate", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(made) == {*load_sums(DATA / "demo"), "SHA256SUMS"}
    for name, content in made.items():
        assert content == (DATA / "demo" / name).read_bytes(), name


def load_sums(folder: Path) -> dict[str, str]:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_checksums_and_settings_of_the_demo_study():
    study, sums = load_study(DATA / "demo"), load_sums(DATA / "demo")
    assert sums == {n: hashlib.sha256((DATA / "demo" / n).read_bytes()).hexdigest() for n in sums}
    for file in study.files.each().values():
        assert file.sha256 == sums[file.path]
    written = yaml.safe_load((DATA / "demo" / "study.yaml").read_text())
    assert set(written["settings"]) == set(Settings.model_fields), "every setting stands in the file"
    assert study.settings == Settings()
    assert study.simulated
    assert "Simulated" in study.title
    assert sum(path.stat().st_size for path in (DATA / "demo").iterdir()) < 2e6


def test_truth_yaml_holds_every_parameter():
    truth = yaml.safe_load((DATA / "demo" / "truth.yaml").read_text())
    assert Truth.model_validate(truth["parameters"]) == Truth()
    assert len(truth["rare_genera"]) + len(Truth().taxa) + len(Truth().contaminants) == len(catalogue(Truth()).taxa)


def test_the_demo_has_the_shape_of_real_data():
    for figure, value in shape(cohort()).items():
        low, high = BANDS[figure]
        assert low <= value <= high, f"{figure}: {value:.2f}"


def test_the_table_in_the_readme_is_computed():
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([\d.]+) \|", (DATA / "README.md").read_text(), re.MULTILINE)
    assert dict(rows) == {figure: f"{value:.1f}" for figure, value in shape(cohort()).items()}


def test_the_cohort_of_the_files_is_the_one_simulated():
    kept, ledger = build_cohort(load_study(DATA / "demo"))
    obs = kept.obs[kept.obs["control_type"].eq("sample")]
    assert len(obs) == len(swabs(cohort()))
    straight = simulated(Truth(), Truth().seed, load_study(DATA / "demo"))  # as the simulations of the tests do
    pd.testing.assert_frame_equal(straight.obs, kept.obs)
    pd.testing.assert_frame_equal(straight.var, kept.var)
    assert (straight.X != kept.X).nnz == 0
    assert set(kept.var_names) <= {tip.name for tip in TreeNode.read([straight.uns["tree"]]).tips()}
    assert obs["easi"].notna().equals(obs["group"].eq("case"))
    assert obs["lesional"].notna().equals(obs["group"].eq("case"))
    assert set(obs["arm"].dropna()) == {"treatment", "comparator"}
    assert pd.crosstab(obs["batch"], obs["arm"]).gt(0).all(axis=None)
    easi = cohort().metadata.pivot_table(index="drug", columns="visit", values="EASI", aggfunc="median")
    assert (easi["M3"] < easi["M0"] * 0.6).all()
    strata = pd.cut(cohort().hidden["improvement"], [-np.inf, 0.5, 0.75, 0.9, 1], right=False)
    assert pd.crosstab(strata, cohort().hidden["drug"]).gt(0).all(axis=None), "every stratum of response has patients"
    read = ledger[ledger["step"].eq("read")].set_index(["group", "visit"])["swabs_after"]
    assert 120 < read["case", "followup"] < read["case", "baseline"] <= 157
    assert kept.var.loc[kept.var["species"].eq("Staphylococcus aureus")].shape[0] == 8
    assert 600 <= kept.n_vars <= 1200
    assert kept.var["genus"].nunique() >= 140


def test_negative_controls_have_what_shallow_swabs_have_too():
    simulated = cohort()
    counts = simulated.counts.toarray()
    contaminant = counts[:, catalogue(Truth()).contaminant].sum(axis=1) / counts.sum(axis=1)
    depth, negative = counts.sum(axis=1), simulated.metadata["sample_type"].eq("negative control").to_numpy()
    assert negative.sum() == 8
    assert contaminant[negative].min() > 0.7
    assert contaminant[~negative & (depth < 1000)].mean() > 0.05
    assert contaminant[~negative & (depth > 10_000)].mean() < 0.002


def test_tree_agrees_with_the_taxonomy():
    tree, lineage = TreeNode.read([cohort().tree]), cohort().taxonomy["Taxon"]
    assert {tip.name for tip in tree.tips()} == set(lineage.index)
    for node in tree.traverse(include_self=False):
        assert node.length >= 0
    for rank in ("p", "f", "g"):
        for taxon, names in lineage.groupby(lineage.str.extract(rf"{rank}__([^;]+)", expand=False)).groups.items():
            clade = tree.lca(list(names))
            assert {tip.name for tip in clade.tips(include_self=True)} == set(names), taxon


def test_under_the_null_nothing_moves_and_the_arms_are_alike():
    null = cohort(null=True).hidden
    assert (null[["direct", "mediated"]].dropna() == 0).all(axis=None)
    assert null["improvement"].mean() > 0.5, "severity improves all the same"
    many = pd.concat(simulate_cohort(without_effects(Truth()), seed).hidden for seed in range(20))
    change = (many["D_M3"] - many["D_M0"]).groupby(many["drug"]).agg(["mean", "sem"])
    assert (change["mean"].abs() < 3 * change["sem"]).all()
    # And no disease: patients have the skin of controls.
    nobody = without_effects(Truth(), disease=False)
    tables = [swabs(simulate_cohort(nobody, seed)).groupby("diagnosis")["shannon"].mean() for seed in range(10)]
    difference = pd.DataFrame(tables).diff(axis=1)["healthy"]
    assert abs(difference.mean()) < 3 * difference.sem()


def test_what_was_put_in_comes_out():
    hidden = pd.concat(simulate_cohort(Truth(), seed).hidden for seed in range(20))
    for drug, patients in hidden.groupby("drug"):
        arm = getattr(Truth().treatment, str(drug))
        mediated, direct = np.polyfit(patients["improvement"], patients["shift"], 1)
        assert (direct, mediated) == pytest.approx((arm.direct, arm.mediated), abs=0.06)
        unclipped = patients[patients["D_M3"] > 0]
        assert unclipped["D_M3"].to_numpy() == pytest.approx(unclipped["D_M0"] * (1 - unclipped["shift"]))


def test_a_persons_visits_are_alike():
    table = swabs(cohort())
    share = np.log(share_of(cohort(), "g__Corynebacterium;") + 1e-4)[table.index]
    for diagnosis, least in (("healthy", 0.3), ("AD", 0.2)):
        rows = table[table["diagnosis"].eq(diagnosis)].assign(share=share)
        visits = rows.pivot_table(index="patient_id", columns="visit", values="share").dropna()
        assert visits.corr().loc["M0", "M3"] > least


def share_of(simulated: SimulatedCohort, text: str) -> pd.Series:
    columns = simulated.taxonomy["Taxon"].str.contains(text).to_numpy()
    counts = simulated.counts.toarray()
    return pd.Series(counts[:, columns].sum(axis=1) / counts.sum(axis=1), index=simulated.metadata.index)


def test_part_of_s_aureus_is_not_named():
    kinds = catalogue(Truth())
    reads = np.asarray(cohort().counts.sum(axis=0))[kinds.taxon == 0]
    named = kinds.taxonomy["Taxon"].str.endswith("aureus").to_numpy()
    assert named[kinds.taxon != 0].sum() == 0
    assert reads[~named[kinds.taxon == 0]].sum() / reads.sum() == pytest.approx(0.12, abs=0.04)


def test_the_arm_depends_on_severity_and_previous_treatment_and_the_arms_overlap():
    hidden = pd.concat(simulate_cohort(Truth(), seed).hidden.dropna(subset="drug") for seed in range(10))
    assert (hidden["drug"].value_counts() == pd.Series({"dupilumab": 1300, "cyclosporine": 270})).all()
    by_drug = hidden.assign(
        systemic=hidden["previous_systemic"].eq("yes"), before=hidden["previous_cyclosporine"].eq("yes")
    ).groupby("drug")[["z", "systemic", "before"]]
    means = by_drug.mean()
    assert (means.loc["dupilumab"] - means.loc["cyclosporine"]).gt([0.2, 0.08, 0.05]).all()
    demo = cohort().hidden.dropna(subset="drug")
    assert pd.crosstab(demo["drug"], demo["previous_cyclosporine"]).ge(2).all(axis=None)


def many(truth: Truth) -> pd.DataFrame:
    """The hidden side of the patients of six cohorts."""
    return pd.concat(simulate_cohort(truth, seed).hidden.dropna(subset="drug") for seed in range(6))


def test_patients_come_on_bad_days_and_their_skin_follows_the_severity_of_the_day():
    untreated = {name: {"direct": 0.0, "mediated": 0.0, "remaining": (0.0, 0.0)} for name in ARMS}
    truth = changed(
        Truth(),
        severity={"correlation": 0.6, "flare": 1.0},
        treatment=untreated | {"previous_systemic": 0.0, "shift_sd": 0.0},
    )
    came = many(truth)
    start, end = np.log(came["EASI_M0"]), np.log(came["EASI_M3"])
    assert np.corrcoef(start, end)[0, 1] == pytest.approx(0.6, abs=0.06)
    _, sd = truth.severity.easi
    assert ((end - start) / sd).mean() == pytest.approx(-np.sqrt(0.4), abs=0.08)
    assert (came["D_M3"] - came["D_M0"]).mean() < -0.3 * np.sqrt(0.4), "with fewer lesions beside"
    assert np.corrcoef(end - start, came["D_M3"] - came["D_M0"])[0, 1] > 0.7


def test_a_rater_errs_and_the_skin_does_not_follow_the_rater():
    seen, scored = many(Truth()), many(changed(Truth(), severity={"rater": 0.3}))
    columns = ["EASI_M0", "EASI_M3", "oSCORAD_M0"]
    error = np.log(scored[columns] / seen[columns])[(scored[columns] < 72).all(axis=1)]
    assert error.std().to_numpy() == pytest.approx(np.sqrt(np.log(1.09)), abs=0.03)
    assert abs(error.corr().to_numpy()[np.triu_indices(3, 1)]).max() < 0.1, "each score with its own"
    same = ["z", "improvement", "lesional_M3", "D_M0", "D_M3"]
    pd.testing.assert_frame_equal(scored[same], seen[same])


def test_who_improves_less_is_lost_more_often():
    def lost(truth: Truth) -> pd.Series:
        cohorts = (simulate_cohort(truth, seed) for seed in range(6))
        patients = pd.concat(c.hidden.assign(lost=lost_in(c)) for c in cohorts).dropna(subset="drug")
        return patients.groupby(patients["improvement"] < 0.5)["lost"].mean()

    def lost_in(simulated: SimulatedCohort) -> pd.Series:
        later = simulated.metadata[simulated.metadata["visit"].eq("M3")]
        return ~simulated.hidden["patient_id"].isin(later["patient_id"])

    evenly, by_response = lost(Truth()), lost(changed(Truth(), sequencing={"lost_remaining": 3.0}))
    assert abs(evenly[True] - evenly[False]) < 0.04
    assert by_response[True] - by_response[False] > 0.25


def test_what_nobody_records_makes_the_drug_likelier_and_the_skin_better():
    truth = changed(Truth(), population={"unmeasured": 0.7}, treatment={"unmeasured": 0.1})
    came = many(truth)
    by_drug = came.groupby("drug")["unmeasured"].mean()
    assert by_drug["dupilumab"] - by_drug["cyclosporine"] > 0.4
    unexplained = came["shift"] - came["direct"] - came["mediated"]
    assert np.polyfit(came["unmeasured"], unexplained, 1)[0] == pytest.approx(0.1, abs=0.01)
    assert abs(np.corrcoef(came["unmeasured"], came["z"])[0, 1]) < 0.08
    assert not {"unmeasured", "z"} & set(simulate_cohort(truth).metadata)


def test_a_drug_that_moves_the_skin_aside_leaves_the_dysbiosis_and_all_other_shares():
    still = without_effects(Truth())
    before, after = (simulate_cohort(t) for t in (still, changed(still, treatment={"dupilumab": {"aside": 2.0}})))
    pd.testing.assert_series_equal(before.hidden["D_M3"], after.hidden["D_M3"])
    table = swabs(before)
    treated = table.index[table["drug"].eq("dupilumab") & table["visit"].eq("M3")]
    others = table.index.difference(treated)

    def moved(text: str) -> pd.Series:
        return share_of(after, text) - share_of(before, text)

    assert abs(moved("s__Staphylococcus_aureus")[treated]).max() < 0.05, "reads are drawn"
    assert abs(moved("s__Staphylococcus_aureus")[treated].mean()) < 0.001
    assert moved("s__Cutibacterium_acnes")[treated].mean() > 0.03
    assert abs(moved("s__Cutibacterium_acnes")[others].mean()) < 0.001


def test_one_seed_one_cohort_and_people_do_not_depend_on_effects():
    again, other = simulate_cohort(Truth()), cohort(seed=99)
    assert (again.counts != cohort().counts).nnz == 0
    pd.testing.assert_frame_equal(again.metadata, cohort().metadata)
    assert not other.metadata.equals(again.metadata)
    assert other.taxonomy is again.taxonomy
    pd.testing.assert_frame_equal(cohort(null=True).metadata, again.metadata)
