"""The simulated cohort: a treatment-response study of skin swabs with a known truth.

A patient's skin has one hidden number, the dysbiosis D: 0 is the skin of the controls, about 1 inflamed skin. At
baseline it rises with severity and in lesional skin. Treatment takes a part of it away::

    D(month 3) = D(baseline) * (1 - shift)
    shift      = direct[arm] + mediated[arm] * (relative improvement of EASI) + noise

so that what a drug does to the skin itself and what it does through clinical improvement are separate parameters. The
log abundance of each taxon is linear in D; *S. aureus* is colonisation times abundance, and both depend on D. Reads are
multinomial. Nothing else in the skin of the demo cohort differs between visits or arms. Other worlds
(`helpers.simulation.worlds`) have what is switched off there: severity that fluctuates, and the skin with it, raters
who err, loss by response, a cause of allocation that nobody records, a drug that moves the skin aside.

``make data STUDY=demo`` writes the files of the demo study.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader
from numpy.random import Generator
from scipy import sparse
from scipy.special import expit, logit, ndtr, ndtri
from skbio import TreeNode

from helpers.files import DEMO, write_whole
from helpers.simulation.truth import ARMS, LINEAGES, PARAMETERS, PATHOGEN, Arm, Tail, Taxon, Truth
from helpers.texts import packaged

VISITS = ("M0", "M3")
COLUMNS = (
    "swab_id", "patient_id", "sample_type", "diagnosis", "drug", "visit", "body_site", "lesional", "age", "sex",
    "sequencing_run", "EASI", "oSCORAD", "previous_systemic", "previous_cyclosporine",
)  # fmt: skip


# --- ASVs, taxonomy, tree --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Catalogue:
    """What there is to find: taxa, their ASVs (sorted by taxon), the ASVs' names and tree."""

    taxa: tuple[Taxon, ...]
    taxon: np.ndarray
    weights: np.ndarray
    contaminant: np.ndarray
    taxonomy: pd.DataFrame
    tree: str


def _tail(tail: Tail, genera: list[str], rng: Generator) -> tuple[Taxon, ...]:
    """The genera that no table names, rarer from one to the next."""
    n = len(genera)
    shares = np.arange(1, n + 1) ** -tail.slope
    shares *= tail.total / shares.sum()
    table = pd.DataFrame({"name": genera, "share": shares.round(5)})
    table["effect"] = np.where(rng.random(n) < tail.unaffected, 0, rng.normal(*tail.effect, n)).round(2)
    table["prevalence"] = np.linspace(*tail.prevalence, n).round(2)
    table["asvs"] = rng.integers(tail.asvs[0], tail.asvs[1] + 1, n)
    return tuple(Taxon(**row, unnamed=1) for row in table.to_dict("records"))


def _newick(lineages: list[tuple[str, ...]], tips: list[str], rank: int, rng: Generator) -> str:
    """A bifurcating clade in which each taxon of each rank is a clade; branches are shorter in lower ranks."""
    if rank == len(lineages[0]):
        parts = list(tips)
    else:
        names = list(dict.fromkeys(lineage[rank] for lineage in lineages))
        inside = {n: [i for i, lineage in enumerate(lineages) if lineage[rank] == n] for n in names}
        parts = [_newick([lineages[i] for i in m], [tips[i] for i in m], rank + 1, rng) for m in inside.values()]
    while len(parts) > 1:
        a, b = (parts.pop(int(rng.integers(len(parts)))) for _ in range(2))
        x, y = rng.uniform(0.2, 1.0, 2) * 0.15 / 1.6**rank
        parts.append(f"({a}:{x:.4f},{b}:{y:.4f})")
    return parts[0]


