"""Warping images by maximum-entropy diffeomorphisms: all at once, against the same formula image by image, as the authors' scripts run it.

    taskset -c 0,1 python benchmarks/diffeo.py [--images 500] [--size 32] [--temperatures 30] [--rounds 5]

Both sides draw a field for every image and temperature, of the same law, and interpolate linearly; they take turns. First it checks that
the same fields warp the same images alike. Exit code 1 where the batch is less than 100 times as fast.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from analysis.measures.diffeo import Diffeomorphisms, modes, temperature_range

BAR = 100.0
CUT = 3


@functools.cache
def waves(size: int) -> tuple[Tensor, Tensor]:
    """The authors' constants: standard deviations `[mode i, mode j]` at T = 1, and sines `[point, mode]`; computed once."""
    k = torch.arange(1, CUT + 1).float()
    radius = (k[:, None] ** 2 + k[None] ** 2).sqrt()
    return (radius < CUT + 0.5) / radius, torch.sin(torch.pi * torch.linspace(0, 1, size)[:, None] * k)


def displacement(coefficients: Tensor, size: int) -> Tensor:
    """Pixels `[height, width]` of one component of one field, from its coefficients `[mode i, mode j]`."""
    sines = waves(size)[1]
    return torch.einsum("ij,xi,yj->yx", coefficients, sines, sines) * size


def warp(image: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """One image `[channel, height, width]` displaced by one field, bilinearly."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    x, y = (x - across).clamp(0, width - 1), (y - down).clamp(0, height - 1)
    x0, y0, x1, y1 = x.floor().long(), y.floor().long(), x.ceil().long(), y.ceil().long()
    a, b = x - x0, y - y0
    upper = (1 - a) * image[:, y0, x0] + a * image[:, y0, x1]
    return (1 - b) * upper + b * ((1 - a) * image[:, y1, x0] + a * image[:, y1, x1])


def one_by_one(images: Tensor, temperature: float) -> Tensor:
    std, size = waves(images.shape[-1])[0] * temperature**0.5, images.shape[-1]
    return torch.stack([warp(i, *(displacement(torch.randn(CUT, CUT) * std, size) for _ in range(2))) for i in images])


def all_at_once(images: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    return Diffeomorphisms.draw(len(images), CUT, temperature, generator).warp(images)


def largest_difference(images: Tensor, temperature: float, generator: torch.Generator) -> float:
    """Between both sides' warps of the same images by the same fields."""
    fields = Diffeomorphisms.draw(len(images), CUT, temperature, generator)
    i, j = (modes(CUT) - 1).unbind(1)
    coefficients = torch.zeros(len(images), 2, CUT, CUT)
    coefficients[:, :, i, j] = fields.coefficients
    slow = [warp(x, *(displacement(c, x.shape[-1]) for c in both)) for x, both in zip(images, coefficients, strict=True)]
    return float((fields.warp(images) - torch.stack(slow)).abs().max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--temperatures", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(options.images, 3, options.size, options.size, generator=generator)
    lowest, highest = temperature_range(options.size, CUT)
    temperatures = torch.logspace(*torch.tensor([lowest / 15, highest]).log10().tolist(), options.temperatures).tolist()
    difference = largest_difference(images, highest / 2, generator)
    times: dict[str, list[float]] = {"one by one": [], "all at once": []}
    all_at_once(images, lowest, generator)
    for _ in range(options.rounds):
        for name, call in (("one by one", one_by_one), ("all at once", functools.partial(all_at_once, generator=generator))):
            began = time.perf_counter()
            for temperature in temperatures:
                call(images, temperature)
            times[name].append(time.perf_counter() - began)
    ratios = [slow / fast for slow, fast in zip(*times.values(), strict=True)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{options.images} images of 3x{options.size}x{options.size}, {options.temperatures} temperatures, cut-off {CUT}")
    print(f"{cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, n = {options.rounds}")
    print(f"largest difference of a pixel {difference:.1e}")
    for name, seconds in times.items():
        print(f"{name:12s} {statistics.median(seconds):8.3f} s [{min(seconds):.3f}, {max(seconds):.3f}]")
    print(f"ratio {statistics.median(ratios):.0f} [{min(ratios):.0f}, {max(ratios):.0f}], bar {BAR:.0f}")
    return 0 if statistics.median(ratios) >= BAR and difference < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
