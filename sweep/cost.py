"""What a plan will cost: device-seconds and bytes of every family, from records of like families, or from a small one timed here."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis import tables
from analysis.spreads import stated
from analysis.storage import Store
from analysis.wording import counted
from sweep.check import num_cpus, num_slots
from sweep.config import Sweep
from sweep.plan import Plan, Planned, device, num_threads, readable_trials
from sweep.probe import ProbeFailed, functions_in_turn, time_apart, time_family
from sweep.simulate import Simulation, simulate
from sweep.units import duration
from trainables.data import Dataset, load
from trainables.family import prepare_process
from trainables.image_rows import seconds_left
from trainables.models import build
from trainables.options import Probes
from trainables.probes import Look
from trainables.probes.activations import ActivationsProbe
from trainables.probes.stability import stability_bytes
from trainables.schedule import Schedule
from trainables.training import FamilyTraining

# Fitted to the tables of the recipes cells, breastmnist and quick: bytes on disk per byte of activations, per row group of them,
# per predicted class, of a table of the end (baselines, stitching), of a row of `hull`, and of all other tables per family.
_ACTIVATIONS_RATIO, _ROW_GROUP_BYTES, _PREDICTION_BYTES, _END_BYTES, _HULL_ROW_BYTES, _FAMILY_BYTES = 0.87, 2600, 0.15, 3500, 40, 33_000
# What of a training recipe does not change what an epoch costs.
_COSTS_NOTHING = {"epochs", "replicas", "first_seed", "learning_rate", "momentum", "weight_decay", "schedule", "warmup_epochs"}


@dataclass(frozen=True)
class Rates:
    """Seconds per replica of an epoch, of a swap, and of a family's start and end; NaN where nothing tells. `source` says whence."""

    epoch_s: float
    swap_s: float
    family_s: float
    source: str

    def seconds(self, planned: Planned, num_epochs: int) -> float:
        """Seconds of a family, per replica."""
        num_swaps = sum(1 for epoch in planned.schedule.swap_epochs if epoch >= planned.start_epoch)
        return self.epoch_s * (num_epochs - planned.start_epoch) + self.swap_s * num_swaps + self.family_s


@dataclass(frozen=True)
class Line:
    """A line of the plan: families of one kind that remain to be run."""

    kind: str
    families: int
    replica_epochs: int
    seconds: float
    table_bytes: float


