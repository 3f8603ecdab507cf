"""TensorBoard, MLflow and Weights & Biases beside the tables, through Ray Tune's own callbacks.

The tables are the record. A tracker is shown each family's accuracies as it trains, and one that fails costs itself only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from ray import tune

from analysis.storage import Store
from sweep.config import Sweep
from sweep.failures import DESCRIPTION, flat
from sweep.log import RunLog, printable
from sweep.plan import Plan

_AT_END_S = 60.0  # what a tracker may take for a call after the last family
_NO_METRICS = ("objectives", "notes")


def folder(config: Sweep, store: Store, name: str) -> Path:
    """Where a tracker keeps its files: beside the results, or below the working directory where these are on an object store."""
    return Path(store.base, "tracking", name) if store.is_local else Path("tracking", config.name, name).absolute()


def _logger(name: str, config: Sweep, place: Path) -> Any:
    """Ray Tune's own callback for a tracker."""
    if name == "tensorboard":
        from ray.tune.logger import TBXLoggerCallback

        return TBXLoggerCallback()
    if name == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place}/mlflow.db"
        return MLflowLoggerCallback(tracking_uri=uri, experiment_name=config.name)
    from ray.air.integrations.wandb import WandbLoggerCallback

    if "WANDB_API_KEY" not in os.environ:
        os.environ.setdefault("WANDB_MODE", "offline")  # read here; the processes that log are told below
    mode = os.environ.get("WANDB_MODE", "online")
    project = os.environ.get("WANDB_PROJECT", config.name)
    return WandbLoggerCallback(project=project, group=config.name, dir=str(place), mode=mode, upload_timeout=int(_AT_END_S))


@dataclass(eq=False)
class Shown:
    """A family, with the attributes of Tune's trials that the callbacks read."""

    trial_id: str
    label: str
    config: dict[str, Any]
    local_path: str
    experiment_dir_name: str
    checkpoint: None = None

    @property
    def evaluated_params(self) -> dict[str, Any]:
        return self.config

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return f"{self.trial_id} {self.label}"


def described(plan: Plan, trial: str) -> dict[str, Any]:
    """What a family is, flat: the schedule's parts, and the keys of the base recipe."""
    row = plan.row(trial)
    recipe = json.loads(row["recipe"])
    parts = {key: row[key] for key in ("schedule", *DESCRIPTION) if row.get(key) is not None}
    return parts | flat(recipe.get("base", {}))


class Tracked(tune.Callback):
    """Shows families to a tracker: our ids, readable parameters, and numbers over epochs in place of Tune's iterations.

    From a thread of its own: some trackers take tenths of a second per family and epoch, and the sweep does not wait for them.
    """

    def __init__(self, name: str, plan: Plan, store: Store, console: RunLog) -> None:
        self.name, self.plan, self.console, self.place = name, plan, console, folder(plan.config, store, name)
        self._shown: dict[str, Shown] = {}
        self._open: set[str] = set()  # families that were begun and have not ended
        self._failed: set[str] = set()
        self._logger: Any = None
        self._is_broken = False
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"tracking with {name}", daemon=True)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore, which never happens here."""
        return {}

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._is_broken:
                continue
            try:
                call()
            except Exception as error:  # whatever a tracker or its server raises
                if self._is_broken:  # given up in the meantime
                    continue
                self._is_broken = True
                self._note(f"tracking with {self.name} has ended, the sweep goes on: {type(error).__name__}: {error}")

    def _note(self, text: str) -> None:
        self.console.print(f"note: {printable(text)}", markup=False, highlight=False)

    def _of(self, family: str) -> Shown:
        if family not in self._shown:
            path = str(self.place / family)
            self._shown[family] = Shown(family, self.plan.label(family), described(self.plan, family), path, self.plan.config.name)
        return self._shown[family]

    def _begin(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        self._logger = _logger(self.name, self.plan.config, self.place)
        self._logger.setup()

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        self._thread.start()
        self._calls.put(self._begin)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        shown = self._of(trial.config["trial"])
        self._open.add(shown.trial_id)
        self._calls.put(shown.init_local_path)
        self._calls.put(lambda: self._logger.log_trial_start(shown))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        shown, report = self._of(trial.config["trial"]), json.loads(result.get("report", "{}"))
        if result["status"] == "failed":
            self._failed.add(shown.trial_id)
        if report:
            numbers = {key: value for key, value in report.items() if key not in _NO_METRICS}
            told = {**numbers, "training_iteration": report["epoch"]}  # the step of all trackers
            self._calls.put(lambda: self._logger.log_trial_result(iteration, shown, told))

    def _end(self, family: str, failed: bool) -> None:
        shown = self._of(family)
        self._open.discard(family)
        self._calls.put(lambda: self._logger.log_trial_end(shown, failed))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.config["trial"], trial.config["trial"] in self._failed)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.config["trial"], True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Wait until all is told, or nothing was taken in for so long."""
        for family in sorted(self._open):  # those of an interrupted run: W&B's callback would wait for their end
            self._end(family, True)
        self._calls.put(lambda: self._logger.on_experiment_end(trials))
        self._calls.put(None)
        waiting = self._calls.qsize()
        self._thread.join(_AT_END_S)
        while self._thread.is_alive():
            before, waiting = waiting, self._calls.qsize()
            if waiting == before:
                self._is_broken = True  # what it lacks is not told any more: Ray, which W&B's callback uses, is about to end
                self._note(f"tracking with {self.name} has taken nothing for {_AT_END_S:g} s; what it lacks is in the tables")
                return
            self._note(f"tracking with {self.name} is behind: {waiting} of its calls wait")
            self._thread.join(_AT_END_S)


def trackers(plan: Plan, store: Store, console: RunLog) -> list[Tracked]:
    """A Tune callback for each tracker of the sweep file."""
    return [Tracked(name, plan, store, console) for name in plan.config.tracking]
