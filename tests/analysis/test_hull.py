"""Projections onto a hull: golden cases, theorems, certificates against the truth, and solvers of other kinds beside them."""

from __future__ import annotations

import itertools
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

import analysis.measures.hull as hull
from analysis.measures.hull import INSIDE, OUTSIDE, UNDECIDED, project

TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def by_faces(points: np.ndarray, x: np.ndarray) -> float:
    """The distance by its definition: the least over all simplices of points of the distance to a foot inside the simplex."""
    best = np.inf
    for size in range(1, points.shape[1] + 2):
        for face in itertools.combinations(range(len(points)), size):
            origin, edges = points[face[0]], points[list(face[1:])] - points[face[0]]
            share = np.linalg.lstsq(edges.T, x - origin, rcond=None)[0]
            if (share >= -1e-12).all() and share.sum() <= 1 + 1e-12:
                best = min(best, float(np.linalg.norm(x - origin - share @ edges)))
    return best


def by_nnls(points: np.ndarray, x: np.ndarray) -> float:
    """The distance by one nonnegative least squares problem over all points."""
    system = np.concatenate([(points - x).T, np.full((1, len(points)), 10.0)])
    u, _ = nnls(system, np.append(np.zeros(len(x)), 10.0), maxiter=100 * len(points))
    return float(np.linalg.norm(x - u / u.sum() @ points))


def cloud(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def queries_of(points: np.ndarray, seed: int = 1) -> dict[str, np.ndarray]:
    """Queries `[query, feature]` outside, inside, on a face (a mixture of the support of a projection) and equal to a vertex."""
    generator = np.random.default_rng(seed)
    outside = generator.standard_normal((4, points.shape[1])) + 2
    mixtures = generator.dirichlet(np.ones(len(points)), size=4)
    faces = []
    for weights in project(points, outside).weights.toarray():
        support = np.flatnonzero(weights)
        faces.append(generator.dirichlet(np.ones(len(support))) @ points[support])
    return {"outside": outside, "inside": mixtures @ points, "face": np.array(faces), "vertex": points[:2]}


def test_golden_cases():
    """Section 3.1 of the reference: three unit vectors and (1, 1, 1); a right triangle and (1, 1)."""
    simplex = project(np.eye(3), np.ones((1, 3)))
    assert simplex.distance[0] == pytest.approx(2 / np.sqrt(3), abs=1e-12)
    assert simplex.weights.toarray() == pytest.approx(np.full((1, 3), 1 / 3), abs=1e-12)
    triangle = project(TRIANGLE, np.array([[1.0, 1.0], [0.25, 0.25], [2.0, 0.0], [0.5, 0.0]]))
    assert triangle.distance == pytest.approx([np.sqrt(0.5), 0, 1, 0], abs=1e-12)
    assert triangle.weights.toarray()[0] == pytest.approx([0, 0.5, 0.5], abs=1e-12)
    assert triangle.weights @ TRIANGLE == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.25], [1, 0], [0.5, 0]]), abs=1e-12)
    assert triangle.status.tolist() == [OUTSIDE, INSIDE, OUTSIDE, INSIDE]
    assert triangle.lower_bound[[0, 2]] == pytest.approx([np.sqrt(0.5), 1], abs=1e-12)
    assert triangle.support_size.tolist() == [2, 3, 1, 2]


def test_equals_the_definition():
    for n, d in [(7, 2), (8, 3)]:
        points = cloud(n, d, seed=n)
        for where, queries in queries_of(points).items():
            found = project(points, queries)
            assert found.distance == pytest.approx([by_faces(points, x) for x in queries], abs=1e-10), where


@pytest.mark.parametrize(("n", "d"), [(300, 5), (400, 30), (60, 90)])
def test_equals_one_large_problem(n, d):
    points = cloud(n, d, seed=d)
    for where, queries in queries_of(points).items():
        found = project(points, queries)
        assert found.distance == pytest.approx([by_nnls(points, x) for x in queries], abs=1e-8), where
        assert set(found.status) == {OUTSIDE if where == "outside" else INSIDE}, where


