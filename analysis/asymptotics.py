"""The asymptotic claim: do the networks of a family become alike as training sets or networks grow? Tables in, tables out.

Spread at the end of training against an axis of sizes that the sweep varied, for controls and for stressed families, with the fit
s = s_inf + a (n / n_0)^-b. The same schedules are compared at all sizes, on equally many probe samples.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import tables
from analysis.akp import PRIMARY_MEASURE, PRIMARY_MOMENT, divergence_epochs, families
from analysis.measures.power_law import EXPONENTS, fit
from analysis.measures.similarity import MEASURES
from analysis.spreads import base_recipe, setup, varied_keys
from analysis.storage import Store

AXES = ("data.train_size", "model.widths")
MIN_SIZES, MIN_RANGE = 4, 4.0  # three parameters need a fourth size; sizes nearer together say little about a limit
# Converging is a limit below this share of the spread at the smallest size, with its whole interval.
CONVERGED_SHARE = 0.5
CONFIDENCE = 0.95
GROUPS = ("controls", "stressed")


class Axis(NamedTuple):
    """Families along an axis of sizes: those of one unit differ in nothing but their size."""

    key: str
    sizes: list[float]
    trials: pd.DataFrame  # unit, size, trial, group
    num_dropped: int  # families whose unit lacks a size
    reason: str  # why there is nothing to fit, else empty


def asymptotics(
    store: Store,
    measures: Sequence[str] = (PRIMARY_MEASURE,),
    only: Collection[str] | None = None,
    *,
    layers: Collection[str] | None = None,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per axis, group (controls, stressed), measure and layer: the fit with its statement; and the mean spread at each size.

    Weighted least squares on the group's mean spread at each size, weights from the bootstrap's variances. Intervals are percentiles
    over a bootstrap that resamples seeds (jointly in all families and at all sizes, which share them; pairs of a seed with itself left
    out) and units (a family at all its sizes), which makes them wide rather than narrow. `share` is s_inf over the spread at the smallest
    size, within each resample.

    The statement is converging where the spread falls (interval of `change` below 0) and the interval of `share` lies below
    CONVERGED_SHARE; not converging where that interval lies above it, or the spread rises; else undecided, with the reason. Layers
    whose number of features varies with the size are undecided: spreads depend on it. Both tables are empty where no axis was varied.
    """
    fits, spreads = [], []
    for axis in find_axes(store, only):
        if axis.reason:
            fits.append({"axis": axis.key, "statement": "undecided", "reason": axis.reason, "num_dropped": axis.num_dropped})
            continue
        for name in measures:
            for layer, found in _half_squares(store, axis, name, layers).items():
                rows = _fit_layer(axis, layer, *found, num_bootstrap, seed)
                for row, per_size in rows:
                    named = {"axis": axis.key, "group": row["group"], "measure": name, "moment": PRIMARY_MOMENT, "layer": layer}
                    estimator = f"weighted least squares on mean spread ({MEASURES[name].spread_title}) per size, b in {list(EXPONENTS)}"
                    interval = f"{CONFIDENCE:.0%} percentile bootstrap over seeds and families, {num_bootstrap} resamples"
                    fits.append(named | row | {"estimator": f"{estimator}; {interval}", "num_bootstrap": num_bootstrap, "seed": seed})
                    spreads += [named | size for size in per_size]
    kinds = dict.fromkeys(["group", "measure", "layer", "statement", "reason"], "string") | dict.fromkeys(_INTERVALS, np.float64)
    return pd.DataFrame(fits, columns=FIT_COLUMNS).astype(kinds), pd.DataFrame(spreads, columns=SPREAD_COLUMNS)


_ESTIMATES = ("s_inf", "a", "b", "share", "change", "s_inf_minus_controls")
_INTERVALS = [column for name in _ESTIMATES for column in (name, f"{name}_low", f"{name}_high")]
_NAMES = ["axis", "group", "measure", "moment", "layer"]
FIT_COLUMNS = [
    *_NAMES, "statement", "reason", *_INTERVALS, "n_0", "num_sizes", "num_families", "num_dropped", "num_replicas", "num_samples",
    "estimator", "num_bootstrap", "seed",
]  # fmt: skip
SPREAD_COLUMNS = [*_NAMES, "size", "spread", "spread_low", "spread_high", "width", "num_families"]


