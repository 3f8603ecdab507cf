"""The table `hull_pixels`: images relative to the hull of all training images. Of the data alone, so it is made once and kept."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd

from analysis import tables
from analysis.hull_tables import NULL, SAMPLE
from analysis.measures.extrapolation import Located, gaussian_null, locate
from analysis.storage import Store
from trainables.data import Dataset
from trainables.options import Hull, Probes
from trainables.probes.activations import probe_set
from trainables.schedule import digest

TABLE = "hull_pixels"
NUMBERS = ("distance", "lower_bound", "relative_gap", "nearest_distance")


def null_seed(data: Dataset) -> int:
    """Seed of the null's draws: the same for all networks on the same data."""
    return int(data.hash[:12], 16)


def place_columns(located: Located, ids: np.ndarray, labels: np.ndarray, is_sample: bool) -> dict[str, list[Any]]:
    """The columns `hull_tables.PLACE` of queries relative to points with these ids and labels `[point]`."""
    num_queries, num_points = located.weights.shape
    columns: dict[str, list[Any]] = {name: getattr(located, name).tolist() for name in NUMBERS}
    columns |= {
        "num_points": [num_points] * num_queries,
        "num_features": [located.projection.shape[1]] * num_queries,
        "status": located.status.tolist(),
        "median_distance": [located.median_distance] * num_queries,
        "support_size": np.diff(located.weights.indptr).tolist(),
    }
    columns |= {name: [None] * num_queries for name in ("support", "support_labels", "support_weights")}
    for row in range(num_queries if is_sample else 0):
        mine = slice(*located.weights.indptr[row : row + 2])
        order = np.argsort(-located.weights.data[mine], kind="stable")
        points = located.weights.indices[mine][order]
        columns["support"][row], columns["support_labels"][row] = ids[points], labels[points]
        columns["support_weights"][row] = located.weights.data[mine][order].astype(np.float32)
    return columns


def pixel_hull(store: Store, data: Dataset, probes: Probes, progress: bool = False) -> pd.DataFrame:
    """The rows of `hull_pixels` for these data and probes: read where somebody has made them, else made and written whole.

    Two that start at once both make the same file; the later one replaces it.
    """
    assert probes.hull is not None
    name = f"{data.name}_{digest([probes.num_samples, probes.hull.null_samples, probes.hull.pixel_queries])}"
    if name not in tables.names(store, TABLE):
        tables.write(store, TABLE, name, _rows(data, probes, probes.hull, progress))
    return tables.read(store, TABLE, only=[name])


def _rows(data: Dataset, probes: Probes, config: Hull, progress: bool) -> dict[str, Any]:
    began, probed = time.process_time(), probe_set(data, probes).numpy()
    asked = probed if config.pixel_queries == "probe" else np.arange(len(data.test))
    points, images = data.train.images.flatten(1).numpy(), data.test.images.flatten(1).numpy()[asked]
    found = locate(points, images, progress=progress)
    null = locate(*gaussian_null(points, config.null_samples, null_seed(data)), progress=progress)
    ids, labels = data.train.ids.numpy(), data.train.labels.numpy()
    parts = [place_columns(found, ids, labels, True), place_columns(null, ids, labels, False)]
    num, num_null, is_probed = len(asked), config.null_samples, np.isin(asked, probed)
    nothing = [None] * num_null

    def pictures(values: np.ndarray) -> list[Any]:
        return [row if here else None for row, here in zip(values.astype(np.float32), is_probed, strict=True)] + nothing

    return {
        "dataset": [data.name] * (num + num_null),
        "kind": [SAMPLE] * num + [NULL] * num_null,
        "sample": data.test.ids.numpy()[asked].tolist() + nothing,
        "label": data.test.clean_labels.numpy()[asked].tolist() + nothing,
        "probe": is_probed.tolist() + [False] * num_null,
        **{name: parts[0][name] + parts[1][name] for name in parts[0]},
        "shape": [list(data.image_shape)] * (num + num_null),
        "image": pictures(images),
        "projection": pictures(found.projection),
        "seconds": [time.process_time() - began] * (num + num_null),
    }
