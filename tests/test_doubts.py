"""Cohorts that can be read and are wrong: each raises a doubt, with numbers of the data; a right one raises none."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cohorts import Files, changed, chapters, merged, small_demo, write
from test_draft import shared
from test_shapes import SHAPES

from helpers import doubts, output
from helpers.disclosure import in_text
from helpers.ingest import build_cohort
from helpers.intake import inspection
from helpers.study import SMALL, Study, load_study

ROOT = Path(__file__).parents[1]
Change = Callable[[Files], Files]


def raised(study: Study) -> dict[str, str]:
    """What is doubted, by the name of the doubt."""
    return doubts.doubts(build_cohort(study)[0], study)


def swapped(key: str) -> Change:
    """The two values of a column of study.yaml, the one for the other."""

    def change(files: Files) -> Files:
        values = files.study["columns"][key]["values"]
        there = dict(zip(values, reversed(values.values()), strict=True))
        return changed(files, columns={key: {"values": there}})

    return change


def neutral(files: Files, **columns: dict[str, str]) -> Files:
    """The cohort with values that tell nothing by their names, in columns that do not either."""
    metadata, study = files.metadata.copy(), files.study
    for key, names in columns.items():
        column = study["columns"][key]
        values = {meaning: [names[v] for v in listed] for meaning, listed in column["values"].items()}
        metadata[key.upper()] = metadata[column["column"]].replace(names)
        study = study | {"columns": study["columns"] | {key: {"column": key.upper(), "values": values}}}
    return files._replace(metadata=metadata, study=study)


def nameless(key: str, **names: str) -> Change:
    """Swapped, with names that do not tell."""
    return lambda files: swapped(key)(neutral(files, **{key: names}))


def scores(change: Callable[[pd.Series], pd.Series]) -> Change:
    def of(files: Files) -> Files:
        easi = change(pd.to_numeric(files.metadata["EASI"])).round(4).astype(str).replace("nan", "")
        return files._replace(metadata=files.metadata.assign(EASI=easi))

    return of


def counts(change: Callable[[pd.DataFrame], pd.DataFrame], **study: Any) -> Change:
    shallow = {"minimum_depth": 1, "settings": {"rarefaction_depth": 20}}
    return lambda files: changed(files._replace(counts=change(files.counts)), **merged(shallow, study))


def shares(table: pd.DataFrame) -> pd.DataFrame:
    return table.div(table.sum(axis=1), axis=0)


def aged(factor: float) -> Change:
    return lambda files: files._replace(
        metadata=files.metadata.assign(age=(files.metadata["age"].astype(float) * factor).astype(str))
    )


def of_one_swab(files: Files) -> Files:
    return changed(files, columns={"subject": "swab_id"})


def by_chance(files: Files) -> Files:
    return changed(files, randomised=True)


RISES = (
    "EASI rises between the visits, on average, in every arm that is large enough: Cyclosporine 11.2 (n = 7), "
    "Dupilumab 18.6 (n = 13)"
)
SKIN = "EASI, by the skin that was swabbed: lesional 8.92 (n = 13), not lesional 22.6 (n = 16)"

#: How a cohort is made wrong, and which doubt it must raise, with words and numbers of what raised it.
WRONG: dict[str, tuple[Change, str, str]] = {
    "arms swapped": (
        swapped("arm"),
        "named_otherwise",
        "'dupilumab' in 'drug' is taken for Cyclosporine and reads like Dupilumab",
    ),
    "visits swapped": (swapped("visit"), "severity_rises", RISES),
    "groups swapped": (
        swapped("group"),
        "named_otherwise",
        "'AD' in 'diagnosis' is taken for Healthy skin and reads like Atopic dermatitis",
    ),
    "lesional swapped": (swapped("lesional"), "lesional_milder", SKIN),
    "severity reversed": (scores(lambda x: 72 - x), "severity_rises", RISES),
    "severity as fraction": (
        scores(lambda x: x / 72),
        "severity_small",
        "no EASI is above 1, of a range of 0 to 72 (median 0.244)",
    ),
    "age × 1.5": (aged(1.5), "ages_spaced", "each age is a multiple of 1.5 (median 57.0)"),
    "subject = swab": (of_one_swab, "nobody_twice", "69 people have 69 swabs, of both visits"),
    "per cent rounded": (
        counts(lambda x: (100 * shares(x)).round()),
        "totals_equal",
        "98 to 100 reads, the median is 99",
    ),
    "counts per million": (
        counts(lambda x: (1e6 * shares(x)).round()),
        "totals_equal",
        "the median is 1,000,000",
    ),
    "log1p rounded": (
        counts(lambda x: np.log1p(x).round()),
        "no_abundant_taxa",
        "no feature has more than 11 reads in any swab",
    ),
    "log as relative": (
        counts(np.log1p, files={"counts": {"fractions": "relative"}}),
        "no_abundant_taxa",
        "the greatest share in a swab is 11.6 times the least (median)",
    ),
    "randomised true": (by_chance, "arms_unlike", "and the study to be 'no randomisation'"),
}

#: The same, where names tell nothing and the data alone do, and where there is no score to tell.
WRONG_BY_DATA: dict[str, tuple[Change, str, str]] = {
    "visits swapped": (nameless("visit", M0="A", M3="B"), "severity_rises", RISES),
    "visits swapped, without a score": (
        lambda files: changed(swapped("visit")(files), severity=[], adjust=None),
        "visits_backwards",
        "by its name, the follow-up, 'M0', is before baseline, 'M3'",
    ),
    "groups swapped": (
        nameless("group", healthy="A", AD="B"),
        "controls_ill",
        "at baseline, EASI: Healthy skin 24.4 (n = 22), Atopic dermatitis none (n = 0); at",
    ),
    "groups swapped, without a score": (
        lambda files: changed(
            nameless("group", healthy="A", AD="B")(files), severity=[], columns={"arm": None}, adjust=None
        ),
        "controls_ill",
        "at baseline, Staphylococcus, % of the reads: Healthy skin 44.3 (n = 22), Atopic dermatitis 10.2 (n = 13); at",
    ),
    "lesional swapped": (nameless("lesional", yes="A", no="B"), "lesional_milder", SKIN),
    "randomised true, and the text silent": (
        lambda _: changed(small_demo(130, 27, 14), randomised=True, about="AD."),
        "arms_unlike",
        "at baseline, EASI differs by 0.718 SD between Dupilumab (n = 127) and Cyclosporine (n = 24)",
    ),
}
EVERY = [wrong for wrong, *_ in (*WRONG.values(), *WRONG_BY_DATA.values())]


@pytest.mark.parametrize(("wrong", "doubt", "seen"), WRONG.values(), ids=WRONG)
def test_a_plausible_but_wrong_cohort_raises_the_doubt_with_its_numbers(
    wrong: Change, doubt: str, seen: str, tmp_path: Path
) -> None:
    found = raised(write(wrong(small_demo()), tmp_path))
    assert seen[1:] in found.get(doubt, ""), found


@pytest.mark.parametrize(("wrong", "doubt", "seen"), WRONG_BY_DATA.values(), ids=WRONG_BY_DATA)
def test_where_names_tell_nothing_the_data_do(wrong: Change, doubt: str, seen: str, tmp_path: Path) -> None:
    found = raised(write(wrong(small_demo()), tmp_path))
    assert seen[1:] in found.get(doubt, ""), found
    assert "named_otherwise" not in found


@pytest.mark.parametrize("key", ["visit", "group", "lesional"])
def test_names_that_tell_nothing_raise_no_doubt_by_themselves(key: str, tmp_path: Path) -> None:
    names = {"visit": {"M0": "A", "M3": "B"}, "group": {"healthy": "A", "AD": "B"}, "lesional": {"yes": "A", "no": "B"}}
    assert raised(write(neutral(small_demo(), **{key: names[key]}), tmp_path)) == {}


@pytest.mark.parametrize("name", ["demo", "khadka2021", "kunstner2022"])
def test_a_study_that_comes_with_the_project_raises_none(name: str, tmp_path: Path) -> None:
    study = load_study(ROOT / "data" / name)
    if name != "demo":
        (tmp_path / "raw").mkdir()
        for file in study.files.each().values():
            shutil.copy(shared(f"studies/{name}/{Path(file.path).name}"), tmp_path / "raw")
        study = study.elsewhere(tmp_path)
    assert raised(study) == {}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_right_cohort_of_any_shape_raises_none(shape: str, tmp_path: Path) -> None:
    assert raised(write(SHAPES[shape][0](small_demo()), tmp_path)) == {}


def test_a_control_that_is_an_arm_raises_none(tmp_path: Path) -> None:
    files = small_demo()
    drug = files.metadata["drug"].replace({"dupilumab": "Treatment", "cyclosporine": "Control"})
    drug = drug.mask(files.metadata["diagnosis"].eq("healthy"), "Healthy")
    group = {"column": "drug", "values": {"control": ["Healthy"], "case": ["Treatment", "Control"]}}
    arm = {"values": {"treatment": ["Treatment"], "comparator": ["Control"]}}
    columns = {"group": group, "arm": arm, "control_type": None}
    files = changed(files._replace(metadata=files.metadata.assign(drug=drug)), columns=columns)
    assert raised(write(files, tmp_path)) == {}


def test_ages_that_were_rounded_or_are_few_are_ages(tmp_path: Path) -> None:
    files = small_demo()
    rounded = (files.metadata["age"].astype(float) / 5).round() * 5
    assert raised(write(files._replace(metadata=files.metadata.assign(age=rounded.astype(str))), tmp_path)) == {}
    of_two = files.metadata["age"].where(files.metadata["diagnosis"].eq("none"), "36")
    assert raised(write(files._replace(metadata=files.metadata.assign(age=of_two)), tmp_path)) == {}


def test_patients_who_get_worse_in_one_arm_only_raise_none(tmp_path: Path) -> None:
    files = small_demo()
    easi, worse = pd.to_numeric(files.metadata["EASI"]), files.metadata["drug"].eq("cyclosporine")
    easi = easi.mask(worse & files.metadata["visit"].eq("M3"), 60).astype(str).replace("nan", "")
    assert raised(write(files._replace(metadata=files.metadata.assign(EASI=easi)), tmp_path)) == {}


@pytest.mark.parametrize("wrong", EVERY, ids=[*WRONG, *WRONG_BY_DATA])
def test_where_counts_are_hidden_no_doubt_is_of_few_people(wrong: Change, tmp_path: Path) -> None:
    files = changed(wrong(small_demo()), privacy={"small_cells": "suppress"})
    study = write(files, tmp_path)
    cohort, _ = build_cohort(study)
    for line in doubts.doubts(cohort, study).values():
        assert all(int(n) == 0 or int(n) > SMALL for n in re.findall(r"n = (\d+)", line)), line
        told = in_text(line, study.privacy)
        assert all(int(n) % 5 == 0 for n in re.findall(r"n = (\d+)|(\d+) (?:people|swabs)", told) for n in n if n), told


def test_the_doubts_stand_in_the_check_and_in_chapter_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "DATA", tmp_path)
    write(small_demo(), tmp_path / "right")
    study = write(swapped("arm")(small_demo()), tmp_path / "wrong")
    right, wrong = inspection.inspect("right"), inspection.inspect("wrong")
    assert f"Is this right? None of the {len(doubts.DOUBTS)} things that are looked for looks wrong." in right
    assert "\nIs this right? 1 thing looks wrong: who knows the study should" in wrong
    assert "\n  - 'cyclosporine' in 'drug' is taken for Dupilumab" in wrong
    shown: list[str] = []
    monkeypatch.setattr(output, "display", lambda data, **_: shown.append(data.get("text/markdown", "")))
    chapters(study, tmp_path / "results", only="01_ingest")
    assert any(text.startswith("- 'cyclosporine' in 'drug' is taken for") for text in shown)
    assert "1 thing looks wrong" in shown[-1], "the chapter's answer tells it too"


def test_a_difference_between_arms_tells_no_hidden_count(tmp_path: Path) -> None:
    files = changed(small_demo(130, 27, 14), randomised=True, about="AD.", privacy={"small_cells": "suppress"})
    told = raised(write(files, tmp_path))["arms_unlike"]
    assert told.startswith("At baseline, EASI differs between Dupilumab (n = 127) and Cyclosporine (n = 24), more than")
