from math import comb

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from helpers import taxa
from helpers.study import RANKS


def cohort_of(counts, lineages: list[str], **obs) -> AnnData:
    names = [f"f{j}" for j in range(len(lineages))]
    var = pd.DataFrame([(line.split(";") + [""] * 7)[:7] for line in lineages], index=names, columns=list(RANKS))
    counts = np.asarray(counts, float)
    return AnnData(counts, obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(len(counts))]), var=var)


STAPH = "Bacteria;Firmicutes;Bacilli;Bacillales;Staphylococcaceae;Staphylococcus"


@pytest.fixture
def staphylococci() -> AnnData:
    lineages = [
        f"{STAPH};Staphylococcus aureus",
        f"{STAPH};Staphylococcus aureus",
        STAPH,
        f"{STAPH};Staphylococcus hominis",
        "Bacteria;Actinobacteria",
    ]
    return cohort_of([[10, 5, 15, 20, 50], [0, 0, 40, 0, 60]], lineages)


def test_aggregation_keeps_every_read_and_names_the_unnamed(staphylococci):
    species = taxa.aggregate(staphylococci, "species")
    assert species.to_df().loc["s0"].to_dict() == {
        "Actinobacteria (unnamed)": 50,
        "Staphylococcus (unnamed)": 15,
        "Staphylococcus aureus": 15,
        "Staphylococcus hominis": 20,
    }
    genus = taxa.aggregate(staphylococci, "genus")
    assert taxa.relative_abundance(genus).loc["s1", "Staphylococcus"] == pytest.approx(40)
    assert genus.X.sum() == species.X.sum() == staphylococci.X.sum()


def test_clr_and_log_ratio_by_hand(staphylococci):
    species = taxa.aggregate(staphylococci, "species")
    logs = np.log(np.array([50, 15, 15, 20]) + 0.5)
    assert taxa.clr(species).loc["s0", "Staphylococcus hominis"] == pytest.approx(logs[3] - logs.mean())
    ratio = taxa.log_ratio(species, "Staphylococcus aureus", "Staphylococcus hominis")
    assert ratio["s0"] == pytest.approx(np.log(15.5 / 20.5))
    assert ratio["s1"] == 0  # neither is seen
    assert taxa.counts_of(species, "Nothing known").tolist() == [0, 0]


def test_unnamed_reads_move_to_the_pathogen_and_none_is_lost(staphylococci):
    species = taxa.aggregate(staphylococci, "species")
    moved = taxa.reassign_unnamed(species, "Staphylococcus", "Staphylococcus aureus")
    assert taxa.counts_of(moved, "Staphylococcus aureus").tolist() == [30, 40]
    assert moved.X.sum(axis=1).tolist() == species.X.sum(axis=1).tolist()
    assert taxa.counts_of(species, "Staphylococcus aureus").tolist() == [15, 0]  # the original is untouched


def test_prevalence_threshold(staphylococci):
    species = taxa.aggregate(staphylococci, "species")
    assert "Staphylococcus hominis" in taxa.prevalent(species, 0.5)
    assert "Staphylococcus hominis" not in taxa.prevalent(species, 0.6)


def planted(seed: int) -> AnnData:
    """80 swabs, 20 taxa; taxon 0 is e² = 7.4 times as abundant in cases; depths differ."""
    rng = np.random.default_rng(seed)
    case = np.arange(80) < 40
    mean = np.exp(rng.normal(3, 0.7, 20))
    rates = mean * np.exp(rng.normal(0, 0.4, (80, 20))) * rng.lognormal(0, 0.5, (80, 1))
    rates[case, 0] *= np.exp(2)
    lineages = [f"B;P;C;O;F;Genus{j:02d};" for j in range(20)]
    return cohort_of(rng.poisson(rates), lineages, case=case, age=rng.normal(40, 10, 80))


@pytest.mark.parametrize("method", ["clr", "ancombc2"])
def test_a_planted_difference_is_found_and_little_else(method):
    genus = taxa.aggregate(planted(1), "genus")
    if method == "clr":
        table = taxa.clr_contrasts(taxa.clr(genus).join(genus.obs), list(genus.var_names), "case", ["age"])
    else:
        table = taxa.ancombc2_contrasts(genus, "case", ["age"])
    table = table.set_index("taxon")
    assert table.loc["Genus00", "estimate"] == pytest.approx(2, abs=0.35)
    assert table.loc["Genus00", "ci_low"] < 2 < table.loc["Genus00", "ci_high"]
    assert table.loc["Genus00", "q_value"] < 1e-6
    assert (table.drop("Genus00")["q_value"] < 0.05).sum() <= 1


def test_ancombc2_interval_and_p_value_are_of_the_same_test():
    table = taxa.ancombc2_contrasts(taxa.aggregate(planted(2), "genus"), "case")
    excludes = (table["ci_low"] > 0) | (table["ci_high"] < 0)
    assert (excludes == (table["p_value"] < 0.05)).all()


def test_q_values_are_benjamini_hochberg_over_what_was_tested():
    rng = np.random.default_rng(3)
    pairs = pd.DataFrame(rng.normal(0.4, 1, (30, 5)), columns=list("abcde")).assign(constant=1.0)
    table = taxa.clr_changes(pairs, [*"abcde", "constant"]).set_index("taxon")
    assert np.isnan(table.loc["constant", "q_value"])
    expected = stats.false_discovery_control(table.loc[list("abcde"), "p_value"])
    assert table.loc[list("abcde"), "q_value"].tolist() == pytest.approx(expected.tolist())


def test_rank_changes_see_a_shift_and_survive_a_taxon_that_never_moves():
    rng = np.random.default_rng(4)
    pairs = pd.DataFrame({"down": rng.normal(-1, 1, 40), "still": np.zeros(40)})
    table = taxa.rank_changes(pairs, ["down", "still"]).set_index("taxon")
    assert table.loc["down", "p_value"] < 0.001
    assert np.isnan(table.loc["still", "p_value"])


def test_agreement_names_every_case():
    first = pd.DataFrame({"taxon": list("abcdef"), "estimate": [1, 1, 1, 1, 1, 1], "q_value": [0.01] * 3 + [0.5] * 3})
    second = pd.DataFrame(
        {"taxon": list("abcde"), "estimate": [1, -1, 1, 1, 1], "q_value": [0.01, 0.01, 0.5, 0.01, 0.5]}
    )
    table = taxa.agreement(first, second).set_index("taxon")
    assert table["agreement"].tolist() == ["both", "opposite", "first only", "second only", "neither", "one method"]


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    before = pd.Series([True] * 9 + [False] * 1 + [True] * 5 + [False] * 5)
    after = pd.Series([False] * 9 + [True] * 1 + [True] * 5 + [False] * 5)
    got = taxa.presence_change(before, after)
    assert (got["lost"], got["gained"], got["present_before"], got["present_after"]) == (9, 1, 14, 6)
    assert got["p_value"] == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
