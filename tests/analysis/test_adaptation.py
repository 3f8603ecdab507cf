"""Families that move away from their control and back: the tables say so, and why they cannot where nothing was recorded."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis import tables, trends
from analysis.__main__ import main
from analysis.adaptation import accuracies, adaptation, last_swap_epoch, returns
from analysis.analyse import analyse
from analysis.measures.ordination import Ordination
from analysis.measures.similarity import MEASURES
from analysis.recovery import recovery
from analysis.restoring import associations, restoring
from analysis.statistics import spearman_within
from analysis.storage import Store
from analysis.written import LIST

CONTROL, SWAP, PULSE = "t00000000000c", "t00000000000s", "t00000000000p"
NUM_REPLICAS, NUM_SAMPLES, WIDTH, NUM_EPOCHS = 5, 40, 6, 10
SCHEDULES = {CONTROL: "0:relu/focal", SWAP: "0:relu/focal 2:tanh/focal", PULSE: "0:relu/focal 2:tanh/focal 4:relu/focal"}


def distance_from_control(trial: str, epoch: int, moment: str) -> float:
    """How much noise lies on the control's features: the swapped family goes further off, the pulse comes back."""
    if trial == CONTROL or epoch < 2 or (epoch == 2 and moment != "after_swap"):
        return 0.0
    if trial == PULSE and (epoch > 4 or (epoch == 4 and moment == "after_swap")):
        return 0.8 * 0.5 ** (epoch - 4)
    return 0.6 + 0.1 * epoch


def accuracy(trial: str, epoch: int, moment: str) -> float:
    """The swap costs 0.3; the pulse is back at epoch 6, the swapped family at 9."""
    if trial == CONTROL or epoch < 2 or (epoch == 2 and moment != "after_swap"):
        return 0.6 + 0.01 * epoch
    back = {SWAP: 9, PULSE: 6}[trial]
    return 0.63 + 0.01 * (epoch - back) if epoch >= back else 0.3


def write_family(store: Store, rows, trial: str, epochs: list[int], diverged: int = 0) -> None:
    swaps = [int(phase.partition(":")[0]) for phase in SCHEDULES[trial].split()[1:]]
    looks = [
        ("init", 0),
        *(("epoch", e) for e in epochs),
        *((m, s) for s in swaps for m in ("before_swap", "after_swap")),
        ("end", NUM_EPOCHS),
    ]
    groups = []
    for moment, epoch in looks:
        X = np.empty((NUM_REPLICAS, NUM_SAMPLES, WIDTH))
        for seed in range(NUM_REPLICAS):
            shared = np.random.default_rng([seed, epoch]).standard_normal((NUM_SAMPLES, WIDTH))
            own = np.random.default_rng([1, seed, epoch, trial == PULSE, moment == "after_swap", 1]).standard_normal((NUM_SAMPLES, WIDTH))
            X[seed] = shared + distance_from_control(trial, epoch, moment) * own
        n = NUM_REPLICAS * NUM_SAMPLES
        groups.append(rows("activations", n, trial=trial, moment=moment, epoch=epoch, layer="block1", pooling="mean",
                           replica=np.repeat(np.arange(NUM_REPLICAS), NUM_SAMPLES), shape=[[WIDTH, 3, 3]] * n,
                           sample=np.tile(np.arange(NUM_SAMPLES), NUM_REPLICAS), position=0, label=0,
                           activation=tables.list_array(X.reshape(n, WIDTH).astype(np.float32))))  # fmt: skip
    tables.write(store, "activations", trial, groups)
    evaluations = [("epoch", e) for e in range(NUM_EPOCHS + 1)] + [("after_swap", s) for s in swaps]
    lines = [(m, e, r, split) for m, e in evaluations for r in range(NUM_REPLICAS) for split in ("train", "val", "test")]
    noise = np.random.default_rng(7).uniform(-0.004, 0.004, (NUM_EPOCHS + 1, NUM_REPLICAS))
    values = [accuracy(trial, e, m) + noise[e, r] + 0.1 * (split == "train") for m, e, r, split in lines]
    values = [np.nan if diverged and r == 0 and e >= diverged else v for v, (_, e, r, _) in zip(values, lines, strict=True)]
    moments, when, replicas, splits = (list(column) for column in zip(*lines, strict=True))
    tables.write(store, "epochs", trial, rows("epochs", len(lines), trial=trial, replica=replicas, epoch=when, moment=moments, split=splits,
                                              accuracy=values))  # fmt: skip
    tables.write(store, "replicas", trial, rows("replicas", NUM_REPLICAS, trial=trial, schedule=SCHEDULES[trial],
                                                replica=np.arange(NUM_REPLICAS),
                                                diverged_at=[diverged or None] + [None] * (NUM_REPLICAS - 1)))  # fmt: skip
    recipe = {"base": {}, "probes": {"moments": ["init", "before_swap", "after_swap", "end"], "epochs": epochs}}
    tables.write(store, "trials", trial, rows("trials", 1, trial=trial, schedule=SCHEDULES[trial], base="b000000000000", control=CONTROL,
                                              swapped="activation" if swaps else "none", num_swaps=len(swaps),
                                              swap_epoch=swaps[0] if swaps else None, first_activation="relu", first_loss="focal",
                                              last_activation="relu", last_loss="focal", num_epochs=NUM_EPOCHS, status="done",
                                              num_replicas=NUM_REPLICAS, recipe=json.dumps(recipe)))  # fmt: skip


