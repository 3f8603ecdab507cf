"""The rows of the table `image_statistics`: measured here because the images are here, read by the analysis."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from analysis import tables
from analysis.image_table import MAX_THUMBNAILS, THUMBNAIL_PIXELS
from analysis.measures.image_statistics import CHUNK_PIXELS, STATISTICS, has_segments, image_statistics
from analysis.storage import Store
from trainables.data import Dataset, load, source_images
from trainables.recipe import Data

TIMED_PIXELS = 2**15  # of the images that are measured to foresee what all will take


def write_image_statistics(store: Store, configs: Sequence[Data], num_processes: int = 1, show_progress: bool = False) -> list[str]:
    """Measure the images of each data set that is not in the table yet. Returns remarks for the user.

    Training subsets and levels of label noise of the same data are data sets of their own with the same images: these are measured once.
    """
    names, missing = _names(), _missing(store, configs)
    measured: dict[str, tuple[np.ndarray, dict[str, np.ndarray], list[bytes | None]]] = {}  # by pool; its largest data set comes first
    for data, config in missing:
        ids = _ids(data)
        if data.pool_hash not in measured:
            images = source_images(config)[ids]
            measured[data.pool_hash] = ids, image_statistics(images, names, num_processes, show_progress), thumbnails(images)
        all_ids, values, pictures = measured[data.pool_hash]
        at = np.searchsorted(all_ids, ids)
        columns = {name: values[name][at] if name in values else [None] * len(ids) for name in STATISTICS}
        rows = {"dataset": [data.name] * len(ids), "sample": ids, **columns, "thumbnail": [pictures[index] for index in at]}
        tables.write(store, "image_statistics", data.name, rows)
    without = missing and not has_segments()
    return ["images are measured without segment counts: these need pip install 'karenina-sweep[images]'"] if without else []


def seconds_left(store: Store, configs: Sequence[Data], num_processes: int = 1) -> float:
    """Seconds that measuring the missing images will take, by the CPU time of some of them."""
    seconds, measured = 0.0, set[str]()
    for data, _ in _missing(store, configs):
        if data.pool_hash in measured:
            continue
        measured.add(data.pool_hash)
        num_pixels = math.prod(data.image_shape[1:])
        images = data.train.images[: max(1, TIMED_PIXELS // num_pixels)].cpu().numpy()
        images = (images - images.min()) / max(float(np.ptp(images)), 1e-9)  # normalised: as the probes have them
        image_statistics(images[:1], _names())  # imports, and what is compiled once
        began = time.process_time()
        image_statistics(images, _names())
        cpu_s = (time.process_time() - began) / len(images) * len(_ids(data))
        seconds += cpu_s / min(num_processes, math.ceil(len(_ids(data)) / max(1, CHUNK_PIXELS // num_pixels)))
    return seconds


def _missing(store: Store, configs: Sequence[Data]) -> list[tuple[Dataset, Data]]:
    """The data sets that are not in the table, the largest first."""
    done = set(tables.names(store, "image_statistics"))
    if has_segments():  # what was written without them is written again
        segments = tables.read(store, "image_statistics", ["dataset", "segment_count"]).groupby("dataset")["segment_count"].count()
        done &= set(segments.index[segments > 0])
    loaded = [(load(config), config) for config in configs]
    return sorted((one for one in loaded if one[0].name not in done), key=lambda one: -len(_ids(one[0])))


def _names() -> list[str]:
    return [name for name in STATISTICS if name != "segment_count" or has_segments()]


def _ids(data: Dataset) -> np.ndarray:
    return np.sort(np.concatenate([split.ids.numpy() for split in (data.train, data.val, data.test)]))


def thumbnails(images: np.ndarray) -> list[bytes | None]:
    """PNGs `[sample]` of images uint8 `[sample, channel, height, width]`, of all or of so many that are drawn as are kept."""
    kept = set(np.random.default_rng(0).permutation(len(images))[:MAX_THUMBNAILS].tolist())
    return [_png(image) if index in kept else None for index, image in enumerate(images)]


def _png(image: np.ndarray) -> bytes:
    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()
