"""The Anna Karenina principle: do families that generalize badly differ more inside than families that generalize well?

Tables in, tables out. The primary question is declared before any data are seen: measure cka, moment end, predictor
gap_accuracy. Everything else is exploratory. Random draws are seeded, and the seed is a column of what they produced.
`exchange.py` says which families are compared with which, and `ranks.py` how.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from analysis.bootstrap import Levels, Resampling, interval
from analysis.exchange import Design, below, design
from analysis.measures.generalization import PREDICTORS
from analysis.ranks import aligned_ranks, associate, kendall_within, permuted_ranks
from analysis.spreads import (
    CONFIDENCE,
    FAMILY_COLUMNS,
    at_first_swap,
    calibrated,
    comparable,
    divergence_epochs,
    families,
    is_calibrated,
    spread_title,
    spreads,
)
from analysis.statistics import permutation_p, spearman
from analysis.verdict import BOUND, MIN_FAMILIES, PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR, SECONDARY_PREDICTOR, Verdict, verdict
from analysis.wording import WITHIN, counted, told

__all__ = [
    "BOUND", "CONFIDENCE", "FAMILY_COLUMNS", "MIN_FAMILIES", "PRIMARY_MEASURE", "PRIMARY_MOMENT", "PRIMARY_PREDICTOR",
    "SECONDARY_PREDICTOR", "Verdict", "associations", "at_first_swap", "calibrated", "divergence_epochs", "families", "spreads", "verdict",
]  # fmt: skip

NUMBERS = [
    "rho", "rho_low", "rho_high", "p", "p_adjusted", "p_least", "detectable_rho", "rho_weighted", "p_weighted", "tau", "p_tau",
    "rho_blocks", "p_blocks", "rho_all", "tau_all",
]  # fmt: skip
COUNTS = ["num_families", "num_alone", "num_blocks", "num_lines", "num_controls", "num_dropped", "num_distinct_spreads"]
COLUMNS = [
    "measure", "moment", "epoch", "layer", "predictor", *NUMBERS, "families_needed", *COUNTS, "min_replicas", "max_replicas", "verdict",
    "reason", "is_calibrated", "scheme", "estimator", "alpha", "bound", "num_permutations", "num_bootstrap", "seed",
]  # fmt: skip


class Comparison:
    """One set of families: its design, and what all measures and layers share of its permutations and resamples."""

    def __init__(self, rows: pd.DataFrame, num_permutations: int, num_bootstrap: int, seed: int) -> None:
        self.rows = rows
        self.design: Design = design(rows)
        if self.design.reason:
            return
        self.align = self.design.aligner()
        self.blocks = self.design.aligner(functions=False)
        generator = np.random.default_rng([seed, len(rows)])
        self.orders = self.design.orders(num_permutations, generator)
        self._bootstrap = num_bootstrap, [seed, len(rows), 1]
        self._of: dict[str, tuple[np.ndarray, ...]] = {}

    @cached_property
    def resampling(self) -> Resampling:
        num_bootstrap, seed = self._bootstrap
        return Resampling(self.design, _num_replicas(self.rows), num_bootstrap, np.random.default_rng(seed))

    def predictor(self, name: str) -> tuple[np.ndarray, ...]:
        """Of a predictor: items, aligned ranks, those permuted, the same with the last functions left in, and those resampled."""
        if name not in self._of:
            items = self.design.items(self.rows[name].to_numpy(np.float64))
            ranks, plain = aligned_ranks(items, self.align), aligned_ranks(items, self.blocks)
            self._of[name] = (
                items,
                ranks,
                permuted_ranks(ranks, self.align, self.orders),
                plain,
                permuted_ranks(plain, self.blocks, self.orders),
                self.resampling.ranks(_levels(self.rows, name, f"{name}_values")),
            )
        return self._of[name]


def _num_replicas(rows: pd.DataFrame) -> int:
    if "pairs" not in rows:
        return 1
    num_pairs = max(map(len, rows["pairs"]))
    return round((1 + math.sqrt(1 + 8 * num_pairs)) / 2)


def _levels(rows: pd.DataFrame, column: str, parts: str) -> Levels:
    """A number per family with its parts where the table has them and all families have as many."""
    values = rows[column].to_numpy(np.float64)
    if "pairs" not in rows or parts not in rows or rows[parts].map(len).nunique() != 1 or rows["pairs"].map(len).nunique() != 1:
        return Levels(values)
    return Levels(values, np.stack(rows[parts].tolist()).astype(np.float64))


def associations(
    spread_table: pd.DataFrame,
    gap_table: pd.DataFrame,
    *,
    alpha: float = 0.05,
    num_permutations: int = 9999,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank association over families of spread with each predictor, per measure, moment, layer.

    `gap_table` is that of `generalization.gaps`. What is compared and exchanged with what is decided by how families share training
    (`exchange.design`), never by the numbers, and told in `scheme`. A row has

    - rho: with scheme `WITHIN` the correlation of aligned ranks of families: means of the block (control, swap epoch) and of the last
      activation and loss taken out of both; with `BETWEEN` that of the ranks of controls, each the mean of its families; rho_low and
      rho_high: its 95 % interval from a bootstrap of controls, lines of families (or families), replicas;
    - p from the restricted permutation of a studentized rho, p_adjusted the same over the layers of one (measure, moment, predictor) by
      max-T, p_least the smallest p_adjusted that any order could have; num_permutations those made, which are all there are where these
      are no more than asked for; detectable_rho: what would have been found with 80 % power at alpha over the layers;
    - rho_weighted, p_weighted: families weighted by the precision of their spread (jackknife); tau, p_tau: Kendall's tau-b over pairs of
      one block; rho_blocks, p_blocks: the last functions' own effects left in, which p takes as those of other functions than these;
      rho_all, tau_all: Spearman's and Kendall's over all families, without p, since these are not independent;
    - the verdict at `alpha` on p_adjusted: AKP (rho > 0), anti-AKP (rho < 0), no effect where the interval lies within +-BOUND, else
      undecided, with the reason, and with families_needed to detect BOUND with 80 % power;
    - num_families compared in num_blocks blocks, num_lines lines, num_controls controls; num_alone left out since no other can be
      exchanged for them; num_dropped (spread or predictor NaN, or another number of samples or features than most where spreads are
      not calibrated, see `is_calibrated`).
    """
    spread_table = at_first_swap(spread_table)
    table = spread_table.merge(gap_table, on="trial", how="inner", suffixes=("", "_gap"))
    table["at_epoch"] = table["epoch"].where(table["moment"] == "epoch", -1)
    made: dict[tuple[str, ...], Comparison] = {}
    rows: list[dict[str, Any]] = []
    for (name, moment, at_epoch), group in table.groupby(["measure", "moment", "at_epoch"], sort=False):
        for predictor in (p for p in PREDICTORS if p in gap_table):
            sets: dict[tuple[str, ...], list[tuple[pd.DataFrame, dict[str, Any]]]] = {}
            for layer, here in group.groupby("layer", sort=False):
                usable = comparable(here) & np.isfinite(here["spread"]) & np.isfinite(here[predictor])
                kept = here[usable].sort_values("trial", ignore_index=True)
                row = dict.fromkeys(COLUMNS, np.nan) | {
                    "measure": name,
                    "moment": moment,
                    "epoch": at_epoch if moment == "epoch" else None,
                    "layer": layer,
                    "predictor": predictor,
                    **dict.fromkeys(COUNTS, 0),
                    "num_families": len(kept),
                    "num_dropped": len(here) - len(kept),
                    "num_distinct_spreads": kept["spread"].nunique(),
                    "min_replicas": kept["num_replicas"].min() if len(kept) else 0,
                    "max_replicas": kept["num_replicas"].max() if len(kept) else 0,
                    "verdict": "undecided",
                    "reason": "",
                    "is_calibrated": is_calibrated(here),
                    "scheme": "",
                    "estimator": "",
                    "alpha": alpha,
                    "bound": BOUND,
                    "num_permutations": num_permutations,
                    "num_bootstrap": num_bootstrap,
                    "seed": seed,
                }
                rows.append(row)
                row["estimator"] = _estimator(kept, row)
                row["reason"] = _untestable(kept, here, predictor)
                if not row["reason"]:
                    sets.setdefault(tuple(kept["trial"]), []).append((kept, row))
            for trials, layers in sets.items():
                if trials not in made:
                    made = dict(list(made.items())[-3:])  # what permutations hold is large, and most measures share one set
                    made[trials] = Comparison(layers[0][0], num_permutations, num_bootstrap, seed)
                _compare(made[trials], layers, predictor, len(sets), alpha)
    found = pd.DataFrame(rows, columns=COLUMNS).astype({"epoch": "Int32", "families_needed": "Int64", **dict.fromkeys(NUMBERS, np.float64)})
    return found.astype(dict.fromkeys(COUNTS, np.int64))


