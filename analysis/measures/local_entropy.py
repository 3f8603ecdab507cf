"""Mean entropy of the grey values in a sliding window, exactly, for many images at once.

A window of n pixels in which the value v occurs c_v times has the entropy log2 n - (1/n) sum_v c_v log2 c_v. A value that occurs once adds
nothing, so only values that repeat within their image need counting: those are found by hashing. A value of few pixels is counted in closed
form, because the windows that hold given pixels are a rectangle of known size; any other in all windows at once, by box sums over its own
map of ones. Images of noise, where hardly a value repeats, cost little more than being read.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

WINDOW = 10  # pixels: windows are 10 x 10 at stride 1
MAX_CLOSED_FORM = 6  # pixels of a value, of whose 2^6 subsets the windows are counted; a map is cheaper for more
MIN_VALUES = 16  # per subset, below which the calls cost more than maps
HASH_BITS = 15  # slots of an image's hash table
IMAGES_AT_ONCE = 16  # whose hash tables stay in the processor's cache
PIXELS_AT_ONCE = 2**17  # of maps in a pass of box sums: what stays in the processor's cache

Hashes = Callable[[int, np.ndarray], None]  # write hashes of the pixels from a sample on, uint16 `[sample, pixel]`, below 2^HASH_BITS
Bounds = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Values = Callable[[np.ndarray], np.ndarray]  # of pixels, numbered through all images


def float_grey_entropy(images: np.ndarray) -> np.ndarray:
    """Entropy in bits `[sample]` of 0.2989 R + 0.5870 G + 0.1140 B as it comes out in float64, of images uint8 `[sample, channel, y, x]`.

    The variant of Pliushch et al.: as grey is not rounded, distinct colours are rarely equal, and colour images saturate near
    log2(100) = 6.644. Images of one channel are their own grey.
    """
    if images.shape[1] == 1:
        return rounded_grey_entropy(images)
    num_samples, _, height, width = images.shape
    num_pixels = height * width
    colours = images.reshape(num_samples, 3, num_pixels)
    flat = colours.ravel()

    def hashes(begin: int, out: np.ndarray) -> None:
        """Ten thousand times the grey, modulo a power of 2: where greys are equal in float64, these are, too."""
        red, green, blue = colours[begin : begin + len(out)].transpose(1, 0, 2)
        np.multiply(red, np.uint16(2989), out=out)
        out += np.multiply(green, np.uint16(5870))
        out += np.multiply(blue, np.uint16(1140))
        out &= np.uint16((1 << HASH_BITS) - 1)

    def grey(pixels: np.ndarray) -> np.ndarray:
        at = pixels + pixels // num_pixels * (2 * num_pixels)
        return 0.2989 * flat[at] + 0.5870 * flat[at + num_pixels] + 0.1140 * flat[at + 2 * num_pixels]

    return _mean_entropy(num_samples, height, width, hashes, grey)


def rounded_grey_entropy(images: np.ndarray) -> np.ndarray:
    """Entropy in bits `[sample]` of that grey rounded to whole numbers (half to even), of images uint8 `[sample, channel, y, x]`."""
    num_samples, _, height, width = images.shape
    grey = rounded_grey(images).ravel()

    def hashes(begin: int, out: np.ndarray) -> None:
        out.ravel()[:] = grey[begin * height * width :][: out.size]
        out &= np.uint16((1 << HASH_BITS) - 1)

    return _mean_entropy(num_samples, height, width, hashes, lambda pixels: grey[pixels])


def rounded_grey(images: np.ndarray) -> np.ndarray:
    """Grey uint8 `[sample, y, x]` of images uint8 `[sample, channel, y, x]`."""
    if images.shape[1] == 1:
        return images[:, 0]
    grey = images[:, 0] * np.uint32(2989)
    grey += images[:, 1] * np.uint32(5870)
    grey += images[:, 2] * np.uint32(1140)
    half_up, rest = np.divmod(grey + np.uint32(5000), np.uint32(10000))
    return (half_up - ((rest == 0) & (half_up % 2 == 1))).astype(np.uint8)


def _mean_entropy(num_samples: int, height: int, width: int, hashes: Hashes, values: Values) -> np.ndarray:
    """Mean entropy over all windows, `[sample]`."""
    num_windows = (height - WINDOW + 1) * (width - WINDOW + 1)
    if height < WINDOW or width < WINDOW:
        return np.full(num_samples, np.nan)
    num_pixels = height * width
    firsts, others = _equal_pixels(num_samples, num_pixels, hashes, values)
    # The values that repeat, numbered in the order of the images.
    order = np.argsort(firsts)
    firsts, others = firsts[order], others[order]
    new = np.diff(firsts, prepend=-1) > 0
    starts, value_of = firsts[new], np.cumsum(new) - 1
    sizes = np.bincount(value_of) + 1
    repeated = np.zeros(num_samples)
    begins = np.cumsum(sizes - 1) - (sizes - 1)  # where a value's other pixels stand
    many = np.ones(len(sizes), dtype=bool)
    for size in range(2, MAX_CLOSED_FORM + 1):
        chosen = np.flatnonzero(sizes == size)
        if len(chosen) < MIN_VALUES << size:
            continue
        many[chosen] = False
        pixels = [starts[chosen], *(others[begins[chosen] + index] for index in range(size - 1))]
        sums = _closed_form([pixel % num_pixels for pixel in pixels], height, width)
        repeated += np.bincount(starts[chosen] // num_pixels, sums, minlength=num_samples)
    starts, others, value_of = starts[many], others[many[value_of]], (np.cumsum(many) - 1)[value_of[many[value_of]]]
    at_once = max(1, PIXELS_AT_ONCE // num_pixels)
    for begin in range(0, len(starts), at_once):
        chunk = starts[begin : begin + at_once]
        inside = slice(*np.searchsorted(value_of, [begin, begin + at_once]))
        maps = np.zeros((len(chunk), num_pixels), dtype=np.uint8)
        maps[np.arange(len(chunk)), chunk % num_pixels] = 1
        maps[value_of[inside] - begin, others[inside] % num_pixels] = 1
        repeated += np.bincount(chunk // num_pixels, _sum_c_log_c(maps, height, width), minlength=num_samples)
    area = WINDOW * WINDOW
    return np.maximum(np.log2(area) - repeated / (area * num_windows), 0.0)  # a constant image would be a rounding below 0


def _equal_pixels(num_samples: int, num_pixels: int, hashes: Hashes, values: Values) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that equal another of their image, numbered through all images: the one that stands for all equal to it, and the other.

    In a hash table every pixel writes its number into its slot, and the last one stays. Who finds itself there stands for its value, who
    finds its equal there is done, and the others try again among themselves, those of all images together.
    """
    losers, winners = _first_round(num_samples, num_pixels, hashes)
    found = []
    while len(losers):
        value = values(losers)
        equal = (value == values(winners)) & (losers // num_pixels == winners // num_pixels)
        found.append((winners[equal], losers[equal]))
        pending, value = losers[~equal], value[~equal]
        table = np.empty(1 << (4 * len(pending)).bit_length(), dtype=np.intp)
        slot = (np.rint(value * 1e4).astype(np.intp) + pending // num_pixels * 7919) & (len(table) - 1)
        table[slot] = pending
        stands = table[slot]
        lost = stands != pending
        losers, winners = pending[lost], stands[lost]
    if not found:
        return losers, losers
    return np.concatenate([first for first, _ in found]), np.concatenate([other for _, other in found])


def _first_round(num_samples: int, num_pixels: int, hashes: Hashes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that did not find themselves in a table of their own image, and whom they found."""
    # Buffers that are used again, and as few bytes as will do: memory costs more here than arithmetic.
    number = np.tile(np.arange(num_pixels, dtype=np.min_scalar_type(num_pixels)), IMAGES_AT_ONCE)
    table = np.empty(IMAGES_AT_ONCE << HASH_BITS, dtype=number.dtype)
    hashed = np.empty((IMAGES_AT_ONCE, num_pixels), dtype=np.uint16)
    slots = np.empty((IMAGES_AT_ONCE, num_pixels), dtype=np.intp)
    rows = np.arange(IMAGES_AT_ONCE)[:, None] << HASH_BITS
    losers, winners = [np.empty(0, dtype=np.intp)], [np.empty(0, dtype=np.intp)]
    for begin in range(0, num_samples, IMAGES_AT_ONCE):
        n = min(IMAGES_AT_ONCE, num_samples - begin)
        hashes(begin, hashed[:n])
        np.add(hashed[:n], rows[:n], out=slots[:n])
        slot, own = slots[:n].ravel(), number[: n * num_pixels]
        table[slot] = own
        stands = table[slot]
        lost = np.flatnonzero(stands != own)
        losers.append(lost + begin * num_pixels)
        winners.append(losers[-1] - own[lost] + stands[lost])
    return np.concatenate(losers), np.concatenate(winners)


def _closed_form(pixels: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Sum over windows of c log2 c `[value]`, c how many of a value's pixels (each `[value]`) the window holds.

    A function f of c is the sum, over the subsets that the window holds, of a weight of their size: f's finite difference at 0 (Moebius
    inversion). So each subset counts as often as there are windows that hold it, and of these there are as many as their places in x times
    those in y: a pixel at x is held by windows that begin from x - 9 to x.
    """
    num = len(pixels)
    f = [c * np.log2(max(c, 1)) for c in range(num + 1)]
    weights = [sum((-1) ** (size - c) * comb(size, c) * f[c] for c in range(size + 1)) for size in range(num + 1)]
    bounds = []  # of each pixel: the first and last places in x, then in y, of windows that hold it
    for pixel in pixels:
        x, y = (pixel % width).astype(np.int32), (pixel // width).astype(np.int32)
        ends = (np.maximum(x, WINDOW - 1) - (WINDOW - 1), np.minimum(x, width - WINDOW))
        bounds.append((*ends, np.maximum(y, WINDOW - 1) - (WINDOW - 1), np.minimum(y, height - WINDOW)))
    held = np.zeros((num + 1, len(pixels[0])), dtype=np.int32)

    def extend(subset: Bounds, size: int, first: int) -> None:
        """Count the windows of every subset that adds one of the pixels from `first` on, and of those that add more."""
        left, right, top, bottom = subset
        for index in range(first, num):
            a, b, c, d = bounds[index]
            larger = np.maximum(left, a), np.minimum(right, b), np.maximum(top, c), np.minimum(bottom, d)
            held[size + 1] += np.maximum(larger[1] - larger[0] + 1, 0) * np.maximum(larger[3] - larger[2] + 1, 0)
            extend(larger, size + 1, index + 1)

    for index in range(num):
        extend(bounds[index], 1, index + 1)
    return np.asarray(weights) @ held


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
