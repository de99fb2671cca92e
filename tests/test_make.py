"""The command line's table of steps, and make's targets that call them."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import NAMES, ROOT, toy_project, toy_study

from helpers.__main__ import STEPS, Step, main


@pytest.mark.parametrize("step", ["inspect", "", "chek"])
def test_a_step_that_is_not_in_the_table_is_refused_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = {path: path.read_bytes() for path in toy_project(tmp_path).rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Step, "load", lambda chosen: pytest.fail(chosen.function))
    with pytest.raises(SystemExit) as refused:
        main([step, "demo"])
    assert refused.value.code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))
def test_a_step_names_a_function_that_takes_its_arguments(step: Step) -> None:
    inspect.signature(step.load()).bind(*step.arguments)


def test_a_step_imports_nothing_of_the_others() -> None:
    heavy = "{'nbformat', 'papermill', 'pandas', 'scipy', 'sphinx'}"
    told = f"import sys, helpers.__main__; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "module", ["run.execution, papermill", "site.build", "files, myst_nb.sphinx_ext", "evidence, helpers.figures"]
)
def test_no_step_imports_what_it_has_no_use_for(module: str) -> None:
    slow = "'rfc3987_syntax isoduration dask xarray statsmodels.base seaborn'.split()"
    told = f"import sys, helpers.{module}; print([name for name in {slow} if sys.modules.get(name)])"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout == "[]\n"


def test_a_module_that_was_hidden_can_be_imported_and_is_not_replaced() -> None:
    asked = "helpers.unhide('xarray'); import xarray as"
    told = f"import helpers; {asked} x; {asked} y; print(x is y)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def planned(*arguments: str) -> list[str]:
    """What make would do."""
    command = ["make", "-n", "PYTHON=python", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


#: That of a make which is not started by another, as these tests may be.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not on PATH")


@needs_make
@pytest.mark.parametrize(
    ("target", "step"),
    [
        (["study", "NAME=x", "TABLE=x", "METADATA=x"], "study"),
        (["check"], "check"),
        (["share"], "share"),
        (["pdf"], "pdf"),
        (["reference"], "reference"),
        (["data", "STUDY=khadka2021"], "data"),
        (["data"], "simulate"),
        (["validate"], "validate"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_each_target_calls_the_step_of_its_name(target: list[str], step: str) -> None:
    line = planned(*target)[-1]
    assert f"python -m helpers {step}" in line


@needs_make
def test_make_report_calls_the_steps_of_the_report() -> None:
    steps = [
        line.split("-m helpers ")[1].split()[0]
        for line in planned("report", "STUDY=demo", "-B")
        if "-m helpers" in line
    ]
    assert steps == ["parameters", *["run"] * len(NAMES), "site"]


@needs_make
@pytest.mark.parametrize(
    ("target", "calls", "never"),
    [
        ("quick", ["ruff check .", "ruff format --check .", "mypy", 'pytest tests -m "not slow"'], "nbval"),
        ("format", ["ruff check --fix", "ruff format ."], "pytest"),
        ("lab", ["python -m jupyterlab notebooks"], "pytest"),
    ],
)
def test_targets_of_who_works_on_the_project(target: str, calls: list[str], never: str) -> None:
    said = "\n".join(planned(target))
    assert [call for call in calls if call not in said] == []
    assert never not in said


@needs_make
def test_every_target_that_make_lists_is_made_even_if_a_file_has_its_name(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "clean").touch()
    (tmp_path / "reports").mkdir()
    assert subprocess.run(["make", "clean"], cwd=tmp_path).returncode == 0
    assert not (tmp_path / "reports").exists()


# ---------------------------------------------------------------- what is made again

FAKE = f"""#!/bin/sh
# Stands for python: notes what it was called for, makes what the step makes.
[ "$1" = -c ] && exit 0
[ "$1" = -P ] && shift 2 && exec "{sys.executable}" -P "{ROOT}/src/helpers/run/lock.py" "$@"
results=reports/$4/results
case $3 in
  parameters) echo parameters >> log; mkdir -p reports/$4/notebooks reports/$4/html reports/$4/.runs
    echo "INPUTS := 'data/$4/counts.tsv'" > reports/$4/inputs.mk
    echo > reports/$4/parameters.yaml ;;
  run) echo $5 >> log; mkdir -p $results/evidence $results/tables
    saved="results/evidence/$5.json results/tables/$5.tsv"
    case $5 in 01*) saved="$saved results/cohort.h5ad results/measures.h5ad" ;; esac
    (cd reports/$4; touch $saved); echo "SAVED_$5 := $saved" > reports/$4/.runs/$5.mk
    echo > reports/$4/notebooks/$5.ipynb ;;
  site) echo site >> log; saved="results/claims.json html/01_ingest.html html/index.html"
    (cd reports/$4; touch $saved); echo "SAVED_site := $saved" > reports/$4/.runs/site.mk ;;
