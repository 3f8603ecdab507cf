"""Failures by cause, by what they share, and what `--retry` runs again."""

from __future__ import annotations

import re

import pytest

from analysis import tables
from analysis.storage import Store
from sweep import views
from sweep.config import ConfigError, load
from sweep.failures import COLUMNS, groups, to_retry
from sweep.plan import Plan, make_plan
from trainables.data import load as load_data
from trainables.rows import write_failure, write_skipped, write_trial

CONFIG = """
name: tiny
data: {source: cells, num_images: 160, image_size: 12, num_slides: 8}
model: {name: cnn, widths: [4, 6]}
training: {epochs: 4, batch_size: 16, replicas: 2}
space:
  activations: [relu, tanh]
  losses: [cross_entropy, squared_error]
  swap_epochs: [1, 2]
  recipe: {training.learning_rate: [0.05, 0.1]}
"""


def raised(kind: type[Exception], message: str) -> Exception:
    try:
        raise kind(message)
    except kind as error:
        return error


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(CONFIG)
    config, _ = load("my.yaml")
    return make_plan(config, load_data(config.data), Store("results/tiny"))


@pytest.fixture
def failing(plan) -> tuple[Plan, Store, dict[str, list[str]]]:
    """Those with learning rate 0.1 that end in tanh ran out of memory, one raised, and what continues from that was skipped."""
    store, ids = Store("results/tiny"), {"memory": [], "code": [], "skipped": []}
    for trial, (base, schedule) in plan.families.items():
        row = plan.row(trial)
        if base.recipe.training.learning_rate == 0.1 and schedule.phases[-1].activation == "tanh":
            write_failure(store, row, raised(MemoryError, f"no room for {len(ids['memory'])} bytes at 0x{id(row):x}"))
            ids["memory"].append(trial)
        elif not ids["code"]:
            write_failure(store, row, raised(ZeroDivisionError, "<b>division</b> \x1b[2J"))
            ids["code"].append(trial)
        elif plan.remaining[trial].parent == ids["code"][0]:
            write_skipped(store, row, f"continues from {ids['code'][0]}, which failed")
            ids["skipped"].append(trial)
        else:
            write_trial(store, row | {"status": "done", "num_diverged": 2})
    return plan, store, ids


def test_failures_are_grouped_by_cause_and_named_by_what_they_share(failing):
    _, store, ids = failing
    found = groups(tables.read(store, "trials", COLUMNS))
    assert [(group.kind, sorted(group.trials)) for group in found] == [
        ("MemoryError", sorted(ids["memory"])),
        ("ZeroDivisionError", ids["code"]),
    ]
    shared = {key: value for key, value, *_ in found[0].shared}
    assert shared["last_activation"] == "tanh"
    assert shared["training.learning_rate"] == 0.1
    assert "model.name" not in shared  # all have it, so it says nothing
    assert "MemoryError: no room for " in found[0].last_lines[-1]


def test_diverged_replicas_are_no_failure(failing):
    _, store, _ = failing
    rows = tables.read(store, "trials", ["trial", "num_diverged", "status"])
    diverged = set(rows.loc[rows["num_diverged"] == 2, "trial"])
    assert diverged
    assert not diverged & {trial for group in groups(tables.read(store, "trials", COLUMNS)) for trial in group.trials}


def test_the_command_reruns_exactly_the_group(failing, capsys):
    plan, store, ids = failing
    assert views.failures("my.yaml", []) == 0
    output = capsys.readouterr().out
    commands = re.findall(r"python -m sweep.run --config my.yaml --retry (\S+)", output)
    assert [sorted(command.split(",")) for command in commands[:2]] == [sorted(ids["memory"]), ids["code"]]
    assert commands[2] == "failed"
    assert "\x1b[2J" not in output  # what an exception says cannot clear the screen
    assert "results/tiny/logs" in output
    again = make_plan(plan.config, load_data(plan.config.data), store)
    parents = {again.remaining[trial].parent for trial in ids["memory"]} - {None}
    assert set(to_retry(again, store, commands[0]).remaining) == set(ids["memory"]) | parents
    everything = to_retry(again, store, "failed")
    assert set(everything.remaining) == {*ids["memory"], *ids["code"], *ids["skipped"]}
    assert set(everything.remaining) | set(everything.left_out) == set(again.remaining)
    assert to_retry(again, store, "all") is again


def test_only_what_failed_is_run_and_not_what_never_ran(failing):
    plan, store, ids = failing
    done = set(plan.families) - {trial for some in ids.values() for trial in some}
    for trial in done:
        store.delete(f"trials/{trial}.parquet")
    again = make_plan(plan.config, load_data(plan.config.data), store)
    run = to_retry(again, store, "failed")
    wanted = {trial for some in ids.values() for trial in some}
    assert wanted <= set(run.remaining) < set(again.remaining)
    for trial, planned in run.remaining.items():  # and what they continue from
        assert planned.parent is None or planned.parent in run.remaining
        assert trial in wanted or any(p.parent == trial for p in run.remaining.values())


@pytest.mark.parametrize(
    ("retry", "why"),
    [("faled", "did you mean 'failed'"), ("", "allowed: failed, all, or ids"), ("t", r"names \d+ families"), ("../x", "no family")],
)
def test_a_wrong_retry_is_explained(failing, retry, why):
    plan, store, _ = failing
    with pytest.raises(ConfigError, match=why):
        to_retry(plan, store, retry)


def test_what_is_done_is_not_run_again(failing):
    plan, store, _ = failing
    again = make_plan(plan.config, load_data(plan.config.data), store)
    done = next(iter(again.done))
    with pytest.raises(ConfigError, match="is done already"):
        to_retry(again, store, done)
