"""What can be read and is yet hardly right: each doubt of a cohort with its numbers, and what it would mean.

A doubt is a function that yields what raised it; `DOUBTS` has all. No number is of fewer people than `Seen.fewest`, and
counts stand as `helpers.disclosure.in_text` knows them.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats

from helpers import words
from helpers.narrate import number, short_name
from helpers.quality import characteristics, differences
from helpers.study import FEW, VOCABULARY, Column, Study
from helpers.texts import packaged
from helpers.visits import by_patient, changes

#: A right study would look so by chance once in so many.
RARE = 0.01
#: Totals are equal if their middle half spans less than this part of the median: depths of sequencing differ manifold.
EQUAL = 0.05
#: No logarithm of reads is greater; in a swab of logarithms the greatest is at most so many times the least.
GREATEST, NARROW = 40, 25
#: Steps between ages, in years, that rounding leaves.
STEPS = (1, 2, 5, 10)


class Seen(NamedTuple):
    """Swabs without negative controls, visits with severity scores; `fewest` people of whom a number is told."""

    study: Study
    swabs: AnnData
    visits: pd.DataFrame
    labels: dict[str, str]
    scores: dict[str, str]
    fewest: int


def _means(groups: Iterable[tuple[str, pd.Series]]) -> str:
    return ", ".join(f"{name} {number(x.mean()) if len(x) else 'none'} (n = {len(x)})" for name, x in groups)


def named_otherwise(seen: Seen) -> Iterator[str]:
    """A value stands for one thing and reads like the other: by the study's label of that, or by the vocabulary."""
    arm = seen.study.columns.arm
    arms = {(arm.column, v) for listed in arm.values.values() for v in listed} if arm else set()  # noqa: PD011
    for key in ("group", "arm", "lesional", "control_type"):
        chosen: Column | None = getattr(seen.study.columns, key)
        for standard, values in chosen.values.items() if chosen else ():  # noqa: PD011
            if standard not in VOCABULARY[key]:
                continue
            column, (other,) = chosen.column if chosen else "", {*VOCABULARY[key]} - {standard}
            name, like = (seen.labels.get(s, s.replace("_", "-")) for s in (standard, other))
            # Where a column tells groups and arms, a patient's "control" is an arm.
            for v in (v for v in values if key != "group" or (column, v) not in arms):
                means = [s in words.VALUES and words.means(v, s, words.named(column, key)) for s in (standard, other)]
                label = words.label(v, column).lower()
                if like.lower() == label != name.lower() or (means == [False, True] and label != name.lower()):
                    yield f"'{v}' in '{column}' is taken for {name} and reads like {like}"


def visits_backwards(seen: Seen) -> Iterator[str]:
    """The follow-up is named for an earlier time than baseline."""
    column = seen.study.columns.visit
    first, last = (column.values.get(visit, []) for visit in VOCABULARY["visit"])  # noqa: PD011
    named = words.named(column.column, "visit")
    times = [[t for v in values if (t := words.when(v, named)) is not None] for values in (first, last)]
    if all(times) and min(times[1]) < max(times[0]):
        yield f"by its name, the follow-up, '{' or '.join(last)}', is before baseline, '{' or '.join(first)}'"


def severity_rises(seen: Seen) -> Iterator[str]:
    """Patients get worse in every arm, by more than chance."""
    change = changes(seen.visits[seen.visits["case"]], list(seen.scores))
    for score, label in seen.scores.items():
        each = change.dropna(subset=score).groupby("who")[score]
        arms = {seen.labels[who]: x for who, x in each if len(x) >= seen.fewest}
        rises = arms and min(x.mean() for x in arms.values()) > 0
        if rises and stats.ttest_1samp(pd.concat(arms), 0).pvalue < RARE:
            told = _means(arms.items())
            yield f"{label} rises between the visits, on average, in every arm that is large enough: {told}"