@lru_cache(maxsize=4)
def _catalogue(seed: int, named: tuple[Taxon, ...], contaminants: tuple[str, ...], tail: Tail) -> Catalogue:
    rng = np.random.default_rng(seed)
    ranks: dict[str, tuple[str, ...]] = {}
    for above, *families in (line.split("|") for line in LINEAGES):
        for family, genera in (f.split(":") for f in families):
            ranks |= {g: ("Bacteria", *above.split(";"), family, g) for g in genera.split(",")}
    rare = [g for g in ranks if g not in {t.name.split()[0] for t in named} | set(contaminants)]
    taxa = named + _tail(tail, list(rng.permutation(rare)), rng)
    taxa += tuple(Taxon(name=g, share=0, effect=0, prevalence=0, asvs=3, unnamed=1) for g in contaminants)
    weights, lineages, clades = [], [], []
    for t in taxa:
        genus, _, species = t.name.partition(" ")
        # Every fourth ASV goes without a species name; together they have the share of reads that the truth gives.
        nameless = np.arange(t.asvs) % 4 == 3 if 0 < t.unnamed < 1 else np.full(t.asvs, t.unnamed == 1)
        w = 1 / np.arange(1, t.asvs + 1)
        for which, share in ((nameless, t.unnamed), (~nameless, 1 - t.unnamed)):
            w[which] *= share / max(w[which].sum(), 1e-9)
        weights.append(w)
        lineages += [[*ranks[genus], "" if none else f"{genus}_{species}"] for none in nameless]
        clades += [(*ranks[genus], species)] * t.asvs
    ids = [f"ASV{i + 1:04d}" for i in range(len(lineages))]
    text = ["; ".join(f"{p}__{n}" for p, n in zip("dpcofgs", names, strict=True)) for names in lineages]
    return Catalogue(
        taxa=taxa,
        taxon=np.repeat(np.arange(len(taxa)), [t.asvs for t in taxa]),
        weights=np.concatenate(weights),
        contaminant=np.repeat([t.name in contaminants for t in taxa], [t.asvs for t in taxa]),
        taxonomy=pd.DataFrame({"Taxon": text}, index=pd.Index(ids, name="Feature ID")),
        tree=_newick(clades, ids, 0, rng) + ";",
    )


def catalogue(truth: Truth) -> Catalogue:
    """The taxa and ASVs of a truth, which are the same in each of its cohorts."""
    return _catalogue(truth.catalogue_seed, truth.taxa, truth.contaminants, truth.tail)


# --- people ----------------------------------------------------------------------------------------------------------


def _ages(mean: float, sd: float, n: int, rng: Generator) -> np.ndarray:
    """Whole years from a normal distribution cut at 18 and 85."""
    low, high = ndtr((np.array([18, 85]) - mean) / sd)
    return np.floor(mean + sd * ndtri(rng.uniform(low, high, n))).astype(int)


def _people(truth: Truth, rng: Generator) -> pd.DataFrame:
    """One row a person, patients first; z is the severity behind EASI and oSCORAD, NaN in controls.

    ``unmeasured`` is the cause that nobody records, standard normal in patients.
    """
    p = truth.population
    n = sum(p.patients.values())
    unmeasured = rng.spawn(1)[0].normal(size=n)
    z = rng.normal(size=n)
    systemic = rng.random(n) < expit(p.previous_systemic[0] + p.previous_systemic[1] * z)
    cyclosporine = systemic & (rng.random(n) < p.previous_cyclosporine)
    # The arms' sizes are fixed: with Gumbel noise, the lowest log odds are a weighted draw without replacement.
    log_odds = np.column_stack([z, systemic, cyclosporine]) @ p.allocation + p.unmeasured * unmeasured
    log_odds -= rng.gumbel(size=n)
    drug = np.full(n, ARMS[0], dtype=object)
    drug[np.argsort(log_odds)[: p.patients[ARMS[1]]]] = ARMS[1]
    patients = pd.DataFrame(
        {
            "patient_id": [f"P{i + 1:03d}" for i in range(n)],
            "diagnosis": "AD",
            "drug": drug,
            "age": _ages(*p.age, n, rng),
            "sex": np.where(rng.random(n) < p.female, "female", "male"),
            "previous_systemic": np.where(systemic, "yes", "no"),
            "previous_cyclosporine": np.where(cyclosporine, "yes", "no"),
            "z": z,
            "unmeasured": unmeasured,
        }
    )
    controls = pd.DataFrame(
        {
            "patient_id": [f"C{i + 1:03d}" for i in range(p.controls)],
            "diagnosis": "healthy",
            "age": _ages(*p.age_controls, p.controls, rng),
            "sex": np.where(rng.random(p.controls) < p.female_controls, "female", "male"),
        }
    )
    return pd.concat([patients, controls], ignore_index=True)


