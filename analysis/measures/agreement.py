"""Do the networks of a group get the same examples right, and in which order do they learn them?

Predictions are classes `[replica, epoch, sample]`, labels `[sample]`, integers from 0. All shares are fractions, not percent.

A replica that diverged carries -1. At an epoch where a replica has a -1 it is absent: left out and counted, so the group is
smaller there. More networks agree on less, so curves compare only where `num_replicas` is the same. What is told per replica over
epochs (learning epoch, forgetting events) is NaN for a replica that is absent at any of them.

Two things are called true-positive agreement. Pliushch et al. (arXiv 2105.08997): one ratio per data set, examples that all networks
get right over those that any does; `Agreement.tpa`. Hacohen et al. (arXiv 1905.10854): per example, the share of the networks that get it
right; `fraction_correct`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ABSENT = -1
BLOCK = 2**22  # numbers in a temporary array


@dataclass(frozen=True)
class Agreement:
    """Agreement of a group of networks; every field is `[epoch]`.

    Fields other than the counts and the accuracies are NaN where fewer than 2 networks are present or there are no samples.
    """

    num_replicas: np.ndarray  # networks present
    num_dropped: np.ndarray  # networks absent
    accuracy: np.ndarray  # mean over networks; NaN without networks or samples
    accuracy_std: np.ndarray  # over networks, population (ddof 0), as the source has it
    num_agreed: np.ndarray  # samples that all networks get right
    num_any: np.ndarray  # samples that at least one network gets right
    tpa: np.ndarray  # num_agreed / num_any; 0 where nobody is right, as the source has it
    lower_bound: np.ndarray  # 1 - min(sum of the networks' errors, 1), never above tpa
    independence: np.ndarray  # tpa of independent networks of these accuracies: prod acc / (1 - prod(1 - acc)); 0 where all are 0
    kappa: np.ndarray  # Fleiss' kappa of the predicted classes; NaN where all predict one class
    kappa_correct: np.ndarray  # Fleiss' kappa of right against wrong; NaN where all are right or all are wrong
    wrong_unanimous: np.ndarray  # share of the samples on which all networks give one and the same wrong class
    wrong_agreement: np.ndarray  # of the pairs of networks that are both wrong on a sample, the share that give the same class; NaN without


def is_present(predicted: np.ndarray) -> np.ndarray:
    """Which replicas are there at which epoch, `[replica, epoch]`: those without a -1."""
    present = np.empty(predicted.shape[:2], dtype=bool)
    for replica, rows in enumerate(predicted):  # one at a time: the comparison is as large as what is compared
        present[replica] = (rows > ABSENT).all(axis=-1)
    return present


def correctness(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each prediction is right, `[replica, epoch, sample]`; one byte each. Absent replicas are never right."""
    _check(predicted, labels)
    return np.asarray(predicted) == np.asarray(labels)


