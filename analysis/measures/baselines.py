"""What is held against spread as a predictor of the generalization gap: measures of one network, batched over replicas.

Every function takes leading axes of replicas and gives one value for each. docs/baselines.md has sources and caveats.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.sparse.linalg import svds

NUM_BINS = 15  # equal-width bins of confidence
LARGEST_GRAM = 512  # sides up to which all singular values are had at once


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis: `[..., class]` to `[..., class]`."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def confidence(p: np.ndarray) -> np.ndarray:
    """Mean largest probability: `[..., sample, class]` to `[...]`."""
    return p.max(-1).mean(-1)


def entropy(p: np.ndarray) -> np.ndarray:
    """Mean entropy of the predicted distribution in nat: `[..., sample, class]` to `[...]`."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1).mean(-1)


def calibration_error(p: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Expected calibration error: `[..., sample, class]` and labels `[sample]` to `[...]`.

    The mean over samples of |accuracy - mean confidence| of the sample's bin; bins of equal width, closed above.
    """
    level, right = p.max(-1), p.argmax(-1) == labels
    bins = np.clip(np.ceil(level * num_bins).astype(int) - 1, 0, num_bins - 1)
    members = bins[..., None] == np.arange(num_bins)  # [..., sample, bin]
    excess = np.einsum("...sb,...s->...b", members, right - level)
    return np.abs(excess).sum(-1) / level.shape[-1]


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Output margins, the label's logit minus the largest other one: `[..., sample, class]` and labels `[sample]` to `[..., sample]`."""
    own = labels[:, None] == np.arange(logits.shape[-1])
    return np.where(own, logits, 0.0).sum(-1) - np.where(own, -np.inf, logits).max(-1)


def disagreement(predicted: np.ndarray) -> np.ndarray:
    """Share of samples on which a replica and another predict different classes, mean over the others: `[replica, sample]` to `[replica]`.

    NaN for a replica alone.
    """
    num_replicas, num_samples = predicted.shape
    if num_replicas < 2:
        return np.full(num_replicas, np.nan)
    one_hot = (predicted[..., None] == np.unique(predicted)).reshape(num_replicas, -1).astype(np.float64)
    agreeing = one_hot @ one_hot.T  # [replica, replica], samples
    return 1 - (agreeing.sum(1) - num_samples) / (num_samples * (num_replicas - 1))


def spectral_norm(matrices: np.ndarray) -> np.ndarray:
    """Largest singular value: `[replica, row, column]` to `[replica]`, in float64."""
    matrices = matrices.astype(np.float64)
    if min(matrices.shape[1:]) > LARGEST_GRAM:
        start = np.random.default_rng(0).standard_normal(min(matrices.shape[1:]))
        return np.array([svds(m, 1, v0=start, return_singular_vectors=False, solver="arpack")[0] if m.any() else 0.0 for m in matrices])
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.swapaxes(1, 2)
    return np.sqrt(np.linalg.eigvalsh(wide @ wide.swapaxes(1, 2))[:, -1].clip(0))


def participation_ratio(features: np.ndarray) -> np.ndarray:
    """Effective number of dimensions, tr(C)^2 / ||C||_F^2 of the covariance: `[..., sample, feature]` to `[...]`. NaN for constant ones."""
    x = features.astype(np.float64)
    x = x - x.mean(-2, keepdims=True)
    largest = np.abs(x).max((-2, -1), keepdims=True)
    x = x / np.where(largest > 0, largest, 1.0)
    tall = x if x.shape[-2] >= x.shape[-1] else x.swapaxes(-1, -2)
    gram = tall.swapaxes(-1, -2) @ tall
    with np.errstate(invalid="ignore"):
        return np.einsum("...ii->...", gram) ** 2 / np.square(gram).sum((-2, -1))


def cdnv(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Class-distance normalised variance, mean over pairs of classes of (v_a + v_b) / (2 |m_a - m_b|^2), v the mean squared distance
    from the class's mean m: `[..., sample, feature]` and labels `[sample]` to `[...]`. NaN below two classes.
    """
    variances, _, between = _classes(features, labels)
    return _mean_of_pairs((variances[..., :, None] + variances[..., None, :]) / 2, between)


def davies_bouldin(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Davies-Bouldin index, mean over classes of the largest (s_a + s_b) / |m_a - m_b|, s the mean distance from the class's mean m:
    `[..., sample, feature]` and labels `[sample]` to `[...]`. NaN below two classes.
    """
    _, spreads, between = _classes(features, labels)
    if between.shape[-1] < 2:
        return np.full(features.shape[:-2], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (spreads[..., :, None] + spreads[..., None, :]) / np.sqrt(between)
    return np.where(np.eye(between.shape[-1], dtype=bool), -np.inf, ratios).max(-1).mean(-1)


def _classes(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the classes present: mean squared and mean distance from the class's mean `[..., class]`, and squared distances
    between means `[..., class, class]`."""
    features = features.astype(np.float64)
    groups = [features[..., labels == label, :] for label in np.unique(labels)]
    means = np.stack([group.mean(-2) for group in groups], -2)
    squared = [np.square(group - group.mean(-2, keepdims=True)).sum(-1) for group in groups]  # [..., sample] each
    between = np.square(means[..., :, None, :] - means[..., None, :, :]).sum(-1)
    return np.stack([s.mean(-1) for s in squared], -1), np.stack([np.sqrt(s).mean(-1) for s in squared], -1), between


def _mean_of_pairs(values: np.ndarray, divisors: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(values.shape[-1], 1)
    if not len(first):
        return np.full(values.shape[:-2], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (values[..., first, second] / divisors[..., first, second]).mean(-1)


def scale_at_drop(
    accuracy: Callable[[int, np.ndarray], np.ndarray], start: np.ndarray, drop: float, low: float, high: float, num_steps: int
) -> np.ndarray:
    """The scale `[replica]` of a perturbation at which accuracy has fallen by `drop` from `start [replica]`.

    `accuracy(step, scale)` takes one scale per replica and gives one accuracy each, which falls as the scale grows, noise aside: at every
    step it may draw anew. By bisection of log scale between `low` and `high`, all replicas at once, then where the decreasing curve
    nearest to all that was found crosses (isotonic regression, straight lines between). NaN where nothing found lies on one of its sides.
    """
    wanted = start - drop
    near, far = (np.full(len(start), np.log(end)) for end in (low, high))
    places, found = [], []
    for step in range(num_steps):
        middle = (near + far) / 2
        places.append(middle)
        found.append(accuracy(step, np.exp(middle)))
        holds = found[-1] >= wanted
        near, far = np.where(holds, middle, near), np.where(holds, far, middle)
    return np.array([_crossing(x, y, w) for x, y, w in zip(np.stack(places, 1), np.stack(found, 1), wanted, strict=True)])


def _crossing(places: np.ndarray, values: np.ndarray, wanted: float) -> float:
    """Where a decreasing curve through noisy values of the logarithms `places` falls below `wanted`."""
    order = np.argsort(places)
    x, y = places[order], isotonic_regression(values[order], increasing=False).x
    behind = int(np.argmax(y < wanted))
    if y[-1] >= wanted or behind == 0:
        return np.nan
    share = (y[behind - 1] - wanted) / (y[behind - 1] - y[behind])
    return float(np.exp(x[behind - 1] + share * (x[behind] - x[behind - 1])))
