"""How products are rounded: float32, tf32 on a GPU's tensor cores, or bf16 by autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bf16"]


def check_precision(precision: Precision, device: str) -> None:
    """Refuse a precision that this kind of device lacks. Raises ValueError."""
    if precision == "tf32" and device != "cuda":
        raise ValueError("precision tf32 has no effect on a CPU: it is a mode of GPUs; allowed there: float32, bf16")


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """tf32 for what runs inside if that is asked for, and float32 in full otherwise: torch's own default for convolutions is tf32."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """For a forward pass. Nothing cast is kept, as weights change between two of them."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
