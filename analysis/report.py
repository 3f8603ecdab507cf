"""One self-contained HTML page: question, answer with its n and interval, figures, tables, failures, provenance."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from analysis import report_networks
from analysis.akp import BOUND, PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR, Verdict
from analysis.html import interval, table, with_p
from analysis.html import number as number
from analysis.measures.generalization import PREDICTORS
from analysis.question import Found
from analysis.spreads import comparable, spread_title
from analysis.wording import counted, told

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5d6670; --paper: #ffffff; --card: #f4f6f8;
        --line: #d9dee3; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9aa5b0; --paper: #14181c; --card: #1d2328; --line: #343c44; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
p.soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
.verdict { background: var(--card); border-left: 5px solid var(--accent); border-radius: 6px; padding: 1rem 1.25rem;
           margin: 1.5rem 0; }
.verdict strong { display: block; font-size: 1.5rem; color: var(--accent); }
figure { margin: 1.2rem 0; } img { width: 100%; height: auto; border-radius: 6px; background: #fff; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { text-align: left; padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; } th { color: var(--soft); font-weight: 600; }
code, pre { font: .85rem/1.5 ui-monospace, monospace; }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
"""

INTRODUCTION = f"""<p>The <b>Anna Karenina principle</b> (AKP) says yes. Each family is one training recipe, run with
several seeds; its <b>spread</b> is how far apart its replicas are in representation, on the same probe samples.
The primary question was declared before any data were seen: measure {PRIMARY_MEASURE}, moment {PRIMARY_MOMENT},
predictor {PRIMARY_PREDICTOR} ({escape(PREDICTORS[PRIMARY_PREDICTOR])}, against the labels trained on). AKP, anti-AKP,
mixed, no effect and undecided are all possible answers; everything but the primary question is exploratory. No effect means
that the 95 % interval of every layer lies within ±{BOUND:g}; where it does not and nothing was found, the answer is undecided, with the
number of families that would decide it."""


def render(
    name: str,
    verdicts: tuple[Verdict, Verdict],
    trials: pd.DataFrame,
    spreads: pd.DataFrame,
    gaps: pd.DataFrame,
    associations: pd.DataFrame,
    happy: pd.DataFrame,
    annak: pd.DataFrame,
    predictors: pd.DataFrame,
    partial: pd.DataFrame,
    figures: Mapping[str, tuple[bytes, str]],
    answered: Sequence[Found],
) -> str:
    """The page. `verdicts` are the declared one and the exploratory one by test error; `trials` is the table of that name.

    `figures` maps a title to a PNG and its caption; `answered` are the further questions, a section each.
    """
    verdict, other = verdicts
    primary = associations[(associations["moment"] == PRIMARY_MOMENT) & (associations["predictor"] == PRIMARY_PREDICTOR)]
    sections = [
        "<h1>Do networks that generalize badly differ more from each other, inside?</h1>",
        f"<p class='soft'>{escape(name)}</p>",
        f"<div class='verdict'><strong>{escape(verdict.answer)}</strong>{escape(verdict.text)}</div>",
        f"<p>{escape(other.text)}</p>",
        f"{INTRODUCTION} {told(associations['scheme'], 'explained')}</p>",
        *_figures(figures),
        "<h2>Association of spread with generalization</h2>",
        _associations(primary, f"At the end of training, predictor {PRIMARY_PREDICTOR}. {_estimators(primary)}"),
        "<details><summary>All moments and predictors (exploratory)</summary>",
        _associations(associations, _estimators(associations)),
        "</details>",
        "<h2>Happy against unhappy families</h2>",
        report_networks.happy_unhappy(happy),
        "<h2>Does spread say more than what is cheaper to know?</h2>",
        *report_networks.beside(annak, predictors, partial),
        *[_section(found) for found in answered],
        "<h2>Most extreme families</h2>",
        _extremes(spreads, gaps),
        "<h2>What failed, diverged or was left out</h2>",
        _left_out(trials, spreads, gaps),
        "<h2>Provenance</h2>",
        _provenance(trials),
        "<h2>Reproduce</h2>",
        f"<pre>python -m sweep.run --config {escape(name)}/sweep.yaml   # runs only what is missing\n"
        f"python -m analysis {escape(name)}   # rebuilds this page and analysis/*.parquet from the tables</pre>",
        "<p class='soft'>Every number here is in <code>analysis/*.parquet</code>, with its estimator, n, interval and seed.</p>",
    ]
    body = "\n".join(sections)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        f"content='width=device-width, initial-scale=1'><title>{escape(name)}: "
        f"{escape(verdict.answer)}</title><style>{STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _figures(figures: Mapping[str, tuple[bytes, str]]) -> list[str]:
    return [
        f"<figure><img alt='{escape(title)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for title, (png, caption) in figures.items()
    ]


