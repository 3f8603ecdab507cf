"""torchvision, imported only when asked for and made to import beside a torch that its build does not fit."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
import torch.library

# torchvision registers fake kernels of these two at import, whether or not its compiled operators were loaded.
_NEEDED = {name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")}


@functools.cache
def torchvision() -> ModuleType:
    """The torchvision module. Models, transforms and data sets work; its compiled operators only where they load."""
    if "torchvision" not in sys.modules:
        _define_missing_operators()
    import torchvision as module

    return module


@functools.cache
def _define_missing_operators() -> torch.library.Library | None:
    """Declares the operators that torchvision takes for granted and that its compiled part did not bring.

    A build for CUDA cannot load its compiled part beside a CPU-only torch, and then fails to import. Loading that part
    here first, as torchvision does a moment later, tells the two cases apart without a failed import: where it loads,
    nothing is declared and torchvision stays as it is. The cache keeps the library alive, and with it the declarations.
    """
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        for compiled in Path(folder).glob("_C*"):
            try:
                torch.ops.load_library(str(compiled))
            except OSError:  # a library it links to is absent
                continue
    missing = [schema for name, schema in _NEEDED.items() if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in missing:
        library.define(schema)
    return library
