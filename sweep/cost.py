"""What a plan will cost: device-hours and bytes, from recorded step times of the same recipe, or from a few probe steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from analysis import tables
from analysis.storage import Store
from sweep.plan import Plan
from trainables.data import Dataset
from trainables.family import deterministic
from trainables.models import build
from trainables.probes import Look
from trainables.probes.activations import ActivationsProbe
from trainables.schedule import Phase
from trainables.training import FamilyTraining

# Measured on tables of the default recipe: bytes on disk per byte of activations, and per predicted class.
_ACTIVATIONS_RATIO, _PREDICTION_BYTES, _PROBE_STEPS = 0.85, 0.25, 4


@dataclass(frozen=True)
class Cost:
    """`seconds` of one device for all remaining families; `source` says how it is known."""

    seconds: float
    bytes_on_disk: float
    state_bytes: float
    source: str


def estimate(plan: Plan, data: Dataset, store: Store) -> Cost:
    """The cost of the remaining families. Trains a few steps where no finished family of this base recipe tells."""
    recipe, replicas = plan.config.recipe, plan.config.training.replicas
    deterministic(max(1, int(plan.config.resources.cpus_per_family)))
    training = FamilyTraining(
        recipe.model_copy(update={"training": recipe.training.model_copy(update={"replicas": 2})}),
        data,
        Phase(0, plan.config.space.activations[0], plan.config.space.losses[0]),
    )
    seconds, source = _recorded(plan, store)
    if seconds is None:
        seconds, source = _probed(training, data), "timed on a few steps now"
    epochs = plan.unique_replica_epochs
    return Cost(seconds * epochs, *_bytes(plan, data, training, replicas), source)


def _recorded(plan: Plan, store: Store) -> tuple[float | None, str]:
    rows = tables.read(store, "trials", ["base", "status", "epochs_trained", "num_replicas", "train_s", "record_s"])
    rows = rows[(rows["base"] == plan.base.name) & (rows["status"] == "done") & (rows["epochs_trained"] > 0)]
    if rows.empty:
        return None, ""
    spent = (rows["train_s"] + rows["record_s"]).sum() / (rows["epochs_trained"] * rows["num_replicas"]).sum()
    return float(spent), f"from {len(rows)} finished families of this base recipe"


def _probed(training: FamilyTraining, data: Dataset) -> float:
    """Seconds per replica and epoch: training steps, and an evaluation of every split."""
    num_replicas, batch_size = len(training.replicas.seeds), training.config.batch_size
    split = training.splits["train"]
    training.replicas.train_mode(True)
    order = torch.arange(batch_size, device=training.device).expand(num_replicas, -1)

    def step() -> None:
        images = split.images.index_select(0, order.reshape(-1)).unflatten(0, (num_replicas, batch_size))
        training.replicas.gradient(images, split.labels[order], training.loss, [True] * num_replicas, [0] * num_replicas)
        training.optimizer.step()

    step()
    began = time.perf_counter()
    for _ in range(_PROBE_STEPS):
        step()
    step_s = (time.perf_counter() - began) / _PROBE_STEPS / num_replicas
    few = split.images[: 4 * batch_size]
    training.replicas.forward(few)
    began = time.perf_counter()
    training.replicas.forward(few)
    image_s = (time.perf_counter() - began) / num_replicas / len(few)
    num_images = sum(len(s.labels) for s in (data.train, data.val, data.test))
    return step_s * training.steps_per_epoch + image_s * num_images


def _bytes(plan: Plan, data: Dataset, training: FamilyTraining, replicas: int) -> tuple[float, float]:
    """Bytes of all tables, and of one training state."""
    config, num_epochs = plan.config, plan.config.training.epochs
    probes = config.probes.model_copy(update={"moments": ["init"]})
    probe = ActivationsProbe(probes, data, build(config.model, data.image_shape, data.num_classes), training.device)
    probe.look(Look("init", training))
    values = sum(v[0].numel() for k, v in probe.records.items() if not k.startswith("shape/"))
    total = 0.0
    for planned in plan.remaining.values():
        swaps = len(planned.schedule.swap_epochs)
        counts = {"init": 1, "before_swap": swaps, "after_swap": swaps, "end": 1}
        looks = sum(counts[m] for m in config.probes.moments) + len(set(config.probes.epochs))
        total += looks * values * replicas * 4 * _ACTIVATIONS_RATIO
        if config.probes.predictions:
            total += (len(data.train.labels) + len(data.test.labels)) * (num_epochs + 1 + swaps) * replicas * _PREDICTION_BYTES
    state = sum(t.nbytes for t in training.state().values()) / len(training.replicas.seeds) * replicas
    return total, state
