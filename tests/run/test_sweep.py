"""Sweeps: skipped runs, the summary at the end, and training only the failed runs again."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from sam.build.network import make_network
from sam.record.directory import read_result
from sam.run import sweep
from tests.quick_process import ROOT
from tests.tiny import TINY


@pytest.mark.slow
def test_only_runs_that_have_not_ended_go_to_the_launcher_and_each_once(command, tmp_path, monkeypatch):
    line = ["-m", *TINY, "optimizer=sgd,sam", "optimizer.rho=0.1,0.2", "seed=0,1"]
    assert command("train.py", "-m", *TINY, "optimizer.rho=0.2", "seed=0,1")[0] == 0
    handed = []
    launch = sweep.Plugins.instance().instantiate_launcher

    def watched(**keywords):
        launcher = launch(**keywords)
        original = launcher.launch
        launcher.launch = lambda jobs, **k: handed.extend(jobs) or original(jobs, **k)
        return launcher

    monkeypatch.setattr(sweep.Plugins.instance(), "instantiate_launcher", watched)
    code, out, _ = command("train.py", *line)
    assert code == 0
    own = [[word for word in job if word.startswith(("optimizer", "seed"))] for job in handed]
    assert own == [
        ["optimizer=sgd", "optimizer.rho=0.1", "seed=0"],  # SGD does not read rho
        ["optimizer=sgd", "optimizer.rho=0.1", "seed=1"],
        ["optimizer=sam", "optimizer.rho=0.1", "seed=0"],
        ["optimizer=sam", "optimizer.rho=0.1", "seed=1"],
    ]
    assert out.startswith("2 of 6 runs ended before, skipped (force=true starts them from the beginning)\n")
    assert out.endswith("\n6 runs: 6 complete, 0 diverged, 0 failed\n")
    handed.clear()
    assert command("train.py", *line)[0] == 0
    assert handed == []


def test_ended_runs_are_skipped_without_loading_torch(command, tmp_path):
    line = [*TINY, "seed=0,1"]
    assert command("train.py", "-m", *line)[0] == 0
    script = (
        "import runpy, sys\n"
        f"sys.argv = {['train.py', '-m', *line]!r}\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "finally:\n"
        "    print('torch' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout.endswith("2 runs: 2 complete, 0 diverged, 0 failed\nFalse\n"), ended.stderr


@pytest.mark.slow
def test_failures_are_reported_with_a_command_that_trains_only_them(command, tmp_path, monkeypatch):
    model = make_network

    def crash(config, *arguments):
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr("sam.build.network.make_network", crash)
    assert command("train.py", "-m", *TINY, "optimizer.rho=0.1", "seed=0,1", "force=true")[0] == 1
    monkeypatch.setattr(
        "sam.build.network.make_network", lambda c, *a: (crash if c.width == 5 else model)(c, *a)
    )
    line = ["-m", *TINY, "model.width=5,4", "optimizer.lr=-1,0.1", "optimizer=sgd"]
    code, out, err = command("train.py", *line)
    assert code == 1, "some failures are not mistakes of the user"
    assert out.endswith("\n4 runs: 1 complete, 0 diverged, 3 failed\n")
    *_, first, why, second, why_second, third, why_third, again = err.splitlines()
    assert (first, why) == (
        "failed: model.width=5 optimizer.lr=-1",
        "  optimizer.lr=-1.0: allowed is a number > 0",
    )
    assert (second, third) == (
        "failed: model.width=4 optimizer.lr=-1",
        "failed: model.width=5 optimizer.lr=0.1",
    )
    assert why_third == "  a fault of the program"
    monkeypatch.setattr("sam.build.network.make_network", model)
    told, _, again = again.partition(": ")
    assert told == "only these again"
    code, out, _ = command("train.py", *shlex.split(again)[2:], "optimizer.lr=0.1")
    assert code == 0
    assert "\n2 runs: 2 complete, 0 diverged, 0 failed\n" in out


def test_sweep_of_mistakes_alone_ends_with_2(command, tmp_path):
    code, out, err = command("train.py", "-m", *TINY, "epochs=-1,-2")
    assert (code, out) == (2, "2 runs: 0 complete, 0 diverged, 2 failed\n")
    assert err.count("error: epochs=-1: ") == 1 and err.count("error: epochs=-2: ") == 1
    assert {path.name for path in tmp_path.rglob("outputs/*")} == {".multirun"}


@pytest.mark.slow
def test_runs_may_be_listed_in_a_file(command, tmp_path):
    lines = ["# two runs", "", "seed=7", "seed=8 'outputs=with space'"]
    (tmp_path / "runs.txt").write_text("\n".join(lines))
    code, out, err = command("train.py", "-m", "hydra.sweeper.file=runs.txt", *TINY, "optimizer=sgd,sam")
    assert code == 0, err
    seeds = sorted(json.loads(path.read_text())["seed"] for path in tmp_path.rglob("result.json"))
    assert seeds == [7, 7, 8, 8]
    assert len(list((tmp_path / "with space").rglob("result.json"))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "No such file"), (b"seed='1", "No closing quotation"), (b"\xff\xfe", "can't decode")],
)
def test_file_that_cannot_be_read_is_a_mistake(command, tmp_path, text, message):
    if text is not None:
        (tmp_path / "runs.txt").write_bytes(text)
    code, out, err = command("train.py", "-m", "hydra.sweeper.file=runs.txt", *TINY)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: hydra.sweeper.file=runs.txt cannot be read") and message in err


@pytest.mark.parametrize(("launcher", "package"), [("ray", "ray"), ("submitit_slurm", "submitit")])
def test_launcher_that_is_not_installed_says_how_to_install_it(command, monkeypatch, launcher, package):
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None)
    code, out, err = command("train.py", "-m", f"hydra/launcher={launcher}", *TINY)
    assert (code, out) == (2, "")
    assert err == (
        f"error: hydra/launcher={launcher} is not installed; pip install 'hydra-{package}-launcher>=1.2,<2'\n"
    )


def test_stopped_sweep_says_how_many_runs_ended(command, tmp_path, monkeypatch):
    def stop(config, *arguments):
        if config.width == 5:
            raise SystemExit(143)
        return model(config, *arguments)

    model = make_network
    monkeypatch.setattr("sam.build.network.make_network", stop)
    code, out, _ = command("train.py", "-m", *TINY, "model.width=4,5,6")
    assert code == 143
    assert out.endswith("\nstopped; 1 of 3 runs ended; the same command goes on\n")


def test_forced_run_that_fails_before_it_begins_does_not_count_as_ended(command, tmp_path, monkeypatch):
    assert command("train.py", *TINY)[0] == 0
    monkeypatch.setattr("sam.build.network.make_network", lambda *a: 1 / 0)
    code, out, err = command("train.py", "-m", *TINY, "force=true")
    assert (code, out.splitlines()[-1]) == (1, "1 run: 0 complete, 0 diverged, 1 failed")
    (directory,) = {path.parent for path in tmp_path.rglob("result.json")}
    assert read_result(directory) is not None
    (file,) = tmp_path.rglob("failed-*.txt")
    assert "force=true" in file.read_text().lower()


def test_program_is_found_by_jobs_that_start_elsewhere(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    for _ in range(2):
        sweep._export_checkout_path()
        assert os.environ["PYTHONPATH"] == f"{ROOT}{os.pathsep}/elsewhere"


@pytest.mark.slow
def test_command_for_failed_runs_works_with_any_name_of_the_folder(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for outputs in ("'o (x) é & ~'", "'~/runs'", "'a=b#c'"):
        code, _, err = command("train.py", "-m", *TINY, "epochs=-1", f"outputs={outputs}")
        assert code == 2
        again = shlex.split(err.splitlines()[-1].partition("only these again: ")[2])
        code, out, err = command("train.py", *again[2:], "epochs=1")
        assert (code, out.splitlines()[-1]) == (0, "1 run: 1 complete, 0 diverged, 0 failed"), err
    assert {path.name for path in tmp_path.iterdir()} == {"o (x) é & ~", "home", "a=b#c"}


def test_force_is_refused_where_a_job_may_be_started_again(command, monkeypatch):
    monkeypatch.setattr(sweep.Plugins.instance(), "instantiate_launcher", lambda **keywords: None)
    code, out, err = command("train.py", "-m", "hydra/launcher=ray", *TINY, "force=true")
    assert (code, out) == (2, "")
    assert err.startswith("error: force=true with hydra/launcher=ray would delete a run whenever")
