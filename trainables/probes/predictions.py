"""Predicted classes of every train and test sample, at every evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from analysis.tables import list_array
from trainables.probes import Look, merge, parse_key

PREDICTED_SPLITS = ("train", "test")


class PredictionsProbe:
    """The table `predictions`. Records are classes `[replica, sample]`."""

    table = "predictions"

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.records: dict[str, Tensor] = {}

    def look(self, look: Look) -> None:
        if self.enabled and look.evaluation is not None:
            for split in PREDICTED_SPLITS:
                self.records[look.key(split)] = look.evaluation.predicted[split]

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        """Rows by split, replica and time. A replica's evaluations stand one behind the other: they differ in few samples, and zstd finds
        what repeats only some hundred kB back (6 replicas, 60,000 samples, 100 epochs: 0.6 MB each so, 1.4 MB epoch by epoch)."""
        groups = []
        for split in PREDICTED_SPLITS:
            keys = [key for key in sorted(self.records) if parse_key(key)[2] == [split]]
            if not keys:
                continue
            classes = np.stack([self.records[key].numpy() for key in keys], axis=1)  # [replica, time, sample]
            num_replicas, num_times, num_samples = classes.shape
            groups.append(
                {
                    "trial": [trial] * (num_replicas * num_times),
                    "replica": np.repeat(np.arange(num_replicas), num_times),
                    "epoch": np.tile([parse_key(key)[0] for key in keys], num_replicas),
                    "moment": [parse_key(key)[1] for key in keys] * num_replicas,
                    "split": [split] * (num_replicas * num_times),
                    "predicted": list_array(classes.reshape(-1, num_samples)),
                }
            )
        return merge(groups)
