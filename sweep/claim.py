"""One driver at a time on one folder of results, on a disk, on NFS and on an object store alike.

Each driver writes a claim of its own, then looks whether there are others: of two that do so at once, at least one sees the other, since a
store lists whatever was written before. Who sees a living one takes its claim back. No claim is ever overwritten or deleted by another's
name, so that nothing is stolen between a look and a deed, and no conditional write is needed.

On the machine that it was made on, a claim lives as long as its process. Elsewhere it lives as long as it is written anew, every `BEAT_S`.
How old it is, is told by the store: the difference of two of its own time stamps, so that no machine's clock matters; and before one
that seems to be forgotten is put aside, it is watched for a while, so that neither does a jump of the store's.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from rich.console import Console

from analysis import claims
from analysis.storage import Store
from sweep.config import ConfigError
from sweep.log import printable
from sweep.units import duration

BEAT_S = 20.0
_TRIES = 5  # with random pauses of up to a second: of drivers that start at the same instant, one goes on


@contextlib.contextmanager
def claimed(store: Store, console: Console) -> Iterator[None]:
    """Hold the results for the time of the block. Raises ConfigError, which names the holder, where a living driver has them.

    Should another driver take over, as it may where this one gave no sign of life for `claims.SILENT_S` (a machine that slept), this one
    is interrupted as by Ctrl-C.
    """
    name = f"{claims.FOLDER}/{uuid.uuid4().hex}.json"
    record = json.dumps({**claims.this_process(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"}).encode()
    _claim(store, name, record, console)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, name, record, ended, console), name="claim", daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join(timeout=BEAT_S)  # a store that hangs keeps a beat waiting, but not the end of the run
        _withdraw(store, name)


def _claim(store: Store, name: str, record: bytes, console: Console) -> None:
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(random.random())
        try:
            store.write(name, record)
            holder = _living(store, name, console)
        except BaseException:
            _withdraw(store, name)
            raise
        if holder is None:
            return
        _withdraw(store, name)
    raise ConfigError(store.root, [holder or "other drivers start at the same time; start one of them again"])


def _withdraw(store: Store, name: str) -> None:
    with contextlib.suppress(OSError, pa.ArrowException):  # what stays is the claim of a process that ends, which others put aside
        store.delete(name)


def _living(store: Store, own: str, console: Console) -> str | None:
    """Who else holds the results, in words; None if nobody does. Claims of the dead are removed."""
    times = claims.times(store)
    for name, written in times.items():
        record = claims.read(store, name) if name != own else None
        if record is None:
            continue
        who, alive, silent_s = _who(store, name, record), claims.is_alive(record), times.get(own, written) - written
        if alive is None and silent_s > claims.SILENT_S:
            watch_s = 2 * BEAT_S
            console.print(
                f"note: these results belong to {who}, which gave no sign of life for {duration(silent_s)}; watching for one, "
                f"{duration(watch_s)} more",
                markup=False,
                soft_wrap=True,
            )
            time.sleep(watch_s)
            silent_s, alive = 0.0, None if claims.times(store).get(name) not in (written, None) else False
            told = "it does give one" if alive is None else "it gives none: it is taken to be dead, and this run takes over"
            console.print(f"note: {told}", markup=False, soft_wrap=True)
        if alive is False:
            store.delete(name)
        else:
            return f"these results are being written by {who}{_what_to_do(record, alive, max(0.0, silent_s))}"
    return None


def _who(store: Store, name: str, record: dict[str, Any]) -> str:
    if not isinstance(record.get("pid"), int):
        return f"whatever wrote {store.path(name)}"
    return printable(f"process {record['pid']} on {record.get('host')}, since {record.get('since')} UTC")


def _what_to_do(record: dict[str, Any], alive: bool | None, silent_s: float) -> str:
    """What remains to be said to who is turned away: whether the holder lives, as far as can be seen, and what to do in either case."""
    kill = f" (kill {record['pid']} there)" if isinstance(record.get("pid"), int) else ""
    if alive:
        return f"; wait until it ends, or stop it{kill}"
    left_s = claims.SILENT_S - silent_s + 1
    last = f". It is another machine's; its last sign of life, due every {duration(BEAT_S)}, came {duration(silent_s)} ago"
    if silent_s < 2 * BEAT_S:
        return (
            f"{last}, so it is at work, or died just now: wait until it ends, or stop it{kill}; if it is dead, type this again in "
            f"{duration(left_s)}, and this run takes over"
        )
    return f"{last}, so it is dead or cut off: type this again in {duration(left_s)}, and this run takes over if none came until then"


def _beat(store: Store, name: str, record: bytes, ended: threading.Event, console: Console) -> None:
    """Write a claim anew until the run ends, or until it is found to be gone."""
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError, pa.ArrowException):  # a store that fails is told of by whoever writes results
            if store.exists(name):
                store.write(name, record)
            elif not ended.is_set():
                console.print(
                    "another driver took these results over, because this one gave no sign of life",
                    style="red",
                    markup=False,
                    soft_wrap=True,
                )
                _interrupt()
                return


def _interrupt() -> None:
    """As Ctrl-C; by SIGTERM where that is not listened to, as in what a script started in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        _thread.interrupt_main()
