"""Numbers into sentences: one rounding rule, p-values, intervals, and findings that turn with the data."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from helpers.study import FEW, SMALL, Privacy, Study

DIGITS = 3
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(x: float, digits: int = DIGITS) -> str:
    """Round to three significant digits, the one rounding rule of the report; longer whole numbers keep all of theirs.

    With a true minus sign; "not estimable" for NaN.

    Examples
    --------
    >>> [number(x) for x in (0.012345, -1.2, 36.74, 12345.6, 0.0000123)]
    ['0.0123', '−1.20', '36.7', '12,346', '1.23 × 10⁻⁵']
    """
    if x is None or math.isnan(x):
        return "not estimable"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    if x == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{x:.{digits - 1}e}")))))
    if decimals > 6:
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        return f"{mantissa} × 10".replace("-", "−") + str(int(exponent)).translate(_RAISED)
    return f"{x:,.{decimals}f}".replace("-", "−")


def p_value(p: float) -> str:
    """A p-value to two significant digits, never below 0.001: ``p = 0.012``, ``p < 0.001``, ``p not estimable``."""
    text = p_number(p)
    return f"p {text}" if text[0] in "<>n" else f"p = {text}"


def p_number(p: float) -> str:
    """P-value as it stands in a table: as in `p_value`, without the p."""
    if p is None or math.isnan(p):
        return "not estimable"
    if p < 0.001:
        return "< 0.001"
    if p > 0.99:
        return "> 0.99"
    return number(p, 2) if abs(p - 0.05) > 0.0005 else f"{p:.4f}"  # on which side of the usual level it lies


def interval(low: float, high: float, unit: str = "") -> str:
    """An interval, as ``−0.62 to −0.31 nats``."""
    return f"{number(low)} to {number(high)}{_spaced(unit)}"


def effect(estimate: dict[str, Any], unit: str = "") -> str:
    """Estimate with interval, p-value and n, as it stands in a sentence; keys of `helpers.estimates.ESTIMATE`."""
    if math.isnan(estimate["estimate"]):
        return f"not estimable (n = {estimate['n']:.0f})"
    details = _details(estimate, estimate["ci_low"], estimate["ci_high"])
    return f"{number(estimate['estimate'])}{_spaced(unit)} {details}"


def _details(row: Mapping[str, Any], low: float, high: float) -> str:
    return f"({row['level']:g} % interval {interval(low, high)}; {p_value(row['p_value'])}; n = {row['n']:.0f})"


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def on_scale(row: Mapping[str, Any], sd: float = math.nan) -> tuple[float, float, float, str]:
    """An effect on the scale that people know, by ``scale``: estimate, interval, and what they are counted in.

    A natural log as fold change; what is told in standard deviations divided by `sd`, that of the controls, if it is
    known; all else as it is. ``severity`` is a correlation.
    """
    estimate, low, high = (float(row[key]) for key in ("estimate", "ci_low", "ci_high"))
    if row["contrast"] == "severity":
        return estimate, low, high, "ρ"
    if row["scale"] == "fold change":
        return _exp(estimate), _exp(low), _exp(high), "times"
    if row["scale"] == "SD of controls" and sd > 0:
        return estimate / sd, low / sd, high / sd, "SD of controls"
    return estimate, low, high, row["unit"]


def introduction(study: Study) -> str:
    """Say what the data are, as Markdown, and loudly whether they are simulated."""
    kind = "SIMULATED DATA: no result here is a finding about patients." if study.simulated else "Real data."
    return f"**{kind}** {study.title}. Source: {study.source.rstrip('.')}. {suppression(study)}".strip()


def suppression(study: Study) -> str:
    """Say how counts are shown, if not as they are."""
    if study.privacy.small_cells == "show":
        return ""
    return f"Counts of {SMALL} or fewer people or swabs are hidden, all others rounded to the nearest 5."


def visits_used(study: Study) -> str:
    """Say which values of the visit column are analysed, and which are not."""
    visit, labels = study.columns.visit, study.names
    *others, last = [f"{labels[v]} ({', '.join(visit.values[v])})" for v in visit.values]  # noqa: PD011
    about = f" Claims are about {labels['followup']}." if len(visit.values) > 2 else ""
    about += " Arms are those recorded at baseline." if study.columns.arm_from == "baseline" else ""
    used = f"{', '.join(others)} and {last}" if others else last
    return f"Visits analysed: {used}; left out: {', '.join(visit.ignore) or 'none'}.{about}"


def ages(study: Study) -> str:
    """Say that ages were converted, if they were."""
    return "Ages, recorded in months, are in years." if study.columns.age and study.columns.age_unit == "months" else ""


def allocation(study: Study) -> str:
    """Say what the way in which the arms were allocated allows."""
    if study.columns.arm is None or len(study.columns.arm.values) < 2:
        return "No two arms are compared."
    if study.randomised:
        return "The arms were allocated by chance; in few patients, chance too leaves differences between them."
    balanced = "Weighting and adjusting balance what was recorded, not the reasons for a prescription that were not."
    return f"The arms were not allocated by chance. {balanced}"


def differing(table: pd.DataFrame, what: str, *, shown: int = 3) -> str:
    """Tell which taxa differ, on which frame that rests, and what change of the total load would overturn each.

    Of `table`, as from `helpers.taxa.linda`, `shown` taxa are named, of lowest p-value; `what` they do is a verb.
    """
    if table.empty:
        return f"No genus could be tested, so that which {what} is not known."
    found = table[table["found"]].sort_values("p_value")
    told = f"Of {len(table)} genera, {len(found)} {what}"
    if found.empty:
        return f"{told}, which is not evidence that none does."
    each = [
        f"*{short_name(row.taxon)}* {number(_exp(row.estimate))} times (unless the whole community became "
        f"{number(row.overturned)} times as large or {'less' if row.estimate > 0 else 'more'})"
        for row in found.head(shown).itertuples()
    ]
    more = f"; and {len(found) - shown} more, in the table" if len(found) > shown else ""
    low, high = (number(_exp(limit)) for limit in table[["frame_low", "frame_high"]].iloc[0])
    return f"{told}, beyond the frame of {low} to {high} times that holds half of all: {'; '.join(each)}{more}."


def ends(trend: Mapping[str, Any], means: pd.DataFrame, who: str) -> str:
    """Tell the mean change in the lowest and the highest stratum of response under treatment, and the trend.

    Of strata that have enough patients for a mean. `trend` has ``measure``, ``unit``, ``scale`` and the trend of both
    arms; `means` are those of `helpers.response.Shift`.
    """
    strata = means[means["measure"].eq(trend["measure"]) & means["arm"].eq("treatment") & means["n"].ge(FEW)]
    told = []
    for row in strata.iloc[[0, -1][: len(strata)]].to_dict("records"):
        size = _brief({**trend, **row, "scale": trend["scale"]}, trend["unit"]).partition(" (")[0]
        told.append(f"{size} where severity improved {row['stratum']} (n = {row['n']:.0f})")
    mean = f"mean change {', '.join(told)}" if told else f"no stratum has {FEW} patients or more"
    shown = "a trend" if excludes_zero(dict(trend)) else "a trend is uncertain"
    slope = f" From stratum to stratum {shown}: {_brief(trend, trend['unit'])}, {p_value(trend['p_value'])}."
    return f"{trend['measure']} under {who}: {mean}.{'' if math.isnan(trend['estimate']) else slope}"


def permanova(tests: pd.DataFrame, *, alpha: float = 0.05) -> str:
    """Tell what PERMANOVA of the first distance shows and does not, and for which answers other distances have another.

    `tests` as from `helpers.permutation.permanova_table`.
    """
    what = {
        "group": "a difference between patients and controls",
        "visit": "a change in {}",
        "visit:arm": "a difference between the arms' changes",
    }
    told: dict[str, list[str]] = {"shown": [], "not shown": [], "could not be tested": []}
    others = []
    for (term, patients), rows in tests.groupby(["term", "patients"], sort=False):
        first, *rest = rows.to_dict("records")
        name, significant, p = what[str(term)].format(patients), first["p_value"] < alpha, p_value(first["p_value"])
        # A share of the variation within patients is about 1/n by chance and cannot be compared between groups.
        known = term != "visit" and not math.isnan(first["r2"])
        share = f"{number(100 * first['r2'])} % of the variation, " if known else ""
        spread = ", of which part may be spread" if significant and first["dispersion_p"] < alpha else ""
        group = "could not be tested" if math.isnan(first["p_value"]) else "shown" if significant else "not shown"
        told[group].append(f"{name} ({share}{p}, n = {first['n']:.0f}{spread})")
        differ = [row for row in rest if not math.isnan(row["p_value"]) and (row["p_value"] < alpha) != significant]
        each = ", ".join(f"{row['distance']} {p_value(row['p_value'])}" for row in differ)
        others += [f"{name} ({each})"] if differ else []
    if tests.empty:
        return "No term could be tested."
    answers = "; ".join(f"{group}: {', '.join(names)}" for group, names in told.items() if names)
    disagree = f" Otherwise in other distances: {'; '.join(others)}." if others else ""
    return f"Whole community ({tests['distance'].iloc[0]}), {answers}.{disagree}"


def compared(what: str, estimate: dict[str, Any], unit: str, this: str, other: str) -> str:
    """Tell a difference between two groups, `this` minus `other`, in the direction the data have, as `changed` does."""
    if math.isnan(estimate["estimate"]):
        return f"{what} could not be compared between {this} and {other} (n = {estimate['n']:.0f})."
    if not excludes_zero(estimate):
        return f"{what}, {this} against {other}: {_either(estimate, unit, LESS_MORE)}."
    way, by = "higher" if estimate["estimate"] > 0 else "lower", ":" if _fold(estimate) else ", by"
    return f"{what} was {way} in {this} than in {other}{by} {_shown(estimate, unit, LESS_MORE[2])}."


def changed(what: str, estimate: dict[str, Any], unit: str, who: str) -> str:
    """Tell a change between the visits, follow-up minus baseline, in the direction the data have.

    One whose interval includes zero is uncertain, and told by how far its interval goes either way.
    """
    if math.isnan(estimate["estimate"]):
        few = "too few people to test the change" if estimate["n"] < FEW else "the change could not be estimated"
        return f"{who}: {few} of {what} (n = {estimate['n']:.0f})."
    if not excludes_zero(estimate):
        return f"{who}: the change of {what} is {_either(estimate, unit, FALL_RISE)}."
    way, by = "rose" if estimate["estimate"] > 0 else "fell", "to" if _fold(estimate) else "by"
    return f"{who}: {what} {way} {by} {_shown(estimate, unit, FALL_RISE[2])}."


def linked(what: str, other: str, estimate: dict[str, Any]) -> str:
    """Tell a correlation of two measures, in the direction the data have; ``estimate`` is rho."""
    if math.isnan(estimate["estimate"]):
        return f"The correlation of {what} with {other} could not be estimated (n = {estimate['n']:.0f})."
    rho = f"partial Spearman ρ = {effect(estimate)}"
    if excludes_zero(estimate):
        return f"{what} {'rises' if estimate['estimate'] > 0 else 'falls'} with {other}: {rho}."
    return f"Whether {what} goes with {other} is uncertain: {rho}."


def excludes_zero(estimate: dict[str, Any]) -> bool:
    """Say whether the interval lies on one side of zero."""
    return estimate["ci_low"] > 0 or estimate["ci_high"] < 0


def beyond(estimate: Mapping[str, Any]) -> bool:
    """Say whether the interval lies on one side of the margin of equivalence."""
    return estimate["ci_low"] > estimate["margin"] or estimate["ci_high"] < -estimate["margin"]


def equivalent(what: str, estimate: dict[str, Any], unit: str, *, alpha: float = 0.05) -> str:
    """Tell what an equivalence test shows; ``margin`` and ``p_equivalence`` as from `helpers.estimates.equivalence`."""
    p = estimate["p_equivalence"]
    if math.isnan(p):
        why = "too few people to be tested" if math.isnan(estimate["estimate"]) else "equivalence could not be tested"
        return f"{what}: {why} (n = {estimate['n']:.0f})."
    margin = _margin(estimate["margin"], estimate, unit)
    span = f"{_span(estimate, unit, LESS_MORE)} (n = {estimate['n']:.0f})"
    if p < alpha:
        return f"{what}: alike to within the margin of {margin} (equivalence {p_value(p)}), {span}."
    if beyond(estimate):
        return f"{what}: different by more than the margin of {margin}, {span}."
    return f"{what}: uncertain, {span}, beside a margin of {margin}."


def reach(part: Mapping[str, Any]) -> str:
    """Tell what a study of this size could show of a claim of no change, whatever it found.

    `part` is a row of `helpers.evidence.gather`, tested against a margin.
    """
    power, known = 100 * part["power_equivalence"], {"ci_low": part["margin_low"], "ci_high": part["margin_high"]}
    margin, low, high, unit = on_scale({**part, **known, "estimate": part["margin"]}, part["sd"])
    least = on_scale({**part, **known, "estimate": part["reachable_margin"]}, part["sd"])[0]
    of = "a factor of {}" if unit == "times" else f"±{{}} {unit}".rstrip()
    told = (
        f"{part['claim']} ({part['what']}): if truly nothing differed, a study of this size would show it to within "
        f"the margin of {of.format(number(margin))} (known to {interval(low, high)}) with a power of "
        f"{number(power, 2) if power >= 1 else 'less than 1'} %; with 80 %, only to within "
        f"{of.format(number(least))}."
    )
    return told if part["attainable"] else f"{told} Out of reach: it takes a sample of about {part['n_needed']:,.0f}."


def worth(what: str, estimate: dict[str, Any], unit: str) -> str:
    """Tell what could have been missed where an interval includes zero; nothing where there is no such null.

    ``detectable`` is the minimum detectable effect at 80 % power.
    """
    if math.isnan(estimate["estimate"]) or excludes_zero(estimate):
        return ""
    if estimate["p_equivalence"] < 1 - estimate["level"] / 100:
        return f"{what}: {_either(estimate, unit, FALL_RISE if estimate.get('contrast') == 'change' else LESS_MORE)}."
    least = (_margin if _fold(estimate) else _size)(estimate["detectable"], estimate, unit)
    kind = "changes" if estimate.get("contrast") == "change" else "differences"
    return f"{what}: the study could reliably detect only {kind} above {least}; smaller ones remain possible."


def beside(row: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> str:
    """Tell what else an effect may be, and whether it is then still shown, in one sentence; nothing of nothing.

    `row` is the answer that stands, `others` those beside it, by how they were estimated.
    """
    known = {name: e for name, e in others.items() if not math.isnan(e["estimate"])}
    if not known:
        return ""
    told = [f"{name} {_brief(e, '')}" for name, e in known.items()]
    lost = [name for name, e in known.items() if excludes_zero(dict(row)) and not excludes_zero(dict(e))]
    return f"Estimated otherwise: {'; '.join(told)}." + (f" **No longer shown: {', '.join(lost)}.**" if lost else "")


def overturned(row: Mapping[str, Any]) -> str:
    """Tell what would have to be true for a shown effect to be none: a row of `helpers.evidence.overturning`.

    Nothing where none is shown.
    """
    told, by = [], row["tipping"]
    if not math.isnan(by):
        apart = f"{number(abs(by))}{_spaced(row['unit'])} {'above' if by > 0 else 'below'}"
        times = number(_exp(by)) if abs(by) < math.log(1000) else "more than 1,000" if by > 0 else "less than 0.001"
        apart = f"at {times} times the level of" if _fold(row) else apart
        lost = f"the {row['lost']} patients who were lost, of {row['of']} patients treated"
        told.append(f"{lost}, had ended {apart} those who stayed")
    if not math.isnan(row["load"]):
        times = f"{number(row['load'])} times as abundant"
        told.append(f"the typical bacterium had become {times}, which no share can tell")
    if row.get("robustness_interval", 0) > 0:
        like, share = "", number(100 * row["robustness_interval"], 2)
        if row["strongest"] and not math.isnan(row["removes"]):
            removes = number(100 * row["removes"], 2)
            like = f" (one as strong as {row['strongest']} would remove {removes} % of the difference)"
        told.append(f"something unmeasured explained {share} % of what is left of both allocation and outcome{like}")
    return (
        f"The interval of {row['claim']} ({row['what']}) would include zero if {'; or if '.join(told)}." if told else ""
    )


def otherwise(
    what: str, same: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]], absent: Mapping[str, str]
) -> str:
    """Tell whether an effect, of which `same` is the estimate, looks the same in other spaces.

    `others` are the estimates in these, by what they measure; `absent` tells why there is none, by what it would have
    measured.
    """
    told = [f"{name} {_brief(e, e['unit'])}" for name, e in others.items()]
    told += [f"{name}: {reason}" for name, reason in absent.items()]
    if not told:
        return ""
    ways = {(excludes_zero(dict(e)), excludes_zero(dict(e)) and e["estimate"] > 0) for e in (same, *others.values())}
    shown = [name for name, e in {"this one": same, **others}.items() if excludes_zero(dict(e))]
    agreed = "The spaces agree." if len(ways) == 1 else f"**The spaces disagree**: shown by {' and '.join(shown)}."
    return f"{what}, in other spaces: {'; '.join(told)}. {agreed if others else ''}".strip()


def whole_beside_axis(whole: Mapping[str, Any], row: Mapping[str, Any], healthy: str, *, alpha: float = 0.05) -> str:
    """Reconcile the test of the whole community, time × arm, with the arms' positions, where one alone is shown.

    `whole` as from `helpers.permutation.paired_permanova`, `row` the answer on the position; `healthy` people in words.
    """
    along, apart = excludes_zero(dict(row)), whole["p_value"] < alpha
    if along == apart or math.isnan(whole["p_value"]) or math.isnan(row["estimate"]):
        return ""
    spread = ", and at spread too" if apart and whole["dispersion_p"] < alpha else ""
    return (
        f"The whole community {'did change' if apart else 'is not shown to change'} differently in the two arms "
        f"(PERMANOVA, time × arm, {p_value(whole['p_value'])}), which does not contradict the "
        f"{'difference' if along else 'uncertainty'} of the position: that test looks in every direction{spread}, the "
        f"position only towards {healthy}."
    )


def counted_otherwise(what: str, ways: Mapping[str, Mapping[str, Any]], *, alpha: float = 0.05) -> str:
    """Reconcile a difference that is shown by some ways of counting a taxon and not by others; `ways` by their name."""
    known = {f"by {name} ({p_value(row['p_value'])})": row["p_value"] for name, row in ways.items()}
    by, not_by = [way for way, p in known.items() if p < alpha], [way for way, p in known.items() if p >= alpha]
    if not (by and not_by):
        return ""
    load = ", and an absolute abundance moves with the whole community, too" if "absolute abundance" in ways else ""
    return (
        f"{what} is shown {' and '.join(by)}, not {' nor '.join(not_by)}, which is no contradiction: a "
        "share is ruled by the few who have most of it, a log ratio weighs all alike, and carriage asks only whether "
        f"there is any{load}."
    )


def robust(row: Mapping[str, Any], alpha: float) -> str:
    """Tell of a claim how many analyses agree, and what makes the others differ.

    `row` is of `helpers.multiverse.Multiverse.claims`.
    """
    if math.isnan(row["all"]):
        return f"**{row['claim']}** ({row['what']}) is {row['verdict']}."
    told = [
        f"**{row['claim']}** ({row['what']}) is {row['verdict']} in {row['agree']:.0f} of {row['specifications']:.0f} "
        f"analyses that estimate the same, and in {row['all_agree']:.0f} of {row['all']:.0f} of all.",
        f"The median effect is {number(row['median'])} {row['unit']} (90 % of the analyses: "
        f"{interval(row['low'], row['high'])}), "
        f"{'above zero' if row['way'] == 'positive' else 'in the direction that is ' + row['way']} in "
        f"{number(100 * row['in_direction'])} % of them.",
    ]
    if not math.isnan(row["joint_p"]) and row["median"] > 0:
        rare = "would be rare" if row["joint_p"] < alpha else "is what chance makes, too"
        told.append(f"Without any effect, a median like this or larger {rare} ({p_value(row['joint_p'])}).")
        if row["significant"]:
            told.append(f"So many significant results: {p_value(row['joint_p_share'])}.")
    if row["moved_by"]:
        share = f"{number(100 * row['moved_share'], 2)} % of the variance"
        told.append(f"What moves it most: {row['moved_by']} ({share}).")
    if row["other"]:
        told.append(f"One choice alone gives another verdict: {row['other']}.")
    if row["opposite"]:
        told.append(f"One choice alone turns the sign: {row['opposite']}.")
    if row["least_agree"] < row["least_of"] * row["all_agree"] / row["all"] - 0.5:
        told.append(f"It holds least often with {row['least']} ({row['least_agree']:.0f} of {row['least_of']:.0f}).")
    return " ".join(told)


def multiverse(claims: pd.DataFrame, analyses: int, grid: str) -> str:
    """Tell how many specifications there are; `claims` as of `helpers.multiverse.Multiverse`."""
    light = " The light grid: fewer options and permutations (chosen, or because the cohort is large)."
    tested = claims["all"].dropna()
    under = f"under {tested.min():.0f} to {tested.max():.0f} specifications each, {analyses:,} estimates in all."
    return f"{len(tested)} of {len(claims)} claims can be tested, {under}{light if grid == 'light' else ''}"


def left_out(absent: Mapping[tuple[str, str], str], choices: Mapping[str, Any]) -> str:
    """Name the options that the study has nothing for, as from `helpers.choices.absent`."""
    told = [f"{choices[name].says}, {choices[name].word(option)} ({why})" for (name, option), why in absent.items()]
    return f"Left out, since the study has nothing for it: {'; '.join(told)}." if told else ""


def most_differ(agree: Any, specifications: Any) -> Any:
    """Whether fewer than half of the other analyses have the report's verdict; elementwise, too."""
    return 2 * (agree - 1) < specifications - 1


