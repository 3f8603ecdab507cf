"""Schedules of a space, and the prefix tree that shares their training."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.config import Space, Sweep, load
from sweep.plan import Member, Members, Plan, Planned, _tree, make_plan
from sweep.search import Range, Search
from sweep.space import is_empty, num_stressed, points, recipe_of
from trainables.family import Family, run
from trainables.recipe import BaseRecipe, NpzData, Training
from trainables.schedule import Base, NameMismatch, Schedule


def schedules(space: Space, **search) -> list[Schedule]:
    return [point.schedule for point in points(Sweep(name="x", space=space, search=Search(**search)))]


def test_the_default_recipe_has_hundreds_of_networks_in_126_families():
    config, _ = load("cells")
    found = schedules(config.space)
    kinds = [s.swapped for s in found]
    assert {k: kinds.count(k) for k in set(kinds)} == {"none": 6, "activation": 48, "loss": 24, "both": 48}
    assert len(set(found)) == 126
    assert kinds[:6] == ["none"] * 6


def test_pulses_swap_back():
    space = Space(activations=["relu", "tanh"], losses=["focal"], swap_epochs=[1], swaps=["activation"], pulse_epochs=[2])
    assert [str(s) for s in schedules(space)] == [
        "0:relu/focal",
        "0:tanh/focal",
        "0:relu/focal 1:tanh/focal",
        "0:tanh/focal 1:relu/focal",
        "0:relu/focal 1:tanh/focal 3:relu/focal",
        "0:tanh/focal 1:relu/focal 3:tanh/focal",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"controls": False},
        {"swaps": []},
        {"swaps": [], "controls": False},
        {"activations": []},
        {"losses": [], "schedules": [[[0, "relu", "focal"]]]},
        {"swap_epochs": [], "controls": False},
    ],
)
@pytest.mark.parametrize("search", [{}, {"kind": "random", "num_families": 3}, {"kind": "random", "sampler": "qmc", "num_families": 3}])
def test_a_space_is_empty_if_it_has_no_family(change, search):
    space = Space(**{"activations": ["relu", "tanh"], "losses": ["focal"], "swap_epochs": [1], **change})
    assert is_empty(Sweep(name="x", space=space, search=Search(**search))) == (not schedules(space, **search))


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_samples_are_of_the_grid_with_their_controls(sampler):
    draws = [schedules(Space(), kind="random", sampler=sampler, num_families=20, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    stressed = [s for s in draws[0] if s.swap_epochs]
    assert len(set(stressed)) == 20
    assert {s.control for s in stressed} == {s for s in draws[0] if not s.swap_epochs}
    assert set(schedules(Space(swap_epochs=[1, 2]), kind="random", sampler=sampler, num_families=500)) <= set(
        schedules(Space(swap_epochs=[1, 2]))
    )


RECIPE_AXES = {"training.learning_rate": [0.01, 0.05], "model.widths": [[4], [4, 8]]}
ONE_SWAP = {"activations": ["relu", "tanh"], "losses": ["focal"], "swap_epochs": [1], "swaps": ["activation"]}


def test_a_grid_runs_every_schedule_under_every_recipe():
    config = Sweep(name="x", space=Space(**ONE_SWAP, recipe=RECIPE_AXES, schedules=[[[0, "sin", "focal"]]]))
    found = points(config)
    assert len(set(found)) == len(found) == 4 * (2 + 2 + 1)
    assert num_stressed(config.space) == 8
    recipes = [recipe_of(config, p.changes) for p in found]
    pairs = {(r.training.learning_rate, tuple(r.model.widths)) for r in recipes}
    assert pairs == {(rate, widths) for rate in (0.01, 0.05) for widths in ((4,), (4, 8))}


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_draws_lie_in_their_ranges_and_bring_their_controls(sampler):
    ranges = {
        "training.weight_decay": Range(low=1e-5, high=1e-2, log=True),
        "training.batch_size": Range(low=14, high=16),
        "training.learning_rate": [0.1, 0.2],
    }
    config = Sweep(name="x", space=Space(**ONE_SWAP, recipe=ranges), search=Search(kind="random", sampler=sampler, num_families=64))
    found = points(config)
    assert num_stressed(config.space) == float("inf")
    stressed = [p for p in found if p.schedule.swap_epochs]
    assert len(stressed) == 64
    assert {p.control for p in stressed} == set(found) - set(stressed)
    training = [recipe_of(config, p.changes).training for p in stressed]
    assert {t.batch_size for t in training} == {14, 15, 16}
    assert {t.learning_rate for t in training} == {0.1, 0.2}
    decades = [math.floor(math.log10(t.weight_decay)) for t in training]
    assert all(decades.count(d) > 10 for d in (-5, -4, -3)), "log-uniform: about a third lies in each decade"
    assert len([d for d in decades if d in (-5, -4, -3)]) == 64


def test_nothing_is_shared_between_base_recipes(small_sweep, small_data, store):
    """Each recipe has a tree of its own, equal to the tree of a sweep with that recipe alone."""
    both = small_sweep.model_copy(update={"space": Space(**ONE_SWAP, recipe={"training.learning_rate": [0.01, 0.05]})})
    plan = make_plan(both, small_data, store)
    alone = make_plan(small_sweep.model_copy(update={"space": Space(**ONE_SWAP)}), small_data, store)
    assert small_sweep.training.learning_rate == 0.05
    assert len(plan.families) == 2 * len(alone.families)
    assert {t: p for t, p in plan.remaining.items() if t in alone.families} == alone.remaining
    for planned in plan.remaining.values():
        if planned.parent:
            assert plan.remaining[planned.parent].base is planned.base
            assert plan.row(planned.trial)["control"] in plan.families


def test_further_schedules_bring_their_controls():
    space = Space(swaps=[], activations=["relu"], losses=["focal"], schedules=[[[0, "sin", "hinge"], [2, "relu", "hinge"]]])
    assert [str(s) for s in schedules(space)] == ["0:relu/focal", "0:sin/hinge", "0:sin/hinge 2:relu/hinge"]


EPOCHS = 6
BASE = Base(BaseRecipe(), "0" * 64)
FUNCTIONS = st.sampled_from(["relu", "tanh", "sin"])


@st.composite
def any_schedule(draw):
    starts = [0, *sorted(draw(st.sets(st.integers(1, EPOCHS - 1), max_size=3)))]
    names = [draw(FUNCTIONS)]
    for _ in starts[1:]:
        names.append(draw(FUNCTIONS.filter(lambda n: n != names[-1])))
    return Schedule.of([[e, n, "focal"] for e, n in zip(starts, names, strict=True)])


def slow_tree(to_run: dict[str, Schedule], existing: dict[str, int]) -> dict[str, Planned]:
    """The definition: every state on every way is named, and looked up from the last to the first."""
    boundaries = {epoch for schedule in to_run.values() for epoch in schedule.swap_epochs}
    owners: dict[str, str] = {}
    tree = {trial: Planned(trial, BASE, schedule, 0, None, None, {}) for trial, schedule in to_run.items()}
    for trial, schedule in to_run.items():
        for epoch in range(EPOCHS, 0, -1):
            name = BASE.state_name(schedule, epoch)
            if name in existing or name in owners:
                parent = None if name in existing else owners[name]
                if parent:
                    tree[parent].saves[epoch] = name
                tree[trial] = replace(tree[trial], start_epoch=epoch, start_state=name, parent=parent)
                break
        for epoch in boundaries:
            if epoch > tree[trial].start_epoch:
                owners[BASE.state_name(schedule, epoch)] = trial
    return tree


@settings(max_examples=300, deadline=None)
@given(st.lists(any_schedule(), min_size=1, max_size=12, unique=True), st.sets(st.integers(1, EPOCHS - 1)))
def test_the_tree_trains_no_shared_prefix_twice(some, existing_epochs):
    """For any schedules: parents come first and save what children start from, and each epoch of each history is trained once."""
    ordered = sorted(some, key=lambda s: len(s.phases))
    existing = {BASE.state_name(ordered[-1], e): e for e in existing_epochs}
    tree = _tree({str(s): Member(BASE, s) for s in ordered}, EPOCHS, existing)
    assert tree == slow_tree({str(s): s for s in ordered}, existing)
    seen: list[str] = []
    trained: list[str] = []
    boundaries = {e for s in ordered for e in s.swap_epochs}
    for trial, planned in tree.items():
        assert planned.parent is None or planned.parent in seen
        if planned.parent:
            assert tree[planned.parent].saves[planned.start_epoch] == planned.start_state
            assert planned.start_epoch > tree[planned.parent].start_epoch
        if planned.start_state:
            assert planned.start_state == BASE.state_name(planned.schedule, planned.start_epoch)
            assert planned.parent or planned.start_state in existing
        seen.append(trial)
        # What an epoch computes is named by the state that it ends in, but for the last stretch, where families part unseen.
        last = max([e for e in boundaries if e in planned.schedule.swap_epochs], default=0)
        trained += [BASE.state_name(planned.schedule, e) for e in range(planned.start_epoch + 1, last + 1)]
    if not existing:
        assert len(trained) == len(set(trained))


def test_children_wait_for_the_longest_chain_first():
    pulse = [[0, "relu", "focal"], [1, "tanh", "focal"], [5, "relu", "focal"]]
    some = [Schedule.of(pulse[:n]) for n in (1, 2, 3)]
    config = Sweep(name="x", training=Training(epochs=EPOCHS))
    members = {str(s): Member(BASE, s) for s in some}
    plan = Plan(config, Members(config, BASE.dataset_hash), members, frozenset(), _tree(members, EPOCHS, {}))
    assert [p.start_epoch for p in plan.remaining.values()] == [0, 1, 5]
    assert [plan.critical_epochs[str(s)] for s in some] == [6, 5, 1]
    assert plan.unique_replica_epochs == (6 + 5 + 1) * 6
    assert plan.total_replica_epochs == 18 * 6
    assert {len(v) for v in plan.users.values()} == {1}


def test_finished_families_are_not_planned_again(small_sweep, small_data, store):
    plan = make_plan(small_sweep, small_data, store)
    trial, (_, schedule) = next(iter(plan.families.items()))
    list(run(Family(small_sweep.recipe, small_sweep.probes, schedule, plan.family(trial).save_epochs), store))
    again = make_plan(small_sweep, small_data, store)
    assert again.done == {trial}
    assert len(again.remaining) == len(plan.remaining) - 1
    children = [p for p in again.remaining.values() if p.schedule.control == schedule]
    assert children
    assert all(p.start_epoch == 2 and p.parent is None for p in children)  # their state exists


def test_equal_data_under_another_name_are_the_same_families(small_sweep, small_data, store):
    """Only what the data are is compared: a share that the source ignores, or a file that moved, changes nothing."""
    plan = make_plan(small_sweep, small_data, store)
    trial, (_, schedule) = next(iter(plan.families.items()))
    list(run(Family(small_sweep.recipe, small_sweep.probes, schedule), store))
    moved = NpzData(source="npz", name="moved.npz")
    assert make_plan(small_sweep.model_copy(update={"data": moved}), small_data, store).done == {trial}


def test_a_larger_space_reuses_the_smaller(small_sweep, small_data, store):
    plan = make_plan(small_sweep, small_data, store)
    larger = small_sweep.model_copy(update={"space": small_sweep.space.model_copy(update={"swap_epochs": [1, 2]})})
    assert set(plan.families) < set(make_plan(larger, small_data, store).families)


def test_a_finished_family_with_another_recipe_under_its_name_is_refused(small_sweep, small_data, store, monkeypatch):
    plan = make_plan(small_sweep, small_data, store)
    trial, (_, schedule) = next(iter(plan.families.items()))
    list(run(Family(small_sweep.recipe, small_sweep.probes, schedule), store))
    other = small_sweep.model_copy(update={"training": small_sweep.training.model_copy(update={"learning_rate": 0.9})})
    monkeypatch.setattr(Base, "trial_name", lambda self, s, probes: trial if s == schedule else f"t{hash(s)}")
    with pytest.raises(NameMismatch, match=r"learning_rate was 0\.05, is 0\.9"):
        make_plan(other, small_data, store)


@pytest.fixture
def small_sweep(small_recipe, probes) -> Sweep:
    return Sweep(
        name="small",
        data=small_recipe.data,
        model=small_recipe.model,
        training=small_recipe.training,
        probes=probes,
        space=Space(activations=["relu", "tanh"], losses=["cross_entropy"], swap_epochs=[2]),
    )
