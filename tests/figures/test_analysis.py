"""Tests of sam/figures/analysis.py."""

from pathlib import Path

import pytest

from sam.figures.analysis import DRAWINGS, draw_analysis
from sam.record.analyses import NAMES, Analysis
from tests.record.analysis_files import rise_row, write_analysis, write_hessian, write_surface
from tests.record.run_directories import write_run

TITLES = dict(zip(NAMES, ("m-sharp", "Hess", "Loss land", "First"), strict=True))


def _write(root: Path, name: str) -> Analysis:
    directory = write_run(root)
    if name == "hessian":
        return write_hessian(directory, [3.0, 1.0])
    if name == "landscape":
        return write_surface(directory, 3.0)
    result = {"rows": [rise_row(1, 0.5)], "cosines": [0.9], "mean": 0.9}
    return write_analysis(directory, name, result)


@pytest.mark.parametrize(("name", "title"), TITLES.items())
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_every_analysis_has_its_picture(tmp_path: Path, name: str, title: str, suffix: str) -> None:
    assert set(DRAWINGS) == set(NAMES)
    figure = draw_analysis(_write(tmp_path, name))
    assert figure.get_suptitle().startswith(title)
    figure.savefig(tmp_path / f"picture.{suffix}")
    assert (tmp_path / f"picture.{suffix}").stat().st_size > 1000
