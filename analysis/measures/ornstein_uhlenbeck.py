"""How strongly a process is pulled back: the restoring rate of an Ornstein-Uhlenbeck process, seen at irregular times.

dx = lambda (theta - x) dt + sigma dW has, over a step of any length dt, the exact transition

    x(t + dt) | x(t) ~ N(theta + (x(t) - theta) e^(-lambda dt), sigma^2 (1 - e^(-2 lambda dt)) / (2 lambda)).

Several paths are independent realisations that share lambda, and on each axis theta and sigma. The likelihood is that of the steps
given each path's first point. lambda = 0 is the random walk; its drift lambda theta stays where theta is free, so the nested
model is the random walk with drift. theta is not identified there and lambda lies on its bound, so no chi-squared holds for that
comparison: its p comes from simulated random walks at the same times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_TIMES, MIN_PATHS = 5, 2
_DROP = 1.920729  # of the profile log-likelihood at the ends of a 95 % interval: half the quantile of chi-squared with 1 degree of freedom
_NUM_RATES, _NUM_COARSE = 400, 60
_SLOWEST, _FASTEST = 0.01, 12.0  # lambda times the whole stretch of time, and times the shortest step: nothing beyond can be told


@dataclass(frozen=True)
class Restoring:
    """A fit. Rates are per unit of time."""

    rate: float  # lambda; 0 where the random walk with drift is as likely
    rate_low: float  # 95 % profile likelihood; 0 unless the random walk is refused at 0.05
    rate_high: float  # infinity where the data cannot tell it from white noise around theta
    theta: np.ndarray  # [axis]; NaN at rate 0
    sigma: np.ndarray  # [axis]
    likelihood_ratio: float  # 2 (log-likelihood - that of the random walk with drift)
    p_random_walk: float  # (1 + #{LR* >= LR}) / (1 + B) over simulated random walks
    num_steps: int
    num_paths: int


def fit(times: np.ndarray, paths: np.ndarray, num_simulations: int, generator: np.random.Generator) -> Restoring:
    """Fit paths `[path, time, axis]` at rising times `[time]`; steps that begin or end in NaN are left out.

    Raises ValueError for fewer than MIN_TIMES times, MIN_PATHS paths with a step, times that do not rise, or an axis that never moves.
    """
    times, paths = np.asarray(times, dtype=np.float64), np.asarray(paths, dtype=np.float64)
    if len(times) < MIN_TIMES or (np.diff(times) <= 0).any():
        raise ValueError(f"a restoring rate needs at least {MIN_TIMES} rising times, not {times.tolist()}")
    known = np.isfinite(paths).all(axis=2)
    steps = known[:, 1:] & known[:, :-1]  # [path, step]
    num_paths = int(steps.any(axis=1).sum())
    if num_paths < MIN_PATHS:
        raise ValueError(f"a restoring rate needs at least {MIN_PATHS} paths, not {num_paths}")
    centred = paths - np.nanmean(paths, axis=(0, 1))
    dt = np.broadcast_to(np.diff(times), steps.shape)[steps]
    before, after = centred[:, :-1][steps], centred[:, 1:][steps]  # [step, axis]
    if not (after - before).any(axis=0).all():
        raise ValueError("an axis never moves")
    rates = np.geomspace(_SLOWEST / (times[-1] - times[0]), _FASTEST / dt.min(), _NUM_RATES)
    profile = _profile(rates, dt, before[None], after[None])[0]
    walk = float(_walk(dt, before[None], after[None])[0])
    best = int(profile.argmax())
    ratio = max(0.0, 2 * (float(profile[best]) - walk))
    p = np.nan
    if num_simulations:
        coarse = rates[:: _NUM_RATES // _NUM_COARSE]
        drawn = _random_walks(steps, np.diff(times), centred, dt, after - before, num_simulations, generator)
        simulated = 2 * (_profile(coarse, dt, *drawn).max(axis=1) - _walk(dt, *drawn))
        p = float((1 + np.sum(simulated >= ratio - 1e-9)) / (1 + num_simulations))
    low, high = _ends(rates, profile)
    rate = float(rates[best]) if best else 0.0
    theta, sigma = _theta_sigma(rate, dt, before, after)
    return Restoring(rate, low if p < 0.05 else 0.0, high, theta + np.nanmean(paths, axis=(0, 1)), sigma, ratio, p, len(dt), num_paths)


def simulate(
    times: np.ndarray, starts: np.ndarray, rate: float, theta: np.ndarray, sigma: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Paths `[path, time, axis]` from starts `[path, axis]`, by the exact transition."""
    x = [starts]
    for dt in np.diff(times):
        pull, variance = np.exp(-rate * dt), _variance(np.array([rate]), dt)[0]
        x.append(theta + (x[-1] - theta) * pull + sigma * np.sqrt(variance) * generator.standard_normal(starts.shape))
    return np.stack(x, axis=1)


