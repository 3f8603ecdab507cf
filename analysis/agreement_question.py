"""The question of agreement: its tables, figures, lines and section of the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis import agreement_figures
from analysis.agreement import across, agreements, recorded_families
from analysis.drawing import Drawing, charts
from analysis.examples import at_swaps, bounds, examples
from analysis.html import interval, number
from analysis.predictions import loader
from analysis.question import Asked, Found

TITLE = "Do networks get the same examples right?"
NO_PREDICTIONS = "no predictions were recorded (probes.predictions)"


def agree(asked: Asked) -> Found:
    """Agreement within families, across a swap and across architectures, and what swaps make networks forget."""
    trials = recorded_families(asked.store, asked.only)
    if trials.empty:
        return Found(TITLE, reason=NO_PREDICTIONS)
    load = loader(asked.store, trials)
    table, between, swaps = agreements(trials, load, seed=asked.seed), across(trials, load), at_swaps(trials, load)
    chosen = agreement_figures.representatives(trials)
    drawn = {
        "agreement_curves": (
            agreement_figures.agreement_curves(table, chosen),
            "Agreement over training",
            "A solid line above the dashed ones says that the networks get the same examples right, more than their accuracies and the "
            "classes make them.",
            "Agreement (TPA: images that all networks get right over those that any does), with its 95 % Wilson interval over images, of "
            f"{agreement_figures.WHICH}; dotted: the lower bound from the accuracies, hatched: the room above it; baselines: networks of "
            "these accuracies that are independent, and networks whose right answers are permuted within classes. Numbers of networks and "
            "images stand above each panel.",
        ),
        "bimodality": (
            agreement_figures.bimodality(load, chosen),
            "Bimodality",
            "Where networks learn the same examples, most are right for all networks or for none: a line that is high at both ends.",
            "Share of the test examples that so many of the networks get right; dashed: were they independent with these accuracies. "
            f"Drawn: {agreement_figures.WHICH}. Counts of all test images, so without intervals; their numbers are in the data.",
        ),
        "agreement_with_control": (
            agreement_figures.with_control(between),
            "Agreement across the swap",
            "Where the line of one of each lies below those of two of a kind, the swap made the networks learn other examples.",
            "Cohen's kappa of being right on test images, of two networks of a stressed family, two of its control, and one of each, since "
            "the swap. Means over controls of those over their families, counted above each panel, ±1 standard error over controls.",
        ),
        "agreement_across_architectures": (
            agreement_figures.across_architectures(between),
            "Agreement across architectures",
            "Where the line of one of each comes near the others, architectures learn the same examples.",
            "Cohen's kappa of being right on test images, of two networks of one architecture and of one of each, when each has just "
            "reached an accuracy. Means over the schedules of controls, ±1 standard error over controls; their number is in the data. "
            "Accuracies passed between two evaluations have what the later one shows.",
        ),
    }
    shown = [(_controls(table), _controls_caption(table)), *_swapped(between, swaps), *_architectures(between)]
    return Found(
        TITLE,
        [
            *_agreement_lines(table),
            *_swap_lines(between, swaps),
            *_architecture_lines(between),
            *_not_drawn(between, drawn["agreement_with_control"][0]),
        ],
        {"agreement": table, "agreement_across": between, "agreement_at_swap": swaps, "examples": examples(trials, load)},
        [one for one in shown if len(one[0])],
        charts=charts(drawn),
    )


def _not_drawn(between: pd.DataFrame, drawing: Drawing | None) -> list[str]:
    if drawing is not None or not (between["comparison"] == "control").any():
        return []
    return ["Agreement across the swap is not drawn: fewer than two epochs since a swap were evaluated (probes.evaluate_every)."]


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each family's last evaluation."""
    rows = table[(table["alignment"] == "epoch") & (table["moment"] == "epoch")]
    return rows[rows["epoch"] == rows.groupby("trial")["epoch"].transform("max")]


def over_controls(rows: pd.DataFrame, column: str) -> tuple[dict[str, float], int]:
    """Mean over controls (families of one control are averaged: they share its training) with a 95 % t interval, and their number."""
    means = rows.groupby("control")[column].mean().dropna().to_numpy(np.float64)
    return bounds("mean", means), len(means)


