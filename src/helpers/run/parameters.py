"""Parameters of the notebooks: study.yaml's settings, overridden by SET, validated before anything runs."""

import ast
import difflib
import json
import shlex
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from helpers.errors import StudyError
from helpers.files import DATA, NOTEBOOKS, from_notebook, report_of, write_whole
from helpers.run.origin import makefile_variable
from helpers.study import Settings, Study, load_study, schema_message

EXAMPLE = 'such as SET="permutations=9999 alpha=0.01"'


def notebooks() -> list[Path]:
    """The report's notebooks in their order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def notebook_defaults(path: str | Path) -> dict[str, Any]:
    """What the cell tagged ``parameters`` of a notebook assigns, by name."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise StudyError("needs one cell tagged `parameters`", file=path, found=len(tagged))
    values = {}
    for line in ast.parse("".join(tagged[0]["source"])).body:
        try:
            assert isinstance(line, ast.Assign)
            values[ast.unparse(line.targets[0])] = ast.literal_eval(line.value)
        except (AssertionError, ValueError):
            problem, found = "the parameters cell may only assign literals", ast.unparse(line)
            raise StudyError(problem, file=path, found=found, expected="name = 1") from None
    return values


def parse_overrides(text: str) -> dict[str, str]:
    """``a=1 b='x y'``, as in the variable SET, as a dict of texts."""
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise StudyError(f"SET: {str(e).lower()}", found=text, expected=EXAMPLE) from None
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise StudyError("SET: not a parameter and its value", found=word, expected=EXAMPLE)
        if name in values:
            raise StudyError(f"SET: {name} is given twice", found=text)
        values[name] = value
    return values


def resolve_settings(study: Study, text: str = "") -> Settings:
    """The study's settings, overridden by the text of the variable SET, all validated."""
    overrides = parse_overrides(text)
    known = list(Settings.model_fields)
    for name in overrides:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            fix = f"did you mean {close[0]}?" if close else None
            raise StudyError(f"SET: no parameter {name}", expected="one of " + ", ".join(known), fix=fix)
    content = study.model_dump()
    content["settings"].update(overrides)
    try:
        return Study.model_validate(content).settings
    except ValidationError as e:
        raise StudyError("SET: " + schema_message(e).replace("settings.", ""), fix=EXAMPLE) from None


def write_parameters(name: str, overrides: str = "") -> None:
    """Validate study, parameters and input files; write ``parameters.yaml`` and, for make, ``inputs.mk``."""
    from helpers.choices import load_choices
    from helpers.claims import load_claims  # here: whoever only asks for parameters need not wait for it

    study, report = load_study(DATA / name), report_of(name)
    load_claims(study)
    settings = resolve_settings(study, overrides)
    load_choices(study, settings)
    folders = {"study_dir": from_notebook(DATA / name), "results_dir": from_notebook(report.results)}
    parameters = settings.model_dump() | folders
    for notebook in notebooks():
        declared(notebook, parameters)
    files = study.files.each()
    for file in files.values():
        study.read(file)
    paths = " ".join(shlex.quote(str(study.path(file))) for file in files.values())
    write_whole(report.inputs, makefile_variable("INPUTS", paths))
    write_whole(report.parameters, yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True))


def declared(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Those of the parameters that a notebook declares."""
    names = notebook_defaults(notebook)
    if unknown := ", ".join(name for name in names if name not in parameters):
        raise StudyError(f"declares unknown parameters: {unknown}", file=notebook, expected=", ".join(parameters))
    return {name: parameters[name] for name in names}