def _course(truth: Truth, people: pd.DataFrame, rng: Generator) -> pd.DataFrame:
    """Recorded severity, lesional skin and dysbiosis of each person at both visits; the shift with its two parts."""
    severity, treatment, skin = truth.severity, truth.treatment, truth.skin
    z, systemic = people["z"].to_numpy(), people["previous_systemic"].eq("yes").to_numpy()
    arms = {name: getattr(treatment, name) for name in ARMS}

    def by_arm(value: Callable[[Arm], float]) -> np.ndarray:
        return people["drug"].map({name: value(arm) for name, arm in arms.items()}).to_numpy(float)

    e_oscorad, e_improved, e_later, e_lesional, e_skin, e_shift = rng.normal(size=(6, len(z)))
    e_day, *e_rater = rng.normal(size=(5, len(z)))
    mean, sd = severity.easi
    # Severity at month 3, were there no drug: what was a bad day at enrolment is followed by a usual one.
    r = severity.correlation
    z_untreated = r * z + np.sqrt(1 - r**2) * e_day - severity.flare * np.sqrt(1 - r)
    easi, untreated = (np.clip(np.exp(mean + sd * x), None, 72) for x in (z, z_untreated))
    log_remaining = by_arm(lambda a: a.remaining[0]) + by_arm(lambda a: a.remaining[1]) * e_improved
    later = np.clip(untreated * np.exp(log_remaining + treatment.previous_systemic * systemic), None, 72)
    improvement = 1 - later / easi
    r = severity.oscorad_correlation
    oscorad = np.clip(severity.oscorad[0] + severity.oscorad[1] * (r * z + np.sqrt(1 - r**2) * e_oscorad), 3, 83)
    part, noise_sd = severity.oscorad_improvement
    oscorad_later = np.clip(oscorad * (1 - part * improvement + noise_sd * e_later), 0, 83)
    # One draw serves both visits: a site that heals is one that was lesional. At month 3 the flag is a consequence of
    # severity and does not act on the skin, so that the two parts of the shift are all there is.
    propensity = ndtr(e_lesional)
    z_later = (np.log(np.maximum(later, 0.05)) - mean) / sd
    lesional, lesional_untreated, lesional_later = (
        propensity < expit(severity.lesional[0] + severity.lesional[1] * x) for x in (z, z_untreated, z_later)
    )

    def dysbiosis(x: np.ndarray, inflamed: np.ndarray) -> np.ndarray:
        of_patients = skin.disease * (skin.intercept + skin.severity * x + skin.lesional * inflamed + skin.sd * e_skin)
        return np.where(np.isnan(x), 0, np.maximum(of_patients, 0))

    start, end = dysbiosis(z, lesional), dysbiosis(z_untreated, lesional_untreated)
    # -e_improved: less remaining is more improvement.
    noise = -treatment.confounding * e_improved + np.sqrt(1 - treatment.confounding**2) * e_shift
    direct, mediated = by_arm(lambda a: a.direct), by_arm(lambda a: a.mediated) * (1 - later / untreated)
    shift = direct + mediated + treatment.shift_sd * noise + treatment.unmeasured * people["unmeasured"].to_numpy()
    spread = np.sqrt(np.log1p(severity.rater**2))
    scores = zip((easi, later, oscorad, oscorad_later), e_rater, (72, 72, 83, 83), strict=True)
    recorded = [np.clip(x * np.exp(spread * e - spread**2 / 2), None, most) for x, e, most in scores]
    return pd.DataFrame(
        {
            **dict(zip(("EASI_M0", "EASI_M3", "oSCORAD_M0", "oSCORAD_M3"), recorded, strict=True)),
            "lesional_M0": lesional, "lesional_M3": lesional_later, "improvement": improvement,
            "direct": direct, "mediated": mediated, "shift": shift,
            "D_M0": start, "D_M3": np.where(np.isnan(z), 0, np.maximum(end * (1 - shift), 0)),
            "aside_M0": 0.0, "aside_M3": np.nan_to_num(by_arm(lambda a: a.aside)),
        }
    )  # fmt: skip


