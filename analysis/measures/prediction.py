"""How well a score predicts the gap over runs of a grid of hyper-parameters: the scores of PGDL and of Dziugaite et al. Arrays in.

`settings [run, axis]` are codes: runs with the same code on an axis have the same value there. All take one product over signs of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np


def pairs_along(settings: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of runs (first, second) that differ in this axis alone, and the code `[pair]` of what they have in common."""
    _, cells = np.unique(np.delete(settings, axis, axis=1), axis=0, return_inverse=True)
    first, second = np.triu_indices(len(cells), 1)
    along = (cells[first] == cells[second]) & (settings[first, axis] != settings[second, axis])
    return first[along], second[along], cells[first[along]]


def granulated_kendall(score: np.ndarray, gap: np.ndarray, settings: np.ndarray) -> tuple[float, np.ndarray]:
    """Jiang et al. 2020: Psi and psi `[axis]` of score with gap `[run]`.

    psi of an axis is the mean, over the settings of all other axes, of Kendall's tau within the runs that differ in this axis alone; Psi is
    the mean of psi over axes. tau is the mean sign of products of differences over all pairs, so that a tie counts 0. NaN for an axis along
    which no two runs lie.
    """
    found = np.full(settings.shape[1], np.nan)
    for axis in range(settings.shape[1]):
        first, second, cell = pairs_along(settings, axis)
        if len(first):
            agree = np.sign(score[first] - score[second]) * np.sign(gap[first] - gap[second])
            sums, sizes = np.bincount(cell, weights=agree), np.bincount(cell)
            found[axis] = np.mean(sums[sizes > 0] / sizes[sizes > 0])
    return (float(np.nanmean(found)) if np.isfinite(found).any() else np.nan), found


def normalized_cmi(score: np.ndarray, gap: np.ndarray, settings: np.ndarray, max_conditions: int = 2) -> float:
    """Jiang et al. 2020: min over sets S of at most two axes of I(V_score; V_gap | U_S) / H(V_gap | U_S), in [0, 1].

    V are the orders (larger or not) of ordered pairs of runs, U_S the values of both runs on the axes of S. 0 is no information, whatever
    the sign of the association. NaN where the gap's order follows from every S.
    """
    first, second = np.nonzero(~np.eye(len(score), dtype=bool))
    joint = 2 * (score[first] > score[second]) + (gap[first] > gap[second])
    ratios = []
    for size in range(max_conditions + 1):
        for chosen in combinations(range(settings.shape[1]), size):
            _, codes = np.unique(settings[:, list(chosen)], axis=0, return_inverse=True)
            condition = codes[first] * (codes.max() + 1) + codes[second]
            table = np.bincount(4 * condition + joint, minlength=4 * (condition.max() + 1)).reshape(-1, 2, 2) / len(joint)
            target = _entropy(table.sum(axis=1)) - _entropy(table.sum(axis=(1, 2)))
            if target > 1e-15:
                information = _entropy(table.sum(axis=2)) + _entropy(table.sum(axis=1)) - _entropy(table) - _entropy(table.sum(axis=(1, 2)))
                ratios.append(information / target)
    return float(max(min(ratios), 0.0)) if ratios else np.nan


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


@dataclass(frozen=True)
class SignError:
    """Robust sign error over environments: 0 always right, 0.5 a coin, 1 always wrong."""

    mean: float
    quantile: float  # 90 % over environments
    worst: float
    num_environments: int


def sign_error(score: np.ndarray, gap: np.ndarray, settings: np.ndarray, num_samples: int | None = None) -> SignError:
    """Dziugaite et al. 2020: how often the order of two runs by score is not that by gap, in the worst environment.

    An environment is an axis with two of its values: all pairs of runs that differ in nothing but these. The loss of a pair is
    (1 - sgn sgn) / 2, its weight (w - 1/2)_+ with w = max(0, 1 - 2 exp(-2 n (dgap / 2)^2))^2, which leaves out pairs whose gaps differ by
    less than `num_samples` test samples can tell (for gaps that are differences of accuracies); without `num_samples` all weigh the same.
    Environments without weight are left out.
    """
    losses = []
    for axis in range(settings.shape[1]):
        first, second, _ = pairs_along(settings, axis)
        if not len(first):
            continue
        loss = (1 - np.sign(score[first] - score[second]) * np.sign(gap[first] - gap[second])) / 2
        weight = np.ones(len(first))
        if num_samples is not None:
            hoeffding = np.maximum(0, 1 - 2 * np.exp(-2 * num_samples * ((gap[first] - gap[second]) / 2) ** 2)) ** 2
            weight = np.maximum(hoeffding - 0.5, 0)
        values = np.sort(np.stack([settings[first, axis], settings[second, axis]]), axis=0)
        _, environment = np.unique(values, axis=1, return_inverse=True)
        total = np.bincount(environment, weights=weight)
        losses += list((np.bincount(environment, weights=weight * loss)[total > 0]) / total[total > 0])
    if not losses:
        return SignError(np.nan, np.nan, np.nan, 0)
    return SignError(float(np.mean(losses)), float(np.quantile(losses, 0.9)), float(np.max(losses)), len(losses))
