"""Cohorts of every shape that users have: each is analysed by all chapters, or refused with what to do."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from cohorts import Files, analysed, changed, small_demo, write

from helpers import evidence, ingest
from helpers import visits as visits_of
from helpers.claims import load_claims

pytestmark = pytest.mark.slow


def only(files: Files, rows: pd.Series, **study: object) -> Files:
    """Some swabs of the cohort."""
    metadata = files.metadata[rows].reset_index(drop=True)
    return changed(files._replace(metadata=metadata, counts=files.counts.loc[metadata["swab_id"]]), **study)


def is_control(files: Files) -> pd.Series:
    return files.metadata["diagnosis"].eq("healthy")


def controls_once(files: Files) -> Files:
    return only(files, ~(is_control(files) & files.metadata["visit"].eq("M3")))


def no_controls(files: Files) -> Files:
    return only(files, ~is_control(files))


def one_arm(files: Files) -> Files:
    return only(files, files.metadata["drug"].ne("cyclosporine"))


def no_arms(files: Files) -> Files:
    return changed(files, columns={"arm": None}, adjust={"arm": []})


def three_visits(files: Files) -> Files:
    again = files.metadata[files.metadata["visit"].eq("M3")].assign(visit="M1")
    again["swab_id"] += "x"
    counts = files.counts.loc[files.metadata["visit"].eq("M3").to_numpy()].set_axis(again["swab_id"])
    files = files._replace(metadata=pd.concat([files.metadata, again]), counts=pd.concat([files.counts, counts]))
    return changed(files, columns={"visit": {"ignore": ["M1"]}})


def second_site(files: Files, **new: str) -> Files:
    """Every patient's swabs once more."""
    other = files.metadata[~is_control(files)].assign(**new)
    other["swab_id"] += "x"
    counts = files.counts.loc[(~is_control(files)).to_numpy()].set_axis(other["swab_id"])
    return files._replace(metadata=pd.concat([files.metadata, other]), counts=pd.concat([files.counts, counts]))


def several_sites(files: Files) -> Files:
    return second_site(files, body_site="forearm")


def pairs_of_skin(files: Files) -> Files:
    lesional = files._replace(metadata=files.metadata.assign(lesional=files.metadata["lesional"].replace("no", "yes")))
    files = second_site(lesional, lesional="no")
    return changed(files, columns={"site": None}, settings={"swabs": "lesional_at_baseline"})


def no_severity(files: Files) -> Files:
    return changed(files, severity=[], adjust={"arm": ["age"]})


def one_other_score(files: Files) -> Files:
    poem = (files.metadata["EASI"].replace("", "nan").astype(float) / 72 * 28).round(1).astype(str)
    files = files._replace(metadata=files.metadata.assign(POEM=poem))
    scores = [{"name": "poem", "column": "POEM", "label": "POEM", "range": [0, 28]}]
    return changed(files, severity=scores, adjust={"arm": ["poem"]})


def no_species(files: Files) -> Files:
    lineages = files.taxonomy.iloc[:, 1].str.replace(r"s__.*", "s__", regex=True)
    return files._replace(taxonomy=files.taxonomy.assign(**{files.taxonomy.columns[1]: lineages}))


def no_tree(files: Files) -> Files:
    return changed(files, files={"tree": None})


def relative(files: Files) -> Files:
    shares = files.counts.div(files.counts.sum(axis=1), axis=0)
    return changed(files._replace(counts=shares), files={"counts": {"fractions": "relative"}})


def tiny_arm(files: Files) -> Files:
    compared = files.metadata.loc[files.metadata["drug"].eq("cyclosporine"), "patient_id"].unique()
    return only(files, ~files.metadata["patient_id"].isin(compared[2:]))


def one_patient(files: Files) -> Files:
    patients = files.metadata.loc[files.metadata["diagnosis"].eq("AD"), "patient_id"].unique()
    return only(files, ~files.metadata["patient_id"].isin(patients[1:]))


def constant_covariate(files: Files) -> Files:
    constant = files.metadata["previous_systemic"].mask(files.metadata["drug"].eq("cyclosporine"), "yes")
    sex = files.metadata["sex"].mask(files.metadata["drug"].eq("dupilumab"), "female")
    return files._replace(metadata=files.metadata.assign(previous_systemic=constant, sex=sex))