def severity_small(seen: Seen) -> Iterator[str]:
    """A score uses next to nothing of its range."""
    for score in seen.study.severity:
        known, (low, high) = seen.visits.dropna(subset=score.name), score.range
        most = 1 if low <= 0 and known[score.name].max() <= 1 < high else low + 0.05 * (high - low)
        if known["subject"].nunique() >= seen.fewest and known[score.name].max() <= most:
            median = number(known[score.name].median())
            yield f"no {score.label} is above {most:g}, of a range of {low:g} to {high:g} (median {median})"


def controls_ill(seen: Seen) -> Iterator[str]:
    """At baseline, controls have the higher severity, or alone have one, or more of each taxon that disease brings."""
    swabs, taxa = seen.swabs, {"genus": seen.study.taxa.genus, "species": seen.study.taxa.pathogen}
    totals, shares = np.maximum(swabs.X.sum(axis=1), 1e-9), pd.DataFrame(index=swabs.obs_names)
    for rank, name in taxa.items():
        reads = swabs.X[:, swabs.var[rank].eq(name).to_numpy()].sum(axis=1)
        shares[f"{short_name(name)}, % of the reads"] = 100 * np.asarray(reads / totals).ravel()
    of_taxa = by_patient(swabs.obs, shares)
    for table, names in ((seen.visits, seen.scores), (of_taxa, {name: name for name in shares})):
        start, told = table[table["visit"].eq("baseline")], []
        for name, label in names.items():
            control, case = (start.loc[start["case"].eq(case), name].dropna() for case in (False, True))
            more = len(control) and len(case) and stats.mannwhitneyu(control, case, alternative="greater").pvalue < RARE
            alone = case.empty and control.max() > 0 and name in seen.scores
            if (more or alone) and min(len(x) or np.inf for x in (control, case)) >= seen.fewest:
                groups = ((seen.labels["control"], control), (seen.labels["case"], case))
                told.append(f"at baseline, {label}: {_means(groups)}")
        if told and (names is seen.scores or len(told) == len(names)):
            yield from told
            return


def totals_equal(seen: Seen) -> Iterator[str]:
    """All swabs have nearly as many reads."""
    if seen.study.counted and seen.visits["subject"].nunique() >= seen.fewest:
        low, middle, high = seen.swabs.obs["depth"].quantile([0.25, 0.5, 0.75])
        if high - low <= EQUAL * middle:
            yield f"half of the swabs have {low:,.0f} to {high:,.0f} reads, the median is {middle:,.0f}"


def no_abundant_taxa(seen: Seen) -> Iterator[str]:
    """The greatest value of a swab is not that much above the least."""
    X = seen.swabs.X.tocsr()
    if seen.study.counted and X.max() <= GREATEST:
        yield f"no feature has more than {X.max():,.0f} reads in any swab"
    elif not seen.study.counted:
        swabs = [x for x in np.split(X.data, X.indptr[1:-1]) if len(x) >= 2 * FEW]
        times = np.median([x.max() / x.min() for x in swabs] or [np.inf])
        if times <= NARROW:
            yield f"the greatest share in a swab is {number(times)} times the least (median)"


def nobody_twice(seen: Seen) -> Iterator[str]:
    """There are as many people as swabs, at two visits."""
    people = seen.visits["subject"].nunique()
    if people == seen.swabs.n_obs and seen.visits["visit"].nunique() > 1:
        yield f"{people} people have {people} swabs, of both visits"


