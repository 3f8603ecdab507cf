"""What the driver costs per family, when families take no time: the real plan, searcher, Tuner and progress line around a stub of training.

    python benchmarks/driver_scale.py [--families 200 1000 5000 10000] [--stub-ms 10] [--slots 2] [--json FILE]

A family of the stub waits a known time, saves the training states that its branches wait for, and writes its row of `trials`; nothing
else is replaced. Each size runs in a process of its own. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

SIZES = [200, 1000, 5000, 10_000]
MAX_FAMILY_S, MAX_GROWTH, MAX_DRIVER_BYTES = 0.040, 1.5, 1.5e9


def sweep_of(num_families: int, path: str, slots: int) -> Any:
    """A sweep of so many families: 20 controls, and as many swaps as fit, drawn from 14 epochs, each with its pulse beside it."""
    from sweep.config import Space, Sweep
    from sweep.space import points
    from trainables.recipe import CellsData, Model, Training

    space = Space(
        activations=["relu", "tanh", "gelu", "silu", "sin"],
        losses=["cross_entropy", "squared_error", "focal", "hinge"],
        swap_epochs=list(range(2, 30, 2)),
        pulse_epochs=[1],
    )
    every = [point.schedule for point in points(Sweep(name="all", space=space))]
    swaps: dict[Any, list[Any]] = {}
    for schedule in every:
        if schedule.swap_epochs:
            swaps.setdefault(schedule.phases[:2], []).append(schedule)
    groups = list(swaps.values())
    random.Random(0).shuffle(groups)
    in_turn = [schedule for schedule in every if not schedule.swap_epochs] + [schedule for group in groups for schedule in group]
    if num_families > len(in_turn):
        raise SystemExit(f"--families: {num_families} is more than the {len(in_turn)} there are")
    chosen = [[[p.start_epoch, p.activation, p.loss] for p in s.phases] for s in in_turn[:num_families]]
    return Sweep.model_validate(
        {
            "name": "driver_scale",
            "data": CellsData(num_images=40, image_size=12, num_slides=8),
            "model": Model(name="mlp", widths=[4]),
            "training": Training(epochs=32, batch_size=4, replicas=2),
            "space": Space(activations=["relu"], losses=["cross_entropy"], swaps=[], schedules=chosen),
            "resources": {"num_cpus": slots},
            "storage": {"path": path},
        }
    )


def stub_family(stub_s: float) -> Any:
    """A Trainable whose families take `stub_s` seconds, shared among the epochs that they report."""
    import torch

    from trainables.family import Family, Progress, setting
    from trainables.rows import trial_row, write_trial
    from trainables.schedule import Base
    from trainables.states import States
    from trainables.trainable import FamilyTrainable

    class Stub(FamilyTrainable):
        def run_family(self, family: Family, store: Any) -> Generator[Progress]:
            base, states = Base(family.recipe, self.work.dataset_hash), States(store)
            row = trial_row(base, family.schedule, family.probes)
            made_with = setting(family.probes, self.work.device, "grouped", 1)
            summary = {"num_diverged": 0, "train_accuracy": 1.0, "val_accuracy": 1.0, "test_accuracy": 1.0}
            pause_s = stub_s / (len(family.save_epochs) + 1)
            for epoch in sorted(family.save_epochs):
                time.sleep(pause_s)
                name = base.state_name(family.schedule, epoch)
                states.save(name, {"weights": torch.zeros(1)}, {}, base.history(family.schedule, epoch, full=True), made_with)
                yield Progress(row["trial"], epoch, name, False, epoch, 0, summary)
            time.sleep(pause_s)
            epochs = family.recipe.training.epochs
            write_trial(store, row | {"status": "done", "num_diverged": 0, "epochs_trained": epochs, "train_s": stub_s, "record_s": 0.0})
            yield Progress(row["trial"], epochs, None, True, epochs, 0, summary)

    return Stub


def measure(num_families: int, stub_s: float, slots: int) -> dict[str, Any]:
    """Run one size in this process."""
    from analysis import tables
    from sweep.log import RunLog
    from sweep.plan import make_plan, results_store
    from sweep.tuner import run_plan
    from trainables.data import load

    with tempfile.TemporaryDirectory() as folder:
        config = sweep_of(num_families, folder, slots)
        store, data = results_store(config), load(config.data)
        began = time.perf_counter()
        plan = make_plan(config, data, store)
        plan_s = time.perf_counter() - began
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            outcome = run_plan(plan, store, RunLog(file=nowhere, force_terminal=True), stub_family(stub_s))
        run_s = time.perf_counter() - began - plan_s
        num_left, num_states = len(make_plan(config, data, store).remaining), len(store.names("states"))
        if num_left or num_states or outcome.failed:
            raise SystemExit(f"{num_left} of {num_families} families and {num_states} training states are left: {outcome.failed}")
        finished = tables.read(store, "trials", ["finished_at"])["finished_at"]
        wall_s = (finished.max() - finished.min()).total_seconds()
    return {
        "families": num_families,
        "plan_s": plan_s,
        "wall_s": wall_s,
        "family_s": wall_s / (num_families - 1),
        "overhead_s": wall_s / (num_families - 1) - stub_s / slots,
        "run_s": run_s,
        "driver_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "experiment_state_bytes": outcome.experiment_state_bytes,
    }


def missed(results: list[dict[str, Any]]) -> Iterator[str]:
    """The bars that results do not meet, as lines."""
    for r in results:
        if r["overhead_s"] > MAX_FAMILY_S:
            yield f"{r['families']:,} families: {r['overhead_s'] * 1000:.1f} ms per family, bar {MAX_FAMILY_S * 1000:.0f}"
        if r["driver_bytes"] > MAX_DRIVER_BYTES:
            yield f"{r['families']:,} families: driver at {r['driver_bytes'] / 1e9:.2f} GB, bar {MAX_DRIVER_BYTES / 1e9}"
    growth = results[-1]["overhead_s"] / results[0]["overhead_s"]
    if growth > MAX_GROWTH:
        yield f"{growth:.2f}x per family from {results[0]['families']:,} to {results[-1]['families']:,} families, bar {MAX_GROWTH}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=int, nargs="+", default=SIZES, help="sizes, in rising order")
    parser.add_argument("--stub-ms", type=float, default=10.0, help="length of a family of the stub")
    parser.add_argument("--slots", type=int, default=2, help="families at once")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    parser.add_argument("--here", action="store_true", help="run one size in this process and print its result as JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.families[0], options.stub_ms / 1000, options.slots)))
        return 0
    print(f"stub {options.stub_ms:g} ms, {options.slots} slots, {len(os.sched_getaffinity(0))} CPUs")
    print("families  plan s    wall s  ms/family  overhead ms  growth  driver MB  experiment state MB", flush=True)
    results: list[dict[str, Any]] = []
    root = Path(__file__).parents[1]
    for size in options.families:
        arguments = ["--here", "--families", str(size), "--stub-ms", str(options.stub_ms), "--slots", str(options.slots)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, env=environment, check=False)
        if done.returncode:
            return done.returncode
        r = json.loads(done.stdout.splitlines()[-1])
        results.append(r)
        print(
            f"{r['families']:8,}  {r['plan_s']:6.2f}  {r['wall_s']:8.1f}  {r['family_s'] * 1000:9.1f}  {r['overhead_s'] * 1000:11.1f}  "
            f"{r['overhead_s'] / results[0]['overhead_s']:6.2f}  {r['driver_bytes'] / 1e6:9.0f}  {r['experiment_state_bytes'] / 1e6:19.1f}",
            flush=True,
        )
    failed = list(missed(results))
    if options.json:
        Path(options.json).write_text(json.dumps({"results": results, "missed": failed}, indent=2) + "\n", encoding="utf-8")
    print("\n".join(f"missed: {line}" for line in failed) or "all bars met")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
