"""The question of extrapolation on tables whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from analysis import tables
from analysis.akp import spreads
from analysis.extrapolation import extrapolation
from analysis.extrapolation_gap import against_gap, beside, relative_stability
from analysis.extrapolation_numbers import against_error, by_family, by_layer, by_size, families_with, queries
from analysis.hull_tables import NULL, PIXELS, SAMPLE
from analysis.measures.generalization import gaps
from analysis.question import Asked
from analysis.schema import FLAG, FLOAT, TEXT, TRIAL, VERSION, Column, Table
from tests.analysis.drawn import check

NUM_SAMPLES, NUM_NULL, NUM_REPLICAS = 30, 20, 2
LAYERS = (PIXELS, "block1", "block2")


def write_hull(store, rows, follows_gap: bool = False, num_parameters=lambda index: 1000) -> pd.DataFrame:
    """The table `hull` for all families of a synthetic sweep; distances grow with the gap if told so. Gives all its rows."""
    gap = gaps(tables.read(store, "replicas")).set_index("trial")["gap_accuracy"]
    trials = tables.read(store, "trials", ["trial", "swap_epoch"])
    for index, (trial, swap_epoch) in enumerate(trials.itertuples(index=False)):
        generator = np.random.default_rng(index)
        moments = [("end", 8)] + ([] if pd.isna(swap_epoch) else [("before_swap", int(swap_epoch))])
        parts = []
        for moment, epoch in moments:
            for layer in LAYERS:
                for replica in range(NUM_REPLICAS):
                    parts.append(one_network(rows, generator, trial, moment, epoch, layer, replica, gap[trial] if follows_gap else 0.1))
                    parts[-1]["num_parameters"] = [num_parameters(index)] * (NUM_SAMPLES + NUM_NULL)
        tables.write(store, "hull", trial, parts)
    return tables.read(store, "hull")


def one_network(rows, generator, trial, moment, epoch, layer, replica, level):
    total = NUM_SAMPLES + NUM_NULL
    inside = (generator.random(total) < (0 if layer == PIXELS else 0.3)) * 1.0
    distance = (1 - inside) * (level + 0.02 * generator.random(total)) * (1 + np.arange(total) % 3)
    wrong = generator.random(NUM_SAMPLES) < 0.3
    crossing = [[0.5] if generator.random() < 0.2 else [] for _ in range(NUM_SAMPLES)]
    nothing = [None] * NUM_NULL
    return rows(
        "hull",
        total,
        trial=trial,
        schedule="s",
        replica=replica,
        moment=moment,
        epoch=epoch,
        layer=layer,
        pooling="flatten",
        kind=[SAMPLE] * NUM_SAMPLES + [NULL] * NUM_NULL,
        sample=[*range(NUM_SAMPLES), *nothing],
        label=[0] * NUM_SAMPLES + nothing,
        num_points=50,
        num_features=5,
        status=np.where(inside, "inside", "outside").tolist(),
        distance=distance,
        lower_bound=distance,
        relative_gap=0.0,
        nearest_distance=np.full(total, 2.0),
        median_distance=4.0,
        support_size=2,
        support=[[1, 2]] * NUM_SAMPLES + nothing,
        support_labels=[[0, 1]] * NUM_SAMPLES + nothing,
        support_weights=[[0.75, 0.25]] * NUM_SAMPLES + nothing,
        predicted=wrong.astype(int).tolist() + nothing,
        predicted_projection=[int(w) ^ bool(c) for w, c in zip(wrong, crossing, strict=True)] + nothing,
        crossings=crossing + nothing,
        train_size=100,
    )


def ask(store) -> Asked:
    return Asked(store, gaps(tables.read(store, "replicas")), spreads(store, ["cka"], num_bootstrap=20), num_permutations=199)


def test_numbers_of_a_family_by_their_definitions(sweep, rows):
    store = sweep(num_families=7)
    raw = write_hull(store, rows)
    trials = families_with(store, None)
    table = by_family(queries(store, list(trials["trial"]), None, None), trials)
    assert len(table) == (7 + 6) * 3
    for row in table.to_dict("records"):
        mine = raw[(raw["trial"] == row["trial"]) & (raw["moment"] == row["moment"]) & (raw["layer"] == row["layer"])]
        samples, null = mine[mine["kind"] == SAMPLE], mine[mine["kind"] == NULL]
        assert row["outside"] == pytest.approx((samples["status"] == "outside").mean())
        assert row["null_outside"] == pytest.approx((null["status"] == "outside").mean())
        assert row["nearest"] == pytest.approx((samples["distance"] / 2).mean())
        assert row["null_scale"] == pytest.approx((null["distance"] / 4).mean())
        wrong = samples["predicted"] != samples["label"]
        assert row["nearest_wrong"] == pytest.approx((samples["distance"] / 2)[wrong].mean())
        assert row["scale_correct"] == pytest.approx((samples["distance"] / 4)[~wrong].mean())
        assert row["changed"] == pytest.approx((samples["predicted_projection"] != samples["predicted"]).mean())
        assert row["crossings"] == pytest.approx(samples["crossings"].map(len).mean())
        assert row["same_label"] == pytest.approx(0.75)
        assert (row["num_samples"], row["num_null"], row["num_replicas"]) == (NUM_SAMPLES, NUM_NULL, NUM_REPLICAS)


def test_layers_count_a_shared_state_once(sweep, rows):
    """Six stressed families of a control with two swap epochs: before the swap there are two states, not six."""
    store = sweep(num_families=7)
    raw = write_hull(store, rows)
    trials = families_with(store, None)
    looked = queries(store, list(trials["trial"]), None, None)
    table = by_layer(looked, trials, 0).set_index(["moment", "group", "layer"])
    assert table.loc[("before_swap", "all", "block1"), "num_families"] == 2
    assert table.loc[("end", "all", "block1"), "num_families"] == 7
    assert table.loc[("end", "loss", "block1"), "num_families"] == 2
    end = raw[(raw["moment"] == "end") & (raw["layer"] == "block1") & (raw["kind"] == SAMPLE)]
    row = table.loc[("end", "all", "block1")]
    assert row["outside"] == pytest.approx((end["status"] == "outside").mean())
    assert row["outside_low"] < row["outside"] < row["outside_high"]
    assert (table.xs(PIXELS, level="layer")[["outside", "null_outside", "outside_low"]] == 1).all(axis=None)
    wrong = (end["predicted"] != end["label"]).rename("wrong")
    by_trial = (end["distance"] / 2).groupby([end["trial"], wrong]).mean().unstack()
    assert row["wrong_minus_correct"] == pytest.approx((by_trial[True] - by_trial[False]).mean())


def test_networks_that_err_more_do_not_pass_for_samples_that_are_missed(sweep, rows):
    """Two kinds of families: one errs often and is near, one seldom and is far. Within each, distance and error have nothing in common."""
    store = sweep(num_families=7)
    write_hull(store, rows)
    trials = families_with(store, None)
    looked = queries(store, list(trials["trial"]), None, None)
    samples = looked["kind"] == SAMPLE
    near = looked["trial"].isin(trials["trial"][:3])
    looked["nearest"] = np.where(near, 0.1, 0.9) * looked["num"]
    looked.loc[samples, "wrong"] = np.where(near[samples], 3.0, 1.0)
    looked["nearest_wrong"] = looked["nearest"] / looked["num"] * looked["wrong"]
    table = by_layer(looked, trials, 0)
    assert table["wrong_minus_correct"].abs().max() < 1e-12


def test_distance_against_error_is_spearmans(sweep, rows):
    store = sweep(num_families=7)
    raw = write_hull(store, rows)
    trials = families_with(store, None)
    found = against_error(queries(store, list(trials["trial"]), None, None), 199, 0)
    end = raw[(raw["moment"] == "end") & (raw["kind"] == SAMPLE)]
    for row in found.to_dict("records"):
        mine = end[end["layer"] == row["layer"]]
        error = (mine["predicted"] != mine["label"]).groupby(mine["sample"]).mean()
        distance = mine.groupby("sample")["distance"].mean()
        assert row["rho"] == pytest.approx(spearmanr(distance, error).statistic)
        assert row["rho_low"] <= row["rho"] <= row["rho_high"]
        assert row["p"] >= 1 / 200
        assert (row["num_samples"], row["num_networks"]) == (NUM_SAMPLES, 7 * NUM_REPLICAS)


@pytest.mark.parametrize("follows_gap", [True, False])
def test_the_gap_is_explained_where_distances_follow_it(sweep, rows, follows_gap):
    store = sweep(num_families=28, direction=0.0)
    write_hull(store, rows, follows_gap)
    asked = ask(store)
    trials = families_with(store, None)
    table = by_family(queries(store, list(trials["trial"]), None, None), trials)
    found = against_gap(asked, table)
    mine = found[(found["predictor"] == "gap_accuracy") & (found["score"] == "nearest")]
    assert PIXELS not in set(mine["layer"])
    assert (mine["statement"] == "grows with the gap").all() == follows_gap
    left = beside(asked, table)
    left = left[(left["predictor"] == "gap_accuracy") & (left["score"] == "nearest") & (left["given"] == "spread")]
    assert (left["p_holm"] < 0.05).all() == follows_gap
    assert set(found["statement"]) <= {"grows with the gap", "falls with the gap", "no effect", "undecided"}


def test_relative_stability_is_held_fixed_where_it_was_recorded(sweep, rows, monkeypatch):
    """R that is the gap itself, and distances that have nothing to do with it."""
    if "stability" not in tables.TABLES:
        columns = (TRIAL, Column("moment", TEXT, ""), Column("is_output", FLAG, ""), Column("relative_mean", FLOAT, ""))
        monkeypatch.setitem(tables.TABLES, "stability", Table("stability", "", (VERSION, *columns)))
    store = sweep(num_families=28, direction=0.0)
    write_hull(store, rows)
    asked = ask(store)
    trials = families_with(store, None)
    table = by_family(queries(store, list(trials["trial"]), None, None), trials)
    assert relative_stability(asked) is None
    assert set(beside(asked, table)["given"]) == {"spread", "nearest"}
    for trial, gap in asked.gaps[["trial", "gap_accuracy"]].itertuples(index=False):
        values = {"moment": ["init", "end", "end"], "is_output": [True, True, False], "relative_mean": [9.0, gap, 9.0]}
        tables.write(store, "stability", trial, rows("stability", 3, trial=trial, **values))
    found = beside(asked, table)
    assert set(found["given"]) == {"spread", "nearest", "stability", "spread + stability"}
    mine = found[(found["score"] == "stability") & (found["predictor"] == "gap_accuracy")]
    assert (mine["rho"] > 0.95).all()
    assert (mine["p_holm"] < 0.05).all()


def test_sizes(sweep, rows):
    store = sweep(num_families=14)
    write_hull(store, rows, num_parameters=lambda index: 1000 * (1 + index % 2))
    trials = families_with(store, None)
    table = by_family(queries(store, list(trials["trial"]), None, None), trials)
    found = by_size(table, gaps(tables.read(store, "replicas")))
    assert set(found["parameters_per_sample"]) == {10, 20}
    assert (found["num_families"] == 7).all()
    assert by_size(table.assign(num_parameters=5), gaps(tables.read(store, "replicas"))).empty


def test_the_whole_answer(sweep, rows):
    store = sweep(num_families=14)
    asked = ask(store)
    assert extrapolation(asked).reason == "No family has the table hull (probes.hull records it)."
    write_hull(store, rows, num_parameters=lambda index: 1000 * (1 + index % 2))
    image = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    tables.write(
        store,
        "hull_pixels",
        "d000000000000_x",
        rows(
            "hull_pixels",
            3,
            dataset="d000000000000",
            kind=[SAMPLE, SAMPLE, NULL],
            sample=[0, 1, None],
            label=[0, 1, None],
            probe=[True, True, False],
            distance=[1.0, 0.0, 1.0],
            nearest_distance=[2.0, 0.0, 1.0],
            support_size=2,
            shape=[[3, 2, 2]] * 3,
            image=[image, image, None],
            projection=[image * 0.5, image, None],
        ),
    )
    found = extrapolation(asked)
    names = {"extrapolation", *(f"extrapolation_{name}" for name in ("layers", "errors", "gap", "beside", "sizes"))}
    assert set(found.tables) == names
    check(found.charts, {"hull_distances", "hull_images", "hull_crossings"})
    assert len(found.shown) == 5
    assert "pixels 100.0%" in found.lines[0]
    assert "null 100.0%" in found.lines[0]
    only = extrapolation(replace(asked, layers=["block1"], moments=["end"]))
    assert set(only.tables["extrapolation"]["layer"]) == {PIXELS, "block1"}
    before = extrapolation(replace(asked, moments=["before_swap"]))
    assert set(before.tables) == {"extrapolation", "extrapolation_layers"}
    assert "moment before_swap" in before.lines[0]
