"""The simulated cohort: a treatment-response study of skin swabs with a known truth.

A patient's skin has one hidden number, the dysbiosis D: 0 is the skin of the controls, about 1 inflamed skin. At
baseline it rises with severity and in lesional skin. Treatment takes a part of it away::

    D(month 3) = D(baseline) * (1 - shift)
    shift      = direct[arm] + mediated[arm] * (relative improvement of EASI) + noise

so that what a drug does to the skin itself and what it does through clinical improvement are separate parameters. The
log abundance of each taxon is linear in D; *S. aureus* is colonisation times abundance, and both depend on D. Reads are
multinomial. Nothing else in the skin differs between visits or arms.

``python -m helpers.simulate data/demo`` writes the files of the demo study, byte for byte the same each time.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.random import Generator
from pydantic import BaseModel, Field
from scipy import sparse
from scipy.special import expit, logit, ndtr, ndtri
from skbio import TreeNode

from helpers.study import Strict

VISITS = ("M0", "M3")
ARMS = ("dupilumab", "cyclosporine")
PATHOGEN = "Staphylococcus aureus"
COLUMNS = (
    "swab_id", "patient_id", "sample_type", "diagnosis", "drug", "visit", "body_site", "lesional", "age", "sex",
    "sequencing_run", "EASI", "oSCORAD", "previous_systemic", "previous_cyclosporine",
)  # fmt: skip

#: Phylum;class;order|family:genera|family:genera, in the names of SILVA 138.
LINEAGES = """
Actinobacteriota;Actinobacteria;Propionibacteriales|Propionibacteriaceae:Cutibacterium,Propionibacterium
Actinobacteriota;Actinobacteria;Propionibacteriales|Nocardioidaceae:Nocardioides,Aeromicrobium,Marmoricola,Kribbella
Actinobacteriota;Actinobacteria;Corynebacteriales|Corynebacteriaceae:Corynebacterium,Lawsonella|Dietziaceae:Dietzia
Actinobacteriota;Actinobacteria;Corynebacteriales|Nocardiaceae:Rhodococcus,Gordonia,Nocardia,Williamsia
Actinobacteriota;Actinobacteria;Corynebacteriales|Mycobacteriaceae:Mycobacterium
Actinobacteriota;Actinobacteria;Micrococcales|Micrococcaceae:Micrococcus,Kocuria,Rothia,Arthrobacter,Nesterenkonia
Actinobacteriota;Actinobacteria;Micrococcales|Brevibacteriaceae:Brevibacterium
Actinobacteriota;Actinobacteria;Micrococcales|Dermabacteraceae:Brachybacterium,Dermabacter
Actinobacteriota;Actinobacteria;Micrococcales|Dermacoccaceae:Dermacoccus,Kytococcus
Actinobacteriota;Actinobacteria;Micrococcales|Intrasporangiaceae:Janibacter,Ornithinimicrobium,Knoellia
Actinobacteriota;Actinobacteria;Micrococcales|Microbacteriaceae:Microbacterium,Curtobacterium,Leucobacter,Agrococcus
Actinobacteriota;Actinobacteria;Micrococcales|Cellulomonadaceae:Cellulomonas
Actinobacteriota;Actinobacteria;Actinomycetales|Actinomycetaceae:Actinomyces,Schaalia,Varibaculum,Mobiluncus
Actinobacteriota;Actinobacteria;Bifidobacteriales|Bifidobacteriaceae:Bifidobacterium,Gardnerella,Scardovia
Actinobacteriota;Actinobacteria;Frankiales|Geodermatophilaceae:Blastococcus,Geodermatophilus,Modestobacter
Actinobacteriota;Actinobacteria;Streptomycetales|Streptomycetaceae:Streptomyces
Actinobacteriota;Actinobacteria;Pseudonocardiales|Pseudonocardiaceae:Pseudonocardia
Actinobacteriota;Coriobacteriia;Coriobacteriales|Atopobiaceae:Atopobium,Olsenella|Coriobacteriaceae:Collinsella
Firmicutes;Bacilli;Staphylococcales|Staphylococcaceae:Staphylococcus,Macrococcus,Jeotgalicoccus,Salinicoccus
Firmicutes;Bacilli;Staphylococcales|Gemellaceae:Gemella
Firmicutes;Bacilli;Lactobacillales|Streptococcaceae:Streptococcus,Lactococcus|Lactobacillaceae:Lactobacillus,Pediococcus
Firmicutes;Bacilli;Lactobacillales|Enterococcaceae:Enterococcus
Firmicutes;Bacilli;Lactobacillales|Carnobacteriaceae:Granulicatella,Dolosigranulum,Alloiococcus
Firmicutes;Bacilli;Lactobacillales|Aerococcaceae:Abiotrophia,Aerococcus,Facklamia
Firmicutes;Bacilli;Bacillales|Bacillaceae:Bacillus,Anoxybacillus,Geobacillus
Firmicutes;Bacilli;Bacillales|Planococcaceae:Lysinibacillus,Planococcus,Sporosarcina
Firmicutes;Bacilli;Paenibacillales|Paenibacillaceae:Paenibacillus
Firmicutes;Bacilli;Exiguobacterales|Exiguobacteraceae:Exiguobacterium
Firmicutes;Clostridia;Peptostreptococcales-Tissierellales|Family XI:Anaerococcus,Finegoldia,Peptoniphilus,Ezakiella
Firmicutes;Clostridia;Peptostreptococcales-Tissierellales|Peptostreptococcaceae:Peptostreptococcus,Romboutsia
Firmicutes;Clostridia;Lachnospirales|Lachnospiraceae:Blautia,Roseburia,Dorea,Oribacterium,Stomatobaculum
Firmicutes;Clostridia;Oscillospirales|Ruminococcaceae:Faecalibacterium,Ruminococcus,Subdoligranulum
Firmicutes;Negativicutes;Veillonellales-Selenomonadales|Veillonellaceae:Veillonella,Dialister,Megasphaera
Firmicutes;Negativicutes;Veillonellales-Selenomonadales|Selenomonadaceae:Selenomonas
Bacteroidota;Bacteroidia;Bacteroidales|Prevotellaceae:Prevotella,Alloprevotella|Bacteroidaceae:Bacteroides
Bacteroidota;Bacteroidia;Bacteroidales|Porphyromonadaceae:Porphyromonas|Rikenellaceae:Alistipes
Bacteroidota;Bacteroidia;Flavobacteriales|Flavobacteriaceae:Flavobacterium,Capnocytophaga
Bacteroidota;Bacteroidia;Flavobacteriales|Weeksellaceae:Chryseobacterium,Bergeyella,Cloacibacterium
Bacteroidota;Bacteroidia;Cytophagales|Hymenobacteraceae:Hymenobacter|Spirosomaceae:Spirosoma,Dyadobacter
Bacteroidota;Bacteroidia;Sphingobacteriales|Sphingobacteriaceae:Pedobacter,Sphingobacterium
Proteobacteria;Alphaproteobacteria;Rhodobacterales|Rhodobacteraceae:Paracoccus,Rubellimicrobium
Proteobacteria;Alphaproteobacteria;Sphingomonadales|Sphingomonadaceae:Sphingomonas,Novosphingobium,Sphingobium
Proteobacteria;Alphaproteobacteria;Rhizobiales|Beijerinckiaceae:Methylobacterium,Bosea
Proteobacteria;Alphaproteobacteria;Rhizobiales|Xanthobacteraceae:Bradyrhizobium,Afipia
Proteobacteria;Alphaproteobacteria;Rhizobiales|Rhizobiaceae:Ochrobactrum,Aureimonas,Mesorhizobium
Proteobacteria;Alphaproteobacteria;Caulobacterales|Caulobacteraceae:Brevundimonas,Caulobacter
Proteobacteria;Alphaproteobacteria;Acetobacterales|Acetobacteraceae:Roseomonas,Acetobacter
Proteobacteria;Gammaproteobacteria;Pseudomonadales|Moraxellaceae:Moraxella,Acinetobacter,Enhydrobacter,Psychrobacter
Proteobacteria;Gammaproteobacteria;Pseudomonadales|Pseudomonadaceae:Pseudomonas
Proteobacteria;Gammaproteobacteria;Enterobacterales|Enterobacteriaceae:Escherichia-Shigella,Klebsiella,Enterobacter
Proteobacteria;Gammaproteobacteria;Enterobacterales|Erwiniaceae:Pantoea|Yersiniaceae:Serratia
Proteobacteria;Gammaproteobacteria;Pasteurellales|Pasteurellaceae:Haemophilus,Aggregatibacter,Actinobacillus
Proteobacteria;Gammaproteobacteria;Xanthomonadales|Xanthomonadaceae:Stenotrophomonas,Xanthomonas,Lysobacter
Proteobacteria;Gammaproteobacteria;Burkholderiales|Comamonadaceae:Delftia,Pelomonas,Acidovorax,Comamonas,Variovorax
Proteobacteria;Gammaproteobacteria;Burkholderiales|Burkholderiaceae:Ralstonia,Cupriavidus,Lautropia
Proteobacteria;Gammaproteobacteria;Burkholderiales|Oxalobacteraceae:Massilia,Herbaspirillum,Duganella
Proteobacteria;Gammaproteobacteria;Burkholderiales|Neisseriaceae:Neisseria,Kingella,Eikenella
Fusobacteriota;Fusobacteriia;Fusobacteriales|Fusobacteriaceae:Fusobacterium|Leptotrichiaceae:Leptotrichia
Deinococcota;Deinococci;Deinococcales|Deinococcaceae:Deinococcus
Deinococcota;Deinococci;Thermales|Thermaceae:Thermus,Meiothermus
Campylobacterota;Campylobacteria;Campylobacterales|Campylobacteraceae:Campylobacter
Verrucomicrobiota;Verrucomicrobiae;Verrucomicrobiales|Akkermansiaceae:Akkermansia
"""


# --- the truth -------------------------------------------------------------------------------------------------------
# "Calibrated": chosen so that the cohort's shape meets published figures (data/README.md). "Assumption": chosen freely.


class Population(Strict):
    """Who takes part."""

    patients: dict[str, int] = Field({"dupilumab": 130, "cyclosporine": 27}, description="by drug; the study's sizes")
    controls: int = Field(258, description="the study's size")
    age: tuple[float, float] = Field(
        (41.5, 15.5), description="patients, mean and SD before the cut at 18 and 85; calibrated"
    )
    age_controls: tuple[float, float] = Field((46.0, 16.0), description="assumption")
    female: float = Field(0.40, description="share of the patients; calibrated")
    female_controls: float = Field(0.50, description="assumption")
    previous_systemic: tuple[float, float] = Field((0.2, 0.5), description="logit: intercept, severity; assumption")
    previous_cyclosporine: float = Field(0.45, description="share of those treated systemically before; assumption")
    allocation: tuple[float, float, float] = Field(
        (0.4, 0.5, 0.4),
        description="log odds of dupilumab by severity (SD), previous systemic, previous cyclosporine; assumption",
    )


class Severity(Strict):
    """EASI and oSCORAD; the latent severity z is standard normal at baseline."""

    easi: tuple[float, float] = Field((3.0, 0.5), description="log EASI at baseline, mean and SD; assumption")
    oscorad: tuple[float, float] = Field((40.8, 16.3), description="at baseline, mean and SD; calibrated")
    oscorad_correlation: float = Field(0.78, description="of oSCORAD with z; assumption")
    oscorad_improvement: tuple[float, float] = Field(
        (0.7, 0.12), description="oSCORAD falls by this part of the relative improvement of EASI, and SD; assumption"
    )
    lesional: tuple[float, float] = Field(
        (0.75, 0.6), description="logit of a lesional swab at each visit: intercept, z of that visit; assumption"
    )


class Arm(Strict):
    """What a drug does to EASI and to the skin."""

    remaining: tuple[float, float] = Field(description="log of EASI at month 3 / baseline, mean and SD; assumption")
    direct: float = Field(description="part of the dysbiosis that goes whatever the severity does; assumption")
    mediated: float = Field(description="part that goes for an improvement of EASI by 100 %; assumption")


class Treatment(Strict):
    """The two arms, and what they share."""

    dupilumab: Arm = Arm(remaining=(-1.65, 0.95), direct=0.35, mediated=0.35)
    cyclosporine: Arm = Arm(remaining=(-1.15, 0.85), direct=0.0, mediated=0.25)
    previous_systemic: float = Field(0.1, description="added to log remaining EASI if treated before; assumption")
    shift_sd: float = Field(0.15, description="SD of the noise of the shift; assumption")
    confounding: float = Field(
        0.0, ge=-1, le=1, description="correlation of that noise with improvement: an unmeasured cause; assumption"
    )


class Skin(Strict):
    """From severity to the skin; what the skin does to each taxon is in `Taxon`."""

    disease: float = Field(1.0, description="multiplies the dysbiosis of all patients: 0 makes AD skin control skin")
    intercept: float = Field(0.7, description="D of non-lesional skin at mean severity; calibrated")
    severity: float = Field(0.3, description="D by one SD of severity; assumption")
    lesional: float = Field(0.35, description="D of lesional skin, added; calibrated")
    sd: float = Field(0.15, description="SD of D between patients of the same severity; assumption")
    subject_share: float = Field(
        0.5, ge=0, le=1, description="share of a taxon's variance that is the person's; assumption"
    )
    strains: float = Field(0.8, description="concentration of the Dirichlet split of a taxon into ASVs; calibrated")
    strain_drift: float = Field(0.3, description="SD of an ASV's log share of its taxon within a person; assumption")
    batch_sd: float = Field(0.25, description="SD of a taxon's log abundance between sequencing runs; assumption")


class Sequencing(Strict):
    """Reads, contaminants, and what gets lost."""

    runs_patients: tuple[float, ...] = Field((0.3, 0.25, 0.25, 0.2), description="shares of the runs; assumption")
    runs_controls: tuple[float, ...] = Field((0.2, 0.25, 0.25, 0.3), description="shares of the runs; assumption")
    same_run: float = Field(0.6, description="share of persons with both swabs in one run; assumption")
    depth: tuple[float, float] = Field((9.6, 0.75), description="log reads, mean and SD; calibrated")
    depth_most: int = Field(60_000, description="no swab has more reads; assumption")
    shallow: float = Field(0.04, description="share of swabs that hardly amplified; assumption")
    depth_shallow: tuple[float, float] = Field((6.0, 0.6), description="log reads of those; assumption")
    contaminant_reads: float = Field(
        6.0, description="expected in a swab of median depth; falls with the square root of depth; assumption"
    )
    contaminant_profile: float = Field(0.7, description="Dirichlet concentration of a run's contaminants; assumption")
    negatives: int = Field(8, description="negative-control swabs, spread over the runs")
    negative_depth: tuple[float, float] = Field((5.5, 0.7), description="log reads of those; assumption")
    negative_skin: float = Field(0.1, description="share of skin reads in those (cross-talk); assumption")
    lost: float = Field(0.06, description="share of persons without month 3; assumption")
    missing: float = Field(0.03, description="share of other swabs that are missing; assumption")


class Taxon(Strict):
    """A species, or a genus not split further, as the skin has it."""

    name: str
    share: float = Field(description="abundance in control skin where present, relative; the median person")
    effect: float = Field(description="change of log abundance by D = 1")
    prevalence: float = Field(description="share of control swabs that have it")
    colonisation: float = Field(0.0, description="change of the logit of its prevalence by D = 1")
    sd: float = Field(1.4, description="SD of log abundance between swabs")
    asvs: int
    unnamed: float = Field(0.0, description="share of its reads in ASVs without a species name")


def _taxa(table: str) -> tuple[Taxon, ...]:
    fields = ("share", "effect", "prevalence", "colonisation", "sd", "asvs", "unnamed")
    rows = (line.split(",") for line in table.split("\n") if line)
    return tuple(Taxon(name=name, **dict(zip(fields, map(float, rest), strict=True))) for name, *rest in rows)


#: The columns are the fields of `Taxon`. *S. aureus* alone colonises more where the skin is inflamed.
TAXA = _taxa("""
Staphylococcus aureus,0.026,2.6,0.07,7.5,2,10,0.12
Staphylococcus epidermidis,0.012,0.5,0.9,0,2.2,10,0.1
Staphylococcus hominis,0.008,0.3,0.85,0,2.2,8,0.1
Staphylococcus capitis,0.004,0.3,0.6,0,2,6,0.1
Staphylococcus haemolyticus,0.004,0.4,0.5,0,1.8,5,0.1
Staphylococcus lugdunensis,0.002,0.2,0.3,0,1.8,4,0.1
Staphylococcus,0.003,0.3,0.6,0,1.8,6,1
Cutibacterium acnes,0.200,-0.6,1,0,1.2,12,0.15
Cutibacterium granulosum,0.010,-0.5,0.7,0,1.3,4,0
Corynebacterium tuberculostearicum,0.060,-0.5,0.95,0,1.3,10,0.1
Corynebacterium kroppenstedtii,0.015,-0.4,0.5,0,1.5,5,0
Corynebacterium,0.040,-0.5,0.95,0,1.3,20,1
Micrococcus luteus,0.040,-0.4,0.9,0,1.3,8,0.2
Streptococcus mitis,0.035,-0.3,0.9,0,1.4,10,0.3
Streptococcus salivarius,0.012,-0.2,0.7,0,1.4,6,0.3
Streptococcus,0.015,-0.3,0.8,0,1.4,12,1
Anaerococcus octavius,0.012,-0.6,0.7,0,1.4,6,0
Anaerococcus,0.015,-0.6,0.8,0,1.4,12,1
Finegoldia magna,0.010,-0.5,0.7,0,1.4,6,0
Peptoniphilus,0.008,-0.5,0.6,0,1.4,10,1
Lawsonella clevelandensis,0.015,-0.6,0.7,0,1.4,5,0
Kocuria palustris,0.012,-0.2,0.7,0,1.4,5,0.3
Rothia mucilaginosa,0.008,0,0.6,0,1.4,4,0
Acinetobacter,0.015,0,0.8,0,1.5,14,1
Enhydrobacter aerosaccus,0.012,-0.2,0.7,0,1.5,5,0
Paracoccus,0.015,-0.3,0.8,0,1.4,12,1
Kytococcus sedentarius,0.004,-0.2,0.4,0,1.4,3,0
Brevibacterium,0.006,-0.3,0.5,0,1.5,6,1
Dermacoccus,0.006,-0.4,0.5,0,1.4,5,1
Haemophilus parainfluenzae,0.006,0,0.5,0,1.4,4,0
""")


class Tail(Strict):
    """The other genera, made from `Truth.catalogue_seed`."""

    total: float = Field(0.22, description="their abundance in control skin together, relative; calibrated")
    slope: float = Field(0.8, description="power law of their abundance by rank; assumption")
    prevalence: tuple[float, float] = Field((0.45, 0.05), description="of the commonest and the rarest; assumption")
    effect: tuple[float, float] = Field((-0.7, 0.3), description="mean and SD of their effects; assumption")
    unaffected: float = Field(0.4, description="share with no effect at all; assumption")
    asvs: tuple[int, int] = Field((1, 6), description="fewest and most a genus; assumption")


class Truth(Strict):
    """Every parameter of the simulated cohort."""

    seed: int = Field(
        3, description="seed of people, swabs and reads; the first, from 1 on, whose cohort has the shape of real data"
    )
    catalogue_seed: int = Field(1, description="seed of ASVs, tree and rare genera, which do not vary between cohorts")
    population: Population = Population()
    severity: Severity = Severity()
    treatment: Treatment = Treatment()
    skin: Skin = Skin()
    sequencing: Sequencing = Sequencing()
    tail: Tail = Tail()
    contaminants: tuple[str, ...] = (
        "Ralstonia", "Bradyrhizobium", "Pelomonas", "Delftia", "Sphingomonas", "Methylobacterium", "Herbaspirillum",
    )  # fmt: skip
    taxa: tuple[Taxon, ...] = Field(TAXA, description="effects are assumptions; shares are calibrated")


def without_effects(truth: Truth, *, disease: bool = True) -> Truth:
    """The null truth: no drug changes the skin and, unless `disease` is kept, the disease does not either.

    Parameters
    ----------
    truth : Truth
    disease : bool
        Whether patients differ from controls.

    Returns
    -------
    Truth
    """
    arms = {name: getattr(truth.treatment, name).model_copy(update={"direct": 0.0, "mediated": 0.0}) for name in ARMS}
    skin = truth.skin if disease else truth.skin.model_copy(update={"disease": 0.0})
    return truth.model_copy(update={"treatment": truth.treatment.model_copy(update=arms), "skin": skin})


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
    effects = np.where(rng.random(n) < tail.unaffected, 0, rng.normal(*tail.effect, n))
    asvs = rng.integers(tail.asvs[0], tail.asvs[1] + 1, n)
    columns = zip(
        genera, shares.round(5), effects.round(2), np.linspace(*tail.prevalence, n).round(2), asvs, strict=True
    )
    return tuple(
        Taxon(name=g, share=float(s), effect=float(e), prevalence=float(p), asvs=int(k), unnamed=1)
        for g, s, e, p, k in columns
    )


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
    for line in LINEAGES.strip().splitlines():
        above, *families = line.split("|")
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
    """One row a person, patients first; z is the severity behind EASI and oSCORAD, NaN in controls."""
    p = truth.population
    n = sum(p.patients.values())
    z = rng.normal(size=n)
    systemic = rng.random(n) < expit(p.previous_systemic[0] + p.previous_systemic[1] * z)
    cyclosporine = systemic & (rng.random(n) < p.previous_cyclosporine)
    # The arms' sizes are fixed: with Gumbel noise, the lowest log odds are a weighted draw without replacement.
    log_odds = np.column_stack([z, systemic, cyclosporine]) @ p.allocation - rng.gumbel(size=n)
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
    """Severity, lesional skin and dysbiosis of each person at both visits, and the shift with its two parts."""
    severity, treatment, skin = truth.severity, truth.treatment, truth.skin
    z, systemic = people["z"].to_numpy(), people["previous_systemic"].eq("yes").to_numpy()
    arms = {name: getattr(treatment, name) for name in ARMS}

    def by_arm(value: Callable[[Arm], float]) -> np.ndarray:
        return people["drug"].map({name: value(arm) for name, arm in arms.items()}).to_numpy(float)

    e_oscorad, e_improved, e_later, e_lesional, e_skin, e_shift = rng.normal(size=(6, len(z)))
    mean, sd = severity.easi
    easi = np.clip(np.exp(mean + sd * z), None, 72)
    log_remaining = by_arm(lambda a: a.remaining[0]) + by_arm(lambda a: a.remaining[1]) * e_improved
    later = np.clip(easi * np.exp(log_remaining + treatment.previous_systemic * systemic), None, 72)
    improvement = 1 - later / easi
    r = severity.oscorad_correlation
    oscorad = np.clip(severity.oscorad[0] + severity.oscorad[1] * (r * z + np.sqrt(1 - r**2) * e_oscorad), 3, 83)
    part, noise_sd = severity.oscorad_improvement
    oscorad_later = np.clip(oscorad * (1 - part * improvement + noise_sd * e_later), 0, 83)
    # One draw serves both visits: a site that heals is one that was lesional. At month 3 the flag is a consequence of
    # severity and does not act on the skin, so that the two parts of the shift are all there is.
    propensity = ndtr(e_lesional)
    z_later = (np.log(np.maximum(later, 0.05)) - mean) / sd
    lesional, lesional_later = (
        propensity < expit(severity.lesional[0] + severity.lesional[1] * x) for x in (z, z_later)
    )
    start = skin.disease * (skin.intercept + skin.severity * z + skin.lesional * lesional + skin.sd * e_skin)
    start = np.where(np.isnan(z), 0, np.maximum(start, 0))
    # -e_improved: less remaining is more improvement.
    noise = -treatment.confounding * e_improved + np.sqrt(1 - treatment.confounding**2) * e_shift
    direct, mediated = by_arm(lambda a: a.direct), by_arm(lambda a: a.mediated) * improvement
    shift = direct + mediated + treatment.shift_sd * noise
    return pd.DataFrame(
        {
            "EASI_M0": easi, "EASI_M3": later, "oSCORAD_M0": oscorad, "oSCORAD_M3": oscorad_later,
            "lesional_M0": lesional, "lesional_M3": lesional_later, "improvement": improvement,
            "direct": direct, "mediated": mediated, "shift": shift,
            "D_M0": start, "D_M3": np.where(np.isnan(z), 0, np.maximum(start * (1 - shift), 0)),
        }
    )  # fmt: skip


# --- skin and reads --------------------------------------------------------------------------------------------------


def _composition(
    truth: Truth, kinds: Catalogue, person: np.ndarray, dysbiosis: np.ndarray, run: np.ndarray, rng: Generator
) -> np.ndarray:
    """Expected share of each ASV on the skin under each swab."""
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
    # Strains: a person has few of a taxon's ASVs (a Dirichlet split of low concentration), and keeps them.
    strains = rng.gamma(truth.skin.strains * kinds.weights, size=(people, len(kinds.weights)))[person] + 1e-300
    strains *= np.exp(truth.skin.strain_drift * rng.normal(size=strains.shape))
    starts = np.searchsorted(kinds.taxon, np.arange(k))
    strains /= np.add.reduceat(strains, starts, axis=1)[:, kinds.taxon]
    asvs = abundance[:, kinds.taxon] * strains
    return asvs / asvs.sum(axis=1, keepdims=True)


def _reads(
    truth: Truth, kinds: Catalogue, composition: np.ndarray, run: np.ndarray, rng: Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of the swabs, counts of the negative controls, and the run of those."""
    s = truth.sequencing
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
    """A simulated study.

    Attributes
    ----------
    counts : csr_array
        Reads, swabs x all ASVs of the catalogue.
    metadata : DataFrame
        One row a swab, in the order of `counts`; the columns of metadata.tsv, indexed by ``swab_id``.
    taxonomy : DataFrame
        Column Taxon, indexed by ASV.
    tree : str
        Newick; its tips are the ASVs.
    hidden : DataFrame
        One row a person, also those who were lost: what no study would see (D, shift, its two parts).
    """

    counts: sparse.csr_array
    metadata: pd.DataFrame
    taxonomy: pd.DataFrame
    tree: str
    hidden: pd.DataFrame


