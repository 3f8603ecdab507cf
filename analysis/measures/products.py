"""Inner products between all pairs of networks, as few large matrix products with a bound on memory.

A measure of the *signature* class is an inner product of one long vector per network: a matrix over samples, ranks, one-hot
predictions. It is one matrix product, cut along the vectors so that they need never exist in whole. A measure of the *spectral* class
needs the singular values of a matrix per pair; what depends on one network alone is cached, and values are taken without vectors.
Products are in the precision of their inputs and summed over tiles in float64. Memory beyond the factors is a few times TILE_BYTES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

TILE_BYTES = 128 * 2**20
SIGNATURE_BYTES = 512 * 2**20
MAX_STRIP = 256  # rows: more waste products below the diagonal, fewer starve the matrix product
MAX_TERMS = 2**16  # a float32 sum of more terms loses digits


def gram_products(factors: Sequence[np.ndarray], finish: Callable[[int, np.ndarray], None] | None = None) -> np.ndarray:
    """<K_i, K_j> over the off-diagonal elements of K = X X^T `[sample, sample]`, as `[network, network]`.

    `finish(network, block)` may change a block of K in place before it is used. Strips of rows of all K at a time, each from its
    diagonal to the right, so every element is computed once.
    """
    num_networks, num_samples, dtype = len(factors), len(factors[0]), np.result_type(*factors)
    height = int(np.clip(TILE_BYTES // (dtype.itemsize * num_networks * num_samples), 1, min(num_samples, MAX_STRIP)))
    buffer = np.empty(num_networks * height * num_samples, dtype)
    above = np.triu(np.ones((height, height), dtype), 1)
    total = np.zeros((num_networks, num_networks))
    for start in range(0, num_samples, height):
        rows, columns = min(height, num_samples - start), num_samples - start
        strip = buffer[: num_networks * rows * columns].reshape(num_networks, rows, columns)
        for network, (X, block) in enumerate(zip(factors, strip, strict=True)):
            np.matmul(X[start : start + rows], X[start:].T, out=block)
            if finish is not None:
                finish(network, block)
        strip[:, :, :rows] *= above[:rows, :rows]
        total += _products(strip.reshape(num_networks, -1))
    return 2.0 * total


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
        for i in range(stop):
            first = max(i if own else i + 1, start)
            if first == stop:
                continue
            M = factors[i].T @ beside[:, (first - start) * width :]
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
    lies below the rounding of M. In float32 it would not.
    """
    if M.dtype == np.float64:
        return np.linalg.svd(M, compute_uv=False)
    M = M.astype(np.float64)
    square = M @ M.transpose(0, 2, 1) if M.shape[1] <= M.shape[2] else M.transpose(0, 2, 1) @ M
    return np.sqrt(np.maximum(np.linalg.eigvalsh(square), 0.0))


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
    total = np.zeros((len(A), len(A if B is None else B)))
    step = MAX_TERMS if A.dtype == np.float32 else A.shape[1]
    for start in range(0, A.shape[1], max(step, 1)):
        piece = A[:, start : start + step]
        total += piece @ (piece if B is None else B[:, start : start + step]).T
    return total
