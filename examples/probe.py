"""A probe of your own: a function of a look at a family that gives numbers of its replicas.

    python -m sweep.run --config quick --set "probes.own=['examples.probe:weights']"

It is called at the moments of `probes.moments` and `probes.epochs`, and fills the table `measurements`. It must not change the networks.
"""

import torch
from torch import Tensor

from trainables.probes import Look


def weights(look: Look) -> dict[str, Tensor]:
    """Of each replica [replica]: the norm of all its weights, and the share of them below a hundredth of the largest."""
    replicas = look.training.replicas
    flat = torch.cat([part.flatten(1) for part in replicas.named(replicas.weights).values()], 1)  # [replica, weight]
    small = flat.abs() < flat.abs().amax(1, keepdim=True) / 100
    return {"norm": flat.norm(dim=1), "share_small": small.double().mean(1)}
