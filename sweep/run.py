"""`python -m sweep.run`: from a sweep file to Parquet to a verdict."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from sweep.config import ConfigError, Sweep, load, recipe_names

if TYPE_CHECKING:  # these import torch, which --help must not wait for
    from analysis.storage import Store
    from sweep.plan import Plan
    from trainables.data import Dataset

DESCRIPTION = "Train the families of a sweep that are not in its tables yet, analyse all, and print the verdict."


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="NAME|FILE",
        help=f"a shipped recipe ({', '.join(recipe_names())}) or a .yaml file; default cells",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a key, e.g. training.replicas=4",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.run", description=DESCRIPTION)
    add_config_arguments(parser)
    options = parser.parse_args(arguments)
    return guarded(lambda: run(options.config, options.overrides))


def guarded(verb: Callable[[], int]) -> int:
    """Run a verb; a user's mistake becomes its message and exit code 2, Ctrl-C exit code 130."""
    from trainables.schedule import NameMismatch

    try:
        return verb()
    except (ConfigError, NameMismatch) as error:
        Console(stderr=True, soft_wrap=True).print(str(error), highlight=False, markup=False, style="red")
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped")
        return 130


def command(config_name: str | None, overrides: list[str]) -> str:
    """What to type to run this again."""
    chosen = ["--config", config_name] if config_name else []
    return shlex.join(["python", "-m", "sweep.run", *chosen, *(x for override in overrides for x in ("--set", override))])


def run(config_name: str | None, overrides: list[str]) -> int:
    """Exit code 0 only if every planned family is in the tables."""
    console = Console(soft_wrap=True, highlight=False)
    began = time.monotonic()
    config, source = load(config_name, overrides)

    from sweep.check import check, check_here
    from sweep.plan import make_plan, results_store
    from sweep.tuner import run_plan
    from sweep.units import duration

    store = results_store(config)
    data = check(config, source)
    check_here(config, store, source)
    plan = make_plan(config, data, store)
    for note in data.notes:
        console.print(f"note: {note}", markup=False)
    _prepare(config, data, store)
    console.print(
        f"{config.name}: {len(plan.families)} families of {config.training.replicas} replicas, {len(plan.done)} done, "
        f"{len(plan.remaining)} to run: {plan.unique_replica_epochs:,} replica-epochs instead of {plan.total_replica_epochs:,}, "
        "shared prefixes trained once"
        if plan.families
        else f"{config.name}: families of {config.training.replicas} replicas, none known yet"
    )
    for line in about_search(plan, store):
        console.print(line, markup=False)
    again = command(config_name, overrides)
    if plan.remaining or plan.num_unproposed:
        outcome = run_plan(plan, store, console)
        plan = make_plan(config, data, store)
        pruned = f", {len(plan.pruned)} pruned" if plan.pruned else ""
        console.print(f"{len(plan.done)} of {len(plan.families)} families done{pruned} in {duration(time.monotonic() - began)}")
        if outcome.interrupted:
            proposed = f", and {plan.num_unproposed} to propose" if plan.num_unproposed else ""
            console.print(f"stopped: {len(plan.remaining)} families are left{proposed}. To go on: {again}", markup=False)
            return 130
        for line in about_search(plan, store):
            console.print(line, markup=False)
    if not config.storage.keep_states and not plan.remaining:
        _delete_states(plan, store)
    if config.analysis.enabled and plan.done:
        from analysis.__main__ import analyse

        chosen = config.analysis
        analyse(store, chosen.measures, alpha=chosen.alpha, num_permutations=chosen.num_permutations, only=plan.done, console=console)
        if config.search.kind == "optuna":
            console.print("note: these families were chosen for what they measure: the verdict describes them, not the space")
    console.print(f"results: {store.root}", markup=False)
    if plan.remaining:
        why = again.replace("sweep.run", "sweep failures", 1)
        console.print(
            f"{len(plan.remaining)} families failed or were skipped: {why}\nto try them again: {again}", style="red", markup=False
        )
        return 1
    return 0


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
    return [f"search: {search.drawn_by} to {aims}; {plan.num_proposed} of {total} families proposed{few}; study: {place}"]


def _prepare(config: Sweep, data: Dataset, store: Store) -> None:
    """Write what belongs to the sweep as a whole."""
    import yaml

    from analysis import tables
    from trainables.rows import write_samples

    store.delete_temporaries()
    store.write("sweep.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode())
    store.write("SCHEMA.md", tables.schema_markdown().encode())
    write_samples(store, data, config.probes)


def _delete_states(plan: Plan, store: Store) -> None:
    """Remove the training states of a finished sweep; those of other recipes in the same folder are left alone."""
    from trainables.states import States

    states = States(store)
    existing = set(states.names())
    if existing:
        epochs = range(1, plan.config.training.epochs + 1)
        for name in existing & {base.state_name(s, e) for base, s in plan.families.values() for e in epochs}:
            states.delete(name)


if __name__ == "__main__":
    sys.exit(main())
