"""Mean entropy of the grey values in a sliding window, exactly, for many images: a compiled loop, as the definition has it.

A window of n pixels in which the value v occurs c_v times has the entropy log2 n - (1/n) sum_v f(c_v) with f(c) = c log2 c. The values of
an image are numbered, and windows slide down two neighbouring columns of windows at once, one row of pixels in and one out: they share
nine pixels of ten, so that one number per value holds both its counts, one look-up tells by how much the sum of f over both windows
changes, and the sum is kept up to date. In units of 2^-52 each f, as float64 has it, is a whole number: a sum over two windows is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from analysis.measures.compiled import compiled

WINDOW = 10  # pixels: windows are 10 x 10 at stride 1
UNIT = 2.0**-52  # of sums of f
COUNT_BITS = 7  # a value's count in a window, at most 100; that in the window to its right is in the bits above
IMAGES_AT_ONCE = 128  # of a thread, which then takes others


def float_grey_entropy(images: np.ndarray, num_threads: int = 1) -> np.ndarray:
    """Entropy in bits `[sample]` of 0.2989 R + 0.5870 G + 0.1140 B as it comes out in float64, of images uint8 `[sample, channel, y, x]`.

    The variant of Pliushch et al.: as grey is not rounded, distinct colours are rarely equal, and colour images saturate near
    log2(100) = 6.644. Images of one channel are their own grey. NaN of images smaller than a window.
    """
    return _mean_entropy(images, False, num_threads)


def rounded_grey_entropy(images: np.ndarray, num_threads: int = 1) -> np.ndarray:
    """Entropy in bits `[sample]` of that grey rounded to whole numbers, half to even, of images uint8 `[sample, channel, y, x]`."""
    return _mean_entropy(images, True, num_threads)


def _mean_entropy(images: np.ndarray, rounded: bool, num_threads: int) -> np.ndarray:
    """Mean entropy over all windows, `[sample]`. Images are computed one by one: the number of threads changes no bit."""
    num_samples, _, height, width = images.shape
    if height < WINDOW or width < WINDOW:
        return np.full(num_samples, np.nan)
    c = np.arange(2**COUNT_BITS + 1)
    steps = np.diff((c * np.log2(np.maximum(c, 1)) / UNIT).astype(np.int64))  # f(c + 1) - f(c) of each c
    left, right = np.tile(steps, len(steps)), np.repeat(steps, len(steps))
    steps = np.stack([left, right, left + right])
    images, sums, kernel = np.ascontiguousarray(images), np.empty(num_samples), _kernel()

    num_slots = 1 << (8 * height * width).bit_length()
    small = np.uint16 if height * width < 2**16 else np.uint32  # so that the table of CIFAR's images fits a processor's first cache

    def work(begin: int) -> None:
        block = slice(begin, begin + IMAGES_AT_ONCE)
        kernel(images[block], rounded, steps, np.empty(num_slots, small), sums[block])

    begins = range(0, num_samples, IMAGES_AT_ONCE)
    if num_threads == 1:
        list(map(work, begins))
    else:
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(work, begins))
    num_windows = (height - WINDOW + 1) * (width - WINDOW + 1)
    return np.maximum(np.log2(WINDOW**2) - sums * UNIT / (WINDOW**2 * num_windows), 0.0)  # a constant image would be a rounding below 0


@cache
def _kernel() -> Callable[[np.ndarray, bool, np.ndarray, np.ndarray, np.ndarray], None]:
    return compiled(_sum_over_windows)


def _sum_over_windows(images: np.ndarray, rounded: bool, steps: np.ndarray, first_of: np.ndarray, sums: np.ndarray) -> None:
    """Write the sum over windows and values of f(c) `[sample]`, in `UNIT`.

    steps: f(c + 1) - f(c) of the left, of the right, and in sum of both of two neighbouring windows `[3, number that holds both counts]`.
    first_of: memory for a hash table of a power of two many slots, more than there are pixels; it holds the first pixel of each value.
    Indices are unsigned, because signed ones might count from the end, which takes time to find out.
    """
    num_samples, num_channels, height, width = images.shape
    num_pixels = height * width
    grey = np.empty(num_pixels)
    bits = grey.view(np.uint64)
    shift, mask, one = np.uint64(64 - np.log2(len(first_of))), np.uint64(len(first_of) - 1), np.uint64(1)
    number = np.empty(num_pixels, np.uint32)  # of each pixel's value: a whole grey itself, else the first pixel that has it
    most = max(num_pixels, 256)
    value = np.empty((height, width + 1), np.uint32)  # the numbers, and to their right one of its own per row
    value[:, width] = np.arange(most, most + height)
    counts = np.empty(most + height, np.uint16)
    left, right, both = np.uint16(1), np.uint16(1 << COUNT_BITS), np.uint16(1 + (1 << COUNT_BITS))
    steps_of_left, steps_of_right, steps_of_both = steps[0], steps[1], steps[2]
    size, last = np.uint64(WINDOW), np.uint64(width - WINDOW)  # of the columns of windows
    for sample in range(num_samples):
        if num_channels == 1:
            number[:] = images[sample].ravel()
        else:
            red, green, blue = images[sample, 0].ravel(), images[sample, 1].ravel(), images[sample, 2].ravel()
            for pixel in range(num_pixels):
                if rounded:
                    half_up, rest = divmod(2989 * red[pixel] + 5870 * green[pixel] + 1140 * blue[pixel] + 5000, 10000)
                    number[pixel] = half_up - (rest == 0 and half_up % 2 == 1)
                else:
                    grey[pixel] = 0.2989 * red[pixel] + 0.5870 * green[pixel] + 0.1140 * blue[pixel]
        some_repeat = num_channels == 1 or rounded
        if not some_repeat:
            first_of[:] = num_pixels
            for pixel in range(num_pixels):
                slot = (bits[pixel] * np.uint64(0x9E3779B97F4A7C15)) >> shift  # Fibonacci hashing
                first = min(int(first_of[slot]), pixel)  # no branch on whether the value is new, which nobody can predict
                while bits[np.uint32(first)] != bits[pixel]:
                    slot = (slot + one) & mask
                    first = min(int(first_of[slot]), pixel)
                first_of[slot] = first
                number[pixel] = first
                some_repeat |= first != pixel
        total = 0.0
        if not some_repeat:  # as in coloured noise: f(1) = 0
            sums[sample] = total
            continue
        value[:, :width] = number.reshape(height, width)
        for x in range(np.uint64(0), last + one, np.uint64(2)):
            counts[:] = 0
            now = 0  # sum of f in the window at x and, up to the last column of windows, in that at x + 1
            steps_here = steps_of_both if x < last else steps_of_left
            for y in range(size):
                for i in range(size + one):
                    step, table = (left, steps_of_left) if i == 0 else (both, steps_here) if i < size else (right, steps_of_right)
                    v = value[y, x + i]
                    now += table[counts[v]]
                    counts[v] += step
            total += now
            for y in range(size, np.uint64(height)):
                for i in range(size + one):
                    step, table = (left, steps_of_left) if i == 0 else (both, steps_here) if i < size else (right, steps_of_right)
                    v, w = value[y, x + i], value[y - size, x + i]
                    now += table[counts[v]]
                    counts[v] += step
                    counts[w] -= step
                    now -= table[counts[w]]
                total += now
        sums[sample] = total
