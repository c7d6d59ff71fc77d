"""The smaller parts of scripts/gpu_check.sh: functions that emit results, and raise an error if they fail."""

import itertools
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS_OF_BATCHES = 2.0
Row = dict[str, Any]
Emit = Callable[[Row], None]  # takes a result as soon as it is there
# The tests in these folders need no Hydra.
TESTS_WITHOUT_HYDRA = ("analysis", "data", "models", "optim", "training")


def environment(device: torch.device, emit: Emit) -> None:
    """Emit the machine and the versions.

    Raises:
        RuntimeError: If there is no GPU.
    """
    row: Row = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    for name in ("torchvision", "timm", "hydra", "omegaconf", "pytest", "xdist", "tensorboard", "yaml"):
        row[name] = find_spec(name) is not None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError(
                "torch finds no GPU here; DEVICE=cpu bash scripts/gpu_check.sh rehearses on a CPU"
            )
        free, total = torch.cuda.mem_get_info(device)
        row |= {"card": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        row |= {"cudnn": torch.backends.cudnn.version(), "memory_gib": round(total / 2**30, 1)}
        row |= {"used_by_others_gib": round((total - free) / 2**30, 1)}
    product = torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
    assert product.sum().item() == 64**3
    emit(row)


def gpu_tests(device: torch.device, emit: Emit) -> None:
    """Run the tests that need a GPU and emit the outcome of each; without Hydra, those that need no Hydra.

    Raises:
        RuntimeError: If a test failed.
    """
    import pytest

    class Reporter:
        """A plugin that emits one row per test."""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                crash = getattr(report.longrepr, "reprcrash", None)  # none if the test was skipped
                reason = crash.message.partition("\n")[0] if crash else ""
                emit({"test": report.nodeid, "outcome": report.outcome, "reason": reason})

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                emit({"test": report.nodeid, "outcome": "failed", "reason": "it cannot be imported"})

    every = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [path for path in every if re.search("gpu", path.read_text("utf-8"), re.IGNORECASE)]
    if find_spec("hydra") is None:
        files = [path for path in files if path.parent.name in TESTS_WITHOUT_HYDRA]
    parallel = ["-n", "8", "--dist=loadgroup"] if find_spec("xdist") and device.type == "cuda" else []
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", *parallel]
    code = pytest.main([*options, *map(str, files)], plugins=[Reporter()])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with exit code {int(code)}")


def auto_augment(device: torch.device, emit: Emit) -> None:
    """Emit the images per second that reach the device, with AutoAugment on it and in worker processes."""
    from sam.build.data import load_dataset, make_train_batches
    from sam.build.resolved import resolve
    from sam.data.loading import end_workers
    from scripts.benchmarks.building import config_of
    from scripts.benchmarks.timing import wait

    is_cpu = device.type == "cpu"
    kinds = (("basic", "batch"), ("autoaugment", "batch"), ("autoaugment_released_code", "batch"))
    for augmentation, draws in (*kinds, ("autoaugment", "image")):
        config = config_of(
            {
                "dataset": "synthetic",
                "augmentation": augmentation,
                "augmentation.auto_augment_draws": draws,
                "batch_size": 32 if is_cpu else 256,
                "dataset.num_train": 64 if is_cpu else 51_200,
                "runtime.device": str(device),
                "runtime.workers": 0 if is_cpu else None,
            }
        )
        resolved = resolve(config)
        batches = make_train_batches(config, load_dataset(config.dataset, config.seed), resolved)
        endless = itertools.chain.from_iterable(batches.epoch(epoch) for epoch in itertools.count())
        for _ in zip(range(batches.steps_per_epoch), endless, strict=False):
            pass  # the first epoch starts what is started once
        wait(device)
        began, num_images = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS_OF_BATCHES:
            num_images += len(next(endless)[1])
        wait(device)
        seconds = time.perf_counter() - began
        end_workers()
        where = "in workers" if draws == "image" else "on the device"
        emit({"augmentation": f"{augmentation} {where}", "images_per_second": round(num_images / seconds)})


def hessian(device: torch.device, emit: Emit) -> None:
    """Emit the time of a Hessian product: eager, and compiled."""
    from sam.analysis.compiled_product import compiled_product
    from sam.analysis.hessian import SampleHessian
    from sam.analysis.sample import SampleLoss
    from sam.build.data import load_dataset
    from sam.build.network import make_network
    from scripts.benchmarks.building import config_of
    from scripts.benchmarks.timing import alternate, wait

    is_cpu = device.type == "cpu"
    changes: Row = {"dataset": "synthetic", "model": "resnet8" if is_cpu else "resnet20"}
    changes |= {"dataset.num_train": 20 if is_cpu else 1000, "dataset.num_test": 10, "batch_size": 20}
    if is_cpu:
        changes |= {"model.width": 4, "dataset.image_size": 12}
    config = config_of(changes)
    torch.manual_seed(0)
    data = load_dataset(config.dataset, config.seed)
    network = make_network(config.model, data, device).to(memory_format=torch.contiguous_format)
    side = data.train.shape[0]
    images = torch.randn(len(data.train), data.num_channels, side, side, device=device)
    targets = data.train.targets.to(device)
    sample = SampleLoss(network, images, targets, chunk_size=len(images) // 4)
    hessians = {"graphs kept": SampleHessian(sample, 2**33), "no graphs kept": SampleHessian(sample)}
    vector = torch.randn(1, hessians["graphs kept"].num_weights, device=device)
    number = 1 if is_cpu else 10

    def products(one: SampleHessian) -> None:
        for _ in range(number):
            one.products(vector)
        wait(device)

    def measure(kinds: dict[str, SampleHessian]) -> None:
        variants = {name: partial(products, one) for name, one in kinds.items()}
        for name, seconds in alternate(variants, 3).items():
            emit({"model": config.model.name, "variant": name, "ms": round(1000 * seconds / number, 2)})

    measure(hessians)
    # Last, because compiling may take longer than the limit.
    if not is_cpu and (product := compiled_product(sample, print)) is not None:
        measure({"compiled": SampleHessian(sample, compiled=product)})


def quickstart(device: torch.device, emit: Emit) -> None:
    """Train the quickstart's two runs and emit their results."""
    with tempfile.TemporaryDirectory() as folder:
        short = ["epochs=1"] if device.type == "cpu" else []
        _ended(_started(device, folder, "-m", "experiment=quickstart", "optimizer=sgd,sam", *short))
        for result in _results(folder):
            emit(result)


def kill_and_continue(device: torch.device, emit: Emit) -> None:
    """Kill a run as soon as it has saved, give the same command again, and emit the result.

    Raises:
        RuntimeError: If the run ended before, or does not go on to its end.
    """
    from scripts.benchmarks.whole_runs import kill_after_a_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        arguments = ("optimizer=sam", "epochs=3", "runtime.checkpoint_minutes=1e-9")
        kill_after_a_checkpoint(_started(device, folder, *arguments), pathlib.Path(folder))
        _ended(_started(device, folder, *arguments))
        (result,) = _results(folder)
        emit(result)


def _started(device: torch.device, folder: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start train.py on the device; with a few images in a rehearsal."""
    settings = [f"runtime.device={device}", f"outputs={folder}"]
    if device.type == "cuda":
        settings.append("runtime=gpu")
    if device.type == "cpu":
        settings += ["dataset.num_train=64", "dataset.num_test=20", "batch_size=16", "model.width=4"]
    command = [sys.executable, str(ROOT / "train.py"), *arguments, *settings]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def _ended(process: "subprocess.Popen[str]") -> None:
    """Wait for train.py.

    Raises:
        RuntimeError: If it failed.
    """
    _, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"train.py ended with exit code {process.returncode}: {err.strip()[-1000:]}")


def _results(folder: str) -> list[Row]:
    """Return what is of interest in each result.json."""
    keys = ("status", "test_error_pct", "seconds", "device")
    rows = []
    for path in sorted(pathlib.Path(folder).rglob("result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        rows.append({"run": path.parent.parent.name, **{key: result.get(key) for key in keys}})
    return rows
