"""A plan played through on paper: how long it takes, and how many training states live at once."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from sweep.plan import Plan
from sweep.releases import Releases


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
    releases, now, started, num_running = Releases(plan), 0.0, list[str](), 0
    events: list[tuple[float, int, str, str | None]] = []  # time, tie-break, family, and the state that it saves; None when it ends
    while events or not releases.is_empty:
        while num_running < slots and (trial := releases.pop()) is not None:
            planned = plan.remaining[trial]
            started.append(trial)
            num_running += 1
            per_epoch = seconds[trial] / (plan.config.training.epochs - planned.start_epoch)
            for epoch, state in {**plan.checkpoint_epochs(planned), **planned.saves}.items():
                heapq.heappush(events, (now + (epoch - planned.start_epoch) * per_epoch, len(events), trial, state))
            heapq.heappush(events, (now + seconds[trial], len(events), trial, None))
        now, _, trial, saved = heapq.heappop(events)
        if saved is not None:
            releases.saved(trial, saved)
        else:
            num_running -= 1
            releases.let_go(trial)
    return Simulation(now, releases.most_alive, started)
