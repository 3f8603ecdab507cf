"""What changes with time and with size: the questions of `adaptation` and `asymptotics`, each with its tables, figure and lines."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import change_tables, tables, trends
from analysis.adaptation import adaptation, returns
from analysis.akp import CONFIDENCE, PRIMARY_MOMENT, PRIMARY_PREDICTOR, families
from analysis.asymptotics import asymptotics, sentences
from analysis.drawing import charts
from analysis.question import Asked, Found
from analysis.recovery import recovery
from analysis.restoring import associations, restoring
from analysis.wording import counted


def after_swap(asked: Asked) -> Found:
    """How families move after their swap. Needs stressed families with curves (table `epochs`)."""
    title, store, only, seed = "After the swap", asked.store, asked.only, asked.seed
    trials = families(store, only)
    stressed = trials.loc[trials["swap_epoch"].notna(), "trial"]
    if stressed.empty:
        return Found(title, reason="No family of this analysis has a swap.")
    if not set(stressed) & set(tables.names(store, "epochs")):
        return Found(title, reason="The table epochs has no file of a stressed family.")
    table = adaptation(store, only=only, layers=asked.layers, moments=asked.moments)
    recovered = recovery(store, only, seed=seed)
    rates = restoring(store, only, layers=asked.layers, moments=asked.moments, seed=seed)
    association = associations(rates, asked.gaps, alpha=asked.alpha, num_permutations=asked.num_permutations, seed=seed)
    found = {
        "adaptation": table,
        "recovery": recovered,
        "returns": returns(table),
        "restoring": rates,
        "restoring_association": association,
    }
    shown = [getattr(change_tables, name)(rows) for name, rows in found.items()]
    drawn = {
        "after_swap": (
            trends.after_swap(table),
            "Gap and spread since the swap",
            "Where a coloured line comes back to that of the controls, the swap was overcome; the dotted lines are the swaps.",
            f"Gap, and spread per layer, of controls and of the {counted(len(stressed), 'stressed family')} by swap epoch (pulses left "
            "out): before the swap, right after it (same weights, new functions, 0 steps), and as often as was recorded until the end; "
            "means over families, counted in the key by layer, 95 % t intervals over families.",
        )
    }
    lines = [_recovery_line(recovered), *_return_line(found["returns"]), *_rate_lines(association)]
    return Found(title, lines, found, shown, charts=charts(drawn))


def over_sizes(asked: Asked) -> Found:
    """Whether spread vanishes with size. Needs a sweep that varied data.train_size or model.widths."""
    title = "With size"
    if asked.moments is not None and PRIMARY_MOMENT not in asked.moments:
        return Found(title, reason=f"Sizes are compared at the {PRIMARY_MOMENT} of training, which is not among the moments analysed.")
    fits, spreads = asymptotics(asked.store, only=asked.only, layers=asked.layers, seed=asked.seed)
    if fits.empty:
        return Found(title, reason="No size was varied (data.train_size or model.widths in space.recipe).")
    drawn = {
        f"spread_over_{axis.partition('.')[2]}": (
            trends.spread_over_sizes(fits, spreads, axis),
            f"Spread at the end over {axis}",
            "A line that levels off above 0 says that networks stay apart however large the size; one that falls towards 0, that they come "
            "together.",
            f"Mean spread of controls and of stressed families at each size, with {CONFIDENCE:.0%} percentile bootstrap intervals over "
            "seeds and families, and the law s_inf + a n^-b fitted to the means, whose limit s_inf stands with its interval above each "
            "panel; the key counts the families at each size.",
        )
        for axis in dict.fromkeys(spreads["axis"])
    }
    found = {"asymptotics": fits, "asymptotics_spread": spreads}
    shown = [getattr(change_tables, name)(rows) for name, rows in found.items()]
    return Found(title, sentences(fits), found, shown, charts=charts(drawn))


def _recovery_line(recovered: pd.DataFrame) -> str:
    known = recovered[recovered["epochs_to_recover"].notna()]
    if known.empty:
        return f"Recovery: undecided: {recovered['reason'].mode()[0]}."
    costly = known[known["drop"] > 0]
    back = costly["epochs_to_recover"]
    typical = np.median(back) if len(back) else np.nan
    after = f"after {typical:g} epoch{'' if typical == 1 else 's'}" if np.isfinite(typical) else "never"
    median = "" if costly.empty else f", the median {after}"
    behind = (known["statement"] == "behind").sum()
    num_back = int(np.isfinite(back).sum())
    return (
        f"Recovery: the first swap costs accuracy at 0 steps in {len(costly)} of {len(known)} stressed families; {num_back} of these are "
        f"as accurate as before within training{median}; {behind} of {len(known)} end behind their control (95 % intervals)."
    )


def _return_line(found: pd.DataFrame) -> list[str]:
    said = []
    for name, rows in (("pulses", found[found["is_pulse"]]), ("swaps that last", found[~found["is_pulse"]])):
        known = rows[rows["change"].notna()]
        if known.empty:
            continue
        counts = known.groupby(["layer", "statement"], sort=False).size().unstack(fill_value=0)
        counts = counts.reindex(columns=["approaching", "departing", "undecided"], fill_value=0)
        layers = ", ".join(f"{layer} {a}/{d}/{u}" for layer, a, d, u in counts.itertuples())
        said.append(f"{name} ({counted(known['trial'].nunique(), 'family')}): {layers}")
    lead = "Distance to the control since the last swap, families approaching/departing/undecided (95 % t intervals over seeds)"
    return [f"{lead}: {'; '.join(said)}."] if said else []


def _rate_lines(association: pd.DataFrame) -> list[str]:
    """Restoring rate against the gap: a line for what could be asked, and one for what could not."""
    rows = association[association["predictor"] == PRIMARY_PREDICTOR]
    names = rows["layer"].fillna(rows["trajectory"])
    known = rows["p_holm"].notna()
    said = [
        f"{name} {row.statement} (rho within {row.rho_within:+.2f}, p = {row.p_holm:.2g} Holm, n = {row.num_families})"
        for name, row in zip(names[known], rows[known].itertuples(), strict=True)
    ]
    lines = []
    if said:
        lead = f"Restoring rate against {PRIMARY_PREDICTOR}, ranks within one control and swap epoch (lost: rates fall with the gap)"
        lines.append(f"{lead}: {', '.join(said)}.")
    lines += [f"Restoring rate, {n}: undecided: {reason}." for n, reason in zip(names[~known], rows["reason"][~known], strict=True)]
    return lines
