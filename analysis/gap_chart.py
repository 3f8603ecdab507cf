"""The central picture: generalization gap against spread, a point per family, a panel per layer and reading of "generalizes badly"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.activations import layer_order
from analysis.chart import Chart, Panel
from analysis.figures import families_a_panel
from analysis.measures.generalization import PREDICTORS
from analysis.spreads import at_first_swap, comparable, spread_title
from analysis.svg import MARKERS, Plot, at, extent, family, kind
from analysis.verdict import PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR, SECONDARY_PREDICTOR
from analysis.wording import counted, told

PREDICTORS_SHOWN = (PRIMARY_PREDICTOR, SECONDARY_PREDICTOR)


def points(spread_table: pd.DataFrame, gap_table: pd.DataFrame, measure: str = PRIMARY_MEASURE) -> pd.DataFrame:
    """A row per family and layer at the end of training: spread and predictors with standard errors. Families must be comparable."""
    rows = at_first_swap(spread_table)
    rows = rows[(rows["measure"] == measure) & (rows["moment"] == PRIMARY_MOMENT)]
    rows = rows[comparable(rows) & np.isfinite(rows["spread"])]
    kept = ["trial", "schedule", "control", "swapped", "swap_epoch", "layer", "spread", "spread_se", "spread_low", "spread_high"]
    errors = [f"{predictor}_se" for predictor in PREDICTORS_SHOWN]
    gaps = gap_table[["trial", *PREDICTORS_SHOWN, *errors, "num_replicas", "num_diverged"]]
    return rows[kept].merge(gaps, on="trial").sort_values(["layer", "trial"], kind="stable", ignore_index=True)


def gap_chart(
    spread_table: pd.DataFrame, gap_table: pd.DataFrame, association: pd.DataFrame, measure: str = PRIMARY_MEASURE
) -> Chart | None:
    """None where no family has both a spread and a gap."""
    rows = points(spread_table, gap_table, measure)
    title = spread_title(measure, spread_table)
    panels = []
    for predictor in PREDICTORS_SHOWN:
        known = rows[np.isfinite(rows[predictor])]
        for layer in [layer for layer in layer_order(spread_table) if (known["layer"] == layer).any()]:
            panels.append(Panel(_panel(known[known["layer"] == layer], predictor, layer, title), layer, predictor))
    if not panels:
        return None
    families = rows.drop_duplicates("trial")
    replicas = "–".join(str(n) for n in sorted({int(families["num_replicas"].min()), int(families["num_replicas"].max())}))
    of_panels = families_a_panel(rows, list(dict.fromkeys(rows["layer"])))
    num_families = counted(len(families), "family") + ("" if of_panels.isdigit() else f" ({of_panels})")
    scheme = association["scheme"]
    return Chart(
        "gap_against_spread",
        "Generalization gap against spread",
        "Each point is a family of networks that differ in nothing but their seed: further right, its networks are further apart inside; "
        "further up, they generalize worse. AKP expects points from the lower left to the upper right.",
        f"{num_families} of {replicas} replicas at the end of training; spread is {title}; bars are ±1 standard error "
        f"over replicas (of spread by jackknife). The verdict does not compare the points as they are but {told(scheme, 'ranked')}, "
        f"{told(scheme, 'aligned')} taken out.",
        panels,
        rows,
    )


def _panel(rows: pd.DataFrame, predictor: str, layer: str, title: str) -> str:
    x, y = rows["spread"].to_numpy(np.float64), rows[predictor].to_numpy(np.float64)
    dx = rows["spread_se"].fillna(0).to_numpy(np.float64)
    dy = rows[f"{predictor}_se"].fillna(0).to_numpy(np.float64)
    plot = Plot(extent(x - dx, x + dx), extent(y - dy, y + dy), f"spread: {title}", PREDICTORS[predictor], layer, height=430)
    left, right, high, low = (at(v) for v in (plot.at_x(x - dx), plot.at_x(x + dx), plot.at_y(y + dy), plot.at_y(y - dy)))
    across, up = at(plot.at_x(x)), at(plot.at_y(y))
    # Controls last, so that they lie on top: there are few of them, and every other family is read against its own.
    order = np.argsort([kind(swapped) == "none" for swapped in rows["swapped"]], kind="stable")
    trials, swaps = rows["trial"].to_numpy(), rows["swapped"].to_numpy()
    for i in order:
        bars = f'<path class="error" d="M{left[i]} {up[i]}H{right[i]}M{across[i]} {high[i]}V{low[i]}"/>'
        marker = f'<path class="point" d="M{across[i]} {up[i]}{MARKERS[kind(swaps[i])]}"/>'
        plot.add(family(trials[i], swaps[i], bars + marker))
    return plot.render()
