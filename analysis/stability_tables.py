"""Stability to diffeomorphisms, of families: means over replicas, what swaps change, and how it goes with size. Tables in, tables out."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import tables
from analysis.measures.generalization import PREDICTORS
from analysis.probe_tables import ESTIMATORS
from analysis.spreads import FAMILY_COLUMNS, base_recipe, families, varied_keys
from analysis.storage import Store

QUANTITIES = {"diffeo": "D", "noise": "G", "relative": "R"}
STANDARD = (3, 1.0)  # the published cut-off and displacement
STANDARD_ESTIMATOR = "official"  # that of the published relation
CONFIDENCE = 0.95
SIZE = "data.train_size"
MIN_SIZES = 3
_LAW = ["cut", "displacement_px"]
_LOOK = ["trial", "moment", "epoch", "layer", "is_output", *_LAW]


def recorded(store: Store, only: Collection[str] | None = None) -> pd.DataFrame:
    """The rows of `stability` of the families to compare, without the lists, and with the columns of the family."""
    trials = families(store, only)
    trials = trials[trials["trial"].isin(tables.names(store, "stability"))]
    lists = [c.name for c in tables.TABLES["stability"].columns if c.name.endswith(("_changes", "_squares"))]
    columns = [c for c in tables.TABLES["stability"].stable if c not in (*lists, "schedule", "schema_version")]
    rows = tables.read(store, "stability", columns, only=trials["trial"].tolist())
    rows["displacement_px"] = rows["displacement_px"].round(9)  # as asked for: rounding aside
    return rows.merge(trials[[*FAMILY_COLUMNS, "recipe"]], on="trial")


def standard_law(rows: pd.DataFrame) -> tuple[int, float]:
    """Cut-off and displacement that figures and sentences are of: the published ones where they were recorded, else the first."""
    laws = [(int(cut), float(px)) for cut, px in rows[_LAW].drop_duplicates().itertuples(index=False)]
    return STANDARD if STANDARD in laws else laws[0]


def log_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Per family, moment, layer, law and estimator: D, G and R as exp of the mean log over replicas, with its standard error in logs.

    `<quantity>_values` are those of each replica by its index. Replicas without a positive number (diverged, or all outputs the same) are
    left out and counted.
    """
    found = []
    for estimator in ESTIMATORS:
        names = {f"{quantity}_{estimator}": quantity for quantity in QUANTITIES}
        values = rows[[*_LOOK, "replica", *names]].rename(columns=names).sort_values([*_LOOK, "replica"])
        logs = values[[*QUANTITIES]].map(lambda value: np.log(value) if value > 0 else np.nan)
        logs[logs.isna().any(axis=1)] = np.nan
        grouped = pd.concat([values[_LOOK], logs], axis=1).groupby(_LOOK, sort=False)
        table = grouped[[*QUANTITIES]].mean().map(np.exp)
        for quantity in QUANTITIES:
            table[f"{quantity}_se_log"] = grouped[quantity].sem()
            table[f"{quantity}_values"] = grouped[quantity].agg(lambda v: np.exp(v.to_numpy()))
        table["num_replicas"] = grouped["relative"].count()
        table["num_dropped"] = grouped["relative"].size() - table["num_replicas"]
        found.append(table.reset_index().assign(estimator=estimator))
    whole = pd.concat(found, ignore_index=True)
    of_look = rows.drop_duplicates(_LOOK)[[*_LOOK, "diffeo_set", "temperature", "num_images", "num_folded", "pooling"]]
    of_family = rows.drop_duplicates("trial")[[*FAMILY_COLUMNS, "recipe"]]
    return whole.merge(of_look, on=_LOOK).merge(of_family, on="trial")


def exchanged(schedule: str, epoch: int) -> str:
    """What the swap at an epoch exchanges: activation, loss or both."""
    phases = {int(start): functions.split("/") for start, _, functions in (phase.partition(":") for phase in schedule.split())}
    before, after = phases[max(start for start in phases if start < epoch)], phases[epoch]
    if before[0] == after[0]:
        return "loss" if before[1] != after[1] else "other"
    return "activation" if before[1] == after[1] else "both"


def swaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Per family, swap, layer and law: the factor by which R changes at 0 steps (exp of the mean log over replicas), per estimator, and
    whether D, G and R of every replica are the same bit for bit, as they must be where the loss alone is exchanged."""
    numbers = [f"{quantity}_{estimator}" for quantity in QUANTITIES for estimator in ESTIMATORS]
    key = ["trial", "epoch", "layer", "is_output", *_LAW, "replica"]
    sides = [rows.loc[rows["moment"] == moment, [*key, *numbers]] for moment in ("before_swap", "after_swap")]
    both = sides[0].merge(sides[1], on=key, suffixes=("", "_after"))
    columns: dict[str, Any] = {}
    same = np.ones(len(both), dtype=bool)
    for name in numbers:
        before, after = both[name].to_numpy(), both[f"{name}_after"].to_numpy()
        same &= (before == after) | (np.isnan(before) & np.isnan(after))
    for estimator in ESTIMATORS:
        with np.errstate(divide="ignore", invalid="ignore"):
            columns[f"factor_{estimator}"] = np.log(both[f"relative_{estimator}_after"] / both[f"relative_{estimator}"])
    whole = pd.concat([both[key], pd.DataFrame(columns, index=both.index)], axis=1).assign(identical=same)
    grouped = whole.groupby(key[:-1], sort=False)
    found = (
        pd.DataFrame(np.exp(grouped[[*columns]].mean()))
        .assign(identical=grouped["identical"].all(), num_replicas=grouped.size())
        .reset_index()
    )
    schedules = rows.drop_duplicates("trial").set_index("trial")["schedule"]
    found["exchanged"] = [exchanged(schedules[trial], int(epoch)) for trial, epoch in zip(found["trial"], found["epoch"], strict=True)]
    return found


def with_errors(means: pd.DataFrame, gaps: pd.DataFrame) -> pd.DataFrame:
    """Log means at the end of training with each family's mean gap and test error, and those of its replicas (`<predictor>_values`)."""
    predicted = [predictor for predictor in PREDICTORS if predictor in gaps]
    columns = ["trial", *predicted, *[f"{predictor}_values" for predictor in predicted]]
    return means[means["moment"] == "end"].merge(gaps[columns], on="trial")


def settings(store: Store, means: pd.DataFrame) -> pd.DataFrame:
    """Per family what the sweep varies of the base recipe: trial, and a column per key; lists as JSON."""
    table = means.drop_duplicates("trial")[["trial", "recipe"]].reset_index(drop=True)
    recipes = [base_recipe(json.loads(text)) for text in table["recipe"]]
    for key in varied_keys(store):
        section, _, name = key.partition(".")
        values = [recipe.get(section, {}).get(name) for recipe in recipes]
        table[key] = [json.dumps(value) if isinstance(value, (list, dict)) else value for value in values]
    return table.drop(columns="recipe")


def over_sizes(means: pd.DataFrame, varied: pd.DataFrame, *, num_bootstrap: int = 2000, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """R of the output at the end over the training size P: the exponent b of R ~ P^b, and the mean at each size.

    A row per what else of the base recipe varies, group (controls, stressed), law and estimator. b is the slope of the mean log R over
    log P, by least squares over families that were trained at every size; the interval resamples seeds (jointly at all sizes, which share
    them) and families (each at all its sizes). Empty without three sizes.
    """
    if SIZE not in varied or varied[SIZE].nunique() < MIN_SIZES:
        return pd.DataFrame(), pd.DataFrame()
    others = [str(key) for key in varied if key not in ("trial", SIZE)]
    table = means[(means["moment"] == "end") & means["is_output"]].merge(varied, on="trial")
    table["group"] = np.where(table["swap_epoch"].isna(), "controls", "stressed")
    slopes, points = [], []
    for key, rows in table.groupby([*others, "group", *_LAW, "estimator"], sort=False, dropna=False):
        cells = rows.pivot(index="schedule", columns=SIZE, values="relative_values").dropna()
        if cells.shape[1] < MIN_SIZES or cells.empty:
            continue
        logs = np.log(_stack([_stack(list(row)) for row in cells.to_numpy()]))  # [family, size, replica]
        slope, curve = _slopes(np.log(cells.columns.to_numpy(np.float64)), logs, num_bootstrap, seed)
        same: dict[str, Any] = dict(zip([*others, "group", *_LAW, "estimator"], key, strict=True))
        same |= {"num_families": len(logs), "num_replicas": logs.shape[2], "num_bootstrap": num_bootstrap, "seed": seed}
        low, high = interval(slope[1:])
        slopes.append(same | {"exponent": slope[0], "exponent_low": low, "exponent_high": high, "num_sizes": logs.shape[1]})
        for index, size in enumerate(cells.columns):
            low, high = np.exp(interval(curve[1:, index]))
            points.append(same | {SIZE: size, "relative": np.exp(curve[0, index]), "relative_low": low, "relative_high": high})
    return pd.DataFrame(slopes), pd.DataFrame(points)


def _stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of lengths that may differ along the last axis, as one; NaN where one is shorter."""
    longest = max(row.shape[-1] for row in rows)
    return np.stack([np.pad(row, [*[(0, 0)] * (row.ndim - 1), (0, longest - row.shape[-1])], constant_values=np.nan) for row in rows])


def _slopes(log_sizes: np.ndarray, logs: np.ndarray, num_bootstrap: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Slope `[resample]` and means `[resample, size]` of log R `[family, size, replica]`; the first are those of what was seen."""
    num_families, _, num_replicas = logs.shape
    generator = np.random.default_rng([seed, num_families, num_replicas])
    replicas, of_families = (
        np.vstack([np.ones(num), generator.multinomial(num, np.full(num, 1 / num), num_bootstrap)]) for num in (num_replicas, num_families)
    )
    there = np.isfinite(logs).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_family = np.einsum("bk,fsk->bfs", replicas, np.nan_to_num(logs)) / np.einsum("bk,fsk->bfs", replicas, there)
        known = np.isfinite(per_family) * of_families[:, :, None]
        means = (np.nan_to_num(per_family) * known).sum(1) / known.sum(1)
    x = log_sizes - log_sizes.mean()
    return means @ x / (x @ x), means


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values; NaN ones are left out."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
