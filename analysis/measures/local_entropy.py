"""Mean entropy of the grey values in a sliding window, exactly, for many images: a compiled loop, as the definition has it.

A window of n pixels in which the value v occurs c_v times has the entropy log2 n - (1/n) sum_v f(c_v) with f(c) = c log2 c. The values of
an image are numbered by a hash table, and the window slides down each column of windows, one row of pixels in and one out, with the count
of every value and the sum of f kept up to date. In units of 2^-52 each f, as float64 has it, is a whole number: a window's sum is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from analysis.measures.compiled import compiled

WINDOW = 10  # pixels: windows are 10 x 10 at stride 1
UNIT = 2.0**-52  # of sums of f
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
    c = np.arange(WINDOW * WINDOW + 1)
    f = (c * np.log2(np.maximum(c, 1)) / UNIT).astype(np.int64)
    images, sums, kernel = np.ascontiguousarray(images), np.empty(num_samples), _kernel()

    def work(begin: int) -> None:
        block = slice(begin, begin + IMAGES_AT_ONCE)
        kernel(images[block], rounded, np.diff(f), sums[block])

    begins = range(0, num_samples, IMAGES_AT_ONCE)
    if num_threads == 1:
        list(map(work, begins))
    else:
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(work, begins))
    num_windows = (height - WINDOW + 1) * (width - WINDOW + 1)
    return np.maximum(np.log2(WINDOW**2) - sums * UNIT / (WINDOW**2 * num_windows), 0.0)  # a constant image would be a rounding below 0


@cache
def _kernel() -> Callable[[np.ndarray, bool, np.ndarray, np.ndarray], None]:
    return compiled(_sum_over_windows)


def _sum_over_windows(images: np.ndarray, rounded: bool, steps: np.ndarray, sums: np.ndarray) -> None:
    """Write the sum over windows and values of f(c) `[sample]`, in `UNIT`. steps: f(c + 1) - f(c) of each c.

    Indices are unsigned, because signed ones might count from the end, which takes time to find out.
    """
    num_samples, num_channels, height, width = images.shape
    num_pixels = height * width
    grey = np.empty(num_pixels)
    bits = grey.view(np.uint64)
    num_bits = 2
    while 1 << num_bits < 4 * num_pixels:
        num_bits += 1
    first_of = np.empty(1 << num_bits, np.int32)  # hash table: the first pixel of a value
    shift, mask, one = np.uint64(64 - num_bits), np.uint64((1 << num_bits) - 1), np.uint8(1)
    value = np.empty((height, width), np.uint32)  # number of each pixel's value: that of the first pixel that has it
    value_of = value.reshape(num_pixels)
    counts = np.empty(num_pixels, np.uint8)
    for sample in range(num_samples):
        if num_channels == 1:
            grey[:] = images[sample].ravel()
        else:
            red, green, blue = images[sample, 0].ravel(), images[sample, 1].ravel(), images[sample, 2].ravel()
            for pixel in range(num_pixels):
                if rounded:
                    half_up, rest = divmod(2989 * red[pixel] + 5870 * green[pixel] + 1140 * blue[pixel] + 5000, 10000)
                    grey[pixel] = half_up - (rest == 0 and half_up % 2 == 1)
                else:
                    grey[pixel] = 0.2989 * red[pixel] + 0.5870 * green[pixel] + 0.1140 * blue[pixel]
        first_of[:] = -1
        some_repeat = False
        for pixel in range(num_pixels):
            slot = (bits[pixel] * np.uint64(0x9E3779B97F4A7C15)) >> shift  # Fibonacci hashing
            while first_of[slot] >= 0 and bits[np.uint32(first_of[slot])] != bits[pixel]:
                slot = (slot + np.uint64(1)) & mask
            if first_of[slot] < 0:
                first_of[slot] = pixel
            else:
                some_repeat = True
            value_of[pixel] = first_of[slot]
        total = 0.0
        if not some_repeat:  # as in coloured noise: f(1) = 0
            sums[sample] = total
            continue
        for x in range(np.uint64(width - WINDOW + 1)):
            counts[:] = 0
            now = 0  # sum of f in the window
            for y in range(np.uint64(height)):
                for right in range(np.uint64(WINDOW)):
                    v = value[y, x + right]
                    now += steps[counts[v]]
                    counts[v] += one
                if y >= np.uint64(WINDOW - 1):
                    total += now
                    for right in range(np.uint64(WINDOW)):
                        v = value[y - np.uint64(WINDOW - 1), x + right]
                        counts[v] -= one
                        now -= steps[counts[v]]
        sums[sample] = total
