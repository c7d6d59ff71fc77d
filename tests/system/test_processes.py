"""Tests of sam/system/processes.py."""

import pytest

from sam.system.processes import ProcessInfo, this_process

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


@pytest.fixture(autouse=True)
def without_torchrun(monkeypatch):
    for name in (*TORCHRUN, "TORCHELASTIC_MAX_RESTARTS"):
        monkeypatch.delenv(name, raising=False)


def test_process_without_torchrun_is_a_single_process():
    assert this_process() == ProcessInfo()
    assert this_process().is_main


def test_place_comes_from_the_variables_of_torchrun(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    assert this_process() == ProcessInfo(5, 8, 1, 4, is_launched=True)
    assert not this_process().is_main
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert this_process().may_restart
