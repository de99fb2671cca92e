"""Two checklists of reporting: which items this report answers, and which are for the authors of a manuscript."""

import html
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from helpers import narrate
from helpers.claims import NOT_TESTABLE, VERDICTS
from helpers.disclosure import for_spreadsheets
from helpers.evidence import NEEDS_COUNTS
from helpers.files import FIGURES, TABLES, write_whole
from helpers.site.pages import Run, evidence, raw
from helpers.study import VOCABULARY, Column, Study

#: The pages beside the notebooks that items lead to: title and address.
INDEX = ("Overview", "index.html")
METHODS = ("Methods", "methods.html")
PROVENANCE = ("Provenance", "provenance.html")
BESIDE = {"index": INDEX, "methods": METHODS, "provenance": PROVENANCE}

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
    replies = {
        checklist["name"]: [reply(item, known, simulated=run.study.simulated) for item in checklist["items"]]
        for checklist in checklists()
    }
    write_whole(run.files / DOWNLOAD, download(replies))
    sections = [
        part
        for checklist in checklists()
        for part in (
            f"## {checklist['title']}",
            raw(f"<p>{html.escape(checklist['about'])}</p>\n" + _table(checklist["title"], replies[checklist["name"]])),
        )
    ]
    return "\n\n".join(["# Reporting standards", raw(_about(run.study, replies)), *sections]) + "\n"


@cache
def checklists() -> list[dict[str, Any]]:
    """The checklists: name, title, about, and items, a list of `Item`."""
    read = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return [
        {**checklist, "items": [Item(**{**item, "where": tuple(item.get("where", ()))}) for item in checklist["items"]]}
        for checklist in read
    ]


