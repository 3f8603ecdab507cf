"""Does the distance to the hull explain the generalization gap, beside spread and relative stability? Tables in, tables out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from analysis import tables
from analysis.akp import Comparison, associations
from analysis.hull_tables import PIXELS
from analysis.measures.generalization import PREDICTORS
from analysis.question import Asked
from analysis.ranks import aligned_ranks, associate, permuted_ranks
from analysis.spreads import FAMILY_COLUMNS
from analysis.statistics import holm
from analysis.verdict import MIN_FAMILIES, PRIMARY_MEASURE, PRIMARY_MOMENT

SCORES = {
    "nearest": "mean distance to the hull over that to the nearest training point",
    "scale": "mean distance to the hull over the median distance of training points",
    "outside": "certified fraction outside",
}
STABILITY = "relative_mean"  # R, of the outputs
ESTIMATOR = (
    "correlation of aligned ranks over families of a score and a mean gap; two-sided restricted permutation p of its studentized form, "
    "max-T over layers; bias-corrected expanded percentile bootstrap of controls and lines, 95 %"
)
# What a verdict on spread says of any other score.
STATEMENTS = {"AKP": "grows with the gap", "anti-AKP": "falls with the gap", "no effect": "no effect", "undecided": "undecided"}
_KEPT = [
    "score", "layer", "predictor", "rho", "rho_low", "rho_high", "p", "p_adjusted", "statement", "tau", "rho_all", "num_families",
    "num_controls", "num_lines", "reason", "scheme", "estimator", "num_permutations", "num_bootstrap", "seed",
]  # fmt: skip
_PARTIAL = ["score", "given", "layer", "predictor", "rho", "p", "p_holm", "num_families", "num_controls", "reason", "scheme", "seed"]


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """Scores at the end in the form of the table of spreads. Pixels are left out: all families on the same data have the same."""
    end = table[(table["moment"] == PRIMARY_MOMENT) & (table["layer"] != PIXELS)]
    parts = [
        end[[*FAMILY_COLUMNS, "moment", "epoch", "layer", "num_samples"]].assign(
            measure=score, spread=end[score].astype(np.float64), spread_se=np.nan, width=end["num_points"]
        )
        for score in SCORES
    ]
    return pd.concat(parts, ignore_index=True)


def against_gap(asked: Asked, table: pd.DataFrame) -> pd.DataFrame:
    """`akp.associations` of the scores in place of spreads: aligned ranks under restricted exchange, p by max-T over layers."""
    found = associations(scores(table), asked.gaps, alpha=asked.alpha, num_permutations=asked.num_permutations, seed=asked.seed)
    found["statement"] = found["verdict"].map(STATEMENTS)
    found["estimator"] = ESTIMATOR
    return found.rename(columns={"measure": "score"}).reindex(columns=_KEPT)


def relative_stability(asked: Asked) -> pd.Series | None:
    """R of the outputs at the end per family, mean over replicas and laws of warps; None without the table `stability`."""
    if "stability" not in tables.TABLES or not (here := tables.names(asked.store, "stability")):
        return None
    wanted = ["trial", "moment", "is_output", STABILITY]
    if not set(wanted) <= set(tables.TABLES["stability"].schema.names):
        return None
    rows = tables.read(asked.store, "stability", wanted, only=sorted(set(here) & set(asked.gaps["trial"])))
    return rows[(rows["moment"] == PRIMARY_MOMENT) & rows["is_output"]].groupby("trial")[STABILITY].mean()


def beside(asked: Asked, table: pd.DataFrame) -> pd.DataFrame:
    """What is left of each score's association with the gap where another number is held fixed, and of spread's where the score is.

    Held fixed are the ranks of spread (of the primary measure, in the same layer), R where it was recorded, and all of these. Rows with
    score `spread` hold the distance (`nearest`) fixed. p is from the restricted permutations, p_holm over layers.
    """
    wide = scores(table).pivot_table(index=["trial", "layer"], columns="measure", values="spread").reset_index()
    end = asked.spreads[(asked.spreads["moment"] == PRIMARY_MOMENT) & (asked.spreads["measure"] == PRIMARY_MEASURE)]
    both = end.drop(columns="pairs").merge(wide, on=["trial", "layer"]).merge(asked.gaps, on="trial", suffixes=("", "_gap"))
    others = ["spread"]
    if (stability := relative_stability(asked)) is not None:
        both["stability"] = both["trial"].map(stability)
        others.append("stability")
    pairs: list[tuple[str, tuple[str, ...]]] = []
    for other in others:
        pairs += [(score, (other,)) for score in SCORES] + [(other, ("nearest",))]
    if len(others) > 1:
        pairs += [("nearest", tuple(others))]
    made: dict[tuple[str, ...], Comparison] = {}
    rows = [
        _partial(asked, made, here, score, given, str(layer), predictor)
        for layer, here in both.groupby("layer", sort=False)
        for predictor in PREDICTORS
        if predictor in both
        for score, given in pairs
    ]
    found = pd.DataFrame(rows, columns=_PARTIAL)
    found["p_holm"] = found.groupby(["score", "given", "predictor"])["p"].transform(lambda p: holm(p.to_numpy()))
    estimator = "partial correlation of aligned ranks; two-sided restricted permutation p of its studentized form"
    return found.assign(estimator=estimator, num_permutations=asked.num_permutations)


def _partial(
    asked: Asked,
    made: dict[tuple[str, ...], Comparison],
    here: pd.DataFrame,
    score: str,
    given: tuple[str, ...],
    layer: str,
    predictor: str,
) -> dict[str, Any]:
    kept = here[here[[score, *given, predictor]].notna().all(axis=1)].sort_values("trial", ignore_index=True)
    row: dict[str, Any] = dict.fromkeys(_PARTIAL, np.nan) | {
        "score": score, "given": " + ".join(given), "layer": layer, "predictor": predictor, "num_families": len(kept), "num_controls": 0,
        "reason": "", "scheme": "", "seed": asked.seed,
    }  # fmt: skip
    if len(kept) < MIN_FAMILIES:
        return row | {"reason": f"{len(kept)} families, fewer than {MIN_FAMILIES}"}
    trials = tuple(kept["trial"])
    if trials not in made:
        made[trials] = Comparison(kept, asked.num_permutations, 1, asked.seed)
    plan = made[trials].design
    if plan.reason:
        return row | {"reason": plan.reason, "scheme": plan.scheme}
    items = {name: plan.items(kept[name].to_numpy(np.float64)) for name in (score, *given, predictor)}
    align = plan.aligner(np.stack([rankdata(items[name]) for name in given]))
    y = aligned_ranks(items[predictor], align)
    found = associate(aligned_ranks(items[score], align)[None], y, permuted_ranks(y, align, made[trials].orders), plan.lines, asked.alpha)
    counts = {name: plan.counts[name] for name in ("num_families", "num_controls")}
    reason = "" if np.isfinite(found.rho[0]) else "what is held fixed leaves nothing to compare"
    return row | counts | {"rho": float(found.rho[0]), "p": float(found.p[0]), "scheme": plan.scheme, "reason": reason}
