"""A page a claim: its answer in a sentence, the people behind it, how large and how sure, and what would change it."""

import html
import math
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import pandas as pd

from helpers import multiverse, narrate, plain
from helpers.choices import load_choices
from helpers.claims import CONTRADICTED, INCONCLUSIVE, KEY, NOT_TESTABLE, SUPPORTED, VERDICTS, claims_of
from helpers.disclosure import coarse_p, in_text
from helpers.evidence import CONTRASTS, Asked, people
from helpers.figures import italicise
from helpers.files import CLAIMS_TABLE, DEMO, FIGURES, ROBUSTNESS, SPECIFICATIONS
from helpers.measures import axis, find, taxa_named
from helpers.narrate import excludes_zero, italicised, number, p_number
from helpers.output import SCREEN, as_text, emphasised, save_figure, saved_table, table_html
from helpers.simulation.worlds import DEMO_WORLD
from helpers.site.figures import behind_claim
from helpers.site.interactive import chart_html, specification_curve
from helpers.site.pages import Run, escaped, evidence, figure_html, raw, script, text_html
from helpers.site.pages.validation import off_claims, validated

#: The folder of the cards in the site, and the way back from there.
FOLDER, BACK = "claims", "../"


class Known(NamedTuple):
    """What all cards are made from, beside the run: read once."""

    #: As of `helpers.multiverse.Multiverse`, read from its files; None if it was switched off.
    every: multiverse.Multiverse | None
    #: `05_overturning`, numbers.
    overturning: pd.DataFrame
    #: What `make validate` found, None if it never ran.
    simulated: pd.DataFrame | None


#: Columns that are texts, of the tables that are read.
_TEXTS = {"claim", "what", "unit", "strongest", "verdict", "way", "explained", "moved_by", "other", "opposite", "least"}
_TEXTS |= {"estimated_by", "keeps_estimand", "lost", "of"}  # counts that may be hidden among them


def _multiverse(run: Run) -> multiverse.Multiverse | None:
    choices, files = load_choices(run.study, run.study.settings), (ROBUSTNESS, SPECIFICATIONS)
    saved = [as_text(file) if (file := run.report.results / name).is_file() else pd.DataFrame() for name in files]
    claims, found = (_numbers(table, {*_TEXTS, *choices, *Asked._fields}) for table in saved)
    if claims.empty:
        return None
    return multiverse.Multiverse(found, claims, {}, choices, {})


def _numbers(table: pd.DataFrame, texts: Set[str]) -> pd.DataFrame:
    """A table of texts, those as numbers that are none of the `texts`."""
    return table.assign(**{c: pd.to_numeric(table[c]) for c in table if c not in texts})


def pages(run: Run) -> dict[str, str]:
    """The cards, by the name of their page."""
    overturning = _numbers(saved_table(run.report.results, "05_overturning"), _TEXTS)
    facts = Known(_multiverse(run), overturning, validated())
    return {f"{FOLDER}/{row['id']}": card(row, run, facts) for row in run.claims.to_dict("records")}


def card(row: dict[str, Any], run: Run, facts: Known) -> str:
    """A claim's page, as Markdown of MyST."""
    study, taxa = run.study, taxa_named(run.claims["measure"], run.study)
    parts = run.parts[run.parts["claim"].eq(row["id"])].to_dict("records")
    verdict = VERDICTS[row["verdict"]]
    of = f"{row['family']}, {row['kind']}; {claims_of(study).of}"
    told = italicised(in_text(plain.sentence(row, study, row["sd"]), study.privacy), taxa)
    head = (
        f'<div class="answer"><p><b>{verdict.symbol} {row["verdict"]}</b> ({html.escape(of)}): {verdict.says}.</p>'
        f"<p>{emphasised(told)}</p>{_caveat(row, parts)}</div>"
    )
    reported = f"{claims_of(study).of} ({row['source']}): {row['reported']}."
    sections = {
        "The people": _people(row, parts, run),
        "How large, how sure": _effect(row, study.privacy, taxa),
        "What this study could have shown": text_html(_reach(row, parts, facts, run)),
        "The same under other choices": _specifications(row, run, facts),
        "What would change the verdict": _otherwise(row, parts, facts, run),
        "What was reported": text_html(italicised(reported, taxa)),
    }
    link = f'<p>The section with its evidence, code and data: <a href="{BACK}{evidence(row)}">'
    link += f"{emphasised(row['section'])}</a>.</p>"
    reason = f"<p>Why this verdict: {emphasised(italicised(row['reason'], taxa))}.</p>"
    title = f"# {escaped(row['id'])} {escaped(italicised(row['statement'], taxa)).replace(chr(92) + '*', '*')}"
    blocks = [f"## {heading}\n\n{raw(content)}" for heading, content in sections.items() if content]
    return "\n\n".join([title, raw(head), *blocks, "## Evidence", raw(link + reason)])


