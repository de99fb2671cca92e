import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from distributed import Client
from scipy import stats

from helpers import evidence
from helpers.claims import KEY, VERDICTS, load_claims
from helpers.ingest import build_cohort
from helpers.narrate import interval
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
    return performance.validate(2, like, pool, pooled=2)


def test_every_part_of_every_claim_was_simulated():
    table = performance.read_table("data/demo/validation.tsv")
    assert set(table["scenario"]) == set(worlds.SCENARIOS)
    for scenario, rows in table[table["claim"].ne("")].groupby("scenario"):
        assert keys(rows) == parts_of(DEMO), scenario
        assert rows[["target", "coverage", "rejected"]].notna().all(axis=None)


def test_a_claim_that_a_study_adds_is_simulated_with_its_truth(with_own):
    rows = with_own[with_own["claim"].ne("")]
    assert keys(rows) == parts_of(QUICK.model_copy(update={"own_claims": OWN}))
    assert {"X1", "X2"} < set(rows["claim"])
    assert rows[["target", "mean_estimate", "coverage"]].notna().all(axis=None)
    # A claim has one verdict in each cohort, whichever of its parts stands for it.
    assert rows.groupby(["scenario", "claim"])[list(VERDICTS)].sum().sum(axis=1).eq(1).all()


def test_no_two_estimates_of_a_cohort_have_the_same_key(null_runs):
    assert not null_runs.duplicated(["scenario", "seed", *performance.ROW]).any()


def test_what_the_drugs_do_is_known_of_every_measure_in_which_arms_are_compared(with_own):
    rows = with_own[with_own["interval"].eq("model")].set_index(["scenario", *worlds.ANSWER])["target"].sort_index()
    rows = rows[~rows.index.duplicated()]

    def true(scenario: str, measure: str, contrast: str, estimator: str) -> float:
        return float(rows[(scenario, measure, contrast, "", "", "", estimator)])

    for measure in ("distance_to_healthy", "pathogen", "easi"):
        effect = true("demo", measure, "arms", "ANCOVA")
        assert effect < 0
        assert true("demo", measure, "arms", "overlap weights") == effect
    # EASI falls more under the one drug in all worlds; where both leave the skin alone, nothing is estimated.
    assert true("no effect", "easi", "arms", "ANCOVA") < 0
    for world in ("disease only", "regression to the mean"):
        assert true(world, "pathogen", "arms", "ANCOVA") == 0
    assert rows[("disease only", "shannon", "change", "treatment", "", "", "mean change")] == 0
    assert rows[("regression to the mean", "pathogen", "change", "treatment", "", "", "mean change")] < 0
    assert true("through improvement", "distance_to_healthy", "arms_given_improvement", "direct") == 0
    assert true("through improvement", "distance_to_healthy", "arms", "ANCOVA") < 0
    # Shares of all other taxa stay; the mean of their logarithms, by which one is divided, moves a little.
    aside, towards = (true(world, "pathogen", "arms", "ANCOVA") for world in ("off the axis", "demo"))
    assert 0 < abs(aside) < abs(towards) / 5
    # The truth is of all patients and of their severity, whoever was lost or scored with error.
    for world in ("loss by response", "severity with error"):
        pd.testing.assert_series_equal(rows[world], rows["demo"])
    direct, indirect, total = (
        true("demo", "distance_to_healthy", "arms_given_improvement", effect)
        for effect in ("direct", "indirect", "total")
    )
    assert direct + indirect == pytest.approx(total)
    assert total == true("demo", "distance_to_healthy", "arms", "ANCOVA")


def test_a_changed_estimator_changes_the_simulations(monkeypatch):
    group = evidence.CONTRASTS["group"]

    def shifted(*asked: Any) -> evidence.Estimates:
        return {name: found | {"estimate": found["estimate"] + 100} for name, found in group.estimate(*asked).items()}

    before = performance.one_run("no effect", 1, QUICK)
    monkeypatch.setitem(evidence.CONTRASTS, "group", group._replace(estimate=shifted))
    after = performance.one_run("no effect", 1, QUICK)
    moved = (after["estimate"] - before["estimate"]).round(6)
    assert moved[after["contrast"].eq("group") & after["claim"].ne("")].eq(100).all()
    assert moved[after["contrast"].ne("group")].dropna().eq(0).all()


