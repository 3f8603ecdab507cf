"""What a family costs on this machine, timed on a small one of the same recipe.

It runs `trainables.family.run` itself, into a folder that is thrown away: training steps, evaluations, looks of the probes, and tables.
The images are cut to as many as the time allows.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

from analysis import tables
from analysis.storage import Store
from trainables.data import Dataset, Split, load
from trainables.executors import Wanted
from trainables.family import Family, free_gpu, prepare_process, run
from trainables.options import Probes
from trainables.probes.hull_pixels import pixel_hull
from trainables.recipe import BaseRecipe
from trainables.schedule import Schedule

BUDGET_S = 3.0  # for the runs that count; the estimate behind it is high, so they take about half of it
_EPOCHS_PER_PHASE = 2  # one behind a swap, one that is not


def time_apart(num_threads: int, *arguments: Any) -> dict[str, float]:
    """`time_family` in a process of its own, for recipes with a user's functions: what ends their process must not end the driver's."""
    with ProcessPoolExecutor(1, get_context("spawn"), prepare_process, (num_threads,)) as pool:
        try:
            return pool.submit(time_family, *arguments).result()
        except BrokenProcessPool:
            raise ProbeFailed("its process died") from None


class ProbeFailed(RuntimeError):
    """A family timed for the plan raised."""


def functions_in_turn(schedules: list[Schedule], limit: int = 4) -> list[list[Any]]:
    """Phases that go through the activations and losses of some schedules, each in force for two epochs."""
    phases = [phase for schedule in schedules for phase in schedule.phases]
    sets = list(dict.fromkeys(tuple(phase.listed[1:]) for phase in phases))
    chosen = sets[:: max(1, len(sets) // limit)][:limit]
    return [[index * _EPOCHS_PER_PHASE, *functions] for index, functions in enumerate(chosen)]


def time_family(recipe: BaseRecipe, probes: Probes, phases: list[list[Any]], device: str, executor: Wanted = "auto") -> dict[str, float]:
    """Seconds per replica of an epoch, of a swap, and of a family's start and end.

    Where whole epochs take too long, two shares of the images tell what depends on their number. Raises ProbeFailed.
    """
    data, batch = load(recipe.data), recipe.training.batch_size
    replicas = recipe.training.replicas
    num_batches = len(data.train.labels) // batch

    def times(phases: list[list[Any]], batches: int) -> dict[str, float]:
        return _times(
            _small(recipe, probes, phases), _cut(data, batches, batch, probes.num_samples), device, executor, probes.evaluate_every
        )

    least = times(phases[:1], 1)  # warms up as well
    batch_s = least["epoch_s"] * replicas * len(phases) * _EPOCHS_PER_PHASE
    if batch_s * num_batches <= BUDGET_S:
        return times(phases, num_batches)
    if batch_s * 4 > BUDGET_S:  # two epochs of one batch are all that there is time for
        return {key: value * (num_batches if key == "epoch_s" else 1) for key, value in least.items()}
    few = int(BUDGET_S / batch_s / 4)
    low, high = times(phases, few), times(phases, 3 * few)
    return {key: max(low[key] + (high[key] - low[key]) / (2 * few) * (num_batches - few), 0.0) for key in low}


def _times(family: Family, data: Dataset, device: str, executor: Wanted, evaluate_every: int) -> dict[str, float]:
    """Seconds per replica of a whole small family on some data, which evaluates every epoch, as if it did so every so many."""
    with tempfile.TemporaryDirectory(prefix="sweep-probe-") as folder:
        store = Store(folder)
        if family.probes.hull is not None:
            pixel_hull(store, data, family.probes)  # once per data set, not per family
        reports = [time.perf_counter()]
        try:
            for _ in run(family, store, device, executor, data):
                reports.append(time.perf_counter())
        except Exception as error:  # whatever the user's functions raise
            raise ProbeFailed(f"{type(error).__name__}: {error}") from error
        finally:
            free_gpu()
        train_s = float(tables.read(store, "trials", ["train_s"])["train_s"].item()) / family.recipe.training.epochs
    first, *epochs, last = (after - before for before, after in pairwise(reports))  # `first` is the start and an epoch, `last` the end
    still, swapped = epochs[0::2], epochs[1::2]
    epoch_s = sum(still) / len(still)
    swap_s = sum(swapped) / len(swapped) - epoch_s if swapped else 0.0
    unevaluated_s = max(0.0, epoch_s - train_s) * (1 - 1 / evaluate_every)  # what an epoch saves, and a swap spends again before it
    found = {
        "epoch_s": epoch_s - unevaluated_s,
        "swap_s": max(0.0, swap_s) + unevaluated_s,
        "family_s": max(0.0, first - epoch_s) + last + unevaluated_s,
    }
    return {key: value / family.recipe.training.replicas for key, value in found.items()}


def _small(recipe: BaseRecipe, probes: Probes, phases: list[list[Any]]) -> Family:
    changed = {"epochs": len(phases) * _EPOCHS_PER_PHASE, "warmup_epochs": 0}
    small = recipe.model_copy(update={"training": recipe.training.model_copy(update=changed)})
    return Family(small, probes.model_copy(update={"epochs": [], "evaluate_every": 1}), Schedule.of(phases))


def _cut(data: Dataset, num_batches: int, batch_size: int, num_probed: int) -> Dataset:
    """The first batches of the training split, and the same share of the others; never fewer test images than are probed."""

    def first(split: Split, count: int) -> Split:
        return Split(split.ids[:count], split.images[:count], split.labels[:count], split.clean_labels[:count], None)

    num_train = num_batches * batch_size
    if num_train + batch_size > len(data.train.labels):
        return data
    share = num_train / len(data.train.labels)
    val, test = (round(share * len(split.labels)) for split in (data.val, data.test))
    return replace(data, train=first(data.train, num_train), val=first(data.val, val), test=first(data.test, max(test, num_probed)))
