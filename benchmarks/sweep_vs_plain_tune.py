"""The same science twice: a plain Ray Tune script, and this system. Prints ratios, and how near the limit this system comes.

    python benchmarks/sweep_vs_plain_tune.py --workload small wide resnet18 --repeats 3

Per workload and repetition, one after the other: the plain script (`plain_tune.py`), the sweep (`python -m sweep.run`, without the
analysis, into an empty folder), and the limit (`bare_loops.py`). Both sides are whole commands, from the shell to the last record.
Final accuracies must agree before anything is printed. Exit code 1 if they do not, or if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

HERE = Path(__file__).parent
BARS = {"small": {"ratio": 10.0, "efficiency": 0.7}, "wide": {"ratio": 3.0, "efficiency": 0.85}}
MEAN_TOLERANCE = 0.01  # of accuracy over all networks
LOSS_TOLERANCE, EARLY_EPOCHS = 0.02, 2  # of the cross-entropy recorded until then, median over networks: rounding has not grown yet
WORKLOADS: dict[str, dict[str, Any]] = {
    "small": {"recipe": "cells"},  # the default recipe as it is
    # A control, a swap at each fifth of training, and each also as a pulse: shares as much of its training as `small`.
    "wide": {
        "recipe": "cells",
        "data": {"image_size": 32, "num_images": 1250, "val_fraction": 0.05, "test_fraction": 0.15},
        "model": {"widths": [64, 128, 256]},
        "training": {"epochs": 45, "batch_size": 64, "replicas": 2},
        "probes": {"evaluate_every": 45, "baselines": []},  # which the plain script does not record either
        "space": {
            "activations": ["relu"],
            "losses": ["cross_entropy"],
            "swaps": [],
            "swap_epochs": [9],
            "schedules": [
                [[0, "relu", "cross_entropy"], [start, "tanh", "cross_entropy"], *back]
                for start in (9, 18, 27, 36)
                for back in ([], [[start + 9, "relu", "cross_entropy"]])
                if start + 9 < 45 or not back
            ],
        },
    },
    "resnet18": {
        "recipe": "cells",
        "data": {"num_images": 320, "val_fraction": 0.1, "test_fraction": 0.3},
        "model": {"name": "resnet18", "widths": None},
        # At the recipe's rate of 0.05, rounding grows to 0.3 % of this network's loss in 4 steps, and the sides could not be compared.
        "training": {"epochs": 4, "replicas": 2, "learning_rate": 0.001},
        "probes": {"evaluate_every": 4, "num_samples": 96, "baselines": []},
        "space": {"activations": ["relu", "gelu"], "losses": ["cross_entropy"], "swap_epochs": [1, 2]},
    },
}


def configuration(workload: str, changes: list[str], folder: Path) -> Path:
    """The sweep file of a workload."""
    from sweep.config import load

    parts = dict(WORKLOADS[workload])
    overrides = [
        f"{section}.{key}={json.dumps(value)}" for section, keys in parts.items() if section != "recipe" for key, value in keys.items()
    ]
    sweep, _ = load(parts["recipe"], [*overrides, *changes, "analysis.enabled=false", f"name={workload}"])
    path = folder / f"{workload}.yaml"
    path.write_text(yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False))
    return path


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a whole command. Raises RuntimeError with its output if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "RAY_USAGE_STATS_ENABLED": "0"}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
    return seconds


def networks_of_sweep(results: Path) -> pd.DataFrame:
    """Per network (schedule, seed): final test accuracy, and the first training cross-entropy recorded within EARLY_EPOCHS, if any was."""
    replicas, epochs = pd.read_parquet(results / "replicas"), pd.read_parquet(results / "epochs")
    epochs = epochs.merge(replicas[["trial", "replica", "schedule", "seed"]], on=["trial", "replica"])
    return _networks(epochs)


def networks_of_plain(folder: Path) -> tuple[pd.DataFrame, float]:
    """The same of the plain script, and the seconds that its networks trained."""
    epochs = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("networks/*/epochs.parquet"))])
    return _networks(epochs), float(epochs.groupby(["schedule", "seed"])["train_s"].first().sum())


def _networks(epochs: pd.DataFrame) -> pd.DataFrame:
    epochs = epochs[epochs["moment"] == "epoch"]
    network = ["schedule", "seed"]
    last = epochs[(epochs["epoch"] == epochs["epoch"].max()) & (epochs["split"] == "test")].set_index(network)["accuracy"]
    trained = epochs[epochs["epoch"].between(1, EARLY_EPOCHS) & (epochs["split"] == "train")].sort_values("epoch")
    return pd.DataFrame({"accuracy": last, "early_loss": trained.groupby(network)["cross_entropy"].first()})


def disagreement(sweep: pd.DataFrame, plain: pd.DataFrame) -> tuple[dict[str, float], list[str]]:
    """How far apart the two sides' networks are, and what of it is too far."""
    if not sweep.index.sort_values().equals(plain.index.sort_values()):
        return {}, ["the two sides trained different networks"]
    both = sweep.add_suffix("_sweep").join(plain.add_suffix("_plain"))
    found = {
        "networks": float(len(both)),
        "mean_accuracy_sweep": float(both["accuracy_sweep"].mean()),
        "mean_accuracy_plain": float(both["accuracy_plain"].mean()),
        "median_early_loss_difference": float((both["early_loss_sweep"] - both["early_loss_plain"]).abs().median()),
    }
    problems = []
    if abs(found["mean_accuracy_sweep"] - found["mean_accuracy_plain"]) > MEAN_TOLERANCE:
        problems.append(f"mean final test accuracies differ by more than {MEAN_TOLERANCE}")
    if found["median_early_loss_difference"] > LOSS_TOLERANCE:
        problems.append(f"early training losses differ by more than {LOSS_TOLERANCE} in the median")
    return found, problems


