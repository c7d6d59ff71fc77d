"""Estimate what the paper's Tables 1 to 5 cost on many H100: python scripts/benchmarks/capacity.py.

Prints Markdown. Runs, updates, parameters and operations are counted; how fast an H100 works is assumed, and
so are its links. Nothing is trained, and no GPU or data is needed.
"""

import argparse
import dataclasses
import heapq
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from sam.build.network import ARCHITECTURES  # noqa: E402
from sam.config.dataset import FILE_READERS  # noqa: E402
from sam.config.model import (  # noqa: E402
    MODEL_OPTIONS,  # noqa: E402
    ModelConfig,  # noqa: E402
)
from sam.config.schema import TrainConfig  # noqa: E402
from sam.paper.cells import (  # noqa: E402
    CELLS,  # noqa: E402
    read_cells,  # noqa: E402
)
from sam.paper.runs import (  # noqa: E402
    SIZES,  # noqa: E402
    PlannedRun,  # noqa: E402
    num_evaluated,  # noqa: E402
    num_updates,  # noqa: E402
    runs_of,  # noqa: E402
    unique,  # noqa: E402
)
from sam.report.markup import render_table  # noqa: E402

TABLES = ("1", "2", "3", "4", "5")
GPUS_PER_HOST = 8
# Assumed: an H100 SXM is as fast as NVIDIA's DeepLearningExamples has it of an older card, in images a second
# (ResNet-50 at 224, EfficientNet-B4 at 380 pixels), times one of these gains: none, that of memory, of peaks.
# fp32 from a V100: on to an A100 (peak, memory), on to an H100 (memory); the others from an A100 of 80 GB.
PUBLISHED = {"fp32": (367, 83), "tf32": (938, 157), "bf16": (2470, 331)}
GAINS = {"fp32": (1.24, 2.27, 3.72), "tf32": (1.0, 1.64, 3.17), "bf16": (1.0, 1.64, 3.17)}
FORWARD_FLOPS = (8.18e9, 8.79e9)
# Assumed, bytes a second and GPU: three quarters of NVLink 4 one way, and of a card of 400 Gbit/s for each.
LINKS = {"inside a host": 0.75 * 450e9, "between hosts": 0.75 * 50e9}
# A backward pass takes two products for each of a forward pass: for the weights, and for what came in.
# FlopCounterMode counts so, too, but takes a depthwise convolution for a dense one there.
PASS_OVER_FORWARD = 3
# Of real runs: weights and momentum in fp32; a row of metrics.csv with its points in TensorBoard; the rest.
CHECKPOINT_BYTES_PER_PARAMETER, ROW_BYTES, FIXED_BYTES, NUM_FILES = 8, 1000, 5000, 6


class Network(NamedTuple):
    """What is counted of a network: its parameters, and the operations of its forward pass for one image."""

    num_parameters: int
    forward_flops: float


class Job(NamedTuple):
    """One run: how many GPUs it takes, and its seconds on them."""

    num_gpus: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args(arguments)
    plan = {f"table{table}": runs_of_table(table) for table in TABLES}
    runs = unique(run for members in plan.values() for run in members)
    parts = {**plan, "all, shared runs once": runs}
    for text in (_work(parts), _wall(runs), _networks(runs), _disk(parts)):
        print(f"{text}\n")
    return 0


def runs_of_table(table: str) -> list[PlannedRun]:
    """Return the runs of a table, each once, as scripts/reproduce.py trains them."""
    cells = [cell for cell in read_cells(CELLS) if cell.table == table]
    return unique(run for cell in cells for run in runs_of(cell, range(cell.num_seeds)))


def ring_bytes(num_parameters: int, num_gpus: int) -> float:
    """Return what each GPU sends in one all-reduce of fp32 gradients over a ring."""
    return 2 * (num_gpus - 1) / num_gpus * 4 * num_parameters


def flops(config: TrainConfig) -> float:
    """Return the operations of a run: two for a multiplication and an addition, evaluations among them."""
    passes = 1 + config.optimizer.ascent_steps if config.optimizer.name == "sam" else 1
    num_images = num_updates(config) * config.batch_size
    forwards = PASS_OVER_FORWARD * passes * num_images + num_evaluated(config)
    return forwards * network_of(config).forward_flops


def network_of(config: TrainConfig) -> Network:
    """Count the network of a run, at the size of its images."""
    size = SIZES[config.dataset.name]
    pixels = config.dataset.image_size or size.num_pixels
    assert pixels is not None, "a folder of images has a size in its config"
    model = dataclasses.replace(config.model, weights=None)
    return _count(tuple(dataclasses.asdict(model).items()), size.num_classes, pixels)


