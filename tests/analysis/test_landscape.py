"""Surfaces of the loss against closed forms, a slow twin, and the networks at the ends."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sam.analysis.landscape import (
    eigenvector_directions,
    empty_surface,
    fill_surface,
    num_image_passes,
    random_directions,
    steps_between,
    symmetric_steps,
)
from sam.analysis.sample import SampleLoss
from tests.analysis.networks import assert_same_bits, conv_net, sample_of, state_of
from tests.reference import analysis as reference

STEPS = symmetric_steps(1.0, 3)


def filled(sample, directions, *steps, **options):
    surface = empty_surface(*steps)
    fill_surface(sample, surface, directions, **options)
    return surface


@settings(max_examples=50, deadline=None)
@given(span=st.floats(0.01, 100), half=st.integers(1, 100))
def test_steps_are_even_and_meet_the_centre_and_both_ends_exactly(span, half):
    steps = symmetric_steps(span, 2 * half + 1)
    assert steps[half] == 0 and steps[-1] == span
    assert np.array_equal(steps, -steps[::-1])
    np.testing.assert_allclose(np.diff(steps), span / half, rtol=1e-9)
    steps = steps_between(span, 2 * half + 1)
    assert len(steps) == 2 * half + 1
    assert 0 in steps and 1 in steps and 0.5 in steps
    np.testing.assert_allclose(np.diff(steps), steps[1] - steps[0], rtol=1e-9)
    np.testing.assert_allclose(steps[0] + steps[-1], 1, atol=1e-9)


def test_steps_between_two_networks_reach_half_a_span_beyond_each():
    np.testing.assert_allclose(steps_between(1.0, 25), np.arange(-6, 19) / 12, rtol=1e-15)
    np.testing.assert_allclose(steps_between(0.5, 13), np.arange(-2, 11) / 8, rtol=1e-15)


@pytest.mark.parametrize("make", [symmetric_steps, steps_between])
@pytest.mark.parametrize(
    "span, num_points, message",
    [
        (0.0, 5, "span must be finite and greater than 0, got 0.0"),
        (math.inf, 5, "span must be finite and greater than 0, got inf"),
        (1.0, 4, "points must be odd .*, got 4; take 5"),
        (1.0, 1, "points must be odd and at least 3, .*, got 1; take 3"),
    ],
)
def test_grids_without_a_centre_are_refused(make, span, num_points, message):
    with pytest.raises(ValueError, match=message):
        make(span, num_points)


def test_filters_of_random_directions_are_as_long_as_those_of_the_weights():
    weights = list(conv_net().parameters())
    directions = random_directions(weights, 2, seed=3)
    generator = torch.Generator().manual_seed(3)
    for direction in directions:
        for weight, part in zip(weights, direction):
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            expected = reference.normalised_by_filter(weight, noise)
            torch.testing.assert_close(part, expected, rtol=1e-13, atol=0)
            if weight.dim() > 1:
                torch.testing.assert_close(part.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
    assert not torch.equal(directions[0][0], directions[1][0])


def test_random_directions_depend_on_the_seed_and_not_on_dimensions_and_dtype():
    weights = list(conv_net().parameters())
    one, two, other = (
        random_directions(given_weights, dimensions, seed)[0]
        for given_weights, dimensions, seed in [
            (weights, 1, 0),
            ([weight.float() for weight in weights], 2, 0),
            (weights, 1, 1),
        ]
    )
    for part, again in zip(one, two):
        torch.testing.assert_close(part, again.double(), rtol=1e-6, atol=1e-7)
    assert not torch.allclose(one[0], other[0])


def test_eigenvectors_are_normalised_by_filter_too_and_empty_filters_stay_empty():
    weights = list(conv_net().parameters())
    vectors = torch.randn(2, sum(weight.numel() for weight in weights), dtype=torch.float64)
    for vector, direction in zip(vectors, eigenvector_directions(weights, vectors)):
        start = 0
        for weight, part in zip(weights, direction):
            own = vector[start : start + weight.numel()].view_as(weight)
            start += weight.numel()
            torch.testing.assert_close(part, reference.normalised_by_filter(weight, own), rtol=1e-13, atol=0)
    assert all(not part.any() for part in eigenvector_directions(weights, torch.zeros_like(vectors))[1])
    with pytest.raises(ValueError, match=r"eigenvectors must be \[k, \d+\] for these weights, got \[2, 5\]"):
        eigenvector_directions(weights, vectors[:, :5])


def test_line_of_logistic_regression_is_that_of_the_closed_form():
    torch.manual_seed(0)
    network = nn.Linear(4, 2, bias=False).double()
    image = torch.randn(1, 4, dtype=torch.float64)
    sample = SampleLoss(network, image, torch.tensor([1]), 1)
    ((direction,),) = directions = random_directions(sample.weights, 1, seed=0)
    steps = symmetric_steps(30.0, 21)
    surface = filled(sample, directions, steps)
    margin, slope = ((part[1] - part[0]) @ image[0] for part in (network.weight.detach(), direction))
    z = float(margin) + steps * float(slope)
    np.testing.assert_allclose(surface.loss, np.log1p(np.exp(-z)), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(surface.error_pct, 100.0 * (z < 0))
    assert {0.0, 100.0} == set(surface.error_pct)


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_plane_equals_the_slow_twin_and_its_centre_is_the_plain_loss_to_the_bit(batch_statistics):
    sample = sample_of(conv_net(), batch_statistics=batch_statistics)
    first, second = directions = random_directions(sample.weights, 2, seed=0)
    surface = filled(sample, directions, STEPS, symmetric_steps(0.5, 5))
    parts = {"part_size": 5, "batch_statistics": batch_statistics}
    for i, a in enumerate(surface.steps_1):
        for j, b in enumerate(surface.steps_2):
            moved = [w.detach() + a * d + b * e for w, d, e in zip(sample.weights, first, second)]
            expected = reference.loss_and_error(conv_net(), sample.images, sample.targets, moved, **parts)
            assert (surface.loss[i, j], surface.error_pct[i, j]) == pytest.approx(expected, rel=1e-10)
    assert (surface.loss[1, 2], surface.error_pct[1, 2]) == sample.measure()


def test_surface_that_was_stopped_goes_on_to_the_same_bits():
    sample = sample_of(conv_net(dtype=torch.float32))
    directions = random_directions(sample.weights, 2, seed=0)
    steps = symmetric_steps(1.0, 5), STEPS
    whole, stopped = filled(sample, directions, *steps), empty_surface(*steps)
    num_saves = 0

    def save():
        nonlocal num_saves
        num_saves += 1
        assert np.isfinite(stopped.loss).sum() == np.isfinite(stopped.error_pct).sum() == num_saves
        if num_saves == 4:
            raise KeyboardInterrupt

    before = state_of(sample.network)
    with pytest.raises(KeyboardInterrupt):
        fill_surface(sample, stopped, directions, save=save, seconds_between_saves=0)
    assert_same_bits(sample.network, before)
    assert num_image_passes(14, stopped) == pytest.approx(14 * 11 / 3)
    num_images = []
    sample.network.register_forward_hook(lambda network, images, logits: num_images.append(len(logits)))
    fill_surface(sample, stopped, directions)
    assert sum(num_images) == 14 * 11
    assert np.array_equal(stopped.loss, whole.loss) and np.array_equal(stopped.error_pct, whole.error_pct)
    assert_same_bits(sample.network, before)


def test_saves_keep_their_distance(monkeypatch):
    sample = sample_of(conv_net())
    now = iter(range(1000))
    monkeypatch.setattr("sam.analysis.landscape.time.monotonic", lambda: 10.0 * next(now))
    saves = []
    steps = symmetric_steps(1.0, 9)
    directions = random_directions(sample.weights, 1, seed=0)
    filled(sample, directions, steps, save=lambda: saves.append(1), seconds_between_saves=25)
    # The clock reads 10, 20 and 30 s; then another reading sets the start of the next interval.
    assert len(saves) == 3


@pytest.mark.parametrize("dimensions", [1, 2])
def test_line_to_another_network_ends_exactly_there(dimensions):
    network, other = conv_net(0, torch.float32), conv_net(1, torch.float32)
    sample = sample_of(network)
    mine, theirs, before = sample.measure(), sample_of(other).measure(), state_of(network)
    second = [STEPS] if dimensions == 2 else []
    directions = random_directions(sample.weights, dimensions - 1, seed=0)
    surface = filled(sample, directions, steps_between(1.0, 9), *second, other=other)
    line = (surface.loss, surface.error_pct)
    loss, error_pct = line if dimensions == 1 else (values[:, 1] for values in line)
    steps = list(surface.steps_1)
    for along, expected in [(0, mine), (1, theirs)]:
        assert (loss[steps.index(along)], error_pct[steps.index(along)]) == expected
    for along, value in zip(steps, loss):
        twin = reference.between(conv_net(0), conv_net(1), along)
        expected, _ = reference.loss_and_error(twin, sample.images, sample.targets, part_size=5)
        # float32: 1e-7 through three layers.
        assert value == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(surface.loss).all()
    assert_same_bits(network, before)
    assert_same_bits(other, state_of(conv_net(1, torch.float32)))


def test_loss_that_overflows_is_infinite_and_not_taken_for_missing():
    sample = sample_of(conv_net(dtype=torch.float32))
    directions = random_directions(sample.weights, 1, seed=0)
    surface = filled(sample, directions, symmetric_steps(1e30, 3))
    assert list(np.isinf(surface.loss)) == [True, False, True]
    assert num_image_passes(14, surface) == 0


def test_what_does_not_fit_is_refused():
    sample = sample_of(conv_net())
    directions = random_directions(sample.weights, 2, seed=0)
    with pytest.raises(ValueError, match="2 directions, other=False for 1 axes"):
        filled(sample, directions, STEPS)
    with pytest.raises(ValueError, match="1 directions, other=True for 1 axes"):
        filled(sample, directions[:1], STEPS, other=conv_net(1))
    wider = conv_net()
    wider[0], wider[8] = nn.Conv2d(3, 4, 5, padding=2, bias=False), nn.Linear(80, 7)
    with pytest.raises(ValueError, match=r"differ in 3 tensors, such as 0.weight \(\(4, 3, 3, 3\) and"):
        filled(sample, [], STEPS, other=wider)
