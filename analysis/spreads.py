"""The spread of every family, per moment, layer and measure: tables in, a table out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis import tables
from analysis.logits import logits
from analysis.measures.calibration import null_cka, participation_ratios
from analysis.measures.dispersion import Spread, spread, spread_intervals
from analysis.measures.similarity import DEFAULT_MEASURES, MEASURES
from analysis.storage import Store

CONFIDENCE = 0.95
FAMILY_COLUMNS = [
    "trial",
    "schedule",
    "control",
    "swapped",
    "swap_epoch",
    "first_activation",
    "first_loss",
    "last_activation",
    "last_loss",
]
NUMBERS = [
    "spread",
    "spread_se",
    "spread_low",
    "spread_high",
    "null_similarity",
    "spread_calibrated",
    "participation_ratio",
    "mean_distance",
]
COLUMNS = [
    *FAMILY_COLUMNS,
    "moment",
    "epoch",
    "layer",
    "measure",
    *NUMBERS,
    "num_replicas",
    "num_dropped",
    "num_samples",
    "width",
    "pairs",
    "estimator",
    "num_bootstrap",
    "seed",
    "reason",
]


def families(store: Store, only: Collection[str] | None = None) -> pd.DataFrame:
    """The trials to compare: done, with activations, and in `only` (default: of the most frequent base recipe and probes).

    So no schedule is counted twice, however often the folder was used. Base recipes that differ only in what the sweep varies are one.
    """
    trials = tables.read(store, "trials")
    trials = trials[(trials["status"] == "done") & trials["trial"].isin(tables.names(store, "activations"))]
    if only is not None:
        trials = trials[trials["trial"].isin(list(only))]
    elif len(trials):
        keys = varied_keys(store)
        setups = trials["recipe"].map(lambda recipe: setup(json.loads(recipe), keys)) + ("" if keys else trials["base"])
        trials = trials[setups == setups.value_counts().sort_index().idxmax()]
    return trials.sort_values("trial", ignore_index=True)


def varied_keys(store: Store) -> list[str]:
    """The keys of the base recipe that the sweep in this folder varies, e.g. training.learning_rate."""
    if not store.exists("sweep.yaml"):
        return []
    sweep = yaml.safe_load(store.read("sweep.yaml"))
    return list(((sweep or {}).get("space") or {}).get("recipe") or {})


def base_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The sections data, model and training of a stored recipe, by their keys; the data as described, not as their hash."""
    return (recipe.get("base") or {}) | {"data": recipe.get("data") or {}}


def setup(recipe: dict[str, Any], keys: Sequence[str]) -> str:
    """What families that differ in these keys of the base recipe have in common: probes, and the base recipe without them."""
    base = recipe.get("base") or {}
    if any(key.startswith("data.") for key in keys):  # the hash of the data varies with what is varied; their description does not
        base = base_recipe(recipe)
    common = {
        name: {field: value for field, value in stated(part).items() if f"{name}.{field}" not in keys} if isinstance(part, dict) else part
        for name, part in base.items()
    }
    return json.dumps([stated(recipe.get("probes") or {}), common if keys else None], sort_keys=True)


def stated(options: dict[str, Any]) -> dict[str, Any]:
    """Options that are not null: results from before there was one lack it, and are no other setup for that."""
    return {name: value for name, value in options.items() if value is not None}


def divergence_epochs(store: Store, trials: Sequence[str]) -> dict[str, np.ndarray]:
    """Per family, the epoch `[replica]` at which each replica diverged; infinity if it never did."""
    replicas = tables.read(store, "replicas", ["trial", "replica", "diverged_at"], only=trials)
    replicas = replicas.sort_values(["trial", "replica"])
    return {str(trial): rows["diverged_at"].astype(np.float64).fillna(np.inf).to_numpy() for trial, rows in replicas.groupby("trial")}


