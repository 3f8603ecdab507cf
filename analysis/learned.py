"""What is learned when: the questions of agreement and of learning order, each with its tables, figures, lines and section of the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis import agreement_figures, order_figures, tables
from analysis.agreement import across, agreements, recorded_families
from analysis.examples import at_swaps, bounds, examples
from analysis.html import interval, number
from analysis.learning_order import agreed_means, order_changes, order_pairs, orders, statistics_of
from analysis.predictions import loader
from analysis.question import Asked, Found
from analysis.storage import Store

AGREE, ORDER = "Do networks get the same examples right?", "What is learned when?"
NO_PREDICTIONS = "no predictions were recorded (probes.predictions)"


def agree(asked: Asked) -> Found:
    """Agreement within families, across a swap and across architectures, and what swaps make networks forget."""
    trials = recorded_families(asked.store, asked.only)
    if trials.empty:
        return Found(AGREE, reason=NO_PREDICTIONS)
    load = loader(asked.store, trials)
    table, between, swaps = agreements(trials, load, seed=asked.seed), across(trials, load), at_swaps(trials, load)
    chosen = agreement_figures.representatives(trials)
    drawn = {
        "agreement_curves": (
            agreement_figures.agreement_curves(table, chosen),
            "Agreement (TPA: images that all networks get right over those that any does) of some controls, with its 95 % Wilson interval over "
            "images; dotted: the lower bound from the accuracies, hatched: the room above it; baselines: networks of these accuracies that are "
            "independent, and networks whose right answers are permuted within classes.",
        ),
        "bimodality": (
            agreement_figures.bimodality(load, chosen),
            "How many of the networks get an example right: bimodal where networks learn the same examples. Dashed: were they independent.",
        ),
        "agreement_with_control": (
            agreement_figures.with_control(between),
            "Cohen's kappa of being right, of two networks of a stressed family, two of its control, and one of each, since the swap. Means over "
            "families, standard errors over controls.",
        ),
        "agreement_across_architectures": (
            agreement_figures.across_architectures(between),
            "Cohen's kappa of being right, of two networks of one architecture and of one of each, when each has just reached an accuracy.",
        ),
    }
    shown = [(_controls(table), _controls_caption(table)), *_swapped(between, swaps), *_architectures(between)]
    return Found(
        AGREE,
        [*_agreement_lines(table), *_swap_lines(between, swaps), *_architecture_lines(between)],
        {"agreement": table, "agreement_across": between, "agreement_at_swap": swaps, "examples": examples(trials, load)},
        {name: (figure, caption) for name, (figure, caption) in drawn.items() if figure is not None},
        [one for one in shown if len(one[0])],
    )


def in_which_order(asked: Asked) -> Found:
    """Whether learning follows what images are like, and whether a swap changes its order."""
    trials = recorded_families(asked.store, asked.only)
    if trials.empty:
        return Found(ORDER, reason=NO_PREDICTIONS)
    load, statistics = loader(asked.store, trials), statistics_of(asked.store, set(trials["dataset"]))
    curves = agreed_means(trials, load, statistics)
    found = orders(trials, load, statistics, alpha=asked.alpha, seed=asked.seed)
    changes, pairs = order_changes(trials, load, alpha=asked.alpha), order_pairs(trials, load)
    chosen = agreement_figures.representatives(trials)
    per_example = examples(trials[trials["trial"].isin(chosen["trial"])], load)
    drawn = {
        "statistic_over_agreed_set": (
            order_figures.over_agreed_set(curves, chosen),
            "Mean statistic over the training images that all networks get right, epoch by epoch; bold where the source shows it (after epoch 5, "
            "TPA at least 20 %). Dotted: over all images. Bands: two standard errors of random sets of that size.",
        ),
        "statistic_against_learning_epoch": (
            order_figures.against_learning_epoch(per_example, statistics, found, chosen),
            "Image statistics by median learning epoch (the first from which on a network is right for good); ρ is Spearman's, in brackets "
            "within classes.",
        ),
        **_sheets(asked.store, per_example, chosen),
    }
    lines = [*_order_lines(found), *_change_lines(changes, pairs)]
    if not statistics:
        lines.append(
            "Image statistics: undecided: there is no table image_statistics; python -m sweep.run with analysis.image_statistics writes it."
        )
    shown = [(_statistics_table(found), _statistics_caption(found)), (_changes_table(changes), CHANGES_CAPTION)]
    return Found(
        ORDER,
        lines,
        {"agreed_mean": curves, "learning_order": found, "order_change": changes, "order_pairs": pairs},
        {name: (figure, caption) for name, (figure, caption) in drawn.items() if figure is not None},
        [one for one in shown if len(one[0])],
    )


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each family's last evaluation."""
    rows = table[(table["alignment"] == "epoch") & (table["moment"] == "epoch")]
    return rows[rows["epoch"] == rows.groupby("trial")["epoch"].transform("max")]


