"""One family, from its schedule to its tables: a plain function that needs no Ray."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch

from analysis import tables
from analysis.storage import Store
from trainables.data import Dataset, load
from trainables.executors import Wanted
from trainables.models import build
from trainables.options import Probes
from trainables.probes import Look, Probe
from trainables.probes.activations import ActivationsProbe
from trainables.probes.baselines import BaselinesProbe
from trainables.probes.curves import CurvesProbe
from trainables.probes.hull import HullProbe
from trainables.probes.own import OwnProbe
from trainables.probes.predictions import PredictionsProbe
from trainables.probes.stability import StabilityProbe
from trainables.probes.stitching import StitchingProbe
from trainables.recipe import BaseRecipe
from trainables.replicas import Executor
from trainables.rows import replica_columns, trial_row, write_trial
from trainables.schedule import Base, Schedule
from trainables.states import States
from trainables.training import METRICS, SPLITS, Evaluation, FamilyTraining


@dataclass(frozen=True)
class Family:
    """What to train and what to record. `save_epochs`: boundaries whose training states others continue from, or a retry may."""

    recipe: BaseRecipe
    probes: Probes
    schedule: Schedule
    save_epochs: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Progress:
    """Reported after every epoch, with the name of the training state if one was saved, and once more when all is written: `done`.

    `summary` has the number of diverged replicas, and after an epoch that was evaluated the mean accuracies.
    """

    trial: str
    epoch: int
    state: str | None
    done: bool
    epochs_trained: int  # in this attempt
    num_images: int
    summary: dict[str, float]
    notes: tuple[str, ...] = ()  # for the user


def run(family: Family, store: Store, device: str = "cpu", executor: Wanted = "auto", data: Dataset | None = None) -> Generator[Progress]:
    """Train a family to its end and write its tables, `trials` last. Continues from the newest training state of its own history.

    `data` are those of the recipe unless given: a part of them, where only the time matters.

    Where a GPU's memory does not suffice, the family begins anew with half as many replicas at a time, down to one, and its row of
    `trials` says so.

    Raises whatever else training or writing raises; `rows.write_failure` records that.
    """
    at_once: int | None = None
    while True:
        attempt, data = None, data or load(family.recipe.data)
        try:
            attempt = _Attempt(family, store, device, executor, data, at_once)
            yield from _run(attempt)
            return
        except torch.OutOfMemoryError:
            before = attempt.training.replicas.at_once if attempt else at_once or family.recipe.training.replicas
            if before == 1:
                raise
            at_once = before // 2
        attempt = None
        free_gpu()


def _run(attempt: _Attempt) -> Generator[Progress]:
    family = attempt.family
    training, schedule, num_epochs = attempt.training, family.schedule, family.recipe.training.epochs
    if not attempt.resume():
        attempt.look("init")
        attempt.evaluate("epoch")
    while training.epoch < num_epochs:
        if training.epoch in schedule.swap_epochs:
            if not attempt.is_due():
                attempt.evaluate("epoch")
            attempt.look("before_swap")
            training.set_phase(schedule.phase_before(training.epoch + 1))
            attempt.evaluate("after_swap")
        attempt.train_epoch()
        if attempt.is_due():
            attempt.evaluate("epoch")
        wanted = training.epoch in family.save_epochs and training.epoch < num_epochs
        yield attempt.progress(attempt.save() if wanted else None)
    attempt.look("end")
    attempt.write()
    yield attempt.progress(None, done=True)


class _Attempt:
    """One attempt at a family: its training, its probes, and the time that both take."""

    def __init__(self, family: Family, store: Store, device: str, executor: Wanted, data: Dataset, at_once: int | None) -> None:
        self.began, self.train_s = time.perf_counter(), 0.0
        self.family, self.store, self.states = family, store, States(store)
        recipe, schedule = family.recipe, family.schedule
        self.base = Base(recipe, data.hash)
        self.trial = self.base.trial_name(schedule, family.probes)
        self.training = FamilyTraining(recipe, data, schedule.phases[0], device, executor, at_once)
        self.setting = setting(family.probes, device, self.training.executor, torch.get_num_threads())
        self.made_by = f"{self.training.device} {self.training.executor}"
        if at_once is not None:  # sums may round otherwise: its states are nobody else's
            self.setting["at_once"] = at_once
            self.made_by += f", {at_once} of {recipe.training.replicas} replicas at a time: out of memory with more"
        model = build(recipe.model, data.image_shape, data.num_classes)
        activations = ActivationsProbe(family.probes, data, model, self.training.device)
        self.probes: list[Probe] = [
            CurvesProbe(recipe.training, schedule, self.training.steps_per_epoch),
            PredictionsProbe(family.probes.predictions),
            activations,
            BaselinesProbe(family.probes, schedule, data, activations),
            StitchingProbe(family.probes.stitching, schedule),
            StabilityProbe(family.probes, schedule, data, activations.layers, model, self.training.device),
            HullProbe(family.probes, schedule, data, activations.layers, store),
            OwnProbe(family.probes, schedule),
        ]
        self.started_from: str | None = None
        self.started_at = 0
        self.latest: Evaluation | None = None
        self.evaluated_at: int | None = None  # the latest epoch at whose end an evaluation stood

    def resume(self) -> bool:
        """Go to the newest training state of this family's history. False if there is none."""
        existing, schedule = set(self.states.names()), self.family.schedule
        for epoch in range(self.family.recipe.training.epochs - 1, 0, -1):
            name = self.base.state_name(schedule, epoch)
            if name not in existing:
                continue
            found = self.states.load(name, self.base.history(schedule, epoch, full=True), self.setting)
            if found is None:
                continue
            state, records = found
            self.training.load(state, epoch)
            self.training.set_phase(schedule.phase_before(epoch))
            for probe in self.probes:
                prefix = f"{probe.table}/"
                probe.records.update({k.removeprefix(prefix): v for k, v in records.items() if k.startswith(prefix)})
            self.started_from, self.started_at = name, epoch
            return True
        return False

    def look(self, moment: str, evaluation: Evaluation | None = None) -> None:
        for probe in self.probes:
            probe.look(Look(moment, self.training, evaluation))

    def is_due(self) -> bool:
        """Whether an evaluation belongs to this epoch whatever the schedule."""
        epoch = self.training.epoch
        return epoch % self.family.probes.evaluate_every == 0 or epoch == self.family.recipe.training.epochs

    def evaluate(self, moment: str) -> None:
        self.latest = self.training.evaluate()
        if moment == "epoch":
            self.evaluated_at = self.training.epoch
        self.look(moment, self.latest)

    def train_epoch(self) -> None:
        began = time.perf_counter()
        self.training.train_epoch()
        self.train_s += time.perf_counter() - began

    def save(self) -> str:
        """Store the training state, and what the probes recorded so far. Returns its name."""
        schedule, epoch = self.family.schedule, self.training.epoch
        name = self.base.state_name(schedule, epoch)
        records = {f"{probe.table}/{k}": v for probe in self.probes for k, v in probe.records.items()}
        self.states.save(name, self.training.state(), records, self.base.history(schedule, epoch, full=True), self.setting)
        return name

    def progress(self, state: str | None, done: bool = False) -> Progress:
        training, summary = self.training, {}
        if self.latest is not None and self.evaluated_at == training.epoch:
            accuracy = self.latest.metrics[:, :, METRICS.index("accuracy")].nanmean(0).tolist()
            summary = {f"{split}_accuracy": value for split, value in zip(SPLITS, accuracy, strict=True)}
        epochs_trained = training.epoch - self.started_at
        num_images = epochs_trained * training.steps_per_epoch * training.config.replicas * training.config.batch_size
        summary["num_diverged"] = int((training.diverged_at >= 0).sum())
        notes = [f"training state {name} was damaged and is deleted: what it stood for was trained again" for name in self.states.damaged]
        return Progress(self.trial, training.epoch, state, done, epochs_trained, num_images, summary, tuple(notes))

    def write(self) -> None:
        """Write every table of the family, `trials` last."""
        assert self.latest is not None
        for probe in self.probes:
            if groups := probe.row_groups(self.trial):
                tables.write(self.store, probe.table, self.trial, groups)
        columns = replica_columns(self.trial, self.family.schedule, self.training, self.latest)
        tables.write(self.store, "replicas", self.trial, columns)
        row = trial_row(self.base, self.family.schedule, self.family.probes)
        measured = {
            "status": "done",
            "num_diverged": int((self.training.diverged_at >= 0).sum()),
            "started_from": self.started_from,
            "epochs_trained": self.training.epoch - self.started_at,
            "train_s": self.train_s,
            "record_s": time.perf_counter() - self.began - self.train_s,
            "device": self.made_by,
        }
        write_trial(self.store, row | measured)


def setting(probes: Probes, device: str, executor: Executor, num_threads: int) -> dict[str, Any]:
    """What the file of a training state depends on beside its history: what was recorded, and what rounds the numbers."""
    return {"probes": probes.on_the_way, "device": device, "executor": executor, "num_threads": num_threads}


def free_gpu() -> None:
    """Give back the GPU memory of a family that ended: its process goes on to the next, and others may share the GPU."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def prepare_process(num_threads: int) -> None:
    """Settings made once per process: those that bit-for-bit equality rests on, and those that make training fast.

    What a GPU cannot do deterministically is warned of by torch.
    """
    _keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms(warn_only), which imports torch's compiler: a second
    # Writing NaN into every new tensor takes 8 % of an epoch; nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors. Each step takes the same again, and fresh pages cost up to half of its time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)
