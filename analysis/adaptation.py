"""How a family moves after its swap: spread, gap, and how far it is from the family that never swapped. Tables in, tables out.

Distances to the control family are on the scale of spread: mean d^2 / 2 over pairs of one network of each family, for linear CKA
1 - mean CKA. Pairs of the same seed tell how far a network has moved from what it would have been; pairs of different seeds are the
reference level. What the control looked like at an epoch is known from its own looks (init, the epochs in `probes.epochs`, end), and at
the epoch of a first swap from `before_swap` of any family that continues from it: it is the control's state.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from analysis import tables
from analysis.akp import CONFIDENCE, PRIMARY_MEASURE, divergence_epochs, families
from analysis.measures.dispersion import spread
from analysis.measures.similarity import MEASURES, Measure
from analysis.storage import Store

# Each `epochs` row and each look at the activations stands for one of these, in order of time.
ORDER = ("init", "epoch", "before_swap", "after_swap", "end")
FAMILY = [
    "trial", "schedule", "control", "swapped", "num_swaps", "swap_epoch", "last_swap_epoch", "first_activation", "first_loss",
    "last_activation", "last_loss",
]  # fmt: skip
COLUMNS = [
    *FAMILY, "moment", "epoch", "epochs_since_swap", "layer", "measure",
    "spread", "spread_se", "control_same_seed", "control_same_seed_se", "control_other_seeds", "control_other_seeds_se",
    "control_ratio", "control_ratio_se", "control_by_replica", "gap_accuracy", "gap_accuracy_se", "test_accuracy", "test_accuracy_se",
    "num_replicas", "num_dropped", "reason", "estimator",
]  # fmt: skip
RETURN_COLUMNS = [
    "trial", "schedule", "control", "swapped", "swap_epoch", "last_swap_epoch", "is_pulse", "layer", "measure",
    "distance_before", "distance_after_swap", "distance_end", "change", "change_low", "change_high", "ratio_end", "ratio_end_low",
    "ratio_end_high", "num_replicas", "statement", "reason", "estimator",
]  # fmt: skip


def adaptation(
    store: Store,
    measures: Sequence[str] = (PRIMARY_MEASURE,),
    only: Collection[str] | None = None,
    layers: Collection[str] | None = None,
    moments: Collection[str] | None = None,
) -> pd.DataFrame:
    """A row per family and time: with a layer where activations were recorded (of the layers and moments named, by default all), and
    without (layer null) at every evaluation.

    Rows with a layer have spread and distances to the control: `control_same_seed`, `control_other_seeds`, their ratio (0: the same
    networks; 1: no nearer than networks of other seeds), each with its standard error by jackknife over seeds, and the single distances
    of the same seed `control_by_replica` [replica]. Gap and test accuracy are means over replicas with their standard errors; NaN where
    there was no evaluation. `epochs_since_swap` counts from the first swap.
    """
    trials = families(store, only)
    trials = trials.assign(last_swap_epoch=trials["schedule"].map(last_swap_epoch))
    diverged_at = divergence_epochs(store, trials["trial"].tolist())
    evaluations: dict[str, dict[tuple[int, str], dict[str, float]]] = defaultdict(dict)
    for trial, epoch, moment, test, gap in accuracies(store, trials["trial"].tolist()).itertuples(index=False, name=None):
        evaluations[trial][epoch, moment] = _means({"gap_accuracy": gap, "test_accuracy": test})
    rows = []
    for control, group in trials.groupby("control", sort=True):
        known = _control_looks(store, str(control), group, layers)
        for family in group[FAMILY].to_dict("records"):
            mine = evaluations[family["trial"]]
            present = diverged_at[family["trial"]]
            rows += [
                family
                | {"moment": moment, "epoch": epoch}
                | _evaluated(mine, moment, epoch)
                | {"num_replicas": int((present > epoch).sum())}
                for epoch, moment in mine
            ]
            for (moment, epoch, layer), X in tables.read_activations(store, family["trial"], moments, layers).items():
                when = family | {"moment": moment, "epoch": epoch, "layer": layer} | _evaluated(mine, moment, epoch)
                there = present > epoch
                for name in measures:
                    other = known.get((epoch, layer))
                    both = there & (diverged_at.get(str(control), np.full(len(there), np.inf)) > epoch)
                    rows.append(when | {"measure": name} | _compare(MEASURES[name], X, other, there, both, epoch))
    found = pd.DataFrame(rows, columns=COLUMNS)
    found["epochs_since_swap"] = found["epoch"].astype("Int32") - found["swap_epoch"].astype("Int32")
    found["order"] = found["moment"].map(ORDER.index)
    found = found.sort_values(["trial", "epoch", "order"], kind="stable", ignore_index=True).drop(columns="order")
    kinds: dict[str, Any] = dict.fromkeys(["layer", "measure", "reason", "estimator"], "string")
    kinds |= {"swap_epoch": "Int32", "last_swap_epoch": "Int32"}
    numbers = [c for c in COLUMNS if c.endswith(("_se", "_accuracy")) or c.startswith("control_") or c == "spread"]
    return found.astype(kinds | dict.fromkeys([c for c in numbers if c != "control_by_replica"], np.float64))


def last_swap_epoch(schedule: str) -> int | None:
    """Where the last phase of a schedule, as written in the tables, starts; None for a control."""
    last = int(schedule.split()[-1].partition(":")[0])
    return last or None


def accuracies(store: Store, trials: Sequence[str]) -> pd.DataFrame:
    """Per family and evaluation (`epoch`, `moment`: epoch or after_swap): `test` accuracy and `gap`, lists `[replica]` in their order."""
    columns = ["trial", "epoch", "moment", "replica", "split", "accuracy"]
    rows = tables.read(store, "epochs", columns, [t for t in trials if t in set(tables.names(store, "epochs"))])
    wide = rows[rows["split"] != "val"].set_index(columns[:-1])["accuracy"].unstack("split")
    wide = wide.reindex(columns=["train", "test"]).astype(np.float64).sort_index().reset_index()
    wide["gap"] = wide["train"] - wide["test"]
    return wide.groupby(["trial", "epoch", "moment"], as_index=False)[["test", "gap"]].agg(list)


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Means over replicas and their standard errors, of what is finite."""
    found = {}
    for name, column in values.items():
        known = np.array(column)[np.isfinite(column)]
        found[name] = float(known.mean()) if len(known) else np.nan
        found[f"{name}_se"] = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else np.nan
    return found


