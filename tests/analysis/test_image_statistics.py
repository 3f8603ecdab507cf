"""Statistics of images: golden values, the reference's formulas in plain loops beside each fast path, conventions of input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from scipy.ndimage import gaussian_filter, sobel

from analysis.measures import local_entropy
from analysis.measures.image_statistics import (
    STATISTICS,
    _num_smallest,
    as_bytes,
    dct_largest,
    dct_share,
    edge_sum,
    grey,
    has_segments,
    image_statistics,
    segment_count,
)
from analysis.measures.local_entropy import float_grey_entropy, rounded_grey_entropy

WITHOUT_SEGMENTS = [name for name in STATISTICS if name != "segment_count"]
needs_segments = pytest.mark.skipif(not has_segments(), reason="segment counts need scikit-image, the extra `images`")


def colour(grey_image: np.ndarray) -> np.ndarray:
    """One RGB image uint8 `[1, 3, y, x]` from grey `[y, x]`."""
    return np.broadcast_to(np.asarray(grey_image, dtype=np.uint8), (1, 3, *np.shape(grey_image)))


CONSTANT = colour(np.full((32, 32), 137))
CHECKERBOARD = colour(np.indices((32, 32)).sum(axis=0) % 2 * 255)
RAMP = colour(np.tile(np.rint(np.linspace(0, 255, 32)), (32, 1)))


def noise(num_samples: int = 4, shape: tuple[int, ...] = (3, 32, 32), seed: int = 0, num_levels: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_levels, (num_samples, *shape)).astype(np.uint8)


def smooth(num_samples: int = 4, size: int = 32, seed: int = 0) -> np.ndarray:
    """Colour images with a spectrum like that of photographs, and a saturated part: values repeat here and there."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    spectrum = np.fft.rfft2(generator.standard_normal((num_samples, 4, size, size))) / np.maximum(frequency, 1 / size)
    fields = np.fft.irfft2(spectrum, s=(size, size))
    fields /= fields.std(axis=(2, 3), keepdims=True)
    return np.clip(128 + 70 * fields[:, :1] + 12 * fields[:, 1:], 0, 255).astype(np.uint8)


def reference_grey(images: np.ndarray) -> np.ndarray:
    if images.shape[1] == 1:
        return images[:, 0]
    return 0.2989 * images[:, 0] + 0.5870 * images[:, 1] + 0.1140 * images[:, 2]


def reference_entropy(grey_image: np.ndarray) -> float:
    """The reference's loops over windows, for one image."""
    entropies = []
    for y in range(grey_image.shape[0] - 9):
        for x in range(grey_image.shape[1] - 9):
            counts = np.unique(grey_image[y : y + 10, x : x + 10], return_counts=True)[1]
            p = counts / 100
            entropies.append(-(p * np.log2(p)).sum())
    return float(np.mean(entropies))


def reference_share(grey_image: np.ndarray) -> float:
    """The reference's loop over the number of coefficients, for one image."""
    coefficients = np.sort(np.abs(scipy.fft.dctn(grey_image, norm="ortho")), axis=None)[::-1]
    num = 1
    while np.linalg.norm(coefficients[:num]) < 0.9998 * np.linalg.norm(coefficients):
        num += 1
    return 100 * (num - 1) / coefficients.size


@pytest.mark.parametrize(
    ("images", "entropy", "share"),
    [(CONSTANT, 0, 0), (CHECKERBOARD, 1.0, 15.527), (RAMP, np.log2(10), 0.293)],
    ids=["constant", "checkerboard", "ramp"],
)
def test_golden_values(images, entropy, share):
    assert float_grey_entropy(images) == pytest.approx(entropy, abs=1e-12)
    assert rounded_grey_entropy(images) == pytest.approx(entropy, abs=1e-12)
    assert dct_share(images) == pytest.approx(share, abs=5e-4)


