"""The study's files become a cohort; checks; the ledger of what was kept and dropped, and why."""

import difflib
import hashlib
import json
import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from helpers.study import VOCABULARY, Column, Study, StudyError
from helpers.tables import few, near_misses, no_repeats, read_counts, read_taxonomy, read_tree, text_table

NOT_RECORDED = "not recorded"
NEGATIVE = "negative control"
MISSING = {"", "na", "nan", "n/a", "#n/a"}


def _column(path: Path, table: pd.DataFrame, name: str, key: str) -> pd.Series:
    """A column of the metadata, as strings."""
    name = f"#{name}" if name not in table and f"#{name}" in table else name
    if name not in table:
        near = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
        raise StudyError(
            f"has no column '{name}'",
            file=path,
            where=f"{key} in study.yaml",
            found=", ".join(table.columns),
            expected=name,
            fix=f"did you mean '{near[0]}'?" if near else None,
        )
    return table[name]


def _recorded(text: pd.Series) -> pd.Series:
    """Strings, NA where nothing is recorded."""
    return text.mask(text.str.lower().isin(MISSING), pd.NA)


def _numbers(path: Path, text: pd.Series, low: float, high: float) -> pd.Series:
    """A column as numbers within a range, NaN where nothing is recorded."""
    text = _recorded(text)
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    for wrong, problem, expected in (
        (text.notna() & ~np.isfinite(numbers), "is not a number", "a number (decimal point, not comma) or NA"),
        ((numbers < low) | (numbers > high), "is out of range", f"{low:g} to {high:g}"),
    ):
        if wrong.any():
            row = wrong.idxmax()
            raise StudyError(
                f"has a value that {problem}", file=path, where=f"column '{text.name}', row '{row}'",
                found=text[row], expected=expected,
            )  # fmt: skip
    return numbers


def _standard(path: Path, text: pd.Series, column: Column, name: str) -> tuple[pd.Series, pd.Series]:
    """The standard value of each row (the file's own where study.yaml ignores it), and which rows it ignores."""
    meaning = {v: standard for standard, listed in column.values.items() for v in listed}  # noqa: PD011
    ignored = text.isin(column.ignore)
    values = text.map(meaning).astype(object).where(~ignored, text)
    unknown = values.isna() & _recorded(text).notna()
    if unknown.any():
        raise StudyError(
            "has a value that study.yaml does not know",
            file=path,
            where=f"column '{text.name}', rows {few(text.index[unknown])}",
            found=few(sorted(set(text[unknown]))),
            expected=few([*meaning, *column.ignore]),
            fix=f"add it to columns.{name}.values or columns.{name}.ignore",
        )
    return values.where(values.notna(), pd.NA), ignored


def _read_metadata(study: Study, data: bytes) -> pd.DataFrame:
    """All rows, in the standard columns of ``obs`` (still as text), and ``ignored``: study.yaml leaves the swab out."""
    path, columns = study.path(study.files.metadata), study.columns
    table = text_table(path, data)
    table.index = pd.Index(_column(path, table, columns.sample, "columns.sample").to_numpy())
    no_repeats(path, table.index, f"sample in column '{columns.sample}'")
    obs = pd.DataFrame({"ignored": False, "control_type": "sample"}, index=table.index)

    def text(name: str, key: str) -> pd.Series:
        return _column(path, table, name, f"columns.{key}")

    obs["subject"] = _recorded(text(columns.subject, "subject"))
    for name in ("control_type", "group", "arm", "visit", "lesional"):
        column = getattr(columns, name)
        # Negative controls belong to no patient; controls have no arm.
        concerned = obs["control_type"].ne("negative") & (obs["group"].eq("case") if name == "arm" else True)
        values = pd.Series(pd.NA, index=obs.index, dtype=object)
        if column is not None:
            found, ignored = _standard(path, text(column.column, f"{name}.column")[concerned], column, name)
            values[concerned] = found
            obs.loc[ignored.index, "ignored"] |= ignored
        if name != "control_type" or column is not None:
            obs[name] = values.fillna("sample") if name == "control_type" else values
    obs["site"] = _recorded(text(columns.site, "site")).fillna(NOT_RECORDED) if columns.site else study.labels.site
    for name in ("sex", "batch"):
        if getattr(columns, name):
            obs[name] = _recorded(text(getattr(columns, name), name))
    if columns.age:
        obs["age"] = _numbers(path, text(columns.age, "age"), 0, 120)
    for score in study.severity:
        obs[score.name] = _numbers(path, _column(path, table, score.column, f"severity {score.name}"), *score.range)
    for name, column in columns.covariates.items():
        values = _recorded(text(column, f"covariates.{name}"))
        numbers = pd.to_numeric(values, errors="coerce").astype(float)
        obs[name] = numbers if (np.isfinite(numbers) == values.notna()).all() else values
    return obs


