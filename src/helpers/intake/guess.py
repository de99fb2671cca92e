"""What a study.yaml is to say, guessed from the names and values in a user's files, and what the user has to check."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from helpers import words
from helpers.ingest import person
from helpers.lineage import parse_lineage
from helpers.study import STANDARD_COLUMNS, Labels
from helpers.tables import Counts, bare, few, near_misses
from helpers.texts import packaged

#: The part of the values that tells what a column is.
MOST = 0.8
_TOLD = packaged("intake/guess.yaml")
#: Keys of columns that name none.
NO_COLUMNS = {"age_unit", "arm_from", "subject_endings"}
#: Nothing recorded, which needs no word.
PLAINLY_MISSING = {"", "na", "nan", "n/a", "#n/a"}
#: The most values of a column whose values are told apart, and of one whose values are all to be listed.
MOST_VALUES, MOST_LISTED = 20, 50


def _by_meaning(values: list[str], named: object, *meanings: str) -> dict[str, list[str]]:
    """The values by the first of the meanings that each has; under ``other`` those that have none."""
    parts: dict[str, list[str]] = {meaning: [] for meaning in (*meanings, "other")}
    for value in values:
        parts[next((m for m in meanings if words.means(value, m, named)), "other")].append(value)
    return parts


def quoted(values: Iterable[str]) -> str:
    """The first of the values, in quotation marks, and how many more there are."""
    return few(f"'{v}'" for v in values)


def visits(metadata: pd.DataFrame, samples: Iterable[str]) -> dict[str, dict[str, str]]:
    """Of metadata with a row a person: each visit's columns, the swabs first, by their names without the visit's."""
    known, cells = set(samples), metadata.apply(words.recorded)
    swabs = [c for c in metadata if cells[c].dropna().isin(known).mean() > 0.5]
    if len(swabs) < 2 or pd.concat([cells[c].dropna() for c in swabs]).duplicated().any():
        return {}
    parts = {c: words.parts(c) for c in metadata}
    shared = [part for part in parts[swabs[0]] if all(part in parts[c] for c in swabs)]
    found = dict[str, dict[str, str]]()
    for swab in swabs:
        own = [part for part in parts[swab] if part not in shared]
        others = [c for c in metadata if c not in swabs and own and {*own} <= {*parts[c]}]
        named = {"_".join(part for part in parts[c] if part not in own): c for c in others}
        found[" ".join(own) or swab] = {"_".join(shared) or "swab": swab, **named}
    of_each = Counter(name for named in found.values() for name in named if name and name not in metadata)
    return {visit: {name: c for name, c in named.items() if of_each[name] > 1} for visit, named in found.items()}


# ---------------------------------------------------------------- the guesses


@dataclass
class Draft:
    """What study.yaml is to say of a metadata table, and why a key of it is to be checked."""

    #: What is recorded of each swab, as text; once negative controls are known, without them.
    swabs: pd.DataFrame
    columns: dict[str, Any]
    severity: list[dict[str, Any]] = field(default_factory=list)
    covariates: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    adjust: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    minimum_depth: int = 1000
    checks: dict[str, list[str]] = field(default_factory=dict)

    def check(self, key: str, problem: str, needed: object = True, /, **values: Any) -> None:
        """Note why a key is to be checked, as guess.yaml has it, if that is needed."""
        if needed:
            self.checks.setdefault(key, []).append(_TOLD[problem].format_map(values))

    def choose(self, key: str, column: str, values: dict[str, list[str]], ignore: list[str] | None = None) -> None:
        """A categorical column: standard value to the file's values, and the values that are left out."""
        values = {standard: listed for standard, listed in values.items() if listed}
        self.columns[key] = {"column": column, "values": values} | ({"ignore": ignore} if ignore else {})

    def rivals(self, key: str, columns: Iterable[str], also: str = "") -> None:
        """Note which columns, besides the one that was chosen, a key could stand for; `also` what is said of them."""
        others = [c for c in columns if c != self.column_of(key)]
        self.check(f"columns.{key}", "rivals", others, others=quoted(others), also=also)

    def column_of(self, key: str) -> str | None:
        """The column of a key."""
        chosen = self.columns.get(key)
        return chosen["column"] if isinstance(chosen, dict) else chosen

    def standard(self, key: str) -> pd.Series:
        """The standard value of each swab; NA where there is none."""
        if key not in self.columns:
            return pd.Series(pd.NA, index=self.swabs.index, dtype=object)
        names = {v: name for name, listed in self.columns[key]["values"].items() for v in listed}
        return self.swabs[self.column_of(key)].map(names)

    def used(self) -> set[str | None]:
        """The columns that are taken."""
        columns = {self.column_of(key) for key in self.columns if key not in NO_COLUMNS}
        return columns | {score["column"] for score in self.severity}

    def free(self, *again: str) -> list[str]:
        """The columns that are not taken and not of dates; and those of the keys named."""
        also = {self.column_of(key) for key in again}
        return [c for c in self.swabs if c in also or (c not in self.used() and self.dates(c) <= 0.5)]

    def levels(self, column: str, rows: Any = slice(None)) -> list[str]:
        """The values of a column, the most frequent first."""
        return list(self.swabs.loc[rows, column].value_counts().index)

    def dates(self, column: str) -> float:
        """The part of the different values that are dates."""
        return float(np.nan_to_num(words.dates(pd.Series(self.levels(column), dtype=object, name=column)).mean()))

    def numbers(self, column: str) -> pd.Series | None:
        """The recorded values as numbers, or None where there are others."""
        numbers, others = words.numbers(self.swabs[column])
        return None if others.any() or numbers.isna().all() else numbers.dropna()

    def most(self, key: str, column: str, low: float, high: float, what: str) -> pd.Series | None:
        """The numbers of a column if most of it are, and between limits; notes the others, which are not such."""
        numbers, odd = words.numbers(self.swabs[column])
        odd |= numbers.notna() & ~numbers.between(low, high)
        if odd.sum() > (1 - MOST) * (odd | numbers.notna()).sum() or numbers[~odd].isna().all():
            return None
        self.odd(key, self.swabs[column], odd, f"which is no {what}: correct it, or write NA")
        return numbers[~odd].dropna()

    def odd(self, key: str, cells: pd.Series, odd: pd.Series, why: str) -> None:
        """Note which cells of a column, in how many rows, are to be checked, if there are any."""
        told = few(f"'{v}' in {n} row{'s' if n > 1 else ''}" for v, n in cells[odd].value_counts().items())
        self.check(key, "odd", odd.any(), column=cells.name, cells=told, why=why)

    def lacking(self, key: str) -> str:
        """Why nothing was found: what the columns hold that are named so, or that none is."""
        # Such as "treatment group", also if it was taken for the group; but not "group".
        near = [c for c in self.swabs if words.named(c, key) > (c in self.used())]
        told = few(_TOLD["named"].format(column=c, levels=quoted(self.levels(c)) or "empty") for c in near)
        why = _TOLD["lacking"][key]
        return f"{told}, but {why['but']}" if told else str(_TOLD["absent"].format(like=why["like"]))

    @property
    def people(self) -> pd.Series:
        """Whose the swabs are."""
        return person(self.swabs[self.columns["subject"]], self.columns.get("subject_endings", ()))

    def changing(self, values: pd.Series) -> list[str]:
        """The subjects that have more than one of the values."""
        several = values.groupby(self.people).nunique() > 1
        return list(several.index[several])