# --- skin and reads --------------------------------------------------------------------------------------------------


def _composition(
    truth: Truth, person: np.ndarray, dysbiosis: np.ndarray, aside: np.ndarray, run: np.ndarray, rng: Generator
) -> np.ndarray:
    """Expected share of each ASV on the skin under each swab."""
    kinds = catalogue(truth)
    taxa = pd.DataFrame([t.model_dump() for t in kinds.taxa])
    people, swabs, k = person.max() + 1, len(person), len(taxa)
    D, share = dysbiosis[:, None], truth.skin.subject_share

    def persistent() -> np.ndarray:
        """Standard normal values, swabs x taxa, that a person's two swabs partly share."""
        own, passing = rng.normal(size=(people, k))[person], rng.normal(size=(swabs, k))
        return np.sqrt(share) * own + np.sqrt(1 - share) * passing

    logits = np.clip(logit(taxa["prevalence"].to_numpy()), -40, 40) + taxa["colonisation"].to_numpy() * D
    present = persistent() < ndtri(np.clip(expit(logits), 1e-12, 1 - 1e-12))
    log_abundance = taxa["effect"].to_numpy() * D + taxa["sd"].to_numpy() * persistent()
    log_abundance += truth.skin.batch_sd * rng.normal(size=(run.max() + 1, k))[run]
    abundance = present * taxa["share"].to_numpy() * np.exp(log_abundance)
    # Aside: by turns up and down, and what these taxa have together stays theirs, so that no other share moves.
    own = [list(taxa["name"]).index(name) for name in truth.skin.aside]
    moved = abundance[:, own] * np.exp(np.outer(aside, [(-1) ** i for i in range(len(own))]))
    abundance[:, own] = moved * (abundance[:, own].sum(axis=1) / np.maximum(moved.sum(axis=1), 1e-300))[:, None]
    # Strains: a person has few of a taxon's ASVs (a Dirichlet split of low concentration), and keeps them.
    strains = rng.gamma(truth.skin.strains * kinds.weights, size=(people, len(kinds.weights)))[person] + 1e-300
    strains *= np.exp(truth.skin.strain_drift * rng.normal(size=strains.shape))
    starts = np.searchsorted(kinds.taxon, np.arange(k))
    strains /= np.add.reduceat(strains, starts, axis=1)[:, kinds.taxon]
    asvs = abundance[:, kinds.taxon] * strains
    return asvs / asvs.sum(axis=1, keepdims=True)


