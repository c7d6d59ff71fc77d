"""Tests of the readers with thousands of runs, which tests/report/many_runs.py writes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sam.record.reader import find_runs
from tests.report.many_runs import write_many

ROOT = Path(__file__).resolve().parents[2]
# Runs a script and prints its peak memory in KiB.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_runs_have_the_format_of_the_trainer_except_the_damaged_ones(tmp_path: Path) -> None:
    write_many(tmp_path, 120, max_epochs=3)
    runs, problems = find_runs([tmp_path])
    assert (len(runs), len(problems)) == (119, 1)
    assert sum(run.result is None for run in runs) == 5
    assert sum(run.result is not None and run.result["status"] == "diverged" for run in runs) == 2
    assert {run.last_epoch for run in runs if run.result and run.result["status"] == "complete"} == {3}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_runs_take_less_than_a_gibibyte(tmp_path: Path) -> None:
    # Memory and page grow with the number of runs along a line, which two smaller numbers give.
    few, more = 500, 1500
    for number in (few, more):
        # With 20 rows at most, since no reader keeps the rows of all runs.
        write_many(tmp_path / str(number), number, max_epochs=20)
    for script in ("compare", "report"):
        kib = {number: _peak_kib(script, tmp_path / str(number), number // 500) for number in (few, more)}
        assert kib[few] + (kib[more] - kib[few]) / (more - few) * (10_000 - few) < 2**20
    assert (tmp_path / str(more) / "report.html").stat().st_size < 10_000_000 * more / 10_000


def _peak_kib(script: str, outputs: Path, num_damaged: int) -> int:
    """Return the memory that a script takes for all runs of a folder."""
    command = [sys.executable, "-c", MEASURE, str(ROOT / "scripts" / f"{script}.py"), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    status, peak_kib = map(int, done.stdout.split())
    assert status == 0
    damaged = re.findall("^warning: .* (?:cannot be read|is damaged)", done.stderr, re.MULTILINE)
    assert len(damaged) == num_damaged
    return peak_kib
