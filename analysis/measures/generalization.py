"""How well a family generalizes, from the accuracies and losses of its replicas."""

from __future__ import annotations

import numpy as np
import pandas as pd

# What spread is held against. Larger is worse in each; gaps are against the labels trained on.
PREDICTORS = {
    "gap_accuracy": "train minus test accuracy (fraction)",
    "gap_cross_entropy": "test minus train cross-entropy (nat)",
    "test_error": "1 minus test accuracy (fraction)",
}


def gaps(replicas: pd.DataFrame) -> pd.DataFrame:
    """Per family, the mean of each predictor over the replicas that did not diverge.

    `replicas` is the table of that name. The result has a row per trial, sorted, with `<predictor>`, `<predictor>_se`
    (standard error of the mean over replicas, NaN below 2), `<predictor>_num_replicas` (values used) and `<predictor>_values` (of each
    replica, by its index; NaN for those that diverged), `num_replicas` and `num_diverged`. A family without a value gets NaN.
    """
    replicas = replicas.sort_values(["trial", "replica"]) if "replica" in replicas else replicas
    values = pd.DataFrame(
        {
            "gap_accuracy": replicas["gap_accuracy"].astype(np.float64),
            "gap_cross_entropy": replicas["gap_cross_entropy"].astype(np.float64),
            "test_error": 1.0 - replicas["test_accuracy"].astype(np.float64),
        }
    )
    diverged = replicas["diverged_at"].notna()
    values = values.where(np.isfinite(values)).mask(diverged)
    trial = replicas["trial"].rename("trial")
    grouped = values.groupby(trial, sort=True)
    mean, error, count = grouped.mean(), grouped.sem(), grouped.count()
    columns: dict[str, pd.Series] = {}
    for name in PREDICTORS:
        columns |= {name: mean[name], f"{name}_se": error[name], f"{name}_num_replicas": count[name]}
        columns[f"{name}_values"] = grouped[name].agg(lambda rows: rows.to_numpy())
    columns["num_replicas"] = diverged.groupby(trial, sort=True).size()
    columns["num_diverged"] = diverged.groupby(trial, sort=True).sum()
    return pd.DataFrame(columns).reset_index()
