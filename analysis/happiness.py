"""Are the networks of unhappy families more dispersed than those of happy ones? Tables in, tables out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from analysis import tables
from analysis.akp import CONFIDENCE, MIN_FAMILIES, PRIMARY_MOMENT, PRIMARY_PREDICTOR, divergence_epochs, families
from analysis.measures.similarity import MEASURES, Measure
from analysis.statistics import Permdisp, holm, permdisp
from analysis.storage import Store

# Spectra are taken pair by pair: at most so many pairs times squared features, about 1 s of one core.
MAX_SPECTRAL_WORK = 2e7
COLUMNS = [
    "measure",
    "moment",
    "layer",
    "rule",
    "threshold",
    "dispersion_happy",
    "dispersion_unhappy",
    "difference",
    "difference_low",
    "difference_high",
    "f",
    "p",
    "p_holm",
    "num_families_happy",
    "num_families_unhappy",
    "num_networks_happy",
    "num_networks_unhappy",
    "num_networks_dropped",
    "max_replicas",
    "negative_share",
    "verdict",
    "reason",
    "estimator",
    "alpha",
    "num_permutations",
    "num_bootstrap",
    "seed",
]


def happy_unhappy(
    store: Store,
    gap_table: pd.DataFrame,
    measures: Sequence[str] = tuple(MEASURES),
    *,
    only: Collection[str] | None = None,
    layers: Collection[str] | None = None,
    moments: Collection[str] | None = None,
    alpha: float = 0.05,
    num_permutations: int = 999,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """PERMDISP between the networks of happy and of unhappy families, per measure and layer, at the end of training.

    Happy are the families whose mean gap in accuracy lies at or below the median over families, unhappy those above.
    The dispersion of a group is the mean distance of its networks to their centroid, so it holds the
    differences between families of a group as well as those between replicas. p permutes the labels of whole families;
    p_holm adjusts over the layers of a measure; the interval of the difference (unhappy - happy) resamples families
    within each group, centres kept. The verdict is AKP where p_holm < alpha and the unhappy are more dispersed,
    anti-AKP where less. A row that cannot be decided gives the reason. `layers` and `moments` restrict the rows; without the end
    of training among the moments there are none.
    """
    gap = gap_table.set_index("trial")[PRIMARY_PREDICTOR].dropna()
    trials = [trial for trial in families(store, only)["trial"] if trial in gap.index]
    gap = gap.reindex(trials)
    threshold = float(gap.median()) if len(gap) else np.nan
    rule = f"happy: mean {PRIMARY_PREDICTOR} over replicas at or below {threshold:.4g}, the median over {len(gap)} families; unhappy: above"
    group_of = {str(trial): "happy" if value <= threshold else "unhappy" for trial, value in gap.items()}
    diverged_at = divergence_epochs(store, trials)
    at_end = _layers(store, trials) if moments is None or PRIMARY_MOMENT in moments else []
    rows = []
    for layer in [layer for layer in at_end if layers is None or layer in layers]:
        networks, shapes = _networks(store, trials, layer, diverged_at)
        for name in measures:
            measure = MEASURES[name]
            row = dict.fromkeys(COLUMNS, np.nan) | {
                "measure": name,
                "moment": PRIMARY_MOMENT,
                "layer": layer,
                "rule": rule,
                "threshold": threshold,
                "verdict": "undecided",
                "reason": "",
                "alpha": alpha,
                "num_permutations": num_permutations,
                "num_bootstrap": num_bootstrap,
                "seed": seed,
                "estimator": f"PERMDISP, centroid, {measure.title}; F; p by permuting families",
            }
            rows.append(row | _compare(measure, networks, shapes, group_of, num_permutations, num_bootstrap, seed))
    found = pd.DataFrame(rows, columns=COLUMNS)
    found = found.astype({"p": np.float64, "difference": np.float64})
    found["p_holm"] = found.groupby("measure")["p"].transform(lambda p: holm(p.to_numpy()))
    significant = found["p_holm"] < alpha
    found.loc[found["p_holm"].notna(), "verdict"] = "no effect"
    found.loc[significant & (found["difference"] > 0), "verdict"] = "AKP"
    found.loc[significant & (found["difference"] < 0), "verdict"] = "anti-AKP"
    return found


def _layers(store: Store, trials: Sequence[str]) -> list[str]:
    """The layers recorded at the end of training, in the order of the first family that has any."""
    for trial in trials:
        found = [layer for _, _, layer in tables.read_activations(store, trial, moment=PRIMARY_MOMENT)]
        if found:
            return found
    return []


def _networks(
    store: Store, trials: Sequence[str], layer: str, diverged_at: dict[str, np.ndarray]
) -> tuple[list[tuple[str, np.ndarray]], Counter[tuple[int, ...]]]:
    """The (family, representation) of each network that did not diverge, and how often each shape occurs."""
    networks = []
    for trial in trials:
        for (_, epoch, _), X in tables.read_activations(store, trial, moment=PRIMARY_MOMENT, layer=layer).items():
            networks += [(trial, x) for x, present in zip(X, diverged_at[trial] > epoch, strict=True) if present]
    return networks, Counter(x.shape for _, x in networks)


def _compare(
    measure: Measure,
    networks: list[tuple[str, np.ndarray]],
    shapes: Counter[tuple[int, ...]],
    group_of: dict[str, str],
    num_permutations: int,
    num_bootstrap: int,
    seed: int,
) -> dict[str, object]:
    """The numbers of one row, or the reason why there are none."""
    prepared = [(trial, measure.prepare(x)) for trial, x in networks if x.shape == shapes.most_common(1)[0][0]]
    kept = [(trial, factor) for trial, factor in prepared if factor is not None]
    counts = {group: len({trial for trial, _ in kept if group_of[trial] == group}) for group in ("happy", "unhappy")}
    row: dict[str, object] = {
        "num_families_happy": counts["happy"],
        "num_families_unhappy": counts["unhappy"],
        "num_networks_dropped": len(networks) - len(kept),
    }
    num_families = sum(counts.values())
    if num_families < MIN_FAMILIES:
        return row | {"reason": f"{num_families} families, fewer than {MIN_FAMILIES}"}
    if min(counts.values()) < 2:
        return row | {"reason": f"{counts['happy']} happy and {counts['unhappy']} unhappy families; each needs 2"}
    most = max(Counter(trial for trial, _ in kept).values())
    allowed = most
    if not measure.euclidean:
        width = min(shapes.most_common(1)[0][0])
        allowed = max((r for r in range(1, most + 1) if (num_families * r) ** 2 / 2 * width**2 <= MAX_SPECTRAL_WORK), default=0)
        if allowed < 2:
            return row | {"reason": f"skipped: {num_families} families at {width} features are too many pairs of spectra"}
    taken: Counter[str] = Counter()
    chosen = []
    for trial, factor in kept:
        taken[trial] += 1
        if taken[trial] <= allowed:
            chosen.append((trial, factor))
    units = np.array([trial for trial, _ in chosen])
    groups = np.array([group_of[trial] for trial in units])
    generator = np.random.default_rng(seed)
    result = permdisp(measure.pairwise([factor for _, factor in chosen]), groups, "centroid", num_permutations, generator, units)
    low, high = _difference_interval(result, units, groups, num_bootstrap, generator)
    happy, unhappy = result.dispersions
    return row | {
        "dispersion_happy": happy,
        "dispersion_unhappy": unhappy,
        "difference": unhappy - happy,
        "difference_low": low,
        "difference_high": high,
        "f": result.f,
        "p": result.p,
        "num_networks_happy": result.sizes[0],
        "num_networks_unhappy": result.sizes[1],
        "max_replicas": allowed,
        "negative_share": result.negative_share,
        "reason": "" if np.isfinite(result.p) else "all networks are equal",
    }


def _difference_interval(
    result: Permdisp, units: np.ndarray, groups: np.ndarray, num_bootstrap: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of mean z, unhappy minus happy, whole families resampled within each group."""
    means = {}
    for group in ("happy", "unhappy"):
        _, codes = np.unique(units[groups == group], return_inverse=True)
        sums, sizes = np.bincount(codes, result.z[groups == group]), np.bincount(codes)
        drawn = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=num_bootstrap)
        means[group] = (drawn @ sums) / (drawn @ sizes)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means["unhappy"] - means["happy"], [tail, 1 - tail])
    return float(low), float(high)
