"""How the report's tests and intervals do on simulated cohorts of known truth."""

from pathlib import Path

import pandas as pd

from helpers.claims import CLAIMS
from helpers.figures import italicise
from helpers.files import DEMO, VALIDATION
from helpers.narrate import interval, italicised, number
from helpers.output import emphasised, save_figure, save_table, table_html
from helpers.site.figures import validation
from helpers.site.pages import Run, figure_html, raw

#: The measures of that table in words.
MEASURES = {
    "shannon": "Shannon",
    "genus_clr": "Staphylococcus",
    "pathogen_clr": "S. aureus",
    "distance_to_healthy": "distance to healthy",
    "easi": "EASI",
    "oscorad": "oSCORAD",
}
_TAXA = (MEASURES["genus_clr"], MEASURES["pathogen_clr"])


def page(run: Run) -> str:
    """The page, if `make validate` was ever run; for the demo cohort with its own estimates beside the truth.

    Returns
    -------
    str
        Empty without the table.
    """
    if not VALIDATION.is_file():
        return ""
    known = pd.read_csv(VALIDATION, sep="\t").fillna({"id": ""}).replace({"measure": MEASURES}, regex=True)
    return validation_page(known, run.parts if run.study.folder == DEMO else None, run.files)


def off_target(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Tests and intervals that the simulations show to be off.

    Parameters
    ----------
    table : DataFrame
        As from `helpers.simulation.performance.summarise`.
    alpha : float
        Level of the tests.

    Returns
    -------
    DataFrame
        Rows of `table` with a type I error above 0.07 (where nothing has an effect) or a coverage under 0.93, by more
        than two Monte-Carlo standard errors from the nominal value.
    """
    error = table["scenario"].eq("no effect") & (table["rejected"] > 0.07)
    error &= table["rejected"] - 2 * table["rejected_error"] > alpha
    missed = (table["coverage"] < 0.93) & (table["coverage"] + 2 * table["coverage_error"] < 1 - alpha)
    return table[error | missed]


def validation_page(table: pd.DataFrame, parts: pd.DataFrame | None, files: Path) -> str:
    """The page that says how the report's tests and intervals do on simulated cohorts of known truth.

    Parameters
    ----------
    table : DataFrame
        As from `helpers.simulation.performance.summarise`.
    parts : DataFrame, optional
        What was estimated of the demo cohort itself, to be laid beside the truth.
    files : Path
        Of the site's downloads.

    Returns
    -------
    str
        Markdown.
    """
    alpha = 0.05
    fig = validation(table, alpha)
    italicise(fig, _TAXA)
    save_figure(fig, files, "validation", simulated=True)
    save_table(table, files, "validation")
    runs = int(table["runs"].max())
    null = table[table["scenario"].eq("no effect")]
    supported = null[["id", "supported"]].groupby("id")["supported"].sum().drop("", errors="ignore")
    wrong = off_target(table, alpha)
    told = [
        f"<li>{emphasised(italicised(f'{row.id} {row.measure}'.strip(), _TAXA))} ({row.scenario}): "
        f"rejects in {number(100 * row.rejected)} %, interval holds the truth in {number(100 * row.coverage)} %</li>"
        for row in wrong.itertuples()
    ]
    verdict = f"Off are:<ul>{''.join(told)}</ul>" if told else "None is off."
    shown = table[table["id"].ne("")]
    wide = shown.pivot_table(index=["id", "measure"], columns="scenario", values=["rejected", "coverage"], sort=False)
    truth = shown[shown["scenario"].eq("demo")].set_index(["id", "measure"])
    columns = {
        "Claim": [i for i, _ in wide.index],
        "Measure": [m for _, m in wide.index],
        "Type I error (%)": [number(100 * v) for v in wide["rejected"]["no effect"]],
        "Power, demo (%)": [number(100 * v) for v in wide["rejected"]["demo"]],
        "Coverage, demo (%)": [number(100 * v) for v in wide["coverage"]["demo"]],
        "Truth, demo": [number(v) for v in truth.loc[wide.index, "target"]],
        "Mean estimate": [number(v) for v in truth.loc[wide.index, "mean_estimate"]],
    }
    caption = (
        f"Each claim's test on {runs} simulated cohorts a scenario. The Monte-Carlo standard error of a share of 5 % "
        f"is {number(100 * (0.05 * 0.95 / runs) ** 0.5)} points."
    )
    about = (
        "<p><b>SIMULATED.</b> How do the tests and intervals of this report do where the truth is known? Cohorts of "
        "the demo study's design are simulated in three worlds: <i>no effect</i> (neither disease nor drugs act on the "
        "skin), <i>no treatment effect</i> (patients differ from controls, the drugs do nothing), and <i>demo</i> (the "
        "parameters in truth.yaml). Each is analysed as the chapters do. The truth of an estimate is its value in a "
        "great many pooled cohorts; that of the arms' contrasts and of the direct and indirect effect is what the "
        "drugs do when each patient is given the one and then the other, averaged over those who could have had "
        "either. Written by <code>make validate</code>.</p>"
        f"<p>On cohorts without any effect, {number(100 * supported.mean())} % of the claims are called supported.</p>"
        f"<p>A test is called off if its type I error is above 7 %, an interval if it holds the truth in less than "
        f"93 %, both by more than two Monte-Carlo standard errors. {verdict}</p>"
    )
    alt = f"Rejections and coverage of every test in three simulated worlds. {len(wrong)} of {len(table)} are off."
    figure = figure_html(
        "validation",
        alt,
        "A: share of cohorts in which the test rejects at 5 %: type I error in the world without any effect, else "
        "power. B: share in which the 95 % interval holds the truth. Bars: two Monte-Carlo standard errors.",
        files,
        "tables/validation.tsv",
    )
    body = table_html(columns, set(list(columns)[2:]), caption, taxa=_TAXA)
    demo = [] if parts is None else ["## This cohort against its truth", raw(_against_truth(parts, truth))]
    return "\n\n".join(["# Validation on simulated cohorts", raw(about), raw(body), raw(figure), *demo]) + "\n"


def _against_truth(parts: pd.DataFrame, truth: pd.DataFrame) -> str:
    """The claims' estimates of the demo cohort, their intervals, and whether these hold the truth."""
    keys = ["id", "part"]
    rows = parts.assign(part=parts.groupby("id").cumcount())
    known = truth.reset_index()
    known = known.assign(part=known.groupby("id").cumcount())
    both = rows.merge(known[[*keys, "target"]], on=keys, validate="one_to_one").sort_values(
        "id", key=lambda ids: ids.map({claim: i for i, claim in enumerate(CLAIMS)}), kind="stable"
    )
    holds = (both["ci_low"] <= both["target"]) & (both["target"] <= both["ci_high"])
    columns = {
        "Claim": list(both["id"]),
        "Measure": [f"{m} ({u})" if u else m for m, u in zip(both["measure"], both["unit"], strict=True)],
        "Estimate": [number(v) for v in both["estimate"]],
        "Interval": [interval(*span) for span in zip(both["ci_low"], both["ci_high"], strict=True)],
        "Truth": [number(v) for v in both["target"]],
        "Holds the truth": ["yes" if held else "no" for held in holds],
    }
    caption = f"{holds.sum()} of {len(both)} intervals of the simulated demo cohort hold the truth."
    return table_html(columns, {"Estimate", "Truth"}, caption, taxa=_TAXA)
