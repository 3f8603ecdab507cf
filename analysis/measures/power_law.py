"""The limit of a falling number: s = s_inf + a (n / n_0)^-b, fitted by weighted least squares.

n_0 is the smallest size, so that a is the part of the number at n_0 that goes away as n grows. s_inf and a may have either sign; b
lies within EXPONENTS, since a smaller one cannot be told from no limit at all over any range of sizes, nor a larger one from a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EXPONENTS = (0.1, 4.0)
_NUM_CANDIDATES, _NUM_ROUNDS = 40, 3


@dataclass(frozen=True)
class PowerLaw:
    """Fits `[...]`, one for each series."""

    limit: np.ndarray  # s_inf
    amplitude: np.ndarray  # a: at the smallest size
    exponent: np.ndarray  # b
    residual: np.ndarray  # weighted sum of squares

    def at(self, sizes: np.ndarray, smallest: float) -> np.ndarray:
        """Values `[..., size]`; `smallest` is n_0."""
        shrunk = (sizes / smallest) ** -self.exponent[..., None]
        return self.limit[..., None] + self.amplitude[..., None] * shrunk


def fit(sizes: np.ndarray, values: np.ndarray, weights: np.ndarray) -> PowerLaw:
    """Fit values `[..., size]` at sizes `[size]` with weights `[size]`, of which only ratios matter.

    For a given b the rest is a line, so only b is searched for: on a grid in log b, refined twice around the best.
    Raises ValueError for fewer than 4 different sizes, with which three parameters cannot be contradicted.
    """
    sizes, values, weights = (np.asarray(array, dtype=np.float64) for array in (sizes, values, weights))
    if len(np.unique(sizes)) < 4 or (sizes <= 0).any():
        raise ValueError(f"a power law with a limit needs at least 4 different positive sizes, not {sizes.tolist()}")
    series = values.reshape(-1, len(sizes))
    scaled = np.log(sizes / sizes.min())
    low, high = (np.full(len(series), np.log(bound)) for bound in EXPONENTS)
    for _ in range(_NUM_ROUNDS):
        log_b = np.linspace(low, high, _NUM_CANDIDATES, axis=1)  # [series, candidate]
        residual = _lines(scaled, series, weights, np.exp(log_b))[2]
        best = residual.argmin(axis=1)
        rows = np.arange(len(series))
        low, high = log_b[rows, np.maximum(best - 1, 0)], log_b[rows, np.minimum(best + 1, _NUM_CANDIDATES - 1)]
    exponent = np.exp(log_b[rows, best])
    limit, amplitude, residual = (found[:, 0] for found in _lines(scaled, series, weights, exponent[:, None]))
    shape = values.shape[:-1]
    return PowerLaw(limit.reshape(shape), amplitude.reshape(shape), exponent.reshape(shape), residual.reshape(shape))


def _lines(scaled: np.ndarray, series: np.ndarray, weights: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intercept, slope and residual `[series, candidate]` of each series over (n / n_0)^-b, for b `[series, candidate]`."""
    share = weights / weights.sum()
    x = np.exp(-b[..., None] * scaled)  # [series, candidate, size]
    x_mean = x @ share
    y_mean = series @ share
    x_off, y_off = x - x_mean[..., None], (series - y_mean[:, None])[:, None, :]
    slope = (share * x_off * y_off).sum(-1) / (share * x_off**2).sum(-1)
    residual = (share * (y_off - slope[..., None] * x_off) ** 2).sum(-1)
    return y_mean[:, None] - slope * x_mean, slope, residual
