"""The executors against each other; precision; and that no step of training waits for a GPU."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from analysis import tables
from trainables.data import Split
from trainables.executors import EXECUTORS, choose_executor
from trainables.family import Family, run
from trainables.losses import LOSSES
from trainables.models import default_layers, record
from trainables.recipe import BaseRecipe, Model
from trainables.schedule import Phase, Schedule
from trainables.training import SPLITS, FamilyTraining

RELU, TANH = Phase(0, "relu", "cross_entropy"), Phase(1, "tanh", "focal")
MODELS = [Model(name="mlp", widths=[8], batch_norm=True), Model(name="cnn", widths=[4, 6]), Model(name="resnet18")]
compiles = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # raised where inductor is imported


def of(recipe: BaseRecipe, model: Model, **changes) -> BaseRecipe:
    return recipe.model_copy(update={"model": model, "training": recipe.training.model_copy(update=changes)})


def assert_same_state(a: FamilyTraining, b: FamilyTraining, **tolerance) -> None:
    left, right = a.state(), b.state()
    assert list(left) == list(right)
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance)


def layers(training: FamilyTraining, images: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
    """All recorded layers of all replicas `[replica, sample, feature]`."""

    def features(model, batch):
        found = record(model, default_layers(model), batch)
        return torch.cat([output.flatten(1) for output in found.values()], 1)

    return training.replicas.map(features, images, chunk)


@pytest.fixture
def double_data(small_data):
    """A little of the data, with float64 as the type of everything: what is left of a difference is no rounding."""
    torch.set_default_dtype(torch.float64)
    parts = {}
    for name, num in zip(SPLITS, (16, 4, 9), strict=True):
        split = getattr(small_data, name)
        parts[name] = Split(split.ids[:num], split.images[:num].double(), split.labels[:num], split.clean_labels[:num], None)
    yield replace(small_data, **parts)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_loop_and_vmap_train_and_measure_alike(small_recipe, double_data, model):
    """Weights, momentum and running statistics after an epoch, every metric, and what hooks record of every layer."""
    recipe = of(small_recipe, model, clip_norm=1.0, learning_rate=0.01, replicas=2, batch_size=8)
    loop, vmap = (FamilyTraining(recipe, double_data, RELU, executor=e) for e in ("loop", "vmap"))
    for training in (loop, vmap):
        training.train_epoch()
    assert_same_state(loop, vmap, rtol=1e-6, atol=1e-9)
    counted = [value for name, value in vmap.state().items() if name.endswith("num_batches_tracked")]
    assert counted
    assert all(value.tolist() == [2, 2] for value in counted)
    torch.testing.assert_close(loop.evaluate().metrics, vmap.evaluate().metrics, rtol=1e-6, atol=1e-9)
    images = double_data.test.images
    a, b = layers(loop, images), layers(vmap, images)
    assert a.shape[:2] == b.shape[:2] == (2, 9)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(layers(vmap, images, chunk=2), b, rtol=1e-9, atol=1e-12)
    assert not any(module._forward_hooks for m in vmap.replicas.models for module in m.modules())


def test_evaluation_under_vmap_takes_as_many_images_at_once_as_memory_allows(small_recipe, small_data, monkeypatch):
    replicas = FamilyTraining(small_recipe, small_data, RELU, executor="vmap").replicas
    images, whole = small_data.test.images, replicas.forward(small_data.test.images)
    largest = 3 * images[0, 0].numel() * 4 * 4  # of 3 channels that come in and 4 maps per layer: float32
    monkeypatch.setattr("trainables.stacked._MAP_BYTES", 3 * largest * 5)
    seen = []
    replicas.map(lambda model, batch: seen.append(len(batch)) or model(batch), images)
    assert seen == [len(batch) for batch in images.split(5)]
    torch.testing.assert_close(replicas.forward(images), whole)


@pytest.mark.parametrize("executor", ["loop", "vmap"])
def test_a_replica_that_diverges_changes_no_bit_of_the_others(small_recipe, small_data, executor):
    recipe = of(small_recipe, small_recipe.model, clip_norm=0.5)
    hurt, clean = (FamilyTraining(recipe, small_data, RELU, executor=executor) for _ in range(2))
    next(iter(hurt.replicas.named(hurt.replicas.weights).values()))[1] = torch.inf
    for training in (hurt, clean):
        training.train_epoch()
        training.train_epoch()
    assert hurt.diverged_at.tolist() == [-1, 1, -1]
    for name, value in clean.state().items():
        assert torch.equal(value[[0, 2]], hurt.state()[name][[0, 2]]), name
    assert torch.equal(clean.evaluate().metrics[[0, 2]], hurt.evaluate().metrics[[0, 2]])
    assert hurt.evaluate().metrics[1].isnan().all()


@compiles
def test_compiled_training_is_that_of_vmap_through_a_swap_and_resumes_bit_for_bit(small_recipe, small_data):
    recipe = of(small_recipe, Model(name="cnn", widths=[4]))
    compiled, vmap = (FamilyTraining(recipe, small_data, RELU, executor=e) for e in ("compiled", "vmap"))
    first = compiled.replicas._compiled
    for training in (compiled, vmap):
        training.train_epoch()
    half = {name: value.clone() for name, value in compiled.state().items()}
    for training in (compiled, vmap):
        training.set_phase(TANH)
        training.train_epoch()
    assert compiled.replicas._compiled is not first
    assert_same_state(compiled, vmap, rtol=1e-3, atol=1e-4)
    resumed = FamilyTraining(recipe, small_data, RELU, executor="compiled")
    resumed.load(half, 1)
    resumed.set_phase(TANH)
    resumed.train_epoch()
    assert_same_state(compiled, resumed, rtol=0, atol=0)


@compiles
def test_what_cannot_be_compiled_whole_is_an_error(small_recipe, small_data, tmp_path, monkeypatch):
    (tmp_path / "breaks_graphs.py").write_text("def loss(z, y):\n    return z.mean((-2, -1)) if z.sum() > 0 else z.sum((-2, -1))\n")
    monkeypatch.syspath_prepend(tmp_path)
    training = FamilyTraining(small_recipe, small_data, Phase(0, "relu", "breaks_graphs:loss"), executor="compiled")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        training.train_epoch()


@pytest.mark.parametrize("executor", ["loop", "vmap"])
def test_bf16_trains_float32_weights_and_is_measured_in_float32(small_recipe, small_data, executor):
    plain, mixed = (
        FamilyTraining(of(small_recipe, small_recipe.model, precision=p), small_data, RELU, executor=executor) for p in ("float32", "bf16")
    )
    assert torch.equal(plain.evaluate().metrics, mixed.evaluate().metrics)
    for training in (plain, mixed):
        training.train_epoch()
    for name, value in plain.state().items():
        other = mixed.state()[name]
        assert other.dtype == value.dtype
        if name.startswith("weights/"):
            assert not torch.equal(other, value), name
            torch.testing.assert_close(other, value, rtol=0.1, atol=0.05)
    plain.load(mixed.state(), 1)
    assert torch.equal(plain.evaluate().metrics, mixed.evaluate().metrics)
    assert torch.equal(layers(plain, small_data.test.images), layers(mixed, small_data.test.images))


def test_tf32_is_refused_on_a_cpu(small_recipe, small_data):
    with pytest.raises(ValueError, match="tf32 has no effect on a CPU"):
        FamilyTraining(of(small_recipe, small_recipe.model, precision="tf32"), small_data, RELU)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_the_flags_of_tf32_follow_the_precision_of_training_and_are_off_in_evaluation(small_recipe, small_data, precision, monkeypatch):
    monkeypatch.setattr("trainables.training.check_precision", lambda *_: None)
    seen = []

    def flags():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = flags()
    training = FamilyTraining(of(small_recipe, small_recipe.model, precision=precision), small_data, RELU)
    loss = training.loss
    training.loss = lambda z, y: seen.append(flags()) or loss(z, y)
    training.train_epoch()
    assert set(seen) == {(precision == "tf32",) * 2}
    training.replicas.map(lambda model, batch: seen.append(flags()) or model(batch), small_data.test.images)
    assert seen[-1] == (False, False)
    assert flags() == before


@pytest.fixture
def steps_without_values(monkeypatch):
    """The steps of an epoch on tensors that have no values, on torch's device `meta`: whatever would wait for a GPU's values raises."""
    monkeypatch.setattr("trainables.replicas.autocast", lambda *_: nullcontext())
    monkeypatch.setattr("trainables.stacked.autocast", lambda *_: nullcontext())
    monkeypatch.setattr("trainables.grouped.autocast", lambda *_: nullcontext())

    def plain_sgd(self):  # torch has fused optimizers for real devices only; on those they take no value back
        return torch.optim.SGD([self.replicas.weights], 0.1, 0.9, foreach=False)

    monkeypatch.setattr(FamilyTraining, "_new_optimizer", plain_sgd)

    def steps(recipe, data, phase, executor):
        total = FamilyTraining(recipe, data, phase, device="meta", executor=executor)._train_steps()
        assert total.device.type == "meta"

    return steps


@pytest.mark.parametrize("executor", ["vmap", "loop", "grouped"])
@pytest.mark.parametrize("loss", list(LOSSES))
def test_no_step_of_training_waits_for_a_gpu(small_recipe, small_data, steps_without_values, loss, executor):
    options = {"clip_norm": 1.0, "flip": True, "shift_px": 2, "warmup_epochs": 1}
    steps_without_values(of(small_recipe, small_recipe.model, **options), small_data, Phase(0, "gelu", loss), executor)


def test_a_step_that_would_wait_is_found(small_recipe, small_data, steps_without_values, tmp_path, monkeypatch):
    (tmp_path / "waits.py").write_text(
        "def item(z, y):\n    return z.mean((-2, -1)) * z.sum().item()\n"
        "def nonzero(z, y):\n    return z.mean((-2, -1)) * len((z[0] > 0).nonzero())\n"
        "def copied(z, y):\n    return z.mean((-2, -1)) + 0 * z.detach().mean((-2, -1)).cpu().to(z.device)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("item", "nonzero", "copied"):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            steps_without_values(small_recipe, small_data, Phase(0, "relu", f"waits:{name}"), "vmap")


def test_auto_chooses_by_device_and_model():
    shape = ((3, 32, 32), 2)
    assert choose_executor("auto", "cpu", Model(), *shape) == "grouped"
    assert choose_executor("auto", "cuda", Model(), *shape) == "vmap"
    assert choose_executor("auto", "cuda", Model(name="squeezenet1_1"), *shape) == "loop"
    assert choose_executor("vmap", "cpu", Model(), *shape) == "vmap"


def test_states_of_another_executor_are_not_continued_from(small_recipe, store, probes):
    """They would differ in the last bits; the executor is in the row of `trials`, too."""
    control, swap = (Schedule((RELU,)), Schedule((RELU, Phase(2, "tanh", "focal"))))
    list(run(Family(small_recipe, probes, control, frozenset([2])), store, executor="vmap"))
    list(run(Family(small_recipe, probes, swap), store, executor="loop"))
    rows = tables.read(store, "trials", ["schedule", "epochs_trained", "device"]).set_index("schedule")
    assert rows.loc[str(control)].tolist() == [5, "cpu vmap"]
    assert rows.loc[str(swap)].tolist() == [5, "cpu loop"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("executor", list(EXECUTORS))
@compiles
def test_on_a_gpu_executors_train_as_the_loop_on_a_cpu_and_no_step_waits(small_recipe, small_data, executor):
    cpu, gpu = FamilyTraining(small_recipe, small_data, RELU), FamilyTraining(small_recipe, small_data, RELU, "cuda", executor)
    for training in (cpu, gpu):
        training.train_epoch()
    assert_same_state(cpu, gpu, rtol=1e-2, atol=1e-3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        gpu._train_steps()
    finally:
        torch.cuda.set_sync_debug_mode("default")
