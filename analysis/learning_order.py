"""What is learned when: does the order in which networks learn examples follow what their images are like, and does a swap change it?

Tables in, tables out, after Pliushch et al. (arXiv 2105.08997), who plot the mean statistic over the agreed set against the epoch. Beyond
that: rank correlations of learning epochs with statistics, and of learning epochs before and after a swap.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from analysis import tables
from analysis.agreement import FAMILY, SPLITS, comparisons, first_swap, mean_over_pairs, pair_kinds, pair_times, typed
from analysis.examples import bounds
from analysis.measures.agreement import agreed_set, agreement, learning_epochs
from analysis.measures.image_statistics import STATISTICS
from analysis.measures.order import agreed_mean, associations, median_epoch, order_correlations
from analysis.predictions import Load, Predictions
from analysis.statistics import holm
from analysis.storage import Store

NUM_DRAWS, NUM_BOOTSTRAP = 1999, 499  # permutations and resamples of the samples, for each association
AGREED_COLUMNS = [
    *FAMILY, "split", "epoch", "moment", "statistic", "mean", "standard_error", "mean_all", "num_agreed", "tpa", "shown", "num_replicas",
    "num_samples",
]  # fmt: skip
ORDER_COLUMNS = [
    *FAMILY, "split", "statistic", "rho", "rho_low", "rho_high", "p", "p_holm", "rho_within", "p_within", "p_within_holm", "statement",
    "num_samples", "num_never", "num_dropped", "num_replicas", "num_permutations", "num_bootstrap", "seed", "estimator", "reason",
]  # fmt: skip
CHANGE_COLUMNS = [
    *FAMILY, "split", "kept", "kept_low", "kept_high", "control_kept", "control_kept_low", "control_kept_high", "difference",
    "difference_low", "difference_high", "p", "p_holm", "statement", "num_replicas", "num_samples", "estimator", "reason",
]  # fmt: skip
PAIRS_COLUMNS = [
    "comparison", *FAMILY, "other", "other_architecture", "split", "pairs", "rho", "rho_low", "rho_high", "num_pairs", "num_replicas",
    "num_samples", "estimator",
]  # fmt: skip


def statistics_of(store: Store, datasets: Collection[str]) -> dict[str, pd.DataFrame]:
    """The table `image_statistics` of each data set that has one, by sample id; statistics that were not measured are left out."""
    columns = ["dataset", "sample", *STATISTICS]
    found = tables.read(store, "image_statistics", columns, sorted(set(datasets) & set(tables.names(store, "image_statistics"))))
    return {
        str(name): rows.drop(columns="dataset").set_index("sample").dropna(axis=1, how="all") for name, rows in found.groupby("dataset")
    }


def agreed_means(trials: pd.DataFrame, load: Load, statistics: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The paper's curves: a row per family, split, statistic and evaluation; of a stressed family from its first swap on.

    `standard_error` is that of as many samples drawn at random, `shown` whether the paper's masking shows the epoch.
    """
    rows: list[dict[str, Any]] = []
    for family, dataset, split in _known(trials, statistics):
        found = load(family["trial"], split)
        found = found.at(slice(first_swap(found), None))
        agreed, tpa = agreed_set(found.predicted, found.labels), agreement(found.predicted, found.labels)
        for name, values in statistics[dataset].loc[found.samples].items():
            curve = agreed_mean(agreed, tpa.tpa, found.epochs, values.to_numpy())
            for at, (epoch, moment) in enumerate(zip(found.epochs, found.moments, strict=True)):
                row = {n: getattr(curve, n)[at] for n in ("mean", "standard_error", "num_agreed", "tpa", "shown")}
                row |= {"epoch": epoch, "moment": moment, "statistic": name, "mean_all": curve.mean_all, "split": split}
                rows.append(family | row | {"num_replicas": tpa.num_replicas[at], "num_samples": len(found.labels)})
    return typed(rows, AGREED_COLUMNS)


