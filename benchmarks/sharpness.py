"""What the baseline sharpness costs, and how noisy it is by its numbers of directions and images.

    python benchmarks/sharpness.py [recipe]

Cost: CPU seconds of `_sharpness` on a control at the end of training, against the mean CPU seconds of a family of the recipe, all other
probes included (6 controls to 30 swaps at each epoch, as the default recipe has).
Noise: 12 families are perturbed at 29 sizes in 40 directions; from the first 20 directions the search is simulated, and the other 20, on
all images, are the reference that it is compared with.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from scipy.stats import spearmanr

from analysis.measures.baselines import _crossing, scale_at_drop
from analysis.storage import Store
from sweep.config import Sweep, load
from trainables import data as data_sets
from trainables.family import Family, prepare_process, run
from trainables.options import BASELINES
from trainables.probes import baselines
from trainables.probes.activations import ActivationsProbe
from trainables.schedule import Schedule
from trainables.streams import stream
from trainables.training import FamilyTraining

SIZES = np.exp(np.linspace(np.log(baselines.LEAST), np.log(baselines.MOST), 29))
NUM_DIRECTIONS, NUM_REPETITIONS = 40, 40
FIRST, SECOND = ("relu", "cross_entropy"), ("tanh", "squared_error")


def families(config: Sweep) -> list[list[list]]:
    """12 schedules: the six controls, and six swaps early and late."""
    controls = [[[0, a, loss]] for a in config.space.activations for loss in config.space.losses][:6]
    early, late = config.space.swap_epochs[0], config.space.swap_epochs[-1]
    swaps = [("relu", "squared_error"), ("tanh", "cross_entropy"), ("gelu", "squared_error")]
    return [*controls, *([[0, *FIRST], [epoch, *to]] for epoch in (early, late) for to in swaps)]


def trained(config: Sweep, data: data_sets.Dataset, phases: list[list]) -> FamilyTraining:
    schedule = Schedule.of(phases)
    training = FamilyTraining(config.recipe, data, schedule.phases[0])
    for epoch in range(config.training.epochs):
        if epoch in schedule.swap_epochs:
            training.set_phase(schedule.phase_before(epoch + 1))
        training.train_epoch()
    return training


def cost(config: Sweep, data: data_sets.Dataset) -> None:
    training = trained(config, data, [[0, *FIRST]])
    activations = ActivationsProbe(config.probes, data, training.replicas.build(), training.device)
    evaluation, subset = training.evaluate(), baselines.training_subset(data)
    seconds = {}
    for num_directions in (1, 2, 4):
        networks = baselines._Networks(training, evaluation, activations, {}, subset, num_directions)
        taken = []
        for _ in range(7):
            began = time.process_time()
            baselines._sharpness(networks)
            taken.append(time.process_time() - began)
        seconds[num_directions] = taken
    others = config.probes.model_copy(update={"baselines": [name for name in BASELINES if name != "sharpness"]})
    epochs, of_families = config.space.swap_epochs, []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            store, found = Store(folder), []
            for swap in (None, *epochs):
                phases = [[0, *FIRST]] if swap is None else [[0, *FIRST], [swap, *SECOND]]
                saved = frozenset(epochs) if swap is None else frozenset()
                began = time.process_time()
                list(run(Family(config.recipe, others, Schedule.of(phases), saved), store, data=data))
                found.append(time.process_time() - began)
        of_families.append(found)
    per_family = np.median(of_families, axis=0)  # the control, then by swap epoch
    mean = np.average(per_family, weights=[6, *[30] * len(epochs)])
    print(f"a family without sharpness: mean {mean:.2f} s; control {per_family[0]:.2f} s, swaps at {epochs}: {per_family[1:].round(2)} s")
    for num_directions, taken in seconds.items():
        low, middle, high = np.quantile(taken, [0, 0.5, 1])
        shares = f"{middle / mean:.1%} of the mean family, {middle / per_family.min():.1%} of the cheapest"
        print(f"{num_directions} directions: {middle * 1e3:.0f} ms [{low * 1e3:.0f}, {high * 1e3:.0f}] (median, range of 7), {shares}")


def record(config: Sweep, data: data_sets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Which images are right: perturbed `[network, size, direction, image]`, and unperturbed `[network, image]`."""
    perturbed, start = [], []
    for phases in families(config):
        training = trained(config, data, phases)
        replicas, subset = training.replicas, baselines.training_subset(data)
        images, labels = (getattr(training.splits["train"], name)[subset] for name in ("images", "labels"))
        weights = {name: weight.clone() for name, weight in replicas.named(replicas.weights).items()}
        right = np.zeros((len(replicas.seeds), len(SIZES), NUM_DIRECTIONS, len(subset)), bool)
        start.append((replicas.forward(images).argmax(-1) == labels).numpy())
        with replicas.altered() as state:
            for at, size in enumerate(SIZES):
                for draw in range(NUM_DIRECTIONS):
                    generators = [stream(seed, f"benchmark/{draw}", at) for seed in replicas.seeds]
                    for name, weight in weights.items():
                        noise = torch.stack([torch.randn(weight.shape[1:], generator=g) for g in generators])
                        state[name].copy_(weight * (1 + size * noise))
                    right[:, at, draw] = (replicas.forward(images).argmax(-1) == labels).numpy()
        perturbed.append(right)
    return np.concatenate(perturbed), np.concatenate(start)


