import json
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from helpers import estimates, taxa
from helpers.study import RANKS, Taxa


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


def test_a_taxon_is_tested_only_if_the_compared_swabs_have_it(staphylococci):
    species = taxa.aggregate(staphylococci, "species")
    assert "Staphylococcus hominis" in taxa.prevalent(species, 0.5)
    assert "Staphylococcus hominis" not in taxa.prevalent(species, 0.6)
    only = pd.Series([False, True], index=species.obs_names)
    assert taxa.prevalent(species, 0.1, among=only) == ["Actinobacteria (unnamed)", "Staphylococcus (unnamed)"]
    assert "Staphylococcus hominis" in taxa.prevalent(species, 0.6, among=~only[::-1])  # by name, not by place
    assert taxa.prevalent(species, 0.1, among=only & False) == []


ORGANELLES = [
    "Bacteria;Proteobacteria;Alphaproteobacteria;Rickettsiales;Mitochondria",  # SILVA
    "Bacteria;Cyanobacteria;Cyanobacteriia;Chloroplast",
    "Bacteria;Proteobacteria;Alphaproteobacteria;Rickettsiales;mitochondria;Zea",  # Greengenes: Zea is maize
    "Bacteria;Cyanobacteria;Chloroplast;Streptophyta",
    "Bacteria;Cyanobacteria_Chloroplast;Chloroplast;Chloroplast_or;Chloroplast_fa;Chloroplast_ge",  # mothur
]
BACTERIA = [
    "Bacteria;Cyanobacteria/Chloroplast;Cyanobacteria;Family I;;GpI",  # RDP
    "Bacteria;Proteobacteria;Alphaproteobacteria;Rickettsiales;Midichloriaceae;Midichloria;Midichloria mitochondrii",
    "Bacteria;Proteobacteria;Alphaproteobacteria;Rickettsiales;Rickettsiaceae;Rickettsia",
    "Bacteria",
    STAPH,
]


def test_organelles_are_part_of_the_whole_but_no_genera():
    counts = np.array([[90.0] * 5 + [1, 2, 3, 4, 5]] * 2)
    who = {"subject": list("ab"), "visit": "baseline", "group": "case", "arm": "treatment"}
    genus = taxa.aggregate(cohort_of(counts, ORGANELLES + BACTERIA, **who), "genus")
    bacteria = {"GpI", "Midichloria", "Rickettsia", "Bacteria (unnamed)", "Staphylococcus"}
    assert set(taxa.prevalent(genus, 0.5)) == bacteria
    assert len(taxa.organelles(genus)) == len(ORGANELLES)
    shares = taxa.relative_abundance(genus)
    assert shares.shape == (2, 10)
    assert taxa.clr(genus).sum(axis=1).tolist() == pytest.approx([0, 0])  # over all ten
    labels = {"treatment": "T", "baseline": "0"}
    bars = taxa.composition(shares, genus.obs, 3, labels, unlisted=taxa.organelles(genus))
    assert list(bars) == ["n", "Staphylococcus", "Bacteria (unnamed)", "Rickettsia", "Other"]
    assert bars["Other"].tolist() == pytest.approx([100 * 453 / 465])
    leading = taxa.leading(genus, genus, Taxa(genus="Staphylococcus"), shown=2)
    assert list(leading) == ["Staphylococcus", "Bacteria (unnamed)", "Rickettsia", "Other"]
    assert leading.sum(axis=1).tolist() == pytest.approx([100, 100])


def planted(seed: int) -> AnnData:
    """80 swabs, 20 taxa; taxon 0 is e² = 7.4 times as abundant in cases; depths differ."""
    rng = np.random.default_rng(seed)
    case = np.arange(80) < 40
    mean = np.exp(rng.normal(3, 0.7, 20))
    rates = mean * np.exp(rng.normal(0, 0.4, (80, 20))) * rng.lognormal(0, 0.5, (80, 1))
    rates[case, 0] *= np.exp(2)
    lineages = [f"B;P;C;O;F;Genus{j:02d};" for j in range(20)]
    return cohort_of(rng.poisson(rates), lineages, case=case, age=rng.normal(40, 10, 80))


@pytest.mark.parametrize("method", ["linda", "ancombc2"])
def test_a_planted_difference_is_found_and_little_else(method):
    genus = taxa.aggregate(planted(1), "genus")
    if method == "linda":
        table = taxa.linda(taxa.clr(genus).join(genus.obs), list(genus.var_names), "case", ["age"])
    else:
        table = taxa.ancombc2_contrasts(genus, "case", ["age"])
    table = table.set_index("taxon")
    assert table.loc["Genus00", "estimate"] == pytest.approx(2, abs=0.35)
    assert table.loc["Genus00", "ci_low"] < 2 < table.loc["Genus00", "ci_high"]
    assert table.loc["Genus00", "q_value"] < 1e-6
    assert (table.drop("Genus00")["q_value"] < 0.05).sum() <= 1


