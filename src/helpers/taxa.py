"""Aggregation to a rank, taxa of interest, differential abundance.

``taxa``, ``genus`` and ``species`` are swabs x taxa, as from `aggregate`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats
from skbio.stats.composition import clr as centred_log_ratio

from helpers.diversity import PSEUDOCOUNT, positive
from helpers.estimates import ESTIMATE, Names, adjusted_p, as_numbers, firth_odds_ratio, not_estimable
from helpers.lineage import is_organelle
from helpers.study import RANKS, Study, Taxa
from helpers.visits import by_patient, changes, with_controls

#: Whether a swab has a read of the pathogen, 1 or 0: described beside its abundance, in tables of its own.
PRESENT = "pathogen_present"


def taxon_names(var: pd.DataFrame, rank: str) -> pd.Series:
    """Name each feature at one of `helpers.study.RANKS`; without a name there, after its lowest named rank above.

    Such as ``Staphylococcus aureus``, ``Staphylococcus (unnamed)`` or ``Bacteria (unnamed)``. `var` are features x
    ranks, "" where not named.
    """
    names = var[rank].astype(str)
    above = pd.Series("Unassigned", index=var.index)
    for higher in RANKS[: RANKS.index(rank)]:
        above = var[higher].astype(str).where(var[higher].ne(""), above)
    return names.where(names.ne(""), above + " (unnamed)")


def aggregate(cohort: AnnData, rank: str) -> AnnData:
    """Sum the counts of all features of a taxon, at one of `helpers.study.RANKS`.

    Swabs x taxa, ``X`` dense, named by `taxon_names`, sorted by name; ``uns["relative"]`` as of the cohort;
    ``var["organelle"]`` (bool): all of its features are of mitochondria or chloroplasts. Their reads are part of the
    whole, but no bacteria to be listed or tested.
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
    """Names of the taxa that are mitochondria or chloroplasts."""
    return list(taxa.var_names[taxa.var["organelle"]])


def relative_abundance(taxa: AnnData) -> pd.DataFrame:
    """Share of each taxon in the reads of each swab, in per cent: swabs x taxa."""
    shares = 100 * taxa.X / taxa.X.sum(axis=1, keepdims=True)
    return pd.DataFrame(shares, index=taxa.obs_names, columns=taxa.var_names)


def clr(taxa: AnnData, zeros: float | str = PSEUDOCOUNT) -> pd.DataFrame:
    """Centred log-ratio of each taxon (natural logarithm), swabs x taxa, as of `helpers.diversity.aitchison`.

    The counts are rarefied to one depth, so that a zero means the same in each swab; NaN of relative abundances, in
    which it means something else in each.
    """
    if taxa.uns.get("relative", False):
        return pd.DataFrame(np.nan, index=taxa.obs_names, columns=taxa.var_names)
    return pd.DataFrame(centred_log_ratio(positive(taxa.X, zeros)), index=taxa.obs_names, columns=taxa.var_names)


def counts_of(taxa: AnnData, name: str) -> pd.Series:
    """Reads of one taxon in each swab; zero if no swab has it."""
    values = taxa.X[:, taxa.var_names.get_loc(name)] if name in taxa.var_names else np.zeros(taxa.n_obs)
    return pd.Series(values, index=taxa.obs_names, name=name)


def of_interest(genus: AnnData, species: AnnData, taxa: Taxa, zeros: float | str = PSEUDOCOUNT) -> pd.DataFrame:
    """Measures of the taxa that study.yaml names, from rarefied counts; zeros as of `helpers.diversity.positive`.

    Swabs x (``genus``, ``pathogen`` and ``commensal``, their CLR; ``log_ratio`` of the last two, which needs no
    reference frame (Morton et al., Nat Commun 2019;10:2719); ``genus_share``, ``pathogen_share`` in per cent,
    ``pathogen_present`` as 0 or 1). A taxon that the taxonomy never names is NaN: absence of the name is not absence of
    the taxon. Of relative abundances all but the shares are NaN.
    """
    ratios = clr(species, zeros)
    columns = {"genus": clr(genus, zeros).get(taxa.genus, np.nan)}
    columns |= {role: ratios.get(getattr(taxa, role), np.nan) for role in ("pathogen", "commensal")}
    columns["genus_share"] = relative_abundance(genus).get(taxa.genus, np.nan)
    columns["pathogen_share"] = relative_abundance(species).get(taxa.pathogen, np.nan)
    measures = pd.DataFrame(columns, index=species.obs_names)
    measures[PRESENT] = measures["pathogen_share"].gt(0).astype(float).where(measures["pathogen_share"].notna())
    measures["log_ratio"] = measures["pathogen"] - measures["commensal"]
    if species.uns.get("relative", False):
        measures[PRESENT] = np.nan
    return measures


