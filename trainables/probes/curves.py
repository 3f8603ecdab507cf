"""Curves: every metric of every replica on every split, at every evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from analysis.tables import LOSS_COLUMNS
from trainables.probes import Look, merge, parse_key
from trainables.recipe import Training
from trainables.schedule import Schedule
from trainables.training import METRICS, SPLITS, learning_rate


class CurvesProbe:
    """The table `epochs`. Records are metrics `[replica, split, metric]`."""

    table = "epochs"

    def __init__(self, training: Training, schedule: Schedule, steps_per_epoch: int) -> None:
        self.config, self.schedule, self.steps_per_epoch = training, schedule, steps_per_epoch
        self.records: dict[str, Tensor] = {}

    def look(self, look: Look) -> None:
        if look.evaluation is not None:
            self.records[look.key()] = look.evaluation.metrics

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        groups = []
        for key in sorted(self.records):
            (epoch, moment, _), metrics = parse_key(key), self.records[key].numpy()
            num_replicas = len(metrics)
            total = num_replicas * len(SPLITS)
            phase = self.schedule.phase_before(epoch + (moment == "after_swap"))
            step = epoch * self.steps_per_epoch - 1
            trained = self.schedule.phase_before(epoch)  # the phase of the last step, also right after a swap
            rate = learning_rate(self.config, step, self.steps_per_epoch, trained.function("learning_rate")) if epoch else 0.0
            values = metrics.reshape(total, len(METRICS))
            groups.append(
                {
                    "trial": [trial] * total,
                    "replica": np.repeat(np.arange(num_replicas), len(SPLITS)),
                    "epoch": np.full(total, epoch),
                    "moment": [moment] * total,
                    "split": [*SPLITS] * num_replicas,
                    "loss_in_force": [phase.loss] * total,
                    "learning_rate": np.full(total, rate),
                    **{name: values[:, METRICS.index(name)] for name in ("accuracy", "accuracy_clean", "loss", *LOSS_COLUMNS)},
                }
            )
        return merge(groups)
