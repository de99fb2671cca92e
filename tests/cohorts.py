"""Small cohorts for tests: cut from the simulated demo cohort, changed by the test, analysed by all chapters."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import biom
import pandas as pd
import pytest
import seaborn
import yaml
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser

from helpers import output
from helpers.run.judging import judge
from helpers.study import Study, load_study

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "data" / "demo"
FAST = {"permutations": 99, "bootstraps": 100, "rarefactions": 1, "rarefaction_depth": 500, "robustness": "off"}


class Files(NamedTuple):
    """Content of a study folder."""

    study: dict[str, Any]
    counts: pd.DataFrame
    metadata: pd.DataFrame
    taxonomy: pd.DataFrame
    tree: str


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts, the second over the first; None takes a key out."""
    both = dict(base)
    for key, value in changes.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return {key: value for key, value in both.items() if value is not None}


def changed(cohort: Files, **study: object) -> Files:
    """A cohort with another study.yaml."""
    return cohort._replace(study=merged(cohort.study, study))


@functools.cache
def small_demo(treated: int = 14, compared: int = 10, controls: int = 14, features: int = 60) -> Files:
    """Some people of the demo cohort, with its most abundant features; who changes it works on a copy."""
    metadata = pd.read_csv(DEMO / "metadata.tsv", sep="\t", dtype=str, keep_default_na=False)
    people = metadata[metadata["sample_type"].eq("swab")].drop_duplicates("patient_id").sort_values("patient_id")
    chosen = [
        *people[people["drug"].eq("dupilumab")]["patient_id"][:treated],
        *people[people["drug"].eq("cyclosporine")]["patient_id"][:compared],
        *people[people["diagnosis"].eq("healthy")]["patient_id"][:controls],
    ]
    metadata = metadata[metadata["patient_id"].isin(chosen)].reset_index(drop=True)
    counts = biom.load_table(str(DEMO / "counts.biom")).to_dataframe(dense=True).T.loc[metadata["swab_id"]]
    counts = counts.loc[:, counts.sum().nlargest(features).index].astype(int)
    taxonomy = pd.read_csv(DEMO / "taxonomy.tsv", sep="\t", dtype=str, keep_default_na=False)
    taxonomy = taxonomy[taxonomy.iloc[:, 0].isin(counts.columns)]
    study = yaml.safe_load((DEMO / "study.yaml").read_text())
    study["files"] = {
        "counts": {"path": "counts.tsv"},
        "metadata": {"path": "metadata.tsv"},
        "taxonomy": {"path": "taxonomy.tsv"},
        "tree": {"path": "tree.nwk"},
    }
    study["minimum_depth"] = 200
    study["settings"] |= FAST
    return Files(study, counts, metadata, taxonomy, (DEMO / "tree.nwk").read_text())


def write(files: Files, folder: Path) -> Study:
    """The study folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files.counts.to_csv(folder / "counts.tsv", sep="\t", index_label="swab")
    files.metadata.to_csv(folder / "metadata.tsv", sep="\t", index=False)
    files.taxonomy.to_csv(folder / "taxonomy.tsv", sep="\t", index=False)
    (folder / "tree.nwk").write_text(files.tree)
    (folder / "study.yaml").write_text(yaml.safe_dump(files.study, allow_unicode=True, sort_keys=False))
    return load_study(folder)


PARSE: Any = vars(MathTextParser)["_parse_cached"].__wrapped__
PARSERS = {"raster": MathTextParser("agg"), "vector": MathTextParser("path")}


@functools.cache
def parsed(kind: str, *text: Any) -> Any:
    """A text with italics, parsed once for all figures, which name the same taxa; matplotlib does it for each anew."""
    return PARSE(PARSERS[kind], *text)


def chapters(study: Study, results: Path, only: str = "0") -> list[str]:
    """Run the code of all chapters, or of those whose names begin so, in this process; their names."""
    parameters = study.settings.model_dump() | {"study_dir": str(study.folder), "results_dir": str(results)}
    paths = sorted((ROOT / "notebooks").glob(f"{only}*.ipynb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MathTextParser, "_parse_cached", lambda parser, *text: parsed(parser._output_type, *text))
        # Instead of drawing, which takes most of the time: what would fail there fails here.
        patch.setattr(output, "_laid_out", Figure.draw_without_rendering)
        patch.setattr(output, "_drawn", lambda *_: b"")
        patch.setattr(seaborn, "regplot", functools.partial(seaborn.regplot, n_boot=FAST["bootstraps"]))  # not 1,000
        for chapter in paths:
            names: dict[str, Any] = {}
            for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]:
                if cell["cell_type"] == "code":
                    exec(compile("".join(cell["source"]), chapter.stem, "exec"), names)
                    if "parameters" in cell["metadata"].get("tags", []):
                        names.update({k: v for k, v in parameters.items() if k in names})
    return [chapter.stem for chapter in paths]


def analysed(study: Study, results: Path) -> dict[str, dict[str, Any]]:
    """Run the code of all chapters in this process; the claims by id."""
    _, claims = judge(study, results, chapters(study, results), study.settings.alpha)
    return {row["id"]: row for row in claims.to_dict("records")}
