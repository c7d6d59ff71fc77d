"""Test of scripts/benchmarks/fsdp_objects.py: sharded updates leave no objects behind."""

import subprocess
import sys

import pytest

from tests.quick_process import ROOT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_updates_of_sharded_weights_leave_no_objects_behind():
    script = ROOT / "scripts" / "benchmarks" / "fsdp_objects.py"
    command = [sys.executable, str(script), "--updates", "50", "--only", "sam, adamw"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (line,) = (line for line in out.splitlines() if line.startswith("sam, adamw "))
    before, after, *_ = (float(word.replace(",", "")) for word in line.split()[2:])
    assert after - before < 40, "less than one object per update"
