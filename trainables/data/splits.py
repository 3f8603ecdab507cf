"""Which sample is trained on, validated on and tested on; nested training subsets; nested label noise.

Everything is drawn from `(purpose, seed)` alone, so that one choice never shifts another.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from trainables.data.samples import SPLITS, TEST, TRAIN, VAL, DataError, Samples


def stream(purpose: str, seed: int) -> np.random.Generator:
    """Random numbers of their own for every purpose and seed."""
    key = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def balanced_order(labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """A random permutation [sample] of which every prefix has the classes in proportion, to within one sample."""
    shuffled = generator.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    # The sort is stable: classes of equal size, whose positions tie, stay in shuffled order.
    return shuffled[np.argsort(position[shuffled], kind="stable")]


def assign(samples: Samples, val_fraction: float, test_fraction: float, seed: int) -> NDArray[np.int8]:
    """TRAIN, VAL or TEST for every sample [sample]; splits the source brings are kept, others drawn from its train.

    Fractions are shares of all samples. Samples of one group share a split, and classes are kept in proportion, exactly
    (to within one sample) without groups and as well as a greedy assignment can with them.
    """
    splits = np.full(len(samples.labels), TRAIN, np.int8) if samples.splits is None else samples.splits.copy()
    wanted = {
        split: max(1, round(fraction * len(splits)))
        for split, fraction in ((VAL, val_fraction), (TEST, test_fraction))
        if fraction > 0 and not (splits == split).any()
    }
    pool = np.flatnonzero(splits == TRAIN)
    if wanted:
        counts = {TRAIN: len(pool) - sum(wanted.values()), **wanted}
        if counts[TRAIN] < 1:
            raise DataError(
                f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} of {len(splits)} "
                f"samples leave none of {len(pool)} to train on; their sum must be lower."
            )
        generator = stream("split", seed)
        if samples.groups is None:
            order = balanced_order(samples.labels[pool], generator)
            drawn = np.full(len(pool), TRAIN, np.int8)
            drawn[order[: counts.get(TEST, 0)]] = TEST
            drawn[order[counts.get(TEST, 0) :][: counts.get(VAL, 0)]] = VAL
        else:
            drawn = _assign_groups(samples.labels[pool], samples.groups[pool], counts, generator)
        splits[pool] = drawn
    for split in (TRAIN, TEST):
        if not (splits == split).any():
            raise DataError(f"the {SPLITS[split]} split is empty; it needs at least one sample.")
    return splits


def _assign_groups(
    labels: NDArray[np.int64], groups: NDArray[np.str_], counts: dict[int, int], generator: np.random.Generator
) -> NDArray[np.int8]:
    """A split for every sample [sample], whole groups at a time, largest first, each to where it is missed most."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < len(counts):
        raise DataError(
            f"{len(names)} group(s) cannot fill {len(counts)} splits "
            f"({', '.join(SPLITS[split] for split in counts)}) without one lying in two of them."
        )
    tally = np.zeros((len(names), labels.max() + 1))  # [group, class]
    np.add.at(tally, (group, labels), 1)
    choices = np.array(list(counts), np.int8)
    share = np.array(list(counts.values())) / sum(counts.values())
    target = share[:, None] * tally.sum(0)  # [split, class]
    filled = np.zeros_like(target)
    shuffled = generator.permutation(len(names))
    chosen = np.empty(len(names), np.int8)
    order = shuffled[np.argsort(-tally[shuffled].sum(1), kind="stable")]
    for num_done, index in enumerate(order):
        # The fall of sum((filled - target)^2 / target) over classes, for every split the group could go to.
        missed = (tally[index] * (2 * (target - filled) - tally[index]) / np.maximum(target, 1e-9)).sum(1)
        empty = filled.sum(1) == 0
        if empty.sum() == len(order) - num_done:  # the groups left are just enough for the splits still empty
            missed[~empty] = -np.inf
        best = int(missed.argmax())
        filled[best] += tally[index]
        chosen[index] = choices[best]
    return chosen[group]


def subset(labels: NDArray[np.int64], train_size: int | None, seed: int) -> NDArray[np.int64]:
    """Positions of the training samples kept, ascending: the first `train_size` of one permutation, so subsets nest."""
    if train_size is None:
        return np.arange(len(labels))
    if train_size > len(labels):
        raise DataError(
            f"data.train_size is {train_size}, but the train split has {len(labels)} samples; "
            f"allowed are 4 to {len(labels)}, or null for all."
        )
    return np.sort(balanced_order(labels, stream("subset", seed))[:train_size])


def add_noise(labels: NDArray[np.int64], ids: NDArray[np.int64], num_classes: int, label_noise: float, seed: int) -> NDArray[np.int64]:
    """Labels [sample], each replaced by one of the other classes with probability `label_noise`.

    A sample's draw depends on its id and the seed only: what is flipped at 0.1 is flipped, to the same class, at 0.2,
    and in every subset.
    """
    num_ids = int(ids.max(initial=-1)) + 1
    flipped = stream("noise", seed).random(num_ids)[ids] < label_noise
    other = stream("noise class", seed).integers(1, num_classes, num_ids)[ids]
    return np.where(flipped, (labels + other) % num_classes, labels)
