"""The multiverse: choices, the specifications they make, the joint test, and the report's own among them."""

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from cohorts import changed, small_demo, write
from statsmodels.regression.linear_model import WLS

from helpers import choices, estimates, evidence, joint, multiverse
from helpers.claims import OF_SPECIFICATIONS, adjusted_among, load_claims, measures_of, verdicts
from helpers.errors import StudyError
from helpers.estimates import adjusted_p
from helpers.files import ROBUSTNESS, VALIDATION
from helpers.ingest import build_cohort
from helpers.measures import measured, registry
from helpers.quality import without_contaminants
from helpers.simulation.performance import JOINT, JOINT_SHARE, read_table
from helpers.site.pages.validation import of_nothing
from helpers.study import Study, load_study
from helpers.workers import workers

DEMO = load_study("data/demo")
CHOICES = choices.load_choices(DEMO, DEMO.settings)
OWN = {name: choice.own(DEMO.settings) for name, choice in CHOICES.items()}
OFFERED = {name: [OWN[name], *(o for o in choice.options if o != OWN[name])] for name, choice in CHOICES.items()}
ASKED = evidence.asked_by(load_claims(DEMO), DEMO)


class Here(Executor):
    """An executor that does each job at once."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def measured_as_the_report(study: Study) -> AnnData:
    clean = without_contaminants(build_cohort(study)[0], study.settings.alpha)[0]
    return measured(clean, study, study.settings, [*registry(study), *measures_of(load_claims(study))])


def light(study: Study) -> multiverse.Multiverse:
    settings = study.settings.model_copy(update={"robustness": "light"})
    return multiverse.explore(build_cohort(study)[0], study, settings, Here())


# ---------------------------------------------------------------- choices


def of_study(**keys: Any) -> Study:
    return DEMO.model_copy(update=keys)


def test_a_study_switches_options_off_but_not_its_own() -> None:
    left = choices.load_choices(of_study(without_choices={"depth": ["5000"]}), DEMO.settings)
    assert set(CHOICES["depth"].options) - set(left["depth"].options) == {"5000"}
    for wrong, said in (
        ({"depth": ["1000"]}, "what the report itself does"),
        ({"deepth": ["1"]}, "did you mean depth?"),
        ({"space": ["aitchinson"]}, "did you mean aitchison?"),
    ):
        with pytest.raises(StudyError, match=said.replace("?", r"\?")):
            choices.load_choices(of_study(without_choices=wrong), DEMO.settings)


def specs_of(
    measure: str, contrast: str, offered: dict[str, list[str]] = OFFERED, limit: int = 60
) -> list[dict[str, str]]:
    asked = [a for a in ASKED if (a.measure, a.contrast) == (measure, contrast)][:1]
    return [spec for spec, _ in choices.specifications(asked, CHOICES, offered, OWN, DEMO, limit)]


def test_specifications_are_the_reports_all_that_estimate_the_same_and_all_that_differ_in_one_choice() -> None:
    specs = specs_of("position", "arms")
    assert specs[0] == OWN
    apart = [{name for name in OWN if spec[name] != OWN[name]} for spec in specs]
    same = {(s["contaminants"], s["depth"], s["covariates"], s["estimator"], s["loss"])
            for s, names in zip(specs, apart, strict=True) if all(CHOICES[n].keeps(s[n]) for n in names)}  # fmt: skip
    depths = [d for d in OFFERED["depth"] if d != "none"]
    every = itertools.product(OFFERED["contaminants"], depths, OFFERED["covariates"],
                              ["standing", "change score", "overlap weights", "mixed model of all visits"],
                              ["left_out"])  # fmt: skip
    imputed = itertools.product(OFFERED["contaminants"], depths, OFFERED["covariates"], ["standing"], ["imputed"])
    assert same == {*every, *imputed}
    alone = {(name, spec[name]) for spec, names in zip(specs, apart, strict=True) if len(names) == 1 for name in names}
    assert {
        ("space", "aitchison"),
        ("rank", "genus"),
        ("swabs", "lesional_at_baseline"),
        ("outliers", "ranks"),
    } <= alone
    # What is none to the question is no specification: all reads, other zeros and another rank than that of the tree.
    assert all(s["space"] == "aitchison" for s in specs if s["depth"] == "none" or s["zeros"] != "0.5")
    assert all(s["rank"] == "asv" for s in specs if "unifrac" in s["space"])


def test_another_option_moves_no_other_draw() -> None:
    fewer = specs_of("pathogen", "change", OFFERED | {"zeros": ["0.5", "0.1"]}, 120)
    more = [s for s in specs_of("pathogen", "change", limit=240) if s["zeros"] in ("0.5", "0.1")]
    drawn = [s for s in more if s["outliers"] == "ranks" and s["swabs"] != "all"]
    assert drawn
    order = [s for s in fewer if s in drawn]
    assert [s for s in drawn if s in order] == order


def test_options_that_a_study_has_nothing_for_are_named(tmp_path: Path) -> None:
    study = write(changed(small_demo(), columns={"batch": None}, files={"tree": None}), tmp_path / "s")
    cohort = build_cohort(study)[0]
    lacking = choices.absent(choices.load_choices(study, study.settings), cohort, study, study.settings)
    assert lacking["space", "weighted_unifrac"] == "the study gives no tree"
    assert ("covariates", "with_batch") in lacking
    assert ("estimator", "within runs") in lacking


# ---------------------------------------------------------------- the null


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: " ".join(filter(None, asked)))
def test_the_first_permutation_is_the_estimate_of_the_evidence(asked: evidence.Asked, demo: evidence.Data) -> None:
    drawn = joint.Draws(sorted(demo.visits["subject"].unique()), 2, seed=1)
    few = DEMO.settings.model_copy(update={"bootstraps": 100})
    rows = evidence.answers([asked], demo, DEMO, few).set_index("estimator")
    found = joint.permuted(asked, demo, DEMO, drawn)
    assert next(iter(found), rows.index[0]) == rows.index[0]
    assert found or asked.contrast == "against_controls"
    for estimator, (effect, p, t) in found.items():
        assert effect[0] == pytest.approx(rows.loc[estimator, "estimate"], rel=1e-9)
        assert effect[1] != effect[0]
        if estimator != "overlap weights":  # whose p is the bootstrap's
            assert p[0] == pytest.approx(rows.loc[estimator, "p_value"], rel=1e-6)
            assert np.sign(t[0]) == np.sign(effect[0])


@pytest.fixture(scope="module")
def demo() -> evidence.Data:
    swabs = measured_as_the_report(DEMO)
    return evidence.data_of(swabs.obs, swabs.uns["measures"])


def test_one_permutation_goes_through_all_specifications() -> None:
    """Whoever is there with their donor has the same donor, whoever else is left out."""
    everybody = pd.Index(list("abcdefghij"))
    drawn = joint.Draws(list(everybody), 200, seed=3)
    some = everybody.delete([2, 7])
    whole, part = (people.to_numpy()[drawn.order(people)] for people in (everybody, some))
    assert (part[0] == some).all()
    assert all(sorted(row) == list(some) for row in part)
    same = whole[:, everybody.get_indexer(some)]
    assert (part == same)[np.isin(same, some)].all()


def test_the_median_of_correlated_specifications_holds_its_level() -> None:
    """Groups of unequal size and variance, several covariates, and other people left out of each specification."""
    rng, rejected = np.random.default_rng(11), 0
    for _ in range(400):
        treated = rng.permutation(np.repeat([1.0, 0.0], [30, 12]))
        x = np.column_stack([np.ones(42), treated, rng.normal(size=(42, 3))])
        y = rng.normal(size=42) * np.where(treated == 1, 1, 2)
        drawn = joint.Draws([str(i) for i in range(42)], 99, seed=int(rng.integers(2**31)))
        t = []
        for _ in range(5):
            kept = np.sort(rng.choice(42, 38, replace=False))
            order = drawn.order(pd.Index([str(i) for i in kept]))
            t.append(joint.reshuffled(y[kept], x[kept], order)[2])
        median = np.median(t, axis=0)
        rejected += (median >= median[0] - 1e-9).mean() <= 0.05
    assert rejected <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)


def test_weighted_coefficients_and_errors_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(5)
    x = np.column_stack([np.ones(30), rng.normal(size=(30, 2))])
    y, weights = rng.normal(size=(2, 30)), rng.uniform(0.2, 2, 30)
    found, robust, plain, df = estimates.coefficients(y, x, weights=weights)
    for i in range(2):
        fit, same = WLS(y[i], x, weights).fit(cov_type="HC3"), WLS(y[i], x, weights).fit()
        assert (found[i], robust[i]) == pytest.approx((fit.params[1], fit.bse[1]))
        assert (plain[i], df) == pytest.approx((same.bse[1], 27))


def test_who_is_alone_in_a_category_counts_as_left_out() -> None:
    rng = np.random.default_rng(6)
    x, y = np.column_stack([np.ones(20), rng.normal(size=20)]), rng.normal(size=(1, 20))
    alone = np.column_stack([np.vstack([x, [1, 3]]), np.eye(21)[20]])
    both = [estimates.coefficients(*of) for of in ((y, x), (np.append(y, [[9]], axis=1), alone))]
    assert [found[0] for found in both[1][:3]] == pytest.approx([found[0] for found in both[0][:3]])


def test_holm_among_the_same_others_is_holm_of_the_whole_family() -> None:
    others, p = np.array([0.01, np.nan, 0.04, 0.03]), np.array([0.001, 0.02, 0.035, 0.6, np.nan])
    each = [adjusted_p(pd.Series([one, *others]), "holm").iloc[0] for one in p]
    assert adjusted_among(p, others) == pytest.approx(each, nan_ok=True)


def test_the_joint_tests_hold_their_level_in_the_table() -> None:
    table = read_table(VALIDATION)
    null = table[table["estimator"].isin([JOINT, JOINT_SHARE]) & of_nothing(table) & table["runs"].ge(100)]
    assert set(null["scenario"]) == {"no effect", "disease only"}
    assert null.loc[null["scenario"].eq("disease only"), "contrast"].isin(["C12", "C13", "C8"]).any()
    assert (null["rejected"] - 3 * null["rejected_error"] <= 0.05).all()


# ---------------------------------------------------------------- all of it


@pytest.fixture(scope="module")
def whole() -> Iterator[multiverse.Multiverse]:
    with workers() as pool:
        settings = DEMO.settings.model_copy(update={"robustness": "light"})
        yield multiverse.explore(build_cohort(DEMO)[0], DEMO, settings, pool)


@pytest.mark.slow
def test_the_reports_own_specification_is_the_report_to_the_last_digit(whole: multiverse.Multiverse) -> None:
    claims = pd.read_csv("notebooks/reference/claims.tsv", sep="\t").set_index("id")
    own = whole.found[whole.found["specification"].eq(0)]
    assert own.groupby("claim")["verdict"].first().to_dict() == claims["verdict"].to_dict()
    part = {name: multiverse.standing(of) for name, of in own.groupby("claim")}
    for row in own.to_dict("records"):
        stands = claims.loc[row["claim"]]
        if row["part"] != part[row["claim"]]:
            continue
        assert stands["what"] == row["what"]
        for key in ("estimate", "ci_low", "ci_high", "level", "p_value", "n"):
            assert f"{row[key]:.10g}" == f"{stands[key]:.10g}", (row["claim"], key)
    assert set(own["claim"]) == set(claims.index)


@pytest.mark.slow
def test_what_is_told_of_a_claim_is_what_its_specifications_say(whole: multiverse.Multiverse) -> None:
    for row in whole.claims.to_dict("records"):
        of = whole.found[whole.found["claim"].eq(row["claim"])].drop_duplicates("specification")
        of = of[of["verdict"].ne("not testable")]
        same = of[of["keeps_estimand"]]
        assert (row["specifications"], row["agree"]) == (len(same), same["verdict"].eq(row["verdict"]).sum())
        assert (row["all"], row["all_agree"]) == (len(of), of["verdict"].eq(row["verdict"]).sum())
        curve, taken = multiverse.curve(whole, row["claim"], DEMO)
        assert curve["effect"].is_monotonic_increasing
        assert taken.shape[1] == len(curve)
        of_choice = taken.groupby([option.split(": ")[0] for option in taken.index]).sum()
        assert (of_choice <= 1).all(axis=None)  # of each choice one option, or none that touches


@pytest.mark.slow
def test_neither_workers_nor_a_dask_cluster_change_a_byte(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write(small_demo(), tmp_path / "data")
    settings = study.settings.model_copy(update={"robustness": "light"})
    found = {"here": light(study)}
    for name, address in (("workers", ""), ("dask", cluster)):
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        with workers() as pool:
            found[name] = multiverse.explore(build_cohort(study)[0], study, settings, pool)
    for name, every in found.items():
        multiverse.save(every, tmp_path / name, study.privacy)
    kept = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in found]
    assert len(kept[0]) == 2
    assert kept[0] == kept[1] == kept[2]
    multiverse.save(None, tmp_path / "here", study.privacy)
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("without", ["controls", "arms", "severity", "counts"])
def test_studies_that_lack_something_have_a_multiverse_of_the_rest(without: str, tmp_path: Path) -> None:
    files = small_demo()
    if without == "controls":
        files = files._replace(metadata=files.metadata[files.metadata["diagnosis"].ne("healthy")])
        files = files._replace(counts=files.counts.loc[files.metadata["swab_id"]])
    elif without == "arms":
        files = changed(files, columns={"arm": None})
    elif without == "severity":
        files = changed(files, severity=None, adjust={"arm": ["age", "sex"]})
    else:
        shares = files.counts.div(files.counts.sum(axis=1), axis=0)
        files = changed(files._replace(counts=shares), files={"counts": {"fractions": "relative"}})
    study = write(files, tmp_path / "data")
    every = light(study)
    analysed = every.claims.set_index("claim")
    assert list(analysed.index) == list(load_claims(study))
    lost = {"controls": "C1", "arms": "C13", "severity": "C4", "counts": "C8"}[without]
    assert analysed.loc[lost, "verdict"] == "not testable"
    assert np.isnan(analysed.loc[lost, "all"])
    parts = evidence.gather(load_claims(study), measured_as_the_report(study), study, study.settings)
    judged = verdicts(parts.assign(notebook=""), load_claims(study), study).set_index("id")["verdict"]
    assert analysed["verdict"].to_dict() == judged.to_dict()
    assert (analysed["all"].ge(1) == analysed["verdict"].ne("not testable")).all()
    assert analysed["all"].ge(1).any() or without == "counts"
    multiverse.save(every, tmp_path / "results", study.privacy)
    assert len(pd.read_csv(tmp_path / "results" / ROBUSTNESS, sep="\t")) == len(every.claims)
    assert OF_SPECIFICATIONS[0] in every.claims
