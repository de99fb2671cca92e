"""The reference of study.yaml, written from the model that checks it: docs/study_yaml.md."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from helpers.files import DEMO, KEYS, STUDY_YAML, write_whole
from helpers.study import Study

HEAD = """# study.yaml, key by key

Written from the model that checks it (`src/helpers/study.py`) by `make reference`; a test fails if the two differ.
A key that is not here is an error. `make study` writes a first draft for your own files.
"""


def study_reference(examples: dict[str, Any]) -> str:
    """The reference of study.yaml as Markdown.

    Parameters
    ----------
    examples : dict
        Content of a study.yaml.
    """
    sections: dict[type[BaseModel], tuple[list[str], Any]] = {}
    _collect(Study, "", examples, sections)
    return "\n".join([HEAD, "\n\n".join(_section(kind, *found) for kind, found in sections.items()), ""])


def write_reference() -> None:
    """Write docs/study_yaml.md; the demo's values are the examples, where it has the key."""
    write_whole(KEYS, study_reference(yaml.safe_load((DEMO / STUDY_YAML).read_text(encoding="utf-8"))))


def _collect(model: type[BaseModel], path: str, given: Any, sections: dict[type[BaseModel], Any]) -> None:
    """Where each model stands, and an example of it."""
    sections.setdefault(model, ([], given))[0].append(path)
    for name, field in model.model_fields.items():
        inner = given.get(name) if isinstance(given, dict) else None
        inner = inner[0] if isinstance(inner, list) and inner else inner
        for kind in _models(field.annotation):
            _collect(kind, f"{path}.{name}".strip("."), inner, sections)


def _section(model: type[BaseModel], paths: list[str], given: Any) -> str:
    title = "## " + (", ".join(f"`{path}`" for path in paths) if paths[0] else "The top level")
    examples = given if isinstance(given, dict) else {}
    rows = [_row(name, field, examples.get(name)) for name, field in model.model_fields.items()]
    about = (model.__doc__ or "").strip().splitlines()[0]
    return "\n".join(
        [title, "", about, "", "| key | type | default | example | what it is |", "|---|---|---|---|---|", *rows]
    )


def _row(name: str, field: FieldInfo, given: Any) -> str:
    default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    shown = "**required**" if default is PydanticUndefined else _value(default)
    example = given if given is not None else next(iter(field.examples or []), None)
    what = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_type(field.annotation, field)} | {shown} | {_value(example)} | {what} |"


def _value(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
        return "see below"
    if value is None or value == [] or value == {}:
        return "none"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()
    text = text.removesuffix("...").strip().replace("|", "\\|").replace("\n", " ")
    return f"`{text if len(text) <= 60 else text[:57] + '…'}`"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    """An annotation in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part, field) for part in parts if part is not type(None))
    if origin is list:
        return f"list of: {_type(parts[0])}"
    if origin is tuple:
        return "list of " + ", ".join(_type(part) for part in parts)
    if origin is dict:
        return f"keys with: {_type(parts[1])}"
    if _models(annotation):
        return "keys, see below"
    words = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}[annotation]
    limits = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
    bounds = [
        limits[name].format(f"{value:,}")
        for item in (field.metadata if field else [])
        for name in limits
        if (value := getattr(item, name, None)) is not None
    ]
    return f"{words} {', '.join(bounds)}".strip()
