"""Spread of a family: its identities, its standard error, and what is dropped; gaps per family."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.measures.dispersion import spread
from analysis.measures.generalization import PREDICTORS, gaps
from analysis.measures.similarity import MEASURES
from analysis.metrics import REPRESENTATIONS
from analysis.permdisp import permdisp


def family(seed: int = 0, num_networks: int = 7, noise: float = 0.5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((20, 6)) + noise * generator.standard_normal((num_networks, 20, 6))


def test_spread_of_cka_is_one_minus_mean_cka():
    X = family()
    X = X - X.mean(axis=1, keepdims=True)
    grams = X @ X.transpose(0, 2, 1)
    flat = grams.reshape(len(X), -1) / np.linalg.norm(grams, axis=(1, 2))[:, None]
    cka = (flat @ flat.T)[np.triu_indices(len(X), 1)]
    assert spread(MEASURES["cka"].distances(X)).spread == pytest.approx(1 - cka.mean(), abs=1e-12)


@pytest.mark.parametrize("num_networks", [2, 3, 8])
def test_spread_is_the_bias_adjusted_dispersion_of_permdisp(num_networks):
    """m / (m - 1) times the mean squared distance to the centroid, whatever the Euclidean distance."""
    D = MEASURES["cka"].distances(np.concatenate([family(1, num_networks), family(2, num_networks)]))
    groups = ["a"] * num_networks + ["b"] * num_networks
    z = permdisp(D, groups, "centroid", 0, np.random.default_rng(0)).z[:num_networks]
    adjusted = num_networks / (num_networks - 1) * np.mean(z**2)
    assert spread(D[:num_networks, :num_networks]).spread == pytest.approx(adjusted, abs=1e-12)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_more_noise_is_more_spread(name):
    values = [spread(MEASURES[name].distances(family(0, 6, noise))).spread for noise in (0.1, 0.5, 2.0)]
    assert np.all(np.diff(values) > 0.01)


def test_standard_error_is_the_jackknife_by_deletion():
    D = MEASURES["procrustes"].distances(family())
    m = len(D)
    left_out = [spread(np.delete(np.delete(D, i, 0), i, 1)).spread for i in range(m)]
    expected = np.sqrt((m - 1) / m * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert spread(D).spread_se == pytest.approx(expected, rel=1e-10)


def test_mean_distance_is_over_pairs():
    D = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 4.0], [2.0, 4.0, 0.0]])
    found = spread(D)
    assert found.mean_distance == pytest.approx(7 / 3)
    assert found.spread == pytest.approx((1 + 4 + 16) / 6)


def test_networks_without_representation_are_dropped_and_counted():
    X = family()
    broken = X.copy()
    broken[2], broken[4] = np.nan, 1.0
    found = spread(MEASURES["cka"].distances(broken))
    expected = spread(MEASURES["cka"].distances(np.delete(X, [2, 4], axis=0)))
    assert (found.num_replicas, found.num_dropped) == (5, 2)
    assert found.spread == pytest.approx(expected.spread, abs=1e-12)


@pytest.mark.parametrize(("num_networks", "finite"), [(0, False), (1, False), (2, True)])
def test_few_networks(num_networks, finite):
    found = spread(MEASURES["cka"].distances(family(num_networks=num_networks)))
    assert np.isfinite(found.spread) == finite
    assert np.isnan(found.spread_se)
    assert found.num_replicas == num_networks


def replicas(**columns: list[object]) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    defaults = {"gap_accuracy": 0.1, "gap_cross_entropy": 0.5, "test_accuracy": 0.8, "diverged_at": None}
    for name, value in defaults.items():
        if name not in table:
            table[name] = value
    return table


def test_gaps_are_means_over_replicas_with_their_standard_error():
    found = gaps(replicas(trial=["tb", "tb", "tb", "ta"], gap_accuracy=[0.1, 0.2, 0.6, 0.4])).set_index("trial")
    assert found.loc["tb", "gap_accuracy"] == pytest.approx(0.3)
    assert found.loc["tb", "gap_accuracy_se"] == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3))
    assert found.loc["tb", "test_error"] == pytest.approx(0.2)
    assert np.isnan(found.loc["ta", "gap_accuracy_se"])
    assert list(found.index) == ["ta", "tb"]


def test_gaps_leave_diverged_replicas_out_and_count_them():
    table = replicas(trial=["ta"] * 3 + ["tb"] * 2, gap_accuracy=[0.1, 0.3, 9.0, 9.0, 9.0], diverged_at=[None, None, 4, 1, 2])
    found = gaps(table).set_index("trial")
    assert found.loc["ta", "gap_accuracy"] == pytest.approx(0.2)
    assert found.loc["ta", "gap_accuracy_num_replicas"] == 2
    assert found["num_diverged"].tolist() == [1, 2]
    assert found["num_replicas"].tolist() == [3, 2]
    assert found.loc["tb", list(PREDICTORS)].isna().all()


def test_gaps_ignore_values_that_are_not_finite():
    found = gaps(replicas(trial=["ta"] * 3, gap_cross_entropy=[1.0, np.inf, np.nan])).set_index("trial")
    assert found.loc["ta", "gap_cross_entropy"] == 1.0
    assert found.loc["ta", "gap_cross_entropy_num_replicas"] == 1
