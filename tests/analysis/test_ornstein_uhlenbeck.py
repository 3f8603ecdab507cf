"""The fit recovers what was simulated, at irregular times, with intervals that hold; and knows a random walk."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from analysis.measures.ornstein_uhlenbeck import _profile, _walk, fit, simulate

TIMES = np.array([0.0, 0.4, 1.0, 1.3, 2.5, 4.0, 4.2, 6.0])
THETA, SIGMA = np.array([0.5, -0.2]), np.array([0.1, 0.2])
NUM_SEEDS = 300


def made(seed: int, rate: float, num_paths: int = 6, times: np.ndarray = TIMES) -> np.ndarray:
    """Paths that start well away from theta, as networks do after a swap."""
    generator = np.random.default_rng(seed)
    starts = THETA + np.array([0.5, -0.4]) + 0.3 * generator.standard_normal((num_paths, 2))
    return simulate(times, starts, rate, THETA, SIGMA, generator)


@pytest.fixture(scope="module")
def fits():
    """Fits of 300 simulations at each rate."""
    return {r: [fit(TIMES, made(1000 + s, r), 199, np.random.default_rng(s)) for s in range(NUM_SEEDS)] for r in (0.0, 0.1, 0.4, 1.5)}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 1.5])
def test_intervals_cover_the_rate(fits, rate):
    covered = np.mean([found.rate_low <= rate <= found.rate_high for found in fits[rate]])
    assert 0.91 <= covered <= 0.995, covered  # 0.94 by 2,000 simulations, less 2 standard errors; more where the lower end is moved to 0


def test_rates_thetas_and_sigmas_are_recovered(fits):
    for rate in (0.4, 1.5):
        assert np.median([f.rate for f in fits[rate]]) == pytest.approx(rate, rel=0.1)
    assert np.median([f.theta for f in fits[1.5]], axis=0) == pytest.approx(THETA, abs=0.03)
    assert np.median([f.sigma for f in fits[1.5]], axis=0) == pytest.approx(SIGMA, rel=0.1)
    assert np.median([f.sigma for f in fits[0.0]], axis=0) == pytest.approx(SIGMA, rel=0.1)


def test_a_random_walk_is_refused_at_the_nominal_rate_and_a_pull_is_seen(fits):
    refused = {rate: np.mean([f.p_random_walk < 0.05 for f in some]) for rate, some in fits.items()}
    assert 0.02 <= refused[0.0] <= 0.08
    assert refused[0.4] > 0.95
    assert refused[1.5] > 0.95
    assert all(f.rate_low == 0 for f in fits[0.0] if f.p_random_walk >= 0.05)


def slow_log_likelihood(rate: float, theta: np.ndarray, sigma: np.ndarray, times: np.ndarray, paths: np.ndarray) -> float:
    """The formula, step by step."""
    total = 0.0
    for path in paths:
        for k in range(len(times) - 1):
            dt = times[k + 1] - times[k]
            mean = theta + (path[k] - theta) * np.exp(-rate * dt)
            deviation = sigma * np.sqrt((1 - np.exp(-2 * rate * dt)) / (2 * rate))
            total += norm.logpdf(path[k + 1], mean, deviation).sum()
    return total


def test_the_profile_is_the_maximum_of_the_formula():
    paths = made(3, 0.4)
    before, after = paths[:, :-1].reshape(-1, 2), paths[:, 1:].reshape(-1, 2)
    dt = np.tile(np.diff(TIMES), len(paths))
    rates = np.array([0.2, 0.7])
    differences = []
    for rate, found in zip(rates, _profile(rates, dt, before[None], after[None])[0], strict=True):

        def negative(x, rate=rate):
            return -slow_log_likelihood(rate, x[:2], np.exp(x[2:]), TIMES, paths)

        best = minimize(negative, [*THETA, *np.log(SIGMA)], method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-8, "fatol": 1e-10})
        differences.append(found + best.fun)
    assert differences[0] == pytest.approx(differences[1], abs=1e-5)  # the constant that the profile leaves out
    assert differences[0] == pytest.approx(len(dt) * (np.log(2 * np.pi) + 1), abs=1e-4)


def test_the_profile_tends_to_the_random_walk():
    paths = made(4, 0.3)
    before, after = paths[:, :-1].reshape(1, -1, 2), paths[:, 1:].reshape(1, -1, 2)
    dt = np.tile(np.diff(TIMES), len(paths))
    near = _profile(np.array([1e-3, 1e-4]), dt, before, after)[0]
    walk = float(_walk(dt, before, after)[0])
    assert abs(near[1] - walk) < abs(near[0] - walk) < 0.2
    assert near[1] == pytest.approx(walk, abs=0.02)


def test_units_do_not_matter():
    paths, draw = made(5, 0.6), lambda: np.random.default_rng(0)
    found, other = fit(TIMES, paths, 99, draw()), fit(10 * TIMES, 3 * paths + 7, 99, draw())
    assert other.rate == pytest.approx(found.rate / 10)
    assert other.p_random_walk == found.p_random_walk
    assert other.theta == pytest.approx(3 * found.theta + 7)


def test_a_path_that_ends_early_counts_as_far_as_it_goes():
    paths = made(6, 0.6)
    paths[0, 4:] = np.nan
    found = fit(TIMES, paths, 0, np.random.default_rng(0))
    assert (found.num_steps, found.num_paths) == (5 * 7 + 3, 6)
    assert np.isnan(found.p_random_walk)
    assert np.isfinite(found.rate)


@pytest.mark.parametrize(
    ("times", "num_paths", "why"), [(TIMES[:4], 6, "at least 5 rising times"), (TIMES, 1, "at least 2 paths"), (TIMES[::-1], 6, "rising")]
)
def test_too_little_is_refused(times, num_paths, why):
    with pytest.raises(ValueError, match=why):
        fit(times, made(0, 0.5, num_paths)[:, : len(times)], 9, np.random.default_rng(0))


def test_what_never_moves_is_refused():
    with pytest.raises(ValueError, match="never moves"):
        fit(TIMES, np.ones((3, len(TIMES), 1)), 9, np.random.default_rng(0))