@pytest.fixture
def make(tmp_path, rows):
    def write(epochs: list[int], only: tuple[str, ...] = (CONTROL, SWAP, PULSE), **diverged: int) -> Store:
        store = Store(tmp_path / f"{epochs}{len(only)}{diverged}")
        for trial in only:
            write_family(store, rows, trial, epochs, **diverged)
        return store

    return write


def test_distances_to_the_control_follow_what_was_done(make):
    table = adaptation(make([1, 3, 4, 6, 8]))
    looks = table[table["layer"].notna()].set_index(["trial", "moment", "epoch"]).sort_index()
    same, other = looks["control_same_seed"], looks["control_other_seeds"]
    for trial in (CONTROL, SWAP, PULSE):
        assert same.loc[trial, "epoch", 1].item() == pytest.approx(0, abs=1e-9)
        assert other.loc[trial, "epoch", 1].item() == pytest.approx(looks.loc[(trial, "epoch", 1), "spread"].item())
    for trial in (SWAP, PULSE):  # the control has no look before_swap: its state is the family's own
        assert same.loc[trial, "before_swap", 2].item() == pytest.approx(0, abs=1e-9)
        assert same.loc[trial, "after_swap", 2].item() > 0.2
    assert same.loc[PULSE, "end", 10].item() < 0.05 < 0.2 < same.loc[SWAP, "end", 10].item()
    X, Y = (tables.read_activations(make([1, 3, 4, 6, 8]), t)["epoch", 6, "block1"] for t in (SWAP, CONTROL))
    measure = MEASURES["cka"]
    expected = [[measure.distances([x, y])[0, 1] ** 2 / 2 for y in Y] for x in X]
    assert same.loc[SWAP, "epoch", 6].item() == pytest.approx(np.trace(expected) / NUM_REPLICAS)
    assert looks.loc[[(SWAP, "epoch", 6)], "control_by_replica"].iloc[0] == pytest.approx(np.diag(expected))
    assert other.loc[SWAP, "epoch", 6].item() == pytest.approx(
        (np.sum(expected) - np.trace(expected)) / (NUM_REPLICAS * (NUM_REPLICAS - 1))
    )
    assert (looks["estimator"].str.contains("linear CKA")).all()
    whole = table[table["layer"].isna() & (table["trial"] == SWAP)]
    assert len(whole) == NUM_EPOCHS + 2
    assert whole["gap_accuracy"].to_numpy() == pytest.approx(0.1, abs=1e-6)


def test_the_jackknife_is_that_of_leaving_out_a_seed(make):
    store = make([6])
    table = adaptation(store)
    row = table[(table["trial"] == SWAP) & (table["moment"] == "epoch") & (table["epoch"] == 6) & table["layer"].notna()].iloc[0]
    X, Y = (tables.read_activations(store, t)["epoch", 6, "block1"] for t in (SWAP, CONTROL))
    H = np.array([[MEASURES["cka"].distances([x, y])[0, 1] ** 2 / 2 for y in Y] for x in X])
    m, values = NUM_REPLICAS, []
    for out in range(m):
        kept = [i for i in range(m) if i != out]
        here = H[np.ix_(kept, kept)]
        values.append([np.trace(here) / (m - 1), (here.sum() - np.trace(here)) / ((m - 1) * (m - 2))])
    values = np.column_stack([values, np.array(values)[:, 0] / np.array(values)[:, 1]])
    errors = np.sqrt((m - 1) / m * ((values - values.mean(axis=0)) ** 2).sum(axis=0))
    assert [row[f"control_{name}_se"] for name in ("same_seed", "other_seeds", "ratio")] == pytest.approx(errors.tolist())


