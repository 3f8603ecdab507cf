"""The tables of probes that are options: `baselines`, `stitching`, `stability` and its `warps`, and users' own, `measurements`."""

from __future__ import annotations

import pyarrow as pa

from analysis.schema import EPOCH, FLAG, FLOAT, INT, REPLICA, SCHEDULE, SHORT, TEXT, TRIAL, VERSION, Column, Table

# Each baseline: what it is of, and its unit. By the option of `probes.baselines` that records it.
BASELINES_OF: dict[str, dict[str, str]] = {
    "calibration": {
        "ece": "expected calibration error on the test split, 15 bins of equal width (fraction)",
        "confidence": "mean largest probability on the test split (fraction)",
        "entropy": "mean entropy of the predicted distribution on the test split (nat)",
    },
    "disagreement": {
        "disagreement": "share of test samples that another replica of the family predicts differently, mean over the others (fraction)",
    },
    "margins": {
        "margin_p10": "10th percentile of the output margin on the training split, against the labels trained on (logit)",
        "margin_median": "its median (logit)",
        "margin_p10_normalised": "margin_p10 divided by spectral_product",
        "margin_median_normalised": "margin_median divided by spectral_product",
    },
    "norms": {
        "spectral_product": "product over layers of the largest singular value",
        "spectral_sum": "sum over layers of the largest singular value",
        "frobenius_product": "product over layers of the Frobenius norm",
        "parameter_norm": "Euclidean norm of all parameters",
        "path_norm": "square root of the sum over paths of the product of squared weights; absent where layers are not piecewise linear",
    },
    "distance": {
        "distance_from_init": "Euclidean distance of all parameters from their initial values",
    },
    "sharpness": {
        "sharpness": "1 over the relative Gaussian perturbation of parameters that costs 0.1 of train accuracy; NaN if none up to 2 does",
    },
    "participation_ratio": {
        "participation_ratio": "effective number of dimensions of a recorded layer on the probe set, with its pooling",
    },
    "separability": {
        "cdnv": "class-distance normalised variance of the input to the last layer, on the fixed training subset",
        "davies_bouldin": "Davies-Bouldin index of the same",
    },
}

BASELINES = Table(
    "baselines",
    "a baseline of a replica at the end of its training",
    (
        VERSION,
        TRIAL,
        SCHEDULE,
        REPLICA,
        Column(
            "baseline",
            TEXT,
            "; ".join(f"{name}: {meaning}" for group in BASELINES_OF.values() for name, meaning in group.items()),
        ),
        Column("layer", TEXT, "name of the recorded layer for participation_ratio; null where the number is of the whole network"),
        Column("value", pa.float64(), "the number; NaN for a diverged replica and where the baseline has no value"),
    ),
)

MEASUREMENTS = Table(
    "measurements",
    "what a user's own probe measured of a replica at a moment",
    (
        VERSION,
        TRIAL,
        SCHEDULE,
        REPLICA,
        Column("moment", TEXT, "init, before_swap, after_swap, epoch or end, as in `activations`"),
        EPOCH,
        Column("probe", TEXT, "the probe, as named in probes.own"),
        Column("quantity", TEXT, "what it measured, by the probe's own name"),
        Column("value", pa.float64(), "the number; NaN for a replica that had diverged"),
    ),
)

STITCHING = Table(
    "stitching",
    "a network made of the lower part of one replica and the upper part of another, with a trained affine map between, at the end",
    (
        VERSION,
        TRIAL,
        SCHEDULE,
        Column("replica_lower", SHORT, "replica whose part up to and including the layer is used, frozen"),
        Column("replica_upper", SHORT, "replica whose part behind the layer is used, frozen"),
        Column("layer", TEXT, "name of the layer after which both are cut"),
        Column("accuracy", FLOAT, "test accuracy of the stitched network", "fraction"),
        Column("cross_entropy", FLOAT, "its mean test cross-entropy", "nat"),
        Column("penalty_accuracy", FLOAT, "test accuracy of replica_upper minus the stitched network's; larger is worse", "fraction"),
        Column("penalty_cross_entropy", FLOAT, "test cross-entropy of the stitched network minus replica_upper's; larger is worse", "nat"),
        Column("steps", INT, "steps of training of the affine map, from its least-squares fit", "steps"),
        Column("seed", pa.int64(), "seed of the training batches and of the choice of pairs"),
    ),
)

