"""The truth of the simulated cohort: every parameter, calibrated or assumed, and the taxa of its skin."""

import csv
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field

from helpers.study import Strict

Model = TypeVar("Model", bound=BaseModel)
PATHOGEN = "Staphylococcus aureus"
ARMS = ("dupilumab", "cyclosporine")

_HERE = Path(__file__).parent
#: A line an order: phylum;class;order|family:genera|family:genera, in the names of SILVA 138.
LINEAGES = _HERE.joinpath("lineages.txt").read_text(encoding="utf-8").splitlines()
#: The parameters of the demo cohort but its taxa, each with what it is. "Calibrated": chosen so that the cohort's shape
#: meets published figures (data/README.md). "Assumption": chosen freely.
PARAMETERS = _HERE.joinpath("truth.yaml").read_text(encoding="utf-8")
_DEMO = yaml.safe_load(PARAMETERS)

Pair = tuple[float, float]


class Population(Strict):
    """Who takes part."""

    patients: dict[str, int]
    controls: int
    age: Pair
    age_controls: Pair
    female: float
    female_controls: float
    previous_systemic: Pair
    previous_cyclosporine: float
    allocation: tuple[float, float, float]
    unmeasured: float


class Severity(Strict):
    """EASI and oSCORAD; the latent severity z is standard normal at baseline."""

    easi: Pair
    oscorad: Pair
    oscorad_correlation: float
    oscorad_improvement: Pair
    lesional: Pair
    correlation: float = Field(ge=0, le=1)
    flare: float
    rater: float = Field(ge=0)


class Arm(Strict):
    """What a drug does to EASI and to the skin."""

    remaining: Pair
    direct: float
    mediated: float
    aside: float


class Treatment(Strict):
    """The two arms, and what they share."""

    dupilumab: Arm
    cyclosporine: Arm
    previous_systemic: float
    shift_sd: float
    confounding: float = Field(ge=-1, le=1)
    unmeasured: float


class Skin(Strict):
    """From severity to the skin; what the skin does to each taxon is in `Taxon`."""

    disease: float
    intercept: float
    severity: float
    lesional: float
    sd: float
    subject_share: float = Field(ge=0, le=1)
    strains: float
    strain_drift: float
    batch_sd: float
    aside: tuple[str, ...]


class Sequencing(Strict):
    """Reads, contaminants, and what gets lost."""

    runs_patients: tuple[float, ...]
    runs_controls: tuple[float, ...]
    same_run: float
    depth: Pair
    depth_most: int
    shallow: float
    depth_shallow: Pair
    contaminant_reads: float
    contaminant_profile: float
    negatives: int
    negative_depth: Pair
    negative_skin: float
    lost: float
    lost_remaining: float
    missing: float


class Tail(Strict):
    """The other genera, made from `Truth.catalogue_seed`."""

    total: float
    slope: float
    prevalence: Pair
    effect: Pair
    unaffected: float
    asvs: tuple[int, int]


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


_ROWS = csv.DictReader(_HERE.joinpath("taxa.csv").read_text(encoding="utf-8").splitlines())
#: *S. aureus* alone colonises more where the skin is inflamed.
TAXA = tuple(map(Taxon.model_validate, _ROWS))


class Truth(Strict):
    """Every parameter of a simulated cohort: where nothing else is given, of the demo cohort."""

    seed: int = _DEMO["seed"]
    catalogue_seed: int = _DEMO["catalogue_seed"]
    population: Population = Population(**_DEMO["population"])
    severity: Severity = Severity(**_DEMO["severity"])
    treatment: Treatment = Treatment(**_DEMO["treatment"])
    skin: Skin = Skin(**_DEMO["skin"])
    sequencing: Sequencing = Sequencing(**_DEMO["sequencing"])
    tail: Tail = Tail(**_DEMO["tail"])
    contaminants: tuple[str, ...] = tuple(_DEMO["contaminants"])
    taxa: tuple[Taxon, ...] = TAXA


def changed(model: Model, **values: Any) -> Model:
    """A copy with other values; where a field is a model too, a dict has the other values of its fields."""

    def new(old: Any, value: Any) -> Any:
        return changed(old, **value) if isinstance(old, BaseModel) and isinstance(value, dict) else value

    return model.model_copy(update={name: new(getattr(model, name), value) for name, value in values.items()})


def without_effects(truth: Truth, *, disease: bool = True) -> Truth:
    """The null truth: no drug changes the skin and, unless `disease` is kept, patients do not differ from controls."""
    arms = {name: {"direct": 0.0, "mediated": 0.0, "aside": 0.0} for name in ARMS}
    return changed(truth, treatment=arms, skin={} if disease else {"disease": 0.0})
