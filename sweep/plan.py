"""From families to a prefix tree: what is done, who trains what, and who waits for whom."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from analysis import tables
from analysis.storage import Store, Unreachable
from sweep.config import ConfigError, Sweep
from sweep.space import Changes, Point, corners, grid, num_firsts, num_stressed, points, recipe_of
from sweep.study import SearchStudy
from trainables.data import Dataset, load
from trainables.executors import choose_executor
from trainables.family import Family, setting
from trainables.replicas import Executor
from trainables.rows import trial_row
from trainables.schedule import Base, Phase, Schedule, check_same, model_content
from trainables.states import States

DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError)  # what reading a file of any bytes may raise; FileNotFoundError among them


class Member(NamedTuple):
    """A family of the sweep: a schedule under a base recipe."""

    base: Base
    schedule: Schedule


class Members:
    """The families of a sweep, those of one base recipe with the same `Base`. `dataset_hash` is that of the data as written."""

    def __init__(self, config: Sweep, dataset_hash: str) -> None:
        self.config, self.dataset_hash = config, dataset_hash
        self._bases: dict[Changes, Base] = {}
        self._hashes = {config.data.model_dump_json(): dataset_hash}

    def member(self, point: Point) -> Member:
        if point.changes not in self._bases:
            recipe = recipe_of(self.config, point.changes)
            key = recipe.data.model_dump_json()
            if key not in self._hashes:
                self._hashes[key] = load(recipe.data).hash
            self._bases[point.changes] = Base(recipe, self._hashes[key])
        return Member(self._bases[point.changes], point.schedule)

    def trial(self, point: Point) -> str:
        """The family's id."""
        base, schedule = self.member(point)
        return base.trial_name(schedule, self.config.probes)


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
    members: Members
    families: dict[str, Member]
    done: frozenset[str]
    remaining: dict[str, Planned]
    usable: Mapping[str, int] = field(default_factory=dict)  # training states in the store that families may start from, by epoch
    pruned: frozenset[str] = frozenset()  # given up early by the search: neither done nor to be run
    num_proposed: int = 0  # stressed families that the search has proposed
    num_unproposed: int = 0  # and those that it has yet to propose, at most
    left_out: dict[str, Planned] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)  # families whose row cannot be read, and why: they are run again

    def only(self, trials: Container[str]) -> Plan:
        """The plan of fewer families: the others are left out. States that these start from are still saved, and kept for them.

        A family may be chosen only with those that it continues from.
        """
        chosen = {trial: planned for trial, planned in self.remaining.items() if trial in trials}
        left_out = self.left_out | {trial: planned for trial, planned in self.remaining.items() if trial not in trials}
        families = {trial: member for trial, member in self.families.items() if trial not in left_out}
        return replace(self, families=families, remaining=chosen, left_out=left_out)

    def family(self, trial: str) -> Family:
        """A remaining family as the worker gets it."""
        planned = self.remaining[trial]
        epochs = frozenset([*planned.saves, *self.checkpoint_epochs(planned)])
        return Family(planned.base.recipe, self.config.probes, planned.schedule, epochs)

    def checkpoint_epochs(self, planned: Planned) -> dict[int, str]:
        """Epochs at which a family saves its state for a retry, and the names of these states."""
        every = self.config.storage.checkpoint_epochs
        if not every:
            return {}
        epochs = [epoch for epoch in range(every, self.config.training.epochs, every) if epoch > planned.start_epoch]
        return {epoch: planned.base.state_name(planned.schedule, epoch) for epoch in epochs}

    def row(self, trial: str) -> dict[str, Any]:
        """What a family's row of `trials` says before it has run."""
        return trial_row(*self.families[trial], self.config.probes)

    def label(self, trial: str) -> str:
        """A family for people: its schedule, and its values of the axes over the base recipe."""
        base, schedule = self.families[trial]
        varied = {
            key: getattr(getattr(base.recipe, section), key) for section, _, key in (key.partition(".") for key in self.config.space.recipe)
        }
        return " ".join(
            [str(schedule), *(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in varied.items())]
        )

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

    def with_unproposed(self) -> Plan:
        """This plan and the most that its search may add to it: whole families under the recipe as written, with their controls."""
        space = self.config.space
        if not self.num_unproposed:
            return self
        schedule = next(grid(space))
        num_controls = int(min(self.num_unproposed, num_firsts(space))) if space.controls else 0
        base = self.members.member(Point((), schedule)).base
        more = {
            f"unproposed {index}": Planned(
                f"unproposed {index}", base, schedule if index < self.num_unproposed else schedule.control, 0, None, None, {}
            )
            for index in range(self.num_unproposed + num_controls)
        }
        return replace(self, remaining=self.remaining | more)

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
        shown = re.sub(r"//[^/]*@", "//", config.storage.path)  # a key that stands there is refused, and not repeated
        raise ConfigError("storage.path", [f"{shown!r} cannot be opened: {error}"]) from None


def make_plan(config: Sweep, data: Dataset, store: Store) -> Plan:
    """The families of a sweep minus those in the tables, as a tree of shared prefixes. Writes nothing.

    Raises NameMismatch where a finished family's stored recipe is another than that asked for.
    """
    found = Members(config, data.hash)
    proposed = _proposed(found, store) if config.search.kind == "optuna" else []
    families = {found.trial(point): found.member(point) for point in points(config, proposed)}
    present, damaged = _recorded(store, families, config)
    done = frozenset(trial for trial, status in present.items() if status == "done")
    pruned = frozenset(trial for trial, status in present.items() if status == "pruned")
    to_run = {trial: member for trial, member in families.items() if trial not in done | pruned}
    usable = _usable(config, data, store)
    tree = _tree(to_run, config.training.epochs, usable)
    num_unproposed = max(0, num_proposals(config) - len(proposed))
    return Plan(config, found, families, done, tree, usable, pruned, len(proposed), num_unproposed, damaged=damaged)


