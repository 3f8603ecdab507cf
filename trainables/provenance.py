"""Where and with what a family was trained."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("karenina-sweep", "torch", "torchvision", "ray", "numpy", "pyarrow", "pandas")


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """Versions, hardware, and the commit with a hash of what differs from it (null outside a git checkout)."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    commit = _git("rev-parse", "HEAD")
    changes = _git("diff", "HEAD") if commit else None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit,
        "uncommitted": hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else None,
        "processor": _processor(),
        "num_threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
