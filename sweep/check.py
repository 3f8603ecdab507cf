"""Refuse bad input before anything runs: what the sweep file's types cannot say."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from analysis.measures.similarity import check_measure
from analysis.metrics import MEANS, REPRESENTATIONS, SPREAD, spread_names
from analysis.registry import UnknownName
from analysis.storage import Store
from sweep import cluster
from sweep.config import ConfigError, Resources, Sweep, near
from sweep.extras import missing
from sweep.samplers import sampler
from sweep.search import RECIPE_KEYS, Range, number_type
from sweep.space import corners, grid, is_empty, points, recipe_of
from trainables import data as data_sets
from trainables.activations import check_activation
from trainables.data.augment import largest_cut
from trainables.data.function import check_repeats
from trainables.executors import choose_executor
from trainables.losses import check_loss
from trainables.models import build, check_layers, check_model, default_layers
from trainables.precision import check_precision
from trainables.probes.activations import probe_set
from trainables.probes.own import check_probe
from trainables.probes.stability import check_stability
from trainables.probes.stitching import check_stitching
from trainables.rates import check_rate
from trainables.recipe import BaseRecipe, FunctionData, Model
from trainables.schedule import Schedule

MOST_KEYS = 3  # no rule of the base recipe is about more of its keys at once (nesterov, optimizer, momentum)


def check(config: Sweep, source: str) -> data_sets.Dataset:
    """Load the data and check names, epochs, sizes and layers against each other. Raises ConfigError with every problem found."""
    problems: list[str] = []

    def attempt(key: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (UnknownName, data_sets.DataError, ValueError) as error:
            problems.append(f"{key}: {error}")
            return None

    space, num_epochs = config.space, config.training.epochs
    phases = [phase for given in space.schedules for phase in given]
    for index, given in enumerate(space.schedules):
        attempt(f"space.schedules[{index}]", _schedule, given, num_epochs)
    for name in dict.fromkeys([*space.activations, *(str(p[1]) for p in phases if len(p) >= 3)]):
        attempt("space.activations", check_activation, name)
    for name in dict.fromkeys([*space.losses, *(str(p[2]) for p in phases if len(p) >= 3)]):
        attempt("space.losses", check_loss, name)
    for name in config.analysis.measures:
        if ":" in name:
            attempt("analysis.measures", check_measure, name)
    for key, lengths in (("swap_epochs", [0]), ("pulse_epochs", space.pulse_epochs)):
        outside = sorted({e + length for e in space.swap_epochs for length in lengths if not 0 < e + length < num_epochs})
        if outside:
            problems.append(
                f"space.{key}: a swap at epoch {', '.join(map(str, outside))} lies outside the training; "
                f"allowed: 1 to {num_epochs - 1} (training.epochs is {num_epochs})"
            )
    axes_problems = check_axes(config)
    problems += axes_problems
    valid = config if not axes_problems else config.model_copy(update={"space": space.model_copy(update={"recipe": {}})})
    varied = [config.model, *(recipe_of(valid, changes).model for changes in corners(valid.space, "model"))]
    models = list({model.model_dump_json(): model for model in varied}.values())
    for model in models:
        attempt("model.name", check_model, model)
    data = attempt("data", data_sets.load, config.data)
    if data is not None:
        if isinstance(config.data, FunctionData):
            attempt("data", check_repeats, config.data)
        attempt("probes.num_samples", probe_set, data, config.probes)
        if config.probes.stability is not None:
            attempt("probes.stability.warps", check_stability, config.probes.stability, data.image_shape)
        batch_size = max(_values_of(valid, "training.batch_size"))
        for changes in corners(valid.space, "data"):
            trained = attempt("data", data_sets.load, recipe_of(valid, changes).data)
            if trained is not None and batch_size > len(trained.train.labels):
                problems.append(f"training.batch_size: {batch_size} is more than the {len(trained.train.labels)} training images")
    if data is not None and not any(p.startswith("model") for p in problems):
        where = "cuda" if config.resources.gpus_per_family else "cpu"
        for diffeo in {recipe_of(valid, changes).training.diffeo for changes in corners(valid.space, "training", 1)} - {None}:
            attempt("training.diffeo", largest_cut, diffeo, data.image_shape)
        for precision in _values_of(valid, "training.precision"):
            attempt("training.precision", check_precision, precision, where)
        for model in models:
            built = attempt("model", _try_model, model, data)
            if built is None:
                continue
            attempt("resources.executor", choose_executor, config.resources.executor, where, model, data.image_shape, data.num_classes)
            if config.probes.layers is not None:
                attempt("probes.layers", check_layers, built, config.probes.layers)
            if config.probes.stitching is not None:
                attempt("probes.stitching", check_stitching, config.probes.stitching, built, data.image_shape)
            if config.probes.hull is not None:
                attempt("probes.hull.layers", check_layers, built, config.probes.hull.layers or [])
            problems += check_objectives(config, config.probes.layers or default_layers(built))
    if data is not None and not problems:
        for name in config.probes.own:
            attempt("probes.own", check_probe, name, config.recipe, data, _first_schedule(config))
    problems += check_search(config)
    problems += check_epochs(config)
    if config.search.kind == "random" and not any(True for _ in grid(space)):
        problems.append("search.kind: random draws swaps, and the space has none; kind grid runs controls and space.schedules")
    if not problems and is_empty(config):
        problems.append("space: is empty; it needs activations, losses and controls, or swaps between at least two of them")
    if problems or data is None:
        raise ConfigError(source, problems)
    return data


def check_epochs(config: Sweep) -> list[str]:
    """Epochs to be recorded at whose end no family stands still to be looked at."""
    every, num_epochs = config.probes.evaluate_every, config.training.epochs
    allowed = [*range(0, num_epochs, every), num_epochs]
    refused = sorted({*config.probes.epochs} - {*allowed})
    if not refused:
        return []
    nearest = ", ".join(str(min(allowed, key=lambda epoch: abs(epoch - e))) for e in refused)
    grid = f"0 to {num_epochs}" if every == 1 else f"0 and every {every} epochs (probes.evaluate_every), and {num_epochs}"
    return [f"probes.epochs: {refused} are no epochs at which every family is evaluated; did you mean {nearest}? allowed: {grid}"]


def _first_schedule(config: Sweep) -> Schedule:
    """One that the sweep would run, for a try; of a search, which has none yet, one that it may propose."""
    return next((point.schedule for point in points(config)), None) or next(grid(config.space))


def check_search(config: Sweep) -> list[str]:
    """What is wrong with a search by Optuna before it has begun: options of the sampler."""
    search, problems = config.search, []
    if search.kind == "optuna":
        try:
            sampler(search, 0)
        except Exception as error:  # whatever the constructor says of its arguments
            problems.append(f"search.sampler_options.{error}")
    return problems


def check_objectives(config: Sweep, layers: list[str]) -> list[str]:
    """Objectives that are no metric of a model with these layers recorded."""
    probes = config.probes
    spreads = spread_names(layers, probes.moments, probes.epochs)
    allowed = f"{', '.join(MEANS)}, {SPREAD} with {', '.join(REPRESENTATIONS)}; {', '.join(layers)}; {', '.join(probes.moments)}, epoch_<k>"
    problems = []
    for index, objective in enumerate(config.search.objectives):
        if objective.metric not in [*MEANS, *spreads]:
            hint = near(objective.metric, [*MEANS, *spreads])
            problems.append(f"search.objectives[{index}].metric: {objective.metric!r} is no metric; {hint}allowed: {allowed}")
    return problems


def check_axes(config: Sweep) -> list[str]:
    """What is wrong with the axes over the base recipe: keys, kinds of axes, values, and values together."""
    problems = []
    for key, axis in config.space.recipe.items():
        where = f"space.recipe.{key}"
        if key not in RECIPE_KEYS:
            problems.append(f"{where}: cannot be varied; {near(key, RECIPE_KEYS)}allowed: {', '.join(RECIPE_KEYS)}")
        elif isinstance(axis, Range) and config.search.kind == "grid":
            problems.append(f"{where}: a range has no grid; give a list of choices, or another search.kind than grid")
        elif isinstance(axis, Range) and number_type(key) is None:
            problems.append(f"{where}: holds no number, so a range is refused; give a list of choices")
        else:
            refused = {str(value): _refusal(config, {key: value}, key) for value in _values_of(config, key)}
            problems += [f"{where}: {value} is refused: {why}" for value, why in refused.items() if why]
    if not problems:
        # No section looks into another one. Within one, as many axes at once as its longest rule has keys.
        found = dict.fromkeys(changes for name in BaseRecipe.model_fields for changes in corners(config.space, name, MOST_KEYS))
        together = (_refusal(config, {k: json.loads(v) for k, v in changes}) for changes in found)
        problems += [f"space.recipe: {why}" for why in dict.fromkeys(together) if why][:3]
    return problems


def _values_of(config: Sweep, key: str) -> list[Any]:
    """What a key of the base recipe is in the families: its axis' choices, or the ends of its range; else the one value."""
    axis = config.space.recipe.get(key)
    if axis is None:
        section, _, field = key.partition(".")
        return [getattr(getattr(config, section), field)]
    return [axis.low, axis.high] if isinstance(axis, Range) else axis


