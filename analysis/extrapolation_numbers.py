"""Inside or outside the hull of the training set: fractions beside their null, distances beside scales, in pixels and in layers.

Fractions outside say little by themselves: in many dimensions all points lie outside the hull of a sample, noise included. So every number
stands beside the same number of a Gaussian null with the mean, covariance and number of the training points. Distances are relative, to
the nearest training point (`nearest`) and to the median distance of training points (`scale`), since swaps of the activation rescale
features. Samples are what is resampled and permuted; networks are taken as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from analysis import tables
from analysis.hull_tables import NULL, SAMPLE
from analysis.measures.hull import INSIDE, OUTSIDE
from analysis.spreads import FAMILY_COLUMNS, at_first_swap, families
from analysis.statistics import holm
from analysis.storage import Store

CONFIDENCE = 0.95
NUM_BOOTSTRAP = 2000
MOMENTS = ("before_swap", "end")
_KEYS = ["trial", "moment", "epoch", "layer"]
_READ = [
    "replica", "moment", "epoch", "layer", "kind", "sample", "label", "num_points", "num_features", "status", "distance",
    "nearest_distance", "median_distance", "support_size", "support_labels", "support_weights", "predicted", "predicted_projection",
    "crossings", "num_parameters", "train_size",
]  # fmt: skip
# Numbers of a query, summed over the replicas of a family: counts, and relative distances over all and over those that predict wrongly.
_SUMS = [
    "num", "outside", "inside", "nearest", "scale", "support", "wrong", "nearest_wrong", "scale_wrong", "same_label", "followed", "changed",
    "crossings",
]  # fmt: skip
_WHOLE = ["num_points", "num_features", "num_parameters", "train_size"]


def queries(store: Store, trials: Sequence[str], layers: Collection[str] | None, moments: Collection[str] | None) -> pd.DataFrame:
    """A row per family, moment, layer and query (sample, or draw of the null): sums over the replicas, and what is the same for all.

    `query` numbers the samples, and the draws, of a family in the same order for all families. Replicas whose training points are all one
    in a layer (dead units) are left out there: their hull is that point, and nothing tells its scale.
    """
    parts = []
    for trial in trials:
        rows = tables.read(store, "hull", _READ, only=[trial])
        for column, wanted in (("layer", layers), ("moment", moments)):
            rows = rows if wanted is None else rows[rows[column].isin(list(wanted))]
        rows = rows[rows["median_distance"] > 0]
        if len(rows):
            parts.append(_summed(rows).assign(trial=trial))
    columns = [*_KEYS, "kind", "query", "sample", *_WHOLE, *_SUMS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _summed(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.reset_index(drop=True)
    rows["query"] = rows.groupby(["moment", "epoch", "layer", "replica", "kind"]).cumcount()
    is_sample = rows["kind"] == SAMPLE
    rows["num"], rows["support"] = 1.0, rows["support_size"].astype(np.float64)
    rows["outside"], rows["inside"] = ((rows["status"] == status).astype(np.float64) for status in (OUTSIDE, INSIDE))
    nearest = rows["nearest_distance"]
    rows["nearest"] = np.where(nearest > 0, rows["distance"] / nearest.where(nearest > 0, 1.0), 0.0)  # a point itself is inside
    rows["scale"] = rows["distance"] / rows["median_distance"]
    rows["wrong"] = (is_sample & (rows["predicted"] != rows["label"])).astype(np.float64)
    for name in ("nearest", "scale"):
        rows[f"{name}_wrong"] = rows[name] * rows["wrong"]
    rows["same_label"] = [
        float(weights[labels == label].sum()) if labels is not None else 0.0
        for labels, weights, label in zip(rows["support_labels"], rows["support_weights"], rows["label"], strict=True)
    ]
    followed = rows["predicted_projection"].notna()
    rows["followed"] = followed.astype(np.float64)
    rows["changed"] = (followed & (rows["predicted_projection"] != rows["predicted"])).astype(np.float64)
    rows["crossings"] = [float(len(places)) if places is not None else 0.0 for places in rows["crossings"]]
    keys = ["moment", "epoch", "layer", "kind", "query"]
    how = {"sample": "first", **dict.fromkeys(_WHOLE, "first"), **dict.fromkeys(_SUMS, "sum")}
    return rows.groupby(keys, sort=False).agg(how).reset_index()


def by_family(asked: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """A row per family, moment and layer: means over samples and replicas, and the same of the null (`null_...`)."""
    sums = asked.groupby([*_KEYS, "kind"], sort=False)[_SUMS].sum()
    mine, null = (pd.DataFrame(sums.xs(kind, level="kind")) for kind in (SAMPLE, NULL))
    whole = asked.groupby(_KEYS, sort=False)[_WHOLE].first()
    right = mine["num"] - mine["wrong"]
    found = pd.DataFrame({
        **_means(mine), **_means(null, "null_"),
        "nearest_correct": (mine["nearest"] - mine["nearest_wrong"]) / right.where(right > 0),
        "nearest_wrong": mine["nearest_wrong"] / mine["wrong"].where(mine["wrong"] > 0),
        "scale_correct": (mine["scale"] - mine["scale_wrong"]) / right.where(right > 0),
        "scale_wrong": mine["scale_wrong"] / mine["wrong"].where(mine["wrong"] > 0),
        "same_label": mine["same_label"] / mine["num"],
        "changed": mine["changed"] / mine["followed"].where(mine["followed"] > 0),
        "crossings": mine["crossings"] / mine["followed"].where(mine["followed"] > 0),
        "num_samples": asked[asked["kind"] == SAMPLE].groupby(_KEYS, sort=False)["query"].nunique(),
        "num_null": asked[asked["kind"] == NULL].groupby(_KEYS, sort=False)["query"].nunique(),
    }).join(whole)  # fmt: skip
    samples = found["num_samples"]
    found["num_replicas"] = (mine["num"] / samples).round().astype(int)
    found["estimator"] = "means over probe samples and replicas; null: a Gaussian of the same mean, covariance and number of points"
    return trials[FAMILY_COLUMNS].merge(found.reset_index(), on="trial")


def _means(sums: pd.DataFrame, prefix: str = "") -> dict[str, pd.Series]:
    return {prefix + name: sums[name] / sums["num"] for name in ("outside", "inside", "nearest", "scale", "support")}


def by_layer(asked: pd.DataFrame, trials: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A row per moment, group of families and layer: at the end by what the first swap exchanges, and all; before it all, those that
    share a state counted once.

    `wrong_minus_correct` is the mean relative distance (`nearest`) of samples that networks predict wrongly minus that of those they
    predict correctly, within each family, mean over the families that have both. Intervals are percentiles of a bootstrap over samples,
    those of the null over its draws.
    """
    first = at_first_swap(asked.merge(trials[["trial", "swapped", "swap_epoch", "control"]], on="trial"))
    before = first["moment"] == "before_swap"
    kept = first.loc[before, ["trial", "control", "epoch"]].drop_duplicates("trial").drop_duplicates(["control", "epoch"])["trial"]
    first = first[~before | first["trial"].isin(kept)]
    first["group"] = first["swapped"].where(first["moment"] == "end", "all")
    both = pd.concat([first, first[first["moment"] == "end"].assign(group="all")])
    generator, rows = np.random.default_rng(seed), []
    for (moment, group, layer), here in both.groupby(["moment", "group", "layer"], sort=False):
        sums = {kind: part.groupby("query")[_SUMS].sum() for kind, part in here.groupby("kind")}
        row: dict[str, Any] = {"moment": moment, "group": group, "layer": layer, "num_families": here["trial"].nunique()}
        for kind, prefix in ((SAMPLE, ""), (NULL, "null_")):
            s = sums[kind]
            row[f"num_{'samples' if kind == SAMPLE else 'null'}"] = len(s)
            drawn = _resamples(len(s), generator)
            for name in ("outside", "nearest", "scale"):
                row |= _with_interval(prefix + name, drawn @ s[name].to_numpy(), drawn @ s["num"].to_numpy())
            if kind == SAMPLE:
                difference = _wrong_minus_correct(here[here["kind"] == SAMPLE], drawn)
                row |= _with_interval("wrong_minus_correct", difference, np.ones(len(difference)))
                for name in ("changed", "crossings"):
                    row |= _with_interval(name, drawn @ s[name].to_numpy(), drawn @ s["followed"].to_numpy())
                row |= {"inside": float(s["inside"].sum() / s["num"].sum()), "num_networks": int(s["num"].max())}
                row |= {name: float(s[name].sum() / s["num"].sum()) for name in ("support", "same_label")}
        row |= {name: _one(here[name]) for name in _WHOLE}
        rows.append(row)
    found = pd.DataFrame(rows)
    found["estimator"] = f"means over networks and samples; {CONFIDENCE:.0%} percentile bootstrap over samples, {NUM_BOOTSTRAP} resamples"
    return found.assign(num_bootstrap=NUM_BOOTSTRAP, seed=seed)


