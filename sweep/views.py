"""The verbs that look: plan, status, failures, show. None of them writes."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pandas as pd
from rich.console import Console

from analysis import tables
from analysis.storage import Store
from sweep import damage, outlook
from sweep.budget import within
from sweep.check import check as check_config
from sweep.config import ConfigError, load
from sweep.failures import COLUMNS, groups, standing
from sweep.jobs import told
from sweep.log import LOGS, printable
from sweep.plan import make_plan, readable_trials, results_store
from sweep.run import about_search, command

MOST_SHARED = 3  # values that failures have in common which are shown


def plan(config_name: str | None, overrides: list[str], budget_hours: float | None = None, trim: bool = False) -> int:
    if trim and budget_hours is None:
        raise ConfigError("--trim", ["has no effect without --budget-hours"])
    found, console = outlook.of(*load(config_name, overrides)), Console(soft_wrap=True)
    found.print(console)
    if found.cost is not None and budget_hours is not None:
        chosen = within(found.cost, budget_hours, trim)
        console.print(
            f"budget: {budget_hours:g} device-hours pay for {len(chosen.remaining)} of {len(found.cost.plan.remaining)} families, "
            f"{found.cost.of(chosen).whole_s / 3600:.3g} device-hours",
            highlight=False,
        )
    return 0


def status(config_name: str | None, overrides: list[str]) -> int:
    config, source = load(config_name, overrides)
    store = results_store(config)
    found = make_plan(config, check_config(config, source), store)
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
    row = family_row(store, trial)
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


def _trials(store: Store, columns: list[str]) -> pd.DataFrame:
    readable, _ = readable_trials(store, tables.names(store, "trials"))
    rows = tables.read(store, "trials", columns, readable["trial"])
    if rows.empty:
        raise ConfigError(store.root, ["no results here yet; python -m sweep.run makes them"])
    return rows


def family_row(store: Store, trial: str) -> dict[str, Any]:
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
