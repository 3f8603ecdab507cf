"""The training loop: from one training state to a later one. Plain torch.

Nothing here depends on how a run got where it is: shuffles, augmentation and dropout draw from streams derived from
`(seed, purpose, epoch)`, the learning rate from the step's number. So a run that continues from a stored state equals one from scratch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.tables import LOSS_COLUMNS
from trainables.activations import ACTIVATIONS
from trainables.batches import EpochBatches
from trainables.data import Dataset, Split
from trainables.executors import EXECUTORS, Wanted, choose_executor
from trainables.losses import LOSSES
from trainables.models import build
from trainables.precision import check_precision, products
from trainables.rates import Rate
from trainables.recipe import BaseRecipe, Training
from trainables.replicas import Executor
from trainables.schedule import Phase
from trainables.streams import stream_seed

SPLITS = ("train", "val", "test")
METRICS = ("accuracy", "accuracy_clean", "loss", *LOSS_COLUMNS, "cross_entropy_clean")


def learning_rate(training: Training, step: int, steps_per_epoch: int, rate: Rate | None = None) -> float:
    """The learning rate of a step, counted from 0 over the whole training; as `rate`, where a phase names one, makes it."""
    found = _learning_rate(training, step, steps_per_epoch)
    return found if rate is None else rate(found)


def _learning_rate(training: Training, step: int, steps_per_epoch: int) -> float:
    epoch = step / steps_per_epoch
    if epoch < training.warmup_epochs:
        return training.learning_rate * (step + 1) / (training.warmup_epochs * steps_per_epoch)
    progress = (epoch - training.warmup_epochs) / (training.epochs - training.warmup_epochs)
    factor = {
        "constant": 1.0,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "step": 0.1 ** ((progress >= 0.5) + (progress >= 0.75)),
    }[training.schedule]
    return training.learning_rate * factor


@dataclass
class Evaluation:
    """Metrics `[replica, split, metric]` (orders SPLITS, METRICS), and of each split the predicted classes `[replica, sample]` and what
    they come from, logits `[replica, sample, class]` on the device."""

    metrics: Tensor
    predicted: dict[str, Tensor]
    logits: dict[str, Tensor]


class FamilyTraining:
    """All replicas of a family at an epoch boundary, and the means to move on: `set_phase`, `train_epoch`, `evaluate`."""

    def __init__(
        self, recipe: BaseRecipe, data: Dataset, phase: Phase, device: str = "cpu", executor: Wanted = "auto", at_once: int | None = None
    ) -> None:
        """At most `at_once` replicas are computed at a time; None leaves that to the executor."""
        self.recipe, self.config = recipe, recipe.training
        self.device = torch.device(device)
        check_precision(self.config.precision, self.device.type)
        shape, num_classes = data.image_shape, data.num_classes
        self.executor: Executor = choose_executor(executor, self.device.type, recipe.model, shape, num_classes)
        seeds = [self.config.first_seed + index for index in range(self.config.replicas)]
        self.replicas = EXECUTORS[self.executor](
            lambda: build(recipe.model, shape, num_classes),
            seeds,
            self.device,
            (self.config.batch_size, *shape),
            self.config.precision,
            at_once,
        )
        self.splits = {name: self._on_device(getattr(data, name)) for name in SPLITS}
        self.steps_per_epoch = len(self.splits["train"].labels) // self.config.batch_size
        if not self.steps_per_epoch:
            raise ValueError(f"training.batch_size is {self.config.batch_size}, more than the {len(data.train.labels)} training samples")
        self.epoch = 0
        self.diverged_at = torch.full((len(seeds),), -1, dtype=torch.int64)
        self.optimizer = self._new_optimizer()
        self.set_phase(phase)

    def _on_device(self, split: Split) -> Split:
        channels_last = self.replicas.channels_last and not self.replicas.is_interleaved
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return Split(
            split.ids,
            split.images.to(self.device, memory_format=layout),
            split.labels.to(self.device),
            split.clean_labels.to(self.device),
            split.groups,
        )

    def _new_optimizer(self) -> torch.optim.Optimizer:
        c, weights = self.config, [self.replicas.weights]
        if c.optimizer == "sgd":
            return torch.optim.SGD(weights, c.learning_rate, c.momentum, weight_decay=c.weight_decay, nesterov=c.nesterov, fused=True)
        return torch.optim.AdamW(weights, c.learning_rate, (c.momentum, 0.999), weight_decay=c.weight_decay, fused=True)

    def set_phase(self, phase: Phase) -> None:
        """Put a phase's functions in force. Hot: weights, optimizer state, learning rate and random streams carry on."""
        self.phase, self.loss = phase, LOSSES.resolve(phase.loss)
        self.replicas.swap(ACTIVATIONS.resolve(phase.activation))
        self.rate = phase.function("learning_rate")
        if self.config.reset_optimizer_at_swap and phase.start_epoch == self.epoch:
            self.optimizer = self._new_optimizer()

    @property
    def alive(self) -> list[bool]:
        return [at < 0 for at in self.diverged_at.tolist()]

    def train_epoch(self) -> None:
        """One epoch of every replica, each in its own order. A replica whose loss is not finite is marked diverged and stands still."""
        with products(self.config.precision):
            total = self._train_steps()
        self.epoch += 1
        self._mark_diverged(~(total.isfinite() & self.replicas.is_finite()).cpu())

    def _train_steps(self) -> Tensor:
        """All steps of an epoch; the summed losses `[replica]`. Nothing in here reads back from the device, so that a GPU never waits."""
        self.replicas.train_mode(True)
        seeds, alive = self.replicas.seeds, self.alive
        batches = EpochBatches(self.config, self.splits["train"], seeds, self.epoch, self.replicas.is_interleaved)
        total = torch.zeros(len(seeds), device=self.device)
        for step in range(self.steps_per_epoch):
            noise = [stream_seed(seed, f"noise/{step}", self.epoch) for seed in seeds] if self.replicas.is_random else []
            total += self.replicas.gradient(*batches[step], self.loss, alive, noise)
            if self.config.clip_norm is not None:
                self.replicas.clip(self.config.clip_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config, self.epoch * self.steps_per_epoch + step, self.steps_per_epoch, self.rate)
            self.optimizer.step()
        return total

    def _mark_diverged(self, diverged: Tensor) -> None:
        """Record who diverged at this epoch `[replica]`."""
        self.diverged_at = torch.where(diverged & (self.diverged_at < 0), self.epoch, self.diverged_at)
        self.replicas.retire(self.diverged_at >= 0)

    def evaluate(self) -> Evaluation:
        """Every metric of every replica on every split, with the functions in force.

        A replica with an output that is not finite is marked diverged; its metrics are NaN, its predicted classes -1.
        """
        logits = {name: self.replicas.forward(split.images) for name, split in self.splits.items()}
        finite = torch.stack([z.isfinite().flatten(1).all(1) for z in logits.values()]).all(0).cpu()
        self._mark_diverged(~finite)
        dead = self.diverged_at >= 0
        rows, predicted = [], {}
        for name, split in self.splits.items():
            z, classes = logits[name], logits[name].argmax(-1)
            labels, clean = (x.expand(len(dead), -1) for x in (split.labels, split.clean_labels))
            values = [
                (classes == labels).float().mean(1),
                (classes == clean).float().mean(1),
                self.loss(z, labels),
                *(LOSSES[loss](z, labels) for loss in LOSS_COLUMNS),
                LOSSES["cross_entropy"](z, clean),
            ]
            rows.append(torch.stack(values, 1).cpu().masked_fill(dead[:, None], torch.nan))
            predicted[name] = classes.cpu().to(torch.int16).masked_fill(dead[:, None], -1)
        return Evaluation(torch.stack(rows, 1), predicted, logits)

    def state(self) -> dict[str, Tensor]:
        """The training state as stacked tensors `[replica, ...]`: weights, buffers, optimizer state, and who diverged when."""
        tensors = {f"weights/{n}": t for n, t in self.replicas.named(self.replicas.weights).items()}
        tensors |= {f"buffers/{n}": t for n, t in self.replicas.buffers.items()}
        for key, value in self.optimizer.state[self.replicas.weights].items():
            if value.shape == self.replicas.weights.shape:
                tensors |= {f"optimizer/{key}/{n}": t for n, t in self.replicas.named(value).items()}
            else:
                tensors[f"optimizer/{key}"] = value
        tensors["diverged_at"] = self.diverged_at
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def load(self, state: dict[str, Tensor], epoch: int) -> None:
        """Continue from a training state at an epoch boundary. The caller sets the phase."""
        self.epoch, self.diverged_at = epoch, state["diverged_at"]
        optimizer: dict[str, Tensor] = {}
        for name, tensor in state.items():
            kind, _, rest = name.partition("/")
            if kind == "buffers":
                self.replicas.buffers[rest].copy_(tensor)
            elif kind == "weights":
                self.replicas.named(self.replicas.weights)[rest].copy_(tensor)
            elif kind == "optimizer":
                key, _, parameter = rest.partition("/")
                if parameter:
                    optimizer.setdefault(key, torch.zeros_like(self.replicas.weights.data))
                    self.replicas.named(optimizer[key])[parameter].copy_(tensor)
                else:
                    optimizer[key] = tensor.to(self.device)
        self.optimizer = self._new_optimizer()
        if optimizer:
            self.optimizer.state[self.replicas.weights].update(optimizer)
