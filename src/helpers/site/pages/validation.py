"""How the report's tests and intervals do on simulated cohorts of known truth."""

from pathlib import Path

import pandas as pd

from helpers.claims import KEY, SUPPORTED
from helpers.evidence import CONTRASTS, Asked
from helpers.figures import italicise
from helpers.files import VALIDATION
from helpers.measures import find, taxa_named
from helpers.narrate import interval, number, with_unit
from helpers.output import SCREEN, save_figure, save_table, table_html
from helpers.simulation.performance import CHANGED, FALSE, FAMILY, JOINT, JOINT_SHARE, ROW, read_table
from helpers.simulation.worlds import DEMO_WORLD, NO_EFFECT, SCENARIOS
from helpers.site.figures import validation
from helpers.site.pages import Run, figure_html, fold_html, prose, raw
from helpers.study import Study, load_study


def validated() -> pd.DataFrame | None:
    """What `make validate` found, if it was ever run."""
    return read_table(VALIDATION) if VALIDATION.is_file() else None


def page(run: Run) -> str:
    """The page, empty if `make validate` was never run; for the demo cohort with its own estimates beside the truth.

    The simulated arms and groups are called as those of the study that stand for them.
    """
    if (table := validated()) is None:
        return ""
    parts = run.parts if run.study.folder == VALIDATION.parent else None
    like = load_study(VALIDATION.parent).model_copy(update={"labels": run.study.labels})
    return validation_page(table, like, parts, run.files)


def named(row: pd.Series, like: Study) -> str:
    """A row, which has `ROW`, in words: what was estimated, in whom, and how if not as the claims are."""
    who = like.labels.model_dump().get(row["arm"], "")
    if not row["measure"]:
        return ", ".join(filter(None, [f"{row['estimator']}: {row['contrast']}", who]))
    asked = Asked(*row[list(Asked._fields)])
    told = CONTRASTS[asked.contrast].what(find(asked.measure, like).label, asked, like)
    if row["claim"]:
        return f"{row['claim']} {told}"
    return f"{told}: {row['estimator']}" + (", bootstrap" if row["interval"] == "bootstrap" else "")


def of_nothing(table: pd.DataFrame) -> pd.Series:
    """Which rows are of something that there is not, in whichever world, so that whoever rejects errs."""
    none = table["target"].eq(0) & table["target_error"].eq(0)  # by construction, not by estimation
    none |= table["scenario"].eq(NO_EFFECT) & table["target"].isna()
    return none & table["margin"].isna() | table["estimator"].isin([FALSE, FAMILY])


