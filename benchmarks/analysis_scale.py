"""Time and memory of the analysis over many networks: a synthetic store through the real writer, the real commands in child processes.

    python benchmarks/analysis_scale.py [--families 125] [--replicas 8] [--samples 100] [--widths 64 128 256 10] [--measures cka,procrustes]
                                        [--commands analysis pairs] [--pairs-measure cka] [--max-gb 2] [--keep FOLDER]

The default is 1,000 replicas x 4 layers x the default probe set of 100 samples, at the four moments of a swap. Prints wall time, CPU time
and the peak resident memory of each command. Exit code 1 where one fails or takes 4 GB or more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from analysis import tables
from analysis.storage import Store

MAX_BYTES = 4e9
NUM_EPOCHS, SWAP_EPOCH = 8, 4
MOMENTS = {"init": 0, "before_swap": SWAP_EPOCH, "after_swap": SWAP_EPOCH, "end": NUM_EPOCHS}


def rows(table: str, num_rows: int, **values: Any) -> dict[str, Any]:
    """Columns of a table: those given, a scalar repeated; the others null."""
    columns = [column.name for column in tables.TABLES[table].columns if column.name != "schema_version"]
    repeated = {name: [value] * num_rows for name, value in values.items() if np.ndim(value) == 0 and not hasattr(value, "type")}
    return dict.fromkeys(columns, [None] * num_rows) | values | repeated


def make_store(store: Store, num_families: int, num_replicas: int, num_samples: int, widths: list[int]) -> None:
    """Families of replicas around a shared representation, each with a level of private noise; gaps have nothing to do with it."""
    generator = np.random.default_rng(0)
    shared = [generator.standard_normal((num_samples, width), np.float32) for width in widths]
    num_rows, replica = num_replicas * num_samples, np.arange(num_replicas)
    for index in range(num_families):
        trial, level, gap = f"t{index:012x}", generator.uniform(0.2, 1), generator.uniform(0, 0.3)
        schedule = f"0:relu/cross_entropy {SWAP_EPOCH}:tanh/focal"
        groups = []
        for moment, epoch in MOMENTS.items():
            for layer, width in enumerate(widths):
                X = shared[layer] + level * generator.standard_normal((num_replicas, num_samples, width), np.float32)
                groups.append(
                    rows(
                        "activations",
                        num_rows,
                        trial=trial,
                        replica=np.repeat(replica, num_samples),
                        moment=moment,
                        epoch=epoch,
                        layer=f"block{layer + 1}",
                        pooling="mean",
                        shape=[[width]] * num_rows,
                        sample=np.tile(np.arange(num_samples), num_replicas),
                        position=0,
                        label=0,
                        activation=tables.list_array(X.reshape(num_rows, width)),
                    )
                )
        tables.write(store, "activations", trial, groups)
        gaps = gap + 0.02 * generator.standard_normal(num_replicas)
        numbers = {"train_accuracy": 0.95, "test_accuracy": 0.95 - gaps, "train_cross_entropy": 0.2, "test_cross_entropy": 0.2 + gaps}
        numbers |= {"gap_accuracy": gaps, "gap_cross_entropy": gaps}
        tables.write(
            store,
            "replicas",
            trial,
            rows("replicas", num_replicas, trial=trial, schedule=schedule, replica=replica, seed=replica, **numbers),
        )
        about = {"swapped": "both", "num_swaps": 1, "swap_epoch": SWAP_EPOCH, "num_epochs": NUM_EPOCHS, "status": "done"}
        functions = {"first_activation": "relu", "first_loss": "cross_entropy", "last_activation": "tanh", "last_loss": "focal"}
        names = {"base": "b000000000000", "control": trial, "recipe": json.dumps({"model": {"name": "cnn"}}), "provenance": "{}"}
        counts = {"num_replicas": num_replicas, "num_diverged": 0}
        tables.write(store, "trials", trial, rows("trials", 1, trial=trial, schedule=schedule, **about, **functions, **names, **counts))


def run(command: list[str]) -> tuple[int, float, float, int]:
    """Exit code, wall seconds, CPU seconds and peak resident bytes of a command."""
    began = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"families": 125, "replicas": 8, "samples": 100}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 10], help="features of each layer (default: %(default)s)")
    parser.add_argument("--measures", help="of the command analysis (default: its own)")
    parser.add_argument("--commands", nargs="+", choices=["analysis", "pairs"], default=["analysis", "pairs"])
    parser.add_argument("--pairs-measure", default="cka", help="default: %(default)s")
    parser.add_argument("--max-gb", type=float, default=2.0, help="arrays held at once by pairs (default: %(default)s)")
    parser.add_argument("--keep", metavar="FOLDER", help="where the store lies; made there once and used again")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary) / "store"
        store, began = Store(folder), time.monotonic()
        if not tables.names(store, "trials"):
            make_store(store, options.families, options.replicas, options.samples, options.widths)
        num_bytes = sum(path.stat().st_size for path in (folder / "activations").iterdir())
        num_families = len(tables.names(store, "trials"))
        print(
            f"{num_families} families in {folder}, {num_bytes / 1e9:.2f} GB of activations ({time.monotonic() - began:.0f} s)", flush=True
        )
        measures = ["--measures", options.measures] if options.measures else []
        commands = {
            "analysis": [str(folder), *measures],
            "pairs": ["pairs", str(folder), "--measure", options.pairs_measure, "--max-gb", str(options.max_gb)],
        }
        for name in options.commands:
            code, seconds, cpu_s, peak_bytes = run([sys.executable, "-m", "analysis", *commands[name]])
            bad = code != 0 or peak_bytes >= MAX_BYTES
            failed |= bad
            print(
                f"{name}: exit code {code}, {seconds:.1f} s ({cpu_s:.1f} CPU s), peak {peak_bytes / 1e9:.2f} GB{'  MISSED' if bad else ''}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
