"""The end of the page: what failed and diverged, what it cost, and what made it."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import pandas as pd

from analysis.html import number, table
from analysis.spreads import stated
from analysis.wording import counted

COSTS = {
    "device time (h)": ("predicted_device_s", "device_s", 3600),
    "wall time (h)": ("predicted_seconds", "seconds", 3600),
    "replica-epochs": ("replica_epochs_planned", "replica_epochs", 1),
    "training states alive at once": ("num_states_planned", "num_states", 1),
    "tables (MB)": ("predicted_bytes", "bytes", 1e6),
}


def left_out(trials: pd.DataFrame, spreads: pd.DataFrame, gaps: pd.DataFrame, replicas: pd.DataFrame) -> str:
    """Failures grouped by what they share, replicas that diverged, and what has no distance to others."""
    done = trials[trials["status"] == "done"]
    statuses = [f"{counted(count, 'family')} {escape(str(name))}" for name, count in trials["status"].value_counts().items()]
    parts = [
        f"<p>{', '.join(statuses) or 'no families'}; "
        f"{int(gaps['num_diverged'].sum())} of {int(gaps['num_replicas'].sum())} replicas diverged, in "
        f"{counted(int((gaps['num_diverged'] > 0).sum()), 'family')}; {counted(done['base'].nunique(), 'base recipe')} among those done; "
        f"{counted(spreads['trial'].nunique(), 'family')} compared here.</p>"
    ]
    failed = trials[trials["status"] != "done"]
    if len(failed):
        keys = ["status", "error_type", "error_message"]
        shared = failed.groupby(keys, dropna=False, sort=False).agg(families=("trial", "count"), first=("trial", "first")).reset_index()
        parts.append(table(shared, "What failed, by what it has in common. The tracebacks: python -m sweep failures."))
        parts.append(_folded(f"All {counted(len(failed), 'family')}", table(failed[["trial", "schedule", *keys]])))
        parts.append("<pre>python -m sweep.run --config &lt;the same&gt; --retry failed</pre>")
    diverged = replicas[replicas["diverged_at"].notna()]
    if len(diverged):
        rows = diverged.groupby(["trial", "schedule"], as_index=False).agg(
            diverged=("replica", "count"),
            first_at_epoch=("diverged_at", "min"),
            last_at_epoch=("diverged_at", "max"),
        )
        parts.append(_folded(f"Replicas that diverged, in {counted(len(rows), 'family')}", table(rows)))
    dropped = spreads[(spreads["num_dropped"] > 0) & (spreads["measure"] == spreads["measure"].min())]
    if len(dropped):
        parts.append(
            table(
                dropped.groupby(["moment", "layer"], sort=False, as_index=False).agg(
                    replicas_dropped=("num_dropped", "sum"),
                    families_affected=("trial", "nunique"),
                    families_without_spread=("spread", lambda values: int(values.isna().sum())),
                ),
                "Replicas that diverged, or whose representation is constant or not finite, have no distance to others.",
            )
        )
    return "\n".join(parts)


def cost(runs: pd.DataFrame, trials: pd.DataFrame) -> str:
    """What the runs foresaw and what came, summed over runs; states and wall time of the largest run, as these do not add up."""
    hours = (trials["train_s"].sum() + trials["record_s"].sum()) / 3600
    spent = f"<p>{hours:.3g} device-hours of training and recording in the latest attempts of {counted(len(trials), 'family')}.</p>"
    if runs.empty:
        return f"{spent}<p class='soft'>Nothing to hold it against: the table runs has no run of the command.</p>"
    rows = []
    for name, (planned, actual, unit) in COSTS.items():
        both = runs[runs[planned].notna() & runs[actual].notna()]
        how = "max" if actual == "num_states" else "sum"
        foreseen, came = (float(both[column].agg(how)) / unit if len(both) else float("nan") for column in (planned, actual))
        rows.append((name, foreseen, came, came / foreseen if foreseen else float("nan"), how, len(both)))
    found = pd.DataFrame(rows, columns=["what", "planned", "actual", "actual / planned", "over runs", "runs"])
    bars = "".join(_beside(row[0], row[1], row[2]) for row in rows)
    sources = "; ".join(dict.fromkeys(runs["source"].dropna()))
    caption = f"{counted(len(runs), 'run')}, {int(runs['num_deaths'].sum())} workers died. Planned from: {sources or 'unknown'}."
    return f"{spent}<div class='costs'>{bars}</div>{table(found, caption)}"


def _beside(name: str, planned: float, actual: float) -> str:
    """Two bars: planned in grey, actual in colour, the longer one whole."""
    if not (planned >= 0 and actual >= 0 and planned + actual > 0):
        return ""
    longest = max(planned, actual)
    says = f"planned {number(planned)}, actual {number(actual)}"
    return (
        f"<div><span>{escape(name)}</span><svg viewBox='0 0 200 18' width='200' height='18' role='img' aria-label='{says}'>"
        f"<rect class='band' y='1' height='7' width='{200 * planned / longest:.1f}'/>"
        f"<rect class='spread' fill='var(--c)' y='10' height='7' width='{200 * actual / longest:.1f}'/></svg>"
        f"<small>{says}</small></div>"
    )


def provenance(trials: pd.DataFrame, replicas: pd.DataFrame, analysed_with: dict[str, str]) -> str:
    """Versions, commit, hash of what was not committed, hardware, seeds and the base recipes, of all families."""
    facts: dict[str, set[str]] = {}
    for text in trials["provenance"].dropna().unique():
        for key, value in json.loads(text).items():
            if isinstance(value, dict):
                value = ", ".join(f"{name} {version}" for name, version in value.items() if version is not None)
            if value is not None:
                facts.setdefault(str(key), set()).add(str(value))
    if "commit" in facts:
        facts.setdefault("uncommitted", {"nothing"})
    for column in ("dataset", "base", "device", "host"):
        facts[column] = set(trials[column].dropna().astype(str))
    if len(replicas):
        seeds = sorted(int(seed) for seed in replicas["seed"].dropna().unique())
        whole = seeds == list(range(seeds[0], seeds[-1] + 1)) if seeds else False
        facts["seeds of replicas"] = {f"{seeds[0]} to {seeds[-1]}" if whole and len(seeds) > 2 else ", ".join(map(str, seeds))}
    facts["analysed with"] = {", ".join(f"{key} {value}" for key, value in analysed_with.items())}
    rows = pd.DataFrame([(key, "; ".join(sorted(values))) for key, values in facts.items() if values], columns=["what", "value"])
    recipes = "".join(
        _folded(f"base recipe {base}", f"<pre>{escape(_indented(group['recipe'].iloc[0]))}</pre>")
        for base, group in trials.dropna(subset="recipe").groupby("base")
    )
    return f"{table(rows, 'Where families differ in one of these, all values are given.')}{recipes}"


def _indented(text: str) -> str:
    found: Any = json.loads(text)
    return json.dumps(stated(found) if isinstance(found, dict) else found, indent=2)


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
