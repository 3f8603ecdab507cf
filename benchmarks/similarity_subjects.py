"""What `similarity_vs_peers.py` times: this project, its peers, loops over the same formula, and float64 references, one process each.

    python benchmarks/similarity_subjects.py CASE SUBJECT FOLDER

Reads the arrays in FOLDER, says whether it can run, then runs once for every line on its standard input. A subject computes similarities
s `[network, network]`, 1 for equal networks; what it leaves out is NaN. Imports are inside the functions, so that a peer that is not
installed is absent and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

K = 10  # neighbours
NUM_PERMUTATIONS = 999
Found = tuple[np.ndarray, float]  # result, CPU seconds for all pairs


class NotBuilt(Exception):
    """This project has no such measure."""


def whole(similarities: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], Found]:
    """A subject that takes all networks at once."""

    def run(X: np.ndarray) -> Found:
        began = time.process_time()
        found = similarities(X)
        return found, time.process_time() - began

    return run


def loop(similarity: Callable[[np.ndarray, np.ndarray], float], every: int = 0) -> Callable[[np.ndarray], Found]:
    """A subject that takes one pair. Its time for all pairs is that of the fastest of a few pairs, times the number of pairs."""

    def run(X: np.ndarray) -> Found:
        num_networks = len(X)
        pairs = [(i, j) for i in range(num_networks) for j in range(i + 1, num_networks)]
        found, seconds = np.full((num_networks, num_networks), np.nan), np.inf
        for i, j in pairs[::every] if every else pairs[:: max(1, len(pairs) // 24 * 8)][:3]:  # among those of every = 8
            began = time.process_time()
            found[i, j] = similarity(X[i], X[j])
            seconds = min(seconds, time.process_time() - began)
        return found, seconds * len(pairs)

    return run


# This project


def ours(name: str) -> Callable[[np.ndarray], Found]:
    def similarities(X: np.ndarray) -> np.ndarray:
        from analysis.measures.similarity import MEASURES

        if name not in MEASURES:
            raise NotBuilt(name)
        return 1 - MEASURES[name].distances(X) ** 2 / 2

    return whole(similarities)


def our_permdisp(D: np.ndarray) -> Found:
    from analysis.permdisp import permdisp

    began = time.process_time()
    found = permdisp(D, groups_of(D), "centroid", NUM_PERMUTATIONS, np.random.default_rng(0), permute="residuals", euclidean=True)
    return np.array([found.f]), time.process_time() - began


# Peers


def pytorch_cka(X: np.ndarray) -> np.ndarray:
    import torch
    from cka import cka_from_features

    features = list(torch.from_numpy(X))
    return cka_from_features(features, features).numpy()


def ckatorch(unbiased: bool) -> Callable[[np.ndarray, np.ndarray], float]:
    def similarity(x: np.ndarray, y: np.ndarray) -> float:
        import torch
        from ckatorch import cka_base

        return float(cka_base(torch.from_numpy(x), torch.from_numpy(y), unbiased=unbiased))

    return similarity


def torch_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Two models whose only layer gives these features, on one batch of all samples."""
    import contextlib
    import io
    import warnings

    import torch
    from torch_cka import CKA

    class Fixed(torch.nn.Module):
        def __init__(self, features: np.ndarray) -> None:
            super().__init__()
            self.features, self.layer = torch.from_numpy(features), torch.nn.Identity()

        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return self.layer(self.features)

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        compared = CKA(Fixed(x), Fixed(y), "x", "y", ["layer"], ["layer"], device="cpu")
        compared.compare(torch.utils.data.DataLoader(torch.zeros(len(x), 1), batch_size=len(x)))
    return float(compared.hsic_matrix[0, 0])


def repsim_cka(estimator: str) -> Callable[[np.ndarray], Found]:
    """Four networks: ten HSIC, of which all networks need N (N + 1) / 2."""

    def run(X: np.ndarray) -> Found:
        import repsim

        num_networks, few = len(X), min(4, len(X))
        found = np.full((num_networks, num_networks), np.nan)
        began = time.process_time()
        found[:few, :few] = repsim.cka(list(X[:few].astype(np.float64)), kernel_type="linear", estimator=estimator)
        seconds = time.process_time() - began
        return found, seconds * num_networks * (num_networks + 1) / (few * (few + 1))

    return run


def rsatoolbox_rdms(X: np.ndarray, method: str) -> Any:
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    return calc_rdm([Dataset(x) for x in X], method=method)