_rank = itemgetter(0)


def _sample(draft: Draft, metadata: pd.DataFrame, *sides: list[str]) -> int:
    """The column with the identifiers of one side of the count table; which side that is."""
    found = []
    for side, names in enumerate(sides):
        known, like = set(names), set(map(bare, names))
        for column, cells in metadata.items():
            same, alike = len(known & set(cells)), len(like & set(map(bare, cells)))
            # Ages and scores may be like some identifiers by chance.
            alike *= cells.is_unique and alike > min(len(known), len(cells)) / 2
            rank = (same, alike, cells.is_unique, column != "", words.named(column, "sample"))
            found.append((rank, column, side, names))
    (same, alike, *_), draft.columns["sample"], side, names = max(found, key=_rank)
    cells = list(metadata[draft.columns["sample"]])
    absent, more = [n for n in names if n not in set(cells)], [c for c in cells if c not in set(names)]
    if not same and not alike:
        draft.check("columns.sample", "no_sample", counts=quoted(names[:3]))
    elif absent or more or len(set(cells)) < len(cells):
        told = {"n": len(absent), "absent": quoted(absent) or "none", "m": len(more), "more": quoted(more) or "none"}
        draft.check("columns.sample", "other_samples", near=near_misses(absent, more), **told)
    return side


