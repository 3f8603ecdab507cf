"""In blocks and tiles, through files: the same distances as all at once."""

from __future__ import annotations

import numpy as np
import pytest

import analysis
from analysis import all_pairs as module
from analysis import tables
from analysis.__main__ import main
from analysis.activations import UnknownName
from analysis.akp import families
from analysis.all_pairs import all_pairs
from analysis.measures.similarity import MEASURES


def at_once(store, measure: str, layer: str) -> np.ndarray:
    networks = [x for trial in families(store)["trial"] for x in tables.read_activations(store, trial, "end", layer)["end", 8, layer]]
    return MEASURES[measure].distances(networks)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tiles_equal_all_at_once(sweep, measure, size, monkeypatch):
    monkeypatch.setattr(module, "MAX_BLOCK", size)  # 3 cuts families of 4 in every possible place
    store = sweep(num_families=5, num_replicas=4, diverged={1: 2}, constant=(3,))
    found = all_pairs(store, measure, "block1")
    np.testing.assert_allclose(found.distances, at_once(store, measure, "block1"), atol=2e-6)
    assert found.networks["dropped"].sum() == 2 + 4
    np.testing.assert_array_equal(np.isnan(np.diagonal(found.distances)), found.networks["dropped"])
    assert found.networks[["trial", "replica"]].drop_duplicates().shape == (20, 2)
    assert store.names(".tmp") == []


def test_networks_of_different_width_share_a_matrix(sweep, write, monkeypatch):
    monkeypatch.setattr(module, "MAX_BLOCK", 3)
    store = sweep(num_families=2, widths=(4,))
    write(store, num_families=2, widths=(7,), first=2)
    np.testing.assert_allclose(all_pairs(store, "cka", "block1").distances, at_once(store, "cka", "block1"), atol=2e-6)


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
        (["--measure", "ckaa"], "unknown measure 'ckaa'; there are cka, .*did you mean 'cka'"),
        (["--layer", "blok1"], "unknown layer 'blok1'; .*did you mean 'block1'"),
        (["--moment", "ends"], "unknown moment 'ends'; .*did you mean 'end'"),
        (["--max-gb", "0.1"], "max_bytes 100000000 is below the least"),
    ],
)
def test_mistakes_are_told_in_a_line(sweep, capsys, wrong, message):
    assert main(["pairs", sweep(num_families=2).root, *wrong]) == 2
    import re

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
    with pytest.raises(ValueError, match="one prepared network has 1440 bytes"):  # [30, 6] float64
        all_pairs(sweep(num_families=2), "cka", "block1", max_bytes=8 * 1439)


def test_only_what_is_named_is_analysed(sweep, capsys):
    store = sweep(num_families=6)
    options = ["--permutations", "99", "--measures", "cka"]
    assert main([store.root, *options, "--layers", "block2", "--moments", "init,end"]) == 0
    assert "Analysed in" in capsys.readouterr().out
    results = analysis.load(store.root)
    for table in (results.spread, results.association, results.happy_unhappy):
        assert set(table["layer"]) == {"block2"}
    assert set(results.spread["moment"]) == {"init", "end"}
    assert main([store.root, *options, "--moments", "init"]) == 0
    assert analysis.load(store.root).happy_unhappy.empty
    capsys.readouterr()
    assert main([store.root, *options, "--layers", "blok2"]) == 2
    assert "unknown layer 'blok2'; there are block1, block2; did you mean 'block2'?" in capsys.readouterr().err


def test_unknown_epoch(sweep):
    with pytest.raises(UnknownName, match="unknown epoch of moment 'end' '7'; there are 8"):
        all_pairs(sweep(num_families=2), "cka", "block1", epoch=7)