def orders(
    trials: pd.DataFrame,
    load: Load,
    statistics: Mapping[str, pd.DataFrame],
    *,
    alpha: float = 0.05,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """A row per control, split and statistic: Spearman's rho of the median learning epoch and the statistic over the samples.

    Positive: small values are learned first. p permutes the samples; rho_within and p_within are what is left within classes (of the
    labels trained on). Both are adjusted by Holm over all rows of a split, and the statement rests on the adjusted p. Stressed families
    share their control's early training and are left to `order_changes`.
    """
    rows: list[dict[str, Any]] = []
    controls = trials[trials["swap_epoch"].isna()]
    for family, dataset, split in _known(controls, statistics):
        found = load(family["trial"], split)
        learned = learning_epochs(found.predicted, found.labels, found.epochs)
        values = {str(name): column.to_numpy(np.float64) for name, column in statistics[dataset].loc[found.samples].items()}
        generator = np.random.default_rng([seed, int(family["trial"][1:], 16), SPLITS.index(split)])
        for name, one in associations(median_epoch(learned), values, found.labels, generator, num_draws, NUM_BOOTSTRAP).items():
            same = ("rho", "p", "rho_within", "p_within", "num_samples", "num_never", "num_dropped", "num_permutations", "num_bootstrap")
            row: dict[str, Any] = {n: getattr(one, n) for n in same} | {"rho_low": one.low, "rho_high": one.high}
            row |= {"split": split, "statistic": name, "num_replicas": int((~np.isnan(learned).any(axis=1)).sum()), "seed": seed}
            row |= {"reason": "" if np.isfinite(one.rho) else "fewer than 5 samples, or one value for all"}
            rows.append(family | row)
    table = typed(rows, ORDER_COLUMNS)
    table["estimator"] = "Spearman of median learning epoch and statistic; p by permutation, 95 % bootstrap interval, both over samples"
    for split in SPLITS:
        here = table["split"] == split
        for name in ("p", "p_within"):
            table.loc[here, f"{name}_holm"] = holm(table.loc[here, name].to_numpy(np.float64))
    sign = np.where(table["rho"] > 0, "small first", "large first")
    table["statement"] = pd.array(np.where((table["p_holm"] < alpha).fillna(False), sign, "undecided"), dtype="string")
    return table


def order_changes(trials: pd.DataFrame, load: Load, *, alpha: float = 0.05) -> pd.DataFrame:
    """A row per stressed family and split: does a network relearn examples in the order it had learned them in?

    `kept` is Spearman's rho of a network's learning epochs over the evaluations up to its first swap with those from right after it on,
    mean over replicas; `control_kept` the same of its control, cut at the same epoch; their difference is paired by seed. t intervals and
    p over seeds; Holm over the families of a split.
    """
    rows: list[dict[str, Any]] = []
    known = set(trials["trial"])
    for family, split in product(trials[trials["swap_epoch"].notna()][FAMILY].to_dict("records"), SPLITS):
        if family["control"] not in known:
            rows.append(family | {"split": split, "reason": "its control is not among the families"})
            continue
        found, control = load(family["trial"], split), load(family["control"], split)
        row = family | {"split": split, "num_samples": len(found.labels), "reason": ""}
        kept, reference = _kept(found, first_swap(found)), _kept(control, _cut(control, int(family["swap_epoch"])))
        paired = min(len(kept), len(reference))
        difference = kept[:paired] - reference[:paired]
        for name, values in (("kept", kept), ("control_kept", reference), ("difference", difference)):
            row |= bounds(name, values[np.isfinite(values)])
        n = int(np.isfinite(difference).sum())
        row |= {"num_replicas": n, "p": _t_test(difference[np.isfinite(difference)])}
        rows.append(row | ({"reason": f"{n} replicas have both orders, fewer than 3"} if n < 3 else {}))
    table = typed(rows, CHANGE_COLUMNS)
    table["estimator"] = "Spearman of learning epochs before and since the first swap, per network; 95 % t intervals and p over seeds"
    for split in SPLITS:
        here = table["split"] == split
        table.loc[here, "p_holm"] = holm(table.loc[here, "p"].to_numpy(np.float64))
    sign = np.where(table["difference"].fillna(0) < 0, "changed", "kept more")
    table["statement"] = pd.array(np.where((table["p_holm"] < alpha).fillna(False), sign, "undecided"), dtype="string")
    return table


def _kept(found: Predictions, cut: int) -> np.ndarray:
    """Rank correlation `[replica]` of learning epochs over the evaluations before index `cut` and over those from it on."""
    if not 1 < cut < len(found.epochs) - 1:
        return np.full(len(found.predicted), np.nan)
    parts = [slice(0, cut), slice(cut, None)]
    before, after = (learning_epochs(found.predicted[:, part], found.labels, found.epochs[part]) for part in parts)
    return np.diagonal(order_correlations(before, after))


def _cut(control: Predictions, epoch: int) -> int:
    """Where a control is cut for a swap at an epoch: that epoch ends the part before and, as the weights are the same, begins the other."""
    return int(np.searchsorted(control.epochs, epoch, side="right"))


def _t_test(values: np.ndarray) -> float:
    """Two-sided p of a mean of 0; NaN of fewer than 3 values, or of equal ones."""
    n = len(values)
    if n < 3 or values.std() == 0:
        return np.nan
    return float(2 * student.sf(abs(values.mean()) / (values.std(ddof=1) / np.sqrt(n)), n - 1))


def order_pairs(trials: pd.DataFrame, load: Load) -> pd.DataFrame:
    """Spearman's rho of learning epochs of pairs of networks, within and between a stressed family and its control (over the evaluations
    since the first swap, in both), and two architectures: means over pairs with t intervals by jackknife over seeds."""
    rows: list[dict[str, Any]] = []
    for (comparison, family, other), split in product(comparisons(trials), SPLITS):
        a, b = load(family["trial"], split), load(other["trial"], split)
        if not (np.array_equal(a.samples, b.samples) and np.array_equal(a.labels, b.labels)):
            continue
        times = pair_times(a.at(slice(first_swap(a), None)), b)
        if len(times) < 2:
            continue
        start = first_swap(a)
        mine = learning_epochs(a.predicted[:, [start + i for i, _, _ in times]], a.labels, np.arange(len(times)))
        theirs = learning_epochs(b.predicted[:, [j for _, j, _ in times]], b.labels, np.arange(len(times)))
        both = np.concatenate([mine, theirs])
        rho = order_correlations(both, both)[None, None]
        key = {name: family[name] for name in FAMILY} | {"comparison": comparison, "split": split, "num_samples": len(a.labels)}
        key |= {"other": other["trial"], "other_architecture": other["architecture"]}
        for pairs, members in pair_kinds(len(mine), len(theirs)).items():
            mean, low, high, num_pairs, num_seeds = mean_over_pairs(rho, members, len(mine))
            row = {"pairs": pairs, "rho": mean[0, 0], "rho_low": low[0, 0], "rho_high": high[0, 0]}
            rows.append(key | row | {"num_pairs": num_pairs[0], "num_replicas": num_seeds[0]})
    table = typed(rows, PAIRS_COLUMNS)
    table["estimator"] = "Spearman of learning epochs, mean over pairs; 95 % t intervals by jackknife over seeds, given the samples"
    return table


def _known(trials: pd.DataFrame, statistics: Mapping[str, pd.DataFrame]) -> Iterator[tuple[dict[Any, Any], str, str]]:
    """Families whose images were measured, with their data set, on each split."""
    chosen = trials[trials["dataset"].isin(list(statistics))]
    for (family, dataset), split in product(zip(chosen[FAMILY].to_dict("records"), chosen["dataset"], strict=True), SPLITS):
        yield family, str(dataset), split
