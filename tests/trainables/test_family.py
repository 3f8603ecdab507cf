"""One family, from schedule to tables: sharing, resuming, and the equality of a branch with a run from scratch."""

import json

import numpy as np
import pytest
import torch

from analysis import tables
from analysis.storage import Store
from trainables import family as families
from trainables.family import Family, run
from trainables.options import Probes
from trainables.probes.activations import probe_set
from trainables.recipe import Model
from trainables.rows import trial_row, write_failure, write_samples, write_skipped
from trainables.schedule import Base, NameMismatch, Schedule
from trainables.states import States
from trainables.training import FamilyTraining

CONTROL = Schedule.of([[0, "relu", "cross_entropy"]])
SWAP = Schedule.of([[0, "relu", "cross_entropy"], [2, "tanh", "focal"]])
PULSE = Schedule.of([[0, "relu", "cross_entropy"], [2, "tanh", "focal"], [3, "relu", "cross_entropy"]])


def finish(recipe, probes, schedule, store, save=()):
    return list(run(Family(recipe, probes, schedule, frozenset(save)), store))


@pytest.fixture
def names(small_recipe, small_data, probes):
    base = Base(small_recipe, small_data.hash)
    return {s: base.trial_name(s, probes) for s in (CONTROL, SWAP, PULSE)}


def test_a_branch_equals_a_run_from_scratch_bit_for_bit(small_recipe, probes, tmp_path, names, same_tables):
    """Through a control, a swap and a pulse: every table, and how often each was trained."""
    shared, scratch = Store(tmp_path / "shared"), Store(tmp_path / "scratch")
    for schedule, save in ((CONTROL, [2]), (SWAP, [3]), (PULSE, [])):
        finish(small_recipe, probes, schedule, shared, save)
        finish(small_recipe, probes, schedule, Store(tmp_path / f"alone{len(schedule.phases)}"))
        alone = Store(tmp_path / f"alone{len(schedule.phases)}")
        for file in (f"{table}/{names[schedule]}.parquet" for table in tables.TABLES):
            if alone.exists(file):
                scratch.write(file, alone.read(file))
    same_tables(shared, scratch)
    trained = tables.read(shared, "trials", ["trial", "epochs_trained"]).set_index("trial")["epochs_trained"]
    assert [trained[names[s]] for s in (CONTROL, SWAP, PULSE)] == [5, 3, 2]
    assert set(tables.read(scratch, "trials", ["epochs_trained"])["epochs_trained"]) == {5}


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_killed_family_continues_from_its_newest_state(small_recipe, probes, tmp_path, same_tables, stop_after, names):
    killed, straight = Store(tmp_path / "killed"), Store(tmp_path / "straight")
    attempt = run(Family(small_recipe, probes, PULSE, frozenset([1, 4])), killed)
    saved = (progress for progress in attempt if progress.state)
    for _ in range(stop_after):
        next(saved)
    attempt.close()
    assert tables.names(killed, "trials") == []
    finish(small_recipe, probes, PULSE, killed, [1, 4])
    finish(small_recipe, probes, PULSE, straight)
    same_tables(killed, straight, [names[PULSE]])
    trained = tables.read(killed, "trials", ["epochs_trained"])["epochs_trained"].item()
    assert trained == 5 - [1, 4][stop_after - 1]


def test_moments(small_recipe, small_data, store, names):
    probes = Probes(num_samples=10, epochs=[1])
    finish(small_recipe, probes, PULSE, store)
    trial = Base(small_recipe, small_data.hash).trial_name(PULSE, probes)
    found = tables.read_activations(store, trial)
    assert {key[:2] for key in found} == {
        ("init", 0),
        ("epoch", 1),
        ("before_swap", 2),
        ("after_swap", 2),
        ("before_swap", 3),
        ("after_swap", 3),
        ("end", 5),
    }
    assert [key[2] for key in found][:3] == ["block1", "block2", "head"]
    assert found["init", 0, "block2"].shape == (3, 10, 6)
    for epoch in (2, 3):
        assert not np.array_equal(found["before_swap", epoch, "head"], found["after_swap", epoch, "head"])
    curves = tables.read(store, "epochs", ["epoch", "moment", "loss_in_force", "split"])
    once = curves[curves["split"] == "test"].drop_duplicates()
    assert list(zip(once["epoch"], once["moment"], once["loss_in_force"], strict=True)) == [
        (0, "epoch", "cross_entropy"),
        (1, "epoch", "cross_entropy"),
        (2, "epoch", "cross_entropy"),
        (2, "after_swap", "focal"),
        (3, "epoch", "focal"),
        (3, "after_swap", "cross_entropy"),
        (4, "epoch", "cross_entropy"),
        (5, "epoch", "cross_entropy"),
    ]


