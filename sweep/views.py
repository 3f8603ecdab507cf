"""The verbs that look: plan, status, failures, show. None of them writes."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pandas as pd
from rich.console import Console

from analysis import tables
from analysis.storage import Store
from analysis.wording import counted
from sweep import damage, outlook
from sweep.budget import within
from sweep.check import check as check_config
from sweep.command_line import DONE, command
from sweep.config import ConfigError, load
from sweep.failures import COLUMNS, groups, standing
from sweep.jobs import told
from sweep.log import LOGS, printable
from sweep.plan import make_plan, readable_trials, results_store
from sweep.records import Budget, FailuresRecord, Record, StatusRecord
from sweep.run import about_search

MOST_SHARED = 3  # values that failures have in common which are shown


def plan(
    config_name: str | None, overrides: list[str], budget_hours: float | None = None, trim: bool = False, as_json: bool = False
) -> int:
    if trim and budget_hours is None:
        raise ConfigError("--trim", ["has no effect without --budget-hours"])
    found, console = outlook.of(*load(config_name, overrides)), Console(soft_wrap=True)
    paid = None
    if found.cost is not None and budget_hours is not None:
        chosen = within(found.cost, budget_hours, trim)
        paid = Budget(hours=budget_hours, families=len(chosen.remaining), device_s=found.cost.of(chosen).whole_s)
    if as_json:
        return _print(found.record(paid))
    found.print(console)
    if paid is not None and found.cost is not None:
        console.print(
            f"budget: {budget_hours:g} device-hours pay for {paid.families} of {counted(len(found.cost.plan.remaining), 'family')}, "
            f"{paid.device_s / 3600:.3g} device-hours",
            highlight=False,
        )
    return DONE


def status(config_name: str | None, overrides: list[str], as_json: bool = False) -> int:
    config, source = load(config_name, overrides)
    store = results_store(config)
    planned = make_plan(config, check_config(config, source), store)
    rows = _trials(store, ["trial", "status", "num_diverged", "num_replicas"])
    rows = rows[rows["trial"].isin(planned.families)]
    counts = rows["status"].value_counts()
    found = StatusRecord(
        name=config.name,
        results=store.root,
        num_families=len(planned.families),
        num_not_run=len(planned.families) - len(rows),
        num_replicas=int(rows["num_replicas"].sum()),
        num_diverged=int(rows["num_diverged"].fillna(0).sum()),
        last_told=told(store),
        **{f"num_{one}": int(counts.get(one, 0)) for one in ("done", "failed", "skipped", "pruned")},
    )
    if as_json:
        return _print(found)
    pruned = f"{found.num_pruned} pruned, " if found.num_pruned else ""
    lines = [
        f"{found.name}: {counted(found.num_families, 'family')}: {found.num_done} done, {found.num_failed} failed, "
        f"{found.num_skipped} skipped, {pruned}{found.num_not_run} not run; "
        f"{found.num_diverged} of {counted(found.num_replicas, 'replica')} diverged",
        *about_search(planned, store),
        *([f"last told: {found.last_told}"] if found.last_told else []),
        f"results: {found.results}",
    ]
    Console(soft_wrap=True).print("\n".join(lines), highlight=False, markup=False)
    return DONE


def failures(config_name: str | None, overrides: list[str], as_json: bool = False) -> int:
    config, _ = load(config_name, overrides)
    store, again = results_store(config), command(config_name, overrides)
    rows = standing(_trials(store, COLUMNS))
    found = FailuresRecord(
        name=config.name,
        results=store.root,
        groups=[group.record(again) for group in groups(rows)],
        num_skipped=int((rows["status"] == "skipped").sum()),
        again=f"{again} --retry failed",
    )
    if as_json:
        return _print(found)
    console = Console(soft_wrap=True)

    def say(text: str, style: str = "") -> None:
        console.print(printable(text), style=style, markup=False, highlight=False)

    if not found.groups and not found.num_skipped:
        say("no family failed")
        return DONE
    for group in found.groups:
        say(f"{len(group.trials)} x {group.error_type}: {group.error_message}", "red")
        for trial, schedule in zip(group.trials, group.schedules, strict=True):
            say(f"    {trial}  {schedule}")
        for one in group.shared[:MOST_SHARED]:
            say(f"    all have {one.key} = {one.value}, as have {one.num_others} of the {one.of_others} others")
        say("\n".join(f"    | {line}" for line in group.last_lines))
        say(f"    the whole traceback: python -m sweep show {group.trials[0]}{again.removeprefix('python -m sweep.run')}")
        say(f"    log: {found.results}/{LOGS}, on {', '.join(group.hosts)}")
        say(f"    to run exactly these again: {group.again}")
    if found.num_skipped:
        say(f"{found.num_skipped} skipped, because the family that they continue from failed")
    say(f"to run all of them again: {found.again}")
    return DONE


def _print(record: Record) -> int:
    print(record.model_dump_json(indent=2))
    return DONE


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
    return DONE


def _trials(store: Store, columns: list[str]) -> pd.DataFrame:
    readable, _ = readable_trials(store, tables.names(store, "trials"))
    rows = tables.read(store, "trials", columns, readable["trial"])
    if rows.empty:
        raise ConfigError(store.root, [damage.NO_RESULTS])
    return rows


def family_row(store: Store, trial: str) -> dict[str, Any]:
    """A family's row of `trials` by its id or the start of it."""
    known = tables.names(store, "trials")
    matches = [name for name in known if name.startswith(trial)]
    if len(matches) != 1:
        near = matches[:5] or difflib.get_close_matches(trial, known, n=3, cutoff=0.3)
        raise ConfigError(
            store.root,
            [f"{trial!r} names {counted(len(matches), 'family')}; near: {', '.join(near) or 'none'}" if known else damage.NO_RESULTS],
        )
    return {str(k): v for k, v in tables.read(store, "trials", only=matches).iloc[0].to_dict().items()}
