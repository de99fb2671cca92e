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
from helpers.measures import OTHER_AXES, POSITION, taxa_named
from helpers.narrate import italicised, p_value
from helpers.output import emphasised, framed
from helpers.run.judging import judge
from helpers.run.parameters import notebooks
from helpers.site.archive import to_send
from helpers.site.build import measures_of_people, run_sphinx, write_theme
from helpers.site.pages import Run, prose, raw
from helpers.site.pages.cards import FOLDER, counts
from helpers.site.pages.index import agreement, by_family, studied
from helpers.study import load_study

#: What studies say of a claim: rows of their claims.
Found = list[tuple[Run, dict[str, Any]]]
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
        problems.found.append(StudyError("has its report where this goes", file=COMPARISON, fix="rename that study"))
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
    people = measures_of_people(report.results)
    return Run(study, report.folder, parameters, claims, parts, chapters, report.html, None, people)


def page(runs: list[Run]) -> str:
    """The page, as Markdown of MyST: the studies, the claims by study, where findings were reported."""
    reported = yaml.safe_load(REPORTED.read_text(encoding="utf-8"))
    rows: dict[tuple[str, str], Found] = {}
    for run in runs:
        for row in by_family(run.claims, run.study).to_dict("records"):
            of = run.study.claims if row["id"] in claims_of(run.study).claims else run.study.folder.name
            rows.setdefault((of, row["id"]), []).append((run, row))
    known = reported["findings"]
    lines = [_line(name, found, runs, known.get(of, {}).get(name, {})) for (of, name), found in rows.items()]
    pooled = any(line["Pooled"] != "–" for line in lines)
    heads = {name: name for name in lines[0] if name != "Pooled" or pooled}
    heads |= {run.study.folder.name: _link(run) + "<br> SIMULATED" * run.study.simulated for run in runs}
    body = ["".join(f'<td data-label="{html.escape(c)}">{line[c]}</td>' for c in [*heads][1:]) for line in lines]
    body = [f'<tr><th scope="row">{line[""]}</th>{cells}</tr>' for line, cells in zip(lines, body, strict=True)]
    top = (f'<th scope="col">{head}</th>' for head in heads.values())
    about = f'<div class="in-short">{"".join(map(_about, runs))}</div>'
    sources = {of.of: of.reference for of in (claims_of(run.study) for run in runs)} | reported["sources"]
    content = about + framed(top, body, "Claims by study", " claims compared")
    content += prose("compare", enough=ENOUGH, pooled=pooled, sources=sources)
    return f"# Studies side by side\n\n{raw(content)}\n"


def estimand(run: Run, row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a claim's number estimates, in words: the same of two studies that may be pooled."""
    part = run.parts[run.parts["claim"].eq(row["id"]) & run.parts["what"].eq(row["what"])].iloc[0]
    how = (part["estimator"], run.parameters["rarefaction_depth"], run.study.labels.baseline, run.study.labels.followup)
    return tuple(str(word).casefold() for word in (row["what"], row["contrast"], row["unit"], *how))


def pool(found: Found) -> dict[str, Any]:
    """The mean of what real studies estimate alike, as a row of claims; nothing where they are too few."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run, row in found:
        own = row["contrast"] == "severity" or row["measure"] in (POSITION, *OTHER_AXES)
        if not (run.study.simulated or own or math.isnan(row["estimate"])):
            alike.setdefault(estimand(run, row), []).append(row)
    most = pd.DataFrame(max(alike.values(), key=len, default=[]))
    if len(most) < ENOUGH:
        return {}
    errors = (most["ci_high"] - most["ci_low"]) / 2 / stats.norm.ppf(0.5 + most["level"] / 200)
    return most.iloc[0].to_dict() | hartung_knapp(most["estimate"], errors)


def _link(run: Run, page: str = "index", words: str = "") -> str:
    name = html.escape(run.study.folder.name)
    return f'<a href="../{name}/{HTML}/{page}.html">{words or name}</a>'


def _about(run: Run) -> str:
    """Who a study is about, and what its names are for those of the claims."""
    known = run.study.labels.model_dump() | {"pathogen": run.study.taxa.pathogen}
    roles = ("case", "control", "treatment", "comparator", "pathogen")
    told = html.escape("; ".join(f"{role}: {known[role]}" for role in roles))
    return f"<p><b>{_link(run)}</b>: {html.escape(run.study.title)}. {studied(run)} In the claims, {told}.</p>"


def _line(name: str, found: Found, runs: list[Run], findings: Mapping[str, str]) -> dict[str, str]:
    """A claim by study, as a row of the table, by its headings; in words that all share, else by their roles."""
    run, row = found[0]
    shipped, says, told = claims_of(run.study), row["statement"], dict(findings)
    if name in shipped.claims:
        known = [names(other.study) for other in runs]
        words = {role: role.replace("_", "-") for role in known[0]}
        words |= {role: word for role, word in known[0].items() if all(other[role] == word for other in known)}
        says = IN_BRACES.sub(lambda role: words[role[1]], shipped.claims[name].says)
        told = {shipped.of: row["reported"], **told}
    taxa = taxa_named(run.claims["measure"], run.study)
    reported = [f"<b>{html.escape(s)}</b>: {emphasised(italicised(finding, taxa))}" for s, finding in told.items()]
    claim = emphasised(italicised(f"{says[0].upper()}{says[1:]}", taxa))
    cells = {"": html.escape(name), "Claim": claim, "As reported": "<br> ".join(reported) or "–"}
    by = {run.study.folder.name: _cell(row, run) for run, row in found}
    cells |= {run.study.folder.name: by.get(run.study.folder.name, "–") for run in runs}
    cells["Pooled"] = "–"
    if mean := pool(found):
        cells["Pooled"] = f"{html.escape(plain.effect(mean, math.nan))}<br> {p_value(mean['p_value'])}, k = {mean['n']}"
    return cells


def _cell(row: dict[str, Any], run: Run) -> str:
    """What a study says of a claim: the verdict, which leads to its card, effect, people, how many analyses agree."""
    verdict = f"<b>{VERDICTS[row['verdict']].symbol} {html.escape(row['verdict'])}</b>"
    lines = [_link(run, f"{FOLDER}/{row['id']}", verdict)]
    if not math.isnan(row["estimate"]):
        agree = f" · {agreement(row)} agree" if pd.notna(row["agreement"]) else ""
        lines += [html.escape(plain.effect(row, row["sd"])), f"n = {html.escape(counts(row, run))}{agree}"]
    return "<br> ".join(lines)
