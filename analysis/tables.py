"""The contract: every table's schema in one place, the one writer, and the readers.

Each family owns one file per table, `<table>/<trial>.parquet`, written whole. Whatever is needed to interpret a number
is a column of its row, so that a file that is copied away or read through a glob keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from analysis.hull_tables import HULL, HULL_PIXELS
from analysis.image_table import IMAGE_STATISTICS
from analysis.probe_tables import BASELINES, MEASUREMENTS, STABILITY, STITCHING, WARPS
from analysis.reading import Unreadable, parquet, reading
from analysis.runs import RUNS
from analysis.schema import FLAG, FLOAT, INT, REPLICA, SCHEDULE, SHORT, TEXT, TRIAL, VERSION, Column, Table
from analysis.storage import Store

SCHEMA_VERSION = 1
# The built-in losses: each is evaluated on every split at every epoch, so that curves run on across a swap.
LOSS_COLUMNS = ("cross_entropy", "label_smoothing", "focal", "squared_error", "absolute_error", "hinge")
MAX_ROW_GROUP_BYTES = 16 * 2**20
_FILES_AT_ONCE = 256  # a dataset keeps about 80 kB of metadata for each of its files until it is let go
_FORMAT = pads.ParquetFileFormat(default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True))

_EPOCH = Column("epoch", INT, "completed epochs; 0 is before any training", "epochs")
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
            _EPOCH,
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
            _EPOCH,
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
            _EPOCH,
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


def write(store: Store, table: str, name: str, columns: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
    """Write one owner's file of a table, whole.

    `columns` maps each column but `schema_version` to its values; a sequence of such mappings becomes one row group
    each. Raises KeyError where a column is missing or unknown.
    """
    spec = TABLES[table]
    groups = [columns] if isinstance(columns, dict) else columns
    # A list column is addressed by its elements.
    leaves = {f"{c.name}.list.element": c.type.value_type for c in spec.columns if pa.types.is_list(c.type)}
    leaves |= {c.name: c.type for c in spec.columns if not pa.types.is_list(c.type)}
    dictionary = [name for name, kind in leaves.items() if kind in (TEXT, SHORT, INT, FLAG)]
    byte_stream_split = [name for name, kind in leaves.items() if pa.types.is_floating(kind)]

    def fill(sink: Any) -> None:
        with pq.ParquetWriter(
            sink,
            spec.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=dictionary,
            column_encoding=dict.fromkeys(byte_stream_split, "BYTE_STREAM_SPLIT"),
            write_page_checksum=True,
        ) as writer:
            for group in groups:
                rows = _arrow(spec, group)
                writer.write_table(rows, row_group_size=max(1, rows.num_rows))

    store.write_with(f"{table}/{name}.parquet", fill)


def _arrow(spec: Table, columns: dict[str, Any]) -> pa.Table:
    wanted = {c.name for c in spec.columns} - {"schema_version"}
    if wanted != set(columns):
        raise KeyError(f"{spec.name}: missing {sorted(wanted - set(columns))}, unknown {sorted(set(columns) - wanted)}")
    num_rows = max(len(v) for v in columns.values())
    filled = {"schema_version": np.full(num_rows, SCHEMA_VERSION, np.int16), **columns}
    arrays = []
    for column in spec.columns:
        value = filled[column.name]
        if isinstance(value, pa.Array):
            arrays.append(value.cast(column.type))
        else:
            arrays.append(pa.array(value, type=column.type))
    return pa.Table.from_arrays(arrays, schema=spec.schema)


def list_array(values: np.ndarray) -> pa.Array:
    """A matrix `[row, feature]` as an Arrow list column, without a copy through Python objects."""
    num_rows, width = values.shape
    offsets = pa.array(np.arange(num_rows + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).reshape(-1)))


def names(store: Store, table: str) -> list[str]:
    """Ids of the owners that have a file in a table."""
    return [name.removesuffix(".parquet") for name in store.names(table, ".parquet")]


def read(
    store: Store,
    table: str,
    columns: Sequence[str] | None = None,
    only: Iterable[str] | None = None,
    filter: Any = None,
) -> pd.DataFrame:
    """A table as a DataFrame: all owners or those in `only`, the named columns, rows that pass a `pyarrow` filter.

    An absent table reads as no rows. Raises Unreadable where a file is torn or was written under another schema.
    """
    chosen = names(store, table) if only is None else list(only)
    paths = [store.path(f"{table}/{name}.parquet") for name in chosen]
    schema = TABLES[table].schema
    wanted = list(columns) if columns is not None else schema.names
    version = [] if "schema_version" in wanted else ["schema_version"]
    parts = [schema.empty_table().select([*wanted, *version])]
    for first in range(0, len(paths), _FILES_AT_ONCE):
        here = paths[first : first + _FILES_AT_ONCE]
        try:
            dataset = pads.dataset(here, filesystem=store.filesystem, format=_FORMAT, schema=schema)
        except FileNotFoundError as absent:
            with reading(str(absent)):
                raise
        for fragment in dataset.get_fragments():  # a dataset would fill in or leave out what differs, without a word
            with reading(fragment.path):
                check_schema(fragment.physical_schema, TABLES[table])
        with reading(f"{store.root}/{table}"):
            parts.append(dataset.to_table(columns=[*wanted, *version], filter=filter))
    found = pa.concat_tables(parts)
    versions = set(found["schema_version"].unique().to_pylist())
    if versions - {SCHEMA_VERSION}:
        found_versions = ", ".join(sorted(map(str, versions)))
        raise ValueError(f"{store.root}/{table}: schema version {found_versions}, this program reads {SCHEMA_VERSION}")
    return found.select(wanted).to_pandas()


def check_schema(found: pa.Schema, table: Table) -> None:
    """Raises Unreadable for a file of another schema than that of the table."""
    if not found.equals(table.schema):
        raise Unreadable(f"written under another schema than version {SCHEMA_VERSION} of {table.name} read here")


def read_activations(
    store: Store, trial: str, moment: str | Collection[str] | None = None, layer: str | Collection[str] | None = None
) -> dict[tuple[str, int, str], np.ndarray]:
    """One family's activations: `(moment, epoch, layer)` -> float32 array `[replica, row, feature]`.

    All of them, or those of the moments or layers named. A row is a probe sample, or a position of one under pooling
    `positions`; all replicas have the same rows in the same order.
    """
    found: dict[tuple[str, int, str], list[np.ndarray]] = {}
    with parquet(store, f"activations/{trial}.parquet") as file:
        for index, key, _ in row_groups(file, moment, layer):
            group = file.read_row_group(index, columns=["replica", "activation"])
            found.setdefault(key, []).append(representations(group))
    return {key: np.concatenate(parts) for key, parts in found.items()}


def row_groups(
    file: pq.ParquetFile, moment: str | Collection[str] | None = None, layer: str | Collection[str] | None = None
) -> Iterator[tuple[int, tuple[str, int, str], tuple[int, int]]]:
    """Of a file of `activations`, from its footer alone: the index, `(moment, epoch, layer)` and `(rows, width)` of each row group.

    Raises Unreadable where the file was not written by `write`.
    """
    moments, layers = ({wanted} if isinstance(wanted, str) else wanted for wanted in (moment, layer))
    check_schema(file.schema_arrow, TABLES["activations"])
    columns = [file.metadata.schema.column(i).path.split(".")[0] for i in range(file.metadata.num_columns)]
    at = {name: columns.index(name) for name in ("moment", "epoch", "layer", "activation")}
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        # A row group holds one moment of one layer, so that its statistics name them.
        if not group.num_rows or any(group.column(at[name]).statistics is None for name in ("moment", "epoch", "layer")):
            raise Unreadable("its row groups are empty or lack statistics, so that it was written by another program")
        key = tuple(group.column(at[name]).statistics.min for name in ("moment", "epoch", "layer"))
        if (moments is None or key[0] in moments) and (layers is None or key[2] in layers):
            yield index, key, (group.num_rows, group.column(at["activation"]).num_values // group.num_rows)


def representations(group: pa.Table) -> np.ndarray:
    """The activations of a row group as an array `[replica, row, feature]`, from its columns `replica` and `activation`."""
    num_replicas = len(group["replica"].unique())
    values = group["activation"].combine_chunks().values.to_numpy(zero_copy_only=False)
    return values.reshape(num_replicas, group.num_rows // num_replicas, -1)


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
