"""The rows of the table `image_statistics`: measured here because the images are here, read by the analysis."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from analysis import tables
from analysis.image_table import MAX_THUMBNAILS, THUMBNAIL_PIXELS
from analysis.measures.image_statistics import STATISTICS, has_segments, image_statistics
from analysis.storage import Store
from trainables.data import Dataset, load, source_images
from trainables.recipe import Data


def write_image_statistics(store: Store, configs: Sequence[Data], num_processes: int = 1, show_progress: bool = False) -> list[str]:
    """Measure the images of each data set that is not in the table yet. Returns remarks for the user.

    Training subsets and levels of label noise of the same data are data sets of their own with the same images: these are measured once.
    """
    done = set(tables.names(store, "image_statistics"))
    if has_segments():  # what was written without them is written again
        segments = tables.read(store, "image_statistics", ["dataset", "segment_count"]).groupby("dataset")["segment_count"].count()
        done &= set(segments.index[segments > 0])
    names = [name for name in STATISTICS if name != "segment_count" or has_segments()]
    missing = [(load(config), config) for config in configs]
    missing = sorted((one for one in missing if one[0].name not in done), key=lambda one: -len(_ids(one[0])))
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