def test_golden_values_of_random_images():
    """The published 83.3 % is one image's; over images the share is 82.04 with a standard deviation of 0.88 (n = 5,000)."""
    images = noise(100)
    assert float_grey_entropy(images) == pytest.approx(6.644, abs=2e-3)
    share = dct_share(images)
    assert share.mean() == pytest.approx(82.04, abs=0.4)
    assert share.min() < 83.3 < share.max()


def test_golden_largest_coefficient():
    assert dct_largest(CONSTANT) == pytest.approx(32 * 137 / 255 * 0.9999)  # the weights of grey sum to 0.9999
    assert dct_largest(np.zeros((1, 1, 32, 32), np.uint8)) == 0
    assert dct_share(np.zeros((1, 1, 32, 32), np.uint8)) == 0


IMAGES = {
    "noise": noise(),
    "few levels": noise(num_levels=4),
    "photograph": smooth(),
    "grey": noise(shape=(1, 28, 28)),
    "grey, flat": noise(shape=(1, 20, 31), num_levels=3),
    "wide": noise(2, (3, 10, 45), num_levels=12),
    "one window": noise(2, (3, 10, 10), num_levels=9),
    "large": smooth(1, 70),
    "constant": CONSTANT,
}


@pytest.mark.parametrize("name", IMAGES)
def test_entropy_equals_the_reference(name):
    images = IMAGES[name]
    values = reference_grey(images)
    assert float_grey_entropy(images) == pytest.approx([reference_entropy(v) for v in values], abs=1e-12)
    assert rounded_grey_entropy(images) == pytest.approx([reference_entropy(np.rint(v)) for v in values], abs=1e-12)


def test_entropy_of_more_pixels_than_16_bits_number():
    images = noise(1, (3, 10, 6600), num_levels=20)
    assert float_grey_entropy(images) == pytest.approx([reference_entropy(v) for v in reference_grey(images)], abs=1e-12)


def test_entropy_does_not_depend_on_threads_blocks_or_strides(monkeypatch):
    images = np.concatenate([noise(3), noise(3, num_levels=4), smooth(3)])
    expected = float_grey_entropy(images)
    monkeypatch.setattr(local_entropy, "IMAGES_AT_ONCE", 2)
    assert (float_grey_entropy(images, num_threads=2) == expected).all()
    wide = images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # channels last in memory
    assert not wide.flags.c_contiguous
    num_compiled = len(local_entropy._kernel().signatures)
    assert (float_grey_entropy(wide) == expected).all()
    assert len(local_entropy._kernel().signatures) == num_compiled


@pytest.mark.parametrize("rounded", [False, True])
def test_compiled_entropy_is_that_of_the_same_lines_in_python(rounded):
    images = np.concatenate([noise(1, (3, 12, 11)), noise(1, (3, 12, 11), num_levels=5), smooth(1, 12)[..., :11]])
    one = np.arange(2**local_entropy.COUNT_BITS) ** 2
    steps = np.stack([np.tile(one, len(one)), np.repeat(one, len(one)), np.add.outer(one, one).ravel()])
    sums = np.empty((2, 3))
    local_entropy._kernel()(images, rounded, steps, np.empty(256, np.uint16), sums[0])
    with np.errstate(over="ignore"):  # of the hash
        local_entropy._sum_over_windows(images.astype(np.int64), rounded, steps, np.empty(256, np.uint16), sums[1])
    assert (sums[0] == sums[1]).all()


WHERE_KEPT = "from analysis.measures import local_entropy; stats = local_entropy._kernel().stats; print(stats.cache_path)"
COMPUTED = """
import numpy as np
assert local_entropy.float_grey_entropy(np.zeros((1, 3, 10, 10), np.uint8)) == 0
print(sum(stats.cache_hits.values()))
"""


