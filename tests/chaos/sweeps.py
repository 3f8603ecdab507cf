"""The sweep that faults are done to, where its results lie, and its driver."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.fs as pafs

from analysis.storage import TEMPORARY_FOLDER, Store

NUM_FAMILIES = 10
CONFIG = """
name: tiny
data: {source: cells, num_images: 160, image_size: 12, num_slides: 8}
model: {name: cnn, widths: [4, 6]}
training: {epochs: 4, batch_size: 16, replicas: 2, learning_rate: 0.05}
probes: {num_samples: 10, baselines: false, predictions: false}
space: {activations: [relu, tanh], losses: [cross_entropy], swap_epochs: [1, 2], swaps: [activation], pulse_epochs: [1]}
analysis: {num_permutations: 99, measures: [cka], image_statistics: false}
"""
# Proposals differ with the moment at which a search is killed, but no two of one search are the same.
SEARCH = (
    CONFIG.replace("pulse_epochs: [1]", "recipe: {training.learning_rate: {low: 0.01, high: 0.1}}")
    + "search: {kind: optuna, num_families: 4, objectives: [{metric: gap_accuracy, direction: maximize}]}\n"
)
SWEEPS = {"grid": CONFIG, "search": SEARCH}
ROOT = Path(__file__).parents[2]
DISK_BYTES = 64 * 2**20
FILLER = "filler"


@dataclass
class Place:
    """A folder with the sweep file, and the store of its results as this process reaches it."""

    folder: Path
    store: Store
    sweep: str = "grid"
    environment: dict[str, str] = field(default_factory=dict)  # of the driver
    starts: list[psutil.Process] = field(default_factory=list)  # whatever ran here, to be ended with the place
    befell: list[str] = field(default_factory=list)  # the faults that came while there was something to befall

    @property
    def clock(self) -> Path:
        """Holds by how many seconds the driver's clock is off."""
        return self.folder / "clock"

    def set_clock(self, seconds: int) -> None:
        with open(self.clock, "r+b") as file:  # mapped into the processes, so it stays the same file
            file.write(struct.pack("q", seconds))

    def make_clock(self) -> Path:
        """The library that makes a driver's clock jump, built."""
        if not self.clock.exists():
            self.clock.write_bytes(bytes(8))
            source, built = str(Path(__file__).with_name("clock.c")), str(self.folder / "clock.so")
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, source, "-ldl"], check=True)
        return self.folder / "clock.so"

    @property
    def filler(self) -> Path:
        """What fills the disk."""
        return self.folder / "results" / FILLER

    def num_files(self) -> int:
        """How far a sweep is, in files of its results."""
        selector = pafs.FileSelector(self.store.base, recursive=True, allow_not_found=True)
        with suppress(OSError):  # a folder may vanish meanwhile
            infos = self.store.filesystem.get_file_info(selector)
            return sum(i.type == pafs.FileType.File and f"/{TEMPORARY_FOLDER}/" not in i.path for i in infos)
        return 0


@contextmanager
def place(kind: str, url: str | None, name: str, num_cpus: int = 1, sweep: str = "grid") -> Iterator[Place]:
    """An empty place: `disk`, a small one of its own where the user may mount that; or `s3`, at the server that `url` leads to.

    So many families train at a time; each further one costs a round 14 s of CPU time, most of it imports.
    """
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))  # short: Ray's sockets lie below it
    results = folder / "results"
    results.mkdir()
    mounted = kind == "disk" and os.geteuid() == 0
    if mounted:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(results)]
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    path, options = ("results", "") if kind == "disk" else (f"s3://our-results/{name}", f"?endpoint_override={url}")
    (folder / "my.yaml").write_text(f"{SWEEPS[sweep]}resources: {{num_cpus: {num_cpus}}}\nstorage: {{path: {path}}}\n")
    found = Place(folder, Store(f"{folder}/results/tiny" if kind == "disk" else f"{path}/tiny{options}"), sweep)
    if kind == "s3":
        found.environment["AWS_ENDPOINT_URL"] = str(url)
    try:
        yield found
    finally:
        for process in found.starts:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found.starts, timeout=20)
        if mounted:
            subprocess.run(["umount", "--lazy", str(results)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


class Driver:
    """`python -m sweep.run` as a process, what it said, and the processes that it started."""

    def __init__(self, where: Place, has_clock: bool = False) -> None:
        self.place, self.began = where, time.monotonic()
        self.log = where.folder / f"output{len(list(where.folder.glob('output*')))}"
        environment = {
            **os.environ,
            **where.environment,
            **({"CHAOS_CLOCK": str(where.clock), "LD_PRELOAD": str(where.make_clock())} if has_clock else {}),
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": str(where.folder),
            "RAY_ADDRESS": "local",
            "RAY_worker_niceness": "0",  # else workers wait for whatever else a busy machine does
        }
        with open(self.log, "w") as log:
            command = [sys.executable, "-m", "sweep.run", "--config", "my.yaml"]
            self.process = subprocess.Popen(
                command, cwd=where.folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.place.starts.append(psutil.Process(self.process.pid))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def is_at_work(self) -> bool:
        """Whether it has begun, and not yet said where the results are."""
        output = self.output
        return " families of " in output and "\nresults: " not in output

    def children(self) -> list[psutil.Process]:
        """Whatever it started and is alive; kept, so that what outlives it is ended with the place."""
        found: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid).children(recursive=True)
        self.place.starts += [one for one in found if one not in self.place.starts]
        return found

    def named(self, *names: str) -> list[psutil.Process]:
        """Of its processes, those whose command begins with one of these."""
        found = []
        for one in self.children():
            with suppress(psutil.NoSuchProcess, IndexError):
                if Path(one.cmdline()[0]).name.startswith(names):
                    found.append(one)
        return found

    def wait(self, limit_s: float) -> int | None:
        """Its exit code; None if it does not end within the limit."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(limit_s)
        return None
