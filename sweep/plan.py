"""From families to a prefix tree: what is done, who trains what, and who waits for whom."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa

from analysis import tables
from analysis.storage import Store
from sweep.config import ConfigError, Sweep
from sweep.space import Changes, points, recipe_of
from trainables.data import Dataset
from trainables.family import Family, setting
from trainables.replicas import EXECUTORS
from trainables.rows import trial_row
from trainables.schedule import Base, Schedule, check_same
from trainables.states import States


class Member(NamedTuple):
    """A family of the sweep: a schedule under a base recipe."""

    base: Base
    schedule: Schedule


@dataclass(frozen=True)
class Planned:
    """A family that remains to be run, and its place in the tree."""

    trial: str
    base: Base
    schedule: Schedule
    start_epoch: int
    start_state: str | None
    parent: str | None
    saves: dict[int, str] = field(hash=False)  # training states that others start from, by epoch


@dataclass(frozen=True)
class Plan:
    """What a sweep has to do: `families` in all, `remaining` of them to run, controls first."""

    config: Sweep
    families: dict[str, Member]
    done: frozenset[str]
    remaining: dict[str, Planned]

    def family(self, trial: str) -> Family:
        """A remaining family as the worker gets it."""
        planned, every = self.remaining[trial], self.config.storage.checkpoint_epochs
        checkpoints = range(every, self.config.training.epochs, every) if every else ()
        return Family(planned.base.recipe, self.config.probes, planned.schedule, frozenset([*planned.saves, *checkpoints]))

    def row(self, trial: str) -> dict[str, Any]:
        """What a family's row of `trials` says before it has run."""
        return trial_row(*self.families[trial], self.config.probes)

    @cached_property
    def users(self) -> dict[str, set[str]]:
        """Training states that remaining families start from, and those families."""
        found: dict[str, set[str]] = defaultdict(set)
        for planned in self.remaining.values():
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

    @property
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
    families = _families(config, data.hash)
    done = _done(store, families, config)
    to_run = {trial: member for trial, member in families.items() if trial not in done}
    existing = States(store).usable(setting(config.probes, device(config), EXECUTORS[device(config)], num_threads(config)))
    return Plan(config, families, frozenset(done), _tree(to_run, config.training.epochs, existing))


def _families(config: Sweep, dataset_hash: str) -> dict[str, Member]:
    """The families of a sweep by id, those of one base recipe with the same `Base`."""
    bases: dict[Changes, Base] = {}
    found: dict[str, Member] = {}
    for changes, schedule in points(config):
        if changes not in bases:
            bases[changes] = Base(recipe_of(config, changes), dataset_hash)
        found[bases[changes].trial_name(schedule, config.probes)] = Member(bases[changes], schedule)
    return found


def _done(store: Store, families: dict[str, Member], config: Sweep) -> set[str]:
    present = [trial for trial in tables.names(store, "trials") if trial in families]
    rows = tables.read(store, "trials", ["trial", "status", "recipe"], present)
    done = set()
    for trial, status, recipe in rows.itertuples(index=False):
        if status == "done":
            # Where the data came from is told, but not compared: what they are is in the base's hash.
            stored = {key: value for key, value in json.loads(recipe).items() if key != "data"}
            base, schedule = families[trial]
            check_same(store.path(f"trials/{trial}.parquet"), stored, base.description(schedule, config.probes))
            done.add(trial)
    return done


def _tree(to_run: dict[str, Member], num_epochs: int, existing: set[str]) -> dict[str, Planned]:
    """Each family starts from the latest state on its way that exists or that an earlier family passes; that one saves it."""
    boundaries = sorted({epoch for member in to_run.values() for epoch in member.schedule.swap_epochs})
    candidates = range(1, num_epochs + 1) if existing else boundaries
    owners: dict[str, str] = {}
    saves: dict[str, dict[int, str]] = defaultdict(dict)
    starts: dict[str, tuple[int, str | None, str | None]] = {}
    for trial, (base, schedule) in to_run.items():
        start: tuple[int, str | None, str | None] = (0, None, None)
        names = {epoch: base.state_name(schedule, epoch) for epoch in candidates}
        for epoch in reversed(candidates):
            name = names[epoch]
            if name in existing:
                start = (epoch, name, None)
                break
            if name in owners:
                start = (epoch, name, owners[name])
                saves[owners[name]][epoch] = name
                break
        starts[trial] = start
        for epoch in boundaries:
            if start[0] < epoch < num_epochs:
                owners[names[epoch]] = trial
    return {trial: Planned(trial, base, schedule, *starts[trial], saves[trial]) for trial, (base, schedule) in to_run.items()}
