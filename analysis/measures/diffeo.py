"""Maximum-entropy diffeomorphisms of images (Petrini, Favero, Geiger, Wyart, arXiv 2105.02468), many at once.

A field tau on the unit square displaces an image x to (tau x)(s) = x(s - tau(s)). It is zero on the border, and each component is

    tau(u, v) = sum_ij C_ij sin(i pi u) sin(j pi v),   C_ij ~ N(0, T / (i^2 + j^2)) independent, i and j from 1 up to the cut-off c:

the Gaussian of most entropy at a given mean |grad tau|^2, with the temperature T as its scale. The displacement that goes with T is
delta = n / 2 sqrt(pi T ln c) pixels on images of side n. It is nominal: the root mean square over a field is some 0.8 delta.

    generator = torch.Generator().manual_seed(0)
    fields = Diffeomorphisms.draw(len(images), cut=3, temperature=typical_temperature(1.0, 3, 32), generator=generator)
    warped = fields.warp(images)

Beside the authors' code: a field of its own for every image in one call, rectangular images, any device, a generator for the seed, and the
fields that fold, which a temperature in the range makes rare and not impossible, are counted.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Mask = Literal["published", "disc"]
Interpolation = Literal["linear", "gaussian"]
GAUSSIAN_PX = 0.4715  # standard deviation of the authors' Gaussian interpolation
_TAPS = torch.arange(-2, 4)  # beyond three pixels a Gaussian of that width weighs less than 2e-9
_CHUNK_BYTES = 64 * 2**20
_CACHED_VALUES = 2**22  # of a grid's constants; those of larger images are made again
_COMPILED_SIDES = range(2, 2**14)


def temperature_range(size: float, cut: int) -> tuple[float, float]:
    """The temperatures between which fields move pixels and are diffeomorphisms, for images of side `size`.

    T_min = 1 / (pi n^2 ln c) displaces by half a pixel, T_max = 4 / (pi^3 c^2 ln c) by n / (pi c) pixels, where overhangs set in. Where
    c > 2 n / pi the range is empty, and T_min the larger.
    """
    _check_cut(cut)
    return 1 / (math.pi * size**2 * math.log(cut)), 4 / (math.pi**3 * cut**2 * math.log(cut))


def typical_displacement(temperature: float, cut: int, size: float) -> float:
    """delta = n / 2 sqrt(pi T ln c), in pixels."""
    _check_cut(cut)
    return size / 2 * math.sqrt(math.pi * temperature * math.log(cut))


def typical_temperature(displacement_px: float, cut: int, size: float) -> float:
    """T = 4 delta^2 / (pi n^2 ln c), the inverse of `typical_displacement`."""
    _check_cut(cut)
    return 4 * displacement_px**2 / (math.pi * size**2 * math.log(cut))


def modes(cut: int, mask: Mask = "published") -> Tensor:
    """The pairs (i, j) `[mode, 2]` of a cut-off, first by i.

    The authors' code keeps sqrt(i^2 + j^2) < c + 1/2 with i and j at most c (`published`: 6 modes at c = 3), the paper's text
    i^2 + j^2 <= c^2 (`disc`: 4).
    """
    _check_cut(cut)
    if mask not in ("published", "disc"):
        raise ValueError(f"mask is {mask!r}; allowed: published, disc")
    i, j = torch.meshgrid(torch.arange(1, cut + 1), torch.arange(1, cut + 1), indexing="ij")
    squares = i**2 + j**2
    kept = squares.sqrt() < cut + 0.5 if mask == "published" else squares <= cut**2
    return torch.stack([i[kept], j[kept]], 1)


@lru_cache(maxsize=64)
def _law(cut: int, mask: Mask, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The modes, and the standard deviation of their coefficients at T = 1 `[mode]`; kept, as they take longer than a draw."""
    pairs = modes(cut, mask)
    return pairs, (1 / pairs.square().sum(1).to(device, dtype)).sqrt()


def _check_cut(cut: int) -> None:
    if cut != int(cut) or cut < 2:
        raise ValueError(f"cut is {cut}; allowed: whole numbers from 2, as the temperature scale has ln c in it")


