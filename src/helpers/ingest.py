"""The study's files become a cohort; checks; the ledger of what was kept and dropped, and why."""

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from helpers import tables, words
from helpers.errors import Problems, StudyError
from helpers.files import unfinished
from helpers.study import SMALL, VOCABULARY, Column, Study
from helpers.tables import Counts, few, mangled, near_misses, no_repeats, text_table
from helpers.visits import who

NOT_RECORDED = "not recorded"
NEGATIVE = "negative control"
#: Groups and arms in the order in which tables show them (see `helpers.visits.who`).
GROUPS = ("control", *VOCABULARY["arm"], "case")
#: Name of a step, reason for which swabs are left out by it, and which pass (bool).
Step = tuple[str, str, pd.Series]


def _column(path: Path, table: pd.DataFrame, name: str, key: str) -> pd.Series:
    """A column of the metadata, as strings."""
    name = f"#{name}" if name not in table and f"#{name}" in table else name
    if name not in table:
        near = [c for c in table if words.apart(c) == words.apart(name)]
        near = near or difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
        fix = f"did you mean '{near[0]}'?" if near else None
        raise StudyError.of("no_column", path, name=name, key=key, found=few(table.columns), fix=fix)
    return table[name]


def _numbers(path: Path, text: pd.Series, low: float, high: float, also: str = "the range") -> pd.Series:
    """A column as numbers within a range, NaN where nothing is recorded; `also` what else may be to be corrected."""
    numbers, no_number = words.numbers(text)
    problems = Problems()
    outside = (numbers < low) | (numbers > high)
    for problem, wrong in (("no_number", no_number), ("out_of_range", outside)):
        if wrong.any():
            place = {"column": text.name, "rows": few(map(repr, text.index[wrong])), "found": few(text[wrong].unique())}
            told = {"low": low, "high": high, "also": also, "fix": mangled(text[wrong])}
            problems.found.append(StudyError.of(problem, path, **place, **told))
    problems.stop()
    return numbers


def _standard(path: Path, text: pd.Series, column: Column, name: str) -> tuple[pd.Series, pd.Series]:
    """The standard value of each row (the file's own where study.yaml ignores it), and which rows it ignores."""
    meaning = {v: standard for standard, listed in column.values.items() for v in listed}  # noqa: PD011
    ignored = text.isin(column.ignore)
    values = text.map(meaning).astype(object).where(~ignored, text)
    unknown = values.isna() & words.recorded(text).notna()
    if unknown.any():
        place = {"column": text.name, "rows": few(text.index[unknown]), "found": few(sorted(set(text[unknown])))}
        raise StudyError.of("unknown_value", path, **place, name=name, expected=few([*meaning, *column.ignore]))
    return values.where(values.notna(), pd.NA), ignored


def _presentable(path: Path, text: pd.Series, key: str) -> pd.Series:
    """The column, if its values may stand in the report: they are not dates, and do not tell people apart."""
    recorded = words.recorded(text).dropna()
    if len(dates := recorded[words.dates(recorded)]):
        raise StudyError.of("dates", path, column=text.name, key=key, rows=few(dates.index), n=len(dates))
    levels = recorded.nunique()
    if levels > 12 and levels > len(text) / 4 and words.numbers(recorded)[1].any():
        raise StudyError.of("tells_apart", path, column=text.name, key=key, n=levels, all=len(text))
    return text


def person(identifiers: pd.Series, endings: Iterable[str]) -> pd.Series:
    """Identifiers without those of the endings that they have."""
    return identifiers.str.replace(f"(?<=.)({'|'.join(map(re.escape, endings))})$", "", regex=True)


def of_visits(path: Path, table: pd.DataFrame, visits: dict[str, dict[str, str]], sample: str) -> pd.DataFrame:
    """A row a swab, of a row a person with columns for each visit by the names that they get; as is without visits."""
    if not visits:
        return table
    shared = table.drop(columns=[c for named in visits.values() for c in named.values()], errors="ignore")
    no_repeats(path, [*shared, "visit", *{name: 0 for named in visits.values() for name in named}], "column")
    blocks = []
    for visit, named in visits.items():
        own = {name: _column(path, table, c, f"files.metadata.visits.{visit}") for name, c in named.items()}
        blocks.append(shared.assign(**own, visit=visit))
    rows = pd.concat(blocks, ignore_index=True).fillna("")
    return rows[words.recorded(rows[sample]).notna()]


