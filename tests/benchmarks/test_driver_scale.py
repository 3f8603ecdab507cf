"""The benchmark of the driver runs, and can miss its bars."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "driver_scale.py"


@pytest.fixture(scope="module")
def driver_scale():
    spec = importlib.util.spec_from_file_location("driver_scale", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_missed_bar_is_told(driver_scale):
    good = {"families": 200, "overhead_s": 0.02, "driver_bytes": 1e9}
    assert list(driver_scale.missed([good, {**good, "families": 1000}])) == []
    for change, text in (
        ({"overhead_s": 0.05}, "50.0 ms per family"),
        ({"overhead_s": 0.035}, "1.75x"),
        ({"driver_bytes": 2e9}, "2.00 GB"),
    ):
        assert any(text in line for line in driver_scale.missed([good, {**good, **change}])), text


@pytest.mark.parametrize("size", [30, 1000])
def test_the_families_of_the_driver_benchmark_are_a_tree(driver_scale, size):
    space = driver_scale.sweep_of(size, "/nowhere", 2).space
    phases = [tuple(map(tuple, schedule)) for schedule in space.schedules]
    assert len(set(phases)) == size
    assert sum(len(p) == 1 for p in phases) == 20
    assert sum(len(p) == 3 for p in phases) > (size - 20) / 3


@pytest.mark.slow
def test_the_driver_benchmark_runs(tmp_path):
    arguments = ["--families", "24", "40", "--stub-ms", "1", "--json", str(tmp_path / "out.json")]
    done = subprocess.run([sys.executable, str(FILE), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr  # so few families are no measurement
    assert [r["families"] for r in json.loads((tmp_path / "out.json").read_text())["results"]] == [24, 40]