def shared_verdicts(claims: pd.DataFrame) -> str:
    """Tell which verdicts most other analyses share, and which they do not."""
    tested = claims[claims["specifications"] > 1]
    alone = tested[most_differ(tested["agree"], tested["specifications"])]
    told = ", ".join(f"{c.claim} ({c.agree:.0f} of {c.specifications:.0f})" for c in alone.itertuples())
    shared = f"{len(tested) - len(alone)} of {len(tested)} verdicts"
    apart = f"; not so {told}" if told else ""
    return f"{shared} are shared by most other analyses that estimate the same{apart}."


def moved(claims: pd.DataFrame) -> str:
    """Tell which verdicts one choice alone changes, and which effects point either way."""
    fragile = ", ".join(claims.loc[claims["other"].ne(""), "claim"])
    either = ", ".join(claims.loc[claims["in_direction"].between(0.05, 0.95), "claim"])
    one = f"One choice alone gives another verdict on {fragile}." if fragile else "No choice alone changes a verdict."
    return f"{one} Effects point either way in {either}." if either else f"{one} No effect points either way."


def flow(steps: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """Say how many people and swabs are analysed, and at which visits; `steps` as from `helpers.quality.flow`."""
    first, last = (steps[steps["step"].eq(steps["step"].iloc[at])] for at in (0, -1))
    people, swabs = (f"{last[c].sum()} of {first[c].sum()} {c}" for c in ("people", "swabs"))
    visits = [
        f"{labels[row.who]}: {row.baseline} people at {labels['baseline']}, {row.followup} people at "
        f"{labels['followup']}, {row.both} people at both"
        for row in last[last["people"] > 0].itertuples()
    ]
    return f"Of those in the files, {people} and {swabs} are analysed. {'; '.join(visits)}."


def levelling(means: pd.DataFrame, rarefaction_depth: int, labels: Mapping[str, str], *, flat: float = 0.1) -> str:
    """Say by how much the mean Shannon diversity still rises beyond the depth used; less than `flat` nats is level.

    `means` as from `helpers.diversity.rarefaction_means`.
    """
    greatest = means["depth"].max()
    if not greatest > rarefaction_depth:
        few = f"Fewer than half of the swabs have more than {rarefaction_depth:,} reads"
        return f"{few}: whether diversity would rise beyond them cannot be told."
    ends = means[means["depth"].isin([rarefaction_depth, greatest])]
    rises = ends.pivot_table(index="group", columns="depth", values="shannon", observed=True, sort=False)
    counts = ends.groupby("group", observed=True)[["swabs", "of"]].first()
    told = [
        f"{labels[group]} by {number(rise)} nats ({'level' if rise < flat else 'not level'}; {counts['swabs'][group]} "
        f"of {counts['of'][group]} swabs)"
        for group, rise in (rises[greatest] - rises[rarefaction_depth]).items()
    ]
    span = f"From {rarefaction_depth:,} to {greatest:,} reads"
    return f"{span} the mean Shannon diversity of the same swabs rises: {'; '.join(told)}."


def top_of(bars: pd.DataFrame, rank: str) -> str:
    """Tell the most abundant taxon of a rank in each group and visit; `bars` as from `helpers.taxa.composition`."""
    shares = bars.drop(columns=["n", "Other"])
    told = [f"*{short_name(row.idxmax())}* in {bar} ({number(row.max())} %)" for bar, row in shares.iterrows()]
    return f"Most abundant {rank} on average: {'; '.join(told)}."


def unnamed(bounds: pd.DataFrame, share: float, genus: str) -> list[str]:
    """Tell whether estimates hold whatever the reads without a species name are, `share` per cent of the genus's reads.

    `bounds` as from `helpers.evidence.if_unnamed_were_the_pathogen`.
    """
    told = [f"{number(share)} % of the {genus} reads have no species name."]
    if bounds["estimate"].isna().all():
        return [*told, "Nothing can be tested."]
    for what, of in bounds.groupby("what", sort=False):
        holds = (of["ci_low"] > 0).all() or (of["ci_high"] < 0).all()
        told.append(f"{what}: {'holds' if holds else 'does not hold'} in both scenarios.")
    return told


def seen(presence: pd.DataFrame, privacy: Privacy) -> str:
    """Tell in how many a taxon is seen, before and after; `presence` as from `helpers.taxa.presence_by_group`."""
    shown = privacy.shown
    each = [
        f"{row['patients']}: seen in {shown(row['present_before'])} of {shown(row['n'])}, "
        f"then in {shown(row['present_after'])}"
        for row in presence.to_dict("records")
    ]
    return f"Presence: {'; '.join(each) or 'not known'}."


def carrying(present: pd.Series, privacy: Privacy) -> dict[Any, str]:
    """Tell in how many per cent of people a taxon is seen, by group and visit, the index; nothing of hidden counts.

    `present` has the share of a person's swabs that have it; per cent are of counts as they may be shown.
    """
    told = {}
    for key, shares in present.dropna().groupby(level=[0, 1], observed=True):
        k, n = (privacy.shown(count) for count in (shares.gt(0).sum(), len(shares)))
        if k.isdigit() and n.isdigit():
            told[key] = f"seen in {number(100 * int(k) / int(n), 2)} %"
    return told


def balanced(balance: pd.DataFrame, threshold: float = 0.1) -> str:
    """Tell whether weighting balanced the covariates, as from `helpers.treatment.balance`, and what follows if not."""
    left = balance.loc[balance["weighted"].abs() > threshold, "covariate"]
    if left.empty:
        return f"within ±{threshold:g}"
    due = "so that the weighted difference may be partly due to it: ANCOVA, which adjusts for it, is the one to read"
    return f"beyond ±{threshold:g} in {', '.join(left)}, {due}"


def short_name(species: str) -> str:
    """Abbreviate a binomial: ``Staphylococcus aureus`` to ``S. aureus``."""
    genus, _, epithet = species.partition(" ")
    return f"{genus[0]}. {epithet}" if epithet.isalpha() and epithet.islower() else species


def italicised(text: str, names: Iterable[str]) -> str:
    """Mark names of taxa in a text as emphasis, as convention wants; those that are marked already stay so."""
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<![\w*])(?:{either})(?![\w*])", r"*\g<0>*", text)


