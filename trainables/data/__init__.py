"""Data sets as tensors: split, subset, label noise and normalisation, the same for every source."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from trainables.data.samples import SPLITS, TEST, TRAIN, DataError, Samples
from trainables.data.splits import add_noise, assign, subset
from trainables.recipe import Data

__all__ = ["DataError", "Dataset", "Split", "load", "provide", "source", "source_images"]

_READERS = {"cells": "cells", "npz": "npz", "torchvision": "torchvision_sets", "folder": "folder", "function": "function"}
_HASH_VERSION = "data 1"


@dataclass(frozen=True)
class Split:
    """Samples in ascending order of id."""

    ids: Tensor
    """int64 [sample], unique over all splits: the position in the source"""
    images: Tensor
    """float32 [sample, channel, height, width], normalised per channel by mean and deviation of the train split"""
    labels: Tensor
    """int64 [sample], what is trained on, noise included"""
    clean_labels: Tensor
    """int64 [sample]"""
    groups: list[str] | None
    """[sample], e.g. the slide; None where the source has none"""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dataset:
    """Shared by all who load the same configuration: not to be written to."""

    train: Split
    val: Split
    """May be empty."""
    test: Split
    num_classes: int
    class_names: list[str]
    hash: str
    """sha256 in hex of the ids, 8-bit images, labels and clean labels of all splits"""
    pool_hash: str
    """`hash` of the same data with all training samples and no label noise: nested subsets and levels of noise share it"""
    notes: list[str]
    """Remarks for the user, one line each."""

    @property
    def name(self) -> str:
        """`d` and 12 hex: equal names, equal data."""
        return "d" + self.hash[:12]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, height, width)"""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def load(config: Data) -> Dataset:
    """The data set of a configuration. Raises DataError for what the user can mend."""
    return _load(config.model_dump_json())


def source_images(config: Data) -> NDArray[np.uint8]:
    """The images [sample, channel, height, width] that a configuration's data come from; a sample's id is its position here."""
    return _read(config).images


@lru_cache(maxsize=4)
def _load(config_json: str) -> Dataset:
    config: Any = TypeAdapter(Data).validate_json(config_json)
    pool = _pool(config)
    # Subsets share what they are drawn from; a whole data set keeps no second copy of itself.
    samples = _read(config) if config == pool else _read_shared(pool.model_dump_json())
    splits = assign(samples, config.val_fraction, config.test_fraction, config.split_seed)
    raw = _parts(samples, splits, config)
    digest = _digest(raw)
    pool_hash = digest if config == pool else _digest(_parts(samples, splits, pool))
    table = _normalisation(raw[TRAIN]["images"])
    train, val, test = (_as_split(part, samples.groups, table) for part in raw)
    notes = [*samples.notes, *_remarks(raw)]
    return Dataset(train, val, test, len(samples.class_names), samples.class_names, digest, pool_hash, notes)


_provided: dict[str, Samples] = {}


def source(config: Data) -> Samples:
    """The images as their source has them, whatever subset and label noise the configuration asks for."""
    return _read(_pool(config))


def provide(config: Data, samples: Samples) -> None:
    """Have `load` take what `source` gave elsewhere, for this configuration and others that differ in subset and label noise alone."""
    _provided[_pool(config).model_dump_json()] = samples


def _pool(config: Any) -> Any:
    return config.model_copy(update={"train_size": None, "label_noise": 0.0})


def _read(config: Any) -> Samples:
    if (samples := _provided.get(_pool(config).model_dump_json())) is not None:
        return samples
    reader: Callable[[Any], Samples] = import_module(f"trainables.data.{_READERS[config.source]}").read
    return reader(config)


@lru_cache(maxsize=1)
def _read_shared(config_json: str) -> Samples:
    return _read(TypeAdapter(Data).validate_json(config_json))


def _parts(samples: Samples, splits: NDArray[np.int8], config: Any) -> list[dict[str, NDArray[Any]]]:
    """Ids, 8-bit images and labels of each split, the training split cut to its subset and with its label noise."""
    parts: list[dict[str, NDArray[Any]]] = []
    for split in range(len(SPLITS)):
        ids = np.flatnonzero(splits == split)
        if split == TRAIN:
            ids = ids[subset(samples.labels[ids], config.train_size, config.split_seed)]
        clean = samples.labels[ids]
        noise = config.label_noise if split == TRAIN else 0.0
        noisy = add_noise(clean, ids, len(samples.class_names), noise, config.split_seed)
        parts.append({"ids": ids, "images": samples.images[ids], "labels": noisy, "clean_labels": clean})
    return parts


def _digest(parts: list[dict[str, NDArray[Any]]]) -> str:
    digest = hashlib.sha256(_HASH_VERSION.encode())
    for split, part in zip(SPLITS, parts, strict=True):
        for key, values in part.items():
            digest.update(f"{split} {key} {values.dtype} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _as_split(part: dict[str, NDArray[Any]], groups: NDArray[np.str_] | None, table: NDArray[np.float32]) -> Split:
    ids, labels, clean_labels = (torch.from_numpy(part[key]) for key in ("ids", "labels", "clean_labels"))
    of_samples = None if groups is None else groups[part["ids"]].tolist()
    return Split(ids, _normalised(part["images"], table), labels, clean_labels, of_samples)


def _remarks(raw: list[dict[str, NDArray[Any]]]) -> list[str]:
    """Says so where images to be tested on are trained on too, byte for byte."""
    seen = {hash(image.tobytes()) for image in raw[TRAIN]["images"]}
    num = sum(hash(image.tobytes()) in seen for image in raw[TEST]["images"])
    return [f"{num} of {len(raw[TEST]['ids'])} test images are also in the train split, byte for byte."] if num else []


def _normalisation(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The normalised value [channel, 256] of every 8-bit value, from exact counts: the same on every processor."""
    values = np.arange(256)
    table = np.empty((images.shape[1], 256), np.float32)
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].reshape(-1), minlength=256)
        num, total, squares = (int((counts * values**power).sum()) for power in (0, 1, 2))
        deviation = math.sqrt(num * squares - total**2) / num
        table[channel] = (values - total / num) / (deviation or 1.0)
    return table


def _normalised(images: NDArray[np.uint8], table: NDArray[np.float32]) -> Tensor:
    """float32 [sample, channel, height, width]"""
    result = np.empty(images.shape, np.float32)
    for channel in range(images.shape[1]):
        np.take(table[channel], images[:, channel], out=result[:, channel], mode="clip")
    return torch.from_numpy(result)
