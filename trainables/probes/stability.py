"""Relative stability to diffeomorphisms (Petrini et al., arXiv 2105.02468): every replica on warped images, and on noisy ones.

Warps tau and noise eta are drawn once, from the option's seed, and serve every network: comparisons between networks are paired. Evaluation
mode at every moment, `init` too, where the authors take batch statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from analysis import tables
from analysis.measures.diffeo import Diffeomorphisms, matched_noise, temperature_range, typical_displacement, typical_temperature
from analysis.measures.stability import ESTIMATORS, normalisers, numerators
from analysis.storage import Store
from trainables.data import Dataset
from trainables.models import record
from trainables.options import Probes, Stability, Warp
from trainables.probes import Look, merge, parse_key
from trainables.probes.activations import probe_set, rows
from trainables.replicas import Replicas
from trainables.schedule import Schedule, digest
from trainables.streams import stream

OUTPUT = "output"  # the layer of the logits where no recorded layer gives them
KINDS = ("diffeo", "noise")
NUM_EXAMPLES = 8  # images in the table `warps`
_PASS_BYTES = 2**30  # features of all replicas held at once; a layer that alone takes more has a pass of its own


def check_stability(config: Stability, image_shape: tuple[int, int, int]) -> None:
    """Refuse warps that are no diffeomorphisms on such images. Raises ValueError."""
    side = _side(image_shape)
    for warp in config.warps:
        most = temperature_range(side, warp.cut)[1]
        if (temperature := _temperature(warp, side)) > most * (1 + 1e-6):
            shown = typical_displacement(temperature, warp.cut, side)
            raise ValueError(
                f"cut {warp.cut} at a displacement of {shown:.3g} px (temperature {temperature:.3g}): on images of {side:g} px fields of "
                f"that cut-off fold beyond {typical_displacement(most, warp.cut, side):.3g} px (temperature {most:.3g})"
            )


def _side(image_shape: tuple[int, int, int]) -> float:
    """The side that displacements are of: the geometric mean of both."""
    _, height, width = image_shape
    return float(height * width) ** 0.5


def _temperature(warp: Warp, side: float) -> float:
    return warp.temperature or typical_temperature(warp.displacement_px or 1.0, warp.cut, side)


def stability_bytes(probes: Probes, num_layers: int, num_classes: int) -> int:
    """Bytes recorded of a replica at a moment: of every image its change in each layer, and in each logit."""
    num_laws = len(probes.stability.warps) if probes.stability is not None else 0
    return num_laws * len(KINDS) * (num_layers + num_classes) * probes.num_samples * 4


@dataclass(frozen=True)
class Warps:
    """The probe images, and what warps and noise make of them."""

    name: str  # of the set: w and 12 hexadecimal digits
    ids: np.ndarray  # [image]
    variants: Tensor  # [image, variant, channel, height, width]: as it is; warped, once per law; with noise, once per law
    cuts: list[int]  # [law]
    temperatures: list[float]
    min_jacobian: Tensor  # [law, image]
    moved: Tensor  # [law, image]

    @property
    def side(self) -> float:
        return _side((0, self.variants.shape[-2], self.variants.shape[-1]))

    def identity(self, law: int) -> dict[str, Any]:
        """What both tables say of a law."""
        temperature, cut = self.temperatures[law], self.cuts[law]
        shown = typical_displacement(temperature, cut, self.side)
        return {"diffeo_set": self.name, "cut": cut, "temperature": temperature, "displacement_px": shown}


@dataclass(frozen=True)
class _Of:
    """What warps are made from: equal by their key."""

    key: str
    data: Dataset = field(compare=False)
    probes: Probes = field(compare=False)


def make_warps(data: Dataset, probes: Probes) -> Warps:
    """The warps and the noise of a data set's probe images: made once in each process, the same in all."""
    assert probes.stability is not None
    return _make(_Of(f"{data.hash}/{probes.num_samples}/{probes.stability.model_dump_json()}", data, probes))


