import ast
import json
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import diversity, evidence, taxa
from helpers.claims import KEY, VERDICTS, load_claims
from helpers.ingest import build_cohort
from helpers.narrate import interval, number
from helpers.quality import without_contaminants
from helpers.simulation import performance, worlds
from helpers.simulation.cohort import simulate_cohort
from helpers.simulation.truth import Truth
from helpers.study import Study, load_study

pytestmark = pytest.mark.slow
DEMO = load_study("data/demo")
QUICK = performance.light(DEMO)
OWN = {
    "X1": {
        "says": "Under {treatment}, S. epidermidis increases",
        "family": "within arms",
        "parts": [{"measure": "Staphylococcus epidermidis", "contrast": "change", "arm": "treatment", "expect": "up"}],
    },
    "X2": {
        "says": "EASI falls more under {treatment}",
        "parts": [{"measure": "easi", "contrast": "arms", "expect": "down"}],
    },
}


def parts_of(like: Study) -> set[tuple[str, ...]]:
    """Keys of all parts of a study's claims."""
    return {
        (claim, *asked)
        for claim, each in load_claims(like).items()
        for part in each.parts
        for asked in evidence.questions(part, like)
    }


def keys(table: pd.DataFrame, columns: tuple[str, ...] = KEY) -> set[tuple[str, ...]]:
    return set(table[list(columns)].itertuples(index=False, name=None))


def on_skin(rows: pd.DataFrame) -> pd.Series:
    return rows["scenario"].ne(worlds.NO_EFFECT) | rows["measure"].ne("position")


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with performance.workers() as started:
        yield started


@pytest.fixture(scope="module")
def null_runs(pool) -> pd.DataFrame:
    return performance.simulate_runs([(worlds.NO_EFFECT, seed) for seed in range(1, 21)], QUICK, pool)


@pytest.fixture(scope="module")
def with_own(pool) -> pd.DataFrame:
    """The table of the demo study with claims of its own, of as few cohorts as can be."""
    like = QUICK.model_copy(update={"own_claims": OWN})
    return performance.validate(1, like, pool, pooled=1)


def test_every_part_of_every_claim_was_simulated():
    table = performance.read_table("data/demo/validation.tsv")
    assert set(table["scenario"]) == set(worlds.SCENARIOS)
    for scenario, rows in table[table["claim"].ne("")].groupby("scenario"):
        assert keys(rows) == parts_of(DEMO), scenario
        # Where patients are as controls are, there is no axis between them but by chance.
        assert rows.loc[on_skin(rows), ["target", "coverage", "rejected"]].notna().all(axis=None)


def test_a_claim_that_a_study_adds_is_simulated_with_its_truth(with_own):
    rows = with_own[with_own["claim"].ne("")]
    assert keys(rows) == parts_of(QUICK.model_copy(update={"own_claims": OWN}))
    assert {"X1", "X2"} < set(rows["claim"])
    assert rows.loc[on_skin(rows), ["target", "mean_estimate", "coverage"]].notna().all(axis=None)
    # A claim has one verdict in each cohort, whichever of its parts stands for it.
    assert rows.groupby(["scenario", "claim"])[list(VERDICTS)].sum().sum(axis=1).eq(1).all()


def test_no_two_estimates_of_a_cohort_have_the_same_key(null_runs):
    assert not null_runs.duplicated(["scenario", "seed", *performance.ROW]).any()


def test_what_the_drugs_do_is_known_of_every_measure_in_which_arms_are_compared(with_own):
    rows = with_own[with_own["interval"].eq("model")].set_index(["scenario", *worlds.ANSWER])["target"].sort_index()
    rows = rows[~rows.index.duplicated()]

    def true(scenario: str, measure: str, contrast: str, estimator: str) -> float:
        return float(rows[(scenario, measure, contrast, "", "", "", estimator)])

    for measure in ("position", "pathogen", "easi"):
        effect = true("demo", measure, "arms", "ANCOVA")
        assert effect < 0
        assert true("demo", measure, "arms", "overlap weights") == effect
    # EASI falls more under the one drug in all worlds; where both leave the skin alone, nothing is estimated.
    assert true("no effect", "easi", "arms", "ANCOVA") < 0
    for world in ("disease only", "regression to the mean"):
        assert true(world, "pathogen", "arms", "ANCOVA") == 0
    assert rows[("disease only", "shannon", "change", "treatment", "", "", "mean change")] == 0
    assert rows[("regression to the mean", "pathogen", "change", "treatment", "", "", "mean change")] < 0
    assert true("through improvement", "position", "arms_given_improvement", "direct") == 0
    assert true("through improvement", "position", "arms", "ANCOVA") < 0
    # Shares of all other taxa stay; the mean of their logarithms, by which one is divided, moves a little.
    aside, towards = (true(world, "pathogen", "arms", "ANCOVA") for world in ("off the axis", "demo"))
    assert 0 < abs(aside) < abs(towards) / 5
    # The truth is of all patients and of their severity, whoever was lost or scored with error.
    for world in ("loss by response", "severity with error"):
        pd.testing.assert_series_equal(rows[world], rows["demo"])
    direct, indirect, total = (
        true("demo", "position", "arms_given_improvement", effect) for effect in ("direct", "indirect", "total")
    )
    assert direct + indirect == pytest.approx(total)
    assert total == true("demo", "position", "arms", "ANCOVA")


