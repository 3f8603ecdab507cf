"""Figures of the first question, and what all figures share. Drawn on `matplotlib.figure.Figure` objects, without global state."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from analysis.activations import layer_order
from analysis.akp import PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR, at_first_swap
from analysis.drawing import Drawing
from analysis.measures.generalization import PREDICTORS
from analysis.spreads import comparable, spread_title

# Okabe and Ito's palette, told apart with every common colour blindness; the marker says the same again.
SWAPPED = {
    "none": ("no swap (control)", "#000000", "o"),
    "activation": ("activation swapped", "#0072B2", "^"),
    "loss": ("loss swapped", "#D55E00", "s"),
    "both": ("both swapped", "#009E73", "D"),
    "other": ("something else swapped", "#CC79A7", "v"),
}
SWAP_EPOCH_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SWAP_EPOCH_MARKERS = ("o", "s", "^", "D", "v", "P")
MOMENTS = {"before_swap": "before\nswap", "after_swap": "after swap\n(0 steps)", "end": "end"}
INK, GRID = "#222222", "#e4e4e4"
TITLE_CHARACTERS = 55  # of a panel's title, as wide as the panel at 9 points


def gap_against_spread(
    spread_table: pd.DataFrame,
    gap_table: pd.DataFrame,
    association: pd.DataFrame,
    measure: str = PRIMARY_MEASURE,
    moment: str = PRIMARY_MOMENT,
    predictor: str = PRIMARY_PREDICTOR,
) -> Drawing | None:
    """One panel per layer, a point per family with the standard errors of both; None where there is nothing to draw."""
    table = at_first_swap(spread_table).merge(gap_table, on="trial")
    table = table[(table["measure"] == measure) & (table["moment"] == moment)]
    table = table[comparable(table) & np.isfinite(table["spread"]) & np.isfinite(table[predictor])]
    table["swapped"] = table["swapped"].where(table["swapped"].isin(list(SWAPPED)), "other")
    if table.empty:
        return None
    answers = association[
        (association["measure"] == measure) & (association["moment"] == moment) & (association["predictor"] == predictor)
    ].set_index("layer", drop=False)
    layers = layer_order(table)
    figure, axes = panels(len(layers))
    for panel, layer in zip(axes, layers, strict=True):
        here = table[table["layer"] == layer]
        for swapped, (_, colour, marker) in SWAPPED.items():
            points = here[here["swapped"] == swapped]
            panel.errorbar(
                points["spread"],
                points[predictor],
                xerr=points["spread_se"].fillna(0),
                yerr=points[f"{predictor}_se"].fillna(0),
                fmt=marker,
                color=colour,
                ecolor=colour,
                elinewidth=0.7,
                markersize=5,
                markeredgecolor="white",
                markeredgewidth=0.5,
                alpha=0.8,
                zorder=4 if swapped == "none" else 3,
            )
        panel.set_title(_answer(answers.T[layer]), fontsize=9, color=INK, loc="left")
        panel.set_xlabel(f"spread: {spread_title(measure, table)}", fontsize=9)
        panel.set_ylabel(PREDICTORS[predictor], fontsize=9)
    present = [swapped for swapped in SWAPPED if (table["swapped"] == swapped).any()]
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=SWAPPED[s][2],
            color=SWAPPED[s][1],
            markeredgecolor="white",
            markersize=7,
            label=f"{SWAPPED[s][0]} ({families_a_panel(table[table['swapped'] == s], layers)})",
        )
        for s in present
    ]
    return finish(
        figure,
        axes,
        handles,
        f"Gap against spread, moment {moment}: a point is a family, bars are ±1 standard error over replicas",
        table,
    )


def spread_by_moment(spread_table: pd.DataFrame, measure: str = PRIMARY_MEASURE) -> Drawing | None:
    """One panel per layer: spread of the stressed families around their first swap and at the end, by swap epoch.

    Thin lines are families, thick ones means over the families of one swap epoch with their standard error.
    """
    table = at_first_swap(spread_table)
    table = table[(table["measure"] == measure) & table["moment"].isin(list(MOMENTS)) & table["swap_epoch"].notna()]
    table = table[comparable(table) & np.isfinite(table["spread"])]
    if table.empty:
        return None
    layers = layer_order(table)
    swap_epochs = sorted(table["swap_epoch"].unique())
    moments = [moment for moment in MOMENTS if (table["moment"] == moment).any()]
    figure, axes = panels(len(layers))
    for panel, layer in zip(axes, layers, strict=True):
        here = table[table["layer"] == layer]
        for index, swap_epoch in enumerate(swap_epochs):
            colour = SWAP_EPOCH_COLOURS[index % len(SWAP_EPOCH_COLOURS)]
            lines = here[here["swap_epoch"] == swap_epoch].pivot(index="trial", columns="moment", values="spread")
            lines = lines.reindex(columns=moments)
            x = np.arange(len(moments)) + 0.08 * (index - (len(swap_epochs) - 1) / 2)
            panel.plot(x, lines.to_numpy().T, color=colour, linewidth=0.6, alpha=0.18, zorder=2)
            panel.errorbar(
                x,
                lines.mean(),
                yerr=lines.sem().fillna(0),
                color=colour,
                linewidth=2,
                capsize=3,
                zorder=4,
                markersize=6,
                marker=SWAP_EPOCH_MARKERS[index % len(SWAP_EPOCH_MARKERS)],
                markeredgecolor="white",
            )
        panel.set_xticks(range(len(moments)), [MOMENTS[moment] for moment in moments])
        panel.set_xlim(-0.3, len(moments) - 0.7)
        panel.set_title(layer, fontsize=9, color=INK, loc="left")
        panel.set_ylabel(f"spread: {spread_title(measure, table)}", fontsize=9)
    handles = [
        Line2D(
            [],
            [],
            color=SWAP_EPOCH_COLOURS[i % len(SWAP_EPOCH_COLOURS)],
            marker=SWAP_EPOCH_MARKERS[i % len(SWAP_EPOCH_MARKERS)],
            markeredgecolor="white",
            linewidth=2,
            markersize=7,
            label=f"swap at epoch {epoch} ({families_a_panel(table[table['swap_epoch'] == epoch], layers)})",
        )
        for i, epoch in enumerate(swap_epochs)
    ]
    return finish(
        figure,
        axes,
        handles,
        "Spread of stressed families: thin lines are families, thick ones means ±1 standard error over families",
        table,
    )


def _answer(row: pd.Series) -> str:
    if not np.isfinite(row["rho"]):
        return f"{row['layer']}: {row['verdict']}\n{textwrap.fill(row['reason'], TITLE_CHARACTERS)}"
    interval = f"[{row['rho_low']:.2f}, {row['rho_high']:.2f}]"
    return f"{row['layer']}: {row['verdict']}\nρ = {row['rho']:.2f} {interval}, p = {row['p_adjusted']:.2g}, n = {row['num_families']}"


def families_a_panel(rows: pd.DataFrame, layers: list[str]) -> str:
    """How many families the panels of these layers show; the fewest and the most where layers differ."""
    found = rows.groupby("layer")["trial"].nunique().reindex(layers, fill_value=0)
    few, many = int(found.min()), int(found.max())
    return f"{few}" if few == many else f"{few} to {many} a panel"


def canvas(width_in: float, height_in: float, pad_in: float = 0.08) -> Figure:
    """An empty figure that makes room for its titles and labels."""
    figure = Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=pad_in, h_pad=pad_in), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panels(num_panels: int) -> tuple[Figure, list[Axes]]:
    num_columns = min(num_panels, 2)
    num_rows = math.ceil(num_panels / num_columns)
    figure = canvas(4.3 * num_columns, 3.3 * num_rows + 0.9)
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for spare in axes[num_panels:]:
        spare.remove()
    for panel in axes[:num_panels]:
        panel.grid(color=GRID, linewidth=0.7)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8, colors=INK, length=0)
        for side in ("top", "right", "left", "bottom"):
            panel.spines[side].set_visible(False)
    return figure, axes[:num_panels]


def finish(figure: Figure, axes: Sequence[Axes], handles: list[Line2D], title: str, rows: pd.DataFrame) -> Drawing:
    """With its title and key, and the rows that were drawn."""
    # A narrow figure (one panel) takes the title in two lines; the legend takes as many columns as its longest label leaves room for.
    wide = figure.get_figwidth() > 6
    label_inches = 0.085 * max((len(str(handle.get_label())) for handle in handles), default=1) + 0.6
    figure.suptitle(title if wide else title.replace(": ", ":\n", 1), fontsize=10, color=INK)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(len(handles), int(figure.get_figwidth() / label_inches))),
        frameon=False,
        fontsize=9,
    )
    return Drawing(figure, rows, axes)
