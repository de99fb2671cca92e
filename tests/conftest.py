import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ORACLE = Path(__file__).parent / "oracle"
#: Generated cases, by what was generated and what came of it.
CASES: Counter[tuple[str, str]] = Counter()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, each file's stay together in their order, and so do all notebooks."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "notebooks" if file.endswith(".ipynb") else file  # a notebook needs the results of those before

    return ByFile(config, log)


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
