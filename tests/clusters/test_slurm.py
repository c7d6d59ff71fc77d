"""A sweep on a real Slurm, of which one job is cancelled, one preempted and one told that its time is up."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

import pytest

from sam.record.directory import read_result
from tests.clusters.slurm_cluster import slurm, why_not
from tests.faults.lives import equal, outcome
from tests.tiny import TINY

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, str(ROOT / "train.py")]
RUNS = [*TINY, "epochs=30", "dataset.num_train=512", "optimizer=sam", "seed=0,1,2,3"]
ON_SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(why_not()), reason=f"no Slurm here: {why_not()}"),
]


def directory_of(folder, seed):
    return next(iter(folder.rglob(f"seed{seed}-*")), folder / "none")


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.2)


def rows(folder, seed):
    metrics = directory_of(folder, seed) / "metrics.csv"
    return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0


def test_jobs_that_are_cancelled_preempted_or_out_of_time_end_with_the_bits_of_undisturbed_runs(tmp_path):
    undisturbed, outputs = tmp_path / "undisturbed", tmp_path / "outputs"
    subprocess.run([*TRAIN, "-m", *RUNS, f"outputs={undisturbed}"], check=True, capture_output=True)
    with slurm(tmp_path / "slurm") as env:
        sweep = subprocess.Popen(
            [*TRAIN, "-m", *ON_SLURM, *RUNS, f"outputs={outputs}"],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: rows(outputs, 0) > 2)
        [number] = set(re.findall(r"(\d+)_", subprocess.check_output(["squeue"], env=env, text=True)))
        subprocess.run(["scancel", f"{number}_0"], env=env, check=True)
        wait_until(lambda: rows(outputs, 1) > 4)
        told = subprocess.Popen(["scancel", "--signal=USR2", f"{number}_1"], env=env)
        wait_until(lambda: rows(outputs, 2) > 1)
        told.kill()  # it would send the signal again to the job that goes on
        told.wait()
        urgent = ["sbatch", "--partition=urgent", f"--cpus-per-task={os.cpu_count()}", "--wrap", "sleep 1"]
        subprocess.run(urgent, env=env, cwd=tmp_path, check=True)
        out, err = sweep.communicate(timeout=600)
        logs = "\n".join(path.read_text() for path in outputs.rglob("*_log.err"))
    assert sweep.returncode == 1, err
    assert "4 runs: 3 complete, 0 diverged, 1 failed" in out
    assert "failed: seed=0\n" in err and "CANCELLED" in err
    assert logs.count("stopped and saved") >= 3, logs
    assert "Caught signal SIGUSR2" in logs, "submitit queued the job again"
    assert "preempted" in (tmp_path / "slurm" / "slurmctld.log").read_text()
    assert read_result(directory_of(outputs, 0)) is None

    again = shlex.split(err.splitlines()[-1].partition("only these again: ")[2])
    assert again[-2:] == ["hydra.launcher.cpus_per_task=1", f"outputs={outputs}"]
    with slurm(tmp_path / "slurm_again") as env:
        ended = subprocess.run(
            [*TRAIN, *again[2:]], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert "1 run: 1 complete, 0 diverged, 0 failed" in ended.stdout
    for seed in range(4):
        ends = [outcome(directory_of(folder, seed)) for folder in (outputs, undisturbed)]
        assert equal(*ends)
