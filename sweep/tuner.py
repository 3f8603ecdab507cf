"""Builds and runs the Tuner: a fresh one over what remains of a plan. Tune dispatches; the tables are the record."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.storage import Store
from analysis.wording import counted
from sweep import cluster
from sweep.check import families_at_once, num_cpus
from sweep.log import RunLog
from sweep.plan import Plan
from sweep.study import SearchStudy
from trainables.data import source

if TYPE_CHECKING:  # imports Ray, which reads the environment that is set here first
    from trainables.trainable import FamilyTrainable

# Read when Ray is first imported or started: no usage statistics, no per-trial loggers, no tables of Tune's, working directory left alone,
# no snapshots of the experiment for a restore that never happens, and no workers started ahead: `ray.init` waits for them, and for ever
# for one that died before it was known.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_prestart_worker_first_driver": "0",
}


@dataclass(frozen=True)
class Outcome:
    """How a run of a plan ended.

    `failed` holds reasons by trial, skipped families included; `replica_epochs` is what all attempts trained, as far as those of dead
    workers could tell; `num_states` is the most training states that there were at once. Tune's own record of trials is thrown away.
    """

    failed: dict[str, str]
    interrupted: bool
    replica_epochs: int
    num_deaths: int
    num_states: int
    experiment_state_bytes: int


def run_plan(plan: Plan, store: Store, console: RunLog, trainable: type[FamilyTrainable] | None = None) -> Outcome:
    """Run all remaining families on Ray. Returns when all have ended, or after Ctrl-C or SIGTERM, which let nothing half-written behind.

    `trainable` is FamilyTrainable unless given: a benchmark of the driver brings one that does not train.
    """
    os.environ.update(_ENVIRONMENT)
    if cluster.address() is None:
        # The switch that makes a local Ray use 127.0.0.1 as its node's address, and so listen nowhere else; on Linux it is on by default.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    from ray import tune

    from sweep.progress import ProgressLine
    from sweep.searcher import LiveTrials, PrefixSearcher
    from sweep.tracking import trackers
    from trainables.trainable import FamilyTrainable

    resources, stopper = plan.config.resources, None
    study = SearchStudy.create(plan.config, store) if plan.config.search.kind == "optuna" else None
    scratch = tempfile.mkdtemp(prefix="sweep-tune-")
    try:
        with ray_session(num_cpus(plan.config)), _graceful() as stopped:
            there = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # of the cluster joined, or of this machine
            num_slots = max(1, sum(families_at_once(resources, has.get("CPU", 0), has.get("GPU", 0)) for has in there))
            if address := cluster.address():
                totals = ", ".join(f"{sum(has.get(kind, 0) for has in there):g} {kind}s" for kind in ("CPU", "GPU"))
                console.print(f"on the Ray cluster at {address}: {counted(len(there), 'node')}, {totals}", markup=False)
                num_slots = max(num_slots, resources.families_at_once or 0)
            if study is None:
                searcher = PrefixSearcher(plan, store)
            else:
                from sweep.adaptive import AdaptiveSearcher, HopelessStopper

                searcher = AdaptiveSearcher(plan, store, study, num_slots)
                stopper = HopelessStopper(searcher)
            with ProgressLine(searcher, console) as progress:
                tune.Tuner(
                    tune.with_resources(
                        tune.with_parameters(trainable or FamilyTrainable, work=searcher.work, samples=source(plan.config.data)),
                        {"cpu": resources.cpus_per_family, "gpu": resources.gpus_per_family},
                    ),
                    tune_config=tune.TuneConfig(
                        search_alg=searcher,
                        scheduler=LiveTrials(),
                        num_samples=-1,
                        max_concurrent_trials=num_slots,
                        reuse_actors=True,
                    ),
                    run_config=tune.RunConfig(
                        name="sweep",
                        storage_path=scratch,
                        verbose=0,
                        progress_reporter=tune.CLIReporter(),  # silent at verbose 0; the one for notebooks shows an empty cell all the same
                        callbacks=[progress, *trackers(searcher.plan, store, console)],
                        stop=stopper,
                        failure_config=tune.FailureConfig(max_failures=0),
                        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    ),
                ).fit()
            state_bytes = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
            return Outcome(
                searcher.failed,
                bool(stopped) or not searcher.is_complete,
                searcher.num_epochs * plan.config.training.replicas,
                searcher.num_deaths,
                searcher.most_alive,
                state_bytes,
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def ray_session(cpus: int) -> Iterator[None]:
    """The cluster that is there, see `cluster.address`; else a local Ray that listens on loopback only."""
    import ray

    # What failed is in the tables, and on the console by our line.
    silent: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address := cluster.address():
        ray.init(address=address, **silent)
    else:
        ray.init(address=cluster.LOCAL, num_cpus=cpus, include_dashboard=False, **silent)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _graceful() -> Iterator[list[int]]:
    """SIGTERM stops a sweep as Ctrl-C does: Tune ends its loop on SIGUSR1. Yields a list that is not empty once that happened."""
    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
