"""A search, family by family: a searcher and the real trainable in this process, without Ray between them."""

from collections import Counter
from pathlib import Path

import optuna
import pytest
from ray.tune.search import Searcher

from analysis import tables
from analysis.akp import at_first_swap, spreads
from analysis.metrics import metrics
from sweep.adaptive import AdaptiveSearcher, HopelessStopper
from sweep.config import ConfigError, Space, Sweep
from sweep.parameters import decode, distributions, encode
from sweep.plan import make_plan
from sweep.run import about_search
from sweep.samplers import quiet
from sweep.search import Objective, Pruning, Range, Search
from sweep.space import at, axes, every_value, num_stressed, point
from sweep.study import JOURNAL, SearchStudy
from trainables.family import Family, run
from trainables.schedule import Schedule
from trainables.states import States
from trainables.trainable import FamilyTrainable

SPREAD, BEFORE = "spread/cka/block2/end", "spread/cka/block2/before_swap"
OBJECTIVES = [Objective(metric=SPREAD, direction="maximize"), Objective(metric="gap_accuracy", direction="minimize")]
SPACE = Space(
    activations=["relu", "tanh"], losses=["cross_entropy", "focal"], swap_epochs=[1, 2], swaps=["activation", "both"], pulse_epochs=[1, 2]
)


@pytest.fixture
def sweep(small_recipe, probes, store):
    def make(space: Space = SPACE, **search) -> Sweep:
        defaults = {"kind": "optuna", "num_families": 6, "objectives": OBJECTIVES, "sampler_options": {}}
        training = small_recipe.training.model_copy(update={"replicas": 2})
        return Sweep(
            name="small",
            data=small_recipe.data,
            model=small_recipe.model,
            training=training,
            probes=probes,
            space=space,
            search=Search(**(defaults | search)),
            storage={"path": store.base},
        )

    return make


@pytest.fixture
def begin(small_data, store):
    def start(config: Sweep, num_slots: int = 2) -> AdaptiveSearcher:
        return AdaptiveSearcher(make_plan(config, small_data, store), store, SearchStudy.create(config, store), num_slots)

    return start


def drive(searcher: AdaptiveSearcher, num_steps: int = 10_000) -> list[str]:
    """What Tune does: as many families at a time as there are slots, a step of each in turn. Returns the families started."""
    live: dict[str, FamilyTrainable] = {}
    started: list[str] = []
    stopper = HopelessStopper(searcher)
    for _ in range(num_steps):
        while len(live) < searcher.num_slots:
            config = searcher.suggest(str(len(started)))
            for _ in range(0 if live else 20):  # where nothing runs, Tune asks again
                config = config or searcher.suggest(str(len(started)))
            if config == Searcher.FINISHED:
                return started
            if config is None:
                break
            live[str(len(started))] = worker = FamilyTrainable.__new__(FamilyTrainable)
            worker.work = searcher.work
            worker._begin(config)
            started.append(config["trial"])
        assert live, "nothing runs and nothing is proposed"
        for name in list(live):
            result = live[name].step()
            if result["done"] or stopper(name, result):
                del live[name]
                searcher.on_trial_complete(trial_id=name, result=result)
            else:
                searcher.on_trial_result(name, result)
    return started


def check_study(config: Sweep, store, num_families: int) -> optuna.Study:
    """Every Optuna trial has ended, as many families as asked for are done, and what it was told is what the tables hold."""
    study = SearchStudy.existing(config, store).study
    names = [objective.metric for objective in config.search.objectives]
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len({trial.user_attrs["trial"] for trial in complete}) == num_families
    for trial in complete:
        assert trial.values == list(metrics(store, trial.user_attrs["trial"], names).values())
    return study


def trained(store) -> Counter:
    """How often each epoch of each history was trained, by the tables."""
    found: Counter = Counter()
    for row in tables.read(store, "trials").itertuples():
        phases = row.schedule.split()
        for epoch in range(row.num_epochs - row.epochs_trained, row.num_epochs):
            found[row.base, epoch, *(phase for phase in phases if int(phase.partition(":")[0]) <= epoch)] += 1
    return found


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_a_search_trains_every_history_once_and_tells_what_the_tables_hold(sweep, begin, store, sampler):
    config = sweep(sampler=sampler)
    searcher = begin(config)
    started = drive(searcher)
    assert len(started) == len(set(started)) == len(tables.names(store, "trials"))
    assert not searcher.failed
    check_study(config, store, 6)
    assert set(trained(store).values()) == {1}
    rows = tables.read(store, "trials")
    assert rows["started_from"].dropna().tolist() == [p.start_state for _, p in sorted(searcher.plan.remaining.items()) if p.start_state]
    around = at_first_swap(spreads(store, ["cka"])).query("layer == 'block2' and moment == 'before_swap'").set_index("trial")["spread"]
    assert {t: metrics(store, t, [BEFORE])[BEFORE] for t in around.index} == around.to_dict()
    assert set(rows["control"]) <= set(rows["trial"])
    assert rows["started_from"].notna().sum() >= 6, "stressed families continue from their controls"