def baseline_only(files: Files) -> Files:
    return only(files, files.metadata["visit"].eq("M0"))


#: Claims of change in an arm, and those that need counts.
IN_AN_ARM = ["C6", "C7", "C8", "C9", "C10", "C14", "C15", "C16", "C17"]
OF_COUNTS = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C13", "C14", "C15", "C16", "C17"]

#: How a cohort of this shape is made, and the claims that it cannot test, with words of the reason.
SHAPES: dict[str, tuple[Callable[[Files], Files], dict[str, str]]] = {
    "controls twice": (lambda files: files, {}),
    "controls once": (controls_once, {}),
    "no controls": (no_controls, dict.fromkeys(["C1", "C2", "C3", "C6", "C7", "C9", "C10", "C11", "C12"], "controls")),
    "one arm": (
        one_arm,
        dict.fromkeys(["C7", "C9"], "nobody under") | dict.fromkeys(["C11", "C12", "C13"], "second arm"),
    ),
    "no arms": (
        no_arms,
        dict.fromkeys(IN_AN_ARM, "nobody under") | dict.fromkeys(["C11", "C12", "C13"], "second arm"),
    ),
    "three visits": (three_visits, {}),
    "several sites": (several_sites, {}),
    "lesional and non-lesional pairs": (pairs_of_skin, {"C16": "settings.swabs leaves others out"}),
    "no severity": (no_severity, dict.fromkeys(["C4", "C5", "C10", "C11", "C17"], "no severity score")),
    "one other score": (one_other_score, {}),
    "no species": (
        no_species,
        dict.fromkeys(["C3", "C5", "C8", "C9", "C10", "C13", "C16", "C17"], "no read is named Staphylococcus aureus")
        | {"C15": "no read is named Staphylococcus hominis"},
    ),
    "no tree": (no_tree, {}),
    "relative abundances": (relative, dict.fromkeys(OF_COUNTS, "needs counts")),
    "tiny arm": (tiny_arm, dict.fromkeys(["C7", "C9", "C11", "C12", "C13"], "too few people")),
    "one patient": (
        one_patient,
        dict.fromkeys(["C4", "C5"], "n = 1")
        | dict.fromkeys(["C6", "C8", "C14", "C15", "C16"], "too few people under")
        | dict.fromkeys(["C7", "C9"], "nobody under")
        | dict.fromkeys(["C11", "C12", "C13"], "second arm")
        | {"C17": "too few people under"},
    ),
    "constant covariate": (constant_covariate, {}),
    "baseline only": (
        baseline_only,
        dict.fromkeys(IN_AN_ARM, "nobody under") | dict.fromkeys(["C11", "C12", "C13"], "second arm"),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cohort_of_any_shape_gives_all_chapters_and_says_what_it_cannot_test(shape: str, tmp_path: Path) -> None:
    make, cannot = SHAPES[shape]
    study = write(make(small_demo()), tmp_path / "study")
    found = analysed(study, tmp_path / "results")
    told = {claim: row["reason"] for claim, row in found.items() if row["verdict"] == "not testable"}
    # Whether the groups lie apart, so that there is an axis between them, the data tell, and not their shape.
    told = {claim: why for claim, why in told.items() if "no gap between the groups" not in why}
    # In so small a cohort fewer than five people are near clear, not lesional, or non-responders.
    strata = {claim for claim in ("C10", "C16", "C17") if "too few" in told.get(claim, "")} - set(cannot)
    assert list(found) == list(load_claims(study))
    assert set(told) - strata == set(cannot)
    for claim, words in cannot.items():
        assert words in told[claim] or (claim in ("C10", "C17") and "too few" in told[claim])  # of its first part
    cohort, _ = ingest.build_cohort(study)
    used = visits_of.analysis_swabs(cohort.obs, study.settings.swabs)
    foretold = evidence.untestable(load_claims(study), cohort[used], study)
    if foretold["C10"] != told.get("C10"):  # of a part, where another has too few people
        foretold["C10"] = foretold["C10"].rpartition(": ")[2]
    few = {claim for claim, why in told.items() if "what is needed" in why}  # which the data tell alone
    assert {claim: why for claim, why in foretold.items() if why and claim not in few} == {
        claim: why for claim, why in told.items() if claim not in few
    }
