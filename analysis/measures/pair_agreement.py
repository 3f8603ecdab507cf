"""Agreement of every pair of networks: what compares between groups of any size, because more networks agree on less.

For groups put side by side along the replicas (a stressed family and its control, two architectures), the blocks of each matrix are
agreement within and between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.measures.agreement import BLOCK, _check, is_present


@dataclass(frozen=True)
class PairAgreement:
    """Every field is `[evaluation, replica, replica]`, symmetric; NaN for absent replicas, the diagonal included."""

    tpa: np.ndarray  # samples both get right over samples either does; 0 where neither is right anywhere
    independence: np.ndarray  # tpa of independent networks of these accuracies; 0 where neither is right anywhere
    kappa: np.ndarray  # Cohen's kappa of right against wrong; NaN where both are always right or always wrong
    wrong_agreement: np.ndarray  # of the samples both get wrong, the share that get the same class; NaN without any


def pair_agreement(predicted: np.ndarray, labels: np.ndarray) -> PairAgreement:
    """Of predictions `[replica, evaluation, sample]` and labels `[sample]`, -1 where a replica is absent."""
    _check(predicted, labels)
    num_replicas, num_samples = len(predicted), len(labels)
    here = is_present(predicted).T
    there = here[:, :, None] & here[:, None, :] & (num_samples > 0)
    both, same_wrong = np.zeros((2, *there.shape))
    for evaluation in range(len(there)):
        for start in range(0, num_samples, max(1, BLOCK // max(num_replicas, 1))):
            block = slice(start, start + max(1, BLOCK // num_replicas))
            rows, own = predicted[:, evaluation, block], labels[block]
            right = rows == own
            correct = right.astype(np.float32)  # sums of up to 2^22 ones are exact
            both[evaluation] += correct @ correct.T
            for replica in range(num_replicas):  # who gives the same answer as one that is wrong is wrong, too
                same_wrong[evaluation, replica] += ((rows == rows[replica]) & ~right[replica]).sum(axis=1)
    num_right = np.diagonal(both, axis1=1, axis2=2)
    a, b = num_right[:, :, None], num_right[:, None, :]
    neither = num_samples - (a + b - both)
    share_a, share_b = a / max(num_samples, 1), b / max(num_samples, 1)
    observed, chance = (both + neither) / max(num_samples, 1), share_a * share_b + (1 - share_a) * (1 - share_b)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "tpa": both / np.maximum(a + b - both, 1),
            "independence": np.where(a + b > 0, share_a * share_b / (1 - (1 - share_a) * (1 - share_b)), 0.0),
            "kappa": np.where(chance < 1, (observed - chance) / (1 - chance), np.nan),
            "wrong_agreement": same_wrong / np.where(neither > 0, neither, np.nan),
        }
    return PairAgreement(**{name: np.where(there, value, np.nan) for name, value in found.items()})
