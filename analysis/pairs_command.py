"""`python -m analysis pairs results/<sweep>`: distances between all networks, to analysis/pairs_*.parquet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from analysis.activations import chosen, recorded
from analysis.akp import families
from analysis.all_pairs import MAX_BYTES, MIN_BYTES, Map, all_pairs
from analysis.logits import logits
from analysis.measures.similarity import MEASURES
from analysis.options import number
from analysis.storage import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit code 0 when everything is written, 2 where something named is not there."""
    return run(parsed(arguments, "python -m analysis pairs"))


def parsed(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog=prog, description="Distances between all networks of a sweep, in bounded memory.")
    parser.add_argument("results", help="folder or URI of a sweep's results")
    parser.add_argument("--measure", default="cka", metavar="NAME", help=f"one of {', '.join(MEASURES)} (default: %(default)s)")
    parser.add_argument("--layer", action="append", metavar="NAME", help="a layer, may be repeated (default: all, one after the other)")
    parser.add_argument(
        "--moment", default="end", metavar="NAME", help="init, before_swap, after_swap, epoch or end (default: %(default)s)"
    )
    parser.add_argument("--epoch", type=number(int, 0, 10**9), help="epoch of the moment, where it has several (default: the first swap's)")
    parser.add_argument(
        "--max-gb",
        type=number(float, MIN_BYTES / 1e9, 1e6),
        default=MAX_BYTES / 1e9,
        metavar="GB",
        help="arrays held at once by a task (default: %(default).3g)",
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="of the matrix products: cpu, cuda, cuda:1 (default: %(default)s)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, map: Map = map) -> int:
    """Compute, write and tell, layer by layer."""
    console = Console()
    try:
        store = Store(options.results)
        layers = options.layer or _layers(store, options.moment, options.epoch)
        if MEASURES.resolve(options.measure).kind == "functional":
            layers = [_of_answers(store, options.measure, options.layer)]
        for layer in layers:
            found = all_pairs(
                store,
                options.measure,
                layer,
                options.moment,
                epoch=options.epoch,
                max_bytes=int(options.max_gb * 1e9),
                device=options.device,
                map=map,
                console=console,
            )
            dropped = found.networks["dropped"]
            told = f"{len(dropped)} networks of {found.networks['trial'].nunique()} families, {int(dropped.sum())} dropped"
            left = (
                f"; {found.num_left_out} families left out (another recipe or probes, or not at this moment)" if found.num_left_out else ""
            )
            console.print(f"{found.write(store)}: {told}, {found.seconds:.1f} s{left}", markup=False, highlight=False, soft_wrap=True)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _of_answers(store: Store, measure: str, wanted: list[str] | None) -> str:
    """The layer of the logits, the only one for measures of what networks answer. Raises ValueError where another is wanted."""
    trials = families(store)
    layer = logits(store, trials["trial"].iloc[0], trials["dataset"].iloc[0]).layer if len(trials) else None
    if layer is None or (wanted and wanted != [layer]):
        there = layer or "none, the logits were not recorded"
        raise ValueError(f"{measure} compares what networks answer: layer {', '.join(wanted or ['(all)'])} is refused; allowed: {there}")
    return layer


def _layers(store: Store, moment: str, epoch: int | None) -> list[str]:
    """The layers recorded at a moment."""
    found = recorded(store, families(store)["trial"].tolist())
    if found.empty:
        raise FileNotFoundError(f"{store.root}: no families with activations")
    at_moment = found[found["moment"] == moment]
    if at_moment.empty:
        chosen(found, found["layer"].iloc[0], moment, epoch, store.root)  # says which moments there are
    return list(at_moment["layer"].unique())
