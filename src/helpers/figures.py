"""Style, palette and the report's figures: each takes tidy data and returns the figure.

Groups are told apart by colour, marker and place, so that they read in greyscale and to the colour-blind.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from inspect import getfile, signature
from itertools import pairwise, product
from pathlib import Path
from string import ascii_uppercase
from textwrap import fill
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator
from scipy import stats

from helpers.narrate import interval, most_differ, number, on_scale, short_name
from helpers.study import FEW
from helpers.texts import packaged

#: Okabe & Ito's palette, chosen so that the three groups differ in lightness too.
COLOURS = {"control": "#56B4E9", "treatment": "#D55E00", "comparator": "#4B2C7F", "case": "#7A4A00"}
MARKERS = {"control": "o", "treatment": "^", "comparator": "s", "case": "D"}
VISITS = ("baseline", "followup")
#: Of parts of a whole: every second one is dark, so that neighbours differ in grey, too. And of the rest.
PARTS = ("#8C1D18", "#F4A582", "#C0504D", "#FBDCC9", "#2B5C8A", "#A6CEE3", "#3B6E22", "#C7DE86", "#5E3C80", "#D9C4E8")
REST = "#EEEEEE"
#: What an artist is told by `_of`.
PEOPLE = "people"

#: Inches: the text width of a printed page.
WIDTH = 7.0

#: Of all figures, as matplotlib reads it.
STYLE = Path(__file__).with_name("report.mplstyle")

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the report's style without changing anybody else's, and say how the figure is read.

    The figure keeps as ``caption`` and ``alt`` what ``captions.yaml`` beside the drawing function's module says of it.
    """
    texts = {"caption": "", "alt": ""} | packaged(Path(getfile(draw)).with_name("captions.yaml"))[draw.__name__]

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style.context(STYLE):
            fig = draw(*args, **kwargs)
        given = signature(draw).bind(*args, **kwargs)
        given.apply_defaults()
        vars(fig).update({name: text.format(**given.arguments) for name, text in texts.items()})
        return fig

    return wrapped


def panels(height: float, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure as wide as a page's text, so many inches high, and its panels row by row."""
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **shared).ravel()


def _legend_above(fig: Figure, axes: Iterable[Axes], **how: Any) -> Legend:
    """One legend of these panels above all, each name once."""
    named = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    return fig.legend(named.values(), named.keys(), loc="outside upper left", **{"ncols": len(named)} | how)


def _lettered(axes: Sequence[Axes] | np.ndarray, **how: Any) -> None:
    """Write A, B, C … before the titles of a figure's panels, if it has several."""
    for letter, ax in zip(ascii_uppercase, axes, strict=False):
        if len(axes) > 1:
            ax.set_title(f"{letter}  {ax.get_title('left')}".rstrip(), **how)


def _of(artists: Iterable[Artist], people: int = 0) -> None:
    """Note of how many people artists tell, 0 of each alone: what tells of few is left out where that is suppressed."""
    for artist in artists:
        vars(artist)[PEOPLE] = people


def _jitter(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.12, 0.12, n)


def _faint(n: int) -> dict[str, Any]:
    """Marks of single people: the more there are, the smaller and fainter, so that they neither hide nor vanish."""
    return {"s": float(np.clip(160 / max(n, 1), 7, 16)), "alpha": float(np.clip(20 / max(n, 1), 0.3, 0.75)), "lw": 0}


def _people(ax: Axes, x: Any, values: pd.Series, who: str) -> None:
    """Marks of the single people of a group."""
    _of([ax.scatter(x, values, color=COLOURS[who], marker=MARKERS[who], **_faint(len(values)))])


