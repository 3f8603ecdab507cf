"""Maximum-entropy diffeomorphisms against the paper's values and the formula image by image."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from analysis.measures import diffeo
from analysis.measures.diffeo import (
    GAUSSIAN_PX,
    Diffeomorphisms,
    matched_noise,
    modes,
    temperature_range,
    typical_displacement,
    typical_temperature,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def photographs(num, size, channels=3, seed=0):
    """Images with a spectrum of 1 / f, as photographs have."""
    frequency = (torch.fft.fftfreq(size)[:, None] ** 2 + torch.fft.rfftfreq(size)[None] ** 2).sqrt()
    frequency[0, 0] = 1 / size
    spectrum = torch.fft.rfft2(torch.randn(num, channels, size, size, generator=seeded(seed))) / frequency
    images = torch.fft.irfft2(spectrum, s=(size, size))
    return images / images.std()


@pytest.mark.parametrize(
    ("size", "cut", "lowest", "highest", "most_px", "at_one_px"),
    [
        (28, 3, 3.69564e-4, 1.30474e-2, 2.971, 1.47826e-3),
        (28, 5, 2.52267e-4, 3.20624e-3, 1.783, 1.00907e-3),
        (28, 15, 1.49926e-4, 2.11725e-4, 0.594, 5.99705e-4),
        (32, 3, 2.82947e-4, 1.30474e-2, 3.395, 1.13179e-3),
        (32, 5, 1.93142e-4, 3.20624e-3, 2.037, 7.72567e-4),
        (32, 15, 1.14787e-4, 2.11725e-4, 0.679, 4.59149e-4),
        (64, 3, 7.07369e-5, 1.30474e-2, 6.791, 2.82947e-4),
        (224, 3, 5.77444e-6, 1.30474e-2, 23.767, 2.30977e-5),
    ],
)
def test_temperatures_and_displacements_are_the_published_ones(size, cut, lowest, highest, most_px, at_one_px):
    assert temperature_range(size, cut) == pytest.approx((lowest, highest), rel=5e-6)
    assert typical_displacement(highest, cut, size) == pytest.approx(most_px, abs=5e-4)
    assert typical_displacement(lowest, cut, size) == pytest.approx(0.5, rel=1e-5)
    assert typical_temperature(1.0, cut, size) == pytest.approx(at_one_px, rel=5e-6)
    assert typical_displacement(typical_temperature(1.7, cut, size), cut, size) == pytest.approx(1.7)


@pytest.mark.parametrize(("cut", "published", "disc"), [(3, 6, 4), (5, 19, 15), (15, 172, 162)])
def test_mode_counts(cut, published, disc):
    assert (len(modes(cut)), len(modes(cut, "disc"))) == (published, disc)


@pytest.mark.parametrize("cut", [1, 2.5, 0])
def test_a_cut_off_without_a_temperature_scale_is_refused(cut):
    for call in (lambda: temperature_range(32, cut), lambda: modes(cut), lambda: typical_temperature(1.0, cut, 32)):
        with pytest.raises(ValueError, match="whole numbers from 2"):
            call()


def field_by_field(fields, height, width):
    """Displacements from the defining sum, one term after the other."""
    y, x = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    found = torch.zeros(len(fields), 2, height, width)
    for index, components in enumerate(fields.coefficients):
        for component, side in enumerate((width, height)):
            for value, (i, j) in zip(components[component], fields.modes.tolist(), strict=True):
                found[index, component] += value * side * torch.sin(i * math.pi * x)[None] * torch.sin(j * math.pi * y)[:, None]
    return found


def read_linear(image, displacement):
    """Bilinear interpolation, pixel by pixel."""
    _, height, width = image.shape
    warped = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            x = min(max(column - displacement[0, row, column].item(), 0.0), width - 1.0)
            y = min(max(row - displacement[1, row, column].item(), 0.0), height - 1.0)
            x0, y0 = min(int(x), width - 2), min(int(y), height - 2)
            a, b = x - x0, y - y0
            warped[:, row, column] = (
                (1 - b) * (1 - a) * image[:, y0, x0]
                + (1 - b) * a * image[:, y0, x0 + 1]
                + b * (1 - a) * image[:, y0 + 1, x0]
                + b * a * image[:, y0 + 1, x0 + 1]
            )
    return warped


def read_gaussian(image, displacement):
    """All pixels weighted by a Gaussian, as the authors do."""
    _, height, width = image.shape
    y, x = torch.meshgrid(torch.arange(height).to(image), torch.arange(width).to(image), indexing="ij")
    read_x, read_y = (x - displacement[0]).clamp(0, width - 1), (y - displacement[1]).clamp(0, height - 1)
    squares = (read_x.flatten()[:, None] - x.flatten()) ** 2 + (read_y.flatten()[:, None] - y.flatten()) ** 2
    weights = torch.exp(-squares / (2 * GAUSSIAN_PX**2))
    return (image.flatten(1) @ (weights / weights.sum(1, keepdim=True)).T).view_as(image)


@pytest.mark.parametrize(("height", "width"), [(9, 9), (7, 12)])
@pytest.mark.parametrize("mask", ["published", "disc"])
def test_fields_and_warps_are_those_of_the_formula_one_by_one(double, height, width, mask):
    images = torch.randn(3, 2, height, width, generator=seeded())
    fields = Diffeomorphisms.draw(3, 3, 0.012, seeded(), mask)
    displacement = fields.displacement(height, width)
    torch.testing.assert_close(displacement, field_by_field(fields, height, width))
    assert not displacement[:, :, [0, -1]].abs().max() > 1e-12
    assert not displacement[:, :, :, [0, -1]].abs().max() > 1e-12
    for interpolation, slow in (("linear", read_linear), ("gaussian", read_gaussian)):
        wanted = torch.stack([slow(image, one) for image, one in zip(images, displacement, strict=True)])
        torch.testing.assert_close(fields.warp(images, interpolation), wanted, rtol=1e-7, atol=1e-7)


def test_one_image_can_be_warped_by_many_fields_and_a_field_is_its_own():
    fields = Diffeomorphisms.draw(4, 3, 1e-3, seeded())
    image = torch.randn(1, 3, 16, 16, generator=seeded(1))
    torch.testing.assert_close(fields.warp(image), fields.warp(image.expand(4, -1, -1, -1)))
    alone = Diffeomorphisms(fields.coefficients[2:3], fields.modes)
    torch.testing.assert_close(alone.warp(image), fields.warp(image)[2:3])


@pytest.mark.parametrize("cut", [2, 3, 5])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (2, 2), (3, 17), (21, 6)])
def test_compiled_warps_are_those_of_the_formula_and_of_the_grid_sampler(height, width, channels, cut):
    images = torch.rand(3, channels, height, width, generator=seeded())
    fields = Diffeomorphisms.draw(3, cut, temperature_range(32, cut)[1], seeded())
    found = fields.warp(images)
    torch.testing.assert_close(found, fields.warp(images, compiled=False), rtol=0, atol=1e-5)
    exact = Diffeomorphisms(fields.coefficients.double(), fields.modes).warp(images.double())  # float64 is never compiled
    torch.testing.assert_close(found, exact.float(), rtol=0, atol=1e-5)
    assert torch.equal(fields.warp(images.to(memory_format=torch.channels_last)), found)


def test_compiled_warps_of_the_largest_cut_off_and_beyond_the_border():
    images = torch.rand(5, 2, 28, 40, generator=seeded())
    fields = Diffeomorphisms.draw(5, 15, temperature_range(32, 15)[1], seeded())
    far = Diffeomorphisms(300 * fields.coefficients, fields.modes)
    assert (far.displacement(28, 40).abs() > 40).any()
    for these, tolerance in ((fields, 1e-5), (far, 1e-3)):
        exact = Diffeomorphisms(these.coefficients.double(), these.modes).warp(images.double())
        torch.testing.assert_close(these.warp(images), exact.float(), rtol=0, atol=tolerance)


def test_threads_and_other_fields_change_no_bit():
    images = torch.randn(100, 3, 64, 48, generator=seeded())
    fields = Diffeomorphisms.draw(100, 3, 5e-3, seeded())
    threads, found = torch.get_num_threads(), []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append((fields.warp(images), fields.warp(images[:1])))
    torch.set_num_threads(threads)
    every, one = found[0]
    assert all(torch.equal(every, other) and torch.equal(one, same) for other, same in found)
    assert torch.equal(one, fields.warp(images[:1].expand(100, -1, -1, -1)))
    for part in (slice(7, 8), slice(60, 100)):
        assert torch.equal(Diffeomorphisms(fields.coefficients[part], fields.modes).warp(images[part]), every[part])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_warps_with_threads_of_its_own():
    code = """if True:
        import os, torch
        from analysis.measures.diffeo import Diffeomorphisms
        torch.set_num_threads(3)
        images = torch.rand(200, 3, 32, 32)
        fields = Diffeomorphisms.draw(200, 3, 1e-3, torch.Generator().manual_seed(0))
        before, child = fields.warp(images), os.fork()
        if child == 0:
            os._exit(0 if (before.numpy() == fields.warp(images).numpy()).all() else 1)  # torch itself may hang here
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0"], done.stderr


