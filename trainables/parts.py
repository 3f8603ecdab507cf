"""Networks cut in two: the part up to a layer, of all replicas at once, and what follows it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from analysis.registry import UnknownName
from trainables.models import record
from trainables.replicas import Replicas
from trainables.training import FamilyTraining


class Chain(nn.Sequential):
    """Parts of a network in turn, with its parameter names. A map is flattened where a linear layer meets it, as torchvision's do."""

    def forward(self, x: Tensor) -> Tensor:
        for part in self:
            first = next((m for m in part.modules() if any(True for _ in m.parameters(recurse=False))), None)
            x = part(x.flatten(1) if x.dim() > 2 and isinstance(first, nn.Linear) else x)
        return x


def parts_of(model: nn.Module, image_shape: tuple[int, int, int]) -> OrderedDict[str, nn.Module]:
    """The top-level parts of a network by name, which computed in turn are the network. Raises UnknownName if they are not."""
    parts = OrderedDict(model.named_children())
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        try:
            is_chain = torch.allclose(Chain(parts)(images), model(images), rtol=1e-4, atol=1e-5)
        except Exception:  # whatever a part says to what it does not expect
            is_chain = False
    if not is_chain or any(type(part).__name__ == "Permute" for part in parts.values()):  # that moves the axis of channels
        raise UnknownName(
            f"{type(model).__name__} is no chain of its parts {', '.join(parts)}, so it cannot be cut between them; "
            "allowed: mlp, cnn and other models that are (resnet18, ...)"
        )
    return parts


def parts_behind(parts: OrderedDict[str, nn.Module], layer: str) -> nn.Module:
    """What follows a part, as a network in evaluation mode with its parameter names. Nothing follows the last: the identity."""
    behind = list(parts)[list(parts).index(layer) + 1 :]
    return Chain(OrderedDict((name, parts[name]) for name in behind)).eval()


def image_shape_of(training: FamilyTraining) -> tuple[int, int, int]:
    """(channel, height, width)"""
    _, channels, height, width = training.splits["train"].images.shape
    return channels, height, width


class LowerParts:
    """Outputs of layers of all replicas on the same images, `[replica, sample, ...]` by layer."""

    def __init__(self, replicas: Replicas, layers: list[str]) -> None:
        self.replicas, self.layers = replicas, layers

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        shapes: dict[str, torch.Size] = {}

        def features(model: nn.Module, batch: Tensor) -> Tensor:
            found = record(model, self.layers, batch)
            shapes.update({layer: output.shape[1:] for layer, output in found.items()})
            return torch.cat([found[layer].flatten(1) for layer in self.layers], 1)

        stacked = self.replicas.map(features, images)
        parts = stacked.split([shapes[layer].numel() for layer in self.layers], 2)
        return {layer: part.unflatten(2, shapes[layer]) for layer, part in zip(self.layers, parts, strict=True)}
