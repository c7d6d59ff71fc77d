"""Tests of sam/figures/compute.py."""

from pathlib import Path

import pytest

from sam.figures.compute import draw_error_by_compute, draw_error_by_epochs
from tests.figures.drawn import caption_of, groups_of, lines_of
from tests.record.run_directories import write_run


def write_length(root: Path, method: str, epochs: int, error: float, seed: int = 0, repeats: int = 1) -> None:
    """Write a run: one pass per step for SGD, two for SAM, and 3 seconds per epoch and pass."""
    passes = 1 + (method == "sam")
    metrics = [
        {"epoch": epoch, "test_error_pct": error + epochs - epoch, "passes": passes, "seconds": 3.0 * passes}
        for epoch in range(1, epochs + 1)
    ]
    counts = {"steps": 10 * epochs, "forward_backward_passes": 10 * epochs * passes}
    result = {"test_error_pct": error, "seconds": 3.0 * passes * epochs, **counts}
    names = {"optimizer__name": method, "epochs": epochs, "seed": seed}
    write_run(root, result, metrics, dataset__repeats=repeats, **names)


@pytest.mark.parametrize("repeats", [1, 3])
def test_error_by_compute_places_final_errors_and_the_way_there(tmp_path: Path, repeats: int) -> None:
    for seed in (0, 1):
        for method, epochs, error in (("sgd", 2, 9.0), ("sgd", 4, 8.0), ("sam", 2, 7.0)):
            write_length(tmp_path, method, epochs, error + seed, seed, repeats)
    figure = draw_error_by_compute(groups_of(tmp_path))
    left, right = figure.axes
    sgd, sam = lines_of(left).values()
    assert list(lines_of(left)) == ["SGD", "SAM rho=0.05"]
    assert [(x, y) for x, y, _ in sgd] == [(2.0 * repeats, 9.5), (4.0 * repeats, 8.5)]
    assert [(x, y) for x, y, _ in sam] == [(4.0 * repeats, 7.5)]
    assert [(x, y) for x, y, _ in lines_of(right)["SAM rho=0.05"]] == [(12.0, 7.5)]
    ways = [
        [list(line.get_xdata()), list(line.get_ydata())]
        for axis in (left, right)
        for line in axis.lines
        if line.get_alpha()
    ]
    assert [[2.0 * repeats, 4.0 * repeats], [8.5, 7.5]] in ways[:3]
    assert [[3.0, 6.0, 9.0, 12.0], [11.5, 10.5, 9.5, 8.5]] in ways[3:]
    assert "n = 2" in caption_of(figure)


def test_error_by_epochs_draws_a_line_for_each_method(tmp_path: Path) -> None:
    for method in ("sgd", "sam"):
        for epochs, error in ((5, 9.0), (10, 8.0), (20, 7.5)):
            write_length(tmp_path, method, epochs, error - (method == "sam"))
    (axis,) = draw_error_by_epochs(groups_of(tmp_path)).axes
    assert lines_of(axis) == {
        "SGD": [(5, 9.0, None), (10, 8.0, None), (20, 7.5, None)],
        "SAM rho=0.05": [(5, 8.0, None), (10, 7.0, None), (20, 6.5, None)],
    }
    assert list(axis.get_xticks()) == [5, 10, 20]


@pytest.mark.parametrize(
    ("draw", "message"),
    [(draw_error_by_compute, "both SGD and SAM"), (draw_error_by_epochs, "two lengths")],
)
def test_compute_figures_without_a_pair_say_what_is_missing(tmp_path: Path, draw, message: str) -> None:
    write_length(tmp_path, "sgd", 5, 9.0)
    with pytest.raises(ValueError, match=message):
        draw(groups_of(tmp_path))
