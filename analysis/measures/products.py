"""Inner products between all pairs of networks, as few large matrix products with a bound on memory.

A measure of the *signature* class is an inner product of one long vector per network: a matrix over samples, ranks, one-hot
predictions. It is one matrix product, cut along the vectors so that they need never exist in whole. A measure of the *spectral* class
needs the singular values of a matrix per pair; what depends on one network alone is cached, and values are taken without vectors.
Products are in the precision of their inputs and summed over tiles in float64. Memory beyond the factors is a few times TILE_BYTES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import blas, get_lapack_funcs, lapack

if TYPE_CHECKING:
    from analysis.measures.device import Accelerator

TILE_BYTES = 128 * 2**20
SIGNATURE_BYTES = 512 * 2**20
MAX_TERMS = 2**16  # a float32 sum of more terms loses digits

accelerator: Accelerator | None = None  # takes the products while `on` lasts


@contextmanager
def on(device: str) -> Iterator[None]:
    """Products on a torch device such as `cuda` while the context lasts; `cpu` is numpy. Raises ValueError where there is none."""
    global accelerator
    before = accelerator
    if device == "cpu":
        accelerator = None
    else:
        try:
            from analysis.measures.device import Accelerator
        except ModuleNotFoundError as error:
            raise ValueError(f"device {device!r} needs {error.name}, which is not installed; allowed: cpu") from None
        accelerator = Accelerator(device)
    try:
        yield
    finally:
        accelerator = before


def gram_products(factors: Sequence[np.ndarray], finish: Callable[[int, Any], None] | None = None) -> np.ndarray:
    """<K_i, K_j> over the off-diagonal elements of K = X X^T `[sample, sample]`, as `[network, network]`.

    `finish(network, terms)` may change elements of a K in place before they are used. Square tiles of all K at a time, of those on the
    diagonal the triangle alone, so every element is computed once.
    """
    if accelerator is not None:
        return accelerator.gram_products(factors, finish)
    num_networks, num_samples, dtype = len(factors), len(factors[0]), np.result_type(*factors)
    room = max(1, TILE_BYTES // (dtype.itemsize * num_networks))  # terms of each network
    whole = num_samples * (num_samples + 1) // 2
    side = num_samples if whole <= room else isqrt(room)
    buffer = np.empty(num_networks * min(whole, room), dtype)
    starts = range(0, num_samples, side)
    total = np.zeros((num_networks, num_networks))
    for first, second in ((i, j) for i in starts for j in starts if i <= j):
        rows, columns = (min(side, num_samples - start) for start in (first, second))
        num_terms = rows * columns if first < second else rows * (rows + 1) // 2
        tile = buffer[: num_networks * num_terms].reshape(num_networks, num_terms)
        for network, (X, terms) in enumerate(zip(factors, tile, strict=True)):
            if first < second:
                np.matmul(X[first : first + rows], X[second : second + columns].T, out=terms.reshape(rows, columns))
            else:
                _triangle(X[first : first + rows], terms)
            if finish is not None:
                finish(network, terms)
        if first == second:
            tile[:, _diagonal(rows)] = 0
        total += _products(tile)
    return 2.0 * total


def _triangle(X: np.ndarray, out: np.ndarray) -> None:
    """A triangle of X X^T in rectangular full packed format (Gustavson et al. 2010, doi 10.1145/1644001.1644004): BLAS takes half the
    time of a whole product, and nothing is copied."""
    (sfrk,) = get_lapack_funcs(("sfrk",), dtype=out.dtype)
    sfrk(len(X), X.shape[1], 1.0, X.T, 0.0, out, trans="T", overwrite_c=True)


def _diagonal(size: int) -> np.ndarray:
    """Where the diagonal lies in that format."""
    step = (size | 1) + 1
    return (size // 2 + step * np.arange(size // 2 + 1)[:, None] + [0, 1]).ravel()[:size]


def cross_products(factors: Sequence[np.ndarray]) -> np.ndarray:
    """|X_i^T X_j|^2 = <K_i, K_j>, the diagonals of K included, without a matrix over samples: for many samples of few features."""
    total = np.zeros((len(factors), len(factors)))
    for i, others, M in crosses(factors, own=True):
        total[i, others] = total[others, i] = np.einsum("jab,jab->j", M, M, dtype=np.float64)
    return total


def crosses(factors: Sequence[np.ndarray], own: bool = False) -> Iterator[tuple[int, slice, np.ndarray]]:
    """X_i^T X_j of all pairs i < j in batches of networks j: i, the slice of j, and `[j, width of i, largest width]`.

    With `own`, of i = j too. Columns of zeros, which leave norms and spectra as they are, let networks of different width share a batch.
    """
    num_samples, width = len(factors[0]), max(X.shape[1] for X in factors)
    per_batch = max(1, TILE_BYTES // (8 * width * (num_samples + width)))
    for start in range(0, len(factors), per_batch):
        stop = min(start + per_batch, len(factors))
        beside = np.concatenate([np.pad(X, ((0, 0), (0, width - X.shape[1]))) for X in factors[start:stop]], axis=1)
        there = accelerator.put(beside) if accelerator is not None else beside
        for i in range(stop):
            first = max(i if own else i + 1, start)
            if first == stop:
                continue
            columns = there[:, (first - start) * width :]
            M = factors[i].T @ columns if accelerator is None else accelerator.get(accelerator.put(factors[i]).T @ columns)
            yield i, slice(first, stop), M.reshape(-1, stop - first, width).transpose(1, 0, 2)


def nuclear_norms(factors: Sequence[np.ndarray]) -> np.ndarray:
    """|X_i^T X_j|_*, the sum of singular values, `[network, network]`."""
    norms = np.zeros((len(factors), len(factors)))
    for i, others, M in crosses(factors):
        norms[i, others] = norms[others, i] = singular_values(M).sum(axis=1)
    return norms


def singular_values(M: np.ndarray) -> np.ndarray:
    """Singular values `[pair, value]` of M `[pair, row, column]`.

    Of float32, as roots of the eigenvalues of the smaller of M M^T and M^T M in float64: twice as fast, and what squaring loses
    lies below the rounding of M. In float32 it would not. LAPACK by hand, since one triangle of the square is enough.
    """
    if M.dtype == np.float64:
        return np.linalg.svd(M, compute_uv=False)
    num_pairs, rows, columns = M.shape
    squares = np.empty((num_pairs, min(rows, columns)))
    for m, values in zip(M.astype(np.float64), squares, strict=True):
        square = blas.dsyrk(1.0, m.T, trans=rows <= columns, lower=True)
        values[:], *_, failed = lapack.dsyevr(square, compute_v=False, lower=True, overwrite_a=True)
        if failed:
            raise np.linalg.LinAlgError(f"the eigenvalues of a matrix of {len(values)} rows do not converge")
    return np.sqrt(np.maximum(squares, 0.0))


def signature_products(signature: Callable[[int], np.ndarray], num_networks: int) -> np.ndarray:
    """<s_i, s_j> `[network, network]` of signatures that take all of a network to compute, such as ranks.

    Two blocks of networks at a time, the second of one round kept as the first of the next, so that little is computed twice.
    """
    one = signature(0)
    per_block = min(num_networks, max(1, SIGNATURE_BYTES // (2 * one.nbytes)))
    blocks = [range(start, min(start + per_block, num_networks)) for start in range(0, num_networks, per_block)]
    if len(blocks) == 1:
        return _products(_stack(signature, blocks[0], one))
    total = np.zeros((num_networks, num_networks))
    held: dict[int, np.ndarray] = {}
    for first, networks in enumerate(blocks):
        mine = held[first] if first in held else _stack(signature, networks, one)
        total[np.ix_(networks, networks)] = _products(mine)
        for second in [*range(first + 2, len(blocks)), *range(first + 1, min(first + 2, len(blocks)))]:
            held.clear()
            held[second] = _stack(signature, blocks[second], one)
            found = _products(mine, held[second])
            total[np.ix_(networks, blocks[second])], total[np.ix_(blocks[second], networks)] = found, found.T
    return total


def _stack(signature: Callable[[int], np.ndarray], networks: range, like: np.ndarray) -> np.ndarray:
    block = np.empty((len(networks), like.size), like.dtype)
    for row, network in zip(block, networks, strict=True):
        row[:] = signature(network)
    return block


def _products(A: np.ndarray, B: np.ndarray | None = None) -> np.ndarray:
    """A B^T in float64, B = A by default, of signatures `[network, term]`, summed over pieces short enough for their precision."""
    if accelerator is not None:
        return accelerator.products(A, B)
    total = np.zeros((len(A), len(A if B is None else B)))
    step = MAX_TERMS if A.dtype == np.float32 else A.shape[1]
    for start in range(0, A.shape[1], max(step, 1)):
        piece = A[:, start : start + step]
        total += piece @ (piece if B is None else B[:, start : start + step]).T
    return total