#: How a smaller and a larger value are called, and what a fold change multiplies: of two groups, and of two visits.
LESS_MORE = ("{} less", "{} more", "as much")
FALL_RISE = ("a fall of {}", "a rise of {}", "what it was")


def _fold(row: Mapping[str, Any]) -> bool:
    """Whether an estimate is a natural log that is told as fold change."""
    return row.get("scale") == "fold change" and row.get("contrast") != "severity"


def _brief(row: Mapping[str, Any], unit: str) -> str:
    """An estimate and its interval on the scale that people know."""
    x, low, high, counted = on_scale({"contrast": "", "scale": "", **row, "unit": unit})
    return f"{number(x)}{_spaced(counted)} ({interval(low, high)})"


def _margin(x: float, row: Mapping[str, Any], unit: str) -> str:
    return f"a factor of {number(_exp(x))}" if _fold(row) else f"±{number(x)}{_spaced(unit)}"


def _size(x: float, row: Mapping[str, Any], unit: str) -> str:
    """How large an effect is, without its sign; also in standard deviations of the controls, if it is told in these."""
    if _fold(row):
        return f"{number(_exp(x))} times"
    in_sd = row.get("scale") == "SD of controls" and row.get("sd", 0) > 0
    return f"{number(abs(x))}{_spaced(unit)}" + (f" or {number(abs(x) / row['sd'])} SD of controls" if in_sd else "")


