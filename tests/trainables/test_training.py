"""Lockstep training: independence of replicas, equality of executors, hot swaps, divergence."""

import math

import pytest
import torch
from torch import nn

from trainables.activations import ACTIVATIONS, swap_activation
from trainables.data import Dataset, Split, load
from trainables.losses import LOSSES
from trainables.models import build
from trainables.recipe import BaseRecipe, CellsData, Model, Training
from trainables.schedule import Phase
from trainables.streams import stream, stream_seed
from trainables.training import METRICS, SPLITS, FamilyTraining, learning_rate

RELU, TANH = Phase(0, "relu", "cross_entropy"), Phase(2, "tanh", "focal")


def trained(recipe, data, epochs=2, **more):
    training = FamilyTraining(recipe, data, RELU, **more)
    for _ in range(epochs):
        training.train_epoch()
    return training


def with_training(recipe: BaseRecipe, **changes) -> BaseRecipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 1e-3},
        {"clip_norm": 0.5, "nesterov": True},
        {"flip": True, "shift_px": 2},
    ],
)
@pytest.mark.parametrize("model", [Model(name="mlp", widths=[8]), Model(name="cnn", widths=[4, 6])])
def test_executors_agree(small_recipe, small_data, changes, model):
    recipe = with_training(small_recipe, **changes).model_copy(update={"model": model})
    loop, *others = (trained(recipe, small_data, executor=e) for e in ("loop", "grouped", "vmap"))
    assert [t.replicas.is_interleaved for t in others] == [True, False]
    for other in others:
        for name, a in loop.state().items():
            torch.testing.assert_close(a, other.state()[name], rtol=1e-3, atol=1e-4, msg=name)
        torch.testing.assert_close(loop.evaluate().metrics, other.evaluate().metrics, rtol=1e-2, atol=0.05)


