"""Every claim under every other choice that can be defended: how many analyses agree, and what makes the others differ.

A specification is a combination of options; what it estimates, `helpers.evidence` does.
"""

import gzip
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import ndtri
from skbio import DistanceMatrix

from helpers import diversity, evidence, joint, taxa
from helpers.choices import Choice, absent, keeps, kind_of, load_choices, specifications, touched
from helpers.claims import CONTRADICTED, NOT_TESTABLE, Claim, adjusted_among, decided, load_claims, together
from helpers.disclosure import as_tsv
from helpers.estimates import control_sd
from helpers.evidence import IMPUTED, Asked, Data
from helpers.files import ROBUSTNESS, SPECIFICATIONS, remove, write_whole
from helpers.measures import abundances, measured, on_axis
from helpers.quality import without_contaminants
from helpers.study import Adjust, Privacy, Settings, Study
from helpers.visits import analysis_swabs
from helpers.workers import each

#: Of the full and the light grid: specifications after which a claim's are drawn no more, and permutations.
LIMIT, PERMUTATIONS = {"full": 500, "light": 100}, {"full": 500, "light": 199}
#: Swabs from which on the light grid is taken: distances between them take time and memory with the square.
LARGE = 2_000
#: At most, of specifications that are not the report's.
FEWER = {"bootstraps": 100, "permutations": 199, "rarefactions": 3}
#: But of the arms' differences, whose weighted one has its p-value from them.
OF_ARMS = 400
#: Choices that decide which swabs are measured, and at what depth.
BASE = ("contaminants", "depth", "swabs")
#: The option of the estimators: that on which claims rest.
STANDING = "standing"


class Recipe(NamedTuple):
    """How a measure is made of the swabs of a base; blank what does not touch it."""

    kind: str
    measure: str
    zeros: str
    rank: str
    space: str


class Cell(NamedTuple):
    """A part of a claim, and the specification as it sees it."""

    claim: str
    asked: Asked
    expect: str | None
    seen: tuple[tuple[str, str], ...]
    #: Whether it is the report's.
    own: bool


#: As from `answered`.
Answers = tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]


class Multiverse(NamedTuple):
    """What all specifications found."""

    #: One row a part of a claim and specification.
    found: pd.DataFrame
    #: One row a claim: see `_summary`.
    claims: pd.DataFrame
    #: Of each claim, where permutations leave the sorted estimates of the part that stands for it: low and high.
    band: dict[str, np.ndarray]
    choices: dict[str, Choice]
    #: Options that the study has nothing for, and why.
    absent: dict[tuple[str, str], str]


# --- the specifications of one base ----------------------------------------------------------------------------------


