"""Does the order in which examples are learned follow a statistic of theirs, or the order of other networks?

A learning epoch that is infinite (never learned) ranks last, tied with its like. Samples whose learning epoch or statistic is NaN are
left out and counted. The samples of a data set are what is permuted and resampled: answers are about examples, given these networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from analysis.statistics import TIE, bootstrap_spearman, holm, percentiles, permutations, resamples

# The figures of Pliushch et al. hide the mean statistic below this agreement and up to this epoch.
MIN_TPA, LAST_HIDDEN_EPOCH = 0.2, 5
# Below this, not even a perfect order of the samples reaches p = 0.05 (two-sided, n = 4: 2/24).
MIN_SAMPLES = 5
DRAWN_AT_ONCE = 2**22  # numbers in a matrix of permutations or resamples


@dataclass(frozen=True)
class AgreedMean:
    """The mean of a statistic over the samples that all networks get right; every field is `[epoch]`."""

    mean: np.ndarray  # NaN where nothing is agreed upon
    standard_error: np.ndarray  # of the mean of as many samples drawn at random without replacement: what a drift is held against
    num_agreed: np.ndarray  # samples in the mean
    tpa: np.ndarray
    shown: np.ndarray  # whether the figures of the paper show this epoch
    mean_all: float  # over all samples: where the curve ends if everything is learned


def agreed_mean(agreed: np.ndarray, tpa: np.ndarray, epochs: np.ndarray, statistic: np.ndarray) -> AgreedMean:
    """The paper's curve: mean of `statistic` `[sample]` over the agreed set `[epoch, sample]` at each of `epochs` `[epoch]`.

    `agreed` is that of `agreement.agreed_set`, `tpa` `[epoch]` that of `agreement.agreement`. The masking of the paper's figures: an
    epoch is shown if it is after the fifth and TPA is at least 0.2 there; none is if TPA exceeds 0.2 nowhere. The source has 0 for an
    empty set, which its masking always hides; here it is NaN. Samples with a NaN statistic are left out of the mean and of `num_agreed`.
    """
    known = np.isfinite(statistic)
    agreed = agreed & known
    values = np.where(known, statistic, 0.0)
    num_agreed, num_known = agreed.sum(axis=1), int(known.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (agreed @ values) / num_agreed
        spread = values[known].std(ddof=1) if num_known > 1 else np.nan
        error = spread * np.sqrt((1 - num_agreed / num_known) / num_agreed) if num_known else np.full(len(mean), np.nan)
    shown = (np.asarray(epochs) > LAST_HIDDEN_EPOCH) & (tpa >= MIN_TPA) & bool((tpa > MIN_TPA).any())
    return AgreedMean(mean, np.where(num_agreed > 0, error, np.nan), num_agreed, tpa, shown, values[known].mean() if num_known else np.nan)


def agreed_share(agreed: np.ndarray, categories: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For a categorical statistic `[sample]` (the class, say): its values, and of each the share that is agreed upon, `[epoch, value]`."""
    values, codes = np.unique(np.asarray(categories), return_inverse=True)
    sizes = np.bincount(codes)
    return values, np.stack([np.bincount(codes[row], minlength=len(sizes)) / sizes for row in agreed])


@dataclass(frozen=True)
class Association:
    """Spearman's rho between two orders of the samples, with what it rests on."""

    rho: float
    low: float  # percentile interval over bootstrap resamples of the samples
    high: float
    p: float  # two-sided, samples permuted
    p_holm: float  # over the associations asked for together
    rho_within: float  # ranks within classes: what is left when some classes are learned first
    p_within: float  # samples permuted within classes
    num_samples: int
    num_dropped: int  # samples with a NaN
    num_never: int  # samples never learned, among those used
    num_permutations: int
    num_bootstrap: int


def associations(
    learned: np.ndarray,
    others: Mapping[str, np.ndarray],
    classes: np.ndarray,
    generator: np.random.Generator,
    num_permutations: int = 999,
    num_bootstrap: int = 999,
) -> dict[str, Association]:
    """Rank correlation of learning epochs `[sample]` with each of `others` `[sample]`: image statistics, or other learning epochs.

    Reduce learning epochs over replicas first, by `median_epoch` for instance. All numbers are NaN below 5 samples or where either is
    constant. `classes` `[sample]` are what `rho_within` holds fixed.
    """
    groups: dict[bytes, list[str]] = {}  # those that know the same samples share their draws
    for name, other in others.items():
        groups.setdefault((~(np.isnan(learned) | np.isnan(other))).tobytes(), []).append(name)
    found: dict[str, Association] = {}
    for key, names in groups.items():
        used = np.frombuffer(key, dtype=bool)
        kept = {name: np.asarray(others[name])[used] for name in names}
        found |= _associate(np.asarray(learned)[used], kept, np.asarray(classes)[used], generator, num_permutations, num_bootstrap)
        found |= {name: replace(found[name], num_dropped=int((~used).sum())) for name in names}
    adjusted = holm(np.array([found[name].p for name in others]))
    return {name: replace(found[name], p_holm=float(p)) for name, p in zip(others, adjusted, strict=True)}


