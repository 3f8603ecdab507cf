"""In what two families or two sweeps differ: configuration, provenance, and results with intervals. Tables in, tables out.

Differences are b - a. Two families whose replicas have the same seeds are compared seed by seed, as these share initial weights and data
order. Two sweeps are compared over the schedules that both have. Intervals are of 95 %.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from analysis import tables
from analysis.activations import known
from analysis.measures.generalization import PREDICTORS, gaps
from analysis.results import Results
from analysis.spreads import CONFIDENCE
from analysis.verdict import PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR

QUANTITIES = ("train_accuracy", "val_accuracy", "test_accuracy", "gap_accuracy", "gap_cross_entropy")
NUM_BOOTSTRAP, SEED = 2000, 0
COLUMNS = ["quantity", "a", "b", "difference", "low", "high", "n", "estimator"]
PAIRED = "mean over replicas, paired by seed; t interval"
APART = "mean over replicas; Welch's t interval"
SPREAD_PAIRED = "1 - mean CKA over pairs, end; percentile bootstrap over replicas, the same seeds drawn in both"
SPREAD_APART = "1 - mean CKA over pairs, end; percentile bootstrap over replicas of each"
MATCHED = "mean over the schedules of both (n: schedules in first phases); percentile bootstrap of first phases, then of schedules"
CORRELATION = "correlation of aligned ranks of spread and gap, as in the verdict"
INDEPENDENT = f"{CORRELATION}; interval of the difference from theirs (Zou 2007), the sweeps taken as independent"
DEPENDENT = f"{CORRELATION}; no interval of the difference, as the sweeps share families"


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `a` and `b` differ in. `results` has a row per quantity: a, b, difference (b - a), its interval low to high, n and estimator."""

    a: str
    b: str
    configuration: pd.DataFrame  # key, a, b: what differs
    provenance: pd.DataFrame  # key, a, b: what differs
    results: pd.DataFrame
    notes: list[str]

    def records(self) -> dict[str, Any]:
        """As JSON has it: lists of rows, null for what is not there."""
        found: dict[str, Any] = {"a": self.a, "b": self.b, "notes": self.notes}
        for name in ("configuration", "provenance", "results"):
            found[name] = json.loads(getattr(self, name).to_json(orient="records", default_handler=str, double_precision=12))
        return found

    def shown(self) -> pd.DataFrame:
        """`results` for people."""
        rows = self.results
        interval = [_interval(row) for row in rows.to_dict("records")]
        columns = {"quantity": rows["quantity"], "a": rows["a"].map(_number), "b": rows["b"].map(_number), "b - a [95 %]": interval}
        return pd.DataFrame(columns | {"n": rows["n"], "estimator": rows["estimator"]})

    def __repr__(self) -> str:
        parts = [f"a: {self.a}\nb: {self.b}"]
        for title, table in (("configuration", self.configuration), ("provenance", self.provenance), ("results", self.shown())):
            parts.append(f"{title}: {'no difference' if table.empty else chr(10) + table.to_string(index=False)}")
        return "\n\n".join([*parts, *self.notes])

    def _repr_html_(self) -> str:
        parts = [f"<p>a: {escape(self.a)}<br>b: {escape(self.b)}</p>"]
        for title, table in (("configuration", self.configuration), ("provenance", self.provenance), ("results", self.shown())):
            parts.append(f"<h4>{title}</h4>" + ("<p>no difference</p>" if table.empty else table.to_html(index=False, border=0)))
        return "".join([*parts, *(f"<p>{escape(note)}</p>" for note in self.notes)])


