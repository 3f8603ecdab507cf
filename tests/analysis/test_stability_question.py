"""The question of stability on tables whose answer is known: the published relation planted, sizes with an exponent, bits at swaps."""

import numpy as np
import pandas as pd
import pytest

from analysis import stability_error, tables
from analysis import stability_tables as of
from analysis.measures.generalization import gaps
from analysis.probe_tables import ESTIMATORS
from analysis.question import Asked
from analysis.spreads import families, setup, spreads
from analysis.stability import stability
from tests.analysis.drawn import check

LOOKS = {"init": 0, "before_swap": None, "after_swap": None, "end": 8}


def plant(store, rows, num_replicas=4, damaged=None, seed=0):
    """Stability such that each family's test error is 0.2 sqrt(R) of its output at the end, R of replicas scattered in logs around a mean
    of 0; D is noise. Swaps of an activation double R; in `damaged` that of the loss changes one bit."""
    generator = np.random.default_rng(seed)
    error = gaps(tables.read(store, "replicas")).set_index("trial")["test_error"]
    for family in families(store).to_dict("records"):
        trial, groups = family["trial"], []
        scatter = generator.standard_normal(num_replicas)
        target = np.exp(np.log((error[trial] / 0.2) ** 2) + 0.1 * (scatter - scatter.mean()))
        change = np.exp(0.3 * generator.standard_normal(num_replicas))
        for moment, epoch in LOOKS.items():
            if pd.isna(family["swap_epoch"]) and epoch is None:
                continue
            relative = target * {"init": 9.0, "end": 1.0}.get(moment, 2.0)
            if moment == "after_swap" and family["swapped"] in ("activation", "both"):
                relative = 2 * relative
            if moment == "after_swap" and trial == damaged:
                relative = np.nextafter(relative, np.inf)
            for layer in ("block1", "block2"):
                values = {"diffeo": change, "noise": change / relative, "relative": relative, "normaliser": np.ones(num_replicas)}
                numbers = {f"{name}_{estimator}": v for name, v in values.items() for estimator in ESTIMATORS}
                same = {"moment": moment, "epoch": int(family["swap_epoch"]) if epoch is None else epoch, "layer": layer}
                law = {"cut": 3, "temperature": 1e-3, "displacement_px": 1.0, "diffeo_set": "w0", "num_images": 5, "num_folded": 0}
                lists = {c: [[0.0]] * num_replicas for c in ("diffeo_changes", "noise_changes")}
                columns = rows(
                    "stability", num_replicas, trial=trial, replica=np.arange(num_replicas), is_output=layer == "block2", pooling="flatten",
                    **same, **law, **numbers, **lists,
                )  # fmt: skip
                groups.append(columns)
        tables.write(store, "stability", trial, groups)


def ask(store, **options):
    replicas = gaps(tables.read(store, "replicas"))
    return stability(Asked(store, replicas, spreads(store, ["cka"]), num_permutations=499, **options))


def test_the_published_relation_is_found_where_it_holds(sweep, rows):
    store = sweep(num_families=28)
    plant(store, rows)
    found = ask(store)
    fit = found.tables["stability_error"].set_index("estimator").loc["official"]
    assert (fit["factor"], fit["exponent"], fit["excess"]) == pytest.approx((0.2, 0.5, 0), abs=1e-3)
    assert fit["exponent_low"] <= 0.5 <= fit["exponent_high"]
    assert fit["excess_low"] <= 0.001
    assert fit["num_families"] == 28
    assert fit["num_controls"] == 4
    association = found.tables["stability_association"]
    end = association[(association["estimator"] == "official") & (association["predictor"] == "test_error") & association["is_output"]]
    rho = end.set_index("quantity")
    assert rho.loc["relative", "rho_all"] == pytest.approx(1)
    assert rho.loc["relative", "rho"] > 0.95  # not 1: alignment takes means of log R, and of the error itself
    assert rho.loc["relative", "p_holm"] < 0.05
    assert abs(rho.loc["diffeo", "rho_all"]) < 0.6
    assert rho.loc["noise", "rho_all"] < -0.6
    assert "eps = 0.2 " in found.lines[0]
    check(found.charts, {"stability_against_error", "stability_by_layer", "stability_over_training"})
    beside = found.tables["stability_predictors"]
    assert {"spread/cka", "stability/relative"} <= set(beside["score"])
    scored = beside[(beside["score"] == "stability/relative") & (beside["predictor"] == "test_error")]
    assert (scored["tau"] == 1).all()


def test_a_single_bit_that_a_swap_of_the_loss_changes_is_told(sweep, rows):
    store = sweep(num_families=7)
    for trial in tables.names(store, "trials"):  # of one tree, whose first activation has the tree's number
        row = tables.read(store, "trials", only=[trial]).astype(object).iloc[0].drop("schema_version")
        row["schedule"] = row["schedule"].replace("relu0", "relu")
        tables.write(store, "trials", trial, {name: [None if pd.isna(value) else value] for name, value in row.items()})
    plant(store, rows)
    found = ask(store)
    assert "Swaps of the loss alone leave D, G and R the same bit for bit at 0 steps: 2 of 2." in found.lines
    swapped = found.tables["stability_swaps"]
    assert swapped.groupby("exchanged")["factor_mean"].mean().round(9).to_dict() == {"activation": 2, "both": 2, "loss": 1}
    trials = families(store)
    plant(store, rows, damaged=trials.loc[trials["swapped"] == "loss", "trial"].iloc[0])
    assert [line for line in ask(store).lines if "1 of 2 (they must in all" in line]


