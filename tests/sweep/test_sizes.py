"""The size of the training set as an axis: nested subsets, one probe set, and families named by their data."""

import json

import pytest

from analysis import tables
from analysis.asymptotics import find_axes
from sweep.check import check
from sweep.config import ConfigError, Space, Sweep
from sweep.plan import make_plan
from sweep.run import _prepare
from sweep.searcher import work_of
from trainables.data import load
from trainables.family import run
from trainables.probes.activations import probe_set
from trainables.trainable import from_config, to_config

SIZES = [20, 40, 80]


@pytest.fixture
def config(small_recipe, probes):
    space = Space(activations=["relu"], losses=["focal", "hinge"], swap_epochs=[1], swaps=["loss"], recipe={"data.train_size": SIZES})
    training = small_recipe.training.model_copy(update={"epochs": 2})
    return Sweep(name="sizes", data=small_recipe.data, model=small_recipe.model, training=training, probes=probes, space=space)


def test_subsets_nest_and_are_probed_on_the_same_samples(small_recipe, probes):
    found = [
        load(small_recipe.data.model_copy(update=change)) for change in (*({"train_size": n} for n in SIZES), {}, {"label_noise": 0.3})
    ]
    ids = [set(data.train.ids.tolist()) for data in found]
    assert [len(i) for i in ids[:3]] == SIZES
    assert ids[0] < ids[1] < ids[2] < ids[3] == ids[4]
    assert len({data.hash for data in found}) == 5
    assert {data.pool_hash for data in found} == {found[3].hash}
    assert len({tuple(data.test.ids[probe_set(data, probes)].tolist()) for data in found}) == 1


def test_from_a_plan_to_an_axis(config, store):
    """Every family goes to a worker and back, trains on its own subset under the name that the plan gave it, and the analysis finds all."""
    data = check(config, "here")
    plan = make_plan(config, data, store)
    assert len(plan.families) == len(SIZES) * 4
    assert len({base.dataset_hash for base, _ in plan.families.values()}) == len(SIZES)
    work = work_of(plan, store)
    _prepare(plan, store)
    for trial, planned in plan.remaining.items():
        family = from_config(json.loads(json.dumps(to_config(plan.family(trial), work))), work)
        assert family == plan.family(trial)
        *_, last = run(family, store, data=None)
        assert last.trial == trial
        assert f"train_size={planned.base.recipe.data.train_size}" in plan.label(trial)
    rows = tables.read(store, "trials")
    samples = tables.read(store, "samples")
    sizes = samples[samples["split"] == "train"].groupby("dataset").size()
    assert sorted(sizes[rows["dataset"].unique()]) == SIZES
    assert make_plan(config, data, store).done == set(plan.families)
    (axis,) = find_axes(store)
    assert (axis.sizes, len(axis.trials), axis.num_dropped) == (SIZES, len(SIZES) * 4, 0)
    assert "3 sizes" in axis.reason


def test_sizes_that_do_not_fit_are_refused(config):
    for sizes, why in (([8, 40], "batch_size: 16 is more than the 8 training images"), ([40, 5000], "data.train_size is 5000")):
        space = config.space.model_copy(update={"recipe": {"data.train_size": sizes}})
        with pytest.raises(ConfigError, match=why):
            check(config.model_copy(update={"space": space}), "here")
    space = config.space.model_copy(update={"recipe": {"data.split_seed": [1, 2]}})
    with pytest.raises(ConfigError, match=r"data\.split_seed: cannot be varied.*data\.train_size"):
        check(config.model_copy(update={"space": space}), "here")
