"""Trackers beside the tables: TensorBoard's files, MLflow's store and W&B's offline runs, as their own readers or formats have them."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis import tables
from analysis.storage import Store
from sweep import extras, tracking
from sweep.check import check_here
from sweep.config import ConfigError, load
from sweep.log import RunLog
from sweep.plan import Plan, make_plan
from sweep.tracking import Tracked, described
from sweep.tuner import run_plan
from trainables.data import load as load_data

CONFIG = """
name: tiny
data: {source: cells, num_images: 160, image_size: 12, num_slides: 8}
model: {name: cnn, widths: [4, 6]}
training: {epochs: 3, batch_size: 16, replicas: 2}
probes: {num_samples: 10, baselines: false}
space: {activations: [relu, tanh], losses: [cross_entropy], swap_epochs: [1], swaps: [activation]}
resources: {num_cpus: 2}
"""
INSTALLED = [name for name in ("tensorboard", "mlflow", "wandb") if extras.missing(name) is None]


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    Path("my.yaml").write_text(CONFIG)
    config, _ = load("my.yaml", [f"tracking={INSTALLED}"])
    return make_plan(config, load_data(config.data), Store("results/tiny"))


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """TensorBoard's scalars by name and step, from the records of its files: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
@pytest.mark.filterwarnings("ignore")  # of the trackers' own
def test_a_family_is_shown_over_its_epochs(plan, name):
    """By Tune's callback and the tracker's own files, without Ray: ids, parameters, and numbers at the epochs that they are of."""
    if name not in INSTALLED:
        pytest.skip(extras.missing(name))
    store = Store("results/tiny")
    tracked, (family, *_) = Tracked(name, plan, store, RunLog()), plan.families
    trial = SimpleNamespace(config={"trial": family})
    accuracies = {1: 0.5, 2: 0.75, 3: 0.7}
    tracked.setup()
    tracked.on_trial_start(0, [trial], trial)
    for epoch, accuracy in accuracies.items():
        report = {"epoch": epoch, "test_accuracy": accuracy, "objectives": [], "notes": ["a note"]}
        tracked.on_trial_result(0, [trial], trial, {"status": "running", "report": json.dumps(report)})
    tracked.on_trial_complete(0, [trial], trial)
    tracked.on_experiment_end([trial])
    assert not tracked._is_broken
    place = Path("results/tiny/tracking") / name
    if name == "tensorboard":
        found = scalars(place / family)
        assert found["ray/tune/test_accuracy"] == pytest.approx(accuracies)
        assert not {"ray/tune/notes", "ray/tune/objectives"} & set(found)
    else:
        check_mlflow(plan, place, [family], {(family, 3): 0.7})


@pytest.mark.slow  # on Ray; the test above is its small form
@pytest.mark.timeout(1800)  # W&B's callback starts two processes per family
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_is_tracked(plan, monkeypatch):
    """With every tracker that is installed; what they were told is what the tables say."""
    monkeypatch.setattr(tracking, "_AT_END_S", 600.0)  # a busy machine is waited for: here it is about what is told
    store, console = Store("results/tiny"), RunLog()
    outcome = run_plan(plan, store, console)
    assert not outcome.failed
    curves = tables.read(store, "epochs")
    curves = curves[(curves["moment"] == "epoch") & (curves["split"] == "test")].groupby(["trial", "epoch"])["accuracy"].mean()
    place = Path("results/tiny/tracking")
    assert sorted(path.name for path in place.iterdir()) == sorted(INSTALLED)
    for trial, planned in plan.remaining.items():
        wanted = {epoch: pytest.approx(curves[trial, epoch], rel=1e-6) for epoch in range(planned.start_epoch + 1, 4)}
        assert scalars(place / "tensorboard" / trial)["ray/tune/test_accuracy"] == wanted
    if "mlflow" in INSTALLED:
        check_mlflow(plan, place / "mlflow", list(plan.families), curves)
    if "wandb" in INSTALLED:
        runs = [path.name.rpartition("-")[2] for path in (place / "wandb").glob("wandb/offline-run-*")]
        assert sorted(runs) == sorted(plan.families)


