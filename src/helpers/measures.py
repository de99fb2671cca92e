"""The registry of measures; and cohort + settings → the measures of each swab, and of each patient at each visit."""

import re
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from skbio import DistanceMatrix

from helpers import diversity, permutation, taxa
from helpers.narrate import p_value, short_name, with_unit
from helpers.study import Settings, Study
from helpers.taxa import PRESENT
from helpers.texts import packaged
from helpers.visits import analysis_swabs, by_patient, compared

SHANNON, POSITION, DISTANCE, PATHOGEN = "shannon", "position", "distance_to_healthy", "pathogen"
#: The axis from healthy to patients' skin seen otherwise: without the genus, in other spaces. And the distance from it.
OTHER_AXES = ("position_without_genus", "position_aitchison", "position_unifrac")
OFF_AXIS = "off_axis"
#: Where the load of swabs was measured: that, and the pathogen's part of it.
LOADS = ("bacterial_load", "pathogen_load")


class Measure(NamedTuple):
    """Something that is measured in a swab or a patient: its names, and what it needs to be measured."""

    label: str
    #: In which it is analysed.
    unit: str
    #: On which it is told to who does not know the unit.
    scale: Literal["SD of controls", "fold change", "per cent", "points"]
    #: Chapters are told apart by it.
    kind: Literal["diversity", "taxon", "severity"]
    #: The direction that is healthier: 1 up, -1 down; 0 where only the controls of the study can tell.
    healthier: Literal[-1, 0, 1] = 0
    #: Of ``counts``, ``tree``, ``controls``; and the taxa that reads must be named after.
    needs: tuple[str, ...] = ()


#: The measures but those of study.yaml's own scores.
OF_SWABS = packaged("measures.yaml")


def registry(study: Study) -> dict[str, Measure]:
    """All measures with a name of their own, by key, their column in ``obs``. Any taxon is one too: see `find`."""
    scores = {s.name: Measure(s.label, "points", "points", "severity", -1) for s in study.severity}
    return of_swabs(study) | scores


def of_swabs(study: Study) -> dict[str, Measure]:
    """The registry without severity scores.

    A measure is added to measures.yaml and in `measured`, and is then known to claims, chapters and simulations.
    """
    taxa = study.taxa.model_dump(include={"genus", "pathogen", "commensal"})
    short = {role: short_name(taxon) for role, taxon in taxa.items()}
    return {
        key: Measure(
            **of | {"label": of["label"].format(**short), "needs": tuple(n.format(**taxa) for n in of["needs"])}
        )
        for key, of in OF_SWABS.items()
    }


def taken(study: Study) -> list[str]:
    """Names of severity scores and covariates that are columns of measures, too."""
    return sorted({*of_swabs(study), PRESENT} & {*(s.name for s in study.severity), *study.columns.covariates})


def is_taxon(key: str) -> bool:
    """Whether a key that is not in the registry can name a genus or a species, and a column of a file: no slash."""
    return bool(re.fullmatch(r"[A-Z][\w.\[\]-]*( [\w.-]+)*", key))


def find(key: str, study: Study) -> Measure:
    """A measure by its key; any name of a genus or species stands for its CLR. `KeyError` if there is no such."""
    known = registry(study)
    if key not in known and key not in study.columns.covariates and is_taxon(key):
        return Measure(short_name(key), "CLR", "fold change", "taxon", 0, ("counts", key))
    return known[key]


def taxa_named(keys: Iterable[str], study: Study) -> list[str]:
    """Names of taxa to be set in italics: those that study.yaml gives, and those that stand for measures."""
    own = [key for key in dict.fromkeys(keys) if key not in registry(study) and is_taxon(key)]
    return [*study.taxa.names, *own, *(find(key, study).label for key in own)]


def axis(key: str, study: Study) -> str:
    """A measure with its unit, as on the axis of a figure."""
    measure = find(key, study)
    return with_unit(measure.label, measure.unit)


def measured(cohort: AnnData, study: Study, settings: Settings, wanted: Iterable[str] | None = None) -> AnnData:
    """Choose the swabs, bring them to one depth, and measure them.

    `wanted` are keys of measures, all of the registry if not given; taxa that no claim names need to be given.

    The swabs that are compared come back: ``X`` rarefied; ``obs`` with a column each measure, NaN where it is not
    known; ``uns["measures"]``, their keys; ``obsp["sqrt_bray_curtis"]``, distances. ``uns["course"]`` is ``obs`` of all
    visits and arms.
    """
    keys = [*registry(study)] if wanted is None else list(dict.fromkeys(wanted))
    depth, seed = settings.rarefaction_depth, settings.seed
    kept = cohort[analysis_swabs(cohort.obs, settings.swabs)]
    swabs = diversity.rarefy(kept, depth, seed=seed)
    root = diversity.square_root(diversity.bray_curtis(kept, depth, rarefactions=settings.rarefactions, seed=seed))
    metrics = [key for key in diversity.ALPHA if key in keys]
    tree = diversity.rooted_tree(kept) if "faith_pd" in metrics else None
    healthy = swabs.obs["group"].eq("control") & swabs.obs["visit"].eq("baseline")
    distance = pd.Series(np.nan, swabs.obs_names)
    if healthy.any():
        distance = diversity.distance_to_reference(root, healthy, swabs.obs["subject"])
    alpha = diversity.expected_alpha(kept[swabs.obs_names], depth, metrics, tree).reindex(columns=metrics)
    others = [axes(swabs, root, study, settings, keys), abundances(swabs, keys, study), loads(swabs, study)]
    table = alpha.assign(**{DISTANCE: distance}).join(others).astype(float)
    shown = [*(key for key in keys if key in table), PRESENT]
    swabs.obs = swabs.obs.join(table[shown])
    swabs.uns["measures"], swabs.uns["course"] = shown, swabs.obs
    swabs.obsp["sqrt_bray_curtis"] = root.data
    about = compared(swabs.obs)
    if len(about) < swabs.n_obs:
        swabs = swabs[about.index].copy()
    swabs.obs = about
    return swabs