def test_known_proposals_are_answered_without_training(sweep, begin, store):
    """A second study over the same folder: all is answered from the tables, and no family starts."""
    space = SPACE.model_copy(update={"pulse_epochs": []})
    config = sweep(space, num_families=16)
    assert num_stressed(space) == 16
    drive(begin(config))
    written = {path: path.stat().st_mtime_ns for path in (Path(store.base) / "trials").iterdir()}
    (Path(store.base) / JOURNAL).unlink()
    assert drive(begin(config)) == []
    assert written == {path: path.stat().st_mtime_ns for path in (Path(store.base) / "trials").iterdir()}
    check_study(config, store, 16)


def test_an_exhausted_space_ends_the_search(sweep, begin, store, small_data):
    space = Space(activations=["relu", "tanh"], losses=["focal"], swap_epochs=[2], swaps=["activation"])
    config = sweep(space, num_families=50)
    started = drive(begin(config))
    assert len(started) == 4
    check_study(config, store, 2)
    plan = make_plan(config, small_data, store)
    assert (len(plan.done), plan.num_proposed, plan.num_unproposed, plan.remaining) == (4, 2, 0, {})
    (line,) = about_search(plan, store)
    assert "2 of 2 families proposed (the space has no more, search.num_families is 50)" in line


def test_the_plan_of_a_search_says_what_it_costs_at_most(sweep, begin, store, small_data):
    config = sweep(num_families=6)
    before = make_plan(config, small_data, store)
    assert (before.families, before.num_unproposed) == ({}, 6)
    assert before.with_unproposed().unique_replica_epochs == (6 + 4) * 5 * 2, "6 families and all 4 controls of the space, 2 replicas"
    assert not Path(store.base).exists(), "planning has written"
    drive(begin(config))
    after = make_plan(config, small_data, store)
    assert after.with_unproposed() is after
    assert before.with_unproposed().unique_replica_epochs >= sum(trained(store).values()) * 2


def test_a_search_goes_on_where_it_was_cut_off(sweep, begin, store, small_data):
    """The searcher and its workers vanish at some step; another takes up the study."""
    config = sweep()
    drive(begin(config), num_steps=7)
    before = SearchStudy.existing(config, store).study
    running = [trial.number for trial in before.trials if trial.state.name == "RUNNING"]
    assert running
    num_trials = len(before.trials)
    assert make_plan(config, small_data, store).num_unproposed < 6
    drive(begin(config))
    study = check_study(config, store, 6)
    assert len(study.trials) >= num_trials
    assert all(study.trials[number].state.name == "COMPLETE" for number in running), "the same Optuna trial is told in the end"


def test_a_sampler_that_only_repeats_itself_does_not_hold_the_search_up(sweep, begin, store):
    config = sweep(Space(activations=["relu", "tanh"], losses=["focal"], swap_epochs=[1, 2], swaps=["activation"]), num_families=4)
    searcher = begin(config)
    fixed = {"activation": "relu", "loss": "focal", "to_activation": "tanh", "swap_epoch": 2}
    with quiet():
        searcher.study.study.sampler = optuna.samplers.PartialFixedSampler(fixed, optuna.samplers.RandomSampler(0))
    assert len(drive(searcher)) == 2 + 4
    check_study(config, store, 4)


def test_what_finished_unheard_is_told_when_the_study_is_taken_up(sweep, begin, store):
    """The driver dies between a family's last table and the study."""
    config = sweep(num_families=3)
    searcher = begin(config)
    heard = searcher.study.tell
    searcher.study.tell = lambda number, values: None
    drive(searcher)
    assert "RUNNING" in {trial.state.name for trial in SearchStudy.existing(config, store).study.trials}
    searcher.study.tell = heard
    assert drive(begin(config)) == []
    check_study(config, store, 3)


