"""How families are chosen from the space: the sections `search` and the axes of `space.recipe`. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Discriminator, Field, Tag, model_validator

from trainables.recipe import CellsData, Model, Training
from trainables.section import MAX_SEED, Section, Unique

_SECTIONS: dict[str, type[Section]] = {"data": CellsData, "model": Model, "training": Training}
# The same in every family of a sweep: what its schedules, its tables and its replicas are laid out by, and what they are tested on.
_FIXED = ("epochs", "replicas", "first_seed", *(key for key in CellsData.model_fields if key not in ("train_size", "label_noise")))
RECIPE_KEYS = [f"{name}.{key}" for name, section in _SECTIONS.items() for key in section.model_fields if key not in _FIXED]


class Range(Section):
    """A range of numbers, both ends included."""

    low: float | int = Field(description="Smallest value.")
    high: float | int = Field(description="Largest value.")
    log: bool = Field(False, description="Whether to draw uniformly in the logarithm; low must be above 0.")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, which must lie below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}, which must lie above 0 where log is true")
        return self


Axis = Annotated[
    Annotated[list[Any], Field(min_length=1), Unique, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, (dict, Range)) else "choices"),
]


class Objective(Section):
    """What a search with Optuna is after."""

    metric: str = Field(
        description="A column of `replicas`, meaning its mean over replicas that did not diverge (test_accuracy, gap_accuracy, ...), or "
        "spread/<measure>/<layer>/<moment>, e.g. spread/cka/head/end."
    )
    direction: Literal["maximize", "minimize"] = Field(description="maximize or minimize.")


class Pruning(Section):
    """Which families are given up on while they train, by a mean over replicas at the end of each epoch. Never a control."""

    kind: Literal["median", "percentile", "threshold"] = Field(
        "median",
        description="median and percentile compare with the earlier families at the same epoch, threshold with fixed bounds.",
    )
    metric: Literal["train_accuracy", "val_accuracy", "test_accuracy"] = Field(
        "val_accuracy", description="What is watched; larger is better."
    )
    warmup_epochs: int = Field(1, ge=0, description="Epochs at the start of training in which nothing is pruned.")
    startup_families: int = Field(5, ge=0, description="Families that must have finished before any is pruned. Not with threshold.")
    percentile: Annotated[float, Field(gt=0.0, lt=100.0)] | None = Field(
        None, description="Share of families kept, in percent. With percentile, and only there."
    )
    lower: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="Prune below this value. With threshold, and only there."
    )

    @model_validator(mode="after")
    def _effective(self) -> Pruning:
        for key, kind in (("percentile", "percentile"), ("lower", "threshold")):
            if (getattr(self, key) is None) == (self.kind == kind):
                raise ValueError(f"{key} belongs to kind {kind}, which needs it (kind is {self.kind})")
        return self


SAMPLERS = {"grid": (), "random": ("random", "qmc"), "optuna": ("tpe", "nsga2", "qmc", "random")}


class Search(Section):
    """Which points of the space become families."""

    kind: Literal["grid", "random", "optuna"] = Field(
        "grid",
        description="grid runs every family of the space; random draws num_families of them; optuna proposes them one after the other, by "
        "what the finished ones have shown.",
    )
    num_families: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Stressed families in all; their controls come on top. With every kind but grid, and only there."
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the draws or of the sampler.")
    sampler: Literal["tpe", "nsga2", "qmc", "random"] | None = Field(
        None,
        description="Who draws: with random, random (the default) or qmc (quasi-random, Sobol); with optuna also tpe (the default for one "
        "objective) or nsga2 (for several).",
    )
    sampler_options: dict[str, Any] = Field(
        {}, description="Options of Optuna's sampler, by the names of its constructor. Only with optuna."
    )
    objectives: list[Objective] = Field([], description="What to maximize or minimize: one or several. With optuna, and only there.")
    storage: str | None = Field(
        None,
        description="Where the study lives: null for the journal study.journal beside the results (a folder of small objects on an object "
        "store), or a URL for Optuna (sqlite:///, postgresql://). The URL is kept with the results: no passwords in it.",
    )
    pruning: Pruning | None = Field(None, description="When to give families up early; null never. With optuna and one objective only.")
    max_states: int = Field(
        100,
        ge=1,
        description="Training states kept while optuna searches: families still to come may start from them. The least recently used are "
        "deleted first; what a planned family waits for never is.",
    )

    @model_validator(mode="after")
    def _effective(self) -> Search:
        if (self.num_families is None) != (self.kind == "grid"):
            raise ValueError(f"num_families belongs to the kinds random and optuna, which need it (kind is {self.kind})")
        if self.sampler is not None and self.sampler not in SAMPLERS[self.kind]:
            raise ValueError(
                f"sampler {self.sampler} does not go with kind {self.kind}; allowed: {', '.join(SAMPLERS[self.kind]) or 'none'}"
            )
        if bool(self.objectives) != (self.kind == "optuna"):
            raise ValueError(f"objectives belong to kind optuna, which needs them (kind is {self.kind})")
        for key in ("sampler_options", "storage", "pruning"):
            if self.kind != "optuna" and getattr(self, key):
                raise ValueError(f"{key} has no effect with kind {self.kind}; it belongs to optuna")
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"objectives: a metric stands twice in {', '.join(names)}")
        if self.pruning is not None and len(names) > 1:
            raise ValueError("pruning needs a single objective: Optuna prunes no family that several objectives judge")
        return self

    @property
    def drawn_by(self) -> str:
        """The sampler, with the defaults filled in."""
        return self.sampler or {"optuna": "nsga2" if len(self.objectives) > 1 else "tpe"}.get(self.kind, "random")


def number_type(key: str) -> type | None:
    """int or float where a key of the base recipe holds a number, else None."""
    section, _, field = key.partition(".")
    return _number(_SECTIONS[section].model_fields[field].annotation)


def _number(annotation: Any) -> type | None:
    if annotation in (int, float):
        return annotation
    parts = () if get_origin(annotation) is list else get_args(annotation)
    return next((found for found in map(_number, parts) if found), None)
