"""The Anna Karenina model of similarity between families: are those that generalize well all alike, and the others each like none?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from analysis.exchange import Design, design, exchanged
from analysis.statistics import permutation_p
from analysis.verdict import MIN_FAMILIES
from analysis.wording import WITHIN, counted

COLUMNS = [
    "measure", "moment", "layer", "predictor", "rho_annak", "p_annak", "p_annak_adjusted", "rho_neighbour", "p_neighbour", "num_families",
    "num_families_exchanged", "num_pairs", "reason", "scheme", "estimator", "num_permutations", "seed",
]  # fmt: skip
ESTIMATOR = (
    "Mantel: Spearman over pairs of families of the mean similarity of their networks with the model's, (rank_i + rank_j) / 2N, or "
    "1 - |rank_i - rank_j| / N for nearest neighbours, rank N for the family that generalizes best; two-sided p from permuting families "
)


def annak(
    layers: dict[str, tuple[np.ndarray, np.ndarray]],
    families: pd.DataFrame,
    badly: np.ndarray,
    *,
    num_permutations: int = 999,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """The model test (Finn et al. 2020) per layer, from distances and owners as `happiness.compare` takes them; `badly [family]` is the
    gap. Families are permuted, never pairs: pairs that share a family are not independent (Mantel 1967). They are permuted as
    `exchange.design` allows, so that what families of one control have in common is in every permutation, too."""
    rows: dict[str, dict[str, Any]] = {}
    nulls: dict[tuple[int, ...], dict[str, np.ndarray]] = {}  # of each set of families, by layer: |rho| [permutation]
    for layer, (D, owner) in layers.items():
        there = np.unique(owner)
        plan = design(families.iloc[there].reset_index(drop=True))
        row = rows[layer] = {"num_families": len(there), "num_pairs": len(there) * (len(there) - 1) // 2, "reason": plan.reason}
        if len(there) < MIN_FAMILIES:
            row["reason"] = f"{counted(len(there), 'family')}, fewer than {MIN_FAMILIES}"
        elif np.ptp(badly[there]) == 0:
            row["reason"] = f"the gap is the same in all {len(there)} families"
        if row["reason"]:
            continue
        member = (owner == there[:, None]) / np.bincount(owner, minlength=there.max() + 1)[there][:, None]
        similarity = member @ (1 - D**2 / 2) @ member.T
        orders = _family_orders(plan, num_permutations, np.random.default_rng([seed, len(there), 4]))
        ranks = rankdata(-badly[there])
        n = len(there)
        models = {"annak": (ranks[:, None] + ranks) / (2 * n), "neighbour": 1 - np.abs(ranks[:, None] - ranks) / n}
        for name, model in models.items():
            rho, null = mantel(similarity, model, orders)
            row |= {f"rho_{name}": rho, f"p_{name}": permutation_p(rho, null)}
            if name == "annak":
                nulls.setdefault(tuple(there), {})[layer] = np.abs(null)
        row |= {"num_families_exchanged": plan.counts["num_families"], "scheme": plan.scheme, "estimator": ESTIMATOR + plan.scheme}
        row["num_permutations"] = len(orders)
    for of in nulls.values():  # layers of other families have other permutations, and count as further tests
        most = np.stack(list(of.values())).max(axis=0)
        for layer in of:
            rows[layer]["p_annak_adjusted"] = min(1.0, permutation_p(rows[layer]["rho_annak"], most) * len(nulls))
    return rows


def mantel(similarity: np.ndarray, model: np.ndarray, orders: np.ndarray) -> tuple[float, np.ndarray]:
    """Spearman's rho over pairs of two symmetric matrices `[family, family]`, and with the families of the second in each order."""
    first, second = np.triu_indices(len(model), 1)
    x, y = (_standard(rankdata(matrix[first, second])) for matrix in (similarity, model))
    ranks = np.zeros(model.shape)
    ranks[first, second] = ranks[second, first] = y
    return float(x @ y), np.array([x @ ranks[order[first], order[second]] for order in orders])


def _standard(ranks: np.ndarray) -> np.ndarray:
    centred = ranks - ranks.mean()
    norm = np.linalg.norm(centred)
    return centred / norm if norm > 0 else np.full(len(centred), np.nan)


def _family_orders(plan: Design, num_permutations: int, generator: np.random.Generator) -> np.ndarray:
    """Orders of families `[permutation, family]` from those of items; families that are left out of the design stay where they are."""
    n = plan.members.shape[1]
    if plan.scheme != WITHIN:  # whole controls cannot change places with their families where they have different numbers of them
        sizes = np.bincount(plan.family_controls)
        alike = np.flatnonzero(sizes == np.bincount(sizes).argmax())
        groups = np.stack([np.flatnonzero(plan.family_controls == code) for code in alike])
        return exchanged((groups,), n, num_permutations, generator)
    family = plan.members.argmax(axis=1)
    return exchanged([family[grid] for grid in plan.classes], n, num_permutations, generator)
