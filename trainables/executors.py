"""Executors by name, and the choice between them."""

from __future__ import annotations

from typing import Literal

from trainables.grouped import GroupedReplicas
from trainables.grouping import is_groupable
from trainables.models import build, is_random
from trainables.recipe import Model
from trainables.replicas import Executor, Replicas
from trainables.stacked import CompiledReplicas, StackedReplicas

Wanted = Literal["auto", Executor]
EXECUTORS: dict[Executor, type[Replicas]] = {kind.executor: kind for kind in (Replicas, GroupedReplicas, StackedReplicas, CompiledReplicas)}


def choose_executor(wanted: Wanted, device: str, model: Model, image_shape: tuple[int, int, int], num_classes: int) -> Executor:
    """`wanted`; for `auto` vmap on a GPU and grouped on a CPU, or the loop where the model forbids these.

    Raises ValueError where the model forbids what is wanted: one that draws random numbers (dropout) must not draw for all replicas at
    once, as that would depend on how many they are, and one that mixes channels cannot be grouped.
    """
    if wanted == "loop":
        return "loop"
    random = is_random(build(model, image_shape, num_classes))
    if wanted == "auto" and random:
        return "loop"
    if random:
        raise ValueError(
            f"{wanted} cannot train {model.name!r}, which draws random numbers (dropout): they would depend on the replicas "
            "beside; allowed: auto, loop"
        )
    if wanted == "grouped" or (wanted == "auto" and device != "cuda"):
        if is_groupable(model.model_dump_json(), image_shape, num_classes):
            return "grouped"
        if wanted == "grouped":
            raise ValueError(
                f"grouped cannot train {model.name!r}, which mixes channels or has layers without groups; allowed: auto, loop, vmap"
            )
        return "loop"
    return "vmap" if wanted == "auto" else wanted
