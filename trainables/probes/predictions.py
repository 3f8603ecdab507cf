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
        groups = []
        for key in sorted(self.records):
            (epoch, moment, (split,)), classes = parse_key(key), self.records[key].numpy()
            total = len(classes)
            groups.append(
                {
                    "trial": [trial] * total,
                    "replica": np.arange(total),
                    "epoch": np.full(total, epoch),
                    "moment": [moment] * total,
                    "split": [split] * total,
                    "predicted": list_array(classes),
                }
            )
        return merge(groups)