def rsatoolbox_spearman(X: np.ndarray) -> np.ndarray:
    from rsatoolbox.rdm import compare

    rdms = rsatoolbox_rdms(X, "correlation")
    return compare(rdms, rdms, "spearman")


def rsatoolbox_bures(x: np.ndarray, y: np.ndarray) -> float:
    from rsatoolbox.rdm import compare

    return float(compare(*(rsatoolbox_rdms(z[None], "euclidean") for z in (x, y)), "bures")[0, 0])


def scipy_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.linalg import orthogonal_procrustes

    return float(orthogonal_procrustes(centred(x), centred(y))[1])


def dcor_debiased(x: np.ndarray, y: np.ndarray) -> float:
    import dcor

    return float(dcor.u_distance_correlation_sqr(x, y))


def skbio_permdisp(dimensions: int | None) -> Callable[[np.ndarray], Found]:
    """With so many axes of the PCoA; None takes all of them, as this project does."""

    def run(D: np.ndarray) -> Found:
        from skbio import DistanceMatrix
        from skbio.stats.distance import permdisp

        matrix = DistanceMatrix(D, [str(i) for i in range(len(D))])
        axes = dimensions or len(D)
        began = time.process_time()
        found = permdisp(matrix, groups_of(D), None, "centroid", NUM_PERMUTATIONS, dimensions=axes, seed=0, warn_neg_eigval=False)
        return np.array([float(found["test statistic"])]), time.process_time() - began

    return run


# Loops over the same formula


def centred(x: np.ndarray) -> np.ndarray:
    """Centred features of Frobenius norm 1."""
    z = x - x.mean(axis=0)
    return z / np.linalg.norm(z)


def euclidean(x: np.ndarray) -> np.ndarray:
    """Distances between samples; infinite from a sample to itself."""
    squares = (x**2).sum(axis=1)
    D = np.sqrt(np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0))
    np.fill_diagonal(D, np.inf)
    return D


def knn_loop(x: np.ndarray, y: np.ndarray) -> float:
    """As it is mostly written: sort, take k, intersect sets sample by sample."""
    near = [np.argsort(euclidean(z), axis=1)[:, :K] for z in (x, y)]
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(*near, strict=True)]))


def knn_loop_vectorised(x: np.ndarray, y: np.ndarray) -> float:
    marks = []
    for z in (x, y):
        mark = np.zeros((len(z), len(z)), dtype=bool)
        np.put_along_axis(mark, np.argpartition(euclidean(z), K, axis=1)[:, :K], True, axis=1)
        marks.append(mark)
    return float((marks[0] & marks[1]).sum() / (K * len(x)))


def jsd_loop(p: np.ndarray, q: np.ndarray) -> float:
    """SciPy's function, sample by sample."""
    from scipy.spatial.distance import jensenshannon

    return 1 - float(np.mean([jensenshannon(a, b, 2) ** 2 for a, b in zip(p, q, strict=True)]))


def jsd_loop_vectorised(p: np.ndarray, q: np.ndarray) -> float:
    from scipy.spatial.distance import jensenshannon

    return 1 - float(np.mean(jensenshannon(p, q, 2, axis=1) ** 2))


def of_probabilities(run: Callable[[np.ndarray], Found]) -> Callable[[np.ndarray], Found]:
    """A subject that is given probabilities, outside of its time, where this project is given logits."""
    return lambda logits: run(softmax(logits.astype(np.float64)))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


# float64 references, as the formulas are printed


def by_signatures(signature: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], Found]:
    """Cosines between one long vector per network."""

    def similarities(X: np.ndarray) -> np.ndarray:
        rows = np.stack([signature(x.astype(np.float64)).ravel() for x in X])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ rows.T

    return whole(similarities)


def centred_gram(x: np.ndarray) -> np.ndarray:
    z = x - x.mean(axis=0)
    return z @ z.T


def u_centred(A: np.ndarray) -> np.ndarray:
    """Szekely and Rizzo's U-centring of a symmetric matrix with zero diagonal."""
    n = len(A)
    rows = A.sum(axis=0) / (n - 2)
    U = A - rows - rows[:, None] + A.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(U, 0)
    return U


def u_centred_gram(x: np.ndarray) -> np.ndarray:
    K = x @ x.T
    np.fill_diagonal(K, 0)
    return u_centred(K)


