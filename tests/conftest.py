import gc
import os
import signal
import sys
from typing import Any

import pytest
import torch
from hydra._internal.hydra import Hydra

import evaluate as evaluate_script
import train as train_script
from sam.config.mistakes import report_mistakes
from sam.config.schema import TrainConfig
from tests.paper.made_up_cells import use_cells  # noqa: F401 - a fixture

# Two tests at once on two cores, and the same bits whatever the machine.
torch.set_num_threads(1)
# Runs with runtime.deterministic=true share this process with tests that start CUDA before them.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# A shell that starts the tests in the background has them, and all that they start, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Run slow tests first, so that no process waits at the end while another one has a long test left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish():
    """Spare every later search for garbage the million objects of imported libraries and collected tests."""
    gc.collect()
    gc.freeze()


def changed(changes: dict[str, Any]) -> TrainConfig:
    """Return the default config with other values at dotted keys."""
    config = TrainConfig()
    for key, value in changes.items():
        *groups, last = key.split(".")
        section: Any = config
        for group in groups:
            section = getattr(section, group)
        assert hasattr(section, last)
        setattr(section, last, value)
    return config


@pytest.fixture
def run_main(monkeypatch, capsys, tmp_path):
    """Run a main function in this process, in an empty folder; return exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(main, script, *arguments):
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        if not any(argument.startswith("hydra.mode=") for argument in arguments):
            # Hydra composes the whole config an extra time, only to learn that no one set hydra.mode.
            monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        code = 0
        try:
            report_mistakes(main)
        except SystemExit as ending:
            code = ending.code
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def command(run_main):
    """Run train.py or evaluate.py as run_main does."""
    scripts = {"train.py": train_script, "evaluate.py": evaluate_script}
    return lambda script, *arguments: run_main(scripts[script].main, script, *arguments)
