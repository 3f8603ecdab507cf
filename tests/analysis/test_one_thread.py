"""One BLAS thread for an analysis, and as many as before when all have ended."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from analysis.one_thread import one_blas_thread


def num_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"}


@pytest.fixture
def two():
    """A process with two threads of OpenBLAS, whatever the machine has."""
    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(2, user_api="blas"):
        if num_threads() != {2}:
            pytest.skip("NumPy's BLAS is not OpenBLAS")
    before = num_threads()
    started = threading.Thread(target=lambda: threadpool_limits(2, user_api="blas"))
    started.start()  # by a thread that has ended, so that any other may set them
    started.join()
    assert num_threads() == {2}
    yield
    for number in before:
        threadpool_limits(number, user_api="blas")


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_analyses_that_overlap_leave_as_many_threads_as_there_were(two, first_to_end):
    """The second began with one thread, which is not what it may leave behind."""
    entered, may_end = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
    seen: dict[int, set[int]] = {}

    @one_blas_thread()
    def analyse(number: int) -> None:
        seen[number] = num_threads()
        entered[number].set()
        may_end[number].wait(10)

    threads = [threading.Thread(target=analyse, args=(number,)) for number in range(2)]
    for number, thread in enumerate(threads):
        thread.start()
        entered[number].wait(10)
    for number in (first_to_end, 1 - first_to_end):
        may_end[number].set()
        threads[number].join(10)
    assert seen == {0: {1}, 1: {1}}
    assert num_threads() == {2}


def test_an_analysis_that_fails_gives_them_back(two):
    def analyse():
        with one_blas_thread():
            assert num_threads() == {1}
            raise ValueError("no families")

    for _ in range(2):
        with pytest.raises(ValueError, match="no families"):
            analyse()
        assert num_threads() == {2}
