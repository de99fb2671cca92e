import json
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from helpers import estimates, taxa
from helpers.study import RANKS, Adjust, Taxa, load_study


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
    ratio = taxa.of_interest(taxa.aggregate(staphylococci, "genus"), species, Taxa())["log_ratio"]
    assert ratio["s0"] == pytest.approx(np.log(15.5 / 20.5))
    assert ratio["s1"] == 0  # neither is seen
    assert taxa.counts_of(species, "Nothing known").tolist() == [0, 0]


def test_zeros_are_replaced_in_proportion(staphylococci):
    """Of four taxa, each that is not seen becomes 1/16 of the reads, which the others lose in proportion."""
    species = taxa.aggregate(staphylococci, "species")
    shares = species.X[1] / species.X[1].sum()
    logs = np.log(np.where(shares == 0, 1 / 16, shares * (1 - (shares == 0).sum() / 16)))
    assert taxa.clr(species, "multiplicative").iloc[1].tolist() == pytest.approx(list(logs - logs.mean()))


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


def test_leading_taxa_are_the_pathogen_then_other_named_species_then_the_rest_of_the_genus(staphylococci):
    genus, species = (taxa.aggregate(staphylococci, rank) for rank in ("genus", "species"))
    named = Taxa(genus="Staphylococcus", pathogen="Staphylococcus aureus")
    first = taxa.leading(genus, species, named, shown=1).iloc[0]
    assert first.tolist() == [15, 20, 15, 50, 0]
    assert list(first.index[:3]) == ["Staphylococcus aureus", "Staphylococcus hominis", "Staphylococcus (other)"]


def planted(seed: int) -> AnnData:
    """80 swabs, 20 taxa; taxon 0 is e² = 7.4 times as abundant in cases; depths differ."""
    rng = np.random.default_rng(seed)
    case = np.arange(80) < 40
    mean = np.exp(rng.normal(3, 0.7, 20))
    rates = mean * np.exp(rng.normal(0, 0.4, (80, 20))) * rng.lognormal(0, 0.5, (80, 1))
    rates[case, 0] *= np.exp(2)
    lineages = [f"B;P;C;O;F;Genus{j:02d};" for j in range(20)]
    return cohort_of(rng.poisson(rates), lineages, case=case, age=rng.normal(40, 10, 80))


def test_a_planted_difference_is_found_and_little_else():
    genus = taxa.aggregate(planted(1), "genus")
    table = taxa.linda(taxa.clr(genus).join(genus.obs), list(genus.var_names), "case", ["age"], alpha=0.05)
    table = table.set_index("taxon")
    assert table.loc["Genus00", "estimate"] == pytest.approx(2, abs=0.35)
    assert table.loc["Genus00", "ci_low"] < 2 < table.loc["Genus00", "ci_high"]
    assert table.loc["Genus00", "q_value"] < 1e-6
    assert list(table.index[table["found"]]) == ["Genus00"]


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
        (taxa.linda(baseline, r["taxa"], "case", ["age", "sex"], alpha=0.05), r["baseline"]),
        (taxa.linda(change, r["taxa"], "treated", ["age"], alpha=0.05), r["arms"]),
        (taxa.linda(change[change["treated"]], r["taxa"], alpha=0.05), r["within"]),
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
    tables = [taxa.linda(closed(seed), names, "treated", alpha=0.05).set_index("taxon") for seed in range(60)]
    null = [t.drop(index=names[:4]) for t in tables]
    raw = np.mean([t["estimate"] + t["bias"] for t in null])
    assert raw == pytest.approx(0.4, abs=0.05)  # four taxa in forty fall by four: all others seem to rise
    assert np.mean([t["estimate"] for t in null]) == pytest.approx(0, abs=0.05)
    found = [t.index[t["found"]] for t in tables]
    false = [np.mean([name not in names[:4] for name in f]) for f in found]
    assert all(set(names[:4]) <= set(f) for f in found)
    assert np.mean(false) < 0.05 + 3 * np.std(false) / np.sqrt(60)


def test_the_shorth_is_the_shortest_of_all_intervals_that_hold_more_than_half():
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=5 + seed)
        low, high = taxa._shorth(values)
        assert 2 * ((low <= values) & (values <= high)).sum() > len(values)
        others = [b - a for a in values for b in values if 2 * ((a <= values) & (values <= b)).sum() > len(values)]
        assert high - low == min(others)


def test_the_test_against_the_frame_is_that_of_a_minimal_difference():
    distance, se = np.array([0.0, -0.5, 1.5]), np.array([1.0, 0.2, 0.5])
    assert taxa._outside(distance, se, 30, 0.0) == pytest.approx(2 * stats.t.sf(abs(distance / se), 30))
    # At the limit of the null, |estimate| is as far out as what is seen in so many of the studies.
    draws = np.abs(0.4 + 0.5 * np.random.default_rng(1).standard_t(30, 400_000))
    assert taxa._outside(distance, se, 30, 0.4)[2] == pytest.approx((draws >= 1.5).mean(), abs=0.001)


def drifting(seed: int) -> pd.DataFrame:
    """Four taxa fall by 2, eight by 0.3; the 18 to which nothing happens seem to rise by 0 to 0.2, as rare taxa do."""
    rng = np.random.default_rng(seed)
    treated = np.arange(200) < 100
    shifts = np.r_[[-2.0] * 4, [-0.3] * 8, np.linspace(0, 0.2, 18)]
    names = [f"t{j}" for j in range(30)]
    values = rng.normal(0, 0.5, (200, 30)) + treated[:, None] * shifts
    return pd.DataFrame(values - values.mean(axis=1, keepdims=True), columns=names).assign(treated=treated)


