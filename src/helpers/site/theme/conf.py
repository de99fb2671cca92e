"""Sphinx configuration of the report's site: conf.yaml; what differs from study to study comes from site.json."""

import json
from pathlib import Path

import yaml

import helpers  # noqa: F401  leaves out what takes long to import

_here = Path(__file__).parent
_site = json.loads((_here / "site.json").read_text(encoding="utf-8"))
_conf = yaml.safe_load((_here / "conf.yaml").read_text(encoding="utf-8"))
_conf["html_theme_options"]["announcement"] = _site["banner"]
globals().update(_conf)
project = html_title = html_short_title = _site["name"]


def setup(app: object) -> None:
    """Leave out roles that docutils gives references: ARIA has withdrawn them, and the list's children are none."""
    roles = (' role="doc-biblioentry"', ' role="list"', ' role="doc-backlink"')

    def without_roles(_app: object, _page: str, _template: str, context: dict[str, str], _tree: object) -> None:
        for role in roles:
            context["body"] = context.get("body", "").replace(role, "")

    app.connect("html-page-context", without_roles)  # type: ignore[attr-defined]
