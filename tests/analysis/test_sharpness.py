"""m-sharpness against a closed form, a slow twin in float64, and what training does."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sam.analysis.sample import SampleLoss
from sam.analysis.sharpness import measure_sharpness, num_image_passes
from sam.optim import SAM
from tests.analysis.networks import assert_same_bits, conv_net, sample_of, state_of
from tests.reference import analysis as reference

RHO = 0.4


def linear_sample(num_images, seed=0):
    """Return the loss of logistic regression with two classes."""
    torch.manual_seed(seed)
    network = nn.Linear(6, 2, bias=False).double()
    images = torch.randn(num_images, 6, dtype=torch.float64)
    return SampleLoss(network, images, torch.randint(2, (num_images,)), chunk_size=4)


def test_rise_of_logistic_regression_on_single_images_is_that_of_the_closed_form():
    sample = linear_sample(11)
    # With z = (w_y - w_other) . x, the loss log(1 + exp(-z)) falls in z alone, and the ball moves z by up to
    # rho * sqrt(2) * ||x||, however many steps look for it.
    with torch.no_grad():
        logits = sample.network(sample.images)
    z = (logits.gather(1, sample.targets[:, None]) - logits.gather(1, 1 - sample.targets[:, None])).squeeze()
    lowest = z - RHO * math.sqrt(2) * sample.images.norm(dim=1)
    rises = (torch.log1p(torch.exp(-lowest)) - torch.log1p(torch.exp(-z))).numpy()
    errors = 100 * ((lowest < 0).double() - (z < 0).double()).numpy()
    assert 0 < errors.mean() < 100
    rows = measure_sharpness(sample, RHO, [1], [1, 2, 5])
    assert [(row.m, row.ascent_steps) for row in rows] == [(1, 1), (1, 2), (1, 5), (11, 1), (11, 2), (11, 5)]
    for row in rows[:3]:
        assert row.loss_rise == pytest.approx(rises.mean(), rel=1e-12)
        assert row.loss_rise_standard_error == pytest.approx(np.std(rises, ddof=1) / math.sqrt(11), rel=1e-12)
        assert row.error_rise_points == pytest.approx(errors.mean(), rel=1e-12)
        assert row.num_subsets == 11
    assert all(row.loss_rise_standard_error is None and row.num_subsets == 1 for row in rows[3:])


@pytest.mark.parametrize(
    "options",
    [{}, {"ascent_step_size": 0.3}, {"batch_statistics": True}, {"adaptive": True}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_sharpness_equals_the_slow_twin(options):
    batch_statistics = options.get("batch_statistics", False)
    step_size, adaptive = options.get("ascent_step_size", 1.0), options.get("adaptive", False)
    steps = [1] if adaptive else [3, 1]
    sample = sample_of(conv_net(), 14, chunk_size=5, batch_statistics=batch_statistics)
    rows = measure_sharpness(sample, RHO, [8, 4], steps, step_size, adaptive)
    assert [(row.m, row.ascent_steps) for row in rows] == [(m, k) for m in (4, 8, 14) for k in sorted(steps)]
    parts = {"part_size": 5, "batch_statistics": batch_statistics}
    for row in rows:
        subsets = reference.rises(
            conv_net(),
            sample.images,
            sample.targets,
            row.m,
            RHO,
            row.ascent_steps,
            step_size,
            adaptive,
            **parts,
        )
        loss_rise, error_rise, standard_error = reference.mean_rises(subsets)
        assert row.num_subsets == len(subsets)
        assert row.loss_rise == pytest.approx(loss_rise, rel=1e-9)
        assert row.error_rise_points == pytest.approx(error_rise, rel=1e-9)
        assert row.loss_rise_standard_error == (standard_error and pytest.approx(standard_error, rel=1e-9))


@pytest.mark.parametrize("geometry, num_steps", [({}, 1), ({}, 3), ({"adaptive": True}, 1)])
def test_rise_of_the_whole_sample_is_that_of_training(geometry, num_steps):
    sample = sample_of(conv_net())
    (row,) = measure_sharpness(sample, RHO, [], [num_steps], 0.3, **geometry)
    before = sample.measure()
    optimizer = SAM(sample.weights, torch.optim.SGD, rho=RHO, lr=0.1, **geometry)
    for number in range(num_steps):
        optimizer.zero_grad()
        sum(sample.chunk_loss(images, targets) for images, targets in sample.chunks()).backward()
        optimizer.climb(0.3) if number else optimizer.perturb()
    after = sample.measure()
    assert row.loss_rise == pytest.approx(after[0] - before[0], rel=1e-10)
    assert row.error_rise_points == pytest.approx(after[1] - before[1], rel=1e-10)


def test_first_step_is_rho_long_and_further_ones_stay_in_the_ball():
    sample = sample_of(conv_net(), 6, chunk_size=6)
    lengths = []
    centre = torch.nn.utils.parameters_to_vector(sample.weights).detach().clone()

    def measure_length(network, images):
        here = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
        lengths.append(float((here - centre).norm()))

    sample.network.register_forward_pre_hook(measure_length)
    measure_sharpness(sample, RHO, [3], [4], ascent_step_size=0.7)
    assert len(lengths) == 3 * 5
    for start in range(0, 15, 5):
        assert lengths[start] == 0
        assert lengths[start + 1] == pytest.approx(RHO, rel=1e-12)
        assert all(0 < length <= RHO * (1 + 1e-12) for length in lengths[start + 2 : start + 5])


def test_rho_zero_is_no_rise():
    for row in measure_sharpness(sample_of(conv_net(dtype=torch.float32)), 0.0, [1, 4], [1, 3]):
        assert row.loss_rise == row.error_rise_points == 0
        assert not row.loss_rise_standard_error


def test_images_without_a_gradient_do_not_rise():
    sample = linear_sample(4)
    sample.images[:2] = 0
    (single, _) = measure_sharpness(sample, RHO, [1], [1])
    rest = SampleLoss(sample.network, sample.images[2:], sample.targets[2:], 4)
    assert single.loss_rise == pytest.approx(
        measure_sharpness(rest, RHO, [1], [1])[0].loss_rise / 2, rel=1e-12
    )


def test_the_order_of_subsets_does_not_matter():
    sample = sample_of(conv_net(), 12, chunk_size=4)
    order = torch.tensor([8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7])
    other = SampleLoss(sample.network, sample.images[order], sample.targets[order], 4)
    for row, again in zip(*(measure_sharpness(each, RHO, [4], [2]) for each in (sample, other))):
        assert again.loss_rise == pytest.approx(row.loss_rise, rel=1e-12)
        assert again.loss_rise_standard_error == (
            row.loss_rise_standard_error and pytest.approx(row.loss_rise_standard_error, rel=1e-12)
        )


def test_m_above_the_sample_means_all_of_it():
    sample = sample_of(conv_net(), 6)
    assert measure_sharpness(sample, RHO, [3, 6, 256], [1]) == measure_sharpness(sample, RHO, [3], [1])


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("fails_at", [None, 2])
def test_network_comes_back_to_the_bit_even_if_a_pass_fails(fails_at, batch_statistics):
    sample = sample_of(conv_net(dtype=torch.float32), batch_statistics=batch_statistics)
    before, num_passes = state_of(sample.network), 0

    def fail(network, images):
        nonlocal num_passes
        num_passes += 1
        if num_passes == fails_at:
            raise RuntimeError("out of memory")

    sample.network.register_forward_pre_hook(fail)
    if fails_at is None:
        measure_sharpness(sample, RHO, [4], [1, 2])
    else:
        with pytest.raises(RuntimeError, match="out of memory"):
            measure_sharpness(sample, RHO, [4], [1, 2])
    assert_same_bits(sample.network, before)


def test_cost_is_that_of_the_passes_made():
    sample = sample_of(conv_net())
    passes = []
    sample.network.register_forward_hook(
        lambda network, images, logits: passes.append(len(logits) * (1 if logits.requires_grad else 1 / 3))
    )
    measure_sharpness(sample, RHO, [4, 1, 20], [1, 3, 2])
    assert sum(passes) == pytest.approx(num_image_passes(14, [4, 1, 20], [1, 3, 2]), rel=1e-12)
    assert sum(passes) == pytest.approx(3 * 14 * (3 + 1 / 3), rel=1e-12)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"rho": -0.1}, "rho must be finite and >= 0, got -0.1"),
        ({"rho": math.inf}, "rho must be finite and >= 0, got inf"),
        ({"ms": [1, 0]}, r"every m must be at least 1, got \[1, 0\]"),
        ({"ascent_steps": []}, r"ascent_steps must be one or more numbers of at least 1, got \[\]"),
        ({"ascent_steps": [0, 1]}, r"ascent_steps must be .*, got \[0, 1\]"),
        ({"ascent_step_size": 0.0}, "ascent_step_size must be finite and greater than 0, got 0.0"),
        ({"adaptive": True, "ascent_steps": [1, 2]}, r"adaptive=True takes ascent_steps=\[1\] only"),
    ],
)
def test_wrong_arguments_are_refused(changed, message):
    arguments = {"rho": RHO, "ms": [1], "ascent_steps": [1], **changed}
    with pytest.raises(ValueError, match=message):
        measure_sharpness(sample_of(conv_net()), **arguments)
