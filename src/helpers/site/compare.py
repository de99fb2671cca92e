"""Studies side by side: what each says of the claims, from what its report saved; one page, not of any study."""

import html
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import yaml
from scipy import stats

from helpers import plain
from helpers.claims import IN_BRACES, VERDICTS, claims_of, names
from helpers.errors import Problems, StudyError
from helpers.estimates import hartung_knapp
from helpers.files import COMPARISON, DATA, HTML, REPORTED, unfinished, write_whole
from helpers.measures import taxa_named
from helpers.narrate import italicised, p_value
from helpers.output import emphasised, framed
from helpers.run.judging import judge
from helpers.run.parameters import notebooks
from helpers.site.archive import to_send
from helpers.site.build import measures_of_people, run_sphinx, write_theme
from helpers.site.pages import Run, raw
from helpers.site.pages.cards import FOLDER, counts
from helpers.site.pages.index import agreement, by_family, studied
from helpers.study import load_study

#: Real studies that a pooled estimate needs.
ENOUGH = 3


def compare(studies: Iterable[str]) -> str:
    """Lay studies whose reports were built side by side, in ``reports/compare``; where it is."""
    chosen, problems, runs = list(dict.fromkeys(studies)), Problems(), []
    if len(chosen) < 2:
        expected = 'two or more, as in make compare STUDIES="demo khadka2021"'
        raise StudyError("STUDIES: too few to compare", found=" ".join(chosen) or "none", expected=expected)
    for name in chosen:
        with problems:
            runs.append(built(name))
    if (DATA / COMPARISON.name).exists():
        with problems:
            raise StudyError("its report would be overwritten", file=DATA / COMPARISON.name, fix="rename the study")
    problems.stop()
    simulated = ", ".join(run.study.folder.name for run in runs if run.study.simulated)
    banner = f"SIMULATED DATA in {simulated}, not the result of any study" if simulated else "Real data"
    with unfinished(COMPARISON) as work:
        write_theme(work / "source", "Studies side by side", html.escape(banner))
        write_whole(work / "source" / "index.md", page(runs))
        (work / "source" / "extra").mkdir()
        run_sphinx(work / "source", work / HTML)
        if COMPARISON.exists():
            COMPARISON.rename(work / "old")
        (work / HTML).rename(COMPARISON)
    return f"Comparison: {COMPARISON / 'index.html'}"


def built(name: str) -> Run:
    """What a report was built from, of a study whose report is there, under its present privacy settings."""
    study, report = load_study(DATA / name), to_send(name)
    parameters = yaml.safe_load(report.parameters.read_text(encoding="utf-8"))
    chapters = [notebook.stem for notebook in notebooks()]
    parts, claims = judge(study, report.results, chapters, parameters["alpha"], keep=False)
    return Run(
        study, report.folder, parameters, claims, parts, chapters, report.html, data=measures_of_people(report.results)
    )


def page(runs: list[Run]) -> str:
    """The page, as Markdown of MyST: the studies, the claims by study, where findings were reported."""
    reported = yaml.safe_load(REPORTED.read_text(encoding="utf-8"))
    rows: dict[tuple[str, str], list[tuple[Run, dict[str, Any]]]] = {}
    pooled = {}
    for run in runs:
        for row in by_family(run.claims, run.study).to_dict("records"):
            shipped = row["id"] in claims_of(run.study).claims
            rows.setdefault((run.study.claims if shipped else run.study.folder.name, row["id"]), []).append((run, row))
    for key, found in rows.items():
        if row := pool(found):
            pooled[key] = f"{html.escape(plain.effect(row, math.nan))}<br> {p_value(row['p_value'])}, k = {row['n']}"
    heads = ["", "Claim", "As reported", *(_head(run) for run in runs), *(["Pooled"] if pooled else [])]
    lines = [_line(key, found, runs, reported["findings"], pooled) for key, found in rows.items()]
    table = framed((f'<th scope="col">{head}</th>' for head in heads), lines, "Claims by study", " claims compared")
    why = (
        f"Pooled, by random effects (Hartung–Knapp; errors from the intervals), is only what {ENOUGH} or more real "
        "studies estimate alike: measure, contrast, groups, visits and estimator. Simulated studies are never pooled. "
        f"{'' if pooled else 'Here nothing is.'}"
    )
    cited = dict.fromkeys(f"{of.of}: {of.reference}" for of in (claims_of(run.study) for run in runs))
    sources = [*cited, *(f"{name}: {told}" for name, told in reported["sources"].items())]
    about = f'<div class="in-short">{"".join(map(_about, runs))}</div>'
    listed = f"<h2>As reported</h2><ul>{''.join(f'<li>{html.escape(told)}.</li>' for told in sources)}</ul>"
    return "\n\n".join(["# Studies side by side", raw(about), raw(f"{table}<p>{why}</p>{listed}")])


