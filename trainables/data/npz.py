"""NumPy archives: MedMNIST's layout, with its splits, or one array of images with labels and, if known, groups."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.samples import SPLITS, DataError, Samples, as_images, as_labels, check_classes, nearest
from trainables.recipe import NpzData

_URL = "https://zenodo.org/records/10519652/files/{name}.npz?download=1"
_TIMEOUT_S = 60.0
# MD5 of the 28x28 files of MedMNIST 3.0, from medmnist/info.py.
_MEDMNIST = {
    "bloodmnist": "7053d0359d879ad8a5505303e11de1dc",
    "breastmnist": "750601b1f35ba3300ea97c75c52ff8f6",
    "dermamnist": "0744692d530f8e62ec473284d019b0c7",
    "octmnist": "c68d92d5b585d8d81f7112f81e2d0842",
    "organamnist": "68e3f8846a6bd62f0c9bf841c0d9eacc",
    "organcmnist": "b9ceb9546e10131b32923c5bbeaea2b1",
    "organsmnist": "9ab87b696fb54e2a387ebe992d6ed5f1",
    "pathmnist": "a8b06965200029087d5bd730944a56c1",
    "pneumoniamnist": "28209eda62fecd6e6a2d98b1501bb15f",
    "retinamnist": "bd4c0672f1bba3e3a89f0e4e876791e4",
    "tissuemnist": "ebe78ee8b05294063de985d821c1c34b",
}


def read(config: NpzData) -> Samples:
    """Images [sample, 1 or 3, height, width], with the archive's splits (MedMNIST's layout) or groups (the other)."""
    if config.name.removesuffix(".npz") == "chestmnist":
        raise DataError("data.name chestmnist: its images have several labels each; a single one is needed.")
    path = _find(config)
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            samples = from_arrays(archive, str(path))
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a .npz archive of plain arrays: {error}.") from error
    published = _MEDMNIST.get(path.stem)
    if published and (found := _md5(path)) != published:
        samples.notes.append(f"{path.name}: MD5 {found} differs from the published {published}; the file is used as it is.")
    return samples


def from_arrays(archive: Mapping[str, NDArray], where: str) -> Samples:
    """Samples from `{train,val,test}_{images,labels}`, or from `images`, `labels` and, if known, `groups` and `class_names`.

    Images are uint8 `[sample, height, width]` or `[sample, height, width, 3]`, labels integers `[sample]` from 0. `where` is what messages
    call the arrays. Raises DataError.
    """
    has_splits = any(f"{split}_images" in archive for split in SPLITS)
    return _from_medmnist(archive, where) if has_splits else _from_plain(archive, where)


def _find(config: NpzData) -> Path:
    """The file a name stands for, downloaded where that is allowed and the name is one of MedMNIST's."""
    root, name, stem = Path(config.root).expanduser(), config.name, Path(config.name).stem
    candidates = [Path(name), root / name, root / f"{name}.npz", root / stem / f"{stem}.npz"]
    for path in candidates:
        if path.is_file():
            return path
    if name in _MEDMNIST:
        return _download(name, root, config.download)
    present = {path.stem for path in [*root.glob("*.npz"), *root.glob("*/*.npz")]}
    raise DataError(
        f"data.name {name!r} is no MedMNIST name ({', '.join(_MEDMNIST)}) and no .npz file; looked for "
        f"{', '.join(map(str, candidates))}.{nearest(name, [*_MEDMNIST, *present])}"
    )


def _download(name: str, root: Path, allowed: bool) -> Path:
    """root/name.npz, whole and with the published MD5, or nothing."""
    target, url = root / f"{name}.npz", _URL.format(name=name)
    problem = "data.download is false"
    if allowed:
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as folder:
                part = Path(folder, target.name)
                with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply, part.open("wb") as file:
                    while block := reply.read(1 << 20):
                        file.write(block)
                found = _md5(part)
                if found == _MEDMNIST[name]:
                    os.replace(part, target)
                    return target
            problem = f"the download had MD5 {found} instead of the published {_MEDMNIST[name]}"
        except (OSError, http.client.HTTPException) as error:
            problem = f"the download failed ({error})"
    raise DataError(f"data.name {name}: {target} is absent and {problem}. Download {url} and save it as {target}.")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _array(archive: Mapping[str, NDArray], path: str, *keys: str) -> NDArray:
    """The first of `keys` that the archive has."""
    for key in keys:
        if key in archive:
            return archive[key]
    hint = nearest(keys[0], archive)
    raise DataError(f"{path}: no array {' or '.join(keys)}; it has {', '.join(archive) or 'none'}.{hint}")


def _from_medmnist(archive: Mapping[str, NDArray], path: str) -> Samples:
    images, labels, splits = [], [], []
    for number, split in enumerate(SPLITS):
        images.append(as_images(_array(archive, path, f"{split}_images"), f"{path}, {split}_images"))
        where = f"{path}, {split}_labels"
        labels.append(as_labels(_array(archive, path, f"{split}_labels"), len(images[-1]), where))
        splits.append(np.full(len(images[-1]), number, np.int8))
        if images[-1].shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"{path}, {split}_images: one image is {images[-1].shape[1:]} as [channel, height, width], "
                f"but in train_images {images[0].shape[1:]}."
            )
    together = np.concatenate(labels)
    names = check_classes(together, None, f"{path}, labels")
    return Samples(np.concatenate(images), together, names, np.concatenate(splits))


def _from_plain(archive: Mapping[str, NDArray], path: str) -> Samples:
    images = as_images(_array(archive, path, "images"), f"{path}, images")
    labels = as_labels(_array(archive, path, "labels", "label"), len(images), f"{path}, labels")
    names = [str(name) for name in archive["class_names"].reshape(-1)] if "class_names" in archive else None
    groups = next((archive[key] for key in ("groups", "image_id") if key in archive), None)
    if groups is not None and groups.shape != labels.shape:
        raise DataError(f"{path}, groups: must be [{len(labels)}], one per image, but the shape is {groups.shape}.")
    return Samples(
        images,
        labels,
        check_classes(labels, names, f"{path}, labels"),
        groups=None if groups is None else groups.astype(str),
    )
