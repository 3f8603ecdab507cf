"""Golden values of PERMDISP, scipy and scikit-bio as oracles, and the rates that a test must keep."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from skbio import DistanceMatrix
from skbio.stats.distance import permdisp as skbio_permdisp

from analysis.statistics import (
    bootstrap_spearman,
    holm,
    permdisp,
    permutation_p,
    permutations,
    resamples,
    spearman,
    spearman_within,
)

GOLDEN = np.array([
    [0, 0.5, 0.75, 1, 0.66, 0.33], [0.5, 0, 0.25, 0.33, 0.77, 0.61], [0.75, 0.25, 0, 0.1, 0.44, 0.55],
    [1, 0.33, 0.1, 0, 0.75, 0.88], [0.66, 0.77, 0.44, 0.75, 0, 0.77], [0.33, 0.61, 0.55, 0.88, 0.77, 0],
])  # fmt: skip


def points(seed: int, scales: tuple[float, ...] = (1.0, 1.0, 1.0), size: int = 9, dimensions: int = 4) -> np.ndarray:
    generator = np.random.default_rng(seed)
    X = np.concatenate([s * generator.standard_normal((size, dimensions)) + generator.standard_normal(dimensions) for s in scales])
    return np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1))


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


def test_bootstrap_equals_ranking_each_resample():
    generator = np.random.default_rng(2)
    x, y = np.round(generator.standard_normal((2, 12)), 1)
    counts = resamples(12, 200, generator)
    assert np.all(counts.sum(axis=1) == 12)
    drawn = [np.repeat(np.arange(12), count) for count in counts]
    expected = np.quantile([stats.spearmanr(x[i], y[i]).statistic for i in drawn], [0.025, 0.975])
    assert np.allclose(bootstrap_spearman(x, y, counts), expected, atol=1e-10)


def test_bootstrap_interval_covers_the_correlation():
    """Spearman of a bivariate normal is 6 / pi asin(r / 2)."""
    generator = np.random.default_rng(3)
    r, covered = 0.6, []
    for _ in range(200):
        x = generator.standard_normal(60)
        y = r * x + np.sqrt(1 - r**2) * generator.standard_normal(60)
        low, high = bootstrap_spearman(x, y, resamples(60, 300, generator))
        covered.append(low <= 6 / np.pi * np.arcsin(r / 2) <= high)
    assert 0.88 < np.mean(covered) <= 1.0


def test_bootstrap_leaves_constant_resamples_out():
    x = np.arange(3.0)
    low, high = bootstrap_spearman(x, x, np.array([[3, 0, 0], [1, 1, 1]]))
    assert (low, high) == (pytest.approx(1), pytest.approx(1))
    assert np.isnan(bootstrap_spearman(x, x, np.array([[3, 0, 0]]))).all()


def test_holm():
    assert np.allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    adjusted = holm(np.array([0.5, np.nan, 0.9]))
    assert np.allclose(adjusted[[0, 2]], [1.0, 1.0])
    assert np.isnan(adjusted[1])


@pytest.mark.parametrize(
    ("center", "f", "means"),
    [("median", 1.03296, (0.34328, 0.47145)), ("centroid", 3.670816, (0.35329, 0.47269))],
)
def test_permdisp_golden(center, f, means):
    """scikit-bio's documented matrix, whose distances are not Euclidean."""
    found = permdisp(GOLDEN, list("aaabbb"), center, 99, np.random.default_rng(0))
    assert found.f == pytest.approx(f, abs=5e-6)
    assert found.dispersions == pytest.approx(means, abs=1e-5)
    assert found.groups == ("a", "b")
    assert found.sizes == (3, 3)
    assert found.negative_share > 0.1


