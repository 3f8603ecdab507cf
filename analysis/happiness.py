"""Are the networks of unhappy families more dispersed than those of happy ones, and elsewhere? Distances in, numbers out.

PERMDISP and PERMANOVA with what families share taken out. Where networks lie depends on the control, the swap epoch and the functions at
the end; groups that hold different shares of these are dispersed differently for no other reason. So the means of blocks and of last
functions are taken out of the networks' coordinates (of their Gower matrix, no coordinates are needed) before distances to the centroids of
happy and unhappy are taken, and once more out of these distances, whose ranks are then exchanged within blocks as `exchange.py` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from analysis.exchange import Aligner, Design, below, design
from analysis.permdisp import permdisp
from analysis.ranks import aligned_ranks, associate, permuted_ranks
from analysis.statistics import TIE, percentiles
from analysis.verdict import MIN_FAMILIES
from analysis.wording import counted, told

CONFIDENCE = 0.95
COLUMNS = [
    "measure", "moment", "layer", "rule", "threshold", "dispersion_happy", "dispersion_unhappy", "difference", "difference_low",
    "difference_high", "effect_size", "effect_size_low", "effect_size_high", "f", "aligned_difference", "aligned_difference_low",
    "aligned_difference_high", "rho", "p", "p_adjusted", "p_least", "r2_location", "p_location",
    "p_location_adjusted", "num_families_happy", "num_families_unhappy", "num_networks_happy", "num_networks_unhappy",
    "num_networks_dropped", "num_families_exchanged", "num_controls", "max_replicas", "negative_share", "verdict", "reason", "scheme",
    "estimator", "alpha", "num_permutations", "num_bootstrap", "seed",
]  # fmt: skip

Distances = tuple[np.ndarray, np.ndarray]  # D [network, network], and the family [network] that each is of


def compare(
    layers: Mapping[str, Distances],
    families: pd.DataFrame,
    unhappy: np.ndarray,
    *,
    euclidean: bool = False,
    alpha: float = 0.05,
    num_permutations: int = 999,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Happy against unhappy families, per layer. `families` as in `exchange.design`, `unhappy [family]` a flag.

    `euclidean` says of the distances what it says to `permdisp`. As they are: dispersion_*, mean distance of a group's networks to
    their centroid, bias-adjusted; the difference (unhappy - happy) of the means over families, and the same over their pooled standard
    deviation (Hedges' g), with intervals from a bootstrap of controls, then families; f of the plain PERMDISP over family means.
    Aligned, which is what is tested: aligned_difference, the slope of aligned distance on aligned unhappiness, so the difference
    between an unhappy and a happy family that share everything else, with an interval by errors that are robust over lines; rho, p,
    p_least: their rank correlation, as in `akp.associations`; r2_location, p_location: share of the aligned families' scatter that
    being unhappy explains (partial PERMANOVA). Adjusted over layers by max-T. The verdict is AKP where p_adjusted < alpha and rho > 0,
    anti-AKP where rho < 0, else undecided; no effect is not claimed here. Where rho has another sign than the difference as it is,
    `contradictions` says so.
    """
    rows: dict[str, dict[str, Any]] = {}
    sets: dict[tuple[int, ...], list[str]] = {}
    for layer, (_, of) in layers.items():
        there = np.unique(of)
        counts = int((~unhappy[there]).sum()), int(unhappy[there].sum())
        rows[layer] = {"num_families_happy": counts[0], "num_families_unhappy": counts[1], "verdict": "undecided", "reason": ""}
        if len(there) < MIN_FAMILIES:
            rows[layer]["reason"] = f"{counted(len(there), 'family')}, fewer than {MIN_FAMILIES}"
        elif min(counts) < 2:
            rows[layer]["reason"] = f"{counts[0]} happy and {counted(counts[1], 'unhappy family')}; each needs 2"
        else:
            sets.setdefault(tuple(there), []).append(layer)
    for present, names in sets.items():
        index = np.array(present)
        plan = design(families.iloc[index].reset_index(drop=True))
        flags = unhappy[index].astype(np.float64)
        for layer in names:
            D, owner = layers[layer]
            rows[layer] |= _described(D, np.searchsorted(index, owner), flags, plan, euclidean, num_bootstrap, seed)
        if plan.reason:
            for layer in names:
                rows[layer]["reason"] = plan.reason
            continue
        found = _tested([(layers[name][0], np.searchsorted(index, layers[name][1])) for name in names], flags, plan, num_permutations, seed)
        for layer, row in zip(names, found, strict=True):
            for key in ("p_adjusted", "p_least", "p_location_adjusted"):
                row[key] = min(1.0, row[key] * len(sets))
            rows[layer] |= row
            if row["p_adjusted"] < alpha:
                rows[layer]["verdict"] = "AKP" if row["rho"] > 0 else "anti-AKP"
            elif not np.isfinite(row["p_adjusted"]):
                rows[layer]["reason"] = "what families share leaves nothing to compare"
            elif row["p_least"] >= alpha:
                rows[layer]["reason"] = below(row["p_least"], plan, len(names))
    return rows


