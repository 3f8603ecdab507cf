"""Stitching: the lower part of one replica and the upper part of another, both frozen, with a trained affine map between.

If two replicas represent the same things, an affine map of one's features serves the other's upper part as well as its own do. The map
acts on channels (a 1x1 convolution) or on features. It starts as the least-squares fit of the upper replica's own features on training
images, which makes a replica stitched to itself equal to itself, and is then trained on cross-entropy by Adam, without augmentation.
"""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from analysis.registry import UnknownName
from trainables.activations import ACTIVATIONS, swap_activation
from trainables.models import default_layers
from trainables.options import Stitching
from trainables.parts import LowerParts, image_shape_of, parts_behind, parts_of
from trainables.precision import products
from trainables.probes import Look, merge, parse_key
from trainables.schedule import Schedule
from trainables.streams import stream
from trainables.training import FamilyTraining

FIT_SIZE, FIT_ROWS = 1024, 8192  # of the least-squares fit, at most: training images, and positions in them
_CHUNK = 256  # images at once
_LEAST_VARIANCE = 1e-8  # directions of features with less than this share of the largest variance are left out of the fit

Pair = tuple[int, int]  # lower and upper replica


def check_stitching(config: Stitching, model: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """The layers after which a network is to be cut. Raises UnknownName for a network or a layer where that is impossible."""
    allowed = list(parts_of(model, image_shape))[:-1]
    for layer in config.layers or []:
        if layer not in allowed:
            near = difflib.get_close_matches(layer, allowed, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownName(f"a network cannot be cut after {layer!r}; {hint}allowed: {', '.join(allowed)}")
    return config.layers or [layer for layer in default_layers(model) if layer in allowed]


def choose_pairs(alive: Sequence[int], config: Stitching) -> list[Pair]:
    """Ordered pairs of different replicas, all or as many as wanted, drawn by the probe's seed."""
    pairs = list(permutations(alive, 2))
    if config.pairs is None or config.pairs >= len(pairs):
        return pairs
    drawn = torch.randperm(len(pairs), generator=stream(config.seed, "stitching/pairs"))[: config.pairs]
    return [pairs[index] for index in drawn.sort().values.tolist()]


def stitch(training: FamilyTraining, layers: list[str], pairs: list[Pair], config: Stitching) -> dict[str, Tensor]:
    """Test accuracy and cross-entropy of every stitched network, by layer `[pair, 2]` in the order of `pairs`."""
    train, test = training.splits["train"], training.splits["test"]
    with products("float32"):
        lower = LowerParts(training.replicas, layers)
        seams = _seams(training, layers, pairs, _rows(lower, train.images, config.seed))
        optimizer = torch.optim.Adam([p for seam in seams for p in (seam.weight, seam.bias)], config.learning_rate) if seams else None
        for step in range(config.steps):
            drawn = torch.randperm(len(train.labels), generator=stream(config.seed, f"stitching/{step}"))[: training.config.batch_size]
            where = drawn.to(training.device)
            features, labels = lower(train.images[where]), train.labels[where]
            for seam in seams:
                logits = seam(features[seam.layer])
                loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="sum") / len(labels)
                seam.weight.grad, seam.bias.grad = torch.autograd.grad(loss, [seam.weight, seam.bias])
            assert optimizer is not None
            optimizer.step()
        found = {layer: torch.zeros(len(pairs), 2, dtype=torch.float64) for layer in layers}
        with torch.no_grad():
            for images, labels in zip(test.images.split(_CHUNK), test.labels.split(_CHUNK), strict=True):
                features = lower(images)
                for seam in seams:
                    found[seam.layer][seam.rows] += _scores(seam(features[seam.layer]), labels).double().cpu() / len(test.labels)
    return found


def _scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Correct predictions and cross-entropy `[network, 2]`, summed over samples, of logits `[network, sample, class]`."""
    right = (logits.argmax(-1) == labels).sum(1)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none").unflatten(0, logits.shape[:2])
    return torch.stack([right.to(losses.dtype), losses.sum(1)], 1)


def _rows(lower: LowerParts, images: Tensor, seed: int) -> dict[str, Tensor]:
    """Features at some positions of some training images, in float64 `[replica, row, channel]` by layer: what the maps are fitted on."""
    where = torch.randperm(len(images), generator=stream(seed, "stitching/fit"))[:FIT_SIZE]
    chunks, found = where.split(_CHUNK), defaultdict(list)
    for index, chunk in enumerate(chunks):
        for layer, features in lower(images[chunk.to(images.device)]).items():
            rows = features.flatten(3).transpose(2, 3).flatten(1, 2) if features.dim() > 3 else features
            kept = math.ceil(FIT_ROWS * len(chunk) / len(where))
            drawn = torch.randperm(rows.shape[1], generator=stream(seed, f"stitching/{layer}/{index}"))[:kept]
            found[layer].append(rows[:, drawn.to(rows.device)].double())
    return {layer: torch.cat(parts, 1) for layer, parts in found.items()}


class _Seam:
    """All pairs with one upper replica at one layer: their affine maps, `weight [pair, out, in]` and `bias [pair, out]`."""

    def __init__(self, layer: str, upper: nn.Module, state: dict[str, Tensor], lowers: list[int], rows: list[int]) -> None:
        self.layer, self.upper, self.state, self.lowers, self.rows = layer, upper, state, lowers, rows
        self.weight, self.bias = torch.empty(0), torch.empty(0)

    def fit(self, features: Tensor, target: int, inverses: Tensor) -> None:
        """Set the maps to the least-squares fits of the features of replica `target` on those of the lower ones.

        `features` are `[replica, row, feature]`, `inverses` the pseudo-inverses of their scatter matrices `[replica, feature, feature]`.
        """
        means = features.mean(1)
        x, y = (features - means[:, None])[self.lowers], features[target] - means[target]
        weight = (inverses[self.lowers] @ x.transpose(1, 2) @ y).transpose(1, 2)
        bias = means[target] - torch.einsum("poc,pc->po", weight, means[self.lowers])
        self.weight, self.bias = weight.float().requires_grad_(), bias.float().requires_grad_()

    def __call__(self, features: Tensor) -> Tensor:
        """Logits `[pair, sample, class]` from the lower parts' features `[replica, sample, ...]`."""
        x = features[self.lowers]
        y = torch.einsum("poc,pbc...->pbo...", self.weight, x) + self.bias.view(*self.bias.shape[:1], 1, -1, *[1] * (x.dim() - 3))
        # In evaluation mode samples do not see each other, so those of all pairs go through the upper part as one batch.
        logits: Tensor = functional_call(self.upper, self.state, (y.flatten(0, 1),))
        return logits.unflatten(0, y.shape[:2])


def _seams(training: FamilyTraining, layers: list[str], pairs: list[Pair], rows: dict[str, Tensor]) -> list[_Seam]:
    """Every layer's and upper replica's seam, fitted on features of training images `[replica, row, channel]` by layer."""
    replicas, by_upper = training.replicas, defaultdict(list)
    for row, (below, above) in enumerate(pairs):
        by_upper[above].append((below, row))
    model = replicas.build()
    parts = parts_of(model, image_shape_of(training))
    swap_activation(model.to(replicas.device), ACTIVATIONS.resolve(training.phase.activation))
    state = {**replicas.named(replicas.weights), **replicas.buffers}
    used, seams = sorted({replica for pair in pairs for replica in pair}), []
    for layer in layers:
        upper = parts_behind(parts, layer)
        names = [*dict(upper.named_parameters()), *dict(upper.named_buffers())]
        centred = rows[layer] - rows[layer].mean(1, keepdim=True)
        scatter = centred[used].transpose(1, 2) @ centred[used]
        inverses = torch.zeros(len(replicas.seeds), *scatter.shape[1:], dtype=scatter.dtype, device=scatter.device)
        inverses[used] = torch.linalg.pinv(scatter, rtol=_LEAST_VARIANCE, hermitian=True)
        for above, members in by_upper.items():
            seam = _Seam(layer, upper, {n: state[n][above] for n in names}, [m[0] for m in members], [m[1] for m in members])
            seam.fit(rows[layer], above, inverses)
            seams.append(seam)
    return seams


class StitchingProbe:
    """The table `stitching`. Records are `[pair, value]` by layer: lower and upper replica, and the four numbers of the table."""

    table = "stitching"

    def __init__(self, config: Stitching | None, schedule: Schedule) -> None:
        self.config, self.schedule = config, schedule
        self.records: dict[str, Tensor] = {}

    def look(self, look: Look) -> None:
        if self.config is None or look.moment != "end":
            return
        training = look.training
        pairs = choose_pairs([index for index, alive in enumerate(training.alive) if alive], self.config)
        if not pairs:
            return
        test = training.splits["test"]
        layers = check_stitching(self.config, training.replicas.build(), image_shape_of(training))
        own = _scores(training.replicas.forward(test.images), test.labels).double().cpu()[[above for _, above in pairs]] / len(test.labels)
        for layer, found in stitch(training, layers, pairs, self.config).items():
            self.records[look.key(layer)] = torch.cat([torch.tensor(pairs), found, own[:, :1] - found[:, :1], found[:, 1:] - own[:, 1:]], 1)

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        groups = []
        for key, record_ in self.records.items():
            values, total = record_.numpy(), len(record_)
            assert self.config is not None
            groups.append(
                {
                    "trial": [trial] * total,
                    "schedule": [str(self.schedule)] * total,
                    "replica_lower": values[:, 0].astype(int),
                    "replica_upper": values[:, 1].astype(int),
                    "layer": [parse_key(key)[2][0]] * total,
                    **{
                        name: values[:, 2 + index]
                        for index, name in enumerate(("accuracy", "cross_entropy", "penalty_accuracy", "penalty_cross_entropy"))
                    },
                    "steps": [self.config.steps] * total,
                    "seed": [self.config.seed] * total,
                }
            )
        return merge(groups)