@lru_cache(maxsize=4)
def _make(of: _Of) -> Warps:
    data, config = of.data, of.probes.stability
    assert config is not None
    where = probe_set(data, of.probes)
    images, side = data.test.images[where], _side(data.image_shape)
    temperatures = [_temperature(warp, side) for warp in config.warps]
    warped, noisy, jacobians = [], [], []
    for warp, temperature in zip(config.warps, temperatures, strict=True):
        # One stream per cut-off: at every temperature the same fields, larger or smaller, and everywhere the same direction of noise.
        generator = stream(config.seed, f"tau/{warp.cut}")
        fields = Diffeomorphisms.draw(len(where), warp.cut, temperature, generator, config.mask, config.reject_folded)
        # Gaussian interpolation blurs: what it is compared with is blurred, too.
        still = Diffeomorphisms(torch.zeros_like(fields.coefficients), fields.modes)
        clean = images if config.interpolation == "linear" else still.warp(images, config.interpolation)
        warped.append(fields.warp(images, config.interpolation, compiled=False))  # so few are warped before the compiled code is loaded
        noisy.append(clean + matched_noise(clean, warped[-1], stream(config.seed, "eta")))
        jacobians.append(fields.min_jacobian())
    variants = torch.stack([clean, *warped, *noisy], 1)
    moved = (torch.stack(warped) - clean).flatten(2).norm(dim=2)
    cuts = [warp.cut for warp in config.warps]
    content = {"options": config.model_dump(mode="json", exclude={"pooling", "warps"}), "laws": [cuts, temperatures]}
    name = "w" + digest(content | {"pool": data.pool_hash, "samples": len(where)})
    return Warps(name, data.test.ids[where].numpy(), variants, cuts, temperatures, torch.stack(jacobians), moved)


def write_warps(store: Store, data: Dataset, probes: Probes) -> None:
    """Write the table `warps` of a data set."""
    warps = make_warps(data, probes)
    num_images, num_laws = len(warps.ids), len(warps.cuts)
    pixels = warps.variants.flatten(2).numpy()  # [image, variant, pixel]
    pixels = pixels.astype(np.float32)
    groups = []
    for law in range(num_laws):
        columns: dict[str, Any] = {name: [value] * num_images for name, value in warps.identity(law).items()}
        for name, variant in (("image", 0), ("warped", 1 + law), ("noisy", 1 + num_laws + law)):
            columns[name] = [row if index < NUM_EXAMPLES else None for index, row in enumerate(pixels[:, variant])]
        shape = list(warps.variants.shape[2:])
        columns |= {"sample": warps.ids, "moved": warps.moved[law].numpy(), "shape": [shape] * num_images}
        groups.append(columns | {"min_jacobian": warps.min_jacobian[law].numpy()})
    tables.write(store, "warps", data.name, merge(groups))