def _associate(
    x: np.ndarray,
    others: Mapping[str, np.ndarray],
    classes: np.ndarray,
    generator: np.random.Generator,
    num_permutations: int,
    num_bootstrap: int,
) -> dict[str, Association]:
    """Associations of x `[sample]` with others of the same samples, none NaN. The same permutations and resamples serve all of them."""
    nan = float("nan")
    none = Association(nan, nan, nan, nan, nan, nan, nan, len(x), 0, int(np.isinf(x).sum()), num_permutations, num_bootstrap)
    result = dict.fromkeys(others, none)
    varied = [name for name, y in others.items() if len(x) >= MIN_SAMPLES and (x != x[0]).any() and (y != y[0]).any()]
    if not varied:
        return result
    x, values = rankdata(x), np.stack([rankdata(others[name]) for name in varied])  # finite, and their ranks are the same
    rho, p = _permuted(x, values, np.zeros(len(x)), generator, num_permutations)
    rho_within, p_within = _permuted(x, values, classes, generator, num_permutations)
    at_once, bootstrapped = max(1, DRAWN_AT_ONCE // len(x)), [np.empty((len(varied), 0))]
    for drawn in _portions(num_bootstrap, at_once):
        counts = resamples(len(x), drawn, generator)
        bootstrapped.append(np.stack([bootstrap_spearman(x, y, counts) for y in values]))
    low, high = zip(*map(percentiles, np.concatenate(bootstrapped, axis=1)), strict=True)
    for name, *numbers in zip(varied, rho, low, high, p, rho_within, p_within, strict=True):
        one, lower, upper, free, within, free_within = map(float, numbers)
        result[name] = replace(none, rho=one, low=lower, high=upper, p=free, rho_within=within, p_within=free_within)
    return result


def _permuted(
    x: np.ndarray, values: np.ndarray, blocks: np.ndarray, generator: np.random.Generator, num_permutations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rank correlation within blocks `[sample]` of x `[sample]` with each of the values `[value, sample]`, and its two-sided p.

    As `statistics.spearman_within`, x permuted within blocks once for all values. NaN where either is constant in every block.
    """
    x_ranks, y_ranks = _ranks_within(x[None], blocks)[0], _ranks_within(values, blocks)
    rho, extreme = y_ranks @ x_ranks, np.zeros(len(values))
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    for drawn in _portions(num_permutations, max(1, DRAWN_AT_ONCE // len(x))):
        orders = np.empty((drawn, len(x)), dtype=np.intp)
        for own in members:
            orders[:, own] = own[permutations(len(own), drawn, generator)]
        extreme += (np.abs(x_ranks[orders] @ y_ranks.T) >= np.abs(rho) - TIE).sum(axis=0)
    known = np.isfinite(rho) & (num_permutations > 0)
    return rho, np.where(known, (1 + extreme) / (1 + num_permutations), np.nan)


def _ranks_within(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Midranks of `[value, sample]`, centred within blocks, divided by their sizes, of norm 1; NaN where constant in every block."""
    ranks = np.zeros(values.shape)
    for block in np.unique(blocks):
        own = np.flatnonzero(blocks == block)
        ranks[:, own] = (rankdata(values[:, own], axis=1) - (len(own) + 1) / 2) / len(own)
    norms = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, norms, out=np.full(ranks.shape, np.nan), where=norms > 0)


def _portions(total: int, at_once: int) -> list[int]:
    return [min(at_once, total - start) for start in range(0, total, at_once)]


def median_epoch(learned: np.ndarray) -> np.ndarray:
    """Median learning epoch over replicas `[sample]`, of `[replica, sample]`; replicas without one (NaN) are left out, infinity ranks last.

    With an even number of replicas the lower of the two in the middle, so that it is an epoch and never half of infinity.
    """
    present = learned[~np.isnan(learned).any(axis=1)]
    if not len(present):
        return np.full(learned.shape[1], np.nan)
    return np.sort(present, axis=0)[(len(present) - 1) // 2]


def order_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rho of the learning epochs of every network of a with every one of b, `[replica of a, replica of b]`.

    Both `[replica, sample]` of the same samples: two families, or one before and after a swap (there the diagonal tells how far each
    network kept its order, to be held against the control over the same epochs). NaN for a network that has a NaN or one learning
    epoch for all.
    """
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"learning epochs of {a.shape[1]} and of {b.shape[1]} samples cannot be compared")
    return _normed_ranks(a) @ _normed_ranks(b).T


def _normed_ranks(learned: np.ndarray) -> np.ndarray:
    ranks = np.full(learned.shape, np.nan)
    for row, values in zip(ranks, learned, strict=True):
        if not np.isnan(values).any() and len(values) and (values != values[0]).any():
            row[:] = rankdata(values) - (len(values) + 1) / 2
            row /= np.linalg.norm(row)
    return ranks
