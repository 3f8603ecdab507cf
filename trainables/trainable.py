"""The Ray Tune Trainable around a family: the only file here that knows Ray."""

from __future__ import annotations

import json
import time
from typing import Any

from ray import tune

from analysis.metrics import metrics
from analysis.storage import Store
from trainables import family as families
from trainables.executors import Wanted
from trainables.recipe import BaseRecipe, Probes
from trainables.rows import trial_row, write_failure
from trainables.schedule import Base, Schedule


def to_config(family: families.Family, dataset_hash: str, root: str, device: str, num_threads: int, executor: Wanted) -> dict[str, Any]:
    """A family as the plain data that Tune carries to a worker."""
    return {
        "family": json.dumps(
            {
                "recipe": family.recipe.model_dump(mode="json"),
                "probes": family.probes.model_dump(mode="json"),
                "phases": [[p.start_epoch, p.activation, p.loss] for p in family.schedule.phases],
                "save_epochs": sorted(family.save_epochs),
            }
        ),
        "dataset_hash": dataset_hash,
        "root": root,
        "device": device,
        "num_threads": num_threads,
        "executor": executor,
    }


def from_config(config: dict[str, Any]) -> families.Family:
    """The inverse of `to_config`."""
    parts = json.loads(config["family"])
    return families.Family(
        BaseRecipe.model_validate(parts["recipe"]),
        Probes.model_validate(parts["probes"]),
        Schedule.of(parts["phases"]),
        frozenset(parts["save_epochs"]),
    )


REPORT_EVERY_S = 2.0


class FamilyTrainable(tune.Trainable):
    """One family per trial. A step ends where a training state is saved, so that branches start while their trunk goes on, and after
    a few seconds, so that the console has something to tell; with `every_epoch`, at every epoch. The last result holds the values of
    the metrics named in `objectives`.

    An exception of the family is recorded in its `trials` row and ends the trial; only a dead worker is an error to Tune, which retries.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._began_at = time.perf_counter()
        families.prepare_process(config["num_threads"])
        self._family, self._store = from_config(config), Store(config["root"])
        self._dataset_hash = config["dataset_hash"]
        self._objectives, self._every_epoch = config.get("objectives", []), config.get("every_epoch", False)
        self._run = families.run(self._family, self._store, config["device"], config["executor"])

    def step(self) -> dict[str, Any]:
        began = time.monotonic()
        try:
            for progress in self._run:
                if progress.done or progress.state or self._every_epoch or time.monotonic() - began > REPORT_EVERY_S:
                    break
            values = metrics(self._store, progress.trial, self._objectives) if progress.done and self._objectives else {}
        except Exception as error:
            row = trial_row(Base(self._family.recipe, self._dataset_hash), self._family.schedule, self._family.probes)
            write_failure(self._store, row, error)
            return {"done": True, "status": "failed", "error": f"{type(error).__name__}: {error}"}
        return {
            "done": progress.done,
            "status": "done" if progress.done else "running",
            "state": progress.state,
            "epoch": progress.epoch,
            "num_images": progress.num_images,
            "seconds": time.perf_counter() - self._began_at,
            "objectives": list(values.values()),
            **progress.summary,
        }

    def cleanup(self) -> None:
        self._run.close()
        families.free_gpu()


__all__ = ["FamilyTrainable", "from_config", "to_config"]