def _split(draft: Draft, key: str, *meanings: str) -> Iterator[tuple[tuple[int, int], str, dict[str, list[str]]]]:
    """The columns of few values, how well each is named, and its values by what they mean."""
    for column in draft.free():
        levels, named = draft.levels(column), words.named(column, key)
        if len(levels) <= MOST_VALUES:
            yield (named, -len(levels)), column, _by_meaning(levels, named, *meanings)


def _control_type(draft: Draft) -> None:
    found = [f for f in _split(draft, "control_type", "negative", "mock") if f[2]["negative"] and f[2]["other"]]
    if not found:
        sample = draft.columns["sample"]
        negative = _by_meaning(draft.levels(sample), True, "negative")["negative"]
        if 0 < len(negative) < len(draft.swabs) / 4:
            draft.choose("control_type", sample, {"negative": negative})
            draft.check("columns.control_type", "negative_names", negative=quoted(negative))
            draft.swabs = draft.swabs[~draft.swabs[sample].isin(negative)]
        return
    (named, _), column, parts = max(found, key=_rank)
    negative, mock = parts["negative"], parts["mock"]
    draft.choose("control_type", column, {"sample": parts["other"], "negative": negative}, mock)
    why, told = "negative_and_mock" if mock else "negative", {"negative": quoted(negative), "mock": quoted(mock)}
    draft.check("columns.control_type", why, mock or not named, **told)
    draft.swabs = draft.swabs[~draft.swabs[column].isin(negative)]


def _severity(draft: Draft) -> None:
    for column in draft.free():
        name_of = words.apart(column)
        name = next((name for name, (pattern, *_) in words.SCORES.items() if re.search(pattern, name_of)), "")
        if not name or words.DERIVED.search(name_of):
            continue
        if others := [score["column"] for score in draft.severity if score["name"] == name]:
            draft.check("severity", "score_again", column=column, other=others[0])
            continue
        _, label, highest = words.SCORES[name]
        numbers = draft.most("severity", column, -highest, 1.5 * highest, label)
        numbers = draft.most("severity", column, -math.inf, math.inf, "number") if numbers is None else numbers
        if numbers is None or numbers.nunique() < 2:
            levels = quoted(draft.levels(column)) or "nothing"
            draft.check("severity", "score_empty", column=column, label=label, levels=levels)
            continue
        low, high = min(0, math.floor(numbers.min())), max(highest, math.ceil(numbers.max()))
        told = {"column": column, "low": numbers.min(), "high": numbers.max(), "label": label, "usual": highest}
        draft.check("severity", "score_range", (low, high) != (0, highest), **told)
        draft.severity.append({"name": name, "column": column, "label": label, "range": [low, high]})
    draft.severity.sort(key=lambda score: list(words.SCORES).index(score["name"]))
    draft.check("severity", "no_score", not draft.severity and "severity" not in draft.checks)


def _plain(draft: Draft, *keys: str) -> None:
    """Columns that are found by their names."""

    def suits(column: str, key: str) -> bool:
        if key == "age":
            recorded = max(draft.swabs[column].notna().sum(), 1)
            return bool(words.numbers(draft.swabs[column])[0].between(0, 1440).sum() >= MOST * recorded)
        if key == "load":  # and no logarithm of it, nor a number of cycles
            numbers = draft.numbers(column)
            return numbers is not None and numbers.min() >= 0 and numbers.max() > 1000
        return 1 <= len(draft.levels(column)) <= (4 if key == "sex" else max(12, len(draft.swabs) / 4))

    for key in keys:
        if found := [(named, c) for c in draft.free() if (named := words.named(c, key)) and suits(c, key)]:
            found.sort(key=lambda f: bool(words.MONTHS.search(words.apart(f[1]))))  # years before months
            named, draft.columns[key] = max(found, key=_rank)
            values = quoted(draft.levels(draft.columns[key]))
            draft.check(f"columns.{key}", "site", key == "site" and named == 1, values=values)


