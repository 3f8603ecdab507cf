"""Learning order against statistics: the paper's curve and its masking, rank correlations with their p and interval."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from analysis.measures import order
from analysis.measures.agreement import agreed_set, agreement, learning_epochs
from analysis.measures.order import agreed_mean, agreed_share, associations, median_epoch, order_correlations
from analysis.statistics import permutation_p, permutations, spearman, spearman_within


def learning(num_replicas: int = 3, num_epochs: int = 12, num_samples: int = 200, noise: float = 1.0, seed: int = 0):
    """Networks that learn examples in the order of their difficulty, late ones never; predictions, labels, difficulty."""
    generator = np.random.default_rng(seed)
    difficulty = generator.random(num_samples)
    labels = generator.integers(0, 4, num_samples)
    learned = num_epochs * 1.2 * difficulty + noise * generator.standard_normal((num_replicas, num_samples))
    right = np.arange(num_epochs)[None, :, None] >= learned[:, None, :]
    return np.where(right, labels, (labels + 1) % 4), labels, difficulty


def test_mean_over_the_agreed_set_equals_loops():
    predicted, labels, difficulty = learning()
    difficulty[:20] = np.nan
    found = agreed_mean(agreed_set(predicted, labels), agreement(predicted, labels).tpa, np.arange(12), difficulty)
    for epoch in range(12):
        values = [d for i, d in enumerate(difficulty) if not np.isnan(d) and all(row[epoch, i] == labels[i] for row in predicted)]
        assert found.mean[epoch] == pytest.approx(np.mean(values) if values else np.nan, nan_ok=True)
        assert found.num_agreed[epoch] == len(values)
    assert found.mean_all == pytest.approx(np.nanmean(difficulty))
    assert (np.diff(found.mean[np.isfinite(found.mean)]) > -0.02).all()  # easy examples first


def test_standard_error_is_that_of_random_sets_of_this_size():
    generator = np.random.default_rng(0)
    statistic = generator.exponential(size=60)
    agreed = np.arange(60)[None, :] < np.array([5, 30, 60, 0])[:, None]
    found = agreed_mean(agreed, np.ones(4), np.arange(4), statistic)
    for size, error in zip([5, 30], found.standard_error[:2], strict=True):
        means = [generator.choice(statistic, size, replace=False).mean() for _ in range(20_000)]
        assert error == pytest.approx(np.std(means), rel=0.03)
    assert found.standard_error[2] == pytest.approx(0, abs=1e-12)  # all samples: nothing is left to chance
    assert np.isnan([found.mean[3], found.standard_error[3]]).all()


def test_masking_is_that_of_the_papers_figures():
    agreed = np.ones((8, 10), dtype=bool)
    tpa = np.array([0.9, 0.9, 0.9, 0.19, 0.2, 0.5, 0.1, np.nan])
    epochs = np.array([0, 5, 6, 7, 8, 9, 10, 11])
    assert agreed_mean(agreed, tpa, epochs, np.arange(10.0)).shown.tolist() == [False, False, True, False, True, True, False, False]
    # Where agreement is nowhere above the threshold nothing is shown, not even where it is at it.
    assert not agreed_mean(agreed, np.full(8, 0.2), epochs, np.arange(10.0)).shown.any()


def test_share_of_each_category():
    categories = np.array(["b", "a", "b", "a", "b"])
    agreed = np.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]], dtype=bool)
    values, share = agreed_share(agreed, categories)
    assert values.tolist() == ["a", "b"]
    assert share == pytest.approx(np.array([[0, 1 / 3], [1 / 2, 2 / 3]]))


def test_association_equals_scipy_with_infinities_last():
    predicted, labels, difficulty = learning(noise=3.0)
    learned = median_epoch(learning_epochs(predicted, labels, np.arange(12)))
    assert np.isinf(learned).any()
    found = associations(learned, {"difficulty": difficulty}, labels, np.random.default_rng(0))["difficulty"]
    assert found.rho == pytest.approx(scipy.stats.spearmanr(np.minimum(learned, 99), difficulty)[0])
    assert found.low < found.rho < found.high
    assert found.p == found.p_holm == found.p_within == 1 / 1000
    assert (found.num_samples, found.num_dropped, found.num_never) == (200, 0, np.isinf(learned).sum())


def test_drawing_in_portions_changes_nothing_but_the_draws(monkeypatch):
    """One portion is the plain procedure of the statistics; many portions of it give as many draws."""
    x, y = np.random.default_rng(2).standard_normal((2, 30))
    y += 0.3 * x
    classes = np.arange(30) % 3
    whole = associations(x, {"y": y}, classes, np.random.default_rng(3))["y"]
    assert whole.p == permutation_p(whole.rho, spearman(y, x, permutations(30, 999, np.random.default_rng(3))))  # x permuted
    monkeypatch.setattr(order, "DRAWN_AT_ONCE", 30 * 70)
    parts = associations(x, {"y": y}, classes, np.random.default_rng(3))["y"]
    assert (parts.rho, parts.rho_within) == (whole.rho, whole.rho_within)
    for name in ("p", "p_within"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), abs=0.05), name
        assert getattr(parts, name) * 1000 == pytest.approx(round(getattr(parts, name) * 1000))  # of 999 draws in all
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.1)


def test_several_statistics_are_as_each_alone():
    """Draws are shared by those that know the same samples; rho within classes is that of the statistics."""
    x, y, z = np.random.default_rng(5).standard_normal((3, 40))
    z[3] = np.nan
    classes = np.arange(40) % 3
    found = associations(x, {"y": x + y, "z": z, "one": np.ones(40)}, classes, np.random.default_rng(6), 99, 99)
    assert found["y"].rho == pytest.approx(scipy.stats.spearmanr(x, x + y)[0])
    assert found["y"].rho_within == pytest.approx(spearman_within(x, x + y, classes, 9, np.random.default_rng(0))[0])
    known = ~np.isnan(z)
    assert found["z"].rho == pytest.approx(scipy.stats.spearmanr(x[known], z[known])[0])
    assert found["z"].rho_within == pytest.approx(spearman_within(x[known], z[known], classes[known], 9, np.random.default_rng(0))[0])
    assert [found[name].num_dropped for name in ("y", "z", "one")] == [0, 1, 0]
    assert np.isnan(found["one"].p)
    assert list(found) == ["y", "z", "one"]


def test_p_is_uniform_without_association():
    generator = np.random.default_rng(4)
    classes = np.arange(25) % 2
    found = [associations(*_pair(generator), classes, generator, 99, 0)["y"] for _ in range(400)]
    for name in ("p", "p_within"):
        values = np.array([getattr(a, name) for a in found])
        assert np.mean(values <= 0.05) == pytest.approx(0.05, abs=0.035), name
        assert values.min() >= 1 / 100, name


def _pair(generator: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return generator.standard_normal(25), {"y": generator.standard_normal(25)}


def test_within_classes_what_only_sets_classes_apart_is_gone():
    generator = np.random.default_rng(5)
    classes = np.arange(300) % 3
    learned, statistic = (5 * classes + generator.standard_normal(300) for _ in range(2))
    found = associations(learned, {"statistic": statistic}, classes, generator)["statistic"]
    assert found.rho > 0.7
    assert found.p == 1 / 1000
    assert abs(found.rho_within) < 0.15
    assert found.p_within > 0.01


def test_several_statistics_are_corrected_together():
    generator = np.random.default_rng(6)
    learned = generator.standard_normal(100)
    others = {"same": learned, "none": generator.standard_normal(100), "constant": np.ones(100)}
    found = associations(learned, others, np.zeros(100), generator)
    assert found["same"].p_holm == pytest.approx(2 * found["same"].p)  # two tests: the constant is none
    assert np.isnan([found["constant"].rho, found["constant"].p, found["constant"].p_holm, found["constant"].low]).all()
    assert np.isnan(found["same"].rho_within) == 0


@pytest.mark.parametrize("learned", [np.full(20, np.inf), np.r_[np.full(16, np.nan), 1.0, 2, 3, 4], np.empty(0)])
def test_without_an_order_there_is_no_value(learned):
    found = associations(learned, {"y": np.arange(float(len(learned)))}, np.zeros(len(learned)), np.random.default_rng(0))["y"]
    assert np.isnan([found.rho, found.p, found.p_holm, found.low, found.high, found.rho_within]).all()
    assert found.num_samples + found.num_dropped == len(learned)


def test_median_epoch_is_an_epoch():
    inf = np.inf
    learned = np.array([[1.0, 2, inf, 5], [3, 2, inf, inf], [np.nan] * 4, [9, inf, inf, 7], [2, 1, 0, inf]])
    assert median_epoch(learned).tolist() == [2, 2, inf, 7]
    assert np.isnan(median_epoch(learned[2:3])).all()


def test_order_correlations_equal_scipy():
    generator = np.random.default_rng(7)
    a, b = generator.integers(0, 6, (3, 50)).astype(float), generator.integers(0, 6, (4, 50)).astype(float)
    a[0, :5], b[2, 0], b[3] = np.inf, np.nan, 1.0
    found = order_correlations(a, b)
    for i in range(3):
        for j in range(2):
            assert found[i, j] == pytest.approx(scipy.stats.spearmanr(np.minimum(a[i], 99), b[j])[0])
    assert np.isnan(found[:, 2:]).all()
    assert np.diagonal(order_correlations(a, a)) == pytest.approx(1)
    with pytest.raises(ValueError, match="of 50 and of 49 samples"):
        order_correlations(a, b[:, 1:])


def test_a_swap_that_keeps_the_order_and_one_that_reverses_it():
    predicted, labels, _ = learning(num_replicas=4, noise=0.5)
    kept = learning_epochs(predicted, labels, np.arange(12))
    assert np.diagonal(order_correlations(kept, kept + 12)) == pytest.approx(1)
    assert (order_correlations(kept, -kept) < -0.9).all()
