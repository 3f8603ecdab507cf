"""The whole path on a real Ray, as a user types it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest

from analysis import tables
from analysis.measures.generalization import gaps
from analysis.storage import Store
from sweep.config import load
from sweep.cost import estimate
from sweep.plan import make_plan
from sweep.simulate import most_states
from trainables.data import load as load_data
from trainables.family import Family
from trainables.family import run as run_family

CONFIG = """
name: tiny
data: {source: cells, num_images: 160, image_size: 12, num_slides: 8}
model: {name: cnn, widths: [4, 6]}
training: {epochs: 4, batch_size: 16, replicas: 2, learning_rate: 0.05}
probes: {num_samples: 10}
space:
  {activations: [relu, tanh], losses: [cross_entropy, squared_error], swap_epochs: [1, 2], swaps: [activation, loss], pulse_epochs: [1]}
resources: {num_cpus: 2}
analysis: {num_permutations: 99}
"""
NUM_FAMILIES = 4 + 2 * 2 * 4 * 2


def start(folder: Path, *arguments: str, module: str = "sweep.run") -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{folder}", "RAY_TMPDIR": "/tmp"}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, *arguments: str, module: str = "sweep.run", code: int = 0) -> str:
    process = start(folder, *arguments, module=module)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def folder_with(path: Path, text: str = CONFIG) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "my.yaml").write_text(text)
    return path


def kill_tree(process: subprocess.Popen) -> None:
    """Kill a process and all that it started, at once, as a power cut does."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in tree:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished sweep, and what it printed."""
    folder = folder_with(tmp_path_factory.mktemp("undisturbed"))
    return folder, finish(folder, "--config", "my.yaml")


def test_from_a_sweep_file_to_a_verdict(undisturbed):
    folder, output = undisturbed
    results = folder / "results" / "tiny"
    assert f"{NUM_FAMILIES} of {NUM_FAMILIES} families done" in output
    assert "report.html" in output
    assert "Traceback" not in output
    assert "Trial name" not in output  # Tune's own tables
    trials = pd.read_parquet(results / "trials")
    assert trials["status"].tolist() == ["done"] * NUM_FAMILIES
    assert len(pd.read_parquet(results / "replicas")) == 2 * NUM_FAMILIES
    for name in ("report.html", "SCHEMA.md", "sweep.yaml", "analysis/spread.parquet", "analysis/association.parquet"):
        assert (results / name).stat().st_size > 100, name
    assert not list((results / "states").glob("*"))
    assert not list((results / ".tmp").glob("*"))


def test_every_replica_epoch_is_trained_once(undisturbed):
    folder, _ = undisturbed
    config, _ = load(str(folder / "my.yaml"))
    empty = Store(folder / "nothing")
    plan = make_plan(config, load_data(config.data), empty)
    trials = pd.read_parquet(folder / "results" / "tiny" / "trials")
    assert (trials["epochs_trained"] * trials["num_replicas"]).sum() == plan.unique_replica_epochs < plan.total_replica_epochs
    (run,) = pd.read_parquet(folder / "results" / "tiny" / "runs").to_dict("records")
    assert run["replica_epochs"] == run["replica_epochs_planned"] == plan.unique_replica_epochs
    assert run["families"] == run["families_done"] == NUM_FAMILIES
    assert run["num_deaths"] == 0
    assert 0 < run["num_states"] <= most_states(plan)
    assert 0 < run["num_states_planned"] <= most_states(plan)
    assert run["predicted_device_s"] > 0 < run["device_s"]
    assert run["predicted_bytes"] == pytest.approx(run["bytes"], rel=0.3)


def test_a_budget_trains_what_fits_and_the_rest_later(undisturbed, tmp_path, same_tables):
    """Two runs within budgets and one without: nothing is trained twice, and the tables are those of one run."""
    folder = folder_with(tmp_path, CONFIG.replace("analysis: {", "analysis: {enabled: false, "))
    results = folder / "results" / "tiny"
    output = finish(folder, "--config", "my.yaml", "--budget-hours", "1e-9", code=2)
    assert output.strip().splitlines()[-1].startswith("--budget-hours: the plan costs ")
    assert "the budget is 1e-09; not even the first of 36 families fits" in output
    assert not [path for path in results.rglob("*") if path.is_file()]
    config, _ = load(str(folder / "my.yaml"))
    plan = make_plan(config, load_data(config.data), Store(results))
    cost = estimate(plan, load_data(config.data), Store(results))
    output = finish(folder, "--config", "my.yaml", "--budget-hours", str(cost.total_s / 3600 / 2), "--trim")
    num_done = len(list((results / "trials").glob("*.parquet")))
    assert 0 < num_done < NUM_FAMILIES
    assert f"the sweep is not complete: {NUM_FAMILIES - num_done} families left out" in output
    assert "pay for" in finish(folder, "plan", "--config", "my.yaml", "--budget-hours", "9", module="sweep")
    finish(folder, "--config", "my.yaml")
    runs = pd.read_parquet(results / "runs").sort_values("started_at")
    assert runs["families_done"].tolist() == [num_done, NUM_FAMILIES - num_done]
    assert runs["families_left_out"].tolist() == [NUM_FAMILIES - num_done, 0]
    assert runs["replica_epochs"].sum() == plan.unique_replica_epochs
    assert not list((results / "states").glob("*"))
    same_tables(Store(results), Store(undisturbed[0] / "results" / "tiny"), without=("image_statistics",))  # which the analysis asks for


