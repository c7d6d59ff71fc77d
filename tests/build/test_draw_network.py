"""Tests of the network that a run begins with; tests/test_train.py has whole runs."""

import pytest
import torch

from sam.build.data import load_dataset
from sam.build.network import draw_network
from sam.build.resolved import resolve
from sam.system.processes import ProcessInfo
from tests.conftest import changed

CPU = torch.device("cpu")
ALONE = ProcessInfo()
SYNTHETIC = {
    "dataset.reader": "synthetic",
    "dataset.num_train": 8,
    "dataset.num_test": 4,
    "dataset.image_size": 32,
    "dataset.num_classes": 4,
    "model.width": 4,
}
SEEDS = pytest.mark.parametrize("seed", [1, 2])


def drawn(changes, process=ALONE):
    """Return the network of a run, and the state of the generator from which the run draws on."""
    config = changed({**SYNTHETIC, **changes})
    data = load_dataset(config.dataset, config.seed)
    return draw_network(config, data, resolve(config, process)), torch.get_rng_state()


def weights(network):
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


@SEEDS
def test_initial_weights_with_a_seed_of_their_own_leave_the_draws_of_the_run_to_its_seed(seed):
    network, state = drawn({"seed": seed, "model.init_seed": 7})
    assert torch.equal(state, torch.Generator().manual_seed(seed).get_state())
    twin, _ = drawn({"seed": 7})
    assert torch.equal(weights(network), weights(twin))


@SEEDS
def test_initial_weights_without_a_seed_of_their_own_are_the_first_draws_of_the_run(seed):
    network, state = drawn({"seed": seed})
    twin, _ = drawn({"model.init_seed": seed, "seed": 7})
    assert torch.equal(weights(network), weights(twin))
    assert not torch.equal(state, torch.Generator().manual_seed(seed).get_state())


@pytest.mark.parametrize("init_seed", [None, 7])
def test_processes_begin_with_the_same_weights_and_draw_on_each_for_itself(init_seed):
    made = [drawn({"seed": 1, "model.init_seed": init_seed}, ProcessInfo(rank, 3)) for rank in range(3)]
    for network, _ in made[1:]:
        assert torch.equal(weights(network), weights(made[0][0]))
    made.append(drawn({"seed": 2, "model.init_seed": init_seed}, ProcessInfo(1, 3)))
    states = {state.numpy().tobytes() for _, state in made}
    assert len(states) == 4


@pytest.mark.parametrize(("checkpointing", "calls"), [(False, 1), (True, 2)])
def test_grad_checkpointing_runs_the_middle_of_the_network_again_going_backward(checkpointing, calls):
    keys = {"model.architecture": "timm", "model.timm_name": "test_efficientnet"}
    network, _ = drawn({**keys, "runtime.grad_checkpointing": checkpointing})
    seen = []
    network.get_submodule("network.blocks.2.0.bn1").register_forward_hook(lambda *_: seen.append(1))
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert len(seen) == calls
