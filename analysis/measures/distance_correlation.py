"""Distance correlation: do samples that lie far apart in one network lie far apart in the other?"""

from __future__ import annotations

from typing import cast

import numpy as np

from analysis.measures.cka import cosines
from analysis.measures.features import centred, narrow
from analysis.measures.measure import Arrays, Measure, Unfit
from analysis.measures.products import signature_products


class DistanceCorrelationDistance(Measure):
    """sqrt(2 - 2 R) with R the bias-corrected squared distance correlation: the cosine between U-centred matrices of distances.

    U-centring takes from a_ij = |x_i - x_j| the means of its row and column, a_i. / (n - 2) and a_.j / (n - 2), and adds
    a.. / ((n - 1)(n - 2)). R is about 0 for unrelated networks at any number of features and below 0 by chance; nothing is clipped. Needs
    4 samples, and is not defined where U-centring leaves nothing. Unlike CKA it sees every dependence, not the linear one alone.
    """

    name = "dcor_debiased"
    title = "distance correlation (bias-corrected, squared), distance sqrt(2 - 2 R)"
    spread_title = "1 - mean bias-corrected distance correlation over pairs"
    source = "Székely and Rizzo 2013, doi 10.1016/j.jmva.2013.02.012; 2014, arXiv 1310.2926"
    metric = True
    euclidean = True
    orthogonal = True
    isotropic_scaling = True
    translation = True
    invertible_linear = False

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        if len(X) < 4:
            raise Unfit(f"{len(X)} samples; U-centring needs 4")
        return narrow(centred(X))

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        matrices = cast(list[np.ndarray], factors)
        n = len(matrices[0])
        above = np.flatnonzero(np.triu(np.ones((n, n), bool), 1))
        products = signature_products(lambda network: _centred_distances(matrices[network], above), len(matrices))
        empty = np.diagonal(products) == 0
        products[empty] = products[:, empty] = np.nan
        return cosines(products)


def _centred_distances(Z: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The upper triangle, `above` as indices of the flat matrix, of U-centred distances between samples, of norm 1; zeros where none is
    left."""
    n, wide = len(Z), Z.astype(np.float64)  # in float32 the distance of near samples would be rounding
    D = wide @ wide.T
    squares = np.diagonal(D).copy()
    D *= -2
    D += squares[:, None]
    D += squares
    np.sqrt(np.maximum(D, 0, out=D), out=D)
    np.fill_diagonal(D, 0)
    rows = D.sum(axis=1) / (n - 2)
    size = np.sqrt(np.einsum("ij,ij->", D, D))
    D -= rows[:, None]
    D -= rows - rows.sum() / (n - 1)
    found = D.ravel()[above]
    norm = np.sqrt(found @ found)
    empty = norm <= np.sqrt(np.finfo(np.float64).eps) * size
    return (found * (0.0 if empty else 1 / norm)).astype(Z.dtype)