def test_no_fields_fields_of_zeros_and_fields_of_no_numbers():
    nothing = Diffeomorphisms.draw(0, 3, 1e-3, seeded())
    assert nothing.warp(torch.zeros(0, 3, 8, 8)).shape == nothing.warp(torch.zeros(1, 3, 8, 8)).shape == (0, 3, 8, 8)
    images = torch.randn(2, 3, 9, 5, generator=seeded())
    torch.testing.assert_close(Diffeomorphisms(torch.zeros(2, 2, 6), modes(3)).warp(images), images, rtol=0, atol=1e-6)
    lost = Diffeomorphisms(torch.full((2, 2, 6), math.nan), modes(3))
    assert torch.equal(lost.warp(images), images[..., :1, :1].expand_as(images))


def test_gradients_lines_and_other_types_are_not_compiled():
    images = torch.randn(2, 3, 8, 8, generator=seeded())
    fields = Diffeomorphisms.draw(2, 3, 1e-3, seeded())
    wanted = images.clone().requires_grad_()
    fields.warp(wanted).square().sum().backward()
    assert wanted.grad is not None
    assert torch.equal(fields.warp(images[:, :, :1]), fields.warp(images[:, :, :1], compiled=False))
    double = Diffeomorphisms(fields.coefficients.double(), fields.modes)
    assert double.warp(images.double()).dtype == torch.float64


