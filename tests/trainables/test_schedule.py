"""Names are what results are found by: they must not move, and must tell apart whatever influences training."""

import sys

import pytest

from trainables.options import BASELINES, Probes
from trainables.recipe import BaseRecipe, Diffeo, Model, NpzData, Training
from trainables.schedule import Base, NameMismatch, Phase, Schedule, check_same, digest

PULSE = Schedule.of([[0, "relu", "cross_entropy"], [3, "tanh", "focal"], [5, "relu", "cross_entropy"]])
BASE = Base(BaseRecipe(), "0" * 64)


def test_literal_names_are_pinned():
    """If this fails, every stored result is orphaned: raise HISTORY_VERSION on purpose, or mend the change."""
    other = Base(BaseRecipe(model=Model(name="mlp", widths=[8]), training=Training(epochs=4, optimizer="adamw")), "f" * 64)
    assert BASE.name == "b4b27976f8d76"
    assert [BASE.state_name(PULSE, e) for e in (0, 3, 5, 8)] == ["sbff27a11edaa", "s68ed553c8dae", "sc8ae0617b212", "secd790e99f19"]
    assert [other.name, other.state_name(PULSE.control, 2)] == ["b2e16d696d8ee", "sa4458159edaf"]
    old = [Probes(baselines=[]), Probes(num_samples=50, baselines=[])]  # without what is recorded at the end only, which came later
    old.append(Probes(baselines=[name for name in BASELINES if name != "sharpness"]))
    names = ["te7c143f730e7", "tf3ae0a9b5c6f", "tae174e4cb874", "t96070e2ff01e"]
    assert [BASE.trial_name(PULSE, probes) for probes in (*old, Probes())] == names


def test_names_are_digests_of_canonical_json():
    """What assembles a name from parts written before equals the digest of the whole."""
    odd = Schedule.of([[0, "relu", "focal"], [2, "torch.nn.functional:silu", "focal"], [3, "sin", "trainables.losses:focal"]])
    for schedule in (PULSE, odd):
        for probes in (Probes(), Probes(pooling="flatten", layers=['ä"b'])):
            key = {"base": BASE.key, "phases": [p.key for p in schedule.phases], "probes": probes.key}
            assert BASE.trial_name(schedule, probes) == "t" + digest(key)
        assert [BASE.state_name(schedule, e) for e in range(9)] == ["s" + digest(BASE.history(schedule, e)) for e in range(9)]


def test_a_state_is_named_by_the_phases_before_its_epoch_only():
    stressed = Schedule(PULSE.phases[:2])
    for epoch in range(6):
        assert BASE.state_name(PULSE, epoch) == BASE.state_name(stressed, epoch)
        assert (BASE.state_name(PULSE, epoch) == BASE.state_name(PULSE.control, epoch)) == (epoch <= 3)
    assert BASE.state_name(PULSE, 6) != BASE.state_name(stressed, 6)
    assert BASE.state_name(PULSE, 2) != BASE.state_name(PULSE, 3)


CHANGES = {
    "epochs": 9,
    "batch_size": 32,
    "replicas": 7,
    "first_seed": 1,
    "optimizer": "adamw",
    "learning_rate": 0.1,
    "momentum": 0.8,
    "nesterov": True,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "clip_norm": 1.0,
    "precision": "bf16",
    "reset_optimizer_at_swap": True,
    "flip": True,
    "shift_px": 1,
    "diffeo": Diffeo(),
}


@pytest.mark.parametrize(
    "other",
    [
        Base(BaseRecipe(), "1" * 64),
        Base(BaseRecipe(model=Model(batch_norm=False)), "0" * 64),
        *(Base(BaseRecipe(training=Training(**{key: value})), "0" * 64) for key, value in CHANGES.items()),
    ],
)
def test_whatever_influences_training_is_in_the_name(other):
    assert other.name != BASE.name
    assert other.state_name(PULSE, 3) != BASE.state_name(PULSE, 3)


def test_all_training_options_are_tried_above():
    assert set(CHANGES) == set(Training.model_fields)


def test_where_the_data_came_from_is_not_in_the_name():
    here, there = (Base(BaseRecipe(data=NpzData(source="npz", name=name, root=name)), "0" * 64) for name in ("here", "there"))
    assert here.name == there.name


def test_probes_name_the_family_but_not_its_states():
    assert BASE.trial_name(PULSE, Probes()) != BASE.trial_name(PULSE, Probes(pooling="flatten"))


@pytest.mark.parametrize(
    "body",
    [
        "def act(x):\n    return {} * x\n",
        "import functools, torch\nact = functools.partial(torch.mul, other={})\n",
        "from torch import nn\nact = nn.LeakyReLU({})\n",
    ],
)
def test_a_users_function_is_named_by_its_source(tmp_path, monkeypatch, body):
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for number in ("1.0", "2.0"):
        (tmp_path / "mine.py").write_text(body.format(number))
        sys.modules.pop("mine", None)
        import importlib
        import linecache

        importlib.invalidate_caches()
        linecache.clearcache()
        names.append(BASE.state_name(Schedule.of([[0, "mine:act", "focal"]]), 1))
    sys.modules.pop("mine", None)
    assert names[0] != names[1]


@pytest.mark.parametrize(
    "phases",
    [
        [[1, "relu", "focal"]],
        [[0, "relu", "focal"], [2, "tanh", "focal"], [2, "relu", "focal"]],
        [[0, "relu", "focal"], [2, "relu", "focal"]],
    ],
)
def test_schedules_that_are_none_are_refused(phases):
    with pytest.raises(ValueError, match="schedule"):
        Schedule.of(phases)


def test_what_a_swap_exchanges():
    swapped = [
        Schedule.of([[0, "relu", "focal"], [1, a, loss]]).swapped for a, loss in [("tanh", "focal"), ("relu", "hinge"), ("tanh", "hinge")]
    ]
    assert swapped == ["activation", "loss", "both"]
    assert PULSE.control.swapped == "none"
    assert PULSE.phase_before(3) == Phase(0, "relu", "cross_entropy")
    assert PULSE.phase_before(4).activation == "tanh"


def test_a_hit_made_with_another_recipe_is_refused():
    stored = BASE.history(PULSE, 3, full=True)
    check_same("file", stored, stored)
    del stored["base"]["training"]["shift_px"]  # an option added since
    check_same("file", stored, BASE.history(PULSE, 3, full=True))
    stored["base"]["training"]["learning_rate"] = 0.9
    with pytest.raises(NameMismatch, match=r"file.*base.training.learning_rate was 0.9, is 0.05"):
        check_same("file", stored, BASE.history(PULSE, 3, full=True))