def agreed_set(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether all present networks are right, `[epoch, sample]`; nothing is agreed upon by fewer than 2."""
    absent = ~is_present(predicted)
    result = np.ones(predicted.shape[1:], dtype=bool)
    for right, gone in zip(correctness(predicted, labels), absent, strict=True):
        result &= right | gone[:, None]
    return result & ((~absent).sum(axis=0) > 1)[:, None]


def agreement(predicted: np.ndarray, labels: np.ndarray) -> Agreement:
    """Agreement of the networks at every epoch. One epoch is in memory at a time, and a block of samples of its table of votes."""
    _check(predicted, labels)
    if not predicted.shape[1]:
        raise ValueError("predictions of no epoch")
    present = is_present(predicted)
    columns = [_at_epoch(predicted[there, epoch], labels) for epoch, there in enumerate(present.T)]
    num_present = present.sum(axis=0)
    found = {name: np.array([column[name] for column in columns]) for name in columns[0]}
    return Agreement(num_replicas=num_present, num_dropped=len(present) - num_present, **found)


def _at_epoch(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The fields of `Agreement` at one epoch, from `[replica, sample]` of the networks that are present."""
    num_replicas, num_samples = predicted.shape
    correct = predicted == labels
    all_correct, any_correct = int(correct.all(axis=0).sum()), int(correct.any(axis=0).sum())
    nan = float("nan")
    found = dict.fromkeys(("accuracy", "accuracy_std", "tpa", "lower_bound", "independence"), nan)
    found |= dict.fromkeys(("kappa", "kappa_correct", "wrong_unanimous", "wrong_agreement"), nan)
    found |= {"num_agreed": all_correct if num_replicas else 0, "num_any": any_correct}
    if not num_replicas or not num_samples:
        return found
    accuracy = correct.mean(axis=1)
    found |= {"accuracy": accuracy.mean(), "accuracy_std": accuracy.std()}
    if num_replicas < 2:
        return found
    found["tpa"] = all_correct / max(any_correct, 1)
    # From counts: a sum of rounded errors could end a rounding above the tpa that it bounds.
    found["lower_bound"] = max(num_samples - int((~correct).sum()), 0) / num_samples
    either = 1 - np.prod(1 - accuracy)
    found["independence"] = np.prod(accuracy) / either if either > 0 else 0.0
    return found | _votes(predicted, labels, correct.sum(axis=0))


def _votes(predicted: np.ndarray, labels: np.ndarray, num_correct: np.ndarray) -> dict[str, float]:
    """What depends on which class networks give, from the number of votes `[sample, class]`, a block of samples at a time."""
    num_replicas, num_samples = predicted.shape
    num_classes = int(max(predicted.max(), labels.max())) + 1
    totals = np.zeros(num_classes, dtype=np.int64)
    same_pairs = wrong_same_pairs = unanimous_wrong = 0
    block = max(1, BLOCK // num_classes)
    for start in range(0, num_samples, block):
        own, right = labels[start : start + block], num_correct[start : start + block]
        at = np.arange(len(own)) * num_classes + predicted[:, start : start + block]
        votes = np.bincount(at.ravel(), minlength=len(own) * num_classes).reshape(len(own), num_classes)
        totals += votes.sum(axis=0)
        pairs = (votes * (votes - 1)).sum(axis=1)  # ordered pairs of networks that give the same class
        same_pairs += int(pairs.sum())
        wrong_same_pairs += int((pairs - right * (right - 1)).sum())
        unanimous_wrong += int(((votes.max(axis=1) == num_replicas) & (right == 0)).sum())
    num_wrong = num_replicas - num_correct.astype(np.int64)
    wrong_pairs = int((num_wrong * (num_wrong - 1)).sum())
    right_or_wrong = np.array([num_correct.sum(), num_wrong.sum()])
    same_correct = int((num_correct * (num_correct - 1.0)).sum()) + wrong_pairs
    return {
        "kappa": _fleiss(same_pairs, totals, num_replicas, num_samples),
        "kappa_correct": _fleiss(same_correct, right_or_wrong, num_replicas, num_samples),
        "wrong_unanimous": unanimous_wrong / num_samples,
        "wrong_agreement": wrong_same_pairs / wrong_pairs if wrong_pairs else float("nan"),
    }


def _fleiss(same_pairs: int, totals: np.ndarray, num_raters: int, num_samples: int) -> float:
    """Fleiss' kappa (observed - chance) / (1 - chance), from ordered pairs of raters that agree and the votes of each category."""
    observed = same_pairs / (num_samples * num_raters * (num_raters - 1))
    if np.count_nonzero(totals) < 2:
        return float("nan")
    chance = float(((totals / (num_samples * num_raters)) ** 2).sum())
    return (observed - chance) / (1 - chance)


@dataclass(frozen=True)
class PermutationNull:
    """TPA of networks that know nothing of each other, every field `[epoch]`: NaN where the observed TPA is."""

    mean: np.ndarray
    low: np.ndarray  # interval of the null at `confidence`
    high: np.ndarray
    p: np.ndarray  # (1 + #{null >= observed}) / (1 + num_permutations), one-sided
    num_permutations: int


def permutation_null(
    predicted: np.ndarray,
    labels: np.ndarray,
    num_permutations: int,
    generator: np.random.Generator,
    strata: np.ndarray | None = None,
    confidence: float = 0.95,
) -> PermutationNull:
    """TPA when each network's right answers are permuted over the samples, separately per network and epoch.

    With `strata` `[sample]` (the label, say) only within strata: what is left is agreement beyond that some classes are easier.

    Nothing is shuffled. A permuted network gets a uniformly random set of so many samples right, so how many of those fall among
    the samples that all so far have right, and among those that none has, is hypergeometric: exactly the permutation distribution, at
    a cost that does not depend on the number of samples.
    """
    _check(predicted, labels)
    present = is_present(predicted)
    _, codes = np.unique(np.zeros(len(labels)) if strata is None else np.asarray(strata), return_inverse=True)
    sizes = np.bincount(codes)
    mean, low, high, p = np.full((4, predicted.shape[1]), np.nan)
    tail = (1 - confidence) / 2
    for epoch, there in enumerate(present.T):
        if there.sum() < 2 or not len(labels):
            continue
        correct = predicted[there, epoch] == labels
        observed = correct.all(axis=0).sum() / max(correct.any(axis=0).sum(), 1)
        num_right = np.stack([np.bincount(codes[row], minlength=len(sizes)) for row in correct])  # [replica, stratum]
        everyone = anyone = np.broadcast_to(num_right[0], (num_permutations, len(sizes)))
        for right in num_right[1:]:
            among = generator.hypergeometric(everyone, sizes - everyone, right)
            fresh = generator.hypergeometric(sizes - anyone, anyone - everyone, right - among)
            everyone, anyone = among, anyone + fresh
        null = everyone.sum(axis=1) / np.maximum(anyone.sum(axis=1), 1)
        mean[epoch] = null.mean()
        low[epoch], high[epoch] = np.quantile(null, [tail, 1 - tail])
        p[epoch] = (1 + np.sum(null >= observed - 1e-12)) / (1 + num_permutations)
    return PermutationNull(mean, low, high, p, num_permutations)


def fraction_correct(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of the present networks that are right, `[epoch, sample]`: Hacohen's TPa. NaN where no network is present."""
    num_present = is_present(predicted).sum(axis=0)[:, None]
    with np.errstate(invalid="ignore"):
        return correctness(predicted, labels).sum(axis=0) / np.where(num_present > 0, num_present, np.nan)


def accessibility(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How early and how often an example is right, `[sample]`: the mean of being right over networks and epochs where they are present."""
    num_present = is_present(predicted).sum()
    return correctness(predicted, labels).sum(axis=(0, 1)) / (num_present if num_present else np.nan)


def learning_epochs(predicted: np.ndarray, labels: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """The first of `epochs` `[epoch]` from which on a network is right on an example at every later one, `[replica, sample]`.

    Infinite where it is wrong at the last epoch: never learned, which ranks last. The largest over replicas is the epoch from which
    on the example is agreed upon.
    """
    correct = correctness(predicted, labels)
    if len(epochs) != correct.shape[1]:
        raise ValueError(f"{len(epochs)} epochs are named and {correct.shape[1]} predicted")
    after = np.append(np.asarray(epochs, dtype=np.float64), np.inf)
    # How many of the last epochs are right without a break.
    run = np.logical_and.accumulate(correct[:, ::-1], axis=1).sum(axis=1)
    return _where_present(predicted, after[len(epochs) - run])


def first_correct_epochs(predicted: np.ndarray, labels: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """The first of `epochs` `[epoch]` at which a network is right on an example, `[replica, sample]`; infinite if never."""
    correct = correctness(predicted, labels)
    first = np.where(correct.any(axis=1), correct.argmax(axis=1), len(epochs))
    return _where_present(predicted, np.append(np.asarray(epochs, dtype=np.float64), np.inf)[first])


def forgetting_events(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often a network is right on an example and wrong at the next epoch, `[replica, sample]` (Toneva et al., arXiv 1812.05159).

    Give it two epochs, right before and right after a swap, and it tells what the swap made the network forget.
    """
    correct = correctness(predicted, labels)
    return _where_present(predicted, (correct[:, :-1] & ~correct[:, 1:]).sum(axis=1).astype(np.float64))


def common_epochs(*epochs: np.ndarray) -> list[np.ndarray]:
    """Alignment by epoch: for each group's `epochs` `[epoch]` the indices of those that all groups have, in rising order."""
    shared = np.asarray(sorted(set.intersection(*(set(np.asarray(e).tolist()) for e in epochs))))
    return [np.array([np.flatnonzero(np.asarray(e) == value)[0] for value in shared], dtype=np.intp) for e in epochs]


def at_accuracy(predicted: np.ndarray, labels: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Alignment by accuracy: predictions `[replica, level, sample]` of each replica at its first epoch of at least that accuracy.

    TPA depends on accuracy, so groups that learn at different speed compare at equal levels. A replica that never gets there is
    absent (-1) at the level.
    """
    accuracy = correctness(predicted, labels).mean(axis=-1)
    result = np.full((len(predicted), len(levels), len(labels)), ABSENT, dtype=np.asarray(predicted).dtype)
    for replica, reached in enumerate(accuracy[:, None, :] >= np.asarray(levels)[:, None]):
        found = reached.any(axis=1)
        result[replica, found] = predicted[replica, reached.argmax(axis=1)[found]]
    return result


def _where_present(predicted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values `[replica, sample]` with NaN for replicas that are absent at any epoch."""
    values[~is_present(predicted).all(axis=1)] = np.nan
    return values


def _check(predicted: np.ndarray, labels: np.ndarray) -> None:
    shape = np.shape(predicted)
    if len(shape) != 3 or np.shape(labels) != shape[2:]:
        raise ValueError(f"predictions are [replica, epoch, sample] and labels [sample], not of shape {shape} and {np.shape(labels)}")
    if not all(np.issubdtype(np.asarray(a).dtype, np.signedinteger) for a in (predicted, labels)):
        raise ValueError("predictions and labels are signed integers: a -1 among unsigned ones would be a class")
    if len(labels) and np.min(labels) < 0:
        raise ValueError("a label is negative")
