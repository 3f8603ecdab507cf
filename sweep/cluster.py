"""The Ray cluster that a sweep runs on: one that is there, or one of its own on this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LOCAL = "local"  # as RAY_ADDRESS: a Ray of its own, whatever else runs here
DASHBOARD = "http://127.0.0.1:8265"  # on the head, and wherever `ray dashboard cluster.yaml` leads there


def address() -> str | None:
    """The address of the cluster to join: that of RAY_ADDRESS, else of the one that `ray start` made this machine part of. None: neither.

    A cluster of another user is left alone.
    """
    told = os.environ.get("RAY_ADDRESS")
    if told:
        return None if told == LOCAL else told
    note = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "ray_current_cluster")  # where Ray keeps it
    try:
        found = note.read_text(encoding="utf-8").strip() if note.stat().st_uid == os.getuid() else ""
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # no cluster was started here, or one that is not for this user
        return None
    return found if found and answers(found) else None


def answers(address: str) -> bool:
    """Whether something listens at `host:port`; other forms of a Ray address are left to Ray."""
    import socket

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in address:
        return True
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError:
        return False
    return True
