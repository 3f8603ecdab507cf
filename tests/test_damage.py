"""Files of any bytes: damage is detected, named and repaired by running again, and never read as data."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch

from analysis import tables
from analysis.storage import Store
from sweep import damage
from sweep.plan import DAMAGE, readable_trials
from trainables.family import Family, run, setting
from trainables.options import Probes
from trainables.schedule import Base, Schedule
from trainables.states import States

SCHEDULE = Schedule.of([[0, "relu", "cross_entropy"], [1, "tanh", "cross_entropy"]])
PER_FAMILY = ["trials", "replicas", "epochs", "predictions", "activations", "baselines"]


def broken(data: bytes, draw: random.Random) -> bytes:
    """One of the ways in which files break: a bit, half of it, a sector of zeros, another file's rest, nothing at all."""
    kind = draw.choice(["bit"] * 6 + ["cut", "cut", "zeros", "zeros", "noise", "empty", "twice"])
    at = draw.randrange(len(data))
    if kind == "bit":
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    length = min(64, len(data) - at)
    return {
        "cut": data[:at],
        "zeros": data[:at] + bytes(length) + data[at + length :],
        "noise": draw.randbytes(len(data)),
        "empty": b"",
        "twice": data + data[:at],
    }[kind]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_recipe):
    """A family with its states kept, and its probes."""
    recipe = small_recipe.model_copy(update={"training": small_recipe.training.model_copy(update={"epochs": 3, "replicas": 2})})
    store, probes = Store(tmp_path_factory.mktemp("finished")), Probes(num_samples=10)
    family = Family(recipe, probes, SCHEDULE, frozenset({1, 2}))
    torch.set_num_threads(1)
    *_, last = run(family, store)
    return family, store, last.trial


