"""Figures of the order in which examples are learned: statistics over the agreed set, statistics by learning epoch, and the images."""

from __future__ import annotations

import io
from collections.abc import Mapping

import matplotlib.image
import numpy as np
import pandas as pd
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from analysis.drawing import Drawing
from analysis.figures import INK, SWAP_EPOCH_COLOURS, SWAP_EPOCH_MARKERS, canvas, finish, panels
from analysis.measures.image_statistics import STATISTICS
from analysis.measures.order import LAST_HIDDEN_EPOCH, MIN_TPA

SHEET_COLUMNS, SHEET_ROWS = 12, 2


def _label(statistic: str) -> str:
    unit = STATISTICS[statistic].unit
    return f"{statistic} [{unit}]" if unit else statistic


def over_agreed_set(table: pd.DataFrame, chosen: pd.DataFrame, split: str = "train") -> Drawing | None:
    """A panel per statistic: its mean over what all networks get right, at each epoch. Epochs that the paper's masking hides are faint."""
    rows = table[table["trial"].isin(chosen["trial"]) & (table["split"] == split) & table["mean"].notna()]
    statistics = [name for name in STATISTICS if (rows["statistic"] == name).any()]
    if rows["epoch"].nunique() < 2:
        return None
    figure, axes = panels(len(statistics))
    for panel, statistic in zip(axes, statistics, strict=True):
        for index, trial in enumerate(chosen["trial"]):
            part = rows[(rows["trial"] == trial) & (rows["statistic"] == statistic)].sort_values("epoch")
            if part.empty:
                continue
            colour, x, y = SWAP_EPOCH_COLOURS[index], part["epoch"].to_numpy(float), part["mean"].to_numpy(float)
            error, shown = part["standard_error"].to_numpy(float), part["shown"].to_numpy(bool)
            panel.fill_between(x, y - 2 * error, y + 2 * error, color=colour, alpha=0.12, linewidth=0)
            panel.plot(x, y, color=colour, linewidth=1, alpha=0.4)
            panel.plot(x, np.where(shown, y, np.nan), color=colour, marker=SWAP_EPOCH_MARKERS[index], markersize=4, linewidth=2)
            panel.axhline(float(part["mean_all"].iloc[0]), color=INK, linewidth=0.8, linestyle=":")
        panel.set_title(statistic, fontsize=9, color=INK, loc="left")
        panel.set_ylabel(_label(statistic), fontsize=9)
        panel.set_xlabel("epoch", fontsize=9)
    handles = _names(chosen)
    hidden = f"faint: hidden in the source (to epoch {LAST_HIDDEN_EPOCH}, or TPA below {MIN_TPA:.0%})"
    handles.append(Line2D([], [], color=INK, linewidth=1, alpha=0.4, label=hidden))
    handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=1, label="mean over all images"))
    title = f"Mean statistic over the images that all networks get right, {split}; bands: ±2 standard errors of random sets"
    columns = [
        "trial",
        "schedule",
        "statistic",
        "epoch",
        "mean",
        "standard_error",
        "mean_all",
        "num_agreed",
        "tpa",
        "shown",
    ]
    return finish(figure, axes, handles, title, rows[columns])


