"""Time of an update whose batch is already on the device: ours, next to two plain loops.

The plain loops are SGD, and the SAM of davda54/sam in its usual loop (scripts/benchmarks/plain_loop.py), both
with torch's defaults: on a GPU with tf32 in convolutions. Micro-batches of m images are made by hand there.
The variants of a case take turns in short blocks, in one process. A ratio is the median of the ratios of
blocks. Its interval holds all of them: with seven blocks it covers the true median in 98 of 100 cases.
"""

import dataclasses
import gc
import itertools
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import profile

from sam.build.data import load_dataset
from sam.build.network import make_network
from sam.build.resolved import numerics, resolve
from sam.config.schema import TrainConfig
from sam.data.images import Dataset
from sam.system.errors import first_line
from scripts.benchmarks.building import config_of, update_of
from scripts.benchmarks.plain_loop import plain_update
from scripts.benchmarks.timing import peak_memory_bytes, seconds_of_blocks, wait

Row = dict[str, Any]
Block = Callable[[], None]
REFERENCE = "davda54 sam"
NUM_WARM_UPS = 4  # a graph is recorded in the third update
BLOCK_SECONDS = 0.15
MOST_BLOCKS = 15


@dataclasses.dataclass(frozen=True)
class Case:
    """What all variants of a row have in common."""

    model: str
    batch_size: int
    m: int
    precision: str
    compile: bool = False


# In the order of interest, since the time may not be enough for all.
CASES = (
    Case("wrn_28_10", 256, 32, "bf16"),
    Case("wrn_28_10", 256, 256, "bf16"),
    Case("wrn_28_10", 256, 32, "bf16", compile=True),
    Case("wrn_28_10", 256, 256, "bf16", compile=True),
    Case("resnet8", 128, 128, "bf16"),
    Case("resnet20", 128, 128, "bf16"),
    Case("wrn_28_10", 256, 32, "tf32"),
    Case("wrn_28_10", 256, 256, "tf32"),
    Case("wrn_28_10", 256, 32, "fp32"),
    Case("wrn_28_10", 256, 256, "fp32"),
    Case("resnet20", 128, 128, "bf16", compile=True),
    Case("resnet8", 128, 128, "bf16", compile=True),
)
REHEARSED = (Case("resnet8", 8, 4, "fp32"), Case("resnet8", 8, 8, "bf16", compile=True))


def measure(case: Case, device: torch.device, limit_seconds: float) -> Row:
    """Return the row of a case: times, speeds over the reference, peak memory, and what failed.

    Args:
        case: The network, its batch and its precision.
        device: A CPU, for a rehearsal with a narrow network, or a GPU.
        limit_seconds: Time for the blocks, without the time to build and to warm up.
    """
    row: Row = {**dataclasses.asdict(case), "failed": {}, "peak_memory_mib": {}, "busy": {}}
    blocks: dict[str, Block] = {}
    for name, start in _variants(case, device).items():
        with _failure_noted(row, name):
            started = partial(_kept, start, blocks, name)
            row["peak_memory_mib"][name] = round(peak_memory_bytes(started, device) / 2**20, 1)
        if name in row["failed"]:
            blocks.pop(name, None)
            free_memory(device)  # not the compiled code: other variants use it
    counts = {name: _updates_per_block(block, device) for name, block in blocks.items()}
    repeated = {name: partial(_repeat, block, counts[name], device) for name, block in blocks.items()}
    seconds = seconds_of_blocks(repeated, MOST_BLOCKS, limit_seconds)
    each = {name: [one / counts[name] for one in values] for name, values in seconds.items()}
    for name, block in repeated.items():
        if device.type == "cuda" and name.startswith("sam"):
            with _failure_noted(row, f"busy share of {name}"):
                row["busy"][name] = _busy(block)
    return row | _summary(each, case.batch_size)


@contextmanager
def _failure_noted(row: Row, name: str) -> Iterator[None]:
    """Note an error in the row: memory may be too small, or a compiler missing, for one variant only."""
    try:
        yield
    except Exception as error:
        row["failed"][name] = f"{type(error).__name__}: {first_line(error)}"


def _summary(each: dict[str, list[float]], batch_size: int) -> Row:
    """Return medians and ratios of the seconds per update of all blocks."""
    median = {name: statistics.median(values) for name, values in each.items()}
    row: Row = {
        "num_blocks": min(map(len, each.values()), default=0),
        "ms": {name: round(1000 * one, 2) for name, one in median.items()},
        "images_per_second": {name: round(batch_size / one) for name, one in median.items()},
        "speed_over_reference": {},
        "sam_over_sgd": {},
    }
    for name, values in each.items():
        if name.startswith("sam") and REFERENCE in each:
            row["speed_over_reference"][name] = _ratio(each[REFERENCE], values)
        if name.startswith("sam") and (sgd := name.replace("sam", "sgd", 1)) in each:
            row["sam_over_sgd"][name] = _ratio(values, each[sgd])
    return row


