"""How long a family takes to be as accurate as before its swap, and whether it catches up with its control. Tables in, tables out."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from analysis.adaptation import accuracies, last_swap_epoch
from analysis.akp import CONFIDENCE, families
from analysis.storage import Store

COLUMNS = [
    "trial", "schedule", "control", "swapped", "swap_epoch", "last_swap_epoch", "accuracy_before", "accuracy_after_swap", "drop",
    "accuracy_lowest", "epochs_to_recover", "epochs_to_recover_low", "epochs_to_recover_high", "recovered", "share_recovered",
    "num_epochs_seen", "behind_control", "behind_control_low", "behind_control_high", "statement", "num_replicas", "num_dropped", "reason",
    "estimator", "num_bootstrap", "seed",
]  # fmt: skip


def recovery(store: Store, only: Collection[str] | None = None, *, num_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A row per stressed family, from its test accuracies since the first swap; replicas that diverged are dropped and counted.

    `epochs_to_recover` counts epochs from the swap to the first evaluation at which the mean over replicas is back at or above that
    before the swap: 0 where the swap itself (0 steps) costs nothing, infinity where it is never seen again (censored after
    `num_epochs_seen`). Its interval and `share_recovered` are over bootstrap resamples of replicas; an end at infinity means beyond
    what was seen. `behind_control` is the control's final accuracy minus the family's, paired by seed; `statement` says behind or
    ahead where its interval excludes 0, else undecided.
    """
    trials = families(store, only)
    curves = dict(iter(accuracies(store, trials["trial"].tolist()).groupby("trial")))
    rows = []
    for family in trials[trials["swap_epoch"].notna()].to_dict("records"):
        row = {c: family[c] for c in ("trial", "schedule", "control", "swapped")} | {"swap_epoch": int(family["swap_epoch"])}
        row |= {"last_swap_epoch": last_swap_epoch(family["schedule"]), "num_bootstrap": num_bootstrap, "seed": seed, "reason": ""}
        row["estimator"] = f"first evaluation with the mean test accuracy at or above that before the swap; {CONFIDENCE:.0%} percentile"
        row["estimator"] += " bootstrap over replicas"
        rows.append(row | _recover(curves.get(family["trial"]), curves.get(family["control"]), row["swap_epoch"], num_bootstrap, seed))
    found = pd.DataFrame(rows, columns=COLUMNS)
    return found.astype({"recovered": "boolean", "num_replicas": "Int32", "num_dropped": "Int32", "last_swap_epoch": "Int32"})


def _recover(curve: pd.DataFrame | None, control: pd.DataFrame | None, swap_epoch: int, num_bootstrap: int, seed: int) -> dict[str, object]:
    if curve is None:
        return {"reason": "no curves"}
    at_swap = (curve["epoch"] == swap_epoch) & (curve["moment"] == "epoch")
    since = (curve["epoch"] > swap_epoch) & (curve["moment"] == "epoch") | (curve["epoch"] == swap_epoch) & (
        curve["moment"] == "after_swap"
    )
    after = curve[since].sort_values("epoch")
    if not at_swap.any() or after.empty:
        return {"reason": f"no evaluation before or after the swap at epoch {swap_epoch}"}
    before = np.array(curve[at_swap]["test"].iloc[0], dtype=np.float64)  # [replica]
    path = np.array(after["test"].tolist(), dtype=np.float64)  # [evaluation, replica]
    end = np.array(control["test"].iloc[int(control["epoch"].argmax())]) if control is not None else np.full(len(before), np.nan)
    kept = np.isfinite(before) & np.isfinite(path).all(axis=0)
    row: dict[str, object] = {"num_replicas": int(kept.sum()), "num_dropped": int((~kept).sum())}
    if kept.sum() < 2:
        return row | {"reason": f"{int(kept.sum())} replicas with a curve, fewer than 2"}
    elapsed = after["epoch"].to_numpy(np.float64) - swap_epoch
    m = int(kept.sum())
    counts = np.vstack([np.ones(m), np.random.default_rng([seed, m]).multinomial(m, np.full(m, 1 / m), num_bootstrap)]) / m
    back = counts @ path[:, kept].T >= (counts @ before[kept])[:, None] - 1e-12  # [resample, evaluation]
    times = np.where(back.any(axis=1), elapsed[back.argmax(axis=1)], np.inf)
    low, high = np.quantile(times[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")  # no mean with infinity
    mean = path[:, kept].mean(axis=1)
    row |= {
        "accuracy_before": float(before[kept].mean()),
        "accuracy_after_swap": float(mean[0]) if elapsed[0] == 0 else np.nan,
        "drop": float(before[kept].mean() - mean[0]) if elapsed[0] == 0 else np.nan,
        "accuracy_lowest": float(mean.min()),
        "epochs_to_recover": float(times[0]), "epochs_to_recover_low": float(low), "epochs_to_recover_high": float(high),
        "recovered": bool(np.isfinite(times[0])), "share_recovered": float(np.isfinite(times[1:]).mean()),
        "num_epochs_seen": float(elapsed[-1]),
    }  # fmt: skip
    behind = (end[kept] - path[-1, kept]) if len(end) == len(kept) else np.full(m, np.nan)
    if not np.isfinite(behind).all():
        return row | {"reason": "the control has no final accuracy for every replica"}
    low, high = np.quantile(counts[1:] @ behind, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    row |= {"behind_control": float(behind.mean()), "behind_control_low": float(low), "behind_control_high": float(high)}
    return row | {"statement": "behind" if low > 0 else "ahead" if high < 0 else "undecided"}
