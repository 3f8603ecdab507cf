"""The probe of stability: its table against the measures, computed apart; what is shared by networks; bits at swaps and branches."""

import numpy as np
import pytest
import torch

from analysis import probe_tables, tables
from analysis.measures.stability import ESTIMATORS, stability
from analysis.storage import Store
from sweep.check import check
from sweep.config import ConfigError, load
from trainables.data import load as load_data
from trainables.family import Family, run
from trainables.models import record
from trainables.options import Probes, Stability, Warp
from trainables.probes import Look
from trainables.probes import stability as probing
from trainables.probes.stability import OUTPUT, StabilityProbe, make_warps, write_warps
from trainables.schedule import Base, Schedule
from trainables.training import FamilyTraining

CONTROL = Schedule.of([[0, "relu", "cross_entropy"]])
LOSS_SWAP = Schedule.of([[0, "relu", "cross_entropy"], [2, "relu", "hinge"], [3, "tanh", "hinge"]])
PROBES = Probes(num_samples=11, stability=Stability(warps=[Warp(displacement_px=0.8), Warp(cut=2, temperature=0.004)], reject_folded=True))
NUMBERS = [f"{name}_{estimator}" for name in ("diffeo", "noise", "relative", "normaliser") for estimator in ESTIMATORS]


@pytest.fixture(scope="module")
def written(small_recipe, tmp_path_factory):
    """A family whose loss is swapped at epoch 2 and whose activation is at epoch 3, in one go."""
    store = Store(tmp_path_factory.mktemp("stability"))
    list(run(Family(small_recipe, PROBES, LOSS_SWAP, frozenset([2, 3])), store))
    return store


def test_each_number_is_that_of_the_measure_on_outputs_computed_apart(small_recipe, small_data, written):
    """The first moment: replica by replica, layer by layer, from the untrained networks."""
    training = FamilyTraining(small_recipe, small_data, LOSS_SWAP.phases[0], executor="loop")
    warps = make_warps(small_data, PROBES)
    table = tables.read(written, "stability")
    assert list(table["layer"].unique()) == ["block1", "block2", "head"]
    assert set(table.loc[table["is_output"], "layer"]) == {"head"}
    rows = table[table["moment"] == "init"].set_index(["layer", "cut", "replica"])
    assert len(rows) == 3 * 2 * 3
    for (layer, cut, replica), row in rows.iterrows():
        law = warps.cuts.index(cut)
        model = training.replicas.models[replica].eval()
        with torch.no_grad():
            of = [record(model, [layer], warps.variants[:, v])[layer].flatten(1) for v in (0, 1 + law, 3 + law)]
        for estimator in ESTIMATORS:
            wanted = stability(*of, estimator)
            found = row[f"diffeo_{estimator}"], row[f"noise_{estimator}"], row[f"relative_{estimator}"]
            assert found == pytest.approx((wanted.diffeo, wanted.noise, wanted.relative), rel=1e-4)
        np.testing.assert_allclose(row["diffeo_changes"], (of[1] - of[0]).square().sum(1), rtol=1e-4)
        np.testing.assert_allclose(row["noise_changes"], (of[2] - of[0]).square().sum(1), rtol=1e-4)


def test_estimators_can_be_computed_again_from_what_is_kept_of_each_image(written):
    table = tables.read(written, "stability")
    for row in table.to_dict("records"):
        for kind in ("diffeo", "noise"):
            changes = row[f"{kind}_changes"]
            assert np.mean(changes) / row["normaliser_mean"] == pytest.approx(row[f"{kind}_mean"], rel=1e-5)
            assert np.median(changes) / row["normaliser_median_of_norms"] == pytest.approx(row[f"{kind}_median_of_norms"], rel=1e-5)
            if row["is_output"]:
                squares = np.sort(row[f"{kind}_squares"].reshape(11, -1), axis=0)
                np.testing.assert_allclose(squares.sum(1).sum(), changes.sum(), rtol=1e-5)
                assert squares[5].sum() / row["normaliser_official"] == pytest.approx(row[f"{kind}_official"], rel=1e-5)
            else:
                assert row[f"{kind}_squares"] is None


def test_a_swap_of_the_loss_leaves_every_bit_and_one_of_the_activation_does_not(written):
    table = tables.read(written, "stability").sort_values(["layer", "cut", "replica"])
    for epoch, same in ((2, True), (3, False)):
        before, after = (table[(table["epoch"] == epoch) & (table["moment"] == moment)] for moment in ("before_swap", "after_swap"))
        assert np.array_equal(before[NUMBERS], after[NUMBERS]) == same
        assert np.array_equal(np.stack(before["diffeo_changes"]), np.stack(after["diffeo_changes"])) == same


def test_a_branch_and_a_family_taken_up_again_equal_a_run_from_scratch(small_recipe, small_data, written, tmp_path, same_tables):
    shared, trial = Store(tmp_path / "shared"), tables.names(written, "trials")
    list(run(Family(small_recipe, PROBES, CONTROL, frozenset([2])), shared))
    killed = run(Family(small_recipe, PROBES, LOSS_SWAP, frozenset([3])), shared)
    next(progress for progress in killed if progress.state)
    killed.close()
    list(run(Family(small_recipe, PROBES, LOSS_SWAP), shared))
    same_tables(shared, written, trial)
    assert tables.read(shared, "trials", ["epochs_trained"], trial)["epochs_trained"].item() == 2


