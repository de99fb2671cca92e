"""Aggregation to a rank, taxa of interest, differential abundance."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats
from skbio.stats.composition import ancombc2, dirmult_lme
from skbio.stats.composition import clr as centred_log_ratio
from statsmodels.stats.contingency_tables import mcnemar

from helpers.estimates import ESTIMATE, adjusted_p, as_numbers, firth_odds_ratio, levels_in_use
from helpers.lineage import is_organelle
from helpers.study import RANKS, Study, Taxa
from helpers.visits import by_patient, changes, with_controls

#: Added to each rarefied count before a logarithm, since a zero has none.
PSEUDOCOUNT = 0.5

#: Whether a swab has a read of the pathogen, 1 or 0: described beside its abundance, in tables of its own.
PRESENT = "pathogen_present"

#: Columns of a second method's table.
METHOD = ("taxon", "estimate", "p_value", "q_value")


def taxon_names(var: pd.DataFrame, rank: str) -> pd.Series:
    """Name each feature at a rank; one without a name there is called after its lowest named rank above.

    Parameters
    ----------
    var : DataFrame
        Features x ranks, "" where not named.
    rank : str
        One of `helpers.study.RANKS`.

    Returns
    -------
    Series
        Such as ``Staphylococcus aureus``, ``Staphylococcus (unnamed)`` or ``Bacteria (unnamed)``.
    """
    ranks = list(RANKS[: RANKS.index(rank) + 1])
    names = var[rank].astype(str)
    above = pd.Series("", index=var.index)
    for higher in ranks[:-1]:
        above = var[higher].astype(str).where(var[higher].ne(""), above)
    return names.where(names.ne(""), above.replace("", "Unassigned") + " (unnamed)")


def aggregate(cohort: AnnData, rank: str) -> AnnData:
    """Sum the counts of all features of a taxon.

    Parameters
    ----------
    rank : str
        One of `helpers.study.RANKS`.

    Returns
    -------
    AnnData
        Swabs x taxa, ``X`` dense, named by `taxon_names`, sorted by name; ``uns["relative"]`` as of the cohort;
        ``var["organelle"]`` (bool): all of its features are of mitochondria or chloroplasts. Their reads are part of
        the whole, but no bacteria to be listed or tested.
    """
    counts = cohort.X.toarray() if hasattr(cohort.X, "toarray") else cohort.X
    names = taxon_names(cohort.var, rank).to_numpy()
    sums = pd.DataFrame(counts.T, columns=cohort.obs_names).groupby(names).sum().T
    organelle = pd.Series([is_organelle(ranks) for ranks in cohort.var[list(RANKS)].to_numpy()], dtype=bool)
    return AnnData(
        sums.to_numpy(float),
        obs=cohort.obs.copy(),
        var=pd.DataFrame({"organelle": organelle.groupby(names).all()}, index=sums.columns.astype(str)),
        uns={"relative": cohort.uns.get("relative", False)},
    )


def organelles(taxa: AnnData) -> list[str]:
    """Names of the taxa that are mitochondria or chloroplasts.

    Parameters
    ----------
    taxa : AnnData
        As from `aggregate`.
    """
    return list(taxa.var_names[taxa.var["organelle"]])


def relative_abundance(taxa: AnnData) -> pd.DataFrame:
    """Share of each taxon in the reads of each swab, in per cent.

    Parameters
    ----------
    taxa : AnnData
        As from `aggregate`.

    Returns
    -------
    DataFrame
        Swabs x taxa.
    """
    shares = 100 * taxa.X / taxa.X.sum(axis=1, keepdims=True)
    return pd.DataFrame(shares, index=taxa.obs_names, columns=taxa.var_names)


def clr(taxa: AnnData) -> pd.DataFrame:
    """Centred log-ratio of each taxon (natural logarithm), with `PSEUDOCOUNT` added to each count.

    Parameters
    ----------
    taxa : AnnData
        Counts rarefied to one depth and aggregated, so that a zero means the same in each swab.

    Returns
    -------
    DataFrame
        Swabs x taxa; NaN of relative abundances, in which a zero means something else in each swab.

    References
    ----------
    Aitchison, J R Stat Soc B 1982;44:139.
    """
    if taxa.uns.get("relative", False):
        return pd.DataFrame(np.nan, index=taxa.obs_names, columns=taxa.var_names)
    return pd.DataFrame(centred_log_ratio(taxa.X + PSEUDOCOUNT), index=taxa.obs_names, columns=taxa.var_names)


def counts_of(taxa: AnnData, name: str) -> pd.Series:
    """Reads of one taxon in each swab; zero if no swab has it.

    Parameters
    ----------
    taxa : AnnData
        As from `aggregate`.
    """
    values = taxa.X[:, taxa.var_names.get_loc(name)] if name in taxa.var_names else np.zeros(taxa.n_obs)
    return pd.Series(values, index=taxa.obs_names, name=name)


def log_ratio(taxa: AnnData, numerator: str, denominator: str) -> pd.Series:
    """Natural log ratio of two taxa, with `PSEUDOCOUNT` added to both.

    Parameters
    ----------
    taxa : AnnData
        As from `aggregate`.

    Returns
    -------
    Series
        One value a swab; it needs no reference frame, unlike an abundance (Morton et al., Nat Commun 2019;10:2719).
    """
    return np.log((counts_of(taxa, numerator) + PSEUDOCOUNT) / (counts_of(taxa, denominator) + PSEUDOCOUNT))


def of_interest(genus: AnnData, species: AnnData, taxa: Taxa) -> pd.DataFrame:
    """Measures of the taxa that study.yaml names.

    Parameters
    ----------
    genus, species : AnnData
        Rarefied counts aggregated to the two ranks.
    taxa : Taxa
        The names.

    Returns
    -------
    DataFrame
        Swabs x (``genus``, ``pathogen`` and ``commensal``, their CLR; ``log_ratio`` of pathogen to commensal;
        ``genus_share``, ``pathogen_share`` in per cent, ``pathogen_present`` as 0 or 1). A taxon that the taxonomy
        never names is NaN: absence of the name is not absence of the taxon. Of relative abundances all but the shares
        are NaN.
    """
    columns = {"genus": clr(genus).get(taxa.genus, np.nan)}
    columns |= {role: clr(species).get(getattr(taxa, role), np.nan) for role in ("pathogen", "commensal")}
    columns["genus_share"] = relative_abundance(genus).get(taxa.genus, np.nan)
    columns["pathogen_share"] = relative_abundance(species).get(taxa.pathogen, np.nan)
    measures = pd.DataFrame(columns, index=species.obs_names)
    measures[PRESENT] = measures["pathogen_share"].gt(0).astype(float).where(measures["pathogen_share"].notna())
    both = {taxa.pathogen, taxa.commensal} <= set(species.var_names)
    measures["log_ratio"] = log_ratio(species, taxa.pathogen, taxa.commensal) if both else np.nan
    if species.uns.get("relative", False):
        measures[[PRESENT, "log_ratio"]] = np.nan
    return measures


def swab_summary(swabs: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Mean, median and number of swabs by patients, visit and state of the skin.

    Parameters
    ----------
    swabs : DataFrame
        One row a swab: ``patients`` (display name of the group or arm), group, visit, lesional, and the measures.

    Returns
    -------
    DataFrame
        One row a group, visit, skin and measure. Patients are also shown over all arms.
    """
    skin = swabs["lesional"].map({True: "lesional", False: "non-lesional"}).astype(object).fillna("not recorded")
    skin = skin.where(swabs["group"].eq("case"), "control")
    cases = swabs[swabs["group"].eq("case")].assign(patients="all patients")
    both = pd.concat([swabs, cases]).assign(skin=pd.concat([skin, skin[cases.index]]))
    long = both.melt(["patients", "visit", "skin"], list(measures), "measure", "share")
    table = long.groupby(["measure", "patients", "visit", "skin"], observed=True)["share"].agg(
        ["mean", "median", "count"]
    )
    return table.rename(columns={"count": "swabs"}).query("swabs > 0").reset_index()