def _refusal(config: Sweep, values: dict[str, Any], key: str | None = None) -> str | None:
    """Why the base recipe refuses values of its keys; with `key`, why it refuses that one, whatever the others are."""
    try:
        recipe_of(config, tuple((k, json.dumps(v)) for k, v in values.items()))
    except ValidationError as error:
        for e in error.errors():
            if key is None or key.rpartition(".")[2] in e["loc"]:
                shown = ", ".join(f"{k} {v!r}" for k, v in values.items())
                text = str(e.get("ctx", {}).get("error", e["msg"]))
                return f"{shown}: {text}" if key is None else text
    return None


def _try_model(config: Model, data: data_sets.Dataset) -> nn.Module:
    """Build the model and send two images through it."""
    try:
        model = build(config, data.image_shape, data.num_classes).eval()
    except RuntimeError as error:  # of torch, where there is no memory for it
        raise UnknownName(f"{config.name!r} cannot be built: {str(error).splitlines()[0]}") from error
    try:
        with torch.no_grad():
            output = model(data.train.images[:2])
    except (RuntimeError, ValueError, IndexError) as error:
        size = "x".join(map(str, data.image_shape))
        raise UnknownName(f"{config.name!r} cannot process images of {size}: {error}") from error
    if not isinstance(output, torch.Tensor) or output.shape != (2, data.num_classes):
        raise UnknownName(f"{config.name!r} does not give one logit per class, as a classifier does")
    return model


