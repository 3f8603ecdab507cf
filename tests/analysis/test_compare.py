"""Differences of families and sweeps, against plain recomputation and where the truth is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import analysis
from analysis import compare
from analysis.activations import UnknownName


@pytest.fixture
def two(sweep):
    """Two sweeps of the same schedules, the second with larger gaps and spread in places, no family in common."""
    a, b = (
        sweep(num_families=28, widths=(6,), moments=("end",), direction=d, seed=s, first=f) for d, s, f in ((1.0, 0, 0), (-1.0, 1, 100))
    )
    return analysis.load(a.root), analysis.load(b.root)


def test_families_with_the_same_seeds_are_paired(two):
    a, _ = two
    found = compare.families(a, "t000000000000", a, "t000000000003")
    x, y = (a.replicas.loc[a.replicas["trial"] == t, "gap_accuracy"].to_numpy(float) for t in ("t000000000000", "t000000000003"))
    row = found.results.set_index("quantity").loc["gap_accuracy"]
    assert (row["a"], row["b"]) == (pytest.approx(x.mean()), pytest.approx(y.mean()))
    expected = stats.ttest_rel(y, x).confidence_interval(0.95)
    assert (row["low"], row["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    spread = a.spread("block1", "end", "cka", ["t000000000000", "t000000000003"]).set_index("trial")["spread"]
    row = found.results.set_index("quantity").loc["spread of block1"]
    assert row["difference"] == pytest.approx(spread["t000000000003"] - spread["t000000000000"])
    assert row["low"] <= row["difference"] <= row["high"]
    assert any("one control" in note for note in found.notes)
    assert set(found.configuration["key"]) == {"schedule"}


def test_families_with_other_seeds_are_not(two, rows):
    a, b = two
    b.replicas["seed"] += 10
    found = compare.families(a, "t000000000000", b, "t000000000064")
    x = a.replicas.loc[a.replicas["trial"] == "t000000000000", "gap_accuracy"].to_numpy(float)
    y = b.replicas.loc[b.replicas["trial"] == "t000000000064", "gap_accuracy"].to_numpy(float)
    row = found.results.set_index("quantity").loc["gap_accuracy"]
    expected = stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
    assert (row["low"], row["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert row["n"] == "4 + 4"


def test_a_family_equals_itself(two):
    a, _ = two
    found = compare.families(a, "t000000000002", a, "t000000000002")
    assert found.configuration.empty
    assert found.provenance.empty
    finite = found.results[found.results["a"].notna()]
    assert (finite[["difference", "low", "high"]] == 0).all(axis=None)


def test_diverged_replicas_and_failed_families(sweep):
    store = sweep(num_families=3, diverged={1: 2}, num_failed=1)
    results = analysis.load(store.root)
    found = compare.families(results, "t000000000000", results, "t000000000001").results.set_index("quantity")
    assert found.loc["gap_accuracy", "n"] == "2"
    assert found.loc["spread of block1", "n"] == "4 + 2"
    failed = compare.families(results, "t000000000000", results, "t000000000003")
    assert failed.results.empty
    assert "failed" in set(failed.provenance["b"])
    with pytest.raises(UnknownName, match=r"unknown family 't0000000000ff'.* did you mean"):
        compare.families(results, "t0000000000ff", results, "t000000000000")


def test_sweeps_are_compared_over_their_schedules(two):
    a, b = two
    found = analysis.diff(a, b)
    table = found.results.set_index("quantity")
    means = [r.replicas.groupby("trial")["gap_accuracy"].mean().mean() for r in (a, b)]
    assert table.loc["gap_accuracy", "difference"] == pytest.approx(means[1] - means[0])
    assert table.loc["gap_accuracy", "n"] == "28 in 4"
    assert table.loc["gap_accuracy", "low"] <= table.loc["gap_accuracy", "difference"] <= table.loc["gap_accuracy", "high"]
    x, y = (
        r.associations().query("measure == 'cka' and moment == 'end' and predictor == 'gap_accuracy'").set_index("layer") for r in (a, b)
    )
    row = table.loc["rho in block1"]
    assert row["difference"] == pytest.approx(y.loc["block1", "rho"] - x.loc["block1", "rho"])
    half = y.loc["block1", "rho"] - y.loc["block1", "rho_low"], x.loc["block1", "rho_high"] - x.loc["block1", "rho"]
    assert row["low"] == pytest.approx(row["difference"] - np.sqrt(half[0] ** 2 + half[1] ** 2))
    assert "0 in both" in found.notes[0]


def test_a_sweep_equals_itself(two):
    a, _ = two
    found = analysis.diff(a, a.store.root)
    assert found.configuration.empty
    assert found.provenance.empty
    assert (found.results["difference"] == 0).all()
    assert "28 in both. Of these 28 have the same numbers of all replicas, bit for bit" in found.notes[0]
    rho = found.results[found.results["quantity"].str.startswith("rho")]
    assert len(rho)
    assert rho["low"].isna().all()  # the same families: not independent
    assert rho["estimator"].str.contains("share families").all()


def test_intervals_cover_the_difference_as_often_as_they_say():
    """Of means of paired replicas, over 400 draws; and of the bootstrap's weights, that each draw has as many items as there are."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        x = generator.standard_normal(6)
        row = compare._means(x, x + 0.3 + 0.5 * generator.standard_normal(6), True)
        held += row["low"] <= 0.3 <= row["high"]
    assert 0.92 <= held / 400 <= 0.98
    groups = np.array(["a"] * 3 + ["b"] * 3)
    weights = compare._nested(groups, generator)
    assert (weights.sum(axis=1) == 6).all()
    assert set(np.unique(weights[:, :3].sum(axis=1))) == {0.0, 3.0, 6.0}


def test_records_are_json_and_reprs_say_all(two):
    a, b = two
    found = compare.families(a, "t000000000000", b, "t000000000064")
    again = json.loads(json.dumps(found.records()))
    assert again["results"][0]["quantity"] == "train_accuracy"
    there = found.results["difference"].notna()
    assert [row["difference"] is not None for row in again["results"]] == there.tolist()
    assert [row["difference"] for row in again["results"] if row["difference"] is not None] == pytest.approx(
        found.results.loc[there, "difference"].tolist()
    )
    assert "b - a [95 %]" in repr(found)
    assert "b - a [95 %]" in found._repr_html_()
    assert isinstance(found.shown(), pd.DataFrame)
