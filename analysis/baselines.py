"""What else is known of each family at the end of training: what spread has to beat as a predictor of the gap. Tables in, a table out."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from analysis import tables
from analysis.measures.baselines import disagreement
from analysis.storage import Store

DISAGREEMENT = "disagreement"


def baselines(store: Store, trials: Collection[str]) -> pd.DataFrame:
    """A row per family, baseline and layer: columns trial, baseline, layer (missing for the whole network), value (mean over replicas).

    Train accuracy and the disagreement of a family's replicas on the test set come from `replicas` and `predictions`, which all results
    have; the others from the table `baselines` where there is one. Replicas that diverged are left out.
    """
    parts: list[pd.DataFrame] = [_train_accuracy(store, trials), _disagreement(store, trials)]
    if here := sorted(set(trials) & set(tables.names(store, "baselines"))):
        rows = tables.read(store, "baselines", ["trial", "baseline", "layer", "value"], only=here)
        rows = rows[np.isfinite(rows["value"]) & (rows["baseline"] != DISAGREEMENT)]
        parts.append(pd.DataFrame(rows.groupby(["trial", "baseline", "layer"], dropna=False)["value"].mean()).reset_index())
    return pd.concat(parts, ignore_index=True).astype({"value": np.float64})


def _train_accuracy(store: Store, trials: Collection[str]) -> pd.DataFrame:
    rows = tables.read(store, "replicas", ["trial", "train_accuracy", "diverged_at"], only=sorted(trials))
    rows = rows[rows["diverged_at"].isna()].astype({"train_accuracy": np.float64})
    mean = rows.groupby("trial", as_index=False)["train_accuracy"].mean()
    return pd.DataFrame({"trial": mean["trial"], "baseline": "train_accuracy", "layer": None, "value": mean["train_accuracy"]})


def _disagreement(store: Store, trials: Collection[str]) -> pd.DataFrame:
    """Mean over pairs of replicas of the share of test samples that they class differently, after the last epoch."""
    found = []
    for trial in sorted(set(trials) & set(tables.names(store, "predictions"))):
        rows = tables.read(store, "predictions", ["epoch", "moment", "split", "predicted"], only=[trial])
        rows = rows[(rows["split"] == "test") & (rows["moment"] == "epoch")]
        predicted = [row for row in rows.loc[rows["epoch"] == rows["epoch"].max(), "predicted"] if (row >= 0).all()]
        value = float(disagreement(np.stack(predicted)).mean()) if len(predicted) > 1 else np.nan
        found.append({"trial": trial, "baseline": DISAGREEMENT, "layer": None, "value": value})
    return pd.DataFrame(found, columns=["trial", "baseline", "layer", "value"])
