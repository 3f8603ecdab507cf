"""Pictures of extrapolation: distances by layer beside their null, images with their projections, and decisions on the way in."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.drawing import Drawing
from analysis.figures import INK, SWAP_EPOCH_COLOURS, canvas, finish, panels
from analysis.hull_tables import NULL, PIXELS, SAMPLE

NUM_IMAGES, MAX_LINES, MAX_STEPS = 6, 30, 200
_CURVES: dict[str, tuple[str, str, Any]] = {  # what is drawn of each layer: label, colour, line style
    "before": ("before the swap", SWAP_EPOCH_COLOURS[4], "-"),
    "correct": ("end, predicted correctly", SWAP_EPOCH_COLOURS[0], "-"),
    "wrong": ("end, predicted wrongly", SWAP_EPOCH_COLOURS[1], "-"),
    "null": ("Gaussian null, end", "#000000", ":"),
}


def distances(asked: pd.DataFrame) -> Drawing | None:
    """One panel per layer: the share of samples nearer to the hull than a relative distance, over the networks of one size on one training
    set: the largest where there are several, since those of other sizes have other distances altogether."""
    if asked.empty:
        return None
    size = asked.sort_values(["train_size", "num_parameters"]).iloc[-1]
    asked = asked[(asked["train_size"] == size["train_size"]) & (asked["num_parameters"] == size["num_parameters"])]
    layers = list(dict.fromkeys(asked["layer"]))
    figure, axes = panels(len(layers))
    drawn = []
    for panel, layer in zip(axes, layers, strict=True):
        here = asked[asked["layer"] == layer]
        end, before = here[here["moment"] == "end"], here[here["moment"] == "before_swap"]
        samples, null = end[end["kind"] == SAMPLE], end[end["kind"] == NULL]
        curves = {
            "before": _weighted(before[before["kind"] == SAMPLE], "nearest", "num"),
            "correct": (_right(samples), samples["num"] - samples["wrong"]),
            "wrong": _weighted(samples, "nearest_wrong", "wrong"),
            "null": _weighted(null, "nearest", "num"),
        }
        for name, (total, weight) in curves.items():
            if layer == PIXELS and name == "before":
                continue  # images do not change
            _, colour, style = _CURVES[name]
            steps = _cumulative(panel, total.to_numpy(), weight.to_numpy(), colour, style)
            drawn.append(steps.assign(layer=layer, curve=_CURVES[name][0]))
        panel.set_title(f"{layer}: {_share(samples)} outside, null {_share(null)}", fontsize=9, color=INK, loc="left")
        panel.set_xlabel("distance to the hull / distance to the nearest point", fontsize=9)
        panel.set_ylabel("share of samples", fontsize=9)
        panel.set_ylim(0, 1.02)
        panel.set_xlim(-0.02, 1.0)
    handles = [Line2D([], [], color=colour, linestyle=style, linewidth=2, label=label) for label, colour, style in _CURVES.values()]
    which = f"{asked['trial'].nunique()} families of {size['num_parameters']:,} parameters on {size['train_size']:,} images"
    title = f"Distance to the hull of the training set: cumulative share of probe samples\n{which}"
    return finish(figure, axes, handles, title, pd.concat(drawn, ignore_index=True).assign(families=which))


def _right(samples: pd.DataFrame) -> pd.Series:
    return samples["nearest"] - samples["nearest_wrong"]


def _weighted(rows: pd.DataFrame, total: str, weight: str) -> tuple[pd.Series, pd.Series]:
    return rows[total], rows[weight]


def _cumulative(panel: Axes, total: np.ndarray, weight: np.ndarray, colour: str, style: str) -> pd.DataFrame:
    """The cumulative distribution of total / weight, each counted by its weight, and what was drawn of it: steps enough for the eye."""
    there = weight > 0
    if not there.any():
        return pd.DataFrame({"distance": [], "share": []})
    values, weight = total[there] / weight[there], weight[there]
    order = np.argsort(values)
    share = np.cumsum(weight[order]) / weight.sum()
    kept = np.unique(np.linspace(0, len(order) - 1, MAX_STEPS).round().astype(int))
    x, y = np.r_[0, values[order][kept]], np.r_[0, share[kept]]
    panel.step(x, y, where="post", color=colour, linestyle=style, linewidth=1.8)
    return pd.DataFrame({"distance": x, "share": y})


def _share(rows: pd.DataFrame) -> str:
    return f"{rows['outside'].sum() / rows['num'].sum():.0%}" if len(rows) else "–"


def images(pixels: pd.DataFrame) -> Drawing | None:
    """Columns of probe images from the relatively nearest to the farthest: the image, its projection, and the direction between them."""
    shown = pixels[pixels["image"].notna()].copy()
    if shown.empty:
        return None
    nearest = shown["nearest_distance"]
    shown["relative"] = (shown["distance"] / nearest.where(nearest > 0)).fillna(0.0)
    shown = shown.sort_values("relative", ignore_index=True)
    chosen = shown.iloc[np.unique(np.linspace(0, len(shown) - 1, NUM_IMAGES).round().astype(int))]
    figure = canvas(1.5 * len(chosen) + 0.6, 5.2, 0.04)
    axes = figure.subplots(3, len(chosen), squeeze=False)
    for column, row in enumerate(chosen.to_dict("records")):
        image, projection = (np.asarray(row[name], np.float64).reshape(row["shape"]).transpose(1, 2, 0) for name in ("image", "projection"))
        low, high = min(image.min(), projection.min()), max(image.max(), projection.max())
        difference = image - projection
        largest = float(np.abs(difference).max()) or 1.0
        for panel, picture in zip(axes[:2, column], (image, projection), strict=True):
            panel.imshow(((picture - low) / (high - low or 1.0)).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="none")
        axes[2, column].imshow(difference.mean(axis=2), cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="none")
        axes[0, column].set_title(
            f"class {row['label']:.0f}\n{row['relative']:.2f} of nearest\n{row['support_size']} points", fontsize=8, color=INK
        )
    for panel, name in zip(axes[:, 0], ("image", "projection", "image − projection"), strict=True):
        panel.set_ylabel(name, fontsize=9)
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    figure.suptitle("Images and their nearest points in the hull of the training images", fontsize=10, color=INK)
    return Drawing(figure, chosen[["dataset", "sample", "label", "relative", "distance", "nearest_distance", "support_size"]])


def crossings(rows: pd.DataFrame, layers: pd.DataFrame) -> Drawing | None:
    """One panel per layer: the ways of samples of one network whose predicted class changes before their projection.

    `rows` are those of `hull` of one replica at the end; `layers` are those of `extrapolation_layers` whose numbers stand in the titles.
    """
    rows = rows[(rows["kind"] == SAMPLE) & rows["crossings"].notna()]
    names = list(dict.fromkeys(rows["layer"]))
    if not names:
        return None
    numbers = layers[(layers["moment"] == "end") & (layers["group"] == "all")].set_index("layer")
    figure, axes = panels(len(names))
    drawn = []
    for panel, layer in zip(axes, names, strict=True):
        here = rows[(rows["layer"] == layer) & (rows["crossings"].map(len) > 0)]
        num_crossing, num_samples = len(here), (rows["layer"] == layer).sum()
        here = here.assign(first=[places[0] for places in here["crossings"]]).sort_values("first").head(MAX_LINES)
        for line, row in enumerate(here.to_dict("records")):
            places = np.r_[0.0, row["crossings"], 1.0]
            drawn += [{"layer": layer, "line": line, "crossing": number, "at": at} for number, at in enumerate(row["crossings"])]
            for index, (start, end) in enumerate(pairwise(places)):
                colour = SWAP_EPOCH_COLOURS[0] if index == 0 else SWAP_EPOCH_COLOURS[1 + (index - 1) % 5]
                panel.plot([start, end], [line, line], color=colour, linewidth=1.6, solid_capstyle="butt")
            panel.plot(row["crossings"], [line] * len(row["crossings"]), "|", color=INK, markersize=5)
        if here.empty:
            panel.text(0.5, 2, "no sample's class changes", ha="center", fontsize=9, color=INK)
        known = (
            f"{numbers.loc[layer, 'changed']:.0%} change, {numbers.loc[layer, 'crossings']:.2f} crossings each"
            if layer in numbers.index
            else ""
        )
        panel.set_title(f"{layer}: {known}", fontsize=9, color=INK, loc="left")
        panel.set_xlabel("from the sample (0) to its projection (1)", fontsize=9)
        panel.set_ylabel(f"{num_crossing} of {num_samples} samples of one network", fontsize=9)
        panel.set_yticks([])
        panel.set_xlim(-0.01, 1.01)
        panel.set_ylim(-1, max(len(here), 5))
    labels = ("class predicted for the sample", "behind the first crossing", "behind the second")
    handles = [Line2D([], [], color=colour, linewidth=2, label=label) for label, colour in zip(labels, SWAP_EPOCH_COLOURS, strict=False)]
    title = "Decision boundaries on the way into the hull: a line is a sample; titles are over all networks"
    return finish(figure, axes, handles, title, pd.DataFrame(drawn))