def arms_unlike(seen: Seen) -> Iterator[str]:
    """Arms that were allocated by chance differ at baseline by more than chance, or the text denies it."""
    study, start = seen.study, seen.visits[seen.visits["visit"].eq("baseline") & seen.visits["arm"].notna()]
    n = start["arm"].value_counts().reindex(VOCABULARY["arm"], fill_value=0)
    columns = [c for c in characteristics(study) if c in start and c != "batch"]
    found = differences(start.assign(who=start["arm"]), columns, *n.index).dropna().abs()
    denial = re.search(r"\b(not|no|non|without|un)[ -]?randomi[sz]\w*", f"{study.title} {study.about}", re.IGNORECASE)
    if study.randomised and denial:
        yield f"the arms are said to be allocated by chance (`randomised: true`), and the study to be '{denial[0]}'"
    if study.randomised and n.min() >= seen.fewest and len(found):
        p = stats.t.sf(found.max() / np.sqrt((1 / n).sum()), n.sum() - 2) * 2 * len(columns)  # Bonferroni's correction
        if p < RARE:
            (what, level), arms = found.idxmax(), " and ".join(f"{seen.labels[arm]} (n = {n[arm]})" for arm in n.index)
            name = study.column_names().get(what, what) + (f" ({level})" if level else "")
            size = f" by {number(found.max())} SD" if seen.fewest == FEW else ""  # which would tell hidden counts
            yield f"at baseline, {name} differs{size} between {arms}, more than chance makes arms differ"


def ages_spaced(seen: Seen) -> Iterator[str]:
    """Ages are multiples of what is no year, or stand in a column of months."""
    columns = seen.study.columns
    if columns.age and columns.age_unit == "years" and words.MONTHS.search(words.apart(columns.age)):
        yield f"the ages in '{columns.age}' are taken for years"
    ages = seen.visits.get("age", pd.Series(dtype=float)).dropna()
    ages = ages[ages <= (seen.study.privacy.oldest_age or np.inf)]
    step = np.gcd.reduce(np.rint(100 * ages).astype(int)) / 100 if ages.nunique() >= 2 * FEW else 1
    if step > 1 and step not in STEPS:
        yield f"each age is a multiple of {step:g} (median {number(ages.median())})"


def lesional_milder(seen: Seen) -> Iterator[str]:
    """Patients whose swab is of lesional skin have less severity than those, or then, when it is not."""
    obs = seen.swabs.obs[seen.swabs.obs["group"].eq("case")]
    for score, label in seen.scores.items():
        each = obs.astype({score: float}).pivot_table(score, "subject", "lesional", observed=True)
        skin = {name: each[so].dropna() for so, name in ((True, "lesional"), (False, "not lesional")) if so in each}
        enough = len(skin) == 2 and min(map(len, skin.values())) >= seen.fewest
        if enough and stats.mannwhitneyu(*skin.values(), alternative="less").pvalue < RARE:
            yield f"{label}, by the skin that was swabbed: {_means(skin.items())}"


_MEANINGS = packaged("doubts.yaml")
#: What raises a doubt, and what it would mean.
DOUBTS: dict[Callable[[Seen], Iterator[str]], str] = {
    doubt: _MEANINGS[doubt.__name__]
    for doubt in (
        named_otherwise, visits_backwards, severity_rises, severity_small, controls_ill, totals_equal, no_abundant_taxa,
        nobody_twice, arms_unlike, ages_spaced, lesional_milder,
    )
}  # fmt: skip


def doubts(cohort: AnnData, study: Study) -> dict[str, str]:
    """What raised a doubt, and what it would mean, by the doubt's name; of a cohort as built."""
    swabs, scores = cohort[cohort.obs["control_type"].eq("sample")], {s.name: s.label for s in study.severity}
    visits = by_patient(swabs.obs, swabs.obs[list(scores)].astype(float))
    seen = Seen(study, swabs, visits, study.names, scores, study.privacy.enough)
    told = {doubt: "; ".join(doubt(seen)) for doubt in DOUBTS}
    return {doubt.__name__: f"{text[0].upper()}{text[1:]}. {DOUBTS[doubt]}" for doubt, text in told.items() if text}


def summary(doubted: dict[str, str]) -> str:
    """How much is doubted, and what no check of data can tell."""
    if doubted:
        things = "thing looks" if len(doubted) == 1 else "things look"
        return f"{len(doubted)} {things} wrong: who knows the study should see to it before the report is read."
    none = f"None of the {len(DOUBTS)} things that are looked for looks wrong. What data cannot show, such as two "
    return none + "drugs under each other's names throughout the file, is not among them."
