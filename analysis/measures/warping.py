"""Images displaced by sums of sines and read bilinearly: a compiled kernel for float32 images in main memory. Importing it imports numba.

Beside a general grid sampler it knows two things. A field is separable, so a row of it is one short sum of waves. And the channels of an
image are read at the same places: with four of them side by side, what a pixel lies between is two loads for all four.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from analysis.measures.compiled import compiled

_LANES = 4  # channels side by side, pixels blended at once, waves summed at once
_PIXELS_PER_THREAD = 2**16  # for fewer a thread costs more than it saves


def warp(images: np.ndarray, coefficients: np.ndarray, modes: np.ndarray, warped: np.ndarray, num_threads: int) -> None:
    """Write images `[field or 1, channel, height, width]`, displaced and read as `Diffeomorphisms.warp` says, to `warped`, one per field.

    float32, contiguous, sides from 2 to 2^14 (offsets have 32 bits); coefficients `[field, 2, mode]`, modes `[mode, 2]`. Each field is
    computed by itself: the number of threads changes no bit.
    """
    num_fields, _, height, width = warped.shape
    waves = [_waves(int(modes.max()), side) for side in (width, height)]

    def work(fields: slice) -> None:
        _warp(images if len(images) == 1 else images[fields], coefficients[fields], modes, *waves, warped[fields])

    num_threads = max(1, min(num_threads, num_fields * height * width // _PIXELS_PER_THREAD))
    first, *others = (slice(num_fields * k // num_threads, num_fields * (k + 1) // num_threads) for k in range(num_threads))
    waiting = [_pool(num_threads - 1).submit(work, fields) for fields in others]
    work(first)
    for done in waiting:
        done.result()


@lru_cache(maxsize=1)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads that are kept, as starting one takes a tenth of what it then works. A forked process has none of them and starts its own."""
    return ThreadPoolExecutor(num_threads)


os.register_at_fork(after_in_child=_pool.cache_clear)


