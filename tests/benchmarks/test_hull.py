"""The benchmark of projections can miss its bars, and what it compares solves the same problem."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from analysis.measures.hull import project

FILE = Path(__file__).parents[2] / "benchmarks" / "hull.py"


@pytest.fixture(scope="module")
def sides():
    spec = importlib.util.spec_from_file_location("hull_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_missed_bar_is_told(sides):
    good = {"workload": "digits", "ratio_conic": 101.0, "gaps": {"ours": 1e-12}}
    assert list(sides.missed([good, {**good, "workload": "gaussian", "ratio_conic": 1001.0}])) == []
    assert "99 times" in next(sides.missed([{**good, "ratio_conic": 99.0}]))
    assert "101 times" in next(sides.missed([{**good, "workload": "gaussian"}]))
    for gap in (1e-7, float("nan")):
        assert "relative gap" in next(sides.missed([{**good, "gaps": {"ours": gap}}]))


@pytest.mark.parametrize("solver", ["conic", "least_squares"])
@pytest.mark.parametrize(("n", "d"), [(300, 5), (60, 90)])
def test_solvers_agree(sides, solver, n, d):
    if solver == "conic":
        pytest.importorskip("clarabel", reason="Clarabel is not installed (the extra `benchmarks`)")
    generator = np.random.default_rng(0)
    points = generator.standard_normal((n, d))
    outside, inside = generator.standard_normal((4, d)) + 2, generator.dirichlet(np.ones(n), size=3) @ points
    face = (project(points, outside).weights @ points)[:3]
    found = project(points, np.concatenate([outside, inside, face]))
    options = {"tolerance": 1e-13} if solver == "conic" else {}
    for i, x in enumerate([*outside, *inside, *face]):
        weights = getattr(sides, solver)(points, x, **options)
        distance = np.linalg.norm(x - weights @ points)
        if i < len(outside):
            assert distance == pytest.approx(found.distance[i], abs=1e-8)
            assert sides.certificate(points, x, weights)[1] == pytest.approx(0, abs=1e-6)
        else:  # an interior point solver's target is the square of the distance
            assert distance**2 == pytest.approx(found.distance[i] ** 2, abs=1e-12)