def spreads(
    store: Store,
    measures: Sequence[str] = DEFAULT_MEASURES,
    only: Collection[str] | None = None,
    layers: Collection[str] | None = None,
    moments: Collection[str] | None = None,
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The spread of every family, per moment, epoch, layer and measure; of the layers and moments named, by default all.

    Replicas that diverged at or before the moment, and those whose representation is constant or not finite, are
    dropped and counted. Functional measures have rows for the layer of the logits alone, none where it was not recorded.
    Columns: those of the family, then moment, epoch, layer, measure, spread, spread_se (jackknife
    over replicas), spread_low and spread_high (95 % percentile bootstrap over replicas, pairs of a replica with itself dropped),
    null_similarity (mean CKA of the same representations with their samples shuffled; null for other measures than cka),
    spread_calibrated (spread / (1 - null_similarity): 1 for networks that share nothing), participation_ratio (mean over replicas),
    mean_distance, num_replicas, num_dropped, num_samples (rows compared per replica), width (features), pairs (d^2 / 2 of each pair
    of replicas, row by row of the upper triangle, NaN for those dropped), estimator, num_bootstrap, seed, reason (why
    there is no spread, else empty).
    """
    trials = families(store, only)
    diverged_at = divergence_epochs(store, trials["trial"].tolist())
    rows = []
    seen: dict[tuple[str, bytes, bytes], Spread] = {}  # families with the same history have the same representations
    ratios_of: dict[tuple[bytes, bytes], np.ndarray] = {}
    functional = any(MEASURES[name].kind == "functional" for name in measures)
    for family, dataset in zip(trials[FAMILY_COLUMNS].to_dict("records"), trials["dataset"], strict=True):
        answers = logits(store, family["trial"], dataset) if functional else None
        labels = answers.labels if answers is not None else None
        for (moment, epoch, layer), X in tables.read_activations(store, family["trial"], moments, layers).items():
            present = diverged_at[family["trial"]] > epoch
            looks = hashlib.sha256(X.tobytes()).digest(), present.tobytes()
            if looks not in ratios_of:
                ratios_of[looks] = participation_ratios(X, present)
            ratios = ratios_of[looks]
            for name in measures:
                measure, key = MEASURES[name], (name, *looks)
                if answers is not None and not answers.applies(measure, layer):
                    continue
                if key not in seen:
                    seen[key] = spread(measure.distances_of(X, present, labels))
                found = seen[key]
                reason = ""
                if found.num_replicas < 2:
                    reasons = (measure.reason(x, labels) for x in X[present])
                    reason = next(filter(None, reasons), f"{found.num_replicas} of {len(X)} replicas")
                null = null_cka(ratios, X.shape[1]) if name == "cka" else np.nan
                rows.append(
                    family
                    | {
                        "moment": moment,
                        "epoch": epoch,
                        "layer": layer,
                        "measure": name,
                        "spread": found.spread,
                        "spread_se": found.spread_se,
                        "null_similarity": null,
                        "spread_calibrated": found.spread / (1 - null) if null < 1 else np.nan,
                        "participation_ratio": float(np.mean(ratios[np.isfinite(ratios)])) if np.isfinite(ratios).any() else np.nan,
                        "mean_distance": found.mean_distance,
                        "num_replicas": found.num_replicas,
                        "num_dropped": found.num_dropped,
                        "num_samples": X.shape[1],
                        "width": X.shape[2],
                        "pairs": found.pairs,
                        "estimator": f"{measure.spread_title}; standard error by jackknife over replicas; interval by percentiles "
                        "of a bootstrap over replicas",
                        "num_bootstrap": num_bootstrap,
                        "seed": seed,
                        "reason": reason,
                    }
                )
    table = pd.DataFrame(rows, columns=COLUMNS)
    low, high = spread_intervals(table["pairs"].tolist(), num_bootstrap, CONFIDENCE, seed)
    table["spread_low"], table["spread_high"] = low, high
    return table.astype({"swap_epoch": "Int32", **dict.fromkeys(NUMBERS, "float64")})


def at_first_swap(spread_table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one moment each per family: of the moments around swaps, those around the first swap."""
    around = spread_table["moment"].isin(["before_swap", "after_swap"])
    return spread_table[~around | (spread_table["epoch"] == spread_table["swap_epoch"]).fillna(False)]
