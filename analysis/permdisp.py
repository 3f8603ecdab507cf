"""PERMDISP: are some groups of networks more dispersed than others? From the distances between them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.statistics import permutations

F_TIE = 1e-7  # relative: the geometric median is found to a tolerance
MAX_ITERATIONS = 2000


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
    *,
    permute: Literal["labels", "residuals"] = "labels",
    bias_adjust: bool = False,
    euclidean: bool = False,
) -> Permdisp:
    """PERMDISP (Anderson 2006), the multivariate Levene test: are some groups more dispersed than others?

    From distances `[network, network]` by PCoA with all dimensions, the axes of negative eigenvalues dropped, as
    scikit-bio does; z is a network's distance to its group's centre (geometric median or centroid), F the one-way ANOVA
    over z, and p = (1 + #{F* >= F}) / (1 + B) with group labels permuted and centres recomputed. `units` (the family of
    each network) makes the labels of a whole unit move together, since networks of one family are not independent;
    every unit must lie in one group. Without it each network is a unit.

    With `permute="residuals"` centres stay where they are and what is exchanged are the units' mean z less their group's (vegan, Anderson
    2017): the groups' locations then cost no power. It needs `bias_adjust`, which multiplies z by sqrt(m / (m - 1)), m the networks of the
    group: without it a small group looks less dispersed than it is, and unequal groups give false positives. F is over units then, and over
    networks without units. `euclidean` says that the distances are known to be: no spectrum is taken to find negative axes.

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
    squares, negative_share = (np.asarray(distances, np.float64) ** 2, 0.0) if euclidean else _positive_squares(distances)
    if permute == "residuals":
        found = _residual(squares, codes, unit_codes, unit_of, center, bias_adjust, num_permutations, generator)
        counts = tuple(int(n) for n in np.bincount(codes))
        where = (counts, len(names), num_permutations, center)
        return Permdisp(found[0], found[1], tuple(map(str, labels)), found[2], *where, found[3], negative_share)
    # Row 0 is the labelling observed, the others are permutations of it.
    drawn = np.vstack([np.arange(len(names)), permutations(len(names), num_permutations, generator)])
    f = np.empty(len(drawn))
    dispersions = z = np.empty(0)
    rows_at_once = max(1, 2**24 // max(len(codes), 1))  # 128 MiB of float64 per array
    for start in range(0, len(drawn), rows_at_once):
        assigned = unit_codes[drawn[start : start + rows_at_once]][:, unit_of].T  # [network, permutation]
        f[start : start + rows_at_once], means, distance = _anova(squares, assigned, len(labels), center, bias_adjust)
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


def _residual(
    squares: np.ndarray,
    codes: np.ndarray,
    unit_codes: np.ndarray,
    unit_of: np.ndarray,
    center: str,
    bias_adjust: bool,
    num_permutations: int,
    generator: np.random.Generator,
) -> tuple[float, float, tuple[float, ...], np.ndarray]:
    """F, p, mean z per group and z, with the units' residuals permuted: centres are found once, all F in one product over groups."""
    num_groups = codes.max() + 1
    z = np.empty(len(codes))
    for code in range(num_groups):
        own = np.flatnonzero(codes == code)
        inside = squares[np.ix_(own, own)]
        z[own] = _distances_to_center(inside, np.ones((len(own), 1)), center)[:, 0]
        if bias_adjust:
            z[own] *= np.sqrt(len(own) / max(len(own) - 1, 1))
    values = np.bincount(unit_of, weights=z) / np.bincount(unit_of)
    member = (unit_codes[:, None] == np.arange(num_groups)).astype(np.float64)
    sizes = member.sum(axis=0)
    means = values @ member / sizes
    residuals = values - means[unit_codes]
    total = float((residuals**2).sum())  # about their mean, which is 0 in each group

    def statistic(sums: np.ndarray, scatter: float | np.ndarray) -> np.ndarray:
        between = (sums**2 / sizes).sum(axis=-1) - sums.sum(axis=-1) ** 2 / len(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(between / (num_groups - 1) / (np.maximum(scatter - between, 0.0) / (len(values) - num_groups)))

    centred = values - values.mean()
    f = float(statistic(centred @ member, float((centred**2).sum())))
    p = np.nan
    if num_permutations and np.isfinite(f):
        drawn = residuals[permutations(len(values), num_permutations, generator)] @ member
        p = float((1 + np.sum(statistic(drawn, total) >= f * (1 - F_TIE))) / (1 + num_permutations))
    dispersions = np.bincount(codes, weights=z) / np.bincount(codes)
    return f, p, tuple(map(float, dispersions)), z


def _anova(
    squares: np.ndarray, assigned: np.ndarray, num_groups: int, center: str, bias_adjust: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F `[permutation]`, mean z `[group, permutation]` and z, for group codes `assigned` `[network, permutation]`; z adjusted if wanted."""
    num_networks = len(squares)
    within, grand = np.zeros(assigned.shape[1]), np.zeros(assigned.shape[1])
    means, sizes = np.empty((num_groups, assigned.shape[1])), np.empty((num_groups, assigned.shape[1]))
    own = np.zeros(assigned.shape)
    for code in range(num_groups):
        members = (assigned == code).astype(np.float64)
        z = members * _distances_to_center(squares, members, center)
        if bias_adjust:  # groups of whole units of different size: the sizes are those of the labelling drawn
            num = members.sum(axis=0)
            z = z * np.sqrt(num / np.maximum(num - 1, 1))
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
