"""The report as an RO-Crate: what it is made of and which run made it, in a form that software reads.

It follows Provenance Run Crate 0.5: the Makefile is the workflow, each notebook a tool that it runs. The study's files
are described, and not part of the crate; nor is what may not be shared.

References
----------
Leo S, et al. Recording provenance of workflow runs with RO-Crate. PLoS ONE 2024, doi:10.1371/journal.pone.0309210.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from platform import python_version
from typing import Any

import nbformat
from rocrate.model import ComputerLanguage, ContextEntity, Entity
from rocrate.rocrate import ROCrate

from helpers.files import CRATE, HTML, LOCK, MAKEFILE, NOTEBOOKS
from helpers.run.origin import Ran, command, commit, inputs, machine, run_times, sha256, utc
from helpers.run.parameters import declared
from helpers.site.archive import shared
from helpers.site.pages import Run
from helpers.study import Settings, Study
from helpers.texts import packaged

CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
WORKFLOW = f"{HTML}/files/{MAKEFILE}"
TYPES = {int: "Integer", float: "Float"}
#: What is the same in each crate.
FIXED = packaged("site/crate.yaml")


def crate_json(run: Run, html: Path) -> str:
    """The crate's metadata as JSON-LD; wherever the site was built, in the crate it is ``html``."""
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(CONTEXT)
    _describe_root(crate, run.study)
    files = _add_files(crate, run.folder, html)
    objects = [*_add_inputs(crate, run.study), *_add_parameters(crate, run.parameters)]
    runs = run_times(run.report, run.chapters)
    tools = {chapter: _add_tool(crate, chapter, run, runs[chapter]) for chapter in run.chapters}
    actions = [_add_notebook_run(crate, chapter, run, tools[chapter], files, runs[chapter]) for chapter in run.chapters]
    if WORKFLOW in files:
        workflow = _add_workflow(crate, files.pop(WORKFLOW), tools, objects)
        actions.append(_add_whole_run(crate, run, workflow, objects, list(files.values()), list(runs.values())))
    for address, name in list(FIXED["profiles"].items())[: None if crate.mainEntity else 1]:
        profile = _described(crate, address, "CreativeWork", name=name, version=address.rpartition("/")[2])
        crate.root_dataset.append_to("conformsTo", profile)
    crate.root_dataset["mentions"] = actions
    return json.dumps(crate.metadata.generate(), indent=1, ensure_ascii=False) + "\n"


def _described(crate: ROCrate, address: str, kind: str, **properties: Any) -> Entity:
    """Something that the crate describes and does not hold."""
    return crate.add(ContextEntity(crate, address, {"@type": kind, **properties}))


def _describe_root(crate: ROCrate, study: Study) -> None:
    simulated = "SIMULATED DATA: made by a generator, not the result of any study. " if study.simulated else ""
    crate.name = f"Report: {study.title}"
    crate.description = f"{simulated}Report on a treatment-response skin-microbiome study. {study.about}".strip()
    crate.datePublished = utc(datetime.now(UTC))
    about = "Licence of the study's data, as its study.yaml states it."
    crate.license = _described(crate, "#licence", "CreativeWork", name=study.licence, description=about)


def pages_of(html: Path) -> list[Path]:
    """The pages of a site."""
    return sorted([*html.glob("*.html"), *html.glob("claims/*.html")])


def _add_files(crate: ROCrate, folder: Path, html: Path) -> dict[str, Entity]:
    """The files that are shared, with their checksums; of the site its pages and the workflow, the rest as a folder."""
    site = folder / HTML
    paths = {path.relative_to(folder).as_posix(): path for path in shared(folder) if site not in path.parents}
    paths.pop(CRATE, None)  # of the last time
    paths |= {f"{HTML}/{page.relative_to(html).as_posix()}": page for page in pages_of(html)}
    if (workflow := html.joinpath(*Path(WORKFLOW).parts[1:])).is_file():
        paths[WORKFLOW] = workflow
    crate.add_dataset(dest_path=f"{HTML}/", properties=FIXED["site"])
    files = {}
    for name, path in paths.items():
        about = {"name": path.name, "sha256": sha256(path), "contentSize": str(path.stat().st_size)}
        about["encodingFormat"] = FIXED["formats"].get(path.suffix, "application/octet-stream")
        files[name] = crate.add_file(dest_path=name, properties=about)
    return files


