"""Tests of sam/logs/trouble.py."""

import math

import pytest

from sam.logs import trouble
from sam.logs.trouble import TroubleLog

NOTHING_LEARNED = (
    "warning: run: the network has learned nothing in the last 3 epochs: after epoch {}, the training error "
    "is {:.2f} %, and a constant prediction has 90.00 %; try a smaller rho\n"
)


def _log(chance_pct: float = 90.0) -> TroubleLog:
    log = TroubleLog("run", chance_pct, "try a smaller rho")
    log.restart([])
    return log


def _row(epoch: int, error_pct: float, loss: float = 2.3) -> dict[str, float]:
    return {"epoch": epoch, "train_error_pct": error_pct, "train_loss": loss}


def test_third_epoch_at_chance_warns_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = _log()
    for epoch, error in enumerate([90.1, 89.5], start=1):
        log.log(_row(epoch, error))
    assert capsys.readouterr().err == ""
    log.log(_row(3, 89.9))
    assert capsys.readouterr().err == NOTHING_LEARNED.format(3, 89.9)
    log.log(_row(4, 90.0))
    assert capsys.readouterr().err == ""


def test_collapse_late_in_the_training_warns_too_also_after_an_interruption(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = _log()
    log.restart([_row(1, 40.0), _row(2, 90.0), _row(3, 90.0)])
    log.log(_row(4, 90.0))
    assert capsys.readouterr().err == NOTHING_LEARNED.format(4, 90.0)


@pytest.mark.parametrize(
    ("chance_pct", "errors"),
    [(90.0, [95.0, 88.9, 90.0]), (99.9, [99.8, 99.8, 99.8]), (10.0, [8.9, 8.9, 8.9]), (90.0, [90.0, 90.0])],
)
def test_network_that_learns_a_little_gives_no_warning(
    chance_pct: float, errors: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    log = _log(chance_pct)
    for epoch, error in enumerate(errors, start=1):
        log.log(_row(epoch, error))
    assert capsys.readouterr().err == ""


def test_loss_that_is_not_finite_warns_once_and_chance_is_then_not_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "SECONDS_BETWEEN_LOOKS", 0.0)
    log = _log()
    log.advance(1, 6, 2.3)
    for step in (7, 8):
        log.advance(1, step, math.nan)
    assert capsys.readouterr().err == (
        "warning: run: the training loss is not finite (epoch 2, update 7); the run will end after this "
        "epoch as diverged; try a smaller rho\n"
    )
    for epoch in (2, 3, 4):
        log.log(_row(epoch, 90.0, math.nan))
    assert capsys.readouterr().err == ""


def test_loss_is_read_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    reads = []

    class Loss:
        def __float__(self) -> float:
            reads.append(clock[0])
            return 1.0

    log = _log()
    for step in range(1, 31):
        clock[0] = step
        log.advance(0, step, Loss())
    assert reads == [10, 20, 30]


def test_run_without_epochs_gives_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    log = _log()
    log.log({"epoch": 0, "test_error_pct": 90.0})
    log.close()
    assert capsys.readouterr().err == ""
