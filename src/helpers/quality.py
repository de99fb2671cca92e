"""What chapter 1 shows of the cohort: who is in it, contaminants, missing values, integrity, checksums."""

import json
import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats
from skbio import TreeNode
from tableone import TableOne

from helpers.ingest import NOT_RECORDED, in_several, swabbed_twice
from helpers.study import RANKS, SMALL, VOCABULARY, Privacy, Study
from helpers.tables import few
from helpers.visits import who


def characteristics(study: Study) -> list[str]:
    """Columns of Table 1: age, sex, severity, state of the skin, covariates and batch, where the study has them."""
    standard = [c for c in ("age", "sex") if getattr(study.columns, c)]
    batch = ["batch"] if study.columns.batch else []
    lesional = ["lesional"] if study.columns.lesional else []
    return [*standard, *(s.name for s in study.severity), *lesional, *study.columns.covariates, *batch]


def table_one(
    people: pd.DataFrame, columns: Sequence[str], order: Sequence[str], privacy: Privacy | None = None
) -> pd.DataFrame:
    """Table 1: characteristics by group, with standardised mean differences between each two groups.

    Parameters
    ----------
    people : DataFrame
        One row a person: ``group`` (display name) and `columns`.
    columns : sequence of str
        Characteristics; a number is given as mean (SD), anything else as n (%).
    order : sequence of str
        The groups, in order.
    privacy : Privacy, optional
        Where it suppresses small cells, counts are hidden or rounded, shares are of rounded counts, and of a group of
        hidden size nothing is told.

    Returns
    -------
    DataFrame
        Columns characteristic, level, missing, one a group, and one a standardised difference. A group in which a
        characteristic was never recorded is blank there.

    References
    ----------
    Pollard et al., JAMIA Open 2018;1:26 (tableone).
    """
    # tableone takes no group without values: each set of groups that have a characteristic gets its own call.
    having: dict[tuple[str, ...], list[str]] = {}
    for column in columns:
        recorded = people.loc[people[column].notna(), "group"]
        having.setdefault(tuple(g for g in order if recorded.eq(g).any()), []).append(column)
    sizes = people["group"].value_counts()
    number = pd.DataFrame([{"characteristic": "n", "level": "", "missing": "", **sizes.reindex(order).astype(str)}])
    tables = [_table_one(people[people["group"].isin(g)], names, g) for g, names in having.items() if g]
    table = pd.concat([number, *tables]).drop_duplicates(["characteristic", "level"])
    smd = [c for pair in combinations(order, 2) if (c := _smd(*pair)) in table]
    if privacy is not None and privacy.small_cells == "suppress":
        for group in (g for g in order if g in table):
            table[group] = [_disclosed(cell, sizes[group], privacy) for cell in table[group].fillna("")]
        table["missing"] = [privacy.shown(float(m)) if m else "" for m in table["missing"].fillna("")]
        hidden = [g for g in order if sizes.get(g, 0) <= SMALL]
        for column in (c for c in smd if any(g in c for g in hidden)):
            table[column] = ""
    return table[["characteristic", "level", "missing", *(g for g in order if g in table), *smd]].fillna("")


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


def _smd(first: str, second: str) -> str:
    return f"SMD: {first}, {second}"


def _table_one(people: pd.DataFrame, columns: list[str], groups: tuple[str, ...]) -> pd.DataFrame:
    numbers = {c: pd.api.types.is_numeric_dtype(people[c]) for c in columns}
    frame = people[["group", *columns]].reset_index(drop=True)
    frame = frame.astype({c: (float if numbers[c] else object) for c in columns})
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant has no standardised difference
        made = TableOne(
            frame, columns=columns, categorical=[c for c in columns if not numbers[c]], groupby="group",
            order={"group": list(groups)}, smd=len(groups) > 1, pval=False, overall=False, label_suffix=False,
        )  # fmt: skip
    flat = made.tableone.copy()
    names = {f"SMD ({a},{b})": _smd(a, b) for a, b in combinations(groups, 2)}
    flat.columns = [names.get(str(c[-1]), str(c[-1])) for c in flat.columns]
    flat.index = flat.index.set_names(["characteristic", "level"])
    return flat.reset_index().rename(columns={"Missing": "missing"}).astype(str).replace({"nan": "", "None": ""})


def people(obs: pd.DataFrame) -> pd.DataFrame:
    """Count the people of each group at each visit.

    Parameters
    ----------
    obs : DataFrame
        One row a swab.

    Returns
    -------
    DataFrame
        Indexed by who (see `helpers.visits.who`): baseline, followup, both.
    """
    once = obs.assign(who=who(obs)).drop_duplicates(["subject", "visit"])
    table = pd.crosstab(once["who"], once["visit"]).reindex(columns=list(VOCABULARY["visit"]), fill_value=0)
    twice = once[once.duplicated("subject")]["who"].value_counts()
    order = [w for w in ("control", *VOCABULARY["arm"], "case") if w in table.index]
    return table.assign(both=twice).fillna(0).astype(int).rename_axis(columns=None).loc[order]


