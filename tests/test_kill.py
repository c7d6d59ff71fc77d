"""Runs that are killed and go on end with the bits of runs that were never killed."""

import pathlib
import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("num_kills", "seed"),
    [(40, 1), pytest.param(400, 2, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
def test_killed_runs_end_with_the_bits_of_undisturbed_runs(tmp_path, num_kills, seed):
    script = pathlib.Path(__file__).with_name("kill_campaign.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(num_kills), str(seed)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    *lives, summary = ended.stdout.splitlines()
    kills, unequal = map(int, re.fullmatch(r"(\d+) kills, (\d+) unequal", summary).groups())
    assert unequal == 0, "\n".join(line for line in lives if "UNEQUAL" in line)
    assert kills >= num_kills
    inside_a_checkpoint = sum(line.count("('save', ") for line in lives)
    assert inside_a_checkpoint >= num_kills / 10
