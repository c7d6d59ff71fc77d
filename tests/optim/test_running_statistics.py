import pytest
import torch
from torch import nn

from sam.optim.running_statistics import RunningStatistics


def test_statistics_move_once_by_the_mean_over_micro_batches():
    norm = nn.BatchNorm1d(2).double()
    parts = torch.randn(3, 4, 2, dtype=torch.float64)
    statistics = RunningStatistics(norm)
    statistics.begin()
    for part in parts:
        statistics.begin_micro_batch()
        norm(part)
        statistics.keep()
        norm(part + 100)  # what a second pass sees must not count
    statistics.write()
    # torch: running = 0.9 * running + 0.1 * batch, variance unbiased, from mean 0 and variance 1
    torch.testing.assert_close(norm.running_mean, 0.1 * parts.mean(1).mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * parts.var(1).mean(0))
    assert int(norm.num_batches_tracked) == 1


def update(statistics, model):
    """Make the clean passes of an update with three micro-batches."""
    statistics.begin()
    for part in torch.randn(3, 4, 2):
        statistics.begin_micro_batch()
        model(part)
        statistics.keep()
    statistics.write()


def test_statistics_of_frozen_layers_and_other_buffers_are_left_alone_to_the_bit():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model.register_buffer("filter", torch.tensor([0.1, 0.7]))
    model[1].eval()
    model[1].running_mean.fill_(0.1)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    statistics = RunningStatistics(model)
    update(statistics, model)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]) == (not name.startswith("0.")), name


CHANGES = {
    "made in eval mode": lambda model: model.train(),
    "dtype": lambda model: model.train().double(),
    "layer replaced": lambda model: model.train().insert(1, nn.BatchNorm1d(2).double()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("num_parts", [1, 2])
def test_statistics_follow_a_change_of_the_model(change, num_parts):
    model = nn.Sequential(nn.BatchNorm1d(2)).double() if change is CHANGES["layer replaced"] else None
    model = model or nn.Sequential(nn.BatchNorm1d(2))
    model.eval()
    statistics = RunningStatistics(model)
    change(model)
    dtype = model[0].running_mean.dtype
    parts = torch.full((num_parts, 4, 2), 10.0, dtype=dtype)
    statistics.begin()
    for part in parts:
        statistics.begin_micro_batch()
        model(part)
        statistics.keep()
        model(part)
    statistics.write()
    # 0.1 * 10; two passes would give 1.9
    torch.testing.assert_close(model[0].running_mean, torch.ones(2, dtype=dtype))
    assert all(int(layer.num_batches_tracked) == 1 for layer in model)


def test_layers_that_are_frozen_later_are_left_alone():
    model = nn.Sequential(nn.BatchNorm1d(2))
    statistics = RunningStatistics(model)
    model.eval()
    model[0].running_mean.fill_(0.1)
    update(statistics, model)
    assert torch.equal(model[0].running_mean, torch.full((2,), 0.1))


def test_statistics_of_a_model_without_buffers_do_nothing():
    statistics = RunningStatistics(nn.Linear(2, 2))
    statistics.begin()
    for _ in range(2):
        statistics.begin_micro_batch()
        statistics.keep()
    statistics.write()