class _Base:
    """The swabs of some specifications, at their depth."""

    def __init__(self, cohort: AnnData, option: Mapping[str, str], study: Study, settings: Settings) -> None:
        clean = without_contaminants(cohort, settings.alpha)[0] if option["contaminants"] == "removed" else cohort
        kept = clean[analysis_swabs(clean.obs, option["swabs"])]
        all_reads = option["depth"] == "none"
        depth = settings.rarefaction_depth if all_reads else int(option["depth"])
        self.study, self.kept, self.tree = study, kept, diversity.rooted_tree(kept)
        self.settings = settings.model_copy(update={"swabs": option["swabs"], "rarefaction_depth": depth})
        self.drawn = diversity.dense(kept) if all_reads else diversity.rarefy(kept, depth, seed=settings.seed)

    def values(self, recipes: Sequence[Recipe], own: Set[Recipe | None]) -> pd.DataFrame:
        """Measures of each swab, a column a recipe; those that are the report's `own` with all resamples."""
        of = {kind: [r for r in recipes if r.kind == kind] for kind in ("alpha", "taxon", "axis", "other")}
        found: dict[Recipe, pd.Series] = {}
        if of["alpha"]:
            depth, wanted = self.settings.rarefaction_depth, [r.measure for r in of["alpha"]]
            alpha = diversity.expected_alpha(self.kept, depth, wanted, self.tree).reindex(columns=wanted)
            found |= {r: alpha[r.measure] for r in of["alpha"]}
        for zeros in dict.fromkeys(r.zeros for r in of["taxon"]):
            same = [r for r in of["taxon"] if r.zeros == zeros]
            abundance = abundances(self.drawn, [r.measure for r in same], self.study, zeros)
            found |= {r: abundance[r.measure] for r in same}
        if of["other"]:
            settings = self.settings if own & {*of["other"]} else fewer(self.settings)
            swabs = measured(self.kept, self.study, settings, [r.measure for r in of["other"]])
            found |= {r: swabs.uns["course"][r.measure] for r in of["other"]}
        found |= {r: self._position(r, self.settings if r in own else fewer(self.settings)) for r in of["axis"]}
        return pd.DataFrame({_name(r): found[r] for r in recipes}, index=self.drawn.obs_names, dtype=float)

    def _position(self, recipe: Recipe, settings: Settings) -> pd.Series:
        try:
            placed = on_axis(self._distances(recipe, settings), self.drawn.obs, self.study, settings)
        except ValueError:  # no gap is shown in this space: no axis
            return pd.Series(np.nan, self.drawn.obs_names)
        return 100 * placed["position"]

    def _distances(self, recipe: Recipe, settings: Settings) -> DistanceMatrix:
        swabs = self.kept if recipe.space == "sqrt_bray_curtis" else self.drawn
        swabs = swabs if recipe.rank == "asv" or not recipe.rank else taxa.aggregate(swabs, recipe.rank)
        if recipe.space == "aitchison":
            return diversity.aitchison(swabs, zeros=recipe.zeros)
        if recipe.space == "sqrt_bray_curtis":
            how = {"rarefactions": settings.rarefactions, "seed": settings.seed}
            return diversity.square_root(diversity.bray_curtis(swabs, settings.rarefaction_depth, **how))
        weighted = recipe.space == "weighted_unifrac"
        return diversity.square_root(diversity.unifrac(swabs, self.tree, weighted=weighted))


class _Tables:
    """Swabs with all recipes' measures, by patient and visit too: reshaped once for all of them."""

    def __init__(self, obs: pd.DataFrame, values: pd.DataFrame) -> None:
        # Rows of text are taken faster than rows of as many categories.
        obs = obs.astype(dict.fromkeys(obs.select_dtypes("category"), object))
        self.whole = evidence.data_of(obs.join(values), list(values))
        self.people = Data(*(table.drop(columns=list(values)) for table in self.whole))

    def of(self, measure: str, recipe: Recipe | None) -> Data:
        """The same with one measure, made by a recipe; severity scores are there without."""
        if recipe is None:
            return self.people
        both = zip(self.people, self.whole, strict=True)
        return Data(*(people.assign(**{measure: whole[_name(recipe)]}) for people, whole in both))


def fewer(settings: Settings) -> Settings:
    """The settings with at most `FEWER` resamples."""
    return settings.model_copy(update={name: min(getattr(settings, name), most) for name, most in FEWER.items()})


def _name(recipe: Recipe) -> str:
    return "\0".join(recipe)


#: What is done about outliers, over all swabs.
OUTLIERS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "kept": lambda values: values,
    "winsorised": lambda values: values.clip(values.quantile(0.03), values.quantile(0.97), axis=1),
    # Blom, Statistical Estimates and Transformed Beta-Variables, 1958.
    "ranks": lambda values: ((values.rank() - 0.375) / (values.notna().sum() + 0.25)).apply(ndtri),
}


def _recipe(cell: Cell, study: Study) -> Recipe | None:
    """How the measure of a cell is made; None of severity scores."""
    seen, kind = dict(cell.seen), kind_of(cell.asked.measure, study)
    alpha = seen.get("alpha", "claimed")
    measure = cell.asked.measure if alpha == "claimed" else alpha
    made = [seen.get(name, "") for name in ("zeros", "rank", "space")]
    return None if kind == "severity" else Recipe(kind, measure, *made)


def _variant(study: Study, covariates: str) -> Study:
    group, arm = study.adjust.group, study.adjust.arm
    adjust = {"none": Adjust(), "with_batch": Adjust(group=[*group, "batch"], arm=[*arm, "batch"])}
    return study.model_copy(update={"adjust": adjust.get(covariates, study.adjust)})


