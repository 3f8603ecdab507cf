"""Agreement of networks: golden values, a slow reference beside each fast path, and what must hold for any predictions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.measures.agreement import (
    accessibility,
    agreed_set,
    agreement,
    at_accuracy,
    common_epochs,
    correctness,
    first_correct_epochs,
    forgetting_events,
    fraction_correct,
    learning_epochs,
    permutation_null,
)
from analysis.measures.pair_agreement import pair_agreement

# Right or wrong of 3 networks at 2 epochs on 5 images, as predictions of the class 1.
RIGHT = np.array([[[1, 1, 0, 0, 1], [1, 1, 1, 0, 1]], [[1, 0, 0, 1, 1], [1, 1, 1, 0, 1]], [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]])
# The figure of the reference's README: owl 0, cat 1.
OWL, CAT = 0, 1
FIGURE_LABELS = np.array([OWL, CAT, CAT])
FIGURE = np.array(
    [
        [[CAT, OWL, OWL], [OWL, CAT, OWL], [OWL, CAT, OWL]],
        [[CAT, CAT, OWL], [OWL, CAT, OWL], [OWL, CAT, CAT]],
        [[OWL, OWL, OWL], [OWL, OWL, OWL], [OWL, CAT, OWL]],
    ]
)


def predictions(seed: int = 0, num_replicas: int = 4, num_epochs: int = 5, num_samples: int = 40, num_classes: int = 3, skill: float = 0.5):
    """Predictions and labels; networks are right beyond chance with probability `skill`."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_samples)
    shape = (num_replicas, num_epochs, num_samples)
    predicted = np.where(generator.random(shape) < skill, labels, generator.integers(0, num_classes, shape))
    return predicted.astype(np.int16), labels


def fields(found) -> dict[str, np.ndarray]:
    return dict(vars(found))


def test_golden_figure_of_the_reference():
    found = agreement(FIGURE, FIGURE_LABELS)
    assert found.tpa == pytest.approx([0, 1 / 2, 2 / 3])
    assert found.accuracy == pytest.approx([2 / 9, 5 / 9, 7 / 9])


def test_golden_array():
    found = agreement(RIGHT, np.ones(5, dtype=int))
    assert 100 * found.tpa == pytest.approx([25, 75])
    assert 100 * found.lower_bound == pytest.approx([0, 20])
    assert 100 * found.accuracy == pytest.approx([53.333, 73.333], abs=5e-4)
    assert 100 * found.accuracy_std == pytest.approx([9.428, 9.428], abs=5e-4)
    assert 100 * found.independence == pytest.approx([15.929, 39.024], abs=5e-4)
    assert found.num_agreed.tolist() == [1, 3]
    assert found.num_any.tolist() == [4, 4]


