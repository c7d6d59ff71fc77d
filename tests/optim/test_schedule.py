import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam.optim.schedule import ALWAYS, Ascents, cosine
from tests.reference.cheaper import phase

PERCENT = st.integers(0, 100)
STEPS = st.integers(1, 2000)


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


def test_warm_up_rises_along_a_line_and_the_cosine_covers_the_rest():
    assert [cosine(step, 14, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert [cosine(step, 14, 4) for step in range(4, 15)] == [cosine(step, 10) for step in range(11)]


def steps(belongs, num_steps):
    return [step for step in range(num_steps) if belongs(step)]


def share(percent):
    return f"{percent / 100:.2f}"


@pytest.mark.parametrize(
    ("start", "stop", "num_steps", "interval", "covered", "included"),
    [
        (0.0, 1.0, 4, 1, [0, 1, 2, 3], [0, 1, 2, 3]),
        (0.0, 1.0, 7, 3, [0, 1, 2, 3, 4, 5, 6], [0, 3, 6]),
        (0.5, 1.0, 4, 1, [2, 3], [2, 3]),
        (0.5, 1.0, 5, 1, [3, 4], [3, 4]),  # 2 / 5 is before the half
        (0.0, 0.5, 5, 1, [0, 1, 2], [0, 1, 2]),
        (0.25, 0.75, 8, 3, [2, 3, 4, 5], [2, 5]),  # counted from the first of the phase
        (0.3, 0.9, 10, 100, [3, 4, 5, 6, 7, 8], [3]),
        (0.0, 0.01, 2, 1, [0], [0]),
    ],
)
def test_ascents_are_these_steps(start, stop, num_steps, interval, covered, included):
    ascents = Ascents.between(start, stop, num_steps, interval)
    assert steps(ascents.covers, num_steps + 3) == covered
    assert steps(ascents.includes, num_steps + 3) == included


@pytest.mark.parametrize(
    ("percent", "num_steps"), [(7, 100), (55, 100), (14, 700), (29, 100), (10, 30), (30, 10), (7, 10**6)]
)
def test_ascents_take_shares_for_the_decimals_that_they_are_written_as(percent, num_steps):
    # 0.07 * 100 is a bit more than 7, and its ceiling 8; 0.29 * 100 is a bit less than 29.
    first = percent * num_steps // 100
    assert Ascents.between(percent / 100, 1.0, num_steps).first == first
    assert Ascents.between(0.0, percent / 100, num_steps).end == first


def test_ascents_without_bounds_are_all_steps():
    assert all(ALWAYS.includes(step) and ALWAYS.covers(step) for step in (0, 1, 2, 10**12))


@pytest.mark.parametrize(
    ("start", "stop", "num_steps"),
    [(0.99, 1.0, 2), (0.51, 1.0, 2), (0.2, 0.3, 2), (0.5, 0.5, 100), (0.6, 0.5, 100), (0.0, 1.0, 0)],
)
def test_ascents_without_a_step_are_refused(start, stop, num_steps):
    told = (
        f"start={start} and stop={stop} leave SAM no update of {num_steps}; move them apart, or train longer"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        Ascents.between(start, stop, num_steps)


@settings(deadline=None)
@given(percents=st.lists(PERCENT, min_size=2, max_size=2, unique=True).map(sorted), num_steps=STEPS)
def test_ascents_cover_the_steps_of_the_definition(percents, num_steps):
    start, stop = map(share, percents)
    expected = phase(start, stop, num_steps)
    if not expected:
        with pytest.raises(ValueError, match="leave SAM no update"):
            Ascents.between(float(start), float(stop), num_steps)
        return
    ascents = Ascents.between(float(start), float(stop), num_steps)
    assert steps(ascents.covers, num_steps + 1) == expected
    assert abs(len(expected) - (percents[1] - percents[0]) / 100 * num_steps) < 1


@settings(deadline=None)
@given(percent=PERCENT, num_steps=STEPS)
def test_ascents_before_and_after_a_moment_part_all_steps(percent, num_steps):
    moment, covered = percent / 100, []
    for start, stop in ((0.0, moment), (moment, 1.0)):
        try:
            covered += steps(Ascents.between(start, stop, num_steps).covers, num_steps)
        except ValueError:
            continue  # all steps are on the other side
    assert covered == list(range(num_steps))


@settings(deadline=None)
@given(percent=st.integers(0, 99), num_steps=st.integers(100, 2000), interval=st.integers(1, 300))
def test_ascents_are_every_so_many_steps_from_the_first_on(percent, num_steps, interval):
    ascents = Ascents.between(percent / 100, 1.0, num_steps, interval)
    covered, included = steps(ascents.covers, num_steps), steps(ascents.includes, num_steps)
    assert included == covered[::interval]
    assert len(included) == math.ceil(len(covered) / interval)
