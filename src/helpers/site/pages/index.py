"""The index page: the study in one picture, four sentences and one table; all else is behind the links."""

import html
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import plain
from helpers.claims import CONTRADICTED, NOT_TESTABLE, OUT_OF_REACH, SUPPORTED, VERDICTS, claims_of, primary
from helpers.disclosure import in_text
from helpers.evidence import Data
from helpers.figures import italicise
from helpers.files import CLAIMS_TABLE, NOTEBOOKS, TABLES
from helpers.measures import PATHOGEN, POSITION, SHANNON, axis, taxa_named
from helpers.narrate import italicised, most_differ, suppression
from helpers.output import emphasised, framed, save_figure, saved_table
from helpers.site.figures import claims_forest, overview
from helpers.site.pages import Run, figure_html, fold_html, raw, text_html
from helpers.site.pages.cards import FOLDER, counts
from helpers.study import Study

FOREST, OVERVIEW = "claims", "overview"
#: Figures that the site draws of its own.
DRAWN = (FOREST, OVERVIEW)
PROVENANCE = (
    '<p>Code, parameters, input files, software: <a href="provenance.html">where this report comes from</a>.</p>'
)
#: Headings of the table of claims, after the claim itself.
HEADS = ("Verdict", "Effect (interval)", "n", "Agree", "Could show")
#: What there is to download, by the paths.
DOWNLOADS = {
    "Claims": "claims.*",
    "Specifications": "*.tsv.gz",
    "Tables": f"{TABLES}/*",
    "Executed notebooks": f"{NOTEBOOKS}/*",
}


def draw(claims: pd.DataFrame, study: Study, results: Path, data: Data | None) -> None:
    """Draw and save the forest of the claims, and the study in one picture: its first measure that is known."""
    drawn = {FOREST: claims_forest(by_family(claims, study), study.labels.control)}
    if (measure := _shown_measure(data)) and study.privacy.small_cells == "show":
        assert data is not None
        label = axis(measure, study)
        if measure == POSITION:
            label = f"From {study.labels.control} (0) to {study.labels.case} at {study.labels.baseline} (100 %)"
        drawn[OVERVIEW] = overview(data.visits, measure, study.labels.model_dump(), label)
    for name, fig in drawn.items():
        italicise(fig, taxa_named(claims["measure"], study))
        save_figure(fig, results, name, simulated=study.simulated)


def _shown_measure(data: Data | None) -> str:
    """The measure of the picture: the first of three of which anything is known."""
    if data is None:
        return ""
    return next((m for m in (POSITION, PATHOGEN, SHANNON) if m in data.visits and data.visits[m].notna().any()), "")


def page(run: Run, others: list[str]) -> str:
    """The page; `others` are the names of the pages that follow the chapters."""
    study, claims, taxa = run.study, run.claims, taxa_named(run.claims["measure"], run.study)
    private = study.privacy.small_cells != "show"
    picture = "" if private or not _shown_measure(run.data) else _picture(run)
    said = [emphasised(italicised(in_text(told, study.privacy), taxa)) for told in answers(run)]
    sentences = "".join(f"<li>{told}</li>" for told in said)
    lead = (
        f'<div class="in-short"><p class="study-title">{html.escape(study.title)}</p>\n<p>{studied(run)}</p>'
        f'<div class="lead">{picture}<ul>{sentences}</ul></div></div>'
    )
    about = (
        f"<p>{emphasised(study.about)}</p>\n"
        f"<p>Source: {html.escape(study.source)}<br>Licence: {html.escape(study.licence)}</p>\n"
        f"{text_html(suppression(study))}"
    )
    found = ", ".join(f"{row.id} {row.verdict}" for row in claims.itertuples())
    caption = (
        f"In SD of {study.labels.control} (severity: ρ). Filled: shown; cross: contrary; open: neither; "
        "diamond: out of reach; grey: margin. Intervals: 95 %, of no change 90 %."
    )
    forest = figure_html(FOREST, f"Forest plot of the claims' effects. {found}.", caption, run.files, CLAIMS_TABLE)
    forest = forest if claims["sd"].notna().any() else ""  # without controls there is no common scale
    cards = [f"{row.id} {row.verdict} <{FOLDER}/{row.id}>" for row in claims.itertuples()]
    return "\n\n".join(
        [
            "---\nhtml_theme.sidebar_secondary.remove: true\n---",
            "# Overview",  # not the study's title: the theme repeats this heading without escaping it
            raw(lead),
            "## The claims",
            raw(claims_html(run, taxa)),
            raw(forest) if forest else "",
            "## The study",
            raw(fold_html("What was studied, source and licence", about)),
            "## Downloads",
            raw(fold_html("Claims, tables and executed notebooks", _downloads(run.files))),
            raw(PROVENANCE),
            _contents("Claims", cards),
            _contents("Chapters", run.chapters),
            _contents("About the report", others),
        ]
    )


def _contents(caption: str, pages: list[str]) -> str:
    return f"```{{toctree}}\n:hidden:\n:maxdepth: 1\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```"


