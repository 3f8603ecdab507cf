"""The release order of the searcher, played through on paper: how long a plan takes, and how many training states live at once."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sweep.plan import Plan


@dataclass(frozen=True)
class Simulation:
    """What happens when families take the seconds foreseen: wall time, the most training states at once, and who starts when."""

    seconds: float
    num_states: int
    order: list[str]


def most_states(plan: Plan) -> int:
    """Training states that can live at once whatever families take: those that families start from, and one checkpoint per family."""
    if plan.config.storage.keep_states:
        return len({*plan.users, *(state for p in plan.remaining.values() for state in {**plan.checkpoint_epochs(p), **p.saves}.values())})
    return len(plan.users) + sum(1 for p in plan.remaining.values() if plan.checkpoint_epochs(p))


def simulate(plan: Plan, seconds: Mapping[str, float], slots: int) -> Simulation:
    """Play a plan through on so many slots; `seconds` says what each remaining family takes."""
    num_epochs = plan.config.training.epochs
    waiting: dict[str, list[str]] = defaultdict(list)
    order = {trial: index for index, trial in enumerate(plan.remaining)}
    ready: list[tuple[int, int, str]] = []

    def release(trial: str) -> None:
        heapq.heappush(ready, (-plan.critical_epochs[trial], order[trial], trial))

    for trial, planned in plan.remaining.items():
        if planned.parent is None:
            release(trial)
        else:
            waiting[str(planned.start_state)].append(trial)
    keep = plan.config.storage.keep_states
    users = {state: len(trials) for state, trials in plan.users.items()}

    def forget(state: str | None) -> None:
        if not keep and not users.get(str(state)):
            alive.discard(state)

    alive: set[str | None] = {planned.start_state for planned in plan.remaining.values() if planned.start_state and planned.parent is None}
    checkpoints: dict[str, str] = {}
    most, now, started = len(alive), 0.0, list[str]()
    events: list[tuple[float, int, str, str | None]] = []  # time, tie-break, family, and the state that it saves; None when it ends
    num_running = 0
    while ready or events:
        while ready and num_running < slots:
            trial = heapq.heappop(ready)[2]
            planned = plan.remaining[trial]
            started.append(trial)
            num_running += 1
            per_epoch = seconds[trial] / (num_epochs - planned.start_epoch)
            for epoch, state in {**plan.checkpoint_epochs(planned), **planned.saves}.items():
                heapq.heappush(events, (now + (epoch - planned.start_epoch) * per_epoch, len(events), trial, state))
            heapq.heappush(events, (now + seconds[trial], len(events), trial, None))
        now, _, trial, saved = heapq.heappop(events)
        if saved is not None:
            alive.add(saved)
            forget(checkpoints.pop(trial, None))
            checkpoints[trial] = saved
            for child in waiting.pop(saved, []):
                release(child)
        else:
            num_running -= 1
            forget(checkpoints.pop(trial, None))
            begun = plan.remaining[trial].start_state
            if begun:
                users[begun] -= 1
                forget(begun)
        most = max(most, len(alive))
    return Simulation(now, most, started)
