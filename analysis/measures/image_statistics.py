"""What an image is like, in one number each: the statistics of Pliushch et al. (arXiv 2105.08997), and intensity mean and contrast.

One convention of input for all: images uint8 `[sample, channel, height, width]`, channels R, G, B or grey alone. `image_statistics` takes
floats in [0, 1], too, as `rint(255 x)`. Grey is 0.2989 R + 0.5870 G + 0.1140 B: in 0..255 for the entropies, in [0, 1] for all others.

Two statistics differ from the source, whose tools are not at hand: segments are scikit-image's, not those of the authors' C++ program
(same algorithm and parameters; counts are close, not equal), and edges are Sobel's, not crisp boundaries (MATLAB; its script is not
published).
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from rich.progress import track
from scipy.ndimage import correlate1d

from analysis.measures.local_entropy import float_grey_entropy, rounded_grey_entropy

GREY = (0.2989, 0.5870, 0.1140)
NORM_SHARE = 0.9998  # of the norm, not of the energy
SEGMENT_SIGMA, SEGMENT_SCALE, MIN_SEGMENT = 0.5, 500, 20
BLOCK_PIXELS = 2**18  # of the images that are transformed at once
CHUNK_PIXELS = 2**20  # of the images that one task of a worker process has


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Images in the convention above. Raises ValueError, naming what is wrong, for any others."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images are [sample, channel, height, width] with 1 or 3 channels, not of shape {images.shape}")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images are uint8, or floats in [0, 1], not {images.dtype}")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"float images lie in [0, 1], not in [{images.min():g}, {images.max():g}]")
    return np.rint(images * 255).astype(np.uint8)


def grey(images: np.ndarray) -> np.ndarray:
    """Grey in [0, 1], float64 `[sample, y, x]`, of images uint8 `[sample, channel, y, x]`."""
    weights = np.asarray(GREY if images.shape[1] == 3 else (1.0,)) / 255
    num_samples, num_channels, height, width = images.shape
    return (weights @ images.reshape(num_samples, num_channels, -1).astype(np.float64)).reshape(num_samples, height, width)


def segment_count(images: np.ndarray) -> np.ndarray:
    """Number of segments `[sample]` of Felzenszwalb and Huttenlocher's algorithm: sigma 0.5, k 500, at least 20 pixels.

    By scikit-image on RGB in [0, 1], for which it divides k by 255: the original has its k for values up to 255. Grey images get three
    equal channels, as in the source.
    """
    if not has_segments():
        raise ModuleNotFoundError("segment_count needs scikit-image: pip install 'karenina-sweep[images]'", name="skimage")
    from skimage.segmentation import felzenszwalb

    counts = np.empty(len(images), dtype=np.int64)
    for index, image in enumerate(images):
        colours = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0) / 255
        segments = felzenszwalb(colours, scale=SEGMENT_SCALE, sigma=SEGMENT_SIGMA, min_size=MIN_SEGMENT, channel_axis=-1)
        counts[index] = segments.max() + 1
    return counts


def has_segments() -> bool:
    """Whether scikit-image is here, without which there are no segment counts."""
    return importlib.util.find_spec("skimage") is not None


def dct_share(images: np.ndarray) -> np.ndarray:
    """How many cosines an image takes, in percent `[sample]`: 100 (m - 1) / (height width).

    m is the smallest number of coefficients of the orthonormal 2-D DCT-II of grey, the largest first, whose norm reaches 0.9998 of
    that of all. The paper speaks of 99.98 % of the energy, its code takes the norm, which is 99.96 % of the energy.

    Counted from the small end: as many may go as together have at most 1 - 0.9998^2 of the energy. Squares are rounded to float32 before
    they are sorted and added up in float64: an error of the sum of at most 3e-11 of the whole energy.
    """
    return _dct(images)[0]


def dct_largest(images: np.ndarray) -> np.ndarray:
    """The largest absolute coefficient of that DCT, `[sample]`: for most images height and width's geometric mean times mean grey."""
    return _dct(images)[1]


