import json

import numpy as np
import pandas as pd
import pytest
from conftest import ORACLE

from helpers import sensitivity
from helpers.estimates import mean_change

R = json.loads((ORACLE / "sensitivity.json").read_text())
RESAMPLING = {"bootstraps": 499, "seed": 1}


def change(pairs: pd.DataFrame) -> dict[str, float]:
    return mean_change(pairs["change"])


# ---------------------------------------------------------------- an unmeasured cause


def test_the_robustness_values_are_those_of_the_paper_and_of_a_search():
    # Cinelli & Hazlett 2020, section 5: violence in Darfur.
    assert sensitivity.robustness_value(4.18, 783) == pytest.approx(0.139, abs=0.0005)
    assert sensitivity.robustness_value(-4.18, 783, alpha=0.05) == pytest.approx(0.076, abs=0.0005)
    for row in R["robustness"]:
        got = sensitivity.robustness_value(row["t"], row["df"], alpha=row["alpha"])
        assert got == pytest.approx(row["value"], abs=1e-6), row
    # Halving a coefficient is as hard as taking one of half the size to zero.
    half = sensitivity.robustness_value(5, 40, q=0.5, alpha=0.05)
    assert half == sensitivity.robustness_value(2.5, 40, alpha=0.05) > 0
    assert sensitivity.robustness_value(1.9, 40, alpha=0.05) == 0


def test_the_strength_of_covariates_agrees_with_nested_models_in_r(models_oracle):
    pairs = models_oracle[2].rename(columns={"y1": "S. aureus"}).assign(one=1.0)
    got = sensitivity.strength_of(pairs, "S. aureus", "treated", ["y0", "age", "one", "sex", "batch"])
    assert got["covariate"].tolist() == list(R["strength"])
    for row in got.itertuples():
        expected = R["strength"][row.covariate]
        assert (row.outcome, row.term) == pytest.approx((expected["outcome"], expected["term"]), abs=1e-9)
    for cannot in (pairs.assign(treated=True), pairs.head(7)):
        assert sensitivity.strength_of(cannot, "S. aureus", "treated", ["y0", "age", "sex", "batch"]).empty


def test_a_covariate_bounds_what_its_unmeasured_twin_removes():
    # Four columns that are exactly uncorrelated; the twin does in all what the measured one does.
    columns = np.random.default_rng(1).normal(size=(80, 4))
    measured, twin, e, u = np.linalg.qr(columns - columns.mean(axis=0))[0].T
    term = 0.5 * (measured + twin) + e
    data = pd.DataFrame({"measured": measured, "term": term, "y": 2 * term + 0.7 * (measured + twin) + 3 * u})
    seen = np.linalg.lstsq(data[["term", "measured"]].to_numpy(), data["y"].to_numpy())[0][0]
    got = sensitivity.strength_of(data, "y", "term", ["measured"])
    assert got.loc[0, "removes"] == pytest.approx((seen - 2) / seen, rel=1e-6)
