"""The statistics of images beside the formulas of their reference in plain loops, on colour images of 32 x 32 pixels.

    python benchmarks/image_statistics.py [--images 1024] [--repeats 7] [--json FILE]

Both sides start from the same uint8 images and must give the same numbers. CPU time is that of the process, in one thread on both sides:
other work on the machine does not count, and threads do not help; bars are of it. The entropies are also timed by the clock, in as many
threads as the process may use CPUs (`--threads`), beside the loops by the clock, which use one. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
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


def times_us(function: Callable[[np.ndarray], Any], images: np.ndarray) -> tuple[float, float]:
    """Microseconds per image: CPU time of the process, and by the clock."""
    began, cpu_began = time.perf_counter(), time.process_time()
    function(images)
    return 1e6 * (time.process_time() - cpu_began) / len(images), 1e6 * (time.perf_counter() - began) / len(images)


def measure(num_images: int, num_loop_images: int, repeats: int, num_threads: int) -> list[dict[str, Any]]:
    """A row per statistic and kind of images. Lists of one number per repetition: CPU time in `us` and `loop_us`, by the clock in `wall_us`
    and `loop_wall_us`; None where the statistic has no threads, or the reference no formula in Python.
    """
    rows: list[tuple[str, Callable[..., np.ndarray], Callable[..., np.ndarray] | None]] = [
        ("entropy, float grey", float_grey_entropy, loop_entropy),
        ("entropy, rounded grey", rounded_grey_entropy, partial(loop_entropy, rounded=True)),
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
            in_threads = partial(function, num_threads=num_threads) if name.startswith("entropy") else None
            fast, threaded, slow = [], [], []
            for _ in range(repeats):  # in turns
                fast.append(times_us(function, images)[0])
                threaded += [times_us(in_threads, images)[1]] if in_threads else []
                slow += [times_us(loop, some)] if loop else []
            row = {"statistic": name, "images": kind, "us": fast, "wall_us": threaded or None, "largest_difference": apart}
            results.append(row | {"loop_us": [cpu for cpu, _ in slow] or None, "loop_wall_us": [wall for _, wall in slow] or None})
    return results


def ratio(row: dict[str, Any], slow: str, fast: str) -> float:
    return statistics.median(row[slow]) / statistics.median(row[fast])


def first_call_s() -> tuple[float, float]:
    """Seconds of CPU time of the first entropy of a process, where nothing is compiled yet, and where it is kept on disk."""
    code = "import time, numpy as np; from analysis.measures.local_entropy import float_grey_entropy; began = time.process_time(); "
    code += "float_grey_entropy(np.zeros((1, 3, 32, 32), np.uint8)); print(time.process_time() - began)"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code]
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        root = Path(__file__).parents[1]
        runs = [subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True) for _ in range(2)]
    return float(runs[0].stdout), float(runs[1].stdout)


def missed(results: list[dict[str, Any]]) -> Iterator[str]:
    """The bars that results do not meet, as lines; medians count."""
    for r in results:
        label = f"{r['statistic']} of {r['images']}"
        us = statistics.median(r["us"])
        if r["largest_difference"] is not None and r["largest_difference"] > 1e-9:
            yield f"{label}: differs from the loops by {r['largest_difference']:.2g}"
        if r["statistic"] == "entropy, float grey":
            gain = ratio(r, "loop_us", "us")
            if gain < MIN_ENTROPY_RATIO:
                yield f"{label}: {gain:,.0f}x, bar {MIN_ENTROPY_RATIO:,}x"
        if r["statistic"] == "DCT share" and us > MAX_SHARE_US:
            yield f"{label}: {us:.1f} us per image, bar {MAX_SHARE_US:g}"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.1f} [{min(values):,.1f}, {max(values):,.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help="images at once; a chunk of `image_statistics` has 1024")
    parser.add_argument("--loop-images", type=int, default=16, help="of these through the loops")
    parser.add_argument("--repeats", type=int, default=7, help="repetitions, in turns with the loops")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--threads", type=int, default=cpus, help="of the entropies by the clock; default: the CPUs that this process may use"
    )
    parser.add_argument("--json", metavar="FILE", help="write every repetition there too")
    options = parser.parse_args()
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, numba {version('numba')}"
    print(f"{versions}, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    print(f"{options.images} images at once, {options.loop_images} in the loops, n = {options.repeats}; median [least, most]")
    print(
        "the first entropy of a process: {:.1f} s of CPU time where it must be compiled, {:.1f} s where that is kept on disk".format(
            *first_call_s()
        )
    )
    results = measure(options.images, options.loop_images, options.repeats, options.threads)
    print(
        f"{'statistic':22} {'images':11} {'CPU us per image':26} {'loops, CPU us per image':34} {'ratio':>8}  "
        f"{f'us by the clock, {options.threads} threads':28} {'ratio':>8}  largest difference"
    )
    for r in results:
        line = f"{r['statistic']:22} {r['images']:11} {spread(r['us']):26} "
        if r["loop_us"]:
            line += f"{spread(r['loop_us']):34} {ratio(r, 'loop_us', 'us'):8,.0f}  "
            line += f"{spread(r['wall_us']):28} {ratio(r, 'loop_wall_us', 'wall_us'):8,.0f}  " if r["wall_us"] else " " * 39
            line += f"{r['largest_difference']:.1g}"
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
