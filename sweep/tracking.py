"""TensorBoard, MLflow and Weights & Biases beside the tables, through Ray Tune's own callbacks.

The tables are the record. A tracker is shown each family's accuracies as it trains, and one that fails costs itself only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from analysis.storage import Store
from sweep.config import Sweep
from sweep.failures import DESCRIPTION, flat
from sweep.log import RunLog, printable
from sweep.plan import Plan

_UPLOAD_S = 60  # what W&B may take at the end of a sweep to send what is left
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
    return WandbLoggerCallback(project=project, group=config.name, dir=str(place), mode=mode, upload_timeout=_UPLOAD_S)


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
    """Shows families to a tracker: our ids, readable parameters, and numbers over epochs in place of Tune's iterations."""

    def __init__(self, name: str, plan: Plan, store: Store, console: RunLog) -> None:
        self.name, self.plan, self.console, self.place = name, plan, console, folder(plan.config, store, name)
        self._shown: dict[str, Shown] = {}
        self._open: set[str] = set()  # families that were begun and have not ended
        self._failed: set[str] = set()
        self._logger: Any = None
        self._is_broken = False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore, which never happens here."""
        return {}

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:
        if self._is_broken:
            return
        try:
            function(*arguments)
        except Exception as error:  # whatever a tracker or its server raises
            self._is_broken = True
            why = printable(f"{type(error).__name__}: {error}")
            self.console.print(f"note: tracking with {self.name} has ended, the sweep goes on: {why}", markup=False, highlight=False)

    def _of(self, family: str) -> Shown:
        if family not in self._shown:
            path = str(self.place / family)
            self._shown[family] = Shown(family, self.plan.label(family), described(self.plan, family), path, self.plan.config.name)
            self._shown[family].init_local_path()
        return self._shown[family]

    def _begin(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        self._logger = _logger(self.name, self.plan.config, self.place)
        self._logger.setup()

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        self._tell(self._begin)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._open.add(trial.config["trial"])
        self._tell(lambda: self._logger.log_trial_start(self._of(trial.config["trial"])))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if result["status"] == "failed":
            self._failed.add(trial.config["trial"])
        report = json.loads(result.get("report", "{}"))
        if report:
            numbers = {key: value for key, value in report.items() if key not in _NO_METRICS}
            told = {**numbers, "training_iteration": report["epoch"]}  # the step of all trackers
            self._tell(lambda: self._logger.log_trial_result(iteration, self._of(trial.config["trial"]), told))

    def _end(self, family: str, failed: bool) -> None:
        self._open.discard(family)
        self._tell(lambda: self._logger.log_trial_end(self._of(family), failed))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.config["trial"], trial.config["trial"] in self._failed)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.config["trial"], True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for family in sorted(self._open):  # those of an interrupted run: W&B's callback would wait for their end
            self._end(family, True)
        self._tell(lambda: self._logger.on_experiment_end(trials))


def trackers(plan: Plan, store: Store, console: RunLog) -> list[Tracked]:
    """A Tune callback for each tracker of the sweep file."""
    return [Tracked(name, plan, store, console) for name in plan.config.tracking]
