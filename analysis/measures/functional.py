"""Distances between what networks answer, from the logits `[sample, class]` of their last layer and, for two of them, the true classes."""

from __future__ import annotations

from typing import cast

import numpy as np

from analysis.measures.features import predicted, softmax
from analysis.measures.measure import Arrays, Measure, Unfit
from analysis.measures.products import TILE_BYTES

JSD_BYTES = 2**20  # stays in the cache between the logarithm and the sum


class _Functional(Measure):
    kind = "functional"
    metric = True
    euclidean = True
    orthogonal = False
    isotropic_scaling = True
    translation = False
    invertible_linear = False


class DisagreementDistance(_Functional):
    """sqrt(2 q) with q the share of samples on which two networks predict different classes."""

    name = "disagreement"
    title = "disagreement q of predicted classes, distance sqrt(2 q)"
    spread_title = "mean disagreement over pairs"
    source = "Nakkiran and Bansal 2020, arXiv 2009.08092; Jiang et al. 2022, arXiv 2106.13799"

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        return predicted(X)

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        classes = np.stack(cast(list[np.ndarray], factors))  # [network, sample]
        return _agreements(classes) / classes.shape[1]


class ChurnDistance(_Functional):
    """sqrt(2 q) with q the share of samples on which exactly one of two networks is right."""

    name = "churn"
    title = "churn q (exactly one of the two is right), distance sqrt(2 q)"
    spread_title = "mean churn over pairs"
    source = "Milani Fard et al. 2016 (NIPS), here of correctness; Klabunde et al. 2023, arXiv 2305.06329"
    needs_labels = True

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        return predicted(X) == labels

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        right = np.stack(cast(list[np.ndarray], factors))
        return _agreements(right) / right.shape[1]


class ErrorConsistencyDistance(_Functional):
    """sqrt(2 - 2 kappa) with kappa = (c - e) / (1 - e): c the share of samples on which two networks are both right or both wrong, e
    that of independent networks of their accuracies p and q, p q + (1 - p)(1 - q).

    Between networks of different accuracy kappa cannot reach 1. With u = 1 - 2 p and v = 1 - 2 q it is 4 cov / (1 - u v), the covariance of
    being right times a geometric series in u v, so it is an inner product, and the distance Euclidean. Not defined for a network that is
    right on all samples or wrong on all: there is no pattern of errors.
    """

    name = "error_consistency"
    title = "error consistency kappa, distance sqrt(2 - 2 kappa)"
    spread_title = "1 - mean error consistency kappa over pairs"
    source = "Geirhos et al. 2020, arXiv 2006.16736"
    needs_labels = True

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        right = predicted(X) == labels
        if right.all() or not right.any():
            raise Unfit(f"{'right' if right.all() else 'wrong'} on all {len(right)} samples, so there is no pattern of errors")
        return right

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        right = np.stack(cast(list[np.ndarray], factors))
        accuracy = right.mean(axis=1)
        expected = np.outer(accuracy, accuracy) + np.outer(1 - accuracy, 1 - accuracy)
        return (_agreements(right) / right.shape[1] - expected) / (1 - expected)


class JSDDistance(_Functional):
    """sqrt(2 J) with J the mean over samples of the Jensen-Shannon divergence between predicted probabilities, in bit: 0 to 1.

    J = H((p + q) / 2) - (H(p) + H(q)) / 2, p and q the softmax of the logits. Its root is a metric, and Euclidean.
    """

    name = "jsd"
    title = "Jensen-Shannon divergence J of predicted probabilities (bit), distance sqrt(2 J)"
    spread_title = "mean Jensen-Shannon divergence over pairs (bit)"
    source = "Lin 1991, doi 10.1109/18.61115; Endres and Schindelin 2003, doi 10.1109/TIT.2003.813506; Fuglede and Topsøe 2004"
    isotropic_scaling = False

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        return softmax(X)

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        if len({cast(np.ndarray, P).shape[1] for P in factors}) > 1:
            raise ValueError("networks of different numbers of classes cannot be compared")
        P = np.stack(cast(list[np.ndarray], factors))  # [network, sample, class]
        num_networks, num_samples = P.shape[:2]
        own = _negative_entropies(P.copy())
        divergences = np.zeros((num_networks, num_networks))
        per_batch = max(1, JSD_BYTES // P[0].nbytes)
        for i in range(num_networks):
            for start in range(i + 1, num_networks, per_batch):
                stop = min(start + per_batch, num_networks)
                mixed = P[start:stop] + P[i]
                mixed *= 0.5
                found = (own[i] + own[start:stop]) / 2 - _negative_entropies(mixed)
                divergences[i, start:stop] = divergences[start:stop, i] = found
        return 1.0 - np.maximum(divergences, 0.0) / (num_samples * np.log(2))


def _negative_entropies(P: np.ndarray) -> np.ndarray:
    """Sum over samples and classes of p log p, `[network]`, float64. Overwrites P."""
    logarithms = np.log(np.maximum(P, np.finfo(P.dtype).tiny))
    logarithms *= P
    return logarithms.reshape(len(P), -1).sum(axis=1, dtype=np.float64)


def _agreements(classes: np.ndarray) -> np.ndarray:
    """Samples on which two networks have the same class, `[network, network]`, from classes `[network, sample]`.

    A product of zeros and ones per class; whole numbers are exact in float32 up to 2^24 samples, so samples are taken in tiles below that.
    """
    num_networks, num_samples = classes.shape
    counts = np.zeros((num_networks, num_networks))
    step = max(1, min(2**24, TILE_BYTES // (4 * num_networks)))
    for start in range(0, num_samples, step):
        part = classes[:, start : start + step]
        for value in np.unique(part):
            ones = (part == value).astype(np.float32)
            counts += ones @ ones.T
    return counts
