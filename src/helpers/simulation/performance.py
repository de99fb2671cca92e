"""The claims' tests on many simulated cohorts whose truth is known: type I error, coverage, power, bias.

``make validate`` writes the table.
"""

from collections.abc import Mapping, Sequence, Set
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.typing import SeriesGroupBy

from helpers import diversity, evidence, multiverse, permutation, taxa
from helpers.claims import CONTRADICTED, KEY, ONE_SIDED, SUPPORTED, VERDICTS, Claim, load_claims, verdicts
from helpers.files import DEMO, VALIDATION, write_whole
from helpers.simulation import worlds
from helpers.study import Settings, Study, load_study
from helpers.workers import each, workers

#: Fewer resamples than the report's, so that many cohorts can be analysed.
LIGHT = {"rarefactions": 2, "bootstraps": 250, "permutations": 99}
#: What tells an estimate of a cohort from all others: the part of a claim (blank for what stands beside the claims),
#: how it was estimated, and whether the interval is the ``model``'s or the ``bootstrap``'s.
ROW = (*KEY, "estimator", "interval")
#: What `summarise` needs of an estimate; ``rejects``, the share of tests that reject, where a row stands for many. Of
#: a part of a claim against a margin, the p-value is that of equivalence.
NUMBERS = ("estimate", "ci_low", "ci_high", "level", "p_value", "n", "rejects", "margin", "sign")
#: How rows of a family of claims are told from estimates: in how many cohorts one of its verdicts is false.
FAMILY = "family-wise error"
#: How the joint tests of the multiverse are told from estimates: the contrast is the claim.
JOINT, JOINT_SHARE = "multiverse, joint test", "multiverse, joint test of the share significant"
#: Worlds in which they are tried: those of which most is null.
JOINT_WORLDS = (worlds.NO_EFFECT, "disease only")
#: What is counted of the genera that are tested: false ones among those found; and how many are found of those that
#: truly do not change, and of those that do.
FALSE, UNCHANGED, CHANGED = (f"LinDA, {what}" for what in ("false discoveries", "unchanged genera", "changed genera"))


def one_run(scenario: str, seed: int, like: Study, joint: bool = False) -> pd.DataFrame:
    """Simulate one cohort of one of `worlds.SCENARIOS` and analyse it; with the `joint_tests`, if these are wanted.

    One row an estimate: scenario, seed, `ROW`, `NUMBERS`, and, of the part that stands for its claim, the ``verdict``.
    """
    settings = like.settings.model_copy(update={"seed": seed})
    cohort = worlds.simulated(worlds.SCENARIOS[scenario].truth, seed, like)
    swabs = worlds.examined(cohort, like, settings)
    found = taxa.differential(taxa.aggregate(swabs, "genus"), like, settings.min_prevalence, alpha=settings.alpha)
    rows = [estimated(swabs, like, settings), permanova_tests(swabs, like, settings)]
    rows += [discoveries(found, worlds.changed_genera(scenario))]
    rows += [joint_tests(cohort, like, settings)] if joint else []
    columns = ["scenario", "seed", *ROW, *NUMBERS, "verdict"]
    return pd.concat(rows, ignore_index=True).assign(scenario=scenario, seed=seed)[columns]


def estimated(swabs: AnnData, like: Study, settings: Settings) -> pd.DataFrame:
    """The evidence of the study's claims, their verdicts, and what stands beside them: `ROW`, `NUMBERS`, verdict."""
    tested = load_claims(like)
    answered = evidence.answers(evidence.asked_by(tested, like), swabs, like, settings)
    parts = evidence.gather(tested, swabs, like, settings, answered).assign(interval="model")
    judged = verdicts(parts.assign(notebook=""), tested, like, settings.alpha).rename(columns={"id": "claim"})
    parts = parts.merge(judged[[*KEY, "verdict"]], how="left", on=list(KEY), validate="one_to_one")
    parts["p_value"] = parts["p_equivalence"].where(parts["margin"].notna(), parts["p_value"])
    beside = answered.assign(claim="", interval="model", margin=np.nan)
    limits = {"ci_low": beside.get("boot_low"), "ci_high": beside.get("boot_high")}
    drawn = beside.assign(interval="bootstrap", p_value=np.nan, **limits)
    # Some intervals are the bootstrap's already.
    another = drawn["ci_low"].notna() & (drawn["ci_low"].ne(beside["ci_low"]) | drawn["ci_high"].ne(beside["ci_high"]))
    rows = pd.concat([parts, beside[~beside["stands"]], drawn[another]], ignore_index=True)
    return _estimates(rows)


