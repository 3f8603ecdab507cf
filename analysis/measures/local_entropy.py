"""Mean entropy of the grey values in a sliding window, exactly, for many images at once.

A window of n pixels in which the value v occurs c_v times has the entropy log2 n - (1/n) sum_v c_v log2 c_v. A value that occurs once adds
nothing, so only values that repeat within their image need counting: those are found by hashing, and each is counted in all windows at once
by box sums over its own map of ones. Images of noise, where hardly a value repeats, cost little more than being read.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WINDOW = 10  # pixels: windows are 10 x 10 at stride 1
HASH_BITS = 14
IMAGES_AT_ONCE = 64  # hash tables side by side
PIXELS_AT_ONCE = 2**16  # of maps in a pass of box sums: what stays in the processor's cache

Values = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of samples and pixels


def float_grey_entropy(images: np.ndarray) -> np.ndarray:
    """Entropy in bits `[sample]` of 0.2989 R + 0.5870 G + 0.1140 B as it comes out in float64, of images uint8 `[sample, channel, y, x]`.

    The variant of Pliushch et al.: as grey is not rounded, distinct colours are rarely equal, and colour images saturate near
    log2(100) = 6.644. Images of one channel are their own grey.
    """
    if images.shape[1] == 1:
        return rounded_grey_entropy(images)
    num_samples, num_channels, height, width = images.shape
    colours = images.reshape(num_samples, num_channels, -1)

    def hashes(begin: int, out: np.ndarray) -> None:
        """Ten thousand times the grey, modulo 2^16: where greys are equal in float64, these are, too."""
        red, green, blue = colours[begin : begin + len(out)].transpose(1, 0, 2)
        np.multiply(red, np.uint16(2989), out=out)
        out += np.multiply(green, np.uint16(5870))
        out += np.multiply(blue, np.uint16(1140))

    def grey(sample: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        red, green, blue = colours[sample, :, pixel].T
        return 0.2989 * red + 0.5870 * green + 0.1140 * blue

    return _mean_entropy(num_samples, height, width, hashes, grey)


def rounded_grey_entropy(images: np.ndarray) -> np.ndarray:
    """Entropy in bits `[sample]` of that grey rounded to whole numbers (half to even), of images uint8 `[sample, channel, y, x]`."""
    num_samples, _, height, width = images.shape
    grey = rounded_grey(images).reshape(num_samples, -1)

    def hashes(begin: int, out: np.ndarray) -> None:
        out[:] = grey[begin : begin + len(out)]

    return _mean_entropy(num_samples, height, width, hashes, lambda sample, pixel: grey[sample, pixel])


def rounded_grey(images: np.ndarray) -> np.ndarray:
    """Grey uint8 `[sample, y, x]` of images uint8 `[sample, channel, y, x]`."""
    if images.shape[1] == 1:
        return images[:, 0]
    grey = images[:, 0] * np.uint32(2989)
    grey += images[:, 1] * np.uint32(5870)
    grey += images[:, 2] * np.uint32(1140)
    half_up, rest = np.divmod(grey + np.uint32(5000), np.uint32(10000))
    return (half_up - ((rest == 0) & (half_up % 2 == 1))).astype(np.uint8)


def _mean_entropy(num_samples: int, height: int, width: int, hashes: Callable[[int, np.ndarray], None], value: Values) -> np.ndarray:
    """Mean entropy `[sample]`; `hashes` writes those of the pixels uint16 `[sample, pixel]` from a sample on."""
    num_windows = (height - WINDOW + 1) * (width - WINDOW + 1)
    if height < WINDOW or width < WINDOW:
        return np.full(num_samples, np.nan)
    num_pixels = height * width
    firsts, others = _equal_pixels(num_samples, num_pixels, hashes, value)
    # A map for each value that repeats, numbered in the order of the images.
    stands = np.zeros(num_samples * num_pixels, dtype=bool)
    stands[firsts] = True
    starts = np.flatnonzero(stands)
    order = np.argsort(firsts)
    others, map_of = others[order], np.searchsorted(starts, firsts[order])
    repeated = np.zeros(num_samples)
    at_once = max(1, PIXELS_AT_ONCE // num_pixels)
    for begin in range(0, len(starts), at_once):
        chunk = starts[begin : begin + at_once]
        inside = slice(*np.searchsorted(map_of, [begin, begin + at_once]))
        maps = np.zeros((len(chunk), num_pixels), dtype=np.uint8)
        maps[np.arange(len(chunk)), chunk % num_pixels] = 1
        maps[map_of[inside] - begin, others[inside] % num_pixels] = 1
        repeated += np.bincount(chunk // num_pixels, _sum_c_log_c(maps, height, width), minlength=num_samples)
    area = WINDOW * WINDOW
    return np.maximum(np.log2(area) - repeated / (area * num_windows), 0.0)  # a constant image would be a rounding below 0


def _equal_pixels(
    num_samples: int, num_pixels: int, hashes: Callable[[int, np.ndarray], None], value: Values
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (numbered through all images) that equal another of their image: the one that stands for all equal to it, and the other.

    In a hash table every pixel writes its number into its slot, and the last one stays. Who finds itself there stands for its value, who
    finds its equal there is done, and the others try again among themselves.
    """
    # Buffers that are used again: fresh memory costs more than the arithmetic.
    local = np.tile(np.arange(num_pixels, dtype=np.min_scalar_type(num_pixels)), IMAGES_AT_ONCE)
    table = np.empty(IMAGES_AT_ONCE << HASH_BITS, dtype=local.dtype)
    hashed = np.empty((IMAGES_AT_ONCE, num_pixels), dtype=np.uint16)
    slots = np.empty((IMAGES_AT_ONCE, num_pixels), dtype=np.intp)
    rows = np.arange(IMAGES_AT_ONCE)[:, None] << HASH_BITS
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for begin in range(0, num_samples, IMAGES_AT_ONCE):
        n = min(IMAGES_AT_ONCE, num_samples - begin)
        hashes(begin, hashed[:n])
        hashed &= np.uint16((1 << HASH_BITS) - 1)
        np.add(hashed[:n], rows[:n], out=slots[:n])
        slot, number = slots[:n].ravel(), local[: n * num_pixels]
        while len(slot):
            table[slot] = number
            stands = table[slot]
            lost = np.flatnonzero(stands != number)
            slot, number, winner = slot[lost], number[lost], stands[lost]
            sample = (slot >> HASH_BITS) + begin
            equal = value(sample, number) == value(sample, winner)
            offset = sample[equal] * num_pixels
            found.append((offset + winner[equal], offset + number[equal]))
            slot, number = slot[~equal], number[~equal]
    if not found:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    return np.concatenate([first for first, _ in found]), np.concatenate([other for _, other in found])


def _sum_c_log_c(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sum over windows of c log2 c `[map]`, c the number of ones of a map `[map, pixel]` in the window. Overwrites the maps."""
    counts = maps.ravel()
    two, more = np.empty_like(counts), np.empty_like(counts)
    for step in (1, width):
        # Sums of 10 entries, a step apart, from each on: 2, 4 and 8 by doubling, and 8 + 2.
        for out, a, b, shift in ((two, counts, counts, 1), (more, two, two, 2), (counts, more, more, 4), (more, counts, two, 8)):
            np.add(a[: -shift * step], b[shift * step :], out=out[: -shift * step])
        counts, more = more, counts
    # Sums that run over the end of a row or a map stand where no window begins.
    begins = np.zeros((height, width), dtype=np.uint8)
    begins[: height - WINDOW + 1, : width - WINDOW + 1] = 1
    table = counts.reshape(maps.shape)
    table *= begins.ravel()
    repeats = np.flatnonzero(counts > 1)
    c = np.arange(WINDOW * WINDOW + 1)
    weights = c * np.log2(np.maximum(c, 1))
    return np.bincount(repeats // maps.shape[1], weights[counts[repeats]], minlength=len(maps))
