"""From a space to points, each a family under some base recipe: the grid, or a sample of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product
from typing import Any, NamedTuple

from sweep.config import Space, Sweep
from sweep.samplers import quiet
from sweep.search import Range, number_type
from trainables.recipe import BaseRecipe
from trainables.schedule import Phase, Schedule

# What of the sweep file's base recipe is different: dotted keys, values as JSON.
Changes = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    """A family as the space names it."""

    changes: Changes
    schedule: Schedule

    @property
    def control(self) -> Point:
        return Point(self.changes, self.schedule.control)


def recipe_of(config: Sweep, changes: Changes) -> BaseRecipe:
    """The base recipe of a point. Raises ValueError (pydantic's) for values that the recipe refuses."""
    changed: dict[str, dict[str, Any]] = {}
    for key, value in changes:
        section, _, field = key.partition(".")
        changed.setdefault(section, {})[field] = json.loads(value)
    given = {name: getattr(config, name) for name in changed}
    # Only what changes is validated anew: of tens of thousands of recipes the rest would be most of the time.
    return config.recipe.model_copy(
        update={name: type(given[name]).model_validate(given[name].model_dump() | values) for name, values in changed.items()}
    )


def points(config: Sweep, proposed: Iterable[Point] = ()) -> list[Point]:
    """Every family to run, controls first, without repeats. Empty where the space is. With kind optuna the stressed ones are `proposed`."""
    space, search = config.space, config.search
    everything = search.kind == "grid" or (search.kind == "random" and num_stressed(space) <= (search.num_families or 0))
    changes = list(_every_change(space)) if everything else [()]
    if search.kind == "optuna":
        stressed = list(proposed)
    else:
        stressed = [Point(c, s) for c in changes for s in grid(space)] if everything else _draw(config)
    given = [Point(c, Schedule.of(phases)) for c in changes for phases in space.schedules]
    controls: list[Point] = []
    if space.controls:
        if search.kind == "grid":
            controls += [Point(c, Schedule((Phase(0, a, b),))) for c in changes for a, b in product(space.activations, space.losses)]
        controls += [point.control for point in [*stressed, *given]]
    return sorted(dict.fromkeys([*controls, *given, *stressed]), key=lambda p: len(p.schedule.phases))


def is_empty(config: Sweep) -> bool:
    """Whether a space has nothing to run; for a search, nothing to propose."""
    space, kind = config.space, config.search.kind
    has_control = space.controls and kind == "grid" and bool(space.activations and space.losses)
    given = kind != "optuna" and bool(space.schedules)
    return not (given or has_control or any(True for _ in grid(space)))


def num_stressed(space: Space) -> float:
    """Stressed families that the space has; infinity where a range of real numbers is among its axes."""
    num = sum(1 for _ in grid(space))
    return num * _num_recipes(space) if num else 0


def num_firsts(space: Space) -> float:
    """First phases that the space has under all its recipes: as many as there can be controls."""
    return len(space.activations) * len(space.losses) * _num_recipes(space)


def _num_recipes(space: Space) -> float:
    return math.prod(_length(key, axis) for key, axis in space.recipe.items())


def _length(key: str, axis: list[Any] | Range) -> float:
    if isinstance(axis, Range):
        return axis.high - axis.low + 1 if number_type(key) is int else math.inf
    return len(axis)


def axes(space: Space) -> dict[str, list[Any] | Range]:
    """What a stressed family is made of: functions before, functions after, swap epoch, length of the pulse (0: for good), recipe."""
    return {**_schedule_axes(space), **space.recipe}


def _schedule_axes(space: Space) -> dict[str, list[Any]]:
    return {
        "activation": space.activations,
        "loss": space.losses,
        "to_activation": space.activations,
        "to_loss": space.losses,
        "swap_epoch": space.swap_epochs,
        "pulse_epochs": [0, *space.pulse_epochs],
    }


def point(space: Space, values: Mapping[str, Any]) -> Point | None:
    """The point with these values of the axes; None where the space does not have that swap."""
    schedule = _stressed(space, *(values[name] for name in _schedule_axes(space)))
    return None if schedule is None else Point(tuple((key, json.dumps(values[key])) for key in space.recipe), schedule)


def _stressed(space: Space, activation: str, loss: str, to_activation: str, to_loss: str, epoch: int, length: int) -> Schedule | None:
    changed = {(True, False): "activation", (False, True): "loss", (True, True): "both"}.get((activation != to_activation, loss != to_loss))
    if changed not in space.swaps:
        return None
    phases = [Phase(0, activation, loss), Phase(epoch, to_activation, to_loss)]
    return Schedule((*phases, *([Phase(epoch + length, activation, loss)] if length else [])))


def grid(space: Space) -> Iterator[Schedule]:
    """Every stressed schedule once: no two points of the axes have the same."""
    for values in product(*_schedule_axes(space).values()):
        schedule = _stressed(space, *values)
        if schedule is not None:
            yield schedule


def corners(space: Space, section: str, at_once: int | None = None) -> Iterator[Changes]:
    """Combinations of the choices, and of the ends of ranges, of the axes over a section of the base recipe: all of them, or fewer that
    hold every combination of so many axes. One without changes where the section is not varied."""
    choices = {
        key: [axis.low, axis.high] if isinstance(axis, Range) else axis
        for key, axis in space.recipe.items()
        if key.partition(".")[0] == section
    }
    for varied in combinations(choices, min(len(choices), at_once or len(choices))):
        for values in product(*(choices[key] if key in varied else choices[key][:1] for key in choices)):
            yield tuple((key, json.dumps(value)) for key, value in zip(choices, values, strict=True))


def _every_change(space: Space) -> Iterator[Changes]:
    """Every combination of values of the recipe's axes, for a space without ranges of real numbers."""
    for values in product(*(_values(axis) for axis in space.recipe.values())):
        yield tuple((key, json.dumps(value)) for key, value in zip(space.recipe, values, strict=True))


def every_value(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of values of the axes, for a space without ranges of real numbers."""
    for values in product(*(_values(axis) for axis in axes(space).values())):
        yield dict(zip(axes(space), values, strict=True))


def _values(axis: list[Any] | Range) -> Iterable[Any]:
    return range(int(axis.low), int(axis.high) + 1) if isinstance(axis, Range) else axis


def at(key: str, axis: list[Any] | Range, share: float) -> Any:
    """The value that lies at a share in [0, 1] of an axis."""
    if not isinstance(axis, Range):
        return axis[min(int(share * len(axis)), len(axis) - 1)]
    low, high = float(axis.low), float(axis.high)
    if number_type(key) is int:
        high += 1  # each whole number has the stretch up to the next
    value = low * (high / low) ** share if axis.log else low + (high - low) * share
    return min(int(value), int(axis.high)) if number_type(key) is int else min(value, high)


def _draw(config: Sweep) -> list[Point]:
    """`num_families` different points, in the order drawn. Values of the axes without a swap are passed over."""
    import optuna

    space, search = config.space, config.search
    with quiet():
        sampler = (
            optuna.samplers.QMCSampler(seed=search.seed, scramble=True, warn_independent_sampling=False)
            if search.sampler == "qmc"
            else optuna.samplers.RandomSampler(search.seed)
        )
    study = optuna.create_study(sampler=sampler)
    unit: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in axes(space)
    }
    drawn: dict[Point, None] = {}
    while len(drawn) < (search.num_families or 0):
        trial = study.ask(unit)
        study.tell(trial, 0.0)
        found = point(space, {name: at(name, axis, trial.params[name]) for name, axis in axes(space).items()})
        if found is not None:
            drawn[found] = None
    return list(drawn)
