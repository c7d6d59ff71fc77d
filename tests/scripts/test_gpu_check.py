"""Tests of scripts/gpu_check.sh: on a CPU, with tiny networks, and of what happens if a part fails."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from scripts import gpu_check
from scripts.gpu_check import PartOutcome

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_rehearsal_on_a_cpu_runs_every_part(tmp_path):
    environment = {**os.environ, "DEVICE": "cpu", "PYTHON": sys.executable}
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), "--json", "results.json"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(gpu_check.PARTS, "passed")
    assert all(part["rows"] for part in parts.values())
    assert not any(row["failed"] for row in parts["speed"]["rows"])
    lines = ended.stdout.splitlines()
    assert len(lines) <= 60
    assert [line for line in lines if "equal bits" in line] == [
        "  the same command twice: equal bits",
        "  killed and continued: equal bits",
    ]


def test_parts_after_a_failed_one_run_and_what_was_found_is_kept(tmp_path, monkeypatch, capsys):
    found = {
        "environment": PartOutcome("passed", 1.0, [{"torch": "2.9", "hydra": False}]),
        "tests": PartOutcome(
            "failed: RuntimeError: one", 2.0, [{"test": "t", "outcome": "failed", "reason": "r"}]
        ),
        "determinism": PartOutcome("failed: stopped at its limit of 3 s", 3.0, [], "its last output"),
        "quickstart": PartOutcome("skipped: needs hydra-core"),
    }
    monkeypatch.setattr(gpu_check, "run", lambda name, device, limit: found[name])
    path = tmp_path / "new" / "results.json"
    arguments = ["tests", "determinism", "quickstart", "--json", str(path)]
    assert gpu_check.main(arguments) == 1
    assert json.loads(path.read_text())["parts"]["determinism"]["log"] == "its last output"
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == [
        "environment (1 s): passed",
        "  torch 2.9",
        "  not installed: hydra",
        "tests (2 s): failed: RuntimeError: one",
        "  0 passed, 1 failed, 0 skipped",
        "  t: r",
        "determinism (3 s): failed: stopped at its limit of 3 s",
        "quickstart (0 s): skipped: needs hydra-core",
    ]
    assert lines[-1].startswith("1 passed, 2 failed, 1 skipped")


def test_without_a_gpu_nothing_else_runs(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(gpu_check, "run", lambda name, *_: ran.append(name) or PartOutcome("failed: no GPU"))
    assert (gpu_check.main(["--json", str(tmp_path / "results.json")]), ran) == (2, ["environment"])


def test_part_without_its_package_or_without_time_is_skipped(monkeypatch):
    monkeypatch.setattr(gpu_check, "find_spec", lambda name: None if name == "hydra" else name)
    assert gpu_check.run("quickstart", "cpu", 100).status == "skipped: needs hydra-core"
    assert gpu_check.run("hessian", "cpu", 5).status == "skipped: no time is left"


def test_part_that_takes_too_long_is_ended_with_all_that_it_has_started(tmp_path):
    sleeper = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"
    )
    child = f"import time; time.sleep(1.5); open({str(tmp_path / 'alive')!r}, 'w')"
    with (tmp_path / "out").open("w") as out:
        assert gpu_check._exit_code([sys.executable, "-c", sleeper, child], out, out, 0.7, {}) is None
    time.sleep(1.2)
    assert not (tmp_path / "alive").exists()


@pytest.mark.slow
def test_error_of_a_part_is_its_status():
    outcome = gpu_check.run("environment", "nonsense", 60)
    assert outcome.status.startswith("failed: RuntimeError: ") and "nonsense" in outcome.log
    assert outcome.rows == []
