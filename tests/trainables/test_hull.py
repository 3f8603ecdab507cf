"""The probe of hulls: by hand on one replica, the same however a run got there, once per data set in pixels."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from analysis import tables
from analysis.hull_tables import NULL, PIXELS, SAMPLE
from analysis.measures.hull import OUTSIDE, project
from analysis.storage import Store
from trainables.family import Family, run
from trainables.models import build
from trainables.options import Hull, Probes
from trainables.probes import Look
from trainables.probes.hull import HullProbe, rest_of, training_points
from trainables.probes.hull_pixels import pixel_hull
from trainables.recipe import Model
from trainables.schedule import Base, Phase, Schedule
from trainables.training import FamilyTraining

CONTROL = Schedule.of([[0, "relu", "cross_entropy"]])
SWAP = Schedule.of([[0, "relu", "cross_entropy"], [2, "tanh", "cross_entropy"]])
PROBES = Probes(num_samples=10, layers=["block1", "pool", "head"], hull=Hull(train_size=60, null_samples=5))


def look_at(recipe, data, store, probes=PROBES, model=None, executor="loop", epochs=2, kill=None):
    """A short training and the rows of the probe at its end."""
    recipe = recipe if model is None else recipe.model_copy(update={"model": model})
    training = FamilyTraining(recipe, data, Phase(0, "relu", "cross_entropy"), executor=executor)
    for _ in range(epochs):
        training.train_epoch()
    if kill is not None:
        training._mark_diverged(torch.arange(3) == kill)
    probe = HullProbe(probes, CONTROL, data, probes.layers, store)
    probe.look(Look("end", training))
    groups = probe.row_groups("t000000000000")
    tables.write(store, "hull", "t000000000000", groups)
    return training, tables.read(store, "hull")


def test_by_hand(small_recipe, small_data, store):
    """One replica's layers by slicing the network: distances, predictions at projections, and the first change of class on the way."""
    training, rows = look_at(small_recipe, small_data, store)
    model = copy.deepcopy(training.replicas.models[1]).eval()
    names = [name for name, _ in model.named_children()]
    where = training_points(small_data, 60)
    assert len(set(where.tolist())) == 60
    probe_ids = rows.loc[rows["kind"] == SAMPLE, "sample"].drop_duplicates()
    images = small_data.test.images[np.searchsorted(small_data.test.ids.numpy(), probe_ids)]
    with torch.no_grad():
        predicted = model(images).argmax(1).numpy()
        for layer in ("block1", "pool", "head", PIXELS):
            cut = names.index(layer) + 1 if layer != PIXELS else 0
            lower, upper = torch.nn.Sequential(*list(model)[:cut]), torch.nn.Sequential(*list(model)[cut:])
            shape = lower(images).shape[1:]
            train = small_data.train.images if layer == PIXELS else lower(small_data.train.images[where])
            points, queries = train.flatten(1).numpy(), lower(images).flatten(1).numpy()
            mine = rows[(rows["layer"] == layer) & (rows["replica"] == 1) & (rows["kind"] == SAMPLE)]
            found = project(points, queries)
            np.testing.assert_allclose(mine["distance"], found.distance, rtol=1e-4, atol=2e-5)
            assert set(mine["num_points"]) == {len(points)}
            assert set(mine["num_features"]) == {points.shape[1]}
            assert (mine["predicted"] == predicted).all()
            ends = found.weights @ points

            def classes(x, upper=upper, shape=shape):
                return upper(torch.from_numpy(np.asarray(x)).float().unflatten(1, tuple(shape))).argmax(1).numpy()

            assert (mine["predicted_projection"] == classes(ends)).mean() >= 0.9
            grid = np.stack([classes(queries + t * (ends - queries)) for t in np.linspace(0, 1, 65)])
            changes = (grid[1:] != grid[:-1]).sum(0)
            assert (mine["crossings"].map(len) == changes).mean() >= 0.9
            assert mine["reason"].isna().all()
            for row in mine.to_dict("records"):
                assert row["support_weights"].sum() == pytest.approx(1, abs=1e-5)
                assert (np.diff(row["support_weights"]) <= 0).all()
                labels = dict(zip(small_data.train.ids.tolist(), small_data.train.labels.tolist(), strict=True))
                assert [labels[i] for i in row["support"]] == row["support_labels"].tolist()
                if layer != PIXELS:
                    assert set(row["support"]) <= set(small_data.train.ids[where].tolist())


def test_the_null_stands_beside_every_layer(small_recipe, small_data, store):
    _, rows = look_at(small_recipe, small_data, store)
    counts = rows.groupby(["layer", "replica", "kind"]).size().unstack()
    assert (counts[SAMPLE] == 10).all()
    assert (counts[NULL] == 5).all()
    null = rows[rows["kind"] == NULL]
    for name in ("sample", "label", "predicted", "predicted_projection", "crossings", "support"):
        assert null[name].isna().all(), name
    pixels = rows[rows["layer"] == PIXELS]
    assert (pixels["status"] == OUTSIDE).all()
    assert pixels.groupby("replica")["distance"].apply(tuple).nunique() == 1


@pytest.mark.parametrize("executor", ["grouped", "vmap"])
def test_executors_agree(small_recipe, small_data, tmp_path, executor):
    (_, a), (_, b) = (look_at(small_recipe, small_data, Store(tmp_path / e), executor=e, epochs=0) for e in ("loop", executor))
    np.testing.assert_allclose(a["distance"], b["distance"], rtol=1e-3, atol=1e-5)
    assert (a["predicted"].fillna(-1) == b["predicted"].fillna(-1)).all()