def _estimates(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as from `estimated`, blank or NaN where they lack something; of a model's interval, unless they say."""
    blank = dict.fromkeys([*ROW, "verdict"], "") | {"interval": "model"}
    return rows.reindex(columns=[*ROW, *NUMBERS, "verdict"]).fillna(blank)


def permanova_tests(swabs: AnnData, like: Study, settings: Settings) -> pd.DataFrame:
    """The p-values of the report's PERMANOVA, as from `estimated`.

    The contrast is its term, the arm whose visits are compared.
    """
    arms = {arm: arm for arm in ("control", "treatment", "comparator")}
    how: dict[str, Any] = {"covariates": like.adjust.group, "arm_covariates": like.adjust.arm}
    how |= {"permutations": settings.permutations, "seed": settings.seed}
    table = permutation.permanova_table([("", diversity.root_of(swabs))], swabs.obs, arms, **how)
    rows = table.rename(columns={"term": "contrast", "patients": "arm"}).replace({"arm": {"all": "", "both arms": ""}})
    return _estimates(rows.assign(estimator="PERMANOVA"))


def discoveries(found: Mapping[str, pd.DataFrame], changed: Mapping[str, Set[str]]) -> pd.DataFrame:
    """How many of the genera that are found do not change, and how many are found of those that do.

    Of what `helpers.taxa.differential` and `helpers.simulation.worlds.changed_genera` tell, rows as from `estimated`:
    one each of `FALSE`, `UNCHANGED` and `CHANGED` for each question, the contrast, with its share in ``rejects`` (NaN
    of no genera; nothing found is no false discovery) and the genera tested in ``n``.

    References
    ----------
    Benjamini & Hochberg, J R Stat Soc B 1995;57:289 (false discovery rate: the mean of the first).
    """
    rows = []
    for question, table in found.items():
        if table.empty:
            continue
        hit, true = table["found"], table["taxon"].isin(changed[question])
        false = (~true)[hit].mean() if hit.any() else 0.0
        shares = {FALSE: false, UNCHANGED: hit[~true].mean(), CHANGED: hit[true].mean()}
        about = {"contrast": question, "arm": "treatment" if question == "change" else "", "n": len(table)}
        rows += [about | {"estimator": what, "rejects": share} for what, share in shares.items()]
    return _estimates(pd.DataFrame(rows))


def joint_tests(cohort: AnnData, like: Study, settings: Settings) -> pd.DataFrame:
    """The joint p-values of the multiverse, on its light grid, as from `estimated`; ``n`` is of specifications."""
    found = multiverse.joint_tests(cohort, like, settings)
    rows = found.rename(columns={"claim": "contrast", "permuted": "n"})
    tests = {JOINT: rows["joint_p"], JOINT_SHARE: rows["joint_p_share"]}
    return _estimates(pd.concat([rows.assign(estimator=name, p_value=p) for name, p in tests.items()]))


def simulate_runs(
    jobs: Sequence[tuple[str, int]], like: Study, pool: Executor, joint_in: Sequence[str] = ()
) -> pd.DataFrame:
    """Analyse many simulated cohorts, with the joint tests in some worlds: the rows of `one_run` of each job."""
    tables = each(one_run, [(*job, like, job[0] in joint_in) for job in jobs], pool, "cohorts")
    return pd.concat(tables, ignore_index=True)


def false_verdicts(parts: pd.DataFrame, claims: Mapping[str, Claim]) -> pd.DataFrame:
    """Whether any verdict on a family's claims is false, in each cohort.

    *Supported* is false unless what each part claims is true, *contradicted* unless the contrary of one is. True of a
    direction is what lies three Monte-Carlo errors on its side of zero: what is nearly nothing is taken for nothing.

    `parts` are rows of claims as from `one_run`, with target and target_error. One row a scenario, seed and family
    comes back, with the columns of `one_run`: ``contrast`` is the family, ``rejects`` 1 where a verdict is false.
    """
    kind = parts["claim"].map({name: claim.kind for name, claim in claims.items()})
    sign, target, error = (parts[key].fillna(0).astype(float) for key in ("sign", "target", "target_error"))
    margin = parts.groupby(["scenario", *KEY])["margin"].transform("mean")
    effect = sign * target
    against_margin, one_sided = margin.notna(), kind.isin(ONE_SIDED)
    denied = effect.where(sign.ne(0), target.abs())
    true = np.where(against_margin, effect.where(one_sided, target.abs()) < margin, effect > 3 * error)
    contrary = np.where(against_margin, denied > margin, effect < -3 * error)
    family = parts["claim"].map({name: claim.family for name, claim in claims.items()})
    known = parts.assign(true=true, contrary=contrary, family=family)
    of_claim = known.groupby(["scenario", "seed", "family", "claim"], sort=False)
    told = of_claim.agg(true=("true", "all"), contrary=("contrary", "any"), verdict=("verdict", "max"))
    false = told["verdict"].eq(SUPPORTED) & ~told["true"] | told["verdict"].eq(CONTRADICTED) & ~told["contrary"]
    rows = false.groupby(["scenario", "seed", "family"], sort=False).any().astype(float).rename("rejects").reset_index()
    blank = dict.fromkeys((*ROW, "verdict"), "") | {"estimator": FAMILY, "interval": "model"}
    return rows.assign(**blank).assign(contrast=rows["family"]).drop(columns="family")


def summarise(runs: pd.DataFrame, truths: pd.DataFrame, claims: Mapping[str, Claim], alpha: float) -> pd.DataFrame:
    """Bias, coverage, rejections and verdicts over the runs, each share with its Monte-Carlo standard error.

    `runs` are as from `simulate_runs`, `truths` as from `helpers.simulation.worlds.targets`. One row a scenario and
    estimate: scenario, `ROW`, runs (that could be estimated), target, target_error, mean_estimate, bias (mean minus
    target), bias_error, coverage (share of intervals that hold the target), coverage_error, level (which it should be),
    rejected (share with p < alpha: type I error where the target is null, else power; of a part against a margin, in
    which it is shown to be smaller; or the mean of ``rejects``), rejected_error, margin (its mean), and of the part
    that stands for its claim the share of each verdict; and a row a family of claims, as from `false_verdicts`.

    References
    ----------
    Morris, White & Crowther, Stat Med 2019;38:2074 (performance measures and their Monte-Carlo errors).
    """
    merged = runs.merge(truths, on=["scenario", *worlds.ANSWER], how="left", validate="many_to_one")
    families = false_verdicts(merged[merged["claim"].ne("")], claims)
    merged = pd.concat([merged, families], ignore_index=True)
    # A claim is false if one of its parts is of nothing.
    nothing = merged["claim"].ne("") & merged["target"].eq(0) & merged["target_error"].eq(0)
    false = pd.MultiIndex.from_frame(merged.loc[nothing, ["scenario", "claim"]])
    of_false = pd.MultiIndex.from_frame(merged[["scenario", "contrast"]]).isin(false)
    joint = merged["estimator"].isin([JOINT, JOINT_SHARE]) & of_false
    merged.loc[joint, ["target", "target_error"]] = 0.0
    span = merged["ci_low"].notna() & merged["target"].notna()
    held = (merged["ci_low"] <= merged["target"]) & (merged["target"] <= merged["ci_high"])
    merged["told"] = merged[["estimate", "p_value", "rejects"]].notna().any(axis=1)
    merged["held"] = held.astype(float).where(span)
    tested = (merged["p_value"] < alpha).astype(float).where(merged["p_value"].notna())
    merged["rejects"] = merged["rejects"].astype(float).fillna(tested)
    # Another part may stand for the claim in each run: the claim's shares are those of all its parts together.
    merged = merged.assign(**{verdict: merged["verdict"].eq(verdict) for verdict in VERDICTS})
    groups = merged.groupby(["scenario", *ROW], sort=False)
    first = groups[["target", "target_error"]].first()
    table = groups["told"].sum().to_frame("runs").join(first)
    table["mean_estimate"] = groups["estimate"].mean()
    table["bias"] = table["mean_estimate"] - table["target"]
    table["bias_error"] = groups["estimate"].sem()
    table["coverage"], table["coverage_error"] = _share(groups["held"])
    table["level"] = groups["level"].mean() / 100
    table["rejected"], table["rejected_error"] = _share(groups["rejects"])
    table["margin"] = groups["margin"].mean()
    return table.join(groups[list(VERDICTS)].mean()).reset_index()


def _share(of: SeriesGroupBy) -> tuple[pd.Series, pd.Series]:
    """A share, with its Monte-Carlo standard error."""
    return of.mean(), of.std(ddof=0) / np.sqrt(of.count())


def validate(runs: int, like: Study, pool: Executor, *, pooled: int = len(worlds.TARGET_SEEDS)) -> pd.DataFrame:
    """Simulate and analyse so many cohorts of every scenario: `summarise`. `pooled` others are to know the truth by."""
    truths = worlds.targets(like, pool, pooled)
    jobs = [(scenario, seed) for scenario in worlds.SCENARIOS for seed in range(1, 1 + runs)]
    return summarise(simulate_runs(jobs, like, pool, JOINT_WORLDS), truths, load_claims(like), like.settings.alpha)


def read_table(file: str | Path) -> pd.DataFrame:
    """The table as `write_validation` wrote it."""
    return pd.read_csv(file, sep="\t", dtype=dict.fromkeys(ROW, str)).fillna(dict.fromkeys(ROW, ""))


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
