"""What a certified projection onto a hull costs, beside a conic solver and one nonnegative least squares problem over all points.

    python benchmarks/hull.py [--workloads digits gaussian] [--repeats 3] [--json FILE]

Needs the extra `benchmarks`. All run on one thread and in turns; times are CPU time of the process per query, set-up included. Exit code 1
where a bar is missed: a conic solver's time over ours, and every answer certified to a relative gap of 1e-8.
"""

# ruff: noqa: E402  # the number of threads is read when numpy is imported

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
from scipy import sparse
from scipy.optimize import nnls

from analysis.measures.hull import OUTSIDE, project

MAX_GAP = 1e-8
BARS = {"digits": 100.0, "gaussian": 1000.0}  # conic solver over ours
NUM_QUERIES = {"digits": {"ours": 297, "conic": 10, "nnls": 30}, "gaussian": {"ours": 64, "conic": 1, "nnls": 4}}


def digits() -> tuple[str, np.ndarray, np.ndarray]:
    """1,500 images of 8 x 8 pixels and 297 queries: the digits that come with scikit-learn, or random fields where it is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        generator = np.random.default_rng(0)
        waves = np.cos(np.pi * np.outer(np.arange(8) + 0.5, np.arange(8)) / 8)  # smooth: little power in short waves
        power = 1 / (1 + np.add.outer(np.arange(8), np.arange(8)) ** 2)
        images = np.einsum("xa,nab,yb->nxy", waves, generator.standard_normal((1797, 8, 8)) * power, waves)
        images, said = np.clip(images * 4 + 4, 0, 16).reshape(-1, 64), "random smooth fields (scikit-learn is not installed)"
    else:
        images, said = load_digits().data, "scikit-learn's digits"
        images = images[np.random.default_rng(0).permutation(len(images))]
    return said, images[:1500], images[1500:]


def gaussian() -> tuple[str, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return "N(0, I), queries N(1, I)", generator.standard_normal((50_000, 64)), generator.standard_normal((64, 64)) + 1


def conic(points: np.ndarray, x: np.ndarray, tolerance: float = 1e-8) -> np.ndarray:
    """Weights by Clarabel, an interior point solver, in the form that suits it best: min |s|^2 / 2 with s = x - A^T w."""
    import clarabel

    n, d = points.shape
    objective = sparse.block_diag([sparse.csc_array((n, n)), sparse.eye_array(d)], format="csc")
    constraints = sparse.block_array(
        [[sparse.csc_array(points.T), sparse.eye_array(d)], [np.ones((1, n)), None], [-sparse.eye_array(n), None]], format="csc"
    )
    cones = [clarabel.ZeroConeT(d + 1), clarabel.NonnegativeConeT(n)]
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads = False, 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    target = np.concatenate([x, [1.0], np.zeros(n)])
    solution = clarabel.DefaultSolver(objective, np.zeros(n + d), constraints, target, cones, settings).solve()
    weights = np.maximum(np.array(solution.x)[:n], 0)
    return weights / weights.sum()


def least_squares(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Weights by `scipy.optimize.nnls` over all points at once."""
    c = float(np.linalg.norm(points - x, axis=1).max())
    system = np.concatenate([(points - x).T, np.full((1, len(points)), c)])
    u, _ = nnls(system, np.append(np.zeros(len(x)), c), maxiter=30 * len(points))
    return u / u.sum()


def certificate(points: np.ndarray, x: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Distance and relative gap of any weights."""
    residual = x - weights @ points
    distance = float(np.linalg.norm(residual))
    return distance, float((residual @ (points - x).T).max() / distance**2 + 1)


def measure(name: str, repeats: int) -> dict[str, Any]:
    """All solvers in turns on one workload: milliseconds per query of each repeat, and how good the answers are."""
    said, points, queries = {"digits": digits, "gaussian": gaussian}[name]()
    times: dict[str, list[float]] = {"ours": [], "conic": [], "nnls": []}
    gaps: dict[str, float] = {"conic": 0.0, "nnls": 0.0}
    differences = dict(gaps)
    others: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"conic": conic, "nnls": least_squares}
    for _ in range(repeats):
        asked = queries[: NUM_QUERIES[name]["ours"]]
        start = time.process_time()
        found = project(points, asked, progress=False)
        times["ours"].append((time.process_time() - start) * 1000 / len(asked))
        for solver, solve in others.items():
            num = NUM_QUERIES[name][solver]
            start = time.process_time()
            weights = [solve(points, x) for x in queries[:num]]
            times[solver].append((time.process_time() - start) * 1000 / num)
            for i, w in enumerate(weights):
                distance, gap = certificate(points, queries[i], w)
                gaps[solver] = max(gaps[solver], gap)
                differences[solver] = max(differences[solver], abs(distance - found.distance[i]) / found.distance[i])
    return {
        "workload": name,
        "data": said,
        "num_points": len(points),
        "num_features": points.shape[1],
        "num_queries": NUM_QUERIES[name],
        "times_ms": times,
        "ratio_conic": float(np.median(times["conic"]) / np.median(times["ours"])),
        "ratio_nnls": float(np.median(times["nnls"]) / np.median(times["ours"])),
        "gaps": {"ours": float(found.relative_gap.max()), **gaps},
        "differences": differences,
        "outside": int((found.status == OUTSIDE).sum()),
        "support": float(found.support_size.mean()),
        "rounds": float(found.num_rounds.mean()),
    }


def missed(results: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each bar that is missed."""
    for r in results:
        if r["ratio_conic"] < BARS[r["workload"]]:
            yield f"{r['workload']}: {r['ratio_conic']:.0f} times as fast as the conic solver, the bar is {BARS[r['workload']]:.0f}"
        if not r["gaps"]["ours"] <= MAX_GAP:
            yield f"{r['workload']}: an answer with a relative gap of {r['gaps']['ours']:.1e}, the bar is {MAX_GAP:.0e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(BARS), default=list(BARS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        versions = {package: version(package) for package in ("clarabel", "scipy", "numpy")}
    except ModuleNotFoundError as error:
        print(f"{error.name or error} is not installed: pip install '.[benchmarks]'", file=sys.stderr)
        return 1
    print(", ".join(f"{package} {number}" for package, number in versions.items()) + f", Python {platform.python_version()}")
    results = []
    for name in options.workloads:
        r = measure(name, options.repeats)
        results.append(r)
        print(
            f"\n{name}: {r['num_points']:,} x {r['num_features']}, {r['data']}; {r['outside']} of {r['num_queries']['ours']} outside,",
            end=" ",
        )
        print(f"support {r['support']:.1f} points, {r['rounds']:.1f} rounds; n = {options.repeats}", flush=True)
        print("solver    queries  ms/query, median [least, most]      times ours  largest relative gap  distance off by")
        for solver, label in (("ours", "project"), ("conic", "Clarabel"), ("nnls", "nnls")):
            t, ratio, off = r["times_ms"][solver], r.get(f"ratio_{solver}", 1.0), r["differences"].get(solver, 0.0)
            timed = f"{np.median(t):,.3f} [{min(t):,.3f}, {max(t):,.3f}]"
            print(
                f"{label:8}  {r['num_queries'][solver]:7}  {timed:34}  {ratio:10,.1f}  {r['gaps'][solver]:20.1e}  {off:15.1e}", flush=True
            )
    failed = list(missed(results))
    if options.json:
        options.json.write_text(json.dumps({"versions": versions, "results": results, "missed": failed}, indent=2) + "\n", encoding="utf-8")
    print("\n" + ("\n".join(f"missed: {line}" for line in failed) or "all bars met"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
