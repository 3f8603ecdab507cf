"""Baselines for the gap: theorems, and a slow reference where a formula is computed fast."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import norm, ortho_group

from analysis.measures import baselines as measures

RNG = np.random.default_rng(0)


def test_a_perfectly_calibrated_network_has_no_calibration_error():
    """Correct with the probability that it states; an overconfident one errs by what it claims too much."""
    right = RNG.permutation(np.repeat([1.0, 0.0], [8000, 2000]))
    p = np.stack([np.full(10_000, 0.8), np.full(10_000, 0.2)], -1)
    labels = np.where(right > 0, 0, 1)
    assert measures.calibration_error(p, labels) == pytest.approx(0.0, abs=1e-12)
    sure = np.stack([np.full(10_000, 0.99), np.full(10_000, 0.01)], -1)
    assert measures.calibration_error(sure, labels) == pytest.approx(0.19)
    level = RNG.uniform(0.5, 1.0, 200_000)
    labels = (RNG.uniform(size=200_000) > level).astype(int)
    assert measures.calibration_error(np.stack([level, 1 - level], -1), labels) < 0.01


def test_calibration_error_by_a_loop_over_bins():
    p = RNG.dirichlet(np.ones(4), size=(3, 300))
    p[0, 0] = [1, 0, 0, 0]
    labels = RNG.integers(0, 4, 300)
    for replica, found in zip(p, measures.calibration_error(p, labels), strict=True):
        level, total = replica.max(-1), 0.0
        for b in range(15):
            inside = (level > b / 15) & (level <= (b + 1) / 15)
            if inside.any():
                total += inside.mean() * abs((replica.argmax(-1) == labels)[inside].mean() - level[inside].mean())
        assert found == pytest.approx(total)


def test_confidence_and_entropy_of_known_distributions():
    p = measures.probabilities(np.array([[[1000.0, 1000.0], [-1000.0, -1000.0]], [[1000.0, 0.0], [0.0, 1000.0]]]))
    np.testing.assert_allclose(measures.confidence(p), [0.5, 1.0])
    np.testing.assert_allclose(measures.entropy(p), [np.log(2), 0.0])


def test_margins():
    logits = np.array([[[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]])
    np.testing.assert_allclose(measures.margins(logits, np.array([0, 1])), [[1.0, -2.0]])


def test_disagreement_by_a_loop_over_pairs():
    predicted = RNG.integers(0, 3, (5, 40))
    slow = [np.mean([(predicted[i] != predicted[j]).mean() for j in range(5) if j != i]) for i in range(5)]
    np.testing.assert_allclose(measures.disagreement(predicted), slow)
    assert np.isnan(measures.disagreement(predicted[:1])).all()


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (520, 514)])
def test_spectral_norms_of_matrices_with_known_singular_values(shape):
    values = np.sort(RNG.uniform(0.5, 3.0, min(shape)))[::-1]
    u, v = (ortho_group.rvs(n, random_state=1) for n in shape)
    matrix = (u[:, : min(shape)] * values) @ v[: min(shape)]
    found = measures.spectral_norm(np.stack([matrix, -2 * matrix, np.zeros(shape)]))
    np.testing.assert_allclose(found, [values[0], 2 * values[0], 0.0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("num_samples", "num_features"), [(50, 8), (8, 50)])
def test_participation_ratio_is_the_number_of_equal_directions(num_samples, num_features):
    """Isotropic features have all dimensions, rank one has one; shift, scale and rotation change nothing."""
    num_directions = 5
    basis = np.linalg.qr(np.c_[np.ones(num_samples), RNG.normal(size=(num_samples, num_directions))])[0][:, 1:]  # centred
    rotation = ortho_group.rvs(num_features, random_state=2)[:num_directions]
    isotropic, rank_one = basis @ rotation, basis[:, :1] @ rotation[:1]
    np.testing.assert_allclose(measures.participation_ratio(np.stack([isotropic, rank_one])), [num_directions, 1.0])
    np.testing.assert_allclose(measures.participation_ratio(1e-30 * isotropic + 3e-29), num_directions)
    assert np.isnan(measures.participation_ratio(np.ones((num_samples, num_features))))


def separability(features, labels):
    return measures.cdnv(features, labels), measures.davies_bouldin(features, labels)


def test_separability_by_a_loop_over_classes():
    features, labels = RNG.normal(size=(2, 60, 5)) + 3, RNG.integers(0, 3, 60)
    for replica, fast_cdnv, fast_index in zip(features, *separability(features, labels), strict=True):
        groups = [replica[labels == c] for c in range(3)]
        means = np.stack([g.mean(0) for g in groups])
        between = cdist(means, means)
        variance = [np.square(g - m).sum(1).mean() for g, m in zip(groups, means, strict=True)]
        spread = [np.linalg.norm(g - m, axis=1).mean() for g, m in zip(groups, means, strict=True)]
        pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
        assert fast_cdnv == pytest.approx(np.mean([(variance[a] + variance[b]) / 2 / between[a, b] ** 2 for a, b in pairs]))
        worst = [max((spread[a] + spread[b]) / between[a, b] for b in range(3) if b != a) for a in range(3)]
        assert fast_index == pytest.approx(np.mean(worst))


def test_separability_does_not_see_shift_scale_rotation_or_names_of_classes():
    features, labels = RNG.normal(size=(60, 5)), RNG.integers(0, 3, 60)
    plain = separability(features, labels)
    moved = 7 * features @ ortho_group.rvs(5, random_state=3) + 4
    np.testing.assert_allclose(separability(moved, 10 - labels), plain)
    assert separability(features + 10 * labels[:, None], labels)[0] < plain[0] / 10
    assert np.isnan(separability(features, np.zeros(60, int))).all()


def test_the_scale_of_a_drop_is_found_where_it_is_known():
    """Accuracy 1 - Phi(log2 scale - centre): it has fallen by 0.1 where the normal's quantile says, each replica at its own scale."""
    centres = np.array([-2.0, -1.0, 5.0, -20.0])
    found = measures.scale_at_drop(lambda _, scale: 1 - norm.cdf(np.log2(scale) - centres), np.ones(4), 0.1, 2**-6, 2.0, 8)
    np.testing.assert_allclose(np.log2(found[:2]), norm.ppf(0.1) + centres[:2], atol=1e-3)
    assert np.isnan(found[2:]).all()  # falls beyond the largest scale, or below the smallest


def test_noise_in_the_accuracy_does_not_bias_the_scale():
    rng, centres = np.random.default_rng(1), np.full(2000, -1.0)

    def noisy(_, scale):
        return 1 - norm.cdf(np.log2(scale) - centres) + 0.02 * rng.normal(size=2000)

    found = np.log2(measures.scale_at_drop(noisy, np.ones(2000), 0.1, 2**-6, 2.0, 5))
    assert np.nanmean(found) == pytest.approx(norm.ppf(0.1) - 1, abs=0.05)
