"""Tests of sam/training/determinism.py and of its uses; tests/run/test_same_bits.py tests whole runs."""

import os

import pytest
import torch
from torch import nn

from sam.build.network import compiled
from sam.build.resolved import numerics, resolve
from sam.system.errors import ConfigError
from sam.system.processes import ProcessInfo
from sam.training.determinism import deterministic_algorithms, fix_cublas_workspaces
from tests.conftest import changed

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NAME = "CUBLAS_WORKSPACE_CONFIG"


def switches():
    cudnn = torch.backends.cudnn
    algorithms = torch.are_deterministic_algorithms_enabled()
    return (
        algorithms,
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )


@pytest.fixture
def machine_with_a_gpu(monkeypatch):
    """Let torch see a GPU on which nothing was started; no GPU is needed to name it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.delenv(NAME)  # tests/conftest.py sets it
    return monkeypatch


def test_switches_are_set_and_put_back():
    before = switches()
    torch.backends.cudnn.benchmark = True
    try:
        with pytest.raises(ZeroDivisionError), deterministic_algorithms(True, CPU):
            assert switches() == (True, False, True, False)
            raise ZeroDivisionError
        assert switches() == (*before[:3], True)
    finally:
        torch.backends.cudnn.benchmark = before[3]


def test_nothing_changes_unless_it_is_wanted(machine_with_a_gpu):
    before = switches()
    with numerics(resolve(changed({}))):
        assert switches() == before
    assert NAME not in os.environ


def test_workspaces_are_fixed_before_cuda_starts(machine_with_a_gpu):
    machine_with_a_gpu.setattr(torch, "empty", lambda *_, **__: seen.append(os.environ.get(NAME)))
    seen = []
    with numerics(resolve(changed({"runtime.deterministic": True}))):
        assert switches() == (True, False, True, False)
    assert seen == [":4096:8"]


def test_workspaces_stay_as_they_are_without_a_gpu_or_if_chosen(machine_with_a_gpu):
    machine_with_a_gpu.setattr(torch.cuda, "is_available", lambda: False)
    fix_cublas_workspaces()
    assert NAME not in os.environ
    machine_with_a_gpu.setattr(torch.cuda, "is_available", lambda: True)
    machine_with_a_gpu.setenv(NAME, ":16:8")
    fix_cublas_workspaces()
    assert os.environ[NAME] == ":16:8"


def test_process_in_which_cuda_has_started_is_refused(machine_with_a_gpu):
    machine_with_a_gpu.setattr(torch.cuda, "is_initialized", lambda: True)
    resolved = resolve(changed({"runtime.deterministic": True}))
    with pytest.raises(ConfigError, match="^runtime.deterministic=true: CUDA has already started"):
        with numerics(resolved):
            pass


def test_other_workspaces_are_refused(machine_with_a_gpu):
    machine_with_a_gpu.setenv(NAME, ":4096:2")
    message = "CUBLAS_WORKSPACE_CONFIG=:4096:2 does not give the same bits; allowed is :4096:8 or :16:8"
    with pytest.raises(ConfigError, match=message), deterministic_algorithms(True, GPU):
        pass


def test_several_processes_on_gpus_are_refused_and_on_cpus_are_not(machine_with_a_gpu):
    config = changed({"runtime.deterministic": True, "m": 32})
    message = (
        "^runtime.deterministic=true is for one process on one GPU, not for 2 processes; use runtime.proc"
    )
    with pytest.raises(ConfigError, match=message):
        resolve(config, ProcessInfo(0, 2))
    config.runtime.device = "cpu"
    assert resolve(config, ProcessInfo(0, 2)).deterministic


def test_compiled_networks_are_compiled_in_the_deterministic_mode(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, options: options)
    network = nn.Identity()
    assert compiled(network, changed({"runtime.deterministic": True}).runtime) is network
    for deterministic, options in ((True, {"deterministic": True}), (False, None)):
        keys = {"runtime.compile": True, "runtime.deterministic": deterministic}
        assert compiled(network, changed(keys).runtime) == options


@pytest.mark.slow
def test_compiler_knows_the_deterministic_mode():
    compiled(nn.Identity(), changed({"runtime.compile": True, "runtime.deterministic": True}).runtime)
    with pytest.raises(RuntimeError, match="Unexpected optimization option"):
        torch.compile(nn.Identity(), options={"nonsense": True})
