"""Malicious analyses and evaluations do not block a reader, fill its memory or reveal a secret."""

import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sam.figures.report_pictures import draw_pictures
from sam.paper.cells import CELLS
from sam.record.analyses import read_analyses, read_arrays
from sam.record.evaluations import read_calibration
from sam.report.comparison import read_comparison
from sam.report.markup import escape
from tests.record.analysis_files import write_hessian, write_surface
from tests.record.run_directories import write_run

MEBIBYTE = 2**20


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_file_does_not_block_a_reader(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    hessian = write_hessian(run, [3.0])
    os.remove(hessian.arrays)
    os.mkfifo(hessian.arrays)
    with pytest.raises(ValueError, match="it is not a regular file; run the analysis again"):
        read_arrays(hessian, "nodes")
    os.remove(hessian.path)
    os.mkfifo(hessian.path)
    analyses, (problem,) = read_analyses(run)
    assert (analyses, problem.reason) == ([], "it is not a regular file")
    os.mkfifo(run / "evaluation-test.json")
    assert read_calibration(run, "test", 200) is None


def test_arrays_that_unpack_to_more_than_their_file_are_refused(tmp_path: Path) -> None:
    hessian = write_hessian(write_run(tmp_path), [3.0])
    with (
        zipfile.ZipFile(hessian.arrays, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("nodes.npy", "w") as record,
    ):
        header = {"descr": "<f8", "fortran_order": False, "shape": (64 * MEBIBYTE // 8,)}
        np.lib.format.write_array_header_1_0(record, header)  # type: ignore[arg-type]
        for _ in range(64):
            record.write(bytes(MEBIBYTE))
    assert hessian.arrays.stat().st_size < MEBIBYTE
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="it claims to hold 6710"):
        read_arrays(hessian, "nodes")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_a_file_that_is_not_a_picture_is_not_put_into_the_report(tmp_path: Path) -> None:
    surface = write_surface(write_run(tmp_path), 1.0)
    secret = tmp_path / "secret"
    secret.write_text("gold" * 3)
    surface.path.with_suffix(".png").symlink_to(secret)
    (picture,) = draw_pictures(read_comparison([tmp_path], CELLS)).analyses
    assert "Z29sZGdvbGRnb2xk" not in picture.drawing  # "goldgoldgold" in base 64


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\\|b", r"a\\\|b"),
        ("![x](https://a.b/c.png)", r"![x]\(https://a.b/c.png)"),
        ("resnet [a] (b)", "resnet [a] (b)"),
    ],
)
def test_text_breaks_no_table_and_fetches_nothing(text: str, escaped: str) -> None:
    assert escape(text) == escaped
