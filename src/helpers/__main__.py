"""Command line of the report's steps, which the Makefile runs from the project's root: each by make's word for it."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from helpers.errors import StudyError
from helpers.files import DEMO, REPORTS, unwritable

#: An argument of a step: its name on the command line, and what argparse is to know of it.
Argument = tuple[str, dict[str, Any]]


def _argument(name: str, **told: Any) -> Argument:
    return name, told


STUDY = _argument("study", help="name of a folder in data/")
SET = _argument("--set", default="", metavar="TEXT", help='such as "permutations=9999 alpha=0.01"')


class Step(NamedTuple):
    """A step: what it does, the function that does it, and the arguments that this is called with, in their order."""

    help: str
    #: ``module:name`` in this package: imported if the step is chosen, since most need much that the others do not.
    function: str
    arguments: tuple[Argument, ...] = ()

    def load(self) -> Callable[..., object]:
        """The function; what it returns is printed."""
        module, _, name = self.function.partition(":")
        function: Callable[..., object] = getattr(import_module(f"helpers.{module}"), name)
        return function


STEPS = {
    "study": Step(
        "draft the study.yaml of a new study from its files",
        "intake.draft:draft_study",
        (
            STUDY,
            _argument(
                "--table", required=True, help="counts: BIOM, .qza, text, or R's or AnnData's object with all there is"
            ),
            _argument("--metadata", default="", help="a row a swab: text, if there is a file"),
            _argument("--taxonomy", default="", help="lineages of the features, if there is a file"),
            _argument("--tree", default="", help="Newick or .qza, if there is one"),
        ),
    ),
    "check": Step(
        "tell all problems of a study's files at once, or what the cohort is and can test",
        "intake.inspection:inspect",
        (STUDY, SET),
    ),
    "parameters": Step(
        "validate a study, its parameters and its input files, before anything is run",
        "run.parameters:write_parameters",
        (STUDY, SET),
    ),
    "run": Step(
        "run one notebook",
        "run.execution:run",
        (STUDY, _argument("notebook", help="name without suffix, such as 02_diversity")),
    ),
    "site": Step(
        "build the HTML report from the notebooks that were run",
        "site.build:build_site",
        (STUDY, _argument("--against", default="", metavar="FOLDER", help="results of an earlier run to compare with")),
    ),
    "pdf": Step("print the report to one PDF", "site.pdf:print_report", (STUDY,)),
    "share": Step("pack the report in one file", "site.archive:share", (STUDY,)),
    "reference": Step(
        "run the notebooks in place with their defaults, and print what changed", "site.reference_outputs:reference"
    ),
    "data": Step("fetch a study's public files", "intake.fetch:fetch", (STUDY,)),
    "simulate": Step(
        "write the files of the demo study",
        "simulation.cohort:simulate",
        (_argument("folder", nargs="?", default=DEMO, help="where to, if not there"),),
    ),
    "validate": Step(
        "try the claims' tests on simulated cohorts",
        "simulation.performance:write_validation",
        (_argument("runs", type=int, help="number of cohorts a scenario"),),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step of the report, by the arguments of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description="One step of the report.")
    commands = parser.add_subparsers(dest="step", required=True)
    for name, step in STEPS.items():
        command = commands.add_parser(name, help=step.help)
        for argument, told in step.arguments:
            command.add_argument(argument, **told)
    chosen = vars(parser.parse_args(arguments))
    step = STEPS[chosen["step"]]
    try:
        said = step.load()(*(chosen[argument.lstrip("-")] for argument, _ in step.arguments))
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