def test_machine_code_is_kept_beside_the_file_or_in_the_users_cache_or_not_at_all(tmp_path):
    package = shutil.copytree(Path(local_entropy.__file__).parents[1], tmp_path / "analysis", ignore=shutil.ignore_patterns("__pycache__"))

    def run(code: str, home: Path) -> list[str]:
        variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    beside = package / "measures" / "__pycache__"
    assert run(WHERE_KEPT, tmp_path) == [str(beside)]
    shutil.rmtree(beside)
    beside.touch()  # no folder can be made there, as where the package is read-only
    kept, num_found = run(WHERE_KEPT + COMPUTED, tmp_path / "home")
    assert kept.startswith(str(tmp_path / "home"))
    assert num_found == "0"
    assert run(WHERE_KEPT + COMPUTED, tmp_path / "home") == [kept, "1"]
    assert run(WHERE_KEPT, Path("/dev/null")) == ["None"]


def test_float_grey_takes_greys_as_equal_exactly_where_float64_does():
    """Colours that differ by (10, b, c) with 29890 + 5870 b + 1140 c = 0 have the same grey on paper, and in float64 only sometimes."""
    b, c = next((b, c) for b in range(-57, 58) for c in range(-255, 256) if 29890 + 5870 * b + 1140 * c == 0)
    generator = np.random.default_rng(0)
    first = np.stack([generator.integers(0, 246, 500), generator.integers(max(0, -b), 256 - max(0, b), 500), np.full(500, max(0, -c))])
    second = first + np.array([10, b, c])[:, None]
    greys = [reference_grey(colours.T.astype(np.uint8)) for colours in (first, second)]
    same = greys[0] == greys[1]
    assert 0 < same.sum() < 500
    images = np.zeros((500, 3, 10, 10), np.uint8)
    images[:, :, 0, 0], images[:, :, 0, 1] = first.T, second.T
    assert float_grey_entropy(images) == pytest.approx([reference_entropy(g) for g in reference_grey(images)], abs=1e-12)


def test_entropy_of_images_smaller_than_a_window_has_no_value():
    assert np.isnan(float_grey_entropy(noise(2, (3, 9, 32)))).all()
    assert np.isnan(rounded_grey_entropy(noise(2, (1, 32, 9)))).all()
    assert len(float_grey_entropy(noise(0))) == 0


