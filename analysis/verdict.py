"""The answer in one sentence, and what it stands on."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from analysis.spreads import spread_title
from analysis.wording import WITHIN, counted, told

PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR = "cka", "end", "gap_accuracy"
# The other reading of "generalizes badly"; told beside the verdict because the two can disagree.
SECONDARY_PREDICTOR = "test_error"
MIN_FAMILIES = 5
# Correlations within +-BOUND count as no effect: below what is called medium (Cohen 1988). Declared, not fitted.
BOUND = 0.3


@dataclass(frozen=True, repr=False)
class Verdict:
    """The answer to the primary question."""

    answer: str  # AKP, anti-AKP, mixed, no effect or undecided
    text: str  # a few sentences with estimator, n and interval
    num_families: int
    layer: str | None = None  # the layer of the largest |rho|, which the numbers below belong to
    rho: float = np.nan
    rho_low: float = np.nan
    rho_high: float = np.nan
    p_adjusted: float = np.nan
    files: tuple[str, ...] = ()  # what the analysis wrote

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.answer)}</b></p><p>{escape(self.text)}</p>"


MEANINGS = {
    "AKP": "families with a larger {badly} are more spread",
    "anti-AKP": "families with a larger {badly} are less spread",
    "mixed": "spread rises with the {badly} in some layers and falls with it in others",
    "no effect": f"in every layer the association of spread with the {{badly}} is weaker than {BOUND:g}",
    "undecided": "no association of spread with the {badly} was found, and the intervals do not exclude one",
}


def verdict(association: pd.DataFrame, predictor: str = PRIMARY_PREDICTOR) -> Verdict:
    """The overall answer from the rows of `associations` for the primary measure and moment, and one predictor.

    AKP or anti-AKP where at least one layer is significant and all significant ones have that sign, mixed where signs
    disagree, no effect where every layer's interval excludes an association of +-BOUND, else undecided: with the number of families that
    would decide it, or with the reason where no layer could be tested. With another than the primary predictor the text says that the
    answer is exploratory.
    """
    primary = association[
        (association["measure"] == PRIMARY_MEASURE) & (association["moment"] == PRIMARY_MOMENT) & (association["predictor"] == predictor)
    ]
    exploratory = [f"by {predictor}"] * (predictor != PRIMARY_PREDICTOR) + ["of calibrated spreads"] * bool(primary["is_calibrated"].any())
    lead = f"Exploratory, {', '.join(exploratory)}" if exploratory else "Verdict"
    tested = primary[primary["rho"].notna()]
    if tested.empty:
        num_families = int(primary["num_families"].max()) if len(primary) else 0
        reasons = sorted({reason for reason in primary["reason"] if reason})
        reason = "; ".join(reasons) or f"no spreads with measure {PRIMARY_MEASURE} at moment {PRIMARY_MOMENT}"
        return Verdict("undecided", f"{lead}: undecided: {reason}.", num_families)
    signs = set(tested["verdict"]) & {"AKP", "anti-AKP"}
    answer = (
        "mixed" if len(signs) == 2 else signs.pop() if signs else "no effect" if set(tested["verdict"]) == {"no effect"} else "undecided"
    )
    top = tested.sort_values("rho", key=lambda rho: -rho.abs(), kind="stable").iloc[0]
    low, high = int(top["min_replicas"]), int(top["max_replicas"])
    replicas = str(low) if low == high else f"{low} to {high}"
    scheme = [top["scheme"]]
    layers = ", ".join(f"{row['layer']} {_layer(row)}" for row in tested.to_dict("records"))
    alone = f"; {top['num_alone']} more have none to be exchanged for" if top["num_alone"] else ""
    left_in = blocks = ""
    if top["scheme"] == WITHIN:
        left_in = ", ".join(f"{layer} {rho:+.2f}" for layer, rho in zip(tested["layer"], tested["rho_blocks"], strict=True))
        blocks = f", {counted(top['num_blocks'], 'block')}"
        left_in = f" With what the last functions do on their own left in, exploratory: {left_in}."
    undecided = tested[tested["verdict"] == "undecided"]
    least = undecided["p_least"].max()
    # What finds the bound four times in five: of no use where there are as many and the estimate lies near the bound.
    enough = tested["families_needed"].max()
    few = len(undecided) and enough > top["num_families"]
    needed = f" About {counted(enough, 'family')} would decide every layer." if few else ""
    if least >= top["alpha"]:
        needed = f" With {counted(top['num_permutations'] + 1, 'exchange')} p cannot be below {least:.2g} in every layer.{needed}"
    detectable, power = tested["detectable_rho"].max(), ""
    if answer in ("no effect", "undecided"):
        found = f"An association of {detectable:.2f} would" if detectable <= 1 else "Not even a perfect association would"
        power = f" {found} have been found in every layer with 80 % power."
    text = (
        f"{lead}: {answer}: {MEANINGS[answer].format(badly=predictor)}. Correlation of {told(scheme, 'ranked')} "
        f"({counted(top['num_families'], 'family')} of {replicas} replicas, {counted(top['num_controls'], 'control')}"
        f"{blocks}{alone}), between spread "
        f"({spread_title(PRIMARY_MEASURE, primary)}, moment {PRIMARY_MOMENT}) and mean {predictor}: largest |rho| in layer {top['layer']}, "
        f"rho = {top['rho']:.2f}, 95 % bootstrap interval [{top['rho_low']:.2f}, {top['rho_high']:.2f}] "
        f"({told(scheme, 'resampled')} resampled), p = {top['p_adjusted']:.2g} ({top['num_permutations']} permutations {top['scheme']}; "
        f"max-T over {counted(len(tested), 'layer')}). Layers at "
        f"{top['alpha']:g}, no effect meaning an interval within ±{top['bound']:g}: {layers}.{power}{needed}{left_in}"
    )
    rho, rho_low, rho_high, p_adjusted = (float(top[column]) for column in ("rho", "rho_low", "rho_high", "p_adjusted"))
    return Verdict(answer, text, int(top["num_families"]), str(top["layer"]), rho, rho_low, rho_high, p_adjusted)


def _layer(row: dict[Hashable, Any]) -> str:
    return f"{row['verdict']} ({row['rho']:+.2f})"