def simulate_cohort(truth: Truth, seed: int | None = None) -> SimulatedCohort:
    """Draw a cohort.

    Each part has its own random stream, so that cohorts of one seed under two truths have the same people and noise.

    Parameters
    ----------
    truth : Truth
    seed : int, optional
        Instead of ``truth.seed``.

    Returns
    -------
    SimulatedCohort
    """
    streams = iter(np.random.default_rng(truth.seed if seed is None else seed).spawn(7))
    kinds, s = catalogue(truth), truth.sequencing
    people = _people(truth, next(streams))
    hidden = people.join(_course(truth, people, next(streams)))
    n = len(people)
    person, visit = np.tile(np.arange(n), 2), np.repeat([0, 1], n)
    run = _runs(truth, people["diagnosis"].eq("AD").to_numpy(), next(streams))[person, visit]
    dysbiosis = hidden[["D_M0", "D_M3"]].to_numpy()[person, visit]
    composition = _composition(truth, kinds, person, dysbiosis, run, next(streams))
    counts, negatives, negative_run = _reads(truth, kinds, composition, run, next(streams))

    rows = [
        _visit(hidden, v).assign(sequencing_run=[f"run{r + 1}" for r in run[visit == i]]) for i, v in enumerate(VISITS)
    ]
    blank = pd.DataFrame({"sample_type": "negative control", "sequencing_run": [f"run{r + 1}" for r in negative_run]})
    metadata = pd.concat([*rows, blank], ignore_index=True)
    rng = next(streams)
    lost = (rng.random(n) < s.lost)[person] & (visit == 1)
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
    table = {
        "id": None,
        "format": "Biological Observation Matrix 1.0.0",
        "format_url": "http://biom-format.org",
        "type": "OTU table",
        "generated_by": "helpers.simulate (SIMULATED data)",
        "date": "2023-01-01T00:00:00",
        "matrix_type": "sparse",
        "matrix_element_type": "int",
        "shape": list(X.shape),
        "rows": [{"id": i, "metadata": None} for i in cohort.taxonomy.index[features]],
        "columns": [{"id": i, "metadata": None} for i in cohort.metadata.index],
        "data": np.column_stack([X.row, X.col, X.data])[order].tolist(),
    }
    return json.dumps(table, separators=(",", ":")) + "\n"


