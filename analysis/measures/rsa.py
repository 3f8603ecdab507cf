"""Representational similarity analysis: correlations between matrices of dissimilarity over pairs of samples (RDMs).

The RDM is the correlation distance: 1 minus the Pearson correlation over features between the responses to two samples. A sample to
which all features respond equally correlates with none. The networks' axes matter: features may be reordered, not rotated.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from analysis.measures.cka import cosines
from analysis.measures.features import real
from analysis.measures.measure import Arrays, Measure, Unfit
from analysis.measures.products import gram_products, signature_products


class _RSA(Measure):
    metric = True
    euclidean = True
    orthogonal = False
    isotropic_scaling = True
    translation = False
    invertible_linear = False
    source = "Kriegeskorte et al. 2008, doi 10.3389/neuro.06.004.2008; Schütt et al. 2023, doi 10.7554/eLife.82566"

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        if not np.isfinite(X).all():
            raise Unfit("a value is not finite")
        if X.shape[1] < 3:
            raise Unfit(f"{X.shape[1]} features; correlations over fewer than 3 are all 1 or -1")
        if len(X) < 3:
            raise Unfit(f"{len(X)} samples have one dissimilarity; needs 3")
        Z = responses(real(X))
        if np.ptp(Z, axis=0).max() <= 8 * np.finfo(Z.dtype).eps:
            raise Unfit("every sample has the same responses up to scale and shift, so no dissimilarity varies")
        return Z

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        return cosines(self._products(cast(list[np.ndarray], factors)))

    def _products(self, factors: list[np.ndarray]) -> np.ndarray:
        """Inner products of the RDMs, `[network, network]`."""
        raise NotImplementedError


class PearsonRSADistance(_RSA):
    """sqrt(2 - 2 r) with r the Pearson correlation between the upper triangles of two RDMs."""

    name = "rsa_pearson"
    title = "RSA: Pearson correlation of correlation-distance RDMs, distance sqrt(2 - 2 r)"
    spread_title = "1 - mean Pearson correlation of RDMs over pairs"

    def _products(self, factors: list[np.ndarray]) -> np.ndarray:
        # The mean of a triangle is known before the triangle, so that what is multiplied is centred and keeps its digits.
        means = [_mean_correlation(Z) for Z in factors]

        def centre(network: int, block: np.ndarray) -> None:
            block -= means[network]

        return gram_products(factors, centre)


class CosineRSADistance(_RSA):
    """sqrt(2 - 2 c) with c the cosine between the upper triangles of two RDMs, not centred: mean dissimilarity counts."""

    name = "rsa_cosine"
    title = "RSA: cosine of correlation-distance RDMs, distance sqrt(2 - 2 c)"
    spread_title = "1 - mean cosine of RDMs over pairs"

    def _products(self, factors: list[np.ndarray]) -> np.ndarray:
        def dissimilarity(network: int, block: np.ndarray) -> None:
            block -= 1  # its negative, for which cosines are the same

        return gram_products(factors, dissimilarity)


class SpearmanRSADistance(_RSA):
    """sqrt(2 - 2 rho) with rho the rank correlation between the upper triangles of two RDMs, equal values at their mean rank."""

    name = "rsa_spearman"
    title = "RSA: Spearman correlation of correlation-distance RDMs, distance sqrt(2 - 2 rho)"
    spread_title = "1 - mean Spearman correlation of RDMs over pairs"

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        super()._factor(X, labels)
        return real(X)

    def _products(self, factors: list[np.ndarray]) -> np.ndarray:
        n = len(factors[0])
        above = np.flatnonzero(np.triu(np.ones((n, n), bool), 1))
        dtype = np.result_type(*factors)
        return signature_products(lambda network: _unit_ranks(_grades(factors[network], above)).astype(dtype), len(factors))


def responses(X: np.ndarray) -> np.ndarray:
    """Responses to each sample, centred over features and of norm 1, or 0 where all are equal: the RDM is 1 - Z Z^T."""
    peaks = np.abs(X).max(axis=1, keepdims=True)
    Z = X / np.where(peaks > 0, peaks, 1)  # so that squares neither overflow nor vanish
    Z -= Z.mean(axis=1, keepdims=True, dtype=np.float64).astype(Z.dtype)
    norms = np.sqrt(np.einsum("ij,ij->i", Z, Z))
    flat = norms <= 8 * np.finfo(Z.dtype).eps * np.sqrt(X.shape[1])
    Z /= np.where(flat, 1, norms)[:, None]
    Z[flat] = 0
    return Z


def _grades(X: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The upper triangle of the RDM, `above` as indices of the flat matrix, on a scale of 2^30 whole numbers.

    From float64, so that equal dissimilarities, which are many in sparse layers, stay equal.
    """
    Z = responses(X.astype(np.float64))
    dissimilarities = 1 - (Z @ Z.T).ravel()[above]
    dissimilarities -= dissimilarities.min()
    dissimilarities *= 2**30 / (dissimilarities.max() or 1.0)
    return np.rint(dissimilarities, out=dissimilarities).astype(np.int32)


def _mean_correlation(Z: np.ndarray) -> float:
    """Mean over the upper triangle of Z Z^T."""
    sums, n = Z.sum(axis=0, dtype=np.float64), len(Z)
    squares = float(np.einsum("ij,ij->", Z, Z, dtype=np.float64))
    return float((sums @ sums - squares) / (n * (n - 1)))


def _unit_ranks(grades: np.ndarray) -> np.ndarray:
    """Ranks of whole numbers below 2^31, with mean 0 and norm 1, equal ones at their mean rank; zeros where all are equal.

    numpy sorts 16 bits by radix: first by the lower half, then, keeping that order, by the upper one.
    """
    num = len(grades)
    order = np.argsort(grades.astype(np.uint16), kind="stable")
    order = order[np.argsort((grades >> 16).astype(np.uint16)[order], kind="stable")]
    ordered = grades[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    middle = np.arange(num) - (num - 1) / 2
    if not begins.all():
        starts = np.flatnonzero(begins)
        counts = np.diff(starts, append=num)
        middle = np.repeat(starts + (counts - num) / 2, counts)
    middle /= np.sqrt(middle @ middle) or 1.0
    ranks = np.empty(num)
    ranks[order] = middle
    return ranks