def test_ray_changes_no_bit(undisturbed, tmp_path, same_tables):
    """Families trained alone, from scratch, in this process, write the tables that the sweep wrote."""
    folder, _ = undisturbed
    config, _ = load(str(folder / "my.yaml"))
    store, alone = Store(folder / "results" / "tiny"), Store(tmp_path)
    plan = make_plan(config, load_data(config.data), alone)
    some = list(plan.families.items())[::7]
    for _, (base, schedule) in some:
        list(run_family(Family(base.recipe, config.probes, schedule), alone))
        for path in (tmp_path / "states").glob("*"):
            path.unlink()
    same_tables(store, alone, [trial for trial, _ in some])


def test_the_same_command_again_trains_nothing(undisturbed):
    folder, _ = undisturbed
    before = {p: p.stat().st_mtime_ns for p in (folder / "results" / "tiny").rglob("t*.parquet")}
    began = time.monotonic()
    output = finish(folder, "--config", "my.yaml")
    assert f"{NUM_FAMILIES} done, 0 to run" in output
    assert time.monotonic() - began < 30
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "results" / "tiny").rglob("t*.parquet")}


def test_the_verbs_that_look(undisturbed):
    folder, _ = undisturbed
    arguments = ("--config", "my.yaml")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    first, second = tables.names(Store(folder / "results" / "tiny"), "trials")[:2]
    assert f"{NUM_FAMILIES} done, 0 to run" in finish(folder, "plan", *arguments, module="sweep")
    fresh = finish(folder, "plan", *arguments, "--set", "name=other", module="sweep")
    for text in ("sharing saves", "critical path", "device-hours", "training states: at most", "of tables", "pulse", "activation swap"):
        assert text in fresh
    assert f"{NUM_FAMILIES} done, 0 failed" in finish(folder, "status", *arguments, module="sweep")
    assert "no family failed" in finish(folder, "failures", *arguments, module="sweep")
    assert "test_accuracy" in finish(folder, "show", first, *arguments, module="sweep")
    assert "schedule" in finish(folder, "diff", first, second, *arguments, module="sweep")
    assert "names 0 families" in finish(folder, "show", "tnothere", *arguments, module="sweep", code=2)
    assert "no results here yet" in finish(folder, "failures", *arguments, "--set", "name=other", module="sweep", code=2)
    assert files == sorted(p for p in folder.rglob("*") if p.is_file()), "a verb that looks has written"


def test_a_users_mistake_shows_no_traceback(tmp_path):
    folder = folder_with(tmp_path)
    output = finish(folder, "--config", "my.yaml", "--set", "training.replcias=4", code=2)
    assert output.strip().startswith("my.yaml with --set: training.replcias: unknown key; did you mean 'replicas'?")
    assert "Traceback" not in output
    assert not (folder / "results").exists()


