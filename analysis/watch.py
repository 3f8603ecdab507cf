"""The report from what has finished, anew whenever more has, while a sweep runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from analysis import spreads, tables
from analysis.storage import Store
from analysis.verdict import Verdict
from analysis.wording import counted

LOGS = "logs"  # where a run keeps what it says, from its start on: sweep.log.LOGS, which the analysis does not import; a test compares them


class Superseded(Exception):
    """The run has ended, and its own analysis writes what this one would have written."""


def is_running(store: Store) -> bool:
    """Whether a run of the sweep has begun, by its log, of which no row in `runs` says that it ended.

    A run that was killed has no such row: it counts as running until the same command has been typed again.
    """
    logs, runs = store.names(LOGS, ".log"), tables.names(store, "runs")
    return bool(logs) and (not runs or logs[-1].removesuffix(".log") > runs[-1])  # both are named by their time


def is_analysed_by_its_run(store: Store) -> bool:
    """Whether the latest run, which has ended, goes on to analyse: unless it was interrupted, or the sweep file says not to."""
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

    `analyse` is given what to call before it writes. The last analysis is the run's own where it makes one, so that its settings stand.
    What cannot be analysed yet is told and tried again; after the run's end its error is raised.
    """
    seen: list[str] | None = None
    told, was_running = "", is_running(store)
    if was_running:
        say(f"watching {store.root}, every {every_s:g} s; Ctrl-C ends it, and leaves the sweep alone")
    while True:
        running = is_running(store)  # first, so that what finishes meanwhile is seen
        present = tables.names(store, "trials")
        if was_running and not running and is_analysed_by_its_run(store):
            say(f"the run has ended with {counted(len(present), 'family')}; its own analysis comes last")
            return
        if present != seen or not running:
            began = time.monotonic()
            try:
                found = analyse(lambda: _check(store, was_running))
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


def _check(store: Store, was_running: bool) -> None:
    if was_running and not is_running(store) and is_analysed_by_its_run(store):
        raise Superseded