esac
"""


def variables() -> list[str]:
    """Every variable that the Makefile reads or writes, for itself or for the shell, and some that it does not know."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = text.replace("SAVED_$(1)", "SAVED_site").replace("SAVED_$(step)", "SAVED_site")
    lists = re.findall(r"^(?:DRAFTED :=|export) ([A-Z ]+)$", text, re.MULTILINE)
    read = re.findall(r"\$\(?(?:call |value |origin )?\{?([A-Z]\w+)\b", text)
    written = re.findall(r"\b([A-Z]\w+) *[:?]?= ", text)
    return sorted({*read, *written, *" ".join(lists).split(), "UNKNOWN", "SHELL", "MAKE_COMMAND"})


@needs_make
@pytest.mark.slow
@pytest.mark.parametrize("origin", ["line", "environment", "environment, with -e"])
def test_no_variable_that_is_given_is_ever_expanded(tmp_path: Path, origin: str) -> None:
    toy_study(tmp_path)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for path in ("requirements.lock", "pyproject.toml", "notebooks/01_ingest.ipynb"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "python").write_text(FAKE)
    (tmp_path / "python").chmod(0o755)
    assert {"STUDY", "SET", "AGAINST", "NAME", "TREE", "RUNS", "CASES", "OUT", "INPUTS", "SAVED_site"} < {*variables()}
    given = {"PYTHON": "./python", "NAME": "x", "TABLE": "x", "METADATA": "x"}
    expanded = []
    for name in variables():
        # MAKEFLAGS are make's own options: it reads them before any file, and they could name another file.
        for evil in ("$(shell touch expanded)", "x`>expanded`") if name != "MAKEFLAGS" or origin == "line" else ():
            for targets in ("report check share pdf study", "data validate fuzz reference help"):
                line = given | {name: evil} if origin == "line" else {k: v for k, v in given.items() if k != name}
                command = ["make", "-ke" if "-e" in origin else "-k", *targets.split()]
                subprocess.run(
                    [*command, *(f"{key}={value}" for key, value in line.items())], cwd=tmp_path, capture_output=True,
                    env=ENVIRONMENT | ({} if origin == "line" else {name: evil}),
                )  # fmt: skip
                if (tmp_path / "expanded").exists():
                    expanded.append((name, evil, targets))
                    (tmp_path / "expanded").unlink()
    assert expanded == []


@needs_make
def test_what_is_given_arrives_as_it_stands(tmp_path: Path) -> None:
    toy_study(tmp_path)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "python").write_text('#!/bin/sh\n[ "$2" = helpers ] && printf "%s|" "$@" >> log\nexit 0\n')
    (tmp_path / "python").chmod(0o755)
    given = ["PYTHON=./python", "SET=a='$(x) $$y' # z", "RUNS=$(x)", "NAME=x", "TABLE=~/$(x) $HOME", "METADATA=$$"]
    for target in ("check", "validate", "study"):
        subprocess.run(["make", target, *given], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "log").read_text() == (
        "-m|helpers|check|demo|--set=a='$(x) $$y' # z|-m|helpers|validate|$(x)|"
        "-m|helpers|study|--table=~/$(x) $HOME|--metadata=$$|--taxonomy=|--tree=|--from=|--|x|"
    )