class StabilityProbe:
    """The table `stability`. Records by layer: `changes` [law, kind, replica, image]; of the output `squares` [law, kind, replica, image,
    class]; and the terms of the estimators, `numerators` [law, kind, replica, estimator] and `normalisers` [replica, estimator]."""

    table = "stability"

    def __init__(
        self, config: Probes, schedule: Schedule, data: Dataset, layers: list[str], model: nn.Module, device: torch.device
    ) -> None:
        self.config, self.options, self.schedule = config, config.stability, schedule
        self.records: dict[str, Tensor] = {}
        if self.options is None:
            return
        self.warps = make_warps(data, config)
        self.images = self.warps.variants.flatten(0, 1).to(device)  # the variants of an image side by side
        self.widths, self.output = self._look_at_layers(layers, model)

    def _look_at_layers(self, layers: list[str], model: nn.Module) -> tuple[dict[str, int], str]:
        """Features per image of each layer, and which layer is the output."""
        with torch.no_grad():
            found = record(model.eval(), [*layers, ""], self.images[:2].cpu())
        output = next((layer for layer in layers if torch.equal(found[layer], found[""])), OUTPUT)
        known = {layer: found[layer] for layer in layers} | ({} if output in layers else {OUTPUT: found[""]})
        return {layer: self._reduce(values).shape[1] for layer, values in known.items()}, output

    def _reduce(self, values: Tensor) -> Tensor:
        """A layer's output as features `[image, feature]`."""
        assert self.options is not None
        return rows(values, self.options.pooling)

    def look(self, look: Look) -> None:
        if self.options is None or not look.is_recorded(self.config):
            return
        for layer, squares, clean in self._measure(look.training.replicas):
            kept = {"changes": squares.sum(-1), "numerators": numerators(squares), "normalisers": normalisers(clean)}
            if layer == self.output:
                kept["squares"] = squares
            self.records |= {look.key(layer, name): value.cpu().contiguous() for name, value in kept.items()}

    def _measure(self, replicas: Replicas) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Of each layer the squared changes `[law, kind, replica, image, feature]` and clean features `[replica, image, feature]`."""
        for layers in self._passes(4 * len(replicas.seeds) * len(self.images)):
            paths = ["" if layer == OUTPUT else layer for layer in layers]
            stacked = replicas.features(paths, self._reduce, self.images).unflatten(1, self.warps.variants.shape[:2])
            variants = stacked.movedim(2, 0)  # [variant, replica, image, feature]
            for layer, part in zip(layers, variants.split([self.widths[layer] for layer in layers], -1), strict=True):
                clean, changed = part[0], part[1:].unflatten(0, (len(KINDS), -1)).transpose(0, 1)
                yield layer, (changed - clean).square_(), clean

    def _passes(self, bytes_per_feature: int) -> Iterator[list[str]]:
        """The layers in turn, as many at once as memory allows."""
        layers: list[str] = []
        for layer in self.widths:
            if layers and sum(self.widths[other] for other in [*layers, layer]) * bytes_per_feature > _PASS_BYTES:
                yield layers
                layers = []
            layers = [*layers, layer]
        yield layers

    def row_groups(self, trial: str) -> list[dict[str, Any]]:
        looks = dict.fromkeys(key.rsplit("/", 2)[0] for key in sorted(self.records))
        groups = [self._group(trial, look, layer, law) for look in looks for layer in self.widths for law in range(len(self.warps.cuts))]
        return merge(groups)

    def _group(self, trial: str, look: str, layer: str, law: int) -> dict[str, Any]:
        assert self.options is not None
        epoch, moment, _ = parse_key(look)
        record = {name: self.records.get(f"{look}/{layer}/{name}") for name in ("changes", "numerators", "normalisers", "squares")}
        changes, terms, scale, squares = (None if value is None else value.numpy() for value in record.values())
        assert changes is not None
        assert terms is not None
        assert scale is not None
        num_replicas, num_images = changes.shape[2:]
        same = {
            "trial": trial,
            "schedule": str(self.schedule),
            "moment": moment,
            "epoch": epoch,
            "layer": layer,
            "is_output": layer == self.output,
            "pooling": self.options.pooling,
            "num_images": num_images,
            "num_folded": int((self.warps.min_jacobian[law] <= 0).sum()),
            **self.warps.identity(law),
        }
        columns: dict[str, Any] = {name: [value] * num_replicas for name, value in same.items()}
        columns["replica"] = np.arange(num_replicas)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.where(scale != 0, terms[law] / scale, np.nan)  # [kind, replica, estimator]
            relative = np.where(scaled[1] != 0, scaled[0] / scaled[1], np.nan)
        for index, estimator in enumerate(ESTIMATORS):
            for name, values in (("diffeo", scaled[0]), ("noise", scaled[1]), ("relative", relative), ("normaliser", scale)):
                columns[f"{name}_{estimator}"] = values[:, index]
        for index, kind in enumerate(KINDS):
            columns[f"{kind}_changes"] = tables.list_array(changes[law, index])
            lists = [None] * num_replicas if squares is None else list(squares[law, index].reshape(num_replicas, -1))
            columns[f"{kind}_squares"] = pa.array(lists, pa.list_(pa.float32()))
        return columns
