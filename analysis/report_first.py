"""The first screen: the question, the answer, the verdict of every layer with its interval, and the central picture."""

from __future__ import annotations

import json
from collections.abc import Hashable
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from analysis.chart import Chart, choices
from analysis.gap_chart import PREDICTORS_SHOWN
from analysis.html import interval, number
from analysis.spreads import CONFIDENCE
from analysis.svg import KINDS, MARKERS, kind, shown, text
from analysis.verdict import BOUND, MEANINGS, PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR, SECONDARY_PREDICTOR, Verdict
from analysis.wording import counted, told

READINGS = {PRIMARY_PREDICTOR: "generalization gap", SECONDARY_PREDICTOR: "test error"}


def first_screen(
    verdicts: tuple[Verdict, Verdict], associations: pd.DataFrame, trials: pd.DataFrame, gaps: pd.DataFrame, chart: Chart | None
) -> str:
    """`verdicts` are the declared one and the exploratory one by test error; `chart` the central picture, if there is one."""
    layer = verdicts[0].layer or ""
    declared = associations[(associations["measure"] == PRIMARY_MEASURE) & (associations["moment"] == PRIMARY_MOMENT)]
    answers = "".join(
        _answer(verdict, declared[declared["predictor"] == predictor], predictor, layer)
        for verdict, predictor in zip(verdicts, PREDICTORS_SHOWN, strict=True)
    )
    status = trials["status"].value_counts()
    others = "".join(f", {number} {name}" for name, number in status.drop("done", errors="ignore").items())
    counts = f"{counted(int(status.get('done', 0)), 'family')} done of {len(trials)}{others}."
    if networks := int(gaps["num_replicas"].sum()):
        counts += f" {counted(networks, 'network')}, {int(gaps['num_diverged'].sum()) or 'none'} of them diverged."
    picture = (
        chart.html(layer, PRIMARY_PREDICTOR)
        if chart is not None
        else f"<p class='soft'>No picture: no family has both a spread by {PRIMARY_MEASURE} at moment {PRIMARY_MOMENT} and a gap.</p>"
    )
    switch = choices("by", {predictor: f"by {READINGS[predictor]}" for predictor in PREDICTORS_SHOWN}, PRIMARY_PREDICTOR)
    return f"<div class='first'><div class='answer'>{switch}{answers}<p class='soft'>{counts}</p></div><div>{picture}</div></div>"


def _answer(verdict: Verdict, rows: pd.DataFrame, predictor: str, layer: str) -> str:
    """The answer by one reading of "generalizes badly", with a row per layer."""
    meaning = MEANINGS[verdict.answer].format(badly=READINGS[predictor]) if verdict.layer else "no layer could be tested"
    lead = "The question declared beforehand" if predictor == PRIMARY_PREDICTOR and not rows["is_calibrated"].any() else "Exploratory"
    compared = f"{counted(verdict.num_families, 'family')} compared" if verdict.num_families else "nothing could be compared"
    lines = "".join(_layer(row, row["layer"] == layer) for row in rows.to_dict("records"))
    axis = '<svg viewBox="0 0 120 14" width="120" height="14">' + "".join(
        text(at, 11, word) for at, word in ((8, "−1"), (60, "0"), (110, "+1"))
    )
    table = (
        f"<table class='layers'><thead><tr><th>layer</th><th class='forest'>{axis}</svg></th>"
        f"<th class='number'>ρ [{CONFIDENCE:.0%}]</th><th class='number'>p</th><th class='number'>n</th><th>verdict</th></tr></thead>"
        f"<tbody>{lines}</tbody></table>"
        if lines
        else ""
    )
    scheme = rows["scheme"]
    how = (
        f"<p class='soft'>ρ: correlation of {told(scheme, 'ranked')}, between spread and {READINGS[predictor]}; grey: within ±{BOUND:g}, "
        f"which counts as no effect; p by exchanges of {told(scheme, 'exchanged')}, adjusted over layers.</p>"
        if lines
        else ""
    )
    return (
        f"<div class='by{' now' if predictor == PRIMARY_PREDICTOR else ''}' data-by='{predictor}'>"
        f"<p class='lead'>{lead}:</p><p class='verdict'>{escape(verdict.answer)}</p>"
        f"<p class='meaning'>{escape(meaning[0].upper() + meaning[1:])} ({compared}).</p>{table}{how}"
        f"<details><summary>The whole statement</summary><p>{escape(verdict.text)}</p></details></div>"
    )


