"""D, G and R: theorems, a slow reference, and the values that each estimator gives maps that are known."""

import itertools
import statistics

import pytest
import torch

from analysis.measures.diffeo import Diffeomorphisms, matched_noise, typical_temperature
from analysis.measures.stability import ESTIMATORS, normaliser, numerator, of_changes, squared_changes, stability
from tests.analysis.test_diffeo import photographs, seeded


@pytest.fixture(scope="module")
def probed():
    """500 images, warped by a nominal pixel at cut-off 3, and with noise as large."""
    images = photographs(500, 32)
    warped = Diffeomorphisms.draw(500, 3, typical_temperature(1.0, 3, 32), seeded(1)).warp(images)
    return images, warped, images + matched_noise(images, warped, seeded(2))


def relative(function, probed, estimator):
    return stability(*(function(images).flatten(1) for images in probed), estimator).relative


@pytest.mark.parametrize(("estimator", "wanted", "tolerance"), [("mean", 1, 1e-5), ("median_of_norms", 1, 1e-5), ("official", 0.726, 0.02)])
def test_the_identity_map(probed, estimator, wanted, tolerance):
    assert relative(lambda x: x, probed, estimator) == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_maps_that_blur_are_less_stable_to_warps_than_to_noise_and_those_that_sharpen_more(probed, estimator):
    assert relative(lambda x: torch.nn.functional.avg_pool2d(x, 8), probed, estimator) > 1.3
    assert relative(lambda x: x - torch.nn.functional.avg_pool2d(x, 3, 1, 1), probed, estimator) < 0.8


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_untrained_networks_are_near_one(probed, estimator):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
    with torch.no_grad():
        assert 0.85 < relative(network, probed, estimator) < 1.15


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_scale_shift_and_rotation_of_the_outputs(estimator):
    """R, D and G do not change with the scale or a shift of f; all but `official`, which goes output by output, nor with a rotation."""
    clean, warped, noisy = torch.randn(3, 41, 6, generator=seeded(), dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=seeded(1), dtype=torch.float64)).Q
    found = stability(clean, warped, noisy, estimator)
    moved = stability(*(1e3 * f + 7 for f in (clean, warped, noisy)), estimator)
    turned = stability(*(f @ rotation for f in (clean, warped, noisy)), estimator)
    for name in ("diffeo", "noise", "relative"):
        assert getattr(moved, name) == pytest.approx(getattr(found, name), rel=1e-6)
        same = getattr(turned, name) == pytest.approx(getattr(found, name), rel=1e-6)
        assert same == (estimator != "official")


@pytest.mark.parametrize("num_images", [6, 7])
def test_each_estimator_is_its_formula_written_out(num_images):
    clean, changed = torch.randn(2, num_images, 4, generator=seeded(), dtype=torch.float64)
    norms = [sum((b - a) ** 2 for a, b in zip(x, y, strict=True)) for x, y in zip(clean.tolist(), changed.tolist(), strict=True)]
    pairs = [sum((b - a) ** 2 for a, b in zip(x, y, strict=True)) for x, y in itertools.combinations(clean.tolist(), 2)]
    every = [sum((b - a) ** 2 for a, b in zip(x, y, strict=True)) for x, y in itertools.product(clean.tolist(), repeat=2)]
    squares = [(y - x).square().tolist() for x, y in zip(clean.T, changed.T, strict=True)]
    wanted = {
        "mean": (statistics.mean(norms), statistics.mean(pairs)),
        "median_of_norms": (statistics.median(norms), statistics.median(pairs)),
        "official": (sum(statistics.median_low(one) for one in squares), statistics.median_low(every) + 1e-10),
    }
    for estimator in ESTIMATORS:
        found = numerator(clean, changed, estimator).item(), normaliser(clean, estimator).item()
        assert found == pytest.approx(wanted[estimator], rel=1e-9), estimator
        if estimator != "official":
            assert of_changes(squared_changes(clean, changed), estimator).item() == pytest.approx(wanted[estimator][0], rel=1e-9)


def test_networks_beside_each_other_are_measured_apart():
    outputs = torch.randn(2, 3, 9, 4, generator=seeded(), dtype=torch.float64)  # [clean or changed, network, image, output]
    for estimator in ESTIMATORS:
        apart = torch.stack([numerator(a, b, estimator) / normaliser(a, estimator) for a, b in zip(*outputs, strict=True)])
        torch.testing.assert_close(numerator(*outputs, estimator) / normaliser(outputs[0], estimator), apart)


def test_outputs_that_are_all_the_same_have_no_stability_and_unknown_estimators_are_refused():
    flat = torch.ones(5, 3)
    assert str(stability(flat, flat, flat, "mean").relative) == "nan"
    with pytest.raises(ValueError, match="allowed: mean, median_of_norms, official"):
        stability(flat, flat, flat, "median")
    with pytest.raises(ValueError, match="squared norms"):
        of_changes(torch.ones(3), "official")