def _age(draft: Draft) -> None:
    """The unit of ages, and what is none."""
    if (column := draft.columns.get("age")) is None:
        return
    months = words.MONTHS.search(words.apart(column)) or words.numbers(draft.swabs[column])[0].median() > 120
    ages = draft.most("columns.age", column, 0, 1440 if months else 120, "age")
    if months and ages is not None:
        draft.columns["age_unit"] = "months"
        told = {"low": ages.min(), "high": ages.max(), "youngest": ages.min() / 12, "oldest": ages.max() / 12}
        draft.check("columns.age_unit", "months", column=column, **told)


def _ends_with_visits(draft: Draft) -> bool:
    """Whether identifiers, different in each swab, end with its visit: such endings are not of the person."""
    ids = draft.swabs[draft.columns["subject"]].dropna()
    ends = ids.str.extract(r"(?<=.)([\W_]*[A-Za-z]+\d*)$")[0].dropna()
    ends = ends[[words.when(re.sub(r"[\W_]", "", end), False) is not None for end in ends]]
    names = person(ids, set(ends))
    if not ids.is_unique or not 1 < ends.nunique() < names.nunique() < len(ids):
        return False
    draft.columns["subject_endings"] = sorted(set(ends))
    told = {"swab": ids[ends.index[0]], "person": names[ends.index[0]], "n": names.nunique()}
    draft.check("columns.subject_endings", "endings", **told)
    return True


def _subject(draft: Draft) -> None:
    found, swabs = [], len(draft.swabs)
    # A person keeps sex and (nearly) age; a column of people has many values, most of them several times.
    kept = {draft.columns[key]: most for key, most in (("age", 2), ("sex", 1)) if key in draft.columns}
    for column in draft.free():
        cells = draft.swabs[column]
        people, named = cells.nunique(), bool(words.named(column, "subject"))
        steady = kept and all(draft.swabs[c].groupby(cells).nunique().le(most).all() for c, most in kept.items())
        names = draft.numbers(column) is None or cells.dropna().str.fullmatch(r"\d+").all()
        alike = steady and names and swabs / 8 <= people <= swabs * 0.7 and cells.value_counts().median() >= 2
        if (named or alike) and people >= max(2, swabs / 50) and cells.notna().mean() >= 0.5:
            found.append(((named, people < swabs, people), column))
    why = draft.lacking("subject")
    if not found:
        draft.columns["subject"] = draft.columns["sample"]
        draft.check("columns.subject", "subject_in_names" if _ends_with_visits(draft) else "no_subject", why=why)
        return
    (named, *_), draft.columns["subject"] = max(found, key=_rank)
    draft.check("columns.subject", "subject_alike", not named, why=why)
    draft.rivals("subject", [c for (also, *_), c in found if also == named])
    _ends_with_visits(draft)


def _lesional(draft: Draft) -> None:
    found = _split(draft, "lesional", "lesional", "non_lesional", "control")
    both = [f for f in found if f[2]["lesional"] and f[2]["non_lesional"] and not f[2]["other"]]
    if both:
        _, column, parts = max(both, key=_rank)
        lesional, healthy = parts["lesional"], parts["control"]
        draft.choose("lesional", column, {"lesional": lesional, "non_lesional": parts["non_lesional"] + healthy})
        draft.check("columns.lesional", "healthy_skin", healthy, healthy=quoted(healthy))


