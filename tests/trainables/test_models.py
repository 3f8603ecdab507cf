import pytest
import torch
from torch import nn

from analysis.registry import UnknownName
from trainables.activations import ACTIVATIONS, HotSwap, check_activation, swap_activation
from trainables.models import build, check_layers, check_model, default_layers, is_random, record
from trainables.recipe import Model

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18", "vgg11_bn", "mobilenet_v2"])
def test_all_activations_are_hot_swappable(name):
    torch.manual_seed(0)
    model = build(Model(name=name), (3, 32, 32), 5).eval()
    kinds = {type(m) for m in model.modules()}
    assert not kinds & {nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU}
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        before = model(IMAGES)
        swap_activation(model, torch.sin)
        after = model(IMAGES)
        swap_activation(model, ACTIVATIONS["relu"])
        again = model(IMAGES)
    assert before.shape == (4, 5)
    assert not torch.equal(before, after)
    assert torch.equal(before, again)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_small_images_get_a_stem_that_keeps_their_map():
    resnet = build(Model(name="resnet18"), (1, 28, 28), 2)
    assert (resnet.conv1.in_channels, resnet.conv1.stride) == (1, (1, 1))
    assert isinstance(resnet.maxpool, nn.Identity)
    large = build(Model(name="resnet18"), (3, 96, 96), 2)
    assert large.conv1.stride == (2, 2)


def test_a_vgg_for_small_images_ends_in_one_linear_layer_on_one_position():
    vgg = build(Model(name="vgg11"), (1, 28, 28), 10).eval()
    assert not is_random(vgg)
    for side in (12, 28, 32, 64):
        with torch.no_grad():
            found = record(vgg, ["features", "avgpool", "classifier"], torch.zeros(2, 1, side, side))
        assert [tuple(output.shape[1:]) for output in found.values()] == [(512, (side + 31) // 32, (side + 31) // 32), (512, 1, 1), (10,)]


def test_gates_are_not_activations():
    model = build(Model(name="mobilenet_v3_small"), (3, 32, 32), 2)
    assert any(isinstance(m, nn.Hardsigmoid) for m in model.modules())


def test_layers_are_the_main_parts():
    assert default_layers(build(Model(), (3, 24, 24), 2)) == ["block1", "block2", "block3", "head"]
    assert default_layers(build(Model(name="resnet18"), (3, 32, 32), 2)) == [
        "conv1",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "fc",
    ]


def test_recorded_layers_are_what_the_forward_pass_computes():
    model = build(Model(), (3, 24, 24), 2).eval()
    images = IMAGES[:, :, :24, :24]
    with torch.no_grad():
        found = record(model, ["block1", "head"], images)
        assert torch.equal(found["block1"], model.block1(images))
        assert torch.equal(found["head"], model(images))
    assert not model.block1._forward_hooks


def test_random_models_are_known():
    assert is_random(build(Model(name="squeezenet1_1"), (3, 32, 32), 2))
    assert not is_random(build(Model(name="resnet18"), (3, 32, 32), 2))


@pytest.mark.parametrize(
    ("config", "match"),
    [(Model(name="resnet81"), "did you mean 'resnet18'"), (Model(name="resnet18", widths=[3]), "widths has no effect")],
)
def test_wrong_models_are_refused(config, match):
    with pytest.raises(UnknownName, match=match):
        check_model(config)


def test_activations_inside_forward_cannot_be_swapped():
    with pytest.raises(UnknownName, match="cannot be swapped"):
        build(Model(name="densenet121"), (3, 32, 32), 2)


def test_unknown_layers_get_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'block1'"):
        check_layers(build(Model(), (3, 24, 24), 2), ["blok1"])


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_are_elementwise_and_without_parameters(name):
    check_activation(name)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    y = ACTIVATIONS[name](x)
    permutation = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ACTIVATIONS[name](x.reshape(-1)[permutation]), y.reshape(-1)[permutation])
    assert not list(HotSwap(ACTIVATIONS[name]).parameters())


def test_an_instance_of_a_module_can_be_swapped_in_and_out():
    module = HotSwap(torch.relu)
    for function in (nn.LeakyReLU(0.3), torch.tanh, nn.Softplus(), nn.ELU()):
        module.swap(function)
        assert torch.equal(module(torch.tensor([-1.0])), function(torch.tensor([-1.0])))
    assert not list(module.children())


def test_an_activation_with_parameters_is_refused(tmp_path, monkeypatch):
    (tmp_path / "shared_slope.py").write_text("from torch import nn\nact = nn.PReLU()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownName, match="has parameters"):
        check_activation("shared_slope:act")
    with pytest.raises(UnknownName, match="did you mean 'relu'"):
        check_activation("rellu")


def test_an_activation_that_draws_random_numbers_is_refused(tmp_path, monkeypatch):
    (tmp_path / "noisy.py").write_text("from torch import nn\nact = nn.RReLU()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownName, match="two results for one argument"):
        check_activation("noisy:act")


@pytest.mark.parametrize("text", ["x.relu() / (1 + x.abs().amax())", "x - x.mean(-1, keepdim=True)", "x * x.shape[0]"])
def test_an_activation_that_is_not_elementwise_is_refused(tmp_path, monkeypatch, text):
    """Side by side in one network, replicas would depend on each other through it."""
    name = f"mixer{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(f"def act(x):\n    return {text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownName, match="is not elementwise"):
        check_activation(f"{name}:act")


def test_compiled_functions_have_a_fingerprint():
    check_activation("torch:tanh")
    assert ACTIVATIONS.fingerprint("torch._C._nn:gelu") == ACTIVATIONS.fingerprint("torch._C._nn:gelu") != "torch._C._nn:gelu"


def test_the_fast_tanh_is_tanh():
    x = torch.linspace(-20, 20, 100_001)
    torch.testing.assert_close(ACTIVATIONS["tanh"](x), torch.tanh(x), rtol=0, atol=2.4e-7)