def _yaml(value: BaseModel, indent: str = "") -> str:
    """A model as YAML, each field's description a comment above it."""
    lines = []
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        lines += [f"{indent}# {field.description}"] if field.description else []
        if isinstance(item, BaseModel):
            lines += [f"{indent}{name}:", _yaml(item, indent + "  ").rstrip()]
        elif isinstance(item, tuple) and isinstance(item[0], BaseModel):
            lines += [f"{indent}{name}:", *(f"{indent}  - {_flow(i.model_dump())}" for i in item)]
        else:
            lines.append(f"{indent}{name}: {_flow(list(item) if isinstance(item, tuple) else item)}")
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def _truth_yaml(truth: Truth) -> str:
    """Every parameter, and what the catalogue made of them: the rare genera and the ASVs that are S. aureus."""
    kinds = catalogue(truth)
    aureus = kinds.taxon == [t.name for t in kinds.taxa].index(PATHOGEN)
    unnamed = kinds.taxonomy["Taxon"].str.endswith("s__").to_numpy()
    rare = kinds.taxa[len(truth.taxa) : -len(truth.contaminants)]
    lines = [
        "# SIMULATED: the parameters of the demo cohort, written by src/helpers/simulate.py.",
        "# Calibrated: chosen so that the cohort has the shape of published data (data/README.md).",
        "# Assumption: chosen freely; response rates and every effect of disease and treatment are assumptions.",
        "parameters:",
        _yaml(truth, "  ").rstrip(),
        "# What follows from the parameters.",
        "rare_genera:",
        *(f"  - {_flow(t.model_dump())}" for t in rare),
        "# The ASVs that are S. aureus, by whether the taxonomy says so.",
        "aureus_asvs:",
        f"  named: {_flow(list(kinds.taxonomy.index[aureus & ~unnamed]))}",
        f"  unnamed: {_flow(list(kinds.taxonomy.index[aureus & unnamed]))}",
    ]
    return "\n".join(lines) + "\n"


