"""Flips and shifts of a batch against their definition, pixel by pixel."""

import pytest
import torch

from trainables.data.augment import flip_and_shift


def shifted(image, flip, shift):
    """One image [channel, height, width], pixel by pixel."""
    result = torch.zeros_like(image)
    height, width = image.shape[1:]
    for row in range(height):
        for column in range(width):
            y, x = row - shift[0], column - shift[1]
            if 0 <= y < height and 0 <= x < width:
                result[:, row, column] = image[:, y, width - 1 - x if flip else x]
    return result


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("which", ["both", "flips", "shifts"])
def test_flips_and_shifts_equal_the_pixelwise_definition_and_keep_the_memory_format(memory_format, which):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 5, 7, generator=generator).to(memory_format=memory_format)
    flips = torch.rand(16, generator=generator) < 0.5
    shifts = torch.randint(-8, 9, (16, 2), generator=generator)
    result = flip_and_shift(images, flips if which != "shifts" else None, shifts if which != "flips" else None)
    assert result.is_contiguous(memory_format=memory_format)
    for number in range(16):
        flip = bool(flips[number]) and which != "shifts"
        shift = shifts[number].tolist() if which != "flips" else (0, 0)
        assert torch.equal(result[number], shifted(images[number], flip, shift))


def test_no_flips_and_no_shifts_are_the_identity():
    images = torch.randn(2, 1, 4, 4)
    assert flip_and_shift(images, None, None) is images
    none, still = torch.zeros(2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.long)
    assert torch.equal(flip_and_shift(images, none, still), images)
