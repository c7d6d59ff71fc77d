"""Tests of sam/logs/console.py."""

import io
import sys

import pytest

from sam.logs.console import ConsoleLog

ROW = {"epoch": 2, "train_error_pct": 12.345, "test_error_pct": 6.789, "images_per_second": 1234.5}


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_console_without_terminal_prints_a_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    log = ConsoleLog("mini/resnet8 seed 0", epochs=20, steps_per_epoch=39)
    log.restart([])
    for step in range(39):
        log.advance(1, step, 1.0)
    log.log(ROW)
    log.close()
    captured = capsys.readouterr()
    assert captured.out == (
        "mini/resnet8 seed 0: epoch 2 of 20, error train 12.35 %, test 6.79 %, 1234 images/s\n"
    )
    assert captured.err == ""


def test_console_without_terminal_says_where_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    log = ConsoleLog("run", epochs=20, steps_per_epoch=39)
    log.restart([ROW, ROW, ROW])
    log.close()
    assert capsys.readouterr().out == "run: goes on after epoch 3 of 20\n"


def test_console_on_a_terminal_shows_a_bar_with_the_last_errors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log = ConsoleLog("run", epochs=4, steps_per_epoch=10)
    log.restart([])
    log.advance(0, 10, 1.0)
    log.advance(1, 10, 1.0)
    log.log(ROW)
    log.close()
    last = terminal.getvalue().rstrip("\n").split("\r")[-1]
    assert last.startswith("run  50%|")
    assert "epoch 2: train 12.35 %, test 6.79 %" in last
    assert capsys.readouterr().out == ""


def test_console_on_a_terminal_goes_on_in_the_middle_of_an_epoch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log = ConsoleLog("run", epochs=4, steps_per_epoch=10)
    log.restart([ROW, ROW])
    log.advance(2, 5, 1.0)
    log.close()
    bars = terminal.getvalue().split("\r")
    assert any(" 50%|" in bar for bar in bars)
    assert " 62%|" in bars[-1]
    assert "run: goes on after epoch 2 of 4" in capsys.readouterr().out
