"""The table `runs`: what each run of the command set out to do, and what became of it. All of it is timings and provenance."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from analysis.schema import FLAG, INT, TEXT, VERSION, Column, Table

RUNS = Table(
    "runs",
    "a run of the command that had families to train, however it ended",
    (
        VERSION,
        *(
            replace(column, volatile=True)
            for column in (
                Column("run", TEXT, "id of the run: r and when it started"),
                Column("started_at", pa.timestamp("ms", tz="UTC"), "when the run started"),
                Column("seconds", pa.float64(), "wall time from the start of Ray until the last family had ended", "s"),
                Column("interrupted", FLAG, "whether the run was stopped before all families had ended"),
                Column("families", INT, "families that the run set out to train"),
                Column("families_done", INT, "of those, families that are done"),
                Column("families_left_out", INT, "families left for later by a budget"),
                Column("slots", INT, "families that train at once"),
                Column("num_deaths", INT, "workers that died; what they had not reported is in no count"),
                Column("replica_epochs_planned", pa.int64(), "epochs to train over all replicas, shared prefixes once", "epochs"),
                Column("replica_epochs", pa.int64(), "epochs trained over all replicas, all attempts, as reported", "epochs"),
                Column("num_states_planned", INT, "training states alive at once at most, by the plan's simulation"),
                Column("num_states", INT, "training states alive at once at most"),
                Column("predicted_seconds", pa.float64(), "wall time foreseen; null where the cost was unknown", "s"),
                Column("predicted_device_s", pa.float64(), "device time foreseen for all families to train; null where unknown", "s"),
                Column("device_s", pa.float64(), "device time of the families done: training, evaluation, probes and writing", "s"),
                Column("predicted_bytes", pa.float64(), "bytes of tables foreseen", "byte"),
                Column("bytes", pa.int64(), "bytes of the tables of the families done", "byte"),
                Column("source", TEXT, "what the prediction rests on"),
                Column("host", TEXT, "machine that ran the command"),
                Column("provenance", TEXT, "versions, commit and hash of uncommitted changes as JSON"),
            )
        ),
    ),
)
