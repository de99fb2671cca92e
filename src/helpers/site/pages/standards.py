"""Two checklists of reporting: which items this report answers, and which are for the authors of a manuscript."""

from collections import Counter
from functools import cache, partial
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, StrictUndefined, Template

from helpers import narrate
from helpers.claims import NOT_TESTABLE, VERDICTS
from helpers.disclosure import as_tsv
from helpers.evidence import NEEDS_COUNTS
from helpers.files import FIGURES, TABLES, write_whole
from helpers.output import saved_table
from helpers.site.pages import Run, evidence, prose, raw
from helpers.study import VOCABULARY, Column, Study
from helpers.texts import packaged

#: The pages beside the notebooks that items lead to: title and address.
BESIDE = {
    "index": ("Overview", "index.html"),
    "methods": ("Methods", "methods.html"),
    "provenance": ("Provenance", "provenance.html"),
}

ANSWERED, IN_PART, FOR_AUTHORS, NOT_APPLICABLE = "answered", "in part", "for the authors", "not applicable"
#: How an answer begins that says why an item does not apply.
_NOT = "Not applicable: "
DOWNLOAD = "reporting_standards.tsv"


class Item(NamedTuple):
    """An item of a checklist, as standards.yaml explains it."""

    number: str
    asks: str
    answer: str = ""
    where: tuple[str, ...] = ()
    hint: str = ""
    real: bool = False


class Reply(NamedTuple):
    """What a report has to say to an item: plain text, as it comes from the study."""

    item: Item
    state: str
    #: What the report knows, or why the item does not apply.
    answer: str
    #: What is left to the authors.
    hint: str
    #: Places that show it.
    where: tuple[str, ...]


def page(run: Run) -> str:
    """The page, and its download."""
    known = facts(run)
    replies, sections = {}, []
    for checklist in checklists():
        told = [reply(item, known, simulated=run.study.simulated) for item in checklist["items"]]
        replies[checklist["name"]] = told
        table = prose("checklist", about=checklist["about"], title=checklist["title"], replies=told, place=place)
        sections += [f"## {checklist['title']}", raw(table)]
    write_whole(run.files / DOWNLOAD, download(replies))
    states = Counter(told.state for each in replies.values() for told in each)
    trial = run.study.randomised and len(_values(run.study, "arm")) == len(VOCABULARY["arm"])
    about = prose("standards", states=states, trial=trial, download=DOWNLOAD)
    return "\n\n".join(["# Reporting standards", raw(about), *sections]) + "\n"


@cache
def checklists() -> list[dict[str, Any]]:
    """The checklists: name, title, about, and items, a list of `Item`."""
    read: list[dict[str, Any]] = packaged("site/pages/standards.yaml")
    for checklist in read:
        checklist["items"] = [Item(**item | {"where": tuple(item.get("where", ()))}) for item in checklist["items"]]
    return read


def reply(item: Item, known: dict[str, str], *, simulated: bool) -> Reply:
    """What a report with some facts, empty where not known, says to an item.

    Of a simulated study, nothing is asked of people and laboratories that never were.
    """
    answer = " ".join(item.answer.format(**known).split())
    hint = "" if simulated and item.real else item.hint
    if not answer and not hint:
        answer = f"{_NOT}simulated data."
    if answer.startswith(_NOT):
        return Reply(item, NOT_APPLICABLE, answer, "", ())
    if not answer:
        return Reply(item, FOR_AUTHORS, "", hint, () if item.answer else item.where)
    return Reply(item, IN_PART if hint else ANSWERED, answer, hint, item.where)


def download(replies: dict[str, list[Reply]]) -> str:
    """The replies by checklist as a tab-separated table for authors to fill; the last column is left to them."""
    columns = ("checklist", "item", "asked", "state", "answer", "where in the report", "for the authors")
    rows = []
    for name, each in replies.items():
        for item, state, answer, hint, where in each:
            places = "; ".join(place(each_place)[1] for each_place in where)
            rows.append((name, item.number, item.asks, state, answer, places, hint))
    return as_tsv(pd.DataFrame(rows, columns=columns).assign(**{"where in the manuscript": ""}))