def _evaluated(evaluations: Mapping[tuple[int, str], dict[str, float]], moment: str, epoch: int) -> dict[str, float]:
    """Gap and accuracy of a family at a moment: after a swap its own evaluation, else that at the end of the epoch."""
    return evaluations.get((epoch, "after_swap" if moment == "after_swap" else "epoch"), {})


def _control_looks(store: Store, control: str, group: pd.DataFrame, layers: Collection[str] | None) -> dict[tuple[int, str], np.ndarray]:
    """What the control family computes `[replica, sample, feature]` by epoch and layer, wherever that was recorded."""
    sources: list[tuple[str, str | None]] = []
    stressed = group.dropna(subset="swap_epoch").drop_duplicates("swap_epoch")
    for trial, swap_epoch in zip(stressed["trial"], stressed["swap_epoch"].astype(int), strict=True):
        sources.append((str(trial), f"before_swap/{swap_epoch}"))
    if control in set(group["trial"]):
        sources.append((control, None))  # its own looks last: they stand where both are there
    known: dict[tuple[int, str], np.ndarray] = {}
    for trial, at in sources:
        for (moment, epoch, layer), X in tables.read_activations(store, trial, None if at is None else "before_swap", layers).items():
            if at is None or f"{moment}/{epoch}" == at:
                known[epoch, layer] = X
    return known


def _compare(
    measure: Measure, X: np.ndarray, other: np.ndarray | None, there: np.ndarray, both: np.ndarray, epoch: int
) -> dict[str, object]:
    """Spread of a family X `[replica, sample, feature]`, and its distances to the control `other` of the same shape."""
    inside = "standard errors by jackknife over seeds"
    row: dict[str, object] = {"reason": "", "estimator": f"mean d^2 / 2, {measure.title}; {inside}"}
    if other is None or other.shape != X.shape:
        distances = measure.distances_of(X, there)
        missing = f"the control was not recorded at epoch {epoch}; probes.epochs records it"
        row["reason"] = missing if other is None else "the control has another number of replicas, samples or features"
    else:
        joint = measure.distances_of(np.concatenate([X, other]), np.concatenate([there, both]))
        distances, across = joint[: len(X), : len(X)], joint[: len(X), len(X) :] ** 2 / 2
        row |= _to_control(across)
    own = spread(distances)
    return row | {"spread": own.spread, "spread_se": own.spread_se, "num_replicas": own.num_replicas, "num_dropped": own.num_dropped}