def composition(
    shares: pd.DataFrame, obs: pd.DataFrame, shown: int, labels: Mapping[str, str], *, unlisted: Sequence[str] = ()
) -> pd.DataFrame:
    """Mean share of the most abundant taxa by group and visit, each patient once.

    Parameters
    ----------
    shares : DataFrame
        Swabs x taxa, in per cent.
    obs : DataFrame
        The swabs.
    shown : int
        How many taxa; the rest is summed as ``Other``.
    unlisted : sequence of str
        Taxa that are summed into ``Other`` however abundant they are, as `organelles`.

    Returns
    -------
    DataFrame
        One row a group and visit (index: its label): n, and taxa from the most abundant, ``Other`` last.
    """
    visits = by_patient(obs, shares)
    grouped = visits.groupby(["who", "visit"], observed=True)[list(shares.columns)]
    means, n = grouped.mean(), grouped.size()
    order = [(w, v) for w in ("control", "treatment", "comparator", "case") for v in ("baseline", "followup")]
    means = means.loc[[key for key in order if key in means.index]]
    top = means.drop(columns=list(unlisted)).mean().nlargest(shown).index
    table = means[top].assign(Other=means.drop(columns=top).sum(axis=1))
    table.insert(0, "n", n)
    table.index = pd.Index([f"{labels[w]}, {labels[v]}" for w, v in means.index], name="patients")
    return table


