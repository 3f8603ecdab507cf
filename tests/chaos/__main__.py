"""`python -m tests.chaos --rounds 100 [--seed S] [--faults kind,...] [--sweep search] [--jobs J]`: faults against a running sweep at
random moments.

After its faults, each round starts the same command again until it is done, and compares all tables with those of an undisturbed sweep.
Round i has seed S + i, and `--rounds 1 --seed <that>` (with the same `--faults`) does it again. J rounds go on at the same time.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager

from tests.aws import REGION, emulated
from tests.chaos.faults import FAULTS
from tests.chaos.rounds import LIMIT_S, Round, run
from tests.chaos.sweeps import SWEEPS, Driver, Place, place


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=_kinds, default=list(FAULTS), metavar="KIND,...", help=f"of {', '.join(FAULTS)}; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="rounds at the same time; default: 1")
    parser.add_argument("--sweep", choices=list(SWEEPS), default="grid", help="a grid, or a search with Optuna; default: grid")
    options = parser.parse_args(arguments)
    if "disk" in options.faults and os.geteuid() != 0:
        parser.error("--faults: disk needs a small tmpfs, which root alone may mount; name the others")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what runs, and unmounts
    with undisturbed(options.sweep) as (reference, url):
        survived = rounds(reference, url, range(options.seed, options.seed + options.rounds), options.faults, options.jobs)
    print(f"{survived} rounds survived of {options.rounds}")
    return 0 if survived == options.rounds else 1


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    if unknown := sorted(set(kinds) - set(FAULTS)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no fault; allowed: {', '.join(FAULTS)}")
    return kinds


@contextmanager
def undisturbed(sweep: str = "grid") -> Iterator[tuple[Place, str]]:
    """A finished sweep that nothing befell, and the URL of an S3 server for the rounds to come."""
    import boto3

    with emulated() as environment, place("disk", None, "undisturbed", sweep=sweep) as reference:
        before = dict(os.environ)
        os.environ.update({key: value for key, value in environment.items() if key != "AWS_ENDPOINT_URL"})
        try:
            url = environment["AWS_ENDPOINT_URL"]
            there = boto3.client("s3", endpoint_url=url)
            there.create_bucket(Bucket="our-results", CreateBucketConfiguration={"LocationConstraint": REGION})
            driver = Driver(reference)
            if driver.wait(LIMIT_S) != 0:
                raise SystemExit(f"the undisturbed sweep fails: {driver.output}")
            yield reference, url
        finally:
            os.environ.clear()
            os.environ.update(before)


def rounds(reference: Place, url: str, seeds: Sequence[int], kinds: Sequence[str], jobs: int = 1) -> int:
    """Do rounds, so many at the same time, and print a line of each. Returns how many were survived."""
    num_files, survived, by_fault = reference.num_files(), 0, Counter[str]()

    def done(seed: int) -> tuple[str, str | None, list[str]]:
        planned, began = Round.of(seed, kinds), time.monotonic()
        problem, befell = run(planned, reference, num_files, url)
        verdict = "survived" if problem is None else "NOT survived"
        return f"seed {seed:<6} {planned}: {verdict}, {time.monotonic() - began:.0f} s", problem, befell

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for ended in as_completed([pool.submit(done, seed) for seed in seeds]):
                line, problem, befell = ended.result()
                survived += problem is None
                print("\n".join([line, *([problem] if problem else [])]), flush=True)
                by_fault.update(befell)
        finally:  # where something is wrong no further round begins
            pool.shutdown(wait=False, cancel_futures=True)
    print("what befell them: " + ", ".join(f"{count} {fault}" for fault, count in by_fault.most_common()))
    return survived


if __name__ == "__main__":
    sys.exit(main())
