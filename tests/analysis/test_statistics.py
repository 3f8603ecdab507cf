"""scipy as oracle, and the rates that a test must keep."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import (
    bootstrap_spearman,
    holm,
    percentiles,
    permutation_p,
    permutations,
    resamples,
    spearman,
    spearman_within,
)


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_equals_scipy(ties):
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 30))
    if ties:
        x, y = np.round(x), np.round(2 * y)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    orders = permutations(30, 5, generator)
    expected = [stats.spearmanr(x, y[order]).statistic for order in orders]
    assert np.allclose(spearman(x, y, orders), expected, atol=1e-12)


def test_spearman_of_a_constant_is_nan():
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))
    assert np.isnan(permutation_p(float("nan"), np.zeros(9)))


def test_permutations_are_permutations_and_differ():
    orders = permutations(20, 50, np.random.default_rng(0))
    assert np.all(np.sort(orders, axis=1) == np.arange(20))
    assert len(np.unique(orders, axis=0)) == 50


def test_permutation_p_counts_both_signs_and_itself():
    assert permutation_p(0.5, np.array([0.6, -0.7, 0.1, -0.5])) == pytest.approx(4 / 5)
    assert permutation_p(-0.5, np.array([0.6, -0.7, 0.1, -0.5])) == pytest.approx(4 / 5)
    assert permutation_p(0.9, np.zeros(9)) == pytest.approx(0.1)


def test_false_positive_rate_of_the_permutation_p_is_nominal():
    generator = np.random.default_rng(1)
    orders = permutations(15, 199, generator)
    p = []
    for _ in range(1000):
        x, y = generator.standard_normal((2, 15))
        p.append(permutation_p(float(spearman(x, y)), spearman(x, y, orders)))
    assert 0.03 < np.mean(np.array(p) <= 0.05) < 0.07
    assert 0.45 < np.mean(np.array(p) <= 0.5) < 0.55


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_bootstrap_equals_ranking_each_resample(digits):
    generator = np.random.default_rng(2)
    x, y = np.round(generator.standard_normal((2, 12)), digits)
    counts = resamples(12, 200, generator)
    assert np.all(counts.sum(axis=1) == 12)
    drawn = [np.repeat(np.arange(12), count) for count in counts]
    expected = np.array([stats.spearmanr(x[i], y[i]).statistic for i in drawn])
    assert np.allclose(bootstrap_spearman(x, y, counts), expected, atol=1e-10)
    assert percentiles(expected) == pytest.approx(np.quantile(expected, [0.025, 0.975]))


def test_bootstrap_interval_covers_the_correlation():
    """Spearman of a bivariate normal is 6 / pi asin(r / 2)."""
    generator = np.random.default_rng(3)
    r, covered = 0.6, []
    for _ in range(200):
        x = generator.standard_normal(60)
        y = r * x + np.sqrt(1 - r**2) * generator.standard_normal(60)
        low, high = percentiles(bootstrap_spearman(x, y, resamples(60, 300, generator)))
        covered.append(low <= 6 / np.pi * np.arcsin(r / 2) <= high)
    assert 0.88 < np.mean(covered) <= 1.0


def test_bootstrap_leaves_constant_resamples_out():
    x = np.arange(3.0)
    found = bootstrap_spearman(x, x, np.array([[3, 0, 0], [1, 1, 1]]))
    assert found == pytest.approx([np.nan, 1], nan_ok=True)
    assert percentiles(found) == (pytest.approx(1), pytest.approx(1))
    assert np.isnan(percentiles(found[:1])).all()


def test_holm():
    assert np.allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    adjusted = holm(np.array([0.5, np.nan, 0.9]))
    assert np.allclose(adjusted[[0, 2]], [1.0, 1.0])
    assert np.isnan(adjusted[1])


def test_spearman_within_one_stratum_is_spearman():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 30))
    rho, p = spearman_within(x, y, ["a"] * 30, 999, generator)
    assert rho == pytest.approx(float(spearman(x, y)))
    assert 0 < p <= 1


def test_what_sets_strata_apart_neither_makes_nor_hides_an_association():
    """Two clouds on a rising line, falling inside: +0.5 and more over all, -1 within."""
    inside = np.arange(20.0)
    x, y = np.concatenate([inside, inside + 100]), np.concatenate([-inside, 100 - inside])
    strata = ["low"] * 20 + ["high"] * 20
    rho, p = spearman_within(x, y, strata, 999, np.random.default_rng(0))
    assert float(spearman(x, y)) > 0.4
    assert rho == pytest.approx(-1.0)
    assert p == pytest.approx(1 / 1000)
    assert np.isnan(spearman_within(np.ones(40), y, strata, 9, np.random.default_rng(0))[0])


def test_spearman_within_holds_its_level():
    """Null within strata that differ much: about 5 % of 300 p values lie below 0.05."""
    generator = np.random.default_rng(1)
    strata = np.repeat(["a", "b", "c"], 12)
    offset = np.repeat([0.0, 5.0, 9.0], 12)
    found = [
        spearman_within(generator.normal(size=36) + offset, generator.normal(size=36) + offset, strata, 199, generator)[1]
        for _ in range(300)
    ]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.08
