"""An object store that sends half of an object and calls it whole: never taken for what was written."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
import torch

from analysis import tables
from analysis.storage import Store
from sweep.plan import DAMAGE
from tests.aws import REGION, emulated, faulty
from trainables.family import Family, run, setting
from trainables.options import Probes
from trainables.schedule import Base, Schedule
from trainables.states import States

SCHEDULE = Schedule.of([[0, "relu", "cross_entropy"], [1, "tanh", "cross_entropy"]])


@pytest.fixture
def there(monkeypatch):
    """A store on a real server, and its address."""
    boto3 = pytest.importorskip("boto3")
    with emulated() as environment:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        boto3.client("s3").create_bucket(Bucket="our-results", CreateBucketConfiguration={"LocationConstraint": REGION})
        yield Store("s3://our-results/tiny"), environment["AWS_ENDPOINT_URL"]


def test_half_of_an_object_is_never_read_as_another(there, small_recipe, small_data):
    """Arrow takes what it asked for to have come: what is missing is whatever the memory held. Checksums tell."""
    store, url = there
    recipe = small_recipe.model_copy(update={"training": small_recipe.training.model_copy(update={"epochs": 2, "replicas": 2})})
    probes = Probes(num_samples=10)
    list(run(Family(recipe, probes, SCHEDULE, frozenset({1})), store))
    base, where = Base(recipe, small_data.hash), setting(probes, "cpu", "grouped", 1)
    name, history = base.state_name(SCHEDULE, 1), base.history(SCHEDULE, 1, full=True)
    content, good = store.read(States.file(name)), States(store).load(name, history, where)
    assert good is not None
    wanted = {table: tables.read(store, table) for table in tables.TABLES if tables.names(store, table)}
    assert len(wanted) >= 6
    right, refused = Counter[str](), Counter[str]()
    for seed, rate in enumerate((1.0, 0.3, 0.3, 0.3, 0.3)):
        with faulty(url, seed, rate, kinds=["short"]) as (halves, _):
            short = Store(f"s3://our-results/tiny?endpoint_override={halves}")
            for table, rows in wanted.items():
                try:
                    found = tables.read(short, table)
                except DAMAGE:
                    refused[table] += 1
                else:
                    pd.testing.assert_frame_equal(found, rows, check_exact=True)
                    right[table] += 1
            states = States(short)
            loaded = states.load(name, history, where)
            if loaded is None:
                refused["states"] += 1
                store.write(States.file(name), content)
            else:
                assert all(torch.equal(part[key], value) for part, other in zip(loaded, good, strict=True) for key, value in other.items())
                right["states"] += 1
    assert refused.total() > 0  # of which is chance: the memory may hold what is missing, from an earlier read
    assert right.total() > 0