def against_learning_epoch(
    examples: pd.DataFrame, statistics: Mapping[str, pd.DataFrame], orders: pd.DataFrame, chosen: pd.DataFrame, split: str = "train"
) -> Drawing | None:
    """A panel per statistic: its mean over the images of each median learning epoch, those never learned on the right."""
    drawn = [one for one in chosen.to_dict("records") if one["dataset"] in statistics]
    if not drawn:
        return None
    names = [name for name in STATISTICS if name in statistics[drawn[0]["dataset"]]]
    figure, axes = panels(len(names))
    points = []
    last = max(int(one["num_epochs"]) for one in drawn)
    for panel, name in zip(axes, names, strict=True):
        said = []
        for index, one in enumerate(drawn):
            rows = examples[(examples["trial"] == one["trial"]) & (examples["split"] == split)]
            learned = rows["learning_epoch"].to_numpy(float)
            values = pd.Series(statistics[one["dataset"]].loc[rows["sample"], name].to_numpy(float))
            groups = values.groupby(np.where(np.isinf(learned), last + 1 + last / 20, learned))
            means, errors = groups.mean(), groups.sem()
            columns = {"mean": means, "standard_error": errors, "num_images": groups.size()}
            places = pd.DataFrame(columns).reset_index(names="learning_epoch").assign(statistic=name, control=one["name"])
            points.append(places.assign(learning_epoch=places["learning_epoch"].where(places["learning_epoch"] <= last)))  # NaN: never
            x = means.index.to_numpy(float) + 0.12 * (index - (len(drawn) - 1) / 2)
            panel.errorbar(
                x,
                means,
                yerr=errors.fillna(0.0),
                color=SWAP_EPOCH_COLOURS[index],
                marker=SWAP_EPOCH_MARKERS[index],
                linestyle="",
                markersize=5,
                capsize=2,
                linewidth=1.2,
            )
            row = orders[(orders["trial"] == one["trial"]) & (orders["split"] == split) & (orders["statistic"] == name)]
            said += [f"{r:+.2f} ({w:+.2f})" for r, w in zip(row["rho"], row["rho_within"], strict=True)]
        panel.set_ylabel(_label(name), fontsize=9)
        panel.set_title(f"{name}\nρ (within classes): {', '.join(said).replace('-', '−')}", fontsize=8, color=INK, loc="left")
        step = max(1, last // 5)
        panel.set_xticks([*range(0, last + 1, step), last + 1 + last / 20], [*map(str, range(0, last + 1, step)), "never"])
        panel.set_xlabel("median learning epoch", fontsize=9)
    title = f"Statistic against learning epoch, {split}: means ±1 standard error over images"
    return finish(figure, axes, _names(chosen), title, pd.concat(points, ignore_index=True))


def contact_sheet(examples: pd.DataFrame, pictures: Mapping[int, bytes], split: str, name: str) -> Drawing | None:
    """The images that are learned first and last, of those that thumbnails (`pictures`, PNGs by sample id) were kept of.

    By median learning epoch, then by accessibility. Above each its label, and where label noise struck the one trained on; below the share
    of the networks that are right at the end.
    """
    rows = examples[(examples["split"] == split) & examples["sample"].isin(list(pictures)) & examples["learning_epoch"].notna()]
    rows = rows.sort_values(["learning_epoch", "accessibility", "sample"], ascending=[True, False, True])
    num = min(SHEET_COLUMNS * SHEET_ROWS, len(rows) // 2)
    if num < 1:
        return None
    figure = canvas(SHEET_COLUMNS * 0.78, 2 * SHEET_ROWS * 1.12 + 0.9, 0.04)
    top, bottom = figure.subfigures(2, 1, squeeze=False).ravel()
    _rows_of_images(top, rows.head(num), "learned first", pictures)
    _rows_of_images(bottom, rows.tail(num).iloc[::-1], "learned last", pictures)
    figure.suptitle(f"{name}, {split}: label, and share of the networks that are right at the end", fontsize=10, color=INK)
    columns = ["sample", "label", "label_trained", "learning_epoch", "accessibility", "fraction_correct"]
    return Drawing(figure, pd.concat([rows.head(num), rows.tail(num).iloc[::-1]])[columns])


def _rows_of_images(part: SubFigure, rows: pd.DataFrame, title: str, pictures: Mapping[int, bytes]) -> None:
    epochs = rows["learning_epoch"].replace(np.inf, np.nan)
    never = int(epochs.isna().sum())
    when = f"epochs {epochs.min():g} to {epochs.max():g}" if epochs.notna().any() else ""
    told = ", ".join(filter(None, [when, f"{never} never learned" if never else ""]))
    part.suptitle(f"{title}: {told}", fontsize=10, color=INK, x=0.01, ha="left")
    axes = list(part.subplots(SHEET_ROWS, SHEET_COLUMNS, squeeze=False).flat)
    for panel in axes:
        panel.axis("off")
    for panel, row in zip(axes, rows.to_dict("records"), strict=False):
        image = matplotlib.image.imread(io.BytesIO(pictures[row["sample"]]), format="png")
        panel.imshow(image, cmap="gray", interpolation="none", vmin=0, vmax=1)
        label = f"{row['label']}" + (f"→{row['label_trained']}" if row["label"] != row["label_trained"] else "")
        panel.set_title(f"{label} · {row['fraction_correct']:.0%}", fontsize=7, color=INK, pad=2)


def _names(chosen: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color=SWAP_EPOCH_COLOURS[index], marker=SWAP_EPOCH_MARKERS[index], linewidth=2, label=name)
        for index, name in enumerate(chosen["name"])
    ]
