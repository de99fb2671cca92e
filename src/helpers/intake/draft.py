"""A first study.yaml from the user's own files: copies of them, and what was guessed, as YAML with comments."""

import math
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from helpers.containers import sheets
from helpers.errors import StudyError
from helpers.files import DATA, STUDY_KEYS, STUDY_YAML, unfinished
from helpers.ingest import of_visits
from helpers.intake.guess import Draft, guess, quoted
from helpers.intake.guess import visits as find_visits
from helpers.run.lock import clear, locked
from helpers.study import CountsFile, Files, Study, load_study
from helpers.tables import Counts, few, is_whole_study, read_counts, text_table
from helpers.texts import packaged

#: For editors: completes and checks the keys.
SCHEMA = "# yaml-language-server: $schema=../../docs/study.schema.json"
_TOLD = packaged("intake/draft.yaml")


class _Dumper(yaml.SafeDumper):
    """Mappings over several lines, lists of plain values on one, texts that cannot be printed in double quotes."""

    def represented(self, value: Any) -> yaml.Node:
        """A mapping, a list or a text."""
        if isinstance(value, dict):
            return self.represent_mapping("tag:yaml.org,2002:map", value, flow_style=False)
        if isinstance(value, list):
            flow = not any(isinstance(item, dict) for item in value)
            return self.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


for _kind in (dict, list, str):
    _Dumper.add_representer(_kind, _Dumper.represented)


def _yaml(key: str, value: Any) -> str:
    text: str = yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n")


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, 116, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _printable(text: str) -> str:
    """Characters that cannot be printed as escapes, which comments may have, and YAML in double quotes."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _study_text(name: str, draft: Draft) -> str:
    """study.yaml, with comments: why a key is to be checked, and what the model says that it is."""
    swabs = {"swabs": "all"} if "lesional" in draft.columns else {}
    content: dict[str, Any] = {
        "title": f"Study {name}",
        **_TOLD["placeholders"],
        **{key: getattr(draft, key) for key in ("files", "columns", "severity", "labels", "adjust", "minimum_depth")},
        "settings": {**swabs, "rarefaction_depth": draft.minimum_depth},
        "privacy": _TOLD["privacy"],
    }

    def entry(path: str, about: str, text: str) -> Iterator[str]:
        """A key with its comments; what it is stands beside it, if there is space."""
        *above, key = path.split(".")
        indent, (first, *more) = "  " * len(above), text.split("\n")
        beside = text and len(first) + len(about) < 110
        checks = [f"CHECK: {key}: {why}" for why in draft.checks.get(path, ())]
        for comment in [text and _TOLD["remarks"].get(path), *checks, text and not beside and about]:
            yield from _wrapped(comment or "", f"{indent}# ", f"{indent}#   ")
        if text:
            yield from (f"{indent}{first}{f'  # {about}' if beside else ''}", *(f"{indent}{line}" for line in more))

    def lines() -> Iterator[str]:
        yield SCHEMA
        yield from _wrapped(_TOLD["head"].format(name=name, keys=STUDY_KEYS), "# ", "# ")
        for key, value in content.items():
            model: Any = Study.model_fields[key]
            section = isinstance(value, dict)
            yield from ("", *entry(key, model.description, f"{key}:" if section else _yaml(key, value)))
            for inner, described in model.annotation.model_fields.items() if section else ():
                text = _yaml(inner, value[inner]) if inner in value else ""
                yield from entry(f"{key}.{inner}", described.description, text)
            if key == "columns" and draft.covariates:
                yield "  # Further columns: for those to be used, take away the leading `# `, and that of covariates."
                yield textwrap.indent(_yaml("covariates", draft.covariates), "  # ")
            if key == "columns" and draft.left_out:
                yield from _wrapped(f"Not used: {'; '.join(draft.left_out)}.", "  # ", "  #   ")

    return _printable("\n".join(lines()) + "\n")


def _summary(name: str, draft: Draft, paths: dict[str, Path]) -> str:
    """What was guessed, what is unsure, and what to do next."""
    lines = [f"{DATA / name / STUDY_YAML} is drafted, of", *(f"  {role + ':':<14}{paths[role]}" for role in paths)]
    lines.append("Guessed:")
    for key, chosen in draft.columns.items():
        text = f"'{draft.column_of(key)}'"
        if isinstance(chosen, dict):
            text += ": " + "; ".join(f"{standard} = {quoted(values)}" for standard, values in chosen["values"].items())
            text += f"; left out: {quoted(chosen['ignore'])}" if "ignore" in chosen else ""
        lines.append(f"  {key + ':':<14}{' '.join(text.split())}")
    if draft.severity:
        lines.append(f"  {'severity:':<14}{quoted(score['column'] for score in draft.severity)}")
    reasons = [f"{key}: {why}" for key, each in draft.checks.items() for why in each]
    lines.append(f"To check ({len(reasons)}; also title, about, source, licence, randomised, labels):")
    for reason in reasons:
        lines += _wrapped(reason, "  - ", "    ")
    lines.append(f"Next: edit {DATA / name / STUDY_YAML}, then")
    lines += [f"  make {step} STUDY={name}" for step in ("check", "report")]
    return _printable("\n".join(lines))


#: Which variable of `make study` names which file.
VARIABLES = {"counts": "TABLE", "metadata": "METADATA", "taxonomy": "TAXONOMY", "tree": "TREE"}


def _bytes(path: Path, role: str) -> bytes:
    if not str(path).isprintable():
        raise StudyError.of("unprintable", repr(str(path)))
    try:
        if path.is_file():  # a pipe or a device could be read for ever
            return path.read_bytes()
        found = "a folder or a device" if path.exists() else "no such file"
    except OSError as e:
        found = e.strerror or str(e)
    raise StudyError.of("no_file", path, found=found, variable=VARIABLES[role])


def _read_counts(path: Path, data: bytes) -> tuple[Counts, bool]:
    """The counts, rounded, as if the columns were the samples; and whether they are whole."""

    def counts(fractions: Literal["error", "round"]) -> Counts:
        file = CountsFile(path=str(path), orientation="samples_in_columns", fractions=fractions)
        content: dict[str, Any] = {"files": Files(counts=file)}
        return read_counts(Study.model_construct(**content), data, [])

    try:
        return counts("error"), True
    except StudyError:
        return counts("round"), False


def _in_folder(folder: Path, given: dict[str, Path]) -> dict[str, Path]:
    """The files of a folder by what they are, told by their names, where they are not given."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for role, patterns in _TOLD["folder"].items():
        found = next(filter(None, ([p for p in files if p.relative_to(folder).match(like)] for like in patterns)), [])
        if role not in given and (len(found) > 1 or (not found and role == "counts")):
            told = few(path.relative_to(folder) for path in found or files) or "no file"
            problem, about = "several_in_folder" if found else "not_in_folder", {"role": role, "like": few(patterns)}
            raise StudyError.of(problem, folder, **about, variable=VARIABLES[role], found=told)
        given = ({role: found[0]} if found else {}) | given
    return given


