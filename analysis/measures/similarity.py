"""The measures of distance between networks by name, and what they are as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.measures.cca import MeanCCADistance, PWCCADistance, R2CCADistance, SVCCADistance
from analysis.measures.cka import AngularCKADistance, CKADistance, DebiasedCKADistance
from analysis.measures.distance_correlation import DistanceCorrelationDistance
from analysis.measures.functional import ChurnDistance, DisagreementDistance, ErrorConsistencyDistance, JSDDistance
from analysis.measures.measure import Factor, Measure
from analysis.measures.neighbours import MutualKNNDistance
from analysis.measures.rsa import CosineRSADistance, PearsonRSADistance, SpearmanRSADistance
from analysis.measures.shape import AngularShapeDistance, ProcrustesDistance
from analysis.registry import Registry, UnknownName

__all__ = [
    "DEFAULT_MEASURES", "MEASURES", "CKADistance", "Factor", "Measure", "ProcrustesDistance", "check_measure", "expand",
    "properties_markdown",
]  # fmt: skip


def _measure(found: Any) -> Measure:
    """A measure, or the one that a class of measures makes."""
    try:
        made = found() if isinstance(found, type) and issubclass(found, Measure) else found
    except TypeError as error:
        raise ValueError(f"cannot be made: {error}") from error
    if not isinstance(made, Measure):
        raise ValueError(f"is {type(made).__name__}, not an analysis.measures.measure.Measure")
    absent = [flag for flag in (*PROPERTIES.values(), "title", "spread_title", "source") if not hasattr(made, flag)]
    if absent:
        raise ValueError(f"does not say whether or what it is: {', '.join(absent)}")
    return made


_BUILT_IN = (
    CKADistance(),
    DebiasedCKADistance(),
    AngularCKADistance(),
    ProcrustesDistance(),
    AngularShapeDistance(),
    MeanCCADistance(),
    R2CCADistance(),
    SVCCADistance(),
    PWCCADistance(),
    PearsonRSADistance(),
    SpearmanRSADistance(),
    CosineRSADistance(),
    DistanceCorrelationDistance(),
    MutualKNNDistance(),
    DisagreementDistance(),
    ChurnDistance(),
    JSDDistance(),
    ErrorConsistencyDistance(),
)
MEASURES: Registry[Measure] = Registry("measure", {measure.name: measure for measure in _BUILT_IN}, _measure)
# What an analysis computes unless told otherwise.
DEFAULT_MEASURES = ("cka", "procrustes", "cka_debiased")
ALL = "all"

# Column of the table of properties -> property, in the order of the table.
PROPERTIES = {
    "metric": "metric",
    "symmetric": "symmetric",
    "larger is closer": "larger_is_closer",
    "Euclidean": "euclidean",
    "rotation": "orthogonal",
    "scale": "isotropic_scaling",
    "shift": "translation",
    "linear map": "invertible_linear",
    "equal samples": "needs_equal_samples",
    "samples > features": "needs_more_samples_than_features",
}


def expand(names: Sequence[str]) -> list[str]:
    """Names of measures, once each; `all` stands for every one. Raises KeyError, with what is allowed, for a name that is none."""
    own = []
    for name in names:
        try:
            own += [name] if name != ALL and MEASURES.resolve(name) and name not in MEASURES else []
        except UnknownName as error:
            raise KeyError(f"{error}, or {ALL}") from None
    return [*MEASURES, *dict.fromkeys(own)] if ALL in names else list(dict.fromkeys(names))


def check_measure(name: str) -> None:
    """Refuse a name or a user's measure that gives no distances on three small networks. Raises UnknownName."""
    measure = MEASURES.resolve(name)
    X = np.random.default_rng(0).standard_normal((3, 40, 4)).astype(np.float32)
    labels = np.arange(40) % 4
    try:
        D = measure.distances(X, labels)
    except Exception as error:
        raise UnknownName(f"measure {name!r} fails on 3 networks [40 samples, 4 features]: {type(error).__name__}: {error}") from error
    off = D[~np.eye(3, dtype=bool)]
    if D.shape != (3, 3) or not np.isfinite(off).all() or (off <= 0).any() or np.diagonal(D).any():
        raise UnknownName(f"measure {name!r} must give distances [3, 3] between 3 unequal networks, 0 on the diagonal, above 0 elsewhere")
    if measure.symmetric and not np.allclose(D, D.T, atol=1e-5):
        raise UnknownName(f"measure {name!r} says that it is symmetric, and is not")


def properties_markdown() -> str:
    """The properties of every measure's distance as a table."""
    rows = [["measure", "of", *PROPERTIES], ["---"] * (2 + len(PROPERTIES))]
    for name, measure in MEASURES.items():
        marks = ["yes" if getattr(measure, flag) else "–" for flag in PROPERTIES.values()]
        rows.append([f"`{name}`", "outputs" if measure.kind == "functional" else "layer", *marks])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