def answered(
    base: Mapping[str, str],
    cells: Sequence[Cell],
    cohort: AnnData,
    study: Study,
    settings: Settings,
    permutations: int,
    estimate: bool = True,
) -> Answers:
    """Estimate the cells of one base, options of `BASE`; the cohort has contaminants and negative controls.

    A row a cell, NaN where it has no estimate: what `helpers.evidence.tested_against` tells, estimated_by, what, n,
    sign, and ``sd``, in which effects are compared: of the controls at baseline, else of the patients, 1 of a
    correlation. Then cells x (1 + permutations): the effect in SD in the claimed direction, NaN where nothing can be
    permuted; whether it is significant there; and the effect in its error, t. Without `estimate`, only these.
    """
    of, claims = _Base(cohort, base, study, settings), load_claims(study)
    drawn = joint.Draws(sorted(set(cohort.obs["subject"])), permutations, settings.seed)
    recipes = [_recipe(cell, study) for cell in cells]
    own = {recipe for cell, recipe in zip(cells, recipes, strict=True) if cell.own}
    values = of.values([r for r in dict.fromkeys(recipes) if r], own)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, (cell, recipe) in enumerate(zip(cells, recipes, strict=True)):
        how = [dict(cell.seen).get(name, "") for name in ("pairing", "outliers", "covariates")]
        groups.setdefault((*how, cell.asked.measure, recipe), []).append(i)
    tables: dict[tuple[str, str], _Tables] = {}
    rows: list[dict[str, Any]] = [{"n": 0} for _ in cells]
    effects = np.full((len(cells), 1 + permutations), np.nan, np.float32)
    significant, studentised = np.zeros(effects.shape, bool), np.full_like(effects, np.nan)
    lacks = evidence.lacking(of.drawn, study)
    asking = dict.fromkeys((cell.asked, cell.expect) for cell in cells)
    reasons = {each_of: evidence.cannot(*each_of, lacks, of.drawn, study) for each_of in asking}
    for (pairing, outliers, covariates, measure, recipe), members in groups.items():
        if (pairing, outliers) not in tables:
            obs = of.drawn.obs.assign(site="") if pairing == "by_patient" else of.drawn.obs
            tables[pairing, outliers] = _Tables(obs, OUTLIERS[outliers or "kept"](values))
        data = tables[pairing, outliers].of(measure, recipe)
        adjusted = _variant(study, covariates)
        asked = list(dict.fromkeys(cells[i].asked for i in members))
        resampled = settings if any(cells[i].own for i in members) else fewer(settings)
        found = _estimates(asked, data, adjusted, resampled) if estimate else {}
        directed = {cells[i].asked for i in members if not claims[cells[i].claim].against_margin}
        null = {question: joint.permuted(question, data, adjusted, drawn) for question in directed}
        patients = data.visits.loc[data.visits["visit"].eq("baseline") & data.visits["case"], measure]
        of_controls = control_sd(data.visits, measure)
        unit = of_controls if of_controls > 0 else float(patients.std())
        for i in members:
            cell, seen, claim = cells[i], dict(cells[i].seen), claims[cells[i].claim]
            estimators: Mapping[str, Any] = found[cell.asked] if estimate else null[cell.asked]
            chosen = IMPUTED if seen.get("loss") == "imputed" else seen.get("estimator", STANDING)
            name = next(iter(estimators), "") if chosen == STANDING else chosen
            if name not in estimators:
                continue
            if estimate:
                rows[i] |= {"estimated_by": name, "what": estimators[name]["what"]}
            unknown = estimate and np.isnan(estimators[name]["estimate"])
            if unknown or reasons[cell.asked, cell.expect]:
                continue
            sign = evidence.sign_of(cell.asked, cell.expect, data.visits, adjusted)
            sd = 1.0 if cell.asked.contrast == "severity" else unit
            if estimate:
                row = estimators[name]
                rows[i] |= {"n": row["n"], "sign": sign, "sd": sd} | evidence.tested_against(row, claim, sign, settings)
            if not claim.against_margin and name in null[cell.asked]:
                drawn_effect, p, t = null[cell.asked][name]
                effects[i], studentised[i] = drawn_effect * sign / sd, t * sign
                significant[i] = (p < settings.alpha) & (effects[i] > 0)
    numbers = ["n", "sign", "sd", *evidence.TESTED]
    table = pd.DataFrame(rows, columns=["estimated_by", "what", *numbers]).astype(dict.fromkeys(numbers, float))
    return table, effects, significant, studentised