def within(species: AnnData, genus: str) -> pd.DataFrame:
    """Share of each species of a genus in all reads, in per cent.

    Parameters
    ----------
    species : AnnData
        As from ``aggregate(cohort, "species")``.

    Returns
    -------
    DataFrame
        Swabs x species.
    """
    shares = relative_abundance(species)
    return shares[[name for name in shares if name.split(" ")[0] == genus]]


def leading(genus: AnnData, species: AnnData, taxa: Taxa, shown: int = 4) -> pd.DataFrame:
    """Share of the pathogen, of the rest of its genus, and of the most abundant other genera, in per cent.

    Parameters
    ----------
    genus, species : AnnData
        Counts aggregated to the two ranks.
    taxa : Taxa
        The names.
    shown : int
        Other genera, no organelles; what is left is ``Other``.

    Returns
    -------
    DataFrame
        Swabs x taxa: pathogen (without it where no read is named so), the rest of the genus, genera, ``Other``.
    """
    shares = relative_abundance(genus)
    first = pd.DataFrame(index=shares.index)
    if taxa.pathogen in species.var_names:
        first[taxa.pathogen] = relative_abundance(species)[taxa.pathogen]
    if taxa.genus in shares:
        rest = f"{taxa.genus} (other)" if len(first.columns) else taxa.genus
        first[rest] = shares.pop(taxa.genus) - first.sum(axis=1)
    top = shares.drop(columns=organelles(genus)).mean().nlargest(shown).index
    return first.join(shares[top]).assign(Other=shares.drop(columns=top).sum(axis=1))


def by_patient_counts(taxa: AnnData, visit: str) -> AnnData:
    """Sum the reads of a patient's swabs at one visit.

    Parameters
    ----------
    taxa : AnnData
        Raw counts, as from `aggregate`.

    Returns
    -------
    AnnData
        One row a patient, with the columns of `helpers.visits.by_patient` in ``obs``.
    """
    swabs = taxa[taxa.obs["visit"].eq(visit)]
    patients = by_patient(swabs.obs, pd.DataFrame(index=swabs.obs_names)).set_index("subject")
    sums = swabs.to_df().groupby(swabs.obs["subject"].to_numpy()).sum()
    return AnnData(sums.loc[patients.index].to_numpy(), obs=patients, var=pd.DataFrame(index=taxa.var_names))


