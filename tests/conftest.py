import gc
import os
import signal
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from sam.config.schema import TrainConfig

# Without Hydra, on a machine with a GPU, the tests of the optimizer, the networks and the updates run.
if find_spec("hydra"):
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


HAS_GPU = torch.cuda.is_available()


@contextmanager
def hidden_gpu():
    """Hide the GPU from this process and from all that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")  # this process has already read it, with HAS_GPU
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let a test with the mark gpu see the GPU, and every other test a machine without one.

    So runtime.device=auto is the CPU wherever a test compares bits of the CPU. This includes the fixtures.
    """
    if not HAS_GPU or item.get_closest_marker("gpu"):
        return (yield)
    with hidden_gpu():
        return (yield)


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
    from hydra._internal.hydra import Hydra

    from sam.config.mistakes import report_mistakes

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
    import evaluate as evaluate_script
    import train as train_script

    scripts = {"train.py": train_script, "evaluate.py": evaluate_script}
    return lambda script, *arguments: run_main(scripts[script].main, script, *arguments)