def reply(item: Item, known: dict[str, str], *, simulated: bool) -> Reply:
    """What a report with some facts says to an item.

    Parameters
    ----------
    known : dict of str to str
        As from `facts`; one that is not known is empty.
    simulated : bool
        Nothing is asked of people and laboratories that never were.
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
    """The checklists as a table for authors to fill.

    Parameters
    ----------
    replies : dict of str to list of Reply
        By checklist.

    Returns
    -------
    str
        Tab-separated; the last column is left to the authors.
    """
    rows = [
        {
            "checklist": name,
            "item": told.item.number,
            "asked": told.item.asks,
            "state": told.state,
            "answer": told.answer,
            "where in the report": "; ".join(place(where)[1] for where in told.where),
            "for the authors": told.hint,
            "where in the manuscript": "",
        }
        for name, each in replies.items()
        for told in each
    ]
    return for_spreadsheets(pd.DataFrame(rows)).to_csv(sep="\t", index=False, lineterminator="\n")


def place(where: str) -> tuple[str, str]:
    """Name and address of a place in the report.

    Parameters
    ----------
    where : str
        A notebook or one of `BESIDE`, and a section: ``01_ingest#Sample flow``, ``index#Downloads``, ``methods``.
    """
    name, _, section = where.partition("#")
    title, address = BESIDE.get(name, (f"Chapter {name[:2].lstrip('0')}", f"{name}.html"))
    if not section:
        return title, address
    return f"{title}: {section}", evidence({"notebook": address.removesuffix(".html"), "section": section})


# ---------------------------------------------------------------- HTML


def _about(study: Study, replies: dict[str, list[Reply]]) -> str:
    states = Counter(told.state for each in replies.values() for told in each)
    trial = (
        "<p>The arms were allocated by chance: the comparison of the arms is a trial's, which is reported by CONSORT. "
        "STROBE stands here for the comparison with controls.</p>"
        if study.randomised and _two_arms(study)
        else ""
    )
    return (
        f"<p>Of {states.total()} items of two checklists, this report answers {states[ANSWERED]}, and "
        f"{states[IN_PART]} in part; {states[FOR_AUTHORS]} are for the authors of a manuscript, and "
        f"{states[NOT_APPLICABLE]} do not apply to these data. Answers are made from study.yaml and the results of "
        "this run. The numbers are those of the checklists; what an item asks is told in this report's own words, so "
        "that the originals are to be read beside it.</p>\n"
        f'{trial}<p class="files"><a href="files/{DOWNLOAD}">both checklists as TSV, with a column to fill</a></p>'
    )


def _table(title: str, replies: list[Reply]) -> str:
    heads = ("Item", "What is asked", "Reply", "Where in the report")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<div class="report-table" role="region" tabindex="0" aria-label="{html.escape(title)}"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(map(_row, replies))}\n</tbody></table></div>"
    )


def _row(told: Reply) -> str:
    links = [f'<a href="{html.escape(place(where)[1])}">{html.escape(place(where)[0])}</a>' for where in told.where]
    cells = [html.escape(told.item.asks), _reply(told), "<br>".join(links) or "–"]
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{html.escape(told.item.number)}</th>{body}</tr>'


def _reply(told: Reply) -> str:
    answer, hint = html.escape(told.answer.removeprefix(_NOT)), html.escape(told.hint)
    left = f"<b>For the authors:</b> {hint}." if hint else ""
    return {
        ANSWERED: f"<b>Answered.</b> {answer}",
        IN_PART: f"<b>In part.</b> {answer}<br>{left}",
        FOR_AUTHORS: left,
        NOT_APPLICABLE: f"<b>Not applicable:</b> {answer}",
    }[told.state]


# ---------------------------------------------------------------- facts


def facts(run: Run) -> dict[str, str]:
    """What a run knows for the answers of standards.yaml, in sentences of plain text.

    Returns
    -------
    dict of str to str
        By name; empty where the run does not know.
    """
    return {name: fact(run) for name, fact in FACTS.items()}


def _values(study: Study, name: str) -> list[str]:
    """The standard values of a column that the study has."""
    column: Column | None = getattr(study.columns, name)
    return [] if column is None else [value for value in VOCABULARY[name] if column.values.get(value)]  # noqa: PD011


def _labelled(study: Study, name: str) -> list[str]:
    return [getattr(study.labels, value) for value in _values(study, name)]


def _two_arms(study: Study) -> bool:
    return len(_values(study, "arm")) == len(VOCABULARY["arm"])


def _two_visits(study: Study) -> bool:
    return len(_values(study, "visit")) == len(VOCABULARY["visit"])


def _controls(study: Study) -> bool:
    return "control" in _values(study, "group")


def _negatives(study: Study) -> bool:
    return "negative" in _values(study, "control_type")


def _saved(run: Run, name: str) -> pd.DataFrame:
    """A table of the results as it was saved, counts as they may be shown; empty if there is none."""
    path = run.report.results / TABLES / f"{name}.tsv"
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()


def _design(run: Run) -> str:
    study = run.study
    trial = study.randomised and _two_arms(study)
    kind = f"{'Simulated' if study.simulated else 'Real'} data of {'a randomised trial' if trial else 'a cohort study'}"
    under = f" under {' or '.join(arms)}" if (arms := _labelled(study, "arm")) else ""
    controls = f" and controls ({study.labels.control})" if _controls(study) else ", without controls"
    visits = " and ".join(_labelled(study, "visit"))
    return f"{kind}: patients ({study.labels.case}){under}{controls}, swabbed at {visits}."


def _allocation(run: Run) -> str:
    return narrate.allocation(run.study) if _two_arms(run.study) else "No two arms are compared."


def _specimens(run: Run) -> str:
    site = run.study.columns.site
    recorded = f"; the body site of each is in column {site} of the metadata" if site else ""
    return f"Swabs of {run.study.labels.site}{recorded}."


def _hypotheses(run: Run) -> str:
    untested = run.claims["verdict"].eq(NOT_TESTABLE).sum()
    return (
        f"{len(run.claims)} claims of Hartmann et al. 2023; these data can test {len(run.claims) - untested} of them."
    )


def _visits(run: Run) -> str:
    return narrate.visits_used(run.study)


def _swabs(run: Run) -> str:
    ledger = _saved(run, "01_ledger")
    if ledger.empty:
        return ""
    told = "The ledger tells of every step and reason for which swabs are left out."
    if run.study.privacy.small_cells == "suppress":  # sums of hidden and rounded counts would say nothing
        return told
    swabs = ledger[ledger["group"].ne("negative control")].astype({"swabs_before": int, "swabs_after": int})
    steps = swabs.groupby("step", sort=False)[["swabs_before", "swabs_after"]].sum()
    return f"{steps['swabs_after'].iloc[-1]} of {steps['swabs_before'].iloc[0]} swabs are analysed. {told}"


def _people(run: Run) -> str:
    table, labels = _saved(run, "01_table1"), run.study.labels
    groups = [g for g in (labels.control, labels.treatment, labels.comparator, labels.case) if g in table]
    return f"People at baseline: {', '.join(f'{table[g].iloc[0]} {g}' for g in groups)}." if groups else ""


def _pairs(run: Run) -> str:
    table = _saved(run, "02_shift")
    if table.empty:
        return ""
    known = table[table["estimate"].ne("")].drop_duplicates("patients")
    counts = ", ".join(f"{row.n} {row.patients}" for row in known.itertuples())
    return f"In the analysis of change: {counts or 'nobody'}."


def _matching(run: Run) -> str:
    return "The analysis takes nobody as matched."


def _negative_controls(run: Run) -> str:
    return f"The data hold {'' if _negatives(run.study) else 'no '}negative controls."


def _contaminants(run: Run) -> str:
    if not _negatives(run.study):
        return "Without negative controls, contaminants cannot be told from skin bacteria."
    found = len(_saved(run, "01_contaminants"))
    return f"Features more prevalent in negative controls than in swabs are removed as contaminants: {found or 'none'}."


def _replicates(run: Run) -> str:
    rounded = run.study.files.counts.fractions == "round"
    return "Counts that are not whole, as means of replicates are, were rounded." if rounded else ""


def _quantification(run: Run) -> str:
    given = "counts of reads" if run.study.counted else "relative abundances"
    return f"Relative: the table has {given}, which tell nothing of bacterial load."


def _batch(run: Run) -> str:
    study = run.study
    if not study.columns.batch:
        return "The files name no batch: none can be shown or adjusted for."
    compared = (("group", "patients against controls"), ("arm", "the arms"))
    models = [of for key, of in compared if "batch" in getattr(study.adjust, key)]
    adjusted = f"models of {' and '.join(models)} are adjusted for it" if models else "no model is adjusted for it"
    return f"The batch of a swab is in column {study.columns.batch} of the metadata; {adjusted}."


def _exposures(run: Run) -> str:
    study = run.study
    arm = ", treatment arm" if _two_arms(study) else ""
    taxa = ", ".join((study.taxa.genus, study.taxa.pathogen, study.taxa.commensal))
    tested = f", alpha diversity, {taxa} and all genera" if study.counted else ""
    return f"Exposures: disease{arm}. Outcomes: distance to the controls{tested}."


def _variables(run: Run) -> str:
    study = run.study
    scores = ", ".join(f"{s.label} ({s.range[0]:g} to {s.range[1]:g})" for s in study.severity)
    standard = [name for name in ("age", "sex", "batch") if getattr(study.columns, name)]
    others = study.adjusted([*standard, *study.columns.covariates])
    return f"Read from the metadata file: severity by {scores or 'no score'}; other variables: {others}."


def _strata(run: Run) -> str:
    study, cut = run.study, run.study.response
    if not study.severity:
        return "The study records no severity score, and nothing is cut into categories."
    cuts = f"{cut.non_responder:g}, {cut.responder:g} and {cut.near_clear:g} %"
    return f"Improvement of {study.severity[0].label} in per cent of baseline is cut at {cuts}."


def _adjustment(run: Run) -> str:
    study = run.study
    groups = f"Patients and controls are compared given: {study.adjusted(study.adjust.group)}."
    between = f"The arms are compared given: the baseline value, {study.adjusted(study.adjust.arm)}; and by weighting."
    told = [*([groups] if _controls(study) else []), *([between] if _two_arms(study) else [])]
    return " ".join(told) or "The study has no groups to compare."


def _transformations(run: Run) -> str:
    if not run.study.counted:
        return "Relative abundances are taken as given; nothing that needs counts is tested."
    depth = f"{run.parameters['rarefaction_depth']:,}"
    return f"Diversity is compared at {depth} reads a swab, taxa by centred log-ratios."


def _quality(run: Run) -> str:
    if not run.study.counted:
        return "The study gives relative abundances: depth is not known, and no swab is left out for it."
    least, depth = run.study.minimum_depth, run.parameters["rarefaction_depth"]
    more = f", and of comparisons at one depth those with fewer than {depth:,}" if depth > least else ""
    return f"Swabs with fewer than {least:,} reads are left out{more}."


def _profiling(run: Run) -> str:
    files = run.study.files
    named = {"feature_names": "from the features' names", "none": "none"}
    taxonomy = named[files.taxonomy] if isinstance(files.taxonomy, str) else "from a file"
    tree = "from a file" if files.tree else "none"
    return f"The report begins at the table of features. Taxonomy: {taxonomy}; phylogenetic tree: {tree}."


def _statistics(run: Run) -> str:
    p = run.parameters
    return (
        f"Each section names its method before its result. Tests are two-sided at {p['alpha']:g}, with "
        f"{p['permutations']:,} permutations, {p['bootstraps']:,} bootstrap resamples and the seed {p['seed']}."
    )


def _longitudinal(run: Run) -> str:
    if not _two_visits(run.study):
        return f"{_NOT}one visit is analysed."
    return "Change is taken within a person, whose swabs at a visit are averaged."


def _losses(run: Run) -> str:
    if not _two_visits(run.study):
        return f"{_NOT}one visit is analysed."
    return "Who lacks the second visit is left out of analyses of change; nothing is imputed or weighted for it."


def _subgroups(run: Run) -> str:
    study = run.study
    told = ["Change is shown by stratum of response."] if study.severity and _two_visits(study) else []
    told += ["The time × arm interaction is tested on the whole community."] if _two_arms(study) else []
    told += (
        ["Only patients' sites that were lesional at baseline are analysed."]
        if run.parameters["swabs"] == "lesional_at_baseline"
        else []
    )
    return " ".join(told)


def _missing(run: Run) -> str:
    return "A model leaves out who lacks a value that it needs, and says how many; nothing is imputed."


def _sensitivity(run: Run) -> str:
    study = run.study
    told = [
        *(["the total load, genus by genus", "reads without a species name"] if study.counted else []),
        *(["the estimator of the arms' difference"] if _two_arms(study) else []),
        *(["an unmeasured cause of improvement and skin"] if _two_arms(study) and study.severity else []),
    ]
    return f"It is shown how results depend on: {'; '.join(told)}." if told else ""


def _rule(run: Run) -> str:
    return (
        f"Every claim is reported, whatever its verdict; verdicts follow one rule, with Holm's adjustment at "
        f"{run.parameters['alpha']:g}. Taxa are marked by false discovery rate."
    )


def _access(run: Run) -> str:
    return f"Source: {run.study.source.strip().rstrip('.')}. Licence: {run.study.licence.strip().rstrip('.')}."


def _disclosure(run: Run) -> str:
    if run.study.simulated:
        return f"{_NOT}simulated data."
    return f"The report shows no identifier and no date. {narrate.suppression(run.study)}"


def _results(run: Run) -> str:
    tables, figures = (
        len(list((run.report.results / kind).glob(suffix))) for kind, suffix in ((TABLES, "*.tsv"), (FIGURES, "*.svg"))
    )
    return f"For download: {tables} tables as TSV, {figures} figures, the claims and the executed notebooks."


def _descriptive(run: Run) -> str:
    shown = "Alpha diversity, the community's distances" if run.study.counted else "The community's distances"
    return f"{shown} and composition are shown by group and visit."


def _taxonomy(run: Run) -> str:
    if run.study.files.taxonomy == "none":
        return "The study gives no taxonomy."
    return "Taxa have the names of the study's own taxonomy, in seven ranks from kingdom to species."


def _differential(run: Run) -> str:
    if not run.study.counted:
        return f"No genus is tested: {NEEDS_COUNTS}."
    first, change = (len(_saved(run, f"03_differential_{of}")) for of in ("group", "change"))
    return (
        f"Genera tested: {first} at baseline, {change} for change, each with signed estimate, interval, q-value, "
        "and presence."
    )


def _other(run: Run) -> str:
    study = run.study
    told = [
        *(["change against improvement"] if study.severity and _two_visits(study) else []),
        *(["direct and indirect effect of the arm"] if study.severity and _two_arms(study) else []),
        *(["equivalence and detectable effects"] if _two_arms(study) else []),
    ]
    return f"Also reported: {'; '.join(told)}." if told else ""


def _risks(run: Run) -> str:
    if not run.study.counted:
        return f"{_NOT}the report estimates no relative risk."
    return "Odds ratios are of the presence of a taxon only; beside them stands who carries it at each visit, by group."


def _power(run: Run) -> str:
    detectable = "For each contrast of the arms, the effect that this size detects with 80 % power is given."
    return detectable if _two_arms(run.study) else ""


def _outcomes(run: Run) -> str:
    if not _two_visits(run.study):
        return f"{_NOT}one visit is analysed."
    severity = " and severity" if run.study.severity else ""
    return f"Means of the skin's measures{severity} at both visits, and the change with its interval, by group."


def _verdicts(run: Run) -> str:
    found = Counter(run.claims["verdict"])
    told = ", ".join(f"{found[verdict]} {verdict}" for verdict in VERDICTS if found[verdict])
    return f"Verdicts on the claims: {told}."


def _limitations(run: Run) -> str:
    cannot = run.claims[run.claims["verdict"].eq(NOT_TESTABLE)]
    told = "; ".join(f"{row.id} ({row.reason})" for row in cannot.itertuples())
    untested = f" Not testable: {told}." if told else ""
    return f"Caveats stand in each chapter. {_allocation(run)}{untested}"


FACTS: dict[str, Callable[[Run], str]] = {
    "access": _access,
    "adjustment": _adjustment,
    "allocation": _allocation,
    "batch": _batch,
    "contaminants": _contaminants,
    "descriptive": _descriptive,
    "design": _design,
    "differential": _differential,
    "disclosure": _disclosure,
    "exposures": _exposures,
    "hypotheses": _hypotheses,
    "limitations": _limitations,
    "longitudinal": _longitudinal,
    "losses": _losses,
    "matching": _matching,
    "missing": _missing,
    "negatives": _negative_controls,
    "other": _other,
    "outcomes": _outcomes,
    "pairs": _pairs,
    "people": _people,
    "power": _power,
    "profiling": _profiling,
    "quality": _quality,
    "quantification": _quantification,
    "replicates": _replicates,
    "results": _results,
    "risks": _risks,
    "rule": _rule,
    "sensitivity": _sensitivity,
    "specimens": _specimens,
    "statistics": _statistics,
    "strata": _strata,
    "subgroups": _subgroups,
    "swabs": _swabs,
    "taxonomy": _taxonomy,
    "transformations": _transformations,
    "variables": _variables,
    "verdicts": _verdicts,
    "visits": _visits,
}
