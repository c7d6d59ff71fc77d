import math

import pytest
import torch
from torch import nn

from sam.training.distributed import World
from sam.training.evaluation import evaluate, one_hot_sums, sums_by_group
from sam.training.forward_backward import count_errors
from sam.training.precision import Precision
from tests.devices import host_never_waits


class Table(nn.Module):
    """Returns the logits stored under the number of an image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        self.modes = []

    def forward(self, images):
        self.modes.append(self.training)
        return self.logits[images[:, 0, 0, 0].long()]


def evaluate_table(logits, targets, batch_size=4):
    model = Table(logits)
    device = logits.device
    images = torch.arange(len(targets), device=device).view(-1, 1, 1, 1).float()
    result = evaluate(
        model,
        zip(images.split(batch_size), targets.split(batch_size)),
        num_classes=logits.shape[1],
        device=device,
        precision=Precision("fp32", device),
        world=World(),
    )
    assert not any(model.modes), "running statistics are to be used"
    assert model.training
    return result


def test_evaluation_equals_a_loop_over_images():
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(203, 10, dtype=torch.float64), torch.randint(0, 9, (203,))
    result = evaluate_table(logits, targets, batch_size=17)
    errors, top5, loss = [], 0, 0.0
    for row, target in zip(logits, targets):
        order = row.argsort(descending=True).tolist()
        errors.append(order[0] != target)
        top5 += target not in order[:5]
        loss += -math.log(math.exp(row[target]) / sum(math.exp(value) for value in row))
    assert result.num_images == 203
    assert result.error_pct == pytest.approx(100 * sum(errors) / 203)
    assert result.top5_error_pct == pytest.approx(100 * top5 / 203)
    assert result.loss == pytest.approx(loss / 203, rel=1e-10)
    for number in range(9):
        mine = [error for error, target in zip(errors, targets) if target == number]
        assert result.class_error_pct[number] == pytest.approx(100 * sum(mine) / len(mine))
    assert math.isnan(result.class_error_pct[9]), "no image of class 9"


def test_calibration_error_of_a_table_worked_out_by_hand():
    # Two classes. Two images at confidence 0.9, one of them right; two at 0.6, both right.
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]], dtype=torch.float64)
    result = evaluate_table(probabilities.log(), torch.tensor([0, 1, 0, 1]))
    # bin of 0.9: |0.5 - 0.9| on half of the images; bin of 0.6: |1 - 0.6| on the other half
    assert result.calibration_error_pct == pytest.approx(100 * (0.5 * 0.4 + 0.5 * 0.4))


def test_errors_where_there_are_fewer_than_five_classes():
    errors, top5_errors = count_errors(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([0, 1]))
    assert (float(errors), float(top5_errors)) == (1, 0)


def test_logits_that_are_not_finite_show_as_a_loss_that_is_not_finite():
    logits = torch.full((3, 4), torch.nan)
    assert not math.isfinite(evaluate_table(logits, torch.tensor([0, 1, 2])).loss)


def bincount(groups, values, num_groups):
    """What evaluate() used for every device before."""
    return torch.bincount(groups, values, num_groups)


def test_sums_by_group_on_a_cpu_are_those_of_bincount_to_the_bit():
    torch.manual_seed(0)
    groups, values = torch.randint(0, 12, (1000,)), torch.rand(1000, dtype=torch.float64)
    assert torch.equal(sums_by_group(groups, values, 15), bincount(groups, values, 15))


def test_one_hot_sums_are_those_of_bincount():
    torch.manual_seed(0)
    groups, values = torch.randint(0, 12, (1000,)), torch.rand(1000, dtype=torch.float64)
    whole = (values > 0.5).double()  # numbers of images, which are exact in any order
    assert torch.equal(one_hot_sums(groups, whole, 15), bincount(groups, whole, 15))
    torch.testing.assert_close(
        one_hot_sums(groups, values, 15), bincount(groups, values, 15), rtol=1e-14, atol=0
    )
    values[0] = torch.nan
    not_finite = one_hot_sums(groups, values, 15).isnan()
    assert not_finite.nonzero().flatten().tolist() == [int(groups[0])]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_evaluation_on_a_gpu_is_that_of_the_cpu_and_makes_the_host_wait_only_at_the_end():
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(203, 10, dtype=torch.float64), torch.randint(0, 10, (203,))
    expected = evaluate_table(logits, targets, batch_size=17)
    one, two = (evaluate_table(logits.cuda(), targets.cuda(), batch_size=17) for _ in range(2))
    assert one == two
    assert one.error_pct == expected.error_pct
    assert one.class_error_pct == expected.class_error_pct
    assert one.calibration_error_pct == pytest.approx(expected.calibration_error_pct, rel=1e-12)
    groups, values = targets.cuda(), logits[:, 0].cuda()
    with host_never_waits():
        sums_by_group(groups, values, 10)
