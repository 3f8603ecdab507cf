"""Can one replica's lower part serve another's upper part, and worse so in families that generalize badly? Tables in, tables out.

The penalty is that of the table `stitching`: how much worse a stitched network is than the replica that its upper part is of, in test
accuracy and in test cross-entropy. It is another way to ask how far apart replicas are, by what their layers can be used for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from analysis import tables
from analysis.akp import CONFIDENCE, FAMILY_COLUMNS, MIN_FAMILIES, PRIMARY_MEASURE, PRIMARY_MOMENT, Comparison, families
from analysis.bootstrap import Levels, interval
from analysis.html import interval as shown_interval
from analysis.html import mean_interval
from analysis.measures.similarity import MEASURES
from analysis.question import Asked, Found
from analysis.ranks import aligned_ranks, associate
from analysis.statistics import holm

PENALTIES = ("penalty_accuracy", "penalty_cross_entropy")
AGAINST = ("gap_accuracy", "test_error", "spread")
COLUMNS = [
    *FAMILY_COLUMNS, "layer", *(f"{name}{end}" for name in PENALTIES for end in ("", "_se", "_low", "_high", "_values")), "num_pairs",
    "num_replicas", "steps", "estimator", "reason",
]  # fmt: skip
ASSOCIATION_COLUMNS = [
    "penalty", "against", "layer", "rho", "rho_low", "rho_high", "p", "p_holm", "num_families", "num_controls", "scheme", "reason",
    "estimator", "alpha", "num_permutations", "num_bootstrap", "seed",
]  # fmt: skip


def stitching(asked: Asked) -> Found:
    """Penalties per family and layer, and their association with the gap, the test error and the spread of the same layer."""
    title = "Stitching"
    if asked.moments is not None and PRIMARY_MOMENT not in asked.moments:
        return Found(title, reason=f"Replicas are stitched at the {PRIMARY_MOMENT}, which is not among the moments analysed.")
    trials = families(asked.store, asked.only)
    here = sorted(set(trials["trial"]) & set(tables.names(asked.store, "stitching")))
    rows = tables.read(asked.store, "stitching", only=here)
    rows = rows if asked.layers is None else rows[rows["layer"].isin(list(asked.layers))]
    if rows.empty:
        which = "No replicas were stitched" if not here else "No network was cut after the layers analysed"
        return Found(title, reason=f"{which} (probes.stitching={{}} does so after every main block).")
    found = penalties(rows, trials)
    related = associations(found, asked)
    return Found(
        title,
        [_penalty_line(found), *_association_lines(related)],
        {"stitching_penalty": found, "stitching_association": related},
        [_by_swap(found), _extremes(found), _related(related)],
    )


def penalties(rows: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """A row per family and layer: the mean of each penalty over the stitched networks, its jackknife error over replicas, a t interval.

    Pairs share replicas, so that a pair is no observation of its own: the error leaves out one replica at a time, with all its pairs.
    `..._values` are the means over both directions of a pair, row by row of the upper triangle of replicas. Below 3 replicas, or where
    leaving one out leaves no pair, there is no error, and the reason says so.
    """
    found = []
    named = {family["trial"]: family for family in trials[[*FAMILY_COLUMNS, "num_replicas"]].to_dict("records")}
    for (trial, layer), group in rows.groupby(["trial", "layer"], sort=False):
        replicas = sorted({*group["replica_lower"], *group["replica_upper"]})
        row: dict[str, Any] = {name: named[trial][name] for name in FAMILY_COLUMNS}
        row |= {"layer": layer, "num_pairs": len(group), "num_replicas": len(replicas), "steps": int(group["steps"].iloc[0]), "reason": ""}
        row["estimator"] = f"mean over ordered pairs of replicas; jackknife over replicas, {CONFIDENCE:.0%} t interval"
        num_replicas = int(named[trial]["num_replicas"])
        for name in PENALTIES:
            matrix = np.full((num_replicas, num_replicas), np.nan)
            matrix[group["replica_lower"], group["replica_upper"]] = group[name].to_numpy(np.float64)
            mean, error = jackknife(matrix[np.ix_(replicas, replicas)])
            half = error * float(student.ppf((1 + CONFIDENCE) / 2, max(len(replicas) - 1, 1)))
            row |= {name: mean, f"{name}_se": error, f"{name}_low": mean - half, f"{name}_high": mean + half}
            row[f"{name}_values"] = _both_directions(matrix)
            if not np.isfinite(error):
                row["reason"] = f"{len(group)} pairs of {len(replicas)} replicas: too few to leave one out"
        found.append(row)
    return pd.DataFrame(found, columns=COLUMNS).astype({"swap_epoch": "Int32"})


def jackknife(matrix: np.ndarray) -> tuple[float, float]:
    """Mean over the pairs of a matrix `[replica, replica]` that are not NaN, and its error by leaving out one replica at a time."""
    there, values = np.isfinite(matrix), np.nan_to_num(matrix)
    m, total, count = len(matrix), values.sum(), there.sum()
    left = count - there.sum(0) - there.sum(1)
    if m < 3 or not left.all():
        return float(total / count) if count else np.nan, np.nan
    means = (total - values.sum(0) - values.sum(1)) / left  # the diagonal is NaN: no pair is counted twice
    return float(total / count), float(np.sqrt((m - 1) / m * ((means - means.mean()) ** 2).sum()))


def _both_directions(matrix: np.ndarray) -> np.ndarray:
    """The mean over both directions of each pair `[pair]`, row by row of the upper triangle; of one where only that was stitched."""
    first, second = np.triu_indices(len(matrix), 1)
    both = np.stack([matrix[first, second], matrix[second, first]])
    there = np.isfinite(both)
    return np.where(there.any(0), np.nan_to_num(both).sum(0) / np.maximum(there.sum(0), 1), np.nan)


def associations(found: pd.DataFrame, asked: Asked, num_bootstrap: int = 1000) -> pd.DataFrame:
    """Per penalty, layer and what it is held against: the correlation of aligned ranks, as `akp.associations` takes it of spread.

    The spread is that of the same layer at the end (measure cka). p is adjusted over layers by Holm.
    """
    spreads = asked.spreads
    spreads = spreads[(spreads["measure"] == PRIMARY_MEASURE) & (spreads["moment"] == PRIMARY_MOMENT)]
    table = found.merge(spreads[["trial", "layer", "spread", "pairs"]].assign(spread_values=spreads["pairs"]), on=["trial", "layer"])
    table = table.merge(asked.gaps, on="trial", suffixes=("", "_gap"))
    rows = []
    for layer in dict.fromkeys(found["layer"]):
        here = table[table["layer"] == layer]
        kept = here[np.isfinite(here[[*PENALTIES, *AGAINST]]).all(axis=1)].sort_values("trial", ignore_index=True)
        compared = Comparison(kept, asked.num_permutations, num_bootstrap, asked.seed) if len(kept) >= MIN_FAMILIES else None
        few = f"{len(kept)} families with penalties, gap and spread ({PRIMARY_MEASURE}) of the layer, fewer than {MIN_FAMILIES}"
        reason = few if compared is None else compared.design.reason
        for penalty in PENALTIES:
            for against in AGAINST:
                row: dict[str, Any] = {"penalty": penalty, "against": against, "layer": layer, "num_families": len(kept), "reason": reason}
                rows.append(row if compared is None or reason else row | _associated(compared, penalty, against, asked.alpha))
    answer = pd.DataFrame(rows, columns=ASSOCIATION_COLUMNS).assign(
        alpha=asked.alpha, num_permutations=asked.num_permutations, num_bootstrap=num_bootstrap, seed=asked.seed,
        estimator="correlation of aligned ranks over families of mean penalty and what it is held against (spread: "
        f"{MEASURES[PRIMARY_MEASURE].spread_title}, same layer); two-sided restricted permutation p of its studentized form, Holm over "
        "layers; bias-corrected expanded percentile bootstrap of controls, lines and replicas",
    )  # fmt: skip
    answer = answer.astype(dict.fromkeys(["rho", "rho_low", "rho_high", "p"], np.float64))
    answer["p_holm"] = answer.groupby(["penalty", "against"])["p"].transform(lambda p: holm(p.to_numpy()))
    return answer


def _associated(compared: Comparison, penalty: str, against: str, alpha: float) -> dict[str, Any]:
    plan, rows = compared.design, compared.rows
    _, y, permuted, *_, resampled = compared.predictor(against)
    x = aligned_ranks(plan.items(rows[penalty].to_numpy(np.float64)), compared.align)
    tested = associate(x[None], y, permuted, plan.lines, alpha)
    rho = float(tested.rho[0])
    row: dict[str, Any] = {"rho": rho, "p": float(tested.p[0]), "scheme": plan.scheme}
    row |= {name: plan.counts[name] for name in ("num_families", "num_controls")}
    if not np.isfinite(rho):
        return row | {"reason": "blocks and last functions leave nothing to compare"}
    parts = rows[f"{penalty}_values"].tolist()
    levels = Levels(rows[penalty].to_numpy(np.float64), np.stack(parts) if len({len(part) for part in parts}) == 1 else None)
    draws = (compared.resampling.ranks(levels) * resampled).sum(axis=1)
    return row | dict(zip(("rho_low", "rho_high"), interval(rho, draws, CONFIDENCE, plan.counts["num_lines"]), strict=True))


def _penalty_line(found: pd.DataFrame) -> str:
    said = ", ".join(f"{layer} {mean_interval(group['penalty_accuracy'])}" for layer, group in found.groupby("layer", sort=False))
    return (
        f"Stitching: mean penalty in accuracy over {found['trial'].nunique()} families of {found['num_replicas'].max()} replicas "
        f"({CONFIDENCE:.0%} t interval over families): {said}."
    )


def _association_lines(related: pd.DataFrame) -> list[str]:
    lines = []
    for against, rows in related[related["penalty"] == PENALTIES[0]].groupby("against", sort=False):
        said = [
            f"{row['layer']} {row['rho']:+.2f} {shown_interval(row['rho_low'], row['rho_high'])} "
            f"(p = {row['p_holm']:.2g} Holm, n = {row['num_families']})"
            for row in rows[rows["rho"].notna()].to_dict("records")
        ]
        if said:
            lines.append(f"Penalty in accuracy against {against}: {', '.join(said)}.")
    reasons = related.loc[related["rho"].isna(), "reason"]
    return [*lines, *(f"Penalty: undecided: {reason}." for reason in dict.fromkeys(reasons))]


def _by_swap(found: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    rows = [
        {"layer": layer, "swapped": swapped}
        | {name.replace("_", " "): mean_interval(group[name]) for name in PENALTIES}
        | {"families": len(group), "networks": int(group["num_pairs"].sum())}
        for (layer, swapped), group in found.groupby(["layer", "swapped"], sort=False)
    ]
    steps = ", ".join(map(str, sorted(found["steps"].unique())))
    return pd.DataFrame(rows), (
        "Penalty of a network stitched from two replicas, against the replica that its upper part is of; larger is worse. Mean over "
        f"families [{CONFIDENCE:.0%} t interval over families, which are not independent where they share a control]; {steps} steps of "
        "training of the map between."
    )


def _extremes(found: pd.DataFrame, num_rows: int = 5) -> tuple[pd.DataFrame, str]:
    ordered = found.dropna(subset=PENALTIES[0]).sort_values([PENALTIES[0], "trial", "layer"], ascending=[False, True, True])
    chosen = ordered if len(ordered) <= 2 * num_rows else pd.concat([ordered.head(num_rows), ordered.tail(num_rows)])
    rows = chosen[["trial", "schedule", "layer"]].copy()
    for name in PENALTIES:
        rows[name.replace("_", " ")] = chosen[name]
        ends = zip(chosen[f"{name}_low"], chosen[f"{name}_high"], strict=True)
        rows[f"95 % ({name.removeprefix('penalty_').replace('_', ' ')})"] = [shown_interval(*pair) for pair in ends]
    rows = rows.assign(networks=chosen["num_pairs"], replicas=chosen["num_replicas"])
    return rows, (
        f"The largest and the smallest penalties in accuracy of {len(ordered)} families and layers. Mean over ordered pairs of replicas, "
        f"{CONFIDENCE:.0%} t interval from the jackknife over replicas; all of them in analysis/stitching_penalty.parquet."
    )


def _related(related: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    first = related.iloc[0]
    shown = related[["penalty", "against", "layer", "rho"]].assign(
        interval=[shown_interval(*pair) for pair in zip(related["rho_low"], related["rho_high"], strict=True)],
        p=related["p"],
    )
    shown = shown.assign(**{"p (Holm)": related["p_holm"], "families": related["num_families"], "reason": related["reason"]})
    caption = f"{first['estimator']}; {first['num_permutations']} permutations, {first['num_bootstrap']} resamples, seed {first['seed']}."
    return shown.rename(columns={"interval": "95 % interval"}), f"Do families that generalize badly, or are spread, fit worse? {caption}"