def checksums(cohort: AnnData) -> pd.DataFrame:
    """SHA-256 of the files that the cohort was read from.

    Returns
    -------
    DataFrame
        Columns file and sha256.
    """
    return pd.DataFrame(json.loads(cohort.uns["checksums"]).items(), columns=["file", "sha256"])


def flag_contaminants(cohort: AnnData, alpha: float) -> pd.DataFrame:
    """Features that are in more of the negative controls than of the swabs: decontam's prevalence method.

    Parameters
    ----------
    cohort : AnnData
    alpha : float
        A contaminant has a q-value below it, and a higher mean share of reads in negative controls than in swabs.

    Returns
    -------
    DataFrame
        A row a feature, the likeliest contaminants first: prevalence (share of swabs that have it) and mean share of
        reads in negative controls and in swabs, p_value (Fisher's exact test, one-sided), q_value
        (Benjamini-Hochberg), contaminant (bool), and the ranks. Empty where there are no negative controls.

    References
    ----------
    Davis et al., Microbiome 2018;6:226.
    """
    negative = (cohort.obs["control_type"] == "negative").to_numpy()
    columns = ["prevalence_negatives", "prevalence_swabs", "mean_negatives", "mean_swabs", "p_value", "q_value"]
    if not negative.any() or negative.all():
        return pd.DataFrame(columns=[*columns, "contaminant", *RANKS], index=pd.Index([], name="feature"))
    totals = np.asarray(cohort.X.sum(axis=1))
    shares = np.asarray(cohort.X.multiply(1 / np.where(totals > 0, totals, 1)).todense())
    present = shares > 0
    n, in_negatives = len(present), present[negative].sum(axis=0)
    # The upper tail of the hypergeometric distribution is Fisher's one-sided p-value.
    p = stats.hypergeom.sf(in_negatives - 1, n, present.sum(axis=0), negative.sum())
    p = np.clip(p, 0, 1)
    found = pd.DataFrame(
        {
            "prevalence_negatives": present[negative].mean(axis=0),
            "prevalence_swabs": present[~negative].mean(axis=0),
            "mean_negatives": shares[negative].mean(axis=0),
            "mean_swabs": shares[~negative].mean(axis=0),
            "p_value": p,
            "q_value": stats.false_discovery_control(p),
        },
        index=cohort.var_names.rename("feature"),
    )
    found["contaminant"] = (found["q_value"] < alpha) & (found["mean_negatives"] > found["mean_swabs"])
    found = found.join(cohort.var[list(RANKS)])
    return found.sort_values(["p_value", "mean_negatives", "feature"], ascending=[True, False, True])


def without_contaminants(cohort: AnnData, alpha: float) -> tuple[AnnData, pd.DataFrame]:
    """The swabs that are analysed: without negative controls, and without what these show to be contaminants.

    Parameters
    ----------
    cohort : AnnData
        As from `helpers.ingest.build_cohort`.
    alpha : float

    Returns
    -------
    clean : AnnData
    found : DataFrame
        As from `flag_contaminants`.
    """
    found = flag_contaminants(cohort, alpha)
    flagged = found.index[found["contaminant"].astype(bool)]
    return cohort[cohort.obs["control_type"].eq("sample"), ~cohort.var_names.isin(flagged)].copy(), found


def integrity_checks(cohort: AnnData) -> pd.DataFrame:
    """The checks of the pipeline, done again on the cohort.

    Returns
    -------
    DataFrame
        Columns check, result (``pass`` or ``fail``), detail.
    """
    study = Study.model_validate_json(cohort.uns["study"])
    obs = cohort.obs[cohort.obs["control_type"] == "sample"]
    patients = obs[obs["group"] == "case"].groupby("subject")["visit"].nunique()
    counts, shown = cohort.X.data, study.privacy.shown
    checks = [
        ("One swab a subject, visit and site", not len(swabbed_twice(obs)), f"{shown(len(obs))} swabs"),
        ("Each subject in one group", not in_several(obs, "group"), f"{shown(obs['subject'].nunique())} subjects"),
        ("Each subject in one arm", not in_several(obs, "arm"), f"{shown(len(patients))} patients"),
        (
            "Patients at baseline and follow-up",
            (patients == 2).any(),
            f"{shown((patients == 2).sum())} of {shown(len(patients))} patients have swabs of both visits",
        ),
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
    """In which tips and features the tree and the counts differ, in words.

    Parameters
    ----------
    cohort : AnnData
        With a tree.
    """
    differs = json.loads(cohort.uns["tree_differs"])
    without, others = differs["without_tip"], differs["other_tips"]
    told = []
    if without:
        lost = cohort[:, cohort.var_names.isin(without)].X.sum() / cohort.X.sum()
        told.append(
            f"{len(without)} features without a tip ({few(without)}) with {100 * lost:.2g} % of the reads, which count "
            "for nothing in Faith's PD and UniFrac"
        )
    if others:
        told.append(f"{len(others)} tips of the file that are no feature ({few(others)}), left out")
    return "; ".join(told) or "every feature has one"


def missingness(cohort: AnnData) -> pd.DataFrame:
    """How much of each column is missing, by group; negative controls aside, and the arm of patients only.

    Returns
    -------
    DataFrame
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
