"""What people expect of a repository: licences, a citation, and directions that lead to files that are there."""

import ast
import re
import tomllib

import pytest
import yaml
from toy import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
#: How a licence's text begins, by its SPDX identifier.
TEXTS = {"BSD-3-Clause": "BSD 3-Clause License\n", "CC0-1.0": "Creative Commons Legal Code\n\nCC0 1.0 Universal\n"}


def paths_named(markdown: str) -> list[str]:
    """Path-like words in backticks, outside code blocks; those with a placeholder or of a built report left out."""
    prose = re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    words = [word for code in re.findall(r"`([^`]+)`", prose) for word in code.split()]
    like = [word for word in words if "/" in word or word.endswith((".py", ".yaml", ".ipynb", ".md"))]
    return [word for word in like if not re.match(r"[.]venv/|reports/|files/|raw/$|study\.yaml$|.*[<>*]", word)]


def test_the_citation_has_what_its_format_requires_and_the_projects_version() -> None:
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    assert (CITATION["cff-version"], CITATION["type"]) == ("1.2.0", "software")
    assert (CITATION["version"], CITATION["license"]) == (PROJECT["version"], PROJECT["license"])
    for work in (CITATION, *CITATION["references"]):
        assert work["title"]
        assert all({"family-names", "given-names"} <= set(who) or "name" in who for who in work["authors"])
    dois = [work["doi"] for work in CITATION["references"]]
    assert all(doi in (ROOT / "README.md").read_text(encoding="utf-8") for doi in dois)


def test_the_licences_are_those_that_project_and_demo_name() -> None:
    assert PROJECT["license-files"] == ["LICENSE"]
    demo = yaml.safe_load((ROOT / "data" / "demo" / "study.yaml").read_text(encoding="utf-8"))["licence"]
    for name, folder in ((PROJECT["license"], ROOT), (demo.split()[0], ROOT / "data" / "demo")):
        assert (folder / "LICENSE").read_text(encoding="utf-8").startswith(TEXTS[name])
        assert name in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_changelog_has_the_projects_version() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[:2] == ["Unreleased", PROJECT["version"]]


def test_every_file_that_contributing_names_is_there() -> None:
    named = paths_named((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name.partition("::")[0]).exists()] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("see `src/x.py` and `make data/y`", ["src/x.py", "data/y"]),
        ("`gone.md` not gone.md, `a.b`, `reports/demo/`, `<page>.md`", ["gone.md"]),
        ("```\nin/a/block.py\n```\n   ```python\n   x/y.py\n   ```\n`z.yaml`", ["z.yaml"]),
    ],
)
def test_a_file_that_is_named_is_noticed(text: str, named: list[str]) -> None:
    assert paths_named(text) == named


def test_a_module_imports_only_from_those_above_it_in_the_readme() -> None:
    listed = re.findall(r"^  (\w+)(?:\.py|/) ", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    package = ROOT / "src" / "helpers"
    rooms = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert set(listed) == rooms - {"__init__", "__main__"}
    upward = set()
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body if room in listed else []:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers":
                inside = (node.module or "").split(".")[1:2] or [alias.name for alias in node.names]
                upward |= {(path.name, other) for other in inside if listed.index(other) > listed.index(room)}
    assert not upward
