"""Spread across the swap: every stressed family before it, right after it and at the end."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from analysis.activations import layer_order
from analysis.chart import Chart, Panel
from analysis.question import Asked, Found
from analysis.spreads import at_first_swap, comparable, spread_title
from analysis.svg import KINDS, MARKERS, Plot, at, extent, family, kind, text
from analysis.verdict import PRIMARY_MEASURE
from analysis.wording import counted

MOMENTS = {"before_swap": "before the swap", "after_swap": "right after it, 0 steps", "end": "end of training"}


def across_the_swap(asked: Asked) -> Found:
    """A line per stressed family and layer over the moments around its first swap."""
    title = "Spread across the swap"
    rows = at_first_swap(asked.spreads)
    rows = rows[(rows["measure"] == PRIMARY_MEASURE) & rows["moment"].isin(list(MOMENTS)) & rows["swap_epoch"].notna()]
    rows = rows[comparable(rows) & np.isfinite(rows["spread"])]
    moments = [moment for moment in MOMENTS if (rows["moment"] == moment).any()]
    if len(moments) < 2:
        return Found(title, reason=f"No stressed family has a spread by {PRIMARY_MEASURE} at two of the moments {', '.join(MOMENTS)}.")
    layers = layer_order(rows)
    name = spread_title(PRIMARY_MEASURE, rows)
    panels = [Panel(_panel(rows[rows["layer"] == layer], moments, layer, name), layer) for layer in layers]
    chart = Chart(
        "spread_across_the_swap",
        "What the swap does to spread, and what is left of it",
        "Thin lines are families, thick ones means over the families in which the same was swapped. A line that rises at once and falls "
        "again is a family whose networks the swap drove apart and training brought together.",
        f"{counted(rows['trial'].nunique(), 'stressed family')}; spread is {name}; bars on means are ±1 standard error over families. "
        "Families that leave their control at one epoch share their state before the swap, so these lines start at one point.",
        panels,
        rows[["trial", "schedule", "control", "swapped", "swap_epoch", "moment", "layer", "spread", "spread_se", "num_replicas"]],
        together=True,
    )
    return Found(title, charts=[chart])


def _panel(rows: pd.DataFrame, moments: list[str], layer: str, name: str) -> str:
    wide = rows.pivot(index="trial", columns="moment", values="spread").reindex(columns=moments)
    swapped = rows.drop_duplicates("trial").set_index("trial")["swapped"].map(kind)
    ticks = [(float(i), MOMENTS[moment]) for i, moment in enumerate(moments)]
    y = extent(np.append(wide.to_numpy(), 0.0))
    plot = Plot((-0.25, len(moments) - 0.6), y, "", f"spread: {name}", layer, width=590, right=126, bottom=34, x_ticks=ticks)
    across = at(plot.at_x(np.arange(len(moments))))
    for trial, values in zip(wide.index, wide.to_numpy(), strict=True):
        up = at(plot.at_y(values))
        seen = "L".join(f"{x} {v}" for x, v, value in zip(across, up, values, strict=True) if np.isfinite(value))
        plot.add(family(str(trial), swapped[trial], f'<path class="thin" d="M{seen}"/>'))
    present = [key for key in KINDS if (swapped == key).any()]
    ends = np.array([wide.loc[swapped.reindex(wide.index) == key].mean().dropna().iloc[-1] for key in present])
    labels = dict(zip(present, _apart(plot.at_y(ends)), strict=True))
    for index, key in enumerate(present):
        group = wide[swapped.reindex(wide.index) == key]
        mean, error = group.mean().to_numpy(), group.sem().fillna(0).to_numpy()
        x = plot.at_x(np.arange(len(moments))) + 5 * (index - (len(present) - 1) / 2)
        xs, up, high, low = at(x), at(plot.at_y(mean)), at(plot.at_y(mean + error)), at(plot.at_y(mean - error))
        known = [i for i in range(len(moments)) if np.isfinite(mean[i])]
        line = f'<path class="thick" d="M{"L".join(f"{xs[i]} {up[i]}" for i in known)}"/>'
        bars = "".join(f'<path class="interval" d="M{xs[i]} {high[i]}V{low[i]}"/>' for i in known)
        dots = "".join(f'<path class="point" d="M{xs[i]} {up[i]}{MARKERS[key]}"/>' for i in known)
        dots += text(plot.width - plot.right + 14, labels[key] + 4, f"{key} ({len(group)})", "direct", "start")
        plot.add(f'<g class="{key} group" data-kind="{key}" data-say="{KINDS[key]}: mean of {len(group)} families">{line}{bars}{dots}</g>')
    return plot.render()


def _apart(heights: np.ndarray, least: float = 15.0) -> np.ndarray:
    """Heights `[label]` moved down, in their order, until no two labels touch."""
    found = heights.copy()
    order = np.argsort(heights)
    for above, below in pairwise(order):
        found[below] = max(found[below], found[above] + least)
    return found
