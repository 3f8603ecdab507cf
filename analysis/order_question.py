"""The question of learning order: its tables, figures, lines and section of the page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import agreement_figures, order_figures, tables
from analysis.agreement import recorded_families
from analysis.agreement_question import NO_PREDICTIONS, estimate, over_controls
from analysis.drawing import Drawing, charts
from analysis.examples import examples
from analysis.html import interval
from analysis.learning_order import agreed_means, order_changes, order_pairs, orders, statistics_of
from analysis.predictions import loader
from analysis.question import Asked, Found
from analysis.storage import Store

TITLE = "What is learned when?"


def in_which_order(asked: Asked) -> Found:
    """Whether learning follows what images are like, and whether a swap changes its order."""
    trials = recorded_families(asked.store, asked.only)
    if trials.empty:
        return Found(TITLE, reason=NO_PREDICTIONS)
    load, statistics = loader(asked.store, trials), statistics_of(asked.store, set(trials["dataset"]))
    curves = agreed_means(trials, load, statistics)
    found = orders(trials, load, statistics, alpha=asked.alpha, seed=asked.seed)
    changes, pairs = order_changes(trials, load, alpha=asked.alpha), order_pairs(trials, load)
    chosen = agreement_figures.representatives(trials)
    per_example = examples(trials[trials["trial"].isin(chosen["trial"])], load)
    drawn = {
        "statistic_over_agreed_set": (
            order_figures.over_agreed_set(curves, chosen),
            "What the images are like that all networks get right",
            "A line that starts away from the dotted one and comes nearer says that images with small (or large) values are learned first.",
            "Mean statistic over the training images that all networks get right, epoch by epoch; bold where the source shows it (after "
            "epoch 5, TPA at least 20 %). Dotted: over all images. Bands: two standard errors of random sets of that size, which the "
            f"data have. Drawn: {agreement_figures.WHICH}.",
        ),
        "statistic_against_learning_epoch": (
            order_figures.against_learning_epoch(per_example, statistics, found, chosen),
            "Image statistics by when images are learned",
            "Means that climb from left to right say that images with small values are learned first; those at the right end never are.",
            "Mean image statistic ±1 standard error over the images of a median learning epoch (the first from which on a network is "
            "right for good); their numbers are in the data. ρ is Spearman's over all training images, in brackets within classes, of the "
            "controls as the key has them; intervals and p are in the table below. Images of one channel have one entropy, grey being what "
            "they are.",
        ),
        **_sheets(asked.store, per_example, chosen),
    }
    lines = [*_order_lines(found, asked.alpha), *_change_lines(changes, pairs)]
    if drawn["statistic_over_agreed_set"][0] is None and len(curves):
        lines.append("What all networks get right is not drawn over epochs: fewer than two were evaluated (probes.evaluate_every).")
    if not statistics:
        lines.append(
            "Image statistics: undecided: there is no table image_statistics; python -m sweep.run with analysis.image_statistics writes it."
        )
    shown = [(_statistics_table(found), _statistics_caption(found)), (_changes_table(changes), CHANGES_CAPTION)]
    return Found(
        TITLE,
        lines,
        {"agreed_mean": curves, "learning_order": found, "order_change": changes, "order_pairs": pairs},
        [one for one in shown if len(one[0])],
        charts=charts(drawn),
    )


def _sheets(
    store: Store, per_example: pd.DataFrame, chosen: pd.DataFrame, split: str = "train"
) -> dict[str, tuple[Drawing | None, str, str, str]]:
    """The contact sheet of the first control drawn."""
    if chosen.empty:
        return {}
    one = chosen.iloc[0]
    if one["dataset"] not in tables.names(store, "image_statistics"):
        return {}
    rows = tables.read(store, "image_statistics", ["sample", "thumbnail"], [one["dataset"]]).dropna(subset="thumbnail")
    pictures = dict(zip(rows["sample"], rows["thumbnail"], strict=True))
    sheet = order_figures.contact_sheet(per_example[per_example["trial"] == one["trial"]], pictures, split, one["name"])
    caption = (
        f"Training images that the {one['num_replicas']} networks of a control learn first and last, by median learning epoch and then by "
        f"accessibility, of the {len(pictures)} images that thumbnails were kept of."
    )
    sees = (
        "Above each image stand its label and the share of the networks that are right on it at the end: the first are typical, the last "
        "odd, mislabelled or hard to tell."
    )
    return {"learned_first_and_last": (sheet, f"Learned first and last: {one['name']}", sees, caption)}


def _order_lines(found: pd.DataFrame, alpha: float) -> list[str]:
    """Of the train split, as in the source; the tables have both."""
    rows = found[(found["split"] == "train") & found["rho"].notna()]
    told = []
    for name, part in rows.groupby("statistic", sort=False):
        small, small_within = (int((part[column] < alpha).sum()) for column in ("p_holm", "p_within_holm"))
        medians = part["rho"].median(), part["rho_within"].median()
        told.append(f"{name} {medians[0]:+.2f}, {small} (within classes {medians[1]:+.2f}, {small_within})")
    lead = (
        "Learning epoch against image statistics on the train split, Spearman's rho, median over "
        f"{rows['trial'].nunique()} controls, and in how many p (Holm) is below {alpha:g}"
    )
    return [f"{lead}: {'; '.join(told)}."] if told else []


def _statistics_table(found: pd.DataFrame) -> pd.DataFrame:
    rows = found[found["rho"].notna()]
    return pd.DataFrame(
        {
            "schedule": rows["schedule"],
            "architecture": rows["architecture"],
            "label noise": rows["label_noise"],
            "split": rows["split"],
            "statistic": rows["statistic"],
            "rho": rows["rho"],
            "95 % interval": [interval(*pair) for pair in zip(rows["rho_low"], rows["rho_high"], strict=True)],
            "p (Holm)": rows["p_holm"],
            "rho within": rows["rho_within"],
            "p within (Holm)": rows["p_within_holm"],
            "images": rows["num_samples"],
            "never learned": rows["num_never"],
            "networks": rows["num_replicas"],
            "statement": rows["statement"],
        }
    ).sort_values(["split", "statistic", "architecture", "label noise", "schedule"])


def _statistics_caption(found: pd.DataFrame) -> str:
    if found.empty:
        return ""
    return (
        f"{found['estimator'].iloc[0]} ({found['num_permutations'].max()} permutations, {found['num_bootstrap'].max()} resamples), Holm "
        "over all controls and statistics of a split; within: ranks and permutations within classes. Positive: small values first."
    )


CHANGES_CAPTION = (
    "Whether networks relearn in the order they had learned in: Spearman's rho of learning epochs before and since the first swap, mean "
    "over families, beside that of their controls cut at the same epoch; difference paired by seed, its mean over controls with a 95 % t "
    "interval; changed, kept more: families where it is below or above 0 (t test over seeds, Holm over all families of a split)."
)


def _changes_table(changes: pd.DataFrame) -> pd.DataFrame:
    found: list[dict[str, Any]] = []
    for group, part in changes.groupby(["swapped", "swap_epoch", "split"], sort=True):
        difference, n = over_controls(part, "difference")
        row = dict(zip(["swapped", "swap epoch", "split"], group, strict=True)) | {"kept": part["kept"].mean()}
        row |= {"control kept": part["control_kept"].mean(), "difference": difference["mean"]}
        row |= {"95 % interval": interval(difference["mean_low"], difference["mean_high"])}
        row |= {name: int((part["statement"] == name).sum()) for name in ("changed", "kept more", "undecided")}
        found.append(row | {"families": len(part), "controls": n})
    return pd.DataFrame(found)


def _change_lines(changes: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    rows, told, lines = changes[changes["difference"].notna()], [], []
    for (kind, split), part in rows.groupby(["swapped", "split"], sort=True):
        found, n = over_controls(part, "difference")
        told.append(f"{kind}, {split} {estimate(found)} ({len(part)} families, {n} controls)")
    if told:
        changed, kept = (int((rows["statement"] == name).sum()) for name in ("changed", "kept more"))
        lines.append(
            "Order of learning before and since the swap, rank correlation minus that of the control over the same epochs, mean over "
            f"controls [95 % t interval]: {'; '.join(told)}. Single families, train and test (Holm): {changed} changed, {kept} kept more, "
            f"{len(rows) - changed - kept} undecided."
        )
    rows = pairs[(pairs["comparison"] == "architecture") & (pairs["split"] == "test") & pairs["swap_epoch"].isna()]
    told = []
    for (one, other), part in rows.groupby(["architecture", "other_architecture"], sort=True):
        rho = part.groupby("pairs")["rho"].mean()
        told.append(f"{one} / {other} {rho['other_seeds']:.2f} (within {rho['within']:.2f} and {rho['within_other']:.2f})")
    lead = "Order of learning across architectures on the test split, Spearman's rho of the learning epochs of two networks of controls"
    return [*lines, f"{lead}: {'; '.join(told)}."] if told else lines
