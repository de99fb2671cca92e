"""Who an answer rests on: the people of a question, one row each, as its estimator takes them."""

import pandas as pd

from helpers import treatment
from helpers.evidence import Asked, Data, arm_covariates, change_pairs, near_clear, with_improvement
from helpers.study import Study
from helpers.visits import paired, with_controls


def people(asked: Asked, data: Data, study: Study) -> pd.DataFrame:
    """The people whom a question is about and of whom all is known that it needs.

    Returns
    -------
    DataFrame
        One row a person: ``who``; of a change or a difference between the arms ``before`` and ``after``; of patients
        against others ``after``, their value; of a link ``after`` and ``x``, what it is linked with: a severity score,
        or improvement in per cent, where ``after`` is the change.
    """
    group = study.adjust.group
    baseline = data.visits[data.visits["visit"].eq("baseline")]
    names = {"y0": "before", "y1": "after", asked.measure: "after", asked.score: "x"}
    match asked.contrast:
        case "group":
            found, needed = baseline.assign(who=baseline["group"].astype(object)), [asked.measure, *group]
        case "severity":
            found, needed = baseline[baseline["case"]], [asked.measure, asked.score, *group]
            needed = [column for column in needed if column]
        case "change" | "change_in":
            pairs = change_pairs(asked, data, study)
            found, needed = pairs[pairs["who"].eq(asked.arm)], ["change"]
        case "arms":
            found = treatment.arms(paired(data.followed, asked.measure))
            needed = ["y0", "y1", *arm_covariates(asked, study)]
        case "arms_given_improvement":
            found = with_improvement(asked.measure, data.followed, study)
            needed = ["y0", "y1", *arm_covariates(asked, study), "improvement"]
            found, names = found.assign(x=100 * found["improvement"]), {"y0": "before", "change": "after"}
        case _:
            found = with_controls(data.visits, near_clear(data.visits, study, asked.arm))
            needed = [asked.measure, *group]
    if not set(needed) <= set(found):
        return pd.DataFrame(columns=["who", "before", "after", "x"])
    return found.dropna(subset=needed).rename(columns=names).reindex(columns=["who", "before", "after", "x"])