def test_where_the_mode_is_off_the_frame_holds_the_false_discoveries():
    names = [f"t{j}" for j in range(30)]
    false: list[float] = []
    of_the_mode: list[float] = []
    for seed in range(40):
        table = taxa.linda(drifting(seed), names, "treated", alpha=0.05)
        plain = stats.false_discovery_control(2 * stats.t.sf(abs(table["estimate"] / table["se"]), table["df"])) < 0.05
        assert set(names[:4]) <= set(table.loc[table["found"], "taxon"])
        for hits, shares in ((table["found"], false), (plain, of_the_mode)):
            shares.append(hits[12:].sum() / hits.sum())
    assert np.mean(of_the_mode) > 0.08
    assert np.mean(false) < 0.05


def test_what_would_overturn_a_genus_takes_the_nearer_limit_to_zero():
    table = taxa.linda(drifting(1), [f"t{j}" for j in range(30)], "treated", alpha=0.05)
    found = table[table["found"]]
    nearer = np.where(found["estimate"] < 0, found["ci_high"], found["ci_low"])
    assert nearer + np.log(found["overturned"].to_numpy()) == pytest.approx(np.zeros(len(found)))
    assert (found["overturned"] > 1).tolist() == (found["estimate"] < 0).tolist()
    assert table.loc[~table["found"], "overturned"].isna().all()


def test_linda_of_what_cannot_be_estimated_is_an_empty_table():
    data = closed(1)
    names = [f"t{j}" for j in range(40)]
    for got in (
        taxa.linda(data, names[:4], "treated", alpha=0.05),
        taxa.linda(data.assign(treated=True), names, "treated", alpha=0.05),
        taxa.linda(data.head(2), names, alpha=0.05),
    ):
        assert got.empty
        assert got["q_value"].dtype == float


def test_q_values_are_benjamini_hochberg_over_what_was_tested():
    rng = np.random.default_rng(3)
    pairs = pd.DataFrame(rng.normal(0.4, 1, (30, 5)), columns=list("abcde")).assign(constant=1.0)
    table = taxa.linda(pairs, [*"abcde", "constant"], alpha=0.05).set_index("taxon")
    assert np.isnan(table.loc["constant", "q_value"])
    assert not table.loc["constant", "found"]
    expected = stats.false_discovery_control(table.loc[list("abcde"), "p_value"])
    assert table.loc[list("abcde"), "q_value"].tolist() == pytest.approx(expected.tolist())


def test_beside_each_genus_stands_who_of_those_compared_has_it():
    people = {"control": "abcd", "treatment": "efghm", "comparator": "ijkl"}
    rows = [
        {"subject": who, "visit": visit, "group": "control" if arm == "control" else "case", "arm": arm}
        for visit in ("baseline", "followup")
        for arm, each in people.items()
        for who in each
        if (who, visit) != ("h", "followup")  # lost
    ]
    rows += [rows[4]]  # e has two swabs at baseline
    obs = pd.DataFrame(rows).assign(age=40.0, arm=lambda t: t["arm"].where(t["arm"].ne("control")))
    counts = np.random.default_rng(1).integers(5, 50, (len(obs), 6))
    first = obs["visit"].eq("baseline") & obs.index.to_series().lt(len(obs) - 1)
    counts[first & obs["subject"].isin(list("aefh")), 0] = 0
    counts[obs["visit"].eq("followup") & obs["subject"].isin(list("egij")), 0] = 0
    genus = taxa.aggregate(
        cohort_of(counts, [f"B;P;C;O;F;Genus{j};" for j in range(6)], **obs.to_dict("list")), "genus"
    )
    study = load_study("data/demo").model_copy(update={"adjust": Adjust(group=["age"], arm=[])})
    tables = {name: t.set_index("taxon") for name, t in taxa.differential(genus, study, 0.1).items()}
    # e has it in one of two swabs; f and h do not, of nine patients; a does not, of four controls.
    counted = ["present", "of", "reference_present", "reference_of"]
    assert tables["group"].loc["Genus0", counted].tolist() == [7, 9, 3, 4]
    assert tables["group"].loc["Genus1", counted].tolist() == [9, 9, 4, 4]
    # h is lost: of e, f, g, m all but f have it before, f and m after.
    moved = ["present_before", "present_after", "gained", "lost", "n"]
    assert tables["change"].loc["Genus0", moved].tolist() == [3, 2, 1, 2, 4]
    assert tables["arms"].loc["Genus0", counted].tolist() == [2, 4, 2, 4]
    once = taxa.differential(genus[genus.obs["visit"].eq("baseline")], study, 0.1)
    assert [len(table) for table in once.values()] == [6, 0, 0]


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    before = pd.Series([True] * 9 + [False] * 1 + [True] * 5 + [False] * 5)
    after = pd.Series([False] * 9 + [True] * 1 + [True] * 5 + [False] * 5)
    got = taxa.presence_change(before, after)
    assert (got["lost"], got["gained"], got["present_before"], got["present_after"]) == (9, 1, 14, 6)
    assert got["p_value"] == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
    few = taxa.presence_change(before.head(4), after.head(4))
    assert (few["lost"], np.isnan(few["p_value"])) == (4, True)  # described, not tested


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
