"""Tests of sam/models/layers.py."""

import math

import pytest
import torch
from torch import nn

from sam.models.layers import conv3x3, initialise, pad_channels


@pytest.mark.parametrize(("stride", "size"), [(1, 7), (2, 4)])
def test_conv3x3_has_no_bias_and_keeps_the_size_at_stride_one(stride: int, size: int) -> None:
    convolution = conv3x3(3, 5, stride)
    assert convolution(torch.zeros(2, 3, 7, 7)).shape == (2, 5, size, size)
    assert convolution.bias is None
    assert convolution.weight.shape == (5, 3, 3, 3)


def test_conv3x3_of_ones_counts_the_neighbours_inside() -> None:
    convolution = conv3x3(1, 1)
    nn.init.ones_(convolution.weight)
    expected = [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    assert convolution(torch.ones(1, 1, 3, 3)).int().tolist() == [[expected]]


def test_pad_channels_appends_zeros() -> None:
    images = torch.arange(1.0, 9.0).view(1, 2, 2, 2)
    expected = torch.tensor([[[[1.0, 2], [3, 4]], [[5, 6], [7, 8]], [[0, 0], [0, 0]]]])
    assert torch.equal(pad_channels(images, 3), expected)
    assert torch.equal(pad_channels(images, 2), images)


def test_pad_channels_keeps_channels_last() -> None:
    images = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert pad_channels(images, 8).is_contiguous(memory_format=torch.channels_last)


def test_initialise_draws_convolutions_normally_with_variance_two_over_fan_out() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 64, 3, bias=False)
    initialise(nn.Sequential(convolution))
    weights = convolution.weight.detach().double().flatten()
    variance = 2 / (64 * 3 * 3)
    # n normal numbers: the mean deviates by sigma / n**0.5, the variance by a factor (2 / n)**0.5 of itself.
    n = len(weights)
    assert abs(float(weights.mean())) < 6 * (variance / n) ** 0.5
    assert abs(float((weights**2).mean()) / variance - 1) < 6 * (2 / n) ** 0.5
    # 4.55 % of a normal distribution, and nothing of a uniform one, lies beyond two sigma.
    share = float((weights.abs() > 2 * variance**0.5).double().mean())
    assert abs(share - 0.0455) < 6 * (0.0455 * 0.9545 / n) ** 0.5


def test_initialise_draws_the_classifier_uniformly_within_its_range() -> None:
    torch.manual_seed(0)
    classifier = nn.Linear(500, 16)
    initialise(nn.Sequential(classifier))
    weights = classifier.weight.detach().double()
    # The bound is 1 / sqrt(16 classes) for any number of inputs.
    assert float(weights.abs().max()) <= 0.25
    assert float(weights.max()) > 0.249
    assert float(weights.min()) < -0.249
    # Uniform: variance (2 * 0.25)**2 / 12; the relative deviation of a sample's is (0.8 / n)**0.5.
    assert abs(float((weights**2).mean()) * 48 - 1) < 6 * math.sqrt(0.8 / weights.numel())
    assert classifier.bias.count_nonzero() == 0


def test_initialise_leaves_batch_norm_at_one_and_zero() -> None:
    norm = nn.BatchNorm2d(4)
    initialise(nn.Sequential(norm))
    assert torch.equal(norm.weight, torch.ones(4))
    assert torch.equal(norm.bias, torch.zeros(4))


def test_initialise_depends_on_the_global_seed_alone() -> None:
    models = []
    for seed in (0, 0, 1):
        model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Linear(2, 2))
        torch.manual_seed(seed)
        initialise(model)
        models.append([weight.detach() for weight in model.parameters() if weight.ndim > 1])
    assert all(map(torch.equal, models[0], models[1]))
    assert not any(map(torch.equal, models[0], models[2]))


def test_initialise_torch_leaves_weights_and_the_generator_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Linear(2, 2))
    before = [weight.detach().clone() for weight in model.parameters()]
    state = torch.get_rng_state()
    initialise(model, "torch")
    assert all(map(torch.equal, before, model.parameters()))
    assert torch.equal(torch.get_rng_state(), state)


def test_initialise_refuses_another_init() -> None:
    with pytest.raises(ValueError, match="^init must be released_code or torch, got he$"):
        initialise(nn.Linear(2, 2), "he")
