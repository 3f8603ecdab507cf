"""Loops as machine code, for what is no array operation. Importing this does not import numba, which takes half a second; using it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., None], **options: Any) -> Any:
    """A function on arrays, by numba, run without the interpreter's lock; compiled at its first call with arrays of such types.

    The code is kept beside the function's file, in the user's cache where that is read-only, else in this process only.
    """
    from numba import njit

    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep it
        return njit(nogil=True, **options)(function)
