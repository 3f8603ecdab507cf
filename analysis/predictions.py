"""What the networks of a family answered, evaluation by evaluation, as one array beside the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from analysis import tables
from analysis.storage import Store

MOMENTS = ("epoch", "after_swap")  # in order of time at one epoch boundary


@dataclass(frozen=True)
class Predictions:
    """One family on one split. An evaluation is the end of an epoch (`epoch`: before any swap there) or right after a swap
    (`after_swap`: same weights, new functions, 0 steps); they are in order of time."""

    predicted: np.ndarray  # [replica, evaluation, sample] int16, the class; -1 once diverged
    epochs: np.ndarray  # [evaluation] completed epochs
    moments: np.ndarray  # [evaluation] epoch or after_swap
    samples: np.ndarray  # [sample] ids, ascending
    labels: np.ndarray  # [sample] what is trained on, label noise included
    clean_labels: np.ndarray  # [sample]
    trial: str
    split: str

    def at(self, chosen: np.ndarray | slice) -> Predictions:
        """These evaluations only: a mask, indices or a slice of the second axis."""
        return replace(self, predicted=self.predicted[:, chosen], epochs=self.epochs[chosen], moments=self.moments[chosen])

    @property
    def at_epochs(self) -> Predictions:
        """The ends of epochs only: an even grid, without the extra look after a swap."""
        return self.at(self.moments == "epoch")


def has_predictions(store: Store, trials: Sequence[str]) -> list[str]:
    """Those of the families whose predictions were recorded."""
    recorded = set(tables.names(store, "predictions"))
    return [trial for trial in trials if trial in recorded]


def read_predictions(store: Store, trial: str, dataset: str, split: str) -> Predictions:
    """A family's predictions on the train or test split of its data set (the `dataset` of its row in `trials`).

    Raises ValueError where the tables do not fit together: another number of samples, or evaluations that not all replicas have.
    """
    where = f"{store.root}/predictions/{trial}.parquet"
    columns = ["replica", "epoch", "moment", "predicted"]
    rows = tables.read(store, "predictions", columns, [trial], filter=pc.field("split") == split)
    samples = _samples(store, dataset, split)
    if rows.empty:
        raise ValueError(f"{where}: no predictions of split {split!r}")
    rows = rows.assign(order=rows["moment"].map(MOMENTS.index)).sort_values(["replica", "epoch", "order"], kind="stable")
    times = rows[["epoch", "order"]].drop_duplicates()
    num_replicas = rows["replica"].nunique()
    if len(rows) != num_replicas * len(times):
        raise ValueError(f"{where}: {len(rows)} rows of {num_replicas} replicas at {len(times)} evaluations")
    lengths = set(rows["predicted"].str.len())
    if lengths != {len(samples)}:
        raise ValueError(f"{where}: predictions of {lengths} samples, the {split} split of {dataset} has {len(samples)}")
    predicted = np.stack(rows["predicted"].to_list()).reshape(num_replicas, len(times), len(samples))
    return Predictions(
        predicted,
        times["epoch"].to_numpy(),
        np.array(MOMENTS)[times["order"]],
        samples["sample"].to_numpy(),
        samples["label_trained"].to_numpy().astype(np.int64),
        samples["label"].to_numpy().astype(np.int64),
        trial,
        split,
    )


def _samples(store: Store, dataset: str, split: str) -> pd.DataFrame:
    columns = ["sample", "label", "label_trained"]
    return tables.read(store, "samples", columns, [dataset], filter=pc.field("split") == split).sort_values("sample")