def _dct(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share in percent and largest absolute coefficient, `[sample]` each."""
    num_samples, _, height, width = images.shape
    share, largest = np.empty(num_samples), np.empty(num_samples)
    down, across = _cosines(height), np.ascontiguousarray(_cosines(width).T)
    at_once = max(1, BLOCK_PIXELS // max(height * width, 1))
    for start in range(0, num_samples, at_once):
        block = grey(images[start : start + at_once])
        coefficients = down @ (block.reshape(-1, width) @ across).reshape(block.shape)
        energies = np.square(coefficients, out=coefficients).reshape(len(block), -1)
        total = energies.sum(axis=1)
        ordered = energies.astype(np.float32)
        ordered.sort(axis=1)
        dropped = _num_smallest(ordered, (1 - NORM_SHARE**2) * total)
        kept = np.maximum(height * width - dropped, 1)  # a black image has one, too
        share[start : start + at_once] = 100 * (kept - 1) / (height * width)
        largest[start : start + at_once] = np.sqrt(energies.max(axis=1))
    return share, largest


def _num_smallest(ordered: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """How many of the smallest of ordered values `[sample, value]` sum to at most the limit `[sample]`."""
    num_samples, num_values = ordered.shape
    length = max(1, int(num_values**0.5))
    num_runs = num_values // length
    # Sums of runs tell in which run the limit is passed; only that one is added up value by value.
    runs = ordered[:, : num_runs * length].reshape(num_samples, num_runs, length).sum(axis=2, dtype=np.float64).cumsum(axis=1)
    passed = (runs <= limit[:, None]).sum(axis=1)
    before = np.where(passed > 0, np.take_along_axis(runs, np.maximum(passed - 1, 0)[:, None], axis=1)[:, 0], 0.0)
    at = passed[:, None] * length + np.arange(num_values - (num_runs - 1) * length)
    inside = np.take_along_axis(ordered, np.minimum(at, num_values - 1), axis=1).astype(np.float64)
    inside[at >= num_values] = np.inf
    return passed * length + (inside.cumsum(axis=1) + before[:, None] <= limit[:, None]).sum(axis=1)


def _cosines(n: int) -> np.ndarray:
    """The orthonormal DCT-II `[frequency, position]`."""
    k = np.arange(n)
    basis = np.sqrt(2 / n) * np.cos(np.pi * (2 * k[None, :] + 1) * k[:, None] / (2 * n))
    basis[0] /= np.sqrt(2)
    return basis


def edge_sum(images: np.ndarray) -> np.ndarray:
    """Sum of edge strengths over the pixels, `[sample]`: the magnitude of Sobel's gradient of grey, in units of grey in [0, 1] per pixel.

    Sobel because it is in every library, has no parameter, and its strengths are slopes: the kernels are divided by 8, so that a ramp
    has the strength of its slope. Images are mirrored at their borders, which adds no edge.
    """
    result = np.empty(len(images))
    at_once = max(1, BLOCK_PIXELS // max(images.shape[2] * images.shape[3], 1))
    for start in range(0, len(images), at_once):
        block = grey(images[start : start + at_once])
        slopes = []
        for along, across in ((1, 2), (2, 1)):
            smooth = correlate1d(block, [0.25, 0.5, 0.25], axis=across, mode="reflect")
            slopes.append(correlate1d(smooth, [-0.5, 0.0, 0.5], axis=along, mode="reflect"))
        result[start : start + at_once] = np.hypot(*slopes).sum(axis=(1, 2))
    return result


def intensity_mean(images: np.ndarray) -> np.ndarray:
    """Mean grey in [0, 1], `[sample]`."""
    return grey(images).mean(axis=(1, 2))


def contrast(images: np.ndarray) -> np.ndarray:
    """RMS contrast, `[sample]`: the standard deviation of grey in [0, 1] over the pixels (population, ddof 0)."""
    return grey(images).std(axis=(1, 2))


@dataclass(frozen=True)
class Statistic:
    """A statistic of images, `[sample]` from uint8 `[sample, channel, height, width]`."""

    compute: Callable[[np.ndarray], np.ndarray]
    unit: str
    meaning: str


STATISTICS: dict[str, Statistic] = {
    "segment_count": Statistic(segment_count, "segments", "Felzenszwalb segments (scikit-image; sigma 0.5, k 500, min 20)"),
    "entropy_float_grey": Statistic(float_grey_entropy, "bit", "mean entropy of 10 x 10 windows, grey as float64 (the paper's code)"),
    "entropy_rounded_grey": Statistic(rounded_grey_entropy, "bit", "mean entropy of 10 x 10 windows, grey rounded to 0..255"),
    "dct_share": Statistic(dct_share, "%", "DCT coefficients of grey that hold 0.9998 of its norm"),
    "dct_largest": Statistic(dct_largest, "", "largest absolute DCT coefficient of grey"),
    "edge_sum": Statistic(edge_sum, "grey/pixel", "sum of Sobel gradient magnitudes of grey"),
    "intensity_mean": Statistic(intensity_mean, "grey", "mean grey in [0, 1]"),
    "contrast": Statistic(contrast, "grey", "standard deviation of grey in [0, 1]"),
}


def image_statistics(
    images: np.ndarray, names: Sequence[str] = tuple(STATISTICS), num_processes: int = 1, show_progress: bool = False
) -> dict[str, np.ndarray]:
    """The named statistics of images, `[sample]` each, in chunks of images over worker processes.

    With more than one process the caller's module must be importable without side effects, as `multiprocessing` asks for.
    """
    unknown = [name for name in names if name not in STATISTICS]
    if unknown:
        raise ValueError(f"there is no image statistic {unknown[0]!r}; there are {', '.join(STATISTICS)}")
    images = as_bytes(images)
    if not len(images):
        return {name: np.empty(0) for name in names}
    size = max(1, CHUNK_PIXELS // max(images.shape[2] * images.shape[3], 1))
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    tasks = [(chunk, tuple(names)) for chunk in chunks]

    def shown(results: Iterable[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        return list(track(results, "image statistics", total=len(tasks)) if show_progress else results)

    if min(num_processes, len(tasks)) == 1:
        parts = shown(map(_compute, tasks))
    else:
        # A fresh process each: threads of torch or Ray do not survive a fork.
        with ProcessPoolExecutor(min(num_processes, len(tasks)), mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = shown(pool.map(_compute, tasks))
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _compute(task: tuple[np.ndarray, tuple[str, ...]]) -> dict[str, np.ndarray]:
    chunk, names = task
    return {name: STATISTICS[name].compute(chunk) for name in names}
