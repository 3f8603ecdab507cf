"""All replicas of a family in one stacked state, and the executor that loops over them.

All parameters of all replicas lie in one vector `weights`, all gradients in another, `gradients`, so that one elementwise optimizer
steps all replicas and none can influence another. What the executors train are views into it with views of the gradient attached:
slicing a stacked parameter inside autograd would cost the whole stack for each replica. `stacked.py` has the other executors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from trainables.activations import swap_activation
from trainables.models import is_random, record
from trainables.precision import Precision, autocast, products
from trainables.streams import stream_seed

Executor = Literal["loop", "grouped", "vmap", "compiled"]
Loss = Callable[[Tensor, Tensor], Tensor]
_ALIGNMENT = 16  # elements: every stack starts on a 64-byte boundary


class Replicas:
    """R networks that differ in their seeds, on one device, computed one after the other, channels_last."""

    executor: ClassVar[Executor] = "loop"
    channels_last: ClassVar[bool] = True

    def __init__(
        self,
        build: Callable[[], nn.Module],
        seeds: list[int],
        device: torch.device,
        batch_shape: tuple[int, int, int, int],
        precision: Precision = "float32",
        at_once: int | None = None,
    ) -> None:
        """`batch_shape` is that of a replica's training batch `[sample, channel, height, width]`: executors may cut their work by it.

        At most `at_once` replicas are computed at a time; None leaves that to the executor.
        """
        self.at_once = min(at_once or len(seeds), len(seeds))
        self.build, self.seeds, self.device, self.batch_shape, self.precision = build, seeds, device, batch_shape, precision
        models = self.initial()
        self.is_random = is_random(models[0])
        self._shapes = {name: (len(seeds), *p.shape) for name, p in models[0].named_parameters()}
        sizes = [math.ceil(math.prod(shape) / _ALIGNMENT) * _ALIGNMENT for shape in self._shapes.values()]
        self._offsets = dict(zip(self._shapes, itertools.accumulate(sizes, initial=0), strict=False))
        self.weights = nn.Parameter(torch.zeros(sum(sizes), device=device), requires_grad=False)
        self.gradients = torch.zeros_like(self.weights)
        self.weights.grad = self.gradients
        self.buffers = {
            name: torch.stack([dict(m.named_buffers())[name] for m in models]).to(device) for name, _ in models[0].named_buffers()
        }
        for name, stacked in self.named(self.weights).items():
            stacked.copy_(torch.stack([dict(m.named_parameters())[name].detach() for m in models]))
        self._attach(models)

    def initial(self) -> list[nn.Module]:
        """The networks as they were before any training, built anew from their seeds."""
        models = []
        for seed in self.seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream_seed(seed, "init"))
                models.append(self.build())
        return models

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector such as `weights` as stacked views `[replica, ...]` by parameter name, convolutions laid out channels_last."""
        views = {}
        for name, shape in self._shapes.items():
            flat = vector.detach()[self._offsets[name] : self._offsets[name] + math.prod(shape)]
            if len(shape) == 5 and self.channels_last:
                replicas, out, into, height, width = shape
                views[name] = flat.view(replicas, out, height, width, into).permute(0, 1, 4, 2, 3)
            else:
                views[name] = flat.view(shape)
        return views

    def _attach(self, models: list[nn.Module]) -> None:
        """Let the modules that compute have their parameters, gradients and buffers in the stacked state."""
        self.at_once = 1
        self.models = self.modules = [model.to(self.device) for model in models]
        for index, model in enumerate(self.models):
            self._lend(model, index, index + 1)

    def _lend(self, module: nn.Module, start: int, stop: int) -> None:
        """Make a module's parameters, their gradients and its buffers views of the replicas `[start, stop)`."""
        weights, gradients = self.named(self.weights), self.named(self.gradients)
        for name, parameter in module.named_parameters():
            parameter.data = weights[name][start:stop].view(parameter.shape)
            parameter.grad = gradients[name][start:stop].view(parameter.shape)
        for name, buffer in list(module.named_buffers()):
            path, _, leaf = name.rpartition(".")
            module.get_submodule(path)._buffers[leaf] = self.buffers[name][start:stop].view(buffer.shape)

    @property
    def is_interleaved(self) -> bool:
        """Whether `gradient` takes its images best with memory laid out `[sample, replica, channel, height, width]`."""
        return False

    def swap(self, activation: Callable[[Tensor], Tensor]) -> None:
        for module in self.modules:
            swap_activation(module, activation)

    @contextmanager
    def altered(self) -> Iterator[dict[str, Tensor]]:
        """Parameters and buffers by name, stacked `[replica, ...]`, to be changed in place for a while: put back bit for bit at the end."""
        kept = self.weights.detach().clone(), {name: buffer.clone() for name, buffer in self.buffers.items()}
        try:
            with torch.no_grad():
                yield {**self.named(self.weights), **self.buffers}
        finally:
            self.weights.detach().copy_(kept[0])
            for name, buffer in kept[1].items():
                self.buffers[name].copy_(buffer)

    def train_mode(self, training: bool) -> None:
        for module in self.modules:
            module.train(training)

    def is_finite(self) -> Tensor:
        """Whether all weights of each replica are finite `[replica]`."""
        return torch.stack([w.flatten(1).isfinite().all(1) for w in self.named(self.weights).values()]).all(0)

    def retire(self, diverged: Tensor) -> None:
        """Make the weights of the replicas marked in `diverged [replica]` NaN for good, so that no later number can come of them."""
        if diverged.any():
            for stacked in self.named(self.weights).values():
                stacked[diverged.to(self.device)] = torch.nan

    def clip(self, max_norm: float) -> None:
        """Scale each replica's gradient down to a norm of at most `max_norm`, each by its own."""
        gradients = self.named(self.gradients).values()
        # One addition after the other: a stacked sum would round differently for other numbers of replicas.
        norms = sum((g.square().flatten(1).sum(1) for g in gradients), torch.zeros(len(self.seeds), device=self.device)).sqrt()
        scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss, alive: list[bool], noise_seeds: list[int]) -> Tensor:
        """Set `gradients` from one batch per replica: images `[replica, sample, ...]`, labels `[replica, sample]`.

        Returns the loss of each replica `[replica]`, detached. The loop leaves out replicas that are not `alive` (diverged ones);
        `noise_seeds` seed whatever random numbers each replica's forward pass draws.
        """
        self.gradients.zero_()
        losses = torch.full((len(self.seeds),), torch.nan, device=self.device)
        for index, model in enumerate(self.models):
            if alive[index]:
                if self.is_random:
                    torch.manual_seed(noise_seeds[index])
                with autocast(self.precision, self.device):
                    logits = model(channels_last(images[index]))
                value = loss(logits.to(self.weights.dtype), labels[index])
                value.backward()
                losses[index] = value.detach()
        return losses

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[replica, sample, class]` of all replicas on the same images `[sample, channel, height, width]`, evaluation mode."""
        return self.map(lambda model, batch: model(batch), images)

    def map(self, function: Callable[[nn.Module, Tensor], Tensor], images: Tensor, chunk: int | None = None) -> Tensor:
        """`function(model, batch)` of every replica on the same images: `[replica, sample, ...]`. In evaluation mode and in float32,
        whatever the precision of training; so many images of a replica at once as `chunk` says, or as memory allows.
        """
        self.train_mode(False)
        with torch.no_grad(), products("float32"):
            return self._map(function, images.split(chunk or self._chunk(images)))

    def features(self, layers: Sequence[str], reduce: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """`reduce` of the outputs of the named layers (`""` is the network) on the same images, side by side `[replica, sample, feature]`.

        `reduce` takes an output `[sample, channel, ...]` to `[sample, feature]`. In evaluation mode, as `map`.
        """

        def side_by_side(model: nn.Module, batch: Tensor) -> Tensor:
            found = record(model, layers, batch)
            return torch.cat([reduce(found[layer]) for layer in layers], 1)

        return self.map(side_by_side, images)

    def _chunk(self, images: Tensor) -> int:
        return 64

    def _map(self, function: Callable[[nn.Module, Tensor], Tensor], batches: Sequence[Tensor]) -> Tensor:
        batches = [channels_last(batch) for batch in batches]
        return torch.stack([torch.cat([function(model, batch) for batch in batches]) for model in self.models])


def channels_last(images: Tensor) -> Tensor:
    """Images `[sample, channel, height, width]` with the strides of that layout.

    With one channel both layouts are the same bytes, and torch goes by the strides: left alone, it computes all layers in the other.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = images.shape
    return images.as_strided(images.shape, (channels * height * width, 1, channels * width, channels))
