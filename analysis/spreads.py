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
from analysis.measures.calibration import NULL_LEVEL, null_cka, null_spreads, participation_ratios
from analysis.measures.dispersion import Spread, spread, spread_intervals
from analysis.measures.similarity import DEFAULT_MEASURES, MEASURES, Measure
from analysis.reading import Unreadable, reading
from analysis.storage import Store
from analysis.wording import counted

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
    "null_spread",
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
    "calibration",
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
        recipes = trials.set_index("trial")["recipe"].items()
        setups = pd.Series([setup(_recipe(store, str(trial), text), keys) for trial, text in recipes], trials.index)
        setups += "" if keys else trials["base"]
        trials = trials[setups == setups.value_counts().sort_index().idxmax()]
    return trials.sort_values("trial", ignore_index=True)


def varied_keys(store: Store) -> list[str]:
    """The keys of the base recipe that the sweep in this folder varies, e.g. training.learning_rate. Raises Unreadable."""
    return list(section(store, "space", "recipe"))


def section(store: Store, *path: str) -> dict[str, Any]:
    """A section of the sweep file in this folder; empty where there is none. Raises Unreadable where something else stands there."""
    if not store.exists("sweep.yaml"):
        return {}
    try:
        found: Any = yaml.safe_load(store.read("sweep.yaml")) or {}
        for key in path:
            if not isinstance(found, dict):
                raise Unreadable(f"what should hold {key} is {found!r}")
            found = found.get(key) or {}
        if not (isinstance(found, dict) and all(isinstance(key, str) for key in found)):
            raise Unreadable(f"{'.'.join(path)} is {found!r}")
    except (yaml.YAMLError, UnicodeDecodeError, Unreadable) as error:
        raise Unreadable(f"{store.root}/sweep.yaml: no sweep file: {' '.join(str(error).split())}; the sweep writes it anew") from error
    return found


def _recipe(store: Store, trial: str, text: Any) -> dict[str, Any]:
    """The recipe as stored with a family."""
    with reading(f"{store.root}/trials/{trial}.parquet"):
        found = json.loads(text) if isinstance(text, str) and text.startswith("{") and text.endswith("}") else None
        if not isinstance(found, dict):
            raise Unreadable("its column recipe holds no JSON object")
        return found


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
    for trial in sorted({*trials} - {*replicas["trial"]}):
        with reading(f"{store.root}/replicas/{trial}.parquet"):
            raise Unreadable("it has no row of its family")
    replicas = replicas.sort_values(["trial", "replica"])
    return {str(trial): rows["diverged_at"].astype(np.float64).fillna(np.inf).to_numpy() for trial, rows in replicas.groupby("trial")}


