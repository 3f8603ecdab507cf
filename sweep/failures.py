"""Failures by cause: which families failed alike, what they share that others do not, and how to run exactly these again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis import tables
from analysis.storage import Store
from analysis.wording import counted
from sweep.config import ConfigError, near
from sweep.plan import Plan, readable_trials
from sweep.records import FailedGroup, SharedValue

# The columns of `trials` that say what a family is; the rest of it is in `recipe`.
DESCRIPTION = ["swapped", "num_swaps", "swap_epoch", "first_activation", "first_loss", "last_activation", "last_loss"]
COLUMNS = ["trial", "schedule", "base", "status", "error_type", "error_message", "traceback", "recipe", "host", *DESCRIPTION]
LAST_LINES = 6
_SAME = ["base", "schedule"]  # what a family is for the user, whatever the source of the functions that it names


@dataclass(frozen=True)
class Group:
    """Families that failed alike: the same exception, with messages that differ in numbers and addresses only.

    `shared` has the values, by key, that all of them have; the first are the rarest among the families that did not fail this way.
    Beside each stands the number of those that have it too, and of how many.
    """

    kind: str
    message: str
    trials: list[str]
    schedules: list[str]
    hosts: list[str]
    shared: list[tuple[str, Any, int, int]]
    last_lines: list[str]

    def record(self, again: str) -> FailedGroup:
        """For `--json`; `again` is what runs the sweep again."""
        return FailedGroup(
            error_type=self.kind,
            error_message=self.message,
            trials=self.trials,
            schedules=self.schedules,
            hosts=self.hosts,
            shared=[SharedValue(key=key, value=value, num_others=num, of_others=of) for key, value, num, of in self.shared],
            last_lines=self.last_lines,
            again=f"{again} --retry {','.join(self.trials)}",
        )


def standing(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `trials` without those of families that came out well since: a user's function that was mended has given them other ids."""
    well = rows[rows["status"].isin(["done", "pruned"])]
    is_past = ~rows["trial"].isin(well["trial"]) & pd.MultiIndex.from_frame(rows[_SAME]).isin(pd.MultiIndex.from_frame(well[_SAME]))
    return rows[~is_past]


def groups(rows: pd.DataFrame) -> list[Group]:
    """The failed families of `trials` (columns COLUMNS), grouped, the largest group first."""
    failed = rows[rows["status"] == "failed"]
    values = {row["trial"]: _values(row) for row in rows.to_dict("records") if row["status"] in ("done", "failed")}
    alike = failed["error_message"].fillna("").map(lambda message: re.sub(r"0x[0-9a-f]+|\d+", "#", message))
    found = []
    for (kind, _), group in failed.groupby([failed["error_type"].fillna("?"), alike]):
        members = group["trial"].tolist()
        others = [known for trial, known in values.items() if trial not in set(members)]
        lines = str(group["traceback"].iloc[0]).strip().splitlines()[-LAST_LINES:]
        shared = _shared([values[trial] for trial in members], others)
        hosts = sorted(group["host"].dropna().unique())
        found.append(Group(str(kind), str(group["error_message"].iloc[0]), members, group["schedule"].tolist(), hosts, shared, lines))
    return sorted(found, key=lambda group: -len(group.trials))


def _values(row: dict[Any, Any]) -> dict[str, str]:
    """What a family is, flat: the schedule's parts, and the keys of the recipe."""
    described = {key: row[key] for key in DESCRIPTION if not pd.isna(row[key])}
    recipe = json.loads(row["recipe"] or "{}")
    parts = {**recipe.get("base", {}), "data": recipe.get("data"), "probes": recipe.get("probes")}
    return {key: json.dumps(value, default=str) for key, value in (described | flat(parts)).items()}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys."""
    if not isinstance(value, dict):
        return {path: value}
    return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{path}.{name}".lstrip(".")).items()}


def _shared(failed: list[dict[str, str]], others: list[dict[str, str]]) -> list[tuple[str, Any, int, int]]:
    """What all the failed have and not all the others, the rarest among those first."""
    common = set.intersection(*(set(values.items()) for values in failed))
    counts = [(key, json.loads(value), sum(other.get(key) == value for other in others)) for key, value in sorted(common)]
    return sorted(((k, v, n, len(others)) for k, v, n in counts if n < len(others)), key=lambda item: item[2])


def to_retry(plan: Plan, store: Store, retry: str) -> Plan:
    """The plan of what `--retry` names: `all` that remains, the `failed` with what was skipped for them, or ids, separated by commas.

    What these continue from comes along where it is not there. Raises ConfigError for ids that are no family or are done.
    """
    if retry == "all":
        return plan
    if retry == "failed":
        rows = _past(store)
        wanted = _today(plan, rows[rows["status"].isin(["failed", "skipped"])])
    else:
        rows = _past(store)
        wanted = {
            found for name in retry.split(",") for found in _today(plan, rows[rows["trial"] == name.strip()]) or {_one(plan, name.strip())}
        }
    return replace(plan.only(_with_parents(plan, wanted)), num_unproposed=0)


def _past(store: Store) -> pd.DataFrame:
    readable, _ = readable_trials(store, tables.names(store, "trials"))
    return tables.read(store, "trials", ["trial", "status", *_SAME], readable["trial"])


def _today(plan: Plan, rows: pd.DataFrame) -> set[str]:
    """The remaining families that rows of `trials` are about, under the ids that they have with today's functions."""
    wanted = set(rows[_SAME].itertuples(index=False, name=None))
    return {trial for trial, planned in plan.remaining.items() if (planned.base.name, str(planned.schedule)) in wanted}


def _one(plan: Plan, name: str) -> str:
    found = [trial for trial in plan.remaining if name and trial.startswith(name)]
    if len(found) == 1:
        return found[0]
    if any(name and trial.startswith(name) for trial in plan.families):
        raise ConfigError("--retry", [f"{name!r} names {counted(len(found), 'family')} to run" if found else f"{name!r} is done already"])
    hint = near(name, ["failed", "all", *plan.remaining])
    raise ConfigError("--retry", [f"{name!r} is no family of this sweep; {hint}allowed: failed, all, or ids separated by commas"])


def _with_parents(plan: Plan, trials: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for trial in trials:
        at: str | None = trial
        while at is not None and at not in found:
            found.add(at)
            at = plan.remaining[at].parent
    return found