def _caveat(row: Mapping[str, Any], parts: list[dict[str, Any]]) -> str:
    """By which other analyses a supported claim would not be shown, as HTML."""
    if row["verdict"] != SUPPORTED or not math.isnan(row["margin"]):
        return ""
    others = [(part["what"], other) for part in parts for other in part["beside"]]
    weaker = [f"{what}: {other['by']}" for what, other in others if not excludes_zero(other)]
    return f"<p>No longer shown by other analyses ({html.escape('; '.join(weaker))}).</p>" if weaker else ""


def counts(row: Mapping[str, Any], run: Run) -> str:
    """The people on whom the part that stands for a claim rests, by group: ``112 + 21``."""
    if run.data is None or row["verdict"] == NOT_TESTABLE:
        return str(row["n"])
    who = people(Asked(*(row[key] for key in KEY[1:])), run.data, run.study)["who"]
    if row["contrast"] == "severity":
        return run.study.privacy.shown(len(who))
    numbers = [(who == group).sum() for group in ("treatment", "comparator", "case", "control")]
    return " + ".join(run.study.privacy.shown(n) for n in numbers if n) or str(row["n"])


def _people(row: Mapping[str, Any], parts: list[dict[str, Any]], run: Run) -> str:
    """The people behind each part, drawn; nothing where single people may not be told."""
    if run.data is None or run.study.privacy.small_cells != "show":
        return ""
    study, drawn = run.study, []
    for part in parts:
        asked = Asked(*(part[key] for key in KEY[1:]))
        rows = people(asked, run.data, study)
        if rows.empty:
            continue
        label = axis(part["measure"], study)
        xlabel = axis(asked.score, study) if asked.score else ""
        if asked.contrast == "arms_given_improvement":
            xlabel, label = f"Improvement of {study.severity[0].label} (%)", f"Change of {label}"
        what = CONTRASTS[asked.contrast].what(find(asked.measure, study).label, asked, study)
        drawn.append((what, xlabel, label, rows.astype({"before": float, "after": float})))
    if not drawn:
        return ""
    fig = behind_claim(drawn, study.labels.model_dump())
    italicise(fig, taxa_named(run.claims["measure"], study))
    name = f"people_{row['id']}"
    save_figure(fig, run.files, name, simulated=study.simulated, kinds=("png",), dpi=SCREEN)
    alt = f"{vars(fig)['alt']} {plain.sentence(row, study, row['sd'])}"
    return figure_html(name, alt, vars(fig)["caption"], run.files, CLAIMS_TABLE, root=BACK)


def _effect(row: Mapping[str, Any], privacy: Any, taxa: list[str]) -> str:
    """The effect on both scales, and its tests."""
    if math.isnan(row["estimate"]):
        return ""
    unit = "ρ" if row["contrast"] == "severity" else row["unit"] or "units of the measure"
    analysed = f"{number(row['estimate'])} ({narrate.interval(row['ci_low'], row['ci_high'])}) {unit}"
    p = p_number if privacy.small_cells == "show" else coarse_p
    told = {
        f"Effect ({row['level']:g} % interval)": plain.effect(row, row["sd"], 3),
        "As it was analysed": analysed,
        "p, against zero": p(row["p_value"]),
    }
    if not math.isnan(row["margin"]):
        margin = dict.fromkeys(("estimate", "ci_low", "ci_high"), row["margin"])
        told["Margin"] = plain.effect(dict(row) | margin, row["sd"], 3).partition(" (")[0]
        told["p, of a smaller effect than the margin"] = p(row["p_equivalence"])
    if pd.notna(row["p_holm"]):
        told["p of the verdict, adjusted for the other claims of the family (Holm)"] = p(row["p_holm"])
    caption = f"{italicised(row['what'], taxa)}; n = {row['n']}"
    if row["scale"] == "fold change" and row["contrast"] != "severity":
        caption += ". Times: relative to the other bacteria of the swab; reads tell no absolute numbers"
    columns = {"": list(told), "value": [in_text(value, privacy) for value in told.values()]}
    return table_html(columns, set(), caption, taxa)


