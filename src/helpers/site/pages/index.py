"""The index page: what was studied, what was found, and how sure that is."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.claims import VERDICTS, claims_of, primary
from helpers.figures import italicise
from helpers.files import CLAIMS_TABLE, DEMO, NOTEBOOKS, TABLES
from helpers.measures import taxa_named
from helpers.narrate import interval, italicised, most_differ, number, p_number, suppression
from helpers.output import emphasised, framed, save_figure, saved_table, table_html
from helpers.site.figures import claims_forest
from helpers.site.pages import Run, evidence, figure_html, raw, text_html
from helpers.site.pages.validation import demo_power, off_claims, validated
from helpers.study import Study

FOREST = "claims"
PROVENANCE = (
    '<p>Code, command, parameters, input files, software, run times and random seeds: <a href="provenance.html">where '
    "this report comes from</a>.</p>"
)


def page(run: Run, others: list[str]) -> str:
    """The page; `others` are the names of the pages that follow the chapters."""
    study, claims, files, taxa = run.study, run.claims, run.files, taxa_named(run.claims["measure"], run.study)
    simulated = validated()
    notes = {} if simulated is None else off_claims(simulated)
    power = demo_power(simulated) if simulated is not None and study.folder == DEMO else {}
    level = f"{100 * (1 - run.parameters['alpha']):g}"
    found = ", ".join(f"{row.id} {row.verdict}" for row in claims.itertuples())
    alt = f"Forest plot of the claims' effects with {level} % intervals. Verdicts: {found}."
    caption = (
        f"Each claim's estimate with its interval ({level} %; of claims of no change, that of their test), divided by "
        "half the width of the interval: all are as long. Filled: the claim is shown; cross: the contrary; open: "
        "neither; diamond: out of reach. Grey: the margin, for claims of no change or little difference."
    )
    title = (
        f'<div class="in-short"><p class="study-title">{html.escape(study.title)}</p>\n'
        f"<p>{studied(run)} {primary_answers(claims, study, taxa, power)}</p></div>"
    )
    about = (
        f"<p>{emphasised(study.about)}</p>\n"
        f"<p>Source: {html.escape(study.source)}<br>Licence: {html.escape(study.licence)}</p>\n"
        f"{text_html(suppression(study))}"
    )
    return "\n\n".join(
        [
            "# Overview",  # not the study's title: the theme repeats this heading without escaping it
            raw(title),
            raw(claims_html(claims, study, level, taxa)),
            "## Why these verdicts",
            raw(reasons_html(claims, taxa, notes)),
            raw(figure_html(FOREST, alt, caption, files, CLAIMS_TABLE)),
            "## The study",
            raw(about),
            "## Chapters and pages",
            "```{toctree}\n:maxdepth: 1\n\n" + "\n".join([*run.chapters, *others]) + "\n```",
            "## Downloads",
            raw(_downloads(files)),
            raw(PROVENANCE),
        ]
    )


def draw_claims(claims: pd.DataFrame, study: Study, results: Path) -> None:
    """Draw and save the forest of the claims."""
    forest = claims_forest(claims)
    italicise(forest, taxa_named(claims["measure"], study))
    save_figure(forest, results, FOREST, simulated=study.simulated)


def studied(run: Run) -> str:
    """Say who was studied, as HTML: the people of each group by visit, as chapter 1 counted them, if it did."""
    labels, people = run.study.labels, saved_table(run.report.results, "01_people")
    each = [f"{r.group} {r.baseline} and {r.followup}, {r.both} at both" for r in people.itertuples()]
    return html.escape(f"People at {labels.baseline} and {labels.followup}: {'; '.join(each)}.") if each else ""


def primary_answers(claims: pd.DataFrame, study: Study, taxa: Sequence[str], power: Mapping[str, float]) -> str:
    """What the study says of its primary claims, as HTML; with the power of their tests, where it is known."""
    rows, told = claims.set_index("id", drop=False), []
    for name in primary(study):
        row = rows.loc[name]
        says = f"{name}. {_with_italics(row['statement'], taxa)}: {VERDICTS[row['verdict']].symbol} {row['verdict']}."
        why = _with_italics(row["reason"][:1].upper() + row["reason"][1:], taxa)
        found = f" (power in this design: {number(100 * power[name], 2)} %)" if name in power else ""
        told.append(f'<b>{says}</b> {why}{found}. <a href="{evidence(dict(row))}">Evidence</a>.')
    return f"The primary claims. {' '.join(told)}"


def _with_italics(text: str, taxa: Sequence[str]) -> str:
    return emphasised(italicised(text, taxa))


def claims_html(claims: pd.DataFrame, study: Study, level: str, taxa: Sequence[str]) -> str:
    """The claims table, by family: the claim, verdict, effect, how sure (`level` per cent), and where evidence is."""
    order = {family: i for i, family in enumerate(claims_of(study).families)}
    claims = claims.sort_values("family", key=lambda f: f.map(order).fillna(len(order)), kind="stable")
    claim, effect = f"Claim of {html.escape(claims_of(study).of)}", f"Effect ({level} % interval, or as said)"
    head = [
        f'<th scope="col">{name}</th>'
        for name in ("", claim, "Verdict here", "Analyses that agree", effect, "p (Holm)", "n", "Evidence")
    ]
    return framed(head, [_claim_row(row, level, taxa) for row in claims.to_dict("records")], "Claims", " claims")


def _claim_row(row: dict[str, Any], level: str, taxa: Sequence[str]) -> str:
    text = {key: html.escape(str(row[key])) for key in ("id", "verdict", "unit", "n")}
    effect = "–"
    if pd.notna(row["estimate"]):
        cover = "" if f"{row['level']:g}" == level else f"; {row['level']:g} %"
        effect = f"{number(row['estimate'])} {text['unit']} <br>({interval(row['ci_low'], row['ci_high'])}{cover})"
    agree, note = _agreement(row)
    p = p_number(row["p_holm"]) if pd.notna(row["p_holm"]) else "–"
    cells = [
        ("claim", "", _with_italics(row["statement"], taxa)),
        ("verdict", "", f"<b>{VERDICTS[row['verdict']].symbol} {text['verdict']}</b>{note}"),
        ("number", "Analyses that agree", agree),
        ("effect", "Effect", effect),
        ("number", "p (Holm)", html.escape(p)),
        ("number", "n", text["n"]),
        ("evidence", "Evidence", f'<a href="{evidence(row)}">{emphasised(row["section"])}</a>'),
    ]
    # The name stands beside the value where the table is folded: on a phone.
    body = "".join(f'<td class="{kind}" data-label="{name}">{cell}</td>' for kind, name, cell in cells)
    return f'<tr id="{text["id"]}"><th scope="row">{text["id"]}</th>{body}</tr>'


def _agreement(row: dict[str, Any]) -> tuple[str, str]:
    """In how many of the analyses that estimate the same the claim has its verdict, and what to say where few do."""
    if pd.isna(row["agreement"]):
        return "–", ""
    agree, of = round(row["agreement"] * row["specifications"]), round(row["specifications"])
    return f"{agree} of {of}", "<br>most other analyses: another verdict" if most_differ(agree, of) else ""


def reasons_html(claims: pd.DataFrame, taxa: Sequence[str], notes: Mapping[str, str]) -> str:
    """The reason of each verdict, and where its test does not hold on simulated cohorts."""
    added = {name: f". On simulated cohorts, {note}" for name, note in notes.items()}
    columns = {
        "claim": list(claims["id"]),
        "verdict": [f"{VERDICTS[verdict].symbol} {verdict}" for verdict in claims["verdict"]],
        "reason": list(claims["reason"] + claims["id"].map(added).fillna("")),
    }
    caption = (
        "Where a claim has several parts, the weakest stands for it. p: of the test that the verdict rests on (against "
        "zero, or of equivalence), after Holm's adjustment over the claims of a family. Claims of no change have the "
        "interval of their test."
    )
    return table_html(columns, set(), caption, taxa)


def _downloads(files: Path) -> str:
    items = []
    for label, pattern in (
        ("Claims", "claims.*"),
        ("Specifications", "*.tsv.gz"),
        ("Tables", f"{TABLES}/*"),
        ("Executed notebooks", f"{NOTEBOOKS}/*"),
    ):
        paths = sorted(path.relative_to(files).as_posix() for path in files.glob(pattern))
        links = ", ".join(f'<a href="files/{path}">{Path(path).name}</a>' for path in paths)
        items.append(f"<li>{label}: {links or '–'}</li>")
    return f'<ul class="downloads">{"".join(items)}</ul>'
