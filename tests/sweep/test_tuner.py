"""The local Ray that a sweep runs on."""

import os
import subprocess
import sys
from pathlib import Path

DIES = """
import os, sys
flag = os.environ["DIED_ONCE"]
if any(argument.endswith("default_worker.py") for argument in sys.orig_argv) and not os.path.exists(flag):
    open(flag, "w").close()
    os._exit(1)
"""
SESSION = """
import os
from sweep.tuner import _ENVIRONMENT, ray_session
os.environ.update(_ENVIRONMENT)
import ray
with ray_session(1):
    print("answer", ray.get(ray.remote(lambda: 42).remote()))
"""


def test_a_worker_that_dies_as_it_starts_is_replaced(tmp_path):
    """The first worker process ends before Ray knows it, as by kill -9: neither the start nor the work hangs."""
    (tmp_path / "sitecustomize.py").write_text(DIES)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}",
        "RAY_TMPDIR": "/tmp",
        "RAY_ADDRESS": "local",
        "RAY_worker_register_timeout_seconds": "15",
        "DIED_ONCE": str(tmp_path / "died"),
    }
    done = subprocess.run([sys.executable, "-c", SESSION], env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "answer 42" in done.stdout
    assert (tmp_path / "died").exists()