def _reads(
    truth: Truth, composition: np.ndarray, run: np.ndarray, rng: Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of the swabs, counts of the negative controls, and the run of those."""
    kinds, s = catalogue(truth), truth.sequencing
    n, inside = len(composition), np.flatnonzero(kinds.contaminant)
    mean, sd = np.where((rng.random(n) < s.shallow)[:, None], s.depth_shallow, s.depth).T
    depth = np.minimum(np.exp(rng.normal(mean, sd)), s.depth_most).astype(int)
    profile = rng.dirichlet(np.full(len(inside), s.contaminant_profile), size=len(s.runs_patients))
    # A swab with little skin DNA amplifies less, and what is in the reagents amplifies instead.
    expected = s.contaminant_reads * np.sqrt(np.exp(s.depth[0]) / np.maximum(depth, 1))
    contaminants = rng.poisson(expected[:, None] * profile[run])
    counts = rng.multinomial(np.maximum(depth - contaminants.sum(axis=1), 0), composition)
    counts[:, inside] += contaminants
    negative_run = np.arange(s.negatives) % len(profile)
    negative_depth = np.exp(rng.normal(*s.negative_depth, s.negatives))
    # Cross-talk: reads of the skin of some swab or other.
    skin = rng.poisson(s.negative_skin * negative_depth[:, None] * composition[rng.integers(n, size=s.negatives)])
    skin[:, inside] += rng.poisson((1 - s.negative_skin) * negative_depth[:, None] * profile[negative_run])
    return counts, skin, negative_run


def _runs(truth: Truth, case: np.ndarray, rng: Generator) -> np.ndarray:
    """Sequencing run of each person's two swabs, people x visits."""
    s = truth.sequencing
    edges = np.where(case[:, None], np.cumsum(s.runs_patients), np.cumsum(s.runs_controls))[:, :-1]
    draws = rng.random((3, len(case)))
    run = (draws[:2, :, None] > edges).sum(axis=2)
    return np.column_stack([run[0], np.where(draws[2] < s.same_run, run[0], run[1])])


# --- the cohort ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SimulatedCohort:
    """A simulated study."""

    #: Reads, swabs x all ASVs of the catalogue.
    counts: sparse.csr_array
    #: One row a swab, in the order of `counts`; the columns of metadata.tsv, indexed by ``swab_id``.
    metadata: pd.DataFrame
    #: Column Taxon, indexed by ASV.
    taxonomy: pd.DataFrame
    #: Newick; its tips are the ASVs.
    tree: str
    #: One row a person, also those who were lost: what no study would see (D, shift, its two parts; improvement of
    #: EASI without the raters' errors; the cause that nobody records), and the severity that is recorded.
    hidden: pd.DataFrame

    @property
    def seen(self) -> np.ndarray:
        """Positions of the ASVs that have reads."""
        return np.flatnonzero(self.counts.sum(axis=0))


def simulate_cohort(truth: Truth, seed: int | None = None) -> SimulatedCohort:
    """Draw a cohort.

    Each part has its own random stream, so that cohorts of one seed under two truths have the same people and noise.
    """
    streams = iter(np.random.default_rng(truth.seed if seed is None else seed).spawn(7))
    kinds, s = catalogue(truth), truth.sequencing
    people = _people(truth, next(streams))
    hidden = people.join(_course(truth, people, next(streams)))
    n = len(people)
    person, visit = np.tile(np.arange(n), 2), np.repeat([0, 1], n)
    run = _runs(truth, people["diagnosis"].eq("AD").to_numpy(), next(streams))[person, visit]
    dysbiosis, aside = (hidden[[f"{x}_M0", f"{x}_M3"]].to_numpy()[person, visit] for x in ("D", "aside"))
    composition = _composition(truth, person, dysbiosis, aside, run, next(streams))
    counts, negatives, negative_run = _reads(truth, composition, run, next(streams))

    blank = pd.DataFrame({"sample_type": ["negative control"] * len(negative_run)})
    metadata = pd.concat([*(_visit(hidden, v) for v in VISITS), blank], ignore_index=True)
    metadata["sequencing_run"] = [f"run{r + 1}" for r in (*run, *negative_run)]
    rng = next(streams)
    remaining = 1 - hidden["improvement"].fillna(1).to_numpy()
    lost = (rng.random(n) < expit(logit(s.lost) + s.lost_remaining * remaining))[person] & (visit == 1)
    kept = np.append(~lost & (rng.random(2 * n) >= s.missing), np.ones(s.negatives, dtype=bool))
    order = next(streams).permutation(np.flatnonzero(kept))  # the order of the swabs tells nothing about them
    metadata = metadata.loc[order, [c for c in COLUMNS if c != "swab_id"]]
    metadata.index = pd.Index([f"SW{i + 1:04d}" for i in range(len(order))], name="swab_id")
    X = sparse.csr_array(np.vstack([counts, negatives])[order])
    return SimulatedCohort(X, metadata, kinds.taxonomy, kinds.tree, hidden)


def _visit(hidden: pd.DataFrame, visit: str) -> pd.DataFrame:
    """The rows of metadata.tsv of one visit, if nobody were missing."""
    case = hidden["diagnosis"].eq("AD")
    rows = hidden.assign(sample_type="swab", visit=visit, body_site="antecubital fossa")
    rows["lesional"] = hidden[f"lesional_{visit}"].map({True: "yes", False: "no"}).where(case)
    for score in ("EASI", "oSCORAD"):
        rows[score] = hidden[f"{score}_{visit}"].round(1)
    return rows


# --- files -----------------------------------------------------------------------------------------------------------


def _biom(cohort: SimulatedCohort, features: np.ndarray) -> str:
    """BIOM 1.0: plain JSON, since the bytes of compressed HDF5 depend on the libraries that wrote it."""
    X = cohort.counts[:, features].T.tocoo()
    order = np.lexsort((X.col, X.row))
    table = packaged("simulation/biom.yaml") | {
        "shape": list(X.shape),
        "rows": [{"id": i, "metadata": None} for i in cohort.taxonomy.index[features]],
        "columns": [{"id": i, "metadata": None} for i in cohort.metadata.index],
        "data": np.column_stack([X.row, X.col, X.data])[order].tolist(),
    }
    return json.dumps(table, separators=(",", ":")) + "\n"


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def _truth_yaml() -> str:
    """Every parameter of the demo, and what the catalogue made of them: rare genera, and ASVs that are S. aureus."""
    truth = Truth()
    kinds = catalogue(truth)
    aureus = kinds.taxon == [t.name for t in kinds.taxa].index(PATHOGEN)
    unnamed = kinds.taxonomy["Taxon"].str.endswith("s__").to_numpy()
    env = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, keep_trailing_newline=True)
    env.filters["flow"] = _flow
    return env.get_template("truth.yaml.j2").render(
        parameters=PARAMETERS,
        taxa=truth.taxa,
        rare=kinds.taxa[len(truth.taxa) : -len(truth.contaminants)],
        named=list(kinds.taxonomy.index[aureus & ~unnamed]),
        unnamed=list(kinds.taxonomy.index[aureus & unnamed]),
    )


