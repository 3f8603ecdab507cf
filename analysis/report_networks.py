"""Sections of the page on all networks beside each other, and on what spread adds to cheaper numbers."""

from __future__ import annotations

from html import escape

import pandas as pd

from analysis.happiness import contradictions
from analysis.html import interval, number, table
from analysis.verdict import PRIMARY_MEASURE, PRIMARY_PREDICTOR
from analysis.wording import told


def _differences(rows: pd.DataFrame, which: str) -> list[str]:
    columns = zip(*(rows[f"{which}difference{end}"] for end in ("", "_low", "_high")), strict=True)
    return [f"{number(value)} {interval(low, high)}" if value == value else "–" for value, low, high in columns]


def happy_unhappy(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "<p class='soft'>none</p>"
    row = rows.iloc[0]
    scheme = rows["scheme"]
    caption = (
        f"Rule: {row['rule']}. As they are: dispersion is the mean distance of a group's networks to their centroid, bias-adjusted, "
        f"differences between families included; difference is unhappy less happy, effect is Hedges' g, intervals are from "
        f"{number(row['num_bootstrap'])} resamples of controls, then families. Aligned: {told(scheme, 'aligned')} are taken out of the "
        f"networks, and of their distances to the centroids; difference is then that of an unhappy and a happy family that share the rest, "
        f"its interval robust over what is exchanged; rho is that of {told(scheme, 'ranked')}, and p its p from "
        f"{number(row['num_permutations'])} exchanges of {told(scheme, 'exchanged')}, max-T over layers. The verdict goes by the aligned "
        f"numbers, whose sign may differ. p (location): partial PERMANOVA under the same exchanges."
    )
    return table(
        pd.DataFrame(
            {
                "measure": rows["measure"],
                "layer": rows["layer"],
                "happy": rows["dispersion_happy"],
                "unhappy": rows["dispersion_unhappy"],
                "difference as they are": _differences(rows, ""),
                "effect": rows["effect_size"],
                "F": rows["f"],
                "difference aligned": _differences(rows, "aligned_"),
                "rho": rows["rho"],
                "p": rows["p"],
                "p (max-T)": rows["p_adjusted"],
                "p (location)": rows["p_location_adjusted"],
                "families": [
                    f"{number(a)} + {number(b)}" for a, b in zip(rows["num_families_happy"], rows["num_families_unhappy"], strict=True)
                ],
                "networks": [
                    f"{number(a)} + {number(b)}" for a, b in zip(rows["num_networks_happy"], rows["num_networks_unhappy"], strict=True)
                ],
                "verdict": rows["verdict"] + rows["reason"].map(lambda reason: f" ({reason})" if reason else ""),
            }
        ),
        caption,
    ) + "".join(f"<p>{escape(line)}</p>" for line in contradictions(rows))


def beside(annak: pd.DataFrame, predictors: pd.DataFrame, partial: pd.DataFrame) -> list[str]:
    """Spread beside the baselines, what is left of it beside them, and the model test."""
    scored = predictors[predictors["predictor"] == PRIMARY_PREDICTOR]
    columns = ["score", "layer", "tau", "tau_se", "psi", "psi_se", "cmi", "sign_error_mean", "sign_error_worst", "num_families"]
    left = partial[(partial["predictor"] == PRIMARY_PREDICTOR) & (partial["measure"] == PRIMARY_MEASURE)]
    alike = annak[annak["measure"] == PRIMARY_MEASURE]
    return [
        table(scored[columns], f"Predictors of {PRIMARY_PREDICTOR}. {scored['estimator'].iloc[0] if len(scored) else ''}."),
        table(
            left[["layer", "given", "rho", "p", "p_holm", "num_families", "reason"]],
            f"Spread ({PRIMARY_MEASURE}) and {PRIMARY_PREDICTOR} with a third number held fixed: correlation of "
            f"{told(left['scheme'], 'ranked')}, p by exchanging {told(left['scheme'], 'exchanged')}; Holm over layers.",
        ),
        table(
            alike[["layer", "rho_annak", "p_annak", "p_annak_adjusted", "rho_neighbour", "p_neighbour", "num_families", "reason"]],
            "Are the families that generalize well all alike, and the others each like none? "
            + (alike["estimator"].iloc[0] if len(alike) else ""),
        ),
    ]
