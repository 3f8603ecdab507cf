"""PERMDISP on 512 networks in 32 groups with 999 permutations: the closed form for centroids, beside scikit-bio.

python benchmarks/permdisp_speed.py
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
from skbio import DistanceMatrix
from skbio.stats.distance import permdisp as skbio_permdisp

from analysis.permdisp import permdisp

BAR = 50


def measure(num_networks: int = 512, num_groups: int = 32, num_permutations: int = 999, repeats: int = 3) -> tuple[float, float]:
    """CPU seconds of ours and of scikit-bio's, the least of some repeats; their F agree."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((num_networks, 50))
    D = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1))
    groups = np.repeat(np.arange(num_groups), num_networks // num_groups)
    ours, theirs = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = DistanceMatrix(D)
        for _ in range(repeats):
            start = time.process_time()
            found = permdisp(D, groups, "centroid", num_permutations, generator, permute="residuals", euclidean=True)
            ours.append(time.process_time() - start)
            start = time.process_time()
            other = skbio_permdisp(matrix, groups, test="centroid", permutations=num_permutations, dimensions=num_networks, seed=0)
            theirs.append(time.process_time() - start)
    assert abs(found.f / other["test statistic"] - 1) < 1e-6, (found.f, other["test statistic"])
    return min(ours), min(theirs)


if __name__ == "__main__":
    ours, theirs = measure()
    print(f"permdisp: {ours:.4f} s, scikit-bio {theirs:.3f} s, ratio {theirs / ours:.0f} (bar {BAR})")
    sys.exit(theirs / ours < BAR)