def slow(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The numbers of one epoch from `[replica, sample]`, by the definitions and loops."""
    num_replicas, num_samples = predicted.shape
    right = [[int(p == y) for p, y in zip(row, labels, strict=True)] for row in predicted.tolist()]
    accuracies = [sum(row) / num_samples for row in right]
    numerator = sum(min(row[i] for row in right) for i in range(num_samples))
    denominator = sum(max(row[i] for row in right) for i in range(num_samples)) or 1
    pairs = [(a, b) for a in range(num_replicas) for b in range(num_replicas) if a != b]
    wrong = [predicted[a, i] == predicted[b, i] for i in range(num_samples) for a, b in pairs if not right[a][i] and not right[b][i]]

    def fleiss(votes: np.ndarray) -> float:
        observed = np.mean([votes[a, i] == votes[b, i] for i in range(num_samples) for a, b in pairs])
        chance = sum(np.mean(votes == c) ** 2 for c in np.unique(votes))
        return (observed - chance) / (1 - chance) if chance < 1 else np.nan

    return {
        "accuracy": np.mean(accuracies),
        "accuracy_std": np.std(accuracies),
        "tpa": numerator / denominator,
        "lower_bound": 1 - min(sum(1 - a for a in accuracies), 1),
        "independence": np.prod(accuracies) / (1 - np.prod([1 - a for a in accuracies])) if any(accuracies) else 0.0,
        "kappa": fleiss(predicted),
        "kappa_correct": fleiss(np.array(right)),
        "wrong_unanimous": np.mean([len(set(predicted[:, i])) == 1 and not right[0][i] for i in range(num_samples)]),
        "wrong_agreement": np.mean(wrong) if wrong else np.nan,
    }


@pytest.mark.parametrize("block", [2**22, 7])
@pytest.mark.parametrize(("num_replicas", "num_classes", "skill"), [(2, 2, 0.3), (4, 3, 0.5), (6, 10, 0.8), (3, 4, 0.0), (3, 3, 1.0)])
def test_equals_the_slow_reference(monkeypatch, num_replicas, num_classes, skill, block):
    monkeypatch.setattr("analysis.measures.agreement.BLOCK", block)
    predicted, labels = predictions(1, num_replicas, 3, 30, num_classes, skill)
    found = agreement(predicted, labels)
    for epoch in range(3):
        for name, value in slow(predicted[:, epoch], labels).items():
            assert getattr(found, name)[epoch] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(1, 30), st.integers(2, 5), st.floats(0, 1))
def test_bounds_hold(seed, num_replicas, num_samples, num_classes, skill):
    found = agreement(*predictions(seed, num_replicas, 4, num_samples, num_classes, skill))
    assert (found.lower_bound <= found.tpa).all()  # exactly: no tolerance
    assert (found.tpa <= 1).all()
    assert (found.lower_bound >= 0).all()
    assert (found.independence <= found.accuracy + 1e-12).all()  # prod a / (1 - prod(1 - a)) is below the least accuracy
    assert (found.wrong_unanimous + found.tpa * found.num_any / num_samples <= 1 + 1e-12).all()


@pytest.mark.parametrize("axis", ["networks", "samples", "classes"])
def test_order_does_not_matter(axis):
    predicted, labels = predictions(2)
    generator = np.random.default_rng(3)
    if axis == "networks":
        other = predicted[generator.permutation(len(predicted))], labels
    elif axis == "samples":
        order = generator.permutation(len(labels))
        other = predicted[:, :, order], labels[order]
    else:
        names = np.array([2, 0, 1], dtype=np.int16)
        other = names[predicted], names[labels]
    for name, values in fields(agreement(predicted, labels)).items():
        assert getattr(agreement(*other), name) == pytest.approx(values, abs=1e-12), name


def test_more_networks_agree_on_less():
    predicted, labels = predictions(4, num_replicas=6)
    curves = [agreement(predicted[:k], labels).tpa for k in range(2, 7)]
    assert (np.diff(curves, axis=0) <= 0).all()


def test_networks_that_are_equal_agree_in_full():
    predicted, labels = predictions(5, num_replicas=1)
    found = agreement(np.repeat(predicted, 3, axis=0), labels)
    assert (found.tpa == 1).all()
    assert found.kappa == pytest.approx(np.ones(5))
    assert found.kappa_correct == pytest.approx(np.ones(5))
    assert (found.wrong_agreement == 1).all()


def test_independence_is_what_independent_networks_do():
    """The baseline is the TPA of networks whose right answers are drawn independently, up to sampling."""
    generator = np.random.default_rng(6)
    accuracies, num_samples = np.array([0.3, 0.6, 0.8]), 200_000
    right = (generator.random((3, 1, num_samples)) < accuracies[:, None, None]).astype(np.int16)
    found = agreement(right, np.ones(num_samples, dtype=int))
    assert found.tpa == pytest.approx(found.independence, abs=0.004)
    assert found.independence == pytest.approx(0.144 / (1 - 0.7 * 0.4 * 0.2), abs=0.004)
    assert found.kappa_correct[0] < 0  # different accuracies: Fleiss' chance lets every network have the mean accuracy


def test_kappa_of_independent_networks_of_one_skill_is_zero():
    predicted, labels = predictions(7, num_replicas=5, num_epochs=1, num_samples=50_000, skill=0.0)
    found = agreement(predicted, labels)
    assert found.kappa == pytest.approx(0, abs=0.01)
    assert found.kappa_correct == pytest.approx(0, abs=0.01)
    assert found.wrong_agreement == pytest.approx(0.5, abs=0.01)  # 3 classes: two wrong ones to choose from


def test_nobody_is_right():
    """The definition takes an empty denominator as 1."""
    found = agreement(np.zeros((3, 2, 4), dtype=int), np.ones(4, dtype=int))
    for values in (found.tpa, found.lower_bound, found.independence):
        assert (values == 0).all()
    assert (found.wrong_unanimous == 1).all()
    assert np.isnan(found.kappa).all()
    assert np.isnan(found.kappa_correct).all()


@pytest.mark.parametrize("num_replicas", [0, 1])
def test_agreement_of_fewer_than_two_networks_has_no_value(num_replicas):
    predicted, labels = predictions(8, num_replicas=max(num_replicas, 1))
    found = agreement(predicted[:num_replicas], labels)
    for name in ("tpa", "lower_bound", "independence", "kappa", "kappa_correct", "wrong_unanimous", "wrong_agreement"):
        assert np.isnan(getattr(found, name)).all(), name
    assert np.isnan(found.accuracy).all() == (num_replicas == 0)
    assert (found.num_replicas == num_replicas).all()
    assert not agreed_set(predicted[:num_replicas], labels).any()
    assert np.isnan(permutation_null(predicted[:num_replicas], labels, 9, np.random.default_rng(0)).mean).all()


def test_no_samples():
    found = agreement(np.zeros((3, 2, 0), dtype=int), np.zeros(0, dtype=int))
    assert np.isnan(found.tpa).all()
    assert (found.num_agreed == 0).all()


def test_diverged_replicas_are_left_out_where_they_are_absent():
    predicted, labels = predictions(9)
    broken = predicted.copy()
    broken[1, 3:] = -1
    found, whole, without = agreement(broken, labels), agreement(predicted, labels), agreement(np.delete(predicted, 1, axis=0), labels)
    assert found.num_replicas.tolist() == [4, 4, 4, 3, 3]
    assert found.num_dropped.tolist() == [0, 0, 0, 1, 1]
    for name in ("tpa", "lower_bound", "kappa", "accuracy", "wrong_agreement"):
        expected = np.concatenate([getattr(whole, name)[:3], getattr(without, name)[3:]])
        assert getattr(found, name) == pytest.approx(expected), name
    assert fraction_correct(broken, labels)[3:] == pytest.approx(fraction_correct(np.delete(predicted, 1, axis=0), labels)[3:])
    assert (agreed_set(broken, labels)[3:] == agreed_set(np.delete(predicted, 1, axis=0), labels)[3:]).all()
    for values in (learning_epochs(broken, labels, np.arange(5)), forgetting_events(broken, labels)):
        assert np.isnan(values).all(axis=1).tolist() == [False, True, False, False]
    assert np.isnan(pair_agreement(broken, labels).tpa[4, 1]).all()
    assert accessibility(broken, labels) == pytest.approx(correctness(broken, labels).sum(axis=(0, 1)) / 18)


@pytest.mark.parametrize("stratified", [False, True])
def test_permutation_null_is_that_of_shuffled_networks(stratified):
    predicted, labels = predictions(10, num_replicas=3, num_epochs=1, num_samples=25, skill=0.6)
    strata = labels if stratified else None
    found = permutation_null(predicted, labels, 20_000, np.random.default_rng(0), strata)
    generator, right = np.random.default_rng(1), predicted[:, 0] == labels
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)] if stratified else [np.arange(len(labels))]
    drawn = np.empty(4000)
    for index in range(len(drawn)):
        shuffled = right.copy()
        for row in shuffled:
            for members in groups:
                row[members] = generator.permutation(row[members])
        drawn[index] = shuffled.all(axis=0).sum() / max(shuffled.any(axis=0).sum(), 1)
    assert found.mean[0] == pytest.approx(drawn.mean(), abs=4 * drawn.std() / np.sqrt(len(drawn)) + 0.002)
    assert found.low[0] == pytest.approx(np.quantile(drawn, 0.025), abs=0.03)
    assert found.high[0] == pytest.approx(np.quantile(drawn, 0.975), abs=0.03)
    observed = right.all(axis=0).sum() / right.any(axis=0).sum()
    assert found.p[0] == pytest.approx((1 + np.sum(drawn >= observed - 1e-12)) / (1 + len(drawn)), abs=0.03)


def test_permutation_null_finds_agreement_and_only_where_it_is():
    predicted, labels = predictions(11, num_replicas=4, num_epochs=1, num_samples=500)
    independent = permutation_null(predicted, labels, 999, np.random.default_rng(0))
    alike = permutation_null(np.repeat(predicted[:1], 4, axis=0), labels, 999, np.random.default_rng(0))
    assert independent.p[0] > 0.01
    assert alike.p[0] == 1 / 1000
    easy = np.where(labels == 0, labels, predicted)  # one class that all know: agreement that strata take away
    assert permutation_null(easy, labels, 999, np.random.default_rng(0)).p[0] == 1 / 1000
    assert permutation_null(easy, labels, 999, np.random.default_rng(0), strata=labels).p[0] > 0.01


@pytest.mark.parametrize("block", [2**22, 16])
def test_agreement_of_pairs(monkeypatch, block):
    monkeypatch.setattr("analysis.measures.pair_agreement.BLOCK", block)
    predicted, labels = predictions(12)
    predicted[1, 2] = -1
    found = pair_agreement(predicted, labels)
    gone = np.isnan(found.tpa)
    assert np.argwhere(gone).tolist() == [[2, a, b] for a in range(4) for b in range(4) if 1 in (a, b)]
    for a in range(4):
        for b in range(4):
            two, there = agreement(predicted[[a, b]], labels), ~gone[:, a, b]
            kappas = [cohen(*(predicted[[a, b], epoch] == labels)) for epoch in range(5)]
            wanted = {"tpa": two.tpa, "independence": two.independence, "wrong_agreement": two.wrong_agreement, "kappa": kappas}
            for name, expected in wanted.items():
                assert getattr(found, name)[there, a, b] == pytest.approx(np.array(expected)[there], nan_ok=True), name


def cohen(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two sequences of right and wrong, from their table."""
    table = np.array([[np.mean((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)])
    chance = table.sum(axis=1) @ table.sum(axis=0)
    return (np.trace(table) - chance) / (1 - chance) if chance < 1 else np.nan


def slow_examples(right: list[int], epochs: list[int]) -> tuple[float, float, int]:
    """Learning epoch, first epoch right and forgetting events of one network on one example."""
    learned = next((epochs[e] for e in range(len(right)) if all(right[e:])), np.inf)
    first = next((epochs[e] for e in range(len(right)) if right[e]), np.inf)
    return learned, first, sum(a and not b for a, b in pairwise(right))


def test_examples_equal_the_slow_reference():
    predicted, labels = predictions(13, num_epochs=6, num_samples=60)
    epochs = [0, 1, 2, 5, 10, 20]
    learned, first = (f(predicted, labels, np.array(epochs)) for f in (learning_epochs, first_correct_epochs))
    forgotten = forgetting_events(predicted, labels)
    for replica in range(4):
        for sample in range(60):
            right = (predicted[replica, :, sample] == labels[sample]).tolist()
            assert (learned[replica, sample], first[replica, sample], forgotten[replica, sample]) == slow_examples(right, epochs)
    assert np.isinf(learned).any()
    assert (learned == 0).any()


def test_an_example_is_agreed_upon_for_good_from_the_last_learning_epoch_on():
    predicted, labels = predictions(14, skill=0.9)
    last = learning_epochs(predicted, labels, np.arange(5)).max(axis=0)
    agreed = agreed_set(predicted, labels)
    for sample, epoch in enumerate(last):
        assert np.isinf(epoch) != agreed[int(min(epoch, 4)) :, sample].all()
    assert agreed.sum(axis=1).tolist() == agreement(predicted, labels).num_agreed.tolist()


def test_a_swap_that_makes_networks_forget():
    before = np.ones((2, 1, 4), dtype=int)
    after = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 0]]])
    assert forgetting_events(np.concatenate([before, after], axis=1), np.ones(4, dtype=int)).sum(axis=1).tolist() == [2, 3]