def test_states_are_bounded(sweep, begin, store, monkeypatch):
    config = sweep(max_states=1)
    searcher, most = begin(config, num_slots=1), []
    save = States.save

    def counting(states, *arguments):
        save(states, *arguments)
        most.append(len(states.names()) - sum(1 for users in searcher._needed.values() if users))

    monkeypatch.setattr(States, "save", counting)
    drive(searcher)
    assert not searcher.failed
    check_study(config, store, 6)
    assert max(most) <= 1 + 1, "the bound, and the state that was just saved"
    assert len(States(store).names()) <= 1


def test_a_state_is_never_taken_from_who_waits_for_it(sweep, begin, store):
    """The control saves a state at each epoch while there may be one; the family that waits for the first still starts from it."""
    space = Space(activations=["relu", "tanh"], losses=["focal"], swap_epochs=[1, 2, 3, 4], swaps=["activation"])
    searcher = begin(sweep(space, max_states=1, num_families=1), num_slots=1)
    searcher.study.study.enqueue_trial({"activation": "relu", "loss": "focal", "to_activation": "tanh", "swap_epoch": 1})
    drive(searcher)
    assert sorted(tables.read(store, "trials")["epochs_trained"]) == [4, 5]


def test_states_of_another_recipe_in_the_same_folder_are_left_alone(sweep, begin, store):
    config = sweep(max_states=1, num_families=2)
    other = config.recipe.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 0.01})})
    list(run(Family(other, config.probes, Schedule.of([[0, "relu", "focal"]]), frozenset({1, 2})), store))
    before = States(store).names()
    drive(begin(config))
    assert len(before) == 2
    assert set(before) < set(States(store).names())


def test_a_failed_family_is_told_and_tried_again_by_the_next_run(sweep, begin, store, monkeypatch):
    config = sweep(num_families=4)
    monkeypatch.setattr(FamilyTrainable, "step", lambda self: {"done": True, "status": "failed", "error": "broken"})
    searcher = begin(config)
    drive(searcher)
    assert len(searcher.failed) >= 4
    assert {t.state.name for t in SearchStudy.existing(config, store).study.trials} <= {"FAIL", "PRUNED"}
    monkeypatch.undo()
    drive(begin(config))
    study = SearchStudy.existing(config, store).study
    assert len({t.user_attrs["trial"] for t in study.trials if t.state.name == "COMPLETE"}) == 4
    assert "RUNNING" not in {t.state.name for t in study.trials}


def test_hopeless_families_are_pruned_and_who_waits_for_them_is_not_lost(sweep, begin, store, small_data):
    """Nothing reaches an accuracy of 1, so that every stressed family is given up at epoch 3; those that swap later continue from them."""
    space = Space(activations=["relu", "tanh", "sin"], losses=["focal"], swap_epochs=[1, 4], swaps=["activation"], controls=False)
    pruning = Pruning(kind="threshold", lower=1.0, warmup_epochs=2)
    config = sweep(space, objectives=[Objective(metric="test_accuracy", direction="maximize")], pruning=pruning, num_families=6)
    searcher = begin(config)
    drive(searcher)
    rows = tables.read(store, "trials")
    assert set(rows["status"]) == {"pruned"}
    assert len(rows) == 6
    assert rows["error_message"].str.fullmatch(r"val_accuracy was 0\.\d+ at epoch 3").all()
    study = SearchStudy.existing(config, store).study
    assert {t.state.name for t in study.trials} == {"PRUNED"}
    assert max(max(t.intermediate_values, default=0) for t in study.trials) == 3
    plan = make_plan(config, small_data, store)
    assert (len(plan.pruned), plan.remaining, plan.num_unproposed) == (6, {}, 0)
    grid = config.model_copy(update={"search": Search()})
    assert not make_plan(grid, small_data, store).done, "a grid runs them in full"


def test_who_waits_for_a_pruned_family_is_planned_anew(sweep, begin, store):
    """Both swap at epoch 4, so that the second waits for the state that the first is going to save, but never does."""
    space = Space(activations=["relu", "tanh", "sin"], losses=["focal"], swap_epochs=[1, 4], swaps=["activation"], controls=False)
    pruning = Pruning(kind="threshold", lower=1.0, warmup_epochs=2)
    config = sweep(space, objectives=[Objective(metric="test_accuracy", direction="maximize")], pruning=pruning, num_families=2)
    searcher = begin(config)
    for function in ("tanh", "sin"):
        searcher.study.study.enqueue_trial({"activation": "relu", "loss": "focal", "to_activation": function, "swap_epoch": 4})
    drive(searcher, num_steps=1)
    (waiting,) = (planned for planned in searcher.plan.remaining.values() if planned.parent)
    assert waiting.start_epoch == 4
    drive(begin(config))
    assert tables.read(store, "trials")["status"].tolist() == ["pruned"] * 2


