"""The HTML report: index page with the claims, one page a notebook, nothing from another host."""

import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pandas as pd
import yaml
from docutils.nodes import make_id  # type: ignore[import-untyped]

from helpers.claims import CLAIMS, COLUMNS, verdicts
from helpers.figures import claims_forest, validation
from helpers.narrate import interval, number, p_number, suppression
from helpers.report import emphasised, plain, save_figure, save_table, table_html, unwritable, write_whole
from helpers.report.disclosure import for_spreadsheets, in_table
from helpers.report.parameters import notebooks
from helpers.study import Privacy, Study, StudyError, load_study

SYMBOLS = {"supported": "●", "contradicted": "✕", "equivalent": "≈", "inconclusive": "○", "not testable": "–"}
FOREST = "claims"
#: The claim that no separate test of each arm can show: what the study's title says.
PRIMARY = "C12"
#: What `make validate` found, the same in each study's report: it is about the methods.
VALIDATION = Path("data/demo/validation.tsv")
#: The measures of that table in words.
MEASURES = {
    "shannon": "Shannon",
    "genus_clr": "Staphylococcus",
    "pathogen_clr": "S. aureus",
    "distance_to_healthy": "distance to healthy",
    "easi": "EASI",
    "oscorad": "oSCORAD",
}


def build_site(name: str) -> None:
    """Build ``reports/<study>/html`` from the notebooks that were run; the old one stays until the new is whole.

    Parameters
    ----------
    name : str
        The study.
    """
    study, folder = load_study(Path("data") / name), Path("reports") / name
    parameters = yaml.safe_load((folder / "parameters.yaml").read_text(encoding="utf-8"))
    chapters = [notebook.stem for notebook in notebooks()]
    claims = judge(folder / "results", chapters, parameters["alpha"], study.privacy)
    draw_claims(claims, folder / "results", study.simulated)
    with TemporaryDirectory(dir=folder, prefix=".site-") as work:
        source, built = Path(work) / "source", Path(work) / "html"
        write_source(source, study, folder, claims, chapters, parameters)
        run_sphinx(source, built)
        check_links(claims, built)
        old = Path(work) / "old"
        if (folder / "html").exists():
            (folder / "html").rename(old)
        built.rename(folder / "html")


def estimated(results: Path, chapters: list[str]) -> pd.DataFrame:
    """What the notebooks estimated for the claims.

    Parameters
    ----------
    results : Path
    chapters : list of str
        The notebooks' names.

    Returns
    -------
    DataFrame
        Rows as from `helpers.claims.part`, with ``notebook``.
    """
    files = [results / "estimates" / f"{chapter}.json" for chapter in chapters]
    rows = [row for file in files if file.is_file() for row in json.loads(file.read_text(encoding="utf-8"))]
    if not rows:
        raise StudyError("no notebook saved estimates for the claims", file=results / "estimates", fix="make clean")
    parts = pd.DataFrame(rows)
    numbers = ["estimate", "ci_low", "ci_high", "p_value", "margin", "p_equivalence"]
    parts[numbers] = parts[numbers].apply(pd.to_numeric)
    return parts


