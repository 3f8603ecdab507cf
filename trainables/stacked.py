"""The executors that compute all replicas in one call: vmap over the stacked state, as it is or compiled. For a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainables.models import largest_output_bytes
from trainables.precision import autocast
from trainables.replicas import Executor, Loss, Replicas

_MAP_BYTES = 2**29  # largest maps of one evaluated chunk, over all replicas


class _Part(NamedTuple):
    """Replicas that are computed in one call, as views of the stacked state: leaves and buffers by name, gradients in the leaves' order."""

    replicas: slice
    leaves: dict[str, Tensor]
    buffers: dict[str, Tensor]
    gradients: list[Tensor]


class StackedReplicas(Replicas):
    """All replicas in one call by `torch.func.vmap`: a convolution becomes one of R groups, a matrix product one of R in a batch.

    Not for models that draw random numbers: `choose_executor` refuses them, and vmap itself would.
    """

    executor: ClassVar[Executor] = "vmap"
    channels_last: ClassVar[bool] = False

    def _attach(self, models: list[nn.Module]) -> None:
        self.template = models[0].to(self.device)
        self.models = self.modules = [self.template]
        starts = range(0, len(self.seeds), self.at_once)
        self._parts = [self._part(slice(start, min(start + self.at_once, len(self.seeds)))) for start in starts]
        self._bytes_per_image: dict[torch.Size, int] = {}

    def _part(self, some: slice) -> _Part:
        weights, gradients = self.named(self.weights), self.named(self.gradients)
        return _Part(
            some,
            {name: stacked[some].requires_grad_() for name, stacked in weights.items()},
            {name: stacked[some] for name, stacked in self.buffers.items()},
            [stacked[some] for stacked in gradients.values()],
        )

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss, alive: list[bool], noise_seeds: list[int]) -> Tensor:
        found = []
        for part in self._parts:
            losses = self._losses(part.leaves, part.buffers, images[part.replicas], labels[part.replicas], loss)
            torch._foreach_copy_(part.gradients, torch.autograd.grad(losses.sum(), list(part.leaves.values()), materialize_grads=True))
            found.append(losses.detach())
        return torch.cat(found)

    def _losses(self, leaves: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """The loss of each replica `[replica]` on its own batch; `buffers` are updated in place."""

        def one(leaves: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            output: Tensor = functional_call(self.template, (leaves, buffers), (batch,))
            return output

        with autocast(self.precision, self.device):
            logits: Tensor = vmap(one)(leaves, buffers, images)
        return loss(logits.to(self.weights.dtype), labels)

    def _map(self, function: Callable[[nn.Module, Tensor], Tensor], batches: Sequence[Tensor]) -> Tensor:
        applied = _Applied(self.template, function)

        def one(state: dict[str, Tensor], batch: Tensor) -> Tensor:
            output: Tensor = functional_call(applied, state, (batch,))
            return output

        over_replicas = vmap(one, in_dims=(0, None))
        found = []
        for part in self._parts:
            state = {f"model.{name}": stacked for name, stacked in {**part.leaves, **part.buffers}.items()}
            found.append(torch.cat([over_replicas(state, batch) for batch in batches], 1))
        return torch.cat(found)

    def _chunk(self, images: Tensor) -> int:
        """As many images as keep the largest map of all replicas, with what it is made from, in `_MAP_BYTES`."""
        shape = images.shape[1:]
        if shape not in self._bytes_per_image:
            self._bytes_per_image[shape] = 3 * largest_output_bytes(self.template, images[:1])
        return max(1, _MAP_BYTES // (self._bytes_per_image[shape] * self.at_once))


class CompiledReplicas(StackedReplicas):
    """The same, with forward and backward pass compiled by `torch.compile` when a phase begins; on a GPU replayed as CUDA graphs.

    What cannot be compiled as one graph, or not be replayed, is an error: nothing falls back in silence.
    """

    executor: ClassVar[Executor] = "compiled"

    def _attach(self, models: list[nn.Module]) -> None:
        super()._attach(models)
        for tensor in (tensor for part in self._parts for tensor in (*part.leaves.values(), *part.buffers.values())):
            torch._dynamo.mark_static_address(tensor)  # CUDA graphs then use them in place, and may update buffers
        self._compile()

    def swap(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().swap(activation)
        self._compile()

    def _compile(self) -> None:
        torch.compiler.reset()  # what was compiled for earlier phases and families would fill the limit of variants of one function
        options: dict[str, Any] = {"triton.cudagraphs": True, "triton.cudagraph_or_error": True} if self.device.type == "cuda" else {}
        self._compiled = torch.compile(super()._losses, fullgraph=True, dynamic=False, options=options)

    def _losses(self, leaves: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        losses: Tensor = self._compiled(leaves, buffers, images, labels, loss)
        return losses


class _Applied(nn.Module):
    """A function of a model and a batch, as a module: what `functional_call` can lend parameters to."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, batch: Tensor) -> Tensor:
        return self.function(self.model, batch)
