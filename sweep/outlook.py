"""What a plan says to people: which families there are, what of them is to run, and what it will cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from io import StringIO
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.storage import Store
from analysis.wording import counted
from sweep.check import check
from sweep.config import Sweep
from sweep.cost import Cost, cost_line, estimate
from sweep.plan import Plan, make_plan, results_store
from sweep.records import Budget, Costs, KindOfCost, PlannedFamily, PlanRecord
from sweep.run import about_search
from sweep.simulate import most_states
from sweep.units import duration, size
from trainables.data import Dataset


@dataclass(frozen=True)
class Outlook:
    """A plan, and its cost where something is to run. `lines` are what the verb `plan` prints below the table of costs."""

    plan: Plan
    cost: Cost | None
    lines: list[str]
    results: str = ""  # where the results lie
    notes: list[str] = field(default_factory=list)  # those of the lines that are notes

    @cached_property
    def families(self) -> pd.DataFrame:
        """A row per family, controls first: trial (its id), schedule, swapped, swap_epoch (null for a control), status (done, pruned, to
        run or left out), from_epoch (where its own training begins; what comes before is trained once, by the family `continues`)."""
        rows = [
            {
                "trial": trial,
                "schedule": self.plan.label(trial),
                "swapped": schedule.swapped,
                "swap_epoch": next(iter(schedule.swap_epochs), None),
                "status": "done" if trial in self.plan.done else "pruned" if trial in self.plan.pruned else "to run",
                "from_epoch": planned.start_epoch if (planned := self.plan.remaining.get(trial)) else None,
                "continues": planned.parent if planned else None,
            }
            for trial, (_, schedule) in self.plan.families.items()
        ]
        columns = ["trial", "schedule", "swapped", "swap_epoch", "status", "from_epoch", "continues"]
        return pd.DataFrame(rows, columns=columns).astype({"swap_epoch": "Int32", "from_epoch": "Int32"})

    @cached_property
    def costs(self) -> pd.DataFrame:
        """A row per kind of schedule that is to run: kind, families, replica_epochs, seconds (of one device; NaN where nothing tells),
        table_bytes."""
        columns = ["kind", "families", "replica_epochs", "seconds", "table_bytes"]
        return pd.DataFrame([asdict(line) for line in self.cost.lines()] if self.cost else [], columns=columns)

    def _shown(self) -> list[tuple[str, ...]]:
        known = self.cost is not None and self.cost.is_known
        return [
            (row.kind, f"{row.families:,}", f"{row.replica_epochs:,}", f"{row.seconds / 3600:.3g}" if known else "?", size(row.table_bytes))
            for row in (self.cost.lines() if self.cost else [])
        ]

    def record(self, budget: Budget | None = None) -> PlanRecord:
        """The plan for `--json`."""
        plan, cost = self.plan, self.cost
        return PlanRecord(
            name=plan.config.name,
            results=self.results,
            num_families=len(plan.families),
            num_done=len(plan.done),
            num_pruned=len(plan.pruned),
            num_to_run=len(plan.remaining),
            num_unproposed=plan.num_unproposed,
            families=[PlannedFamily(**_plain(row)) for row in self.families.to_dict("records")],
            cost=None
            if cost is None
            else Costs(
                device_s=cost.whole_s if cost.is_known else None,
                images_s=cost.images_s,
                wall_s=cost.wall_s if cost.is_known else None,
                slots=cost.slots,
                source=cost.source,
                replica_epochs=cost.plan.unique_replica_epochs,
                replica_epochs_unshared=cost.plan.total_replica_epochs,
                table_bytes=round(cost.total_bytes),
                num_states=cost.simulation.num_states,
                kinds=[KindOfCost(**_plain(row) | {"table_bytes": round(row["table_bytes"])}) for row in self.costs.to_dict("records")],
            ),
            budget=budget,
            notes=self.notes,
        )

    def print(self, console: Console) -> None:
        """The table of what is to run, by kind of schedule, and the lines."""
        if self.cost is not None:
            table = Table(box=None, pad_edge=False)
            for column in _COLUMNS:
                table.add_column(column, justify="left" if column == _COLUMNS[0] else "right")
            for row in self._shown():
                table.add_row(*row)
            console.print(table)
        console.print("\n".join(self.lines), highlight=False, markup=False)

    def __repr__(self) -> str:
        text = StringIO()
        self.print(Console(file=text, width=160, soft_wrap=True, color_system=None, force_jupyter=False))
        return text.getvalue().rstrip()

    def _repr_html_(self) -> str:
        table = pd.DataFrame(self._shown(), columns=_COLUMNS).to_html(index=False, border=0) if self.cost else ""
        return table + "".join(f"<div>{escape(line)}</div>" for line in self.lines)


_COLUMNS = ["to run", "families", "replica-epochs", "device-hours", "tables"]


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A row of a DataFrame with None for what is not there."""
    return {key: None if pd.isna(value) else value for key, value in row.items()}


def of(config: Sweep, source: str) -> Outlook:
    """The outlook of a sweep; writes nothing. Raises ConfigError where the input is bad."""
    store = results_store(config)
    data = check(config, source)
    return look(make_plan(config, data, store), data, store)


def look(found: Plan, data: Dataset, store: Store) -> Outlook:
    """The outlook of a plan over these data and results."""
    notes = [
        *data.notes,
        *(f"trials/{trial}.parquet is damaged, so the family is to run again: {why}" for trial, why in found.damaged.items()),
    ]
    lines = [
        f"{found.config.name}: {counted(len(found.families), 'family')}, {len(found.done)} done, {len(found.remaining)} to run",
        f"data: {data.name}, {len(data.train.labels)} train / {len(data.val.labels)} val / {len(data.test.labels)} test images "
        f"of {data.image_shape}, {data.num_classes} classes",
        *(f"note: {note}" for note in notes),
        *about_search(found, store),
    ]
    most, cost = found.with_unproposed(), None
    if most.remaining:
        if found.num_unproposed:
            lines.append(
                f"at most {counted(found.num_unproposed, 'stressed family')} more, and their controls; what follows counts them whole, "
                "under the recipe as written"
            )
        cost = estimate(most, data, store)
        saved = 1 - most.unique_replica_epochs / most.total_replica_epochs
        longest, family_epochs = max(most.critical_epochs.values()), most.unique_replica_epochs // most.config.training.replicas
        critical = f" ({duration(longest * cost.total_s / family_epochs)})" if cost.is_known else ""
        foreseen, bound = cost.simulation.num_states, most_states(most)
        alive = f"at most {foreseen} at once ({size(foreseen * cost.state_bytes)}), {bound} in the worst case"
        if found.num_unproposed:
            alive = f"at most {found.config.search.max_states} are kept ({size(found.config.search.max_states * cost.state_bytes)})"
        lines += [
            f"to train: {most.unique_replica_epochs:,} of {most.total_replica_epochs:,} replica-epochs; sharing saves {saved:.0%}; "
            f"critical path {counted(longest, 'epoch')}{critical}",
            cost_line(cost),
            f"training states: {alive}",
            f"disk: about {size(cost.total_bytes)} of tables",
        ]
    lines.append(f"results: {store.root}")
    return Outlook(found, cost, lines, store.root, notes)
