"""The generated cells: reproducible, as hard as asked, and telling the classes apart by the stated traits only."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data import cells, load
from trainables.recipe import CellsData


def accuracy_of_logistic_regression(config):
    """Train and test accuracy of a ridge-penalised logistic regression on the pixels."""
    data = load(config)
    inputs, targets = data.train.images.flatten(1), data.train.labels.float()
    weights = torch.zeros(inputs.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights[1:] + weights[0], targets)
        value = value + 0.03 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    guesses = data.test.images.flatten(1) @ weights[1:] + weights[0] > 0
    return float((guesses == data.test.labels.bool()).float().mean())


@pytest.mark.parametrize(("difficulty", "low", "high"), [(0.0, 0.9, 1.0), (0.5, 0.72, 0.9), (1.0, 0.46, 0.54)])
def test_difficulty_runs_from_nearly_separable_to_chance(difficulty, low, high):
    """At difficulty 1 the 1500 test images put a 99.8 % interval of +-0.04 around chance."""
    accuracy = accuracy_of_logistic_regression(CellsData(num_images=6000, difficulty=difficulty, num_slides=60))
    assert low <= accuracy <= high


def test_at_difficulty_one_the_label_changes_nothing():
    labels = np.arange(50) % 2
    here, there = (cells._traits(cells._Draws(0), values, separation=0.0) for values in (labels, 1 - labels))
    assert all((here[name] == there[name]).all() for name in cells.TRAITS)


def test_traits_have_the_stated_distribution_in_each_class():
    labels = np.arange(40_000) % 2
    traits = cells._traits(cells._Draws(0), labels, separation=0.5)
    for name, trait in cells.TRAITS.items():
        healthy, cancer = (traits[name][labels == label] for label in (0, 1))
        shift = (cancer.mean() - healthy.mean()) / trait.deviation
        assert shift == pytest.approx(0.5 * trait.gap, abs=0.03)
        assert cancer.std() / healthy.std() == pytest.approx(1 + 0.5 * cells.PLEOMORPHISM, abs=0.05)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, again = (cells.read(CellsData(num_images=60, seed=3)).images for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != cells.read(CellsData(num_images=60, seed=4)).images.tobytes()


def test_an_image_does_not_depend_on_how_many_are_made():
    few, many = (cells.read(CellsData(num_images=num)) for num in (60, 700))
    assert (many.images[:60] == few.images).all()
    assert (many.labels[:60] == few.labels).all()
    assert (many.groups[:60] == few.groups).all()


def test_the_bytes_do_not_depend_on_the_processor():
    command = "from trainables.data import load; from trainables.recipe import CellsData;print(load(CellsData(num_images=400)).hash)"
    plain = {**os.environ, "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"}
    ours = load(CellsData(num_images=400)).hash
    theirs = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command],
        env=plain,
        check=True,
        text=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    assert theirs.strip() == ours


def test_every_slide_has_both_classes_and_lies_in_one_split():
    data = load(CellsData())
    slides = [set(split.groups) for split in (data.train, data.val, data.test)]
    assert len(slides[0] | slides[1] | slides[2]) == 40 == sum(map(len, slides))
    for split in (data.train, data.val, data.test):
        for slide in set(split.groups):
            members = torch.tensor([group == slide for group in split.groups])
            assert set(split.labels[members].tolist()) == {0, 1}
    assert (len(data.train), len(data.val), len(data.test)) == (960, 240, 400)


def test_the_image_looks_stained():
    """Background pale, cytoplasm pink (green is weakest), nucleus darker than cytoplasm and bluer than red."""
    images = cells.read(CellsData(num_images=400)).images.astype(float)
    corner, middle = images[:, :, :2, :2].mean((0, 2, 3)), images[:, :, 10:14, 10:14].mean((0, 2, 3))
    assert corner.min() > 200
    assert middle.mean() < 160
    assert middle[2] > middle[0] > middle[1]
    assert images.mean((0, 2, 3))[1] < images.mean((0, 2, 3))[[0, 2]].min()


@pytest.mark.parametrize("size", [12, 24, 50])
def test_any_size_can_be_made(size):
    data = load(CellsData(num_images=40, num_slides=3, image_size=size))
    assert data.image_shape == (3, size, size)
    assert data.class_names == ["non-cancer", "cancer"]
