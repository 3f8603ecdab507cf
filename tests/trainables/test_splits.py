"""Splits, nested subsets and nested label noise, as properties of what is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.samples import TEST, TRAIN, VAL, DataError, Samples
from trainables.data.splits import add_noise, assign, balanced_order, stream, subset


def samples(labels, groups=None, splits=None):
    images = np.zeros((len(labels), 1, 2, 2), np.uint8)
    names = [str(label) for label in range(int(max(labels)) + 1)]
    return Samples(images, np.asarray(labels, np.int64), names, splits, None if groups is None else np.asarray(groups).astype(str))


@settings(deadline=None)
@given(seed=st.integers(0, 999), num_groups=st.integers(3, 30), num=st.integers(60, 200), num_classes=st.integers(2, 5))
def test_no_group_lies_in_two_splits_and_no_split_is_empty(seed, num_groups, num, num_classes):
    generator = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(num_groups), generator.integers(0, num_groups, num - num_groups)])
    splits = assign(samples(generator.integers(0, num_classes, num), groups), 0.15, 0.25, seed)
    assert all(len(np.unique(splits[groups == group])) == 1 for group in range(num_groups))
    assert set(splits) == {TRAIN, VAL, TEST}


def test_grouped_splits_keep_sizes_and_class_balance():
    generator = stream("test", 0)
    groups = generator.integers(0, 60, 3000)
    labels = (generator.random(3000) < 0.2 + 0.2 * (groups % 2)).astype(np.int64)  # groups differ in their balance
    splits = assign(samples(labels, groups), 0.15, 0.25, 0)
    for split, share in ((TRAIN, 0.6), (VAL, 0.15), (TEST, 0.25)):
        assert (splits == split).mean() == pytest.approx(share, abs=0.02)
        assert labels[splits == split].mean() == pytest.approx(labels.mean(), abs=0.02)


@settings(deadline=None)
@given(seed=st.integers(0, 999), counts=st.lists(st.integers(10, 50), min_size=2, max_size=5))
def test_ungrouped_splits_have_exact_sizes_and_classes_in_proportion(seed, counts):
    labels = stream("test", seed).permutation(np.repeat(np.arange(len(counts)), counts))
    splits = assign(samples(labels), 0.15, 0.25, seed)
    num = len(labels)
    assert [(splits == split).sum() for split in (VAL, TEST)] == [round(0.15 * num), round(0.25 * num)]
    tally = np.array([[(labels[splits == split] == label).sum() for label in range(len(counts))] for split in range(3)])
    expected = np.bincount(splits, minlength=3)[:, None] * np.array(counts) / num
    assert np.abs(tally - expected).max() <= 2


def test_another_seed_splits_otherwise():
    of = samples(np.arange(100) % 2)
    assert (assign(of, 0.15, 0.25, 0) == assign(of, 0.15, 0.25, 0)).all()
    assert (assign(of, 0.15, 0.25, 0) != assign(of, 0.15, 0.25, 1)).any()


def test_splits_of_the_source_are_kept_and_only_the_missing_one_is_drawn():
    brought = np.repeat([TRAIN, TEST], [80, 20]).astype(np.int8)
    splits = assign(samples(np.arange(100) % 2, splits=brought), 0.15, 0.25, 0)
    assert (splits[80:] == TEST).all()
    assert (splits[:80] == VAL).sum() == 15
    assert (splits[:80] == TRAIN).sum() == 65
    assert (brought[:80] == TRAIN).all()


def test_a_val_fraction_of_zero_leaves_val_empty():
    assert not (assign(samples(np.arange(100) % 2), 0.0, 0.25, 0) == VAL).any()


def test_fractions_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(DataError, match=r"val_fraction 0\.5 and data\.test_fraction 0\.5 of 100 samples leave none"):
        assign(samples(np.arange(100) % 2), 0.5, 0.5, 0)


def test_too_few_groups_are_refused():
    with pytest.raises(DataError, match=r"2 group\(s\) cannot fill 3 splits \(train, val, test\)"):
        assign(samples(np.arange(100) % 2, np.arange(100) // 50), 0.15, 0.25, 0)


def test_a_source_without_training_samples_is_refused():
    with pytest.raises(DataError, match="the train split is empty"):
        assign(samples(np.arange(10) % 2, splits=np.repeat([VAL, TEST], 5).astype(np.int8)), 0.1, 0.1, 0)


@settings(deadline=None)
@given(seed=st.integers(0, 999), smaller=st.integers(4, 99), larger=st.integers(4, 99))
def test_smaller_subsets_lie_in_larger_ones(seed, smaller, larger):
    smaller, larger = sorted((smaller, larger))
    labels = np.arange(99) % 3
    few, many = subset(labels, smaller, seed), subset(labels, larger, seed)
    assert len(few) == smaller
    assert set(few) <= set(many)
    assert (np.diff(many) > 0).all()


@settings(deadline=None)
@given(seed=st.integers(0, 99), num=st.integers(1, 90))
def test_every_prefix_of_the_balanced_order_has_the_classes_in_proportion(seed, num):
    labels = np.repeat([0, 1], [30, 60])
    order = balanced_order(labels, stream("test", seed))
    assert sorted(order) == list(range(90))
    assert abs((labels[order[:num]] == 0).sum() - num / 3) <= 1


def test_a_train_size_above_the_train_split_is_refused():
    with pytest.raises(DataError, match=r"train_size is 31, but the train split has 30 samples; allowed are 4 to 30"):
        subset(np.zeros(30, np.int64), 31, 0)
    assert len(subset(np.zeros(30, np.int64), 30, 0)) == 30


@settings(deadline=None)
@given(seed=st.integers(0, 999), low=st.floats(0, 0.9), high=st.floats(0, 0.9), num_classes=st.integers(2, 10))
def test_label_noise_nests_and_does_not_depend_on_the_subset(seed, low, high, num_classes):
    low, high = sorted((low, high))
    ids = np.arange(200)
    clean = ids % num_classes
    less, more = (add_noise(clean, ids, num_classes, noise, seed) for noise in (low, high))
    flipped = less != clean
    assert (more[flipped] == less[flipped]).all()
    assert set(less) | set(more) <= set(range(num_classes))
    assert (add_noise(clean[::3], ids[::3], num_classes, high, seed) == more[::3]).all()


def test_label_noise_flips_the_share_asked_for_to_all_other_classes_alike():
    ids = np.arange(40_000)
    noisy = add_noise(np.zeros(len(ids), np.int64), ids, 5, 0.3, 0)
    assert np.bincount(noisy, minlength=5) / len(ids) == pytest.approx([0.7, 0.075, 0.075, 0.075, 0.075], abs=0.01)
    assert (add_noise(ids % 5, ids, 5, 0.0, 0) == ids % 5).all()
