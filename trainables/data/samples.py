"""What every source of images hands over, and the checks that all of them share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TRAIN, VAL, TEST = 0, 1, 2
SPLITS = ("train", "val", "test")


class DataError(ValueError):
    """A mistake in what was asked of the data; the message says what is allowed and what to do."""


@dataclass(frozen=True)
class Samples:
    """Images as their source has them, before splitting and normalisation. A sample's id is its position here."""

    images: NDArray[np.uint8]
    """[sample, channel, height, width]"""
    labels: NDArray[np.int64]
    """[sample], from 0 to the number of classes minus 1"""
    class_names: list[str]
    splits: NDArray[np.int8] | None = None
    """[sample], TRAIN, VAL or TEST; those the source does not bring are drawn from its TRAIN. None: all are drawn"""
    groups: NDArray[np.str_] | None = None
    """[sample], what must stay together in one split: a slide, a patient"""
    notes: list[str] = field(default_factory=list)
    """Remarks for the user, one line each."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """' Did you mean ...?', or nothing where no allowed name resembles this one."""
    lowered = {word.lower(): word for word in allowed}
    close = difflib.get_close_matches(name.lower(), lowered, n=3)
    return f" Did you mean {' or '.join(lowered[word] for word in close)}?" if close else ""


def as_images(values: NDArray, where: str) -> NDArray[np.uint8]:
    """[sample, height, width] or [sample, height, width, 1 or 3], uint8 -> [sample, channel, height, width]."""
    if values.dtype != np.uint8:
        nan = " and holds NaN" if values.dtype.kind == "f" and np.isnan(values).any() else ""
        raise DataError(f"{where}: images must be uint8 (0 to 255), but the array is {values.dtype}{nan}.")
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or values.shape[3] not in (1, 3) or 0 in values.shape[1:]:
        raise DataError(f"{where}: images must be [sample, height, width] or [sample, height, width, 3], but the shape is {values.shape}.")
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def as_labels(values: NDArray, num_images: int, where: str) -> NDArray[np.int64]:
    """[sample] or [sample, 1], integers -> [sample] int64."""
    if values.dtype.kind not in "iub":
        nan = " and holds NaN" if values.dtype.kind == "f" and np.isnan(values).any() else ""
        raise DataError(f"{where}: labels must be integers, but the array is {values.dtype}{nan}.")
    if values.shape not in ((num_images,), (num_images, 1)):
        raise DataError(f"{where}: labels must be [{num_images}] or [{num_images}, 1], one per image, but the shape is {values.shape}.")
    return values.reshape(-1).astype(np.int64)


def check_classes(labels: NDArray[np.int64], class_names: list[str] | None, where: str) -> list[str]:
    """The classes' names (their numbers where none are given), after checking that labels count from 0 without gaps."""
    present = np.unique(labels)
    num_classes = len(class_names) if class_names else (int(present[-1]) + 1 if len(present) else 0)
    if len(present) and (present[0] < 0 or present[-1] >= num_classes):
        raise DataError(f"{where}: labels lie between {present[0]} and {present[-1]}, allowed are 0 to {max(num_classes - 1, 0)}.")
    if num_classes < 2:
        raise DataError(f"{where}: {num_classes} class(es) found, at least 2 are needed.")
    if len(present) < num_classes:
        absent = int(np.flatnonzero(present != np.arange(len(present)))[0]) if present[-1] >= len(present) else len(present)
        raise DataError(f"{where}: labels must be 0 to {num_classes - 1} without gaps, but no image has label {absent}.")
    return list(class_names) if class_names else [str(label) for label in range(num_classes)]
