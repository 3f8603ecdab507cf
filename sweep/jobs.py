"""`sweep submit`: hand a run to a cluster, where it goes on when this terminal closes; `sweep logs`: what it says, from its results."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rich.console import Console

from analysis.storage import Store
from sweep.cluster import DASHBOARD
from sweep.command_line import command
from sweep.config import ConfigError, load
from sweep.log import latest, printable
from sweep.plan import results_store


def submit(config_name: str | None, overrides: list[str], address: str | None, retry: str) -> int:
    """Run `python -m sweep.run` as a Ray job on the head of a cluster. Returns as soon as it is accepted.

    `address` is that of the dashboard. A sweep file travels along; what it names by import path must be installed on the nodes. Raises
    ConfigError where results would be lost with the job, or nothing takes jobs there.
    """
    config, source = load(config_name, overrides)
    place = address or DASHBOARD
    if "://" not in config.root and not Path(config.root).is_absolute():
        raise ConfigError(
            source,
            [f"storage.path: {config.storage.path!r} would lie in the job's own folder; give a URI, or the whole path of a shared folder"],
        )
    try:
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(place)
    except Exception as error:  # no package, no server, another version, no token: the client says which
        why = printable(" ".join(str(error).split()))
        raise ConfigError(
            "sweep submit",
            [f"nothing takes jobs at {place}: {why}. It needs '.[cluster]', and the head of a cluster or `ray dashboard cluster.yaml`"],
        ) from None
    path = Path(config_name or "")
    is_file = config_name is not None and path.is_file()
    entrypoint = command(path.name if is_file else config_name, overrides, retry)
    with tempfile.TemporaryDirectory(prefix="sweep-submit-") as folder:
        if is_file:
            shutil.copy(path, folder)
        job = client.submit_job(
            entrypoint=entrypoint, runtime_env={"working_dir": folder} if is_file else {}, metadata={"sweep": config.name}
        )
    again = command(config_name, overrides).replace("sweep.run", "sweep status", 1)
    text = f"{job} runs {entrypoint}\nhow far it is: {again}\nwhat it says: {again.replace(' status', ' logs', 1)}"
    console = Console(soft_wrap=True)
    console.print(printable(f"{text}\nto stop it: ray job stop --address {place} {job}"), markup=False, highlight=False)
    return 0


def logs(config_name: str | None, overrides: list[str], lines: int) -> int:
    """Print the last lines of the newest run's log, from the results."""
    config, _ = load(config_name, overrides)
    store = results_store(config)
    name = latest(store)
    if name is None:
        raise ConfigError(store.root, ["no run has left a log here yet"])
    text = store.read(name).decode("utf-8", "replace").splitlines()
    Console(soft_wrap=True).print(printable("\n".join([f"{store.root}/{name}", *text[-lines:]])), markup=False, highlight=False)
    return 0


def told(store: Store) -> str | None:
    """The last line of the newest log."""
    name = latest(store)
    text = store.read(name).decode("utf-8", "replace").strip().splitlines() if name else []
    return printable(text[-1]) if text else None
