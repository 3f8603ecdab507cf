"""`python -m analysis --watch`: what it does while a run goes on, and beside a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis import claims
from analysis import watch as watching
from analysis.reading import Unreadable
from analysis.storage import Store
from analysis.verdict import Verdict
from analysis.watch import Superseded, is_analysed_by_its_run, is_unended, watch
from sweep.log import LOGS

ROOT = Path(__file__).parents[2]
CLAIM = f"{claims.FOLDER}/one.json"


def test_the_folder_of_logs_is_one():
    assert watching.LOGS == LOGS


def finish(store: Store, trial: str) -> None:
    store.write(f"trials/{trial}.parquet", b"")


@pytest.fixture
def running(store, monkeypatch) -> Store:
    """A sweep whose run has begun, which analyses for itself."""
    store.write("logs/r20260101t000000000000.log", b"")
    store.write(CLAIM, json.dumps(claims.this_process()).encode())
    finish(store, "t1")
    monkeypatch.setattr(watching, "is_analysed_by_its_run", lambda store: True)
    return store


def kill(store: Store) -> None:
    """The claim stays, its process does not."""
    store.write(CLAIM, json.dumps({**claims.this_process(), "started": "1"}).encode())


def end(store: Store) -> None:
    store.write("runs/r20260101t000001000000.parquet", b"")


def script(store: Store, *steps):
    """A sleep that does one thing each time, in place of time."""
    left = list(steps)
    return lambda seconds: left.pop(0)(store)


def test_a_run_that_has_a_row_has_ended(store):
    assert not is_unended(store)
    store.write("logs/r20260101t000000000000.log", b"")
    assert is_unended(store)
    end(store)
    assert not is_unended(store)
    store.write("logs/r20260102t000000000000.log", b"")  # run again
    assert is_unended(store)


def test_a_run_that_is_killed_has_ended_without_an_end(running, monkeypatch):
    monkeypatch.setattr(watching, "is_analysed_by_its_run", is_analysed_by_its_run)
    said, calls = [], []

    def analyse(before_writing):
        before_writing()
        calls.append(len(running.names("trials")))
        return Verdict("undecided", "", 0)

    def kill_after_more(store):
        finish(store, "t2")
        kill(store)

    watch(running, analyse, said.append, 1, script(running, kill_after_more))
    assert calls == [1, 2]
    assert said[2].startswith(
        "the run has ended without an end: it was killed, or stopped by a fault. To go on: python -m sweep.run --config "
    )
    assert "2 families: undecided" in said[3]
    watch(running, analyse, said.append, 1, None)  # and when asked later
    assert "without an end" in said[4]
    running.delete(CLAIM)  # as a traceback leaves it
    watch(running, analyse, said.append, 1, None)
    assert "without an end" in said[6]


def test_a_driver_elsewhere_lives_as_long_as_it_is_seen_to_write_its_claim_anew(running):
    now = [0.0]
    drivers = claims.Drivers(running, clock=lambda: now[0])
    running.write(CLAIM, json.dumps({**claims.this_process(), "machine": "another"}).encode())
    path, expected = running.path(CLAIM), {0: True, 299: True, 301: False}
    for at, alive in expected.items():
        now[0] = float(at)
        assert drivers.is_one_alive() == alive, at
    os.utime(path, (1, 1))  # by a clock that jumped: all that counts is that it changed
    assert drivers.is_one_alive()
    now[0] = 700.0
    assert not drivers.is_one_alive()


def test_it_analyses_when_families_have_finished_and_ends_with_the_run(running):
    calls, said = [], []

    def analyse(before_writing):
        before_writing()
        calls.append(len(running.names("trials")))
        return Verdict("undecided", "", 0)

    nothing, more = (lambda store: None), (lambda store: finish(store, "t2"))
    watch(running, analyse, said.append, 1, script(running, nothing, more, nothing, end))
    assert calls == [1, 2]
    assert [line.partition("  ")[2].partition(":")[0] for line in said[1:3]] == ["1 family", "2 families"]
    assert said[-1] == "the run has ended with 2 families; its own analysis comes last"


@pytest.mark.parametrize("by_its_run", [True, False])
def test_what_is_computed_while_the_run_ends_is_not_written_over_its_own(running, monkeypatch, by_its_run):
    monkeypatch.setattr(watching, "is_analysed_by_its_run", lambda store: by_its_run)
    written = []

    def analyse(before_writing):
        end(running)
        before_writing()
        written.append(1)
        return Verdict("undecided", "", 0)

    watch(running, analyse, lambda text: None, 1, script(running, lambda store: None))
    assert len(written) == (0 if by_its_run else 2)  # the second after the end, of all that there is


def test_what_cannot_be_analysed_yet_is_told_once_and_raised_after_the_end(running, monkeypatch):
    monkeypatch.setattr(watching, "is_analysed_by_its_run", lambda store: False)
    said = []

    def analyse(before_writing):
        raise ValueError("too few families")

    with pytest.raises(ValueError, match="too few families"):
        watch(running, analyse, said.append, 1, script(running, lambda store: finish(store, "t2"), end))
    assert [line.partition("  ")[2] for line in said[1:]] == ["not yet: too few families"]


def test_without_a_run_it_analyses_once(store):
    calls = []
    watch(store, lambda before_writing: calls.append(before_writing()) or Verdict("undecided", "", 0), calls.append, 1, None)
    assert len(calls) == 2


def test_superseded_is_no_error_of_values():
    assert not issubclass(Superseded, (OSError, ValueError))


CONFIG = """
name: tiny
data: {source: cells, num_images: 160, image_size: 12, num_slides: 8}
model: {name: cnn, widths: [4, 6]}
training: {epochs: 3, batch_size: 16, replicas: 2}
probes: {num_samples: 10, baselines: false}
space: {activations: [relu, 'held:held'], losses: [cross_entropy], swap_epochs: [1], swaps: [activation]}
resources: {num_cpus: 2}
tracking: [tensorboard]
analysis: {num_permutations: 99, image_statistics: false}
"""
HELD = """
import sys, time
from pathlib import Path
import torch

