"""A sweep in Python: the sweep file as an object, its plan, and results that are those of `analysis.load`."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sweep
from sweep import outlook, views
from sweep.config import load

ROOT = Path(__file__).parents[2]


def test_import_is_light():
    code = "import sys, sweep; assert not {'torch', 'ray', 'pandas', 'pydantic'} & set(sys.modules); sweep.Sweep.from_recipe('quick')"
    code += "; assert not {'torch', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=100)


def test_what_is_not_there_is_named():
    assert {"Sweep", "ConfigError"} <= set(dir(sweep))
    with pytest.raises(AttributeError, match="no attribute 'Swep'; there are ConfigError, Sweep"):
        _ = sweep.Swep


def test_keywords_are_the_overrides_of_the_command_line():
    changes = {"training.learning_rate": [0.1, 1e-05], "model.widths": [[4], [8, 16]]}
    ours = sweep.Sweep.from_recipe(
        "quick", training__replicas=4, training__clip_norm=None, training__weight_decay=1e-05, name="mine", space__recipe=changes
    )
    theirs, _ = load(
        "quick",
        [
            "training.replicas=4",
            "training.clip_norm=null",
            "training.weight_decay=1e-05",
            "name=mine",
            "space.recipe={training.learning_rate: [0.1, 1e-05], model.widths: [[4], [8, 16]]}",
        ],
    )
    assert ours.model_dump() == theirs.model_dump()
    assert "replicas: 4" in repr(ours)
    assert "results/mine" in repr(ours)


def test_a_repr_is_a_sweep_file(tmp_path):
    ours = sweep.Sweep.from_recipe("search", training__replicas=4)
    (tmp_path / "again.yaml").write_text(repr(ours).partition("\n\n")[2])
    assert sweep.Sweep.from_recipe(tmp_path / "again.yaml").model_dump() == ours.model_dump()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training__replica": 4}, "training.replica: unknown key; did you mean 'replicas'"),
        ({"training__replicas": np.int64(4)}, "training.replicas: .* is a int64, which no sweep file holds; give training.replicas as 4"),
        ({"training__replicas": {3}}, "is a set, which no sweep file holds"),
        ({"training__replicas": 1}, "training.replicas: 1 is refused"),
    ],
)
def test_bad_input_is_refused_with_the_key(change, message):
    with pytest.raises(sweep.ConfigError, match=message):
        sweep.Sweep.from_recipe("quick", **change)


def test_a_plan_is_that_of_the_verb(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = sweep.Sweep.from_recipe("quick", training__replicas=2).plan()
    assert views.plan("quick", ["training.replicas=2"]) == 0
    said = capsys.readouterr().out.splitlines()
    timed = ("cost:", "to train:", "control", "loss swap", "activation swap", "swap of both")  # hold seconds of this machine
    assert [line for line in repr(plan).splitlines() if not line.startswith(timed)] == [x for x in said if not x.startswith(timed)]
    assert len(plan.families) == 16
    assert plan.families["status"].tolist() == ["to run"] * 16
    assert set(plan.families["continues"].dropna()) <= set(plan.families["trial"])
    assert plan.costs["families"].sum() == 16
    assert "replica-epochs" in plan._repr_html_()
    assert not list(tmp_path.iterdir())


RUN = """
import warnings
import analysis, sweep
changes = dict(
    name="mine", training__replicas=2, training__epochs=2, space__swap_epochs=[1], space__swaps=["activation"],
    space__losses=["cross_entropy", "falling:loss"], space__activations=["relu", "tanh"], analysis__enabled=False,
)
s = sweep.Sweep.from_recipe("quick", **changes)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    r = s.run(quiet=True)
told = [str(w.message) for w in told if "sweep is not complete" in str(w.message)]
print(type(r).__name__, type(analysis.load("results/mine")).__name__, sorted(r.trials["status"]), told)
print(len(s.results().trials), s.plan().families["status"].value_counts().to_dict())
"""


@pytest.mark.slow  # a second whole run on Ray; the tutorial below is the one in CI
def test_a_run_gives_results_and_warns_of_failures(tmp_path):
    """A family that fails is no exception: the others are there, and the caller is told."""
    body = (
        "from trainables.losses import cross_entropy\n"
        "def loss(z, y):\n"
        "    if z.requires_grad and z.shape[-1] == 2 and z.shape[-2] == 16:\n"
        "        raise RuntimeError('on purpose')\n"
        "    return cross_entropy(z, y)\n"
    )
    (tmp_path / "falling.py").write_text(body)
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "RAY_TMPDIR": "/tmp", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("Results Results ['done', 'done', 'done', 'done', 'failed', 'failed', 'skipped', 'skipped'] ")
    assert "mine: the sweep is not complete, 4 families failed or were skipped" in first
    assert second == "8 {'done': 4, 'to run': 4}"


def test_a_tutorial_from_a_question_to_a_figure(tmp_path):
    """docs/tutorial.ipynb runs from its first cell to its last, and what is kept of its outputs is what it gives."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", 4)
    kept = {cell["id"]: cell.get("outputs", []) for cell in notebook.cells if cell.cell_type == "code"}
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_TMPDIR", "/tmp")
        client.execute()  # raises what a cell raises
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        given, wanted = (
            [output["output_type"] for output in outputs if output["output_type"] != "stream"]
            for outputs in (cell.outputs, kept[cell["id"]])
        )
        assert given == wanted, cell.source
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    trials = pd.read_parquet(tmp_path / "results" / "quick" / "trials")
    assert trials["status"].tolist() == ["done"] * 16