# As in `analysis.measures.stability`, which needs torch; a test compares them.
ESTIMATORS = {
    "mean": "means over images and over pairs of different images",
    "median_of_norms": "medians over images and over pairs of different images of squared norms",
    "official": "the paper's code: medians of each output's square, summed; the lower middle of all ordered pairs, plus 1e-10",
}
_WARP = (
    Column("diffeo_set", TEXT, "id of the warps and the noise: w and 12 hexadecimal digits; equal ids, equal fields and noise"),
    Column("cut", SHORT, "cut-off c of the fields"),
    Column("temperature", pa.float64(), "temperature T of the fields"),
    Column("displacement_px", pa.float64(), "nominal displacement delta = n / 2 sqrt(pi T ln c)", "pixel"),
)


def _estimates(name: str, meaning: str) -> tuple[Column, ...]:
    return tuple(Column(f"{name}_{estimator}", pa.float64(), f"{meaning}; {how}") for estimator, how in ESTIMATORS.items())


STABILITY = Table(
    "stability",
    "a layer of a replica at a moment, under one law of warps",
    (
        VERSION,
        TRIAL,
        SCHEDULE,
        REPLICA,
        Column("moment", TEXT, "init, before_swap, after_swap (same weights, new functions, 0 steps), epoch or end"),
        EPOCH,
        Column("layer", TEXT, "name of the layer, as in `activations`; `output` where no recorded layer gives the logits"),
        Column("is_output", FLAG, "whether the layer's output is the network's: its logits"),
        Column("pooling", TEXT, "what of a map is compared: flatten (all of it) or mean (over positions)"),
        *_WARP,
        Column("num_images", INT, "probe images", "images"),
        Column("num_folded", INT, "fields with a Jacobian determinant that is not positive everywhere", "fields"),
        *_estimates("diffeo", "D: change under warps over the normaliser"),
        *_estimates("noise", "G: change under noise as large over the normaliser"),
        *_estimates("relative", "R = D / G"),
        *_estimates("normaliser", "squared distance of pairs of images"),
        Column("diffeo_changes", pa.list_(FLOAT), "squared norm of the change under its warp, of each probe image in the order of `warps`"),
        Column("noise_changes", pa.list_(FLOAT), "the same under noise"),
        Column(
            "diffeo_squares",
            pa.list_(FLOAT),
            "of the output: squared change of each logit, row-major [image, class]; else null",
        ),
        Column("noise_squares", pa.list_(FLOAT), "the same under noise"),
    ),
)

WARPS = Table(
    "warps",
    "a probe image under one law of warps: the same for every network of the sweep",
    (
        VERSION,
        *_WARP,
        Column("sample", INT, "id of the image, as in `samples`"),
        Column("moved", FLOAT, "norm of what the warp changes, and of the noise", "deviations of a pixel"),
        Column(
            "min_jacobian",
            FLOAT,
            "least determinant of 1 - grad tau on a grid of 96 x 96; the field folds where it is not positive",
        ),
        Column("shape", pa.list_(INT), "channels, height, width"),
        Column("image", pa.list_(FLOAT), "normalised pixels, of the first images; else null", "deviations of a pixel"),
        Column("warped", pa.list_(FLOAT), "the same image warped", "deviations of a pixel"),
        Column("noisy", pa.list_(FLOAT), "the same image with noise", "deviations of a pixel"),
    ),
)
