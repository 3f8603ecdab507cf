"""Flips and shifts of a batch against their definition, pixel by pixel; warps, and what they are drawn from."""

import pytest
import torch
from pydantic import ValidationError

from analysis import tables
from analysis.measures.diffeo import Diffeomorphisms, modes, temperature_range
from analysis.storage import Store
from sweep.check import check
from sweep.config import ConfigError, load
from trainables.batches import EpochBatches
from trainables.data.augment import draw_fields, flip_and_shift, largest_cut, warp
from trainables.family import Family, run
from trainables.options import Probes
from trainables.recipe import Diffeo
from trainables.schedule import Base, Schedule


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


def test_fields_have_their_own_cut_off_and_temperature_and_never_cut_off_1():
    """The defaults: cut-offs uniform over 2 to 15, temperatures uniform over the range of each; modes as `Diffeomorphisms.draw`."""
    shape, pairs = (3, 32, 32), modes(15)
    fields = draw_fields(Diffeo(), shape, 20_000, seed=1)
    assert torch.equal(fields, draw_fields(Diffeo(), shape, 20_000, seed=1))
    assert not torch.equal(fields, draw_fields(Diffeo(), shape, 20_000, seed=2))
    number_of = {len(modes(cut)): cut for cut in range(2, 16)}
    cuts = torch.tensor([number_of[int(count)] for count in (fields[:, 0] != 0).sum(1)])
    shares = torch.bincount(cuts, minlength=16)[2:] / 20_000
    torch.testing.assert_close(shares, torch.full((14,), 1 / 14), atol=0.008, rtol=0)
    for cut in (2, 7, 15):
        mine = fields[cuts == cut]
        kept = {tuple(pair) for pair in modes(cut).tolist()}
        assert all((tuple(pair) in kept) == bool(mine[:, :, k].any()) for k, pair in enumerate(pairs.tolist()))
        scaled = (mine * pairs.square().sum(1).sqrt()).square().sum((1, 2)) / (2 * len(kept))  # unbiased for T
        low, high = temperature_range(32, cut)
        assert scaled.mean().item() == pytest.approx((low + high) / 2, rel=0.06)


def test_ratios_above_1_favour_large_cut_offs_and_temperatures():
    shape = (1, 28, 28)
    plain = draw_fields(Diffeo(cut_max=3), shape, 4000, seed=1).square().sum((1, 2)).mean()
    warm = draw_fields(Diffeo(cut_max=3, temperature_ratio=9.0), shape, 4000, seed=1).square().sum((1, 2)).mean()
    assert warm > 1.4 * plain
    few, many = ((draw_fields(Diffeo(cut_ratio=r), shape, 4000, seed=1) != 0).float().mean() for r in (1.0, 9.0))
    assert many > 1.4 * few


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_warps_are_those_of_the_fields_and_keep_the_memory_format(memory_format):
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format)
    coefficients = draw_fields(Diffeo(), (3, 16, 16), 6, seed=0)
    result = warp(images, coefficients, largest_cut(Diffeo(), (3, 16, 16)))
    assert result.is_contiguous(memory_format=memory_format)
    for image, one, found in zip(images, coefficients, result, strict=True):
        alone = Diffeomorphisms(one[None], modes(10)).warp(image[None].contiguous())[0]
        torch.testing.assert_close(found, alone)
    assert not torch.equal(result, images)


def test_cut_offs_without_a_temperature_are_refused():
    assert [largest_cut(Diffeo(), (1, side, side)) for side in (12, 20, 28, 32)] == [7, 12, 15, 15]
    with pytest.raises(ValueError, match="cut_max is 13, but on images of 20 px warps of cut-offs beyond 12 fold"):
        largest_cut(Diffeo(cut_max=13), (1, 20, 20))
    with pytest.raises(ValueError, match="cut_min is 9, but"):
        largest_cut(Diffeo(cut_min=9), (1, 12, 12))
    with pytest.raises(ValidationError, match="below cut_min"):
        Diffeo(cut_min=4, cut_max=3)
    with pytest.raises(ConfigError, match=r"training\.diffeo: cut_max is 15, but"):
        check(*load("quick", ["training.diffeo={cut_max: 15}"]))


def test_families_trained_on_warped_images_branch_bit_for_bit_and_others_keep_their_names(small_recipe, small_data, tmp_path, same_tables):
    probes = Probes(num_samples=10)
    warped = small_recipe.model_copy(update={"training": small_recipe.training.model_copy(update={"diffeo": Diffeo(), "flip": True})})
    control = Schedule.of([[0, "relu", "cross_entropy"]])
    swap = Schedule.of([[0, "relu", "cross_entropy"], [2, "tanh", "focal"]])
    shared, scratch = Store(tmp_path / "shared"), Store(tmp_path / "scratch")
    list(run(Family(warped, probes, control, frozenset([2])), shared))
    list(run(Family(warped, probes, swap), shared))
    list(run(Family(warped, probes, swap), scratch))
    same_tables(shared, scratch, tables.names(scratch, "trials"))
    assert tables.read(shared, "trials", ["epochs_trained"])["epochs_trained"].sum() == 8
    assert "diffeo" not in Base(small_recipe, small_data.hash).key["training"]
    assert Base(warped, small_data.hash).name != Base(small_recipe, small_data.hash).name


def test_each_replica_and_step_has_its_own_warps_whichever_the_layout_of_a_batch(small_recipe, small_data):
    config = small_recipe.training.model_copy(update={"diffeo": Diffeo()})
    side_by_side, apart = (EpochBatches(config, small_data.train, [3, 4], 1, interleaved) for interleaved in (True, False))
    plain = EpochBatches(small_recipe.training, small_data.train, [3, 4], 1)
    for step in (0, 1):
        torch.testing.assert_close(side_by_side[step][0], apart[step][0])
        (images, labels), (still, same) = apart[step], plain[step]
        assert torch.equal(labels, same)
        assert all((images[replica] != still[replica]).flatten(1).any(1).all() for replica in (0, 1))
    alone = EpochBatches(config, small_data.train, [4], 1)
    torch.testing.assert_close(alone[1][0][0], apart[1][0][1])
