"""Interactive charts and tables that work from the file system; without a script the drawn figure, or all rows, stand.

Charts are Vega-Lite specifications with their data in the page; `theme/report.js` draws them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
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
    file = distribution("itables").locate_file("itables/html/dt_bundle.js")
    bundle = Path(str(file)).read_text(encoding="utf-8")
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


def specification_curve(rows: pd.DataFrame, choices: Sequence[str]) -> dict[str, Any]:
    """Effects under all specifications, sorted, and the options of each below; a field to choose by a choice.

    `rows` have effect, ``from``, ``to`` and ``significant``, ``report`` of that which is the report's, and the
    `choices` in words; whoever points at a mark is told all columns.
    """
    chart = _template("specification_curve", {})
    options = {name: list(dict.fromkeys(rows[name])) for name in choices}
    fields = {f"chosen_{i}": name for i, name in enumerate(choices)}
    chart["data"] = _values(rows)
    chart["params"] = [
        {"name": field, "value": ALL, "bind": {"input": "select", "options": [ALL, *options[name]], "name": f"{name} "}}
        for field, name in fields.items()
    ]
    chart["transform"][:0] = [
        {"filter": f"{field} === {json.dumps(ALL)} || datum[{json.dumps(name)}] === {field}"}
        for field, name in fields.items()
    ]
    chart["vconcat"][1]["transform"][0]["fold"] = list(choices)
    chart["vconcat"][1]["encoding"]["y"]["sort"] = [f"{name}: {o}" for name in choices for o in options[name]]
    return chart if choices else chart | {"vconcat": chart["vconcat"][:1]}


def patients(table: pd.DataFrame, measures: Sequence[str], arms: Mapping[str, str]) -> dict[str, Any]:
    """Each patient at both visits, a panel a measure; who is brushed in one is marked in all.

    `table` has a row a patient: ``arm``, and of each of the `measures` ``<label>, before`` and ``<label>, after``.
    `arms` are the labels of the groups.
    """
    there = {label: who for who, label in arms.items() if label in set(table["arm"])}
    looks = {"@colours": COLOURS, "@shapes": _SHAPES}
    scales = {
        name: {"domain": [*there], "range": [look[who] for who in there.values()]} for name, look in looks.items()
    }
    panels: list[dict[str, Any]] = []
    for label in measures:
        both = table[[f"{label}, before", f"{label}, after"]]
        before, after = (re.sub(r"[.\[\]]", r"\\\g<0>", column) for column in both)  # which would be paths
        own = {"@label": label, "@before": before, "@after": after}
        ends = [{"end": float(both.min(axis=None))}, {"end": float(both.max(axis=None))}]
        brush = [] if panels else [{"name": "brush", "select": {"type": "interval", "resolve": "global"}}]
        panels.append(_template("before_after", scales | own | {"@ends": ends, "@params": brush}))
    legend = {"orient": "top", "title": None, "labelFontSize": 12}
    whole = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "concat": panels, "columns": 3}
    return whole | {"data": _values(table), "config": {"legend": legend}}


def _template(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A chart of the folder ``charts``, with `facts` where it has their names in quotes."""
    text = (Path(__file__).parent / "charts" / f"{name}.json").read_text(encoding="utf-8")
    for key, value in facts.items():
        text = text.replace(json.dumps(key), json.dumps(value))
    chart: dict[str, Any] = json.loads(text)
    return chart


def _values(table: pd.DataFrame) -> dict[str, Any]:
    return {"values": json.loads(table.to_json(orient="records", double_precision=3))}
