"""The claims' tests on many simulated cohorts whose truth is known: type I error, coverage, power, bias.

``make validate`` writes the table.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from skbio import DistanceMatrix
from tqdm import tqdm

from helpers import evidence, permutation
from helpers.claims import KEY, VERDICTS, load_claims, verdicts
from helpers.files import DEMO, VALIDATION, write_whole
from helpers.simulation.worlds import ANSWER, SCENARIOS, TARGET_SEEDS, examined, simulated, targets
from helpers.study import Settings, Study, load_study

#: Fewer resamples than the report's, so that many cohorts can be analysed.
LIGHT = {"rarefactions": 2, "bootstraps": 400, "permutations": 199}
#: What tells an estimate of a cohort from all others: the part of a claim (blank for what stands beside the claims),
#: how it was estimated, and whether the interval is the ``model``'s or the ``bootstrap``'s.
ROW = (*KEY, "estimator", "interval")
#: What `summarise` needs of an estimate.
NUMBERS = ("estimate", "ci_low", "ci_high", "p_value", "n")


def one_run(scenario: str, seed: int, like: Study) -> pd.DataFrame:
    """Simulate one cohort and analyse it.

    Parameters
    ----------
    scenario : str
        One of `helpers.simulation.worlds.SCENARIOS`.

    Returns
    -------
    DataFrame
        One row an estimate: scenario, seed, `ROW`, `NUMBERS`, and, of the part that stands for its claim, the
        ``verdict``.
    """
    settings = like.settings.model_copy(update={"seed": seed})
    swabs = examined(simulated(SCENARIOS[scenario].truth, seed, like), like, settings)
    rows = estimated(swabs, like, settings)
    return pd.concat([rows, permanova_tests(swabs, like, settings)], ignore_index=True).assign(
        scenario=scenario, seed=seed
    )[["scenario", "seed", *ROW, *NUMBERS, "verdict"]]


def estimated(swabs: AnnData, like: Study, settings: Settings) -> pd.DataFrame:
    """The evidence of the study's claims, their verdicts, and what stands beside them.

    Returns
    -------
    DataFrame
        `ROW`, `NUMBERS`, verdict.
    """
    tested = load_claims(like)
    answered = evidence.answers(evidence.asked_by(tested, like), swabs, like, settings)
    parts = evidence.gather(tested, swabs, like, settings, answered).assign(interval="model")
    judged = verdicts(parts.assign(notebook=""), tested, like, settings.alpha).rename(columns={"id": "claim"})
    parts = parts.merge(judged[[*KEY, "verdict"]], how="left", on=list(KEY), validate="one_to_one")
    beside = answered.assign(claim="", interval="model")
    drawn = beside.assign(
        interval="bootstrap", ci_low=beside.get("boot_low"), ci_high=beside.get("boot_high"), p_value=np.nan
    )
    # Some intervals are the bootstrap's already.
    another = drawn["ci_low"].notna() & (drawn["ci_low"].ne(beside["ci_low"]) | drawn["ci_high"].ne(beside["ci_high"]))
    rows = pd.concat([parts, beside[~beside["stands"]], drawn[another]], ignore_index=True)
    return rows[[*ROW, *NUMBERS, "verdict"]].fillna({"verdict": ""})


def permanova_tests(swabs: AnnData, like: Study, settings: Settings) -> pd.DataFrame:
    """The p-values of the report's PERMANOVA: the contrast is its term, the arm whose visits are compared.

    Returns
    -------
    DataFrame
        As from `estimated`.
    """
    distmat = DistanceMatrix(swabs.obsp["sqrt_bray_curtis"], list(swabs.obs_names))
    table = permutation.permanova_table(
        {"": distmat},
        swabs.obs,
        {arm: arm for arm in ("control", "treatment", "comparator")},
        covariates=like.adjust.group,
        arm_covariates=like.adjust.arm,
        permutations=settings.permutations,
        seed=settings.seed,
    )
    rows = table.rename(columns={"term": "contrast", "patients": "arm"}).replace({"arm": {"all": "", "both arms": ""}})
    rows = rows.reindex(columns=[*ROW, *NUMBERS, "verdict"])
    blank = [column for column in (*ROW, "verdict") if column not in ("contrast", "arm")]
    return rows.assign(**dict.fromkeys(blank, "")).assign(estimator="PERMANOVA", interval="model")


@contextmanager
def workers() -> Iterator[Executor]:
    """Every core of this machine; or the Dask cluster of ``DASK_SCHEDULER_ADDRESS``, if that is set."""
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address:
        from distributed import Client

        with Client(address) as client, client.get_executor() as pool:
            yield pool
    else:
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            yield pool


def simulate_runs(jobs: Sequence[tuple[str, int]], like: Study, pool: Executor) -> pd.DataFrame:
    """Analyse many simulated cohorts.

    Parameters
    ----------
    pool : concurrent.futures.Executor
        As from `workers`.

    Returns
    -------
    DataFrame
        The rows of `one_run`, in the order of `jobs` whatever the order in which they were done.
    """
    futures = [pool.submit(one_run, *job, like) for job in jobs]
    for _ in tqdm(as_completed(futures), total=len(futures), desc="cohorts", mininterval=5):
        pass
    return pd.concat([future.result() for future in futures], ignore_index=True)


# --- the table -------------------------------------------------------------------------------------------------------


def summarise(runs: pd.DataFrame, truths: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Bias, coverage, rejections and verdicts over the runs, each share with its Monte-Carlo standard error.

    Parameters
    ----------
    runs : DataFrame
        As from `simulate_runs`.
    truths : DataFrame
        As from `helpers.simulation.worlds.targets`.

    Returns
    -------
    DataFrame
        One row a scenario and estimate: scenario, `ROW`, runs (that could be estimated), target, target_error,
        mean_estimate, bias (mean minus target), bias_error, coverage (share of intervals that hold the target),
        coverage_error, rejected (share with p < alpha: type I error where the target is null, else power),
        rejected_error, and of the part that stands for its claim the share of each verdict.

    References
    ----------
    Morris, White & Crowther, Stat Med 2019;38:2074 (performance measures and their Monte-Carlo errors).
    """
    merged = runs.merge(truths, on=["scenario", *ANSWER], how="left", validate="many_to_one")
    span = merged["ci_low"].notna() & merged["target"].notna()
    held = (merged["ci_low"] <= merged["target"]) & (merged["target"] <= merged["ci_high"])
    merged["told"] = merged[["estimate", "p_value"]].notna().any(axis=1)
    merged["held"] = held.astype(float).where(span)
    merged["rejects"] = (merged["p_value"] < alpha).astype(float).where(merged["p_value"].notna())
    # Another part may stand for the claim in each run: the claim's shares are those of all its parts together.
    merged = merged.assign(**{verdict: merged["verdict"].eq(verdict) for verdict in VERDICTS})
    groups = merged.groupby(["scenario", *ROW], sort=False)
    table = groups.agg(
        runs=("told", "sum"),
        target=("target", "first"),
        target_error=("target_error", "first"),
        mean_estimate=("estimate", "mean"),
        bias_error=("estimate", "sem"),
        coverage=("held", "mean"),
        rejected=("rejects", "mean"),
    )
    table["bias"] = table["mean_estimate"] - table["target"]
    for share, of in (("coverage", "held"), ("rejected", "rejects")):
        table[f"{share}_error"] = np.sqrt(table[share] * (1 - table[share]) / groups[of].count())
    table = table.join(groups[list(VERDICTS)].mean())
    order = [
        "runs", "target", "target_error", "mean_estimate", "bias", "bias_error", "coverage", "coverage_error",
        "rejected", "rejected_error", *VERDICTS,
    ]  # fmt: skip
    return table[order].reset_index()


