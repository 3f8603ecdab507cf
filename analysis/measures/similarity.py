"""How far apart two networks are in representation, in one layer on one probe set.

A representation is `X [sample, feature]`: the same samples in the same order in every network; features may differ in
number and meaning. A measure is split into a half per network (`prepare`) and a half over all pairs (`pairwise`), so
that what depends on one network alone is computed once. What a measure leaves invariant is stated as data on its class.

Both measures are biased at few samples: unrelated networks look alike when there are not many more samples than
features. Compare spreads only at equal numbers of samples and features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

# A feature that varies by less than this share of its size varies by no more than a few roundings of float32.
COLLAPSED = 1e-6
TILE_BYTES = 128 * 2**20
NETWORKS_PER_BATCH = 256

Factor = np.ndarray | None


class Measure(ABC):
    """A distance sqrt(2 - 2 s) between representations, from a similarity s that is 1 for equal ones."""

    name: ClassVar[str]
    title: ClassVar[str]
    spread_title: ClassVar[str]  # what `dispersion.spread` computes from these distances
    metric: ClassVar[bool]  # symmetric, zero for equal ones, and the triangle inequality holds
    symmetric: ClassVar[bool]
    larger_is_closer: ClassVar[bool]
    euclidean: ClassVar[bool]  # distances between points of a Euclidean space: no negative axes in PCoA
    orthogonal: ClassVar[bool]  # unchanged when a network's features are rotated or reflected
    isotropic_scaling: ClassVar[bool]  # unchanged when all features of a network are multiplied by one number
    translation: ClassVar[bool]  # unchanged when a constant is added to a feature
    invertible_linear: ClassVar[bool]  # unchanged under every invertible linear map of the features

    def prepare(self, X: np.ndarray) -> Factor:
        """The half that depends on one network: its centred, normalised features `[sample, min(sample, feature)]`,
        float64.

        None where there is nothing to compare: a value is not finite, or every feature is constant over the samples.
        Raises ValueError unless X is a matrix of at least 2 samples.
        """
        if X.ndim != 2 or X.shape[0] < 2:
            raise ValueError(f"a representation is a matrix [sample, feature] of at least 2 samples, not of shape {X.shape}")
        if not np.isfinite(X).all():
            return None
        X = np.asarray(X, dtype=np.float64)
        # Centre before anything is squared: a Gram matrix of features far from zero has lost its digits.
        centred = X - X.mean(axis=0)
        if np.all(np.linalg.norm(centred, axis=0) <= COLLAPSED * np.linalg.norm(X, axis=0)):
            return None
        centred /= np.linalg.norm(centred)
        if centred.shape[1] > centred.shape[0]:  # the same Gram matrix from a square factor
            centred = np.linalg.qr(centred.T).R.T
        return self._normalise(centred)

    def pairwise(self, factors: Sequence[Factor]) -> np.ndarray:
        """Distances `[network, network]` from what `prepare` returned. Row and column of a None are NaN, its diagonal
        included."""
        distances = np.full((len(factors), len(factors)), np.nan)
        valid = [i for i, factor in enumerate(factors) if factor is not None]
        if not valid:
            return distances
        present = [factor for factor in factors if factor is not None]
        if len({factor.shape[0] for factor in present}) > 1:
            raise ValueError("representations of different numbers of samples cannot be compared")
        found = np.sqrt(np.maximum(2.0 - 2.0 * self._similarities(present), 0.0))
        np.fill_diagonal(found, 0.0)
        distances[np.ix_(valid, valid)] = found
        return distances

    def between(self, factors: Sequence[Factor], others: Sequence[Factor]) -> np.ndarray:
        """Distances `[network, other network]` between two lists of what `prepare` returned: a block of a matrix too large for one
        piece. This default takes all pairs of both lists together, up to four times the work; a kernel may do better."""
        return self.pairwise([*factors, *others])[: len(factors), len(factors) :]

    def distances(self, representations: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Distances `[network, network]` between representations, each `[sample, feature]`."""
        return self.pairwise([self.prepare(X) for X in representations])

    def distances_of(self, X: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Distances `[network, network]` between X `[network, sample, feature]`; those not `present [network]` are left out as NaN."""
        return self.pairwise([self.prepare(x) if there else None for x, there in zip(X, present, strict=True)])

    def _normalise(self, centred: np.ndarray) -> np.ndarray:
        return centred

    @abstractmethod
    def _similarities(self, factors: list[np.ndarray]) -> np.ndarray:
        """Similarities `[network, network]`, symmetric; the diagonal is not used."""


class CKADistance(Measure):
    """Chordal distance of linear CKA: sqrt(2 - 2 CKA), the distance between centred Gram matrices of norm 1.

    CKA = <K, L> / (|K| |L|) in the Frobenius product, K = X X^T of the centred features (Kornblith et al. 2019; the
    biased estimator). As a distance between points, here matrices, it is Euclidean, which 1 - CKA and arccos CKA are
    not.
    """

    name = "cka"
    title = "linear CKA (biased), chordal distance sqrt(2 - 2 CKA)"
    spread_title = "1 - mean CKA over pairs"
    metric = True
    symmetric = True
    larger_is_closer = False
    euclidean = True
    orthogonal = True
    isotropic_scaling = True
    translation = True
    invertible_linear = False

    def _normalise(self, centred: np.ndarray) -> np.ndarray:
        """Scaled so that the Gram matrix `[sample, sample]` has Frobenius norm 1."""
        return centred / np.sqrt(np.linalg.norm(centred.T @ centred))

    def _similarities(self, factors: list[np.ndarray]) -> np.ndarray:
        num_samples, width = factors[0].shape[0], float(np.mean([factor.shape[1] for factor in factors]))
        # Multiplications of the two routes: over Gram matrices, and over cross-covariances of features.
        gram = len(factors) * num_samples**2 * (width + len(factors) / 2)
        cross = len(factors) ** 2 / 2 * num_samples * width**2
        return self._by_gram(factors) if gram <= cross else self._by_features(factors)

    @staticmethod
    def _by_gram(factors: list[np.ndarray]) -> np.ndarray:
        """<K_i, K_j> for all pairs as one matrix product over flattened Gram matrices, in tiles of rows to bound
        memory."""
        num_networks, num_samples = len(factors), factors[0].shape[0]
        num_rows = max(1, min(num_samples, TILE_BYTES // (8 * num_networks * num_samples)))
        similarities = np.zeros((num_networks, num_networks))
        for start in range(0, num_samples, num_rows):
            tile = np.stack([X[start : start + num_rows] @ X.T for X in factors]).reshape(num_networks, -1)
            similarities += tile @ tile.T
        return similarities

    @staticmethod
    def _by_features(factors: list[np.ndarray]) -> np.ndarray:
        """The same as |X_i^T X_j|^2: no matrix over samples, for representations with many rows and few features."""
        beside = np.concatenate(factors, axis=1)
        starts = np.cumsum([0, *(X.shape[1] for X in factors[:-1])])
        rows = [np.add.reduceat(((X.T @ beside) ** 2).sum(axis=0), starts) for X in factors]
        return np.stack(rows)


class ProcrustesDistance(Measure):
    """Orthogonal Procrustes distance min_Q |X - Y Q| = sqrt(2 - 2 |X^T Y|_*), features centred and of Frobenius norm 1.

    |.|_* is the nuclear norm, the sum of singular values (Williams et al. 2021; Ding et al. 2021). A metric, not
    Euclidean.
    """

    name = "procrustes"
    title = "orthogonal Procrustes distance of centred, normalised features"
    spread_title = "1 - mean nuclear norm |X^T Y|_* over pairs"
    metric = True
    symmetric = True
    larger_is_closer = False
    euclidean = False
    orthogonal = True
    isotropic_scaling = True
    translation = True
    invertible_linear = False

    def _similarities(self, factors: list[np.ndarray]) -> np.ndarray:
        width = max(factor.shape[1] for factor in factors)
        # Columns of zeros leave every nuclear norm as it is and let networks of different width share a batch.
        beside = np.concatenate([np.pad(X, ((0, 0), (0, width - X.shape[1]))) for X in factors], axis=1)
        similarities = np.ones((len(factors), len(factors)))
        for i, X in enumerate(factors):
            for start in range(i + 1, len(factors), NETWORKS_PER_BATCH):
                stop = min(start + NETWORKS_PER_BATCH, len(factors))
                crosses = (X.T @ beside[:, start * width : stop * width]).reshape(X.shape[1], stop - start, width)
                spectra = np.linalg.svd(crosses.transpose(1, 0, 2), compute_uv=False)
                similarities[i, start:stop] = similarities[start:stop, i] = spectra.sum(axis=1)
        return similarities


MEASURES: dict[str, Measure] = {measure.name: measure for measure in (CKADistance(), ProcrustesDistance())}
