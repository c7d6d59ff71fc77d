"""Measure speed and memory side by side: python scripts/benchmark.py {data,step,models} [KEY=VALUE ...].

data    images per second that reach the network: our batches beside torchvision's transforms in a
        DataLoader (runtime.workers of them), the same augmentation, one thread each
step    time, images per second and peak memory of an update: SGD beside SAM, for each of several m if asked
models  two updates of every model with SGD and with SAM, each in a process of its own: time and peak memory

Variants take turns in short blocks, so that whatever else the machine does hits all alike; a ratio is that
of the median block times. (models runs each variant once.) Keys are those of train.py. The table goes to the
terminal, --json FILE keeps it.

    python scripts/benchmark.py data dataset=cifar10 augmentation=cutout
    python scripts/benchmark.py data dataset=imagenet augmentation=inception batch_size=50 m=null
    python scripts/benchmark.py step dataset=cifar10 model=resnet20 batch_size=128 m=null
    python scripts/benchmark.py step dataset=cifar10 model=wrn_16_4 --m 32 256
    python scripts/benchmark.py models --only wrn_28_10 resnet50
"""

import argparse
import copy
import csv
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler otherwise tells of every start

import torch  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir  # noqa: E402
from torch.profiler import profile  # noqa: E402
from torchvision import transforms  # noqa: E402

from sam import build, build_data  # noqa: E402
from sam.cli import checked, report_mistakes  # noqa: E402
from sam.config import ConfigError, TrainConfig  # noqa: E402
from sam.data.images import Dataset  # noqa: E402
from sam.data.policies import GREY  # noqa: E402
from sam.result import commit  # noqa: E402
from sam.training.distributed import World  # noqa: E402
from sam.training.precision import Precision  # noqa: E402
from sam.training.update import Update  # noqa: E402

Row = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)


def alternate(variants: Mapping[Key, Callable[[], None]], num_blocks: int) -> dict[Key, float]:
    """Run each variant once per block, in turn, after one block to warm up; return median seconds."""
    seconds: dict[Key, list[float]] = {name: [] for name in variants}
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
        self._split = data.train
        chosen, size = config.augmentation, data.train.shape[:2]
        policy = chosen.auto_augment
        steps: list[Any] = []
        interpolation = transforms.InterpolationMode(config.dataset.interpolation)
        if chosen.inception_crop:
            steps.append(transforms.RandomResizedCrop(size, interpolation=interpolation))
        elif not config.dataset.in_memory:
            resize_size = config.dataset.resize_size or size[0]
            steps += [transforms.Resize(resize_size, interpolation), transforms.CenterCrop(size)]
        if policy != "none":
            steps.append(transforms.AutoAugment(transforms.AutoAugmentPolicy(policy), fill=GREY))
        if chosen.crop_padding:
            mode = "reflect" if chosen.padding == "reflect" else "constant"
            steps.append(transforms.RandomCrop(size, chosen.crop_padding, padding_mode=mode))
        if chosen.flip:
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        if share := min(1.0, chosen.cutout_size**2 / (size[0] * size[1])):
            steps.append(transforms.RandomErasing(p=1, scale=(share, share), ratio=(1, 1)))
        self._transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Any:
        return self._transform(self._split.picture(index)), self._split.targets[index]