def over_controls(rows: pd.DataFrame, column: str) -> tuple[dict[str, float], int]:
    """Mean over controls (families of one control are averaged: they share its training) with a 95 % t interval, and their number."""
    means = rows.groupby("control")[column].mean().dropna().to_numpy(np.float64)
    return bounds("mean", means), len(means)


def _said(found: dict[str, float], digits: int = 3) -> str:
    return f"{number(found['mean'], digits)} {interval(found['mean_low'], found['mean_high'])}"


def _range(values: pd.Series) -> str:
    return f"{number(float(values.median()))} ({number(float(values.min()))} to {number(float(values.max()))})"


def _agreement_lines(table: pd.DataFrame) -> list[str]:
    rows = at_end(table)
    rows = rows[(rows["split"] == "test") & (rows["labels"] == "trained") & rows["tpa"].notna()]
    if rows.empty:
        return ["Agreement: undecided: no family has 2 networks at the end."]
    above = int((rows["null_within_p"] <= 1 / (1 + rows["num_permutations"])).sum())
    return [
        f"Agreement on the test split at the end, median (range) over {len(rows)} families: TPA {_range(rows['tpa'])}; lower bound "
        f"{_range(rows['lower_bound'])}, independent networks {_range(rows['independence'])}, permuted within classes "
        f"{_range(rows['null_within_mean'])}, exceeded in {above} families by none of {rows['num_permutations'].iloc[0]} permutations; Fleiss' "
        f"kappa of right against wrong {_range(rows['kappa_correct'])}; wrong answers agree in {_range(rows['wrong_agreement'])} of pairs."
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
    said = []
    for kind, part in rows[rows["split"] == "test"].groupby("swapped", sort=True):
        found, n = over_controls(part, "difference")
        said.append(f"{kind} {_said(found)} ({part['trial'].nunique()} families, {n} controls)")
    if said:
        lines.append(
            "Agreement across the swap on the test split at the end, kappa of a stressed and a control network of other seeds minus that of two "
            f"of a kind, mean over controls [95 % t interval]: {'; '.join(said)}."
        )
    said = []
    for kind, part in swaps[swaps["split"] == "test"].groupby("swapped", sort=True):
        at_swap, next_epoch = (over_controls(part, column)[0] for column in ("forgotten", "forgotten_next_difference"))
        said.append(f"{kind} {_said(at_swap)}, next epoch {_said(next_epoch)} more than the control")
    if said:
        lines.append(f"Share of test images forgotten at the swap (0 steps), mean over controls [95 % t interval]: {'; '.join(said)}.")
    return lines


def _architecture_lines(between: pd.DataFrame) -> list[str]:
    rows = _difference(between, "architecture")
    rows = rows[(rows["split"] == "test") & rows["swap_epoch"].isna()].dropna(subset="difference")
    if rows.empty:
        return []
    couples = rows.groupby(["architecture", "other_architecture"], sort=True)[["other_seeds", "within", "within_other"]].mean()
    said = [
        f"{a} / {b} {x.other_seeds:.2f} (within {x.within:.2f} and {x.within_other:.2f})"
        for (a, b), x in zip(couples.index, couples.itertuples())
    ]
    return [f"Agreement across architectures on the test split at the end, kappa of pairs of controls: {'; '.join(said)}."]


def _controls(table: pd.DataFrame) -> pd.DataFrame:
    rows = at_end(table[table["swap_epoch"].isna()])
    columns = {name: name.replace("_", " ") for name in ("schedule", "architecture", "label_noise", "split", "labels", "accuracy", "tpa")}
    found = rows[list(columns)].rename(columns=columns)
    more = {
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
        "Controls at the end. tpa: images that all networks get right over those any does, with Wilson's interval over images; lower bound "
        "from the accuracies; independent: networks of these accuracies; permuted, within classes: mean of "
        f"{num} permutations of each network's right answers, p of those within classes; kappa: Fleiss', of the predicted classes, and of right "
        "against wrong; wrong agree: of pairs of networks that are both wrong, the share with the same answer."
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
        "Stressed families and their controls at the end: Cohen's kappa of right against wrong of pairs of networks (within: two stressed, "
        "within_other: two of the control), difference: other_seeds minus the mean of both, with a t interval over controls. forgotten, learned: "
        "share of images whose answer turns wrong or right at the swap, at the same weights; next: until the next evaluation."
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
        "Controls of two architectures at the end, pairs of one network of each with other seeds: TPA, what independent networks would have, "
        "Cohen's kappa of right against wrong with a 95 % t interval by jackknife over seeds, beside that of pairs within each; wrong: of images "
        "both get wrong, the share with the same answer."
    )
    return [(found, caption)]


def _sheets(store: Store, per_example: pd.DataFrame, chosen: pd.DataFrame, split: str = "train") -> dict[str, tuple[bytes | None, str]]:
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
    return {"learned_first_and_last": (sheet, caption)}


def _order_lines(found: pd.DataFrame) -> list[str]:
    lines = []
    for split in ("train",):
        rows = found[(found["split"] == split) & found["rho"].notna()]
        if rows.empty:
            continue
        said = [
            f"{name} {_range(part['rho'])}, {int((part['statement'] != 'undecided').sum())} of {len(part)} (within classes "
            f"{_range(part['rho_within'])}, {int((part['p_within_holm'] < 0.05).sum())})"
            for name, part in rows.groupby("statistic", sort=False)
        ]
        lines.append(
            f"Learning epoch against image statistics, {split} split, Spearman's rho, median (range) over controls and in how many p (Holm) is "
            f"small: {'; '.join(said)}."
        )
    return lines


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
        f"{found['estimator'].iloc[0]} ({found['num_permutations'].max()} permutations, {found['num_bootstrap'].max()} resamples), Holm over all "
        "controls and statistics of a split; within: ranks and permutations within classes. Positive: small values are learned first."
    )


