"""All visits together: how each arm went from visit to visit, and the mixed model of a measure over every swab."""

import warnings
from itertools import product

import numpy as np
import pandas as pd

from helpers.estimates import Names, as_numbers, mean_change, not_estimable, with_t
from helpers.ingest import in_order
from helpers.measures import by_visit, find
from helpers.study import FEW, VOCABULARY, Study
from helpers.visits import paired, same_sites, who


def trajectories(course: pd.DataFrame, keys: Names, study: Study, *, alpha: float = 0.05) -> pd.DataFrame:
    """Mean change since baseline at each visit, in every group and arm; nothing where two visits and two arms are all.

    `course` has a row a swab of all visits and arms; each change is over the sites of both visits. Columns who, visit
    (names), measure (its label), unit, scale, and of `helpers.estimates.ESTIMATE` those of no test; of fewer than five
    people there is only the count.
    """
    if not {*course["visit"].dropna(), *course["arm"].dropna()} - {*VOCABULARY["visit"], *VOCABULARY["arm"]}:
        return pd.DataFrame()
    rows = []
    for visit in study.standard("visit")[1:]:
        two = course[course["visit"].isin(["baseline", visit])]
        two = two.assign(visit=two["visit"].astype(object).replace(visit, "followup"))
        visits = by_visit(two[same_sites(two)], keys)
        for key, group in product(keys, in_order(visits["who"])):
            change, measure = paired(visits[visits["who"].eq(group)], key)["change"], find(key, study)
            about = {"who": study.names[group], "visit": study.names[visit], "measure": measure.label}
            enough = change.count() >= study.privacy.enough
            found = mean_change(change, alpha=alpha) if enough else not_estimable(change.count())
            rows.append(about | {"unit": measure.unit, "scale": measure.scale} | found)
    shown = ["who", "visit", "measure", "unit", "scale", "estimate", "ci_low", "ci_high", "n"]
    return pd.DataFrame(rows)[shown].query("n > 0").reset_index(drop=True)


def mixed_contrast(
    swabs: pd.DataFrame, measure: str, covariates: Names = (), *, alpha: float = 0.05
) -> dict[str, float]:
    """Change from baseline to follow-up by a mixed model of all visits; of two arms, treatment minus comparator.

    Fixed: visit; where `swabs` are of two arms, arm and arm x visit; the covariates at the first visit, each with a
    coefficient of its own after baseline; site. Random: patient, where there are several sites the patient's site, and
    where there are several swabs at a visit the patient's visit. By restricted maximum likelihood. With two visits, one
    swab each and nobody lost, it is the change score.

    The error is the larger of the model's and of the bias-reduced robust one, clustered on the patient: visits that are
    close in time resemble each other more, which random effects of the patient do not know. t with as many degrees of
    freedom as patients with both visits, less the coefficients of their change.

    `swabs` has a row a swab: subject, visit, site, arm, `measure` and `covariates`. Visits of fewer than two patients
    in an arm do not count. n and n_dropped count patients, of whom n have one value at least; NaN if fewer than five in
    an arm have both visits. ``model_se`` is the model's error.

    References
    ----------
    Laird & Ware, Biometrics 1982;38:963; Mancl & DeRouen, Biometrics 2001;57:126 (bias-reduced covariance).
    """
    rows = swabs.assign(arm=who(swabs), **{c: swabs[c].astype(str) for c in ("subject", "visit", "site")})
    rows, arms = rows.iloc[np.argsort(rows["visit"].ne("baseline"), kind="stable")], sorted(set(rows["arm"]))
    given = rows.groupby("subject")[list(covariates)].transform("first")
    known = rows.assign(**given).dropna(subset=[measure, *covariates])
    people = known.pivot_table("subject", "visit", "arm", aggfunc="nunique").reindex(columns=arms)
    there = list(people.index[people.ge(2).all(axis=1)])
    known = known[known["visit"].isin(there)].sort_values("subject", kind="stable")
    ends = known[known["visit"].isin(VOCABULARY["visit"])].drop_duplicates(["subject", "visit"])
    both = ends.loc[ends.duplicated("subject"), "arm"].value_counts().reindex(arms, fill_value=0)
    n, dropped = known["subject"].nunique(), rows["subject"].nunique() - known["subject"].nunique()
    if both.min() < FEW:
        return not_estimable(n, dropped)
    visits = sorted({*there} - {"baseline"}, key=lambda visit: visit != "followup")  # what is asked comes first
    after = pd.DataFrame({visit: known["visit"].eq(visit) for visit in visits}, dtype=float)
    treated = known[["arm"]].eq("treatment").astype(float)
    x = after.assign(one=1.0)
    if len(arms) > 1:
        x = after.mul(treated["arm"], axis=0).add_prefix("treated:").join([treated, x])
    numbers = as_numbers(known[list(covariates)])
    changed = numbers.mul(1 - known["visit"].eq("baseline"), axis=0).add_suffix(":after")
    x = x.join([numbers, changed, as_numbers(known[["site"]])])
    df = both.sum() - len(arms) - numbers.shape[1]
    if df < FEW or np.linalg.matrix_rank(x) < x.shape[1]:
        return not_estimable(n, dropped)
    estimate, model, robust = _fitted(known, known[measure].to_numpy(float), x.to_numpy(float))
    return with_t(estimate, max(model, robust), df, n, dropped, alpha=alpha) | {"model_se": model}


def _fitted(rows: pd.DataFrame, y: np.ndarray, x: np.ndarray) -> tuple[float, float, float]:
    """The first coefficient, its error by the model, and the bias-reduced robust one; `rows` sorted by subject."""
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec  # slow to import, and for some studies

    effects = {"patient": rows["subject"], "site": rows["site"], "visit": rows["visit"]}
    if rows.groupby("subject")["site"].nunique().max() < 2:
        del effects["site"]
    if not rows.duplicated(["subject", "visit"]).any():
        del effects["visit"]
    members = list(rows.reset_index(drop=True).groupby("subject").indices.values())
    z = {name: [pd.get_dummies(of.iloc[i], dtype=float).to_numpy() for i in members] for name, of in effects.items()}
    names = [[[str(j) for j in range(m.shape[1])] for m in of] for of in z.values()]
    spec = VCSpec(list(z), names, list(z.values()))
    scale = y.std() or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of zero is no failure here
        fit = MixedLM(y / scale, x, groups=rows["subject"].to_numpy(), exog_vc=spec).fit(reml=True, gtol=1e-8)
    bread, total, weighted = np.zeros((x.shape[1],) * 2), np.zeros(x.shape[1]), []
    for k, i in enumerate(members):
        v = fit.scale * np.eye(len(i)) + sum(s * of[k] @ of[k].T for s, of in zip(fit.vcomp, z.values(), strict=True))
        weighted.append(np.linalg.solve(v, x[i]))
        bread += weighted[-1].T @ x[i]
        total += weighted[-1].T @ y[i]
    inverse = np.linalg.inv(bread)
    beta = inverse @ total
    scores = []
    for w, i in zip(weighted, members, strict=True):
        left = np.eye(len(i)) - x[i] @ inverse @ w.T
        scores.append((inverse @ w.T @ np.linalg.pinv(left) @ (y[i] - x[i] @ beta))[0])
    return float(beta[0]), float(scale * np.sqrt(inverse[0, 0])), float(np.sqrt(np.square(scores).sum()))