def test_a_study_of_another_search_is_refused(sweep, begin, store, small_data):
    config = sweep(num_families=1)
    drive(begin(config))
    for changed, match in [
        (
            sweep(num_families=1, objectives=OBJECTIVES[:1]),
            r"search\.objectives: the study small in .*study\.journal is to maximize spread.*, mini",
        ),
        (sweep(SPACE.model_copy(update={"activations": ["relu", "sin"]})), r"space: the study small .* has activation as .*'tanh'"),
        (
            config.model_copy(update={"training": config.training.model_copy(update={"epochs": 6})}),
            r"search: the study .* another base recipe",
        ),
    ]:
        with pytest.raises(ConfigError, match=match):
            make_plan(changed, small_data, store)
    fewer = sweep(SPACE.model_copy(update={"recipe": {**SPACE.recipe, "training.weight_decay": [0.0, 0.1]}}))
    with pytest.raises(ConfigError, match=r"space: the study small .* has the parameters .*, not .*training\.weight_decay"):
        make_plan(fewer, small_data, store)


def test_a_torn_last_line_of_the_journal_is_cut_off(sweep, begin, store):
    config = sweep(num_families=2)
    drive(begin(config))
    with open(store.path(JOURNAL), "a") as file:
        file.write('{"op_code": 4, "worker')
    more = sweep(num_families=3)
    drive(begin(more))
    check_study(more, store, 3)


def test_a_search_killed_within_a_proposal_goes_on(sweep, begin, store):
    """At every line of the journal that one proposal writes."""
    config, journal = sweep(), Path(store.path(JOURNAL))
    begin(config)
    created = len(journal.read_bytes().splitlines())
    begin(config).suggest("0")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > created + len(distributions(config.space))
    for length in range(created, len(lines)):
        journal.write_bytes(b"".join(lines[:length]))
        searcher = begin(config)
        assert searcher.suggest("0")
        assert all(t.state.is_finished() or set(t.params) == set(distributions(config.space)) for t in searcher.study.study.get_trials())


def test_parameters_are_the_axes_and_lead_back_to_them():
    recipe = {
        "model.widths": [[4], [4, 8]],
        "training.weight_decay": Range(low=1e-4, high=1e-2, log=True),
        "training.batch_size": Range(low=4, high=8),
    }
    space = SPACE.model_copy(update={"recipe": recipe})
    known = distributions(space)
    schedule = ["activation", "loss", "to_activation", "to_loss", "swap_epoch", "pulse_epochs"]
    assert list(known) == [*schedule, *recipe]
    for share in (0.0, 0.3, 0.7, 1.0):
        values = {name: at(name, axis, share) for name, axis in axes(space).items()}
        params = encode(space, values)
        assert all(known[name]._contains(known[name].to_internal_repr(value)) for name, value in params.items())
        assert decode(space, params) == values
    assert decode(space, {**params, "swap_epoch": 3}) is None
    assert decode(space, {"activation": "relu"}) is None


def test_parameters_without_a_choice_are_left_out_and_every_family_can_be_proposed():
    space = Space(activations=["relu", "tanh"], losses=["focal", "hinge"], swap_epochs=[1, 2, 3], swaps=["activation"])
    assert list(distributions(space)) == ["activation", "loss", "to_activation", "swap_epoch"]
    reached = {point(space, decode(space, encode(space, values))) for values in every_value(space)} - {None}
    assert {p.schedule for p in reached} == {p.schedule for v in every_value(space) if (p := point(space, v))}
    assert len(reached) == num_stressed(space) == 12


def test_plots_of_the_study_work(sweep, begin, store):
    pytest.importorskip("plotly")
    config = sweep(num_families=4)
    drive(begin(config))
    study = SearchStudy.existing(config, store).study
    for plot in ("plot_pareto_front", "plot_optimization_history", "plot_slice", "plot_parallel_coordinate", "plot_timeline"):
        options = {} if plot in ("plot_pareto_front", "plot_timeline") else {"target": lambda t: t.values[0], "target_name": SPREAD}
        assert getattr(optuna.visualization, plot)(study, **options).data
