"""The verbs that look: plan, status, failures, show, diff. None of them writes."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import tables
from analysis.storage import Store
from sweep import damage
from sweep.budget import within
from sweep.check import check as check_config
from sweep.config import ConfigError, load
from sweep.cost import Cost, cost_line, estimate
from sweep.failures import COLUMNS, groups, standing
from sweep.jobs import told
from sweep.log import LOGS, printable
from sweep.plan import Plan, make_plan, results_store
from sweep.run import about_search, command
from sweep.simulate import most_states
from sweep.units import duration, size
from trainables.data import Dataset

MOST_SHARED = 3  # values that failures have in common which are shown


def _planned(config_name: str | None, overrides: list[str]) -> tuple[Plan, Dataset, Store]:
    config, source = load(config_name, overrides)
    store = results_store(config)
    data = check_config(config, source)
    return make_plan(config, data, store), data, store


def plan(config_name: str | None, overrides: list[str], budget_hours: float | None = None, trim: bool = False) -> int:
    if trim and budget_hours is None:
        raise ConfigError("--trim", ["has no effect without --budget-hours"])
    found, data, store = _planned(config_name, overrides)
    console = Console(soft_wrap=True)
    lines = [
        f"{found.config.name}: {len(found.families)} families, {len(found.done)} done, {len(found.remaining)} to run",
        f"data: {data.name}, {len(data.train.labels)} train / {len(data.val.labels)} val / {len(data.test.labels)} test images "
        f"of {data.image_shape}, {data.num_classes} classes",
        *(f"note: {note}" for note in data.notes),
        *(f"note: trials/{trial}.parquet is damaged, so the family is to run again: {why}" for trial, why in found.damaged.items()),
    ]
    lines += about_search(found, store)
    most = found.with_unproposed()
    if most.remaining:
        if found.num_unproposed:
            lines.append(
                f"at most {found.num_unproposed} stressed families more, and their controls; what follows counts them whole, "
                "under the recipe as written"
            )
        cost = estimate(most, data, store)
        _print_lines(console, cost)
        saved = 1 - most.unique_replica_epochs / most.total_replica_epochs
        longest = max(most.critical_epochs.values())
        critical = f" ({duration(longest * cost.total_s / _family_epochs(most))})" if cost.is_known else ""
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
    console.print("\n".join(lines), highlight=False, markup=False)
    if most.remaining and budget_hours is not None:
        chosen = within(cost, budget_hours, trim)
        console.print(
            f"budget: {budget_hours:g} device-hours pay for {len(chosen.remaining)} of {len(most.remaining)} families, "
            f"{cost.of(chosen).total_s / 3600:.3g} device-hours",
            highlight=False,
        )
    return 0


def _family_epochs(plan: Plan) -> int:
    return plan.unique_replica_epochs // plan.config.training.replicas


def _print_lines(console: Console, cost: Cost) -> None:
    """A table of what is to run, by kind of schedule."""
    table = Table(box=None, pad_edge=False)
    for column in ("to run", "families", "replica-epochs", "device-hours", "tables"):
        table.add_column(column, justify="left" if column == "to run" else "right")
    for line in cost.lines():
        hours = f"{line.seconds / 3600:.3g}" if cost.is_known else "?"
        table.add_row(line.kind, f"{line.families:,}", f"{line.replica_epochs:,}", hours, size(line.table_bytes))
    console.print(table)


def status(config_name: str | None, overrides: list[str]) -> int:
    found, _, store = _planned(config_name, overrides)
    rows = _trials(store, ["trial", "status", "num_diverged", "num_replicas"])
    rows = rows[rows["trial"].isin(found.families)]
    counts = rows["status"].value_counts()
    absent = len(found.families) - len(rows)
    statuses = ["done", "failed", "skipped", *(["pruned"] if "pruned" in counts else [])]
    text = ", ".join([f"{counts.get(s, 0)} {s}" for s in statuses] + [f"{absent} not run"])
    search = "".join(f"\n{line}" for line in about_search(found, store))
    last = f"\nlast told: {line}" if (line := told(store)) else ""
    Console(soft_wrap=True).print(
        f"{found.config.name}: {len(found.families)} families: {text}; "
        f"{int(rows['num_diverged'].fillna(0).sum())} of {int(rows['num_replicas'].sum())} replicas diverged"
        f"{search}{last}\nresults: {store.root}",
        highlight=False,
        markup=False,
    )
    return 0


def failures(config_name: str | None, overrides: list[str]) -> int:
    config, _ = load(config_name, overrides)
    store = results_store(config)
    rows = standing(_trials(store, COLUMNS))
    console = Console(soft_wrap=True)

    def say(text: str, style: str = "") -> None:
        console.print(printable(text), style=style, markup=False, highlight=False)

    skipped, again = rows[rows["status"] == "skipped"], command(config_name, overrides)
    found = groups(rows)
    if not found and skipped.empty:
        say("no family failed")
        return 0
    for group in found:
        say(f"{len(group.trials)} x {group.kind}: {group.message}", "red")
        for trial, schedule in zip(group.trials, group.schedules, strict=True):
            say(f"    {trial}  {schedule}")
        for key, value, num, of in group.shared[:MOST_SHARED]:
            say(f"    all have {key} = {value}, as have {num} of the {of} others")
        say("\n".join(f"    | {line}" for line in group.last_lines))
        say(f"    the whole traceback: python -m sweep show {group.trials[0]}{again.removeprefix('python -m sweep.run')}")
        say(f"    log: {store.root}/{LOGS}, on {', '.join(group.hosts)}")
        say(f"    to run exactly these again: {again} --retry {','.join(group.trials)}")
    if not skipped.empty:
        say(f"{len(skipped)} skipped, because the family that they continue from failed")
    say(f"to run all of them again: {again} --retry failed")
    return 0


def check(config_name: str | None, overrides: list[str], repair: bool) -> int:
    config, _ = load(config_name, overrides)
    return damage.check(results_store(config), repair, command(config_name, overrides))


def show(config_name: str | None, overrides: list[str], trial: str) -> int:
    config, _ = load(config_name, overrides)
    store = results_store(config)
    console = Console(soft_wrap=True)
    row = _row(store, trial)
    for key, value in row.items():
        if key in ("recipe", "provenance") and value:
            value = json.dumps(json.loads(value), indent=2)
        if value is not None and value == value:
            console.print(printable(f"{key}: {value}"), markup=False, highlight=False)
    if row["status"] == "done":
        replicas = tables.read(store, "replicas", only=[row["trial"]])
        columns = [
            "replica",
            "seed",
            "train_accuracy",
            "val_accuracy",
            "test_accuracy",
            "gap_accuracy",
            "gap_cross_entropy",
            "diverged_at",
        ]
        console.print(replicas[columns].to_string(index=False), markup=False, highlight=False)
    return 0


def diff(config_name: str | None, overrides: list[str], trial: str, other: str) -> int:
    config, _ = load(config_name, overrides)
    store = results_store(config)
    rows = [_row(store, name) for name in (trial, other)]
    flat = [
        _flatten({**row, "recipe": json.loads(row["recipe"] or "{}"), "provenance": json.loads(row["provenance"] or "{}")}) for row in rows
    ]
    for position, row in enumerate(rows):
        if row["status"] == "done":
            means = tables.read(store, "replicas", only=[row["trial"]]).mean(numeric_only=True)
            flat[position] |= {f"mean {k}": round(float(v), 4) for k, v in means.items() if "accuracy" in str(k) or "gap" in str(k)}
    table = Table(box=None, pad_edge=False)
    for column in ("key", rows[0]["trial"], rows[1]["trial"]):
        table.add_column(str(column), overflow="fold")
    for key in dict.fromkeys([*flat[0], *flat[1]]):
        left, right = flat[0].get(key), flat[1].get(key)
        if left != right and not (left != left and right != right):
            table.add_row(*(Text(printable(str(cell))) for cell in (key, left, right)))
    Console().print(table)
    return 0


def _trials(store: Store, columns: list[str]) -> pd.DataFrame:
    rows = tables.read(store, "trials", columns)
    if rows.empty:
        raise ConfigError(store.root, ["no results here yet; python -m sweep.run makes them"])
    return rows


def _row(store: Store, trial: str) -> dict[str, Any]:
    """A family's row of `trials` by its id or the start of it."""
    known = tables.names(store, "trials")
    matches = [name for name in known if name.startswith(trial)]
    if len(matches) != 1:
        near = matches[:5] or difflib.get_close_matches(trial, known, n=3, cutoff=0.3)
        raise ConfigError(
            store.root,
            [
                f"{trial!r} names {len(matches)} families; near: {', '.join(near) or 'none'}"
                if known
                else "no results here yet; python -m sweep.run makes them"
            ],
        )
    return {str(k): v for k, v in tables.read(store, "trials", only=matches).iloc[0].to_dict().items()}


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flatten(inner, f"{path}.{key}".lstrip("."))
    return found
