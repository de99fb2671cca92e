"""The evidence that the notebooks gathered, judged: ``claims.tsv`` and ``claims.json``."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from helpers.claims import COLUMNS, KEY, OF_SPECIFICATIONS, Claim, load_claims, verdicts
from helpers.disclosure import as_tsv, in_table, in_text
from helpers.errors import StudyError
from helpers.evidence import COLUMNS as OF_A_PART
from helpers.evidence import TESTED, parts_of
from helpers.files import CLAIMS_JSON, CLAIMS_TABLE, EVIDENCE, ROBUSTNESS, write_whole
from helpers.output import plain
from helpers.study import Study


def gathered(results: Path, chapters: list[str], claims: Mapping[str, Claim], study: Study) -> pd.DataFrame:
    """What the notebooks gathered for the claims: rows as from `helpers.evidence.gather`, with ``notebook``.

    Raises `StudyError` if a part of a claim has no evidence, or stands twice.
    """
    rows = []
    for file in sorted((results / EVIDENCE).glob("*.json")):
        notebook = next((chapter for chapter in chapters if chapter[:2] == file.stem[:2]), "")
        rows += [row | {"notebook": notebook} for row in json.loads(file.read_text(encoding="utf-8"))]
    parts = pd.DataFrame(rows, columns=[*KEY, *OF_A_PART, "notebook"])
    wanted = [(name, *asked) for name, _, asked in parts_of(claims, study)]
    there = set(parts[list(KEY)].itertuples(index=False, name=None))
    if missing := [" ".join(filter(None, key)) for key in wanted if key not in there]:
        raise StudyError(f"no notebook gathered evidence for {'; '.join(missing)}", file=results / EVIDENCE,
                         fix="run `make clean`, then `make report`")  # fmt: skip
    if parts.duplicated(list(KEY)).any():
        twice = parts.loc[parts.duplicated(list(KEY)), "claim"].iloc[0]
        raise StudyError(f"two notebooks gathered the same evidence for {twice}", file=results / EVIDENCE)
    numbers = [*TESTED, "detectable", "sd"]
    parts[numbers] = parts[numbers].apply(pd.to_numeric)
    return parts


def judge(
    study: Study, results: Path, chapters: list[str], alpha: float, *, keep: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge the claims on the evidence of the notebooks; write ``claims.tsv`` and ``claims.json``, if to `keep`.

    Returns what `gathered` does, and the claims as from `helpers.claims.verdicts`, ``n`` and reason as shown.
    """
    claims = load_claims(study)
    parts = gathered(results, chapters, claims, study)
    judged = verdicts(parts, claims, study, alpha).astype({"n": "Int64"})
    judged = judged.assign(reason=[in_text(reason, study.privacy) for reason in judged["reason"]])
    judged = judged.merge(_agreement(results), how="left", on="id")
    shown = in_table(judged, study.privacy)
    if keep:
        records = plain(shown[[*COLUMNS, *OF_SPECIFICATIONS]].to_dict("records"))
        write_whole(results / CLAIMS_JSON, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
        write_whole(results / CLAIMS_TABLE, as_tsv(shown))
    return parts, judged.assign(n=shown["n"])


def _agreement(results: Path) -> pd.DataFrame:
    """Of each claim, what the multiverse found; nothing, if it was switched off."""
    if not (results / ROBUSTNESS).is_file():
        return pd.DataFrame(columns=["id", *OF_SPECIFICATIONS])
    numbers = {key: [""] for key in ("agree", *OF_SPECIFICATIONS)}
    table = pd.read_csv(results / ROBUSTNESS, sep="\t", keep_default_na=False, na_values=numbers)
    table = table.rename(columns={"claim": "id"})
    return table.assign(agreement=table["agree"] / table["specifications"])[["id", *OF_SPECIFICATIONS]]
