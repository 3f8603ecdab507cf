"""Executors by name, and the choice between them."""

from __future__ import annotations

from typing import Literal

from trainables.models import build, is_random
from trainables.recipe import Model
from trainables.replicas import Executor, Replicas
from trainables.stacked import CompiledReplicas, StackedReplicas

Wanted = Literal["auto", Executor]
EXECUTORS: dict[Executor, type[Replicas]] = {kind.executor: kind for kind in (Replicas, StackedReplicas, CompiledReplicas)}


def choose_executor(wanted: Wanted, device: str, model: Model, image_shape: tuple[int, int, int], num_classes: int) -> Executor:
    """`wanted`; for `auto` vmap on a GPU, and the loop on a CPU and for models that draw random numbers (dropout).

    Raises ValueError where such a model is wanted under another than the loop: draws for all replicas at once depend on how many they are.
    """
    if wanted == "loop" or (wanted == "auto" and device != "cuda"):
        return "loop"
    random = is_random(build(model, image_shape, num_classes))
    if wanted == "auto":
        return "loop" if random else "vmap"
    if random:
        raise ValueError(
            f"{wanted} cannot train {model.name!r}, which draws random numbers (dropout): they would depend on the replicas "
            "beside; allowed: auto, loop"
        )
    return wanted
