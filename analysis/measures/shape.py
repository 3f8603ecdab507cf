"""Shape distances: what remains between two clouds of samples after the best rotation of their features."""

from __future__ import annotations

from typing import cast

import numpy as np

from analysis.measures.features import centred, narrow
from analysis.measures.measure import Arrays, Measure
from analysis.measures.products import nuclear_norms


class _Shape(Measure):
    metric = True
    euclidean = False
    orthogonal = True
    isotropic_scaling = True
    translation = True
    invertible_linear = False

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        return narrow(centred(X))

    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        norms = nuclear_norms(cast(list[np.ndarray], factors))
        np.fill_diagonal(norms, 1.0)  # the Frobenius norm
        return norms


class ProcrustesDistance(_Shape):
    """Orthogonal Procrustes distance min_Q |X - Y Q| = sqrt(2 - 2 |X^T Y|_*), features centred and of Frobenius norm 1.

    |.|_* is the nuclear norm, the sum of singular values. A metric, not Euclidean.
    """

    name = "procrustes"
    title = "orthogonal Procrustes distance of centred, normalised features"
    spread_title = "1 - mean nuclear norm |X^T Y|_* over pairs"
    source = "Williams et al. 2021, arXiv 2110.14739; Ding et al. 2021, arXiv 2108.01661"


class AngularShapeDistance(_Shape):
    """Angle arccos |X^T Y|_* after the best rotation, in radians, 0 to pi / 2.

    Its cosine is the normalised Bures similarity |K^(1/2) L^(1/2)|_* / sqrt(tr K tr L) of Gram matrices.
    """

    name = "angular_shape"
    title = "angular shape distance arccos |X^T Y|_*: the angle of the normalised Bures similarity"
    spread_title = "half the mean squared angle over pairs (rad^2)"
    source = "Williams et al. 2021, arXiv 2110.14739; Harvey et al. 2023, arXiv 2311.11436"

    def _distances(self, similarities: np.ndarray) -> np.ndarray:
        return np.arccos(np.clip(similarities, -1.0, 1.0))
