"""Which points lie farthest in given directions: the part of a projection onto a hull that looks at every point.

A score is the product of a direction and a point: in float32 to find candidates, in float64 to certify. `Points` scores
with numpy, `TensorPoints` scores a torch tensor where it lies, on a GPU for instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


class Points:
    """Points `[point, feature]`, moved to their mean and divided by `unit`, a power of two near their extent.

    Neither costs digits: a difference is rounded relative to itself, and a power of two is exact. Centred points of size
    one are what float32 needs, so that none of its 7 digits goes into a common offset.
    """

    max_tile_rows = 8192  # enough for a matrix product at full speed

    def __init__(self, host: np.ndarray, memory_bytes: int) -> None:
        self.host, self.memory_bytes = host, memory_bytes
        self.num_points, self.num_features = host.shape
        self.centre = host.mean(axis=0, dtype=np.float64)
        extent = float(np.maximum(host.max(axis=0) - self.centre, self.centre - host.min(axis=0)).max())
        self.unit = float(2.0 ** np.ceil(np.log2(extent))) if extent > 0 else 1.0
        self.radius = max(float(np.linalg.norm(self.take(rows), axis=1).max()) for rows in self.tiles(1))  # from the mean, in units
        self._prepare()

    def local(self, values: np.ndarray) -> np.ndarray:
        """Values `[..., feature]` in units from the mean, float64."""
        moved = np.subtract(values, self.centre, dtype=np.float64)
        moved /= self.unit
        return moved

    def take(self, indices: np.ndarray | slice) -> np.ndarray:
        """Points `[index, feature]` in units from the mean, float64."""
        return self.local(self.host[indices])

    def tiles(self, num_directions: int) -> Iterator[slice]:
        """Runs of points, such that a tile in float64 and its scores in as many directions stay within `memory_bytes`."""
        num_rows = max(1, min(self.max_tile_rows, self.memory_bytes // (16 * (self.num_features + num_directions))))
        for start in range(0, self.num_points, num_rows):
            yield slice(start, min(start + num_rows, self.num_points))

    def _prepare(self) -> None:
        self._coarse = np.empty(self.host.shape, dtype=np.float32)
        for rows in self.tiles(1):
            self._coarse[rows] = self.take(rows)

    def farthest(self, directions: np.ndarray, floors: np.ndarray, num: int, exact: bool) -> tuple[list[np.ndarray], np.ndarray]:
        """For each of `directions [direction, feature]` the indices of up to `num` points with the largest scores above
        `floors [direction]`, and the largest score of all points `[direction]`. In float64 if `exact`, else in float32."""
        highest, floors = np.full(len(directions), -np.inf), floors.copy()
        indices = [np.empty(0, dtype=np.intp) for _ in directions]
        values = [np.empty(0) for _ in directions]
        if not exact:
            directions = directions.astype(np.float32)
        for rows in self.tiles(len(directions)):
            scores = directions @ (self.take(rows) if exact else self._coarse[rows]).T
            tops = scores.max(axis=1)
            highest = np.maximum(highest, tops)
            for i in np.flatnonzero(tops > floors):
                above = np.flatnonzero(scores[i] > floors[i])
                indices[i], values[i] = np.append(indices[i], above + rows.start), np.append(values[i], scores[i, above])
                if len(values[i]) > num:
                    best = np.argpartition(values[i], -num)[-num:]
                    indices[i], values[i] = indices[i][best], values[i][best]
                    floors[i] = values[i].min()  # nothing below can be among the best any more
        return indices, highest


class TensorPoints(Points):
    """The same for a torch tensor, on the device where it lies. The methods of the tensor are enough: torch is not imported."""

    max_tile_rows = 2**20

    def __init__(self, tensor: Any, host: np.ndarray, memory_bytes: int) -> None:
        self._tensor = tensor
        super().__init__(host, memory_bytes)

    def _prepare(self) -> None:
        # Empty tensors, whose `new_tensor` makes others of the same type on the same device.
        self._float64, self._float32 = self._tensor[:0].double(), self._tensor[:0].float()
        self._centre = self._float64.new_tensor(self.centre)
        self._coarse = self._float32.new_empty(self.host.shape)
        for rows in self.tiles(1):
            self._coarse[rows] = self._exact(rows).float()

    def _exact(self, rows: slice) -> Any:
        return (self._tensor[rows].double() - self._centre) / self.unit

    def farthest(self, directions: np.ndarray, floors: np.ndarray, num: int, exact: bool) -> tuple[list[np.ndarray], np.ndarray]:
        there = (self._float64 if exact else self._float32).new_tensor(directions)
        best = []
        for rows in self.tiles(len(directions)):
            scores = there @ (self._exact(rows) if exact else self._coarse[rows]).T
            values, indices = scores.topk(min(num, scores.shape[1]), dim=1)
            best.append((values.cpu().numpy(), indices.cpu().numpy() + rows.start))
        values, indices = (np.concatenate(part, axis=1) for part in zip(*best, strict=True))
        order = np.argsort(-values, axis=1)[:, :num]
        found = [i[o[v[o] > floor]] for i, v, o, floor in zip(indices, values, order, floors, strict=True)]
        return found, values.max(axis=1)
