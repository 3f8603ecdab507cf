"""The answer follows the data: AKP where spread rises with the gap, anti-AKP where it falls, else no effect."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis import tables
from analysis.akp import PRIMARY_MEASURE, associations, at_first_swap, families, spreads, verdict
from analysis.analyse import analyse
from analysis.measures.generalization import gaps
from analysis.measures.similarity import DEFAULT_MEASURES, MEASURES
from analysis.networks import compare_networks
from analysis.storage import Store
from analysis.wording import counted

QUICK = {"num_permutations": 499, "num_bootstrap": 200}


def gap_table(store: Store) -> pd.DataFrame:
    return gaps(tables.read(store, "replicas"))


def association(store: Store, **options: object) -> pd.DataFrame:
    return associations(spreads(store, ["cka"]), gap_table(store), **(QUICK | options))


@pytest.mark.parametrize(("direction", "answer"), [(1.0, "AKP"), (-1.0, "anti-AKP")])
def test_the_answer_has_the_sign_of_the_association(sweep, direction, answer):
    found = verdict(association(sweep(direction=direction)))
    assert found.answer == answer
    assert np.sign(found.rho) == direction
    assert found.rho_low - 1e-9 <= found.rho <= found.rho_high + 1e-9
    assert found.num_families == 36
    for part in (answer, "36 families of 4 replicas", "aligned ranks", "1 - mean CKA", "interval", "6 controls", f"{found.rho:.2f}"):
        assert part in found.text


def test_independent_spread_is_mostly_not_significant(sweep):
    answers = [verdict(association(sweep(direction=0.0, seed=seed, widths=(4,), moments=("end",)))).answer for seed in range(5)]
    assert answers.count("undecided") + answers.count("no effect") >= 4


def happy_unhappy(*arguments: object, **options: object) -> pd.DataFrame:
    return compare_networks(*arguments, **options)[0]


def synthetic(generator: np.random.Generator, num_controls: int, num_layers: int, slope: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of spreads at the end and gaps, without networks: trees of 5 lines at 3 swap epochs."""
    families = [(control, line, epoch) for control in range(num_controls) for line in range(5) for epoch in (2, 4, 6)]
    trials = [f"t{i:012x}" for i in range(len(families))]
    gap = generator.standard_normal(len(families))
    latent = slope * gap + generator.standard_normal(len(families))
    spread_table = pd.DataFrame([
        {"trial": trial, "schedule": f"0:relu{control}/focal {epoch}:act{line}/focal", "control": f"c{control}", "swap_epoch": epoch,
         "moment": "end", "epoch": 8, "layer": f"block{layer}", "measure": "cka", "num_replicas": 6, "num_samples": 50, "width": 8,
         "spread": latent[i] + 0.5 * generator.standard_normal(), "spread_se": 0.5, "last_activation": f"act{line}", "last_loss": "focal"}
        for layer in range(num_layers) for i, (trial, (control, line, epoch)) in enumerate(zip(trials, families, strict=True))
    ]).astype({"swap_epoch": "Int32"})  # fmt: skip
    gap_rows = pd.DataFrame({"trial": trials, "gap_accuracy": gap, "gap_cross_entropy": -gap, "test_error": np.ones(len(families))})
    return spread_table, gap_rows


def test_power_and_the_sign_of_each_predictor():
    found = associations(*synthetic(np.random.default_rng(1), 4, 3, 1.5), **QUICK)
    by_predictor = found.groupby("predictor")["verdict"].agg(set)
    assert by_predictor["gap_accuracy"] == {"AKP"}
    assert by_predictor["gap_cross_entropy"] == {"anti-AKP"}
    assert by_predictor["test_error"] == {"undecided"}
    assert found.loc[found["predictor"] == "test_error", "reason"].str.contains("test_error is the same in all 60").all()


def test_p_is_adjusted_over_the_layers_of_one_question():
    found = associations(*synthetic(np.random.default_rng(2), 3, 4, 0.2), **QUICK)
    rows = found[found["predictor"] == "gap_accuracy"]
    assert (rows["p_adjusted"] >= rows["p"]).all()
    assert (rows["p_adjusted"] <= 4 * rows["p"] + 0.02).all()  # never more than Bonferroni's, drawing aside
    assert rows["p_adjusted"].min() > rows["p"].min()


