"""The claims' tests on many simulated cohorts whose truth is known: type I error, coverage, power, bias.

``make validate`` writes the table.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import norm
from skbio import DistanceMatrix
from tqdm import tqdm

from helpers import claims, diversity, estimates, permutation, quality, response, taxa, treatment
from helpers.files import DEMO, VALIDATION, write_whole
from helpers.ingest import build_cohort
from helpers.simulation.cohort import write_study
from helpers.simulation.truth import ARMS, Truth, without_effects
from helpers.study import Settings, Study, load_study

#: What is true of the simulated cohorts.
SCENARIOS = {
    "no effect": without_effects(Truth(), disease=False),
    "no treatment effect": without_effects(Truth()),
    "demo": Truth(),
}
#: Patients are drawn into worlds in which all of them have one drug, to see what the drugs do.
TARGET_SEEDS = range(100_000, 100_100)
#: Fewer resamples than the report's, so that many cohorts can be analysed.
LIGHT = {"rarefactions": 3, "bootstraps": 400, "permutations": 199}
#: What `summarise` needs of an estimate.
KEYS = ("estimate", "ci_low", "ci_high", "p_value", "n")


def simulated(truth: Truth, seed: int, like: Study) -> AnnData:
    """Simulate a cohort and take it in through its files, as a user's is.

    Parameters
    ----------
    truth : Truth
    seed : int
        Instead of ``truth.seed``.
    like : Study
        The demo study, whose files have the same columns.

    Returns
    -------
    AnnData
        As from `helpers.ingest.build_cohort`.
    """
    with TemporaryDirectory() as folder:
        write_study(truth.model_copy(update={"seed": seed}), folder)
        return build_cohort(like.elsewhere(folder))[0]


def measured(cohort: AnnData, study: Study, settings: Settings) -> tuple[AnnData, pd.DataFrame]:
    """What the chapters measure in each patient at each visit, as far as claims rest on it.

    Parameters
    ----------
    cohort : AnnData
        As from `helpers.ingest.build_cohort`.
    study : Study
    settings : Settings

    Returns
    -------
    swabs : AnnData
        Those that were used, with the distances in ``obsp["sqrt_bray_curtis"]``.
    visits : DataFrame
        As from `helpers.visits.by_patient`: shannon, distance_to_healthy, and the taxa of interest.
    """
    contaminants = quality.flag_contaminants(cohort, settings.alpha)
    samples = cohort[cohort.obs["control_type"].eq("sample")]
    clean = samples[:, ~samples.var_names.isin(contaminants.index[contaminants["contaminant"]])]
    clean = clean[visits_.analysis_swabs(clean.obs, settings.swabs)]
    rarefied = diversity.rarefy(clean, settings.rarefaction_depth, seed=settings.seed)
    root = diversity.square_root(
        diversity.bray_curtis(clean, settings.rarefaction_depth, rarefactions=settings.rarefactions, seed=settings.seed)
    )
    shannon = diversity.expected_alpha(clean, settings.rarefaction_depth, ["shannon"]).loc[rarefied.obs_names]
    healthy = rarefied.obs["group"].eq("control") & rarefied.obs["visit"].eq("baseline")
    distance = diversity.distance_to_reference(root, healthy, rarefied.obs["subject"])
    genus, species = taxa.aggregate(rarefied, "genus"), taxa.aggregate(rarefied, "species")
    measures = taxa.of_interest(genus, species, study.taxa).join(shannon).join(distance)
    rarefied.obsp["sqrt_bray_curtis"] = root.data
    return rarefied, visits_.by_patient(rarefied.obs, measures)


def claim_parts(
    visits: pd.DataFrame, study: Study, settings: Settings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Estimate what the claims rest on, as the chapters do, and what stands beside them.

    Parameters
    ----------
    visits : DataFrame
        As from `measured`.
    study : Study
    settings : Settings

    Returns
    -------
    parts : list of dict
        As from `helpers.claims.part`, for `helpers.claims.verdicts`.
    beside : list of dict
        ``id``, ``measure`` and the keys of an estimate: other intervals and tests that the report shows.
    """
    level: dict[str, Any] = {"alpha": settings.alpha}
    drawn: dict[str, Any] = {"bootstraps": settings.bootstraps, "seed": settings.seed}
    margin = {"equivalence_margin": settings.equivalence_margin, **level}
    baseline = visits[visits["visit"].eq("baseline")]
    patients = baseline[baseline["case"]]
    parts, beside = [], []

    def part(claim: str, measure: str, estimate: Any, sign: int = 0) -> None:
        parts.append(claims.part(claim, study, measure, dict(estimate), unit="", section="", sign=sign))

    for claim, measure, sign in (("C1", "shannon", -1), ("C2", "genus_clr", 1), ("C3", "pathogen_clr", 1)):
        part(claim, measure, estimates.linear_contrast(baseline, measure, "case", study.adjust.group, **level), sign)
    for claim, measure, sign in (("C4", "shannon", -1), ("C5", "pathogen_clr", 1)):
        for score in study.severity:
            rho = estimates.partial_spearman(patients, measure, score.name, study.adjust.group, **drawn, **level)
            part(claim, f"{measure}, {score.name}", rho, sign)
    for measure, sign, moved in (
        ("shannon", 1, ("C6", "C7")),
        ("distance_to_healthy", -1, ("C6", "C7")),
        ("pathogen_clr", -1, ("C8", "C9")),
    ):
        change = estimates.changes_by_arm(visits, measure, **margin)
        for claim, arm in zip(moved, ("treatment", "comparator"), strict=True):
            part(claim, f"{measure}, change", change.loc[arm], sign)
    improved = response.improvement(visits, study.severity)
    clear = improved.index[improved >= study.response.near_clear].intersection(
        patients.loc[patients["who"].eq("treatment"), "subject"]
    )
    both = response.with_controls(visits, clear)
    for measure in ("shannon", "distance_to_healthy", "pathogen_clr"):
        difference = estimates.linear_contrast(both, measure, "case", study.adjust.group, cautious=True, **level)
        tolerated = settings.equivalence_margin * estimates.control_sd(visits, measure)
        part("C10", measure, difference | estimates.equivalence(difference, tolerated))
    arms = treatment.arms(visits_.paired(visits, "distance_to_healthy").join(improved, on="subject"))
    contrasts = treatment.arm_contrasts(arms, study.adjust.arm, **drawn, **level)
    effects = treatment.mediation(arms, "improvement", study.adjust.arm, **drawn, **level)
    part("C11", "distance_to_healthy, direct", effects.loc["direct"], -1)
    part("C12", "distance_to_healthy, ANCOVA", contrasts.loc["ANCOVA"], -1)

    def note(what: str, estimate: Any) -> None:
        beside.append({"id": "", "measure": what, **{k: estimate[k] for k in KEYS}})

    for name, row in contrasts.iterrows():
        bootstrap = {"ci_low": row["boot_low"], "ci_high": row["boot_high"], "p_value": np.nan}
        note(f"arms: {name}, model", row)
        note(f"arms: {name}, bootstrap", row.to_dict() | bootstrap)
    for name in ("total", "indirect"):
        note(f"mediation: {name}", effects.loc[name])
    _, reference = visits_.cases_and_controls(baseline, "distance_to_healthy")
    closed = diversity.closure(arms[arms["treated"]], reference, **drawn, **level)
    note("closure, treatment", closed | {"p_value": np.nan})
    return parts, beside