@lru_cache(maxsize=16)
def _waves(cut: int, size: int) -> np.ndarray:
    """sin(k pi s) of k = 1 ... c at points s from 0 to 1 `[k, point]`, and zeros up to a whole number of lanes."""
    waves = np.zeros((-(-cut // _LANES) * _LANES, size), np.float32)
    waves[:cut] = np.sin(np.pi * np.arange(1, cut + 1)[:, None] * np.linspace(0, 1, size))
    return waves


_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}
_inner = njit(nogil=True, **_OPTIONS)


@_inner
def _amplitudes(coefficients: np.ndarray, modes: np.ndarray, along: np.ndarray, amplitudes: np.ndarray) -> None:
    """How much of each wave along the width there is in a row, in pixels `[component, wave, row]`, of the field `[2, mode]`."""
    num_rows = along.shape[1]
    amplitudes[:] = 0
    for component in range(2):
        for mode in range(len(modes)):
            i, j, amount = modes[mode, 0] - 1, modes[mode, 1] - 1, coefficients[component, mode]
            for row in range(num_rows):
                amplitudes[component, i, row] += amount * along[j, row]


@_inner
def _positions(amplitudes: np.ndarray, across: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Where each pixel is read `[row, column]`, in pixels."""
    height, width = x.shape
    u, v = amplitudes
    for row in range(height):
        x_row, y_row = x[row], y[row]
        u0, u1, u2, u3 = u[0, row], u[1, row], u[2, row], u[3, row]
        v0, v1, v2, v3 = v[0, row], v[1, row], v[2, row], v[3, row]
        for k in range(width):
            s0, s1, s2, s3 = across[0, k], across[1, k], across[2, k], across[3, k]
            x_row[k] = np.float32(k) - np.float32(width) * (u0 * s0 + u1 * s1 + u2 * s2 + u3 * s3)
            y_row[k] = np.float32(row) - np.float32(height) * (v0 * s0 + v1 * s1 + v2 * s2 + v3 * s3)
        for i in range(_LANES, len(across)):
            u_i, v_i = np.float32(width) * u[i, row], np.float32(height) * v[i, row]
            for k in range(width):
                x_row[k] -= u_i * across[i, k]
                y_row[k] -= v_i * across[i, k]


@_inner
def _corners(x: np.ndarray, y: np.ndarray, height: int, width: int, offsets: np.ndarray) -> None:
    """Positions `[pixel]` to the offset of the pixel on their upper left, and to the fractions of the way from there, in place."""
    for p in range(len(x)):
        # What is not a number compares false, and is read from the corner, not from elsewhere in memory.
        a, b = x[p] if x[p] > 0 else np.float32(0), y[p] if y[p] > 0 else np.float32(0)
        a, b = min(a, np.float32(width - 1)), min(b, np.float32(height - 1))
        left, top = min(np.int32(a), np.int32(width - 2)), min(np.int32(b), np.int32(height - 2))
        offsets[p] = _LANES * (top * width + left)
        x[p], y[p] = a - np.float32(left), b - np.float32(top)


@_inner
def _pack(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, packed: np.ndarray) -> None:
    """Four channels `[pixel]` side by side `[pixel x lane]`."""
    for p in range(len(a)):
        packed[_LANES * p] = a[p]
        packed[_LANES * p + 1] = b[p]
        packed[_LANES * p + 2] = c[p]
        packed[_LANES * p + 3] = d[p]


@intrinsic
def _blend(typing: Any, packed: Any, offsets: Any, down: Any, x: Any, y: Any, pixel: Any, warped: Any, starts: Any) -> Any:
    """The four pixels from `pixel` on, of four channels: each between four values `packed [pixel x lane]`, by bilinear interpolation.

    Those are at its offset, on the right of that, and both `down` values later; it lies at the fractions x and y of the way. Lane c is
    written to `warped` from `pixel` after starts[c] on. In vectors, as loops over so few are compiled to scalar code.
    """
    single, integer = ir.FloatType(), ir.IntType(32)
    quad, octet = ir.VectorType(single, 4), ir.VectorType(single, 8)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def pick(a: Any, b: Any, *lanes: int) -> Any:
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(integer, len(lanes)), lanes))

        def at(pointer: Any, index: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())

        def load(pointer: Any, index: Any, kind: Any) -> Any:
            return builder.load(at(pointer, index, kind), align=4)

        def between(a: Any, b: Any, fraction: Any) -> Any:
            first = builder.insert_element(ir.Constant(a.type, ir.Undefined), fraction, integer(0))
            step = builder.fmul(pick(first, first, *[0] * a.type.count), builder.fsub(b, a), flags=("contract",))
            return builder.fadd(a, step, flags=("contract",))

        arrays = [isinstance(kind, types.Array) for kind in signature.args]
        packed, offsets, down, x, y, pixel, warped, starts = (
            context.make_array(kind)(context, builder, value).data if is_array else value
            for kind, value, is_array in zip(signature.args, values, arrays, strict=True)
        )
        pixels = []
        for number in range(_LANES):
            here = builder.add(pixel, pixel.type(number))
            corner = load(offsets, here, integer)
            upper, lower = load(packed, corner, octet), load(packed, builder.add(corner, down), octet)
            column = between(upper, lower, load(y, here, single))
            left, right = pick(column, column, 0, 1, 2, 3), pick(column, column, 4, 5, 6, 7)
            pixels.append(between(left, right, load(x, here, single)))
        a, b, c, d = pixels  # [lane] each: transposed to one of each lane
        halves = [(pick(a, b, *lanes), pick(c, d, *lanes)) for lanes in ((0, 4, 1, 5), (2, 6, 3, 7))]
        channels = [pick(*half, *lanes) for half in halves for lanes in ((0, 1, 4, 5), (2, 3, 6, 7))]
        for number, channel in enumerate(channels):
            to = builder.add(builder.extract_value(starts, number), pixel)
            builder.store(channel, at(warped, to, quad), align=4)
        return context.get_dummy_value()

    return types.void(packed, offsets, down, x, y, pixel, warped, starts), generate


@_inner
def _blend_all(packed: np.ndarray, offsets: np.ndarray, down: int, x: np.ndarray, y: np.ndarray, warped: np.ndarray, starts: Any) -> None:
    """Every pixel, four at a time; the last four may overlap with those before."""
    for p in range(0, len(offsets), _LANES):
        _blend(packed, offsets, np.int32(down), x, y, min(p, len(offsets) - _LANES), warped, starts)  # type: ignore[call-arg]


def _in_one_thread(
    images: np.ndarray, coefficients: np.ndarray, modes: np.ndarray, across: np.ndarray, along: np.ndarray, warped: np.ndarray
) -> None:
    """`warp` in one thread, with the waves along the width and along the height."""
    num_fields, num_channels, height, width = warped.shape
    num_pixels, last = height * width, num_channels - 1
    amplitudes = np.empty((2, len(across), height), np.float32)
    x, y = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    x_flat, y_flat, offsets = x.reshape(-1), y.reshape(-1), np.empty(num_pixels, np.int32)
    packed = np.empty(_LANES * num_pixels, np.float32)
    for field in range(num_fields):
        _amplitudes(coefficients[field], modes, along, amplitudes)
        _positions(amplitudes, across, x, y)
        _corners(x_flat, y_flat, height, width, offsets)
        image = images[min(field, len(images) - 1)].reshape(num_channels, num_pixels)
        for a in range(0, num_channels, _LANES):  # of fewer than four channels the last is taken, and written, again
            b, c, d = min(a + 1, last), min(a + 2, last), min(a + 3, last)
            _pack(image[a], image[b], image[c], image[d], packed)
            starts = (a * num_pixels, b * num_pixels, c * num_pixels, d * num_pixels)
            _blend_all(packed, offsets, _LANES * width, x_flat, y_flat, warped[field].reshape(-1), starts)


_warp = compiled(_in_one_thread, **_OPTIONS)