def abundances(
    swabs: AnnData, wanted: Iterable[str], study: Study, zeros: float | str = diversity.PSEUDOCOUNT
) -> pd.DataFrame:
    """Measures of taxa: those that study.yaml names, and the CLR of any other that is `wanted`.

    Columns as from `helpers.taxa.of_interest`, then one each other taxon; `zeros` as of `helpers.diversity.positive`.
    """
    genus, species = (taxa.aggregate(swabs, rank) for rank in ("genus", "species"))
    named = [key for key in wanted if key not in registry(study)]
    ratios = [taxa.clr(table, zeros) for table in (genus, species) if named]
    other = {name: next((clr[name] for clr in ratios if name in clr), np.nan) for name in named}
    return taxa.of_interest(genus, species, study.taxa, zeros).join(pd.DataFrame(other, index=swabs.obs_names))


def loads_of(study: Study) -> tuple[str, ...]:
    """`LOADS`, where study.yaml names a column of them."""
    return LOADS if study.columns.load else ()


def loads(swabs: AnnData, study: Study) -> pd.DataFrame:
    """Natural logs of the bacterial load and of the pathogen's part of it, `LOADS`; half a read is added to its share.

    NaN where no load is known; where none was found, it is taken for half the least that was.
    """
    measured = swabs.obs["load"] if "load" in swabs.obs else pd.Series(np.nan, swabs.obs_names)
    whole = np.log(measured.mask(measured.eq(0), measured[measured > 0].min() / 2))
    named = swabs.var["species"].eq(study.taxa.pathogen).to_numpy()
    share = (swabs.X[:, named].sum(axis=1) + 0.5) / swabs.X.sum(axis=1) if study.counted and named.any() else np.nan
    return pd.DataFrame(dict(zip(LOADS, (whole, whole + np.ravel(np.log(share))), strict=True)))


def axes(swabs: AnnData, root: DistanceMatrix, study: Study, settings: Settings, wanted: Iterable[str]) -> pd.DataFrame:
    """Positions on the axis from the controls' to the patients' centroid at baseline, in per cent of the gap.

    One row a swab: those of `POSITION`, `OTHER_AXES` and `OFF_AXIS` that are `wanted`. Where no gap is shown (PERMANOVA
    of the group, p >= alpha) there is no axis: the positions are NaN, and ``swabs.uns["no_axis"]`` says why, by
    measure.
    """
    asked = [key for key in wanted if key in (POSITION, *OTHER_AXES, OFF_AXIS)]
    obs, found = swabs.obs, pd.DataFrame(np.nan, index=swabs.obs_names, columns=asked)
    spaces: dict[str, Callable[[], DistanceMatrix]] = {
        POSITION: lambda: root,
        OTHER_AXES[0]: lambda: diversity.without(swabs, study.taxa.genus),
        OTHER_AXES[1]: lambda: diversity.aitchison(swabs),
        OTHER_AXES[2]: lambda: diversity.square_root(
            diversity.unifrac(swabs, diversity.rooted_tree(swabs), weighted=True)
        ),
    }
    swabs.uns["no_axis"] = {}
    for key in [key for key in spaces if key in asked or (key == POSITION and OFF_AXIS in asked)]:
        needs = {"counts": study.counted, "tree": "tree" in swabs.uns, "controls": obs["group"].eq("control").any()}
        if not all(needs.get(need, True) for need in find(key, study).needs):
            continue
        try:
            placed = on_axis(spaces[key](), obs, study, settings)
        except ValueError as reason:
            swabs.uns["no_axis"][key] = str(reason)
            continue
        found[key] = 100 * placed["position"]
        if key == POSITION:
            found[OFF_AXIS] = placed["off_axis"]
    return found[asked]


def on_axis(distmat: DistanceMatrix, obs: pd.DataFrame, study: Study, settings: Settings) -> pd.DataFrame:
    """Where swabs are on the axis in a space, as from `helpers.diversity.axis_position`.

    `obs` is of the swabs of `distmat`, and may be of others. `ValueError` if no gap is shown between the groups at
    baseline: PERMANOVA, p >= alpha.
    """
    there = obs.loc[list(distmat.ids)]
    healthy, ill = (there["group"].eq(group) & there["visit"].eq("baseline") for group in ("control", "case"))
    how = {"permutations": settings.permutations, "seed": settings.seed}
    gap = permutation.group_at_baseline(distmat, there, study.adjust.group, **how)
    if not gap["p_value"] < settings.alpha:
        raise ValueError(f"no gap between the groups is shown at baseline ({p_value(gap['p_value'])})")
    return diversity.axis_position(distmat, healthy, ill, there["subject"])


def by_visit(swabs: AnnData | pd.DataFrame, keys: Iterable[str]) -> pd.DataFrame:
    """The tidy table of measures, the columns `keys`: one row a patient and visit, as from `by_patient`."""
    obs = swabs.obs if isinstance(swabs, AnnData) else swabs
    return by_patient(obs, obs[list(keys)])
