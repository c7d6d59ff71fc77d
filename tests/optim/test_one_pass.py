"""MSAM and S2-SAM as optimizers, with one pass per update."""

import copy
import io

import pytest
import torch

from sam.optim import FSAM, LESAM, MSAM, S2SAM, VaSSO
from tests.optim.test_sam import SGD, functional_loss, loss_of, make_problem, weights_of
from tests.reference import one_pass
from tests.reference.sam import gradient, norm

RHO = 0.4
ORACLES = {MSAM: one_pass.MSAM, S2SAM: one_pass.S2SAM}
KINDS = pytest.mark.parametrize("kind", ORACLES)


def make(kind, model, base=torch.optim.SGD, **arguments):
    return kind(model.parameters(), base, rho=RHO, **(arguments or SGD))


def in_context(optimizer, model, *batch):
    with optimizer.perturbed_weights():
        loss_of(model, *batch).backward()
    optimizer.step()
    optimizer.zero_grad()


def in_two_steps(optimizer, model, *batch):
    optimizer.first_step()
    loss_of(model, *batch).backward()
    optimizer.second_step()


def with_closure(optimizer, model, *batch):
    calls = []

    def closure():
        calls.append(weights_of(model))
        loss = loss_of(model, *batch)
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    assert len(calls) == 1


@pytest.mark.parametrize("update", [in_context, in_two_steps, with_closure])
@KINDS
def test_every_form_of_the_loop_equals_the_definition(kind, update):
    model, *batch = make_problem()
    optimizer = make(kind, model)
    oracle = ORACLES[kind](weights_of(model), RHO, nesterov=True, decay=SGD["weight_decay"])
    for _ in range(10):
        update(optimizer, model, *batch)
        oracle.update([functional_loss(model, *batch)], lr=SGD["lr"])
        for weight, target in zip(model.parameters(), oracle.weights):
            torch.testing.assert_close(weight.detach(), target, rtol=1e-11, atol=1e-12)
            assert weight.grad is None


@pytest.mark.parametrize(
    ("base", "buffer", "arguments"),
    [
        (torch.optim.RMSprop, "momentum_buffer", {"lr": 0.01, "momentum": 0.9}),
        (torch.optim.AdamW, "exp_avg", {"lr": 0.01}),
        (torch.optim.NAdam, "exp_avg", {"lr": 0.01}),
    ],
)
def test_msam_moves_against_the_momentum_of_other_base_optimizers(base, buffer, arguments):
    model, *batch = make_problem()
    optimizer = make(MSAM, model, base, **arguments)
    for _ in range(2):
        in_context(optimizer, model, *batch)
    before = weights_of(model)
    momentum = [optimizer.state[weight][buffer].clone() for weight in model.parameters()]
    optimizer.first_step()
    for weight, old, part in zip(model.parameters(), before, momentum):
        torch.testing.assert_close(weight.detach(), old - RHO * part / norm(momentum))


@KINDS
def test_groups_have_their_own_rho_and_some_are_not_perturbed(kind):
    model, *batch = make_problem()
    first, second = model[0], model[2]
    groups = [
        {"params": first.weight, "rho": 0.1},
        {"params": [first.bias, second.weight], "rho": 0.7},
        {"params": second.bias, "perturbed": False},
    ]
    optimizer = kind(groups, torch.optim.SGD, rho=RHO, lr=0.1, momentum=0.9)
    before = weights_of(model)
    in_context(optimizer, model, *batch)
    # After one step from zero, momentum and the gradient before are the same.
    grads = gradient(functional_loss(model, *batch), before)
    length = norm(grads[:3])
    sign = -1 if kind is MSAM else 1
    after = weights_of(model)
    with optimizer.perturbed_weights():
        for weight, old, grad, rho in zip(model.parameters(), after, grads, (0.1, 0.7, 0.7, 0.0)):
            torch.testing.assert_close(weight.detach(), old + sign * rho * grad / length)