def _visit(draft: Draft) -> None:
    found = []
    for column in draft.free():
        levels, named = draft.levels(column), words.named(column, "visit")
        times = {v: time for v in levels if (time := words.when(v, named)) is not None}
        told = named or len(levels) > 1
        most = MOST if named else 1
        known = times and draft.swabs[column].isin(times).sum() >= most * draft.swabs[column].notna().sum()
        if told and known and len(levels) <= MOST_VALUES and not words.PRIOR.search(words.apart(column)):
            repeated = bool(draft.changing(draft.swabs[column]))
            found.append(((repeated, len(levels) > 1, named, -len(levels)), column, times))
    if not found and not (found := _visits_of_cases(draft)):
        return
    _, column, times = max(found, key=_rank)
    ordered = sorted(times, key=lambda v: times[v])
    first = next((v for v in ordered if words.BASELINE.fullmatch(words.folded(v))), ordered[0])
    baseline = [v for v in ordered if times[v] == times[first]]
    followup = [v for v in ordered if times[v] == max(times.values()) > times[first]]
    between = sorted({times[v] for v in ordered if times[first] < times[v] < max(times.values())})
    each_at = [[v for v in ordered if times[v] == time] for time in between]
    visits = {"baseline": baseline} | {words.label(at[0], column): at for at in each_at}
    ignore, odd = [v for v in ordered if times[v] < times[first]], ~draft.swabs[column].isin([*times, pd.NA])
    draft.choose("visit", column, visits | {"followup": followup}, ignore + draft.levels(column, odd))
    draft.odd("columns.visit", draft.swabs[column], odd, "which is no time that is known: it is left out")
    people = draft.people.groupby(draft.swabs[column]).nunique()
    each = ", ".join(f"'{v}' {people[v]}" for v in ordered)
    draft.check("columns.visit", "visits", len(visits) > 1 or ignore, each=each)
    draft.rivals("visit", [c for (also, *_), c, _ in found if also])


def _visits_of_cases(draft: Draft) -> list[tuple[Any, str, dict[str, float]]]:
    """Columns that tell patients by their visits, beside controls: AD_pre, AD_post, HC. Controls are of baseline."""
    found = []
    for column in draft.free():
        levels = draft.levels(column)
        times = {v: words.when_of(v) for v in levels if not words.means(v, "control")}
        known = {v: time for v, time in times.items() if time is not None}
        if len(known) == len(times) < len(levels) <= MOST_VALUES and len(set(known.values())) > 1:
            of_controls = dict.fromkeys(set(levels) - {*times}, min(known.values()))
            found.append(((0, -len(levels)), column, of_controls | known))
            draft.check("columns.visit", "visits_of_cases", column=column)
    return found


def _group(draft: Draft) -> None:
    found = []
    for column in draft.free("control_type", "lesional", "visit"):
        levels, named = draft.levels(column), words.named(column, "group")
        parts = _by_meaning(levels, False, "control", "mock")
        sure = bool(parts["control"])
        # "N" or "0" are controls only where the name says that the column is of a disease, and the others are "Y".
        if not sure and named and len(levels) == 2 and column not in draft.used():
            parts = _by_meaning(levels, True, "control", "mock")
        # Healthy people beside a "control" are the controls; that is an arm.
        if healthy := [v for v in parts["control"] if words.means(v, "healthy")]:
            arms = [v for v in parts["control"] if v not in healthy and words.means(v, "comparator")]
            parts |= {"control": [v for v in parts["control"] if v not in arms], "other": parts["other"] + arms}
        control, case = parts["control"], parts["other"]
        trial = all(words.means(v, "treatment") or words.means(v, "comparator") for v in levels)
        if not control or not case or len(levels) > MOST_VALUES or trial:
            continue
        known = all(words.means(v, "case", named) for v in case)
        mixed = draft.changing(draft.swabs[column].dropna().isin(control))
        rank = (not mixed, bool(named) + known, sure, -len(levels))
        found.append((rank, column, parts, bool(named and known)))
    if not found:
        return
    _, column, parts, sure = max(found, key=_rank)
    control, case, mock = parts["control"], parts["other"], parts["mock"]
    draft.choose("group", column, {"control": control, "case": case}, mock)
    draft.check("columns.group", "group", not sure, control=quoted(control), column=column, case=quoted(case))
    controls = draft.swabs[column].isin(control)
    others = [c for _, c, parts, _ in found if not draft.swabs[c].isin(parts["control"]).eq(controls).all()]
    draft.rivals("group", others, ", and differs")