def test_what_the_blocks_and_last_functions_do_changes_nothing():
    """Effects of control, swap epoch and last functions on spread and gap, however large: the same ranks, the same answer."""
    spread_table, gap_rows = synthetic(np.random.default_rng(5), 3, 2, 0.5)
    plain = associations(spread_table, gap_rows, **QUICK)
    of = spread_table.drop_duplicates("trial").set_index("trial")
    shift = {c: 40.0 * i for i, c in enumerate(of["control"].unique())} | {a: 7.0 * i for i, a in enumerate(of["last_activation"].unique())}
    effect = of["control"].map(shift) + of["last_activation"].map(shift) + of["swap_epoch"].astype(float) * of["control"].map(shift)
    moved = spread_table.assign(spread=spread_table["spread"] + spread_table["trial"].map(effect))
    gaps_moved = gap_rows.assign(gap_accuracy=gap_rows["gap_accuracy"] - gap_rows["trial"].map(effect))
    found = associations(moved, gaps_moved, **QUICK)
    for column in ("rho", "p", "p_adjusted", "rho_low"):
        rows = [table.loc[table["predictor"] == "gap_accuracy", column] for table in (plain, found)]
        assert np.allclose(*rows, atol=1e-6), column
    assert (found.loc[found["predictor"] == "gap_accuracy", "rho_all"] < -0.8).all()


def test_no_effect_needs_an_interval_within_the_bound():
    large = associations(*synthetic(np.random.default_rng(6), 24, 1, 0.0), **QUICK).iloc[0]
    assert large["verdict"] == "no effect"
    assert max(-large["rho_low"], large["rho_high"]) < large["bound"] == 0.3
    small = associations(*synthetic(np.random.default_rng(6), 2, 1, 0.0), **QUICK).iloc[0]
    assert small["verdict"] == "undecided"
    assert f"about {small['families_needed']} families would decide" in small["reason"]
    assert small["families_needed"] > small["num_families"]
    near, gap_rows = synthetic(np.random.default_rng(15), 24, 1, 0.1)
    near = associations(near, gap_rows, **QUICK)
    assert near.iloc[0]["families_needed"] < near.iloc[0]["num_families"]
    assert near.iloc[0]["reason"] == "the interval reaches beyond ±0.3; the estimate lies near it"
    assert "would decide" not in verdict(near).text
    assert small["detectable_rho"] > large["detectable_rho"]


def test_families_of_one_state_have_no_spread_to_compare_before_the_swap():
    spread_table, gap_rows = synthetic(np.random.default_rng(7), 3, 1, 1.0)
    shared = spread_table.groupby(["control", "swap_epoch"])["spread"].transform("first")
    row = associations(spread_table.assign(spread=shared), gap_rows, **QUICK).iloc[0]
    assert (row["verdict"], row["reason"]) == ("undecided", "families that continue from the same state have the same spread here")


def test_signs_that_disagree_are_mixed():
    spread_table, gap_rows = synthetic(np.random.default_rng(3), 3, 2, 2.0)
    spread_table.loc[spread_table["layer"] == "block1", "spread"] *= -1
    found = verdict(associations(spread_table, gap_rows, **QUICK))
    assert found.answer == "mixed"


def test_families_without_numbers_are_dropped_and_counted():
    spread_table, gap_rows = synthetic(np.random.default_rng(4), 3, 1, 1.0)
    spread_table.loc[0, "spread"] = np.nan
    gap_rows.loc[3, "gap_accuracy"] = np.nan
    spread_table.loc[20, "width"] = 9
    row = associations(spread_table, gap_rows, **QUICK).set_index("predictor").loc["gap_accuracy"]
    # Of 45, three are dropped; the one that lacks epoch 6 has no line to be exchanged with, the two that lack epoch 2 have each other's.
    assert (row["num_families"], row["num_dropped"], row["num_alone"]) == (40, 3, 2)


@pytest.mark.parametrize("num_families", [1, 2, 4])
def test_few_families_are_undecided_with_the_reason(sweep, num_families):
    store = sweep(num_families=num_families)
    found = analyse(store, num_permutations=99, num_dispersion_permutations=99)
    assert found.answer == "undecided"
    assert f"{counted(num_families, 'family')}, fewer than 5" in found.text
    assert set(happy_unhappy(store, gap_table(store), num_permutations=9)["verdict"]) == {"undecided"}


def test_no_family_at_all(tmp_path, sweep):
    with pytest.raises(FileNotFoundError, match="nothing to analyse"):
        analyse(Store(tmp_path / "empty"))
    only_failed = sweep(num_families=0, num_failed=2)
    assert analyse(only_failed).answer == "undecided"


def test_all_replicas_diverged(sweep):
    store = sweep(num_families=6, diverged=dict.fromkeys(range(6), 4))
    found = analyse(store, num_permutations=99, num_dispersion_permutations=99)
    assert found.answer == "undecided"
    assert "0 families" in found.text


