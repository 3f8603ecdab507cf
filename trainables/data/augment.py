"""Augmentation of a batch on its device. The draws are the caller's, so that they can come from any stream."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from analysis.measures.diffeo import Diffeomorphisms, modes, temperature_range
from trainables.recipe import Diffeo

MOST_CUT = 15  # the authors' largest cut-off


def flip_and_shift(images: Tensor, flips: Tensor | None, shifts: Tensor | None) -> Tensor:
    """Images [batch, channel, height, width], mirrored left to right where `flips`, then moved by `shifts`.

    flips: bool [batch]. shifts: integers [batch, 2], pixels down and to the right; what is uncovered is zero. The
    memory format of `images` is kept.
    """
    if flips is None and shifts is None:
        return images
    batch, _, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(batch, height)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    if shifts is not None:
        rows, columns = rows - shifts[:, :1], columns - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    if flips is not None:
        columns = torch.where(flips[:, None], width - 1 - columns, columns)
    sample = torch.arange(batch, device=images.device)
    moved = images.permute(0, 2, 3, 1)[sample[:, None, None], rows[:, :, None], columns[:, None, :]]
    moved = moved.masked_fill(~inside[..., None], 0).permute(0, 3, 1, 2)
    return moved.contiguous(memory_format=_layout(images))


def warp(images: Tensor, coefficients: Tensor, cut_max: int) -> Tensor:
    """Images [batch, channel, height, width], each displaced by its field of coefficients [batch, 2, mode] from `draw_fields`.

    The memory format of `images` is kept.
    """
    fields = Diffeomorphisms(coefficients, modes(cut_max).to(coefficients.device))
    return fields.warp(images.contiguous()).contiguous(memory_format=_layout(images))


def draw_fields(config: Diffeo, image_shape: tuple[int, int, int], num_fields: int, seed: int) -> Tensor:
    """Coefficients [field, 2, mode of the largest cut-off], each field with a cut-off and a temperature of its own. From the seed alone."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    cut_max, side = largest_cut(config, image_shape), _side(image_shape)

    def beta(concentration: float, ratio: float) -> np.ndarray:
        return generator.beta(concentration * ratio / (ratio + 1), concentration / (ratio + 1), num_fields)

    cuts = config.cut_min + (cut_max + 1 - config.cut_min) * beta(config.cut_concentration, config.cut_ratio)
    cuts = np.minimum(cuts.astype(int), cut_max)
    lowest, highest = np.array([temperature_range(side, cut) for cut in range(config.cut_min, cut_max + 1)])[cuts - config.cut_min].T
    temperatures = lowest + (highest - lowest) * beta(config.temperature_concentration, config.temperature_ratio)
    pairs = modes(cut_max).numpy()
    radius = np.sqrt((pairs**2).sum(1))
    kept = (radius < cuts[:, None] + 0.5) & (pairs.max(1) <= cuts[:, None])  # as `modes(cut)` has them
    std = np.sqrt(temperatures)[:, None] / radius * kept
    normal = generator.standard_normal((num_fields, 2, len(pairs)), dtype=np.float32)
    return torch.from_numpy(normal * std[:, None].astype(np.float32))


def largest_cut(config: Diffeo, image_shape: tuple[int, int, int]) -> int:
    """The largest cut-off on such images. Raises ValueError for one of which no temperature moves pixels without folding."""
    most = int(2 * _side(image_shape) / math.pi)
    wanted = min(MOST_CUT, most) if config.cut_max is None else config.cut_max
    if wanted > most or wanted < config.cut_min:
        key, value = ("cut_min", config.cut_min) if config.cut_max is None else ("cut_max", config.cut_max)
        shown = f"on images of {_side(image_shape):g} px warps of cut-offs beyond {most} fold"
        raise ValueError(f"{key} is {value}, but {shown}; allowed: 2 to {most}")
    return wanted


def _side(image_shape: tuple[int, int, int]) -> float:
    return math.sqrt(image_shape[1] * image_shape[2])


def _layout(images: Tensor) -> torch.memory_format:
    is_plain = images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if is_plain else torch.channels_last
