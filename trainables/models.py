"""Models by name, where their activations are, and which layers are worth recording."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from analysis.registry import Registry, UnknownName
from trainables.activations import HotSwap
from trainables.recipe import Model

SMALL_IMAGE = 64  # pixels; up to it a ResNet's ImageNet stem would leave almost no map, and a VGG's classifier blow up one position to 7x7
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
# Gates (sigmoid, hardsigmoid) and attention's softmax are parts of an architecture, not its activation.
_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
    nn.Hardtanh,
    nn.Hardswish,
)
_RANDOM = ("Dropout", "StochasticDepth", "DropPath")


class MLP(nn.Sequential):
    """Blocks of linear, optional batch norm and activation, then a linear head."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, widths: list[int], batch_norm: bool) -> None:
        super().__init__()
        channels, height, width = image_shape
        size = channels * height * width
        self.add_module("flatten", nn.Flatten())
        for index, units in enumerate(widths, 1):
            norm: list[nn.Module] = [nn.BatchNorm1d(units)] if batch_norm else []
            self.add_module(f"block{index}", nn.Sequential(nn.Linear(size, units), *norm, HotSwap()))
            size = units
        self.add_module("head", nn.Linear(size, num_classes))


class CNN(nn.Sequential):
    """Blocks of 3x3 convolution, optional batch norm, activation and 2x2 pooling, then the mean over positions and a linear head."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, widths: list[int], batch_norm: bool) -> None:
        super().__init__()
        size = image_shape[0]
        for index, channels in enumerate(widths, 1):
            norm: list[nn.Module] = [nn.BatchNorm2d(channels)] if batch_norm else []
            self.add_module(
                f"block{index}",
                nn.Sequential(
                    nn.Conv2d(size, channels, 3, padding=1, bias=not batch_norm),
                    *norm,
                    HotSwap(),
                    *([nn.MaxPool2d(2)] if min(image_shape[1:]) >> index else []),
                ),
            )
            size = channels
        self.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        self.add_module("head", nn.Linear(size, num_classes))


_OWN = {"mlp": (MLP, [64, 64], False), "cnn": (CNN, [8, 16, 32], True)}
MODELS: Registry[Callable[..., nn.Module]] = Registry("model", {})  # users' own; those of torchvision go by its own list


def build(config: Model, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A network for images `[channel, height, width]`, initialised from torch's global generator. Raises UnknownName.

    A user's own comes from a function of the image shape and the number of classes; its activation modules become hot-swappable.
    """
    if config.name in _OWN:
        kind, widths, batch_norm = _OWN[config.name]
        return kind(
            image_shape,
            num_classes,
            config.widths or widths,
            batch_norm if config.batch_norm is None else config.batch_norm,
        )
    if MODELS.is_own(config.name):
        return _swappable(config.name, MODELS.resolve(config.name)(image_shape, num_classes))
    return _from_torchvision(config.name, image_shape, num_classes)