def _shown(row: Mapping[str, Any], unit: str, of: str) -> str:
    """An effect whose direction is told, with interval, p-value and n; `of` is what a fold change multiplies."""
    ends = row["ci_low"], row["ci_high"]
    low, high = map(_exp, ends) if _fold(row) else sorted(map(abs, ends))
    return f"{_size(row['estimate'], row, unit)} {f'{of} ' if _fold(row) else ''}{_details(row, low, high)}"


def _span(row: Mapping[str, Any], unit: str, words: tuple[str, str, str]) -> str:
    """An interval by how far it goes: ``from 53.3 % of the gap less to 9.47 % more``."""
    low, high = row["ci_low"], row["ci_high"]
    if _fold(row):
        return f"from {interval(_exp(low), _exp(high))} times {words[2]}"
    if low * high > 0:
        near, far = sorted((abs(low), abs(high)))
        return f"from {words[low > 0].format(interval(near, far, unit))}"
    first, last = number(-low) + _spaced(unit), number(high) + _spaced(unit.partition(" of ")[0])
    return f"from {words[0].format(first)} to {words[1].format(last)}"


def _either(row: Mapping[str, Any], unit: str, words: tuple[str, str, str]) -> str:
    """What an interval that includes zero allows to say: never that there is nothing, unless equivalence is shown."""
    best = _size(row["estimate"], row, unit)
    best = best if _fold(row) else words[row["estimate"] > 0].format(best)
    told = f"{_span(row, unit, words)} (best estimate {best}; {p_value(row['p_value'])}; n = {row['n']:.0f})"
    p = row.get("p_equivalence", math.nan)
    if p < 1 - row["level"] / 100:
        return f"small, {told}: within the margin of {_margin(row['margin'], row, unit)} (equivalence {p_value(p)})"
    return f"uncertain, {told}"


def with_unit(name: str, unit: str) -> str:
    """A measure with its unit in brackets, if it has one, as for an axis."""
    return f"{name} ({unit})" if unit else name


def _spaced(unit: str) -> str:
    return f" {unit}" if unit else ""
