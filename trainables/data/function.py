"""A user's own data set: a function that gives the arrays, by import path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from analysis.registry import Registry, UnknownName
from trainables.data.npz import from_arrays
from trainables.data.samples import DataError, Samples
from trainables.recipe import FunctionData

DATA_SETS: Registry[Callable[..., Any]] = Registry("data set", {})


def read(config: FunctionData) -> Samples:
    """What the function gives for `options`: arrays by the names that a .npz file has (`trainables.data.npz`). Raises DataError."""
    try:
        function = DATA_SETS.resolve(config.name)
    except UnknownName as error:
        raise DataError(f"data.name: {error}") from error
    where = f"data.name {config.name}"
    try:
        found = function(**config.options)
    except Exception as error:
        raise DataError(f"{where} fails with {config.options}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise DataError(f"{where} must give a dict of arrays (images, labels, ...), not {type(found).__name__}.")
    return from_arrays({key: np.asarray(value) for key, value in found.items()}, where)


def check_repeats(config: FunctionData) -> None:
    """Refuse a function that gives other data when it is called again, as every worker does. Raises DataError."""
    first, second = read(config), read(config)
    if not (np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)):
        raise DataError(f"data.name {config.name} gives other data when called again; draw from a generator with a fixed seed.")