@pytest.mark.parametrize("stops_inside", [False, True])
@KINDS
def test_a_run_that_is_saved_and_loaded_goes_on_to_the_same_bits(kind, stops_inside):
    model, *batch = make_problem()
    fresh, *_ = make_problem(seed=7)
    optimizer, other = make(kind, model), make(kind, fresh)
    for _ in range(3):
        in_context(optimizer, model, *batch)
    if stops_inside:
        optimizer.first_step()
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    fresh.load_state_dict(states[0])
    other.load_state_dict(states[1])
    for one, net in ((optimizer, model), (other, fresh)):
        if stops_inside:
            loss_of(net, *batch).backward()
            one.second_step()
        for _ in range(3):
            in_context(one, net, *batch)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters()))


@KINDS
def test_maximising_minus_f_is_minimising_f(kind):
    (model, *batch), (twin, *_) = make_problem(), make_problem()
    for net, arguments, sign in ((model, {}, 1), (twin, {"maximize": True}, -1)):
        optimizer = make(kind, net, **SGD, **arguments)
        for _ in range(4):
            with optimizer.perturbed_weights():
                (sign * loss_of(net, *batch)).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))


@KINDS
def test_weights_return_and_gradients_are_cleared_after_an_error(kind):
    model, *batch = make_problem()
    optimizer = make(kind, model)
    in_context(optimizer, model, *batch)
    before = weights_of(model)
    with pytest.raises(ZeroDivisionError), optimizer.perturbed_weights():
        loss_of(model, *batch).backward()
        raise ZeroDivisionError
    assert all(torch.equal(old, weight) for old, weight in zip(before, model.parameters()))
    assert all(weight.grad is None for weight in model.parameters())


@KINDS
def test_steps_out_of_order_are_refused(kind):
    model, *batch = make_problem()
    optimizer = make(kind, model)
    with pytest.raises(ValueError, match=r"computes the gradient at w \+ eps: call step\(closure\)"):
        optimizer.step()
    with pytest.raises(ValueError, match=r"leave out first_pass_done"):
        optimizer.step(lambda: None, first_pass_done=True)
    with pytest.raises(ValueError, match=r"has at most one ascent step"):
        optimizer.climb()
    with pytest.raises(RuntimeError, match=r"not perturbed"):
        optimizer.second_step()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match=r"already perturbed"):
        optimizer.first_step()


@KINDS
def test_what_has_no_meaning_is_refused(kind):
    model, *_ = make_problem()
    with pytest.raises(ValueError, match=r"is not adaptive"):
        kind(
            [{"params": model.parameters(), "adaptive": True}], torch.optim.SGD, rho=RHO, lr=0.1, momentum=0.9
        )
    expanded = torch.nn.Parameter(torch.zeros(1, 4).expand(3, 4))
    with pytest.raises(RuntimeError, match=r"share memory"):
        kind([expanded], torch.optim.SGD, rho=RHO, **SGD).first_step()
    model.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"no parameter of a perturbed group requires a gradient"):
        make(kind, model).first_step()


@pytest.mark.parametrize(
    ("base", "arguments"),
    [
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.AdamW, {"betas": (0.0, 0.9)}),
        (torch.optim.Adagrad, {"lr": 0.1}),
    ],
)
def test_msam_refuses_a_base_optimizer_without_momentum(base, arguments):
    model, *_ = make_problem()
    with pytest.raises(
        ValueError, match=rf"^MSAM perturbs along the momentum .* and {base.__name__} has none"
    ):
        make(MSAM, model, base, **arguments)


def test_msam_refuses_a_group_without_momentum_and_does_not_add_it():
    model, *_ = make_problem()
    optimizer = MSAM(model[0].parameters(), torch.optim.SGD, rho=RHO, **SGD)
    with pytest.raises(ValueError, match=r"has none in a group"):
        optimizer.add_param_group({"params": model[2].parameters(), "momentum": 0.0, "nesterov": False})
    assert len(optimizer.param_groups) == 1


