"""The site's own figures: the claims on one scale, and how their tests do on simulated cohorts."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.claims import CONTRADICTED, NOT_TESTABLE, SUPPORTED, VERDICTS
from helpers.figures import panels, styled
from helpers.narrate import number
from helpers.simulation.performance import ROW

#: Of the simulated worlds, in the table's order; they also differ in grey, from light to dark.
WORLD_MARKERS = "o^sDvPX*<>"


@styled()
def claims_forest(claims: pd.DataFrame) -> Figure:
    """Every claim on one scale: the estimate divided by half the width of its interval."""
    fig, (ax,) = panels(0.32 * len(claims) + 0.8)
    ax.axvline(0, color="black", lw=0.8)
    for i, row in enumerate(claims.to_dict("records")):
        if row["verdict"] == NOT_TESTABLE:
            ax.text(0.1, -i, NOT_TESTABLE, va="center", size=8, style="italic")
            continue
        half = (row["ci_high"] - row["ci_low"]) / 2
        low, high, estimate = (row[k] / half for k in ("ci_low", "ci_high", "estimate"))
        if np.isfinite(row["margin"]):
            margin = row["margin"] / half
            ax.plot([-margin, margin], [-i, -i], color="0.8", lw=9, solid_capstyle="butt", zorder=0)
        ax.plot([low, high], [-i, -i], color="black", lw=1.8)
        filled = row["verdict"] in (SUPPORTED, CONTRADICTED)
        ax.plot(estimate, -i, VERDICTS[row["verdict"]].marker, ms=8, color="black", mfc="black" if filled else "white")
        text = f"{number(row['estimate'])} {row['unit']}".strip() + f", n = {row['n']}: {row['verdict']}"
        ax.text(1.02, -i, text, transform=ax.get_yaxis_transform(), va="center", size=8)
    ax.set_yticks([-i for i in range(len(claims))], [f"{r.id} {r.what.split(',')[0]}" for r in claims.itertuples()])
    ax.set(xlabel="Estimate / half width of its interval (grey: margin of equivalence)", ylim=(-len(claims), 0.8))
    return fig


@styled()
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
