"""The contract: round trips, three readers that agree, and every trap that Parquet data sets have fallen into."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from analysis import tables
from analysis.storage import Store

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "data" / f"schema{tables.SCHEMA_VERSION}"


@pytest.fixture
def store(sweep) -> Store:
    return sweep(num_families=4, num_samples=7, num_replicas=3)


@pytest.mark.parametrize("table", list(tables.TABLES))
def test_every_table_round_trips_with_its_types(tmp_path, table):
    store, spec = Store(tmp_path), tables.TABLES[table]
    kinds = {
        pa.types.is_integer: [1, 2],
        pa.types.is_floating: [0.5, -2.0],
        pa.types.is_string: ["t0", "é/:"],
        pa.types.is_boolean: [True, False],
        pa.types.is_binary: [b"", b"\x89PNG"],
        pa.types.is_timestamp: [pd.Timestamp("2026-01-02", tz="UTC")] * 2,
    }
    columns: dict[str, object] = {}
    for column in spec.columns[1:]:
        if pa.types.is_list(column.type):
            columns[column.name] = [[1, 2, 3], []]
        else:
            columns[column.name] = next(values for test, values in kinds.items() if test(column.type))
    tables.write(store, table, "one", columns)
    found = tables.read(store, table)
    assert set(found["schema_version"]) == {tables.SCHEMA_VERSION}
    for name, values in columns.items():
        assert [v.tolist() if isinstance(v, np.ndarray) else v for v in found[name]] == values
    assert pq.read_schema(store.path(f"{table}/one.parquet")).equals(spec.schema)


def test_a_missing_or_unknown_column_is_refused(tmp_path, rows):
    columns = rows("samples", 2, dataset="d0", sample=[0, 1])
    with pytest.raises(KeyError, match="unknown"):
        tables.write(Store(tmp_path), "samples", "d0", columns | {"surprise": [1, 2]})
    del columns["label"]
    with pytest.raises(KeyError, match="label"):
        tables.write(Store(tmp_path), "samples", "d0", columns)
    assert tables.names(Store(tmp_path), "samples") == []


def test_three_readers_agree(store):
    ours = tables.read(store, "replicas").sort_values(["trial", "replica"], ignore_index=True)
    folder = store.path("replicas")
    by_pandas = pd.read_parquet(folder).sort_values(["trial", "replica"], ignore_index=True)
    pd.testing.assert_frame_equal(ours, by_pandas)
    by_polars = pl.read_parquet(f"{folder}/*.parquet").sort("trial", "replica")
    by_duckdb = duckdb.sql(f"select * from '{folder}/*.parquet' order by trial, replica")
    assert by_polars.columns == by_duckdb.columns == list(ours)
    for name in ("trial", "schedule", "replica", "gap_accuracy", "diverged_at"):
        expected = ours[name].astype(object).where(ours[name].notna(), None).tolist()
        assert by_polars[name].to_list() == pytest.approx(expected) if name == "gap_accuracy" else True
        assert by_polars[name].to_list() == [row[0] for row in by_duckdb.project(name).fetchall()]


def test_three_readers_agree_on_activations_of_ragged_widths(store):
    """Layers of 6 and 4 features in one directory read: a list of fixed size would fail here."""
    folder = store.path("activations")
    by_pandas = pd.read_parquet(folder, filters=[("layer", "==", "block2")])
    assert np.stack(by_pandas["activation"].tolist()).shape[1] == 4
    assert set(pd.read_parquet(folder)["activation"].map(len)) == {4, 6}
    by_polars = pl.read_parquet(f"{folder}/*.parquet")
    assert set(by_polars["activation"].list.len()) == {4, 6}
    total = by_polars["activation"].list.sum().sum()
    found = duckdb.sql(f"select count(*), sum(list_sum(activation)) from '{folder}/*.parquet'").fetchall()[0]
    assert found[0] == len(by_polars)
    assert found[1] == pytest.approx(total, rel=1e-4)


def test_activations_come_back_as_arrays(tmp_path, rows):
    store = Store(tmp_path)
    X = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)
    groups = [
        rows("activations", 3, trial="t0", moment=moment, epoch=epoch, layer="block1", replica=[r] * 3,
             activation=tables.list_array(X[r] + epoch))
        for moment, epoch in (("init", 0), ("end", 8)) for r in range(2)
    ]  # fmt: skip
    tables.write(store, "activations", "t0", groups)
    found = tables.read_activations(store, "t0")
    assert list(found) == [("init", 0, "block1"), ("end", 8, "block1")]
    assert found["end", 8, "block1"].dtype == np.float32
    assert np.array_equal(found["end", 8, "block1"], X + 8)
    assert list(tables.read_activations(store, "t0", moment="end")) == [("end", 8, "block1")]
    assert tables.read_activations(store, "t0", layer="block2") == {}


def test_ids_keep_their_type_in_every_reader(tmp_path, rows):
    """`000000000012` or `12e4` would come back as numbers from paths; a leading letter and in-file columns prevent
    it."""
    store = Store(tmp_path)
    for trial in ("t000000000012", "t0000000012e4"):
        tables.write(store, "replicas", trial, rows("replicas", 1, trial=trial, schedule="0:relu/cross_entropy", replica=[0]))
    expected = ["t000000000012", "t0000000012e4"]
    folder = store.path("replicas")
    assert sorted(pd.read_parquet(folder)["trial"]) == expected
    assert sorted(pl.read_parquet(f"{folder}/*.parquet")["trial"]) == expected
    assert sorted(r[0] for r in duckdb.sql(f"select trial from '{folder}/*.parquet'").fetchall()) == expected
    assert not any("=" in name for name in os.listdir(folder))


def test_a_file_alone_keeps_its_identity(store, tmp_path):
    trial = tables.names(store, "replicas")[0]
    copied = tmp_path / "mailed.parquet"
    copied.write_bytes(store.read(f"replicas/{trial}.parquet"))
    found = pd.read_parquet(copied)
    assert set(found["trial"]) == {trial}
    assert found["schedule"].notna().all()


def test_a_writer_killed_before_the_rename_leaves_a_readable_dataset(store):
    before = tables.read(store, "samples")
    script = textwrap.dedent(f"""
        import os, signal
        from analysis import tables
        from analysis.storage import Store
        store = Store({store.base!r})
        store.write_with("replicas/tfffffffffff0.parquet", lambda sink: (sink.write(b"PAR1 half a file"), sink.flush(),
                         os.kill(os.getpid(), signal.SIGKILL)))
    """)
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(f"{store.base}/.tmp")) == 1
    folder = store.path("replicas")
    assert len(tables.read(store, "replicas")) == len(pd.read_parquet(folder)) == 12
    assert len(pl.read_parquet(folder)) == len(pl.read_parquet(f"{folder}/*.parquet")) == 12
    assert duckdb.sql(f"select count(*) from '{folder}/*.parquet'").fetchall()[0] == (12,)
    assert len(before) == 0


def test_two_writers_of_one_file_leave_one_valid_file(tmp_path, rows):
    store = Store(tmp_path)

    def write(seed: int) -> None:
        for _ in range(20):
            columns = rows("replicas", 3, trial="t0", schedule="s", replica=np.arange(3), seed=np.full(3, seed))
            tables.write(store, "replicas", "t0", columns)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if store.exists("replicas/t0.parquet"):
            assert len(set(tables.read(store, "replicas")["seed"])) == 1
    for thread in threads:
        thread.join()
    assert tables.names(store, "replicas") == ["t0"]
    assert os.listdir(tmp_path / ".tmp") == []


def _rewrite(store: Store, change) -> None:
    path = store.path(f"replicas/{tables.names(store, 'replicas')[0]}.parquet")
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.append_column("surprise", pa.array([1] * len(t))),
        lambda t: t.drop_columns(["gap_accuracy"]),
        lambda t: t.set_column(3, "replica", t["replica"].cast(pa.int64())),
        lambda t: t.set_column(0, "schema_version", pa.array([tables.SCHEMA_VERSION + 1] * len(t), pa.int16())),
    ],
    ids=["another column", "a column less", "another type", "a newer version"],
)
def test_schema_drift_is_refused(store, change):
    _rewrite(store, change)
    with pytest.raises(ValueError, match="schema"):
        tables.read(store, "replicas")


def test_schema_drift_would_be_silent_otherwise(store):
    """Why `read` looks: a dataset drops the column of one file without a word."""
    _rewrite(store, lambda t: t.append_column("surprise", pa.array([1] * len(t))))
    names = sorted(tables.names(store, "replicas"), reverse=True)
    paths = [store.path(f"replicas/{name}.parquet") for name in names]
    assert "surprise" not in pads.dataset(paths).to_table().column_names


def test_values_that_are_not_finite_survive(tmp_path, rows):
    store = Store(tmp_path)
    values = np.array([[np.nan, np.inf, -np.inf], [0.0, -0.0, 3e38]], np.float32)
    tables.write(
        store,
        "activations",
        "t0",
        rows(
            "activations",
            2,
            trial="t0",
            moment="end",
            epoch=8,
            layer="a",
            replica=[0, 1],
            activation=tables.list_array(values),
        ),
    )
    found = tables.read_activations(store, "t0")["end", 8, "a"]
    assert found.reshape(2, 3).tobytes() == values.tobytes()
    tables.write(store, "replicas", "t0", rows("replicas", 3, trial="t0", replica=[0, 1, 2], test_loss=[np.inf, np.nan, None]))
    loss = pq.read_table(store.path("replicas/t0.parquet"))["test_loss"].to_pylist()
    assert loss[0] == np.inf
    assert np.isnan(loss[1])
    assert loss[2] is None


def test_encodings_and_compression(store):
    trial = tables.names(store, "trials")[0]
    for table in ("activations", "replicas"):
        group = pq.ParquetFile(store.path(f"{table}/{trial}.parquet")).metadata.row_group(0)
        for index in range(group.num_columns):
            column = group.column(index)
            assert column.compression == "ZSTD"
            if column.physical_type in ("FLOAT", "DOUBLE"):
                assert "BYTE_STREAM_SPLIT" in column.encodings
                assert not column.has_dictionary_page
            if column.physical_type == "BYTE_ARRAY":
                assert column.has_dictionary_page


def test_a_row_group_is_one_moment_of_one_layer(store):
    trial = tables.names(store, "trials")[1]
    parquet = pq.ParquetFile(store.path(f"activations/{trial}.parquet"))
    assert parquet.num_row_groups == 8
    for index in range(8):
        group = parquet.read_row_group(index, columns=["moment", "layer"])
        assert len(group.group_by(["moment", "layer"]).aggregate([])) == 1


def test_list_array_equals_nested_lists():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert tables.list_array(values).to_pylist() == values.tolist()
    assert tables.list_array(values[:, ::2]).to_pylist() == values[:, ::2].tolist()
    assert tables.list_array(values[:0]).to_pylist() == []


def test_reading_a_part(store):
    trial = tables.names(store, "trials")[2]
    found = tables.read(store, "replicas", ["replica", "trial"], only=[trial], filter=pads.field("replica") > 0)
    assert list(found) == ["replica", "trial"]
    assert found["replica"].tolist() == [1, 2]
    assert list(tables.read(store, "samples")) == tables.TABLES["samples"].schema.names


def test_every_column_is_explained():
    page = tables.schema_markdown()
    for table in tables.TABLES.values():
        assert f"## {table.name}" in page
        for column in table.columns:
            assert column.meaning in page
        assert "schema_version" in table.stable
    assert "host*" in page


def test_the_committed_file_of_this_version_still_opens():
    """Fails when the schema changes without a new SCHEMA_VERSION."""
    store = Store(FIXTURE)
    assert len(tables.read(store, "trials")) == 1
    assert len(tables.read(store, "replicas")) == 2
    trial = tables.names(store, "trials")[0]
    found = tables.read_activations(store, trial)
    assert {key: X.shape for key, X in found.items()} == {("end", 8, "block1"): (2, 4, 3)}
    assert np.isfinite(found["end", 8, "block1"]).all()


if __name__ == "__main__":  # writes the committed file
    from conftest import write_sweep  # type: ignore[import-not-found]

    write_sweep(Store(FIXTURE), num_families=1, num_replicas=2, num_samples=4, widths=(3,), moments=("end",))


def test_a_row_group_stays_whole_however_many_rows_it_has(tmp_path):
    """One replica with more rows than a writer's usual limit of 2^20 comes back as one replica."""
    num_rows = 2**20 + 10
    store = Store(tmp_path)
    rows = {
        "trial": ["t1"] * num_rows, "replica": np.zeros(num_rows), "moment": ["end"] * num_rows, "epoch": np.zeros(num_rows),
        "layer": ["a"] * num_rows, "pooling": ["positions"] * num_rows, "shape": [[1]] * num_rows, "sample": np.arange(num_rows),
        "position": np.zeros(num_rows), "label": np.zeros(num_rows),
        "activation": tables.list_array(np.arange(num_rows, dtype=np.float32)[:, None]),
    }  # fmt: skip
    tables.write(store, "activations", "t1", rows)
    assert tables.read_activations(store, "t1")["end", 0, "a"].shape == (1, num_rows, 1)
