"""Intervals by a nested bootstrap: controls are drawn with replacement, then lines of families within each, then its replicas.

Each level is drawn as it was made: families of a control share its replicas' early training, so the replicas of a control are drawn
once for all of its families. Pairs of a replica with itself, which a draw with replacement makes, are dropped: their distance of 0 is
no spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from analysis.exchange import NOTHING, Design
from analysis.wording import BETWEEN


@dataclass(frozen=True)
class Levels:
    """A number per family with what it was made of: its value `[family]`, and per replica or pair of replicas `[family, part]`, or None."""

    values: np.ndarray
    parts: np.ndarray | None = None

    def drawn(self, families: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The number of each of `families` [family], replicas drawn `counts` [draw, replica] times: `[draw, family]`."""
        if self.parts is None:
            return np.tile(self.values[families], (len(counts), 1))
        parts = self.parts[families]
        weights = counts
        if parts.shape[1] != counts.shape[1]:  # pairs of replicas, row by row of the upper triangle
            first, second = np.triu_indices(counts.shape[1], 1)
            weights = counts[:, first] * counts[:, second]
        there = np.isfinite(parts)
        total, number = weights @ np.where(there, parts, 0.0).T, weights @ there.T.astype(np.float64)
        return np.where(number > 0, total / np.maximum(number, 1.0), self.values[families])


class Resampling:
    """Bootstrap resamples of the items of a design, with the ranks that each of them has."""

    def __init__(self, design: Design, num_replicas: int, num_bootstrap: int, generator: np.random.Generator) -> None:
        self._design = design
        names = np.unique(design.controls)
        drawn = names[generator.integers(len(names), size=(num_bootstrap, len(names)))]  # [resample, draw]
        sizes = np.array([(design.controls == name).sum() for name in names])
        ends = np.cumsum(sizes[np.searchsorted(names, drawn)], axis=1)
        starts = ends - sizes[np.searchsorted(names, drawn)]
        shape = (num_bootstrap, int(ends[:, -1].max()))
        self._item, self._block = np.full(shape, -1), np.zeros(shape, dtype=np.intp)
        self._draws = []  # per control: resample, slots [draw, slot], places of its items, families, replica counts, family counts
        num_blocks = int(design.blocks.max()) + 1
        for name in names:
            row, place = np.nonzero(drawn == name)
            items = np.flatnonzero(design.controls == name)
            slots = starts[row, place][:, None] + np.arange(len(items))
            chosen = np.tile(items, (len(row), 1))
            for grid in design.classes if design.scheme != BETWEEN else ():
                if grid[0, 0] in items:
                    lines = grid[generator.integers(len(grid), size=(len(row), len(grid)))].reshape(len(row), grid.size)
                    chosen[:, np.searchsorted(items, grid.ravel())] = lines
            families = np.flatnonzero(design.members[items].any(axis=0))
            replicas = generator.multinomial(num_replicas, np.full(num_replicas, 1 / num_replicas), size=len(row)).astype(np.float64)
            num = len(families)
            times = generator.multinomial(num, np.full(num, 1 / num), size=len(row)).astype(np.float64)
            self._item[row[:, None], slots] = chosen
            # In a design between controls all items are of one block; else a control that is drawn twice has two blocks.
            copy = 0 if design.scheme == BETWEEN else place[:, None] * num_blocks
            self._block[row[:, None], slots] = design.blocks[chosen] + copy
            self._draws.append((row, slots, chosen, items, families, replicas, times))
        self._there = self._item >= 0
        self._block[~self._there] = self._block.max() + 1
        self._flat = self._block + (self._block.max() + 1) * np.arange(num_bootstrap)[:, None]
        self._sizes = np.maximum(np.bincount(self._flat.ravel()), 1)
        codes = np.unique(design.functions)
        kinds = design.functions[np.maximum(self._item, 0)][..., None] == codes
        columns = (kinds & self._there[..., None]).astype(np.float64)
        self._columns = np.stack([self._centre(columns[..., code]) for code in range(len(codes))], axis=-1)  # [resample, slot, code]
        self._inverse = np.linalg.pinv(self._columns.transpose(0, 2, 1) @ self._columns, rcond=1e-8, hermitian=True)

    def _centre(self, values: np.ndarray) -> np.ndarray:
        means = np.bincount(self._flat.ravel(), weights=values.ravel(), minlength=len(self._sizes)) / self._sizes
        return np.where(self._there, values - means[self._flat], 0.0)

    def _align(self, values: np.ndarray) -> np.ndarray:
        centred = self._centre(values)
        slopes = self._inverse @ (self._columns.transpose(0, 2, 1) @ centred[..., None])
        return centred - (self._columns @ slopes)[..., 0]

    def ranks(self, level: Levels) -> np.ndarray:
        """Aligned ranks `[resample, slot]` of norm 1 of a number per family, in each resample; NaN where nothing is left of it."""
        values = np.zeros(self._item.shape)
        design = self._design
        for row, slots, chosen, items, families, replicas, times in self._draws:
            found = level.drawn(families, replicas)
            if design.scheme == BETWEEN:
                values[row[:, None], slots] = ((found * times).sum(axis=1) / times.sum(axis=1))[:, None]
            else:
                column = np.searchsorted(families, design.members[items].argmax(axis=1))
                values[row[:, None], slots] = np.take_along_axis(found, column[np.searchsorted(items, chosen)], axis=1)
        left = self._align(values)
        scale = np.abs(level.values - level.values.mean()).max() or 1.0
        ranks = self._align(rankdata(np.where(self._there, np.round(left / scale, 9), np.inf), axis=1))
        size = np.linalg.norm(ranks, axis=1, keepdims=True)
        return np.where(size > NOTHING, ranks / np.maximum(size, NOTHING), np.nan)


def interval(observed: float, drawn: np.ndarray, confidence: float, num_units: int) -> tuple[float, float]:
    """Bias-corrected percentile interval (Efron 1981) of `observed` from bootstrap values `[resample]`; NaN ones are left out.

    The noise of drawn replicas on top of that of the replicas themselves pulls correlations towards 0; the correction shifts them back.
    Percentiles of few independent units lie too close together, as if a normal quantile were taken for Student's and a sum of squares
    divided by n for one divided by n - 1, so they are taken further out by as much (expanded percentiles, Hesterberg 2015).
    """
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(observed) or len(drawn) < 2:
        return np.nan, np.nan
    share = (np.sum(drawn < observed) + np.sum(drawn == observed) / 2) / len(drawn)
    shift = norm.ppf(np.clip(share, 1 / (len(drawn) + 1), len(drawn) / (len(drawn) + 1)))
    reach = np.sqrt(num_units / (num_units - 1)) * student.ppf((1 + confidence) / 2, num_units - 1)
    tails = norm.cdf(2 * shift + np.array([-reach, reach]))
    low, high = np.quantile(drawn, tails)
    return min(float(low), observed), max(float(high), observed)  # few resamples may all lie on one side
