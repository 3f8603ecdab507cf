"""The contract: the schema of every table in one place.

Each family owns one file per table, `<table>/<trial>.parquet`, written whole. Whatever is needed to interpret a number
is a column of its row, so that a file that is copied away or read through a glob keeps its meaning.
"""

from __future__ import annotations

import pyarrow as pa

from analysis.hull_tables import HULL, HULL_PIXELS
from analysis.image_table import IMAGE_STATISTICS
from analysis.probe_tables import BASELINES, MEASUREMENTS, STABILITY, STITCHING, WARPS
from analysis.runs import RUNS
from analysis.schema import EPOCH, FLAG, FLOAT, INT, REPLICA, SCHEDULE, SHORT, TEXT, TRIAL, VERSION, Column, Table

SCHEMA_VERSION = 1
# The built-in losses: each is evaluated on every split at every epoch, so that curves run on across a swap.
LOSS_COLUMNS = ("cross_entropy", "label_smoothing", "focal", "squared_error", "absolute_error", "hinge")

_SPLIT = Column("split", TEXT, "train, val or test")


def _final(split: str, long: str) -> list[Column]:
    return [
        Column(f"{split}_accuracy", FLOAT, f"accuracy on the {long} split, against the labels trained on", "fraction"),
        Column(f"{split}_cross_entropy", FLOAT, f"mean cross-entropy on the {long} split", "nat"),
        Column(f"{split}_loss", FLOAT, f"mean of the last phase's loss on the {long} split", "the loss's own"),
    ]


