"""What chapter 1 shows of the cohort: who is in it, contaminants, missing values, integrity."""

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats
from skbio import TreeNode
from tableone import TableOne

from helpers.estimates import pooled_sd
from helpers.ingest import GROUPS, NOT_RECORDED, count_people, follow, in_order, in_several, swabbed_twice
from helpers.study import RANKS, SMALL, VOCABULARY, Privacy, Study
from helpers.tables import few
from helpers.visits import analysis_swabs, who

#: Standardised differences of Table 1: the first minus the second.
CONTRASTS = (*((patients, "control") for patients in GROUPS[1:]), VOCABULARY["arm"])


def characteristics(study: Study) -> list[str]:
    """Columns of Table 1: age, sex, severity, state of the skin, covariates and batch, where the study has them."""
    standard = [c for c in ("age", "sex") if getattr(study.columns, c)]
    batch = ["batch"] if study.columns.batch else []
    lesional = ["lesional"] if study.columns.lesional else []
    return [*standard, *(s.name for s in study.severity), *lesional, *study.columns.covariates, *batch]


def table_one(
    people: pd.DataFrame, columns: Sequence[str], labels: Mapping[str, str], privacy: Privacy | None = None
) -> pd.DataFrame:
    """Table 1: characteristics by group, with standardised mean differences.

    `people` has a row a person: ``who`` (as from `helpers.visits.who`) and the characteristics, `columns`; a number is
    given as mean (SD), anything else as n (%). The differences are of patients minus controls, and of treatment minus
    comparator, as those of `helpers.treatment.balance`, which are of fewer patients. Where `privacy` suppresses small
    cells, counts are hidden or rounded, shares are of rounded counts, and nothing is told of a group of hidden size,
    nor the difference of a characteristic with a hidden count.

    Columns characteristic, level, missing, one a group, and one a standardised difference, at each level of a category.
    A group in which a characteristic was never recorded is blank there.

    References
    ----------
    Pollard et al., JAMIA Open 2018;1:26 (tableone); Austin, Stat Med 2009;28:3083 (differences).
    """
    order = in_order(people["who"])
    # tableone takes no group without values: each set of groups that have a characteristic gets its own call.
    having: dict[tuple[str, ...], list[str]] = {}
    for column in columns:
        recorded = people.loc[people[column].notna(), "who"]
        having.setdefault(tuple(w for w in order if recorded.eq(w).any()), []).append(column)
    sizes = people["who"].value_counts()
    number = pd.DataFrame([{"characteristic": "n", "level": "", "missing": "", **sizes.reindex(order).astype(str)}])
    tables = [_table_one(people[people["who"].isin(g)], names, g) for g, names in having.items() if g]
    table = pd.concat([number, *tables]).drop_duplicates(["characteristic", "level"]).fillna("")
    if privacy is not None and privacy.small_cells == "suppress":
        for group in order:
            table[group] = [_disclosed(cell, sizes[group], privacy) for cell in table[group]]
        table["missing"] = [privacy.shown(float(m)) if m else "" for m in table["missing"]]
    rows = pd.MultiIndex.from_frame(table[["characteristic", "level"]])
    smd = {}
    for first, second in (pair for pair in CONTRASTS if set(pair) <= set(order)):
        # A difference would tell a count that is hidden, at whatever level of the characteristic.
        hidden = table[[first, second]].eq(f"≤{SMALL}").any(axis=1).groupby(table["characteristic"]).transform("any")
        each = differences(people, columns, first, second).reindex(rows).mask(hidden.to_numpy())
        digits = 3 if privacy is None or privacy.small_cells == "show" else 1
        smd[f"SMD: {labels[first]} minus {labels[second]}"] = ["" if np.isnan(d) else f"{d:.{digits}f}" for d in each]
    table = table[["characteristic", "level", "missing", *order]].rename(columns=dict(labels))
    return table.assign(**{name: shown for name, shown in smd.items() if any(shown)})


def differences(people: pd.DataFrame, columns: Sequence[str], first: str, second: str) -> pd.Series:
    """Standardised differences of two groups, by characteristic and level ("" for a number)."""
    found = {}
    for column in columns:
        values = people.loc[people["who"].isin([first, second]), column].dropna()
        if pd.api.types.is_numeric_dtype(values):
            numbers = values.astype(float).to_frame("")
        else:
            numbers = pd.get_dummies(values.astype(object).astype(str), dtype=float)
        who = people.loc[values.index, "who"]
        a, b = numbers[who.eq(first)], numbers[who.eq(second)]
        if len(a) and len(b):
            found[column] = (a.mean() - b.mean()) / pooled_sd(a, b)
    return pd.concat(found) if found else pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []]))


