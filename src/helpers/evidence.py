"""A claim and the measures → estimates: one function a kind of contrast, with what it needs and how it is said.

Notebooks, simulations and the check of a study ask here, and nowhere else: what is changed here changes all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats

from helpers import estimates, longitudinal, narrate, response, sensitivity, taxa, treatment
from helpers.claims import EXPECT, KEY, ONE_SIDED, Claim, Part, why_not
from helpers.measures import DISTANCE, OFF_AXIS, OTHER_AXES, PATHOGEN, POSITION, by_visit, find
from helpers.study import FEW, SMALL, VOCABULARY, Settings, Study
from helpers.texts import packaged
from helpers.visits import cases_and_controls, compared, paired, same_sites, sites_at_baseline, who, with_controls

Estimates = dict[str, dict[str, Any]]
#: Strata in words.
AMONG = {
    "": "", "lesional": "lesional at baseline", "non_lesional": "not lesional at baseline",
    "non_responders": "non-responders",
}  # fmt: skip
#: Contrast and arm of an uncontrolled change on which claims of an effect rest.
CHANGE = ("change", "treatment")
NO_MARGIN = "there is no standard deviation of controls to set the margin by"
NEEDS_COUNTS = "the study gives relative abundances, and this needs counts"


class Asked(NamedTuple):
    """A question to the data; claims that ask the same get the same answer."""

    measure: str
    contrast: str
    #: Of the contrasts of one arm: treatment, comparator; of a change also control.
    arm: str = ""
    #: Of a change in a stratum: a key of `AMONG`.
    among: str = ""
    #: Of a link with severity: the score.
    score: str = ""


def asked_of(row: Mapping[str, Any]) -> Asked:
    """The question that a row answers."""
    return Asked(*(row[field] for field in Asked._fields))


def _alike(found: pd.DataFrame, asked: Asked, *but: str) -> pd.Series:
    """Which answers are to a question, or to one that differs from it only in some fields."""
    fields = {field: value for field, value in asked._asdict().items() if field not in but}
    return found[list(fields)].eq(fields).all(axis=1)


class Data(NamedTuple):
    """The swabs that are compared; the same by patient and visit; and these of the sites swabbed at both visits."""

    obs: pd.DataFrame
    visits: pd.DataFrame
    followed: pd.DataFrame
    #: And the swabs of all visits and arms.
    course: pd.DataFrame


def data_of(course: pd.DataFrame, keys: Sequence[str]) -> Data:
    """The swabs of all visits, which have columns of measures: those that are compared, by patient and visit, too."""
    obs = compared(course)
    return Data(obs, by_visit(obs, keys), by_visit(obs[same_sites(obs)], keys), course)


class Contrast(NamedTuple):
    """A kind of contrast."""

    #: What it finds, by estimator; the first is what claims rest on, the others stand beside it.
    estimate: Callable[[Asked, Data, Study, Settings], Estimates]
    #: What must be there: keys of `lacking`.
    needs: Callable[[Asked], Sequence[str]]
    #: What was found, as a sentence: of the answer that stands, and of those beside it, by estimator.
    told: Callable[[dict[str, Any], Mapping[str, dict[str, Any]], Study], str]
    #: The notebooks' section for each kind of measure.
    sections: Mapping[str, str]
    #: What was estimated.
    words: str

    def what(self, label: str, asked: Asked, study: Study) -> str:
        """What was estimated, in the study's words, of a measure by its label."""
        labels = study.labels.model_dump()
        words = labels | {"arm": labels.get(asked.arm, ""), "among": AMONG[asked.among]}
        return self.words.format(label=label, score=study.column_names().get(asked.score, "severity"), **words)


#: Estimates that stand beside a change, or a difference, on which claims rest.
WITHIN_RUNS, SITE_EFFECTS, IMPUTED = "within runs", "site effects", "imputed"
ALL_VISITS = "mixed model of all visits"
LESS_CONTROLS, BEYOND_REGRESSION = "less the controls' change", "beyond regression to the mean"


# --- the contrasts ---------------------------------------------------------------------------------------------------


def group(asked: Asked, data: Data, study: Study, settings: Settings) -> Estimates:
    """Patients against controls at baseline, adjusted: ordinary least squares, HC3; the same within runs beside it."""
    baseline, adjust = data.visits[data.visits["visit"].eq("baseline")], study.adjust.group
    difference = estimates.linear_contrast(baseline, asked.measure, "case", adjust, alpha=settings.alpha)
    delta = estimates.cliffs_delta(*cases_and_controls(baseline, asked.measure))
    found = {"OLS": difference | {"cliffs_delta": delta}}
    if "batch" not in baseline:
        return found
    within = [c for c in adjust if c != "batch"]
    pooled = estimates.by_run(baseline, asked.measure, "case", within, "batch", alpha=settings.alpha)
    return found | ({WITHIN_RUNS: pooled} if np.isfinite(pooled["estimate"]) else {})