def test_a_changed_estimator_changes_the_simulations(monkeypatch, null_runs):
    group = evidence.CONTRASTS["group"]

    def shifted(*asked: Any) -> evidence.Estimates:
        return {name: found | {"estimate": found["estimate"] + 100} for name, found in group.estimate(*asked).items()}

    before = null_runs[null_runs["seed"].eq(1)].reset_index(drop=True)
    monkeypatch.setitem(evidence.CONTRASTS, "group", group._replace(estimate=shifted))
    after = performance.one_run(worlds.NO_EFFECT, 1, QUICK)
    pd.testing.assert_frame_equal(after[[*performance.ROW]], before[[*performance.ROW]])
    moved = (after["estimate"] - before["estimate"]).round(6)
    assert moved[after["contrast"].eq("group") & after["claim"].ne("")].eq(100).all()
    assert moved[after["contrast"].ne("group")].dropna().eq(0).all()


#: What `helpers.evidence` is asked for instead.
WRAPPED = {
    "linear_contrast", "partial_spearman", "mean_change", "arm_contrasts", "ancova", "mediation", "imputed",
    "beyond_regression", "by_run",
}  # fmt: skip


ASKING = [*Path("src/helpers/simulation").glob("*.py"), *Path("notebooks").glob("[0-9]*.ipynb")]


@pytest.mark.parametrize("file", ASKING, ids=lambda file: file.stem)
def test_estimates_are_asked_of_evidence_and_of_nothing_else(file):
    source = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        cells = nbformat.reads(source, as_version=4)["cells"]
        source = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    parts = {ast.alias: "name", ast.Attribute: "attr", ast.Name: "id"}
    named = {getattr(node, parts.get(type(node), ""), "") for node in ast.walk(ast.parse(source))}
    assert not named & WRAPPED


def test_which_diversity_is_healthier_is_told_by_the_controls(monkeypatch):
    # One species rules the skin of controls and is rare in patients, who are more diverse, and less so when treated.
    taxa = tuple(
        taxon.model_copy(
            update={"share": 2.0, "effect": -4.0}
            if taxon.name == "Cutibacterium acnes"
            else {"effect": 0.0, "colonisation": 0.0}
        )
        for taxon in Truth().taxa
    )
    monkeypatch.setitem(worlds.SCENARIOS, "even", worlds.Scenario(Truth(taxa=taxa), ""))
    rows = performance.one_run("even", 1, QUICK)
    diversity = rows[rows["measure"].eq("shannon")].set_index("claim")
    assert diversity.loc["C1", "estimate"] > 0
    assert diversity.loc["C6", "ci_high"] < 0
    assert "supported" in set(rows.loc[rows["claim"].eq("C6"), "verdict"])


def test_the_validated_estimates_are_those_of_the_notebooks():
    cohort, _ = build_cohort(DEMO)
    rows = performance.estimated(worlds.examined(cohort, DEMO, DEMO.settings), DEMO, DEMO.settings)
    shown = {}
    for notebook in Path("notebooks").glob("*.ipynb"):
        shown[notebook.stem] = json.dumps(nbformat.read(notebook, as_version=4)["cells"], ensure_ascii=False)
    text = "".join(shown.values())
    parts = rows[rows["claim"].ne("")]
    # Chapters show claims of no change with the interval of the test against zero.
    told = [interval(r.ci_low, r.ci_high) if r.level == 95 else number(r.estimate) for r in parts.itertuples()]
    assert [name for name, each in zip(parts["claim"], told, strict=True) if each not in text] == []


