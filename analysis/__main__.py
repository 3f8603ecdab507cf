"""`python -m analysis results/<sweep>`: from the tables to the answer, its tables, figures and page."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import or_
from typing import Any

import pandas as pd
from rich.console import Console

from analysis import figures, report, tables
from analysis.activations import known, recorded
from analysis.akp import (
    PRIMARY_MEASURE,
    PRIMARY_MOMENT,
    PRIMARY_PREDICTOR,
    SECONDARY_PREDICTOR,
    Verdict,
    associations,
    calibrated,
    spreads,
    verdict,
)
from analysis.baselines import baselines
from analysis.console import print_table
from analysis.happiness import contradictions
from analysis.measures.generalization import gaps
from analysis.measures.similarity import DEFAULT_MEASURES, MEASURES, expand
from analysis.networks import compare_networks
from analysis.options import MAX_SEED, number
from analysis.predictors import partials, predictors
from analysis.question import Asked
from analysis.questions import QUESTIONS
from analysis.spreads import families
from analysis.storage import Store
from analysis.union import Union, opened
from analysis.wording import told
from analysis.written import Fill, replace_files

MIN_ALPHA, MIN_PERMUTATIONS = 1e-6, 99  # with fewer permutations no p is below 0.01


def analyse(
    store: Store,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    layers: Collection[str] | None = None,
    moments: Collection[str] | None = None,
    alpha: float = 0.05,
    num_permutations: int = 9999,
    num_dispersion_permutations: int = 999,
    num_shuffles: int = 0,
    seed: int = 0,
    only: Collection[str] | None = None,
    name: str | None = None,
    console: Console | None = None,
) -> Verdict:
    """Answer the question from the tables in `store` and write analysis/*.parquet, figures/*.png and report.html there.

    `measures` are names, or `all`. `layers` and `moments` restrict what is analysed, `only` which families, by default those of the most
    frequent base recipe and probes.
    With `num_shuffles` of each network spreads are calibrated, and what is compared are calibrated spreads, of any width and number of
    samples, so the answer is exploratory; without, they are compared at equal width and number of samples only.
    `name` is what the page calls the results, by default the path of the store relative to here. With a console, prints
    the associations at the end of training, the verdict and what was written. Raises FileNotFoundError where there are
    no families.
    """
    trials = tables.read(store, "trials")
    if trials.empty:
        raise FileNotFoundError(f"{store.root}: no families in trials/, nothing to analyse")
    if families(store, only).empty:
        raise FileNotFoundError(f"{store.root}: of {len(trials)} families in trials/ none is done and has activations, nothing to analyse")
    measures = expand(measures)
    _check_recorded(store, layers, moments, only)
    gap_table = gaps(tables.read(store, "replicas"))
    spread_table = spreads(store, measures, only, layers, moments, num_shuffles=num_shuffles, seed=seed)
    compared = calibrated(spread_table) if num_shuffles else spread_table
    association = associations(compared, gap_table, alpha=alpha, num_permutations=num_permutations, seed=seed)
    happy, annak = compare_networks(
        store,
        gap_table,
        measures,
        only=only,
        layers=layers,
        moments=moments,
        alpha=alpha,
        num_permutations=num_dispersion_permutations,
        seed=seed,
    )
    baseline_table = baselines(store, spread_table["trial"].unique())
    predicted = predictors(store, compared, gap_table, baseline_table)
    partial_table = partials(compared, gap_table, baseline_table, num_permutations=num_permutations, seed=seed)
    answer, other = verdict(association), verdict(association, SECONDARY_PREDICTOR)
    asked = Asked(store, gap_table, spread_table, only, layers, moments, alpha, num_permutations, seed)
    answered = [ask(asked) for ask in QUESTIONS]
    drawn = _draw(compared, gap_table, association)
    found = {
        "spread": spread_table,
        "association": association,
        "happy_unhappy": happy,
        "annak": annak,
        "predictors": predicted,
        "partial": partial_table,
    }
    page = report.render(
        name or _shown(store),
        (answer, other),
        trials,
        compared,
        gap_table,
        association,
        happy,
        annak,
        predicted,
        partial_table,
        drawn,
        answered,
    )
    every_table: dict[str, pd.DataFrame] = reduce(or_, (one.tables for one in answered), found)
    every_figure = reduce(or_, (one.figures for one in answered), drawn)
    files: dict[str, Fill] = {
        f"analysis/{title}.parquet": partial(table.to_parquet, index=False, compression="zstd") for title, table in every_table.items()
    }
    files |= {f"figures/{title}.png": partial(_fill, png) for title, (png, _) in every_figure.items()}
    written = replace_files(store, files | {"report.html": partial(_fill, page.encode())})
    answer = replace(answer, files=written)
    if console is not None:
        _print(console, measures, association, happy, (answer, other), _shown(store), [line for one in answered for line in one.lines])
    return answer


def _fill(data: bytes, sink: Any) -> None:
    sink.write(data)


def _check_recorded(store: Store, layers: Collection[str] | None, moments: Collection[str] | None, only: Collection[str] | None) -> None:
    """Raises UnknownName for a layer or moment that no family has."""
    if layers is None and moments is None:
        return
    found = recorded(store, families(store, only)["trial"].tolist())
    for column, wanted in (("layer", layers), ("moment", moments)):
        for one in wanted or ():
            known(column, one, found[column], store.root)


def _draw(spread_table: pd.DataFrame, gap_table: pd.DataFrame, association: pd.DataFrame) -> dict[str, tuple[bytes, str]]:
    scheme = association["scheme"]
    found = {
        "gap_against_spread": (
            figures.gap_against_spread(spread_table, gap_table, association),
            f"Generalization gap against spread at the end of training, per layer. ρ is the correlation of {told(scheme, 'ranked')} "
            f"({told(scheme, 'aligned')} taken out) with its 95 % bootstrap interval over {told(scheme, 'resampled')}; p is two-sided from "
            f"exchanges of {told(scheme, 'exchanged')}, adjusted over layers by max-T; n counts the families compared. The points are not "
            "aligned.",
        ),
        "spread_by_moment": (
            figures.spread_by_moment(spread_table),
            "Spread of the stressed families just before their first swap, right after it (same weights, new "
            "functions, 0 steps) and at the end, by swap epoch. Families with the same history share their line "
            "before the swap.",
        ),
    }
    return {title: (png, caption) for title, (png, caption) in found.items() if png is not None}


def _shown(store: Store) -> str:
    if not store.is_local:
        return store.root
    relative = os.path.relpath(store.base)
    return store.base if relative.startswith("..") else relative


def _estimate(value: float, low: float, high: float, digits: int) -> str:
    """A number with its interval; a dash where there is none."""
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]" if value == value else "–"


def _print_happy(console: Console, happy: pd.DataFrame) -> None:
    """PERMDISP of happy against unhappy families, for the primary measure."""
    rows = happy[happy["measure"] == PRIMARY_MEASURE]
    if rows.empty:
        return
    first = rows.iloc[0]
    n = f"{report.number(first['num_families_unhappy'])} unhappy less that of {report.number(first['num_families_happy'])} happy families"
    title = f"PERMDISP, {PRIMARY_MEASURE}, moment {PRIMARY_MOMENT}: dispersion of {n}; {first['rule']}"
    print_table(
        console,
        title,
        ["layer", "as they are [95 %]", "aligned [95 %]", "rho", "p", "p place"],
        [
            [
                row["layer"],
                _estimate(row["difference"], row["difference_low"], row["difference_high"], 3),
                _estimate(row["aligned_difference"], row["aligned_difference_low"], row["aligned_difference_high"], 3),
                report.number(row["rho"], 2),
                report.number(row["p_adjusted"], 2),
                report.number(row["p_location_adjusted"], 2),
            ]
            for row in rows.to_dict("records")
        ],
    )
    for line in contradictions(rows):
        console.print(line, markup=False, highlight=False)


def _print(
    console: Console,
    measures: Sequence[str],
    association: pd.DataFrame,
    happy: pd.DataFrame,
    answers: Sequence[Verdict],
    root: str,
    lines: Sequence[str],
) -> None:
    """Both readings of "badly": the gap, on which the verdict was declared, and beside it the test error."""
    shown = (PRIMARY_PREDICTOR, SECONDARY_PREDICTOR)
    rows = association[(association["moment"] == PRIMARY_MOMENT) & association["predictor"].isin(shown)]
    n = rows["num_families"].agg(["min", "max"]).astype(str).drop_duplicates() if len(rows) else ["0"]
    title = f"Spread at the {PRIMARY_MOMENT}: correlation of {told(rows['scheme'], 'ranked')}; n = {' to '.join(n)} families; p by max-T"
    columns, cells = ["measure", "layer", *(text for predictor in shown for text in (f"{predictor} [95 %]", "p"))], []
    for (measure, layer), group in rows.groupby(["measure", "layer"], sort=False):
        texts = [str(measure), str(layer)]
        for _, row in group.set_index("predictor").loc[list(shown)].iterrows():
            texts += [_estimate(row["rho"], row["rho_low"], row["rho_high"], 2), report.number(row["p_adjusted"], 2)]
        cells.append(texts)
    print_table(console, title, columns, cells, num_names=2)
    if absent := sorted({*measures} - {*association["measure"]}):
        console.print(f"Without a layer that they are of (the logits, recorded last): {', '.join(absent)}", highlight=False)
    _print_happy(console, happy)
    for answer in answers:
        console.print(answer.text, markup=False, highlight=False)
    for line in lines:
        console.print(line, markup=False, highlight=False)
    for file in answers[0].files:
        console.print(f"  {root}/{file}", markup=False, highlight=False, soft_wrap=True)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def _measures(text: str) -> list[str]:
    try:
        return expand(_names(text))
    except KeyError as unknown:
        raise argparse.ArgumentTypeError(str(unknown.args[0])) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit code 0 with an answer, 2 where there is nothing to analyse."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["pairs"]:
        from analysis import pairs_command

        return pairs_command.main(words[1:])
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Answer the question from the tables of a sweep.",
        epilog="`python -m analysis pairs --help`: distances between all networks.",
    )
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", help="folder or URI of a sweep's results; several are analysed as one sweep"
    )
    parser.add_argument("--into", metavar="PATH", help="where the analysis goes (default: beside the results; several need it)")
    parser.add_argument(
        "--measures",
        type=_measures,
        default=list(DEFAULT_MEASURES),
        metavar="NAME,...",
        help=f"distances between networks: all, or of {', '.join(MEASURES)} (default: {','.join(DEFAULT_MEASURES)})",
    )
    parser.add_argument("--layers", type=_names, metavar="NAME,...", help="analyse these layers only (default: all recorded)")
    parser.add_argument("--moments", type=_names, metavar="NAME,...", help="analyse these moments only (default: all recorded)")
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
        parser.add_argument(option, type=kind, default=default, metavar="N", help=f"{what} (default: %(default)s)")
    chosen = parser.parse_args(words)
    if len(chosen.results) > 1 and chosen.into is None:
        parser.error("several results need --into PATH, where the analysis of all goes")
    console, began = Console(), time.monotonic()
    try:
        store = opened(chosen.results, chosen.into)
        if isinstance(store, Union):
            console.print(store.text, markup=False, highlight=False, soft_wrap=True)
        analyse(
            store,
            chosen.measures,
            layers=chosen.layers,
            moments=chosen.moments,
            alpha=chosen.alpha,
            num_permutations=chosen.permutations,
            num_shuffles=chosen.calibrate,
            seed=chosen.seed,
            console=console,
        )
        console.print(f"Analysed in {time.monotonic() - began:.1f} s.", highlight=False)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