def _picture(run: Run) -> str:
    alt = f"Both arms at both visits over the band of {run.study.labels.control}. {' '.join(answers(run)[:2])}"
    caption = "Means, 95 % intervals."
    healthy = 0 if run.data is None else run.data.visits.query("who == 'control' and visit == 'baseline'").shape[0]
    caption += f" Band: middle half of {run.study.labels.control} (n = {healthy})." if healthy else ""
    return figure_html(OVERVIEW, alt, caption, run.files, CLAIMS_TABLE)


def studied(run: Run) -> str:
    """Say who was studied, as HTML: the people of each group by visit, as chapter 1 counted them, if it did."""
    labels, people = run.study.labels, saved_table(run.report.results, "01_people")
    each = [f"{r.group} {r.baseline} and {r.followup} ({r.both})" for r in people.itertuples()]
    kind = "<b>Simulated data.</b> " if run.study.simulated else ""
    told = f"People at {labels.baseline} and {labels.followup} (at both): {'; '.join(each)}." if each else ""
    return f"{kind}{html.escape(told)}"


def answers(run: Run) -> list[str]:
    """What the study says, in at most four sentences: the primary claims first, those that are shown before others."""
    rows, first = run.claims.set_index("id", drop=False), primary(run.study)
    testable = [name for name in first if rows.loc[name, "verdict"] != NOT_TESTABLE]
    leading = sorted((rows.loc[name].to_dict() for name in testable), key=lambda row: row["verdict"] != SUPPORTED)
    told = [plain.sentence(row, run.study, row["sd"]) + f" ({row['id']})" for row in leading[:2]]
    others = run.claims[~run.claims["id"].isin(testable)]
    by = {verdict: others[others["verdict"].eq(verdict)] for verdict in VERDICTS}
    if len(shown := by[SUPPORTED]):
        surest = shown.loc[shown["p_value"].idxmin()].to_dict()
        also = "Shown too" if told else "Shown"
        told.append(f"{also}: {', '.join(shown['id'])}; the surest: {plain.sentence(surest, run.study, surest['sd'])}")
    parts = {
        "shown to be otherwise than reported": by[CONTRADICTED],
        "beyond what a study of this size can show": by[OUT_OF_REACH],
        "not testable here": by[NOT_TESTABLE],
    }
    rest = [f"{', '.join(of['id'])} {'is' if len(of) == 1 else 'are'} {what}" for what, of in parts.items() if len(of)]
    return [*told, f"{'; '.join(rest)}."] if rest else told


def by_family(claims: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The claims, families in their order."""
    known = {family: i for i, family in enumerate(claims_of(study).families)}
    return claims.sort_values("family", key=lambda f: f.map(known).fillna(len(known)), kind="stable")


def claims_html(run: Run, taxa: list[str]) -> str:
    """The claims by family: verdict, effect, people, how many analyses agree, what 80 % power would have shown."""
    heads, rows = ("", f"Claim of {html.escape(claims_of(run.study).of)}", *HEADS), []
    for family, of in by_family(run.claims, run.study).groupby("family", sort=False):
        alone = " (uncontrolled)" if of["contrast"].isin(["change", "change_in"]).all() else ""
        family_of = f"{html.escape(str(family))}{alone}"
        rows.append(f'<tr class="family"><th scope="rowgroup" colspan="{len(heads)}">{family_of}</th></tr>')
        rows += [_claim_row(row, run, taxa) for row in of.to_dict("records")]
    return framed((f'<th scope="col">{name}</th>' for name in heads), rows, "Claims", " claims")


def _claim_row(row: dict[str, Any], run: Run, taxa: list[str]) -> str:
    name = html.escape(row["id"])
    cells = [
        ("claim", "", emphasised(italicised(row["statement"], taxa))),
        ("verdict", "", f"<b>{VERDICTS[row['verdict']].symbol} {html.escape(row['verdict'])}</b>"),
        ("effect", "Effect", html.escape(plain.effect(row, row["sd"])) if pd.notna(row["estimate"]) else "–"),
        ("number", "n", html.escape(counts(row, run))),
        ("number", "Analyses that agree", agreement(row)),
        ("number", "Could show", html.escape(plain.reachable(row, run.study)) or "–"),
    ]
    # The name stands beside the value where the table is folded: on a phone.
    body = "".join(f'<td class="{kind}" data-label="{label}">{cell}</td>' for kind, label, cell in cells)
    return f'<tr id="{name}"><th scope="row"><a href="{FOLDER}/{name}.html">{name}</a></th>{body}</tr>'


def agreement(row: dict[str, Any]) -> str:
    """In how many of the analyses that estimate the same the claim has its verdict; a mark where few do."""
    if pd.isna(row["agreement"]):
        return "–"
    agree, of = round(row["agreement"] * row["specifications"]), round(row["specifications"])
    bar = f'<span class="bar"><span style="width: {100 * agree / of:.0f}%"></span></span>'
    few = ' <b title="most other analyses: another verdict">!</b>' if most_differ(agree, of) else ""
    return f"{bar} {agree}/{of}{few}"


def _downloads(files: Path) -> str:
    items = []
    for label, pattern in DOWNLOADS.items():
        paths = sorted(path.relative_to(files).as_posix() for path in files.glob(pattern))
        links = ", ".join(f'<a href="files/{path}">{Path(path).name}</a>' for path in paths)
        items.append(f"<li>{label}: {links or '–'}</li>")
    return f'<ul class="downloads">{"".join(items)}</ul>'
