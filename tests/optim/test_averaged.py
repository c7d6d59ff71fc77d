"""F-SAM and VaSSO as optimizers: the running average in eps, what it takes in, and how it is saved."""

import copy
from functools import partial

import pytest
import torch

from sam.optim import FSAM, SAM, VaSSO
from tests.optim.test_sam import SGD, functional_loss, loss_of, make_problem, two_passes, weights_of
from tests.optim.test_sam_cost import NothingWaits, top_level_calls
from tests.reference import averaged
from tests.reference import sam as reference

KINDS = {"F-SAM": (FSAM, {"sigma": 0.7, "decay": 0.8}), "VaSSO": (VaSSO, {"theta": 0.3})}
each_kind = pytest.mark.parametrize(("kind", "settings"), KINDS.values(), ids=KINDS)


def batches(inputs, targets):
    """Yield parts of the data, each other batches than the one before."""
    while True:
        yield from zip(inputs.split(4), targets.split(4))


def eps_of(optimizer, model, inputs, targets):
    """Make an update of size 0; return eps as one vector."""
    before = torch.cat([weight.flatten() for weight in weights_of(model)])
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    after = torch.cat([weight.flatten() for weight in weights_of(model)])
    optimizer.restore()
    return after - before


@pytest.mark.parametrize("ball", [{}, {"adaptive": True}, {"p": 3.0}], ids=["2", "adaptive", "p"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [*KINDS.values(), (FSAM, {"sigma": 1.0, "decay": 0.6})],
    ids=[*KINDS, "F-SAM with sigma 1"],
)
def test_variant_equals_its_definition_over_20_batches(kind, settings, ball):
    model, inputs, targets = make_problem()
    optimizer = kind(model.parameters(), torch.optim.SGD, rho=0.3, **settings, **ball, **SGD)
    oracle = getattr(averaged, kind.__name__)(0.3, **settings, **ball)
    expected, base = weights_of(model), reference.Sgd(**SGD)
    for _, batch in zip(range(20), batches(inputs, targets)):
        two_passes(optimizer, model, *batch)
        loss = functional_loss(model, *batch)
        expected = base.step(expected, oracle.gradient([(loss, loss)], expected))
    # float64 round-off, grown over 20 steps of a smooth map
    for weight, target in zip(weights_of(model), expected):
        torch.testing.assert_close(weight, target, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("kind", "settings"), [(FSAM, {"sigma": 0.0}), (VaSSO, {"theta": 1.0})])
def test_variant_without_memory_is_sam_to_the_bit(kind, settings):
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    optimizer = kind(model.parameters(), torch.optim.SGD, rho=0.3, **settings, **SGD)
    sam = SAM(twin.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    for _, batch in zip(range(6), batches(inputs, targets)):
        two_passes(optimizer, model, *batch)
        two_passes(sam, twin, *batch)
    assert all(torch.equal(one, other) for one, other in zip(weights_of(model), weights_of(twin)))


def test_with_sigma_one_f_sam_has_the_direction_that_the_paper_writes_with_the_new_average():
    model, inputs, targets = make_problem()
    optimizer = FSAM(model.parameters(), torch.optim.SGD, rho=0.3, sigma=1.0, decay=0.6, lr=0.1)
    m = None
    for _, batch in zip(range(4), batches(inputs, targets)):
        loss = functional_loss(model, *batch)
        g = torch.cat([part.flatten() for part in reference.gradient(loss, weights_of(model))])
        first = m is None
        m = g if first else 0.6 * m + 0.4 * g
        d = g if first else g - m
        expected = 0.3 * d / d.norm()
        torch.testing.assert_close(eps_of(optimizer, model, *batch), expected, rtol=1e-9, atol=1e-12)


@each_kind
def test_gradient_that_is_not_finite_never_enters_the_average(kind, settings):
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    optimizers = [
        kind(net.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, **settings) for net in (model, twin)
    ]
    for net, optimizer in zip((model, twin), optimizers):
        two_passes(optimizer, net, inputs, targets)
    before = weights_of(model)
    for bad in (torch.nan, torch.inf):
        loss_of(model, inputs, targets).backward()
        model[0].bias.grad[0] = bad
        optimizers[0].first_step()
        assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before)), "eps is zero"
        optimizers[0].restore()
        optimizers[0].zero_grad()
    assert optimizers[0].num_not_finite == 2
    for net, optimizer in zip((model, twin), optimizers):
        two_passes(optimizer, net, inputs, targets)
    assert all(torch.equal(one, other) for one, other in zip(weights_of(model), weights_of(twin)))