def test_what_is_compiled_is_kept_in_the_users_cache_or_not_at_all(tmp_path):
    """Where the package is read-only: here a file is where the cache beside `warping.py` would be."""
    shutil.copy(Path(diffeo.__file__).with_name("warping.py"), tmp_path)
    (tmp_path / "__pycache__").touch()
    (tmp_path / "home").mkdir()
    code = """if True:
        import numpy as np, warping
        images, warped = np.ones((1, 1, 4, 4), np.float32), np.zeros((1, 1, 4, 4), np.float32)
        warping.warp(images, np.zeros((1, 2, 1), np.float32), np.array([[1, 1]]), warped, 1)
        print((warped == 1).all(), *warping._warp.stats.cache_hits.values())"""

    def run(code, home):
        env = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert [run(code, tmp_path / "home") for _ in range(2)] == [["True"], ["True", "1"]]
    run("import warping", tmp_path / "warping.py")  # no folder can be made in a file


def test_no_temperature_no_change_and_the_same_seed_the_same_fields():
    images = torch.randn(2, 1, 10, 10, generator=seeded())
    torch.testing.assert_close(Diffeomorphisms.draw(2, 3, 0.0, seeded()).warp(images), images, rtol=1e-5, atol=1e-5)
    one, same, other = (Diffeomorphisms.draw(2, 3, 1e-3, seeded(seed)).coefficients for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("cut", "rms_px", "centre_px"), [(3, 0.816, 1.255), (5, 0.838, 1.147)])
