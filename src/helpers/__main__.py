"""Command line of the report's steps, which the Makefile runs from the project's root."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.files import unwritable
from helpers.intake.fetch import fetch_data
from helpers.run.execution import run
from helpers.run.parameters import EXAMPLE, check
from helpers.site.archive import share
from helpers.site.pdf import print_report
from helpers.study import StudyError, load_study

STEPS = {
    "study": "draft the study.yaml of a new study from its files",
    "inspect": "tell all problems of a study's files at once, or what the cohort is and can test",
    "check": "validate a study, its parameters and its input files",
    "run": "run one notebook",
    "site": "build the HTML report from the notebooks that were run",
    "pdf": "print the report to one PDF",
    "share": "pack the report in one file",
    "reference": "run the notebooks in place with their defaults, and print what changed",
    "data": "fetch a study's public files",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step of the report.

    Parameters
    ----------
    arguments : sequence of str, optional
        Of the command line.

    Returns
    -------
    int
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m helpers", description="One step of the report.")
    steps = parser.add_subparsers(dest="step", required=True)
    for step, what in STEPS.items():
        command = steps.add_parser(step, help=what)
        if step != "reference":
            command.add_argument("study", help="name of a folder in data/")
        if step == "run":
            command.add_argument("notebook", help="name without suffix, such as 02_diversity")
        if step == "study":
            command.add_argument("--table", required=True, help="counts: BIOM, .qza or text")
            command.add_argument("--metadata", required=True, help="a row a swab: text")
            command.add_argument("--taxonomy", default="", help="lineages of the features, if there is a file")
            command.add_argument("--tree", default="", help="Newick or .qza, if there is one")
        if step == "site":
            command.add_argument(
                "--against", default="", metavar="FOLDER", help="results of an earlier run to compare with"
            )
        if step in ("check", "inspect"):
            command.add_argument("--set", default="", metavar="TEXT", help=EXAMPLE)
    chosen = parser.parse_args(arguments)
    try:
        _step(chosen)
    except StudyError as e:
        print(e, file=sys.stderr)
        return 1
    except OSError as e:
        print(unwritable(e, Path(e.filename2 or e.filename or "reports")), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _step(chosen: argparse.Namespace) -> None:
    if chosen.step == "study":
        from helpers.intake.draft import draft_study

        print(draft_study(chosen.study, chosen.table, chosen.metadata, chosen.taxonomy, chosen.tree))
    elif chosen.step == "inspect":
        from helpers.intake.inspection import inspect

        print(inspect(chosen.study, chosen.set))
    elif chosen.step == "check":
        check(chosen.study, chosen.set)
    elif chosen.step == "run":
        run(chosen.study, chosen.notebook)
    elif chosen.step == "site":
        from helpers.site.build import build_site

        build_site(chosen.study, chosen.against)
    elif chosen.step == "pdf":
        print(print_report(chosen.study))
    elif chosen.step == "share":
        print(share(chosen.study))
    elif chosen.step == "data":
        fetch_data(load_study(Path("data") / chosen.study))
    else:
        from helpers.site.reference_outputs import reference

        reference()


if __name__ == "__main__":
    sys.exit(main())