def test_diverged_and_collapsed_replicas_are_dropped_and_counted(sweep):
    store = sweep(num_families=8, diverged={0: 1, 1: 3}, constant=(2,))
    table = spreads(store, ["cka"])
    trials = sorted(table["trial"].unique())
    end = table[(table["moment"] == "end") & (table["layer"] == "block1")].set_index("trial")
    assert end.loc[trials[:4], "num_dropped"].tolist() == [1, 3, 4, 0]
    assert end.loc[trials[:4], "spread"].notna().tolist() == [True, False, False, True]
    assert (table.loc[table["moment"] == "init", "num_dropped"] == 0).all()
    row = association(store).query("moment == 'end' and layer == 'block1' and predictor == 'gap_accuracy'").iloc[0]
    assert (row["num_families"], row["num_dropped"]) == (6, 2)
    assert "exchanges, fewer than 100" in row["reason"]


def test_divergence_drops_a_replica_even_where_its_features_are_finite(sweep):
    store = sweep(num_families=1)
    trial = tables.names(store, "replicas")[0]
    replicas = tables.read(store, "replicas")
    columns = {c: replicas[c].tolist() for c in replicas if c != "schema_version"}
    tables.write(store, "replicas", trial, columns | {"diverged_at": [None, None, None, 5]})
    table = spreads(store, ["cka"])
    assert set(table.loc[table["moment"] == "end", "num_replicas"]) == {3}
    assert set(table.loc[table["moment"] == "init", "num_replicas"]) == {4}


def test_spreads_are_those_of_the_arrays(sweep):
    store = sweep(num_families=3)
    trial = tables.names(store, "trials")[1]
    X = tables.read_activations(store, trial)["end", 8, "block2"]
    table = spreads(store)
    here = table[(table["trial"] == trial) & (table["moment"] == "end") & (table["layer"] == "block2")]
    for name in DEFAULT_MEASURES:
        measure = MEASURES[name]
        D = measure.distances(X)
        row = here.set_index("measure").loc[name]
        assert row["spread"] == pytest.approx((D[np.triu_indices(4, 1)] ** 2 / 2).mean())
        assert (row["num_samples"], row["width"], row["swapped"]) == (30, 4, "activation")


def test_only_the_commonest_base_recipe_is_compared(sweep, write):
    store = sweep(num_families=6)
    write(store, num_families=3, base="b111111111111", first=100)
    assert families(store)["base"].unique().tolist() == ["b000000000000"]
    assert spreads(store, ["cka"])["trial"].nunique() == 6


def test_a_pulse_counts_at_its_first_swap():
    table = pd.DataFrame({
        "moment": ["before_swap", "before_swap", "end", "end"], "epoch": [2, 5, 8, 8], "swap_epoch": [2, 2, 2, None]
    }).astype({"swap_epoch": "Int32"})  # fmt: skip
    assert at_first_swap(table).index.tolist() == [0, 2, 3]


@pytest.mark.parametrize(("direction", "answer"), [(1.0, "AKP"), (-1.0, "anti-AKP")])
def test_happy_against_unhappy(sweep, direction, answer):
    store = sweep(direction=direction)
    found = happy_unhappy(store, gap_table(store), num_permutations=199, num_bootstrap=100)
    assert set(found["verdict"]) == {answer}
    assert (found["num_families_happy"] == 21).all()
    assert (found["num_networks_unhappy"] == 84).all()
    assert (np.sign(found["difference"]) == direction).all()
    assert ((found["difference_low"] <= found["difference"]) & (found["difference"] <= found["difference_high"])).all()
    assert found["rule"].str.startswith("happy: mean gap_accuracy over replicas at or below").all()


def test_happy_needs_gaps_that_differ(sweep):
    store = sweep(num_families=6)
    table = gap_table(store).assign(gap_accuracy=0.1)
    found = happy_unhappy(store, table, ["cka"], num_permutations=9)
    assert set(found["reason"]) == {"6 happy and 0 unhappy families; each needs 2"}


def test_spectra_are_capped_by_cost(sweep, monkeypatch):
    store = sweep(num_families=6)
    options = {"num_permutations": 9, "num_bootstrap": 9}
    monkeypatch.setattr("analysis.networks.MAX_SPECTRAL_WORK", (6 * 3) ** 2 / 2 * 6**2)
    found = happy_unhappy(store, gap_table(store), **options).set_index(["measure", "layer"])
    assert found.loc[("procrustes", "block1"), "max_replicas"] == 3
    assert found.loc[("procrustes", "block1"), "num_networks_happy"] == 9
    assert found.loc[("cka", "block1"), "max_replicas"] == 4
    monkeypatch.setattr("analysis.networks.MAX_SPECTRAL_WORK", 1)
    skipped = happy_unhappy(store, gap_table(store), ["procrustes"], **options)
    assert skipped["reason"].str.startswith("skipped").all()


