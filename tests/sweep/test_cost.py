"""What a plan costs: rates from records or from a timed family, lines, simulation, budgets."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.storage import Store
from sweep.budget import first_that_fit, within
from sweep.config import ConfigError, Space, Sweep
from sweep.cost import Cost, Line, _finished, _images_s, _what_costs, cost_line, estimate, kind, recorded
from sweep.plan import Plan, make_plan
from sweep.probe import ProbeFailed, functions_in_turn, time_apart, time_family
from sweep.releases import Releases
from sweep.searcher import PrefixSearcher
from sweep.simulate import most_states, simulate
from trainables.data import Dataset
from trainables.family import run
from trainables.image_rows import write_image_statistics
from trainables.options import Stability
from trainables.recipe import BaseRecipe, Model
from trainables.schedule import Schedule
from trainables.states import States
from trainables.trainable import from_config

SPACE = Space(
    activations=["relu", "tanh"],
    losses=["cross_entropy"],
    swap_epochs=[1, 3],
    pulse_epochs=[1],
    schedules=[[[0, "relu", "focal"]], [[0, "relu", "cross_entropy"], [1, "tanh", "cross_entropy"], [3, "sin", "focal"]]],
)


@pytest.fixture
def sweep(small_recipe, probes) -> Sweep:
    return Sweep(name="x", data=small_recipe.data, model=small_recipe.model, training=small_recipe.training, probes=probes, space=SPACE)


@pytest.fixture
def plan(sweep, small_data, store) -> Plan:
    return make_plan(sweep, small_data, store)


def cost_of(plan: Plan, seconds: dict[str, float], slots: int = 2) -> Cost:
    return Cost(plan, seconds, dict.fromkeys(seconds, 1.0), 1.0, "made up", slots)


def equal_epochs(plan: Plan) -> dict[str, float]:
    return {trial: float(plan.config.training.epochs - p.start_epoch) for trial, p in plan.remaining.items()}


def test_kinds_of_lines():
    texts = {
        "control": [[0, "relu", "focal"]],
        "activation swap": [[0, "relu", "focal"], [1, "tanh", "focal"]],
        "loss swap": [[0, "relu", "focal"], [1, "relu", "hinge"]],
        "swap of both": [[0, "relu", "focal"], [1, "tanh", "hinge"]],
        "pulse": [[0, "relu", "focal"], [1, "tanh", "hinge"], [2, "relu", "focal"]],
        "several swaps": [[0, "relu", "focal"], [1, "tanh", "hinge"], [2, "sin", "focal"]],
    }
    assert {name: kind(Schedule.of(phases)) for name, phases in texts.items()} == {name: name for name in texts}


def test_lines_add_up(plan):
    cost = cost_of(plan, equal_epochs(plan))
    lines = cost.lines()
    assert sum(line.families for line in lines) == len(plan.remaining)
    assert sum(line.replica_epochs for line in lines) == plan.unique_replica_epochs
    assert sum(line.seconds for line in lines) == pytest.approx(cost.total_s)
    assert Line("control", 3, 3 * 5 * 3, 15.0, 3.0) in lines


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_plan_takes_its_critical_path_at_least_and_all_its_work_at_most(small_recipe, small_data, data):
    """Unlimited slots: the longest chain. One slot: the sum. Never more states at once than those that families start from."""
    epochs = st.sampled_from([1, 2, 3, 4])
    chosen = data.draw(st.lists(epochs, min_size=1, max_size=3, unique=True))
    space = Space(activations=["relu", "tanh"], losses=["focal", "hinge"], swap_epochs=chosen, pulse_epochs=[1] if 4 not in chosen else [])
    plan = make_plan(Sweep(name="x", data=small_recipe.data, training=small_recipe.training, space=space), small_data, Store("/nowhere"))
    seconds, slots = equal_epochs(plan), data.draw(st.integers(2, 5))
    wide, one, some = (simulate(plan, seconds, n) for n in (10_000, 1, slots))
    assert wide.seconds == pytest.approx(max(plan.critical_epochs.values()))
    assert one.seconds == pytest.approx(sum(seconds.values()))
    assert max(wide.seconds, one.seconds / slots) - 1e-9 <= some.seconds <= one.seconds + 1e-9
    for simulation in (wide, one, some):
        assert sorted(simulation.order) == sorted(plan.remaining)
        assert 0 < simulation.num_states <= most_states(plan)
        place = {trial: index for index, trial in enumerate(simulation.order)}
        assert all(place[p.parent] < place[t] for t, p in plan.remaining.items() if p.parent)


@pytest.mark.parametrize("every", [0, 2])
def test_the_simulation_releases_and_forgets_as_the_searcher_does(sweep, small_data, store, every):
    """Real families in one slot: same order, same peak, and the folder holds at each event what the searcher thinks."""
    sweep = sweep.model_copy(update={"storage": sweep.storage.model_copy(update={"checkpoint_epochs": every})})
    plan = make_plan(sweep, small_data, store)
    foreseen = simulate(plan, equal_epochs(plan), 1)
    searcher, states = PrefixSearcher(plan, store), States(store)
    order, most = [], 0
    for number in range(len(plan.remaining)):
        config = searcher.suggest(str(number))
        order.append(config["trial"])
        for progress in run(from_config(config, searcher.work), store):
            searcher.on_trial_result(str(number), {"state": progress.state, "report": f'{{"epochs_trained": {progress.epochs_trained}}}'})
            assert set(states.names()) == searcher.releases.alive
            most = max(most, len(searcher.releases.alive))
        searcher.on_trial_complete(trial_id=str(number), result={"status": "done"})
        assert set(states.names()) == searcher.releases.alive
    assert order == foreseen.order
    assert most == searcher.most_alive == foreseen.num_states <= most_states(plan)
    assert searcher.releases.alive == set()
    assert searcher.num_epochs * sweep.training.replicas == plan.unique_replica_epochs


def test_states_that_a_trimmed_run_left_for_later_count_among_those_alive(sweep, small_data, store):
    plan = make_plan(sweep, small_data, store)
    trunk = next(p for p in plan.remaining.values() if len(p.saves) > 1)
    for _ in run(plan.only({trunk.trial}).family(trunk.trial), store):
        pass
    left = set(States(store).names())
    assert left == set(trunk.saves.values())
    rest = make_plan(sweep, small_data, store)
    first = next(trial for trial, p in rest.remaining.items() if p.start_state in left)
    for now in (rest, rest.only({first})):
        assert Releases(now).alive == left


def rates_of(plan, store):
    some = list(plan.remaining.values())
    return recorded(some, _finished(plan, store), _what_costs(some[0].base.description(some[0].schedule, plan.config.probes)))


def test_rates_come_from_this_base_else_from_a_similar_one(sweep, small_data, store, plan):
    assert rates_of(plan, store) is None
    for trial in list(plan.remaining)[:3]:
        list(run(plan.family(trial), store))
    again = make_plan(sweep, small_data, store)
    rates = rates_of(again, store)
    assert rates.source == "from 3 finished families of the same base recipe"
    assert rates.epoch_s > 0
    changed = {"learning_rate": 0.01, "epochs": 7, "replicas": 4}
    similar = sweep.model_copy(update={"training": sweep.training.model_copy(update=changed)})
    assert rates_of(make_plan(similar, small_data, store), store).source == "from 3 finished families of a similar base recipe"
    for key, value in {"model": Model(name="mlp"), "training": sweep.training.model_copy(update={"batch_size": 8})}.items():
        other = sweep.model_copy(update={key: value})
        assert rates_of(make_plan(other, small_data, store), store) is None, key
    gpu = sweep.model_copy(update={"resources": sweep.resources.model_copy(update={"gpus_per_family": 1.0})})
    assert rates_of(make_plan(gpu, small_data, store), store) is None


def test_families_of_other_probes_say_nothing_of_the_cost(sweep, small_data, store, plan):
    for trial in list(plan.remaining)[:3]:
        list(run(plan.family(trial), store))
    dearer = sweep.model_copy(update={"probes": sweep.probes.model_copy(update={"stability": Stability()})})
    assert rates_of(make_plan(dearer, small_data, store), store) is None


def test_a_damaged_row_does_not_stop_a_plan(sweep, small_data, store, plan):
    done = list(plan.remaining)[:3]
    for trial in done:
        list(run(plan.family(trial), store))
    store.write(f"trials/{done[0]}.parquet", store.read(f"trials/{done[0]}.parquet")[:100])
    again = make_plan(sweep, small_data, store)
    assert list(again.damaged) == [done[0]]
    assert rates_of(again, store).source == "from 2 finished families of the same base recipe"


def test_a_small_family_is_timed(small_recipe, probes, plan):
    phases = functions_in_turn([schedule for _, schedule in plan.families.values()])
    assert [start for start, _, _ in phases] == [0, 2, 4, 6][: len(phases)]
    assert len({tuple(p[1:]) for p in phases}) == len(phases) > 2
    whole = time_family(small_recipe, probes, phases, "cpu")
    assert set(whole) == {"epoch_s", "swap_s", "family_s"}
    assert whole["epoch_s"] > 0
    assert all(math.isfinite(value) for value in whole.values())


def test_where_time_is_short_two_shares_of_the_images_tell(small_recipe, probes, plan, monkeypatch):
    """The extrapolation is right where an epoch costs a fixed part and a part per batch."""
    import sweep.probe as module

    sizes = []

    def times(family, data: Dataset, device: str, executor: str, evaluate_every: int) -> dict[str, float]:
        batches = len(data.train.labels) // 16
        sizes.append(batches)
        return {"epoch_s": 0.1 + 0.05 * batches, "swap_s": 0.2, "family_s": 0.3}

    monkeypatch.setattr(module, "_times", times)
    num_batches = len(module.load(small_recipe.data).train.labels) // 16
    for budget, wanted in ((100.0, [1, num_batches]), (4.0, [1, 1, 3]), (0.1, [1])):
        sizes.clear()
        monkeypatch.setattr(module, "BUDGET_S", budget)
        found = time_family(small_recipe, probes, [[0, "relu", "focal"]], "cpu")
        assert sizes == wanted
        if budget > 1:
            assert found == pytest.approx({"epoch_s": 0.1 + 0.05 * num_batches, "swap_s": 0.2, "family_s": 0.3})


def test_a_family_that_cannot_be_timed_leaves_the_cost_unknown(sweep, small_data, store, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("def act(x):\n    if x.requires_grad:\n        raise RuntimeError('of its own')\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{__import__('os').environ.get('PYTHONPATH', '')}")
    with pytest.raises(ProbeFailed, match="of its own"):
        time_family(sweep.recipe, sweep.probes, [[0, "broken:act", "focal"]], "cpu")
    space = Space(activations=["broken:act"], losses=["focal"], swaps=[])
    cost = estimate(make_plan(sweep.model_copy(update={"space": space}), small_data, store), small_data, store)
    assert not cost.is_known
    assert cost_line(cost) == "cost: unknown: a family timed for the plan failed: RuntimeError: of its own"
    assert cost.simulation.num_states == 0
    with pytest.raises(ConfigError, match="unknown"):
        within(cost, 1.0, True)
    (tmp_path / "broken.py").write_text("import os\ndef act(x):\n    if x.requires_grad:\n        os._exit(9)\n    return x\n")
    with pytest.raises(ProbeFailed, match="its process died"):
        time_apart(1, sweep.recipe, sweep.probes, [[0, "broken:act", "focal"]], "cpu")


def test_a_budget_refuses_or_trims(plan):
    cost = cost_of(plan, dict.fromkeys(plan.remaining, 3600.0))
    assert within(cost, None, False) is plan
    assert within(cost, len(plan.remaining), False) is plan
    with pytest.raises(ConfigError, match=rf"costs {len(plan.remaining)} .* the budget is 4.5; 4 of {len(plan.remaining)} families"):
        within(cost, 4.5, False)
    with pytest.raises(ConfigError, match="not even the first"):
        within(cost, 0.5, True)
    trimmed = within(cost, 4.5, True)
    assert len(trimmed.remaining) == 4
    assert len(trimmed.left_out) == len(plan.remaining) - 4
    assert set(trimmed.families) == set(trimmed.remaining)
    assert sum(1 for p in trimmed.remaining.values() if not p.schedule.swap_epochs) == 3, "controls first"
    for budget_s in range(0, 3600 * len(plan.remaining), 3600):
        chosen = first_that_fit(cost, budget_s)
        assert len(chosen) * 3600 <= budget_s
        assert all(plan.remaining[t].parent in {*chosen, None} for t in chosen), "a family without its trunk"
    # What families left out start from is kept, so that nothing is trained twice when they run.
    assert set(trimmed.users) == set(plan.users)
    assert cost.of(trimmed).total_s == 4 * 3600


def test_measuring_the_images_is_paid_once_per_data_set(sweep, small_data, store, plan):
    cost = estimate(plan, small_data, store)
    assert cost.whole_s == cost.total_s + cost.images_s > cost.total_s
    assert "9 s of it to measure the images" in cost_line(replace(cost, images_s=9.0 * cost.slots))
    assert "images" not in cost_line(replace(cost, images_s=0.3))
    apart = replace(cost_of(plan, dict.fromkeys(plan.remaining, 3600.0)), images_s=3600.0)
    assert len(within(apart, 4.5, True).remaining) == 3  # where four fit without
    with pytest.raises(ConfigError, match=f"costs {len(plan.remaining) + 1} device-hours"):
        within(apart, len(plan.remaining), False)
    without = sweep.model_copy(update={"analysis": sweep.analysis.model_copy(update={"image_statistics": False})})
    assert _images_s(make_plan(without, small_data, store), store) == 0
    write_image_statistics(store, [sweep.data])
    assert _images_s(plan, store) == 0


def test_planning_names_no_more_states_than_are_used(sweep, small_data, store, monkeypatch):
    """Linear in the families: each costs one name of its own, and one for the state that it starts from."""
    from trainables.schedule import Base

    calls = []
    original = Base.state_name
    monkeypatch.setattr(Base, "state_name", lambda self, *a: calls.append(a) or original(self, *a))
    space = Space(activations=["relu", "tanh", "gelu"], losses=["focal", "hinge"], swap_epochs=list(range(1, 25)), pulse_epochs=[1, 2])
    training = sweep.training.model_copy(update={"epochs": 30})
    plan = make_plan(sweep.model_copy(update={"space": space, "training": training}), small_data, store)
    assert len(plan.families) > 2000
    assert len(calls) <= len(plan.families)


def test_the_base_recipe_decides_what_is_similar(small_recipe):
    """Every key of the training recipe is either told to cost nothing or compared."""
    from sweep.cost import _COSTS_NOTHING

    assert set(BaseRecipe.model_fields["training"].annotation.model_fields) >= _COSTS_NOTHING


def test_states_that_are_kept_are_foreseen(sweep, small_data, store):
    kept = sweep.model_copy(update={"storage": sweep.storage.model_copy(update={"keep_states": True, "checkpoint_epochs": 2})})
    plan = make_plan(kept, small_data, store)
    saved = {state for p in plan.remaining.values() for state in {**p.saves, **plan.checkpoint_epochs(p)}.values()}
    assert simulate(plan, equal_epochs(plan), 2).num_states == most_states(plan) == len(saved)
