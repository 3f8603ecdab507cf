"""The axes of the space as Optuna's parameters, and back. Their names are what Optuna's plots and dashboard show."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sweep.config import Space
from sweep.search import Range, number_type
from sweep.space import axes

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The axes of the space as Optuna's parameters; those that the swaps leave no choice are left out."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, axis in axes(space).items():
        if name in _implied(space):
            continue
        if isinstance(axis, Range):
            found[name] = (
                IntDistribution(int(axis.low), int(axis.high), log=axis.log)
                if number_type(name) is int
                else FloatDistribution(float(axis.low), float(axis.high), log=axis.log)
            )
        elif name in ("swap_epoch", "pulse_epochs"):
            ordered = sorted(axis)
            steps = {b - a for a, b in pairwise(ordered)}
            even = len(steps) == 1
            found[name] = IntDistribution(ordered[0], ordered[-1], step=steps.pop()) if even else CategoricalDistribution(ordered)
        else:
            found[name] = CategoricalDistribution([_primitive(value) for value in axis])
    return found


def _implied(space: Space) -> dict[str, str | int]:
    """Axes without a choice: the parameter that they repeat, or their value."""
    swaps = set(space.swaps)
    implied: dict[str, str | int] = {}
    if not swaps & {"activation", "both"}:
        implied["to_activation"] = "activation"
    if not swaps & {"loss", "both"}:
        implied["to_loss"] = "loss"
    if not space.pulse_epochs:
        implied["pulse_epochs"] = 0
    return implied


def _primitive(value: Any) -> Any:
    """A choice as Optuna stores it: lists as text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)


def encode(space: Space, values: dict[str, Any]) -> dict[str, Any]:
    """Optuna's parameters from values of the axes."""
    return {name: _primitive(value) for name, value in values.items() if name not in _implied(space)}


def decode(space: Space, params: dict[str, Any]) -> dict[str, Any] | None:
    """Values of the axes from Optuna's parameters; None where the space does not have them."""
    values, implied = {}, _implied(space)
    for name, axis in axes(space).items():
        source = implied.get(name, name)
        if isinstance(source, int):
            values[name] = source
            continue
        if source not in params:
            return None
        value = params[source]
        if isinstance(axis, Range):
            if not axis.low <= value <= axis.high:
                return None
            values[name] = value
        else:
            known = [choice for choice in axis if _primitive(choice) == value]
            if not known:
                return None
            values[name] = known[0]
    return values