def test_a_branch_equals_a_run_from_scratch_bit_for_bit(small_recipe, small_data, tmp_path, same_tables):
    """With the record of the moment before the first swap, which travels with the state after it; and the probe changes nothing else."""
    pulse = Schedule.of([[0, "relu", "cross_entropy"], [2, "tanh", "cross_entropy"], [3, "relu", "cross_entropy"]])
    shared, scratch, without = (Store(tmp_path / name) for name in ("shared", "scratch", "without"))
    for schedule, save in ((CONTROL, [2]), (SWAP, [3]), (pulse, [])):
        list(run(Family(small_recipe, PROBES, schedule, frozenset(save)), shared))
    list(run(Family(small_recipe, PROBES, pulse), scratch))
    trial = Base(small_recipe, small_data.hash).trial_name(pulse, PROBES)
    same_tables(shared, scratch, [trial])
    rows = tables.read(shared, "hull", only=[trial])
    assert set(zip(rows["moment"], rows["epoch"], strict=True)) == {("before_swap", 2), ("before_swap", 3), ("end", 5)}
    assert tables.read(shared, "trials", only=[trial])["epochs_trained"].item() == 2
    list(run(Family(small_recipe, PROBES.model_copy(update={"hull": None}), pulse), without))
    columns = ["replica", "test_accuracy", "test_cross_entropy", "train_loss"]
    found = [tables.read(store, "replicas", columns) for store in (scratch, without)]
    assert found[0].equals(found[1])


def test_pixels_are_projected_once_per_data_set(small_data, store, monkeypatch):
    first = pixel_hull(store, small_data, PROBES)
    (name,) = tables.names(store, "hull_pixels")
    before = store.read(f"hull_pixels/{name}.parquet")
    monkeypatch.setattr("trainables.probes.hull_pixels.locate", None)  # would raise
    again = pixel_hull(store, small_data, PROBES)
    assert again.equals(first)
    assert store.read(f"hull_pixels/{name}.parquet") == before
    assert first["probe"].sum() == 10
    row = first.iloc[0]
    assert np.linalg.norm(row["image"] - row["projection"]) == pytest.approx(row["distance"], rel=1e-5)
    assert (first["kind"] == NULL).sum() == 5


def test_the_whole_test_split_in_pixels(small_data, store):
    probes = PROBES.model_copy(update={"hull": Hull(pixel_queries="test", null_samples=5)})
    some, every = pixel_hull(store, small_data, PROBES), pixel_hull(store, small_data, probes)
    assert len(tables.names(store, "hull_pixels")) == 2
    assert (every["kind"] == SAMPLE).sum() == len(small_data.test)
    probed = every[every["probe"]]
    assert probed["sample"].tolist() == some.loc[some["probe"], "sample"].tolist()
    np.testing.assert_allclose(probed["distance"], some.loc[some["probe"], "distance"], rtol=1e-8)
    assert every.loc[~every["probe"], "image"].isna().all()


def test_diverged_replicas_have_no_rows(small_recipe, small_data, store):
    _, rows = look_at(small_recipe, small_data, store, kill=1)
    assert set(rows["replica"]) == {0, 2}


def test_layers_that_are_not_finite_have_no_rows(small_recipe, small_data, store):
    """A network whose outputs are finite all the same: tanh takes infinity to 1."""
    training = FamilyTraining(small_recipe, small_data, Phase(0, "tanh", "cross_entropy"), executor="loop")
    training.replicas.named(training.replicas.weights)["block1.1.bias"][0] = torch.inf
    probe = HullProbe(PROBES, CONTROL, small_data, ["block1.1", "head"], store)
    probe.look(Look("end", training))
    tables.write(store, "hull", "t000000000000", probe.row_groups("t000000000000"))
    rows = tables.read(store, "hull")
    assert set(rows.loc[rows["layer"] == "block1.1", "replica"]) == {1, 2}
    assert set(rows.loc[rows["layer"] == "head", "replica"]) == {0, 1, 2}


def test_what_cannot_be_followed_says_why(small_recipe, small_data, store):
    mean = PROBES.model_copy(update={"hull": Hull(pooling="mean", train_size=60, null_samples=5), "layers": ["block1", "block1.0", "head"]})
    _, rows = look_at(small_recipe, small_data, store, mean)
    mine = rows[rows["kind"] == SAMPLE].set_index("layer")
    assert set(mine.loc["block1", "num_features"]) == {4}
    assert mine.loc["block1", "reason"].str.contains("means over positions").all()
    assert mine.loc["block1", "crossings"].isna().all()
    assert mine.loc[["head", PIXELS], "reason"].isna().all()  # whole as they are
    assert mine["predicted"].notna().all()


def test_networks_that_cannot_be_cut_are_followed_in_pixels_only():
    shape = (3, 64, 64)
    model = build(Model(name="shufflenet_v2_x0_5"), shape, 2)
    assert rest_of(model, PIXELS, True, shape) is model
    assert "no chain of its parts" in rest_of(model, "conv1", True, shape)
    inner = rest_of(build(Model(name="cnn", widths=[4]), shape, 2), "block1.0", True, shape)
    assert inner == "block1.0 is no top-level part of the network, which can be cut after block1, pool, head only"


def test_names_of_families_that_do_not_ask_stay():
    assert "hull" not in Probes().key
    assert "hull" not in Probes().on_the_way
    assert Probes(hull=Hull()).on_the_way["hull"]["train_size"] == 2000
    assert Probes(hull=Hull()).key != Probes(hull=Hull(train_size=100)).key