class Nameless(torch.optim.SGD):
    """SGD whose state has other names."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["velocity"] = state.pop("momentum_buffer")


def test_msam_refuses_a_base_optimizer_whose_buffer_it_does_not_know():
    model, *batch = make_problem()
    optimizer = make(MSAM, model, Nameless)
    in_context(optimizer, model, *batch)
    with pytest.raises(RuntimeError, match=r"finds no momentum buffer \(momentum_buffer or exp_avg\)"):
        optimizer.first_step()


def test_s2_sam_keeps_the_gradient_before_it_is_clipped_and_without_the_base_optimizers_decay():
    model, *batch = make_problem()
    optimizer = make(S2SAM, model, torch.optim.AdamW, lr=0.01, weight_decay=0.5)
    expected = gradient(functional_loss(model, *batch), weights_of(model))
    with optimizer.perturbed_weights():
        loss_of(model, *batch).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimizer.step()
    before = weights_of(model)
    optimizer.first_step()
    for weight, old, grad in zip(model.parameters(), before, expected):
        torch.testing.assert_close(weight.detach(), old + RHO * grad / norm(expected))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_s2_sam_does_not_keep_a_gradient_that_is_not_finite(value):
    (model, *batch), (twin, *_) = make_problem(), make_problem()
    pairs = [(model, make(S2SAM, model)), (twin, make(S2SAM, twin))]
    for net, optimizer in pairs:
        in_context(optimizer, net, *batch)
    with pairs[0][1].perturbed_weights():
        loss_of(model, *batch).backward()
        model[0].weight.grad[0, 0] = value
    pairs[0][1].zero_grad()  # no step
    for net, optimizer in pairs:
        in_context(optimizer, net, *batch)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))


def test_s2_sam_without_any_gradient_keeps_the_earlier_one_and_moves_after_a_cast():
    model, *batch = make_problem()
    optimizer = make(S2SAM, model)
    in_context(optimizer, model, *batch)
    with optimizer.perturbed_weights():
        pass
    optimizer.zero_grad()
    model.float()
    before = weights_of(model)
    length = norm([new - old for new, old in zip(perturbed(optimizer, model), before)])
    assert length == pytest.approx(RHO, rel=1e-4)  # float32
    assert all(torch.equal(old, weight) for old, weight in zip(before, model.parameters()))


def perturbed(optimizer, model):
    with optimizer.perturbed_weights():
        return weights_of(model)


def test_s2_sam_refuses_sparse_gradients():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = S2SAM(embedding.parameters(), torch.optim.SGD, rho=RHO, lr=0.1)
    with pytest.raises(TypeError, match="dense gradients"), optimizer.perturbed_weights():
        embedding(torch.tensor([1])).sum().backward()
    assert not optimizer.is_perturbed


@KINDS
def test_a_closure_without_gradients_after_the_context_steps_with_the_pass_of_the_context(kind):
    model, *batch = make_problem()
    twin = copy.deepcopy(model)
    optimizer, twin_optimizer = make(kind, model), make(kind, twin)
    for _ in range(3):
        in_context(twin_optimizer, twin, *batch)
        with optimizer.perturbed_weights():
            loss_of(model, *batch).backward()
        optimizer.step(lambda: None)  # as Lightning calls it with manual optimization
        assert model[0].weight.grad is not None
        assert all(map(torch.equal, model.parameters(), twin.parameters()))
    with_closure(optimizer, model, *batch)  # not cleared, but a pass: it takes the place of the old gradients
    with_closure(twin_optimizer, twin, *batch)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_a_step_that_fails_leaves_the_weights_at_w():
    layer = torch.nn.Embedding(5, 2, sparse=True)
    with torch.no_grad():
        before = layer.weight.clone()
    optimizer = S2SAM(layer.parameters(), torch.optim.SGD, rho=RHO, lr=0.1)
    optimizer.first_step()
    layer(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="sparse"):
        optimizer.second_step()
    assert not optimizer.is_perturbed and torch.equal(layer.weight, before)


@pytest.mark.parametrize("kind", [MSAM, S2SAM, LESAM, FSAM, VaSSO])
def test_an_argument_of_sam_that_the_variant_does_not_have_is_refused(kind):
    arguments = {"random_direction": True} if kind in (FSAM, VaSSO) else {"random_direction": True, "p": 3.0}
    model, *_ = make_problem()
    for name, value in arguments.items():
        with pytest.raises(TypeError, match=name):
            make(kind, model, **SGD, **{name: value})
