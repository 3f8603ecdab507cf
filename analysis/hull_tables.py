"""The tables of the probe `hull`: test samples and a Gaussian null relative to the hull of training samples, in pixels and in features."""

from __future__ import annotations

import pyarrow as pa

from analysis.schema import EPOCH, FLAG, FLOAT, INT, REPLICA, SCHEDULE, SHORT, TEXT, TRIAL, VERSION, Column, Table

PIXELS = "pixels"  # the layer that is the normalised image itself
SAMPLE, NULL = "sample", "null"  # kinds of queries
_EXACT = pa.float64()

_KIND = Column("kind", TEXT, f"{SAMPLE}: a test sample; {NULL}: a draw from a Gaussian with the mean and covariance of the training points")
_SAMPLE = Column("sample", INT, "id of the test sample, as in `samples`; null for a draw")
_LABEL = Column("label", SHORT, "clean label of the sample; null for a draw")

# Where a query lies, the same in both tables.
PLACE = (
    Column("num_points", INT, "training samples whose hull it is; for a draw, points drawn from the same Gaussian", "samples"),
    Column("num_features", INT, "features of a point"),
    Column(
        "status",
        TEXT,
        "outside: certified by a separating plane; inside: the distance is at most 1e-6 of the largest distance of a point from the mean "
        "of all; else undecided",
    ),
    Column("distance", _EXACT, "distance to the hull; the true one is no larger", "the features' own"),
    Column("lower_bound", _EXACT, "certified: the true distance is no smaller", "the features' own"),
    Column("relative_gap", _EXACT, "(distance - lower_bound) / distance; 0 where the distance is 0"),
    Column("nearest_distance", _EXACT, "distance to the nearest of the points", "the features' own"),
    Column("median_distance", _EXACT, "median distance between two points, over all pairs of 500 of them", "the features' own"),
    Column("support_size", INT, "points that carry the projection", "samples"),
    Column("support", pa.list_(INT), "ids of the training samples that carry the projection, by falling weight; null for a draw"),
    Column("support_labels", pa.list_(SHORT), "their labels, as trained on"),
    Column("support_weights", pa.list_(FLOAT), "their weights, which sum to 1"),
)

HULL = Table(
    "hull",
    "a probe sample, or a draw of the null, relative to the hull of training samples in a layer of a replica at a moment; none for "
    "replicas that diverged and in layers whose features are not finite",
    (
        VERSION,
        TRIAL,
        SCHEDULE,
        REPLICA,
        Column("moment", TEXT, "before_swap or end"),
        EPOCH,
        Column("layer", TEXT, f"name of the layer; {PIXELS} is the normalised image itself, the same for all networks"),
        Column("pooling", TEXT, "how a map became a point: flatten, as the rest of the network takes it, or mean over positions"),
        _KIND,
        _SAMPLE,
        _LABEL,
        *PLACE,
        Column("predicted", SHORT, "class that the network predicts for the sample"),
        Column("predicted_projection", SHORT, "class that the rest of the network predicts for its projection; null as `reason` says"),
        Column(
            "crossings",
            pa.list_(FLOAT),
            "where the predicted class changes on the way from the sample (0) to its projection (1), looked for in 64 steps; null as "
            "`reason` says",
            "fraction",
        ),
        Column("reason", TEXT, "why the projection has no prediction, else null"),
        Column("num_parameters", pa.int64(), "parameters of the network"),
        Column("train_size", INT, "training samples of the network, of which num_points span the hull", "samples"),
    ),
)

HULL_PIXELS = Table(
    "hull_pixels",
    "a test sample, or a draw of the null, relative to the hull of all training images of the data set",
    (
        VERSION,
        Column("dataset", TEXT, "id of the data, as in `trials`"),
        _KIND,
        _SAMPLE,
        _LABEL,
        Column("probe", FLAG, "whether the sample is in the probe set"),
        *PLACE,
        Column("shape", pa.list_(INT), "channels, height and width of an image"),
        Column("image", pa.list_(FLOAT), "the normalised image of a probe sample, in the order of `shape`, else null"),
        Column("projection", pa.list_(FLOAT), "its projection, else null"),
        Column("seconds", pa.float64(), "CPU time of all projections of this data set", "s", volatile=True),
    ),
)
