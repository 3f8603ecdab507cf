"""Networks side by side in one: the replicas of a block as groups of channels.

Convolutions become grouped ones, linear layers batched products, norms span all channels; what works on each channel by itself stays
as it is. On a CPU a small network's layers leave most of the processor idle, and a block of them does not. What this cannot express
(attention, dropout, a concatenation of channels) is found out by comparing outputs, and trains one replica at a time.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from trainables.activations import INCREASING, HotSwap
from trainables.models import build, is_random
from trainables.recipe import Model

_BY_CHANNEL = (
    HotSwap,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)


class _Conv2d(nn.Module):
    """A 2-D convolution of every replica: `[sample, replica x channel, height, width]`, or the same images for all.

    In evaluation it takes over the affine map of the batch norm that follows it, if one does.
    """

    norm: tuple[nn.BatchNorm2d] | None = None  # in a tuple: not a submodule
    _fold: tuple[Tensor, Tensor] | None = None  # kept from one change of mode to the next

    def __init__(self, conv: nn.Conv2d, num_replicas: int) -> None:
        super().__init__()
        self.conv, self.num_replicas = (conv,), num_replicas
        self.weight = nn.Parameter(conv.weight.detach().repeat(num_replicas, 1, 1, 1))
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().repeat(num_replicas))

    def forward(self, x: Tensor) -> Tensor:
        (conv,) = self.conv
        groups = conv.groups * self.num_replicas
        if x.shape[1] == conv.in_channels:
            if conv.groups == 1:
                groups = 1
            else:
                x = x.repeat(1, self.num_replicas, 1, 1)
        weight, bias = (self.weight, self.bias) if self.training or self.norm is None else self._folded(*self.norm)
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, groups)

    def train(self, mode: bool = True) -> _Conv2d:
        self._fold = None  # weights may have changed since
        return super().train(mode)

    def _folded(self, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        if self._fold is None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            statistics = norm.running_mean, norm.running_var, norm.eps
            self._fold = fuse_conv_bn_weights(self.weight, self.bias, *statistics, norm.weight, norm.bias)
        return self._fold


class _FoldedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm whose affine map in evaluation the convolution before it has taken over."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


class _Pooled(HotSwap):
    """An activation and the max pooling after it, in the cheaper order where the activation commutes with a maximum."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.pool(x)) if self.function in INCREASING else self.pool(self.function(x))


class _Linear(nn.Module):
    """A linear layer of every replica: `[sample, replica x feature]`, or the same samples for all."""

    def __init__(self, linear: nn.Linear, num_replicas: int) -> None:
        super().__init__()
        self.in_features, self.num_replicas = linear.in_features, num_replicas
        self.weight = nn.Parameter(linear.weight.detach().expand(num_replicas, -1, -1).clone())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().repeat(num_replicas))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == self.in_features:
            return F.linear(x, self.weight.flatten(0, 1), self.bias)
        y = torch.bmm(x.unflatten(1, (self.num_replicas, -1)).transpose(0, 1), self.weight.transpose(1, 2))
        y = y.transpose(0, 1).flatten(1)
        return y if self.bias is None else y + self.bias


def keeps_output(module: nn.Module) -> bool:
    """Whether a part of a group computes in evaluation what that part of the networks does: not where it takes over what follows it."""
    return not (isinstance(module, _Pooled) or (isinstance(module, _Conv2d) and module.norm is not None))


class NotGroupable(ValueError):
    """A model with a part that does not keep its channels apart."""


def group(model: nn.Module, num_replicas: int) -> nn.Module:
    """A module over `[sample, replica x channel, ...]` whose parameters and buffers have the replicas in front, by the model's names.

    Takes images of each replica's own `[sample, replica x channel, height, width]`, or shared ones `[sample, channel, height, width]`;
    gives `[sample, replica x class]`. Raises NotGroupable.
    """
    return _grouped(copy.deepcopy(model), num_replicas)


def _grouped(module: nn.Module, num_replicas: int) -> nn.Module:
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
        return _Conv2d(module, num_replicas)
    if isinstance(module, nn.Linear):
        return _Linear(module, num_replicas)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.momentum is not None:
        module.num_features *= num_replicas
        return _repeated(module, num_replicas)
    if isinstance(module, nn.GroupNorm):
        module.num_groups *= num_replicas
        module.num_channels *= num_replicas
        return _repeated(module, num_replicas)
    flattens = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
    children = list(module.named_children())
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if not (flattens or isinstance(module, _BY_CHANNEL) or (children and not own)):
        raise NotGroupable(f"{type(module).__name__} does not keep its channels apart")
    for name, child in children:
        setattr(module, name, _grouped(child, num_replicas))
    if isinstance(module, nn.Sequential):
        for index, (first, second) in enumerate(pairwise(list(module))):
            if isinstance(first, _Conv2d) and isinstance(second, nn.BatchNorm2d) and second.track_running_stats:
                second.__class__ = _FoldedBatchNorm2d
                first.norm = (second,)
            if isinstance(first, HotSwap) and isinstance(second, nn.MaxPool2d):
                module[index], module[index + 1] = _Pooled(second), nn.Identity()
    return module


def _repeated(module: nn.Module, num_replicas: int) -> nn.Module:
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(parameter.detach().repeat(num_replicas)))
    for name, buffer in list(module.named_buffers(recurse=False)):
        setattr(module, name, buffer.repeat(num_replicas))
    return module


@lru_cache(maxsize=8)
def is_groupable(model_json: str, image_shape: tuple[int, int, int], num_classes: int) -> bool:
    """Whether a group of networks computes what they do apart: tried on two, with random images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = [build(Model.model_validate_json(model_json), image_shape, num_classes) for _ in range(2)]
        images = torch.randn(2, 4, *image_shape)  # [replica, sample, channel, height, width]
    return _agrees(models, images)


def _agrees(models: list[nn.Module], images: Tensor) -> bool:
    """Whether the group of networks computes what they do: in training on images of their own, in evaluation on the same ones."""
    if is_random(models[0]):
        return False
    try:
        together = group(models[0], len(models))
    except NotGroupable:
        return False
    states = [m.state_dict() for m in models]
    together.load_state_dict({name: torch.stack([s[name] for s in states]).reshape(v.shape) for name, v in together.state_dict().items()})
    with torch.no_grad():
        for training in (True, False):
            apart = [m.train(training)(x if training else images[0]) for m, x in zip(models, images, strict=True)]
            try:
                found = together.train(training)(images.transpose(0, 1).flatten(1, 2) if training else images[0])
            except (RuntimeError, ValueError, IndexError):
                return False
            wanted = torch.cat(apart, 1)
            if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=1e-3, atol=1e-4):
                return False
    return True
