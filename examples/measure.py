"""A measure of distance between networks of your own: a similarity, what is kept of each network for it, and its properties.

python -m sweep.run --config quick --set "analysis.measures=[cka, 'examples.measure:MeanCosine']"
python -m analysis results/quick --measures cka,examples.measure:MeanCosine
"""

import numpy as np

from analysis.measures.measure import Measure, Unfit


class MeanCosine(Measure):
    """s = mean over samples of the cosine between the two networks' features, each centred over samples."""

    name, title, source = "mean_cosine", "distance by the mean cosine of features", "this file"
    spread_title = "1 - mean cosine over samples and pairs"
    metric = euclidean = True  # the root of the mean squared distance between points on spheres, over samples
    isotropic_scaling = translation = True
    orthogonal = invertible_linear = False

    def _factor(self, X: np.ndarray, labels: np.ndarray) -> np.ndarray:
        centred = X - X.mean(0)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        if not (norms > 0).all():
            raise Unfit("a sample lies at the mean of all, where it has no direction")
        return centred / norms

    def _similarities(self, factors: list[np.ndarray]) -> np.ndarray:
        flat = np.stack(factors).reshape(len(factors), -1).astype(np.float64)  # [network, sample x feature]
        return flat @ flat.T / len(factors[0])
