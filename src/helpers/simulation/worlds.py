"""Simulated worlds: cohorts of them, measured as the report measures its own, and what is true of every estimate."""

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.stats import norm

from helpers import evidence, treatment, workers
from helpers.claims import load_claims
from helpers.evidence import BEYOND_REGRESSION, Asked
from helpers.ingest import cohort_of
from helpers.lineage import parse_lineage
from helpers.measures import by_visit, find, measured
from helpers.quality import without_contaminants
from helpers.simulation.cohort import catalogue, metadata_text, simulate_cohort
from helpers.simulation.truth import ARMS, Truth, changed, without_effects
from helpers.study import RANKS, Settings, Study
from helpers.tables import Counts
from helpers.texts import packaged
from helpers.visits import paired


class Scenario(NamedTuple):
    """A world: its truth, what that is in words, and what is nothing there, so that a test that finds it errs."""

    truth: Truth
    told: str
    null: str = ""


def _scenarios() -> dict[str, Scenario]:
    """The worlds of scenarios.yaml, which explains them."""
    inert = changed(without_effects(Truth()), treatment={"shift_sd": 0.0})
    bases = {"demo": Truth(), "no drugs": inert, "no effects": without_effects(Truth(), disease=False)}
    told = packaged("simulation/scenarios.yaml")
    truths = {name: changed(bases[of.get("from", "demo")], **of.get("changes", {})) for name, of in told.items()}
    return {name: Scenario(truths[name], of["told"], of.get("nothing", "")) for name, of in told.items()}


SCENARIOS = _scenarios()
#: In the first, every test that rejects errs; the other is that of the demo study.
NO_EFFECT, DEMO_WORLD = "no effect", "demo"
#: What tells an estimate from all others but those of other claims that ask the same.
ANSWER = (*Asked._fields, "estimator")
#: Effects of the arms that worlds in which everyone has one treatment tell.
EFFECTS = ("total", "direct", "indirect")
#: Seeds of the cohorts by which the truth is known; not those of the runs.
TARGET_SEEDS = range(100_000, 100_060)


def simulated(truth: Truth, seed: int, like: Study) -> AnnData:
    """A simulated cohort as from `helpers.ingest.cohort_of`; its tree has tips for all ASVs that there are."""
    cohort = simulate_cohort(truth, seed)
    counts = sparse.csr_matrix(cohort.counts[:, cohort.seen], dtype=float)
    var = _ranks(tuple(cohort.taxonomy.index), tuple(cohort.taxonomy["Taxon"])).iloc[cohort.seen]
    table = Counts(counts, list(cohort.metadata.index), list(var.index))
    taken = cohort_of(like, metadata_text(cohort).encode(), table, var)
    taken.uns["tree"] = cohort.tree
    return taken


@lru_cache(maxsize=4)
def _ranks(features: tuple[str, ...], lineages: tuple[str, ...]) -> pd.DataFrame:
    """Features x ranks: all cohorts of a catalogue have the same."""
    return pd.DataFrame(map(parse_lineage, lineages), index=features, columns=list(RANKS), dtype=object)


def examined(cohort: AnnData, like: Study, settings: Settings) -> AnnData:
    """Clean a cohort and measure what the study's claims ask for by `helpers.measures.measured`, as chapters do."""
    clean, _ = without_contaminants(cohort, settings.alpha)
    asked = evidence.asked_by(load_claims(like), like)
    return measured(clean, like, settings, [each.measure for each in asked])


def worlds(truth: Truth) -> dict[str, Truth]:
    """The same patients in worlds in which all of them have one treatment.

    ``treatment``, ``comparator``, and ``crossed``: the treatment acts, but severity takes the course that it has under
    the comparator. Crossed minus comparator is the natural direct effect, treatment minus crossed the natural indirect
    one (VanderWeele, Explanation in Causal Inference, 2015, chapter 2).
    """
    n = sum(truth.population.patients.values())
    treated, compared = (changed(truth, population={"patients": dict.fromkeys(ARMS, 0) | {arm: n}}) for arm in ARMS)
    course = {ARMS[0]: {"remaining": getattr(truth.treatment, ARMS[1]).remaining}}
    return {"treatment": treated, "comparator": compared, "crossed": changed(treated, treatment=course)}


