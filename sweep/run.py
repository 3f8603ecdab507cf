"""`python -m sweep.run`: from a sweep file to Parquet to a verdict."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from sweep.config import ConfigError, load, recipe_names

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


def guarded(function) -> int:  # type: ignore[no-untyped-def]
    """Run a verb; a user's mistake becomes its message and exit code 2."""
    from trainables.schedule import NameMismatch

    try:
        return int(function())
    except (ConfigError, NameMismatch) as error:
        Console(stderr=True, soft_wrap=True).print(str(error), highlight=False, markup=False, style="red")
        return 2


def run(config_name: str | None, overrides: list[str]) -> int:
    """Exit code 0 only if every planned family is in the tables."""
    console = Console(soft_wrap=True)
    began = time.monotonic()
    config, source = load(config_name, overrides)

    import yaml

    from analysis import tables
    from sweep.check import check, check_results
    from sweep.plan import make_plan, results_store
    from sweep.tuner import run_plan
    from sweep.units import duration
    from trainables.rows import write_samples
    from trainables.states import States

    store = results_store(config)
    data = check(config, source)
    check_results(config, store, source)
    plan = make_plan(config, data, store)
    for note in data.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    store.delete_temporaries()
    store.write("sweep.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode())
    store.write("SCHEMA.md", tables.schema_markdown().encode())
    write_samples(store, data, config.probes, config.data.split_seed)
    console.print(
        f"{config.name}: {len(plan.families)} families of {config.training.replicas} replicas, {len(plan.done)} done, "
        f"{len(plan.remaining)} to run: {plan.unique_replica_epochs:,} replica-epochs instead of {plan.total_replica_epochs:,}, "
        "shared prefixes trained once",
        highlight=False,
    )

    outcome = None
    if plan.remaining:
        outcome = run_plan(plan, store, console)
        plan = make_plan(config, data, store)
        console.print(
            f"{len(plan.done)} of {len(plan.families)} families done in {duration(time.monotonic() - began)}",
            highlight=False,
        )
    again = "python -m sweep.run" + (f" --config {config_name}" if config_name else "") + "".join(f" --set {o}" for o in overrides)
    if outcome and outcome.interrupted:
        console.print(f"stopped: {len(plan.remaining)} families are left. To go on: {again}", highlight=False, markup=False)
        return 130
    if not config.storage.keep_states and not plan.remaining:
        ours = {plan.base.state_name(s, e) for s in plan.families.values() for e in range(1, config.training.epochs + 1)}
        for name in set(States(store).names()) & ours:
            States(store).delete(name)
    if config.analysis.enabled and plan.done:
        _analyse(config, store, console)
    console.print(f"results: {store.root}", highlight=False, markup=False)
    if plan.remaining:
        console.print(
            f"{len(plan.remaining)} families failed or were skipped: python -m sweep failures"
            + (f" --config {config_name}" if config_name else "")
            + f"; to try them again: {again}",
            style="red",
            highlight=False,
        )
        return 1
    return 0


def _analyse(config, store, console) -> None:  # type: ignore[no-untyped-def]
    from analysis.__main__ import analyse

    analyse(
        store,
        measures=config.analysis.measures,
        alpha=config.analysis.alpha,
        num_permutations=config.analysis.num_permutations,
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
