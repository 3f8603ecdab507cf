"""Spread beside the baselines: how well each tells which of two families has the larger gap."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from analysis.chart import Chart, Panel
from analysis.svg import Plot, element, extent, text
from analysis.verdict import PRIMARY_MEASURE, PRIMARY_PREDICTOR

MAX_ROWS, LEFT, ROW, TOP, WIDTH = 40, 230, 20, 30, 620


def predictor_chart(predictors: pd.DataFrame) -> Chart | None:
    """A dot per score, the strongest first; None where none could be scored. Spread is that of the primary measure."""
    rows = predictors[(predictors["predictor"] == PRIMARY_PREDICTOR) & predictors["psi"].notna()]
    is_spread = rows["score"].str.startswith("spread/")
    rows = rows[~is_spread | (rows["score"] == f"spread/{PRIMARY_MEASURE}")]
    if rows.empty:
        return None
    rows = rows.sort_values("psi", key=lambda psi: -psi.abs(), kind="stable", ignore_index=True)
    spread = rows["score"].str.startswith("spread/")
    best, rank = rows.loc[spread, "psi"].abs().max(), int(np.flatnonzero(spread)[0]) + 1 if spread.any() else 0
    found = f" The best spread is number {rank} of {len(rows)}, with |psi| = {best:.2f}." if rank else ""
    left_out = f"; the weakest {len(rows) - MAX_ROWS} are in the data only" if len(rows) > MAX_ROWS else ""
    return Chart(
        "predictors_of_the_gap",
        "What else tells a large gap",
        f"The further from the middle, the better a number orders families by their gap; blue is spread.{found}",
        f"Granulated Kendall psi (Jiang et al. 2020) with {PRIMARY_PREDICTOR} over {int(rows['num_families'].max())} families, bars ±1 "
        f"standard error by a jackknife over controls; other measures of spread are in the data and the table{left_out}.",
        [Panel(_drawn(rows.head(MAX_ROWS)))],
        predictors[predictors["predictor"] == PRIMARY_PREDICTOR].drop(columns="estimator"),
    )


def _drawn(rows: pd.DataFrame) -> str:
    psi, error = rows["psi"].to_numpy(np.float64), rows["psi_se"].fillna(0).to_numpy(np.float64)
    reach = max(abs(end) for end in extent(psi - error, psi + error, np.zeros(1)))
    height = TOP + ROW * len(rows) + 40
    plot = Plot((-reach, reach), (0, 1), "", "", width=WIDTH, height=height, left=LEFT)
    floor = height - 40
    parts = []
    for tick in np.linspace(-1, 1, 9):
        if abs(tick) <= reach:
            x = float(plot.at_x(np.array(tick)))
            css = "zero" if tick == 0 else "grid"
            parts += [f'<path class="{css}" d="M{x:.1f} {TOP - 6}V{floor}"/>', text(x, floor + 15, f"{tick:g}".replace("-", "−"))]
    columns = zip(rows["score"], rows["layer"], rows["num_families"], psi, error, strict=True)
    for i, (score, layer, count, value, reach_of) in enumerate(columns):
        y = TOP + ROW * i + 8
        x, low, high = (float(plot.at_x(np.array(v))) for v in (value, value - reach_of, value + reach_of))
        css = "spread" if score.startswith("spread/") else "baseline"
        name = f"{score.replace('_', ' ')}, {layer}" if isinstance(layer, str) and layer else score.replace("_", " ")
        say = f"{name}: psi = {value:+.2f} ± {reach_of:.2f}, {count} families"
        parts.append(
            f'<g class="{css}" data-say="{escape(say)}">{text(LEFT - 10, y + 4, name, "row", "end")}'
            f'<path class="interval" d="M{low:.1f} {y}H{high:.1f}"/><circle class="mean" cx="{x:.1f}" cy="{y}" r="4.5"/></g>'
        )
    parts.append(text((LEFT + WIDTH) / 2, height - 6, "granulated Kendall psi with the gap", "label"))
    return element(WIDTH, height, "".join(parts), "Predictors of the gap")
