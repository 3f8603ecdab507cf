"""Ranks, free permutations, bootstraps, corrections, for things that are independent of each other. Families are not: `exchange.py`.

Every random draw comes from a generator that the caller passes in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

# Two statistics this close are a tie: they are equal up to rounding.
TIE = 1e-12


def permutations(num_items: int, num_permutations: int, generator: np.random.Generator) -> np.ndarray:
    """Uniform random orders `[permutation, item]` of the indices of the items."""
    return generator.permuted(np.tile(np.arange(num_items), (num_permutations, 1)), axis=1)


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Midranks, centred and of norm 1; NaN where all values are equal."""
    ranks = rankdata(values) - (len(values) + 1) / 2
    norm = np.linalg.norm(ranks)
    return ranks / norm if norm > 0 else np.full(len(values), np.nan)


def spearman(x: np.ndarray, y: np.ndarray, orders: np.ndarray | None = None) -> np.ndarray:
    """Spearman's rank correlation of x and y `[item]`, ties by midranks; NaN where either is constant.

    With `orders` `[permutation, item]`: the correlation `[permutation]` of x with y in each of these orders.
    """
    x_ranks, y_ranks = _centred_ranks(np.asarray(x)), _centred_ranks(np.asarray(y))
    if orders is None:
        return x_ranks @ y_ranks
    return y_ranks[orders] @ x_ranks


def spearman_within(
    x: np.ndarray, y: np.ndarray, blocks: Sequence[str] | np.ndarray, num_permutations: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Rank correlation of x and y `[item]` within blocks `[item]`, and its two-sided p from permutations within blocks.

    Midranks are centred within each block and divided by its size, so that what sets blocks apart cannot make or hide an association.
    NaN where either is constant in every block.
    """
    blocks = np.asarray(blocks)
    ranks, orders = np.zeros((2, len(x))), np.tile(np.arange(len(x)), (num_permutations, 1))
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        ranks[:, members] = (rankdata(np.stack([x, y])[:, members], axis=1) - (len(members) + 1) / 2) / len(members)
        orders[:, members] = members[permutations(len(members), num_permutations, generator)]
    norms = np.linalg.norm(ranks, axis=1, keepdims=True)
    if not norms.all():
        return np.nan, np.nan
    x_ranks, y_ranks = ranks / norms
    rho = float(x_ranks @ y_ranks)
    return rho, permutation_p(rho, y_ranks[orders] @ x_ranks)


def permutation_p(observed: float, permuted: np.ndarray) -> float:
    """Two-sided p = (1 + #{|rho*| >= |rho|}) / (1 + B), never 0 (Phipson and Smyth 2010); NaN where rho is."""
    if not np.isfinite(observed):
        return np.nan
    return float((1 + np.sum(np.abs(permuted) >= abs(observed) - TIE)) / (1 + len(permuted)))


def resamples(num_items: int, num_bootstrap: int, generator: np.random.Generator) -> np.ndarray:
    """Bootstrap resamples `[resample, item]` as the number of times that each item is drawn."""
    return generator.multinomial(num_items, np.full(num_items, 1 / num_items), size=num_bootstrap)


def bootstrap_spearman(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's correlation of x and y `[item]` in each resample of the items `[resample]`; NaN where either is constant in it.

    `counts` `[resample, item]` comes from `resamples`. Ranks are those within each resample, exactly: the midrank of an item is the number
    of draws below it plus half of (1 + the draws equal to it), from running sums of the counts, in memory linear in the items.
    """
    ranks = []
    for values in (np.asarray(x), np.asarray(y)):
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
        drawn = np.add.reduceat(counts[:, order], starts, axis=1)  # draws of each distinct value
        midranks = drawn.cumsum(axis=1) - drawn / 2 - counts.sum(axis=1, keepdims=True) / 2
        group = np.empty(len(values), dtype=np.intp)
        group[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
        ranks.append(midranks[:, group])
    covariance = (counts * ranks[0] * ranks[1]).sum(axis=1)
    scale = np.sqrt((counts * ranks[0] ** 2).sum(axis=1) * (counts * ranks[1] ** 2).sum(axis=1))
    return np.divide(covariance, scale, out=np.full(len(counts), np.nan), where=scale > 0)


def percentiles(drawn: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap values `[resample]`, of those that are finite; NaN if none is."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment of p values `[test]`; a NaN stays NaN and does not count as a test."""
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted
