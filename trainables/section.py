"""A section of the sweep file. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator

MAX_INT = MAX_SEED = 2**32 - 1
MAX_EPOCHS = 10**6  # plans list them


class Section(BaseModel):
    """A part of the sweep file: typed, frozen, unknown keys refused, whole numbers within what everything that takes them can hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, list):
                cls._bounded(part)
            elif isinstance(part, int) and abs(part) > MAX_INT:
                raise ValueError(f"{part} is refused; whole numbers are allowed from -{MAX_INT} to {MAX_INT}")
        return value


def _no_repeats(values: list[Any]) -> list[Any]:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise ValueError(f"{repeated[0]!r} stands twice in {values!r}")
    return values


Unique = AfterValidator(_no_repeats)
