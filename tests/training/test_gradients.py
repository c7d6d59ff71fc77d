import torch
from torch import nn

from sam.training.gradients import FlatGradients


def test_gradients_get_places_with_the_strides_of_their_weights_and_keep_them():
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 1).double()).to(
        memory_format=torch.channels_last
    )
    weights = list(layers.parameters())
    weights.append(nn.Parameter(torch.arange(6.0).view(2, 3)[:, :2]))  # not dense
    weights.append(nn.Parameter(torch.zeros(3)))  # never gets a gradient
    gradients = FlatGradients(weights)
    gradients.clear()
    assert not gradients.are_in_place()
    assert all(weight.grad is None for weight in weights)
    given = [torch.randn_like(weight) for weight in weights[:-1]]
    for weight, grad in zip(weights, given):
        weight.grad = grad.clone()
    gradients.gather()
    assert gradients.are_in_place()
    assert [flat.dtype for flat in gradients.flat] == [torch.float32, torch.float64]
    for weight, grad in zip(weights, given):
        assert torch.equal(weight.grad, grad)
        assert weight.grad.data_ptr() % 16 == 0
    assert weights[0].grad.stride() == weights[0].stride()
    assert weights[-1].grad is None
    places = [weight.grad.data_ptr() for weight in weights[:-1]]
    for weight in weights:
        weight.grad = None  # what zero_grad() does
    gradients.clear()
    for weight, place in zip(weights, places):
        assert weight.grad.data_ptr() == place
        assert not weight.grad.any()


def test_places_do_not_overlap():
    weights = [nn.Parameter(torch.zeros(size)) for size in (1, 127, 128, 129, 0, 5)]
    gradients = FlatGradients(weights)
    for number, weight in enumerate(weights):
        weight.grad = torch.full_like(weight, number)
    gradients.gather()
    for number, weight in enumerate(weights):
        assert torch.equal(weight.grad, torch.full_like(weight, number))


def test_a_new_gradient_gets_a_place_next_to_the_old_ones():
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    gradients = FlatGradients([first, second])
    first.grad = torch.ones(2)
    gradients.gather()
    gradients.clear()
    second.grad = torch.ones(3)
    gradients.gather()
    assert gradients.are_in_place()
    assert torch.equal(first.grad, torch.zeros(2))
    assert torch.equal(second.grad, torch.ones(3))
