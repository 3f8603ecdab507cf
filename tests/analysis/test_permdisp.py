"""Golden values of PERMDISP, scikit-bio as oracle, and the rates that a test must keep."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from skbio import DistanceMatrix
from skbio.stats.distance import permdisp as skbio_permdisp

from analysis.permdisp import permdisp
from analysis.statistics import permutations

GOLDEN = np.array([
    [0, 0.5, 0.75, 1, 0.66, 0.33], [0.5, 0, 0.25, 0.33, 0.77, 0.61], [0.75, 0.25, 0, 0.1, 0.44, 0.55],
    [1, 0.33, 0.1, 0, 0.75, 0.88], [0.66, 0.77, 0.44, 0.75, 0, 0.77], [0.33, 0.61, 0.55, 0.88, 0.77, 0],
])  # fmt: skip


def points(seed: int, scales: tuple[float, ...] = (1.0, 1.0, 1.0), size: int = 9, dimensions: int = 4) -> np.ndarray:
    generator = np.random.default_rng(seed)
    X = np.concatenate([s * generator.standard_normal((size, dimensions)) + generator.standard_normal(dimensions) for s in scales])
    return np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1))


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


def rate(scales: tuple[float, ...], sizes: tuple[int, ...], shift: float, num: int = 200, **options: object) -> float:
    """Share of data sets with p <= 0.05: groups of points of these scales and sizes, so far apart."""
    generator = np.random.default_rng(11)
    groups = np.repeat(np.arange(len(sizes)).astype(str), sizes)
    found = []
    for _ in range(num):
        X = np.concatenate([s * generator.standard_normal((n, 30)) + shift * i for i, (s, n) in enumerate(zip(scales, sizes, strict=True))])
        D = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1))
        found.append(permdisp(D, groups, "centroid", 99, generator, euclidean=True, **options).p <= 0.05)
    return float(np.mean(found))


def test_residuals_of_unequal_groups_need_the_bias_adjustment():
    """A group of 5 looks less dispersed than one of 25 that is as dispersed."""
    assert rate((1, 1), (5, 25), 0.0, permute="residuals", bias_adjust=True) <= 0.09
    assert rate((1, 1), (5, 25), 0.0, permute="residuals") > 0.12


def test_residuals_keep_their_power_where_groups_lie_apart():
    adjusted = {"permute": "residuals", "bias_adjust": True}
    near, far = (rate((1, 1, 1.15), (8, 8, 8), shift, 100, **adjusted) for shift in (0.0, 20.0))
    assert far >= near - 0.05


def test_residual_permutation_equals_recomputing_each_anova():
    from scipy.stats import f_oneway

    D, codes = points(4, (1.0, 1.4, 0.8)), np.repeat([0, 1, 2], 9)
    found = permdisp(D, codes, "centroid", 60, np.random.default_rng(5), permute="residuals")
    plain = permdisp(D, codes, "centroid", 0, np.random.default_rng(5))
    assert found.f == pytest.approx(plain.f)
    assert np.allclose(found.z, plain.z)
    residuals = plain.z - np.array(plain.dispersions)[codes]
    drawn = [residuals[order] for order in permutations(27, 60, np.random.default_rng(5))]
    f = np.array([f_oneway(*(values[codes == code] for code in range(3))).statistic for values in drawn])
    assert found.p == pytest.approx((1 + np.sum(f >= found.f)) / 61)


def test_bias_adjustment_multiplies_by_the_group_size():
    D, groups = points(2)[:20, :20], list("aaaaabbbbbbbbbbbbbbb")
    plain, adjusted = (permdisp(D, groups, "centroid", 0, np.random.default_rng(0), bias_adjust=flag) for flag in (False, True))
    assert np.array(adjusted.dispersions) / plain.dispersions == pytest.approx([np.sqrt(5 / 4), np.sqrt(15 / 14)])
