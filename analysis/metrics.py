"""A family's metrics by name, from its tables: what a search maximizes or minimizes.

The worker computes them at the end of a trial and the driver when it answers from the records: one function, one number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from analysis import tables
from analysis.measures.dispersion import spread
from analysis.measures.similarity import MEASURES
from analysis.storage import Store

_IDENTITY = {"schema_version", "replica", "seed", "diverged_at"}
# The mean over replicas of each: what a replica ends with.
MEANS = [c.name for c in tables.TABLES["replicas"].columns if c.name not in _IDENTITY and c.type != tables.TEXT]
REPRESENTATIONS = [name for name, measure in MEASURES.items() if measure.kind == "representation"]
SPREAD = "spread/<measure>/<layer>/<moment>"


def spread_names(layers: Iterable[str], moments: Iterable[str], epochs: Iterable[int] = ()) -> list[str]:
    """The names of all spreads of representations in these layers, at these moments and further epochs."""
    whens = [*moments, *(f"epoch_{epoch}" for epoch in epochs)]
    return [f"spread/{measure}/{layer}/{when}" for measure in REPRESENTATIONS for layer in layers for when in whens]


def metrics(store: Store, trial: str, names: Sequence[str]) -> dict[str, float]:
    """The named metrics of a finished family.

    A name is a column of `replicas`, meaning its mean over the replicas that did not diverge, or `spread/<measure>/<layer>/<moment>`,
    the spread that the analysis computes; the moment is one of `activations`, around swaps that of the first swap, or `epoch_<k>`.
    NaN where no replica has a value. Raises KeyError for a name that is no metric, or that this family's tables do not have.
    """
    replicas = tables.read(store, "replicas", only=[trial]).sort_values("replica")
    diverged_at = replicas["diverged_at"].astype(np.float64).fillna(np.inf).to_numpy()
    found = {}
    for name in names:
        if name.startswith("spread/"):
            found[name] = _spread(store, trial, name, diverged_at)
        elif name in MEANS:
            values = replicas[name].to_numpy(np.float64)
            values = values[np.isfinite(values) & np.isinf(diverged_at)]
            found[name] = float(values.mean()) if len(values) else float("nan")
        else:
            raise KeyError(f"{name!r} is no metric; allowed: {', '.join(MEANS)}, {SPREAD}")
    return found


def _spread(store: Store, trial: str, name: str, diverged_at: np.ndarray) -> float:
    _, measure, layer, when = name.split("/")
    at = re.fullmatch(r"epoch_(\d+)", when)
    looks = {
        epoch: X
        for (_, epoch, _), X in tables.read_activations(store, trial, "epoch" if at else when, layer).items()
        if at is None or epoch == int(at[1])
    }
    if not looks:
        raise KeyError(f"{name!r}: {trial} has no activations of that layer and moment")
    first = min(looks)
    return spread(MEASURES[measure].distances_of(looks[first], diverged_at > first)).spread