def test_means_are_of_logs_and_leave_out_replicas_without_a_number(sweep, rows):
    store = sweep(num_families=7)
    plant(store, rows)
    recorded = of.recorded(store)
    recorded.loc[recorded["replica"] == 1, [c for c in recorded if c.startswith("relative_")]] = np.nan
    means = of.log_means(recorded)
    one = means[(means["moment"] == "end") & (means["estimator"] == "mean")].iloc[0]
    mine = recorded[(recorded["trial"] == one["trial"]) & (recorded["moment"] == "end") & (recorded["layer"] == one["layer"])]
    logs = np.log(mine.loc[mine["replica"] != 1, "relative_mean"])
    assert one["relative"] == pytest.approx(np.exp(logs.mean()))
    assert one["relative_se_log"] == pytest.approx(logs.sem())
    assert (one["num_replicas"], one["num_dropped"]) == (3, 1)
    assert np.isnan(one["relative_values"]).tolist() == [False, True, False, False]


def test_the_exponent_over_sizes_is_that_of_the_power_law_with_an_interval_that_resampling_widens():
    sizes, generator = [64, 256, 1024, 4096], np.random.default_rng(0)
    table, varied = [], []
    for model, exponent in (("cnn", -0.7), ("mlp", 0.1)):
        for size in sizes:
            trial = f"{model}{size}"
            values = (
                3.0 * size**exponent * np.exp(0.2 * generator.standard_normal(5)) if model == "mlp" else np.full(5, 3.0 * size**exponent)
            )
            table.append({"trial": trial, "moment": "end", "is_output": True, "swap_epoch": None, "cut": 3, "displacement_px": 1.0,
                          "estimator": "mean", "schedule": "0:relu/cross_entropy", "relative_values": values})  # fmt: skip
            varied.append({"trial": trial, "model.name": model, of.SIZE: size})
    slopes, points = of.over_sizes(pd.DataFrame(table), pd.DataFrame(varied), num_bootstrap=200)
    cnn, mlp = (slopes.set_index("model.name").loc[name] for name in ("cnn", "mlp"))
    assert [cnn["exponent"], cnn["exponent_low"], cnn["exponent_high"]] == pytest.approx([-0.7] * 3)
    assert mlp["exponent_low"] < mlp["exponent"] < mlp["exponent_high"]
    assert (mlp["num_sizes"], mlp["num_replicas"], mlp["group"]) == (4, 5, "controls")
    found = points[points["model.name"] == "cnn"].sort_values(of.SIZE)["relative"]
    np.testing.assert_allclose(found, 3.0 * np.array(sizes) ** -0.7)
    few = [row for row in varied if row[of.SIZE] < 1000]
    assert of.over_sizes(pd.DataFrame(table), pd.DataFrame(few))[0].empty


def test_without_the_table_there_is_a_reason(sweep):
    assert ask(sweep(num_families=7)).reason == "The table stability has no family of this analysis: probes.stability records it."


def test_an_analysis_of_some_moments_and_layers_says_what_can_be_said_of_them(sweep, rows):
    store = sweep(num_families=7)
    plant(store, rows)
    found = ask(store, moments=["init", "before_swap", "after_swap"], layers=["block1"])
    assert set(found.tables) == {"stability_means", "stability_swaps"}
    assert set(found.tables["stability_means"]["layer"]) == {"block1", "block2"}  # the output is always told
    assert [line for line in found.lines if line.startswith("A swap of")]


def test_what_a_swap_exchanges():
    schedule = "0:relu/ce 2:relu/focal 3:tanh/focal 5:gelu/ce 6:gelu/ce/learning_rate=half"
    assert [of.exchanged(schedule, epoch) for epoch in (2, 3, 5, 6)] == ["loss", "activation", "both", "other"]


def test_too_few_families_are_undecided(sweep, rows):
    store = sweep(num_families=3)
    plant(store, rows)
    errors = of.with_errors(of.log_means(of.recorded(store)), gaps(tables.read(store, "replicas")))
    assert stability_error.fits(errors)["reason"].str.contains("3 families").all()
    assert stability_error.associations(errors)["reason"].str.contains("3 families").all()


def test_families_from_before_there_was_the_option_are_compared_with_those_that_do_without_it():
    old, new, other = ({"probes": {"num_samples": 100, **more}} for more in ({}, {"stability": None}, {"stability": {"seed": 0}}))
    assert setup(old, []) == setup(new, []) != setup(other, [])
    old, new = ({"base": {"training": {"epochs": 3, **more}}} for more in ({}, {"diffeo": None}))
    assert setup(old, ["training.learning_rate"]) == setup(new, ["training.learning_rate"])