def _estimates(
    asked: Sequence[Asked], data: Data, study: Study, settings: Settings
) -> dict[Asked, dict[str, dict[str, Any]]]:
    """The answers to questions, by estimator, those first on which claims rest."""
    found: dict[Asked, dict[str, dict[str, Any]]] = {question: {} for question in asked}
    more = settings.model_copy(update={"bootstraps": max(settings.bootstraps, OF_ARMS)})
    for of_arms, how in ((True, more), (False, settings)):
        questions = [question for question in asked if (question.contrast == "arms") == of_arms]
        for row in evidence.answer_records(questions, data, study, how):
            found[evidence.asked_of(row)][row["estimator"]] = row
    return found


# --- all of them -----------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What is to be estimated."""

    #: One row a part of a claim and specification.
    rows: pd.DataFrame
    #: Of each base its cells, numbered.
    cells: dict[tuple[str, ...], dict[Cell, int]]
    #: Of each row its base and the number of its cell there.
    places: list[tuple[tuple[str, ...], int]]

    def jobs(self, *more: Any) -> list[tuple[Any, ...]]:
        """Arguments of `answered`."""
        return [(dict(zip(BASE, base, strict=True)), list(cells), *more) for base, cells in self.cells.items()]

    def laid_out(self, results: Sequence[Answers]) -> Answers:
        """What the jobs found, in the order of the rows; ``cell`` is the same where specifications are to a part."""
        tables, *arrays = zip(*results, strict=True)
        first = dict(zip(self.cells, np.cumsum([0, *map(len, tables)]), strict=False))
        at = np.array([first[base] + i for base, i in self.places])
        found = self.rows.assign(cell=at).join(pd.concat(tables, ignore_index=True).iloc[at].reset_index(drop=True))
        effects, significant, studentised = (np.concatenate(each_of)[at] for each_of in arrays)
        return found, effects, significant, studentised


def planned(
    claims: Mapping[str, Claim], choices: Mapping[str, Choice], lacking: Set[tuple[str, str]], study: Study,
    settings: Settings, grid: str,
) -> Plan:  # fmt: skip
    """The specifications of claims; `lacking` as from `helpers.choices.absent`."""
    own = {name: choice.own(settings) for name, choice in choices.items()}
    offered = {name: [option] for name, option in own.items()}
    for name, choice in choices.items():
        there = (o for o, of in choice.options.items() if (name, o) not in lacking and (of.light or grid == "full"))
        offered[name] += [option for option in there if option != own[name]]
    rows: list[dict[str, Any]] = []
    places: list[tuple[tuple[str, ...], int]] = []
    cells: dict[tuple[str, ...], dict[Cell, int]] = {}
    for name, claim in claims.items():
        parts = [(asked, part.expect) for part in claim.parts for asked in evidence.questions(part, study)]
        specs = specifications([asked for asked, _ in parts], choices, offered, own, study, LIMIT[grid])
        for i, (spec, seen_by) in enumerate(specs):
            about = {"specification": i, "keeps_estimand": keeps(spec, own, choices), **spec}
            for part, ((asked, expect), seen) in enumerate(zip(parts, seen_by, strict=True)):
                base = tuple(seen.get(c, own[c]) for c in BASE)
                cell = Cell(name, asked, expect, tuple(seen.items()), all(own[c] == o for c, o in seen.items()))
                of_base = cells.setdefault(base, {})
                places.append((base, of_base.setdefault(cell, len(of_base))))
                rows.append({"claim": name, "part": part, **asked._asdict(), **about})
    largest_first = dict(sorted(cells.items(), key=lambda base: -len(base[1])))  # so that no worker ends late
    return Plan(pd.DataFrame(rows), largest_first, places)


