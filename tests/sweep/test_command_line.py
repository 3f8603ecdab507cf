"""What is typed, what is printed for programs, and how commands end."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.storage import Store
from sweep import command_line, extras, views
from sweep.__main__ import main
from sweep.completion import keys, script
from sweep.config import ConfigError, below, load
from sweep.interactive import Sweep
from sweep.log import RunLog
from sweep.plan import make_plan
from sweep.records import FailuresRecord, PlanRecord, StatusRecord
from trainables.data import load as load_data
from trainables.rows import write_failure, write_trial

ROOT = Path(__file__).parents[2]
CONFIG = """
name: tiny
data: {source: cells, num_images: 160, image_size: 12, num_slides: 8}
model: {name: cnn, widths: [4, 6]}
training: {epochs: 4, batch_size: 16, replicas: 2}
probes: {num_samples: 10}
space: {activations: [relu, tanh], losses: [cross_entropy], swap_epochs: [1, 2], swaps: [activation]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def results(folder) -> Store:
    """Rows of five families: one failed, four done, one of them without a table that every family has. One family has not run."""
    store, (config, _) = Store("results/tiny"), load("my.yaml")
    plan = make_plan(config, load_data(config.data), store)
    failed, _, *done = plan.families
    write_failure(store, plan.row(failed), RuntimeError("no more room"))
    for trial in done:
        write_trial(store, plan.row(trial) | {"status": "done", "num_diverged": 1})
    return store


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": "/tmp", "TERM": "xterm", **more}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["plam"], "'plam' is no verb; did you mean 'plan'? allowed: run, submit"),
        (["RUN"], "did you mean 'run'?"),
        (["logs", "--lines", "0"], "'0' is refused; allowed: whole numbers from 1"),
        (["plan", "--config", "quik"], "did you mean 'quick'?"),
        (["plan", "--set", "trainin.replicas=3"], "trainin: unknown key; did you mean 'training'?"),
        (["plan", "--set", "training.replica=3"], "training.replica: unknown key; did you mean 'replicas'?"),
        (["plan", "--set", "data.image_sizes=3"], "data.image_sizes: unknown key; did you mean 'image_size'?"),
        (["plan", "--set", "space.recipe.training.learning_rat=[0.1]"], "did you mean 'training.learning_rate'?"),
        (["plan", "--set", "analysis.measures=ckaa"], "did you mean 'cka'?"),
    ],
)
def test_what_is_misspelt_is_named_with_what_is_near(words, hint, capsys):
    try:
        code = main(words)
    except SystemExit as end:  # of argparse
        code = end.code
    assert code == command_line.REFUSED
    assert hint in " ".join(capsys.readouterr().err.split())


def test_a_plan_for_programs(folder, capsys):
    assert views.plan("my.yaml", [], budget_hours=1e3, as_json=True) == 0
    found = PlanRecord.model_validate(json.loads(capsys.readouterr().out))
    assert found.num_families == found.num_to_run == len(found.families) == 6
    assert [family.status for family in found.families] == ["to run"] * 6
    assert {family.continues for family in found.families} - {None} <= {family.trial for family in found.families}
    assert sum(kind.families for kind in found.cost.kinds) == 6
    assert found.cost.replica_epochs < found.cost.replica_epochs_unshared == 6 * 4 * 2
    assert sum(kind.seconds for kind in found.cost.kinds) + found.cost.images_s == pytest.approx(found.cost.device_s)
    assert found.budget.families == 6
    assert not Path("results").exists()  # a plan writes nothing


def test_a_function_that_fails_in_training_leaves_the_cost_unknown(folder, monkeypatch, capsys):
    (folder / "own_bad.py").write_text("def act(x):\n    if x.ndim == 4:\n        raise RuntimeError('no images')\n    return x * 1\n")
    monkeypatch.syspath_prepend(str(folder))
    assert main(["plan", "--config", "my.yaml", "--set", "space.activations=['own_bad:act', relu]", "--json"]) == command_line.DONE
    found = PlanRecord.model_validate_json(capsys.readouterr().out)
    assert (found.cost.device_s, found.cost.wall_s) == (None, None)
    assert "no images" in found.cost.source


