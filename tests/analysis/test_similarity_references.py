"""A slow textbook form of every measure, and the libraries that compute the same where they are installed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist, jensenshannon

from analysis.measures.similarity import MEASURES

NUM_SAMPLES = 60
LABELS = np.arange(NUM_SAMPLES) % 3


def centred(X: np.ndarray) -> np.ndarray:
    return X - X.mean(axis=0)


def cka(X: np.ndarray, Y: np.ndarray) -> float:
    """Kornblith et al. 2019 by its definition: HSIC of centred Gram matrices, H K H with H = I - 11^T / n."""
    n = len(X)
    H = np.eye(n) - np.ones((n, n)) / n
    K, L = H @ X @ X.T @ H, H @ Y @ Y.T @ H
    return float(np.sum(K * L) / np.sqrt(np.sum(K * K) * np.sum(L * L)))


def song_hsic(K: np.ndarray, L: np.ndarray) -> float:
    """The unbiased estimator of HSIC in its three terms, diagonals left out (Song et al. 2012)."""
    n, ones = len(K), np.ones(len(K))
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    sums = (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(K @ L) + sums - 2 / (n - 2) * ones @ K @ L @ ones) / (n * (n - 3)))


def cka_debiased(X: np.ndarray, Y: np.ndarray) -> float:
    K, L = X @ X.T, Y @ Y.T
    return song_hsic(K, L) / np.sqrt(song_hsic(K, K) * song_hsic(L, L))


def procrustes(X: np.ndarray, Y: np.ndarray) -> float:
    """From the residual after the best rotation, found explicitly (Schönemann 1966), narrower matrices padded with zeros."""
    width = max(X.shape[1], Y.shape[1])
    X, Y = (np.pad(Z / np.linalg.norm(Z), ((0, 0), (0, width - Z.shape[1]))) for Z in (centred(X), centred(Y)))
    U, _, Vt = np.linalg.svd(Y.T @ X)
    return float(1 - np.linalg.norm(X - Y @ (U @ Vt)) ** 2 / 2)


def bures(X: np.ndarray, Y: np.ndarray) -> float:
    """Normalised Bures similarity of Gram matrices, by matrix roots (Harvey et al. 2023)."""
    grams = [Z @ Z.T for Z in (centred(X), centred(Y))]
    roots = []
    for K in grams:
        values, vectors = np.linalg.eigh(K)
        roots.append(vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T)
    nuclear_norm = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    return float(nuclear_norm / np.sqrt(np.trace(grams[0]) * np.trace(grams[1])))


def canonical_correlations(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Roots of the eigenvalues of Sxx^-1 Sxy Syy^-1 Syx (Hotelling 1936), largest first."""
    X, Y = centred(X), centred(Y)
    product = np.linalg.solve(X.T @ X, X.T @ Y) @ np.linalg.solve(Y.T @ Y, Y.T @ X)
    found = np.sort(np.sqrt(np.maximum(np.real(np.linalg.eigvals(product)), 0)))[::-1]
    return found[: min(X.shape[1], Y.shape[1])]


def leading(X: np.ndarray) -> np.ndarray:
    """The principal components that hold 99 % of the variance."""
    U, sizes, _ = np.linalg.svd(centred(X), full_matrices=False)
    shares = np.cumsum(sizes**2) / np.sum(sizes**2)
    count = next(i for i, share in enumerate(shares) if share >= 0.99) + 1
    return U[:, :count] * sizes[:count]


def pwcca_one_way(X: np.ndarray, Y: np.ndarray) -> float:
    """Morcos et al. 2018: weights from projecting the features of X on its canonical variates."""
    X, Y = centred(X), centred(Y)
    (Qx, _), (Qy, _) = np.linalg.qr(X), np.linalg.qr(Y)
    U, rho, _ = np.linalg.svd(Qx.T @ Qy)
    total = weighted = 0.0
    for i in range(len(rho)):
        variate = Qx @ U[:, i]
        weight = sum(abs(variate @ X[:, j]) for j in range(X.shape[1]))
        total, weighted = total + weight, weighted + weight * rho[i]
    return weighted / total


def rdm(X: np.ndarray) -> np.ndarray:
    return (1 - np.corrcoef(X))[np.triu_indices(len(X), 1)]


def u_centred(D: np.ndarray) -> np.ndarray:
    """Székely and Rizzo 2014, element by element."""
    n = len(D)
    found = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                found[i, j] = D[i, j] - D[i].sum() / (n - 2) - D[:, j].sum() / (n - 2) + D.sum() / ((n - 1) * (n - 2))
    return found


