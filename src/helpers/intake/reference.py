"""The references of study.yaml, claims and choices, and their schemas, from the models that check them: docs/."""

import json
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pandas as pd
import yaml
from anndata import AnnData
from jinja2 import Template
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from helpers.choices import Choices
from helpers.claims import NAMES, NOT_TESTABLE, OF_ONE_ARM, Claim, ClaimId, Claims, names
from helpers.evidence import CONTRASTS, Asked, lacking
from helpers.files import CHOICES, CHOICES_KEYS, CLAIMS_KEYS, DEMO, DOCS, EXAMPLES, STUDY_KEYS, STUDY_YAML, write_whole
from helpers.measures import Measure, find, registry
from helpers.study import Labels, Response, Study, Taxa, load_study


def references() -> dict[Path, str]:
    """What is written from the models: references and schemas, by their path."""
    choices = yaml.safe_load(CHOICES.read_text(encoding="utf-8"))
    demo, claims = ((f.read_text(encoding="utf-8")) for f in (DEMO / STUDY_YAML, EXAMPLES))
    own = (dict[ClaimId, Claim], Study.model_fields["own_claims"])
    whole: type[BaseModel] = create_model("Study", __base__=Study, __doc__=Study.__doc__, own_claims=own)
    of_claims = _keys(Claims, yaml.safe_load(claims), f"{EXAMPLES}")
    return {
        STUDY_KEYS: _filled("study_keys", keys=_keys(Study, yaml.safe_load(demo))),
        CLAIMS_KEYS: _filled("claims_keys", keys=of_claims, **_vocabulary(load_study(DEMO))),
        DOCS / "study.schema.json": _schema(whole),
        DOCS / "claims.schema.json": _schema(Claims),
        CHOICES_KEYS: _filled("choices_keys", keys=_keys(Choices, choices, f"{CHOICES}")),
        DOCS / "choices.schema.json": _schema(Choices),
    }


def write_reference() -> None:
    """Write them."""
    for path, text in references().items():
        write_whole(path, text)


def _filled(name: str, **tables: str) -> str:
    """A reference from its template beside this file."""
    text = Path(__file__).with_name(f"{name}.md.j2").read_text(encoding="utf-8")
    return Template(text, keep_trailing_newline=True).render(tables)


def _schema(model: type[BaseModel]) -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _vocabulary(demo: Study) -> dict[str, str]:
    """Tables of names in braces, contrasts and measures, with what they are in the demo."""
    said = names(demo)
    braces = [(f"`{{{name}}}`", *_origin(name), said[name]) for name in NAMES]
    taxon = "Cutibacterium acnes"
    measures = [(f"`{key}`", *_about(measure)) for key, measure in registry(demo).items()]
    measures.append((f"any genus or species: `{taxon}`", *_about(find(taxon, demo))))
    columns = ["subject", "visit", "group", "arm", "site", "lesional"]
    nobody = AnnData(obs=pd.DataFrame(columns=columns, index=pd.Index([], dtype=str), dtype=object))
    lacks = lacking(nobody, demo.model_copy(update={"severity": [], "labels": Labels()}))
    contrasts = []
    for name, contrast in CONTRASTS.items():
        needs = contrast.needs(Asked("", name, "treatment", "lesional"))
        about = (contrast.estimate.__doc__ or "").splitlines()[0]
        given = ", ".join(["`arm`"] * (name in OF_ONE_ARM) + ["`among`"] * (name == "change_in")) or "nothing"
        reasons = "; ".join(lacks[need] for need in needs)
        contrasts.append((f"`{name}`", about, given, ", ".join(contrast.sections), reasons))
    heads = ("contrast", "what it compares, and how", "asks for", "of measures", f"{NOT_TESTABLE} if")
    return {
        "braces": _table("name", "key of study.yaml", "what it is", "in the demo", rows=braces),
        "contrasts": _table(*heads, rows=contrasts),
        "measures": _table("measure", "label", "kind", "unit", "told in", "healthier", "needs", rows=measures),
    }


def _origin(name: str) -> tuple[str, str]:
    """The key of study.yaml behind a name in braces, and its description."""
    for key, model in (("labels", Labels), ("taxa", Taxa), ("response", Response)):
        if name in model.model_fields:
            return f"`{key}.{name}`", model.model_fields[name].description or ""
    return "`severity`", Study.model_fields["severity"].description or ""


def _about(measure: Measure) -> tuple[str, ...]:
    healthier = {1: "up", -1: "down", 0: "towards the controls"}[measure.healthier]
    label, kind, unit, scale = measure.label, measure.kind, measure.unit or "none", measure.scale
    return label, kind, unit, scale, healthier, ", ".join(measure.needs) or "nothing more"


def _table(*head: str, rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _keys(model: type[BaseModel], examples: dict[str, Any], top: str = "The top level") -> str:
    """Every key of a file, a section for each model inside it."""
    sections: dict[type[BaseModel], tuple[list[str], Any]] = {}
    _collect(model, "", examples, sections)
    return "\n\n".join(_section(kind, top, *found) for kind, found in sections.items())


def _collect(model: type[BaseModel], path: str, given: Any, sections: dict[type[BaseModel], Any]) -> None:
    """Where each model stands, and an example of it: of claims, from `EXAMPLES`; of study.yaml, from the demo's."""
    sections.setdefault(model, ([], given))[0].append(path)
    for name, field in model.model_fields.items():
        inner = given.get(name) if isinstance(given, dict) else None
        below = f"{path}.{name}".strip(".")
        if isinstance(inner, list) and inner:
            inner = inner[0]
        if get_origin(field.annotation) is dict and _models(field.annotation):
            first, inner = next(iter(inner.items())) if inner else ("…", None)
            below = f"{below}.{first}"
        for kind in _models(field.annotation):
            _collect(kind, below, inner, sections)


def _section(model: type[BaseModel], top: str, paths: list[str], given: Any) -> str:
    title = "## " + (", ".join(f"`{path}`" for path in paths) if paths[0] else top)
    examples = given if isinstance(given, dict) else {}
    rows = [_row(name, field, examples.get(name)) for name, field in model.model_fields.items()]
    about = (model.__doc__ or "").strip().splitlines()[0]
    heads = ["| key | type | default | example | what it is |", "|---|---|---|---|---|"]
    return "\n".join([title, "", about, "", *heads, *rows])


def _row(name: str, field: FieldInfo, given: Any) -> str:
    default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    shown = "**required**" if default is PydanticUndefined else _value(default)
    example = given if given not in (None, {}, []) else next(iter(field.examples or []), None)
    what = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_type(field.annotation, field)} | {shown} | {_value(example)} | {what} |"


def _value(value: Any) -> str:
    if isinstance(value, BaseModel) or (isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())):
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
    if annotation is Any:
        return "[a claim](claims.md)"
    words = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}[annotation]
    limits = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
    bounds = [
        limits[name].format(f"{value:,}")
        for item in (field.metadata if field else [])
        for name in limits
        if (value := getattr(item, name, None)) is not None
    ]
    return f"{words} {', '.join(bounds)}".strip()