def fully_seen(truth: Truth) -> Truth:
    """The same world with nobody lost by response, and scored without error: what estimates are about."""
    return changed(truth, sequencing={"lost_remaining": 0.0}, severity={"rater": 0.0})


def true_of(truth: Truth, seeds: Sequence[int], like: Study, pool: Executor) -> pd.DataFrame:
    """What the estimates would be in very many patients; for the contrasts of the arms, what the drugs truly do.

    The effect of the drugs differs between patients. That of the overlap population (Li, Morgan & Zaslavsky, J Am Stat
    Assoc 2018;113:390) is what overlap weights estimate, and nearly what a regression does (Angrist, Econometrica
    1998;66:249): the mean over treated patients, each weighing as likely as the other drug was. Where drugs, or the
    disease too, leave the skin alone, what they do to it is zero and is not estimated; nor is a change where nothing
    can make one. Else a change within an arm is what there is, whatever made it: regression to the mean, too.

    One row an answer: `ANSWER`, target, and target_error, its Monte-Carlo standard error. `seeds` are of the cohorts
    that are pooled, not those of the runs.
    """
    asked = evidence.asked_by(load_claims(like), like)
    drugs = [getattr(truth.treatment, name) for name in ARMS]
    inert = not any(drug.direct or drug.mediated or drug.aside for drug in drugs)
    causal = [each for each in asked if each.contrast in ("arms", "arms_given_improvement")]
    unknown = [each for each in causal if not (inert and _of_skin(each, like))]
    apart = worlds(truth) if unknown else {}
    there_are = {"": truth, **apart}
    jobs = [(t, seed, like) for t in there_are.values() for seed in seeds]
    cohorts = iter(workers.each(_pooled, jobs, pool, "truth"))
    obs = {name: pd.concat([next(cohorts) for _ in seeds]) for name in there_are}
    keys = [key for key in dict.fromkeys(each.measure for each in asked) if find(key, like).kind != "severity"]
    pooled = AnnData(obs=obs.pop(""), uns={"measures": keys})
    few = like.settings.model_copy(update={"bootstraps": 100})
    table = evidence.answers(asked, pooled, like, few).rename(columns={"estimate": "target"})
    table["target_error"] = (table["ci_high"] - table["ci_low"]) / (2 * norm.ppf(1 - few.alpha / 2))
    # The arms are not alike: pooling more patients of them does not tell what the drugs do. The worlds do.
    visits, there = by_visit(pooled, keys), {name: by_visit(each, keys) for name, each in obs.items()}
    for question in causal:
        effects = _effects(question, visits, there, like) if question in unknown else dict.fromkeys(EFFECTS, (0.0, 0.0))
        rows = table[list(Asked._fields)].eq(question).all(axis=1)
        for i, estimator in table.loc[rows, "estimator"].items():
            effect = "total" if question.contrast == "arms" else estimator
            if effect in effects:
                table.loc[i, ["target", "target_error"]] = effects[effect]
    answers = table[list(ANSWER)].itertuples(index=False)
    of_skin = np.array([_of_skin(Asked(*asked), like, estimator) for *asked, estimator in answers])
    # Where nothing acts on the skin between the visits, one is as the other.
    alike = inert and not truth.treatment.shift_sd and truth.severity.correlation == 1
    nothing = alike & table["contrast"].isin(["change", "change_in"]) | (inert and not truth.skin.disease)
    table.loc[nothing & of_skin & table["target"].notna(), ["target", "target_error"]] = 0.0
    # What is left beyond regression is a bound: only of drugs that do nothing is it known what should be left.
    table.loc[table["estimator"].eq(BEYOND_REGRESSION), ["target", "target_error"]] = 0.0 if inert else np.nan
    return table[[*ANSWER, "target", "target_error"]]


def _of_skin(asked: Asked, like: Study, estimator: str = "") -> bool:
    """Whether an answer is about the skin, and not about the severity that the drugs improve in every scenario."""
    return find(asked.measure, like).kind != "severity" and estimator != "arm to mediator"


