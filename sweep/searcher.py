"""The Tune searcher that releases a family when the training state that it starts from exists."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from analysis.storage import Store
from sweep.plan import Plan, device, num_threads
from sweep.releases import Releases
from trainables.rows import write_failure, write_skipped
from trainables.states import States
from trainables.trainable import Work, to_config


def work_of(plan: Plan, store: Store) -> Work:
    """What all families of a plan share."""
    config = plan.config
    return Work(
        config.recipe,
        plan.members.dataset_hash,
        config.probes,
        store.address,
        device(config),
        num_threads(config),
        config.resources.executor,
        tuple(objective.metric for objective in config.search.objectives),
        every_epoch=config.search.pruning is not None or bool(config.tracking),
    )


class PrefixSearcher(Searcher):
    """Families of a plan, the longest waiting chain first. Keeps no more states than are still needed."""

    def __init__(self, plan: Plan, store: Store, urgency: Callable[[str], int] | None = None) -> None:
        super().__init__(metric="epoch", mode="max")
        self.plan, self.store = plan, store
        self.states, self.work = States(store), work_of(plan, store)
        self.running: dict[str, str] = {}  # Tune's trial id -> ours
        self.failed: dict[str, str] = {}  # our trial id -> reason, for failed and skipped families
        self.reasons: dict[str, str] = {}  # our trial id -> why a family was given up while it trained
        self.num_finished = 0
        self.num_unproposed = 0  # families that are not known yet, at most
        self.epochs_to_train = plan.unique_replica_epochs // plan.config.training.replicas
        self.num_epochs = 0  # trained by all attempts that have ended, as far as they could tell
        self.releases = Releases(plan, urgency)
        self._attempts: dict[str, int] = {}  # Tune's trial id -> epochs trained
        self._num_deaths = Counter[str]()

    @property
    def is_complete(self) -> bool:
        return self.num_finished == len(self.plan.remaining)

    @property
    def most_alive(self) -> int:
        """The most training states that there were at once."""
        return self.releases.most_alive

    def _reporting(self, trial: str) -> dict[str, str]:
        """What a worker is to report beside its progress."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        trial = self.releases.pop()
        if trial is not None:
            self.running[trial_id] = trial
            return {"trial": trial, **to_config(self.plan.family(trial), self.work), **self._reporting(trial)}
        if self.is_complete:  # not sooner: a family that runs may have to start again
            return Searcher.FINISHED  # type: ignore[return-value]  # a marker string, as Tune asks
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._attempts[trial_id] = json.loads(result.get("report", "{}")).get("epochs_trained", 0)
        if result.get("state"):
            self._saved(self.running[trial_id], result["state"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.running.pop(trial_id, None)
        if trial is None:
            return
        if result and result.get("report"):
            self._attempts[trial_id] = json.loads(result["report"])["epochs_trained"]
        self.num_epochs += self._attempts.pop(trial_id, 0)
        if error:
            self._died(trial)
        elif result and result.get("status") == "failed":
            self._fail(trial, result["error"])
        else:
            self.num_finished += 1
            self._end(trial, result or {})

    def _end(self, trial: str, result: dict[str, Any]) -> None:
        """After a family that has not failed."""
        for state in self.plan.remaining[trial].saves.values():
            self.releases.release_waiting(state)  # a state whose report was lost with a worker
        self._let_go(trial)

    def _died(self, trial: str) -> None:
        """Start a family again whose worker died. Tune's own retry gives a trial up when two calls to a dead worker fail at once."""
        self._num_deaths[trial] += 1
        retries = self.plan.config.resources.max_retries
        if self._num_deaths[trial] <= retries:
            self.releases.release(trial)
            return
        reason = f"its worker died, or failed before it could say why, more than {retries} times"
        write_failure(self.store, self.plan.row(trial), WorkerDied(reason))
        self._fail(trial, reason)

    def _fail(self, trial: str, reason: str) -> None:
        """Skip all families that wait for states that this one has not saved; the state that it started from stays for another try."""
        self.num_finished += 1
        self.failed[trial] = reason
        for state in self.plan.remaining[trial].saves.values():
            for child in self.releases.waiting.pop(state, []):
                why = f"continues from {trial}, which failed: {reason}"
                write_skipped(self.store, self.plan.row(child), why)
                self._fail(child, why)

    @property
    def num_deaths(self) -> int:
        """Workers that died."""
        return self._num_deaths.total()

    def _saved(self, trial: str, state: str) -> None:
        """A training state is there: start who waits for it, and forget the checkpoint that it makes obsolete."""
        self._delete(self.releases.saved(trial, state))

    def _let_go(self, trial: str) -> None:
        """Remove the state that a finished family started from once no other needs it, and its last checkpoint."""
        self._delete(self.releases.let_go(trial))

    def _delete(self, states: Iterable[str]) -> None:
        for state in states:
            self.states.delete(state)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore, which never happens here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the tables and the training states are the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a restarted sweep makes a new plan."""


class LiveTrials(FIFOScheduler):
    """Chooses among the trials that have not ended; the one that it extends looks through all there ever were, several times a second."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        return next((trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING), None)


class WorkerDied(RuntimeError):
    """A family whose worker process died more often than it may be retried."""
