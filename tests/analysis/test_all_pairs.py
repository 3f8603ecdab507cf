"""In blocks and tiles, through files: the same distances as all at once."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import all_pairs as module
from analysis import tables
from analysis.__main__ import main
from analysis.activations import UnknownName, chosen, read
from analysis.akp import families
from analysis.all_pairs import all_pairs
from analysis.measures import products
from analysis.measures.similarity import MEASURES


def at_once(store, measure: str, layer: str) -> np.ndarray:
    networks = [x for trial in families(store)["trial"] for x in tables.read_activations(store, trial, "end", layer)["end", 8, layer]]
    labels = [np.zeros(len(networks[0]), np.int16)] if getattr(MEASURES[measure], "needs_labels", False) else []
    return MEASURES[measure].distances(networks, *labels)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to rounding in similarity, which near 1 is far finer than in distance."""
    np.testing.assert_allclose(found.astype(np.float64) ** 2 / 2, expected**2 / 2, atol=2e-6)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tiles_equal_all_at_once(sweep, measure, size, monkeypatch):
    monkeypatch.setattr(module, "MAX_BLOCK", size)  # 3 cuts families of 4 in every possible place
    store = sweep(num_families=5, num_replicas=4, diverged={1: 2}, constant=(3,))
    found = all_pairs(store, measure, "block1")
    assert_same(found.distances, at_once(store, measure, "block1"))
    if measure in ("cka", "procrustes"):
        assert found.networks["dropped"].sum() == 2 + 4
    np.testing.assert_array_equal(np.isnan(np.diagonal(found.distances)), found.networks["dropped"])
    assert found.networks[["trial", "replica"]].drop_duplicates().shape == (20, 2)
    assert store.names(".tmp") == []


def test_networks_of_different_width_share_a_matrix(sweep, write, monkeypatch):
    monkeypatch.setattr(module, "MAX_BLOCK", 3)
    store = sweep(num_families=2, widths=(4,))
    write(store, num_families=2, widths=(7,), first=2)
    assert_same(all_pairs(store, "cka", "block1").distances, at_once(store, "cka", "block1"))


@pytest.mark.parametrize("measure", ["cka", "mutual_knn"])
def test_products_on_a_device_of_torch_give_the_same_matrix(sweep, measure):
    store = sweep(num_families=3, num_replicas=4, num_samples=30, diverged={1: 2})
    assert_same(all_pairs(store, measure, "block1", device="cpu:0").distances, at_once(store, measure, "block1"))
    assert products.accelerator is None


def test_a_device_that_is_not_there_is_told_in_a_line(sweep, capsys):
    assert main(["pairs", sweep(num_families=2).root, "--device", "cudaa"]) == 2
    assert "device 'cudaa' is not there" in capsys.readouterr().err


def test_a_family_in_several_row_groups_is_read_in_parts(sweep, rows, monkeypatch):
    """As a large family is written: a block of replicas per row group. Blocks of networks start and end inside of them."""
    store = sweep(num_families=2, num_replicas=6, num_samples=5, widths=(3,), moments=("end",))
    trial = families(store)["trial"][0]
    X = tables.read_activations(store, trial)["end", 8, "block1"]
    columns = {"trial": trial, "moment": "end", "epoch": 8, "layer": "block1", "pooling": "mean", "position": 0, "label": 0}
    groups = [
        rows("activations", 10, replica=np.repeat([first, first + 1], 5), sample=np.tile(np.arange(5), 2), shape=[[3]] * 10,
             activation=tables.list_array(X[first : first + 2].reshape(10, 3)), **columns)
        for first in (0, 2, 4)
    ]  # fmt: skip
    tables.write(store, "activations", trial, groups)
    for first, stop in ((0, 6), (1, 3), (2, 4), (3, 4), (5, 6)):
        found, probed = read(store, trial, "block1", "end", 8, range(first, stop))
        np.testing.assert_array_equal(found, X[first:stop])
        assert probed["sample"].tolist() == list(range(5))
    monkeypatch.setattr(module, "MAX_BLOCK", 5)
    assert_same(all_pairs(store, "cka", "block1").distances, at_once(store, "cka", "block1"))


