"""The Tune searcher of a search with Optuna: a prefix tree that grows by a family at a time, as the study proposes them."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

from ray import tune

from analysis.metrics import metrics
from analysis.storage import Store
from sweep.plan import Member, Plan, Planned, recorded
from sweep.searcher import PrefixSearcher
from sweep.space import Point
from sweep.study import Proposal, SearchStudy
from trainables.rows import write_pruned
from trainables.schedule import Schedule

# Proposals of known families in a row after which a new one is drawn at random.
MAX_REPEATS = 20
# What one call of `suggest` may spend on proposals that are answered at once.
MAX_ASKING_S = 0.5


class AdaptiveSearcher(PrefixSearcher):
    """Asks the study for families while slots are free, and tells it what they gave.

    A new family starts from the latest state on its way that is kept or that a planned family is going to save. Each family saves every
    state from which another point of the space could start, so that no history is trained twice while its states are kept.
    """

    def __init__(self, plan: Plan, store: Store, study: SearchStudy, num_slots: int) -> None:
        # All are as urgent: families start in the order in which they were proposed, controls before what continues from them.
        super().__init__(replace(plan, families=dict(plan.families), remaining={}), store, lambda trial: 0)
        self.study, self.members, self.num_slots = study, plan.members, num_slots
        self.config, self.search = plan.config, plan.config.search
        self.exhausted = False
        self.num_unproposed = plan.num_unproposed
        self.epochs_to_train = self.num_unproposed * self.config.training.epochs  # those of families not yet proposed counted whole
        self._epochs_of: dict[str, int] = {}
        num_epochs = self.config.training.epochs
        own = {base.state_name(schedule, epoch) for base, schedule in plan.families.values() for epoch in range(1, num_epochs)}
        self._kept = dict.fromkeys(sorted(own.intersection(plan.usable)))  # training states of this search, the least recently used first
        self._most_kept = 0
        self._foreign = set(plan.usable) - own  # those of whatever else ran in this folder: used, never deleted
        self._promised: dict[str, str] = {}  # training states that a planned family is going to save, and that family
        self._needed: dict[str, set[str]] = defaultdict(set)  # training states that planned families start from, and those
        self._asked: dict[str, list[int]] = {}  # planned families and the Optuna trials that wait for them
        self._proposed: set[str] = set()
        self._repeats = 0
        self._status = dict.fromkeys(plan.done, "done") | dict.fromkeys(plan.pruned, "pruned")
        for trial in plan.remaining:
            self._add(trial, plan.families[trial])
        self._resume()

    def _resume(self) -> None:
        """Take up the study where a run before this one left it. A family that failed is tried again under a new Optuna trial."""
        before = self.study.proposals()
        self._proposed = {self.members.trial(p.point) for p in before if p.point is not None and p.state != "WAITING"}
        for proposal in before:
            if proposal.state == "RUNNING":
                self._receive(proposal)
        for _ in range(sum(proposal.state == "WAITING" for proposal in before)):
            self._receive(self.study.ask())
        for proposal in before:
            was_given_up = proposal.state == "FAIL" or (proposal.state == "PRUNED" and self.search.pruning is None)
            if was_given_up and proposal.point is not None:
                trial = self.members.trial(proposal.point)
                if trial in self.plan.remaining and trial not in self._asked:
                    self._receive(self.study.ask_again(proposal.number))

    @property
    def most_alive(self) -> int:
        return self._most_kept

    @property
    def is_open(self) -> bool:
        """Whether the study is to propose further families."""
        return not self.exhausted and self.num_unproposed > 0

    @property
    def is_complete(self) -> bool:
        return not self.is_open and super().is_complete

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        until = time.monotonic() + MAX_ASKING_S
        # Families that wait for a trunk are proposed without knowing more, so there may not be too many of them.
        while self.is_open and self.releases.is_empty and len(self._asked) < 2 * self.num_slots and time.monotonic() < until:
            self._propose()
        return super().suggest(trial_id)

    def _propose(self) -> None:
        if self._repeats < MAX_REPEATS:
            self._receive(self.study.ask())
            return
        proposal = self.study.ask_unproposed(lambda point: self.members.trial(point) not in self._proposed)
        if proposal is None:
            self.exhausted = True
        else:
            self._receive(proposal)

    def _receive(self, proposal: Proposal) -> None:
        """Answer a proposal from the records, attach it to the family that is planned already, or plan it."""
        number, point = proposal.number, proposal.point
        if point is None:
            self._repeats += 1
            self.study.prune(number)
            return
        trial, member = self.members.trial(point), self.members.member(point)
        self.study.note(number, trial, point)
        self._repeats = self._repeats + 1 if trial in self._proposed else 0
        if trial not in self._proposed:
            self._proposed.add(trial)
            self.num_unproposed -= 1
            self.epochs_to_train -= self.config.training.epochs
        self.plan.families.setdefault(trial, member)
        status = self._known(trial, member)
        if status == "done":
            self.study.tell(number, list(metrics(self.store, trial, self.study.objectives).values()))
        elif status == "pruned":
            self.study.prune(number)
        elif trial in self.failed:
            self.study.fail(number)
        else:
            self._asked.setdefault(trial, []).append(number)
            self._want(point.control if self.config.space.controls else point)
            self._want(point)

    def _known(self, trial: str, member: Member) -> str | None:
        """Whether a family is in the tables."""
        if trial not in self._status and trial not in self.plan.remaining and (status := recorded(self.store, trial, member, self.config)):
            self._status[trial] = status
        return self._status.get(trial)

    def _want(self, point: Point) -> None:
        """Plan a family unless it is planned, has run or has failed."""
        trial, member = self.members.trial(point), self.members.member(point)
        self.plan.families.setdefault(trial, member)
        if trial not in self.plan.remaining and self._known(trial, member) is None:
            self._add(trial, member)

    def _add(self, trial: str, member: Member) -> None:
        """Give a family its place in the tree: where it starts, and what it saves."""
        base, schedule = member
        start_epoch, state = 0, None
        for epoch in reversed(range(1, self.config.training.epochs)):
            name = base.state_name(schedule, epoch)
            if name in self._kept or name in self._foreign or name in self._promised:
                start_epoch, state = epoch, name
                break
        saves = {epoch: base.state_name(schedule, epoch) for epoch in self._shared_epochs(schedule) if epoch > start_epoch}
        parent = self._promised.get(state) if state else None
        self.epochs_to_train += (self.config.training.epochs - start_epoch) - self._epochs_of.get(trial, 0)
        self._epochs_of[trial] = self.config.training.epochs - start_epoch
        planned = self.plan.remaining[trial] = Planned(trial, base, schedule, start_epoch, state, parent, saves)
        self._promised |= dict.fromkeys(saves.values(), trial)
        if state is not None:
            self._needed[state].add(trial)
        self.releases.add(planned)

    def _shared_epochs(self, schedule: Schedule) -> list[int]:
        """The epochs of a schedule at which another point of the space could part from it."""
        space, num_epochs = self.config.space, self.config.training.epochs
        swap, *back = schedule.swap_epochs or (num_epochs,)
        epochs = {epoch for epoch in space.swap_epochs if epoch <= swap}
        epochs |= {swap + length for length in space.pulse_epochs if swap + length <= (back or [num_epochs])[0]}
        return sorted(epoch for epoch in epochs if epoch < num_epochs)

    def _reporting(self, trial: str) -> dict[str, str]:
        return {"is_judged": "yes" if trial in self._asked else "no"}

    def _saved(self, trial: str, state: str) -> None:
        self._promised.pop(state, None)
        self._touch(state)
        self._most_kept = max(self._most_kept, len(self._kept))
        self.releases.release_waiting(state)
        self._forget_some()

    def _touch(self, state: str) -> None:
        """Note that a state exists and was used last of all."""
        self._kept.pop(state, None)
        self._kept[state] = None

    def _forget_some(self) -> None:
        """Delete the least recently used states beyond `max_states`, but none that a planned family starts from."""
        if self.config.storage.keep_states:
            return
        for state in list(self._kept):
            if len(self._kept) <= self.search.max_states:
                return
            if not self._needed.get(state):
                del self._kept[state]
                self.states.delete(state)

    def should_prune(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a family that runs is hopeless by now."""
        trial = self.running.get(trial_id, "")
        if self.search.pruning is None or trial not in self._asked or result["status"] != "running":
            return False
        report = json.loads(result["report"])
        metric, epoch = self.search.pruning.metric, report["epoch"]
        if metric not in report:
            return False  # not evaluated at this epoch
        hopeless = self.study.should_prune(self._asked[trial][0], epoch, report[metric])
        if hopeless:
            self.reasons[trial] = f"{metric} was {report[metric]:.4g} at epoch {epoch}"
        return hopeless

    def _end(self, trial: str, result: dict[str, Any]) -> None:
        if result.get("status") != "done" and trial not in self.reasons:
            return  # the sweep is being stopped
        reason = self.reasons.get(trial)
        self._status[trial] = "pruned" if reason else "done"
        if reason:
            write_pruned(self.store, self.plan.row(trial), reason)
        for number in self._asked.pop(trial, []):
            if reason:
                self.study.prune(number)
            else:  # a family that was planned before the study proposed it has not reported its objectives
                told = json.loads(result.get("report", "{}")).get("objectives")
                self.study.tell(number, told or list(metrics(self.store, trial, self.study.objectives).values()))
        self._settle(trial)
        self._let_go(trial)

    def _settle(self, trial: str) -> None:
        """Once a family has ended: release what waits for states whose report was lost, plan anew what waits for states never saved."""
        for state in self.plan.remaining[trial].saves.values():
            if self._promised.get(state) == trial:
                if self.store.exists(self.states.file(state)):
                    self._saved(trial, state)
                else:
                    del self._promised[state]
        waiting = self.releases.waiting
        while orphans := [state for state in waiting if state not in self._promised]:
            for state in orphans:
                self._needed.pop(state, None)
            again = [child for state in orphans for child in waiting.pop(state)]
            for child in again:
                for state in self.plan.remaining[child].saves.values():
                    self._promised.pop(state, None)
            for child in again:
                self._add(child, self.plan.families[child])

    def _let_go(self, trial: str) -> None:
        state = self.plan.remaining[trial].start_state
        if state is not None:
            self._needed[state].discard(trial)
            if state in self._kept:
                self._touch(state)
            self._forget_some()

    def _fail(self, trial: str, reason: str) -> None:
        super()._fail(trial, reason)
        for state in self.plan.remaining[trial].saves.values():
            if self._promised.get(state) == trial:
                del self._promised[state]
        for number in self._asked.pop(trial, []):
            self.study.fail(number)
        self._let_go(trial)


class HopelessStopper(tune.Stopper):
    """Ends the Tune trial of a family that the search prunes."""

    def __init__(self, searcher: AdaptiveSearcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.searcher.should_prune(trial_id, result)

    def stop_all(self) -> bool:
        return False
