"""What a measure of distance between networks is: its properties as data, a half per network, a half over all pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

# What a measure keeps of one network: arrays whose first axis is the sample. None where there is nothing to compare.
Arrays = np.ndarray | tuple[np.ndarray, ...]
Factor = Arrays | None


class Unfit(ValueError):
    """Why a measure is not defined for a representation."""


class Measure(ABC):
    """A distance sqrt(2 - 2 s) between networks, from a similarity s that is 1 for equal ones.

    What a network says to the same samples in the same order is `X [sample, feature]`: for kind `representation` the outputs of a
    layer, whose features may differ in number and meaning between networks; for kind `functional` the logits, whose features are the
    classes. float64 is computed in float64. Everything else is computed in float32 and summed in float64, which is within 1e-6 of
    float64 in s, so distances of unequal networks below 1e-3 are rounding; networks equal in every bit are at distance 0.

    The properties are those of the distance, not of s. A metric here is symmetric, 0 for equal networks, and keeps the triangle
    inequality; networks that differ only by what is left invariant are at distance 0, too.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    spread_title: ClassVar[str]  # what `dispersion.spread` computes from these distances
    source: ClassVar[str]
    kind: ClassVar[Literal["representation", "functional"]] = "representation"
    needs_labels: ClassVar[bool] = False  # the class of each sample is part of the measure
    metric: ClassVar[bool]
    symmetric: ClassVar[bool] = True
    larger_is_closer: ClassVar[bool] = False
    euclidean: ClassVar[bool]  # distances between points of a Euclidean space: no negative axes in PCoA
    orthogonal: ClassVar[bool]  # unchanged when a network's features are rotated or reflected
    isotropic_scaling: ClassVar[bool]  # unchanged when all features of a network are multiplied by one positive number
    translation: ClassVar[bool]  # unchanged when a constant is added to a feature
    invertible_linear: ClassVar[bool]  # unchanged under every invertible linear map of the features
    needs_equal_samples: ClassVar[bool] = True  # defined only between networks that saw the same samples
    needs_more_samples_than_features: ClassVar[bool] = False

    def prepare(self, X: np.ndarray, labels: np.ndarray | None = None) -> Factor:
        """The half that depends on one network. None where the measure is not defined; `reason` says why.

        Raises ValueError unless X is a matrix of at least 2 samples with a label `[sample]` each if the measure needs them.
        """
        try:
            return self._factor(_checked(X), self._labels(X, labels))
        except Unfit:
            return None

    def prepare_all(self, networks: Sequence[np.ndarray | None] | np.ndarray, labels: np.ndarray | None = None) -> list[Factor]:
        """`prepare` of each network, None for a None.

        Factors of the first one's shape lie side by side in one array: to give many arrays their pages costs as much as to fill them.
        """
        factors: list[Factor] = []
        together: np.ndarray | None = None
        for position, X in enumerate(networks):
            factor = None if X is None else self.prepare(X, labels)
            if isinstance(factor, np.ndarray):
                if together is None:
                    together = np.empty((len(networks), *factor.shape), factor.dtype)
                if (factor.shape, factor.dtype) == (together.shape[1:], together.dtype):
                    together[position] = factor
                    factor = together[position]
            factors.append(factor)
        return factors

    def reason(self, X: np.ndarray, labels: np.ndarray | None = None) -> str:
        """Why `prepare` gives None for X, empty where it does not."""
        try:
            self._factor(_checked(X), self._labels(X, labels))
        except Unfit as reason:
            return f"{self.name}: {reason}"
        return ""

    def pairwise(self, factors: Sequence[Factor]) -> np.ndarray:
        """Distances `[network, network]` from what `prepare` returned.

        Row and column of a None are NaN, its diagonal included; so are those of a network whose similarity to itself is not defined.
        """
        distances = np.full((len(factors), len(factors)), np.nan)
        valid = [i for i, factor in enumerate(factors) if factor is not None]
        if not valid:
            return distances
        present = [factor for factor in factors if factor is not None]
        if len({_first(factor).shape[0] for factor in present}) > 1:
            raise ValueError("representations of different numbers of samples cannot be compared")
        similarities = self._similarities(present)
        for i, j in _equal_pairs(present):
            similarities[i, j] = similarities[j, i] = np.nan if np.isnan(similarities[i, i]) else 1.0
        found = self._distances(similarities)
        np.fill_diagonal(found, np.where(np.isnan(np.diagonal(similarities)), np.nan, 0.0))
        distances[np.ix_(valid, valid)] = found
        return distances

    def between(self, factors: Sequence[Factor], others: Sequence[Factor]) -> np.ndarray:
        """Distances `[network, other network]` between two lists of what `prepare` returned: a block of a matrix too large for one
        piece. This default takes all pairs of both lists together, up to four times the work; a kernel may do better."""
        return self.pairwise([*factors, *others])[: len(factors), len(factors) :]

    def distances(self, networks: Sequence[np.ndarray] | np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Distances `[network, network]` between networks, each `[sample, feature]`."""
        return self.pairwise(self.prepare_all(networks, labels))

    def distances_of(self, X: np.ndarray, present: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Distances `[network, network]` between X `[network, sample, feature]`; those not `present [network]` are left out as NaN."""
        return self.pairwise(self.prepare_all([x if there else None for x, there in zip(X, present, strict=True)], labels))

    def _labels(self, X: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        if not self.needs_labels:
            return np.zeros(0, np.int64)
        if labels is None or np.shape(labels) != (len(X),):
            given = "none" if labels is None else f"an array of shape {np.shape(labels)}"
            raise ValueError(f"{self.name} needs the class of each of the {len(X)} samples, given is {given}")
        return np.asarray(labels)

    def _distances(self, similarities: np.ndarray) -> np.ndarray:
        """Distances from similarities, both `[network, network]`. Rounding above 1 counts as 1."""
        return np.sqrt(np.maximum(2.0 - 2.0 * similarities, 0.0))

    @abstractmethod
    def _factor(self, X: np.ndarray, labels: np.ndarray) -> Arrays:
        """What `pairwise` needs of one network. `labels` is empty unless the measure needs them. Raises Unfit."""

    @abstractmethod
    def _similarities(self, factors: list[Arrays]) -> np.ndarray:
        """Similarities `[network, network]`, float64, symmetric, with 1 on the diagonal; NaN there where they are not defined."""


def _checked(X: np.ndarray) -> np.ndarray:
    if X.ndim != 2 or X.shape[0] < 2:
        raise ValueError(f"a representation is a matrix [sample, feature] of at least 2 samples, not of shape {X.shape}")
    return X


def _first(factor: Arrays) -> np.ndarray:
    return factor[0] if isinstance(factor, tuple) else factor


def _equal_pairs(factors: list[Arrays]) -> list[tuple[int, int]]:
    """Pairs of networks with the same bits. A row of the first array tells most others apart without looking further."""
    seen: dict[bytes, list[int]] = {}
    pairs = []
    for j, factor in enumerate(factors):
        X = _first(factor)
        alike = seen.setdefault(X[0].tobytes() + X[-1].tobytes(), [])
        same = next((i for i in alike if _same(factors[i], factor)), None)
        if same is None:
            alike.append(j)
        else:
            pairs.append((same, j))
    # Equal to the same network is equal to each other.
    groups: dict[int, list[int]] = {}
    for i, j in pairs:
        groups.setdefault(i, [i]).append(j)
    return [(i, j) for group in groups.values() for n, i in enumerate(group) for j in group[n + 1 :]]


def _same(one: Arrays, other: Arrays) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(map(np.array_equal, one, other))
    return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.array_equal(one, other)