def _reach(row: Mapping[str, Any], parts: list[dict[str, Any]], facts: Known, run: Run) -> str:
    """What a study of this size could show of the claim; of the demo, what simulated cohorts of its kind showed."""
    if math.isnan(row["estimate"]):
        return ""
    told = [narrate.reach(part) for part in parts if not math.isnan(part["margin"]) and not part["cannot"]]
    if row["verdict"] == CONTRADICTED:
        told = []  # nobody asks what could have been shown of the contrary
    elif not told and (least := plain.reachable(row, run.study)):
        told = [f"With 80 % power this study finds effects from about {least} on; it may well miss smaller ones."]
    if facts.simulated is not None and run.study.folder == DEMO:
        of = facts.simulated[facts.simulated["scenario"].eq(DEMO_WORLD) & facts.simulated["claim"].eq(row["id"])]
        for found in of[of["interval"].eq("model")].to_dict("records"):
            part = next(p for p in parts if all(p[key] == found[key] for key in KEY[1:]))
            truth = dict.fromkeys(("estimate", "ci_low", "ci_high"), found["target"])
            true = plain.effect(part | truth, part["sd"]).partition(" (")[0]
            told.append(
                f"{part['what'] if len(parts) > 1 else 'Simulation'}: of {found['runs']:.0f} simulated cohorts like "
                f"this one, whose truth is {true}, the test rejects in {number(100 * found['rejected'], 2)} %, and the "
                f"interval holds the truth in {number(100 * found['coverage'], 3)} %. The interval of this cohort "
                f"{'holds' if part['ci_low'] <= found['target'] <= part['ci_high'] else 'misses'} it."
            )
    if facts.simulated is not None and row["id"] in (off := off_claims(facts.simulated)):
        told.append(f"**Beware: on simulated cohorts of the demo's design, {off[row['id']]}.**")
    return italicised("\n".join(f"- {line}" for line in told), taxa_named(run.claims["measure"], run.study))


def _specifications(row: Mapping[str, Any], run: Run, facts: Known) -> str:
    """How many other analyses agree, and their curve: interactive where every specification may be told."""
    if facts.every is None:
        return ""
    of_claim = facts.every.claims.set_index("claim", drop=False).loc[row["id"]].to_dict()
    alpha, taxa = run.parameters["alpha"], taxa_named(run.claims["measure"], run.study)
    sentence = italicised(narrate.robust(of_claim, alpha), taxa)
    if of_claim["joint_p"] < alpha and row["verdict"] == INCONCLUSIVE:
        sentence += " Together the analyses point to an effect that the report's own cannot show."
    text, name = text_html(sentence), f"06_{row['id']}"
    if not (run.files / FIGURES / f"{name}.png").is_file():
        return text
    caption = "All analyses of this claim, sorted by effect; below, which choices each makes. Diamond: the report's."
    drawn = figure_html(name, sentence.replace("*", ""), caption, run.files, SPECIFICATIONS, root=BACK)
    if facts.every.found.empty:
        return text + drawn
    rows, _ = multiverse.curve(facts.every, row["id"], run.study)
    choices = {name: choice for name, choice in facts.every.choices.items() if name in rows}
    varied = {choice.says: rows[n].map(choice.word) for n, choice in choices.items() if rows[n].nunique() > 1}
    told = {"effect": rows["effect"], "from": rows["effect_low"], "to": rows["effect_high"], "verdict": rows["verdict"]}
    shown = {"significant": rows["p_value"] < alpha, "report": rows["specification"].eq(0)}
    chart = specification_curve(pd.DataFrame({**told, **varied, **shown}), list(varied))
    return text + chart_html(chart, f"Specification curve of {row['id']}", drawn) + script(BACK)


def _otherwise(row: Mapping[str, Any], parts: list[dict[str, Any]], facts: Known, run: Run) -> str:
    """What else the effect may be, and what would have to be true for it to be none."""
    taxa = taxa_named(run.claims["measure"], run.study)
    known = [part for part in parts if part["beside"] and part["contrast"] != "arms_given_improvement"]
    rows = [
        {
            "analysis": f"{part['what']}: {other['by']}" if len(parts) > 1 else other["by"],
            "effect (interval)": plain.effect(part | other, part["sd"]),
            "excludes zero": "yes" if excludes_zero(other) else "no",
        }
        for part in known
        for other in [{"by": f"the report ({part['level']:g} % interval)", **part}, *part["beside"]]
        if not math.isnan(part["estimate"])
    ]
    columns = pd.DataFrame(rows).to_dict("list")
    caption = "The same effect by other analyses, with 95 % intervals"
    table = table_html(columns, set(), caption, taxa) if rows else ""
    told = []
    if facts.every is not None and row["verdict"] != NOT_TESTABLE:
        other = facts.every.claims.set_index("claim").loc[row["id"], "other"]
        another = f"One choice of analysis alone gives another verdict: {other}."
        told.append(another if other else "No choice of analysis, taken alone, gives another verdict.")
    if row["verdict"] == SUPPORTED and len(facts.overturning):
        of = facts.overturning[facts.overturning["claim"].eq(row["id"])].to_dict("records")
        told += [narrate.overturned({**next(p for p in parts if p["what"] == r["what"]), **r}) for r in of]
    items = "\n".join(f"- {line}" for line in filter(None, told))
    return table + (text_html(in_text(italicised(items, taxa), run.study.privacy)) if items else "")
