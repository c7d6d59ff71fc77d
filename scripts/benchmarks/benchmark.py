"""Measure speed and memory of several variants: benchmark.py WHAT [KEY=VALUE ...].

data    images per second that reach the network: our batches, and a DataLoader (with runtime.workers
        workers) with torchvision's transforms; both with the same augmentation and one thread. For
        AutoAugment on whole batches also image by image, with the ratio to it: median, lowest and highest
step    time, images per second and peak memory of training, batches included, for all combinations of the
        given rules, precisions and values of m; --plain adds the usual training loop
        (scripts/benchmarks/plain_loop.py: a DataLoader with two workers, fp32, SAM tensor by tensor)
optimizer  time of SAM without its passes, for a thousand small parameters, and of a loop over tensors
models  time and peak memory of two updates of every model with SGD and with SAM, each in a new process
hessian  time of a Hessian's largest eigenvalues and density, with curvlinops and hessian-eigenthings too
products  time and memory of one product with the Hessian: double backward, forward over reverse, compiled

Variants alternate in short blocks, so that other load on the machine affects all of them equally. Ratios are
ratios of median block times. (models runs each variant once.) Keys are those of train.py. The table is
printed; --json FILE also writes it to a file.

    python benchmark.py data dataset=cifar10 augmentation=cutout
    benchmark.py data dataset=imagenet augmentation=inception batch_size=50 m=null
    benchmark.py step dataset=cifar10 model=wrn_16_2 m=null --plain --precision fp32 bf16
    benchmark.py step dataset=cifar10 model=resnet20 m=null --rules sgd sam quarter look_sam
    benchmark.py step dataset=cifar10 model=wrn_16_4 --m 32 256
    benchmark.py models --only wrn_28_10 resnet50
    benchmark.py hessian dataset=cifar10 model=resnet20 dataset.num_train=1000 --blocks 3
    benchmark.py products dataset=cifar10 model=wrn_16_4 dataset.num_train=1000 runtime.device=cuda
"""

import argparse
import copy
import csv
import dataclasses
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # otherwise the profiler logs every start

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # this checkout, whatever is installed

from sam.build.data import load_dataset, make_train_batches
from sam.build.network import make_network
from sam.build.resolved import numerics, resolve
from sam.config.augmentation import draws_per_batch
from sam.config.check import check
from sam.config.compose import composed
from sam.config.mistakes import report_mistakes
from sam.config.sam_rules import SAM_RULES
from sam.config.schema import TrainConfig
from sam.data.images import Dataset
from sam.system.errors import ConfigError
from sam.system.machine import commit
from scripts.benchmarks.building import update_of
from scripts.benchmarks.hessian_cost import benchmark_hessian
from scripts.benchmarks.optimizer_cost import benchmark_optimizer
from scripts.benchmarks.plain_loop import plain_loader, plain_update
from scripts.benchmarks.product_cost import benchmark_products
from scripts.benchmarks.timing import alternate, peak_memory_bytes, seconds_of_blocks, wait

ROOT = pathlib.Path(__file__).resolve().parents[2]
Row = dict[str, Any]
# Optimizers by name. A block has five updates, so that a rule with interval=5 perturbs once per block.
RULES: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd"},
    "sam": {"name": "sam"},
    "quarter": {"name": "sam", "ascent_fraction": 0.25},
    "every_fifth": {"name": "sam", "interval": 5},
    "look_sam": {"name": "sam", "interval": 5, "reuse": 0.7},
    "sam_on": {"name": "sam", "perturb": "norm"},
    "three_ascents": {"name": "sam", "ascent_steps": 3},
    "second_order": {"name": "sam", "second_order": True},
    **{rule: {"name": "sam", "rule": rule} for rule in SAM_RULES if rule != "sam"},
}
STEPS_PER_BLOCK = 5