def check_model(config: Model) -> None:
    """Refuse an unknown name, and options that would have no effect. Raises UnknownName."""
    if config.name in _OWN:
        return
    if MODELS.is_own(config.name):
        MODELS.resolve(config.name)
        _check_without_effect(config)
        return
    from trainables.vision import torchvision

    known = [*_OWN, *torchvision().models.list_models(module=torchvision().models)]
    if config.name not in known:
        near = difflib.get_close_matches(config.name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownName(
            f"unknown model {config.name!r}; {hint}allowed: mlp, cnn, a torchvision classifier (resnet18, ...), "
            "or your own as package.module:name"
        )
    _check_without_effect(config)


def _check_without_effect(config: Model) -> None:
    for key in ("widths", "batch_norm"):
        if getattr(config, key) is not None:
            raise UnknownName(f"{key} has no effect on {config.name!r}; it belongs to mlp and cnn")


def _from_torchvision(name: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    from trainables.vision import torchvision

    model = _swappable(name, torchvision().models.get_model(name, weights=None, num_classes=num_classes))
    _fit_input(model, image_shape)
    if isinstance(model, torchvision().models.VGG) and max(image_shape[1:]) <= SMALL_IMAGE:
        _fit_vgg(model, num_classes)
    return model


def _swappable(name: str, model: nn.Module) -> nn.Module:
    """The model with every activation module replaced by a hot-swappable one. Raises UnknownName where there is none, or one is called
    as a function."""
    if not isinstance(model, nn.Module):
        raise UnknownName(f"model {name!r} gives {type(model).__name__}, not a torch.nn.Module")
    for module in model.modules():
        if re.search(r"F\.(relu|gelu|silu|hardswish|elu)\w*\(", _source(module)):
            raise UnknownName(f"model {name!r} calls an activation inside {type(module).__name__}.forward, where it cannot be swapped")
    _replace(model, _ACTIVATIONS, lambda _: HotSwap())
    if not any(isinstance(module, HotSwap) for module in model.modules()):
        raise UnknownName(f"model {name!r} has no activation module that could be swapped")
    return model


def _source(module: nn.Module) -> str:
    return "" if type(module).__module__.startswith("torch.") else inspect.getsource(type(module).forward)


def _replace(model: nn.Module, kinds: tuple[type, ...], make: object) -> int:
    found = 0
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kinds):
                setattr(parent, name, make(child))  # type: ignore[operator]
                found += 1
    return found


def _fit_input(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """The stem: as many input channels as the images have, and for small images the CIFAR stem of a ResNet (3x3, stride 1, no pooling)."""
    parent_name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    small = max(image_shape[1:]) <= SMALL_IMAGE and hasattr(model, "maxpool") and parent_name == "conv1"
    if small:
        model.maxpool = nn.Identity()
    elif first.in_channels == image_shape[0]:
        return
    kernel, stride, padding = ((3, 3), (1, 1), (1, 1)) if small else (first.kernel_size, first.stride, first.padding)
    new = nn.Conv2d(image_shape[0], first.out_channels, kernel, stride, padding, bias=first.bias is not None)  # type: ignore[arg-type]
    path, _, name = parent_name.rpartition(".")
    setattr(model.get_submodule(path), name, new)


def _fit_vgg(model: nn.Module, num_classes: int) -> None:
    """A VGG for small images, as the literature has it on CIFAR: behind the convolutions one linear layer on the mean over positions.

    Odd borders are pooled, too, so that 28 pixels are not halved away.
    """
    pools = [module for module in model.modules() if isinstance(module, nn.MaxPool2d)]
    for pool in pools:
        pool.ceil_mode = True
    channels = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
    model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, num_classes)


def default_layers(model: nn.Module) -> list[str]:
    """The top-level parts that hold parameters, norms aside: block1, ..., head; or conv1, layer1, ..., fc."""
    return [name for name, child in model.named_children() if not isinstance(child, _NORMS) and any(True for _ in child.parameters())]


def check_layers(model: nn.Module, layers: list[str]) -> None:
    """Refuse layers that the model lacks. Raises UnknownName."""
    known = [name for name, _ in model.named_modules() if name]
    for layer in layers:
        if layer not in known:
            near = difflib.get_close_matches(layer, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownName(f"unknown layer {layer!r}; {hint}allowed: {', '.join(known)}")


def is_random(model: nn.Module) -> bool:
    """Whether the forward pass of training draws random numbers."""
    return any(type(module).__name__.startswith(_RANDOM) for module in model.modules())


def record(model: nn.Module, layers: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Outputs of the named layers on a batch. The caller sets the mode and no_grad."""
    found: dict[str, Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        return lambda module, args, output: found.__setitem__(name, output.detach())

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def largest_output_bytes(model: nn.Module, image: Tensor) -> int:
    """Bytes of the largest output of a layer on one image `[1, channel, height, width]`, or of the image; in evaluation mode."""
    found = [image.nbytes]
    layers = [module for module in model.modules() if not any(True for _ in module.children())]
    handles = [layer.register_forward_hook(lambda module, args, output: found.append(output.nbytes)) for layer in layers]
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    return max(found)
