"""Stitching: to itself a replica fits exactly, to others as well as an affine map can make it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from analysis import tables
from analysis.registry import UnknownName
from trainables.family import Family, run
from trainables.models import build
from trainables.options import Probes, Stitching
from trainables.probes.stitching import check_stitching, choose_pairs, parts_of, stitch
from trainables.recipe import Model
from trainables.schedule import Phase, Schedule
from trainables.training import METRICS, SPLITS, FamilyTraining

RELU = Phase(0, "relu", "cross_entropy")
CONTROL = Schedule((RELU,))
MODELS = [Model(name="mlp", widths=[8, 6]), Model(name="mlp", widths=[8], batch_norm=True), Model(name="cnn", widths=[4, 6])]


def trained(recipe, data, model=None, epochs=3, **more) -> FamilyTraining:
    recipe = recipe if model is None else recipe.model_copy(update={"model": model})
    training = FamilyTraining(recipe, data, RELU, **more)
    for _ in range(epochs):
        training.train_epoch()
    return training


def cut_after(model: nn.Sequential, count: int) -> tuple[nn.Sequential, nn.Sequential]:
    parts = list(model)
    return nn.Sequential(*parts[:count]), nn.Sequential(*parts[count:])


def own_scores(training) -> torch.Tensor:
    """Test accuracy and cross-entropy `[replica, 2]`."""
    metrics = training.evaluate().metrics[:, SPLITS.index("test")]
    return metrics[:, [METRICS.index("accuracy"), METRICS.index("cross_entropy")]].double()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("executor", ["loop", "grouped", "vmap"])
def test_a_replica_stitched_to_itself_is_itself(small_recipe, small_data, model, executor):
    training = trained(small_recipe, small_data, model, executor=executor)
    config = Stitching(steps=0)
    layers = check_stitching(config, training.replicas.build(), small_data.image_shape)
    assert layers == [f"block{index}" for index in range(1, 1 + len(model.widths or []))]
    for found in stitch(training, layers, [(index, index) for index in range(3)], config).values():
        torch.testing.assert_close(found, own_scores(training), rtol=1e-3, atol=1e-4)


def test_steps_leave_a_replica_stitched_to_itself_about_where_it_is(small_recipe, small_data):
    training = trained(small_recipe, small_data)
    found = stitch(training, ["block1"], [(index, index) for index in range(3)], Stitching(steps=20))["block1"]
    torch.testing.assert_close(found, own_scores(training), rtol=0.2, atol=0.1)


def test_an_affine_change_of_basis_costs_nothing(small_recipe, small_data):
    """Two replicas that differ by an invertible map of a layer's channels, undone behind it, compute the same: no penalty either way."""
    training = trained(small_recipe, small_data, Model(name="mlp", widths=[8, 6]), executor="loop")
    training.set_phase(Phase(3, "identity", "cross_entropy"))
    weights = training.replicas.named(training.replicas.weights)
    change = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q @ torch.diag(torch.linspace(0.5, 2, 8))
    with torch.no_grad():
        for stacked in weights.values():
            stacked[1] = stacked[0]
        weights["block1.0.weight"][1] = change @ weights["block1.0.weight"][0]
        weights["block1.0.bias"][1] = change @ weights["block1.0.bias"][0] + 3
        weights["block2.0.weight"][1] = weights["block2.0.weight"][0] @ change.inverse()
        weights["block2.0.bias"][1] -= weights["block2.0.weight"][1].sum(1) * 3
    own = own_scores(training)
    torch.testing.assert_close(own[0], own[1], rtol=1e-4, atol=1e-5)
    found = stitch(training, ["block1"], [(0, 1), (1, 0)], Stitching(steps=0))["block1"]
    torch.testing.assert_close(found, own[:2], rtol=1e-3, atol=1e-4)