def test_status_and_failures_for_programs(results, capsys):
    assert views.status("my.yaml", [], as_json=True) == 0
    found = StatusRecord.model_validate(json.loads(capsys.readouterr().out))
    assert (found.num_families, found.num_done, found.num_failed, found.num_not_run) == (6, 4, 1, 1)
    assert (found.num_replicas, found.num_diverged) == (10, 4)
    assert found.results == results.root
    assert views.failures("my.yaml", [], as_json=True) == 0
    told = FailuresRecord.model_validate(json.loads(capsys.readouterr().out))
    (group,) = told.groups
    assert (group.error_type, group.error_message, len(group.trials)) == ("RuntimeError", "no more room", 1)
    assert group.again == f"python -m sweep.run --config my.yaml --retry {group.trials[0]}"
    assert told.again.endswith("--retry failed")


def test_how_commands_end(results, capsys):
    assert main(["status", "--config", "my.yaml"]) == command_line.DONE
    assert "6 families: 4 done, 1 failed, 0 skipped, 1 not run; 4 of 10 replicas diverged" in capsys.readouterr().out
    assert main(["check", "--config", "my.yaml"]) == command_line.INCOMPLETE  # tables of the families are missing
    assert "to have 4 families run again: add --repair" in capsys.readouterr().out
    assert main(["check", "--config", "quick"]) == command_line.REFUSED
    assert "results/quick: no results here yet" in capsys.readouterr().err


def test_the_page_says_how_commands_end():
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "command_line.md").read_text(), re.MULTILINE)
    ends = [command_line.DONE, command_line.INCOMPLETE, command_line.REFUSED, command_line.INTERRUPTED]
    assert [int(code) for code in rows] == ends == [0, 1, 2, 130]


def test_one_is_not_many(results, capsys):
    only = ["space.activations=[relu]", "space.schedules=[[[0, relu, cross_entropy]]]", "space.swaps=[]"]
    assert views.plan("my.yaml", only) == 0
    assert "tiny: 1 family, " in capsys.readouterr().out
    assert views.status("my.yaml", only) == 0
    assert re.search(r"1 family: .*; \d of 2 replicas diverged", capsys.readouterr().out)


def test_an_interrupted_view_ends_in_one_line(capsys):
    def stopped() -> int:
        raise KeyboardInterrupt

    words = ["plan", "--config", "a file.yaml"]
    assert command_line.guarded(stopped, command_line.typed("sweep", words)) == command_line.INTERRUPTED
    assert capsys.readouterr().err == "stopped. To go on: python -m sweep plan --config 'a file.yaml'\n"


def test_a_message_moves_no_cursor(capsys):
    def refused() -> int:
        raise ConfigError("my.yaml", ["a function says \x1b[2J"])

    assert command_line.guarded(refused, "") == command_line.REFUSED
    assert capsys.readouterr().err == "my.yaml: a function says \\x1b[2J\n"