def _disclosed(cell: str, size: int, privacy: Privacy) -> str:
    """A cell of Table 1 (``n``, ``n (%)`` or ``mean (SD)``) of a group of some size with small cells suppressed."""
    if not cell:
        return ""
    if size <= SMALL:
        return privacy.shown(size)
    count = re.fullmatch(r"(\d+)(?: \(\d+\.\d\))?", cell)
    if not count:
        return cell
    shown = privacy.shown(int(count[1]))
    if "(" not in cell or shown.startswith("≤"):
        return shown
    return f"{shown} ({100 * int(shown) / int(privacy.shown(size)):.0f})"


def _table_one(people: pd.DataFrame, columns: list[str], groups: tuple[str, ...]) -> pd.DataFrame:
    numbers = {c: pd.api.types.is_numeric_dtype(people[c]) for c in columns}
    frame = people[["who", *columns]].reset_index(drop=True)
    frame = frame.astype({"who": object} | {c: (float if numbers[c] else object) for c in columns})
    made = TableOne(
        frame, columns=columns, categorical=[c for c in columns if not numbers[c]], groupby="who",
        order={"who": list(groups)}, pval=False, overall=False, label_suffix=False,
    )  # fmt: skip
    flat = made.tableone.droplevel(0, axis=1).rename_axis(["characteristic", "level"]).reset_index()
    return flat.rename(columns={"Missing": "missing"}).astype(str).replace({"nan": "", "None": ""})


def people(obs: pd.DataFrame) -> pd.DataFrame:
    """Count the people of each group (index who: see `helpers.visits.who`): columns of the visits, and both.

    `obs` has a row a swab, its visits a category.
    """
    counts = count_people(obs.assign(who=who(obs)), obs["visit"].cat.categories).drop(columns=["people", "swabs"])
    return counts.loc[in_order(counts.index)]