def test_rounded_grey_is_rounded_half_to_even():
    """A pixel of a colour equals one of its rounded grey, and the other 98 are white."""
    levels = np.arange(0, 241, 15)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij")).reshape(3, -1)
    exact = np.array([2989, 5870, 1140]) @ colours
    expected = np.array([round(value / 10000) for value in exact.tolist()])
    assert (expected != (exact + 5000) // 10000).any()  # there are halves among them
    assert (expected != np.rint(np.array([0.2989, 0.5870, 0.1140]) @ colours)).any()  # which float64 does not know
    images = np.full((colours.shape[1], 3, 10, 10), 255, np.uint8)
    images[:, :, 0, 0], images[:, :, 9, 9] = colours.T, expected[:, None]  # grey of three equal levels is 0.9999 of them
    assert rounded_grey_entropy(images) == pytest.approx(-(0.98 * np.log2(0.98) + 0.02 * np.log2(0.02)), abs=1e-12)


@pytest.mark.parametrize("name", IMAGES)
def test_dct_share_equals_the_reference(name):
    values = list(reference_grey(IMAGES[name]) / 255)
    assert dct_share(IMAGES[name]).tolist() == [reference_share(v) for v in values]
    assert dct_largest(IMAGES[name]) == pytest.approx([np.abs(scipy.fft.dctn(v, norm="ortho")).max() for v in values], rel=1e-12)


@pytest.mark.parametrize("num_values", [1, 2, 3, 10, 16, 101])
def test_number_of_smallest_values_within_a_limit(num_values):
    generator = np.random.default_rng(num_values)
    ordered = np.sort(generator.integers(0, 5, (300, num_values)), axis=1).astype(np.float32)  # sums of integers are exact
    limit = generator.integers(-1, 3 * num_values, 300).astype(np.float64)
    assert _num_smallest(ordered, limit).tolist() == (ordered.cumsum(axis=1) <= limit[:, None]).sum(axis=1).tolist()


def test_edge_sum_is_that_of_sobels_gradient():
    images = smooth()
    expected = [np.hypot(sobel(v, axis=0), sobel(v, axis=1)).sum() / 8 for v in reference_grey(images) / 255]
    assert edge_sum(images) == pytest.approx(expected)
    assert edge_sum(CONSTANT) == pytest.approx(0, abs=1e-10)
    inner = colour(np.tile(np.arange(32) * 4, (32, 1)))
    assert edge_sum(inner) == pytest.approx(31 * 32 * 4 / 255 * 0.9999)  # slope 4 a pixel inside, half of it in the two outer columns


def test_intensity_and_contrast():
    found = image_statistics(CHECKERBOARD, ["intensity_mean", "contrast"])
    assert found["intensity_mean"] == pytest.approx(0.9999 / 2)
    assert found["contrast"] == pytest.approx(0.9999 / 2)
    assert grey(noise(2, (1, 5, 6))) == pytest.approx(noise(2, (1, 5, 6))[:, 0] / 255)


def test_floats_and_bytes_are_the_same_images():
    images = noise(3)
    for dtype in (np.float32, np.float64):
        assert (as_bytes((images / 255).astype(dtype)) == images).all()
    assert as_bytes(np.array([0.4, 0.6, 1.5, 254.6]).reshape(4, 1, 1, 1) / 255).ravel().tolist() == [0, 1, 2, 255]  # rounded, not cut off
    found = image_statistics((images / 255).astype(np.float32), WITHOUT_SEGMENTS)
    for name, values in image_statistics(images, WITHOUT_SEGMENTS).items():
        assert (found[name] == values).all(), name


@pytest.mark.parametrize("images", [noise(), smooth(), noise(shape=(1, 28, 28), num_levels=30)], ids=["noise", "photograph", "grey"])
def test_symmetries(images):
    """Mirrored and turned images have the same statistics; a grey image has those of its RGB copy, up to the weights' 0.9999."""
    names = ["entropy_float_grey", "entropy_rounded_grey", "dct_share", "dct_largest", "edge_sum", "intensity_mean", "contrast"]
    expected = image_statistics(images, names)
    for other in (images[:, :, ::-1], images[:, :, :, ::-1], images.swapaxes(2, 3)):
        for name, values in image_statistics(other, names).items():
            assert values == pytest.approx(expected[name], rel=1e-10), name
    if images.shape[1] == 1:
        for name, values in image_statistics(np.repeat(images, 3, axis=1), names).items():
            assert values == pytest.approx(expected[name], rel=2e-4), name


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((2, 32, 32), np.uint8), "not of shape"),
        (np.zeros((2, 32, 32, 3), np.uint8), "not of shape"),
        (np.zeros((2, 3, 32, 32), np.int64), "not int64"),
        (np.full((2, 3, 12, 12), 200.0), r"not in \[200, 200\]"),
        (np.full((2, 3, 12, 12), np.nan), "lie in"),
    ],
)
def test_images_that_follow_no_convention_are_refused(images, text):
    with pytest.raises(ValueError, match=text):
        image_statistics(images, ["contrast"])


def test_an_unknown_statistic_is_refused():
    with pytest.raises(ValueError, match="no image statistic 'entropy'; there are segment_count"):
        image_statistics(noise(), ["entropy"])


def test_no_images():
    assert {name: values.shape for name, values in image_statistics(noise(0)).items()} == dict.fromkeys(STATISTICS, (0,))


def test_worker_processes_and_chunks_change_nothing(monkeypatch):
    images = np.concatenate([noise(7), smooth(6)])
    expected = image_statistics(images, WITHOUT_SEGMENTS)
    monkeypatch.setattr("analysis.measures.image_statistics.CHUNK_PIXELS", 3 * 32 * 32)
    for num_processes in (1, 2):
        for name, values in image_statistics(images, WITHOUT_SEGMENTS, num_processes).items():
            assert values == pytest.approx(expected[name], rel=1e-12), name


