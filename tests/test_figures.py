"""What is drawn is tested as data: the artists' coordinates, not the pixels."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers import claims, figures
from helpers.claims import VERDICTS
from helpers.simulation.performance import CHANGED, FALSE
from helpers.simulation.worlds import SCENARIOS
from helpers.site import figures as site_figures
from helpers.site.pages.validation import off_target, validation_page
from helpers.study import load_study

LABELS = {
    "control": "Control",
    "treatment": "Dupilumab",
    "comparator": "Cyclosporine",
    "case": "AD",
    "baseline": "Baseline",
    "followup": "Month 3",
}


@pytest.fixture
def visits() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        {
            "subject": f"{who}{i}",
            "who": who,
            "visit": visit,
            "y": rng.normal(),
            "PC1": rng.normal(),
            "PC2": rng.normal(),
        }
        for who in ("control", "treatment", "comparator")
        for i in range(6)
        for visit in ("baseline", "followup")
    ]
    return pd.DataFrame(rows[:-1])  # the last patient has no follow-up


def test_lines_join_each_patients_two_values_and_the_means_of_those_who_came_twice(visits):
    fig: Any = figures.by_visit(visits, "y", LABELS, "y", {("comparator", "followup"): "seen in 50 %"})
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["A  Control", "B  Dupilumab", "C  Cyclosporine"]
    for ax, who in zip(fig.axes, ("control", "treatment", "comparator"), strict=True):
        wide = visits[visits["who"].eq(who)].pivot_table(index="subject", columns="visit", values="y").dropna()
        drawn = {tuple(line.get_ydata()) for line in ax.lines}
        assert {tuple(pair) for pair in wide.to_numpy()} <= drawn
        assert any(np.allclose(ends, wide.mean()) for ends in drawn if len(ends) == 2)
        band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        healthy = visits.query("who == 'control' and visit == 'baseline'")["y"]
        assert [band.y0, band.y1] == pytest.approx(healthy.quantile([0.25, 0.75]).tolist())
    assert [t.get_text() for t in fig.axes[2].get_xticklabels()] == ["Baseline\nn = 6", "Month 3\nn = 5\nseen in 50 %"]
    assert fig.axes[2].get_xlabel() == "both visits: n = 5"


def test_of_four_people_no_mean_is_drawn_and_nobody_who_was_not_swabbed_has_a_place(visits):
    four = visits[~visits["subject"].eq("treatment0") & ~(visits["who"].eq("control") & visits["visit"].eq("followup"))]
    four = four[~four["subject"].isin(["treatment1", "control0", "control1"])]
    fig: Any = figures.by_visit(four[four["who"].ne("comparator")], "y", LABELS, "y")
    controls, treated = fig.axes
    assert [t.get_text() for t in controls.get_xticklabels()] == ["Baseline\nn = 4"]
    assert not [ax for ax in fig.axes if ax.containers or ax.patches]
    assert len(treated.lines) == 4
    assert not [line for line in treated.lines if line.get_color() == "black"]
    drawn: Any = figures.pcoa_paths(four, LABELS, [0.2, 0.1], "d")
    assert [len(ax.texts) for ax in drawn.axes] == [0, 1]  # an arrow of the arm with five


def test_the_flow_has_a_column_a_group_from_the_files_to_the_compared_with_its_losses():
    rows = [
        ("read", "all", "control", 9, 9, 0, 0, 17), ("read", "all", "treatment", 6, 6, 5, 5, 11),
        ("depth", "few reads", "control", 9, 9, 0, 0, 16), ("depth", "few reads", "treatment", 6, 6, 5, 5, 11),
        ("swabs", "no lesion", "control", 9, 9, 0, 0, 16), ("swabs", "no lesion", "treatment", 6, 6, 5, 5, 11),
        ("rarefaction", "too few", "control", 9, 9, 0, 0, 16), ("rarefaction", "too few", "treatment", 5, 5, 4, 4, 9),
    ]  # fmt: skip
    columns = ["step", "reason", "who", "people", "baseline", "followup", "both", "swabs"]
    ax: Any = figures.sample_flow(pd.DataFrame(rows, columns=columns), LABELS).axes[0]
    told = [t.get_text().replace("\n", " ") for t in ax.texts if t.get_text()]
    assert told == [
        "In the files", "Control n = 9 people 17 swabs", "Dupilumab n = 6 people 11 swabs",
        "Left out: few reads", "n = 0 people 1 swabs", "Left out: too few", "n = 1 people 2 swabs",
        "Compared", "n = 9 people 16 swabs Baseline: 9 people",
        "n = 5 people 9 swabs Baseline: 5 people Month 3: 4 people both visits: 4 people",
    ]  # fmt: skip
    boxes = [patch.get_extents() for patch in ax.patches if isinstance(patch, figures.Rectangle)]
    assert len(boxes) == 6
    assert not [1 for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_mean_rarefaction_curves_are_drawn_over_the_swabs_that_reach_the_end():
    swabs = [f"deep{i}" for i in range(5)]
    shannon = [1.0, np.nan, *[2.0, 3.0] * 5]
    about = {"swab": np.repeat(["shallow", *swabs], 2), "group": "case", "depth": [10, 100] * 6}
    curves = pd.DataFrame(about | {"observed_features": shannon, "shannon": shannon})
    names = {"observed_features": "Observed ASVs", "shannon": "Shannon diversity (nats)"}
    fig: Any = figures.rarefaction(curves.assign(reaches=curves["swab"].ne("shallow")), names, LABELS, 10)
    mean = next(line for line in fig.axes[1].lines if line.get_marker() == figures.MARKERS["case"])
    assert list(mean.get_ydata()) == [2.0, 3.0]  # the shallow swab would make it less than 2 at the start
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["AD (n = 5 of 6 swabs)"]


def test_groups_differ_in_marker_and_in_lightness():
    grey = {who: np.dot(figures.mpl.colors.to_rgb(c), [0.299, 0.587, 0.114]) for who, c in figures.COLOURS.items()}
    shown = [grey[w] for w in ("control", "treatment", "comparator")]
    assert min(abs(a - b) for i, a in enumerate(shown) for b in shown[:i]) > 0.1
    assert len(set(figures.MARKERS.values())) == len(figures.MARKERS)


def test_forest_draws_estimate_interval_and_margin_and_tells_logs_as_fold_changes():
    rows = pd.DataFrame(
        {
            "measure": ["x", "x", "y"], "axis": ["nats", "nats", "times"], "label": ["a", "b", "a"], "n": [9, 8, 7],
            "estimate": [1.0, -2, np.log(4)], "ci_low": [0.5, -3, 0], "ci_high": [1.5, -1, np.log(16)],
            "margin": [0.7, 0.7, np.nan], "contrast": "arms", "scale": ["points", "points", "fold change"],
            "unit": ["nats", "nats", "CLR"],
        }
    )  # fmt: skip
    fig: Any = figures.forest(rows)
    first, second = fig.axes
    drawn = [tuple(map(float, line.get_xdata())) for line in first.lines]
    assert {(0.5, 1.5), (-3.0, -1.0), (1.0,), (-2.0,)} <= set(drawn)
    assert [t.get_text() for t in first.get_yticklabels()] == ["a (n = 9)", "b (n = 8)"]
    zones = [[(p.get_x(), p.get_width()) for p in ax.patches] for ax in (first, second)]
    assert zones == [[(-0.7, 1.4)], []]
    assert [ax.get_title("left") for ax in (first, second)] == ["A  x", "B  y"]
    assert second.texts[0].get_text() == "4.00 (1.00 to 16.0)"
    fig.draw_without_rendering()
    assert {"1", "2", "4", "8", "16"} <= {t.get_text() for t in second.get_xticklabels()}


def test_a_guide_line_stays_within_the_data_and_few_people_have_none():
    rng = np.random.default_rng(1)
    people = pd.DataFrame({"who": ["treatment"] * 12 + ["comparator"] * 4, "x": rng.uniform(0, 90, 16)})
    people["y"] = np.maximum(people["x"] - 60, 0)
    ax: Any = figures.against(people, {"x": "EASI (points)"}, "y", "S. aureus (%)", LABELS).axes[0]
    lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
    bands = [band for band in ax.collections if isinstance(band, figures.PolyCollection)]
    assert len(lines) == len(bands) == 1  # of the arm with enough people
    treated = people[people["who"].eq("treatment")]
    assert (lines[0].get_xdata().min(), lines[0].get_xdata().max()) == (treated["x"].min(), treated["x"].max())
    vertices: Any = bands[0].get_paths()[0].vertices
    assert vertices[:, 1].min() >= people["y"].min()
    assert vertices[:, 1].max() <= people["y"].max()
    assert np.nanmin(lines[0].get_ydata()) >= people["y"].min()


def test_the_overview_has_a_row_a_claim_with_its_span_and_the_reports_own_estimate():
    rows = pd.DataFrame(
        {
            "claim": ["C1", "C2", "C3"], "what": "Shannon", "n": [30, 21, np.nan], "verdict": "inconclusive",
            "low": [-0.5, 0.1, np.nan], "high": [1.0, 0.4, np.nan], "median": [0.2, 0.3, np.nan],
            "effect": [0.7, 0.3, np.nan], "agree": [2, 1, np.nan], "specifications": [6, 1, np.nan],
            "all": [48, 1, np.nan],
        }
    )  # fmt: skip
    ax: Any = figures.overview(rows).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["C1  Shannon (n = 30)", "C2  Shannon (n = 21)"]
    assert [t.get_text() for t in ax.texts] == ["inconclusive, 2 of 6", "inconclusive, the only one"]
    spans = {tuple(map(float, line.get_xdata())) for line in ax.lines}
    assert {(-0.5, 1.0), (0.1, 0.4)} <= spans
    own = [(float(line.get_xdata()[0]), line.get_mfc()) for line in ax.lines if line.get_marker() == "D"]
    assert own == [(0.7, "white"), (0.3, "black")]  # most other analyses say otherwise of the first


def test_pcoa_joins_the_visits_of_who_came_twice_and_its_arrow_their_means(visits):
    ax: Any = figures.pcoa_paths(visits, LABELS, [0.2, 0.1], "d").axes[1]
    part = visits[visits["who"].eq("comparator")].set_index(["visit", "subject"])[["PC1", "PC2"]]
    start, stop = part.loc["baseline"].drop("comparator5"), part.loc["followup"]
    assert np.allclose([line.get_xdata() for line in ax.lines], np.transpose([start["PC1"], stop["PC1"]]))
    (arrow,) = ax.texts
    assert np.allclose([arrow.xyann, arrow.xy], [start.mean(), stop.mean()])
    faces = {len(c.get_offsets()): c.get_facecolor()[0].tolist() for c in ax.collections[1:]}
    assert faces == {6: [1, 1, 1, 1], 5: list(figures.mpl.colors.to_rgba(figures.COLOURS["comparator"]))}
    assert ax.get_title(loc="left") == "B  Cyclosporine (both visits: n = 5)"


@pytest.fixture
def parts(visits) -> pd.DataFrame:
    return visits.assign(a=np.linspace(0, 60, len(visits)), b=10.0, Other=lambda v: 90 - v["a"])


def test_composition_stacks_to_the_whole_and_leaves_groups_of_four_to_the_table(parts):
    few = parts[~parts["subject"].isin(["comparator0", "comparator1"])]
    ax: Any = figures.composition(few, ["a", "b", "Other"], LABELS).axes[0]
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert max(x + width for x, width in bars) == pytest.approx(100)
    assert bars[0][1] == pytest.approx(few.query("who == 'control' and visit == 'baseline'")["a"].mean())
    told = [t.get_text() for t in ax.get_yticklabels()]
    assert told == [f"{g}, {v}\n(n = 6)" for g in ("Control", "Dupilumab") for v in ("Baseline", "Month 3")]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [figures.italic("a"), figures.italic("b"), "Other"]


def test_parts_of_a_whole_that_are_neighbours_differ_in_lightness():
    grey = [np.dot(figures.mpl.colors.to_rgb(c), [0.299, 0.587, 0.114]) for c in (*figures.PARTS, figures.REST)]
    assert min(abs(a - b) for a, b in figures.pairwise(grey)) > 0.05


def test_genera_that_are_found_are_filled_and_stand_before_the_frame():
    table = pd.DataFrame(
        {
            "taxon": list("ABC"), "estimate": [1.0, -2.0, 0.5], "ci_low": [0.5, -3, -0.5], "ci_high": [1.5, -1, 1.5],
            "p_value": [0.01, 0.001, 0.9], "n": 9, "found": [True, True, False], "frame_low": -0.2, "frame_high": 0.3,
        }
    )  # fmt: skip
    ax: Any = figures.differential(table, "x", top=3).axes[0]
    assert [p.get_x() for p in ax.patches] == [pytest.approx(np.exp(-0.2))]
    assert [p.get_x() + p.get_width() for p in ax.patches] == [pytest.approx(np.exp(0.3))]
    marks = {tuple(c.get_facecolor()[0][:3]): c.get_offsets()[:, 0].tolist() for c in ax.collections[1:]}
    assert marks == {(0.0, 0.0, 0.0): np.exp([-2.0, 1.0]).tolist(), (1.0, 1.0, 1.0): [np.exp(0.5)]}
    spans = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert spans == np.exp([[-3.0, -1.0], [-0.5, 1.5], [0.5, 1.5]]).tolist()


def test_taxa_are_set_in_italics_and_groups_of_taxa_are_not():
    assert figures.italic("Staphylococcus aureus") == r"$\mathit{S{.}\:aureus}$"
    assert figures.italic("Staphylococcus (unnamed)") == r"$\mathit{Staphylococcus}$ (unnamed)"
    assert figures.italic("Other") == "Other"


def test_names_of_taxa_in_a_figures_texts_are_set_in_italics_and_nothing_else_is_read_as_math():
    with figures.style.context(figures.STYLE):
        fig = figures.Figure()
        ax: Any = fig.subplots()
    ax.set(xlabel="S. aureus ($1)", ylabel="x_1 $2$", title="S. aureuses")
    ax.set_yticks([0, 1], ["S. aureus", "Shannon"])
    figures.italicise(fig, ["S. aureus", "Staphylococcus"])
    assert (ax.get_xlabel(), ax.xaxis.label.get_parse_math()) == (r"$\mathit{S{.}\:aureus}$ (\$1)", True)
    assert [t.get_text() for t in ax.get_yticklabels()] == [r"$\mathit{S{.}\:aureus}$", "Shannon"]
    assert (ax.get_ylabel(), ax.get_title()) == ("x_1 $2$", "S. aureuses")


def test_bars_of_patients_keep_their_place_at_both_visits_and_stack_to_the_whole(parts):
    once = parts[~(parts["who"].eq("control") & parts["visit"].eq("followup"))]
    fig: Any = figures.composition_by_patient(once, ["a", "b", "Other"], LABELS)
    first, second = (
        [np.asarray(step.get_data().values) for step in fig.axes[at].patches] for at in (2, 5)
    )  # the comparator's, at both visits
    order = parts.query("who == 'comparator' and visit == 'baseline'").sort_values("a", ascending=False)
    assert list(first[0]) == order["a"].tolist()
    after = parts.query("who == 'comparator' and visit == 'followup'").set_index("subject")["a"]
    assert np.array_equal(second[0], after.reindex(order["subject"]), equal_nan=True)
    assert np.isnan(second[0]).sum() == 1  # who was not swabbed leaves a gap
    assert np.allclose(first[-1], 100)
    titles = [ax.get_title("left") for ax in fig.axes if ax.axison]
    assert titles[:2] == ["A  Control\nn = 6", "B  Dupilumab\nn = 6"]
    assert len(titles) == 5  # the controls' second visit has no panel


def test_strata_show_the_patients_and_a_mean_of_enough_of_them():
    strata = pd.Categorical(["<50 %"] * 4 + ["≥90 %"] * 5, ["<50 %", "≥90 %"], ordered=True)
    changes = pd.DataFrame({"scale": "s, change (times)", "arm": "treatment", "stratum": strata})
    changes["change"] = np.arange(9.0)
    fig: Any = figures.strata(changes, LABELS, {"s, change (times)": (np.nan, np.nan)})
    ax, few = fig.axes[0], figures.strata(changes[:4], LABELS, {"s, change (times)": (np.nan, np.nan)})
    assert [t.get_text() for t in few.legends[0].get_texts()] == ["Dupilumab"]  # also where nobody has a mean
    points = [sorted(y for _, y in c.get_offsets()) for c in ax.collections if hasattr(c, "get_sizes")]
    assert [0.0, 1.0, 2.0, 3.0] in points
    assert [4.0, 5.0, 6.0, 7.0, 8.0] in points
    means = [float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() == figures.MARKERS["treatment"]]
    assert means == [6.0]
    assert [t.get_text() for t in ax.texts if "n = " in t.get_text()] == ["n = 4", "n = 5"]
    assert (ax.get_title("left"), ax.get_ylabel()) == ("s", "Change (times)")


def test_claims_forest_is_in_standard_deviations_of_the_controls():
    rows = [
        {"id": "C1", "what": "m", "estimate": -1.0, "ci_low": -1.5, "ci_high": -0.5, "verdict": claims.SUPPORTED},
        {"id": "C12", "what": "m", "estimate": np.nan, "ci_low": np.nan, "verdict": claims.NOT_TESTABLE},
    ]
    judged = pd.DataFrame(rows).assign(n=9, sd=0.5, family="disease", contrast="group", margin=np.nan)
    ax: Any = site_figures.claims_forest(judged, "Control").axes[0]
    assert (-3.0, -1.0) in {tuple(map(float, line.get_xdata())) for line in ax.lines}
    assert "not testable" in {t.get_text() for t in ax.texts}


def test_drawing_leaves_no_style_behind(visits):
    before = dict(figures.mpl.rcParams)
    figures.by_visit(visits, "y", LABELS, "y")
    assert dict(figures.mpl.rcParams) == before


def performance(**changes: Any) -> pd.DataFrame:
    """Two tests in each world, as `helpers.simulation.performance.summarise` gives them."""
    asked = {"measure": "shannon", "contrast": "group", "arm": "", "among": "", "score": "", "estimator": "OLS"}
    rows = [
        {
            "scenario": scenario, "claim": claim, **asked, "interval": "model", "runs": 400, "target": 0.0,
            "target_error": 0.0 if scenario == "no effect" else 0.01,
            "mean_estimate": 0.0, "rejected": 0.05, "rejected_error": 0.011, "coverage": 0.95, "coverage_error": 0.011,
            "supported": 0.0, "level": 0.95, "margin": np.nan,
        }
        for scenario in SCENARIOS
        for claim in ("C1", "C2")
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    for column, (row, value) in changes.items():
        table.loc[row, column] = value
    return table


def test_performance_shows_each_share_with_two_monte_carlo_errors():
    table = performance(coverage=(5, 0.9))
    # Rows that are called the same are not taken for one another, in whichever order they stand.
    axes: Any = site_figures.validation(table.assign(name="m").iloc[::-1], 0.05).axes
    left, right = axes
    assert [line.get_xdata()[0] for line in left.lines[:1]] == [5]
    assert [line.get_xdata()[0] for line in right.lines[:1]] == [95]
    shown = {
        (round(float(y)), round(float(x)))
        for line in right.lines[1:]
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        if len(line.get_xdata()) == 2
    }
    assert shown == {(0, 95), (0, 90), (-1, 95)}
    assert [t.get_text() for t in left.get_yticklabels()] == ["m", "m"]
    assert [t.get_text() for t in right.get_legend().get_texts()] == list(SCENARIOS)[::-1]


def test_what_is_off_is_told_from_what_is_noise():
    noise, off = {"rejected": (0, 0.071), "rejected_error": (0, 0.02)}, {"rejected": (0, 0.09), "coverage": (5, 0.9)}
    assert off_target(performance(**noise), 0.05).empty
    assert off_target(performance(**off), 0.05).index.tolist() == [0, 5]
    assert off_target(performance(rejected=(4, 0.99)), 0.05).empty  # power, not error
    # What is nothing by construction is nothing in whichever world.
    assert off_target(performance(rejected=(4, 0.99), target_error=(4, 0.0)), 0.05).index.tolist() == [4]
    # Something is there even in the world without an effect on the skin: severity improves.
    assert off_target(performance(rejected=(0, 0.99), target=(0, 0.1)), 0.05).empty


def test_false_discoveries_are_off_in_whichever_world(tmp_path):
    table = performance().assign(**dict.fromkeys(VERDICTS, 0.0))
    genera = table.iloc[[2, 4, 4]].assign(claim="", measure="", estimator=[FALSE, FALSE, CHANGED], target=np.nan)
    genera["coverage"] = np.nan
    both = pd.concat([table, genera.assign(rejected=[0.01, 0.12, 0.3])], ignore_index=True)
    assert off_target(both, 0.05).index.tolist() == [len(table) + 1]
    html = validation_page(both, load_study("data/demo"), None, tmp_path)
    assert "Of the genera that are found, at most 12.0 % do not change" in html
    assert "in the demo's world there are found: 30.0 % (group)" in html
    assert "Of the genera" not in validation_page(table, load_study("data/demo"), None, tmp_path)


def test_a_cohort_is_laid_beside_the_truth_of_the_same_question(tmp_path):
    like = load_study("data/demo")
    table = performance(target=(4, 0.25)).assign(**dict.fromkeys(VERDICTS, 0.0))
    part = table.drop(columns=["scenario", "interval", "target", "level"]).iloc[[1, 0]]
    part = part.assign(estimate=[0.5, 0.5], ci_low=0.2, ci_high=0.9, unit="nats")
    added = part.assign(claim=["X1", "X2"], measure="Staphylococcus epidermidis")
    html = validation_page(table, like, pd.concat([part, added]), tmp_path)
    rows = html[html.index("against its truth") :].split("<tr>")
    first = {claim: next(row for row in rows if f">{claim}<" in row) for claim in ("C1", "C2", "X1")}
    assert ">0.250<" in first["C1"]
    assert ">yes<" in first["C1"]
    assert ">0<" in first["C2"]
    assert ">no<" in first["C2"]
    assert first["X1"].count(">–<") == 2
    assert "<em>S. epidermidis</em>, Atopic dermatitis minus Healthy skin (nats)" in first["X1"]
    assert "1 of 2 intervals" in html
    assert "2 were not simulated" in html


def test_trajectories_start_at_none_and_have_a_gap_where_few_came():
    row = {"measure": "S. aureus", "unit": "CLR", "scale": "fold change"}
    drawn = [
        ("Drug", "Week 4", -1.0, 9),
        ("Drug", "Month 3", -2.0, 8),
        ("Drug C", "Month 3", 1.0, 6),
        ("Few", "Week 4", np.nan, 3),
    ]
    rows = [
        row | {"who": w, "visit": v, "estimate": e, "ci_low": e - 1, "ci_high": e + 2, "n": n} for w, v, e, n in drawn
    ]
    labels = {
        "control": "C",
        "case": "P",
        "treatment": "Drug",
        "comparator": "Other",
        "baseline": "Start",
        "followup": "Month 3",
    }
    fig = figures.trajectories(pd.DataFrame(rows), labels)
    ax: Any = fig.axes[0]
    lines = {c.get_label(): c.lines[0].get_ydata().tolist() for c in ax.containers}
    assert list(lines) == ["Drug (n = 9)", "Drug C (n = 6)"]
    assert lines["Drug (n = 9)"] == [0, -1, -2]
    assert np.array_equal(lines["Drug C (n = 6)"], [0, np.nan, 1], equal_nan=True)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Start", "Week 4", "Month 3"]
    (grey,) = ax.patches
    assert grey.get_x() == pytest.approx(1.7), "the visit that claims are about"
    assert ax.containers[1].lines[0].get_linestyle() != ax.containers[0].lines[0].get_linestyle() == "-"
