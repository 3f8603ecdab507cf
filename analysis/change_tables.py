"""What the page shows of change: tables over families of what `adaptation`, `recovery`, `restoring` and `asymptotics` have of each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.akp import CONFIDENCE
from analysis.html import interval, mean_interval, number, with_p

Shown = tuple[pd.DataFrame, str]
_OVER_FAMILIES = f"Means over families [{CONFIDENCE:.0%} t interval over families, which are not independent where they share a control]"


def adaptation(table: pd.DataFrame) -> Shown:
    """Spread and distance to the control around the first swap and at the end, by layer and swap epoch."""
    looks = table[table["layer"].notna() & table["swap_epoch"].notna() & table["moment"].isin(["before_swap", "after_swap", "end"])]
    looks = looks[(looks["moment"] == "end") | (looks["epoch"] == looks["swap_epoch"])].sort_values("swap_epoch", kind="stable")
    rows = [
        {
            "swap epoch": swap_epoch,
            "layer": layer,
            "moment": moment,
            "spread": mean_interval(group["spread"]),
            "distance to the control, same seed": mean_interval(group["control_same_seed"]),
            "over that of other seeds": mean_interval(group["control_ratio"]),
            "families": group["trial"].nunique(),
        }
        for (swap_epoch, layer, moment), group in looks.groupby(["swap_epoch", "layer", "moment"], sort=False)
    ]
    estimator = next(iter(looks["estimator"]), "").partition(";")[0]
    return pd.DataFrame(rows), (
        f"Adaptation. {_OVER_FAMILIES}. Spread and distances: {estimator}, over pairs of replicas and over pairs of a network with its "
        "control's; the ratio is 0 for the same networks and 1 for networks no nearer than those of other seeds."
    )


def recovery(table: pd.DataFrame) -> Shown:
    """What the swap costs, whether it is made good, and how the family ends beside its control, by what is swapped when."""
    known = table[table["epochs_to_recover"].notna()].sort_values(["swapped", "swap_epoch"], kind="stable")
    rows = []
    for (swapped, swap_epoch), group in known.groupby(["swapped", "swap_epoch"], sort=False):
        costly = group[group["drop"] > 0]
        median = float(np.median(costly["epochs_to_recover"])) if len(costly) else np.nan
        rows.append(
            {
                "swapped": swapped,
                "swap epoch": swap_epoch,
                "drop of accuracy": mean_interval(group["drop"]),
                "families with a drop": len(costly),
                "of these back": int(np.isfinite(costly["epochs_to_recover"]).sum()),
                "median epochs until back": "never" if np.isinf(median) else number(median),
                "behind the control at the end": mean_interval(group["behind_control"]),
                "behind / ahead / undecided": "/".join(str((group["statement"] == s).sum()) for s in ("behind", "ahead", "undecided")),
                "families": len(group),
                "replicas": number(group["num_replicas"].max()),
            }
        )
    estimator = table["estimator"].iloc[0] if len(table) else ""
    bootstrap = f"{number(table['num_bootstrap'].iloc[0])} resamples" if len(table) else ""
    return pd.DataFrame(rows), (
        f"Recovery. {_OVER_FAMILIES}. Epochs until back: {estimator}, {bootstrap}; behind or ahead of the control where each family's "
        f"{CONFIDENCE:.0%} interval excludes 0."
    )


def returns(table: pd.DataFrame) -> Shown:
    """Whether families come back to their controls since the last swap, pulses apart."""
    known = table[table["change"].notna()]
    rows = [
        {
            "swap": "pulse" if is_pulse else "lasts",
            "layer": layer,
            "distance right after the last swap": mean_interval(group["distance_after_swap"]),
            "at the end": mean_interval(group["distance_end"]),
            "change": mean_interval(group["change"]),
            "approaching / departing / undecided": "/".join(
                str((group["statement"] == s).sum()) for s in ("approaching", "departing", "undecided")
            ),
            "families": group["trial"].nunique(),
            "seeds": number(group["num_replicas"].max()),
        }
        for (is_pulse, layer), group in known.groupby(["is_pulse", "layer"], sort=False)
    ]
    estimator = table["estimator"].iloc[0] if len(table) else ""
    return pd.DataFrame(rows), (
        f"Returns. {_OVER_FAMILIES}. Distance to the control: {estimator}; approaching or departing where a family's interval excludes 0."
    )


def restoring(table: pd.DataFrame) -> Shown:
    """Restoring rates per trajectory and layer, and why families have none."""
    rows = []
    for (trajectory, layer), group in table.groupby(["trajectory", "layer"], dropna=False, sort=False):
        rates = group["rate"].dropna()
        quartiles = interval(*np.quantile(rates, [0.25, 0.75])) if len(rates) else "–"
        without = group.loc[group["rate"].isna(), "reason"]
        rows.append(
            {
                "trajectory": trajectory,
                "layer": layer,
                "median rate per epoch [quartiles]": f"{number(float(rates.median()))} {quartiles}" if len(rates) else "–",
                "random walk refused": int((group["statement"] == "restoring").sum()),
                "families with a rate": len(rates),
                "families without": len(without),
                "most often since": without.mode().iloc[0] if len(without) else "",
            }
        )
    known = table[table["rate"].notna()]
    chosen = (known if len(known) else table).head(1)
    estimator = f"{chosen['estimator'].iloc[0]}, {number(chosen['num_simulations'].iloc[0])} each" if len(chosen) else ""
    return pd.DataFrame(
        rows
    ), f"Restoring rates. {estimator}. Quartiles over families; each family's interval in analysis/restoring.parquet."


def restoring_association(table: pd.DataFrame) -> Shown:
    """Restoring rate against the gap and the test error."""
    shown = pd.DataFrame(
        {
            "trajectory": table["trajectory"],
            "layer": table["layer"],
            "predictor": table["predictor"],
            "rho": table["rho"],
            "95 % interval": _intervals(table["rho_low"], table["rho_high"]),
            "within control and swap epoch": [with_p(*pair) for pair in zip(table["rho_within"], table["p_within"], strict=True)],
            "p (Holm)": table["p_holm"],
            "families": table["num_families"],
            "statement": table["statement"] + table["reason"].map(lambda reason: f" ({reason})" if reason else ""),
        }
    )
    first = table.iloc[0] if len(table) else {"estimator": "", "num_permutations": "", "num_bootstrap": "", "seed": ""}
    return shown, (
        f"Have unhappy families lost the restoring force? {first['estimator']}; {first['num_permutations']} permutations, "
        f"{first['num_bootstrap']} resamples, seed {first['seed']}; Holm over trajectories and layers. Lost: rates fall with the predictor."
    )


def asymptotics(fits: pd.DataFrame) -> Shown:
    """The fitted limits of spread over sizes."""
    names = {
        "share of the limit": "share",
        "limit": "s_inf",
        "exponent b": "b",
        "change": "change",
        "limit minus that of controls": "s_inf_minus_controls",
    }
    shown = fits[["axis", "group", "measure", "layer"]].copy()
    for title, name in names.items():
        ends = _intervals(fits[f"{name}_low"], fits[f"{name}_high"])
        shown[title] = [f"{number(value)} {both}" if np.isfinite(value) else "–" for value, both in zip(fits[name], ends, strict=True)]
    reasons = fits["reason"].fillna("").map(lambda reason: f" ({reason})" if reason else "")
    shown = shown.assign(sizes=fits["num_sizes"], families=fits["num_families"], replicas=fits["num_replicas"])
    estimator = next(iter(fits["estimator"].dropna()), "")
    return shown.assign(statement=fits["statement"] + reasons), (
        f"Does spread vanish with size? {estimator}. Share: the limit over the spread at the smallest size; a family counts once, with "
        "all its sizes."
    )


def asymptotics_spread(spreads: pd.DataFrame) -> Shown:
    """The mean spread at each size."""
    shown = spreads[["axis", "group", "measure", "layer", "size", "spread"]].copy()
    shown["95 % interval"] = _intervals(spreads["spread_low"], spreads["spread_high"])
    shown["families"] = spreads["num_families"]
    return shown, "Mean spread at the end of training at each size; percentile bootstrap over seeds and families, as above."


def _intervals(low: Iterable[float], high: Iterable[float]) -> list[str]:
    return [interval(*pair) for pair in zip(low, high, strict=True)]
