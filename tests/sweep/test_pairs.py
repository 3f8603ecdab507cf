"""Tiles as tasks of a real Ray: the same table as in one process."""

from __future__ import annotations

import numpy as np
import pytest

import analysis
from analysis import pairs_command
from analysis.__main__ import main
from sweep import pairs
from sweep.tuner import ray_session
from trainables.family import Family, run
from trainables.schedule import Schedule


@pytest.fixture
def trained(small_recipe, probes, store):
    """A tiny store that the real family wrote: a control and a stressed one."""
    for phases in ([[0, "relu", "cross_entropy"]], [[0, "relu", "cross_entropy"], [2, "tanh", "focal"]]):
        list(run(Family(small_recipe, probes, Schedule.of(phases), frozenset()), store))
    return store


def test_tiles_as_ray_tasks_write_the_same_table(trained, capsys):
    assert main(["pairs", trained.root]) == 0
    here = {layer: analysis.load(trained.root).pairs("cka", layer)[0] for layer in analysis.load(trained.root).layers}
    options = pairs_command.parsed([trained.root], "python -m sweep.pairs")
    with ray_session(2):
        assert pairs_command.run(options, pairs.ray_map) == 0
        assert pairs_command.run(pairs_command.parsed([trained.root, "--layer", "nothing"], ""), pairs.ray_map) == 2
        assert list(pairs.ray_map(abs, range(-9, 0))) == list(range(9, 0, -1))
        with pytest.raises(ValueError, match="invalid literal"):
            list(pairs.ray_map(int, ["1", "x"]))
        with pytest.raises(ValueError, match="no GPU here"):  # which would be waited for without end
            list(pairs.ray_map(abs, [1], num_gpus=1000))
    assert len(here) >= 3
    for layer, distances in here.items():
        np.testing.assert_array_equal(analysis.load(trained.root).pairs("cka", layer)[0], distances)
        assert distances.shape == (6, 6)
