"""SAM on weights that are views, lie in another order, or change their dtype; and what autograd is told."""

import copy
import math

import pytest
import torch
from torch import nn

from sam.optim import SAM
from sam.optim.memory import any_overlaps, is_dense
from tests.optim.test_sam import make_problem
from tests.reference import sam as reference

BALLS = {"p=2": {}, "p=3": {"p": 3.0}, "p=inf": {"p": math.inf}, "adaptive": {"adaptive": True}}
STRIDED = {
    "column": lambda: torch.arange(1.0, 7.0).reshape(2, 3)[:, :1],
    "every second": lambda: torch.arange(1.0, 13.0).reshape(2, 6)[:, ::2],
    "of a transposed": lambda: torch.arange(1.0, 13.0).reshape(3, 4).T[1:, 1:],
    "one entry": lambda: torch.arange(1.0, 7.0).reshape(2, 3)[1:, 2:],
    "none": lambda: torch.arange(1.0, 7.0).reshape(2, 3)[:, 3:],
    "grey-scale stem": lambda: torch.randn(4, 3, 5, 5)[:, :1],
    "channels last": lambda: torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.arange(1.0, 7.0).reshape(2, 3).T,
}


def test_a_column_of_a_matrix_moves_alone():
    # The numbers of the issue: the kernel took two entries from the first address.
    big = torch.arange(1.0, 7.0).reshape(2, 3)
    around = big.clone()
    weight = nn.Parameter(big[:, :1])
    optimizer = SAM([weight], torch.optim.SGD, rho=5.0, lr=0.0)
    weight.grad = torch.tensor([[3.0], [4.0]])
    optimizer.first_step()
    assert weight.tolist() == [[4.0], [8.0]]
    assert torch.equal(big[:, 1:], around[:, 1:])
    weight.grad = torch.ones(2, 1)
    optimizer.second_step()
    assert torch.equal(big, around)


@pytest.mark.parametrize("arguments", BALLS.values(), ids=BALLS)
@pytest.mark.parametrize("make", STRIDED.values(), ids=STRIDED)
@pytest.mark.parametrize("strided_gradient", [False, True])
def test_a_view_goes_the_way_of_its_dense_twin_and_nothing_around_it_moves(make, arguments, strided_gradient):
    torch.manual_seed(0)
    view = make()
    dense = nn.Parameter(view.clone(memory_format=torch.contiguous_format))
    around = view._base if view._base is not None else view
    weight, other = nn.Parameter(view), nn.Parameter(torch.ones(3))
    other_twin = nn.Parameter(torch.ones(3))
    optimizer = SAM([weight, other], torch.optim.SGD, rho=0.5, lr=0.1, momentum=0.9, **arguments)
    twin = SAM([dense, other_twin], torch.optim.SGD, rho=0.5, lr=0.1, momentum=0.9, **arguments)
    inside = torch.zeros_like(around)
    torch.as_strided(inside, view.shape, view.stride(), view.storage_offset()).fill_(1)
    outside = around[inside == 0].clone()
    for _ in range(2):
        for step in ("first_step", "second_step"):
            grad = torch.randn(view.shape)
            weight.grad = torch.empty_like(weight).copy_(grad) if strided_gradient else grad.clone()
            dense.grad = grad.clone()
            other.grad = other_twin.grad = torch.ones(3)
            getattr(optimizer, step)()
            getattr(twin, step)()
            torch.testing.assert_close(weight, dense, rtol=1e-6, atol=1e-7, check_stride=False)
            torch.testing.assert_close(other, other_twin, rtol=1e-6, atol=1e-7)
            assert torch.equal(around[inside == 0], outside)


def test_climb_and_the_cosine_are_right_for_a_view():
    big = torch.zeros(2, 3)
    weight = nn.Parameter(big[:, :1])
    optimizer = SAM([weight], torch.optim.SGD, rho=5.0, lr=0.0)
    weight.grad = torch.tensor([[3.0], [4.0]])
    optimizer.perturb()
    weight.grad = torch.tensor([[4.0], [-3.0]])
    optimizer.climb()
    torch.testing.assert_close(weight.detach(), torch.tensor([[7.0], [1.0]]) * 5 / 50**0.5)
    optimizer.restore()
    weight.grad = torch.tensor([[3.0], [4.0]])
    optimizer.perturb()
    weight.grad = torch.tensor([[4.0], [3.0]])
    assert float(optimizer.restore_and_compare()) == pytest.approx(0.96)
    assert torch.equal(big, torch.zeros(2, 3))


