"""From schedules to a prefix tree: what is done, who trains what, and who waits for whom."""

from __future__ import annotations

import json
import os
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from analysis import tables
from analysis.storage import Store
from sweep.config import ConfigError, Sweep
from sweep.space import schedules
from trainables.data import Dataset
from trainables.family import Family, setting
from trainables.replicas import EXECUTORS
from trainables.rows import trial_row
from trainables.schedule import Base, Phase, Schedule, check_same
from trainables.states import States


@dataclass(frozen=True)
class Planned:
    """A family that remains to be run, and its place in the tree."""

    trial: str
    schedule: Schedule
    start_epoch: int
    start_state: str | None
    parent: str | None
    saves: dict[int, str] = field(hash=False)  # training states that others start from, by epoch


@dataclass(frozen=True)
class Plan:
    """What a sweep has to do: `families` in all, `remaining` of them to run, controls first."""

    config: Sweep
    base: Base
    families: dict[str, Schedule]
    done: frozenset[str]
    remaining: dict[str, Planned]
    left_out: dict[str, Planned] = field(default_factory=dict)

    def only(self, trials: Container[str]) -> Plan:
        """The plan of fewer families: the others are left out. States that these start from are still saved, and kept for them.

        A family may be chosen only with those that it continues from.
        """
        chosen = {trial: planned for trial, planned in self.remaining.items() if trial in trials}
        left_out = {trial: planned for trial, planned in self.remaining.items() if trial not in trials}
        families = {trial: schedule for trial, schedule in self.families.items() if trial not in left_out}
        return replace(self, families=families, remaining=chosen, left_out=left_out)

    def family(self, trial: str) -> Family:
        """A remaining family as the worker gets it."""
        planned = self.remaining[trial]
        epochs = frozenset([*planned.saves, *self.checkpoint_epochs(planned)])
        return Family(self.config.recipe, self.config.probes, planned.schedule, epochs)

    def checkpoint_epochs(self, planned: Planned) -> dict[int, str]:
        """Epochs at which a family saves its state for a retry, and the names of these states."""
        every = self.config.storage.checkpoint_epochs
        if not every:
            return {}
        epochs = [epoch for epoch in range(every, self.config.training.epochs, every) if epoch > planned.start_epoch]
        return {epoch: self.base.state_name(planned.schedule, epoch) for epoch in epochs}

    def row(self, trial: str) -> dict[str, Any]:
        """What a family's row of `trials` says before it has run."""
        return trial_row(self.base, self.families[trial], self.config.probes)

    @cached_property
    def users(self) -> dict[str, set[str]]:
        """Training states that remaining families start from, and those families; families left out for now count too."""
        found: dict[str, set[str]] = defaultdict(set)
        for planned in [*self.remaining.values(), *self.left_out.values()]:
            if planned.start_state:
                found[planned.start_state].add(planned.trial)
        return dict(found)

    @cached_property
    def critical_epochs(self) -> dict[str, int]:
        """For each remaining family, the epochs from its start to the end of the longest chain that waits for it."""
        num_epochs = self.config.training.epochs
        longest: dict[str, int] = {}
        children: dict[str, list[Planned]] = defaultdict(list)
        for planned in self.remaining.values():
            if planned.parent:
                children[planned.parent].append(planned)
        for trial, planned in reversed(self.remaining.items()):  # a parent stands before its children
            below = [child.start_epoch - planned.start_epoch + longest[child.trial] for child in children[trial]]
            longest[trial] = max([num_epochs - planned.start_epoch, *below])
        return longest

    @cached_property
    def unique_replica_epochs(self) -> int:
        """Epochs to train, over all replicas, with every shared prefix counted once."""
        return sum(self.config.training.epochs - p.start_epoch for p in self.remaining.values()) * self.config.training.replicas

    @property
    def total_replica_epochs(self) -> int:
        """The same without sharing."""
        return len(self.remaining) * self.config.training.epochs * self.config.training.replicas


def device(config: Sweep) -> str:
    """The kind of device that families train on: decided by what is reserved, never by what is visible."""
    return "cuda" if config.resources.gpus_per_family else "cpu"