@pytest.mark.parametrize("name", [*ACTIVATIONS, *LOSSES])
def test_every_function_trains_under_all_executors_without_a_slow_fallback(small_recipe, small_data, name):
    """torch warns where vmap falls back to a loop over replicas, and warnings are errors here."""
    phase = Phase(0, name, "focal") if name in ACTIVATIONS else Phase(0, "relu", name)
    states = []
    for executor in ("loop", "grouped", "vmap"):
        training = FamilyTraining(small_recipe, small_data, phase, executor=executor)
        training.train_epoch()
        states.append(training.state())
    for key, value in states[0].items():
        for other in states[1:]:
            torch.testing.assert_close(value, other[key], rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize(("executor", "num_replicas"), [("loop", 2), ("loop", 5), ("grouped", 5)])
def test_a_replica_does_not_depend_on_those_beside_it(small_recipe, small_data, executor, num_replicas):
    """Seeds 0 to 4 together and others with 1 and 2 among them: 1 and 2 come out bit for bit the same.

    In a group the number of replicas, which is part of a base recipe, may change how sums round, and nothing else.
    """
    recipe = with_training(small_recipe, clip_norm=0.05)
    a = trained(with_training(recipe, replicas=5), small_data, executor=executor).state()
    b = trained(with_training(recipe, first_seed=1, replicas=num_replicas), small_data, executor=executor).state()
    for name in a:
        if a[name].dim():
            assert torch.equal(a[name][1:3], b[name][:2]), name


def test_the_number_of_replicas_beside_one_changes_only_how_sums_round(small_recipe, small_data):
    a, b = (trained(with_training(small_recipe, replicas=n), small_data).state() for n in (5, 2))
    for name in a:
        if a[name].dim():
            torch.testing.assert_close(a[name][:2], b[name], rtol=1e-3, atol=1e-4)


def test_an_ordinary_torch_loop_trains_the_same_network(small_recipe, small_data):
    """The slow reference: one plain module, one plain optimizer, the same order of the data."""
    fast = trained(small_recipe, small_data)
    config, train = small_recipe.training, small_data.train
    torch.manual_seed(stream_seed(1, "init"))
    model = build(small_recipe.model, small_data.image_shape, 2)
    swap_activation(model, torch.relu)
    optimizer = torch.optim.SGD(model.parameters(), config.learning_rate, config.momentum)
    for epoch in range(2):
        order = torch.randperm(len(train.labels), generator=stream(1, "order", epoch))
        for batch in order.split(config.batch_size):
            if len(batch) == config.batch_size:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(train.images[batch]), train.labels[batch]).backward()
                optimizer.step()
    for name, value in model.state_dict().items():
        kind = "weights" if f"weights/{name}" in fast.state() else "buffers"
        torch.testing.assert_close(fast.state()[f"{kind}/{name}"][1], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("executor", ["loop", "grouped", "vmap"])
def test_stopping_and_loading_changes_no_bit(small_recipe, small_data, optimizer, executor):
    recipe = with_training(small_recipe, optimizer=optimizer, flip=True, schedule="cosine", warmup_epochs=1)
    straight = trained(recipe, small_data, 4, executor=executor)
    half = trained(recipe, small_data, 2, executor=executor).state()
    resumed = FamilyTraining(recipe, small_data, RELU, executor=executor)
    resumed.load(half, 2)
    for _ in range(2):
        resumed.train_epoch()
    for name, value in straight.state().items():
        assert torch.equal(value, resumed.state()[name]), name


def test_dropout_is_reproducible_and_apart_by_replica(small_recipe, small_data):
    recipe = small_recipe.model_copy(
        update={"model": Model(name="squeezenet1_1"), "data": CellsData(num_images=60, image_size=32, num_slides=4)}
    )
    recipe = with_training(recipe, replicas=2, batch_size=8)
    data = load(recipe.data)
    a, b = trained(recipe, data, 1).state(), trained(with_training(recipe, first_seed=1), data, 1).state()
    assert all(torch.equal(a[n][1], b[n][0]) for n in a if a[n].dim())
    with pytest.raises(ValueError, match="vmap cannot train 'squeezenet1_1', which draws random numbers"):
        FamilyTraining(recipe, data, RELU, executor="vmap")


def test_at_a_swap_of_the_loss_everything_computed_is_bit_identical(small_recipe, small_data):
    training = trained(small_recipe, small_data)
    state, before = training.state(), training.evaluate()
    outputs = training.replicas.forward(small_data.test.images)
    training.set_phase(Phase(2, "relu", "hinge"))
    after = training.evaluate()
    assert torch.equal(outputs, training.replicas.forward(small_data.test.images))
    assert all(torch.equal(before.predicted[s], after.predicted[s]) for s in SPLITS)
    moved = {m for i, m in enumerate(METRICS) if not torch.equal(before.metrics[..., i], after.metrics[..., i])}
    assert moved == {"loss"}
    assert all(torch.equal(v, state[n]) for n, v in training.state().items())


def test_at_a_swap_of_the_activation_the_training_state_is(small_recipe, small_data):
    training = trained(small_recipe, small_data)
    state, outputs = training.state(), training.replicas.forward(small_data.test.images)
    training.set_phase(TANH)
    assert all(torch.equal(v, state[n]) for n, v in training.state().items())
    assert not torch.equal(outputs, training.replicas.forward(small_data.test.images))


def test_a_swap_keeps_momentum_unless_told_to_forget_it(small_recipe, small_data):
    kept = trained(small_recipe, small_data)
    kept.set_phase(TANH)
    assert any(n.startswith("optimizer/") for n in kept.state())
    reset = trained(with_training(small_recipe, reset_optimizer_at_swap=True), small_data)
    reset.set_phase(TANH)
    assert not any(n.startswith("optimizer/") for n in reset.state())


def test_a_replica_that_diverges_is_recorded_and_the_others_go_on(small_recipe, small_data):
    training, clean = trained(small_recipe, small_data, 1), trained(small_recipe, small_data, 3)
    next(iter(training.replicas.named(training.replicas.weights).values()))[1] = torch.inf
    training.train_epoch()
    training.train_epoch()
    assert training.diverged_at.tolist() == [-1, 2, -1]
    evaluation = training.evaluate()
    assert evaluation.metrics[1].isnan().all()
    assert (evaluation.predicted["test"][1] == -1).all()
    for name, value in clean.state().items():
        if value.dim():
            assert torch.equal(value[[0, 2]], training.state()[name][[0, 2]]), name


def test_learning_rates_at_exact_steps():
    warm = Training(epochs=8, learning_rate=1.0, schedule="cosine", warmup_epochs=2)
    assert learning_rate(warm, 0, 10) == pytest.approx(1 / 20)
    assert learning_rate(warm, 19, 10) == pytest.approx(1.0)
    assert learning_rate(warm, 50, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    step = Training(epochs=8, learning_rate=1.0, schedule="step")
    assert [round(learning_rate(step, e * 10, 10), 6) for e in (0, 3, 4, 5, 6, 7)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert learning_rate(Training(learning_rate=0.3), 77, 10) == 0.3


def test_metrics_are_what_they_say(small_recipe, small_data):
    noisy = Split(small_data.train.ids, small_data.train.images, 1 - small_data.train.labels, small_data.train.labels, None)
    data = Dataset(noisy, small_data.val, small_data.test, 2, ["a", "b"], "0" * 64, "0" * 64, [])
    training = trained(small_recipe, data, 4)
    evaluation = training.evaluate()
    logits = training.replicas.forward(noisy.images)[1]
    assert (logits.argmax(-1) == noisy.labels).float().mean() != 0.5
    found = dict(zip(METRICS, evaluation.metrics[1, SPLITS.index("train")].tolist(), strict=True))
    assert found["accuracy"] == pytest.approx((logits.argmax(-1) == noisy.labels).float().mean().item())
    assert found["accuracy"] + found["accuracy_clean"] == pytest.approx(1.0)
    for name, loss in LOSSES.items():
        assert found[name] == pytest.approx(loss(logits, noisy.labels).item(), rel=1e-4), name
    assert found["loss"] == found["cross_entropy"]
    assert found["cross_entropy_clean"] == pytest.approx(LOSSES["cross_entropy"](logits, noisy.clean_labels).item(), rel=1e-4)
    assert ACTIVATIONS["relu"] is torch.nn.functional.relu
