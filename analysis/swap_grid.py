"""Heat maps of gap and spread: when the swap came against what was in force before and after it."""

from __future__ import annotations

from html import escape
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd

from analysis.activations import layer_order
from analysis.chart import Chart, Panel
from analysis.html import number
from analysis.measures.generalization import PREDICTORS
from analysis.question import Asked, Found
from analysis.spreads import FAMILY_COLUMNS, comparable, families, spread_title
from analysis.svg import element, text
from analysis.verdict import PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR
from analysis.wording import counted

MAX_ROWS = 80
LEFT, CELL, ROW, TOP = 190, 62, 19, 62
KEYS = ["control_phase", "after", "swap_epoch"]
COLUMNS = ["trial", "schedule", "swapped", *KEYS, "quantity", "layer", "value", "error", "num_replicas"]


def by_swap(asked: Asked) -> Found:
    """Mean gap, and mean spread at the end per layer, per pair of functions before and after and epoch of the first swap."""
    title = "By swap epoch and functions"
    trials = families(asked.store, asked.only)
    if trials["swap_epoch"].isna().all():
        return Found(title, reason="No family of this analysis has a swap.")
    cells = trials[FAMILY_COLUMNS].merge(asked.gaps[["trial", PRIMARY_PREDICTOR, f"{PRIMARY_PREDICTOR}_se", "num_replicas"]], on="trial")
    phases = cells["schedule"].str.split(" ")
    cells["control_phase"] = phases.str[0].str.split(":", n=1).str[1]
    cells["after"] = [_after(words) for words in phases]
    gap = cells.assign(layer="", value=cells[PRIMARY_PREDICTOR], error=cells[f"{PRIMARY_PREDICTOR}_se"], quantity=PRIMARY_PREDICTOR)
    spread = asked.spreads[(asked.spreads["measure"] == PRIMARY_MEASURE) & (asked.spreads["moment"] == PRIMARY_MOMENT)]
    spread = spread.loc[comparable(spread), ["trial", "layer", "spread", "spread_se"]]
    spread = spread.rename(columns={"spread": "value", "spread_se": "error"})
    name = spread_title(PRIMARY_MEASURE, asked.spreads)
    drawn = pd.concat([gap, cells.merge(spread, on="trial").assign(quantity="spread")], ignore_index=True)
    drawn = drawn.loc[
        np.isfinite(drawn["value"]), ["trial", "schedule", "swapped", *KEYS, "quantity", "layer", "value", "error", "num_replicas"]
    ]
    if drawn["swap_epoch"].isna().all():
        return Found(title, reason="No family with a swap has a gap or a spread.")
    pairs = cells.loc[cells["after"] != "", ["control_phase", "after"]].drop_duplicates().sort_values(["control_phase", "after"])
    left_out = f" {len(pairs) - MAX_ROWS} further pairs are in the data only." if len(pairs) > MAX_ROWS else ""
    pairs = pairs.head(MAX_ROWS)
    epochs = sorted(int(epoch) for epoch in cells["swap_epoch"].dropna().unique())
    layers = layer_order(drawn[drawn["layer"] != ""])
    labels = {"": PREDICTORS[PRIMARY_PREDICTOR]} | {layer: f"spread in {layer}: {name}" for layer in layers}
    panels = [
        Panel(_map(drawn[drawn["layer"] == layer], pairs, epochs, label), layer)
        for layer, label in labels.items()
        if (drawn["layer"] == layer).any()
    ]
    and_spread = f"or of spread, {name} at the end of training" if layers else f"as there is no spread by {PRIMARY_MEASURE} at the end"
    chart = Chart(
        "gap_and_spread_by_swap",
        "When the swap came, and from what to what",
        "Look along a row for what the time of the swap does, and down a column for what the functions do; the first column is the "
        "control of the row, without a swap. Where gap is dark and spread is bright, families that generalize well are far apart.",
        f"{counted(drawn['trial'].nunique(), 'family')}; a cell is the mean over the families of its pair and first swap epoch, of "
        f"{PRIMARY_PREDICTOR}, itself a mean over replicas, {and_spread}. Standard errors over replicas are told at each family, and are "
        f"in the data.{left_out}",
        panels,
        drawn,
    )
    return Found(title, charts=[chart])