@each_kind
def test_average_begins_when_the_first_gradient_was_not_finite(kind, settings):
    model, inputs, targets = make_problem()
    optimizer = kind(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, **settings)
    loss_of(model, inputs, targets).backward()
    model[0].bias.grad[0] = torch.nan
    optimizer.first_step()
    optimizer.restore()
    optimizer.zero_grad()
    loss = functional_loss(model, inputs, targets)
    g = torch.cat([part.flatten() for part in reference.gradient(loss, weights_of(model))])
    eps = eps_of(optimizer, model, inputs, targets)
    torch.testing.assert_close(eps, 0.3 * g / g.norm(), rtol=1e-9, atol=1e-12)
    assert bool(eps_of(optimizer, model, inputs[:4], targets[:4]).isfinite().all())


def test_direction_zero_does_not_move():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = FSAM([weight], torch.optim.SGD, rho=0.3, sigma=1.0, lr=0.0)
    for number in range(3):
        weight.grad = torch.ones(3)
        optimizer.first_step()
        assert torch.equal(weight.detach(), torch.ones(3)) == (number > 0), "m = g since the first update"
        optimizer.restore()
    assert optimizer.num_not_finite == 0


@each_kind
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_average_is_saved_and_continues_to_the_same_bits(kind, settings, base, tmp_path):
    def continued(model, optimizer):
        for _, batch in zip(range(3), batches(inputs[8:], targets[8:])):
            two_passes(optimizer, model, *batch)
        return weights_of(model)

    model, inputs, targets = make_problem()
    optimizer = kind(model.parameters(), base, rho=0.3, lr=0.01, **settings)
    for _, batch in zip(range(3), batches(inputs, targets)):
        two_passes(optimizer, model, *batch)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    copied_model, copied = copy.deepcopy((model, optimizer))
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    twin, *_ = make_problem(seed=1)
    loaded = kind(twin.parameters(), base, rho=0.1, lr=0.5, **settings)
    twin.load_state_dict(states[0])
    loaded.load_state_dict(states[1])
    expected = continued(model, optimizer)
    for net, its in ((twin, loaded), (copied_model, copied)):
        assert all(torch.equal(one, other) for one, other in zip(continued(net, its), expected))


@each_kind
def test_average_is_kept_for_perturbed_weights_only_and_follows_their_dtype(kind, settings):
    model, inputs, targets = make_problem()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "perturbed": False}]
    optimizer = kind(groups, torch.optim.SGD, rho=0.3, lr=0.1, **settings)
    two_passes(optimizer, model, inputs, targets)
    assert list(optimizer.state_dict()["sam"]["averages"]) == [0, 1]
    model.float()
    two_passes(optimizer, model, inputs.float(), targets)
    assert {average.dtype for average in optimizer._averages.values()} == {torch.float32}


@each_kind
def test_no_step_waits_for_the_device(kind, settings):
    model, inputs, targets = make_problem()
    optimizer = kind(model.parameters(), torch.optim.SGD, rho=0.3, **settings, **SGD)
    for _ in range(2):
        loss_of(model, inputs, targets).backward()
        with NothingWaits():
            optimizer.first_step()
        loss_of(model, inputs, targets).backward()
        with NothingWaits():
            optimizer.second_step()


@each_kind
def test_first_step_makes_as_many_calls_for_a_hundred_weights_as_for_ten(kind, settings):
    numbers = []
    for num_weights in (10, 100):
        weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(num_weights)]
        optimizer = kind(weights, torch.optim.SGD, lr=0.1, foreach=True, **settings)
        for weight in weights:
            weight.grad = torch.ones(2)
        optimizer.first_step(zero_grad=False)  # the first time, buffers are allocated
        optimizer.second_step(zero_grad=False)
        numbers.append(len(top_level_calls(partial(optimizer.first_step, zero_grad=False))))
    assert numbers[0] == numbers[1] <= 40  # torch 2.14: 38, SAM 17


