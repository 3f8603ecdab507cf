import math

import pytest
import torch
import torch.nn.functional as F

from analysis.registry import UnknownName
from analysis.tables import LOSS_COLUMNS
from trainables.losses import LOSSES, check_loss

LOGITS = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 5, (4, 7), generator=torch.Generator().manual_seed(1))


def test_every_loss_has_its_column():
    assert tuple(LOSSES) == LOSS_COLUMNS


@pytest.mark.parametrize("name", list(LOSSES))
def test_one_value_per_replica_equals_each_alone(name):
    together = LOSSES[name](LOGITS, LABELS)
    assert together.shape == (4,)
    torch.testing.assert_close(together, torch.stack([LOSSES[name](z, y) for z, y in zip(LOGITS, LABELS, strict=True)]))


@pytest.mark.parametrize(
    ("name", "oracle"),
    {
        "cross_entropy": lambda z, y: F.cross_entropy(z, y),
        "label_smoothing": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
        "squared_error": lambda z, y: F.mse_loss(z, F.one_hot(y, 5).float()),
        "absolute_error": lambda z, y: (z.softmax(-1) - F.one_hot(y, 5)).abs().sum(-1).mean(),
        "hinge": lambda z, y: F.multi_margin_loss(z, y) * 5 / 4,
        "focal": lambda z, y: ((1 - z.softmax(-1).gather(1, y[:, None])[:, 0]) ** 2 * F.cross_entropy(z, y, reduction="none")).mean(),
    }.items(),
)
def test_torch_agrees(name, oracle):
    torch.testing.assert_close(LOSSES[name](LOGITS[0], LABELS[0]), oracle(LOGITS[0], LABELS[0]))


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("cross_entropy", math.log(5)),
        ("label_smoothing", math.log(5)),
        ("focal", 0.64 * math.log(5)),
        ("squared_error", 0.2),
        ("absolute_error", 1.6),
        ("hinge", 1.0),
    ],
)
def test_the_stated_scale_at_zero_logits(name, scale):
    torch.testing.assert_close(LOSSES[name](torch.zeros(7, 5), LABELS[0]), torch.tensor(scale))


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'cross_entropy'"):
        check_loss("cross_entrpy")


@pytest.mark.parametrize(("body", "match"), [("z.sum()", "one value per replica"), ("z.nope", "fails"), ("z.mean((-1, -2))", None)])
def test_a_users_loss_is_tried_before_it_runs(body, match, tmp_path, monkeypatch):
    module = f"loss_{abs(hash(body))}"
    (tmp_path / f"{module}.py").write_text(f"def mine(z, y):\n    return {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    if match is None:
        check_loss(f"{module}:mine")
    else:
        with pytest.raises(UnknownName, match=match):
            check_loss(f"{module}:mine")
