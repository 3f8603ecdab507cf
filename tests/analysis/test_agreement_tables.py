"""Tables of agreement, of examples and of learning orders: golden values through them, slow references, and what must hold."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import combinations, pairwise, product

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest, spearmanr
from scipy.stats import t as student

from analysis.agreement import across, agreements, comparisons, mean_over_pairs, pair_kinds, wilson
from analysis.agreement_figures import agreement_curves, independent_counts, representatives, with_control
from analysis.agreement_question import _not_drawn, over_controls
from analysis.examples import at_swaps, examples
from analysis.learning_order import agreed_means, order_changes, order_pairs, orders
from analysis.measures.pair_agreement import pair_agreement
from analysis.order_figures import contact_sheet
from analysis.predictions import Predictions

RIGHT = np.array([[[1, 1, 0, 0, 1], [1, 1, 1, 0, 1]], [[1, 0, 0, 1, 1], [1, 1, 1, 0, 1]], [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]])


def predictions(
    predicted: np.ndarray, labels: np.ndarray, epochs=None, moments=None, clean=None, trial="t000000000001", split="test"
) -> Predictions:
    num = predicted.shape[1]
    epochs = np.arange(num) if epochs is None else np.array(epochs)
    moments = np.array(["epoch"] * num if moments is None else moments)
    clean = labels if clean is None else clean
    return Predictions(predicted.astype(np.int16), epochs, moments, np.arange(len(labels)), labels, clean, trial, split)


def table(*rows: dict) -> pd.DataFrame:
    common = {
        "swapped": "none",
        "swap_epoch": None,
        "architecture": "cnn",
        "label_noise": 0.0,
        "setting": "{}",
        "dataset": "d",
        "num_epochs": 9,
    }
    made = [common | {"schedule": "0:relu/ce", "control": row["trial"]} | row for row in rows]
    return pd.DataFrame(made).astype({"swap_epoch": "Int32"})


def loads(**found: Predictions):
    """A loader of the same predictions on both splits."""
    return lambda trial, split: replace(found[trial], trial=trial, split=split)


def test_golden_array_through_the_table():
    labels = np.ones(5, dtype=np.int64)
    found = agreements(table({"trial": "t1"}), loads(t1=predictions(RIGHT, labels)), num_permutations=99)
    rows = found[(found["split"] == "test") & (found["alignment"] == "epoch")]
    assert rows["tpa"].tolist() == pytest.approx([0.25, 0.75])
    assert rows["lower_bound"].tolist() == pytest.approx([0, 0.2])
    assert rows["accuracy"].tolist() == pytest.approx([0.53333, 0.73333], abs=1e-5)
    assert rows["accuracy_std"].tolist() == pytest.approx([0.09428, 0.09428], abs=1e-5)
    assert rows["independence"].tolist() == pytest.approx([0.15929, 0.39024], abs=1e-5)
    assert rows["num_replicas"].tolist() == [3, 3]
    for row, (num, total) in zip(rows.to_dict("records"), [(1, 4), (3, 4)], strict=True):
        expected = binomtest(num, total).proportion_ci(method="wilson")
        assert (row["tpa_low"], row["tpa_high"]) == pytest.approx((expected.low, expected.high))


def test_wilson_equals_scipy():
    low, high = wilson(np.array([0, 3, 10, 0]), np.array([7, 11, 10, 0]))
    for index, (num, total) in enumerate([(0, 7), (3, 11), (10, 10)]):
        expected = binomtest(num, total).proportion_ci(method="wilson")
        assert (low[index], high[index]) == pytest.approx((expected.low, expected.high))
    assert (low[3], high[3]) == (0, 1)


def test_one_network_has_no_agreement_and_says_why():
    found = agreements(table({"trial": "t1"}), loads(t1=predictions(RIGHT[:1], np.ones(5, dtype=np.int64))), num_permutations=9)
    assert found[["tpa", "tpa_low", "kappa", "null_p"]].isna().all(axis=None)
    assert set(found["reason"]) == {"fewer than 2 networks are there"}


def test_label_noise_is_told_apart_from_clean_labels():
    """Networks that know the clean labels agree on these in full, and on the noisy ones where the noise did not strike."""
    clean, noisy = np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0])
    found = agreements(table({"trial": "t1"}), loads(t1=predictions(np.tile(clean, (3, 1, 1)), noisy, clean=clean)), num_permutations=9)
    rows = found[(found["split"] == "train") & (found["alignment"] == "epoch")].set_index("labels")
    assert rows["accuracy"].to_dict() == {"trained": 0.5, "clean": 1.0}
    assert rows["wrong_agreement"]["trained"] == 1
    assert rows["lower_bound"].to_dict() == {"trained": 0.0, "clean": 1.0}


def test_a_stressed_family_begins_before_its_swap_and_levels_after_it():
    labels = np.repeat([0, 1], 20)
    half = np.where(np.arange(40) % 4 == 0, 1 - labels, labels)  # right on three quarters
    predicted = np.tile(np.stack([1 - labels, labels, half, half, labels]), (3, 1, 1))
    found = predictions(predicted, labels, [0, 1, 1, 2, 3], ["epoch", "epoch", "after_swap", "epoch", "epoch"])
    rows = agreements(table({"trial": "t1", "swap_epoch": 1, "swapped": "loss"}), loads(t1=found), num_permutations=9)
    rows = rows[rows["split"] == "test"]
    assert rows[rows["alignment"] == "epoch"]["epoch"].tolist() == [1, 1, 2, 3]
    levels = rows[rows["alignment"] == "accuracy"].set_index("level")["accuracy"]
    assert levels[0.7] == 0.75  # reached at once before the swap, at 0.75 after it
    assert levels[0.9] == 1


def slow_interval(values: dict[tuple[int, int], float], seeds_of) -> tuple[float, float, float]:
    """Mean over pairs and its jackknife interval over seeds, by loops over dictionaries."""
    seeds = sorted({seed for pair in values for seed in seeds_of(pair)})
    mean = np.mean(list(values.values()))
    left = [np.mean([v for pair, v in values.items() if seed not in seeds_of(pair)]) for seed in seeds]
    n = len(seeds)
    half = student.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * sum((x - mean) ** 2 for x in left))
    return mean, mean - half, mean + half


@pytest.mark.parametrize("absent", [None, 1])
def test_means_over_pairs_equal_the_loops(absent):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 50)
    predicted = np.where(generator.random((8, 2, 50)) < 0.5, labels, generator.integers(0, 3, (8, 2, 50)))
    if absent is not None:
        predicted[absent] = -1
    kappa = pair_agreement(predicted.astype(np.int16), labels).kappa
    for name, members in pair_kinds(4, 4).items():
        mean, low, high, num_pairs, num_seeds = mean_over_pairs(kappa[None], members, 4)
        pairs = {
            "within": list(combinations(range(4), 2)),
            "within_other": list(combinations(range(4, 8), 2)),
            "same_seed": [(i, i + 4) for i in range(4)],
            "other_seeds": [(i, j + 4) for i, j in product(range(4), range(4)) if i != j],
        }[name]
        pairs = [pair for pair in pairs if absent not in pair]
        expected = slow_interval({pair: kappa[1][pair] for pair in pairs}, lambda pair: {index % 4 for index in pair})
        assert (mean[0, 1], low[0, 1], high[0, 1]) == pytest.approx(expected), name
        assert num_pairs[1] == len(pairs)
        assert num_seeds[1] == len({index % 4 for pair in pairs for index in pair})


def two_families(seed: int = 0, num_samples: int = 60):
    """A control, and a family swapped at epoch 2 that its functions first make forget the first half of the samples."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, num_samples)
    skill = np.array([0.5, 0.7, 0.8, 0.9, 0.95])[:, None]
    control = np.where(generator.random((4, 5, num_samples)) < skill, labels, 1 - labels)
    after = control[:, 2].copy()
    after[:, : num_samples // 2] = 1 - labels[: num_samples // 2]
    stressed = np.concatenate([control[:, :3], after[:, None], control[:, 3:]], axis=1)
    trials = table(
        {"trial": "t1"}, {"trial": "t2", "control": "t1", "swap_epoch": 2, "swapped": "activation", "schedule": "0:relu/ce 2:tanh/ce"}
    )
    moments = ["epoch", "epoch", "epoch", "after_swap", "epoch", "epoch"]
    return trials, labels, predictions(control, labels), predictions(stressed, labels, [0, 1, 2, 2, 3, 4], moments, trial="t2")


def test_a_family_that_becomes_its_control_again_agrees_with_it():
    trials, _, control, stressed = two_families()
    found = across(trials, loads(t1=control, t2=stressed)).query("split == 'test' and alignment == 'epoch'")
    same = found[found["pairs"] == "same_seed"].set_index(["epoch", "moment"])["tpa"]
    assert same[2, "after_swap"] < 0.7
    assert same[3, "epoch"] == same[4, "epoch"] == 1
    end = found[found["epoch"] == 4].set_index("pairs")
    assert end["kappa"]["within"] == end["kappa"]["within_other"] == pytest.approx(end["kappa"]["other_seeds"])
    assert end["num_pairs"].to_dict() == {"within": 6, "within_other": 6, "same_seed": 4, "other_seeds": 12}


def test_what_a_swap_makes_networks_forget():
    trials, labels, control, stressed = two_families()
    row = at_swaps(trials, loads(t1=control, t2=stressed)).query("split == 'test'").iloc[0]
    before = control.predicted[:, 2] == labels
    assert row["forgotten"] == pytest.approx(before[:, :30].sum() / (4 * 60))
    assert row["learned"] == 0
    assert row["accuracy_after"] == pytest.approx(row["accuracy_before"] - row["forgotten"])
    assert row["forgotten_next"] == row["control_forgotten_next"] == pytest.approx((before & (control.predicted[:, 3] != labels)).mean())
    assert row["forgotten_next_difference"] == row["forgotten_next_difference_high"] == 0
    assert row["num_replicas"] == 4
    found = examples(trials, loads(t1=control, t2=stressed)).query("split == 'test' and trial == 't2'")
    assert found["fraction_correct_after"][:30].max() == 0
    assert (found["fraction_correct_after"] <= found["fraction_correct_before"]).all()
    assert found.query("sample < 30")["accessibility_since"].max() <= 2 / 3


def test_examples_equal_loops():
    trials, labels, control, _ = two_families(3)
    found = examples(trials.head(1), loads(t1=control)).query("split == 'test'").set_index("sample")
    right = control.predicted == labels
    for sample in range(60):
        learned = sorted(next((e for e in range(5) if right[r, e:, sample].all()), np.inf) for r in range(4))
        assert found["learning_epoch"][sample] == learned[1]  # the lower of the two in the middle
        assert found["accessibility"][sample] == pytest.approx(right[:, :, sample].mean())
        forgotten = [sum(a and not b for a, b in pairwise(right[r, :, sample])) for r in range(4)]
        assert found["forgetting_events"][sample] == pytest.approx(np.mean(forgotten))
    assert found[[c for c in found if c.endswith(("_before", "_since", "_after"))]].isna().all(axis=None)


def test_families_are_compared_with_their_control_and_with_other_architectures_only():
    trials = table(
        {"trial": "t1"},
        {"trial": "t2", "control": "t1", "swap_epoch": 2, "swapped": "loss", "schedule": "0:relu/ce 2:relu/mse"},
        {"trial": "t3", "architecture": "mlp"},
        {"trial": "t4", "architecture": "mlp", "setting": "{other}"},
        {"trial": "t5", "architecture": "mlp", "schedule": "0:tanh/ce"},
        {"trial": "t6", "control": "t9", "swap_epoch": 2, "swapped": "loss", "schedule": "0:gelu/ce 2:relu/mse"},
    )
    assert [(kind, a["trial"], b["trial"]) for kind, a, b in comparisons(trials)] == [("control", "t2", "t1"), ("architecture", "t1", "t3")]


def test_other_samples_are_not_compared():
    trials = table({"trial": "t1"}, {"trial": "t3", "architecture": "mlp"})
    labels = np.arange(6) % 2
    one, other = predictions(np.tile(labels, (3, 2, 1)), labels), predictions(np.tile(labels, (3, 2, 1)), 1 - labels, trial="t3")
    assert across(trials, loads(t1=one, t3=other))["reason"].unique().tolist() == [
        "the two were trained or tested on other samples or labels"
    ]


def ordered(order: np.ndarray, labels: np.ndarray, num_epochs: int = 6, num_replicas: int = 4) -> np.ndarray:
    """Networks that learn samples in an order `[sample]` of ranks, a few at each epoch, `[replica, epoch, sample]`."""
    known = order[None, :] < np.linspace(0, len(labels), num_epochs)[:, None]
    return np.tile(np.where(known, labels, 1 - labels), (num_replicas, 1, 1))


def test_an_order_that_follows_a_statistic_is_found_and_one_of_the_classes_is_told_apart():
    generator = np.random.default_rng(1)
    labels = np.arange(60) % 2
    order = generator.permutation(60)
    by_class = np.argsort(np.argsort(labels * 100 + generator.permutation(60)))
    statistics = {
        "d": pd.DataFrame({"follows": order * 2.0, "noise": generator.standard_normal(60), "of_class": labels + generator.random(60) / 9})
    }
    found = orders(table({"trial": "t1"}), loads(t1=predictions(ordered(order, labels), labels)), statistics, num_draws=199)
    rows = found.query("split == 'test'").set_index("statistic")
    learned = np.searchsorted(np.linspace(0, 60, 6), order, side="right")
    assert rows["rho"]["follows"] == pytest.approx(spearmanr(learned, order)[0])
    assert rows["statement"].to_dict() == {"follows": "small first", "noise": "undecided", "of_class": "undecided"}
    assert (rows["p_holm"] >= rows["p"]).all()
    rows = orders(table({"trial": "t1"}), loads(t1=predictions(ordered(by_class, labels), labels)), statistics, num_draws=199)
    rows = rows.query("split == 'test'").set_index("statistic")
    assert rows["statement"]["of_class"] == "small first"
    assert rows["p_within_holm"]["of_class"] > 0.05


def test_mean_over_the_agreed_set_drifts_to_the_mean_of_all():
    labels, order = np.arange(60) % 2, np.random.default_rng(2).permutation(60)
    statistics = {"d": pd.DataFrame({"follows": order * 1.0})}
    found = agreed_means(table({"trial": "t1"}), loads(t1=predictions(ordered(order, labels), labels)), statistics).query(
        "split == 'train'"
    )
    assert found["mean"].dropna().is_monotonic_increasing
    assert found["mean"].iloc[-1] == found["mean_all"].iloc[-1] == 29.5
    assert found["num_agreed"].tolist() == [0, 12, 24, 36, 48, 60]
    assert not found["shown"].any()  # the source hides the first five epochs


@pytest.mark.parametrize(("reverse", "statement"), [(True, "changed"), (False, "undecided")])
def test_a_swap_that_reverses_the_order(reverse, statement):
    generator = np.random.default_rng(4)
    labels, order = np.arange(80) % 2, generator.permutation(80)

    def noisy(ranks: np.ndarray) -> np.ndarray:
        return np.concatenate([ordered(np.argsort(np.argsort(ranks + generator.normal(0, 6, 80))), labels, 6, 1) for _ in range(5)])

    first, second = noisy(order), noisy(-order if reverse else order)
    epochs = [*range(6), *range(6, 12)]
    control = predictions(np.concatenate([first, noisy(order)], axis=1), labels, epochs)
    after = np.concatenate([first[:, -1:], second], axis=1)
    stressed = predictions(
        np.concatenate([first, after], axis=1), labels, [*range(6), 5, *range(6, 12)], ["epoch"] * 6 + ["after_swap"] + ["epoch"] * 6
    )
    trials = table({"trial": "t1"}, {"trial": "t2", "control": "t1", "swap_epoch": 5, "swapped": "both"})
    load = loads(t1=control, t2=stressed)
    row = order_changes(trials, load).query("split == 'test'").iloc[0]
    assert row["statement"] == statement
    assert row["control_kept"] > 0.7
    assert (row["kept"] < -0.7) == reverse
    pairs = order_pairs(trials, load).query("split == 'test'").set_index("pairs")["rho"]
    assert (pairs["other_seeds"] < -0.7) == reverse
    assert pairs["within"] > 0.7


def test_independent_networks_are_right_together_as_often_as_their_accuracies_say():
    accuracies = np.array([0.2, 0.5, 0.9])
    expected = np.zeros(4)
    for outcome in product((0, 1), repeat=3):
        expected[sum(outcome)] += np.prod([a if right else 1 - a for a, right in zip(accuracies, outcome, strict=True)])
    assert independent_counts(accuracies) == pytest.approx(expected)


def test_families_of_one_control_count_once():
    rows = pd.DataFrame({"control": ["a"] * 9 + ["b", "c"], "x": [1.0] * 9 + [2.0, 6.0]})
    found, n = over_controls(rows, "x")
    assert (found["mean"], n) == (3.0, 3)


def test_contact_sheet_shows_the_thumbnails_it_was_given():
    trials, _, control, _ = two_families()
    found = examples(trials.head(1), loads(t1=control))
    pictures = {}
    for sample in range(40):
        sink = io.BytesIO()
        Image.fromarray(np.full((6, 6, 3), [255, 0, 0], dtype=np.uint8)).save(sink, "PNG")
        pictures[sample] = sink.getvalue()
    sheet = contact_sheet(found, pictures, "test", "control")
    pixels = matplotlib.image.imread(io.BytesIO(sheet.png()), format="png")[..., :3]
    assert ((pixels == [1, 0, 0]).all(axis=-1)).mean() > 0.2
    assert contact_sheet(found, {}, "test", "control") is None
    assert (
        agreement_curves(agreements(trials, loads(t1=control, t2=two_families()[3]), num_permutations=9), representatives_of(trials))
        is not None
    )


def representatives_of(trials: pd.DataFrame) -> pd.DataFrame:
    found = representatives(trials)
    assert found["trial"].tolist() == ["t1"]
    return found


def test_a_line_of_one_point_is_not_drawn_but_said():
    rows = pd.DataFrame(
        [
            {"epoch": epoch, "pairs": pairs, "kappa": 0.1 * epoch}
            for epoch in (4, 5)
            for pairs in ("within", "within_other", "other_seeds", "same_seed")
        ]
    ).assign(comparison="control", alignment="epoch", split="test", swapped="loss", swap_epoch=4, control="t1", trial="t2")
    assert set(with_control(rows).rows["since"]) == {0, 1}
    alone = rows[rows["epoch"] == 4]
    assert with_control(alone) is None
    assert "fewer than two epochs since a swap" in _not_drawn(alone, None)[0]
    assert _not_drawn(alone.head(0), None) == []
