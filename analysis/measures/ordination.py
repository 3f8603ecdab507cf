"""Networks as points: principal coordinates (PCoA) of some networks, the landmarks, and others put among them by their distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.measures.similarity import Measure


@dataclass(frozen=True)
class Ordination:
    """The axes that a few landmarks span, by falling variance. Distances that are not Euclidean lose their negative axes."""

    landmarks: np.ndarray  # [landmark, sample, feature]
    squares: np.ndarray  # [landmark] mean squared distance of each landmark to the others and itself
    axes: np.ndarray  # [landmark, axis] eigenvectors over the roots of their eigenvalues
    explained: float  # share of the landmarks' variance that lies on these axes
    measure: Measure

    @classmethod
    def of(cls, measure: Measure, X: np.ndarray, num_axes: int) -> Ordination:
        """From representations `[landmark, sample, feature]`; those without a distance are left out.

        Raises ValueError where fewer than 2 different ones remain.
        """
        distances = measure.distances_of(X, np.ones(len(X), dtype=bool))
        valid = np.isfinite(np.diagonal(distances))
        squares = distances[np.ix_(valid, valid)] ** 2
        if len(squares) < 2 or squares.max() < 1e-12:
            raise ValueError("an ordination needs at least 2 different networks")
        mean = squares.mean(axis=0)
        values, vectors = np.linalg.eigh(-0.5 * (squares - mean - mean[:, None] + mean.mean()))
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = values[:num_axes] > 1e-9 * values[0]
        chosen = values[:num_axes][kept]
        return cls(
            X[valid], mean, vectors[:, :num_axes][:, kept] / np.sqrt(chosen), float(chosen.sum() / values[values > 0].sum()), measure
        )

    def place(self, X: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Coordinates `[network, axis]` of representations `[network, sample, feature]` (Gower 1968); NaN for those not `present`.

        Exact for Euclidean distances: the projection on the landmarks' axes. A landmark falls on itself.
        """
        joint = np.concatenate([X, self.landmarks])
        there = np.concatenate([present, np.ones(len(self.landmarks), dtype=bool)])
        squares = self.measure.distances_of(joint, there)[: len(X), len(X) :] ** 2
        return 0.5 * (self.squares - squares) @ self.axes
