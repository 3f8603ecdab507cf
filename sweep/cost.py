"""What a plan will cost: device-hours and bytes, from recorded step times of the same recipe, or from a few probe steps."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

import torch

from analysis import tables
from analysis.storage import Store
from sweep.config import Sweep
from sweep.plan import Plan, Planned, device, num_threads
from trainables.data import Dataset
from trainables.family import prepare_process
from trainables.models import build
from trainables.probes import Look
from trainables.probes.activations import ActivationsProbe
from trainables.training import FamilyTraining

# Fitted to the tables of the recipes cells, breastmnist and quick: bytes on disk per byte of activations, per row group of them,
# per predicted class, and of all other tables per family.
_ACTIVATIONS_RATIO, _ROW_GROUP_BYTES, _PREDICTION_BYTES, _FAMILY_BYTES = 0.87, 2600, 0.15, 33_000
_PROBE_STEPS = 4


@dataclass(frozen=True)
class Cost:
    """Seconds of one device for all remaining families, and how that is known; bytes of tables, and of one training state at most."""

    seconds: float
    source: str
    table_bytes: float
    state_bytes: float


def estimate(plan: Plan, data: Dataset, store: Store) -> Cost:
    """The cost of the remaining families. Trains a few steps of each model of which no finished family of the same base recipes tells."""
    prepare_process(num_threads(plan.config))
    of_model: dict[str, list[Planned]] = defaultdict(list)
    for planned in plan.remaining.values():
        of_model[planned.base.recipe.model.model_dump_json()].append(planned)
    parts = [_of_one_model(some, plan.config, data, store) for some in of_model.values()]
    sources = list(dict.fromkeys(part.source for part in parts))
    return Cost(
        sum(part.seconds for part in parts),
        "; ".join(sources),
        sum(part.table_bytes for part in parts),
        max(part.state_bytes for part in parts),
    )


def _of_one_model(some: list[Planned], config: Sweep, data: Dataset, store: Store) -> Cost:
    recipe = some[0].base.recipe
    where = device(config) if torch.cuda.is_available() else "cpu"
    changes = {"replicas": 2} if where == device(config) else {"replicas": 2, "precision": "float32"}
    two = recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})
    executor = "vmap" if config.resources.executor == "compiled" else config.resources.executor  # compiling takes a minute
    training = FamilyTraining(two, data, some[0].schedule.phases[0], where, executor)
    seconds, source = _recorded({p.base.name for p in some}, store)
    if seconds is None:
        seconds, source = _probed(training, data), f"timed on a few steps on this machine's {where}"
    num_replica_epochs = sum(config.training.epochs - p.start_epoch for p in some) * config.training.replicas
    return Cost(seconds * num_replica_epochs, source, *_bytes(some, config, data, training))


def _recorded(bases: set[str], store: Store) -> tuple[float | None, str]:
    rows = tables.read(store, "trials", ["base", "status", "epochs_trained", "num_replicas", "train_s", "record_s"])
    rows = rows[rows["base"].isin(bases) & (rows["status"] == "done") & (rows["epochs_trained"] > 0)]
    if rows.empty:
        return None, ""
    spent = (rows["train_s"] + rows["record_s"]).sum() / (rows["epochs_trained"] * rows["num_replicas"]).sum()
    return float(spent), f"from {len(rows)} finished families of the same base recipe"


def _probed(training: FamilyTraining, data: Dataset) -> float:
    """Seconds per replica and epoch: training steps, and an evaluation of every split."""
    num_replicas, batch_size = len(training.replicas.seeds), training.config.batch_size
    split = training.splits["train"]
    training.replicas.train_mode(True)
    order = torch.arange(batch_size, device=training.device).expand(num_replicas, -1)

    def step() -> float:
        images = split.images.index_select(0, order.reshape(-1)).unflatten(0, (num_replicas, batch_size))
        losses = training.replicas.gradient(images, split.labels[order], training.loss, [True] * num_replicas, [0] * num_replicas)
        training.optimizer.step()
        return float(losses.sum())  # waits for a GPU

    step()
    began = time.perf_counter()
    for _ in range(_PROBE_STEPS):
        step()
    step_s = (time.perf_counter() - began) / _PROBE_STEPS / num_replicas
    few = split.images[: 4 * batch_size]
    training.replicas.forward(few)
    began = time.perf_counter()
    float(training.replicas.forward(few).sum())
    image_s = (time.perf_counter() - began) / num_replicas / len(few)
    num_images = sum(len(s.labels) for s in (data.train, data.val, data.test))
    return step_s * training.steps_per_epoch + image_s * num_images


def _bytes(some: list[Planned], config: Sweep, data: Dataset, training: FamilyTraining) -> tuple[float, float]:
    """Bytes of all tables, and the largest that one training state can be with what was recorded on the way to it."""
    replicas, num_epochs = config.training.replicas, config.training.epochs
    model = build(training.recipe.model, data.image_shape, data.num_classes)
    probe = ActivationsProbe(config.probes.model_copy(update={"moments": ["init"]}), data, model, training.device)
    probe.look(Look("init", training))
    layers = [values for key, values in probe.records.items() if not key.startswith("shape/")]
    values_bytes = sum(values[0].nbytes for values in layers) * replicas
    table_bytes = most_records = 0.0
    for planned in some:
        num_swaps = len(planned.schedule.swap_epochs)
        counts = {"init": 1, "before_swap": num_swaps, "after_swap": num_swaps, "end": 1}
        num_looks = sum(counts[moment] for moment in config.probes.moments) + len(config.probes.epochs)
        predicted = (len(data.train.labels) + len(data.test.labels)) * (num_epochs + 1 + num_swaps) * replicas * config.probes.predictions
        table_bytes += num_looks * (values_bytes * _ACTIVATIONS_RATIO + len(layers) * _ROW_GROUP_BYTES)
        table_bytes += predicted * _PREDICTION_BYTES + _FAMILY_BYTES
        most_records = max(most_records, num_looks * values_bytes + predicted * 2)
    names_bytes = 64_000  # header: names and shapes
    state_bytes = sum(t.nbytes for t in training.state().values()) * 2 / len(training.replicas.seeds) * replicas  # momentum is yet to come
    return table_bytes, state_bytes + most_records + names_bytes