def severity(asked: Asked, data: Data, study: Study, settings: Settings) -> Estimates:
    """Link with a severity score among patients at baseline: partial Spearman correlation, bootstrap interval."""
    if not asked.score:
        return {"partial Spearman": estimates.not_estimable(0)}
    patients = data.visits[data.visits["visit"].eq("baseline") & data.visits["case"]]
    rho = estimates.partial_spearman(patients, asked.measure, asked.score, study.adjust.group, **_resampling(settings))
    return {"partial Spearman": rho}


def change(asked: Asked, data: Data, study: Study, settings: Settings) -> Estimates:
    """Mean change between the visits in one group, uncontrolled, over sites swabbed at both visits.

    Beside it what the change would be less the controls' own, beyond regression to the mean, and with the lost imputed;
    where there are several sites or more visits, by a mixed model of all swabs, which stands for it where too few have
    a site at both visits.
    """
    pairs = change_pairs(asked, data, study)
    own, healthy = pairs[pairs["who"].eq(asked.arm)], pairs[pairs["who"].eq("control")]
    found = {"mean change": _mean_change(own, settings)}
    modelled = _mixed(asked, data, study, settings, [asked.arm])
    found = modelled | found if np.isnan(found["mean change"]["estimate"]) else found | modelled
    if asked.arm != "control" and _rests_on(asked.measure, study) and own["change"].count() >= FEW:
        drift = estimates.linear_contrast(pd.concat([own, healthy]), "change", "case", alpha=settings.alpha)
        sign = healthier(asked.measure, data.visits, study)
        enrolled_by = study.severity[0].name if study.severity else None
        beyond = sensitivity.beyond_regression(own, healthy, sign, enrolled_by, **_resampling(settings))
        alike = [c for c in arm_covariates(asked, study) if c in own]
        whole = sensitivity.imputed(
            own, lambda p: estimates.mean_change(p["change"], alpha=settings.alpha), alike, **_imputing(settings)
        )
        beside = {LESS_CONTROLS: drift, BEYOND_REGRESSION: beyond, IMPUTED: whole}
        found |= {name: each for name, each in beside.items() if not np.isnan(each["estimate"])}
    return found


def _mixed(
    asked: Asked, data: Data, study: Study, settings: Settings, arms: Sequence[str], covariates: Sequence[str] = ()
) -> Estimates:
    """The mixed model of all swabs, where there are more than two visits, or several sites."""
    swabs = data.course[who(data.course).isin(arms)]
    if find(asked.measure, study).kind == "severity":  # one value a patient and visit, however many swabs
        swabs = by_visit(swabs, [asked.measure]).assign(site="")
    name = ALL_VISITS if swabs["visit"].nunique() > len(VOCABULARY["visit"]) else SITE_EFFECTS
    if who(swabs).nunique() < len(arms) or (name == SITE_EFFECTS and swabs["site"].nunique() < 2):
        return {}
    found = longitudinal.mixed_contrast(swabs, asked.measure, covariates, alpha=settings.alpha)
    return {} if np.isnan(found["estimate"]) else {name: found}


