"""Interactive charts and tables that work from the file system; without a script the drawn figure, or all rows, stand.

Charts are Vega-Lite specifications with their data in the page; `theme/report.js` draws them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert

from helpers.figures import COLOURS

#: Which of all options are drawn.
ALL = "all"
_SHAPES = {"treatment": "triangle-up", "comparator": "square", "control": "circle", "case": "diamond"}


def scripts() -> dict[str, str]:
    """The libraries' scripts by name: classic ones, since browsers load no modules from the file system."""
    package = find_spec("itables")
    assert package is not None
    assert package.submodule_search_locations is not None
    bundle = (Path(package.submodule_search_locations[0]) / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    module = re.search(r"export\{[^}]*?(\w+) as default[^}]*\};?", bundle)
    assert module is not None
    tables = bundle.replace(module[0], f"window.DataTable={module[1]};")
    charts = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub asks for more
    # Each in a function: their names are no other script's.
    return {name: f"(() => {{{text}\n}})();\n" for name, text in (("charts.js", charts), ("tables.js", tables))}


def chart_html(specification: Mapping[str, Any], label: str, drawn: str) -> str:
    """A chart, and the `drawn` figure that stands for it; `label` names it to who cannot see it."""
    data = json.dumps({**specification, "description": label}, ensure_ascii=False).replace("<", "\\u003c")
    return f'<div class="interactive">{drawn}<script type="application/json">{data}</script></div>'


def specification_curve(rows: pd.DataFrame, choices: Mapping[str, Sequence[str]], alpha: float) -> dict[str, Any]:
    """Effects under all specifications, sorted, and the options of each below; a field to choose by a choice.

    `rows` have effect, effect_low, effect_high, p_value, verdict, own, and the `choices` in words, which have their
    options.
    """
    significant = {"field": "p_value", "lt": alpha}
    names = list(choices)
    x = {"field": "place", "type": "quantitative", "axis": None, "scale": {"nice": False}}
    tooltip = [
        {"field": "effect", "title": "effect (SD)", "format": ".2f"},
        {"field": "effect_low", "title": "from", "format": ".2f"},
        {"field": "effect_high", "title": "to", "format": ".2f"},
        {"field": "verdict"},
        *({"field": name} for name in names),
    ]
    colour = {"condition": {"test": significant, "value": COLOURS["treatment"]}, "value": "#8a8a8a"}
    effect: dict[str, Any] = {"type": "quantitative", "title": "Effect (SD)"}
    own = {"shape": "diamond", "size": 130, "fill": "white", "stroke": "black", "strokeWidth": 2}
    above = [
        {"mark": {"type": "rule", "color": "black"}, "encoding": {"y": {"datum": 0}}},
        {
            "mark": {"type": "rule", "opacity": 0.35},
            "encoding": {
                "x": x,
                "y": effect | {"field": "effect_low"},
                "y2": {"field": "effect_high"},
                "color": colour,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 22, "opacity": 1},
            "encoding": {"x": x, "y": effect | {"field": "effect"}, "color": colour, "tooltip": tooltip},
        },
        {
            "transform": [{"filter": "datum.own"}],
            "mark": {"type": "point", "opacity": 1, **own},
            "encoding": {"x": x, "y": effect | {"field": "effect"}, "tooltip": tooltip},
        },
    ]
    options = [f"{name}: {option}" for name in names for option in choices[name]]
    below = {
        "transform": [
            {"fold": names, "as": ["choice", "option"]},
            {"calculate": "datum.choice + ': ' + datum.option", "as": "taken"},
        ],
        "height": {"step": 13},
        "mark": {"type": "tick", "thickness": 1.2, "color": "black"},
        "encoding": {
            "x": x,
            "y": {"field": "taken", "type": "nominal", "sort": options, "title": None, "axis": {"labelLimit": 260}},
            "tooltip": tooltip,
        },
    }
    fields = [f"chosen_{i}" for i in range(len(names))]
    return _chart(rows) | {
        "params": [
            {"name": field, "value": ALL, "bind": {"input": "select", "options": [ALL, *choices[name]], "name": name}}
            for field, name in zip(fields, names, strict=True)
        ],
        "transform": [
            *(
                {"filter": f"{field} === {json.dumps(ALL)} || datum[{json.dumps(name)}] === {field}"}
                for field, name in zip(fields, names, strict=True)
            ),
            {"window": [{"op": "row_number", "as": "place"}], "sort": [{"field": "effect"}]},
        ],
        "vconcat": [{"layer": above, "height": 220}, *([below] if names else [])],
        "usermeta": {"beside": 330},
    }


def patients(table: pd.DataFrame, measures: Mapping[str, str], arms: Mapping[str, str]) -> dict[str, Any]:
    """Each patient at both visits, a panel a measure; who is brushed in one is marked in all.

    `table` has a row a patient: ``arm``, and of each of the `measures`, which have their labels, ``<key> before`` and
    ``<key> after``. `arms` are the labels of the groups.
    """
    shown = {who: label for who, label in arms.items() if label in set(table["arm"])}
    by_arm = {"field": "arm", "type": "nominal", "scale": {"domain": list(shown.values())}}
    colour, shape = (
        by_arm | {"scale": {"domain": list(shown.values()), "range": [look[who] for who in shown]}}
        for look in (COLOURS, _SHAPES)
    )
    tooltip = [{"field": "arm"}]
    tooltip += [
        {"field": f"{key} {when}", "title": f"{label}, {when}", "format": ".3~g"}
        for key, label in measures.items()
        for when in ("before", "after")
    ]
    panels = [
        _before_after(table, key, label, colour, shape, tooltip, i == 0)
        for i, (key, label) in enumerate(measures.items())
    ]
    return _chart(table) | {"concat": panels, "columns": 3}


def _before_after(
    table: pd.DataFrame, key: str, label: str, colour: Any, shape: Any, tooltip: Any, first: bool
) -> dict[str, Any]:
    """A panel of `patients`: a measure after against before, and the line on which nothing changed."""
    both = table[[f"{key} before", f"{key} after"]]
    ends = [{"end": float(both.min(axis=None))}, {"end": float(both.max(axis=None))}]
    x, y = (
        {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}
        for field, title in ((f"{key} before", "before"), (f"{key} after", "after"))
    )
    line = {
        "data": {"values": ends},
        "mark": {"type": "line", "color": "black", "strokeWidth": 1},
        "encoding": {"x": x | {"field": "end"}, "y": y | {"field": "end"}},
    }
    points = {
        "params": [{"name": "brush", "select": {"type": "interval", "resolve": "global"}}] if first else [],
        "mark": {"type": "point", "filled": True, "size": 40},
        "encoding": {
            "x": x,
            "y": y,
            "color": {"condition": {"param": "brush", **colour}, "value": "#cccccc"},
            "shape": shape,
            "tooltip": tooltip,
        },
    }
    return {"title": label, "height": 230, "width": 230, "layer": [line, points]}


def _chart(data: pd.DataFrame) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": json.loads(data.to_json(orient="records", double_precision=4))},
        "config": {
            "font": "system-ui, sans-serif",
            "axis": {"labelFontSize": 12, "titleFontSize": 12},
            "legend": {"orient": "top", "title": None, "labelFontSize": 12},
        },
    }