_TABLES = (
    Table(
        "trials",
        "a family; written last, so that a row with status `done` means that all its tables are there",
        (
            VERSION,
            TRIAL,
            SCHEDULE,
            Column("base", TEXT, "id of the base recipe (everything but the schedule): b and 12 hexadecimal digits"),
            Column("control", TEXT, "id of the family with the same first phase and no swap; its own id for a control"),
            Column(
                "swapped",
                TEXT,
                "what the first swap exchanges: none, activation, loss, both, or what else a phase puts in force (with + between)",
            ),
            Column("num_swaps", SHORT, "number of swaps in the schedule"),
            Column("swap_epoch", INT, "epoch of the first swap; null for a control", "epochs"),
            Column("first_activation", TEXT, "activation of the first phase"),
            Column("first_loss", TEXT, "loss of the first phase"),
            Column("last_activation", TEXT, "activation of the last phase"),
            Column("last_loss", TEXT, "loss of the last phase"),
            Column("num_epochs", INT, "epochs of training in the whole schedule", "epochs"),
            Column(
                "status",
                TEXT,
                "done, failed, skipped because the family that it continues from failed, or pruned by the search while it trained",
            ),
            Column("num_replicas", SHORT, "replicas in the family"),
            Column("num_diverged", SHORT, "replicas whose loss or outputs stopped being finite"),
            Column("error_type", TEXT, "exception type of a failed family, else null"),
            Column("error_message", TEXT, "exception message of a failed family, or why it was skipped or pruned, else null"),
            Column("dataset", TEXT, "id of the data: d and 12 hexadecimal digits of a hash over all splits and labels"),
            Column("recipe", TEXT, "the full base recipe and probes as JSON"),
            Column("traceback", TEXT, "traceback of a failed family, else null", volatile=True),
            Column("started_from", TEXT, "training state continued from in this attempt, null from scratch", volatile=True),
            Column("epochs_trained", INT, "epochs trained in this attempt, per replica", "epochs", volatile=True),
            Column("train_s", pa.float64(), "wall time of the training steps in this attempt", "s", volatile=True),
            Column(
                "record_s",
                pa.float64(),
                "wall time of evaluation, probes and writing in this attempt",
                "s",
                volatile=True,
            ),
            Column("finished_at", pa.timestamp("ms", tz="UTC"), "when the row was written", volatile=True),
            Column("host", TEXT, "machine that ran the family", volatile=True),
            Column(
                "device",
                TEXT,
                "device and executor that ran the family, and how many replicas at a time where memory did not suffice for all",
                volatile=True,
            ),
            Column("provenance", TEXT, "versions, commit and hash of uncommitted changes as JSON", volatile=True),
        ),
    ),
    Table(
        "replicas",
        "a network at the end of its training",
        (
            VERSION,
            TRIAL,
            SCHEDULE,
            REPLICA,
            Column("seed", pa.int64(), "seed of the initial weights, the data order and the augmentation"),
            *_final("train", "training"),
            *_final("val", "validation"),
            *_final("test", "test"),
            Column("train_accuracy_clean", FLOAT, "training accuracy against the labels before label noise", "fraction"),
            Column(
                "train_cross_entropy_clean",
                FLOAT,
                "training cross-entropy against the labels before label noise",
                "nat",
            ),
            Column("gap_accuracy", FLOAT, "train minus test accuracy; train against the labels trained on", "fraction"),
            Column("gap_accuracy_clean", FLOAT, "train minus test accuracy; train against the clean labels", "fraction"),
            Column("gap_cross_entropy", FLOAT, "test minus train cross-entropy; train against the labels trained on", "nat"),
            Column(
                "gap_cross_entropy_clean",
                FLOAT,
                "test minus train cross-entropy; train against the clean labels",
                "nat",
            ),
            Column("diverged_at", INT, "epoch at whose end the loss or an output was not finite; null if never", "epochs"),
        ),
    ),
    Table(
        "epochs",
        "a replica on a split, at the end of an epoch (`epoch`) or right after a swap (`after_swap`)",
        (
            VERSION,
            TRIAL,
            REPLICA,
            EPOCH,
            Column(
                "moment",
                TEXT,
                "epoch: at the end of this epoch, before any swap; after_swap: same weights, new functions",
            ),
            _SPLIT,
            Column("accuracy", FLOAT, "accuracy against the labels trained on; null once diverged", "fraction"),
            Column("accuracy_clean", FLOAT, "accuracy against the labels before label noise", "fraction"),
            Column("loss_in_force", TEXT, "name of the loss in force"),
            Column("loss", FLOAT, "mean of the loss in force", "the loss's own"),
            *(Column(name, FLOAT, f"mean {name.replace('_', ' ')}, whichever loss is in force", "the loss's own") for name in LOSS_COLUMNS),
            Column("learning_rate", pa.float64(), "learning rate of the last step before this moment; 0 at epoch 0"),
        ),
    ),
    Table(
        "predictions",
        "a replica at the end of an epoch or right after a swap, on the train or test split",
        (
            VERSION,
            TRIAL,
            REPLICA,
            EPOCH,
            Column("moment", TEXT, "epoch or after_swap, as in `epochs`"),
            _SPLIT,
            Column(
                "predicted",
                pa.list_(SHORT),
                "predicted class of each sample of the split, in the order of `samples`; -1 once diverged. Evaluation mode",
            ),
        ),
    ),
    Table(
        "activations",
        "a probe sample (or a position of it) in a layer of a replica at a moment",
        (
            VERSION,
            TRIAL,
            REPLICA,
            Column("moment", TEXT, "init, before_swap, after_swap (same weights, new functions, 0 steps), epoch or end"),
            EPOCH,
            Column("layer", TEXT, "name of the layer; its output is recorded in evaluation mode"),
            Column("pooling", TEXT, "how a map became a row: mean (over positions), flatten, or positions (nhw x c)"),
            Column("shape", pa.list_(INT), "shape of the layer's output for one sample, before pooling"),
            Column("sample", INT, "id of the probe sample, as in `samples`"),
            Column("position", INT, "row-major position in the map with pooling `positions`, else 0"),
            Column("label", SHORT, "clean label of the sample"),
            Column("activation", pa.list_(FLOAT), "the features"),
        ),
    ),
    BASELINES,
    STITCHING,
    STABILITY,
    WARPS,
    HULL,
    HULL_PIXELS,
    MEASUREMENTS,
    RUNS,
    Table(
        "samples",
        "a sample of the data set",
        (
            VERSION,
            Column("dataset", TEXT, "id of the data, as in `trials`"),
            Column("sample", INT, "id of the sample within the data set"),
            _SPLIT,
            Column("label", SHORT, "clean label"),
            Column("label_trained", SHORT, "label trained on: differs from `label` where label noise struck"),
            Column("group", TEXT, "patient, slide or field; null where the data name none"),
            Column("probe", FLAG, "whether the sample is in the probe set of the latest run"),
        ),
    ),
    IMAGE_STATISTICS,
)
TABLES: dict[str, Table] = {table.name: table for table in _TABLES}


def schema_markdown() -> str:
    """SCHEMA.md: every table, column, type, unit and meaning."""
    lines = [
        "# Tables",
        "",
        "One file per family and table, `<table>/<trial>.parquet` (`samples`, `image_statistics`, `warps`, `hull_pixels`: per data set;",
        "`runs`: per run).",
        "Columns marked * are timings and provenance; all others are bit for bit the same in every run.",
        "",
    ]
    for table in TABLES.values():
        lines += [f"## {table.name}", "", f"A row is {table.row}.", ""]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        for c in table.columns:
            kind = str(c.type).replace("element: ", "")
            lines.append(f"| {c.name}{'*' if c.volatile else ''} | {kind} | {c.unit} | {c.meaning} |")
        lines.append("")
    return "\n".join(lines)
