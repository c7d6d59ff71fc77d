"""Updates of networks that torch.compile or gradient checkpointing runs in another way."""

import copy
import functools

import pytest
import timm
import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import counters

from tests.reference import sam as reference
from tests.training.updates import RHO, SGD, make_problem, make_update, oracle_update


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled(model):
    """Traced as always, but run without generated kernels, which take time; tests/test_train.py has those."""
    return torch.compile(model, backend="aot_eager")


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("m", [None, 4])
def test_compiled_network_equals_the_formula_and_is_compiled_once(m):
    problem = make_problem()
    oracle = copy.deepcopy(problem.model)
    update = make_update(problem.model, "sam", m, called=compiled(problem.model))
    base, gradient = reference.Sgd(**SGD), functools.partial(reference.sam_gradient, rho=RHO)
    for step in range(4):
        with dynamo_config.patch(error_on_recompile=step > 0):
            update(problem.images, problem.targets, lr=0.1)
        oracle_update(oracle, base, gradient, problem.images, problem.targets, m or 8)
        # float64 round-off, grown over four updates
        for name, tensor in problem.model.state_dict().items():
            torch.testing.assert_close(tensor, oracle.state_dict()[name], rtol=1e-8, atol=1e-9)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_network_with_a_part_batch_ascent_settles_after_the_first_update():
    problem = make_problem()
    eager = copy.deepcopy(problem.model)
    traced = make_update(
        problem.model, "sam", called=compiled(problem.model), steps={"ascent_fraction": 0.25}
    )
    plain = make_update(eager, "sam", steps={"ascent_fraction": 0.25})
    for step in range(3):
        with dynamo_config.patch(error_on_recompile=step > 0):
            traced(problem.images, problem.targets, lr=0.1)
        plain(problem.images, problem.targets, lr=0.1)
    for name, tensor in problem.model.state_dict().items():
        torch.testing.assert_close(tensor, eager.state_dict()[name], rtol=1e-8, atol=1e-9)


def make_network():
    """Batch norm, dropout and stochastic depth."""
    torch.manual_seed(0)
    return timm.create_model("test_efficientnet", num_classes=7, drop_rate=0.3, drop_path_rate=0.3)


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("m", [None, 4])
def test_checkpointing_changes_no_bit_of_weights_statistics_and_later_draws(m, replay):
    # It runs the middle of the network again going backward: batch norm must not count that twice, and
    # dropout must draw what it drew.
    images, targets = torch.randn(8, 3, 32, 32), torch.randint(0, 7, (8,))
    states = []
    for is_checkpointed in (False, True):
        network = make_network()
        network.set_grad_checkpointing(is_checkpointed)
        update = make_update(network, "sam", m, steps={"replay": replay})
        torch.manual_seed(1)
        for _ in range(2):
            update(images, targets, lr=0.1)
        states.append((network.state_dict(), torch.rand(4)))
    (plain, draws), (checkpointed, other_draws) = states
    assert all(torch.equal(tensor, checkpointed[name]) for name, tensor in plain.items())
    assert torch.equal(draws, other_draws)


def test_replay_decides_whether_both_passes_drop_the_same():
    # rho = 0: the passes differ in what they draw, and in nothing else.
    images, targets = torch.randn(8, 3, 32, 32), torch.randint(0, 7, (8,))
    for replay in (True, False):
        network = make_network()
        update = make_update(network, "sam", rho=0.0, steps={"replay": replay})
        sums = dict(zip(update.rule.sums, update(images, targets, lr=0.1).tolist()))
        assert (sums["loss"] == sums["perturbed_loss"]) == replay
