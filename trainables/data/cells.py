"""Generated images of single cells as under a microscope, stained with hematoxylin and eosin: cancer (1) or not (0).

A cell is a nucleus in its cytoplasm, both with outlines whose radius is a Fourier series of the angle. Five traits tell
the classes apart. Each is normal; with separation s = 1 - difficulty, the class means lie s x `gap` standard deviations
apart, symmetric about `middle`, and in cancer cells the deviation is 1 + s x 0.4 times as large (pleomorphism):

| trait                 | middle | deviation | gap  | cancer | unit                                                |
|-----------------------|--------|-----------|------|--------|-----------------------------------------------------|
| nucleus to cell       | 0.36   | 0.080     | +3.6 | larger | area of the nucleus / area of the cell              |
| outline irregularity  | 0.080  | 0.020     | +3.6 | larger | rms of the nucleus' radius / its mean               |
| chromatin texture     | 0.22   | 0.060     | +3.6 | larger | rms of the hematoxylin in the nucleus / its mean    |
| staining depth        | 0.95   | 0.14      | +3.6 | larger | optical density of hematoxylin in the nucleus       |
| cell radius           | 0.72   | 0.075     | 0    | varies | half the image's width                              |

Traits are clipped to the ranges of `TRAITS`. The same in both classes: the cell's place and outline, the nucleus'
place, the cytoplasm's stain and grain, the tissue behind it and the camera's noise (2 of 255).
Per slide: both stains' colours and strengths, brightness per colour, an illumination gradient, and the focus blur.
At difficulty 1 nothing depends on the class.

Every random number belongs to (seed, what it is for, the image's number), so image i is the same whatever `num_images`
is. Per pixel there are only operations that IEEE 754 rounds exactly and one double-precision exp before rounding to 8
bits, so the bytes do not depend on the processor.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.data.samples import Samples
from trainables.data.splits import stream
from trainables.recipe import CellsData

Array = NDArray[np.floating]  # single precision but for the exp; annotations of NumPy cannot follow that


class Trait(NamedTuple):
    """A normal distribution per class; see the module's table."""

    middle: float
    deviation: float
    gap: float
    lowest: float
    highest: float


TRAITS = {
    "nucleus_to_cell": Trait(0.36, 0.080, 3.6, 0.08, 0.80),
    "irregularity": Trait(0.080, 0.020, 3.6, 0.01, 0.20),
    "texture": Trait(0.22, 0.060, 3.6, 0.0, 0.60),
    "depth": Trait(0.95, 0.14, 3.6, 0.3, 1.8),
    "cell_radius": Trait(0.72, 0.075, 0.0, 0.45, 0.95),
}
PLEOMORPHISM = 0.4
CLASS_NAMES = ["non-cancer", "cancer"]

_HEMATOXYLIN = (0.65, 0.70, 0.29)  # optical density in red, green, blue per unit of stain (Ruifrok and Johnston 2001)
_EOSIN = (0.07, 0.99, 0.11)
_LATTICE = 13  # nodes of the noise textures per side: texture scales with the image
_HARMONICS = (2, 3, 4, 5, 6)
_CHUNK = 256  # images rendered at a time; their arrays fit the cache


def read(config: CellsData) -> Samples:
    """Images [sample, 3, height, width]. Even ids are non-cancer, odd ids cancer; slides take pairs in turn."""
    ids = np.arange(config.num_images)
    labels, slides = ids % 2, ids // 2 % config.num_slides
    draws = _Draws(config.seed)
    slide = {key: values[slides] for key, values in _slides(draws, config.num_slides).items()}
    traits = _traits(draws, labels, 1.0 - config.difficulty)
    images = np.empty((len(ids), 3, config.image_size, config.image_size), np.uint8)
    for start in range(0, len(ids), _CHUNK):
        part = slice(start, start + _CHUNK)
        hematoxylin, eosin = _stains(draws, {key: values[part] for key, values in traits.items()}, config.image_size)
        images[part] = _photograph(draws, hematoxylin, eosin, {key: values[part] for key, values in slide.items()})
    groups = np.array([f"slide {number:0{len(str(config.num_slides - 1))}d}" for number in range(config.num_slides)])
    return Samples(images, labels, list(CLASS_NAMES), groups=groups[slides])


