"""Who writes to a folder of results: claims, and whether the process of one lives. `sweep.claim` makes them.

On the machine that it was made on, a claim lives as long as its process. Elsewhere it lives as long as it is written anew.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from analysis.storage import Store, answering

FOLDER = ".drivers"
SILENT_S = 300.0  # without a beat for so long, a claim from elsewhere is taken to be a dead driver's


def times(store: Store) -> dict[str, float]:
    """When each claim was written last, in seconds by the store's clock."""
    with answering(f"{store.root}/{FOLDER}"):
        infos = store.filesystem.get_file_info(pafs.FileSelector(store.path(FOLDER), allow_not_found=True))
    return {f"{FOLDER}/{i.base_name}": i.mtime.timestamp() for i in infos if i.type == pafs.FileType.File and i.mtime is not None}


def read(store: Store, name: str) -> dict[str, Any] | None:
    """A claim; None if it is gone meanwhile. What is none of ours lives as long as it is written anew."""
    for pause_s in (0.1, 0.5, None):
        try:
            found = json.loads(store.read(name))
        except OSError:  # an object that goes while it is read is not always said to be absent
            if not store.exists(name):
                return None
            if pause_s is None:
                raise
            time.sleep(pause_s)
        except ValueError:
            return {}
        else:
            break
    return found if isinstance(found, dict) else {}


class Drivers:
    """Whether a driver holds the results, asked again and again. Nothing is written.

    One on another machine lives as long as its claim is seen to be written anew: it counts as dead `SILENT_S` after the last change seen.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._seen: dict[str, tuple[float, float]] = {}  # per claim when it was written last, and when that was seen first

    def is_one_alive(self) -> bool:
        return True in [self._lives(name, written) for name, written in times(self._store).items()]  # all are looked at

    def _lives(self, name: str, written: float) -> bool:
        record = read(self._store, name)
        if record is None:
            return False
        alive = is_alive(record)
        if alive is not None:
            return alive
        if self._seen.get(name, (None,))[0] != written:
            self._seen[name] = written, self._clock()
        return self._clock() - self._seen[name][1] <= SILENT_S


def this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": platform.node(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def is_alive(record: dict[str, Any]) -> bool | None:
    """Whether the process of a claim lives; None where that cannot be seen from here."""
    try:
        if record["machine"] != _machine():
            return None
        return record["started"] is not None and _started(int(record["pid"])) == record["started"]
    except (KeyError, TypeError, ValueError):
        return None


def _machine() -> str:
    """What tells this machine, since its last start, from others; two containers on it are two machines, with processes of their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{platform.node()} {uuid.getnode():x}"


def _started(pid: int) -> str | None:
    """What tells a process from a later one of the same id: its start, in ticks since the machine's. None if there is no such process."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return rest[18] if state not in "ZX" else None
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:  # not Linux
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "unknown"
    return "unknown"