def estimand(run: Run, row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a claim's number estimates, in words: the same of two studies that may be pooled."""
    part = run.parts[run.parts["claim"].eq(row["id"]) & run.parts["what"].eq(row["what"])].iloc[0]
    visits = [
        run.study.labels.baseline,
        *([] if row["contrast"] in ("group", "severity") else [run.study.labels.followup]),
    ]
    return tuple(str(x).casefold() for x in (row["what"], row["contrast"], row["unit"], part["estimator"], *visits))


def pool(found: list[tuple[Run, dict[str, Any]]]) -> dict[str, Any]:
    """The mean of what real studies estimate alike, as a row of claims; nothing where they are too few."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run, row in found:
        if not run.study.simulated and not math.isnan(row["estimate"]):
            alike.setdefault(estimand(run, row), []).append(row)
    most = pd.DataFrame(max(alike.values(), key=len, default=[]))
    if len(most) < ENOUGH:
        return {}
    errors = (most["ci_high"] - most["ci_low"]) / 2 / stats.norm.ppf(0.5 + most["level"] / 200)
    return most.iloc[0].to_dict() | hartung_knapp(most["estimate"], errors)


def _address(run: Run, page: str) -> str:
    return f"../{run.study.folder.name}/{HTML}/{page}.html"


def _head(run: Run) -> str:
    kind = "<br> SIMULATED" if run.study.simulated else ""
    return f'<a href="{_address(run, "index")}">{html.escape(run.study.folder.name)}</a>{kind}'


def _about(run: Run) -> str:
    """Who a study is about, and what its names are for those of the claims."""
    names = run.study.labels.model_dump() | {"pathogen": run.study.taxa.pathogen}
    roles = ("case", "control", "treatment", "comparator", "pathogen")
    told = html.escape("; ".join(f"{role}: {names[role]}" for role in roles))
    link = f'<b><a href="{_address(run, "index")}">{html.escape(run.study.folder.name)}</a></b>'
    return f"<p>{link}: {html.escape(run.study.title)}. {studied(run)} In the claims, {told}.</p>"


def _line(
    key: tuple[str, str], found: list[tuple[Run, dict[str, Any]]], runs: list[Run], findings: Any, pooled: Any
) -> str:
    """A claim by study, as a row of the table."""
    of, name = key
    run, row = found[0]
    shipped = claims_of(run.study)
    says, told = row["statement"], {}
    if of == run.study.claims and name in shipped.claims:
        known = [names(other.study) for other in runs]
        shared = {role for role in known[0] if len({words[role] for words in known}) == 1}
        says = IN_BRACES.sub(
            lambda role: known[0][role[1]] if role[1] in shared else role[1].replace("_", "-"),
            shipped.claims[name].says,
        )
        told = {shipped.of: row["reported"], **findings.get(of, {}).get(name, {})}
    taxa = taxa_named(run.claims["measure"], run.study)
    reported = [f"<b>{html.escape(s)}</b>: {emphasised(italicised(finding, taxa))}" for s, finding in told.items()]
    cells = {
        "": emphasised(italicised(f"{says[0].upper()}{says[1:]}", taxa)),
        "As reported": "<br> ".join(reported) or "–",
    }
    by = {run.study.folder.name: _cell(row, run) for run, row in found}
    cells |= {run.study.folder.name: by.get(run.study.folder.name, "–") for run in runs}
    cells |= {"Pooled": pooled.get(key, "–")} if pooled else {}
    body = "".join(f'<td data-label="{html.escape(label)}">{cell}</td>' for label, cell in cells.items())
    return f'<tr><th scope="row">{html.escape(name)}</th>{body}</tr>'


def _cell(row: dict[str, Any], run: Run) -> str:
    """What a study says of a claim: the verdict, which leads to its card, effect, people, how many analyses agree."""
    link = _address(run, f"{FOLDER}/{row['id']}")
    lines = [f'<a href="{link}"><b>{VERDICTS[row["verdict"]].symbol} {html.escape(row["verdict"])}</b></a>']
    if not math.isnan(row["estimate"]):
        agree = f" · {agreement(row)} agree" if pd.notna(row["agreement"]) else ""
        lines += [html.escape(plain.effect(row, row["sd"])), f"n = {html.escape(counts(row, run))}{agree}"]
    return "<br> ".join(lines)