def test_a_family_that_raises_is_recorded_and_the_sweep_goes_on(tmp_path):
    """A loss that fails while it trains: its control fails, what continues from that is skipped, all else is done."""
    folder = folder_with(tmp_path, CONFIG.replace("squared_error]", "'mine:loss']").replace("pulse_epochs: [1]", "pulse_epochs: []"))
    (folder / "mine.py").write_text(
        "from trainables.losses import cross_entropy\n"
        "def loss(z, y):\n"
        "    if z.requires_grad and z.shape[-1] == 2 and z.shape[-2] == 16:\n"
        "        raise RuntimeError('on [/purpose]')\n"
        "    return cross_entropy(z, y)\n"
    )
    output = finish(folder, "--config", "my.yaml", code=1)
    counts = pd.read_parquet(folder / "results" / "tiny" / "trials")["status"].value_counts().to_dict()
    # 4 controls, 2 of them with the broken loss; of 16 swaps 8 go to or start from it, and those that start there are skipped.
    assert counts == {"done": 2 + 4, "failed": 2 + 4, "skipped": 8}
    assert "on [/purpose]" in output
    failures = finish(folder, "failures", "--config", "my.yaml", module="sweep")
    assert "6 x RuntimeError: on [/purpose]" in failures
    assert "8 skipped" in failures
    assert "all have last_loss = mine:loss, as have 0 of the 6 others" in failures
    assert "to run all of them again: python -m sweep.run --config my.yaml --retry failed" in failures
    (log,) = (folder / "results" / "tiny" / "logs").glob("*.log")
    assert "failed: RuntimeError: on [/purpose]" in log.read_text()
    (folder / "mine.py").write_text("from trainables.losses import cross_entropy as loss\n")
    assert "20 of 20 families done" in finish(folder, "--config", "my.yaml", "--set", "resources.executor=vmap", "--retry", "failed")
    assert "no family failed" in finish(folder, "failures", "--config", "my.yaml", module="sweep")
    computed = pd.read_parquet(folder / "results" / "tiny" / "trials")["device"].value_counts().to_dict()
    assert computed == {"cpu grouped": 6, "cpu vmap": 14}


def wait_for(folder: Path, process: subprocess.Popen, num_families: int, name: str = "tiny") -> None:
    trials = folder / "results" / name / "trials"
    for _ in range(1200):
        if len(list(trials.glob("*.parquet"))) >= num_families:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("no family finished within a minute")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_and_says_how_to_go_on(tmp_path, number, undisturbed, same_tables):
    folder = folder_with(tmp_path)
    process = start(folder, "--config", "my.yaml")
    wait_for(folder, process, 3)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "To go on: python -m sweep.run --config my.yaml" in output
    assert "Traceback" not in output
    assert f"{NUM_FAMILIES} of {NUM_FAMILIES} families done" in finish(folder, "--config", "my.yaml")
    same_tables(Store(folder / "results" / "tiny"), Store(undisturbed[0] / "results" / "tiny"))


def go_on(folder: Path, undisturbed, same_tables) -> None:
    """After a kill, the same command does what is missing, nothing else, and ends in the tables of an undisturbed run."""
    results = folder / "results" / "tiny"
    before = {p.name: p.stat().st_mtime_ns for p in (results / "trials").glob("*.parquet")}
    finish(folder, "--config", "my.yaml")
    after = {p.name: p.stat().st_mtime_ns for p in (results / "trials").glob("*.parquet")}
    assert {name: after[name] for name in before} == before, "finished work was done again"
    same_tables(Store(results), Store(undisturbed[0] / "results" / "tiny"))


def test_kill_9_loses_nothing(tmp_path, undisturbed, same_tables):
    folder = folder_with(tmp_path)
    process = start(folder, "--config", "my.yaml")
    wait_for(folder, process, 5)
    kill_tree(process)
    assert 5 <= len(list((folder / "results" / "tiny" / "trials").glob("*.parquet"))) < NUM_FAMILIES
    go_on(folder, undisturbed, same_tables)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_kill_9_loses_nothing_at_any_moment(tmp_path, undisturbed, same_tables, seed):
    """At random moments, from the start of Ray to the analysis."""
    folder = folder_with(tmp_path)
    process = start(folder, "--config", "my.yaml")
    time.sleep(random.Random(seed).uniform(2, 16))
    if process.poll() is None:
        kill_tree(process)
    go_on(folder, undisturbed, same_tables)


def test_a_dead_worker_is_retried(tmp_path, undisturbed, same_tables):
    folder = folder_with(tmp_path)
    process = start(folder, "--config", "my.yaml")
    wait_for(folder, process, 3)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "ResourceTrainable" in " ".join(p.cmdline())]
    assert workers
    workers[0].kill()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "died: what had not been reported was trained again" in output
    assert "Traceback" not in output
    assert pd.read_parquet(folder / "results" / "tiny" / "runs")["num_deaths"].item() >= 1
    same_tables(Store(folder / "results" / "tiny"), Store(undisturbed[0] / "results" / "tiny"))


def test_nothing_listens_beyond_loopback(tmp_path):
    folder = folder_with(tmp_path)
    process = start(folder, "--config", "my.yaml")
    wait_for(folder, process, 1)
    ours = [process.pid, *(p.pid for p in psutil.Process(process.pid).children(recursive=True))]
    listening = [c.laddr.ip for c in psutil.net_connections("inet") if c.pid in ours and c.status == psutil.CONN_LISTEN]
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}