def _mean_interval(values: pd.Series) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval; NaN of fewer than `FEW`."""
    x = values.dropna()
    if len(x) < FEW:
        return np.nan, np.nan
    return float(x.mean()), float(stats.t.ppf(0.975, len(x) - 1) * stats.sem(x))


def _mean_mark(ax: Axes, x: float, values: pd.Series, who: str) -> None:
    """Mean with its 95 % interval, drawn so that it stands out from the points; nothing of few people."""
    if values.count() >= FEW:
        mean, half = _mean_interval(values)
        mark: Any = {"fmt": MARKERS[who], "mfc": COLOURS[who], "ms": 7}
        drawn = ax.errorbar(x, mean, yerr=half, zorder=5, color="black", capsize=3, lw=1.5, **mark)
        _of(drawn.get_children(), values.count())


def groups(who: pd.Series) -> list[str]:
    """Groups that are there, keys of `COLOURS`, in the order in which figures draw them."""
    return [g for g in COLOURS if who.eq(g).any()]


@styled
def sample_flow(flow: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Draw who was in the files, who was left out and why, and who is compared, a column a group.

    `flow` as from `helpers.quality.flow`; steps that left nobody out are not drawn.
    """
    steps = {reason: part.set_index("who") for (_, reason), part in flow.groupby(["step", "reason"], sort=False)}
    shown = [w for w in dict.fromkeys((*COLOURS, *flow["who"])) if next(iter(steps.values()))["swabs"].get(w, 0)]
    visits = {"baseline": labels["baseline"], "followup": labels["followup"], "both": "both visits"}
    left = [part.reindex(shown, fill_value=0)[["people", "swabs", *visits]] for part in steps.values()]

    def told(counts: pd.DataFrame) -> dict[str, str]:
        # Always "people": a singular would tell a count that is hidden where small cells are suppressed.
        return {str(who): f"n = {row['people']} people\n{row['swabs']} swabs" for who, row in counts.iterrows()}

    rows = [("In the files", {who: f"{labels.get(who, who)}\n{text}" for who, text in told(left[0]).items()})]
    for reason, lost in zip([*steps][1:], (a - b for a, b in pairwise(left)), strict=True):
        if lost["swabs"].any():
            rows.append((fill(f"Left out: {reason}", 24), told(lost[lost["swabs"] > 0])))
    end = told(left[-1])
    for who, (v, name) in product(shown, visits.items()):
        end[who] += f"\n{name}: {left[-1].loc[who, v]} people" if left[0].loc[who, v] else ""
    rows.append(("Compared", end))

    heights = [0.1 + 0.15 * max(text.count("\n") + 1 for text in (said, *texts.values())) for said, texts in rows]
    tops, margin = -np.cumsum([0, *(height + 0.14 for height in heights)]), 1.5
    width = min((WIDTH - margin) / max(len(shown), 1), 2.0)
    fig, (ax,) = panels(-tops[-1])
    ax.set(xlim=(0, WIDTH), ylim=(tops[-1], 0.05))
    ax.axis("off")
    arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0}
    for x in margin + width * (np.arange(len(shown)) + 0.1):
        ax.annotate("", (x, tops[-2]), (x, -heights[0]), arrowprops=arrow)
    for row, ((said, texts), top, height) in enumerate(zip(rows, tops, heights, strict=False)):
        whole = row in (0, len(rows) - 1)
        ax.text(0, top - height / 2, said, va="center", size=8, weight="bold" if whole else "normal")
        for who, text in texts.items():
            x, wide = margin + width * (shown.index(who) + (0 if whole else 0.22)), width * (0.95 if whole else 0.73)
            if not whole:
                ax.plot([x - 0.12 * width, x], [top - height / 2] * 2, color="black", lw=0.8)
            edge: Any = {"ec": COLOURS.get(who, "0.5"), "lw": 2} if whole else {"ec": "0.5", "lw": 0.8}
            ax.add_patch(Rectangle((x, top - height), wide, height, fc="white", **edge))
            ax.text(x + wide / 2, top - height / 2, text, ha="center", va="center", size=8)
    return fig


@styled
def depth(obs: pd.DataFrame, labels: Mapping[str, str], thresholds: Mapping[str, int]) -> Figure:
    """Reads of each swab by group, on a logarithmic axis; `thresholds`, named depths, are lines.

    `obs` has a row a swab: ``who`` (a key of `COLOURS`) and ``depth``.
    """
    fig, (ax,) = panels(2.8)
    shown = list(dict.fromkeys([*groups(obs["who"]), *sorted(set(obs["who"]))]))
    for i, who in enumerate(shown):
        reads = obs.loc[obs["who"].eq(who), "depth"]
        mark = {"color": COLOURS.get(who, "0.45"), "marker": MARKERS.get(who, "P")}
        points: Any = {"s": 8, "alpha": 0.35, "lw": 0} | mark
        _of([ax.scatter(reads, i + _jitter(len(reads)), **points)])
        if len(reads) >= FEW:
            ax.boxplot(reads, positions=[i + 0.3], widths=0.15, orientation="horizontal", showfliers=False,
                       medianprops={"color": "black"})  # fmt: skip
    for line, value in zip(("--", ":"), sorted(set(thresholds.values())), strict=False):
        name = " and ".join(name for name, depth in thresholds.items() if depth == value)
        ax.axvline(value, ls=line, color="black", lw=1, label=f"{name}: {value:,}")
    ax.set_yticks(range(len(shown)), [f"{labels[g]}\nn = {obs['who'].eq(g).sum()}" for g in shown])
    ax.set(xscale="log", xlabel="Reads a swab", ylim=(-0.4, len(shown) - 0.3))
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.15), ncols=2)
    return fig


