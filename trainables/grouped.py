"""The executor that trains replicas in blocks, side by side in one network as groups of channels. The best on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.grouping import group, keeps_output
from trainables.models import largest_output_bytes, record
from trainables.precision import autocast, products
from trainables.replicas import Executor, Loss, Replicas, channels_last

# Bytes of the widest layer's output over a block: in a training step, where each replica has a batch of its own, and in evaluation.
# Larger blocks drive each other's layers out of the processor's cache (benchmarks/README.md).
_TRAINING_BYTES, _EVALUATION_BYTES = 4_000_000, 2_500_000


class GroupedReplicas(Replicas):
    """Replicas in blocks, as many in one as keep the widest layer in the cache; how they are cut depends on sizes alone."""

    executor: ClassVar[Executor] = "grouped"

    def _attach(self, models: list[nn.Module]) -> None:
        at_once = self.at_once
        super()._attach(models)
        batch_size, *image_shape = self.batch_shape
        image_bytes = largest_output_bytes(self.models[0], torch.zeros(1, *image_shape, device=self.device))
        num_blocks = math.ceil(len(models) / max(1, _TRAINING_BYTES // (batch_size * image_bytes)))
        size = self.at_once = min(at_once, math.ceil(len(models) / num_blocks))
        self._chunk_size = max(1, _EVALUATION_BYTES // (size * image_bytes))
        self._blocks = []  # [start, stop) of the replicas, and the module that computes them
        for start, stop in pairwise([*range(0, len(models), size), len(models)]):
            module = group(self.models[start], stop - start)
            self._lend(module, start, stop)
            self._blocks.append((start, stop, module))
        self.modules = [*self.models, *(module for _, _, module in self._blocks)]

    @property
    def is_interleaved(self) -> bool:
        return any(stop - start > 1 for start, stop, _ in self._blocks)

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss, alive: list[bool], noise_seeds: list[int]) -> Tensor:
        self.gradients.zero_()
        losses = torch.full((len(self.seeds),), torch.nan, device=self.device)
        for start, stop, module in self._blocks:
            if any(alive[start:stop]):
                batch = images[start:stop].transpose(0, 1).flatten(1, 2)  # [sample, replica x channel, height, width]
                with autocast(self.precision, self.device):
                    logits = module(channels_last(batch))
                values = loss(_apart(logits, stop - start).to(self.weights.dtype), labels[start:stop])
                values.sum().backward()
                losses[start:stop] = values.detach()
        return losses

    def forward(self, images: Tensor) -> Tensor:
        self.train_mode(False)
        with torch.no_grad(), products("float32"):
            return torch.cat(
                [
                    torch.cat([_apart(module(channels_last(batch)), stop - start) for batch in images.split(self._chunk_size)], 1)
                    for start, stop, module in self._blocks
                ]
            )

    def features(self, layers: Sequence[str], reduce: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        if not all(keeps_output(module.get_submodule(layer)) for _, _, module in self._blocks for layer in layers):
            return super().features(layers, reduce, images)
        self.train_mode(False)
        with torch.no_grad(), products("float32"):
            found = [self._features(module, stop - start, layers, reduce, images) for start, stop, module in self._blocks]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _features(
        self, module: nn.Module, num_replicas: int, layers: Sequence[str], reduce: Callable[[Tensor], Tensor], images: Tensor
    ) -> Tensor:
        """Of one block `[replica, sample, feature]`."""
        found = []
        for batch in images.split(self._chunk_size):
            outputs = record(module, layers, channels_last(batch))
            apart = [_apart(outputs[layer], num_replicas).flatten(0, 1) for layer in layers]
            found.append(torch.cat([reduce(output) for output in apart], 1).unflatten(0, (num_replicas, -1)))
        return torch.cat(found, 1)


def _apart(output: Tensor, num_replicas: int) -> Tensor:
    """`[sample, replica x channel, ...]` as `[replica, sample, channel, ...]`."""
    return output.unflatten(1, (num_replicas, -1)).transpose(0, 1)