#: What `helpers.evidence` is asked for instead.
WRAPPED = {
    "linear_contrast", "partial_spearman", "mean_change", "arm_contrasts", "ancova", "change_score", "mediation",
    "closure",
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
    missing = [row.claim for row in parts.itertuples() if interval(row.ci_low, row.ci_high) not in text]
    assert not missing


def test_without_any_effect_few_claims_are_supported(null_runs):
    judged = null_runs[null_runs["verdict"].ne("")]
    supported = judged["verdict"].eq("supported").sum()
    # Were the rate 1 in 20, more than this would be seen once in a thousand times.
    assert supported <= stats.binom.ppf(0.999, len(judged), 0.05)


def test_no_test_rejects_and_no_interval_misses_too_often_under_the_null(null_runs):
    runs = null_runs["seed"].nunique()
    null = null_runs[null_runs["estimator"].ne("arm to mediator")]  # the drugs do act on severity
    null = null.assign(rejects=null["p_value"] < 0.05, misses=(null["ci_low"] > 0) | (null["ci_high"] < 0))
    # Some 50 tests: each may exceed its bound once in ten thousand times.
    bound = stats.binom.ppf(0.9999, runs, 0.05)
    counts = null.groupby(list(performance.ROW))[["rejects", "misses"]].sum()
    assert (counts <= bound).all(axis=None), counts[(counts > bound).any(axis=1)]


def test_the_summary_counts_what_the_runs_say():
    asked = dict(zip(KEY, ("C1", "shannon", "group", "", "", ""), strict=True)) | {"estimator": "OLS"}
    runs = pd.DataFrame(
        {
            "scenario": "demo", "seed": [1, 2, 3, 4], **asked, "interval": "model", "n": 10,
            "estimate": [1.0, 2.0, 3.0, 6.0],
            "ci_low": [0.0, 1.5, 2.5, 5.0], "ci_high": [2.5, 2.5, 3.5, 7.0], "p_value": [0.2, 0.01, 0.04, 0.001],
            "verdict": ["inconclusive", "supported", "", "supported"],
        }
    )  # fmt: skip
    # Of another claim that asks the same, the truth is the same; of another arm, it is not.
    runs = pd.concat([runs, runs.assign(claim="X1"), runs.assign(arm="treatment")])
    truths = pd.DataFrame([{"scenario": "demo", **asked, "arm": arm} for arm in ("treatment", "")])
    truths = truths.drop(columns="claim").assign(target=[5.0, 2.0], target_error=0.0)
    table = performance.summarise(runs, truths, 0.05)
    assert table["target"].tolist() == [2.0, 2.0, 5.0]
    row = table.iloc[0]
    assert (row["runs"], row["mean_estimate"], row["bias"]) == (4, 3.0, 1.0)
    assert (row["coverage"], row["rejected"], row["supported"]) == (0.5, 0.75, 0.5)
    assert row["coverage_error"] == pytest.approx((0.5 * 0.5 / 4) ** 0.5)


def test_the_worlds_differ_only_in_what_the_drugs_do():
    apart = worlds.worlds(worlds.SCENARIOS["demo"].truth)
    hidden = {name: simulate_cohort(truth, 5).hidden for name, truth in apart.items()}
    treated, compared, crossed = (hidden[name] for name in ("treatment", "comparator", "crossed"))
    pd.testing.assert_series_equal(treated["D_M0"], compared["D_M0"])
    # Crossed: the severity of the comparator, the skin of the treatment.
    pd.testing.assert_series_equal(crossed["improvement"], compared["improvement"])
    assert crossed["direct"].dropna().eq(0.35).all()
    assert compared["direct"].dropna().eq(0.0).all()


@pytest.fixture
def cluster(tmp_path) -> Iterator[str]:
    """A Dask scheduler and two worker processes on 127.0.0.1."""
    file = tmp_path / "scheduler.json"
    start = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [
        *start, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)
    ]  # fmt: skip
    worker = [
        *start, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--local-directory",
        str(tmp_path),
    ]  # fmt: skip
    processes = [subprocess.Popen(command, **quiet) for command in (scheduler, worker, worker)]  # type: ignore[call-overload]
    try:
        for _ in range(300):
            if file.is_file() and file.read_text().strip():
                break
            subprocess.run([sys.executable, "-c", "import time; time.sleep(0.1)"], check=True)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(20)


def test_a_dask_cluster_gives_the_same_table(cluster, monkeypatch):
    jobs = [("no effect", 1), ("demo", 2)]
    here = performance.simulate_runs(jobs, QUICK, ThreadPoolExecutor(1))
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster)
    with performance.workers() as pool:
        there = performance.simulate_runs(jobs, QUICK, pool)
    pd.testing.assert_frame_equal(here, there)
    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=30)
        pids = client.run(os.getpid)
    assert len(set(pids.values()) - {os.getpid()}) == 2
