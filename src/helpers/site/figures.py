"""The site's own figures: the study in one picture, the claims, and how their tests do on simulated cohorts."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from helpers.claims import CONTRADICTED, NOT_TESTABLE, SUPPORTED, VERDICTS
from helpers.figures import COLOURS, MARKERS, VISITS, groups, panels, styled
from helpers.simulation.performance import ROW
from helpers.study import FEW

#: Of the simulated worlds, in the table's order; they also differ in grey, from light to dark.
WORLD_MARKERS = "o^sDvPX*<>"


@styled
def overview(visits: pd.DataFrame, measure: str, labels: Mapping[str, str], ylabel: str) -> Figure:
    """A measure of all patients at both visits, over the band of the controls: the study in one picture.

    `visits` has a row a person and visit: subject, who, visit, and the measure.
    """
    fig = Figure(figsize=(4.6, 2.0), layout="constrained")
    ax = fig.subplots()
    healthy = visits.loc[visits["who"].eq("control") & visits["visit"].eq("baseline"), measure].dropna()
    if len(healthy):
        low, high = healthy.quantile([0.25, 0.75])
        ax.axhspan(low, high, color=COLOURS["control"], alpha=0.35, lw=0)
    shown = [who for who in groups(visits["who"]) if who != "control"]
    ticks: list[str] = []
    for i, who in enumerate(shown):
        wide = visits[visits["who"].eq(who)].pivot_table(measure, "subject", "visit", observed=False)
        wide = wide.reindex(columns=list(VISITS))
        draw_pairs(ax, wide, who, 1.7 * i)
        ticks += [f"{labels[v]}\nn = {wide[v].notna().sum()}" for v in VISITS]
        ax.text(1.7 * i + 0.5, 1.01, labels[who], transform=ax.get_xaxis_transform(), ha="center", weight="bold",
                color=COLOURS[who])  # fmt: skip
    ax.set_xticks([1.7 * i + j for i in range(len(shown)) for j in (0, 1)], ticks, size=8.5)
    ax.set(ylabel=fill(ylabel, 34), xlim=(-0.5, 1.7 * len(shown) - 0.2))
    return fig


def draw_pairs(ax: Axes, wide: pd.DataFrame, who: str, x: float) -> None:
    """People at two visits, the columns, as thin lines from `x` on; means of those who came twice, from five on."""
    ax.plot([x, x + 1], wide.to_numpy().T, color=COLOURS[who], alpha=0.25, lw=0.6, marker=".", ms=2.5)
    draw_means(ax, wide.dropna(), who, [x, x + 1], lw=2, zorder=5)


def draw_means(ax: Axes, values: pd.DataFrame, who: str, x: Sequence[float], **look: Any) -> None:
    """The mean of each column at its place `x`, with an interval of 95 %; of five people or more."""
    if len(values) >= FEW:
        half = stats.t.ppf(0.975, len(values) - 1) * values.sem()
        ax.errorbar(x, values.mean(), yerr=half, color="black", marker=MARKERS[who], mfc=COLOURS[who], ms=8, capsize=4,
                    **look)  # fmt: skip


@styled
def before_after(table: pd.DataFrame, measures: Sequence[str], labels: Mapping[str, str]) -> Figure:
    """Patients at both visits; `table` and `measures` as from `helpers.site.pages.patients.both_visits`."""
    fig, axes = panels(2.9, columns=len(measures))
    for ax, label in zip(axes, measures, strict=True):
        x, y = table[f"{label}, before"], table[f"{label}, after"]
        ends = min(x.min(), y.min()), max(x.max(), y.max())
        ax.plot(ends, ends, color="black", lw=0.8)
        for who in groups(table["who"]):
            of = table["who"].eq(who)
            ax.plot(x[of], y[of], MARKERS[who], ms=4, alpha=0.6, mew=0, color=COLOURS[who],
                    label=f"{labels[who]} (n = {of.sum()})")  # fmt: skip
        ax.set(xlabel=labels["baseline"], ylabel=labels["followup"], title=fill(label, 28))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return fig


@styled
def behind_claim(parts: Sequence[tuple[str, str, str, pd.DataFrame]], labels: Mapping[str, str]) -> Figure:
    """The people on whom each part of a claim rests.

    `parts` have what was estimated, the labels of the axes (that of x blank but for a link), and rows as from
    `helpers.evidence.people`.
    """
    columns = min(len(parts), 3)
    rows = -(-len(parts) // columns)
    fig, axes = panels(2.9 * rows, rows, columns)
    for ax, (what, xlabel, ylabel, rows_of) in zip(axes, parts, strict=False):
        shown, ticks = groups(rows_of["who"]), {}
        for i, who in enumerate(shown):
            part = rows_of[rows_of["who"].eq(who)]
            told = f"{labels[who]}\nn = {len(part)}"
            ticks[1.7 * i + 0.5] = told
            if xlabel:
                ax.plot(part["x"], part["after"], MARKERS[who], ms=4, alpha=0.6, mew=0, color=COLOURS[who],
                        label=told)  # fmt: skip
            elif part["before"].notna().any():
                ticks |= {1.7 * i: labels["baseline"], 1.7 * i + 0.5: f"\n{told}", 1.7 * i + 1: labels["followup"]}
                draw_pairs(ax, part[["before", "after"]], who, 1.7 * i)
            else:
                spread = np.random.default_rng(0).uniform(-0.2, 0.2, len(part))
                ax.plot(1.7 * i + 0.5 + spread, part["after"], MARKERS[who], ms=3.5, alpha=0.4, mew=0,
                        color=COLOURS[who])  # fmt: skip
                draw_means(ax, part[["after"]], who, [1.7 * i + 0.9], lw=2)
        if xlabel:
            ax.legend(loc="upper left", fontsize=7, bbox_to_anchor=(1, 1))  # beside what could be taken for people
        else:
            ax.set_xticks(list(ticks), list(ticks.values()))
            ax.set_xlim(-0.5, 1.7 * max(len(shown), 1) - 0.2)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=fill(what, 76 // columns))
    for ax in axes[len(parts) :]:
        ax.axis("off")
    return fig


@styled
def claims_forest(claims: pd.DataFrame, control: str) -> Figure:
    """Every claim's effect on one scale, by family; columns of `helpers.claims.verdicts`."""
    fig, (ax,) = panels(0.26 * (len(claims) + claims["family"].nunique()) + 0.7)
    ax.axvline(0, color="black", lw=0.8)
    ticks, y = {}, 0
    for family, rows in claims.groupby("family", sort=False):
        ax.text(0, y, f" {family}", transform=ax.get_yaxis_transform(), weight="bold", va="center")
        for row in rows.to_dict("records"):
            y -= 1
            ticks[y] = f"{row['id']} {row['what'].split(',')[0]}"
            unit = 1.0 if row["contrast"] == "severity" else row["sd"]
            if row["verdict"] == NOT_TESTABLE or not unit > 0:
                ax.text(0.02, y, row["verdict"], va="center", size=8, style="italic")
                continue
            low, high, estimate, margin = (row[k] / unit for k in ("ci_low", "ci_high", "estimate", "margin"))
            if np.isfinite(margin):
                ax.plot([-margin, margin], [y, y], color="0.8", lw=8, solid_capstyle="butt", zorder=0)
            ax.plot([low, high], [y, y], color="black", lw=1.6)
            face = "black" if row["verdict"] in (SUPPORTED, CONTRADICTED) else "white"
            ax.plot(estimate, y, VERDICTS[row["verdict"]].marker, ms=7, color="black", mfc=face)
            ax.text(1.02, y, f"n = {row['n']}: {row['verdict']}", transform=ax.get_yaxis_transform(), va="center",
                    size=8)  # fmt: skip
        y -= 1
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.set(xlabel=f"Effect in SD of {control}", ylim=(y + 0.4, 0.6))
    return fig


