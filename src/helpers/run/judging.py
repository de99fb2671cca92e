"""What the notebooks estimated, judged: ``claims.tsv`` and ``claims.json``."""

import json
from pathlib import Path

import pandas as pd

from helpers.claims import COLUMNS, verdicts
from helpers.disclosure import for_spreadsheets, in_table
from helpers.files import CLAIMS_JSON, CLAIMS_TABLE, EVIDENCE, write_whole
from helpers.output import plain
from helpers.study import Study, StudyError


def estimated(results: Path, chapters: list[str]) -> pd.DataFrame:
    """What the notebooks estimated for the claims.

    Parameters
    ----------
    results : Path
    chapters : list of str
        The notebooks' names.

    Returns
    -------
    DataFrame
        Rows as from `helpers.claims.part`, with ``notebook``.
    """
    files = sorted((results / EVIDENCE).glob("*.json"))
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
    if not rows:
        raise StudyError("no notebook saved estimates for the claims", file=results / EVIDENCE, fix="make clean")
    parts = pd.DataFrame(rows)
    numbers = ["estimate", "ci_low", "ci_high", "p_value", "margin", "p_equivalence"]
    parts[numbers] = parts[numbers].apply(pd.to_numeric)
    return parts


def judge(study: Study, results: Path, chapters: list[str], alpha: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge the claims on what the notebooks estimated; write ``claims.tsv`` and ``claims.json``.

    Parameters
    ----------
    study : Study
    results : Path
    chapters : list of str
        The notebooks' names.
    alpha : float

    Returns
    -------
    parts : DataFrame
        As from `estimated`.
    claims : DataFrame
        As from `helpers.claims.verdicts`, ``n`` as it may be shown.
    """
    parts = estimated(results, chapters)
    claims = in_table(verdicts(parts, alpha).astype({"n": "Int64"}), study.privacy)
    records = plain(claims[list(COLUMNS)].to_dict("records"))
    write_whole(results / CLAIMS_JSON, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    table = for_spreadsheets(claims).to_csv(sep="\t", index=False, float_format="%.10g", lineterminator="\n")
    write_whole(results / CLAIMS_TABLE, table)
    return parts, claims
