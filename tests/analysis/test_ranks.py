"""The restricted test beside slow references, and the bootstrap beside the draw that it stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.bootstrap import Levels, Resampling, interval
from analysis.exchange import Aligner, below, design
from analysis.ranks import aligned_ranks, associate, kendall_within, permuted_ranks, studentized
from analysis.statistics import permutations


def test_in_one_block_without_functions_it_is_spearman():
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 20))
    align = Aligner(np.zeros(20, dtype=int), [])
    assert aligned_ranks(x, align) @ aligned_ranks(y, align) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_partial_correlation_given_a_covariate_is_that_of_residuals():
    generator = np.random.default_rng(1)
    x, y, z = generator.standard_normal((3, 30))
    align = Aligner(np.zeros(30, dtype=int), [z])
    slope = [np.polyfit(z, v, 1) for v in (x, y)]
    left = [stats.rankdata(v - np.polyval(s, z)) for v, s in zip((x, y), slope, strict=True)]
    again = [r - np.polyval(np.polyfit(z, r, 1), z) for r in left]
    assert aligned_ranks(x, align) @ aligned_ranks(y, align) == pytest.approx(np.corrcoef(*again)[0, 1])


def test_associate_equals_one_permutation_at_a_time(tree):
    plan = design(tree(num_controls=3))
    generator = np.random.default_rng(2)
    x, y = generator.standard_normal((3, plan.num_items)), generator.standard_normal(plan.num_items)
    align, orders = plan.aligner(), plan.orders(80, generator)
    x_ranks, y_ranks = aligned_ranks(x, align), aligned_ranks(y, align)
    found = associate(x_ranks, y_ranks, permuted_ranks(y_ranks, align, orders), plan.lines, 0.05)

    def t(values: np.ndarray, layer: int) -> float:
        values = values / np.linalg.norm(values)
        lines = [np.flatnonzero(plan.lines == line) for line in np.unique(plan.lines)]
        parts = [sum(x_ranks[layer, i] * values[i] for i in line) for line in lines]
        fitted = [sum(parts) * abs(sum(parts)) * sum(x_ranks[layer, i] ** 2 for i in line) for line in lines]
        return sum(parts) / np.sqrt(sum((part - fit) ** 2 for part, fit in zip(parts, fitted, strict=True)))

    null = np.abs([[t(align(y_ranks[order]), layer) for layer in range(3)] for order in orders])
    for layer in range(3):
        observed = abs(t(y_ranks, layer))
        assert found.p[layer] == pytest.approx((1 + np.sum(null[:, layer] >= observed - 1e-12)) / 81)
        assert found.p_adjusted[layer] == pytest.approx((1 + np.sum(null.max(axis=1) >= observed - 1e-12)) / 81)
        assert found.rho[layer] == pytest.approx(x_ranks[layer] @ y_ranks)
        best = max(observed, null[:, layer].max())
        largest = np.append(null.max(axis=1), max(abs(t(y_ranks, other)) for other in range(3)))
        assert found.p_least[layer] == pytest.approx(np.mean(largest >= best - 1e-12))


@pytest.mark.parametrize("num_controls", [5, 6, 8])
def test_a_perfect_order_of_few_controls_is_found(tree, num_controls):
    """Every family its own control: x and y rank the controls alike, which only one order in n! does, and its reverse."""
    plan = design(tree(num_controls=num_controls, lines=("tanh",), epochs=(2,)))
    orders, align = plan.orders(999, np.random.default_rng(0)), plan.aligner()
    x = aligned_ranks(np.arange(num_controls, dtype=float) ** 3, align)
    found = associate(x[None], x, permuted_ranks(x, align, orders), plan.lines, 0.05)
    few = num_controls < 7
    expected = 2 / math.factorial(num_controls) if few else 1 / 1000
    assert found.p[0] == pytest.approx(expected, rel=1e-9 if few else 1)
    assert found.p_least[0] == found.p[0]
    assert found.detectable[0] <= 1


def test_where_few_controls_cannot_decide_it_is_said(tree):
    """With five controls and four unrelated layers, one of them is ordered perfectly by more than one order in twenty."""
    plan = design(tree(num_controls=5, lines=("tanh",), epochs=(2,)))
    orders, align = plan.orders(999, np.random.default_rng(0)), plan.aligner()
    layers = np.array([[0, 1, 2, 3, 4], [2, 0, 4, 1, 3], [1, 4, 0, 3, 2], [3, 4, 1, 0, 2]])
    x = aligned_ranks(layers.astype(float), align)
    found = associate(x, x[0], permuted_ranks(x[0], align, orders), plan.lines, 0.05)
    assert found.p == pytest.approx([2 / 120, *found.p[1:].tolist()])
    assert found.p_adjusted[0] == pytest.approx(8 / 120)
    assert found.p_least == pytest.approx(np.full(4, 8 / 120))
    assert np.isinf(found.detectable).all()
    assert below(found.p_least[0], plan, 4) == "120 exchanges, 4 layers: p cannot be below 0.067"


def test_a_layer_without_numbers_is_no_test(tree):
    plan = design(tree(num_controls=3))
    generator = np.random.default_rng(3)
    x, y = generator.standard_normal((2, plan.num_items)), generator.standard_normal(plan.num_items)
    align, orders = plan.aligner(), plan.orders(99, generator)
    y_ranks = aligned_ranks(y, align)
    null = permuted_ranks(y_ranks, align, orders)
    x_ranks = np.vstack([aligned_ranks(x[:1], align), np.full((1, plan.num_items), np.nan)])
    both, one = (associate(rows, y_ranks, null, plan.lines, 0.05) for rows in (x_ranks, x_ranks[:1]))
    assert both.p_adjusted[0] == one.p_adjusted[0]
    assert np.isnan(both.p_adjusted[1])
    assert np.isnan(aligned_ranks(plan.blocks * 3.0, align)).all()


def test_kendall_within_one_block_is_tau_b_and_permutes():
    generator = np.random.default_rng(4)
    x, y = np.round(generator.standard_normal((2, 15)), 1)
    blocks = np.zeros(15, dtype=int)
    assert kendall_within(x, y, blocks) == pytest.approx(stats.kendalltau(x, y).statistic)
    orders = permutations(15, 4, generator)
    assert kendall_within(x, y, blocks, orders) == pytest.approx([stats.kendalltau(x, y[order]).statistic for order in orders])


def test_studentizing_keeps_the_level_where_precision_differs():
    """Two of twelve lines are ten times as noisy in both numbers: without it, the noisy lines decide."""
    generator = np.random.default_rng(5)
    lines = np.arange(12)
    scale = np.where(lines < 2, 10.0, 1.0)
    plain, kept = [], []
    for _ in range(400):
        x, y = scale * generator.standard_normal((2, 12))
        null = y[permutations(12, 99, generator)]
        for found, statistic in ((plain, lambda v, x=x: v @ x), (kept, lambda v, x=x: studentized(x[None], v, lines)[..., 0])):
            found.append((1 + np.sum(np.abs(statistic(null)) >= abs(statistic(y)))) / 100 <= 0.05)
    assert np.mean(plain) > 0.12
    assert np.mean(kept) < np.mean(plain) / 2


def test_drawn_replicas_drop_pairs_of_a_replica_with_itself():
    generator = np.random.default_rng(6)
    D = generator.random((3, 5, 5))
    D = D + D.transpose(0, 2, 1)
    first, second = np.triu_indices(5, 1)
    level = Levels(np.zeros(3), D[:, first, second])
    counts = generator.multinomial(5, np.full(5, 0.2), size=8).astype(float)
    found = level.drawn(np.array([2, 0]), counts)
    for draw, count in enumerate(counts):
        picked = np.repeat(np.arange(5), count.astype(int))
        pairs = [(i, j) for a, i in enumerate(picked) for j in picked[a + 1 :] if i != j]
        assert found[draw] == pytest.approx([np.mean([D[f, i, j] for i, j in pairs]) for f in (2, 0)])
    values = Levels(np.zeros(3), generator.random((3, 5)))
    assert values.drawn(np.array([1]), counts)[:, 0] == pytest.approx(counts @ values.parts[1] / 5)


def test_a_resample_of_every_control_once_is_the_sample(tree):
    """Draw each control, line and replica once: the ranks are those of the data."""
    plan = design(tree(num_controls=3))

    class Once:
        def integers(self, high, size):
            return np.broadcast_to(np.arange(high), size)

        def multinomial(self, n, shares, size):
            return np.ones((size, len(shares)), dtype=int)

    generator = np.random.default_rng(7)
    resampling = Resampling(plan, 4, 2, Once())  # type: ignore[arg-type]
    pairs = generator.random((plan.members.shape[1], 6))
    found = resampling.ranks(Levels(pairs.mean(axis=1), pairs))
    expected = aligned_ranks(plan.items(pairs.mean(axis=1)), plan.aligner())
    assert np.allclose(found, expected)


def test_the_interval_covers(tree):
    """Half of each family's spread is its gap: the interval holds the correlation of a large sample about as often as it says."""
    generator = np.random.default_rng(8)

    def draw(table):
        plan = design(table)
        y = generator.standard_normal(len(table))
        return plan, 0.5 * y + generator.standard_normal(len(table)), y

    plan, x, y = draw(tree(num_controls=60))
    truth = aligned_ranks(plan.items(x), plan.aligner()) @ aligned_ranks(plan.items(y), plan.aligner())
    covered = []
    for _ in range(60):
        plan, x, y = draw(tree(num_controls=6))
        rho = aligned_ranks(plan.items(x), plan.aligner()) @ aligned_ranks(plan.items(y), plan.aligner())
        resampling = Resampling(plan, 1, 200, generator)
        low, high = interval(rho, (resampling.ranks(Levels(x)) * resampling.ranks(Levels(y))).sum(axis=1), 0.95, plan.counts["num_lines"])
        covered.append(low <= truth <= high)
    assert np.mean(covered) >= 0.85