@dataclass(frozen=True)
class Cost:
    """Seconds of one device and bytes of tables for each remaining family; bytes of one training state at most.

    images_s: device-seconds that pass while the images of data sets are measured once, after training, with all slots held.
    """

    plan: Plan
    seconds: dict[str, float]
    table_bytes: dict[str, float]
    state_bytes: float
    source: str
    slots: int
    images_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds of the families."""
        return math.fsum(self.seconds.values())

    @property
    def whole_s(self) -> float:
        """Seconds of the families and of what is done once for all: what a budget has to pay."""
        return self.total_s + self.images_s

    @property
    def wall_s(self) -> float:
        """Seconds of the clock until all that is done, start-up aside."""
        return self.simulation.seconds + self.images_s / self.slots

    @property
    def total_bytes(self) -> float:
        return math.fsum(self.table_bytes.values())

    @property
    def is_known(self) -> bool:
        """Whether the seconds are numbers."""
        return math.isfinite(self.total_s)

    @cached_property
    def simulation(self) -> Simulation:
        """The run played through; with families of equal epochs where their cost is not known."""
        epochs = self.plan.config.training.epochs
        seconds = self.seconds if self.is_known else {t: float(epochs - p.start_epoch) for t, p in self.plan.remaining.items()}
        return simulate(self.plan, seconds, self.slots)

    def of(self, plan: Plan) -> Cost:
        """The cost of a plan of fewer families."""
        return replace(
            self,
            plan=plan,
            seconds={trial: self.seconds[trial] for trial in plan.remaining},
            table_bytes={trial: self.table_bytes[trial] for trial in plan.remaining},
        )

    def lines(self) -> list[Line]:
        """The cost by kind of schedule."""
        replicas, num_epochs = self.plan.config.training.replicas, self.plan.config.training.epochs
        by_kind: dict[str, list[Planned]] = defaultdict(list)
        for planned in self.plan.remaining.values():
            by_kind[kind(planned.schedule)].append(planned)
        return [
            Line(
                name,
                len(group),
                sum(num_epochs - p.start_epoch for p in group) * replicas,
                math.fsum(self.seconds[p.trial] for p in group),
                math.fsum(self.table_bytes[p.trial] for p in group),
            )
            for name, group in by_kind.items()
        ]


def cost_line(cost: Cost) -> str:
    """Device-hours, wall time and where they come from, for people."""
    if not cost.is_known:
        return f"cost: {cost.source}"
    images = f", {duration(cost.images_s / cost.slots)} of it to measure the images" if cost.images_s / cost.slots >= 1 else ""
    whole = f"cost: {cost.whole_s / 3600:.3g} device-hours ({cost.source})"
    return f"{whole}; about {duration(cost.wall_s)} on {counted(cost.slots, 'slot')}{images}, start-up and analysis aside"


def kind(schedule: Schedule) -> str:
    """What a line of the plan holds: control, a swap of activation, loss or both, pulse, or several swaps."""
    phases = schedule.phases
    if len(phases) < 3:
        return {"none": "control", "both": "swap of both"}.get(schedule.swapped, f"{schedule.swapped} swap")
    back = phases[0].functions == phases[2].functions
    return "pulse" if back and len(phases) == 3 else "several swaps"


def estimate(plan: Plan, data: Dataset, store: Store) -> Cost:
    """The cost of the remaining families. Times a small family of each kind of base recipe of which no finished one tells."""
    replicas, num_epochs = plan.config.training.replicas, plan.config.training.epochs
    alike: dict[str, list[Planned]] = defaultdict(list)
    keys: dict[str, str] = {}
    for planned in plan.remaining.values():
        name = planned.base.name
        if name not in keys:
            keys[name] = json.dumps(_what_costs(planned.base.description(planned.schedule, plan.config.probes)), sort_keys=True)
        alike[keys[name]].append(planned)
    seconds: dict[str, float] = {}
    table_bytes: dict[str, float] = {}
    state_bytes, sources, rows = 0.0, [], _finished(plan, store)
    for key, some in alike.items():
        rates = recorded(some, rows, json.loads(key)) or _timed(some, plan.config)
        sources.append(rates.source)
        seconds |= {planned.trial: rates.seconds(planned, num_epochs) * replicas for planned in some}
        recipe = some[0].base.recipe
        of_tables, of_state = _bytes(some, plan.config, data if recipe.data == plan.config.data else load(recipe.data))
        table_bytes, state_bytes = table_bytes | of_tables, max(state_bytes, of_state)
    source, slots = "; ".join(dict.fromkeys(sources)), num_slots(plan.config)
    return Cost(plan, seconds, table_bytes, state_bytes, source, slots, _images_s(plan, store) * slots)


def _images_s(plan: Plan, store: Store) -> float:
    """Seconds that the statistics of images will take, once per data set."""
    if not (plan.config.analysis.enabled and plan.config.analysis.image_statistics):
        return 0.0
    configs = {base.dataset_hash: base.recipe.data for base, _ in plan.families.values()}
    return seconds_left(store, list(configs.values()), num_cpus(plan.config))


def _finished(plan: Plan, store: Store) -> pd.DataFrame:
    """Finished families of the kind of device that the plan asks for."""
    columns = ["base", "status", "epochs_trained", "num_replicas", "train_s", "record_s", "device", "recipe"]
    readable, _ = readable_trials(store, tables.names(store, "trials"))
    rows = tables.read(store, "trials", columns, readable["trial"])
    return rows[(rows["status"] == "done") & (rows["epochs_trained"] > 0) & rows["device"].fillna("").str.startswith(device(plan.config))]


def recorded(some: list[Planned], rows: pd.DataFrame, wanted: dict[str, Any]) -> Rates | None:
    """From finished families of the same base recipes, or of one that differs in nothing that costs time; with the same probes."""
    probes = [stated(json.loads(text)["probes"]) == stated(wanted["probes"]) for text in rows["recipe"]]
    rows = rows[np.array(probes, dtype=bool)]
    same = rows[rows["base"].isin({planned.base.name for planned in some})]
    if not same.empty:
        return _fitted(same, f"from {counted(len(same), 'finished family')} of the same base recipe")
    alike = [base for base, text in rows.groupby("base")["recipe"].first().items() if _what_costs(json.loads(text)) == wanted]
    like = rows[rows["base"].isin(alike)]
    return _fitted(like, f"from {counted(len(like), 'finished family')} of a similar base recipe") if not like.empty else None


def _what_costs(recipe: dict[str, Any]) -> dict[str, Any]:
    """The part of a stored recipe that decides what an epoch of a replica costs."""
    base = recipe["base"]
    training = {key: value for key, value in base["training"].items() if key not in _COSTS_NOTHING}
    return {"data": base["data"], "model": base["model"], "training": stated(training), "probes": stated(recipe["probes"])}


def _fitted(rows: pd.DataFrame, source: str) -> Rates:
    """A line through seconds per replica over epochs trained, or their ratio where no line is to be had."""
    epochs = rows["epochs_trained"].to_numpy(float)
    spent = ((rows["train_s"] + rows["record_s"]) / rows["num_replicas"]).to_numpy(float)
    if len(set(epochs)) > 1:
        slope, intercept = np.polyfit(epochs, spent, 1)
        if slope > 0 and intercept >= 0:
            return Rates(float(slope), 0.0, float(intercept), source)
    return Rates(float(spent.sum() / epochs.sum()), 0.0, 0.0, source)


def _timed(some: list[Planned], config: Sweep) -> Rates:
    where = device(config) if torch.cuda.is_available() else "cpu"
    recipe = some[0].base.recipe
    if where != device(config):
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": "float32"})})
    executor = "vmap" if config.resources.executor == "compiled" else config.resources.executor  # compiling takes a minute
    limit = 2 if config.probes.hull is not None else 4  # its looks at swaps cost more than epochs
    phases = functions_in_turn([planned.schedule for planned in some], limit)
    try:
        names = [name for _, *functions in phases for name in functions]
        if any(":" in name for name in [*names, recipe.model.name, *config.probes.own]):
            times = time_apart(num_threads(config), recipe, config.probes, phases, where, executor)
        else:
            prepare_process(num_threads(config))
            times = time_family(recipe, config.probes, phases, where, executor)
    except ProbeFailed as error:
        return Rates(math.nan, math.nan, math.nan, f"unknown: a family timed for the plan failed: {error}")
    return Rates(**times, source=f"timed on a small family on this machine's {where}")


def _bytes(some: list[Planned], config: Sweep, data: Dataset) -> tuple[dict[str, float], float]:
    """Bytes of each family's tables, and the largest that one training state can be with what was recorded on the way to it."""
    replicas, recipe = config.training.replicas, some[0].base.recipe
    two = recipe.model_copy(update={"training": recipe.training.model_copy(update={"replicas": 2, "precision": "float32"})})
    phase = replace(some[0].schedule.phases[0], activation="relu", loss="cross_entropy")  # sizes are the same, and a user's may raise
    training = FamilyTraining(two, data, phase, "cpu")
    model = build(recipe.model, data.image_shape, data.num_classes)
    probe = ActivationsProbe(config.probes.model_copy(update={"moments": ["init"]}), data, model, training.device)
    probe.look(Look("init", training))
    layers = [values for key, values in probe.records.items() if not key.startswith("shape/")]
    values_bytes = sum(values[0].nbytes for values in layers) * replicas
    most_records, table_bytes = 0.0, {}
    for planned in some:
        num_swaps = len(planned.schedule.swap_epochs)
        counts = {"init": 1, "before_swap": num_swaps, "after_swap": num_swaps, "end": 1}
        num_looks = sum(counts[moment] for moment in config.probes.moments) + len(config.probes.epochs)
        num_evaluations = _num_evaluations(planned.schedule, config)
        predicted = (len(data.train.labels) + len(data.test.labels)) * num_evaluations * replicas * config.probes.predictions
        of_activations = num_looks * (values_bytes * _ACTIVATIONS_RATIO + len(layers) * _ROW_GROUP_BYTES)
        at_end = (bool(config.probes.baselines) + (config.probes.stitching is not None)) * _END_BYTES
        of_stability = num_looks * stability_bytes(config.probes, len(layers), data.num_classes) * replicas
        of_hull = _hull_rows(config.probes, replicas, num_swaps + 1, len(probe.layers)) * _HULL_ROW_BYTES
        at_looks = of_activations + of_stability + of_hull
        table_bytes[planned.trial] = at_looks + predicted * _PREDICTION_BYTES + at_end + _FAMILY_BYTES
        most_records = max(most_records, num_looks * values_bytes + predicted * 2 + of_stability)
    names_bytes = 64_000  # header: names and shapes
    state_bytes = sum(t.nbytes for t in training.state().values()) * 2 / len(training.replicas.seeds) * replicas  # momentum is yet to come
    return table_bytes, state_bytes + most_records + names_bytes


def _hull_rows(probes: Probes, replicas: int, num_looks: int, num_layers: int) -> int:
    """Rows of the table `hull` of a family."""
    if probes.hull is None:
        return 0
    num_layers = 1 + (len(probes.hull.layers) if probes.hull.layers else num_layers)
    return num_looks * replicas * num_layers * (probes.num_samples + probes.hull.null_samples)


def _num_evaluations(schedule: Schedule, config: Sweep) -> int:
    """How often a family is evaluated: at every so many epochs and the end, and on both sides of each swap."""
    num_epochs = config.training.epochs
    at_epochs = {*range(0, num_epochs + 1, config.probes.evaluate_every), num_epochs, *schedule.swap_epochs}
    return len(at_epochs) + len(schedule.swap_epochs)