def num_threads(config: Sweep) -> int:
    """Threads of a family's process."""
    return max(1, int(config.resources.cpus_per_family))


def results_store(config: Sweep) -> Store:
    """Where a sweep's results lie. Raises ConfigError for a URI that no file system serves."""
    root = config.root if "://" in config.root else os.path.abspath(config.root)
    if "://" in config.storage.path and not config.storage.path.partition("://")[2].strip("/"):
        raise ConfigError("storage.path", [f"{config.storage.path!r} names no bucket or folder"])
    try:
        return Store(root)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError("storage.path", [f"{config.storage.path!r} cannot be opened: {error}"]) from None


def make_plan(config: Sweep, data: Dataset, store: Store) -> Plan:
    """The families of a sweep minus those in the tables, as a tree of shared prefixes. Writes nothing.

    Raises NameMismatch where a finished family's stored recipe is another than that asked for.
    """
    base = Base(config.recipe, data.hash)
    families = {base.trial_name(schedule, config.probes): schedule for schedule in schedules(config.space)}
    done = _done(store, base, families, config)
    to_run = {trial: schedule for trial, schedule in families.items() if trial not in done}
    existing = States(store).usable(setting(config.probes, device(config), EXECUTORS[device(config)], num_threads(config)))
    return Plan(config, base, families, frozenset(done), _tree(base, to_run, config.training.epochs, existing))


def _done(store: Store, base: Base, families: dict[str, Schedule], config: Sweep) -> set[str]:
    present = [trial for trial in tables.names(store, "trials") if trial in families]
    rows = tables.read(store, "trials", ["trial", "status", "recipe"], present)
    done = set()
    for trial, status, recipe in rows.itertuples(index=False):
        if status == "done":
            # Where the data came from is told, but not compared: what they are is in the base's hash.
            stored = {key: value for key, value in json.loads(recipe).items() if key != "data"}
            check_same(store.path(f"trials/{trial}.parquet"), stored, base.description(families[trial], config.probes))
            done.add(trial)
    return done


def _tree(base: Base, to_run: dict[str, Schedule], num_epochs: int, existing: dict[str, int]) -> dict[str, Planned]:
    """Each family starts from the latest state on its way that exists or that an earlier family passes; that one saves it.

    `existing` states have their epochs beside them. Linear in the phases of all schedules: which families pass where is kept by the
    phases that they have in common, and only states that are used are named.
    """
    passed: dict[tuple[Phase, ...], list[_Stretch]] = defaultdict(list)  # by the phases in force there, in order of time
    saves: dict[str, dict[int, str]] = defaultdict(dict)
    found: dict[str, Planned] = {}
    existing_epochs = sorted(set(existing.values()), reverse=True)
    for trial, schedule in to_run.items():
        ends = [*schedule.swap_epochs, num_epochs]
        start, parent = _latest_passed(passed, schedule, ends)
        state = None
        for epoch in existing_epochs:
            if epoch < max(start, 1):
                break
            name = base.state_name(schedule, epoch)
            if name in existing:
                start, state, parent = epoch, name, None
                break
        if parent is not None:
            state = saves[parent].get(start) or base.state_name(schedule, start)
            saves[parent][start] = state
        for length, end in enumerate(ends, 1):
            if end > start:
                insort(passed[schedule.phases[:length]], (end, start, trial))
        found[trial] = Planned(trial, schedule, start, state, parent, saves[trial])
    return found


_Stretch = tuple[int, int, str]  # last epoch, the epoch that it starts behind, and who passes it


def _latest_passed(passed: dict[tuple[Phase, ...], list[_Stretch]], schedule: Schedule, ends: list[int]) -> tuple[int, str | None]:
    """The latest epoch on a schedule's way that another passes, and who; `ends` are the ends of its phases."""
    for length in range(len(ends), 0, -1):
        stretches, end = passed.get(schedule.phases[:length], []), ends[length - 1]
        index = bisect_left(stretches, (end,))
        if index < len(stretches) and stretches[index][1] < end:
            return end, stretches[index][2]
        if index > 0:
            return stretches[index - 1][0], stretches[index - 1][2]
    return 0, None