def explore(cohort: AnnData, study: Study, settings: Settings, pool: Executor) -> Multiverse:
    """Every claim under every specification; the cohort has contaminants and negative controls."""
    grid, choices, tested = grid_of(cohort, settings), load_choices(study, settings), load_claims(study)
    lacking = absent(choices, cohort, study, settings)
    plan = planned(tested, choices, set(lacking), study, settings, grid)
    jobs = plan.jobs(cohort, study, settings, PERMUTATIONS[grid])
    found, null, *more = plan.laid_out(each(answered, jobs, pool, "specifications"))
    found, claims, band = _judged(found, tested, settings.alpha), [], {}
    for name, of in found.groupby("claim", sort=False):
        stands = of["part"].eq(standing(of[of["specification"].eq(0)]))
        tests = _joint(of, *(array[of.index] for array in more))
        claims.append(_summary(of[stands], tests, tested[str(name)], choices, settings.alpha))
        band[str(name)] = _band(null[of.index[stands & ~of["cell"].duplicated()]], settings.alpha)
    return Multiverse(found, pd.DataFrame(claims), band, choices, lacking)


def joint_tests(cohort: AnnData, study: Study, settings: Settings) -> pd.DataFrame:
    """The joint tests alone, on the light grid, of claims of a direction: claim, and what `_joint` tells."""
    tested = {name: claim for name, claim in load_claims(study).items() if not claim.against_margin}
    choices = load_choices(study, settings)
    plan = planned(tested, choices, set(absent(choices, cohort, study, settings)), study, settings, "light")
    jobs = plan.jobs(cohort, study, settings, PERMUTATIONS["light"], False)
    found, _, *more = plan.laid_out([answered(*job) for job in jobs])
    groups = found.groupby("claim", sort=False)
    return pd.DataFrame({"claim": name} | _joint(of, *(array[of.index] for array in more)) for name, of in groups)


def grid_of(cohort: AnnData, settings: Settings) -> str:
    """``full``, or ``light`` where that was chosen or the cohort is large."""
    return "light" if settings.robustness == "light" or cohort.n_obs > LARGE else "full"


def _judged(found: pd.DataFrame, claims: Mapping[str, Claim], alpha: float) -> pd.DataFrame:
    """The verdict on the claim in each specification, all other claims as in the report, and effects in SD.

    `found` has a row a part of a claim and specification, the report's specification first.
    """
    low, high = ((found[c] - found["estimate"]) / found["sd"] for c in ("ci_low", "ci_high"))
    down = found["sign"].lt(0)
    found["effect"] = found["estimate"] / found["sd"] * found["sign"].where(found["sign"].ne(0), 1)
    found["effect_low"] = found["effect"] + low.where(~down, -high)
    found["effect_high"] = found["effect"] + high.where(~down, -low)
    of = found.groupby(["claim", "specification"], sort=False)
    parts = of["p_against"].count()
    support = of["p_support"].max().where(of["p_support"].count().eq(of.size()))
    contrary = (of["p_against"].min() * parts).clip(upper=1)  # the smallest after Holm
    reached = of["attainable"].min().ne(0)
    untested, support = support.isna(), support.where(reached)
    verdicts = []
    for name, claim in claims.items():
        others = [other for other, of in claims.items() if of.family == claim.family and other != name]
        for_it, against = (
            adjusted_among(p.loc[name].to_numpy(), p.loc[[(other, 0) for other in others]].to_numpy())
            for p in (support, contrary)
        )
        told = decided(untested.loc[name].to_numpy(), reached.loc[name].to_numpy(), for_it, against, alpha)
        verdicts.append(pd.DataFrame({"claim": name, "specification": range(len(told)), "verdict": told}))
    return found.merge(pd.concat(verdicts), on=["claim", "specification"], how="left", validate="many_to_one")


def standing(report: pd.DataFrame) -> int:
    """The part that stands for a claim in the report: of its rows there."""
    of = together(report.assign(cannot=np.where(report["p_support"].isna(), "not estimated", "")))
    against = report["verdict"].iloc[0] == CONTRADICTED
    return int(report.loc[of["strongest_against" if against else "weakest"], "part"])