def find_axes(store: Store, only: Collection[str] | None = None) -> list[Axis]:
    """The axes of sizes that the sweep in this folder varied."""
    keys = [key for key in varied_keys(store) if key in AXES]
    trials = families(store, only) if keys else pd.DataFrame()
    recipes = [json.loads(recipe) for recipe in trials["recipe"]] if len(trials) else []
    found = []
    for key in keys:
        values = _train_sizes(store, trials, recipes) if key == "data.train_size" else _width_sizes(recipes)
        table = pd.DataFrame({
            "unit": [f"{s} {setup(recipe, [key])}" for s, recipe in zip(trials["schedule"], recipes, strict=True)],
            "size": np.asarray(values, np.float64),
            "trial": trials["trial"],
            "group": np.where(trials["swapped"] == "none", *GROUPS),
        })  # fmt: skip
        sizes = sorted(table["size"].dropna().unique())
        counts = table.dropna().groupby("unit")["size"].nunique()
        kept = table[table["unit"].isin(counts[counts == len(sizes)].index)].sort_values(["unit", "size"], ignore_index=True)
        reason = ""
        if table["size"].isna().any():
            reason = f"{key}: networks whose widths are not multiples of one another have no common size"
        elif len(sizes) < MIN_SIZES:
            reason = f"{len(sizes)} sizes, fewer than {MIN_SIZES}"
        elif sizes[-1] < MIN_RANGE * sizes[0]:
            reason = f"sizes {sizes[0]:g} to {sizes[-1]:g} span less than a factor of {MIN_RANGE:g}"
        elif kept.empty:
            reason = "no schedule is there at every size"
        found.append(Axis(key, sizes, kept, len(table) - len(kept), reason))
    return found


def _train_sizes(store: Store, trials: pd.DataFrame, recipes: list[dict[str, Any]]) -> list[float]:
    """Training samples of each family: as asked for, else all that its data have."""
    samples = tables.read(store, "samples", ["dataset", "split"])
    whole = samples[samples["split"] == "train"].groupby("dataset").size()
    asked = [base_recipe(recipe)["data"].get("train_size") for recipe in recipes]
    return [whole.get(dataset, np.nan) if size is None else size for dataset, size in zip(trials["dataset"], asked, strict=True)]


def _width_sizes(recipes: list[dict[str, Any]]) -> list[float]:
    """The geometric mean of each family's widths; NaN for all unless every list is a multiple of every other."""
    lists = [base_recipe(recipe).get("model", {}).get("widths") or [] for recipe in recipes]
    if not all(lists) or len({len(widths) for widths in lists}) > 1:
        return [np.nan] * len(lists)
    log = np.log(np.array(lists, dtype=np.float64))
    relative = log - log.mean(axis=1, keepdims=True)
    return np.exp(log.mean(axis=1)).tolist() if np.ptp(relative, axis=0).max() < 1e-9 else [np.nan] * len(lists)