IN_A_NOTEBOOK = """
import json
from types import SimpleNamespace as Some
from sweep.log import RunLog
from sweep.notebook import Bar, in_notebook
from sweep.progress import ProgressLine

families = [f"t{number}" for number in range(3)]
plan = Some(remaining={name: Some(start_epoch=0) for name in families}, label=lambda name: "relu < tanh")
searcher = Some(plan=plan, epochs_to_train=6, num_unproposed=0, running=[], failed=[], reasons={})
console = RunLog(bar=Bar() if in_notebook() else None, force_jupyter=False)
told = {"num_images": 8, "epoch": 2, "num_diverged": 0, "train_accuracy": 0.9, "test_accuracy": 0.8, "seconds": 1.0}
with ProgressLine(searcher, console) as progress:
    for name in families:
        trial = Some(config={"trial": name})
        progress.on_trial_result(0, [], trial, {"status": "done", "report": json.dumps(told)})
    progress.on_trial_result(0, [], trial, {"status": "failed", "error": "on purpose"})
print(console._kept.file.getvalue().count("test 0.800"), "lines are kept")
"""


def test_a_notebook_gets_one_bar_that_is_replaced_and_what_went_wrong(tmp_path):
    """In a real kernel: no line per family, and the bar's last state."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cell = nbformat.v4.new_code_cell(IN_A_NOTEBOOK)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    (bar,) = [output["data"] for output in cell.outputs if output["output_type"] == "display_data"]
    assert bar["text/plain"].startswith("3 of 3 families done, 0 running")
    assert '<progress value="1.0000" max="1"></progress> 3 of 3' in bar["text/html"]
    said = "".join(output["text"] for output in cell.outputs if output["output_type"] == "stream" and output["name"] == "stdout")
    assert "failed: on purpose" in said
    assert "test 0.800" not in said
    assert "3 lines are kept" in said


def test_a_terminal_gets_a_live_line_and_a_line_per_family():
    """On a real terminal, a pty: the line is drawn while families run, and goes in the end."""
    ours, its = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen([sys.executable, "-c", IN_A_NOTEBOOK], stdout=its, stderr=its, env=environment)
    os.close(its)
    said = b""
    with contextlib.suppress(OSError):  # the end of a pty
        while part := os.read(ours, 65536):
            said += part
    os.close(ours)
    assert process.wait(60) == 0
    text = said.decode()
    assert "0 of 3 families done, 0 running" in text
    assert text.count("test 0.800") == 3
    assert "failed: on purpose" in text
    last = text.rpartition("families done")[2]
    assert "\x1b[2K" in last  # erased


def test_an_outlook_of_nothing_left_has_no_costs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = sweep.Sweep.from_recipe("quick", training__replicas=2).plan()
    empty = outlook.Outlook(found.plan, None, found.lines[:1])
    assert empty.costs.empty
    assert repr(empty) == found.lines[0]