def _variance(rate: np.ndarray, dt: np.ndarray | float) -> np.ndarray:
    """(1 - e^(-2 rate dt)) / (2 rate), and its limit dt at rate 0."""
    return np.where(rate > 0, -np.expm1(-2 * rate * dt) / np.where(rate > 0, 2 * rate, 1), dt)


def _profile(rates: np.ndarray, dt: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Log-likelihood `[set, rate]` at the best theta and sigma, for steps `[set, step, axis]`; a constant left out.

    For a given rate theta is a weighted mean and sigma^2 a weighted residual, both sums over steps: all as products of matrices.
    """
    a, v = np.exp(-rates[:, None] * dt), _variance(rates[:, None], dt)  # [rate, step]
    w, d = 1 / v, -np.expm1(-rates[:, None] * dt)

    def total(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        return weights @ values  # [rate, step] @ [set, step, axis] -> [set, rate, axis]

    squares = total(w, after**2) - 2 * total(w * a, before * after) + total(w * a**2, before**2)
    squares -= (total(w * d, after) - total(w * d * a, before)) ** 2 / (w * d**2).sum(axis=1)[:, None]
    return _log_likelihood(squares, v, len(dt))


def _walk(dt: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The same `[set]` for the random walk with drift: x(t + dt) - x(t) ~ N(mu dt, sigma^2 dt)."""
    moved = after - before
    squares = (moved**2 / dt[:, None]).sum(axis=1) - moved.sum(axis=1) ** 2 / dt.sum()  # [set, axis]
    return _log_likelihood(squares[:, None], dt[None], len(dt))[:, 0]


def _log_likelihood(squares: np.ndarray, v: np.ndarray, num_steps: int) -> np.ndarray:
    """At the best sigma, from weighted residuals `[set, rate, axis]` and variances at sigma 1 `[rate, step]`."""
    residual = np.log(np.maximum(squares, np.finfo(np.float64).tiny) / num_steps).sum(-1)
    return -0.5 * (num_steps * residual + squares.shape[-1] * np.log(v).sum(axis=1))


def _ends(rates: np.ndarray, profile: np.ndarray) -> tuple[float, float]:
    """Where the profile crosses the ends of its 95 % interval, between the rates tried; 0 and infinity where it does not."""
    bound, log_rates = profile.max() - _DROP, np.log(rates)
    inside = np.flatnonzero(profile >= bound)
    first, last = inside[0], inside[-1]
    low, high = 0.0, np.inf
    if first:
        low = float(np.exp(np.interp(bound, profile[first - 1 : first + 1], log_rates[first - 1 : first + 1])))
    if last < len(rates) - 1:
        high = float(np.exp(np.interp(-bound, -profile[last : last + 2], log_rates[last : last + 2])))
    return low, high


def _theta_sigma(rate: float, dt: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not rate:
        moved = after - before
        squares = (moved**2 / dt[:, None]).sum(axis=0) - moved.sum(axis=0) ** 2 / dt.sum()
        return np.full(after.shape[1], np.nan), np.sqrt(squares / len(dt))
    a, v, d = np.exp(-rate * dt)[:, None], _variance(np.array(rate), dt)[:, None], -np.expm1(-rate * dt)[:, None]
    theta = (d * (after - a * before) / v).sum(axis=0) / (d**2 / v).sum(axis=0)
    residual = after - a * before - d * theta
    return theta, np.sqrt((residual**2 / v).mean(axis=0))


def _random_walks(
    steps: np.ndarray,
    dt_all: np.ndarray,
    centred: np.ndarray,
    dt: np.ndarray,
    moved: np.ndarray,
    num_simulations: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[set, step, axis]`, before and after, of random walks with the drift and sigma of the data, from their first points."""
    drift = moved.sum(axis=0) / dt.sum()
    sigma = np.sqrt(((moved - drift * dt[:, None]) ** 2 / dt[:, None]).mean(axis=0))
    noise = generator.standard_normal((num_simulations, *steps.shape, len(drift)))
    increments = drift * dt_all[:, None] + sigma * np.sqrt(dt_all)[:, None] * noise
    first = np.nan_to_num(centred[:, :1])  # a path without a first point has no step that counts before it is known again
    walks = np.concatenate([np.broadcast_to(first, (num_simulations, *first.shape)), first + np.cumsum(increments, axis=2)], axis=2)
    return walks[:, :, :-1][:, steps], walks[:, :, 1:][:, steps]
