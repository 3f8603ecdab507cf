"""What the networks of a family answered, evaluation by evaluation, as one array beside the right answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

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


def read_predictions(store: Store, trial: str, samples: pd.DataFrame) -> dict[str, Predictions]:
    """A family's predictions by split, train and test; `samples` are those of its data set, see `read_samples`.

    Raises ValueError where the tables do not fit together: another number of samples, or evaluations that not all replicas have.
    """
    where = f"{store.root}/predictions/{trial}.parquet"
    rows = tables.read(store, "predictions", ["replica", "epoch", "moment", "split", "predicted"], [trial])
    rows = rows.assign(order=rows["moment"].map(MOMENTS.index)).sort_values(["replica", "epoch", "order"], kind="stable")
    found = {}
    for split, part in rows.groupby("split"):
        own = samples[samples["split"] == split]
        times = part[["epoch", "order"]].drop_duplicates()
        num_replicas = part["replica"].nunique()
        if len(part) != num_replicas * len(times):
            raise ValueError(f"{where}: {len(part)} rows of {num_replicas} replicas at {len(times)} evaluations of split {split!r}")
        lengths = sorted(set(part["predicted"].str.len()))
        if lengths != [len(own)]:
            raise ValueError(f"{where}: predictions of {lengths} samples, but the {split} split has {len(own)}")
        found[str(split)] = Predictions(
            np.stack(part["predicted"].to_list()).reshape(num_replicas, len(times), len(own)),
            times["epoch"].to_numpy(),
            np.array(MOMENTS)[times["order"]],
            own["sample"].to_numpy(),
            own["label_trained"].to_numpy().astype(np.int64),
            own["label"].to_numpy().astype(np.int64),
            trial,
            str(split),
        )
    return found


def read_samples(store: Store, dataset: str) -> pd.DataFrame:
    """The samples of a data set, in the order of predictions: sample, split, label, label_trained."""
    return tables.read(store, "samples", ["sample", "split", "label", "label_trained"], [dataset]).sort_values("sample", ignore_index=True)


Load = Callable[[str, str], Predictions]


def loader(store: Store, trials: pd.DataFrame, max_bytes: int = 2**28) -> Load:
    """Predictions by family and split, of the families of `trials` (its columns trial and dataset). The latest of them are kept."""
    datasets = dict(zip(trials["trial"], trials["dataset"], strict=True))
    samples = lru_cache(maxsize=4)(lambda dataset: read_samples(store, dataset))
    kept: OrderedDict[str, dict[str, Predictions]] = OrderedDict()

    def load(trial: str, split: str) -> Predictions:
        if trial not in kept:
            kept[trial] = read_predictions(store, trial, samples(datasets[trial]))
            while len(kept) > 2 and sum(one.predicted.nbytes for family in kept.values() for one in family.values()) > max_bytes:
                kept.popitem(last=False)
        kept.move_to_end(trial)
        return kept[trial][split]

    return load
