"""What tests of all rooms share: one thread, small data, real data where they are."""

import os
from pathlib import Path

import pytest
import torch

from analysis.storage import Store
from tests import same
from trainables.data import Dataset, load
from trainables.options import Probes
from trainables.recipe import BaseRecipe, CellsData, Model, Training


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """What only a power cut tells from what is done without it; thousands of small files would wait for minutes."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need them skip where they are absent."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("real data are absent: no ../shared/data")
    return path


@pytest.fixture(scope="session")
def small_recipe() -> BaseRecipe:
    """A CNN with batch norm on 12 pixels: the whole path in a second."""
    return BaseRecipe(
        data=CellsData(num_images=160, image_size=12, num_slides=8),
        model=Model(name="cnn", widths=[4, 6]),
        training=Training(epochs=5, batch_size=16, replicas=3, learning_rate=0.05),
    )


@pytest.fixture(scope="session")
def small_data(small_recipe) -> Dataset:
    return load(small_recipe.data)


@pytest.fixture
def probes() -> Probes:
    return Probes(num_samples=10)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture(scope="session")
def same_tables():
    """A function that asserts that two stores hold the same tables bit for bit, timings and provenance aside."""
    return same.same_tables