def permanova_tests(swabs: AnnData, study: Study, settings: Settings) -> list[dict[str, Any]]:
    """The p-values of the report's PERMANOVA.

    Parameters
    ----------
    swabs : AnnData
        As from `measured`.
    study : Study
    settings : Settings

    Returns
    -------
    list of dict
        As what stands beside the claims in `claim_parts`.
    """
    distmat = DistanceMatrix(swabs.obsp["sqrt_bray_curtis"], list(swabs.obs_names))
    table = permutation.permanova_table(
        {"": distmat},
        swabs.obs,
        study.labels.model_dump(),
        covariates=study.adjust.group,
        arm_covariates=study.adjust.arm,
        permutations=settings.permutations,
        seed=settings.seed,
    )
    unknown = dict.fromkeys(KEYS, np.nan)
    return [
        {"id": "", "measure": f"PERMANOVA: {row['term']}, {row['patients']}"}
        | unknown
        | {"p_value": row["p_value"], "n": row["n"]}
        for row in table.to_dict("records")
    ]


def one_run(scenario: str, seed: int, like: Study) -> pd.DataFrame:
    """Simulate one cohort and analyse it.

    Parameters
    ----------
    scenario : str
        One of `SCENARIOS`.
    seed : int
    like : Study
        The demo study.

    Returns
    -------
    DataFrame
        One row an estimate: scenario, seed, id (the claim; blank for what stands beside the claims), measure, `KEYS`,
        and, of the part that stands for its claim, the ``verdict``.
    """
    settings = like.settings.model_copy(update={"seed": seed})
    swabs, visits = measured(simulated(SCENARIOS[scenario], seed, like), like, settings)
    parts, beside = claim_parts(visits, like, settings)
    beside += permanova_tests(swabs, like, settings)
    judged = claims.verdicts(pd.DataFrame(parts).assign(notebook=""), settings.alpha).set_index("id")
    rows = pd.DataFrame(parts + beside).assign(scenario=scenario, seed=seed)
    stands = rows["measure"].eq(rows["id"].map(judged["measure"]))
    rows["verdict"] = rows["id"].map(judged["verdict"]).where(stands, "")
    return rows[["scenario", "seed", "id", "measure", *KEYS, "verdict"]]


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
    jobs : sequence of (scenario, seed)
    like : Study
        The demo study.
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