def draft_study(
    name: str,
    table: str | Path | None = None,
    metadata: str | Path | None = None,
    taxonomy: str | Path | None = None,
    tree: str | Path | None = None,
    source: str | Path | None = None,
    data_folder: str | Path = DATA,
) -> str:
    """Make ``data/<name>`` with copies of the files and a commented study.yaml, all or nothing; the summary comes back.

    `table` is BIOM, .qza or text, or holds all there is (`helpers.containers`), `metadata` text; `taxonomy`, a lineage
    a feature, and `tree`, Newick, are empty if there is none; what is not given is looked for in the folder `source`.
    A name has letters, digits, ``_`` and ``-``; a study of that name must not be there.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise StudyError.of("no_study_name", found=repr(name))
    folder = Path(data_folder) / name
    if folder.exists() or folder.is_symlink():
        raise StudyError.of("study_exists", folder, folder=folder)
    given = {"counts": table, "metadata": metadata, "taxonomy": taxonomy, "tree": tree}
    paths = {role: Path(path or "") for role, path in given.items() if path or (role == "counts" and not source)}
    paths = _in_folder(Path(source), paths) if source else paths
    data = {role: _bytes(path, role) for role, path in paths.items()}
    counts, whole = _read_counts(paths["counts"], data["counts"])
    described = "metadata" if "metadata" in paths else "counts"
    if described == "counts" and not is_whole_study(paths["counts"], data["counts"]):
        raise StudyError.of("draft_without_metadata", paths["counts"])
    rows = text_table(paths[described], data[described])
    visits = find_visits(rows, counts.samples) or find_visits(rows, counts.features)
    if visits:
        rows = of_visits(paths[described], rows, visits, next(iter(next(iter(visits.values())))))
    draft = guess(rows, counts, whole, "taxonomy" in paths)
    draft.check("files.metadata", "wide", visits)
    more = list(sheets(paths[described], data[described]))[1:]
    draft.check("files.metadata", "sheets", more, more=quoted(more))
    taken: set[str] = set()
    for role, path in paths.items():
        copy = path.name if path.name.lower() not in taken else f"{role}-{path.name}"
        taken.add(copy.lower())
        draft.files[role] = {"path": f"raw/{copy}"}
    draft.files["counts"] |= {} if whole else {"fractions": "error"}
    if visits:
        draft.files["metadata"]["visits"] = visits
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent, "another make study"), unfinished(folder) as made:
            clear(folder.parent, inside=False)
            (made / "raw").mkdir(parents=True)
            for role, content in data.items():
                (made / draft.files[role]["path"]).write_bytes(content)
            (made / STUDY_YAML).write_text(_study_text(name, draft), encoding="utf-8")
            load_study(made)
            made.rename(folder)
    except OSError as e:
        raise StudyError.of("unwritten", folder, found=e.strerror) from None
    return _summary(name, draft, paths)