@pytest.mark.parametrize(("n", "d"), [(2000, 64), (300, 400), (5000, 3), (50, 1)])
def test_every_answer_outside_is_certified(n, d):
    points, queries = cloud(n, d), cloud(40, d, seed=5) + 1
    found = project(points, queries)
    assert UNDECIDED not in found.status
    outside = found.status == OUTSIDE
    assert outside.any()
    assert found.relative_gap[outside].max() < 1e-8
    assert (found.lower_bound <= found.distance).all()
    weights = found.weights.toarray()
    assert (weights >= 0).all()
    assert weights.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm(queries - found.weights @ points, axis=1) == pytest.approx(found.distance, abs=1e-12)
    assert found.support_size.max() <= d + 1
    # The certificate once more, by its formula.
    residual = queries - found.weights @ points
    gap = (residual @ points.T).max(axis=1) - (residual * (found.weights @ points)).sum(axis=1)
    assert found.lower_bound[outside] == pytest.approx((found.distance - gap / found.distance)[outside], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    d=st.integers(1, 12),
    shift=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    max_rounds=st.sampled_from([1, 2, 3, 200]),
)
def test_the_certificate_bounds_the_distance_whenever_it_stops(seed, n, d, shift, max_rounds):
    """Few points a round and few rounds leave the problem unsolved; what is claimed must hold all the same."""
    points, queries = cloud(n, d, seed), cloud(4, d, seed + 1) * 0.5 + shift
    queries[0] = points[0] if n == 1 else np.random.default_rng(seed).dirichlet(np.ones(n)) @ points
    found = project(points, queries, points_per_round=1, max_rounds=max_rounds)
    truth = np.array([by_nnls(points, x) for x in queries])
    assert (found.lower_bound <= truth + 1e-12).all()
    assert (truth <= found.distance + 1e-12).all()
    assert (truth[found.status == OUTSIDE] > 0).all()
    assert (truth[found.status == INSIDE] <= found.tolerance + 1e-12).all()
    assert found.status[0] != OUTSIDE


def test_stopped_early_is_undecided():
    points = cloud(500, 20)
    inside = points[:100].mean(axis=0, keepdims=True)
    found = project(points, inside, points_per_round=2, max_rounds=3)
    assert found.status[0] == UNDECIDED
    assert (found.lower_bound[0], found.relative_gap[0], found.num_rounds[0]) == (0, 1, 3)


def test_the_lower_bound_holds_in_exact_arithmetic():
    """Rounding is part of the proof: no tolerance here, the truth is a fraction."""
    points, queries = cloud(1, 30), cloud(100, 30, 3)
    found = project(points, queries)
    for x, lower_bound in zip(queries, found.lower_bound, strict=True):
        assert Fraction(lower_bound) ** 2 <= sum((Fraction(p) - Fraction(q)) ** 2 for p, q in zip(points[0], x, strict=True))
    assert found.relative_gap.max() < 1e-13


def test_inside_holds_up_to_the_tolerance_told():
    for offset, expected in [(0.0, INSIDE), (0.9e-3, INSIDE), (1.1e-3, OUTSIDE)]:
        found = project(TRIANGLE * 3, np.array([[1.0, -offset * 3]]), inside_tolerance=1e-3 / (np.sqrt(5) / 3))  # 1e-3 of the unit triangle
        assert found.tolerance == pytest.approx(3e-3)
        assert found.status[0] == expected


@pytest.mark.parametrize(("n", "d"), [(200, 10), (30, 50)])
def test_invariances(n, d):
    generator = np.random.default_rng(8)
    points, queries = cloud(n, d), np.concatenate(list(queries_of(cloud(n, d)).values()))
    truth = project(points, queries)
    rotation = np.linalg.qr(generator.standard_normal((d, d)))[0]
    order = generator.permutation(n)
    moved = {
        "translated": (points + 7, queries + 7, 1, np.arange(n)),
        "rotated": (points @ rotation, queries @ rotation, 1, np.arange(n)),
        "scaled": (points * 1e-5, queries * 1e-5, 1e-5, np.arange(n)),
        "permuted": (points[order], queries, 1, order),
        "embedded": (np.pad(points, ((0, 0), (0, 9))), np.pad(queries, ((0, 0), (0, 9))), 1, np.arange(n)),
    }
    outside = truth.status == OUTSIDE
    for name, (p, q, scale, order) in moved.items():
        found = project(p, q)
        assert found.status.tolist() == truth.status.tolist(), name
        assert found.distance == pytest.approx(truth.distance * scale, abs=1e-10 * scale), name
        assert found.weights.toarray()[outside] == pytest.approx(truth.weights.toarray()[outside][:, order], abs=1e-9), name


