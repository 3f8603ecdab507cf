"""The report from what has finished, anew whenever more has, while a sweep runs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from datetime import datetime

from analysis import spreads, tables
from analysis.claims import Drivers
from analysis.storage import Store
from analysis.verdict import Verdict
from analysis.wording import counted

LOGS = "logs"  # where a run keeps what it says, from its start on: sweep.log.LOGS, which the analysis does not import; a test compares them


class Superseded(Exception):
    """The run has ended, and its own analysis writes what this one would have written."""


def is_unended(store: Store) -> bool:
    """Whether a run of the sweep has begun, by its log, of which no row in `runs` says that it ended."""
    logs, runs = store.names(LOGS, ".log"), tables.names(store, "runs")
    return bool(logs) and (not runs or logs[-1].removesuffix(".log") > runs[-1])  # both are named by their time


def is_analysed_by_its_run(store: Store) -> bool:
    """Whether the latest run has come to its end and goes on to analyse: unless it was interrupted, or the sweep file says not to."""
    if is_unended(store):
        return False
    enabled = spreads.section(store, "analysis").get("enabled", True)
    last = tables.read(store, "runs", ["interrupted"], tables.names(store, "runs")[-1:])
    return bool(enabled) and not last["interrupted"].any()


def watch(
    store: Store,
    analyse: Callable[[Callable[[], None]], Verdict],
    say: Callable[[str], object],
    every_s: float,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Analyse whenever families have finished since, until the run has ended; at once where none is running.

    A run goes on as long as it has no row in `runs` and its driver lives; one that was killed is told of.
    `analyse` is given what to call before it writes. The last analysis is the run's own where it makes one, so that its settings stand.
    What cannot be analysed yet is told and tried again; after the run's end its error is raised.
    """
    seen: list[str] | None = None
    told, drivers = "", Drivers(store)

    def is_running() -> bool:
        return is_unended(store) and drivers.is_one_alive()

    def check() -> None:
        if was_running and not is_running() and is_analysed_by_its_run(store):
            raise Superseded

    was_running = is_running()
    if was_running:
        say(f"watching {store.root}, every {every_s:g} s; Ctrl-C ends it, and leaves the sweep alone")
    while True:
        running = is_running()  # first, so that what finishes meanwhile is seen
        if not running and is_unended(store):
            say(
                "the run has ended without an end: it was killed, or stopped by a fault. To go on: python -m sweep.run --config "
                + shlex.quote(f"{store.root}/sweep.yaml")
            )
        present = tables.names(store, "trials")
        if was_running and not running and is_analysed_by_its_run(store):
            say(f"the run has ended with {counted(len(present), 'family')}; its own analysis comes last")
            return
        if present != seen or not running:
            began = time.monotonic()
            try:
                found = analyse(check)
            except Superseded:
                continue
            except (OSError, ValueError) as error:
                if not running:
                    raise
                text = f"not yet: {' '.join(str(error).split())}"
            else:
                seen = present
                text = f"{counted(len(present), 'family')}: {found.answer}, analysed in {time.monotonic() - began:.1f} s"
            if text != told:
                told = text
                say(f"{datetime.now():%H:%M:%S}  {text}")
        if not running:
            return
        sleep(every_s)
