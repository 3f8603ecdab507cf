"""A loss of your own: logits [..., sample, class] and labels [..., sample] in, one value per replica [...] out.

python -m sweep.run --config quick --set "space.losses=[cross_entropy, 'examples.loss:poly']"
"""

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1.0


def poly(logits: Tensor, labels: Tensor) -> Tensor:
    """Poly-1: cross-entropy plus EPSILON (1 - p_y) (Leng et al. 2022, equation 5). Scale: log K + 1 - 1/K at uniform outputs. Nat."""
    log_p_y = F.log_softmax(logits, dim=-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return (EPSILON * (1 - log_p_y.exp()) - log_p_y).mean(-1)
