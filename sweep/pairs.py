"""`python -m sweep.pairs results/<sweep>`: distances between all networks, its blocks and tiles as Ray tasks.

The same command line and the same tables as `python -m analysis pairs`. With RAY_ADDRESS set the tasks run on that cluster, whose nodes
must all reach the results.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from analysis import pairs_command
from sweep.command_line import guarded, typed

TASKS_PER_CPU = 2  # in flight: one that runs and one that waits, so that results do not pile up


def ray_map(function: Callable[[Any], Any], items: Iterable[Any], num_gpus: int = 0) -> Iterator[Any]:
    """`map` whose calls are Ray tasks of one CPU and so many GPUs; results in the order of the items. Raises what a task raised."""
    import ray

    task = ray.remote(num_cpus=1, num_gpus=num_gpus)(_call)
    shared, there = ray.put(function), ray.cluster_resources()
    if there.get("GPU", 0) < num_gpus:
        raise ValueError("--device: Ray knows of no GPU here; allowed: cpu")
    most = max(1, int(TASKS_PER_CPU * there.get("CPU", 1)))
    running: deque[Any] = deque()

    def oldest() -> Any:
        try:
            return ray.get(running.popleft())
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    for item in items:
        if len(running) == most:
            yield oldest()
        running.append(task.remote(shared, item))
    while running:
        yield oldest()


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


def main(arguments: Sequence[str] | None = None) -> int:
    options = pairs_command.parsed(arguments, "python -m sweep.pairs")
    from sweep.tuner import ray_session  # which `--help` need not wait for

    def call() -> int:
        with ray_session(len(os.sched_getaffinity(0))):
            return pairs_command.run(options, partial(ray_map, num_gpus=int(options.device.startswith("cuda"))))

    return guarded(call, typed("sweep.pairs", sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