def _add_inputs(crate: ROCrate, study: Study) -> list[Entity]:
    """The study's files: they are no part of the crate, and only their names and checksums leave the machine."""
    described, files = [], study.files.each()
    for role, path in inputs(study).items():
        more: dict[str, Any] = {}
        if role in files:
            slot = _described(crate, f"#parameter-{role}", "FormalParameter", name=role, additionalType="File")
            more = {"exampleOfWork": slot} | ({"contentUrl": files[role].url} if files[role].url else {})
        work = {"name": path.name, "sha256": sha256(path), **more}
        described.append(_described(crate, f"#input-{role}", "CreativeWork", **work))
    return described


def _add_parameters(crate: ROCrate, parameters: dict[str, Any]) -> list[Entity]:
    values = []
    for name, field in Settings.model_fields.items():
        kind, default = TYPES.get(type(field.default), "Text"), field.default
        slot = {"name": name, "description": field.description, "additionalType": kind, "defaultValue": default}
        formal = _described(crate, f"#parameter-{name}", "FormalParameter", **slot)
        value = {"name": name, "value": parameters[name], "exampleOfWork": formal}
        values.append(_described(crate, f"#value-{name}", "PropertyValue", **value))
    return values


def _declared(chapter: str, run: Run) -> list[str]:
    source = NOTEBOOKS / f"{chapter}.ipynb"
    return [name for name in declared(source, run.parameters) if name in Settings.model_fields]


def _add_tool(crate: ROCrate, chapter: str, run: Run, ran: Ran | None) -> Entity:
    notebook = nbformat.read(run.report.notebooks / f"{chapter}.ipynb", as_version=4)
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ") if notebook.cells else ""
    properties = {
        "name": f"{chapter}.ipynb",
        "description": f"Notebook: {title}" if title else "Notebook",
        "input": [{"@id": f"#parameter-{name}"} for name in _declared(chapter, run)],
        **({"softwareVersion": ran.commit} if ran and ran.commit else {}),
    }
    return _described(crate, f"#notebook-{chapter}", "SoftwareApplication", **properties)


def _add_notebook_run(
    crate: ROCrate, chapter: str, run: Run, tool: Entity, files: dict[str, Entity], ran: Ran | None
) -> Entity:
    """A notebook's run: it made the files whose names begin with its number."""
    paths = {Path(name): entity for name, entity in files.items()}
    made = [entity for path, entity in paths.items() if path.parts[0] != HTML and path.name.startswith(chapter[:3])]
    read = [f"#input-{role}" for role in inputs(run.study)] + [f"#value-{name}" for name in _declared(chapter, run)]
    told = {"name": f"Run of {chapter}.ipynb", "description": FIXED["notebook_run"]}
    properties = FIXED["run"] | told | _times([ran])
    return crate.add_action(tool, f"#run-{chapter}", [{"@id": i} for i in read], made, properties)


def _times(runs: list[Ran | None]) -> dict[str, str]:
    """When the first began and the last ended, if that is known of all."""
    known = [ran for ran in runs if ran]
    if not known or len(known) < len(runs):
        return {}
    return {"startTime": utc(min(ran.started for ran in known)), "endTime": utc(max(ran.ended for ran in known))}


def _add_workflow(crate: ROCrate, workflow: Entity, tools: dict[str, Entity], objects: list[Entity]) -> Entity:
    """The Makefile as the main workflow, its steps, and what controlled each."""
    properties = {key: value for key, value in workflow.properties().items() if not key.startswith("@")}
    properties |= FIXED["workflow"] | {"version": commit() or "not known"}
    language = crate.add(ComputerLanguage(crate, "#make", FIXED["make"]))
    main = crate.add_workflow(dest_path=WORKFLOW, properties=properties, main=True, lang=language)
    main["hasPart"] = list(tools.values())
    main["input"] = [entity["exampleOfWork"] for entity in objects if "exampleOfWork" in entity]
    for position, (chapter, tool) in enumerate(tools.items(), start=1):
        step = {"name": chapter, "position": str(position), "workExample": tool}
        main.append_to("step", _described(crate, f"#step-{chapter}", "HowToStep", **step))
        control = {"@type": "ControlAction", "name": f"Step {chapter}", "object": {"@id": f"#run-{chapter}"}}
        crate.add_action({"@id": f"#step-{chapter}"}, f"#control-{chapter}", properties=control)
    return main


def _add_whole_run(
    crate: ROCrate, run: Run, workflow: Entity, objects: list[Entity], made: list[Entity], runs: list[Ran | None]
) -> Entity:
    lock = f"{LOCK} with SHA-256 {sha256(LOCK)}" if LOCK.is_file() else f"no {LOCK}"
    description = f"Python {python_version()} on {machine()}, {lock}. {FIXED['whole_run']}"
    told = {"name": f"Run of {command(run.report) or 'the steps one by one'}", "description": description}
    return crate.add_action(workflow, "#run", objects, made, FIXED["run"] | told | _times(runs))