def metadata_text(cohort: SimulatedCohort) -> str:
    """Content of metadata.tsv."""
    return cohort.metadata.astype({"age": "Int64"}).to_csv(float_format="%.1f", sep="\t", lineterminator="\n")


def write_study(truth: Truth, folder: str | Path) -> dict[str, str]:
    """Write a cohort's files, the same bytes for the same truth; returns SHA-256 by file name, as in ``SHA256SUMS``.

    The demo cohort's have its truth, too. The file study.yaml, written by hand, stays as it is.
    """
    cohort = simulate_cohort(truth)
    tree = TreeNode.read([cohort.tree]).shear(list(cohort.taxonomy.index[cohort.seen]))
    contents = {
        "counts.biom": _biom(cohort, cohort.seen),
        "metadata.tsv": metadata_text(cohort),
        "taxonomy.tsv": cohort.taxonomy.iloc[cohort.seen].to_csv(sep="\t", lineterminator="\n"),
        "tree.nwk": str(tree),
    } | ({"truth.yaml": _truth_yaml()} if truth == Truth() else {})
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}
    contents["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    for name, text in contents.items():
        write_whole(Path(folder) / name, text)
    return sums


def simulate(folder: str | Path = DEMO) -> str:
    """Write the files of the demo study, byte for byte the same each time; their checksums."""
    return "\n".join(f"{digest}  {file}" for file, digest in write_study(Truth(), folder).items())
