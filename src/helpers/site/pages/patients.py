"""Every patient at both visits: who is marked in one measure is marked in all."""

import pandas as pd

from helpers.evidence import Data
from helpers.figures import italicise
from helpers.files import CLAIMS_TABLE
from helpers.measures import PATHOGEN, POSITION, axis, taxa_named
from helpers.output import save_figure
from helpers.site.figures import before_after
from helpers.site.interactive import chart_html, patients
from helpers.site.pages import Run, figure_html, prose, raw, script
from helpers.study import Study
from helpers.visits import paired

NAME = "patients"


def page(run: Run) -> str:
    """The page; empty without patients who came twice, and where single people may not be told."""
    study = run.study
    if run.data is None or study.privacy.small_cells != "show":
        return ""
    table, measures = both_visits(run.data, study)
    if table.empty:
        return ""
    labels = study.labels.model_dump()
    fig = before_after(table, measures, labels)
    italicise(fig, taxa_named(run.claims["measure"], study))
    save_figure(fig, run.files, NAME, simulated=study.simulated)
    drawn = figure_html(NAME, vars(fig)["alt"], vars(fig)["caption"], run.files, CLAIMS_TABLE)
    chart = chart_html(patients(table.drop(columns="who"), measures, labels), vars(fig)["alt"], drawn)
    told = prose("patients", patients=len(table), labels=labels)
    return "\n\n".join(["# Patients", raw(told + chart + script())])


def both_visits(data: Data, study: Study) -> tuple[pd.DataFrame, list[str]]:
    """The patients who came twice: ``who``, ``arm`` in words, each measure before and after; and labels of these."""
    keys = [POSITION, PATHOGEN, *(s.name for s in study.severity[:1])]
    known = {axis(k, study): k for k in keys if k in data.followed and data.followed[k].notna().any()}
    visits = {"before": "y0", "after": "y1"}
    pairs = {label: paired(data.followed, key).set_index("subject") for label, key in known.items()}
    table = pd.DataFrame({f"{label}, {w}": p[y] for label, p in pairs.items() for w, y in visits.items()})
    who = next(iter(pairs.values()))["who"] if pairs else pd.Series(dtype=object)
    table = table.dropna().assign(who=who, arm=who.map(study.labels.model_dump()))
    return table[table["who"].ne("control")].reset_index(drop=True), list(known)