def _ratio(above: list[float], below: list[float]) -> list[float]:
    """Return the median ratio of two variants' blocks, the lowest and the highest."""
    ratios = [one / other for one, other in zip(above, below, strict=True)]
    return [round(value, 3) for value in (statistics.median(ratios), min(ratios), max(ratios))]


def _variants(case: Case, device: torch.device) -> dict[str, Callable[[], Block]]:
    """Return for each variant the function that starts it."""
    starts: dict[str, Callable[[], Block]] = {}
    for rule, label in (("sgd", "plain sgd"), ("sam", REFERENCE)):
        starts[label] = partial(_start_plain, case, device, rule == "sam")
    compiled = ", compiled" if case.compile else ""
    graphs = (False, True) if device.type == "cuda" else (False,)
    for rule, graph in itertools.product(("sgd", "sam"), graphs):
        name = f"{rule} {'captured' if graph else 'eager'}{compiled}"
        starts[name] = partial(_start_ours, case, device, rule, graph)
    return starts


def _config(case: Case, device: torch.device, rule: str, graph: bool) -> TrainConfig:
    changes: dict[str, Any] = {
        "dataset": "synthetic",
        "model": case.model,
        "optimizer": rule,
        "batch_size": case.batch_size,
        "m": case.m,
        "dataset.num_train": case.batch_size,
        "dataset.num_test": 10,
        "runtime.device": str(device),
        "runtime.precision": case.precision,
        "runtime.compile": case.compile,
        "runtime.graph": "true" if graph else "false",
    }
    if device.type == "cpu":
        changes |= {"model.width": 4, "dataset.image_size": 12}
    return config_of(changes)


def _batch(config: TrainConfig, device: torch.device) -> tuple[Dataset, Tensor, Tensor]:
    """Return the dataset, and a random batch on the device."""
    data = load_dataset(config.dataset, config.seed)
    side = data.train.shape[0]
    images = torch.randn(config.batch_size, data.num_channels, side, side, device=device)
    return data, images, torch.randint(data.num_classes, (config.batch_size,), device=device)


def _start_ours(case: Case, device: torch.device, rule: str, graph: bool) -> Block:
    """Return a function that makes one of our updates, after the updates that warm it up."""
    config = _config(case, device, rule, graph)
    resolved = resolve(config)
    data, images, targets = _batch(config, device)
    images = images.contiguous(memory_format=torch.channels_last)
    update, steps = update_of(config, data, resolved), itertools.count()

    def one() -> None:
        with numerics(resolved):
            update(images, targets, config.optimizer.lr, None, next(steps))

    _repeat(one, NUM_WARM_UPS, device)
    return one


def _start_plain(case: Case, device: torch.device, is_sam: bool) -> Block:
    config = _config(case, device, "sam", graph=False)
    data, images, targets = _batch(config, device)
    network = make_network(config.model, data, device).to(memory_format=torch.contiguous_format)
    one = partial(plain_update(network, config, is_sam, case.m), images, targets)
    _repeat(one, NUM_WARM_UPS, device)
    return one


def _kept(start: Callable[[], Block], blocks: dict[str, Block], name: str) -> Block:
    blocks[name] = start()
    return blocks[name]


def _repeat(block: Block, times: int, device: torch.device) -> None:
    for _ in range(times):
        block()
    wait(device)


def _updates_per_block(block: Block, device: torch.device) -> int:
    (seconds,) = seconds_of_blocks({"one": partial(_repeat, block, 1, device)}, 1)["one"]
    return max(1, round(BLOCK_SECONDS / seconds))


def _busy(block: Block) -> float:
    """Return the share of the time from a block's first kernel to its last in which the GPU works."""
    with profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as record:
        block()
    events: list[Any] = record.profiler.kineto_results.events()
    spans: list[tuple[int, int]] = sorted(
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.device_type().name == "CUDA" and event.duration_ns() > 0
    )
    busy: int = 0
    end: int = spans[0][0]
    for start, stop in spans:
        busy += max(0, stop - max(start, end))
        end = max(end, stop)
    return round(busy / float(end - spans[0][0]), 3)


def free(device: torch.device) -> None:
    """Give back the memory and the compiled code of what no one uses any more."""
    torch.compiler.reset()
    free_memory(device)


def free_memory(device: torch.device) -> None:
    """Give back the memory of what no one uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def speed(device: torch.device, emit: Callable[[Row], None], limit_seconds: float = 5.0) -> None:
    """Emit the row of each case.

    Args:
        device: A CPU, for a rehearsal with narrow networks, or a GPU.
        emit: Takes a row as soon as it is there.
        limit_seconds: Time for the blocks of a case.
    """
    for case in REHEARSED if device.type == "cpu" else CASES:
        emit(measure(case, device, limit_seconds))
        free(device)
