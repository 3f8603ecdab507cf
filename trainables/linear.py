"""The linear layers of a network: which batch norm belongs to which, their matrices with it folded in, and the sums over paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.measures.baselines import spectral_norm
from trainables.activations import ACTIVATIONS, HotSwap
from trainables.replicas import Replicas

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# What a path goes through unchanged, or weighted by a parameter: with these leaves alone a path norm is defined.
_ON_PATHS = (
    *(nn.Linear, nn.Conv2d, *_BATCH_NORMS, HotSwap, nn.Flatten, nn.Identity, nn.Dropout),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)


@dataclass(frozen=True)
class Layers:
    """`folds`: batch norm to the layer whose output it takes, and which takes it over, or to None. `groups`: of each matrix, by
    parameter. `head`: the last layer. `eps`: of each batch norm. `has_paths`: whether a path norm is defined."""

    folds: dict[str, str | None]
    groups: dict[str, int]
    head: str
    eps: dict[str, float]
    has_paths: bool


def find_layers(model: nn.Module, image: Tensor) -> Layers:
    """The layers of a network, found by sending one image `[1, channel, height, width]` through it.

    Every parameter called weight with two axes or more is a matrix; a convolution's is its kernel as `[out, in x height x width]`.
    """
    names = {module: name for name, module in model.named_modules()}
    matrices = [name for name, p in model.named_parameters() if p.dim() > 1 and name.rpartition(".")[2].endswith("weight")]
    linear = {name.rpartition(".")[0] for name in matrices}
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BATCH_NORMS) and module.running_mean is not None}
    made_by: dict[int, str] = {}  # outputs of linear layers
    kept: list[Tensor] = []  # so that no address is used twice
    folds: dict[str, str | None] = {}
    order: list[str] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        name = names[module]
        if name in norms:
            folds[name] = made_by.get(id(inputs[0]))
        elif name in linear:
            order.append(name)
            kept.append(output)
            made_by[id(output)] = name

    handles = [module.register_forward_hook(look) for module in (model.get_submodule(name) for name in {*linear, *norms})]
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    leaves = [m for m in model.modules() if not any(True for _ in m.children())]
    on_leaves = sum(len(list(m.parameters(recurse=False))) for m in leaves) == len(list(model.parameters()))
    groups = {name: getattr(model.get_submodule(name.rpartition(".")[0]), "groups", 1) for name in matrices}
    has_paths = on_leaves and all(
        isinstance(m, _ON_PATHS) and (not isinstance(m, _BATCH_NORMS) or (names[m] in norms and m.affine)) for m in leaves
    )
    return Layers(folds, groups, order[-1], {name: norm.eps for name, norm in norms.items()}, has_paths)


def _scale_and_shift(state: dict[str, Tensor], norm: str, eps: float) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation as an affine map of each channel, `[replica, channel]` both."""
    mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    weight, bias = state.get(f"{norm}.weight", torch.ones_like(mean)), state.get(f"{norm}.bias", torch.zeros_like(mean))
    scale = weight / (variance + eps).sqrt()
    return scale, bias - mean * scale


def matrix_norms(replicas: Replicas, layers: Layers, alive: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Spectral and Frobenius norms `[replica, layer]` of the replicas `alive`, each batch norm folded into the layer before it.

    A batch norm behind no linear layer counts as a diagonal matrix of its own.
    """
    state = {name: tensor[alive].cpu() for name, tensor in {**replicas.named(replicas.weights), **replicas.buffers}.items()}
    scales = {norm: _scale_and_shift(state, norm, layers.eps[norm])[0].double().numpy() for norm in layers.folds}
    into = {layer: scales[norm] for norm, layer in layers.folds.items() if layer is not None}
    spectral, frobenius = [], []
    for name, groups in layers.groups.items():
        weight = state[name].flatten(2).double().numpy()
        scale = into.get(name.rpartition(".")[0])
        weight = weight if scale is None else weight * scale[:, :, None]
        apart = weight.reshape(len(weight) * groups, weight.shape[1] // groups, weight.shape[2])
        spectral.append(spectral_norm(apart).reshape(-1, groups).max(1))
        frobenius.append(np.sqrt(np.square(weight).sum((1, 2))))
    for norm, layer in layers.folds.items():
        if layer is None:
            spectral.append(np.abs(scales[norm]).max(1))
            frobenius.append(np.sqrt(np.square(scales[norm]).sum(1)))
    return np.stack(spectral, 1), np.stack(frobenius, 1)


def path_norm(replicas: Replicas, layers: Layers, activation: str, image: Tensor) -> Tensor:
    """Square root of the sum, over paths from an input of ones to an output, of the product of squared weights `[replica]`.

    That is the network's output with every weight squared, biases among them, and nothing cut off: the activation is the identity,
    pooling stays. `image` `[1, channel, height, width]` gives the shape; `activation` is the one in force.
    """
    with replicas.altered() as state:
        for norm, layer in layers.folds.items():
            scale, shift = _scale_and_shift(state, norm, layers.eps[norm])
            if (bias := state.get(f"{layer}.bias")) is not None:
                shift = shift + bias * scale
                bias.zero_()
            for suffix, value in (("weight", scale), ("bias", shift), ("running_mean", 0.0), ("running_var", 1 - layers.eps[norm])):
                if f"{norm}.{suffix}" in state:
                    state[f"{norm}.{suffix}"].copy_(torch.as_tensor(value))
        for name in replicas.named(replicas.weights):
            state[name].square_()
        replicas.swap(ACTIVATIONS["identity"])
        try:
            total = replicas.forward(torch.ones_like(image)).sum((1, 2))
        finally:
            replicas.swap(ACTIVATIONS.resolve(activation))
    return total.sqrt()


def parameter_distance(replicas: Replicas, origin: list[nn.Module] | None = None) -> Tensor:
    """Euclidean distance of all parameters from those of other networks, or from zero `[replica]`, in float64."""
    found = torch.zeros(len(replicas.seeds), dtype=torch.float64, device=replicas.device)
    for name, weight in replicas.named(replicas.weights).items():
        there = torch.stack([model.get_parameter(name).detach() for model in origin]).to(weight) if origin else torch.zeros_like(weight)
        found += (weight - there).double().square().flatten(1).sum(1)
    return found.sqrt()
