"""From a space to schedules: the grid, or a sample of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

from sweep.config import Space
from trainables.schedule import Phase, Schedule


def schedules(space: Space) -> list[Schedule]:
    """Every schedule to run, controls first, without repeats. Empty where the space is."""
    stressed = list(dict.fromkeys(_grid(space)))
    if space.sampler != "grid" and len(stressed) > (space.num_families or 0):
        stressed = _draw(space)
    given = [Schedule.of(phases) for phases in space.schedules]
    controls: list[Schedule] = []
    if space.controls:
        if space.sampler == "grid":
            controls += [Schedule((Phase(0, a, b),)) for a, b in product(space.activations, space.losses)]
        controls += [schedule.control for schedule in [*stressed, *given]]
    return sorted(dict.fromkeys([*controls, *given, *stressed]), key=lambda s: len(s.phases))


def is_empty(space: Space) -> bool:
    """Whether a space has no schedule at all."""
    has_control = space.controls and space.sampler == "grid" and bool(space.activations and space.losses)
    return not (space.schedules or has_control or any(True for _ in _grid(space)))


def _axes(space: Space) -> list[list[Any]]:
    """What a stressed schedule is made of: functions before, functions after, swap epoch, length of the pulse (0: for good)."""
    return [
        space.activations,
        space.losses,
        space.activations,
        space.losses,
        space.swap_epochs,
        [0, *space.pulse_epochs],
    ]


def _stressed(space: Space, activation: str, loss: str, to_activation: str, to_loss: str, epoch: int, length: int) -> Schedule | None:
    """The schedule of one point of the axes; None where the space does not have that swap."""
    changed = {(True, False): "activation", (False, True): "loss", (True, True): "both"}.get((activation != to_activation, loss != to_loss))
    if changed not in space.swaps:
        return None
    phases = [Phase(0, activation, loss), Phase(epoch, to_activation, to_loss)]
    return Schedule((*phases, *([Phase(epoch + length, activation, loss)] if length else [])))


def _grid(space: Space) -> Iterator[Schedule]:
    for point in product(*_axes(space)):
        schedule = _stressed(space, *point)
        if schedule is not None:
            yield schedule


def _draw(space: Space) -> list[Schedule]:
    """`num_families` different points of the axes, in the order drawn. Points without a swap are passed over."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of QMCSampler, since 2022
        sampler = (
            optuna.samplers.RandomSampler(space.seed)
            if space.sampler == "random"
            else optuna.samplers.QMCSampler(seed=space.seed, scramble=True, warn_independent_sampling=False)
        )
    study = optuna.create_study(sampler=sampler)
    axes = _axes(space)
    unit: dict[str, optuna.distributions.BaseDistribution] = {
        str(index): optuna.distributions.FloatDistribution(0.0, 1.0) for index in range(len(axes))
    }
    drawn: dict[Schedule, None] = {}
    while len(drawn) < (space.num_families or 0):
        trial = study.ask(unit)
        study.tell(trial, 0.0)
        point = [axis[min(int(trial.params[str(index)] * len(axis)), len(axis) - 1)] for index, axis in enumerate(axes)]
        schedule = _stressed(space, *point)
        if schedule is not None:
            drawn[schedule] = None
    return list(drawn)