def _layer(row: dict[Hashable, Any], chosen: bool) -> str:
    name = escape(str(row["layer"]))
    button = f"<button data-set='layer' value='{name}' aria-pressed='{str(chosen).lower()}'>{name}</button>"
    reason = f"<tr class='why'><td colspan='6'><small>{escape(row['reason'])}</small></td></tr>" if row["reason"] else ""
    ends = f" <span>[{_signed(row['rho_low'])}, {_signed(row['rho_high'])}]</span>" if np.isfinite(row["rho_low"]) else ""
    rho = f"{_signed(row['rho'])}{ends}" if np.isfinite(row["rho"]) else "–"
    n = number(row["num_families"])
    return (
        f"<tr><td>{button}</td><td class='forest'>{_forest(row['rho'], row['rho_low'], row['rho_high'])}</td>"
        f"<td class='number'>{rho}</td><td class='number'>{number(row['p_adjusted'], 2)}</td><td class='number'>{n}</td>"
        f"<td>{escape(row['verdict'])}</td></tr>{reason}"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _forest(rho: float, low: float, high: float) -> str:
    """An interval between -1 and 1, the bound below which nothing is said to be there in grey."""

    def at(value: float) -> float:
        return 60 + 58 * value

    mark = ""
    if np.isfinite(rho):
        ends = f'<path class="interval" d="M{at(low):.1f} 10H{at(high):.1f}"/>' if np.isfinite(low) else ""
        mark = f'{ends}<circle class="mean" cx="{at(rho):.1f}" cy="10" r="4.5"/>'
    return (
        f'<svg viewBox="0 0 120 20" width="120" height="20" role="img" aria-label="rho {number(rho)}">'
        f'<rect class="band" x="{at(-BOUND)}" y="0" width="{116 * BOUND}" height="20"/><path class="zero" d="M60 0V20"/>{mark}</svg>'
    )


def bar(trials: pd.DataFrame) -> str:
    """What chooses families everywhere on the page: by what was swapped, by words, or the one that was clicked."""
    counts = trials.loc[trials["status"] == "done", "swapped"].map(kind).value_counts()
    chips = "".join(
        f"<button class='chip {key}' data-hide='{key}' aria-pressed='true'><svg viewBox='-7 -7 14 14' width='14' height='14'>"
        f"<path class='point' d='M0 0{MARKERS[key]}'/></svg>{escape(words)} <small>{counts[key]}</small></button>"
        for key, words in KINDS.items()
        if key in counts
    )
    hidden = "" if chips else " hidden"
    return (
        f"<div id='bar' role='group' aria-label='families shown'{hidden}>{chips}<input id='words' type='search' size='18' "
        "placeholder='schedule or id' aria-label='show families whose schedule or id has these words'/>"
        "<span id='chosen' aria-live='polite'></span><button id='all' hidden>show all</button></div>"
    )


def families(trials: pd.DataFrame, spreads: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """What is told of each family, by id, as JSON that may stand in a script element."""
    end = spreads[(spreads["measure"] == PRIMARY_MEASURE) & (spreads["moment"] == PRIMARY_MOMENT) & np.isfinite(spreads["spread"])]
    facts: dict[str, list[list[str]]] = {str(trial): [] for trial in trials["trial"]}
    for row in gaps.to_dict("records"):
        if row["trial"] in facts:
            for predictor in PREDICTORS_SHOWN:
                facts[row["trial"]].append([READINGS[predictor], shown(row[predictor], row[f"{predictor}_se"])])
            facts[row["trial"]].append(["replicas", f"{row['num_replicas']}, {row['num_diverged']} diverged"])
    for trial, layer, spread, low, high in zip(
        end["trial"], end["layer"], end["spread"], end["spread_low"], end["spread_high"], strict=True
    ):
        if trial in facts:
            facts[trial].append([f"spread in {layer}", f"{number(spread)} {interval(low, high)}"])
    told_of = {
        str(row["trial"]): {
            "schedule": str(row["schedule"]),
            "kind": kind(row["swapped"]),
            "control": str(row["control"]),
            "facts": [*facts[str(row["trial"])], *([] if row["status"] == "done" else [["status", str(row["status"])]])],
        }
        for row in trials.to_dict("records")
    }
    return json.dumps(told_of, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
