"""Estimates under permutations that break one association only: the null of all specifications of a claim together.

One permutation is carried through all specifications: a person takes the place of the same other person and has the
same sign in each, as far as its people allow. The first "permutation" leaves everything as it is.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.linalg import orth
from scipy.special import stdtr
from scipy.stats import rankdata

from helpers import estimates, treatment
from helpers.estimates import Names
from helpers.evidence import LESS_CONTROLS, Asked, Data, arm_covariates, change_pairs, with_improvement
from helpers.study import Study
from helpers.visits import paired


class Draws:
    """Random permutations and signs of people, (1 + permutations) x people; the first leaves the sample as it is."""

    def __init__(self, people: Sequence[str], permutations: int, seed: int) -> None:
        rng, n = np.random.default_rng(seed), len(people)
        self.people = pd.Index(people)
        self.donors = np.vstack([np.arange(n), rng.permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)])
        self.signs = np.vstack([np.ones(n), rng.choice([-1.0, 1.0], (permutations, n))])
        self._orders: dict[bytes, np.ndarray] = {}  # most specifications have the same people

    def order(self, people: pd.Index) -> np.ndarray:
        """The permutations of some of the people that those of all induce: who is absent is passed over in the cycle.

        So that leaving somebody out changes nobody else's place but that of who would have had theirs.
        """
        which = self.people.get_indexer(people)
        key = which.tobytes()
        if key not in self._orders:
            place = np.full(len(self.people), -1)
            place[which] = np.arange(len(which))
            donor = self.donors[:, which]
            while (absent := place[donor] < 0).any():
                row, _ = np.nonzero(absent)
                donor[absent] = self.donors[row, donor[absent]]
            self._orders[key] = place[donor]
        return self._orders[key]

    def sign(self, people: pd.Index) -> np.ndarray:
        """Signs of some of the people."""
        return self.signs[:, self.people.get_indexer(people)]


def permuted(asked: Asked, data: Data, study: Study, drawn: Draws) -> dict[str, np.ndarray]:
    """What `helpers.evidence.answers` estimates, under each permutation.

    Differences and arms: residuals of the model without the contrast are permuted and added to what it fits. Changes:
    each person's change has a random sign. Severity: the residuals of the measure's ranks are permuted, and what the
    covariates explain of them is taken out again.

    By estimator: estimates, two-sided p-values and t, the estimates in their errors, 3 x (1 + permutations). Those of
    overlap weights take the weights as known, with an HC3 error. An estimator that is not there cannot be permuted like
    this: imputation, or pooling.

    References
    ----------
    Freedman & Lane, J Bus Econ Stat 1983;1:292; Simonsohn, Simmons & Nelson, Nat Hum Behav 2020;4:1208 (one permutation
    through all specifications).
    """
    measure, found = asked.measure, {}
    baseline = data.visits[data.visits["visit"].eq("baseline")].set_index("subject")
    match asked.contrast:
        case "group":
            found = {"OLS": _reshuffled(baseline, measure, "case", study.adjust.group, drawn)}
        case "severity" if asked.score:
            patients = baseline[baseline["case"]]
            found = {"partial Spearman": _rank_residuals(patients, measure, asked.score, study.adjust.group, drawn)}
        case "change" | "change_in":
            pairs = change_pairs(asked, data, study).set_index("subject").dropna(subset="change")
            own = pairs[pairs["who"].eq(asked.arm)]
            found = {"mean change": _mean(own["change"].to_numpy() * drawn.sign(own.index))}
            if asked.contrast == "change":
                both = pairs[pairs["who"].isin([asked.arm, "control"])]
                of, x = estimates.design(both, "change", "case")
                flipped = of["change"].to_numpy() * drawn.sign(of.index)
                found |= {LESS_CONTROLS: _coefficient(flipped, x)} if x.size else {}
        case "arms":
            pairs, adjust = treatment.arms(paired(data.followed, measure)), arm_covariates(asked, study)
            complete = pairs.dropna(subset=["y0", "y1", "treated", *adjust]).set_index("subject")
            found = {
                "ANCOVA": _reshuffled(complete, "y1", "treated", ["y0", *adjust], drawn),
                "change score": _reshuffled(complete, "change", "treated", adjust, drawn),
                "overlap weights": _weighted(complete, adjust, drawn),
            }
        case "arms_given_improvement":
            pairs = with_improvement(measure, data.followed, study).set_index("subject")
            given = ["y0", *arm_covariates(asked, study), "improvement"]
            found = {"direct": _reshuffled(pairs, "y1", "treated", given, drawn)}
    return {name: each for name, each in found.items() if each is not None}


def _reshuffled(data: pd.DataFrame, outcome: str, term: str, covariates: Names, drawn: Draws) -> np.ndarray | None:
    """`estimates.linear_contrast` after Freedman and Lane; `data` is indexed by subject."""
    complete, x = estimates.design(data, outcome, term, covariates)
    if not x.size:
        return None
    return reshuffled(complete[outcome].to_numpy(float), x, drawn.order(complete.index))


def reshuffled(y: np.ndarray, x: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Coefficient of the second column of `x`, p and t, under permutations of the residuals of the other columns."""
    return _coefficient(_freedman_lane(y, np.delete(x, 1, axis=1), order), x)