def _metadata_rows(study: Study, data: bytes) -> pd.DataFrame:
    """The metadata as text, its index the samples."""
    path, name = study.path(study.described), study.columns.sample
    if not (study.files.metadata or tables.is_whole_study(path, data)):
        raise StudyError.of("no_metadata", path)
    visits = study.files.metadata.visits if study.files.metadata else {}
    table = of_visits(path, text_table(path, data), visits, name)
    table.index = pd.Index(_column(path, table, name, "columns.sample").to_numpy())
    no_repeats(path, table.index, f"sample in column '{name}'")
    if "" in table.index:
        raise StudyError.of("row_without_sample", path, column=name, row=list(table.index).index("") + 1)
    return table


def _standard_columns(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """All rows, in the standard columns of ``obs`` (still as text), and ``ignored``: study.yaml leaves the swab out."""
    path, columns, problems = study.path(study.described), study.columns, Problems()
    obs = pd.DataFrame({"ignored": False, "control_type": "sample"}, index=table.index)

    def text(name: str, key: str) -> pd.Series:
        cells = _column(path, table, name, f"columns.{key}")
        if key == "control_type.column" and name == columns.sample and columns.control_type is not None:
            kinds = columns.control_type  # told by the names of swabs, which are not shown
            listed = itertools.chain(kinds.ignore, *kinds.values.values())  # noqa: PD011
            return cells.where(cells.isin(list(listed)), pd.NA)
        return _presentable(path, cells, f"columns.{key}")

    with problems:
        people = words.recorded(_column(path, table, columns.subject, "columns.subject"))
        obs["subject"] = person(people, columns.subject_endings)
    for name in ("control_type", "group", "arm", "visit", "lesional"):
        column = getattr(columns, name)
        # Negative controls belong to no patient; controls have no arm.
        concerned = obs["control_type"].ne("negative")
        if name == "arm":
            concerned &= obs["group"].eq("case")
        values = pd.Series(pd.NA, index=obs.index, dtype=object)
        if column is not None:
            with problems:
                found, ignored = _standard(path, text(column.column, f"{name}.column")[concerned], column, name)
                values[concerned] = found
                obs.loc[ignored.index, "ignored"] |= ignored
        if name != "control_type" or column is not None:
            obs[name] = values.fillna("sample") if name == "control_type" else values
    with problems:
        if columns.site and words.named(columns.site, "visit") and not words.named(columns.site, "site"):
            raise StudyError.of("time_as_site", path, found=columns.site)
    obs["site"] = study.labels.site
    for name in ("site", "sex", "batch"):
        if getattr(columns, name):
            with problems:
                obs[name] = words.recorded(text(getattr(columns, name), name))
    obs["site"] = obs["site"].fillna(NOT_RECORDED)
    if columns.age:
        with problems:
            oldest, unit = study.privacy.oldest_age, 12 if columns.age_unit == "months" else 1
            also = f"columns.age_unit: {'years' if unit == 12 else 'months'}"
            ages = _numbers(path, _column(path, table, columns.age, "columns.age"), 0, 120 * unit, also) / unit
            obs["age"] = ages if oldest is None else ages.mask(ages > oldest, oldest + 1)
    if columns.load:
        with problems:
            obs["load"] = _numbers(path, _column(path, table, columns.load, "columns.load"), 0, 1e18)
    for score in study.severity:
        with problems:
            values = _column(path, table, score.column, f"severity {score.name}")
            obs[score.name] = _numbers(path, values, *score.range)
    for name, column in columns.covariates.items():
        with problems:
            values = words.recorded(text(column, f"covariates.{name}"))
            numbers, no_number = words.numbers(values)
            obs[name] = values if no_number.any() or numbers.isna().all() else numbers
    problems.stop()
    return _pairs_of_skin(study, _of_persons(study, obs))


def _of_persons(study: Study, obs: pd.DataFrame) -> pd.DataFrame:
    """The swabs with what is known of their persons: an arm recorded once, or at baseline, is that of every visit.

    Controls without a visit are of baseline, and so are all of them, if none was seen at both visits.
    """
    used = ~obs["ignored"]
    case, control = (used & obs["group"].eq(group).fillna(False).astype(bool) for group in ("case", "control"))
    arm = obs["arm"].where(obs["arm"].isin(study.standard("arm")))
    if study.columns.arm_from == "baseline":
        allocated = arm[used & obs["visit"].eq("baseline").fillna(False).astype(bool)].groupby(obs["subject"])
        at_baseline = allocated.first()[allocated.nunique() == 1]
        known = case & obs["subject"].isin(at_baseline.index)
        arm = obs["arm"] = obs["arm"].mask(known, obs["subject"].map(at_baseline))
    for rows in (used, ~used):  # what is recorded at a visit left out counts where nothing else is
        recorded = arm[rows].groupby(obs["subject"])
        unanimous = recorded.first()[recorded.nunique() == 1]
        obs["arm"] = obs["arm"].mask(case & obs["arm"].isna(), obs["subject"].map(unanimous))
    visits = obs["visit"].where(control).groupby(obs["subject"]).transform("nunique")
    once = control & (visits.eq(0) | (not visits.gt(1).any()))
    return obs.assign(visit=obs["visit"].mask(once, "baseline"))


def _pairs_of_skin(study: Study, obs: pd.DataFrame) -> pd.DataFrame:
    """Lesional and non-lesional swabs of one visit get sites of their own, where study.yaml names no sites."""
    person = obs.groupby(["subject", "visit"])["lesional"].nunique()
    if study.columns.site or not (person > 1).any():
        return obs
    skin = obs["lesional"].map({"lesional": ", lesional", "non_lesional": ", non-lesional"}).fillna("")
    return obs.assign(site=obs["site"] + skin)


def _same_samples(study: Study, counts: Counts, rows: pd.Index) -> None:
    """Counts and metadata are of the same swabs, or study.yaml says to leave out what has no counterpart."""
    described, counted = set(rows), set(counts.samples)
    only_counts = [s for s in counts.samples if s not in described]
    only_metadata = [s for s in rows if s not in counted]
    near = near_misses(only_counts, only_metadata)
    left_out = study.files.unmatched == "ignore" and not near and len(only_metadata) < len(rows)
    if (only_counts or only_metadata) and not left_out:
        fix = "correct the identifiers" if study.files.unmatched == "ignore" else None
        raise StudyError.of(
            "other_swabs", study.path(study.files.counts), metadata=study.described.path, near=near,
            counts=len(only_counts), in_counts=few(only_counts) or "none", rows=len(only_metadata),
            in_metadata=few(only_metadata) or "none", fix=mangled([*only_counts, *only_metadata]) or fix,
        )  # fmt: skip


def in_several(obs: pd.DataFrame, column: str) -> list[str]:
    """Subjects with more than one value of a column."""
    values = obs.groupby("subject", observed=True)[column].nunique()
    return list(values.index[values > 1])


def swabbed_twice(obs: pd.DataFrame) -> pd.DataFrame:
    """Swabs that share subject, visit and site."""
    return obs[obs.duplicated(["subject", "visit", "site"], keep=False)]


def _check_design(study: Study, obs: pd.DataFrame) -> None:
    """Each subject in one group, arm and sex, and of one age; one swab a subject, visit and site.

    Of an arm, swabs tell too that cannot be analysed for want of something else.
    """
    path, problems = study.path(study.described), Problems()
    everything, obs = obs[~obs["ignored"]], obs[_usable(study, obs)]
    for column, among in (("group", obs), ("arm", everything), ("sex", obs)):
        if column in obs and (subjects := in_several(among, column)):
            rows = among.index[among["subject"] == subjects[0]]
            found = few(sorted(among.loc[rows, column].dropna().unique()))
            told = {"subjects": few(subjects), "rows": few(rows), "n": len(subjects), "column": column}
            problem = "several_arms" if column == "arm" else "several_values"
            problems.found.append(StudyError.of(problem, path, found=found, **told))
    if "age" in obs:
        ages = obs.groupby("subject")["age"].agg(["min", "max"])
        if len(wide := ages.index[ages["max"] - ages["min"] > 2]):
            youngest, oldest = ages.loc[wide[0], ["min", "max"]]
            error = StudyError.of("ages", path, subjects=few(wide), youngest=youngest, oldest=oldest)
            problems.found.append(error)
    if len(twice := swabbed_twice(obs)):
        same = (twice[["subject", "visit", "site"]] == twice[["subject", "visit", "site"]].iloc[0]).all(axis=1)
        first = twice.iloc[0][["subject", "visit", "site"]]
        problems.found.append(StudyError.of("replicates", path, rows=few(twice.index[same]), **first, n=len(twice)))
    problems.stop()


def _needed(study: Study, obs: pd.DataFrame) -> list[Step]:
    """What a swab needs to be of use: name of the step, reason to drop the others, which swabs have it."""
    arm = obs["arm"].notna() | obs["group"].ne("case").fillna(True) | (study.columns.arm is None)
    return [
        ("ignored", "a value that study.yaml leaves out", ~obs["ignored"]),
        ("group", "no group recorded", obs["group"].notna()),
        ("arm", "no arm recorded", arm.astype(bool)),
        ("visit", "no visit recorded", obs["visit"].notna()),
        ("subject", "no subject recorded", obs["subject"].notna()),
    ]


def _usable(study: Study, obs: pd.DataFrame) -> pd.Series:
    """Swabs that have what they need, however deep they are."""
    return pd.concat([passes for _, _, passes in _needed(study, obs)], axis=1).all(axis=1)


def in_order(there: Iterable[object]) -> list[str]:
    """Groups and arms, also the study's own and those that it leaves out, in the order in which tables show them."""
    names = {*map(str, there)}
    return [w for w in (*GROUPS, *sorted(names - {*GROUPS, NOT_RECORDED}), NOT_RECORDED) if w in names]


def follow(
    obs: pd.DataFrame, steps: Sequence[Step], visits: Sequence[str] = VOCABULARY["visit"]
) -> tuple[pd.Series, pd.DataFrame, pd.DataFrame]:
    """Follow swabs, a row each with the standard columns, and people through the steps of a choice.

    - Which swabs pass every step, as negative controls do.
    - Ledger: step, reason, group, visit, swabs_before, swabs_after; a row a step, group and visit that had swabs.
    - Flow: step, reason, who (as `helpers.visits.who`), people, one column each of the visits, both (people at baseline
      and follow-up), swabs: what is left after the step. Without negative controls.
    """
    negative = obs["control_type"].eq("negative")
    by = pd.DataFrame({c: obs[c].astype(object).fillna(NOT_RECORDED).astype(str) for c in ("group", "visit")})
    by["group"] = by["group"].mask(negative, NEGATIVE)
    kept, blocks, left = pd.Series(True, index=obs.index), [], {}
    before = by.groupby(["group", "visit"]).size()
    for step, reason, passes in steps:
        after = kept & (passes | negative)
        # Most steps leave nobody out, and counting takes its time.
        swabs = before if after.equals(kept) else by[after].groupby(["group", "visit"]).size()
        block = pd.DataFrame({"swabs_before": before, "swabs_after": swabs.reindex(before.index, fill_value=0)})
        blocks.append(block.reset_index().assign(step=step, reason=reason))
        kept, before = after, swabs
        left[step, reason] = after
    ledger = pd.concat(blocks, ignore_index=True)
    patients = by.assign(who=obs["arm"].astype(object).fillna(by["group"]), subject=obs["subject"])
    # A person is in one arm: that of the swab which gets furthest, whatever the files say at a visit left out.
    furthest = patients.assign(at=sum(after.astype(int) for after in left.values()))
    furthest = furthest.sort_values("at", ascending=False, kind="stable").drop_duplicates("subject")
    known = furthest.dropna(subset="subject").set_index("subject")["who"]
    patients["who"] = patients["subject"].map(known).fillna(patients["who"])
    groups = in_order(patients.loc[~negative, "who"])
    counted: dict[tuple[str, str], pd.DataFrame] = {}
    previous, people = None, pd.DataFrame()
    for at, after in left.items():
        if not after.equals(previous):
            previous, people = after, count_people(patients[after & ~negative], visits).reindex(groups)
        counted[at] = people
    flow = pd.concat(counted)
    flow = flow.rename_axis(["step", "reason", "who"]).fillna(0).astype(int).reset_index()
    return kept, ledger[["step", "reason", "group", "visit", "swabs_before", "swabs_after"]], flow


def count_people(patients: pd.DataFrame, visits: Sequence[str]) -> pd.DataFrame:
    """People in all, at each visit and at both, and swabs, by who; of swabs with who, subject and visit."""
    at = {visit: patients["visit"].eq(visit) for visit in dict.fromkeys([*visits, *VOCABULARY["visit"]])}
    seen = patients.assign(**at).groupby(["who", "subject"])[list(at)].any().astype(int)
    counts = seen.assign(people=1, both=seen["baseline"] * seen["followup"]).groupby("who").sum()
    counts = counts[["people", *at, "both"]]
    return counts.join(patients.groupby("who").size().rename("swabs"), how="outer").fillna(0).astype(int)


def _typed(study: Study, obs: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``obs`` in their types and order."""
    obs = obs.copy()
    for name in ("group", "arm", "visit", "control_type"):
        obs[name] = pd.Categorical(obs[name], study.standard(name), ordered=name == "visit")
    obs["lesional"] = obs["lesional"].map({"lesional": True, "non_lesional": False}).astype("boolean")
    for name in obs.columns.difference(["subject", "site", "lesional"]):
        if obs[name].dtype == object:
            obs[name] = pd.Categorical(obs[name], sorted(obs[name].dropna().unique()))
    obs["subject"] = obs["subject"].fillna("").astype(str)
    obs["site"] = obs["site"].astype(str)
    first = ["subject", "group", "arm", "visit", "site", "lesional", "age", "sex", "batch", "load", "control_type"]
    scores = [s.name for s in study.severity]
    return obs[[c for c in (*first, *scores, *study.columns.covariates, "depth") if c in obs]]


def build_cohort(study: Study) -> tuple[AnnData, pd.DataFrame]:
    """Read the study's files, check them, and keep the swabs that can be analysed; the ledger is that of `follow`.

    Whatever is wrong with the files is told at once: file, place, what was found and what expected, how to mend it.

    The cohort has in ``X`` counts (CSR, swabs x features that have reads); in ``var`` the seven `RANKS`, "" where not
    named; in ``obs`` subject, group, arm, visit (ordered), site, lesional (nullable), age, sex, batch, load,
    control_type, the severity scores, the covariates, and depth (reads), where the study has them. Negative controls
    stay, as ``control_type`` ``negative``. Of relative abundances ``X`` are shares, and there is no depth. ``uns``:
    ``relative`` (bool), ``flow`` (people and swabs after each step, as from `follow`; JSON), ``tree`` (Newick, if
    there is one), ``tree_differs`` (features without a tip and other tips; JSON), ``study`` and ``checksums``
    (JSON).
    """
    files, problems = study.files.each(), Problems()
    data, rows, obs, counts, var, tree = dict[str, bytes](), None, None, None, None, None
    for role, file in files.items():
        with problems:
            data[role] = study.read(file)
    if (described := "metadata" if study.files.metadata else "counts") in data:
        with problems:
            rows = _metadata_rows(study, data[described])
    if rows is not None:
        with problems:
            obs = _standard_columns(study, rows)
    if rows is not None and "counts" in data:
        with problems:
            counts = tables.read_counts(study, data["counts"], rows.index)
    if obs is not None:
        ignored = study.files.unmatched == "ignore" and counts is not None
        counted = obs.index.isin(counts.samples) if ignored and counts is not None else np.ones(len(obs), bool)
        with problems:
            _check_design(study, obs[counted & obs["control_type"].eq("sample")])
    if rows is not None and counts is not None:
        with problems:
            _same_samples(study, counts, rows.index)
        with problems:
            var = tables.read_taxonomy(study, data.get("taxonomy"), counts)
        newick = data.get("tree", (counts.tree or "").encode())
        if "tree" in data or (newick and not study.files.tree):
            with problems:
                tree = tables.read_tree(study, newick, counts.features)
    problems.stop()
    assert obs is not None
    assert counts is not None
    assert var is not None
    cohort, ledger = _kept(study, obs, counts, var)
    if tree is not None:
        tree = tables.read_tree(study, newick, list(cohort.var_names))
        cohort.uns["tree"] = tree.newick
        cohort.uns["tree_differs"] = json.dumps({"without_tip": tree.without_tip, "other_tips": tree.other_tips})
    cohort.uns["counts_told"] = counts.told
    cohort.uns["study"] = study.model_dump_json()
    checksums = {Path(f.path).name: hashlib.sha256(data[role]).hexdigest() for role, f in files.items()}
    cohort.uns["checksums"] = json.dumps(checksums)
    return cohort, ledger


def cohort_of(study: Study, metadata: bytes, counts: Counts, var: pd.DataFrame) -> AnnData:
    """The cohort of what is known to be right, as from `build_cohort`, with nothing said of files and who is left out.

    `var` as from `helpers.tables.read_taxonomy`.
    """
    obs = _standard_columns(study, _metadata_rows(study, metadata))
    X, enough = _with_depth(study, obs, counts)
    return _swabs(study, obs, X, var, enough & _usable(study, obs) | obs["control_type"].eq("negative"))


def _kept(study: Study, obs: pd.DataFrame, counts: Counts, var: pd.DataFrame) -> tuple[AnnData, pd.DataFrame]:
    """The swabs that can be analysed, and the ledger of those that cannot."""
    described, counted = set(obs.index), set(counts.samples)
    obs = obs.reindex([*obs.index, *(name for name in counts.samples if name not in described)])
    obs = obs.assign(ignored=obs["ignored"].eq(True), control_type=obs["control_type"].fillna("sample"))
    X, enough = _with_depth(study, obs, counts)
    depth = ("depth", f"fewer than {study.minimum_depth:,} reads", enough)
    steps = [("read", "all swabs of the files", pd.Series(True, index=obs.index)), *_needed(study, obs), depth]
    matched = (("not in the counts", counted), ("not in the metadata", described))
    unmatched = [("unmatched", why, pd.Series(obs.index.isin(list(names)), index=obs.index)) for why, names in matched]
    steps[1:1] = [step for step in unmatched if not step[2].all()]
    steps += _large_enough(study, obs, np.logical_and.reduce([passes for *_, passes in steps]))
    kept, ledger, flow = follow(obs, steps, study.standard("visit"))
    if not (kept & (obs["control_type"] == "sample")).any():
        dropped = (ledger["swabs_before"] - ledger["swabs_after"]).groupby(ledger["reason"]).sum()
        found = "; ".join(f"{reason}: {n}" for reason, n in dropped[dropped > 0].items())
        raise StudyError.of("no_swab", study.folder / "study.yaml", found=found)
    cohort = _swabs(study, obs, X, var, kept)
    cohort.uns["flow"] = flow.to_json(orient="records")
    return cohort, ledger


def _large_enough(study: Study, obs: pd.DataFrame, kept: np.ndarray) -> list[Step]:
    """A step that leaves out groups too small to be shown, at a visit or at all; none if all are, or all are shown.

    Counted are the people who were there at baseline, and those who came again.
    """
    swabs = obs[kept & obs["control_type"].eq("sample")]
    there = swabs[swabs["subject"].isin(swabs.loc[swabs["visit"].eq("baseline"), "subject"])]
    people = there.groupby([who(there), "visit"])["subject"].nunique()
    large = people.index[people >= study.privacy.fewest]
    if not study.privacy.fewest or large.empty:
        return []
    passes = pd.MultiIndex.from_arrays([who(obs), obs["visit"]]).isin(large)
    return [("small", f"group of no more than {SMALL}, which is not shown", pd.Series(passes, index=obs.index))]


def _with_depth(study: Study, obs: pd.DataFrame, counts: Counts) -> tuple[sparse.csr_matrix, pd.Series]:
    """The counts in the order of `obs`, which gets their depth, and which swabs are deep enough."""
    at = pd.Index(counts.samples).get_indexer(obs.index)
    X = sparse.diags((at >= 0).astype(counts.X.dtype)) @ counts.X[at] if (at < 0).any() else counts.X[at]
    if not study.counted:
        return X, pd.Series(True, index=obs.index)
    obs["depth"] = np.asarray(X.sum(axis=1)).ravel().astype(int)
    return X, obs["depth"] >= study.minimum_depth


def _swabs(study: Study, obs: pd.DataFrame, X: sparse.csr_matrix, var: pd.DataFrame, kept: pd.Series) -> AnnData:
    """The swabs that are kept, with the features that they have."""
    present = np.asarray(X[kept.to_numpy()].sum(axis=0)).ravel() > 0
    if not present.any():
        raise StudyError.of("no_reads", study.path(study.files.counts))
    cohort = AnnData(X[kept.to_numpy()][:, present].tocsr(), obs=_typed(study, obs[kept]), var=var[present])
    cohort.uns["relative"] = not study.counted
    return cohort


def save_cohort(cohort: AnnData, results_dir: str | Path, name: str = "cohort") -> Path:
    """Write the cohort, or the swabs that are compared (``measures``), as ``<name>.h5ad``: whole or not at all."""
    file = Path(results_dir) / f"{name}.h5ad"
    file.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(file) as part:
        cohort.write_h5ad(part, convert_strings_to_categoricals=False)
        part.replace(file)
    return file


def load_cohort(results_dir: str | Path, name: str = "cohort", *, distances: bool = False) -> tuple[AnnData, Study]:
    """Read what `save_cohort` wrote, of `distances` only if asked for; and the study as it was when that was built."""
    file = Path(results_dir) / f"{name}.h5ad"
    if not file.is_file():
        raise StudyError.of("no_cohort", file)
    with h5py.File(file) as stored:
        cohort = AnnData(**{part: ad.io.read_elem(stored[part]) for part in stored if part != "obsp" or distances})
    return cohort, Study.model_validate_json(cohort.uns["study"])