def test_what_the_control_did_not_record_has_a_reason(make):
    table = adaptation(make([]))
    late = table[(table["trial"] == PULSE) & (table["moment"] == "after_swap") & (table["epoch"] == 4) & table["layer"].notna()].iloc[0]
    assert np.isnan(late["control_same_seed"])
    assert late["reason"] == "the control was not recorded at epoch 4; probes.epochs records it"
    found = returns(table).set_index("trial")
    assert found.loc[PULSE, "statement"] == "undecided"
    assert "probes.epochs" in found.loc[PULSE, "reason"]
    assert found.loc[SWAP, "statement"] == "departing"


def test_a_pulse_returns_and_a_swap_does_not(make):
    found = returns(adaptation(make([4, 6]))).set_index("trial")
    assert found["is_pulse"].to_dict() == {PULSE: True, SWAP: False}
    assert found.loc[PULSE, "statement"] == "approaching"
    assert found.loc[PULSE, "change_high"] < 0
    assert found.loc[PULSE, "ratio_end_high"] < 0.2
    assert found["distance_before"].abs().max() < 1e-9
    assert found.loc[SWAP, "statement"] == "departing"
    assert found.loc[SWAP, "change_low"] > 0


def test_no_change_is_undecided_as_often_as_promised():
    generator, rows = np.random.default_rng(0), []
    for trial in range(400):
        for moment, epoch in (("before_swap", 2), ("after_swap", 2), ("end", 9)):
            values = np.zeros(5) if moment == "before_swap" else 0.3 + 0.05 * generator.standard_normal(5)
            rows.append({"trial": trial, "schedule": SCHEDULES[SWAP], "swap_epoch": 2, "last_swap_epoch": 2, "layer": "block1",
                         "measure": "cka", "moment": moment, "epoch": epoch, "control_same_seed": values.mean(), "control_ratio": 1.0,
                         "control_by_replica": values.tolist(), "control_ratio_se": 0.1, "control": CONTROL, "swapped": "activation",
                         "reason": "", "estimator": "x"})  # fmt: skip
    assert (returns(pd.DataFrame(rows))["statement"] == "undecided").mean() == pytest.approx(0.95, abs=0.03)


def test_without_its_control_a_family_still_has_a_spread(make):
    table = adaptation(make([4], only=(SWAP,)))
    looks = table[table["layer"].notna()]
    assert looks["spread"].notna().all()
    assert looks.loc[looks["epoch"] == 2, "control_same_seed"].notna().all()
    assert looks.loc[looks["epoch"] != 2, "control_same_seed"].isna().all()


def test_times_to_recover(make):
    found = recovery(make([]), num_bootstrap=200).set_index("trial")
    assert found["epochs_to_recover"].to_dict() == {SWAP: 7.0, PULSE: 4.0}
    assert found["drop"].to_numpy() == pytest.approx(0.32, abs=0.01)
    assert found["recovered"].all()
    assert (found["epochs_to_recover_low"] <= found["epochs_to_recover"]).all()
    assert (found["epochs_to_recover"] <= found["epochs_to_recover_high"]).all()
    assert found.loc[SWAP, "behind_control"] == pytest.approx(0.7 - 0.64, abs=1e-6)
    assert set(found["statement"]) == {"behind"}


def test_what_never_comes_back_is_censored(make, monkeypatch):
    monkeypatch.setitem(globals(), "accuracy", lambda trial, epoch, moment: 0.6 if trial == CONTROL or epoch < 3 else 0.5)
    row = recovery(make([]), num_bootstrap=50).set_index("trial").loc[SWAP]
    assert row["epochs_to_recover"] == 0  # the swap itself costs nothing here
    monkeypatch.setitem(globals(), "accuracy", lambda trial, epoch, moment: 0.6 if trial == CONTROL or epoch < 2 else 0.5)
    row = recovery(make([1]), num_bootstrap=50).set_index("trial").loc[SWAP]
    monkeypatch.setitem(globals(), "accuracy", lambda t, e, m: 0.6 if t == CONTROL or e < 2 or (e == 2 and m == "epoch") else 0.5)
    row = recovery(make([3]), num_bootstrap=50).set_index("trial").loc[SWAP]
    assert np.isinf(row["epochs_to_recover"])
    assert (row["recovered"], row["share_recovered"], row["num_epochs_seen"]) == (False, 0.0, 8.0)


