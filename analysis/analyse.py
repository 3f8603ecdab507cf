"""From the tables to the answer, its tables, figures and page."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import or_
from typing import Any

import pandas as pd
from rich.console import Console

from analysis import figures, report, tables
from analysis.activations import known, recorded
from analysis.akp import (
    SECONDARY_PREDICTOR,
    Verdict,
    associations,
    calibrated,
    spreads,
    verdict,
)
from analysis.baselines import baselines
from analysis.chart import too_large
from analysis.console import print_answer
from analysis.gap_chart import gap_chart
from analysis.measures.generalization import gaps
from analysis.measures.similarity import DEFAULT_MEASURES, expand
from analysis.networks import compare_networks
from analysis.one_thread import one_blas_thread
from analysis.predictor_chart import predictor_chart
from analysis.predictors import partials, predictors
from analysis.question import Asked
from analysis.questions import PICTURES, QUESTIONS
from analysis.spreads import families
from analysis.storage import Store
from analysis.written import Fill, replace_files


@one_blas_thread()
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
    before_writing: Callable[[], None] | None = None,
) -> Verdict:
    """Answer the question from the tables in `store` and write analysis/*.parquet, figures/* and report.html there.

    `measures` are names, or `all`. `layers` and `moments` restrict what is analysed, `only` which families, by default those of the most
    frequent base recipe and probes.
    With `num_shuffles` of each network spreads are calibrated, and what is compared are calibrated spreads, of any width and number of
    samples, so the answer is exploratory; without, they are compared at equal width and number of samples only.
    `name` is what the page calls the results, by default the path of the store relative to here. With a console, prints
    the associations at the end of training, the verdict and what was written. `before_writing` is called
    when all is computed, and may raise. Raises FileNotFoundError where there are no families.
    """
    trials = tables.read(store, "trials")
    if trials.empty:
        raise FileNotFoundError(f"{store.root}: no families in trials/, nothing to analyse")
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
    found = {
        "spread": spread_table,
        "association": association,
        "happy_unhappy": happy,
        "annak": annak,
        "predictors": predicted,
        "partial": partial_table,
    }
    central, beside = gap_chart(compared, gap_table, association), predictor_chart(predicted)
    pictures = [draw(replace(asked, spreads=compared)) for draw in PICTURES]
    page = report.render(
        report.Everything(
            name or _shown(store),
            (answer, other),
            trials,
            tables.read(store, "replicas"),
            tables.read(store, "runs"),
            store.read("sweep.yaml").decode(errors="replace") if store.exists("sweep.yaml") else "",
            compared,
            gap_table,
            association,
            happy,
            annak,
            predicted,
            partial_table,
            central,
            beside,
            pictures,
            answered,
        )
    )
    charts = [chart for chart in (central, beside) if chart is not None] + [chart for one in pictures + answered for chart in one.charts]
    pngs = _pngs(compared, gap_table, association) | {chart.name: chart.png for chart in charts if chart.png}
    every_table: dict[str, pd.DataFrame] = reduce(or_, (one.tables for one in (*pictures, *answered)), found)
    every_table = too_large(charts) | every_table
    files: dict[str, Fill] = {
        f"analysis/{title}.parquet": partial(table.to_parquet, index=False, compression="zstd") for title, table in every_table.items()
    }
    files |= {f"figures/{chart.name}.svg": partial(_fill, chart.file()) for chart in charts}
    files |= {f"figures/{title}.png": partial(_fill, png) for title, png in pngs.items()}
    if before_writing is not None:
        before_writing()
    written = replace_files(store, files | {"report.html": partial(_fill, page.encode())})
    answer = replace(answer, files=written)
    if console is not None:
        print_answer(
            console, measures, association, happy, (answer, other), _shown(store), [line for one in answered for line in one.lines]
        )
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


def _pngs(spread_table: pd.DataFrame, gap_table: pd.DataFrame, association: pd.DataFrame) -> dict[str, bytes]:
    """Twins of the charts of the first question, for where no SVG can be shown."""
    drawn = {
        "gap_against_spread": figures.gap_against_spread(spread_table, gap_table, association),
        "spread_by_moment": figures.spread_by_moment(spread_table),
    }
    return {name: drawing.png() for name, drawing in drawn.items() if drawing is not None}


def _shown(store: Store) -> str:
    if not store.is_local:
        return store.root
    relative = os.path.relpath(store.base)
    return store.base if relative.startswith("..") else relative
