"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis import storage
from analysis.storage import TEMPORARY_FOLDER, Store, Unreachable, answering


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


def test_delete(tmp_path):
    store = Store(tmp_path)
    store.write("a", b"1")
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")


WRITE = """
import sys, time
from analysis.storage import Store
Store(sys.argv[1]).write_with("table/a", lambda sink: (sink.write(b"half"), sink.flush(), print("writing", flush=True), time.sleep(600)))
"""


def test_temporaries_of_the_dead_go_and_those_of_writers_at_work_stay(tmp_path):
    store, folder = Store(tmp_path), tmp_path / TEMPORARY_FOLDER
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout.readline() == "writing\n"
        (folder / "pairs-tile").write_bytes(b"whole")  # none of a file that is being written: it may be wanted
        store.delete_temporaries()
        assert len(os.listdir(folder)) == 2
        writer.kill()
    store.delete_temporaries()
    assert os.listdir(folder) == ["pairs-tile"]
    os.utime(folder / "pairs-tile", (time.time() - 7200,) * 2)
    store.delete_temporaries()
    assert os.listdir(folder) == []


def test_a_file_is_synced_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut may leave the name without the content: what there was of it under the name when it was synced is nothing."""
    store, seen = Store(tmp_path), []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append((os.fstat(fd).st_size, (tmp_path / "table/a").exists())), sync(fd)))
    store.write("table/a", b"all of it")
    assert seen == [(9, False)]


def test_check_writable(tmp_path):
    Store(tmp_path / "new").check_writable()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        Store(tmp_path / "file").check_writable()


def test_a_file_swept_before_its_writer_holds_the_lock_is_begun_anew(tmp_path, monkeypatch):
    """Between opening and locking, another process takes it for one that a killed writer left."""
    store, swept, lock = Store(tmp_path), [], storage._lock

    def late(file):
        if not swept:
            swept.append(file.name)
            store.delete_temporaries()
        return lock(file)

    monkeypatch.setattr(storage, "_lock", late)
    store.write("a.bin", b"all of it")
    assert swept
    assert store.read("a.bin") == b"all of it"


def test_two_may_delete_a_file(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr(Store, "exists", lambda self, name: True)  # it goes between the look and the deed
    store.delete("a.bin")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), Unreachable),
        (OSError(errno.ESTALE, "Stale file handle"), Unreachable),
        (OSError("When reading ...: AWS Error UNKNOWN (HTTP status 503)"), Unreachable),
        (OSError("could not verify page integrity, CRC checksum verification failed"), OSError),
        (FileNotFoundError("gone"), FileNotFoundError),
    ],
)
def test_what_is_refused_says_nothing_of_a_file(error, raised):
    with pytest.raises(OSError, match=r".") as found, answering("here"):
        raise error
    assert type(found.value) is raised


def test_a_switch_is_true_or_false():
    with pytest.raises(ValueError, match="anonymous=yes; allowed: true, 1, false, 0"):
        Store("s3://bucket/results?region=us-west-2&anonymous=yes")
