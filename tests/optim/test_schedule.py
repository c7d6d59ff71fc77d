import math

import pytest
import torch

from sam.optim.schedule import cosine


def test_cosine_starts_at_one_passes_half_and_ends_at_zero():
    assert cosine(0, 10) == 1
    assert cosine(5, 10) == pytest.approx(0.5)
    assert cosine(10, 10) == pytest.approx(0, abs=1e-15)


def test_cosine_equals_torch_cosine_annealing():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=37)
    for step in range(37):
        assert cosine(step, 37) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_cosine_falls_all_the_way():
    values = [cosine(step, 1000) for step in range(1001)]
    assert all(after < before for before, after in zip(values, values[1:]))
    assert math.isclose(sum(values) / 1001, 0.5, abs_tol=1e-3)