def _pooled(truth: Truth, seed: int, like: Study) -> pd.DataFrame:
    """``obs`` of a simulated cohort that was measured; swabs and subjects named so that cohorts can be pooled."""
    obs = examined(simulated(truth, seed, like), like, like.settings).obs
    return obs.assign(subject=f"{seed} " + obs["subject"].astype(str)).rename(index=lambda swab: f"{seed} {swab}")


def _effects(
    asked: Asked, visits: pd.DataFrame, there: dict[str, pd.DataFrame], like: Study
) -> dict[str, tuple[float, float]]:
    """What the drugs do to a measure at follow-up in the patients whom the estimators weigh, each with its error."""
    covariates = evidence.arm_covariates(asked, like)
    patients = treatment.arms(paired(visits, asked.measure)).dropna(subset=covariates)
    weights = treatment.overlap_weights(patients, covariates)[patients["treated"]]
    weights.index = pd.Index(patients.loc[patients["treated"], "subject"])
    ends = {name: each[each["visit"].eq("followup")].set_index("subject") for name, each in there.items()}
    treated, compared, crossed = (
        ends[name][asked.measure].reindex(weights.index) for name in ("treatment", "comparator", "crossed")
    )
    apart = pd.concat([treated - compared, crossed - compared, treated - crossed], axis=1, keys=EFFECTS).dropna()
    own = weights[apart.index] / weights[apart.index].sum()
    means = apart.mul(own, axis=0).sum()
    errors = np.sqrt((apart - means).pow(2).mul(own**2, axis=0).sum())
    return {effect: (means[effect], errors[effect]) for effect in EFFECTS}


@lru_cache(maxsize=len(SCENARIOS))
def changed_genera(scenario: str) -> dict[str, frozenset[str]]:
    """The genera that truly change, in each of the questions that `helpers.taxa.differential` asks.

    A genus changes if what makes the difference moves its abundance, or who has it, on the skin; in absolute numbers,
    and not because others bloom. All others do not, contaminants among them, which live on no skin.

    ``group``: the disease acts on the skin; ``change``: the patients' dysbiosis is another at month 3, by drugs or by
    itself; ``arms``: drugs act on the skin.
    """
    truth = SCENARIOS[scenario].truth
    moved = frozenset(t.name.split()[0] for t in catalogue(truth).taxa if t.effect or t.colonisation)
    hidden = pd.concat([simulate_cohort(truth, seed).hidden for seed in TARGET_SEEDS[:5]])
    under = hidden[hidden["drug"].eq(ARMS[0])]
    change = under["D_M3"] - under["D_M0"]
    drugs = [getattr(truth.treatment, name) for name in ARMS]
    towards = any(drug.direct or drug.mediated for drug in drugs)
    aside = frozenset(name.split()[0] for name in truth.skin.aside if drugs[0].aside != drugs[1].aside)
    ill, nothing = truth.skin.disease != 0, frozenset[str]()
    later = abs(change.mean()) > 5 * change.sem()
    group, changing, arms = (moved if so else nothing for so in (ill, later, ill and towards))
    return {"group": group, "change": aside | changing, "arms": aside | arms}


def targets(like: Study, pool: Executor, pooled: int = len(TARGET_SEEDS)) -> pd.DataFrame:
    """`true_of` every scenario, its name a column: of all its patients, lost or not, and of their severity as it is.

    So many cohorts are `pooled`: a target's error is that of one cohort's estimate by the root of it. With 60, coverage
    comes out lower by 0.2 points, of which 500 cohorts know one.
    """
    truths = {name: fully_seen(scenario.truth) for name, scenario in SCENARIOS.items()}
    keys = {name: truth.model_dump_json() for name, truth in truths.items()}
    # Worlds that differ only in what is seen of them have the same truth.
    different = {key: truths[name] for name, key in keys.items()}
    known = {key: true_of(truth, TARGET_SEEDS[:pooled], like, pool) for key, truth in different.items()}
    return pd.concat([known[key].assign(scenario=name) for name, key in keys.items()], ignore_index=True)
