"""Augmentation of a batch on its device. The draws are the caller's, so that they can come from any stream."""

from __future__ import annotations

import torch
from torch import Tensor


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
    is_plain = images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last)
    return moved.contiguous(memory_format=torch.contiguous_format if is_plain else torch.channels_last)
