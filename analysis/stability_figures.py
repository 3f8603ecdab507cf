"""Figures of stability to diffeomorphisms. As `analysis.figures`, a drawing or None."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from analysis.drawing import Drawing
from analysis.figures import INK, MOMENTS, SWAP_EPOCH_COLOURS, SWAP_EPOCH_MARKERS, SWAPPED, canvas, finish, panels
from analysis.stability_error import PUBLISHED
from analysis.stability_tables import QUANTITIES, SIZE

_NUM_IMAGES = 4
_ALL_MOMENTS = {"init": "init", **MOMENTS}


def example_warps(warps: pd.DataFrame) -> Drawing | None:
    """The first images as they are, under each law of warps, and with noise as large as the first law's warp; from the table `warps`."""
    shown = warps[warps["image"].notna()]
    laws = list(dict.fromkeys(zip(shown["cut"], shown["displacement_px"], strict=True)))
    if not laws:
        return None
    images = list(dict.fromkeys(shown["sample"]))[:_NUM_IMAGES]
    columns = ["image", *[f"c = {cut}, δ = {px:.3g} px" for cut, px in laws], f"noise as large\nas at δ = {laws[0][1]:.3g} px"]
    figure = canvas(1.45 * len(columns), 1.45 * len(images) + 0.7, 0.02)
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for row, sample in zip(axes, images, strict=True):
        of = [shown[(shown["sample"] == sample) & (shown["cut"] == cut) & (shown["displacement_px"] == px)].iloc[0] for cut, px in laws]
        pictures = [of[0]["image"], *[one["warped"] for one in of], of[0]["noisy"]]
        low, high = np.min(of[0]["image"]), np.max(of[0]["image"])
        for panel, pixels in zip(row, pictures, strict=True):
            picture = np.clip((np.asarray(pixels) - low) / ((high - low) or 1), 0, 1).reshape(of[0]["shape"]).transpose(1, 2, 0)
            panel.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="none")
            panel.set_axis_off()
    for panel, title in zip(axes[0], columns, strict=True):
        panel.set_title(title, fontsize=8, color=INK)
    drawn = shown[shown["sample"].isin(images)]
    return Drawing(figure, drawn[[name for name in drawn if name not in ("image", "warped", "noisy")]])


def against_error(rows: pd.DataFrame, fit: pd.Series, colours: pd.Series | None) -> Drawing | None:
    """Test error over R, both logarithmic: a point per family, the fitted line, and the published one.

    `rows` are of one law and estimator with R of the output (`relative`) and `test_error`; `colours` names what sets families apart
    by trial, or None: then it is what their swap exchanges.
    """
    rows = rows[(rows["relative"] > 0) & (rows["test_error"] > 0)]
    if rows.empty:
        return None
    figure, (panel,) = panels(1)
    figure.set_size_inches(4.8, 4.6)
    group = (
        rows["trial"].map(colours)
        if colours is not None
        else rows["swapped"].map(lambda swapped: SWAPPED.get(swapped, SWAPPED["other"])[0])
    )
    handles = []
    for index, name in enumerate(dict.fromkeys(sorted(group))):
        here = rows[group == name]
        style = _style(index)
        error = [[r - r * np.exp(-s), r * np.exp(s) - r] for r, s in zip(here["relative"], here["relative_se_log"].fillna(0), strict=True)]
        panel.errorbar(
            here["relative"], here["test_error"], xerr=np.array(error).T, linestyle="", elinewidth=0.7, markersize=5,
            markeredgecolor="white", markeredgewidth=0.5, alpha=0.85, **style,
        )  # fmt: skip
        handles.append(Line2D([], [], linestyle="", markersize=7, label=f"{name} ({len(here)})", **style))
    ends = np.array([rows["relative"].min() / 1.3, rows["relative"].max() * 1.3])
    panel.plot(ends, PUBLISHED[0] * ends ** PUBLISHED[1], color=INK, linestyle="--", linewidth=1.2)
    handles.append(Line2D([], [], color=INK, linestyle="--", label="published: 0.2 √R"))
    if np.isfinite(fit["exponent"]):
        panel.plot(ends, fit["factor"] * ends ** fit["exponent"], color="#777777", linewidth=1.2)
        shown = f"{fit['factor']:.2g} R^{fit['exponent']:.2f} [{fit['exponent_low']:.2f}, {fit['exponent_high']:.2f}]"
        handles.append(Line2D([], [], color="#777777", label=f"fit: {shown}"))
    _logarithmic(panel, x=True)
    panel.set_xlabel(f"relative stability R ({fit['estimator']}), c = {fit['cut']}, δ = {fit['displacement_px']:g} px", fontsize=9)
    panel.set_ylabel("test error (fraction)", fontsize=9)
    title = "Test error against relative stability: a point is a family, bars ±1 standard error of R over replicas"
    columns = ["trial", "schedule", "relative", "relative_se_log", "test_error", "num_replicas"]
    return finish(figure, [panel], handles, title, rows[columns].assign(group=group))


