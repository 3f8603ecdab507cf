"""Theorems that the measures must satisfy, by the properties they state, and a slow textbook form of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.measures.similarity import MEASURES, CKADistance, Measure, ProcrustesDistance

ALL = list(MEASURES.values())
SHAPES = [(20, 5), (12, 12), (8, 30)]  # more samples than features, as many, fewer


def pair(num_samples: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((num_samples, width)), generator.standard_normal((num_samples, width))


def rotation(width: int, generator: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(generator.standard_normal((width, width)))[0]


def distance(measure: Measure, X: np.ndarray, Y: np.ndarray) -> float:
    return float(measure.distances([X, Y])[0, 1])


def cka_textbook(X: np.ndarray, Y: np.ndarray) -> float:
    """Kornblith et al. 2019 by its definition: HSIC of centred Gram matrices, H K H with H = I - 11^T / n."""
    n = len(X)
    H = np.eye(n) - np.ones((n, n)) / n
    K, L = H @ X @ X.T @ H, H @ Y @ Y.T @ H
    return float(np.sqrt(max(2 - 2 * np.sum(K * L) / np.sqrt(np.sum(K * K) * np.sum(L * L)), 0)))


def procrustes_textbook(X: np.ndarray, Y: np.ndarray) -> float:
    """The residual after the best rotation, found explicitly (Schoenemann 1966), narrower matrices padded with
    zeros."""
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    width = max(X.shape[1], Y.shape[1])
    X, Y = (np.pad(Z / np.linalg.norm(Z), ((0, 0), (0, width - Z.shape[1]))) for Z in (X, Y))
    U, _, Vt = np.linalg.svd(Y.T @ X)
    return float(np.linalg.norm(X - Y @ (U @ Vt)))


TEXTBOOK = {"cka": cka_textbook, "procrustes": procrustes_textbook}


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize(("width_x", "width_y"), [(5, 5), (3, 9), (40, 7), (1, 4)])
def test_fast_equals_textbook(measure, width_x, width_y):
    generator = np.random.default_rng(3)
    X, Y = generator.standard_normal((15, width_x)) + 2, generator.standard_normal((15, width_y)) - 1
    Y[:, 0] += X[:, 0]
    assert distance(measure, X, Y) == pytest.approx(TEXTBOOK[measure.name](X, Y), abs=1e-10)


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_flag(measure, shape):
    X, Y = pair(*shape)
    rotated = X @ rotation(shape[1], np.random.default_rng(1))
    same = abs(distance(measure, rotated, Y) - distance(measure, X, Y)) < 1e-9 and distance(measure, X, rotated) < 1e-6
    assert same == measure.orthogonal


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("scale", [1e-6, 0.1, 1e6])
def test_isotropic_scaling_flag(measure, scale):
    X, Y = pair(20, 5)
    same = abs(distance(measure, scale * X, Y) - distance(measure, X, Y)) < 1e-9
    assert same == measure.isotropic_scaling


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("constant", [1.0, 10.0, 1000.0])
def test_translation_flag(measure, constant):
    X, Y = pair(20, 5)
    moved = X + constant * np.arange(1, 6)
    same = abs(distance(measure, moved, Y) - distance(measure, X, Y)) < 1e-6
    assert same == measure.translation


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
def test_invertible_linear_flag(measure):
    X, _ = pair(40, 5)
    stretched = X @ np.diag([1.0, 3.0, 0.2, 5.0, 1.0])
    assert (distance(measure, X, stretched) < 1e-6) == measure.invertible_linear


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
def test_symmetric_flag(measure):
    D = measure.distances(list(pair(20, 5)) + list(pair(20, 7, seed=1)))
    assert np.allclose(D, D.T, atol=1e-12) == measure.symmetric


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
def test_larger_is_closer_flag(measure):
    X, Y = pair(50, 5)
    near, far = distance(measure, X, X + 0.01 * Y), distance(measure, X, Y)
    assert (near > far) == measure.larger_is_closer


@pytest.mark.parametrize("measure", [m for m in ALL if m.metric], ids=lambda m: m.name)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num_samples=st.integers(3, 12), widths=st.tuples(*[st.integers(1, 8)] * 3))
def test_triangle_inequality(measure, seed, num_samples, widths):
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((num_samples, 8))
    D = measure.distances([shared[:, :w] + generator.standard_normal((num_samples, w)) for w in widths])
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        assert D[i, j] <= D[i, k] + D[k, j] + 1e-9


def test_half_the_square_of_cka_is_no_metric():
    """1 - CKA, which is not offered, breaks the inequality: single features at angles 0, 22.5 and 45 degrees."""
    x, y = np.eye(8)[:, :1] - np.eye(8)[:, 1:2], np.eye(8)[:, 2:3] - np.eye(8)[:, 3:4]
    D = CKADistance().distances([np.cos(a) * x + np.sin(a) * y for a in np.radians([0, 22.5, 45])]) ** 2 / 2
    assert D[0, 2] > D[0, 1] + D[1, 2] + 0.1


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
def test_euclidean_flag(measure):
    """A Euclidean distance leaves no negative eigenvalue in the double-centred squared distances."""
    smallest = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        squares = measure.distances(generator.standard_normal((12, 4, 2))) ** 2
        J = np.eye(12) - 1 / 12
        smallest.append(np.linalg.eigvalsh(-J @ squares @ J / 2)[0])
    assert (min(smallest) > -1e-12) == measure.euclidean


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_equal_representations_have_distance_zero(measure, shape):
    X, _ = pair(*shape)
    D = measure.distances([X, X.copy(), 3 * X])
    assert np.all(np.diagonal(D) == 0)
    assert D.max() < 1e-7


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
def test_unrelated_representations_are_far(measure):
    X, Y = pair(400, 4)
    assert distance(measure, X, Y) > 0.9


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("mean", [10.0, 1000.0])
def test_features_far_from_zero_keep_their_distance(measure, mean):
    """A Gram matrix of uncentred float32 features has lost it."""
    X, Y = pair(100, 16)
    expected = distance(measure, X, Y)
    assert distance(measure, X + mean, Y + mean) == pytest.approx(expected, abs=1e-6)
    as_float32 = distance(measure, (X + mean).astype(np.float32), (Y + mean).astype(np.float32))
    assert as_float32 == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_collapsed_representation_is_nan(measure, value):
    X, Y = pair(20, 5)
    collapsed = np.full((20, 5), value, np.float32)
    D = measure.distances([X, collapsed, Y])
    assert np.isnan(D[1]).all()
    assert np.isnan(D[:, 1]).all()
    assert D[0, 2] == pytest.approx(distance(measure, X, Y), abs=1e-12)


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
def test_one_varying_feature_is_not_collapsed(measure):
    X, Y = pair(20, 5)
    X[:, 1:] = 1e5
    assert np.isfinite(distance(measure, X, Y))


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_give_nan(measure, bad):
    X, Y = pair(20, 5)
    broken = X.copy()
    broken[3, 2] = bad
    D = measure.distances([broken, X, Y])
    assert np.isnan(D[0]).all()
    assert np.isfinite(D[1:, 1:]).all()
    assert np.isnan(measure.distances([broken, broken])).all()


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
def test_refusals(measure):
    with pytest.raises(ValueError, match="at least 2 samples"):
        measure.prepare(np.ones((1, 4)))
    with pytest.raises(ValueError, match="matrix"):
        measure.prepare(np.ones(4))
    X, Y = pair(20, 5)
    with pytest.raises(ValueError, match="numbers of samples"):
        measure.distances([X, Y[:-1]])


@pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
def test_order_of_networks_only_permutes(measure):
    generator = np.random.default_rng(5)
    X = [generator.standard_normal((15, w)) for w in (3, 6, 20, 4)]
    D = measure.distances(X)
    order = [2, 0, 3, 1]
    assert np.allclose(measure.distances([X[i] for i in order]), D[np.ix_(order, order)], atol=1e-10)


def test_routes_of_cka_agree(monkeypatch):
    generator = np.random.default_rng(6)
    measure = CKADistance()
    factors = [measure.prepare(generator.standard_normal((30, w))) for w in (3, 40, 8)]
    by_features = measure._by_features(factors)
    assert np.allclose(measure._by_gram(factors), by_features, atol=1e-12)
    monkeypatch.setattr("analysis.measures.similarity.TILE_BYTES", 8 * 3 * 30 * 7)  # tiles of 7 rows
    assert np.allclose(measure._by_gram(factors), by_features, atol=1e-12)


def test_batches_of_procrustes_agree(monkeypatch):
    X = np.random.default_rng(7).standard_normal((9, 12, 4))
    expected = ProcrustesDistance().distances(X)
    monkeypatch.setattr("analysis.measures.similarity.NETWORKS_PER_BATCH", 2)
    assert np.allclose(ProcrustesDistance().distances(X), expected, atol=1e-12)
