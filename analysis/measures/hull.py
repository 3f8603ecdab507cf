"""Inside or outside the convex hull: the nearest point of conv{a_1, ..., a_n} to a query x, with a certificate.

    min_w |x - A^T w|   subject to   w >= 0, sum w = 1;   p = A^T w, distance = |x - p|

A distance found by any solver bounds the true one from above only. From below it is bounded by a plane that separates
the query from every point: for the direction v = (x - p) / |x - p| the true distance is at least min_i v.(x - a_i) =
distance - gap / distance, with gap = max_i (x - p).(a_i - p). Where that is positive, the query is outside, proven.

Solved by column generation. Few points carry a projection (`weights`), so each round solves the problem exactly on a
small working set of points, drops those without weight, and adds those that lie farthest beyond the plane through p.
Deep inside a hull of hundreds of dimensions, where a projection has a point per dimension, a query takes seconds.
Working sets are per query; the look at all points is one matrix product for all queries that are still on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.linalg.lapack import dgeqrf
from scipy.optimize import nnls
from scipy.sparse import csr_array

from analysis.measures.hull_scores import Points, TensorPoints

OUTSIDE, INSIDE, UNDECIDED = "outside", "inside", "undecided"

QUERIES_PER_BLOCK = 512
LONG_WORK = 10**11  # queries times points times features: about a minute
COARSE = 1e-6  # what a score in float32 may be off by, in units
SPARES, SPARES_FROM = (
    2,
    8,
)  # points kept for each with weight, from which round: else the same ones leave and return, for hundreds of rounds
MAX_STALLS = 3  # rounds that neither shorten the distance nor raise the bound
EPS = float(np.finfo(np.float64).eps)
LARGEST = 1e150  # the square of more is not finite


@dataclass(frozen=True)
class Projections:
    """Where queries project onto the hull of points, one entry or row per query.

    `status` is "inside" where `distance <= tolerance`, else "outside" where `lower_bound > 0`, else "undecided".
    `weights @ points` are the projections.
    """

    distance: np.ndarray  # [query] to the projection found; the true distance is no larger, up to rounding
    lower_bound: np.ndarray  # [query] the true distance is no smaller, rounding of the proof included; 0 where nothing is proven
    relative_gap: np.ndarray  # [query] (distance - lower_bound) / distance; 0 where the distance is 0
    status: np.ndarray  # [query] of str
    weights: csr_array  # [query, point], rows are nonnegative and sum to 1; stored entries are the support
    num_rounds: np.ndarray  # [query] small problems solved
    tolerance: float  # the distance up to which a query counts as inside

    @property
    def support_size(self) -> np.ndarray:
        """Points that carry each projection `[query]`."""
        return np.diff(self.weights.indptr)


def project(
    points: Any,
    queries: Any,
    *,
    relative_gap: float = 1e-10,
    inside_tolerance: float = 1e-9,
    points_per_round: int = 64,
    max_rounds: int = 200,
    memory_bytes: int = 2**30,
    progress: bool = True,
) -> Projections:
    """Projections of `queries [query, feature]` onto the convex hull of `points [point, feature]`.

    Both are arrays of any real type; all results are in float64. Points given as a torch tensor are scored on the device
    where they lie. A query is done at a gap of `relative_gap` or, if that is more, at what rounding leaves to prove.
    `inside_tolerance` is relative to the largest distance of a point from the mean of all, so 0 where all points are one.
    `memory_bytes` bounds what is needed beside one float32 copy of the points and the weights found. A bar is shown on a
    terminal where the work is long.
    """
    for name, value in (("points_per_round", points_per_round), ("max_rounds", max_rounds), ("memory_bytes", memory_bytes)):
        if value < 1:
            raise ValueError(f"{name} is {value}, and must be at least 1")
    for name, share in (("relative_gap", relative_gap), ("inside_tolerance", inside_tolerance)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}, and must be at least 0 and below 1")
    matrix, asked = _matrix("points", points), _matrix("queries", queries)
    if not len(matrix):
        raise ValueError("points is empty: the hull of no points has no distance")
    if asked.shape[1] != matrix.shape[1]:
        raise ValueError(f"queries have {asked.shape[1]} features and points {matrix.shape[1]}: they must agree")

    held = TensorPoints(points.detach(), matrix, memory_bytes) if hasattr(points, "topk") else Points(matrix, memory_bytes)
    rules = _Rules(relative_gap, inside_tolerance * held.radius, points_per_round, max_rounds)
    console = Console(stderr=True)
    columns = TextColumn("projecting"), BarColumn(), MofNCompleteColumn(), TextColumn("queries"), TimeRemainingColumn()
    silent = not progress or not console.is_terminal or len(asked) * matrix.size < LONG_WORK
    done: list[_Query] = []
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task("", total=len(asked))
        for start in range(0, len(asked), QUERIES_PER_BLOCK):
            block = [_Query(x, held) for x in held.local(asked[start : start + QUERIES_PER_BLOCK])]
            _project_block(block, held, rules, lambda finished: bar.advance(task, finished))
            done += block
    return _collect(done, held, rules.tolerance * held.unit)


@dataclass(frozen=True)
class _Rules:
    relative_gap: float
    tolerance: float  # in units
    points_per_round: int
    max_rounds: int


class _Query:
    """One query on its way. Lengths are in units of the held points."""

    def __init__(self, x: np.ndarray, held: Points) -> None:
        self.x = x
        # Products of d terms, of numbers that one subtraction each has rounded, divided by a computed norm.
        self.rounding = (held.num_features + 8) * EPS * (float(np.linalg.norm(x)) + held.radius)
        self.support = np.empty(0, dtype=np.intp)
        self.weights = np.empty(0)
        self.spare = np.empty(0, dtype=np.intp)
        self.distance, self.lower_bound = np.inf, 0.0
        self.num_rounds = self.num_stalls = 0
        self.exact = self.done = False
        self._towards(x)  # the mean is in the hull too: the first points are those farthest from it towards the query

    def _towards(self, residual: np.ndarray) -> None:
        norm = float(np.linalg.norm(residual))
        self.direction = residual / norm if norm > 0 else residual
        self.reach = float(self.direction @ self.x)

    def floor(self, rules: _Rules) -> float:
        """The score above which a point lies beyond the plane through the projection by more than can be ignored."""
        if not len(self.support):
            return -np.inf
        slack = max(rules.relative_gap * self.distance, 2 * self.rounding) if self.exact else COARSE
        return self.reach - self.distance + slack

    def step(self, candidates: np.ndarray, highest: float, held: Points, rules: _Rules) -> None:
        """Take in what the look at all points has found."""
        before, working = (self.distance, self.lower_bound), np.concatenate([self.support, self.spare])
        known = set(working.tolist())
        if self.exact:
            self.lower_bound = max(self.lower_bound, self.reach - highest - self.rounding)
        new = np.array([i for i in candidates.tolist() if i not in known], dtype=np.intp)
        if len(new) and self.num_rounds < rules.max_rounds:
            self._solve(np.concatenate([working, new]), held)
            moved = self.distance < before[0] * (1 - 1e-12) or self.lower_bound > before[1]
            self.num_stalls = 0 if moved else self.num_stalls + 1
            self.done = self.distance <= rules.tolerance or self.num_stalls > MAX_STALLS
            self.exact = self.exact or not moved
        else:
            self.exact, self.done = True, self.exact

    def _solve(self, working: np.ndarray, held: Points) -> None:
        """The problem on the working set, exactly, and which of its points stay: those with weight, and those nearest to having some."""
        self.num_rounds += 1
        differences = held.take(working) - self.x
        try:
            weights = simplex_least_squares(differences)
        except RuntimeError:  # nnls gives up: what is known stays, and its certificate says how good it is
            self.num_stalls = MAX_STALLS
            return
        kept = weights > EPS
        residual = -(weights[kept] @ differences[kept])
        self.support, self.weights = working[kept], weights[kept]
        self.distance = float(np.linalg.norm(residual))
        self._towards(residual)
        num_spares = SPARES * len(self.support) if self.num_rounds >= SPARES_FROM else 0
        idle = np.flatnonzero(~kept)
        self.spare = working[idle[np.argsort(differences[idle] @ residual)[::-1][:num_spares]]]


def simplex_least_squares(M: np.ndarray) -> np.ndarray:
    """Weights w `[point]` >= 0 of sum 1 that minimise |M^T w|, for M `[point, feature]`, points minus query. By Lawson and Hanson.

    The sum needs no constraint: for u = s w the minimum of |M^T u|^2 + c^2 (1'u - 1)^2 over s is c^2 f / (f + c^2) with f
    = |M^T w|^2, which grows with f, so for every c > 0 the nonnegative least squares solution u is a multiple of w.
    """
    num_points, num_features = M.shape
    factor = np.triu(dgeqrf(M.T)[0][:num_points]) if num_features > 2 * num_points else M.T  # the same norms from a triangle
    c = math.sqrt(np.einsum("ij,ij->i", M, M).max()) or 1.0
    system = np.empty((len(factor) + 1, num_points))
    system[:-1], system[-1] = factor, c
    target = np.zeros(len(system))
    target[-1] = c
    u, _ = nnls(system, target, maxiter=30 * num_points)
    return u / u.sum()


def _project_block(block: list[_Query], held: Points, rules: _Rules, tell: Callable[[int], object]) -> None:
    """All queries of a block to their end, in rounds of one product each."""
    live = block
    while live:
        exact = all(query.exact for query in live)  # float64 comes when float32 has nothing more to say, to all at once
        group = [query for query in live if query.exact is exact]
        directions, floors = np.stack([query.direction for query in group]), np.array([query.floor(rules) for query in group])
        found, highest = held.farthest(directions, floors, rules.points_per_round, exact)
        for query, candidates, top in zip(group, found, highest, strict=True):
            query.step(candidates, float(top), held, rules)
        remaining = [query for query in live if not query.done]
        tell(len(live) - len(remaining))
        live = remaining


def _collect(done: list[_Query], held: Points, tolerance: float) -> Projections:
    distance = np.array([query.distance for query in done]) * held.unit
    lower_bound = np.array([query.lower_bound for query in done]) * held.unit
    with np.errstate(invalid="ignore"):
        gap = np.where(distance > 0, np.maximum(1 - lower_bound / distance, 0), 0.0)
    status = np.where(distance <= tolerance, INSIDE, np.where(lower_bound > 0, OUTSIDE, UNDECIDED))
    ends = np.cumsum([0, *(len(query.support) for query in done)])
    parts = [np.concatenate([np.empty(0), *(getattr(query, name) for query in done)]) for name in ("weights", "support")]
    weights = csr_array((parts[0], parts[1].astype(np.intp), ends), shape=(len(done), held.num_points))
    weights.sort_indices()
    return Projections(distance, lower_bound, gap, status, weights, np.array([query.num_rounds for query in done], dtype=int), tolerance)


def _matrix(name: str, values: Any) -> np.ndarray:
    """The values as a matrix on the host, checked."""
    if hasattr(values, "topk"):  # a torch tensor; numpy has no type of 16 bits with 8 of exponent
        values = values.detach()
        values = (values.float() if values.is_floating_point() and values.element_size() < 4 else values).cpu().numpy()
    matrix = np.asarray(values)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise ValueError(f"{name} must be a matrix [{name[:-1] if name == 'points' else 'query'}, feature], not of shape {matrix.shape}")
    if matrix.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be real numbers, not of type {matrix.dtype}")
    if matrix.dtype.kind == "f" and matrix.size:
        low, high = float(matrix.min()), float(matrix.max())  # NaN if any is
        if not max(abs(low), abs(high)) < LARGEST:
            bad = ~np.isfinite(matrix).all(axis=1)
            what = f"NaN or infinite values in {bad.sum()} rows, the first is row {bad.argmax()}" if bad.any() else "values beyond 1e150"
            raise ValueError(f"{name} has {what}: there is no distance to them")
    return matrix
