"""`python -m trainables.benchmark`: runs without Ray, counts what it says, refuses what makes no sense."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainables import benchmark

ROOT = Path(__file__).parents[2]
QUICK = ["--device", "cpu", "--seconds", "0", "--rounds", "2", "--steps", "1", "--executors", "loop", "vmap"]


def test_it_prints_and_writes_every_round_without_ray(tmp_path):
    arguments = ["benchmark", *QUICK, "--replicas", "1", "3", "--json", str(tmp_path / "out.json")]
    code = f"import runpy, sys; sys.modules['ray'] = None; sys.argv = {arguments!r}; "
    code += "runpy.run_module('trainables.benchmark', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("loop", "vmap"))]
    assert lines == [["loop", "1"], ["loop", "3"], ["vmap", "1"], ["vmap", "3"]]
    result = json.loads((tmp_path / "out.json").read_text())
    alone = result["rows"][0]["samples_per_s"]
    for row in result["rows"]:
        assert len(row["samples_per_s"]) == len(row["share_of_limit"]) == 2
        assert row["times_separate_runs"] == pytest.approx([a / b for a, b in zip(row["samples_per_s"], alone, strict=True)])
        assert row["flop_per_s"] == pytest.approx([rate * result["flop_per_sample"] for rate in row["samples_per_s"]])
    assert result["where"]["versions"]["torch"] == torch.__version__


def test_flops_are_those_of_the_layers():
    """Convolutions and the head: twice the multiplications forward, as many again for the weights, and for all inputs but the images."""
    first, later = 2 * 27 * 8 * 400, 2 * (72 * 16 * 100 + 144 * 32 * 25 + 32 * 2)
    assert benchmark.flops_per_sample(benchmark.WORKLOADS["small"]) == 2 * first + 3 * later


def test_what_is_timed_are_epochs_of_all_replicas():
    workload = benchmark.WORKLOADS["small"]
    timed = benchmark.family(workload, benchmark.synthetic(workload, 100), 3, "vmap", "cpu", "float32")
    assert timed.num_samples == 3 * 3 * 32  # replicas, whole batches, samples
    timed.round(0.0, torch.device("cpu"))
    assert len(timed.rates) == 1


def test_what_does_not_fit_is_said_and_the_rest_goes_on(monkeypatch, capsys):
    def too_large(workload, data, num_replicas, *rest):
        timed = family(workload, data, num_replicas, *rest)
        if num_replicas == 3:
            timed.call = lambda: (_ for _ in ()).throw(torch.OutOfMemoryError)
        return timed

    family = benchmark.family
    monkeypatch.setattr(benchmark, "family", too_large)
    assert benchmark.main([*QUICK, "--replicas", "2", "3"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("loop", "vmap"))]
    assert [line.endswith("out of memory") for line in lines] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu", "--precision", "tf32"], "tf32 has no effect on a CPU"),
        (["--replicas", "0"], "0 is refused: at least 1"),
        (["--executors", "vmpa"], "invalid choice: 'vmpa'"),
        pytest.param(["--device", "cuda"], "no GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")),
    ],
)
def test_mistakes_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        benchmark.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
