import gc
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ORACLE = Path(__file__).parent / "oracle"
#: Generated cases, by what was generated and what came of it.
CASES: Counter[tuple[str, str]] = Counter()


#: What takes longest comes first, so that no process is left alone with it at the end.
LONGEST = [
    "browser", "validation", "ipynb", "whole_report", "interruption", "hostile", "provenance", "draft", "report",
    "multiverse", "shapes",
]  # fmt: skip
#: Files whose tests share no fixture that takes long: each goes where there is nothing to do.
APART = {"tests/test_hostile.py", "tests/test_shapes.py"}


def together(nodeid: str) -> str:
    """The name of those tests that one process does, in their order: for the most part, a file's."""
    file, _, test = nodeid.partition("::")
    if file.endswith(".ipynb"):
        return "notebooks"  # one needs the results of those before
    if file in APART:
        return nodeid
    study = re.search(r"\[(demo|khadka2021)", test) if file == "tests/test_browser.py" else None
    return f"{file}, {study[1]}" if study else file  # two reports


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, they are handed out in their order, all that stay together at once."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False  # by how many they are, which says little
    return Together(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest first, where tests run in several processes."""
    if hasattr(config, "workerinput"):
        rank = {part: i for i, part in enumerate(LONGEST)}
        items.sort(key=lambda item: min((i for part, i in rank.items() if part in item.path.name), default=len(rank)))


def pytest_collection_finish() -> None:
    """What was imported stays: no search for garbage need look through it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the cases to the process that prints the summary, where tests run in several."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cases"] = [[*key, n] for key, n in CASES.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect them there."""
    for kind, result, n in getattr(node, "workeroutput", {}).get("cases", []):
        CASES[kind, result] += n


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many cases were generated."""
    if CASES:
        each = ", ".join(f"{kind} {result} {n:,}" for (kind, result), n in sorted(CASES.items()))
        terminalreporter.write_line(f"generated cases: {CASES.total():,} ({each})")


@pytest.fixture(scope="session")
def models_oracle() -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """What lm, geepack and lme4 say; the visits, and the patients with both: tests/oracle/README.md."""
    r = json.loads((ORACLE / "models.json").read_text())
    visits = pd.read_csv(ORACLE / "metadata.tsv", sep="\t", index_col=0).assign(shannon=r["shannon"])
    visits["case"] = visits["group"].eq("case")
    first, last = (visits[visits["visit"].eq(v)].set_index("subject") for v in ("baseline", "followup"))
    pairs = first[first["case"]].assign(
        y0=first["shannon"],
        y1=last["shannon"],
        change=last["shannon"] - first["shannon"],
        treated=first["arm"].eq("treatment"),
        improvement=100 * (first["easi"] - last["easi"]) / first["easi"],
    )
    return r, visits, pairs.reset_index()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A Dask scheduler and two worker processes on 127.0.0.1."""
    file = tmp_path / "scheduler.json"
    start = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [
        *start, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)
    ]  # fmt: skip
    worker = [
        *start, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--local-directory",
        str(tmp_path),
    ]  # fmt: skip
    processes = [subprocess.Popen(command, **quiet) for command in (scheduler, worker, worker)]  # type: ignore[call-overload]
    try:
        for _ in range(300):
            if file.is_file() and file.read_text().strip():
                break
            subprocess.run([sys.executable, "-c", "import time; time.sleep(0.1)"], check=True)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(20)