class _Draws:
    """One stream per purpose, advanced image by image."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._streams: dict[str, np.random.Generator] = {}

    def _stream(self, purpose: str) -> np.random.Generator:
        if purpose not in self._streams:
            self._streams[purpose] = stream(f"cells {purpose}", self._seed)
        return self._streams[purpose]

    def normal(self, purpose: str, *shape: int) -> Array:
        return self._stream(purpose).standard_normal(shape).astype(np.float32)

    def uniform(self, purpose: str, low: float, high: float, *shape: int) -> Array:
        return self._stream(purpose).uniform(low, high, shape).astype(np.float32)


def _traits(draws: _Draws, labels: NDArray[np.int64], separation: float) -> dict[str, Array]:
    """The value of each trait [sample]."""
    side = np.where(labels == 1, 0.5, -0.5)
    spread = 1 + PLEOMORPHISM * separation * labels
    return {
        name: np.clip(
            trait.middle + trait.deviation * (side * separation * trait.gap + spread * draws.normal(name, len(labels))),
            trait.lowest,
            trait.highest,
        ).astype(np.float32)
        for name, trait in TRAITS.items()
    }


def _slides(draws: _Draws, num: int) -> dict[str, Array]:
    """What the images of a slide share."""
    return {
        "hematoxylin": np.array(_HEMATOXYLIN, np.float32) * (1 + 0.10 * draws.normal("hematoxylin colour", num, 3)),
        "eosin": np.array(_EOSIN, np.float32) * (1 + 0.10 * draws.normal("eosin colour", num, 3))
        + np.abs(0.05 * draws.normal("eosin tint", num, 3)),
        "strength": np.clip(1 + 0.12 * draws.normal("stain strength", num, 2), 0.6, 1.4),  # hematoxylin, eosin
        "light": np.clip(0.95 + 0.025 * draws.normal("brightness", num, 3), 0.85, 1.0),  # red, green, blue
        "gradient": 0.05 * draws.normal("gradient", num, 2),  # relative brightness from the middle to the edge: x, y
        "blur": draws.uniform("focus", 0.0, 0.8, num),  # 0 sharp, 1 a binomial filter a 24th of the image wide
    }


def _stains(draws: _Draws, traits: dict[str, Array], size: int) -> tuple[Array, Array]:
    """Amounts of hematoxylin and of eosin [sample, height, width]."""
    num = len(traits["depth"])
    radius = traits["cell_radius"]
    centre = 0.06 * draws.normal("cell place", num, 2)
    cell, _ = _inside(draws, "cell", centre, radius, draws.uniform("cell irregularity", 0.03, 0.10, num), size)

    nucleus_radius = radius * np.sqrt(traits["nucleus_to_cell"])
    away = np.clip(0.35 * draws.normal("nucleus place", num, 2), -0.7, 0.7) * (radius - nucleus_radius)[:, None]
    nucleus, rim = _inside(draws, "nucleus", centre + away, nucleus_radius, traits["irregularity"], size)

    chromatin = 1 + traits["texture"][:, None, None] * _noise(draws, "chromatin", num, size)
    depth = traits["depth"][:, None, None]
    grain = 1 + 0.12 * _noise(draws, "grain", num, size)
    tissue = np.maximum(0.05 + 0.03 * _noise(draws, "tissue", num, size), 0)
    cytoplasm = draws.uniform("cytoplasm", 0.28, 0.52, num)[:, None, None] * grain
    basophilia = draws.uniform("basophilia", 0.03, 0.14, num)[:, None, None]
    hematoxylin = nucleus * depth * np.maximum(chromatin + 0.25 * rim, 0.3) + (cell - cell * nucleus) * basophilia
    eosin = tissue + cell * (cytoplasm - tissue) * (1 - 0.55 * nucleus)
    return hematoxylin, eosin


def _inside(draws: _Draws, what: str, centre: Array, radius: Array, irregularity: Array, size: int) -> tuple[Array, Array]:
    """How far each pixel lies inside an outline, 0 to 1, and how near its edge, 0 to 1: [sample, height, width] each.

    The outline is radius x (1 + irregularity x a Fourier series of unit rms in the angle about centre [sample, 2]).
    """
    num = len(radius)
    waves = draws.normal(f"{what} outline", num, len(_HARMONICS), 2)
    waves /= np.array(_HARMONICS, np.float32)[:, None]
    waves *= (irregularity / np.sqrt((waves**2).sum((1, 2)) / 2))[:, None, None]
    axis = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    x = axis[None, None, :] - centre[:, 0, None, None]
    y = axis[None, :, None] - centre[:, 1, None, None]
    distance = np.sqrt(x * x + y * y) + np.float32(1e-6)
    cosine, sine = x / distance, y / distance
    outline = np.ones_like(distance)
    c, s = cosine, sine
    for wave in range(len(_HARMONICS)):  # cos and sin of k x angle by the addition theorems
        c, s = c * cosine - s * sine, s * cosine + c * sine
        outline += waves[:, wave, 0, None, None] * c + waves[:, wave, 1, None, None] * s
    depth = np.clip((radius[:, None, None] * outline - distance) * np.float32(8) + np.float32(0.5), 0, 1)
    inside = depth * depth * (3 - 2 * depth)
    return inside, np.clip(1 - np.abs(radius[:, None, None] * outline - distance) * np.float32(8), 0, 1)


def _noise(draws: _Draws, what: str, num: int, size: int) -> Array:
    """Noise of about unit variance [sample, height, width]: normal at the nodes of a lattice, linear in between."""
    nodes = draws.normal(what, num, _LATTICE, _LATTICE)
    place = (np.arange(size, dtype=np.float32) + 0.5) * ((_LATTICE - 1) / size)
    left = place.astype(np.int64)
    weight = (place - left).astype(np.float32)
    rows = nodes[:, left] * (1 - weight)[:, None] + nodes[:, left + 1] * weight[:, None]
    return (rows[:, :, left] * (1 - weight) + rows[:, :, left + 1] * weight) * np.float32(1.5)


def _photograph(draws: _Draws, hematoxylin: Array, eosin: Array, slide: dict[str, Array]) -> NDArray[np.uint8]:
    """The image [sample, 3, height, width] of two stain maps [sample, height, width], after Beer and Lambert."""
    num, size, _ = hematoxylin.shape
    hematoxylin = _blurred(hematoxylin, slide["blur"]) * slide["strength"][:, 0, None, None]
    eosin = _blurred(eosin, slide["blur"]) * slide["strength"][:, 1, None, None]
    axis = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    shade = 1 + slide["gradient"][:, 0, None, None] * axis + slide["gradient"][:, 1, None, None] * axis[:, None]
    noise = draws.normal("camera", num, 3, size, size)
    image = np.empty((num, 3, size, size), np.uint8)
    for colour in range(3):
        density = hematoxylin * slide["hematoxylin"][:, colour, None, None] + eosin * slide["eosin"][:, colour, None, None]
        light = np.exp(-density.astype(np.float64)) * shade * slide["light"][:, colour, None, None]
        image[:, colour] = np.clip(np.rint(255 * light + 2 * noise[:, colour]), 0, 255).astype(np.uint8)
    return image


def _blurred(maps: Array, blur: Array) -> Array:
    """Maps [sample, height, width] mixed with themselves behind a binomial filter, by `blur` [sample] from 0 to 1."""
    smooth = maps
    for _ in range(max(1, round((maps.shape[1] / 24) ** 2))):  # widths add as variances: the total grows with the image
        padded = np.pad(smooth, ((0, 0), (1, 1), (1, 1)), mode="edge")
        rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        smooth = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) * np.float32(1 / 16)
    return maps + blur[:, None, None] * (smooth - maps)
