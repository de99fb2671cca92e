"""Sphinx configuration of the report's site; what differs from study to study comes from site.json."""

import json
from pathlib import Path

import helpers  # noqa: F401  leaves out what takes long to import

_site = json.loads((Path(__file__).parent / "site.json").read_text(encoding="utf-8"))

project = html_title = html_short_title = _site["name"]
extensions = ["myst_nb", "sphinxcontrib.bibtex"]
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # would come from another host
nb_mime_priority_overrides = [("html", "text/latex", None)]  # needs MathJax, which would too
language = "en"
html_theme = "sphinx_book_theme"
html_extra_path = ["extra"]
html_static_path = ["static"]
html_css_files = ["report.css"]
html_js_files = [("tables.js", {"defer": "defer"}), ("report.js", {"defer": "defer"})]
html_copy_source = False
html_use_index = False
html_show_search_summary = False  # fetched page by page, which browsers refuse to do from the file system
html_show_sphinx = False
html_show_copyright = False
html_last_updated_fmt = None
html_context = {"default_mode": "light"}
html_theme_options = {
    "announcement": _site["banner"],
    "footer_content_items": [],
    "navbar_persistent": [],
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "toc_title": "On this page",
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
}


def setup(app: object) -> None:
    """Leave out roles that docutils gives references: ARIA has withdrawn them, and the list's children are none."""
    roles = (' role="doc-biblioentry"', ' role="list"', ' role="doc-backlink"')

    def without_roles(_app: object, _page: str, _template: str, context: dict[str, str], _tree: object) -> None:
        for role in roles:
            context["body"] = context.get("body", "").replace(role, "")

    app.connect("html-page-context", without_roles)  # type: ignore[attr-defined]