def test_scaling_by_powers_of_two_is_exact():
    points, queries = cloud(100, 10), cloud(5, 10, 3) + 1
    truth = project(points, queries)
    for power in (2.0**-300, 2.0**300):
        found = project(points * power, queries * power)
        assert (found.distance == truth.distance * power).all()
        assert (found.weights.toarray() == truth.weights.toarray()).all()


@pytest.mark.parametrize(("n", "d"), [(500, 16), (40, 100)])
def test_a_projection_projects_to_itself(n, d):
    points = cloud(n, d)
    feet = project(points, cloud(10, d, 4) + 1).weights @ points
    found = project(points, feet)
    assert (found.status == INSIDE).all()
    assert found.weights @ points == pytest.approx(feet, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_projection_shortens_distances(seed):
    """|P x - P y| <= |x - y|, and P x is closer to x than every point."""
    points, queries = cloud(80, 6, seed), cloud(6, 6, seed + 1) * 3
    found = project(points, queries)
    feet = found.weights @ points
    for i, j in itertools.combinations(range(6), 2):
        assert np.linalg.norm(feet[i] - feet[j]) <= np.linalg.norm(queries[i] - queries[j]) + 1e-9
    assert (found.distance <= np.linalg.norm(queries[:, None] - points, axis=2).min(axis=1) + 1e-12).all()


def test_degenerate_points():
    x = np.array([[3.0, 4.0]])
    one = project(np.zeros((1, 2)), x)
    assert (one.distance[0], one.status[0], one.support_size[0]) == (5, OUTSIDE, 1)
    assert project(x, x).status[0] == INSIDE  # n = 1 and there: the tolerance is 0 and the distance, too
    alike = project(np.full((40, 2), 0.1), np.array([[0.1, 0.1], [0.1, 1.1]]))
    assert alike.distance == pytest.approx([0, 1], abs=1e-15)
    assert alike.status.tolist() == [INSIDE, OUTSIDE]
    line = np.linspace(0, 1, 50)[:, None] * np.array([1.0, 2.0, 2.0])
    collinear = project(line, np.array([[0.5, 1.0, 1.0], [2.0, 4.0, 4.0], [0.0, 1.0, -1.0], line[7]]))
    assert collinear.distance == pytest.approx([0, 3, np.sqrt(2), 0], abs=1e-12)
    assert collinear.status.tolist() == [INSIDE, OUTSIDE, OUTSIDE, INSIDE]
    twice = project(np.concatenate([TRIANGLE] * 30), np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert twice.distance == pytest.approx([np.sqrt(0.5), 0], abs=1e-12)
    centre = project(np.concatenate([np.eye(4), -np.eye(4)]), np.zeros((1, 4)))  # the query is the mean: no direction to start from
    assert (centre.status[0], centre.weights.sum()) == (INSIDE, pytest.approx(1))
    assert len(project(TRIANGLE, np.empty((0, 2))).distance) == 0


def test_far_from_the_origin_and_far_from_the_hull():
    points, queries = cloud(300, 8), cloud(5, 8, 2) + 2
    truth = project(points, queries)
    moved = project(points + 1e6, queries + 1e6)
    assert moved.distance == pytest.approx(truth.distance, abs=1e-8)
    assert (moved.status == OUTSIDE).all()
    far = project(points, queries * 1e9)
    assert (far.relative_gap < 1e-8).all()
    assert far.distance == pytest.approx([by_nnls(points, x) for x in queries * 1e9], rel=1e-12)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.uint8, np.int64])
def test_other_number_types_are_taken_as_the_numbers_they_are(kind):
    generator = np.random.default_rng(0)
    points, queries = (generator.uniform(0, 255, size).astype(kind) for size in ((400, 30), (6, 30)))
    found, truth = project(points, queries), project(points.astype(np.float64), queries.astype(np.float64))
    assert (found.distance == truth.distance).all()
    assert (found.relative_gap < 1e-8).all()


@pytest.mark.parametrize("kind", ["float64", "float32", "bfloat16", "uint8"])
def test_a_tensor_is_scored_where_it_lies(kind):
    torch = pytest.importorskip("torch")
    places = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    points, queries = torch.as_tensor(cloud(900, 20) * 30 + 100).to(getattr(torch, kind)), cloud(8, 20, 3) * 30 + 130
    truth = project(points.double().numpy(), queries)
    assert (truth.status == OUTSIDE).any()
    for place in places:
        for memory_bytes in (2**30, 2**16):
            found = project(points.to(place), torch.as_tensor(queries).to(place), memory_bytes=memory_bytes)
            assert found.status.tolist() == truth.status.tolist()
            assert found.distance == pytest.approx(truth.distance, rel=1e-10)
            assert found.relative_gap == pytest.approx(truth.relative_gap, abs=1e-9)