def test_stitched_networks_by_hand(small_recipe, small_data):
    """Lower part, map and upper part as separate modules: the same scores, for maps and for features."""
    training = trained(small_recipe, small_data, executor="loop")
    config, pairs = Stitching(steps=0), [(0, 1), (2, 1), (1, 0)]
    models = [copy.deepcopy(model).eval() for model in training.replicas.models]
    train, test = small_data.train, small_data.test
    for layer, found in stitch(training, ["block1", "pool"], pairs, config).items():
        cut = [name for name, _ in models[0].named_children()].index(layer) + 1
        for row, (below, above) in zip(found, pairs, strict=True):
            with torch.no_grad():
                lower, _ = cut_after(models[below], cut)
                own_lower, upper = cut_after(models[above], cut)

                def channels(x):  # [sample x position, channel], with ones
                    rows = x.movedim(1, -1).flatten(0, -2).double().numpy()
                    return np.c_[rows, np.ones(len(rows))]

                target = channels(own_lower(train.images))[:, :-1]
                matrix = torch.from_numpy(np.linalg.lstsq(channels(lower(train.images)), target, rcond=1e-4)[0]).float()
                x = lower(test.images).movedim(1, -1)
                stitched = upper((x @ matrix[:-1] + matrix[-1]).movedim(-1, 1))
                accuracy = (stitched.argmax(1) == test.labels).float().mean()
                loss = nn.functional.cross_entropy(stitched, test.labels)
            torch.testing.assert_close(row, torch.tensor([accuracy, loss]).double(), rtol=1e-2, atol=1e-3)


def test_training_the_map_lowers_the_loss_it_is_trained_on(small_recipe, small_data):
    """Networks of other initial weights that have not been trained: the fit is poor, and steps mend it on the training images."""
    training = trained(small_recipe, small_data)
    training.splits["test"] = training.splits["train"]
    pairs = choose_pairs([0, 1, 2], Stitching())
    start, end = (stitch(training, ["block1"], pairs, Stitching(steps=s, learning_rate=0.01))["block1"][:, 1] for s in (0, 60))
    assert (end < start).all()


def test_the_table_holds_penalties_against_the_upper_replica(small_recipe, small_data, store):
    probes = Probes(num_samples=10, stitching=Stitching(steps=3, layers=["block2"], pairs=4, seed=5))
    list(run(Family(small_recipe, probes, CONTROL), store))
    rows, replicas = tables.read(store, "stitching"), tables.read(store, "replicas").set_index("replica")
    assert len(rows) == 4
    assert (rows["replica_lower"] != rows["replica_upper"]).all()
    assert set(rows["layer"]) == {"block2"}
    assert set(rows["steps"]) == {3}
    assert set(rows["seed"]) == {5}
    upper = replicas.loc[rows["replica_upper"]]
    np.testing.assert_allclose(rows["penalty_accuracy"], upper["test_accuracy"].to_numpy() - rows["accuracy"], atol=1e-6)
    np.testing.assert_allclose(rows["penalty_cross_entropy"], rows["cross_entropy"] - upper["test_cross_entropy"].to_numpy(), atol=1e-5)


def test_diverged_replicas_are_stitched_to_nothing(small_recipe, small_data, store):
    assert choose_pairs([0, 2], Stitching()) == [(0, 2), (2, 0)]
    assert choose_pairs([1], Stitching()) == []
    training = trained(small_recipe, small_data)
    whole = stitch(training, ["block1"], [(0, 2)], Stitching(steps=1))["block1"]
    training.replicas.named(training.replicas.weights)["head.weight"][1] = torch.nan
    training.replicas.retire(torch.tensor([False, True, False]))
    assert torch.equal(stitch(training, ["block1"], [(0, 2)], Stitching(steps=1))["block1"], whole)


def test_networks_that_are_no_chain_are_refused():
    for name in ("vit_b_32", "shufflenet_v2_x0_5", "swin_t"):
        with pytest.raises(UnknownName, match=r"no chain of its parts .*allowed: mlp, cnn"):
            parts_of(build(Model(name=name), (3, 224, 224), 2), (3, 224, 224))


def test_torchvision_networks_that_are_chains_can_be_cut():
    for name, layers in (("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4"]), ("mobilenet_v2", ["features"])):
        assert check_stitching(Stitching(), build(Model(name=name), (3, 32, 32), 2), (3, 32, 32)) == layers


def test_unknown_layers_are_refused_with_the_nearest(small_data):
    model = build(MODELS[2], small_data.image_shape, 2)
    with pytest.raises(UnknownName, match=r"cannot be cut after 'blok1'; did you mean 'block1'\? allowed: block1, block2, pool"):
        check_stitching(Stitching(layers=["blok1"]), model, small_data.image_shape)
