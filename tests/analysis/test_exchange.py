"""Who may change places with whom."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from analysis.exchange import design, num_exchanges
from analysis.wording import BETWEEN, WITHIN


def families_of(plan) -> np.ndarray:
    return plan.members.argmax(axis=1)


def test_exchange_stays_within_control_and_swap_epoch_and_moves_lines_whole(tree):
    table = tree()
    plan = design(table)
    assert (plan.scheme, plan.reason) == (WITHIN, "")
    assert plan.counts == {"num_families": 16, "num_alone": 2, "num_blocks": 4, "num_lines": 8, "num_controls": 2}
    used = table.iloc[families_of(plan)].reset_index(drop=True)
    orders = plan.orders(50, np.random.default_rng(0))
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(16), (50, 1)))
    assert (orders != np.arange(16)).any()
    for order in orders:
        moved = used.iloc[order].reset_index(drop=True)
        assert (moved["control"] == used["control"]).all()
        assert (moved["swap_epoch"] == used["swap_epoch"]).all()
        to = pd.DataFrame({"line": used["control"] + used["last_activation"], "to": moved["last_activation"]})
        assert (to.groupby("line")["to"].nunique() == 1).all()


def test_a_line_that_lacks_a_swap_epoch_is_exchanged_with_none_but_its_like(tree):
    table = tree(lines=("tanh", "gelu", "elu", "silu", "selu"))
    without = design(table.drop(index=1).reset_index(drop=True))  # c0: tanh at epoch 2
    assert without.counts["num_alone"] == 2 + 1
    assert without.counts["num_lines"] == 9


def test_a_line_moves_with_its_like_under_other_base_recipes(tree):
    """What a swap does recurs at every size of the training set: families of one schedule are no independent draws."""
    one = tree()
    table = pd.concat([one.assign(control=one["control"] + size) for size in ("small", "large")], ignore_index=True)
    plan = design(table)
    assert plan.counts == {"num_families": 32, "num_alone": 4, "num_blocks": 8, "num_lines": 8, "num_controls": 2}
    used = table.iloc[families_of(plan)].reset_index(drop=True)
    for order in plan.orders(50, np.random.default_rng(0)):
        moved = used.iloc[order].reset_index(drop=True)
        assert (moved[["control", "swap_epoch"]] == used[["control", "swap_epoch"]]).all(axis=None)
        to = pd.DataFrame({"line": used["control"].str[:2] + used["last_activation"], "to": moved["last_activation"]})
        assert (to.groupby("line")["to"].nunique() == 1).all()


def test_pulses_of_one_length_are_one_line():
    rows = [
        (f"0:relu/ce {epoch}:{activation}/ce {epoch + length}:relu/ce", "c0", epoch, "relu")
        for epoch, activation, length in product((2, 4), ("tanh", "gelu", "elu"), (1, 2))
    ]
    table = pd.DataFrame(rows, columns=["schedule", "control", "swap_epoch", "last_activation"]).astype({"swap_epoch": "Int32"})
    plan = design(table.assign(last_loss="ce"))
    assert plan.counts["num_lines"] == 6
    assert plan.counts["num_blocks"] == 2


def test_draws_with_a_control_each_are_compared_between_controls(tree):
    table = tree(num_controls=8, lines=("tanh",), epochs=(2,))
    plan = design(table)
    assert (plan.scheme, plan.reason, plan.num_items) == (BETWEEN, "", 8)
    values = np.arange(16.0)
    assert plan.items(values) == pytest.approx(values.reshape(8, 2).mean(axis=1))


def test_few_exchanges_are_all_made_once(tree):
    """Two controls with three lines each: 3! x 3! orders, of which the one observed is left to the caller."""
    plan = design(tree(num_controls=2, lines=("tanh", "gelu", "elu"), epochs=(2, 4)))
    assert num_exchanges(plan.classes) == 36
    every = plan.orders(35, np.random.default_rng(0))
    assert len(every) == len(np.unique(every, axis=0)) == 35
    assert not (every == np.arange(plan.num_items)).all(axis=1).any()
    drawn = plan.orders(34, np.random.default_rng(0))
    assert len(drawn) == 34
    assert {tuple(order) for order in drawn} <= {tuple(order) for order in every} | {tuple(range(plan.num_items))}


def test_too_few_exchanges_and_nothing_left_are_said(tree):
    assert "2 exchanges, fewer than 100: p cannot be below 0.5" in design(tree(num_controls=1, lines=("tanh", "gelu"))).reason
    few = design(tree(num_controls=4, lines=("tanh",), epochs=(2,)))
    assert few.reason == "8 families of 4 controls: 24 exchanges, fewer than 100: p cannot be below 0.083"
    alone = design(tree(num_controls=1, lines=tuple("abcdef"), epochs=(2,)))
    assert "last functions" in alone.reason


def test_alignment_is_a_projection_that_leaves_no_means(tree):
    plan = design(tree(num_controls=3))
    values = np.random.default_rng(0).standard_normal((4, plan.num_items))
    left = plan.aligner()(values)
    assert np.allclose(plan.aligner()(left), left)
    for codes in (plan.blocks, plan.functions):
        for code in np.unique(codes):
            assert np.allclose(left[:, codes == code].sum(axis=1), 0)
    assert plan.aligner().num_left == 24 - 6 - 3
    covariate = np.arange(plan.num_items)[None] ** 2.0
    assert np.allclose(plan.aligner(covariate)(covariate), 0, atol=1e-8)
