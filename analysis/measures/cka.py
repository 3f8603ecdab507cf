"""Centred kernel alignment with the linear kernel: the cosine between Gram matrices over samples."""

from __future__ import annotations

from typing import cast

import numpy as np

from analysis.measures.features import centred, narrow
from analysis.measures.measure import Arrays, Measure, Unfit
from analysis.measures.products import cross_products, gram_products


class _CKA(Measure):
    metric = True
    orthogonal = True
    isotropic_scaling = True
    translation = True
    invertible_linear = False

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        return narrow(centred(X))

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        return cosines(self._products(cast(list[np.ndarray], factors)))

    def _products(self, factors: list[np.ndarray]) -> np.ndarray:
        """<K, L> `[network, network]`, K = X X^T."""
        off_diagonal, diagonals = _off_diagonal(factors)
        return off_diagonal + diagonals @ diagonals.T


class CKADistance(_CKA):
    """Chordal distance of linear CKA: sqrt(2 - 2 CKA), the distance between centred Gram matrices of norm 1.

    CKA = <K, L> / (|K| |L|) in the Frobenius product, K = X X^T of the centred features; the biased estimator. As a distance between
    points, here matrices, it is Euclidean, which 1 - CKA and arccos CKA are not.
    """

    name = "cka"
    title = "linear CKA (biased), chordal distance sqrt(2 - 2 CKA)"
    spread_title = "1 - mean CKA over pairs"
    source = "Kornblith et al. 2019, arXiv 1905.00414"
    euclidean = True


class AngularCKADistance(_CKA):
    """Angle arccos CKA between centred Gram matrices, in radians, 0 to pi / 2. A metric along the sphere of Gram matrices."""

    name = "cka_angular"
    title = "linear CKA (biased), angle arccos CKA"
    spread_title = "half the mean squared arccos CKA over pairs (rad^2)"
    source = "Williams et al. 2021, arXiv 2110.14739"
    euclidean = False

    def _distances(self, similarities: np.ndarray) -> np.ndarray:
        return np.arccos(np.clip(similarities, -1.0, 1.0))


class DebiasedCKADistance(_CKA):
    """Chordal distance of debiased linear CKA: H(K, L) / sqrt(H(K, K) H(L, L)) with the unbiased estimator of HSIC,

    H(K, L) = <K, L> - n / (n - 2) k . l + tr K tr L / ((n - 1)(n - 2)), up to a factor, k = diag K, of centred features. It is the
    cosine of U-centred Gram matrices: about 0 for unrelated networks at any number of features, below 0 by chance, where the distance
    is above sqrt(2). Nothing is clipped. Needs 4 samples, and is not defined where U-centring leaves nothing, as when a single sample
    differs from all others.
    """

    name = "cka_debiased"
    title = "linear CKA (debiased), chordal distance sqrt(2 - 2 CKA)"
    spread_title = "1 - mean debiased CKA over pairs"
    source = "Song et al. 2012 (JMLR 13); Székely and Rizzo 2014, arXiv 1310.2926"
    euclidean = True

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        if len(X) < 4:
            raise Unfit(f"{len(X)} samples; the debiased estimator needs 4")
        return super()._factor(X, labels)

    def _products(self, factors: list[np.ndarray]) -> np.ndarray:
        n = len(factors[0])
        off_diagonal, diagonals = _off_diagonal(factors)
        traces = diagonals.sum(axis=1)
        corrections = 2 / (n - 2) * diagonals @ diagonals.T
        found = off_diagonal - corrections + np.outer(traces, traces) / ((n - 1) * (n - 2))
        # What is left of a Gram matrix that U-centring takes away whole is rounding.
        rounding = 16 * np.sqrt(n) * np.finfo(factors[0].dtype).eps
        empty = np.diagonal(found) <= rounding * np.diagonal(off_diagonal + corrections)
        found[empty] = found[:, empty] = np.nan
        return found


def cosines(products: np.ndarray) -> np.ndarray:
    """Inner products `[network, network]` divided by both norms."""
    norms = np.sqrt(np.diagonal(products))
    return products / np.outer(norms, norms)


def _off_diagonal(factors: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """<K_i, K_j> over off-diagonal elements `[network, network]`, and diagonals `[network, sample]`, float64."""
    diagonals = np.stack([np.einsum("ij,ij->i", X, X) for X in factors], dtype=np.float64)
    num_networks, (num_samples, width) = len(factors), np.mean([X.shape for X in factors], axis=0)
    # Multiplications of the two routes: over Gram matrices, and over cross-covariances of features.
    gram = num_networks * num_samples**2 / 2 * (width + num_networks)
    cross = num_networks**2 / 2 * num_samples * width**2
    if gram <= cross:
        return gram_products(factors), diagonals
    return cross_products(factors) - diagonals @ diagonals.T, diagonals