def _usable(config: Sweep, data: Dataset, store: Store) -> dict[str, int]:
    """Training states that were made and recorded as this sweep's families would, with their epochs.

    The same probes, device, executor and threads.
    """
    wanted, where, states = config.resources.executor, device(config), States(store)
    models: dict[Executor, list[dict[str, Any]]] = defaultdict(list)  # by the executor that each takes
    for model in [config.model, *(recipe_of(config, changes).model for changes in corners(config.space, "model"))]:
        models[choose_executor(wanted, where, model, data.image_shape, data.num_classes)].append(model_content(model))
    found: dict[str, int] = {}
    for executor, some in models.items():
        found |= states.usable(setting(config.probes, where, executor, num_threads(config)), some)
    return found


def num_proposals(config: Sweep) -> int:
    """Stressed families that a search will have proposed in the end; 0 where nothing is proposed."""
    search = config.search
    return int(min(search.num_families or 0, num_stressed(config.space))) if search.kind == "optuna" else 0


def _proposed(members: Members, store: Store) -> list[Point]:
    """The points that the stored study has proposed. Raises ConfigError where they were families of another base recipe."""
    study = SearchStudy.existing(members.config, store)
    found: dict[Point, None] = {}
    if study is None:
        return []
    for proposal in study.proposals():
        if proposal.point is not None and proposal.state != "WAITING":
            study.check_trial(proposal, members.trial(proposal.point))
            found[proposal.point] = None
    return list(found)


def readable_trials(store: Store, present: list[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows `trial`, `status`, `recipe` of some families; and of those whose file cannot be read or is another's, why."""
    columns = ["trial", "status", "recipe"]
    try:
        rows = tables.read(store, "trials", columns, present)
    except Unreachable:
        raise
    except DAMAGE:  # of one or more, which are found one by one
        rows = None
    if rows is not None and rows["trial"].tolist() == present:
        return rows, {}
    parts, damaged = [tables.read(store, "trials", columns, [])], {}
    for trial in present:
        try:
            row = tables.read(store, "trials", columns, [trial])
            if row["trial"].tolist() != [trial]:
                raise ValueError(f"it is about {', '.join(row['trial'])}")
            for recipe in row["recipe"]:
                json.loads(recipe)
            parts.append(row)
        except Unreachable:
            raise
        except DAMAGE as error:
            damaged[trial] = " ".join(str(error).split())
    return pd.concat(parts, ignore_index=True), damaged


def recorded(store: Store, trial: str, member: Member, config: Sweep) -> str | None:
    """Whether a family is in the tables as `done`, or as `pruned` in a search that prunes; None if not."""
    return _recorded(store, {trial: member}, config, [trial] if store.exists(f"trials/{trial}.parquet") else [])[0].get(trial)


def _recorded(
    store: Store, families: dict[str, Member], config: Sweep, present: list[str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """The families whose row stands, with its status; and those whose row cannot be read, and why.

    Raises NameMismatch where a row is of another recipe than that asked for.
    """
    if present is None:
        present = [trial for trial in tables.names(store, "trials") if trial in families]
    rows, damaged = readable_trials(store, present)
    standing = {"done"} if config.search.pruning is None else {"done", "pruned"}
    found = {}
    for trial, status, recipe in rows.itertuples(index=False):
        if trial in families and status in standing:
            # Where the data came from is told, but not compared: what they are is in the base's hash.
            stored = {key: value for key, value in json.loads(recipe).items() if key != "data"}
            base, schedule = families[trial]
            check_same(store.path(f"trials/{trial}.parquet"), stored, base.description(schedule, config.probes))
            found[trial] = status
    return found, damaged


def _tree(to_run: Mapping[str, Member], num_epochs: int, existing: Mapping[str, int]) -> dict[str, Planned]:
    """Each family starts from the latest state on its way that exists or that an earlier family passes; that one saves it.

    `existing` states have their epochs beside them. Linear in the phases of all schedules: which families pass where is kept by the
    phases that they have in common, and only states that are used are named.
    """
    passed_by_base: dict[str, dict[tuple[Phase, ...], list[_Stretch]]] = defaultdict(lambda: defaultdict(list))
    saves: dict[str, dict[int, str]] = defaultdict(dict)
    found: dict[str, Planned] = {}
    existing_epochs = sorted(set(existing.values()), reverse=True)
    for trial, (base, schedule) in to_run.items():
        passed = passed_by_base[base.name]  # by the phases in force there, in order of time
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
        found[trial] = Planned(trial, base, schedule, start, state, parent, saves[trial])
    return found


_Stretch = tuple[int, int, str]  # last epoch, the epoch that it starts behind, and who passes it


def _latest_passed(passed: Mapping[tuple[Phase, ...], list[_Stretch]], schedule: Schedule, ends: list[int]) -> tuple[int, str | None]:
    """The latest epoch on a schedule's way that another passes, and who; `ends` are the ends of its phases."""
    for length in range(len(ends), 0, -1):
        stretches, end = passed.get(schedule.phases[:length], []), ends[length - 1]
        index = bisect_left(stretches, (end,))
        if index < len(stretches) and stretches[index][1] < end:
            return end, stretches[index][2]
        if index > 0:
            return stretches[index - 1][0], stretches[index - 1][2]
    return 0, None
