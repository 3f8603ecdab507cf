"""Figures of what changes: families after their swap, and spread over sizes. As `analysis.figures`, a drawing or None."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import t as student

from analysis.activations import layer_order
from analysis.akp import CONFIDENCE, PRIMARY_MEASURE, PRIMARY_PREDICTOR
from analysis.drawing import Drawing
from analysis.figures import INK, SWAP_EPOCH_COLOURS, SWAP_EPOCH_MARKERS, SWAPPED, families_a_panel, finish, panels
from analysis.measures.generalization import PREDICTORS
from analysis.measures.similarity import MEASURES

_GROUPS = {"controls": SWAPPED["none"][1:], "stressed": ("#D55E00", "s")}
_AXES = {"data.train_size": "training images", "model.widths": "width (geometric mean)"}


def after_swap(table: pd.DataFrame, measure: str = PRIMARY_MEASURE) -> Drawing | None:
    """Gap, then spread per layer, over epochs: means over the families of one swap epoch, with t intervals over families.

    Families that swap more than once are left out.
    """
    table = table[table["num_swaps"] <= 1]
    looks = table[table["layer"].notna() & (table["measure"] == measure) & np.isfinite(table["spread"])]
    swap_epochs = sorted(table["swap_epoch"].dropna().unique())
    if looks.empty or not swap_epochs:
        return None
    layers = layer_order(looks)
    figure, axes = panels(1 + len(layers))
    whole = table[table["layer"].isna() & np.isfinite(table[PRIMARY_PREDICTOR])]
    shown = [(whole, PRIMARY_PREDICTOR, PREDICTORS[PRIMARY_PREDICTOR], "generalization gap")]
    shown += [(looks[looks["layer"] == layer], "spread", f"spread: {MEASURES[measure].spread_title}", layer) for layer in layers]
    drawn = []
    for panel, (rows, column, label, title) in zip(axes, shown, strict=True):
        at_swap = (rows["moment"] == "epoch") & (rows["epoch"] == rows["swap_epoch"])  # metrics of an epoch come before its swap
        controls = rows[rows["swap_epoch"].isna() | (rows["moment"] == "before_swap") | at_swap]  # before its swap it is its control
        controls = controls.assign(trial=controls["control"]).drop_duplicates(["trial", "epoch"])
        of = _over_epochs(panel, controls, column, "#000000", "o", -0.06)
        drawn.append(of.assign(panel=title, quantity=column, families="controls"))
        for index, epoch in enumerate(swap_epochs):
            colour, marker = _look(index)
            panel.axvline(epoch, color=colour, linewidth=0.8, linestyle=":", zorder=1)
            rows_here = rows[(rows["swap_epoch"] == epoch) & (rows["epoch"] >= epoch)]
            of = _over_epochs(panel, rows_here, column, colour, marker, 0.06 * index)
            drawn.append(of.assign(panel=title, quantity=column, families=f"swap at epoch {epoch}"))
        panel.set_title(title, fontsize=9, color=INK, loc="left")
        panel.set_ylabel(label, fontsize=9)
        panel.set_xlabel("epoch", fontsize=9)
    handles = [_handle("#000000", "o", f"controls ({families_a_panel(looks[looks['swap_epoch'].isna()], layers)})")]
    for index, epoch in enumerate(swap_epochs):
        here = families_a_panel(looks[looks["swap_epoch"] == epoch], layers)
        handles.append(_handle(*_look(index), f"swap at epoch {epoch} ({here})"))
    title = f"Families after their swap: means over families, {CONFIDENCE:.0%} t intervals"
    return finish(figure, axes, handles, title, pd.concat(drawn, ignore_index=True))


def _over_epochs(panel: Axes, rows: pd.DataFrame, column: str, colour: str, marker: str, shift: float) -> pd.DataFrame:
    """Means over families in order of time, and where they were drawn; before and after a swap stand at the same epoch."""
    order = {"init": 0, "epoch": 1, "before_swap": 1, "after_swap": 2, "end": 1}  # what stands at one place is the same state
    keyed = rows.assign(place=rows["epoch"] + 0.1 * (rows["moment"].map(order) == 2))
    found = keyed.groupby(["trial", "place"])[column].first().groupby("place").agg(["mean", "sem", "count"])
    reach = student.ppf((1 + CONFIDENCE) / 2, np.maximum(found["count"] - 1, 1)) * found["sem"].fillna(0)
    style: dict[str, Any] = {
        "color": colour,
        "linewidth": 1.4,
        "capsize": 2,
        "elinewidth": 0.8,
        "markersize": 4.5,
        "markeredgecolor": "white",
    }
    panel.errorbar(found.index + shift, found["mean"], yerr=reach, marker=marker, markeredgewidth=0.5, zorder=3, **style)
    reach = np.where(found["count"] > 1, reach, np.nan)
    ends = {"low": found["mean"] - reach, "high": found["mean"] + reach}
    found = found.assign(**ends).rename(columns={"count": "num_families"}).drop(columns="sem").reset_index(names="place")
    found.insert(0, "epoch", np.floor(found["place"] + 0.01))
    return found.assign(after_swap=found.pop("place") > found["epoch"] + 0.05)


def spread_over_sizes(fits: pd.DataFrame, spreads: pd.DataFrame, axis: str, measure: str = PRIMARY_MEASURE) -> Drawing | None:
    """One panel per layer: mean spread at each size with its interval, the fitted law, and the statement, for each group."""
    fits = fits[(fits["axis"] == axis) & (fits["measure"] == measure)]
    spreads = spreads[(spreads["axis"] == axis) & (spreads["measure"] == measure)]
    if spreads.empty:
        return None
    layers = list(dict.fromkeys(spreads["layer"]))
    figure, axes = panels(len(layers))
    for panel, layer in zip(axes, layers, strict=True):
        lines = [layer]
        for group, (colour, marker) in _GROUPS.items():
            points = spreads[(spreads["layer"] == layer) & (spreads["group"] == group)]
            law = fits[(fits["layer"] == layer) & (fits["group"] == group)]
            if points.empty:
                continue
            sizes, found = points["size"].to_numpy(), law.iloc[0]
            ends = np.abs(points[["spread_low", "spread_high"]].to_numpy().T - points["spread"].to_numpy())
            style: dict[str, Any] = {"color": colour, "capsize": 3, "markersize": 5.5, "markeredgecolor": "white", "elinewidth": 0.9}
            panel.errorbar(sizes, points["spread"], yerr=ends, fmt=marker, zorder=3, **style)
            fine = np.geomspace(sizes.min(), sizes.max(), 100)
            panel.plot(fine, found["s_inf"] + found["a"] * (fine / found["n_0"]) ** -found["b"], color=colour, linewidth=1.4)
            lines.append(f"{group}: {found['statement']}, limit {found['s_inf']:.2f} [{found['s_inf_low']:.2f}, {found['s_inf_high']:.2f}]")
        panel.set_xscale("log", base=2)
        ticks = sorted(spreads["size"].unique())
        panel.set_xticks(ticks, [f"{size:g}" for size in ticks])
        panel.minorticks_off()
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
        panel.set_title("\n".join(lines), fontsize=8, color=INK, loc="left")
        panel.set_xlabel(_AXES.get(axis, axis), fontsize=9)
        panel.set_ylabel(f"spread: {MEASURES[measure].spread_title}", fontsize=9)
    counts = spreads.groupby("group")["num_families"].max()
    handles = [_handle(*_GROUPS[g], f"{g} ({counts[g]} families at each size)") for g in _GROUPS if g in counts.index]
    title = f"Spread at the end over {axis}: mean over families, {CONFIDENCE:.0%} bootstrap intervals, fitted s_inf + a n^-b"
    law = ["layer", "group", "s_inf", "s_inf_low", "s_inf_high", "a", "b", "n_0", "statement"]
    return finish(figure, axes, handles, title, spreads.merge(fits[law], on=["layer", "group"], how="left"))


def _look(index: int) -> tuple[str, str]:
    """Colour and marker of a swap epoch; the first marker is the controls'."""
    return SWAP_EPOCH_COLOURS[index % len(SWAP_EPOCH_COLOURS)], SWAP_EPOCH_MARKERS[(index + 1) % len(SWAP_EPOCH_MARKERS)]


def _handle(colour: str, marker: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, markeredgecolor="white", linewidth=1.4, markersize=6, label=label)
