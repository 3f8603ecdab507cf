"""Schedules, histories, and the names of training states.

A training state is named by its history: a hash of the base recipe and of the phases that were in force before its epoch. Whatever
influences training is in that hash; what cannot (paths, resources, probes) is not. Changing what goes in orphans every stored state:
raise HISTORY_VERSION with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from analysis.registry import Registry, UnknownName
from trainables.activations import ACTIVATIONS
from trainables.losses import LOSSES
from trainables.models import MODELS
from trainables.options import Probes
from trainables.rates import RATES
from trainables.recipe import BaseRecipe, Model

HISTORY_VERSION = 1


# What a phase may put in force beside activation and loss, each by the name of one of its functions. Training asks for it by its slot.
FURTHER: dict[str, Registry[Any]] = {"learning_rate": RATES}


@dataclass(frozen=True, order=True)
class Phase:
    """What is in force from `start_epoch` on. `further` holds slots of FURTHER with a function's name each, sorted, as `slot=name`."""

    start_epoch: int
    activation: str
    loss: str
    further: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.start_epoch}:{'/'.join([self.activation, self.loss, *self.further])}"

    @property
    def functions(self) -> dict[str, str]:
        """The name of the function in force by slot: activation, loss, and those of FURTHER that the phase names."""
        return {"activation": self.activation, "loss": self.loss} | dict(_slot(text) for text in self.further)

    def function(self, slot: str) -> Any:
        """The function in force in a slot of FURTHER; None where the phase leaves it as the recipe has it."""
        name = self.functions.get(slot)
        return None if name is None else FURTHER[slot].resolve(name)

    @property
    def listed(self) -> list[Any]:
        """What `Schedule.of` makes this phase of."""
        return [self.start_epoch, self.activation, self.loss, *self.further]

    @property
    def key(self) -> list[Any]:
        """What stands for this phase in a history. Slots that it does not name are not in it, so that a new one renames nothing."""
        further = [f"{slot}={FURTHER[slot].fingerprint(name)}" for slot, name in map(_slot, self.further)]
        return [self.start_epoch, ACTIVATIONS.fingerprint(self.activation), LOSSES.fingerprint(self.loss), *further]

    @property
    def text(self) -> str:
        """`key` in canonical JSON."""
        start, *names = self.key
        return f"[{start},{','.join(map(_quoted, names))}]"


def _slot(text: str) -> tuple[str, str]:
    """`learning_rate=tenth` as slot and name. Raises UnknownName for a slot that there is not."""
    slot, _, name = text.partition("=")
    if slot not in FURTHER or not name:
        raise UnknownName(f"{text!r} is no further function of a phase; allowed: {', '.join(f'{slot}=<name>' for slot in FURTHER)}")
    return slot, name


@dataclass(frozen=True, order=True)
class Schedule:
    """What is in force when: phases by rising start, the first at epoch 0, each different from the one before."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        starts = [phase.start_epoch for phase in self.phases]
        if not starts or starts[0] != 0:
            raise ValueError(f"schedule {self}: the first phase must start at epoch 0")
        for before, after in zip(self.phases, self.phases[1:], strict=False):
            if after.start_epoch <= before.start_epoch:
                raise ValueError(f"schedule {self}: phases must start at rising epochs")
            if before.functions == after.functions:
                raise ValueError(f"schedule {self}: the swap at epoch {after.start_epoch} changes nothing")

    @classmethod
    def of(cls, phases: Sequence[Sequence[Any]]) -> Schedule:
        """From `[[start_epoch, activation, loss], ...]`; further functions follow as `slot=name`. Raises ValueError."""
        return cls(
            tuple(
                Phase(int(start), str(activation), str(loss), tuple(sorted(map(str, further))))
                for start, activation, loss, *further in phases
            )
        )

    def __str__(self) -> str:
        return " ".join(map(str, self.phases))

    @property
    def swap_epochs(self) -> tuple[int, ...]:
        return tuple(phase.start_epoch for phase in self.phases[1:])

    @property
    def control(self) -> Schedule:
        """The schedule that never swaps out of this one's first phase."""
        return Schedule(self.phases[:1])

    @property
    def swapped(self) -> str:
        """What the first swap exchanges: none, activation, loss or both, and slots of FURTHER, with + between."""
        if len(self.phases) == 1:
            return "none"
        first, second = (phase.functions for phase in self.phases[:2])
        changed = [slot for slot in ("activation", "loss", *FURTHER) if first.get(slot) != second.get(slot)]
        return "+".join(["both", *changed[2:]] if changed[:2] == ["activation", "loss"] else changed)

    def before(self, epoch: int) -> tuple[Phase, ...]:
        """The phases in force before an epoch boundary: those that shaped the training state there."""
        return tuple(phase for phase in self.phases if phase.start_epoch < epoch)

    def phase_before(self, epoch: int) -> Phase:
        """The phase in force as training reaches an epoch boundary; at epoch 0 the first."""
        return (self.before(epoch) or self.phases)[-1]