def test_an_expanded_parameter_is_refused_before_anything_is_written():
    other, expanded = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(1, 4).expand(3000, 4))
    optimizer = SAM([other, expanded], torch.optim.SGD, lr=0.1)
    other.grad, expanded.grad = torch.ones(2), torch.ones(3000, 4)
    with pytest.raises(RuntimeError, match="the entries of a parameter share memory"):
        optimizer.first_step()
    assert not optimizer.is_perturbed
    assert torch.equal(other.detach(), torch.ones(2)) and not expanded.any()
    assert torch.equal(other.grad, torch.ones(2))


@pytest.mark.parametrize(
    ("size", "stride", "dense", "overlaps"),
    [
        ((2, 3), (3, 1), True, False),
        ((2, 3), (1, 2), True, False),
        ((2, 3), (4, 1), False, False),
        ((2, 3), (2, 1), False, True),
        ((2, 3), (0, 1), False, True),
        ((1, 3), (0, 1), True, False),
        ((3,), (2,), False, False),
        ((), (), True, False),
        ((0, 3), (0, 0), True, False),
    ],
)
def test_dense_and_overlapping_are_told_from_sizes_and_strides(size, stride, dense, overlaps):
    tensor = torch.as_strided(torch.zeros(20), size, stride)
    assert (is_dense(tensor), any_overlaps([tensor])) == (dense, overlaps)
    addresses = (torch.as_strided(torch.arange(20), size, stride)).flatten().tolist()
    assert overlaps == (len(set(addresses)) < len(addresses))


# What autograd is told


@pytest.mark.parametrize("arguments", [*BALLS.values(), {"random_direction": True}])
@pytest.mark.parametrize("strided", [False, True])
def test_backward_through_the_graph_of_other_weights_is_refused_by_torch(arguments, strided):
    def make():
        weight = nn.Parameter(torch.randn(3, 4)[:, :2] if strided else torch.randn(3, 2))
        optimizer = SAM([weight], torch.optim.SGD, rho=0.5, lr=0.1, **arguments)
        loss = (weight**3).sum()
        loss.backward(retain_graph=True)
        optimizer.first_step()
        return weight, optimizer, loss

    changed = "modified by an inplace operation"
    weight, optimizer, loss = make()
    with pytest.raises(RuntimeError, match=changed):
        loss.backward()
    for way_back in ("restore", "restore_and_compare", "second_step"):
        weight, optimizer, _ = make()
        loss = (weight**3).sum()
        loss.backward(retain_graph=True)
        getattr(optimizer, way_back)()
        with pytest.raises(RuntimeError, match=changed):
            loss.backward()


def test_climb_too_is_told_to_autograd():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
    weight.sum().backward()
    optimizer.first_step()
    loss = (weight**3).sum()
    loss.backward(retain_graph=True)
    optimizer.climb()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_inference_tensors_are_moved_and_come_back():
    with torch.inference_mode():
        weight = torch.ones(2)
        weight.grad = torch.tensor([3.0, 4.0])
        optimizer = SAM([weight], torch.optim.SGD, rho=5.0, lr=0.1)
        optimizer.perturb()
        assert weight.tolist() == [4.0, 5.0]
        optimizer.restore()
    assert weight.tolist() == [1.0, 1.0]


# A change of the weights in between


def one_update(optimizer, weight):
    for step in (optimizer.first_step, optimizer.second_step):
        weight.grad = torch.ones_like(weight)
        step()


