"""SAM in unusual loops: one autocast block, other states, interrupts at any line, wrappers, FSDP1."""

import copy
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel

import sam.optim
from sam.optim import FSAM, LESAM, MSAM, S2SAM, SAM, StableSAM, VaSSO

OPTIM = str(Path(sam.optim.__file__).parent)
SGD = {"lr": 0.1, "momentum": 0.9}
ONE_PASS = (MSAM, S2SAM)
ALL = (SAM, FSAM, VaSSO, LESAM, StableSAM, *ONE_PASS)


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 4, generator=generator), torch.randn(16, 1, generator=generator)


def loss_of(net):
    inputs, targets = data()
    return (net(inputs).float() - targets).square().mean()


def make_closure(net, optimizer, losses, autocast):
    def closure():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            loss = loss_of(net)
        loss.backward()
        losses.append(loss.item())
        return loss

    return closure


@pytest.mark.parametrize("kind", ALL)
def test_passes_within_one_autocast_block_are_those_of_a_block_each(kind):
    losses = {True: [], False: []}
    for one_block, told in losses.items():
        net = make_net()
        optimizer = kind(net.parameters(), torch.optim.SGD, rho=0.5, **SGD)
        closure = make_closure(net, optimizer, told, autocast=not one_block)
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16, enabled=one_block):
                optimizer.step(closure)
                if kind in ONE_PASS:
                    told.append(loss_of(net).item())  # at w again
            if kind in ONE_PASS and not one_block:
                with torch.autocast("cpu", torch.bfloat16):
                    told[-1] = loss_of(net).item()
    assert losses[True] == losses[False]
    assert len(set(losses[True])) == 6


def test_several_ascent_steps_within_one_autocast_block_see_the_moved_weights():
    found = []
    for one_block in (True, False):
        net = make_net()
        optimizer = SAM(net.parameters(), torch.optim.SGD, rho=0.5, **SGD)
        losses = []
        closure = make_closure(net, optimizer, losses, autocast=not one_block)
        with torch.autocast("cpu", torch.bfloat16, enabled=one_block):
            for move in (optimizer.perturb, optimizer.climb, optimizer.restore):
                closure()
                move()
            closure()
        found.append(losses)
    assert found[0] == found[1]
    assert found[0][0] == found[0][3] != found[0][1] != found[0][2]


@pytest.mark.parametrize("of_base", [False, True])
def test_a_state_without_settings_of_sam_leaves_those_of_the_groups(of_base):
    def groups():
        net = make_net()
        return [{"params": net[0].parameters()}, {"params": net[2].parameters()}]

    first, second = groups()
    own = [{**first, "rho": 0.2, "adaptive": True}, {**second, "perturbed": False}]
    optimizer = SAM(own, torch.optim.SGD, rho=0.05, **SGD)
    plain = torch.optim.SGD(groups(), lr=0.3)
    (optimizer.base_optimizer if of_base else optimizer).load_state_dict(plain.state_dict())
    for weight in optimizer.param_groups[0]["params"]:
        weight.grad = torch.ones_like(weight)
    optimizer.perturb()
    settings = [
        tuple(group[key] for key in ("rho", "adaptive", "perturbed")) for group in optimizer.param_groups
    ]
    assert settings == [(0.2, True, True), (0.05, False, False)]
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


def test_settings_in_a_state_win():
    optimizers = [SAM(make_net().parameters(), torch.optim.SGD, rho=rho, **SGD) for rho in (0.2, 0.05)]
    optimizers[0].load_state_dict(optimizers[1].state_dict())
    assert optimizers[0].param_groups[0]["rho"] == 0.05


class Stopped(BaseException):
    """Like KeyboardInterrupt, no Exception."""


class StopAtLine:
    """Raises an exception at the n-th line that runs in sam/optim/, as a signal may."""

    def __init__(self, number):
        self.left = number

    def __enter__(self):
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(None)

    def trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(OPTIM):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise Stopped
        return self.trace