@styled
def rarefaction(
    curves: pd.DataFrame, measures: Mapping[str, str], labels: Mapping[str, str], rarefaction_depth: int
) -> Figure:
    """Rarefaction curves: alpha diversity at rising depth, the mean of each group with its interval, and the spread.

    All are over the swabs that reach the greatest depth, the same ones at every depth. `curves` as from
    `helpers.diversity.rarefaction_curves`; `measures` are two of its columns, with their names and units.
    """
    fig, axes = panels(3.2, columns=2)
    for ax, (measure, name) in zip(axes, measures.items(), strict=True):
        for who, line in zip(groups(curves["group"]), ("-", "--"), strict=False):
            part = curves[curves["group"].eq(who)]
            wide = part[part["reaches"]].pivot_table(index="swab", columns="depth", values=measure)
            if len(wide) < FEW:
                continue
            spread = ax.plot(wide.columns, wide.quantile([0.1, 0.9]).T, color=COLOURS[who], ls=line, lw=1)
            means, half = np.transpose([_mean_interval(wide[depth]) for depth in wide])
            mean = ax.errorbar(wide.columns, means, yerr=half, color=COLOURS[who], mec="black", lw=1.8, ls=line,
                        marker=MARKERS[who], ms=5, capsize=2,
                        label=f"{labels[who]} (n = {len(wide)} of {part['swab'].nunique()} swabs)")  # fmt: skip
            _of([*spread, *mean.get_children()], len(wide))
        ax.axvline(rarefaction_depth, ls=":", color="black", lw=1)
        ax.set(xscale="log", xlabel="Reads drawn", ylabel=name, ylim=(0, None))
    _lettered(axes)
    _legend_above(fig, axes[:1])
    return fig


@styled
def by_visit(
    visits: pd.DataFrame, measure: str, labels: Mapping[str, str], ylabel: str, notes: Mapping[Any, str] | None = None
) -> Figure:
    """A measure at both visits, a panel for each group that has it; `ylabel` has name and unit.

    `notes`, by group and visit, stand below the visits. A visit at which nobody of a group was swabbed has no place.
    """
    known = visits.dropna(subset=[measure])
    shown = {who: known[known["who"].eq(who)] for who in groups(known["who"])}
    at = {who: [visit for visit in VISITS if part["visit"].eq(visit).any()] for who, part in shown.items()}
    fig, axes = panels(3.5, columns=len(shown), sharey=True, width_ratios=[len(places) + 0.3 for places in at.values()])
    healthy = known.loc[known["who"].eq("control") & known["visit"].eq("baseline"), measure]
    for ax, (who, part) in zip(axes, shown.items(), strict=True):
        if len(healthy) >= FEW:
            band = ax.axhspan(*healthy.quantile([0.25, 0.75]), color=COLOURS["control"], alpha=0.3, lw=0)
            _of([band], len(healthy))
        wide = part.pivot_table(index="subject", columns="visit", values=measure, observed=True)[at[who]]
        pairs, x = wide.dropna(), np.arange(len(at[who])) + _jitter(len(wide))[:, None]
        _of(ax.plot(x.T, wide.to_numpy().T, color=COLOURS[who], alpha=_faint(len(wide))["alpha"] / 2, lw=0.5))
        if len(pairs) >= FEW:
            _of(ax.plot(range(len(at[who])), pairs.mean(), color="black", lw=2), len(pairs))
        for j, visit in enumerate(at[who]):
            _people(ax, x[:, j], wide[visit], who)
            if len(pairs) >= FEW:
                _mean_mark(ax, j, pairs[visit], who)
        ticks = [f"{labels[v]}\nn = {wide[v].count()}\n{(notes or {}).get((who, v), '')}".strip() for v in at[who]]
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set(title=labels[who], xlim=(-0.5, len(ticks) - 0.5))
        if len(ticks) == len(VISITS):
            ax.set_xlabel(f"both visits: n = {len(pairs)}")
    _lettered(axes)
    axes[0].set_ylabel(ylabel)
    return fig