@each_kind
def test_maximising_minus_f_is_minimising_f(kind, settings):
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    optimizer = kind(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, **settings)
    mirrored = kind(twin.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, maximize=True, **settings)
    for _, batch in zip(range(4), batches(inputs, targets)):
        two_passes(optimizer, model, *batch)
        (-loss_of(twin, *batch)).backward()
        mirrored.first_step()
        (-loss_of(twin, *batch)).backward()
        mirrored.second_step()
    assert all(torch.equal(one, other) for one, other in zip(weights_of(model), weights_of(twin)))


@pytest.mark.parametrize(
    ("kind", "setting", "value", "message"),
    [
        (FSAM, "sigma", -0.1, "sigma must be finite and >= 0, got -0.1"),
        (FSAM, "decay", 1.0, "decay must be at least 0 and less than 1, got 1.0"),
        (FSAM, "decay", float("nan"), "decay must be at least 0 and less than 1, got nan"),
        (VaSSO, "theta", 0.0, "theta must be greater than 0 and at most 1, got 0.0"),
        (VaSSO, "theta", 1.5, "theta must be greater than 0 and at most 1, got 1.5"),
    ],
)
def test_setting_out_of_range_is_refused(kind, setting, value, message):
    model, *_ = make_problem()
    with pytest.raises(ValueError, match=message):
        kind(model.parameters(), torch.optim.SGD, lr=0.1, **{setting: value})
    with pytest.raises(TypeError, match=f"{setting} must be a number, got '1'"):
        kind(model.parameters(), torch.optim.SGD, lr=0.1, **{setting: "1"})


@each_kind
def test_several_ascent_steps_are_refused(kind, settings):
    model, inputs, targets = make_problem()
    optimizer = kind(model.parameters(), torch.optim.SGD, lr=0.1, **settings)
    assert not optimizer.follows_gradient
    loss_of(model, inputs, targets).backward()
    optimizer.first_step(zero_grad=False)
    with pytest.raises(ValueError, match="has at most one ascent step; use SAM for several"):
        optimizer.climb()


@each_kind
def test_a_first_step_that_fails_leaves_the_weights_at_w(kind, settings, monkeypatch):
    model, inputs, targets = make_problem()
    before = weights_of(model)
    optimizer = kind(model.parameters(), torch.optim.SGD, lr=0.1, **settings)
    monkeypatch.setattr(optimizer, "update_average", lambda: 1 / 0)  # such as an allocation that fails
    loss_of(model, inputs, targets).backward()
    with pytest.raises(ZeroDivisionError):
        optimizer.first_step()
    assert not optimizer.is_perturbed and all(map(torch.equal, model.parameters(), before))


@each_kind
def test_average_of_bfloat16_gradients_takes_in_small_steps(kind, settings):
    # From 1 towards 2 in steps below the rounding of bfloat16, which is 1/128 there.
    setting = "decay" if kind is FSAM else "theta"
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = kind([weight], torch.optim.SGD, rho=0.3, lr=0.0, **{setting: abs((kind is FSAM) - 0.002)})
    for number in range(200):
        weight.grad = torch.full_like(weight, 1.0 if number == 0 else 2.0)
        optimizer.first_step()
        assert weight.dtype == torch.bfloat16
        optimizer.restore()
    average = optimizer.state_dict()["sam"]["averages"][0]
    assert average.dtype == torch.float32
    torch.testing.assert_close(average, torch.full((4,), 2 - 0.998**199), rtol=1e-5, atol=0)


@each_kind
def test_state_of_an_older_version_with_averages_in_bfloat16_is_continued_in_float32(kind, settings):
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = kind([weight], torch.optim.SGD, rho=0.3, lr=0.0, **settings)
    weight.grad = torch.ones_like(weight)
    optimizer.first_step()
    optimizer.restore()
    state = optimizer.state_dict()
    state["sam"]["averages"] = {0: torch.full((4,), 3.0, dtype=torch.bfloat16)}
    optimizer.load_state_dict(state)
    weight.grad = torch.ones_like(weight)
    optimizer.first_step()
    optimizer.restore()
    kept = settings.get("decay", 1 - settings.get("theta", 0))
    expected = torch.full((4,), 1 + 2 * kept)
    torch.testing.assert_close(optimizer.state_dict()["sam"]["averages"][0], expected, rtol=1e-6, atol=0)
