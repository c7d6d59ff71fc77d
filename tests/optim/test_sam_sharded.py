"""SAM on weights that fully_shard has sharded, in one process: the closure, the way back, autograd."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from sam.optim import FSAM, LESAM, SAM, VaSSO


@pytest.fixture
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def make(mesh, rho=0.3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    if mesh is not None:
        fully_shard(model, mesh=mesh)
    return model, SAM(model.parameters(), torch.optim.SGD, rho=rho, lr=0.1), torch.randn(8, 3)


def values(model):
    return [
        getattr(weight, "full_tensor", lambda weight=weight: weight)().detach()
        for weight in model.parameters()
    ]


def closure_of(model, inputs, clear=lambda: None):
    def closure():
        clear()
        loss = model(inputs).square().mean()
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("is_skipped", [False, True])
def test_step_with_a_closure_makes_both_passes_or_says_why_not(mesh, is_skipped):
    twin, twin_optimizer, inputs = make(None)
    twin_optimizer.step(closure_of(twin, inputs))
    model, optimizer, inputs = make(mesh)
    before = [value.clone() for value in values(model)]

    def leave_gradients():
        model(inputs).sum().backward()
        if is_skipped:
            with optimizer.perturbed_weights():
                model(inputs).sum().backward()

    leave_gradients()
    with pytest.raises(RuntimeError, match="the closure does not clear them"):
        optimizer.step(closure_of(model, inputs))
    assert all(torch.equal(new, old) for new, old in zip(values(model), before))
    optimizer.zero_grad()
    leave_gradients()
    optimizer.step(closure_of(model, inputs, model.zero_grad))
    for weight, expected in zip(values(model), values(twin)):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


def test_sharded_weights_come_back_and_autograd_is_told_both_times(mesh):
    model, optimizer, inputs = make(mesh)
    before = [value.clone() for value in values(model)]
    versions = [weight._version for weight in model.parameters()]
    for step in (optimizer.perturb, optimizer.restore):
        model(inputs).sum().backward()
        step()
        moved = [weight._version for weight in model.parameters()]
        assert all(new > old for new, old in zip(moved, versions))
        versions = moved
    assert all(torch.equal(new, old) for new, old in zip(values(model), before))


@pytest.mark.parametrize("kind", [FSAM, VaSSO])
def test_an_average_of_sharded_weights_is_refused_before_anything_moves(mesh, kind):
    model, _, inputs = make(mesh)
    optimizer = kind(model.parameters(), torch.optim.SGD, lr=0.1)
    before = [value.clone() for value in values(model)]
    model(inputs).sum().backward()
    with pytest.raises(ValueError, match=f"{kind.__name__} does not work with sharded parameters; use SAM"):
        optimizer.first_step()
    assert all(torch.equal(new, old) for new, old in zip(values(model), before))


def test_le_sam_moves_sharded_weights_like_whole_ones(mesh):
    models = []
    for mesh_or_none in (mesh, None):
        model, _, inputs = make(mesh_or_none)
        optimizer = LESAM(model.parameters(), torch.optim.SGD, rho=9.0, sigma=0.2, lr=0.1)
        optimizer.step(closure_of(model, inputs))
        models.append(model)
    for weight, expected in zip(*map(values, models)):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
