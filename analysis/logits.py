"""Which recorded layer is the network's answer, and what the right answers are: what functional measures need. Tables in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis import tables
from analysis.measures.measure import Measure
from analysis.reading import parquet
from analysis.storage import Store


@dataclass(frozen=True)
class Logits:
    """The layer that gives the logits, None where it was not recorded, and the class of each probe sample `[sample]`."""

    layer: str | None
    labels: np.ndarray

    def applies(self, measure: Measure, layer: str) -> bool:
        """Whether a measure is one of this layer: those of what networks answer are for the logits alone."""
        return measure.kind == "representation" or layer == self.layer


def logits(store: Store, trial: str, dataset: str) -> Logits:
    """Of one family. The logits are the layer recorded last, if it gives each sample one number per class of the data set."""
    classes = tables.read(store, "samples", ["label"], only=[dataset] if dataset in tables.names(store, "samples") else [])["label"]
    with parquet(store, f"activations/{trial}.parquet") as file:
        if not file.num_row_groups or not file.metadata.row_group(file.num_row_groups - 1).num_rows:
            return Logits(None, np.zeros(0, np.int64))
        last = file.read_row_group(file.num_row_groups - 1, columns=["layer", "shape", "replica", "position", "label"])
    one = (last["replica"].to_numpy() == last["replica"][0].as_py()) & (last["position"].to_numpy() == 0)
    is_logits = len(classes) > 0 and last["shape"][0].as_py() == [int(classes.max()) + 1]
    return Logits(str(last["layer"][0].as_py()) if is_logits else None, last["label"].to_numpy()[one].astype(np.int64))