def test_evaluations_every_few_epochs_are_those_of_every_epoch(small_recipe, small_data, tmp_path, same_tables):
    """Every third epoch, at swaps and at the end; a branch still equals a run from scratch, and no number changes."""
    all_epochs, few, scratch = (Store(tmp_path / name) for name in ("all", "few", "scratch"))
    every_third = Probes(num_samples=10, evaluate_every=3)
    finish(small_recipe, Probes(num_samples=10), SWAP, all_epochs)
    finish(small_recipe, every_third, CONTROL, few, [2])
    finish(small_recipe, every_third, SWAP, few)
    finish(small_recipe, every_third, SWAP, scratch)
    trial = tables.names(scratch, "trials")
    same_tables(few, scratch, trial)
    columns = ["epoch", "moment", "replica", "split", "cross_entropy"]
    a, b = (tables.read(s, "epochs", columns, only) for s, only in ((all_epochs, None), (few, trial)))
    assert [*b[["epoch", "moment"]].drop_duplicates().itertuples(index=False, name=None)] == [
        (0, "epoch"),
        (2, "epoch"),
        (2, "after_swap"),
        (3, "epoch"),
        (5, "epoch"),
    ]
    assert len(b.merge(a)) == len(b)


def test_accuracies_are_told_of_the_epochs_that_were_evaluated_only(small_recipe, store):
    """Not those right after a swap as the next epoch's: a search would give families up for them."""
    told = finish(small_recipe, Probes(num_samples=10, evaluate_every=3), SWAP, store)
    assert [(p.epoch, "val_accuracy" in p.summary) for p in told if not p.done] == [
        (1, False),
        (2, False),
        (3, True),
        (4, False),
        (5, True),
    ]
    assert "val_accuracy" in told[-1].summary


def test_at_a_swap_of_the_loss_the_records_are_bit_identical(small_recipe, small_data, store, probes):
    schedule = Schedule.of([[0, "relu", "cross_entropy"], [2, "relu", "hinge"]])
    finish(small_recipe, probes, schedule, store)
    trial = tables.names(store, "trials")[0]
    found = tables.read_activations(store, trial)
    for layer in ("block1", "block2", "head"):
        assert np.array_equal(found["before_swap", 2, layer], found["after_swap", 2, layer])
    predicted = tables.read(store, "predictions", ["epoch", "moment", "replica", "split", "predicted"])
    at = predicted[predicted["epoch"] == 2]
    before, after = (np.stack(at[(at["moment"] == m) & (at["split"] == "test")]["predicted"]) for m in ("epoch", "after_swap"))
    assert np.array_equal(before, after)