def check_mlflow(plan: Plan, place: Path, families: list[str], last_accuracy) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{place.absolute()}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name.split(" ")[0] for run in runs} == set(families)
    for run in runs:
        trial = run.info.run_name.split(" ")[0]
        assert run.info.status == "FINISHED"
        assert run.data.params["schedule"] == str(plan.families[trial].schedule)
        assert run.data.metrics["test_accuracy"] == pytest.approx(last_accuracy[trial, 3])


def test_what_a_tracker_is_shown_of_a_family(plan):
    trial = next(iter(plan.families))
    found = described(plan, trial)
    assert found["schedule"] == str(plan.families[trial].schedule)
    assert found["training.replicas"] == 2
    assert found["first_activation"] in ("relu", "tanh")


def test_a_tracker_that_fails_is_told_once_and_costs_itself_only(plan, capsys):
    class Broken:
        def setup(self):
            raise ConnectionError("nobody there \x1b[2J")

    tracked = Tracked("tensorboard", plan, Store("results/tiny"), RunLog(soft_wrap=True))
    tracked._begin = lambda: Broken().setup()
    trial = SimpleNamespace(config={"trial": next(iter(plan.families))})
    tracked.setup()
    tracked.on_trial_start(0, [trial], trial)  # without a logger: would be told of, too
    tracked.on_experiment_end([trial])
    assert (
        capsys.readouterr().out == "note: tracking with tensorboard has ended, the sweep goes on: ConnectionError: nobody there \\x1b[2J\n"
    )


def test_families_of_an_interrupted_run_are_ended(plan):
    """W&B's callback would wait for them, for half an hour."""
    ended = []

    class Logger:
        def log_trial_start(self, shown): ...

        def log_trial_end(self, shown, failed):
            ended.append((shown.trial_id, failed))

        def on_experiment_end(self, trials):
            ended.append("all")

    tracked = Tracked("wandb", plan, Store("results/tiny"), RunLog())
    tracked._logger = Logger()
    tracked._thread.start()
    first, second, *_ = trials = [SimpleNamespace(config={"trial": trial}) for trial in plan.families]
    for trial in (first, second):
        tracked.on_trial_start(0, trials, trial)
    tracked.on_trial_complete(0, trials, first)
    tracked.on_experiment_end(trials)
    assert ended == [(first.config["trial"], False), (second.config["trial"], True), "all"]


def test_a_slow_tracker_is_waited_for_and_a_stuck_one_is_not(plan, capsys, monkeypatch):
    monkeypatch.setattr(tracking, "_AT_END_S", 1.0)
    trial, ended = SimpleNamespace(config={"trial": next(iter(plan.families))}), []

    class Slow:
        def log_trial_start(self, shown):
            time.sleep(0.7)

        def log_trial_end(self, shown, failed):
            ended.append(shown.trial_id)
            time.sleep(0.7 if len(ended) == 1 else 60)  # in a thread that ends with the process

        def on_experiment_end(self, trials): ...

    for again in (False, True):
        tracked = Tracked("mlflow", plan, Store("results/tiny"), RunLog(soft_wrap=True))
        tracked._logger = Slow()
        tracked._thread.start()
        tracked.on_trial_start(0, [trial], trial)
        tracked.on_experiment_end([trial])
        said = capsys.readouterr().out
        assert len(ended) == 1 + again
        assert "is behind" in said
        assert ("has taken nothing for 1 s" in said) == again
        assert tracked._is_broken == again


def test_a_missing_package_is_refused_with_what_installs_it(plan, monkeypatch):
    monkeypatch.setitem(extras.PACKAGES, "wandb", "absent_wandb")
    config, source = load("my.yaml", ["tracking=[wandb]"])
    with pytest.raises(ConfigError, match=r"tracking: wandb needs the package absent_wandb.* pip install 'karenina-sweep\[wandb\]'"):
        check_here(config, Store("results/tiny"), source)
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        load("my.yaml", ["tracking=[tensorbord]"])


def test_results_elsewhere_are_tracked_here(plan):
    """A tracker writes files on this machine; names of families do not know of it."""
    from sweep.tracking import folder

    class Elsewhere(Store):
        is_local = False

        def __init__(self) -> None:
            pass

    assert folder(plan.config, Elsewhere(), "wandb") == Path("tracking/tiny/wandb").absolute()
    without, _ = load("my.yaml")
    assert set(make_plan(without, load_data(without.data), Store("results/tiny")).families) == set(plan.families)
