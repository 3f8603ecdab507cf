"""A sweep over separate hosts: with nodes that are lost, with faults at random moments, and how the time falls with hosts.

    HOSTS_SH=hosts.sh python -m tests.hosts faults FOLDER     # a head and two workers; one is lost for good, the other for a while
    HOSTS_SH=hosts.sh python -m tests.hosts chaos FOLDER [--hosts 2 3] [--rounds 2] [--seed 0]     # round i has seed S + i
    HOSTS_SH=hosts.sh python -m tests.hosts scaling FOLDER [--hosts 1 2 3] [--repeats 3] [--config cells]

All end with the tables of a run on this machine, bit for bit, timings and provenance aside, or with exit code 1. FOLDER is what the hosts
share; `tests/hosts/lab.py` says what HOSTS_SH is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis import tables
from analysis.storage import Store
from sweep.config import load
from tests.hosts.chaos import chaos
from tests.hosts.lab import Lab, script
from tests.same import same_tables

SWEEP = """
name: hosts
data: {source: cells, num_images: 300, image_size: 16, num_slides: 20}
model: {name: cnn, widths: [8, 16]}
training: {epochs: 8, batch_size: 16, replicas: 6, learning_rate: 0.05}
probes: {num_samples: 20}
space: {activations: [relu, tanh], losses: [cross_entropy, squared_error], swap_epochs: [2, 4, 6]}
storage: {checkpoint_epochs: 1}
analysis: {num_permutations: 99}
"""
# Less to do, so that a round takes less.
SMALL = (
    SWEEP.replace("name: hosts", "name: chaos")
    .replace("[2, 4, 6]", "[2, 5]")
    .replace("num_permutations: 99", "num_permutations: 99, measures: [cka], image_statistics: false")
)


def here(config: Path, results: Path) -> Store:
    """The same sweep on this machine, with a Ray of its own."""
    command = [sys.executable, "-m", "sweep.run", "--config", str(config), "--set", f"storage.path={results}"]
    ended = subprocess.run(command, env={**os.environ, "RAY_ADDRESS": "local"}, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stdout[-3000:] + ended.stderr[-3000:])
    return Store(results / load(str(config))[0].name)


def difference(a: Store, b: Store) -> str | None:
    """The first table in which the stores differ by a bit, and how."""
    try:
        same_tables(a, b)
    except AssertionError as error:
        return str(error)
    return None


def num_done(store: Store) -> int:
    return len(tables.names(store, "trials"))


def wait_for(store: Store, num_families: int, running: subprocess.Popen[str], timeout_s: float = 300) -> None:
    """Until so many families have their row; RuntimeError where the run ends before, or none comes for `timeout_s`."""
    last, seen = time.monotonic(), num_done(store)
    while (now := num_done(store)) < num_families:
        if now > seen:
            last, seen = time.monotonic(), now
        if running.poll() is not None or time.monotonic() - last > timeout_s:
            running.kill()
            raise RuntimeError(f"{now} of {num_families} families, exit code {running.poll()}\n{running.communicate()[0][-4000:]}")
        time.sleep(0.2)


@contextmanager
def told(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


def faults(folder: Path, cut_s: float = 60) -> int:
    """A head without CPUs and two workers. w1 is powered off for good, then w2's network is cut, so that nothing runs, and comes back."""
    config = folder / "hosts.yaml"
    config.write_text(SWEEP, encoding="utf-8")
    results = folder / "faults"
    shutil.rmtree(results, ignore_errors=True)
    with told("on this machine"):
        single = here(config, folder / "single")
    store = Store(results / load(str(config))[0].name)
    with Lab(folder, num_workers=2) as lab, told("on three hosts"):
        command = f"python -m sweep.run --config {config} --set storage.path={results}"
        running = lab.client(lab.on_cluster(command))
        total = num_done(single)
        wait_for(store, total // 6, running)
        print(f"{num_done(store)} of {total} families: w1 is powered off for good", flush=True)
        lab.host("off", "w1")
        wait_for(store, total // 3, running)
        print(f"{num_done(store)} of {total} families: w2's network is cut for {cut_s:g} s", flush=True)
        lab.host("cut", "w2")
        time.sleep(cut_s)
        print(f"{num_done(store)} of {total} families: w2's network is back", flush=True)
        lab.host("heal", "w2")
        wait_for(store, total, running)
        output, _ = running.communicate(timeout=300)
        (folder / "faults.log").write_text(output, encoding="utf-8")
        print(f"exit code {running.returncode}")
    found = difference(single, store)
    hosts = tables.read(store, "trials", ["host"])["host"].value_counts()
    print(f"families by host: {', '.join(f'{host} {num}' for host, num in hosts.items())}")
    print(found or f"{total} families: all tables are those of one machine, bit for bit")
    return int(bool(found) or running.returncode != 0)


def scaling(folder: Path, num_hosts: list[int], repeats: int, config: Path) -> int:
    """Wall times on so many hosts of one CPU each, the head's included, in turns: until the last family's row, and of the whole command."""
    single = here(config, folder / "single")
    times: dict[int, list[tuple[float, float, float]]] = {num: [] for num in num_hosts}
    for repeat in range(repeats):
        for num in num_hosts:
            results = folder / f"scaling-{num}-{repeat}"
            shutil.rmtree(results, ignore_errors=True)
            with Lab(folder, num_workers=num - 1, head_cpus=1) as lab:
                began = time.time()
                lab.finish(lab.on_cluster(f"python -m sweep.run --config {config} --set storage.path={results}"), timeout_s=3600)
                ended = time.time()
            store = Store(results / load(str(config))[0].name)
            if found := difference(single, store):
                print(f"{num} hosts: {found}")
                return 1
            finished_at = tables.read(store, "trials", ["finished_at"])["finished_at"]
            first, last = finished_at.min().timestamp(), finished_at.max().timestamp()
            times[num].append((last - began, last - first, ended - began))
            print(f"{num} hosts: last family after {last - began:.1f} s, all after {ended - began:.1f} s", flush=True)
    print(f"{load(str(config))[0].name}: {num_done(single)} families, one CPU per host, {os.cpu_count()} in the machine, n = {repeats}")
    for index, what in enumerate(("until the last family", "from the first family to the last", "the whole command")):
        one = statistics.median(pair[index] for pair in times[num_hosts[0]]) * num_hosts[0]
        for num, pairs in times.items():
            found_s = [pair[index] for pair in pairs]
            median = statistics.median(found_s)
            print(f"{what}, {num} hosts: {median:.1f} s [{min(found_s):.1f}, {max(found_s):.1f}], efficiency {one / (num * median):.2f}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.hosts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["faults", "chaos", "scaling"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hosts", type=int, nargs="+", help="the head included; default: 1 2 3, of chaos 2 3")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--config", type=Path, help="a sweep file for the scaling; one of 40 small families where none is given")
    options = parser.parse_args()
    if script() is None:
        parser.error("HOSTS_SH does not name a script that makes hosts, or this is not root")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes the hosts
    if options.what == "faults":
        return faults(folder)
    if options.what == "chaos":
        if min(options.hosts or [2]) < 2:
            parser.error("--hosts: chaos takes a head and at least one worker, 2 or more")
        config = folder / "chaos.yaml"
        config.write_text(SMALL, encoding="utf-8")
        seeds = range(options.seed, options.seed + options.rounds)
        return int(chaos(folder, config, here(config, folder / "single"), seeds, options.hosts or [2, 3]) > 0)
    config = options.config
    if config is None:
        config = folder / "hosts.yaml"
        config.write_text(SWEEP, encoding="utf-8")
    return scaling(folder, options.hosts or [1, 2, 3], options.repeats, config.resolve())


if __name__ == "__main__":
    sys.exit(main())
