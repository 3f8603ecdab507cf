"""Separate hosts on one machine (network namespaces with sshd), and a Ray cluster that `ray up` makes of them from `clusters/local.yaml`.

The script that makes hosts is not part of the project; `HOSTS_SH` names it. It needs root, openssh-server, iproute2 and rsync:

    hosts.sh up -w WORKERS -b FOLDER...    client, head, w1, ... at 10.77.0.1, .2, .3, ...; a FOLDER is seen by all at its own path
    hosts.sh on HOST COMMAND...            off HOST | boot HOST (power)    cut HOST | heal HOST (network)    down
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
HEAD, FIRST_WORKER = "10.77.0.2", 3
PROVIDER = "local"
OBJECT_STORE_BYTES = 200_000_000


def script() -> Path | None:
    """The script that makes hosts, where one is told of and may be run."""
    told = os.environ.get("HOSTS_SH")
    return Path(told).resolve() if told and Path(told).is_file() and os.geteuid() == 0 else None


class Lab:
    """A client, a head and workers of `cpus` CPUs each, which share `folder`. Use it as a context: all hosts are removed at its end."""

    def __init__(self, folder: Path, num_workers: int, cpus: int = 1, head_cpus: int = 0) -> None:
        found = script()
        if found is None:
            raise RuntimeError("HOSTS_SH does not name a script that makes hosts, or this is not root")
        self.script, self.folder, self.num_workers = found, folder.resolve(), num_workers
        self.cluster = self.folder / f"cluster-{num_workers + 1}-hosts.yaml"
        self.environment = {**os.environ, "HOSTS_DIR": str(self.folder / "hosts")}
        self.cluster.write_text(self._cluster(cpus, head_cpus), encoding="utf-8")

    def _cluster(self, cpus: int, head_cpus: int) -> str:
        """The shipped file with these addresses, this user and so many CPUs; the project is on every host already."""
        text = (ROOT / "clusters" / "local.yaml").read_text(encoding="utf-8")
        settings = yaml.safe_load(text.replace("192.168.1.10", HEAD))
        settings["cluster_name"] = f"lab{self.num_workers}"
        settings["provider"]["worker_ips"] = [f"10.77.0.{FIRST_WORKER + i}" for i in range(self.num_workers)]
        settings["min_workers"] = settings["max_workers"] = self.num_workers
        settings["auth"]["ssh_user"] = "root"
        for key in ("file_mounts", "rsync_filter", "rsync_exclude", "setup_commands"):
            del settings[key]
        more = f" --object-store-memory={OBJECT_STORE_BYTES}"
        for key, num in (("head_start_ray_commands", head_cpus), ("worker_start_ray_commands", cpus)):
            stop, start = settings[key]
            settings[key] = [stop, f"{start.replace(' --num-cpus=0', '')} --num-cpus={num}{more}"]
        return yaml.safe_dump(settings, width=1000)

    def host(self, *arguments: str, timeout_s: float = 120) -> str:
        """What the script prints for these arguments."""
        ended = subprocess.run(
            [str(self.script), *arguments], env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        return ended.stdout

    def client(self, command: str) -> subprocess.Popen[str]:
        """A command started on the client, in the shared folder."""
        shell = ["bash", "--login", "-c", f"cd {self.folder} && {command}"]
        return subprocess.Popen(
            [str(self.script), "on", "client", *shell], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, command: str, timeout_s: float = 900) -> str:
        process = self.client(command)
        output, _ = process.communicate(timeout=timeout_s)
        if process.returncode:
            raise RuntimeError(f"{command}: exit code {process.returncode}\n{output[-4000:]}")
        return output

    def on_cluster(self, command: str) -> str:
        """The command line that runs a command on the head, in the shared folder."""
        return f"ray exec {self.cluster} 'cd {self.folder} && {command}'"

    def num_alive(self) -> int:
        program = 'import ray; ray.init(address="auto", log_to_driver=False); print("alive", sum(n["Alive"] for n in ray.nodes()))'
        output = self.finish(self.on_cluster(f'python -c "{program.replace(chr(34), chr(92) + chr(34))}"'))
        return int(output.split("alive ")[1].split()[0])

    def __enter__(self) -> Lab:
        self.host("down")
        try:
            self.host("up", "-w", str(self.num_workers), "-b", sys.prefix, "-b", str(self.folder))
            self.finish(f"ray up -y --no-config-cache {self.cluster}")
            until = time.monotonic() + 120
            while self.num_alive() < self.num_workers + 1:
                if time.monotonic() > until:
                    raise RuntimeError(f"{self.num_alive()} of {self.num_workers + 1} nodes came up")
                time.sleep(2)
        except BaseException:
            self.host("down")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.host("down")
