"""Networks side by side in one compute what they compute apart."""

import pytest
import torch
from torch import nn

from trainables.activations import HotSwap
from trainables.models import build
from trainables.recipe import Model
from trainables.replicas import Replicas
from trainables.stacking import NotStackable, blocking, stack

MODELS = [
    Model(name="mlp", widths=[8, 5], batch_norm=True),
    Model(name="cnn", widths=[4, 6]),
    Model(name="cnn", widths=[4], batch_norm=False),
    Model(name="resnet18"),
    Model(name="vgg11_bn"),
    Model(name="shufflenet_v2_x0_5"),
    Model(name="mobilenet_v2"),
]
STACKABLE = {"mlp", "cnn", "resnet18"}  # the others drop units out or shuffle channels
SHAPE = (3, 12, 12)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{m.batch_norm}")
def test_what_can_be_stacked_is_and_the_rest_trains_one_by_one(model):
    shape = SHAPE if model.name in STACKABLE else (3, 32, 32)
    assert (blocking(model, shape, 3, 4, 2).num_replicas == 2) == (model.name in STACKABLE)


@pytest.mark.parametrize("model", [m for m in MODELS if m.name in STACKABLE], ids=lambda m: f"{m.name}-{m.batch_norm}")
def test_gradients_buffers_and_outputs_of_a_stack_are_those_apart(model):
    """Five replicas as blocks of 1, of 2 (one is left over) and of 5."""
    results = []
    for size in (1, 2, 5):
        replicas = Replicas(
            lambda: build(model, SHAPE, 3),
            [0, 1, 2, 3, 4],
            torch.device("cpu"),
            "stacked",
            blocking(model, SHAPE, 3, 8, 5)._replace(num_replicas=size, chunk=3),
        )
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


def test_a_model_that_mixes_channels_is_refused():
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.scale[:, None, None]

    for part in (nn.Dropout(0.5), nn.LayerNorm(4), nn.Softmax(1), Gate()):
        with pytest.raises(NotStackable, match=type(part).__name__):
            stack(nn.Sequential(nn.Linear(4, 4), HotSwap(), part), 2)


def test_blocks_keep_the_widest_layer_in_the_cache_and_are_of_one_size():
    small, wide = Model(name="cnn", widths=[8, 16, 32]), Model(name="cnn", widths=[256])
    assert blocking(small, (3, 20, 20), 2, 32, 6).num_replicas == 6
    assert blocking(small, (3, 20, 20), 2, 32, 10).num_replicas == 5  # 9 fit
    assert blocking(wide, (3, 20, 20), 2, 32, 6).num_replicas == 1
    assert blocking(small, (3, 20, 20), 2, 32, 1).chunk > blocking(small, (3, 20, 20), 2, 32, 6).chunk > 0
