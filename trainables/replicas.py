"""All replicas of a family in one stacked state, and the executors of their forward and backward pass.

All parameters of all replicas lie in one vector `weights`, all gradients in another, `gradients`, so that one elementwise optimizer
steps all replicas and none can influence another. What the executors train are views into it with views of the gradient attached:
slicing a stacked parameter inside autograd would cost the whole stack for each replica.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainables.activations import swap_activation
from trainables.models import is_random
from trainables.stacking import Blocking, stack
from trainables.streams import stream_seed

Executor = Literal["loop", "stacked", "vmap"]
EXECUTORS: dict[str, Executor] = {"cpu": "stacked", "cuda": "vmap"}  # the faster one by kind of device
Loss = Callable[[Tensor, Tensor], Tensor]
_ONE_BY_ONE = Blocking()
_ALIGNMENT = 16  # elements: every stack starts on a 64-byte boundary


class Replicas:
    """R networks that differ in their seeds, on one device.

    `executor` is `loop` (one replica after the other, channels_last), `stacked` (the same in blocks of replicas side by side in one
    network: the best on a CPU) or `vmap` (all replicas in one call: for a GPU). All compute the same function. `blocking` cuts
    replicas into blocks and the samples of an evaluation into chunks. Raises ValueError for a model that draws random numbers under `vmap`.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        seeds: list[int],
        device: torch.device,
        executor: Executor,
        blocking: Blocking = _ONE_BY_ONE,
    ) -> None:
        self.seeds, self.device, self.executor, self.chunk = seeds, device, executor, blocking.chunk
        models = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream_seed(seed, "init"))
                models.append(build())
        self.is_random = is_random(models[0])
        if self.is_random and executor == "vmap":
            raise ValueError(
                "this model draws random numbers while training (dropout), which the vmap executor cannot keep apart by "
                "replica; use the loop executor"
            )
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
        self._template = copy.deepcopy(models[0]).to(device)
        self.models = [] if executor == "vmap" else models
        # Blocks of replicas `[start, stop)` with the module that computes them; one replica's is its model.
        self._blocks: list[tuple[int, int, nn.Module]] = []
        for start in range(0, len(self.models), blocking.num_replicas):
            stop = min(start + blocking.num_replicas, len(seeds))
            self._blocks.append((start, stop, stack(models[start], stop - start) if stop - start > 1 else models[start]))
        self._attach()

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector such as `weights` as stacked views `[replica, ...]` by parameter name, convolutions laid out channels_last."""
        views = {}
        for name, shape in self._shapes.items():
            flat = vector.detach()[self._offsets[name] : self._offsets[name] + math.prod(shape)]
            if len(shape) == 5 and self.executor != "vmap":
                replicas, out, into, height, width = shape
                views[name] = flat.view(replicas, out, height, width, into).permute(0, 1, 4, 2, 3)
            else:
                views[name] = flat.view(shape)
        return views

    def _attach(self) -> None:
        weights, gradients = self.named(self.weights), self.named(self.gradients)
        self._leaves = {}
        if self.executor == "vmap":
            for name in weights:
                self._leaves[name] = weights[name].requires_grad_()
                self._leaves[name].grad = gradients[name]
            return
        alone = [(index, index + 1, model) for index, model in enumerate(self.models)]
        for start, stop, module in [*alone, *(block for block in self._blocks if block[1] - block[0] > 1)]:
            for name, parameter in module.named_parameters():
                parameter.data = weights[name][start:stop].view(parameter.shape)
                parameter.grad = gradients[name][start:stop].view(parameter.shape)
            for name, buffer in list(module.named_buffers()):
                path, _, leaf = name.rpartition(".")
                module.get_submodule(path)._buffers[leaf] = self.buffers[name][start:stop].view(buffer.shape)

    def _all_models(self) -> list[nn.Module]:
        return [*self.models, *(module for start, stop, module in self._blocks if stop - start > 1), self._template]

    @property
    def is_interleaved(self) -> bool:
        """Whether `gradient` takes its images best with memory laid out `[sample, replica, channel, height, width]`."""
        return any(stop - start > 1 for start, stop, _ in self._blocks)

    def swap(self, activation: Callable[[Tensor], Tensor]) -> None:
        for model in self._all_models():
            swap_activation(model, activation)

    def train_mode(self, training: bool) -> None:
        for model in self._all_models():
            model.train(training)

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

        Returns the loss of each replica `[replica]`, detached. Blocks without a replica that is `alive` (not diverged) are left out;
        `noise_seeds` seed whatever random numbers each replica's forward pass draws.
        """
        self.gradients.zero_()
        if self.executor == "vmap":
            losses = loss(self._forward_stacked(images), labels)
            losses.sum().backward()
            return losses.detach()
        losses = torch.full((len(self.seeds),), torch.nan)
        for start, stop, module in self._blocks:
            if any(alive[start:stop]):
                if self.is_random:
                    torch.manual_seed(noise_seeds[start])
                batch = images[start:stop].transpose(0, 1).flatten(1, 2)  # [sample, replica x channel, height, width]
                logits = module(batch.contiguous(memory_format=torch.channels_last))
                values = loss(_apart(logits, stop - start), labels[start:stop])
                values.sum().backward()
                losses[start:stop] = values.detach()
        return losses

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[replica, sample, class]` of all replicas on the same images `[sample, channel, height, width]`, evaluation mode."""
        if self.executor == "vmap":
            return self.map(lambda model, batch: model(batch), images)
        self.train_mode(False)
        with torch.no_grad():
            found = [
                torch.cat([_apart(module(batch), stop - start) for batch in images.split(self.chunk)], 1)
                for start, stop, module in self._blocks
            ]
        return torch.cat(found)

    def map(self, function: Callable[[nn.Module, Tensor], Tensor], images: Tensor, chunk: int = 64) -> Tensor:
        """`function(model, batch)` of every replica on the same images, in evaluation mode: `[replica, sample, ...]`."""
        self.train_mode(False)
        with torch.no_grad():
            found = [torch.cat([function(self.network(index), batch) for batch in images.split(chunk)]) for index in range(len(self.seeds))]
        return torch.stack(found)

    def network(self, index: int) -> nn.Module:
        """One replica as an ordinary module; under `vmap` a loan that the next call overwrites."""
        if self.executor != "vmap":
            return self.models[index]
        state = {name: v[index] for name, v in {**self.named(self.weights), **self.buffers}.items()}
        self._template.load_state_dict(state)
        return self._template

    def _forward_stacked(self, images: Tensor) -> Tensor:
        def one(leaves: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            output: Tensor = functional_call(self._template, (leaves, buffers), (batch,))
            return output

        stacked: Tensor = vmap(one)(self._leaves, self.buffers, images)
        return stacked


def _apart(logits: Tensor, num_replicas: int) -> Tensor:
    """`[sample, replica x class]` as `[replica, sample, class]`."""
    return logits.unflatten(1, (num_replicas, -1)).transpose(0, 1)
