"""What can befall a sweep. Each fault is done to a driver that runs, and says whether that goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from tests.chaos.checks import Refuted
from tests.chaos.sweeps import Driver

HOUR_S = 3600


def kill_driver(driver: Driver, draw: random.Random) -> Driver | None:
    """kill -9 of the driver alone; what it started is left to find out."""
    driver.children()
    driver.process.kill()
    driver.process.wait()
    driver.place.befell.append("driver")
    return None


def kill_all(driver: Driver, draw: random.Random) -> Driver | None:
    """kill -9 of the driver and all that it started, at once, as a machine that goes down."""
    for one in [*driver.children(), psutil.Process(driver.pid)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    driver.process.wait()
    driver.place.befell.append("all")
    return None


def kill_worker(driver: Driver, draw: random.Random) -> Driver | None:
    """kill -9 of one worker process, as soon as there is one."""
    if workers := _some(driver, "ray::ResourceTrainable", "ray::IDLE"):
        draw.choice(workers).kill()
        driver.place.befell.append("worker")
    return driver


def kill_raylet(driver: Driver, draw: random.Random) -> Driver | None:
    """kill -9 of the raylet, which all workers of a machine hang on, as soon as there is one."""
    for raylet in _some(driver, "raylet"):
        raylet.kill()
        driver.place.befell.append("raylet")
    return driver


def _some(driver: Driver, *names: str) -> list[psutil.Process]:
    """Processes of the driver with such names; none if it ends before there are any."""
    while driver.process.poll() is None:
        if found := driver.named(*names):
            return found
        time.sleep(0.1)
    return []


def spot_notice(driver: Driver, draw: random.Random) -> Driver | None:
    """SIGTERM to the whole process group, and kill -9 of whatever is left of it some seconds later."""
    left_s, started = draw.uniform(0.5, 20.0), driver.children()
    with suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGTERM)
    driver.wait(left_s)
    for one in [*started, psutil.Process(driver.pid)] if driver.process.poll() is None else started:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    driver.process.wait()
    driver.place.befell.append("spot")
    return None


def fill_disk(driver: Driver, draw: random.Random) -> Driver | None:
    """No byte is left on the disk of the results, for some seconds."""
    held_s, filler = draw.uniform(0.5, 6.0), driver.place.filler
    with suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    driver.wait(held_s)
    filler.unlink()
    driver.place.befell.append("disk")
    return driver


def jump_clock(driver: Driver, draw: random.Random) -> Driver | None:
    """The clock jumps, by hours or days, forwards or backwards."""
    driver.place.set_clock(draw.choice((-48, -2, 2, 48)) * HOUR_S)
    driver.place.befell.append("clock")
    return driver


def second_driver(driver: Driver, draw: random.Random) -> Driver | None:
    """The same command once more: one of both is refused in a line that names the other."""
    second = Driver(driver.place)
    driver.place.befell.append("second")
    pair = {driver.pid: driver, second.pid: second}
    while all(one.process.poll() is None for one in pair.values()):
        if driver.is_at_work and second.is_at_work and driver.is_at_work:
            raise Refuted("two drivers are at work at once")
        time.sleep(0.1)
    ended = next(one for one in pair.values() if one.process.poll() is not None)
    other = next(one for one in pair.values() if one is not ended)
    if ended.process.returncode == 2:
        line = ended.output.strip().splitlines()[-1]
        if f"process {other.pid} on " not in line or "Traceback" in ended.output:
            raise Refuted(f"the second driver was refused with {line!r}")
        return other
    if ended is driver and ended.process.returncode == 0:  # it was at its end already
        return second
    raise Refuted(f"of two drivers one ended with {ended.process.returncode}: {ended.output[-2000:]}")


Fault = Callable[[Driver, random.Random], Driver | None]
FAULTS: dict[str, Fault | None] = {
    "driver": kill_driver,
    "all": kill_all,
    "worker": kill_worker,
    "raylet": kill_raylet,
    "spot": spot_notice,
    "storage": None,  # all the time: requests to an object store fail, hang, or bring half of an answer
    "disk": fill_disk,
    "clock": jump_clock,
    "second": second_driver,
}
