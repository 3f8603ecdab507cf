"""`python -m sweep.run`: from a sweep file to Parquet to a verdict."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from analysis.wording import counted
from sweep.command_line import DONE, INCOMPLETE, INTERRUPTED, command, guarded, parser_of_run, typed
from sweep.config import ConfigError, Sweep, load
from sweep.log import RunLog, printable

if TYPE_CHECKING:  # these import torch, which --help must not wait for
    from analysis.storage import Store
    from sweep.plan import Plan
    from trainables.data import Dataset


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parser_of_run().parse_args(words)
    budget = chosen.budget_hours, chosen.trim
    return guarded(
        lambda: run(chosen.config, chosen.overrides, *budget, chosen.retry, chosen.quiet, chosen.verbose), typed("sweep.run", words)
    )


def run(
    config_name: str | None,
    overrides: list[str],
    budget_hours: float | None = None,
    trim: bool = False,
    retry: str = "all",
    quiet: bool = False,
    verbose: bool = False,
) -> int:
    """The verb: `execute` for a sweep file and its overrides."""
    config, source = load(config_name, overrides)
    console = RunLog(soft_wrap=True, highlight=False, quiet=quiet, verbose=verbose)
    return execute(config, source, command(config_name, overrides), console, budget_hours, trim, retry)


def execute(
    config: Sweep,
    source: str,
    again: str,
    console: RunLog,
    budget_hours: float | None = None,
    trim: bool = False,
    retry: str = "all",
) -> int:
    """Run what remains of a sweep, then the analysis. `again` is what to type to run it once more.

    Exit code 0 only if every planned family is in the tables. A plan trimmed to a budget is one of fewer families, and says so.
    """
    try:
        return _execute(config, source, again, console, budget_hours, trim, retry)
    finally:
        console.write()


def _execute(config: Sweep, source: str, again: str, console: RunLog, budget_hours: float | None, trim: bool, retry: str) -> int:
    from sweep.check import check, check_here
    from sweep.claim import claimed
    from sweep.plan import results_store

    if trim and budget_hours is None:
        raise ConfigError("--trim", ["has no effect without --budget-hours"])
    store = results_store(config)
    data = check(config, source)
    check_here(config, store, source)
    with claimed(store, console):
        code = _run_checked(config, data, store, again, console, budget_hours, trim, retry)
        store.delete_temporaries()  # of workers that were killed
        return code


def _run_checked(
    config: Sweep, data: Dataset, store: Store, again: str, console: RunLog, budget_hours: float | None, trim: bool, retry: str
) -> int:
    began = time.monotonic()

    from sweep.budget import within
    from sweep.cost import cost_line, estimate
    from sweep.failures import to_retry
    from sweep.plan import make_plan
    from sweep.record import write_run
    from sweep.tuner import run_plan
    from sweep.units import duration

    whole = make_plan(config, data, store)
    plan = to_retry(whole, store, retry)
    for note in data.notes:
        console.print(f"note: {note}", markup=False)
    for trial, why in plan.damaged.items():
        console.print(printable(f"note: trials/{trial}.parquet is damaged, so the family is run again: {why}"), markup=False)
    console.print(
        f"{config.name}: {counted(len(plan.families), 'family')} of {config.training.replicas} replicas, {len(plan.done)} done, "
        f"{len(plan.remaining)} to run: {plan.unique_replica_epochs:,} replica-epochs instead of {plan.total_replica_epochs:,}, "
        "shared prefixes trained once"
        if plan.families
        else f"{config.name}: families of {config.training.replicas} replicas, none known yet"
    )
    for line in about_search(plan, store):
        console.print(line, markup=False)
    within_budget = again if retry == "all" else f"{again} --retry {shlex.quote(retry)}"
    within_budget = within_budget if budget_hours is None else f"{within_budget} --budget-hours {budget_hours:g}{' --trim' if trim else ''}"
    if plan.remaining or plan.num_unproposed:
        retried, cost = plan, estimate(plan.with_unproposed(), data, store)
        cost = cost.of(within(cost, budget_hours, trim))
        plan = plan if plan.num_unproposed else cost.plan
        console.print(cost_line(cost), markup=False)
        if plan.left_out:
            by_retry = len(retried.left_out)
            if by_retry:
                console.print(f"left out by --retry {retry}: {counted(by_retry, 'family')}", markup=False)
            if by_budget := len(plan.left_out) - by_retry:
                console.print(
                    f"left out, as {budget_hours:g} device-hours do not pay for them: {counted(by_budget, 'family')}", markup=False
                )
        _prepare(plan, store, not console.quiet)
        console.keep_in(store)
        if not whole.num_unproposed:  # families still to be proposed may start from any
            _delete_states(plan, store)
        started_at, started = datetime.now(UTC), time.monotonic()
        outcome = run_plan(plan, store, console)
        seconds, after = time.monotonic() - started, make_plan(config, data, store)
        _write_samples(after, store, not console.quiet)  # a search may have proposed other data
        line = write_run(store, started_at, seconds, cost, outcome, after)
        left_out = plan.left_out
        plan = replace(after, remaining={t: p for t, p in after.remaining.items() if t not in left_out}, left_out=left_out)
        pruned = f", {len(plan.pruned)} pruned" if plan.pruned else ""
        took = duration(time.monotonic() - began)
        console.print(f"{len(plan.done)} of {counted(len(plan.families), 'family')} done{pruned} in {took}\n{line}", markup=False)
        if outcome.interrupted:
            proposed = f", and {plan.num_unproposed} to propose" if plan.num_unproposed else ""
            console.print(f"stopped, with {counted(len(plan.remaining), 'family')} left{proposed}. To go on: {within_budget}", markup=False)
            return INTERRUPTED
        for line in about_search(plan, store):
            console.print(line, markup=False)
    else:
        _prepare(plan, store, not console.quiet)
        plan = replace(plan, num_unproposed=whole.num_unproposed)
    if not plan.remaining and not (retry != "all" and plan.num_unproposed):
        _delete_states(plan, store)
    if config.analysis.enabled and plan.done:
        from analysis.analyse import analyse

        if config.analysis.image_statistics:
            _write_image_statistics(plan, store, console)

        chosen = config.analysis
        analyse(store, chosen.measures, alpha=chosen.alpha, num_permutations=chosen.num_permutations, only=plan.done, console=console)
        if config.search.kind == "optuna":
            console.print("note: these families were chosen for what they measure: the verdict describes them, not the space")
    console.print(f"results: {store.root}", markup=False)
    if plan.left_out:
        console.print(
            f"the sweep is not complete: {counted(len(plan.left_out), 'family')} left out. To run them too: {again}", markup=False
        )
    if plan.remaining:
        why = again.replace("sweep.run", "sweep failures", 1)
        console.wrong(f"{counted(len(plan.remaining), 'family')} failed or were skipped: {why}\nto try again: {within_budget}")
        return INCOMPLETE
    return DONE


def about_search(plan: Plan, store: Store) -> list[str]:
    """How far a search with Optuna is, in a line or two; nothing for other kinds."""
    from sweep.plan import num_proposals
    from sweep.study import where

    search = plan.config.search
    if search.kind != "optuna":
        return []
    total = plan.num_proposed + plan.num_unproposed
    wanted = search.num_families or 0
    few = f" (the space has no more, search.num_families is {wanted})" if num_proposals(plan.config) < wanted else ""
    aims = ", ".join(f"{objective.direction} {objective.metric}" for objective in search.objectives)
    place = where(plan.config, store)
    return [f"search: {search.drawn_by} to {aims}; {plan.num_proposed} of {counted(total, 'family')} proposed{few}; study: {place}"]


def _prepare(plan: Plan, store: Store, progress: bool = True) -> None:
    """Write what belongs to the sweep as a whole."""
    import yaml

    from analysis import tables

    store.delete_temporaries()
    store.write("sweep.yaml", yaml.safe_dump(plan.config.model_dump(mode="json"), sort_keys=False).encode())
    store.write("SCHEMA.md", tables.schema_markdown().encode())
    _write_samples(plan, store, progress)


def _write_samples(plan: Plan, store: Store, progress: bool = True) -> None:
    """Write the tables of every data set that families of the plan train on: `samples`, and `warps` and `hull_pixels` where asked for."""
    from trainables.data import load as load_data
    from trainables.probes.hull_pixels import pixel_hull
    from trainables.probes.stability import write_warps
    from trainables.rows import write_samples

    for data in {base.dataset_hash: base.recipe.data for base, _ in plan.families.values()}.values():
        write_samples(store, load_data(data), plan.config.probes)
        if plan.config.probes.stability is not None:
            write_warps(store, load_data(data), plan.config.probes)
        if plan.config.probes.hull is not None:
            pixel_hull(store, load_data(data), plan.config.probes, progress=progress)


def _write_image_statistics(plan: Plan, store: Store, console: RunLog) -> None:
    """Write the table `image_statistics` of every data set that finished families trained on and that has none yet."""
    from sweep.check import num_cpus
    from trainables.image_rows import write_image_statistics

    configs = {plan.families[trial].base.dataset_hash: plan.families[trial].base.recipe.data for trial in plan.done}
    for note in write_image_statistics(store, list(configs.values()), num_cpus(plan.config), sys.stderr.isatty() and not console.quiet):
        console.print(f"note: {note}", markup=False)


def _delete_states(plan: Plan, store: Store) -> None:
    """Remove the training states of this sweep that no family needs; those of other recipes in the same folder are left alone."""
    from trainables.states import States

    states = States(store)
    existing = set(states.names()) - set(plan.users)
    if existing and not plan.config.storage.keep_states:
        members = [*plan.families.values(), *((planned.base, planned.schedule) for planned in plan.left_out.values())]
        epochs = range(1, plan.config.training.epochs)
        for name in existing & {base.state_name(schedule, epoch) for base, schedule in members for epoch in epochs}:
            states.delete(name)


if __name__ == "__main__":
    sys.exit(main())