def u_centred_distances(x: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return u_centred(cdist(x, x))


def rdm_ranks(x: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = rankdata((1 - np.corrcoef(x))[np.triu_indices(len(x), 1)])
    return ranks - ranks.mean()


def procrustes_reference(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.svd(centred(x.astype(np.float64)).T @ centred(y.astype(np.float64)), compute_uv=False).sum())


def knn_reference(x: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    D = cdist(x, x)
    np.fill_diagonal(D, np.inf)
    marks = np.zeros(D.shape)
    np.put_along_axis(marks, np.argsort(D, axis=1)[:, :K], 1.0, axis=1)
    return marks


def groups_of(D: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(D) // 16), 16).astype(str)


def permdisp_reference(D: np.ndarray) -> Found:
    """F of a one-way analysis of variance over distances to centroids in all axes of a PCoA."""
    from scipy.stats import f_oneway

    n, squares = len(D), D**2
    H = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * H @ squares @ H)
    points, groups = vectors * np.sqrt(np.maximum(values, 0)), groups_of(D)
    clouds = [points[groups == group] for group in np.unique(groups)]
    return np.array([f_oneway(*(np.linalg.norm(c - c.mean(axis=0), axis=1) for c in clouds)).statistic]), 0.0


# case -> the array it reads, and its subjects: name -> (package, function). `reference` is not timed.
CASES: dict[str, tuple[str, dict[str, tuple[str, Callable[[np.ndarray], Found]]]]] = {
    "cka_debiased": (
        "features",
        {
            "ours": ("", ours("cka_debiased")),
            "pytorch-cka": ("pytorch-cka", whole(pytorch_cka)),
            "ckatorch": ("ckatorch", loop(ckatorch(True))),
            "torch-cka": ("torch-cka", loop(torch_cka)),
            "repsim (song)": ("repsim", repsim_cka("song")),
            "reference": ("", by_signatures(u_centred_gram)),
        },
    ),
    "cka": (
        "features",
        {
            "ours": ("", ours("cka")),
            "ckatorch": ("ckatorch", loop(ckatorch(False))),
            "repsim (gretton)": ("repsim", repsim_cka("gretton")),
            "reference": ("", by_signatures(centred_gram)),
        },
    ),
    "procrustes": (
        "features",
        {
            "ours": ("", ours("procrustes")),
            "scipy": ("scipy", loop(scipy_procrustes)),
            "rsatoolbox (bures)": ("rsatoolbox", loop(rsatoolbox_bures)),
            "reference": ("", loop(procrustes_reference, every=8)),
        },
    ),
    "rsa_spearman": (
        "features",
        {
            "ours": ("", ours("rsa_spearman")),
            "rsatoolbox": ("rsatoolbox", whole(rsatoolbox_spearman)),
            "reference": ("", by_signatures(rdm_ranks)),
        },
    ),
    "dcor_debiased": (
        "features",
        {
            "ours": ("", ours("dcor_debiased")),
            "dcor": ("dcor", loop(dcor_debiased)),
            "reference": ("", by_signatures(u_centred_distances)),
        },
    ),
    "mutual_knn": (
        "features",
        {
            "ours": ("", ours("mutual_knn")),
            "loop": ("", loop(knn_loop)),
            "loop, vectorised": ("", loop(knn_loop_vectorised)),
            "reference": ("", by_signatures(knn_reference)),
        },
    ),
    "jsd": (
        "logits",
        {
            "ours": ("", ours("jsd")),
            "loop": ("scipy", of_probabilities(loop(jsd_loop))),
            "loop, vectorised": ("scipy", of_probabilities(loop(jsd_loop_vectorised))),
            "reference": ("scipy", of_probabilities(loop(jsd_loop_vectorised, every=1))),
        },
    ),
    "permdisp": (
        "distances",
        {
            "ours": ("", our_permdisp),
            "scikit-bio": ("scikit-bio", skbio_permdisp(None)),
            "scikit-bio, 10 axes (default)": ("scikit-bio", skbio_permdisp(10)),
            "reference": ("", permdisp_reference),
        },
    ),
}


def main(case: str, subject: str, folder: str) -> None:
    array, subjects = CASES[case]
    package, run = subjects[subject]
    X = np.load(Path(folder) / f"{array}.npy")
    try:
        version = importlib.metadata.version(package) if package else ""
        if subject != "reference":
            run(X if array == "distances" else X[:4, :100])  # imports and compiles
    except NotBuilt:
        print(json.dumps({"absent": "not built"}), flush=True)
        return
    except (ImportError, OSError) as error:
        print(json.dumps({"absent": f"absent: {type(error).__name__}: {error}"}), flush=True)
        return
    print(json.dumps({"version": version}), flush=True)
    for _ in sys.stdin:
        found, seconds = run(X)
        np.save(Path(folder) / f"{case}-{subject}.npy", found)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
