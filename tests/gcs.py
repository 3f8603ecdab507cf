"""An emulated Google Cloud Storage on loopback, in a process of its own: pyarrow holds the interpreter's lock while it opens a file."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "our-results"


@contextmanager
def emulated(log: Path) -> Iterator[str]:
    """Its address; it holds one empty bucket, and ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    with log.open("w") as sink, subprocess.Popen([*command, f"--default-bucket={BUCKET}"], stdout=sink, stderr=sink) as server:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