def by_layer(rows: pd.DataFrame, models: pd.Series) -> Drawing | None:
    """R over the layers of controls, a panel per model: log means over families, with the range of families, at init and at the end.

    `models` names the model of each trial.
    """
    rows = rows[rows["swap_epoch"].isna() & rows["moment"].isin(["init", "end"]) & (rows["relative"] > 0)]
    if rows.empty:
        return None
    model = rows["trial"].map(models)
    names = list(dict.fromkeys(sorted(model)))
    figure, axes = panels(len(names))
    if len(names) == 1:
        figure.set_size_inches(4.8, 3.9)
    drawn = []
    for panel, name in zip(axes, names, strict=True):
        here = rows[model == name]
        layers = list(dict.fromkeys(here["layer"]))
        for index, moment in enumerate(("init", "end")):
            of = here[here["moment"] == moment].pivot(index="trial", columns="layer", values="relative").reindex(columns=layers).map(np.log)
            mean, low, high = np.exp(of.mean()), np.exp(of.min()), np.exp(of.max())
            x = np.arange(len(layers)) + 0.06 * (2 * index - 1)
            columns = {"model": name, "moment": moment, "mean": mean, "least": low, "largest": high, "num_families": of.notna().sum()}
            drawn.append(pd.DataFrame(columns).reset_index(names="layer"))
            panel.errorbar(x, mean, yerr=[mean - low, high - mean], capsize=3, linewidth=1.6, markersize=6, **_style(index))
        panel.axhline(1, color="#777777", linewidth=0.8)
        _logarithmic(panel)
        panel.set_xticks(range(len(layers)), layers)
        panel.set_title(f"{name} ({here['trial'].nunique()} controls)", fontsize=9, color=INK, loc="left")
        panel.set_ylabel("relative stability R", fontsize=9)
    handles = [Line2D([], [], label=moment, markersize=7, **_style(index)) for index, moment in enumerate(("init", "end"))]
    title = "R by layer: log means over controls, bars from the least to the largest family"
    return finish(figure, axes, handles, title, pd.concat(drawn, ignore_index=True))


