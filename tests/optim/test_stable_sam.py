"""Stable SAM as an optimizer."""

import io

import pytest
import torch

from sam.optim import StableSAM
from tests.optim.test_sam import SGD, functional_loss, loss_of, make_problem, two_passes, weights_of
from tests.reference import sam as reference
from tests.reference.stable_sam import stable_sam_gradient

RHO = 0.4


def make(model, **arguments):
    return StableSAM(model.parameters(), torch.optim.SGD, rho=RHO, **{**SGD, **arguments})


def in_context(optimizer, model, *batch):
    loss_of(model, *batch).backward()
    with optimizer.perturbed_weights():
        (1024 * loss_of(model, *batch)).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("update", [two_passes, in_context])
def test_both_forms_of_the_loop_equal_the_definition(update, adaptive):
    model, *batch = make_problem()
    optimizer = make(model, adaptive=adaptive)
    expected, base = weights_of(model), reference.Sgd(**SGD)
    loss = functional_loss(model, *batch)
    for _ in range(10):
        update(optimizer, model, *batch)
        expected = base.step(expected, stable_sam_gradient(loss, expected, RHO, adaptive))
        for weight, target in zip(model.parameters(), expected):
            torch.testing.assert_close(weight.detach(), target, rtol=1e-11, atol=1e-12)


def test_closure_is_called_twice_and_weights_that_are_not_perturbed_are_scaled_too():
    model, *batch = make_problem()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "perturbed": False}]
    optimizer = StableSAM(groups, torch.optim.SGD, rho=RHO, lr=0.1)
    before = weights_of(model)
    loss = functional_loss(model, *batch)

    def closure():
        value = loss_of(model, *batch)
        value.backward()
        return value

    optimizer.step(closure)
    g = reference.gradient(loss, before)
    length = reference.norm(g[:2])
    moves = [RHO * part / length for part in g[:2]] + [0 * part for part in g[2:]]
    h = reference.gradient(loss, reference.moved(before, moves))
    for weight, old, part in zip(model.parameters(), before, h):
        step = 0.1 * part * reference.norm(g) / reference.norm(h)
        torch.testing.assert_close(weight.detach(), old - step, rtol=1e-11, atol=1e-12)


def test_a_run_that_stopped_between_the_passes_goes_on_to_the_same_bits():
    (model, *batch), (fresh, *_) = make_problem(), make_problem(seed=7)
    optimizer, other = make(model), make(fresh)
    two_passes(optimizer, model, *batch)
    loss_of(model, *batch).backward()
    optimizer.first_step()
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    fresh.load_state_dict(states[0])
    other.load_state_dict(states[1])
    for one, net in ((optimizer, model), (other, fresh)):
        loss_of(net, *batch).backward()
        one.second_step()
        two_passes(one, net, *batch)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters()))


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_gradient_at_w_that_is_zero_or_not_finite(value):
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = StableSAM([weight], torch.optim.SGD, rho=RHO, lr=1.0)
    weight.grad = torch.full((2,), value)
    optimizer.first_step()
    weight.grad = torch.tensor([1.0, 2.0])
    optimizer.second_step()
    # A zero gradient has length zero; without a finite length, the second gradient is left as it is.
    expected = [3.0, 4.0] if value == 0 else [2.0, 2.0]
    assert weight.tolist() == expected


def test_second_gradient_of_zero_is_left():
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = StableSAM([weight], torch.optim.SGD, rho=RHO, lr=1.0)
    weight.grad = torch.tensor([1.0, 2.0])
    optimizer.first_step()
    weight.grad = torch.zeros(2)
    optimizer.second_step()
    assert weight.tolist() == [3.0, 4.0]


def test_sparse_gradients_and_a_missing_pass_are_refused():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = StableSAM(embedding.parameters(), torch.optim.SGD, rho=RHO, lr=0.1)
    with pytest.raises(RuntimeError, match=r"call backward\(\) before the first step"):
        optimizer.first_step()
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="StableSAM needs the norm of dense gradients"):
        optimizer.first_step()


def test_a_second_gradient_that_is_not_finite_is_left_as_it_is():
    model, *batch = make_problem()
    optimizer = make(model)
    loss_of(model, *batch).backward()
    optimizer.first_step()
    loss_of(model, *batch).backward()
    model[0].bias.grad[0] = torch.inf
    before = [weight.grad.clone() for weight in model.parameters()]
    optimizer.restore()
    assert all(torch.equal(weight.grad, old) for weight, old in zip(model.parameters(), before))