def _section(found: Found) -> str:
    """A further question: its sentences, figures and tables, or why there is nothing to ask."""
    said = [f"<p>{escape(line)}</p>" for line in found.lines] or [f"<p class='soft'>{escape(found.reason)}</p>"]
    shown = [table(rows, caption) for rows, caption in found.shown]
    return "\n".join([f"<h2>{escape(found.title)}</h2>", *said, *_figures(found.figures), *shown])


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


def _associations(rows: pd.DataFrame, caption: str) -> str:
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
                "detectable": rows["detectable_rho"],
                "weighted": rows["rho_weighted"],
                "tau": rows["tau"],
                "functions left in": [with_p(*pair) for pair in zip(rows["rho_blocks"], rows["p_blocks"], strict=True)],
                "all": rows["rho_all"],
                "families": rows["num_families"],
                "alone": rows["num_alone"],
                "dropped": rows["num_dropped"],
                "verdict": rows["verdict"] + rows["reason"].map(lambda reason: f" ({reason})" if reason else ""),
            }
        ),
        caption,
    )


def _extremes(spreads: pd.DataFrame, gaps: pd.DataFrame, num_rows: int = 5) -> str:
    """The families of largest and smallest spread, averaged over layers, under the primary measure and moment."""
    chosen = spreads[(spreads["measure"] == PRIMARY_MEASURE) & (spreads["moment"] == PRIMARY_MOMENT)]
    chosen = chosen[comparable(chosen)]
    if chosen.empty:
        return "<p class='soft'>none</p>"
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


def _left_out(trials: pd.DataFrame, spreads: pd.DataFrame, gaps: pd.DataFrame) -> str:
    status = trials["status"].value_counts()
    done = trials[trials["status"] == "done"]
    statuses = [f"{counted(count, 'family')} {escape(str(name))}" for name, count in status.items()]
    lines = [
        f"<p>{', '.join(statuses) or 'no families'}; "
        f"{int(gaps['num_diverged'].sum())} of {int(gaps['num_replicas'].sum())} replicas diverged, in "
        f"{counted(int((gaps['num_diverged'] > 0).sum()), 'family')}; {counted(done['base'].nunique(), 'base recipe')} among those done; "
        f"{counted(spreads['trial'].nunique(), 'family')} compared here.</p>"
    ]
    dropped = spreads[(spreads["num_dropped"] > 0) & (spreads["measure"] == spreads["measure"].min())]
    if len(dropped):
        lines.append(
            table(
                dropped.groupby(["moment", "layer"], sort=False, as_index=False).agg(
                    replicas_dropped=("num_dropped", "sum"),
                    families_affected=("trial", "nunique"),
                    families_without_spread=("spread", lambda values: int(values.isna().sum())),
                ),
                "Replicas that diverged, or whose representation is constant or not finite, have no distance to others.",
            )
        )
    failed = trials[trials["status"] != "done"]
    if len(failed):
        lines.append(table(failed[["trial", "schedule", "status", "error_type", "error_message"]]))
    return "\n".join(lines)


def _provenance(trials: pd.DataFrame) -> str:
    facts: dict[str, set[str]] = {}
    for text in trials["provenance"].dropna():
        for key, value in json.loads(text).items():
            facts.setdefault(str(key), set()).add(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
    for column in ("dataset", "base", "device", "host"):
        facts[column] = set(trials[column].dropna())
    rows = pd.DataFrame([(key, "; ".join(sorted(values))) for key, values in facts.items() if values], columns=["what", "value"])
    hours = (trials["train_s"].sum() + trials["record_s"].sum()) / 3600
    recipes = "".join(
        f"<details><summary>base recipe {escape(str(base))}</summary><pre>{escape(_indented(group['recipe'].iloc[0]))}</pre></details>"
        for base, group in trials.dropna(subset="recipe").groupby("base")
    )
    spent = f"<p class='soft'>{hours:.3g} hours of training and recording in the latest attempts.</p>"
    return f"{table(rows)}{spent}{recipes}"


def _indented(text: str) -> str:
    return json.dumps(json.loads(text), indent=2)