def test_memory_changes_nothing_but_tiles():
    points, queries = cloud(3000, 16), cloud(20, 16, 3)
    truth, found = project(points, queries), project(points, queries, memory_bytes=100_000)
    assert found.status.tolist() == truth.status.tolist()
    assert found.distance == pytest.approx(truth.distance, abs=1e-12)


def test_memory_stays_within_what_is_given():
    """Beside the float32 copy of the points, and the queries themselves."""
    points, queries = cloud(20_000, 100).astype(np.float32), cloud(100, 100, 3)
    tracemalloc.start()
    project(points, queries, memory_bytes=2**21)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - points.nbytes < 2**21 + 2**20


def test_kept_points_spare_rounds_deep_inside(monkeypatch):
    """Smooth nonnegative images; a mixture of them lies near many faces at once."""
    generator = np.random.default_rng(0)
    waves = np.cos(np.pi * np.outer(np.arange(12) + 0.5, np.arange(12)) / 12)
    power = 1 / (1 + np.add.outer(np.arange(12), np.arange(12))) ** 3
    images = np.einsum("xa,nab,yb->nxy", waves, generator.standard_normal((2000, 12, 12)) * power, waves)
    points = np.maximum(images, 0).reshape(2000, -1)
    queries = generator.dirichlet(np.ones(100), size=3) @ points[:100]
    found = project(points, queries, points_per_round=8)
    monkeypatch.setattr(hull, "SPARES", 0)
    without = project(points, queries, points_per_round=8)
    assert set(found.status) == set(without.status) == {INSIDE}
    assert found.num_rounds.sum() < 0.8 * without.num_rounds.sum()


def test_a_solver_that_gives_up_leaves_the_query_undecided(monkeypatch):
    def give_up(*_args, **_options):
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr(hull, "nnls", give_up)
    found = project(TRIANGLE, np.array([[1.0, 1.0]]))
    assert (found.status[0], found.lower_bound[0], found.relative_gap[0]) == (UNDECIDED, 0, 1)


@pytest.mark.parametrize(
    ("points", "queries", "options", "message"),
    [
        (np.array([[0.0, np.nan], [1, 1]]), TRIANGLE, {}, r"points has NaN or infinite values in 1 rows, the first is row 0"),
        (TRIANGLE, np.array([[0.0, 0], [np.inf, 1]]), {}, r"queries has NaN or infinite values in 1 rows, the first is row 1"),
        (TRIANGLE * 1e200, TRIANGLE, {}, r"points has values beyond 1e150"),
        (TRIANGLE, np.zeros((2, 3)), {}, r"queries have 3 features and points 2"),
        (np.zeros((0, 2)), TRIANGLE, {}, r"points is empty"),
        (TRIANGLE[0], TRIANGLE, {}, r"points must be a matrix \[point, feature\], not of shape \(2,\)"),
        (TRIANGLE, TRIANGLE[0], {}, r"queries must be a matrix \[query, feature\], not of shape \(2,\)"),
        (TRIANGLE, TRIANGLE.astype(complex), {}, r"queries must be real numbers, not of type complex128"),
        (TRIANGLE, TRIANGLE, {"max_rounds": 0}, r"max_rounds is 0, and must be at least 1"),
        (TRIANGLE, TRIANGLE, {"inside_tolerance": -1.0}, r"inside_tolerance is -1.0, and must be at least 0 and below 1"),
    ],
)
def test_bad_input_is_refused(points, queries, options, message):
    with pytest.raises(ValueError, match=message):
        project(points, queries, **options)


def test_long_work_shows_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    project(TRIANGLE, TRIANGLE)
    assert "projecting" not in capsys.readouterr().err
    monkeypatch.setattr(hull, "LONG_WORK", 0)
    project(TRIANGLE, TRIANGLE)
    shown = capsys.readouterr().err
    assert "projecting" in shown
    assert "3/3" in shown
    project(TRIANGLE, TRIANGLE, progress=False)
    assert "projecting" not in capsys.readouterr().err
    monkeypatch.delenv("TTY_COMPATIBLE")
    project(TRIANGLE, TRIANGLE)
    assert "projecting" not in capsys.readouterr().err