def dcor(X: np.ndarray, Y: np.ndarray) -> float:
    A, B = (u_centred(cdist(Z, Z)) for Z in (X, Y))
    return float((A * B).sum() / np.sqrt((A * A).sum() * (B * B).sum()))


def mutual_knn(X: np.ndarray, Y: np.ndarray) -> float:
    shared = 0
    for i in range(len(X)):
        near = []
        for Z in (X, Y):
            far = np.linalg.norm(Z - Z[i], axis=1)
            far[i] = np.inf
            near.append(set(np.argsort(far, kind="stable")[:10]))
        shared += len(near[0] & near[1])
    return shared / (10 * len(X))


def right(X: np.ndarray) -> np.ndarray:
    return X.argmax(axis=1) == LABELS


def error_consistency(X: np.ndarray, Y: np.ndarray) -> float:
    """Cohen's kappa of the 2 x 2 table of right and wrong."""
    counts = np.array([[np.sum((right(X) == a) & (right(Y) == b)) for b in (0, 1)] for a in (0, 1)]) / NUM_SAMPLES
    expected = float(counts.sum(axis=0) @ counts.sum(axis=1))
    return float((np.trace(counts) - expected) / (1 - expected))


def jsd(X: np.ndarray, Y: np.ndarray) -> float:
    P, Q = (np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True) for Z in (X, Y))
    return float(np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in zip(P, Q, strict=True)]))


SIMILARITIES = {
    "cka": cka,
    "cka_debiased": cka_debiased,
    "cka_angular": cka,
    "procrustes": procrustes,
    "angular_shape": bures,
    "cca_mean": lambda X, Y: canonical_correlations(X, Y).mean(),
    "cca_r2": lambda X, Y: (canonical_correlations(X, Y) ** 2).mean(),
    "svcca": lambda X, Y: canonical_correlations(leading(X), leading(Y)).mean(),
    "pwcca": lambda X, Y: (pwcca_one_way(X, Y) + pwcca_one_way(Y, X)) / 2,
    "rsa_pearson": lambda X, Y: stats.pearsonr(rdm(X), rdm(Y)).statistic,
    "rsa_spearman": lambda X, Y: stats.spearmanr(rdm(X), rdm(Y)).statistic,
    "rsa_cosine": lambda X, Y: rdm(X) @ rdm(Y) / np.sqrt((rdm(X) @ rdm(X)) * (rdm(Y) @ rdm(Y))),
    "dcor_debiased": dcor,
    "mutual_knn": mutual_knn,
    "disagreement": lambda X, Y: 1 - np.mean(X.argmax(axis=1) != Y.argmax(axis=1)),
    "churn": lambda X, Y: 1 - np.mean(right(X) != right(Y)),
    "jsd": lambda X, Y: 1 - jsd(X, Y),
    "error_consistency": error_consistency,
}
ANGLES = {"cka_angular", "angular_shape"}


def similarity(name: str, networks: list[np.ndarray]) -> np.ndarray:
    D = MEASURES[name].distances(networks, LABELS[: len(networks[0])])
    return np.cos(D) if name in ANGLES else 1 - D**2 / 2


