"""Tests of sam/figures/calibration.py."""

import json
from pathlib import Path

import pytest

from sam.figures.calibration import LARGEST_MARK, draw_calibration, reliability
from sam.record.evaluations import Bin, Calibration
from tests.figures.drawn import caption_of, groups_of
from tests.record.run_directories import write_run


def test_reliability_is_the_mean_over_the_seeds_that_have_a_bin() -> None:
    # With fifteen bins, the eleventh is from 66.7 to 73.3 % and the last from 93.3 to 100 %.
    one = Calibration(1.0, (Bin(25, 70.0, 60.0), Bin(75, 100.0, 96.0)))
    two = Calibration(1.0, (Bin(9, 20.0, 0.0), Bin(91, 98.0, 98.0)))  # nine images are too few
    middle, last = reliability([one, two])
    assert middle == (70.0, -10.0, -10.0, -10.0, 0.125)
    assert last == pytest.approx((99.0, -2.0, -4.0, 0.0, 0.83))


@pytest.mark.parametrize(("validation", "split"), [("none", "test"), ("last", "validation")])
def test_draw_calibration_draws_the_gap_of_each_condition(
    tmp_path: Path, validation: str, split: str
) -> None:
    bins = [
        {"num_images": 10, "confidence_pct": confidence, "accuracy_pct": 40.0} for confidence in (50.0, 99.0)
    ]
    for method, error in (("sgd", 8.0), ("sam", 2.0)):
        for seed in (0, 1):
            changes = {"optimizer__name": method, "dataset__validation": validation, "seed": seed}
            directory = write_run(tmp_path, **changes)
            record = {"after": "200 epochs", "calibration_error_pct": error + seed, "calibration_bins": bins}
            (directory / f"evaluation-{split}.json").write_text(json.dumps(record))
    write_run(tmp_path, optimizer__name="sam", dataset__validation=validation, seed=2)  # not evaluated
    early = write_run(tmp_path, optimizer__name="sam", optimizer__rho=0.5, dataset__validation=validation)
    (early / f"evaluation-{split}.json").write_text(json.dumps({**record, "after": "20 epochs"}))
    figure = draw_calibration(groups_of(tmp_path))
    (axis,) = figure.axes
    sgd, sam, level = axis.lines
    for line in (sgd, sam):
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([50.0, 99.0], [-10.0, -59.0])
    assert list(level.get_ydata()) == [0, 0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "SGD: 8.50 ± 6.35 (n = 2)",
        "SAM rho=0.05: 2.50 ± 6.35 (n = 2)",
    ]
    assert list(axis.collections[1].get_sizes()) == [LARGEST_MARK / 2] * 2
    assert "(n = 2)" in caption_of(figure)


def test_draw_calibration_without_evaluations_says_how_to_make_them(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    (directory / "evaluation-test.json").write_text(
        '{"calibration_error_pct": 3.0}'
    )  # written by an older version
    with pytest.raises(ValueError, match=r"python evaluate\.py run=FOLDER"):
        draw_calibration(groups_of(tmp_path))
