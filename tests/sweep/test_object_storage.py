"""Results on S3: a real server on loopback, and the same tables as on a disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import storage, tables
from analysis.storage import Store
from sweep.__main__ import main
from sweep.config import load
from sweep.plan import make_plan, results_store
from sweep.study import SearchStudy
from tests.aws import REGION, emulated, faulty
from trainables.data import load as load_data
from trainables.family import Family
from trainables.family import run as run_family
from trainables.states import States

CONFIG = """
name: tiny
data: {source: cells, num_images: 160, image_size: 12, num_slides: 8}
model: {name: cnn, widths: [4, 6]}
training: {epochs: 3, batch_size: 16, replicas: 2, learning_rate: 0.05}
probes: {num_samples: 10, baselines: false}
space: {activations: [relu, tanh], losses: [cross_entropy], swap_epochs: [1, 2], swaps: [activation]}
resources: {num_cpus: 2}
analysis: {num_permutations: 99}
storage: {path: "s3://our-results/results"}
"""
SEARCH = f"""{CONFIG}
search: {{kind: optuna, num_families: 3, objectives: [{{metric: gap_accuracy, direction: maximize}}]}}
"""


@pytest.fixture
def s3(monkeypatch):
    """An empty bucket `our-results`, and the environment that leads to it."""
    boto3 = pytest.importorskip("boto3")
    with emulated() as environment:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        boto3.client("s3").create_bucket(Bucket="our-results", CreateBucketConfiguration={"LocationConstraint": REGION})
        yield environment


def sweep_run(folder: Path, text: str) -> str:
    (folder / "my.yaml").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RAY_TMPDIR": "/tmp"}
    command = [sys.executable, "-m", "sweep.run", "--config", "my.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_sweep_on_s3_writes_the_tables_of_one_on_a_disk(s3, tmp_path, same_tables):
    """From the command to the report, over a way that fails one request in twenty; and nothing is done twice."""
    with faulty(s3["AWS_ENDPOINT_URL"], seed=0, rate=0.05) as (url, faults):
        os.environ["AWS_ENDPOINT_URL"] = url  # put back by the fixture
        output = sweep_run(tmp_path, CONFIG)
        assert "6 of 6 families done" in output
        assert "0 to run" in sweep_run(tmp_path, CONFIG.replace("analysis: {", "analysis: {enabled: false, "))
        assert sum(faults.values()) - faults["none"] >= 5, faults
    os.environ["AWS_ENDPOINT_URL"] = s3["AWS_ENDPOINT_URL"]
    config, _ = load(str(tmp_path / "my.yaml"))
    there, here = results_store(config), Store(tmp_path / "results")
    assert {"report.html", "sweep.yaml", "SCHEMA.md"} <= set(there.names(""))
    assert "association.parquet" in there.names("analysis")
    assert not States(there).names()
    for base, schedule in make_plan(config, load_data(config.data), here).families.values():
        list(run_family(Family(base.recipe, config.probes, schedule), here))
    for table in tables.TABLES:
        if table not in ("samples", "runs", "image_statistics"):  # which are of the sweep, not of a family
            assert tables.names(there, table) == tables.names(here, table)
    same_tables(there, here, tables.names(here, "trials"))


def test_a_study_on_s3_outlives_the_process(s3, tmp_path):
    (tmp_path / "my.yaml").write_text(SEARCH)
    config, _ = load(str(tmp_path / "my.yaml"))
    store = results_store(config)
    assert SearchStudy.existing(config, store) is None
    study = SearchStudy.create(config, store)
    first, second = study.ask(), study.ask()
    study.tell(first.number, [0.25])
    again = SearchStudy.create(config, results_store(config))
    assert [(p.number, p.point, p.state) for p in again.proposals()] == [(0, first.point, "COMPLETE"), (1, second.point, "RUNNING")]
    again.tell(second.number, [0.5])
    assert [t.value for t in again.study.get_trials()] == [0.25, 0.5]
    read = SearchStudy.existing(config, results_store(config))
    assert read is not None
    assert [p.state for p in read.proposals()] == ["COMPLETE", "COMPLETE"]


@pytest.mark.slow
def test_a_search_on_s3(s3, tmp_path):
    output = sweep_run(tmp_path, SEARCH)
    assert "3 of 3 families proposed" in output
    assert "study.journal" in output
    assert "3 of 3 families proposed" in sweep_run(tmp_path, SEARCH)


def test_a_failing_writer_leaves_no_half_object(s3):
    store = Store("s3://our-results/results/tiny")
    store.write("table/a", b"old")

    def fail(sink):
        sink.write(b"half")
        raise RuntimeError("killed")

    for name in ("table/a", "table/b"):
        with pytest.raises(RuntimeError, match="killed"):
            store.write_with(name, fail)
    assert store.names("table") == ["a"]
    assert store.read("table/a") == b"old"


def test_thousands_of_small_objects_come_many_at_a_time(s3):
    """Requests overlap: with each kept waiting, all together take less than one after the other would."""
    store = Store("s3://our-results/results/tiny")
    store.each(lambda number: store.write(f"many/{number:04d}", str(number).encode()), range(64))
    with faulty(s3["AWS_ENDPOINT_URL"], seed=0, rate=0.0) as (url, served):
        slow = Store(f"s3://our-results/results/tiny?endpoint_override={url}&scheme=http")
        assert slow.each(lambda name: int(slow.read(f"many/{name}")), slow.names("many")) == list(range(64))
        assert served["none"] >= 65


def test_a_store_that_does_not_answer_is_not_one_with_damaged_files(s3, monkeypatch, tmp_path, capsys):
    """Nothing is run again, or deleted by a repair, because of it: each command ends with one line that says so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(CONFIG)
    config, _ = load("my.yaml")
    store = results_store(config)
    monkeypatch.setattr(storage, "_ATTEMPTS", 1)
    for name, verbs in (("trials/t0.parquet", (["plan"], ["status"], ["check", "--repair"])), (States.file("s0"), (["plan"], ["status"]))):
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3["AWS_ENDPOINT_URL"])
        store.write(name, b"what there is")
        for kind in ("refused", "closed"):
            with faulty(s3["AWS_ENDPOINT_URL"], seed=0, rate=1.0, kinds=(kind,)) as (url, _):
                monkeypatch.setenv("AWS_ENDPOINT_URL", url)
                for verb in verbs:
                    assert main([*verb, "--config", "my.yaml"]) == 2
                    said = capsys.readouterr().err
                    assert re.search(r"^(s3://)?our-results/results/tiny/\S*: refused or not answered, .* 503", said), said
        assert store.read(name) == b"what there is"
        store.delete(name)


