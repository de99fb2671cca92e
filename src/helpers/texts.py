"""The YAML files of this package: texts and tables that stand beside the code. Without imports of packages."""

from functools import cache
from pathlib import Path
from typing import Any


@cache
def packaged(file: str | Path) -> Any:
    """What a YAML file of this package says, by its path in there; read by a parser in C, several times as fast."""
    import yaml

    text = Path(__file__).parent.joinpath(file).read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