def test_diverged_replicas_are_dropped_and_counted(make):
    store = make([4], diverged=3)
    row = recovery(store, num_bootstrap=50).set_index("trial").loc[SWAP]
    assert (row["num_replicas"], row["num_dropped"]) == (4, 1)
    table = adaptation(store)
    looks = table[(table["trial"] == SWAP) & table["layer"].notna()].set_index(["moment", "epoch"])
    assert looks.loc[("after_swap", 2), "num_dropped"] == 0
    assert looks.loc[("epoch", 4), "num_dropped"] == 1
    assert np.isfinite(looks.loc[("epoch", 4), "control_same_seed"])
    assert len(accuracies(store, [SWAP])) == NUM_EPOCHS + 2


@pytest.mark.parametrize(("schedule", "epoch"), [("0:relu/focal", None), ("0:relu/focal 2:a.b:f/focal", 2), (SCHEDULES[PULSE], 4)])
def test_the_last_swap_of_a_schedule(schedule, epoch):
    assert last_swap_epoch(schedule) == epoch


def test_rates_need_times_and_say_which(make):
    few = restoring(make([]), num_simulations=19)
    layers = few[few["trajectory"] == "coordinates"]
    assert layers["rate"].isna().all()
    assert layers["reason"].str.contains(r"2 times since the swap, fewer than 5; probes.epochs=\[1, 2, 3, .* 9\] records more").all()
    assert few.loc[few["trajectory"] == "test_accuracy", "rate"].notna().all()
    many = restoring(make([3, 4, 5, 6, 7, 8, 9]), num_simulations=19)
    found = many[many["layer"] == "block1"].set_index("trial")
    assert set(found.index) == {SWAP, PULSE}
    assert found["rate"].notna().all()
    assert found["num_times"].to_dict() == {SWAP: 9, PULSE: 7}
    assert (found["num_steps"] == (found["num_times"] - 1) * NUM_REPLICAS).all()
    assert found["explained"].between(0.05, 1).all()
    answer = associations(many, many[["trial"]].drop_duplicates().assign(gap_accuracy=0.1, gap_cross_entropy=0.1, test_error=0.1))
    assert set(answer["statement"]) == {"undecided"}
    assert answer["reason"].str.contains("2 families with a rate, fewer than 5").all()


def test_before_its_swap_a_family_is_its_control_in_the_gap_as_in_the_spread(make):
    """Metrics of the epoch of a swap come before it. Looks after 0 steps stand at the swap's epoch in the rows."""
    table = adaptation(make([4, 6]))
    epoch = table["swap_epoch"].dropna().min()
    table = table[table["swap_epoch"].notna() | (table["epoch"] != epoch)]  # controls were not looked at then
    drawing = trends.after_swap(table)
    assert drawing is not None
    for panel, rows in drawing.rows.groupby("panel"):
        assert epoch in set(rows.loc[rows["families"] == "controls", "epoch"]), panel
    assert (drawing.rows["epoch"] % 1 == 0).all()
    assert drawing.rows.loc[drawing.rows["after_swap"], "epoch"].eq(epoch).all()


def test_the_analysis_asks_where_it_can(make, capsys):
    """Tables, figure and lines; the same bytes again; every figure of the tables has its estimator and n."""
    store = make([4, 6])
    options = {"num_permutations": 99, "num_dispersion_permutations": 9}
    found = analyse(store, **options, console=Console(width=2000))
    names = ("adaptation", "recovery", "returns", "restoring", "restoring_association")
    assert {f"analysis/{name}.parquet" for name in names} | {"figures/after_swap.png"} <= set(found.files)
    before = {file: store.read(file) for file in found.files}
    out = capsys.readouterr().out
    for part in ("costs accuracy at 0 steps in 2 of 2", "pulses (1 family): block1 1/0/0", "swaps that last (1 family): block1 0/1/0"):
        assert part in out
    assert "Restoring rate, coordinates: undecided: 0 families with a rate" in out
    for name in names:
        table = pd.read_parquet(store.path(f"analysis/{name}.parquet"))
        assert "estimator" in table
        assert {"num_replicas", "num_families"} & set(table)
    analyse(store, **options)
    assert {file: store.read(file) for file in found.files} == before
    page = store.read("report.html").decode()
    assert "<figure id='after_swap'" in page
    assert "figures/after_swap.svg" in found.files
    for caption in (
        "Adaptation. Means over families [95%",
        "Recovery. Means",
        "Returns. Means",
        "Restoring rates. Ornstein",
        "Have unhappy",
    ):
        assert f"<p class=caption>{caption}" in page
    assert "<td>pulse</td><td>block1</td>" in page