def held(x):
    while sys.argv[0].endswith("default_worker.py") and not Path(GO).exists():
        time.sleep(0.05)
    return torch.tanh(x)
"""


@pytest.mark.slow  # a whole run on Ray, and three analyses; what it does is tested above without
def test_beside_a_real_run(tmp_path):
    """Families with one of the activations wait until the watcher has shown what there is of the others."""
    go = tmp_path / "go"
    (tmp_path / "my.yaml").write_text(CONFIG)
    (tmp_path / "held.py").write_text(HELD.replace("GO", repr(str(go))))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "RAY_TMPDIR": "/tmp"}

    def start(*words: str) -> subprocess.Popen:
        whole = [sys.executable, "-m", *words]
        return subprocess.Popen(whole, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    results = tmp_path / "results" / "tiny"
    watched = ["analysis", "results/tiny", "--watch", "1", "--permutations", "99"]
    with start("sweep.run", "--config", "my.yaml") as run:
        try:
            while not list(results.glob("trials/*.parquet")):
                assert run.poll() is None, run.stdout.read()
                time.sleep(0.2)
            with start(*watched) as watcher:
                assert "watching" in watcher.stdout.readline()
                assert "1 family: " in watcher.stdout.readline()
                assert (results / "report.html").exists()
                go.touch()
                rest = watcher.communicate(timeout=300)[0]
        finally:
            go.touch()
        assert run.wait(timeout=300) == 0, run.stdout.read()
    assert watcher.returncode == 0, rest
    assert rest.splitlines()[-1] == "the run has ended with 4 families; its own analysis comes last"
    assert "Traceback" not in rest
    with start(*watched) as after:
        said = after.communicate(timeout=300)[0]
    assert after.returncode == 0
    assert len(said.splitlines()) == 1
    assert "4 families: " in said
    owners = sorted(path.stem for path in results.glob("trials/*.parquet"))
    assert sorted(path.name for path in (results / "tracking" / "tensorboard").iterdir()) == owners


def test_a_sweep_file_that_is_none_is_told(tmp_path):
    (tmp_path / "sweep.yaml").write_text("analysis: [1, 2]")
    with pytest.raises(Unreadable, match="analysis is"):
        watching.is_analysed_by_its_run(Store(tmp_path))
