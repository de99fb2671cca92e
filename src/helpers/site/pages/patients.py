"""Every patient at both visits: who is marked in one measure is marked in all."""

import pandas as pd

from helpers.evidence import Data
from helpers.figures import italicise
from helpers.files import CLAIMS_TABLE
from helpers.measures import PATHOGEN, POSITION, axis, taxa_named
from helpers.output import save_figure
from helpers.site.figures import before_after
from helpers.site.interactive import chart_html, patients
from helpers.site.pages import Run, figure_html, raw, script
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
    chart = chart_html(patients(table, measures, labels), "Each patient before and after, by measure", drawn)
    told = (
        f"<p>{len(table)} patients who came to {labels['baseline']} and {labels['followup']}, a mark each: before "
        "across, after upwards; below the line a value fell. Drag over marks of one panel to see the same patients in "
        "the others; point at a mark for its values. Names and dates are not in this page.</p>"
    )
    return "\n\n".join(["# Patients", raw(told + chart + script())])


def both_visits(data: Data, study: Study) -> tuple[pd.DataFrame, dict[str, str]]:
    """The patients who came twice: ``who``, ``arm`` in words, and each measure before and after; and its labels."""
    keys = [POSITION, PATHOGEN, *(s.name for s in study.severity[:1])]
    known = [key for key in keys if key in data.followed and data.followed[key].notna().any()]
    pairs = [paired(data.followed, key).set_index("subject") for key in known]
    each = {
        f"{key} {when}": pair[y]
        for key, pair in zip(known, pairs, strict=True)
        for y, when in (("y0", "before"), ("y1", "after"))
    }
    who = pairs[0]["who"] if pairs else pd.Series(dtype=object)
    table = pd.DataFrame(each).assign(who=who, arm=who.map(study.labels.model_dump()))
    table = table[table["who"].ne("control")].dropna(subset=list(each), how="any")
    return table.reset_index(drop=True), {key: axis(key, study) for key in known}
