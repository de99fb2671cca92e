import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from distributed import Client
from scipy import stats

from helpers.ingest import build_cohort
from helpers.narrate import interval
from helpers.simulation import performance
from helpers.simulation.cohort import simulate_cohort
from helpers.study import load_study

pytestmark = pytest.mark.slow
DEMO = load_study("data/demo")
QUICK = performance.light(DEMO)


@pytest.fixture(scope="module")
def null_runs() -> pd.DataFrame:
    with performance.workers() as pool:
        return performance.simulate_runs([("no effect", seed) for seed in range(1, 21)], QUICK, pool)


def test_the_validated_estimates_are_those_of_the_notebooks():
    cohort, _ = build_cohort(DEMO)
    _, visits = performance.measured(cohort, DEMO, DEMO.settings)
    parts, _ = performance.claim_parts(visits, DEMO, DEMO.settings)
    shown = {}
    for notebook in Path("notebooks").glob("*.ipynb"):
        shown[notebook.stem] = json.dumps(nbformat.read(notebook, as_version=4)["cells"], ensure_ascii=False)
    text = "".join(shown.values())
    missing = [(p["id"], p["measure"]) for p in parts if interval(p["ci_low"], p["ci_high"]) not in text]
    assert not missing


def test_without_any_effect_few_claims_are_supported(null_runs):
    judged = null_runs[null_runs["id"].ne("") & null_runs["verdict"].ne("")]
    supported = judged["verdict"].eq("supported").sum()
    # Were the rate 1 in 20, more than this would be seen once in a thousand times.
    assert supported <= stats.binom.ppf(0.999, len(judged), 0.05)


def test_no_test_rejects_and_no_interval_misses_too_often_under_the_null(null_runs):
    runs = null_runs["seed"].nunique()
    null = null_runs.assign(
        rejects=null_runs["p_value"] < 0.05, misses=(null_runs["ci_low"] > 0) | (null_runs["ci_high"] < 0)
    )
    # Some 30 tests: each may exceed its bound once in ten thousand times.
    bound = stats.binom.ppf(0.9999, runs, 0.05)
    counts = null.groupby(["id", "measure"])[["rejects", "misses"]].sum()
    assert (counts <= bound).all(axis=None), counts[(counts > bound).any(axis=1)]


def test_the_summary_counts_what_the_runs_say():
    runs = pd.DataFrame(
        {
            "scenario": "demo", "seed": [1, 2, 3, 4], "id": "C1", "measure": "shannon", "n": 10,
            "estimate": [1.0, 2.0, 3.0, 6.0],
            "ci_low": [0.0, 1.5, 2.5, 5.0], "ci_high": [2.5, 2.5, 3.5, 7.0], "p_value": [0.2, 0.01, 0.04, 0.001],
            "verdict": ["inconclusive", "supported", "", "supported"],
        }
    )  # fmt: skip
    truths = pd.DataFrame({"scenario": ["demo"], "id": "C1", "measure": "shannon", "target": 2.0, "target_error": 0.0})
    row = performance.summarise(runs, truths, 0.05).iloc[0]
    assert (row["runs"], row["mean_estimate"], row["bias"]) == (4, 3.0, 1.0)
    assert (row["coverage"], row["rejected"], row["supported"]) == (0.5, 0.75, 0.5)
    assert row["coverage_error"] == pytest.approx((0.5 * 0.5 / 4) ** 0.5)


def test_the_worlds_differ_only_in_what_the_drugs_do():
    worlds = performance.worlds(performance.SCENARIOS["demo"])
    hidden = {name: simulate_cohort(truth, 5).hidden for name, truth in worlds.items()}
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
