"""What a phase may do to the learning rate: functions of the rate that the recipe's schedule gives at a step."""

from __future__ import annotations

import math
from collections.abc import Callable

from analysis.registry import Registry, UnknownName

Rate = Callable[[float], float]

RATES: Registry[Rate] = Registry(
    "learning rate",
    {"tenth": lambda rate: rate / 10, "half": lambda rate: rate / 2, "double": lambda rate: rate * 2, "tenfold": lambda rate: rate * 10},
)


def check_rate(name: str) -> None:
    """Refuse a name or a user's function that gives no learning rate. Raises UnknownName."""
    function = RATES.resolve(name)
    try:
        found = [function(rate) for rate in (0.0, 1e-4, 0.1)]
    except Exception as error:
        raise UnknownName(f"learning rate {name!r} fails on a number: {type(error).__name__}: {error}") from error
    if not all(isinstance(rate, float) and math.isfinite(rate) and rate >= 0 for rate in found):
        raise UnknownName(f"learning rate {name!r} must give a finite number, 0 or above, for each learning rate; it gave {found}")
