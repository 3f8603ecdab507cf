"""The rows that are no probe's: replicas, trials, failures, samples."""

from __future__ import annotations

import json
import platform
import traceback
from datetime import UTC, datetime
from typing import Any

import numpy as np

from analysis import tables
from analysis.storage import Store
from trainables.data import Dataset
from trainables.options import Probes
from trainables.probes.activations import probe_set
from trainables.provenance import provenance
from trainables.schedule import Base, Schedule
from trainables.training import METRICS, SPLITS, Evaluation, FamilyTraining


def replica_columns(trial: str, schedule: Schedule, training: FamilyTraining, final: Evaluation) -> dict[str, Any]:
    num_replicas = len(training.replicas.seeds)

    def column(split: str, metric: str) -> np.ndarray:
        return final.metrics[:, SPLITS.index(split), METRICS.index(metric)].numpy()

    columns: dict[str, Any] = {
        "trial": [trial] * num_replicas,
        "schedule": [str(schedule)] * num_replicas,
        "replica": np.arange(num_replicas),
        "seed": training.replicas.seeds,
        "diverged_at": [None if at < 0 else at for at in training.diverged_at.tolist()],
        "train_accuracy_clean": column("train", "accuracy_clean"),
        "train_cross_entropy_clean": column("train", "cross_entropy_clean"),
    }
    for split in SPLITS:
        columns |= {f"{split}_{metric}": column(split, metric) for metric in ("accuracy", "cross_entropy", "loss")}
    for suffix in ("", "_clean"):
        columns[f"gap_accuracy{suffix}"] = columns[f"train_accuracy{suffix}"] - columns["test_accuracy"]
        columns[f"gap_cross_entropy{suffix}"] = columns["test_cross_entropy"] - columns[f"train_cross_entropy{suffix}"]
    return columns


def trial_row(base: Base, schedule: Schedule, probes: Probes) -> dict[str, Any]:
    """What a family's row of `trials` says before it has run: every column, null where only a run can tell."""
    first, last, training = schedule.phases[0], schedule.phases[-1], base.recipe.training
    row: dict[str, Any] = dict.fromkeys(c.name for c in tables.TABLES["trials"].columns if c.name != "schema_version")
    return row | {
        "trial": base.trial_name(schedule, probes),
        "schedule": str(schedule),
        "base": base.name,
        "control": base.trial_name(schedule.control, probes),
        "swapped": schedule.swapped,
        "num_swaps": len(schedule.swap_epochs),
        "swap_epoch": schedule.swap_epochs[0] if schedule.swap_epochs else None,
        "first_activation": first.activation,
        "first_loss": first.loss,
        "last_activation": last.activation,
        "last_loss": last.loss,
        "num_epochs": training.epochs,
        "num_replicas": training.replicas,
        "dataset": "d" + base.dataset_hash[:12],
        "recipe": json.dumps(base.description(schedule, probes), sort_keys=True),
        "finished_at": datetime.now(UTC),
        "host": platform.node(),
        "provenance": json.dumps(provenance(), sort_keys=True),
    }


def write_trial(store: Store, row: dict[str, Any]) -> None:
    """Write a family's row of `trials`."""
    tables.write(store, "trials", row["trial"], {name: [value] for name, value in row.items()})


def write_failure(store: Store, row: dict[str, Any], error: BaseException) -> None:
    """Record a family that raised: its exception and traceback."""
    text = "".join(traceback.format_exception(error))
    failure = {"status": "failed", "error_type": type(error).__name__, "error_message": str(error), "traceback": text}
    write_trial(store, row | failure)


def write_skipped(store: Store, row: dict[str, Any], reason: str) -> None:
    """Record a family that could not start, with the reason."""
    write_trial(store, row | {"status": "skipped", "error_message": reason})


def write_pruned(store: Store, row: dict[str, Any], reason: str) -> None:
    """Record a family that the search gave up while it trained, with the reason."""
    write_trial(store, row | {"status": "pruned", "error_message": reason})


def write_samples(store: Store, data: Dataset, probes: Probes) -> None:
    """Write the table `samples` of a data set."""
    probed = set(data.test.ids[probe_set(data, probes)].tolist())
    columns: dict[str, list[Any]] = {name: [] for name in ("sample", "split", "label", "label_trained", "group", "probe")}
    for name in SPLITS:
        split = getattr(data, name)
        ids = split.ids.tolist()
        columns["sample"] += ids
        columns["split"] += [name] * len(ids)
        columns["label"] += split.clean_labels.tolist()
        columns["label_trained"] += split.labels.tolist()
        columns["group"] += split.groups or [None] * len(ids)
        columns["probe"] += [i in probed for i in ids] if name == "test" else [False] * len(ids)
    tables.write(store, "samples", data.name, {"dataset": [data.name] * len(columns["sample"]), **columns})
