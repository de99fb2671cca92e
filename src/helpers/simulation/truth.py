"""The truth of the simulated cohort: every parameter, calibrated or assumed, and the taxa of its skin."""

import csv
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from helpers.study import Strict

Model = TypeVar("Model", bound=BaseModel)
PATHOGEN = "Staphylococcus aureus"
ARMS = ("dupilumab", "cyclosporine")

_HERE = Path(__file__).parent
#: A line an order: phylum;class;order|family:genera|family:genera, in the names of SILVA 138.
LINEAGES = _HERE.joinpath("lineages.txt").read_text(encoding="utf-8").splitlines()

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
    unmeasured: float = Field(
        0.0, description="log odds of dupilumab by an SD of a cause that nobody records; assumption"
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
    correlation: float = Field(
        1.0, ge=0, le=1, description="of a patient's z at the two visits, were there no drug; assumption"
    )
    flare: float = Field(
        0.0, description="patients come when worse than usual by this many SD of their own days; assumption"
    )
    rater: float = Field(0.0, ge=0, description="coefficient of variation of a recorded score; assumption")


class Arm(Strict):
    """What a drug does to EASI and to the skin."""

    remaining: tuple[float, float] = Field(description="log of EASI at month 3 / baseline, mean and SD; assumption")
    direct: float = Field(description="part of the dysbiosis that goes whatever the severity does; assumption")
    mediated: float = Field(description="part that goes for an improvement of EASI by 100 %; assumption")
    aside: float = Field(0.0, description="change of log abundance within skin.aside; assumption")


class Treatment(Strict):
    """The two arms, and what they share."""

    dupilumab: Arm = Arm(remaining=(-1.65, 0.95), direct=0.35, mediated=0.35)
    cyclosporine: Arm = Arm(remaining=(-1.15, 0.85), direct=0.0, mediated=0.25)
    previous_systemic: float = Field(0.1, description="added to log remaining EASI if treated before; assumption")
    shift_sd: float = Field(0.15, description="SD of the noise of the shift; assumption")
    confounding: float = Field(
        0.0, ge=-1, le=1, description="correlation of that noise with improvement: an unmeasured cause; assumption"
    )
    unmeasured: float = Field(
        0.0, description="added to the shift by an SD of the cause of allocation that nobody records; assumption"
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
    aside: tuple[str, ...] = Field(
        (
            "Cutibacterium acnes", "Corynebacterium tuberculostearicum", "Rothia mucilaginosa", "Streptococcus mitis",
            "Acinetobacter", "Micrococcus luteus",
        ),
        description="taxa that gain and lose by turns where a drug moves the skin aside, neither towards healthy nor "
        "towards diseased skin; what they have together stays; assumption",
    )  # fmt: skip


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
    lost_remaining: float = Field(
        0.0, description="log odds of it by the part of EASI that remains (all: 1); assumption"
    )
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


#: *S. aureus* alone colonises more where the skin is inflamed.
TAXA = tuple(
    map(Taxon.model_validate, csv.DictReader(_HERE.joinpath("taxa.csv").read_text(encoding="utf-8").splitlines()))
)


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


def changed(model: Model, **values: Any) -> Model:
    """A copy with other values; where a field is a model too, a dict has the other values of its fields."""

    def new(old: Any, value: Any) -> Any:
        return changed(old, **value) if isinstance(old, BaseModel) and isinstance(value, dict) else value

    return model.model_copy(update={name: new(getattr(model, name), value) for name, value in values.items()})


def without_effects(truth: Truth, *, disease: bool = True) -> Truth:
    """The null truth: no drug changes the skin and, unless `disease` is kept, patients do not differ from controls."""
    arms = {name: {"direct": 0.0, "mediated": 0.0, "aside": 0.0} for name in ARMS}
    return changed(truth, treatment=arms, skin={} if disease else {"disease": 0.0})
