"""Predictions of every train and test sample: when, of whom, how large on disk, and as one array."""

import numpy as np
import pytest
import torch

import analysis
from analysis import tables
from analysis.activations import UnknownName
from analysis.predictions import loader, read_predictions, read_samples
from trainables.family import Family, run
from trainables.probes.predictions import PredictionsProbe
from trainables.rows import write_samples
from trainables.schedule import Base, Schedule

PULSE = Schedule.of([[0, "relu", "cross_entropy"], [2, "tanh", "focal"], [3, "relu", "cross_entropy"]])


@pytest.fixture
def results(small_recipe, small_data, probes, store):
    """A control and a pulse: results, the data, and the family of each."""
    names = []
    for schedule in (PULSE.control, PULSE):
        list(run(Family(small_recipe, probes, schedule), store))
        names.append(Base(small_recipe, small_data.hash).trial_name(schedule, probes))
    write_samples(store, small_data, probes)
    return analysis.load(store.base), small_data, names


def test_every_epoch_the_start_and_both_sides_of_swaps(results):
    found, data, (control, pulse) = results
    for split in ("train", "test"):
        one = found.predictions(pulse, split)
        times = [(0, "epoch"), (1, "epoch"), (2, "epoch"), (2, "after_swap"), (3, "epoch"), (3, "after_swap"), (4, "epoch"), (5, "epoch")]
        assert list(zip(one.epochs, one.moments, strict=True)) == times
        assert one.predicted.shape == (3, 8, len(getattr(data, split)))
        assert one.samples.tolist() == getattr(data, split).ids.tolist()
        assert (one.labels == getattr(data, split).labels.numpy()).all()
        assert one.at_epochs.epochs.tolist() == [0, 1, 2, 3, 4, 5]
        same = found.predictions(control, split)
        assert (same.predicted[:, :3] == one.predicted[:, :3]).all()  # until the swap they are the same networks
        assert (one.predicted[:, 2] != one.predicted[:, 3]).any()


def test_they_are_what_the_accuracies_say(results):
    """At every evaluation, of every replica, on both splits: the share of right predictions is the accuracy in `epochs`."""
    found, _, (_, pulse) = results
    curves = found.epochs[found.epochs["trial"] == pulse].set_index(["split", "epoch", "moment", "replica"])["accuracy"]
    for split in ("train", "test"):
        one = found.predictions(pulse, split)
        for replica, evaluation in np.ndindex(one.predicted.shape[:2]):
            right = (one.predicted[replica, evaluation] == one.labels).mean()
            assert right == pytest.approx(curves[split, one.epochs[evaluation], one.moments[evaluation], replica], abs=1e-6)


def test_unknown_names_are_refused(results):
    found, _, (control, _) = results
    with pytest.raises(UnknownName, match="unknown split 'val'"):
        found.predictions(control, "val")
    with pytest.raises(UnknownName, match="unknown family with predictions"):
        found.predictions("t000000000000")


def test_tables_that_do_not_fit_together_are_refused(results):
    found, data, (control, _) = results
    samples = read_samples(found.store, data.name)
    with pytest.raises(ValueError, match="the test split has 1"):
        read_predictions(found.store, control, samples[(samples["split"] == "train") | ~samples.duplicated("split")])


def test_the_loader_keeps_the_latest_families_only(results):
    found, _, (control, pulse) = results
    load = loader(found.store, found.trials, max_bytes=0)
    first = load(control, "train")
    assert load(control, "train") is first
    for trial in (pulse, control):
        load(trial, "test")
    assert load(control, "train") is first  # two are kept whatever their size


def test_a_replica_takes_less_than_a_megabyte_for_60000_images_and_100_epochs(store):
    """Six replicas of 60,000 samples, of which 4 % change at each of 20 evaluations, as those of an MLP on Fashion-MNIST do."""
    generator = np.random.default_rng(0)
    probe = PredictionsProbe(True)
    classes = generator.integers(0, 10, (6, 60_000), dtype=np.int16)
    for epoch in range(20):
        changed = generator.random(classes.shape) < 0.04
        classes = np.where(changed, generator.integers(0, 10, classes.shape, dtype=np.int16), classes)
        probe.records[f"{epoch:06d}/1-epoch/train"] = torch.from_numpy(classes)
    tables.write(store, "predictions", "t000000000000", probe.row_groups("t000000000000"))
    size = store.filesystem.get_file_info(store.path("predictions/t000000000000.parquet")).size
    assert size / 6 / 20 < 1e6 / 100