def _weighted(complete: pd.DataFrame, covariates: Names, drawn: Draws) -> np.ndarray | None:
    """Difference of the arms' mean changes with overlap weights."""
    treated, y = complete["treated"].to_numpy(bool), complete["change"].to_numpy(float)
    if len(set(treated)) < 2:
        return None
    given = np.column_stack([np.ones(len(y)), estimates.as_numbers(complete[list(covariates)])])
    x = np.column_stack([np.ones(len(y)), treated])
    weights = treatment.overlap_weights(complete, covariates).to_numpy()
    return _coefficient(_freedman_lane(y, given, drawn.order(complete.index)), x, weights)


def _freedman_lane(y: np.ndarray, given: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Permuted outcomes, permutations x people: what the model `given` fits, plus its residuals in another order."""
    basis = _basis(given)
    fitted = basis @ (basis.T @ y)
    return fitted + (y - fitted)[order]


def _basis(x: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the columns' span."""
    return orth(x) if x.shape[1] else np.empty((len(x), 0))


def _coefficient(y: np.ndarray, x: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Coefficient of the second column of `x` for each row of outcomes, p and t with an HC3 error."""
    estimate, se, _, df = estimates.coefficients(y, x, weights=weights)
    return _with_p(estimate, estimate / se, df)


def _mean(y: np.ndarray) -> np.ndarray | None:
    """Mean of each row, and Student's p."""
    n = y.shape[1]
    if n < 3:
        return None
    mean = y.mean(axis=1)
    return _with_p(mean, mean / (y.std(axis=1, ddof=1) / np.sqrt(n)), n - 1)


def _rank_residuals(patients: pd.DataFrame, x: str, y: str, covariates: Names, drawn: Draws) -> np.ndarray | None:
    """`estimates.partial_spearman`, the residuals of the first ranks permuted."""
    complete = patients[[x, y, *covariates]].dropna()
    numbers = estimates.as_numbers(complete)
    df = len(complete) - numbers.shape[1]
    if df < 2 or x not in numbers or y not in numbers:
        return None
    ranks = rankdata(numbers, axis=0) - (len(complete) + 1) / 2
    basis = _basis(ranks[:, 2:])
    of_x, of_y = (ranks[:, i] - basis @ (basis.T @ ranks[:, i]) for i in (0, 1))
    permuted = of_x[drawn.order(complete.index)]
    permuted -= (permuted @ basis) @ basis.T
    rho = permuted @ of_y / np.sqrt((permuted**2).sum(axis=1) * (of_y**2).sum())
    return _with_p(rho, estimates.t_of_correlation(rho, df), df)


def _with_p(estimate: np.ndarray, t: np.ndarray, df: float) -> np.ndarray:
    return np.array([estimate, 2 * stdtr(df, -abs(t)), t])