def spreads(
    store: Store,
    measures: Sequence[str] = DEFAULT_MEASURES,
    only: Collection[str] | None = None,
    layers: Collection[str] | None = None,
    moments: Collection[str] | None = None,
    *,
    num_shuffles: int = 0,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The spread of every family, per moment, epoch, layer and measure; of the layers and moments named, by default all.

    Replicas that diverged at or before the moment, and those whose representation is constant or not finite, are
    dropped and counted. Functional measures have rows for the layer of the logits alone, none where it was not recorded.
    Columns: those of the family, then moment, epoch, layer, measure, spread, spread_se (jackknife over replicas), spread_low and
    spread_high (95 % percentile bootstrap over replicas, pairs of a replica with itself dropped), null_spread (that of the same
    representations with the samples of each shuffled, so that they share nothing: for cka its mean over all permutations, which needs
    none drawn; for other measures, where `num_shuffles` of each network are asked for, the 5 % quantile over pairs, that is 1 - the 95
    % quantile of their similarity, else NaN), spread_calibrated (spread / null_spread = 1 - (s - tau) / (1 - tau), with s the mean
    similarity and tau that of networks that share nothing: 1 for those), calibration (how null_spread was estimated),
    participation_ratio (mean over replicas), mean_distance, num_replicas, num_dropped, num_samples (rows compared per replica), width
    (features), pairs (d^2 / 2 of each pair of replicas, row by row of the upper triangle, NaN for those dropped), estimator,
    num_bootstrap, seed, reason (why there is no spread, else empty).
    """
    trials = families(store, only)
    diverged_at = divergence_epochs(store, trials["trial"].tolist())
    rows = []
    seen: dict[tuple[str, bytes, bytes], tuple[Spread, float, str]] = {}  # families of one history have the same representations
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
                    null = _null_spread(measure, X, present, labels, ratios, num_shuffles, seed)
                    seen[key] = spread(measure.distances_of(X, present, labels)), *null
                found, null_spread, calibration = seen[key]
                reason = ""
                if found.num_replicas < 2:
                    reasons = (measure.reason(x, labels) for x in X[present])
                    reason = next(filter(None, reasons), f"{found.num_replicas} of {counted(len(X), 'replica')}")
                rows.append(
                    family
                    | {
                        "moment": moment,
                        "epoch": epoch,
                        "layer": layer,
                        "measure": name,
                        "spread": found.spread,
                        "spread_se": found.spread_se,
                        "null_spread": null_spread,
                        "spread_calibrated": found.spread / null_spread if null_spread > 0 else np.nan,
                        "calibration": calibration,
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


def _null_spread(
    measure: Measure,
    X: np.ndarray,
    present: np.ndarray,
    labels: np.ndarray | None,
    ratios: np.ndarray,
    num_shuffles: int,
    seed: int,
) -> tuple[float, str]:
    """`null_spread` of `spreads`, and how it was estimated; NaN and nothing where it was not."""
    if measure.name == "cka":
        return 1 - null_cka(ratios, X.shape[1]), "mean over all permutations of samples, closed form"
    if not num_shuffles:
        return np.nan, ""
    found = null_spreads(measure, X, present, labels if measure.needs_labels else None, num_shuffles, np.random.default_rng([seed, len(X)]))
    if not len(found):
        return np.nan, ""
    how = (
        f"{NULL_LEVEL:.0%} quantile of similarity over {counted(len(found), 'pair')} of networks, each in {counted(num_shuffles, 'order')}"
    )
    return float(np.quantile(found, 1 - NULL_LEVEL)), how


def calibrated(spread_table: pd.DataFrame) -> pd.DataFrame:
    """The table with spreads, their errors and intervals, and their pairs in units of the null spread: `comparable` at any shape."""
    scale = spread_table["null_spread"].where(spread_table["null_spread"] > 0)
    table = spread_table.assign(is_calibrated=True)
    for column in ("spread", "spread_se", "spread_low", "spread_high"):
        table[column] = table[column] / scale
    table["pairs"] = [pairs / unit for pairs, unit in zip(table["pairs"], scale, strict=True)]
    return table


def is_calibrated(rows: pd.DataFrame) -> bool:
    return "is_calibrated" in rows and bool(rows["is_calibrated"].all())


def spread_title(measure: str, rows: pd.DataFrame) -> str:
    """What the spreads of a measure in these rows are."""
    if measure not in MEASURES:  # another score of families, which goes by its own name
        return measure
    return ("calibrated: " if is_calibrated(rows) else "") + MEASURES[measure].spread_title


def comparable(rows: pd.DataFrame) -> pd.Series:
    """Which spreads `[row]` may be compared with each other, per measure, moment and layer: those of the commonest number of samples and
    width, since both raise or lower every spread; all that are calibrated for it."""
    if is_calibrated(rows) or len(rows[["num_samples", "width"]].drop_duplicates()) < 2:
        return pd.Series(True, rows.index)
    shapes = rows["num_samples"].astype(str) + " x " + rows["width"].astype(str)
    groups = [rows[column] for column in ("measure", "moment", "layer")]
    return shapes == shapes.groupby(groups, sort=False).transform(lambda of: of.value_counts().sort_index().idxmax())


def at_first_swap(spread_table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one moment each per family: of the moments around swaps, those around the first swap."""
    around = spread_table["moment"].isin(["before_swap", "after_swap"])
    return spread_table[~around | (spread_table["epoch"] == spread_table["swap_epoch"]).fillna(False)]
