"""Each file of examples/ is what it says: the command in it is accepted, and one sweep of all of them runs."""

import ast
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import tables
from analysis.measures.similarity import MEASURES, check_measure
from analysis.registry import Registry, UnknownName
from sweep.check import check
from sweep.config import ConfigError, load
from trainables import data as data_sets
from trainables.family import Family, run
from trainables.options import Probes
from trainables.recipe import BaseRecipe, FunctionData, Model
from trainables.schedule import Base, Phase, Schedule

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(ROOT)


def commands(path: Path) -> list[list[str]]:
    lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
    return [shlex.split(line) for line in lines if line.strip().startswith("python -m")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_command_of_an_example_is_accepted(path):
    assert len(path.read_text().splitlines()) < 40
    told = [words for words in commands(path) if words[2] == "sweep.run"]
    assert told
    for words in told:
        overrides = [value for flag, value in pairwise(words) if flag == "--set"]
        config, source = load(words[words.index("--config") + 1], overrides)
        assert f"examples.{path.stem}:" in config.model_dump_json()
        check(config, source)


def test_one_sweep_of_all_of_them(tmp_path):
    """On Ray, in workers that import them; asked again, everything is done under the same names."""
    changes = [
        "name=own",
        "data={source: function, name: 'examples.data:stripes', options: {num_images: 160}}",
        "model={name: 'examples.model:wide'}",
        "training={epochs: 2, batch_size: 16, replicas: 2}",
        "probes={num_samples: 10, own: ['examples.probe:weights'], epochs: [1]}",
        "space={activations: [relu, 'examples.activation:bent'], losses: ['examples.loss:poly'], swap_epochs: [1], swaps: [activation], "
        "schedules: [[[0, relu, 'examples.loss:poly'], [1, relu, 'examples.loss:poly', 'learning_rate=examples.learning_rate:frozen']]]}",
        "analysis={measures: [cka, 'examples.measure:MeanCosine'], num_permutations: 99}",
    ]
    words = ["--config", "quick", *(word for change in changes for word in ("--set", change))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": "/tmp"}
    for verb, told in ((["sweep.run"], "5 of 5 families done"), (["sweep", "status"], "5 families: 5 done, 0 failed")):
        done = subprocess.run(
            [sys.executable, "-m", *verb, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert told in done.stdout
    results = tmp_path / "results" / "own"
    trials = pd.read_parquet(results / "trials")
    assert sorted(trials["swapped"]) == ["activation", "activation", "learning_rate", "none", "none"]
    assert trials["recipe"].str.contains("examples.model:wide#").all()
    (row,) = pd.read_parquet(results / "runs").to_dict("records")
    assert row["replica_epochs"] == row["replica_epochs_planned"] == 2 * (2 + 2 + 1 + 1 + 1)  # branches begin at the state of their control
    measured = pd.read_parquet(results / "measurements")
    assert set(measured["quantity"]) == {"norm", "share_small"}
    assert set(measured["moment"]) == {"init", "before_swap", "after_swap", "epoch", "end"}
    frozen = measured[measured["trial"] == trials.loc[trials["swapped"] == "learning_rate", "trial"].item()]
    norm = frozen[frozen["quantity"] == "norm"].pivot(index="replica", columns="moment", values="value")
    assert (norm["end"] == norm["before_swap"]).all()
    assert (norm["end"] != norm["init"]).all()
    assert "examples.measure:MeanCosine" in set(pd.read_parquet(results / "analysis" / "spread.parquet")["measure"])


def test_a_swap_of_the_learning_rate_branches_bit_for_bit(small_recipe, small_data, store, tmp_path, same_tables):
    """The column says the rate in force, and a family that continues from its control equals one from scratch."""
    from analysis.storage import Store

    probes = Probes(num_samples=10, baselines=[], own=["examples.probe:weights"])
    stressed = Schedule.of([[0, "relu", "focal"], [2, "relu", "focal", "learning_rate=tenth"], [4, "relu", "focal"]])
    apart = Store(tmp_path / "apart")
    list(run(Family(small_recipe, probes, stressed.control, frozenset({2})), store, data=small_data))
    list(run(Family(small_recipe, probes, stressed), store, data=small_data))
    list(run(Family(small_recipe, probes, stressed), apart, data=small_data))
    trial = Base(small_recipe, small_data.hash).trial_name(stressed, probes)
    assert tables.read(store, "trials", only=[trial])["started_from"].notna().all()
    same_tables(store, apart, [trial])
    epochs = tables.read(store, "epochs", only=[trial])
    rates = epochs[epochs["moment"] == "epoch"].groupby("epoch")["learning_rate"].first().tolist()
    assert rates == pytest.approx([0, 0.05, 0.05, 0.005, 0.005, 0.05])
    after = epochs[epochs["moment"] == "after_swap"].groupby("epoch")["learning_rate"].first().to_dict()
    assert after == pytest.approx({2: 0.05, 4: 0.005})
    control = tables.read(store, "replicas", only=[Base(small_recipe, small_data.hash).trial_name(stressed.control, probes)])
    assert (tables.read(store, "replicas", only=[trial])["train_loss"].to_numpy() != control["train_loss"].to_numpy()).any()


def test_names_of_what_a_phase_adds():
    base = Base(BaseRecipe(), "0" * 64)
    plain, tenth, own = (
        Schedule.of([[0, "relu", "focal"], [2, "tanh", "focal", *further]])
        for further in ((), ("learning_rate=tenth",), ("learning_rate=examples.learning_rate:frozen",))
    )
    assert plain.phases[1] == Phase(2, "tanh", "focal")
    assert len({base.state_name(schedule, 3) for schedule in (plain, tenth, own)}) == 3
    assert len({base.state_name(schedule, 2) for schedule in (plain, tenth, own)}) == 1
    assert [schedule.swapped for schedule in (plain, tenth)] == ["activation", "activation+learning_rate"]
    assert str(tenth) == "0:relu/focal 2:tanh/focal/learning_rate=tenth"
    assert "frozen#" in own.phases[1].text
    assert Schedule.of([phase.listed for phase in own.phases]) == own
    with pytest.raises(ValueError, match=r"'noise=0\.1' is no further function of a phase; allowed: learning_rate=<name>"):
        Schedule.of([[0, "relu", "focal"], [2, "relu", "focal", "noise=0.1"]])


def test_an_edited_file_is_another_family(tmp_path, monkeypatch):
    """Model and probe are named by their sources; a probe names the family, not its training states."""
    names = []
    for number in (1, 2):
        (tmp_path / f"edited{number}.py").write_text(f"NUMBER = {number}\ndef f(*_):\n    return {{}}\n")
    monkeypatch.syspath_prepend(tmp_path)
    schedule = Schedule.of([[0, "relu", "focal"]])
    for number in (1, 2):
        model, probes = Base(BaseRecipe(model=Model(name=f"edited{number}:f")), "0" * 64), Probes(own=[f"edited{number}:f"])
        plain = Base(BaseRecipe(), "0" * 64)
        names.append([str(model.key), str(probes.key), str(probes.on_the_way)])
        assert all(f"edited{number}:f#" in text for text in names[-1])
        assert plain.trial_name(schedule, probes) != plain.trial_name(schedule, Probes())
        assert plain.description(schedule, probes)["probes"]["own"] == probes.sources["own"]
        assert "own" not in plain.description(schedule, Probes())["probes"]  # described as families from before there was the option
    hashes = [[text.partition("#")[2][:12] for text in some] for some in names]
    assert len(set(hashes[0])) == 1
    assert set(hashes[0]) != set(hashes[1])


REFUSED = """
import numpy as np, torch
from torch import nn
from analysis.measures.cka import CKADistance
def dead(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, classes))
def text(shape, classes): return "a model"
def matrix(look): return {"weights": torch.zeros(2, 3)}
def spoils(look):
    look.training.replicas.weights.zero_()
    return {}
def floats(): return {"images": np.zeros((40, 12, 12)), "labels": np.arange(40) % 2}
calls = []
def restless():
    calls.append(1)
    return {"images": np.full((80, 12, 12), len(calls), np.uint8), "labels": np.arange(80) % 2}
class Lopsided(CKADistance):
    def _similarities(self, factors):
        found = super()._similarities(factors)
        found[0, 1] = 0.5
        return found
def rising(rate): return -rate
"""


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("model={name: 'refused:dead'}", "model.*'refused:dead' has no activation module that could be swapped"),
        ("model={name: 'refused:text'}", "model.*'refused:text' gives str, not a torch.nn.Module"),
        ("model={name: 'refused:dead', widths: [4]}", "widths has no effect on 'refused:dead'"),
        ("model={name: 'refused:absent'}", "model 'refused:absent' cannot be imported"),
        ("probes.own=['refused:matrix']", r"probes.own: .*'weights' is \[2, 3\]; .* one number per replica, \[2\] here"),
        ("probes.own=['refused:spoils']", "probe 'refused:spoils' changes the networks"),
        ("probes.own=[sharpness]", "unknown probe 'sharpness'; allowed: your own as package.module:name"),
        ("data={source: function, name: 'refused:floats'}", "images must be uint8"),
        ("data={source: function, name: 'refused:floats', options: {size: 3}}", "fails with {'size': 3}: TypeError"),
        ("data={source: function, name: 'refused:restless'}", "gives other data when called again"),
        ("data={source: function, name: stripes}", "data: data.name: unknown data set 'stripes'"),
        ("analysis.measures=['refused:Lopsided']", "measure 'refused:Lopsided' says that it is symmetric, and is not"),
        ("analysis.measures=['refused:rising']", "measure 'refused:rising' is function, not an analysis.measures.measure.Measure"),
        ("analysis.measures=[ckaa]", "analysis.measures.*: 'ckaa' is unknown; did you mean 'cka'"),
        ("space.schedules=[[[0, relu, focal], [2, relu, focal, 'learning_rate=refused:rising']]]", "must give a finite number, 0 or above"),
        ("space.schedules=[[[0, relu, focal], [2, relu, focal, 'learning_rate=tenht']]]", "did you mean 'tenth'"),
        ("space.schedules=[[[0, relu, focal], [2, relu, focal, 'rate=tenth']]]", "is no further function of a phase"),
    ],
)
def test_what_cannot_serve_is_refused(tmp_path, monkeypatch, override, match):
    (tmp_path / "refused.py").write_text(REFUSED)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("refused", None)
    with pytest.raises(ConfigError, match=match):
        check(*load("quick", [override]))


def test_arrays_of_a_function_are_those_of_an_archive():
    """The same data from a function and from a .npz file have one hash, so families trained on either are the same."""
    options = {"num_images": 60, "seed": 3}
    found = data_sets.load(FunctionData(source="function", name="examples.data:stripes", options=options))
    assert found.class_names == ["lying", "standing"]
    assert found.image_shape == (1, 12, 12)
    assert sum(map(len, (found.train, found.val, found.test))) == 60
    again = data_sets.load(FunctionData(source="function", name="examples.data:stripes", options=options | {"noise": 60.0}))
    assert again.hash == found.hash
    assert data_sets.load(FunctionData(source="function", name="examples.data:stripes", options=options | {"seed": 4})).hash != found.hash


def test_the_measure_has_the_properties_that_it_says():
    generator = np.random.default_rng(0)
    X, Y = generator.standard_normal((2, 30, 5))
    measure = MEASURES["examples.measure:MeanCosine"]
    check_measure("examples.measure:MeanCosine")
    D = measure.distances([X, 3 * X + 1, Y])
    assert D[0, 1] == pytest.approx(0, abs=1e-6)
    assert D[0, 2] == pytest.approx(D[1, 2])
    u, v = ((Z - Z.mean(0)) / np.linalg.norm(Z - Z.mean(0), axis=1, keepdims=True) for Z in (X, Y))
    assert D[0, 2] == pytest.approx(np.sqrt(np.mean(((u - v) ** 2).sum(1))))  # Euclidean: so a metric
    assert "sample lies at the mean" in measure.reason(np.zeros((4, 2)))


def test_installed_packages_may_declare_theirs(tmp_path, monkeypatch):
    (tmp_path / "declares.py").write_text("def act(x):\n    return x * 2\n")
    (tmp_path / "declares-1.dist-info").mkdir()
    (tmp_path / "declares-1.dist-info" / "METADATA").write_text("Name: declares\nVersion: 1\n")
    (tmp_path / "declares-1.dist-info" / "entry_points.txt").write_text("[karenina_sweep.activation]\ntwice = declares:act\n")
    registry: Registry = Registry("activation", {"relu": abs})
    with pytest.raises(UnknownName, match="unknown activation 'twice'; allowed: relu, or your own"):
        registry.resolve("twice")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.resolve("twice")(3) == 6
    assert registry.fingerprint("twice").startswith("twice#")
    assert registry.fingerprint("relu") == "relu"
    with pytest.raises(UnknownName, match=r"did you mean 'twice'\? allowed: relu, twice, or"):
        registry.resolve("twise")