def flow(
    ledger: pd.DataFrame, cohort: AnnData, swabs: str, rarefaction_depth: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The one flow from all swabs in the files to those that are analysed, and the ledger of all its steps.

    Both as from `helpers.ingest.follow`; `ledger` as from `helpers.ingest.build_cohort`.
    """
    deep = np.ones(cohort.n_obs, bool)
    if not cohort.uns["relative"]:
        deep = np.asarray(cohort.X.sum(axis=1)).ravel() >= rarefaction_depth
    shallow = f"fewer than {rarefaction_depth:,} reads, without contaminants: too few to compare"
    steps = [
        ("swabs", "not of a site known to be lesional at baseline", analysis_swabs(cohort.obs, swabs)),
        ("rarefaction", shallow, pd.Series(deep, index=cohort.obs_names)),
    ]
    _, later, after = follow(cohort.obs, steps, cohort.obs["visit"].cat.categories)
    before = pd.DataFrame(json.loads(cohort.uns["flow"]))
    return pd.concat([before, after], ignore_index=True), pd.concat([ledger, later], ignore_index=True)


def flag_contaminants(cohort: AnnData, alpha: float) -> pd.DataFrame:
    """Features that are in more of the negative controls than of the swabs: decontam's prevalence method.

    A contaminant has a q-value below `alpha`, and a higher mean share of reads in negative controls than in swabs.

    A row a feature, the likeliest contaminants first: prevalence (share of swabs that have it) and mean share of reads
    in negative controls and in swabs, p_value (Fisher's exact test, one-sided), q_value (Benjamini-Hochberg),
    contaminant (bool), and the ranks. Empty where there are no negative controls.

    References
    ----------
    Davis et al., Microbiome 2018;6:226.
    """
    negative = cohort.obs["control_type"].eq("negative").to_numpy()
    columns = ["prevalence_negatives", "prevalence_swabs", "mean_negatives", "mean_swabs", "p_value", "q_value"]
    if not negative.any() or negative.all():
        return pd.DataFrame(columns=[*columns, "contaminant", *RANKS], index=pd.Index([], name="feature"))
    totals = np.asarray(cohort.X.sum(axis=1))
    shares = np.asarray(cohort.X.multiply(1 / np.where(totals > 0, totals, 1)).todense())
    present = shares > 0
    n, in_negatives = len(present), present[negative].sum(axis=0)
    # The upper tail of the hypergeometric distribution is Fisher's one-sided p-value.
    p = np.clip(stats.hypergeom.sf(in_negatives - 1, n, present.sum(axis=0), negative.sum()), 0, 1)
    means = [of[which].mean(axis=0) for of in (present, shares) for which in (negative, ~negative)]
    values = zip(columns, (*means, p, stats.false_discovery_control(p)), strict=True)
    found = pd.DataFrame(dict(values), index=cohort.var_names.rename("feature"))
    found["contaminant"] = (found["q_value"] < alpha) & (found["mean_negatives"] > found["mean_swabs"])
    found = found.join(cohort.var[list(RANKS)])
    return found.sort_values(["p_value", "mean_negatives", "feature"], ascending=[True, False, True])


def without_contaminants(cohort: AnnData, alpha: float) -> tuple[AnnData, pd.DataFrame]:
    """The swabs that are analysed: without negative controls, and without what these show to be contaminants.

    With the latter, as from `flag_contaminants`.
    """
    found = flag_contaminants(cohort, alpha)
    flagged = found.index[found["contaminant"].astype(bool)]
    return cohort[cohort.obs["control_type"].eq("sample"), ~cohort.var_names.isin(flagged)].copy(), found


def share_of_reads(cohort: AnnData, features: Sequence[str]) -> float:
    """Per cent of the swabs' reads that are of some features."""
    swabs = cohort[cohort.obs["control_type"].eq("sample")]
    return float(100 * swabs[:, list(features)].X.sum() / swabs.X.sum())


def integrity_checks(cohort: AnnData) -> pd.DataFrame:
    """The checks of the pipeline, done again on the cohort: columns check, result (``pass`` or ``fail``), detail."""
    study = Study.model_validate_json(cohort.uns["study"])
    obs = cohort.obs[cohort.obs["control_type"] == "sample"]
    about = obs["group"].eq("case") & obs["visit"].isin(VOCABULARY["visit"])
    patients = obs[about].groupby("subject")["visit"].nunique()
    counts, shown, both = cohort.X.data, study.privacy.shown, (patients == 2).sum()
    of_both = f"{shown(both)} of {shown(len(patients))}"
    checks = [
        ("One swab a subject, visit and site", not len(swabbed_twice(obs)), f"{shown(len(obs))} swabs"),
        ("Each subject in one group", not in_several(obs, "group"), f"{shown(obs['subject'].nunique())} subjects"),
        ("Each subject in one arm", not in_several(obs, "arm"), f"{shown(len(patients))} patients"),
        ("Patients at baseline and follow-up", both > 0, f"{of_both} patients have swabs of both visits"),
    ]
    if study.counted:
        whole = bool(((counts >= 0) & (counts % 1 == 0)).all())
        checks.append(("Counts are whole and not negative", whole, f"{counts.sum():,.0f} reads"))
    else:
        checks.append(("Shares are not negative", bool((counts >= 0).all()), "relative abundances, no reads"))
    for score in study.severity:
        low, high = score.range
        values = obs[score.name].dropna()
        detail = f"values of {shown(len(values))} swabs" if len(values) else "no values"
        checks.append((f"{score.label} within {low:g} to {high:g}", values.between(low, high).all(), detail))
        several = obs.groupby(["subject", "visit"], observed=True)[score.name].nunique() > 1
        detail = f"several values at the visits of {shown(several.sum())} subjects" if several.any() else "one each"
        checks.append((f"One {score.label} value a subject and visit", not several.any(), detail))
    if "tree" in cohort.uns:
        tree = TreeNode.read([cohort.uns["tree"]], format="newick", convert_underscores=False)
        tips = {tip.name for tip in tree.tips()}
        known = tips <= set(cohort.var_names)
        checks.append(("Tips of the tree are features", known, f"{len(tips)} tips; {tree_differs(cohort)}"))
    table = pd.DataFrame(checks, columns=["check", "result", "detail"])
    return table.assign(result=np.where(table["result"].astype(bool), "pass", "fail"))


def tree_differs(cohort: AnnData) -> str:
    """In which tips and features the tree and the counts differ, in words."""
    differs = json.loads(cohort.uns["tree_differs"])
    without, others = differs["without_tip"], differs["other_tips"]
    told = []
    if without:
        lost = cohort[:, cohort.var_names.isin(without)].X.sum() / cohort.X.sum()
        which = f"{len(without)} features without a tip ({few(without)}) with {100 * lost:.2g} % of the reads"
        told.append(f"{which}, which count for nothing in Faith's PD and UniFrac")
    if others:
        told.append(f"{len(others)} tips of the file that are no feature ({few(others)}), left out")
    return "; ".join(told) or "every feature has one"


def missingness(cohort: AnnData) -> pd.DataFrame:
    """How much of each column is missing, by group; negative controls aside, and the arm of patients only.

    Columns column, group, n_missing (swabs), n (swabs), per_cent.
    """
    obs = cohort.obs[cohort.obs["control_type"] == "sample"]
    rows = []
    for column in obs.columns.drop(["group", "control_type"]):
        for group, values in obs.groupby("group", observed=True)[column]:
            if (column, group) != ("arm", "control"):
                missing = int((values.isna() | values.astype(object).eq(NOT_RECORDED).fillna(False)).sum())
                rows.append((column, group, missing, len(values), 100 * missing / len(values)))
    return pd.DataFrame(rows, columns=["column", "group", "n_missing", "n", "per_cent"])
