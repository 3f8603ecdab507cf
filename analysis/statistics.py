"""Ranks, permutations, bootstraps, corrections: what turns numbers over families into answers with an interval.

Every random draw comes from a generator that the caller passes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

# Two statistics this close are a tie: they are equal up to rounding.
TIE = 1e-12
F_TIE = 1e-7  # relative: the geometric median is found to a tolerance
MAX_ITERATIONS = 2000


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
    x: np.ndarray, y: np.ndarray, strata: Sequence[str] | np.ndarray, num_permutations: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Rank correlation of x and y `[item]` within strata, and its two-sided p from permutations within strata.

    Midranks are taken within each stratum, centred and divided by its size, so that what sets strata apart cannot make or hide an
    association; the correlation is over all items. NaN where either is constant in every stratum.
    """
    names, codes = np.unique(np.asarray(strata), return_inverse=True)
    ranks = np.zeros((2, len(codes)))
    orders = np.tile(np.arange(len(codes)), (num_permutations, 1))
    for code in range(len(names)):
        members = np.flatnonzero(codes == code)
        for row, values in zip(ranks, (x, y), strict=True):
            row[members] = (rankdata(np.asarray(values)[members]) - (len(members) + 1) / 2) / len(members)
        orders[:, members] = members[permutations(len(members), num_permutations, generator)]
    norms = np.linalg.norm(ranks, axis=1)
    if not norms.all():
        return np.nan, np.nan
    x_ranks, y_ranks = ranks / norms[:, None]
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


