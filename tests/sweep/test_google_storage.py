"""Results on gs://: a server on loopback, and the same tables as on a disk."""

from __future__ import annotations

import time

import pytest

from analysis import tables
from analysis.storage import Store
from sweep.config import load
from sweep.plan import make_plan, results_store
from tests.gcs import BUCKET, emulated
from tests.sweep.test_object_storage import CONFIG, SEARCH, sweep_run
from trainables.data import load as load_data
from trainables.family import Family
from trainables.family import run as run_family
from trainables.states import States

pytest.importorskip("gcp_storage_emulator", reason="no GCS server: pip install '.[test]' brings gcp-storage-emulator")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with emulated(tmp_path_factory.mktemp("gcs") / "log") as found:
        yield found


def test_whole_files_come_and_go(address, monkeypatch, tmp_path):
    store = Store(f"gs://{BUCKET}/files?anonymous=true&endpoint_override={address}")
    assert store.root == f"gs://{BUCKET}/files"
    assert (store.names("table"), store.exists("table/a")) == ([], False)
    store.check_writable()
    store.write("table/a", b"old")
    store.write("table/a", b"new")
    store.write("table/empty", b"")
    store.each(lambda number: store.write(f"table/{number:03d}", bytes([number])), range(40))

    def fail(sink):
        sink.write(b"half")
        raise RuntimeError("killed")

    for name in ("table/a", "table/b"):
        with pytest.raises(RuntimeError, match="killed"):
            store.write_with(name, fail)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)  # the other way to say where it is
    again = Store(f"gs://{BUCKET}/files?anonymous=true")
    assert again.names("table") == [*(f"{number:03d}" for number in range(40)), "a", "empty"]
    assert again.each(lambda name: again.read(f"table/{name}"), again.names("table")[39:]) == [b"\x27", b"new", b""]
    again.delete("table/a")
    again.delete("table/a")
    assert not store.exists("table/a")
    tables.write(store, "measurements", "t000000000000", rows := measured())
    assert tables.read(store, "measurements")["value"].tolist() == rows["value"]


def measured() -> dict[str, list]:
    spec, num = tables.TABLES["measurements"], 3
    example = {"string": "x", "float": 0.5, "double": 0.5}
    return {c.name: [example.get(str(c.type), 1)] * num for c in spec.columns if c.name != "schema_version"}


def test_a_store_that_is_not_there_is_said_to_be_so_in_time(monkeypatch):
    monkeypatch.setattr("analysis.storage._GCS_RETRY_S", 2)
    began = time.monotonic()
    with pytest.raises(OSError, match="Could not connect"):
        Store("gs://bucket/x?anonymous=true&scheme=http&endpoint_override=127.0.0.1:9").names("trials")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("gs://anonymous@bucket/x", "credentials are refused"),
        ("gs://bucket/x?endpoint=localhost", "unknown option 'endpoint'; allowed: endpoint_override"),
        ("gs:///x", "names no bucket"),
    ],
)
def test_a_wrong_uri_is_refused(uri, why):
    with pytest.raises(ValueError, match=why):
        Store(uri)


@pytest.mark.slow
def test_a_sweep_on_gs_writes_the_tables_of_one_on_a_disk(address, tmp_path, same_tables):
    """From the command to the report, and nothing is done twice; then a search, whose study lies there, too."""
    path = f"gs://{BUCKET}/results?anonymous=true&endpoint_override={address}"
    text = CONFIG.replace("s3://our-results/results", path)
    assert "6 of 6 families done" in sweep_run(tmp_path, text)
    assert "0 to run" in sweep_run(tmp_path, text)
    config, _ = load(str(tmp_path / "my.yaml"))
    there, here = results_store(config), Store(tmp_path / "results")
    assert {"report.html", "sweep.yaml", "SCHEMA.md"} <= set(there.names(""))
    assert "association.parquet" in there.names("analysis")
    assert not States(there).names()
    assert not there.names(".drivers")
    for base, schedule in make_plan(config, load_data(config.data), here).families.values():
        list(run_family(Family(base.recipe, config.probes, schedule), here))
    same_tables(there, here, tables.names(here, "trials"))
    search = SEARCH.replace("s3://our-results/results", path).replace("name: tiny", "name: search")
    assert "3 of 3 families proposed" in sweep_run(tmp_path, search)
    assert "0 to run" in sweep_run(tmp_path, search)
