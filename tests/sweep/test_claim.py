"""One driver at a time on one folder of results."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from analysis import claims
from analysis.claims import FOLDER
from analysis.storage import Store
from sweep import claim
from sweep.claim import claimed
from sweep.config import ConfigError
from tests.aws import REGION, emulated

HOLD = """
import sys, time
from rich.console import Console
from analysis.storage import Store
from sweep.claim import claimed
with claimed(Store(sys.argv[1]), Console()):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path, monkeypatch):
    """A root of results, on a disk and on a real S3 server."""
    if request.param == "disk":
        yield str(tmp_path / "results")
        return
    boto3 = pytest.importorskip("boto3")
    with emulated() as environment:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        boto3.client("s3").create_bucket(Bucket="our-results", CreateBucketConfiguration={"LocationConstraint": REGION})
        yield "s3://our-results/results"


@pytest.fixture
def holder(place):
    """Another process that holds the results."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", HOLD, place], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.communicate()


def refused(store: Store) -> str:
    with pytest.raises(ConfigError) as caught, claimed(store, Console()):
        raise AssertionError("two drivers hold the same results")
    return str(caught.value)


def names(store: Store) -> list[str]:
    return store.names(FOLDER)


def pretend(store: Store, age_s: float = 0.0, **changes: object) -> str:
    """The claim of a driver that is not there, as old as that by the store's clock."""
    name = f"{FOLDER}/other.json"
    store.write(name, json.dumps({**claims.this_process(), "host": "elsewhere", "since": "2026-11-21 10:00:00", **changes}).encode())
    if age_s:
        then = time.time() - age_s
        os.utime(store.path(name), (then, then))
    return name


def test_a_second_driver_is_refused_by_name_until_the_first_ends(place, holder):
    store = Store(place)
    message = refused(store)
    assert message.startswith(f"{store.root}: these results are being written by process {holder.pid} on ")
    assert f"stop it (kill {holder.pid} there)" in message
    assert "\n" not in message
    assert len(names(store)) == 1
    holder.kill()  # and not waited for: it is a zombie, whose id is still taken
    while claims._started(holder.pid) is not None:
        time.sleep(0.01)
    with claimed(store, Console()):
        assert len(names(store)) == 1, "the claim of the dead is put aside"
        assert "written by process" in refused(store), "nor twice in one process"
    assert names(store) == []


def test_of_many_that_start_at_once_never_two_hold_and_one_does(place):
    """Eight threads with a barrier, four times: the holders at any moment are one at most, and somebody got through."""
    store, console, inside, most, through, turned_away = Store(place), Console(), [], [], [], []
    for _ in range(4):
        barrier = threading.Barrier(8)

        def drive(barrier=barrier):
            barrier.wait()
            try:
                with claimed(store, console):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.05)
                    inside.pop()
                    through.append(1)
            except ConfigError as error:
                turned_away.append(str(error))

        threads = [threading.Thread(target=drive) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(most) == {1}
    assert len(through) >= 4
    assert len(through) + len(turned_away) == 4 * 8
    assert all("written by process" in message for message in turned_away)


def test_a_process_of_the_same_id_started_later_is_another(store):
    pretend(store, started="1")
    with claimed(store, Console()):
        assert len(names(store)) == 1


def test_a_clock_that_jumps_steals_nothing_on_the_same_host(store):
    """By its time stamp the claim is a month old; its process lives."""
    name = pretend(store, age_s=30 * 86400)
    assert "elsewhere" in refused(store)
    os.utime(store.path(name), (time.time() + 86400,) * 2)
    assert "elsewhere" in refused(store)


def test_elsewhere_a_claim_lives_as_long_as_it_is_written_anew(store, monkeypatch, capsys):
    pretend(store, machine="another")
    assert re.search(
        r"process \d+ on elsewhere, since 2026-11-21 10:00:00 UTC\. It is another machine's; its last sign of life, due every 20 s, came "
        r"\d s ago, so it is at work, or died just now: wait until it ends, or stop it \(kill \d+ there\); if it is dead, type this again "
        r"in [45] min \d\d s, and this run takes over$",
        refused(store),
    )
    pretend(store, machine="another", age_s=100)
    assert re.search(
        r"came 1 min 4\d s ago, so it is dead or cut off: type this again in 3 min [12]\d s, and this run takes over if none came until "
        r"then$",
        refused(store),
    )
    monkeypatch.setattr(claim, "BEAT_S", 0.2)
    name = pretend(store, machine="another", age_s=claims.SILENT_S + 60)
    ended = threading.Event()
    jumped = threading.Thread(target=lambda: ended.wait(0.1) or store.write(name, store.read(name)))
    jumped.start()  # the store's clock had jumped: the claim is written anew while it is watched
    assert "elsewhere" in refused(store)
    assert "it does give one" in capsys.readouterr().out
    jumped.join()
    pretend(store, machine="another", age_s=claims.SILENT_S + 60)
    with claimed(store, Console()):
        assert names(store) != ["other.json"]
        assert len(names(store)) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "on elsewhere, since 2026-11-21 10:00:00 UTC, which gave no sign of life for 6 min 00 s; watching for one" in told
    assert "it is taken to be dead, and this run takes over" in told


@pytest.fixture(params=["listens to Ctrl-C", "does not"])
def interruptible(request):
    """A process that an interrupt reaches as KeyboardInterrupt: as Ctrl-C, or as SIGTERM where that is ignored."""
    heard, ignored = (signal.SIGINT, None) if request.param == "listens to Ctrl-C" else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(heard, signal.default_int_handler)
    if ignored is not None:
        signal.signal(ignored, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("interruptible")
def test_a_driver_whose_claim_was_put_aside_stops(store, monkeypatch, capsys):
    """As one on a machine that slept: it is interrupted, and says why. While it held its claim, it wrote it anew."""
    monkeypatch.setattr(claim, "BEAT_S", 0.1)

    def drive():
        with claimed(store, Console(stderr=True)):
            (name,) = names(store)
            before = claims.times(store)[f"{FOLDER}/{name}"]
            time.sleep(0.5)
            assert claims.times(store)[f"{FOLDER}/{name}"] > before
            store.delete(f"{FOLDER}/{name}")
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        drive()
    assert "took these results over" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\x00", b'{"machine": 3, "pid": "\x1b[2J"}'])
def test_a_foreign_claim_is_waited_for_like_one_from_elsewhere(store, content):
    store.write(f"{FOLDER}/x.json", content)
    message = refused(store)
    assert "written by whatever wrote" in message
    assert "its last sign of life" in message
    assert "\x1b" not in message
