"""A folder of images, one folder per class: path/class/image, or path/{train,val,test}/class/image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from trainables.data.samples import SPLITS, DataError, Samples, check_classes, nearest
from trainables.recipe import FolderData

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_GRAY = {"1", "L", "LA"}
_COLOUR = {"P", "RGB", "RGBA", "CMYK", "YCbCr"}


def read(config: FolderData) -> Samples:
    """Images [sample, channel, image_size, image_size], by split, class and file name; gray where all files are."""
    path = Path(config.path).expanduser()
    if not path.is_dir():
        near = nearest(path.name, (other.name for other in _folders(path.parent))) if path.parent.is_dir() else ""
        raise DataError(
            f"data.path {config.path} is no folder.{near} Put the images into {path}/<class>/ or {path}/{{train,val,test}}/<class>/."
        )
    inside = [folder.name for folder in _folders(path)]
    has_splits = "train" in inside
    if has_splits and (other := sorted(set(inside) - set(SPLITS))):
        raise DataError(
            f"data.path {config.path}: besides train there is {other[0]!r}; allowed are {', '.join(SPLITS)}.{nearest(other[0], SPLITS)}"
        )
    roots = {split: path / split for split in SPLITS if split in inside} if has_splits else {"train": path}
    class_names = sorted({folder.name for root in roots.values() for folder in _folders(root)})
    if len(class_names) < 2:
        raise DataError(
            f"data.path {config.path}: {len(class_names)} class folder(s) found "
            f"({', '.join(class_names) or 'none'}); at least 2 are needed."
        )
    files = [
        (file, SPLITS.index(split), label)
        for split, root in roots.items()
        for label, name in enumerate(class_names)
        for file in sorted((root / name).glob("*"))
        if file.suffix.lower() in _SUFFIXES
    ]
    if not files:
        raise DataError(f"data.path {config.path}: no images; file names may end in {', '.join(_SUFFIXES)}.")
    labels = np.array([label for _, _, label in files], np.int64)
    check_classes(labels, class_names, f"data.path {config.path} ({', '.join(class_names)})")
    splits = np.array([split for _, split, _ in files], np.int8) if has_splits else None
    return Samples(_images([file for file, _, _ in files], config.image_size), labels, class_names, splits)


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _images(files: list[Path], size: int) -> NDArray[np.uint8]:
    """[sample, 1 or 3, size, size]"""
    colour = np.empty((len(files), size, size, 3), np.uint8)
    is_gray = True
    for number, file in enumerate(files):
        try:
            with Image.open(file) as image:
                if image.mode not in _GRAY | _COLOUR:
                    raise DataError(f"{file}: pixels are of PIL's mode {image.mode}; 8-bit gray or colour is needed.")
                is_gray = is_gray and image.mode in _GRAY
                colour[number] = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{file} cannot be read as an image: {error}.") from error
    return np.ascontiguousarray(colour.transpose(0, 3, 1, 2)[:, : 1 if is_gray else 3])
