"""Penalties of stitched replicas: their error leaves out replicas, and they are held against gap and spread as spread itself is."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from analysis import tables
from analysis.akp import spreads
from analysis.measures.generalization import gaps
from analysis.question import Asked
from analysis.stitching import jackknife, penalties, stitching

NUM_REPLICAS = 4


def write_stitching(store, rows, trials, slope: float, layers=("block1",), seed: int = 0) -> None:
    """Penalties that rise with the gap of the family (slope 1), fall (-1) or have nothing to do with it (0)."""
    generator = np.random.default_rng(seed)
    gap = tables.read(store, "replicas").groupby("trial")["gap_accuracy"].mean()
    pairs = np.array(list(permutations(range(NUM_REPLICAS), 2)))
    for trial in trials:
        fit = generator.standard_normal(NUM_REPLICAS)  # what a replica brings to all its pairs
        n = len(pairs) * len(layers)
        own = np.tile(slope * gap[trial] + 0.02 * fit[pairs].sum(1), len(layers))
        table = rows("stitching", n, trial=trial, schedule="", replica_lower=np.tile(pairs[:, 0], len(layers)),
                     replica_upper=np.tile(pairs[:, 1], len(layers)), layer=np.repeat(layers, len(pairs)), accuracy=0.5, cross_entropy=1.0,
                     penalty_accuracy=own, penalty_cross_entropy=2 * own, steps=50, seed=0)  # fmt: skip
        tables.write(store, "stitching", trial, table)


def ask(store, **more):
    gap_table = gaps(tables.read(store, "replicas"))
    return stitching(Asked(store, gap_table, spreads(store, ("cka",), num_bootstrap=20), num_permutations=199, **more))


@pytest.mark.parametrize(("slope", "sign"), [(1.0, 1), (-1.0, -1), (0.0, 0)])
def test_penalties_follow_what_they_were_made_of(sweep, rows, slope, sign):
    store = sweep(num_families=28)
    write_stitching(store, rows, tables.names(store, "trials"), slope)
    found = ask(store)
    related = found.tables["stitching_association"].set_index(["penalty", "against"])
    row = related.loc["penalty_accuracy", "gap_accuracy"]
    assert (abs(row["rho"]) > 0.5 and np.sign(row["rho"]) == sign and row["p_holm"] < 0.05) if sign else row["p_holm"] > 0.05
    assert row["rho_low"] <= row["rho"] <= row["rho_high"]
    assert np.sign(related.loc["penalty_cross_entropy", "spread"]["rho"]) == sign or not sign  # the spread rises with the gap here
    assert (related["num_families"] == 24).all()  # controls have nothing to be exchanged with
    assert len(found.tables["stitching_penalty"]) == 28
    assert found.lines[0].startswith("Stitching: mean penalty in accuracy over 28 families of 4 replicas")
    assert found.lines[1].startswith("Penalty in accuracy against gap_accuracy: block1 ")
    assert all(caption for _, caption in found.shown)
    assert [len(table) for table, _ in found.shown] == [4, 10, 6]


def test_the_jackknife_leaves_out_a_replica_with_its_pairs():
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((5, 5))
    np.fill_diagonal(matrix, np.nan)
    matrix[1, 3] = np.nan  # a pair that was not drawn
    mean, error = jackknife(matrix)
    slow = [np.nanmean(np.delete(np.delete(matrix, out, 0), out, 1)) for out in range(5)]
    assert mean == pytest.approx(np.nanmean(matrix))
    assert error == pytest.approx(np.sqrt(4 / 5 * np.sum((np.array(slow) - np.mean(slow)) ** 2)))
    assert np.isnan(jackknife(matrix[:2, :2])[1])


def test_the_interval_covers_where_pairs_share_replicas(sweep, rows):
    """Penalties a_i + a_j: the error of the mean over 12 pairs is that of 4 replicas, 2 sd(a) / sqrt(4), not that of 12 pairs."""
    store = sweep(num_families=60)
    write_stitching(store, rows, tables.names(store, "trials"), 0.0)
    found = penalties(tables.read(store, "stitching"), tables.read(store, "trials"))
    assert np.sqrt((found["penalty_accuracy_se"] ** 2).mean()) == pytest.approx(0.02, rel=0.2)
    covered = (found["penalty_accuracy_low"] <= 0) & (found["penalty_accuracy_high"] >= 0)
    assert covered.mean() >= 0.88
    assert found["reason"].eq("").all()


def test_what_cannot_be_asked_is_said(sweep, rows):
    store = sweep(num_families=7)
    assert ask(store).reason == "No replicas were stitched (probes.stitching={} does so after every main block)."
    write_stitching(store, rows, tables.names(store, "trials")[:2], 1.0)
    assert ask(store, moments=["init"]).reason.startswith("Replicas are stitched at the end")
    assert ask(store, layers=["block2"]).reason.startswith("No network was cut after the layers analysed")
    found = ask(store)
    assert found.lines[1:] == ["Penalty: undecided: 2 families with penalties, gap and spread (cka) of the layer, fewer than 5."]
    assert not found.reason
