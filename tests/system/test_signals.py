"""Tests of sam/system/signals.py: a run saves its state, then a scheduler's handler gets the signal."""

import os
import signal

import pytest

from sam.system import signals as stops
from sam.training.update import Update
from tests.tiny import TINY


def ask_to_stop(monkeypatch, number):
    """Send a signal to this process in the first update."""
    update = Update.__call__

    def asked(*arguments):
        os.kill(os.getpid(), number)
        return update(*arguments)

    monkeypatch.setattr(Update, "__call__", asked)


@pytest.mark.parametrize(
    ("number", "code", "answers"),
    [(signal.SIGUSR1, 138, 1), (signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 0)],
)
def test_handler_of_a_scheduler_gets_its_signal_after_the_state_is_saved(
    command, tmp_path, monkeypatch, number, code, answers
):
    ask_to_stop(monkeypatch, number)
    saved = []
    before = signal.signal(
        signal.SIGUSR1, lambda *_: saved.append(len(list(tmp_path.rglob("checkpoint.pt"))))
    )
    try:
        assert command("train.py", *TINY)[0] == code
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert saved == [1] * answers


def test_signal_of_a_scheduler_without_a_handler_saves_and_ends(command, tmp_path, monkeypatch):
    ask_to_stop(monkeypatch, signal.SIGUSR1)
    code, _, err = command("train.py", *TINY)
    assert (code, signal.getsignal(signal.SIGUSR1)) == (138, signal.SIG_DFL)
    assert err.startswith("stopped and saved; continue with: python train.py")
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 1


def test_handler_of_a_scheduler_may_fail_after_the_state_is_saved(command, tmp_path, monkeypatch):
    ask_to_stop(monkeypatch, signal.SIGUSR2)
    before = signal.signal(signal.SIGUSR2, lambda *_: 1 / 0)
    try:
        code, out, err = command("train.py", *TINY)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert code == 140
    assert "warning: division by zero" in out + err
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 1


def test_run_that_slurm_preempts_waits_after_saving_until_slurm_ends_it(command, tmp_path, monkeypatch):
    ask_to_stop(monkeypatch, signal.SIGTERM)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    done = []
    monkeypatch.setattr(stops.time, "sleep", lambda seconds: done.append((seconds, *tmp_path.rglob("*.pt"))))
    before = signal.signal(signal.SIGTERM, lambda *_: done.append("passed"))
    try:
        assert command("train.py", *TINY)[0] == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done[0] == "passed"
    ((seconds, checkpoint),) = done[1:]
    assert (seconds, checkpoint.name) == (stops.SECONDS_TO_BE_ENDED, "checkpoint.pt")
