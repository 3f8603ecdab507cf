"""Shared neighbours: which samples lie next to which, whatever the distances."""

from __future__ import annotations

from typing import cast

import numpy as np
from scipy.sparse import csr_array

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
        # One long row of zeros and ones per network, with a one for every pair (sample, neighbour).
        at = (neighbours + num_samples * np.arange(num_samples)[:, None]).reshape(-1)
        starts = num_samples * k * np.arange(num_networks + 1)
        rows = csr_array((np.ones(len(at), np.float32), at, starts), shape=(num_networks, num_samples**2))
        return (rows @ rows.T).toarray() / np.float64(num_samples * k)


def nearest(Z: np.ndarray, k: int) -> np.ndarray:
    """The k nearest other samples of each sample, `[sample, k]`, sorted by index; the first of those equally near.

    Where the k-th and the next neighbour of a sample are closer together than rounding, they are told apart by differences in float64.
    """
    ranked = Z @ Z.T  # squared distances up to a constant per row
    ranked *= -2
    squares = np.diagonal(ranked) / -2
    ranked += squares
    np.fill_diagonal(ranked, np.inf)
    ordered = np.partition(ranked, k, axis=1)
    last, beyond = ordered[:, :k].max(axis=1), ordered[:, k]
    reach = np.sqrt(squares) + np.sqrt(np.maximum(beyond + squares, 0))  # no neighbour lies further from zero
    close = 64 * np.finfo(Z.dtype).eps * reach**2
    doubtful = beyond - last <= close
    found = np.empty((len(Z), k), np.int64)
    found[~doubtful] = np.nonzero(ranked[~doubtful] <= last[~doubtful, None])[1].reshape(-1, k)
    wide = Z.astype(np.float64)
    for i in np.flatnonzero(doubtful):
        candidates = np.flatnonzero(ranked[i] <= beyond[i] + close[i])
        exact = ((wide[candidates] - wide[i]) ** 2).sum(axis=1)
        found[i] = np.sort(candidates[np.argsort(exact, kind="stable")[:k]])
    return found