def _arm(draft: Draft) -> None:
    group = draft.standard("group")
    controls = group.eq("control").fillna(False)
    cases = group.eq("case").fillna(False) if "group" in draft.columns else ~controls
    few_people = draft.people[cases].nunique() / 10
    found, crossed = [], []
    for column in draft.free("group"):
        levels, shared = draft.levels(column, cases), column == draft.column_of("group")
        named = 0 if shared else words.named(column, "arm")
        drugs = sum(words.means(v, "treatment") or words.means(v, "comparator") for v in levels)
        # What only patients have, and each of them: a treatment, or something else of their disease.
        patients_only = not draft.levels(column, controls) and draft.swabs.loc[cases, column].notna().mean() > 0.9
        if len(levels) < 2 or shared:
            of_arms = len(levels) > 1 and words.named(column, "arm") > 1  # and not of groups
            told = bool((drugs > 1 or of_arms) if shared else drugs and named)
        else:
            told = bool(named or drugs or (patients_only and len(levels) == 2 and controls.any()))
        mixed = len(draft.changing(draft.swabs.loc[cases, column]))
        if told and 2 <= len(levels) <= 6 and mixed > few_people:
            crossed.append(f"'{column}' ({quoted(levels)}) in {mixed} people")
        if told and 1 <= len(levels) <= 6 and mixed <= few_people and not words.PRIOR.search(words.apart(column)):
            rank = (drugs >= min(2, len(levels)), named, patients_only, len(levels) == 2)
            found.append((rank, column, levels, named or drugs))
    if not found:
        draft.check("columns.arm", "no_arm", why=draft.lacking("arm"))
        draft.check("columns.arm", "crossed", crossed, arms="; ".join(crossed))
        return
    (_, named, *_), column, levels, known = max(found, key=_rank)
    parts = _by_meaning(levels, True, "comparator")
    treatment = [*parts["other"], *levels][:1]
    comparator = [v for v in [*parts["comparator"], *levels] if v not in treatment][:1]
    changed = draft.changing(draft.swabs.loc[cases, column])
    draft.columns |= {"arm_from": "baseline"} if changed else {}
    draft.check("columns.arm_from", "arms_changed", changed, n=len(changed), column=column)
    further = {words.label(v, column): [v] for v in levels if v not in treatment + comparator}
    draft.choose("arm", column, {"treatment": treatment, "comparator": comparator} | further)
    unsure = comparator and [len(part) for part in parts.values()] != [1, 1]
    draft.check("columns.arm", "which_arm", unsure, levels=quoted(levels))
    draft.check("columns.arm", "arm_alike", not known)
    draft.rivals("arm", [c for (_, also, *_), c, *_ in found if also and also >= named])


def _covariates(draft: Draft) -> None:
    used = draft.used()
    taken = {*STANDARD_COLUMNS, *(score["name"] for score in draft.severity)}
    for column in draft.swabs:
        levels, dates = draft.levels(column), draft.dates(column)
        repeats = any(draft.swabs[column].equals(draft.swabs[c]) for c in used)
        if dates or (len(levels) > 12 and draft.numbers(column) is None):
            draft.left_out += [] if repeats else [f"'{column}' has {'dates' if dates else f'{len(levels)} values'}"]
        elif column and not repeats and len(levels) > 1:
            name = re.sub("[^a-z0-9]+", "_", column.lower()).strip("_")
            name = name if name.isidentifier() else f"covariate_{name}".rstrip("_")
            while name in taken:
                name += "_"
            taken.add(name)
            draft.covariates[name] = column


def _labels(draft: Draft) -> None:
    draft.labels = Labels().model_dump()
    for key in (key for key in ("group", "arm", "visit") if key in draft.columns):
        for name, values in draft.columns[key]["values"].items():
            if name not in draft.labels:  # a further visit or arm has its name
                continue
            told = key == "visit" or not re.fullmatch(words.PLAIN, words.folded(values[0]))
            label = words.label(values[0], draft.columns[key]["column"]) if len(values) == 1 and told else ""
            if label and name != "baseline" and label not in draft.labels.values():
                draft.labels[name] = label
    if "site" in draft.columns and len(sites := draft.levels(draft.columns["site"])) == 1:
        draft.labels["site"] = words.spaced(sites[0])[:60] or draft.labels["site"]


def _adjust(draft: Draft) -> None:
    share = draft.swabs.notna().groupby(draft.standard("group")).mean().reindex(["control", "case"], fill_value=0)
    known = {key: share[draft.columns[key]] for key in ("age", "sex") if key in draft.columns}
    draft.adjust = {
        "group": [key for key, shares in known.items() if shares.min() >= 0.8],
        "arm": [key for key, shares in known.items() if shares["case"] >= 0.8],
    }