def num_cpus(config: Sweep) -> int:
    """CPUs that the sweep may use on this machine."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return config.resources.num_cpus or here


def num_slots(config: Sweep) -> int:
    """Families that this machine trains at once. GPUs limit it where there are any to be seen."""
    return max(1, families_at_once(config.resources, num_cpus(config), torch.cuda.device_count() or math.inf))


def families_at_once(wanted: Resources, cpus: float, gpus: float) -> int:
    """Families that fit on a machine with so many CPUs and GPUs. A family lies on one GPU: on two, 0.4 of each fit 4 times, not 5."""
    slots = cpus / wanted.cpus_per_family
    if wanted.gpus_per_family:
        slots = min(slots, gpus * int(1 / wanted.gpus_per_family))
    return int(slots + 1e-9)


def _check_resources(config: Sweep) -> list[str]:
    """Reservations that this machine can never meet would leave every family waiting. A cluster says for itself what it has."""
    if address := cluster.address():
        return [] if cluster.answers(address) else [f"RAY_ADDRESS: nothing answers at {address!r}; unset it to run on this machine"]
    wanted, problems = config.resources, []
    if wanted.cpus_per_family > num_cpus(config):
        problems.append(f"resources.cpus_per_family: {wanted.cpus_per_family:g} is more than the {num_cpus(config)} CPUs there are")
    if wanted.gpus_per_family > torch.cuda.device_count():
        problems.append(
            f"resources.gpus_per_family: {wanted.gpus_per_family:g}, but this machine has {torch.cuda.device_count()} GPUs; "
            "--set resources.gpus_per_family=0 trains on CPUs"
        )
    return problems


def check_here(config: Sweep, store: Store, source: str) -> None:
    """Refuse to run where the results cannot be written or the machine lacks what is reserved. Raises ConfigError."""
    problems = [*_check_resources(config), *(f"tracking: {why}" for name in config.tracking if (why := missing(name)))]
    try:
        store.check_writable()
    except OSError as error:
        problems.append(f"storage.path: {config.storage.path!r} cannot be written: {error}")
    if problems:
        raise ConfigError(source, problems)


_CHECKS = {"learning_rate": check_rate}  # of every slot of trainables.schedule.FURTHER


def _schedule(phases: list[list[int | str]], num_epochs: int) -> None:
    if any(len(p) < 3 or not isinstance(p[0], int) or not all(isinstance(x, str) for x in p[1:]) for p in phases):
        raise ValueError(f"{phases!r} is refused: a schedule is a list of [start_epoch, activation, loss], and slot=name for what else")
    late = [p[0] for p in phases if isinstance(p[0], int) and p[0] >= num_epochs]
    if late:
        raise ValueError(f"a swap at epoch {late[0]} lies outside the training; allowed: 1 to {num_epochs - 1}")
    for phase in Schedule.of(phases).phases:
        for slot, name in list(phase.functions.items())[2:]:
            _CHECKS[slot](name)
