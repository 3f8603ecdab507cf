"""An activation of your own: any elementwise function of a tensor, without parameters.

python -m sweep.run --config quick --set "space.activations=[relu, 'examples.activation:bent']"
"""

import torch
from torch import Tensor


def bent(x: Tensor) -> Tensor:
    """The bent identity: (sqrt(x^2 + 1) - 1) / 2 + x, which never saturates."""
    return (torch.sqrt(x * x + 1) - 1) / 2 + x