def same(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    try:
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    except AssertionError:
        return False
    return True


def fuzz_tables(store: Store, folder: Path, num: int, seed: int) -> Counter[str]:
    """How many broken files were refused, and how many read as what was written; fails where one reads as something else."""
    draw, counts, there = random.Random(seed), Counter[str](), Store(folder)
    for table in PER_FAMILY:
        (trial,) = tables.names(store, table)
        file, wanted = f"{table}/{trial}.parquet", tables.read(store, table)
        data = store.read(file)
        for _ in range(num):
            there.write(file, broken(data, draw))
            try:
                found = tables.read(there, table)
            except DAMAGE:
                counts["refused"] += 1
                continue
            assert same(found, wanted), f"{table}: damage was read as data"
            counts["unharmed"] += 1  # bits that say nothing: of statistics, of padding
    return counts


def test_broken_tables_are_never_read_as_data(finished, tmp_path):
    counts = fuzz_tables(finished[1], tmp_path, 40, seed=0)
    assert counts["refused"] > 0.7 * counts.total()


@pytest.mark.slow
def test_broken_tables_are_never_read_as_data_in_thousands(finished, tmp_path):
    counts = fuzz_tables(finished[1], tmp_path, 1000, seed=1)
    assert counts["refused"] > 0.7 * counts.total()


def a_row(table: str) -> dict[str, list[Any]]:
    """A row of any table, of the right types."""
    kinds = {"string": "x", "float": 0.5, "double": 0.5, "bool": True, "binary": b"x"}
    return {
        c.name: [[] if pa.types.is_list(c.type) else None if pa.types.is_timestamp(c.type) else kinds.get(str(c.type), 1)]
        for c in tables.TABLES[table].columns
        if c.name != "schema_version"
    }


@pytest.mark.parametrize("content", ["nothing", "zeros"])
@pytest.mark.parametrize("table", list(tables.TABLES))
def test_what_a_power_cut_may_leave_is_refused_by_name(tmp_path, table, content):
    """A file that has its name and its length, or not even that, but not its content."""
    store = Store(tmp_path)
    tables.write(store, table, "t000000000000", a_row(table))
    file = f"{table}/t000000000000.parquet"
    assert len(tables.read(store, table)) == 1
    store.write(file, bytes(len(store.read(file)) if content == "zeros" else 0))
    with pytest.raises(tables.Unreadable, match=f"{file}: cannot be read"):
        tables.read(store, table)
    if table != "samples":  # which every run writes
        if table != "trials":
            done = a_row("trials") | {"trial": ["t000000000000"], "status": ["done"], "recipe": ["{}"]}
            tables.write(store, "trials", "t000000000000", done)
        assert file in damage.damaged(store)


@pytest.mark.parametrize("content", ["nothing", "zeros"])
def test_what_a_power_cut_may_leave_of_a_state_is_not_continued_from(finished, tmp_path, content):
    family, store, _ = finished
    base, there = base_of(finished), States(Store(tmp_path))
    name, history = base.state_name(SCHEDULE, 2), base.history(SCHEDULE, 2, full=True)
    there.store.write(there.file(name), bytes(len(store.read(States.file(name))) if content == "zeros" else 0))
    assert there.usable(setting(family.probes, "cpu", "grouped", 1)) == {}
    assert there.load(name, history, setting(family.probes, "cpu", "grouped", 1)) is None
    assert there.names() == []
    assert there.damaged == [name]


def fuzz_states(finished, folder: Path, num: int, seed: int) -> Counter[str]:
    family, store, _ = finished
    base = base_of(finished)
    name = base.state_name(SCHEDULE, 2)
    history, where = base.history(SCHEDULE, 2, full=True), setting(family.probes, "cpu", "grouped", 1)
    data = store.read(States.file(name))
    good = States(store).load(name, history, where)
    assert good is not None
    draw, counts, there = random.Random(seed), Counter[str](), States(Store(folder))
    for _ in range(num):
        there.store.write(there.file(name), broken(data, draw))
        assert there.usable(where).get(name, 2) == 2
        found = there.load(name, history, where)
        if found is None:
            counts["refused"] += 1
            assert there.damaged[-1] == name
            assert not there.store.exists(there.file(name))
        else:
            counts["unharmed"] += 1
            for ours, theirs in zip(good, found, strict=True):
                assert ours.keys() == theirs.keys()
                assert all(ours[key].numpy().tobytes() == theirs[key].numpy().tobytes() for key in ours)
    return counts


def base_of(finished) -> Base:
    from trainables.data import load

    return Base(finished[0].recipe, load(finished[0].recipe.data).hash)


def test_broken_states_are_never_continued_from(finished, tmp_path):
    counts = fuzz_states(finished, tmp_path, 150, seed=0)
    assert counts["refused"] > 0.9 * counts.total()


@pytest.mark.slow
def test_broken_states_are_never_continued_from_in_thousands(finished, tmp_path):
    counts = fuzz_states(finished, tmp_path, 5000, seed=1)
    assert counts["refused"] > 0.9 * counts.total()


def test_a_family_whose_state_is_broken_trains_it_again(finished, tmp_path, same_tables):
    family, store, _ = finished
    shutil.copytree(store.base, tmp_path / "copy")
    there = Store(tmp_path / "copy")
    for name in States(there).names():
        data = bytearray(there.read(States.file(name)))
        data[-5] ^= 1  # a bit of a weight
        there.write(States.file(name), bytes(data))
    *_, last = run(family, there)
    assert last.epochs_trained == 3
    assert len(last.notes) == 2
    assert all("was damaged and is deleted" in note for note in last.notes)
    same_tables(there, store)


@pytest.mark.parametrize("table", PER_FAMILY)
def test_check_names_damage_and_repair_has_it_run_again(finished, tmp_path, capsys, table):
    _, store, trial = finished
    shutil.copytree(store.base, tmp_path / "copy")
    there = Store(tmp_path / "copy")
    assert damage.check(there, False, "the command") == 0
    file = f"{table}/{trial}.parquet"
    there.write(file, there.read(file)[:-9])
    assert damage.check(there, False, "the command") == 1
    output = capsys.readouterr().out
    assert f"{file} is damaged" in output
    assert "add --repair, then the command" in output
    assert damage.check(there, True, "the command") == 0
    assert not there.exists(f"trials/{trial}.parquet")


def test_a_missing_or_swapped_file_is_damage(finished, tmp_path):
    _, store, trial = finished
    shutil.copytree(store.base, tmp_path / "copy")
    there, other = Store(tmp_path / "copy"), "t" + "0" * 12
    there.delete(f"replicas/{trial}.parquet")
    there.write(f"trials/{other}.parquet", there.read(f"trials/{trial}.parquet"))
    assert damage.damaged(there) == {f"trials/{other}.parquet": f"it is about {trial}", f"replicas/{trial}.parquet": "it is missing"}
    rows, unreadable = readable_trials(there, [other, trial])
    assert rows["trial"].tolist() == [trial]
    assert list(unreadable) == [other]


@pytest.mark.parametrize("file", ["image_statistics/d000000000000.parquet", "runs/2026-11-21T10-00-00Z.parquet"])
def test_a_damaged_table_that_is_not_of_a_family_is_named_and_repaired_by_its_removal(tmp_path, capsys, file):
    store = Store(tmp_path)
    store.write(file, b"PAR1")
    assert list(damage.damaged(store)) == [file]
    assert damage.check(store, False, "again") != 0
    assert damage.check(store, True, "again") == 0
    assert not store.exists(file)
    assert f"{file} is damaged" in capsys.readouterr().out
