"""Networks side by side in one compute what they compute apart."""

import pytest
import torch
from torch import nn

from trainables import grouped
from trainables.activations import ACTIVATIONS, INCREASING, HotSwap
from trainables.executors import choose_executor
from trainables.grouped import GroupedReplicas
from trainables.grouping import NotGroupable, _Pooled, group
from trainables.losses import LOSSES
from trainables.models import build, largest_output_bytes
from trainables.recipe import Model
from trainables.replicas import Replicas

MODELS = [
    Model(name="mlp", widths=[8, 5], batch_norm=True),
    Model(name="cnn", widths=[4, 6]),
    Model(name="cnn", widths=[4], batch_norm=False),
    Model(name="resnet18"),
    Model(name="squeezenet1_1"),
    Model(name="shufflenet_v2_x0_5"),
    Model(name="mobilenet_v2"),
]
GROUPABLE = {"mlp", "cnn", "resnet18"}  # the others drop units out or shuffle channels
SHAPE = (3, 12, 12)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{m.batch_norm}")
def test_what_can_be_grouped_is_and_the_rest_trains_one_by_one(model):
    shape = SHAPE if model.name in GROUPABLE else (3, 32, 32)
    assert choose_executor("auto", "cpu", model, shape, 3) == ("grouped" if model.name in GROUPABLE else "loop")
    assert choose_executor("loop", "cpu", model, shape, 3) == "loop"
    if model.name not in GROUPABLE:
        with pytest.raises(ValueError, match=f"grouped cannot train '{model.name}'.*allowed: auto, loop"):
            choose_executor("grouped", "cpu", model, shape, 3)


@pytest.mark.parametrize("model", [m for m in MODELS if m.name in GROUPABLE], ids=lambda m: f"{m.name}-{m.batch_norm}")
def test_gradients_buffers_and_outputs_of_a_group_are_those_apart(model, monkeypatch):
    """Five replicas one by one, and as blocks of 1, of 2 (one is left over) and of 5."""
    results = []
    widest = largest_output_bytes(build(model, SHAPE, 3), torch.zeros(1, *SHAPE))
    for size in (None, 1, 2, 5):
        monkeypatch.setattr(grouped, "_TRAINING_BYTES", (size or 1) * 8 * widest)
        kind = GroupedReplicas if size else Replicas
        replicas = kind(lambda: build(model, SHAPE, 3), [0, 1, 2, 3, 4], torch.device("cpu"), (8, *SHAPE))
        if isinstance(replicas, GroupedReplicas):
            assert max(stop - start for start, stop, _ in replicas._blocks) == size
            replicas._chunk_size = 3
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(5, 8, *SHAPE, generator=generator)
        labels = torch.randint(3, (5, 8), generator=generator)
        replicas.train_mode(True)
        losses = replicas.gradient(images, labels, lambda z, y: (z - nn.functional.one_hot(y, 3)).square().mean((-2, -1)), [True] * 5, [])
        found = {f"gradient {n}": g.clone() for n, g in replicas.named(replicas.gradients).items()}
        found |= {f"buffer {n}": b.clone() for n, b in replicas.buffers.items()}
        results.append(found | {"losses": losses, "logits": replicas.forward(images[0])})
    for other in results[1:]:
        for name, value in results[0].items():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5, msg=name)
    assert results[0]["gradient " + next(iter(replicas.named(replicas.weights)))].any()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_pooling_before_the_activation_changes_nothing(name):
    """The order within a group is its own affair: same outputs, same gradients, whatever the activation."""
    model, function = Model(name="cnn", widths=[4, 6]), ACTIVATIONS[name]
    replicas = [kind(lambda: build(model, SHAPE, 3), [0, 1], torch.device("cpu"), (8, *SHAPE)) for kind in (Replicas, GroupedReplicas)]
    images, labels = torch.randn(2, 8, *SHAPE), torch.randint(3, (2, 8))
    for each in replicas:
        each.swap(function)
        each.train_mode(True)
        each.gradient(images, labels, LOSSES["cross_entropy"], [True, True], [])
    apart, together = replicas
    torch.testing.assert_close(together.gradients, apart.gradients, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.forward(images[0]), apart.forward(images[0]), rtol=1e-4, atol=1e-5)
    orders = [part.function in INCREASING for module in together.modules for part in module.modules() if isinstance(part, _Pooled)]
    assert orders == [function in INCREASING] * 2


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_increasing_activations_are_those_that_never_decrease(name):
    x = torch.linspace(-8, 8, 4001)
    steps = ACTIVATIONS[name](x).diff()
    assert (ACTIVATIONS[name] in INCREASING) == bool((steps >= -3e-7).all())


def test_a_model_that_mixes_channels_is_refused():
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.scale[:, None, None]

    for part in (nn.Dropout(0.5), nn.LayerNorm(4), nn.Softmax(1), Gate()):
        with pytest.raises(NotGroupable, match=type(part).__name__):
            group(nn.Sequential(nn.Linear(4, 4), HotSwap(), part), 2)


@pytest.mark.parametrize(
    ("widths", "num_replicas", "blocks"),
    [([8, 16, 32], 6, [6]), ([8, 16, 32], 10, [5, 5]), ([8, 16, 32], 11, [6, 5]), ([256], 3, [1, 1, 1])],
)
def test_blocks_keep_the_widest_layer_in_the_cache_and_are_even(widths, num_replicas, blocks):
    model, shape = Model(name="cnn", widths=widths), (3, 20, 20)  # at widths of 8, one of 32 images has 8 x 20 x 20 x 4 x 32 bytes: 9 fit
    replicas = GroupedReplicas(lambda: build(model, shape, 2), list(range(num_replicas)), torch.device("cpu"), (32, *shape))
    assert [stop - start for start, stop, _ in replicas._blocks] == blocks
    assert replicas.is_interleaved == (max(blocks) > 1)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_all_layers_compute_in_the_layout_that_is_fast(num_channels):
    """With one channel both layouts are the same bytes, and torch would go by the wrong strides."""
    shape, seen = (num_channels, 12, 12), []
    model = Model(name="cnn", widths=[4, 6])
    for kind in (Replicas, GroupedReplicas):
        replicas = kind(lambda: build(model, shape, 2), [0, 1], torch.device("cpu"), (4, *shape))
        for module in replicas.modules:
            for part in module.modules():
                if isinstance(part, HotSwap):
                    part.register_forward_hook(lambda m, a, y: seen.append(y.is_contiguous(memory_format=torch.channels_last)))
        replicas.forward(torch.randn(4, *shape))
        replicas.train_mode(True)
        replicas.gradient(torch.randn(2, 4, *shape), torch.zeros(2, 4, dtype=torch.long), LOSSES["focal"], [True, True], [])
    assert len(seen) >= 8
    assert all(seen)