def write_study(truth: Truth, folder: str | Path) -> dict[str, str]:
    """Write a cohort's files, the same bytes for the same truth; study.yaml, written by hand, stays as it is.

    Parameters
    ----------
    truth : Truth
    folder : str or Path

    Returns
    -------
    dict
        SHA-256 by file name, as in ``SHA256SUMS``.
    """
    cohort = simulate_cohort(truth)
    seen = np.flatnonzero(cohort.counts.sum(axis=0))
    tree = TreeNode.read([cohort.tree]).shear(list(cohort.taxonomy.index[seen]))
    metadata = cohort.metadata.astype({"age": "Int64"})
    tsv = {"sep": "\t", "lineterminator": "\n"}
    contents = {
        "counts.biom": _biom(cohort, seen),
        "metadata.tsv": metadata.to_csv(float_format="%.1f", **tsv),
        "taxonomy.tsv": cohort.taxonomy.iloc[seen].to_csv(**tsv),
        "tree.nwk": str(tree),
        "truth.yaml": _truth_yaml(truth),
    }
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}
    contents["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (Path(folder) / name).write_bytes(text.encode())
    return sums


if __name__ == "__main__":
    for file, digest in write_study(Truth(), sys.argv[1] if len(sys.argv) > 1 else "data/demo").items():
        print(f"{digest}  {file}")