def over_training(rows: pd.DataFrame, models: pd.Series) -> Drawing | None:
    """D, G and R of the output at init, around the first swap and at the end, by what the swap exchanges; families as thin lines.

    `models` names the model of each trial: each has a thick line of its own, as a mean over models may lie where no network does.
    """
    first = rows.groupby("trial")["swap_epoch"].transform("first")
    rows = rows[rows["moment"].isin(["init", "end"]) | (rows["epoch"] == first)]
    rows = rows[rows["moment"].isin(list(_ALL_MOMENTS)) & (rows["relative"] > 0)]
    if rows.empty:
        return None
    rows = rows.assign(swapped=rows["swapped"].where(rows["swapped"].isin(list(SWAPPED)), "other"))
    moments = [moment for moment in _ALL_MOMENTS if (rows["moment"] == moment).any()]
    figure, axes = panels(len(QUANTITIES))
    line_styles = dict(zip(sorted(set(rows["trial"].map(models))), cycle(["-", "--", "-.", ":"]), strict=False))
    present = [swapped for swapped in SWAPPED if (rows["swapped"] == swapped).any()]
    for panel, (quantity, letter) in zip(axes, QUANTITIES.items(), strict=True):
        for index, swapped in enumerate(present):
            _, colour, marker = SWAPPED[swapped]
            here = rows[rows["swapped"] == swapped].pivot(index="trial", columns="moment", values=quantity)
            lines = here.reindex(columns=moments).map(np.log)
            known = lines.notna().any().to_numpy()
            x = (np.arange(len(moments)) + 0.06 * (index - (len(present) - 1) / 2))[known]
            panel.plot(x, np.exp(lines.to_numpy()[:, known].T), color=colour, linewidth=0.6, alpha=0.4, zorder=2)
            for name, of in lines.groupby(models.reindex(lines.index)):
                style = {"color": colour, "marker": marker, "linestyle": line_styles[name], "linewidth": 2, "markeredgecolor": "white"}
                panel.plot(x, np.exp(of.mean().to_numpy()[known]), zorder=4, **style)
        _logarithmic(panel)
        panel.set_xticks(range(len(moments)), [_ALL_MOMENTS[moment] for moment in moments])
        panel.set_ylabel({"D": "D: change under warps", "G": "G: change under noise", "R": "R = D / G"}[letter], fontsize=9)
    handles = [
        Line2D([], [], color=SWAPPED[s][1], marker=SWAPPED[s][2], linewidth=2, markeredgecolor="white",
               label=f"{SWAPPED[s][0]} ({rows.loc[rows['swapped'] == s, 'trial'].nunique()})")
        for s in present
    ]  # fmt: skip
    if len(line_styles) > 1:
        handles += [Line2D([], [], color=INK, linestyle=style, linewidth=2, label=name) for name, style in line_styles.items()]
    title = "Stability of the output over training: thin lines are families, thick ones log means"
    drawn = rows[["trial", "schedule", "swapped", "moment", "epoch", *QUANTITIES]].assign(model=rows["trial"].map(models))
    return finish(figure, axes, handles, title, drawn)


def over_sizes(points: pd.DataFrame, slopes: pd.DataFrame) -> Drawing | None:
    """R of the output over the training size: log means with 95 % intervals, a line per group of one law and estimator."""
    if points.empty:
        return None
    others = list(slopes.columns[: list(slopes.columns).index("group") + 1])
    figure, (panel,) = panels(1)
    figure.set_size_inches(4.8, 4.6)
    handles = []
    for index, (key, here) in enumerate(points.groupby(others, sort=False)):
        slope = slopes[(slopes[others] == list(key)).all(axis=1)].iloc[0]
        here = here.sort_values(SIZE)
        bars = [here["relative"] - here["relative_low"], here["relative_high"] - here["relative"]]
        panel.errorbar(here[SIZE], here["relative"], yerr=bars, capsize=3, linewidth=1.6, markersize=6, **_style(index))
        name = ", ".join(map(str, key))
        shown = (
            f"{name} ({slope['num_families']}): P^{slope['exponent']:+.2f} [{slope['exponent_low']:+.2f}, {slope['exponent_high']:+.2f}]"
        )
        handles.append(Line2D([], [], markersize=7, label=shown, **_style(index)))
    panel.axhline(1, color="#777777", linewidth=0.8)
    _logarithmic(panel, x=True)
    panel.set_xlabel("training images P", fontsize=9)
    panel.set_ylabel("relative stability R of the output", fontsize=9)
    title = "R over the size of the training set: log means, 95 % intervals over seeds and families"
    return finish(figure, [panel], handles, title, points)


def _logarithmic(panel: Axes, x: bool = False) -> None:
    """A logarithmic y axis, and x axis if wanted, with plain numbers at 1, 2 and 5 of each decade."""
    panel.set_yscale("log")
    if x:
        panel.set_xscale("log")
    for axis in (panel.yaxis, panel.xaxis)[: 1 + x]:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _style(index: int) -> dict[str, Any]:
    return {"color": SWAP_EPOCH_COLOURS[index % len(SWAP_EPOCH_COLOURS)], "marker": SWAP_EPOCH_MARKERS[index % len(SWAP_EPOCH_MARKERS)]}
