"""Hostile names, values and files: refused in one message, or harmless. Nothing is executed, unpickled or written elsewhere."""

from __future__ import annotations

import ast
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.html import table
from analysis.storage import Store
from sweep import views
from sweep.config import ConfigError, load
from sweep.log import printable
from sweep.plan import make_plan, results_store
from sweep.yaml_loader import SweepLoader
from trainables import data as data_sets
from trainables.data import DataError
from trainables.recipe import NpzData
from trainables.rows import write_failure

ROOT = Path(__file__).parents[1]
NAMES = [
    "../up",
    "a/../../b",
    "/etc/x",
    "..",
    ".",
    ".hidden",
    "",
    "a\nb",
    "a b",
    "a\x00b",
    "C:\\x",
    "a/b",
    "~root",
    "-rf",
    "x" + "\u202e" + "y",
]
SMALL = {"num_images": 64, "image_size": 12, "num_slides": 8}


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_cannot_be_called_by_a_path(name):
    with pytest.raises(ConfigError, match="name"):
        load("quick", [f"name={yaml.safe_dump(name)}"])


@pytest.mark.parametrize("name", ["../up", "a/../../b", "/etc/x", "..", "table/..", "a\0b"])
def test_no_name_leads_out_of_a_store(tmp_path, name):
    store = Store(tmp_path / "results")
    for use in (store.read, store.exists, store.names, store.delete, lambda name: store.write(name, b"x")):
        with pytest.raises(ValueError, match="leads out of"):
            use(name)
    assert list(tmp_path.iterdir()) == []


TAGS = ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.system", "!!python/module:os", "!!binary aGVsbG8=!", "!evil x"]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_tags_make_no_objects(tmp_path, tag):
    text = tag.format(tmp_path / "made")
    (tmp_path / "my.yaml").write_text(f"name: x\ndata: {text}\n")
    for arguments in ((str(tmp_path / "my.yaml"), []), ("quick", [f"data={text}"])):
        with pytest.raises(ConfigError):
            load(*arguments)
    assert not (tmp_path / "made").exists()
    assert issubclass(SweepLoader, yaml.SafeLoader)


def test_a_yaml_bomb_is_refused_before_it_goes_off(tmp_path):
    """Aliases of aliases: nine levels of nine would be 387 million values."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (tmp_path / "my.yaml").write_text("\n".join([*levels, "name: x"]))
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load(str(tmp_path / "my.yaml"))
    assert len(str(caught.value)) < 10_000


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def npy(array: np.ndarray, **options: bool) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, **options)
    return sink.getvalue()


@pytest.mark.parametrize("which", ["images", "labels", "groups", "class_names"])
def test_an_archive_with_pickled_objects_is_refused(tmp_path, which):
    objects = np.empty(80, dtype=object)
    objects[:] = [Payload(tmp_path / "made")] * 80
    good = {
        "images": np.zeros((80, 12, 12), np.uint8),
        "labels": np.arange(80) % 2,
        "groups": np.arange(80),
        "class_names": np.array(["a", "b"]),
    }
    members = {f"{name}.npy": npy(array) for name, array in good.items()} | {f"{which}.npy": npy(objects, allow_pickle=True)}
    path = archive(tmp_path / "evil.npz", **members)
    with pytest.raises(DataError, match=r"evil\.npz cannot be read as a \.npz archive of plain arrays"):
        data_sets.load(NpzData(source="npz", name=str(path)))
    assert not (tmp_path / "made").exists()


def test_a_pickle_in_place_of_an_archive_is_refused(tmp_path):
    (tmp_path / "evil.npz").write_bytes(pickle.dumps(Payload(tmp_path / "made")))
    with pytest.raises(DataError, match="cannot be read"):
        data_sets.load(NpzData(source="npz", name=str(tmp_path / "evil.npz")))
    assert not (tmp_path / "made").exists()


def test_members_of_an_archive_are_written_nowhere(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    images, labels = np.random.default_rng(0).integers(0, 255, (80, 12, 12), np.uint8), np.arange(80) % 2
    slip = {"../up.npy": npy(labels), "/tmp/../up.npy": npy(labels)}
    archive(folder / "slip.npz", **{"images.npy": npy(images), "labels.npy": npy(labels)}, **slip)
    assert len(data_sets.load(NpzData(source="npz", name="slip.npz", root=str(folder))).train) > 0
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "slip.npz"]


def test_hostile_text_is_text(tmp_path, monkeypatch, capsys):
    """What an exception says may be HTML for the page, control codes for the terminal, or markup for the console."""
    monkeypatch.chdir(tmp_path)
    hostile = "<script>alert(1)</script> [red]x[/red] [/nothing] \x1b]0;title\x07\x1b[2J \r overwritten"
    arguments = ["name=tiny", f"data={yaml.safe_dump({'source': 'cells', **SMALL}, default_flow_style=True)}", "training.epochs=2"]
    arguments += ["space={activations: [relu, tanh], losses: [cross_entropy], swap_epochs: [1]}"]
    config, _ = load("quick", arguments)
    store = results_store(config)
    plan = make_plan(config, data_sets.load(config.data), store)
    trial = next(iter(plan.families))
    write_failure(store, plan.row(trial), ValueError(hostile))
    for view in (lambda: views.failures("quick", arguments), lambda: views.show("quick", arguments, trial)):
        assert view() == 0
        output = capsys.readouterr().out
        assert "[red]x[/red] [/nothing]" in output
        assert not set(output) & set(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
    page = table(pd.DataFrame({"<i>": [hostile]}), caption="<b>")
    assert "<script>" not in page
    assert "<i>" not in page
    assert "<b>" not in page


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "%2e%2e", "*", "t" * 5000])
def test_an_id_is_no_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Store("results/quick").write("trials/placeholder.txt", b"")
    with pytest.raises(ConfigError, match="no results here yet"):
        views.show("quick", [], name)


def test_printable_leaves_text_alone():
    assert printable("plain ünïcode\n\tindented") == "plain ünïcode\n\tindented"
    assert printable("a\x1b[31m\x07\r") == r"a\x1b[31m\x07\r"


DANGEROUS = {
    "eval",
    "exec",
    "os.system",
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pd.read_pickle",
}


@pytest.mark.parametrize("room", ["analysis", "trainables", "sweep"])
def test_nothing_evaluates_or_unpickles(room):
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in DANGEROUS, (path, node.lineno, called)
                if called == "yaml.load":
                    assert ast.unparse(node.args[1]) == "SweepLoader", (path, node.lineno)
                for keyword in node.keywords:
                    assert keyword.arg != "shell", (path, node.lineno)
                    assert keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False", (path, node.lineno)
