import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENTRIES = re.split(r"\n(?=[A-Za-z0-9])", LOCK.rstrip())


def _locked() -> dict[str, list[tuple[Requirement, str]]]:
    entries: dict[str, list[tuple[Requirement, str]]] = {}
    for entry in ENTRIES:
        requirement = Requirement(entry.partition("\\")[0].strip())
        entries.setdefault(canonicalize_name(requirement.name), []).append((requirement, entry))
    return entries


def test_lock_holds_what_pyproject_asks_for() -> None:
    locked = _locked()
    asked = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
    direct = {
        name for name, entries in locked.items() if any("helpers (pyproject.toml)" in text for _, text in entries)
    }
    assert direct == {canonicalize_name(requirement.name) for requirement in asked}
    for requirement in asked:
        for pinned, _ in locked[canonicalize_name(requirement.name)]:
            (version,) = pinned.specifier
            assert version.operator == "=="
            assert requirement.specifier.contains(version.version), f"{requirement} is locked as {pinned}: make lock"


def test_every_locked_package_has_hashes() -> None:
    assert len(ENTRIES) > 100
    assert [entry.splitlines()[0] for entry in ENTRIES if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []


def test_lock_names_no_address() -> None:
    assert re.findall(r"\w+://\S+|--(?:extra-)?(?:index|find-links)\S*| @ \S+", LOCK) == []


def test_conda_installs_the_lock() -> None:
    """Pip takes hashes for all or for none: an editable folder beside the lock would fail."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.lock"]
    (python,) = (e for e in environment["dependencies"] if isinstance(e, str) and e.startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))
