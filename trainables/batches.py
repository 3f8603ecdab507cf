"""What one epoch of every replica draws: the order of the samples, and what augmentation does to each."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data import Split
from trainables.data.augment import draw_fields, flip_and_shift, largest_cut, warp
from trainables.recipe import Diffeo, Training
from trainables.streams import stream, stream_seed


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, on its way to the device: from pinned memory to a GPU, so that nobody waits for it."""
    if device.type == "cuda" and torch.cuda.is_available():
        drawn = drawn.pin_memory()
    return drawn.to(device, non_blocking=True)


class EpochBatches:
    """The batches of one epoch, each replica in its own order. What is drawn depends on `(seed, epoch)` alone.

    `order` is `[replica, sample]`; the remainder that fills no batch is left out. `interleaved` batches lie in memory with the
    replicas of a sample side by side.
    """

    def __init__(self, config: Training, split: Split, seeds: list[int], epoch: int, interleaved: bool = False) -> None:
        self.split, self.batch_size, self.interleaved = split, config.batch_size, interleaved
        self.config, self.seeds, self.epoch = config, seeds, epoch
        device, num_samples = split.labels.device, len(split.labels)
        order = torch.stack([torch.randperm(num_samples, generator=stream(seed, "order", epoch)) for seed in seeds])
        self.order = to_device(order, device)
        self.flips = self.shifts = None
        if config.flip:
            drawn = [torch.rand(num_samples, generator=stream(seed, "flip", epoch)) < 0.5 for seed in seeds]
            self.flips = to_device(torch.stack(drawn), device)
        if config.shift_px:
            low, high = -config.shift_px, config.shift_px + 1
            drawn = [torch.randint(low, high, (num_samples, 2), generator=stream(seed, "shift", epoch)) for seed in seeds]
            self.shifts = to_device(torch.stack(drawn), device)

    def __len__(self) -> int:
        return self.order.shape[1] // self.batch_size

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images `[replica, sample, channel, height, width]` and labels `[replica, sample]` of a step."""
        now = slice(step * self.batch_size, (step + 1) * self.batch_size)

        def drawn(values: Tensor) -> Tensor:
            return values[:, now].transpose(0, 1) if self.interleaved else values[:, now]

        order = drawn(self.order)
        flips = None if self.flips is None else drawn(self.flips).flatten(0, 1)
        shifts = None if self.shifts is None else drawn(self.shifts).flatten(0, 1)
        images = flip_and_shift(self.split.images.index_select(0, order.flatten()), flips, shifts)
        if self.config.diffeo is not None:
            images = self._warped(images, self.config.diffeo, step)
        images = images.unflatten(0, order.shape)
        return images.transpose(0, 1) if self.interleaved else images, self.split.labels[self.order[:, now]]

    def _warped(self, images: Tensor, config: Diffeo, step: int) -> Tensor:
        """Images of a step, each under its own warp. Drawn step by step: the fields of an epoch would take more memory than its images."""
        shape = (images.shape[1], images.shape[2], images.shape[3])
        drawn = [draw_fields(config, shape, self.batch_size, stream_seed(seed, f"diffeo/{step}", self.epoch)) for seed in self.seeds]
        coefficients = torch.stack(drawn, 1 if self.interleaved else 0).flatten(0, 1)
        return warp(images, to_device(coefficients, images.device), largest_cut(config, shape))
