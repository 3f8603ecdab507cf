"""Probes: measurements made on the networks at chosen moments. One file each, one table each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor

from trainables.options import Probes
from trainables.schedule import Phase
from trainables.training import Evaluation, FamilyTraining

# The order in which moments at the same epoch boundary come to pass.
MOMENTS = ("init", "epoch", "before_swap", "after_swap", "end")


@dataclass(frozen=True)
class Look:
    """A family at a moment. `evaluation` comes with the moments `epoch` and `after_swap` only."""

    moment: str
    training: FamilyTraining
    evaluation: Evaluation | None = None

    @property
    def epoch(self) -> int:
        return self.training.epoch

    @property
    def phase(self) -> Phase:
        return self.training.phase

    def is_recorded(self, config: Probes) -> bool:
        """Whether networks are looked into now: for activations, and what is measured beside them."""
        return self.moment in config.moments or (self.moment == "epoch" and self.epoch in config.epochs)

    def key(self, *more: str) -> str:
        """A name for what is recorded now that sorts in the order of time."""
        return "/".join([f"{self.epoch:06d}", f"{MOMENTS.index(self.moment)}-{self.moment}", *more])


def parse_key(key: str) -> tuple[int, str, list[str]]:
    """Epoch, moment and the rest of a name that `Look.key` made."""
    epoch, moment, *rest = key.split("/")
    return int(epoch), moment.partition("-")[2], rest


def merge(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All row groups as one, for tables of few or short rows."""

    def join(parts: list[Any]) -> Any:
        if isinstance(parts[0], pa.Array):
            return pa.concat_arrays(parts)
        return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [x for part in parts for x in part]

    return [{name: join([group[name] for group in groups]) for name in groups[0]}] if groups else []


class Probe(Protocol):
    """What a probe is to a family. `records` are tensors by `Look.key`; they travel with training states."""

    table: str
    records: dict[str, Tensor]

    def look(self, look: Look) -> None:
        """Measure, if this moment is one of the probe's."""

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        """The probe's table for this family, by row group."""
