"""Relative stability to diffeomorphisms: D, G and R = D / G (Petrini et al., arXiv 2105.02468), from outputs on images changed and not.

With f an output flattened `[image, output]`, tau x a warped image and x + eta one with noise as large,

    D = <|f(tau x) - f(x)|^2> / <|f(x) - f(z)|^2>,   G = <|f(x + eta) - f(x)|^2> / <|f(x) - f(z)|^2>,   R = D / G.

What < > is differs between authors, by up to 40 % of R, so every number names its estimator:

- `mean`: means over images and over pairs of different images (the authors' follow-up code).
- `median_of_norms`: the median over images of the squared norms, and over pairs of different images. R of the identity map is 1, as by
  `mean`.
- `official`: the paper's code: the median over images of each output's square by itself, then summed over outputs; the normaliser is the
  median over all ordered pairs, an image with itself included, plus 1e-10; of an even number of values the lower middle one. R of the
  identity map is less than 1: some 0.73 on images with a spectrum of 1 / f.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Estimator = Literal["mean", "median_of_norms", "official"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


@dataclass(frozen=True)
class Stability:
    """D, G and R by one estimator, over so many images. NaN where the outputs are not finite or all the same."""

    diffeo: float  # D
    noise: float  # G
    relative: float  # R
    estimator: Estimator
    num_images: int


def squared_changes(clean: Tensor, changed: Tensor) -> Tensor:
    """|f(changed x) - f(x)|^2 of each image `[..., image]`, from outputs `[..., image, output]`: what `of_changes` takes."""
    return (changed - clean).square().sum(-1)


def normaliser(clean: Tensor, estimator: Estimator) -> Tensor:
    """<|f(x) - f(z)|^2> `[...]` of outputs `[..., image, output]`, by the estimator's rule for pairs."""
    _check(estimator)
    num_images = clean.shape[-2]
    if estimator == "mean":  # over pairs of different images: twice the unbiased variance
        return 2 * clean.var(-2, unbiased=True).sum(-1)
    centred = clean - clean.mean(-2, keepdim=True)
    distances = torch.cdist(centred, centred, compute_mode="donot_use_mm_for_euclid_dist").square()
    if estimator == "official":
        return distances.flatten(-2).median(-1).values + 1e-10
    upper = torch.triu_indices(num_images, num_images, 1, device=clean.device)
    return distances[..., upper[0], upper[1]].quantile(0.5, -1)


def numerator(clean: Tensor, changed: Tensor, estimator: Estimator) -> Tensor:
    """<|f(changed x) - f(x)|^2> `[...]` of outputs `[..., image, output]`."""
    _check(estimator)
    if estimator == "official":
        return (changed - clean).square().median(-2).values.sum(-1)
    return of_changes(squared_changes(clean, changed), estimator)


def of_changes(changes: Tensor, estimator: Estimator) -> Tensor:
    """The same from each image's squared change `[..., image]`; `official` needs each output's by itself. Raises ValueError."""
    _check(estimator)
    if estimator == "official":
        raise ValueError("the official estimator takes medians of single outputs: it cannot be had from squared norms")
    return changes.mean(-1) if estimator == "mean" else changes.quantile(0.5, -1)


def stability(clean: Tensor, warped: Tensor, noisy: Tensor, estimator: Estimator) -> Stability:
    """D, G and R of one network's outputs `[image, output]` on images, on warped and on noisy ones."""
    scale = float(normaliser(clean, estimator))
    diffeo, noise = (float(numerator(clean, changed, estimator)) / scale if scale else math.nan for changed in (warped, noisy))
    return Stability(diffeo, noise, diffeo / noise if noise else math.nan, estimator, len(clean))


def _check(estimator: str) -> None:
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}; allowed: {', '.join(ESTIMATORS)}")
