"""A round: a sweep under faults drawn from a seed, the same command until it is done, and a comparison with an undisturbed sweep."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from analysis import tables
from analysis.claims import FOLDER as CLAIMS
from analysis.storage import Store
from sweep.damage import damaged
from tests.aws import faulty
from tests.chaos.faults import FAULTS, Refuted
from tests.chaos.sweeps import Driver, Place, place
from tests.same import same_analysis, same_tables
from trainables.states import States

STARTING_S = 8.0  # how long a driver takes to its first file, about
LIMIT_S = 240.0  # a driver that has not ended by then hangs
MOST_STARTS = 8


@dataclass(frozen=True)
class Moment:
    """When a fault comes: `share` of the files of an undisturbed sweep are there, and `delay_s` more; or before there are any."""

    fault: str
    share: float
    delay_s: float

    def __str__(self) -> str:
        return f"{self.fault} at {self.share:.0%} + {self.delay_s:.1f} s"


@dataclass(frozen=True)
class Round:
    """Everything that is drawn from the seed."""

    seed: int
    where: str
    num_cpus: int
    rate: float  # of requests to the store that fail
    moments: tuple[Moment, ...]

    @classmethod
    def of(cls, seed: int, kinds: Sequence[str]) -> Round:
        draw = random.Random(seed)
        chosen = draw.sample(list(kinds), min(len(kinds), draw.choice((1, 2, 2, 3))))
        if "storage" in chosen and "disk" in chosen:  # they are of different places
            chosen.remove(draw.choice(("storage", "disk")))
        on_s3 = "storage" in chosen or ("disk" not in chosen and draw.random() < 0.25)
        moments = []
        for fault in chosen:
            share = max(0.0, draw.uniform(-0.2, 0.97))
            delay_s = draw.uniform(0.0, 0.5) if share else draw.uniform(0.0, STARTING_S)
            if FAULTS[fault] is not None:
                moments.append(Moment(fault, share, delay_s))
        rate = draw.uniform(0.03, 0.2) if "storage" in chosen else 0.0
        num_cpus, where = draw.choice((1, 1, 1, 2)), "s3" if on_s3 else "disk"
        return cls(seed, where, num_cpus, rate, tuple(sorted(moments, key=lambda m: (m.share, m.delay_s))))

    def __str__(self) -> str:
        storage = [f"storage at {self.rate:.0%} of requests"] if self.rate else []
        return f"{self.where:<4}  {self.num_cpus} at once  " + ", ".join([*storage, *map(str, self.moments)])


def run(planned: Round, reference: Store, num_files: int, url: str | None) -> tuple[str | None, list[str]]:
    """Do a round. `num_files` are those of the undisturbed sweep. None if all is as without faults, else what is not; and what befell it.

    A fault whose moment comes when the sweep is done befalls nothing.
    """
    with place(planned.where, url, f"round-{planned.seed}", planned.num_cpus) as where:
        try:
            _disturb(planned, where, num_files, url)
            _compare(where, reference)
        except AssertionError as refuted:
            outputs = "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(where.folder.glob("output*")))
            return f"{str(refuted)[:3000]}\n{outputs}", where.befell
        return None, where.befell


def _disturb(planned: Round, where: Place, num_files: int, url: str | None) -> None:
    """Start the command, do faults to it, and start it again until it is done. A family that was done must not run again."""
    draw, rows = random.Random(planned.seed + 1), {}
    has_clock = any(moment.fault == "clock" for moment in planned.moments)
    waiting = list(planned.moments)
    with ExitStack() as stack:
        if planned.rate:
            where.environment["AWS_ENDPOINT_URL"], served = stack.enter_context(faulty(str(url), planned.seed, planned.rate))
            stack.callback(lambda: where.befell.extend(["storage"] if served.total() > served["none"] else []))
        for _ in range(MOST_STARTS):
            driver: Driver | None = Driver(where, has_clock)
            while waiting and driver is not None:
                moment = waiting.pop(0)
                if not _wait_for(moment, driver, num_files):
                    waiting.insert(0, moment)
                    break
                fault = FAULTS[moment.fault]
                assert fault is not None
                driver = fault(driver, draw)
            if driver is not None:
                code = driver.wait(LIMIT_S)
                driver.children()
                if code is None:
                    raise Refuted(f"the driver hangs: {driver.output[-2000:]}")
                if code == 0:
                    _unchanged(where, rows)
                    return
            rows |= _unchanged(where, rows)
    raise Refuted(f"not done after {MOST_STARTS} starts")


def _wait_for(moment: Moment, driver: Driver, num_files: int) -> bool:
    """Whether the driver still runs when the moment comes."""
    while driver.process.poll() is None:
        since = time.monotonic() - driver.began
        if (moment.share and driver.place.num_files() >= moment.share * num_files) or (not moment.share and since >= moment.delay_s):
            time.sleep(moment.delay_s if moment.share else 0.0)
            return driver.process.poll() is None
        time.sleep(0.05 if driver.place.store.is_local else 0.5)
    return False


def _unchanged(where: Place, before: dict[str, bytes]) -> dict[str, bytes]:
    """The rows of the families that are done. Those of them that were done before are the same to the byte."""
    rows = where.done_rows()
    again = sorted(trial for trial, row in before.items() if rows.get(trial) != row)
    assert not again, f"families that were done ran again: {again}"
    return rows


def _compare(where: Place, reference: Store) -> None:
    """Nothing is torn, nothing is left over, and all tables are those of the reference."""
    store = where.store
    assert not damaged(store), damaged(store)
    for table in tables.TABLES:
        strangers = [name for name in store.names(table) if not name.endswith(".parquet")]
        assert not strangers, f"left in {table}: {strangers}"
        tables.read(store, table)
    assert not States(store).names(), "training states are left"
    assert not store.names(CLAIMS), "a claim is left"
    assert store.read("report.html").rstrip().endswith(b"</html>"), "the report is torn"
    same_tables(store, reference)
    same_analysis(store, reference)