RECIPE_AXIS = "pulse_epochs: [1], recipe: {training.learning_rate: [0.05, 0.1]}}"
SPACE_TO_SEARCH = CONFIG.replace("pulse_epochs: [1]}", RECIPE_AXIS).replace("name: tiny", "name: search")
SEARCH = f"""{SPACE_TO_SEARCH}
search:
  kind: optuna
  num_families: 6
  sampler_options: {{population_size: 4}}
  objectives: [{{metric: spread/cka/block2/end, direction: maximize}}, {{metric: gap_accuracy, direction: maximize}}]
"""
HOPELESS = f"""{SPACE_TO_SEARCH.replace("analysis: {num_permutations: 99}", "analysis: {enabled: false}")}
search:
  kind: optuna
  num_families: 4
  objectives: [{{metric: test_accuracy, direction: maximize}}]
  pruning: {{kind: threshold, lower: 1.0, warmup_epochs: 2}}
"""


def check_search(results: Path, num_families: int) -> optuna.Study:
    """The study is at its end, and says of every family what the analysis says."""
    backend = optuna.storages.journal.JournalFileBackend(str(results / "study.journal"))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    assert {t.state.name for t in study.trials} <= {"COMPLETE", "PRUNED"}
    complete = {t.user_attrs["trial"]: t for t in study.trials if t.state.name == "COMPLETE"}
    assert len(complete) == num_families
    spread = pd.read_parquet(results / "analysis" / "spread.parquet").query("measure == 'cka' and layer == 'block2' and moment == 'end'")
    expected = spread.set_index("trial")["spread"]
    gap = gaps(pd.read_parquet(results / "replicas")).set_index("trial")["gap_accuracy"]
    for trial, told in complete.items():
        assert told.values == [expected[trial], pytest.approx(gap[trial], rel=1e-12)]
    trials = pd.read_parquet(results / "trials")
    assert set(trials["status"]) == {"done"}
    assert set(trials["trial"]) == set(complete) | set(trials["control"])
    return study


def test_a_search_with_several_objectives(tmp_path):
    folder = folder_with(tmp_path, SEARCH)
    output = finish(folder, "--config", "my.yaml")
    results = folder / "results" / "search"
    check_search(results, 6)
    assert "search: nsga2 to maximize spread/cka/block2/end, maximize gap_accuracy; 6 of 6 families proposed" in output
    assert "chosen for what they measure" in output
    trials = pd.read_parquet(results / "trials")
    trained = Counter(
        (row.base, epoch, *(phase for phase in row.schedule.split() if int(phase.partition(":")[0]) <= epoch))
        for row in trials.itertuples()
        for epoch in range(row.num_epochs - row.epochs_trained, row.num_epochs)
    )
    assert set(trained.values()) == {1}, "an epoch of a history was trained twice"
    assert not list((results / "states").glob("*"))
    assert "Traceback" not in output
    assert trials["base"].nunique() == 2
    spreads = pd.read_parquet(results / "analysis" / "spread.parquet")
    finish(folder, "results/search", "--permutations", "99", module="analysis")
    pd.testing.assert_frame_equal(pd.read_parquet(results / "analysis" / "spread.parquet"), spreads)
    status = finish(folder, "status", "--config", "my.yaml", module="sweep")
    assert f"{len(trials)} families: {len(trials)} done" in status
    assert "6 of 6 families proposed" in status


def test_kill_9_loses_nothing_of_a_search(tmp_path):
    folder = folder_with(tmp_path, SEARCH)
    process = start(folder, "--config", "my.yaml")
    wait_for(folder, process, 3, "search")
    kill_tree(process)
    results = folder / "results" / "search"
    before = {p.name: p.stat().st_mtime_ns for p in (results / "trials").glob("*.parquet")}
    output = finish(folder, "--config", "my.yaml")
    assert "6 of 6 families proposed" in output
    after = {p.name: p.stat().st_mtime_ns for p in (results / "trials").glob("*.parquet")}
    assert {name: after[name] for name in before} == before, "finished work was done again"
    study = check_search(results, 6)
    assert [t.number for t in study.trials] == list(range(len(study.trials)))


def test_a_search_prunes_hopeless_families(tmp_path):
    """Every stressed family is given up after an epoch; the controls run to their end, and the same command does nothing more."""
    folder = folder_with(tmp_path, HOPELESS)
    output = finish(folder, "--config", "my.yaml")
    trials = pd.read_parquet(folder / "results" / "search" / "trials")
    assert set(trials["status"]) == {"done", "pruned"}
    assert (trials["status"] == "pruned").sum() == 4 == output.count("pruned: val_accuracy was 0.")
    assert set(trials.loc[trials["status"] == "done", "swapped"]) == {"none"}
    assert "4 of 4 families proposed" in finish(folder, "--config", "my.yaml")
