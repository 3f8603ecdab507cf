"""Figures of agreement: curves with bounds and baselines, how many networks get an example right, agreement across a swap and across
architectures."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.agreement import SPLITS
from analysis.drawing import Drawing
from analysis.figures import INK, SWAP_EPOCH_COLOURS, SWAP_EPOCH_MARKERS, SWAPPED, finish, panels
from analysis.measures.agreement import correctness, is_present
from analysis.predictions import Load

MAX_CONTROLS, MAX_PANELS = 3, 6
WHICH = (
    f"the first control of each architecture and level of label noise, {MAX_CONTROLS} at most; the first few where there is one of these"
)
PAIRS: dict[str, tuple[str, str, str, Any]] = {
    "within": ("two networks of the family", "#D55E00", "s", "-"),
    "within_other": ("two of the other", "#000000", "o", "-"),
    "other_seeds": ("one of each, other seeds", "#0072B2", "^", "-"),
    "same_seed": ("one of each, same seed", "#009E73", "D", "--"),
}


def representatives(trials: pd.DataFrame) -> pd.DataFrame:
    """A few controls to draw: the first of each architecture and level of label noise; where there is one of these, the first few."""
    controls = trials[trials["swap_epoch"].isna()].sort_values(["schedule", "trial"])
    first = controls.drop_duplicates(["architecture", "label_noise"])
    chosen = controls if len(first) < 2 else first.sort_values(["architecture", "label_noise"])
    return chosen.head(MAX_CONTROLS).assign(name=lambda rows: [_name(row, trials) for row in rows.to_dict("records")])


def _name(row: dict[Any, Any], trials: pd.DataFrame) -> str:
    parts = [row["architecture"]] if trials["architecture"].nunique() > 1 else []
    parts += [f"label noise {row['label_noise']:g}"] if trials["label_noise"].nunique() > 1 else []
    return ", ".join([*parts, str(row["schedule"]).partition(":")[2]])


def agreement_curves(table: pd.DataFrame, chosen: pd.DataFrame) -> Drawing | None:
    """A panel per control and split, as in the source: TPA with its interval, the lower bound, hatched between, and the baselines."""
    rows = table[(table["alignment"] == "epoch") & (table["labels"] == "trained") & table["tpa"].notna()]
    drawn = []
    for one, split in product(chosen.to_dict("records"), SPLITS):
        part = rows[(rows["trial"] == one["trial"]) & (rows["split"] == split)].sort_values("epoch")
        if len(part) > 1:
            drawn.append((f"{one['name']}\n{split} ({part['num_replicas'].max()} networks, {part['num_samples'].max()} images)", part))
    if not drawn:
        return None
    figure, axes = panels(len(drawn))
    for panel, (title, part) in zip(axes, drawn, strict=True):
        x = part["epoch"].to_numpy(float)
        names = ("tpa", "tpa_low", "tpa_high", "lower_bound", "independence", "null_within_mean", "accuracy")
        y = {name: part[name].to_numpy(float) for name in names}
        panel.fill_between(x, y["lower_bound"], y["tpa"], facecolor="none", edgecolor="#0072B2", hatch="////", linewidth=0, alpha=0.25)
        panel.fill_between(x, y["tpa_low"], y["tpa_high"], color="#0072B2", alpha=0.2, linewidth=0)
        panel.plot(x, y["accuracy"], color="#777777", linewidth=1.2)
        panel.plot(x, y["tpa"], color="#0072B2", marker="o", markersize=3, linewidth=2)
        panel.plot(x, y["lower_bound"], color="#0072B2", linestyle=":", linewidth=1.5)
        panel.plot(x, y["independence"], color="#D55E00", linestyle="--", linewidth=1.5)
        panel.plot(x, y["null_within_mean"], color="#009E73", linestyle="-.", linewidth=1.5)
        panel.set_ylim(-0.02, 1.02)
        panel.set_ylabel("share of the images", fontsize=9)
        panel.set_title(title, fontsize=9, color=INK, loc="left")
        panel.set_xlabel("epoch", fontsize=9)
    lines: list[tuple[str, str, Any]] = [
        ("agreement (TPA), 95 % interval", "#0072B2", "-"),
        ("its lower bound", "#0072B2", ":"),
        ("independent networks", "#D55E00", "--"),
        ("permuted within classes", "#009E73", "-."),
        ("mean accuracy", "#777777", "-"),
    ]
    handles = [Line2D([], [], color=colour, linestyle=style, linewidth=2, label=label) for label, colour, style in lines]
    columns = ["trial", "schedule", "architecture", "label_noise", "split", "epoch", *names, "num_replicas", "num_samples"]
    rows = pd.concat([part[columns] for _, part in drawn], ignore_index=True)
    return finish(figure, axes, handles, "Agreement: all networks right over any right", rows)


def bimodality(load: Load, chosen: pd.DataFrame, split: str = "test") -> Drawing | None:
    """A panel per epoch: the share of examples that so many of the networks get right, and of networks that are independent."""
    found = [(one["name"], load(one["trial"], split).at_epochs) for one in chosen.to_dict("records")]
    found = [(name, one) for name, one in found if is_present(one.predicted).sum(axis=0).min(initial=99) > 1 and len(one.epochs) > 1]
    if not found:
        return None
    times = found[0][1].epochs
    shown = [int(times[index]) for index in sorted({1, len(times) // 4, len(times) // 2, len(times) - 1}) if 0 < index < len(times)]
    figure, axes = panels(len(shown))
    drawn = []
    for panel, epoch in zip(axes, shown, strict=True):
        for index, (name, one) in enumerate(found):
            if epoch not in one.epochs:
                continue
            at = int(np.flatnonzero(one.epochs == epoch)[0])
            right = correctness(one.predicted, one.labels)[is_present(one.predicted)[:, at], at]
            number = np.arange(len(right) + 1)
            observed = np.bincount(right.sum(axis=0), minlength=len(number)) / right.shape[1]
            expected = independent_counts(right.mean(axis=1))
            _pair(panel, number / len(right), observed, expected, index)
            columns = {"num_right": number, "share": observed, "share_independent": expected}
            drawn.append(pd.DataFrame(columns).assign(control=name, epoch=epoch, num_networks=len(right), num_images=right.shape[1]))
        panel.set_title(f"epoch {epoch}, {split}", fontsize=9, color=INK, loc="left")
        panel.set_xlabel("share of the networks that are right on an example", fontsize=9)
        panel.set_ylabel("share of the examples", fontsize=9)
        panel.set_ylim(0, None)
    handles = [
        Line2D([], [], color=SWAP_EPOCH_COLOURS[index], marker=SWAP_EPOCH_MARKERS[index], linewidth=2, label=name)
        for index, (name, _) in enumerate(found)
    ]
    handles.append(Line2D([], [], color=INK, linestyle="--", linewidth=1, label="independent networks of these accuracies"))
    title = "Bimodality: examples that all networks get right, or none"
    return finish(figure, axes, handles, title, pd.concat(drawn, ignore_index=True))


def independent_counts(accuracies: np.ndarray) -> np.ndarray:
    """The distribution of the number of networks that are right on an example `[count]`, were they independent: Poisson binomial."""
    found = np.ones(1)
    for accuracy in accuracies:
        found = np.convolve(found, [1 - accuracy, accuracy])
    return found


def _pair(panel: Axes, x: np.ndarray, observed: np.ndarray, expected: np.ndarray, index: int) -> None:
    colour, marker = SWAP_EPOCH_COLOURS[index], SWAP_EPOCH_MARKERS[index]
    panel.plot(x, expected, color=colour, linestyle="--", linewidth=1, alpha=0.8)
    panel.plot(x, observed, color=colour, marker=marker, markersize=5, linewidth=2)


def with_control(table: pd.DataFrame, split: str = "test") -> Drawing | None:
    """A panel per kind of swap: kappa of pairs of networks within and between stressed families and their controls, since the swap."""
    rows = table[(table["comparison"] == "control") & (table["alignment"] == "epoch") & (table["split"] == split) & table["kappa"].notna()]
    rows = rows.assign(swapped=rows["swapped"].where(rows["swapped"].isin(list(SWAPPED)), "other"))
    kinds = [kind for kind in SWAPPED if (rows["swapped"] == kind).any()]
    if not kinds:
        return None
    rows = rows.assign(since=rows["epoch"].astype(float) - rows["swap_epoch"].astype(float))
    if rows["since"].nunique() < 2:
        return None
    figure, axes = panels(len(kinds))
    drawn = []
    for panel, kind in zip(axes, kinds, strict=True):
        here = rows[rows["swapped"] == kind]
        drawn.append(_lines(panel, here, "since", [*PAIRS]).assign(swapped=kind))
        panel.set_title(f"{SWAPPED[kind][0]}, {split} ({here['trial'].nunique()} families)", fontsize=9, color=INK, loc="left")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("epochs since the swap (0: same weights, new functions)", fontsize=9)
        panel.set_ylabel("Cohen's kappa of right against wrong", fontsize=9)
    names = {"within": "two stressed networks", "within_other": "two of the control", "same_seed": "stressed and control, same seed"}
    names["other_seeds"] = "stressed and control, other seeds"
    title = "Agreement across the swap: means over controls ±1 standard error over controls"
    return finish(figure, axes, _handles(PAIRS, names), title, pd.concat(drawn, ignore_index=True))


def across_architectures(table: pd.DataFrame, split: str = "test") -> Drawing | None:
    """A panel per two architectures (controls): kappa of pairs within and between them, at equal accuracy."""
    rows = table[(table["comparison"] == "architecture") & (table["alignment"] == "accuracy") & (table["split"] == split)]
    rows = rows[rows["kappa"].notna() & rows["swap_epoch"].isna()]
    couples = list(rows[["architecture", "other_architecture"]].drop_duplicates().itertuples(index=False, name=None))
    if not couples:
        return None
    left_out = f"; the first {MAX_PANELS} of {len(couples)} pairs of architectures" if len(couples) > MAX_PANELS else ""
    couples = couples[:MAX_PANELS]
    figure, axes = panels(len(couples))
    drawn = []
    for panel, (one, other) in zip(axes, couples, strict=True):
        here = rows[(rows["architecture"] == one) & (rows["other_architecture"] == other)]
        lines = _lines(panel, here, "level", ["within", "within_other", "other_seeds"])
        drawn.append(lines.assign(architecture=one, other_architecture=other))
        panel.set_title(f"{one} / {other}, {split}", fontsize=9, color=INK, loc="left")
        panel.set_xlabel("accuracy reached (fraction)", fontsize=9)
        panel.set_ylabel("Cohen's kappa of right against wrong", fontsize=9)
    names = {"within": "two of the first", "within_other": "two of the second", "other_seeds": "one of each"}
    title = f"Agreement across architectures at equal accuracy: means over schedules ±1 standard error{left_out}"
    return finish(figure, axes, _handles([*names], names), title, pd.concat(drawn, ignore_index=True))


def _lines(panel: Axes, rows: pd.DataFrame, x: str, kinds: Iterable[str]) -> pd.DataFrame:
    """Mean over controls and standard error, per kind of pairs; and what was drawn."""
    drawn = []
    for kind in kinds:
        _, colour, marker, style = PAIRS[kind]
        by_control = rows[rows["pairs"] == kind].groupby([x, "control"])["kappa"].mean().astype(float)
        means, errors = by_control.groupby(level=0).mean(), by_control.groupby(level=0).sem()
        columns = {"kappa": means, "standard_error": errors, "num_controls": by_control.groupby(level=0).size()}
        drawn.append(pd.DataFrame(columns).reset_index().assign(pairs=kind))
        panel.errorbar(
            means.index.to_numpy(float),
            means.to_numpy(),
            yerr=errors.to_numpy(),  # of a single one it is unknown: no bar
            color=colour,
            marker=marker,
            linestyle=style,
            markersize=4,
            linewidth=1.6,
            capsize=2,
        )
    return pd.concat(drawn, ignore_index=True)


def _handles(kinds: Iterable[str], names: dict[str, str]) -> list[Line2D]:
    return [Line2D([], [], color=PAIRS[k][1], marker=PAIRS[k][2], linestyle=PAIRS[k][3], linewidth=2, label=names[k]) for k in kinds]