def bootstrap_spearman(x: np.ndarray, y: np.ndarray, counts: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of Spearman's correlation over resamples of the items (families), drawn with replacement.

    `counts` `[resample, item]` comes from `resamples`. Ranks are those within each resample, exactly: the midrank of an
    item is the number of draws below it plus half of (1 + the draws equal to it), which is linear in the counts.
    Resamples in which a variable is constant are left out; NaN if all are.
    """
    centred = []
    for values in (np.asarray(x), np.asarray(y)):
        below = (values[:, None] < values[None, :]) + 0.5 * (values[:, None] == values[None, :])
        centred.append(counts @ below - counts.sum(axis=1, keepdims=True) / 2)
    x_ranks, y_ranks = centred
    covariance = (counts * x_ranks * y_ranks).sum(axis=1)
    scale = np.sqrt((counts * x_ranks**2).sum(axis=1) * (counts * y_ranks**2).sum(axis=1))
    defined = scale > 0
    if not defined.any():
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(covariance[defined] / scale[defined], [tail, 1 - tail])
    return float(low), float(high)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment of p values `[test]`; a NaN stays NaN and does not count as a test."""
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


@dataclass(frozen=True)
class Permdisp:
    """Result of PERMDISP. `dispersions` and `sizes` are in the order of `groups`."""

    f: float
    p: float
    groups: tuple[str, ...]
    dispersions: tuple[float, ...]  # mean distance of a network to the centre of its group
    sizes: tuple[int, ...]  # networks
    num_units: int
    num_permutations: int
    center: str
    z: np.ndarray  # [network] distance to the centre of its group
    negative_share: float  # share of the PCoA's absolute eigenvalues that is negative and was dropped; 0 if Euclidean


def permdisp(
    distances: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    center: Literal["median", "centroid"],
    num_permutations: int,
    generator: np.random.Generator,
    units: Sequence[str] | np.ndarray | None = None,
) -> Permdisp:
    """PERMDISP (Anderson 2006), the multivariate Levene test: are some groups more dispersed than others?

    From distances `[network, network]` by PCoA with all dimensions, the axes of negative eigenvalues dropped, as
    scikit-bio does; z is a network's distance to its group's centre (geometric median or centroid), F the one-way ANOVA
    over z, and p = (1 + #{F* >= F}) / (1 + B) with group labels permuted and centres recomputed. `units` (the family of
    each network) makes the labels of a whole unit move together, since networks of one family are not independent;
    every unit must lie in one group. Without it each network is a unit.

    No coordinates are needed: a centre is a weighted mean of a group's points, and the distance to it follows from
    squared distances between points alone (Huygens): z_i^2 = sum_j w_j D_ij^2 - 1/2 sum_jk w_j w_k D_jk^2. D is rebuilt
    from the positive axes first, so that this holds for distances that are not Euclidean too. It handles all
    permutations in one matrix product.

    Raises ValueError for a NaN distance, fewer than 2 groups, no more networks than groups, or a unit in two groups.
    """
    labels, codes = np.unique(np.asarray(groups), return_inverse=True)
    names, unit_of = np.unique(np.arange(len(codes)) if units is None else np.asarray(units), return_inverse=True)
    if not np.isfinite(distances).all():
        raise ValueError("PERMDISP needs finite distances: leave out networks without a representation")
    if len(labels) < 2 or len(codes) <= len(labels):
        raise ValueError(f"PERMDISP needs at least 2 groups and more networks than groups, not {len(labels)} and {len(codes)}")
    unit_codes = np.zeros(len(names), dtype=np.intp)
    unit_codes[unit_of] = codes
    if not np.array_equal(unit_codes[unit_of], codes):
        raise ValueError("a unit lies in two groups")
    squares, negative_share = _positive_squares(distances)
    # Row 0 is the labelling observed, the others are permutations of it.
    drawn = np.vstack([np.arange(len(names)), permutations(len(names), num_permutations, generator)])
    f = np.empty(len(drawn))
    dispersions = z = np.empty(0)
    rows_at_once = max(1, 2**24 // max(len(codes), 1))  # 128 MiB of float64 per array
    for start in range(0, len(drawn), rows_at_once):
        assigned = unit_codes[drawn[start : start + rows_at_once]][:, unit_of].T  # [network, permutation]
        f[start : start + rows_at_once], means, distance = _anova(squares, assigned, len(labels), center)
        if start == 0:
            dispersions, z = means[:, 0], distance[:, 0]
    p = np.nan
    if num_permutations and np.isfinite(f[0]):
        p = float((1 + np.sum(f[1:] >= f[0] * (1 - F_TIE))) / (1 + num_permutations))
    return Permdisp(
        float(f[0]),
        p,
        tuple(map(str, labels)),
        tuple(map(float, dispersions)),
        tuple(int(n) for n in np.bincount(codes)),
        len(names),
        num_permutations,
        center,
        z,
        negative_share,
    )


def _positive_squares(distances: np.ndarray) -> tuple[np.ndarray, float]:
    """Squared distances on the positive axes of the PCoA, and the share of absolute eigenvalues dropped."""
    squares = np.asarray(distances, dtype=np.float64) ** 2
    gower = -0.5 * (squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean())
    values, vectors = np.linalg.eigh(gower)
    negative = values < -1e-10 * max(values[-1], 0.0)
    share = float(-values[negative].sum() / np.abs(values).sum()) if negative.any() else 0.0
    if not share:
        return squares, 0.0
    axes = vectors[:, ~negative] * np.sqrt(np.maximum(values[~negative], 0.0))
    norms = (axes**2).sum(axis=1)
    return np.maximum(norms[:, None] + norms[None, :] - 2 * axes @ axes.T, 0.0), share


def _anova(squares: np.ndarray, assigned: np.ndarray, num_groups: int, center: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F `[permutation]`, mean z `[group, permutation]` and z, for group codes `assigned` `[network, permutation]`."""
    num_networks = len(squares)
    within, grand = np.zeros(assigned.shape[1]), np.zeros(assigned.shape[1])
    means, sizes = np.empty((num_groups, assigned.shape[1])), np.empty((num_groups, assigned.shape[1]))
    own = np.zeros(assigned.shape)
    for code in range(num_groups):
        members = (assigned == code).astype(np.float64)
        z = members * _distances_to_center(squares, members, center)
        own += z
        sizes[code] = members.sum(axis=0)
        total = z.sum(axis=0)
        means[code] = total / sizes[code]
        within += (z**2).sum(axis=0) - total * means[code]
        grand += total
    between = (sizes * (means - grand / num_networks) ** 2).sum(axis=0)
    within = np.maximum(within, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        f = (between / (num_groups - 1)) / (within / (num_networks - num_groups))
    return f, means, own


def _distances_to_center(squares: np.ndarray, members: np.ndarray, center: str) -> np.ndarray:
    """Distance `[network, permutation]` of every network to the centre of the group that `members` (1 or 0) marks.

    The geometric median by Weiszfeld's iteration on the weights of the points, w_i proportional to 1 / z_i. A point
    nearer to the centre than 1e-7 of the largest distance weighs as if at that distance, so that a centre may lie on a
    point.
    """
    weights = members / members.sum(axis=0)
    floor = 1e-7 * np.sqrt(squares.max())
    previous: np.ndarray | None = None
    for _ in range(1 if center == "centroid" else MAX_ITERATIONS):
        product = squares @ weights
        z = np.sqrt(np.maximum(product - 0.5 * (weights * product).sum(axis=0), 0.0))
        if center == "centroid" or floor == 0:
            return z
        clamped = np.maximum(z, floor)
        if previous is not None and np.abs(clamped - previous).max() < floor:
            return z
        previous = clamped
        weights = members / clamped
        weights /= weights.sum(axis=0)
    return z