def estimate(found: dict[str, float], digits: int = 3) -> str:
    return f"{number(found['mean'], digits)} {interval(found['mean_low'], found['mean_high'])}"


def median_range(values: pd.Series) -> str:
    return f"{number(float(values.median()))} ({number(float(values.min()))} to {number(float(values.max()))})"


def _agreement_lines(table: pd.DataFrame) -> list[str]:
    rows = at_end(table)
    rows = rows[(rows["split"] == "test") & (rows["labels"] == "trained") & rows["tpa"].notna()]
    if rows.empty:
        return ["Agreement: undecided: no family has 2 networks at the end."]
    above = int((rows["null_within_p"] <= 1 / (1 + rows["num_permutations"])).sum())
    return [
        f"Agreement on the test split at the end, median (range) over {len(rows)} families: TPA {median_range(rows['tpa'])}; lower bound "
        f"{median_range(rows['lower_bound'])}, independent networks {median_range(rows['independence'])}, permuted within classes "
        f"{median_range(rows['null_within_mean'])}, which in {above} families none of {rows['num_permutations'].iloc[0]} permutations "
        f"brings to the TPA; Fleiss' kappa of right against wrong {median_range(rows['kappa_correct'])}; wrong answers agree in "
        f"{median_range(rows['wrong_agreement'])} of pairs."
    ]


def _difference(between: pd.DataFrame, comparison: str) -> pd.DataFrame:
    """Per two groups and split at the end: kappa of pairs across (other seeds) minus the mean of that within the two."""
    rows = at_end(between[between["comparison"] == comparison])
    keys = ["trial", "other", "control", "swapped", "swap_epoch", "split", "architecture", "other_architecture"]
    wide = rows.pivot_table(index=keys, columns="pairs", values="kappa", dropna=False, observed=True).dropna(how="all").reset_index()
    wide = wide.reindex(columns=[*keys, "within", "within_other", "other_seeds", "same_seed"])
    return wide.assign(difference=wide["other_seeds"] - (wide["within"] + wide["within_other"]) / 2)


def _swap_lines(between: pd.DataFrame, swaps: pd.DataFrame) -> list[str]:
    rows, lines = _difference(between, "control"), []
    told = []
    for kind, part in rows[rows["split"] == "test"].groupby("swapped", sort=True):
        found, n = over_controls(part, "difference")
        told.append(f"{kind} {estimate(found)} ({part['trial'].nunique()} families, {n} controls)")
    if told:
        lines.append(
            "Agreement across the swap on the test split at the end, kappa of a stressed and a control network of other seeds minus that "
            f"of two of a kind, mean over controls [95 % t interval]: {'; '.join(told)}."
        )
    told = []
    for kind, part in swaps[swaps["split"] == "test"].groupby("swapped", sort=True):
        at_swap, next_epoch = (over_controls(part, column)[0] for column in ("forgotten", "forgotten_next_difference"))
        told.append(f"{kind} {estimate(at_swap)}, next epoch {estimate(next_epoch)} more than the control")
    if told:
        lines.append(f"Share of test images forgotten at the swap (0 steps), mean over controls [95 % t interval]: {'; '.join(told)}.")
    return lines


def _architecture_lines(between: pd.DataFrame) -> list[str]:
    rows = _difference(between, "architecture")
    rows = rows[(rows["split"] == "test") & rows["swap_epoch"].isna()].dropna(subset="difference")
    told = []
    for (one, other), part in rows.groupby(["architecture", "other_architecture"], sort=True):
        across_both, own, others = part[["other_seeds", "within", "within_other"]].mean()
        told.append(f"{one} / {other} {across_both:.2f} (within {own:.2f} and {others:.2f})")
    lead = "Agreement across architectures on the test split at the end, kappa of pairs of networks of controls"
    return [f"{lead}: {'; '.join(told)}."] if told else []


