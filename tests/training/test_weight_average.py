"""The moving average of the weights against its formula in float64, and against torch's."""

import copy

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sam.training.weight_average import WeightAverage
from tests.training.processes import Explosive
from tests.training.test_one_pass import configured
from tests.training.updates import make_problem, make_update


def tensors(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def trained_states(model, update, average, num_updates):
    """Train a model and its average; return the model's tensors before the first and after every update."""
    states = [tensors(model)]
    generator = torch.Generator().manual_seed(1)
    for number in range(1, num_updates + 1):
        images = torch.randn(8, 3, 12, 12, dtype=torch.float64, generator=generator)
        update(images, torch.randint(0, 7, (8,), generator=generator), lr=0.1, step=number - 1)
        average.update(model, number)
        states.append(tensors(model))
    return states


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_average_of_sams_weights_and_statistics_equals_the_formula(decay):
    model = make_problem().model
    average = WeightAverage(model, decay)
    states = trained_states(model, make_update(model, "sam", m=4), average, 12)
    expected = states[0]
    for number, state in enumerate(states[1:], start=1):
        share = 1 - min(decay, (1 + number) / (10 + number))
        for name, value in state.items():
            old = expected[name]
            expected[name] = (1 - share) * old + share * value if value.is_floating_point() else value
    found = tensors(average.network)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-13)
    counters = [value for name, value in found.items() if name.endswith("num_batches_tracked")]
    assert counters and all(counter == 12 for counter in counters)
    assert not torch.equal(found["conv.weight"], model.conv.weight)


def test_average_long_after_the_start_equals_that_of_torch():
    model = make_problem().model.float()
    average = WeightAverage(model, 0.9)
    twin = AveragedModel(copy.deepcopy(model), multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    twin.update_parameters(model)  # the first call copies
    for number in range(1000, 1005):
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor += 1 if not tensor.is_floating_point() else torch.randn_like(tensor)
        average.update(model, number)
        twin.update_parameters(model)
    for (name, value), other in zip(average.network.named_parameters(), twin.module.parameters()):
        assert torch.equal(value, other), name


def test_update_that_fp16_skips_counts_with_the_weights_as_they_are():
    model = Explosive()
    update = configured("msam", model, precision="fp16")
    average = WeightAverage(model, 0.5)
    images, targets = torch.randn(8, 192, generator=torch.Generator().manual_seed(3)), torch.arange(8) % 7
    expected = model.linear.weight.detach().clone()
    for number in (1, 2, 3):
        model.explodes_when_uphill = False if number == 2 else None
        before = model.linear.weight.detach().clone()
        update(images, targets, lr=0.1)
        assert torch.equal(model.linear.weight, before) == (number == 2)
        average.update(model, number)
        expected.lerp_(model.linear.weight.detach(), 1 - (1 + number) / (10 + number))
    assert torch.equal(average.network.linear.weight, expected)
