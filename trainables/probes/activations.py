"""Activations of the probe set, per replica, moment and layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis import tables
from trainables.data import Dataset
from trainables.models import check_layers, default_layers, record
from trainables.options import Probes
from trainables.probes import Look, parse_key
from trainables.replicas import Replicas
from trainables.streams import stream


def probe_set(data: Dataset, config: Probes) -> Tensor:
    """Positions of the probe samples in the test split, ascending `[sample]`: drawn by a hash of the data before training samples and
    labels are chosen, so that equal data have equal ones, whatever the training subset and the label noise.

    Raises ValueError if there are too few.
    """
    num_test = len(data.test.labels)
    if config.num_samples > num_test:
        raise ValueError(f"probes.num_samples is {config.num_samples}, but the test split has {num_test} samples")
    return torch.randperm(num_test, generator=stream(int(data.pool_hash[:12], 16), "probe"))[: config.num_samples].sort().values


def rows(output: Tensor, pooling: str) -> Tensor:
    """A layer's output `[sample, channel, height, width]`, `[sample, token, feature]` or `[sample, feature]` as rows `[row, feature]`.

    `mean` averages over positions, `flatten` keeps them as features (row-major), `positions` makes each position a row of its own.
    """
    if output.dim() == 2 or pooling == "flatten":
        return output.flatten(1)
    positions = output.flatten(2).transpose(1, 2) if output.dim() > 3 else output  # [sample, position, feature]
    return positions.mean(1) if pooling == "mean" else positions.flatten(0, 1)


class ActivationsProbe:
    """The table `activations`."""

    table = "activations"

    def __init__(self, config: Probes, data: Dataset, model: nn.Module, device: torch.device) -> None:
        self.config = config
        self.layers = config.layers or default_layers(model)
        check_layers(model, self.layers)
        where = probe_set(data, config)
        self.images, self.ids = data.test.images[where].to(device), data.test.ids[where].numpy()
        self.labels = data.test.clean_labels[where].numpy()
        self.records: dict[str, Tensor] = {}

    def look(self, look: Look) -> None:
        if not look.is_recorded(self.config):
            return
        for layer, values in self.measure(look.training.replicas).items():
            self.records[look.key(layer)] = values.cpu()

    def measure(self, replicas: Replicas) -> dict[str, Tensor]:
        """Each layer's rows on the probe set `[replica, row, feature]`."""
        shapes: dict[str, Tensor] = {}

        def features(model: nn.Module, batch: Tensor) -> Tensor:
            found = record(model, self.layers, batch)
            shapes.update({layer: torch.tensor(found[layer].shape[1:]) for layer in self.layers})
            return torch.cat([rows(found[layer], self.config.pooling).reshape(len(batch), -1) for layer in self.layers], 1)

        stacked = replicas.map(features, self.images)
        self.records |= {f"shape/{layer}": shape for layer, shape in shapes.items()}
        sizes = [self._num_rows(shape) * self._width(shape) for shape in shapes.values()]
        parts = zip(shapes.items(), stacked.split(sizes, 2), strict=True)
        return {layer: part.reshape(len(part), -1, self._width(shape)).contiguous() for (layer, shape), part in parts}

    def _num_rows(self, shape: Tensor) -> int:
        """Rows per sample of a layer with this output shape."""
        if self.config.pooling != "positions" or len(shape) == 1:
            return 1
        return int(shape[1:].prod() if len(shape) > 2 else shape[0])

    def _width(self, shape: Tensor) -> int:
        """Features per row."""
        if self.config.pooling == "flatten" or len(shape) == 1:
            return int(shape.prod())
        return int(shape[0] if len(shape) > 2 else shape[-1])

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        groups = []
        keys = [(parse_key(key), key) for key in self.records if not key.startswith("shape/")]
        in_order = sorted(keys, key=lambda item: (item[1].rsplit("/", 1)[0], self.layers.index(item[0][2][0])))
        for (epoch, moment, (layer,)), key in in_order:
            values = self.records[key].numpy()
            shape = self.records[f"shape/{layer}"].tolist()
            block = max(1, tables.MAX_ROW_GROUP_BYTES // values[0].nbytes)
            bounds = [*range(0, len(values), block), len(values)]
            for first, last in pairwise(bounds):
                groups.append(self._group(trial, moment, epoch, layer, shape, first, values[first:last]))
        return groups

    def _group(self, trial: str, moment: str, epoch: int, layer: str, shape: list[int], first: int, values: np.ndarray) -> dict[str, Any]:
        num_replicas, num_rows, _ = values.shape
        per_sample = num_rows // len(self.ids)
        total = num_replicas * num_rows
        return {
            "trial": [trial] * total,
            "replica": np.repeat(np.arange(first, first + num_replicas), num_rows),
            "moment": [moment] * total,
            "epoch": np.full(total, epoch),
            "layer": [layer] * total,
            "pooling": [self.config.pooling] * total,
            "shape": [shape] * total,
            "sample": np.tile(np.repeat(self.ids, per_sample), num_replicas),
            "position": np.tile(np.arange(per_sample), num_replicas * len(self.ids)),
            "label": np.tile(np.repeat(self.labels, per_sample), num_replicas),
            "activation": tables.list_array(values.reshape(total, -1)),
        }