def test_without_any_effect_few_claims_are_supported(null_runs):
    judged = null_runs[null_runs["verdict"].ne("")]
    supported = judged["verdict"].eq("supported").sum()
    # Were the rate 1 in 20, more than this would be seen once in a thousand times.
    assert supported <= stats.binom.ppf(0.999, len(judged), 0.05)


def test_no_test_rejects_and_no_interval_misses_too_often_under_the_null(null_runs):
    runs = null_runs["seed"].nunique()
    # The drugs do act on severity; and what is nothing is rightly shown to lie within a margin.
    null = null_runs[null_runs["estimator"].ne("arm to mediator") & null_runs["margin"].isna()]
    null = null.assign(rejects=null["p_value"] < 0.05, misses=(null["ci_low"] > 0) | (null["ci_high"] < 0))
    # Some 50 tests: each may exceed its bound once in ten thousand times.
    bound = stats.binom.ppf(0.9999, runs, 0.05)
    counts = null.groupby(list(performance.ROW))[["rejects", "misses"]].sum()
    assert (counts <= bound).all(axis=None), counts[(counts > bound).any(axis=1)]


def test_the_summary_counts_what_the_runs_say():
    asked = dict(zip(KEY, ("C1", "shannon", "group", "", "", ""), strict=True)) | {"estimator": "OLS"}
    runs = pd.DataFrame(
        {
            "scenario": "demo", "seed": [1, 2, 3, 4], **asked, "interval": "model", "n": 10, "rejects": np.nan,
            "estimate": [1.0, 2.0, 3.0, 6.0], "level": 95.0, "margin": np.nan, "sign": -1,
            "ci_low": [0.0, 1.5, 2.5, 5.0], "ci_high": [2.5, 2.5, 3.5, 7.0], "p_value": [0.2, 0.01, 0.04, 0.001],
            "verdict": ["inconclusive", "supported", "", "supported"],
        }
    )  # fmt: skip
    # Of another claim that asks the same, the truth is the same; of another arm, it is not.
    runs = pd.concat([runs, runs.assign(claim="X1"), runs.assign(arm="treatment")])
    truths = pd.DataFrame([{"scenario": "demo", **asked, "arm": arm} for arm in ("treatment", "")])
    truths = truths.drop(columns="claim").assign(target=[5.0, 2.0], target_error=0.0)
    table = performance.summarise(runs, truths, {"C1": load_claims(DEMO)["C1"]}, 0.05)
    assert table["target"].iloc[:3].tolist() == [2.0, 2.0, 5.0]
    row = table.iloc[0]
    assert (row["runs"], row["mean_estimate"], row["bias"]) == (4, 3.0, 1.0)
    assert (row["coverage"], row["rejected"], row["supported"]) == (0.5, 0.75, 0.5)
    assert row["coverage_error"] == pytest.approx((0.5 * 0.5 / 4) ** 0.5)


def test_a_family_errs_where_a_verdict_says_what_is_not_so():
    known = load_claims(DEMO)
    claims = {name: known[name].model_copy(update={"family": "one"}) for name in ("C12", "C9")}
    claims["C13"] = known["C13"]
    # C12: its effect is nothing within its error. C9: a fall, but within the margin. C13: as claimed.
    about = {
        "C12": {"target": 0.2, "target_error": 0.1, "margin": np.nan},
        "C9": {"target": -0.4, "target_error": 0.1, "margin": 0.5},
        "C13": {"target": -2.0, "target_error": 0.1, "margin": np.nan},
    }
    told = {
        1: {"C12": "inconclusive", "C9": "supported", "C13": "supported"},
        2: {"C12": "supported", "C9": "supported", "C13": "inconclusive"},
        3: {"C12": "inconclusive", "C9": "contradicted", "C13": "contradicted"},
        4: {"C12": "inconclusive", "C9": "out of reach", "C13": "supported"},
    }
    parts = pd.DataFrame(
        dict.fromkeys(KEY, "")
        | about[claim]
        | {"scenario": "s", "seed": seed, "claim": claim}
        | {"sign": -1, "verdict": v}
        for seed, verdicts in told.items()
        for claim, v in verdicts.items()
    )
    got = performance.false_verdicts(parts, claims).pivot_table("rejects", "contrast", "seed")
    assert got.loc["one"].tolist() == [0, 1, 1, 0]
    assert got.loc["primary"].tolist() == [0, 0, 1, 0]