def model_content(model: Model, exclude_defaults: bool = False) -> dict[str, Any]:
    """What stands for a model in a history: its section, with a hash of its source where it is a user's own."""
    content: dict[str, Any] = model.model_dump(mode="json", exclude_defaults=exclude_defaults)
    return content | {"name": MODELS.fingerprint(model.name)} if MODELS.is_own(model.name) else content


@dataclass(frozen=True)
class Base:
    """A base recipe together with the hash of the data that it leads to."""

    recipe: BaseRecipe
    dataset_hash: str

    @property
    def key(self) -> dict[str, Any]:
        """What of the base recipe goes into names: what differs from the defaults, so that a new option orphans no stored state.

        Where the data came from does not influence training; what they are does.
        """
        return self._content(exclude_defaults=True)

    @property
    def full(self) -> dict[str, Any]:
        """The same with the defaults written out: stored beside each result and compared on each hit."""
        return self._content(exclude_defaults=False)

    def _content(self, exclude_defaults: bool) -> dict[str, Any]:
        model = model_content(self.recipe.model, exclude_defaults)
        training = self.recipe.training.model_dump(mode="json", exclude_defaults=exclude_defaults)
        return {"version": HISTORY_VERSION, "data": self.dataset_hash, "model": model, "training": training}

    @cached_property
    def name(self) -> str:
        return "b" + digest(self.key)

    @cached_property
    def _text(self) -> str:
        """`key` in canonical JSON: written once, as it is in the name of every state and family."""
        return canonical(self.key)

    def history(self, schedule: Schedule, epoch: int, full: bool = False) -> dict[str, Any]:
        """The history of a training state: all that determines it."""
        return {
            "base": self.full if full else self.key,
            "phases": [phase.key for phase in schedule.before(epoch)],
            "epoch": epoch,
        }

    def state_name(self, schedule: Schedule, epoch: int) -> str:
        """`s` and the digest of the state's history."""
        phases = ",".join([phase.text for phase in schedule.before(epoch)])
        return "s" + _digest(f'{{"base":{self._text},"epoch":{epoch},"phases":[{phases}]}}')

    def trial_name(self, schedule: Schedule, probes: Probes) -> str:
        """A family's id: the digest of its schedule, its base recipe, and what is recorded of it."""
        phases = ",".join([phase.text for phase in schedule.phases])
        recorded = canonical(probes.key)
        return "t" + _digest(f'{{"base":{self._text},"phases":[{phases}],"probes":{recorded}}}')

    def description(self, schedule: Schedule, probes: Probes) -> dict[str, Any]:
        """A family in full, as stored in its row of `trials`."""
        return {
            "base": self.full,
            "phases": [phase.key for phase in schedule.phases],
            "probes": probes.model_dump(mode="json", exclude={"own"}) | probes.sources,
            "data": self.recipe.data.model_dump(mode="json", exclude={"root", "download"}),
        }


class NameMismatch(RuntimeError):
    """A stored result carries the name of a recipe that it was not made with."""


def check_same(what: str, stored: dict[str, Any], requested: dict[str, Any]) -> None:
    """Refuse a hit whose stored content differs. Keys that the stored one lacks are options added since, at their defaults.

    Raises NameMismatch, naming each key with both values.
    """
    found = [f"{key} was {old!r}, is {new!r}" for key, old, new in _differences(stored, requested, "")]
    if found:
        raise NameMismatch(
            f"{what} was made with another recipe than its name says: {'; '.join(found)}. "
            "A default changed since, or two names collide: remove that file, or write to another folder"
        )


def _differences(stored: Any, requested: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(stored, dict) and isinstance(requested, dict):
        for key in stored:
            yield from _differences(stored[key], requested.get(key), f"{path}.{key}".lstrip("."))
    elif stored != requested:
        yield path, stored, requested


def canonical(key: Any) -> str:
    """JSON in the one form that is hashed."""
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def digest(key: Any) -> str:
    """12 hexadecimal digits: two of 10,000 names collide with probability 2e-7."""
    return _digest(canonical(key))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_quoted = lru_cache(maxsize=None)(json.dumps)