def test_tables_say_what_the_networks_do(small_recipe, small_data, store, probes, names):
    """Everything at the end of a control, recomputed from a training of the same family."""
    finish(small_recipe, probes, CONTROL, store)
    write_samples(store, small_data, probes)
    training = FamilyTraining(small_recipe, small_data, CONTROL.phases[0])
    for _ in range(5):
        training.train_epoch()
    logits = training.replicas.forward(small_data.test.images)
    predicted = tables.read(store, "predictions", filter=None)
    last = predicted[(predicted["epoch"] == 5) & (predicted["split"] == "test")].sort_values("replica")
    assert np.array_equal(np.stack(last["predicted"]), logits.argmax(-1).numpy())
    samples = tables.read(store, "samples")
    labels = samples[samples["split"] == "test"].sort_values("sample")["label"].to_numpy()
    accuracy = (np.stack(last["predicted"]) == labels).mean(1)
    replicas = tables.read(store, "replicas").sort_values("replica")
    np.testing.assert_allclose(replicas["test_accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(replicas["gap_accuracy"], replicas["train_accuracy"] - replicas["test_accuracy"], atol=1e-6)
    np.testing.assert_allclose(replicas["gap_cross_entropy"], replicas["test_cross_entropy"] - replicas["train_cross_entropy"], atol=1e-6)
    probed = samples[samples["probe"]]["sample"].to_numpy()
    where = probe_set(small_data, probes)
    assert np.array_equal(np.sort(probed), small_data.test.ids[where].numpy())
    heads = tables.read_activations(store, names[CONTROL])["end", 5, "head"]
    np.testing.assert_allclose(heads, logits[:, where].numpy(), atol=1e-5)
    row = tables.read(store, "trials").iloc[0]
    assert (row["status"], row["control"], row["swapped"], row["num_replicas"]) == ("done", names[CONTROL], "none", 3)
    assert json.loads(row["recipe"])["base"]["training"]["learning_rate"] == 0.05


@pytest.mark.parametrize("pooling", ["mean", "flatten", "positions"])
def test_poolings_are_views_of_the_same_map(small_recipe, small_data, tmp_path, pooling):
    probes = Probes(num_samples=10, layers=["block1"], pooling=pooling, moments=["end"])
    store = Store(tmp_path)
    finish(small_recipe, probes, CONTROL, store)
    rows = tables.read(store, "activations")
    training = FamilyTraining(small_recipe, small_data, CONTROL.phases[0])
    for _ in range(5):
        training.train_epoch()
    images = small_data.test.images[probe_set(small_data, probes)]
    maps = training.replicas.map(lambda model, batch: model.block1(batch), images).numpy()  # [replica, sample, 4, 6, 6]
    expected = {
        "mean": maps.mean((-1, -2)).reshape(30, 4),
        "flatten": maps.reshape(30, 144),
        "positions": maps.reshape(3, 10, 4, 36).swapaxes(2, 3).reshape(-1, 4),
    }[pooling]
    np.testing.assert_allclose(np.stack(rows["activation"]), expected, atol=1e-5)
    assert rows["shape"].iloc[0].tolist() == [4, 6, 6]
    assert rows["pooling"].unique().tolist() == [pooling]
    assert rows["position"].max() == (35 if pooling == "positions" else 0)


def test_states_recorded_with_other_probes_are_not_used(small_recipe, store, probes):
    finish(small_recipe, probes, CONTROL, store, [2])
    assert not States(store).usable(families.setting(Probes(num_samples=12), "cpu", "grouped", 1))
    assert not States(store).usable(families.setting(probes, "cpu", "grouped", 2))
    finish(small_recipe, Probes(num_samples=12), SWAP, store)
    trained = tables.read(store, "trials", ["schedule", "epochs_trained"]).set_index("schedule")["epochs_trained"]
    assert trained[str(SWAP)] == 5


def test_a_state_that_is_not_what_its_name_says_is_refused(small_recipe, small_data, store, probes):
    finish(small_recipe, probes, CONTROL, store, [2])
    base, states = Base(small_recipe, small_data.hash), States(store)
    name = base.state_name(CONTROL, 2)
    history = base.history(CONTROL, 2, full=True)
    where = families.setting(probes, "cpu", "grouped", 1)
    assert states.usable(where) == {name: 2}
    assert states.usable(where, [small_recipe.model.model_dump(mode="json")]) == {name: 2}
    assert states.usable(where, [Model(name="mlp").model_dump(mode="json")]) == {}
    state, records = states.load(name, history, where)
    history["base"]["training"]["learning_rate"] = 0.7
    states.save(name, state, records, history, where)
    with pytest.raises(NameMismatch, match=r"learning_rate was 0\.7, is 0\.05"):
        finish(small_recipe, probes, SWAP, store)


def test_a_family_that_fails_is_recorded(small_recipe, small_data, store, probes, monkeypatch):
    monkeypatch.setattr(families.FamilyTraining, "train_epoch", lambda self: 1 / 0)
    family, base = Family(small_recipe, probes, SWAP), Base(small_recipe, small_data.hash)
    with pytest.raises(ZeroDivisionError) as caught:
        list(run(family, store))
    write_failure(store, trial_row(base, SWAP, probes), caught.value)
    row = tables.read(store, "trials").iloc[0]
    assert (row["status"], row["error_type"], row["error_message"]) == (
        "failed",
        "ZeroDivisionError",
        "division by zero",
    )
    assert "train_epoch" in row["traceback"]
    write_skipped(store, trial_row(base, PULSE, probes), "because")
    assert set(tables.read(store, "trials")["status"]) == {"failed", "skipped"}
    assert tables.names(store, "replicas") == []


def test_a_diverged_replica_is_in_the_tables(small_recipe, store, probes):
    recipe = small_recipe.model_copy(update={"training": small_recipe.training.model_copy(update={"learning_rate": 1e20})})
    finish(recipe, probes, Schedule.of([[0, "relu", "squared_error"]]), store)
    row = tables.read(store, "trials").iloc[0]
    assert (row["status"], row["num_diverged"]) == ("done", 3)
    replicas = tables.read(store, "replicas")
    assert replicas["diverged_at"].tolist() == [1, 1, 1]
    assert replicas["test_accuracy"].isna().all()


def test_the_threads_that_trained_are_those_asked_for():
    families.prepare_process(1)
    assert torch.get_num_threads() == 1
    torch.use_deterministic_algorithms(False)
