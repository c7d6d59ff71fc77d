"""runtime=ddp: train.py starts several processes itself. Numbers, failures and signals, from a shell."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch

from sam.record.directory import read_result
from sam.run.launch import launch
from sam.system.errors import ConfigError, ProcessError
from sam.system.signals import StopRequest
from tests.conftest import changed
from tests.quick_process import ROOT, TRAIN, QuickProcess, run
from tests.test_train import metrics, only_run, without_times
from tests.tiny import TINY

TWO = [*TINY, "m=4", "runtime=ddp", "runtime.processes=2"]
LONG = [TRAIN, *TWO, "dataset.num_train=512", "epochs=300"]
GO_ON = "the same command goes on from the last checkpoint, if there is one"


def start(arguments, folder):
    """Start Python in a new process group, as a terminal does."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def run_afresh(arguments, folder):
    command = [sys.executable, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def long_run(request, tmp_path):
    """Start a run of two processes and wait for its first epoch; a parameter chooses the way to start."""
    run = getattr(request, "param", start)(LONG, tmp_path)
    assert "epoch 1 of 300" in run.stdout.readline()
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def started(run):
    """Return the running processes of a run in the order of their ranks."""
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True)
    pids = map(int, children.stdout.split())
    return sorted(pid for pid in pids if is_alive(pid) and "resource_tracker" not in command_line(pid))


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def workers_of(run):
    """Return both processes of a run."""
    pids = started(run)
    assert len(pids) == 2
    return pids