def _after(phases: list[str]) -> str:
    """The functions after the first swap; of a pulse also what follows, with the epochs between."""
    told = []
    for before, phase in pairwise(phases[1:]):
        told.append(f", then +{int(phase.split(':')[0]) - int(before.split(':')[0])}: {phase.split(':', 1)[1]}")
    return "" if len(phases) < 2 else phases[1].split(":", 1)[1] + "".join(told)


def _map(rows: pd.DataFrame, pairs: pd.DataFrame, epochs: list[int], label: str) -> str:
    """One heat map: rows grouped by the functions before, a column for the control and one per swap epoch."""
    low, high = float(rows["value"].min()), float(rows["value"].max())
    of = dict(iter(rows.assign(swap_epoch=rows["swap_epoch"].fillna(-1).astype(int)).groupby(KEYS)))
    width = LEFT + CELL * (1 + len(epochs)) + 10
    parts = [text(0, 15, label, "title", "start"), text(LEFT + CELL * (1 + len(epochs) / 2), 36, "epoch of the first swap", "label")]
    parts += [text(LEFT + CELL * (i + 0.5), 54, word) for i, word in enumerate(["none", *(str(epoch) for epoch in epochs)])]
    y = TOP
    for before, group in pairs.groupby("control_phase", sort=False):
        parts.append(text(0, y + 14, str(before), "head", "start"))
        y += ROW
        for after in group["after"]:
            parts.append(text(LEFT - 8, y + 14, f"→ {_changed(str(before), str(after))}", "row", "end"))
            for column, epoch in enumerate([-1, *epochs]):
                own = of.get((before, "" if epoch < 0 else after, epoch))
                if own is not None:
                    parts.append(_cell(own, LEFT + CELL * column, y, low, high))
            y += ROW
        y += 5
    steps = 40
    for step in range(steps):
        colour = _colour(step / (steps - 1))[0]
        parts.append(f'<rect x="{LEFT + step * 5}" y="{y + 8}" width="5.2" height="9" fill="{colour}"/>')
    parts += [text(LEFT, y + 31, number(low), anchor="start"), text(LEFT + 5 * steps, y + 31, number(high), anchor="end")]
    return element(width, y + 38, "".join(parts), label, " wide")


def _cell(own: pd.DataFrame, x: float, y: float, low: float, high: float) -> str:
    value = float(own["value"].mean())
    colour, ink = _colour((value - low) / (high - low) if high > low else 0.5)
    who = f'data-f="{escape(" ".join(own["trial"]))}"'
    body = f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{ROW - 2}" fill="{colour}"/>'
    return f'<g class="cell" {who}>{body}{text(x + CELL / 2 - 1, y + 13, _short(value), ink)}</g>'


def _colour(share: float) -> tuple[str, str]:
    """Cividis, which reads alike with every common colour blindness, and which ink is seen on it."""
    rgba = matplotlib.colormaps["cividis"](share)
    return matplotlib.colors.to_hex(rgba), "dark" if np.dot(rgba[:3], (0.299, 0.587, 0.114)) > 0.5 else "light"


def _short(value: float) -> str:
    """Without the 0 before the point; a value that rounds to zero has no sign."""
    words = f"{round(value, 3) + 0.0:.3f}".replace("0.", ".", 1) if abs(value) < 1 else number(value)
    return words.replace("-", "−")


def _changed(before: str, after: str) -> str:
    """The functions after, less those that stayed: activation/loss, where only the loss changed, is loss."""
    first, _, then = after.partition(",")
    old, new = before.split("/"), first.split("/")
    kept = "/".join(n for n, o in zip(new, old, strict=False) if n != o) if len(old) == len(new) else first
    return (kept or first) + (f",{then}" if then else "")
