"""Half-written folders and odd arguments: a line that names the file or the option and what is allowed, exit code 2, never a traceback."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analysis
from analysis import tables
from analysis.__main__ import main
from analysis.reading import Unreadable
from analysis.storage import Store

ADVICE = r"; the sweep trains a family anew whose file in trials/ is removed$"


def torn(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_rows(path):
    pq.write_table(tables.TABLES[path.parent.name].schema.empty_table(), path)


def without_statistics(path):
    pq.write_table(pq.read_table(path), path, write_statistics=False)


def without_recipe(path):
    rows = pq.read_table(path).to_pydict() | {"recipe": ["{"]}
    pq.write_table(pa.table(rows, schema=tables.TABLES["trials"].schema), path)


DAMAGES = {
    "torn": (torn, "cannot be read: .*Parquet magic bytes not found"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read: .*size is 0 bytes"),
    "text": (lambda path: path.write_text("hello, world"), "cannot be read: .*Parquet magic bytes not found"),
    "foreign": (lambda path: pq.write_table(pa.table({"a": [1]}), path), "cannot be read: written under another schema than version 1 of"),
}


@pytest.mark.parametrize("words", [[], ["pairs"]], ids=["analysis", "pairs"])
@pytest.mark.parametrize("table", ["trials", "replicas", "activations"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_cannot_be_read_is_named(sweep, tmp_path, capsys, words, table, damage):
    store = sweep(num_families=2)
    break_it, why = DAMAGES[damage]
    break_it(tmp_path / "sweep0" / table / "t000000000001.parquet")
    assert main([*words, store.root]) == 2
    told = capsys.readouterr().err.strip()
    assert re.search(rf"^/\S+/{table}/t000000000001\.parquet: {why}.*{ADVICE}", told), told


@pytest.mark.parametrize(
    ("name", "break_it", "why"),
    [
        ("activations/t000000000001", without_rows, "cannot be read: its row groups are empty or lack statistics"),
        ("activations/t000000000001", without_statistics, "cannot be read: its row groups are empty or lack statistics"),
        ("replicas/t000000000001", without_rows, "cannot be read: it has no row of its family"),
        ("replicas/t000000000001", lambda path: path.unlink(), "is missing, though the results name it"),
        ("trials/t000000000001", without_recipe, "cannot be read: its column recipe holds no JSON object"),
        ("trials/notes", lambda path: path.write_text("hello, world"), "cannot be read: .*Parquet magic bytes"),
    ],
)
@pytest.mark.parametrize("words", [[], ["pairs"]], ids=["analysis", "pairs"])
def test_a_file_that_misses_what_belongs_to_it_is_named(sweep, tmp_path, capsys, words, name, break_it, why):
    store = sweep(num_families=2)
    break_it(tmp_path / "sweep0" / f"{name}.parquet")
    assert main([*words, store.root]) == 2
    told = capsys.readouterr().err.strip()
    assert re.search(rf"^/\S+/{name}\.parquet: {why}.*{ADVICE}", told), told


@pytest.mark.parametrize("words", [[], ["pairs"]], ids=["analysis", "pairs"])
@pytest.mark.parametrize(
    ("made", "why"),
    [
        ((), "no families"),
        (("trials/",), "no families"),
        (("trials/readme.txt", "trials/more/"), "no families"),
        (("activations/x.parquet",), "no families"),
    ],
    ids=["empty", "no trials", "stray", "no trials but others"],
)
def test_a_folder_without_families(tmp_path, capsys, words, made, why):
    for name in made:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("x")
    assert main([*words, str(tmp_path)]) == 2
    told = capsys.readouterr().err.strip()
    assert re.search(rf"^{tmp_path}: {why}[^\n]*$", told), told
    if not made or made[0] == "trials/readme.txt":
        with pytest.raises(FileNotFoundError, match="no results of a sweep"):
            analysis.load(tmp_path)


def test_families_none_of_which_is_done(sweep, capsys):
    store = sweep(num_families=0, num_failed=3)
    assert main([store.root]) == 0
    assert "undecided" in capsys.readouterr().out.lower()
    assert "3 families failed" in store.read("report.html").decode()


def test_strays_beside_the_tables_are_left_alone(sweep, tmp_path):
    store = sweep(num_families=2)
    for table in ("trials", "replicas", "activations"):
        (tmp_path / "sweep0" / table / "notes.txt").write_text("hello")
        (tmp_path / "sweep0" / table / "more.parquet").mkdir()
    assert len(analysis.load(store.root).trials) == 2
    assert len(analysis.load(store.root).activations("block1").trials) == 2


@pytest.mark.parametrize("text", ["a: [", "- space", "space: 3", "space: {recipe: [1]}", "\x00"])
def test_a_sweep_file_that_is_none(sweep, capsys, text):
    store = sweep(num_families=2)
    store.write("sweep.yaml", text.encode())
    assert main([store.root]) == 2
    assert re.search(r"/sweep\.yaml: no sweep file: .*; the sweep writes it anew$", capsys.readouterr().err.strip())


def test_a_torn_table_of_the_analysis(tmp_path, sweep):
    store = sweep(num_families=2)
    store.write("analysis/spread.parquet", b"PAR1")
    with pytest.raises(Unreadable, match=r"analysis/spread\.parquet: cannot be read: .*; `python -m analysis` writes it anew"):
        analysis.load(store.root).table("spread")


@pytest.mark.parametrize(
    ("root", "why"),
    [
        ("foo://bar/x", r"Unrecognized filesystem type .*; allowed: a path, file:///\.\.\., s3://bucket/"),
        ("s3://", r"s3://: names no bucket; allowed: s3://bucket/"),
        ("file://", r"file://: .*; allowed: a path, file:///"),
    ],
)
def test_a_uri_that_is_none(capsys, root, why):
    for words in ([], ["pairs"]):
        assert main([*words, root]) == 2
        assert re.search(why, capsys.readouterr().err)
    with pytest.raises(ValueError, match=why):
        Store(root)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--alpha", "x"], "argument --alpha: 'x' is refused; allowed: numbers from 1e-06 to 0.999999"),
        (["--alpha", "nan"], "argument --alpha: 'nan' is refused"),
        (["--alpha", "1"], "argument --alpha: '1' is refused"),
        (["--permutations", "1"], "argument --permutations: '1' is refused; allowed: whole numbers from 99 to 1000000"),
        (["--permutations", "1e3"], "argument --permutations: '1e3' is refused"),
        (["--seed", "-1"], "argument --seed: '-1' is refused; allowed: whole numbers from 0 to 4294967295"),
        (["--seed", "99999999999999999999"], "argument --seed: '99999999999999999999' is refused"),
        (["--measures", "ckaa"], "argument --measures: unknown measure 'ckaa'; did you mean 'cka'? allowed: cka, cka_debiased"),
        (["--measures", ""], "argument --measures: unknown measure ''"),
    ],
)
def test_odd_arguments_are_refused(tmp_path, capsys, words, why):
    with pytest.raises(SystemExit) as refusal:
        main([str(tmp_path), *words])
    assert refusal.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "0.1", "x", "1e300"])
def test_odd_amounts_of_memory_are_refused(tmp_path, capsys, value):
    with pytest.raises(SystemExit) as refusal:
        main(["pairs", str(tmp_path), "--max-gb", value])
    assert refusal.value.code == 2
    assert f"argument --max-gb: '{value}' is refused; allowed: numbers from 0.536870912 to 1000000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--layers", "blok1"], "unknown layer 'blok1'; there are block1, block2; did you mean 'block1'?"),
        (["--layers", "block1,"], "unknown layer ''; there are block1, block2"),
        (["--moments", "ende"], "unknown moment 'ende'; there are init, end, before_swap, after_swap; did you mean 'end'?"),
    ],
)
def test_names_that_were_not_recorded(sweep, capsys, words, why):
    assert main([sweep(num_families=2).root, *words]) == 2
    assert why in capsys.readouterr().err
