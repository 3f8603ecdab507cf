"""Which families may be exchanged for one another if spread has nothing to do with the gap.

Families that continue from one control share its early training, and those that leave it at the same swap epoch share all of it, so
families are not independent draws. What is exchangeable under the null is the stretch after the swap, among families that continue from the
same state. So values are compared within a **block**, the families of one control and swap epoch, and permutations stay within blocks.

Two things run across blocks and would be counted again and again if every block were shuffled on its own:

- A **line**: the same functions after the swap, under the same control, at several swap epochs. Its families share the functions before and
  after. Lines are exchanged as wholes, at all swap epochs at once, among lines of one control that have the same swap epochs.
- The functions in force at the end, which meet in the blocks of every control. Their own effects on spread and gap are means over few
  functions, however many families there are, so they are taken out of both before ranks are taken.

A family with no other to exchange it for says nothing here: controls, which are blocks of one, and lines that are alone with their swap
epochs. Where too few exchanges are left, as in draws of whole recipes, each of which has a control of its own, families are averaged over
each control and the controls, which share nothing, are exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations as all_orders
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics import permutations
from analysis.wording import BETWEEN, WITHIN, counted

# With fewer exchanges no order of the families reaches p = 0.05 with room to spare (two-sided).
MIN_EXCHANGES = 100
# Smaller than this share of what the blocks leave is rounding.
NOTHING = 1e-9
Place = tuple[str, int]  # a control and a swap epoch


@dataclass(frozen=True)
class Design:
    """What is compared (items), and how it may be exchanged. An item is a family, or with scheme `BETWEEN` a control."""

    scheme: str
    members: np.ndarray  # [item, family] share of each family in the item; a row adds up to 1
    blocks: np.ndarray  # [item] items are compared within their block
    lines: np.ndarray  # [item] items that are exchanged together
    functions: np.ndarray  # [item] last activation and loss; one code for all where they are not held fixed
    controls: np.ndarray  # [item] first phase, or with `BETWEEN` the control: what is drawn first in a bootstrap
    classes: tuple[np.ndarray, ...]  # each [line, place]: items whose lines may be exchanged
    family_controls: np.ndarray  # [family] controls by number, families that are left out included
    num_alone: int  # families that no other can be exchanged for
    reason: str = ""  # why nothing can be tested, else empty

    @property
    def num_items(self) -> int:
        return len(self.blocks)

    def items(self, values: np.ndarray) -> np.ndarray:
        """Values `[..., family]` per item `[..., item]`."""
        return values @ self.members.T

    def orders(self, num_permutations: int, generator: np.random.Generator) -> np.ndarray:
        """Orders `[permutation, item]` as `exchanged` gives them: item i gets the value of item orders[i], of its own block always."""
        return exchanged(self.classes, self.num_items, num_permutations, generator)

    def aligner(self, covariates: np.ndarray | None = None, functions: bool = True) -> Aligner:
        """Takes out block means, the last functions' effects unless told not to, and linear effects of covariates `[covariate, item]`."""
        columns = [] if covariates is None else [np.asarray(row, dtype=np.float64) for row in covariates]
        if functions:
            columns += [(self.functions == code).astype(np.float64) for code in np.unique(self.functions)]
        return Aligner(self.blocks, columns)

    @cached_property
    def counts(self) -> dict[str, int]:
        """What was used, for the tables."""
        return {
            "num_families": int((self.members > 0).sum()),
            "num_alone": self.num_alone,
            "num_blocks": len(np.unique(self.blocks)),
            "num_lines": len(np.unique(self.lines)),
            "num_controls": len(np.unique(self.controls)),
        }


class Aligner:
    """The projection of values `[..., item]` onto what block means and given columns `[item]` leave."""

    def __init__(self, blocks: np.ndarray, columns: list[np.ndarray]) -> None:
        _, self._blocks = np.unique(blocks, return_inverse=True)
        self._means = np.zeros((len(blocks), self._blocks.max(initial=-1) + 1))
        self._means[np.arange(len(blocks)), self._blocks] = 1.0
        self._sizes = self._means.sum(axis=0)
        self._basis = np.zeros((len(blocks), 0))
        if columns:
            centred = self._centre(np.stack(columns))
            left, singular, _ = np.linalg.svd(centred.T, full_matrices=False)
            self._basis = left[:, singular > NOTHING * max(1.0, float(np.linalg.norm(columns)))]

    def _centre(self, values: np.ndarray) -> np.ndarray:
        return values - (values @ self._means / self._sizes) @ self._means.T

    def __call__(self, values: np.ndarray) -> np.ndarray:
        centred = self._centre(values)
        return centred - (centred @ self._basis) @ self._basis.T

    @property
    def num_left(self) -> int:
        """Dimensions that are left: what there is to compare."""
        return int(self._means.shape[0] - self._means.shape[1] - self._basis.shape[1])


def exchanged(classes: Sequence[np.ndarray], num_items: int, num_permutations: int, generator: np.random.Generator) -> np.ndarray:
    """Orders `[permutation, item]` in which the rows of each grid `[line, place]` of items change places.

    Where no more than `num_permutations` differ from the order observed, these are all of them, each once, so that
    p = (1 + #{as extreme}) / (1 + len(orders)) has no error of drawing; else `num_permutations` at random.
    """
    if num_exchanges(classes) <= num_permutations + 1:
        every = list(product(*(all_orders(range(len(grid))) for grid in classes)))[1:]  # the first is the order observed
        rows = [np.array([order[index] for order in every], dtype=np.intp).reshape(-1, len(grid)) for index, grid in enumerate(classes)]
    else:
        rows = [permutations(len(grid), num_permutations, generator) for grid in classes]
    orders = np.tile(np.arange(num_items), (len(rows[0]) if rows else 0, 1))
    for grid, order in zip(classes, rows, strict=True):
        orders[:, grid.ravel()] = grid[order].reshape(len(order), -1)
    return orders


