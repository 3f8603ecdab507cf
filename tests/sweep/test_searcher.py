"""When families are released, skipped and forgotten, event by event."""

import pytest
from ray.tune.search import Searcher

from analysis import tables
from sweep.config import Space, Sweep
from sweep.plan import make_plan
from sweep.searcher import PrefixSearcher
from trainables.family import Family
from trainables.recipe import Model
from trainables.schedule import Schedule
from trainables.states import States
from trainables.trainable import Work, from_config, to_config


@pytest.fixture
def sweep(small_recipe, probes) -> Sweep:
    """A control, two swaps at epochs 1 and 3, and a pulse on the first: a chain of three and a branch."""
    schedules = [
        [[0, "relu", "focal"]],
        [[0, "relu", "focal"], [1, "tanh", "focal"]],
        [[0, "relu", "focal"], [3, "sin", "focal"]],
        [[0, "relu", "focal"], [1, "tanh", "focal"], [2, "relu", "focal"]],
    ]
    space = Space(activations=["relu"], losses=["focal"], swaps=[], schedules=schedules)
    return Sweep(name="chain", data=small_recipe.data, model=small_recipe.model, training=small_recipe.training, probes=probes, space=space)


@pytest.fixture
def searcher(sweep, small_data, store) -> PrefixSearcher:
    found = PrefixSearcher(make_plan(sweep, small_data, store), store)
    for name in found.plan.users:  # stand-ins for the files that the trunks would have saved
        store.write(States.file(name), b"")
    return found


def family_of(searcher: PrefixSearcher, config: dict[str, str]) -> Family:
    """What a worker makes of a suggestion."""
    return from_config(config, searcher.work)


def by_text(searcher: PrefixSearcher, text: str) -> str:
    return next(trial for trial, (_, schedule) in searcher.plan.families.items() if str(schedule) == text)


CONTROL, SWAP = "0:relu/focal", "0:relu/focal 1:tanh/focal"
LATE, PULSE = "0:relu/focal 3:sin/focal", "0:relu/focal 1:tanh/focal 2:relu/focal"


def test_a_branch_starts_as_soon_as_its_trunk_has_passed_the_swap(searcher):
    config = searcher.suggest("a")
    assert str(family_of(searcher, config).schedule) == CONTROL
    assert family_of(searcher, config).save_epochs == {1, 3}
    assert searcher.suggest("b") is None
    states = searcher.plan.remaining[config["trial"]].saves
    searcher.on_trial_result("a", {"state": states[1]})
    assert str(family_of(searcher, searcher.suggest("b")).schedule) == SWAP
    assert searcher.suggest("c") is None
    searcher.on_trial_result("a", {"state": states[3]})
    assert str(family_of(searcher, searcher.suggest("c")).schedule) == LATE
    assert searcher.suggest("d") is None


def test_states_are_removed_once_nobody_needs_them(searcher, store):
    states = States(store)
    for name, text in zip("abcd", (CONTROL, SWAP, PULSE, LATE), strict=True):  # the longest remaining chain first
        assert searcher.suggest(name)["trial"] == by_text(searcher, text)
        searcher.on_trial_complete(trial_id=name, result={"status": "done"})
    assert states.names() == []
    assert searcher.suggest("e") == Searcher.FINISHED
    assert not searcher.failed


def test_a_finished_trunk_releases_what_still_waits(searcher):
    """The report of a state can die with the worker that saved it; the retry continues behind it."""
    searcher.suggest("a")
    searcher.on_trial_complete(trial_id="a", result={"status": "done"})
    assert {str(family_of(searcher, searcher.suggest(n)).schedule) for n in "bc"} == {SWAP, LATE}


def test_a_failed_trunk_skips_its_descendants_and_says_why(searcher, store):
    control = searcher.suggest("a")["trial"]
    searcher.on_trial_result("a", {"state": searcher.plan.remaining[control].saves[1]})
    searcher.suggest("b")
    searcher.on_trial_complete(trial_id="a", result={"status": "failed", "error": "ZeroDivisionError: x"})
    rows = tables.read(store, "trials").set_index("schedule")
    assert rows["status"].to_dict() == {LATE: "skipped"}
    assert rows.loc[LATE, "error_message"] == f"continues from {control}, which failed: ZeroDivisionError: x"
    for name in "bcde":  # a dead worker is retried three times, by the same or another
        searcher.on_trial_complete(trial_id=name, error=True)
        searcher.on_trial_complete(trial_id=name, error=True)  # Tune may tell twice
        if name != "e":
            assert searcher.suggest(chr(ord(name) + 1))["trial"] == by_text(searcher, SWAP)
    rows = tables.read(store, "trials").set_index("schedule")
    assert rows["status"].to_dict() == {LATE: "skipped", SWAP: "failed", PULSE: "skipped"}
    assert rows.loc[SWAP, "error_type"] == "WorkerDied"
    assert searcher.suggest("f") == Searcher.FINISHED
    assert len(searcher.failed) == 4
    swap = by_text(searcher, SWAP)
    assert searcher.plan.remaining[swap].start_state in States(store).names(), "a failed family needs its start for another try"


def test_what_a_worker_is_told_makes_the_same_family(small_recipe, probes):
    """The recipe travels once; a family under another recipe tells only in what that differs."""
    work = Work(small_recipe, "0" * 64, probes, "/nowhere", "cpu", 1)
    schedule = Schedule.of([[0, "relu", "focal"], [2, "package.module:act", "focal"]])
    changed = small_recipe.training.model_copy(update={"learning_rate": 0.01, "clip_norm": 1.0})
    other = small_recipe.model_copy(update={"training": changed, "model": Model(name="mlp")})
    for recipe in (small_recipe, other):
        family = Family(recipe, probes, schedule, frozenset([2, 3]))
        config = to_config(family, work)
        assert from_config(config, work) == family
        assert all(isinstance(value, str) for value in config.values())
        assert sum(map(len, config.values())) < 300
