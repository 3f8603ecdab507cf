"""Test samples relative to the hull of training samples, in pixels and in the layers of every replica, before each swap and at the end.

A projection is followed to the network's decision: in pixels through the whole network, in a layer through what follows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.func import functional_call

from analysis.hull_tables import HULL, NULL, PIXELS, PLACE, SAMPLE
from analysis.measures.extrapolation import Located, crossings, gaussian_null, locate
from analysis.registry import UnknownName
from analysis.storage import Store
from trainables.activations import ACTIVATIONS, swap_activation
from trainables.data import Dataset
from trainables.options import Probes
from trainables.parts import LowerParts, image_shape_of, parts_behind, parts_of
from trainables.precision import products
from trainables.probes import Look, merge
from trainables.probes.activations import probe_set, rows
from trainables.probes.hull_pixels import null_seed, pixel_hull, place_columns
from trainables.schedule import Schedule
from trainables.streams import stream
from trainables.training import FamilyTraining

MOMENTS = ("before_swap", "end")
_CHUNK = 256  # points at once

_RECORDED = [c for c in HULL.columns if c.name not in ("schema_version", "trial", "schedule")]
_OfReplica = tuple[int, dict[str, Any]]  # a replica and its columns


def training_points(data: Dataset, num: int | None) -> Tensor:
    """Positions in the training split of the samples that span a layer's hull `[point]`, in random order: drawn by the data's hash, so
    equal data have equal ones, and fewer are the first of more."""
    return torch.randperm(len(data.train), generator=stream(int(data.hash[:12], 16), "hull"))[:num]


def rest_of(model: nn.Module, layer: str, is_whole: bool, image_shape: tuple[int, int, int]) -> nn.Module | str:
    """What follows a layer in a network, or why it cannot be computed from the points there: `is_whole` says whether these are the layer's
    whole output."""
    if layer == PIXELS:
        return model.eval()
    if not is_whole:
        return "points are means over positions, of which the rest of the network predicts nothing"
    try:
        parts = parts_of(model, image_shape)
    except UnknownName as error:
        return str(error).partition("; ")[0]
    if layer not in parts:
        return f"{layer} is no top-level part of the network, which can be cut after {', '.join(parts)} only"
    return parts_behind(parts, layer)


class HullProbe:
    """The table `hull`. A record is the rows of a moment as bytes of Arrow's stream format. Replicas that diverged have no rows, and none
    in a layer whose features are not finite."""

    table = "hull"

    def __init__(self, probes: Probes, schedule: Schedule, data: Dataset, layers: list[str], store: Store) -> None:
        self.probes, self.config, self.schedule, self.data, self.store = probes, probes.hull, schedule, data, store
        self.records: dict[str, Tensor] = {}
        if self.config is not None:
            self.layers = self.config.layers or layers
            self.where, self.points = probe_set(data, probes), training_points(data, self.config.train_size)
            self.point_ids, self.point_labels = (x[self.points].numpy() for x in (data.train.ids, data.train.labels))

    def look(self, look: Look) -> None:
        if self.config is None or look.moment not in MOMENTS:
            return
        training = look.training
        alive = [index for index, is_alive in enumerate(training.alive) if is_alive]
        images = training.splits["test"].images[self.where.to(training.device)]
        model = training.replicas.build()
        swap_activation(model, ACTIVATIONS.resolve(training.phase.activation))
        whole = {
            "moment": look.moment,
            "epoch": look.epoch,
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "train_size": len(self.data.train),
        }
        predicted = training.replicas.forward(images).argmax(-1).cpu()
        groups = [
            self._rows(columns | {"predicted": predicted[replica].tolist()}, whole | {"replica": replica, "layer": layer})
            for layer in [PIXELS, *self.layers]
            for replica, columns in (self._in_pixels if layer == PIXELS else self._in_layer)(training, model, layer, images, alive)
        ]
        if groups:
            self.records[look.key()] = _to_bytes(pa.concat_tables(groups))

    def _in_pixels(self, training: FamilyTraining, model: nn.Module, layer: str, images: Tensor, alive: list[int]) -> Iterator[_OfReplica]:
        """What is known of the images on their own, and the way of each network from them to their projections."""
        table = pixel_hull(self.store, self.data, self.probes)
        table = table[table["probe"] | (table["kind"] == NULL)]
        projected = np.stack(table.loc[table["probe"], "projection"].tolist())
        predictor = _Predictor(training, rest_of(model, layer, True, image_shape_of(training)), images.shape[1:])
        places = {column.name: table[column.name].tolist() for column in PLACE}
        for replica in alive:
            yield replica, places | predictor.follow(replica, images.flatten(1).cpu().numpy(), projected) | {"pooling": "flatten"}

    def _in_layer(self, training: FamilyTraining, model: nn.Module, layer: str, images: Tensor, alive: list[int]) -> Iterator[_OfReplica]:
        """The same in the features of a layer."""
        assert self.config is not None
        lower, spanning = LowerParts(training.replicas, [layer]), training.splits["train"].images[self.points.to(training.device)]
        points, queries = lower(spanning)[layer], lower(images)[layer]
        shape = queries.shape[2:]
        is_whole = self.config.pooling == "flatten" or len(shape) == 1
        predictor = _Predictor(training, rest_of(model, layer, is_whole, image_shape_of(training)), shape)
        for replica in alive:
            of_points, of_queries = (rows(features[replica], self.config.pooling) for features in (points, queries))
            if not (of_points.isfinite().all() and of_queries.isfinite().all()):
                continue
            found, null = self._locate(of_points, of_queries.cpu().numpy())
            sides = [place_columns(side, self.point_ids, self.point_labels, side is found) for side in (found, null)]
            followed = predictor.follow(replica, of_queries.cpu().numpy(), found.projection)
            yield replica, {name: sides[0][name] + sides[1][name] for name in sides[0]} | followed | {"pooling": self.config.pooling}

    def _locate(self, points: Tensor, queries: np.ndarray) -> tuple[Located, Located]:
        """The queries, and the null, scored where the features lie."""
        assert self.config is not None
        null, null_queries = gaussian_null(points.cpu().numpy(), self.config.null_samples, null_seed(self.data))
        if points.device.type == "cpu":
            return locate(points.numpy(), queries), locate(null, null_queries)
        return locate(points, queries), locate(torch.from_numpy(null).to(points.device), null_queries)

    def _rows(self, columns: dict[str, Any], same: dict[str, Any]) -> pa.Table:
        """The rows of a layer of a replica: samples, then the null, which has no predictions."""
        assert self.config is not None
        test, num_null = self.data.test, self.config.null_samples
        columns |= {"kind": [SAMPLE] * len(self.where), "sample": test.ids[self.where].tolist()}
        columns |= {"label": test.clean_labels[self.where].tolist()}
        total = len(self.where) + num_null
        columns["kind"] += [NULL] * num_null
        columns |= {name: [values] * total for name, values in same.items()}
        return pa.table(
            {c.name: _array(columns.pop(c.name), c.type, total) for c in _RECORDED}, schema=pa.schema([(c.name, c.type) for c in _RECORDED])
        )

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        groups = []
        for key in sorted(self.records):
            rows_ = pa.ipc.open_stream(self.records[key].numpy().tobytes()).read_all().combine_chunks()
            named = {"trial": [trial] * len(rows_), "schedule": [str(self.schedule)] * len(rows_)}
            groups.append(named | {name: rows_[name].chunk(0) for name in rows_.column_names})
        return merge(groups)


def _array(values: Any, kind: pa.DataType, total: int) -> pa.Array:
    """A column: one value for all rows, or one per row; what the null lacks is null."""
    listed = values if isinstance(values, list) else [values] * total
    return pa.array([*listed, *[None] * (total - len(listed))], type=kind)


def _to_bytes(table: pa.Table) -> Tensor:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return torch.from_numpy(np.frombuffer(sink.getvalue(), dtype=np.uint8).copy())


class _Predictor:
    """Decisions behind a layer, of points `[point, feature]` there; or the reason why there are none. The network stands on the CPU, where
    it was cut; what it computes with is each replica's state, on the device."""

    def __init__(self, training: FamilyTraining, rest: nn.Module | str, shape: torch.Size) -> None:
        self.rest, self.shape, self.device = rest, shape, training.device
        self.state: dict[str, Tensor] = {}
        if not isinstance(rest, str):
            stacked = {**training.replicas.named(training.replicas.weights), **training.replicas.buffers}
            names = [*dict(rest.named_parameters()), *dict(rest.named_buffers())]
            self.state = {name: stacked[name] for name in names}

    def follow(self, replica: int, starts: np.ndarray, ends: np.ndarray) -> dict[str, Any]:
        """The class at the end, and where it changes on the way from the start `[sample, feature]`."""
        if isinstance(self.rest, str):
            return {"predicted_projection": None, "crossings": None, "reason": self.rest}
        starts = starts.astype(np.float64)
        classes = self._predict(replica, ends).tolist()
        places = crossings(lambda points: self._predict(replica, points), starts, ends)
        return {"predicted_projection": classes, "crossings": [x.astype(np.float32) for x in places], "reason": None}

    def _predict(self, replica: int, points: np.ndarray) -> np.ndarray:
        assert not isinstance(self.rest, str)
        state = {name: values[replica] for name, values in self.state.items()}
        x = torch.from_numpy(points).float().unflatten(1, tuple(self.shape)).to(self.device)
        with torch.no_grad(), products("float32"):
            logits = torch.cat([functional_call(self.rest, state, (part,)) for part in x.split(_CHUNK)])
        return logits.argmax(1).cpu().numpy()