@pytest.mark.parametrize("form", ["closure", "context"])
@pytest.mark.parametrize("kind", [SAM, FSAM, StableSAM, MSAM])
def test_an_interrupt_at_any_line_leaves_no_weights_at_w_plus_eps(kind, form):
    def update(net, optimizer):
        closure = make_closure(net, optimizer, [], autocast=False)
        if form == "closure":
            optimizer.step(closure)
            return
        if kind is not MSAM:
            closure()
        with optimizer.perturbed_weights():
            closure()
        optimizer.step()
        optimizer.zero_grad()

    net = make_net()
    optimizer = kind(net.parameters(), torch.optim.SGD, rho=0.5, **SGD)
    for _ in range(2):
        update(net, optimizer)
    number, is_done = 0, False
    while not is_done:
        number += 1
        one, its_optimizer = copy.deepcopy((net, optimizer))
        before = [weight.detach().clone() for weight in one.parameters()]
        stop = StopAtLine(number)
        try:
            with stop:
                update(one, its_optimizer)
            is_done = True
        except Stopped:
            pass
        assert not its_optimizer.is_perturbed, number
        has_stepped = its_optimizer.state != optimizer.state and not torch.equal(
            its_optimizer.state[one[0].weight]["momentum_buffer"],
            optimizer.state[net[0].weight]["momentum_buffer"],
        )
        if not has_stepped:
            assert all(map(torch.equal, one.parameters(), before)), number
    assert number > 50


class Wrapper(LESAM):
    """Lends its class and its attributes from another optimizer, as Lightning's and Fabric's wrappers do."""

    def __init__(self, optimizer):
        self.__dict__.update(optimizer.__dict__)
        self.optimizer = optimizer


def test_sigma_that_is_set_through_a_wrapper_is_that_of_the_optimizer():
    optimizer = LESAM(make_net().parameters(), torch.optim.SGD, sigma=0.35, **SGD)
    Wrapper(optimizer).sigma = 0.6
    assert optimizer.sigma == 0.6
    assert optimizer.state_dict()["sam"]["sigma"] == 0.6


def test_stable_sam_with_complex_weights_in_a_group_that_is_not_perturbed():
    real, other = (nn.Parameter(torch.tensor([3.0, 4.0])) for _ in range(2))
    spectrum = nn.Parameter(torch.tensor([1.0 + 2.0j]))
    groups = [{"params": [real, other]}, {"params": [spectrum], "perturbed": False}]
    optimizer = StableSAM(groups, torch.optim.SGD, rho=5.0, lr=1.0)
    for _ in range(2):
        loss = 0.5 * (real.square().sum() + spectrum.abs().square().sum())
        loss.backward()
        optimizer.first_step() if not optimizer.is_perturbed else optimizer.restore()
    # At w: |g|^2 = 25 + 5. At w + eps: real (6, 8), so |h|^2 = 100 + 5.
    scale = (30 / 105) ** 0.5
    torch.testing.assert_close(real.grad, scale * torch.tensor([6.0, 8.0]))
    torch.testing.assert_close(spectrum.grad, scale * torch.tensor([1.0 + 2.0j]))


def test_a_gradient_too_small_for_its_reciprocal_moves_nothing():
    weight = nn.Parameter(torch.tensor(1.0))
    optimizer = SAM([weight], torch.optim.SGD, rho=0.05, lr=0.1)
    weight.grad = torch.tensor(1e-40)
    optimizer.perturb()
    assert weight.item() == 1.0


def test_momentum_that_is_set_to_zero_later_is_refused_by_msam():
    optimizer = MSAM(make_net().parameters(), torch.optim.SGD, rho=0.5, **SGD)
    optimizer.param_groups[0]["momentum"] = 0
    with pytest.raises(ValueError, match="set momentum"):
        optimizer.perturb()


@pytest.fixture
def one_process(tmp_path):
    """Join a group of one process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.ddp
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [SAM, MSAM])
@pytest.mark.parametrize("originals", [True, False])
def test_weights_that_fsdp1_shards_are_refused(kind, originals, one_process, monkeypatch):
    net = make_net()
    sharded = FullyShardedDataParallel(net, use_orig_params=originals, device_id=torch.device("cpu"))
    optimizer = kind(sharded.parameters(), torch.optim.SGD, rho=0.5, **SGD)
    loss_of(sharded).backward()
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="FullyShardedDataParallel.*use fully_shard"):
        optimizer.perturb()
    monkeypatch.undo()
    optimizer.perturb()
    assert optimizer.is_perturbed
    assert os.environ.get("WORLD_SIZE") is None
