"""The questions of agreement and of learning order, asked of networks that were trained."""

import numpy as np
import pandas as pd
import pytest

from analysis.agreement_question import agree
from analysis.order_question import in_which_order
from analysis.question import Asked
from analysis.storage import Store
from tests.analysis.drawn import check as check_charts
from trainables.data import load
from trainables.family import Family, run
from trainables.image_rows import write_image_statistics
from trainables.options import Probes
from trainables.recipe import BaseRecipe, CellsData, Model, Training
from trainables.rows import write_samples
from trainables.schedule import Schedule

SWAP = Schedule.of([[0, "relu", "cross_entropy"], [2, "tanh", "cross_entropy"]])
DATA = CellsData(num_images=120, image_size=12, num_slides=8)
NOISY = DATA.model_copy(update={"label_noise": 0.4})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A control and its swap on a CNN, controls on an MLP, and on a CNN with half of the labels randomised."""
    store = Store(tmp_path_factory.mktemp("learned"))
    probes, training = Probes(num_samples=10, baselines=[]), Training(epochs=4, batch_size=16, replicas=3)
    for data, model, schedule in (
        (DATA, "cnn", SWAP.control),
        (DATA, "cnn", SWAP),
        (DATA, "mlp", SWAP.control),
        (NOISY, "cnn", SWAP.control),
    ):
        list(run(Family(BaseRecipe(data=data, model=Model(name=model, widths=[4]), training=training), probes, schedule), store))
        write_samples(store, load(data), probes)
    keys = "{model.name: [cnn, mlp], data.label_noise: [0.0, 0.4]}"
    store.write("sweep.yaml", f"space: {{recipe: {keys}}}".encode())
    return store


def asked(store: Store) -> Asked:
    return Asked(store, pd.DataFrame(), pd.DataFrame())


def check(found, drawn: set[str]) -> None:
    """Every number on the page has n, and what is drawn and written is there."""
    assert found.reason == ""
    assert found.lines
    check_charts(found.charts, drawn)
    for rows, caption in found.shown:
        assert len(rows)
        assert caption
        assert {"images", "families"} & set(rows)


def test_agreement(trained):
    found = agree(asked(trained))
    check(found, {"agreement_curves", "bimodality", "agreement_with_control", "agreement_across_architectures"})
    assert set(found.tables) == {"agreement", "agreement_across", "agreement_at_swap", "examples"}
    table = found.tables["agreement"]
    assert (table["lower_bound"] <= table["tpa"])[table["num_replicas"] > 1].all()
    assert table.loc[table["num_replicas"] < 2, ["lower_bound", "tpa"]].isna().all(axis=None)
    assert set(table.loc[table["label_noise"] > 0, "labels"]) == {"trained", "clean"}
    between = found.tables["agreement_across"]
    assert set(between["comparison"]) == {"control", "architecture"}
    assert set(between.loc[between["comparison"] == "architecture", "label_noise"]) == {0.0}  # the noisy one has nothing to compare with
    again = agree(asked(trained))
    for name, rows in found.tables.items():
        pd.testing.assert_frame_equal(rows, again.tables[name])


def test_learning_order_without_and_with_the_images(trained):
    found = in_which_order(asked(trained))
    assert found.tables["learning_order"].empty
    assert any("there is no table image_statistics" in line for line in found.lines)
    write_image_statistics(trained, [DATA, NOISY])
    found = in_which_order(asked(trained))
    check(found, {"statistic_over_agreed_set", "statistic_against_learning_epoch", "learned_first_and_last"})
    rows = found.tables["learning_order"]
    assert rows["trial"].nunique() == 3  # controls
    assert set(rows["label_noise"]) == {0.0, 0.4}
    known = rows[rows["rho"].notna()]
    assert ((known["rho_low"] <= known["rho"]) & (known["rho"] <= known["rho_high"])).all()
    assert (np.asarray(known["p_holm"], float) >= np.asarray(known["p"], float)).all()


def test_without_predictions_there_is_nothing_to_ask(sweep):
    for ask in (agree, in_which_order):
        found = ask(asked(sweep()))
        assert found.reason == "no predictions were recorded (probes.predictions)"
        assert not found.tables