def _stand_in(draft: Draft, key: str, standard: str) -> None:
    """Where no column tells, so that study.yaml can be loaded: all values of some column mean the same."""
    if key not in draft.columns:
        cells = {c: (draft.dates(c), draft.swabs[c].isna().any(), len(draft.levels(c))) for c in draft.swabs}
        column = min(cells, key=lambda c: cells[c])
        why = draft.lacking(key)
        draft.choose(key, column, {standard: draft.levels(column)[:MOST_LISTED]})
        draft.check(f"columns.{key}", "stand_in", why=why, column=column, standard=standard)


def _not_recorded(draft: Draft, metadata: pd.DataFrame) -> None:
    """Name the words, other than NA, that are taken for nothing recorded."""
    keys = [(f"columns.{key}", draft.column_of(key)) for key in draft.columns if key not in NO_COLUMNS]
    for key, column in keys + [("severity", score["column"]) for score in draft.severity]:
        cells = metadata.loc[draft.swabs.index, str(column)]
        numeric = key in ("columns.age", "severity")
        numbers, others = words.numbers(cells)
        nothing = numbers.isna() & ~others if numeric else words.recorded(cells).isna()
        draft.odd(key, cells, nothing & ~cells.str.lower().isin(PLAINLY_MISSING), "taken for not recorded")
        commas = cells.str.contains(",", regex=False) & numbers.notna() & numeric
        draft.odd(key, cells, commas, "read with a decimal comma")


def _depth(draft: Draft, depths: np.ndarray, whole: bool) -> None:
    """The fewest reads of a swab, and what to do with counts that are not whole."""
    if not len(depths):
        draft.check("minimum_depth", "no_depth")
        return
    lowest, fifth, middle, highest = np.percentile(depths, [0, 5, 50, 100])
    shares = middle <= 150 or highest - lowest <= 0.001 * middle
    totals = {"lowest": lowest, "middle": middle, "highest": highest, "n": len(depths)}
    like = "relative abundances" if shares else "means of replicates"
    draft.check("files.counts", "fractions", not whole, like=like, **totals)
    enough = np.mean(depths >= 1000)
    draft.minimum_depth = 1000 if enough >= 0.9 else max(int(fifth // 10 * 10), 1)
    shallow = np.sum(depths < draft.minimum_depth)
    draft.check("minimum_depth", "depth", enough=enough, minimum=draft.minimum_depth, shallow=shallow, **totals)


def _taxonomy(draft: Draft, counts: Counts) -> None:
    named = sum(any(parse_lineage(f)[1:]) for f in counts.features) / max(len(counts.features), 1)
    if any(counts.lineages or ()):
        draft.check("files.taxonomy", "lineages")
        return
    draft.files["taxonomy"] = "feature_names" if named >= 0.5 else "none"
    draft.check("files.taxonomy", "no_taxonomy", named < 0.9, named=named)


def guess(metadata: pd.DataFrame, counts: Counts, whole: bool, taxonomy: bool) -> Draft:
    """What study.yaml is to say, from the names and values in the files, without paths.

    There always are sample, subject, group and visit, so that study.yaml can be loaded.

    The metadata are strings, a row a swab. The samples of the counts may be its features, and the other way round;
    `whole` tells whether all were whole before they were rounded, `taxonomy` whether there is a file of it.
    """
    draft = Draft(metadata.apply(words.recorded), {})
    if _sample(draft, metadata, counts.samples, counts.features):
        counts = Counts(counts.X.T.tocsr(), counts.features, counts.samples)
    # Each guess takes a column from those that the others left, and some build on what was found.
    _control_type(draft)
    _severity(draft)
    _plain(draft, "age", "sex")
    _age(draft)
    _subject(draft)
    _lesional(draft)
    _visit(draft)
    _group(draft)
    _arm(draft)
    _plain(draft, "site", "batch", "load")
    _covariates(draft)
    _labels(draft)
    _stand_in(draft, "visit", "baseline")
    _stand_in(draft, "group", "case")
    _adjust(draft)
    _not_recorded(draft, metadata)
    swabs = set(map(bare, draft.swabs[draft.columns["sample"]].dropna()))
    _depth(draft, np.asarray(counts.X.sum(axis=1)).ravel()[[bare(s) in swabs for s in counts.samples]], whole)
    if not taxonomy:
        _taxonomy(draft, counts)
    return draft