@needs_make
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("OUT=/tmp", "OUT is not to be given: the Makefile keeps it for itself"),
        ("MAKEFLAGS=k", "MAKEFLAGS is not to be given"),
        ("PYTHON=python;true", "PYTHON is 'python;true'; expected a name or path of a program, without ;"),
        ("STUDY=a:b", 'STUDY is "a:b"; expected the name of a folder in data/: demo'),
    ],
)
def test_what_cannot_be_given_is_told(given: str, told: str) -> None:
    done = subprocess.run(["make", "help", given], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


@needs_make
def test_make_runs_what_changed_and_what_follows_from_it(tmp_path: Path) -> None:
    toy_study(tmp_path)
    code = ["src/helpers/taxa.py", "src/helpers/run/execution.py", "src/helpers/site/pages/index.py"]
    code += ["src/helpers/study.py", "src/helpers/intake/guess.py", "data/claims/paper.yaml"]
    for path in ("requirements.lock", "pyproject.toml", *code, *(f"notebooks/{name}.ipynb" for name in NAMES)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "python").write_text(FAKE)
    (tmp_path / "python").chmod(0o755)
    log = tmp_path / "log"

    def make(*arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        log.write_text("")
        command = ["make", "report", "PYTHON=./python", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        return done, log.read_text().splitlines()

    def touch(changed: str) -> None:
        now = time.time()
        for path in tmp_path.rglob("*"):
            age = 50 if path.is_relative_to(tmp_path / "reports") else 100
            os.utime(path, (now - age, now - age))
        os.utime(tmp_path / changed, (now - 10, now - 10))

    done, steps = make("-j1")
    assert done.returncode == 0, done.stderr
    everything = ["parameters", *NAMES, "site"]
    assert steps == everything
    assert "Report: reports/demo/html/index.html (built in" in done.stdout
    done, steps = make()
    assert (steps, done.stdout, done.stderr) == ([], "reports/demo/html/index.html is up to date\n", "")
    touch("notebooks/02_diversity.ipynb")
    assert make()[1] == [NAMES[1], "site"]
    for changed, again in (
        ("notebooks/01_ingest.ipynb", everything[1:]),
        ("src/helpers/taxa.py", everything[1:]),
        ("src/helpers/run/execution.py", everything[1:]),
        ("src/helpers/site/pages/index.py", ["site"]),
        ("src/helpers/study.py", everything),
        ("src/helpers/intake/guess.py", []),
        ("data/claims/paper.yaml", []),
        ("data/demo/study.yaml", []),
    ):
        touch(changed)
        assert make("-j1")[1] == again, f"{changed} was edited"
    for new, again in (
        ("src/helpers/survival.py", everything[1:]),
        ("src/helpers/site/pages/deep/page.md.j2", ["site"]),
        ("data/demo/validation.tsv", ["site"]),
        ("notebooks/reference/tables/01_people.tsv", ["site"]),
        ("src/helpers/simulation/world.py", ["site"]),
        ("notebooks/07_more.ipynb", ["07_more", "site"]),
    ):
        (tmp_path / new).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / new).touch()
        os.utime(tmp_path / new, (0, 0))  # as one that was moved there
        assert make("-j1")[1] == again, f"{new} is new"
        (tmp_path / new).unlink()
        assert make("-j1")[1] == [step for step in again if step != "07_more"], f"{new} is gone"
    counts = tmp_path / "data/demo/counts.tsv"
    touch("data/demo/counts.tsv")
    assert make()[1] == [], "the same bytes"
    counts.write_text("other")
    os.utime(counts, (0, 0))
    assert make("-j1")[1] == everything, "other bytes, however old the file says it is"
    counts.unlink()
    assert make("-j1")[1] == everything, "a file that went missing is to be told"
    counts.touch()
    make()
    assert make("SET=seed=1")[1][0] == "parameters"
    assert make("SET=seed=1")[1] == []
    reports, described = tmp_path / "reports" / "demo", tmp_path / "data/demo/study.yaml"
    for laid in (described, tmp_path / "data/claims/paper.yaml"):
        for when in (0, time.time() + 86400):  # a file that was laid over keeps its date; or the clock was ahead
            laid.write_text(f"{laid.read_text()}# {when}\n")
            os.utime(laid, (when, when))
            assert make("SET=seed=1", "-j1")[1] == everything, f"{laid} is another, dated {when}"
            assert make("SET=seed=1")[1] == []
            os.utime(laid, (when + 10, when + 10))
            assert make("SET=seed=1")[1] == [], "the same bytes"
    for built in reports.rglob("*"):
        os.utime(built, (time.time() + 86400,) * 2)
    described.write_text(f"{described.read_text()}# when the clock was right again\n")
    assert make("SET=seed=1", "-j1")[1] == everything, "the report was built when the clock was ahead"
    assert make("SET=seed=1")[1] == []
    for lost, again in (
        ("results/measures.h5ad", everything[1:]),
        ("results/tables/03_taxa.tsv", [NAMES[2], "site"]),
        ("results/evidence/04_response.json", [NAMES[3], "site"]),
        (".runs/05_treatment_comparison.mk", [NAMES[4], "site"]),
        ("results/claims.json", ["site"]),
        ("html/01_ingest.html", ["site"]),
    ):
        (reports / lost).unlink()
        assert make("SET=seed=1", "-j1")[1] == again, f"{lost} was deleted"
        assert make("SET=seed=1")[1] == []
    done, steps = make("STUDY=dmeo")
    assert done.returncode != 0
    assert "studies: demo" in done.stderr
    assert not (tmp_path / "reports" / "dmeo").exists()
