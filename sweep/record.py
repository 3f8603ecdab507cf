"""The table `runs`: what a run of the command set out to do, and what became of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pyarrow.fs as pafs

from analysis import tables
from analysis.storage import Store, answering
from analysis.wording import counted
from sweep.cost import Cost
from sweep.plan import Plan
from sweep.tuner import Outcome
from sweep.units import duration, size
from trainables.provenance import provenance


def write_run(store: Store, started_at: datetime, seconds: float, cost: Cost, outcome: Outcome, after: Plan) -> str:
    """Write the row of a run, and say it in a line. `cost` is that of the plan that was run, `after` the plan of what is left."""
    plan = cost.plan
    rows = tables.read(store, "trials", ["trial", "train_s", "record_s", "finished_at"], sorted(after.done - plan.done))
    rows = rows[rows["finished_at"] >= started_at.replace(microsecond=0)]  # a search also meets families that were done before
    finished = rows["trial"].tolist()
    row: dict[str, Any] = {
        "run": f"r{started_at:%Y%m%dt%H%M%S%f}",
        "started_at": started_at,
        "seconds": seconds,
        "interrupted": outcome.interrupted,
        "families": len(plan.remaining),
        "families_done": len(finished),
        "families_left_out": len(plan.left_out),
        "slots": cost.slots,
        "num_deaths": outcome.num_deaths,
        "replica_epochs_planned": plan.unique_replica_epochs,
        "replica_epochs": outcome.replica_epochs,
        "num_states_planned": plan.config.search.max_states if plan.num_unproposed else cost.simulation.num_states,
        "num_states": outcome.num_states,
        "predicted_seconds": cost.simulation.seconds if cost.is_known else None,
        "predicted_device_s": cost.total_s if cost.is_known else None,
        "device_s": float((rows["train_s"] + rows["record_s"]).sum()),
        "predicted_bytes": cost.total_bytes,
        "bytes": _bytes_of(store, finished),
        "source": cost.source,
        "host": platform.node(),
        "provenance": json.dumps(provenance(), sort_keys=True),
    }
    tables.write(store, "runs", row["run"], {name: [value] for name, value in row.items()})
    return _line(row)


def _bytes_of(store: Store, families: Iterable[str]) -> int:
    """Bytes of all tables of some families."""
    files = {f"{trial}.parquet" for trial in families}
    found = 0
    for table in tables.TABLES:
        with answering(f"{store.root}/{table}"):
            infos = store.filesystem.get_file_info(pafs.FileSelector(store.path(table), allow_not_found=True))
        found += sum(info.size for info in infos if info.base_name in files)
    return found


def _line(row: dict[str, Any]) -> str:
    trained, planned = row["replica_epochs"], row["replica_epochs_planned"]
    parts = [f"trained {trained:,} replica-epochs, planned {planned:,}"]
    if row["num_deaths"]:
        parts[0] += f" ({counted(row['num_deaths'], 'worker')} died: what had not been reported was trained again and is in no count)"
    foreseen = "unknown" if row["predicted_device_s"] is None else duration(row["predicted_device_s"])
    parts.append(f"{duration(row['device_s'])} of device time, foreseen {foreseen}")
    parts.append(f"{size(row['bytes'])} of tables, foreseen {size(row['predicted_bytes'])}")
    parts.append(f"at most {counted(row['num_states'], 'training state')} at once, foreseen {row['num_states_planned']}")
    return "; ".join(parts)