def _summary(
    of: pd.DataFrame, tests: Mapping[str, Any], claim: Claim, choices: Mapping[str, Choice], alpha: float
) -> dict[str, Any]:
    """What all specifications say of a claim; `of` has the rows, as from `_judged`, of the part that stands for it.

    claim, verdict (the report's), ``specifications`` that keep the estimand and could be analysed, and how many
    ``agree``, and the same of ``all``, NaN if the report's could not be; the report's own ``effect``; the part's
    effects in SD in the direction that the claim asserts or denies (``way``; with neither, of more than zero): median,
    low and high (5 and 95 per cent of the specifications), and the shares of those in that direction and of those
    ``significant`` there; what `_joint` tells; ``explained``, the share of the variance of the effects that each choice
    explains, and ``moved_by``, that which explains most, with its ``moved_share``; ``other`` and ``opposite``, options
    that alone change the verdict, or the sign; ``least``, the option with the least agreement, with ``least_agree`` of
    ``least_of``.
    """
    each_once = of.set_index("specification")
    report = each_once.loc[0]
    known = each_once[each_once["verdict"].ne(NOT_TESTABLE)]
    analysed = known if report["verdict"] != NOT_TESTABLE else known.head(0)
    effect, agree = analysed["effect"], analysed["verdict"].eq(report["verdict"])
    same = analysed["keeps_estimand"].astype(bool)
    varied = [name for name in choices if analysed[name].nunique() > 1]
    # The variance between a choice's options.
    between = {choices[n].says: effect.groupby(analysed[n]).transform("mean").var() for n in varied}
    explained = pd.Series(between, dtype=float) / effect.var() if effect.var() > 0 else pd.Series(0.0, list(between))
    explained = explained.sort_values(ascending=False, kind="stable")
    apart = analysed[varied].ne(report[varied])
    alone = {name: analysed[apart[name] & apart.sum(axis=1).eq(1)] for name in varied}
    rows = [(choices[name], name, row) for name, each_of in alone.items() for row in each_of.to_dict("records")]
    named = [(f"{choice.says}: {choice.word(row[name])}", row) for choice, name, row in rows]
    shares = {(n, o): agree[analysed[n].eq(o)].agg(["mean", "sum", "size"]) for n in varied for o in set(analysed[n])}
    least = min(shares, key=lambda key: (shares[key]["mean"], key), default=None)
    spread = effect.quantile([0.05, 0.5, 0.95])
    return {
        "claim": of["claim"].iloc[0],
        "verdict": report["verdict"],
        "specifications": int(same.sum()) or np.nan,
        "agree": int(agree[same].sum()) if same.any() else np.nan,
        "all": len(analysed) or np.nan,
        "all_agree": int(agree.sum()) if len(analysed) else np.nan,
        "what": next(iter(each_once["what"].dropna()), ""),
        "effect": report["effect"],
        "way": "denied" if claim.against_margin and report["sign"] else "claimed" if report["sign"] else "positive",
        "unit": "ρ" if report["contrast"] == "severity" else "SD",
        "median": spread[0.5],
        "low": spread[0.05],
        "high": spread[0.95],
        "in_direction": (effect > 0).mean(),
        "significant": ((effect > 0) & (analysed["p_value"] < alpha)).mean(),
        **tests,
        "explained": "; ".join(f"{says} {share:.2f}" for says, share in explained.items()),
        "moved_by": next(iter(explained.index), ""),
        "moved_share": explained.max(),
        "other": "; ".join(f"{n} ({row['verdict']})" for n, row in named if row["verdict"] != report["verdict"]),
        "opposite": "; ".join(n for n, row in named if row["effect"] * report["effect"] < 0),
        "least": f"{choices[least[0]].says}: {choices[least[0]].word(least[1])}" if least else "",
        "least_agree": shares[least]["sum"] if least else np.nan,
        "least_of": shares[least]["size"] if least else np.nan,
    }


