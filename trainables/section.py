"""A section of the sweep file. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the sweep file: typed, frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


MAX_SEED = 2**32 - 1
MAX_EPOCHS = 10**6  # plans list them


def _no_repeats(values: list[Any]) -> list[Any]:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise ValueError(f"{repeated[0]!r} stands twice in {values!r}")
    return values


Unique = AfterValidator(_no_repeats)
