"""The table `image_statistics`: what each image of a data set is like, and some of the images themselves, small."""

from __future__ import annotations

import pyarrow as pa

from analysis.measures.image_statistics import STATISTICS
from analysis.schema import INT, TEXT, VERSION, Column, Table

MAX_THUMBNAILS, THUMBNAIL_PIXELS = 2000, 64

IMAGE_STATISTICS = Table(
    "image_statistics",
    "the image of a sample, before normalisation and augmentation; one file per data set",
    (
        VERSION,
        Column("dataset", TEXT, "id of the data, as in `trials`"),
        Column("sample", INT, "id of the sample, as in `samples`"),
        *(
            Column(name, pa.float64(), one.meaning + ("; null where scikit-image was absent" if name == "segment_count" else ""), one.unit)
            for name, one in STATISTICS.items()
        ),
        Column(
            "thumbnail",
            pa.binary(),
            f"the image as PNG, at most {THUMBNAIL_PIXELS} pixels wide and high; of at most {MAX_THUMBNAILS} samples, else null",
        ),
    ),
)