def benchmark_data(config: TrainConfig, num_blocks: int) -> list[Row]:
    """Time the last batches of an epoch, from our pipeline and from a DataLoader."""
    if config.augmentation.mixup_alpha:
        raise ConfigError(
            "augmentation.mixup_alpha: the DataLoader of this benchmark has no mixup; leave it out"
        )
    torch.set_num_threads(1)
    data = load_dataset(config.dataset, config.seed)
    num_workers = 2 if config.runtime.workers is None else config.runtime.workers
    config.runtime.workers = num_workers
    resolved = resolve(config)
    batches = make_train_batches(config, data, resolved)
    num_batches = min(40, batches.steps_per_epoch)
    loader = plain_loader(config, data, num_batches * config.batch_size, num_workers)

    def walk(start: Callable[[], Iterable[Any]]) -> None:
        for _ in start():
            pass
        wait(resolved.device)

    first = batches.steps_per_epoch - num_batches
    variants = {"ours": partial(batches.epoch, 0, first), "DataLoader": loader.__iter__}
    if draws_per_batch(config.augmentation, config.dataset):
        config.augmentation.auto_augment_draws = "image"
        variants["image by image"] = partial(make_train_batches(config, data, resolved).epoch, 0, first)
    walks = {name: partial(walk, start) for name, start in variants.items()}
    seconds = seconds_of_blocks(walks, num_blocks)
    rows: list[Row] = [
        {
            "variant": name,
            "images_per_second": round(num_batches * config.batch_size / statistics.median(seconds[name])),
            "workers": 0 if name == "ours" and not batches.uses_workers else num_workers,
        }
        for name in seconds
    ]
    if "image by image" in seconds:
        ratios = [old / new for old, new in zip(seconds["image by image"], seconds["ours"], strict=True)]
        found = statistics.median(ratios), min(ratios), max(ratios)
        rows[0]["speed_over_image_by_image"] = [round(ratio, 2) for ratio in found]
    return rows


@dataclasses.dataclass
class Variant:
    """One variant to time: start() allocates memory and returns a function that runs a block of steps."""

    rule: str
    precision: str
    m: int | None
    start: Callable[[], Callable[[], None]]  # returns a block of steps
    label: str = ""

    def __post_init__(self) -> None:
        self.label = self.label or f"{self.rule}, {self.precision}, m={self.m or 'all'}"


def our_variants(config: TrainConfig, data: Dataset, arguments: argparse.Namespace) -> Iterator[Variant]:
    """Yield a variant for every combination of rule, precision and m."""
    ms = arguments.m or [config.m]
    precisions = arguments.precision or [config.runtime.precision]
    for rule, precision, m in itertools.product(arguments.rules, precisions, ms):
        variant = copy.deepcopy(config)
        variant.optimizer = dataclasses.replace(config.optimizer, **RULES[rule])
        variant.runtime.precision, variant.m = precision, m
        check(variant)
        yield Variant(rule, precision, m, partial(our_block, variant, data))


def our_block(config: TrainConfig, data: Dataset) -> Callable[[], None]:
    """Start training like train.py; return a function that runs the next block of steps."""
    resolved = resolve(config)
    update = update_of(config, data, resolved)
    batches = make_train_batches(config, data, resolved)
    numbered = enumerate(itertools.chain.from_iterable(batches.epoch(epoch) for epoch in itertools.count()))

    def block() -> None:
        with numerics(resolved):
            for step, (images, targets, clean) in itertools.islice(numbered, STEPS_PER_BLOCK):
                update(images, targets, config.optimizer.lr, clean, step)
            wait(resolved.device)

    return block


def plain_block(config: TrainConfig, data: Dataset, device: torch.device, is_sam: bool) -> Callable[[], None]:
    """Start the plain loop; return a function that runs the next block of steps."""
    torch.manual_seed(config.seed)
    network = make_network(config.model, data, device).to(memory_format=torch.contiguous_format)
    update = plain_update(network, config, is_sam)
    workers = 2 if config.runtime.workers is None else config.runtime.workers
    loader = plain_loader(config, data, len(data.train), workers)
    batches = itertools.chain.from_iterable(loader for _ in itertools.count())

    def block() -> None:
        for images, targets in itertools.islice(batches, STEPS_PER_BLOCK):
            update(images.to(device), targets.to(device))
        wait(device)

    return block