def test_ids_with_spaces_are_typed_again_in_quotes():
    assert command_line.command("quick", [], "t1, t2") == "python -m sweep.run --config quick --retry 't1, t2'"
    assert command_line.command(None, []) == "python -m sweep.run"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_before_anything_runs(folder, number):
    """While it still imports or plans, what was typed is what continues."""
    (folder / "slow.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "sweep.run", "--config", "my.yaml", "--set", "space.activations=['slow:f', relu]"]
    given = environment(PYTHONPATH=f"{ROOT}:{folder}")
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        time.sleep(0.2)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said == f"stopped. To go on: {command_line.typed('sweep.run', command[3:])}\n"


@pytest.mark.parametrize(
    ("variables", "is_terminal", "is_coloured"), [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({}, False, False)]
)
def test_colours_are_for_terminals_that_want_them(tmp_path, variables, is_terminal, is_coloured):
    command = [sys.executable, "-m", "sweep.run", "--config", "absent"]
    if is_terminal:
        ours, theirs = pty.openpty()
        done = subprocess.run(command, env=environment(**variables), cwd=tmp_path, stdout=theirs, stderr=theirs, timeout=100)
        os.close(theirs)
        said = os.read(ours, 10_000).decode()
        os.close(ours)
    else:
        done = subprocess.run(command, env=environment(**variables), cwd=tmp_path, capture_output=True, text=True, timeout=100)
        said = done.stderr
    assert done.returncode == 2
    assert "absent: neither a file nor a shipped recipe" in said
    assert (re.search(r"\x1b\[[\d;]*3\dm", said) is not None) == is_coloured


def test_quiet_says_what_went_wrong_and_keeps_all(results, capsys):
    log = RunLog(quiet=True)
    log.keep_in(results)
    log.print("all is well")
    log.wrong("a family failed \x1b[2J")
    log.detail("a family starts")
    log.write()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "a family failed \\x1b[2J\n"
    kept = results.read(log.name).decode()
    assert "all is well" in kept
    assert "a family failed" in kept
    assert "starts" not in kept


def test_verbose_says_more(capsys):
    for verbose in (False, True):
        RunLog(verbose=verbose).detail("a family starts")
        assert capsys.readouterr().out == ("a family starts\n" if verbose else "")


def test_keys_are_those_of_the_sweep_file():
    found = keys()
    assert {"training.replicas", "data.image_size", "data.path", "search.pruning.kind", "probes.hull.train_size", "space.recipe"} <= set(
        found
    )
    assert len(set(found)) == len(found)


COMPLETED = [
    ("sweep fai", "failures"),
    ("sweep run --qu", "--quiet"),
    ("sweep plan --config breast", "breastmnist"),
    ("sweep plan --config my", "my.yaml"),
    ("sweep run --config quick --set training.repl", "training.replicas="),
    ("sweep completion z", "zsh"),
]


@pytest.mark.parametrize(("words", "wanted"), COMPLETED)
def test_bash_completes(folder, words, wanted):
    """By the script itself, in a bash."""
    pytest.importorskip("shtab")
    (folder / "complete.sh").write_text(script("bash"))
    listed = " ".join(shlex.quote(word) for word in words.split(" "))
    ask = f'source ./complete.sh; COMP_WORDS=({listed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_sweep; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run(["bash", "-c", ask], cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [wanted]


def test_zsh_completes(folder):
    """By the script itself where the documentation puts it, in a zsh that is typed to: a Tab, then a key that shows the line."""
    pytest.importorskip("shtab")
    if shutil.which("zsh") is None:
        pytest.skip("no zsh on PATH")
    (folder / "_sweep").write_text(script("zsh"))
    begin = 'fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; show() { print -r -- "<$BUFFER>"; BUFFER= }; '
    typed = f"{begin}zle -N show; bindkey '^X' show; print rea''dy\n", *(f"{words}\t\x18" for words, _ in COMPLETED)
    ours, theirs = pty.openpty()
    given = environment(TERM="dumb", COLUMNS="200")
    with subprocess.Popen(["zsh", "-f", "-i"], cwd=folder, env=given, stdin=theirs, stdout=theirs, stderr=theirs) as shell:
        os.close(theirs)
        said = ""
        for keys_typed, end in zip(typed, ("ready\r", *[">\r"] * len(COMPLETED)), strict=True):
            os.write(ours, keys_typed.encode())
            before = len(said)
            while end not in said[before:]:
                said += os.read(ours, 10_000).decode(errors="replace")
        shell.kill()
    os.close(ours)
    lines = [line.strip() for line in re.findall("<(sweep .*?)>\r", said)]
    assert lines == [f"{words.rpartition(' ')[0]} {wanted}" for words, wanted in COMPLETED]


def test_a_missing_shtab_is_named(monkeypatch, capsys):
    monkeypatch.setitem(extras.PACKAGES, "completion", "absent_shtab")
    assert main(["completion", "bash"]) == command_line.REFUSED
    assert "pip install 'karenina-sweep[completion]'" in capsys.readouterr().err


def test_options_of_a_uri_stay_at_its_end():
    assert below("results/", "a") == "results/a"
    assert below("what?/a", "b") == "what?/a/b"  # a folder may be called so
    assert below("s3://bucket/a?region=eu", "b") == "s3://bucket/a/b?region=eu"
    mine = Sweep(name="mine", storage={"path": "s3://bucket/a?region=eu"})
    assert mine._command == "python -m sweep.run --config 's3://bucket/a/mine/sweep.yaml?region=eu'"


def test_a_sweep_file_is_read_from_a_uri(folder):
    ours, source = load(f"file://{folder}/my.yaml")
    assert ours == load("my.yaml")[0]
    assert source == f"file://{folder}/my.yaml"
    with pytest.raises(ValueError, match=r"file://.*/absent\.yaml: cannot be read"):
        load(f"file://{folder}/absent.yaml")
