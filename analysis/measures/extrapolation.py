"""How far queries lie outside a training set: their place relative to its hull, its scales, a null, and decisions on the way in.

A distance to the hull has a meaning beside a scale only: activation swaps rescale features. And most points of a high-dimensional space
lie outside the hull of a sample, pure noise included, so that a fraction outside has a meaning beside that of a null only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist

from analysis.measures.hull import project

INSIDE_TOLERANCE = 1e-6  # of the largest distance of a point from the mean: what features in float32 are rounded to
SCALE_POINTS = 500  # points whose pairwise distances have the median that is taken as the scale of all
NUM_STEPS = 64  # into which a segment is cut to look for changes of the decision
NUM_HALVINGS = 10  # each change is found to 1 / (NUM_STEPS * 2^NUM_HALVINGS) of the segment
_BLOCK_BYTES = 2**27


@dataclass(frozen=True)
class Located:
    """Queries relative to the hull of points, an entry or row per query."""

    status: np.ndarray  # [query] outside, inside or undecided, as in hull.Projections
    distance: np.ndarray  # [query] to the hull
    lower_bound: np.ndarray  # [query] certified
    relative_gap: np.ndarray  # [query] of the certificate
    nearest_distance: np.ndarray  # [query] to the nearest point
    median_distance: float  # between points: the median over pairs of the first SCALE_POINTS; NaN for a single point
    projection: np.ndarray  # [query, feature] float64, the nearest point of the hull
    weights: csr_array  # [query, point] of the projection


def locate(points: Any, queries: Any, *, progress: bool = True) -> Located:
    """`queries [query, feature]` relative to the hull of `points [point, feature]`, arrays or tensors of any real type.

    Points should come in random order: the first SCALE_POINTS of them tell the scale. Raises ValueError as `hull.project` does.
    """
    found = project(points, queries, inside_tolerance=INSIDE_TOLERANCE, progress=progress)
    host, asked = _host(points), _host(queries).astype(np.float64)
    return Located(
        found.status,
        found.distance,
        found.lower_bound,
        found.relative_gap,
        nearest_distances(host, asked),
        median_distance(host),
        _mixtures(found.weights, host),
        found.weights,
    )


def _host(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


def _mixtures(weights: csr_array, points: np.ndarray) -> np.ndarray:
    """`weights @ points` with a float64 copy of those points only that carry something."""
    used = np.unique(weights.indices)
    return weights[:, used] @ points[used].astype(np.float64)


def nearest_distances(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The distance `[query]` of each query to the nearest point, exact to rounding: products find the point, a difference measures it."""
    centre = points.mean(axis=0, dtype=np.float64)
    moved = queries - centre
    best, where = np.full(len(queries), np.inf), np.zeros(len(queries), dtype=np.intp)
    block = max(1, _BLOCK_BYTES // (8 * (points.shape[1] + len(queries))))
    for start in range(0, len(points), block):
        part = points[start : start + block] - centre
        squares = np.einsum("ij,ij->i", part, part) - 2 * moved @ part.T
        nearest = squares.argmin(axis=1)
        values = squares[np.arange(len(queries)), nearest]
        better = values < best
        best[better], where[better] = values[better], nearest[better] + start
    return np.linalg.norm(queries - points[where].astype(np.float64), axis=1)


def median_distance(points: np.ndarray) -> float:
    """The median distance between two points, over all pairs of the first SCALE_POINTS. NaN for a single point."""
    first = points[:SCALE_POINTS].astype(np.float64)
    return float(np.median(pdist(first))) if len(first) > 1 else float("nan")


def gaussian_null(points: np.ndarray, num_queries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian sample of as many points with the mean and covariance of `points [point, feature]`, and queries from the same: float32
    `[point, feature]` and `[query, feature]`.

    Inside and outside are the same under invertible affine maps, so the fraction outside depends on the number of points and the rank of
    their covariance alone; distances depend on the covariance.
    """
    num_points, num_features = points.shape
    centre = points.mean(axis=0, dtype=np.float64)
    if num_points > num_features:  # either way F^T F is the scatter
        variances, axes = np.linalg.eigh(_scatter(points, centre))
        factor = np.sqrt(np.maximum(variances, 0))[:, None] * axes.T
    else:
        factor = points - centre
    factor = (factor / np.sqrt(max(num_points - 1, 1))).astype(np.float32)
    generator = np.random.default_rng(seed)
    drawn = generator.standard_normal((num_points + num_queries, len(factor)), dtype=np.float32) @ factor
    drawn += centre.astype(np.float32)
    return drawn[:num_points], drawn[num_points:]


def _scatter(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The products of centred features, summed over points `[feature, feature]`, in float64."""
    total = np.zeros((points.shape[1], points.shape[1]))
    block = max(1, _BLOCK_BYTES // (8 * points.shape[1]))
    for start in range(0, len(points), block):
        part = points[start : start + block] - centre
        total += part.T @ part
    return total


def crossings(predict: Callable[[np.ndarray], np.ndarray], starts: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Where the decision changes on the segments from `starts` to `ends [query, feature]`: places from 0 to 1, ascending, per query.

    `predict` gives the class `[point]` of points `[point, feature]`. It is asked at NUM_STEPS + 1 places per segment, and each change
    between two of them is found by halving; two changes back and forth between neighbouring places go unseen.
    """
    grid = np.linspace(0.0, 1.0, NUM_STEPS + 1)

    def at(which: np.ndarray, places: np.ndarray) -> np.ndarray:
        return predict(starts[which] + places[:, None] * (ends[which] - starts[which]))

    everyone = np.arange(len(starts))
    at_once = max(1, _BLOCK_BYTES // (8 * len(grid) * starts.shape[1]))
    blocks = [at(np.repeat(some, len(grid)), np.tile(grid, len(some))) for some in np.split(everyone, range(at_once, len(starts), at_once))]
    classes = np.concatenate(blocks).reshape(-1, len(grid))  # [query, place]
    which, steps = np.nonzero(classes[:, 1:] != classes[:, :-1])
    low, high, before = grid[steps].copy(), grid[steps + 1].copy(), classes[which, steps]
    for _ in range(NUM_HALVINGS if len(which) else 0):
        middle = (low + high) / 2
        same = at(which, middle) == before
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    places = (low + high) / 2
    return [places[which == index] for index in everyone]
