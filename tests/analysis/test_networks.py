"""All networks beside each other: dispersion and location of happy and unhappy, the model test, the baselines."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from skbio import DistanceMatrix
from skbio.stats.distance import mantel as skbio_mantel

from analysis import tables
from analysis.activations import layer_order
from analysis.akp import associations, calibrated, verdict
from analysis.baselines import baselines
from analysis.exchange import design
from analysis.happiness import _slope, compare, contradictions
from analysis.mantel import annak, mantel
from analysis.measures.baselines import disagreement
from analysis.measures.calibration import NULL_LEVEL, null_cka, null_spreads, participation_ratios
from analysis.measures.dispersion import spread, spread_intervals
from analysis.measures.generalization import gaps
from analysis.measures.similarity import MEASURES
from analysis.predictors import partials, predictors
from analysis.spreads import spreads
from analysis.statistics import permutations


def networks(table: pd.DataFrame, seed: int, scale: np.ndarray, shift: np.ndarray, num_replicas: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Distances and owners of points around a place per family `[family]`, scattered by scale."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(table)), num_replicas)
    X = scale[owner, None] * generator.standard_normal((len(owner), 6)) + shift[owner]
    return np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1)), owner


def test_more_scatter_of_the_unhappy_is_found_whatever_the_location(tree):
    table = tree(num_controls=6)
    generator = np.random.default_rng(0)
    unhappy = generator.random(len(table)) < 0.5
    place = 5.0 * generator.standard_normal((12, 6))
    codes = (
        np.unique(table["control"].to_numpy(), return_inverse=True)[1],
        np.unique(table["last_activation"].to_numpy(), return_inverse=True)[1],
    )
    shift = place[codes[0]] + place[5 + codes[1] % 5]
    layers = {"same": networks(table, 1, np.ones(len(table)), shift), "more": networks(table, 2, np.where(unhappy, 2.0, 1.0), shift)}
    found = compare(layers, table, unhappy, num_permutations=199, num_bootstrap=50)
    assert found["more"]["verdict"] == "AKP"
    assert found["more"]["p_adjusted"] <= 0.05 < found["same"]["p_adjusted"]
    assert found["more"]["effect_size"] > 0
    assert found["same"]["p_location"] > 0.05
    moved = networks(table, 1, np.ones(len(table)), shift + 3.0 * unhappy[:, None])
    assert compare({"moved": moved}, table, unhappy, num_permutations=199, num_bootstrap=50)["moved"]["p_location"] <= 0.02


def test_dispersion_as_it_is_and_aligned_are_both_told_where_they_disagree(tree):
    """Under each control the unhappy are more dispersed; but most of them have the controls whose networks are all close together."""
    table = tree(num_controls=6)
    close = table["control"].isin(["c0", "c1", "c2"]).to_numpy()
    unhappy = np.random.default_rng(7).random(len(table)) < np.where(close, 0.8, 0.2)
    D, owner = networks(table, 8, np.where(close, 1.0, 4.0) * np.where(unhappy, 2.0, 1.0), np.zeros((len(table), 6)))
    row = compare({"head": (D, owner)}, table, unhappy, euclidean=True, num_permutations=199, num_bootstrap=50)["head"]
    assert row["difference"] < 0 < row["rho"]
    assert row["verdict"] == "AKP"
    assert 0 < row["aligned_difference_low"] < row["aligned_difference"] < row["aligned_difference_high"]
    (line,) = contradictions(pd.DataFrame([row | {"measure": "cka", "layer": "head"}]))
    assert f"head less as they are ({row['difference']:+.3f}), more aligned ({row['aligned_difference']:+.3f}" in line
    assert "the means of the block (control and swap epoch) and of the last functions" in line
    assert contradictions(pd.DataFrame([row | {"measure": "cka", "layer": "head", "difference": 1.0}])) == []


def test_the_aligned_difference_is_that_of_a_regression_with_everything_shared(tree):
    """Dummies for blocks and last functions beside the flag, by least squares."""
    plan = design(tree(num_controls=3))
    generator = np.random.default_rng(9)
    distance, flag = generator.random(plan.num_items), (generator.random(plan.num_items) < 0.5).astype(float)
    align = plan.aligner()
    slope, low, high = _slope(align(distance), align(flag), plan.lines)
    dummies = [codes == code for codes in (plan.blocks, plan.functions) for code in np.unique(codes)]
    expected = np.linalg.lstsq(np.stack([flag, *dummies], axis=1).astype(float), distance, rcond=None)[0][0]
    assert slope == pytest.approx(expected)
    assert low < slope < high


def test_mantel_equals_scikit_bio():
    generator = np.random.default_rng(1)
    A, B = (np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1)) for X in generator.standard_normal((2, 9, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = skbio_mantel(DistanceMatrix(A), DistanceMatrix(B), method="spearman", permutations=0)[0]
    orders = permutations(9, 5, generator)
    rho, null = mantel(A, B, orders)
    assert rho == pytest.approx(expected)
    for order, value in zip(orders, null, strict=True):
        assert value == pytest.approx(mantel(A, B[np.ix_(order, order)], orders)[0])


def test_annak_finds_happy_families_alike(tree):
    table = tree(num_controls=5)
    generator = np.random.default_rng(2)
    badly = generator.random(len(table))
    shift = 4.0 * badly[:, None] * generator.standard_normal((len(table), 6))  # the worse, the further from all others
    D, owner = networks(table, 3, np.ones(len(table)), shift)
    layers = {"a": (D / D.max(), owner)}
    assert annak(layers, table, badly, num_permutations=199)["a"]["p_annak_adjusted"] <= 0.02
    found = annak(layers, table, generator.permutation(badly), num_permutations=199)["a"]
    assert found["p_annak"] > 0.02
    assert found["num_pairs"] == len(table) * (len(table) - 1) // 2


def test_disagreement_equals_the_loop_over_pairs():
    predicted = np.random.default_rng(3).integers(0, 4, size=(5, 30))
    expected = np.mean([(predicted[i] != predicted[j]).mean() for i, j in combinations(range(5), 2)])
    assert disagreement(predicted).mean() == pytest.approx(expected)


def test_predictors_and_partials_from_tables(sweep, rows):
    store = sweep()
    for number, trial in enumerate(tables.names(store, "trials")):
        predicted = [np.where(np.arange(20) < number % 9 * replica // 2, 1, 0).tolist() for replica in range(4)]
        columns = rows("predictions", 4, trial=trial, replica=np.arange(4), epoch=8, moment="epoch", split="test", predicted=predicted)
        tables.write(store, "predictions", trial, columns)
    spread_table, gap_table = spreads(store, ["cka"]), gaps(tables.read(store, "replicas"))
    known = baselines(store, spread_table["trial"].unique())
    assert set(known["baseline"]) == {"train_accuracy", "disagreement"}
    found = predictors(store, spread_table, gap_table, known).set_index(["score", "layer", "predictor"])
    row = found.loc[("spread/cka", "block1", "gap_accuracy")]
    assert row["tau"] > 0.8
    assert row["psi"] > 0.7
    assert row["cmi"] > 0.3
    assert abs(found.loc[("disagreement", "", "gap_accuracy"), "tau"]) < 0.5
    assert "families with 1 scores" in found.loc[("train_accuracy", "", "gap_accuracy"), "reason"]
    left = partials(spread_table, gap_table, known, num_permutations=199).set_index(["layer", "predictor", "given"])
    assert left.loc[("block1", "gap_accuracy", "disagreement"), "rho"] > 0.9
    assert left.loc[("block1", "gap_accuracy", "disagreement"), "p_holm"] < 0.05
    explained = known.assign(value=known["trial"].map(gap_table.set_index("trial")["gap_accuracy"]))
    none = partials(spread_table, gap_table, explained, num_permutations=199).set_index(["layer", "predictor", "given"])
    assert not abs(none.loc[("block1", "gap_accuracy", "disagreement"), "rho"]) > 0.6


def test_null_cka_is_the_mean_over_shuffles():
    generator = np.random.default_rng(4)
    X = generator.standard_normal((2, 12, 5)) @ np.diag([3.0, 1, 1, 0.3, 0.1])
    measure = MEASURES["cka"]
    shuffled = [1 - measure.distances([X[0], X[1][generator.permutation(12)]])[0, 1] ** 2 / 2 for _ in range(4000)]
    assert null_cka(participation_ratios(X, np.ones(2, dtype=bool)), 12) == pytest.approx(np.mean(shuffled), abs=4 * np.std(shuffled) / 63)
    assert participation_ratios(np.stack([np.eye(6), np.ones((6, 6))]), np.ones(2, dtype=bool)) == pytest.approx([5.0, np.nan], nan_ok=True)


@pytest.mark.parametrize("name", ["cka", "cka_angular", "procrustes", "mutual_knn", "disagreement", "churn"])
def test_networks_that_share_nothing_have_the_null_spread_and_equal_ones_none(name):
    """Whatever their width, which raw spread depends on."""
    measure, generator = MEASURES[name], np.random.default_rng(6)
    labels = generator.integers(3, size=40)
    there = np.ones(6, dtype=bool)
    found = {}
    for width in (3, 20):
        X = generator.standard_normal((6, 40, width))
        null = null_spreads(measure, X, there, labels, 8, np.random.default_rng(0))
        assert len(null) == 15 * 8 * 8
        found[width] = spread(measure.distances_of(X, there, labels)).spread, np.quantile(null, 1 - NULL_LEVEL), null.mean()
        equal = np.broadcast_to(X[0], X.shape)
        assert spread(measure.distances_of(equal, there, labels)).spread == 0
    for raw, low, mean in found.values():
        assert raw == pytest.approx(mean, rel=0.1)
        assert 0 < low < mean
    if name in ("cka", "procrustes"):
        assert abs(found[3][0] - found[20][0]) > 0.15
        assert null_cka(participation_ratios(X, there), 40) == pytest.approx(1 - found[20][2], abs=0.02) or name == "procrustes"
    if name == "churn":  # of two networks as often right as these, independently
        right = (X.argmax(axis=2) == labels).mean(axis=1)
        expected = np.mean([p * (1 - q) + q * (1 - p) for i, p in enumerate(right) for q in right[:i]])
        assert found[20][2] == pytest.approx(expected, abs=0.02)


def test_families_of_unequal_width_are_compared_only_where_calibrated(sweep, write):
    store = sweep(num_families=28, num_samples=25, widths=(4,), moments=("end",))
    write(store, num_families=7, num_samples=25, widths=(12,), moments=("end",), first=100)
    raw = spreads(store, ["cka", "procrustes"])
    assert raw.loc[raw["measure"] == "procrustes", "null_spread"].isna().all()
    assert (raw.loc[raw["measure"] == "cka", "calibration"] == "mean over all permutations of samples, closed form").all()
    table = spreads(store, ["cka", "procrustes"], num_shuffles=2)
    assert np.allclose(table["spread"], raw["spread"])
    assert np.allclose(table["spread_calibrated"], table["spread"] / table["null_spread"])
    of = table.loc[table["measure"] == "procrustes", "calibration"]
    assert (of == "95% quantile of similarity over 24 pairs of networks, each in 2 orders").all()
    gap_table = gaps(tables.read(store, "replicas"))
    options = {"num_permutations": 99, "num_bootstrap": 20}
    refused = associations(raw, gap_table, **options)
    assert (refused["num_dropped"] == 7).all()
    kept = associations(calibrated(table), gap_table, **options)
    assert (kept["num_dropped"] == 0).all()
    assert kept["estimator"].str.contains("calibrated: 1 - mean").all()
    assert verdict(kept).text.startswith("Exploratory, of calibrated spreads: ")
    scored = [predictors(store, rows, gap_table, baselines(store, [])) for rows in (raw, calibrated(table))]
    of_spread = [rows.loc[rows["score"] == "spread/procrustes", "num_families"] for rows in scored]
    assert [set(n) for n in of_spread] == [{28}, {35}]


def test_spread_intervals_hold_the_spread_and_narrow_with_replicas():
    generator = np.random.default_rng(5)
    found = [spread(MEASURES["cka"].distances(generator.standard_normal((m, 20, 4)))) for m in (4, 30)]
    low, high = spread_intervals([f.pairs for f in found] + [found[0].pairs[:1]], 500)
    for index, one in enumerate(found):
        assert low[index] < one.spread < high[index]
    assert high[1] - low[1] < high[0] - low[0]
    assert np.isnan(low[2])


def test_layers_of_different_networks_are_all_there_in_their_order():
    table = pd.DataFrame(
        [("a", layer) for layer in ("block2", "head")]
        + [("b", layer) for layer in ("block1", "block2", "block3", "head", "block1")]
        + [("c", layer) for layer in ("block1", "block2", "head", "tail")],
        columns=["trial", "layer"],
    )
    assert layer_order(table) == ["block1", "block2", "block3", "head", "tail"]
    assert layer_order(table.iloc[:0]) == []