def test_false_discoveries_are_a_share_of_what_is_found_and_average_over_the_runs():
    first = pd.DataFrame({"taxon": list("abcde"), "found": [True, True, True, False, False]})
    changed = {"group": {"a", "b", "d", "x"}, "change": set(), "arms": {"a"}}
    none = first.assign(found=False)
    rows = performance.discoveries({"group": first, "change": none, "arms": first.head(0)}, changed)
    got = rows.set_index(["contrast", "estimator"])["rejects"]
    shares = (performance.FALSE, performance.UNCHANGED, performance.CHANGED)
    # Found are a, b and c, of which c does not change; e neither; d changes, and is not found.
    assert got["group"][list(shares)].tolist() == pytest.approx([1 / 3, 1 / 2, 2 / 3])
    assert got["change"][list(shares)].tolist() == pytest.approx([0, 0, np.nan], nan_ok=True)
    assert "arms" not in got
    runs = pd.concat([rows.assign(scenario="demo", seed=1), rows.assign(scenario="demo", seed=2, rejects=0.0)])
    truths = runs.head(0)[["scenario", *worlds.ANSWER]].assign(target=0.0, target_error=0.0)
    table = performance.summarise(runs, truths, {}, 0.05).set_index(["contrast", "estimator"])
    row = table.loc[("group", performance.FALSE)]
    assert (row["runs"], row["rejected"], row["rejected_error"]) == pytest.approx((2, 1 / 6, 1 / 6 / 2**0.5))


def test_which_genera_truly_change_follows_from_what_acts_on_the_skin():
    assert not any(worlds.changed_genera(worlds.NO_EFFECT).values())
    demo, inert = worlds.changed_genera("demo"), worlds.changed_genera("disease only")
    assert demo["group"] == demo["change"] == demo["arms"] == inert["group"]
    assert not inert["change"] | inert["arms"]
    assert {"Staphylococcus", "Cutibacterium", "Geobacillus"} <= demo["group"]
    assert not demo["group"] & {"Rothia", "Acinetobacter", "Nocardia", *Truth().contaminants}


def test_few_of_the_genera_that_are_found_do_not_change(null_runs):
    def counted(seed: int) -> pd.DataFrame:
        cohort, _ = without_contaminants(worlds.simulated(worlds.SCENARIOS["demo"].truth, seed, QUICK), 0.05)
        swabs = diversity.rarefy(cohort[cohort.obs["control_type"].eq("sample")], 1000, seed=seed)
        found = taxa.differential(taxa.aggregate(swabs, "genus"), QUICK, 0.1)
        return performance.discoveries(found, worlds.changed_genera("demo"))

    demo = pd.concat([counted(seed) for seed in range(1, 13)])
    for runs in (demo, null_runs):
        false = runs[runs["estimator"].eq(performance.FALSE)].groupby("contrast")["rejects"].agg(["mean", "sem"])
        assert list(false.index) == ["arms", "change", "group"]
        assert (false["mean"] <= 0.05 + 2 * false["sem"]).all(), false
    power = demo[demo["estimator"].eq(performance.CHANGED)].groupby("contrast")["rejects"].mean()
    assert power["group"] > 0.07
    assert power["change"] > 0.04


def test_the_worlds_differ_only_in_what_the_drugs_do():
    apart = worlds.worlds(worlds.SCENARIOS["demo"].truth)
    hidden = {name: simulate_cohort(truth, 5).hidden for name, truth in apart.items()}
    treated, compared, crossed = (hidden[name] for name in ("treatment", "comparator", "crossed"))
    pd.testing.assert_series_equal(treated["D_M0"], compared["D_M0"])
    # Crossed: the severity of the comparator, the skin of the treatment.
    pd.testing.assert_series_equal(crossed["improvement"], compared["improvement"])
    assert crossed["direct"].dropna().eq(0.35).all()
    assert compared["direct"].dropna().eq(0.0).all()


def test_a_dask_cluster_gives_the_same_table(cluster, monkeypatch, null_runs):
    jobs = [(worlds.NO_EFFECT, 2), (worlds.NO_EFFECT, 1)]
    here = pd.concat([null_runs[null_runs["seed"].eq(seed)] for _, seed in jobs], ignore_index=True)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster)
    with performance.workers() as pool:
        there = performance.simulate_runs(jobs, QUICK, pool)
    pd.testing.assert_frame_equal(here, there)
    from distributed import Client  # hidden until workers needed it

    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=30)
        pids = client.run(os.getpid)
    assert len(set(pids.values()) - {os.getpid()}) == 2