CHANGES = {
    "float after bfloat16": (torch.bfloat16, lambda model: model.float()),
    "double after float": (torch.float32, lambda model: model.double()),
    "half after float": (torch.float32, lambda model: model.half()),
    "channels last": (torch.float32, lambda model: model.to(memory_format=torch.channels_last)),
    "shape": (torch.float32, lambda model: setattr(model.weight, "data", model.weight.data[:, :1])),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_weights_that_changed_after_an_update_come_back_to_the_bit(change):
    dtype, apply = change
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3, bias=False).to(dtype)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.0)
    one_update(optimizer, model.weight)
    apply(model)
    with torch.no_grad():
        model.weight.add_(0.001)  # 1.001 is 1.0 in bfloat16
    before = model.weight.detach().clone()
    one_update(optimizer, model.weight)
    assert torch.equal(model.weight, before)
    (saved,) = optimizer._saved.last
    assert (saved.dtype, saved.shape) == (model.weight.dtype, model.weight.shape)
    one_update(optimizer, model.weight)
    assert optimizer._saved.last[0] is saved, "and it is kept from then on"


def test_a_cast_between_the_passes_brings_back_the_weights_of_before():
    weight = nn.Parameter(torch.tensor([1.001, 2.002]).bfloat16())
    optimizer = SAM([weight], torch.optim.SGD, rho=0.5, lr=0.0)
    before = weight.detach().float()
    weight.grad = torch.ones_like(weight)
    optimizer.first_step()
    weight.data = weight.data.float()
    weight.grad = torch.ones_like(weight)
    optimizer.climb()
    assert float((weight.detach() - before).norm()) == pytest.approx(0.5, rel=1e-2)
    optimizer.second_step()
    assert torch.equal(weight, before)


# Gradients of another dtype, and weights without entries


@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float64),
        (torch.float16, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("strided", [False, True])
def test_gradients_of_another_dtype_move_the_weights_as_sgd_of_torch_does(dtypes, strided):
    dtype, grad_dtype = dtypes
    torch.manual_seed(0)
    weight = nn.Parameter(
        torch.randn(50, 2, dtype=dtype)[:, :1] if strided else torch.randn(50, 1, dtype=dtype)
    )
    weight.grad_dtype = grad_dtype
    grad = torch.randn(50, 1).to(grad_dtype)
    norm = float(grad.double().norm())
    twin = nn.Parameter(weight.detach().clone())
    twin.grad_dtype = grad_dtype
    twin.grad = grad.clone()
    torch.optim.SGD([twin], lr=0.5 / norm, maximize=True).step()
    weight.grad = grad.clone()
    optimizer = SAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
    optimizer.perturb()
    # The step itself is a float32, and not a float64 as in torch's loop.
    torch.testing.assert_close(weight.detach(), twin.detach(), rtol=1e-6, atol=1e-7)
    weight.grad = grad.clone()
    optimizer.climb(0.5)
    optimizer.restore_and_compare()


@pytest.mark.parametrize("arguments", [*BALLS.values(), {"random_direction": True}])
def test_a_parameter_without_entries_counts_as_nothing(arguments):
    model, *_ = make_problem()
    twin = copy.deepcopy(model)
    grads = [torch.randn_like(weight) for weight in model.parameters()]
    empty = nn.Parameter(torch.zeros(0, 3, dtype=torch.float64))
    for weights in ([empty, *model.parameters()], [*twin.parameters()]):
        optimizer = SAM(weights, torch.optim.SGD, rho=0.5, lr=0.1, **arguments)
        for weight, grad in zip(weights[-len(grads) :], grads):
            weight.grad = grad.clone()
        empty.grad = torch.zeros(0, 3, dtype=torch.float64)
        torch.manual_seed(0)
        optimizer.perturb()
    for weight, other in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(weight, other, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("arguments", [*BALLS.values(), {"random_direction": True}])
def test_only_parameters_without_entries_give_a_zero_gradient(arguments):
    empty = nn.Parameter(torch.zeros(0, 3))
    optimizer = SAM([empty], torch.optim.SGD, rho=0.5, lr=0.1, **arguments)
    empty.grad = torch.zeros(0, 3)
    assert float(optimizer.perturb()) == 0
    optimizer.second_step()
    assert reference.norm([empty.detach()]) == 0
    assert optimizer.num_not_finite == 0
