"""Files appear whole or not at all."""

from __future__ import annotations

import os

import pytest

from analysis.storage import TEMPORARY_FOLDER, Store


def test_round_trip_and_listing(tmp_path):
    store = Store(tmp_path)
    store.write("table/b.parquet", b"two")
    store.write("table/a.parquet", b"one")
    store.write("table/a.txt", b"text")
    assert store.read("table/a.parquet") == b"one"
    assert store.names("table", ".parquet") == ["a.parquet", "b.parquet"]
    assert store.names("absent") == []
    assert store.exists("table/a.txt")
    assert not store.exists("table")


def test_a_uri_and_a_path_name_the_same_files(tmp_path):
    Store(tmp_path).write("x/y", b"here")
    assert Store(tmp_path.as_uri()).read("x/y") == b"here"


def test_relative_paths_do_not_follow_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    store.write("a", b"1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.read("a") == b"1"


def test_a_failing_writer_leaves_the_old_file_and_no_temporary(tmp_path):
    store = Store(tmp_path)
    store.write("table/a", b"old")

    def fail(sink):
        sink.write(b"half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        store.write_with("table/a", fail)
    assert store.read("table/a") == b"old"
    assert os.listdir(tmp_path / TEMPORARY_FOLDER) == []


def test_temporaries_lie_outside_the_folder_while_writing(tmp_path):
    store = Store(tmp_path)
    seen = []
    store.write_with("table/a", lambda sink: (sink.write(b"x"), seen.extend(os.listdir(tmp_path / "table"))))
    assert seen == []
    assert os.listdir(tmp_path / "table") == ["a"]


def test_delete_and_delete_temporaries(tmp_path):
    store = Store(tmp_path)
    store.write("a", b"1")
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")
    (tmp_path / TEMPORARY_FOLDER / "left").write_bytes(b"half")
    store.delete_temporaries()  # young: another writer may be at work
    assert list((tmp_path / TEMPORARY_FOLDER).iterdir())
    store.delete_temporaries(older_than_s=-1.0)
    assert not list((tmp_path / TEMPORARY_FOLDER).iterdir())


def test_check_writable(tmp_path):
    Store(tmp_path / "new").check_writable()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        Store(tmp_path / "file").check_writable()
