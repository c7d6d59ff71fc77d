import copy

import pytest
import torch
from torch import nn

from sam.optim import SAM
from tests.devices import BOUNDS_ON_GPU, DEVICES
from tests.reference import sam as reference

SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}


def make_problem(seed=0):
    """A small net with a kink-free loss in float64, and some data."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    return model, torch.randn(16, 5, dtype=torch.float64), torch.randint(0, 3, (16,))


def loss_of(model, inputs, targets):
    return nn.functional.cross_entropy(model(inputs), targets)


def functional_loss(model, inputs, targets):
    """The same loss as a function of a list of weights."""
    names = [name for name, _ in model.named_parameters()]

    def loss(weights):
        logits = torch.func.functional_call(model, dict(zip(names, weights)), (inputs,))
        return nn.functional.cross_entropy(logits, targets)

    return loss


def two_passes(optimizer, model, inputs, targets):
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    loss_of(model, inputs, targets).backward()
    optimizer.second_step()


def weights_of(model):
    return [weight.detach().clone() for weight in model.parameters()]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_equals_algorithm_1_over_20_steps(adaptive, device):
    model, inputs, targets = (part.to(device) for part in make_problem())
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, adaptive=adaptive, **SGD)
    expected, base = weights_of(model), reference.Sgd(**SGD)
    loss = functional_loss(model, inputs, targets)
    for _ in range(20):
        two_passes(optimizer, model, inputs, targets)
        expected = base.step(expected, reference.sam_gradient(loss, expected, 0.3, adaptive))
    # float64 round-off, grown over 20 steps of a smooth map
    bounds = {"rtol": 1e-11, "atol": 1e-12} if device == "cpu" else BOUNDS_ON_GPU
    for weight, target in zip(weights_of(model), expected):
        torch.testing.assert_close(weight, target, **bounds)


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_sam_with_rho_zero_equals_base_optimizer_to_the_bit(base):
    arguments = SGD if base is torch.optim.SGD else {"lr": 0.01, "weight_decay": 1e-2}
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    optimizer = SAM(model.parameters(), base, rho=0.0, **arguments)
    plain = base(twin.parameters(), **arguments)
    for _ in range(5):
        two_passes(optimizer, model, inputs, targets)
        plain.zero_grad()
        loss_of(twin, inputs, targets).backward()
        plain.step()
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(twin)))


def test_perturb_moves_by_rho_and_restore_brings_back_the_same_bits_in_the_same_place():
    model, inputs, targets = make_problem()
    model.float()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    before, places = weights_of(model), [weight.data_ptr() for weight in model.parameters()]
    loss_of(model, inputs.float(), targets).backward()
    grads = [weight.grad.clone() for weight in model.parameters()]
    norm = optimizer.perturb()
    assert float(norm) == pytest.approx(reference.norm(grads), rel=1e-6)
    moved = reference.norm([new - old for new, old in zip(weights_of(model), before)])
    assert moved == pytest.approx(0.5, rel=1e-5)
    assert all(torch.equal(weight.grad, grad) for weight, grad in zip(model.parameters(), grads))
    optimizer.restore()
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))
    assert places == [weight.data_ptr() for weight in model.parameters()]


def test_restore_and_compare_returns_the_cosine_of_the_two_gradients():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    before = weights_of(model)
    loss = functional_loss(model, inputs, targets)
    first = torch.cat([g.flatten() for g in reference.gradient(loss, before)])
    second = torch.cat([g.flatten() for g in reference.sam_gradient(loss, before, 0.5)])
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    loss_of(model, inputs, targets).backward()
    cosine = optimizer.restore_and_compare()
    expected = nn.functional.cosine_similarity(first, second, dim=0)
    assert float(expected) < 0.999, "the two gradients should differ visibly"
    torch.testing.assert_close(cosine, expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))


def test_restore_and_compare_is_right_for_a_tiny_rho_in_float32():
    # eps is 1e-4 of the gradient here; a difference of squared lengths would lose the cosine.
    model, inputs, targets = make_problem()
    model.float()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=1e-4, lr=0.1)
    loss_of(model, inputs.float(), targets).backward()
    optimizer.first_step()
    loss_of(model, inputs.float(), targets).backward()
    assert float(optimizer.restore_and_compare()) == pytest.approx(1, abs=2e-3)


def test_restore_and_compare_takes_a_missing_gradient_for_zero():
    one, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = SAM([one, other], torch.optim.SGD, rho=0.5, lr=0.1)
    (3 * one + 4 * other).sum().backward()
    optimizer.first_step()
    (2 * one).sum().backward()
    assert float(optimizer.restore_and_compare()) == pytest.approx(0.6)
    assert torch.equal(other.detach(), torch.ones(1))


def test_groups_have_their_own_rho_under_one_joint_norm():
    model, inputs, targets = make_problem()
    first, second = model[0], model[2]
    groups = [{"params": first.parameters(), "rho": 0.0}, {"params": second.parameters()}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.4, lr=0.1)
    before = weights_of(model)
    grads = reference.gradient(functional_loss(model, inputs, targets), before)
    loss_of(model, inputs, targets).backward()
    optimizer.perturb()
    joint = reference.norm(grads)
    for weight, old, grad, rho in zip(weights_of(model), before, grads, [0.0, 0.0, 0.4, 0.4]):
        torch.testing.assert_close(weight, old + rho * grad / joint, rtol=1e-12, atol=1e-13)


def test_parameters_without_a_gradient_are_not_perturbed():
    model, inputs, targets = make_problem()
    model[0].weight.requires_grad_(False)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.4, lr=0.1)
    before = model[0].weight.clone()
    loss_of(model, inputs, targets).backward()
    optimizer.perturb()
    assert torch.equal(model[0].weight, before)


def test_zero_gradient_gives_the_base_step():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM([weight], torch.optim.SGD, rho=0.1, lr=0.5, weight_decay=1.0)
    for step in (optimizer.first_step, optimizer.second_step):
        (weight * 0).sum().backward()
        step()
    assert torch.equal(weight.detach(), torch.full((3,), 0.5))


def test_gradient_that_is_not_finite_perturbs_nothing():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM([weight], torch.optim.SGD, rho=0.1, lr=0.5)
    weight.grad = torch.tensor([1.0, torch.nan, 2.0])
    norm = optimizer.perturb()
    assert torch.equal(weight.detach(), torch.ones(3))
    assert not torch.isfinite(norm)


def test_learning_rate_schedulers_act_on_the_base_optimizer():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, inputs, targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    scheduler.step()
    assert optimizer.base_optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize("first_pass_done", [True, False])
def test_step_with_a_closure_equals_the_two_steps(first_pass_done):
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    twin_optimizer = SAM(twin.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    calls = []

    def closure():
        loss = loss_of(model, inputs, targets)
        loss.backward()
        calls.append(loss.item())
        return loss

    for _ in range(3):
        if first_pass_done:
            loss_of(model, inputs, targets).backward()
        calls.clear()
        assert optimizer.step(closure, first_pass_done=first_pass_done).item() == calls[-1]
        assert len(calls) == (1 if first_pass_done else 2)
        two_passes(twin_optimizer, twin, inputs, targets)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(twin)))


def test_step_leaves_the_weights_alone_when_the_closure_fails():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    loss_of(model, inputs, targets).backward()
    before = weights_of(model)

    def closure():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure)
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))
    two_passes(optimizer, model, inputs, targets)  # and it can go on


def test_state_dict_carries_the_buffers_of_the_base_optimizer():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    two_passes(optimizer, model, inputs, targets)
    twin = copy.deepcopy(model)
    loaded = SAM(twin.parameters(), torch.optim.SGD, rho=0.9, **SGD)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert loaded.param_groups[0]["rho"] == 0.3
    for _ in range(3):
        two_passes(optimizer, model, inputs, targets)
        two_passes(loaded, twin, inputs, targets)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(twin)))


def test_add_param_group_takes_part_in_both_steps():
    model, inputs, targets = make_problem()
    optimizer = SAM(model[2].parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.01})
    assert optimizer.param_groups[1]["rho"] == 0.3
    before = weights_of(model)
    two_passes(optimizer, model, inputs, targets)
    expected = reference.sam_gradient(functional_loss(model, inputs, targets), before, 0.3)
    for weight, old, grad, lr in zip(weights_of(model), before, expected, [0.01, 0.01, 0.1, 0.1]):
        torch.testing.assert_close(weight, old - lr * grad, rtol=1e-12, atol=1e-13)


def test_one_copy_of_the_parameters_is_kept_and_allocated_once():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    two_passes(optimizer, model, inputs, targets)
    places = [saved.data_ptr() for saved in optimizer._saved.last]
    two_passes(optimizer, model, inputs, targets)
    assert places == [saved.data_ptr() for saved in optimizer._saved.last]
    assert [saved.shape for saved in optimizer._saved.last] == [w.shape for w in model.parameters()]


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_rho_out_of_range_is_refused(rho):
    with pytest.raises(ValueError, match="rho must be finite and >= 0, got"):
        SAM([nn.Parameter(torch.ones(1))], torch.optim.SGD, rho=rho, lr=0.1)


def test_steps_in_the_wrong_order_are_refused():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    with pytest.raises(RuntimeError, match="call first_step\\(\\) or perturb\\(\\) first"):
        optimizer.second_step()
    with pytest.raises(RuntimeError, match="call first_step\\(\\) or perturb\\(\\) first"):
        optimizer.restore_and_compare()
    with pytest.raises(RuntimeError, match="call backward\\(\\) before the first step"):
        optimizer.first_step()
    with pytest.raises(ValueError, match="call step\\(closure\\), or first_step\\(\\) and second_step\\(\\)"):
        optimizer.step()
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    with pytest.raises(
        RuntimeError, match="already perturbed; call second_step\\(\\) or restore\\(\\) first"
    ):
        optimizer.perturb()