def test_accessibility_is_the_mean_of_being_right():
    predicted, labels = predictions(15)
    assert accessibility(predicted, labels) == pytest.approx((predicted == labels).mean(axis=(0, 1)))
    assert fraction_correct(predicted, labels) == pytest.approx((predicted == labels).mean(axis=0))


def test_alignment_by_epoch():
    a, b = common_epochs(np.array([0, 1, 2, 5, 10]), np.array([10, 0, 5, 20]))
    assert a.tolist() == [0, 3, 4]
    assert b.tolist() == [1, 2, 0]


def test_alignment_by_accuracy():
    labels = np.ones(4, dtype=int)
    fast = [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    late = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    found = at_accuracy(np.array([fast, late]), labels, np.array([0.0, 0.5, 0.9]))
    assert found[0].tolist() == [fast[0], fast[1], fast[2]]
    assert found[1].tolist() == [late[0], late[2], [-1] * 4]
    assert agreement(found, labels).num_replicas.tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("predicted", "labels", "text"),
    [
        (np.zeros((2, 3, 4), int), np.zeros(5, int), "not of shape"),
        (np.zeros((3, 4), int), np.zeros(4, int), "not of shape"),
        (np.zeros((2, 3, 4), np.uint8), np.zeros(4, int), "signed"),
        (np.zeros((2, 3, 4)), np.zeros(4, int), "signed"),
        (np.zeros((2, 3, 4), int), np.full(4, -1), "negative"),
        (np.zeros((2, 0, 4), int), np.zeros(4, int), "no epoch"),
    ],
)
def test_what_cannot_be_meant_is_refused(predicted, labels, text):
    with pytest.raises(ValueError, match=text):
        agreement(predicted, labels)