def reassign_unnamed(species: AnnData, genus: str, pathogen: str) -> AnnData:
    """Count the reads of a genus that have no species name as the pathogen: the upper bound of what it could be.

    Parameters
    ----------
    species : AnnData
        As from ``aggregate(cohort, "species")``.

    Returns
    -------
    AnnData
        The same taxa, the unnamed reads moved.
    """
    unnamed = f"{genus} (unnamed)"
    if unnamed not in species.var_names:
        return species.copy()
    if pathogen not in species.var_names:
        moved = species.copy()
        moved.var_names = [pathogen if name == unnamed else name for name in species.var_names]
        return moved
    moved = species[:, species.var_names != unnamed].copy()
    moved.X[:, moved.var_names.get_loc(pathogen)] += counts_of(species, unnamed).to_numpy()
    return moved


def prevalent(taxa: AnnData, min_prevalence: float, among: pd.Series | None = None) -> list[str]:
    """Taxa, without organelles, that are in at least a share of the swabs that a question compares.

    A taxon that hardly any of the compared swabs has is not tested: its CLR is the pseudocount's, and moves with the
    rest of the swab.

    Parameters
    ----------
    taxa : AnnData
        As from `aggregate`.
    min_prevalence : float
        Between 0 and 1.
    among : Series of bool, optional
        The swabs that are compared, indexed like ``taxa.obs``; all, if not given.

    Returns
    -------
    list of str
        None where no swabs are compared.
    """
    swabs = taxa.X if among is None else taxa.X[among.reindex(taxa.obs_names).to_numpy(bool)]
    if not len(swabs):
        return []
    present = (swabs > 0).mean(axis=0) >= min_prevalence
    return list(taxa.var_names[present & ~taxa.var["organelle"].to_numpy()])


def linda(
    data: pd.DataFrame, taxa: Sequence[str], term: str, covariates: Sequence[str] = (), *, alpha: float = 0.05
) -> pd.DataFrame:
    """LinDA: adjusted CLR difference of each taxon between two groups, corrected for compositional bias.

    Least squares of each taxon's CLR; where most taxa do not differ, the most frequent value (mode) of the coefficients
    is what the closure of shares adds to all of them, and is taken off. Errors are HC3, as in all of the report's
    models; Zhou et al. use those of homoscedastic errors.

    Parameters
    ----------
    data : DataFrame
        One row a patient, the taxa's CLR among its columns.
    taxa : sequence of str
        At least five, for a mode to mean something; else the table is empty.
    term : str
        Boolean column: the group.

    Returns
    -------
    DataFrame
        One row a taxon: taxon, the keys of an estimate, ``q_value`` (Benjamini-Hochberg) and ``bias``, the mode.

    References
    ----------
    Zhou, He, Chen & Zhang, Genome Biol 2022;23:95.
    """
    complete = data[[*taxa, term, *covariates]].dropna()
    group = complete[term].astype(float)
    numbers = as_numbers(complete[list(covariates)])
    design = np.column_stack([group, np.ones(len(complete)), numbers])
    enough = group.nunique() == 2 and group.value_counts().min() >= 3
    return _linda(complete, taxa, design if enough else design[:0], len(data) - len(complete), alpha)


