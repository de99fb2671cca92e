import hashlib
import re
from functools import lru_cache
from pathlib import Path

import biom
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse
from skbio import TreeNode

from helpers.ingest import build_cohort
from helpers.simulate import SimulatedCohort, Truth, catalogue, simulate_cohort, without_effects, write_study
from helpers.study import Settings, load_study

DATA = Path(__file__).parents[1] / "data"

#: Rows of the table in data/README.md: the number in the demo must lie in the band.
BANDS = {
    "*S. aureus*, AD, lesional, mean (%)": (30, 40),
    "*S. aureus*, AD, lesional, median (%)": (13, 29),
    "*S. aureus*, AD, non-lesional, mean (%)": (7, 19),
    "*S. aureus*, AD, non-lesional, median (%)": (3, 6),
    "*S. aureus*, healthy, mean (%)": (0.3, 1),
    "*S. aureus*, healthy, median (%)": (0, 0.05),
    "*Staphylococcus*, healthy, mean (%)": (9, 13),
    "*Staphylococcus*, healthy, median (%)": (3, 6),
    "Shannon, AD, mean (nats)": (2.2, 2.6),
    "Shannon, AD, median (nats)": (2.5, 2.9),
    "Shannon, healthy, mean (nats)": (2.8, 3.0),
    "*S. aureus*, month 3, dupilumab, median (%)": (0, 1),
    "Shannon, month 3, dupilumab, mean (nats)": (2.7, 3.3),
    "Depth, most / least reads (log10)": (2, 3),
    "Age of patients, mean (years)": (41, 44.5),
    "Age of patients, SD (years)": (12.5, 15.5),
    "Patients who are female (%)": (36, 44),
    "oSCORAD at baseline, mean": (38.5, 43),
    "oSCORAD at baseline, SD": (14.5, 18),
}


@lru_cache
def cohort(seed: int = Truth().seed, null: bool = False) -> SimulatedCohort:
    return simulate_cohort(without_effects(Truth()) if null else Truth(), seed)


def shannon(counts: np.ndarray) -> np.ndarray:
    p = counts / counts.sum(axis=1, keepdims=True)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)


def swabs(simulated: SimulatedCohort) -> pd.DataFrame:
    """One row a swab of at least 1,000 reads: metadata, Shannon of all its reads, shares in per cent."""
    counts = simulated.counts.toarray()
    lineage = simulated.taxonomy["Taxon"]
    table = simulated.metadata.assign(depth=counts.sum(axis=1), shannon=shannon(counts))
    for name, text in (("aureus", "s__Staphylococcus_aureus"), ("staphylococcus", "g__Staphylococcus;")):
        table[name] = 100 * counts[:, lineage.str.contains(text)].sum(axis=1) / table["depth"]
    return table[table["sample_type"].eq("swab") & table["depth"].ge(1000)]


def shape(simulated: SimulatedCohort) -> dict[str, float]:
    table = swabs(simulated)
    start = table[table["visit"].eq("M0")]
    ad, healthy = start[start["diagnosis"].eq("AD")], start[start["diagnosis"].eq("healthy")]
    lesional, clear = ad[ad["lesional"].eq("yes")], ad[ad["lesional"].eq("no")]
    later = table[table["visit"].eq("M3") & table["drug"].eq("dupilumab")]
    depth = simulated.counts.sum(axis=1)[simulated.metadata["sample_type"].eq("swab")]
    values = [
        lesional["aureus"].mean(), lesional["aureus"].median(), clear["aureus"].mean(), clear["aureus"].median(),
        healthy["aureus"].mean(), healthy["aureus"].median(),
        healthy["staphylococcus"].mean(), healthy["staphylococcus"].median(),
        ad["shannon"].mean(), ad["shannon"].median(), healthy["shannon"].mean(),
        later["aureus"].median(), later["shannon"].mean(), np.log10(depth.max() / depth.min()),
        ad["age"].mean(), ad["age"].std(), 100 * ad["sex"].eq("female").mean(),
        ad["oSCORAD"].mean(), ad["oSCORAD"].std(),
    ]  # fmt: skip
    return dict(zip(BANDS, map(float, values), strict=True))
