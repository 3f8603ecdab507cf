"""Several folders as one: what is in them together is analysed as if one sweep had made it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

import analysis
from analysis import tables
from analysis.__main__ import main
from analysis.analyse import analyse
from analysis.storage import Store
from analysis.union import Union, opened

FILE = {
    "name": "one",
    "data": {"source": "cells", "train_size": None, "root": "data"},
    "model": {"name": "cnn", "widths": [4]},
    "training": {"epochs": 8, "replicas": 4, "learning_rate": 0.05},
    "probes": {"num_samples": 30},
    "space": {"recipe": {}},
}


def describe(store: Store, **changes: object) -> None:
    """Write a sweep file; `training__epochs=9` changes a key."""
    file = yaml.safe_load(yaml.safe_dump(FILE))
    for key, value in changes.items():
        part, _, name = key.partition("__")
        file[part][name] = value
    store.write("sweep.yaml", yaml.safe_dump(file).encode())


def move(whole: Store, part: Store, trials: list[str], copy: bool = False) -> None:
    """Move families from one store to another."""
    for table in tables.TABLES:
        for trial in trials:
            source = Path(whole.path(f"{table}/{trial}.parquet"))
            if source.exists():
                target = Path(part.path(f"{table}/{trial}.parquet"))
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copy if copy else shutil.move)(source, target)


def test_parts_are_analysed_as_the_whole(sweep, tmp_path):
    """A sweep cut into two folders that overlap gives every table of the analysis bit for bit."""
    whole = sweep(num_families=28, widths=(6,), moments=("end",))
    describe(whole)
    expected = analyse(whole, ["cka"], num_permutations=99, num_dispersion_permutations=19)
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    trials = tables.names(whole, "trials")
    move(whole, first, trials[:14], copy=True)
    move(whole, second, trials[7:], copy=True)
    for store in (first, second):
        describe(store)
    union = Union([first, second], Store(tmp_path / "together"))
    assert "28 families of 14 + 21 in 2 results, 7 of them in several, read from the first; varied: nothing" in union.text
    found = analyse(union, ["cka"], num_permutations=99, num_dispersion_permutations=19)
    assert found.text == expected.text
    names = whole.names("analysis")
    assert names == union.into.names("analysis") == union.names("analysis")
    for name in (name for name in names if name.endswith(".parquet")):
        left, right = (pd.read_parquet(Path(s.base) / "analysis" / name) for s in (whole, union.into))
        pd.testing.assert_frame_equal(left, right, check_exact=True, obj=name)
    assert not first.names("analysis")
    assert not second.names("analysis")
    both = analysis.load(first.base, second.base)
    pd.testing.assert_frame_equal(both.trials, analysis.load(whole.base).trials)
    assert both.activations("block1").X.shape[0] == 28
    assert both.verdict().answer == analysis.load(whole.base).verdict().answer


def test_what_differs_is_an_axis_or_refused(sweep, tmp_path):
    first, second = sweep(num_families=7), sweep(num_families=7, first=100)
    describe(first)
    describe(second, training__learning_rate=0.1, data__train_size=50, data__root="elsewhere")
    union = Union([first, second])
    assert union.sweep["space"]["recipe"] == {"data.train_size": [None, 50], "training.learning_rate": [0.05, 0.1]}
    assert "varied: data.train_size, training.learning_rate" in union.text
    for change in ({"training__epochs": 9}, {"data__source": "npz"}, {"probes__num_samples": 9}, {"training__replicas": 3}):
        describe(second, **change)
        (key,) = change
        with pytest.raises(ValueError, match=rf"{key.replace('__', '.')} differs \(.*sweep0: .*sweep1: .*not one sweep"):
            Union([first, second])


def test_nothing_is_written_beside_the_results(sweep, tmp_path):
    first, second = sweep(num_families=7), sweep(num_families=7, first=100)
    with pytest.raises(ValueError, match="read only"):
        opened([first.base, second.base]).write("report.html", b"")
    with pytest.raises(ValueError, match="is one of the results"):
        opened([first.base, second.base], first.base)
    with pytest.raises(FileNotFoundError, match="nothing: no results"):
        analysis.load(first.base, tmp_path / "nothing")
    alone = opened([first.base], str(tmp_path / "apart"))
    alone.write("report.html", b"page")
    assert Path(tmp_path / "apart" / "report.html").read_bytes() == b"page"
    assert tables.names(alone, "trials") == tables.names(first, "trials")


def test_the_command_takes_several(sweep, tmp_path, capsys):
    first, second = (sweep(num_families=7, widths=(6,), moments=("end",), first=first) for first in (0, 100))
    with pytest.raises(SystemExit) as stopped:
        main([first.base, second.base])
    assert stopped.value.code == 2
    assert "several results need --into PATH" in capsys.readouterr().err
    into = str(tmp_path / "both")
    assert main([first.base, second.base, "--into", into, "--permutations", "99", "--measures", "cka"]) == 0
    assert "14 families of 7 + 7 in 2 results" in capsys.readouterr().out
    assert (Path(into) / "report.html").exists()
    describe(first)
    describe(second, data__source="npz")
    assert main([first.base, second.base, "--into", into]) == 2
    assert "data.source differs" in capsys.readouterr().err
