"""The Ray Tune Trainable around a family: the only file here that knows Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from ray import tune

from analysis.metrics import metrics
from analysis.storage import Store
from trainables import family as families
from trainables.data import load, provide
from trainables.data.samples import Samples
from trainables.executors import Wanted
from trainables.options import Probes
from trainables.recipe import BaseRecipe
from trainables.rows import trial_row, write_failure
from trainables.schedule import Base, Schedule


@dataclass(frozen=True)
class Work:
    """What the families of a sweep share; it reaches each worker once.

    The `objectives` of a search are metrics of the families that it judges. With `every_epoch` families report at every epoch.
    """

    recipe: BaseRecipe
    dataset_hash: str
    probes: Probes
    root: str
    device: str
    num_threads: int
    executor: Wanted = "auto"
    objectives: tuple[str, ...] = ()
    every_epoch: bool = False


def to_config(family: families.Family, work: Work) -> dict[str, str]:
    """What tells a family from another of the same work, as the plain data that Tune carries to a worker.

    Short, and text: Tune keeps every trial's config five times over, and statistics of every number in it.
    """
    ours, theirs = (recipe.model_dump(mode="json") for recipe in (family.recipe, work.recipe))
    changes = {part: {k: v for k, v in keys.items() if v != theirs[part].get(k)} for part, keys in ours.items() if keys != theirs[part]}
    phases = [phase.listed for phase in family.schedule.phases]
    return {"changes": json.dumps(changes), "phases": json.dumps(phases), "save_epochs": json.dumps(sorted(family.save_epochs))}


def from_config(config: dict[str, str], work: Work) -> families.Family:
    """The inverse of `to_config`."""
    recipe, changes = work.recipe, json.loads(config["changes"])
    if changes:
        written = recipe.model_dump(mode="json")
        recipe = BaseRecipe.model_validate({part: keys | changes.get(part, {}) for part, keys in written.items()})
    schedule, save_epochs = Schedule.of(json.loads(config["phases"])), frozenset(json.loads(config["save_epochs"]))
    return families.Family(recipe, work.probes, schedule, save_epochs)


REPORT_EVERY_S = 2.0


class FamilyTrainable(tune.Trainable):
    """One family per trial. A step ends where a training state is saved, so that branches start while their trunk goes on, and after
    a few seconds, so that the console has something to tell. The last result of a family that a search judges holds its objectives.

    An exception of the family is recorded in its `trials` row and ends the trial; only a dead worker is an error to Tune, which retries.
    """

    def setup(self, config: dict[str, str], work: Work, samples: Samples) -> None:  # type: ignore[override]  # as tune.with_parameters calls it
        """`samples` lie in the object store of the node, one copy for all of its workers."""
        self.work = work
        provide(work.recipe.data, samples)
        self._begin(config)

    def reset_config(self, new_config: dict[str, str]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, str]) -> None:
        self._began_at = time.perf_counter()
        families.prepare_process(self.work.num_threads)
        self._family, self._store = from_config(config, self.work), Store(self.work.root)
        self._is_judged = config.get("is_judged") == "yes"
        self._run = self.run_family(self._family, self._store)

    def run_family(self, family: families.Family, store: Store) -> Generator[families.Progress]:
        """What trains a family; a benchmark of all that is around it brings its own."""
        return families.run(family, store, self.work.device, self.work.executor)

    def step(self) -> dict[str, Any]:
        began = time.monotonic()
        try:
            for progress in self._run:
                is_awaited = progress.done or progress.state or self.work.every_epoch
                if is_awaited or time.monotonic() - began > REPORT_EVERY_S:
                    break
            values = metrics(self._store, progress.trial, self.work.objectives) if progress.done and self._is_judged else {}
        except Exception as error:
            recipe, work = self._family.recipe, self.work
            base = Base(recipe, work.dataset_hash if recipe.data == work.recipe.data else load(recipe.data).hash)
            write_failure(self._store, trial_row(base, self._family.schedule, self._family.probes), error)
            return {"done": True, "status": "failed", "error": f"{type(error).__name__}: {error}"}
        report = {
            "epoch": progress.epoch,
            "epochs_trained": progress.epochs_trained,
            "num_images": progress.num_images,
            "seconds": time.perf_counter() - self._began_at,
            "objectives": list(values.values()),
            "notes": progress.notes if progress.done else (),
            **progress.summary,
        }
        return {
            "done": progress.done,
            "status": "done" if progress.done else "running",
            "state": progress.state,
            "report": json.dumps(report),  # text for the same reason as the config
        }

    def cleanup(self) -> None:
        self._run.close()
        families.free_gpu()


__all__ = ["FamilyTrainable", "Work", "from_config", "to_config"]
