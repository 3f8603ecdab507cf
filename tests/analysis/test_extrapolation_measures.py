"""Places relative to a hull: scales by their definitions, the null by what is known of it, decisions at known places."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from analysis.measures import extrapolation as module
from analysis.measures.extrapolation import crossings, gaussian_null, locate, median_distance, nearest_distances
from analysis.measures.hull import INSIDE, OUTSIDE, project


def cloud(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.uint8])
def test_scales_by_their_definitions(kind, monkeypatch):
    points, queries = ((cloud(n, 7, seed) * 20 + 100).astype(kind) for n, seed in ((400, 1), (30, 2)))
    everything = cdist(queries.astype(np.float64), points.astype(np.float64))
    for block_bytes in (2**27, 2000):  # in tiles, too
        monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
        np.testing.assert_allclose(nearest_distances(points, queries.astype(np.float64)), everything.min(axis=1), rtol=1e-12)
    between = cdist(points.astype(np.float64), points.astype(np.float64))[np.triu_indices(400, 1)]
    assert median_distance(points) == pytest.approx(np.median(between), rel=1e-12)
    assert np.isnan(median_distance(points[:1]))


def test_located_is_the_projection_with_its_scales():
    points, queries = cloud(300, 12), np.concatenate([cloud(10, 12, 3) + 2, cloud(300, 12)[:2]])
    found, truth = locate(points, queries), project(points, queries)
    np.testing.assert_allclose(found.distance, truth.distance, atol=1e-6)  # the tolerance of `inside` ends some earlier
    np.testing.assert_allclose(np.linalg.norm(queries - found.projection, axis=1), found.distance, atol=1e-9)
    assert (found.distance <= found.nearest_distance + 1e-12).all()
    assert found.nearest_distance[-2:] == pytest.approx([0, 0])
    assert found.status.tolist() == [OUTSIDE] * 10 + [INSIDE] * 2


def test_relative_distances_are_blind_to_scale_and_place():
    points, queries = cloud(200, 6), cloud(20, 6, 1) * 1.5
    first, moved = locate(points, queries), locate(points * 37 + 5, queries * 37 + 5)
    np.testing.assert_allclose(first.distance / first.nearest_distance, moved.distance / moved.nearest_distance, atol=1e-6)
    np.testing.assert_allclose(first.distance / first.median_distance, moved.distance / moved.median_distance, atol=1e-6)
    assert first.status.tolist() == moved.status.tolist()


@pytest.mark.parametrize(("n", "d"), [(2000, 5), (40, 60), (2000, 1)])
def test_the_null_has_the_points_mean_and_covariance(n, d):
    """Its draws are combinations of the points' deviations, so their covariance can be estimated from many draws alone."""
    points = cloud(n, d) @ np.diag(np.linspace(0.2, 3, d)) @ np.linalg.qr(cloud(d, d, 9))[0] + 4
    drawn, queries = gaussian_null(points, 4000, 0)
    assert drawn.shape == (n, d)
    size = np.trace(np.cov(points.T).reshape(d, d))
    assert np.abs(np.cov(queries.T) - np.cov(points.T)).max() < 0.1 * size
    assert np.linalg.norm(queries.mean(axis=0) - points.mean(axis=0)) ** 2 < 10 * size / 4000
    assert np.linalg.matrix_rank(drawn - drawn.mean(axis=0), tol=1e-3) == min(n - 1, d)
    again = gaussian_null(points, 4000, 0)
    assert (again[0] == drawn).all()
    assert (gaussian_null(points, 4000, 1)[0] != drawn).any()


def test_on_a_line_the_null_lies_outside_as_often_as_known():
    """The largest or the smallest of n + 1 draws is the last one with probability 2 / (n + 1), whatever their law."""
    n, repeats = 9, 400
    outside = 0
    for seed in range(repeats):
        points, queries = gaussian_null(cloud(n, 1, seed), 5, seed)
        outside += ((queries < points.min()) | (queries > points.max())).sum()
    assert outside / (5 * repeats) == pytest.approx(2 / (n + 1), abs=0.035)


def test_inside_and_outside_are_affine():
    """So the fraction outside of the null depends on the number of points and the rank of their covariance alone."""
    generator = np.random.default_rng(0)
    points, queries, change = cloud(60, 4), cloud(40, 4, 2), generator.standard_normal((4, 4)) + 2 * np.eye(4)
    first, changed = locate(points, queries), locate(points @ change + 3, queries @ change + 3)
    assert {OUTSIDE, INSIDE} == set(first.status)
    assert first.status.tolist() == changed.status.tolist()


def test_a_rank_deficient_null_stays_in_its_subspace():
    points = cloud(300, 2) @ cloud(2, 20, 5)
    null, queries = gaussian_null(points, 50, 0)
    assert (locate(null, queries).status == INSIDE).mean() > 0.8  # 2 dimensions: rounding to float32 is not taken for outside


@pytest.mark.parametrize("block_bytes", [2**27, 1])
def test_crossings_are_where_the_decision_changes(block_bytes, monkeypatch):
    """Bands of width 1 along the first axis: a segment of length L crosses at every whole number."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    starts, ends = np.array([[0.25, 0], [0.25, 0], [0.5, 1], [3.9, 0]]), np.array([[3.5, 9], [0.75, 2], [0.5, 1], [0.1, 0]])
    found = crossings(lambda x: np.floor(x[:, 0]).astype(int), starts, ends)
    expected = [[(k - 0.25) / 3.25 for k in (1, 2, 3)], [], [], [(3.9 - k) / 3.8 for k in (3, 2, 1)]]
    assert [len(places) for places in found] == [3, 0, 0, 3]
    for places, truth in zip(found, expected, strict=True):
        np.testing.assert_allclose(places, truth, atol=1 / (module.NUM_STEPS * 2**module.NUM_HALVINGS))