@styled
def trajectories(changes: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Mean change since baseline at each visit with its interval, a line a group or arm, a panel a measure.

    `changes` as from `helpers.longitudinal.trajectories`.
    """
    visits, names = [labels["baseline"], *dict.fromkeys(changes["visit"])], {labels[who]: who for who in COLOURS}
    groups = sorted(dict.fromkeys(changes["who"]), key=lambda who: [*names, who].index(who))
    fig, axes = panels(3.4, columns=changes["measure"].nunique())
    for ax, (_, of) in zip(axes, changes.groupby("measure", sort=False), strict=True):
        for i, who in enumerate(groups):
            key, part = names.get(who, ""), of[of["who"].eq(who)].set_index("visit").reindex(visits[1:])
            mean, half = np.r_[0, part["estimate"]], np.r_[0, (part["ci_high"] - part["ci_low"]) / 2]
            style = {"color": COLOURS.get(key, "0.45"), "marker": MARKERS.get(key, "Pv*X"[i % 4]), "mec": "black"}
            if part["estimate"].notna().any():  # who was not swabbed at a visit has a gap there
                x = np.arange(len(visits)) + 0.08 * (i - (len(groups) - 1) / 2)
                line, n = "-" if key else ("--", ":")[i % 2], f"{who} (n = {part['n'].max():.0f})"
                ax.errorbar(x, mean, half, capsize=2, lw=1.5, ms=6, ls=line, label=n, **style)
        unit = "times" if of["scale"].iloc[0] == "fold change" else of["unit"].iloc[0]
        ax.axhline(0, color="black", lw=0.6)
        for at in (i for i, visit in enumerate(visits) if visit == labels["followup"]):
            ax.axvspan(at - 0.3, at + 0.3, color="0.9", lw=0, zorder=0)
        ax.set_xticks(range(len(visits)), visits, rotation=40, ha="right", rotation_mode="anchor")
        ax.set(title=fill(of["measure"].iloc[0], 30), ylabel=f"Change ({unit})" if unit else "Change")
        if unit == "times":
            _as_fold(ax.yaxis)
    _lettered(axes)
    _legend_above(fig, axes, ncols=3)
    return fig


@styled
def against(data: pd.DataFrame, xs: Mapping[str, str], y: str, ylabel: str, labels: Mapping[str, str]) -> Figure:
    """Scatter of a measure against others, a panel each, with a straight guide line and its 95 % band for each group.

    `data` has a row a patient: ``who``, `y` and the columns `xs`, which have their axis labels. The least-squares line
    guides the eye and is not the test; it stays within the values that there are, and few people have none.
    """
    from seaborn import regplot  # half a second, for one figure

    fig, axes = panels(3.3, columns=len(xs), sharey=True)
    for ax, (x, xlabel) in zip(axes, xs.items(), strict=True):
        for who in groups(data["who"]):
            part, there = data[data["who"].eq(who)].dropna(subset=[x, y]), ax.get_children()
            regplot(
                part, x=x, y=y, ax=ax, fit_reg=len(part) >= FEW and part[x].nunique() > 3, seed=0, color=COLOURS[who],
                marker=MARKERS[who], scatter_kws={"s": 14, "alpha": 0.55, "linewidths": 0},
                label=f"{labels[who]} (n = {len(part)})",
                line_kws={"linewidth": 1.8, "linestyle": "--" if who == "comparator" else "-"},
            )  # fmt: skip
            for artist in [artist for artist in ax.get_children() if artist not in there]:
                _of([artist], 0 if isinstance(artist, PathCollection) else len(part))
        least, most = data[y].min(), data[y].max()
        for line in ax.lines:
            at = np.asarray(line.get_ydata(), float)
            line.set_ydata(np.where((at >= least) & (at <= most), at, np.nan))
        for band in (band for band in ax.collections if isinstance(band, PolyCollection)):
            band.set_verts([np.clip(p.vertices, [-np.inf, least], [np.inf, most]) for p in band.get_paths()])
        low, high = ax.get_ylim()
        if low < 0 < high:
            ax.axhline(0, color="black", lw=0.6)
        ax.set(xlabel=xlabel, ylabel="", title=xlabel.partition(" (")[0] if len(xs) > 1 else "")
    _lettered(axes)
    _legend_above(fig, axes[:1], handletextpad=0.2)
    axes[0].set_ylabel(ylabel)
    return fig


@styled
def pcoa_paths(
    coordinates: pd.DataFrame, labels: Mapping[str, str], explained: Sequence[float], distance: str
) -> Figure:
    """Principal coordinates of each patient at both visits before those of the controls, a panel for each arm.

    `coordinates` has a row a patient and visit: subject, who, visit, PC1, PC2; `explained` the share of the variation
    on each axis.
    """
    arms = [g for g in groups(coordinates["who"]) if g != "control"]
    points = coordinates.set_index("subject")[["PC1", "PC2"]]
    who, visit = (coordinates[c].to_numpy() for c in ("who", "visit"))
    controls = points[(who == "control") & (visit == "baseline")]
    fig, axes = panels(3.9, columns=max(len(arms), 1), sharex=True, sharey=True)
    for ax, arm in zip(axes, arms, strict=False):
        cloud = f"{labels['control']}, {labels['baseline']} (n = {len(controls)})"
        _of([ax.scatter(*controls.to_numpy().T, s=14, color="0.8", lw=0, label=cloud if len(controls) else "_")])
        ends = [points[(who == arm) & (visit == v)] for v in VISITS]
        both = ends[0].index.intersection(ends[1].index)
        start, stop = (end.loc[both].to_numpy() for end in ends)
        _of(ax.plot(*np.stack([start, stop]).transpose(2, 0, 1), color=COLOURS[arm], alpha=0.25, lw=0.5))
        for end, v, face in zip(ends, VISITS, ("white", COLOURS[arm]), strict=True):
            how: Any = {"s": 14, "marker": MARKERS[arm], "fc": face, "ec": COLOURS[arm], "lw": 0.7, "zorder": 2}
            _of([ax.scatter(*end.to_numpy().T, label=f"{labels[arm]}, {labels[v]}", **how)])
        if len(both) >= FEW:
            bold = {"arrowstyle": "-|>", "lw": 2.5, "color": "black", "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
            _of([ax.annotate("", stop.mean(axis=0), start.mean(axis=0), zorder=5, arrowprops=bold)], len(both))
        ax.set(title=f"{labels[arm]} (both visits: n = {len(both)})", xlabel=f"PC1 ({100 * explained[0]:.1f} %)")
    _lettered(axes)
    _legend_above(fig, axes, ncols=3, handletextpad=0.2)
    axes[0].set_ylabel(f"PC2 ({100 * explained[1]:.1f} %), {distance}")
    return fig


@styled
def forest(rows: pd.DataFrame) -> Figure:
    """Estimates with intervals, one a line, the numbers beside them; a panel for each measure.

    Columns measure (the panel's title), axis (its label), label, n, ``margin`` of equivalence (a shaded zone around
    zero), and those that `helpers.narrate.on_scale` asks for.
    """
    measures = list(dict.fromkeys(rows["measure"]))
    fig, axes = panels(0.3 * len(rows) + 0.75 * len(measures), len(measures))
    for ax, measure in zip(axes, measures, strict=True):
        part = rows[rows["measure"].eq(measure)]
        first = part.iloc[0]
        if np.isfinite(first["margin"]):
            ax.axvspan(-first["margin"], first["margin"], color="0.9", lw=0)
        ax.axvline(0, color="black", lw=0.8)
        for i, row in enumerate(part.to_dict("records")):
            ax.plot([row["ci_low"], row["ci_high"]], [-i, -i], color="0.3", lw=2)
            ax.plot(row["estimate"], -i, "D", color="black", ms=6)
            told, low, high, _ = on_scale(row)
            text = f"{number(told)} ({interval(low, high)})"
            ax.text(1.02, -i, text, transform=ax.get_yaxis_transform(), va="center", size=8)
        ax.set_yticks([-i for i in range(len(part))], [f"{r.label} (n = {r.n:.0f})" for r in part.itertuples()])
        ax.set(title=measure, xlabel=first["axis"], ylim=(-len(part) + 0.4, 0.6))
        if first["scale"] == "fold change":
            _as_fold(ax.xaxis)
    _lettered(axes)
    return fig


def _as_fold(axis: Axis) -> None:
    """Tell natural logs on an axis as fold changes: 1/4, 1, 4."""
    doublings = max(1, round(np.ptp(axis.get_view_interval()) / np.log(2) / 6))
    axis.set_major_locator(MultipleLocator(doublings * np.log(2)))
    axis.set_major_formatter(lambda x, _: f"{np.exp(x):.0f}" if x > -0.1 else f"1/{np.exp(-x):.0f}")


@styled
def overview(claims: pd.DataFrame) -> Figure:
    """A row a claim: the median effect and its span over the analyses, the report's own, and how many agree with it.

    Columns as of `helpers.multiverse.Multiverse.claims`, and ``n``, the report's; claims without an analysis have none.
    """
    rows = claims[claims["all"].notna()].to_dict("records")
    fig, (ax,) = panels(0.36 * len(rows) + 0.9)
    ax.axvline(0, color="black", lw=0.8)
    for i, row in enumerate(rows):
        ax.plot([row["low"], row["high"]], [-i, -i], color="0.65", lw=5, solid_capstyle="butt")
        ax.plot(row["median"], -i, "|", color="black", ms=11, mew=2)
        agree = f"{row['agree']:.0f} of {row['specifications']:.0f}" if row["specifications"] > 1 else "the only one"
        face = "white" if most_differ(row["agree"], row["specifications"]) else "black"
        ax.plot(row["effect"], -i, "D", ms=6, mfc=face, mec="black")
        ax.text(1.02, -i, f"{row['verdict']}, {agree}", transform=ax.get_yaxis_transform(), va="center", size=8)
    names = [fill(f"{r['claim']}  {r['what']} (n\0=\0{r['n']:.0f})", 44).replace("\0", " ") for r in rows]
    ax.set_yticks([-i for i in range(len(rows))], names)
    ax.tick_params(axis="y", labelsize=7.5)
    ax.set(xlabel="Effect (SD of controls)", ylim=(-len(rows) + 0.4, 0.6))
    return fig


@styled
def specification_curve(rows: pd.DataFrame, taken: pd.DataFrame, band: np.ndarray, alpha: float) -> Figure:
    """Effects under all specifications, sorted, and which options each takes.

    `rows` and `taken` as from `helpers.multiverse.curve`, `band` as of `helpers.multiverse.Multiverse`.
    """
    options = 0.14 * max(len(taken), 1)
    fig, (above, below) = panels(2.5 + options, 2, sharex=True, height_ratios=[2.1, options])
    x, significant = np.arange(len(rows)), rows["p_value"].lt(alpha).to_numpy()
    if band.size:
        above.fill_between(np.linspace(0, len(rows) - 1, band.shape[1]), *band, color="#C9E2F2", lw=0)
    above.axhline(0, color="black", lw=0.8)
    above.vlines(x, rows["effect_low"], rows["effect_high"], color=np.where(significant, "0.45", "0.75"), lw=0.4)
    for shown, colour in ((~significant, "0.55"), (significant, COLOURS["treatment"])):
        above.plot(x[shown], rows["effect"][shown], ".", ms=3, color=colour)
    own = rows["specification"].eq(0).to_numpy()
    above.plot(x[own], rows["effect"][own], "D", ms=7, mfc="white", mec="black", mew=1.5)
    people = f"n = {rows['n'].min():.0f} to n = {rows['n'].max():.0f}"
    above.set(ylabel="Effect (SD)", title=f"{rows['claim'].iloc[0]}: {len(rows)} analyses, {people}")
    if len(taken):
        below.imshow(taken.astype(float), aspect="auto", cmap="Greys", interpolation="nearest", vmin=0, vmax=1.4)
    below.set_yticks(range(len(taken)), list(taken.index), size=7)
    below.set(xticks=[])
    return fig


def _in_italics(legend: Legend) -> None:
    for text in legend.get_texts():
        text.set(text=italic(text.get_text()), parse_math=True)


@styled
def composition(visits: pd.DataFrame, taxa: Sequence[str], labels: Mapping[str, str]) -> Figure:
    """Stacked bars of mean composition, by group and visit, in the colours of `composition_by_patient`.

    The last of `taxa` is the rest. Larger shares are written into their bars.
    """
    keys = [(who, visit) for who in groups(visits["who"]) for visit in VISITS]
    parts = [visits.loc[visits["who"].eq(who) & visits["visit"].eq(visit), list(taxa)] for who, visit in keys]
    drawn = [(key, part.mean(), len(part)) for key, part in zip(keys, parts, strict=True) if len(part) >= FEW]
    fig, (ax,) = panels(max(0.42 * len(drawn) + 0.8, 2.6))
    y, left = np.arange(len(drawn)), np.zeros(len(drawn))
    for taxon, colour in zip(taxa, [*PARTS[: len(taxa) - 1], REST], strict=True):
        shares = np.array([mean[taxon] for _, mean, _ in drawn])
        ax.barh(y, shares, left=left, height=0.8, ec="white", lw=0.5, color=colour, label=taxon)
        dark = np.dot(mpl.colors.to_rgb(colour), [0.299, 0.587, 0.114]) < 0.5
        for at, start, share in zip(y, left, shares, strict=True):
            if share >= 6:
                inside: Any = {"ha": "center", "va": "center", "size": 8, "color": "white" if dark else "black"}
                ax.text(start + share / 2, at, number(share, 2), **inside)
        left += shares
    ax.set_yticks(y, [f"{labels[who]}, {labels[visit]}\n(n = {n})" for (who, visit), _, n in drawn])
    ax.set(xlabel="Mean share of reads (%)", xlim=(0, 100))
    ax.invert_yaxis()
    _in_italics(ax.legend(loc="center left", bbox_to_anchor=(1, 0.5)))
    return fig


@styled
def composition_by_patient(visits: pd.DataFrame, taxa: Sequence[str], labels: Mapping[str, str]) -> Figure:
    """Every person's composition as a bar, ordered by the first taxon at baseline; panels by visit and group.

    The last of `taxa` is the rest.
    """
    parts = {who: visits[visits["who"].eq(who)] for who in groups(visits["who"])}
    sizes = [max(part["subject"].nunique(), visits["subject"].nunique() / 5) for part in parts.values()]
    fig, axes = panels(4.6, 2, len(parts), sharey=True, width_ratios=sizes)
    for ax, (visit, (who, part)) in zip(axes, product(VISITS, parts.items()), strict=True):
        wide = part.pivot_table(index="subject", columns="visit", values=list(taxa), observed=True)
        first = [(taxon, v) for v in VISITS for taxon in taxa[:2] if (taxon, v) in wide]
        wide = wide.sort_values(first, ascending=False)  # whoever was not swabbed at baseline comes last
        if (taxa[0], visit) not in wide:
            ax.axis("off")
            continue
        tops = np.vstack([np.zeros(len(wide)), wide.xs(visit, axis=1, level=1)[list(taxa)].to_numpy().T.cumsum(axis=0)])
        edges = np.arange(len(wide) + 1) - 0.5
        for taxon, colour, low, high in zip(taxa, [*PARTS[: len(taxa) - 1], REST], tops, tops[1:], strict=False):
            ax.stairs(high, edges, baseline=low, fill=True, color=colour, label=taxon)
        n = part["visit"].eq(visit).sum()
        ax.set(title=f"{labels[who]}\nn = {n}", xticks=[], xlim=(-0.5, len(wide) - 0.5), ylim=(0, 100))
    _lettered([ax for ax in axes if ax.axison])
    for row, visit in zip(axes.reshape(2, -1), VISITS, strict=True):
        for ax in [ax for ax in row if ax.axison][:1]:
            ax.set_ylabel(f"{labels[visit]}\nShare of reads (%)")
    _in_italics(_legend_above(fig, axes[:1], ncols=4, handlelength=1))
    return fig


def italic(taxon: str) -> str:
    """Set a genus or species in italics, as convention wants, for a text that parses math; what is none stays upright.

    Species (``Staphylococcus aureus``) are abbreviated; ``Staphylococcus (unnamed)`` and ``Other`` are understood.
    """
    taxon = taxon if len(taxon) <= 50 else f"{taxon[:50]}…"
    name, _, rest = taxon.partition(" (")
    if taxon.startswith("Other") or not re.fullmatch(r"[^\W\d][\w .-]*", name, re.ASCII):
        return taxon.replace("$", r"\$")
    return _mathit(short_name(name)) + (f" ({rest}" if rest else "").replace("$", r"\$")


def _mathit(name: str) -> str:
    """A name as mathtext: its spaces, and its hyphens, which are no minus signs."""
    return rf"$\mathit{{{name}}}$".replace(".", "{.}").replace(" ", r"\:").replace("_", r"\_").replace("-", "\u2010")


def italicise(fig: Figure, names: Sequence[str]) -> None:
    """Set names of taxa in italics wherever they stand in a figure's texts."""
    found = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})(?!\w)")

    def marked(text: str) -> str:
        upright, taxa = found.split(text), found.findall(text)
        pieces = [piece.replace("$", r"\$") for piece in upright]
        return pieces[0] + "".join(_mathit(taxon) + piece for taxon, piece in zip(taxa, pieces[1:], strict=True))

    reword(fig, lambda text: found.search(text.get_text()) and not text.get_parse_math(), marked, parse_math=True)


