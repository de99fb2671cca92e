"""Command line of the report's steps, which the Makefile runs from the project's root: each by make's word for it."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from helpers.errors import StudyError
from helpers.files import REPORTS, unwritable
from helpers.texts import packaged


class Step(NamedTuple):
    """A step: what it does, the function that does it, and the arguments that this is called with, in their order."""

    help: str
    #: ``module:name`` in this package: imported if the step is chosen, since most need much that the others do not.
    function: str
    #: What argparse is to know of each, by its name on the command line.
    arguments: Mapping[str, dict[str, Any]] = {}

    def load(self) -> Callable[..., object]:
        """The function; what it returns is printed."""
        module, _, name = self.function.partition(":")
        function: Callable[..., object] = getattr(import_module(f"helpers.{module}"), name)
        return function


_TOLD = packaged("steps.yaml")
STEPS = {name: Step(**told) for name, told in _TOLD.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step of the report, by the arguments of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description="One step of the report.")
    commands = parser.add_subparsers(dest="step", required=True)
    for name, step in STEPS.items():
        command = commands.add_parser(name, help=step.help)
        command.register("type", "int", int)
        for argument, told in step.arguments.items():
            command.add_argument(argument, **told)
    chosen = vars(parser.parse_args(arguments))
    step = STEPS[chosen["step"]]
    try:
        said = step.load()(*(chosen[argument.lstrip("-")] for argument in step.arguments))
        if said is not None:
            print(said)
    except StudyError as e:
        print(e, file=sys.stderr)
        return 1
    except OSError as e:
        print(unwritable(e, Path(e.filename2 or e.filename or REPORTS)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
