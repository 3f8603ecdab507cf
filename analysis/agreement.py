"""Do networks of a family, of a stressed family and its control, of two architectures get the same examples right? Tables in, tables out.

What an example is right against are the labels trained on; on the train split of a sweep with label noise also the clean ones. TPA
depends on accuracy and falls with the number of networks, so groups compare by pairs of networks, and at equal accuracy as well as at
equal epochs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from analysis import tables
from analysis.measures.agreement import agreement, at_accuracy, correctness, is_present, permutation_null
from analysis.measures.pair_agreement import pair_agreement
from analysis.predictions import Load, Predictions, has_predictions
from analysis.spreads import base_recipe, families
from analysis.storage import Store

CONFIDENCE = 0.95
SPLITS = ("train", "test")
LEVELS = np.array([*np.arange(2, 20) / 20, 0.97, 0.99])  # accuracies at which groups are compared, those above the largest class's share
NUM_PERMUTATIONS = 99  # of each null: there are thousands, and p says no more than that the networks know of each other
FAMILY = ["trial", "schedule", "control", "swapped", "swap_epoch", "architecture", "label_noise"]
WHEN = ["split", "labels", "alignment", "epoch", "moment", "level"]
COLUMNS = [
    *FAMILY, *WHEN, "accuracy", "accuracy_std", "num_agreed", "num_any", "tpa", "tpa_low", "tpa_high", "lower_bound", "independence",
    "null_mean", "null_low", "null_high", "null_p", "null_within_mean", "null_within_p", "kappa", "kappa_correct", "wrong_unanimous",
    "wrong_agreement", "num_replicas", "num_dropped", "num_samples", "estimator", "num_permutations", "seed", "reason",
]  # fmt: skip
PAIR_NUMBERS = ("tpa", "independence", "kappa", "wrong_agreement")
ACROSS_COLUMNS = [
    "comparison", *FAMILY, "other", "other_architecture", *WHEN, "pairs",
    *(f"{name}{end}" for name in PAIR_NUMBERS for end in ("", "_low", "_high")), "accuracy", "other_accuracy",
    "num_pairs", "num_replicas", "num_samples", "estimator", "reason",
]  # fmt: skip
TEXTS = {
    "trial", "schedule", "control", "swapped", "architecture", "comparison", "other", "other_architecture", "split", "labels", "alignment",
    "moment", "statistic", "pairs", "statement", "estimator", "reason",
}  # fmt: skip
TPA = "tpa: samples all get right over samples any does, 95 % Wilson interval over samples given the networks"
PAIRS = "means over pairs of networks; 95 % t intervals by jackknife over seeds, given the samples"


def recorded_families(store: Store, only: Collection[str] | None = None) -> pd.DataFrame:
    """The families to compare that have predictions; `architecture` names the model, `setting` all else of the base recipe, in which
    `label_noise` is the share of training labels replaced."""
    trials = families(store, only)
    trials = trials[trials["trial"].isin(has_predictions(store, trials["trial"].tolist()))]
    trials = trials[trials["dataset"].isin(tables.names(store, "samples"))]
    bases: list[dict[str, Any]] = [base_recipe(json.loads(text)) for text in trials["recipe"]]
    return trials.assign(
        architecture=[architecture(base.get("model") or {}) for base in bases],
        label_noise=[float((base.get("data") or {}).get("label_noise") or 0) for base in bases],
        setting=[json.dumps({name: part for name, part in base.items() if name != "model"}, sort_keys=True) for base in bases],
    ).reset_index(drop=True)


def architecture(model: dict[str, Any]) -> str:
    """A model in few words: its name, and what of it is not the default."""
    return " ".join([str(model.get("name")), *(f"{key}={json.dumps(v)}" for key, v in model.items() if key != "name" and v is not None)])


def agreements(trials: pd.DataFrame, load: Load, *, num_permutations: int = NUM_PERMUTATIONS, seed: int = 0) -> pd.DataFrame:
    """A row per family, split, labels and time: agreement of its networks, with the lower bound and what independent networks would have.

    A stressed family has rows from right before its first swap on: until then its networks are those of its control. `alignment` epoch:
    at each evaluation; accuracy: each network at its first evaluation of at least accuracy `level`, of a stressed family after the swap.
    null: networks' right answers permuted over samples; null_within: within classes.
    """
    rows: list[dict[str, Any]] = []
    for family, split in product(trials[FAMILY].to_dict("records"), SPLITS):
        found = load(family["trial"], split)
        for kind, labels in label_kinds(found).items():
            generator = np.random.default_rng([seed, int(family["trial"][1:], 16), SPLITS.index(split)])
            key = family | {"split": split, "labels": kind, "num_permutations": num_permutations, "seed": seed}
            for when, predicted in _aligned(found, labels):
                rows += _agreement_rows(key | {"num_samples": len(labels)}, when, predicted, labels, num_permutations, generator)
    return typed(rows, COLUMNS)


def label_kinds(found: Predictions) -> dict[str, np.ndarray]:
    """The labels trained on, and where they are others the clean ones."""
    clean = {} if (found.labels == found.clean_labels).all() else {"clean": found.clean_labels}
    return {"trained": found.labels} | clean


def _aligned(found: Predictions, labels: np.ndarray) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Predictions `[replica, time, sample]` by epoch and by level of accuracy, and what the times are."""
    curve = found.at(slice(max(first_swap(found) - 1, 0), None))
    times = [{"alignment": "epoch", "epoch": e, "moment": m} for e, m in zip(curve.epochs, curve.moments, strict=True)]
    yield times, curve.predicted
    levels = _levels(labels)
    at_levels = at_accuracy(found.predicted[:, first_swap(found) :], labels, levels)
    reached = is_present(at_levels).any(axis=0)
    if reached.any():
        yield [{"alignment": "accuracy", "level": level} for level in levels[reached]], at_levels[:, reached]