def reword(fig: Figure, which: Callable[[Text], object], told: Callable[[str], str], **how: Any) -> None:
    """Write those texts of a figure anew which a function picks; of the ticks of an axis all, if it picks one."""
    for axis in (axis for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)):
        labels = axis.get_ticklabels()
        if any(map(which, labels)):
            axis.set_ticks(axis.get_ticklocs(), [told(label.get_text()) for label in labels], **how)
    for text in filter(which, fig.findobj(Text)):
        text.set(text=told(text.get_text()), **how)


@styled
def differential(table: pd.DataFrame, xlabel: str, *, top: int = 15) -> Figure:
    """Differential taxa as a forest: how many times as abundant, with intervals, and the frame of reference behind.

    Of `table`, as from `helpers.taxa.linda`, the `top` taxa by p-value are drawn.
    """
    rows = table.nsmallest(top, "p_value").sort_values("estimate")
    times = np.exp(rows[["estimate", "ci_low", "ci_high", "frame_low", "frame_high"]])
    fig, (ax,) = panels(0.25 * len(rows) + 1.2)
    y = np.arange(len(rows))
    ax.axvspan(*times[["frame_low", "frame_high"]].iloc[0], color="0.88", lw=0, zorder=0, label="frame")
    ax.axvline(1, color="black", lw=0.8)
    ax.hlines(y, times["ci_low"], times["ci_high"], color="0.35", lw=1.5)
    for which, face, name in ((rows["found"], "black", "found"), (~rows["found"], "white", "not found")):
        ax.scatter(times["estimate"][which], y[which], s=40, fc=face, ec="black", zorder=3, label=name)
    ax.set_yticks(y, [italic(t) for t in rows["taxon"]], parse_math=True)
    n = sorted({f"{n:.0f}" for n in (rows["n"].min(), rows["n"].max())})
    ax.set(xscale="log", xlabel=f"{xlabel} (n = {' to '.join(n)} people)", ylim=(-0.7, len(rows) - 0.3))
    ax.xaxis.set_major_locator(LogLocator(2, numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.minorticks_off()
    fig.legend(loc="outside upper left", ncols=3, handletextpad=0.4, columnspacing=1)
    return fig


@styled
def strata(changes: pd.DataFrame, labels: Mapping[str, str], noise: Mapping[str, tuple[float, float]]) -> Figure:
    """Change in each stratum of response, by arm: patients, means with intervals, n; a panel for each measure.

    `changes` as of `helpers.response.Shift`; `noise` is for each scale the controls' own mean change, as an interval:
    the yardstick of noise.
    """
    scales, names = list(dict.fromkeys(changes["scale"])), list(changes["stratum"].cat.categories)
    arms = groups(changes["arm"])
    fig, axes = panels(2.1 * len(scales) + 0.6, len(scales), sharex=True)
    for ax, scale in zip(axes, scales, strict=True):
        if np.isfinite(noise[scale]).all():
            name = f"{labels['control']}, mean change"
            ax.axhspan(*noise[scale], color=COLOURS["control"], alpha=0.35, lw=0, label=name)
        ax.axhline(0, color="black", lw=0.8)
        for arm in arms:  # whose patients may be too few for a mean
            ax.scatter([], [], color=COLOURS[arm], marker=MARKERS[arm], ec="black", s=45, label=labels[arm])
        of = changes[changes["scale"].eq(scale)]
        for (i, stratum), (k, arm) in product(enumerate(names), enumerate(arms)):
            values = of.loc[of["stratum"].eq(stratum) & of["arm"].eq(arm), "change"]
            x = i + 0.36 * (k - (len(arms) - 1) / 2)
            _people(ax, x + 0.8 * _jitter(len(values)), values, arm)
            _mean_mark(ax, x, values, arm)
            ax.text(x, 1.0, f"n = {len(values)}", transform=ax.get_xaxis_transform(), size=7, ha="center", va="bottom")
        name, _, unit = scale.partition(", change")
        ax.set(title=name, ylabel=f"Change{unit}")
        if unit == " (times)":
            _as_fold(ax.yaxis)
    axes[-1].set_xticks(range(len(names)), names)
    axes[-1].set(xlabel="Improvement of severity", xlim=(-0.5, len(names) - 0.5))
    _lettered(axes, pad=14)
    _legend_above(fig, axes[:1])
    return fig


@styled
def percentiles(table: pd.DataFrame, control: str) -> Figure:
    """Percentile of each patient in the distribution of the controls, in words: columns measure, percentile."""
    measures = list(dict.fromkeys(table["measure"]))
    fig, (ax,) = panels(0.7 * len(measures) + 1.0)
    ax.axvspan(25, 75, color=COLOURS["control"], alpha=0.25, lw=0)
    ax.axvline(50, color="black", lw=0.8)
    for i, measure in enumerate(measures):
        values = table.loc[table["measure"].eq(measure), "percentile"].dropna()
        look: Any = {"color": COLOURS["treatment"], "marker": MARKERS["treatment"], "s": 20, "alpha": 0.7, "lw": 0}
        _of([ax.scatter(values, -i + 1.5 * _jitter(len(values)), **look)])
        if len(values) >= FEW:
            _of(ax.plot([values.median()] * 2, [-i - 0.3, -i + 0.3], color="black", lw=2.5), len(values))
    n = table.groupby("measure")["percentile"].count()
    ax.set_yticks([-i for i in range(len(measures))], [f"{m} (n = {n[m]})" for m in measures])
    ax.set(xlim=(-2, 102), xlabel=f"Percentile among {control}", ylim=(-len(measures) + 0.4, 0.6))
    return fig


@styled
def love_plot(balance: pd.DataFrame, n: int, contrast: str, threshold: float = 0.1) -> Figure:
    """Standardised differences between the arms of `n` patients before and after weighting.

    `balance` as from `helpers.treatment.balance`; within `threshold`, a common bound, imbalance is acceptable.
    """
    fig, (ax,) = panels(0.36 * len(balance) + 1.1)
    y = np.arange(len(balance))[::-1]
    ax.axvspan(-threshold, threshold, color="0.9", lw=0)
    ax.axvline(0, color="black", lw=0.8)
    ax.hlines(y, balance["unweighted"], balance["weighted"], color="0.6", lw=1)
    ax.scatter(balance["unweighted"], y, marker="o", fc="white", ec="black", s=45, label="as observed")
    ax.scatter(balance["weighted"], y, marker="D", color="black", s=40, label="overlap weighted")
    ax.set_yticks(y, list(balance["covariate"]))
    ax.set(xlabel=f"Standardised mean difference, {contrast} (n = {n} patients)", ylim=(-0.6, len(balance) - 0.4))
    fig.legend(loc="outside upper left", ncols=2)
    return fig


@styled
def subsampled(table: pd.DataFrame, sizes: Mapping[str, int], labels: Mapping[str, str], alpha: float) -> Figure:
    """How often a subsample of the treatment arm shows its own change, by size.

    `table` as from `helpers.treatment.subsampled_significance`, with ``measure``; `sizes` are the patients of each arm,
    that of the comparator is marked.
    """
    fig, (ax,) = panels(3.1)
    for line, (measure, part) in zip(("-o", "--s", ":^"), table.groupby("measure", sort=False), strict=False):
        share, error = 100 * part["significant"], 196 * part["mc_error"]
        ax.errorbar(part["n"], share, yerr=error, fmt=line, color="black", mfc="white", label=measure)
    actual = sizes.get("comparator", 0)
    ax.axvline(actual, color=COLOURS["comparator"], lw=1.5)
    beside: Any = {"textcoords": "offset points", "color": COLOURS["comparator"], "size": 8}
    ax.annotate(f"{labels['comparator']} arm: n = {actual}", (actual, 3), (4, 0), **beside)
    ax.set(xlabel=f"Patients drawn from {labels['treatment']} (n = {sizes.get('treatment', 0)})", ylim=(0, 102))
    ax.set_ylabel(f"Draws with p < {alpha:g} (%)")
    ax.legend(loc="lower right")
    return fig