@pytest.mark.ddp
@pytest.mark.slow
def test_sweep_trains_each_run_like_torchrun_to_the_bit_and_skips_it_later(tmp_path):
    sweep = [TRAIN, "-m", *TWO, "epochs=2", "seed=0,1", "outputs=mine"]
    ended = run_afresh(sweep, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("epoch 1 of 2") == ended.stdout.count("complete: ") == 2
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", TRAIN]
    other = run_afresh([*torchrun, *TINY, "m=4", "epochs=2", "outputs=torchrun"], tmp_path)
    assert other.returncode == 0, other.stderr
    theirs = only_run(tmp_path / "torchrun")
    (mine,) = (tmp_path / "mine").rglob(theirs.name)
    assert read_result(mine)["processes"] == 2
    assert without_times(metrics(mine)) == without_times(metrics(theirs))
    states = [torch.load(path / "checkpoint.pt", weights_only=True)["model"] for path in (mine, theirs)]
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    again = run(sweep, tmp_path)
    assert again.stdout.startswith("2 of 2 runs ended before, skipped")


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["m=null"], "m=null: with 2 processes, a micro-batch would be one process's share of the batch"),
        # Only rank 0 reads this, while the other process waits.
        (["dataset.label_file=no.npz"], "dataset=synthetic: there is no file no.npz"),
    ],
)
def test_mistake_found_by_the_processes_is_reported_once(tmp_path, overrides, message):
    ended = run([TRAIN, *TWO, *overrides], tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {message}")
    assert ended.stderr.count(message) == 1 and "Traceback" not in ended.stderr
    assert not list(tmp_path.rglob("config.yaml")), "a run directory was written"


# Rank 1 fails once, in the second epoch. Each process runs this script again, so each one is patched.
FAILING = f"""
import os, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
import sam.training.update, train
from sam.config.mistakes import report_mistakes
update, calls = sam.training.update.Update.__call__, []
def fail_once(self, *arguments, **keywords):
    calls.append(1)
    if len(calls) == 4 and os.environ["RANK"] == "1" and not os.path.exists("failed"):
        pathlib.Path("failed").touch()
        raise ArithmeticError("a fault of the program")
    return update(self, *arguments, **keywords)
sam.training.update.Update.__call__ = fail_once
if __name__ == "__main__":
    report_mistakes(train.main)
"""


@pytest.mark.slow
@pytest.mark.ddp
def test_process_that_fails_gives_its_traceback_and_the_sweep_and_the_run_go_on(command, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    started = time.monotonic()
    sweep = [tmp_path / "failing.py", "-m", *TWO, "epochs=3", "seed=0,1"]
    ended = run(sweep, tmp_path)
    assert ended.returncode == 1
    assert time.monotonic() - started < 120, "a process waited for a timeout"
    assert ended.stderr.startswith("Traceback (most recent call last):\n")
    told, _, rest = ended.stderr.partition("error: ")
    assert told.endswith("ArithmeticError: a fault of the program\n")
    assert rest.startswith(f"process of rank 1 failed; {GO_ON} (job ")
    assert "Traceback" not in rest and "Connection closed" not in ended.stderr
    assert [path.parent.name[:5] for path in tmp_path.rglob("result.json")] == ["seed1"]
    code, out, err = command("train.py", *TINY, "m=4", "epochs=3")
    assert (code, err) == (0, "")
    assert "on after epoch 1 of 3" in out
    (directory,) = tmp_path.rglob("seed0-*")
    assert read_result(directory)["processes"] == 1
    assert len(metrics(directory)) == 3


@pytest.mark.ddp
@pytest.mark.parametrize(
    "long_run", [QuickProcess, pytest.param(start, marks=pytest.mark.slow)], indirect=True
)
def test_process_that_is_killed_ends_the_run_in_seconds(long_run):
    os.kill(workers_of(long_run)[1], signal.SIGKILL)
    _, err = long_run.communicate(timeout=40)
    assert long_run.returncode == 1
    # Python may add that the dead process has left a semaphore.
    assert err.startswith(f"error: process of rank 1 died of SIGKILL; {GO_ON}\n")
    assert "Traceback" not in err


@pytest.mark.ddp
@pytest.mark.slow
def test_process_that_hangs_ends_the_run_within_the_limit(tmp_path):
    impatient = [*TWO, "dataset.num_train=512", "epochs=300", "runtime.timeout_minutes=0.2"]
    run = start([TRAIN, *impatient], tmp_path)
    try:
        assert "epoch 1 of 300" in run.stdout.readline()
        os.kill(workers_of(run)[1], signal.SIGSTOP)
        # The launcher gives the process that hangs 30 seconds to end.
        _, err = run.communicate(timeout=12 + 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 1
    told = "process of rank 0 has received nothing from another process for runtime.timeout_minutes=0.2: the"
    # Python may add that the dead process has left a semaphore.
    assert err.startswith(f"error: {told} network between them is cut, or that process hangs; {GO_ON}\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(("local_rank", "told"), [("0", f"error: it is gone; {GO_ON}\n"), ("1", "")])
def test_loss_of_a_process_is_reported_once_on_each_machine(command, monkeypatch, local_rank, told):
    def lose(config, command):
        raise ProcessError("it is gone")

    monkeypatch.setattr("sam.run.worker.run", lose)
    monkeypatch.setattr("sam.run.launch.SECONDS_BEFORE_FAILING", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert command("train.py", *TINY) == (1, "", told)


def test_force_is_refused_if_torchrun_may_restart(command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    code, out, err = command("train.py", *TINY, "force=true")
    assert (code, out) == (2, "")
    assert err.startswith("error: force=true under torchrun --max-restarts would delete the run at every")


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("long_run", "signal_number", "code", "send"),
    [
        (QuickProcess, signal.SIGTERM, 143, os.kill),
        pytest.param(QuickProcess, signal.SIGUSR2, 140, os.kill, marks=pytest.mark.slow),
        pytest.param(start, signal.SIGINT, 130, os.killpg, marks=pytest.mark.slow),
        pytest.param(start, signal.SIGUSR2, 140, os.killpg, marks=pytest.mark.slow),  # as Slurm does
    ],
    indirect=["long_run"],
)
def test_signal_saves_and_says_once_how_to_go_on(long_run, tmp_path, signal_number, code, send):
    send(long_run.pid, signal_number)
    _, err = long_run.communicate(timeout=60)
    assert long_run.returncode == code
    assert err.startswith("stopped and saved; continue with: python train.py dataset=synthetic")
    assert err.count("stopped and saved") == 1 and "Traceback" not in err
    state = torch.load(only_run(tmp_path) / "checkpoint.pt", weights_only=True)
    assert state["progress"]["epoch"] >= 1
    assert len(state["random"]) == 2


def test_signal_that_a_launcher_repeats_counts_as_one_request(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sam.system.signals.time.monotonic", lambda: now[0])
    request = StopRequest()
    request.handle(signal.SIGTERM, None)
    now[0] += 1
    request.handle(signal.SIGINT, None)
    assert request.signal_number == signal.SIGTERM
    now[0] += 2
    with pytest.raises(SystemExit, match="130"):
        request.handle(signal.SIGINT, None)


def test_launch_needs_a_gpu_for_each_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = changed({"runtime.processes": 2})
    with pytest.raises(ConfigError, match="runtime.processes=2, but the number of GPUs here is 1; lower"):
        launch(config, "")
    config.runtime.device = "cuda:0"
    with pytest.raises(ConfigError, match="runtime.device=cuda:0 is one GPU for 2 processes; use cuda"):
        launch(config, "")


@pytest.mark.slow
@pytest.mark.ddp
def test_processes_end_when_their_launcher_is_killed(tmp_path, long_run):
    pids = workers_of(long_run)
    long_run.kill()
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process is alive after the end of its launcher"
        time.sleep(0.1)
    directory = only_run(tmp_path)
    assert (directory / "checkpoint.pt").exists() and not (directory / "result.json").exists()


def is_alive(pid):
    try:
        return "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][:1]
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.ddp
def test_ctrl_c_while_processes_start_ends_them_without_a_traceback(tmp_path):
    running = start([TRAIN, *TWO, "epochs=300"], tmp_path)
    deadline = time.monotonic() + 60
    while len(started(running)) < 2:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
