"""Canonical correlations between the features of two networks: how much of one a linear map of the other explains.

Correlations are the singular values of Qx^T Qy, Q an orthonormal basis of a network's centred features. Only as many are compared as the
network of lower rank has dimensions, so a network is at distance 0 from every one that contains it, and nested networks break the triangle
inequality. Where the features span all that so many samples leave room for, every network explains every other, and the measure is not
defined; long before that, correlations are inflated: unrelated networks have a mean squared one of rank / (samples - 1).
"""

from __future__ import annotations

from typing import cast

import numpy as np

from analysis.measures.features import basis, centred, narrow
from analysis.measures.measure import Arrays, Measure, Unfit
from analysis.measures.products import cross_products, crosses, gram_products, nuclear_norms

KEPT_VARIANCE = 0.99


class _CCA(Measure):
    metric = False
    euclidean = False
    orthogonal = True
    isotropic_scaling = True
    translation = True
    invertible_linear = True
    needs_more_samples_than_features = True

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        Z = centred(X)
        return basis(Z).astype(Z.dtype)

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        bases = cast(list[np.ndarray], factors)
        found = self._sums(bases) / _smaller_ranks(bases)
        np.fill_diagonal(found, 1.0)
        return found

    def _sums(self, bases: list[np.ndarray]) -> np.ndarray:
        """Over the canonical correlations of each pair, `[network, network]`."""
        return nuclear_norms(bases)


class MeanCCADistance(_CCA):
    """sqrt(2 - 2 mean rho): mean canonical correlation, over the dimensions of the network of lower rank."""

    name = "cca_mean"
    title = "mean canonical correlation, distance sqrt(2 - 2 mean rho)"
    spread_title = "1 - mean canonical correlation over pairs"
    source = "Hotelling 1936; Raghu et al. 2017, arXiv 1706.05806"


class R2CCADistance(_CCA):
    """sqrt(2 - 2 R^2): mean squared canonical correlation |Qx^T Qy|^2 / min rank. One matrix product, no spectrum."""

    name = "cca_r2"
    title = "mean squared canonical correlation, distance sqrt(2 - 2 R^2)"
    spread_title = "1 - mean R^2 of CCA over pairs"
    source = "Kornblith et al. 2019, arXiv 1905.00414"

    def _sums(self, bases: list[np.ndarray]) -> np.ndarray:
        num_networks, (num_samples, rank) = len(bases), np.mean([Q.shape for Q in bases], axis=0)
        if num_samples * (rank + num_networks) > num_networks * rank**2:
            return cross_products(bases)
        diagonals = np.stack([np.einsum("ij,ij->i", Q, Q, dtype=np.float64) for Q in bases])
        return gram_products(bases) + diagonals @ diagonals.T


class SVCCADistance(_CCA):
    """sqrt(2 - 2 mean rho) between the leading principal components that hold 99 % of the variance of each network.

    So directions of little variance do not count, and the measure is not defined by them, unlike that of all features.
    """

    name = "svcca"
    title = "SVCCA: mean canonical correlation of the components with 99 % of the variance, distance sqrt(2 - 2 mean rho)"
    spread_title = "1 - mean canonical correlation of leading components over pairs"
    source = "Raghu et al. 2017, arXiv 1706.05806"
    invertible_linear = False

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        Z = narrow(centred(X))
        wide = Z.astype(np.float64)
        variances, directions = np.linalg.eigh(wide.T @ wide)
        variances, directions = variances[::-1], directions[:, ::-1]
        shares = np.cumsum(variances) / variances.sum()
        rank = 1 + int(np.searchsorted(shares, KEPT_VARIANCE))
        if rank >= len(Z) - 1:
            raise Unfit(f"{rank} components hold {KEPT_VARIANCE:.0%} of the variance of {len(Z)} samples; needs more samples")
        return np.ascontiguousarray((wide @ directions[:, :rank] / np.sqrt(variances[:rank])).astype(Z.dtype))


class PWCCADistance(_CCA):
    """sqrt(2 - 2 s) with s the mean of both directions of PWCCA: canonical correlations weighted by how much of a network they carry.

    From x to y: sum_i a_i rho_i / sum_i a_i with a_i = sum_j |<h_i, x_j>|, h_i the canonical variates Qx u_i and x_j the centred features.
    Weights from a sum over features depend on the axes of the features.
    """

    name = "pwcca"
    title = "PWCCA, mean of both directions, distance sqrt(2 - 2 mean weighted rho)"
    spread_title = "1 - mean projection-weighted canonical correlation over pairs"
    source = "Morcos et al. 2018, arXiv 1806.05759"
    orthogonal = False
    invertible_linear = False

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        Z = centred(X)
        Q = basis(Z)
        # The features in the coordinates of the basis, one row per sample so that it lies beside the basis: padded below.
        return Q.astype(Z.dtype), (Z.T @ Q).astype(Z.dtype).T

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        bases, features = [factor[0] for factor in factors], [factor[1] for factor in factors]
        similarities = np.eye(len(factors))
        for i, others, M in crosses(bases):
            U, rho, Vt = np.linalg.svd(M.astype(np.float64), full_matrices=False)
            for j, u, values, vt in zip(range(others.start, others.stop), U, rho, Vt, strict=True):
                count = min(bases[i].shape[1], bases[j].shape[1])
                forward = np.abs(u.T[:count] @ features[i]).sum(axis=1)
                backward = np.abs(vt[:count, : bases[j].shape[1]] @ features[j]).sum(axis=1)
                both = [weights @ values[:count] / weights.sum() for weights in (forward, backward)]
                similarities[i, j] = similarities[j, i] = np.mean(both)
        return similarities


def _smaller_ranks(bases: list[np.ndarray]) -> np.ndarray:
    ranks = np.array([Q.shape[1] for Q in bases])
    return np.minimum.outer(ranks, ranks)