def test_layers_and_moments_restrict_what_is_said_of_change(make, capsys):
    """And a figure that the narrower analysis does not draw is gone, from the folder and from the page."""
    store = make([3, 4, 5, 6, 7, 8, 9])
    assert set(adaptation(store, layers=["head"])["layer"].dropna()) == set()
    table = adaptation(store, moments=["before_swap", "after_swap"])
    assert set(table.loc[table["layer"].notna(), "moment"]) == {"before_swap", "after_swap"}
    assert returns(table)["reason"].str.contains("the moment end was not recorded .* or is left out").all()
    rates = restoring(store, moments=["end", "after_swap"], num_simulations=19).set_index("trajectory")
    assert rates.loc["coordinates", "reason"].eq("2 times since the swap, fewer than 5; --moments leaves others out").all()
    assert rates.loc["test_accuracy", "rate"].notna().all()
    assert restoring(store, layers=["head"], num_simulations=19)["layer"].isna().all()
    options = ["--measures", "cka", "--permutations", "99"]
    store.write("figures/spread_by_moment.png", b"of an earlier analysis")
    store.write(LIST, b"figures/spread_by_moment.png\n")
    assert main([store.root, *options, "--moments", "init"]) == 0
    assert "spread_by_moment.png" not in store.names("figures")
    assert {"after_swap.png", "after_swap.svg"} <= set(store.names("figures"))
    assert "<figure id='after_swap'" in store.read("report.html").decode()
    assert "probes.epochs" not in capsys.readouterr().out.partition("Restoring rate, coordinates")[2]


@pytest.mark.parametrize(("sign", "statement"), [(-1, "lost"), (1, "gained"), (0, "no effect")])
def test_the_association_has_the_sign_of_the_rates(sign, statement):

    generator = np.random.default_rng(0)
    n = 60
    gap = generator.uniform(0, 0.3, n)
    table = pd.DataFrame({
        "trial": [f"t{i}" for i in range(n)], "control": [f"c{i % 3}" for i in range(n)], "since_epoch": [i % 2 for i in range(n)],
        "trajectory": "coordinates", "layer": "block1", "measure": "cka", "reason": "",
        "rate": 1 + sign * 3 * gap + 0.1 * generator.standard_normal(n),
    })  # fmt: skip
    gaps = pd.DataFrame({"trial": table["trial"], "gap_accuracy": gap, "gap_cross_entropy": gap, "test_error": 1.0})
    found = associations(table, gaps, num_permutations=499, num_bootstrap=100).set_index("predictor")
    assert found.loc["gap_accuracy", "statement"] == statement
    assert found.loc["gap_accuracy", ["num_families", "num_strata"]].tolist() == [60, 6]
    assert found.loc["test_error", "statement"] == "undecided"


def test_blocks_neither_make_nor_hide_an_association():
    generator = np.random.default_rng(0)
    blocks = np.repeat(np.arange(5), 8)
    x, y = 10 * blocks + generator.standard_normal(40), 10 * blocks + generator.standard_normal(40)
    rho, p = spearman_within(x, y, blocks, 499, generator)
    assert abs(rho) < 0.4
    assert p > 0.05
    rho, p = spearman_within(x, x - 30 * blocks, blocks, 499, generator)
    assert rho == pytest.approx(1.0)
    assert p == pytest.approx(1 / 500)
    assert np.isnan(spearman_within(blocks, y, blocks, 9, generator)).all()
    small = [spearman_within(*generator.standard_normal((2, 40)), blocks, 99, generator)[1] for _ in range(300)]
    assert np.mean(np.array(small) <= 0.05) == pytest.approx(0.05, abs=0.035)


def test_points_are_placed_where_their_distances_put_them():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((12, 30, 4)) + 0.5 * generator.standard_normal((30, 4))
    measure = MEASURES["cka"]
    found = Ordination.of(measure, X[:9], 8)
    assert found.explained == pytest.approx(1.0)
    everyone = np.ones(12, dtype=bool)
    placed = found.place(X, everyone)
    D = measure.distances(list(X))
    apart = np.linalg.norm(placed[:9, None] - placed[None, :9], axis=-1)
    assert apart == pytest.approx(D[:9, :9], abs=1e-7)  # landmarks keep their distances
    assert (np.linalg.norm(placed[9:, None] - placed[None, :9], axis=-1) <= D[9:, :9] + 1e-9).all()  # a projection shortens
    assert np.isnan(found.place(X, everyone & (np.arange(12) != 3))[3]).all()
    with pytest.raises(ValueError, match="2 different"):
        Ordination.of(measure, np.stack([X[0]] * 3), 2)