def related(widths: tuple[int, int], dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    X, Y = (generator.standard_normal((NUM_SAMPLES, w)) for w in widths)
    shared = min(widths)
    Y[:, :shared] += X[:, :shared]
    return (X + 2).astype(dtype), (Y * np.linspace(0.5, 2, widths[1]) - 1).astype(dtype)


def test_every_measure_has_a_reference():
    assert set(SIMILARITIES) == set(MEASURES)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("widths", [(5, 5), (3, 9), (40, 7), (1, 4), (70, 7)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fast_equals_textbook(name, widths, dtype):
    measure = MEASURES[name]
    if measure.kind == "functional":
        widths = (4, 4)
    if (name.startswith("rsa") and min(widths) < 3) or (name != "svcca" and measure.needs_more_samples_than_features and max(widths) > 59):
        pytest.skip("not defined there")
    X, Y = related(widths, dtype)
    expected = SIMILARITIES[name](X.astype(np.float64), Y.astype(np.float64))
    tolerance = 1e-6 if dtype == np.float32 else 1e-7 if name == "angular_shape" else 1e-10
    assert similarity(name, [X, Y])[0, 1] == pytest.approx(expected, abs=tolerance)


def test_debiased_cka_is_unbiased_over_samples():
    """Few samples of the same two networks say the same as many, where the biased estimator says more."""
    generator = np.random.default_rng(0)
    shared = generator.standard_normal((20000, 20))
    X, Y = (shared @ generator.standard_normal((20, 40)) + 4 * generator.standard_normal((20000, 40)) for _ in range(2))
    whole = similarity("cka", [X, Y])[0, 1]
    parts = {name: np.mean([similarity(name, [X[i : i + 40], Y[i : i + 40]])[0, 1] for i in range(0, 20000, 40)]) for name in
             ("cka", "cka_debiased")}  # fmt: skip
    assert parts["cka_debiased"] == pytest.approx(whole, abs=0.03)
    assert parts["cka"] > whole + 0.15


def test_mean_of_permutations_of_cka():
    """E CKA over permutations of samples is tr K tr L / ((n - 1) |K| |L|), the number to hold a biased value against."""
    X, Y = related((30, 40))
    generator = np.random.default_rng(1)
    drawn = [similarity("cka", [X, Y[generator.permutation(NUM_SAMPLES)]])[0, 1] for _ in range(400)]
    K, L = (centred(Z) @ centred(Z).T for Z in (X, Y))
    expected = np.trace(K) * np.trace(L) / ((NUM_SAMPLES - 1) * np.linalg.norm(K) * np.linalg.norm(L))
    assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / 20)


def peers(name: str):
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}, see docs/measures.md")


def family() -> np.ndarray:
    generator = np.random.default_rng(9)
    shared = generator.standard_normal((NUM_SAMPLES, 16))
    return shared + generator.standard_normal((4, NUM_SAMPLES, 16))


@pytest.mark.parametrize("unbiased", [False, True])
def test_ckatorch_agrees(unbiased):
    torch, ckatorch = peers("torch"), peers("ckatorch.core")
    X = family()
    found = similarity("cka_debiased" if unbiased else "cka", list(X))
    tensors = [torch.from_numpy(x) for x in X]
    expected = [[float(ckatorch.cka_base(x, y, kernel="linear", unbiased=unbiased)) for y in tensors] for x in tensors]
    assert np.abs(found - expected).max() < 1e-10


def test_pytorch_cka_agrees_on_centred_features():
    """Uncentred, it returns 0 for features of mean 10."""
    torch, peer = peers("torch"), peers("cka")
    X = family()
    X -= X.mean(axis=1, keepdims=True)
    tensors = [torch.from_numpy(x.astype(np.float32)) for x in X]
    expected = peer.cka_from_features(tensors, tensors)
    expected = np.asarray(expected[0] if isinstance(expected, tuple) else expected)
    assert np.abs(similarity("cka_debiased", list(X)) - expected).max() < 1e-5


@pytest.mark.parametrize(("name", "method"), [("rsa_pearson", "corr"), ("rsa_cosine", "cosine"), ("rsa_spearman", "spearman")])
def test_rsatoolbox_agrees(name, method):
    rsa, data = peers("rsatoolbox.rdm"), peers("rsatoolbox.data")
    X = family()
    rdms = [rsa.calc_rdm(data.Dataset(x), method="correlation") for x in X]
    expected = [[float(np.squeeze(rsa.compare(a, b, method=method))) for b in rdms] for a in rdms]
    assert np.abs(similarity(name, list(X)) - expected).max() < 1e-10


def test_dcor_agrees():
    peer = peers("dcor")
    X = family()
    expected = [[peer.u_distance_correlation_sqr(x, y) for y in X] for x in X]
    assert np.abs(similarity("dcor_debiased", list(X)) - expected).max() < 1e-10


def test_scikit_bio_finds_euclidean_distances_euclidean():
    """No negative axis in its PCoA, which warns of them, and its centroids give our spread."""
    ordination, distance = peers("skbio.stats.ordination"), peers("skbio.stats.distance")
    from analysis.measures.dispersion import spread

    for name, measure in MEASURES.items():
        if measure.euclidean:
            D = measure.distances(family(), LABELS)
            axes = ordination.pcoa(distance.DistanceMatrix(D), method="eigh").samples.to_numpy()
            squares = ((axes - axes.mean(axis=0)) ** 2).sum(axis=1)
            assert 4 / 3 * squares.mean() == pytest.approx(spread(D).spread, abs=1e-9), name
