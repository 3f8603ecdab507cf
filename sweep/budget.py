"""A budget of device-hours: refuse what costs more, or take the first families that fit."""

from __future__ import annotations

from analysis.wording import counted
from sweep.config import ConfigError
from sweep.cost import Cost
from sweep.plan import Plan


def within(cost: Cost, budget_hours: float | None, trim: bool) -> Plan:
    """The plan, or with `trim` that of its first families that fit. Raises ConfigError where it costs more than the budget."""
    if trim and cost.plan.config.search.kind == "optuna":
        raise ConfigError("--trim", ["a search knows its families only as it goes; lower search.num_families instead"])
    if budget_hours is None:
        return cost.plan
    if not cost.is_known:
        raise ConfigError("--budget-hours", [f"the plan's cost is {cost.source}"])
    if cost.whole_s <= budget_hours * 3600:
        return cost.plan
    chosen = first_that_fit(cost, budget_hours * 3600 - cost.images_s)
    hours, num = cost.whole_s / 3600, len(cost.plan.remaining)
    excess = f"the plan costs {hours:.3g} device-hours ({cost.source}), the budget is {budget_hours:g}"
    if not chosen:
        raise ConfigError("--budget-hours", [f"{excess}; not even the first of {counted(num, 'family')} fits"])
    if cost.plan.config.search.kind == "optuna":
        raise ConfigError("--budget-hours", [f"{excess}; lower search.num_families"])
    if not trim:
        raise ConfigError("--budget-hours", [f"{excess}; {len(chosen)} of {counted(num, 'family')} would fit, which --trim runs"])
    return cost.plan.only(chosen)


def first_that_fit(cost: Cost, budget_s: float) -> set[str]:
    """Controls first, then the others in the order that the searcher releases them, until one costs more than is left."""
    order = {trial: index for index, trial in enumerate(cost.simulation.order)}
    remaining, chosen = cost.plan.remaining, set[str]()
    for trial in sorted(remaining, key=lambda t: (len(remaining[t].schedule.phases) > 1, order[t])):
        budget_s -= cost.seconds[trial]
        if budget_s < 0:
            break
        chosen.add(trial)
    return chosen
