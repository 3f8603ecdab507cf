"""Where the time of training goes on a CPU: an epoch and an evaluation of a recipe's families, by operation, and what Python itself takes.

    taskset -c 0 python benchmarks/profile_epoch.py [--config cells] [--executors loop grouped] [--rounds 7]

Times are medians over rounds in which the executors take turns, without a profiler. Shares of operations come from torch's profiler,
the share of Python from cProfile: own time of Python functions, those of torch's modules included, over the time of the steps.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.profiler import ProfilerActivity, profile

from sweep.config import load
from trainables.data import load as load_data
from trainables.family import prepare_process
from trainables.schedule import Phase
from trainables.training import FamilyTraining


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def operations(call: Callable[[], object], limit: int) -> list[tuple[str, float]]:
    """The operations with the most own time, and their shares of the time of all."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    return [(row.key, row.self_cpu_time_total / total) for row in rows[:limit]]


def python_shares(call: Callable[[], object]) -> tuple[float, float, str]:
    """Own time of Python functions over the time of a call: of all, and of the one that takes most, with its name.

    The profiler's own cost is in both, so they are upper bounds.
    """
    profiler = cProfile.Profile()
    profiler.runcall(call)
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    own = {where: values[2] for where, values in stats.items()}
    python = {name: time_s / sum(own.values()) for (file, _, name), time_s in own.items() if file != "~"}
    largest = max(python, key=python.__getitem__)
    return sum(python.values()), python[largest], largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="cells")
    parser.add_argument("--executors", nargs="+", default=["loop", "grouped"])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    prepare_process(1)
    config, _ = load(options.config)
    data, phase = load_data(config.data), Phase(0, config.space.activations[0], config.space.losses[0])
    families = {name: FamilyTraining(config.recipe, data, phase, executor=name) for name in options.executors}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds + 1):
        for name, family in families.items():
            for what, call in (("epoch", family.train_epoch), ("evaluation", family.evaluate)):
                times.setdefault((name, what), []).append(seconds(call))
    print(f"{options.config}: {config.training.replicas} replicas, torch {torch.__version__}, {options.rounds} rounds")
    for name, family in families.items():
        for what, call in (("epoch", family.train_epoch), ("evaluation", family.evaluate)):
            found = times[name, what][1:]
            print(f"\n{name}, {what}: {statistics.median(found) * 1e3:.0f} ms [{min(found) * 1e3:.0f}, {max(found) * 1e3:.0f}]", end="")
            share, largest, function = python_shares(call)
            print(f", of it Python at most {share:.1%}, its largest function {function} {largest:.1%}")
            print("\n".join(f"    {share:6.1%}  {operation}" for operation, share in operations(call, 8)))


if __name__ == "__main__":
    main()