def judge(results: Path, chapters: list[str], alpha: float, privacy: Privacy) -> pd.DataFrame:
    """Judge the claims on what the notebooks estimated; write ``claims.tsv`` and ``claims.json``.

    Parameters
    ----------
    results : Path
    chapters : list of str
        The notebooks' names.
    alpha : float
    privacy : Privacy

    Returns
    -------
    DataFrame
        As from `helpers.claims.verdicts`, ``n`` as it may be shown.
    """
    parts = estimated(results, chapters)
    claims = in_table(verdicts(parts, alpha).astype({"n": "Int64"}), privacy)
    records = plain(claims[list(COLUMNS)].to_dict("records"))
    write_whole(results / "claims.json", json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    table = for_spreadsheets(claims).to_csv(sep="\t", index=False, float_format="%.10g", lineterminator="\n")
    write_whole(results / "claims.tsv", table)
    return claims


def draw_claims(claims: pd.DataFrame, results: Path, simulated: bool) -> None:
    """Save the forest plot of the claims.

    Parameters
    ----------
    claims : DataFrame
    results : Path
    simulated : bool
    """
    save_figure(claims_forest(claims), results, FOREST, simulated=simulated)


# ---------------------------------------------------------------- source of the site


def write_source(
    source: Path, study: Study, folder: Path, claims: pd.DataFrame, chapters: list[str], parameters: dict[str, Any]
) -> None:
    """Write the folder that Sphinx reads.

    Parameters
    ----------
    source : Path
    study : Study
    folder : Path
        Of the report.
    claims : DataFrame
    chapters : list of str
    parameters : dict
    """
    files = source / "extra" / "files"
    for kind, suffix in (("figures", "*.*"), ("tables", "*.tsv"), ("notebooks", "[0-9]*.ipynb")):
        origin = folder / ("" if kind == "notebooks" else "results") / kind
        for path in sorted(origin.glob(suffix)):
            if not path.name.endswith(".failed.ipynb"):
                write_whole(files / kind / path.name, path.read_bytes())
    for claims_file in ("claims.tsv", "claims.json"):
        write_whole(files / claims_file, (folder / "results" / claims_file).read_bytes())
    if VALIDATION.is_file():
        known = pd.read_csv(VALIDATION, sep="\t").fillna({"id": ""}).replace({"measure": MEASURES}, regex=True)
        parts = estimated(folder / "results", chapters) if study.folder == VALIDATION.parent else None
        write_whole(source / "validation.md", validation_page(known, parts, files))
    for chapter in chapters:
        page = as_page(nbformat.read(folder / "notebooks" / f"{chapter}.ipynb", as_version=4), files)
        write_whole(source / f"{chapter}.ipynb", nbformat.writes(page))
    here = Path(__file__).parent / "theme"
    write_whole(source / "conf.py", (here / "conf.py").read_bytes())
    write_whole(source / "static" / "report.css", (here / "report.css").read_bytes())
    write_whole(source / "site.json", json.dumps({"name": f"{study.folder.name} report", "banner": banner(study)}))
    write_whole(source / "index.md", index(study, claims, chapters, parameters, files))


def banner(study: Study) -> str:
    """What stands at the top of every page, as HTML.

    Parameters
    ----------
    study : Study

    Returns
    -------
    str
    """
    if study.simulated:
        return "SIMULATED DATA — made by a generator with a known truth; not the result of any study"
    return f"Real data: {html.escape(study.title)}"


def as_page(notebook: Any, files: Path) -> Any:
    """A notebook as a page: code folded, figures with alternative text and links, no HTML out of its sentences.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    files : Path
        The site's files, to link those that are there.

    Returns
    -------
    nbformat.NotebookNode
    """
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        captions = {o.metadata["caption_of"]: o for o in cell.outputs if "caption_of" in o.get("metadata", {})}
        for output in cell.outputs:
            figure = output.get("metadata", {}).get("figure")
            if figure:
                alt, caption = output.metadata["image/png"]["alt"], captions[figure].data["text/plain"]
                output.data = {"text/html": figure_html(figure, alt, caption, files)}
            elif "table" in output.get("metadata", {}):
                output.data = {"text/html": output.data["text/html"] + _table_link(output.metadata["table"])}
            elif "text/markdown" in output.get("data", {}):
                output.data = {"text/html": text_html(output.data["text/markdown"])}
        cell.outputs = [o for o in cell.outputs if "caption_of" not in o.get("metadata", {})]
    return notebook


def text_html(text: str) -> str:
    """A notebook's sentences as HTML: paragraphs and lists; whatever the data bring in stays text.

    Parameters
    ----------
    text : str
        Paragraphs with a blank line between, or lines that begin with ``- ``.

    Returns
    -------
    str
    """
    blocks = []
    for block in filter(None, re.split(r"\n\s*\n", text.strip())):
        lines = block.splitlines()
        if all(line.startswith("- ") for line in lines):
            blocks.append(f"<ul>{''.join(f'<li>{emphasised(line[2:])}</li>' for line in lines)}</ul>")
        else:
            blocks.append(f"<p>{emphasised(block)}</p>")
    return "".join(blocks)


def _table_link(name: str) -> str:
    return f'<p class="files"><a href="files/tables/{name}.tsv">table as TSV</a></p>'


def figure_html(name: str, alt: str, caption: str, files: Path) -> str:
    """A figure with its caption and links to its files.

    Parameters
    ----------
    name, alt, caption : str
    files : Path

    Returns
    -------
    str
    """
    offered = [("PNG", f"figures/{name}.png"), ("SVG", f"figures/{name}.svg"), ("data", f"tables/{name}.tsv")]
    links = " · ".join(f'<a href="files/{path}">{kind}</a>' for kind, path in offered if (files / path).is_file())
    return (
        f'<figure class="report-figure" id="figure-{make_id(name)}">'
        f'<img src="files/figures/{name}.png" alt="{html.escape(alt)}">'
        f'<figcaption>{emphasised(caption)} <span class="files">{links}</span></figcaption></figure>'
    )


# ---------------------------------------------------------------- validation page


def off_target(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Tests and intervals that the simulations show to be off.

    Parameters
    ----------
    table : DataFrame
        As from `helpers.validation.summarise`.
    alpha : float
        Level of the tests.

    Returns
    -------
    DataFrame
        Rows of `table` with a type I error above 0.07 (where nothing has an effect) or a coverage under 0.93, by more
        than two Monte-Carlo standard errors from the nominal value.
    """
    error = table["scenario"].eq("no effect") & (table["rejected"] > 0.07)
    error &= table["rejected"] - 2 * table["rejected_error"] > alpha
    missed = (table["coverage"] < 0.93) & (table["coverage"] + 2 * table["coverage_error"] < 1 - alpha)
    return table[error | missed]


def validation_page(table: pd.DataFrame, parts: pd.DataFrame | None, files: Path) -> str:
    """The page that says how the report's tests and intervals do on simulated cohorts of known truth.

    Parameters
    ----------
    table : DataFrame
        As from `helpers.validation.summarise`.
    parts : DataFrame, optional
        What was estimated of the demo cohort itself, to be laid beside the truth.
    files : Path
        Of the site's downloads.

    Returns
    -------
    str
        Markdown.
    """
    alpha = 0.05
    save_figure(validation(table, alpha), files, "validation", simulated=True)
    save_table(table, files, "validation")
    runs = int(table["runs"].max())
    null = table[table["scenario"].eq("no effect")]
    supported = null[["id", "supported"]].groupby("id")["supported"].sum().drop("", errors="ignore")
    wrong = off_target(table, alpha)
    told = [
        f"<li>{html.escape(f'{row.id} {row.measure}'.strip())} ({row.scenario}): "
        f"rejects in {number(100 * row.rejected)} %, interval holds the truth in {number(100 * row.coverage)} %</li>"
        for row in wrong.itertuples()
    ]
    verdict = f"Off are:<ul>{''.join(told)}</ul>" if told else "None is off."
    shown = table[table["id"].ne("")]
    wide = shown.pivot_table(index=["id", "measure"], columns="scenario", values=["rejected", "coverage"], sort=False)
    truth = shown[shown["scenario"].eq("demo")].set_index(["id", "measure"])
    columns = {
        "Claim": [i for i, _ in wide.index],
        "Measure": [m for _, m in wide.index],
        "Type I error (%)": [number(100 * v) for v in wide["rejected"]["no effect"]],
        "Power, demo (%)": [number(100 * v) for v in wide["rejected"]["demo"]],
        "Coverage, demo (%)": [number(100 * v) for v in wide["coverage"]["demo"]],
        "Truth, demo": [number(v) for v in truth.loc[wide.index, "target"]],
        "Mean estimate": [number(v) for v in truth.loc[wide.index, "mean_estimate"]],
    }
    caption = (
        f"Each claim's test on {runs} simulated cohorts a scenario. The Monte-Carlo standard error of a share of 5 % "
        f"is {number(100 * (0.05 * 0.95 / runs) ** 0.5)} points."
    )
    about = (
        "<p><b>SIMULATED.</b> How do the tests and intervals of this report do where the truth is known? Cohorts of "
        "the demo study's design are simulated in three worlds: <i>no effect</i> (neither disease nor drugs act on the "
        "skin), <i>no treatment effect</i> (patients differ from controls, the drugs do nothing), and <i>demo</i> (the "
        "parameters in truth.yaml). Each is analysed as the chapters do. The truth of an estimate is its value in a "
        "great many pooled cohorts; that of the arms' contrasts and of the direct and indirect effect is what the "
        "drugs do when each patient is given the one and then the other, averaged over those who could have had "
        "either. Written by <code>make validate</code>.</p>"
        f"<p>On cohorts without any effect, {number(100 * supported.mean())} % of the claims are called supported.</p>"
        f"<p>A test is called off if its type I error is above 7 %, an interval if it holds the truth in less than "
        f"93 %, both by more than two Monte-Carlo standard errors. {verdict}</p>"
    )
    alt = f"Rejections and coverage of every test in three simulated worlds. {len(wrong)} of {len(table)} are off."
    figure = figure_html(
        "validation",
        alt,
        "A: share of cohorts in which the test rejects at 5 %: type I error in the world without any effect, else "
        "power. B: share in which the 95 % interval holds the truth. Bars: two Monte-Carlo standard errors.",
        files,
    )
    body = table_html(columns, set(list(columns)[2:]), caption)
    demo = [] if parts is None else ["## This cohort against its truth", _raw(_against_truth(parts, truth))]
    return "\n\n".join(["# Validation on simulated cohorts", _raw(about), _raw(body), _raw(figure), *demo]) + "\n"


def _against_truth(parts: pd.DataFrame, truth: pd.DataFrame) -> str:
    """The claims' estimates of the demo cohort, their intervals, and whether these hold the truth."""
    keys = ["id", "part"]
    rows = parts.assign(part=parts.groupby("id").cumcount())
    known = truth.reset_index()
    known = known.assign(part=known.groupby("id").cumcount())
    both = rows.merge(known[[*keys, "target"]], on=keys, validate="one_to_one").sort_values(
        "id", key=lambda ids: ids.map({claim: i for i, claim in enumerate(CLAIMS)}), kind="stable"
    )
    holds = (both["ci_low"] <= both["target"]) & (both["target"] <= both["ci_high"])
    columns = {
        "Claim": list(both["id"]),
        "Measure": [f"{m} ({u})" if u else m for m, u in zip(both["measure"], both["unit"], strict=True)],
        "Estimate": [number(v) for v in both["estimate"]],
        "Interval": [interval(*span) for span in zip(both["ci_low"], both["ci_high"], strict=True)],
        "Truth": [number(v) for v in both["target"]],
        "Holds the truth": ["yes" if held else "no" for held in holds],
    }
    caption = f"{holds.sum()} of {len(both)} intervals of the simulated demo cohort hold the truth."
    return table_html(columns, {"Estimate", "Truth"}, caption)


# ---------------------------------------------------------------- index page


def index(study: Study, claims: pd.DataFrame, chapters: list[str], parameters: dict[str, Any], files: Path) -> str:
    """The index page, as Markdown of MyST.

    Parameters
    ----------
    study : Study
    claims : DataFrame
    chapters : list of str
    parameters : dict
    files : Path

    Returns
    -------
    str
    """
    level = f"{100 * (1 - parameters['alpha']):g}"
    extra = ["validation"] if VALIDATION.is_file() else []
    found = ", ".join(f"{row.id} {row.verdict}" for row in claims.itertuples())
    alt = f"Forest plot of the claims' effects with {level} % intervals. Verdicts: {found}."
    caption = (
        f"Each claim's estimate with its {level} % interval, divided by half the width of the interval: all are as "
        "long, and one that misses the line excludes zero. Circle: supported; square: equivalent; cross: contradicted; "
        "open: inconclusive. Grey: the margin, for claims of no change or little difference."
    )
    title = f'<p class="study-title">{html.escape(study.title)}</p>\n<p>{primary_answer(claims)}</p>'
    about = (
        f"<p>{emphasised(study.about)}</p>\n"
        f"<p>Source: {html.escape(study.source)}<br>Licence: {html.escape(study.licence)}</p>\n"
        f"{text_html(suppression(study))}"
    )
    return "\n\n".join(
        [
            "# Overview",  # not the study's title: the theme repeats this heading without escaping it
            _raw(title),
            _raw(claims_html(claims, level)),
            "## Why these verdicts",
            _raw(reasons_html(claims)),
            _raw(figure_html(FOREST, alt, caption, files)),
            "## The study",
            _raw(about),
            "## Chapters",
            "```{toctree}\n:maxdepth: 2\n\n" + "\n".join([*chapters, *extra]) + "\n```",
            "## Downloads",
            _raw(_downloads(files)),
            "## Provenance",
            _raw(_provenance(study, parameters)),
        ]
    )


def primary_answer(claims: pd.DataFrame) -> str:
    """What the study says of its primary claim, C12, in a sentence.

    Parameters
    ----------
    claims : DataFrame

    Returns
    -------
    str
        HTML.
    """
    row = claims.set_index("id").loc[PRIMARY] if PRIMARY in set(claims["id"]) else None
    if row is None:
        return ""
    told = f"<b>{emphasised(row['statement'])}: {SYMBOLS[row['verdict']]} {row['verdict']}.</b>"
    why = html.escape(row["reason"])
    link = f'<a href="{evidence({**row, "id": PRIMARY})}">the evidence</a>'
    return f"The primary claim, {PRIMARY}. {told} {why[:1].upper()}{why[1:]}. See {link}."


def claims_html(claims: pd.DataFrame, level: str) -> str:
    """The claims table: what is claimed, the verdict, how much, how sure, and where the evidence is.

    Parameters
    ----------
    claims : DataFrame
    level : str
        Coverage of the intervals in per cent.

    Returns
    -------
    str
    """
    heads = (
        "",
        "Claim of Hartmann et al. 2023",
        "Verdict here",
        f"Effect ({level} % interval)",
        "p (Holm)",
        "n",
        "Evidence",
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "\n".join(_claim_row(row) for row in claims.to_dict("records"))
    return (
        '<div class="report-table claims" role="region" tabindex="0" aria-label="Claims"><table>'
        f"<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _claim_row(row: dict[str, Any]) -> str:
    text = {key: html.escape(str(row[key])) for key in ("id", "verdict", "unit", "n")}
    effect = "–"
    if pd.notna(row["estimate"]):
        effect = f"{number(row['estimate'])} {text['unit']}<br>({interval(row['ci_low'], row['ci_high'])})"
    p = p_number(row["p_holm"]) if pd.notna(row["p_holm"]) else "–"
    cells = [
        emphasised(row["statement"]),
        f"<b>{SYMBOLS[row['verdict']]} {text['verdict']}</b>",
        effect,
        html.escape(p),
        text["n"],
        f'<a href="{evidence(row)}">{emphasised(row["section"])}</a>',
    ]
    classes = ("", ' class="verdict"', ' class="effect"', ' class="number"', ' class="number"', "")
    body = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(classes, cells, strict=True))
    return f'<tr id="{text["id"]}"><th scope="row">{text["id"]}</th>{body}</tr>'


def reasons_html(claims: pd.DataFrame) -> str:
    """The reason of each verdict.

    Parameters
    ----------
    claims : DataFrame

    Returns
    -------
    str
    """
    columns = {
        "claim": list(claims["id"]),
        "verdict": [f"{SYMBOLS[verdict]} {verdict}" for verdict in claims["verdict"]],
        "reason": list(claims["reason"]),
    }
    caption = (
        "Where a claim has several parts, the weakest stands for it. p: of the test that the verdict rests on (against "
        "zero, or of equivalence), after Holm's adjustment over the claims."
    )
    return table_html(columns, set(), caption)


def evidence(row: dict[str, Any]) -> str:
    """Address of the section where a claim's evidence is.

    Parameters
    ----------
    row : dict
        With notebook and section.

    Returns
    -------
    str
    """
    return f"{row['notebook']}.html#{make_id(re.sub(r'[*_`]', '', row['section']))}"


def _downloads(files: Path) -> str:
    items = []
    for label, pattern in (("Claims", "claims.*"), ("Tables", "tables/*"), ("Executed notebooks", "notebooks/*")):
        paths = sorted(path.relative_to(files).as_posix() for path in files.glob(pattern))
        links = ", ".join(f'<a href="files/{path}">{Path(path).name}</a>' for path in paths)
        items.append(f"<li>{label}: {links or '–'}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _provenance(study: Study, parameters: dict[str, Any]) -> str:
    inputs = {"Input file": [], "SHA-256": []}  # type: dict[str, list[str]]
    for path in [study.folder / "study.yaml", *(study.path(file) for file in study.files.each().values())]:
        inputs["Input file"].append(path.as_posix())
        inputs["SHA-256"].append(hashlib.sha256(path.read_bytes()).hexdigest())
    set_to = {"Parameter": list(parameters), "Value": [str(value) for value in parameters.values()]}
    names = [re.split(r"[^\w.-]", line)[0] for line in metadata.requires("helpers") or [] if "extra ==" not in line]
    software = {"Software": ["Python", *names], "Version": [".".join(map(str, sys.version_info[:3]))]}
    software["Version"] += [metadata.version(name) for name in names]
    tables = [
        ("Input files of this report", inputs),
        ("Parameters of this run", set_to),
        ("Software that made it", software),
    ]
    body = "\n".join(table_html(texts, set(), caption) for caption, texts in tables)
    return f"<p>{_commit()}</p>\n<details><summary>Input files, parameters, software</summary>\n{body}\n</details>"


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return f"Made from commit <code>{git('rev-parse', 'HEAD')}</code>{changed}."
    except (OSError, subprocess.CalledProcessError):
        return "Made outside a git repository."


def _raw(content: str) -> str:
    return "```{raw} html\n" + content.replace("`", "&#96;") + "\n```"


# ---------------------------------------------------------------- building


def run_sphinx(source: Path, built: Path) -> None:
    """Build the site.

    Parameters
    ----------
    source, built : Path
        Folders.
    """
    command = [sys.executable, "-m", "sphinx", "-q", "--no-color", "-b", "html"]
    doctrees = str(source.parent / "doctrees")
    done = subprocess.run([*command, "-d", doctrees, str(source), str(built)], capture_output=True, text=True)
    if done.returncode and (system := re.findall(r"\w*Error: (\[Errno \d+\] .+)", done.stderr)):
        raise unwritable(OSError(system[-1]), built)
    print(done.stderr.replace(str(source) + "/", ""), end="", file=sys.stderr)
    if done.returncode:
        raise StudyError("[site] Sphinx failed", found=done.stdout.strip() or None)
    for leftover in (".buildinfo", "objects.inv", "_sources"):
        shutil.rmtree(built / leftover) if (built / leftover).is_dir() else (built / leftover).unlink(missing_ok=True)


def check_links(claims: pd.DataFrame, built: Path) -> None:
    """Raise `StudyError` unless every claim's link leads to a section that is there.

    Parameters
    ----------
    claims : DataFrame
    built : Path
        The folder of the site.
    """
    for row in claims.to_dict("records"):
        page, _, anchor = evidence(row).partition("#")
        if not anchor or f'id="{anchor}"' not in (built / page).read_text(encoding="utf-8"):
            raise StudyError(f"{row['id']}: there is no section '{row['section']}'", file=f"{row['notebook']}.ipynb")
