"""The verb `diff`: what a word names, JSON, and messages without a traceback."""

import json
import re
from pathlib import Path

import pytest

from analysis import tables
from analysis.storage import Store
from sweep.__main__ import main
from trainables.family import Family, run
from trainables.options import Probes
from trainables.schedule import Schedule


@pytest.fixture(scope="module")
def results(tmp_path_factory, small_recipe, small_data):
    """A folder with two families: a control, and a swap that continues from it."""
    store = Store(tmp_path_factory.mktemp("diff") / "results" / "quick")
    for phases in ([[0, "relu", "focal"]], [[0, "relu", "focal"], [2, "tanh", "focal"]]):
        list(run(Family(small_recipe, Probes(num_samples=10, baselines=[]), Schedule.of(phases)), store, data=small_data))
    return store


def test_words_name_families_and_sweeps(results, monkeypatch, capsys):
    monkeypatch.chdir(Path(results.base).parents[1])
    first, second = tables.names(results, "trials")
    for words in ([first, second[:8]], [f"results/quick/{first}", second], [f"{results.base}/{first}", f"results/quick/{second}/"]):
        assert main(["diff", "--config", "quick", *words]) == 0
        told = capsys.readouterr().out
        assert "schedule" in told
        assert "spread of head" in told
        assert "paired by seed" in told
    assert main(["diff", "results/quick", "results/quick"]) == 0
    assert "configuration: no difference" in capsys.readouterr().out


def test_json_is_one_object(results, monkeypatch, capsys):
    monkeypatch.chdir(Path(results.base).parents[1])
    first, second = tables.names(results, "trials")
    assert main(["diff", "--config", "quick", "--json", first, second]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"a", "b", "configuration", "provenance", "results", "notes"}
    means = tables.read(results, "replicas").groupby("trial")["test_accuracy"].mean()
    (row,) = [row for row in found["results"] if row["quantity"] == "test_accuracy"]
    assert row["difference"] == pytest.approx(means[second] - means[first], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "nothing"], "nowhere: no results of a sweep"),
        (["results/quick", "results/quick/t"], "names 2 families; near: t"),
        (["tfffffffffff0", "t"], "'tfffffffffff0' names 0 families"),
        (["results/quick", "ID"], "is a sweep and ID a family; give two of a kind"),
        (["results/quik", "results/quick"], "no results of a sweep.*results lie in .*quick"),
        (["gopher://x", "results/quick"], "diff: "),
    ],
)
def test_mistakes_are_told_in_a_line(results, monkeypatch, capsys, words, message):
    monkeypatch.chdir(Path(results.base).parents[1])
    first = tables.names(results, "trials")[0]
    assert main(["diff", "--config", "quick", *(word.replace("ID", first) for word in words)]) == 2
    told = capsys.readouterr()
    assert re.search(message.replace("ID", first), told.err), told.err
    assert "Traceback" not in told.err + told.out