def _levels(labels: np.ndarray) -> np.ndarray:
    """The levels of accuracy that are above that of always naming the most frequent class."""
    return LEVELS[np.bincount(labels).max() / len(labels) < LEVELS] if len(labels) else LEVELS[:0]


def first_swap(found: Predictions) -> int:
    """The index of the evaluation right after the first swap, 0 for a control; the one before it is the end of the epoch before."""
    return int(np.argmax(found.moments == "after_swap"))


def _agreement_rows(
    key: dict[str, Any],
    times: list[dict[str, Any]],
    predicted: np.ndarray,
    labels: np.ndarray,
    num_permutations: int,
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    found = agreement(predicted, labels)
    free = permutation_null(predicted, labels, num_permutations, generator)
    within = permutation_null(predicted, labels, num_permutations, generator, strata=labels)
    low, high = wilson(found.num_agreed, found.num_any)
    few = found.num_replicas < 2
    columns = vars(found) | {
        "tpa_low": np.where(few, np.nan, low),
        "tpa_high": np.where(few, np.nan, high),
        **{f"null_{name}": getattr(free, name) for name in ("mean", "low", "high", "p")},
        "null_within_mean": within.mean,
        "null_within_p": within.p,
        "reason": np.where(few, "fewer than 2 networks are there", ""),
        "estimator": [TPA] * len(times),
    }
    return [key | time | {name: values[index] for name, values in columns.items()} for index, time in enumerate(times)]


def wilson(num: np.ndarray, total: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share, from counts `[...]`; 0 to 1 where the total is 0."""
    z2 = norm.ppf((1 + confidence) / 2) ** 2
    share = num / np.maximum(total, 1)
    n = np.maximum(total, 1)
    middle, half = share + z2 / (2 * n), np.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n)
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return np.where(total > 0, np.maximum(low, 0.0), 0.0), np.where(total > 0, np.minimum(high, 1.0), 1.0)


def across(trials: pd.DataFrame, load: Load) -> pd.DataFrame:
    """Pairs of networks within and between two groups, per time: a stressed family with its control, and two architectures.

    `pairs`: within and within_other are pairs of one group; same_seed pairs the networks of one seed, other_seeds those of different ones.
    With its control a stressed family compares from right after the first swap on, where the control is at the same epoch; before, they
    are the same networks. Two architectures compare under the same schedule where all else of their base recipes is equal.
    """
    rows: list[dict[str, Any]] = []
    for (comparison, family, other), split in product(comparisons(trials), SPLITS):
        a, b = load(family["trial"], split), load(other["trial"], split)
        a = a.at(slice(first_swap(a), None))
        key = {name: family[name] for name in FAMILY} | {
            "comparison": comparison,
            "other": other["trial"],
            "other_architecture": other["architecture"],
            "split": split,
            "labels": "trained",
            "estimator": PAIRS,
        }
        if not (np.array_equal(a.samples, b.samples) and np.array_equal(a.labels, b.labels)):
            rows.append(key | {"reason": "the two were trained or tested on other samples or labels"})
            continue
        for times, predicted in _side_by_side(a, b):
            rows += [key | row for row in _pair_rows(times, predicted, len(a.predicted), a.labels)]
    return typed(rows, ACROSS_COLUMNS)


def comparisons(trials: pd.DataFrame) -> Iterator[tuple[str, dict[Any, Any], dict[Any, Any]]]:
    """Every stressed family with its control (`control`), and every two architectures under one schedule (`architecture`)."""
    trials = trials[[*FAMILY, "setting"]]
    by_trial = {row["trial"]: row for row in trials.to_dict("records")}
    for row in by_trial.values():
        if row["control"] != row["trial"] and row["control"] in by_trial:
            yield "control", row, by_trial[row["control"]]
    for _, group in trials.groupby(["schedule", "setting"], sort=True):
        for a, b in combinations(group.sort_values(["architecture", "trial"]).to_dict("records"), 2):
            if a["architecture"] != b["architecture"]:
                yield "architecture", a, b


def pair_times(a: Predictions, b: Predictions) -> list[tuple[int, int, dict[str, Any]]]:
    """The evaluations that both have: their indices, and what they are. Where a alone swaps, b is at the end of the epoch before."""
    theirs = {(epoch, moment): index for index, (epoch, moment) in enumerate(zip(b.epochs, b.moments, strict=True))}
    found = []
    for index, (epoch, moment) in enumerate(zip(a.epochs, a.moments, strict=True)):
        other = theirs.get((epoch, moment), theirs.get((epoch, "epoch")))
        if other is not None:
            found.append((index, other, {"alignment": "epoch", "epoch": epoch, "moment": moment}))
    return found


def _side_by_side(a: Predictions, b: Predictions) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Both groups along the replicas `[replica of a, then of b, time, sample]`, at the epochs that both have and at levels of accuracy."""
    times = pair_times(a, b)
    if times:
        mine, theirs = [i for i, _, _ in times], [j for _, j, _ in times]
        yield [time for _, _, time in times], np.concatenate([a.predicted[:, mine], b.predicted[:, theirs]])
    levels = _levels(a.labels)
    parts = [at_accuracy(one.predicted, a.labels, levels) for one in (a, b)]
    reached = is_present(parts[0]).any(axis=0) & is_present(parts[1]).any(axis=0)
    if reached.any():
        yield [{"alignment": "accuracy", "level": level} for level in levels[reached]], np.concatenate([p[:, reached] for p in parts])


def _pair_rows(times: list[dict[str, Any]], predicted: np.ndarray, num_own: int, labels: np.ndarray) -> Iterator[dict[str, Any]]:
    found = pair_agreement(predicted, labels)
    stacked = np.stack([getattr(found, name) for name in PAIR_NUMBERS])  # [number, time, replica, replica]
    accuracies = np.where(is_present(predicted), correctness(predicted, labels).mean(axis=-1), np.nan)
    accuracy, other_accuracy = (_means(group) for group in (accuracies[:num_own], accuracies[num_own:]))
    for pairs, members in pair_kinds(num_own, len(predicted) - num_own).items():
        mean, low, high, num_pairs, num_seeds = mean_over_pairs(stacked, members, num_own)
        for at, time in enumerate(times):
            row = time | {"pairs": pairs, "num_pairs": num_pairs[at], "num_replicas": num_seeds[at], "num_samples": len(labels)}
            row |= {"accuracy": accuracy[at], "other_accuracy": other_accuracy[at]}
            row |= {f"{n}{end}": v[i, at] for i, n in enumerate(PAIR_NUMBERS) for end, v in (("", mean), ("_low", low), ("_high", high))}
            yield row | {"reason": "" if num_pairs[at] else "no pair of networks is there"}


def pair_kinds(num_own: int, num_other: int) -> dict[str, np.ndarray]:
    """Which ordered pairs `[replica, replica]` of two groups side by side are of each kind, each unordered pair once."""
    total = num_own + num_other
    first, second = np.indices((total, total))
    own, other = second < num_own, first >= num_own
    same = second - num_own == first
    return {
        "within": own & (first < second),
        "within_other": other & (first < second),
        "same_seed": ~own & ~other & same,
        "other_seeds": ~own & ~other & ~same,
    }


def mean_over_pairs(values: np.ndarray, members: np.ndarray, num_own: int) -> tuple[np.ndarray, ...]:
    """Means `[..., time]` of values `[..., time, replica, replica]` over the pairs that are members, with t intervals by jackknife over
    seeds: replica r of the one and of the other group go together. Also the number of pairs and of seeds at each time `[time]`."""
    seeds = np.arange(len(members))
    seeds = np.where(seeds < num_own, seeds, seeds - num_own)
    known = np.isfinite(values) & members
    filled = np.where(known, values, 0.0)

    def mean(kept: np.ndarray) -> np.ndarray:
        chosen = kept[:, None] & kept[None, :]
        num = (known & chosen).sum(axis=(-2, -1))
        return np.where(num > 0, (filled * chosen).sum(axis=(-2, -1)) / np.maximum(num, 1), np.nan)

    total = mean(np.ones(len(members), dtype=bool))
    without = np.stack([mean(seeds != seed) for seed in np.unique(seeds)])
    there = known[0].any(axis=-1) | known[0].any(axis=-2)  # [time, replica]
    num_seeds = np.array([len(np.unique(seeds[row])) for row in there])
    # A seed that is nowhere in the pairs changes nothing when it is left out, so it adds nothing to the sum.
    with np.errstate(invalid="ignore"):
        error = np.sqrt((num_seeds - 1) / np.maximum(num_seeds, 1) * np.nansum((without - total) ** 2, axis=0))
    reach = np.where(
        (num_seeds > 2) & np.isfinite(without).all(axis=0), student.ppf((1 + CONFIDENCE) / 2, np.maximum(num_seeds - 1, 1)), np.nan
    )
    return total, total - reach * error, total + reach * error, known[0].sum(axis=(-2, -1)), num_seeds


def _means(values: np.ndarray) -> np.ndarray:
    """Means over replicas `[time]` of values `[replica, time]`, NaN left out."""
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def typed(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """A table with the same types whatever rows there are: names and reasons are text, counts and epochs whole, the rest numbers."""
    kinds: dict[str, Any] = {c: "string" if c in TEXTS else "float64" for c in columns}
    kinds |= {c: "Int64" for c in columns if c.startswith("num_") or c in ("swap_epoch", "epoch", "seed")}
    return pd.DataFrame(rows, columns=columns).astype(kinds | {c: "boolean" for c in columns if c == "shown"})