def _wrong_minus_correct(samples: pd.DataFrame, drawn: np.ndarray) -> np.ndarray:
    """Per resample of the samples. Within families, as those that err more may have other distances altogether."""
    sums = {name: samples.pivot_table(index="query", columns="trial", values=name) for name in ("nearest_wrong", "wrong", "nearest", "num")}
    wrong, num_wrong, total, num = (drawn @ table.to_numpy() for table in sums.values())  # [resample, family]
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = wrong / num_wrong - (total - wrong) / (num - num_wrong)
    there = np.isfinite(difference)
    with np.errstate(invalid="ignore"):
        return np.where(there, difference, 0).sum(axis=1) / there.sum(axis=1)


def _one(values: pd.Series) -> float:
    """The one value, or NaN where there are several."""
    return float(values.iloc[0]) if values.nunique() == 1 else np.nan


def _resamples(num: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of so many is drawn `[resample, item]`; the first row is what was seen."""
    return np.vstack([np.ones(num), generator.multinomial(num, np.full(num, 1 / num), NUM_BOOTSTRAP)])


def _with_interval(name: str, over: np.ndarray, under: np.ndarray) -> dict[str, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = over / under
    usable = values[1:][np.isfinite(values[1:])]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(usable, [tail, 1 - tail]) if len(usable) else (np.nan, np.nan)
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def against_error(asked: pd.DataFrame, num_permutations: int, seed: int) -> pd.DataFrame:
    """Per layer, at the end: Spearman's correlation over samples of a sample's mean relative distance with its error probability.

    The error probability is the share of networks that predict a sample wrongly. p is two-sided, by permutation of samples, which are
    exchangeable where nothing associates them with errors; p_holm over layers. The interval resamples samples.
    """
    generator, rows = np.random.default_rng(seed), []
    end = asked[(asked["moment"] == "end") & (asked["kind"] == SAMPLE)]
    for layer, here in end.groupby("layer", sort=False):
        sums = here.groupby("sample")[["num", "wrong", "nearest", "scale"]].sum()
        error = (sums["wrong"] / sums["num"]).to_numpy()
        orders = np.argsort(generator.random((num_permutations, len(error))), axis=1)
        drawn = generator.integers(len(error), size=(NUM_BOOTSTRAP, len(error)))
        for name in ("nearest", "scale"):
            distance = (sums[name] / sums["num"]).to_numpy()
            row: dict[str, Any] = {"layer": layer, "distance": name, "num_samples": len(error), "num_networks": int(sums["num"].max())}
            if np.ptp(error) == 0 or np.ptp(np.round(distance, 9)) == 0:
                row |= dict.fromkeys(["rho", "rho_low", "rho_high", "p"], np.nan)
                rows.append(row | {"reason": "distance or error is the same for all samples"})
                continue
            rho = float(_correlations(distance[None], error[None])[0])
            resampled = _correlations(distance[drawn], error[drawn])
            low, high = np.nanquantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            null = np.abs(_correlations(distance[None], error[orders]))
            p = float((1 + (null >= abs(rho) - 1e-12).sum()) / (1 + num_permutations))
            rows.append(row | {"rho": rho, "rho_low": float(low), "rho_high": float(high), "p": p, "reason": ""})
    columns = ["layer", "distance", "rho", "rho_low", "rho_high", "p", "num_samples", "num_networks", "reason"]
    found = pd.DataFrame(rows, columns=columns)
    found.insert(6, "p_holm", found.groupby("distance")["p"].transform(lambda p: holm(p.to_numpy())))
    found["estimator"] = f"Spearman's rho over samples; {CONFIDENCE:.0%} percentile bootstrap over samples; permutation p of samples"
    return found.assign(num_permutations=num_permutations, num_bootstrap=NUM_BOOTSTRAP, seed=seed)


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rho of rows of x with rows of y `[row, sample]`; NaN where one does not vary."""
    a, b = (rankdata(values, axis=1) for values in (x, y))
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def by_size(table: pd.DataFrame, gap_table: pd.DataFrame) -> pd.DataFrame:
    """Per layer, at the end: means over families of one number of parameters and of training samples. Empty unless either varies.

    Intervals are 1.96 standard errors over families, which share controls: descriptions, not tests.
    """
    end = table[table["moment"] == "end"].merge(gap_table[["trial", "gap_accuracy", "test_error"]], on="trial")
    if len(end[["num_parameters", "train_size"]].drop_duplicates()) < 2:
        return pd.DataFrame()
    end["parameters_per_sample"] = end["num_parameters"] / end["train_size"]
    values = ["outside", "null_outside", "nearest", "null_nearest", "scale", "changed", "crossings", "gap_accuracy", "test_error"]
    keys = ["layer", "num_parameters", "train_size", "parameters_per_sample", "num_features", "num_points"]
    grouped = end.groupby(keys, sort=True)[values]
    mean, error = grouped.mean(), 1.96 * grouped.sem()
    found = mean.join((mean - error).add_suffix("_low")).join((mean + error).add_suffix("_high"))
    found["num_families"] = end.groupby(keys).size()
    return found.reset_index().assign(estimator="means over families +- 1.96 standard errors")


def families_with(store: Store, only: Collection[str] | None) -> pd.DataFrame:
    """The families of the analysis that have the table `hull`."""
    trials = families(store, only)
    return trials[trials["trial"].isin(tables.names(store, "hull"))].reset_index(drop=True)