def linda_change(
    pairs: pd.DataFrame,
    taxa: Sequence[str],
    term: str | None = None,
    covariates: Sequence[str] = (),
    *,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Change-score LinDA: within-patient CLR change of each taxon, or its difference between the arms.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient, the CLR changes of the taxa among its columns.
    taxa : sequence of str
        At least five; else the table is empty.
    term : str, optional
        Boolean column: the arm. Without it, the mean change (uncontrolled) at the mean of the covariates.

    Returns
    -------
    DataFrame
        As from `linda`.

    References
    ----------
    Zhou, He, Chen & Zhang, Genome Biol 2022;23:95, with each patient's change as the response.
    """
    if term is not None:
        return linda(pairs, taxa, term, covariates, alpha=alpha)
    complete = pairs[[*taxa, *covariates]].dropna()
    numbers = as_numbers(complete[list(covariates)])
    design = np.column_stack([np.ones(len(complete)), numbers - numbers.mean()])
    return _linda(complete, taxa, design, len(pairs) - len(complete), alpha)


def _linda(data: pd.DataFrame, taxa: Sequence[str], x: np.ndarray, dropped: int, alpha: float) -> pd.DataFrame:
    """The coefficient of the first column of the design for each taxon, less their mode."""
    n, df = len(x), len(x) - x.shape[1]
    if len(taxa) < 5 or df < 3:
        return _no_taxa(("taxon", *ESTIMATE, "q_value", "bias"))
    y = data[list(taxa)].to_numpy(float)
    inverse = np.linalg.pinv(x)
    residuals = y - x @ (inverse @ y)
    leverage = np.einsum("ij,ji->i", x, inverse)
    coefficient = inverse[0] @ y
    # A taxon that nobody's swab moves has no error, and nothing to test.
    se = np.sqrt(((inverse[0][:, None] * residuals / np.maximum(1 - leverage, 1e-12)[:, None]) ** 2).sum(axis=0))
    se[se < 1e-12] = np.nan
    bias = _mode(coefficient)
    estimate = coefficient - bias
    half = stats.t.ppf(1 - alpha / 2, df) * se
    table = pd.DataFrame(
        {
            "taxon": list(taxa),
            "estimate": estimate,
            "ci_low": estimate - half,
            "ci_high": estimate + half,
            "level": 100 * (1 - alpha),
            "p_value": 2 * stats.t.sf(abs(estimate / se), df),
            "n": n,
            "n_dropped": dropped,
            "se": se,
            "df": df,
        }
    )
    return table.assign(q_value=adjusted_p(table["p_value"], "fdr_bh"), bias=bias)


def _no_taxa(columns: Sequence[str]) -> pd.DataFrame:
    """A table of no taxa, whose columns have the types of those with some."""
    return pd.DataFrame({c: pd.Series(dtype=object if c == "taxon" else float) for c in columns})


def _mode(values: np.ndarray) -> float:
    """The mode of a sample: the highest point of its Gaussian kernel density, reached by mean shift from each value.

    Bandwidth: Silverman's rule of thumb (Density Estimation, 1986, equation 3.31), R's ``bw.nrd0``.
    """
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(values.std(ddof=1), (quartiles[1] - quartiles[0]) / 1.34) or values.std(ddof=1)
    if spread == 0:
        return float(values[0])
    bandwidth = 0.9 * spread * len(values) ** -0.2
    at = values.copy()
    for _ in range(500):
        kernel = np.exp(-0.5 * ((at[:, None] - values) / bandwidth) ** 2)
        moved = kernel @ values / kernel.sum(axis=1)
        still = abs(moved - at).max() < 1e-10 * bandwidth
        at = moved
        if still:
            break
    return float(at[np.exp(-0.5 * ((at[:, None] - values) / bandwidth) ** 2).sum(axis=1).argmax()])


def ancombc2_contrasts(
    taxa: AnnData, term: str, covariates: Sequence[str] = (), *, alpha: float = 0.05
) -> pd.DataFrame:
    """ANCOM-BC2 bias-corrected log fold change of each taxon between two groups.

    Parameters
    ----------
    taxa : AnnData
        Raw counts of the tested taxa, one row a patient, metadata in ``obs``. Zeros are taken as missing (the
        method's default), so that the contrast is of abundance where the taxon is present.
    term : str
        Boolean column of ``obs``: the group.

    Returns
    -------
    DataFrame
        taxon, estimate (natural log fold change), ci_low, ci_high, p_value, q_value (Benjamini-Hochberg).

    References
    ----------
    Lin & Peddada, Nat Methods 2024;21:83.
    """
    complete = levels_in_use(taxa.obs[[term, *covariates]].dropna())
    varying = [c for c in covariates if complete[c].nunique() > 1]
    frame = complete.assign(**{term: complete[term].astype(float)})
    table = pd.DataFrame(taxa.X, index=taxa.obs_names, columns=taxa.var_names).loc[complete.index]
    # A taxon absent from one group has no fold change; it is left out here and seen in the presence test.
    in_both = [t for t in table if all((table.loc[frame[term] == g, t] > 0).sum() >= 3 for g in (0.0, 1.0))]
    if len(in_both) < 5 or len(complete) < 10:
        return _no_taxa(METHOD)
    result = ancombc2(table[in_both], frame, " + ".join([term, *varying]), p_adjust="bh", alpha=alpha).result
    rows = result.xs(term, level="Covariate").rename_axis("taxon").reset_index()
    # The method compares W = estimate / SE with Student's t of the swabs that have the taxon.
    coefficients = result.index.get_level_values("Covariate").nunique()
    df = (table[rows["taxon"]] > 0).sum().to_numpy() - coefficients
    half = stats.t.ppf(1 - alpha / 2, df) * rows["SE"]
    return pd.DataFrame(
        {
            "taxon": rows["taxon"],
            "estimate": rows["Log(FC)"],
            "ci_low": rows["Log(FC)"] - half,
            "ci_high": rows["Log(FC)"] + half,
            "p_value": rows["pvalue"],
            "q_value": rows["qvalue"],
        }
    )


def dirmult_lme_change(taxa: AnnData, arm: bool = False, *, draws: int = 128, seed: int) -> pd.DataFrame:
    """Dirichlet-multinomial mixed model of each taxon's change: visit, or visit x arm, with a random patient.

    Parameters
    ----------
    taxa : AnnData
        Raw counts of the tested taxa, one row a swab, metadata in ``obs``; patients with both visits are used.
    arm : bool
        Ask for the difference of the change between the arms, treatment minus comparator.
    draws, seed : int
        Draws from the posterior of each swab's shares, over which estimates are averaged, and their seed.

    Returns
    -------
    DataFrame
        `METHOD`: taxon, estimate (natural log fold change), p_value, q_value (Benjamini-Hochberg). Empty with fewer
        than three patients (in an arm), or two taxa.

    References
    ----------
    scikit-bio, ``skbio.stats.composition.dirmult_lme``; Fernandes et al., Microbiome 2014;2:15 (the draws).
    """
    visits = taxa.obs.groupby("subject", observed=True)["visit"].transform("nunique")
    swabs = taxa[visits.eq(2).to_numpy()]
    frame = pd.DataFrame(
        {
            "subject": swabs.obs["subject"].astype(str),
            "later": swabs.obs["visit"].eq("followup").astype(float),
            "treated": swabs.obs["arm"].eq("treatment").astype(float),
        }
    )
    patients = frame.groupby("treated")["subject"].nunique()
    if taxa.n_vars < 2 or patients.min() < 3 or len(patients) < 1 + arm:
        return _no_taxa(METHOD)
    counts = pd.DataFrame(swabs.X, index=swabs.obs_names, columns=[f"t{i}" for i in range(swabs.n_vars)])
    term = "later:treated" if arm else "later"
    result = dirmult_lme(
        counts, frame, "later * treated" if arm else "later", "subject", draws=draws, seed=seed, p_adjust=None
    )
    rows = result[result["Covariate"].eq(term)].set_index("FeatureID").loc[list(counts.columns)]
    table = pd.DataFrame(
        {
            "taxon": list(taxa.var_names),
            "estimate": rows["Log2(FC)"].to_numpy() * np.log(2),
            "p_value": rows["pvalue"].to_numpy(),
        }
    )
    return table.assign(q_value=adjusted_p(table["p_value"], "fdr_bh"))


def agreement(first: pd.DataFrame, second: pd.DataFrame, *, alpha: float = 0.05) -> pd.DataFrame:
    """Lay two methods' results for the same taxa side by side.

    Parameters
    ----------
    first, second : DataFrame
        Columns taxon, estimate, q_value.

    Returns
    -------
    DataFrame
        One row a taxon of `first`: its columns, those of `second` with suffix ``_2``, and ``agreement``, one of
        both, first only, second only, neither, opposite, one method.
    """
    merged = first.merge(second[["taxon", "estimate", "q_value"]], on="taxon", how="left", suffixes=("", "_2"))
    one, two = merged["q_value"] < alpha, merged["q_value_2"] < alpha
    same = np.sign(merged["estimate"]) == np.sign(merged["estimate_2"])
    merged["agreement"] = np.select(
        [merged["q_value_2"].isna(), one & two & same, one & two, one, two],
        ["one method", "both", "opposite", "first only", "second only"],
        "neither",
    )
    return merged


def differential(
    reads: AnnData, genus: AnnData, study: Study, min_prevalence: float, *, alpha: float = 0.05, seed: int
) -> dict[str, pd.DataFrame]:
    """Every prevalent genus by two methods, in three questions.

    Parameters
    ----------
    reads : AnnData
        The swabs that are compared, with all their reads.
    genus : AnnData
        The same at one depth, aggregated to genera.
    min_prevalence : float
        Share of the compared swabs that a genus must be in.

    Returns
    -------
    dict
        ``baseline`` (patients against controls: LinDA, ANCOM-BC2), ``change`` (under treatment) and ``arms`` (treatment
        minus comparator: change-score LinDA, Dirichlet-multinomial mixed model): each as from `agreement`.
    """
    ratios = clr(genus)
    persons = by_patient(genus.obs, ratios)
    baseline = persons[persons["visit"].eq("baseline")]
    moved = changes(persons, list(ratios)).join(baseline.set_index("subject")[study.adjust.arm])
    moved["treated"] = moved["who"].eq("treatment")
    counts, obs = aggregate(reads, "genus"), genus.obs
    twice = obs["subject"].isin(moved.index[moved[list(ratios)].notna().all(axis=1)])
    compared = {
        "baseline": obs["visit"].eq("baseline"),
        "change": twice & obs["arm"].eq("treatment"),
        "arms": twice & obs["arm"].notna(),
    }
    tested = {
        question: prevalent(genus, min_prevalence, swabs) if study.counted else []
        for question, swabs in compared.items()
    }
    of = {question: counts[compared[question].reindex(counts.obs_names), tested[question]] for question in compared}
    pairs = {
        "baseline": (
            linda(baseline, tested["baseline"], "case", study.adjust.group, alpha=alpha),
            ancombc2_contrasts(by_patient_counts(of["baseline"], "baseline"), "case", study.adjust.group, alpha=alpha),
        ),
        "change": (
            linda_change(moved[moved["treated"]], tested["change"], alpha=alpha),
            dirmult_lme_change(of["change"], seed=seed),
        ),
        "arms": (
            linda_change(moved[moved["who"].ne("control")], tested["arms"], "treated", study.adjust.arm, alpha=alpha),
            dirmult_lme_change(of["arms"], True, seed=seed),
        ),
    }
    return {question: agreement(*methods, alpha=alpha) for question, methods in pairs.items()}


def differing_genera(
    swabs: AnnData, patients: Sequence[str], study: Study, min_prevalence: float, *, alpha: float = 0.05
) -> dict[str, tuple[int, int]]:
    """In how many genera patients differ from controls, before and after (LinDA).

    Parameters
    ----------
    patients : sequence of str
        Subjects.
    min_prevalence : float
        Share of the compared swabs that a genus must be in.

    Returns
    -------
    dict
        For each visit at which it can be tested, how many differ, and of how many.
    """
    genus = aggregate(swabs, "genus")
    persons = by_patient(genus.obs, clr(genus))
    chosen = persons[~persons["case"] | persons["subject"].isin(patients)]
    found = {}
    for visit, compared in (
        ("baseline", chosen[chosen["visit"].eq("baseline")]),
        ("followup", with_controls(persons, patients)),
    ):
        of_them = swabs.obs.set_index(["subject", "visit"], append=True).index.droplevel(0)
        among = of_them.isin(pd.MultiIndex.from_frame(compared[["subject", "visit"]]))
        tested = prevalent(genus, min_prevalence, pd.Series(among, swabs.obs_names)) if study.counted else []
        table = linda(compared, tested, "case", study.adjust.group, alpha=alpha)
        if len(table):
            found[visit] = int((table["q_value"] < alpha).sum()), len(table)
    return found


def share_unnamed(genus: AnnData, species: AnnData, name: str) -> float:
    """Per cent of a genus's reads that the taxonomy does not name to species."""
    return float(100 * counts_of(species, f"{name} (unnamed)").sum() / (counts_of(genus, name).sum() or 1))


def presence_by_group(pairs: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Presence at both visits in each group.

    Parameters
    ----------
    pairs : DataFrame
        One row a patient: ``who``, and ``y0``, ``y1``, shares of swabs with a read.

    Returns
    -------
    DataFrame
        One row a group: patients, the keys of `presence_change`, and n_dropped, who was lost.
    """
    rows = [
        {"patients": labels[who], **presence_change(of["y0"] > 0, of["y1"] > 0), "n_dropped": lost}
        for who, each in pairs.groupby("who")
        if each["change"].notna().any()
        for of, lost in [(each.dropna(subset="change"), int(each["change"].isna().sum()))]
    ]
    return pd.DataFrame(rows)


def presence_change(before: pd.Series, after: pd.Series) -> dict[str, float]:
    """Exact McNemar test of presence at two visits.

    Parameters
    ----------
    before, after : Series of bool
        Presence in each patient.

    Returns
    -------
    dict
        ``n``, ``present_before``, ``present_after``, ``gained``, ``lost``, ``p_value``.

    References
    ----------
    McNemar, Psychometrika 1947;12:153.
    """
    gained, lost = int((~before & after).sum()), int((before & ~after).sum())
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    return {
        "n": len(before),
        "present_before": int(before.sum()),
        "present_after": int(after.sum()),
        "gained": gained,
        "lost": lost,
        "p_value": float(mcnemar([[both, lost], [gained, neither]], exact=True).pvalue),
    }


def presence_contrasts(
    visits: pd.DataFrame,
    labels: Mapping[str, str],
    covariates: Sequence[str] = (),
    *,
    measure: str = PRESENT,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Odds ratios of a taxon's presence: patients against controls at baseline, and the arms at follow-up.

    The arms are compared given presence at baseline. Present is who has the taxon in any swab of the visit.

    Parameters
    ----------
    visits : DataFrame
        One row a person and visit: subject, visit, who, boolean ``case``, the covariates, and the measure.
    measure : str
        Share of a person's swabs that have the taxon; NaN where it cannot be known.

    Returns
    -------
    DataFrame
        One row a comparison: contrast (group, arms), comparison in words; of those in the model ``present`` ``of`` how
        many in the first group, and ``reference_present`` ``reference_of`` in the other; keys of
        `helpers.estimates.ESTIMATE`, odds ratio with profile-likelihood interval.

    References
    ----------
    As of `helpers.estimates.firth_odds_ratio`.
    """
    seen = visits.assign(present=visits[measure].gt(0).astype(float).where(visits[measure].notna()))
    start, end = (seen[seen["visit"].eq(v)].set_index("subject") for v in ("baseline", "followup"))
    arms = seen[seen["who"].isin(["treatment", "comparator"])].drop_duplicates("subject").set_index("subject")
    arms = arms.assign(treated=arms["who"].eq("treatment"), before=start["present"], present=end["present"])
    group = f"{labels['case']} against {labels['control']}, {labels['baseline']}"
    both = f"{labels['treatment']} against {labels['comparator']}"
    arm = f"{both}, {labels['followup']}, given presence at {labels['baseline']}"
    rows = []
    for contrast, comparison, data, term, given in (
        ("group", group, start, "case", list(covariates)),
        ("arms", arm, arms, "treated", ["before"]),
    ):
        used = data[["present", term, *given]].dropna()
        counts = used.groupby(used[term].astype(bool))["present"].agg(["sum", "size"]).astype(int)
        (present, n), (reference, m) = counts.reindex([True, False], fill_value=0).to_numpy()
        odds = firth_odds_ratio(data, "present", term, given, alpha=alpha)
        tally = {"present": present, "of": n, "reference_present": reference, "reference_of": m}
        rows.append({"contrast": contrast, "comparison": comparison, **tally, **odds})
    return pd.DataFrame(rows)