def _same_samples(study: Study, samples: list[str], obs: pd.DataFrame) -> None:
    """Counts and metadata are of the same swabs."""
    only_counts = [s for s in samples if s not in obs.index]
    only_metadata = [s for s in obs.index if s not in set(samples)]
    if only_counts or only_metadata:
        raise StudyError(
            f"has other swabs than {study.files.metadata.path}",
            file=study.path(study.files.counts),
            found=f"{len(only_counts)} only in the counts: {few(only_counts) or 'none'}; "
            f"{len(only_metadata)} only in the metadata: {few(only_metadata) or 'none'}"
            + near_misses(only_counts, only_metadata),
            expected="each swab in both",
            fix="correct the identifiers, or take the rows out of the file that has too many",
        )


def in_several(obs: pd.DataFrame, column: str) -> list[str]:
    """Subjects with more than one value of a column."""
    values = obs.groupby("subject", observed=True)[column].nunique()
    return list(values.index[values > 1])


def swabbed_twice(obs: pd.DataFrame) -> pd.DataFrame:
    """Swabs that share subject, visit and site."""
    return obs[obs.duplicated(["subject", "visit", "site"], keep=False)]


def _check_design(study: Study, obs: pd.DataFrame) -> None:
    """Each subject in one group and arm; one swab a subject, visit and site."""
    path = study.path(study.files.metadata)
    for column in ("group", "arm"):
        if subjects := in_several(obs, column):
            rows = obs.index[obs["subject"] == subjects[0]]
            raise StudyError(
                f"has a subject in two values of {column}", file=path,
                where=f"subject {few(subjects)}; rows {few(rows)}",
                found=few(sorted(obs.loc[rows, column].dropna().unique())), expected="one for each subject",
            )  # fmt: skip
    if "sex" in obs and (subjects := in_several(obs, "sex")):
        rows = obs.index[obs["subject"] == subjects[0]]
        raise StudyError(
            "has a subject of two sexes", file=path, where=f"subject {few(subjects)}; rows {few(rows)}",
            found=few(sorted(obs.loc[rows, "sex"].dropna().unique())), expected="one for each subject",
        )  # fmt: skip
    if "age" in obs:
        ages = obs.groupby("subject")["age"].agg(["min", "max"])
        if len(wide := ages.index[ages["max"] - ages["min"] > 2]):
            raise StudyError(
                "has a subject whose ages do not go together", file=path, where=f"subject {few(wide)}",
                found="{min:g} and {max:g}".format(**ages.loc[wide[0]]), expected="at most two years between visits",
            )  # fmt: skip
    if len(twice := swabbed_twice(obs)):
        same = (twice[["subject", "visit", "site"]] == twice[["subject", "visit", "site"]].iloc[0]).all(axis=1)
        raise StudyError(
            "has two swabs of the same subject, visit and site", file=path, where=f"rows {few(twice.index[same])}",
            found="subject {subject}, {visit}, site {site}".format(**twice.iloc[0]), expected="one",
            fix="give columns.site if the swabs are of different sites; merge or take out replicates",
        )  # fmt: skip


def _follow(obs: pd.DataFrame, steps: list[tuple[str, str, pd.Series]]) -> tuple[pd.Series, pd.DataFrame]:
    """The swabs that pass every step, and the ledger: one row a step, group and visit that had swabs before it."""
    negative = obs["control_type"] == "negative"
    by = pd.DataFrame({c: obs[c].fillna(NOT_RECORDED).astype(str) for c in ("group", "visit")})
    by["group"] = by["group"].mask(negative, NEGATIVE)
    kept, blocks = pd.Series(True, index=obs.index), []
    for step, reason, passes in steps:
        after = kept & (passes | negative)
        block = by[kept].assign(swabs_before=1, swabs_after=after[kept].astype(int))
        block = block.groupby(["group", "visit"], as_index=False).sum()
        blocks.append(block.assign(step=step, reason=reason))
        kept = after
    ledger = pd.concat(blocks, ignore_index=True)
    return kept, ledger[["step", "reason", "group", "visit", "swabs_before", "swabs_after"]]