def _estimator(kept: pd.DataFrame, row: dict[str, Any]) -> str:
    schemes, of = [row["scheme"]], spread_title(row["measure"], kept)
    return (
        f"correlation of {told(schemes, 'ranked')} of spread ({of}) and mean {row['predictor']}; "
        "two-sided restricted permutation p of its studentized form, max-T over layers; bias-corrected expanded percentile bootstrap of "
        + told(schemes, "resampled")
    )


def _untestable(kept: pd.DataFrame, here: pd.DataFrame, predictor: str) -> str:
    """Why the families `kept` of those `here` cannot be tested, with what most of the others lack; else empty."""
    n = len(kept)
    if n < MIN_FAMILIES:
        lacks = here["reason"][here["reason"] != ""] if "reason" in here else here["trial"][:0]
        why = f": {lacks.mode()[0]}" if len(lacks) else ""
        return f"{counted(n, 'family')}, fewer than {MIN_FAMILIES}{why}"
    for column in ("spread", predictor):
        if kept[column].nunique() == 1:
            return f"{column} is the same in all {n} families"
    return ""


def _compare(
    comparison: Comparison, layers: list[tuple[pd.DataFrame, dict[str, Any]]], predictor: str, num_sets: int, alpha: float
) -> None:
    """Fill the rows of the layers that have their numbers from the same families. Layers of other families count as further tests."""
    plan = comparison.design
    for kept, row in layers:
        row |= {"rho_all": float(spearman(kept["spread"].to_numpy(), kept[predictor].to_numpy())), "scheme": plan.scheme}
        row["estimator"] = _estimator(kept, row)
        row["tau_all"] = float(kendalltau(kept["spread"], kept[predictor]).statistic)
        row |= {"reason": plan.reason} | ({} if plan.reason else plan.counts)
    if plan.reason:
        return
    items, ranks, permuted, plain, permuted_plain, resampled = comparison.predictor(predictor)
    values = plan.items(np.stack([kept["spread"].to_numpy(np.float64) for kept, _ in layers]))
    x = aligned_ranks(values, comparison.align)
    found = associate(x, ranks, permuted, plan.lines, alpha)
    for index, (kept, row) in enumerate(layers):
        rho = float(found.rho[index])
        if not np.isfinite(rho):
            row["reason"] = _nothing(plan, values[index], items, comparison)
            continue
        draws = (comparison.resampling.ranks(_levels(kept, "spread", "pairs")) * resampled).sum(axis=1)
        low, high = interval(rho, draws, CONFIDENCE, plan.counts["num_lines"])
        p, p_adjusted = float(found.p[index]), min(1.0, float(found.p_adjusted[index]) * num_sets)
        row |= {"rho": rho, "rho_low": low, "rho_high": high, "p": p, "p_adjusted": p_adjusted}
        row |= {"p_least": min(1.0, float(found.p_least[index]) * num_sets), "detectable_rho": float(found.detectable[index])}
        row |= {"families_needed": math.ceil(plan.counts["num_families"] * found.needed[index]), "num_permutations": len(permuted)}
        weighted, null = _weighted(x[index], plan.items(kept["spread_se"].to_numpy(np.float64)), values[index], ranks, permuted, comparison)
        row |= {"rho_weighted": weighted, "p_weighted": permutation_p(weighted, null)}
        row["tau"] = float(kendall_within(values[index], items, plan.blocks))
        row["p_tau"] = permutation_p(row["tau"], kendall_within(values[index], items, plan.blocks, comparison.orders))
        x_plain = aligned_ranks(values[index], comparison.blocks)
        row["rho_blocks"] = float(x_plain @ plain)
        row["p_blocks"] = permutation_p(row["rho_blocks"], permuted_plain @ x_plain)
        if p_adjusted < alpha:
            row["verdict"] = "AKP" if rho > 0 else "anti-AKP"
        elif low > -BOUND and high < BOUND:
            row["verdict"] = "no effect"
        elif row["p_least"] >= alpha:
            row["reason"] = below(row["p_least"], plan, len(layers))
        else:
            few = row["families_needed"] > plan.counts["num_families"]
            decide = f"about {row['families_needed']} families would decide" if few else "the estimate lies near it"
            row["reason"] = f"the interval reaches beyond ±{BOUND:g}; {decide}"


