"""Tests of sam/figures/relative_error.py."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from sam.figures.relative_error import (
    MEASURED,
    MEASURED_OTHER,
    PRINTED,
    PRINTED_MIXUP,
    Dot,
    draw_relative_errors,
    measured_dots,
    printed_dots,
    reduction_of_printed,
    reduction_of_runs,
)
from sam.paper.cells import Printed, read_cells
from sam.record.reader import find_runs
from sam.report.paper_rows import match_paper
from tests.figures.drawn import caption_of, groups_of, lines_of
from tests.record.run_directories import write_run

CELLS = read_cells(Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv")


def write_seeds(root: Path, errors: dict[int, float], **changes: object) -> None:
    """Write one run per error, with the seeds 0, 1, ..."""
    for seed, error in errors.items():
        write_run(root, {"test_error_pct": error}, seed=seed, **changes)


def dots_of(root: Path) -> list[Dot]:
    groups = groups_of(root)
    return measured_dots(groups, match_paper(groups, find_runs([root])[0], CELLS), CELLS)


def draw(root: Path) -> Figure:
    groups = groups_of(root)
    return draw_relative_errors(groups, match_paper(groups, find_runs([root])[0], CELLS), CELLS)


def test_reduction_of_printed_errors_has_the_delta_interval() -> None:
    found = reduction_of_printed(Printed(4.0, 0.2, ""), Printed(3.0, 0.1, ""), 5)
    assert found.mean == pytest.approx(25)
    assert found.half_width == pytest.approx(100 * math.sqrt(0.1**2 + 0.75**2 * 0.2**2) / 4)
    # The same from random errors with these intervals.
    random = np.random.default_rng(0)
    base, sam = (
        4 + 0.2 / 1.96 * random.standard_normal(200_000),
        3 + 0.1 / 1.96 * random.standard_normal(200_000),
    )
    assert found.half_width == pytest.approx(1.96 * np.std(100 * (1 - sam / base)), rel=0.02)
    assert reduction_of_printed(Printed(4.0, None, ""), Printed(3.0, 0.1, ""), 5).half_width is None


def test_reduction_of_runs_is_paired_over_shared_seeds(tmp_path: Path) -> None:
    # SAM removes a tenth of the error for every seed, so the interval has no width.
    write_seeds(tmp_path, {0: 10.0, 1: 20.0, 2: 30.0, 7: 99.0})
    write_seeds(tmp_path, {0: 9.0, 1: 18.0, 2: 27.0, 8: 99.0}, optimizer__name="sam")
    sgd, sam = groups_of(tmp_path)
    found = reduction_of_runs(sgd, sam)
    assert (found.mean, found.half_width, found.num_values) == (
        pytest.approx(10),
        pytest.approx(0, abs=1e-9),
        3,
    )


def test_reduction_of_runs_has_the_interval_of_a_ratio_of_paired_means(tmp_path: Path) -> None:
    b, s = [10.0, 10.4, 9.8], [8.0, 8.1, 8.3]
    write_seeds(tmp_path, dict(enumerate(b)))
    write_seeds(tmp_path, dict(enumerate(s)), optimizer__name="sam")
    sgd, sam = groups_of(tmp_path)
    found = reduction_of_runs(sgd, sam)
    ratio = np.mean(s) / np.mean(b)
    # Var(s / b) = (Var s + r^2 Var b - 2 r Cov) / (n b^2); Student's t for two degrees of freedom.
    (var_s, cov), (_, var_b) = np.cov(s, b)
    deviation = math.sqrt((var_s + ratio**2 * var_b - 2 * ratio * cov) / 3) / np.mean(b)
    assert found.mean == pytest.approx(100 * (1 - ratio))
    assert found.half_width == pytest.approx(100 * 4.302653 * deviation, rel=1e-6)


def test_reduction_of_runs_without_two_shared_seeds_has_no_interval(tmp_path: Path) -> None:
    write_seeds(tmp_path, {0: 10.0, 1: 20.0})
    write_seeds(tmp_path, {1: 9.0, 2: 9.0}, optimizer__name="sam")
    found = reduction_of_runs(*groups_of(tmp_path))
    assert (found.mean, found.half_width) == (pytest.approx(40), None)


def test_printed_dots_are_those_of_the_papers_figure() -> None:
    dots = printed_dots(CELLS)
    counts = {
        section: sum(dot.section == section for dot in dots) for section in {dot.section for dot in dots}
    }
    # Table 3 without ImageNet, which has no number without SAM; Table 4 also from Mixup.
    assert counts == {
        "CIFAR-10": 15,
        "CIFAR-100": 15,
        "ImageNet": 9,
        "Finetuning": 16,
        "SVHN, F-MNIST": 8,
        "Noisy CIFAR": 8,
    }
    by_kind = {
        kind: [dot.reduction.mean for dot in dots if dot.kind == kind] for kind in (PRINTED, PRINTED_MIXUP)
    }
    assert [round(value) for value in by_kind[PRINTED_MIXUP]] == [30, 34, 41, 26]
    (negative,) = [dot for dot in dots if dot.reduction.mean < 0]
    assert negative.place.startswith("table5/svhn/shake_shake")
    assert negative.reduction.mean == pytest.approx(100 * (1.03 - 1.07) / 1.03)


def test_measured_dots_pair_a_cell_with_the_better_length_of_sgd(tmp_path: Path) -> None:
    write_seeds(tmp_path, {0: 5.0, 1: 5.0})
    write_seeds(tmp_path, {0: 4.0, 1: 4.0}, epochs=400)
    write_seeds(tmp_path, {0: 3.0, 1: 3.0}, optimizer__name="sam")
    (dot,) = dots_of(tmp_path)
    assert dot[:3] == ("CIFAR-10", "table1/cifar10/wrn_28_10_200/basic/sam", MEASURED)
    assert dot.reduction.mean == pytest.approx(25)


def test_measured_dots_outside_the_tables_are_compared_with_sgd_of_their_setting(tmp_path: Path) -> None:
    for noise in (0.0, 0.4):
        setting = {"dataset__name": "fashion_mnist_mini", "dataset__label_noise": noise}
        write_seeds(tmp_path, {0: 20.0}, **setting)
        for rho in (0.1, 0.2):
            write_seeds(tmp_path, {0: 10.0}, optimizer__name="sam", optimizer__rho=rho, **setting)
    alone = {"dataset__name": "svhn", "model__name": "resnet8"}
    write_seeds(tmp_path, {0: 10.0}, optimizer__name="sam", **alone)
    dots = dots_of(tmp_path)
    assert [(dot.section, dot.kind, dot.reduction.mean) for dot in dots] == [
        ("Other", MEASURED_OTHER, 50)
    ] * 4
    assert len({dot.place for dot in dots}) == 4


@pytest.mark.parametrize(
    ("changes", "section"),
    [
        ({"dataset__name": "cifar10", "dataset__label_noise": 0.4}, "Noisy CIFAR"),
        ({"dataset__name": "cifar100"}, "CIFAR-100"),
        ({"dataset__name": "pets", "dataset__reader": "image_folder", "model__weights": "hub"}, "Finetuning"),
    ],
)
def test_measured_dots_find_their_section(tmp_path: Path, changes: dict[str, object], section: str) -> None:
    for method in ("sgd", "sam"):
        write_run(tmp_path, optimizer__name=method, model__name="resnet8", **changes)
    (dot,) = dots_of(tmp_path)
    assert (dot.section, dot.kind) == (section, MEASURED_OTHER)


def test_draw_relative_errors_puts_measured_next_to_printed(tmp_path: Path) -> None:
    write_seeds(tmp_path, {0: 4.0, 1: 4.2})
    for rho in (0.05, 0.1):
        write_seeds(tmp_path, {0: 3.0, 1: 3.0}, optimizer__name="sam", optimizer__rho=rho)
    figure = draw(tmp_path)
    (axis,) = figure.axes
    lines = lines_of(axis)
    assert list(lines) == ["printed", "printed, from Mixup to SAM", "measured"]
    (x1, *_), (x2, *_) = lines["measured"]
    assert 0 < lines["printed"][0][0] < x1 < x2 < 1
    assert [label.get_text() for label in axis.get_xticklabels()][:2] == ["CIFAR-10", "CIFAR-100"]
    assert "n = 2" in caption_of(figure)


def test_draw_relative_errors_needs_neither_runs_nor_cells_but_one_of_them(tmp_path: Path) -> None:
    assert list(lines_of(draw(tmp_path).axes[0])) == ["printed", "printed, from Mixup to SAM"]
    with pytest.raises(ValueError, match="neither the paper's cells nor a setting"):
        draw_relative_errors([], {}, [])
