"""The statistics of images beside the formulas of their reference in plain loops, on colour images of 32 x 32 pixels.

    python benchmarks/image_statistics.py [--images 1024] [--repeats 7] [--json FILE]

Both sides start from the same uint8 images and must give the same numbers. Times are CPU time of the process for both sides, so that
other work on the machine does not count and threads do not help. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported


sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib.cbook
import numpy as np
import scipy
import scipy.fft
from PIL import Image

from analysis.measures.image_statistics import dct_share, edge_sum, has_segments, segment_count
from analysis.measures.local_entropy import float_grey_entropy, rounded_grey_entropy

MIN_ENTROPY_RATIO, MAX_SHARE_US = 1000, 20.0


def noise(num_images: int) -> np.ndarray:
    """Uniform random colours, uint8 `[sample, 3, 32, 32]`: greys hardly ever repeat."""
    return np.random.default_rng(0).integers(0, 256, (num_images, 3, 32, 32)).astype(np.uint8)


def photographs(num_images: int) -> np.ndarray:
    """Parts of the photograph that comes with matplotlib, at three scales: greys repeat as they do in CIFAR-10's images."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        photograph = Image.open(file).convert("RGB")
    generator = np.random.default_rng(0)
    parts = []
    for _ in range(num_images):
        size = int(generator.choice([96, 160, 256]))
        x, y = (int(generator.integers(0, extent - size + 1)) for extent in photograph.size)
        parts.append(np.asarray(photograph.crop((x, y, x + size, y + size)).resize((32, 32), Image.Resampling.BOX)))
    return np.stack(parts).transpose(0, 3, 1, 2).copy()


def reference_grey(images: np.ndarray) -> np.ndarray:
    return 0.2989 * images[:, 0] + 0.5870 * images[:, 1] + 0.1140 * images[:, 2]


def loop_entropy(images: np.ndarray, rounded: bool = False) -> np.ndarray:
    """The reference's entropy: a loop over images, rows and columns, and in each window `np.unique`."""
    grey = reference_grey(images)
    result = []
    for image in np.rint(grey) if rounded else grey:
        entropies = []
        for y in range(image.shape[0] - 9):
            for x in range(image.shape[1] - 9):
                _, counts = np.unique(image[y : y + 10, x : x + 10], return_counts=True)
                p = counts / counts.sum()
                entropies.append(-np.sum(p * np.log2(p)))
        result.append(np.mean(entropies))
    return np.array(result)


def loop_share(images: np.ndarray) -> np.ndarray:
    """The reference's share of DCT coefficients: a loop over images, and over the number of coefficients with both norms in each step."""
    result = []
    for image in reference_grey(images) / 255:
        coefficients = np.sort(np.abs(scipy.fft.dctn(image, norm="ortho")), axis=None)[::-1]
        num = 1
        while np.linalg.norm(coefficients[:num]) / np.linalg.norm(coefficients) < 0.9998:
            num += 1
        result.append(100 * (num - 1) / coefficients.size)
    return np.array(result)


def cpu_us(function: Callable[[np.ndarray], Any], images: np.ndarray, repeats: int) -> list[float]:
    """Microseconds of CPU time per image, in each repetition."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        function(images)
        seconds.append(time.process_time() - began)
    return [1e6 * s / len(images) for s in seconds]


def measure(num_images: int, num_loop_images: int, repeats: int) -> list[dict[str, Any]]:
    """A row per statistic and kind of images; `loop_us` is None where the reference has no formula in Python."""
    rows: list[tuple[str, Callable[..., np.ndarray], Callable[..., np.ndarray] | None]] = [
        ("entropy, float grey", float_grey_entropy, loop_entropy),
        ("entropy, rounded grey", rounded_grey_entropy, lambda images: loop_entropy(images, rounded=True)),
        ("DCT share", dct_share, loop_share),
        ("edge sum", edge_sum, None),
    ]
    if has_segments():
        rows.append(("segment count", segment_count, None))
    results = []
    for kind, images in (("noise", noise(num_images)), ("photograph", photographs(num_images))):
        for name, function, loop in rows:
            some = images[:num_loop_images]
            apart = float(np.abs(function(some) - loop(some)).max()) if loop else None
            function(images)  # memory and caches as they are within a data set
            fast, slow = [], []
            for _ in range(repeats):  # in turns
                fast += cpu_us(function, images, 1)
                slow += cpu_us(loop, some, 1) if loop else []
            results.append({"statistic": name, "images": kind, "us": fast, "loop_us": slow or None, "largest_difference": apart})
    return results


def missed(results: list[dict[str, Any]]) -> Iterator[str]:
    """The bars that results do not meet, as lines; medians count."""
    for r in results:
        label = f"{r['statistic']} of {r['images']}"
        us = statistics.median(r["us"])
        if r["largest_difference"] is not None and r["largest_difference"] > 1e-9:
            yield f"{label}: differs from the loops by {r['largest_difference']:.2g}"
        if r["statistic"] == "entropy, float grey":
            ratio = statistics.median(r["loop_us"]) / us
            if ratio < MIN_ENTROPY_RATIO:
                yield f"{label}: {ratio:,.0f}x, bar {MIN_ENTROPY_RATIO:,}x"
        if r["statistic"] == "DCT share" and us > MAX_SHARE_US:
            yield f"{label}: {us:.1f} us per image, bar {MAX_SHARE_US:g}"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.1f} [{min(values):,.1f}, {max(values):,.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help="images at once; a chunk of `image_statistics` has 1024")
    parser.add_argument("--loop-images", type=int, default=16, help="of these through the loops")
    parser.add_argument("--repeats", type=int, default=7, help="repetitions, in turns with the loops")
    parser.add_argument("--json", metavar="FILE", help="write every repetition there too")
    options = parser.parse_args()
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    print(f"{versions}, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    print(f"{options.images} images at once, {options.loop_images} in the loops, n = {options.repeats}; median [least, most]")
    results = measure(options.images, options.loop_images, options.repeats)
    print(f"{'statistic':22} {'images':11} {'CPU us per image':26} {'loops, CPU us per image':34} {'ratio':>8}  largest difference")
    for r in results:
        line = f"{r['statistic']:22} {r['images']:11} {spread(r['us']):26} "
        if r["loop_us"]:
            ratio = statistics.median(r["loop_us"]) / statistics.median(r["us"])
            line += f"{spread(r['loop_us']):34} {ratio:8,.0f}  {r['largest_difference']:.1g}"
        print(line.rstrip())
    if not has_segments():
        print("segment count: not measured, scikit-image (the extra `images`) is absent")
    failed = list(missed(results))
    if options.json:
        Path(options.json).write_text(json.dumps({"results": results, "missed": failed}, indent=2) + "\n", encoding="utf-8")
    print("\n".join(f"missed: {line}" for line in failed) or "all bars met")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
