"""`python -m analysis results/<sweep>`: the command line of the analysis."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from analysis.analyse import analyse
from analysis.measures.similarity import DEFAULT_MEASURES, MEASURES, expand
from analysis.options import MAX_SEED, number
from analysis.union import Union, opened
from analysis.watch import watch

MIN_ALPHA, MIN_PERMUTATIONS = 1e-6, 99  # with fewer permutations no p is below 0.01


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def _measures(text: str) -> list[str]:
    try:
        return expand(_names(text))
    except KeyError as unknown:
        raise argparse.ArgumentTypeError(str(unknown.args[0])) from None


def parser() -> argparse.ArgumentParser:
    """The command line, but for `pairs`."""
    found = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Answer the question from the tables of a sweep.",
        epilog="`python -m analysis pairs --help`: distances between all networks.",
    )
    found.add_argument(
        "results", nargs="+", metavar="RESULTS", help="folder or URI of a sweep's results; several are analysed as one sweep"
    )
    found.add_argument("--into", metavar="PATH", help="where the analysis goes (default: beside the results; several need it)")
    found.add_argument(
        "--measures",
        type=_measures,
        default=list(DEFAULT_MEASURES),
        metavar="NAME,...",
        help=f"distances between networks: all, or of {', '.join(MEASURES)} (default: {','.join(DEFAULT_MEASURES)})",
    )
    found.add_argument("--layers", type=_names, metavar="NAME,...", help="analyse these layers only (default: all recorded)")
    found.add_argument("--moments", type=_names, metavar="NAME,...", help="analyse these moments only (default: all recorded)")
    for option, kind, default, what in (
        ("--alpha", number(float, MIN_ALPHA, 1 - MIN_ALPHA), 0.05, "level of the verdicts"),
        ("--permutations", number(int, MIN_PERMUTATIONS, 10**6), 9999, "permutations for p"),
        (
            "--calibrate",
            number(int, 0, 10**6),
            0,
            "compare spreads calibrated by so many shuffles of each network's samples, at any width; exploratory; 0 compares raw spreads",
        ),
        ("--seed", number(int, 0, MAX_SEED), 0, "seed of permutations and bootstraps"),
    ):
        found.add_argument(option, type=kind, default=default, metavar="N", help=f"{what} (default: %(default)s)")
    found.add_argument(
        "--watch",
        nargs="?",
        type=number(float, 1, 86_400),
        const=30.0,
        metavar="SECONDS",
        help="analyse anew whenever families have finished, looking every so many seconds (default: 30), until the sweep's run ends",
    )
    found.add_argument("--quiet", action="store_true", help="print nothing but what went wrong")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit code 0 with an answer, 2 where there is nothing to analyse, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _main(words)
    except KeyboardInterrupt:
        print(f"stopped. To go on: {shlex.join(['python', '-m', 'analysis', *words])}", file=sys.stderr)
        return 130


def _main(words: list[str]) -> int:
    if words[:1] == ["pairs"]:
        from analysis import pairs_command

        return pairs_command.main(words[1:])
    asked = parser()
    chosen = asked.parse_args(words)
    if len(chosen.results) > 1 and chosen.into is None:
        asked.error("several results need --into PATH, where the analysis of all goes")
    if chosen.watch and (len(chosen.results) > 1 or chosen.into is not None):
        asked.error("--watch is for the results of one sweep, in their own place: one RESULTS, and no --into")
    console, began = Console(quiet=chosen.quiet), time.monotonic()
    try:
        store = opened(chosen.results, chosen.into)
        if isinstance(store, Union):
            console.print(store.text, markup=False, highlight=False, soft_wrap=True)
        answer = partial(
            analyse,
            store,
            chosen.measures,
            layers=chosen.layers,
            moments=chosen.moments,
            alpha=chosen.alpha,
            num_permutations=chosen.permutations,
            num_shuffles=chosen.calibrate,
            seed=chosen.seed,
        )
        if chosen.watch:
            os.nice(10)  # the sweep comes first
            say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
            watch(store, lambda before_writing: answer(before_writing=before_writing), say, chosen.watch)
            return 0
        answer(console=console)
        console.print(f"Analysed in {time.monotonic() - began:.1f} s.", highlight=False)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
