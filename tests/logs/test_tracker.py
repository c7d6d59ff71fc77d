"""Tests of sam/logs/tracker.py, with stubs in the place of trackio and wandb."""

import sys
import types
from typing import Any

import pytest

from sam.logs.tracker import TrackerLog, import_tracker
from sam.system.errors import ConfigError

SETTINGS = {"optimizer.rho": 0.05, "model.name": "resnet8"}
ROW = {"epoch": 2, "step": 8, "train_loss": 0.5, "test_error_pct": 6.0, "lr": 0.1}


class Stub(types.ModuleType):
    """What both trackers offer; it writes down the calls."""

    def __init__(self, name: str, fault: Exception | None = None) -> None:
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []
        self._fault = fault

    def init(self, **arguments: Any) -> None:
        if self._fault is not None:
            raise self._fault
        self.calls.append(("init", arguments))

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("log", step, values))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture(params=["trackio", "wandb"])
def stub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stub:
    module = Stub(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def test_tracker_gets_settings_and_every_row_also_those_before_an_interruption(stub: Stub) -> None:
    log = TrackerLog(stub.__name__, "cifar10", "resnet8 seed 0", SETTINGS)
    log.restart([{**ROW, "epoch": 1}])
    log.advance(1, 3, 1.0)
    log.log(ROW)
    log.close()
    curves = {"train/loss": 0.5, "test/error_pct": 6.0, "other/lr": 0.1}
    assert stub.calls == [
        ("init", {"project": "cifar10", "name": "resnet8 seed 0", "config": SETTINGS}),
        ("log", 1, curves),
        ("log", 2, curves),
        ("finish",),
    ]


def test_tracker_that_did_not_start_is_not_finished(stub: Stub) -> None:
    TrackerLog(stub.__name__, "cifar10", "run", {}).close()
    assert stub.calls == []


def test_tracker_that_cannot_start_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Stub("wandb", RuntimeError("no API key\nmore")))
    log = TrackerLog("wandb", "cifar10", "run", {})
    with pytest.raises(ConfigError, match=r"^logger=wandb: wandb did not start \(no API key\); log in, "):
        log.restart([])
    log.close()


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_missing_package_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # an import fails as if there were no such package
    message = rf"^logger={name}: the package {name} is not installed; install it with pip install {name}, or "
    with pytest.raises(ConfigError, match=message):
        import_tracker(name)
