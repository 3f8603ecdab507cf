"""Baselines of whole families: what rescaling must not change, what is recomputed slowly, and what a kill must not change."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from analysis import tables
from analysis.measures import baselines as measures
from analysis.probe_tables import BASELINES_OF
from analysis.storage import Store
from trainables.activations import HotSwap
from trainables.family import Family, run
from trainables.linear import find_layers, matrix_norms, parameter_distance, path_norm
from trainables.models import build, record
from trainables.options import BASELINES, Probes, Stitching
from trainables.probes import Look
from trainables.probes.activations import ActivationsProbe, probe_set
from trainables.probes.baselines import BaselinesProbe, training_subset
from trainables.recipe import BaseRecipe, Model
from trainables.replicas import Replicas
from trainables.schedule import Base, Phase, Schedule
from trainables.training import FamilyTraining

RELU = Phase(0, "relu", "cross_entropy")
CONTROL = Schedule((RELU,))
SWAP = Schedule.of([[0, "relu", "cross_entropy"], [2, "tanh", "focal"]])
ALL = Probes(num_samples=10, baselines=list(BASELINES), stitching=Stitching(steps=2))
EXECUTORS = ("loop", "grouped", "vmap")


def with_model(recipe: BaseRecipe, **model) -> BaseRecipe:
    return recipe.model_copy(update={"model": Model(**model)})


def trained(recipe, data, epochs=2, **more) -> FamilyTraining:
    training = FamilyTraining(recipe, data, RELU, **more)
    for _ in range(epochs):
        training.train_epoch()
    return training


def measured(training, data, **options) -> dict[tuple[str, str], np.ndarray]:
    """Every baseline of a family as it stands, by name and layer."""
    probes = Probes(num_samples=10, baselines=list(BASELINES), **options)
    activations = ActivationsProbe(probes, data, training.replicas.build(), training.device)
    probe = BaselinesProbe(probes, CONTROL, data, activations)
    probe.look(Look("epoch", training, training.evaluate()))
    probe.look(Look("end", training))
    return {tuple(key.split("/")[2:]): values.numpy() for key, values in probe.records.items()}


def test_what_is_recorded_is_what_the_schema_lists(small_recipe, small_data, store):
    list(run(Family(small_recipe, Probes(num_samples=10, baselines=True), CONTROL), store))
    rows = tables.read(store, "baselines")
    assert set(rows["baseline"]) == {name for group in BASELINES_OF.values() for name in group}
    assert tuple(BASELINES_OF) == BASELINES
    assert set(rows[rows["layer"].notna()]["baseline"]) == {"participation_ratio"}
    assert set(rows["layer"].dropna()) == {"block1", "block2", "head"}
    assert len(rows) == len(rows.drop_duplicates(["replica", "baseline", "layer"])) == 3 * (17 + 3)
    assert np.isfinite(rows[rows["baseline"] != "sharpness"]["value"]).all()


@pytest.mark.parametrize("name", BASELINES)
def test_each_baseline_can_be_had_alone(small_recipe, small_data, store, name):
    probes = Probes(num_samples=10, moments=["init"], baselines=[name])
    list(run(Family(small_recipe, probes, CONTROL), store))
    assert set(tables.read(store, "baselines")["baseline"]) == set(BASELINES_OF[name])


def test_a_family_is_named_by_the_baselines_that_it_records():
    base = Base(BaseRecipe(), "0" * 64)
    names = [base.trial_name(CONTROL, Probes(baselines=b)) for b in (True, False, [*BASELINES], [*BASELINES][::-1], ["norms"])]
    assert names[0] == names[2] == names[3] == base.trial_name(CONTROL, Probes())
    assert len(set(names)) == 3


def test_names_stand_for_what_is_recorded_and_not_for_what_is_the_default():
    """Ids of families that are in results: without sharpness, which was once the default, and with 4 directions of it, which were."""
    base, without = Base(BaseRecipe(), "0" * 64), [name for name in BASELINES if name != "sharpness"]
    assert base.trial_name(CONTROL, Probes(baselines=without)) == "t1c6f72844887"
    assert base.trial_name(CONTROL, Probes(baselines=True, sharpness_directions=4)) == "te9c227925652"
    assert base.trial_name(CONTROL, Probes(baselines=False)) == "t38b351364d4c"
    assert base.trial_name(CONTROL, Probes(sharpness_directions=7)) == "t0ccf54a449a9"
    assert base.trial_name(CONTROL, Probes(baselines=without, sharpness_directions=7)) == "t1c6f72844887"


def test_states_saved_without_baselines_are_continued_from(small_recipe, store):
    list(run(Family(small_recipe, Probes(num_samples=10, baselines=[]), CONTROL, frozenset([2])), store))
    assert tables.names(store, "baselines") == []
    list(run(Family(small_recipe, ALL, SWAP), store))
    assert set(tables.read(store, "trials", ["epochs_trained"])["epochs_trained"]) == {5, 3}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_killed_branch_has_the_baselines_of_a_run_from_scratch(small_recipe, small_data, tmp_path, same_tables, executor):
    """Bit for bit, the distance from initial weights that no state holds among them."""
    shared, scratch = Store(tmp_path / "shared"), Store(tmp_path / "scratch")
    list(run(Family(small_recipe, ALL, CONTROL, frozenset([2])), shared, executor=executor))
    attempt = run(Family(small_recipe, ALL, SWAP, frozenset([3])), shared, executor=executor)
    next(attempt)
    attempt.close()
    list(run(Family(small_recipe, ALL, SWAP), shared, executor=executor))
    list(run(Family(small_recipe, ALL, SWAP), scratch, executor=executor))
    trial = Base(small_recipe, small_data.hash).trial_name(SWAP, ALL)
    assert tables.read(shared, "trials", ["epochs_trained"], [trial])["epochs_trained"].item() == 2
    same_tables(shared, scratch, [trial])
    assert len(tables.read(shared, "baselines", only=[trial])) == 60
    assert len(tables.read(shared, "stitching", only=[trial])) == 12


@pytest.mark.parametrize(
    "model",
    [{"name": "mlp", "widths": [8, 6]}, {"name": "cnn", "widths": [4, 6]}, pytest.param({"name": "resnet18"}, marks=pytest.mark.slow)],
)
def test_executors_measure_the_same_and_leave_the_networks_as_they_were(small_recipe, small_data, model):
    recipe = with_model(small_recipe, **model)
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"replicas": 2})})
    found = []
    for executor in EXECUTORS:
        training = trained(recipe, small_data, epochs=0 if model["name"] == "resnet18" else 1, executor=executor)
        before, logits = training.state(), training.replicas.forward(small_data.test.images)
        found.append(measured(training, small_data))
        for name, tensor in training.state().items():
            assert torch.equal(tensor, before[name]), name
        assert torch.equal(training.replicas.forward(small_data.test.images), logits)
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, values in found[0].items():
            # Accuracies move in steps: where rounding tips one prediction, the search for sharpness may take another turn.
            np.testing.assert_allclose(other[key], values, rtol=0.3 if key[0] == "sharpness" else 0.05, atol=0.02, err_msg=str(key))


def rescaled(training: FamilyTraining, factor: float) -> None:
    """Scale the first layer up and the second down: with relu the networks compute the same. Batch norm takes its part along."""
    weights = training.replicas.named(training.replicas.weights)
    names = [name for name in weights if name.startswith(("block1.1", "block1.0")) and "num_batches" not in name]
    with torch.no_grad():
        if "block1.1.weight" in weights:  # a batch norm: what is scaled is its affine map
            names = ["block1.1.weight", "block1.1.bias"]
        for name in names:
            weights[name].mul_(factor)
        weights["block2.0.weight"].div_(factor)


@pytest.mark.parametrize("model", [{"name": "mlp", "widths": [8, 6]}, {"name": "cnn", "widths": [4, 6]}])
def test_rescaling_relu_layers_changes_what_depends_on_parameters_only(small_recipe, small_data, model):
    """The function is the same: so are path norm, products of norms, sharpness; sums and distances are not."""
    training = trained(with_model(small_recipe, **model), small_data)
    before = measured(training, small_data)
    rescaled(training, 4.0)  # a power of two: nothing rounds
    after = measured(training, small_data)
    for key, values in before.items():
        if key[0] in ("spectral_sum", "parameter_norm", "distance_from_init"):
            assert not np.allclose(after[key], values), key
        elif key[1] != "block1":
            np.testing.assert_allclose(after[key], values, rtol=1e-4, err_msg=str(key))


def test_scaling_what_a_batch_norm_takes_back_changes_no_norm(small_recipe, small_data):
    """The convolution twice as large, with running statistics to match: folded, both are the same layer."""
    training = trained(small_recipe, small_data)
    layers = find_layers(training.replicas.build(), small_data.train.images[:1])
    assert layers.folds == {"block1.1": "block1.0", "block2.1": "block2.0"}
    assert layers.head == "head"
    alive = torch.ones(3, dtype=torch.bool)

    def norms():
        path = path_norm(training.replicas, layers, "relu", small_data.train.images[:1]).numpy()
        return np.concatenate([*matrix_norms(training.replicas, layers, alive), path[:, None]], 1)

    before = norms()
    training.replicas.named(training.replicas.weights)["block1.0.weight"].mul_(2)
    training.replicas.buffers["block1.1.running_mean"].mul_(2)
    training.replicas.buffers["block1.1.running_var"].mul_(4)
    np.testing.assert_allclose(norms(), before, rtol=1e-3)  # but for the batch norm's eps


def test_path_norm_by_walking_every_path(small_recipe, small_data):
    """From every input and every bias, through every unit, to every output."""
    training = trained(with_model(small_recipe, name="mlp", widths=[3, 2]), small_data)
    layers = find_layers(training.replicas.build(), small_data.train.images[:1])
    assert layers.has_paths
    found = path_norm(training.replicas, layers, "relu", small_data.train.images[:1])
    for index, model in enumerate(
        trained(with_model(small_recipe, name="mlp", widths=[3, 2]), small_data, executor="loop").replicas.models
    ):
        w1, w2, w3 = (model.get_parameter(f"{n}.weight").double() for n in ("block1.0", "block2.0", "head"))
        b1, b2, b3 = (model.get_parameter(f"{n}.bias").double() for n in ("block1.0", "block2.0", "head"))
        total = b3.square().sum()
        for k, j in product(range(len(b3)), range(len(b2))):
            total += (w3[k, j] * b2[j]) ** 2
            for i in range(len(b1)):
                total += (w3[k, j] * w2[j, i] * b1[i]) ** 2
                total += sum((w3[k, j] * w2[j, i] * w1[i, s]) ** 2 for s in range(w1.shape[1]))
        assert found[index].item() == pytest.approx(total.sqrt().item(), rel=1e-3)


def test_path_norms_that_are_none_are_absent(small_recipe, small_data):
    """Where a gate multiplies (squeeze and excitation) or a norm divides (layer norm), paths have no product of weights."""
    image = torch.zeros(1, 3, 32, 32)
    defined = {
        name: find_layers(build(Model(name=name), (3, 32, 32), 2), image).has_paths
        for name in ("resnet18", "vgg11_bn", "mobilenet_v2", "efficientnet_b0", "convnext_tiny")
    }
    assert defined == {"resnet18": True, "vgg11_bn": True, "mobilenet_v2": True, "efficientnet_b0": False, "convnext_tiny": False}


def test_a_folded_bias_joins_the_shift():
    """A convolution with a bias before its batch norm (VGG): what the one adds and the other takes away is on no path."""

    def make():
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), HotSwap(), nn.Flatten(), nn.Linear(12, 2)).eval()

    replicas = Replicas(make, [0], torch.device("cpu"), (1, 1, 4, 4))
    image = torch.zeros(1, 1, 4, 4)
    layers, weights = find_layers(make(), image), replicas.named(replicas.weights)
    found = []
    for bias in (0.0, 0.5):
        weights["0.bias"].fill_(bias)
        weights["1.bias"].fill_(-bias / (1 + 1e-5) ** 0.5)
        found.append(path_norm(replicas, layers, "relu", image))
    torch.testing.assert_close(*found)


def test_norms_count_grouped_convolutions_and_batch_norms_that_follow_no_layer():
    def make():
        model = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, groups=2, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        model[0].weight.data = torch.tensor([1.0, 3.0, 2.0, 1.0])
        model[1].weight.data = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 4.0], [3.0, 0.0]]).view(4, 2, 1, 1)
        return model

    replicas = Replicas(make, [0], torch.device("cpu"), (1, 4, 1, 1))
    layers = find_layers(make(), torch.zeros(1, 4, 1, 1))
    spectral, frobenius = matrix_norms(replicas, layers, torch.tensor([True]))
    head = replicas.named(replicas.weights)["3.weight"][0].double()
    np.testing.assert_allclose(spectral[0], [4.0, torch.linalg.matrix_norm(head, 2).item(), 3.0], rtol=1e-4)
    np.testing.assert_allclose(frobenius[0], [30**0.5, head.norm().item(), 15**0.5], rtol=1e-4)


def test_distance_from_initialisation(small_recipe, small_data):
    training = FamilyTraining(small_recipe, small_data, RELU)
    assert measured(training, small_data)["distance_from_init", ""].tolist() == [0.0] * 3
    start = training.replicas.weights.detach().clone()
    training.train_epoch()
    moved = {name: t - training.replicas.named(start)[name] for name, t in training.replicas.named(training.replicas.weights).items()}
    wanted = torch.cat([t.flatten(1) for t in moved.values()], 1).double().norm(dim=1)
    np.testing.assert_allclose(measured(training, small_data)["distance_from_init", ""], wanted, rtol=1e-6)
    assert torch.allclose(parameter_distance(training.replicas, training.replicas.initial()), wanted)


def test_features_and_outputs_are_those_of_the_networks(small_recipe, small_data):
    """Participation ratio of the probe set and separability of the training subset, from networks computed one by one."""
    training = trained(small_recipe, small_data, executor="loop")
    found = measured(training, small_data)
    where = training_subset(small_data)
    images, labels = small_data.train.images[where], small_data.train.labels[where].numpy()
    probed = small_data.test.images[probe_set(small_data, Probes(num_samples=10))]
    for index, model in enumerate(training.replicas.models):
        with torch.no_grad():
            model.eval()
            penultimate = record(model, ["pool"], images)["pool"].numpy()
            block = record(model, ["block1"], probed)["block1"].mean((2, 3)).numpy()
            margins = measures.margins(model(small_data.train.images).numpy(), small_data.train.labels.numpy())
        assert found["cdnv", ""][index] == pytest.approx(measures.cdnv(penultimate, labels), rel=1e-3)
        assert found["davies_bouldin", ""][index] == pytest.approx(measures.davies_bouldin(penultimate, labels), rel=1e-3)
        assert found["participation_ratio", "block1"][index] == pytest.approx(measures.participation_ratio(block), rel=1e-3)
        assert found["margin_median", ""][index] == pytest.approx(np.median(margins), rel=1e-3, abs=1e-4)


def test_sharpness_does_not_depend_on_the_replicas_beside(small_recipe, small_data):
    two = small_recipe.model_copy(update={"training": small_recipe.training.model_copy(update={"replicas": 2, "first_seed": 1})})
    three, others = (measured(trained(r, small_data, 4, executor="loop"), small_data)["sharpness", ""] for r in (small_recipe, two))
    np.testing.assert_array_equal(three[1:], others)
    assert np.isfinite(three).any()


def test_diverged_replicas_have_no_numbers_and_hurt_no_others(small_recipe, small_data):
    whole, hurt = (trained(small_recipe, small_data, executor="loop") for _ in range(2))
    hurt.replicas.named(hurt.replicas.weights)["head.weight"][1] = torch.nan
    hurt.evaluate()
    assert hurt.diverged_at.tolist() == [-1, 2, -1]
    before, after = measured(whole, small_data), measured(hurt, small_data)
    for key, values in after.items():
        assert np.isnan(values[1]), key
        if key[0] != "disagreement":
            np.testing.assert_array_equal(values[[0, 2]], before[key][[0, 2]], err_msg=str(key))
    assert np.isfinite(after["disagreement", ""][[0, 2]]).all()
    hurt.replicas.named(hurt.replicas.weights)["head.weight"].fill_(torch.nan)
    hurt.evaluate()
    assert measured(hurt, small_data) == {}
