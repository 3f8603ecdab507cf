"""Scores of predictors beside slow references and values of mbe-eval 0.5.0."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import kendalltau

from analysis.measures.prediction import granulated_kendall, normalized_cmi, sign_error


def grid(num_axes: int = 3, num_values: int = 3) -> np.ndarray:
    return np.array(list(product(range(num_values), repeat=num_axes)))


def numbers(settings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A score and a gap that anybody can rebuild: whole numbers modulo primes, so that nothing ties but by accident."""
    run = np.arange(len(settings))
    return (run * 37 % 101).astype(float), (run * 53 % 97 + 20 * settings[:, 0]).astype(float)


def test_granulated_kendall_equals_the_loop():
    settings = grid()
    score, gap = numbers(settings)
    overall, by_axis = granulated_kendall(score, gap, settings)
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        taus = []
        for values in product(range(3), repeat=2):
            cell = (settings[:, others] == values).all(axis=1)
            taus.append(kendalltau(score[cell], gap[cell]).statistic)
        assert by_axis[axis] == pytest.approx(np.mean(taus))
    assert overall == pytest.approx(by_axis.mean())


GOLDEN = {"psi": 0.012345679012345684, "cmi": 0.008030469040989668}


def test_values_of_mbe_eval():
    settings = grid()
    score, gap = numbers(settings)
    assert granulated_kendall(score, gap, settings)[0] == pytest.approx(GOLDEN["psi"], rel=1e-12)
    assert normalized_cmi(score, gap, settings) == pytest.approx(GOLDEN["cmi"], rel=1e-10)


def test_cmi_of_the_gap_itself_is_one_and_of_noise_small():
    settings = grid()
    generator = np.random.default_rng(0)
    gap = generator.standard_normal(27)
    assert normalized_cmi(gap, gap, settings) == pytest.approx(1.0)
    assert normalized_cmi(-gap, gap, settings) == pytest.approx(1.0)
    assert normalized_cmi(generator.standard_normal(27), gap, settings) < 0.2


def test_a_score_that_an_axis_explains_has_no_information_given_that_axis():
    """Score and gap follow the first axis alone: given its values, the order of scores says nothing more."""
    settings = grid()
    generator = np.random.default_rng(1)
    score = settings[:, 0] + 0.01 * generator.standard_normal(27)
    gap = settings[:, 0] + 0.5 * generator.standard_normal(27)
    assert normalized_cmi(score, gap, settings, 0) > 0.1
    assert normalized_cmi(score, gap, settings) < normalized_cmi(score, gap, settings, 0) / 3


def test_sign_error_equals_the_loop():
    settings = grid()
    score, gap = numbers(settings)
    gap = gap / gap.max()
    found = sign_error(score, gap, settings, 30)
    losses: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for i, j in combinations(range(27), 2):
        differ = np.flatnonzero(settings[i] != settings[j])
        if len(differ) == 1:
            axis = int(differ[0])
            weight = max(0, max(0, 1 - 2 * np.exp(-60 * ((gap[i] - gap[j]) / 2) ** 2)) ** 2 - 0.5)
            loss = (1 - np.sign(score[i] - score[j]) * np.sign(gap[i] - gap[j])) / 2
            losses.setdefault((axis, *sorted((settings[i, axis], settings[j, axis]))), []).append((weight, loss))
    means = [sum(w * v for w, v in rows) / sum(w for w, _ in rows) for rows in losses.values() if sum(w for w, _ in rows) > 0]
    assert found.num_environments == len(means)
    assert (found.mean, found.worst) == (pytest.approx(np.mean(means)), pytest.approx(max(means)))
    assert sign_error(gap, gap, settings).worst == 0
    assert sign_error(-gap, gap, settings).mean == 1


def test_an_axis_without_pairs_is_left_out():
    settings = np.array([[0, 0], [1, 1], [0, 1]])
    overall, by_axis = granulated_kendall(np.arange(3.0), np.arange(3.0)[::-1], settings)
    assert (overall, list(by_axis)) == (-1.0, [-1.0, -1.0])
    apart = np.array([[0, 0], [1, 1], [2, 2]])
    assert np.isnan(granulated_kendall(np.arange(3.0), np.arange(3.0), apart)[0])
    assert sign_error(np.arange(3.0), np.arange(3.0), apart).num_environments == 0
