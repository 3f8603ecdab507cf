"""One BLAS thread while an analysis is at work: thousands of small products, for which threads cost more than they save."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_limited = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """The number of threads is the process's with most BLAS libraries, and is set back by whoever set it, to what it was then.

    So an analysis that begins beside another one, in a thread, leaves it alone: it would set it back to 1, for ever.
    """
    if not _limited.acquire(blocking=False):
        yield
        return
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        _limited.release()
