"""A study and notebooks as small as can be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parent.parent
NAMES = ["01_ingest", "02_diversity", "03_taxa", "04_response", "05_treatment_comparison", "06_robustness"]

STUDY = """
title: "A *toy* & <i>study</i>"
simulated: true
about: |
  A cohort <script>alert(1)</script> of
  ```
  *nothing*.
source: nowhere
licence: CC0
files:
  counts: {path: counts.tsv}
  metadata: {path: "meta data.tsv"}
columns:
  sample: swab
  subject: person
  group: {column: g, values: {control: c, case: d}}
  visit: {column: v, values: {baseline: 1, followup: 2}}
settings: {permutations: 199}
"""

PARAMETERS = 'study_dir = "../data/demo"\nresults_dir = "../reports/reference/results"\npermutations = 199'

# The evidence of the study's claims, as helpers.evidence.gather gives it: C1 is supported, the others have nobody.
EVIDENCE = """
import pandas as pd
from helpers.claims import load_claims
from helpers.evidence import questions

def gathered(study, n):
    found = {"estimate": -0.5, "ci_low": -0.8, "ci_high": -0.2, "p_value": 0.001, "n": n, "cannot": ""}
    nothing = dict.fromkeys((*found, "p_support"), float("nan"))
    nothing |= {"n": 0, "cannot": "too few people have what is needed (n = 0)"}
    about = {"estimator": "OLS", "what": "Shannon", "unit": "nats", "scale": "SD of controls", "n_dropped": 0,
             "section": "*S. aureus* & more: 2 ways?", "level": 95.0, "sign": -1, "p_support": 0.001, "p_against": 1.0,
             "attainable": 1.0, "beside": []}
    asked = [(c, a) for c, claim in load_claims(study).items() for part in claim.parts for a in questions(part, study)]
    return pd.DataFrame({"claim": c, **a._asdict(), **about, **(found if c == "C1" else nothing)} for c, a in asked)
"""

BODY = (
    EVIDENCE
    + """
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from helpers.output import Output
from helpers.study import load_study

study = load_study(study_dir)
out = Output(results_dir, study)
taxa = pd.DataFrame({"taxon": ["<script>alert(1)</script>", "S. aureus"], "share": [0.5, None], "n": [3, 4]})
out.table(taxa, "01_taxa", caption="Taxa of <b>skin</b>")
fig = Figure(figsize=(2, 1))
fig.subplots().plot([1, permutations])
fig.text(0, 0, f"n = {permutations}")
out.figure(fig, "01_line", caption="A *line* <b>", alt="Rising \\"line\\"")
display(Markdown("<img src=x onerror=alert(1)> was lower, p < 0.001."))
out.evidence(gathered(study, 30), "01_all")
(out.results_dir / "cohort.h5ad").write_text("")
out.finding("What was found.")
out.answer("The <b>answer</b>.")
"""
)


def toy_notebook(path: Path, body: str, parameters: str = PARAMETERS) -> Path:
    cells = [
        new_markdown_cell("# Who is in the data?", id="title"),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        new_markdown_cell("## *S. aureus* & more: 2 ways?\n\nWhat is done.", id="section"),
        new_code_cell(body, id="body"),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def toy_study(root: Path, text: str = STUDY) -> Path:
    folder = root / "data" / "demo"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(text)
    (folder / "counts.tsv").write_text("counts\n")
    (folder / "meta data.tsv").write_text("metadata\n")
    return folder


# A notebook of the toy project: as the real ones, the first saves what all others read. Importing what draws tables
# takes seconds, so only one does; between two tables, there is time to be killed.
WORK = """
import time
from pathlib import Path
from helpers.files import TABLES, write_whole
from helpers.study import load_study

study, results = load_study(study_dir), Path(results_dir)
read = "".join((results / f"{name}.h5ad").read_text() for name in READS)
for name in SAVES:
    write_whole(results / f"{name}.h5ad", f"{read}{name} {permutations}\\n")
for name in (*"abcdefgh", f"of_{permutations}"):
    write_whole(results / TABLES / f"NAME_{name}.tsv", f"n\\n{permutations}\\n{len(read)}\\n")
    time.sleep(0.01)
"""
#: What one of them does beside: its tables are shown, and claims judged.
JUDGED = f"""{EVIDENCE}
from helpers.output import Output

out = Output(results, study)
for name in (*"abcdefgh", f"of_{{permutations}}"):
    out.table(pd.DataFrame({{"n": [permutations, len(read)]}}), f"02_{{name}}", caption=f"Made of {{read!r}}")
out.evidence(gathered(study, permutations), "02_all")
"""
#: Not `measures`: the site reads that one.
SAVED = ("cohort", "compared")


def toy_project(root: Path) -> Path:
    """A project whose `make report` runs five small notebooks with this project's code."""
    toy_study(root)
    for name in NAMES:
        reads, saves = ((), SAVED) if name == NAMES[0] else (SAVED, ())
        body = WORK.replace("NAME", name[:2]).replace("READS", repr(reads)).replace("SAVES", repr(saves))
        body += JUDGED if name == "02_diversity" else ""
        toy_notebook(root / "notebooks" / f"{name}.ipynb", body)
    shutil.copy(ROOT / "Makefile", root)
    (root / "src").symlink_to(ROOT / "src")
    for empty in ("requirements.lock", "pyproject.toml"):
        (root / empty).touch()
    return root


def make(root: Path, *arguments: str, goal: str = "report", **environment: str) -> subprocess.Popen[str]:
    """Start `make report` with this interpreter, as the leader of its own process group."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.Popen(
        ["make", goal, f"PYTHON={sys.executable}", *arguments],
        cwd=root,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
