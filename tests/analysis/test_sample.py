"""The loss over a sample: the same whatever the chunks, precise, and without a trace in the network."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from sam.analysis.sample import SampleLoss
from tests.analysis.networks import assert_same_bits, conv_net, sample_of, state_of
from tests.reference import analysis as reference


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("chunk_size", [5, 14, 100])
def test_loss_and_error_equal_the_formula_and_leave_no_trace(chunk_size, batch_statistics):
    network = conv_net().train()
    sample = sample_of(network, 14, chunk_size, batch_statistics)
    before = state_of(network)
    measured = sample.measure()
    parts = {"part_size": chunk_size, "batch_statistics": batch_statistics}
    expected = reference.loss_and_error(conv_net(), sample.images, sample.targets, **parts)
    assert measured == pytest.approx(expected, rel=1e-12)
    assert 0 < measured[1] < 100
    sample.measure_with_gradient()
    assert sample.measure() == measured
    assert_same_bits(network, before)


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_gradient_is_the_derivative_of_the_loss(batch_statistics):
    sample = sample_of(conv_net(), batch_statistics=batch_statistics)
    loss, error_pct, grads = sample.measure_with_gradient()
    assert (loss, error_pct) == pytest.approx(sample.measure(), rel=1e-14)
    assert all(torch.equal(grad, again) for grad, again in zip(grads, sample.measure_with_gradient()[2]))
    directions = [torch.randn_like(weight) for weight in sample.weights]
    slope = sum(float((grad * direction).sum()) for grad, direction in zip(grads, directions))
    ends = []
    for step in (1e-5, -1e-5):
        moved = [weight.detach() + step * move for weight, move in zip(sample.weights, directions)]
        parts = {"part_size": 5, "batch_statistics": batch_statistics}
        ends.append(
            reference.loss_and_error(sample.network, sample.images, sample.targets, moved, **parts)[0]
        )
    # Central difference: 1e-10 of the third derivative, and 1e-16 / 1e-5 of round-off.
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_shares_of_the_chunks_add_up_to_the_loss():
    sample = sample_of(conv_net())
    shares = [sample.chunk_loss(images, targets) for images, targets in sample.chunks()]
    assert [len(targets) for _, targets in sample.chunks()] == [5, 5, 4]
    assert float(sum(shares).detach()) == pytest.approx(sample.measure()[0], rel=1e-14)


def test_loss_of_a_well_learnt_image_is_not_rounded_to_zero_in_float32():
    network = nn.Linear(1, 2, bias=False)
    network.weight.data = torch.tensor([[20.0], [0.0]])
    sample = SampleLoss(network, torch.ones(3, 1), torch.zeros(3, dtype=torch.int64), 2)
    logits = network(sample.images)
    assert not functional.cross_entropy(logits, sample.targets), "what float32 makes of it"
    assert sample.measure()[0] == pytest.approx(math.log1p(math.exp(-20)), rel=1e-7)


def test_frozen_weights_are_none_of_the_sample():
    network = conv_net()
    network[0].weight.requires_grad = False
    sample = sample_of(network)
    assert (
        len(sample.weights) == len(sample.measure_with_gradient()[2]) == len(list(network.parameters())) - 1
    )


@pytest.mark.parametrize("num_images, chunk_size", [(0, 5), (5, 0)])
def test_no_images_or_no_chunk_are_refused(num_images, chunk_size):
    with pytest.raises(ValueError, match=f"{num_images} images in chunks of {chunk_size}"):
        sample_of(conv_net(), num_images, chunk_size)
