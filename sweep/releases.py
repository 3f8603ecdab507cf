"""Which families of a plan may start, and which training states live: the order of a run, whether it is trained or played through."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from sweep.plan import Plan, Planned


class Releases:
    """Families in the order of their release, the longest waiting chain first; O(1) while nothing is ready.

    `urgency` of a family, by its id, takes the place of the length of that chain. Deletes nothing: it tells what nobody needs any more.
    """

    def __init__(self, plan: Plan, urgency: Callable[[str], int] | None = None) -> None:
        self.plan = plan
        self.urgency = urgency or plan.critical_epochs.__getitem__
        self.waiting: dict[str, list[str]] = {}  # training states that are to come, and the families that start from them
        self.alive = set(plan.users).intersection(plan.usable)  # training states; those of families left out for now among them
        self.most_alive = len(self.alive)
        self._ready: list[tuple[int, int, str]] = []
        self._order: dict[str, int] = {}
        self._checkpoints: dict[str, str] = {}  # the latest state that each family saved
        self._users = {state: set(trials) for state, trials in plan.users.items()}
        for planned in plan.remaining.values():
            self.add(planned)

    @property
    def is_empty(self) -> bool:
        """Whether no family is ready."""
        return not self._ready

    def add(self, planned: Planned) -> None:
        """A family that starts when its state is there: at once where no other trains it."""
        self._order.setdefault(planned.trial, len(self._order))
        if planned.parent is None:
            self.release(planned.trial)
        else:
            self.waiting.setdefault(str(planned.start_state), []).append(planned.trial)

    def release(self, trial: str) -> None:
        heapq.heappush(self._ready, (-self.urgency(trial), self._order[trial], trial))

    def release_waiting(self, state: str) -> None:
        for trial in self.waiting.pop(state, []):
            self.release(trial)

    def pop(self) -> str | None:
        """The family to start next; None while all wait."""
        return heapq.heappop(self._ready)[2] if self._ready else None

    def saved(self, trial: str, state: str) -> list[str]:
        """A family saved a training state: who waits for it may start. Returns the states to delete: a checkpoint that is obsolete."""
        self.alive.add(state)
        self.most_alive = max(self.most_alive, len(self.alive))
        before, self._checkpoints[trial] = self._checkpoints.get(trial), state
        self.release_waiting(state)
        return self._unneeded(before if before != state else None)

    def let_go(self, trial: str) -> list[str]:
        """A family ended. Returns the states to delete: its last checkpoint, and what it started from once no other needs that."""
        state = self.plan.remaining[trial].start_state
        if state is not None:
            self._users[state].discard(trial)
        return self._unneeded(self._checkpoints.pop(trial, None), state)

    def _unneeded(self, *states: str | None) -> list[str]:
        """Those of some states from which no family starts any more."""
        if self.plan.config.storage.keep_states:
            return []
        found = [state for state in states if state is not None and not self._users.get(state)]
        self.alive.difference_update(found)
        return found