def test_displacements_at_one_nominal_pixel(cut, rms_px, centre_px):
    """Over the image and at its centre, and from the law: mean of tau^2 over the square is T / 4 times the sum of 1 / (i^2 + j^2)."""
    temperature = typical_temperature(1.0, cut, 32)
    displacement = Diffeomorphisms.draw(4000, cut, temperature, seeded()).displacement(32, 32)
    squares = displacement.square().sum(1)
    assert squares.mean().sqrt().item() == pytest.approx(rms_px, rel=0.02)
    assert squares[:, 15:17, 15:17].mean().sqrt().item() == pytest.approx(centre_px, rel=0.03)
    law = 32 * math.sqrt(temperature / 2 * (1 / modes(cut).square().sum(1)).sum().item())
    assert squares[:, :-1, :-1].mean().sqrt().item() == pytest.approx(law, rel=0.02)  # the last row repeats the first one's zeros


def test_the_jacobian_is_that_of_finite_differences(double):
    fields, points = Diffeomorphisms.draw(5, 3, 0.012, seeded()), 801
    u, v = (fields.displacement(points, points) / points).unbind(1)
    (u_y, u_x), (v_y, v_x) = (torch.gradient(t, spacing=1 / (points - 1), dim=(1, 2), edge_order=2) for t in (u, v))
    slow = ((1 - u_x) * (1 - v_y) - u_y * v_x).flatten(1).amin(1)
    torch.testing.assert_close(fields.min_jacobian(points), slow, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("cut", "share"), [(3, 0.35), (5, 0.30), (15, 0.06)])
def test_some_fields_fold_at_the_highest_temperature_and_hardly_any_at_a_quarter_of_it(cut, share):
    highest = temperature_range(32, cut)[1]
    folded = Diffeomorphisms.draw(2000, cut, highest, seeded()).min_jacobian() <= 0
    assert folded.float().mean().item() == pytest.approx(share, abs=0.04)
    folded = Diffeomorphisms.draw(2000, cut, highest / 4, seeded()).min_jacobian() <= 0
    assert folded.float().mean() < 0.005


def test_folded_fields_are_drawn_again_and_others_kept():
    highest = temperature_range(32, 3)[1]
    plain, clean = (Diffeomorphisms.draw(200, 3, highest, seeded(), reject_folded=reject) for reject in (False, True))
    folded = plain.min_jacobian() <= 0
    assert folded.any()
    assert (clean.min_jacobian() > 0).all()
    assert torch.equal(plain.coefficients[~folded], clean.coefficients[~folded])


def test_temperatures_out_of_range_are_refused_or_warned_of():
    at_one_px = typical_temperature(1.0, 15, 32)  # no diffeomorphism at this cut-off
    with pytest.raises(ValueError, match=r"above 0\.0002117, the highest .* of cut-off 15"):
        Diffeomorphisms.draw(4, 15, at_one_px, seeded())
    with pytest.warns(UserWarning, match="many fold"):
        fields = Diffeomorphisms.draw(300, 15, at_one_px, seeded(), beyond_range=True)
    assert (fields.min_jacobian() <= 0).float().mean() > 0.9
    with pytest.raises(ValueError, match="allowed: 0 and more"):
        Diffeomorphisms.draw(4, 3, -1.0, seeded())


def test_each_field_has_its_own_temperature():
    temperatures = torch.tensor([0.0, 1e-4, 1e-3]).repeat_interleave(500)
    sizes = Diffeomorphisms.draw(1500, 3, temperatures, seeded()).coefficients.view(3, -1).std(1)
    assert sizes[0] == 0
    assert (sizes[2] / sizes[1]).item() == pytest.approx(math.sqrt(10), rel=0.05)


def test_noise_is_as_long_as_its_image_was_moved():
    images = photographs(20, 16)
    warped = Diffeomorphisms.draw(20, 3, 1e-3, seeded()).warp(images)
    noise = matched_noise(images, warped, seeded(1))
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), (warped - images).flatten(1).norm(dim=1))


def test_what_does_not_fit_is_refused():
    fields = Diffeomorphisms.draw(3, 3, 1e-3, seeded())
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\) for 3 fields"):
        fields.warp(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="allowed: linear, gaussian"):
        fields.warp(torch.zeros(3, 1, 8, 8), "cubic")
    with pytest.raises(ValueError, match="allowed: published, disc"):
        modes(3, "square")
