"""Sections of the page on all networks beside each other, and on what spread adds to cheaper numbers."""

from __future__ import annotations

import pandas as pd

from analysis.html import interval, number, table
from analysis.verdict import PRIMARY_MEASURE, PRIMARY_PREDICTOR


def happy_unhappy(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "<p class='soft'>none</p>"
    row = rows.iloc[0]
    caption = (
        f"Rule: {row['rule']}. Dispersion is the mean distance of a group's networks to their centroid, bias-adjusted, differences "
        f"between families included; effect is Hedges' g; intervals from {number(row['num_bootstrap'])} resamples of controls, then "
        f"families. p: PERMDISP's distances after what blocks and last functions share is taken out of the networks, "
        f"{number(row['num_permutations'])} exchanges of lines within controls, max-T over layers; p (location): partial "
        "PERMANOVA under the same exchanges."
    )
    return table(
        pd.DataFrame(
            {
                "measure": rows["measure"],
                "layer": rows["layer"],
                "happy": rows["dispersion_happy"],
                "unhappy": rows["dispersion_unhappy"],
                "difference": rows["difference"],
                "95 % interval": [interval(*pair) for pair in zip(rows["difference_low"], rows["difference_high"], strict=True)],
                "effect": rows["effect_size"],
                "F": rows["f"],
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
    )


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
            f"Spread ({PRIMARY_MEASURE}) and {PRIMARY_PREDICTOR} with a third number held fixed; restricted permutations, Holm.",
        ),
        table(
            alike[["layer", "rho_annak", "p_annak", "p_annak_adjusted", "rho_neighbour", "p_neighbour", "num_families", "reason"]],
            "Are the families that generalize well all alike, and the others each like none? "
            + (alike["estimator"].iloc[0] if len(alike) else ""),
        ),
    ]
