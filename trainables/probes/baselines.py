"""Other predictors of the generalization gap than spread, of every replica at the end of its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.measures import baselines as measures
from trainables.data import Dataset
from trainables.linear import Layers, find_layers, matrix_norms, parameter_distance, path_norm
from trainables.options import Baseline, Probes
from trainables.probes import Look, parse_key
from trainables.probes.activations import ActivationsProbe, rows
from trainables.replicas import Replicas
from trainables.schedule import Schedule
from trainables.streams import stream
from trainables.training import Evaluation, FamilyTraining

SUBSET_SIZE = 64  # training samples of sharpness and separability, the same for every network
DROP = 0.1  # of train accuracy
LEAST, MOST, NUM_STEPS = 2**-6, 2.0, 5  # the search for sharpness: relative perturbations, bisections


def training_subset(data: Dataset) -> Tensor:
    """Positions in the training split `[sample]`, ascending: drawn by the data's hash, so equal data have equal ones."""
    order = torch.randperm(len(data.train.labels), generator=stream(int(data.hash[:12], 16), "baselines"))
    return order[:SUBSET_SIZE].sort().values


Values = dict[tuple[str, str], np.ndarray]  # by baseline and layer (empty for the whole network), `[replica]`


@dataclass(frozen=True)
class _Networks:
    """What the baselines of a family are computed from. `subset` is where the training samples of the dear ones lie `[sample]`,
    `num_directions` how many perturbations of a size sharpness takes."""

    training: FamilyTraining
    evaluation: Evaluation
    activations: ActivationsProbe
    recorded: dict[str, Tensor]  # activations by layer, where they are recorded at this moment
    subset: Tensor
    num_directions: int

    @property
    def replicas(self) -> Replicas:
        return self.training.replicas

    @cached_property
    def alive(self) -> Tensor:
        """Which replicas did not diverge `[replica]`; every number is of them only."""
        return self.training.diverged_at < 0

    @cached_property
    def images(self) -> Tensor:
        return self.training.splits["train"].images[self.subset.to(self.replicas.device)]

    @cached_property
    def labels(self) -> Tensor:
        """Of `images`, as trained on."""
        return self.training.splits["train"].labels[self.subset.to(self.replicas.device)]

    @cached_property
    def layers(self) -> Layers:
        return find_layers(self.replicas.build(), self.images[:1].cpu().contiguous())

    @cached_property
    def norms(self) -> tuple[np.ndarray, np.ndarray]:
        """Spectral and Frobenius norms `[replica, layer]`."""
        return matrix_norms(self.replicas, self.layers, self.alive)

    def logits(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits `[replica, sample, class]` and labels `[sample]`."""
        return self.of(self.evaluation.logits[split]), self.training.splits[split].labels.cpu().numpy()

    def of(self, tensor: Tensor) -> np.ndarray:
        """What is of the replicas alive `[replica, ...]`, in float64."""
        return tensor[self.alive.to(tensor.device)].double().cpu().numpy()


def _calibration(networks: _Networks) -> Values:
    logits, labels = networks.logits("test")
    p = measures.probabilities(logits)
    return {
        ("ece", ""): measures.calibration_error(p, labels),
        ("confidence", ""): measures.confidence(p),
        ("entropy", ""): measures.entropy(p),
    }


def _disagreement(networks: _Networks) -> Values:
    return {("disagreement", ""): measures.disagreement(networks.logits("test")[0].argmax(-1))}


def _margins(networks: _Networks) -> Values:
    margins, product = measures.margins(*networks.logits("train")), networks.norms[0].prod(1)
    found: Values = {}
    for name, level in (("margin_p10", 0.1), ("margin_median", 0.5)):
        value = np.quantile(margins, level, axis=1)
        found |= {(name, ""): value, (f"{name}_normalised", ""): value / product}
    return found


def _norms(networks: _Networks) -> Values:
    spectral, frobenius = networks.norms
    found = {
        ("spectral_product", ""): spectral.prod(1),
        ("spectral_sum", ""): spectral.sum(1),
        ("frobenius_product", ""): frobenius.prod(1),
        ("parameter_norm", ""): networks.of(parameter_distance(networks.replicas)),
    }
    if networks.layers.has_paths:
        activation = networks.training.phase.activation
        found["path_norm", ""] = networks.of(path_norm(networks.replicas, networks.layers, activation, networks.images[:1]))
    return found


def _distance(networks: _Networks) -> Values:
    return {("distance_from_init", ""): networks.of(parameter_distance(networks.replicas, networks.replicas.initial()))}


def _sharpness(networks: _Networks) -> Values:
    """1 / sigma, where weights w (1 + sigma u), u standard normal, cost `DROP` of the accuracy on the subset, mean over directions u.

    The noise grows with each weight, so that rescaling layers without changing the function changes nothing.
    """
    replicas, labels = networks.replicas, networks.labels
    weights = {name: weight.clone() for name, weight in replicas.named(replicas.weights).items()}
    sizes = [weight[0].numel() for weight in weights.values()]
    start = networks.evaluation.logits["train"][:, networks.subset.to(labels.device)]

    def accuracy(logits: Tensor) -> Tensor:
        return (logits.argmax(-1) == labels).double().mean(1).cpu()

    def perturbed_accuracy(step: int, scale: np.ndarray) -> np.ndarray:
        sigma, found = torch.from_numpy(scale).to(replicas.weights), torch.zeros(len(scale), dtype=torch.float64)
        for draw in range(networks.num_directions):
            # From each replica's own seed, whichever others are beside it.
            drawn = [torch.randn(sum(sizes), generator=stream(seed, f"sharpness/{draw}", step)) for seed in replicas.seeds]
            noise = torch.stack(drawn).to(sigma.device) * sigma[:, None]
            for (name, weight), part in zip(weights.items(), noise.split(sizes, 1), strict=True):
                torch.addcmul(weight, weight, part.view(weight.shape), out=state[name])
            found += accuracy(replicas.forward(networks.images)) / networks.num_directions
        return found.numpy()

    with replicas.altered() as state:
        scale = measures.scale_at_drop(perturbed_accuracy, accuracy(start).numpy(), DROP, LEAST, MOST, NUM_STEPS)
    return {("sharpness", ""): 1 / scale[networks.alive.numpy()]}


def _participation_ratio(networks: _Networks) -> Values:
    recorded = networks.recorded or networks.activations.measure(networks.replicas)
    return {("participation_ratio", layer): measures.participation_ratio(networks.of(values)) for layer, values in recorded.items()}


def _separability(networks: _Networks) -> Values:
    """Of the input to the last layer, averaged over positions where it is a map."""
    head, batches = networks.layers.head, []

    def features(model: nn.Module, batch: Tensor) -> Tensor:
        handle = model.get_submodule(head).register_forward_pre_hook(lambda module, inputs: batches.append(inputs[0]))
        try:
            model(batch)
        finally:
            handle.remove()
        return rows(batches.pop(), "mean")

    found, labels = networks.of(networks.replicas.map(features, networks.images)), networks.labels.cpu().numpy()
    return {("cdnv", ""): measures.cdnv(found, labels), ("davies_bouldin", ""): measures.davies_bouldin(found, labels)}


_MEASURED: dict[Baseline, Callable[[_Networks], Values]] = {
    "calibration": _calibration,
    "disagreement": _disagreement,
    "margins": _margins,
    "norms": _norms,
    "distance": _distance,
    "sharpness": _sharpness,
    "participation_ratio": _participation_ratio,
    "separability": _separability,
}


class BaselinesProbe:
    """The table `baselines`. Records are values `[replica]` in float64, NaN for diverged replicas, by baseline and layer."""

    table = "baselines"

    def __init__(self, config: Probes, schedule: Schedule, data: Dataset, activations: ActivationsProbe) -> None:
        self.config, self.schedule, self.subset, self.activations = config, schedule, training_subset(data), activations
        self.latest: Evaluation | None = None
        self.records: dict[str, Tensor] = {}

    def look(self, look: Look) -> None:
        if look.moment == "epoch" and self.config.baselines:
            self.latest = look.evaluation
        if look.moment != "end" or self.latest is None:  # every training ends with an evaluation
            return
        recorded = {layer: self.activations.records.get(look.key(layer)) for layer in self.activations.layers}
        known = {layer: values for layer, values in recorded.items() if values is not None}
        networks = _Networks(look.training, self.latest, self.activations, known, self.subset, self.config.sharpness_directions)
        if not networks.alive.any():
            return
        for wanted in self.config.baselines:
            for (name, layer), values in _MEASURED[wanted](networks).items():
                whole = np.full(len(networks.alive), np.nan)
                whole[networks.alive.numpy()] = values
                self.records[look.key(name, layer)] = torch.from_numpy(whole)

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        table = [
            (replica, *parse_key(key)[2], value) for key, values in self.records.items() for replica, value in enumerate(values.tolist())
        ]
        if not table:
            return []
        replica, name, layer, value = zip(*table, strict=True)
        return [
            {
                "trial": [trial] * len(table),
                "schedule": [str(self.schedule)] * len(table),
                "replica": list(replica),
                "baseline": list(name),
                "layer": [text or None for text in layer],
                "value": list(value),
            }
        ]