def noise(perturbed: np.ndarray, start: np.ndarray, num_replicas: int) -> None:
    generator, half = np.random.default_rng(0), NUM_DIRECTIONS // 2
    far = perturbed[:, :, half:].mean((2, 3))
    wanted = start.mean(1) - baselines.DROP
    reference = 1 / np.array([_crossing(np.log(SIZES), values, level) for values, level in zip(far, wanted, strict=True)])

    def agreement(found: np.ndarray) -> float:
        there = np.isfinite(found) & np.isfinite(reference)
        return float(spearmanr(found[there], reference[there]).statistic)

    def of_families(found: np.ndarray) -> float:
        """Of means over the replicas that both have."""
        both = np.isfinite(found) & np.isfinite(reference)
        means = [np.where(both, x, 0).reshape(-1, num_replicas).sum(1) / both.reshape(-1, num_replicas).sum(1) for x in (found, reference)]
        there = np.isfinite(means[0])
        return float(spearmanr(means[0][there], means[1][there]).statistic)

    for num_directions, num_images in ((1, 64), (2, 64), (4, 32), (4, 64), (8, 64)):
        scores = []
        for _ in range(NUM_REPETITIONS):
            images = generator.choice(start.shape[1], num_images, replace=False)

            def accuracy(step: int, scale: np.ndarray, images=images, num_directions=num_directions) -> np.ndarray:
                at = np.abs(np.log(SIZES)[:, None] - np.log(scale)).argmin(0)
                draws = generator.choice(half, num_directions, replace=False)
                return np.stack([perturbed[n, k][draws][:, images].mean() for n, k in enumerate(at)])

            with np.errstate(invalid="ignore"):
                found = 1 / scale_at_drop(
                    accuracy, start[:, images].mean(1), baselines.DROP, baselines.LEAST, baselines.MOST, baselines.NUM_STEPS
                )
                scores.append((agreement(found), of_families(found)))
        replica, family = np.mean(scores, axis=0)
        print(f"{num_directions} directions, {num_images} images: rho {replica:.2f} over replicas, {family:.2f} over means of families")


def main() -> None:
    prepare_process(1)
    config, _ = load(sys.argv[1] if len(sys.argv) > 1 else "cells", sys.argv[2:])
    data = data_sets.load(config.data)
    cost(config, data)
    noise(*record(config, data), config.training.replicas)


if __name__ == "__main__":
    main()
