"""Rounds of faults at random moments against a sweep over separate hosts. All that is drawn comes from a seed."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from analysis import tables
from analysis.claims import FOLDER as CLAIMS
from analysis.storage import Store
from sweep.config import load
from tests.chaos.checks import Refuted, as_undisturbed, unchanged
from tests.hosts.lab import Lab

LIMIT_S = 420.0  # Ray takes up to 90 s to have a lost node at work again
MOST_STARTS = 6


@dataclass
class Run:
    """A sweep over a cluster, started from its head; started again where it ended before it was done."""

    lab: Lab
    command: str
    store: Store
    workers: list[str]  # those that are not lost for good
    cut: set[str] = field(default_factory=set)  # those whose network was away for a while
    befell: list[str] = field(default_factory=list)
    num_starts: int = 0

    def start(self) -> None:
        self.num_starts += 1
        self.log = self.lab.folder / f"output-{self.num_starts}.log"
        self.process = self.lab.client(self.lab.on_cluster(f"{self.command} > {self.log} 2>&1"))
        self.began = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def on(self, host: str, shell: str) -> None:
        """A shell command on a host, whatever comes of it."""
        self.lab.host("on", host, "bash", "-c", f"{shell}; true")

    def wait(self, seconds: float) -> None:
        """For so long, or until the sweep ends."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)


def off(run: Run, worker: str, lasts_s: float) -> None:
    """The worker is powered off, and on again with empty folders."""
    run.lab.host("off", worker)
    run.wait(lasts_s)
    time.sleep(2)  # its address is free again
    run.lab.host("boot", worker)


def lost(run: Run, worker: str, lasts_s: float) -> None:
    """The worker is powered off for good, where there is another."""
    if len(run.workers) > 1:
        run.lab.host("off", worker)
        run.workers.remove(worker)


def cut(run: Run, worker: str, lasts_s: float) -> None:
    """The worker's network is away for a while, so that neither side knows of the other."""
    run.cut.add(worker)
    run.lab.host("cut", worker)
    run.wait(lasts_s)
    run.lab.host("heal", worker)


def raylet(run: Run, worker: str, lasts_s: float) -> None:
    """kill -9 of the process that all of a node's workers hang on."""
    run.on(worker, "pkill -9 -x raylet")


def spot(run: Run, worker: str, lasts_s: float) -> None:
    """SIGTERM to it, as where a node is about to be taken away."""
    run.on(worker, "pkill -TERM -x raylet")


def process(run: Run, worker: str, lasts_s: float) -> None:
    """kill -9 of a process that trains."""
    run.on(worker, "pkill -9 -o -f ^ray::")


def driver(run: Run, worker: str, lasts_s: float) -> None:
    """kill -9 of the driver on the head, whose claim tells its id."""
    while run.is_running:
        for name in run.store.names(CLAIMS):
            with suppress(OSError, ValueError, pa.ArrowException):
                run.on("head", f"kill -9 {int(json.loads(run.store.read(f'{CLAIMS}/{name}'))['pid'])}")
                run.wait(30)
                return
        time.sleep(0.1)


FAULTS: dict[str, Callable[[Run, str, float], None]] = {one.__name__: one for one in (off, lost, cut, raylet, spot, process, driver)}


@dataclass(frozen=True)
class Moment:
    """When a fault comes: that share of the families is done, and `delay_s` more. It befalls a worker, for a while where it has an end."""

    fault: str
    share: float
    delay_s: float
    worker: int
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.fault} at {self.share:.0%} + {self.delay_s:.1f} s" + (
            f" for {self.lasts_s:.0f} s" if self.fault in ("off", "cut") else ""
        )


@dataclass(frozen=True)
class Round:
    seed: int
    num_hosts: int
    moments: tuple[Moment, ...]

    @classmethod
    def of(cls, seed: int, num_hosts: Sequence[int]) -> Round:
        draw = random.Random(seed)
        hosts = draw.choice(list(num_hosts))
        kinds = [kind for kind in FAULTS if kind != "lost" or hosts > 2]
        moments = []
        for fault in draw.sample(kinds, draw.choice((1, 2, 2))):
            share = max(0.0, draw.uniform(-0.2, 0.9))
            delay_s = draw.uniform(0.0, 2.0 if share else 20.0)
            moments.append(Moment(fault, share, delay_s, draw.randrange(hosts - 1), draw.uniform(2.0, 60.0)))
        return cls(seed, hosts, tuple(sorted(moments, key=lambda one: (one.share, one.delay_s))))

    def __str__(self) -> str:
        return f"{self.num_hosts} hosts  " + ", ".join(map(str, self.moments))


def chaos(folder: Path, config: Path, reference: Store, seeds: Sequence[int], num_hosts: Sequence[int]) -> int:
    """Do rounds and print a line of each. Returns how many were not survived."""
    total, refuted, by_fault = len(tables.names(reference, "trials")), 0, Counter[str]()
    for seed in seeds:
        planned, began = Round.of(seed, num_hosts), time.monotonic()
        results = folder / "chaos"
        shutil.rmtree(results, ignore_errors=True)
        store = Store(results / load(str(config))[0].name)
        command = f"python -m sweep.run --config {config} --set storage.path={results}"
        with Lab(folder, num_workers=planned.num_hosts - 1) as lab:
            run = Run(lab, command, store, [f"w{1 + i}" for i in range(planned.num_hosts - 1)])
            problem = None
            try:
                disturb(run, planned, total)
                as_undisturbed(store, reference)
            except (AssertionError, RuntimeError) as error:
                problem = f"{str(error)[:3000]}\n{run.log.read_text(errors='replace')[-3000:]}"
        hosts = ", ".join(f"{host} {num}" for host, num in tables.read(store, "trials", ["host"])["host"].value_counts().items())
        told = f"{'survived' if problem is None else 'NOT survived'}, {run.num_starts} starts, {time.monotonic() - began:.0f} s; {hosts}"
        print(f"seed {seed:<5} {planned}: {told}", flush=True)
        if problem is not None:
            refuted += 1
            print(problem, flush=True)
        by_fault.update(run.befell)
    print("what was done to them: " + ", ".join(f"{count} {fault}" for fault, count in by_fault.most_common()))
    print(f"{len(seeds) - refuted} rounds survived of {len(seeds)}: {total} families, bit for bit those of one machine")
    return refuted


def disturb(run: Run, planned: Round, total: int) -> None:
    """Start the sweep, do the faults to it, and start it again until it is done. A family that was done must not run again."""
    rows: dict[str, bytes] = {}
    waiting = list(planned.moments)
    while run.num_starts < MOST_STARTS:
        run.start()
        while waiting and _comes(waiting[0], run, total):
            moment = waiting.pop(0)
            rows |= unchanged(run.store, rows, run.cut)
            run.befell.append(moment.fault)
            FAULTS[moment.fault](run, run.workers[moment.worker % len(run.workers)], moment.lasts_s)
        run.wait(LIMIT_S)
        if run.is_running:
            run.process.kill()
            raise Refuted("the driver hangs")
        rows |= unchanged(run.store, rows, run.cut)
        if run.process.returncode == 0:
            return
    raise Refuted(f"not done after {MOST_STARTS} starts")


def _comes(moment: Moment, run: Run, total: int) -> bool:
    """Whether the sweep still runs when the moment comes."""
    while run.is_running:
        if len(tables.names(run.store, "trials")) >= moment.share * total:
            run.wait(max(0.0, moment.delay_s - (0.0 if moment.share else time.monotonic() - run.began)))
            return run.is_running
        if time.monotonic() - run.began > LIMIT_S:
            return False
        time.sleep(0.1)
    return False
