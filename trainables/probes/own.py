"""A user's own probes: functions by import path that measure numbers of every replica."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.registry import UnknownName
from trainables.data import Dataset
from trainables.options import PROBES, Probes
from trainables.probes import Look, merge, parse_key
from trainables.recipe import BaseRecipe
from trainables.schedule import Schedule
from trainables.training import FamilyTraining


class OwnProbe:
    """The table `measurements`. Records are numbers `[replica]` by probe and quantity."""

    table = "measurements"

    def __init__(self, config: Probes, schedule: Schedule) -> None:
        self.config, self.schedule = config, schedule
        self.records: dict[str, Tensor] = {}

    def look(self, look: Look) -> None:
        if look.moment not in self.config.moments and not (look.moment == "epoch" and look.epoch in self.config.epochs):
            return
        for name in self.config.own:
            for quantity, values in _measured(name, look).items():
                self.records[look.key(name, quantity)] = values

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        groups = []
        for key in sorted(self.records):
            (epoch, moment, (name, quantity)), values = parse_key(key), self.records[key].numpy()
            total = len(values)
            groups.append(
                {
                    "trial": [trial] * total,
                    "schedule": [str(self.schedule)] * total,
                    "replica": np.arange(total),
                    "moment": [moment] * total,
                    "epoch": np.full(total, epoch),
                    "probe": [name] * total,
                    "quantity": [quantity] * total,
                    "value": values,
                }
            )
        return merge(groups)


def _measured(name: str, look: Look) -> dict[str, Tensor]:
    """What a probe measures now, NaN for replicas that had diverged. Raises ValueError where that is not one number per replica."""
    with torch.no_grad():
        found = PROBES.resolve(name)(look)
    diverged = look.training.diverged_at >= 0
    measured = {}
    if not isinstance(found, dict):
        raise ValueError(f"probe {name!r} must give a dict of quantities, not {type(found).__name__}")
    for quantity, values in found.items():
        numbers = torch.as_tensor(values, dtype=torch.float64).detach().cpu().clone()
        if numbers.shape != diverged.shape or not isinstance(quantity, str) or not quantity or "/" in quantity:
            raise ValueError(
                f"probe {name!r}: {quantity!r} is {list(numbers.shape)}; a quantity is a name without / and one number per replica, "
                f"[{len(diverged)}] here"
            )
        measured[quantity] = numbers.masked_fill(diverged, torch.nan)
    return measured


def check_probe(name: str, recipe: BaseRecipe, data: Dataset, schedule: Schedule) -> None:
    """Refuse a user's probe that fails on two new networks of the recipe, or changes them. Raises UnknownName."""
    PROBES.resolve(name)
    two = recipe.model_copy(update={"training": recipe.training.model_copy(update={"replicas": 2, "precision": "float32"})})
    training = FamilyTraining(two, data, schedule.phases[0], "cpu", "loop")
    before = {key: tensor.clone() for key, tensor in training.state().items()}
    try:
        _measured(name, Look("init", training))
    except Exception as error:
        raise UnknownName(f"probe {name!r} fails on new networks: {type(error).__name__}: {error}") from error
    changed = [key for key, tensor in training.state().items() if not torch.equal(tensor, before[key])]
    if changed:
        raise UnknownName(f"probe {name!r} changes the networks ({changed[0]}); a probe measures only")
