"""The benchmark's own claim: both sides train the same networks, and it says so when they do not."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = [
    "space.activations=[relu]",
    "space.losses=[focal]",
    "space.swaps=[]",
    "space.swap_epochs=[1]",
    "space.schedules=[[[0,relu,focal],[1,tanh,focal]]]",
    "data.num_images=160",
    "model.widths=[4,6]",
    "training.epochs=2",
    "training.replicas=2",
    "probes.num_samples=20",
]


def test_both_sides_train_the_same_networks_and_the_ratios_are_printed(tmp_path):
    changes = [part for change in SMALL for part in ("--set", change)]
    file = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "sweep_vs_plain_tune.py"), "--workload", "small", "--repeats", "1", "--cores", "2"]
    done = subprocess.run([*command, "--json", str(file), *changes], capture_output=True, text=True, cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(file.read_text())["workloads"]
    assert found["families"] == 2
    assert found["checks"][0]["networks"] == 4
    assert found["ratio"] == found["seconds"]["plain"][0] / found["seconds"]["sweep"][0]
    assert found["efficiency"] == found["seconds"]["limit"][0] / found["seconds"]["sweep"][0]
    assert f"plain / sweep {found['ratio']:.2f}" in done.stdout


def test_networks_that_differ_are_told(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from sweep_vs_plain_tune import disagreement

    index = pd.MultiIndex.from_product([["a", "b"], [0, 1]], names=["schedule", "seed"])
    one = pd.DataFrame({"accuracy": [0.8, 0.9, 0.7, 0.6], "early_loss": [0.5, 0.6, 0.4, 0.3]}, index=index)
    assert disagreement(one, one)[1] == []
    assert "accuracies differ" in disagreement(one, one.assign(accuracy=one["accuracy"] + 0.02))[1][0]
    assert "losses differ" in disagreement(one, one.assign(early_loss=one["early_loss"] * 1.1))[1][0]
    assert "different networks" in disagreement(one, one.iloc[:3])[1][0]
