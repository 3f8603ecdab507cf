"""Which examples are learned when, by how many networks, and what a swap makes them forget. Tables in, tables out.

Right is against the labels trained on. An example's learning epoch is the first evaluation from which on a network is right at every later
one (infinity: not at the last); over the replicas of a family it is their median.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from analysis.agreement import CONFIDENCE, FAMILY, SPLITS, first_swap, typed
from analysis.measures.agreement import (
    accessibility,
    correctness,
    first_correct_epochs,
    forgetting_events,
    fraction_correct,
    is_present,
    learning_epochs,
)
from analysis.measures.order import median_epoch
from analysis.measures.pair_agreement import pair_agreement
from analysis.predictions import Load, Predictions

EXAMPLE_NUMBERS = (
    "learning_epoch", "first_correct_epoch", "fraction_correct", "accessibility", "forgetting_events", "fraction_correct_before",
    "fraction_correct_after", "learning_epoch_before", "learning_epoch_since", "accessibility_before", "accessibility_since",
    "forgetting_events_before", "forgetting_events_since",
)  # fmt: skip
SWAP_NUMBERS = (
    "accuracy_before", "accuracy_after", "forgotten", "learned", "forgotten_next", "control_forgotten_next", "forgotten_next_difference",
    "kappa_before", "kappa_after", "kappa_change", "wrong_agreement_before", "wrong_agreement_after",
)  # fmt: skip
SWAP_COLUMNS = [
    *FAMILY, "split", "epoch", *(f"{name}{end}" for name in SWAP_NUMBERS for end in ("", "_low", "_high")), "num_replicas", "num_samples",
    "estimator", "reason",
]  # fmt: skip
ESTIMATOR = "means over replicas with 95 % t intervals; kappa and wrong_agreement over pairs of replicas, by jackknife"


def examples(trials: pd.DataFrame, load: Load) -> pd.DataFrame:
    """A row per family, split and sample: learning epoch, first epoch right, share of networks right at the end, accessibility, forgetting.

    Columns in _before are up to the first swap, in _since from right after it; fraction_correct_before and _after on its two sides, at the
    same weights. NaN for controls, and for replicas that diverge what is over epochs leaves them out; num_replicas counts those of the
    learning epoch.
    """
    parts = [_of_examples(load(trial, split)) for trial, split in product(trials["trial"], SPLITS)]
    columns = ["trial", "split", "sample", "label", "label_trained", *EXAMPLE_NUMBERS, "num_replicas"]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    kinds = {"trial": "category", "split": "category"} | dict.fromkeys(EXAMPLE_NUMBERS, np.float32)
    return found[columns].astype(kinds)


def _of_examples(found: Predictions) -> pd.DataFrame:
    predicted, labels, swap = found.predicted, found.labels, first_swap(found)
    learned = learning_epochs(predicted, labels, found.epochs)
    columns: dict[str, Any] = {"trial": found.trial, "split": found.split, "sample": found.samples}
    columns |= {"label": found.clean_labels, "label_trained": found.labels, "num_replicas": int((~np.isnan(learned).all(axis=1)).sum())}
    columns |= dict.fromkeys(EXAMPLE_NUMBERS, np.nan)
    columns |= {
        "learning_epoch": median_epoch(learned),
        "first_correct_epoch": median_epoch(first_correct_epochs(predicted, labels, found.epochs)),
        "fraction_correct": fraction_correct(predicted[:, -1:], labels)[0],
    }
    columns |= _over_time(predicted, labels)
    if swap:
        columns |= {
            "fraction_correct_before": fraction_correct(predicted[:, swap - 1 : swap], labels)[0],
            "fraction_correct_after": fraction_correct(predicted[:, swap : swap + 1], labels)[0],
        }
        for end, part in (("before", slice(0, swap)), ("since", slice(swap, None))):
            columns[f"learning_epoch_{end}"] = median_epoch(learning_epochs(predicted[:, part], labels, found.epochs[part]))
            columns |= {f"{name}_{end}": values for name, values in _over_time(predicted[:, part], labels).items()}
    return pd.DataFrame(columns)


def _over_time(predicted: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    events = forgetting_events(predicted, labels)
    present = events[~np.isnan(events).any(axis=1)]
    forgotten = present.mean(axis=0) if len(present) else np.full(len(labels), np.nan)
    return {"accessibility": accessibility(predicted, labels), "forgetting_events": forgotten}


def at_swaps(trials: pd.DataFrame, load: Load) -> pd.DataFrame:
    """A row per stressed family, split and swap: what the new functions change at the same weights, and what is forgotten until the next
    evaluation, beside what the control forgets over the same epochs (difference: paired by seed).

    `forgotten` is the share of all samples right before and wrong after the swap, `learned` the reverse; kappa is Cohen's of right
    against wrong, mean over pairs of replicas.
    """
    rows: list[dict[str, Any]] = []
    known = set(trials["trial"])
    for family, split in product(trials[trials["swap_epoch"].notna()][FAMILY].to_dict("records"), SPLITS):
        found = load(family["trial"], split)
        control = load(family["control"], split) if family["control"] in known else None
        for at in np.flatnonzero(found.moments == "after_swap"):
            row = family | {"split": split, "epoch": int(found.epochs[at]), "num_samples": len(found.labels), "estimator": ESTIMATOR}
            rows.append(row | _at_swap(found, int(at), control))
    return typed(rows, SWAP_COLUMNS)


def _at_swap(found: Predictions, at: int, control: Predictions | None) -> dict[str, Any]:
    right = correctness(found.predicted, found.labels)
    there = is_present(found.predicted)
    both = there[:, at - 1] & there[:, at]
    row: dict[str, Any] = {"num_replicas": int(both.sum()), "reason": "" if both.sum() > 2 else f"{both.sum()} replicas, fewer than 3"}
    before, after = right[both, at - 1], right[both, at]
    row |= _interval("accuracy_before", before.mean(axis=1)) | _interval("accuracy_after", after.mean(axis=1))
    row |= _interval("forgotten", (before & ~after).mean(axis=1)) | _interval("learned", (~before & after).mean(axis=1))
    if at + 1 < len(found.epochs) and found.moments[at + 1] == "epoch":
        lost = _forgotten(found, at - 1, at + 1)
        row |= _interval("forgotten_next", lost)
        ends = {} if control is None else {e: i for i, e in enumerate(control.epochs) if control.moments[i] == "epoch"}
        if control is not None and {found.epochs[at], found.epochs[at + 1]} <= set(ends) and np.array_equal(control.labels, found.labels):
            reference = _forgotten(control, ends[found.epochs[at]], ends[found.epochs[at + 1]])
            row |= _interval("control_forgotten_next", reference)
            paired = min(len(lost), len(reference))
            row |= _interval("forgotten_next_difference", lost[:paired] - reference[:paired])
    pairs = pair_agreement(found.predicted[:, at - 1 : at + 1], found.labels)
    for name, field in (("kappa", pairs.kappa), ("wrong_agreement", pairs.wrong_agreement)):
        row |= _jackknifed(f"{name}_before", field[0]) | _jackknifed(f"{name}_after", field[1])
    return row | _jackknifed("kappa_change", pairs.kappa[1] - pairs.kappa[0])


def _forgotten(found: Predictions, before: int, after: int) -> np.ndarray:
    """The share of samples `[replica]` right at the one and wrong at the other evaluation; NaN where a replica is absent at either."""
    right = correctness(found.predicted[:, [before, after]], found.labels)
    there = is_present(found.predicted[:, [before, after]]).all(axis=1)
    return np.where(there, (right[:, 0] & ~right[:, 1]).mean(axis=1), np.nan)


def _interval(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean over replicas and its t interval."""
    return bounds(name, values[np.isfinite(values)])


def bounds(name: str, known: np.ndarray) -> dict[str, float]:
    """A mean of independent values with its 95 % t interval, as columns; no interval of fewer than 3."""
    n = len(known)
    mean = float(known.mean()) if n else np.nan
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1) * known.std(ddof=1) / np.sqrt(n)) if n > 2 else np.nan
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}


def _mean(values: np.ndarray) -> float:
    """The mean of those that are finite; NaN where none is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def _jackknifed(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean over pairs of a symmetric matrix `[replica, replica]` with its t interval by jackknife over replicas."""
    values = np.where(np.eye(len(values), dtype=bool), np.nan, values)
    kept = np.isfinite(values).any(axis=1)
    values = values[np.ix_(kept, kept)]
    n = len(values)
    if n < 2:
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    mean = _mean(values)
    half = np.nan
    if n > 2:
        left_out = np.array([_mean(np.delete(np.delete(values, i, 0), i, 1)) for i in range(n)])
        half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1) * np.sqrt((n - 1) / n * ((left_out - mean) ** 2).sum()))
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
