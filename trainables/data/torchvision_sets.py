"""Classification sets of torchvision whose images all have one size, by class name."""

from __future__ import annotations

import gzip
import math
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.samples import TEST, TRAIN, VAL, DataError, Samples, as_images, as_labels, check_classes, nearest
from trainables.recipe import TorchvisionData
from trainables.vision import torchvision

_BY_TRAIN = {TRAIN: {"train": True}, TEST: {"train": False}}
_BY_SPLIT = {TRAIN: {"split": "train"}, TEST: {"split": "test"}}
_SETS: dict[str, dict[int, dict[str, Any]]] = {  # the arguments that open each split
    "CIFAR10": _BY_TRAIN,
    "CIFAR100": _BY_TRAIN,
    "EMNIST": {split: {"split": "balanced", **arguments} for split, arguments in _BY_TRAIN.items()},
    "FashionMNIST": _BY_TRAIN,
    "KMNIST": _BY_TRAIN,
    "MNIST": _BY_TRAIN,
    "PCAM": {TRAIN: {"split": "train"}, VAL: {"split": "val"}, TEST: {"split": "test"}},
    "STL10": _BY_SPLIT,
    "SVHN": _BY_SPLIT,
    "USPS": _BY_TRAIN,
}
_IDX_FOLDERS = {"MNIST": ["mnist", "MNIST"], "FashionMNIST": ["fashion_mnist", "FashionMNIST", "fashionmnist"]}
_IDX_CLASSES = {
    "MNIST": [str(digit) for digit in range(10)],
    "FashionMNIST": [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
}


def read(config: TorchvisionData) -> Samples:
    """Images [sample, channel, height, width]: the set's train, then val where it has one, then test."""
    if config.name not in _SETS:
        exists = (
            f" It has images of several sizes or no single label; these are read: {', '.join(_SETS)}."
            if hasattr(torchvision().datasets, config.name)
            else f" Allowed are {', '.join(_SETS)}."
        )
        raise DataError(
            f"data.name {config.name!r} is no data set of source torchvision that this package reads.{exists}{nearest(config.name, _SETS)}"
        )
    folder = _idx_folder(config)
    images, labels, splits = [], [], []
    class_names: list[str] | None = None
    for split, arguments in _SETS[config.name].items():
        if folder:
            image, label = (_read_idx(folder / name) for name in _idx_names(split))
            class_names = _IDX_CLASSES[config.name]
        else:
            opened = _open(config, arguments)
            image, label = _arrays(opened)
            class_names = class_names or _class_names(opened)
        where = f"data.name {config.name}"
        images.append(as_images(image, where))
        labels.append(as_labels(label, len(image), where))
        splits.append(np.full(len(image), split, np.int8))
    together = np.concatenate(labels)
    names = check_classes(together, class_names, f"data.name {config.name}")
    return Samples(np.concatenate(images), together, names, np.concatenate(splits))


def _open(config: TorchvisionData, arguments: dict[str, Any]) -> Any:
    """torchvision's data set of one split, from files below root or, where allowed and needed, downloaded."""
    kind = getattr(torchvision().datasets, config.name)
    problem = ""
    for download in (False, True) if config.download else (False,):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the published files' age, which a user cannot mend
                return kind(Path(config.root).expanduser(), download=download, **arguments)
        except (RuntimeError, OSError, EOFError, ImportError) as error:
            problem = f"downloading it failed ({error})" if download else f"reading it failed ({error}), and data.download is false"
    raise DataError(
        f"data.name {config.name}: {problem}. Put the files below {_place(config)}, as torchvision.datasets.{config.name} lays them out."
    )


def _place(config: TorchvisionData) -> Path:
    """Where the user should put files."""
    below = {
        "CIFAR10": "cifar-10-batches-py",
        "CIFAR100": "cifar-100-python",
        "PCAM": "pcam",
        "STL10": "stl10_binary",
        "SVHN": ".",
        "USPS": ".",
    }.get(config.name, f"{config.name}/raw")
    return Path(config.root).expanduser() / below


def _arrays(opened: Any) -> tuple[NDArray, NDArray]:
    """All images [sample, height, width] or [sample, height, width, channel] and labels [sample] of a data set."""
    if type(opened).__name__ == "PCAM":
        return _pcam(opened)
    images = np.asarray(opened.data)
    if images.ndim == 4 and images.shape[1] == 3:  # SVHN and STL10 have the channels first
        images = images.transpose(0, 2, 3, 1)
    labels = np.asarray(getattr(opened, "targets", None) if hasattr(opened, "targets") else opened.labels)
    if type(opened).__name__ == "EMNIST":  # its files hold every image transposed
        images = images.transpose(0, 2, 1)
    return images, labels.astype(np.int64)


def _pcam(opened: Any) -> tuple[NDArray, NDArray]:
    """The HDF5 files whole: image by image, as torchvision reads them, takes hours."""
    h5py = import_module("h5py")  # not among this package's dependencies; torchvision has asked for it by now
    split = {"val": "valid"}.get(opened._split, opened._split)
    parts = []
    for key in ("x", "y"):
        with h5py.File(Path(opened.root) / "pcam" / f"camelyonpatch_level_2_split_{split}_{key}.h5", "r") as file:
            parts.append(file[key][()])
    return parts[0], parts[1].reshape(-1)


def _class_names(opened: Any) -> list[str] | None:
    names = getattr(opened, "classes", None)
    return [str(name) for name in names] if names else None


def _idx_names(split: int) -> tuple[str, str]:
    stem = "train" if split == TRAIN else "t10k"
    return f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz"


def _idx_folder(config: TorchvisionData) -> Path | None:
    """The folder that holds the four published files of MNIST or FashionMNIST side by side, if there is one."""
    names = [name for split in (TRAIN, TEST) for name in _idx_names(split)]
    for folder in _IDX_FOLDERS.get(config.name, []):
        if all(Path(config.root).expanduser().joinpath(folder, name).is_file() for name in names):
            return Path(config.root).expanduser() / folder
    return None


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """The bytes of a gzipped IDX file: two zeros, the type 8, the number of axes, their big-endian lengths, data."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a gzipped IDX file: {error}.") from error
    num_axes = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", num_axes, 4)) if num_axes else ()
    start = 4 + 4 * num_axes
    if not num_axes or len(content) != start + math.prod(shape):
        raise DataError(f"{path} is no IDX file of unsigned bytes, or not whole: {len(content)} bytes, axes {shape}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