def _imputing(settings: Settings) -> dict[str, Any]:
    return {"imputations": max(5, settings.bootstraps // 50), "seed": settings.seed, "alpha": settings.alpha}


def _rests_on(measure: str, study: Study) -> bool:
    """Whether it is a measure of the skin for its own sake, and not one that stands beside another."""
    return find(measure, study).kind != "severity" and measure not in (*OTHER_AXES, OFF_AXIS, DISTANCE)


def change_in(asked: Asked, data: Data, study: Study, settings: Settings) -> Estimates:
    """Mean change between the visits in a stratum of one arm: sites by their state at baseline, or non-responders."""
    pairs = change_pairs(asked, data, study)
    return {"mean change": _mean_change(pairs[pairs["who"].eq(asked.arm)], settings)}


def change_pairs(asked: Asked, data: Data, study: Study) -> pd.DataFrame:
    """Pairs of visits of everybody, or in the stratum that is asked."""
    visits = data.followed
    if asked.among in ("lesional", "non_lesional"):
        sites = sites_at_baseline(data.obs, lesional=asked.among == "lesional") & same_sites(data.obs)
        visits = by_visit(data.obs[sites], [asked.measure])
    pairs = paired(visits, asked.measure)
    if asked.among == "non_responders":
        # Whoever was lost has no response: nobody knows whether they belong here, and they are counted as lost.
        improved = pairs["subject"].map(response.improvement(visits, study.severity))
        pairs = pairs.assign(change=pairs["change"].where(improved.notna()))
        pairs = pairs[~(improved >= study.response.non_responder)]
    return pairs


def _resampling(settings: Settings) -> dict[str, Any]:
    return {"bootstraps": settings.bootstraps, "seed": settings.seed, "alpha": settings.alpha}


def _mean_change(pairs: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    both = pairs.dropna(subset="change")
    found = estimates.mean_change(pairs["change"], alpha=settings.alpha)
    if len(both) < FEW:
        found = estimates.not_estimable(len(both), len(pairs) - len(both))
    return found | {"baseline": both["y0"].mean(), "followup": both["y1"].mean()}


def arms(asked: Asked, data: Data, study: Study, settings: Settings) -> Estimates:
    """Treatment against comparator at follow-up: ANCOVA.

    The change score, overlap weights, the mixed model of all swabs, and ANCOVA with the lost imputed beside it.
    """
    pairs, adjust = treatment.arms(paired(data.followed, asked.measure)), arm_covariates(asked, study)
    found = treatment.arm_contrasts(pairs, adjust, **_resampling(settings)).to_dict("index")
    found |= _mixed(asked, data, study, settings, VOCABULARY["arm"], adjust)
    if not _rests_on(asked.measure, study):
        return found
    ancova = partial(treatment.ancova, covariates=adjust, alpha=settings.alpha)
    whole = sensitivity.imputed(pairs, ancova, ["treated", *adjust], **_imputing(settings))
    return found | ({} if np.isnan(whole["estimate"]) else {IMPUTED: whole})


def arms_given_improvement(asked: Asked, data: Data, study: Study, settings: Settings) -> Estimates:
    """The same at equal improvement of severity: the direct effect; total and indirect effect beside it."""
    pairs, adjust = with_improvement(asked.measure, data.followed, study), arm_covariates(asked, study)
    effects = treatment.mediation(pairs, "improvement", adjust, **_resampling(settings)).to_dict("index")
    return {"direct": effects.pop("direct"), **effects}


def against_controls(asked: Asked, data: Data, study: Study, settings: Settings) -> Estimates:
    """Near-clear patients of an arm at follow-up against controls, if neither are few.

    With the larger of robust and plain errors.
    """
    both = with_controls(data.visits, near_clear(data.visits, study, asked.arm))
    known, adjust = both.dropna(subset=asked.measure), study.adjust.group
    if known["case"].value_counts().reindex([True, False], fill_value=0).min() < FEW:
        return {"OLS": estimates.not_estimable(len(known), len(both) - len(known))}
    return {"OLS": estimates.linear_contrast(both, asked.measure, "case", adjust, cautious=True, alpha=settings.alpha)}


def with_improvement(measure: str, visits: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Pairs of visits of the patients with an arm, and their improvement as a share."""
    improved = response.improvement(visits, study.severity) / 100
    return treatment.arms(paired(visits, measure).join(improved, on="subject"))


def near_clear(visits: pd.DataFrame, study: Study, arm: str) -> pd.Index:
    """The patients of an arm whose severity improved to near clear."""
    improved = response.improvement(visits, study.severity)
    of_arm = visits.loc[visits["who"].eq(arm) & visits["visit"].eq("baseline"), "subject"]
    return improved.index[improved >= study.response.near_clear].intersection(of_arm)


def arm_covariates(asked: Asked, study: Study) -> list[str]:
    """Covariates of the arms, less the outcome, whose baseline value is one anyway."""
    return [c for c in study.adjust.arm if c != asked.measure]


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


# --- how they are said -----------------------------------------------------------------------------------------------


Beside = Mapping[str, dict[str, Any]]


def _told_group(row: dict[str, Any], beside: Beside, study: Study) -> str:
    told = narrate.compared(row["label"], row, row["unit"], study.labels.case, study.labels.control)
    return f"{told} {narrate.beside(row, {k: v for k, v in beside.items() if k == WITHIN_RUNS})}".strip()


def _told_change(row: dict[str, Any], beside: Beside, study: Study) -> str:
    who = getattr(study.labels, row["arm"])
    stratum = f", {AMONG[row['among']]}" if row["among"] else ""
    told = narrate.changed(row["label"], row, row["unit"], f"{who}{stratum}")
    return f"{told} {narrate.beside(row, beside)}".strip()


def _told_arms(row: dict[str, Any], beside: Beside, study: Study) -> str:
    given = ", given improvement" if row["contrast"] == "arms_given_improvement" else ""
    what = f"{row['label']} at {study.labels.followup}{given}"
    told = narrate.compared(what, row, row["unit"], study.labels.treatment, study.labels.comparator)
    return f"{told} {narrate.beside(row, {k: v for k, v in beside.items() if k == ALL_VISITS})}".strip()


def _told_against(row: dict[str, Any], beside: Beside, study: Study) -> str:
    who = getattr(study.labels, row["arm"])
    what = f"{row['label']}, near-clear patients under {who} against {study.labels.control}"
    return narrate.equivalent(what, row, row["unit"], alpha=1 - row["level"] / 100)


def _told_severity(row: dict[str, Any], beside: Beside, study: Study) -> str:
    return narrate.linked(row["label"], study.column_names().get(row["score"], "severity"), row)


_WORDS = packaged("contrasts.yaml")
#: Every kind of contrast; claims name them.
CONTRASTS = {
    estimate.__name__: Contrast(estimate, needs, told, **_WORDS[estimate.__name__])
    for estimate, needs, told in (
        (group, lambda asked: ("patients", "controls"), _told_group),
        (severity, lambda asked: ("severity", "patients"), _told_severity),
        (change, lambda asked: (asked.arm,), _told_change),
        (
            change_in,
            lambda asked: (*["severity"] * (asked.among == "non_responders"), asked.arm, f"{asked.among} {asked.arm}"),
            _told_change,
        ),
        (arms, lambda asked: ("both arms",), _told_arms),
        (arms_given_improvement, lambda asked: ("severity", "both arms"), _told_arms),
        (
            against_controls,
            lambda asked: ("controls", "severity", asked.arm, f"near clear {asked.arm}"),
            _told_against,
        ),
    )
}


# --- what a study lacks ----------------------------------------------------------------------------------------------


def lacking(swabs: AnnData, study: Study) -> dict[str, str]:
    """What a contrast may need and the study does not have, each with the reason; empty if nothing is lacking."""
    obs = compared(swabs.obs)
    visits = by_visit(obs.drop(columns=swabs.uns.get("measures", [])), [])
    first, last = (visits[visits["visit"].eq(v)].set_index("subject") for v in ("baseline", "followup"))
    pairs = first[first.index.isin(last.index)]
    labels, no_axis = study.labels.model_dump(), swabs.uns.get("no_axis", {})
    there: dict[str, tuple[object, str]] = {
        "counts": (study.counted, NEEDS_COUNTS),
        "tree": ("tree" in swabs.uns, "the study gives no tree"),
        "load": ("load" in obs and obs["load"].notna().any(), "the study measured no bacterial load"),
        "patients": (first["group"].eq("case").any(), "the study has no patients at baseline"),
        "controls": (first["group"].eq("control").any(), "the study has no controls at baseline"),
        "severity": (study.severity, "study.yaml names no severity score"),
        **{f"axis of {key}": (not (why := no_axis.get(key, "")), why) for key in (POSITION, *OTHER_AXES)},
    }
    counts, both = pairs["who"].value_counts(), "with swabs of both visits"
    people = {"control": (counts.get("control", 0), f"of {labels['control']} {both}")}
    improved = response.improvement(visits, study.severity).reindex(pairs.index)
    for arm in VOCABULARY["arm"]:
        of_arm, under = pairs["arm"].eq(arm), f"under {labels[arm]}"
        clear, low = improved.ge(study.response.near_clear), improved.lt(study.response.non_responder)
        people[arm] = of_arm.sum(), f"{under} {both}"
        people[f"near clear {arm}"] = (of_arm & clear).sum(), f"near clear {under}"
        people[f"non_responders {arm}"] = (of_arm & low).sum(), f"{under} who improved by less than a response"
        for among in ("lesional", "non_lesional"):
            sites = sites_at_baseline(obs, lesional=among == "lesional") & obs["arm"].eq(arm)
            chosen = " (settings.swabs leaves others out)" if study.settings.swabs != "all" else ""
            skin = f"{under} {both}, of those that are compared, of skin {AMONG[among]}{chosen}"
            people[f"{among} {arm}"] = obs[sites].groupby("subject")["visit"].nunique().eq(2).sum(), skin
    people["both arms"] = min(people[arm][0] for arm in VOCABULARY["arm"]), f"in one of two arms {both}"
    for need, (n, who_they_are) in people.items():
        enough, none = n >= study.privacy.enough, "are too few people" if n else "is nobody"
        there[need] = enough, f"there {none} {who_they_are}"
    if not people["both arms"][0]:
        there["both arms"] = False, "the study has no second arm with patients at both visits"
    but = f" (groups of {SMALL} or fewer are not shown)" if study.privacy.fewest else ""
    return {need: "" if found else f"{reason}{but}" for need, (found, reason) in there.items()}


def cannot(asked: Asked, expect: str | None, lacks: Mapping[str, str], swabs: AnnData, study: Study) -> str:
    """Why a question has no answer here; empty if nothing stands against it.

    `expect` is what a claim expects of it, `lacks` as from `lacking`.
    """
    measure = find(asked.measure, study)
    from_data = expect is not None and expect.endswith("healthier") and not measure.healthier
    needed = [need for need in measure.needs if need in lacks]
    needed += [*(("patients", "controls") if from_data else ()), *CONTRASTS[asked.contrast].needs(asked)]
    named = {*swabs.var["genus"], *swabs.var["species"]}
    unnamed = [f"no read is named {need}" for need in measure.needs if need not in lacks and need not in named]
    needed.sort(key=lambda need: need.startswith("axis "))  # the axis is a matter of the data, not of the design
    return next(filter(None, [*(lacks[need] for need in needed), *unnamed]), "")


# --- asking ----------------------------------------------------------------------------------------------------------


def questions(part: Part, study: Study) -> list[Asked]:
    """What a part of a claim asks: one question, or one a severity score."""
    asked = Asked(part.measure, part.contrast, part.arm or "", part.among or "")
    scores = [s.name for s in study.severity] or [""]
    return [asked._replace(score=score) for score in scores] if part.contrast == "severity" else [asked]


def parts_of(claims: Mapping[str, Claim], study: Study) -> list[tuple[str, Part, Asked]]:
    """Every question of every part of claims, with the claim's name and the part."""
    each = ((name, part) for name, claim in claims.items() for part in claim.parts)
    return [(name, part, asked) for name, part in each for asked in questions(part, study)]


def asked_by(claims: Mapping[str, Claim], study: Study) -> list[Asked]:
    """All that claims ask, each question once."""
    return list(dict.fromkeys(asked for _, _, asked in parts_of(claims, study)))


def section_of(asked: Asked, study: Study) -> str:
    """Heading of the section that shows the answer."""
    return CONTRASTS[asked.contrast].sections[find(asked.measure, study).kind]


def answers(asked: Iterable[Asked], swabs: AnnData | Data, study: Study, settings: Settings) -> pd.DataFrame:
    """Estimate what is asked; `swabs` are as from `helpers.measures.measured`, or what `data_of` makes of them.

    One row a question and estimator: the fields of `Asked`; estimator; ``stands``, true of that on which claims rest;
    what, label, unit, scale, section; the keys of `helpers.estimates.ESTIMATE`, NaN where it cannot be estimated;
    margin (`equivalence_margin` standard deviations of the controls at baseline) and p_equivalence; and what an
    estimator has of its own. Where small cells are suppressed, as coarse as they may be shown.
    """
    return _as_shown(_exact(asked, swabs, study, settings), study)


def _exact(asked: Iterable[Asked], swabs: AnnData | Data, study: Study, settings: Settings) -> pd.DataFrame:
    data = swabs if isinstance(swabs, Data) else data_of(swabs.uns.get("course", swabs.obs), swabs.uns["measures"])
    rows = answer_records(asked, data, study, settings)
    return pd.DataFrame(rows, columns=None if rows else [*Asked._fields, "stands", *COLUMNS])


def _as_shown(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    return estimates.coarse(rows) if study.privacy.fewest else rows


def answer_records(asked: Iterable[Asked], data: Data, study: Study, settings: Settings) -> list[dict[str, Any]]:
    """The rows of `answers`, which has NaN where one of them lacks a key."""
    rows = []
    for question in dict.fromkeys(asked):
        measure, contrast = find(question.measure, study), CONTRASTS[question.contrast]
        linked = question.contrast == "severity"
        about = {
            **question._asdict(),
            "what": contrast.what(measure.label, question, study),
            "label": measure.label,
            "unit": "ρ" if linked else measure.unit,
            "scale": measure.scale,
            "section": section_of(question, study),
            "sd": np.nan if linked else estimates.control_sd(data.visits, question.measure),
        }
        margin = settings.equivalence_margin * about["sd"]
        every = contrast.estimate(question, data, study, settings)
        if study.privacy.fewest and _smallest(question, every, data, study) < study.privacy.fewest:
            every = {name: estimates.not_estimable(e["n"], e["n_dropped"]) for name, e in every.items()}
        for i, (estimator, found) in enumerate(every.items()):
            tested = estimates.equivalence(found, margin if "unit" not in found else np.nan)
            rows.append(about | {"estimator": estimator, "stands": i == 0} | found | tested)
    return rows


def _smallest(asked: Asked, every: Estimates, data: Data, study: Study) -> int:
    """The people of the smallest group that an answer rests on."""
    if asked.contrast in ("severity", *(name for name in CONTRASTS if name.startswith("change"))):
        return min(each["n"] for each in every.values())
    return people(asked, data, study)["who"].value_counts().min()


def gather(
    claims: Mapping[str, Claim], swabs: AnnData, study: Study, settings: Settings, answered: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The evidence of claims: one tidy row a part, or a part that asks what stands in `answered`, as from `answers`.

    Columns: `helpers.claims.KEY`, which no two rows share; what stands for the part of the columns of `answers`;
    `TESTED`, with p_support of what the part claims and p_against of the contrary; detectable, the smallest effect
    found with 80 % power; sign, the direction that the claim asserts or denies (0: either); sd, of the controls;
    cannot, why it cannot be tested, empty if it can; beside, what else the effect may be.
    """
    if answered is None:
        answered = _exact(asked_by(claims, study), swabs, study, settings)
    known = {asked_of(row): row for row in standing(answered)}
    lacks, rows = lacking(swabs, study), []
    for name, part, asked in parts_of(claims, study):
        if asked not in known:
            continue
        row, visits = known[asked], by_visit(swabs.obs, [asked.measure])
        sign = sign_of(asked, part.expect, visits, study)
        tested = tested_against(row, claims[name], sign, settings)
        if not np.isnan(tested["margin"]):
            tested |= _margin_known(row, swabs.obs, settings)
        reason = cannot(asked, part.expect, lacks, swabs, study) or _not_estimated(row, claims[name], study)
        rows.append(
            {
                "claim": name,
                **asked._asdict(),
                **{k: row[k] for k in ("estimator", "what", "unit", "scale", "section", "n", "n_dropped")},
                **(dict.fromkeys(tested, np.nan) if reason else tested),
                "detectable": np.nan if reason else detectable(row, settings.alpha),
                "sign": sign,
                "sd": row["margin"] / settings.equivalence_margin,
                "cannot": reason,
                "beside": _beside(asked, answered, study),
            }
        )
    return _as_shown(pd.DataFrame(rows, columns=[*KEY, *COLUMNS]), study)


def _beside(asked: Asked, answered: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """What else an effect may be: by other estimators, and of the position in other spaces; ``by`` says how."""
    alike = _alike(answered, asked, "measure") & answered["estimate"].notna()
    own = answered["measure"].eq(asked.measure)
    space = answered["stands"] & answered["measure"].isin(OTHER_AXES if asked.measure == POSITION else ())
    rows = answered[alike & (space | (own & ~answered["stands"]))]
    rows = rows.assign(by=rows["estimator"].where(rows["measure"].eq(asked.measure), rows["label"]))
    return _as_shown(rows, study)[["by", "estimate", "ci_low", "ci_high"]].to_dict("records")


#: Of a part of a claim against a margin: what was tested and what could have been shown.
AGAINST_MARGIN = (
    "margin", "margin_low", "margin_high", "p_equivalence", "power_equivalence", "reachable_margin", "n_needed"
)  # fmt: skip
#: Of a part of a claim, what was tested: numbers.
TESTED = ("estimate", "ci_low", "ci_high", "level", "p_value", *AGAINST_MARGIN, "attainable", "p_support", "p_against")
#: Columns of `gather` after the key.
COLUMNS = (
    "estimator", "what", "unit", "scale", "section", "n", "n_dropped", *TESTED, "detectable", "sign", "sd", "cannot",
    "beside",
)  # fmt: skip


def detectable(row: Mapping[str, Any], alpha: float) -> float:
    """The smallest effect that a two-sided test finds with 80 % power; where no error is told, from the interval.

    Of a correlation, by Fisher's transformation, since none exceeds 1.
    """
    of_rho, ends = row["contrast"] == "severity", stats.norm.ppf([1 - alpha / 2, 0.8])
    if not of_rho and np.isfinite(found := estimates.minimum_detectable_effect(dict(row), alpha=alpha)):
        return found
    low, high = (np.arctanh(row[end]) if of_rho else row[end] for end in ("ci_low", "ci_high"))
    found = float(ends.sum() / ends[0] * (high - low) / 2)
    return float(np.tanh(found)) if of_rho else found


def tested_against(row: Mapping[str, Any], claim: Claim, sign: int, settings: Settings) -> dict[str, float]:
    """The numbers of a part, `TESTED`: its test, against zero or against the margin, and the test of the contrary.

    The interval of a claim against a margin is that of its two one-sided tests: it covers 1 - 2 alpha. What the study
    could show is told from the error alone, whatever was estimated. How well the margin is known is left blank.

    `row` is of `answers`, `sign` as from `sign_of`.
    """
    numbers = {key: row[key] for key in ("estimate", "ci_low", "ci_high", "level", "p_value")}
    if not claim.against_margin:
        p, claimed = row["p_value"], np.sign(row["estimate"]) == sign
        shown = {"attainable": 1.0, "p_support": p if claimed else 1.0, "p_against": 1.0 if claimed else p}
        return numbers | dict.fromkeys(AGAINST_MARGIN, np.nan) | shown
    se, df, margin, alpha = row["se"], row["df"], row["margin"], settings.alpha
    one_sided = sign if claim.kind in ONE_SIDED else 0
    tested, contrary = (estimates.equivalence(dict(row), margin, side) for side in (one_sided, sign))
    half = stats.t.ppf(1 - alpha, df) * se
    span = {"ci_low": row["estimate"] - half, "ci_high": row["estimate"] + half, "level": 100 * (1 - 2 * alpha)}
    reach = estimates.equivalence_reach(se, df, row["n"], margin, one_sided, alpha=alpha)
    shown = {"p_support": tested["p_equivalence"], "p_against": 1 - contrary["p_equivalence"]}
    return numbers | dict.fromkeys(AGAINST_MARGIN, np.nan) | span | tested | reach | shown


def _margin_known(row: Mapping[str, Any], obs: pd.DataFrame, settings: Settings) -> dict[str, float]:
    healthy = obs["group"].eq("control") & obs["visit"].eq("baseline")
    controls = obs[healthy].groupby("subject", observed=True)[row["measure"]].mean()
    span = estimates.margin_interval(controls, settings.equivalence_margin, **_resampling(settings))
    return dict(zip(("margin_low", "margin_high"), span, strict=True))


def _not_estimated(row: Mapping[str, Any], claim: Claim, study: Study) -> str:
    if np.isnan(row["estimate"]):
        where = "" if row["n"] < study.privacy.enough else "in one of the groups "
        few = f"too few people {where}have what is needed (n = {study.privacy.shown(row['n'])})"
        return few if study.counted else NEEDS_COUNTS
    if claim.against_margin and np.isnan(row["p_equivalence"]):
        return NO_MARGIN
    return ""


def sign_of(asked: Asked, expect: str | None, visits: pd.DataFrame, study: Study) -> int:
    """The direction that a claim asserts or denies: 1 up, -1 down, 0 either."""
    if expect is None or not expect.endswith("healthier"):
        return EXPECT[expect] if expect else 0
    return healthier(asked.measure, visits, study)


def healthier(measure: str, visits: pd.DataFrame, study: Study) -> int:
    """The healthier direction of a measure; the controls tell it at baseline where the registry does not."""
    if known := find(measure, study).healthier:
        return known
    cases, controls = cases_and_controls(visits[visits["visit"].eq("baseline")], measure)
    return 1 if controls.mean() >= cases.mean() else -1


def untestable(claims: Mapping[str, Claim], swabs: AnnData, study: Study) -> dict[str, str]:
    """Why the study's shape leaves a claim, or a part of it, without a test: a reason, or nothing, by claim."""
    lacks, found = lacking(swabs, study), {}
    for name, claim in claims.items():
        asked = [(a, part.expect) for part in claim.parts for a in questions(part, study)]
        margin = lacks["controls"] and NO_MARGIN if claim.against_margin else ""
        reasons = [cannot(a, expect, lacks, swabs, study) or margin for a, expect in asked]
        whats = [CONTRASTS[a.contrast].what(find(a.measure, study).label, a, study) for a, _ in asked]
        found[name] = why_not(whats, reasons)
    return found


def told(row: Mapping[str, Any], found: pd.DataFrame, study: Study) -> str:
    """What was found, as a sentence whose direction is that of the data.

    `row` is one that stands of `found`, the answers, which have those that stand beside it. Or why nothing can be.
    """
    if why := row.get("cannot"):
        return f"{why[0].upper()}{why[1:]}."
    same = found[_alike(found, asked_of(row)) & ~found["stands"]]
    beside = {each["estimator"]: each for each in same.to_dict("records")}
    return CONTRASTS[row["contrast"]].told(dict(row), beside, study)


def overturning(claims: Mapping[str, Claim], swabs: AnnData, study: Study, settings: Settings) -> pd.DataFrame:
    """What would have to be true for the shown changes and differences of claims to be none.

    One row a part of a claim of a direction, a difference between the arms, or a change under treatment whose interval
    excludes zero: claim, what, unit, scale; ``lost``, ``of`` and ``tipping`` (`sensitivity.tipping_point`, of the
    treatment arm's lost); ``load`` (`sensitivity.load_to_overturn`, of a CLR); of a difference also ``robustness`` and
    ``robustness_interval`` (`sensitivity.robustness_value`), and ``strongest``, the covariate that would remove most if
    there were another as strong, with ``removes`` (`sensitivity.strength_of`).
    """
    followed = by_visit(swabs.obs[same_sites(swabs.obs)], swabs.uns["measures"])
    asked = [a for _, part, a in parts_of(claims, study) if a.contrast == "arms" or (a.contrast, a.arm) == CHANGE]
    found = _exact(asked, swabs, study, settings)
    parts = gather(claims, swabs, study, settings, found).query("margin.isna() and cannot == ''")
    rows = []
    for part in parts[(parts["p_value"] < settings.alpha) | parts["contrast"].eq("arms")].to_dict("records"):
        question = asked_of(part)
        pairs = treatment.arms(paired(followed, question.measure))
        treated = pairs[pairs["treated"] & pairs[["y0", "y1"]].notna().any(axis=1)]
        lost, of = int(treated["change"].isna().sum()), len(treated)
        row = {key: part[key] for key in ("claim", "what", "unit", "scale")} | {"lost": lost, "of": of}
        # It tells the share of the lost to whoever knows the interval.
        row["tipping"] = np.nan if lost < study.privacy.fewest else sensitivity.tipping_point(part, lost, of)
        row["load"] = sensitivity.load_to_overturn(part) if part["unit"] == "CLR" else np.nan
        if question.contrast == "arms":
            given = ["y0", *arm_covariates(question, study)]
            row |= sensitivity.confounding(pairs, "y1", "treated", given, alpha=settings.alpha)
            names = study.column_names() | {"y0": "the baseline value"}
            row |= {"strongest": names.get(row.get("strongest", ""), row.get("strongest", ""))}
        rows.append(row)
    return pd.DataFrame(rows)


def if_unnamed_were_the_pathogen(swabs: AnnData, study: Study, settings: Settings) -> pd.DataFrame:
    """The pathogen's difference at baseline and change under treatment, in two scenarios of the unnamed reads.

    Rows as from `answers`; ``unnamed``: ``none`` of the genus's reads without a species name are the pathogen's, or
    ``all``.
    """
    asked = [Asked(PATHOGEN, "group"), Asked(PATHOGEN, "change", "treatment")]
    species = taxa.aggregate(swabs, "species")
    bounds = {"none": species, "all": taxa.reassign_unnamed(species, study.taxa.genus, study.taxa.pathogen)}
    found = []
    for unnamed, table in bounds.items():
        bounded = data_of(swabs.obs.assign(**{PATHOGEN: taxa.clr(table).get(study.taxa.pathogen, np.nan)}), [PATHOGEN])
        found.append(answers(asked, bounded, study, settings).query("stands").assign(unnamed=unnamed))
    columns = ["what", "unnamed", *estimates.ESTIMATE]
    return pd.concat(found).sort_values("contrast", kind="stable", ascending=False)[columns].reset_index(drop=True)


# --- what a chapter shows --------------------------------------------------------------------------------------------


class Section(NamedTuple):
    """What a section of a chapter shows."""

    #: As from `answers`, with ``claims``, those that rest on it.
    found: pd.DataFrame
    #: As from `gather`.
    parts: pd.DataFrame
    #: What the claims of no change among them could show, as a sentence each: it does not depend on the estimates.
    reach: str
    #: As from `sentences`, then `seen_otherwise`.
    told: list[str]


def of_section(
    section: str, claims: dict[str, Claim], swabs: AnnData, study: Study, settings: Settings, also: Iterable[Asked] = ()
) -> Section:
    """What a section of a chapter shows, by its heading: what it asks for its own sake, `also`, and what claims ask."""
    asked = [*also, *(a for a in asked_by(claims, study) if section_of(a, study) == section)]
    # Beside the position on the axis: without the genus, in other spaces, and off the axis.
    others = [key for key in (*OTHER_AXES, OFF_AXIS) if key in swabs.uns["measures"] and swabs.obs[key].notna().any()]
    asked += [a._replace(measure=key) for a in asked if a.measure == POSITION and a.arm != "control" for key in others]
    exact = _exact(asked, swabs, study, settings)
    parts, found = gather(claims, swabs, study, settings, exact), _as_shown(exact, study)
    names = parts.groupby(list(Asked._fields))["claim"].agg(", ".join)
    found["claims"] = [names.get(asked_of(row), "") if row["stands"] else "" for row in found.to_dict("records")]
    lacks, unknown = lacking(swabs, study), found[found["estimate"].isna()].to_dict("records")
    why = {asked_of(row): cannot(asked_of(row), None, lacks, swabs, study) for row in unknown}
    found["cannot"] = [why.get(asked_of(row), "") for row in found.to_dict("records")]
    reach = [narrate.reach(row) for row in parts[parts["margin"].notna()].to_dict("records")]
    return Section(found, parts, " ".join(reach), [*sentences(found, study), *seen_otherwise(found, swabs, study)])


def seen_otherwise(found: pd.DataFrame, swabs: AnnData, study: Study) -> list[str]:
    """Of each claim that rests on the position on the axis, whether it would look the same in other spaces."""
    told, known = [], found[found["stands"] & found["estimate"].notna()]
    for row in known[known["measure"].eq(POSITION) & known["claims"].ne("")].to_dict("records"):
        alike = known[_alike(known, asked_of(row), "measure")].to_dict("records")
        others = {r["label"]: r for r in alike if r["measure"] in OTHER_AXES}
        absent = {find(key, study).label: why for key, why in swabs.uns["no_axis"].items() if key in OTHER_AXES}
        told.append(narrate.otherwise(row["what"], row, others, absent))
    return [sentence for sentence in told if sentence]


def standing(found: pd.DataFrame) -> list[dict[str, Any]]:
    """The answers on which claims rest, or would."""
    return found[found["stands"]].to_dict("records")


def sentences(found: pd.DataFrame, study: Study) -> list[str]:
    """What a section found, a sentence an answer: first what claims ask, and of that what can be told."""
    beside = found["measure"].isin((*OTHER_AXES, OFF_AXIS)) & found["claims"].eq("")  # told by `seen_otherwise`
    rows = sorted(standing(found[~beside]), key=lambda row: (not row["claims"], np.isnan(row["estimate"])))
    return list(dict.fromkeys(told(row, found, study) for row in rows if row["n"] or row["claims"]))


def table(found: pd.DataFrame, study: Study, *more: str, estimators: bool = False) -> pd.DataFrame:
    """Answers as a reader sees them: what was asked in words, the numbers, then the columns `more`.

    With `estimators` those of all of them; else those on which claims rest.
    """
    rows = found if estimators else found[found["stands"]]
    words = {
        "measure": rows["label"],
        "patients": rows["arm"].map({"": "", **study.labels.model_dump()}),
        "among": rows["among"].map(AMONG),
        "score": rows["score"].map({"": "", **study.column_names()}),
        "estimator": rows["estimator"] if estimators else "",
        "unit": rows["unit"],
    }
    said = pd.DataFrame(words, index=rows.index)
    said = said[[c for c in said if c in ("measure", "unit") or said[c].ne("").any()]]
    claims = rows[["claims"]] if "claims" in rows else rows[[]]
    return pd.concat([said, rows[[*estimates.ESTIMATE, *more]], claims], axis=1).reset_index(drop=True)
