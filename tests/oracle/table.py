"""The small table of the oracle: simulated, 60 swabs x 170 ASVs. ``python tests/oracle/table.py`` writes it."""

from pathlib import Path

import numpy as np
import pandas as pd
from skbio import TreeNode

from helpers.simulation.cohort import simulate_cohort
from helpers.simulation.truth import Truth

HERE = Path(__file__).parent
NAMES = {"visit": {"M0": "baseline", "M3": "followup"}, "arm": {"dupilumab": "treatment", "cyclosporine": "comparator"}}


def main() -> None:
    """Write counts.tsv (swabs x ASVs), metadata.tsv and tree.nwk."""
    truth = Truth()
    sequencing = truth.sequencing.model_copy(
        update={"lost": 0.0, "missing": 0.0, "shallow": 0.0, "negatives": 0, "depth": (6.5, 0.5)}
    )
    population = truth.population.model_copy(update={"patients": {"dupilumab": 12, "cyclosporine": 8}, "controls": 10})
    cohort = simulate_cohort(truth.model_copy(update={"population": population, "sequencing": sequencing}), seed=11)
    obs = cohort.metadata.rename(
        columns={"patient_id": "subject", "drug": "arm", "sequencing_run": "batch", "EASI": "easi"}
    ).replace(NAMES)
    obs["group"] = obs["diagnosis"].map({"AD": "case", "healthy": "control"})
    obs = obs[["subject", "visit", "group", "arm", "age", "sex", "batch", "easi"]].sort_values(["subject", "visit"])
    counts = pd.DataFrame(cohort.counts.toarray(), index=cohort.metadata.index, columns=cohort.taxonomy.index).loc[
        obs.index
    ]
    counts = counts.loc[:, (counts > 0).sum() >= 8]
    obs.index = counts.index = pd.Index([f"S{i + 1:02d}" for i in range(len(obs))], name="swab")
    tsv = {"sep": "\t", "lineterminator": "\n"}
    counts.astype(np.int64).to_csv(HERE / "counts.tsv", **tsv)
    obs.astype({"age": int}).to_csv(HERE / "metadata.tsv", na_rep="NA", **tsv)
    tree = TreeNode.read([cohort.tree]).shear(list(counts.columns))
    tree.prune()
    tree.write(str(HERE / "tree.nwk"))


if __name__ == "__main__":
    main()