def test_around_swaps_the_first_is_meant_and_epochs_must_be_named():
    def recorded(moment: str) -> pd.DataFrame:
        return pd.DataFrame({"trial": ["a", "a", "b"], "moment": moment, "epoch": [4, 2, 3], "layer": "block1", "num_rows": 1, "width": 1})

    assert chosen(recorded("before_swap"), "block1", "before_swap")["epoch"].tolist() == [2, 3]
    assert chosen(recorded("before_swap"), "block1", "before_swap", 4)["trial"].tolist() == ["a"]
    assert chosen(recorded("epoch"), "block1", "epoch", 4)["trial"].tolist() == ["a"]
    with pytest.raises(UnknownName, match="moment 'epoch' has several epochs; name one of 2, 3, 4"):
        chosen(recorded("epoch"), "block1", "epoch")


def test_the_table_written_reads_back(sweep, capsys):
    store = sweep(num_families=5, diverged={1: 2})
    assert main(["pairs", store.root, "--layer", "block2"]) == 0
    told = capsys.readouterr().out
    assert "analysis/pairs_cka_block2_end.parquet: 20 networks of 5 families, 2 dropped" in told
    distances, networks = analysis.load(store.root).pairs("cka", "block2")
    np.testing.assert_array_equal(distances, all_pairs(store, "cka", "block2").distances)
    assert networks["trial"].tolist() == [t for t in families(store)["trial"] for _ in range(4)]
    assert set(networks["estimator"]) == {MEASURES["cka"].title}


def test_all_layers_by_default(sweep, capsys):
    store = sweep(num_families=5)
    assert main(["pairs", store.root, "--measure", "procrustes", "--moment", "init"]) == 0
    assert store.names("analysis") == ["pairs_procrustes_block1_init.parquet", "pairs_procrustes_block2_init.parquet"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--measure", "ckaa"], "unknown measure 'ckaa'; did you mean 'cka'\\? allowed: cka, "),
        (["--layer", "blok1"], "unknown layer 'blok1'; .*did you mean 'block1'"),
        (["--moment", "ends"], "unknown moment 'ends'; .*did you mean 'end'"),
    ],
)
def test_mistakes_are_told_in_a_line(sweep, capsys, wrong, message):
    assert main(["pairs", sweep(num_families=2).root, *wrong]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert "Traceback" not in told


def test_other_probe_samples_are_refused_across_blocks_too(sweep, write, monkeypatch):
    store = sweep(num_families=2, num_samples=30)
    write(store, num_families=1, num_samples=20, first=2)
    for size in (1, 1000):
        monkeypatch.setattr(module, "MAX_BLOCK", size)
        with pytest.raises(ValueError, match="probed on other samples"):
            all_pairs(store, "cka", "block1")
        assert store.names(".tmp") == []


def test_a_network_too_large_for_the_budget_is_refused(sweep, monkeypatch):
    monkeypatch.setattr(module, "MIN_BYTES", 1)
    store = sweep(num_families=2)
    num_bytes = MEASURES["cka"].prepare(tables.read_activations(store, "t000000000000")["end", 8, "block1"][0]).nbytes
    with pytest.raises(ValueError, match=f"one prepared network has {num_bytes} bytes"):
        all_pairs(store, "cka", "block1", max_bytes=8 * num_bytes - 1)


def test_only_what_is_named_is_analysed(sweep, capsys):
    store = sweep(num_families=6)
    options = ["--permutations", "99", "--measures", "cka"]
    assert main([store.root, *options, "--layers", "block2", "--moments", "init,end"]) == 0
    assert "Analysed in" in capsys.readouterr().out
    results = analysis.load(store.root)
    for table in (results.spread(), results.association, results.happy_unhappy):
        assert set(table["layer"]) == {"block2"}
    assert set(results.spread()["moment"]) == {"init", "end"}
    assert main([store.root, *options, "--moments", "init"]) == 0
    assert analysis.load(store.root).happy_unhappy.empty
    capsys.readouterr()
    assert main([store.root, *options, "--layers", "blok2"]) == 2
    assert "unknown layer 'blok2'; there are block1, block2; did you mean 'block2'?" in capsys.readouterr().err


def test_unknown_epoch(sweep):
    with pytest.raises(UnknownName, match="unknown epoch of moment 'end' '7'; there are 8"):
        all_pairs(sweep(num_families=2), "cka", "block1", epoch=7)