def off_target(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Tests and intervals that the simulations show to be off.

    Rows of `table` with a type I error above 0.07 (where there is nothing to be found), or whose intervals hold the
    truth by 0.02 less often than they should (``misses``), by more than two Monte-Carlo standard errors from the
    nominal value.
    """
    error = of_nothing(table) & (table["rejected"] > 0.07)
    error &= table["rejected"] - 2 * table["rejected_error"] > alpha
    short = table["level"] - table["coverage"]
    misses = (short > 0.02) & (short > 2 * table["coverage_error"])
    return table.assign(misses=misses)[error | misses]


def off_claims(table: pd.DataFrame) -> dict[str, str]:
    """Of each claim whose test does not hold in a simulated world, what is off in the first such world."""
    wrong = off_target(table[table["claim"].ne("")], load_study(VALIDATION.parent).settings.alpha)
    told: dict[str, list[str]] = {}
    for row in wrong.itertuples():
        holds = f"the interval holds the truth in {number(100 * row.coverage)} %"
        off = holds if row.misses else f"the test rejects in {number(100 * row.rejected)} %"
        told.setdefault(row.claim, []).append(f"{off} (world: {row.scenario}")
    more = {claim: f", and {len(each) - 1} more" if len(each) > 1 else "" for claim, each in told.items()}
    return {claim: f"{each[0]}{more[claim]})" for claim, each in told.items()}


def validation_page(table: pd.DataFrame, like: Study, parts: pd.DataFrame | None, files: Path) -> str:
    """The page that says how the report's tests and intervals do on simulated cohorts of known truth, as Markdown.

    `table` as from `helpers.simulation.performance.summarise`; `parts`, as from `helpers.evidence.gather`, what was
    estimated of the demo cohort itself, to be laid beside the truth.
    """
    alpha, taxa = like.settings.alpha, taxa_named(table["measure"], like)
    table = table.assign(name=[named(row, like) for _, row in table.iterrows()])
    fig = validation(table, alpha)
    italicise(fig, taxa)
    save_figure(fig, files, "validation", simulated=True, dpi=SCREEN)
    save_table(table.drop(columns="name"), files, "validation")
    runs = int(table["runs"].max())
    null = table[of_nothing(table) & table["claim"].ne("")]
    supported = null[null["scenario"].eq(NO_EFFECT)].groupby("claim")[SUPPORTED].sum().mean()
    worst = null.loc[null.groupby(list(ROW))["rejected"].idxmax(), [*ROW, "rejected", "runs"]]
    wrong = off_target(table, alpha)
    family = table[table["estimator"].eq(FAMILY)]
    in_worst = family.loc[family.groupby("contrast", sort=False)["rejected"].idxmax()]
    demo = table[table["scenario"].eq(DEMO_WORLD)]
    shown = demo[demo["claim"].ne("")].merge(worst, "left", list(ROW), suffixes=("", "_null"))
    columns = {
        "Claim": list(shown["claim"]),
        "Measure": [name.removeprefix(f"{claim} ") for claim, name in zip(shown["claim"], shown["name"], strict=True)],
        "Type I error (%)": _shown(100 * shown["rejected_null"]),
        "of cohorts": _shown(shown["runs_null"]),
        "Rejects, demo (%)": _shown(100 * shown["rejected"]),
        "Coverage, demo (%)": _shown(100 * shown["coverage"]),
        "Truth, demo": _shown(shown["target"]),
        "Mean estimate": _shown(shown["mean_estimate"]),
    }
    shares = table.assign(share=100 * table["rejected"]).set_index("estimator")
    false = shares[shares.index == FALSE].nlargest(1, "share").to_dict("records")
    changed = shares[(shares.index == CHANGED) & shares["scenario"].eq(DEMO_WORLD)]
    about = prose(
        "validation",
        off=len(wrong),
        all=len(table),
        worlds=SCENARIOS,
        supported=supported,
        false_share=false[0] if false else None,
        found=changed.set_index("contrast")["share"].to_dict(),
        joint=table[table["estimator"].isin([JOINT, JOINT_SHARE]) & of_nothing(table) & table["runs"].gt(0)],
        families=in_worst.to_dict("records"),
    )
    alt = f"Rejections and coverage of every test in {len(SCENARIOS)} simulated worlds."
    of_claims, of_figure = (prose("validation_captions", of=of, runs=runs, alpha=alpha) for of in ("claims", "figure"))
    figure = figure_html("validation", alt, of_figure, files, "tables/validation.tsv")
    body = table_html(columns, set(list(columns)[2:]), of_claims, taxa=taxa)
    against = [] if parts is None else ["## This cohort against its truth", raw(_against_truth(parts, demo, like))]
    blocks = map(raw, (about, _off(wrong, taxa), body, fold_html("Every test and interval", figure)))
    return "\n\n".join(["# Validation on simulated cohorts", *blocks, *against]) + "\n"


def _off(wrong: pd.DataFrame, taxa: list[str]) -> str:
    """What the simulations show to be off, a table to be searched; nothing if nothing is."""
    columns = {
        "Off": list(wrong["name"]),
        "World": list(wrong["scenario"]),
        "Rejects (%)": _shown(100 * wrong["rejected"]),
        "Holds the truth (%)": _shown(100 * wrong["coverage"]),
    }
    return table_html(columns, set(list(columns)[2:]), "What is off", taxa) if len(wrong) else ""


def _against_truth(parts: pd.DataFrame, demo: pd.DataFrame, like: Study) -> str:
    """The claims' estimates of the demo cohort, their intervals, and whether these hold the truth."""
    keys = [*KEY, "estimator"]
    known = demo.loc[demo["interval"].eq("model"), [*keys, "target"]]
    both = parts.merge(known, how="left", on=keys, validate="one_to_one")
    names = [named(row, like).removeprefix(f"{row['claim']} ") for _, row in both.iterrows()]
    told = both["target"].notna()
    holds = both["target"].between(both["ci_low"], both["ci_high"])
    columns = {
        "Claim": list(both["claim"]),
        "Measure": list(map(with_unit, names, both["unit"])),
        "Estimate": _shown(both["estimate"]),
        "Interval": [interval(*span) for span in zip(both["ci_low"], both["ci_high"], strict=True)],
        "Truth": _shown(both["target"]),
        "Holds the truth": ["yes" if held else "no" if has else "–" for held, has in zip(holds, told, strict=True)],
    }
    caption = f"{holds.sum()} of {told.sum()} intervals of the simulated demo cohort hold the truth."
    if not told.all():
        caption += f" {(~told).sum()} were not simulated: `make validate` tells their truth."
    return table_html(columns, {"Estimate", "Truth"}, caption, taxa=taxa_named(parts["measure"], like))


def _shown(values: pd.Series) -> list[str]:
    return ["–" if pd.isna(value) else number(value) for value in values]