def _joint(of: pd.DataFrame, shown: np.ndarray, studentised: np.ndarray) -> dict[str, float]:
    """The joint tests of a claim, one-sided, over the specifications that permutations can be carried through.

    ``joint_p``, of the median effect, each in its own error, so that unequal variances of groups of unequal size do not
    make it err; ``joint_p_share``, of the share significant in the claimed direction; of several parts, the largest.
    And ``permuted``, how many specifications that is.

    References
    ----------
    Simonsohn, Simmons & Nelson, Nat Hum Behav 2020;4:1208; Janssen, Stat Probab Lett 1997;36:9 (studentised
    permutations).
    """
    known = pd.Series(np.isfinite(studentised).all(axis=1), of.index)
    whole = known.groupby(of["specification"]).transform("all")
    p: list[list[float]] = [[], []]
    for part in of["part"].unique():
        rows = (of["part"].eq(part) & whole & ~of["cell"].duplicated()).to_numpy()
        if not rows.any():
            return {"joint_p": np.nan, "joint_p_share": np.nan, "permuted": 0}
        for found, drawn in zip(p, (np.median(studentised[rows], axis=0), shown[rows].mean(axis=0)), strict=True):
            found.append(float((drawn >= drawn[0] - 1e-6).mean()))
    permuted = of.loc[whole, "specification"].nunique()
    return {"joint_p": max(p[0]), "joint_p_share": max(p[1]), "permuted": permuted}


def _band(null: np.ndarray, alpha: float) -> np.ndarray:
    """Where sorted effects lie in 1 - alpha of the permutations: low and high, by rank."""
    permuted = np.sort(null[np.isfinite(null).all(axis=1), 1:], axis=0)
    return np.quantile(permuted, [alpha / 2, 1 - alpha / 2], axis=1) if permuted.size else np.empty((2, 0))


# --- what is shown ---------------------------------------------------------------------------------------------------


def curve(multiverse: Multiverse, claim: str, study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The specification curve of a claim, of the part that stands for it.

    Rows of `Multiverse.found` sorted by effect, each once; and options, in words, x these: whether each is taken, of
    the choices that touch the part and vary.
    """
    of, choices = multiverse.found[multiverse.found["claim"].eq(claim)], multiverse.choices
    of = of[of["what"].eq(multiverse.claims.set_index("claim").loc[claim, "what"]) & of["effect"].notna()]
    rows = of.drop_duplicates("cell").sort_values(["effect", "specification"], kind="stable")
    records = rows.to_dict("records")
    taken = pd.DataFrame([touched(evidence.asked_of(r), r, choices, study) or {} for r in records])
    matrix = {
        f"{choices[name].says}: {choices[name].word(option)}": taken[name].eq(option).to_numpy()
        for name in taken
        for option in dict.fromkeys([*choices[name].options, *taken[name].dropna()])
        if taken[name].eq(option).any() and taken[name].nunique() > 1
    }
    return rows.reset_index(drop=True), pd.DataFrame(matrix, index=range(len(rows)), dtype=bool).T


def offered(multiverse: Multiverse) -> pd.DataFrame:
    """The choices and their options as a reader sees them."""
    rows = []
    for name, choice in multiverse.choices.items():
        # The report's specification is the first.
        taken, *others = map(choice.word, multiverse.found[name].unique())
        rows.append([choice.says, taken, ", ".join(others) or "none", "yes" if choice.keeps_estimand else "no"])
    return pd.DataFrame(rows, columns=["choice", "the report", "other options", "estimates the same"])


def save(multiverse: Multiverse | None, results_dir: str | Path, privacy: Privacy) -> None:
    """Save what was found, every specification and a row a claim; or remove what an earlier run saved.

    Where small cells are suppressed, there is no file of specifications: of two that differ by one person, the
    difference of what is shown tells that person's value.
    """
    every, of_claims = (Path(results_dir) / name for name in (SPECIFICATIONS, ROBUSTNESS))
    for file in (every, of_claims):
        remove(file)
    if multiverse is not None and privacy.small_cells == "show":
        write_whole(every, gzip.compress(as_tsv(multiverse.found).encode(), mtime=0))
    if multiverse is not None:
        write_whole(of_claims, as_tsv(multiverse.claims, 10 if privacy.small_cells == "show" else 3))
