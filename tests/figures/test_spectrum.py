"""Tests of sam/figures/spectrum.py."""

from pathlib import Path

import numpy as np
import pytest

from sam.figures.density import spectral_density
from sam.figures.spectrum import draw_spectrum, fig3_spectrum, spread
from sam.figures.style import SAM_COLOUR, SGD_COLOUR
from sam.record.analyses import read_arrays
from tests.figures.drawn import caption_of, groups_of
from tests.record.analysis_files import write_hessian
from tests.record.run_directories import write_run

TOP = [30.0, 12.0, 9.0, 8.0, 6.0]


def _texts(axis) -> str:
    return " ".join(text.get_text() for text in axis.texts)


def test_draw_spectrum_shows_density_eigenvalues_and_numbers(tmp_path: Path) -> None:
    analysis = write_hessian(write_run(tmp_path), TOP)
    figure = draw_spectrum(analysis)
    (axis,) = figure.axes
    density, marks = axis.lines
    nodes, weights = read_arrays(analysis, "nodes", "weights")
    sigma = np.sqrt(1e-5) * (nodes.max() - nodes.min())
    expected = spectral_density(nodes, weights, density.get_xdata(), sigma)
    np.testing.assert_allclose(density.get_ydata(), expected)
    assert list(marks.get_xdata()) == TOP
    assert axis.get_yscale() == "log"
    for text in ("$ = 30", "$ = 5", "trace = 65 ± 1.5"):
        assert text in _texts(axis)
    assert "3 probes of 20 steps" in caption_of(figure)
    figure.draw_without_rendering()


def test_draw_spectrum_shows_one_eigenvalue_alone(tmp_path: Path) -> None:
    analysis = write_hessian(write_run(tmp_path), TOP)
    axis = draw_spectrum(analysis).axes[0]
    grid, density = axis.lines[0].get_data()
    # One of 10,000 eigenvalues has the weight 1e-4.
    assert density[np.abs(grid - 30).argmin()] > 5 * axis.get_ylim()[0]


def test_draw_spectrum_without_a_fifth_eigenvalue_has_no_ratio(tmp_path: Path) -> None:
    axis = draw_spectrum(write_hessian(write_run(tmp_path), [3.0, 1.0])).axes[0]
    assert "lambda_5" not in _texts(axis)


def test_fig3_has_epochs_as_rows_and_conditions_as_columns_on_the_same_axes(tmp_path: Path) -> None:
    for name, share in (("sgd", 1.0), ("sam", 0.2)):
        for seed in (3, 4):
            directory = write_run(tmp_path, optimizer__name=name, seed=seed)
            for epoch in (1, 50, 200):
                write_hessian(directory, [share * (seed + epoch) * value for value in TOP], epoch)
    figure = fig3_spectrum(groups_of(tmp_path))
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes[:2]] == ["SGD, seed 3", "SAM rho=0.05, seed 3"]
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == [
        f"Epoch {epoch}\nDensity" for epoch in (1, 50, 200)
    ]
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in figure.axes}) == 1
    assert [axis.lines[0].get_color() for axis in figure.axes] == [SGD_COLOUR, SAM_COLOUR] * 3
    assert list(figure.axes[3].lines[1].get_xdata()) == pytest.approx([0.2 * 53 * value for value in TOP])
    assert "$ = 318" in _texts(figure.axes[3])
    assert "n = 2" in caption_of(figure)


def test_fig3_leaves_room_for_an_epoch_that_a_condition_lacks(tmp_path: Path) -> None:
    write_hessian(write_run(tmp_path), TOP, 1)
    write_hessian(write_run(tmp_path, optimizer__name="sam"), TOP, 200)
    figure = fig3_spectrum(groups_of(tmp_path))
    assert ["not measured" in _texts(axis) for axis in figure.axes] == [False, True, True, False]


def test_fig3_quotes_the_paper_for_its_network_only(tmp_path: Path) -> None:
    write_hessian(write_run(tmp_path / "other"), TOP)
    assert "paper" not in caption_of(fig3_spectrum(groups_of(tmp_path / "other")))
    write_hessian(write_run(tmp_path / "same", model__name="wrn_40_10_nobn"), TOP)
    caption = caption_of(fig3_spectrum(groups_of(tmp_path / "same")))
    assert r"The paper prints: SGD epoch 1 $\lambda_{max}$ 62.9, ratio 2.5;" in caption
    assert r"SAM epoch 300 $\lambda_{max}$ 1.0, ratio 2.6." in caption


def test_fig3_without_spectra_says_how_to_make_them(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(ValueError, match="analysis=hessian"):
        fig3_spectrum(groups_of(tmp_path))


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [({5}, [5]), ({3, 1, 2}, [1, 2, 3]), (set(range(1, 11)), [1, 4, 7, 10]), (set(range(5)), [0, 1, 3, 4])],
)
def test_spread_keeps_first_and_last(epochs: set[int], expected: list[int]) -> None:
    assert spread(epochs, 4) == expected
