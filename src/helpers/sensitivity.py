"""What would have to be true for a verdict to move: unmeasured causes, patients who were lost, regression, load."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from helpers.estimates import as_numbers, levels_in_use

# ---------------------------------------------------------------- an unmeasured cause


def robustness_value(t: float, df: float, *, q: float = 1, alpha: float = 1) -> float:
    """How strong an unmeasured cause of both treatment and outcome would have to be to overturn a coefficient.

    Parameters
    ----------
    t, df : float
        The coefficient's t value by ordinary least squares, with its plain standard error (a robust one has no such
        algebra), and the residual degrees of freedom.
    q : float
        Share of the coefficient that is to go: 1 takes it to zero.
    alpha : float
        With 1, for the estimate to reach zero (q = 1); below, for its interval of 1 - alpha to include it.

    Returns
    -------
    float
        The share, 0 to 1, that the cause would have to explain of the variance that the model leaves in treatment and
        outcome, of each. 0 where the interval includes zero already.

    References
    ----------
    Cinelli & Hazlett, J R Stat Soc B 2020;82:39, section 4.2; Biometrika 2025 (the case of a very large t).
    """
    f = q * abs(t) / np.sqrt(df)
    needed = stats.t.isf(alpha / 2, df - 1) / np.sqrt(df - 1)
    if f <= needed:
        return 0.0
    if f * needed > 1:  # a cause that explains less of the outcome than of the treatment does more harm
        return float((f**2 - needed**2) / (1 + f**2))
    return float((np.sqrt((f - needed) ** 4 + 4 * (f - needed) ** 2) - (f - needed) ** 2) / 2)


def strength_of(data: pd.DataFrame, outcome: str, term: str, covariates: Sequence[str]) -> pd.DataFrame:
    """How strong the measured covariates are: the yardstick for an unmeasured one.

    Parameters
    ----------
    data : DataFrame
        One row a patient; those with a missing value are left out.
    outcome : str
        Numeric column.
    term : str
        Numeric or boolean column whose coefficient is in question.

    Returns
    -------
    DataFrame
        One row a covariate that varies, a category as a whole: ``covariate``; ``outcome`` and ``term``, the share that
        it explains of the variance that the others (and the term) leave in the outcome, and the others in the term;
        ``removes``, the share of the term's coefficient that an unmeasured cause as strong as it, and unrelated to it,
        could at most account for: above 1, its sign. NaN where the covariate explains half of the term, as no second
        one could. No rows with too few patients, or one value of the term.

    References
    ----------
    Cinelli & Hazlett, J R Stat Soc B 2020;82:39, section 4.4 (the bounds, of a cause once as strong); section 6.1 says
    why ``outcome`` and ``term`` themselves are no bounds.
    """
    complete = levels_in_use(data[[outcome, term, *covariates]].dropna())
    varying = [c for c in covariates if complete[c].nunique() > 1]
    numbers = as_numbers(complete[[term, *varying]])
    if term not in numbers or len(complete) < numbers.shape[1] + 3:
        return pd.DataFrame(columns=["covariate", "outcome", "term", "removes"])
    # A measure may be named after a taxon, which is no name for a formula.
    frame = complete.assign(_outcome=complete[outcome].astype(float), _term=complete[term].astype(float))
    on_outcome = smf.ols(" + ".join(["_outcome ~ _term", *varying]), frame).fit()
    on_term = smf.ols(" + ".join(["_term ~ 1", *varying]), frame).fit()
    y, d = (_partial_r2(fit)[varying].to_numpy() for fit in (on_outcome, on_term))
    possible = np.where(d < 0.5, 1 - 2 * d, np.nan)
    unmeasured = np.minimum(y / (1 - y) / possible, 1) * d / possible
    removes = np.sqrt(unmeasured * on_outcome.df_resid) / abs(on_outcome.tvalues["_term"])
    return pd.DataFrame({"covariate": varying, "outcome": y, "term": d, "removes": removes})


def _partial_r2(fit: Any) -> pd.Series:
    """Share of the variance left by the other terms that each explains, from the F test of all its columns."""
    squares = anova_lm(fit, typ=2)["sum_sq"]
    return squares / (squares + squares["Residual"])