def families(a: Results, trial_a: str, b: Results, trial_b: str) -> Comparison:
    """Compare two families, each in its results. Raises UnknownName for an id that is not there."""
    results, ids = (a, b), (trial_a, trial_b)
    rows = [_row(r, t) for r, t in zip(results, ids, strict=True)]
    configurations = [_flat({"schedule": row["schedule"]} | _json(row["recipe"])) for row in rows]
    told = ("status", "error_type", "error_message", "device", "host", "train_s", "record_s", "started_from", "finished_at")
    provenances = [_flat({key: row[key] for key in told} | _json(row["provenance"])) for row in rows]
    replicas = [r.replicas[r.replicas["trial"] == t].sort_values("replica") for r, t in zip(results, ids, strict=True)]
    found, notes = [], []
    if all(len(table) for table in replicas):
        seeds = [table["seed"].tolist() for table in replicas]
        paired = seeds[0] == seeds[1]
        for quantity in QUANTITIES:
            x, y = (table[quantity].where(table["diverged_at"].isna()).to_numpy(np.float64) for table in replicas)
            found.append({"quantity": quantity, **_means(x, y, paired)})
        spreads = [r.spread(moment=PRIMARY_MOMENT, measure=PRIMARY_MEASURE, trials=[t]) for r, t in zip(results, ids, strict=True)]
        found += _spread_rows(spreads[0], spreads[1], paired)
        if ids[0] != ids[1] and rows[0]["control"] == rows[1]["control"]:
            notes.append("Both continue from one control: what they share of its training is in neither difference.")
    else:
        notes.append("A family without replicas has no results to compare: its status is in the provenance.")
    first, second = (f"{t} in {r.store.root}" for r, t in zip(results, ids, strict=True))
    return Comparison(first, second, _differing(*configurations), _differing(*provenances), _table(found), notes)


def sweeps(a: Results, b: Results) -> Comparison:
    """Compare two sweeps: their sweep files, what they ran on, and what they found."""
    files = [_flat(yaml.safe_load(r.store.read("sweep.yaml")) or {}) if r.store.exists("sweep.yaml") else {} for r in (a, b)]
    done = [r.trials[r.trials["status"] == "done"] for r in (a, b)]
    shared = sorted(set(done[0]["trial"]) & set(done[1]["trial"]))
    notes = [f"{len(done[0])} families are done in a, {len(done[1])} in b, {len(shared)} in both."]
    if shared:
        same = sum(_same_numbers(a, b, trial) for trial in shared)
        notes[0] += f" Of these {same} have the same numbers of all replicas, bit for bit."
    found = _matched_rows(a, b, notes) + _correlation_rows(a, b, bool(shared))
    answers = [r.verdict().answer for r in (a, b)]
    notes.append(f"Verdict by {PRIMARY_PREDICTOR}: a {answers[0]}, b {answers[1]}.")
    return Comparison(
        a.store.root, b.store.root, _differing(*files), _differing(_provenance(a.trials), _provenance(b.trials)), _table(found), notes
    )


def _row(results: Results, trial: str) -> pd.Series:
    return results.trials[results.trials["trial"] == known("family", trial, results.trials["trial"], results.store.root)].iloc[0]


def _means(x: np.ndarray, y: np.ndarray, paired: bool) -> dict[str, Any]:
    """Two means over replicas `[replica]`, NaN for those that diverged, and their difference."""
    if paired:
        there = np.isfinite(x) & np.isfinite(y)
        values, estimator = (y - x)[there], PAIRED
        n, error, freedom = str(len(values)), stats.sem(values) if len(values) > 1 else np.nan, len(values) - 1.0
        x, y = x[there], y[there]
    else:
        x, y = x[np.isfinite(x)], y[np.isfinite(y)]
        of = [np.var(v, ddof=1) / len(v) if len(v) > 1 else np.nan for v in (x, y)]
        n, error, estimator = f"{len(x)} + {len(y)}", np.sqrt(sum(of)), APART
        freedom = float(np.divide(sum(of) ** 2, sum(v**2 / (len(z) - 1) for v, z in zip(of, (x, y), strict=True)))) if error > 0 else np.inf
    means = [float(v.mean()) if len(v) else np.nan for v in (x, y)]
    difference = means[1] - means[0]
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error if np.isfinite(error) else np.nan
    return dict(zip(COLUMNS[1:], (*means, difference, difference - half, difference + half, n, estimator), strict=True))


