"""`analysis.load` gives what was written, in the shape it says, or a message that names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import tables
from analysis.__main__ import main
from analysis.activations import UnknownName
from analysis.analyse import analyse


def test_an_array_holds_what_each_family_wrote(sweep):
    store = sweep(num_families=5, num_replicas=3, num_samples=7, widths=(4, 2))
    found = analysis.load(store.root).activations("block2", "end")
    assert found.X.shape == (5, 3, 7, 2)
    assert found.X.dtype == np.float32
    assert found.present.all()
    for family, trial in enumerate(found.trials["trial"]):
        X = tables.read_activations(store, trial, "end", "block2")
        np.testing.assert_array_equal(found.X[family], X["end", 8, "block2"])
    assert found.samples["sample"].tolist() == list(range(7))


def test_tables_are_data_frames_and_derived_ones_too(sweep):
    store = sweep(num_families=5)
    results = analysis.load(store.root)
    pd.testing.assert_frame_equal(results.replicas, tables.read(store, "replicas"))
    assert results.replicas is results.replicas
    analyse(store, ["cka"], num_permutations=19, num_dispersion_permutations=19)
    results = analysis.load(store.root)
    assert {"trials", "spread", "association"} <= set(dir(results))
    assert set(results.spread()["measure"]) == {"cka"}
    assert list(results.table("replicas", ["trial", "seed"]).columns) == ["trial", "seed"]


def test_missing_and_diverged_replicas_are_nan(sweep, write):
    store = sweep(num_families=2, num_replicas=4, num_samples=7, diverged={1: 1})
    write(store, num_families=1, num_replicas=2, num_samples=7, first=2)
    found = analysis.load(store.root).activations("block1")
    assert found.present.tolist() == [[True] * 4, [True] * 3 + [False], [True, True, False, False]]
    np.testing.assert_array_equal(np.isfinite(found.X).all(axis=(2, 3)), found.present)


def test_moments_around_swaps_leave_controls_out(sweep):
    store = sweep(num_families=8)
    results = analysis.load(store.root)
    found = results.activations("block1", "before_swap")
    assert set(found.trials["swapped"]) == {"activation", "loss", "both"}
    assert found.trials["epoch"].tolist() == found.trials["swap_epoch"].tolist()
    only = found.trials["trial"].tolist()[:2]
    assert results.activations("block1", "before_swap", trials=only).trials["trial"].tolist() == only


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layer": "blok1"}, "unknown layer 'blok1'; there are block1, block2; did you mean 'block1'"),
        ({"layer": "block1", "moment": "edn"}, "unknown moment 'edn'; there are init, end, before_swap, after_swap; did you mean 'end'"),
        ({"layer": "block1", "moment": "before_swap", "epoch": 3}, "unknown epoch of moment 'before_swap' '3'; there are 2, 4"),
        ({"layer": "block1", "trials": ["t000000000009"]}, "unknown finished family 't000000000009'"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(sweep, wrong, message):
    with pytest.raises(UnknownName, match=message):
        analysis.load(sweep(num_families=8).root).activations(**wrong)


def test_unknown_tables_and_folders(sweep, tmp_path):
    store = sweep(num_families=2)
    with pytest.raises(AttributeError, match=r"unknown table 'replica'; .*did you mean 'replicas'"):
        _ = analysis.load(store.root).replica
    with pytest.raises(FileNotFoundError, match=f"results lie in {store.root}"):
        analysis.load(tmp_path)


def test_families_that_do_not_fit_into_one_array_are_refused(sweep, write):
    store = sweep(num_families=2, widths=(4,))
    write(store, num_families=1, widths=(5,), first=2)
    with pytest.raises(ValueError, match=r"number of features .4: 2 families, t000000000000 first; 5: 1 family"):
        analysis.load(store.root).activations("block1")
    write(store, num_families=1, num_samples=9, widths=(4,), first=3)
    with pytest.raises(ValueError, match=r"t000000000000 \(30 rows\) and t000000000003 \(9 rows\) were probed on other samples"):
        analysis.load(store.root).activations("block1", trials=["t000000000000", "t000000000003"])


def test_a_uri_is_read_like_a_folder(sweep):
    store = sweep(num_families=2)
    by_uri = analysis.load(f"file://{store.root}")
    pd.testing.assert_frame_equal(by_uri.trials, analysis.load(store.root).trials)
    assert by_uri.activations("block1").X.shape == (2, 4, 30, 6)


def test_import_analysis_reads_no_library():
    code = "import sys, analysis; assert not {'pandas', 'pyarrow', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_the_readme_shows_runs(sweep, monkeypatch):
    """The block of README.md that loads results, on a store in the place that it names."""
    store = sweep(num_families=5, num_replicas=3)
    analyse(store, ["cka"], num_permutations=19, num_dispersion_permutations=19)
    assert main(["pairs", store.root, "--layer", "block2"]) == 0
    text = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "analysis.load" in block]
    assert len(blocks) == 1
    Path(store.root).parent.joinpath("results").mkdir()
    Path(store.root).rename(Path(store.root).parent / "results" / "cells")
    monkeypatch.chdir(Path(store.root).parent)
    names: dict[str, object] = {}
    exec(blocks[0], names)
    assert names["found"].X.shape == (5, 3, 30, 4)
    distances, networks = names["results"].pairs("cka", "block2", "end")
    assert distances.shape == (15, 15)
    assert len(networks) == 15


def test_spread_and_verdict_are_those_of_the_analysis(sweep):
    """From its tables where it ran, else computed, and the same either way."""
    store = sweep(num_families=14)
    before = analysis.load(store.root)
    early, answer = before.spread(), before.verdict()
    told = analyse(store, num_dispersion_permutations=19)
    after = analysis.load(store.root)
    pd.testing.assert_frame_equal(early, after.spread())
    for one in (answer, after.verdict()):
        assert (one.answer, one.rho, one.text) == (told.answer, told.rho, told.text)
    assert repr(answer) == answer.text
    assert answer.answer in answer._repr_html_()


def test_spread_is_of_what_is_named(sweep):
    store = sweep(num_families=4)
    results = analysis.load(store.root)
    one = results.spread("block1", "end", "cka")
    assert len(one) == 4
    assert one[["layer", "moment", "measure"]].drop_duplicates().values.tolist() == [["block1", "end", "cka"]]
    other = results.spread("block1", "end", "mutual_knn")  # not among the defaults
    assert other["measure"].tolist() == ["mutual_knn"] * 4
    trial = one["trial"].iloc[1]
    pd.testing.assert_frame_equal(results.spread("block1", "end", "cka", [trial]), one.iloc[[1]].reset_index(drop=True))
    with pytest.raises(UnknownName, match=r"unknown layer 'blok1'.* did you mean 'block1'"):
        results.spread("blok1")
    with pytest.raises(KeyError, match="unknown measure 'ckaa'; did you mean 'cka'"):
        results.spread(measure="ckaa")
    with pytest.raises(UnknownName, match="unknown predictor 'gap'"):
        results.verdict("gap")


def test_reprs_say_what_there_is(sweep):
    store = sweep(num_families=4, num_failed=1)
    results = analysis.load(store.root)
    assert repr(results).startswith(f"Results of 5 families (4 done, 1 failed) in {store.root}\ntables: trials, replicas")
    assert "a family; written last" in results._repr_html_()
    assert repr(results.activations("block1")).endswith("X [4 families, 4 replicas, 30 rows, 6 features] float32")