def test_progress_is_shown(capsys):
    image_statistics(noise(), ["contrast"], show_progress=True)
    assert "image statistics" in capsys.readouterr().out
    image_statistics(noise(), ["contrast"])
    assert not capsys.readouterr().out


def test_without_scikit_image_segment_counts_say_what_is_missing():
    """In a process in which skimage cannot be found; the other statistics work there."""
    code = (
        "import importlib.util, numpy as np; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'skimage' else find(name, *rest)\n"
        "from analysis.measures.image_statistics import STATISTICS, image_statistics\n"
        "images = np.zeros((1, 1, 12, 12), np.uint8)\n"
        "image_statistics(images, [name for name in STATISTICS if name != 'segment_count'])\n"
        "image_statistics(images)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=100, check=False
    )
    assert done.returncode == 1
    assert "segment_count needs scikit-image: pip install 'karenina-sweep[images]'" in done.stderr


def reference_segments(image: np.ndarray) -> int:
    """Felzenszwalb and Huttenlocher's algorithm in loops, for an image `[y, x, channel]` in 0..255: sigma 0.5, k 500, min 20."""
    height, width, _ = image.shape
    smoothed = gaussian_filter(image.astype(np.float64), (0.5, 0.5, 0))
    edges = []
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if y + dy < height and 0 <= x + dx < width:
                    apart = float(np.linalg.norm(smoothed[y, x] - smoothed[y + dy, x + dx]))
                    edges.append((apart, y * width + x, (y + dy) * width + x + dx))
    edges.sort()
    parent, size, largest = list(range(height * width)), [1] * (height * width), [0.0] * (height * width)

    def root(pixel: int) -> int:
        while parent[pixel] != pixel:
            pixel = parent[pixel]
        return pixel

    for smallest in (False, True):  # merge what is alike, then what is too small
        for apart, a, b in edges:
            a, b = root(a), root(b)
            if a == b:
                continue
            alike = apart < min(largest[a] + 500 / size[a], largest[b] + 500 / size[b])
            if min(size[a], size[b]) < 20 if smallest else alike:
                parent[b], size[a], largest[a] = a, size[a] + size[b], apart
    return len({root(pixel) for pixel in range(height * width)})


@needs_segments
def test_segments_equal_the_algorithm_in_loops():
    images = np.concatenate([smooth(5, 24, seed=1), noise(2, (3, 24, 24)), noise(1, (3, 24, 24), num_levels=90)])
    expected = [reference_segments(image.transpose(1, 2, 0)) for image in images]
    assert segment_count(images).tolist() == expected
    assert len(set(expected)) > 2


@needs_segments
def test_segments_of_known_images():
    halves, small = np.zeros((32, 32)), np.zeros((32, 32))
    halves[:, 16:], small[:3, :3] = 255, 255
    # Between halves the blur leaves two columns of 32 pixels, each a segment; 9 pixels are too few for one.
    assert segment_count(np.concatenate([CONSTANT, colour(halves), colour(small)])).tolist() == [1, 4, 1]


@needs_segments
def test_segments_do_not_depend_on_the_type_of_the_input():
    """scikit-image finds many more segments in floats of 0..255, which are refused here."""
    images = np.concatenate([smooth(6, seed=1), noise(1)])
    expected = segment_count(images)
    assert (image_statistics(images / 255, ["segment_count"])["segment_count"] == expected).all()
    assert (image_statistics((images / 255).astype(np.float32), ["segment_count"])["segment_count"] == expected).all()
    assert len(set(expected.tolist())) > 1
    grey_images = images[:, :1]
    assert (segment_count(grey_images) == segment_count(np.repeat(grey_images, 3, axis=1))).all()
