"""Tests of what reading and comparing runs imports."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "statement",
    [
        "import sam.report.table, sam.report.markdown, sam.figures.curves",
        "import runpy; runpy.run_path('scripts/compare.py')",
    ],
)
def test_report_imports_neither_torch_nor_matplotlib(statement: str) -> None:
    program = f"{statement}\nimport sys; print(*({{'torch', 'matplotlib'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
