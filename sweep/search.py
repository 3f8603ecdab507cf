"""How families are chosen from the space: the sections `search` and the axes of `space.recipe`. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Discriminator, Field, Tag, model_validator

from trainables.recipe import MAX_SEED, Model, Section, Training, Unique

# The same in every family of a sweep: what its schedules, its tables and its replicas are laid out by.
_FIXED = ("epochs", "replicas", "first_seed")
_SECTIONS: dict[str, type[Section]] = {"model": Model, "training": Training}
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


class Search(Section):
    """Which points of the space become families."""

    kind: Literal["grid", "random"] = Field("grid", description="grid runs every family of the space; random draws num_families of them.")
    num_families: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Stressed families in all; their controls come on top. With every kind but grid, and only there."
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the draws.")
    sampler: Literal["random", "qmc"] | None = Field(
        None, description="Draws of random: random (the default) or qmc (quasi-random, Sobol). Only with random."
    )

    @model_validator(mode="after")
    def _effective(self) -> Search:
        if (self.num_families is None) != (self.kind == "grid"):
            raise ValueError(f"num_families belongs to kind random, which needs it (kind is {self.kind})")
        if self.sampler is not None and self.kind == "grid":
            raise ValueError("sampler has no effect with kind grid, which runs everything")
        return self


def number_type(key: str) -> type | None:
    """int or float where a key of the base recipe holds a number, else None."""
    section, _, field = key.partition(".")
    return _number(_SECTIONS[section].model_fields[field].annotation)


def _number(annotation: Any) -> type | None:
    if annotation in (int, float):
        return annotation
    parts = () if get_origin(annotation) is list else get_args(annotation)
    return next((found for found in map(_number, parts) if found), None)