def benchmark_data(config: TrainConfig, num_blocks: int) -> list[Row]:
    """Time the last batches of an epoch, ours and a DataLoader's."""
    if config.augmentation.mixup_alpha:
        raise ConfigError("augmentation.mixup_alpha: the DataLoader beside ours has no mixup; leave it out")
    torch.set_num_threads(1)
    device = build.device(config.runtime.device)
    data = build_data.dataset(config.dataset, config.seed)
    num_workers = 2 if config.runtime.workers is None else config.runtime.workers
    config.runtime.workers = num_workers
    batches = build_data.train_batches(config, data, device, World())
    num_batches = min(40, batches.steps_per_epoch)
    some = torch.randperm(len(data.train))[: num_batches * config.batch_size].tolist()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(PlainImages(config, data), some),
        config.batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )

    def walk(start: Callable[[], Iterable[Any]]) -> None:
        for _ in start():
            pass
        wait(device)

    ours = partial(batches.epoch, 0, batches.steps_per_epoch - num_batches)
    variants = {"ours": partial(walk, ours), "DataLoader": partial(walk, loader.__iter__)}
    seconds = alternate(variants, num_blocks)
    return [
        {
            "variant": name,
            "images_per_second": round(num_batches * config.batch_size / seconds[name]),
            "workers": 0 if name == "ours" and not batches.uses_workers else num_workers,
        }
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


def benchmark_step(config: TrainConfig, num_blocks: int, ms: list[int]) -> list[Row]:
    """Time blocks of five updates on one batch, and count the memory of two, for SGD and SAM and each m."""
    device = build.device(config.runtime.device, config.runtime.precision)
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    data = build_data.dataset(config.dataset, config.seed)
    images, targets, clean = next(iter(build_data.train_batches(config, data, device, World()).epoch(0)))
    configs = {}
    sizes: list[int | None] = [*ms] or [config.m]
    for name, m in itertools.product(("sgd", "sam"), sizes):
        variant = configs[name, m] = copy.deepcopy(config)
        variant.optimizer.name, variant.m = name, m

    def steps(update: Update, count: int) -> None:
        for _ in range(count):
            update(images, targets, config.optimizer.lr, clean)
        wait(device)

    def one_step(variant: TrainConfig) -> Callable[[], object]:
        return partial(steps, make_update(variant, data, device), 1)

    memory = {key: peak_memory_bytes(partial(one_step, variant), device) for key, variant in configs.items()}
    updates = {key: make_update(variant, data, device) for key, variant in configs.items()}
    seconds = alternate({key: partial(steps, update, 5) for key, update in updates.items()}, num_blocks)
    some_update = next(iter(updates.values()))
    weights = [w for group in some_update.rule.optimizer.param_groups for w in group["params"]]
    parameter_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
    largest = max(ms, default=config.m)
    return [
        {
            "variant": f"{name}, m={m or 'all'}",
            "step_ms": round(1000 * seconds[name, m] / 5, 2),
            "images_per_second": round(5 * len(targets) / seconds[name, m], 1),
            "time_over_sgd": round(seconds[name, m] / seconds["sgd", m], 3),
            "time_over_largest_m": round(seconds[name, m] / seconds[name, largest], 3),
            "peak_memory_mib": round(memory[name, m] / 2**20, 2),
            "copies_of_parameters_over_sgd": round((memory[name, m] - memory["sgd", m]) / parameter_bytes, 3),
        }
        for name, m in configs
    ]


def benchmark_models(overrides: list[str], models: list[str]) -> list[Row]:
    """Train every model for two updates of two micro-batches of 4, with SGD and with SAM, on made-up images.

    Images have 32 pixels a side, those of timm's models 96. Each run is a process of its own.
    """
    rows = []
    for model, name in itertools.product(models, ("sgd", "sam")):
        is_timm = "architecture: timm" in (ROOT / "configs" / "model" / f"{model}.yaml").read_text()
        with tempfile.TemporaryDirectory() as outputs:
            command = [sys.executable, str(ROOT / "train.py"), f"model={model}", f"optimizer={name}"]
            command += ["dataset=synthetic", f"dataset.image_size={96 if is_timm else 32}", "m=4", "epochs=1"]
            command += ["batch_size=8", "dataset.num_train=16", "dataset.num_test=4", f"outputs={outputs}"]
            ended = subprocess.run([*command, *overrides], capture_output=True, text=True)
            if ended.returncode:
                raise ConfigError(f"model={model} optimizer={name}: {ended.stderr.strip()}")
            (path,) = pathlib.Path(outputs).rglob("result.json")
            result = json.loads(path.read_text())
            (epoch,) = csv.DictReader((path.parent / "metrics.csv").read_text().splitlines())
        rows.append(
            {
                "variant": f"{model}, {name}",
                "parameters": result["num_parameters"],
                "step_s": round(float(epoch["seconds"]) / 2, 3),
                "peak_memory_mib": round(result["peak_memory_mib"]),
                "status": result["status"],
            }
        )
        print(*rows[-1].values(), sep="  ", flush=True)
    return rows


def print_columns(rows: list[Row]) -> None:
    """Print a column per variant."""
    for key in rows[0]:
        print(f"{key:<32}" + "".join(f"{row[key]!s:>24}" for row in rows))


def main() -> None:
    """Compose, measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["data", "step", "models"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--blocks", type=int, default=20, help="how often variants take turns")
    parser.add_argument("--m", type=int, nargs="+", default=[], help="step: values of m to compare")
    parser.add_argument("--only", nargs="+", help="models: these instead of all")
    parser.add_argument("--json", type=pathlib.Path, help="keep the table and where it was measured")
    arguments = parser.parse_args()
    if arguments.what == "models":
        every = sorted(path.stem for path in (ROOT / "configs" / "model").glob("*.yaml"))
        rows = benchmark_models(arguments.overrides, arguments.only or [m for m in every if m != "timm"])
    else:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            config = checked(compose("train", arguments.overrides), TrainConfig)
        if arguments.what == "data":
            rows = benchmark_data(config, arguments.blocks)
        else:
            rows = benchmark_step(config, arguments.blocks, arguments.m)
        print_columns(rows)
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
