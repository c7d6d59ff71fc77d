"""Tests of sam/figures/report_pictures.py."""

import re
from pathlib import Path

import pytest

from sam.figures import report_pictures
from sam.figures.report_pictures import draw_pictures
from sam.report.comparison import Comparison, read_comparison
from tests.record.analysis_files import write_analysis, write_hessian, write_sharpness
from tests.record.run_directories import falling_errors, write_run

CELLS = Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv"


def _read(root: Path) -> Comparison:
    return read_comparison([root], CELLS)


@pytest.mark.slow
def test_pictures_are_those_of_curves_sharpness_and_single_runs(tmp_path: Path) -> None:
    names = {}
    for method in ("sgd", "sam"):
        run = write_run(tmp_path, metrics=falling_errors(5, 3.0), optimizer__name=method)
        write_hessian(run, [20.0] * 5)
        write_sharpness(run, {1: 0.2, 16: 0.1})
        names[method] = run.name
    comparison = _read(tmp_path)
    pictures = draw_pictures(comparison)
    key = comparison.setting_tables[0].setting.key
    assert list(pictures.curves) == list(pictures.sharpness) == [key]
    assert [picture.caption for picture in pictures.analyses] == [
        f"{kind}, {label}, {names[method]}, after epoch 200"
        for method, label in (("sgd", "SGD"), ("sam", "SAM rho=0.05"))
        for kind in ("m-sharpness", "Spectrum of the Hessian")
    ]
    # m-sharpness has two panels next to each other.
    assert [picture.is_wide for picture in pictures.analyses] == [True, False, True, False]
    assert {picture.is_wide for picture in pictures.curves.values()} == {False}
    marks = [
        name
        for picture in [*pictures.curves.values(), *pictures.sharpness.values(), *pictures.analyses]
        for name in re.findall(r'\bid="([^"]+)"', picture.drawing)
    ]
    assert len(set(marks)) == len(marks) > 0
    assert pictures.left_out == []


def test_pictures_show_the_largest_comparisons_and_tell_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_pictures, "MAX_CURVES", 1)
    monkeypatch.setattr(report_pictures, "MAX_ANALYSES", 1)
    for seed in (0, 1, 2):
        write_run(tmp_path, metrics=falling_errors(5, 3.0), seed=seed, model__name="alone")
    for method in ("sgd", "sam"):
        run = write_run(tmp_path, metrics=falling_errors(5, 3.0), optimizer__name=method)
        write_hessian(run, [20.0] * 5)
    comparison = _read(tmp_path)
    pictures = draw_pictures(comparison)
    (key,) = pictures.curves
    assert {group.is_sam for group in comparison.groups if group.setting.key == key} == {True, False}
    assert pictures.left_out == [
        "Error against the epoch: not drawn for 1 settings with fewer runs",
        "1 analyses are not drawn; for each kind and condition, the report shows the last analysis of one "
        "run, and 1 pictures at most; the folder analysis of each run has all its pictures",
    ]


def test_pictures_of_a_surface_take_its_saved_file(tmp_path: Path) -> None:
    analysis = write_analysis(write_run(tmp_path), "landscape", {"loss_at_centre": 0.1})
    analysis.path.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (picture,) = draw_pictures(_read(tmp_path)).analyses
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in picture.drawing


def test_pictures_pass_over_what_is_broken(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_hessian(run, [20.0] * 5).arrays.unlink()
    write_sharpness(run, {}).path.write_text("{")
    pictures = draw_pictures(_read(tmp_path))
    assert (pictures.curves, pictures.analyses) == ({}, [])
    text = "\n".join(pictures.left_out)
    assert "no complete run has epochs in its metrics.csv" in text
    assert re.search(r"hessian-epoch200-\w+\.npz cannot be read", text)
    assert re.search(r"sharpness-epoch200-\w+\.json", text)
