"""Aligned rank association under restricted exchange: one statistic, its permutation p over several layers at once, its power."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from analysis.exchange import NOTHING, Aligner
from analysis.statistics import TIE
from analysis.verdict import BOUND

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
        size = np.linalg.norm(ranks, axis=-1, keepdims=True)
        return np.where((np.abs(left).max(axis=-1, keepdims=True) > NOTHING * scale) & (size > NOTHING), ranks / size, np.nan)


@dataclass(frozen=True)
class Association:
    """Rank correlation of x with y, per layer."""

    rho: np.ndarray  # [layer]
    p: np.ndarray  # [layer] two-sided, (1 + #{|t*| >= |t|}) / (1 + B), with no error of drawing where the B orders are all there are
    p_adjusted: np.ndarray  # [layer] the same against the largest |t*| over layers (Westfall and Young's max-T)
    p_least: np.ndarray  # [layer] the smallest p_adjusted of any of the orders: below it nothing can be found, whatever y
    detectable: np.ndarray  # [layer] smallest |rho| found in 80 % of sweeps of this size, at alpha over all layers; infinite if none is
    needed: np.ndarray  # [layer] how many times as many families would detect BOUND so


def permuted_ranks(y: np.ndarray, align: Aligner, orders: np.ndarray) -> np.ndarray:
    """Aligned ranks `[permutation, item]` of y in each of the orders, aligned again: what y would be under the null (Freedman and Lane)."""
    permuted = align(y[orders])
    norms = np.linalg.norm(permuted, axis=1, keepdims=True)
    return permuted / np.where(norms > NOTHING, norms, 1.0)


def studentized(x: np.ndarray, y: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """t `[..., layer]` of x `[layer, item]` with y `[..., item]`: rho over the root of the sum of squares of what its lines scatter.

    Lines are what is independent, and rho is the sum of a part p_l of each. Dividing by their scatter keeps the level where families
    differ in how precise spread and gap are (DiCiccio and Romano 2017). Under the null the scatter is the size of the parts. A perfect
    association makes parts of q_l, the line's share of x's squares: that is no scatter, and over few lines it would hide the association
    from any test. So |rho| rho q_l is taken out of each part: all of it where |rho| = 1 (then t is infinite), next to nothing near the
    null, where taking out rho q_l would make lines that weigh much look precise.
    """
    member = (lines[:, None] == np.unique(lines)).astype(np.float64)  # [item, line]
    found = []
    for row in x:
        parts = y @ (row[:, None] * member)  # [..., line]
        rho = parts.sum(axis=-1)
        scatter = np.linalg.norm(parts - (np.abs(rho) * rho)[..., None] * (row**2 @ member), axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.where(np.abs(rho) > NOTHING, rho / np.where(scatter > NOTHING, scatter, 0.0), 0.0))
    return np.stack(found, axis=-1)


def associate(x: np.ndarray, y: np.ndarray, permuted: np.ndarray, lines: np.ndarray, alpha: float) -> Association:
    """Association of x `[layer, item]` with y `[item]`, all aligned ranks; `permuted` `[permutation, item]` is y under the null.

    A layer of NaN stays NaN and does not count as a test.
    """
    tested = np.isfinite(x).all(axis=1) & np.isfinite(y).all()
    found = Association(*(np.full(len(x), np.nan) for _ in range(6)))
    if not tested.any():
        return found
    x = x[tested]
    found.rho[tested] = x @ y
    t, null = np.abs(studentized(x, y, lines)), np.abs(studentized(x, permuted, lines))
    most, num_orders = null.max(axis=1), 1 + len(null)
    found.p[tested] = (1 + (null >= t - TIE).sum(axis=0)) / num_orders
    found.p_adjusted[tested] = (1 + (most[:, None] >= t - TIE).sum(axis=0)) / num_orders
    top = np.maximum(t, null.max(axis=0, initial=0.0))
    found.p_least[tested] = ((most[:, None] >= top - TIE).sum(axis=0) + (t.max() >= top - TIE)) / num_orders
    detectable, found.needed[tested] = _power(x, permuted, null, alpha)
    found.detectable[tested] = np.where(found.p_least[tested] < alpha, detectable, np.inf)
    return found


def _power(x: np.ndarray, permuted: np.ndarray, null: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """`Association.detectable` and `needed` `[layer]`, from |t| under the null `[permutation, layer]`.

    What is found lies above the |rho| of the null that is as rare as the critical |t|; rho scatters about its own value as it does
    under the null, times the root of 1 - rho^2.
    """
    rho = np.abs(permuted @ x.T)
    scatter = np.sqrt((rho**2).mean(axis=0))
    critical = np.quantile(null.max(axis=1), 1 - alpha, method="higher")
    found = np.array([np.quantile(one, 1 - share) for one, share in zip(rho.T, (null >= critical).mean(axis=0), strict=True)])
    detectable = np.minimum(found + POWER_Z * scatter * np.sqrt(1 - found**2), 1.0)
    # Over many families rho is normal under the null, over few it need not be.
    many = np.minimum(found / scatter, norm.isf((1 - (1 - alpha) ** (1 / len(x))) / 2))
    return detectable, (scatter * (many + POWER_Z) / BOUND) ** 2


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
