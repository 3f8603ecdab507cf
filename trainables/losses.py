"""Hot-swappable losses: logits and integer labels in, one value per replica out.

Shapes: logits `[..., sample, class]`, labels `[..., sample]`, result `[...]`. Leading axes are replicas, or nothing. Each is a mean
over samples. As all are written for any leading axes, both executors call the same code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.registry import Registry, UnknownName

SMOOTHING, FOCUS = 0.1, 2.0


def _log_likelihood(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    log_p = F.log_softmax(logits, dim=-1)
    return log_p, log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p_y. Scale: log K at uniform outputs, 0 at best. Nat."""
    return -_log_likelihood(logits, labels)[1].mean(-1)


def label_smoothing(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the target 0.9 on the label and 0.1 spread over all classes (Szegedy et al. 2016, section 7).

    Scale: log K at uniform outputs; its least value is the entropy of the target, not 0. Nat.
    """
    log_p, log_p_y = _log_likelihood(logits, labels)
    return -((1 - SMOOTHING) * log_p_y + SMOOTHING * log_p.mean(-1)).mean(-1)


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """−(1 − p_y)² log p_y (Lin et al. 2017, equation 4, gamma 2, no class weights). Scale: (1 − 1/K)² log K at uniform outputs. Nat."""
    log_p_y = _log_likelihood(logits, labels)[1]
    return -((1 - log_p_y.exp()) ** FOCUS * log_p_y).mean(-1)


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over classes of (logit − one-hot)², without softmax. Scale: 1/K at zero logits, 0 at best."""
    target = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return (logits - target).square().mean((-2, -1))


def absolute_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ_k |p_k − one-hot_k| = 2 (1 − p_y) on softmax probabilities (Ghosh et al. 2017). Scale: 2 − 2/K at uniform outputs, 0 at best."""
    return 2 - 2 * _log_likelihood(logits, labels)[1].exp().mean(-1)


def hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the other classes of max(0, 1 − z_y + z_k) (Weston & Watkins 1999). Scale: 1 at equal logits, 0 at best."""
    margin = 1 - logits.gather(-1, labels.unsqueeze(-1)) + logits
    other = 1 - F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return (margin.clamp_min(0) * other).sum(-1).mean(-1) / (logits.shape[-1] - 1)


LOSSES: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry(
    "loss", {f.__name__: f for f in (cross_entropy, label_smoothing, focal, squared_error, absolute_error, hinge)}
)


def check_loss(name: str) -> None:
    """Refuse a name or a user's function that does not give one value per replica. Raises UnknownName."""
    function = LOSSES.resolve(name)
    logits = torch.linspace(-1.0, 1.0, 24).reshape(2, 4, 3).requires_grad_()
    labels = torch.arange(8).reshape(2, 4) % 3
    try:
        together, apart = (
            function(logits, labels),
            torch.stack([function(z, y) for z, y in zip(logits, labels, strict=True)]),
        )
    except Exception as error:
        raise UnknownName(f"loss {name!r} fails on logits [2, 4, 3] and labels [2, 4]: {type(error).__name__}: {error}") from error
    if together.shape != (2,) or not torch.allclose(together, apart):
        raise UnknownName(f"loss {name!r} must map logits [..., sample, class] and labels [..., sample] to one value per replica [...]")
