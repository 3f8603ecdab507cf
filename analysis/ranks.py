"""Aligned rank association under restricted exchange: one statistic, its permutation p over several layers at once, its power."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from analysis.exchange import NOTHING, Aligner
from analysis.statistics import TIE

POWER_Z = 0.8416  # the standard normal's 80 % quantile


def aligned_ranks(values: np.ndarray, align: Aligner) -> np.ndarray:
    """Ranks of what alignment leaves of values `[..., item]`, aligned again and of norm 1; NaN where nothing is left.

    Hodges and Lehmann (1962): what sets blocks apart is taken out before ranking, so that families are compared with those of their block
    and yet the size of a difference counts over all blocks.
    """
    left = align(values)
    scale = np.abs(values - values.mean(axis=-1, keepdims=True)).max(axis=-1, keepdims=True)
    # Rounded, so that what is equal but for rounding ties.
    with np.errstate(divide="ignore", invalid="ignore"):
        ranks = align(rankdata(np.round(left / scale, 9), axis=-1))
        norm = np.linalg.norm(ranks, axis=-1, keepdims=True)
        return np.where((np.abs(left).max(axis=-1, keepdims=True) > NOTHING * scale) & (norm > NOTHING), ranks / norm, np.nan)


@dataclass(frozen=True)
class Association:
    """Rank correlation of x with y, per layer."""

    rho: np.ndarray  # [layer]
    p: np.ndarray  # [layer] two-sided, (1 + #{|t*| >= |t|}) / (1 + B)
    p_adjusted: np.ndarray  # [layer] the same against the largest |t*| over layers (Westfall and Young's max-T)
    detectable: np.ndarray  # [layer] smallest |rho| that would be found in 80 % of sweeps of this size, at alpha over all layers


def permuted_ranks(y: np.ndarray, align: Aligner, orders: np.ndarray) -> np.ndarray:
    """Aligned ranks `[permutation, item]` of y in each of the orders, aligned again: what y would be under the null (Freedman and Lane)."""
    permuted = align(y[orders])
    norms = np.linalg.norm(permuted, axis=1, keepdims=True)
    return permuted / np.where(norms > NOTHING, norms, 1.0)


def studentized(x: np.ndarray, y: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """t `[..., layer]` of x `[layer, item]` with y `[..., item]`: their product over the root of the sum of squares of its lines' parts.

    Lines are what is independent. Dividing by what they make of the product keeps the level where families differ in how
    precise spread and gap are (DiCiccio and Romano 2017).
    """
    member = (lines[:, None] == np.unique(lines)).astype(np.float64)  # [item, line]
    found = []
    for row in x:
        parts = y @ (row[:, None] * member)  # [..., line]
        total, size = parts.sum(axis=-1), np.sqrt((parts**2).sum(axis=-1))
        found.append(np.where(size > NOTHING, total / np.where(size > NOTHING, size, 1.0), 0.0))
    return np.stack(found, axis=-1)


def associate(x: np.ndarray, y: np.ndarray, permuted: np.ndarray, lines: np.ndarray, alpha: float) -> Association:
    """Association of x `[layer, item]` with y `[item]`, all aligned ranks; `permuted` `[permutation, item]` is y under the null.

    A layer of NaN stays NaN and does not count as a test.
    """
    num_layers = len(x)
    nan = np.full(num_layers, np.nan)
    tested = np.isfinite(x).all(axis=1) & np.isfinite(y).all()
    found = Association(nan.copy(), nan.copy(), nan.copy(), nan.copy())
    if not tested.any():
        return found
    found.rho[tested] = x[tested] @ y
    t, null = np.abs(studentized(x[tested], y, lines)), np.abs(studentized(x[tested], permuted, lines))
    most = null.max(axis=1)
    found.p[tested] = (1 + (null >= t - TIE).sum(axis=0)) / (1 + len(null))
    found.p_adjusted[tested] = (1 + (most[:, None] >= t - TIE).sum(axis=0)) / (1 + len(null))
    spread_of_null = (x[tested] @ permuted.T).std(axis=1)
    critical = np.quantile(most, 1 - alpha) if len(most) else np.nan
    found.detectable[tested] = (critical + POWER_Z) * spread_of_null
    return found


def pairs_within(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices (i, j), i < j, of the items that share a block."""
    first, second = np.triu_indices(len(blocks), 1)
    same = blocks[first] == blocks[second]
    return first[same], second[same]


def kendall_within(x: np.ndarray, y: np.ndarray, blocks: np.ndarray, orders: np.ndarray | None = None) -> np.ndarray:
    """Kendall's tau-b over the pairs of items of one block; with `orders` that of x with y in each of them `[permutation]`."""
    first, second = pairs_within(blocks)
    x_signs = np.sign(x[first] - x[second])
    drawn = y if orders is None else y[orders]
    y_signs = np.sign(drawn[..., first] - drawn[..., second])
    scale = np.sqrt((x_signs**2).sum() * (y_signs**2).sum(axis=-1))
    return np.where(scale > 0, (y_signs @ x_signs) / np.where(scale > 0, scale, 1.0), np.nan)