# --- the truth -------------------------------------------------------------------------------------------------------


def worlds(truth: Truth) -> dict[str, Truth]:
    """The same patients in worlds in which all of them have one treatment.

    Returns
    -------
    dict
        ``treatment``, ``comparator``, and ``crossed``: the treatment acts, but severity takes the course that it has
        under the comparator. Crossed minus comparator is the natural direct effect, treatment minus crossed the
        natural indirect one (VanderWeele, Explanation in Causal Inference, 2015, chapter 2).
    """
    n = sum(truth.population.patients.values())
    everyone = {arm: truth.population.model_copy(update={"patients": {ARMS[0]: 0, ARMS[1]: 0, arm: n}}) for arm in ARMS}
    treated, compared = (getattr(truth.treatment, arm) for arm in ARMS)
    crossed = treated.model_copy(update={"remaining": compared.remaining})
    return {
        "treatment": truth.model_copy(update={"population": everyone[ARMS[0]]}),
        "comparator": truth.model_copy(update={"population": everyone[ARMS[1]]}),
        "crossed": truth.model_copy(
            update={
                "population": everyone[ARMS[0]],
                "treatment": truth.treatment.model_copy(update={ARMS[0]: crossed}),
            }
        ),
    }


def visits_of(truth: Truth, seed: int, like: Study) -> pd.DataFrame:
    """`measured` of a simulated cohort, the subjects named so that cohorts can be pooled."""
    _, visits = measured(simulated(truth, seed, like), like, like.settings)
    return visits.assign(subject=f"{seed} " + visits["subject"])


def targets(truth: Truth, seeds: Iterable[int], like: Study, pool: Executor) -> pd.DataFrame:
    """What the estimates would be in very many patients; for the contrasts of the arms, what the drugs truly do.

    The effect of the drugs differs between patients. That of the overlap population (Li, Morgan & Zaslavsky, J Am Stat
    Assoc 2018;113:390) is what overlap weights estimate, and nearly what a regression does (Angrist, Econometrica
    1998;66:249): the mean over treated patients, each weighing as likely as the other drug was.

    Parameters
    ----------
    truth : Truth
    seeds : iterable of int
        Of the cohorts that are pooled; not those of the runs.
    like : Study
        The demo study.
    pool : concurrent.futures.Executor

    Returns
    -------
    DataFrame
        Columns id, measure, target and target_error, its Monte-Carlo standard error.
    """
    seeds = list(seeds)
    arms = [getattr(truth.treatment, arm) for arm in ARMS]
    apart = worlds(truth) if any(arm.direct or arm.mediated for arm in arms) else {}
    futures = {
        name: [pool.submit(visits_of, t, seed, like) for seed in seeds] for name, t in {"": truth, **apart}.items()
    }
    for _ in tqdm(
        as_completed([f for each in futures.values() for f in each]),
        total=len(seeds) * len(futures),
        desc="truth",
        mininterval=5,
    ):
        pass
    pooled = pd.concat(future.result() for future in futures[""])
    parts, beside = claim_parts(pooled, like, like.settings.model_copy(update={"bootstraps": 100}))
    table = pd.DataFrame(parts + beside).rename(columns={"estimate": "target"})
    table["target_error"] = (table["ci_high"] - table["ci_low"]) / (2 * norm.ppf(1 - like.settings.alpha / 2))
    # The arms are not alike: pooling more patients of them does not tell what the drugs do. The worlds do, in the
    # patients whom the estimators weigh: those who could have had either drug.
    patients = treatment.arms(visits_.paired(pooled, "distance_to_healthy"))
    patients = patients.dropna(subset=like.adjust.arm)
    weights = treatment.overlap_weights(patients, like.adjust.arm)[patients["treated"]]
    weights.index = pd.Index(patients.loc[patients["treated"], "subject"])
    ends = {name: pd.concat(_end(future.result()) for future in each) for name, each in futures.items() if name}
    treated, compared, crossed = (
        ends.get(world, pd.Series(0.0, weights.index)) for world in ("treatment", "comparator", "crossed")
    )
    effects = {"total": treated - compared, "direct": crossed - compared, "indirect": treated - crossed}
    causal = {"distance_to_healthy, direct": "direct", "distance_to_healthy, ANCOVA": "total"}
    causal |= {f"mediation: {name}": name for name in ("total", "indirect")}
    causal |= {name: "total" for name in table["measure"] if name.startswith("arms: ")}
    for i, measure in table["measure"].items():
        if measure in causal:
            effect = effects[causal[measure]].reindex(weights.index).dropna()
            own = weights[effect.index] / weights[effect.index].sum()
            mean = (own * effect).sum()
            table.loc[i, ["target", "target_error"]] = mean, np.sqrt((own**2 * (effect - mean) ** 2).sum())
    return table[["id", "measure", "target", "target_error"]]


def _end(visits: pd.DataFrame) -> pd.Series:
    """Distance to healthy of each patient at follow-up."""
    return visits[visits["case"] & visits["visit"].eq("followup")].set_index("subject")["distance_to_healthy"]


# --- the table -------------------------------------------------------------------------------------------------------


def summarise(runs: pd.DataFrame, truths: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Bias, coverage, rejections and verdicts over the runs, each share with its Monte-Carlo standard error.

    Parameters
    ----------
    runs : DataFrame
        As from `simulate_runs`.
    truths : DataFrame
        As from `targets`, with the column scenario.
    alpha : float

    Returns
    -------
    DataFrame
        One row a scenario and estimate: scenario, id, measure, runs (that could be estimated), target, target_error,
        mean_estimate, bias (mean minus target), bias_error, coverage (share of intervals that hold the target),
        coverage_error, rejected (share with p < alpha: type I error where the target is null, else power),
        rejected_error, and of the part that stands for its claim the share of each verdict.

    References
    ----------
    Morris, White & Crowther, Stat Med 2019;38:2074 (performance measures and their Monte-Carlo errors).
    """
    merged = runs.merge(truths, on=["scenario", "id", "measure"], how="left")
    span = merged["ci_low"].notna() & merged["target"].notna()
    held = (merged["ci_low"] <= merged["target"]) & (merged["target"] <= merged["ci_high"])
    merged["held"] = held.astype(float).where(span)
    merged["rejects"] = (merged["p_value"] < alpha).astype(float).where(merged["p_value"].notna())
    keys = ["scenario", "id", "measure"]
    groups = merged.groupby(keys, sort=False)
    table = groups.agg(
        runs=("n", "count"),
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
    verdicts = ["supported", "contradicted", "equivalent", "inconclusive"]
    cohorts = runs.groupby("scenario")["seed"].nunique()
    for verdict in verdicts:
        told = merged["verdict"].eq(verdict).groupby([merged[k] for k in keys], sort=False).sum()
        # Another part may stand for the claim in each run: the claim's shares are those of all its parts together.
        table[verdict] = told / cohorts.reindex(table.index.get_level_values("scenario")).to_numpy()
    order = [
        "runs", "target", "target_error", "mean_estimate", "bias", "bias_error", "coverage", "coverage_error",
        "rejected", "rejected_error", *verdicts,
    ]  # fmt: skip
    return table[order].reset_index()


def validate(runs: int, like: Study, pool: Executor, *, first_seed: int = 1, pooled: int = 100) -> pd.DataFrame:
    """Simulate and analyse cohorts of every scenario.

    Parameters
    ----------
    runs : int
        Cohorts a scenario.
    like : Study
        The demo study.
    pool : concurrent.futures.Executor
    first_seed : int
    pooled : int
        Cohorts that are pooled to know the truth.

    Returns
    -------
    DataFrame
        As from `summarise`.
    """
    truths = [
        targets(truth, TARGET_SEEDS[:pooled], like, pool).assign(scenario=scenario)
        for scenario, truth in SCENARIOS.items()
        if scenario != "no effect"
    ]
    # Without any effect all is zero; pooling would only add noise.
    nothing = truths[0].assign(scenario="no effect")
    nothing[["target", "target_error"]] = nothing[["target", "target_error"]].where(nothing["target"].isna(), 0.0)
    jobs = [(scenario, seed) for scenario in SCENARIOS for seed in range(first_seed, first_seed + runs)]
    return summarise(simulate_runs(jobs, like, pool), pd.concat([nothing, *truths]), like.settings.alpha)


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
