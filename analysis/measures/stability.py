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

import numpy as np
import torch
from torch import Tensor

Estimator = Literal["mean", "median_of_norms", "official"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
_SORTED_AT_ONCE = 2**25


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


def normalisers(clean: Tensor) -> Tensor:
    """<|f(x) - f(z)|^2> `[..., estimator]` of outputs `[..., image, output]` by each estimator's rule for pairs."""
    # Centred in float64, so that outputs that are all the same have a distance of 0, and what products cancel is small.
    centred = (clean - clean.mean(-2, keepdim=True, dtype=torch.float64)).to(clean.dtype)
    products = centred @ centred.mT
    norms = products.diagonal(dim1=-2, dim2=-1)
    distances = (norms[..., :, None] + norms[..., None, :] - 2 * products).clamp_(min=0)
    num_images = clean.shape[-2]
    upper = torch.triu_indices(num_images, num_images, 1, device=clean.device)
    pairs = ordered(distances[..., upper[0], upper[1]])
    # Of all ordered pairs in order, first come the images with themselves, at 0, then each pair twice.
    middle = (num_images**2 - 1) // 2 - num_images
    found: dict[Estimator, Tensor] = {
        "mean": pairs.mean(-1),
        "median_of_norms": _middle(pairs),
        "official": (pairs[..., middle // 2] if middle >= 0 else 0 * pairs.sum(-1)) + 1e-10,
    }
    return torch.stack([found[estimator] for estimator in ESTIMATORS], -1)


def normaliser(clean: Tensor, estimator: Estimator) -> Tensor:
    """<|f(x) - f(z)|^2> `[...]` of outputs `[..., image, output]`, by the estimator's rule for pairs."""
    _check(estimator)
    return normalisers(clean)[..., ESTIMATORS.index(estimator)]


def numerators(squares: Tensor) -> Tensor:
    """<|f(changed x) - f(x)|^2> `[..., estimator]` by each estimator, from the square of each output's change `[..., image, output]`."""
    changes = squares.sum(-1)
    found: dict[Estimator, Tensor] = {
        "mean": changes.mean(-1),
        "median_of_norms": median(changes),
        "official": ordered(squares.mT)[..., (squares.shape[-2] - 1) // 2].sum(-1),
    }
    return torch.stack([found[estimator] for estimator in ESTIMATORS], -1)


def numerator(clean: Tensor, changed: Tensor, estimator: Estimator) -> Tensor:
    """<|f(changed x) - f(x)|^2> `[...]` of outputs `[..., image, output]`."""
    _check(estimator)
    return numerators((changed - clean).square())[..., ESTIMATORS.index(estimator)]


def of_changes(changes: Tensor, estimator: Estimator) -> Tensor:
    """The same from each image's squared change `[..., image]`; `official` needs each output's by itself. Raises ValueError."""
    _check(estimator)
    if estimator == "official":
        raise ValueError("the official estimator takes medians of single outputs: it cannot be had from squared norms")
    return changes.mean(-1) if estimator == "mean" else median(changes)


def median(values: Tensor) -> Tensor:
    """Over the last axis; of an even number of values the mean of the middle two. NaN where one is."""
    return _middle(ordered(values))


def _middle(in_order: Tensor) -> Tensor:
    num = in_order.shape[-1]
    return (in_order[..., (num - 1) // 2] + in_order[..., num // 2]) / 2


def ordered(values: Tensor) -> Tensor:
    """Values along the last axis from the least to the largest; all NaN where one is."""
    if values.device.type == "cpu":  # NumPy's sort is some twenty times as fast
        found = torch.from_numpy(np.sort(values.numpy(), axis=-1))
    else:  # in parts, as the indices that come with it take twice the memory of float32 values
        rows = values.flatten(0, -2)
        parts = rows.split(max(1, _SORTED_AT_ONCE // values.shape[-1]))
        found = torch.cat([part.sort(-1).values for part in parts]).view(values.shape)
    return torch.where(found[..., -1:].isnan(), torch.nan, found)


def stability(clean: Tensor, warped: Tensor, noisy: Tensor, estimator: Estimator) -> Stability:
    """D, G and R of one network's outputs `[image, output]` on images, on warped and on noisy ones."""
    scale = float(normaliser(clean, estimator))
    diffeo, noise = (float(numerator(clean, changed, estimator)) / scale if scale else math.nan for changed in (warped, noisy))
    return Stability(diffeo, noise, diffeo / noise if noise else math.nan, estimator, len(clean))


def _check(estimator: str) -> None:
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}; allowed: {', '.join(ESTIMATORS)}")
