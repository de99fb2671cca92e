"""Table 1 and the flow of chapter 1."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from helpers import ingest, narrate, quality, treatment
from helpers.disclosure import in_text
from helpers.study import VOCABULARY, Privacy

LABELS = {"control": "Control", "treatment": "Dupilumab", "comparator": "Cyclosporine", "case": "AD"}


@pytest.fixture
def people() -> pd.DataFrame:
    """Under treatment older, sicker and more often male than under the comparator; controls younger than both."""
    rng = np.random.default_rng(1)
    who = np.repeat(["control", "treatment", "comparator"], [30, 24, 12])
    older, male = {"control": 0, "treatment": 9, "comparator": 3}, {"control": 0.5, "treatment": 0.8, "comparator": 0.3}
    frame = pd.DataFrame({"who": who, "age": [40 + older[w] + rng.normal(0, 6) for w in who]})
    frame["sex"] = pd.Categorical(np.where(rng.random(66) < [male[w] for w in who], "m", "f"))
    frame["easi"] = np.where(
        frame["who"].eq("control"), np.nan, rng.normal(20, 5, 66) + 4 * frame["who"].eq("treatment")
    )
    return frame


def test_standardised_differences_of_table_1_and_of_the_arms_have_one_sign_and_unit(people):
    table = quality.table_one(people, ["age", "sex", "easi"], LABELS).set_index(["characteristic", "level"])
    arms = people[people["who"].ne("control")].assign(treated=lambda p: p["who"].eq("treatment"))
    even = 1 / arms.groupby("treated")["treated"].transform("size")
    beside = treatment.balance(arms, ["age", "sex", "easi"], even).set_index("covariate")
    column = table["SMD: Dupilumab minus Cyclosporine"]
    for row, covariate in {("age", ""): "age", ("sex", "m"): "sex: m", ("easi", ""): "easi"}.items():
        assert float(column[row]) == pytest.approx(beside.loc[covariate, "unweighted"], abs=5e-4), covariate
        assert float(column[row]) > 0.3
    assert float(column["sex", "f"]) == -float(column["sex", "m"])
    assert beside["n"].tolist() == [36] * 3
    assert float(table.loc[("age", ""), "SMD: Dupilumab minus Control"]) > 0.5  # patients minus controls
    assert table.loc[("easi", ""), "SMD: Dupilumab minus Control"] == ""  # never recorded in controls
    assert [c for c in table if c.startswith("SMD")] == [
        "SMD: Dupilumab minus Control",
        "SMD: Cyclosporine minus Control",
        "SMD: Dupilumab minus Cyclosporine",
    ]
    assert table.loc[("n", ""), ["Control", "Dupilumab", "Cyclosporine"]].tolist() == ["30", "24", "12"]


def test_table_1_tells_no_difference_of_a_group_of_hidden_size(people):
    few = people[people["who"].ne("comparator") | (people.groupby("who").cumcount() < 5)]
    table = quality.table_one(few, ["age"], LABELS, Privacy(small_cells="suppress"))
    assert [c for c in table if c.startswith("SMD")] == ["SMD: Dupilumab minus Control"]
    assert table["Cyclosporine"].tolist() == ["≤7", "≤7"]


def test_table_1_tells_no_difference_that_would_tell_a_hidden_count(people):
    rare = people.assign(drug=np.where(people.groupby("who").cumcount() < 3, "yes", "no"))
    table = quality.table_one(rare, ["age", "drug"], LABELS, Privacy(small_cells="suppress"))
    told = table.set_index("characteristic")["SMD: Dupilumab minus Control"]
    assert told["age"] != ""
    assert (told["drug"] == "").all()


def swabs(*rows: tuple[str, str | None, int]) -> pd.DataFrame:
    """Subjects (their first letter tells their group), visits and the reads of each swab."""
    obs = pd.DataFrame(rows, columns=["subject", "visit", "depth"], index=[f"s{i}" for i in range(len(rows))])
    first = obs["subject"].str[0]
    arm = first.map({"t": "treatment", "p": "comparator"})
    group = first.map({"c": "control"}).fillna("case")
    kind = np.where(first.eq("n"), "negative", "sample")
    return obs.assign(
        visit=pd.Categorical(obs["visit"], VOCABULARY["visit"]),
        arm=arm,
        group=group,
        control_type=kind,
        site="arm",
        lesional=pd.array([pd.NA] * len(obs), "boolean"),
    )


def test_one_flow_leads_from_the_files_to_the_analysis_and_counts_people_once():
    obs = swabs(
        ("t1", "baseline", 90), ("t1", "followup", 90), ("t2", "baseline", 5), ("t2", "followup", 90),
        ("p1", "baseline", 40), ("t2", None, 90), ("c1", "baseline", 90), ("c2", None, 90), ("n1", None, 1),
    )  # fmt: skip
    obs.loc["s5", "arm"] = "comparator"  # at a visit that is left out, the files have t2 in another arm
    steps = [
        ("read", "all", obs["depth"] >= 0),
        ("visit", "no visit", obs["visit"].notna()),
        ("depth", "few", obs["depth"] > 9),
    ]
    kept, ledger, flow = ingest.follow(obs, steps)
    cohort = AnnData(sparse.csr_array(obs.loc[kept, ["depth"]].to_numpy(float)), obs=obs[kept])
    cohort = cohort[cohort.obs["control_type"].eq("sample")].copy()
    cohort.uns |= {"relative": False, "flow": flow.to_json(orient="records")}
    flow, ledger = quality.flow(ledger, cohort, "all", 50)
    assert flow["who"].tolist() == ["control", "treatment", "comparator"] * 5
    assert list(dict.fromkeys(flow["step"])) == ["read", "visit", "depth", "swabs", "rarefaction"]
    assert flow.groupby("step", sort=False)["people"].sum().tolist() == [5, 4, 4, 4, 3]
    assert flow.groupby("step", sort=False)["swabs"].sum().tolist() == [8, 6, 5, 5, 4]
    end = flow[flow["step"].eq("rarefaction")].set_index("who").drop(columns=["step", "reason"])
    assert end.loc["treatment"].tolist() == [2, 1, 2, 1, 3]  # people, baseline, followup, both, swabs
    assert end.loc["control"].tolist() == [1, 1, 0, 0, 1]
    assert flow[flow["step"].eq("read")].set_index("who").loc["comparator", "people"] == 1
    totals = ledger[ledger["group"].ne("negative control")].groupby("step", sort=False)[["swabs_before", "swabs_after"]]
    assert totals.sum().to_numpy().tolist() == [[8, 8], [8, 6], [6, 5], [5, 5], [5, 4]]
    told = narrate.flow(flow, LABELS | {"baseline": "month 0", "followup": "month 3"})
    assert "3 of 5 people and 4 of 8 swabs are analysed" in told
    assert "Dupilumab: 1 people at month 0, 2 people at month 3, 1 people at both" in told


@pytest.mark.parametrize("text", ["3 of 12 people", "3 people, 12 swabs", "n = 3 of 12 swabs"])
def test_no_count_of_a_flow_is_told_where_small_cells_are_suppressed(text):
    shown = in_text(text, Privacy(small_cells="suppress"))
    assert "≤7" in shown
    assert "12" not in shown
    assert "3" not in shown