def _spread_rows(a: pd.DataFrame, b: pd.DataFrame, paired: bool) -> list[dict[str, Any]]:
    """A row per layer that both families have."""
    rows = []
    for layer in [layer for layer in a["layer"] if layer in set(b["layer"])]:
        x, y = (np.asarray(t.loc[t["layer"] == layer, "pairs"].iloc[0], dtype=np.float64) for t in (a, b))
        generator = np.random.default_rng(SEED)
        first = _drawn(x, generator)
        second = _drawn(y, np.random.default_rng(SEED) if paired and len(x) == len(y) else generator)
        values = [float(t.loc[t["layer"] == layer, "spread"].iloc[0]) for t in (a, b)]
        low, high = _percentiles(second - first)
        n = " + ".join(str(int(t.loc[t["layer"] == layer, "num_replicas"].iloc[0])) for t in (a, b))
        estimator = SPREAD_PAIRED if paired else SPREAD_APART
        numbers = (*values, values[1] - values[0], low, high, n, estimator)
        rows.append({"quantity": f"spread of {layer}", **dict(zip(COLUMNS[1:], numbers, strict=True))})
    return rows


def _drawn(pairs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Spreads `[resample]` over draws of replicas with replacement; a pair of a replica with itself is dropped."""
    m = round((1 + np.sqrt(1 + 8 * len(pairs))) / 2)
    counts = generator.multinomial(m, np.full(m, 1 / m), size=NUM_BOOTSTRAP)
    first, second = np.triu_indices(m, 1)
    there = np.isfinite(pairs)
    weights = (counts[:, first] * counts[:, second] * there).astype(np.float64)
    total = weights.sum(axis=1)
    return np.where(total > 0, weights @ np.where(there, pairs, 0.0) / np.maximum(total, 1.0), np.nan)


def _matched_rows(a: Results, b: Results, notes: list[str]) -> list[dict[str, Any]]:
    """Mean gaps, test error and spreads over the schedules that both sweeps have."""
    sides = []
    for r in (a, b):
        spread = r.spread(moment=PRIMARY_MOMENT, measure=PRIMARY_MEASURE) if PRIMARY_MOMENT in r.moments else r.spread().iloc[:0]
        wide = spread.pivot_table(index="trial", columns="layer", values="spread", sort=False).add_prefix("spread of ")
        table = gaps(r.replicas).set_index("trial")[list(PREDICTORS)].join(wide, how="inner")
        sides.append(table.join(r.trials.set_index("trial")["schedule"]).groupby("schedule").mean())
    both = sides[0].index.intersection(sides[1].index)
    notes.append(f"{len(both)} schedules are in both: {len(sides[0])} in a, {len(sides[1])} in b.")
    if not len(both):
        return []
    x, y = (side.loc[both] for side in sides)
    controls = pd.Series(both, index=both).str.split(" ").str[0]
    weights = _nested(controls.to_numpy(), np.random.default_rng(SEED))
    rows = []
    for quantity in [q for q in x.columns if q in y.columns]:
        difference = (y[quantity] - x[quantity]).to_numpy(np.float64)
        there = np.isfinite(difference)
        total = weights[:, there].sum(axis=1)
        drawn = weights[:, there] @ difference[there] / np.where(total > 0, total, np.nan)
        low, high = _percentiles(drawn) if controls[there].nunique() > 1 else (np.nan, np.nan)
        means = [float(side[quantity][there].mean()) for side in (x, y)]
        numbers = (*means, means[1] - means[0], low, high, f"{int(there.sum())} in {controls[there].nunique()}", MATCHED)
        rows.append({"quantity": quantity, **dict(zip(COLUMNS[1:], numbers, strict=True))})
    return rows


def _nested(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """How often each item `[resample, item]` is drawn: groups with replacement, then items within each group drawn."""
    names = np.unique(groups)
    weights = np.zeros((NUM_BOOTSTRAP, len(groups)))
    times = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=NUM_BOOTSTRAP)
    for group, count in zip(names, times.T, strict=True):
        items = np.flatnonzero(groups == group)
        weights[:, items] = generator.multinomial(count * len(items), np.full(len(items), 1 / len(items)))
    return weights


def _correlation_rows(a: Results, b: Results, shared: bool) -> list[dict[str, Any]]:
    """The correlation of spread and gap per layer; no interval of the difference where the sweeps share families."""
    tested = []
    for r in (a, b):
        rows = r.associations()
        chosen = (rows["measure"] == PRIMARY_MEASURE) & (rows["moment"] == PRIMARY_MOMENT) & (rows["predictor"] == PRIMARY_PREDICTOR)
        tested.append(rows[chosen & rows["rho"].notna()].set_index("layer"))
    found = []
    for layer in tested[0].index.intersection(tested[1].index, sort=False):
        x, y = (table.loc[layer] for table in tested)
        low, high = (np.nan, np.nan) if shared else _zou(x, y)
        n = f"{int(x['num_families'])} + {int(y['num_families'])}"
        estimator = DEPENDENT if shared else INDEPENDENT
        numbers = (float(x["rho"]), float(y["rho"]), float(y["rho"] - x["rho"]), low, high, n, estimator)
        found.append({"quantity": f"rho in {layer}", **dict(zip(COLUMNS[1:], numbers, strict=True))})
    return found


def _zou(a: pd.Series, b: pd.Series) -> tuple[float, float]:
    """Interval of rho_b - rho_a from both intervals (Zou 2007, Psychological Methods 12, equations 15 and 16)."""
    difference = b["rho"] - a["rho"]
    low = difference - np.hypot(b["rho"] - b["rho_low"], a["rho_high"] - a["rho"])
    high = difference + np.hypot(b["rho_high"] - b["rho"], a["rho"] - a["rho_low"])
    return float(low), float(high)


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < NUM_BOOTSTRAP / 2:
        return np.nan, np.nan
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _same_numbers(a: Results, b: Results, trial: str) -> bool:
    stable = tables.TABLES["replicas"].stable
    left, right = (r.replicas.loc[r.replicas["trial"] == trial, stable].reset_index(drop=True) for r in (a, b))
    return bool(left.equals(right))


def _provenance(trials: pd.DataFrame) -> dict[str, Any]:
    """What a sweep's families ran on: each key with all its values."""
    counts = {f"families {status}": int(number) for status, number in trials["status"].value_counts().items()}
    counts |= {"replicas": int(trials["num_replicas"].sum()), "replicas diverged": int(trials["num_diverged"].fillna(0).sum())}
    seen: dict[str, dict[str, None]] = {}
    for row in trials.drop_duplicates(["provenance", "host", "device"]).to_dict("records"):
        for key, value in _flat({"host": row["host"], "device": row["device"]} | _json(row["provenance"])).items():
            seen.setdefault(key, {})[str(value)] = None
    return counts | {key: ", ".join(sorted(values)) for key, values in seen.items()}


def _json(text: Any) -> dict[str, Any]:
    found = json.loads(text) if isinstance(text, str) and text else {}
    return found if isinstance(found, dict) else {}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{path}.{key}".lstrip("."))
    return found


def _differing(a: dict[str, Any], b: dict[str, Any]) -> pd.DataFrame:
    """key, a, b: where they differ. Missing numbers are equal."""

    def shown(found: dict[str, Any], key: str) -> str | None:
        value = found.get(key)
        return None if key not in found or (value is None or value is pd.NaT or value != value) else str(value)

    rows = [(key, shown(a, key), shown(b, key)) for key in dict.fromkeys([*a, *b])]
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=["key", "a", "b"], dtype=object)


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"


def _interval(row: dict[Hashable, Any]) -> str:
    ends = f" [{row['low']:+.4f}, {row['high']:+.4f}]" if row["low"] == row["low"] else ""
    return "–" if row["difference"] != row["difference"] else f"{row['difference']:+.4f}{ends}"
