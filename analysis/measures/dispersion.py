"""How far apart the networks of a family are, from the distances between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """The spread of a family in one layer at one moment.

    `spread` is the mean over pairs of networks of d^2 / 2: for the chordal CKA 1 - mean CKA, for Procrustes 1 - mean
    nuclear norm. 0 is all equal. It equals m / (m - 1) times the mean squared distance to the family's centroid, so it
    is PERMDISP's dispersion without the bias of small families.
    """

    spread: float
    spread_se: float  # jackknife over networks; NaN below 3 networks
    mean_distance: float  # mean over pairs of d
    num_replicas: int  # networks used
    num_dropped: int  # networks without a comparable representation
    pairs: np.ndarray  # [pair] d^2 / 2 of all networks, row by row of the upper triangle; NaN for those dropped


def spread(distances: np.ndarray) -> Spread:
    """The spread from distances `[network, network]`; a network with a NaN on the diagonal is dropped and counted.

    Networks, not pairs, are the independent units, so the standard error leaves out one network at a time: SE^2 = (m -
    1) / m sum_i (s_(-i) - mean)^2, with s_(-i) = (T - 2 r_i) / ((m - 1)(m - 2)), T the sum over ordered pairs and r_i
    the sum of row i. All numbers are NaN where fewer than 2 networks remain.
    """
    valid = np.isfinite(np.diagonal(distances))
    kept = distances[np.ix_(valid, valid)]
    m = len(kept)
    num_dropped = len(distances) - m
    pairs = distances[np.triu_indices(len(distances), 1)] ** 2 / 2
    if m < 2:
        return Spread(np.nan, np.nan, np.nan, m, num_dropped, pairs)
    half_squares = kept**2 / 2
    rows, total = half_squares.sum(axis=1), half_squares.sum()
    error = np.nan
    if m > 2:
        left_out = (total - 2 * rows) / ((m - 1) * (m - 2))
        error = float(np.sqrt((m - 1) / m * ((left_out - left_out.mean()) ** 2).sum()))
    num_pairs = m * (m - 1)
    return Spread(float(total / num_pairs), error, float(kept.sum() / num_pairs), m, num_dropped, pairs)


def spread_intervals(
    pairs: Sequence[np.ndarray], num_bootstrap: int, confidence: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals `[family]` of spreads over draws of their networks with replacement, from `Spread.pairs` of each family.

    A draw that holds a network twice has a pair of it with itself, which is dropped: its distance of 0 would deflate the spread. The
    same draws serve all families of one size. NaN below 3 networks. With few networks percentiles are narrow: read them beside the
    jackknife error.
    """
    low, high = np.full(len(pairs), np.nan), np.full(len(pairs), np.nan)
    there = [np.isfinite(values) for values in pairs]
    num = np.array([round((1 + np.sqrt(1 + 8 * mask.sum())) / 2) if mask.any() else 0 for mask in there], dtype=int)
    for m in sorted({int(n) for n in num if n > 2}):
        counts = np.random.default_rng([seed, m]).multinomial(m, np.full(m, 1 / m), size=num_bootstrap)
        first, second = np.triu_indices(m, 1)
        weights = (counts[:, first] * counts[:, second]).astype(np.float64)
        weights = weights[weights.sum(axis=1) > 0]
        chosen = np.flatnonzero(num == m).tolist()
        drawn = np.stack([pairs[i][there[i]] for i in chosen]) @ (weights / weights.sum(axis=1, keepdims=True)).T
        tail = (1 - confidence) / 2
        low[chosen], high[chosen] = np.quantile(drawn, [tail, 1 - tail], axis=1)
    return low, high
