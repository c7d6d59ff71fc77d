"""Measure speed and memory side by side: python scripts/benchmark.py {data,step} [KEY=VALUE ...].

data    images per second that reach the network: our batches beside torchvision's transforms in a
        DataLoader with two workers, the same flip, crop and cutout, one thread each
step    time, images per second and peak memory of an update: SGD beside SAM

Variants take turns in short blocks, so that whatever else the machine does hits all alike; a ratio is that
of the median block times. Keys are those of train.py. The table goes to the terminal, --json FILE keeps it.

    python scripts/benchmark.py data dataset=cifar10 augmentation=cutout
    python scripts/benchmark.py step dataset=cifar10 model=resnet20 batch_size=128 m=null
"""

import argparse
import copy
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler otherwise tells of every start

import torch  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir  # noqa: E402
from torch.profiler import profile  # noqa: E402
from torchvision import transforms  # noqa: E402

from sam import build  # noqa: E402
from sam.cli import checked, report_mistakes  # noqa: E402
from sam.config import TrainConfig  # noqa: E402
from sam.data.images import Dataset  # noqa: E402
from sam.result import commit  # noqa: E402
from sam.training.distributed import World  # noqa: E402
from sam.training.precision import Precision  # noqa: E402
from sam.training.update import Update  # noqa: E402

Row = dict[str, Any]


def alternate(variants: dict[str, Callable[[], None]], num_blocks: int) -> dict[str, float]:
    """Run each variant once per block, in turn, after one block to warm up; return median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for block in range(num_blocks + 1):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            if block:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PlainImages(torch.utils.data.Dataset[Any]):
    """What most training scripts do: one PIL image at a time through torchvision's transforms."""

    def __init__(self, config: TrainConfig, data: Dataset) -> None:
        self._pixels, self._targets = data.train.pixels.cpu().numpy(), data.train.targets.cpu()
        size = self._pixels.shape[1:3]
        steps: list[Any] = [transforms.ToPILImage()]
        if config.augmentation.crop_padding:
            padding = config.augmentation.crop_padding
            steps.append(transforms.RandomCrop(size, padding, padding_mode="reflect"))
        if config.augmentation.flip:
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        if share := min(1.0, config.augmentation.cutout_size**2 / (size[0] * size[1])):
            steps.append(transforms.RandomErasing(p=1, scale=(share, share), ratio=(1, 1)))
        self._transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> Any:
        return self._transform(self._pixels[index]), self._targets[index]


def benchmark_data(config: TrainConfig, num_blocks: int) -> list[Row]:
    """Time an epoch of batches (ours) and 40 batches (the DataLoader)."""
    torch.set_num_threads(1)
    device = build.device(config.runtime.device)
    data = build.dataset(config.dataset, config.seed).to(device)
    batches = build.train_batches(config, data, device, World())
    loader = torch.utils.data.DataLoader(
        PlainImages(config, data), config.batch_size, shuffle=True, num_workers=2, persistent_workers=True
    )
    plain = iter(loader)
    counts = {"batches in memory": batches.steps_per_epoch, "DataLoader, 2 workers": 40}

    def ours() -> None:
        for _ in batches.epoch(0):
            pass
        wait(device)

    def theirs() -> None:
        nonlocal plain
        for _ in range(counts["DataLoader, 2 workers"]):
            if next(plain, None) is None:
                plain = iter(loader)

    seconds = alternate({"batches in memory": ours, "DataLoader, 2 workers": theirs}, num_blocks)
    return [
        {"variant": name, "images_per_second": round(counts[name] * config.batch_size / seconds[name])}
        for name in seconds
    ]


def make_update(config: TrainConfig, data: Dataset, device: torch.device) -> Update:
    """Build model, optimizer and rule of a config."""
    torch.manual_seed(config.seed)
    network = build.model(config.model, data, device)
    called = torch.compile(network) if config.runtime.compile else network
    return build.update(config, network, called, Precision(config.runtime.precision, device))  # type: ignore[arg-type]


def peak_memory_bytes(make: Callable[[], Callable[[], object]], device: torch.device) -> int:
    """Return the most bytes that tensors made by make() and two calls of its result held at once."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run = make()
        run(), run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as record:
        run = make()
        run(), run()
    held = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def benchmark_step(config: TrainConfig, num_blocks: int) -> list[Row]:
    """Time blocks of five updates on one batch, and count the memory of two."""
    device = build.device(config.runtime.device, config.runtime.precision)
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    data = build.dataset(config.dataset, config.seed).to(device)
    images, targets = next(iter(build.train_batches(config, data, device, World()).epoch(0)))
    configs = {}
    for name in ("sgd", "sam"):
        configs[name] = copy.deepcopy(config)
        configs[name].optimizer.name = name

    def steps(update: Update) -> Callable[[], None]:
        def run() -> None:
            for _ in range(5):
                update(images, targets, config.optimizer.lr)
            wait(device)

        return run

    def one_step(name: str) -> Callable[[], object]:
        update = make_update(configs[name], data, device)
        return lambda: update(images, targets, config.optimizer.lr)

    memory = {name: peak_memory_bytes(partial(one_step, name), device) for name in configs}
    updates = {name: make_update(configs[name], data, device) for name in configs}
    seconds = alternate({name: steps(update) for name, update in updates.items()}, num_blocks)
    weights = [w for group in updates["sgd"].rule.optimizer.param_groups for w in group["params"]]
    parameter_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
    return [
        {
            "variant": name,
            "step_ms": round(1000 * seconds[name] / 5, 2),
            "images_per_second": round(5 * len(targets) / seconds[name], 1),
            "time_over_sgd": round(seconds[name] / seconds["sgd"], 3),
            "peak_memory_mib": round(memory[name] / 2**20, 2),
            "copies_of_parameters_over_sgd": round((memory[name] - memory["sgd"]) / parameter_bytes, 3),
        }
        for name in configs
    ]


def main() -> None:
    """Compose, measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["data", "step"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--blocks", type=int, default=20, help="how often variants take turns")
    parser.add_argument("--json", type=pathlib.Path, help="keep the table and where it was measured")
    arguments = parser.parse_args()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = checked(compose("train", arguments.overrides), TrainConfig)
    rows = {"data": benchmark_data, "step": benchmark_step}[arguments.what](config, arguments.blocks)
    for key in rows[0]:
        print(f"{key:<32}" + "".join(f"{row[key]!s:>24}" for row in rows))
    record = {
        "command": "python scripts/benchmark.py " + " ".join(sys.argv[1:]),
        "commit": commit(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    print(", ".join(f"{key} {record[key]}" for key in ("commit", "torch", "threads")))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    report_mistakes(main)
