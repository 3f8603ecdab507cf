"""One self-contained HTML page: question, answer with its n and interval, figures, tables, failures, provenance."""

from __future__ import annotations

import base64
import hashlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import scipy

from analysis import report_account, report_first, report_networks
from analysis.akp import BOUND, PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR, Verdict
from analysis.chart import PAGE, Chart
from analysis.html import interval, table, with_p
from analysis.measures.generalization import PREDICTORS
from analysis.question import Found
from analysis.spreads import comparable, spread_title
from analysis.wording import told

LONG = 12  # rows
NO_SPREAD = f"No family has a spread by {PRIMARY_MEASURE} at moment {PRIMARY_MOMENT}."
WITHOUT_SCRIPT = ".panels > div, .answer > div { display: block !important; } #bar, .choices { display: none !important; }"

INTRODUCTION = f"""<p>The <b>Anna Karenina principle</b> (AKP) says yes. Each family is one training recipe, run with
several seeds; its <b>spread</b> is how far apart its replicas are in representation, on the same probe samples.
The primary question was declared before any data were seen: measure {PRIMARY_MEASURE}, moment {PRIMARY_MOMENT},
predictor {PRIMARY_PREDICTOR} ({escape(PREDICTORS[PRIMARY_PREDICTOR])}, against the labels trained on). AKP, anti-AKP,
mixed, no effect and undecided are all possible answers; everything but the primary question is exploratory. No effect means
that the 95 % interval of every layer lies within ±{BOUND:g}; where it does not and nothing was found, the answer is undecided, with the
number of families that would decide it."""


@dataclass(frozen=True)
class Everything:
    """What the page is made of. `verdicts` are the declared one and the exploratory one by test error."""

    name: str
    verdicts: tuple[Verdict, Verdict]
    trials: pd.DataFrame  # the tables of these names
    replicas: pd.DataFrame
    runs: pd.DataFrame
    sweep_file: str  # sweep.yaml, or nothing
    spreads: pd.DataFrame
    gaps: pd.DataFrame
    associations: pd.DataFrame
    happy: pd.DataFrame
    annak: pd.DataFrame
    predictors: pd.DataFrame
    partial: pd.DataFrame
    central: Chart | None
    beside: Chart | None  # spread beside the baselines
    pictures: Sequence[Found]  # of the first question
    answered: Sequence[Found]  # the further questions, a section each


