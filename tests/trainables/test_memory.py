"""Out of memory: fewer replicas at a time, the same results, and a record of it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from analysis import tables
from trainables.family import Family, run
from trainables.recipe import BaseRecipe
from trainables.schedule import Schedule
from trainables.training import FamilyTraining

GREEDY = """
import torch, torch.nn.functional as F

MOST = {most}

def loss(logits, labels):
    num = logits.numel() // (labels.shape[-1] * logits.shape[-1])  # networks side by side
    if labels.shape[-1] == {batch} and torch.is_grad_enabled() and num > MOST:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape).mean(-1)
"""


def family_of(recipe: BaseRecipe, probes, tmp_path, monkeypatch, name: str, most: int) -> Family:
    (tmp_path / f"{name}.py").write_text(GREEDY.format(most=most, batch=recipe.training.batch_size))
    monkeypatch.syspath_prepend(str(tmp_path))
    return Family(recipe, probes, Schedule.of([[0, "relu", f"{name}:loss"], [2, "tanh", f"{name}:loss"]]))


@pytest.fixture
def four(small_recipe) -> BaseRecipe:
    return small_recipe.model_copy(update={"training": small_recipe.training.model_copy(update={"replicas": 4, "epochs": 3})})


@pytest.mark.parametrize("executor", ["vmap", "grouped"])
def test_a_family_out_of_memory_trains_fewer_replicas_at_a_time(four, probes, store, tmp_path, monkeypatch, executor):
    family = family_of(four, probes, tmp_path, monkeypatch, f"greedy_{executor}", most=2)
    *_, last = run(family, store, "cpu", executor)
    assert last.done
    (row,) = tables.read(store, "trials").to_dict("records")
    assert row["status"] == "done"
    assert row["device"] == f"cpu {executor}, 2 of 4 replicas at a time: out of memory with more"
    accuracy = tables.read(store, "replicas")["train_accuracy"]
    assert accuracy.notna().all()
    assert len(accuracy) == 4


def test_it_fails_where_one_replica_is_too_many(four, probes, store, tmp_path, monkeypatch):
    family = family_of(four, probes, tmp_path, monkeypatch, "insatiable", most=0)
    with pytest.raises(torch.OutOfMemoryError):
        list(run(family, store, "cpu", "vmap"))


@pytest.mark.parametrize("executor", ["vmap", "grouped"])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_fewer_at_a_time_train_the_same_networks(four, small_data, executor, at_once):
    """To rounding: how many are side by side may change the order of sums."""
    found = []
    for some in (None, at_once):
        training = FamilyTraining(four, small_data, Schedule.of([[0, "relu", "cross_entropy"]]).phases[0], "cpu", executor, some)
        assert training.replicas.at_once == (some or 4)
        training.train_epoch()
        found.append((training.state(), training.evaluate().metrics))
    (whole, metrics), (parts, others) = found
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    torch.testing.assert_close(others, metrics, rtol=1e-3, atol=1e-3)


def test_states_of_fewer_at_a_time_are_not_taken_for_others(four, probes, store, tmp_path, monkeypatch):
    """A family that begins from a state of another rounding would not be bit for bit what it is called."""
    family = family_of(four, probes, tmp_path, monkeypatch, "greedy_states", most=2)
    saving = Family(four, probes, family.schedule, frozenset({1, 2}))
    list(run(saving, store, "cpu", "vmap"))
    first = tables.read(store, "replicas")
    (tmp_path / "greedy_states.py").write_text(GREEDY.format(most=2, batch=four.training.batch_size))
    *_, last = run(saving, store, "cpu", "vmap")
    assert last.epochs_trained == 1  # from the newest state of its own kind
    pd.testing.assert_frame_equal(tables.read(store, "replicas"), first, check_exact=True)