def swab_summary(swabs: pd.DataFrame, measures: Sequence[str], fewest: int = 0) -> pd.DataFrame:
    """Mean, median and number of swabs: a row a measure, group, visit and state of the skin.

    `swabs` has a row a swab: ``patients`` (display name of the group or arm), group, visit, lesional, and the measures.
    Patients are also shown over all arms. Without the swabs of fewer than the `fewest` people.
    """
    skin = swabs["lesional"].map({True: "lesional", False: "non-lesional"}).astype(object).fillna("not recorded")
    skin = skin.where(swabs["group"].eq("case"), "control")
    cases = swabs[swabs["group"].eq("case")].assign(patients="all patients")
    both = pd.concat([swabs, cases]).assign(skin=pd.concat([skin, skin[cases.index]]))
    people = both.groupby(keys := ["patients", "visit", "skin"], observed=True)["subject"].transform("nunique")
    long = both[people >= fewest].melt(keys, list(measures), "measure", "share")
    shares = long.groupby(["measure", "patients", "visit", "skin"], observed=True)["share"]
    return shares.agg(mean="mean", median="median", swabs="count").query("swabs > 0").reset_index()


def composition(
    shares: pd.DataFrame, obs: pd.DataFrame, shown: int, labels: Mapping[str, str], *, unlisted: Sequence[str] = ()
) -> pd.DataFrame:
    """Mean share of the most abundant taxa by group and visit, each patient once.

    `shares` are swabs x taxa, in per cent. A row a group and visit (index: its label): n, and so many taxa as are to be
    `shown`, from the most abundant; ``Other``, the rest, last. What is `unlisted`, as `organelles`, is summed into that
    however abundant it is.
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
    """Share of each species of a genus in all reads, in per cent: swabs x species."""
    shares = relative_abundance(species)
    return shares[[name for name in shares if name.split(" ")[0] == genus]]


def leading(genus: AnnData, species: AnnData, taxa: Taxa, shown: int = 4) -> pd.DataFrame:
    """Share of the leading species of the genus of interest, of its rest, and of the most abundant other genera.

    In per cent, swabs x taxa: pathogen (without it where no read is named so), the two most abundant other species, the
    rest of the genus, so many other genera as are to be `shown`, no organelles; what is left is ``Other``.
    """
    shares = relative_abundance(genus)
    named = within(species, taxa.genus).filter(regex=r"^\S+ [^(]")
    others = named.drop(columns=taxa.pathogen, errors="ignore").mean().nlargest(2).index
    first = named[[*named.columns.intersection([taxa.pathogen]), *others]]
    if taxa.genus in shares:
        rest = f"{taxa.genus} (other)" if len(first.columns) else taxa.genus
        first = first.assign(**{rest: shares.pop(taxa.genus) - first.sum(axis=1)})
    top = shares.drop(columns=organelles(genus)).mean().nlargest(shown).index
    return first.join(shares[top]).assign(Other=shares.drop(columns=top).sum(axis=1))


def reassign_unnamed(species: AnnData, genus: str, pathogen: str) -> AnnData:
    """Count the reads of a genus that have no species name as the pathogen: the upper bound of what it could be."""
    unnamed = f"{genus} (unnamed)"
    if not {unnamed, pathogen} <= {*species.var_names}:
        moved = species.copy()
        moved.var_names = [pathogen if name == unnamed else name for name in species.var_names]
        return moved
    moved = species[:, species.var_names != unnamed].copy()
    moved.X[:, moved.var_names.get_loc(pathogen)] += counts_of(species, unnamed).to_numpy()
    return moved


def prevalent(taxa: AnnData, min_prevalence: float, among: pd.Series | None = None) -> list[str]:
    """Taxa, without organelles, that are in at least a share of the swabs that a question compares.

    A taxon that hardly any of the compared swabs has is not tested: its CLR is the pseudocount's, and moves with the
    rest of the swab. `among` tells which swabs are compared, indexed like ``taxa.obs``: all, if not given; where none
    is, no taxa.
    """
    swabs = taxa.X if among is None else taxa.X[among.reindex(taxa.obs_names).to_numpy(bool)]
    if not len(swabs):
        return []
    present = (swabs > 0).mean(axis=0) >= min_prevalence
    return list(taxa.var_names[present & ~taxa.var["organelle"].to_numpy()])


def linda(
    data: pd.DataFrame, taxa: Sequence[str], term: str | None = None, covariates: Names = (), *, alpha: float
) -> pd.DataFrame:
    """LinDA with a reference frame: each taxon's CLR difference, or mean change, against that of the typical taxon.

    Least squares of each taxon's CLR, with HC3 errors. What the closure of shares adds to all coefficients is taken to
    be their most frequent value (mode), and is taken off, as Zhou et al. do. Where many taxa change, or rare ones move
    with their pseudocounts, the mode is off by more than the errors tell. So the zero is known to an interval only, the
    *frame*: the shortest that holds half of the coefficients (the shorth), since at least half of the taxa are taken
    not to change. Tested is whether a taxon lies outside of it (McCarthy & Smyth's TREAT, with the frame as the
    interval of no change; McGovern & Silverman on intervals in place of normalisations).

    `data` have a row a patient, the taxa's CLR, or its within-patient changes, among their columns; of fewer than five
    taxa the table is empty. The term is boolean, the group or arm; without it, the mean (of changes: uncontrolled) at
    the mean of the covariates.

    One row a taxon: taxon, the keys of an estimate, whose interval is that around the mode; ``p_value`` of the test
    against the whole frame; ``q_value`` (Benjamini-Hochberg), ``found`` (q < alpha); ``frame_low``, ``frame_high``,
    limits of the frame, and ``bias``, the mode that was taken off, on the scale of the CLR; ``overturned``, of those
    found: fold by which the whole community would have to differ for the taxon not to, in absolute numbers.

    References
    ----------
    Zhou, He, Chen & Zhang, Genome Biol 2022;23:95 (LinDA); Grübel, Ann Stat 1988;16:619 (shorth); McCarthy & Smyth,
    Bioinformatics 2009;25:765; McGovern & Silverman, BMC Bioinformatics 2025;26:164.
    """
    complete = data[[*taxa, *([term] if term else []), *covariates]].dropna()
    numbers = as_numbers(complete[list(covariates)])
    one = np.ones((len(complete), 1))
    if term is None:
        x = np.hstack([one, numbers - numbers.mean()])
    else:
        group = complete[term].astype(float)
        enough = group.nunique() == 2 and group.value_counts().min() >= 3
        x = np.hstack([group.to_numpy()[:, None], one, numbers])[: None if enough else 0]
    n, df = len(x), len(x) - x.shape[1]
    if len(taxa) < 5 or df < 3:
        columns = (*ESTIMATE, "q_value", "found", "frame_low", "frame_high", "bias", "overturned")
        return pd.DataFrame(columns=["taxon", *columns]).astype(dict.fromkeys(columns, float) | {"found": bool})
    y = complete[list(taxa)].to_numpy(float)
    inverse = np.linalg.pinv(x)
    residuals = y - x @ (inverse @ y)
    leverage = np.einsum("ij,ji->i", x, inverse)
    coefficient = inverse[0] @ y
    # A taxon that nobody's swab moves has no error, and nothing to test.
    se = np.sqrt(((inverse[0][:, None] * residuals / np.maximum(1 - leverage, 1e-12)[:, None]) ** 2).sum(axis=0))
    se[se < 1e-12] = np.nan
    bias = _mode(coefficient)
    estimate = coefficient - bias
    low, high = _shorth(estimate)
    half = stats.t.ppf(1 - alpha / 2, df) * se
    table = pd.DataFrame(
        {
            "taxon": list(taxa),
            "estimate": estimate,
            "ci_low": estimate - half,
            "ci_high": estimate + half,
            "level": 100 * (1 - alpha),
            "p_value": _outside(estimate - (low + high) / 2, se, df, (high - low) / 2),
            "n": n,
            "n_dropped": len(data) - len(complete),
            "se": se,
            "df": df,
        }
    )
    table["q_value"] = adjusted_p(table["p_value"], "fdr_bh")
    table["found"] = table["q_value"] < alpha
    nearer = np.sign(estimate) * np.maximum(abs(estimate) - half, 0)
    overturned = np.where(table["found"], np.exp(-nearer), np.nan)
    return table.assign(frame_low=low, frame_high=high, bias=bias, overturned=overturned)


def _outside(distance: np.ndarray, se: np.ndarray, df: int, margin: float) -> np.ndarray:
    """TREAT: p-values of the null that the true distance is at most the margin, either way."""
    return sum(stats.t.sf((abs(distance) + off) / se, df) for off in (-margin, margin))


def _shorth(values: np.ndarray) -> tuple[float, float]:
    """The shortest interval that holds more than half of the values."""
    ordered, held = np.sort(values), len(values) // 2 + 1
    first = (ordered[held - 1 :] - ordered[: len(values) - held + 1]).argmin()
    return float(ordered[first]), float(ordered[first + held - 1])


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


def differential(
    genus: AnnData, study: Study, min_prevalence: float, *, alpha: float = 0.05
) -> dict[str, pd.DataFrame]:
    """Every prevalent genus in three questions, by LinDA; beside its abundance, in how many people it is seen.

    Presence is told and not tested: a rare genus is also missed where others bloom. `genus` has the swabs that are
    compared, at one depth; `min_prevalence` is the share of these that a genus must be in.

    ``group`` (patients minus controls at baseline), ``change`` (under treatment) and ``arms`` (its difference,
    treatment minus comparator): each as from `linda`, and of the people behind its estimates how many have the genus in
    any swab: ``present`` ``of`` in the first group, ``reference_present`` ``reference_of`` in the other (the arms: at
    follow-up); of change ``present_before``, ``present_after``, ``gained``, ``lost``.
    """
    ratios = clr(genus)
    persons = by_patient(genus.obs, ratios)
    start = persons[persons["visit"].eq("baseline")].set_index("subject")
    moved = changes(persons, list(ratios)).join(start[study.adjust.arm])
    moved["treated"] = moved["who"].eq("treatment")
    obs = genus.obs
    twice = obs["subject"].isin(moved.index[moved[list(ratios)].notna().all(axis=1)])
    asked = {
        "group": (start, "case", study.adjust.group, obs["visit"].eq("baseline")),
        "change": (moved[moved["treated"]], None, (), twice & obs["arm"].eq("treatment")),
        "arms": (moved[moved["who"].ne("control")], "treated", study.adjust.arm, twice & obs["arm"].notna()),
    }
    before, after = _seen(genus, "baseline"), _seen(genus, "followup")
    tables: dict[str, pd.DataFrame] = {}
    for question, (data, term, covariates, compared) in asked.items():
        tested = prevalent(genus, min_prevalence, compared) if study.counted else []
        used = data.dropna(subset=[*tested, *([term] if term else []), *covariates])
        groups = [len(used)] if term is None else used[term].value_counts()
        if min(groups, default=0) < study.privacy.fewest:
            tested = []
        table = tables[question] = linda(data, tested, term, covariates, alpha=alpha)
        if table.empty:
            continue
        first, last = (seen.loc[used.index, table["taxon"]] for seen in (before, before if term == "case" else after))
        told = {"present_before": first, "present_after": last, "gained": ~first & last, "lost": first & ~last}
        sizes = {}
        if term is not None:
            ours = used[term].astype(bool)
            told = {"present": last[ours], "reference_present": last[~ours]}
            sizes = {"of": ours.sum(), "reference_of": (~ours).sum()}
        tables[question] = table.assign(**{column: seen.sum().to_numpy() for column, seen in told.items()}, **sizes)
    return tables


def _seen(taxa: AnnData, visit: str) -> pd.DataFrame:
    """Who has each taxon in any swab of a visit: people x taxa."""
    swabs = taxa[taxa.obs["visit"].eq(visit)]
    return (swabs.to_df() > 0).groupby(swabs.obs["subject"].to_numpy()).any()


def differing_genera(
    swabs: AnnData, patients: Sequence[str], study: Study, min_prevalence: float, *, alpha: float = 0.05
) -> dict[str, tuple[int, int]]:
    """In how many genera patients, `patients` by subject, differ from controls before and after treatment (LinDA).

    For each visit at which it can be tested, how many differ, and of how many; `min_prevalence` as of `differential`.
    """
    if len(patients) < study.privacy.fewest:
        return {}
    genus = aggregate(swabs, "genus")
    persons = by_patient(genus.obs, clr(genus))
    chosen = persons[~persons["case"] | persons["subject"].isin(patients)]
    groups = {"baseline": chosen[chosen["visit"].eq("baseline")], "followup": with_controls(persons, patients)}
    swab, found = pd.MultiIndex.from_frame(swabs.obs[["subject", "visit"]]), {}
    for visit, compared in groups.items():
        among = swab.isin(pd.MultiIndex.from_frame(compared[["subject", "visit"]]))
        tested = prevalent(genus, min_prevalence, pd.Series(among, swabs.obs_names)) if study.counted else []
        table = linda(compared, tested, "case", study.adjust.group, alpha=alpha)
        if len(table):
            found[visit] = int(table["found"].sum()), len(table)
    return found


def share_unnamed(genus: AnnData, species: AnnData, name: str) -> float:
    """Per cent of a genus's reads that the taxonomy does not name to species."""
    return float(100 * counts_of(species, f"{name} (unnamed)").sum() / (counts_of(genus, name).sum() or 1))


