"""Weights on several devices: no operator gets tensors of two, by torch's fake tensors, which need no GPU.

A fake tensor has a device and no data. torch has no fake form of the fused kernel: here a stand-in makes the
checks of its CUDA code. A test with one GPU compares the numbers.
"""

from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sam.optim import FSAM, LESAM, MSAM, S2SAM, SAM, StableSAM, VaSSO
from sam.optim.one_pass import OnePassSAM

DEVICES = ("cuda:1", "cpu", "cuda:0")
KINDS = {
    "SAM": (SAM, {}),
    "ASAM": (SAM, {"adaptive": True}),
    "p": (SAM, {"p": 3.0}),
    "p = inf": (SAM, {"p": float("inf")}),
    "random": (SAM, {"random_direction": True}),
    "F-SAM": (FSAM, {}),
    "VaSSO": (VaSSO, {}),
    "LE-SAM": (LESAM, {}),
    "Stable SAM": (StableSAM, {}),
    "MSAM": (MSAM, {"rho": 0.05, "momentum": 0.9}),
    "S2-SAM": (S2SAM, {"rho": 0.05}),
}


def strict_sgd(params, grads, buffers, *, lr, found_inf, maximize, **settings):
    """Stand in for the fused kernel, which wants lr on the CPU or on the device of the weights."""
    for param, grad in zip(params, grads, strict=True):
        assert grad.device == param.device
        assert found_inf.device == param.device, "torch would move it"
        assert lr.device in (param.device, torch.device("cpu"))
        param.add_(grad)


def give_gradients(weights, generator):
    for weight in weights:
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        weight.grad = noise.to(weight.device)


def update(optimizer, weights, gradients):
    """Make one update, with several ascent steps where there may be."""
    if isinstance(optimizer, OnePassSAM):
        with optimizer.perturbed_weights():
            gradients()
        optimizer.step()
        return
    gradients()
    optimizer.first_step()
    if type(optimizer) is SAM and optimizer.follows_gradient:
        gradients()
        optimizer.climb()
    gradients()
    optimizer.second_step()


@pytest.mark.parametrize(("kind", "settings"), KINDS.values(), ids=KINDS)
def test_no_operator_gets_tensors_of_two_devices(monkeypatch, kind, settings):
    monkeypatch.setattr("sam.optim.perturbation.sgd", strict_sgd)
    with FakeTensorMode():
        weights = [torch.nn.Parameter(torch.ones(3, 2, device=device)) for device in DEVICES]
        optimizer = kind(weights, torch.optim.SGD, lr=0.1, foreach=True, **settings)

        def gradients():
            for weight in weights:
                weight.grad = torch.ones_like(weight)

        for _ in range(2):
            update(optimizer, weights, gradients)
        if kind is SAM and optimizer.follows_gradient:
            gradients()
            optimizer.perturb()
            assert optimizer.restore_and_compare().device == weights[0].device


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "cuda")], ids="+".join)
@pytest.mark.parametrize("name", sorted(set(KINDS) - {"random"}))
def test_weights_on_a_gpu_and_on_the_cpu_go_the_same_way_on_cuda(name, devices):
    kind, settings = KINDS[name]
    trained = []
    for places in (devices, ("cpu", "cpu")):
        values = [torch.linspace(-1, 2, 6, dtype=torch.float64).view(3, 2), torch.ones(4).double()]
        weights = [torch.nn.Parameter(one.to(place)) for one, place in zip(values, places, strict=True)]
        optimizer = kind(weights, torch.optim.SGD, lr=0.1, **settings)
        gradients = partial(give_gradients, weights, torch.Generator().manual_seed(0))
        for _ in range(4):
            update(optimizer, weights, gradients)
        trained.append([weight.detach().cpu() for weight in weights])
    for one, other in zip(*trained, strict=True):
        # On a GPU, the length of the move is rounded to float32.
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
