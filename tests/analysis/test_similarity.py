"""Theorems that every measure must satisfy, by the properties that it states; where it denies one, an example that breaks it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analysis.measures import products
from analysis.measures.cka import CKADistance
from analysis.measures.device import Accelerator
from analysis.measures.features import centred
from analysis.measures.neighbours import nearest
from analysis.measures.similarity import DEFAULT_MEASURES, MEASURES, Measure, expand, properties_markdown

ALL = list(MEASURES.values())
REPRESENTATIONS = [m for m in ALL if m.kind == "representation"]
each = pytest.mark.parametrize("measure", ALL, ids=lambda m: m.name)
each_representation = pytest.mark.parametrize("measure", REPRESENTATIONS, ids=lambda m: m.name)
SHAPES = [(20, 5), (14, 14), (13, 30)]  # more samples than features, as many, fewer


def pair(num_samples: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((num_samples, width)), generator.standard_normal((num_samples, width))


def rotation(width: int, generator: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(generator.standard_normal((width, width)))[0]


def labels(num_samples: int) -> np.ndarray:
    return np.arange(num_samples) % 3


def distances(measure: Measure, networks) -> np.ndarray:
    """Logits where the measure takes logits: the arrays are whatever has a row per sample."""
    return measure.distances(networks, labels(len(networks[0])))


def distance(measure: Measure, X: np.ndarray, Y: np.ndarray) -> float:
    return float(distances(measure, [X, Y])[0, 1])


def widths(measure: Measure, *wanted: int) -> list[int]:
    """As wanted, or all as the first where features are classes."""
    return [wanted[0]] * len(wanted) if measure.kind == "functional" else list(wanted)


def skip_without_room(measure: Measure, num_samples: int, width: int) -> None:
    if measure.needs_more_samples_than_features and num_samples <= width + 1:
        pytest.skip("not defined there: see test_canonical_correlations_need_more_samples_than_features")


@each
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_flag(measure, shape):
    skip_without_room(measure, *shape)
    X, Y = pair(*shape)
    rotated = X @ rotation(shape[1], np.random.default_rng(1))
    same = abs(distance(measure, rotated, Y) - distance(measure, X, Y)) < 1e-9 and distance(measure, X, rotated) < 1e-6
    assert same == measure.orthogonal


@each
@pytest.mark.parametrize("scale", [1e-6, 0.1, 1e6])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_isotropic_scaling_flag(measure, scale, dtype):
    X, Y = (Z.astype(dtype) for Z in pair(20, 5))
    tolerance = 1e-9 if dtype == np.float64 else 2e-6
    same = abs(distance(measure, dtype(scale) * X, Y) - distance(measure, X, Y)) < tolerance
    assert same == measure.isotropic_scaling


@each
@pytest.mark.parametrize("constant", [1.0, 10.0, 1000.0])
def test_translation_flag(measure, constant):
    X, Y = pair(20, 5)
    moved = X + constant * np.arange(1, 6)
    same = abs(distance(measure, moved, Y) - distance(measure, X, Y)) < 1e-6 and distance(measure, X, moved) < 1e-5
    assert same == measure.translation


@each
def test_invertible_linear_flag(measure):
    X, Y = pair(40, 5)
    mapped = X @ (np.diag([1.0, 3.0, 0.2, 5.0, 1.0]) + 0.1 * np.triu(np.ones((5, 5))))
    same = distance(measure, X, mapped) < 1e-6 and abs(distance(measure, mapped, Y) - distance(measure, X, Y)) < 1e-9
    assert same == measure.invertible_linear


@each
def test_symmetric_flag(measure):
    five, seven = widths(measure, 5, 7)
    D = distances(measure, [*pair(20, five), *pair(20, seven, seed=1)])
    assert np.isfinite(D).all()
    assert np.allclose(D, D.T, atol=1e-12) == measure.symmetric


@each
def test_larger_is_closer_flag(measure):
    X, Y = pair(50, 5)
    near, far = distance(measure, X, X + 0.01 * Y), distance(measure, X, Y)
    assert (near > far) == measure.larger_is_closer


@each
def test_needs_equal_samples_flag(measure):
    X, Y = pair(20, 5)
    factors = [measure.prepare(X, labels(20)), measure.prepare(Y[:-1], labels(19))]
    assert measure.needs_equal_samples
    with pytest.raises(ValueError, match="numbers of samples"):
        measure.pairwise(factors)


@pytest.mark.parametrize("measure", [m for m in ALL if m.metric], ids=lambda m: m.name)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num_samples=st.integers(12, 20), size=st.tuples(*[st.integers(3, 8)] * 3))
def test_triangle_inequality(measure, seed, num_samples, size):
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((num_samples, 8))
    D = distances(measure, [shared[:, :w] + generator.standard_normal((num_samples, w)) for w in widths(measure, *size)])
    assume(np.isfinite(D).all())
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        assert D[i, j] <= D[i, k] + D[k, j] + 1e-9


def nested() -> list[np.ndarray]:
    """Two unrelated networks and, between them, one that contains both."""
    X, Y = pair(60, 3)
    return [X, np.hstack([X, Y]), Y]


NOT_METRIC = {"cca_mean": nested, "cca_r2": nested, "svcca": nested, "pwcca": nested}


@pytest.mark.parametrize("name", [m.name for m in ALL if not m.metric])
def test_triangle_inequality_fails_where_no_metric_is_claimed(name):
    D = distances(MEASURES[name], NOT_METRIC[name]())
    assert D[0, 2] > D[0, 1] + D[1, 2] + 0.01


def test_half_the_square_of_cka_is_no_metric():
    """1 - CKA, which is not offered, breaks the inequality: single features at angles 0, 22.5 and 45 degrees."""
    x, y = np.eye(8)[:, :1] - np.eye(8)[:, 1:2], np.eye(8)[:, 2:3] - np.eye(8)[:, 3:4]
    D = CKADistance().distances([np.cos(a) * x + np.sin(a) * y for a in np.radians([0, 22.5, 45])]) ** 2 / 2
    assert D[0, 2] > D[0, 1] + D[1, 2] + 0.1


@each
def test_euclidean_flag(measure):
    """A Euclidean distance leaves no negative eigenvalue in the double-centred squared distances."""
    smallest = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        shared = generator.standard_normal((14, 5))
        own = [generator.standard_normal((14, w)) for w in widths(measure, *[3, 4, 5] * 4)]
        mixed = [X if i % 2 else shared[:, : X.shape[1]] for i, X in enumerate(own)]
        small = list(generator.standard_normal((12, 4, 2)))
        for networks in (mixed, small):
            squares = distances(measure, networks) ** 2
            kept = np.isfinite(np.diagonal(squares))
            if kept.sum() > 3:
                squares = squares[np.ix_(kept, kept)]
                J = np.eye(len(squares)) - 1 / len(squares)
                smallest.append(np.linalg.eigvalsh(-J @ squares @ J / 2)[0])
    assert (min(smallest) > -1e-10) == measure.euclidean


@each
@pytest.mark.parametrize("shape", SHAPES)
def test_equal_networks_have_distance_zero(measure, shape):
    skip_without_room(measure, *shape)
    X, _ = pair(*shape)
    D = distances(measure, [X, X.copy()])
    assert np.array_equal(D, np.zeros((2, 2)))
    if measure.isotropic_scaling:
        assert distance(measure, X, 3 * X) < 2e-7  # similarity 1 to 1e-13


@each
def test_equal_networks_in_float32_have_distance_zero(measure):
    X, Y = (Z.astype(np.float32) for Z in pair(60, 6))
    D = distances(measure, [X, Y, X, Y, X + 0])
    for group in ([0, 2, 4], [1, 3]):
        assert np.array_equal(D[np.ix_(group, group)], np.zeros((len(group),) * 2))
    assert D[0, 1] > 0.1


@each
def test_unrelated_networks_are_far(measure):
    X, Y = pair(400, 4)
    assert distance(measure, X, Y) > 0.5


@pytest.mark.parametrize("name", ["cka_debiased", "dcor_debiased", "mutual_knn"])
def test_unrelated_networks_are_unlike_at_few_samples(name):
    """And biased CKA says 0.8 where there is nothing: 50 samples of 200 features."""
    found = [1 - distance(MEASURES[name], *pair(50, 200, seed)) ** 2 / 2 for seed in range(20)]
    expected = 10 / 49 if name == "mutual_knn" else 0.0
    assert np.mean(found) == pytest.approx(expected, abs=0.02)
    if name != "mutual_knn":
        assert min(found) < 0  # nothing is clipped
        assert max(distance(MEASURES[name], *pair(50, 200, seed)) for seed in range(20)) > np.sqrt(2)
    assert 1 - distance(MEASURES["cka"], *pair(50, 200)) ** 2 / 2 == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("measure", [m for m in REPRESENTATIONS if m.translation], ids=lambda m: m.name)
@pytest.mark.parametrize("mean", [10.0, 100.0, 1000.0])
def test_features_far_from_zero_keep_their_distance(measure, mean):
    """A Gram matrix of uncentred float32 features has lost it."""
    X, Y = pair(100, 16)
    expected = distance(measure, X, Y)
    assert distance(measure, X + mean, Y + mean) == pytest.approx(expected, abs=1e-6)
    as_float32 = distance(measure, (X + mean).astype(np.float32), (Y + mean).astype(np.float32))
    assert as_float32 == pytest.approx(expected, abs=1e-4)


@each_representation
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", ["plain", "far from zero", "rectified with dead features", "low rank", "few samples", "decaying"])
def test_float32_is_within_a_millionth_of_float64(measure, kind, dtype):
    generator = np.random.default_rng(4)
    n, width = (40, 60) if kind == "few samples" else (150, 40)
    skip_without_room(measure, n, width)
    shared = generator.standard_normal((n, width))
    networks = 0.5 * shared + generator.standard_normal((6, n, width))
    if kind == "far from zero":
        networks += 10
    elif kind == "rectified with dead features":
        networks = np.maximum(networks - np.linspace(0, 9, width), 0)
    elif kind == "low rank":
        networks = networks[:, :, :8] @ generator.standard_normal((6, 8, width))
    elif kind == "decaying":
        networks *= 0.8 ** np.arange(width)
    if kind == "low rank" and measure.name in {"cca_mean", "cca_r2", "pwcca"}:
        pytest.skip("to canonical correlations, what rounding adds to the rank is features")
    networks = networks.astype(dtype)
    exact = 1 - np.float64(distances(measure, networks.astype(np.float64))) ** 2 / 2
    found = 1 - distances(measure, networks) ** 2 / 2
    assert np.isfinite(exact).all()
    assert np.abs(found - exact).max() < 1e-6


@each_representation
@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_collapsed_representation_is_nan(measure, value):
    X, Y = pair(20, 5)
    collapsed = np.full((20, 5), value, np.float32)
    D = distances(measure, [X, collapsed, Y])
    assert np.isnan(D[1]).all()
    assert np.isnan(D[:, 1]).all()
    assert D[0, 2] == pytest.approx(distance(measure, X, Y), abs=1e-12)
    assert measure.reason(collapsed).startswith(f"{measure.name}: every ")
    assert measure.reason(X) == ""


@pytest.mark.parametrize("measure", [m for m in REPRESENTATIONS if m.translation], ids=lambda m: m.name)
def test_one_varying_feature_is_not_collapsed(measure):
    X, Y = pair(20, 5)
    expected = distance(measure, X[:, :1], Y)
    X[:, 1:] = 1e5
    assert distance(measure, X, Y) == pytest.approx(expected, abs=1e-7)


@each_representation
def test_a_constant_feature_changes_nothing(measure):
    X, Y = pair(30, 5)
    if measure.translation:
        beside = np.hstack([X, np.full((30, 1), 7.0)])
        assert distance(measure, beside, Y) == pytest.approx(distance(measure, X, Y), abs=1e-7)
    else:
        assert np.isfinite(distance(measure, np.hstack([X, np.zeros((30, 1))]), Y))


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_give_nan(measure, bad):
    X, Y = pair(20, 5)
    broken = X.copy()
    broken[3, 2] = bad
    D = distances(measure, [broken, X, Y])
    assert np.isnan(D[0]).all()
    assert np.isfinite(D[1:, 1:]).all()
    assert np.isnan(distances(measure, [broken, broken])).all()
    assert "not finite" in measure.reason(broken, labels(20))


@each
def test_networks_left_out_are_nan(measure):
    X = np.stack([*pair(20, 5), *pair(20, 5, seed=1)])
    D = measure.distances_of(X, np.array([True, False, True, True]), labels(20))
    assert np.isnan(D[1]).all()
    kept = [0, 2, 3]
    assert np.allclose(D[np.ix_(kept, kept)], distances(measure, X[kept]), atol=1e-9)


@pytest.mark.parametrize("name", ["cka_debiased", "dcor_debiased"])
def test_debiased_measures_need_four_samples(name):
    for num_samples in (2, 3):
        assert np.isnan(distances(MEASURES[name], pair(num_samples, 5))).all()
        assert "needs 4" in MEASURES[name].reason(pair(num_samples, 5)[0]) + "needs 4" * (name == "dcor_debiased")
    assert np.isfinite(distances(MEASURES[name], pair(4, 5))).all()


@pytest.mark.parametrize("name", ["cka_debiased", "dcor_debiased"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_single_sample_apart_leaves_debiased_measures_nothing(name, dtype):
    """U-centring takes away what depends on a row or a column alone. Rounding must not pass for a similarity."""
    X, Y = (Z.astype(dtype) for Z in pair(30, 5))
    apart = np.zeros((30, 5), dtype)
    apart[4] = X[4]
    D = distances(MEASURES[name], [X, apart, Y])
    assert np.isnan(D[1]).all()
    assert np.isfinite(D[np.ix_([0, 2], [0, 2])]).all()


@pytest.mark.parametrize("measure", [m for m in ALL if m.needs_more_samples_than_features], ids=lambda m: m.name)
def test_canonical_correlations_need_more_samples_than_features(measure):
    """Else every network explains every other, and unrelated ones would be at distance 0."""
    X, Y = (rotation(12, np.random.default_rng(seed)) for seed in (0, 1))
    assert np.isnan(distances(measure, [X, Y])).all()
    assert "needs more samples" in measure.reason(X)
    assert np.isfinite(distances(measure, [X[:, :3] @ Y[:3], Y[:, :4]])).all()  # what counts is the rank


def test_neighbours_need_more_than_eleven_samples():
    assert np.isnan(distances(MEASURES["mutual_knn"], pair(11, 5))).all()
    assert "11 samples" in MEASURES["mutual_knn"].reason(pair(11, 5)[0])
    assert np.isfinite(distances(MEASURES["mutual_knn"], pair(12, 5))).all()


def test_a_network_without_errors_has_no_error_pattern():
    truth, measure = np.eye(3)[labels(12)], MEASURES["error_consistency"]
    X, Y = pair(12, 3)
    D = measure.distances([X, truth, Y, -truth], labels(12))
    assert np.isnan(D[[1, 3]]).all()
    assert np.isfinite(D[np.ix_([0, 2], [0, 2])]).all()
    assert "right on all 12" in measure.reason(truth, labels(12))


@each
def test_refusals(measure):
    with pytest.raises(ValueError, match="at least 2 samples"):
        measure.prepare(np.ones((1, 4)))
    with pytest.raises(ValueError, match="matrix"):
        measure.prepare(np.ones(4))
    if measure.needs_labels:
        with pytest.raises(ValueError, match=f"{measure.name} needs the class of each of the 20 samples, given is none"):
            measure.prepare(pair(20, 5)[0])
    if measure.kind == "functional":
        assert "at least 2 classes" in measure.reason(np.ones((20, 1)), labels(20))


@each
@pytest.mark.parametrize("num_copies", [2, 3])
def test_repeated_samples(measure, num_copies):
    """What weighs samples alike does not see that each stands there twice; the others stay defined."""
    X, Y = pair(30, 4)
    found = distance(measure, np.tile(X, (num_copies, 1)), np.tile(Y, (num_copies, 1)))
    if measure.name in {"rsa_pearson", "rsa_spearman", "rsa_cosine", "cka_debiased", "dcor_debiased", "mutual_knn"}:
        assert np.isfinite(found)
    else:
        assert found == pytest.approx(distance(measure, X, Y), abs=1e-9)


def test_copies_of_a_sample_are_its_neighbours():
    """No sample is its own neighbour, and the order of equally near ones does not depend on the network."""
    X, _ = pair(6, 4)
    many = np.repeat(X, 11, axis=0)
    turned = many @ rotation(4, np.random.default_rng(2))
    assert distance(MEASURES["mutual_knn"], many, turned) == 0
    assert distance(MEASURES["mutual_knn"], many.astype(np.float32), turned.astype(np.float32)) == 0


@each
def test_order_of_networks_only_permutes(measure):
    generator = np.random.default_rng(5)
    X = [generator.standard_normal((15, w)) for w in widths(measure, 3, 6, 10, 4)]
    D = distances(measure, X)
    order = [2, 0, 3, 1]
    assert np.allclose(distances(measure, [X[i] for i in order]), D[np.ix_(order, order)], atol=1e-9)


@each
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tiles_change_nothing(measure, dtype, monkeypatch):
    generator = np.random.default_rng(7)
    X = [generator.standard_normal((30, w)).astype(dtype) for w in widths(measure, 5, 3, 12, 4, 9, 7, 3)]
    expected = distances(measure, X)
    monkeypatch.setattr(products, "TILE_BYTES", 8 * 12 * 42 * 2)  # two or three networks, or a few rows, at a time
    monkeypatch.setattr(products, "SIGNATURE_BYTES", 2 * 3 * 435 * 8)
    monkeypatch.setattr(products, "MAX_TERMS", 50)
    monkeypatch.setattr("analysis.measures.functional.TILE_BYTES", 4 * 7 * 11)
    monkeypatch.setattr("analysis.measures.functional.JSD_BYTES", 8 * 30 * 5 * 2)
    assert np.allclose(distances(measure, X), expected, atol=1e-9 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("num_samples", [1, 2, 3, 8, 9, 30])
@pytest.mark.parametrize("tile_bytes", [1, 8 * 2 * 16, 2**20])
def test_gram_products_use_every_element_once(num_samples, tile_bytes, monkeypatch):
    """`finish` sees all of a triangle, whole tiles beside it, and nothing of the diagonal counts."""
    generator = np.random.default_rng(num_samples)
    factors = [generator.standard_normal((num_samples, w)) for w in (4, 7)]
    monkeypatch.setattr(products, "TILE_BYTES", tile_bytes)

    def shift(network: int, terms: np.ndarray) -> None:
        terms += network + 1

    K = np.stack([(X @ X.T + network + 1) * (1 - np.eye(num_samples)) for network, X in enumerate(factors)])
    assert np.allclose(products.gram_products(factors, shift), np.einsum("iab,jab->ij", K, K), atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 1, 4), (3, 6, 6), (2, 9, 4), (2, 4, 9)])
def test_singular_values_of_float32_are_those_of_float64(shape):
    M = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    M[0, :, -1] = M[0, :, 0]
    expected = np.linalg.svd(M.astype(np.float64), compute_uv=False)
    assert np.abs(np.sort(products.singular_values(M)) - np.sort(expected)).max() < 1e-7


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e25, 1e36])
def test_sizes_that_squares_do_not_hold(scale):
    """In float32 the squares of these are 0 or infinite."""
    X = (10 + pair(40, 5)[0]).astype(np.float32)
    assert np.allclose(centred(np.float32(scale) * X), centred(X.astype(np.float64)), atol=3e-6 if scale == 1e-38 else 1e-6)


@pytest.mark.parametrize("num_samples", [12, 40, 176, 360])
@pytest.mark.parametrize("kind", ["plain", "ties", "all but a few alike", "sorted"])
@pytest.mark.parametrize("tile_bytes", [products.TILE_BYTES, 4 * 360 * 7])
def test_nearest_are_those_of_a_sort(num_samples, kind, tile_bytes, monkeypatch):
    generator = np.random.default_rng(num_samples)
    monkeypatch.setattr(products, "TILE_BYTES", tile_bytes)
    X = generator.standard_normal((num_samples, 6)).astype(np.float32)
    if kind == "ties":
        X = np.round(X) * 0.25  # exact in float32, and so are distances
    elif kind == "all but a few alike":
        X[5:] = X[5]
    elif kind == "sorted":
        X = X[np.argsort(X[:, 0])]
    away = ((X[:, None].astype(np.float64) - X) ** 2).sum(axis=2)
    np.fill_diagonal(away, np.inf)
    expected = np.sort(np.argsort(away, axis=1, kind="stable")[:, :10], axis=1)
    assert np.array_equal(nearest(X, 10), expected)


def test_factors_of_one_shape_lie_together_and_are_those_of_prepare():
    measure, generator = CKADistance(), np.random.default_rng(3)
    networks = [generator.standard_normal((20, w)) for w in (5, 5, 9, 5)]
    prepared = measure.prepare_all([networks[0], None, *networks[1:]])
    assert prepared[1] is None
    kept = [factor for factor in prepared if factor is not None]
    assert all(np.array_equal(factor, measure.prepare(X)) for factor, X in zip(kept, networks, strict=True))
    assert kept[0].base is kept[1].base is kept[3].base


@each_representation
@pytest.mark.parametrize("kind", ["many features", "many samples", "copies"])
def test_an_accelerator_changes_nothing(measure, kind, monkeypatch):
    """torch on the CPU in the place of a GPU: the same code, of which every measure of representations makes use."""
    generator = np.random.default_rng(2)
    n, width = {"many features": (60, 30), "many samples": (300, 6), "copies": (44, 6)}[kind]
    X = generator.standard_normal((n, width)) + generator.standard_normal((4, n, width))
    X = np.repeat(X[:, :4], 11, axis=1) if kind == "copies" else X.astype(np.float32)
    expected = distances(measure, X)
    used = Counting("cpu")
    monkeypatch.setattr(products, "accelerator", used)
    monkeypatch.setattr(products, "TILE_BYTES", 4 * 4 * n * 17)
    assert np.abs(distances(measure, X) ** 2 / 2 - expected**2 / 2).max() < 1e-6
    assert used.num_puts > 0


class Counting(Accelerator):
    num_puts = 0

    def put(self, X):
        self.num_puts += 1
        return super().put(X)


def test_a_device_that_is_not_there_is_refused():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"device 'cuda:7' is not there: .*; allowed: cpu"), products.on("cuda:7"):
            pass
    with pytest.raises(ValueError, match="device 'cudaa' is not there"), products.on("cudaa"):
        pass
    with products.on("meta"):
        assert products.accelerator is not None
        with products.on("cpu"):
            assert products.accelerator is None
    assert products.accelerator is None


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 5])
def test_signatures_are_few_times_computed(num_blocks, monkeypatch):
    """Blocks of two networks: the second of a round is kept as the first of the next."""
    generator, computed = np.random.default_rng(8), []
    S = generator.standard_normal((2 * num_blocks, 9))
    monkeypatch.setattr(products, "SIGNATURE_BYTES", 2 * 2 * 9 * 8)
    found = products.signature_products(lambda network: (computed.append(network), S[network])[1], len(S))
    assert np.allclose(found, S @ S.T)
    assert len(computed) == 1 + 2 * (num_blocks * (num_blocks - 1) // 2 + 1)  # the first one alone tells the size


def test_routes_of_cka_agree():
    generator = np.random.default_rng(6)
    factors = [MEASURES["cka"].prepare(generator.standard_normal((30, w))) for w in (3, 40, 8)]
    diagonals = np.stack([(X**2).sum(axis=1) for X in factors])
    assert np.allclose(products.gram_products(factors) + diagonals @ diagonals.T, products.cross_products(factors), atol=1e-12)


def test_what_is_analysed_by_default():
    assert set(DEFAULT_MEASURES) <= set(MEASURES)
    assert DEFAULT_MEASURES[:2] == ("cka", "procrustes")
    assert expand(["all"]) == list(MEASURES)
    assert expand(["procrustes", "cka", "procrustes"]) == ["procrustes", "cka"]
    with pytest.raises(KeyError, match=r"unknown measure 'ckaa'; did you mean 'cka'\? allowed: cka, .*, or all"):
        expand(["cka", "ckaa"])


def test_documentation_states_the_properties():
    assert properties_markdown() in (Path(__file__).parents[2] / "docs" / "measures.md").read_text()


@each
def test_documentation_has_every_measure(measure):
    page = (Path(__file__).parents[2] / "docs" / "measures.md").read_text()
    assert page.count(f"| `{measure.name}` |") >= 2  # formula and properties
    assert measure.title
    assert measure.spread_title
    assert measure.source
    assert len(measure.__doc__ or "") > 60
