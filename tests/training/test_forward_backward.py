"""One pass: targets of both kinds, errors against clean targets, weight decay in the loss."""

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, nn

from sam.training.distributed import close_process_group, data_parallel
from sam.training.forward_backward import PASS_SUMS, count_errors
from tests.quick_process import start_server
from tests.reference import sam as reference
from tests.training.updates import RHO, SGD, make_problem, make_update, oracle_update

DECAY = 0.1


def sums_of(update, *arguments, **keywords):
    return dict(zip(update.rule.sums, update(*arguments, lr=0.1, **keywords).tolist()))


def one_hot(targets, num_classes=7):
    return nn.functional.one_hot(targets, num_classes).double()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 9))
def test_errors_of_mixed_targets_are_the_mixture_of_errors(seed, num_classes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, num_classes, generator=generator)
    one, other = torch.randint(0, num_classes, (2, 6), generator=generator)
    share = torch.rand((), generator=generator, dtype=torch.float64)
    mixed = share * one_hot(one, num_classes) + (1 - share) * one_hot(other, num_classes)
    pairs = zip(count_errors(logits, one), count_errors(logits, other))
    expected = [share * first + (1 - share) * second for first, second in pairs]
    torch.testing.assert_close(list(count_errors(logits, mixed)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_update_from_one_hot_targets_equals_that_from_class_numbers(name):
    problem = make_problem()
    twin = copy.deepcopy(problem.model)
    update = make_update(problem.model, name, m=4, label_smoothing=0.1)
    sums = sums_of(update, problem.images, problem.targets)
    other = make_update(twin, name, m=4, label_smoothing=0.1)
    assert sums_of(other, problem.images, one_hot(problem.targets)) == pytest.approx(sums, rel=1e-9)
    for weight, target in zip(problem.model.parameters(), twin.parameters()):
        torch.testing.assert_close(weight, target, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_clean_errors_are_those_at_w_against_the_clean_targets(name):
    problem = make_problem()
    twin = copy.deepcopy(problem.model)
    clean_targets = torch.tensor([3, 3, 1, 0, 6, 5, 2, 2])
    wrong = torch.zeros(8)
    for part in range(0, 8, 2):  # batch norm sees two images at a time
        predicted = twin(problem.images[part : part + 2]).argmax(1)
        wrong[part : part + 2] = (predicted != clean_targets[part : part + 2]).float()
    sums = sums_of(
        make_update(problem.model, name, m=2), problem.images, problem.targets, clean_targets=clean_targets
    )
    assert (sums["clean_errors"], sums["num_clean"]) == (wrong.sum(), 8)


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_clean_targets_are_not_counted_where_there_are_none(name):
    problem = make_problem()
    sums = sums_of(make_update(problem.model, name, m=4), problem.images, problem.targets)
    assert tuple(sums)[: len(PASS_SUMS)] == PASS_SUMS
    assert (sums["clean_errors"], sums["num_clean"]) == (0, 0)


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_losses_are_reported_without_the_weight_decay(name):
    problem = make_problem()
    plain, decayed = copy.deepcopy(problem.model), problem.model
    # With rho = 0 both passes are made at w, wherever the penalty would have moved it.
    sums = sums_of(
        make_update(decayed, name, rho=0.0, weight_decay_in_loss=DECAY), problem.images, problem.targets
    )
    expected = sums_of(make_update(plain, name, rho=0.0), problem.images, problem.targets)
    for key in sums.keys() & {"loss", "perturbed_loss"}:
        assert sums[key] == expected[key]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_weight_decay_in_the_loss_knows_the_share_and_the_loss_scale(name, precision):
    # Black images: the cross entropy says nothing about the kernel, so its gradient is weight decay alone.
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    update = make_update(model, name, m=2, precision=precision, rho=0.0, weight_decay_in_loss=DECAY)
    update.rule.base_optimizer.param_groups[0].update(momentum=0.0, nesterov=False, weight_decay=0.0)
    before = model.weight.detach().clone()
    update(torch.zeros(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), lr=0.5)
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.5 * DECAY), rtol=1e-6, atol=0)


def test_parameter_outside_the_forward_pass_decays_too():
    model = nn.Sequential(nn.Linear(4, 3))
    model.unused = nn.Parameter(torch.ones(2))
    model.forward = lambda images: model[0](images)
    model.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    update = make_update(model, "sgd", m=1, weight_decay_in_loss=DECAY)
    update.rule.base_optimizer.param_groups[0].update(momentum=0.0, nesterov=False, weight_decay=0.0)
    update(torch.randn(2, 4), torch.tensor([0, 1]), lr=0.5)
    torch.testing.assert_close(model.unused.detach(), torch.full((2,), 1 - 0.5 * DECAY))
    assert torch.equal(model.frozen, torch.ones(2))


def train_a_share(rank, folder):
    """Make two updates of each rule with half of each batch, in one of two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for name in ("sgd", "sam"):
        torch.save(trained_share(name, slice(4 * rank, 4 * rank + 4)), f"{folder}/{name}{rank}.pt")
    distributed.barrier()
    close_process_group(0)


def trained_share(name, mine):
    """Return the weights; what is wrapped is gone before the processes part."""
    problem = make_problem()
    called = data_parallel(problem.model)
    update = make_update(problem.model, name, m=2, clip_norm=0.5, called=called, weight_decay_in_loss=DECAY)
    for _ in range(2):
        update(problem.images[mine], problem.targets[mine], lr=0.1)
    return problem.model.state_dict()


@pytest.mark.ddp
def test_weight_decay_in_the_loss_is_averaged_over_processes(tmp_path):
    # Two micro-batches in each process: the first gathers in .grad without an exchange.
    start_server()
    torch.multiprocessing.start_processes(train_a_share, (str(tmp_path),), 2, start_method="forkserver")
    gradients = {"sgd": reference.gradient, "sam": functools.partial(reference.sam_gradient, rho=RHO)}
    for name, gradient in gradients.items():
        problem, base = make_problem(), reference.Sgd(**SGD)
        for _ in range(2):
            oracle_update(problem.model, base, gradient, problem.images, problem.targets, 2, 0.5, DECAY)
        states = [torch.load(tmp_path / f"{name}{rank}.pt") for rank in (0, 1)]
        for key, weight in problem.model.named_parameters():
            assert torch.equal(states[0][key], states[1][key])
            torch.testing.assert_close(states[0][key], weight.detach(), rtol=1e-9, atol=1e-10)
