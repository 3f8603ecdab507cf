"""The map of all networks at the end of training: principal coordinates of their distances, a hull around each family."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial import ConvexHull, QhullError

from analysis import networks
from analysis.chart import Chart, Panel
from analysis.measures.ordination import Ordination
from analysis.measures.similarity import MEASURES
from analysis.question import Asked, Found
from analysis.spreads import divergence_epochs, families
from analysis.svg import Plot, at, extent, family
from analysis.verdict import PRIMARY_MEASURE, PRIMARY_MOMENT
from analysis.wording import counted

MAX_LANDMARKS = 300  # networks that span the axes; the others are put among them, so that time grows with their number and no faster
CHUNK = 300
COLUMNS = ["trial", "schedule", "control", "swapped", "layer", "network", "x", "y", "explained", "num_landmarks", "measure", "estimator"]


def network_map(asked: Asked) -> Found:
    """A point per network, a panel per layer."""
    title = "The map of all networks"
    if asked.moments is not None and PRIMARY_MOMENT not in asked.moments:
        return Found(title, reason=f"The map is of the {PRIMARY_MOMENT} of training, which is not among the moments analysed.")
    table = families(asked.store, asked.only)
    trials = table["trial"].tolist()
    diverged_at = divergence_epochs(asked.store, trials)
    layers = [layer for layer in networks.layers_at_end(asked.store, trials) if asked.layers is None or layer in asked.layers]
    found = [rows for layer in layers if (rows := _placed(asked, trials, layer, diverged_at)) is not None]
    if not found:
        return Found(title, reason="Fewer than two networks have different representations at the end of training.")
    placed = pd.concat(found, ignore_index=True)
    placed = placed.merge(table[["trial", "schedule", "control", "swapped"]], on="trial")[COLUMNS]
    panels = [Panel(_panel(rows, str(layer)), str(layer)) for layer, rows in placed.groupby("layer", sort=False)]
    shares = ", ".join(f"{layer} {rows['explained'].iloc[0]:.0%}" for layer, rows in placed.groupby("layer", sort=False))
    landmarks = int(placed["num_landmarks"].max())
    among = f"of {landmarks} of them, the others put among these by their distances" if landmarks < len(found[0]) else "of them all"
    chart = Chart(
        "network_map",
        "Every network of the sweep, by how it represents the probe samples",
        "Networks that lie close represent the probe samples alike. A wide hull is a family that is spread; hulls of one colour apart from "
        "the others are what the swap itself does to the representation.",
        f"{counted(len(found[0]), 'network')} of {counted(placed['trial'].nunique(), 'family')} at the end of training, those that "
        f"diverged left out; principal coordinates (PCoA, Gower 1966) of {MEASURES[PRIMARY_MEASURE].title} distances {among}; a hull joins "
        f"the outer replicas of a family. Two axes hold this much of the variance and no more: {shares}. There is no interval: it is a "
        "description.",
        panels,
        placed,
        together=True,
    )
    return Found(title, tables={"network_map": placed}, charts=[chart])


def _placed(asked: Asked, trials: list[str], layer: str, diverged_at: dict[str, np.ndarray]) -> pd.DataFrame | None:
    """A row per network that has a place; None where no two differ."""
    X, owner, _ = networks.networks_at_end(asked.store, trials, layer, diverged_at)
    if len(X) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(X) - 1, MAX_LANDMARKS).astype(int))
    measure = MEASURES[PRIMARY_MEASURE]
    try:
        axes = Ordination.of(measure, np.stack([X[i] for i in chosen]), 2)
    except ValueError:
        return None
    parts = [np.stack(X[start : start + CHUNK]) for start in range(0, len(X), CHUNK)]
    points = np.concatenate([axes.place(part, np.ones(len(part), dtype=bool)) for part in parts])
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))  # networks on one line
    rows = pd.DataFrame({"trial": np.array(trials)[owner], "layer": layer, "x": points[:, 0], "y": points[:, 1]})
    rows["network"] = rows.groupby("trial").cumcount()
    rows = rows.assign(explained=axes.explained, num_landmarks=len(axes.landmarks), measure=PRIMARY_MEASURE)
    rows["estimator"] = f"principal coordinates of landmarks, others placed (Gower 1968); {measure.title}"
    return rows[np.isfinite(rows["x"]) & np.isfinite(rows["y"])]


def _panel(rows: pd.DataFrame, layer: str) -> str:
    x, y = extent(rows["x"].to_numpy()), extent(rows["y"].to_numpy())
    plot = Plot(x, y, "principal coordinate 1 (distance)", "principal coordinate 2 (distance)", layer, height=470)
    # One unit is as long across as up: a distance on the map is a distance.
    wide, high = plot.width - plot.left - plot.right, plot.height - plot.top - plot.bottom
    unit = max((x[1] - x[0]) / wide, (y[1] - y[0]) / high)
    plot.x = (sum(x) / 2 - unit * wide / 2, sum(x) / 2 + unit * wide / 2)
    plot.y = (sum(y) / 2 - unit * high / 2, sum(y) / 2 + unit * high / 2)
    for (trial, swapped), own in sorted(rows.groupby(["trial", "swapped"], sort=True), key=lambda item: item[0][1] == "none"):
        across, up = plot.at_x(own["x"].to_numpy()), plot.at_y(own["y"].to_numpy())
        dots = "".join(f"M{a} {b}h0" for a, b in zip(at(across), at(up), strict=True))
        outline = _outline(np.column_stack([across, up]))
        around = "L".join(f"{a} {b}" for a, b in zip(at(across[outline]), at(up[outline]), strict=True))
        plot.add(family(str(trial), swapped, f'<path class="hull" d="M{around}z"/><path class="dots" d="{dots}"/>'))
    return plot.render()


def _outline(points: np.ndarray) -> np.ndarray:
    """Which points `[point, 2]` are the corners of their convex hull, in order; all of them where they have no area."""
    try:
        return ConvexHull(points).vertices if len(points) > 2 else np.arange(len(points))
    except QhullError:
        return np.arange(len(points))