def test_a_store_that_goes_on_failing_is_asked_again(s3, monkeypatch):
    """Two requests of five fail, many at a time: one that has attempts left is never given up because so many others fail."""
    objects = {f"table/{i}.parquet": os.urandom(500) for i in range(60)}
    with faulty(s3["AWS_ENDPOINT_URL"], seed=0, rate=0.4, hang_s=0.0) as (url, served):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        store = Store("s3://our-results/failing")
        for name, data in objects.items():
            store.write(name, data)
        assert store.each(store.read, list(objects) * 8) == list(objects.values()) * 8
    assert served.total() - served["none"] > 200


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("s3://key:secret@our-results/x", "credentials are refused"),
        ("s3://our-results/x?endpoint=http%3A%2F%2Flocalhost", "unknown option 'endpoint'; allowed: region"),
    ],
)
def test_a_wrong_uri_is_refused_without_a_traceback(path, why, tmp_path):
    from sweep.config import ConfigError

    (tmp_path / "my.yaml").write_text(CONFIG)
    config, _ = load(str(tmp_path / "my.yaml"), [f"storage.path={path}"])
    with pytest.raises(ConfigError, match=why):
        results_store(config)


def test_options_of_a_uri_stay_behind_the_path(tmp_path):
    (tmp_path / "my.yaml").write_text(CONFIG)
    config, _ = load(str(tmp_path / "my.yaml"), ["storage.path=s3://our-results/x?region=eu-west-1"])
    assert config.root == "s3://our-results/x/tiny?region=eu-west-1"
    assert Store(config.root).base == "our-results/x/tiny"
    assert Store(config.root).filesystem.region == "eu-west-1"
