"""What `--json` prints: one object per verb, with keys that stay. Further keys may be added; none is renamed or taken away."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """One object: typed, with no other keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PlannedFamily(Record):
    """A family of a plan."""

    trial: str = Field(description="The family's id.")
    schedule: str = Field(description="What is in force when, and the family's values of the axes over the base recipe.")
    swapped: str = Field(description="What is swapped: none (a control), activation, loss, both, ...")
    swap_epoch: int | None = Field(description="Epoch of the first swap; null for a control.")
    status: Literal["done", "pruned", "to run"] = Field(description="Where the family stands.")
    from_epoch: int | None = Field(description="Epoch at which its own training begins; null where it is not to run.")
    continues: str | None = Field(description="Id of the family whose training state it continues from; null where there is none.")


class KindOfCost(Record):
    """What one kind of schedule costs."""

    kind: str = Field(description="control, activation swap, loss swap, ...")
    families: int = Field(description="Families that are to run.")
    replica_epochs: int = Field(description="Epochs to train, over all replicas.")
    seconds: float | None = Field(description="Seconds of one device; null where nothing tells.")
    table_bytes: int = Field(description="Bytes of tables.")


class Costs(Record):
    """What the families that are to run cost."""

    device_s: float | None = Field(description="Seconds of device time; null where nothing tells.")
    images_s: float = Field(description="Seconds of it in which the images are measured, once for all families.")
    wall_s: float | None = Field(description="Seconds from start to end on the slots there are, start-up and analysis aside.")
    slots: int = Field(description="Families that run at a time.")
    source: str = Field(description="What the cost was taken from.")
    replica_epochs: int = Field(description="Epochs to train over all replicas, shared prefixes once.")
    replica_epochs_unshared: int = Field(description="The same without sharing.")
    table_bytes: int = Field(description="Bytes of tables.")
    num_states: int = Field(description="Training states that are there at once, at most.")
    kinds: list[KindOfCost] = Field(description="The cost by kind of schedule.")


class Budget(Record):
    """What `--budget-hours` pays for."""

    hours: float = Field(description="The budget in device-hours.")
    families: int = Field(description="Families to run that it pays for.")
    device_s: float = Field(description="Seconds of device time that these take.")


class PlanRecord(Record):
    """`python -m sweep plan --json`"""

    name: str = Field(description="Name of the sweep.")
    results: str = Field(description="Folder or URI of its results.")
    num_families: int = Field(description="Families in all, as far as they are known.")
    num_done: int = Field(description="Families in the tables.")
    num_pruned: int = Field(description="Families that a search gave up.")
    num_to_run: int = Field(description="Families to run.")
    num_unproposed: int = Field(description="Stressed families that a search has yet to propose, at most.")
    families: list[PlannedFamily] = Field(description="The families, controls first.")
    cost: Costs | None = Field(description="What is to run costs; null where nothing is.")
    budget: Budget | None = Field(description="What the budget pays for; null without --budget-hours, or where nothing is to run.")
    notes: list[str] = Field(description="What is remarkable about data and results.")


class StatusRecord(Record):
    """`python -m sweep status --json`"""

    name: str = Field(description="Name of the sweep.")
    results: str = Field(description="Folder or URI of its results.")
    num_families: int = Field(description="Families in all, as far as they are known.")
    num_done: int = Field(description="Families with status done.")
    num_failed: int = Field(description="Families with status failed.")
    num_skipped: int = Field(description="Families with status skipped: what they continue from failed.")
    num_pruned: int = Field(description="Families with status pruned.")
    num_not_run: int = Field(description="Families that are in no table.")
    num_replicas: int = Field(description="Replicas of the families that are in the tables.")
    num_diverged: int = Field(description="Replicas of these that diverged.")
    last_told: str | None = Field(description="Last line of the newest run's log; null where there is none.")


class SharedValue(Record):
    """A value that all families of a group have."""

    key: str = Field(description="A key of the recipe, or a part of the schedule.")
    value: Any = Field(description="Its value.")
    num_others: int = Field(description="Families outside of the group that have it, too.")
    of_others: int = Field(description="Families outside of the group.")


class FailedGroup(Record):
    """Families that failed alike."""

    error_type: str = Field(description="Kind of the exception.")
    error_message: str = Field(description="Message of the first of them.")
    trials: list[str] = Field(description="Ids of the families.")
    schedules: list[str] = Field(description="Their schedules, in the same order.")
    hosts: list[str] = Field(description="Machines on which they failed.")
    shared: list[SharedValue] = Field(description="What all of them have and not all others; the rarest among the others first.")
    last_lines: list[str] = Field(description="End of the first one's traceback.")
    again: str = Field(description="The command that runs exactly these again.")


class FailuresRecord(Record):
    """`python -m sweep failures --json`"""

    name: str = Field(description="Name of the sweep.")
    results: str = Field(description="Folder or URI of its results.")
    groups: list[FailedGroup] = Field(description="Failed families by cause, the largest group first.")
    num_skipped: int = Field(description="Families that were skipped because the one that they continue from failed.")
    again: str = Field(description="The command that runs all of them again.")


RECORDS = (PlanRecord, StatusRecord, FailuresRecord)
