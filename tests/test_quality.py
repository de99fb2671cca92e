"""Table 1 and the flow of chapter 1."""

import numpy as np
import pandas as pd
import pytest

from helpers import quality, treatment
from helpers.study import Privacy

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
