"""What similarity networks that share nothing would have: the same representations with their samples shuffled."""

from __future__ import annotations

import numpy as np

from analysis.measures.measure import Measure

NULL_LEVEL = 0.95  # a pair of networks that share nothing is more alike than the calibration says in one of twenty cases


def participation_ratios(X: np.ndarray, present: np.ndarray) -> np.ndarray:
    """tr(K)^2 / |K|^2 `[network]` of X `[network, sample, feature]`, K the Gram matrix of centred features.

    It counts the directions that a representation uses: 1 for a line, the number of features where all vary alike. NaN for networks
    not `present [network]`, and where a value is not finite or no feature varies.
    """
    ratios = np.full(len(X), np.nan)
    for index in np.flatnonzero(present):
        x = np.asarray(X[index], dtype=np.float64)
        if not np.isfinite(x).all():
            continue
        x = x - x.mean(axis=0)
        largest = np.abs(x).max()
        if largest <= 1e-6 * np.abs(X[index]).max(initial=0.0):
            continue
        x /= largest
        covariance = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
        ratios[index] = np.trace(covariance) ** 2 / (covariance**2).sum()
    return ratios


def null_cka(ratios: np.ndarray, num_samples: int) -> float:
    """Mean over pairs of networks of linear CKA's mean over all permutations of one network's samples, from `ratios [network]`.

    It is tr(K) tr(L) / ((n - 1) |K| |L|), the root of the product of participation ratios over n - 1: no permutation is drawn. NaN below
    two networks.
    """
    roots = np.sqrt(ratios[np.isfinite(ratios)])
    m = len(roots)
    if m < 2:
        return float("nan")
    return float((roots.sum() ** 2 - (roots**2).sum()) / (m * (m - 1) * (num_samples - 1)))


def null_spreads(
    measure: Measure, X: np.ndarray, present: np.ndarray, labels: np.ndarray | None, num_shuffles: int, generator: np.random.Generator
) -> np.ndarray:
    """d^2 / 2 `[pair]` of pairs of different networks of X `[network, sample, feature]`, the samples of each in an order of its own.

    Each network is shuffled `num_shuffles` times, its samples' labels with them, and all pairs of shuffles of two networks are taken: m
    networks give m (m - 1) / 2 times num_shuffles^2 pairs for num_shuffles times the cost of a network. Pairs without a distance are
    left out. For the permutation quantile of Groeger et al. (2026, arXiv 2602.14486).
    """
    networks = np.flatnonzero(present)
    orders = [generator.permutation(X.shape[1]) for _ in range(len(networks) * num_shuffles)]
    owner = np.repeat(networks, num_shuffles)
    D = measure.pairwise([
        measure.prepare(X[i][order], None if labels is None else labels[order]) for i, order in zip(owner, orders, strict=True)
    ])  # fmt: skip
    first, second = np.triu_indices(len(owner), 1)
    found = D[first, second][owner[first] != owner[second]] ** 2 / 2
    return found[np.isfinite(found)]