def _controls(table: pd.DataFrame) -> pd.DataFrame:
    rows = at_end(table[table["swap_epoch"].isna()])
    columns = {name: name.replace("_", " ") for name in ("schedule", "architecture", "label_noise", "split", "labels", "accuracy", "tpa")}
    found = rows[list(columns)].rename(columns=columns)
    more: dict[str, Any] = {
        "95 % interval": [interval(*pair) for pair in zip(rows["tpa_low"], rows["tpa_high"], strict=True)],
        "lower bound": rows["lower_bound"],
        "independent": rows["independence"],
        "permuted": rows["null_mean"],
        "within classes": rows["null_within_mean"],
        "p": rows["null_within_p"],
        "kappa": rows["kappa"],
        "kappa right": rows["kappa_correct"],
        "wrong agree": rows["wrong_agreement"],
        "networks": rows["num_replicas"],
        "images": rows["num_samples"],
    }
    found = found.assign(**more).sort_values(["architecture", "label noise", "schedule", "split", "labels"])
    varied = [c for c in ("architecture", "label noise", "labels") if found[c].nunique() < 2]
    return found.drop(columns=varied)


def _controls_caption(table: pd.DataFrame) -> str:
    num = table["num_permutations"].max()
    return (
        "Controls at the end. tpa: images that all networks get right over those any does, with Wilson's interval over images; lower "
        "bound from the accuracies; independent: networks of these accuracies; permuted, within classes: mean of "
        f"{num} permutations of each network's right answers, p of those within classes; kappa: Fleiss', of the predicted classes, and of "
        "right against wrong; wrong agree: of pairs of networks that are both wrong, the share with the same answer."
    )


def _swapped(between: pd.DataFrame, swaps: pd.DataFrame) -> list[tuple[pd.DataFrame, str]]:
    rows = _difference(between, "control")
    if rows.empty:
        return []
    keys = ["swapped", "swap_epoch", "split"]
    found: list[dict[str, Any]] = []
    forgotten = swaps.drop_duplicates(["trial", "split"]).set_index(["trial", "split"])
    for group, part in rows.groupby(keys, sort=True):
        row = dict(zip(keys, group, strict=True))
        row |= {name: part[name].mean() for name in ("within", "within_other", "same_seed", "other_seeds")}
        difference, n = over_controls(part, "difference")
        lost = forgotten.reindex(list(zip(part["trial"], part["split"], strict=True)))
        row |= {"difference": difference["mean"], "95 % interval": interval(difference["mean_low"], difference["mean_high"])}
        row |= {name.replace("_", " "): lost[name].mean() for name in ("forgotten", "learned", "forgotten_next", "control_forgotten_next")}
        found.append(row | {"families": part["trial"].nunique(), "controls": n})
    caption = (
        "Stressed families and their controls at the end: Cohen's kappa of right against wrong of pairs of networks (within: two "
        "stressed, within_other: two of the control), difference: other_seeds minus the mean of both, with a t interval over controls. "
        "forgotten, learned: share of images whose answer turns wrong or right at the swap, at the same weights; next: until the next "
        "evaluation."
    )
    return [(pd.DataFrame(found), caption)]


def _architectures(between: pd.DataFrame) -> list[tuple[pd.DataFrame, str]]:
    rows = at_end(between[(between["comparison"] == "architecture") & between["swap_epoch"].isna()])
    rows = rows[rows["pairs"] == "other_seeds"]
    if rows.empty:
        return []
    wide = _difference(between, "architecture").set_index(["trial", "other", "split"])
    at = wide.reindex(list(zip(rows["trial"], rows["other"], rows["split"], strict=True)))
    found = rows[
        ["schedule", "architecture", "other_architecture", "split", "accuracy", "other_accuracy", "tpa", "independence", "kappa"]
    ].assign(
        interval=[interval(*pair) for pair in zip(rows["kappa_low"], rows["kappa_high"], strict=True)],
        within=at["within"].to_numpy(),
        within_other=at["within_other"].to_numpy(),
        wrong=rows["wrong_agreement"],
        seeds=rows["num_replicas"],
        images=rows["num_samples"],
    )
    caption = (
        "Controls of two architectures at the end, pairs of one network of each with other seeds: TPA, what independent networks would "
        "have, Cohen's kappa of right against wrong with a 95 % t interval by jackknife over seeds, beside that of pairs within each; "
        "wrong: of images both get wrong, the share with the same answer."
    )
    return [(found, caption)]
