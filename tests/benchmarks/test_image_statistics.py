"""The benchmark of the image statistics runs, and can miss its bars."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "image_statistics.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("image_statistics_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(statistic: str, us: float, loop_us: float, apart: float = 0.0) -> dict[str, object]:
    times = {"us": [us], "wall_us": [us], "loop_us": [loop_us], "loop_wall_us": [loop_us]}
    return {"statistic": statistic, "images": "noise", "largest_difference": apart, **times}


def test_a_missed_bar_is_told(benchmark):
    assert list(benchmark.missed([row("entropy, float grey", 8, 8001), row("DCT share", 19.9, 1), row("edge sum", 99, 1)])) == []
    assert list(benchmark.missed([row("entropy, float grey", 8, 7000)])) == ["entropy, float grey of noise: 875x, bar 1,000x"]
    assert list(benchmark.missed([row("DCT share", 20.1, 1)])) == ["DCT share of noise: 20.1 us per image, bar 20"]
    assert list(benchmark.missed([row("DCT share", 1, 1, 0.1)])) == ["DCT share of noise: differs from the loops by 0.1"]


def test_photographs_have_greys_that_repeat_and_noise_has_not(benchmark):
    entropies = [benchmark.float_grey_entropy(images(20)).mean() for images in (benchmark.noise, benchmark.photographs)]
    assert entropies[0] > 6.64
    assert 4 < entropies[1] < 6.6


def test_the_benchmark_runs(tmp_path):
    arguments = ["--images", "20", "--loop-images", "2", "--repeats", "1", "--json", str(tmp_path / "out.json")]
    done = subprocess.run([sys.executable, str(FILE), *arguments], capture_output=True, text=True, timeout=300, check=False)
    found = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == (1 if found["missed"] else 0), done.stderr
    assert not any("differs" in line for line in found["missed"])
    assert {r["images"] for r in found["results"]} == {"noise", "photograph"}
