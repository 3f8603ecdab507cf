"""What a plan says to people: which families there are, what of them is to run, and what it will cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from io import StringIO

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.storage import Store
from sweep.check import check
from sweep.config import Sweep
from sweep.cost import Cost, cost_line, estimate
from sweep.plan import Plan, make_plan, results_store
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


def of(config: Sweep, source: str) -> Outlook:
    """The outlook of a sweep; writes nothing. Raises ConfigError where the input is bad."""
    store = results_store(config)
    data = check(config, source)
    return look(make_plan(config, data, store), data, store)


def look(found: Plan, data: Dataset, store: Store) -> Outlook:
    """The outlook of a plan over these data and results."""
    lines = [
        f"{found.config.name}: {len(found.families)} families, {len(found.done)} done, {len(found.remaining)} to run",
        f"data: {data.name}, {len(data.train.labels)} train / {len(data.val.labels)} val / {len(data.test.labels)} test images "
        f"of {data.image_shape}, {data.num_classes} classes",
        *(f"note: {note}" for note in data.notes),
        *(f"note: trials/{trial}.parquet is damaged, so the family is to run again: {why}" for trial, why in found.damaged.items()),
        *about_search(found, store),
    ]
    most, cost = found.with_unproposed(), None
    if most.remaining:
        if found.num_unproposed:
            lines.append(
                f"at most {found.num_unproposed} stressed families more, and their controls; what follows counts them whole, "
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
            f"critical path {longest} epochs{critical}",
            cost_line(cost),
            f"training states: {alive}",
            f"disk: about {size(cost.total_bytes)} of tables",
        ]
    lines.append(f"results: {store.root}")
    return Outlook(found, cost, lines)