@cache
def _count(options: tuple[tuple[str, object], ...], num_classes: int, pixels: int) -> Network:
    model = ModelConfig(**dict(options))  # type: ignore[arg-type]
    chosen = {name: getattr(model, name) for name in MODEL_OPTIONS[model.architecture]}
    with torch.device("meta"):
        network = ARCHITECTURES[model.architecture](in_channels=3, num_classes=num_classes, **chosen)
        images = torch.empty(2, 3, pixels, pixels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Network(num_parameters, counter.get_total_flops() / len(images))


def sustained(model_name: str, precision: str, place: int) -> float:
    """Return the operations a second that are assumed; arguments as for `job`."""
    kind = int(model_name.startswith("efficientnet"))
    pass_flops = PASS_OVER_FORWARD * FORWARD_FLOPS[kind]
    return PUBLISHED[precision][kind] * pass_flops * GAINS[precision][place]


def job(config: TrainConfig, precision: str, place: int) -> Job:
    """Return how a run is scheduled: on a whole host where its images are files, else on one GPU.

    Args:
        config: Of the run.
        precision: fp32, tf32 or bf16.
        place: Of the assumption: 0 for the lowest speed, 1, 2 for the highest.
    """
    is_large = config.model.architecture == "timm" or config.dataset.reader in FILE_READERS
    num_gpus = GPUS_PER_HOST if is_large else 1
    return Job(num_gpus, flops(config) / sustained(config.model.name, precision, place) / num_gpus)


def wall_seconds(jobs: Sequence[Job], num_hosts: int) -> float:
    """Return when the last job ends: whole hosts first, long before short, each where room is soonest."""
    hosts = [0.0] * num_hosts
    for one in sorted((one for one in jobs if one.num_gpus > 1), reverse=True):
        heapq.heapreplace(hosts, hosts[0] + one.seconds)
    gpus = [host for host in hosts for _ in range(GPUS_PER_HOST)]
    heapq.heapify(gpus)
    for one in sorted((one for one in jobs if one.num_gpus == 1), reverse=True):
        heapq.heapreplace(gpus, gpus[0] + one.seconds)
    return max(gpus)


def _work(parts: Mapping[str, Sequence[PlannedRun]]) -> str:
    rows = []
    for name, runs in parts.items():
        rows.append([name, str(len(runs)), f"{sum(flops(run.config) for run in runs) / 1e18:,.0f}"])
        for precision in PUBLISHED:
            jobs = [[job(run.config, precision, place) for run in runs] for place in range(3)]
            low, middle, high = (sum(one.num_gpus * one.seconds for one in made) / 3600 for made in jobs)
            rows[-1].append(f"{middle:,.0f} ({high:,.0f} to {low:,.0f})")
    header = ["", "runs", "10^18 operations", *(f"GPU hours, {precision}" for precision in PUBLISHED)]
    return render_table(header, rows)


def _wall(runs: Sequence[PlannedRun]) -> str:
    rows = []
    for precision in PUBLISHED:
        jobs = [job(run.config, precision, 1) for run in runs]
        days = [wall_seconds(jobs, num_hosts) / 86400 for num_hosts in (1, 8)]
        longest = max(one.seconds for one in jobs) / 86400
        rows.append([precision, *(f"{day:,.1f}" for day in days), f"{longest:,.1f}"])
    return render_table(["middle speed", "days on 8 GPUs", "days on 64 GPUs", "longest run, days"], rows)


def _networks(runs: Sequence[PlannedRun]) -> str:
    rows: dict[str, list[str]] = {}
    for config in (run.config for run in runs if run.config.optimizer.name == "sam"):
        network, dataset = network_of(config), config.dataset
        pixels = config.model.input_size or dataset.image_size or SIZES[dataset.name].num_pixels
        sent = ring_bytes(network.num_parameters, GPUS_PER_HOST)
        speed = GPUS_PER_HOST * sustained(config.model.name, "bf16", 1)
        update = 2 * PASS_OVER_FORWARD * config.batch_size * network.forward_flops / speed
        num_ascents = config.batch_size // (config.m or config.batch_size)
        numbers = [network.num_parameters / 1e6, network.forward_flops / 1e9, sent / 1e6]
        times = [1e3 * sent / link for link in LINKS.values()] + [1e3 * update]
        cells = [f"{value:,.1f}" for value in [*numbers, *times]]
        name = f"{config.model.name}, {pixels} pixels"
        rows.setdefault(name, [name, *cells, f"1 / 2 / {1 + num_ascents}"])
    counts = ["10^6 parameters", "10^9 operations, forward", "MB sent per all-reduce"]
    header = [
        "a SAM update, 8 GPUs",
        *counts,
        *(f"ms, {link}" for link in LINKS),
        "ms, passes",
        "all-reduces",
    ]
    return render_table(header, list(rows.values()))


def _disk(parts: Mapping[str, Sequence[PlannedRun]]) -> str:
    rows = []
    for name, members in parts.items():
        saved = [CHECKPOINT_BYTES_PER_PARAMETER * network_of(run.config).num_parameters for run in members]
        logs = sum(FIXED_BYTES + ROW_BYTES * run.config.epochs for run in members)
        counts = [f"{NUM_FILES * len(members):,}", f"{sum(saved) / 1e9:,.0f}", f"{max(saved) / 1e9:.2f}"]
        rows.append([name, *counts, f"{logs / 1e9:.2f}"])
    return render_table(["", "files", "GB of checkpoints", "GB of the largest", "GB of logs"], rows)


if __name__ == "__main__":
    sys.exit(main())
