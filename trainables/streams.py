"""Random streams that depend on nothing but what they are for."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed for `(seed, purpose, epoch)`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()[:8], "big") >> 1


def stream(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator for `(seed, purpose, epoch)`: how a run got there cannot change what it draws."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose, epoch))