def test_everything_is_deterministic_and_carries_its_seed(sweep):
    store = sweep(noise=0.3)
    first, second = association(store, seed=3), association(store, seed=3)
    pd.testing.assert_frame_equal(first, second)
    assert set(first["seed"]) == {3}
    other = association(store, seed=4)
    assert not np.allclose(first["rho_low"], other["rho_low"])
    assert np.allclose(first["rho"], other["rho"])


def test_without_the_primary_measure_the_answer_is_undecided(sweep):
    found = analyse(sweep(), ["procrustes"], num_permutations=99, num_dispersion_permutations=9)
    assert found.answer == "undecided"
    assert PRIMARY_MEASURE in found.text


def test_a_schedule_recorded_twice_counts_once(sweep):
    """Two probe settings in one folder: only the more frequent one's families are compared, unless asked for by name."""
    store = sweep()
    trials = tables.read(store, "trials")
    first = trials.iloc[0].to_dict()
    copy = {**first, "trial": "tffffffffffff", "recipe": json.dumps({"probes": {"num_samples": 3}})}
    del copy["schema_version"]
    tables.write(store, "trials", copy["trial"], {name: [None if pd.isna(value) else value] for name, value in copy.items()})
    store.write(f"activations/{copy['trial']}.parquet", store.read(f"activations/{first['trial']}.parquet"))
    assert copy["trial"] not in set(families(store)["trial"])
    assert len(families(store)) == len(trials)
    assert families(store, [copy["trial"]])["trial"].tolist() == [copy["trial"]]


def test_functional_measures_are_of_the_logits_alone(sweep, rows):
    """The layer recorded last, with a number per class; without it there are no rows."""
    store = sweep(num_families=6)
    assert set(spreads(store, ["cka", "churn"])["measure"]) == {"cka"}
    samples = {"dataset": "d000000000000", "sample": np.arange(12), "label": np.arange(12) % 4, "label_trained": 0, "split": "test",
               "group": None, "probe": True}  # fmt: skip
    tables.write(store, "samples", "d000000000000", rows("samples", 12, **samples))
    names, generator = ["disagreement", "churn", "jsd", "error_consistency"], np.random.default_rng(0)
    expected = {}
    for trial in tables.names(store, "trials"):
        X = generator.standard_normal((4, 12, 4)).astype(np.float32)
        head = rows(
            "activations",
            48,
            trial=trial,
            moment="end",
            epoch=8,
            layer="head",
            pooling="mean",
            replica=np.repeat(np.arange(4), 12),
            shape=[[4]] * 48,
            sample=np.tile(np.arange(12), 4),
            position=0,
            label=np.tile(np.arange(12) % 4, 4),
            activation=tables.list_array(X.reshape(48, 4)),
        )
        hidden = rows("activations", 48, **{**head, "layer": "block1", "shape": [[4, 3, 3]] * 48})
        tables.write(store, "activations", trial, [hidden, head])
        expected[trial] = np.mean([(X[i].argmax(1) != X[j].argmax(1)).mean() for i in range(4) for j in range(i)])
    table = spreads(store, ["cka", *names])
    assert set(table.loc[table["measure"].isin(names), "layer"]) == {"head"}
    assert set(table.loc[table["measure"] == "cka", "layer"]) == {"block1", "head"}
    assert np.isfinite(table["spread"]).all()
    found = table[table["measure"] == "disagreement"].set_index("trial")["spread"]
    assert found.to_dict() == pytest.approx(expected)
    happy = happy_unhappy(store, gaps(tables.read(store, "replicas")), ["cka", *names], num_permutations=99, num_bootstrap=20)
    assert set(happy.loc[happy["measure"].isin(names), "layer"]) == {"head"}
    assert np.isfinite(happy[["dispersion_happy", "dispersion_unhappy"]]).all(axis=None)


def test_a_spread_that_is_not_there_has_its_reason(sweep):
    table = spreads(sweep(num_families=1, num_samples=5), ["cka", "cca_mean", "mutual_knn"])
    reasons = table.groupby("measure")["reason"].unique()
    assert reasons["cka"].tolist() == [""]
    assert "needs more samples than features" in reasons["cca_mean"][0]
    assert reasons["mutual_knn"][0] == "mutual_knn: 5 samples; 10 neighbours need more than 11"
    assert table.loc[table["reason"] != "", "spread"].isna().all()