def measure(workload: str, repeats: int, num_cores: int, changes: list[str], keep: Path) -> dict[str, Any]:
    from bare_loops import limit_s

    folder = keep / workload
    folder.mkdir(parents=True)
    config = configuration(workload, changes, folder)
    seconds: dict[str, list[float]] = {"plain": [], "sweep": [], "limit": []}
    checks: list[dict[str, float]] = []
    problems: list[str] = []
    for repeat in range(repeats):
        here = folder / str(repeat)
        here.mkdir()
        plain = [sys.executable, str(HERE / "plain_tune.py"), "--config", str(config), "--out", "plain", "--cpus", str(num_cores)]
        seconds["plain"].append(timed(plain, here))
        ours = [sys.executable, "-m", "sweep.run", "--config", str(config), "--set", f"resources.num_cpus={num_cores}"]
        seconds["sweep"].append(timed(ours, here))
        seconds["limit"].append(limit_s(str(config), num_cores))
        networks, train_s = networks_of_plain(here / "plain")
        found, wrong = disagreement(networks_of_sweep(here / "results" / workload), networks)
        checks.append(found | {"plain_training_share": train_s / num_cores / seconds["plain"][-1]})
        problems += wrong
        trials = pd.read_parquet(here / "results" / workload / "trials")
        parts = {"train_s": float(trials["train_s"].sum()), "record_s": float(trials["record_s"].sum())}
        shutil.rmtree(here / "plain" / "tune", ignore_errors=True)
        print(f"  {workload} {repeat + 1} of {repeats}: " + ", ".join(f"{k} {v[-1]:.1f} s" for k, v in seconds.items()), file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        "ratio": statistics.median(p / s for p, s in zip(seconds["plain"], seconds["sweep"], strict=True)),
        "efficiency": statistics.median(b / s for b, s in zip(seconds["limit"], seconds["sweep"], strict=True)),
    }
    return {
        "workload": workload,
        "families": len(trials),
        "seconds": seconds,
        "medians": medians,
        "of_the_sweep": parts,
        "checks": checks,
        "problems": problems,
        **ratios,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="families trained at once, and bare loops")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="changes", help="change a workload; no bars then")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    with tempfile.TemporaryDirectory(prefix="sweep-vs-plain-") as folder:
        found = [measure(name, options.repeats, options.cores, options.changes, Path(folder)) for name in options.workload]
    versions = {name: version(name) for name in ("torch", "ray", "pyarrow", "pandas")}
    if options.json:
        about = {"machine": platform.machine(), "cores": options.cores, "python": platform.python_version(), "versions": versions}
        Path(options.json).write_text(json.dumps({"about": about, "set": options.changes, "workloads": found}, indent=2))
    failed = [f"{result['workload']}: {problem}" for result in found for problem in result["problems"]]
    if not failed:
        print(f"{options.cores} cores, {options.repeats} repetitions, " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    for result in found if not failed else []:
        name, seconds = result["workload"], result["seconds"]
        spans = ", ".join(f"{side} {statistics.median(v):.1f} s ({min(v):.1f} to {max(v):.1f})" for side, v in seconds.items())
        print(f"{name}: {result['families']} families, {int(result['checks'][0]['networks'])} networks; {spans}")
        share = statistics.median(check["plain_training_share"] for check in result["checks"])
        print(f"    plain / sweep {result['ratio']:.2f}, efficiency (limit / sweep) {result['efficiency']:.3f}")
        print(f"    training is {share:.0%} of the plain script's time")
        agreed = {key: f"{value:.3g}" for key, value in result["checks"][0].items() if key.startswith(("mean", "median"))}
        print("    " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in agreed.items()) + " (nan: nothing recorded so early)")
        for key, bar in BARS.get(name, {}).items() if not options.changes else ():
            if result[key] < bar:
                failed.append(f"{name}: {key} {result[key]:.3f} misses its bar {bar}")
    print("\n".join(failed), end="\n" if failed else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