def test_linda_agrees_with_r():
    r = json.loads(Path("tests/oracle/taxa.json").read_text())
    counts = pd.read_csv("tests/oracle/counts.tsv", sep="\t", index_col=0)[r["taxa"]]
    obs = pd.read_csv("tests/oracle/metadata.tsv", sep="\t", index_col=0)
    table = taxa.clr(AnnData(counts.to_numpy(float), obs=obs, var=pd.DataFrame(index=counts.columns))).join(obs)
    first, last = (table[table["visit"].eq(v)].set_index("subject") for v in ("baseline", "followup"))
    baseline = first.assign(case=first["group"].eq("case"))
    change = (last[r["taxa"]] - first[r["taxa"]]).join(first[["arm", "age"]])[first["group"].eq("case")]
    change["treated"] = change["arm"].eq("treatment")
    for got, expected in (
        (taxa.linda(baseline, r["taxa"], "case", ["age", "sex"]), r["baseline"]),
        (taxa.linda_change(change, r["taxa"], "treated", ["age"]), r["arms"]),
        (taxa.linda_change(change[change["treated"]], r["taxa"]), r["within"]),
    ):
        assert (got["estimate"] + got["bias"]).to_numpy() == pytest.approx(expected["coefficient"], abs=1e-8)
        assert got["se"].to_numpy() == pytest.approx(expected["se"], abs=1e-8)
        assert got["bias"].iloc[0] == pytest.approx(expected["mode"], abs=1e-3)  # R's is the highest point of a grid


def closed(seed: int, n: int = 40, taxa_count: int = 40) -> pd.DataFrame:
    """CLR changes in which one dominant taxon falls by 4 under treatment and nothing else moves."""
    rng = np.random.default_rng(seed)
    treated = np.arange(n) < n // 2
    log = rng.normal(0, 0.5, (n, taxa_count))
    log[:, :4] -= 4 * treated[:, None]
    names = [f"t{j}" for j in range(taxa_count)]
    return pd.DataFrame(log - log.mean(axis=1, keepdims=True), columns=names).assign(treated=treated)


def test_the_mode_takes_off_what_closure_adds():
    names = [f"t{j}" for j in range(40)]
    tables = [taxa.linda_change(closed(seed), names, "treated").set_index("taxon") for seed in range(60)]
    null = [t.drop(index=names[:4]) for t in tables]
    raw = np.mean([t["estimate"] + t["bias"] for t in null])
    assert raw == pytest.approx(0.4, abs=0.05)  # four taxa in forty fall by four: all others seem to rise
    assert np.mean([t["estimate"] for t in null]) == pytest.approx(0, abs=0.05)
    found = [t.index[t["q_value"] < 0.05] for t in tables]
    false = [np.mean([name not in names[:4] for name in f]) for f in found]
    assert all(set(names[:4]) <= set(f) for f in found)
    assert np.mean(false) < 0.05 + 3 * np.std(false) / np.sqrt(60)


def test_linda_of_what_cannot_be_estimated_is_an_empty_table():
    data = closed(1)
    names = [f"t{j}" for j in range(40)]
    for got in (
        taxa.linda_change(data, names[:4], "treated"),
        taxa.linda_change(data.assign(treated=True), names, "treated"),
        taxa.linda_change(data.head(2), names),
        taxa.ancombc2_contrasts(taxa.aggregate(planted(1), "genus")[:, :3], "case"),
    ):
        assert got.empty
        assert got["q_value"].dtype == float
    assert taxa.agreement(taxa.linda(data, [], "treated"), taxa.linda(data, [], "treated")).empty


def seen_twice(seed: int, n: int = 60) -> AnnData:
    """Counts of patients seen twice; under treatment taxon 0 falls by 2 on the log scale and taxon 1 rises by 2."""
    rng = np.random.default_rng(seed)
    treated = np.arange(n) < n // 2
    own = rng.normal(5, 0.7, (n, 12))
    later = own + treated[:, None] * np.array([-2, 2] + [0] * 10)
    log = np.vstack([own, later]) + rng.normal(0, 0.4, (2 * n, 12))
    obs = {
        "subject": [f"p{i}" for i in range(n)] * 2,
        "visit": ["baseline"] * n + ["followup"] * n,
        "arm": list(np.where(treated, "treatment", "comparator")) * 2,
    }
    return cohort_of(rng.poisson(np.exp(log)), [f"B;P;C;O;F;Genus{j:02d};" for j in range(12)], **obs)