def render(found: Everything) -> str:
    """The page: one file that fetches nothing, by its own policy, and runs no script but its own."""
    verdict = found.verdicts[0]
    layer = verdict.layer or ""
    sections = [
        *[(picture.title, _body(picture, layer)) for picture in found.pictures],
        ("Association of spread with generalization", _association(found.associations)),
        ("Happy against unhappy families", _happy(found.happy)),
        ("Does spread say more than what is cheaper to know?", _beside(found)),
        *[(one.title, _body(one, layer)) for one in found.answered],
        ("Most extreme families", _extremes(found.spreads, found.gaps)),
        ("What failed, diverged or was left out", report_account.left_out(found.trials, found.spreads, found.gaps, found.replicas)),
        ("Cost: planned against actual", report_account.cost(found.runs, found.trials)),
        ("Provenance", report_account.provenance(found.trials, found.replicas, _analysed_with(found.associations))),
        ("Reproduce", _reproduce(found)),
    ]
    ids = [re.sub(r"[^a-z]+", "-", title.lower()).strip("-") for title, _ in sections]
    links = "".join(f"<a href='#{id}'>{escape(title)}</a>" for id, (title, _) in zip(ids, sections, strict=True))
    body = "\n".join(
        [
            f"<h1>Do networks that generalize badly differ more from each other, inside? <small>{escape(found.name)}</small></h1>",
            report_first.bar(found.trials),
            report_first.first_screen(found.verdicts, found.associations, found.trials, found.gaps, found.central),
            f"<nav aria-label='sections'>{links}</nav>",
            f"<details><summary>What is asked, and what was declared beforehand</summary>{INTRODUCTION} "
            f"{told(found.associations['scheme'], 'explained')}</p></details>",
            *[f"<section id='{id}'><h2>{escape(title)}</h2>\n{text}</section>" for id, (title, text) in zip(ids, sections, strict=True)],
            "<p class='soft'>Every number here is in <code>analysis/*.parquet</code>, with its estimator, n, interval and seed.</p>",
        ]
    )
    script, chart_style, style = ((PAGE / name).read_text(encoding="utf-8") for name in ("report.js", "chart.css", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    families = report_first.families(found.trials, found.spreads, found.gaps)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\"><link rel='icon' href='data:,'/>"
        f"<title>{escape(found.name)}: {escape(verdict.answer)}</title>"
        f"<style id='chart-style'>{chart_style}</style><style>{style}</style>"
        f"<noscript><style>{WITHOUT_SCRIPT}</style></noscript>"
        f"</head><body>{body}<script type='application/json' id='families'>{families}</script><script>{script}</script></body></html>\n"
    )


def _body(found: Found, layer: str) -> str:
    """A section: its sentences, charts and tables, or why there is nothing to ask."""
    said = [f"<p>{escape(line)}</p>" for line in found.lines]
    if not (said or found.charts):
        said = [f"<p class='soft'>{escape(found.reason)}</p>"]
    charts = [chart.html(layer) for chart in found.charts]
    shown = [_folded_if_long(rows, caption) for rows, caption in found.shown]
    return "\n".join([*said, *charts, *shown])


def _folded_if_long(rows: pd.DataFrame, caption: str) -> str:
    """A table that would fill the screen opens on demand, under the first sentence of its caption."""
    if len(rows) <= LONG:
        return table(rows, caption)
    return f"<details><summary>{escape(caption.split('. ')[0].split(': ')[0])} ({len(rows)} rows)</summary>{table(rows, caption)}</details>"


def _association(associations: pd.DataFrame) -> str:
    if associations.empty:
        return f"<p class='soft'>{NO_SPREAD}</p>"
    of_gap = associations[(associations["moment"] == PRIMARY_MOMENT) & (associations["predictor"] == PRIMARY_PREDICTOR)]
    primary = of_gap[of_gap["measure"] == PRIMARY_MEASURE]
    if primary.empty:
        parts = [f"<p class='soft'>{NO_SPREAD}</p>"]
    else:
        declared = f"Declared: measure {PRIMARY_MEASURE}, at the end of training, by {PRIMARY_PREDICTOR}. {_estimators(primary)}"
        parts = [_associations(primary, declared, ["measure", "moment", "predictor"])]
    for summary, rows in (("Other measures", of_gap), ("All moments and predictors", associations)):
        parts.append(f"<details><summary>{summary} (exploratory)</summary>{_associations(rows, _estimators(rows))}</details>")
    return "\n".join(parts)


def _happy(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "<p class='soft'>No family has representations at the end of training that could be compared.</p>"
    primary, others = rows[rows["measure"] == PRIMARY_MEASURE], rows[rows["measure"] != PRIMARY_MEASURE]
    more = report_networks.happy_unhappy(others)
    folded = f"<details><summary>Other measures (exploratory)</summary>{more}</details>" if len(others) else ""
    return report_networks.happy_unhappy(primary) + folded


def _beside(found: Everything) -> str:
    none = "<p class='soft'>No score of families could be compared with the gap.</p>"
    chart = found.beside.html() if found.beside is not None else none
    tables = "\n".join(report_networks.beside(found.annak, found.predictors, found.partial))
    summary = "As tables: scores, what is left of spread given a third number, the model test"
    return f"{chart}<details><summary>{summary}</summary>{tables}</details>"


def _estimators(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    row, scheme = rows.iloc[0], rows["scheme"]
    measures = "; ".join(f"{name}: spread is {spread_title(name, rows)}" for name in dict.fromkeys(rows["measure"]))
    return (
        f"rho: correlation of {told(scheme, 'ranked')} ({measures}); 95 % interval from {row['num_bootstrap']} bootstrap resamples of "
        f"{told(scheme, 'resampled')}; two-sided p from {row['num_permutations']} exchanges of {told(scheme, 'exchanged')}, adjusted over "
        f"layers by max-T; detectable: what would have been found with 80 % power; tau: Kendall's tau-b over {told(scheme, 'pairs')}; "
        f"functions left in: rho and its p, unadjusted, {told(scheme, 'left_in')}; all: Spearman over all families, which are not "
        f"independent; seed {row['seed']}."
    )


def _associations(rows: pd.DataFrame, caption: str, said: Sequence[str] = ()) -> str:
    """`said` are columns that the caption stands for."""
    return table(
        pd.DataFrame(
            {
                "measure": rows["measure"],
                "moment": rows["moment"].where(rows["epoch"].isna(), "epoch " + rows["epoch"].astype("string")),
                "layer": rows["layer"],
                "predictor": rows["predictor"],
                "rho": rows["rho"],
                "95 % interval": [interval(*pair) for pair in zip(rows["rho_low"], rows["rho_high"], strict=True)],
                "p": rows["p"],
                "p (max-T)": rows["p_adjusted"],
                "verdict": rows["verdict"],
                "detectable": rows["detectable_rho"],
                "weighted": rows["rho_weighted"],
                "tau": rows["tau"],
                "functions left in": [with_p(*pair) for pair in zip(rows["rho_blocks"], rows["p_blocks"], strict=True)],
                "all": rows["rho_all"],
                "families": rows["num_families"],
                "alone": rows["num_alone"],
                "dropped": rows["num_dropped"],
                "reason": rows["reason"].map(lambda reason: reason or ""),
            }
        ).drop(columns=list(said)),
        caption,
    )


def _extremes(spreads: pd.DataFrame, gaps: pd.DataFrame, num_rows: int = 5) -> str:
    """The families of largest and smallest spread, averaged over layers, under the primary measure and moment."""
    chosen = spreads[(spreads["measure"] == PRIMARY_MEASURE) & (spreads["moment"] == PRIMARY_MOMENT)]
    chosen = chosen[comparable(chosen)]
    if chosen.empty:
        return f"<p class='soft'>{NO_SPREAD}</p>"
    mean = chosen.groupby("trial", as_index=False).agg(
        schedule=("schedule", "first"),
        spread=("spread", "mean"),
        layers=("spread", "count"),
        replicas=("num_replicas", "min"),
    )
    mean = mean.merge(gaps[["trial", PRIMARY_PREDICTOR, f"{PRIMARY_PREDICTOR}_se"]], on="trial", how="left")
    mean = mean.dropna(subset="spread").sort_values(["spread", "trial"], ascending=[False, True], ignore_index=True)
    mean.insert(0, "rank", mean.index + 1)
    if len(mean) > 2 * num_rows:
        mean = pd.concat([mean.head(num_rows), mean.tail(num_rows)])
    mean = mean.rename(columns={f"{PRIMARY_PREDICTOR}_se": "SE of the gap", "replicas": "replicas (fewest)"})
    return table(
        mean,
        f"By spread ({spread_title(PRIMARY_MEASURE, chosen)}) at {PRIMARY_MOMENT}, mean over layers; "
        f"{PRIMARY_PREDICTOR} is the mean over replicas that did not diverge, SE its standard error.",
    )


def _reproduce(found: Everything) -> str:
    name = escape(found.name)
    commands = (
        f"<pre>python -m sweep.run --config {name}/sweep.yaml   # runs only what is missing\n"
        f"python -m analysis {name}   # rebuilds this page and analysis/*.parquet from the tables</pre>"
    )
    if not found.sweep_file:
        return f"{commands}<p class='soft'>There is no sweep.yaml beside these results.</p>"
    return f"{commands}<details><summary>The whole configuration, sweep.yaml</summary><pre>{escape(found.sweep_file)}</pre></details>"


def _analysed_with(associations: pd.DataFrame) -> dict[str, str]:
    """What made the numbers of this page, seeds included."""
    packages = {"python": platform.python_version(), "numpy": np.__version__, "pandas": pd.__version__, "scipy": scipy.__version__}
    if associations.empty:
        return packages
    row = associations.iloc[0]
    return packages | {
        "seed": str(row["seed"]),
        "permutations": str(row["num_permutations"]),
        "bootstrap resamples": str(row["num_bootstrap"]),
    }