def _half_squares(store: Store, axis: Axis, measure: str, layers: Collection[str] | None) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Per layer, all of them or those named: d^2 / 2 `[family, replica, replica]` in the order of `axis.trials`, features `[family]`, and
    probe samples.

    NaN where a replica diverged or has no representation, and on the diagonal. Layers that not every family has are left out, as are
    those with unequal numbers of samples.
    """
    diverged_at = divergence_epochs(store, axis.trials["trial"].tolist())
    num_replicas = max(map(len, diverged_at.values()))
    matrices: dict[str, list[np.ndarray]] = {}
    shapes: dict[str, list[tuple[int, int]]] = {}
    for trial in axis.trials["trial"]:
        for (_, epoch, layer), X in tables.read_activations(store, trial, PRIMARY_MOMENT, layers).items():
            squares = np.full((num_replicas, num_replicas), np.nan)
            squares[: len(X), : len(X)] = MEASURES[measure].distances_of(X, diverged_at[trial] > epoch) ** 2 / 2
            np.fill_diagonal(squares, np.nan)
            matrices.setdefault(layer, []).append(squares)
            shapes.setdefault(layer, []).append((X.shape[1], X.shape[2]))
    return {
        layer: (np.stack(matrices[layer]), np.array([width for _, width in found]), found[0][0])
        for layer, found in shapes.items()
        if len(found) == len(axis.trials) and len({num_samples for num_samples, _ in found}) == 1
    }


def _fit_layer(
    axis: Axis, layer: str, squares: np.ndarray, widths: np.ndarray, num_samples: int, num_bootstrap: int, seed: int
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """A row of fits and the rows per size, for each group that has families."""
    sizes, num_sizes, num_replicas = np.array(axis.sizes), len(axis.sizes), squares.shape[1]
    generator = np.random.default_rng([seed, num_replicas])
    seeds = np.vstack([np.ones(num_replicas), generator.multinomial(num_replicas, np.full(num_replicas, 1 / num_replicas), num_bootstrap)])
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    limits: dict[str, np.ndarray] = {}  # by group [resample]; resamples of seeds are the same in both
    for group in GROUPS:
        mine = (axis.trials["group"] == group).to_numpy()
        if not mine.any():
            continue
        per_family = _spreads(squares[mine], seeds).reshape(len(seeds), -1, num_sizes)  # [resample, unit, size]; 0 is what was seen
        num_units = per_family.shape[1]
        units = np.vstack([np.ones(num_units), generator.multinomial(num_units, np.full(num_units, 1 / num_units), num_bootstrap)])
        there = np.isfinite(per_family) * units[:, :, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (np.nan_to_num(per_family) * there).sum(1) / there.sum(1)  # [resample, size]
        row: dict[str, Any] = {
            "group": group, "n_0": sizes[0], "num_sizes": num_sizes, "num_families": num_units, "num_dropped": axis.num_dropped,
            "num_replicas": num_replicas, "num_samples": num_samples,
        }  # fmt: skip
        defined = np.isfinite(means).all(axis=1)  # resamples with a spread at every size
        usable = means[defined]
        if not defined[0] or len(usable) < 2:
            found.append((row | {"statement": "undecided", "reason": "no spread at some size"}, []))
            continue
        variances = usable[1:].var(axis=0)
        fitted = fit(sizes, usable, 1 / np.maximum(variances, 1e-6 * variances.max() + 1e-300))
        limits[group] = np.full(len(means), np.nan)
        limits[group][defined] = fitted.limit
        estimates = {
            "s_inf": fitted.limit, "a": fitted.amplitude, "b": fitted.exponent, "share": fitted.limit / usable[:, 0],
            "change": usable[:, -1] - usable[:, 0],
        }  # fmt: skip
        if group == "stressed" and "controls" in limits:
            estimates["s_inf_minus_controls"] = limits["stressed"] - limits["controls"]
        for name, values in estimates.items():
            row |= {name: float(values[0])} | dict(zip((f"{name}_low", f"{name}_high"), _interval(values[1:]), strict=True))
        statement, reason = state(row, sorted(set(widths[mine].tolist())))
        per_size = [
            {"group": group, "size": size, "spread": means[0, k], "width": widths[mine].reshape(num_units, -1)[0, k],
             "num_families": num_units} | dict(zip(("spread_low", "spread_high"), _interval(usable[1:, k]), strict=True))
            for k, size in enumerate(sizes)
        ]  # fmt: skip
        found.append((row | {"statement": statement, "reason": reason}, per_size))
    return found


def _spreads(squares: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Mean d^2 / 2 `[resample, family]` over pairs of different seeds, each as often as both are drawn: counts `seeds [resample, seed]`."""
    known = np.isfinite(squares).astype(np.float64)
    total = np.einsum("bi,fij,bj->bf", seeds, np.nan_to_num(squares), seeds, optimize=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / np.einsum("bi,fij,bj->bf", seeds, known, seeds, optimize=True)


def _interval(values: np.ndarray) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def state(row: dict[str, Any], widths: Sequence[int]) -> tuple[str, str]:
    """The statement from a row of fits, and the reason where it is undecided; `widths` are the numbers of features over the sizes."""
    if len(widths) > 1:
        return "undecided", f"{', '.join(map(str, widths))} features: spreads depend on their number and are not calibrated for it"
    if row["change_low"] == row["change_high"]:
        return "undecided", "the families and seeds are too few to resample, so that nothing has an interval"
    if row["change_low"] > 0:
        return "not converging", "the spread rises"
    if row["b"] <= EXPONENTS[0] * 1.001:
        return "undecided", f"the spread falls more slowly than n^-{EXPONENTS[0]:g}: no limit is in sight"
    if row["change_high"] < 0 and row["share_high"] < CONVERGED_SHARE:
        return "converging", ""
    if row["share_low"] > CONVERGED_SHARE:
        return "not converging", f"it levels off above {CONVERGED_SHARE:g} of the spread at n = {row['n_0']:g}"
    shown = f"[{row['share_low']:.2f}, {row['share_high']:.2f}]"
    return "undecided", f"the limit is {shown} of the spread at n = {row['n_0']:g}, which includes {CONVERGED_SHARE:g}"


def sentences(fits: pd.DataFrame, measure: str = PRIMARY_MEASURE) -> list[str]:
    """The statements of one measure, a line per axis and group."""
    lines = [f"Asymptotics over {row.axis}: undecided: {row.reason}" for row in fits[fits["group"].isna()].itertuples()]
    for (axis, group), rows in fits[fits["measure"] == measure].groupby(["axis", "group"], sort=False):
        said = ", ".join(f"{r.layer} {r.statement} ({r.share:+.2f} [{r.share_low:+.2f}, {r.share_high:+.2f}])" for r in rows.itertuples())
        first = rows.iloc[0]
        lines.append(
            f"Asymptotics over {axis}, {group} ({first['num_families']} families of {first['num_replicas']} replicas at "
            f"{first['num_sizes']} sizes; limit as a share of the spread at n = {first['n_0']:g}): {said}."
        )
    return lines