def place(where: str) -> tuple[str, str]:
    """Name and address of a place: a notebook or one of `BESIDE`, perhaps a section, as ``01_ingest#Sample flow``."""
    name, _, section = where.partition("#")
    title, address = BESIDE.get(name, (f"Chapter {name[:2].lstrip('0')}", f"{name}.html"))
    if not section:
        return title, address
    return f"{title}: {section}", evidence({"notebook": address.removesuffix(".html"), "section": section})


def facts(run: Run) -> dict[str, str]:
    """What a run knows for the answers of standards.yaml, by name: plain text, empty where the run does not know."""
    told = known(run)
    return {name: " ".join(template.render(told).split()) for name, template in templates().items()}


@cache
def templates() -> dict[str, Template]:
    """The facts of standards_facts.yaml, by name."""
    env = Environment(undefined=StrictUndefined)
    return {name: env.from_string(text) for name, text in packaged("site/pages/standards_facts.yaml").items()}


def known(run: Run) -> dict[str, Any]:
    """What the facts are made from: the run, and what only code can tell of it."""
    study, verdicts, results = run.study, Counter(run.claims["verdict"]), run.report.results
    arms, visits, groups, kinds = (_values(study, name) for name in ("arm", "visit", "group", "control_type"))
    two_arms, two_visits = len(arms) == len(VOCABULARY["arm"]), len(visits) == len(VOCABULARY["visit"])
    return {
        "study": study,
        "tree": run.has_tree,
        "labels": study.labels,
        "p": run.parameters,
        "cut": study.response,
        "arms": [getattr(study.labels, arm) for arm in arms],
        "visits": [getattr(study.labels, visit) for visit in visits],
        "two_arms": two_arms,
        "two_visits": two_visits,
        "controls": "control" in groups,
        "negatives": "negative" in kinds,
        "allocation": narrate.allocation(study),
        "suppression": narrate.suppression(study),
        "visits_used": narrate.visits_used(study),
        "needs_counts": NEEDS_COUNTS,
        "recorded": [*(c for c in ("age", "sex", "batch") if getattr(study.columns, c)), *study.columns.covariates],
        "claims": run.claims,
        "untested": run.claims[run.claims["verdict"].eq(NOT_TESTABLE)].to_dict("records"),
        "verdicts": ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS if verdicts[verdict]),
        "saved": partial(saved_table, results),
        "swabs": _swabs(run),
        "people": _people(run),
        "pairs": _pairs(run),
        "tables": len(list((results / TABLES).glob("*.tsv"))),
        "figures": len(list((results / FIGURES).glob("*.svg"))),
    }


def _values(study: Study, name: str) -> list[str]:
    """The standard values of a column that the study has."""
    column: Column | None = getattr(study.columns, name)
    return [] if column is None else [value for value in VOCABULARY[name] if column.values.get(value)]  # noqa: PD011


def _swabs(run: Run) -> str:
    """How many swabs are analysed; empty where counts are hidden and rounded, whose sums would say nothing."""
    ledger = saved_table(run.report.results, "01_ledger")
    if ledger.empty or run.study.privacy.small_cells == "suppress":
        return ""
    swabs = ledger[ledger["group"].ne("negative control")].astype({"swabs_before": int, "swabs_after": int})
    steps = swabs.groupby("step", sort=False)[["swabs_before", "swabs_after"]].sum()
    return f"{steps['swabs_after'].iloc[-1]} of {steps['swabs_before'].iloc[0]} swabs are analysed."


def _people(run: Run) -> str:
    table, labels = saved_table(run.report.results, "01_table1"), run.study.labels
    groups = [g for g in (labels.control, labels.treatment, labels.comparator, labels.case) if g in table]
    return ", ".join(f"{table[g].iloc[0]} {g}" for g in groups)


def _pairs(run: Run) -> str:
    table = saved_table(run.report.results, "02_shift")
    if table.empty:
        return ""
    estimated = table[table["estimate"].ne("")].drop_duplicates("patients")
    return ", ".join(f"{row.n} {row.patients}" for row in estimated.itertuples())