def num_exchanges(classes: Sequence[np.ndarray]) -> int:
    """How many orders there are, the one observed among them."""
    return math.prod(math.factorial(len(grid)) for grid in classes)


def design(families: pd.DataFrame) -> Design:
    """The design of families, a row each with trial, control, schedule, swap_epoch, last_activation and last_loss."""
    table = families.reset_index(drop=True)
    within = _within(table)
    if not within.reason:
        return within
    between = _between(table)
    if not between.reason:
        return between
    return within if within.num_items else between


def _within(table: pd.DataFrame) -> Design:
    after = [_after_swap(schedule, epoch) for schedule, epoch in zip(table["schedule"], table["swap_epoch"], strict=True)]
    first = table["schedule"].str.split(" ").str[0]  # the phase that controls of several base recipes have in common
    epochs = table["swap_epoch"].astype("Int64")
    key = pd.DataFrame({"first": first, "control": table["control"], "line": after, "epoch": epochs}).dropna()
    # A schedule that occurs twice under a control, as it does under two settings of the probes, is another line.
    key["line"] = key["line"] + "#" + key.groupby(["control", "line", "epoch"]).cumcount().astype(str)
    key["place"] = list(zip(key["control"], key["epoch"].astype(int), strict=True))
    places: dict[tuple[str, str], list[Place]] = {}
    for of, line, place in sorted(zip(key["first"], key["line"], key["place"], strict=True)):
        places.setdefault((of, line), []).append(place)
    key["places"] = pd.Series([tuple(places[of]) for of in zip(key["first"], key["line"], strict=True)], key.index, dtype=object)
    classes: list[np.ndarray] = []
    chosen: list[int] = []
    blocks: list[int] = []
    lines: list[int] = []
    num_blocks = num_lines = 0
    for (_, found_places), rows in key.groupby(["first", "places"], sort=True):
        columns: tuple[Place, ...] = found_places  # type: ignore[assignment]
        names = sorted(rows["line"].unique())
        if len(names) < 2:
            continue
        where: dict[tuple[str, Place], int] = {
            (line, place): index for index, line, place in zip(rows.index, rows["line"], rows["place"], strict=True)
        }
        start = len(chosen)
        for number, line in enumerate(names):
            for column, place in enumerate(columns):
                chosen.append(where[line, place])
                blocks.append(num_blocks + column)
                lines.append(num_lines + number)
        classes.append(np.arange(start, len(chosen)).reshape(len(names), len(columns)))
        num_blocks, num_lines = num_blocks + len(columns), num_lines + len(names)
    used = table.iloc[chosen]
    members = np.zeros((len(chosen), len(table)))
    members[np.arange(len(chosen)), chosen] = 1.0
    exchanges = num_exchanges(classes)
    found = Design(
        WITHIN,
        members,
        np.array(blocks, dtype=np.intp),
        np.array(lines, dtype=np.intp),
        _codes(used["schedule"].str.split(" ").str[-1].str.split(":", n=1).str[-1]),
        _codes(first.iloc[chosen]),
        tuple(classes),
        _codes(first),
        len(table) - len(chosen),
    )
    reason = ""
    if exchanges < MIN_EXCHANGES:
        sharing = f"{len(chosen)} of {counted(len(table), 'family')} share control and swap epoch with others"
        reason = f"{sharing}: {_too_few(exchanges, 1)}"
    elif found.aligner().num_left < 2:
        reason = f"the last functions set the {len(chosen)} families apart that share control and swap epoch: nothing is left to compare"
    return replace(found, reason=reason)


def _between(table: pd.DataFrame) -> Design:
    codes = _codes(table["control"])
    members = (codes == np.arange(codes.max(initial=-1) + 1)[:, None]).astype(np.float64)
    members /= np.maximum(members.sum(axis=1, keepdims=True), 1.0)
    n = len(members)
    exchanges = math.factorial(n)
    one = np.zeros(n, dtype=np.intp)
    reason = "" if exchanges >= MIN_EXCHANGES else f"{counted(len(table), 'family')} of {counted(n, 'control')}: {_too_few(exchanges, 2)}"
    return Design(BETWEEN, members, one, np.arange(n), one, np.arange(n), (np.arange(n)[:, None],), codes, 0, reason)


def below(p: float, plan: Design, num_layers: int) -> str:
    """Why nothing can be decided where p is this or more for every order that the exchanges of a design make."""
    return f"{counted(num_exchanges(plan.classes), 'exchange')}, {counted(num_layers, 'layer')}: p cannot be below {p:.2g}"


def _too_few(exchanges: int, alike: int) -> str:
    """`alike` is the number of orders that are as extreme as the most extreme one: two where the reverse of an order is one, too."""
    return f"{counted(exchanges, 'exchange')}, fewer than {MIN_EXCHANGES}: p cannot be below {min(1.0, alike / exchanges):.2g}"


def _codes(names: pd.Series) -> np.ndarray:
    return np.unique(names.to_numpy(dtype=str), return_inverse=True)[1]


def _after_swap(schedule: str, swap_epoch: Any) -> str | None:
    """The phases from the first swap on, with epochs counted from it; None for a control."""
    if pd.isna(swap_epoch):
        return None
    phases = [phase.split(":", 1) for phase in schedule.split()[1:]]
    return " ".join(f"+{int(epoch) - int(swap_epoch)}:{functions}" for epoch, functions in phases)