def _to_control(across: np.ndarray) -> dict[str, object]:
    """From d^2 / 2 `[replica, replica of the control]`: means over the same and over other seeds, and their ratio."""
    row: dict[str, object] = {"control_by_replica": np.diagonal(across).tolist()}
    valid = np.isfinite(np.diagonal(across))
    kept = across[np.ix_(valid, valid)]
    m = len(kept)
    if m < 2:
        return row
    total, own = kept.sum(), np.diagonal(kept)

    def estimates(total: np.ndarray, own: np.ndarray, m: int) -> dict[str, np.ndarray]:
        same, other = own / m, (total - own) / (m * (m - 1)) if m > 1 else np.full_like(total, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"control_same_seed": same, "control_other_seeds": other, "control_ratio": same / other}

    left_out = estimates(total - kept.sum(axis=0) - kept.sum(axis=1) + own, own.sum() - own, m - 1)
    for name, value in estimates(np.array([total]), np.array([own.sum()]), m).items():
        row[name] = float(value[0])
        off = left_out[name] - left_out[name].mean()
        row[f"{name}_se"] = float(np.sqrt((m - 1) / m * (off**2).sum())) if m > 2 else np.nan
    return row


def returns(table: pd.DataFrame) -> pd.DataFrame:
    """Whether families come back to their controls after the last swap, per layer and measure; from the table of `adaptation`.

    The distance of the same seeds right after the last swap (0 steps) against the end: its mean change over seeds with a t interval.
    approaching or departing where that interval excludes 0, else undecided. For a pulse the last swap puts the first functions back.
    Before the first swap the distance is 0: the networks are the same.
    """
    stressed = table[table["swap_epoch"].notna() & table["layer"].notna()]
    looks: dict[tuple[str, ...], list[dict[Hashable, Any]]] = defaultdict(list)
    for look in stressed.to_dict("records"):
        looks[look["trial"], look["layer"], look["measure"]].append(look)
    numbers = [c for c in RETURN_COLUMNS if c.startswith(("distance", "change", "ratio"))]
    kinds: dict[str, Any] = dict.fromkeys(numbers, np.float64) | {"is_pulse": bool, "num_replicas": "Int32"}
    return pd.DataFrame(map(_return, looks.values()), columns=RETURN_COLUMNS).astype(kinds)


def _return(looks: list[dict[Hashable, Any]]) -> dict[str, Any]:
    first = looks[0]
    functions = [phase.partition(":")[2] for phase in first["schedule"].split()]
    row = {c: first[c] for c in RETURN_COLUMNS if c in first and c not in ("num_replicas", "reason")}
    row |= {"is_pulse": len(functions) == 3 and functions[0] == functions[-1], "statement": "undecided", "reason": ""}
    row["estimator"] = f"{first['estimator'].partition(';')[0]} of the same seeds; change: mean over seeds, {CONFIDENCE:.0%} t interval"
    when = {"before_swap": first["swap_epoch"], "after_swap": first["last_swap_epoch"], "end": None}
    found = {name: next((x for x in looks if x["moment"] == name and epoch in (None, x["epoch"])), None) for name, epoch in when.items()}
    for name, column in (("before_swap", "distance_before"), ("after_swap", "distance_after_swap"), ("end", "distance_end")):
        look = found[name]
        row[column] = np.nan if look is None else look["control_same_seed"]
    at_swap, at_end = found["after_swap"], found["end"]
    if at_swap is None or at_end is None:
        return row | {"reason": f"the moment {'after_swap' if at_swap is None else 'end'} was not recorded (probes.moments) or is left out"}
    if at_swap["reason"] or at_end["reason"]:
        return row | {"reason": at_swap["reason"] or at_end["reason"]}
    change = np.array(at_end["control_by_replica"], np.float64) - np.array(at_swap["control_by_replica"], np.float64)
    change = change[np.isfinite(change)]
    row["num_replicas"] = m = len(change)
    if m < 3:
        return row | {"reason": f"{m} replicas, fewer than 3"}
    reach = float(student.ppf((1 + CONFIDENCE) / 2, m - 1))
    mean, half = float(change.mean()), reach * float(change.std(ddof=1)) / np.sqrt(m)
    ratio, error = at_end["control_ratio"], reach * at_end["control_ratio_se"]
    row |= {"change": mean, "change_low": mean - half, "change_high": mean + half}
    row |= {"ratio_end": ratio, "ratio_end_low": ratio - error, "ratio_end_high": ratio + error}
    if abs(mean) > half:
        return row | {"statement": "approaching" if mean < 0 else "departing"}
    return row | {"reason": "the interval of the change includes 0"}
