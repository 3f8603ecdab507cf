"""The benchmark of similarities: its references agree with this project, its bars can be missed, an absent peer is named."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    yield load("similarity_vs_peers")
    sys.path.remove(str(BENCHMARKS))


def test_references_agree_with_what_is_measured(benchmark, tmp_path):
    benchmark.make_arrays(str(tmp_path), 4, 60, 12)
    for case, (array, subjects) in benchmark.CASES.items():
        X, built = np.load(tmp_path / f"{array}.npy"), True
        found = {}
        for name in ("ours", "reference", "loop", "loop, vectorised"):
            if name in subjects:
                try:
                    found[name] = subjects[name][1](X)[0]
                except sys.modules["similarity_subjects"].NotBuilt:
                    built = False
        assert built or case not in ("cka", "procrustes", "permdisp")
        for name, values in found.items():
            both = np.isfinite(values) & np.isfinite(found["reference"])
            assert both.any()
            np.testing.assert_allclose(values[both], found["reference"][both], atol=2e-6, err_msg=f"{case} {name}")


def test_a_bar_is_missed_by_speed_by_deviation_and_by_absence(benchmark):
    def figures(subject: str, *seconds: float, deviation: float = 0.0, absent: str = ""):
        return benchmark.Figures("cka_debiased", subject, "", absent, list(seconds), deviation, 1)

    peer = figures("pytorch-cka", 4.0, 3.6)
    assert benchmark.missed("cka_debiased", [figures("ours", 1.0, 2.0), peer]) == ""
    assert "3.27x, below 3.5x" in benchmark.missed("cka_debiased", [figures("ours", 1.1), peer])
    assert "deviates by 2.0e-06" in benchmark.missed("cka_debiased", [figures("ours", 1.0, deviation=2e-6), peer])
    assert "deviates" in benchmark.missed("cka_debiased", [figures("ours", 1.0, deviation=np.nan), peer])
    assert benchmark.missed("cka_debiased", [figures("ours", absent="not built"), peer]) == "not built"
    assert "absent" in benchmark.missed("cka_debiased", [figures("ours", 1.0), figures("pytorch-cka", absent="absent")])
    assert benchmark.missed("procrustes", [figures("ours", 9.9), figures("scipy", 1.0)]) == ""
    assert "below 1.5x" in benchmark.missed("procrustes", [figures("ours", 12.0), figures("scipy", 17.0)])


def test_the_command_lists_absent_peers(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "similarity_vs_peers.py"), "--cases", "cka", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--networks", "4", "--samples", "40", "--width", "8"], capture_output=True, text=True, cwd=BENCHMARKS.parent, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "bars are not checked" in done.stdout
    if importlib.util.find_spec("repsim") is None:
        assert "absent: PackageNotFoundError" in done.stdout


def test_the_analysis_of_a_synthetic_store_reports_its_memory(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "analysis_scale.py"), "--families", "6", "--replicas", "3", "--samples", "20"]
    command += ["--widths", "4", "3", "--measures", "cka"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "18 networks of 6 families" in done.stdout
    assert done.stdout.count("peak 0.") == 2
