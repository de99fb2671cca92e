"""The HTML report: index page with the claims, one page a notebook, nothing from another host."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import yaml

from helpers.errors import StudyError
from helpers.evidence import Data, data_of
from helpers.files import DATA, FIGURES, MAKEFILE, OF_CLAIMS, TABLES, report_of, unfinished, unwritable, write_whole
from helpers.ingest import load_cohort
from helpers.run.judging import judge
from helpers.run.origin import note_saved, privacy_of
from helpers.run.parameters import notebooks
from helpers.site.crate import crate_json, pages_of
from helpers.site.interactive import scripts
from helpers.site.pages import (
    Run,
    as_page,
    cards,
    changes,
    evidence,
    index,
    methods,
    patients,
    provenance,
    standards,
    validation,
)
from helpers.study import Study, load_study

#: The pages beside the index and the notebooks, in their order; one that returns nothing is left out.
PAGES: dict[str, Callable[[Run], str]] = {
    "patients": patients.page,
    "reading_guide": methods.reading_guide,
    "methods": methods.page,
    "validation": validation.page,
    "changes": changes.page,
    "reporting_standards": standards.page,
    "provenance": provenance.page,
}


def build_site(name: str, against: str = "") -> None:
    """Build ``reports/<study>/html`` and its RO-Crate from the notebooks that were run; all or nothing.

    `against` is the folder of an earlier run to compare with.
    """
    study, report = load_study(DATA / name), report_of(name)
    parameters = yaml.safe_load(report.parameters.read_text(encoding="utf-8"))
    earlier = changes.earlier_run(against) if against else None
    chapters = [notebook.stem for notebook in notebooks()]
    parts, claims = judge(study, report.results, chapters, parameters["alpha"])
    data = measures_of_people(report.results)
    (privacy := privacy_of(report, "site")).unlink(missing_ok=True)
    index.draw(claims, study, report.results, data)
    with unfinished(report.html) as work:
        source, built = work / "source", work / "html"
        files = source / "extra" / "files"
        run = Run(study, report.folder, parameters, claims, parts, chapters, files, earlier, data)
        write_source(source, run)
        run_sphinx(source, built)
        for chapter in chapters:
            page = built / f"{chapter}.html"
            page.write_text(anchors_in_folds(page.read_text(encoding="utf-8")), encoding="utf-8")
        check_links(claims, built)
        write_whole(report.crate, crate_json(run, built))
        made = [report.html / path.relative_to(built) for path in (*pages_of(built), *built.glob("files/**/*.*"))]
        drawn = [path for name in index.DRAWN for path in (report.results / FIGURES).glob(f"{name}.*")]
        made += [report.crate, privacy, *report.results.glob("claims.*"), *drawn]
        note_saved(report, "site", made)
        if report.html.exists():
            report.html.rename(work / "old")
        built.rename(report.html)  # late: a site without it is built again
        write_whole(privacy, study.privacy.model_dump_json())


def write_source(source: Path, run: Run) -> None:
    """Write the folder that Sphinx reads."""
    study, report, files = run.study, run.report, run.files
    results = report.results
    for origin, suffix in ((results / FIGURES, "*.*"), (results / TABLES, "*.tsv"), (report.notebooks, "[0-9]*.ipynb")):
        for path in sorted(origin.glob(suffix)):
            if not path.name.endswith(".failed.ipynb"):
                write_whole(files / origin.name / path.name, path.read_bytes())
    for name in OF_CLAIMS:
        if (results / name).is_file():  # the multiverse may have been switched off
            write_whole(files / name, (results / name).read_bytes())
    if MAKEFILE.is_file():  # the steps may have been run one by one
        write_whole(files / MAKEFILE, MAKEFILE.read_bytes())
    pages = {name: text for name, page in PAGES.items() if (text := page(run))}
    for name, text in {**pages, **cards.pages(run), "index": index.page(run, list(pages))}.items():
        write_whole(source / f"{name}.md", text)
    for chapter in run.chapters:
        page = as_page(nbformat.read(report.notebooks / f"{chapter}.ipynb", as_version=4), files)
        write_whole(source / f"{chapter}.ipynb", nbformat.writes(page))
    write_theme(source, f"{study.folder.name} report", banner(study))


def write_theme(source: Path, title: str, banner: str) -> None:
    """Write what the pages of a site look like, in the folder that Sphinx reads."""
    here = Path(__file__).parent
    for path in (here / "theme" / "conf.py", here / "theme" / "conf.yaml", here / "pages" / "references.bib"):
        write_whole(source / path.name, path.read_bytes())
    own = {name: (here / "theme" / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")}
    for name, text in (own | scripts()).items():
        write_whole(source / "static" / name, text)
    write_whole(source / "site.json", json.dumps({"name": title, "banner": banner}))


def measures_of_people(results: Path) -> Data | None:
    """What chapter 1 measured, if it saved it."""
    if not (results / "measures.h5ad").is_file():
        return None
    swabs, _ = load_cohort(results, "measures")
    return data_of(swabs.obs, swabs.uns["measures"])


def banner(study: Study) -> str:
    """What stands at the top of every page, as HTML."""
    if study.simulated:
        return "SIMULATED DATA — made by a generator with a known truth; not the result of any study"
    return f"Real data: {html.escape(study.title)}"


def run_sphinx(source: Path, built: Path) -> None:
    """Build the site from its source."""
    command = [sys.executable, "-m", "sphinx", "-q", "--no-color", "-b", "html"]
    doctrees = str(source.parent / "doctrees")
    done = subprocess.run([*command, "-d", doctrees, str(source), str(built)], capture_output=True, text=True)
    if done.returncode and (system := re.findall(r"\w*Error: (\[Errno \d+\] .+)", done.stderr)):
        raise unwritable(OSError(system[-1]), built)
    print(done.stderr.replace(str(source) + "/", ""), end="", file=sys.stderr)
    if done.returncode:
        raise StudyError("[site] Sphinx failed", found=done.stdout.strip() or None)
    maps = [path.relative_to(built) for path in built.glob("_static/**/*.map")]  # for who debugs the theme
    for leftover in (".buildinfo", "objects.inv", "_sources", "_static/locales", *map(str, maps)):
        shutil.rmtree(built / leftover) if (built / leftover).is_dir() else (built / leftover).unlink(missing_ok=True)


def anchors_in_folds(page: str) -> str:
    """A page whose anchors of code are in the folds of the code: browsers open a fold to show what is linked in it."""
    anchored = r'(<span id="cell-[^"]*"></span>)(\s*<div class="cell[^>]*>\s*<details[^>]*>\s*<summary.*?</summary>)'
    return re.sub(anchored, r"\2\1", page, flags=re.DOTALL)


def check_links(claims: pd.DataFrame, built: Path) -> None:
    """Raise `StudyError` unless every claim's link leads to a section that is there."""
    for row in claims.to_dict("records"):
        page, _, anchor = evidence(row).partition("#")
        if not anchor or f'id="{anchor}"' not in (built / page).read_text(encoding="utf-8"):
            raise StudyError(f"{row['id']}: there is no section '{row['section']}'", file=f"{row['notebook']}.ipynb")
