"""How far apart the networks of a family are, from the distances between them."""

from __future__ import annotations

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
    if m < 2:
        return Spread(np.nan, np.nan, np.nan, m, num_dropped)
    half_squares = kept**2 / 2
    rows, total = half_squares.sum(axis=1), half_squares.sum()
    error = np.nan
    if m > 2:
        left_out = (total - 2 * rows) / ((m - 1) * (m - 2))
        error = float(np.sqrt((m - 1) / m * ((left_out - left_out.mean()) ** 2).sum()))
    num_pairs = m * (m - 1)
    return Spread(float(total / num_pairs), error, float(kept.sum() / num_pairs), m, num_dropped)