@styled
def validation(table: pd.DataFrame, alpha: float) -> Figure:
    """Share of simulated cohorts in which each test rejects (A), and in which each interval holds the truth (B).

    Bars: two Monte-Carlo standard errors. `table` as from `helpers.simulation.performance.summarise`, with ``name``,
    its row in words.
    """
    row = table.groupby(list(ROW), sort=False).ngroup()
    names = table.groupby(row)["name"].first().map(_folded)
    scenarios = list(table["scenario"].unique())
    greys = np.linspace(0.75, 0, len(scenarios))
    height = (0.1 + 0.03 * len(scenarios)) * len(names) + 0.08 * names.str.contains("\n").sum() + 1.2
    fig, axes = panels(height, columns=2, sharey=True)
    shares = (("rejected", alpha, "A  test rejects"), ("coverage", 1 - alpha, "B  holds the truth"))
    for ax, (share, line, title) in zip(axes, shares, strict=True):
        ax.axvline(100 * line, color="black", lw=0.8)
        for j, (scenario, grey) in enumerate(zip(scenarios, greys, strict=True)):
            rows = table[table["scenario"].eq(scenario)]
            y = -row[rows.index] - 0.7 * (j / max(len(scenarios) - 1, 1) - 0.5)
            look: dict[str, Any] = {"fmt": WORLD_MARKERS[j % len(WORLD_MARKERS)], "color": f"{grey:.2f}"}
            error = 200 * rows[f"{share}_error"]
            ax.errorbar(100 * rows[share], y, xerr=error, ms=4, lw=1, label=scenario, **look)
        ax.set(title=title, xlabel="Share of cohorts (%)")
        ax.grid(axis="y", color="0.92")
    axes[0].set_yticks(-names.index.to_numpy(), list(names), size=7)
    axes[0].set(xlim=(-2, 102), ylim=(-len(names) + 0.3, 0.7))
    axes[1].set(xlim=(min(80, 100 * table["coverage"].min() - 3), 101))
    axes[1].legend(loc="lower left", title=f"what is true\n(n = {table['runs'].max()} each)", fontsize=7)
    return fig


def _folded(name: str) -> str:
    """A long name on two lines, as even as its commas allow."""
    after = [i + 1 for i, mark in enumerate(name) if name[i : i + 2] == ", "]
    if len(name) <= 42 or not after:
        return name
    at = min(after, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:at]}\n{name[at + 1 :]}"