@dataclass(frozen=True)
class Diffeomorphisms:
    """A set of fields: coefficients C `[field, 2, mode]` of tau_u (along the width) and tau_v (along the height), and modes `[mode, 2]`.

    On images that are not square the unit square is stretched, so each component displaces in proportion to its side.
    """

    coefficients: Tensor
    modes: Tensor

    @classmethod
    def draw(
        cls,
        num_fields: int,
        cut: int,
        temperature: float | Tensor,
        generator: torch.Generator,
        mask: Mask = "published",
        reject_folded: bool = False,
        beyond_range: bool = False,
    ) -> Diffeomorphisms:
        """Independent fields at a temperature, or at one for each field `[field]`, drawn on the generator's device.

        With `reject_folded`, a field whose Jacobian determinant is not positive everywhere is drawn again. Raises ValueError for a
        temperature that is negative, or above the range of `temperature_range` unless `beyond_range`: then it warns.
        """
        pairs, std = _law(cut, mask, torch.get_default_dtype(), generator.device)
        scale = torch.as_tensor(temperature, dtype=torch.get_default_dtype(), device=generator.device).expand(num_fields)
        highest, most = float(scale.max()) if num_fields else 0.0, temperature_range(1, cut)[1]
        if num_fields and not float(scale.min()) >= 0:
            raise ValueError(f"temperature is {float(scale.min()):g}; allowed: 0 and more")
        if highest > most * (1 + 1e-6):
            found = f"temperature {highest:.4g} is above {most:.4g}, the highest at which fields of cut-off {cut} are diffeomorphisms"
            if not beyond_range or reject_folded:
                raise ValueError(f"{found}; lower it or the cut-off" + ("" if reject_folded else ", or say beyond_range=True"))
            warnings.warn(f"{found}: many fold", stacklevel=2)

        def drawn(temperatures: Tensor) -> Tensor:
            normal = torch.randn(len(temperatures), 2, len(pairs), generator=generator, device=generator.device, dtype=std.dtype)
            return normal * std * temperatures.sqrt()[:, None, None]

        fields = cls(drawn(scale), pairs)
        while reject_folded and (folded := fields.min_jacobian() <= 0).any():
            fields.coefficients[folded] = drawn(scale[folded])
        return fields

    def __len__(self) -> int:
        return len(self.coefficients)

    def _waves(self, size: int, derivative: bool = False) -> Tensor:
        """sin(k pi s), or its derivative by s, of k = 1 ... c at `size` points from 0 to 1, both ends included `[k, point]`."""
        k = torch.arange(1, int(self.modes.max()) + 1).to(self.coefficients)
        angle = math.pi * k[:, None] * torch.linspace(0, 1, size).to(self.coefficients)
        return math.pi * k[:, None] * angle.cos() if derivative else angle.sin()

    def _basis(self, along_width: Tensor, along_height: Tensor) -> Tensor:
        """The modes' products of waves `[mode, height x width]`."""
        i, j = (self.modes - 1).unbind(1)
        return (along_height[j][:, :, None] * along_width[i][:, None, :]).flatten(1)

    def displacement(self, height: int, width: int) -> Tensor:
        """By how many pixels each point is displaced along the width and along the height `[field, 2, height, width]`."""
        fields = self.coefficients @ self._basis(self._waves(width), self._waves(height))
        return fields.unflatten(2, (height, width)) * torch.tensor([width, height]).to(fields)[:, None, None]

    def min_jacobian(self, points: int = 96) -> Tensor:
        """The least determinant of 1 - grad tau over a grid of so many points a side `[field]`. A field folds where it is not positive."""
        waves, slopes = self._waves(points), self._waves(points, derivative=True)
        by_width, by_height = self._basis(slopes, waves), self._basis(waves, slopes)
        found = []
        for some in self.coefficients.split(max(1, _CHUNK_BYTES // (4 * points**2 * 4))):
            (u_u, v_u), (u_v, v_v) = (some @ by_width).unbind(1), (some @ by_height).unbind(1)
            found.append(((1 - u_u) * (1 - v_v) - u_v * v_u).amin(1))
        return torch.cat(found) if found else self.coefficients.new_zeros(0)

    def warp(self, images: Tensor, interpolation: Interpolation = "linear", compiled: bool = True) -> Tensor:
        """Each image displaced by its own field: images `[field, channel, height, width]`, or one image for all fields.

        What would come from outside is read from the border. `linear` interpolates between the four pixels around; `gaussian` weighs all
        pixels by a Gaussian of 0.4715 pixels, and blurs a little: compare with images passed through a field of zeros.

        `linear` on float32 in main memory is `compiled` (`warping.py`), and by torch's grid sampler everywhere else, where gradients are
        wanted, and if told so: loading what is compiled takes half a second, once, in which the grid sampler warps some 100,000 images.
        """
        if interpolation not in ("linear", "gaussian"):
            raise ValueError(f"interpolation is {interpolation!r}; allowed: linear, gaussian")
        if images.dim() != 4 or len(images) not in (1, len(self)):
            raise ValueError(
                f"images of shape {tuple(images.shape)} for {len(self)} fields; allowed: [{len(self)} or 1, channel, height, width]"
            )
        if interpolation == "linear" and compiled and self._can_compile(images):
            return self._warp_compiled(images)
        images = images.expand(len(self), -1, -1, -1)
        if interpolation == "linear":
            return F.grid_sample(images, self._grid(*images.shape[-2:]), "bilinear", "border", align_corners=True)
        share = max(1, _CHUNK_BYTES // (images[0].nbytes * len(_TAPS) ** 2)) if len(images) else 1
        parts = zip(images.split(share), self.coefficients.split(share), strict=True)
        return torch.cat([_gaussian(part, Diffeomorphisms(c, self.modes).displacement(*images.shape[-2:])) for part, c in parts])

    def _can_compile(self, images: Tensor) -> bool:
        plain = all(t.dtype == torch.float32 and t.device.type == "cpu" and not t.requires_grad for t in (images, self.coefficients))
        return plain and all(side in _COMPILED_SIDES for side in images.shape[2:])

    def _warp_compiled(self, images: Tensor) -> Tensor:
        from analysis.measures import warping  # here, as it imports numba

        warped = torch.empty(len(self), *images.shape[1:])
        given = [tensor.contiguous().numpy() for tensor in (images, self.coefficients, self.modes)]
        warping.warp(given[0], given[1], given[2], warped.numpy(), torch.get_num_threads())
        return warped

    def _grid(self, height: int, width: int) -> Tensor:
        """Where each pixel is read, in units of the half sides from the centre `[field, height, width, 2]`: one matrix product for all."""
        num_values = 4 * self.modes.numel() * height * width
        constants = _grid_constants if num_values <= _CACHED_VALUES else _grid_constants.__wrapped__
        pairs = tuple(map(tuple, self.modes.tolist()))
        still, waves = constants(pairs, height, width, self.coefficients.dtype, self.coefficients.device)
        return torch.addmm(still, self.coefficients.flatten(1), waves).view(-1, height, width, 2)


@lru_cache(maxsize=8)
def _grid_constants(
    pairs: tuple[tuple[int, int], ...], height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The grid of no displacement `[height x width x 2]`, and what each coefficient adds to it `[2 x mode, height x width x 2]`."""
    fields = Diffeomorphisms(torch.zeros(0, 2, len(pairs), dtype=dtype, device=device), torch.tensor(pairs, device=device))
    basis = fields._basis(fields._waves(width), fields._waves(height))
    waves = basis.new_zeros(2, *basis.shape, 2)
    for component, side in enumerate((width, height)):
        waves[component, :, :, component] = -2 * side / max(side - 1, 1) * basis
    across, down = (torch.linspace(-1, 1, side).to(basis) for side in (width, height))
    still = torch.stack([across.expand(height, width), down[:, None].expand(height, width)], 2)
    return still.flatten(), waves.flatten(2).flatten(0, 1)


def _gaussian(images: Tensor, displacement: Tensor) -> Tensor:
    """Gaussian interpolation, normalised over the pixels of the image. Weights are products of one per axis."""
    sides, channels = images.shape[-2:], images.shape[1]
    weights, positions = [], []
    for axis, side in enumerate(sides):
        pixel = torch.arange(side).to(displacement).view(-1, 1) if axis == 0 else torch.arange(side).to(displacement)
        read = (pixel - displacement[:, 1 - axis]).clamp(0, side - 1)  # [field, height, width]
        taps = read.floor().long()[..., None] + _TAPS.to(read.device)
        weight = torch.exp(-((taps - read[..., None]) ** 2) / (2 * GAUSSIAN_PX**2)) * ((taps >= 0) & (taps < side))
        weights.append(weight / weight.sum(-1, keepdim=True))
        positions.append(taps.clamp(0, side - 1))
    (w_y, w_x), (y, x) = weights, positions
    where = (y[..., :, None] * sides[1] + x[..., None, :]).flatten(1)  # [field, height x width x tap x tap]
    values = images.flatten(2).gather(2, where[:, None].expand(-1, channels, -1)).view(*images.shape, len(_TAPS), len(_TAPS))
    return torch.einsum("fchwyx,fhwy,fhwx->fchw", values, w_y, w_x)


def matched_noise(images: Tensor, warped: Tensor, generator: torch.Generator) -> Tensor:
    """Isotropic Gaussian noise `[image, ...]`, each as long as its image was moved: |eta| = |tau x - x|, image by image."""
    moved = (warped - images).flatten(1).norm(dim=1)
    noise = torch.randn(images.shape, generator=generator, device=generator.device, dtype=images.dtype).to(images.device)
    return noise * (moved / noise.flatten(1).norm(dim=1)).view(-1, *[1] * (images.dim() - 1))
