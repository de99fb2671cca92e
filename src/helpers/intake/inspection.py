"""What a cohort is and can test, told before the report is run: for its owner, who may see every number."""

import pandas as pd
from anndata import AnnData

from helpers.choices import load_choices
from helpers.claims import Claim, load_claims, statement
from helpers.doubts import doubts, summary
from helpers.errors import Problems
from helpers.evidence import untestable
from helpers.files import DATA
from helpers.ingest import NOT_RECORDED, build_cohort
from helpers.narrate import ages, visits_used
from helpers.quality import flow, people, tree_differs
from helpers.run.parameters import resolve_settings
from helpers.study import Column, Settings, Study, load_study
from helpers.visits import analysis_swabs


def inspect(name: str, overrides: str = "") -> str:
    """Read and check everything that the report would, tell all problems at once, or sum it up.

    The text tells swabs, people, pairs, depth, taxonomy, tree, and the claims that can be tested and that cannot.
    """
    study, problems = load_study(DATA / name), Problems()
    with problems:
        settings = resolve_settings(study, overrides)
    with problems:
        claims = load_claims(study)
    with problems:
        load_choices(study, study.settings)
    with problems:
        cohort, ledger = build_cohort(study)
    problems.stop()
    steps, _ = flow(ledger, cohort, settings.swabs, settings.rarefaction_depth)
    doubted = doubts(cohort, study)
    told = [*_swabs(study, cohort, ledger), *_people(study, cohort), *_vanished(study, steps)]
    told += ["", f"Is this right? {summary(doubted)}", *(f"  - {line}" for line in doubted.values())]
    told += _testable(claims, study, cohort, settings)
    return "\n".join(told)


def _swabs(study: Study, cohort: AnnData, ledger: pd.DataFrame) -> list[str]:
    read = ledger.loc[ledger["step"].eq("read"), "swabs_after"].sum()
    dropped = (ledger["swabs_before"] - ledger["swabs_after"]).groupby(ledger["reason"], sort=False).sum()
    lost = [f"  left out, {reason}: {n}" for reason, n in dropped[dropped > 0].items()]
    named = {rank: (cohort.var[rank] != "").mean() for rank in ("phylum", "genus", "species")}
    lines = [
        f"{study.title}: no problem found.",
        "",
        f"Swabs: {cohort.n_obs} of {read}; features: {cohort.n_vars}. {visits_used(study)}",
        *filter(None, [cohort.uns["counts_told"]]),
        *lost,
        "Features with a name: " + ", ".join(f"{rank} {100 * share:.0f} %" for rank, share in named.items()),
    ]
    if "tree" in cohort.uns:
        lines.append(f"Tree: {tree_differs(cohort)}")
    if study.counted:
        depth = cohort.obs.loc[cohort.obs["control_type"].eq("sample"), "depth"]
        lines.append(f"Reads a swab: median {depth.median():,.0f}, from {depth.min():,} to {depth.max():,}")
    return lines


def _people(study: Study, cohort: AnnData) -> list[str]:
    labels = study.names
    swabs = cohort.obs[cohort.obs["control_type"].eq("sample")]
    table = people(swabs).rename(columns={**labels, "both": "both visits"}, index=labels).rename_axis(index=None)
    sites = f"; up to {swabs.groupby(['subject', 'visit'], observed=True).size().max()} swabs a person and visit"
    told = ["", f"People{sites}:", *(f"  {line}" for line in table.to_string().splitlines())]
    if converted := ages(study):
        oldest, youngest = swabs["age"].max(), swabs["age"].min()
        told.append(f"{converted} They are {youngest:.1f} to {oldest:.1f}; if not, see columns.age_unit.")
    return told


def _vanished(study: Study, steps: pd.DataFrame) -> list[str]:
    """Groups, arms and visits of which nobody is left, and by which rule; `steps` as from `helpers.quality.flow`."""
    labels, visits = study.names, study.standard("visit")
    named = labels | ({"case": f"{labels['case']} without an arm"} if study.columns.arm else {})
    left = steps.pivot_table(["swabs", *visits], ["step", "reason"], "who", sort=False).fillna(0)
    swabs = {who: left["swabs"][who] for who in left["swabs"] if who != NOT_RECORDED}
    people = {visit: left[visit].sum(axis=1) for visit in visits}
    parts = {(who, visit): left[visit][who] for who in swabs for visit in visits}
    told: list[str] = []
    gone: set[object] = set()
    for key, counts in (swabs | people | parts).items():
        names = (key,) if isinstance(key, str) else key
        if counts.iloc[0] and not counts.iloc[-1] and not gone & {*names}:
            gone.add(key)
            what, rule = "swabs" if key in swabs else "people", counts.index[counts.eq(0)][0][1]
            told.append(f"{' at '.join(named.get(n, n) for n in names)}: all {counts.iloc[0]:.0f} {what}, {rule}")
    there = {*swabs, *(visit for visit in visits if people[visit].iloc[0])}
    there |= {"case"} if there & {*study.standard("arm")} else set()
    for name in ("group", "arm", "visit"):
        column: Column | None = getattr(study.columns, name)
        for standard, values in column.values.items() if column else ():  # noqa: PD011
            if standard not in there:
                told.append(f"{labels[standard]}: no swab has {' or '.join(values)}, columns.{name}.values.{standard}")
    return ["", "Warning: nobody is left of", *(f"  {line}" for line in told)] if told else []


def _testable(claims: dict[str, Claim], study: Study, cohort: AnnData, settings: Settings) -> list[str]:
    used = analysis_swabs(cohort.obs, settings.swabs)
    if study.counted:
        used &= cohort.obs["depth"] >= settings.rarefaction_depth
    width, lines = max(4, *map(len, claims)), []
    for name, why in untestable(claims, cohort[used], study).items():
        outcome = "cannot be tested" if why else "can be tested"
        lines.append(f"  {name:<{width}} {outcome:<17} {statement(claims[name], study)}")
        lines += [f"{'':<{width + 20}}because {why}"] if why else []
    which = f"{used.sum()} swabs ({settings.swabs.replace('_', ' ')}"
    which += f", at least {settings.rarefaction_depth:,} reads)" if study.counted else ")"
    whose = f"of {study.claims}" + (f" and {len(study.own_claims)} of study.yaml" if study.own_claims else "")
    return ["", f"Claims {whose}, with {which}:", *lines, "", f"Next: make report STUDY={study.folder.name}"]
