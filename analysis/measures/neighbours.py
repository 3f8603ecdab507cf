"""Shared neighbours: which samples lie next to which, whatever the distances."""

from __future__ import annotations

from typing import cast

import numpy as np

from analysis.measures import products
from analysis.measures.features import centred, narrow
from analysis.measures.measure import Arrays, Measure, Unfit

NUM_NEIGHBOURS = 10


class MutualKNNDistance(Measure):
    """sqrt(2 - 2 m) with m the mean share of a sample's k = 10 nearest other samples that two networks have in common.

    Nearest in Euclidean distance of the features. Unrelated networks share k / (n - 1). Needs more than k + 1 samples. Of samples equally
    near the first ones count, so a layer that maps many samples to one point looks more alike between networks than it is.
    """

    name = "mutual_knn"
    title = "mutual 10 nearest neighbours, distance sqrt(2 - 2 m)"
    spread_title = "1 - mean share of the 10 nearest neighbours in common over pairs"
    source = "Huh et al. 2024, arXiv 2405.07987, here with Euclidean distances"
    metric = True
    euclidean = True
    orthogonal = True
    isotropic_scaling = True
    translation = True
    invertible_linear = False

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        """Each sample's neighbours `[sample, k]`, sorted."""
        if len(X) <= NUM_NEIGHBOURS + 1:
            raise Unfit(f"{len(X)} samples; {NUM_NEIGHBOURS} neighbours need more than {NUM_NEIGHBOURS + 1}")
        return nearest(narrow(centred(X)), NUM_NEIGHBOURS)

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        neighbours = np.stack(cast(list[np.ndarray], factors))  # [network, sample, k]
        num_networks, num_samples, k = neighbours.shape
        width = -(-num_samples // 64) * 64  # whole words of bits
        shared = np.zeros((num_networks, num_networks))
        height = max(1, products.TILE_BYTES // (num_networks * width))
        for start in range(0, num_samples, height):
            some = neighbours[:, start : start + height]
            marks = np.zeros((*some.shape[:2], width), bool)
            np.put_along_axis(marks, some, True, axis=2)
            bits = np.packbits(marks, axis=2).reshape(num_networks, -1).view(np.uint64)
            for i, own in enumerate(bits):
                found = np.bitwise_count(bits[i:] & own).sum(axis=1)
                shared[i, i:] += found
                shared[i + 1 :, i] += found[1:]
        return shared / (num_samples * k)


def nearest(Z: np.ndarray, k: int) -> np.ndarray:
    """The k nearest other samples of each sample, `[sample, k]`, sorted by index; the first of those equally near.

    Where the k-th and the next neighbour of a sample are closer together than rounding, they are told apart by differences in float64.
    """
    squares, found = np.einsum("ij,ij->i", Z, Z), np.empty((len(Z), k), np.int64)
    height = max(1, products.TILE_BYTES // (len(Z) * Z.itemsize))
    for start in range(0, len(Z), height):
        some, rows = Z[start : start + height], np.arange(start, min(start + height, len(Z)))
        if products.accelerator is not None:
            columns, values = products.accelerator.leading(some, Z, squares, rows, k + 1)
        else:
            nearness = _nearness(some, Z, squares, rows)
            columns, values = _leading(nearness, k + 1)
        beyond, last = np.partition(values, (-k - 1, -k), axis=1)[:, -k - 1 : values.shape[1] - k + 1].T
        reach = np.sqrt(squares[rows]) + np.sqrt(np.maximum(squares[rows] - 2 * beyond, 0))  # no neighbour lies further from zero
        close = 32 * np.finfo(Z.dtype).eps * reach**2
        sure = last - beyond > close
        found[rows[sure]] = columns[sure][values[sure] >= last[sure, None]].reshape(-1, k)
        least, doubtful = (beyond - close)[~sure], rows[~sure]
        near = nearness[~sure] if products.accelerator is None else _nearness(Z[doubtful], Z, squares, doubtful)
        for row, enough in zip(doubtful, near >= least[:, None], strict=True):
            candidates = np.flatnonzero(enough)
            exact = ((Z[candidates].astype(np.float64) - Z[row]) ** 2).sum(axis=1)
            found[row] = np.sort(candidates[np.argsort(exact, kind="stable")[:k]])
    return found


def _nearness(some: np.ndarray, Z: np.ndarray, squares: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(|x|^2 - |x - y|^2) / 2 of each x of `some`, which are the `rows` of Z, and each y of Z `[row, sample]`; no x is near itself."""
    nearness = some @ Z.T
    nearness -= squares / 2
    nearness[np.arange(len(rows)), rows] = -np.inf
    return nearness


def _leading(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest values of each row, and some more: their columns in ascending order and themselves, `[row, ...]`, filled up by -inf.

    Columns are folded into groups, of which the largest values are quickly found. The k largest of these bound what must be kept.
    """
    num_rows, num_columns = values.shape
    highest = values
    while highest.shape[1] >= 8 * k:
        half = highest.shape[1] // 2
        highest = np.maximum(highest[:, :half], highest[:, half : 2 * half])  # one left out only lowers the bound
    bound = np.partition(highest, -k, axis=1)[:, -k]
    at = np.flatnonzero(values >= bound[:, None])
    rows = at // num_columns
    counts = np.bincount(rows, minlength=num_rows)
    place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.zeros((num_rows, counts.max()), np.int64)
    kept = np.full(columns.shape, -np.inf, values.dtype)
    columns[rows, place], kept[rows, place] = at - rows * num_columns, values.ravel()[at]
    return columns, kept