def _described(
    D: np.ndarray, owner: np.ndarray, flags: np.ndarray, plan: Design, euclidean: bool, num_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Dispersions of the two groups as they are, and how far they are apart."""
    groups = np.where(flags[owner] > 0, "unhappy", "happy")
    if not D.any():
        return {"reason": "all networks are equal"}
    generator = np.random.default_rng([seed, len(flags), 2])
    plain = permdisp(D, groups, "centroid", 0, generator, owner, permute="residuals", bias_adjust=True, euclidean=euclidean)
    z = np.bincount(owner, weights=plain.z) / np.bincount(owner)
    counts = _counts(plan, num_bootstrap, generator)
    difference, effect = _difference(z, flags, np.ones((1, len(z))))
    drawn, drawn_effect = _difference(z, flags, counts)
    (low, high), (effect_low, effect_high) = percentiles(drawn, CONFIDENCE), percentiles(drawn_effect, CONFIDENCE)
    return {
        "dispersion_happy": plain.dispersions[0],
        "dispersion_unhappy": plain.dispersions[1],
        "difference": float(difference[0]),
        "difference_low": low,
        "difference_high": high,
        "effect_size": float(effect[0]),
        "effect_size_low": effect_low,
        "effect_size_high": effect_high,
        "f": plain.f,
        "num_networks_happy": plain.sizes[0],
        "num_networks_unhappy": plain.sizes[1],
        "negative_share": plain.negative_share,
        "num_families_exchanged": plan.counts["num_families"],
        "num_controls": plan.counts["num_controls"],
        "scheme": plan.scheme,
    }


def _counts(plan: Design, num_bootstrap: int, generator: np.random.Generator) -> np.ndarray:
    """How often each family is drawn `[resample, family]`: controls with replacement, then as many families of each as it has."""
    codes = plan.family_controls
    num = codes.max() + 1
    controls = generator.multinomial(num, np.full(num, 1 / num), size=num_bootstrap)
    counts = np.zeros((num_bootstrap, len(codes)))
    for code in range(num):
        own = np.flatnonzero(codes == code)
        counts[:, own] = generator.multinomial(controls[:, code] * len(own), np.full(len(own), 1 / len(own)))
    return counts


def _difference(z: np.ndarray, flags: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of z over unhappy less that over happy families `[resample]`, and Hedges' g; NaN without a family or where nothing varies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        n = [counts @ (flags == side) for side in (0, 1)]
        means = [counts @ (z * (flags == side)) / n[side] for side in (0, 1)]
        scatter = sum(counts @ (z**2 * (flags == side)) - n[side] * means[side] ** 2 for side in (0, 1))
        freedom = n[0] + n[1] - 2
        difference = means[1] - means[0]
        effect = difference / np.sqrt(np.maximum(scatter, 0) / freedom) * (1 - 3 / (4 * freedom - 1))
    return difference, np.where(np.isfinite(effect), effect, np.nan)


def _tested(layers: list[Distances], flags: np.ndarray, plan: Design, num_permutations: int, seed: int) -> list[dict[str, float]]:
    """The restricted tests of all layers under the same permutations."""
    align = plan.aligner()
    orders = plan.orders(num_permutations, np.random.default_rng([seed, len(flags), 3]))
    label = plan.items(flags)
    y = aligned_ranks(label, align)
    permuted = permuted_ranks(y, align, orders)
    z, scatter = [], []
    for D, owner in layers:
        distance, gram = _aligned_distances(D, owner, flags, plan)
        z.append(distance)
        scatter.append(gram)
    found = associate(np.stack([aligned_ranks(distance, align) for distance in z]), y, permuted, plan.lines, 0.05)
    direction = align(label)
    drawn = np.vstack([direction, align(direction[orders])])
    norms = (drawn**2).sum(axis=1)
    shares = np.stack([np.einsum("pi,pi->p", drawn @ G, drawn) / np.maximum(norms, 1e-300) / np.trace(G) for G in scatter])
    p = (1 + (shares[:, 1:] >= shares[:, :1] - TIE).sum(axis=1)) / (1 + len(orders))
    adjusted = (1 + (shares[:, 1:].max(axis=0) >= shares[:, :1] - TIE).sum(axis=1)) / (1 + len(orders))
    there = norms[0] > TIE
    return [
        dict(
            zip(
                ("aligned_difference", "aligned_difference_low", "aligned_difference_high"),
                _slope(align(z[i]), direction, plan.lines),
                strict=True,
            )
        )
        | {
            "num_permutations": len(orders),
            "rho": float(found.rho[i]),
            "p": float(found.p[i]),
            "p_adjusted": float(found.p_adjusted[i]),
            "p_least": float(found.p_least[i]),
            "r2_location": float(shares[i, 0]) if there else np.nan,
            "p_location": float(p[i]) if there else np.nan,
            "p_location_adjusted": float(adjusted[i]) if there else np.nan,
        }
        for i in range(len(layers))
    ]


def _slope(distance: np.ndarray, direction: np.ndarray, lines: np.ndarray) -> tuple[float, float, float]:
    """Least squares slope of aligned distances on the aligned flag, both `[item]`, with a 95 % interval robust over lines; else NaN."""
    square = float(direction @ direction)
    if square <= TIE:
        return np.nan, np.nan, np.nan
    slope = float(distance @ direction) / square
    parts = np.bincount(lines, weights=direction * (distance - slope * direction))
    error = float(t.ppf((1 + CONFIDENCE) / 2, max(len(parts) - 1, 1)) * np.linalg.norm(parts)) / square
    return slope, slope - error, slope + error


def contradictions(rows: pd.DataFrame) -> list[str]:
    """A sentence per measure on the layers where dispersion as it is and aligned dispersion, which the verdict goes by, differ in sign."""
    lines = []
    for measure, found in rows[rows["difference"] * rows["rho"] < 0].groupby("measure", sort=False):
        layers = "; ".join(
            f"{row['layer']} {'more' if row['difference'] > 0 else 'less'} as they are ({row['difference']:+.3f}), "
            f"{'more' if row['rho'] > 0 else 'less'} aligned ({row['aligned_difference']:+.3f}, rho = {row['rho']:+.2f}, "
            f"p = {row['p_adjusted']:.2g}, {row['verdict']})"
            for row in found.to_dict("records")
        )
        taken_out = told(found["scheme"], "aligned")
        lines.append(
            f"PERMDISP, {measure}: dispersion as it is and aligned ({taken_out} taken out) differ in sign, and the verdict goes by the "
            f"latter. Unhappy families are dispersed: {layers}."
        )
    return lines


def _aligned_distances(D: np.ndarray, owner: np.ndarray, flags: np.ndarray, plan: Design) -> tuple[np.ndarray, np.ndarray]:
    """Per item: mean distance `[item]` of its networks to their group's centroid, and the Gram matrix `[item, item]` of their means, both
    with the means of blocks and last functions taken out of the networks' coordinates."""
    item_of = np.where(plan.members.any(axis=0), plan.members.argmax(axis=0), -1)[owner]
    kept = item_of >= 0
    item_of, owner, squares = item_of[kept], owner[kept], D[np.ix_(kept, kept)] ** 2
    kinds = plan.functions[item_of]
    align = Aligner(plan.blocks[item_of], [(kinds == code).astype(np.float64) for code in np.unique(kinds)])
    gram = align(align(-0.5 * squares).T)
    z = np.empty(len(gram))
    for side in (0, 1):
        own = flags[owner] == side
        inside = gram[np.ix_(own, own)]
        m = len(inside)
        z[own] = np.sqrt(np.maximum(np.diag(inside) - 2 * inside.mean(axis=1) + inside.mean(), 0) * m / max(m - 1, 1))
    mean = (item_of == np.arange(plan.num_items)[:, None]) / np.bincount(item_of, minlength=plan.num_items)[:, None]
    return mean @ z, mean @ gram @ mean.T