def validate(
    runs: int, like: Study, pool: Executor, *, first_seed: int = 1, pooled: int = len(TARGET_SEEDS)
) -> pd.DataFrame:
    """Simulate and analyse cohorts of every scenario.

    Parameters
    ----------
    runs : int
        Cohorts a scenario.
    pooled : int
        Cohorts that are pooled to know the truth.

    Returns
    -------
    DataFrame
        As from `summarise`.
    """
    truths = targets(like, pool, pooled)
    jobs = [(scenario, seed) for scenario in SCENARIOS for seed in range(first_seed, first_seed + runs)]
    return summarise(simulate_runs(jobs, like, pool), truths, like.settings.alpha)


def read_table(file: str | Path) -> pd.DataFrame:
    """The table as `write_validation` wrote it."""
    table = pd.read_csv(file, sep="\t", dtype=dict.fromkeys(ROW, str))
    return table.fillna(dict.fromkeys(ROW, ""))


def light(study: Study) -> Study:
    """The study with the settings of `LIGHT`."""
    return study.model_copy(update={"settings": study.settings.model_copy(update=LIGHT)})


def write_validation(runs: int) -> str:
    """Write the table of ``make validate``; what was done."""
    like = light(load_study(DEMO))
    with workers() as pool:
        table = validate(runs, like, pool)
    write_whole(VALIDATION, table.to_csv(sep="\t", index=False, float_format="%.6g", lineterminator="\n"))
    return f"{runs} cohorts a scenario: {VALIDATION}"