CHANGES_CAPTION = (
    "Whether networks relearn in the order they had learned in: Spearman's rho of learning epochs before and since the first swap, mean over "
    "families, beside that of their controls cut at the same epoch; difference paired by seed, its mean over controls with a 95 % t interval; "
    "changed, kept more: families where it is below or above 0 (t test over seeds, Holm over all families of a split)."
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
    rows = changes[changes["difference"].notna()]
    said = []
    for (kind, split), part in rows.groupby(["swapped", "split"], sort=True):
        found, n = over_controls(part, "difference")
        said.append(f"{kind}, {split} {_said(found)} ({len(part)} families, {n} controls)")
    lines = []
    if said:
        lines.append(
            "Order of learning before and since the swap, rank correlation minus that of the control over the same epochs, mean over controls "
            f"[95 % t interval]: {'; '.join(said)}; {int((rows['statement'] == 'changed').sum())} of {len(rows)} families and splits changed, "
            f"{int((rows['statement'] == 'kept more').sum())} kept more (Holm)."
        )
    rows = pairs[(pairs["comparison"] == "architecture") & (pairs["split"] == "test") & pairs["swap_epoch"].isna()]
    said = [
        f"{a} / {b} {part.loc[part['pairs'] == 'other_seeds', 'rho'].mean():.2f} (within {part.loc[part['pairs'] == 'within', 'rho'].mean():.2f} and "
        f"{part.loc[part['pairs'] == 'within_other', 'rho'].mean():.2f})"
        for (a, b), part in rows.groupby(["architecture", "other_architecture"], sort=True)
    ]
    if said:
        lines.append(
            f"Order of learning across architectures, test split, Spearman's rho of learning epochs of two networks: {'; '.join(said)}."
        )
    return lines
