"""The one writer of tables, and the readers. Schemas are in `contract.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from analysis.contract import LOSS_COLUMNS as LOSS_COLUMNS
from analysis.contract import SCHEMA_VERSION as SCHEMA_VERSION
from analysis.contract import TABLES as TABLES
from analysis.contract import schema_markdown as schema_markdown
from analysis.reading import Unreadable, parquet, reading
from analysis.schema import FLAG, INT, SHORT, TEXT, Table
from analysis.storage import Store

MAX_ROW_GROUP_BYTES = 16 * 2**20
_FILES_AT_ONCE = 256  # a dataset keeps about 80 kB of metadata for each of its files until it is let go
_FORMAT = pads.ParquetFileFormat(default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True))


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
