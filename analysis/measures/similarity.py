"""The measures of distance between networks by name, and what they are as a table."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from analysis.measures.cca import MeanCCADistance, PWCCADistance, R2CCADistance, SVCCADistance
from analysis.measures.cka import AngularCKADistance, CKADistance, DebiasedCKADistance
from analysis.measures.distance_correlation import DistanceCorrelationDistance
from analysis.measures.functional import ChurnDistance, DisagreementDistance, ErrorConsistencyDistance, JSDDistance
from analysis.measures.measure import Factor, Measure
from analysis.measures.neighbours import MutualKNNDistance
from analysis.measures.rsa import CosineRSADistance, PearsonRSADistance, SpearmanRSADistance
from analysis.measures.shape import AngularShapeDistance, ProcrustesDistance

__all__ = ["DEFAULT_MEASURES", "MEASURES", "CKADistance", "Factor", "Measure", "ProcrustesDistance", "expand", "properties_markdown"]

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
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
}
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
    for name in names:
        if name != ALL and name not in MEASURES:
            near = get_close_matches(name, MEASURES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise KeyError(f"unknown measure {name!r}; {hint}allowed: {', '.join(MEASURES)}, {ALL}")
    return list(MEASURES) if ALL in names else list(dict.fromkeys(names))


def properties_markdown() -> str:
    """The properties of every measure's distance as a table."""
    rows = [["measure", "of", *PROPERTIES], ["---"] * (2 + len(PROPERTIES))]
    for name, measure in MEASURES.items():
        marks = ["yes" if getattr(measure, flag) else "–" for flag in PROPERTIES.values()]
        rows.append([f"`{name}`", "outputs" if measure.kind == "functional" else "layer", *marks])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