def test_every_network_sees_the_same_warps_and_noise_whatever_the_training_set(small_recipe, small_data, tmp_path):
    warps = make_warps(small_data, PROBES)
    few = load_data(small_recipe.data.model_copy(update={"train_size": 20}))
    assert make_warps(few, PROBES).name == warps.name
    assert torch.equal(make_warps(few, PROBES).min_jacobian, warps.min_jacobian)
    assert np.array_equal(make_warps(few, PROBES).ids, warps.ids)
    assert make_warps(small_data, PROBES) is warps
    others = [{"seed": 1}, {"mask": "disc"}, {"interpolation": "gaussian"}, {"warps": [Warp()]}]
    names = {make_warps(small_data, Probes(num_samples=11, stability=Stability(**other))).name for other in others}
    assert len({*names, warps.name}) == 5
    assert make_warps(small_data, Probes(num_samples=12, stability=PROBES.stability)).name not in names
    clean, warped, noisy = warps.variants[:, 0], warps.variants[:, 1:3], warps.variants[:, 3:]
    lengths = [(x - clean[:, None]).flatten(2).norm(dim=2) for x in (warped, noisy)]
    torch.testing.assert_close(*lengths)
    assert (warps.min_jacobian > 0).all()
    store = Store(tmp_path)
    write_warps(store, small_data, PROBES)
    table = tables.read(store, "warps")
    assert len(table) == 22
    np.testing.assert_allclose(table["moved"][:11], lengths[0][:, 0], rtol=1e-6)
    assert np.array_equal(np.stack(table["warped"][:8]), warped[:8, 0].flatten(1))
    assert np.array_equal(np.stack(table["noisy"][11:19]), noisy[:8, 1].flatten(1))
    assert table["image"].isna().sum() == 6


def test_gaussian_interpolation_is_compared_with_images_that_are_blurred_too(small_data):
    blurred = make_warps(small_data, Probes(num_samples=4, stability=Stability(interpolation="gaussian"))).variants[:, 0]
    plain = make_warps(small_data, Probes(num_samples=4, stability=Stability())).variants[:, 0]
    assert blurred.diff(dim=-1).square().sum() < plain.diff(dim=-1).square().sum()


@pytest.mark.parametrize("layers", [["block1", "block2"], ["block1.0", "block1.2", "head"], ["block1.3"]])
def test_passes_executors_and_outputs_that_no_layer_gives(small_recipe, small_data, monkeypatch, layers):
    """Layers one at a time as all at once; networks in blocks as one by one, parts that a block computes otherwise among them."""
    records = []
    for executor, budget in (("loop", 2**30), ("grouped", 1), ("vmap", 2**30)):
        monkeypatch.setattr(probing, "_PASS_BYTES", budget)
        training = FamilyTraining(small_recipe, small_data, CONTROL.phases[0], executor=executor)
        model = training.replicas.build()
        probe = StabilityProbe(PROBES, CONTROL, small_data, layers, model, training.device)
        probe.look(Look("init", training))
        assert [*probe.widths] == (layers if "head" in layers else [*layers, OUTPUT])
        records.append(probe.records)
    for other in records[1:]:
        assert [*other] == [*records[0]]
        for name, value in other.items():
            torch.testing.assert_close(value, records[0][name], rtol=1e-3, atol=1e-5)


def test_a_diverged_replica_has_no_stability_and_the_others_have(small_recipe, small_data):
    training = FamilyTraining(small_recipe, small_data, CONTROL.phases[0])
    training.replicas.retire(torch.tensor([False, True, False]))
    probe = StabilityProbe(PROBES, CONTROL, small_data, ["head"], training.replicas.build(), training.device)
    probe.look(Look("init", training))
    (columns,) = probe.row_groups("t")
    for name in NUMBERS:
        assert np.isnan(columns[name]).tolist() == [False, True, False] * 2


def test_families_that_ask_for_none_keep_their_names_and_states(small_recipe, small_data):
    base = Base(small_recipe, small_data.hash)
    assert "stability" not in Probes().key
    assert "stability" not in Probes().on_the_way
    assert PROBES.on_the_way["stability"]["reject_folded"] is True
    assert base.trial_name(CONTROL, PROBES) != base.trial_name(CONTROL, Probes(num_samples=11))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{warps: [{cut: 15}]}", r"probes\.stability\.warps: cut 15 at a displacement of 1 px .* fold beyond 0\.255 px"),
        ("{warps: [{temperature: 0.5}]}", r"fold beyond 1\.27 px \(temperature 0\.013\)"),
        ("{warps: [{displacement_px: 1.0, temperature: 0.001}]}", "give one of them"),
        ("{warps: [{cut: 1}]}", r"probes\.stability\.warps\[0\]\.cut: 1 is refused"),
        ("{warps: [{}, {}]}", "stands twice"),
        ("{warp: []}", "did you mean 'warps'"),
    ],
)
def test_warps_that_cannot_be_are_refused(value, message):
    with pytest.raises(ConfigError, match=message):
        check(*load("quick", [f"probes.stability={value}"]))


def test_the_tables_name_the_estimators_of_the_measure():
    assert tuple(probe_tables.ESTIMATORS) == ESTIMATORS