@pytest.mark.parametrize("between_arms", [True, False])
def test_dirichlet_multinomial_mixed_model_finds_the_change(between_arms):
    genus = taxa.aggregate(seen_twice(1), "genus")
    swabs = genus if between_arms else genus[genus.obs["arm"].eq("treatment")]
    table = taxa.dirmult_lme_change(swabs, between_arms, seed=1).set_index("taxon")
    assert table["estimate"].head(2).tolist() == pytest.approx([-2, 2], abs=0.5)
    assert list(table.index[table["q_value"] < 0.01]) == ["Genus00", "Genus01"]
    again = taxa.dirmult_lme_change(swabs, between_arms, seed=1).set_index("taxon")
    pd.testing.assert_frame_equal(table, again)


def test_the_mixed_model_wants_patients_with_both_visits_in_both_arms():
    genus = taxa.aggregate(seen_twice(1), "genus")
    assert taxa.dirmult_lme_change(genus[genus.obs["visit"].eq("baseline")], seed=1).empty
    assert taxa.dirmult_lme_change(genus[genus.obs["arm"].eq("treatment")], True, seed=1).empty


def test_ancombc2_interval_and_p_value_are_of_the_same_test():
    table = taxa.ancombc2_contrasts(taxa.aggregate(planted(2), "genus"), "case")
    excludes = (table["ci_low"] > 0) | (table["ci_high"] < 0)
    assert (excludes == (table["p_value"] < 0.05)).all()


def test_q_values_are_benjamini_hochberg_over_what_was_tested():
    rng = np.random.default_rng(3)
    pairs = pd.DataFrame(rng.normal(0.4, 1, (30, 5)), columns=list("abcde")).assign(constant=1.0)
    table = taxa.linda_change(pairs, [*"abcde", "constant"]).set_index("taxon")
    assert np.isnan(table.loc["constant", "q_value"])
    expected = stats.false_discovery_control(table.loc[list("abcde"), "p_value"])
    assert table.loc[list("abcde"), "q_value"].tolist() == pytest.approx(expected.tolist())


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


def test_presence_is_compared_by_odds_ratio_with_the_counts_behind_it():
    measure = "pathogen_present"
    labels = {"case": "AD", "control": "C", "treatment": "T", "comparator": "P", "baseline": "0", "followup": "3"}

    def people(who: str, visit: str, present: list[float]) -> pd.DataFrame:
        subjects = [f"{who}{i}" for i in range(len(present))]
        return pd.DataFrame({"subject": subjects, "who": who, "visit": visit, "pathogen_present": present})

    visits = pd.concat(
        [
            people("control", "baseline", [1.0] * 4 + [0.0] * 6),
            people("treatment", "baseline", [0.5] * 6),  # in one of two swabs: present
            people("comparator", "baseline", [1.0] * 4),
            people("treatment", "followup", [1.0] + [0.0] * 4 + [np.nan]),
            people("comparator", "followup", [0.5] * 3 + [0.0]),
        ],
        ignore_index=True,
    ).assign(case=lambda v: v["who"].ne("control"))
    table = taxa.presence_contrasts(visits, labels)
    # With one binary term Firth's odds ratio has 1/2 added to each cell: 10/0 against 4/6, and 1/4 against 3/1;
    # presence at baseline is the same in everybody who has a follow-up, and drops out.
    assert table["comparison"].tolist() == ["AD against C, 0", "T against P, 3, given presence at 0"]
    assert table["estimate"].tolist() == pytest.approx([10.5 * 6.5 / (0.5 * 4.5), 1.5 * 1.5 / (4.5 * 3.5)], rel=1e-3)
    counts = table[["present", "of", "reference_present", "reference_of", "n", "n_dropped"]]
    assert counts.to_numpy().tolist() == [[10, 10, 4, 10, 20, 0], [1, 5, 3, 4, 9, 1]]
    visits.loc[visits["subject"].isin(["treatment1", "comparator3"]) & visits["visit"].eq("baseline"), measure] = 0.0
    start, end = (visits[visits["visit"].eq(v)].set_index("subject") for v in ("baseline", "followup"))
    seen = end.dropna(subset=measure).join(start[measure], rsuffix="_0")
    arms = pd.DataFrame(
        {"later": seen[measure] > 0, "treated": seen["who"].eq("treatment"), "y0": seen[f"{measure}_0"] > 0}
    )
    expected = estimates.firth_odds_ratio(arms, "later", "treated", ["y0"])
    got = taxa.presence_contrasts(visits, labels).loc[1, list(estimates.ESTIMATE)].drop("n_dropped")
    assert got.tolist() == pytest.approx([expected[k] for k in got.index], nan_ok=True)
    unknown = taxa.presence_contrasts(visits.assign(pathogen_present=np.nan), labels)
    assert unknown["estimate"].isna().all()
    assert unknown["of"].tolist() == [0, 0]