@pytest.mark.parametrize("center", ["median", "centroid"])
@pytest.mark.parametrize("power", [1.0, 1.7])  # the second is not Euclidean
@pytest.mark.parametrize("seed", range(4))
def test_permdisp_equals_scikit_bio(center, power, seed):
    D = points(seed, (1.0, 1.3, 0.8)) ** power
    groups = np.repeat(["a", "b", "c"], 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the axes that it drops
        expected = skbio_permdisp(DistanceMatrix(D), groups, test=center, permutations=999, dimensions=len(D), seed=seed)
    found = permdisp(D, groups, center, 999, np.random.default_rng(seed))
    assert found.f == pytest.approx(expected["test statistic"], rel=1e-5)
    assert found.p == pytest.approx(expected["p-value"], abs=0.06)
    assert (found.negative_share > 0.01) == (power > 1)


@pytest.mark.parametrize("center", ["median", "centroid"])
def test_permuted_statistics_equal_recomputing_each_labelling(center):
    """One product over all permutations gives what separate calls give."""
    D, groups = points(3), np.repeat(["a", "b", "c"], 9)
    generator = np.random.default_rng(7)
    found = permdisp(D, groups, center, 40, generator)
    orders = permutations(27, 40, np.random.default_rng(7))
    separate = [permdisp(D, groups[order], center, 0, generator).f for order in orders]
    assert found.p == pytest.approx((1 + np.sum(np.array(separate) >= found.f)) / 41)


def test_the_median_minimises_the_sum_of_distances():
    found = {c: permdisp(points(5), np.repeat(["a", "b", "c"], 9), c, 0, np.random.default_rng(0)) for c in ("median", "centroid")}
    for group in range(3):
        z = {c: found[c].z[9 * group : 9 * group + 9] for c in found}
        assert z["median"].sum() < z["centroid"].sum()
        assert (z["centroid"] ** 2).sum() < (z["median"] ** 2).sum()


def test_the_median_may_lie_on_a_point():
    line = np.array([0.0, 1.0, 1.0, 1.0, 5.0, 2.0, 4.0, 9.0])
    D = np.abs(line[:, None] - line[None])
    found = permdisp(D, list("aaaaabbb"), "median", 0, np.random.default_rng(0))
    assert np.allclose(found.z, [1, 0, 0, 0, 4, 2, 0, 5], atol=1e-5)


def test_units_move_together():
    """Replicas of a family are copies here: permuting networks finds a difference that permuting families does not."""
    generator = np.random.default_rng(8)
    p_networks, p_units = [], []
    units, groups = np.repeat(np.arange(10), 6), np.repeat(["a", "b"], 30)
    for _ in range(60):
        X = np.repeat(generator.standard_normal((10, 3)), 6, axis=0) + 0.01 * generator.standard_normal((60, 3))
        D = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1))
        p_networks.append(permdisp(D, groups, "centroid", 99, generator).p)
        p_units.append(permdisp(D, groups, "centroid", 99, generator, units).p)
    assert np.mean(np.array(p_units) <= 0.05) <= 0.15
    assert np.mean(np.array(p_networks) <= 0.05) > 0.3


def test_permdisp_finds_a_difference_and_keeps_its_rate():
    assert permdisp(points(1, (1.0, 3.0), 20), np.repeat(["a", "b"], 20), "median", 199, np.random.default_rng(0)).p < 0.02
    generator = np.random.default_rng(2)
    groups = np.repeat(["a", "b"], 20)
    null = [permdisp(points(100 + i, (1.0, 1.0), 20), groups, "centroid", 99, generator).p for i in range(150)]
    assert np.mean(np.array(null) <= 0.05) < 0.12


def test_permdisp_is_deterministic_and_refuses_nonsense():
    groups = np.repeat(["a", "b", "c"], 9)
    first, second = (permdisp(points(0), groups, "median", 50, np.random.default_rng(3)) for _ in range(2))
    assert first.p == second.p
    with pytest.raises(ValueError, match="finite"):
        permdisp(np.full((4, 4), np.nan), list("aabb"), "median", 9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="2 groups"):
        permdisp(GOLDEN, ["a"] * 6, "median", 9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="more networks"):
        permdisp(GOLDEN, list("abcdef"), "median", 9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="two groups"):
        permdisp(GOLDEN, list("aaabbb"), "median", 9, np.random.default_rng(0), units=[0, 0, 1, 1, 2, 2])


def test_permdisp_of_equal_networks_has_no_p():
    found = permdisp(np.zeros((6, 6)), list("aaabbb"), "median", 9, np.random.default_rng(0))
    assert np.isnan(found.f)
    assert np.isnan(found.p)


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
