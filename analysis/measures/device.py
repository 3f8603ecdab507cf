"""Products of all pairs on an accelerator: the steps of products.py and neighbours.py that are matrix products, by torch on a device.

What is no matrix product, such as ranks, distances and spectra, stays where it is. In float32 torch must not round products to fewer
bits: the default of `torch.set_float32_matmul_precision`, "highest".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from analysis.measures import products


class Accelerator:
    """A torch device that takes products. Arrays go in and come out on the host; the factors of a call and a few times TILE_BYTES
    lie on the device while it lasts."""

    def __init__(self, name: str) -> None:
        """Raises ValueError where there is no such device."""
        try:
            self.device = torch.device(name)
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:  # the second of a torch that was built without CUDA
            there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
            raise ValueError(f"device {name!r} is not there: {str(error).splitlines()[0]}; allowed: {', '.join(there)}") from None

    def put(self, X: np.ndarray | torch.Tensor) -> torch.Tensor:
        """X on the device."""
        return torch.as_tensor(X, device=self.device)

    def get(self, X: np.ndarray | torch.Tensor) -> np.ndarray:
        """X on the host."""
        return np.asarray(self.put(X).cpu())

    def gram_products(self, factors: Sequence[np.ndarray], finish: Callable[[int, Any], None] | None = None) -> np.ndarray:
        """`products.gram_products`, in strips of rows of all K, each from its diagonal to the right."""
        there, num_samples = [self.put(X) for X in factors], len(factors[0])
        dtype = self.put(np.empty(0, np.result_type(*factors))).dtype
        height = max(1, products.TILE_BYTES // (dtype.itemsize * len(there) * num_samples))
        total = np.zeros((len(there), len(there)))
        for start in range(0, num_samples, height):
            rows = min(height, num_samples - start)
            strip = torch.empty((len(there), rows, num_samples - start), dtype=dtype, device=self.device)
            for network, (X, block) in enumerate(zip(there, strip, strict=True)):
                block[:] = X[start : start + rows] @ X[start:].T
                if finish is not None:
                    finish(network, block)
            total += self.products(strip.triu_(1).reshape(len(there), -1))
        return 2.0 * total

    def products(self, A: np.ndarray | torch.Tensor, B: np.ndarray | torch.Tensor | None = None) -> np.ndarray:
        """A B^T in float64, B = A by default, of signatures `[network, term]`, as products.py sums them."""
        A = self.put(A)
        B = A if B is None else self.put(B)
        total = torch.zeros((len(A), len(B)), dtype=torch.float64, device=self.device)
        step = products.MAX_TERMS if A.dtype == torch.float32 else A.shape[1]
        for start in range(0, A.shape[1], max(step, 1)):
            total += A[:, start : start + step] @ B[:, start : start + step].T
        return self.get(total)

    def leading(self, some: np.ndarray, Z: np.ndarray, squares: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k samples nearest to each of `some`, which are the `rows` of Z, in ascending order, and how near, `[row, k]`."""
        nearness = self.put(some) @ self.put(Z).T
        nearness -= self.put(squares / 2)
        nearness[torch.arange(len(rows), device=self.device), self.put(rows)] = -torch.inf
        columns = torch.topk(nearness, k, dim=1).indices.sort(dim=1).values
        return self.get(columns), self.get(nearness.gather(1, columns))
