"""Which cluster a run joins, what reaches its nodes, and what a run leaves for those who look from elsewhere."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from rich.control import Control

from analysis.storage import Store
from sweep import cluster, jobs
from sweep.config import ConfigError
from sweep.log import LOGS, RunLog, latest
from trainables import data as data_sets
from trainables.recipe import CellsData


@pytest.fixture
def note(tmp_path, monkeypatch):
    """Where `ray start` notes the cluster that this machine is part of."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_a_run_joins_the_cluster_that_is_there(note, monkeypatch):
    assert cluster.address() is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        note.write_text(here)
        assert cluster.address() == here
        monkeypatch.setenv("RAY_ADDRESS", cluster.LOCAL)
        assert cluster.address() is None
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        assert cluster.address() == "10.0.0.1:6379"
        monkeypatch.delenv("RAY_ADDRESS")
        monkeypatch.setattr("os.getuid", lambda: -1)  # somebody else's
        assert cluster.address() is None
        monkeypatch.undo()


def test_what_a_cluster_that_has_ended_left_is_not_joined(note):
    with socket.create_server(("127.0.0.1", 0)) as server:
        note.write_text(f"127.0.0.1:{server.getsockname()[1]}")
    assert cluster.address() is None


def test_data_that_are_provided_are_not_read_again(monkeypatch):
    """Workers take the driver's images, whatever subset or label noise they are to have; other data they read."""
    config = CellsData(num_images=64, image_size=12, num_slides=8, seed=99)
    noisy = config.model_copy(update={"train_size": 20, "label_noise": 0.2})
    samples = data_sets.source(noisy)
    wanted = data_sets.load(config).hash, data_sets.load(noisy).hash
    data_sets._load.cache_clear()
    data_sets._read_shared.cache_clear()
    monkeypatch.setattr(data_sets, "_provided", {})
    monkeypatch.setattr(data_sets, "import_module", lambda name: pytest.fail("the data were read again"))
    samples.images.flags.writeable = False  # as in Ray's object store
    data_sets.provide(config, samples)
    assert (data_sets.load(config).hash, data_sets.load(noisy).hash) == wanted
    data_sets._load.cache_clear()
    data_sets._read_shared.cache_clear()
    with pytest.raises(pytest.fail.Exception):
        data_sets.load(config.model_copy(update={"seed": 98}))
    assert np.array_equal(data_sets.source(config).images, samples.images)


def test_a_log_lies_with_the_results(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, log = Store("results/quick"), RunLog()
    with pytest.raises(ConfigError, match="no run has left a log"):
        jobs.logs("quick", [], 5)
    log.print("before it is known where")
    assert latest(store) is None
    log.keep_in(store)
    log.print("[bold]families[/bold] \x1b[2J", markup=False)
    log.write()
    name = latest(store)
    assert name == log.name
    assert name.startswith(f"{LOGS}/r")
    capsys.readouterr()
    assert jobs.logs("quick", [], 1) == 0
    shown = capsys.readouterr().out
    assert "[bold]families[/bold]" in shown
    assert "\x1b" not in shown
    assert "before it is known where" not in shown
    assert jobs.told(store).endswith(shown.strip().splitlines()[-1])


def test_a_live_line_that_refreshes_itself_leaves_nothing_in_the_log(tmp_path, capsys):
    log = RunLog()
    log.keep_in(Store(tmp_path))
    for _ in range(100):
        log.print(Control())
    log.print("a line")
    log.write()
    assert len(Store(tmp_path).read(log.name).decode().splitlines()) == 1
    assert Store(tmp_path).read(log.name).decode().count("a line") == 1
    assert len(Store(tmp_path).read(log.name)) < 100


def test_a_storage_that_fails_costs_the_log_only(tmp_path, capsys):
    class Full(Store):
        def write(self, name: str, data: bytes) -> None:
            raise OSError("No space left on device")

    log = RunLog()
    log.keep_in(Full(tmp_path))
    log.print("still here")
    output = capsys.readouterr().out
    assert "still here" in output
    assert "the log cannot be written: No space left on device" in output


def test_submitting_where_no_cluster_is_says_so():
    with pytest.raises(ConfigError, match=r"nothing takes jobs at http://127\.0\.0\.1:9: "):
        jobs.submit("quick", ["storage.path=s3://bucket"], "http://127.0.0.1:9", "all")


def test_results_may_not_lie_in_the_folder_of_a_job():
    with pytest.raises(ConfigError, match=r"storage\.path: 'results' would lie in the job's own folder; give a URI"):
        jobs.submit("quick", [], None, "all")