def presence_by_group(pairs: pd.DataFrame, labels: Mapping[str, str], fewest: int = 0) -> pd.DataFrame:
    """Presence at both visits: a row a group with patients, the keys of `presence_change`, and n_dropped, who was lost.

    `pairs` has a row a patient: ``who``, and ``y0``, ``y1``, shares of swabs with a read. A p-value on fewer than the
    `fewest` people who gained or lost the taxon, whom it would tell, is NaN.
    """
    rows = []
    for who, each in pairs.groupby("who"):
        if len(of := each.dropna(subset="change")):
            change = presence_change(of["y0"] > 0, of["y1"] > 0)
            if min(change["gained"], change["lost"]) < fewest:
                change["p_value"] = np.nan
            rows.append({"patients": labels[who], **change, "n_dropped": len(each) - len(of)})
    return pd.DataFrame(rows)


def presence_change(before: pd.Series, after: pd.Series) -> dict[str, float]:
    """Exact McNemar test of presence in each patient, a bool, at two visits.

    With ``n``, ``present_before``, ``present_after``, ``gained``, ``lost``, ``p_value``; NaN of fewer than five.

    References
    ----------
    McNemar, Psychometrika 1947;12:153.
    """
    from statsmodels.stats.contingency_tables import mcnemar  # slow to import, and for one table

    both, lost, gained, neither = (int((a & b).sum()) for a in (before, ~before) for b in (after, ~after))
    p = float(mcnemar([[both, lost], [gained, neither]], exact=True).pvalue) if len(before) > 4 else np.nan
    present = {"present_before": both + lost, "present_after": both + gained}
    return {"n": len(before), **present, "gained": gained, "lost": lost, "p_value": p}