def _typed(study: Study, obs: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``obs`` in their types and order."""
    obs = obs.copy()
    for name in ("group", "arm", "visit", "control_type"):
        obs[name] = pd.Categorical(obs[name], VOCABULARY[name], ordered=name == "visit")
    obs["lesional"] = obs["lesional"].map({"lesional": True, "non_lesional": False}).astype("boolean")
    for name in obs.columns.difference(["subject", "site", "lesional"]):
        if obs[name].dtype == object:
            obs[name] = pd.Categorical(obs[name], sorted(obs[name].dropna().unique()))
    obs["subject"] = obs["subject"].fillna("").astype(str)
    obs["site"] = obs["site"].astype(str)
    first = ["subject", "group", "arm", "visit", "site", "lesional", "age", "sex", "batch", "control_type"]
    scores = [s.name for s in study.severity]
    return obs[[c for c in (*first, *scores, *study.columns.covariates, "depth") if c in obs]]


def build_cohort(study: Study) -> tuple[AnnData, pd.DataFrame]:
    """Read the study's files, check them, and keep the swabs that can be analysed.

    Parameters
    ----------
    study : Study

    Returns
    -------
    cohort : AnnData
        ``X`` counts (CSR, swabs x features that have reads); ``var`` the seven `RANKS`, "" where not named; ``obs``
        subject, group, arm, visit (ordered), site, lesional (nullable), age, sex, batch, control_type, the severity
        scores, the covariates, and depth (reads), where the study has them. Negative controls stay, as ``control_type``
        ``negative``. ``uns``: ``tree`` (Newick, if there is one), ``study`` and ``checksums`` (JSON).
    ledger : DataFrame
        Columns step, reason, group, visit, swabs_before, swabs_after: a block a step, a row a group and visit.

    Raises
    ------
    StudyError
        Whatever is wrong with the files: the message names the file, the place, what was found and what expected.
    """
    files = study.files.each()
    data = {role: study.read(file) for role, file in files.items()}
    obs = _read_metadata(study, data["metadata"])
    counts = read_counts(study, data["counts"], obs.index)
    _same_samples(study, counts.samples, obs)
    X = counts.X[pd.Index(counts.samples).get_indexer(obs.index)]
    obs["depth"] = np.asarray(X.sum(axis=1)).ravel().astype(int)
    recorded = {c: obs[c].notna() for c in ("group", "visit", "arm", "subject")}
    if study.columns.arm is None:
        recorded["arm"][:] = True
    steps = [
        ("read", "all swabs of the files", pd.Series(True, index=obs.index)),
        ("ignored", "a value that study.yaml leaves out", ~obs["ignored"]),
        ("group", "no group recorded", recorded["group"]),
        ("arm", "no arm recorded", recorded["arm"] | (obs["group"] != "case")),
        ("visit", "no visit recorded", recorded["visit"]),
        ("subject", "no subject recorded", recorded["subject"]),
        ("depth", f"fewer than {study.minimum_depth:,} reads", obs["depth"] >= study.minimum_depth),
    ]
    usable, _ = _follow(obs, steps[:-1])
    _check_design(study, obs[usable & (obs["control_type"] == "sample")])
    kept, ledger = _follow(obs, steps)
    if not (kept & (obs["control_type"] == "sample")).any():
        dropped = (ledger["swabs_before"] - ledger["swabs_after"]).groupby(ledger["reason"]).sum()
        found = "; ".join(f"{reason}: {n}" for reason, n in dropped[dropped > 0].items())
        raise StudyError(
            "leaves no swab", file=study.folder / "study.yaml", found=found, fix="see columns, minimum_depth"
        )
    present = np.asarray(X[kept.to_numpy()].sum(axis=0)).ravel() > 0
    var = read_taxonomy(study, data.get("taxonomy"), counts)
    cohort = AnnData(X[kept.to_numpy()][:, present].tocsr(), obs=_typed(study, obs[kept]), var=var[present])
    if "tree" in data:
        cohort.uns["tree"] = read_tree(study, data["tree"], list(cohort.var_names))
    cohort.uns["study"] = study.model_dump_json()
    checksums = {Path(f.path).name: hashlib.sha256(data[role]).hexdigest() for role, f in files.items()}
    cohort.uns["checksums"] = json.dumps(checksums)
    return cohort, ledger


def save_cohort(cohort: AnnData, results_dir: str | Path, name: str = "cohort") -> Path:
    """Write ``<name>.h5ad``, under another name until it is complete.

    Parameters
    ----------
    cohort : AnnData
    results_dir : str or Path
    name : str, optional
        ``cohort`` (01_ingest), or the name under which a later notebook keeps its own.

    Returns
    -------
    Path
        The file.
    """
    file = Path(results_dir) / f"{name}.h5ad"
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".h5ad.tmp")
    cohort.write_h5ad(unfinished, convert_strings_to_categoricals=False)
    os.replace(unfinished, file)
    return file


def load_cohort(results_dir: str | Path, name: str = "cohort") -> tuple[AnnData, Study]:
    """Read what `save_cohort` wrote.

    Parameters
    ----------
    results_dir : str or Path
    name : str, optional
        ``cohort`` (01_ingest), or the name under which a later notebook keeps its own.

    Returns
    -------
    cohort : AnnData
    study : Study
        As it was when the cohort was built.

    Raises
    ------
    StudyError
        If the cohort is not there.
    """
    file = Path(results_dir) / f"{name}.h5ad"
    if not file.is_file():
        raise StudyError("there is no such file", file=file, fix="run 01_ingest first, then the notebooks in order")
    cohort = ad.read_h5ad(file)
    return cohort, Study.model_validate_json(cohort.uns["study"])