def _nothing(plan: Design, values: np.ndarray, items: np.ndarray, comparison: Comparison) -> str:
    """Why alignment leaves nothing of spread or predictor."""
    if plan.scheme != WITHIN:
        return "spread or predictor is the same for all controls"
    blocks = [np.abs(comparison.blocks(row)).max() < 1e-9 * np.ptp(row) for row in (values, items)]
    if any(blocks):
        return f"families that continue from the same state have the same {'spread' if blocks[0] else 'predictor'} here"
    return "the last activation and loss leave nothing to compare"


def _weighted(
    x: np.ndarray, errors: np.ndarray, values: np.ndarray, y: np.ndarray, permuted: np.ndarray, comparison: Comparison
) -> tuple[float, np.ndarray]:
    """Correlation of x with y `[item]` and with y under the null `[permutation]`, weighted by the share of signal in an item's spread."""
    scale = float(np.mean(comparison.align(values) ** 2))
    weights = 1 / (1 + np.nan_to_num(errors, nan=np.sqrt(scale)) ** 2 / scale)
    norms = np.sqrt((permuted**2) @ weights * (weights @ x**2))
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = float((weights * x) @ y / np.sqrt((weights @ x**2) * (weights @ y**2)))
        return rho, np.where(norms > 0, permuted @ (weights * x) / np.where(norms > 0, norms, 1.0), 0.0)