def presence_contrasts(
    visits: pd.DataFrame, labels: Mapping[str, str], covariates: Names = (), *, fewest: int = 0, alpha: float = 0.05
) -> pd.DataFrame:
    """Odds ratios of the pathogen's presence: patients against controls at baseline, and the arms at follow-up.

    The arms are compared given presence at baseline. Present is who has the taxon in any swab of the visit. `visits`
    has a row a person and visit: subject, visit, who, boolean ``case``, the covariates, and `PRESENT`, the share of the
    person's swabs that have the taxon; NaN where it cannot be known. NaN if fewer than the `fewest` people of a group
    have the taxon, or lack it, whom the ratio would tell.

    One row a comparison: contrast (group, arms), comparison in words; of those in the model ``present`` ``of`` how many
    in the first group, and ``reference_present`` ``reference_of`` in the other; keys of `helpers.estimates.ESTIMATE`,
    as from `helpers.estimates.firth_odds_ratio`.
    """
    seen = visits.assign(present=visits[PRESENT].gt(0).astype(float).where(visits[PRESENT].notna()))
    start, end = (seen[seen["visit"].eq(v)].set_index("subject") for v in ("baseline", "followup"))
    arms = seen[seen["who"].isin(["treatment", "comparator"])].drop_duplicates("subject").set_index("subject")
    arms = arms.assign(treated=arms["who"].eq("treatment"), before=start["present"], present=end["present"])
    group = f"{labels['case']} against {labels['control']}, {labels['baseline']}"
    both = f"{labels['treatment']} against {labels['comparator']}"
    arm = f"{both}, {labels['followup']}, given presence at {labels['baseline']}"
    rows = []
    asked = (("group", group, start, "case", list(covariates)), ("arms", arm, arms, "treated", ["before"]))
    for contrast, comparison, data, term, given in asked:
        used = data[["present", term, *given]].dropna()
        counts = used.groupby(used[term].astype(bool))["present"].agg(["sum", "size"]).astype(int)
        (present, n), (reference, m) = counts.reindex([True, False], fill_value=0).to_numpy()
        odds = firth_odds_ratio(data, "present", term, given, alpha=alpha)
        if min(present, n - present, reference, m - reference) < fewest:
            odds = not_estimable(int(odds["n"]), int(odds["n_dropped"]))
        tally = {"present": present, "of": n, "reference_present": reference, "reference_of": m}
        rows.append({"contrast": contrast, "comparison": comparison, **tally, **odds})
    return pd.DataFrame(rows)