def benchmark_step(config: TrainConfig, num_blocks: int, arguments: argparse.Namespace) -> list[Row]:
    """Time blocks of five updates and measure the memory of the first block, for each variant."""
    device = resolve(config).device
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    data = load_dataset(config.dataset, config.seed)
    variants = list(our_variants(config, data, arguments))
    if arguments.plain:
        for name in ("sgd", "sam"):
            start = partial(plain_block, config, data, device, name == "sam")
            variants.append(Variant(name, "fp32", None, start, f"plain {name}"))
    memory = {variant.label: peak_memory_bytes(variant.start, device) for variant in variants}
    seconds = alternate({variant.label: variant.start() for variant in variants}, num_blocks)
    return [step_row(variant, variants, seconds, memory, config.batch_size) for variant in variants]


def step_row(
    variant: Variant,
    variants: list[Variant],
    seconds: Mapping[str, float],
    memory: Mapping[str, int],
    batch_size: int,
) -> Row:
    """Return the table row of a variant, with its time over SGD's and its speed over the plain loop's."""
    own = seconds[variant.label]
    is_plain = variant.label.startswith("plain")
    row: Row = {
        "variant": variant.label,
        "step_ms": round(1000 * own / STEPS_PER_BLOCK, 2),
        "images_per_second": round(STEPS_PER_BLOCK * batch_size / own, 1),
    }
    same = (variant.precision, variant.m, is_plain)
    for other in variants:
        other_is_plain = other.label.startswith("plain")
        if other.rule == "sgd" and same == (other.precision, other.m, other_is_plain):
            row["time_over_sgd"] = round(own / seconds[other.label], 3)
        if other_is_plain and other.rule == ("sgd" if variant.rule == "sgd" else "sam"):
            row["speed_over_plain"] = round(seconds[other.label] / own, 2)
    row["peak_memory_mib"] = round(memory[variant.label] / 2**20, 2)
    return row


def benchmark_models(overrides: list[str], models: list[str]) -> list[Row]:
    """Train every model with SGD and with SAM for two updates of two micro-batches of 4 random images.

    Images have 32 x 32 pixels, or 96 x 96 for timm's models. Each run has its own process.
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


def print_rows(rows: list[Row]) -> None:
    """Print one line per variant."""
    print("".join(f"{key:<30}" for key in rows[0]))
    for row in rows:
        print("".join(f"{row.get(key, '')!s:<30}" for key in rows[0]))


def _parsed() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["data", "step", "optimizer", "models", "hessian", "products"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--blocks", type=int, default=20, help="number of blocks per variant")
    parser.add_argument("--m", type=int, nargs="+", default=[], help="step: values of m")
    parser.add_argument(
        "--precision", nargs="+", choices=["fp32", "tf32", "bf16", "fp16"], help="step: precisions"
    )
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=["sgd", "sam"], help="step: rules")
    parser.add_argument("--plain", action="store_true", help="step: also time the plain loop")
    parser.add_argument("--only", nargs="+", help="models: only these models")
    parser.add_argument(
        "--json", type=pathlib.Path, help="write the table and the machine's data to this file"
    )
    return parser.parse_intermixed_args()


def main() -> None:
    """Run the command."""
    arguments = _parsed()
    if arguments.what == "models":
        every = sorted(path.stem for path in (ROOT / "configs" / "model").glob("*.yaml"))
        rows = benchmark_models(arguments.overrides, arguments.only or [m for m in every if m != "timm"])
    elif arguments.what == "optimizer":
        rows = benchmark_optimizer(arguments.blocks)
        print_rows(rows)
    else:
        config = composed(arguments.overrides)
        if arguments.what == "step":
            rows = benchmark_step(config, arguments.blocks, arguments)
        else:
            of_config = {
                "data": benchmark_data,
                "hessian": benchmark_hessian,
                "products": benchmark_products,
            }
            rows = of_config[arguments.what](config, arguments.blocks)
        print_rows(rows)
    record = {
        "command": "python scripts/benchmarks/benchmark.py " + " ".join(sys.argv[1:]),
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
