"""A representation made ready to be compared: centred, of Frobenius norm 1, no wider than it is long; or an orthonormal basis of it."""

from __future__ import annotations

import numpy as np
from scipy.linalg import qr

from analysis.measures.measure import Unfit

# A feature that varies by less than this share of its size varies by no more than a few roundings of float32.
COLLAPSED = 1e-6
# Between these, a sum of squares in float32 has neither overflowed nor lost a part that counts; beyond them it is taken in float64.
TINY, HUGE = 1e-20, 1e30


def real(X: np.ndarray) -> np.ndarray:
    """X in float64 if it is that or integer, else in float32: the precision that it is computed in."""
    return X.astype(np.float32 if X.dtype in (np.float16, np.float32) else np.float64, copy=False)


def centred(X: np.ndarray) -> np.ndarray:
    """Features `[sample, feature]` with mean 0 and Frobenius norm 1. Raises Unfit where a value is not finite or all features are
    constant."""
    X = real(X)
    with np.errstate(all="ignore"):  # what overflows or is not finite shows in the sum of squares
        Z, mean, squares = _moments(X)
        total = squares.sum(dtype=np.float64)
        if not TINY < total < HUGE:
            wide = X.astype(np.float64)
            peak = np.maximum(wide.max(initial=0), -wide.min(initial=0))
            if not np.isfinite(peak):
                raise Unfit("a value is not finite")
            Z, mean, squares = _moments(wide / (peak or 1.0))
            total = squares.sum()
    if np.all(squares <= COLLAPSED**2 * (squares + len(X) * np.float64(mean) ** 2)):
        raise Unfit("every feature is constant over the samples")
    Z *= (1 / np.sqrt(total)).astype(Z.dtype)
    return Z.astype(X.dtype, copy=False)


def _moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred features, their means and their sums of squares `[feature]`."""
    mean = X.mean(axis=0)
    # Centred before anything is squared: a Gram matrix of features far from zero has lost its digits. Twice, because a mean is rounded
    # at its own size, and what that leaves is found at the size of the deviations.
    Z = X - mean
    Z -= Z.mean(axis=0)
    return Z, mean, np.einsum("ij,ij->j", Z, Z)


def narrow(Z: np.ndarray) -> np.ndarray:
    """A factor `[sample, min(sample, feature)]` with the Gram matrix of Z."""
    if Z.shape[1] <= Z.shape[0]:
        return Z
    return np.linalg.qr(Z.T.astype(np.float64)).R.T.astype(Z.dtype)


def basis(Z: np.ndarray) -> np.ndarray:
    """An orthonormal basis `[sample, rank]` of the features, float64.

    Raises Unfit where the features span everything that centred features of so many samples can: then all networks look equal.
    """
    Q, R, _ = qr(narrow(Z).astype(np.float64), mode="economic", pivoting=True, check_finite=False)
    sizes = np.abs(np.diagonal(R))
    rank = int((sizes > sizes[0] * len(Z) * np.finfo(Z.dtype).eps).sum())
    room = len(Z) - 1
    if rank >= room:
        raise Unfit(f"{len(Z)} samples and {Z.shape[1]} features; needs more samples than features, or every network fits every other")
    return np.ascontiguousarray(Q[:, :rank])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[sample, class]`. Raises Unfit where a logit is not finite or there is one class."""
    logits = finite_logits(logits)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def predicted(logits: np.ndarray) -> np.ndarray:
    """Class of each sample, `[sample]`; the first of equals. Raises Unfit where a logit is not finite or there is one class."""
    return finite_logits(logits).argmax(axis=1)


def finite_logits(logits: np.ndarray) -> np.ndarray:
    if logits.shape[1] < 2:
        raise Unfit("needs the logits of at least 2 classes")
    if not np.isfinite(logits).all():
        raise Unfit("a value is not finite")
    return real(logits)
