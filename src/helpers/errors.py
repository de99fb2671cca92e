"""What a user is told: the one exception that is seen, and a collector of several. Without imports of packages."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers.texts import packaged

_TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """A text with escapes for what turns the direction of writing: unseen, it makes a name read as another."""
    return _TURNING.sub(lambda turning: f"\\u{ord(turning[0]):04x}", text)


class StudyError(Exception):
    """Something in the user's files that the user can mend: what is wrong, as a sentence without its full stop.

    Then the file; the column, row or key in it; what stands there; what should; what to do.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        where: str | None = None,
        found: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        parts = [f"{file}: {problem}" if file else problem]
        for label, value in (("where", where), ("found", found), ("expected", expected), ("fix", fix)):
            if value is not None:
                parts.append(f"  {label + ':':<10}{value}")
        super().__init__(visible("\n".join(parts)))
        self.problem = problem
        self.each = [self]

    @classmethod
    def of(cls, problem: str, file: str | Path | None = None, **values: Any) -> "StudyError":
        """What errors.yaml tells of a problem, filled in; where, found, expected and fix, if given, as they are."""
        told: dict[str, Any] = {
            part: text.format_map(values) for part, text in packaged("errors.yaml")[problem].items()
        }
        given = {part: values[part] for part in ("where", "found", "expected", "fix") if values.get(part)}
        return cls(file=file, **told | given)

    @classmethod
    def joined(cls, errors: Iterable["StudyError"]) -> "StudyError":
        """One error that tells them all, at least one."""
        each = [single for error in errors for single in error.each]
        if len(each) == 1:
            return each[0]
        joined = cls(f"{len(each)} problems\n\n" + "\n\n".join(map(str, each)))
        joined.each = each
        return joined


class Problems:
    """Collects the `StudyError` of each ``with`` block, so that a user is told of all problems at once."""

    def __init__(self) -> None:
        self.found: list[StudyError] = []

    def __enter__(self) -> "Problems":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, StudyError):
            self.found.append(error)
            return True
        return False

    def stop(self) -> None:
        """Raise what was collected, if anything was."""
        if self.found:
            raise StudyError.joined(self.found)
